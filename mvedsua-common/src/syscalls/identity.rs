//! Who the process is: asked of the leader, since the follower has pids of its own; rights are dropped by each version
//! for itself, so that the follower never has more than the leader.

use super::columns::{Alone, Applying, Asks, Identity};
use super::model::Arg::{Addr, Int, Int32, Mem};
use super::model::Dir::Out;
use super::model::Extent::FromRet;
use super::model::Outcome::{Int as Num, Pid, Size};
use super::model::Row;
use super::words::{check, compare, local, supply, writes};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    supply(39, "getpid", &[], Pid).alone(Alone::Question).asks(Asks::Name(Identity::Process)),
    local(95, "umask", &[Int], Num),
    supply(102, "getuid", &[], Num).alone(Alone::Question).applying(Applying::Made),
    supply(104, "getgid", &[], Num).applying(Applying::Made),
    local(105, "setuid", &[Int], Num),
    local(106, "setgid", &[Int], Num),
    supply(107, "geteuid", &[], Num).applying(Applying::Made),
    supply(108, "getegid", &[], Num).applying(Applying::Made),
    compare(109, "setpgid", &[Int32, Int32], Num),
    supply(110, "getppid", &[], Pid).alone(Alone::Question).asks(Asks::Name(Identity::Parent)),
    supply(111, "getpgrp", &[], Pid).applying(Applying::Made),
    compare(112, "setsid", &[], Pid),
    local(113, "setreuid", &[Int, Int], Num),
    local(114, "setregid", &[Int, Int], Num),
    supply(115, "getgroups", &[Int32, Mem(Out, FromRet { cap: 0, scale: 4 })], Size).applying(Applying::Made),
    local(116, "setgroups", &[Int, Addr], Num),
    local(117, "setresuid", &[Int, Int, Int], Num),
    supply(118, "getresuid", &[writes(4), writes(4), writes(4)], Num).applying(Applying::Made),
    local(119, "setresgid", &[Int, Int, Int], Num),
    supply(120, "getresgid", &[writes(4), writes(4), writes(4)], Num).applying(Applying::Made),
    supply(121, "getpgid", &[Int32], Pid),
    local(122, "setfsuid", &[Int], Num),
    local(123, "setfsgid", &[Int], Num),
    supply(124, "getsid", &[Int32], Pid),
    supply(186, "gettid", &[], Pid).alone(Alone::Question).asks(Asks::Name(Identity::Thread)),
];

const _: () = check(ROWS);
