//! Records: the only thing that recorder, log and replayer know of each other.
//!
//! A recorder turns what the leader does into a stream of [`Record`]s in one total order; the log holds the stream; a
//! replayer makes the follower live through it. The order is causal: a call that the world can see takes its place when
//! it is *entered* (before its effect), a call that takes something from the world when it *returns* (after the effect
//! that it saw). So a record never stands before the one that made it possible.
//!
//! An output whose result is not there yet when another thread's record is due is written as two entries,
//! [`Event::Enter`] and later [`Event::Return`]; in the common case both collapse into one [`Event::Call`].
#![warn(clippy::wildcard_enum_match_arm)]

pub(crate) mod agreement;
pub(crate) mod bulk;
pub mod interleaving;
pub(crate) mod leading;
pub(crate) mod pace;
pub mod sight;
pub(crate) mod stream;
pub mod toll;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use crate::tracee::Slot;

/// Numbers the records of one log, from 0, without holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

/// An address in the leader's memory; it means nothing in the follower's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaderAddr(pub u64);

/// An address in the follower's memory; it means nothing in the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FollowerAddr(pub u64);

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nanos(pub u64);

/// Says whether the kernel read or wrote a captured piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PieceDir {
    In,
    Out,
}

/// The argument of a piece that hangs on none: what a call has changed where its file is mapped.
pub const IN_MAPPING: u8 = 6;

/// Memory that belongs to a call: the bytes of one region as `mvedsua_common::syscalls` resolved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Index of the argument that the region hangs on.
    pub arg: u8,
    /// Index of the region within the argument (an iovec's buffers are one region each, a `msghdr` has several).
    pub part: u16,
    pub dir: PieceDir,
    pub addr: LeaderAddr,
    /// What stood there; shorter than the region when its tail is not mapped.
    pub bytes: Bytes,
}

/// A call as it was entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEntry {
    /// The x86-64 system-call number.
    pub nr: u32,
    pub args: [u64; 6],
    /// Pieces with [`PieceDir::In`].
    pub inputs: Vec<Piece>,
    pub at: Nanos,
}

/// How a call returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallReturn {
    /// The raw result register: a value, a negated errno, or one of the kernel's internal `-ERESTART…` codes when a
    /// signal whose record follows interrupted the call.
    pub ret: i64,
    /// Pieces with [`PieceDir::Out`].
    pub outputs: Vec<Piece>,
    pub at: Nanos,
}

/// At which boundary a signal was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Delivery {
    /// On the return from a call, before the program saw its result. The record stands *before* that of the call's return.
    AtReturn,
    /// While the thread was in a call that each version makes for itself.
    InOwnCall,
    /// Right after the signal before it: its handler interrupts that one's at its first instruction.
    AtOnce,
    /// In user code; the slot's next call is the first boundary after it.
    BeforeNextCall,
}

/// A signal that was delivered to a handler (or is about to end the process).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalRecord {
    pub delivery: Delivery,
    /// The raw signal number; `nix`'s enum lacks the real-time ones.
    pub signo: i32,
    /// Others waited for the thread when this one was delivered: one of them may be delivered [at once](Delivery::AtOnce).
    pub more: bool,
    /// The `siginfo_t` as the kernel reported it, 128 bytes.
    pub siginfo: Bytes,
}

/// Numbers the streams of one run: each process of the leader has one, the first has 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub u32);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ending {
    Exited(i32),
    Killed(i32),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Exited(code) => write!(f, "exited with code {code}"),
            Ending::Killed(signo) => write!(f, "killed by signal {signo}"),
        }
    }
}

/// Why the stream has a hole: a gap voids the comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// What was lost and why, for the operator.
    pub reason: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A whole call.
    Call(CallEntry, CallReturn),
    /// An output was entered and has not returned yet.
    Enter(CallEntry),
    /// The output that this slot entered last has returned.
    Return(CallReturn),
    /// A signal for the slot's thread.
    Signal(SignalRecord),
    /// The slot's current call (a `clone`) gave birth to a thread.
    ThreadStarted { child: Slot, tid: i32 },
    /// The slot's thread ended.
    ThreadEnded,
    /// The slot's thread, which was born or began its part between two calls, goes on.
    Resumed,
    /// The slot's thread computes for long, and others go on beside it.
    Overdue,
    /// Something was lost.
    Gap(Gap),
    /// The slot's current call (a `fork`) gave birth to a process, which has a stream of its own.
    ProcessStarted { stream: StreamId, pid: i32 },
    /// The slot's current call (an `execve`) has replaced the program; of the other threads nothing is left.
    Executed(Executed),
    /// The process has ended, with all its threads; nothing follows.
    ProcessEnded(Ending),
    /// The leader has crashed, and what follows is another version's that goes on in its process.
    Succession(Succession),
}

impl Event {
    /// Returns the call that was made, and what it returned where it has: nothing for what is no call, or a return alone.
    #[must_use]
    pub fn call(&self) -> Option<(&CallEntry, Option<&CallReturn>)> {
        match self {
            Event::Call(entry, ret) => Some((entry, Some(ret))),
            Event::Enter(entry) => Some((entry, None)),
            Event::Return(_)
            | Event::Signal(_)
            | Event::ThreadStarted { .. }
            | Event::ThreadEnded
            | Event::Resumed
            | Event::Overdue
            | Event::Gap(_)
            | Event::ProcessStarted { .. }
            | Event::Executed(_)
            | Event::ProcessEnded(_)
            | Event::Succession(_) => None,
        }
    }
}

/// What is different about a new leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// What it has registered with its epoll sets where the old one had registered something else: epoll descriptor, watched
    /// descriptor, the old value, the new one.
    pub registrations: Vec<(i32, i32, u64, u64)>,
}

/// A program that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    /// The path as the program gave it, without a NUL; from the root where it was relative to a descriptor.
    pub path: Bytes,
    /// The leader's working directory at that time, from the root. A script is passed on to its interpreter by the path that the
    /// program gave, so the follower must execute it from there.
    pub directory: Bytes,
    /// What the kernel gave the new program for its secrets (`AT_RANDOM`, 16 bytes).
    pub random: [u8; 16],
    /// The program itself, where it was executed from a file in memory.
    pub image: Option<Bytes>,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub seq: Seq,
    pub slot: Slot,
    pub event: Event,
}

impl Record {
    /// Returns roughly how many bytes of memory the record takes, for the log's budget.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let pieces = |ps: &[Piece]| ps.iter().map(|p| size_of::<Piece>() + p.bytes.len()).sum::<usize>();
        size_of::<Record>()
            + match &self.event {
                Event::Call(entry, ret) => pieces(&entry.inputs) + pieces(&ret.outputs),
                Event::Enter(entry) => pieces(&entry.inputs),
                Event::Return(ret) => pieces(&ret.outputs),
                Event::Signal(signal) => signal.siginfo.len(),
                Event::Gap(gap) => gap.reason.len(),
                Event::Executed(executed) => {
                    let image = executed.image.as_ref().map_or(0, Bytes::len);
                    executed.path.len() + executed.directory.len() + image
                }
                Event::Succession(new) => size_of_val(&*new.registrations),
                Event::ThreadStarted { .. }
                | Event::ThreadEnded
                | Event::Resumed
                | Event::Overdue
                | Event::ProcessStarted { .. }
                | Event::ProcessEnded(_) => 0,
            }
    }
}
