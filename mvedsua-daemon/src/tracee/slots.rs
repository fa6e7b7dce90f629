//! Which thread of a process has which slot; looked at for every record, in both directions.

use std::collections::{BTreeMap, HashMap};

use super::Slot;
use crate::ptrace::Tid;

/// The live threads of one process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    by_tid: BTreeMap<Tid, Slot>,
    by_slot: HashMap<Slot, Tid>,
    /// The number after the highest that a thread has had.
    next: u32,
}

impl Slots {
    /// The only thread of a process.
    pub(crate) fn one(tid: Tid, slot: Slot) -> Slots {
        let mut slots = Slots::default();
        slots.insert(tid, slot);
        slots
    }

    /// Gives a thread a slot that none has had.
    pub(crate) fn create(&mut self, tid: Tid) -> Slot {
        let slot = Slot(self.next);
        self.insert(tid, slot);
        slot
    }

    /// Gives a thread the slot that its twin has.
    pub(crate) fn insert(&mut self, tid: Tid, slot: Slot) {
        self.next = self.next.max(slot.0 + 1);
        self.by_tid.insert(tid, slot);
        self.by_slot.insert(slot, tid);
    }

    pub(crate) fn remove(&mut self, tid: Tid) {
        if let Some(slot) = self.by_tid.remove(&tid) {
            self.by_slot.remove(&slot);
        }
    }

    pub(crate) fn slot(&self, tid: Tid) -> Option<Slot> {
        self.by_tid.get(&tid).copied()
    }

    pub(crate) fn tid(&self, slot: Slot) -> Option<Tid> {
        self.by_slot.get(&slot).copied()
    }

    /// Returns the thread with the lowest id; of a process whose first thread lives, that one.
    pub(crate) fn first(&self) -> Option<(Tid, Slot)> {
        self.iter().next()
    }

    /// Returns the threads by id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Tid, Slot)> {
        self.by_tid.iter().map(|(tid, slot)| (*tid, *slot))
    }

    pub(crate) fn tids(&self) -> impl Iterator<Item = Tid> {
        self.by_tid.keys().copied()
    }

    /// Drops the threads that are not wanted.
    pub(crate) fn retain(&mut self, wanted: impl Fn(Tid) -> bool) {
        self.by_tid.retain(|tid, _| wanted(*tid));
        self.by_slot.retain(|_, tid| wanted(*tid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_never_given_twice() {
        let mut slots = Slots::default();
        assert_eq!((slots.create(Tid(7)), slots.create(Tid(5))), (Slot(0), Slot(1)));
        assert_eq!((slots.first(), slots.tid(Slot(0))), (Some((Tid(5), Slot(1))), Some(Tid(7))));
        slots.remove(Tid(5));
        assert_eq!((slots.slot(Tid(5)), slots.tid(Slot(1))), (None, None));
        assert_eq!(slots.create(Tid(5)), Slot(2));
        slots.insert(Tid(9), Slot(6));
        slots.retain(|tid| tid != Tid(7));
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(Tid(5), Slot(2)), (Tid(9), Slot(6))]);
        assert_eq!((slots.tid(Slot(0)), slots.create(Tid(1))), (None, Slot(7)));
    }
}
