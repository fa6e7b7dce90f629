//! Whose turn it is to run: the follower's threads go on one at a time, in the order in which the leader's came to their
//! next calls.
//!
//! Locks are taken in user space, and no record says in which order. Threads that all go on as soon as their calls are
//! answered take them in some other order than the leader's, and then one of them stands at a call that is not due yet and
//! keeps what the thread that is due waits for. So a thread whose call was answered stays where it is (*held*) until no
//! other thread runs, and of those that are held the one goes first whose twin came first to its next call. That is nearly
//! the order in which the leader's threads ran, and what they do between two calls they do alone.
//!
//! ```text
//!           its call is answered              its turn
//!  AtCall ───────────────────────► Held ───────────────────► Going ───► AtCall
//!                                    ▲                          │ waits for another thread
//!                                    └───────── Asleep ◄────────┘
//!                                     its wait is over
//! ```
//!
//! A thread that waits in a call of its own (`futex`) gives its turn away and is stopped when that call returns. So it is
//! known at every moment who can move, and nobody needs to wait for a while to find out that nobody does: with every thread
//! at a call or asleep in the kernel the order is relaxed at once.
//!
//! The follower lives in the leader's time, which is behind: a wait with a limit would run out at once, again and again. So
//! such a thread waits without a limit, and its time is over when nobody else can move and the limit was over in the
//! leader when its thread came to its next call ([`expire`]).
//!
//! A thread that computes for long does not keep the others from running ([`LONG`]). Threads whose next call is not known
//! yet wait for it where several run, since the leader is about to tell; where one runs alone there is nothing to wait for.
//!
//! [`free`] guesses the order; [`one_by_one`] follows the one that was recorded.

pub(crate) mod free;
pub(crate) mod one_by_one;

use std::time::{Duration, Instant};

use mvedsua_common::syscalls::regions::Memory;
use mvedsua_common::syscalls::{self, Order, Pairing};

use super::Phase;
use super::drive::{Carrier, Sight};
use super::due::Due;
use crate::calls;
use crate::record::{Event, Record, Slot};

/// How long a thread may run before another goes on beside it, and how long the leader may be silent before threads whose
/// next call is not known go on.
pub(crate) const LONG: Duration = Duration::from_millis(3);
/// How long nothing may move before the order is relaxed whatever the follower does.
pub(crate) const RELAX_AT_LAST: Duration = Duration::from_secs(1);
/// A call that takes the leader longer has waited for something: the thread came to it when it was entered.
const BLOCKED: u64 = 200_000;
/// How often threads whose waits run out may look again, once the leader has ended, before it is believed that they wait for
/// what will not come. A program that tries a few times is done by then.
const LOOKS: u32 = 100;
/// Calls of Linux 6.7.
const FUTEX_WAKE: i64 = 454;
const FUTEX_WAIT: i64 = 455;
const FUTEX_REQUEUE: i64 = 456;

/// Whether a thread may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It runs, or stands at a call.
    Going,
    /// It waits in a call of its own, at whose return it will be stopped.
    Asleep { limit: Option<Limit>, ending: Ending, place: Place, seen: Seen },
    /// It is stopped and could go on, with this signal; numbered in the order in which that came about.
    Held { signo: i32, number: u64, why: Why },
}

/// How long a program wants to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Where the program keeps it, and which argument of the call says so.
    pub(crate) addr: u64,
    pub(crate) arg: usize,
    /// When it is over, nanoseconds of the leader's `CLOCK_MONOTONIC`.
    pub(crate) over_at: u64,
}

/// What a thread waits at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The word at this address.
    Word(u64),
    /// More than one word, or another one by now, or one that other processes know, or a signal.
    Unknown,
}

/// Whether a thread that waits is known to sleep, and nobody has made a call since that may have woken it. Then it sleeps
/// still: in the follower nobody wakes anybody but by a call, and all calls are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Asleep,
    /// It is on its way to sleep, and nobody runs who could keep it from that.
    FallingAsleep,
    NotYet,
}

/// Whom a call may wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wakes {
    Nobody,
    /// Who waits at one of these words.
    At([u64; 2]),
    /// Who waits at this word, or it has them wait at another.
    Moves(u64),
    Anybody,
}

impl Wakes {
    /// Says whether one is meant that waits there.
    pub(crate) fn reaches(self, place: Place) -> bool {
        match (self, place) {
            (Wakes::Nobody, _) => false,
            (Wakes::At(words), Place::Word(word)) => words.contains(&word),
            (Wakes::Moves(from), Place::Word(word)) => word == from,
            (Wakes::At(_) | Wakes::Moves(_), Place::Unknown) | (Wakes::Anybody, _) => true,
        }
    }
}

/// How a wait will end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is open.
    Open,
    /// Its limit is over, and the thread is on its way out of it.
    Expires,
}

/// Why a thread is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// A call of its was answered, or its wait is over.
    Moved,
    /// Its wait ran out, which lets it look again and wait again as often as it likes; the others go first.
    RanOut,
    /// It goes on when the leader's twin does ([`Event::Resumed`]).
    NotTold,
}

/// What the schedule knows of one thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) turn: Turn,
    /// How often a wait of its own was ended since it lived through a record.
    pub(crate) woken: u32,
    /// It computes, and others do not wait for it any more.
    pub(crate) overdue: bool,
    /// How far the others were when the thread went on last after a wait that had run out.
    looked: Option<Progress>,
}

impl Default for Seat {
    fn default() -> Seat {
        Seat { turn: Turn::Going, woken: 0, overdue: false, looked: None }
    }
}

impl Seat {
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.turn, Turn::Held { .. })
    }

    /// Lets a thread go that was held until it is told.
    pub(crate) fn tell(&mut self) {
        if let Turn::Held { why, .. } = &mut self.turn {
            *why = Why::Moved;
        }
    }

    /// Something was done to a thread that may end its wait.
    pub(crate) fn disturb(&mut self) {
        if let Turn::Asleep { seen, .. } = &mut self.turn {
            *seen = Seen::NotYet;
        }
    }

    /// Its wait is about to end since its time is over.
    pub(crate) fn expire(&mut self) {
        if let Turn::Asleep { ending, seen, .. } = &mut self.turn {
            (*ending, *seen) = (Ending::Expires, Seen::NotYet);
        }
    }

    /// It was seen to sleep.
    pub(crate) fn saw_asleep(&mut self) {
        if let Turn::Asleep { seen, .. } = &mut self.turn {
            *seen = Seen::Asleep;
        }
    }
}

/// How far the follower is: turns that were given, and records that were lived through.
type Progress = (u64, u64);

/// What the schedule remembers of all threads.
#[derive(Debug)]
pub(crate) struct Turns {
    /// How often one had to wait for its turn, and how often one that can move got it.
    holds: u64,
    turns: u64,
    /// Records that were lived through.
    applied: u64,
    /// How often threads looked again after a wait that had run out, since anybody moved.
    looks: u32,
    /// When a thread was last given its turn.
    given: Instant,
    /// When that was one that can move.
    pub(crate) turn_given: Instant,
}

impl Turns {
    pub(crate) fn new(now: Instant) -> Turns {
        Turns { holds: 0, turns: 0, applied: 0, looks: 0, given: now, turn_given: now }
    }

    /// Lets a stopped thread wait for its turn.
    pub(crate) fn hold(&mut self, seat: &mut Seat, signo: i32, why: Why) {
        self.holds += 1;
        seat.turn = Turn::Held { signo, number: self.holds, why };
    }

    /// Gives a thread that is held its turn. Returns the signal with which it goes on.
    pub(crate) fn give(&mut self, seat: &mut Seat, now: Instant) -> Option<i32> {
        let Turn::Held { signo, why, .. } = seat.turn else { return None };
        seat.turn = Turn::Going;
        self.given = now;
        match why {
            Why::Moved => (self.turns, self.turn_given, self.looks) = (self.turns + 1, self.given, 0),
            Why::RanOut => (seat.looked, self.looks) = (Some(self.progress()), self.looks + 1),
            Why::NotTold => {}
        }
        Some(signo)
    }

    /// A record was lived through.
    pub(crate) fn passed(&mut self) {
        self.applied += 1;
        self.looks = 0;
    }

    /// Records that were lived through.
    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    /// Returns how long nobody was given a turn.
    pub(crate) fn since_given(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.given)
    }

    /// Says whether a thread was given a turn since then.
    pub(crate) fn has_given_since(&self, then: Instant) -> bool {
        self.given > then
    }

    /// Whoever has looked before may look again.
    pub(crate) fn look_again(&mut self, now: Instant) {
        self.turns += 1;
        self.given = now;
    }

    fn progress(&self) -> Progress {
        (self.turns, self.applied)
    }
}

/// Returns what a thread waits at in a call that [waits](calls::waits). Where processes are paired, a word that is not private
/// to one of them may be another's as well, under another address.
pub(crate) fn place(nr: u32, args: &[u64; 6], pairing: Pairing) -> Place {
    let op = args[1] as i32 & libc::FUTEX_CMD_MASK;
    let private = args[1] as i32 & libc::FUTEX_PRIVATE_FLAG != 0;
    match i64::from(nr) {
        libc::SYS_futex if !private && pairing == Pairing::Processes => Place::Unknown,
        libc::SYS_futex if op != libc::FUTEX_WAIT_REQUEUE_PI => Place::Word(args[0]),
        FUTEX_WAIT => Place::Word(args[0]),
        _ => Place::Unknown,
    }
}

/// Returns whom a thread's own call may wake, futex(2).
pub(crate) fn wakes_whom(nr: u32, args: &[u64; 6]) -> Wakes {
    match i64::from(nr) {
        libc::SYS_futex => match args[1] as i32 & libc::FUTEX_CMD_MASK {
            libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET | libc::FUTEX_UNLOCK_PI => Wakes::At([args[0]; 2]),
            libc::FUTEX_WAKE_OP => Wakes::At([args[0], args[4]]),
            libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE | libc::FUTEX_CMP_REQUEUE_PI => Wakes::Moves(args[0]),
            _ => Wakes::Nobody,
        },
        FUTEX_WAKE => Wakes::At([args[0]; 2]),
        // Where it ends the kernel wakes who waits for that, and who waits for its locks.
        FUTEX_REQUEUE | libc::SYS_exit | libc::SYS_exit_group => Wakes::Anybody,
        _ => Wakes::Nobody,
    }
}

/// Returns the limit of a wait that begins at `began` of the leader's time. `realtime_ahead` says by how many nanoseconds
/// `CLOCK_REALTIME` is ahead of `CLOCK_MONOTONIC`.
pub(crate) fn limit(
    nr: u32,
    args: &[u64; 6],
    began: u64,
    realtime_ahead: impl Fn() -> u64,
    memory: &dyn Memory,
) -> Option<Limit> {
    let arg = if i64::from(nr) == FUTEX_WAIT { 4 } else { 3 };
    let addr = args[arg];
    let mut time = [0; 16];
    if addr == 0 || memory.read(addr, &mut time) < time.len() {
        return None;
    }
    let word = |at: usize| time[at..at + 8].iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let time = word(0).saturating_mul(1_000_000_000).saturating_add(word(8));
    let op = args[1] as i32 & libc::FUTEX_CMD_MASK;
    let (relative, real) = match i64::from(nr) {
        libc::SYS_futex_waitv => (false, args[4] as i32 == libc::CLOCK_REALTIME),
        FUTEX_WAIT => (false, args[5] as i32 == libc::CLOCK_REALTIME),
        libc::SYS_futex if op == libc::FUTEX_WAIT => (true, false),
        libc::SYS_futex => (false, op == libc::FUTEX_LOCK_PI || args[1] as i32 & libc::FUTEX_CLOCK_REALTIME != 0),
        _ => return None,
    };
    let over_at = match (relative, real) {
        (true, _) => began.saturating_add(time),
        (false, true) => time.saturating_sub(realtime_ahead()),
        (false, false) => time,
    };
    Some(Limit { addr, arg, over_at })
}

/// Returns when the leader's thread came to the call of a record, nanoseconds of its clock.
fn reached(record: &Record) -> u64 {
    match &record.event {
        Event::Call(entry, ret) => {
            let ordered_by_exit = syscalls::row(entry.nr).is_some_and(|row| row.class.order() == Some(Order::ByExit));
            let quick = ret.at.0.saturating_sub(entry.at.0) < BLOCKED;
            if ordered_by_exit && quick { ret.at.0 } else { entry.at.0 }
        }
        Event::Enter(entry) => entry.at.0,
        // It belongs to the call that the thread is in.
        Event::Return(_)
        | Event::Signal(_)
        | Event::ThreadStarted { .. }
        | Event::ThreadEnded
        | Event::Resumed
        | Event::Overdue
        | Event::Gap(_)
        | Event::ProcessStarted { .. }
        | Event::Executed(_)
        | Event::ProcessEnded(_)
        | Event::Succession(_) => 0,
    }
}

/// Says whether a wait's limit was over in the leader when its thread came to its next call, or is at `present`.
fn is_over(limit: Limit, due: &Due, slot: Slot, present: u64) -> bool {
    limit.over_at <= due.first_ordered_of(slot).map_or(present, reached)
}

/// Ends a wait whose limit was over in the leader, once for each time that others have moved; `whom` is told whether the
/// thread's next record is known. Says whether there was one.
pub(crate) fn expire<C: Carrier>(
    carrier: &mut C,
    whom: impl Fn(&Sight<'_, C::Thread>, bool) -> bool,
) -> Result<bool, C::Error> {
    let moved = Some(carrier.turns().progress());
    let present = carrier.leaders_present();
    let due = carrier.due();
    let runs_out = |sight: &Sight<'_, C::Thread>| {
        let over = match sight.seat.turn {
            Turn::Asleep { limit: Some(limit), ending: Ending::Open, .. } => is_over(limit, due, sight.slot, present),
            Turn::Asleep { .. } | Turn::Going | Turn::Held { .. } => false,
        };
        over && sight.seat.looked != moved && whom(sight, due.first_of(sight.slot).is_some())
    };
    let found = carrier.sights().find(runs_out).map(|sight| sight.thread);
    found.map_or(Ok(false), |thread| carrier.end_wait(thread).map(|()| true))
}

/// Says whether nobody moves any more, ever: the leader has ended and all that it did is known, no thread of the follower
/// runs or can be let go on, and those that sleep in the kernel sleep without an end. To be asked where nothing could be
/// answered, nor the order relaxed.
pub(crate) fn stands_for_good<C: Carrier>(carrier: &mut C) -> bool {
    while carrier.fetch() {}
    if !carrier.is_finished() || carrier.is_draining() {
        return false;
    }
    // The leader's time ends with it.
    let over = carrier.leaders_end();
    let looks = carrier.turns().looks < LOOKS;
    let has_relatives = carrier.orders().pairing == Pairing::Processes;
    let due = carrier.due();
    let can_move = |sight: Sight<'_, C::Thread>| match sight.seat.turn {
        Turn::Going => sight.is_busy() || sight.is_giving_birth(),
        Turn::Held { why: Why::Moved, .. } | Turn::Asleep { ending: Ending::Expires, .. } => true,
        Turn::Held { why: Why::RanOut, .. } => looks,
        Turn::Held { why: Why::NotTold, .. } => false,
        // Another process of the program's may wake it, which has a stream of its own.
        Turn::Asleep { place: Place::Unknown, .. } if has_relatives => true,
        Turn::Asleep { limit, .. } => looks && limit.is_some_and(|limit| is_over(limit, due, sight.slot, over)),
    };
    // A call that may wait can return at once all the same: an address that is no place to wait at, say.
    let awake =
        |sight: Sight<'_, C::Thread>| matches!(sight.seat.turn, Turn::Asleep { .. }) && carrier.is_awake(sight.thread);
    !carrier.sights().any(can_move) && !carrier.sights().any(awake)
}

/// Answers the first record of some other thread that can be answered and concerns no object of those it overtakes; says whether
/// there was one.
pub(crate) fn relax<C: Carrier>(carrier: &mut C) -> Result<bool, C::Error> {
    while carrier.fetch() {}
    let mut overtaken: Vec<(Slot, C::Touched)> = Vec::new();
    let waiting: Vec<Slot> = carrier.due().waiting_slots().collect();
    for slot in waiting {
        if overtaken.iter().any(|(other, _)| *other == slot) {
            continue;
        }
        let Some(touched) = carrier.touched(slot) else { continue };
        let conflict = overtaken.iter().any(|(_, others)| C::concern(&touched, others));
        if !conflict && !overtaken.is_empty() && carrier.overtake(slot)? {
            return Ok(true);
        }
        overtaken.push((slot, touched));
    }
    if carrier.due().has_ordered() { improvise_for_waiting(carrier) } else { Ok(false) }
}

/// Answers threads that ask for the time, or count the processors, although the leader has made no call for them for a
/// while: they may hold what the others wait for. Says whether there was one.
pub(crate) fn improvise_for_waiting<C: Carrier>(carrier: &mut C) -> Result<bool, C::Error> {
    let at_last = carrier.since_moved() >= RELAX_AT_LAST;
    let asks = |sight: Sight<'_, C::Thread>| match sight.phase {
        Phase::AtCall(_)
            if carrier.due().first_of(sight.slot).is_none() && (at_last || !carrier.leader_comes(sight.slot)) =>
        {
            Some((sight.thread, sight.slot))
        }
        Phase::AtCall(_)
        | Phase::Computes
        | Phase::InOwnCall(_)
        | Phase::Entered
        | Phase::Makes(_)
        | Phase::Faulted(_)
        | Phase::Parked => None,
    };
    let waiting: Vec<(C::Thread, Slot)> = carrier.sights().filter_map(asks).collect();
    if waiting.is_empty() {
        return Ok(false);
    }
    // A leader's thread that was seen to sleep may have come there since the log was read, and told what it knows.
    while carrier.fetch() {}
    let mut answered = false;
    for (thread, slot) in waiting {
        answered |= carrier.due().first_of(slot).is_some() || carrier.improvise_or_count(thread)?;
    }
    Ok(answered)
}

/// Says whether a call may be answered although the leader has not made it: it asks for a duration, or lets signals in.
pub(crate) fn may_be_improvised(nr: u32, args: &[u64; 6]) -> bool {
    calls::asks_duration(nr, args) || calls::lets_in(nr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::tests::{entry, ret};
    use crate::record::{CallEntry, CallReturn, Nanos, Seq};

    const PRIVATE: i32 = libc::FUTEX_PRIVATE_FLAG;

    fn futex(op: i32) -> [u64; 6] {
        [0x1000, op as u64, 7, 0x2000, 0x3000, 0]
    }

    /// Memory that holds one `timespec`.
    struct Time(i64, i64);

    impl Memory for Time {
        fn read(&self, _: u64, buf: &mut [u8]) -> usize {
            buf[..8].copy_from_slice(&self.0.to_ne_bytes());
            buf[8..16].copy_from_slice(&self.1.to_ne_bytes());
            16
        }
    }

    #[test]
    fn a_call_wakes_those_who_wait_at_its_words() {
        let nr = libc::SYS_futex as u32;
        let whom = |op| wakes_whom(nr, &futex(op | PRIVATE));
        assert!(whom(libc::FUTEX_WAKE).reaches(Place::Word(0x1000)));
        assert!(!whom(libc::FUTEX_WAKE).reaches(Place::Word(0x3000)));
        assert!(whom(libc::FUTEX_WAKE_OP).reaches(Place::Word(0x3000)));
        assert!(whom(libc::FUTEX_CMP_REQUEUE).reaches(Place::Word(0x1000)));
        assert!(whom(libc::FUTEX_WAKE).reaches(Place::Unknown), "it may wait there");
        assert_eq!(whom(libc::FUTEX_WAIT), Wakes::Nobody);
        assert!(!Wakes::Nobody.reaches(Place::Unknown));
        assert!(wakes_whom(libc::SYS_exit as u32, &[0; 6]).reaches(Place::Word(1)));
    }

    #[test]
    fn a_word_that_relatives_may_know_is_no_place() {
        let at = |op, pairing| place(libc::SYS_futex as u32, &futex(op), pairing);
        assert_eq!(at(libc::FUTEX_WAIT, Pairing::Threads), Place::Word(0x1000));
        assert_eq!(at(libc::FUTEX_WAIT, Pairing::Processes), Place::Unknown);
        assert_eq!(at(libc::FUTEX_WAIT | PRIVATE, Pairing::Processes), Place::Word(0x1000));
        assert_eq!(at(libc::FUTEX_WAIT_REQUEUE_PI | PRIVATE, Pairing::Threads), Place::Unknown);
    }

    #[test]
    fn a_limit_is_told_in_the_leaders_time() {
        let over = |op| limit(libc::SYS_futex as u32, &futex(op), 500, || 100, &Time(1, 5)).map(|limit| limit.over_at);
        assert_eq!(over(libc::FUTEX_WAIT), Some(1_000_000_505), "it is counted from the beginning of the wait");
        assert_eq!(over(libc::FUTEX_WAIT_BITSET), Some(1_000_000_005));
        assert_eq!(over(libc::FUTEX_WAIT_BITSET | libc::FUTEX_CLOCK_REALTIME), Some(999_999_905));
        let mut endless = futex(libc::FUTEX_WAIT);
        endless[3] = 0;
        assert_eq!(limit(libc::SYS_futex as u32, &endless, 500, || 100, &Time(1, 5)), None);
    }

    #[test]
    fn a_call_that_takes_long_was_come_to_when_it_was_entered() {
        let came = |nr, entered, left| {
            let entry = CallEntry { at: Nanos(entered), ..entry(nr, [0; 6]) };
            let ret = CallReturn { at: Nanos(left), ..ret(0) };
            reached(&Record { seq: Seq(0), slot: Slot(0), event: Event::Call(entry, ret) })
        };
        assert_eq!(came(libc::SYS_read, 1000, 1000 + BLOCKED - 1), 1000 + BLOCKED - 1);
        assert_eq!(came(libc::SYS_read, 1000, 1000 + BLOCKED), 1000);
        assert_eq!(came(libc::SYS_write, 1000, 2000), 1000, "the world sees it when it is entered");
    }

    #[test]
    fn one_whose_wait_ran_out_looks_again_once_others_have_moved() {
        let now = Instant::now();
        let (mut turns, mut one, mut other) = (Turns::new(now), Seat::default(), Seat::default());
        turns.hold(&mut one, 0, Why::RanOut);
        assert_eq!(turns.give(&mut one, now), Some(0));
        assert_eq!((one.turn, one.looked), (Turn::Going, Some(turns.progress())));
        turns.hold(&mut other, 9, Why::Moved);
        assert_eq!(turns.give(&mut other, now), Some(9), "it goes on with its signal");
        assert_ne!(one.looked, Some(turns.progress()), "somebody has moved");
        assert_eq!(turns.give(&mut other, now), None, "it is not held");
        turns.passed();
        assert_eq!((turns.applied(), turns.looks), (1, 0));
    }

    #[test]
    fn a_seat_is_told_disturbed_and_expired() {
        let mut seat = Seat { turn: Turn::Held { signo: 0, number: 1, why: Why::NotTold }, ..Seat::default() };
        seat.tell();
        assert!(seat.is_held() && matches!(seat.turn, Turn::Held { why: Why::Moved, .. }));
        let asleep = |ending, seen| Turn::Asleep { limit: None, ending, place: Place::Word(4), seen };
        seat.turn = asleep(Ending::Open, Seen::NotYet);
        seat.saw_asleep();
        assert_eq!(seat.turn, asleep(Ending::Open, Seen::Asleep));
        seat.disturb();
        assert_eq!(seat.turn, asleep(Ending::Open, Seen::NotYet));
        seat.expire();
        assert_eq!(seat.turn, asleep(Ending::Expires, Seen::NotYet));
    }

    #[test]
    fn a_wait_that_the_leader_does_not_know_ends_only_so_often() {
        use one_by_one::{MOST_WAKES, answers_alone};
        let mut seat = Seat::default();
        for _ in 0..MOST_WAKES {
            assert!(answers_alone(&mut seat, syscalls::Ordering::Waits, || false));
        }
        assert!(!answers_alone(&mut seat, syscalls::Ordering::Waits, || false));
        assert!(answers_alone(&mut seat, syscalls::Ordering::Waits, || true), "somebody may have changed it");
        assert!(answers_alone(&mut seat, syscalls::Ordering::Wakes, || false));
    }
}
