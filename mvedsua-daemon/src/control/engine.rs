//! What the control plane needs of an engine.

use std::any::Any;

use crossbeam_channel::{Receiver, Sender};

use super::journal::JournalEntry;
use crate::lifecycle::Recovery;
use crate::update::{Command, FailureKind, Options, SessionEvent};

/// The two ends of a running session.
pub struct SessionHandle {
    pub commands: Sender<Command>,
    /// Ends when the session is over; what it says last is said in [`SessionEvent`].
    pub events: Receiver<SessionEvent>,
    /// What must live until the events end; dropping it may wait for the session's threads.
    pub keep: Box<dyn Any + Send>,
}

/// What an engine can do beyond rehearsing the same version. Packages may ask for what an engine cannot do yet; such an
/// update is refused, since a check that is silently left out is worse than none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// Applies packages with `method = "in-place"`.
    InPlace,
    /// Applies packages with `method = "binary"`.
    Binary,
    /// Heeds a package's rules.
    Rules,
}

/// Runs updates. The calls may block; they are made outside the control plane's own thread.
pub trait Engine: Send + Sync {
    /// Starts to update a process; everything else is reported by the session.
    ///
    /// # Errors
    ///
    /// Where nothing was begun.
    fn start(&self, pid: i32, options: Options) -> Result<SessionHandle, FailureKind>;

    /// Returns what it can do.
    fn abilities(&self) -> &'static [Ability] {
        &[]
    }

    /// Sees that a process can apply a new version itself, before anything is touched.
    ///
    /// # Errors
    ///
    /// Why it cannot, for the operator.
    fn check_in_place(&self, _pid: i32) -> Result<(), String> {
        Ok(())
    }

    /// Undoes what a daemon that died, or a session that was lost, left behind, and says who serves.
    fn recover(&self, entry: &JournalEntry) -> Recovery;
}
