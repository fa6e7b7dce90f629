//! One traced process: its threads by slot, and what was changed in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Slot;
use super::ghosts::{Ghost, wait_until_it_stands};
use super::rings::Rings;
use super::slots::Slots;
use crate::calls::sends_signals;
use crate::ptrace::agent::SteppedOut;
use crate::ptrace::inject::{Arena, Remote};
use crate::ptrace::memory::{Memory, Span};
use crate::ptrace::procfs::{self, signal_bit};
use crate::ptrace::regs::{self, Rewound};
use crate::ptrace::ring::{Area, Mode, Ring};
use crate::ptrace::stub::Stub;
use crate::ptrace::sys::{self, Regs, Resume, SyscallStop};
use crate::ptrace::tsc::{self, Reads, Trapped};
use crate::ptrace::vdso::{Patch, Vdso, With};
use crate::ptrace::wait::{Inbox, Stop, Wake};
use crate::ptrace::{Error, Pid, Result, Tid};

/// What the daemon changed in a process, in the order in which it is undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    pub vdso: Vdso,
    pub stub: Stub,
    pub arena: Arena,
    pub clock: Trapped,
}

/// A process that this tracer thread is attached to.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) memory: Memory,
    pub(crate) footprint: Footprint,
    pub(crate) threads: Slots,
    /// The calls of threads that go on as `restart_syscall(2)`, which does not tell which call it restarts.
    pub(crate) restarted: BTreeMap<Tid, u32>,
    /// Which half of the arena's blocks this process uses.
    pub(crate) half: Half,
    /// Where its threads' time is told without a stop; `None` where this machine cannot.
    pub(crate) rings: Option<Rings>,
    /// Where the agent lies that answers calls, in a process that follows.
    pub(crate) agent: Option<Span>,
    /// What an earlier daemon had mapped for an image that it did not live to put in place.
    pub(crate) leftovers: Vec<Span>,
    /// Children of which it was told, and which have not come to their first stop.
    pub(crate) ghosts: Vec<(Tid, Ghost)>,
}

/// Leader and follower share the arena's memory, so each has its own blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    First,
    Second,
}

/// Children of ours that ended and must not stay behind in the process that was forked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Zombies {
    These(Vec<Pid>),
    /// Whatever an earlier daemon left.
    Any,
}

/// How a thread stands once it is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parked {
    /// In user code, or a call has just returned.
    User,
    /// A call was interrupted and rewound: it will be made when the thread goes on.
    Rewound(Rewound),
    /// At the entry of a call.
    Entry { nr: u32, args: [u64; 6] },
}

impl Parked {
    /// Returns the call that the thread was stopped out of.
    pub(crate) fn rewound(self) -> Option<Rewound> {
        match self {
            Parked::Rewound(call) => Some(call),
            Parked::Entry { nr, args } => Some(Rewound { nr, args }),
            Parked::User => None,
        }
    }
}

impl Process {
    /// Returns a context block for a thread that executes calls while no other with the same block does: there are more slots
    /// than blocks where threads come and go.
    pub(crate) fn block(&self, slot: Slot) -> u64 {
        self.block_at(slot.0 % self.blocks())
    }

    /// Returns how many blocks this process has.
    pub(crate) fn blocks(&self) -> u32 {
        self.footprint.arena.blocks / 2
    }

    /// Returns one of this process's blocks.
    pub(crate) fn block_at(&self, index: u32) -> u64 {
        self.footprint.arena.block(match self.half {
            Half::First => index,
            Half::Second => self.blocks() + index,
        })
    }

    /// Four kilobytes of a slot's own memory, below its context block.
    pub(crate) fn scratch(&self, slot: Slot) -> u64 {
        self.block(slot) - 8192
    }

    /// Returns what the daemon has mapped in the process.
    pub(crate) fn own_areas(&self) -> Vec<Span> {
        let arena = self.footprint.arena;
        let arena = Span { start: arena.base, end: arena.base + Arena::len(arena.blocks) };
        let rings = self.rings.as_ref().map(|rings| Span { start: rings.area().base, end: rings.area().end() });
        [arena].into_iter().chain(rings).collect()
    }

    /// Says whether a thread with this base of its `gs` segment finds a ring there.
    pub(crate) fn is_ring(&self, gs_base: u64) -> bool {
        self.rings.as_ref().is_some_and(|rings| rings.area().contains(gs_base))
    }

    /// Returns a slot that no thread has had.
    pub(crate) fn new_slot(&mut self, tid: Tid) -> Slot {
        self.threads.create(tid)
    }

    pub(crate) fn slot(&self, tid: Tid) -> Option<Slot> {
        self.threads.slot(tid)
    }

    pub(crate) fn tid(&self, slot: Slot) -> Option<Tid> {
        self.threads.tid(slot)
    }

    /// Returns the ring of a thread.
    pub(crate) fn ring(&self, tid: Tid) -> Option<Ring<'_>> {
        self.rings.as_ref()?.of(tid)
    }

    /// Returns where the ring of a thread lies in its memory, 0 where it has none.
    pub(crate) fn ring_place(&self, tid: Tid) -> u64 {
        self.rings.as_ref().map_or(0, |rings| rings.place(tid))
    }

    /// Gives a stopped thread a ring, if there are any.
    pub(crate) fn give_ring(&mut self, tid: Tid) -> Result<()> {
        self.rings.as_mut().map_or(Ok(()), |rings| rings.give(tid))
    }

    /// Notes that a twin has found a ring where its original has one.
    pub(crate) fn note_ring(&mut self, tid: Tid, place: u64) {
        if let Some(rings) = &mut self.rings {
            rings.note(tid, place);
        }
    }

    /// Empties the rings, for another role.
    pub(crate) fn change_rings(&mut self, mode: Mode) {
        if let Some(rings) = &mut self.rings {
            rings.change(mode);
        }
    }

    /// Drops a thread that has ended.
    pub(crate) fn forget(&mut self, tid: Tid) {
        self.threads.remove(tid);
        if let Some(rings) = &mut self.rings {
            rings.forget(tid);
        }
    }

    /// Forgets all threads but one, which is called `tid` from now on: it has executed another program.
    pub(crate) fn become_single(&mut self, tid: Tid, slot: Slot) {
        self.threads = Slots::one(tid, slot);
        self.restarted.clear();
        self.rings = None;
        self.agent = None;
    }

    /// The only thread of a program that has just begun gets what is its own.
    pub(crate) fn become_equipped(&mut self, tid: Tid, slot: Slot) -> Result<()> {
        self.threads = Slots::one(tid, slot);
        self.give_ring(tid)?;
        self.patch_vdso()
    }

    /// Makes the vDSO's functions visible to the recorder.
    pub(crate) fn patch_vdso(&self) -> Result<()> {
        let with = if self.rings.is_some() { With::Agent } else { With::Calls };
        self.footprint.vdso.patch(&self.memory, with)
    }

    /// Moves the registers of a thread out of whatever replaces the vDSO's functions: a call made there is made anew from
    /// the function's start, what has returned returns to its caller. The thread must not stand at the entry of a call.
    /// Says whether anything was changed.
    pub(crate) fn leave_vdso(&self, regs: &mut Regs) -> Result<bool> {
        let vdso = &self.footprint.vdso;
        let called = |patch: &&Patch| patch.is_inside(regs.rip) && !(self.rings.is_some() && patch.is_detoured());
        if let Some(patch) = vdso.patches.iter().find(called) {
            if regs.rip == patch.at_return() {
                regs.rip = self.memory.read_u64(regs.rsp)?;
                regs.rsp += 8;
            } else {
                regs.rip = patch.addr;
            }
            return Ok(true);
        }
        let (Some(agent), Some(rings)) = (&vdso.agent, &self.rings) else { return Ok(false) };
        Ok(agent.step_out(regs, rings.found_by(regs).as_ref(), &self.memory)? == SteppedOut::Moved)
    }

    /// Prepares a thread for a signal that its handler is to see: the frame must not return into what will be undone.
    pub(crate) fn make_room_for_signal(&self, tid: Tid) -> Result<()> {
        let mut regs = sys::get_regs(tid)?;
        if self.leave_vdso(&mut regs)? { sys::set_regs(tid, &regs) } else { Ok(()) }
    }

    /// Borrows a parked thread to execute calls in it.
    pub(crate) fn remote<'a>(&self, inbox: &'a Inbox, tid: Tid, saved: Regs) -> Result<Remote<'a>> {
        let slot = self.slot(tid).unwrap_or(Slot(0));
        Remote::begin(inbox, &self.memory, tid, self.footprint.stub, self.block(slot), saved)
    }

    /// Undoes all changes and detaches. Every thread must be parked.
    pub(crate) fn release(mut self, inbox: &Inbox, mut parked: BTreeMap<Tid, Parked>, zombies: Zombies) -> Result<()> {
        for (child, kind) in std::mem::take(&mut self.ghosts) {
            Touched::Patched(&self).let_child_go(inbox, child, kind)?;
        }
        if !self.footprint.stub.is_installed(&self.memory) {
            // Another program runs there now; it has nothing of ours.
            return parked.keys().try_for_each(|tid| sys::detach(*tid, 0));
        }
        for (tid, how) in &mut parked {
            self.leave_patches(*tid, how)?;
        }
        self.footprint.vdso.restore(&self.memory)?;
        if let Some(agent) = &self.footprint.vdso.agent {
            agent.remove(&self.memory)?;
        }
        self.allow_reads(inbox, &mut parked)?;
        // The thread that unmaps the arena keeps its context block on its own stack.
        if let Some((tid, how)) = parked.iter().next() {
            let mut saved = sys::get_regs(*tid)?;
            if let Parked::Entry { nr, .. } = how {
                regs::undo_entry(&mut saved, *nr);
            }
            let block = stack_block(&saved);
            let mut remote = Remote::begin(inbox, &self.memory, *tid, self.footprint.stub, block, saved)?;
            let arena = self.footprint.arena;
            match zombies {
                Zombies::These(children) => children.into_iter().try_for_each(|child| reap(&mut remote, child))?,
                // Only our forks signal their end to nobody, which is what __WCLONE selects.
                Zombies::Any => {
                    let flags = (libc::__WCLONE | libc::WNOHANG) as u64;
                    while remote.raw(libc::SYS_wait4, [u64::MAX, 0, flags, 0, 0, 0])? > 0 {}
                }
            }
            for span in &self.leftovers {
                remote.call("munmap", libc::SYS_munmap, [span.start, span.len(), 0, 0, 0, 0])?;
            }
            if let Some(rings) = &self.rings {
                remote.call("munmap", libc::SYS_munmap, [rings.area().base, Area::LEN, 0, 0, 0, 0])?;
            }
            if arena.base != 0 {
                remote.call("munmap", libc::SYS_munmap, [arena.base, Arena::len(arena.blocks), 0, 0, 0, 0])?;
            }
            remote.finish()?;
        }
        self.footprint.stub.remove(&self.memory)?;
        for tid in parked.into_keys() {
            self.threads.remove(tid);
            match sys::detach(tid, 0) {
                Err(error) if !error.is_gone() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets parked threads read the processor's clock by themselves again, but for those that have asked for it to be trapped.
    fn allow_reads(&self, inbox: &Inbox, parked: &mut BTreeMap<Tid, Parked>) -> Result<()> {
        let clock = &self.footprint.clock;
        clock.restore(&self.memory)?;
        for (tid, how) in parked {
            if clock.reads == Reads::Allowed || clock.own.contains(tid) {
                continue;
            }
            let mut saved = sys::get_regs(*tid)?;
            if let Parked::Entry { nr, .. } = how {
                regs::undo_entry(&mut saved, *nr);
            }
            let block = stack_block(&saved);
            let mut remote = Remote::begin(inbox, &self.memory, *tid, self.footprint.stub, block, saved)?;
            tsc::set(&mut remote, Reads::Allowed)?;
            remote.finish()?;
            // One that stood at the entry of a call comes to it again.
            *how = Parked::User;
        }
        Ok(())
    }

    /// Detaches from a process that works on the memory of another, which stays as it is. Every thread must be parked.
    pub(crate) fn leave(self, mut parked: BTreeMap<Tid, Parked>) -> Result<()> {
        for (tid, how) in &mut parked {
            if self.footprint.stub.is_installed(&self.memory) {
                self.leave_patches(*tid, how)?;
            }
            match sys::detach(*tid, 0) {
                Err(error) if !error.is_gone() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Moves a parked thread out of all that will not be there any more.
    pub(crate) fn leave_patches(&self, tid: Tid, how: &mut Parked) -> Result<()> {
        let before = sys::get_regs(tid)?;
        let mut regs = before;
        if let Parked::Entry { nr, .. } = how {
            regs::undo_entry(&mut regs, *nr);
        }
        if self.leave_vdso(&mut regs)? {
            *how = Parked::User;
        } else {
            regs = before;
        }
        if let Some(rings) = &self.rings {
            rings.take_from(&mut regs);
        }
        sys::set_regs(tid, &regs)
    }
}

impl Process {
    /// Lets a forked child go, which runs unobserved. It may have been killed meanwhile; whatever is wrong with it is none of its
    /// parent's business.
    pub(crate) fn let_child_go(&self, child: Tid, kind: Ghost) {
        if let Err(error) = self.clean_child(child, kind) {
            if !error.is_gone() {
                tracing::warn!(tid = child.0, %error, "a forked child was not put back as it should be");
            }
            // Gone, or to run as it is.
            let _ = sys::detach(child, 0);
        }
    }

    /// Puts a forked child back as it should be that stands at its first stop, with all that its parent has of ours, and detaches
    /// from it. One that works on its parent's memory cannot have the instructions back that are trapped in it: it runs on under
    /// trace.
    pub(crate) fn release_child(&self, inbox: &Inbox, child: Tid, kind: Ghost) -> Result<()> {
        let rings = self.rings.as_ref().map(Rings::area);
        Process::release_newborn(inbox, child, kind, (&self.footprint, rings))
    }

    /// The same where the parent is not there any more: its footprint, and where its rings are.
    pub(crate) fn release_newborn(
        inbox: &Inbox,
        child: Tid,
        kind: Ghost,
        (footprint, rings): (&Footprint, Option<Area>),
    ) -> Result<()> {
        let mut regs = sys::get_regs(child)?;
        if rings.is_some_and(|area| area.contains(regs.gs_base)) {
            regs.gs_base = 0;
            sys::set_regs(child, &regs)?;
        }
        match kind {
            Ghost::SharedMemory if footprint.clock.reads == Reads::Trapped => sys::resume(child, Resume::Cont, 0),
            Ghost::SharedMemory => sys::detach(child, 0),
            Ghost::OwnMemory => {
                let pid = Pid(child.0);
                let process = Process {
                    pid,
                    memory: Memory::open(pid)?,
                    footprint: footprint.clone(),
                    threads: Slots::one(child, Slot(0)),
                    restarted: BTreeMap::new(),
                    half: Half::First,
                    rings: None,
                    agent: None,
                    leftovers: Vec::new(),
                    ghosts: Vec::new(),
                };
                let parked = BTreeMap::from([(child, Parked::User)]);
                process.release(inbox, parked, Zombies::These(Vec::new()))
            }
        }
    }

    /// Puts everything back that was changed in the vDSO, in the memory of this process or of a fork of it. No call can be
    /// executed in it any more.
    pub(crate) fn clean_vdso(&self, memory: &Memory) -> Result<()> {
        self.footprint.vdso.restore(memory)?;
        if let Some(agent) = &self.footprint.vdso.agent {
            agent.remove(memory)?;
        }
        self.footprint.stub.remove(memory)
    }

    /// Detaches from a child, with its vDSO as it should be.
    fn clean_child(&self, child: Tid, kind: Ghost) -> Result<()> {
        if kind == Ghost::OwnMemory {
            self.clean_vdso(&Memory::open(Pid(child.0))?)?;
        }
        if let Some(rings) = &self.rings {
            // The parent's ring is not its own, whether it still sees it or not.
            let mut regs = sys::get_regs(child)?;
            rings.take_from(&mut regs);
            sys::set_regs(child, &regs)?;
        }
        sys::detach(child, 0)
    }
}

/// How often a process looks for the end of its child, and how long it stands still in between.
const REAP_TRIES: u32 = 100;
const BETWEEN_TRIES: Duration = Duration::from_millis(1);

/// Collects a child that was killed. One that does not end must not keep its parent from going on.
pub(crate) fn reap(remote: &mut Remote<'_>, child: Pid) -> Result<()> {
    let flags = (libc::__WALL | libc::WNOHANG) as u64;
    for _ in 0..REAP_TRIES {
        if remote.raw(libc::SYS_wait4, [child.0 as u64, 0, flags, 0, 0, 0])? != 0 {
            return Ok(());
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
    tracing::warn!(%child, "it was killed and has not ended; its parent goes on without having waited for it");
    Ok(())
}

/// Ends a process and waits until every thread that this tracer thread knows is reaped.
pub(crate) fn kill(inbox: &Inbox, pid: Pid) -> Result<()> {
    match sys::kill(pid, libc::SIGKILL) {
        Err(error) if !error.is_gone() => return Err(error),
        _ => {}
    }
    loop {
        match inbox.wait()? {
            Wake::Stop(tid, stop) if stop.is_end() && tid == pid.main() => return Ok(()),
            Wake::Stop(..) | Wake::Bell => {}
            Wake::NoTracees => return Ok(()),
        }
    }
}

/// Returns a place for a context block on a thread's own stack, below its red zone.
pub(crate) fn stack_block(regs: &Regs) -> u64 {
    (regs.rsp - 128 - 512) & !63
}

/// Lets a thread go on that stopped when nobody waited for it.
pub(crate) fn let_go(tid: Tid, stop: Stop) -> Result<()> {
    match stop {
        Stop::Signal(signo) => sys::resume(tid, Resume::Cont, signo),
        Stop::Group(_) => sys::resume(tid, Resume::Listen, 0),
        Stop::Syscall | Stop::Interrupted | Stop::Event(_) => sys::resume(tid, Resume::Cont, 0),
        Stop::Exited(_) | Stop::Killed(_) => Ok(()),
    }
}

/// What became of a thread that may have been stopped inside a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rewinding {
    /// It is in user code, or its call has returned.
    NotInCall,
    /// Its call was interrupted by us and will be made again.
    Rewound(Rewound),
    /// A signal that the program is to notice interrupted the call; the thread must go on to its delivery. If another thread
    /// is given the signal the call is made again.
    SignalComes,
}

/// Rewinds an interrupted thread, see [`regs::rewind`]. It stands at the exit of the call, or at a stop after it.
pub(crate) fn rewind(pid: Pid, tid: Tid) -> Result<Rewinding> {
    let mut regs = sys::get_regs(tid)?;
    let ret = regs.rax as i64;
    if (regs.orig_rax as i64) < 0 || !regs::is_interrupted(ret) || regs::is_over(regs.orig_rax as u32, ret) {
        return Ok(Rewinding::NotInCall);
    }
    if has_caught_signal(pid, tid)? {
        // Another thread may be given it instead. Then nothing has interrupted this one but us, and the kernel makes its call
        // again; with a handler this becomes EINTR.
        if ret == regs::EINTR {
            regs.rax = regs::ERESTARTNOHAND as u64;
            sys::set_regs(tid, &regs)?;
        }
        return Ok(Rewinding::SignalComes);
    }
    let rewound = regs::rewind(&mut regs, regs::Eintr::Ours);
    sys::set_regs(tid, &regs)?;
    Ok(rewound.map_or(Rewinding::NotInCall, Rewinding::Rewound))
}

/// Says whether a signal waits for a stopped thread that its program has a handler for, or that would end it.
pub(crate) fn has_caught_signal(pid: Pid, tid: Tid) -> Result<bool> {
    // Nearly always there is none, and `/proc` costs more than all the rest of stopping a thread.
    if !sys::has_pending_signal(tid)? {
        return Ok(false);
    }
    let signals = procfs::signals(pid, tid)?;
    let harmless = [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT];
    let ignored = harmless.iter().fold(signals.ignored, |mask, signo| mask | signal_bit(*signo)) & !signals.caught;
    Ok(signals.pending & !signals.blocked & !ignored != 0)
}

/// Attaches to every thread of a process without stopping any.
pub(crate) fn seize_all(pid: Pid, options: i32) -> Result<Vec<Tid>> {
    let mut seized: Vec<Tid> = Vec::new();
    // A thread that is born by one not yet seized is found in the next round.
    loop {
        let seen = seized.len();
        let fresh: Vec<Tid> = procfs::tasks(pid)?.into_iter().filter(|tid| !seized.contains(tid)).collect();
        for tid in fresh {
            match sys::seize(tid, options) {
                Ok(()) => seized.push(tid),
                // Born from a seized thread, and so attached already; or about to end.
                Err(Error::Request { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
                    match tracer(pid, tid) {
                        Some(0) | None => {}
                        // SAFETY: gettid has no arguments and cannot fail.
                        Some(tracer) if tracer == unsafe { libc::gettid() } => seized.push(tid),
                        Some(tracer) => {
                            return Err(Error::Unsupported(format!(
                                "thread {tid} is traced by process {tracer} already"
                            )));
                        }
                    }
                }
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
        if seized.len() == seen {
            return Ok(seized);
        }
    }
}

/// Returns the thread that traces a thread, 0 for none; `None` when the thread is gone.
fn tracer(pid: Pid, tid: Tid) -> Option<i32> {
    let status = procfs::text(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim().parse().ok()
}

/// Stops every thread of a process at a place from which it can go on, those included that are born meanwhile, and returns
/// how each stands. Threads that stand at a stop which nobody has dealt with are among them.
pub(crate) fn park_all(inbox: &Inbox, process: &Process, limit: Duration) -> Result<BTreeMap<Tid, Parked>> {
    let mut parked = BTreeMap::new();
    let mut looked_at: BTreeSet<Tid> = BTreeSet::new();
    let mut next: Vec<Tid> = process.threads.tids().collect();
    while !next.is_empty() {
        looked_at.extend(&next);
        let more = wake(inbox, process, &next)
            .and_then(|stops| park_each(inbox, process.pid, &next, stops, Touched::Patched(process), limit));
        parked.append(&mut more.inspect_err(|_| drop(unpark(&parked)))?);
        next = procfs::tasks(process.pid)?.into_iter().filter(|tid| !looked_at.contains(tid)).collect();
    }
    Ok(parked)
}

/// Lets threads go on whose stop was taken from the inbox and not dealt with to its end: they would not tell of it again.
/// Returns the stops that were not taken.
fn wake(inbox: &Inbox, process: &Process, tids: &[Tid]) -> Result<BTreeMap<Tid, Stop>> {
    let mut stops = BTreeMap::new();
    for tid in tids {
        // Only a thread that stands at a stop has this.
        let Ok(info) = sys::get_siginfo(*tid) else { continue };
        if let Some((_, stop)) = inbox.poll(tid.0) {
            stops.insert(*tid, stop);
            continue;
        }
        if let Some(event) = birth(&info) {
            stops.insert(*tid, Stop::Event(event));
            continue;
        }
        let mut signo = delivered(&info);
        let woken = match signo {
            0 => Ok(()),
            _ if tsc::execute_trapped(*tid, signo, &process.memory, &process.footprint.clock)? => {
                signo = 0;
                Ok(())
            }
            _ => process.make_room_for_signal(*tid),
        };
        match woken.and_then(|()| sys::resume(*tid, Resume::Syscall, signo)) {
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
    }
    Ok(stops)
}

/// Returns the event of a thread that stands where it tells of a child: what `wait(2)` tells of it is the code, ptrace(2).
fn birth(info: &sys::SigInfo) -> Option<i32> {
    let code = i32::from_ne_bytes([info[8], info[9], info[10], info[11]]);
    let event = (code & 0xff == libc::SIGTRAP).then_some(code >> 8)?;
    [libc::PTRACE_EVENT_FORK, libc::PTRACE_EVENT_VFORK, libc::PTRACE_EVENT_CLONE].contains(&event).then_some(event)
}

/// Returns the signal that a stopped thread is about to be given, 0 for none. At any other stop the code is what `wait(2)`
/// tells of it, which is more than the code of any signal.
fn delivered(info: &sys::SigInfo) -> i32 {
    const AT_CALL: i32 = libc::SIGTRAP | 0x80;
    let word = |at: usize| i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    let (signo, code) = (word(0), word(8));
    let is_signal = code < 0x100 && !(signo == libc::SIGTRAP && code == AT_CALL);
    if is_signal { signo } else { 0 }
}

/// Stops every thread of `tids` at a place from which it can go on, and returns how each stands; one that has ended is
/// missing. The session's clock rings the inbox, so that the deadline is seen. Nothing of the process is patched yet.
pub(crate) fn park(inbox: &Inbox, pid: Pid, tids: &[Tid], limit: Duration) -> Result<BTreeMap<Tid, Parked>> {
    park_each(inbox, pid, tids, BTreeMap::new(), Touched::Not, limit)
}

/// The same for a process that has our stub already, which its children inherit.
pub(crate) fn park_prepared(
    inbox: &Inbox,
    process: &Process,
    tids: &[Tid],
    limit: Duration,
) -> Result<BTreeMap<Tid, Parked>> {
    park_each(inbox, process.pid, tids, BTreeMap::new(), Touched::Prepared(process), limit)
}

/// What of a process is changed already when its threads are stopped.
#[derive(Clone, Copy)]
enum Touched<'a> {
    Not,
    /// It has the stub; nobody is sent there.
    Prepared(&'a Process),
    /// Handlers of signals must not return to where functions were replaced.
    Patched(&'a Process),
}

impl Touched<'_> {
    /// Says whether a stopped thread is about to be told of an instruction that is trapped for us.
    fn is_trapped(self, tid: Tid) -> Result<bool> {
        match self {
            Touched::Patched(process) if process.footprint.clock != Trapped::default() => {
                let pending = sys::peek_siginfo(tid, sys::PendingOf::Thread)?;
                Ok(pending.iter().any(|info| info[..4] == libc::SIGSEGV.to_ne_bytes()))
            }
            Touched::Not | Touched::Prepared(_) | Touched::Patched(_) => Ok(false),
        }
    }

    /// Lets a child go that was forked while its parent was being stopped.
    fn let_child_go(self, inbox: &Inbox, child: Tid, kind: Ghost) -> Result<()> {
        if !wait_until_it_stands(inbox, child)? {
            return Ok(());
        }
        match self {
            Touched::Patched(process) if process.footprint.clock != Trapped::default() => {
                match process.release_child(inbox, child, kind) {
                    Err(error) if !error.is_gone() => return Err(error),
                    _ => {}
                }
            }
            Touched::Prepared(process) | Touched::Patched(process) => process.let_child_go(child, kind),
            // One that is gone needs nothing.
            Touched::Not => drop(sys::detach(child, 0)),
        }
        Ok(())
    }
}

/// Does the work of [`park`]. `stops` were taken from the inbox already.
///
/// Each is waited for by its own id, which the kernel finds at once; waiting for any of them makes it look through all.
fn park_each(
    inbox: &Inbox,
    pid: Pid,
    tids: &[Tid],
    mut stops: BTreeMap<Tid, Stop>,
    touched: Touched<'_>,
    limit: Duration,
) -> Result<BTreeMap<Tid, Parked>> {
    let mut parked = BTreeMap::new();
    for tid in tids {
        match sys::interrupt(*tid) {
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
    }
    let deadline = Instant::now() + limit;
    let mut rung = false;
    // The first thread of a process that ends is told of last, when all others have been waited for, ptrace(2).
    let (main, others): (Vec<Tid>, Vec<Tid>) = tids.iter().partition(|tid| **tid == pid.main());
    for (number, tid) in others.iter().chain(&main).enumerate() {
        let gone = |stop: Option<Stop>| {
            let status = stop.map_or_else(|| "gone".to_owned(), |stop| stop.to_string());
            match *tid == pid.main() {
                true => Err(Error::Ended { tid: *tid, status, stop, doing: "stopping its threads".into() }),
                false => Ok(()),
            }
        };
        loop {
            let wake = match stops.remove(tid) {
                Some(stop) => Wake::Stop(*tid, stop),
                None => inbox.wait_for(tid.0)?,
            };
            match wake {
                Wake::Stop(_, stop) if stop.is_end() => {
                    gone(Some(stop))?;
                    break;
                }
                Wake::Stop(_, stop) => {
                    if let Some(how) = settle(inbox, pid, *tid, stop, touched)? {
                        parked.insert(*tid, how);
                        break;
                    }
                }
                // It ended before it could be attached to.
                Wake::NoTracees => {
                    gone(None)?;
                    break;
                }
                Wake::Bell => {
                    rung = true;
                    // It was let go on to a signal, perhaps, and another thread was given that; it may come to no stop by itself.
                    match sys::interrupt(*tid) {
                        Err(error) if !error.is_gone() => return Err(error),
                        _ => {}
                    }
                }
            }
            if Instant::now() > deadline {
                unpark(&parked)?;
                let left = tids.len() - number;
                let what = format!("{left} threads of process {pid} to stop (first: {tid})");
                return Err(Error::TimedOut { what, seconds: limit.as_secs_f64() });
            }
        }
    }
    if rung {
        inbox.bell().ring();
    }
    Ok(parked)
}

/// Decides whether a thread may stay where it stopped; lets it go on to a better place otherwise.
///
/// Any stop takes back an interruption that is still on its way, so a thread that goes on is interrupted anew.
fn settle(inbox: &Inbox, pid: Pid, tid: Tid, stop: Stop, touched: Touched<'_>) -> Result<Option<Parked>> {
    let mut signo = 0;
    match stop {
        // The stop comes before the signal of an instruction that is trapped for us (`get_signal` of kernel/signal.c).
        Stop::Interrupted if touched.is_trapped(tid)? => return sys::resume(tid, Resume::Syscall, 0).map(|()| None),
        Stop::Interrupted | Stop::Group(_) => match rewind(pid, tid)? {
            Rewinding::NotInCall if has_signalled_itself(pid, tid)? => return to_delivery(tid),
            Rewinding::NotInCall => return Ok(Some(Parked::User)),
            Rewinding::Rewound(call) => return Ok(Some(Parked::Rewound(call))),
            Rewinding::SignalComes => return to_delivery(tid),
        },
        Stop::Signal(number) => {
            signo = number;
            if let Touched::Patched(process) = touched {
                // An instruction that reads the clock is executed for it: there is no such signal for the program.
                if tsc::execute_trapped(tid, number, &process.memory, &process.footprint.clock)? {
                    signo = 0;
                } else {
                    process.make_room_for_signal(tid)?;
                }
            }
        }
        Stop::Syscall => match sys::syscall_info(tid)? {
            SyscallStop::Entry { nr, args } => return Ok(Some(Parked::Entry { nr, args })),
            SyscallStop::Exit { .. } => match rewind(pid, tid)? {
                Rewinding::NotInCall if has_signalled_itself(pid, tid)? => return to_delivery(tid),
                Rewinding::NotInCall => return Ok(Some(Parked::User)),
                Rewinding::Rewound(call) => return Ok(Some(Parked::Rewound(call))),
                Rewinding::SignalComes => return to_delivery(tid),
            },
            SyscallStop::Undone | SyscallStop::Foreign | SyscallStop::Neither => {}
        },
        Stop::Event(event @ (libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE)) => {
            let child = Tid(sys::event_message(tid)? as i32);
            // A thread is found among the others.
            if procfs::process_of(child) != Some(pid) {
                let kind = if shares_memory(tid, event)? { Ghost::SharedMemory } else { Ghost::OwnMemory };
                touched.let_child_go(inbox, child, kind)?;
            }
        }
        Stop::Event(_) => {}
        Stop::Exited(_) | Stop::Killed(_) => return Ok(None),
    }
    sys::resume(tid, Resume::Syscall, signo)?;
    sys::interrupt(tid)?;
    Ok(None)
}

/// Lets a thread go on to the delivery of the signal that waits for it. That is a stop, and so is the call that it makes next if
/// another thread is given the signal; interrupted before, it would come to neither.
fn to_delivery(tid: Tid) -> Result<Option<Parked>> {
    sys::resume(tid, Resume::Syscall, 0).map(|()| None)
}

/// Says whether a thread returns from a call that has sent a signal which it is to be given before it sees the result: the
/// kernel chooses whoever calls (`complete_signal` of kernel/signal.c). While it stands still it does not take the signal, and of
/// several threads that go on after a stop the first takes what waits for their process.
fn has_signalled_itself(pid: Pid, tid: Tid) -> Result<bool> {
    let nr = sys::get_regs(tid)?.orig_rax;
    Ok(u32::try_from(nr).is_ok_and(sends_signals) && has_caught_signal(pid, tid)?)
}

/// Says whether the child that a thread has just made works on its memory. Where that cannot be told it is taken for so: what is
/// its parent's stays as it is.
fn shares_memory(tid: Tid, event: i32) -> Result<bool> {
    let regs = sys::get_regs(tid)?;
    Ok(match regs.orig_rax as i64 {
        libc::SYS_fork => false,
        libc::SYS_clone => regs.rdi & libc::CLONE_VM as u64 != 0,
        _ => event != libc::PTRACE_EVENT_FORK,
    })
}

/// Lets parked threads go on unrecorded.
pub(crate) fn unpark(parked: &BTreeMap<Tid, Parked>) -> Result<()> {
    for tid in parked.keys() {
        match sys::resume(*tid, Resume::Cont, 0) {
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::process::{Child, Command};

    use super::*;
    use crate::update::birth;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A process that has two threads.
    fn two_threads() -> (Child, Pid) {
        let program = "import threading; threading.Thread(target=threading.Event().wait).start()";
        let child = Command::new("python3").args(["-c", program]).spawn().expect("python3 starts");
        let pid = Pid(child.id() as i32);
        let deadline = Instant::now() + LIMIT;
        while procfs::tasks(pid).expect("it runs").len() < 2 {
            assert!(Instant::now() < deadline, "its second thread did not start");
            std::thread::yield_now();
        }
        (child, pid)
    }

    #[test]
    fn whoever_waits_for_the_first_thread_hears_that_its_process_was_killed() {
        let (mut child, pid) = two_threads();
        let (said, heard) = crossbeam_channel::bounded(1);
        // The wait has no limit of its own.
        std::thread::spawn(move || {
            let inbox = Inbox::new();
            let seized = seize_all(pid, sys::OPTIONS_LEADER);
            let ended = seized.and_then(|_| sys::kill(pid, libc::SIGKILL)).and_then(|()| {
                let status = format!("/proc/{pid}/stat");
                while !fs::read_to_string(&status).is_ok_and(|stat| stat.contains(") Z ")) {
                    std::thread::yield_now();
                }
                crate::ptrace::inject::wait_stop(&inbox, pid.main(), "making a call")
            });
            said.send(ended.map_err(|error| error.to_string()))
        });
        let ended = heard.recv_timeout(LIMIT).expect("the wait is over");
        assert_eq!(ended, Err(format!("thread {pid} ended (killed by signal 9) while making a call")));
        // Whoever traces a child has waited for it.
        let _ = child.wait();
    }

    #[test]
    fn a_process_of_two_threads_that_is_killed_has_ended() {
        let (mut child, pid) = two_threads();
        let inbox = Inbox::new();
        let tids = seize_all(pid, sys::OPTIONS_LEADER).expect("it can be traced");
        child.kill().expect("it can be killed");
        let error = park(&inbox, pid, &tids, LIMIT).expect_err("nobody stops any more");
        assert!(matches!(error, Error::Ended { .. }), "{error}");
        // Whoever traces a child has waited for it.
        let _ = child.wait();
    }

    /// A process that has been started as far as its one long wait.
    pub(crate) fn sleeper() -> Child {
        let child = Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let waits = format!("{} ", libc::SYS_clock_nanosleep);
        while !fs::read_to_string(format!("/proc/{}/syscall", child.id())).expect("it runs").starts_with(&waits) {
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn a_thread_whose_stop_was_taken_and_not_dealt_with_is_parked() {
        let mut child = sleeper();
        let pid = Pid(child.id() as i32);
        let inbox = Inbox::new();
        let process = birth::prepare(&inbox, pid, LIMIT).expect("it can be prepared");
        park(&inbox, pid, &[pid.main()], LIMIT).expect("it stops");
        let parked = park_all(&inbox, &process, LIMIT).expect("it stops again");
        assert_eq!(parked.keys().copied().collect::<Vec<_>>(), [pid.main()]);
        process.release(&inbox, parked, Zombies::These(Vec::new())).expect("it is put back");
        child.kill().expect("it can be killed");
        let _ = child.wait();
    }

    /// A program that ends with the test, however that ends.
    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A handler that runs before the thread has gone on with its wait ends that, as it would without us.
    #[test]
    fn a_wait_that_a_handler_has_ended_is_not_made_again() {
        const TEXT: &str =
            "import select, signal\nsignal.signal(signal.SIGUSR1, lambda *_: None)\nselect.poll().poll()";
        let child = Ended(Command::new("python3").args(["-c", TEXT]).spawn().expect("python3 starts"));
        let pid = Pid(child.0.id() as i32);
        let waits = format!("{} ", libc::SYS_poll);
        while !fs::read_to_string(format!("/proc/{pid}/syscall")).expect("it runs").starts_with(&waits) {
            std::thread::yield_now();
        }
        let inbox = Inbox::new();
        let process = birth::prepare(&inbox, pid, LIMIT).expect("it can be prepared");
        let parked = loop {
            let parked = park_all(&inbox, &process, LIMIT).expect("it stops");
            if let Some(Parked::Rewound(_)) = parked.get(&pid.main()) {
                break parked;
            }
            // It has not come to its wait again yet.
            unpark(&parked).expect("it goes on");
            std::thread::yield_now();
        };
        sys::kill(pid, libc::SIGUSR1).expect("it runs");
        unpark(&parked).expect("it goes on");
        loop {
            let Wake::Stop(tid, stop) = inbox.wait().expect("it can be waited for") else { panic!("it has ended") };
            let signo = if let Stop::Signal(signo) = stop { signo } else { 0 };
            let regs = sys::get_regs(tid).expect("it stands");
            let exits = stop == Stop::Syscall
                && matches!(sys::syscall_info(tid).expect("it stands"), SyscallStop::Exit { ret: regs::EINTR });
            if exits && regs.orig_rax as i64 == libc::SYS_restart_syscall {
                assert_eq!(rewind(pid, tid).expect("it stands"), Rewinding::NotInCall);
                break;
            }
            sys::resume(tid, Resume::Syscall, signo).expect("it goes on");
        }
    }

    #[test]
    fn a_signal_whose_stop_was_taken_is_delivered() {
        let mut child = sleeper();
        let pid = Pid(child.id() as i32);
        let inbox = Inbox::new();
        let process = birth::prepare(&inbox, pid, LIMIT).expect("it can be prepared");
        sys::kill(pid, libc::SIGTERM).expect("it runs");
        let wake = inbox.wait_for(pid.0).expect("it stops");
        assert_eq!(wake, Wake::Stop(pid.main(), Stop::Signal(libc::SIGTERM)));
        let error = park_all(&inbox, &process, LIMIT).expect_err("it ends by the signal");
        assert!(matches!(error, Error::Ended { .. }), "{error}");
        // Whoever traces a child has waited for it.
        let _ = child.wait();
    }
}
