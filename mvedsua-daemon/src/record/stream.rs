//! Puts what the leader does into one causal order and into the log.
//!
//! At most one output is *open*: entered, not yet returned, and nothing recorded since. If it returns next it becomes one
//! [`Event::Call`]; if anything else is due first, its entry is written as [`Event::Enter`] and its end as
//! [`Event::Return`]. Pure but for the logs it writes to: one for each follower, which get the same records.

use std::collections::VecDeque;

use super::agreement::Agreement;
use super::{CallEntry, CallReturn, Event, Seq, Slot, StreamId};
use crate::log::{Full, FullReason, Writer};

/// The log of one follower.
#[derive(Debug)]
struct Branch {
    log: Writer,
    /// Events that the log had no room for, in order.
    stuck: VecDeque<(Slot, Event)>,
    /// Why it had none for the first of them.
    full: Option<FullReason>,
    /// Nobody reads it any more.
    abandoned: bool,
}

impl Branch {
    fn put(&mut self, slot: Slot, event: Event) {
        if self.abandoned {
            return;
        }
        if !self.stuck.is_empty() {
            self.stuck.push_back((slot, event));
            return;
        }
        if let Err(full) = self.log.append(slot, event) {
            self.refused(full);
        }
    }

    fn refused(&mut self, full: Full) {
        if let FullReason::ReaderGone = full.reason {
            self.abandoned = true;
            self.stuck.clear();
        } else {
            self.stuck.push_front((full.slot, *full.event));
        }
        self.full = Some(full.reason);
    }

    fn retry(&mut self) {
        while let Some((slot, event)) = self.stuck.pop_front() {
            if let Err(full) = self.log.append(slot, event) {
                self.refused(full);
                return;
            }
        }
    }

    fn is_stuck(&mut self) -> bool {
        while !self.stuck.is_empty() {
            if self.log.arm() {
                return true;
            }
            self.retry();
        }
        false
    }
}

/// The recorder's end of the logs.
#[derive(Debug)]
pub(crate) struct Stream {
    id: StreamId,
    branches: Vec<Branch>,
    open: Option<(Slot, CallEntry)>,
    /// Numbers given so far.
    next: u64,
    /// Why nothing more is written: no reader is left or the stream was given up.
    closed: Option<String>,
    /// It is closed because no reader is left.
    deserted: bool,
    /// Set where outputs wait for those who read.
    agreement: Option<Agreement>,
}

impl Stream {
    pub(crate) fn new(log: Writer) -> Stream {
        Stream::branching([log])
    }

    /// A stream that is written to several logs.
    pub(crate) fn branching(logs: impl IntoIterator<Item = Writer>) -> Stream {
        let branch = |log| Branch { log, stuck: VecDeque::new(), full: None, abandoned: false };
        Stream {
            id: StreamId(0),
            branches: logs.into_iter().map(branch).collect(),
            open: None,
            next: 0,
            closed: None,
            deserted: false,
            agreement: None,
        }
    }

    /// Lets outputs wait for those who read.
    pub(crate) fn wait_for(mut self, agreement: Agreement) -> Stream {
        self.agreement = Some(agreement);
        self
    }

    /// Returns how many records were agreed to, where outputs wait for that.
    pub(crate) fn agreed(&self) -> Option<u64> {
        self.agreement.as_ref().map(Agreement::reached)
    }

    /// An output was entered; it takes its place in the order now.
    pub(crate) fn enter(&mut self, slot: Slot, entry: CallEntry) {
        self.flush();
        self.open = Some((slot, entry));
    }

    /// Writes the open output's entry, if there is one, and returns the number of the last record.
    pub(crate) fn flush(&mut self) -> Option<Seq> {
        if let Some((slot, entry)) = self.open.take() {
            self.put(slot, Event::Enter(entry));
        }
        self.next.checked_sub(1).map(Seq)
    }

    /// Takes the open output back, if it is this slot's: it was interrupted and will be entered again.
    pub(crate) fn take_back(&mut self, slot: Slot) -> bool {
        if self.open.as_ref().is_some_and(|(of, _)| *of == slot) {
            self.open = None;
            return true;
        }
        false
    }

    /// The output that this slot entered has returned.
    pub(crate) fn leave(&mut self, slot: Slot, ret: CallReturn) {
        match self.open.take() {
            Some((of, entry)) if of == slot => self.put(slot, Event::Call(entry, ret)),
            other => {
                self.open = other;
                self.flush();
                self.put(slot, Event::Return(ret));
            }
        }
    }

    /// Anything else happened.
    pub(crate) fn emit(&mut self, slot: Slot, event: Event) {
        self.flush();
        self.put(slot, event);
    }

    fn put(&mut self, slot: Slot, event: Event) {
        if self.closed.is_some() {
            return;
        }
        tracing::trace!(seq = self.next, slot = slot.0, ?event, "recorded");
        self.next += 1;
        if let Some((last, others)) = self.branches.split_last_mut() {
            others.iter_mut().for_each(|branch| branch.put(slot, event.clone()));
            last.put(slot, event);
        }
        if self.branches.iter().all(|branch| branch.abandoned) {
            self.closed = Some(FullReason::ReaderGone.to_string());
            self.deserted = true;
        }
    }

    /// Returns how many records wait for the slowest reader, and how many it has taken.
    pub(crate) fn behind(&self) -> (u64, u64) {
        let reading = |branch: &Branch| branch.log.gauge().read();
        let readings = self.branches.iter().filter(|branch| !branch.abandoned).map(reading);
        readings.map(|reading| (reading.records(), reading.consumed)).max().unwrap_or_default()
    }

    /// Says whether the stream has closed itself since nobody reads it any more.
    pub(crate) fn is_deserted(&self) -> bool {
        self.deserted
    }

    /// Tries to write what the logs had no room for.
    pub(crate) fn retry(&mut self) {
        self.branches.iter_mut().for_each(Branch::retry);
    }

    /// Says whether events wait for room, and asks to be woken when there is some.
    pub(crate) fn is_stuck(&mut self) -> bool {
        self.branches.iter_mut().any(Branch::is_stuck)
    }

    /// Says whether an event waits that there will never be room for, or none before a disk answers that hangs.
    pub(crate) fn is_hopeless(&self) -> bool {
        let never = |branch: &Branch| matches!(branch.full, Some(FullReason::Oversized { .. })) || branch.log.hangs();
        self.branches.iter().any(|branch| !branch.stuck.is_empty() && never(branch))
    }

    /// Says why an event waits for room.
    pub(crate) fn full_because(&self) -> String {
        let stuck = self.branches.iter().find(|branch| !branch.stuck.is_empty());
        stuck.and_then(|branch| branch.full.as_ref()).map(ToString::to_string).unwrap_or_default()
    }

    /// Gives up the logs that have no room; says whether others are left.
    pub(crate) fn abandon_full(&mut self) -> bool {
        self.branches.retain(|branch| branch.stuck.is_empty());
        self.branches.iter().any(|branch| !branch.abandoned)
    }

    /// Stops writing for good.
    pub(crate) fn close(&mut self, reason: String) {
        self.branches.iter_mut().for_each(|branch| branch.stuck.clear());
        self.open = None;
        self.closed = Some(reason);
    }

    /// Ends the stream: what was written is read to its end, and nothing follows.
    pub(crate) fn finish(&mut self) {
        self.flush();
        // What still waits for room is the last that a reader must have; it is written when there is some.
        self.closed = Some("the process has ended".to_owned());
    }

    /// Says whether everything of a stream that was finished is in the logs.
    pub(crate) fn is_written_out(&mut self) -> bool {
        !self.is_stuck()
    }

    /// The same stream under a number, where there are several.
    pub(crate) fn numbered(self, id: StreamId) -> Stream {
        Stream { id, ..self }
    }

    /// Returns its number.
    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    /// How many records were numbered; the reader has seen all of them when its next number is this one.
    pub(crate) fn written(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Config, Reader, channel};
    use crate::record::Nanos;

    fn stream() -> (Stream, Reader) {
        let (writer, reader) = channel(Config { memory: 1 << 20, disk: 0, spill_dir: "/nonexistent".into() });
        (Stream::new(writer), reader)
    }

    fn entry(nr: u32) -> CallEntry {
        CallEntry { nr, args: [0; 6], inputs: Vec::new(), at: Nanos(0) }
    }

    fn ret(ret: i64) -> CallReturn {
        CallReturn { ret, outputs: Vec::new(), at: Nanos(0) }
    }

    fn events(reader: &mut Reader) -> Vec<(u32, Event)> {
        std::iter::from_fn(|| reader.next()).map(|record| (record.slot.0, record.event)).collect()
    }

    #[test]
    fn an_output_that_returns_next_is_one_record() {
        let (mut stream, mut reader) = stream();
        stream.enter(Slot(0), entry(1));
        stream.leave(Slot(0), ret(5));
        assert_eq!(events(&mut reader), [(0, Event::Call(entry(1), ret(5)))]);
    }

    #[test]
    fn an_output_keeps_its_place_before_what_it_made_possible() {
        let (mut stream, mut reader) = stream();
        stream.enter(Slot(0), entry(1));
        stream.emit(Slot(1), Event::Call(entry(0), ret(5)));
        stream.leave(Slot(0), ret(5));
        let expected = [(0, Event::Enter(entry(1))), (1, Event::Call(entry(0), ret(5))), (0, Event::Return(ret(5)))];
        assert_eq!(events(&mut reader), expected);
        assert_eq!(stream.written(), 3);
    }

    #[test]
    fn an_interrupted_output_is_taken_back_unless_it_was_written() {
        let (mut stream, mut reader) = stream();
        stream.enter(Slot(0), entry(1));
        assert!(stream.take_back(Slot(0)));
        stream.enter(Slot(0), entry(1));
        stream.flush();
        assert!(!stream.take_back(Slot(0)));
        assert_eq!(events(&mut reader), [(0, Event::Enter(entry(1)))]);
    }

    #[test]
    fn each_log_gets_every_record_and_one_that_nobody_reads_holds_nobody_up() {
        let config = Config { memory: 1 << 20, disk: 0, spill_dir: "/nonexistent".into() };
        let ((first, mut reader), (second, gone)) = (channel(config.clone()), channel(config));
        let mut stream = Stream::branching([first, second]);
        stream.emit(Slot(0), Event::ThreadEnded);
        drop(gone);
        stream.emit(Slot(1), Event::ThreadEnded);
        assert!(!stream.is_stuck());
        assert_eq!(events(&mut reader), [(0, Event::ThreadEnded), (1, Event::ThreadEnded)]);
        assert_eq!(stream.written(), 2);
    }

    #[test]
    fn what_finds_no_room_waits_in_order() {
        let (writer, mut reader) = channel(Config { memory: 600, disk: 0, spill_dir: "/nonexistent".into() });
        let mut stream = Stream::new(writer);
        for nr in 0..20 {
            stream.emit(Slot(0), Event::Call(entry(nr), ret(0)));
        }
        assert!(stream.is_stuck());
        let mut seen = Vec::new();
        while seen.len() < 20 {
            let record = reader.next().expect("a record");
            if let Event::Call(entry, _) = record.event {
                seen.push(entry.nr);
            }
            stream.retry();
        }
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }
}
