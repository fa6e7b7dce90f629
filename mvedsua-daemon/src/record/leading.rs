//! The ptrace recorder: drives the leader's threads and turns their stops into records.
//!
//! Each thread stops at the entry and at the exit of every call. What is done there follows from the table:
//! nothing for `Local`, capturing of the inputs at the entry and of the outputs at the exit for the rest. A result that
//! says "interrupted" is believed only when a signal that the program handles is on its way; a signal that it ignores, and
//! our own stopping, must not be noticed by it: the call is rewound and made again.
//!
//! ```text
//!            entry                  exit
//!  Running ────────► InCall ──────────────────► Running
//!                      │  interrupted            ▲
//!                      ▼                         │ a handled signal
//!                  Interrupted ──────────────────┘
//!                      │ nothing that the program may notice
//!                      ▼          entry
//!                  Restarting ─────────► InCall
//! ```
//!
//! *Holding* stops each thread at the entry of its next ordered call, or rewound out of one that blocks, so that the
//! version can be changed there.

mod counter;
mod holding;
mod letting_in;
mod postponed;
pub(crate) mod processes;
mod serial;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crossbeam_channel::Sender;
use mvedsua_common::syscalls::{self, Class, Order, Pairing, Row, Treatment, regions};

pub(crate) use self::holding::{HeldAt, HeldThread, Hold};
pub(crate) use self::letting_in::lets_in;
use super::interleaving::Interleaving;
use super::pace::Pace;
use super::stream::Stream;
use super::{CallEntry, CallReturn, Delivery, Event, LeaderAddr, Nanos, Piece, PieceDir, Seq, SignalRecord, Slot};
use crate::ptrace::memory::Memory;
use crate::ptrace::procfs::{self, signal_bit};
use crate::ptrace::regs::{self, Rewound};
use crate::ptrace::ring::Answer;
use crate::ptrace::sys::{self, Resume, SyscallStop};
use crate::ptrace::tsc::{self, Reading};
use crate::ptrace::wait::{Inbox, Stop};
use crate::ptrace::{Pid, Result, Tid};
use crate::update::OnFull;
use crate::update::process::{self, Process, Rewinding};
use crate::update::session::Notice;

/// How the recorder is to behave.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) on_full: OnFull,
    /// Set under `--lockstep`: how many records the follower has agreed to.
    pub(crate) agreed: Option<Arc<AtomicU64>>,
    /// How much the program is held back.
    pub(crate) pace: Arc<Pace>,
    pub(crate) pairing: Pairing,
    pub(crate) interleaving: Interleaving,
    /// Whether a follower is there to go on when the program crashes.
    pub(crate) on_crash: OnCrash,
    /// Where the streams of children come from, under [`Pairing::Processes`].
    pub(crate) streams: Option<Arc<dyn processes::Streams>>,
}

/// What becomes of a program that comes upon a signal that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnCrash {
    /// It is held there, for a follower to take over.
    Hold,
    /// It ends.
    End,
}

/// A call between its entry and its exit.
#[derive(Clone, Debug)]
struct Call {
    treatment: Treatment,
    entry: CallEntry,
    notes: regions::Notes,
    /// Each version makes it for itself, but a signal may come with it.
    lets_in: bool,
}

impl Call {
    fn row(&self) -> Option<&'static Row> {
        self.treatment.row()
    }

    /// The place of the call in the total order; `None` for what each version does for itself.
    fn order(&self) -> Option<Order> {
        match self.treatment {
            Treatment::Row(_) if self.lets_in => Some(Order::ByExit),
            Treatment::Row(row) => row.class.order(),
            Treatment::ThreadClone(_)
            | Treatment::GhostFork(_)
            | Treatment::Fork(_)
            | Treatment::Exec(_)
            | Treatment::MmapFile(_) => Some(Order::ByEntry),
            Treatment::Alike(_) => Some(Order::ByExit),
            Treatment::Restart(_) | Treatment::Absent(_) | Treatment::Refuse(_) => None,
        }
    }
}

#[derive(Debug)]
enum State {
    Running,
    InCall(Box<Call>),
    Interrupted(Box<Call>, i64),
    /// Will enter the call again; `written` says that its entry is in the log already.
    Restarting {
        call: Box<Call>,
        written: bool,
    },
    Held {
        call: Option<Box<Call>>,
        at: HeldAt,
        written: bool,
    },
    /// About to return from an `execve` into another program.
    Executed,
}

#[derive(Debug)]
struct Thread {
    slot: Slot,
    state: State,
    /// It has not reported its first stop yet, at which it gets a ring.
    newborn: bool,
    /// At its last stop a signal was delivered, and these could be at once.
    deliverable: u64,
    /// What the `execve` that it is in will execute.
    program: Option<processes::Target>,
    /// Signals that it is given at its next call.
    postponed: VecDeque<postponed::Postponed>,
}

impl Thread {
    fn new(slot: Slot, state: State) -> Thread {
        Thread { slot, state, newborn: false, deliverable: 0, program: None, postponed: VecDeque::new() }
    }
}

/// The role of the process that serves.
#[derive(Debug)]
pub(crate) struct Leading {
    threads: BTreeMap<Tid, Thread>,
    stream: Stream,
    settings: Settings,
    notices: Sender<Notice>,
    holding: Option<Hold>,
    held_reported: bool,
    /// Threads that wait for room in the log, and the signal to go on with.
    blocked: Vec<(Tid, i32)>,
    /// Outputs that wait for the follower's agreement.
    awaiting: Vec<(Seq, Tid)>,
    /// First stops of threads whose birth was not reported yet.
    orphans: Vec<Tid>,
    /// Forked children on their way out of our hands; `true` for one that still shares the leader's memory.
    ghosts: Vec<(Tid, Ghost)>,
    /// Children that are to be recorded too and that nobody has taken over yet.
    births: Vec<processes::Birth>,
    serial: serial::Serial,
    failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ghost {
    OwnMemory,
    SharedMemory,
}

pub(crate) fn now() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Reads the memory that a call's row names as input.
pub(crate) fn capture_inputs(row: &Row, args: &[u64; 6], memory: &Memory) -> Vec<Piece> {
    let mut pieces = Vec::new();
    regions::inputs(row, args, memory, &mut |region| pieces.push(piece(memory, PieceDir::In, region)));
    pieces
}

fn piece(memory: &Memory, dir: PieceDir, region: regions::Region) -> Piece {
    let mut bytes = vec![0; region.len as usize];
    let got = memory.read_some(region.addr, &mut bytes);
    bytes.truncate(got);
    Piece { arg: region.arg, part: region.part, dir, addr: LeaderAddr(region.addr), bytes: Bytes::from(bytes) }
}

/// The contents of a file's mapping, from which the follower makes a private copy. It ends where the file does.
fn mapped(memory: &Memory, addr: u64, len: u64) -> Piece {
    let mut bytes = vec![0; len as usize];
    let got = memory.read_some(addr, &mut bytes);
    bytes.truncate(got);
    Piece { arg: 0, part: 0, dir: PieceDir::Out, addr: LeaderAddr(addr), bytes: Bytes::from(bytes) }
}

/// Returns the record of an answer that the agent noted.
fn time_told(answer: &Answer) -> Event {
    let (nr, clock, place) = answer.call();
    let args = [clock.unwrap_or(0), 0, 0, 0, 0, 0];
    let bytes = Bytes::copy_from_slice(&answer.time);
    let told = Piece { arg: place as u8, part: 0, dir: PieceDir::Out, addr: LeaderAddr(0), bytes };
    let at = now();
    Event::Call(CallEntry { nr, args, inputs: Vec::new(), at }, CallReturn { ret: answer.ret, outputs: vec![told], at })
}

/// Returns the record of an instruction that read the processor's clock.
fn counter_read(nr: u32, reading: Reading) -> Event {
    let at = now();
    let aux = Bytes::copy_from_slice(&reading.aux.to_ne_bytes());
    let told = Piece { arg: 0, part: 0, dir: PieceDir::Out, addr: LeaderAddr(0), bytes: aux };
    let ret = CallReturn { ret: reading.stamp as i64, outputs: vec![told], at };
    Event::Call(CallEntry { nr, args: [0; 6], inputs: Vec::new(), at }, ret)
}

/// Says whether a call sends signals, perhaps to its own thread.
fn sends_signals(nr: u32) -> bool {
    [libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo]
        .contains(&i64::from(nr))
}

/// See [`regs::interrupt_again`].
fn interrupt_again(tid: Tid, call: &Call) -> Result<bool> {
    let mut regs = sys::get_regs(tid)?;
    if regs::interrupt_again(&mut regs, call.entry.nr).is_none() {
        return Ok(false);
    }
    sys::set_regs(tid, &regs)?;
    Ok(true)
}

/// Signals whose default action is a crash; a follower may take over from them.
fn is_crash(signo: i32) -> bool {
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGSYS, libc::SIGTRAP]
        .contains(&signo)
}

impl Leading {
    /// Takes over a process whose threads are all parked. A rewound thread's call is named, since a timed one goes on
    /// under another number.
    pub(crate) fn new(
        threads: impl IntoIterator<Item = (Tid, Slot, Option<Rewound>)>,
        memory: &Memory,
        stream: Stream,
        settings: Settings,
        notices: Sender<Notice>,
    ) -> Leading {
        let threads: Vec<_> = threads.into_iter().collect();
        let names: Vec<i32> = threads.iter().map(|(tid, ..)| tid.0).collect();
        let threads = threads
            .into_iter()
            .map(|(tid, slot, rewound)| {
                let state = match rewound {
                    Some(call) => {
                        let call = begin(&settings, call.nr, call.args, memory, |tid| names.contains(&tid));
                        State::Restarting { call: Box::new(call), written: false }
                    }
                    None => State::Running,
                };
                let thread = Thread::new(slot, state);
                (tid, thread)
            })
            .collect();
        Leading {
            threads,
            stream,
            notices,
            holding: None,
            held_reported: false,
            blocked: Vec::new(),
            awaiting: Vec::new(),
            orphans: Vec::new(),
            ghosts: Vec::new(),
            births: Vec::new(),
            serial: serial::Serial::new(settings.interleaving),
            settings,
            failed: false,
        }
    }

    /// Returns how many records were agreed to, where outputs wait for that.
    fn agreed(&self) -> Option<u64> {
        let one = self.settings.agreed.as_ref().map(|agreed| agreed.load(Ordering::Acquire));
        one.or_else(|| self.stream.agreed())
    }

    fn notify(&self, notice: Notice) {
        // The session outlives its tracer threads; if it is gone all the same nobody wants to know.
        let _ = self.notices.send(notice);
    }

    /// Ends the recording with a reason; the leader goes on.
    fn fail(&mut self, notice: Notice, reason: &str) {
        if !self.failed {
            self.failed = true;
            self.stream.close(reason.to_owned());
            self.notify(notice);
        }
    }

    /// Lets a thread go on, unless the log has no room.
    fn go(&mut self, tid: Tid, signo: i32) -> Result<()> {
        if self.stream.is_stuck() {
            match self.settings.on_full {
                // A record that is larger than the log would be waited for for ever.
                OnFull::Block if !self.stream.is_hopeless() => {
                    self.blocked.push((tid, signo));
                    return Ok(());
                }
                _ if self.settings.pairing == Pairing::Processes => self.give_up_full(),
                _ => self.fail(Notice::LogFull, "the log is full"),
            }
        }
        sys::resume(tid, Resume::Syscall, signo)
    }

    pub(crate) fn on_bell(&mut self, inbox: &Inbox, process: &mut Process) -> Result<()> {
        self.look_again(process)?;
        self.look_for_overdue(inbox, process)
    }

    /// Lets those go on who have waited for something that may be there now.
    fn look_again(&mut self, process: &mut Process) -> Result<()> {
        self.send_postponed();
        if !self.blocked.is_empty() {
            self.stream.retry();
            if !self.stream.is_stuck() || self.stream.is_hopeless() {
                for (tid, signo) in std::mem::take(&mut self.blocked) {
                    self.go(tid, signo)?;
                }
            }
        }
        if let Some(agreed) = self.agreed()
            && self.holding.is_none()
        {
            let (done, still): (Vec<_>, Vec<_>) =
                self.awaiting.drain(..).partition(|(seq, _)| seq.0 < agreed || self.failed);
            self.awaiting = still;
            for (_, tid) in done {
                self.go(tid, 0)?;
            }
        }
        if self.holding.is_some() && !self.held_reported {
            self.interrupt_calls()?;
        }
        self.report_held(process);
        Ok(())
    }

    pub(crate) fn on_stop(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, stop: Stop) -> Result<()> {
        if self.settings.pairing == Pairing::Processes && stop == Stop::Event(libc::PTRACE_EVENT_EXEC) {
            return self.on_exec(process, tid);
        }
        if !self.threads.contains_key(&tid) {
            return self.on_stranger(process, tid, stop);
        }
        if !self.has_to_wait(tid, stop)? {
            self.handle(inbox, process, tid, stop)?;
        }
        self.pass_turn(inbox, process, Some(tid))
    }

    /// Deals with the stop of a thread that may go on.
    fn handle(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, stop: Stop) -> Result<()> {
        self.note_times(process, tid);
        if !matches!(stop, Stop::Signal(_))
            && let Some(thread) = self.threads.get_mut(&tid)
        {
            thread.deliverable = 0;
        }
        match stop {
            Stop::Syscall => match sys::syscall_info(tid)? {
                SyscallStop::Entry { nr, args } => self.on_entry(process, tid, nr, args),
                SyscallStop::Exit { ret } => self.on_exit(inbox, process, tid, ret),
                SyscallStop::Undone | SyscallStop::Neither => self.go(tid, 0),
                SyscallStop::Foreign => {
                    self.fail(
                        Notice::Refused { call: "a 32-bit call".into(), reason: "only 64-bit calls are known".into() },
                        "",
                    );
                    self.go(tid, 0)
                }
            },
            Stop::Signal(signo) => self.on_signal(process, tid, signo),
            Stop::Group(_) => sys::resume(tid, Resume::Listen, 0),
            // The thread is new, a group stop ended, or it had left its call before it was interrupted.
            Stop::Interrupted => {
                if self.threads.get(&tid).is_some_and(|thread| thread.newborn) {
                    if self.newborn_has_to_wait(tid) {
                        return Ok(());
                    }
                    self.threads.entry(tid).and_modify(|thread| thread.newborn = false);
                    process.give_ring(tid)?;
                } else if self.holding == Some(Hold::Anywhere) && self.hold_stuck(tid) {
                    self.report_held(process);
                    return Ok(());
                }
                self.go(tid, 0)
            }
            Stop::Event(event) => self.on_event(process, tid, event),
            Stop::Exited(_) | Stop::Killed(_) => {
                self.on_end(process, tid, stop);
                Ok(())
            }
        }
    }

    /// A stop of a thread that is not ours yet: newborn, or a forked child.
    fn on_stranger(&mut self, process: &mut Process, tid: Tid, stop: Stop) -> Result<()> {
        if stop.is_end() {
            self.orphans.retain(|orphan| *orphan != tid);
            self.ghosts.retain(|(ghost, _)| *ghost != tid);
            return Ok(());
        }
        match self.ghosts.iter().find(|(ghost, _)| *ghost == tid) {
            Some((_, kind)) => {
                let kind = *kind;
                self.ghosts.retain(|(ghost, _)| *ghost != tid);
                let_ghost_go(process, tid, kind)
            }
            None => {
                self.orphans.push(tid);
                Ok(())
            }
        }
    }

    /// Records what a thread was told of the time since its last stop.
    fn note_times(&mut self, process: &Process, tid: Tid) {
        let (Some(ring), Some(slot)) = (process.ring(tid), process.slot(tid)) else { return };
        for answer in ring.take_noted() {
            if !self.failed {
                self.stream.emit(slot, time_told(&answer));
            }
        }
    }

    fn on_entry(&mut self, process: &mut Process, tid: Tid, nr: u32, args: [u64; 6]) -> Result<()> {
        if process.ring(tid).is_some_and(|ring| ring.is_asking()) {
            // The original function makes the call for the agent, which notes the answer.
            return self.go(tid, 0);
        }
        self.no_signal_came(process, tid);
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        let slot = thread.slot;
        if self.give_postponed(process, tid, nr, &args)? {
            return Ok(());
        }
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        let restart = i64::from(nr) == libc::SYS_restart_syscall;
        let (mut call, written) = match std::mem::replace(&mut thread.state, State::Running) {
            State::Restarting { call, written: true } if restart || call.entry.nr == nr => (call, true),
            State::Restarting { call, .. } if restart => {
                (Box::new(self.begin(call.entry.nr, call.entry.args, &process.memory)), false)
            }
            _ => (Box::new(self.begin(nr, args, &process.memory)), false),
        };
        call.lets_in = lets_in(self.settings.pairing, tid, nr, &args, &process.memory)?;
        if let Treatment::Refuse(reason) = call.treatment {
            let name = syscalls::name(nr).map_or_else(|| format!("system call {nr}"), str::to_owned);
            self.fail(Notice::Refused { call: name, reason: reason.to_owned() }, reason);
        }
        match call.treatment {
            // The kernel answers a number that it does not know with ENOSYS.
            Treatment::Absent(_) => sys::set_number(tid, -1)?,
            Treatment::Exec(_) => {
                if let Some(thread) = self.threads.get_mut(&tid) {
                    thread.program = Some(processes::Target::of(process.pid, &call.entry));
                }
            }
            _ => {}
        }
        if self.holding.is_some() && call.order().is_some() && !call.lets_in {
            thread_state(&mut self.threads, tid, State::Held { call: Some(call), at: HeldAt::Entry, written });
            self.report_held(process);
            return Ok(());
        }
        let output = call.order() == Some(Order::ByEntry) && !written && !self.failed;
        if output {
            self.stream.enter(slot, call.entry.clone());
        }
        let lockstep =
            self.agreed().is_some() && matches!(call.treatment, Treatment::Row(row) if row.class == Class::Compare);
        thread_state(&mut self.threads, tid, State::InCall(call));
        if self.awaiting.iter().any(|(_, awaiting)| *awaiting == tid) {
            // Here again, after it was held.
            return Ok(());
        }
        if output
            && lockstep
            && let Some(seq) = self.stream.flush()
        {
            self.awaiting.push((seq, tid));
            return Ok(());
        }
        self.go(tid, 0)
    }

    fn on_exit(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, ret: i64) -> Result<()> {
        self.hand_over_blocked(tid)?;
        let signals = match self.threads.get(&tid).map(|thread| &thread.state) {
            Some(State::InCall(call)) => self.looks_for_signals(tid, call)?,
            _ => false,
        };
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        let slot = thread.slot;
        match std::mem::replace(&mut thread.state, State::Running) {
            State::InCall(call) if call.lets_in => {
                if sys::has_open_signal(tid)? && process::has_caught_signal(process.pid, tid)? {
                    thread_state(&mut self.threads, tid, State::Interrupted(call, ret));
                } else {
                    self.finish(process, tid, &call, ret);
                }
            }
            State::InCall(call) if regs::is_interrupted(ret) => match process::rewind(process.pid, tid)? {
                Rewinding::Rewound(rewound) => {
                    self.restart(tid, slot, call);
                    if self.holding.is_some() {
                        self.hold_rewound(process, tid, rewound);
                        return Ok(());
                    }
                }
                Rewinding::SignalComes | Rewinding::NotInCall => {
                    thread_state(&mut self.threads, tid, State::Interrupted(call, ret));
                }
            },
            // It may have signalled itself: then the handler runs before the program sees the result.
            State::InCall(call) if signals && process::has_caught_signal(process.pid, tid)? => {
                thread_state(&mut self.threads, tid, State::Interrupted(call, ret));
            }
            State::InCall(call) => {
                self.stop_at_reads(process, &call, ret)?;
                self.finish(process, tid, &call, ret);
            }
            State::Executed => self.begin_program(inbox, process, tid),
            // The exit of an entry that was undone.
            other => thread.state = other,
        }
        self.go(tid, 0)
    }

    /// Records the end of a call.
    fn finish(&mut self, process: &Process, tid: Tid, call: &Call, ret: i64) {
        let (Some(row), Some(order), Some(slot)) = (call.row(), call.order(), process.slot(tid)) else { return };
        if self.failed {
            return;
        }
        let mut outputs = Vec::new();
        let after = regions::After::Executed(&call.notes);
        regions::outputs(row, &call.entry.args, ret, after, &process.memory, &mut |region| {
            outputs.push(piece(&process.memory, PieceDir::Out, region));
        });
        if let Treatment::MmapFile(_) = call.treatment
            && ret > 0
        {
            outputs.push(mapped(&process.memory, ret as u64, call.entry.args[1]));
        }
        let ret = CallReturn { ret, outputs, at: now() };
        match order {
            Order::ByEntry => self.stream.leave(slot, ret),
            Order::ByExit => self.stream.emit(slot, Event::Call(call.entry.clone(), ret)),
        }
        if self.holding.is_none() {
            self.settings.pace.keep();
        }
    }

    fn on_signal(&mut self, process: &mut Process, tid: Tid, signo: i32) -> Result<()> {
        let Some(slot) = process.slot(tid) else { return Ok(()) };
        if let Some(nr) = tsc::trapped(tid, signo, &process.memory)? {
            return self.read_counter(slot, tid, nr);
        }
        let caught = procfs::signals(process.pid, tid)?.caught & signal_bit(signo) != 0;
        if caught && signo != libc::SIGBUS && sys::is_fault(signo, &sys::get_siginfo(tid)?) {
            // Its own business: the other version has faults of its own, at other places perhaps. Not so behind the end of a
            // mapped file, of which the follower has a copy that does not end with it.
            process.make_room_for_signal(tid)?;
            return self.go(tid, signo);
        }
        if caught && self.postpone(tid, signo)? {
            return self.go(tid, 0);
        }
        let state = match self.threads.get_mut(&tid) {
            Some(thread) => std::mem::replace(&mut thread.state, State::Running),
            None => return Ok(()),
        };
        if !caught && is_crash(signo) && !self.failed && self.is_held_at_crash(tid, signo)? {
            if self.settings.pairing == Pairing::Processes {
                // A call by which it sends itself the signal is none that a successor has to make.
                self.stream.take_back(slot);
            }
            thread_state(&mut self.threads, tid, State::Held { call: None, at: HeldAt::Crash(signo), written: false });
            self.notify(Notice::LeaderCrashed { slot, signo });
            return Ok(());
        }
        match state {
            State::Interrupted(call, ret) if caught => {
                // The signal stands before the return, so that the follower knows of it when it is answered.
                let delivery = if call.order().is_some() { Delivery::AtReturn } else { Delivery::InOwnCall };
                self.record_signal(process, (tid, slot), signo, delivery)?;
                self.finish(process, tid, &call, ret);
            }
            // One that the program does not notice came first.
            State::Interrupted(call, ret) if call.lets_in && process::has_caught_signal(process.pid, tid)? => {
                thread_state(&mut self.threads, tid, State::Interrupted(call, ret));
            }
            State::Interrupted(call, ret) if call.lets_in || !regs::is_interrupted(ret) => {
                self.finish(process, tid, &call, ret);
            }
            // It has not gone on with the call that we rewound: the signal interrupts that call, as it would without us.
            State::Restarting { call, written } if caught && interrupt_again(tid, &call)? => {
                if call.order() == Some(Order::ByEntry) && !written && !self.failed {
                    self.stream.enter(slot, call.entry.clone());
                }
                let delivery = if call.order().is_some() { Delivery::AtReturn } else { Delivery::InOwnCall };
                self.record_signal(process, (tid, slot), signo, delivery)?;
                self.finish(process, tid, &call, regs::ERESTART_RESTARTBLOCK);
            }
            State::Interrupted(call, ret) => {
                if ret == regs::EINTR {
                    let mut regs = sys::get_regs(tid)?;
                    regs::rewind(&mut regs, regs::Eintr::Ours);
                    sys::set_regs(tid, &regs)?;
                }
                self.restart(tid, slot, call);
            }
            other => {
                if caught {
                    let at_once = self.threads.get(&tid).is_some_and(|t| t.deliverable & signal_bit(signo) != 0);
                    let delivery = if at_once { Delivery::AtOnce } else { Delivery::BeforeNextCall };
                    self.record_signal(process, (tid, slot), signo, delivery)?;
                }
                thread_state(&mut self.threads, tid, other);
            }
        }
        if caught {
            process.make_room_for_signal(tid)?;
        }
        self.go(tid, signo)
    }

    /// Reads the processor's clock for a thread that may not do so itself.
    fn read_counter(&mut self, slot: Slot, tid: Tid, nr: u32) -> Result<()> {
        let reading = tsc::read();
        let mut regs = sys::get_regs(tid)?;
        tsc::execute(&mut regs, nr, reading);
        sys::set_regs(tid, &regs)?;
        if !self.failed {
            self.stream.emit(slot, counter_read(nr, reading));
        }
        self.go(tid, 0)
    }

    fn record_signal(
        &mut self,
        process: &Process,
        (tid, slot): (Tid, Slot),
        signo: i32,
        delivery: Delivery,
    ) -> Result<()> {
        let siginfo = Bytes::copy_from_slice(&sys::get_siginfo(tid)?);
        let deliverable = letting_in::deliverable(process, tid)?;
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.deliverable = deliverable;
        }
        if !self.failed {
            let more = deliverable != 0;
            self.stream.emit(slot, Event::Signal(SignalRecord { delivery, signo, more, siginfo }));
        }
        Ok(())
    }

    /// A thread was to be given a signal, and comes to a call without it: another thread was given it.
    fn no_signal_came(&mut self, process: &Process, tid: Tid) {
        let Some(thread) = self.threads.get_mut(&tid).filter(|thread| matches!(thread.state, State::Interrupted(..)))
        else {
            return;
        };
        let slot = thread.slot;
        if let State::Interrupted(call, ret) = std::mem::replace(&mut thread.state, State::Running) {
            // A call that lets signals in was left as the kernel ended it.
            if regs::is_interrupted(ret) && !(call.lets_in && ret == regs::EINTR) {
                self.restart(tid, slot, call);
            } else {
                self.finish(process, tid, &call, ret);
            }
        }
    }

    fn restart(&mut self, tid: Tid, slot: Slot, call: Box<Call>) {
        let written = call.order() == Some(Order::ByEntry) && !self.stream.take_back(slot);
        thread_state(&mut self.threads, tid, State::Restarting { call, written });
    }

    fn on_event(&mut self, process: &mut Process, tid: Tid, event: i32) -> Result<()> {
        match event {
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                let child = Tid(sys::event_message(tid)? as i32);
                self.on_birth(process, tid, child)?;
            }
            libc::PTRACE_EVENT_EXEC => {
                let reason = "the target replaced its program";
                self.fail(Notice::Refused { call: "execve".into(), reason: reason.into() }, reason);
            }
            _ => {}
        }
        self.go(tid, 0)
    }

    fn on_birth(&mut self, process: &mut Process, parent: Tid, child: Tid) -> Result<()> {
        let here = self.orphans.contains(&child);
        self.orphans.retain(|orphan| *orphan != child);
        let (thread_born, shares_memory) = match self.threads.get(&parent).map(|thread| &thread.state) {
            Some(State::InCall(call)) => {
                let args = call.entry.args;
                let flags = match i64::from(call.entry.nr) {
                    libc::SYS_clone => args[0],
                    libc::SYS_clone3 => process.memory.read_u64(args[0])?,
                    libc::SYS_vfork => (libc::CLONE_VM | libc::CLONE_VFORK) as u64,
                    _ => 0,
                };
                (matches!(call.treatment, Treatment::ThreadClone(_)), flags & libc::CLONE_VM as u64 != 0)
            }
            _ => (false, false),
        };
        if thread_born {
            let slot = process.new_slot(child);
            self.threads.insert(child, Thread { newborn: true, ..Thread::new(slot, State::Running) });
            if let Some(parent) = process.slot(parent)
                && !self.failed
            {
                self.stream.emit(parent, Event::ThreadStarted { child: slot, tid: child.0 });
            }
            if here && !self.newborn_has_to_wait(child) {
                self.threads.entry(child).and_modify(|thread| thread.newborn = false);
                process.give_ring(child)?;
                self.go(child, 0)?;
            }
            return Ok(());
        }
        if self.settings.pairing == Pairing::Processes {
            self.births.push(processes::Birth::of(process, child));
            return self.emit_birth(process, parent, child);
        }
        let kind = if shares_memory { Ghost::SharedMemory } else { Ghost::OwnMemory };
        if here {
            return let_ghost_go(process, child, kind);
        }
        self.ghosts.push((child, kind));
        Ok(())
    }

    fn on_end(&mut self, process: &mut Process, tid: Tid, stop: Stop) {
        let Some(slot) = process.slot(tid) else { return };
        let thread = self.threads.remove(&tid);
        process.forget(tid);
        if self.settings.pairing == Pairing::Processes {
            return self.on_paired_end(slot, thread, stop);
        }
        if tid == process.pid.main() || self.threads.is_empty() {
            self.fail(Notice::LeaderEnded { status: stop.to_string() }, "the leader ended");
        } else if !self.failed {
            self.stream.emit(slot, Event::ThreadEnded);
        }
        self.report_held(process);
    }

    /// Stops recording for good; whatever waits goes on. The threads can be parked and released afterwards.
    pub(crate) fn stop(&mut self, process: &mut Process, reason: &str) -> Result<()> {
        self.failed = true;
        self.stream.close(reason.to_owned());
        for (_, tid) in std::mem::take(&mut self.awaiting) {
            sys::resume(tid, Resume::Syscall, 0)?;
        }
        for (tid, signo) in std::mem::take(&mut self.blocked) {
            sys::resume(tid, Resume::Syscall, signo)?;
        }
        self.send_all_postponed();
        self.end_turns()?;
        self.release_hold(process)
    }

    fn begin(&self, nr: u32, args: [u64; 6], memory: &Memory) -> Call {
        begin(&self.settings, nr, args, memory, |tid| self.threads.contains_key(&Tid(tid)))
    }
}

fn thread_state(threads: &mut BTreeMap<Tid, Thread>, tid: Tid, state: State) {
    if let Some(thread) = threads.get_mut(&tid) {
        thread.state = state;
    }
}

fn begin(settings: &Settings, nr: u32, args: [u64; 6], memory: &Memory, is_thread: impl Fn(i32) -> bool) -> Call {
    let treatment = match settings.interleaving.ordered(settings.pairing, nr, &args, is_thread) {
        Some((row, _)) => Treatment::Row(row),
        None => syscalls::treatment_of(settings.pairing, nr, &args, memory),
    };
    let mut call = Call {
        treatment,
        entry: CallEntry { nr, args, inputs: Vec::new(), at: now() },
        notes: regions::Notes::default(),
        lets_in: false,
    };
    if let (Some(row), Some(_)) = (call.row(), call.order()) {
        call.entry.inputs = capture_inputs(row, &args, memory);
        call.notes = regions::notes(row, &args, memory);
    }
    call
}

/// Detaches from a forked child, which runs unobserved, with its vDSO as it should be.
fn let_ghost_go(process: &Process, tid: Tid, kind: Ghost) -> Result<()> {
    if kind == Ghost::OwnMemory {
        let memory = Memory::open(Pid(tid.0))?;
        process.footprint.vdso.restore(&memory)?;
        if let Some(agent) = &process.footprint.vdso.agent {
            agent.remove(&memory)?;
        }
        process.footprint.stub.remove(&memory)?;
    }
    if let Some(rings) = &process.rings {
        // The parent's ring is not its own, whether it still sees it or not.
        let mut regs = sys::get_regs(tid)?;
        rings.take_from(&mut regs);
        sys::set_regs(tid, &regs)?;
    }
    sys::detach(tid, 0)
}
