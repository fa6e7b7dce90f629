//! The follower's processes, where they are paired with the leader's: children, other programs, the end.
//!
//! A child of the follower is real, and its pid is the leader's child's. It is made with `CLONE_PARENT`: so it is nobody's
//! child in the follower, whose own waiting is answered from the records, and is reaped by whoever traces it. A program is
//! replaced for real too, by that which the leader's path names. The end is made when everything of the stream was lived
//! through: an `exit_group` is answered by nothing until then, since other threads may have records behind its entry.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::sync::PoisonError;

use super::copies::Copies;
use super::real::{RealCall, What};
use super::*;
use crate::matcher::{Progress, step};
use crate::ptrace::ring::{Area, Mode};
use crate::record::{Executed, StreamId, Succession};
use crate::tracee::process::Footprint;
use crate::tracee::program;
use crate::tracee::rings::Rings;

const CLONE_PIDFD: u64 = libc::CLONE_PIDFD as u64;
const CLONE_PARENT: u64 = libc::CLONE_PARENT as u64;
const CLONE_VFORK: u64 = libc::CLONE_VFORK as u64;
const CLONE_VM: u64 = libc::CLONE_VM as u64;
const CLONE_CHILD_SETTID: u64 = libc::CLONE_CHILD_SETTID as u64;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Bytes of `struct clone_args` of Linux 5.7 and later.
const CLONE_ARGS: usize = 88;
/// The longest path that is executed, with its NUL.
const PATH_MAX: usize = 4096;

/// Registers that carry a call's arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArgRegisters([u64; 6]);

impl ArgRegisters {
    /// Gives a stopped thread its arguments back.
    pub(crate) fn put_back(self, tid: Tid) -> Result<()> {
        let mut regs = sys::get_regs(tid)?;
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = self.0;
        sys::set_regs(tid, &regs)
    }
}

/// A thread that makes a process.
#[derive(Debug)]
pub(super) struct Forking {
    pub(super) call: Box<Call>,
    pub(super) born: Option<Tid>,
    pub(super) returned: Progress,
    /// Where the child's id is written in the child's memory, if anywhere.
    child_tid: Option<u64>,
}

impl Forking {
    pub(super) fn registers(&self) -> ArgRegisters {
        ArgRegisters(self.call.args)
    }
}

/// A thread that executes another program: it goes to the leader's directory first, and executes it by the same path.
#[derive(Debug)]
pub(super) struct Executing {
    path: String,
    directory: String,
    random: [u8; 16],
    /// The program, where it is a file in memory; open until it is executed.
    _image: Option<File>,
    /// Set while it changes its directory: the call's own arguments, of which the first is the path.
    moving: Option<[u64; 3]>,
    executed: bool,
}

/// A child that was made.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) child: Tid,
    /// The leader's twin of the child.
    pub(crate) twin: Pid,
    pub(crate) stream: StreamId,
    pub(crate) footprint: Footprint,
    /// Where its parent's rings are, which are not the child's.
    pub(crate) rings: Option<Area>,
    pub(crate) registers: ArgRegisters,
    /// Where the twin's id is to stand in the child's memory.
    pub(crate) child_tid: Option<u64>,
    pub(crate) inherited: Inherited,
}

/// What a child knows from its parent.
#[derive(Debug)]
pub(crate) struct Inherited {
    registrations: Registrations,
    copies: Copies,
}

impl Following {
    /// Takes the children that were made since it was asked last.
    pub(crate) fn take_births(&mut self) -> Vec<Birth> {
        std::mem::take(&mut self.kin.births)
    }

    /// Is told which of the leader's processes have twins that have not come to their ends, which changes all the time.
    pub(crate) fn know(&mut self, living: Living) {
        self.kin.living = Some(living);
    }

    /// Takes over what the parent knew of its epoll sets and of its copies of mapped files.
    pub(crate) fn inherit(&mut self, inherited: Inherited) {
        let Inherited { registrations, copies } = inherited;
        (self.known.registrations, self.known.copies) = (registrations, copies);
    }

    /// Returns how the process ended, if it has lived through its whole stream.
    pub(crate) fn finished(&self) -> Option<Ending> {
        self.kin.finished
    }

    /// Says whether the record that is due tells of the end of a child whose twin here has not come to its end yet. What the child
    /// has done to memory that it shares with this process is there when its end was waited for, and not before.
    pub(super) fn waits_for_child(&mut self) -> bool {
        let Some(living) = &self.kin.living else { return false };
        let due = self.due.front().and_then(|slot| self.due.first_of(slot));
        let Some(Event::Call(entry, ret)) = due.map(|record| &record.event) else { return false };
        let waits = ended_child(entry, ret)
            .is_some_and(|child| living.lock().unwrap_or_else(PoisonError::into_inner).contains(&child));
        if waits {
            // Whether that one moves is looked at where it is followed.
            (self.waiting.moved, self.waiting.first_due) = (Instant::now(), None);
        }
        waits
    }

    /// Says whether all threads have ended.
    pub(crate) fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// Says whether the records ended before the process did.
    pub(crate) fn is_starved(&self) -> bool {
        self.kin.finished.is_none() && !self.ended && self.due.is_empty() && self.reader.is_finished()
    }

    pub(super) fn is_executing(&self) -> bool {
        self.threads.values().any(|thread| matches!(self.phase(thread), Phase::Makes(Making::Program)))
    }

    /// Makes a process where the leader has made one.
    pub(super) fn fork(&mut self, process: &Process, tid: Tid, call: Box<Call>) -> Result<()> {
        let mut regs = sys::get_regs(tid)?;
        regs::undo_entry(&mut regs, call.nr);
        let mut child_tid = None;
        match i64::from(call.nr) {
            libc::SYS_clone3 => {
                let len = (call.args[1] as usize).min(CLONE_ARGS);
                let mut args = [0; CLONE_ARGS / 8];
                for (at, word) in args.iter_mut().enumerate().take(len / 8) {
                    *word = process.memory.read_u64(call.args[0] + 8 * at as u64)?;
                }
                let [flags, _, child, _, signal, _, _, _, set_tid, set_tid_size, cgroup] = &mut args;
                if *flags & CLONE_CHILD_SETTID != 0 {
                    child_tid = Some(*child);
                }
                *flags = *flags & !(CLONE_PIDFD | CLONE_INTO_CGROUP) | CLONE_PARENT;
                // The parent's signal holds.
                (*signal, *set_tid, *set_tid_size, *cgroup) = (0, 0, 0, 0);
                let bytes: Vec<u8> = args.iter().flat_map(|word| word.to_ne_bytes()).collect();
                let place = self.scratch(process, tid);
                process.memory.write(place, &bytes)?;
                (regs.rdi, regs.rsi) = (place, call.args[1].min(CLONE_ARGS as u64));
            }
            libc::SYS_clone => {
                regs.rdi = call.args[0] & !CLONE_PIDFD | CLONE_PARENT;
                if call.args[0] & CLONE_CHILD_SETTID != 0 {
                    child_tid = Some(call.args[3]);
                }
            }
            nr => {
                let shared = if nr == libc::SYS_vfork { CLONE_VM | CLONE_VFORK } else { 0 };
                regs.rax = libc::SYS_clone as u64;
                regs.rdi = shared | CLONE_PARENT | libc::SIGCHLD as u64;
                (regs.rsi, regs.rdx, regs.r10, regs.r8) = (0, 0, 0, 0);
            }
        }
        sys::set_regs(tid, &regs)?;
        let forking = Forking { call, born: None, returned: Progress::UnderWay, child_tid };
        self.go(tid, Resume::Syscall, State::real(What::Process(Box::new(forking))))
    }

    /// Returns memory that nothing uses while the thread is stopped, room for a path.
    fn scratch(&self, process: &Process, tid: Tid) -> u64 {
        process.block(process.slot(tid).unwrap_or(Slot(0))) - 2 * PATH_MAX as u64
    }

    /// A thread that executes another program has gone to the leader's directory, or has executed it, or could not.
    pub(super) fn leave_program(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, ret: i64) -> Result<()> {
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        let slot = thread.slot;
        let State::Real(real) = &mut thread.state else { return Ok(()) };
        let What::Program(executing) = &mut real.what else { return Ok(()) };
        if executing.executed {
            let random = executing.random;
            program::begin(inbox, process, tid, Mode::Answer)?;
            program::share_secrets(process.pid, &process.memory, &random)?;
            self.state(tid, State::Running { local: None });
            self.hold(tid, 0, Why::Moved);
            return self.advance(process);
        }
        // Where it cannot go there a path from the root is executed all the same.
        if (ret == 0 || executing.path.starts_with('/'))
            && let Some(args) = executing.moving.take()
        {
            let mut regs = sys::get_regs(tid)?;
            regs::undo_entry(&mut regs, libc::SYS_execve as u32);
            [regs.rdi, regs.rsi, regs.rdx] = args;
            real.begin_again();
            sys::set_regs(tid, &regs)?;
            return sys::resume(tid, Resume::Syscall, 0);
        }
        if ret < 0 {
            let Executing { path, directory, .. } = &**executing;
            let what = if executing.moving.is_some() { "go to execute it to" } else { "be executed in" };
            let reason = format!("the follower's {path} could not {what} {directory}: {}", error(ret));
            self.fails(process, slot, reason);
            return Ok(());
        }
        sys::resume(tid, Resume::Syscall, 0)
    }

    pub(super) fn fails(&mut self, process: &Process, slot: Slot, reason: String) {
        let divergence = self.describe(slot, DivergenceKind::Gap { reason }, self.due.first_of(slot), None);
        self.diverge(process, divergence);
    }

    /// Hands the child of a thread to whoever drives the processes.
    pub(super) fn bear(&mut self, process: &Process, tid: Tid, stream: StreamId, twin: i32) -> Result<Applied> {
        let Some(Thread { state: State::Real(RealCall { what: What::Process(forking), .. }), .. }) =
            self.threads.get(&tid)
        else {
            return Ok(Applied::NotReady);
        };
        let Some(child) = forking.born else { return Ok(Applied::NotReady) };
        if let Some(living) = &self.kin.living {
            living.lock().unwrap_or_else(PoisonError::into_inner).insert(twin);
        }
        self.kin.births.push(Birth {
            child,
            twin: Pid(twin),
            stream,
            footprint: process.footprint.clone(),
            rings: process.rings.as_ref().map(Rings::area),
            registers: forking.registers(),
            child_tid: forking.child_tid,
            inherited: Inherited { registrations: self.known.registrations.clone(), copies: self.known.copies.clone() },
        });
        Ok(Applied::Done)
    }

    /// Replaces the program, as the leader has.
    pub(super) fn replace_program(
        &mut self,
        process: &Process,
        tid: Tid,
        call: &Call,
        executed: &Executed,
    ) -> Result<Applied> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (mut path, directory) = (text(&executed.path), text(&executed.directory));
        let image = executed.image.as_deref().map(in_memory).transpose();
        let image = image.map_err(|source| Error::Proc { path: path.clone(), source })?;
        if let Some(image) = &image {
            path = format!("/proc/{}/fd/{}", std::process::id(), image.as_raw_fd());
        }
        if executed.path.len() >= PATH_MAX || executed.directory.len() >= PATH_MAX {
            let kind =
                DivergenceKind::Gap { reason: format!("the path of the program is too long: {directory}/{path}") };
            let slot = process.slot(tid).unwrap_or(Slot(0));
            return Ok(Applied::Diverged(Box::new(self.describe(slot, kind, None, Some(call)))));
        }
        let place = self.scratch(process, tid);
        let below = place + PATH_MAX as u64;
        let given = if image.is_some() { path.as_bytes() } else { &executed.path[..] };
        process.memory.write(place, &[given, b"\0"].concat())?;
        process.memory.write(below, &[&executed.directory[..], b"\0"].concat())?;
        let mut regs = sys::get_regs(tid)?;
        let at = usize::from(i64::from(call.nr) == libc::SYS_execveat);
        let moving = Some([place, call.args[1 + at], call.args[2 + at]]);
        regs::undo_entry(&mut regs, libc::SYS_chdir as u32);
        regs.rdi = below;
        sys::set_regs(tid, &regs)?;
        let random = executed.random;
        let executing = Executing { path, directory, random, _image: image, moving, executed: false };
        self.go(tid, Resume::Syscall, State::real(What::Program(Box::new(executing))))?;
        Ok(Applied::Done)
    }

    /// The program was replaced: one thread is left, under the name of the process.
    pub(super) fn on_exec(&mut self, process: &mut Process, tid: Tid) -> Result<()> {
        let former = Tid(sys::event_message(tid)? as i32);
        self.count_told(process, former);
        let Some(mut thread) = self.threads.remove(&former).or_else(|| self.threads.remove(&tid)) else {
            return sys::resume(tid, Resume::Sysemu, 0);
        };
        if let State::Real(RealCall { what: What::Program(executing), .. }) = &mut thread.state {
            executing.executed = true;
        }
        process.become_single(tid, thread.slot);
        self.threads = BTreeMap::from([(tid, thread)]);
        self.kin.orphans.clear();
        self.known.own_files.clear();
        self.known.copies.clear();
        sys::resume(tid, Resume::Syscall, 0)
    }

    /// Another leads from here on.
    pub(super) fn follow_another(&mut self, new: &Succession) {
        self.known.registrations.succeed(&new.registrations);
    }

    /// The leader's process has ended, and this one has lived through all that it did: it ends too.
    pub(super) fn finish(&mut self, process: &Process, slot: Slot, ending: Ending, record: &Record) -> Result<Applied> {
        let fault = self.threads.values().find_map(|thread| {
            let State::Faulted(kind) = &thread.state else { return None };
            Some((thread.slot, (**kind).clone()))
        });
        if let Some((faulted, kind)) = fault {
            if !step::is_same_end(&kind, ending) {
                return Ok(Applied::Diverged(Box::new(self.describe(faulted, kind, Some(record), None))));
            }
        } else if let Ending::Killed(signo) = ending
            && synchronous(signo)
            && self.threads.values().any(|thread| thread.slot == slot && thread.is_on_its_way())
        {
            // It computes and comes upon the same fault, or upon something else.
            return Ok(Applied::NotReady);
        }
        self.kin.finished = Some(ending);
        self.ended = true;
        match sys::kill(process.pid, libc::SIGKILL) {
            Err(error) if !error.is_gone() => Err(error),
            _ => Ok(Applied::Done),
        }
    }
}

impl Thread {
    /// Says whether the thread will make a stop by itself.
    fn is_on_its_way(&self) -> bool {
        matches!(self.state, State::Running { local: None }) && !self.seat.is_held()
    }
}

/// Returns the child whose end a call has told of.
fn ended_child(entry: &CallEntry, ret: &CallReturn) -> Option<i32> {
    let word = |arg: u8, at: usize| {
        let piece = ret.outputs.iter().find(|piece| piece.arg == arg)?;
        Some(i32::from_ne_bytes(piece.bytes.get(at..at + 4)?.try_into().ok()?))
    };
    match i64::from(entry.nr) {
        libc::SYS_wait4 if ret.ret > 0 => {
            // Without a place for the status it is not told what has become of it; few ask for stops then.
            let ended = word(1, 0).is_none_or(|status| libc::WIFEXITED(status) || libc::WIFSIGNALED(status));
            ended.then_some(ret.ret as i32)
        }
        libc::SYS_waitid if ret.ret == 0 => {
            let ended = [libc::CLD_EXITED, libc::CLD_KILLED, libc::CLD_DUMPED].contains(&word(2, 8)?);
            word(2, 16).filter(|_| ended)
        }
        _ => None,
    }
}

fn synchronous(signo: i32) -> bool {
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP].contains(&signo)
}

pub(super) fn error(ret: i64) -> std::io::Error {
    std::io::Error::from_raw_os_error(-ret as i32)
}

/// Puts a program into a file in memory that can be executed: nobody has it open for writing.
fn in_memory(program: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("program", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(program)?;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
