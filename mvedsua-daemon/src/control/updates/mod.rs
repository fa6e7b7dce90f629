//! Updates that are under way: one task each, which drives the lifecycle.

mod driver;
mod growth;
mod limits;
mod verify;
mod view;

use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use driver::{Asked, Driver};
pub(crate) use view::{View, is_single, promotion_is_decided};

use super::Engine;
use super::audit::Audit;
use super::dirs::Dirs;
use super::events::Events;
use super::gates::GatesConfig;
use super::history::History;
use super::journal::Journal;
use super::names::Names;
use super::observer::Observer;
use crate::lifecycle::{Event, Refusal};

/// What every update needs of the daemon.
pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) journal: Journal,
    pub(crate) history: History,
    pub(crate) audit: Audit,
    pub(crate) events: Events,
    pub(crate) names: Names,
    /// How gates are asked.
    pub(crate) gates: OnceLock<GatesConfig>,
    pub(crate) dirs: Dirs,
}

/// A request of the operator and where its answer goes.
pub(crate) struct Operation {
    pub(crate) event: Event,
    pub(crate) answer: oneshot::Sender<Result<(), Refusal>>,
}

/// An update as the rest of the daemon holds it.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) id: u64,
    /// Ends when the update is over.
    pub(crate) operations: mpsc::Sender<Operation>,
    pub(crate) view: watch::Receiver<View>,
}

/// Why a request of the operator came to nothing.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// The update is over.
    Over,
    /// It is not possible now.
    Refused(Refusal),
    /// The daemon's own task failed while it took it.
    Failed,
}

impl Handle {
    /// Passes a request of the operator on.
    pub(crate) async fn ask(&self, event: Event) -> Result<(), NotTaken> {
        let (answer, answered) = oneshot::channel();
        self.operations.send(Operation { event, answer }).await.map_err(|_| NotTaken::Over)?;
        match answered.await {
            Ok(taken) => taken.map_err(NotTaken::Refused),
            Err(_) if self.view.borrow().state.is_settled() => Err(NotTaken::Over),
            Err(_) => Err(NotTaken::Failed),
        }
    }
}
