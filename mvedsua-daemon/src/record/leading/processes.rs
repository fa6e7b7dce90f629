//! The leader's processes, where they are recorded too: children, other programs, the end.
//!
//! Each process has a stream of its own. The record of a `fork` names the child's; whoever drives the leader's processes
//! takes [`Birth`]s and records the children with a [`Leading`] each. An `execve` that succeeds is a record of its own,
//! behind its entry: the follower replaces its program when it knows that the leader has. The end of a process is the last
//! record of its stream, whether it ended by itself or by a signal.

use super::*;
use crate::ptrace::ring::Area;
use crate::record::{Ending, Executed, StreamId};
use crate::tracee::process::Footprint;
use crate::tracee::program::{self, secrets};
use crate::tracee::rings::Rings;

/// A child that was forked.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) child: Tid,
    /// What was changed in its parent, and so in it.
    pub(crate) footprint: Footprint,
    /// Where its parent's rings are, which are not the child's.
    pub(crate) rings: Option<Area>,
    /// Whether it works on its parent's memory.
    pub(crate) kind: Ghost,
    /// Its stream; given by whoever drives the processes, before the record of the birth is written.
    pub(crate) stream: Option<Stream>,
}

impl Birth {
    pub(super) fn of(process: &Process, child: Tid, kind: Ghost) -> Birth {
        let rings = process.rings.as_ref().map(Rings::area);
        Birth { child, footprint: process.footprint.clone(), rings, kind, stream: None }
    }
}

/// Opens a stream for a process.
pub(crate) trait Streams: std::fmt::Debug + Send + Sync {
    /// Returns the number of a new stream and its recorder's end. Those who follow can have the other ends from now on.
    fn open(&self) -> (StreamId, Stream);
}

/// What an `execve` would execute.
#[derive(Clone, Debug)]
pub(super) struct Target {
    path: Bytes,
    directory: Bytes,
}

impl Target {
    /// Looks at a call that is about to be made: the path as it is given, unless it is relative to a descriptor.
    pub(super) fn of(pid: Pid, entry: &CallEntry) -> Target {
        let at = i64::from(entry.nr) == libc::SYS_execveat;
        let path = entry.inputs.iter().find(|piece| piece.arg == u8::from(at)).map(|piece| piece.bytes.clone());
        let path = path.unwrap_or_default();
        let path = path.strip_suffix(b"\0").map_or_else(|| path.clone(), Bytes::copy_from_slice);
        let directory = linked(&format!("/proc/{pid}/cwd"));
        let path = match entry.args[0] as i32 {
            fd if at && fd != libc::AT_FDCWD && !path.starts_with(b"/") => {
                let mut whole = linked(&format!("/proc/{pid}/fd/{fd}")).to_vec();
                if !path.is_empty() {
                    whole.push(b'/');
                    whole.extend_from_slice(&path);
                }
                Bytes::from(whole)
            }
            _ => path,
        };
        Target { path, directory }
    }
}

/// Returns what a link of `/proc` points to; nothing where the process is gone.
fn linked(link: &str) -> Bytes {
    let target = std::fs::read_link(link).unwrap_or_default();
    Bytes::from(std::os::unix::ffi::OsStringExt::into_vec(target.into_os_string()))
}

impl Leading {
    /// Takes the children that were born since it was asked last.
    pub(crate) fn take_births(&mut self) -> Vec<Birth> {
        std::mem::take(&mut self.births)
    }

    /// Says whether a program is held before a signal that would end it. Where processes are paired, one that somebody else
    /// sends is meant: the program ends by its own faults, and by `abort(3)`.
    pub(super) fn is_held_at_crash(&self, tid: Tid, signo: i32) -> Result<bool> {
        if self.settings.on_crash == OnCrash::End || self.settings.pairing == Pairing::Threads {
            return Ok(self.settings.on_crash == OnCrash::Hold);
        }
        const SI_TKILL: i32 = -6;
        let info = sys::get_siginfo(tid)?;
        let code = i32::from_ne_bytes([info[8], info[9], info[10], info[11]]);
        Ok(code > 0 || signo == libc::SIGABRT && code == SI_TKILL)
    }

    /// Takes over a process whose threads are all rewound, and that goes on where another has stood. For each thread it is
    /// said whether the entry of its call is in the stream already.
    pub(crate) fn succeed(
        threads: impl IntoIterator<Item = (Tid, Slot, Option<Rewound>, bool)>,
        memory: &Memory,
        stream: Stream,
        settings: Settings,
        notices: Sender<Notice>,
    ) -> Leading {
        let threads: Vec<_> = threads.into_iter().collect();
        let all = threads.iter().map(|(tid, slot, rewound, _)| (*tid, *slot, *rewound));
        let mut leading = Leading::new(all, memory, stream, settings, notices);
        for (tid, _, _, in_stream) in threads {
            if let Some(Thread { state: State::Restarting { written, .. }, .. }) = leading.threads.get_mut(&tid) {
                *written = in_stream;
            }
        }
        leading
    }

    /// Lets the signal that the program is held before do what it does.
    pub(crate) fn let_die(&mut self, process: &mut Process) -> Result<()> {
        self.settings.on_crash = OnCrash::End;
        self.release_hold(process)
    }

    /// Returns the number of the process's stream.
    pub(crate) fn stream_id(&self) -> StreamId {
        self.stream.id()
    }

    /// Gives the stream away to whoever goes on in place of this process.
    pub(crate) fn surrender(&mut self) -> Stream {
        self.failed = true;
        std::mem::replace(&mut self.stream, Stream::branching([]))
    }

    /// Says whether the process has ended and everything of it is in the logs.
    pub(crate) fn is_over(&mut self) -> bool {
        self.threads.is_empty() && (self.failed || self.stream.is_written_out())
    }

    /// A log has no room, and the leader does not wait for any: its follower is given up.
    pub(super) fn give_up_full(&mut self) {
        let why = self.stream.full_because();
        let others = self.stream.abandon_full();
        self.notify(Notice::LogFull(why));
        if !others {
            self.failed = true;
            self.stream.close("the log is full".into());
        }
    }

    /// Writes the record of a birth, in the stream of the parent, once the child has a stream.
    pub(super) fn emit_birth(&mut self, process: &Process, parent: Tid, child: Tid) -> Result<()> {
        let (Some(streams), Some(slot)) = (&self.settings.streams, process.slot(parent)) else { return Ok(()) };
        if self.failed {
            return Ok(());
        }
        let (id, stream) = streams.open();
        if let Some(birth) = self.births.last_mut() {
            birth.stream = Some(stream);
        }
        self.stream.emit(slot, Event::ProcessStarted { stream: id, pid: child.0 });
        Ok(())
    }

    /// The program was replaced: one thread is left, under the name of the process.
    pub(super) fn on_exec(&mut self, process: &mut Process, tid: Tid) -> Result<()> {
        let former = Tid(sys::event_message(tid)? as i32);
        self.note_times(process, former);
        let Some(mut thread) = self.threads.remove(&former).or_else(|| self.threads.remove(&tid)) else {
            return self.go(tid, 0);
        };
        self.threads.clear();
        self.blocked.clear();
        self.awaiting.clear();
        self.serial = serial::Serial::new(self.settings.interleaving);
        self.mapped = mapped::MappedFiles::default();
        let slot = thread.slot;
        process.become_single(tid, slot);
        if !self.failed {
            let random = secrets(process.pid)?;
            if let Some(Target { path, directory }) = thread.program.take() {
                let image = image_in_memory(process.pid);
                self.stream.emit(slot, Event::Executed(Executed { path, directory, random, image }));
            }
        }
        thread.state = State::Executed;
        self.threads.insert(tid, thread);
        self.go(tid, 0)
    }

    /// The new program is about to execute its first instruction.
    pub(super) fn begin_program(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid) {
        if self.failed {
            return;
        }
        if let Err(error) = program::begin(inbox, process, tid, crate::ptrace::ring::Mode::Note) {
            let reason = error.to_string();
            self.fail(Notice::Refused { call: "execve".into(), reason: reason.clone() }, &reason);
        }
    }

    /// A thread ended, by itself where it has `left`, or with its process.
    pub(super) fn on_paired_end(&mut self, slot: Slot, left: bool, stop: Stop) {
        if !self.threads.is_empty() {
            // All others end by an exit of the whole, by a signal or because one executes another program; that is a record of
            // its own.
            if left && !self.failed {
                self.stream.emit(slot, Event::ThreadEnded);
            }
            return;
        }
        if !self.failed {
            let ending = match stop {
                Stop::Killed(signo) => Ending::Killed(signo),
                Stop::Exited(code) => Ending::Exited(code),
                Stop::Syscall | Stop::Signal(_) | Stop::Group(_) | Stop::Interrupted | Stop::Event(_) => return,
            };
            self.stream.emit(slot, Event::ProcessEnded(ending));
            self.stream.finish();
        }
        self.notify(Notice::LeaderEnded { status: stop.to_string() });
    }
}

/// Returns the program of a process, where that is a file in memory: no path leads to it.
fn image_in_memory(pid: Pid) -> Option<Bytes> {
    let exe = format!("/proc/{pid}/exe");
    if !linked(&exe).starts_with(b"/memfd:") {
        return None;
    }
    // What cannot be read the follower cannot execute, and says so.
    std::fs::read(exe).ok().map(Bytes::from)
}
