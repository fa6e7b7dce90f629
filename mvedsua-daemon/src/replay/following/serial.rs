//! The follower of a leader whose threads run one by one, see [`crate::record::interleaving`].
//!
//! A record that lets a thread go on is answered when nobody is in user code, and nothing else is answered before that thread
//! has come to its next call. So the follower's threads do between their calls what the leader's did, in its order, and each of
//! them alone. Nothing is guessed and nobody waits for a lock: `futex` has the leader's results.
//!
//! The leader does not wait for a thread that computes for long; nor does the follower where it is told so, or by its own
//! processor time. The order of the two is relaxed then as in [`super::patience`]. What the versions do may differ, as it may where a new version takes a lock more often than the old one: a call by which
//! the leader's thread woke others or gave way is passed over where the follower's makes another, and one of the follower's
//! wakes nobody. A wait of the follower's alone ends when its thread is due: waits may end for no reason (futex(2)).

use mvedsua_common::syscalls::Ordering as Role;

use super::*;
use crate::record::interleaving::{Interleaving, keeps_turn};

/// How often a wait that the leader does not know ends at once, for no reason, and how long it lasts from then on.
const MOST_WAKES: u32 = 100;
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
        let is_thread = |tid| self.settings.leaders.values().any(|leader| leader.0 == tid);
        self.orders(&is_thread).of(nr, args)
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

    /// Says whether no record may be answered since somebody is in user code; lets the one go that may.
    pub(super) fn somebody_has_turn(&mut self, process: &Process) -> Result<bool> {
        if !self.is_one_by_one() {
            return Ok(false);
        }
        self.let_next_go(process)?;
        let runs = |(tid, thread): (&Tid, &Thread)| match self.phase(thread) {
            // They are not in user code before records say how their calls have returned.
            Phase::Makes(Making::Thread(..) | Making::Process(_)) => false,
            // The end of a main thread is told with that of its process.
            Phase::Makes(Making::End) if *tid == process.pid.main() => false,
            Phase::Computes
            | Phase::InOwnCall(_)
            | Phase::Makes(_)
            | Phase::AtCall(_)
            | Phase::Entered
            | Phase::Faulted(_)
            | Phase::Parked => thread.is_busy() && !thread.overdue,
        };
        Ok(self.threads.iter().any(runs) && !self.is_somebody_overdue())
    }

    /// Called when no record can be answered and nobody is in user code. The thread that is due waits for something that it need
    /// not have waited for (a new version takes a lock more often, or two threads ran beside each other): others go on whose
    /// calls have nothing to do with its own. Says whether a record was answered.
    pub(super) fn settle_standstill(&mut self, process: &mut Process) -> Result<bool> {
        if !self.due.has_ordered() || self.threads.values().any(Thread::is_busy) {
            return Ok(false);
        }
        if self.improvise_for_waiting(process)? {
            return Ok(true);
        }
        let front = self.due.front();
        // It waits for another process, and did so for too long.
        if self.expire(|thread, _| Some(thread.slot) == front)? {
            return Ok(false);
        }
        let waits_alone = |thread: &Thread| match &thread.state {
            State::AtCall(call) => thread.woken >= MOST_WAKES && self.ordered(call.nr, &call.args).is_some(),
            _ => false,
        };
        if !self.threads.values().any(|thread| Some(thread.slot) == front && waits_alone(thread)) {
            return Ok(false);
        }
        self.note_race("one waits alone for what need not be waited for");
        let relaxed = self.relax(process)?;
        if relaxed && let Some(thread) = self.threads.values_mut().find(|thread| Some(thread.slot) == front) {
            // It may look once more.
            thread.woken = MOST_WAKES - 1;
        }
        Ok(relaxed)
    }

    /// Returns how long the same record is due already, which others may have overtaken.
    pub(super) fn due_since(&mut self) -> Duration {
        let first = self.due.front().and_then(|slot| self.due.first_ordered_of(slot)).map(|record| record.seq);
        match (first, self.first_due) {
            (Some(seq), Some((since, instant))) if seq == since => instant.elapsed(),
            (seq, _) => {
                self.first_due = seq.map(|seq| (seq, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Says whether the next record says that others go on beside a thread which computes.
    fn is_somebody_overdue(&self) -> bool {
        let first = self.due.front().and_then(|slot| self.due.first_of(slot));
        first.is_some_and(|record| record.event == Event::Overdue)
    }

    /// Says whether the thread that is due computes beside others, and has not come to its call for a while: which of them is
    /// first is not known then.
    pub(super) fn is_unordered(&self) -> bool {
        let front = self.due.front();
        self.moved.elapsed() >= turns::LONG
            && self.threads.values().any(|thread| Some(thread.slot) == front && thread.overdue && thread.is_busy())
    }

    /// Waits no longer for threads that compute while a record waits that is not theirs; called when nothing has moved for
    /// long. Says whether there was one.
    pub(super) fn let_compute(&mut self) -> bool {
        let front = self.due.front();
        let mut found = false;
        for thread in self.threads.values_mut().filter(|thread| thread.is_busy() && !thread.overdue) {
            if front.is_some_and(|front| front != thread.slot) {
                (thread.overdue, found) = (true, true);
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
        if role == Role::Waits {
            // All that came before in the leader has been done: what it waits for is there, or else it waits again. One that
            // waits for ever is found out as others are that come to no call.
            let computes = |(other, thread): (&Tid, &Thread)| *other != tid && thread.is_busy();
            // Nobody but a thread that computes can change what it looks at.
            let may_change = call.since.elapsed() >= WAKES_AGAIN && self.threads.iter().any(computes);
            let Some(thread) = self.threads.get_mut(&tid) else { return Ok(false) };
            if thread.woken >= MOST_WAKES && !may_change {
                self.state(tid, State::AtCall(Box::new(call.clone())));
                return Ok(true);
            }
            thread.woken += 1;
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
