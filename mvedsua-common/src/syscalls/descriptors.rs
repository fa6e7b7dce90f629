//! Descriptors: reading and writing through them, making, copying and closing them, what hangs on them.
//!
//! The upper half of the offset of `preadv` and its kin is not looked at where registers have 64 bits.

use super::columns::{After, Alone, Applying, Fds, Limit, Made, Moves, Wait};
use super::model::Arg::{Addr, Fd, Flags, Int, Int32, Mem};
use super::model::Dir::{In, Out};
use super::model::Extent::IoVec;
use super::model::Outcome::{Fd as NewFd, Int as Num, Size};
use super::model::{Irregular, Row};
use super::words::{PATH, check, compare, fills, reads, reads_arg, supply, updates, writes};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    supply(0, "read", &[Fd, fills(2), Int], Size).waits(Wait::Input).limit(Limit::again(After::Receiving)).moves(Moves::In).applying(Applying::OnOwn),
    compare(1, "write", &[Fd, reads_arg(2), Int], Size).waits(Wait::Others).limit(Limit::again(After::Sending)).moves(Moves::Out).alone(Alone::Output),
    compare(3, "close", &[Fd], Num).note("others see it: the peer, and epoll sets that lose the descriptor").numbers(Fds::Closes).applying(Applying::OnOwn),
    supply(5, "fstat", &[Fd, writes(144)], Num).alone(Alone::Question).applying(Applying::OnAny),
    supply(8, "lseek", &[Fd, Int, Int32], Size).note("the offset is the leader's alone: promotion moves it with the file").applying(Applying::OnAny),
    supply(16, "ioctl", &[Fd, Int32], Num).but(Irregular::Ioctl),
    supply(17, "pread64", &[Fd, fills(2), Int, Int], Size).moves(Moves::InFrom).applying(Applying::OnOwn),
    compare(18, "pwrite64", &[Fd, reads_arg(2), Int, Int], Size).moves(Moves::OutTo).alone(Alone::Output),
    supply(19, "readv", &[Fd, Mem(Out, IoVec { count: 2 }), Int], Size).waits(Wait::Input).limit(Limit::again(After::Receiving)).moves(Moves::In).applying(Applying::OnOwn),
    compare(20, "writev", &[Fd, Mem(In, IoVec { count: 2 }), Int], Size).waits(Wait::Others).limit(Limit::again(After::Sending)).moves(Moves::Out).alone(Alone::Output),
    supply(22, "pipe", &[writes(8)], Num).numbers(Fds::MakesTwo { at: 0, what: Made::Pipe }),
    compare(32, "dup", &[Fd], NewFd).numbers(Fds::Duplicates),
    compare(33, "dup2", &[Fd, Fd], NewFd).numbers(Fds::DuplicatesOnto),
    compare(40, "sendfile", &[Fd, Fd, updates(8), Int], Size).note("its payload never is in memory; the file is the same one").waits(Wait::Others).limit(Limit::again(After::Sending)).moves(Moves::Between),
    supply(72, "fcntl", &[Fd, Int32], Num).but(Irregular::Fcntl),
    compare(73, "flock", &[Fd, Int32], Num).waits(Wait::Others),
    compare(74, "fsync", &[Fd], Num).alone(Alone::Output),
    compare(75, "fdatasync", &[Fd], Num).alone(Alone::Output),
    compare(77, "ftruncate", &[Fd, Int], Num),
    supply(78, "getdents", &[Fd, fills(2), Int32], Size),
    compare(81, "fchdir", &[Fd], Num).note("not performed in the follower: promotion carries the folder over"),
    compare(91, "fchmod", &[Fd, Int32], Num),
    compare(93, "fchown", &[Fd, Int32, Int32], Num),
    supply(138, "fstatfs", &[Fd, writes(120)], Num).applying(Applying::OnOwn),
    compare(162, "sync", &[], Num),
    supply(187, "readahead", &[Fd, Int, Int], Num).applying(Applying::OnOwn),
    compare(190, "fsetxattr", &[Fd, PATH, reads_arg(3), Int, Flags], Num),
    supply(193, "fgetxattr", &[Fd, PATH, fills(3), Int], Size),
    supply(196, "flistxattr", &[Fd, fills(2), Int], Size),
    compare(199, "fremovexattr", &[Fd, PATH], Num),
    supply(217, "getdents64", &[Fd, fills(2), Int32], Size).applying(Applying::OnOwn),
    supply(221, "fadvise64", &[Fd, Int, Int, Int32], Num).applying(Applying::OnOwn),
    supply(253, "inotify_init", &[], NewFd),
    compare(255, "inotify_rm_watch", &[Fd, Int32], Num),
    compare(275, "splice", &[Fd, updates(8), Fd, updates(8), Int, Flags], Size).waits(Wait::Others).moves(Moves::Between),
    compare(276, "tee", &[Fd, Fd, Int, Flags], Size).waits(Wait::Others).moves(Moves::Between),
    compare(277, "sync_file_range", &[Fd, Int, Int, Flags], Num),
    compare(282, "signalfd", &[Fd, reads_arg(2), Int], NewFd),
    supply(284, "eventfd", &[Int32], NewFd).numbers(Fds::Makes(Made::Event)),
    compare(285, "fallocate", &[Fd, Int32, Int, Int], Num),
    compare(289, "signalfd4", &[Fd, reads_arg(2), Int, Flags], NewFd),
    supply(290, "eventfd2", &[Int32, Flags], NewFd).numbers(Fds::Makes(Made::Event)),
    compare(292, "dup3", &[Fd, Fd, Flags], NewFd).numbers(Fds::DuplicatesOnto),
    supply(293, "pipe2", &[writes(8), Flags], Num).numbers(Fds::MakesTwo { at: 0, what: Made::Pipe }),
    supply(294, "inotify_init1", &[Flags], NewFd),
    supply(295, "preadv", &[Fd, Mem(Out, IoVec { count: 2 }), Int, Int, Addr], Size).moves(Moves::InFrom).applying(Applying::OnOwn),
    compare(296, "pwritev", &[Fd, Mem(In, IoVec { count: 2 }), Int, Int, Addr], Size).moves(Moves::OutTo).alone(Alone::Output),
    compare(306, "syncfs", &[Fd], Num),
    supply(319, "memfd_create", &[PATH, Flags], NewFd),
    compare(326, "copy_file_range", &[Fd, updates(8), Fd, updates(8), Int, Flags], Size).moves(Moves::Between),
    supply(327, "preadv2", &[Fd, Mem(Out, IoVec { count: 2 }), Int, Int, Addr, Flags], Size).waits(Wait::Input).moves(Moves::In),
    compare(328, "pwritev2", &[Fd, Mem(In, IoVec { count: 2 }), Int, Int, Addr, Flags], Size).waits(Wait::Others).moves(Moves::Out).alone(Alone::Output),
    compare(436, "close_range", &[Int32, Int32, Flags], Num).numbers(Fds::ClosesRange),
    supply(451, "cachestat", &[Fd, reads(16), writes(40), Flags], Num),
];

const _: () = check(ROWS);
