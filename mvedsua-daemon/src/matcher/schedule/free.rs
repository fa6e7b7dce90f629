//! The schedule where the leader's threads run as the kernel lets them: their order is guessed from when they came to their
//! calls.

use super::super::drive::{Carrier, Sight};
use super::super::{Phase, schedule};
use super::{LONG, RELAX_AT_LAST, Seen, Turn, Why, reached};
use crate::calls;
use crate::record::{Event, Record, Slot};

/// Which held threads are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Anybody,
    ThoseWhoCanMove,
}

/// To be called when no record can be answered: lets the next thread go on, or relaxes the order if nobody can. Says whether
/// a record was answered.
pub(crate) fn give_turn<C: Carrier>(carrier: &mut C) -> Result<bool, C::Error> {
    if carrier.sights().any(|sight| sight.is_busy() || sight.is_giving_birth()) {
        return Ok(false);
    }
    if carrier.sights().any(|sight| sight.seat.is_held()) {
        while carrier.fetch() {}
    }
    let ordered = carrier.due().has_ordered();
    match first_held(carrier, Whom::ThoseWhoCanMove) {
        Some((thread, at)) if at.is_some() || ordered => {
            if !somebody_wakes(carrier, at) {
                carrier.let_go(thread)?;
            }
            Ok(false)
        }
        Some((thread, _)) => {
            let alone = carrier.sights().filter(|sight| sight.seat.is_held()).count() == 1;
            if alone || carrier.is_draining() || carrier.since_moved() >= LONG {
                carrier.let_go(thread)?;
            }
            Ok(false)
        }
        None if carrier.due().is_empty() || somebody_wakes(carrier, None) => Ok(false),
        // The leader tells what it knows of the time at its next call.
        None if carrier.since_moved() < RELAX_AT_LAST && somebody_will_be_told(carrier) => Ok(false),
        None => {
            let front = carrier.due().front();
            let expired = match front {
                Some(slot) => schedule::expire(carrier, |sight, _| sight.slot == slot)?,
                None => schedule::expire(carrier, |_, known| known)?,
            };
            if expired || front.is_none() {
                return Ok(false);
            }
            if schedule::relax(carrier)? {
                return Ok(true);
            }
            schedule::expire(carrier, |_, _| true)?;
            Ok(false)
        }
    }
}

/// Lets another thread go on beside one that has been running for long; to be called every now and then.
pub(crate) fn share_turn<C: Carrier>(carrier: &mut C) -> Result<(), C::Error> {
    if carrier.turns().since_given(carrier.now()) < LONG {
        return Ok(());
    }
    if let Some((thread, _)) = first_held(carrier, Whom::Anybody) {
        return carrier.let_go(thread);
    }
    if !carrier.due().is_empty() && carrier.since_moved() >= LONG {
        let now = carrier.now();
        carrier.turns_mut().look_again(now);
    }
    Ok(())
}

/// Returns when the leader's thread came to its next call, if that is known. Asking for the time does not count: a
/// thread that fights for a lock does so before it gets it. Sleeping does: a thread that does little else would never have
/// its turn.
fn comes_at<C: Carrier>(carrier: &C, slot: Slot) -> Option<u64> {
    let asks = |record: &&Record| matches!(&record.event, Event::Call(entry, _) if calls::asks_time(entry.nr));
    carrier.due().of(slot).find(|record| !asks(record)).map(reached)
}

/// Returns the thread that goes on next, and when its twin came to its next call, if that is known.
fn first_held<C: Carrier>(carrier: &C, whom: Whom) -> Option<(C::Thread, Option<u64>)> {
    let now = Some(carrier.turns().progress());
    let held = carrier.sights().filter_map(|sight| match sight.seat.turn {
        // Nobody has moved since it looked last: it would only look again.
        Turn::Held { why: Why::RanOut, .. } if whom == Whom::ThoseWhoCanMove && sight.seat.looked == now => None,
        Turn::Held { number, why, .. } => Some((why, comes_at(carrier, sight.slot), number, sight.thread)),
        Turn::Going | Turn::Asleep { .. } => None,
    });
    let (_, at, _, thread) = held.min_by_key(|(why, at, number, _)| (*why, at.unwrap_or(u64::MAX), *number))?;
    Some((thread, at))
}

/// Says whether a thread that waited in a call of its own is on its way out of it, and (if a time is given) its twin
/// came to its next call before that: its stop comes by itself.
fn somebody_wakes<C: Carrier>(carrier: &mut C, before: Option<u64>) -> bool {
    let counts = |sight: &Sight<'_, C::Thread>| {
        matches!(sight.seat.turn, Turn::Asleep { seen: Seen::NotYet, .. })
            && before.is_none_or(|at| comes_at(carrier, sight.slot).is_some_and(|comes| comes < at))
    };
    let perhaps: Vec<C::Thread> = carrier.sights().filter(counts).map(|sight| sight.thread).collect();
    for thread in perhaps {
        if carrier.is_awake(thread) {
            return true;
        }
        if let Some(seat) = carrier.seat(thread) {
            seat.saw_asleep();
        }
    }
    false
}

/// Says whether one that waits for a record of its own has a twin that is on its way to a call.
fn somebody_will_be_told<C: Carrier>(carrier: &C) -> bool {
    let will_be = |sight: Sight<'_, C::Thread>| match sight.phase {
        Phase::AtCall(call) if carrier.due().is_alone(call.nr) && carrier.due().first_of(sight.slot).is_none() => {
            carrier.leader_comes(sight.slot)
        }
        Phase::AtCall(_)
        | Phase::Computes
        | Phase::InOwnCall(_)
        | Phase::Entered
        | Phase::Makes(_)
        | Phase::Faulted(_)
        | Phase::Parked => false,
    };
    carrier.may_fetch() && carrier.sights().any(will_be)
}
