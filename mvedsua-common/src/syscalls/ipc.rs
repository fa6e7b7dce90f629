//! System V semaphores and message queues, POSIX message queues. (Memory that is shared is in [`super::refused`].)
//!
//! What a semaphore is to take back at the end of its process (`SEM_UNDO`) both versions hold together from the fork on, so
//! that it survives the end of either.

use super::columns::{After, Limit, Moves, Wait};
use super::model::Arg::{Fd, Flags, Int, Int32, Mem};
use super::model::Dir::{In, Out};
use super::model::Extent::{FromArg, MsgBuf, SigEvent};
use super::model::Outcome::{Fd as NewFd, Int as Num, Size};
use super::model::{Arg, Irregular, Row};
use super::words::{PATH, check, compare, fills, reads, reads_arg, supply, writes};

/// An array of `struct sembuf`, 6 bytes each.
const OPERATIONS: Arg = Mem(In, FromArg { len: 2, scale: 6 });

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    compare(64, "semget", &[Int32, Int32, Flags], Num),
    compare(65, "semop", &[Int32, OPERATIONS, Int32], Num).waits(Wait::Others),
    compare(66, "semctl", &[Int32, Int32, Int32], Num).but(Irregular::SemCtl),
    compare(68, "msgget", &[Int32, Flags], Num),
    compare(69, "msgsnd", &[Int32, Mem(In, MsgBuf { size: 2 }), Int, Flags], Num).waits(Wait::Others).moves(Moves::Out),
    supply(70, "msgrcv", &[Int32, Mem(Out, MsgBuf { size: 2 }), Int, Int, Flags], Size).waits(Wait::Input).moves(Moves::In),
    compare(71, "msgctl", &[Int32, Int32], Num).but(Irregular::MsgCtl),
    compare(220, "semtimedop", &[Int32, OPERATIONS, Int32, reads(16)], Num).waits(Wait::Others).limit(Limit::again(After::Timespec { arg: 3 })),
    compare(240, "mq_open", &[PATH, Flags, Int32, reads(64)], NewFd).but(Irregular::MqOpen),
    compare(241, "mq_unlink", &[PATH], Num),
    compare(242, "mq_timedsend", &[Fd, reads_arg(2), Int, Int32, reads(16)], Num).waits(Wait::Others).moves(Moves::Out),
    supply(243, "mq_timedreceive", &[Fd, fills(2), Int, writes(4), reads(16)], Size).waits(Wait::Input).moves(Moves::In),
    compare(244, "mq_notify", &[Fd, Mem(In, SigEvent)], Num),
    compare(245, "mq_getsetattr", &[Fd, reads(64), writes(64)], Num),
];

const _: () = check(ROWS);
