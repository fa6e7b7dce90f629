//! What happens when nothing moves: the order is relaxed, and in the end the follower is given up.

use super::super::objects::Touched;
use super::turns::{Ending as Wait, Place, Turn};
use super::*;

/// How often threads whose waits run out may look again, once the leader has ended, before it is believed that they wait for
/// what will not come. A program that tries a few times is done by then.
const LOOKS: u32 = 100;

impl Following {
    /// Looks whether the follower still moves; called with every ring of the session's clock.
    pub(super) fn check_progress(&mut self, process: &mut Process) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.share_turn(process)?;
        if self.check_applying(process)? {
            return Ok(());
        }
        self.check_leader(process);
        if self.due.front().is_none() {
            if self.moved.elapsed() >= RELAX_AFTER && self.reader.backlog() == 0 {
                self.pass_over_times(0);
            }
            return Ok(());
        }
        let waited = if self.is_one_by_one() { self.due_since() } else { self.moved.elapsed() };
        // Many threads that have their turns one after the other take long, and somebody moves all the time.
        let still_since = self.moved.max(self.turn_given);
        let stands = still_since.elapsed() >= RELAX_AT_LAST || self.computes_since(process, still_since) >= RELAX_AFTER;
        if self.waits_for_child() || stands && self.end_computing(process)? {
            return self.advance(process);
        }
        if self.is_one_by_one() {
            if self.is_unordered() && self.relax(process)?
                || stands && (self.let_compute() || self.improvise_for_waiting(process)?)
            {
                return self.advance(process);
            }
        } else if stands && self.relax(process)? {
            return self.advance(process);
        }
        let for_good = self.stands_for_good(process);
        if waited < self.settings.hang_timeout && !for_good {
            return Ok(());
        }
        let Some(due) = self.due.front().and_then(|slot| self.due.first_of(slot)).cloned() else { return Ok(()) };
        let mut waiting: Vec<String> = self.threads.iter().map(|(tid, thread)| describe_state(*tid, thread)).collect();
        if for_good {
            waiting.push("none of them can move, and the leader has ended".to_owned());
        }
        let others_wait =
            self.threads.values().any(|thread| thread.slot != due.slot && matches!(thread.state, State::AtCall(_)));
        tracing::warn!(slot = due.slot.0, ?waiting, "the follower does not come to the call that is due");
        let asked = self.threads.values().find_map(|thread| match &thread.state {
            State::AtCall(call) if thread.slot == due.slot => Some(call.clone()),
            _ => None,
        });
        let kind = match &asked {
            // It asks for the time, which the leader did not, and nobody has asked that clock before.
            Some(call) if self.due.is_alone(call.nr) => DivergenceKind::Call,
            _ if others_wait || for_good => DivergenceKind::Order { waiting },
            _ => DivergenceKind::Hang { waited_ms: waited.as_millis() as u64 },
        };
        let divergence = self.describe(due.slot, kind, Some(&due), asked.as_deref());
        self.diverge(process, divergence);
        Ok(())
    }

    /// The record that is due says that the leader's thread was given a signal, or its process ended, while it computed; the
    /// follower's computes as well, and perhaps it will until it is given the same: in a loop that the handler ends, say. The
    /// leader's was at no place that could be named either. Says whether something was done.
    fn end_computing(&mut self, process: &mut Process) -> Result<bool> {
        let Some(slot) = self.due.front() else { return Ok(false) };
        let Some((tid, thread)) = self.threads.iter_mut().find(|(_, thread)| thread.slot == slot) else {
            return Ok(false);
        };
        let tid = *tid;
        let computes = matches!(thread.state, State::Running { .. }) && matches!(thread.turn, Turn::Going);
        if !computes || thread.incoming.is_some() || procfs::state(process.pid, tid) != Some('R') {
            return Ok(false);
        }
        match self.due.first_of(slot).map(|record| &record.event) {
            Some(Event::Signal(signal)) if signal.delivery == Delivery::BeforeNextCall => {
                let signal = Box::new(signal.clone());
                // SAFETY: takes integers only.
                unsafe { libc::syscall(libc::SYS_tkill, tid.0, signal.signo) };
                thread.incoming = Some(signal);
                self.relaxed();
                self.consume(slot);
                Ok(true)
            }
            Some(Event::ProcessEnded(Ending::Killed(_))) => self.answer_first(process, slot),
            _ => Ok(false),
        }
    }

    /// Says whether nobody moves any more, ever: the leader has ended and all that it did is known, no thread of the follower
    /// runs or can be let go on, and those that sleep in the kernel sleep without an end. Called where nothing could be
    /// answered, nor the order relaxed.
    fn stands_for_good(&mut self, process: &Process) -> bool {
        while self.fetch() {}
        if !self.reader.is_finished() || self.drain.is_some() {
            return false;
        }
        let over = *self.over.get_or_insert_with(|| now().0);
        let looks = self.looks < LOOKS;
        let has_relatives = self.settings.pairing == Pairing::Processes;
        let can_move = |thread: &Thread| match thread.turn {
            Turn::Going => thread.is_busy() || self.is_giving_birth(thread),
            Turn::Held { why: Why::Moved, .. } | Turn::Asleep { ending: Wait::Expires, .. } => true,
            Turn::Held { why: Why::RanOut, .. } => looks,
            Turn::Held { why: Why::NotTold, .. } => false,
            // Another process of the program's may wake it, which has a stream of its own.
            Turn::Asleep { place: Place::Unknown, .. } if has_relatives => true,
            Turn::Asleep { limit, .. } => looks && limit.is_some_and(|limit| self.is_over(limit, thread.slot, over)),
        };
        // A call that may wait can return at once all the same: an address that is no place to wait at, say.
        let awake = |(tid, thread): (&Tid, &Thread)| {
            matches!(thread.turn, Turn::Asleep { .. }) && turns::wakes(process.pid, *tid)
        };
        !self.threads.values().any(can_move) && !self.threads.iter().any(awake)
    }

    /// Returns about how much processor time the follower has used since something moved at that instant.
    fn computes_since(&mut self, process: &Process, moved: Instant) -> Duration {
        let Some(used) = sys::cpu_time(process.pid) else { return Duration::ZERO };
        match self.used {
            Some((at, before)) if at == moved => used.saturating_sub(before),
            _ => {
                self.used = Some((moved, used));
                Duration::ZERO
            }
        }
    }

    /// Answers the first record of some other thread that can be answered and concerns no object of those it overtakes.
    pub(super) fn relax(&mut self, process: &mut Process) -> Result<bool> {
        while self.fetch() {}
        let mut overtaken: Vec<(Slot, Touched)> = Vec::new();
        let waiting: Vec<Slot> = self.due.waiting_slots().collect();
        for slot in waiting {
            if overtaken.iter().any(|(other, _)| *other == slot) {
                continue;
            }
            let Some(record) = self.due.pop(slot) else { continue };
            let touched = self.touched(&record);
            let conflict = overtaken.iter().any(|(_, others)| touched.concerns(others));
            if !conflict && !overtaken.is_empty() {
                // Out of order a difference proves nothing; in order the record will be looked at again.
                if let Applied::Done = self.apply(process, &record)? {
                    self.passed();
                    self.relaxed();
                    return Ok(true);
                }
            }
            if self.put_back(record) {
                return Ok(true);
            }
            overtaken.push((slot, touched));
        }
        if self.due.has_ordered() { self.improvise_for_waiting(process) } else { Ok(false) }
    }

    /// Returns what a record that is its thread's next has to do with.
    fn touched(&self, record: &Record) -> Touched {
        let state = self.threads.values().find(|thread| thread.slot == record.slot).map(|thread| &thread.state);
        match (&record.event, state) {
            (Event::Return(ret), Some(State::Entered(call))) => Objects::touched_by_return(call.nr, ret),
            _ => self.objects.touched(record),
        }
    }

    /// Says whether the leader's thread is on its way to a call, and will tell what it was told of the time. One that sleeps has
    /// told; the follower is somewhere else then.
    pub(super) fn leader_comes(&self, slot: Slot) -> bool {
        if self.reader.is_finished() {
            return false;
        }
        let Some(leader) = self.settings.leaders.get(&slot) else { return false };
        !matches!(procfs::state(Pid(leader.0), *leader), Some('S') | None)
    }

    /// Answers threads that ask for the time, or count the processors, although the leader has made no call for them for a
    /// while: they may hold what the others wait for.
    pub(super) fn improvise_for_waiting(&mut self, process: &Process) -> Result<bool> {
        let at_last = self.moved.elapsed() >= RELAX_AT_LAST;
        let asks = |(tid, thread): (&Tid, &Thread)| match &thread.state {
            State::AtCall(call)
                if self.due.first_of(thread.slot).is_none() && (at_last || !self.leader_comes(thread.slot)) =>
            {
                Some((*tid, call.clone()))
            }
            _ => None,
        };
        let waiting: Vec<(Tid, Box<Call>)> = self.threads.iter().filter_map(asks).collect();
        if waiting.is_empty() {
            return Ok(false);
        }
        // A leader's thread that was seen to sleep may have come there since the log was read, and told what it knows.
        while self.fetch() {}
        let mut answered = false;
        for (tid, call) in waiting {
            if self.threads.get(&tid).is_some_and(|thread| self.due.first_of(thread.slot).is_some()) {
                answered = true;
                continue;
            }
            answered |= if calls::asks_duration(call.nr, &call.args) || calls::lets_in(call.nr) {
                self.improvise(process, tid, &call)?
            } else {
                self.begin_counting(tid, &call)?
            };
        }
        Ok(answered)
    }
}
