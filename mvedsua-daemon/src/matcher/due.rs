//! The records that were taken from the log and not yet answered.
//!
//! Each thread sees its own records in their order. Across threads only the *ordered* ones wait for each other; what is of
//! one thread ([`crate::calls`]) is due to it alone, so that a thread which asks for the time while it holds a lock
//! does not wait for one that waits for the lock.

use std::collections::{HashMap, VecDeque};

use crate::record::{Event, Record, Seq, Slot};

/// Records by thread, and the order among those that have one.
#[derive(Debug)]
pub(crate) struct Due {
    /// Says which calls wait for nobody but their own thread.
    alone: fn(u32) -> bool,
    by_slot: HashMap<Slot, VecDeque<Record>>,
    order: VecDeque<(Seq, Slot)>,
    len: usize,
    bytes: usize,
    /// The number after the last record that was added.
    next: u64,
}

impl Due {
    /// `alone` says which calls wait for nobody but their own thread.
    pub(crate) fn new(alone: fn(u32) -> bool) -> Due {
        Due { alone, by_slot: HashMap::new(), order: VecDeque::new(), len: 0, bytes: 0, next: 0 }
    }

    /// Says whether a call waits for nobody but its own thread.
    pub(crate) fn is_alone(&self, nr: u32) -> bool {
        (self.alone)(nr)
    }

    fn concerns_one_thread(&self, record: &Record) -> bool {
        matches!(&record.event, Event::Call(entry, _) if self.is_alone(entry.nr))
    }

    /// Adds a record; they come in the log's order.
    pub(crate) fn push(&mut self, record: Record) {
        if !self.concerns_one_thread(&record) {
            self.order.push_back((record.seq, record.slot));
        }
        self.len += 1;
        self.next = self.next.max(record.seq.0 + 1);
        self.bytes += record.footprint();
        self.by_slot.entry(record.slot).or_default().push_back(record);
    }

    /// Every record below this number was added, or will never be.
    pub(crate) fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Returns the thread whose ordered record is due first.
    pub(crate) fn front(&self) -> Option<Slot> {
        self.order.front().map(|(_, slot)| *slot)
    }

    /// Returns how far the follower has agreed: every ordered record below this number was answered.
    pub(crate) fn agreed(&self) -> u64 {
        self.order.front().map_or(self.next, |(seq, _)| seq.0)
    }

    /// Returns the ordered records from the first on, by thread; each thread at its first.
    pub(crate) fn waiting_slots(&self) -> impl Iterator<Item = Slot> {
        self.order.iter().map(|(_, slot)| *slot)
    }

    /// Returns a thread's next record.
    pub(crate) fn first_of(&self, slot: Slot) -> Option<&Record> {
        self.by_slot.get(&slot)?.front()
    }

    /// Returns a thread's records, the next one first.
    pub(crate) fn of(&self, slot: Slot) -> impl Iterator<Item = &Record> {
        self.by_slot.get(&slot).into_iter().flatten()
    }

    /// Returns a thread's records, the next one first, as long as no other thread's record that has a place in the order comes before.
    pub(crate) fn in_a_row(&self, slot: Slot) -> impl Iterator<Item = &Record> {
        let mut order = self.order.iter();
        self.of(slot).take_while(move |record| {
            self.concerns_one_thread(record) || order.next().is_some_and(|(seq, _)| *seq == record.seq)
        })
    }

    /// Returns the first of a thread's records that has a place in the order across threads.
    pub(crate) fn first_ordered_of(&self, slot: Slot) -> Option<&Record> {
        self.by_slot.get(&slot)?.iter().find(|record| !self.concerns_one_thread(record))
    }

    /// Says whether a thread's next record waits for nobody else.
    pub(crate) fn is_of_one_thread(&self, slot: Slot) -> bool {
        self.first_of(slot).is_some_and(|record| self.concerns_one_thread(record))
    }

    /// Takes a thread's next record.
    pub(crate) fn pop(&mut self, slot: Slot) -> Option<Record> {
        let queue = self.by_slot.get_mut(&slot)?;
        let record = queue.pop_front()?;
        if queue.is_empty() {
            self.by_slot.remove(&slot);
        }
        self.len -= 1;
        self.bytes -= record.footprint();
        if !self.concerns_one_thread(&record)
            && let Some(at) = self.order.iter().position(|(seq, _)| *seq == record.seq)
        {
            self.order.remove(at);
        }
        Some(record)
    }

    /// Puts a record back that [`Due::pop`] has just returned.
    pub(crate) fn put_back(&mut self, record: Record) {
        if !self.concerns_one_thread(&record) {
            let at = self.order.partition_point(|(seq, _)| *seq < record.seq);
            self.order.insert(at, (record.seq, record.slot));
        }
        self.len += 1;
        self.bytes += record.footprint();
        self.by_slot.entry(record.slot).or_default().push_front(record);
    }

    /// Takes all records, in the log's order.
    pub(crate) fn take_all(&mut self) -> Vec<Record> {
        let mut all: Vec<Record> = self.by_slot.drain().flat_map(|(_, records)| records).collect();
        all.sort_by_key(|record| record.seq);
        self.order.clear();
        (self.len, self.bytes) = (0, 0);
        all
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn has_ordered(&self) -> bool {
        !self.order.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that the records take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls;
    use crate::record::{CallEntry, CallReturn, Nanos};

    fn call(seq: u64, slot: u32, nr: u32) -> Record {
        let entry = CallEntry { nr, args: [0; 6], inputs: Vec::new(), at: Nanos(0) };
        let ret = CallReturn { ret: 0, outputs: Vec::new(), at: Nanos(0) };
        Record { seq: Seq(seq), slot: Slot(slot), event: Event::Call(entry, ret) }
    }

    #[test]
    fn the_time_waits_for_nobody_but_its_thread() {
        let mut due = Due::new(calls::of_one_thread);
        for record in [call(0, 1, 228), call(1, 0, 0), call(2, 1, 1)] {
            due.push(record);
        }
        assert_eq!((due.front(), due.agreed()), (Some(Slot(0)), 1));
        assert!(due.is_of_one_thread(Slot(1)) && !due.is_of_one_thread(Slot(0)));
        assert_eq!(due.first_ordered_of(Slot(1)), Some(&call(2, 1, 1)));
        assert_eq!(due.pop(Slot(1)), Some(call(0, 1, 228)));
        assert_eq!(due.front(), Some(Slot(0)));
        assert_eq!(due.pop(Slot(1)), Some(call(2, 1, 1)));
        due.put_back(call(2, 1, 1));
        assert_eq!(due.waiting_slots().collect::<Vec<_>>(), [Slot(0), Slot(1)]);
        assert_eq!(due.agreed(), 1);
        assert_eq!(due.pop(Slot(0)), Some(call(1, 0, 0)));
        assert_eq!(due.agreed(), 2);
        assert_eq!(due.front(), Some(Slot(1)));
        assert_eq!((due.len(), due.is_empty()), (1, false));
        due.push(call(3, 0, 1));
        let all: Vec<u64> = due.take_all().iter().map(|record| record.seq.0).collect();
        assert_eq!((all, due.len(), due.bytes(), due.has_ordered()), (vec![2, 3], 0, 0, false));
    }
}
