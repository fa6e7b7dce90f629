//! Waiting for descriptors.

use super::columns::{After, Fds, Limit, Made, Wait};
use super::model::Arg::{Addr, Fd, Flags, Int, Int32, Mem};
use super::model::Dir::{Always, In, InOut, Out};
use super::model::Extent::{EpollEvent, FdSet, Fixed, FromRet, PollFds};
use super::model::Outcome::{Fd as NewFd, Int as Num, Size};
use super::model::{Arg, Irregular, Row};
use super::words::{check, compare, reads, reads_arg, supply};

/// One of the three sets of `select`.
const SET: Arg = Mem(InOut, FdSet { nfds: 0 });

/// The array that the `epoll_wait` family fills; `struct epoll_event` is packed, 12 bytes.
const EVENTS: Arg = Mem(Out, FromRet { cap: 2, scale: 12 });

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    supply(7, "poll", &[Mem(InOut, PollFds { count: 1 }), Int32, Int32], Size).but(Irregular::Poll).waits(Wait::Ready),
    supply(23, "select", &[Int32, SET, SET, SET, Mem(Always, Fixed(16))], Size).waits(Wait::Ready),
    supply(213, "epoll_create", &[Int32], NewFd).numbers(Fds::Makes(Made::Epoll)),
    supply(232, "epoll_wait", &[Fd, EVENTS, Int32, Int32], Size).but(Irregular::EpollWait).waits(Wait::Ready).limit(Limit::ready(After::Milliseconds { arg: 3 })),
    compare(233, "epoll_ctl", &[Fd, Int32, Fd, Mem(In, EpollEvent)], Num).but(Irregular::EpollCtl),
    supply(270, "pselect6", &[Int32, SET, SET, SET, Mem(Always, Fixed(16)), Addr], Size).note("the last points to a pointer to the signal mask").waits(Wait::Ready),
    supply(271, "ppoll", &[Mem(InOut, PollFds { count: 1 }), Int32, Mem(Always, Fixed(16)), reads_arg(4), Int], Size).but(Irregular::Poll).waits(Wait::Ready),
    supply(281, "epoll_pwait", &[Fd, EVENTS, Int32, Int32, reads_arg(5), Int], Size).but(Irregular::EpollWait).waits(Wait::Ready).limit(Limit::ready(After::Milliseconds { arg: 3 })),
    supply(291, "epoll_create1", &[Flags], NewFd).numbers(Fds::Makes(Made::Epoll)),
    supply(441, "epoll_pwait2", &[Fd, EVENTS, Int32, reads(16), reads_arg(5), Int], Size).but(Irregular::EpollWait).waits(Wait::Ready).limit(Limit::ready(After::Timespec { arg: 3 })),
];

const _: () = check(ROWS);
