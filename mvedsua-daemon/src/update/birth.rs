//! The follower's birth: the leader forks, the child becomes an isolated copy with every thread.
//!
//! The leader's part ([`prepare`], [`fork`]) is kept short, since it stands still for the second half of it. The child gets
//! rid of its descriptors by itself, and the leader waits for that: an epoll set forgets a closed descriptor only when the last
//! copy is closed, and tells of it until then, under a number that the program may have for another connection by now
//! (epoll(7), questions and answers). Everything else ([`adopt`]) happens in the child while the leader serves again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::process::{self, Footprint, Half, Parked, Process, park, park_prepared, stack_block, unpark};
use super::rings::Rings;
use super::shared;
use super::slots::Slots;
use super::uncopied::{self, Uncopied};
use crate::image::threads::{ThreadState, alt_stack_bytes, capture};
use crate::ptrace::inject::{Arena, Remote, wait_stop};
use crate::ptrace::memory::Memory;
use crate::ptrace::procfs;
use crate::ptrace::regs::{self, Rewound};
use crate::ptrace::ring::{Area, Mode};
use crate::ptrace::stub::Stub;
use crate::ptrace::sys::{self, Resume, Rseq};
use crate::ptrace::tsc::Trapped;
use crate::ptrace::vdso::Vdso;
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Error, Pid, Result, Tid};
use crate::record::Slot;

/// How long threads that are found inside the vDSO are given the chance to leave it, and how long each time. They need some
/// nanoseconds, but on a busy machine they wait for a processor.
const VDSO_PATIENCE: Duration = Duration::from_millis(20);
const VDSO_CHANCE: Duration = Duration::from_micros(50);

/// How long the child is left alone before it is looked at again.
const CLOSING_CHANCE: Duration = Duration::from_micros(20);
/// How much of the time between two looks counts. If more has gone by the machine stood still for the child too.
const MOST_AT_ONCE: Duration = Duration::from_millis(4);

/// What the leader's tracer hands to the follower's.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) leader: Pid,
    pub(crate) child: Pid,
    pub(crate) forked_slot: Slot,
    pub(crate) threads: Vec<ThreadState>,
    pub(crate) footprint: Footprint,
    /// Memory that the program's own forks would not copy.
    uncopied: Vec<Uncopied>,
    /// Where the leader's rings are; the child has not inherited them.
    pub(crate) rings: Option<Area>,
    /// What was in its shared memory at the instant of the fork.
    shared: Vec<shared::Contents>,
    pub(crate) pause: Duration,
}

/// There is no follower: why, and the child that was made all the same and has been killed.
#[derive(Debug)]
pub(crate) struct Unborn {
    pub(crate) error: Error,
    pub(crate) child: Option<Pid>,
}

impl From<Error> for Unborn {
    fn from(error: Error) -> Unborn {
        Unborn { error, child: None }
    }
}

/// Attaches to the leader and puts the stub and the arena into it. Stops only its first thread, for a few calls.
pub(crate) fn prepare(inbox: &Inbox, pid: Pid, limit: Duration) -> Result<Process> {
    let memory = Memory::open(pid)?;
    let maps = procfs::maps(pid)?;
    let vdso = Vdso::find(pid, &memory, &maps)?;
    // Children of updates that came to nothing, where the leader could not wait until they had ended.
    let strays: Vec<Pid> =
        procfs::children(pid)?.into_iter().filter(|child| procfs::is_silent_zombie(*child)).collect();
    let tids = process::seize_all(pid, sys::OPTIONS_LEADER)?;
    let main = pid.main();
    let mut restarted: BTreeMap<Tid, u32> =
        procfs::restarted_call(pid, main, &memory).into_iter().map(|nr| (main, nr)).collect();
    let mut parked = park(inbox, pid, &[main], limit)?;
    for (tid, how) in &mut parked {
        name_restarted(*tid, how, &memory, &restarted)?;
        if let Parked::Rewound(call) = how {
            restarted.insert(*tid, call.nr);
        }
    }
    let stub = Stub::install(&memory, vdso.end, vdso.tail)?;
    // For each version: one for each thread, and for as many again that are born until the versions change places.
    let blocks = 2 * (2 * tids.len() as u32 + 256);
    let mut saved = sys::get_regs(main)?;
    if let Some(Parked::Entry { nr, .. }) = parked.get(&main) {
        regs::undo_entry(&mut saved, *nr);
    }
    let mut remote = Remote::begin(inbox, &memory, main, stub, stack_block(&saved), saved)?;
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let flags = (libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u64;
    let base = remote.call("mmap", libc::SYS_mmap, [0, Arena::len(blocks), protection, flags, u64::MAX, 0])?;
    strays.into_iter().try_for_each(|child| process::reap(&mut remote, child))?;
    let rings = vdso.agent.as_ref().and_then(|agent| {
        let rings = Rings::create(&mut remote, pid, 0, Mode::Note);
        rings.and_then(|rings| agent.install(&memory, rings.area()).map(|()| rings)).inspect_err(no_rings).ok()
    });
    remote.finish()?;
    memory.write(base + 8, &Arena::MAGIC.to_ne_bytes())?;
    unpark(&parked)?;
    let mut process = Process {
        pid,
        memory,
        footprint: Footprint { vdso, stub, arena: Arena { base, blocks }, clock: Trapped::default() },
        threads: Slots::default(),
        restarted,
        half: Half::First,
        rings,
        agent: None,
        leftovers: Vec::new(),
        ghosts: Vec::new(),
    };
    for tid in tids {
        process.new_slot(tid);
    }
    Ok(process)
}

/// Stops every thread, copies its state, makes time real calls and forks. The threads stay parked.
pub(crate) fn fork(inbox: &Inbox, process: &mut Process, limit: Duration) -> Result<(Birth, Instant), Unborn> {
    // Of a thread that is in such a call since before we came, only the function that it sleeps in tells which it is.
    for tid in process.threads.tids() {
        if let Some(nr) = procfs::restarted_call(process.pid, tid, &process.memory) {
            process.restarted.entry(tid).or_insert(nr);
        }
    }
    let uncopied = find_uncopied(process)?;
    let begun = Instant::now();
    let mut parked = park_outside_vdso(inbox, process, limit)?;
    for (tid, how) in &mut parked {
        name_restarted(*tid, how, &process.memory, &process.restarted)?;
    }
    process.threads.retain(|tid| parked.contains_key(&tid));
    for tid in parked.keys() {
        if process.slot(*tid).is_none() {
            process.new_slot(*tid);
        }
    }
    for tid in parked.keys() {
        process.give_ring(*tid)?;
    }
    let threads = capture(inbox, process, &parked)?;
    process.patch_vdso()?;
    let birth = fork_parked(inbox, process, threads, uncopied, limit)?;
    Ok((Birth { pause: begun.elapsed(), ..birth }, begun))
}

/// Finds the memory that the program's own forks would not copy. The kernel looks at every page for it, so this is done while
/// the process runs.
pub(crate) fn find_uncopied(process: &Process) -> Result<Vec<Uncopied>> {
    uncopied::find(process.pid, process.rings.as_ref().map(|rings| rings.area().base))
}

/// Forks a process whose threads are parked and captured. They stay parked.
pub(crate) fn fork_parked(
    inbox: &Inbox,
    process: &Process,
    threads: Vec<ThreadState>,
    uncopied: Vec<Uncopied>,
    limit: Duration,
) -> Result<Birth, Unborn> {
    let main = threads.iter().find(|thread| thread.tid == process.pid.main()).or(threads.first());
    let Some(forking) = main else { return Err(Error::Unsupported("it has no thread that could fork".into()).into()) };
    let forked_slot = forking.slot;
    let mut remote = process.remote(inbox, forking.tid, sys::get_regs(forking.tid)?)?;
    let uncopied = uncopied::copy(&mut remote, uncopied)?;
    let shared = shared::take(process)?;
    let forked = remote.fork();
    let advised = uncopied::advise_again(&mut remote, &uncopied);
    let child = Pid(forked?);
    let finished = advised.and_then(|()| remote.finish());
    if let Err(error) = finished.and_then(|()| await_no_descriptors(child, limit)) {
        let _ = sys::kill(child, libc::SIGKILL);
        return Err(Unborn { error, child: Some(child) });
    }
    let footprint = process.footprint.clone();
    let rings = process.rings.as_ref().map(Rings::area);
    let leader = process.pid;
    Ok(Birth { leader, child, forked_slot, threads, footprint, uncopied, rings, shared, pause: Duration::ZERO })
}

/// Waits until a child that was forked has no descriptors, neither its own nor together with its parent. One that has ended
/// has none; whoever is to adopt it finds out.
fn await_no_descriptors(child: Pid, limit: Duration) -> Result<()> {
    let (mut waited, mut looked) = (Duration::ZERO, Instant::now());
    while procfs::has_descriptors(child).unwrap_or(false) {
        waited += looked.elapsed().min(MOST_AT_ONCE);
        looked = Instant::now();
        if waited >= limit {
            let seconds = waited.as_secs_f64();
            return Err(Error::TimedOut { what: "the child to leave its descriptors".into(), seconds });
        }
        std::thread::sleep(CLOSING_CHANCE);
    }
    Ok(())
}

/// Gives a rewound call its own number where the kernel calls it `restart_syscall`. A thread that was rewound by us and
/// stopped again before it went on stands in user code, right before its `syscall` instruction.
fn name_restarted(tid: Tid, how: &mut Parked, memory: &Memory, restarted: &BTreeMap<Tid, u32>) -> Result<()> {
    let regs = sys::get_regs(tid)?;
    let code = memory.read_vec(regs.rip - 5, 7).unwrap_or_default();
    if *how == Parked::User && regs.rax as i64 == libc::SYS_restart_syscall && code.ends_with(&[0x0f, 0x05]) {
        *how = Parked::Rewound(Rewound { nr: regs.rax as u32, args: regs::args(&regs) });
    }
    if let Parked::Rewound(call) = how
        && i64::from(call.nr) == libc::SYS_restart_syscall
    {
        match procfs::loaded_number(&code).or_else(|| restarted.get(&tid).copied()) {
            Some(nr) => call.nr = nr,
            None => {
                let what = format!("thread {tid} waits in restart_syscall, and nothing tells which call that is");
                return Err(Error::Unsupported(what));
            }
        }
    }
    Ok(())
}

fn park_outside_vdso(inbox: &Inbox, process: &Process, limit: Duration) -> Result<BTreeMap<Tid, Parked>> {
    let mut known: Vec<Tid> = process.threads.tids().collect();
    let mut parked: BTreeMap<Tid, Parked> = BTreeMap::new();
    let begun = Instant::now();
    loop {
        parked.append(&mut park_prepared(inbox, process, &known, limit)?);
        let mut inside = Vec::new();
        for tid in parked.keys() {
            if process.footprint.vdso.is_inside(sys::get_regs(*tid)?.rip) {
                inside.push(*tid);
            }
        }
        // Threads that were born while the others were being stopped.
        let born = procfs::tasks(process.pid)?.into_iter().filter(|tid| !parked.contains_key(tid));
        known = inside.iter().copied().chain(born).collect();
        if known.is_empty() {
            return Ok(parked);
        }
        if begun.elapsed() >= VDSO_PATIENCE {
            unpark(&parked)?;
            let seconds = begun.elapsed().as_secs_f64();
            return Err(Error::TimedOut { what: "every thread to be outside of the vDSO".into(), seconds });
        }
        for tid in &inside {
            parked.remove(tid);
            sys::resume(*tid, Resume::Cont, 0)?;
        }
        if !inside.is_empty() {
            // No stop tells that a thread has left it.
            std::thread::sleep(VDSO_CHANCE);
        }
    }
}

/// Attaches to the forked child and makes it an isolated copy of the leader. Its threads stay parked.
pub(crate) fn adopt(inbox: &Inbox, birth: &Birth) -> Result<Process> {
    let pid = birth.child;
    let main = pid.main();
    sys::seize(main, sys::OPTIONS_FOLLOWER)?;
    sys::interrupt(main)?;
    wait_stop(inbox, main, "being adopted")?;
    let mut process = Process {
        pid,
        memory: Memory::open(pid)?,
        footprint: birth.footprint.clone(),
        threads: Slots::default(),
        restarted: BTreeMap::new(),
        half: Half::Second,
        rings: None,
        agent: None,
        leftovers: Vec::new(),
        ghosts: Vec::new(),
    };
    process.threads.insert(main, birth.forked_slot);
    // Of two processes that need memory, the one that nobody depends on goes first.
    if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "1000") {
        tracing::warn!(%error, "the follower could not be made the first victim of memory pressure");
    }
    let Some(forked) = birth.threads.iter().find(|thread| thread.slot == birth.forked_slot) else {
        return Err(Error::Unsupported("the forked thread is not among the captured ones".into()));
    };
    let mut remote = process.remote(inbox, main, forked.regs)?;
    remote.set_saved(forked.regs, forked.mask);
    // It has done so already; if it had not, these would be the leader's.
    let unshare = u64::from(libc::CLOSE_RANGE_UNSHARE);
    remote.call("close_range", libc::SYS_close_range, [0, u64::from(u32::MAX), unshare, 0, 0, 0])?;
    // What is sent to the service's group, by its terminal for one, is not for a version that follows.
    remote.call("setpgid", libc::SYS_setpgid, [0; 6])?;
    uncopied::advise_again(&mut remote, &birth.uncopied)?;
    shared::copy(&mut remote, &process, &birth.shared)?;
    if let Some(area) = birth.rings {
        process.rings = Some(Rings::create(&mut remote, pid, area.base, Mode::Answer)?);
        process.note_ring(main, forked.regs.gs_base);
    }
    remote.call("set_tid_address", libc::SYS_set_tid_address, [forked.clear_tid, 0, 0, 0, 0, 0])?;
    remote.call("set_robust_list", libc::SYS_set_robust_list, [forked.robust.0, forked.robust.1, 0, 0, 0, 0])?;
    for thread in birth.threads.iter().filter(|thread| thread.slot != birth.forked_slot) {
        let tid = clone_twin(&mut remote, thread, process.block(thread.slot))?;
        process.threads.insert(tid, thread.slot);
        process.note_ring(tid, thread.regs.gs_base);
        wait_stop(inbox, tid, "being born")?;
        furnish(inbox, &process, tid, birth.leader, thread)?;
    }
    remote.finish()?;
    Ok(process)
}

/// A process does without rings, and its time calls cost stops.
fn no_rings(error: &Error) {
    tracing::warn!(%error, "time cannot be told without stops");
}

fn clone_twin(remote: &mut Remote<'_>, thread: &ThreadState, stack: u64) -> Result<Tid> {
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_CHILD_CLEARTID;
    remote.clone_thread([flags as u64, stack, 0, thread.clear_tid, thread.regs.fs_base, 0])
}

/// Gives a newborn thread everything that `clone` did not.
fn furnish(inbox: &Inbox, process: &Process, tid: Tid, leader: Pid, thread: &ThreadState) -> Result<()> {
    sys::set_xstate(tid, &thread.xstate)?;
    let scratch = process.block(thread.slot) - 1024;
    let mut remote = process.remote(inbox, tid, thread.regs)?;
    remote.set_saved(thread.regs, thread.mask);
    if thread.alt_stack[1] as i32 & libc::SS_DISABLE == 0 {
        process.memory.write(scratch, &alt_stack_bytes(thread.alt_stack))?;
        remote.call("sigaltstack", libc::SYS_sigaltstack, [scratch, 0, 0, 0, 0, 0])?;
    }
    remote.call("set_robust_list", libc::SYS_set_robust_list, [thread.robust.0, thread.robust.1, 0, 0, 0, 0])?;
    if thread.rseq.addr != 0 {
        let Rseq { addr, size, signature, .. } = thread.rseq;
        remote.call("rseq", libc::SYS_rseq, [addr, u64::from(size), 0, u64::from(signature), 0, 0])?;
    }
    // One that is given another name meanwhile gives it to its twin as well; one that has ended needs none.
    if let Ok(wanted) = procfs::thread_name(leader, thread.tid) {
        let mut name = [0u8; 16];
        let len = wanted.len().min(15);
        name[..len].copy_from_slice(&wanted.as_bytes()[..len]);
        process.memory.write(scratch, &name)?;
        remote.call("prctl", libc::SYS_prctl, [libc::PR_SET_NAME as u64, scratch, 0, 0, 0, 0])?;
    }
    remote.finish()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::update::process::tests::sleeper;
    use crate::update::process::{Zombies, park_all};

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_child_that_nobody_waited_for_is_collected_before_the_next() {
        let mut leader = sleeper();
        let pid = Pid(leader.id() as i32);
        let inbox = Inbox::new();
        for _ in 0..2 {
            let mut process = prepare(&inbox, pid, LIMIT).expect("it can be prepared");
            assert_eq!(procfs::children(pid).expect("it runs"), []);
            let (birth, _) = fork(&inbox, &mut process, LIMIT).expect("it can be forked");
            let parked = park_all(&inbox, &process, LIMIT).expect("it is parked");
            process.release(&inbox, parked, Zombies::These(Vec::new())).expect("it is put back");
            sys::kill(birth.child, libc::SIGKILL).expect("it is there");
            let deadline = Instant::now() + LIMIT;
            while !procfs::is_silent_zombie(birth.child) {
                assert!(Instant::now() < deadline, "the child has not ended");
                std::thread::yield_now();
            }
        }
        leader.kill().expect("it runs");
        let _ = leader.wait();
    }

    #[test]
    fn a_child_has_no_descriptors_when_the_leader_goes_on() {
        let open = "import os, sys; [os.dup(0) for _ in range(500)]; print(flush=True); sys.stdin.read()";
        let mut command = Command::new("python3");
        let mut leader =
            command.args(["-c", open]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts");
        let said = leader.stdout.as_mut().expect("it is piped");
        std::io::Read::read_exact(said, &mut [0]).expect("it has opened them");
        let pid = Pid(leader.id() as i32);
        let inbox = Inbox::new();
        for _ in 0..20 {
            let before = procfs::descriptors(pid).expect("it runs").len();
            assert!(before > 500);
            let mut process = prepare(&inbox, pid, LIMIT).expect("it can be prepared");
            let (birth, _) = fork(&inbox, &mut process, LIMIT).expect("it can be forked");
            assert_eq!(procfs::descriptors(birth.child).expect("it is there"), []);
            assert_eq!(procfs::descriptors(pid).expect("it runs").len(), before, "the leader has kept all of its own");
            sys::kill(birth.child, libc::SIGKILL).expect("it is there");
            let parked = park_all(&inbox, &process, LIMIT).expect("it is parked");
            process.release(&inbox, parked, Zombies::These(vec![birth.child])).expect("it is put back");
        }
        leader.kill().expect("it runs");
        let _ = leader.wait();
    }
}
