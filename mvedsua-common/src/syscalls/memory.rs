//! The address space: each version has its own, and addresses are never compared.

use super::model::Arg::{Addr, Fd, Flags, Int, Int32, Mem};
use super::model::Dir::In;
use super::model::Extent::FdSet;
use super::model::Outcome::{Addr as Place, Int as Num};
use super::model::{Irregular, Row};
use super::words::{check, compare, local, refuse};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    local(9, "mmap", &[Addr, Int, Flags, Flags, Fd, Int], Place).but(Irregular::Mmap),
    local(10, "mprotect", &[Addr, Int, Flags], Num),
    local(11, "munmap", &[Addr, Int], Num),
    local(12, "brk", &[Addr], Place),
    local(25, "mremap", &[Addr, Int, Int, Flags, Addr], Place),
    compare(26, "msync", &[Addr, Int, Flags], Num).note("the follower's copy of a shared mapping is private: nothing to write back"),
    local(27, "mincore", &[Addr, Int, Addr], Num),
    local(28, "madvise", &[Addr, Int, Int], Num),
    local(149, "mlock", &[Addr, Int], Num),
    local(150, "munlock", &[Addr, Int], Num),
    local(151, "mlockall", &[Flags], Num),
    local(152, "munlockall", &[], Num),
    local(237, "mbind", &[Addr, Int, Int, Addr, Int, Flags], Num),
    local(238, "set_mempolicy", &[Int, Addr, Int], Num),
    local(239, "get_mempolicy", &[Addr, Addr, Int, Addr, Flags], Num),
    compare(256, "migrate_pages", &[Int32, Int, Mem(In, FdSet { nfds: 1 }), Mem(In, FdSet { nfds: 1 })], Num).but(Irregular::Myself { arg: 0 }),
    refuse(279, "move_pages", "it moves the memory of a process that is named by its id").but(Irregular::Myself { arg: 0 }),
    local(324, "membarrier", &[Int, Flags, Int], Num),
    local(325, "mlock2", &[Addr, Int, Flags], Num),
    local(329, "pkey_mprotect", &[Addr, Int, Flags, Int], Num),
    local(330, "pkey_alloc", &[Flags, Flags], Num),
    local(331, "pkey_free", &[Int], Num),
    local(450, "set_mempolicy_home_node", &[Addr, Int, Int, Int], Num),
    local(462, "mseal", &[Addr, Int, Flags], Num),
];

const _: () = check(ROWS);
