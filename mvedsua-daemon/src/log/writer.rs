//! The recorder's half.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::shared::Shared;
use super::spill::{self, Opener};
use super::{Gauge, Waker};
use crate::record::{Event, Record, Seq, Slot};

/// Appends records; belongs to the recorder's thread. Dropping it closes the log.
pub struct Writer {
    shared: Arc<Shared>,
    opener: Opener,
    next: Seq,
    /// Reused for every spilled record.
    frame: Vec<u8>,
    /// What the last refused record needs, in memory and on disk; [`Writer::has_room`] is about it.
    wanted: Wanted,
}

#[derive(Clone, Copy)]
struct Wanted {
    memory: u64,
    /// `None` when the disk refused the last write: then only room in memory counts.
    disk: Option<u64>,
}

/// Why a record was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FullReason {
    /// Both budgets are used up.
    Budgets { memory: u64, disk: u64 },
    /// The record alone is larger than either budget: waiting does not help.
    Oversized { bytes: u64 },
    /// The spill file could not be created or written (a full disk, for one).
    Disk { error: String },
    /// The reader is gone, nobody will ever make room.
    ReaderGone,
}

/// A record that the log could not take, handed back.
#[derive(Debug, thiserror::Error)]
#[error("the log is full: {reason}")]
pub struct Full {
    pub slot: Slot,
    pub event: Box<Event>,
    pub reason: FullReason,
}

impl fmt::Display for FullReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FullReason::Budgets { memory, disk } => {
                write!(f, "{} MiB of memory and {} MiB of disk are used up", memory >> 20, disk >> 20)
            }
            FullReason::Oversized { bytes } => write!(f, "one record of {bytes} bytes exceeds the whole budget"),
            FullReason::Disk { error } => write!(f, "memory is used up and the spill file cannot be written: {error}"),
            FullReason::ReaderGone => f.write_str("nobody reads it any more"),
        }
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, opener: Opener) -> Writer {
        Writer { shared, opener, next: Seq(0), frame: Vec::new(), wanted: Wanted { memory: 0, disk: Some(0) } }
    }

    /// Appends a record and returns its number, or hands it back when there is no room. Never blocks on the reader.
    pub fn append(&mut self, slot: Slot, event: Event) -> Result<Seq, Full> {
        let record = Record { seq: self.next, slot, event };
        match self.put(record) {
            Ok(()) => {
                let seq = self.next;
                self.next = Seq(seq.0 + 1);
                self.shared.appended.fetch_add(1, SeqCst);
                Ok(seq)
            }
            Err(refused) => {
                let (record, reason) = *refused;
                Err(Full { slot: record.slot, event: Box::new(record.event), reason })
            }
        }
    }

    fn put(&mut self, record: Record) -> Result<(), Box<(Record, FullReason)>> {
        let charge = record.footprint() as u64;
        let mut state = self.shared.lock();
        if state.reader_gone {
            return Err(Box::new((record, FullReason::ReaderGone)));
        }
        if state.spilled == 0 && self.shared.memory_used() + charge <= self.shared.memory_budget {
            self.shared.memory_in.fetch_add(charge, SeqCst);
            state.queue.push_back((record, charge));
            let wake = std::mem::take(&mut state.reader_waits);
            drop(state);
            if wake {
                self.shared.wake_reader();
            }
            return Ok(());
        }
        drop(state);
        self.wanted = Wanted { memory: charge, disk: Some(0) };
        self.spill(&record).map_err(|reason| Box::new((record, reason)))
    }

    /// Writes the record to the spill file. Only this thread moves the end of the file, so it may write outside the lock.
    fn spill(&mut self, record: &Record) -> Result<(), FullReason> {
        let shared = Arc::clone(&self.shared);
        if let Err(error) = spill::encode(record, &mut self.frame) {
            // A frame cannot be that long: only memory can take it.
            self.wanted.disk = None;
            let bytes = self.wanted.memory;
            let oversized = bytes > shared.memory_budget;
            return Err(if oversized { FullReason::Oversized { bytes } } else { FullReason::Disk { error } });
        }
        let length = self.frame.len() as u64;
        self.wanted.disk = Some(length);
        if length > shared.disk_budget {
            return Err(if self.wanted.memory > shared.memory_budget {
                FullReason::Oversized { bytes: self.wanted.memory }
            } else {
                FullReason::Budgets { memory: shared.memory_budget, disk: shared.disk_budget }
            });
        }
        let failed = |wanted: &mut Wanted, error: &std::io::Error| {
            wanted.disk = None;
            FullReason::Disk { error: error.to_string() }
        };
        let medium = match shared.medium.get() {
            Some(medium) => Arc::clone(medium),
            None => {
                let medium = (self.opener)().map_err(|e| failed(&mut self.wanted, &e))?;
                Arc::clone(shared.medium.get_or_init(|| medium))
            }
        };
        let (worked_off, mut end) = {
            let state = shared.lock();
            (state.spilled == 0 && state.spill_end > 0, state.spill_end)
        };
        if worked_off {
            // Everything was loaded: the reader does not touch the file before `spilled` grows again.
            medium.reset().map_err(|e| failed(&mut self.wanted, &e))?;
            let mut state = shared.lock();
            state.spill_start = 0;
            state.spill_end = 0;
            shared.disk.store(0, SeqCst);
            end = 0;
        }
        if shared.disk.load(SeqCst) + length > shared.disk_budget {
            return Err(FullReason::Budgets { memory: shared.memory_budget, disk: shared.disk_budget });
        }
        // A write that fails half-way leaves bytes behind the end, where nobody reads and the next write goes.
        medium.write_at(end, &self.frame).map_err(|e| failed(&mut self.wanted, &e))?;
        let mut state = shared.lock();
        state.spill_end = end + length;
        state.spilled += 1;
        shared.disk.fetch_add(length, SeqCst);
        let wake = std::mem::take(&mut state.reader_waits);
        drop(state);
        if wake {
            shared.wake_reader();
        }
        Ok(())
    }

    /// Says whether the record that was refused last (any record, if none was) would be taken now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let memory = self.shared.memory_used() + self.wanted.memory <= self.shared.memory_budget;
        let on_disk = |length| self.shared.disk.load(SeqCst) + length <= self.shared.disk_budget;
        let disk = self.shared.disk_budget > 0 && self.wanted.disk.is_some_and(on_disk);
        disk || (memory && self.shared.lock().spilled == 0)
    }

    /// Asks to be woken when the reader has made room; returns false, and asks nothing, if there is room already.
    /// Spurious wake-ups are possible: check [`Writer::has_room`] again.
    pub fn arm(&self) -> bool {
        self.shared.writer_waits.store(true, SeqCst);
        if self.has_room() {
            self.shared.writer_waits.store(false, SeqCst);
            return false;
        }
        true
    }

    /// Sets what the reader calls when it has made room for an armed writer.
    pub fn set_waker(&self, waker: Waker) {
        self.shared.set_writer_waker(waker);
    }

    /// Returns a view of the fill for status displays.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        Gauge::new(Arc::clone(&self.shared))
    }

    /// Closes the log: the reader gets what is there and then sees [`Reader::is_finished`](super::Reader::is_finished).
    pub fn close(self) {}
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.writer_gone = true;
        state.reader_waits = false;
        drop(state);
        self.shared.wake_reader();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("next", &self.next).finish_non_exhaustive()
    }
}
