//! Threads, their scheduling, and the processes that a program forks.

use super::columns::{Applying, Asks, Wait};
use super::model::Arg::{Addr, Flags, Int, Int32, LongFlags, Mem};
use super::model::Dir::{In, InOut, Out};
use super::model::Extent::{CloneArgs, FromArg, SizeFirst};
use super::model::Outcome::{Int as Num, Never, Pid, Size};
use super::model::{Irregular, Row};
use super::words::{both, check, compare, fills, local, reads, reads_arg, refuse, supply, writes};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    local(24, "sched_yield", &[], Num),
    both(56, "clone", &[LongFlags, Addr, Addr, Addr, Addr], Pid).but(Irregular::Clone),
    compare(57, "fork", &[], Pid).but(Irregular::Fork),
    compare(58, "vfork", &[], Pid).but(Irregular::Fork),
    both(60, "exit", &[Int32], Never),
    supply(140, "getpriority", &[Int32, Int32], Num).applying(Applying::Made),
    compare(141, "setpriority", &[Int32, Int32, Int32], Num).but(Irregular::Priority),
    compare(142, "sched_setparam", &[Int32, reads(4)], Num).but(Irregular::Myself { arg: 0 }),
    supply(143, "sched_getparam", &[Int32, writes(4)], Num),
    compare(144, "sched_setscheduler", &[Int32, Int32, reads(4)], Num).but(Irregular::Myself { arg: 0 }),
    supply(145, "sched_getscheduler", &[Int32], Num),
    supply(146, "sched_get_priority_max", &[Int32], Num),
    supply(147, "sched_get_priority_min", &[Int32], Num),
    supply(148, "sched_rr_get_interval", &[Int32, writes(16)], Num),
    local(202, "futex", &[Addr, Int, Int, Addr, Addr, Int], Num).but(Irregular::Futex).waits(Wait::Thread),
    compare(203, "sched_setaffinity", &[Int32, Int32, reads_arg(1)], Num).but(Irregular::Myself { arg: 0 }),
    supply(204, "sched_getaffinity", &[Int32, Int32, fills(1)], Size).applying(Applying::Made),
    local(218, "set_tid_address", &[Addr], Pid),
    both(231, "exit_group", &[Int32], Never),
    compare(251, "ioprio_set", &[Int32, Int32, Int32], Num).but(Irregular::Priority),
    supply(252, "ioprio_get", &[Int32, Int32], Num),
    local(273, "set_robust_list", &[Addr, Int], Num),
    refuse(274, "get_robust_list", "it tells an address in the memory of a thread that is named by its id").but(Irregular::Myself { arg: 0 }),
    supply(309, "getcpu", &[writes(4), writes(4), Addr], Num).asks(Asks::Time).applying(Applying::Made),
    compare(314, "sched_setattr", &[Int32, Mem(In, SizeFirst { least: 48 }), Flags], Num).but(Irregular::Myself { arg: 0 }),
    supply(315, "sched_getattr", &[Int32, Mem(Out, FromArg { len: 2, scale: 1 }), Int32, Flags], Num).note("what it does not know of is zeroed"),
    local(334, "rseq", &[Addr, Int, Flags, Int], Num),
    both(435, "clone3", &[Mem(InOut, CloneArgs), Int], Pid).but(Irregular::Clone3),
    local(449, "futex_waitv", &[Addr, Int, Flags, Addr, Int], Num).waits(Wait::Thread),
    local(454, "futex_wake", &[Addr, Int, Int, Flags], Num),
    local(455, "futex_wait", &[Addr, Int, Int, Flags, Addr, Int], Num).waits(Wait::Thread),
    local(456, "futex_requeue", &[Addr, Flags, Int, Int], Num),
];

const _: () = check(ROWS);
