//! Clocks, sleeping and timers.

use super::columns::{Applying, Asks, Wait};
use super::model::Arg::{Fd, Flags, Int32, Mem};
use super::model::Dir::{In, TimeLeft};
use super::model::Extent::{Fixed, SigEvent};
use super::model::Outcome::{Fd as NewFd, Int as Num, Size};
use super::model::{Irregular, Row};
use super::words::{check, compare, reads, supply, updates, writes};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    supply(35, "nanosleep", &[reads(16), Mem(TimeLeft, Fixed(16))], Num).waits(Wait::Time).applying(Applying::Made),
    supply(36, "getitimer", &[Int32, writes(32)], Num),
    compare(37, "alarm", &[Int32], Num),
    compare(38, "setitimer", &[Int32, reads(32), writes(32)], Num),
    supply(96, "gettimeofday", &[writes(16), writes(8)], Num).asks(Asks::Time).applying(Applying::Made),
    supply(100, "times", &[writes(32)], Size).applying(Applying::Made),
    compare(159, "adjtimex", &[updates(208)], Num).note("with modes set it moves the clock"),
    supply(201, "time", &[writes(8)], Size).asks(Asks::Time).applying(Applying::Made),
    compare(222, "timer_create", &[Int32, Mem(In, SigEvent), writes(4)], Num),
    compare(223, "timer_settime", &[Int32, Flags, reads(32), writes(32)], Num),
    supply(224, "timer_gettime", &[Int32, writes(32)], Num),
    supply(225, "timer_getoverrun", &[Int32], Num),
    compare(226, "timer_delete", &[Int32], Num),
    supply(228, "clock_gettime", &[Int32, writes(16)], Num).asks(Asks::Time).applying(Applying::Made),
    supply(229, "clock_getres", &[Int32, writes(16)], Num).applying(Applying::Made),
    supply(230, "clock_nanosleep", &[Int32, Flags, reads(16), Mem(TimeLeft, Fixed(16))], Num).but(Irregular::ClockNanosleep).waits(Wait::Time).applying(Applying::Made),
    supply(283, "timerfd_create", &[Int32, Flags], NewFd),
    compare(286, "timerfd_settime", &[Fd, Flags, reads(32), writes(32)], Num),
    supply(287, "timerfd_gettime", &[Fd, writes(32)], Num),
];

const _: () = check(ROWS);
