//! How a new version comes into the follower (DESIGN 3a).
//!
//! The session knows no method by name. It has the method look at the process before anything is touched, and gives what
//! comes of that, an [`Application`], the chance to do its part where the leader has just been forked and where the follower
//! has just been made.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::process::Process;
use crate::ptrace::memory::Memory;
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Pid, Result, Tid};
use crate::record::Slot;
use crate::replay::following::applying::Applying;

/// A way to a new version.
pub(crate) trait Method: Debug + Send + Sync {
    /// Looks at a process before anything of it is touched.
    fn look(&self, pid: Pid) -> Result<Box<dyn Application>>;
}

/// One new version on its way into one follower.
pub(crate) trait Application: Debug + Send {
    /// The leader has been forked and stands still. What fails here costs the service nothing, and the update is made all
    /// the same.
    fn on_forked(&mut self, _leader: &Memory) -> Result<()> {
        Ok(())
    }

    /// The follower has been made. Its threads are parked where the leader's were. Returns what is left to be done while it
    /// follows as the old version; nothing where the new version is there.
    fn begin(self: Box<Self>, _follower: &Follower<'_>) -> Result<Option<Applying>> {
        Ok(None)
    }
}

/// A follower whose threads are parked.
#[derive(Debug)]
pub(crate) struct Follower<'a> {
    pub(crate) inbox: &'a Inbox,
    pub(crate) process: &'a Process,
    pub(crate) leader: Pid,
    /// The leader's threads, which the follower is to take its own for.
    pub(crate) leaders: BTreeMap<Slot, Tid>,
    /// How long it may take until the new version is there.
    pub(crate) limit: std::time::Duration,
}

/// The same version once more: a rehearsal.
#[derive(Debug)]
pub(crate) struct Itself;

impl Method for Itself {
    fn look(&self, _pid: Pid) -> Result<Box<dyn Application>> {
        Ok(Box::new(Rehearsed))
    }
}

#[derive(Debug)]
struct Rehearsed;

impl Application for Rehearsed {}
