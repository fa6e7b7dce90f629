//! Differences that were seen, and that may come of the order in which threads ran: they are not forgotten with the attempt
//! that saw them.
//!
//! One is outweighed only when the same situation has been met again without a difference. Until then nothing is promoted,
//! and when time runs out the difference counts.

use serde::{Deserialize, Serialize};

use crate::update::{Counters, FailureKind, SITUATIONS};

/// How often a situation must be met again without a difference before that outweighs the one that was seen there.
pub const OUTWEIGHED_BY: u32 = 3;

/// A difference of an earlier attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Suspicion {
    /// The attempt that saw it last.
    pub attempt: u32,
    /// See [`crate::compare::Divergence::situation`].
    pub situation: u64,
    /// How often the situation was met without a difference since, in attempts that are over.
    met: u32,
}

/// The differences that earlier attempts of an update have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicions([Option<Suspicion>; SITUATIONS]);

/// A difference that is not outweighed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspected {
    /// The attempt that saw it.
    pub attempt: u32,
    /// How often its situation was met again without it, of [`OUTWEIGHED_BY`].
    pub met: u32,
}

impl Suspicions {
    /// Returns the situations that the next attempt looks for, in the order of [`Counters::met_again`].
    #[must_use]
    pub fn situations(&self) -> [Option<u64>; SITUATIONS] {
        self.0.map(|suspicion| suspicion.map(|suspicion| suspicion.situation))
    }

    /// Returns the difference that is farthest from being outweighed.
    #[must_use]
    pub fn open(&self, counters: &Counters) -> Option<Suspected> {
        let suspected = |(suspicion, now): (&Option<Suspicion>, &u32)| {
            suspicion.map(|Suspicion { attempt, met, .. }| Suspected { attempt, met: met.saturating_add(*now) })
        };
        let all = self.0.iter().zip(&counters.met_again).filter_map(suspected);
        all.filter(|suspected| suspected.met < OUTWEIGHED_BY).min_by_key(|suspected| suspected.met)
    }

    /// An attempt has failed: what it met counts, and what it saw is kept.
    #[must_use]
    pub(super) fn after(mut self, attempt: u32, counters: &Counters, kind: &FailureKind) -> Suspicions {
        for (suspicion, now) in self.0.iter_mut().zip(&counters.met_again) {
            if let Some(suspicion) = suspicion {
                suspicion.met = suspicion.met.saturating_add(*now);
            }
        }
        let FailureKind::Diverged(divergence) = kind else { return self };
        // Such a line does not come again.
        if divergence.half_read {
            return self;
        }
        let Some(situation) = divergence.situation else { return self };
        let new = Some(Suspicion { attempt, situation, met: 0 });
        let is_same = |known: &&mut Option<Suspicion>| known.is_some_and(|known| known.situation == situation);
        if let Some(place) = self.0.iter_mut().find(is_same) {
            *place = new;
        } else if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
            *place = new;
        }
        self
    }
}

impl std::fmt::Display for Suspected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Suspected { attempt, met } = self;
        write!(
            f,
            "the situation in which attempt {attempt} differed was met again {met} times without a difference \
             ({OUTWEIGHED_BY} needed)"
        )
    }
}
