//! The change of roles itself: the kernel's state moves, one store commits, leader and follower are exchanged.

use super::begin::reads_counter;
use super::*;
use crate::ptrace::ring::Mode;
use crate::replay::objects::Objects;

/// What the new leader takes over after the commit.
pub(super) struct Moved {
    old_tids: BTreeMap<Slot, Tid>,
    /// Epoll descriptor, watched descriptor, events, the new leader's value.
    epoll: Vec<(i32, i32, u32, u64)>,
    timers: Timers,
    record_locks: Vec<locks::RecordLock>,
    /// Epoll descriptor and the registration of what tells of signals.
    signal_watches: Vec<(i32, procfs::EpollEntry)>,
    /// Signals that waited for the old leader, unless it failed to give them away.
    pending: Option<Pending>,
    /// Under `--lockstep`: how many records the old version has agreed to.
    agreed: Option<Arc<AtomicU64>>,
}

/// Both versions right before the commit.
struct Ready {
    /// What the epoll sets call by different values in the two.
    registrations: Vec<(i32, i32, Pair)>,
    /// Threads had run beside each other while the old version led.
    raced: bool,
    /// See [`Moved::epoll`].
    epoll: Vec<(i32, i32, u32, u64)>,
    /// The threads of either version, at their gates.
    old: Vec<swap::Gated>,
    new: Vec<swap::Gated>,
}

fn by_slot(process: &Process) -> BTreeMap<Slot, Tid> {
    process.threads.iter().map(|(tid, slot)| (slot, tid)).collect()
}

pub(crate) fn any_thread(process: &Process) -> Result<(Tid, Slot)> {
    process.threads.first().ok_or_else(wrong_role)
}

/// Returns the registers of a held thread, rewound if it stands at the entry of a call, so that calls can be executed in it.
pub(crate) fn held_regs(tid: Tid) -> Result<sys::Regs> {
    let mut saved = sys::get_regs(tid)?;
    if let sys::SyscallStop::Entry { nr, .. } = sys::syscall_info(tid)? {
        regs::undo_entry(&mut saved, nr);
    }
    Ok(saved)
}

/// A timed call that was to go on as `restart_syscall` is made under its own number: nothing of it is left to restart.
fn show_original_call(thread: &swap::Gated) -> Result<()> {
    let Some(call) = thread.rewound else { return Ok(()) };
    let mut regs = sys::get_regs(thread.tid)?;
    if regs.rax as i64 == libc::SYS_restart_syscall {
        regs.rax = u64::from(call.nr);
        sys::set_regs(thread.tid, &regs)?;
    }
    Ok(())
}

/// Returns the registrations of the old leader that the new one calls by another value.
pub(crate) fn epoll_changes(old: Pid, registrations: &[(i32, i32, Pair)]) -> Result<Vec<(i32, i32, u32, u64)>> {
    let mut changes = Vec::new();
    for (epfd, fd, pair) in registrations {
        let entry =
            procfs::epoll_entries(old, *epfd)?.into_iter().find(|entry| entry.fd == *fd && entry.data == pair.leader);
        if let Some(entry) = entry {
            changes.push((*epfd, *fd, entry.events, pair.follower));
        }
    }
    Ok(changes)
}

/// Gives the new leader what only one process can have at a time.
fn furnish(inbox: &Inbox, process: &Process, gated: &[swap::Gated], moved: &Moved) -> Result<()> {
    swap::correct_epoll(inbox, process, &moved.epoll)?;
    let (tid, slot) = any_thread(process)?;
    let place = swap::scratch(process, slot);
    if !moved.timers.is_empty() || !moved.record_locks.is_empty() {
        let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
        locks::take(&moved.record_locks, &mut remote, &process.memory, place)?;
        moved.timers.start(&mut remote, &process.memory, place)?;
        remote.finish()?;
    }
    if !moved.signal_watches.is_empty() {
        let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
        bound::watch_anew(&moved.signal_watches, &moved.epoll, &mut remote, &process.memory, place)?;
        remote.finish()?;
    }
    match &moved.pending {
        Some(pending) if !pending.is_empty() => pending.queue(inbox, process, gated),
        _ => Ok(()),
    }
}

impl Running<'_> {
    /// Steps 2 to 4 of a promotion. An error leaves the leader as it was. What fails after the commit cannot be undone any
    /// more: the new version leads all the same, and [`Notice::Broken`] ends the session.
    pub(super) fn swap(&mut self) -> Result<u32> {
        let old = self.leader;
        state::check_movable(old)?;
        let copied = Arc::new(transfer::copy(old)?);
        bound::check(old, copied.iter())?;
        let count = copied.len() as u32;
        // What is read from the old leader.
        let (timers, old_tids) = self.lead.ask(|core| {
            let (inbox, process, _) = parts(core)?;
            let (tid, slot) = any_thread(process)?;
            let place = swap::scratch(process, slot);
            let saved = held_regs(tid)?;
            let mut remote = process.remote(inbox, tid, saved)?;
            let timers = Timers::read(process.pid, &mut remote, &process.memory, place)?;
            remote.finish()?;
            Ok((timers, by_slot(process)))
        })?;
        let record_locks = locks::of(old)?;
        let signal_watches = bound::signal_watches(old)?;
        let ready = match self.make_ready(old, Arc::clone(&copied), timers.clone(), old_tids.clone()) {
            Ok(ready) => ready,
            Err(error) => {
                self.empty_follower(timers);
                return Err(error);
            }
        };
        let lives_at = self.generation;
        let (writer, reader) = log::channel(log_config(self.options));
        let gauge = reader.gauge();
        // From here on the new version lives if we die.
        self.lead.ask(move |core| {
            let (_, process, _) = parts(core)?;
            swap::commit(process, lives_at + 1)
        })?;
        self.generation = lives_at + 1;
        let new_tids: BTreeMap<Slot, Tid> = ready.new.iter().map(|thread| (thread.slot, thread.tid)).collect();
        let twin = |thread: &swap::Gated| Some((thread.tid, *new_tids.get(&thread.slot)?));
        let twins: Twins = ready.old.iter().filter_map(twin).collect();
        bound::hand_over(copied.iter(), &twins);
        // A copy that is kept would keep connections open that the new leader closes.
        drop(copied);
        // Before it goes on: a thread that it makes has what its maker has.
        twins.iter().for_each(|(old, new)| scheduling::copy(*old, *new));
        let agreed = self.options.lockstep.then(|| Arc::new(AtomicU64::new(0)));
        let demoted = self.demote(
            ready.old,
            reader,
            (&ready.registrations, ready.raced),
            timers.clone(),
            new_tids,
            agreed.clone(),
        );
        // Whatever failed: nobody but the new version will lead.
        let (timers, pending, demoted) = match demoted {
            Ok((timers, pending)) => (timers, Some(pending), Ok(())),
            Err(error) => (timers, None, Err(error)),
        };
        let moved = Moved { old_tids, epoll: ready.epoll, timers, record_locks, signal_watches, pending, agreed };
        let elevated = self.elevate(ready.new, writer, moved);
        std::mem::swap(&mut self.lead, &mut self.follow);
        std::mem::swap(&mut self.leader, &mut self.follower);
        self.gauge = gauge;
        state::set_oom_score(self.leader, self.oom_score.as_deref().unwrap_or("0"));
        state::set_oom_score(self.follower, "1000");
        let started = demoted.and(elevated).and_then(|()| self.start_following());
        if let Err(error) = started {
            tracing::error!(%error, "the versions are exchanged, but not all of it went as it should");
            let _ = self.notice_sender.send(Notice::Broken { tid: Tid(0), error: error.to_string() });
        }
        Ok(count)
    }

    /// The old leader begins to follow; the new one serves already.
    fn start_following(&mut self) -> Result<()> {
        let objects = Objects::of_process(self.leader);
        self.follow.ask(|core| {
            with_following(core, |following, _, _| {
                following.know(objects);
                following.start()
            })
        })
    }

    /// Puts into the version that is to lead what it needs; it is isolated until the commit. Then both stand at their gates.
    fn make_ready(
        &mut self,
        old: Pid,
        copied: Arc<transfer::Copied>,
        timers: Timers,
        old_tids: BTreeMap<Slot, Tid>,
    ) -> Result<Ready> {
        let above = procfs::descriptors(old)?.last().map_or(0, |descriptor| descriptor.fd as u64 + 1);
        let (registrations, raced) = self.follow.ask(move |core| {
            let (inbox, process, role) = parts(core)?;
            let Role::Following(following) = role else { return Err(wrong_role()) };
            let (tid, slot) = any_thread(process)?;
            let place = swap::scratch(process, slot);
            let saved = held_regs(tid)?;
            let new_tids = by_slot(process);
            let mut remote = process.remote(inbox, tid, saved)?;
            transfer::give(&copied, process.pid, &mut remote, &process.memory, place)?;
            state::copy_surroundings(old, process.pid, &mut remote, &process.memory, place, above)?;
            state::copy_limits(old, process.pid, &mut remote, &process.memory, place)?;
            state::copy_memory_locks(old, &mut remote)?;
            timers.create(&mut remote, &process.memory, place, &old_tids, &new_tids)?;
            remote.finish()?;
            Ok((following.registrations().differing().collect::<Vec<_>>(), following.has_raced()))
        })?;
        let epoll = epoll_changes(old, &registrations)?;
        let lives_at = self.generation;
        let old = self.lead.ask(move |core| {
            let (_, process, role) = parts(core)?;
            let Role::Leading(leading) = role else { return Err(wrong_role()) };
            let threads = swap::rewind_held(&leading.held().0)?;
            swap::gate(process, &threads, lives_at)
        })?;
        let new = self.follow.ask(move |core| {
            let (_, process, role) = parts(core)?;
            let Role::Following(following) = role else { return Err(wrong_role()) };
            let threads = following.rewind_all()?;
            let gated = swap::gate(process, &threads, lives_at + 1)?;
            swap::set_options(&gated, sys::OPTIONS_LEADER)?;
            Ok(gated)
        })?;
        Ok(Ready { registrations, raced, epoll, old, new })
    }

    /// The old leader becomes a follower: isolated, ending with its tracer. Returns its timers and the signals that waited for it.
    fn demote(
        &mut self,
        gated: Vec<swap::Gated>,
        reader: log::Reader,
        (registrations, raced): (&[(i32, i32, Pair)], bool),
        mut timers: Timers,
        new_tids: BTreeMap<Slot, Tid>,
        agreed: Option<Arc<AtomicU64>>,
    ) -> Result<(Timers, Pending)> {
        let bell = self.lead.bell();
        reader.set_waker(Arc::new(move || bell.ring()));
        let (direction, silence) = match self.stage {
            Stage::Outdated => (Direction::UpdatedLeader, Silence::Fault),
            Stage::Updated => (Direction::OutdatedLeader, Silence::Accepted),
        };
        let settings = following::Settings {
            leaders: new_tids.clone(),
            objects: Objects::default(),
            hang_timeout: self.options.hang_timeout,
            silence,
            tally: Arc::clone(&self.tally),
            // The process that leads from now on keeps its tracer.
            agreement: agreed.map(|agreed| (agreed, self.follow.bell())),
            reconcile: reconcile(self.follower, self.options, self.recording.as_ref(), direction),
            pairing: Pairing::Threads,
            interleaving: self.options.interleaving,
            raced,
            unrecorded_clock: [self.leader, self.follower].into_iter().any(reads_counter),
        };
        let swapped: Vec<_> = registrations
            .iter()
            .map(|(epfd, fd, pair)| (*epfd, *fd, Pair { leader: pair.follower, follower: pair.leader }))
            .collect();
        self.lead.ask(move |core| {
            let notices = core.notices.clone();
            let (inbox, process, role) = parts(core)?;
            swap::set_options(&gated, sys::OPTIONS_FOLLOWER)?;
            swap::ungate(&gated)?;
            for thread in &gated {
                show_original_call(thread)?;
            }
            process.change_rings(Mode::Answer);
            let (tid, slot) = any_thread(process)?;
            let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
            timers.stop(&mut remote, &process.memory, swap::scratch(process, slot))?;
            remote.finish()?;
            let pending = Pending::take(inbox, process, &gated)?;
            let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
            timers.delete(&mut remote)?;
            remote.finish()?;
            swap::close_all(inbox, process)?;
            let new = |thread: &swap::Gated| new_tids.get(&thread.slot).copied();
            swap::replace_cached_tids(&process.memory, &gated, |thread| Some(thread.tid), new);
            let threads = gated.iter().map(|thread| (thread.tid, thread.slot, Standing::of(thread.rewound)));
            let mut following = Following::new(threads, reader, settings, notices);
            following.adopt_registrations(swapped);
            *role = Role::Following(Box::new(following));
            Ok((timers, pending))
        })
    }

    /// The new version leads: its threads go on for real, recorded; the old one's follow.
    fn elevate(&mut self, gated: Vec<swap::Gated>, writer: log::Writer, moved: Moved) -> Result<()> {
        let bell = self.follow.bell();
        writer.set_waker(Arc::new(move || bell.ring()));
        let pace = Arc::clone(&self.pace);
        let settings = leading::Settings {
            on_full: self.options.on_full,
            agreed: moved.agreed.clone(),
            pace,
            pairing: Pairing::Threads,
            interleaving: self.options.interleaving,
            on_crash: OnCrash::Hold,
            streams: None,
        };
        self.follow.ask(move |core| {
            let notices = core.notices.clone();
            let (inbox, process, role) = parts(core)?;
            swap::ungate(&gated)?;
            process.change_rings(Mode::Note);
            let old = |thread: &swap::Gated| moved.old_tids.get(&thread.slot).copied();
            swap::replace_cached_tids(&process.memory, &gated, old, |thread| Some(thread.tid));
            // Whatever fails here: this version leads, and nobody else will.
            let furnished = furnish(inbox, process, &gated, &moved);
            let threads = gated.iter().map(|thread| (thread.tid, thread.slot, thread.rewound));
            let mut leading = Leading::new(threads, &process.memory, Stream::new(writer), settings, notices);
            leading.start()?;
            *role = Role::Leading(Box::new(leading));
            furnished
        })
    }

    /// After a promotion that failed before its commit: the follower holds no descriptor and no timer.
    fn empty_follower(&mut self, timers: Timers) {
        let emptied = self.follow.ask(move |core| {
            let (inbox, process, _) = parts(core)?;
            let (tid, _) = any_thread(process)?;
            let saved = held_regs(tid)?;
            let mut remote = process.remote(inbox, tid, saved)?;
            remote.call("close_range", libc::SYS_close_range, [0, u64::from(u32::MAX), 0, 0, 0, 0])?;
            timers.take_back(&mut remote)?;
            remote.finish()
        });
        if let Err(error) = emptied {
            let _ = self.notice_sender.send(Notice::Broken { tid: Tid(0), error: error.to_string() });
        }
    }
}
