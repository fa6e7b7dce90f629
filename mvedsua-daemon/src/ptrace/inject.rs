//! System calls executed inside a tracee.
//!
//! A [`Remote`] borrows a stopped thread, makes it execute calls, and puts it back exactly as it was. The order of the
//! steps keeps the rule of this folder: the context block is written first, then the registers point at the stub in one
//! step, then every signal is blocked. A tracer that dies in between leaves a thread that runs through the stub, which
//! restores registers and mask by itself.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::memory::Memory;
use super::regs;
use super::stub::{self, Stub};
use super::sys::{self, Regs, Resume, SyscallStop};
use super::wait::{Bell, Inbox, Stop, Wake};
use super::{Error, Result, Tid};

/// Where a thread's context block may lie: memory of the tracee that nothing else uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arena {
    /// The shared page: the gate's word stands at its start.
    pub base: u64,
    pub blocks: u32,
}

/// A block's own room: a signal frame with the whole extended state fits below the block.
const BLOCK_STRIDE: u64 = 16 << 10;
const PAGE: u64 = 4096;

impl Arena {
    #[must_use]
    pub fn len(blocks: u32) -> u64 {
        PAGE + u64::from(blocks) * BLOCK_STRIDE
    }

    /// What stands behind the word, so that an arena that an earlier daemon left behind is recognised.
    pub const MAGIC: u64 = u64::from_le_bytes(*b"mvedsuad");

    /// Returns the arena in a mapping, if it is one.
    #[must_use]
    pub fn recognise(memory: &Memory, start: u64, end: u64) -> Option<Arena> {
        let magic = memory.read_u64(start + 8).ok()?;
        let blocks = u32::try_from((end - start).checked_sub(PAGE)? / BLOCK_STRIDE).ok()?;
        (magic == Self::MAGIC && Self::len(blocks) == end - start).then_some(Arena { base: start, blocks })
    }

    /// Address of the word that the gates look at.
    #[must_use]
    pub fn word(self) -> u64 {
        self.base
    }

    /// Address of a block.
    #[must_use]
    pub fn block(self, index: u32) -> u64 {
        debug_assert!(index < self.blocks);
        self.base + PAGE + (u64::from(index % self.blocks) + 1) * BLOCK_STRIDE - stub::BLOCK_LEN - 64
    }
}

/// Waits until one thread stops. A bell that rings meanwhile is kept for later.
pub fn wait_stop(inbox: &Inbox, tid: Tid, doing: &str) -> Result<Stop> {
    let mut rung = false;
    let stop = loop {
        match inbox.wait_for(tid.0)? {
            Wake::Stop(_, stop) => break stop,
            Wake::Bell => rung = true,
            Wake::NoTracees => {
                return Err(Error::Ended { tid, status: "no longer traced".into(), stop: None, doing: doing.into() });
            }
        }
    };
    if rung {
        inbox.bell().ring();
    }
    if stop.is_end() {
        return Err(Error::Ended { tid, status: stop.to_string(), stop: Some(stop), doing: doing.into() });
    }
    Ok(stop)
}

/// Does the same until a time, at which the bell must ring; nothing where the thread did not stop before.
fn wait_stop_before(inbox: &Inbox, tid: Tid, doing: &str, at: Instant) -> Result<Option<Stop>> {
    let mut rung = false;
    let stop = loop {
        match inbox.wait_for(tid.0)? {
            Wake::Stop(_, stop) => break Some(stop),
            Wake::Bell if Instant::now() >= at => break None,
            Wake::Bell => rung = true,
            Wake::NoTracees => {
                return Err(Error::Ended { tid, status: "no longer traced".into(), stop: None, doing: doing.into() });
            }
        }
    };
    if rung {
        inbox.bell().ring();
    }
    match stop {
        Some(stop) if stop.is_end() => {
            Err(Error::Ended { tid, status: stop.to_string(), stop: Some(stop), doing: doing.into() })
        }
        stop => Ok(stop),
    }
}

/// Rings a bell at a time, unless it is dropped before.
struct Alarm {
    at: Instant,
    _stopped: mpsc::Sender<()>,
}

impl Alarm {
    fn after(bell: Arc<Bell>, within: Duration) -> Alarm {
        let (stopped, is_stopped) = mpsc::channel::<()>();
        let at = Instant::now() + within;
        std::thread::spawn(move || {
            if is_stopped.recv_timeout(within) == Err(mpsc::RecvTimeoutError::Timeout) {
                bell.ring();
            }
        });
        Alarm { at, _stopped: stopped }
    }
}

/// A function that a thread is to run for us.
#[derive(Clone, Copy, Debug)]
pub struct FunctionCall {
    pub function: u64,
    pub args: [u64; 2],
    /// The upper end of its stack.
    pub stack: u64,
    /// How long it may take; nothing where it is known to end.
    pub within: Option<Duration>,
}

/// How a function ended that a thread ran for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    Returned(u64),
    /// It came upon a signal of its own making, at this instruction.
    Crashed {
        signo: i32,
        at: u64,
    },
    /// It began a system call there, which was not made.
    MadeCall {
        nr: u64,
        at: u64,
    },
    /// Its time was over while it was there.
    Late {
        at: u64,
    },
}

impl Ran {
    /// Returns where it was when it did not return.
    #[must_use]
    pub fn at(self) -> Option<u64> {
        match self {
            Ran::Returned(_) => None,
            Ran::Crashed { at, .. } | Ran::MadeCall { at, .. } | Ran::Late { at } => Some(at),
        }
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ran::Returned(value) => write!(f, "returned {value}"),
            Ran::Crashed { signo, .. } => write!(f, "came upon signal {signo}"),
            Ran::MadeCall { nr, .. } => match mvedsua_common::syscalls::name(*nr as u32) {
                Some(name) => write!(f, "made the system call {name}"),
                None => write!(f, "made system call {nr}"),
            },
            Ran::Late { .. } => f.write_str("did not return in time"),
        }
    }
}

/// How often a fork is made again that let a stop come first which had been asked for (`copy_process` in kernel/fork.c).
const FORKS: u32 = 5;

/// How far a thread is that makes a call for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    Start,
    Entry,
}

/// A thread that executes calls for us. Dropping it restores the thread; [`Remote::finish`] also reports errors.
#[derive(Debug)]
#[must_use]
pub struct Remote<'a> {
    inbox: &'a Inbox,
    tid: Tid,
    stub: Stub,
    block: u64,
    saved: Regs,
    mask: u64,
    /// A job-control signal that arrived meanwhile, to be sent again at the end.
    postponed: Vec<i32>,
    live: bool,
}

impl<'a> Remote<'a> {
    /// Borrows a stopped thread. `saved` are the registers it is to go on with (rewound, see [`super::regs`]).
    pub fn begin(
        inbox: &'a Inbox,
        memory: &Memory,
        tid: Tid,
        stub: Stub,
        block: u64,
        saved: Regs,
    ) -> Result<Remote<'a>> {
        let mask = sys::get_sigmask(tid)?;
        memory.write(block, &stub::context(&saved, mask))?;
        let mut remote = Remote { inbox, tid, stub, block, saved, mask, postponed: Vec::new(), live: true };
        remote.aim(stub.call(), libc::SYS_sched_yield, [0; 6])?;
        sys::set_sigmask(tid, u64::MAX)?;
        Ok(remote)
    }

    fn aim(&mut self, rip: u64, nr: i64, args: [u64; 6]) -> Result<()> {
        let mut regs = self.saved;
        regs.rip = rip;
        regs.rsp = self.block;
        regs.orig_rax = u64::MAX;
        regs.rax = nr as u64;
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
        sys::set_regs(self.tid, &regs)
    }

    /// Executes a call and returns the raw result register.
    pub fn raw(&mut self, nr: i64, args: [u64; 6]) -> Result<i64> {
        self.run(self.stub.call(), nr, args).map(|(ret, _)| ret)
    }

    /// Executes a call that must succeed.
    pub fn call(&mut self, name: &'static str, nr: i64, args: [u64; 6]) -> Result<u64> {
        let ret = self.raw(nr, args)?;
        self.succeeded(name, ret)
    }

    fn succeeded(&self, name: &'static str, ret: i64) -> Result<u64> {
        if (-4095..0).contains(&ret) {
            return Err(Error::Injected {
                call: name,
                tid: self.tid,
                source: io::Error::from_raw_os_error(-ret as i32),
            });
        }
        Ok(ret as u64)
    }

    /// Executes a `clone` of a thread and returns the new thread, which reports its first stop by itself.
    pub fn clone_thread(&mut self, args: [u64; 6]) -> Result<Tid> {
        let (ret, event) = self.run(self.stub.call(), libc::SYS_clone, args)?;
        match event {
            Some(tid) => Ok(tid),
            None => {
                Err(Error::Injected { call: "clone", tid: self.tid, source: io::Error::from_raw_os_error(-ret as i32) })
            }
        }
    }

    /// Forks through the stub's `fork` entry. The child is not traced, has soon no descriptors, and ends after 20 s unless
    /// somebody attaches; it signals its end to nobody. Up to then it shares the parent's table instead of having copies: a copy
    /// would have to be closed, and until then nothing that the parent closes would be closed. So the number of descriptors
    /// costs nothing. What System V semaphores are to take back at the end of the program
    /// (`SEM_UNDO`) both have together, so that it happens when the last of them ends.
    pub fn fork(&mut self) -> Result<i32> {
        sys::set_options(self.tid, libc::PTRACE_O_TRACESYSGOOD)?;
        let args = [(libc::CLONE_SYSVSEM | libc::CLONE_FILES) as u64, 0, 0, 0, 0, 0];
        let mut result = self.run(self.stub.fork(), libc::SYS_clone, args);
        for _ in 0..FORKS {
            if !matches!(result, Ok((regs::ERESTARTNOINTR, _))) {
                break;
            }
            result = self.run(self.stub.fork(), libc::SYS_clone, args);
        }
        sys::set_options(self.tid, sys::OPTIONS_LEADER)?;
        let (ret, _) = result?;
        if ret < 0 {
            return Err(Error::Injected {
                call: "fork",
                tid: self.tid,
                source: io::Error::from_raw_os_error(-ret as i32),
            });
        }
        Ok(ret as i32)
    }

    /// Executes a call in each of many threads, in all of them at once: each works while the others are looked at. Returns
    /// what the call returned in each.
    pub fn call_in_all(
        remotes: &mut [Remote<'a>],
        name: &'static str,
        nr: i64,
        args: impl Fn(usize) -> [u64; 6],
    ) -> Result<Vec<u64>> {
        for (index, remote) in remotes.iter_mut().enumerate() {
            remote.set_off(remote.stub.call(), nr, args(index))?;
        }
        for remote in remotes.iter_mut() {
            remote.enter()?;
        }
        let back = remotes.iter_mut().map(|remote| {
            let (ret, _) = remote.come_back(Reached::Entry)?;
            remote.succeeded(name, ret)
        });
        back.collect()
    }

    fn set_off(&mut self, rip: u64, nr: i64, args: [u64; 6]) -> Result<()> {
        self.aim(rip, nr, args)?;
        sys::resume(self.tid, Resume::Syscall, 0)
    }

    /// Waits for the entry of the call, and lets the thread go on.
    fn enter(&mut self) -> Result<()> {
        loop {
            let entered = match wait_stop(self.inbox, self.tid, "executing a call for the daemon")? {
                Stop::Syscall => matches!(sys::syscall_info(self.tid)?, SyscallStop::Entry { .. }),
                Stop::Signal(signo) => {
                    self.postponed.push(signo);
                    false
                }
                _ => false,
            };
            sys::resume(self.tid, Resume::Syscall, 0)?;
            if entered {
                return Ok(());
            }
        }
    }

    fn run(&mut self, rip: u64, nr: i64, args: [u64; 6]) -> Result<(i64, Option<Tid>)> {
        self.set_off(rip, nr, args)?;
        self.come_back(Reached::Start)
    }

    /// Waits for the exit of the call.
    fn come_back(&mut self, reached: Reached) -> Result<(i64, Option<Tid>)> {
        let mut born = None;
        let mut entered = reached == Reached::Entry;
        loop {
            let stop = wait_stop(self.inbox, self.tid, "executing a call for the daemon")?;
            match stop {
                Stop::Syscall => match sys::syscall_info(self.tid)? {
                    SyscallStop::Exit { ret } if entered => return Ok((ret, born)),
                    SyscallStop::Entry { .. } => entered = true,
                    // The exit of the stop that we came from.
                    SyscallStop::Exit { .. } | SyscallStop::Undone | SyscallStop::Foreign | SyscallStop::Neither => {}
                },
                Stop::Event(libc::PTRACE_EVENT_CLONE) => born = Some(Tid(sys::event_message(self.tid)? as i32)),
                Stop::Signal(signo) => self.postponed.push(signo),
                Stop::Event(_) | Stop::Interrupted | Stop::Group(_) => {}
                Stop::Exited(_) | Stop::Killed(_) => unreachable!("wait_stop reports an end as an error"),
            }
            sys::resume(self.tid, Resume::Syscall, 0)?;
        }
    }

    /// Calls a function of the program that makes no system calls, and returns what it returns. The registers that a function
    /// may change beyond those that the thread goes on with (`xsave`) are the caller's to keep.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where it makes a call all the same: it would wait for a lock.
    pub fn call_function(&mut self, function: u64, args: [u64; 2]) -> Result<u64> {
        let call = FunctionCall { function, args, stack: self.block & !15, within: None };
        match self.run_function(&call)? {
            Ran::Returned(value) => Ok(value),
            other => Err(Error::Unsupported(format!("the function at {function:#x} {other}"))),
        }
    }

    /// Does the same for a function of which nothing is known, and says how it ended. The thread stands still then.
    pub fn run_function(&mut self, call: &FunctionCall) -> Result<Ran> {
        /// Bytes of the instruction `syscall`.
        const SYSCALL: u64 = 2;
        const DOING: &str = "executing a function for the daemon";
        let mut regs = self.saved;
        regs.rip = call.function;
        // As behind a `call`: the address to return to is there, and was pushed onto a multiple of 16. It leads to a system
        // call, which tells that the function is over and is not made.
        regs.rsp = (call.stack & !15) - 8;
        regs.orig_rax = u64::MAX;
        [regs.rdi, regs.rsi] = call.args;
        // SAFETY: takes integers only; the place is in the block's own room, or in a stack that the caller made.
        let pushed = unsafe { libc::ptrace(libc::PTRACE_POKEDATA, self.tid.0, regs.rsp, self.stub.call()) };
        if pushed != 0 {
            let source = io::Error::last_os_error();
            return Err(Error::Injected { call: "writing to the stack", tid: self.tid, source });
        }
        sys::set_regs(self.tid, &regs)?;
        let back = self.stub.call() + SYSCALL;
        let alarm = call.within.map(|within| Alarm::after(self.inbox.bell(), within));
        let mut result = None;
        loop {
            sys::resume(self.tid, Resume::Syscall, 0)?;
            let stop = match &alarm {
                None => wait_stop(self.inbox, self.tid, DOING)?,
                Some(alarm) => match wait_stop_before(self.inbox, self.tid, DOING, alarm.at)? {
                    Some(stop) => stop,
                    None => return self.stop_late(DOING),
                },
            };
            match stop {
                Stop::Syscall => match sys::syscall_info(self.tid)? {
                    // What it returns stands where the number of a call does, and may look like none.
                    SyscallStop::Entry { .. } | SyscallStop::Undone if result.is_none() => {
                        let regs = sys::get_regs(self.tid)?;
                        sys::set_number(self.tid, -1)?;
                        result = Some((regs.orig_rax, regs.rip));
                    }
                    SyscallStop::Entry { .. }
                    | SyscallStop::Exit { .. }
                    | SyscallStop::Undone
                    | SyscallStop::Foreign
                    | SyscallStop::Neither => match result {
                        Some((result, at)) if at == back => return Ok(Ran::Returned(result)),
                        Some((nr, at)) => return Ok(Ran::MadeCall { nr, at: at.wrapping_sub(SYSCALL) }),
                        None => {}
                    },
                },
                Stop::Signal(signo)
                    if matches!(signo, libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP) =>
                {
                    return Ok(Ran::Crashed { signo, at: sys::get_regs(self.tid)?.rip });
                }
                Stop::Signal(signo) => self.postponed.push(signo),
                Stop::Event(_) | Stop::Interrupted | Stop::Group(_) => {}
                Stop::Exited(_) | Stop::Killed(_) => unreachable!("wait_stop reports an end as an error"),
            }
        }
    }

    /// Stops a thread whose time is over.
    fn stop_late(&self, doing: &str) -> Result<Ran> {
        sys::interrupt(self.tid)?;
        wait_stop(self.inbox, self.tid, doing)?;
        Ok(Ran::Late { at: sys::get_regs(self.tid)?.rip })
    }

    /// Replaces the registers that the thread goes on with.
    pub fn set_saved(&mut self, saved: Regs, mask: u64) {
        self.saved = saved;
        self.mask = mask;
    }

    /// Puts the thread back as it was.
    pub fn finish(mut self) -> Result<()> {
        self.restore()
    }

    fn restore(&mut self) -> Result<()> {
        self.live = false;
        sys::set_sigmask(self.tid, self.mask)?;
        sys::set_regs(self.tid, &self.saved)?;
        for signo in self.postponed.drain(..) {
            // SAFETY: takes integers only.
            unsafe { libc::syscall(libc::SYS_tkill, self.tid.0, signo) };
        }
        Ok(())
    }
}

/// Lets a thread that stands in user code run until it has made `count` calls, and returns what they returned. It stands at the
/// exit of the last of them. Signals that stop a process come again afterwards.
pub(crate) fn run_calls(inbox: &Inbox, tid: Tid, count: usize) -> Result<Vec<i64>> {
    let mut results = Vec::with_capacity(count);
    let (mut entered, mut postponed) = (false, Vec::new());
    while results.len() < count {
        sys::resume(tid, Resume::Syscall, 0)?;
        match wait_stop(inbox, tid, "putting an image in place")? {
            Stop::Syscall => match sys::syscall_info(tid)? {
                SyscallStop::Entry { .. } => entered = true,
                SyscallStop::Exit { ret } if entered => {
                    entered = false;
                    results.push(ret);
                }
                SyscallStop::Exit { .. } | SyscallStop::Undone | SyscallStop::Foreign | SyscallStop::Neither => {}
            },
            Stop::Signal(signo) => postponed.push(signo),
            Stop::Event(_) | Stop::Interrupted | Stop::Group(_) => {}
            Stop::Exited(_) | Stop::Killed(_) => unreachable!("wait_stop reports an end as an error"),
        }
    }
    for signo in postponed {
        // SAFETY: takes integers only.
        unsafe { libc::syscall(libc::SYS_tkill, tid.0, signo) };
    }
    Ok(results)
}

impl Drop for Remote<'_> {
    fn drop(&mut self) {
        if self.live
            && let Err(error) = self.restore()
            && !error.is_gone()
        {
            tracing::error!(tid = self.tid.0, %error, "a borrowed thread could not be put back");
        }
    }
}
