//! What both halves of the log touch.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Waker;
use super::spill::Medium;
use crate::record::Record;

/// A record with the bytes of memory that it was charged for.
pub(super) type Charged = (Record, u64);

pub(super) struct Shared {
    pub(super) memory_budget: u64,
    pub(super) disk_budget: u64,
    state: Mutex<State>,
    /// Set once by the writer, before the first record is spilled.
    pub(super) medium: OnceLock<Arc<dyn Medium>>,
    /// Bytes charged by the writer and given back by the reader; the difference is in use.
    pub(super) memory_in: AtomicU64,
    pub(super) memory_out: AtomicU64,
    /// Length of the part of the spill file that is in use.
    pub(super) disk: AtomicU64,
    pub(super) appended: AtomicU64,
    pub(super) consumed: AtomicU64,
    pub(super) writer_waits: AtomicBool,
    writer_waker: OnceLock<Waker>,
    reader_waker: OnceLock<Waker>,
}

/// Guarded by one short-held lock; no file is read or written under it.
#[derive(Default)]
pub(super) struct State {
    /// Older than everything in the spill file.
    pub(super) queue: VecDeque<Charged>,
    /// Records in the spill file that the reader has not loaded. While it is not 0 nothing is put into `queue`.
    pub(super) spilled: u64,
    /// Where unread frames begin, and where the next one is written.
    pub(super) spill_start: u64,
    pub(super) spill_end: u64,
    pub(super) reader_waits: bool,
    pub(super) writer_gone: bool,
    pub(super) reader_gone: bool,
}

impl Shared {
    pub(super) fn new(memory_budget: u64, disk_budget: u64) -> Shared {
        Shared {
            memory_budget,
            disk_budget,
            state: Mutex::default(),
            medium: OnceLock::new(),
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
