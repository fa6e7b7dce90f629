//! The calls by which threads wait for each other or give way, for when their order is recorded.
//!
//! As a rule each version makes them for itself. Where the leader's threads run one at a time they are what the order of its
//! threads consists of: then the leader alone makes them, and the follower, where nobody else can run, gets the results. So
//! these rows are of class `Supply`. What a thread waits at, and which value it expects there, is each version's own.

use crate::syscalls::model::Arg::{Addr, Int32, Mem};
use crate::syscalls::model::Dir::Out;
use crate::syscalls::model::Extent::Fixed;
use crate::syscalls::model::Outcome::Int as Num;
use crate::syscalls::model::Row;
use crate::syscalls::words::{check_row, compare, supply};

static SCHED_YIELD: Row = supply(24, "sched_yield/IN_ORDER", &[], Num);
static FUTEX: Row = supply(202, "futex/IN_ORDER", &[Addr, Int32, Addr, Addr, Addr, Addr], Num);
/// `FUTEX_WAKE_OP` changes the second word, futex(2).
static FUTEX_WAKE_OP: Row =
    supply(202, "futex/WAKE_OP_IN_ORDER", &[Addr, Int32, Addr, Addr, Mem(Out, Fixed(4)), Addr], Num);
/// The kernel writes the owner into a mutex with inherited priority: who takes it, and who is given it (`FUTEX_LOCK_PI`, `futex(2)`).
/// Who waits for it is seen there as soon as he does, by the owner above all; so that is ordered by its entry.
static FUTEX_LOCK_PI: Row =
    compare(202, "futex/LOCK_PI_IN_ORDER", &[Mem(Out, Fixed(4)), Int32, Addr, Addr, Addr, Addr], Num);
static FUTEX_PI: Row = supply(202, "futex/PI_IN_ORDER", &[Mem(Out, Fixed(4)), Int32, Addr, Addr, Addr, Addr], Num);
static FUTEX_WAITV: Row = supply(449, "futex_waitv/IN_ORDER", &[Addr, Addr, Addr, Addr, Addr], Num);
static FUTEX_WAKE: Row = supply(454, "futex_wake/IN_ORDER", &[Addr, Addr, Addr, Addr], Num);
static FUTEX_WAIT: Row = supply(455, "futex_wait/IN_ORDER", &[Addr, Addr, Addr, Addr, Addr, Addr], Num);
static FUTEX_REQUEUE: Row = supply(456, "futex_requeue/IN_ORDER", &[Addr, Addr, Addr, Addr], Num);

/// All of them.
pub(super) static ROWS: [&Row; 9] = [
    &SCHED_YIELD,
    &FUTEX,
    &FUTEX_WAKE_OP,
    &FUTEX_LOCK_PI,
    &FUTEX_PI,
    &FUTEX_WAITV,
    &FUTEX_WAKE,
    &FUTEX_WAIT,
    &FUTEX_REQUEUE,
];

const _: () = {
    let mut i = 0;
    while i < ROWS.len() {
        check_row(ROWS[i]);
        i += 1;
    }
};

/// What a call is to other threads of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    /// It waits for another thread.
    Waits,
    /// It may wake others.
    Wakes,
    /// It lets others go first.
    Yields,
}

/// Returns the row of a call by which threads wait for each other, and what it is to them; `None` for all other calls.
#[must_use]
pub fn in_order(nr: u32, args: &[u64; 6]) -> Option<(&'static Row, Ordering)> {
    const OPERATION: u64 = 0x7f;
    const WAIT: u64 = 0;
    const WAKE_OP: u64 = 5;
    const LOCK_PI: u64 = 6;
    const UNLOCK_PI: u64 = 7;
    const TRYLOCK_PI: u64 = 8;
    const WAIT_BITSET: u64 = 9;
    const LOCK_PI2: u64 = 13;
    Some(match (nr, args[1] & OPERATION) {
        (24, _) => (&SCHED_YIELD, Ordering::Yields),
        (202, WAIT | WAIT_BITSET) => (&FUTEX, Ordering::Waits),
        (202, WAKE_OP) => (&FUTEX_WAKE_OP, Ordering::Wakes),
        (202, LOCK_PI | LOCK_PI2) => (&FUTEX_LOCK_PI, Ordering::Waits),
        (202, UNLOCK_PI | TRYLOCK_PI) => (&FUTEX_PI, Ordering::Wakes),
        (202, _) => (&FUTEX, Ordering::Wakes),
        (449, _) => (&FUTEX_WAITV, Ordering::Waits),
        (454, _) => (&FUTEX_WAKE, Ordering::Wakes),
        (455, _) => (&FUTEX_WAIT, Ordering::Waits),
        (456, _) => (&FUTEX_REQUEUE, Ordering::Wakes),
        _ => return None,
    })
}

/// Says whether an operation of `futex(2)` waits for another thread.
pub(in crate::syscalls) fn futex_waits(operation: u64) -> bool {
    const WAIT: u32 = 0;
    const LOCK_PI: u32 = 6;
    const WAIT_BITSET: u32 = 9;
    const WAIT_REQUEUE_PI: u32 = 11;
    const LOCK_PI2: u32 = 13;
    /// `FUTEX_PRIVATE_FLAG` and `FUTEX_CLOCK_REALTIME` choose no other operation.
    const FLAGS: u32 = 0x180;
    [WAIT, LOCK_PI, WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2].contains(&(operation as u32 & !FLAGS))
}

/// Says whether a call takes a mutex with inherited priority.
#[must_use]
pub fn locks_inheriting(nr: u32, args: &[u64; 6]) -> bool {
    const LOCK_PI: u64 = 6;
    const LOCK_PI2: u64 = 13;
    nr == 202 && [LOCK_PI, LOCK_PI2].contains(&(args[1] & 0x7f))
}
