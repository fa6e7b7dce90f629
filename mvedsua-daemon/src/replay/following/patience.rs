//! What happens when nothing moves: the order is relaxed, and in the end the follower is given up.

use super::super::objects::Touched;
use super::carrier::Live;
use super::*;
use crate::matcher::schedule::{self, RELAX_AT_LAST, free};

impl Following {
    /// Looks whether the follower still moves; called with every ring of the session's clock.
    pub(super) fn check_progress(&mut self, process: &mut Process) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        if !self.is_one_by_one() {
            free::share_turn(&mut Live { following: self, process })?;
        }
        if self.check_applying(process)? {
            return Ok(());
        }
        self.check_leader(process);
        if self.due.front().is_none() {
            if self.waiting.moved.elapsed() >= RELAX_AFTER && self.reader.backlog() == 0 {
                self.pass_over_times(0);
            }
            return Ok(());
        }
        let waited = if self.is_one_by_one() { self.due_since() } else { self.waiting.moved.elapsed() };
        // Many threads that have their turns one after the other take long, and somebody moves all the time.
        let still_since = self.waiting.moved.max(self.turns.turn_given);
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
        let for_good = schedule::stands_for_good(&mut Live { following: self, process });
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
        let asking = self.threads.values().filter(|thread| thread.slot == due.slot);
        let asked = asking.filter_map(|thread| thread.state.at_call()).next().cloned();
        let kind = match &asked {
            // It asks for the time, which the leader did not, and nobody has asked that clock before.
            Some(call) if self.due.is_alone(call.nr) => DivergenceKind::Call,
            _ if others_wait || for_good => DivergenceKind::Order { waiting },
            _ => DivergenceKind::Hang { waited_ms: waited.as_millis() as u64 },
        };
        let divergence = self.describe(due.slot, kind, Some(&due), asked.as_ref());
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
        let computes = matches!(thread.state, State::Running { .. }) && matches!(thread.seat.turn, Turn::Going);
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

    /// Returns about how much processor time the follower has used since something moved at that instant.
    fn computes_since(&mut self, process: &Process, moved: Instant) -> Duration {
        let Some(used) = sys::cpu_time(process.pid) else { return Duration::ZERO };
        match self.waiting.used {
            Some((at, before)) if at == moved => used.saturating_sub(before),
            _ => {
                self.waiting.used = Some((moved, used));
                Duration::ZERO
            }
        }
    }

    fn relax(&mut self, process: &mut Process) -> Result<bool> {
        schedule::relax(&mut Live { following: self, process })
    }

    /// Answers a thread's next record out of order; says whether it was, or a call that a rule lets in before it.
    pub(super) fn overtake(&mut self, process: &mut Process, slot: Slot) -> Result<bool> {
        let Some(record) = self.due.pop(slot) else { return Ok(false) };
        // Out of order a difference proves nothing; in order the record will be looked at again.
        if let Applied::Done = self.apply(process, &record)? {
            self.passed();
            self.relaxed();
            return Ok(true);
        }
        Ok(self.put_back(record))
    }

    /// Returns what a record that is its thread's next has to do with.
    pub(super) fn touched(&self, record: &Record) -> Touched {
        let state = self.threads.values().find(|thread| thread.slot == record.slot).map(|thread| &thread.state);
        match (&record.event, state) {
            (Event::Return(ret), Some(State::Entered(call))) => Objects::touched_by_return(call.nr, ret),
            _ => self.known.objects.touched(record),
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

    fn improvise_for_waiting(&mut self, process: &mut Process) -> Result<bool> {
        schedule::improvise_for_waiting(&mut Live { following: self, process })
    }
}
