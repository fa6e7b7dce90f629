//! Where a call and a record that are not the same are no difference.
//!
//! A tolerance looks at one question and decides it, or leaves it to the next; what none decides is compared in full. Their
//! order counts: a call that is answered from its own record is not taken for one that the follower makes alone.

use mvedsua_common::syscalls::{Ordering as Role, Pairing};

use super::elastic::{self, Counting};
use super::names::{self, Name};
use super::{Call, Orders, compare_call};
use crate::calls;
use crate::compare::{DivergenceKind, Evidence};
use crate::record::{CallEntry, CallReturn};

/// A call of the follower, and the record that is due in its thread.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) call: &'a Call,
    pub(crate) entry: &'a CallEntry,
    /// `None` where the record tells of the entry alone.
    pub(crate) ret: Option<&'a CallReturn>,
    /// Whether the thread counts the processors, or its twin does.
    pub(crate) counting: Counting,
    /// The leader reads there what is each version's own.
    pub(crate) leader_reads_itself: bool,
    pub(crate) orders: Orders<'a>,
}

/// What becomes of a call and a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// They are compared in full.
    Compare,
    /// The record answers the call; nothing else is compared.
    Supply,
    /// The follower makes its own, which lets in the signal that came with the leader's.
    LetIn,
    /// The record is the leader's alone. The call waits for the next one.
    PassOver(LeadersAlone),
    /// The call is the follower's alone. The record waits for the next one.
    Alone(FollowersAlone),
}

/// What the leader does alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeadersAlone {
    /// It asks for the time, sleeps or lets signals in.
    Time,
    /// It wakes others, lets them go first or waits for them.
    Order,
    /// It asks for its own name, chooses one for a file, or reads what tells of itself.
    Itself,
    /// It begins to count the processors.
    BeginsToCount(Counting),
    /// It goes on with that.
    Counts(Counting),
}

/// What the follower does alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FollowersAlone {
    /// It asks for the time, sleeps or lets signals in.
    Time,
    /// It wakes others, lets them go first or waits for them.
    Order,
    /// It chooses a name: the choice will be the leader's in the end.
    Choice,
    /// It begins to count the processors.
    Count,
}

/// What a call that is taken for equal proves, and what has to be made equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(crate) evidence: Evidence,
    /// The leader's name for a file, where the two differ in a random choice alone.
    pub(crate) chosen: Option<Name>,
}

/// Compares a call with that of a record in full.
pub(crate) fn agree(call: &Call, expected: &CallEntry) -> Result<Agreement, DivergenceKind> {
    let kind = match compare_call(call, expected) {
        Ok(evidence) => return Ok(Agreement { evidence, chosen: None }),
        Err(kind) => kind,
    };
    let chosen = names::chosen(call, expected).ok_or(kind)?;
    Ok(Agreement { evidence: Evidence { calls: 1, ..Evidence::default() }, chosen: Some(chosen) })
}

type Tolerance = fn(&Question<'_>) -> Option<Judgement>;

/// All tolerances, in their order.
const TOLERANCES: [Tolerance; 9] = [
    same_question,
    order_of_locks,
    leaders_time,
    followers_time,
    leaders_name,
    choice_of_a_name,
    own_files,
    leaders_counting,
    followers_counting,
];

/// Returns what becomes of a call and a record.
pub(crate) fn judge(question: &Question<'_>) -> Judgement {
    TOLERANCES.iter().find_map(|tolerance| tolerance(question)).unwrap_or(Judgement::Compare)
}

/// Both ask for the time, sleep or let signals in: how long is not compared.
fn same_question(question: &Question<'_>) -> Option<Judgement> {
    let Question { call, entry, ret, .. } = question;
    let same = calls::of_one_thread(entry.nr) && elastic::same_question(call.nr, &call.args, entry) && ret.is_some();
    same.then(|| if calls::lets_in(call.nr) { Judgement::LetIn } else { Judgement::Supply })
}

/// One or both order threads by their calls, which are not the same. A new version may take a lock more often than the old one.
fn order_of_locks(question: &Question<'_>) -> Option<Judgement> {
    let Question { call, entry, orders, .. } = question;
    if !orders.is_one_by_one() {
        return None;
    }
    let recorded = orders.role(entry.nr, &entry.args);
    let asked = orders.role(call.nr, &call.args);
    let same_wait = || call.nr == entry.nr && call.args[1] as i32 == entry.args[1] as i32;
    match (recorded, asked) {
        (None, None) => None,
        (Some(Role::Waits), Some(Role::Waits)) if same_wait() => None,
        (Some(Role::Wakes), Some(Role::Wakes)) | (Some(Role::Yields), Some(Role::Yields)) => None,
        // The leader has woken others, or let them go first, or waited for a lock that the follower got at once.
        (Some(_), None | Some(Role::Waits)) => Some(Judgement::PassOver(LeadersAlone::Order)),
        (_, Some(_)) => Some(Judgement::Alone(FollowersAlone::Order)),
    }
}

/// The leader asks once more than the follower does.
fn leaders_time(question: &Question<'_>) -> Option<Judgement> {
    let entry = question.entry;
    calls::is_elastic(entry.nr, &entry.args).then_some(Judgement::PassOver(LeadersAlone::Time))
}

/// The follower asks once more than the leader did.
fn followers_time(question: &Question<'_>) -> Option<Judgement> {
    let call = question.call;
    calls::is_elastic(call.nr, &call.args).then_some(Judgement::Alone(FollowersAlone::Time))
}

/// `abort` asks so in a leader that is about to crash. It changes nothing, and what differs behind it will be seen.
fn leaders_name(question: &Question<'_>) -> Option<Judgement> {
    let Question { call, entry, ret, orders, .. } = question;
    let asks =
        ret.is_some() && orders.pairing == Pairing::Processes && calls::asks_its_name(entry.nr) && call.nr != entry.nr;
    asks.then_some(Judgement::PassOver(LeadersAlone::Itself))
}

/// One chooses a name for a file once more than the other.
fn choice_of_a_name(question: &Question<'_>) -> Option<Judgement> {
    let Question { call, entry, ret, .. } = question;
    if ret.is_some() && names::leader_chooses(call, entry) {
        return Some(Judgement::PassOver(LeadersAlone::Itself));
    }
    names::follower_chooses(call, entry).then_some(Judgement::Alone(FollowersAlone::Choice))
}

/// What the leader reads of itself; the follower reads its own.
fn own_files(question: &Question<'_>) -> Option<Judgement> {
    let reads = question.ret.is_some() && question.leader_reads_itself;
    reads.then_some(Judgement::PassOver(LeadersAlone::Itself))
}

/// The leader counts the processors, and the follower makes another call.
fn leaders_counting(question: &Question<'_>) -> Option<Judgement> {
    let Question { call, entry, ret, counting, .. } = question;
    match counting {
        Counting::Leader(fd) if elastic::goes_on_counting(entry.nr, &entry.args, *fd) => {
            // An output, whose return may be a record of its own.
            let next = match i64::from(entry.nr) {
                libc::SYS_close if ret.is_some() => Counting::Neither,
                libc::SYS_close => Counting::LeaderCloses,
                _ => *counting,
            };
            Some(Judgement::PassOver(LeadersAlone::Counts(next)))
        }
        Counting::Neither
            if elastic::counts_processors(entry.nr, &entry.inputs)
                && !elastic::counts_processors(call.nr, &call.inputs) =>
        {
            let next = match ret.map(|ret| ret.ret) {
                Some(fd @ 0..) => Counting::Leader(fd as i32),
                Some(_) | None => Counting::Neither,
            };
            Some(Judgement::PassOver(LeadersAlone::BeginsToCount(next)))
        }
        Counting::Neither | Counting::Leader(_) | Counting::LeaderCloses | Counting::Follower(_) => None,
    }
}

/// The follower begins to count the processors, and the leader does not.
fn followers_counting(question: &Question<'_>) -> Option<Judgement> {
    let Question { call, entry, .. } = question;
    let begins =
        elastic::counts_processors(call.nr, &call.inputs) && !elastic::counts_processors(entry.nr, &entry.inputs);
    begins.then_some(Judgement::Alone(FollowersAlone::Count))
}

#[cfg(test)]
mod tests {
    use mvedsua_common::syscalls::Pairing;

    use super::*;
    use crate::matcher::elastic::PROCESSORS;
    use crate::matcher::tests::{Nobody, call, entry, path, ret};
    use crate::record::interleaving::Interleaving;

    const OPENAT: i64 = libc::SYS_openat;

    /// The parts of a question, most of which most tests leave as they are.
    struct Case {
        call: Call,
        entry: CallEntry,
        ret: Option<CallReturn>,
        counting: Counting,
        leader_reads_itself: bool,
        interleaving: Interleaving,
        pairing: Pairing,
    }

    impl Case {
        fn of(asked: (i64, [u64; 6]), recorded: (i64, [u64; 6])) -> Case {
            Case {
                call: call(asked.0, asked.1),
                entry: entry(recorded.0, recorded.1),
                ret: Some(ret(0)),
                counting: Counting::Neither,
                leader_reads_itself: false,
                interleaving: Interleaving::OneByOne,
                pairing: Pairing::Threads,
            }
        }

        fn paths(mut self, asked: &str, recorded: &str) -> Case {
            (self.call.inputs, self.entry.inputs) = (vec![path(1, asked)], vec![path(1, recorded)]);
            self
        }

        fn put(&self, tolerance: impl Fn(&Question<'_>) -> Option<Judgement>) -> Option<Judgement> {
            tolerance(&Question {
                call: &self.call,
                entry: &self.entry,
                ret: self.ret.as_ref(),
                counting: self.counting,
                leader_reads_itself: self.leader_reads_itself,
                orders: Orders { interleaving: self.interleaving, pairing: self.pairing, leaders: &Nobody },
            })
        }
    }

    const WRITE: (i64, [u64; 6]) = (libc::SYS_write, [1, 0, 0, 0, 0, 0]);
    const MONOTONIC: (i64, [u64; 6]) = (libc::SYS_clock_gettime, [libc::CLOCK_MONOTONIC as u64, 0, 0, 0, 0, 0]);
    const REALTIME: (i64, [u64; 6]) = (libc::SYS_clock_gettime, [libc::CLOCK_REALTIME as u64, 0, 0, 0, 0, 0]);

    fn futex(op: i32) -> (i64, [u64; 6]) {
        (libc::SYS_futex, [0x1000, (op | libc::FUTEX_PRIVATE_FLAG) as u64, 0, 0, 0, 0])
    }

    #[test]
    fn the_same_question_for_the_time_is_answered_by_its_record() {
        let judged = |asked, recorded| Case::of(asked, recorded).put(same_question);
        assert_eq!(judged(MONOTONIC, MONOTONIC), Some(Judgement::Supply));
        assert_eq!(judged(MONOTONIC, REALTIME), None);
        assert_eq!(judged(WRITE, WRITE), None);
        let mask = (libc::SYS_rt_sigprocmask, [0; 6]);
        assert_eq!(judged(mask, mask), Some(Judgement::LetIn));
        let entered = Case { ret: None, ..Case::of(MONOTONIC, MONOTONIC) };
        assert_eq!(entered.put(same_question), None, "it has no answer yet");
    }

    #[test]
    fn a_lock_may_be_taken_more_often_by_either() {
        let (wait, wake) = (futex(libc::FUTEX_WAIT), futex(libc::FUTEX_WAKE));
        let judged = |asked, recorded| Case::of(asked, recorded).put(order_of_locks);
        let (over, alone) = (Judgement::PassOver(LeadersAlone::Order), Judgement::Alone(FollowersAlone::Order));
        assert_eq!(judged(WRITE, wake), Some(over));
        assert_eq!(judged(wait, wake), Some(over));
        assert_eq!(judged(wake, WRITE), Some(alone));
        assert_eq!(judged(wake, wait), Some(alone));
        assert_eq!(judged(wait, WRITE), Some(alone));
        assert_eq!((judged(wait, wait), judged(wake, wake), judged(WRITE, WRITE)), (None, None, None));
        assert_eq!(judged(wait, futex(libc::FUTEX_WAIT_BITSET)), Some(over), "another kind of wait");
        let free = Case { interleaving: Interleaving::Free, ..Case::of(WRITE, wake) };
        assert_eq!(free.put(order_of_locks), None, "no record tells of locks");
    }

    #[test]
    fn a_duration_may_be_asked_for_by_either_alone_and_the_time_of_day_not() {
        let over = |recorded| Case::of(WRITE, recorded).put(leaders_time);
        assert_eq!((over(MONOTONIC), over(REALTIME)), (Some(Judgement::PassOver(LeadersAlone::Time)), None));
        let alone = |asked| Case::of(asked, WRITE).put(followers_time);
        assert_eq!((alone(MONOTONIC), alone(REALTIME)), (Some(Judgement::Alone(FollowersAlone::Time)), None));
    }

    #[test]
    fn only_a_leader_in_a_run_asks_for_its_name_alone() {
        let asked = Case { pairing: Pairing::Processes, ..Case::of(WRITE, (libc::SYS_gettid, [0; 6])) };
        assert_eq!(asked.put(leaders_name), Some(Judgement::PassOver(LeadersAlone::Itself)));
        let both =
            Case { pairing: Pairing::Processes, ..Case::of((libc::SYS_gettid, [0; 6]), (libc::SYS_gettid, [0; 6])) };
        assert_eq!(both.put(leaders_name), None);
        assert_eq!(Case::of(WRITE, (libc::SYS_gettid, [0; 6])).put(leaders_name), None);
    }

    #[test]
    fn a_name_may_be_chosen_once_more_by_either() {
        let random = (libc::SYS_getrandom, [0, 8, 1, 0, 0, 0]);
        let makes = (OPENAT, [0, 0, (libc::O_CREAT | libc::O_EXCL) as u64, 0, 0, 0]);
        let judged = |asked, recorded| Case::of(asked, recorded).put(choice_of_a_name);
        assert_eq!(judged(makes, random), Some(Judgement::PassOver(LeadersAlone::Itself)));
        assert_eq!(judged(random, makes), Some(Judgement::Alone(FollowersAlone::Choice)));
        assert_eq!((judged(random, random), judged(WRITE, random)), (None, None));
    }

    #[test]
    fn what_the_leader_reads_of_itself_is_passed_over() {
        let reads = Case { leader_reads_itself: true, ..Case::of(WRITE, (libc::SYS_read, [5, 0, 9, 0, 0, 0])) };
        assert_eq!(reads.put(own_files), Some(Judgement::PassOver(LeadersAlone::Itself)));
        assert_eq!(Case::of(WRITE, (libc::SYS_read, [5, 0, 9, 0, 0, 0])).put(own_files), None);
    }

    #[test]
    fn the_leader_counts_the_processors_alone() {
        let opens = || Case::of((OPENAT, [0; 6]), (OPENAT, [0; 6])).paths("/etc/hosts", PROCESSORS);
        let begins = |case: Case| case.put(leaders_counting);
        let counts = |counting| Some(Judgement::PassOver(LeadersAlone::BeginsToCount(counting)));
        assert_eq!(begins(Case { ret: Some(ret(4)), ..opens() }), counts(Counting::Leader(4)));
        assert_eq!(begins(Case { ret: Some(ret(-2)), ..opens() }), counts(Counting::Neither));
        let goes_on = |nr, fd: u64, ret| {
            let case = Case::of(WRITE, (nr, [fd, 0, 0, 0, 0, 0]));
            Case { ret, counting: Counting::Leader(4), ..case }.put(leaders_counting)
        };
        let then = |counting| Some(Judgement::PassOver(LeadersAlone::Counts(counting)));
        assert_eq!(goes_on(libc::SYS_read, 4, Some(ret(3))), then(Counting::Leader(4)));
        assert_eq!(goes_on(libc::SYS_close, 4, Some(ret(0))), then(Counting::Neither));
        assert_eq!(goes_on(libc::SYS_close, 4, None), then(Counting::LeaderCloses));
        assert_eq!(goes_on(libc::SYS_close, 5, Some(ret(0))), None);
    }

    #[test]
    fn the_follower_counts_the_processors_alone() {
        let case = Case::of((OPENAT, [0; 6]), (OPENAT, [0; 6]));
        let alone = case.paths(PROCESSORS, "/etc/hosts").put(followers_counting);
        assert_eq!(alone, Some(Judgement::Alone(FollowersAlone::Count)));
        let both = Case::of((OPENAT, [0; 6]), (OPENAT, [0; 6])).paths(PROCESSORS, PROCESSORS);
        assert_eq!((both.put(followers_counting), both.put(leaders_counting)), (None, None));
    }

    #[test]
    fn what_no_tolerance_is_about_is_compared() {
        let all = |case: Case| case.put(|question| Some(judge(question)));
        assert_eq!(all(Case::of(WRITE, WRITE)), Some(Judgement::Compare));
        assert_eq!(all(Case::of(WRITE, (libc::SYS_read, [0; 6]))), Some(Judgement::Compare));
        let day = Case::of(REALTIME, REALTIME);
        assert_eq!(all(day), Some(Judgement::Supply), "before it is taken for one that the follower asks alone");
    }

    #[test]
    fn a_name_that_was_chosen_is_agreed_to_and_proves_a_call() {
        let makes = [0, 0, (libc::O_CREAT | libc::O_EXCL) as u64, 0, 0, 0];
        let case = Case::of((OPENAT, makes), (OPENAT, makes)).paths("/tmp/tAbC123", "/tmp/txyZ789");
        let agreed = agree(&case.call, &case.entry).expect("they differ in a choice alone");
        assert_eq!(agreed.evidence, Evidence { calls: 1, ..Evidence::default() });
        assert_eq!(agreed.chosen.map(|name| name.bytes), Some("/tmp/txyZ789\0".into()));
        let other = Case::of((OPENAT, makes), (OPENAT, makes)).paths("/tmp/one", "/tmp/two");
        assert!(agree(&other.call, &other.entry).is_err());
    }
}
