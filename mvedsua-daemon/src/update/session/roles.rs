//! The change of roles itself: the kernel's state moves, one store commits, leader and follower are exchanged.

use super::*;
use crate::ptrace::ring::Mode;

/// What the new leader takes over after the commit.
pub(super) struct Moved {
    old_tids: BTreeMap<Slot, Tid>,
    /// Epoll descriptor, watched descriptor, events, the new leader's value.
    epoll: Vec<(i32, i32, u32, u64)>,
    timers: Timers,
    record_locks: Vec<locks::RecordLock>,
    /// Epoll descriptor and the registration of what tells of signals.
    signal_watches: Vec<(i32, procfs::EpollEntry)>,
    /// Under `--lockstep`: how many records the old version has agreed to.
    agreed: Option<Arc<AtomicU64>>,
}

fn any_thread(process: &Process) -> Result<(Tid, Slot)> {
    process.threads.iter().next().map(|(tid, slot)| (*tid, *slot)).ok_or_else(wrong_role)
}

/// Returns the registers of a held thread, rewound if it stands at the entry of a call, so that calls can be executed in it.
fn held_regs(tid: Tid) -> Result<sys::Regs> {
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
fn epoll_changes(old: Pid, registrations: &[(i32, i32, Pair)]) -> Result<Vec<(i32, i32, u32, u64)>> {
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

impl Running<'_> {
    /// Steps 2 to 4 of a promotion. An error leaves the leader as it was.
    pub(super) fn swap(&mut self) -> Result<u32> {
        let old = self.leader;
        state::check_movable(old)?;
        let copied = Arc::new(transfer::copy(old)?);
        bound::check(old, copied.iter())?;
        let count = copied.len() as u32;
        let above = procfs::descriptors(old)?.last().map_or(0, |descriptor| descriptor.fd as u64 + 1);
        // What is read from the old leader.
        let timers = self.lead.ask(|core| {
            let (inbox, process, _) = parts(core)?;
            let (tid, slot) = any_thread(process)?;
            let place = swap::scratch(process, slot);
            let saved = held_regs(tid)?;
            let mut remote = process.remote(inbox, tid, saved)?;
            let timers = Timers::read(process.pid, &mut remote, &process.memory, place)?;
            remote.finish()?;
            Ok(timers)
        })?;
        // What is put into the new one. It is isolated until the commit.
        let given = Arc::clone(&copied);
        let registrations = self.follow.ask(move |core| {
            let (inbox, process, role) = parts(core)?;
            let Role::Following(following) = role else { return Err(wrong_role()) };
            let (tid, slot) = any_thread(process)?;
            let place = swap::scratch(process, slot);
            let saved = held_regs(tid)?;
            let mut remote = process.remote(inbox, tid, saved)?;
            transfer::give(&given, process.pid, &mut remote, &process.memory, place)?;
            state::copy_surroundings(old, process.pid, &mut remote, &process.memory, place, above)?;
            state::copy_limits(old, process.pid, &mut remote, &process.memory, place)?;
            state::copy_memory_locks(old, &mut remote)?;
            remote.finish()?;
            Ok(following.registrations().differing().collect::<Vec<_>>())
        });
        let registrations = match registrations {
            Ok(registrations) => registrations,
            Err(error) => {
                self.empty_follower();
                return Err(error);
            }
        };
        let epoll = epoll_changes(old, &registrations)?;
        let record_locks = locks::of(old)?;
        let signal_watches = bound::signal_watches(old)?;
        // The gates.
        let lives_at = self.generation;
        let old_gated = self.lead.ask(move |core| {
            let (_, process, role) = parts(core)?;
            let Role::Leading(leading) = role else { return Err(wrong_role()) };
            let threads = swap::rewind_held(&leading.held().0)?;
            swap::gate(process, &threads, lives_at)
        })?;
        let new_gated = self.follow.ask(move |core| {
            let (_, process, role) = parts(core)?;
            let Role::Following(following) = role else { return Err(wrong_role()) };
            let threads = following.rewind_all()?;
            let gated = swap::gate(process, &threads, lives_at + 1)?;
            swap::set_options(&gated, sys::OPTIONS_LEADER)?;
            Ok(gated)
        })?;
        let (writer, reader) = log::channel(log_config(self.options));
        let gauge = reader.gauge();
        // From here on the new version lives if we die.
        self.lead.ask(move |core| {
            let (_, process, _) = parts(core)?;
            swap::commit(process, lives_at + 1)
        })?;
        self.generation = lives_at + 1;
        let old_tids: BTreeMap<Slot, Tid> = old_gated.iter().map(|thread| (thread.slot, thread.tid)).collect();
        let new_tids: BTreeMap<Slot, Tid> = new_gated.iter().map(|thread| (thread.slot, thread.tid)).collect();
        let twin = |thread: &swap::Gated| Some((thread.tid, *new_tids.get(&thread.slot)?));
        let twins: Twins = old_gated.iter().filter_map(twin).collect();
        bound::hand_over(copied.iter(), &twins);
        // A copy that is kept would keep connections open that the new leader closes.
        drop(copied);
        twins.iter().for_each(|(old, new)| scheduling::copy(*old, *new));
        let agreed = self.options.lockstep.then(|| Arc::new(AtomicU64::new(0)));
        let (timers, pending) = self.demote(old_gated, reader, &registrations, timers, new_tids, agreed.clone())?;
        let moved = Moved { old_tids, epoll, timers, record_locks, signal_watches, agreed };
        self.elevate(new_gated, writer, moved, pending)?;
        std::mem::swap(&mut self.lead, &mut self.follow);
        std::mem::swap(&mut self.leader, &mut self.follower);
        self.gauge = gauge;
        state::set_oom_score(self.leader, self.oom_score.as_deref().unwrap_or("0"));
        state::set_oom_score(self.follower, "1000");
        Ok(count)
    }

    /// The old leader becomes a follower: isolated, ending with its tracer. Returns its timers and the signals that waited for it.
    fn demote(
        &mut self,
        gated: Vec<swap::Gated>,
        reader: log::Reader,
        registrations: &[(i32, i32, Pair)],
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
            hang_timeout: self.options.hang_timeout,
            silence,
            tally: Arc::clone(&self.tally),
            // The process that leads from now on keeps its tracer.
            agreement: agreed.map(|agreed| (agreed, self.follow.bell())),
            reconcile: reconcile(self.follower, self.options, self.recording.as_ref(), direction),
            pairing: Pairing::Threads,
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
            let threads = gated.iter().map(|thread| (thread.tid, thread.slot));
            let mut following = Following::new(threads, reader, settings, notices);
            following.adopt_registrations(swapped);
            *role = Role::Following(Box::new(following));
            Ok((timers, pending))
        })
    }

    /// The new version leads: its threads go on for real, recorded; the old one's follow.
    fn elevate(&mut self, gated: Vec<swap::Gated>, writer: log::Writer, moved: Moved, pending: Pending) -> Result<()> {
        let bell = self.follow.bell();
        writer.set_waker(Arc::new(move || bell.ring()));
        let pace = Arc::clone(&self.pace);
        let settings = leading::Settings {
            on_full: self.options.on_full,
            agreed: moved.agreed.clone(),
            pace,
            pairing: Pairing::Threads,
            streams: None,
        };
        self.follow.ask(move |core| {
            let notices = core.notices.clone();
            let (inbox, process, role) = parts(core)?;
            swap::ungate(&gated)?;
            process.change_rings(Mode::Note);
            let old = |thread: &swap::Gated| moved.old_tids.get(&thread.slot).copied();
            swap::replace_cached_tids(&process.memory, &gated, old, |thread| Some(thread.tid));
            swap::correct_epoll(inbox, process, &moved.epoll)?;
            let (tid, slot) = any_thread(process)?;
            if !moved.timers.is_empty() || !moved.record_locks.is_empty() {
                let new_tids = gated.iter().map(|thread| (thread.slot, thread.tid)).collect();
                let place = swap::scratch(process, slot);
                let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
                locks::take(&moved.record_locks, &mut remote, &process.memory, place)?;
                moved.timers.start(&mut remote, &process.memory, place, &moved.old_tids, &new_tids)?;
                remote.finish()?;
            }
            if !moved.signal_watches.is_empty() {
                let place = swap::scratch(process, slot);
                let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
                let (watches, corrected) = (&moved.signal_watches, &moved.epoll);
                bound::watch_anew(watches, corrected, &mut remote, &process.memory, place)?;
                remote.finish()?;
            }
            if !pending.is_empty() {
                pending.queue(inbox, process, &gated)?;
            }
            let threads = gated.iter().map(|thread| (thread.tid, thread.slot, thread.rewound));
            let leading = Leading::new(threads, &process.memory, Stream::new(writer), settings, notices);
            leading.start()?;
            *role = Role::Leading(Box::new(leading));
            Ok(())
        })?;
        self.lead.ask(|core| with_following(core, |following, _, _| following.start()))
    }

    /// After a transfer that failed half-way: the follower holds no descriptor.
    fn empty_follower(&mut self) {
        let emptied = self.follow.ask(|core| {
            let (inbox, process, _) = parts(core)?;
            let (tid, _) = any_thread(process)?;
            let saved = held_regs(tid)?;
            let mut remote = process.remote(inbox, tid, saved)?;
            remote.call("close_range", libc::SYS_close_range, [0, u64::from(u32::MAX), 0, 0, 0, 0])?;
            remote.finish()
        });
        if let Err(error) = emptied {
            let _ = self.notice_sender.send(Notice::Broken { tid: Tid(0), error: error.to_string() });
        }
    }
}
