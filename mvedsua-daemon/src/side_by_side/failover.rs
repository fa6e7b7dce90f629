//! Failover: the leader crashes, and a follower goes on in its place.
//!
//! ```text
//!   leader          conductor              follower
//!   crashes, is held
//!     ── Crashed ────► ── TakeOver ────────► lives through all that is recorded, stands at the leader's calls
//!                                            gets descriptors, directory, limits; still isolated
//!                      ◄───────── Prepared ──
//!     ◄── Surrender ──
//!   is killed
//!     ── Surrendered ► ── Lead(stream) ────► goes on for real, recorded into the same stream
//! ```
//!
//! A follower that would end by the same fault (the same version, mostly) says so, and the next one is asked; when nobody is
//! left the leader ends by its signal, as it would have. The stream goes on where it was, so the other followers notice
//! nothing: numbers and slots stay, and a call whose entry they know already is made by the new leader.
//!
//! What moves, and how, is what moves at a promotion ([`crate::promote`]). There need be no instant at which both could live:
//! the old leader is dead when the new one makes its first call. Signals that waited for it, blocked or not, are looked at before it
//! is killed, and wait for the new one.
//!
//! A process is taken over when it is the only one that is left of the program: what parents and children know of each other,
//! by `wait`, by signals and by number, would be another process. So it is not while it has children, nor while one that has
//! ended is still to be waited for. Where a child crashes its parent hears of it as ever, and so does the follower's; where a
//! parent crashes it ends, and its children live on without it, as without us. A daemon that has left its parent is alone.

use std::collections::BTreeMap;

use crate::promote::pending::{Pending, Twins};
use crate::promote::timers::Timers;
use crate::promote::{bound, locks, scheduling, state, swap, transfer};
use crate::ptrace::ring::Mode;
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Pid, Result, Tid, procfs, regs, sys};
use crate::record::leading::{HeldThread, Leading};
use crate::record::stream::Stream;
use crate::record::{Slot, StreamId, Succession};
use crate::replay::following::Following;
use crate::tracee::process::Process;
use crate::update::session::roles::{any_thread, epoll_changes, held_regs};

/// A leader that is held before the signal that would end it.
#[derive(Clone, Debug)]
pub(super) struct Fallen {
    pub(super) pid: Pid,
    pub(super) signo: i32,
    /// The stream of the process, which its successor goes on with.
    pub(super) stream: StreamId,
    /// Where its threads stand.
    pub(super) held: Vec<HeldThread>,
    /// How many records a successor must have lived through.
    pub(super) target: u64,
    timers: Timers,
}

impl Fallen {
    /// Describes a leader all of whose threads are held.
    pub(super) fn describe(inbox: &Inbox, process: &Process, role: &Leading, signo: i32) -> Result<Fallen> {
        let (held, target) = role.held();
        let (tid, slot) = any_thread(process)?;
        let place = process.scratch(slot);
        let mut remote = process.remote(inbox, tid, held_regs(tid)?)?;
        let timers = Timers::read(process.pid, &mut remote, &process.memory, place)?;
        remote.finish()?;
        Ok(Fallen { pid: process.pid, signo, stream: role.stream_id(), held, target, timers })
    }
}

impl Fallen {
    fn tids(&self) -> BTreeMap<Slot, Tid> {
        self.held.iter().map(|held| (held.slot, held.tid)).collect()
    }
}

/// What a leader leaves behind.
#[derive(Debug)]
pub(super) struct Legacy {
    pub(super) stream: Stream,
    /// Signals that waited for it.
    pub(super) pending: Pending,
}

/// Ends a leader all of whose threads are held, in favour of another.
pub(super) fn end(process: &Process, role: &mut Leading) -> Result<Legacy> {
    let mut pending = Pending::look(role.held().0.iter().map(|held| (held.slot, held.tid)))?;
    role.postponed().for_each(|(slot, kept)| pending.add(slot, kept));
    let stream = role.surrender();
    sys::kill(process.pid, libc::SIGKILL)?;
    Ok(Legacy { stream, pending })
}

/// What a successor has got, and does once the old leader is gone.
#[derive(Debug)]
pub(super) struct Prepared {
    epoll: Vec<(i32, i32, u32, u64)>,
    record_locks: Vec<locks::RecordLock>,
    signal_watches: Vec<(i32, procfs::EpollEntry)>,
}

/// Moves the kernel's state into a follower that stands where the leader does. It stays isolated from the world: it does not run.
pub(super) fn prepare(inbox: &Inbox, process: &Process, role: &Following, fallen: &Fallen) -> Result<Prepared> {
    let old = fallen.pid;
    state::check_movable(old)?;
    let copied = transfer::copy(old)?;
    bound::check(old, copied.iter())?;
    let above = procfs::descriptors(old)?.last().map_or(0, |descriptor| descriptor.fd as u64 + 1);
    let (tid, slot) = any_thread(process)?;
    let place = process.scratch(slot);
    let mut remote = process.remote(inbox, tid, held_regs(tid)?)?;
    transfer::give(&copied, process.pid, &mut remote, &process.memory, place)?;
    state::copy_surroundings(old, process.pid, &mut remote, &process.memory, place, above)?;
    state::copy_limits(old, process.pid, &mut remote, &process.memory, place)?;
    state::copy_memory_locks(old, &mut remote)?;
    let new_tids: BTreeMap<Slot, Tid> = process.threads.iter().map(|(tid, slot)| (slot, tid)).collect();
    fallen.timers.create(&mut remote, &process.memory, place, &fallen.tids(), &new_tids)?;
    remote.finish()?;
    let twin = |held: &HeldThread| Some((held.tid, *new_tids.get(&held.slot)?));
    let twins: Twins = fallen.held.iter().filter_map(twin).collect();
    bound::hand_over(copied.iter(), &twins);
    twins.iter().for_each(|(old, new)| scheduling::copy(*old, *new));
    let registrations: Vec<_> = role.registrations().differing().collect();
    Ok(Prepared {
        epoll: epoll_changes(old, &registrations)?,
        record_locks: locks::of(old)?,
        signal_watches: bound::signal_watches(old)?,
    })
}

/// A thread that goes on: with its call, and whether the entry of that is in the stream.
pub(super) type Successor = (Tid, Slot, Option<regs::Rewound>, bool);

/// Makes a leader of a follower whose old leader is dead; returns its threads, and what the other followers must know.
pub(super) fn succeed(
    inbox: &Inbox,
    process: &mut Process,
    role: &mut Following,
    (fallen, prepared): (&Fallen, &Prepared),
    pending: &Pending,
) -> Result<(Vec<Successor>, Succession)> {
    let threads = role.rewind_all()?;
    let standing = swap::halted(&threads)?;
    swap::set_options(&standing, sys::OPTIONS_LEADER)?;
    process.change_rings(Mode::Note);
    let old_tids = fallen.tids();
    let new_tids: BTreeMap<Slot, Tid> = standing.iter().map(|thread| (thread.slot, thread.tid)).collect();
    let old = |thread: &swap::Halted| old_tids.get(&thread.slot).copied();
    swap::replace_cached_tids(&process.memory, &standing, old, |thread| Some(thread.tid));
    swap::correct_epoll(inbox, process, &prepared.epoll)?;
    if !fallen.timers.is_empty() || !prepared.record_locks.is_empty() {
        let (tid, slot) = any_thread(process)?;
        let place = process.scratch(slot);
        let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
        locks::take(&prepared.record_locks, &mut remote, &process.memory, place)?;
        fallen.timers.start(&mut remote, &process.memory, place)?;
        remote.finish()?;
    }
    if !prepared.signal_watches.is_empty() {
        let (tid, slot) = any_thread(process)?;
        let place = process.scratch(slot);
        let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
        bound::watch_anew(&prepared.signal_watches, &prepared.epoll, &mut remote, &process.memory, place)?;
        remote.finish()?;
    }
    if !pending.is_empty() {
        pending.queue(inbox, process, &standing)?;
    }
    let threads_named =
        fallen.held.iter().filter_map(|held| new_tids.get(&held.slot).map(|new| (held.slot, held.tid.0, new.0)));
    let registrations = role.registrations().differing();
    let succession = Succession {
        registrations: registrations.map(|(epfd, fd, pair)| (epfd, fd, pair.leader, pair.follower)).collect(),
        threads: threads_named.collect(),
    };
    let written = |slot: Slot| fallen.held.iter().any(|held| held.slot == slot && held.written);
    let threads = threads.into_iter().map(|(tid, slot, rewound)| (tid, slot, rewound, written(slot))).collect();
    Ok((threads, succession))
}
