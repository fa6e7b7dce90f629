//! Says where the program is, for [`crate::record::toll`].

use std::time::Instant;

use super::*;
use crate::record::toll::Place;

impl Leading {
    /// A stop is looked at: whatever its threads waited for, one of them waits no more.
    pub(super) fn note_stop(&self) {
        self.settings.pace.toll.comes_to(Place::Going, Instant::now());
    }

    /// What is to be done now is done.
    pub(super) fn note_place_of_all(&self) {
        self.settings.pace.toll.comes_to(self.place(), Instant::now());
    }

    fn place(&self) -> Place {
        if self.failed {
            return Place::Going;
        }
        let held = self.holding.is_some() || !self.blocked.is_empty() || !self.awaiting.is_empty();
        if held || self.serial.has_waiting() {
            return Place::Kept;
        }
        if self.serial.somebody_is_overdue() {
            return Place::Beside;
        }
        if self.bulk.is_in_use() {
            return Place::Free;
        }
        let all_wait = match self.settings.interleaving {
            // Who has the turn is known without looking at each.
            Interleaving::OneByOne => self.serial.nobody_runs(),
            Interleaving::Free => self.threads.values().all(|thread| matches!(thread.state, State::InCall(_))),
        };
        if all_wait { Place::Waiting } else { Place::Going }
    }
}
