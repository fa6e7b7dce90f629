//! Sockets.

use super::columns::{After, Alone, Applying, Fds, Limit, Made, Moves, Wait};
use super::model::Arg::{Fd, Flags, Int, Int32, Mem};
use super::model::Dir::{Always, In, InOut, Out};
use super::model::Extent::{Fixed, MMsgHdr, MsgHdr};
use super::model::Outcome::{Fd as NewFd, Int as Num, Size};
use super::model::{Irregular, Row};
use super::words::{check, compare, fills, fills_ptr, length_of, length_told, reads_arg, supply, writes};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    supply(41, "socket", &[Int32, Int32, Int32], NewFd).numbers(Fds::Makes(Made::Socket)),
    compare(42, "connect", &[Fd, reads_arg(2), Int32], Num).waits(Wait::Others).limit(Limit::connection()),
    supply(43, "accept", &[Fd, fills_ptr(2), length_of(1)], NewFd).waits(Wait::Input).limit(Limit::again(After::Receiving)).moves(Moves::Connection).numbers(Fds::Makes(Made::Connection)),
    compare(44, "sendto", &[Fd, reads_arg(2), Int, Flags, reads_arg(5), Int32], Size).waits(Wait::Others).limit(Limit::again(After::Sending)).moves(Moves::Out).alone(Alone::Output),
    supply(45, "recvfrom", &[Fd, fills(2), Int, Flags, fills_ptr(5), length_of(4)], Size).note("MSG_TRUNC makes the result larger than the room").waits(Wait::Input).limit(Limit::again(After::Receiving)).moves(Moves::In),
    compare(46, "sendmsg", &[Fd, Mem(In, MsgHdr), Flags], Size).waits(Wait::Others).limit(Limit::again(After::Sending)).moves(Moves::Out).alone(Alone::Output),
    supply(47, "recvmsg", &[Fd, Mem(Out, MsgHdr), Flags], Size).note("SCM_RIGHTS in the control data makes descriptors").waits(Wait::Input).limit(Limit::again(After::Receiving)).moves(Moves::In).numbers(Fds::Receives),
    compare(48, "shutdown", &[Fd, Int32], Num),
    compare(49, "bind", &[Fd, reads_arg(2), Int32], Num),
    compare(50, "listen", &[Fd, Int32], Num),
    supply(51, "getsockname", &[Fd, fills_ptr(2), length_told(1)], Num).alone(Alone::Question).applying(Applying::OnAny),
    supply(52, "getpeername", &[Fd, fills_ptr(2), length_told(1)], Num).alone(Alone::Question).applying(Applying::OnAny),
    supply(53, "socketpair", &[Int32, Int32, Int32, writes(8)], Num).numbers(Fds::MakesTwo { at: 3, what: Made::Socket }),
    compare(54, "setsockopt", &[Fd, Int32, Int32, reads_arg(4), Int32], Num).but(Irregular::SockOpt),
    supply(55, "getsockopt", &[Fd, Int32, Int32, fills_ptr(4), length_of(3)], Num).but(Irregular::SockOpt).applying(Applying::OnAny),
    supply(288, "accept4", &[Fd, fills_ptr(2), length_of(1), Flags], NewFd).waits(Wait::Input).limit(Limit::again(After::Receiving)).moves(Moves::Connection).numbers(Fds::Makes(Made::Connection)),
    supply(299, "recvmmsg", &[Fd, Mem(Out, MMsgHdr { count: 2 }), Int32, Flags, Mem(Always, Fixed(16))], Size).but(Irregular::MMsg { count: 2 }).waits(Wait::Input).limit(Limit::again(After::Receiving)).moves(Moves::In).numbers(Fds::Receives),
    compare(307, "sendmmsg", &[Fd, Mem(InOut, MMsgHdr { count: 2 }), Int32, Flags], Size).but(Irregular::MMsg { count: 2 }).waits(Wait::Others).limit(Limit::again(After::Sending)).moves(Moves::Out).alone(Alone::Output),
];

const _: () = check(ROWS);
