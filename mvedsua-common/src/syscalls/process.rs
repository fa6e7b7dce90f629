//! The process and the system it runs on: children, limits, attributes, randomness.

use super::columns::{Applying, Wait};
use super::model::Arg::{Addr, Flags, Int, Int32, Mem};
use super::model::Dir::{Always, Out};
use super::model::Extent::{Fixed, IfPositive};
use super::model::Outcome::{Int as Num, Pid, Size};
use super::model::{Irregular, Row};
use super::words::{check, fills, local, reads, supply, writes};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    supply(61, "wait4", &[Int32, Mem(Out, IfPositive(4)), Flags, Mem(Out, IfPositive(144))], Pid).waits(Wait::Child),
    supply(63, "uname", &[writes(390)], Num).applying(Applying::Made),
    supply(97, "getrlimit", &[Int32, writes(16)], Num).applying(Applying::Made),
    supply(98, "getrusage", &[Int32, writes(144)], Num).applying(Applying::Made),
    supply(99, "sysinfo", &[writes(112)], Num).applying(Applying::Made),
    supply(125, "capget", &[Mem(Always, Fixed(8)), writes(24)], Num).but(Irregular::Capabilities),
    local(126, "capset", &[Addr, Addr], Num).but(Irregular::Capabilities),
    local(135, "personality", &[Int], Num),
    local(157, "prctl", &[Int], Num).but(Irregular::Prctl),
    local(158, "arch_prctl", &[Int, Addr], Num).but(Irregular::ArchPrctl),
    local(160, "setrlimit", &[Int, Addr], Num),
    supply(247, "waitid", &[Int32, Int32, writes(128), Flags, writes(144)], Num).waits(Wait::Child),
    supply(302, "prlimit64", &[Int32, Int32, reads(16), writes(16)], Num).but(Irregular::Prlimit),
    supply(318, "getrandom", &[fills(1), Int, Flags], Size).applying(Applying::Made),
];

const _: () = check(ROWS);
