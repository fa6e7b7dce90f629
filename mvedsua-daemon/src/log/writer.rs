//! The recorder's half.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::disk;
use super::shared::{Shared, State};
use super::spill::{self, Opener};
use super::{Gauge, Waker};
use crate::record::{Event, Record, Seq, Slot};

/// How many bytes wait for the disk at the most, but for a record that is larger alone.
const MOST_UNWRITTEN: u64 = 8 << 20;

/// Appends records; belongs to the recorder's thread. Dropping it closes the log.
pub struct Writer {
    shared: Arc<Shared>,
    /// Taken by the thread at the disk when it starts.
    opener: Option<Opener>,
    next: Seq,
    /// Reused for every spilled record.
    frame: Vec<u8>,
    /// What the last refused record needs, in memory and on disk; [`Writer::has_room`] is about it.
    wanted: Wanted,
}

#[derive(Clone, Copy)]
struct Wanted {
    memory: u64,
    /// `None` when it cannot be spilled: then only room in memory counts.
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
    /// The disk does not take the records as fast as they come, or not at all.
    Behind { bytes: u64, hangs: Option<Duration> },
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
            FullReason::Behind { bytes, hangs } => {
                write!(f, "memory is used up, and {} KiB wait for the disk, which ", bytes >> 10)?;
                match hangs {
                    Some(so_far) => write!(f, "has not answered for {} s", so_far.as_secs()),
                    None => f.write_str("does not take them in time"),
                }
            }
            FullReason::ReaderGone => f.write_str("nobody reads it any more"),
        }
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, opener: Opener) -> Writer {
        Writer {
            shared,
            opener: Some(opener),
            next: Seq(0),
            frame: Vec::new(),
            wanted: Wanted { memory: 0, disk: Some(0) },
        }
    }

    /// Appends a record and returns its number, or hands it back when there is no room. Never blocks, neither on the reader nor
    /// on the disk.
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

    /// Hands the record to the thread at the disk.
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
        let budgets = || FullReason::Budgets { memory: shared.memory_budget, disk: shared.disk_budget };
        if length > shared.disk_budget {
            return Err(if self.wanted.memory > shared.memory_budget {
                FullReason::Oversized { bytes: self.wanted.memory }
            } else {
                budgets()
            });
        }
        if let Some(opener) = self.opener.take()
            && let Err((opener, error)) = disk::start(&shared, opener)
        {
            self.opener = Some(opener);
            return Err(FullReason::Disk { error: format!("there is no thread for it: {error}") });
        }
        let mut state = shared.lock();
        if let Some(error) = state.refused.clone() {
            // Where nothing waits to be written again, the next record is the next try.
            if state.unwritten == 0 {
                state.refused = None;
            }
            return Err(FullReason::Disk { error });
        }
        if shared.disk.load(SeqCst) + length > shared.disk_budget {
            return Err(budgets());
        }
        if !takes(&state, length) {
            return Err(FullReason::Behind { bytes: state.unwritten, hangs: state.hangs() });
        }
        state.outgoing.extend_from_slice(&self.frame);
        state.unwritten += length;
        state.spilled += 1;
        shared.disk.fetch_add(length, SeqCst);
        drop(state);
        shared.work.notify_one();
        Ok(())
    }

    /// Says whether the record that was refused last (any record, if none was) would be taken now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let memory = self.shared.memory_used() + self.wanted.memory <= self.shared.memory_budget;
        let state = self.shared.lock();
        let on_disk = |length| {
            self.shared.disk.load(SeqCst) + length <= self.shared.disk_budget
                && (state.refused.is_none() || state.unwritten == 0)
                && takes(&state, length)
        };
        let disk = self.shared.disk_budget > 0 && self.wanted.disk.is_some_and(on_disk);
        disk || (memory && state.spilled == 0)
    }

    /// Says whether records wait for a disk that hangs.
    #[must_use]
    pub fn hangs(&self) -> bool {
        self.gauge().hangs().is_some()
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

/// Says whether a frame may wait for the disk beside those that do.
fn takes(state: &State, length: u64) -> bool {
    state.unwritten == 0 || state.unwritten + length <= MOST_UNWRITTEN
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.writer_gone = true;
        state.reader_waits = false;
        drop(state);
        self.shared.work.notify_one();
        self.shared.wake_reader();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("next", &self.next).finish_non_exhaustive()
    }
}
