//! The beginning of a program: what is made of a process whose first thread is about to execute its first instruction.
//!
//! The kernel has given it a new memory, with a vDSO at a place of its own. It gets what a process gets that is updated
//! while it runs (the stub, the arena, the rings), by itself: two versions have nothing at the same place. Where the program
//! reads the processor's clock itself, that is trapped; it has no rings then, and ends with the run.

use std::collections::BTreeMap;
use std::path::Path;

use super::Slot;
use super::process::{Footprint, Half, Process, stack_block};
use super::rings::Rings;
use super::slots::Slots;
use crate::ptrace::inject::{Arena, Remote};
use crate::ptrace::memory::{Memory, Span};
use crate::ptrace::ring::Mode;
use crate::ptrace::stub::Stub;
use crate::ptrace::sys::Regs;
use crate::ptrace::tsc::{self, Reads, Trapped};
use crate::ptrace::vdso::Vdso;
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Error, Pid, Result, Tid, procfs, sys};

/// `AT_RANDOM` of `include/uapi/linux/auxvec.h`: the address of 16 random bytes.
const AT_RANDOM: u64 = 25;
/// Context blocks of an arena; the threads of a process share them in turn.
const BLOCKS: u32 = 2 * 512;

/// Equips a process that has just executed a program; its only thread stands at the return from the call.
pub(crate) fn begin(inbox: &Inbox, process: &mut Process, tid: Tid, mode: Mode) -> Result<()> {
    let slot = process.slot(tid).unwrap_or(Slot(0));
    let equipped = equip(inbox, process.pid, tid, mode)?;
    process.memory = equipped.memory;
    process.footprint = equipped.footprint;
    process.rings = equipped.rings;
    process.become_equipped(tid, slot)
}

/// The process of a program that was started by the run itself.
pub(crate) fn first(inbox: &Inbox, pid: Pid, mode: Mode) -> Result<Process> {
    let tid = pid.main();
    let Equipped { memory, footprint, rings } = equip(inbox, pid, tid, mode)?;
    let mut process = Process {
        pid,
        memory,
        footprint,
        threads: Slots::default(),
        restarted: BTreeMap::new(),
        half: Half::First,
        rings,
        agent: None,
        leftovers: Vec::new(),
        ghosts: Vec::new(),
    };
    process.become_equipped(tid, Slot(0))?;
    Ok(process)
}

struct Equipped {
    memory: Memory,
    footprint: Footprint,
    rings: Option<Rings>,
}

/// Equips a process in which the image of another program was put in place ([`crate::image`]). Its threads stand before their next
/// calls; `spare` is memory that nothing of the image uses, and that is unmapped in the end.
pub(crate) fn equip_anew(inbox: &Inbox, process: &mut Process, clock: Trapped, spare: Span) -> Result<()> {
    let tids: Vec<Tid> = process.threads.tids().collect();
    // Who has chosen by itself what reading the clock does keeps that.
    let plain = tids.iter().find(|tid| !clock.own.contains(tid));
    let Some(first) = plain.or(tids.first()).copied() else {
        return Err(Error::Unsupported(format!("process {} has no thread", process.pid)));
    };
    let saved = sys::get_regs(first)?;
    let block = spare.end - 1024;
    let equipped = equip_with(inbox, process.pid, first, Mode::Note, (clock.reads, saved, block))?;
    process.memory = equipped.memory;
    process.footprint = Footprint { clock, ..equipped.footprint };
    process.rings = equipped.rings;
    process.restarted.clear();
    for tid in tids {
        let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
        if tid == first {
            remote.call("munmap", libc::SYS_munmap, [spare.start, spare.len(), 0, 0, 0, 0])?;
        } else if !process.footprint.clock.own.contains(&tid) {
            tsc::set(&mut remote, process.footprint.clock.reads)?;
        }
        remote.finish()?;
        sys::set_options(tid, options_with(process.footprint.clock.reads))?;
        process.give_ring(tid)?;
    }
    process.patch_vdso()
}

fn equip(inbox: &Inbox, pid: Pid, tid: Tid, mode: Mode) -> Result<Equipped> {
    let mut saved = sys::get_regs(tid)?;
    saved.orig_rax = u64::MAX;
    let reads = if tsc::is_read_by(Path::new(&format!("/proc/{pid}/exe")))? { Reads::Trapped } else { Reads::Allowed };
    equip_with(inbox, pid, tid, mode, (reads, saved, stack_block(&saved)))
}

/// Returns the options of a leader: nobody would execute for it what is trapped, when its tracer is gone.
fn options_with(reads: Reads) -> i32 {
    match reads {
        Reads::Trapped => sys::OPTIONS_LEADER | libc::PTRACE_O_EXITKILL,
        Reads::Allowed => sys::OPTIONS_LEADER,
    }
}

/// Equips a process by calls of a thread that goes on with `saved`, over a context block at `block`.
fn equip_with(
    inbox: &Inbox,
    pid: Pid,
    tid: Tid,
    mode: Mode,
    (reads, saved, block): (Reads, Regs, u64),
) -> Result<Equipped> {
    let memory = Memory::open(pid)?;
    let vdso = Vdso::find(pid, &memory, &procfs::maps(pid)?)?;
    let stub = Stub::install(&memory, vdso.end, vdso.tail)?;
    let mut remote = Remote::begin(inbox, &memory, tid, stub, block, saved)?;
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    // Private: a child that is forked has blocks of its own.
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u64;
    tsc::set(&mut remote, reads)?;
    let base = remote.call("mmap", libc::SYS_mmap, [0, Arena::len(BLOCKS), protection, flags, u64::MAX, 0])?;
    let agent = vdso.agent.as_ref().filter(|_| reads == Reads::Allowed);
    let rings = agent.and_then(|agent| {
        let rings = Rings::create(&mut remote, pid, 0, mode);
        let installed = rings.and_then(|rings| agent.install(&memory, rings.area()).map(|()| rings));
        installed.inspect_err(|error| tracing::warn!(%error, "time cannot be told without stops")).ok()
    });
    remote.finish()?;
    if mode == Mode::Note {
        sys::set_options(tid, options_with(reads))?;
    }
    let clock = Trapped { reads, ..Trapped::default() };
    Ok(Equipped { memory, footprint: Footprint { vdso, stub, arena: Arena { base, blocks: BLOCKS }, clock }, rings })
}

/// Returns the random bytes that the kernel gave a program.
pub(crate) fn secrets(pid: Pid) -> Result<[u8; 16]> {
    let place = place_of_secrets(pid)?;
    let mut bytes = [0; 16];
    Memory::open(pid)?.read(place, &mut bytes)?;
    Ok(bytes)
}

/// Gives a program that has not begun yet the random bytes of another.
pub(crate) fn share_secrets(pid: Pid, memory: &Memory, bytes: &[u8; 16]) -> Result<()> {
    memory.write(place_of_secrets(pid)?, bytes)
}

fn place_of_secrets(pid: Pid) -> Result<u64> {
    let path = format!("/proc/{pid}/auxv");
    let vector = std::fs::read(&path).map_err(|source| Error::Proc { path, source })?;
    let words: Vec<u64> = vector.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    let entry = words.as_chunks::<2>().0.iter().find(|[kind, _]| *kind == AT_RANDOM);
    entry.map(|[_, place]| *place).ok_or_else(|| Error::Unsupported(format!("process {pid} was given no random bytes")))
}
