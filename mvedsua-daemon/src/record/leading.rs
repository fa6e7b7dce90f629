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
//! This file keeps what is known; [`stops`] is what is done where a thread has stopped, [`serial`] gives the threads their turns.
//!
//! *Holding* stops each thread at the entry of its next ordered call, or rewound out of one that blocks, so that the
//! version can be changed there.

mod bulk;
mod counter;
pub(crate) mod holding;
mod letting_in;
mod limits;
mod mapped;
mod postponed;
pub(crate) mod processes;
mod serial;
mod stops;
mod thread;
mod toll;
mod unread;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crossbeam_channel::Sender;
use mvedsua_common::syscalls::{self, Class, Order, Pairing, Row, Treatment, regions};

pub(crate) use self::bulk::{Bulk, CALM};
pub(crate) use self::holding::{HeldAt, HeldThread, Hold};
pub(crate) use self::letting_in::lets_in;
use self::thread::{Call, Fault, State, Thread};
use super::interleaving::Interleaving;
use super::pace::Pace;
use super::stream::Stream;
use super::{CallEntry, CallReturn, Delivery, Event, Gap, LeaderAddr, Nanos, Piece, PieceDir, Seq, SignalRecord, Slot};
use crate::ptrace::extents;
use crate::ptrace::memory::Memory;
use crate::ptrace::procfs::{self, signal_bit};
use crate::ptrace::regs::{self, Rewound};
use crate::ptrace::ring::Answer;
use crate::ptrace::sys::{self, Resume, SyscallStop};
use crate::ptrace::tsc::{self, Reading, Trapped};
use crate::ptrace::wait::{Inbox, Stop};
use crate::ptrace::{Pid, Result, Tid};
use crate::tracee::ghosts::{Ghost, stands};
use crate::tracee::process::{self, Process, Rewinding};
use crate::update::OnFull;
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
    /// Children that are to be recorded too and that nobody has taken over yet.
    births: Vec<processes::Birth>,
    mapped: mapped::MappedFiles,
    serial: serial::Serial,
    unread: unread::Unread,
    bulk: bulk::Bulk,
    /// The process may end: the follower does the same, or nobody is there to go on in its place.
    may_end: bool,
    failed: bool,
}

pub(crate) fn now() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Bytes of memory that one call may be recorded with.
const MOST_CAPTURED: usize = 1 << 31;
/// How much is read at once: a program may name far more than it has, so memory is taken for what is there only.
const CAPTURED_AT_ONCE: usize = 1 << 20;
const TOO_MUCH: &str = "it moves more memory at once than can be recorded (2 GiB)";

/// The memory of one call, read piece by piece.
struct Capture<'a, M: ?Sized = Memory> {
    memory: &'a M,
    dir: PieceDir,
    pieces: Vec<Piece>,
    /// Bytes that may still be read.
    left: usize,
    /// It is more than can be recorded; what was read is not all.
    cut: bool,
}

impl<'a, M: regions::Memory + ?Sized> Capture<'a, M> {
    fn new(memory: &'a M, dir: PieceDir) -> Capture<'a, M> {
        Capture { memory, dir, pieces: Vec::new(), left: MOST_CAPTURED, cut: false }
    }

    fn piece(&mut self, region: regions::Region) {
        let bytes = self.read(region.addr, region.len);
        let (arg, part, dir) = (region.arg, region.part, self.dir);
        self.pieces.push(Piece { arg, part, dir, addr: LeaderAddr(region.addr), bytes });
    }

    /// The contents of a file's mapping, from which the follower makes a private copy: a piece for each part of it that the file
    /// has, one behind the other, and nothing for the holes between them. It ends where the file does.
    fn mapped(&mut self, file: &Path, offset: u64, (addr, len): (u64, u64), replaced: &Trapped) {
        if let Err(error) = self.mapped_from(file, offset, (addr, len), replaced) {
            tracing::debug!(file = %file.display(), %error, "what is mapped is read where it is mapped");
            self.pieces.clear();
            self.left = MOST_CAPTURED;
            let bytes = self.read(addr, len);
            self.pieces.push(Piece { arg: 0, part: 0, dir: self.dir, addr: LeaderAddr(addr), bytes });
        }
    }

    /// The same from the file itself, which is faster than from where it is mapped: nothing need be mapped for that. What was
    /// replaced there is replaced here too.
    fn mapped_from(
        &mut self,
        file: &Path,
        offset: u64,
        (addr, len): (u64, u64),
        replaced: &Trapped,
    ) -> std::io::Result<()> {
        let known = std::fs::metadata(file)?;
        // Of a file that the kernel makes up nobody knows how long it is.
        if !known.is_file() || known.len() <= offset {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        let file = std::fs::File::open(file)?;
        let parts = extents::of(&file, offset..offset.saturating_add(len))?;
        for (part, range) in parts.into_iter().enumerate() {
            let part = u16::try_from(part).map_err(|_| std::io::ErrorKind::Unsupported)?;
            let size = range.end - range.start;
            if size > self.left as u64 {
                self.cut = true;
                return Ok(());
            }
            let (mut bytes, at) = (Vec::new(), addr + (range.start - offset));
            extents::read(&file, range, &mut bytes)?;
            replaced.replace_in(at, &mut bytes);
            self.left -= bytes.len();
            self.pieces.push(Piece { arg: 0, part, dir: self.dir, addr: LeaderAddr(at), bytes: Bytes::from(bytes) });
        }
        Ok(())
    }

    /// Reads what is there; at most one byte more than may be recorded, so that it equals nothing that was recorded.
    fn read(&mut self, addr: u64, len: u64) -> Bytes {
        let wanted = usize::try_from(len).unwrap_or(usize::MAX);
        let most = wanted.min(self.left.saturating_add(1));
        let mut bytes = vec![0; most.min(CAPTURED_AT_ONCE)];
        let mut got = self.memory.read(addr, &mut bytes);
        while got == bytes.len() && got < most {
            let more = CAPTURED_AT_ONCE.min(most - got);
            if bytes.try_reserve(more).is_err() {
                self.cut = true;
                break;
            }
            bytes.resize(got + more, 0);
            got += self.memory.read(addr.wrapping_add(got as u64), &mut bytes[got..]);
        }
        bytes.truncate(got);
        if got > CAPTURED_AT_ONCE {
            bytes.shrink_to_fit();
        }
        self.cut |= got > self.left;
        self.left = self.left.saturating_sub(got);
        Bytes::from(bytes)
    }
}

fn captured_inputs<'a, M>(row: &Row, args: &[u64; 6], memory: &'a M) -> Capture<'a, M>
where
    M: regions::Memory + ?Sized,
{
    let mut capture = Capture::new(memory, PieceDir::In);
    regions::inputs(row, args, memory, &mut |region| capture.piece(region));
    capture
}

/// Reads the memory that a call's row names as input. Of what is more than any record holds only a part is returned,
/// which is more than a record holds, too.
pub(crate) fn capture_inputs(row: &Row, args: &[u64; 6], memory: &Memory) -> Vec<Piece> {
    captured_inputs(row, args, memory).pieces
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

/// What is said of a call of the leader that ends the recording.
pub(crate) fn refusal(call: &str, reason: &str) -> String {
    format!("the leader called {call}, which cannot be followed: {reason}")
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
            births: Vec::new(),
            mapped: match settings.pairing {
                Pairing::Processes => mapped::MappedFiles::of(memory.pid()),
                Pairing::Threads => mapped::MappedFiles::default(),
            },
            serial: serial::Serial::new(settings.interleaving),
            unread: unread::Unread::default(),
            bulk: bulk::Bulk::none(),
            settings,
            may_end: false,
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
            if let Notice::Refused { call, reason } = &notice
                && self.settings.pairing == Pairing::Processes
            {
                // A recording says it too.
                self.stream.emit(Slot(0), Event::Gap(Gap { reason: refusal(call, reason) }));
            }
            self.stream.close(reason.to_owned());
            self.notify(notice);
        }
    }

    /// Lets a thread go on, unless the log has no room or the follower is far behind.
    fn go(&mut self, tid: Tid, signo: i32) -> Result<()> {
        if self.waits_for_follower() {
            self.blocked.push((tid, signo));
            return Ok(());
        }
        if self.stream.is_stuck() {
            match self.settings.on_full {
                // A record that is larger than the log would be waited for for ever.
                OnFull::Block if !self.stream.is_hopeless() => {
                    self.blocked.push((tid, signo));
                    return Ok(());
                }
                OnFull::Rollback | OnFull::Block if self.settings.pairing == Pairing::Processes => self.give_up_full(),
                OnFull::Rollback | OnFull::Block => {
                    self.fail(Notice::LogFull(self.stream.full_because()), "the log is full");
                }
            }
        }
        if self.settings.pairing == Pairing::Threads && !self.failed && self.stream.is_deserted() {
            // At the end of a session nobody listens to this; before it the follower's thread has gone.
            let error = "nobody reads the records any more".to_owned();
            self.fail(Notice::Broken { tid, error }, "nobody reads it any more");
        }
        sys::resume(tid, Resume::Syscall, signo)
    }

    pub(crate) fn on_bell(&mut self, inbox: &Inbox, process: &mut Process) -> Result<()> {
        self.take_observed(process)?;
        self.look_again(process)?;
        self.end_overdue_calls()?;
        self.look_for_overdue(inbox, process)?;
        self.note_place_of_all();
        Ok(())
    }

    /// Lets those go on who have waited for something that may be there now.
    fn look_again(&mut self, process: &mut Process) -> Result<()> {
        self.send_postponed(process);
        if !self.blocked.is_empty() {
            self.stream.retry();
            if (!self.stream.is_stuck() || self.stream.is_hopeless()) && !self.waits_for_follower() {
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

    /// Nobody follows: nothing is recorded.
    pub(crate) fn record_no_more(&mut self, reason: &str) {
        self.failed = true;
        self.stream.close(reason.to_owned());
    }

    /// Stops recording for good; whatever waits goes on. The threads can be parked and released afterwards.
    pub(crate) fn stop(&mut self, process: &mut Process, reason: &str) -> Result<()> {
        self.record_no_more(reason);
        self.end_bulk();
        for (_, tid) in std::mem::take(&mut self.awaiting) {
            sys::resume(tid, Resume::Syscall, 0)?;
        }
        for (tid, signo) in std::mem::take(&mut self.blocked) {
            sys::resume(tid, Resume::Syscall, signo)?;
        }
        self.send_all_postponed();
        self.end_turns(process)?;
        self.release_hold(process)
    }

    fn begin<M: regions::Memory + ?Sized>(&self, nr: u32, args: [u64; 6], memory: &M) -> Call {
        begin(&self.settings, nr, args, memory, |tid| self.threads.contains_key(&Tid(tid)))
    }
}

fn thread_state(threads: &mut BTreeMap<Tid, Thread>, tid: Tid, state: State) {
    if let Some(thread) = threads.get_mut(&tid) {
        thread.state = state;
    }
}

fn begin<M>(settings: &Settings, nr: u32, args: [u64; 6], memory: &M, is_thread: impl Fn(i32) -> bool) -> Call
where
    M: regions::Memory + ?Sized,
{
    let treatment = match settings.interleaving.ordered(settings.pairing, nr, &args, is_thread) {
        Some((row, _)) => Treatment::Row(row),
        None => syscalls::treatment_of(settings.pairing, nr, &args, memory),
    };
    let mut call = Call {
        treatment,
        entry: CallEntry { nr, args, inputs: Vec::new(), at: now() },
        notes: regions::Notes::default(),
        lets_in: false,
        limit: None,
        given: None,
    };
    if let (Some(row), Some(_)) = (call.row(), call.order()) {
        let capture = captured_inputs(row, &args, memory);
        if capture.cut {
            call.treatment = Treatment::Refuse(TOO_MUCH);
        } else {
            call.entry.inputs = capture.pieces;
        }
        call.notes = regions::notes(row, &args, memory);
    }
    call
}
