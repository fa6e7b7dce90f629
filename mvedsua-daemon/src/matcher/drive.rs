//! Takes records to threads: which record is answered next, who goes on, and when nothing can be done for now.
//!
//! A record is answered only when all earlier ordered records have been answered, so the threads of the follower see the
//! leader's order, and between their calls they run one at a time, in the leader's order as well ([`super::schedule`]). Whoever
//! drives the threads implements [`Carrier`]: the replayer does so for a process, a test for threads that are simulated.

use std::time::{Duration, Instant};

use super::due::Due;
use super::schedule::{Seat, Turn, Turns, free, one_by_one};
use super::{Call, Child, Making, Orders, Phase, Progress};
use crate::calls;
use crate::record::interleaving::Interleaving;
use crate::record::{Event, Record, Slot};

/// A thread of the follower, looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight<'a, T> {
    pub(crate) thread: T,
    pub(crate) slot: Slot,
    pub(crate) phase: Phase<'a>,
    pub(crate) seat: &'a Seat,
    /// It is the first thread of its process.
    pub(crate) is_main: bool,
    /// It stands at the delivery of a signal, and it is not known yet whether another follows at once.
    pub(crate) is_signalled: bool,
}

impl<T> Sight<'_, T> {
    /// Says whether the thread is in user code, or in a call that it will not wait in.
    pub(crate) fn is_busy(&self) -> bool {
        self.seat.turn == Turn::Going && self.phase.moves()
    }

    /// Says whether a thread that was made has not reported its first stop yet.
    pub(crate) fn is_giving_birth(&self) -> bool {
        matches!(self.phase, Phase::Makes(Making::Thread(Child::Announced, _)))
    }
}

impl Phase<'_> {
    /// Says whether the thread comes to its next stop by itself.
    pub(crate) fn moves(&self) -> bool {
        match self {
            Phase::Computes | Phase::InOwnCall(_) => true,
            Phase::Makes(Making::Thread(_, progress) | Making::Process(progress)) => *progress == Progress::UnderWay,
            Phase::Makes(
                Making::Own
                | Making::Program
                | Making::Alike
                | Making::Mapping
                | Making::Update
                | Making::Suspension
                | Making::End,
            ) => true,
            Phase::AtCall(_) | Phase::Entered | Phase::Faulted(_) | Phase::Parked => false,
        }
    }
}

/// Whoever has the follower's threads, and does with them what is decided here.
pub(crate) trait Carrier {
    type Thread: Copy + Ord;
    /// What a record has to do with.
    type Touched;
    type Error;

    /// The records that are due.
    fn due(&self) -> &Due;
    /// Takes one more record from the log, if there is one and room to keep it.
    fn fetch(&mut self) -> bool;
    /// Says whether one more may be taken ahead of those that can be answered.
    fn may_fetch(&self) -> bool;
    /// Asks to be woken by the next record; says whether that is possible, and there is none yet.
    fn arm(&mut self) -> bool;
    /// Says whether no record will come any more.
    fn is_finished(&self) -> bool;

    fn sights(&self) -> impl Iterator<Item = Sight<'_, Self::Thread>>;
    fn seat(&mut self, thread: Self::Thread) -> Option<&mut Seat>;
    fn turns(&self) -> &Turns;
    fn turns_mut(&mut self) -> &mut Turns;
    fn orders(&self) -> Orders<'_>;

    /// Says whether records are answered at all for now.
    fn goes_on(&self) -> bool;
    /// Says whether the versions are about to change roles.
    fn is_draining(&self) -> bool;
    /// Says whether the record that is due waits for another process of the follower.
    fn waits_for_child(&mut self) -> bool;
    fn now(&self) -> Instant;
    /// How long nothing has moved.
    fn since_moved(&self) -> Duration;
    /// The leader's time, nanoseconds of its `CLOCK_MONOTONIC`. It stands still once [`Carrier::leaders_end`] was asked for.
    fn leaders_present(&self) -> u64;
    /// When it was first seen that the leader has ended.
    fn leaders_end(&mut self) -> u64;
    /// Says whether the leader's thread is on its way to a call.
    fn leader_comes(&self, slot: Slot) -> bool;
    /// Says whether a thread that went to wait does not sleep.
    fn is_awake(&self, thread: Self::Thread) -> bool;
    /// Threads did something in an order which is not known to be the leader's.
    fn note_race(&mut self, how: &'static str);

    /// Answers a thread's next record, if it can be answered; says whether it was.
    fn answer(&mut self, slot: Slot) -> Result<bool, Self::Error>;
    /// Answers the call at which a thread waits, and which the leader did not make, if it is elastic; says whether it was.
    fn improvise(&mut self, thread: Self::Thread) -> Result<bool, Self::Error>;
    /// The same, and where a thread begins to count the processors alone.
    fn improvise_or_count(&mut self, thread: Self::Thread) -> Result<bool, Self::Error>;
    /// Delivers signals that others may follow at once, as soon as it is known whether they do; says whether one was.
    fn deliver_signalled(&mut self) -> Result<bool, Self::Error>;
    /// Lets a thread go on that is held.
    fn let_go(&mut self, thread: Self::Thread) -> Result<(), Self::Error>;
    /// Ends the wait of a thread whose time is over.
    fn end_wait(&mut self, thread: Self::Thread) -> Result<(), Self::Error>;
    /// Returns what a thread's next record has to do with.
    fn touched(&self, slot: Slot) -> Option<Self::Touched>;
    /// Says whether two records have something in common, so that their order counts.
    fn concern(one: &Self::Touched, other: &Self::Touched) -> bool;
    /// Answers a thread's next record out of order, where a difference proves nothing; says whether it was, or a call that a rule
    /// lets in before it.
    fn overtake(&mut self, slot: Slot) -> Result<bool, Self::Error>;
}

/// Answers every record that can be answered, and lets threads go on.
pub(crate) fn advance<C: Carrier>(carrier: &mut C) -> Result<(), C::Error> {
    while carrier.goes_on() {
        let mut moved = answer_elastic(carrier)?;
        moved |= carrier.deliver_signalled()?;
        // Whoever was told the time goes on before another thread's record is answered: it has its turn still.
        if moved {
            continue;
        }
        let interleaving = carrier.orders().interleaving;
        let has_turn = match interleaving {
            Interleaving::OneByOne => one_by_one::somebody_has_turn(carrier)?,
            Interleaving::Free => false,
        };
        if has_turn {
            // What is due tells whether somebody else waits.
            moved = !carrier.due().has_ordered() && carrier.fetch();
            // It asks for the time, perhaps.
            if moved || somebody_asks(carrier) && may_come(carrier) {
                continue;
            }
            break;
        }
        if !carrier.due().has_ordered() {
            moved = carrier.fetch();
        }
        if let Some(slot) = carrier.due().front()
            && !carrier.waits_for_child()
        {
            moved |= carrier.answer(slot)?;
        }
        if moved {
            continue;
        }
        let given = match interleaving {
            Interleaving::OneByOne => one_by_one::give_turn(carrier)?,
            Interleaving::Free => free::give_turn(carrier)?,
        };
        if given {
            continue;
        }
        // Nothing can be answered: either the follower is not there yet, or the log has nothing for those who wait.
        let idle = !carrier.due().has_ordered() && carrier.may_fetch();
        if (idle || somebody_asks(carrier)) && may_come(carrier) {
            continue;
        }
        break;
    }
    Ok(())
}

/// Says whether there is a record after all, where it was to be asked for the next one.
fn may_come<C: Carrier>(carrier: &mut C) -> bool {
    !carrier.arm() && !carrier.is_finished()
}

/// Returns the call of a thread that waits for a record of its own, whatever other threads do.
fn asked_alone<'a, C: Carrier>(carrier: &C, sight: &Sight<'a, C::Thread>) -> Option<&'a Call> {
    match sight.phase {
        Phase::AtCall(call) if carrier.due().is_alone(call.nr) => Some(call),
        Phase::AtCall(_)
        | Phase::Computes
        | Phase::InOwnCall(_)
        | Phase::Entered
        | Phase::Makes(_)
        | Phase::Faulted(_)
        | Phase::Parked => None,
    }
}

/// Says whether a thread waits for a record of its own that has not been taken from the log yet.
fn somebody_asks<C: Carrier>(carrier: &C) -> bool {
    let asks = |sight: Sight<'_, C::Thread>| {
        let waits = match sight.phase {
            Phase::AtCall(call) => carrier.due().is_alone(call.nr),
            Phase::Computes
            | Phase::InOwnCall(_)
            | Phase::Entered
            | Phase::Makes(_)
            | Phase::Faulted(_)
            | Phase::Parked => sight.is_signalled,
        };
        waits && carrier.due().first_of(sight.slot).is_none()
    };
    carrier.may_fetch() && carrier.sights().any(asks)
}

/// Answers the threads that ask for the time, each from its own next record; says whether one could be answered.
fn answer_elastic<C: Carrier>(carrier: &mut C) -> Result<bool, C::Error> {
    let asks = |sight: Sight<'_, C::Thread>| {
        let call = asked_alone(carrier, &sight)?;
        Some((sight.thread, sight.slot, calls::is_elastic(call.nr, &call.args)))
    };
    let asking: Vec<(C::Thread, Slot, bool)> = carrier.sights().filter_map(asks).collect();
    let mut moved = false;
    for (thread, slot, elastic) in asking {
        while carrier.due().first_of(slot).is_none() && carrier.fetch() {}
        match carrier.due().first_of(slot) {
            // A signal takes its turn in the order; the call that it belongs to comes after it.
            None | Some(Record { event: Event::Signal(_), .. }) => continue,
            Some(_) => {}
        }
        if carrier.due().is_of_one_thread(slot) {
            moved |= carrier.answer(slot)?;
        } else if elastic {
            // The leader made another call here: the follower asks once more than it did.
            moved |= carrier.improvise(thread)?;
        }
    }
    Ok(moved)
}
