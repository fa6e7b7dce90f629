//! What both halves of the log touch.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::Waker;
use crate::record::Record;

/// A record with the bytes of memory that it was charged for.
pub(super) type Charged = (Record, u64);

pub(super) struct Shared {
    pub(super) memory_budget: u64,
    pub(super) disk_budget: u64,
    state: Mutex<State>,
    /// Tells the thread at the disk that there may be something to do.
    pub(super) work: Condvar,
    /// Bytes charged by the writer and given back by the reader; the difference is in use.
    pub(super) memory_in: AtomicU64,
    pub(super) memory_out: AtomicU64,
    /// Length of the part of the spill file that is in use, with what is on its way there.
    pub(super) disk: AtomicU64,
    pub(super) appended: AtomicU64,
    pub(super) consumed: AtomicU64,
    pub(super) writer_waits: AtomicBool,
    writer_waker: OnceLock<Waker>,
    reader_waker: OnceLock<Waker>,
}

/// How long one read or write may take before the disk is said to hang.
const IN_TIME: Duration = Duration::from_secs(5);

/// Guarded by one short-held lock; no file is read or written under it.
#[derive(Default)]
pub(super) struct State {
    /// Older than everything that is spilled.
    pub(super) queue: VecDeque<Charged>,
    /// Spilled records that the reader has not taken. While it is not 0 nothing is put into `queue`.
    pub(super) spilled: u64,
    /// Frames that the thread at the disk has not taken yet; the newest ones.
    pub(super) outgoing: Vec<u8>,
    /// Bytes of frames that the disk has not taken: those in `outgoing`, and those that are being written.
    pub(super) unwritten: u64,
    /// Frames that were read back, the oldest first; older than all others that are spilled.
    pub(super) loaded: VecDeque<Loaded>,
    /// Why the last write failed, until one succeeds or the writer was told.
    pub(super) refused: Option<String>,
    /// Why nothing more can be read back.
    pub(super) unreadable: Option<String>,
    /// Since when the thread at the disk has been at one read or write.
    pub(super) busy_since: Option<Instant>,
    pub(super) reader_waits: bool,
    pub(super) writer_gone: bool,
    pub(super) reader_gone: bool,
}

/// Whole frames, and how many they are.
pub(super) struct Loaded {
    pub(super) frames: Vec<u8>,
    pub(super) count: u64,
}

impl State {
    /// Returns how long the disk has not answered, where that is too long.
    pub(super) fn hangs(&self) -> Option<Duration> {
        self.busy_since.map(|since| since.elapsed()).filter(|so_far| *so_far >= IN_TIME)
    }
}

impl Shared {
    pub(super) fn new(memory_budget: u64, disk_budget: u64) -> Shared {
        Shared {
            memory_budget,
            disk_budget,
            state: Mutex::default(),
            work: Condvar::new(),
            memory_in: AtomicU64::new(0),
            memory_out: AtomicU64::new(0),
            disk: AtomicU64::new(0),
            appended: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            writer_waits: AtomicBool::new(false),
            writer_waker: OnceLock::new(),
            reader_waker: OnceLock::new(),
        }
    }

    /// A panic of one side leaves the state consistent (every critical section is a few assignments), so the other goes on.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn memory_used(&self) -> u64 {
        // Out first: in only grows, so the difference is never negative and never too small.
        let out = self.memory_out.load(SeqCst);
        self.memory_in.load(SeqCst).saturating_sub(out)
    }

    pub(super) fn set_writer_waker(&self, waker: Waker) {
        // A second waker would mean a second writer; the first one stays.
        let _ = self.writer_waker.set(waker);
    }

    pub(super) fn set_reader_waker(&self, waker: Waker) {
        let _ = self.reader_waker.set(waker);
    }

    /// Calls the reader's waker; to be called without the lock.
    pub(super) fn wake_reader(&self) {
        if let Some(waker) = self.reader_waker.get() {
            waker();
        }
    }

    /// Calls the writer's waker if the writer has armed itself.
    pub(super) fn wake_writer(&self) {
        if self.writer_waits.load(SeqCst)
            && self.writer_waits.swap(false, SeqCst)
            && let Some(waker) = self.writer_waker.get()
        {
            waker();
        }
    }
}
