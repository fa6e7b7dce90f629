//! The streams of a run: each process of the leader has one, with a log for each follower.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::{self, Reader};
use crate::ptrace::wait::Bell;
use crate::record::StreamId;
use crate::record::leading::processes;
use crate::record::stream::Stream;

/// What one follower has not taken yet.
#[derive(Debug)]
struct Branch {
    bell: Arc<Bell>,
    /// `None` once the follower is dropped.
    waiting: Mutex<Option<HashMap<StreamId, Reader>>>,
}

/// Opens streams, and keeps their readers until the followers come to the records of the births.
#[derive(Debug)]
pub(super) struct Streams {
    next: AtomicU32,
    config: log::Config,
    leader: Arc<Bell>,
    branches: Vec<Branch>,
}

impl Streams {
    /// `leader` is woken when a log has room again, a follower when there are records for it; followers that could not be
    /// started have no bell.
    pub(super) fn new(config: log::Config, leader: Arc<Bell>, followers: Vec<Option<Arc<Bell>>>) -> Streams {
        let branch = |bell: Option<Arc<Bell>>| {
            let waiting = Mutex::new(bell.is_some().then(HashMap::new));
            Branch { bell: bell.unwrap_or_else(|| Arc::clone(&leader)), waiting }
        };
        let branches = followers.into_iter().map(branch).collect();
        Streams { next: AtomicU32::new(0), config, leader: Arc::clone(&leader), branches }
    }

    /// Returns a follower's end of a stream, once.
    pub(super) fn take(&self, follower: usize, stream: StreamId) -> Option<Reader> {
        self.branches.get(follower)?.lock().as_mut()?.remove(&stream)
    }

    /// A follower takes no more streams.
    pub(super) fn abandon(&self, follower: usize) {
        if let Some(branch) = self.branches.get(follower) {
            *branch.lock() = None;
        }
    }
}

impl Branch {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HashMap<StreamId, Reader>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl processes::Streams for Streams {
    fn open(&self) -> (StreamId, Stream) {
        let id = StreamId(self.next.fetch_add(1, Ordering::Relaxed));
        let mut writers = Vec::new();
        for branch in &self.branches {
            if let Some(waiting) = branch.lock().as_mut() {
                let (writer, reader) = log::channel(self.config.clone());
                let (leader, follower) = (Arc::clone(&self.leader), Arc::clone(&branch.bell));
                writer.set_waker(Arc::new(move || leader.ring()));
                reader.set_waker(Arc::new(move || follower.ring()));
                waiting.insert(id, reader);
                writers.push(writer);
            }
        }
        (id, Stream::branching(writers))
    }
}
