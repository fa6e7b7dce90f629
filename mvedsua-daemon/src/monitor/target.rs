//! A target and its processes, as the daemon keeps them.

use std::collections::{BTreeMap, VecDeque};

use super::batch::{self, Batch, CallKey};
use super::clock;
use super::tally::{Reading, Tally};
use super::types::{AttachOptions, ProcessState, SlowCall, TargetInfo};

/// Ended processes that have a line of their own; older ones are summed up.
pub(super) const MAX_ENDED: usize = 64;

/// Slow calls that are kept.
pub(super) const MAX_SLOW: usize = 200;

/// One call of a process.
pub(super) struct Call {
    /// What the kernel had counted when it was last read.
    pub(super) reading: Reading,
    pub(super) tally: Tally,
}

/// One process that is followed.
pub(super) struct Observed {
    /// Tells processes apart even when ids are used again.
    pub(super) key: u64,
    pub(super) pid: i32,
    pub(super) parent: Option<i32>,
    pub(super) name: String,
    pub(super) target: i32,
    pub(super) calls: BTreeMap<u32, Call>,
}

/// One process that has ended.
pub(super) struct Ended {
    pub(super) key: u64,
    pub(super) pid: i32,
    pub(super) parent: Option<i32>,
    pub(super) name: String,
    pub(super) calls: BTreeMap<u32, Tally>,
}

/// The key of the line that sums up processes that ended long ago.
pub(super) const OLDER: u64 = 0;

/// One target.
pub(super) struct Target {
    pub(super) pid: i32,
    pub(super) name: String,
    pub(super) options: AttachOptions,
    pub(super) state: ProcessState,
    attached_at_ms: u64,
    /// When the statistics began, `CLOCK_MONOTONIC`.
    pub(super) began_ns: u64,
    /// What the present window or, in exact mode, second has brought so far.
    pub(super) current: Batch,
    pub(super) batches: Vec<Batch>,
    pub(super) ended: VecDeque<Ended>,
    pub(super) older: BTreeMap<u32, Tally>,
    pub(super) slow: VecDeque<SlowCall>,
    pub(super) slow_seen: u64,
}

impl Target {
    pub(super) fn new(pid: i32, name: String, options: AttachOptions) -> Self {
        Target {
            pid,
            name,
            options,
            state: ProcessState::Running,
            attached_at_ms: clock::unix_ms(),
            began_ns: clock::monotonic_ns(),
            current: Batch::default(),
            batches: Vec::new(),
            ended: VecDeque::new(),
            older: BTreeMap::new(),
            slow: VecDeque::new(),
            slow_seen: 0,
        }
    }

    pub(super) fn info(&self) -> TargetInfo {
        TargetInfo {
            pid: self.pid,
            name: self.name.clone(),
            options: self.options,
            attached_at_ms: self.attached_at_ms,
            state: self.state,
        }
    }

    /// Forgets the statistics; those of running processes are restarted by the caller.
    pub(super) fn restart(&mut self) {
        self.began_ns = clock::monotonic_ns();
        self.current = Batch::default();
        self.batches.clear();
        self.ended.clear();
        self.older.clear();
    }

    /// Notes that the target is observed from now on.
    pub(super) fn begin_batch(&mut self) {
        self.current.started_ms = clock::unix_ms();
    }

    /// Ends the present batch and keeps it.
    pub(super) fn end_batch(&mut self) {
        batch::push(&mut self.batches, std::mem::take(&mut self.current));
    }

    /// Keeps what an ended process did.
    pub(super) fn bury(&mut self, process: Observed) {
        let calls = process.calls.into_iter().map(|(nr, call)| (nr, call.tally)).collect();
        self.ended.push_back(Ended {
            key: process.key,
            pid: process.pid,
            parent: process.parent,
            name: process.name,
            calls,
        });
        while self.ended.len() > MAX_ENDED {
            let Some(oldest) = self.ended.pop_front() else { break };
            self.sum_up(oldest);
        }
    }

    fn sum_up(&mut self, ended: Ended) {
        for (nr, tally) in ended.calls {
            self.older.entry(nr).or_insert_with(Tally::new).merge(&tally);
        }
        for batch in self.batches.iter_mut().chain([&mut self.current]) {
            let theirs: Vec<CallKey> = batch.calls.keys().filter(|key| key.process == ended.key).copied().collect();
            for key in theirs {
                batch.rename(key, CallKey { process: OLDER, nr: key.nr });
            }
        }
    }

    pub(super) fn keep_slow(&mut self, call: SlowCall) {
        self.slow_seen += 1;
        self.slow.push_back(call);
        if self.slow.len() > MAX_SLOW {
            self.slow.pop_front();
        }
    }
}
