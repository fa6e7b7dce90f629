//! `fcntl(2)` by command.

use super::Variant;
use crate::syscalls::columns::{Applying, Fds, Wait};
use crate::syscalls::model::Arg::{self, Addr, Fd, Int, Int32, Mem};
use crate::syscalls::model::Dir::{In, InOut};
use crate::syscalls::model::Extent::Flock;
use crate::syscalls::model::Outcome::{self, Fd as NewFd, Int as Num};
use crate::syscalls::model::Row;
use crate::syscalls::words::{check_row, compare, reads, supply, writes};

const fn asks(value: u64, name: &'static str, args: &'static [Arg]) -> Variant {
    Variant { value, row: supply(72, name, args, Num) }
}

const fn sets(value: u64, name: &'static str, args: &'static [Arg], outcome: Outcome) -> Variant {
    Variant { value, row: compare(72, name, args, outcome) }
}

const fn refused(value: u64, name: &'static str, reason: &'static str) -> Variant {
    let row: Row = crate::syscalls::words::refuse(72, name, reason);
    Variant { value, row }
}

/// A command whose third argument is not used: the register holds anything.
const PLAIN: &[Arg] = &[Fd, Int32, Addr];
/// A command whose third argument is a number.
const NUMBER: &[Arg] = &[Fd, Int32, Int];
/// A command that places or asks for a record lock.
const LOCK: &[Arg] = &[Fd, Int32, Mem(In, Flock)];
const ASK_LOCK: &[Arg] = &[Fd, Int32, Mem(InOut, Flock)];

/// Sorted by command, `include/uapi/asm-generic/fcntl.h` and `include/uapi/linux/fcntl.h`.
#[rustfmt::skip]
pub(super) const VARIANTS: &[Variant] = &[
    sets(0, "fcntl/F_DUPFD", NUMBER, NewFd).numbers(Fds::Duplicates),
    asks(1, "fcntl/F_GETFD", PLAIN).applying(Applying::OnAny),
    sets(2, "fcntl/F_SETFD", NUMBER, Num).applying(Applying::OnOwn),
    asks(3, "fcntl/F_GETFL", PLAIN).applying(Applying::OnAny),
    sets(4, "fcntl/F_SETFL", NUMBER, Num),
    asks(5, "fcntl/F_GETLK", ASK_LOCK),
    sets(6, "fcntl/F_SETLK", LOCK, Num),
    sets(7, "fcntl/F_SETLKW", LOCK, Num).waits(Wait::Others),
    sets(8, "fcntl/F_SETOWN", NUMBER, Num),
    asks(9, "fcntl/F_GETOWN", PLAIN),
    sets(10, "fcntl/F_SETSIG", NUMBER, Num),
    asks(11, "fcntl/F_GETSIG", PLAIN),
    sets(15, "fcntl/F_SETOWN_EX", &[Fd, Int32, reads(8)], Num),
    asks(16, "fcntl/F_GETOWN_EX", &[Fd, Int32, writes(8)]),
    asks(17, "fcntl/F_GETOWNER_UIDS", &[Fd, Int32, writes(8)]),
    asks(36, "fcntl/F_OFD_GETLK", ASK_LOCK),
    sets(37, "fcntl/F_OFD_SETLK", LOCK, Num),
    sets(38, "fcntl/F_OFD_SETLKW", LOCK, Num).waits(Wait::Others),
    sets(1024, "fcntl/F_SETLEASE", NUMBER, Num),
    asks(1025, "fcntl/F_GETLEASE", PLAIN),
    refused(1026, "fcntl/F_NOTIFY", "its notifications do not survive a promotion"),
    asks(1027, "fcntl/F_DUPFD_QUERY", &[Fd, Int32, Fd]),
    asks(1028, "fcntl/F_CREATED_QUERY", PLAIN),
    sets(1030, "fcntl/F_DUPFD_CLOEXEC", NUMBER, NewFd).numbers(Fds::Duplicates),
    sets(1031, "fcntl/F_SETPIPE_SZ", NUMBER, Num),
    asks(1032, "fcntl/F_GETPIPE_SZ", PLAIN),
    sets(1033, "fcntl/F_ADD_SEALS", NUMBER, Num),
    asks(1034, "fcntl/F_GET_SEALS", PLAIN),
    asks(1035, "fcntl/F_GET_RW_HINT", &[Fd, Int32, writes(8)]),
    sets(1036, "fcntl/F_SET_RW_HINT", &[Fd, Int32, reads(8)], Num),
    asks(1037, "fcntl/F_GET_FILE_RW_HINT", &[Fd, Int32, writes(8)]),
    sets(1038, "fcntl/F_SET_FILE_RW_HINT", &[Fd, Int32, reads(8)], Num),
];

const _: () = {
    let mut i = 0;
    while i < VARIANTS.len() {
        assert!(i == 0 || VARIANTS[i - 1].value < VARIANTS[i].value, "commands are sorted, without doubles");
        check_row(&VARIANTS[i].row);
        i += 1;
    }
};
