//! The follower of a leader whose threads run one by one, see [`crate::record::interleaving`].
//!
//! Whose turn it is says [`crate::matcher::schedule::one_by_one`].
//!
//! The leader does not wait for a thread that computes for long; nor does the follower where it is told so, or by its own
//! processor time. The order of the two is relaxed then as in [`super::patience`]. What the versions do may differ, as it may where a new version takes a lock more often than the old one: a call by which
//! the leader's thread woke others or gave way is passed over where the follower's makes another, and one of the follower's
//! wakes nobody. A wait of the follower's alone ends when its thread is due: waits may end for no reason (futex(2)).

use mvedsua_common::syscalls::Ordering as Role;

use super::*;
use crate::matcher::schedule;
use crate::matcher::schedule::one_by_one;
use crate::record::interleaving::{Interleaving, keeps_turn};

/// How long a wait that the leader does not know lasts once it has ended often enough for no reason.
const WAKES_AGAIN: Duration = Duration::from_millis(2);

/// Where a thread stands when its process begins to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Before a call, rewound.
    AtCall,
    /// Somewhere else, where it is not known what it does next, or before a call in which it keeps its turn.
    InUserCode,
}

impl Standing {
    /// Says where a thread stands that was rewound out of a call, or was not.
    pub(crate) fn of(rewound: Option<Rewound>) -> Standing {
        if rewound.is_some_and(|call| !keeps_turn(call.nr)) { Standing::AtCall } else { Standing::InUserCode }
    }
}

impl Following {
    pub(super) fn is_one_by_one(&self) -> bool {
        self.settings.interleaving == Interleaving::OneByOne
    }

    /// Returns the row of a call that is the leader's to make since the order of threads hangs on it, and what it is to others.
    pub(super) fn ordered(&self, nr: u32, args: &[u64; 6]) -> Option<(&'static Row, Role)> {
        self.orders().of(nr, args)
    }

    /// Lets the first thread go that is in user code; the others of them wait until it is said that they go on.
    pub(super) fn start_one_by_one(&mut self) -> Result<()> {
        let parked = |thread: &&Thread| thread.standing == Standing::InUserCode;
        let first = self.threads.values().filter(parked).map(|thread| thread.slot).min();
        let tids: Vec<Tid> = self.threads.keys().copied().collect();
        for tid in tids {
            let Some(thread) = self.threads.get(&tid) else { continue };
            if thread.standing == Standing::InUserCode && first != Some(thread.slot) {
                self.hold(tid, 0, Why::NotTold);
            } else {
                sys::resume(tid, Resume::Sysemu, 0)?;
            }
        }
        Ok(())
    }

    /// Returns how long the same record is due already, which others may have overtaken.
    pub(super) fn due_since(&mut self) -> Duration {
        let first = self.due.front().and_then(|slot| self.due.first_ordered_of(slot)).map(|record| record.seq);
        match (first, self.waiting.first_due) {
            (Some(seq), Some((since, instant))) if seq == since => instant.elapsed(),
            (seq, _) => {
                self.waiting.first_due = seq.map(|seq| (seq, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Says whether the thread that is due computes beside others, and has not come to its call for a while: which of them is
    /// first is not known then.
    pub(super) fn is_unordered(&self) -> bool {
        let front = self.due.front();
        self.waiting.moved.elapsed() >= schedule::LONG
            && self.threads.values().any(|thread| Some(thread.slot) == front && thread.seat.overdue && thread.is_busy())
    }

    /// Waits no longer for threads that compute while a record waits that is not theirs; called when nothing has moved for
    /// long. Says whether there was one.
    pub(super) fn let_compute(&mut self) -> bool {
        let front = self.due.front();
        let mut found = false;
        for thread in self.threads.values_mut().filter(|thread| thread.is_busy() && !thread.seat.overdue) {
            if front.is_some_and(|front| front != thread.slot) {
                (thread.seat.overdue, found) = (true, true);
            }
        }
        if found {
            self.note_race("one of the follower's computed for long");
            self.relaxed();
        }
        found
    }

    /// Answers a call that orders threads and that the leader did not make.
    pub(super) fn answer_alone(&mut self, tid: Tid) -> Result<()> {
        self.note_race("one ordered itself where its twin did not");
        self.relaxed();
        sys::set_result(tid, 0)?;
        self.go(tid, Resume::Sysemu, State::Running { local: None })
    }

    /// Lives through a call that orders threads and that the leader did not make before its thread's next record; says whether
    /// it is one.
    pub(super) fn order_alone(&mut self, tid: Tid, call: &Call) -> Result<bool> {
        let Some((_, role)) = self.ordered(call.nr, &call.args) else { return Ok(false) };
        // Nobody but a thread that computes can change what it looks at.
        let computes = self.threads.iter().any(|(other, thread)| *other != tid && thread.is_busy());
        let may_change = || call.since.elapsed() >= WAKES_AGAIN && computes;
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(false) };
        if !one_by_one::answers_alone(&mut thread.seat, role, may_change) {
            self.state(tid, State::AtCall(Box::new(call.clone())));
            return Ok(true);
        }
        self.answer_alone(tid)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_before_a_question_for_the_time_needs_its_turn() {
        let before = |nr: i64| Standing::of(Some(Rewound { nr: nr as u32, args: [0; 6] }));
        assert_eq!(
            before(libc::SYS_clock_gettime),
            Standing::InUserCode,
            "it may come to no stop before it is answered"
        );
        assert_eq!(before(libc::SYS_rt_sigprocmask), Standing::InUserCode);
        assert_eq!(before(libc::SYS_epoll_wait), Standing::AtCall);
        assert_eq!(Standing::of(None), Standing::InUserCode);
    }
}
