//! `semctl(2)` and `msgctl(2)` by command, and what `mq_open(2)` is asked for.

use super::{Treatment, Variant};
use crate::syscalls::model::Arg::{self, Addr, Flags, Int32, Mem};
use crate::syscalls::model::Dir::{In, Out};
use crate::syscalls::model::Extent::Semaphores;
use crate::syscalls::model::Outcome::{Fd as NewFd, Int as Num};
use crate::syscalls::model::Row;
use crate::syscalls::regions::Memory;
use crate::syscalls::words::{PATH, check_row, compare, reads, supply, writes};

const fn sem_asks(value: u64, name: &'static str, args: &'static [Arg]) -> Variant {
    Variant { value, row: supply(66, name, args, Num) }
}

const fn sem_sets(value: u64, name: &'static str, args: &'static [Arg]) -> Variant {
    Variant { value, row: compare(66, name, args, Num) }
}

const fn msg_asks(value: u64, name: &'static str, args: &'static [Arg]) -> Variant {
    Variant { value, row: supply(71, name, args, Num) }
}

const fn msg_sets(value: u64, name: &'static str, args: &'static [Arg]) -> Variant {
    Variant { value, row: compare(71, name, args, Num) }
}

/// A command of `semctl` whose fourth argument is not used.
const PLAIN: &[Arg] = &[Int32, Int32, Int32, Addr];
const GET_ALL: &[Arg] = &[Int32, Int32, Int32, Mem(Out, Semaphores { id: 0 })];
const SET_ALL: &[Arg] = &[Int32, Int32, Int32, Mem(In, Semaphores { id: 0 })];

/// Sorted by command, `include/uapi/linux/ipc.h` and `include/uapi/linux/sem.h`. The number that `SETVAL` takes comes in a
/// union.
#[rustfmt::skip]
pub(super) const SEMCTL: &[Variant] = &[
    sem_sets(0, "semctl/IPC_RMID", PLAIN),
    sem_sets(1, "semctl/IPC_SET", &[Int32, Int32, Int32, reads(104)]),
    sem_asks(2, "semctl/IPC_STAT", &[Int32, Int32, Int32, writes(104)]),
    sem_asks(3, "semctl/IPC_INFO", &[Int32, Int32, Int32, writes(40)]),
    sem_asks(11, "semctl/GETPID", PLAIN),
    sem_asks(12, "semctl/GETVAL", PLAIN),
    sem_asks(GETALL, "semctl/GETALL", GET_ALL),
    sem_asks(14, "semctl/GETNCNT", PLAIN),
    sem_asks(15, "semctl/GETZCNT", PLAIN),
    sem_sets(16, "semctl/SETVAL", &[Int32, Int32, Int32, Int32]),
    sem_sets(SETALL, "semctl/SETALL", SET_ALL),
    sem_asks(18, "semctl/SEM_STAT", &[Int32, Int32, Int32, writes(104)]),
    sem_asks(19, "semctl/SEM_INFO", &[Int32, Int32, Int32, writes(40)]),
    sem_asks(20, "semctl/SEM_STAT_ANY", &[Int32, Int32, Int32, writes(104)]),
];

const GETALL: u64 = 13;
const SETALL: u64 = 17;

/// Sorted by command, `include/uapi/linux/ipc.h` and `include/uapi/linux/msg.h`.
#[rustfmt::skip]
pub(super) const MSGCTL: &[Variant] = &[
    msg_sets(0, "msgctl/IPC_RMID", &[Int32, Int32, Addr]),
    msg_sets(1, "msgctl/IPC_SET", &[Int32, Int32, reads(120)]),
    msg_asks(2, "msgctl/IPC_STAT", &[Int32, Int32, writes(120)]),
    msg_asks(3, "msgctl/IPC_INFO", &[Int32, Int32, writes(32)]),
    msg_asks(11, "msgctl/MSG_STAT", &[Int32, Int32, writes(120)]),
    msg_asks(12, "msgctl/MSG_INFO", &[Int32, Int32, writes(32)]),
    msg_asks(13, "msgctl/MSG_STAT_ANY", &[Int32, Int32, writes(120)]),
];

/// Without `O_CREAT` mode and attributes are not used, and their registers hold anything.
static MQ_OPEN_PLAIN: Row = supply(240, "mq_open/PLAIN", &[PATH, Flags, Addr, Addr], NewFd);
static MQ_OPEN_CREATE: Row = compare(240, "mq_open/CREATE", &[PATH, Flags, Int32, reads(64)], NewFd);

pub(super) static ROWS: [&Row; 2] = [&MQ_OPEN_PLAIN, &MQ_OPEN_CREATE];

const _: () = {
    let tables = [SEMCTL, MSGCTL];
    let mut table = 0;
    while table < tables.len() {
        let variants = tables[table];
        let mut i = 0;
        while i < variants.len() {
            assert!(i == 0 || variants[i - 1].value < variants[i].value, "commands are sorted, without doubles");
            check_row(&variants[i].row);
            i += 1;
        }
        table += 1;
    }
    check_row(&MQ_OPEN_PLAIN);
    check_row(&MQ_OPEN_CREATE);
};

pub(super) fn semctl<M: Memory + ?Sized>(args: &[u64; 6], mem: &M) -> Treatment {
    let command = args[2] & 0xffff_ffff;
    if matches!(command, GETALL | SETALL) && mem.semaphores(args[0]).is_none() {
        return Treatment::Refuse("how many semaphores the set has cannot be found out");
    }
    super::find(SEMCTL, command, "the table has no row for this semctl command")
}

pub(super) fn mq_open(flags: u64) -> Treatment {
    const O_CREAT: u64 = 0o100;
    Treatment::Row(if flags & O_CREAT != 0 { &MQ_OPEN_CREATE } else { &MQ_OPEN_PLAIN })
}
