//! What is taken differently where two versions run side by side from their start.
//!
//! An update forks a process that lives, so its children are the leader's alone and it must stay the program that it is.
//! Versions that were started together are paired process by process: each child has its twin, and both replace their
//! programs. What the kernel tells a thread of itself at its start is recorded then, too, since nobody was there before.

use super::{Treatment, treatment};
use crate::syscalls::model::Arg::{Addr, Fd, Flags, Int, Mem};
use crate::syscalls::model::Dir::In;
use crate::syscalls::model::Extent::Strings;
use crate::syscalls::model::Outcome::{Int as Num, Pid};
use crate::syscalls::model::Row;
use crate::syscalls::regions::Memory;
use crate::syscalls::words::{PATH, check_row, compare, local, supply};

/// What of the two versions is paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// The threads of one process, which is updated while it runs; its children are the leader's alone.
    Threads,
    /// The processes too, from the first program on.
    Processes,
}

static EXECVE: Row = compare(59, "execve/PAIRED", &[PATH, Mem(In, Strings), Mem(In, Strings)], Num);
static EXECVEAT: Row = compare(322, "execveat/PAIRED", &[Fd, PATH, Mem(In, Strings), Mem(In, Strings), Flags], Num);
/// The C library keeps the result and names its own thread by it.
static SET_TID_ADDRESS: Row = supply(218, "set_tid_address/PAIRED", &[Addr], Pid);
/// Where it is registered the number of the processor comes by memory, without a call that could be recorded.
static RSEQ: Row = local(334, "rseq/PAIRED", &[Addr, Int, Flags, Int], Num);

const _: () = {
    check_row(&EXECVE);
    check_row(&EXECVEAT);
    check_row(&SET_TID_ADDRESS);
    check_row(&RSEQ);
};

/// Says what is done with a call, as [`treatment`] does, between versions that are paired like this.
#[must_use]
pub fn treatment_of<M: Memory + ?Sized>(pairing: Pairing, nr: u32, args: &[u64; 6], mem: &M) -> Treatment {
    const EXECVE_NR: u32 = 59;
    const SET_TID_ADDRESS_NR: u32 = 218;
    const EXECVEAT_NR: u32 = 322;
    const RSEQ_NR: u32 = 334;
    const MMAP_NR: u32 = 9;
    const MAP_ANONYMOUS: u64 = 0x20;
    let usual = treatment(nr, args, mem);
    match (pairing, nr, usual) {
        (Pairing::Threads, _, usual) => usual,
        (Pairing::Processes, EXECVE_NR, _) => Treatment::Exec(&EXECVE),
        (Pairing::Processes, EXECVEAT_NR, _) => Treatment::Exec(&EXECVEAT),
        (Pairing::Processes, SET_TID_ADDRESS_NR, _) => Treatment::Alike(&SET_TID_ADDRESS),
        (Pairing::Processes, RSEQ_NR, _) => Treatment::Absent(&RSEQ),
        // Each version shares it with children of its own.
        (Pairing::Processes, MMAP_NR, Treatment::Refuse(_)) if args[3] & MAP_ANONYMOUS != 0 => {
            super::super::row(nr).map_or(Treatment::Refuse("the table has no row for it"), Treatment::Row)
        }
        (Pairing::Processes, _, Treatment::GhostFork(row)) => Treatment::Fork(row),
        (Pairing::Processes, _, usual) => usual,
    }
}
