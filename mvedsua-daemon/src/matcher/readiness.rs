//! Whether a thread stands where its twin is held, so that the two can change places.

use mvedsua_common::syscalls::Ordering as Role;

use super::elastic::{self, Counting};
use super::{Call, Orders, Phase, compare_call};
use crate::calls;
use crate::compare::DivergenceKind;
use crate::record::CallEntry;

/// Where the leader's thread is held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'a> {
    /// The call that it would make next; `None` where it is held somewhere else, after a crash.
    pub(crate) call: Option<&'a CallEntry>,
    /// Whether each version makes this call for itself.
    pub(crate) local: bool,
    /// The entry is in the log already: the follower has agreed to it or will.
    pub(crate) written: bool,
}

/// What is to be known of the follower's thread beside its phase.
#[derive(Clone, Copy)]
pub(crate) struct Stand<'a> {
    /// Whether the thread counts the processors, or its twin does.
    pub(crate) counting: Counting,
    /// The versions have parted, and the follower is to lead again.
    pub(crate) parted: bool,
    pub(crate) orders: Orders<'a>,
}

/// What a thread lacks for a change of roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Nothing.
    Ready,
    /// It comes there by itself.
    Wait,
    /// Something has to be done about it.
    Nudge(Nudge),
    /// It stands at another call than its twin, which a rule may still allow.
    Differs(DivergenceKind),
}

/// What is to be done about a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nudge {
    /// It is told that it may count the processors.
    Count,
    /// It is told a time that the leader did not ask for.
    Time,
    /// Its call, by which threads wait for each other, is answered.
    Order,
    /// It is interrupted in a call of its own.
    Interrupt,
}

/// Returns what a thread lacks for a change of roles with a twin that is held.
pub(crate) fn readiness(held: Held<'_>, phase: Phase<'_>, stand: Stand<'_>) -> Readiness {
    if stand.counting != Counting::Neither {
        return Readiness::Wait;
    }
    match phase {
        Phase::AtCall(call) => match held.call {
            // The leader crashed: the follower goes on from wherever it is.
            None => Readiness::Ready,
            // Where the leader waits for a lock the follower may have got it already: it is ahead by that, and may be.
            Some(_) if held.local => Readiness::Ready,
            Some(expected) => at_call(call, expected, stand),
        },
        Phase::Entered if held.call.is_none() || held.written => Readiness::Ready,
        Phase::Parked if held.call.is_none() || held.local => Readiness::Ready,
        Phase::InOwnCall(nr) if held.call.is_none_or(|expected| held.local && nr == expected.nr) => {
            Readiness::Nudge(Nudge::Interrupt)
        }
        Phase::Computes
        | Phase::InOwnCall(_)
        | Phase::Entered
        | Phase::Makes(_)
        | Phase::Faulted(_)
        | Phase::Parked => Readiness::Wait,
    }
}

fn at_call(call: &Call, expected: &CallEntry, stand: Stand<'_>) -> Readiness {
    let same_time = calls::of_one_thread(call.nr) && elastic::same_question(call.nr, &call.args, expected);
    // The leader asks for the time once more than the follower does, and will be answered as its follower.
    if same_time || calls::is_elastic(expected.nr, &expected.args) {
        return Readiness::Ready;
    }
    // The follower asks for the time once more than the leader did.
    if calls::is_elastic(call.nr, &call.args) {
        return Readiness::Nudge(Nudge::Time);
    }
    let counts = elastic::counts_processors(call.nr, &call.inputs);
    if counts != elastic::counts_processors(expected.nr, &expected.inputs) {
        return match (counts, stand.orders.role(call.nr, &call.args)) {
            (true, _) => Readiness::Nudge(Nudge::Count),
            (false, Some(_)) if stand.orders.is_one_by_one() => Readiness::Nudge(Nudge::Order),
            (false, _) => Readiness::Wait,
        };
    }
    match locks(call, expected, stand.orders) {
        Some(readiness) => readiness,
        // What the leader would have done next does not count any more.
        None if stand.parted => Readiness::Ready,
        None => compare_call(call, expected).map_or_else(Readiness::Differs, |_| Readiness::Ready),
    }
}

/// Decides where one of the two is before a call that orders threads, and the other is not, or waits as well.
fn locks(call: &Call, expected: &CallEntry, orders: Orders<'_>) -> Option<Readiness> {
    if !orders.is_one_by_one() {
        return None;
    }
    let (asked, held) = (orders.role(call.nr, &call.args), orders.role(expected.nr, &expected.args));
    match (held, asked) {
        // It has got what the leader waits for already, or needs not wake anybody, or waits as well.
        (Some(_), None | Some(Role::Waits)) => Some(Readiness::Ready),
        (None | Some(Role::Waits), Some(_)) => Some(Readiness::Nudge(Nudge::Order)),
        (Some(Role::Wakes | Role::Yields), Some(Role::Wakes | Role::Yields)) | (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use mvedsua_common::syscalls::Pairing;

    use super::*;
    use crate::matcher::Making;
    use crate::matcher::elastic::PROCESSORS;
    use crate::matcher::tests::{Nobody, call, entry, path};
    use crate::record::interleaving::Interleaving;

    const READ: (i64, [u64; 6]) = (libc::SYS_read, [3, 0x1000, 9, 0, 0, 0]);
    const MONOTONIC: (i64, [u64; 6]) = (libc::SYS_clock_gettime, [libc::CLOCK_MONOTONIC as u64, 0, 0, 0, 0, 0]);

    fn futex(op: i32) -> (i64, [u64; 6]) {
        (libc::SYS_futex, [0x1000, (op | libc::FUTEX_PRIVATE_FLAG) as u64, 0, 0, 0, 0])
    }

    fn ready(held: Held<'_>, phase: Phase<'_>) -> Readiness {
        let (interleaving, pairing) = (Interleaving::OneByOne, Pairing::Threads);
        let orders = Orders { interleaving, pairing, leaders: &Nobody };
        readiness(held, phase, Stand { counting: Counting::Neither, parted: false, orders })
    }

    /// A twin that is held at a call, and a thread that waits at one.
    fn at(held: (i64, [u64; 6]), stands: (i64, [u64; 6])) -> Readiness {
        let (expected, waiting) = (entry(held.0, held.1), call(stands.0, stands.1));
        ready(Held { call: Some(&expected), local: false, written: false }, Phase::AtCall(&waiting))
    }

    #[test]
    fn a_thread_is_ready_at_the_call_of_its_twin() {
        assert_eq!(at(READ, READ), Readiness::Ready);
        assert_eq!(at(READ, (libc::SYS_write, READ.1)), Readiness::Differs(DivergenceKind::Call));
    }

    #[test]
    fn a_question_for_the_time_keeps_nobody_from_changing_roles() {
        assert_eq!(at(MONOTONIC, READ), Readiness::Ready, "the leader asks once more");
        assert_eq!(at(MONOTONIC, MONOTONIC), Readiness::Ready);
        assert_eq!(at(READ, MONOTONIC), Readiness::Nudge(Nudge::Time), "the follower asks once more");
    }

    #[test]
    fn one_may_be_ahead_of_a_lock_and_is_brought_past_one() {
        let (wait, wake) = (futex(libc::FUTEX_WAIT), futex(libc::FUTEX_WAKE));
        assert_eq!(
            (at(wait, READ), at(wake, READ), at(wake, wait)),
            (Readiness::Ready, Readiness::Ready, Readiness::Ready)
        );
        assert_eq!((at(READ, wake), at(wait, wake)), (Readiness::Nudge(Nudge::Order), Readiness::Nudge(Nudge::Order)));
    }

    #[test]
    fn one_that_counts_the_processors_alone_is_told_that_it_may() {
        let counts =
            |path_of: &str| crate::matcher::Call { inputs: vec![path(1, path_of)], ..call(libc::SYS_openat, [0; 6]) };
        let expected = CallEntry { inputs: vec![path(1, "/etc/hosts")], ..entry(libc::SYS_openat, [0; 6]) };
        let held = Held { call: Some(&expected), local: false, written: false };
        assert_eq!(ready(held, Phase::AtCall(&counts(PROCESSORS))), Readiness::Nudge(Nudge::Count));
        let orders = Orders { interleaving: Interleaving::Free, pairing: Pairing::Threads, leaders: &Nobody };
        let stand = Stand { counting: Counting::Follower(3), parted: false, orders };
        assert_eq!(readiness(held, Phase::AtCall(&counts("/etc/hosts")), stand), Readiness::Wait);
    }

    #[test]
    fn a_follower_of_a_leader_that_crashed_goes_on_from_wherever_it_is() {
        let crashed = Held { call: None, local: false, written: false };
        let waiting = call(READ.0, READ.1);
        for phase in [Phase::AtCall(&waiting), Phase::Entered, Phase::Parked] {
            assert_eq!(ready(crashed, phase), Readiness::Ready, "{phase:?}");
        }
        assert_eq!(ready(crashed, Phase::InOwnCall(202)), Readiness::Nudge(Nudge::Interrupt));
        assert_eq!(ready(crashed, Phase::Computes), Readiness::Wait);
    }

    #[test]
    fn who_is_in_a_call_is_where_its_twin_is() {
        let expected = entry(202, [0; 6]);
        let held = |local, written| Held { call: Some(&expected), local, written };
        assert_eq!(ready(held(false, true), Phase::Entered), Readiness::Ready);
        assert_eq!(ready(held(false, false), Phase::Entered), Readiness::Wait);
        assert_eq!(
            (ready(held(true, false), Phase::Parked), ready(held(false, false), Phase::Parked)),
            (Readiness::Ready, Readiness::Wait)
        );
        assert_eq!(ready(held(true, false), Phase::InOwnCall(202)), Readiness::Nudge(Nudge::Interrupt));
        assert_eq!(ready(held(true, false), Phase::InOwnCall(7)), Readiness::Wait, "another call of its own");
        assert_eq!(ready(held(false, true), Phase::Makes(Making::Own)), Readiness::Wait);
    }

    #[test]
    fn after_parting_what_the_leader_would_have_done_does_not_count() {
        let (expected, waiting) = (entry(libc::SYS_write, READ.1), call(READ.0, READ.1));
        let orders = Orders { interleaving: Interleaving::Free, pairing: Pairing::Threads, leaders: &Nobody };
        let stand = Stand { counting: Counting::Neither, parted: true, orders };
        let held = Held { call: Some(&expected), local: false, written: false };
        assert_eq!(readiness(held, Phase::AtCall(&waiting), stand), Readiness::Ready);
    }
}
