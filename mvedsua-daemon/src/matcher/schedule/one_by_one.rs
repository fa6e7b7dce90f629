//! The schedule where the leader's threads run one by one, see [`crate::record::interleaving`].
//!
//! A record that lets a thread go on is answered when nobody is in user code, and nothing else is answered before that thread
//! has come to its next call. So the follower's threads do between their calls what the leader's did, in its order, and each of
//! them alone. Nothing is guessed and nobody waits for a lock: `futex` has the leader's results.

use mvedsua_common::syscalls::Ordering as Role;

use super::super::drive::{Carrier, Sight};
use super::super::{Making, Phase, schedule};
use super::{Seat, Turn, Why};
use crate::record::Event;

/// How often a wait that the leader does not know ends at once, for no reason.
pub(crate) const MOST_WAKES: u32 = 100;

/// Says whether a call that orders threads and that the leader did not make before its thread's next record is answered now.
/// `may_change` says whether somebody may change what it looks at: it has waited for a while, and others compute.
pub(crate) fn answers_alone(seat: &mut Seat, role: Role, may_change: impl FnOnce() -> bool) -> bool {
    match role {
        Role::Wakes | Role::Yields => true,
        // All that came before in the leader has been done: what it waits for is there, or else it waits again. One that
        // waits for ever is found out as others are that come to no call.
        Role::Waits if seat.woken >= MOST_WAKES && !may_change() => false,
        Role::Waits => {
            seat.woken += 1;
            true
        }
    }
}

/// Says whether no record may be answered since somebody is in user code; lets the one go that may.
pub(crate) fn somebody_has_turn<C: Carrier>(carrier: &mut C) -> Result<bool, C::Error> {
    let_next_go(carrier)?;
    let runs = |sight: Sight<'_, C::Thread>| match sight.phase {
        // They are not in user code before records say how their calls have returned.
        Phase::Makes(Making::Thread(..) | Making::Process(_)) => false,
        // The end of a main thread is told with that of its process.
        Phase::Makes(Making::End) if sight.is_main => false,
        Phase::Computes
        | Phase::InOwnCall(_)
        | Phase::Makes(
            Making::Own
            | Making::Program
            | Making::Alike
            | Making::Mapping
            | Making::Update
            | Making::Suspension
            | Making::End,
        )
        | Phase::AtCall(_)
        | Phase::Entered
        | Phase::Faulted(_)
        | Phase::Parked => sight.is_busy() && !sight.seat.overdue,
    };
    Ok(carrier.sights().any(runs) && !is_somebody_overdue(carrier))
}

/// Lets the thread go on whose turn it is.
pub(crate) fn let_next_go<C: Carrier>(carrier: &mut C) -> Result<(), C::Error> {
    let waits =
        |sight: &Sight<'_, C::Thread>| matches!(sight.seat.turn, Turn::Held { why: Why::Moved | Why::RanOut, .. });
    let next: Vec<C::Thread> = carrier.sights().filter(waits).map(|sight| sight.thread).collect();
    next.into_iter().try_for_each(|thread| carrier.let_go(thread))
}

/// Says whether the next record says that others go on beside a thread which computes.
fn is_somebody_overdue<C: Carrier>(carrier: &C) -> bool {
    let due = carrier.due();
    let first = due.front().and_then(|slot| due.first_of(slot));
    first.is_some_and(|record| record.event == Event::Overdue)
}

/// To be called when no record can be answered and nobody is in user code. The thread that is due waits for something that it
/// need not have waited for (a new version takes a lock more often, or two threads ran beside each other): others go on whose
/// calls have nothing to do with its own. Says whether a record was answered.
pub(crate) fn give_turn<C: Carrier>(carrier: &mut C) -> Result<bool, C::Error> {
    if !carrier.due().has_ordered() || carrier.sights().any(|sight| sight.is_busy()) {
        return Ok(false);
    }
    if schedule::improvise_for_waiting(carrier)? {
        return Ok(true);
    }
    let front = carrier.due().front();
    // It waits for another process, and did so for too long.
    if schedule::expire(carrier, |sight, _| Some(sight.slot) == front)? {
        return Ok(false);
    }
    let waits_alone = |sight: &Sight<'_, C::Thread>| match sight.phase {
        Phase::AtCall(call) => sight.seat.woken >= MOST_WAKES && carrier.orders().of(call.nr, &call.args).is_some(),
        Phase::Computes
        | Phase::InOwnCall(_)
        | Phase::Entered
        | Phase::Makes(_)
        | Phase::Faulted(_)
        | Phase::Parked => false,
    };
    let stands = |sight: &Sight<'_, C::Thread>| Some(sight.slot) == front;
    let alone = carrier.sights().filter(stands).find(waits_alone).map(|sight| sight.thread);
    let Some(thread) = alone else { return Ok(false) };
    carrier.note_race("one waits alone for what need not be waited for");
    let relaxed = schedule::relax(carrier)?;
    if relaxed && let Some(seat) = carrier.seat(thread) {
        // It may look once more.
        seat.woken = MOST_WAKES - 1;
    }
    Ok(relaxed)
}
