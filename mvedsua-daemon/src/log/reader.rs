//! The replayer's half.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::shared::{Charged, Shared};
use super::spill;
use super::{Gauge, Waker};
use crate::record::{Event, Gap, Record, Seq, Slot};

/// Takes records in order; belongs to the replayer's thread.
pub struct Reader {
    shared: Arc<Shared>,
    /// Records taken out of the shared queue together, so that most reads need no lock.
    batch: VecDeque<Charged>,
    /// Whole frames from the spill file, and how much of them is decoded. Newer than `batch`.
    chunk: Vec<u8>,
    decoded: usize,
    next: Seq,
    /// The spill file could not be read back: a gap was reported and nothing after it can be trusted.
    broken: bool,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared, batch: VecDeque::new(), chunk: Vec::new(), decoded: 0, next: Seq(0), broken: false }
    }

    /// Returns the next record and gives its room back to the writer; `None` if there is none at the moment: all were taken, or
    /// the next one is on its way to the disk and back. Never blocks, neither on the writer nor on the disk.
    ///
    /// If the spill file cannot be read back, an [`Event::Gap`] says so and is the last record.
    #[expect(clippy::should_implement_trait, reason = "`None` means later, not the end: an iterator would mislead")]
    pub fn next(&mut self) -> Option<Record> {
        self.fill();
        let (record, charge) = self.batch.pop_front()?;
        self.next = Seq(record.seq.0 + 1);
        self.shared.consumed.fetch_add(1, SeqCst);
        self.shared.memory_out.fetch_add(charge, SeqCst);
        self.shared.wake_writer();
        Some(record)
    }

    /// Returns the record that [`Reader::next`] would return, and leaves it.
    pub fn peek(&mut self) -> Option<&Record> {
        self.fill();
        self.batch.front().map(|(record, _)| record)
    }

    /// Makes sure that `batch` holds the next record, if there is one.
    fn fill(&mut self) {
        if !self.batch.is_empty() || self.broken {
            return;
        }
        if self.decoded == self.chunk.len() {
            let mut state = self.shared.lock();
            if !state.queue.is_empty() {
                std::mem::swap(&mut state.queue, &mut self.batch);
                return;
            }
            let Some(loaded) = state.loaded.pop_front() else {
                if let Some(error) = state.unreadable.clone() {
                    drop(state);
                    self.give_up(&format!("the spill file of the log cannot be read back: {error}"));
                }
                return;
            };
            state.spilled -= loaded.count;
            drop(state);
            (self.chunk, self.decoded) = (loaded.frames, 0);
            self.shared.work.notify_one();
            self.shared.wake_writer();
        }
        let rest = &self.chunk[self.decoded..];
        let frame = spill::frame_len(rest).and_then(|length| rest.get(..length));
        match frame.ok_or_else(|| "a torn frame".to_owned()).and_then(|frame| Ok((spill::decode(frame)?, frame.len())))
        {
            Ok((record, length)) => {
                self.decoded += length;
                self.batch.push_back((record, 0));
            }
            Err(error) => self.give_up(&format!("a record in the spill file of the log is damaged: {error}")),
        }
    }

    fn give_up(&mut self, reason: &str) {
        self.broken = true;
        let event = Event::Gap(Gap { reason: reason.to_owned() });
        self.batch.push_back((Record { seq: self.next, slot: Slot(0), event }, 0));
    }

    /// Returns how many records were appended and not yet consumed.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        let consumed = self.shared.consumed.load(SeqCst);
        self.shared.appended.load(SeqCst).saturating_sub(consumed)
    }

    /// Asks to be woken when a record arrives or the log is closed; returns false, and asks nothing, if there is a record
    /// or the log is closed already.
    pub fn arm(&mut self) -> bool {
        if !self.batch.is_empty() || (self.decoded < self.chunk.len() && !self.broken) {
            return false;
        }
        let mut state = self.shared.lock();
        if self.broken {
            return true;
        }
        let is_over = state.writer_gone && state.spilled == 0;
        if !state.queue.is_empty() || !state.loaded.is_empty() || state.unreadable.is_some() || is_over {
            return false;
        }
        state.reader_waits = true;
        true
    }

    /// Says whether the log is closed and everything in it was consumed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        if !self.batch.is_empty() || (self.decoded < self.chunk.len() && !self.broken) {
            return false;
        }
        let state = self.shared.lock();
        self.broken || (state.writer_gone && state.queue.is_empty() && state.spilled == 0)
    }

    /// Sets what the writer calls when it appends for an armed reader, and when it closes.
    pub fn set_waker(&self, waker: Waker) {
        self.shared.set_reader_waker(waker);
    }

    /// Returns a view of the fill for status displays.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        Gauge::new(Arc::clone(&self.shared))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.reader_gone = true;
        state.queue.clear();
        drop(state);
        self.shared.work.notify_one();
        self.shared.wake_writer();
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("next", &self.next).field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}
