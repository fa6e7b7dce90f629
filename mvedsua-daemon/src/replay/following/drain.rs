//! Bringing the follower to where the leader is held, for a change of roles.

use super::*;
use crate::matcher::readiness::{self, Held, Nudge, Readiness, Stand};
use crate::matcher::schedule;

impl Following {
    /// Asks to be told whether a thread comes upon a fault as its twin has: [`Message::FaultShared`] or [`Message::FaultAlone`].
    pub(crate) fn watch(&mut self, process: &mut Process, slot: Slot) -> Result<()> {
        self.watched = Some(slot);
        self.advance(process)
    }

    pub(super) fn check_watched(&mut self, process: &Process) {
        let Some(slot) = self.watched.filter(|_| !self.ended) else { return };
        let thread = process.tid(slot).and_then(|tid| self.threads.get(&tid));
        let nothing_due = self.due.first_of(slot).is_none() && self.reader.backlog() == 0;
        let message = match thread {
            Some(thread) if thread.fault.is_some() || matches!(thread.state, State::Faulted(_)) => Message::FaultShared,
            Some(Thread { state: State::AtCall(_), .. }) if nothing_due => Message::FaultAlone,
            Some(_) => return,
            None => Message::FaultShared,
        };
        self.watched = None;
        self.notify(message);
    }

    /// Asks to be told when the follower has lived through `target` records and every thread stands where its twin is held.
    pub(crate) fn drain(&mut self, process: &mut Process, target: u64, held: Vec<HeldThread>) -> Result<()> {
        self.drain = Some(Drain { target, held, reported: false, interrupted: BTreeSet::new() });
        self.advance(process)
    }

    pub(super) fn check_drained(&mut self, process: &mut Process) -> Result<()> {
        let Some(target) = self.drain.as_ref().map(|drain| drain.target) else { return Ok(()) };
        self.pass_over_times(target);
        if self.decide_with_what_is_there(target) {
            return self.advance(process);
        }
        let Some(mut drain) = self.drain.take() else { return Ok(()) };
        if drain.reported || self.behind() < drain.target || !self.due.is_empty() || self.is_undecided() {
            self.drain = Some(drain);
            return Ok(());
        }
        if drain.held.iter().any(|held| self.falls_like(process, held)) {
            self.notify(Message::Faulted);
            self.drain = Some(Drain { reported: true, ..drain });
            return Ok(());
        }
        // Whoever is on its way to a stop is looked at there, and all of them once instead of each time that one stops.
        let on_their_way = !drain.interrupted.is_empty() || self.threads.values().any(Thread::is_busy);
        if on_their_way && self.waiting.moved.elapsed() < schedule::LONG {
            self.drain = Some(drain);
            return Ok(());
        }
        let mut ready = true;
        let (mut nudged, mut differing) = (Vec::new(), Vec::new());
        for held in &drain.held {
            let found = process.tid(held.slot).and_then(|tid| Some((tid, self.threads.get(&tid)?)));
            let Some((tid, thread)) = found else {
                ready = false;
                continue;
            };
            match self.readiness_of(thread, held) {
                Readiness::Ready => {}
                Readiness::Wait => ready = false,
                Readiness::Nudge(nudge) => {
                    ready = false;
                    nudged.push((tid, nudge));
                }
                Readiness::Differs(kind) => {
                    ready = false;
                    differing.push((tid, held.slot, kind));
                }
            }
        }
        for (tid, nudge) in nudged {
            self.nudge(process, tid, nudge, &mut drain.interrupted)?;
        }
        let mut diverged = None;
        for (tid, slot, kind) in differing {
            // A call of its own that a rule allows is answered first.
            if let Some(call) = self.call_of(tid)
                && !self.lets_in_at_rest(slot, &call)
            {
                diverged = Some((slot, kind, call));
            }
        }
        if let Some((slot, kind, call)) = diverged {
            let divergence = self.describe(slot, kind, None, Some(&call));
            self.diverge(process, divergence);
        }
        if ready && !self.ended {
            self.take_agent_out(process)?;
            self.notify(Message::Drained);
        }
        self.drain = Some(Drain { reported: ready, ..drain });
        Ok(())
    }

    fn readiness_of(&self, thread: &Thread, held: &HeldThread) -> Readiness {
        let held = Held { call: held.call.as_ref(), local: held.local, written: held.written };
        let stand = Stand { counting: thread.counting, parted: self.parted.is_some(), orders: self.orders() };
        readiness::readiness(held, self.phase(thread), stand)
    }

    /// Does what a thread needs to come to where its twin is held.
    fn nudge(&mut self, process: &Process, tid: Tid, nudge: Nudge, interrupted: &mut BTreeSet<Tid>) -> Result<()> {
        let Some(call) = self.call_of(tid) else {
            if nudge == Nudge::Interrupt && interrupted.insert(tid) {
                sys::interrupt(tid)?;
                self.disturb(tid);
            }
            return Ok(());
        };
        match nudge {
            Nudge::Count => self.begin_counting(tid, &call).map(|_| ()),
            Nudge::Time => self.improvise(process, tid, &call).map(|_| ()),
            Nudge::Order => self.answer_alone(tid),
            // It has come to a call.
            Nudge::Interrupt => Ok(()),
        }
    }

    /// The follower stands still with all but the leader's last questions for the time behind it: the leader asked once more,
    /// or the follower was told before the leader was. No later record of their threads takes these away.
    pub(super) fn pass_over_times(&mut self, target: u64) {
        let moves = |thread: &Thread| thread.is_busy() || thread.seat.is_held();
        if self.due.is_empty()
            || self.due.has_ordered()
            || self.behind() + (self.due.len() as u64) < target
            || self.threads.values().any(moves)
        {
            return;
        }
        let asks = |thread: &Thread| matches!(&thread.state, State::AtCall(call) if self.due.is_alone(call.nr));
        let slots: Vec<Slot> = self.threads.values().filter(|thread| !asks(thread)).map(|thread| thread.slot).collect();
        for slot in slots {
            while let Some(Record { event: Event::Call(entry, ret), .. }) = self.due.first_of(slot)
                && calls::is_elastic(entry.nr, &entry.args)
            {
                self.known.times.note(entry, ret);
                self.consume(slot);
                self.relaxed();
            }
        }
    }

    /// Says whether a thread is about to end the process by the signal that its twin was held before.
    fn falls_like(&self, process: &Process, held: &HeldThread) -> bool {
        let HeldAt::Crash(signo) = held.at else { return false };
        let Some(thread) = process.tid(held.slot).and_then(|tid| self.threads.get(&tid)) else { return false };
        match &thread.state {
            State::Faulted(_) => true,
            State::AtCall(call) | State::Entered(call) => match i64::from(call.nr) {
                libc::SYS_tkill => call.args[1] as i32 == signo,
                libc::SYS_tgkill => call.args[2] as i32 == signo,
                _ => false,
            },
            State::Running { .. } | State::Real(_) | State::Parked(_) => false,
        }
    }

    /// Says where the threads stand, for a wait that ran out.
    pub(crate) fn where_threads_stand(&self) -> Vec<String> {
        let undecided = self.is_undecided().then(|| "a rule waits for more of the leader's calls".to_owned());
        self.threads.iter().map(|(tid, thread)| describe_state(*tid, thread)).chain(undecided).collect()
    }

    /// Undoes [`Following::drain`].
    pub(crate) fn release_drain(&mut self, process: &mut Process) -> Result<()> {
        self.drain = None;
        let mut parked = Vec::new();
        for (tid, thread) in &self.threads {
            match thread.state {
                State::Parked(call) => parked.push((*tid, Some(call.nr))),
                // Rewound to execute a call of the daemon's: it will come to its call again.
                State::AtCall(_) if !matches!(sys::syscall_info(*tid)?, SyscallStop::Entry { .. }) => {
                    parked.push((*tid, None))
                }
                // Its record's first half is used up, and the call cannot be entered once more.
                State::Entered(_) if !matches!(sys::syscall_info(*tid)?, SyscallStop::Entry { .. }) => {
                    let what = format!("thread {tid} was to change places in the middle of a call that is compared");
                    return Err(Error::Unsupported(what));
                }
                State::Running { .. } | State::AtCall(_) | State::Entered(_) | State::Real(_) | State::Faulted(_) => {}
            }
        }
        for (tid, local) in parked {
            self.go(tid, Resume::Sysemu, State::Running { local })?;
        }
        self.advance(process)
    }

    /// Rewinds every thread to before its call and returns where each stands, for the change of roles.
    /// It can be undone by [`Following::release_drain`].
    pub(crate) fn rewind_all(&self) -> Result<Vec<(Tid, Slot, Option<Rewound>)>> {
        let mut threads = Vec::new();
        for (tid, thread) in &self.threads {
            let rewound = match &thread.state {
                State::AtCall(call) | State::Entered(call) => {
                    // Unless it was rewound already, to execute a call of the daemon's.
                    if let SyscallStop::Entry { nr, .. } = sys::syscall_info(*tid)? {
                        let mut regs = sys::get_regs(*tid)?;
                        regs::undo_entry(&mut regs, nr);
                        sys::set_regs(*tid, &regs)?;
                    }
                    Some(Rewound { nr: call.nr, args: call.args })
                }
                State::Parked(rewound) => Some(*rewound),
                State::Running { .. } | State::Real(_) | State::Faulted(_) => None,
            };
            threads.push((*tid, thread.slot, rewound));
        }
        Ok(threads)
    }
}
