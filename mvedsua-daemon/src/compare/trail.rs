//! The calls that matched last, per slot.

use std::collections::{BTreeMap, VecDeque};

use super::MatchedCall;
use crate::record::Slot;

/// How many calls a report shows.
const LENGTH: usize = 16;

/// Remembers the last calls of each slot that matched, for the report of a divergence.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    slots: BTreeMap<Slot, VecDeque<MatchedCall>>,
}

impl Trail {
    /// Adds a call that matched; the oldest of its slot is forgotten.
    pub fn push(&mut self, call: MatchedCall) {
        let calls = self.slots.entry(call.slot).or_insert_with(|| VecDeque::with_capacity(LENGTH));
        if calls.len() == LENGTH {
            calls.pop_front();
        }
        calls.push_back(call);
    }

    /// Forgets a slot whose thread has ended.
    pub fn forget(&mut self, slot: Slot) {
        self.slots.remove(&slot);
    }

    /// Returns the slot's last matched calls, oldest first.
    #[must_use]
    pub fn last(&self, slot: Slot) -> Vec<MatchedCall> {
        self.slots.get(&slot).map(|calls| calls.iter().cloned().collect()).unwrap_or_default()
    }
}
