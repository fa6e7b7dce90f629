//! Cleaning up what a daemon left behind that died in the middle of an update.
//!
//! The kernel has done the main thing by then: the follower ended with its tracer and the leader runs. What may be left in
//! the leader are the patched vDSO, the stub, the arena and a zombie. All of it can be recognised in the process itself, so
//! that a lost journal does no harm.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Which;
use super::process::{self, Footprint, Half, Process, park_all};
use super::rings::Rings;
use super::slots::Slots;
use super::tracer::Tracer;
use crate::image::place;
use crate::ptrace::inject::Arena;
use crate::ptrace::memory::Memory;
use crate::ptrace::ring::{Area, Mode};
use crate::ptrace::stub::Stub;
use crate::ptrace::tsc::Trapped;
use crate::ptrace::vdso::Vdso;
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Pid, Result, procfs, sys};

/// What was found and undone in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// It was clean.
    Nothing,
    /// It is clean now, and runs this version: a promotion that had been committed stays.
    Cleaned { version: Which },
}

/// Puts a process back as it would be if no daemon had ever touched it. Stops it for about as long as a rollback does.
pub fn recover(pid: Pid, limit: Duration) -> Result<Recovered> {
    let (notices, _ignored) = crossbeam_channel::unbounded();
    let tracer = Tracer::spawn("mvedsua-recover", notices)?;
    tracer.ask(move |core| undo_leftovers(&core.inbox, pid, limit))
}

/// Does the work of [`recover`] on a thread that may trace.
pub(crate) fn undo_leftovers(inbox: &Inbox, pid: Pid, limit: Duration) -> Result<Recovered> {
    let memory = Memory::open(pid)?;
    let maps = procfs::maps(pid)?;
    let vdso = Vdso::find(pid, &memory, &maps)?;
    let stub = Stub::place(vdso.end);
    let arena = maps
        .iter()
        .filter(|mapping| mapping.shared && mapping.writable)
        .find_map(|mapping| Arena::recognise(&memory, mapping.start, mapping.end));
    let area = maps
        .iter()
        .filter(|mapping| mapping.shared && mapping.writable)
        .find_map(|mapping| Area::recognise(&memory, mapping.start, mapping.end));
    let leftovers = place::leftovers(&memory, &maps);
    let untouched = arena.is_none() && area.is_none() && leftovers.is_empty();
    if untouched && !vdso.is_patched(&memory) && !stub.is_installed(&memory) {
        return Ok(Recovered::Nothing);
    }
    let stub = Stub::install(&memory, vdso.end, vdso.tail)?;
    let tids = process::seize_all(pid, sys::OPTIONS_LEADER)?;
    let mut threads = Slots::default();
    for tid in tids {
        threads.create(tid);
    }
    let footprint =
        Footprint { vdso, stub, arena: arena.unwrap_or(Arena { base: 0, blocks: 0 }), clock: Trapped::default() };
    let rings = area.map(|area| Rings::find(pid, area, Mode::Note)).transpose()?;
    let restarted = BTreeMap::new();
    let process = Process {
        pid,
        memory,
        footprint,
        threads,
        restarted,
        half: Half::First,
        rings,
        agent: None,
        leftovers,
        ghosts: Vec::new(),
    };
    let parked = park_all(inbox, &process, limit)?;
    let version = match arena.map(|arena| process.memory.read_u64(arena.word())).transpose()? {
        Some(generation) if generation % 2 == 1 => Which::New,
        Some(_) | None => Which::Old,
    };
    process.release(inbox, parked, process::Zombies::Any)?;
    Ok(Recovered::Cleaned { version })
}
