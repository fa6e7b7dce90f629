//! Answering one record: comparing the call that waits for it, writing what the leader's kernel wrote, letting the thread go.

use mvedsua_common::syscalls::{Irregular, instructions};

use super::super::proc_self::OwnMemory;
use super::carrier::Live;
use super::copies::Mapped;
use super::real::{Mapping, Newborn, RealCall, What};
use super::*;
use crate::matcher::Progress;
use crate::matcher::pouring;
use crate::matcher::schedule::one_by_one;
use crate::matcher::step::{self, Facts, Step};
use crate::matcher::tolerances::{self, FollowersAlone, Judgement, LeadersAlone, Question};
use crate::ptrace::tsc::Reading;

impl Following {
    pub(super) fn apply(&mut self, process: &mut Process, record: &Record) -> Result<Applied> {
        let slot = record.slot;
        match &record.event {
            Event::Gap(gap) => {
                let kind = DivergenceKind::Gap { reason: gap.reason.clone() };
                return Ok(Applied::Diverged(Box::new(self.describe(slot, kind, Some(record), None))));
            }
            Event::Succession(new) => {
                self.follow_another(new);
                return Ok(Applied::Done);
            }
            Event::ProcessEnded(ending) => return self.finish(process, slot, *ending, record),
            Event::Call(..)
            | Event::Enter(_)
            | Event::Return(_)
            | Event::Signal(_)
            | Event::ThreadStarted { .. }
            | Event::ThreadEnded
            | Event::Resumed
            | Event::Overdue
            | Event::ProcessStarted { .. }
            | Event::Executed(_) => {}
        }
        let Some(tid) = process.tid(slot) else { return Ok(self.apply_to_nobody(record)) };
        let Some(thread) = self.threads.get(&tid) else { return Ok(Applied::NotReady) };
        let step = step::step(&record.event, self.phase(thread), self.facts(thread, &record.event));
        self.carry_out(process, tid, record, step)
    }

    /// What the matcher is to know of a thread whose next record is of this kind.
    fn facts(&self, thread: &Thread, event: &Event) -> Facts {
        let own_signal = match (&self.parted, event) {
            (Some(_), Event::Signal(signal)) => parted::is_own_signal(signal, &self.settings.leaders),
            (None | Some(_), _) => false,
        };
        Facts {
            untold: matches!(thread.seat.turn, Turn::Held { why: Why::NotTold, .. }),
            busy: thread.is_busy(),
            twin_closes: thread.counting == Counting::LeaderCloses,
            twin_alone: self.parted.as_ref().is_some_and(|parted| parted.is_alone(thread.slot)),
            own_signal,
        }
    }

    /// Answers a record of a thread that is not there.
    fn apply_to_nobody(&mut self, record: &Record) -> Applied {
        let slot = record.slot;
        if !self.kin.gone.contains(&slot) {
            // It is still to be born.
            return Applied::NotReady;
        }
        match &record.event {
            // Nothing follows of this thread.
            Event::ThreadEnded => {
                self.kin.gone.remove(&slot);
                self.settings.leaders.remove(&slot);
                self.past.trail.forget(slot);
                self.past.situations.forget(slot);
                Applied::Done
            }
            Event::Call(entry, _) if calls::of_one_thread(entry.nr) => Applied::Done,
            // It need not have waited for anybody, nor woken anybody.
            Event::Call(entry, _) if self.ordered(entry.nr, &entry.args).is_some() => {
                self.note_race("one had ended that had waited for others or woken them");
                self.relaxed();
                Applied::Done
            }
            Event::Call(..)
            | Event::Enter(_)
            | Event::Return(_)
            | Event::Signal(_)
            | Event::ThreadStarted { .. }
            | Event::Resumed
            | Event::Overdue
            | Event::Gap(_)
            | Event::ProcessStarted { .. }
            | Event::Executed(_)
            | Event::ProcessEnded(_)
            | Event::Succession(_) => self.unexpected(slot, record, None),
        }
    }

    /// Does what a thread's next record asks for.
    fn carry_out(&mut self, process: &mut Process, tid: Tid, record: &Record, step: Step) -> Result<Applied> {
        let slot = record.slot;
        match step {
            Step::Answer => self.answer(process, tid, record),
            Step::Wait(_) => Ok(Applied::NotReady),
            Step::PassOver => {
                self.pass_over(tid, &record.event);
                Ok(Applied::Done)
            }
            Step::Return => match (&record.event, self.call_of(tid)) {
                (Event::Return(ret), Some(call)) => self.return_from(process, tid, &call, ret),
                _ => Ok(Applied::NotReady),
            },
            Step::MakeThread => {
                let Some(call) = self.call_of(tid) else { return Ok(Applied::NotReady) };
                let (nr, returned) = (call.nr, Progress::UnderWay);
                self.make(tid, nr, State::real(What::Thread(Newborn { call, born: None, returned })))?;
                Ok(Applied::NotReady)
            }
            Step::AdoptThread => self.adopt_thread(process, tid, &record.event),
            Step::ReturnFromThread => {
                if let Event::Return(ret) = &record.event {
                    sys::set_result(tid, ret.ret)?;
                }
                self.state(tid, State::Running { local: None });
                self.hold(tid, 0, Why::Moved);
                Ok(Applied::Done)
            }
            Step::MakeProcess => {
                let Some(call) = self.call_of(tid) else { return Ok(Applied::NotReady) };
                self.fork(process, tid, call)?;
                Ok(Applied::NotReady)
            }
            Step::AdoptProcess => {
                let Event::ProcessStarted { stream, pid } = record.event else { return Ok(Applied::NotReady) };
                self.bear(process, tid, stream, pid)
            }
            Step::ReturnFromProcess => self.return_from_process(process, tid, &record.event),
            Step::Execute => match (&record.event, self.call_of(tid)) {
                (Event::Executed(executed), Some(call)) => self.replace_program(process, tid, &call, executed),
                _ => Ok(Applied::NotReady),
            },
            Step::LetOverdue => {
                if let Some(thread) = self.threads.get_mut(&tid) {
                    // It may have come to its next call already.
                    thread.seat.overdue = thread.is_busy();
                }
                self.note_race("one of the leader's computed for long");
                Ok(Applied::Done)
            }
            Step::Tell => {
                self.tell(tid);
                Ok(Applied::Done)
            }
            Step::TellUnasked => {
                self.tell(tid);
                self.note_race("one needed a turn that its twin did not");
                one_by_one::let_next_go(&mut Live { following: self, process })?;
                Ok(Applied::NotReady)
            }
            Step::KeepSignal | Step::SendSignal | Step::DeliverSignal => {
                let Event::Signal(signal) = &record.event else { return Ok(Applied::NotReady) };
                self.give_signal(process, tid, signal, step)
            }
            Step::ShareFault => {
                let Event::Signal(signal) = &record.event else { return Ok(Applied::NotReady) };
                self.leave_site(process, tid)?;
                process.make_room_for_signal(tid)?;
                self.state(tid, State::Running { local: None });
                sys::resume(tid, Resume::Sysemu, signal.signo)?;
                Ok(Applied::Done)
            }
            Step::Fault => {
                let Some(Thread { state: State::Faulted(kind), .. }) = self.threads.get(&tid) else {
                    return Ok(Applied::NotReady);
                };
                let kind = (**kind).clone();
                Ok(Applied::Diverged(Box::new(self.describe(slot, kind, Some(record), None))))
            }
            Step::End => {
                if let Some(thread) = self.threads.get_mut(&tid) {
                    thread.last_record_seen = true;
                }
                self.settings.leaders.remove(&slot);
                Ok(Applied::Done)
            }
            Step::Unexpected => {
                let Some(call) = self.call_of(tid) else { return Ok(Applied::NotReady) };
                if self.puts_return_off(record) {
                    return Ok(Applied::Done);
                }
                if self.lets_in(slot, record.seq, &call) || self.order_alone(tid, &call)? {
                    return Ok(Applied::NotReady);
                }
                Ok(self.unexpected(slot, record, Some(&call)))
            }
            Step::Impossible => {
                let call = self.call_of(tid);
                Ok(self.unexpected(slot, record, call.as_deref()))
            }
        }
    }

    /// Returns the call at which a thread waits, or in which it is.
    pub(super) fn call_of(&self, tid: Tid) -> Option<Box<Call>> {
        match &self.threads.get(&tid)?.state {
            State::AtCall(call) | State::Entered(call) => Some(call.clone()),
            State::Running { .. } | State::Real(_) | State::Faulted(_) | State::Parked(_) => None,
        }
    }

    /// Takes note of what the leader's record ends, where it asks for nothing else.
    fn pass_over(&mut self, tid: Tid, event: &Event) {
        let Event::Return(_) = event else { return };
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        if thread.counting == Counting::LeaderCloses {
            thread.counting = Counting::Neither;
        } else if let Some(parted) = &mut self.parted {
            parted.passes_return(thread.slot);
        }
    }

    fn return_from(&mut self, process: &mut Process, tid: Tid, call: &Call, ret: &CallReturn) -> Result<Applied> {
        let Some(slot) = self.threads.get(&tid).map(|thread| thread.slot) else { return Ok(Applied::NotReady) };
        let rest = match self.rest_of(slot, ret) {
            Ok(rest) => rest,
            Err(kind) => return Ok(Applied::Diverged(Box::new(self.describe(slot, kind, None, Some(call))))),
        };
        let ret = rest.as_ref().unwrap_or(ret);
        match &mut self.parted {
            Some(parted) => {
                let own = parted.own_return(slot, ret);
                self.complete(process, tid, call, &own)
            }
            None => self.complete(process, tid, call, ret),
        }
    }

    fn return_from_process(&mut self, process: &mut Process, tid: Tid, event: &Event) -> Result<Applied> {
        let forking = match self.threads.get(&tid).map(|thread| &thread.state) {
            Some(State::Real(RealCall { what: What::Process(forking), .. })) => forking,
            _ => return Ok(Applied::NotReady),
        };
        let Event::Return(ret) = event else { return Ok(Applied::NotReady) };
        let (registers, call) = (forking.registers(), forking.call.clone());
        registers.put_back(tid)?;
        self.supply(process, tid, &call, ret)
    }

    /// Gives a thread that was made its place among the others.
    fn adopt_thread(&mut self, process: &mut Process, tid: Tid, event: &Event) -> Result<Applied> {
        let Event::ThreadStarted { child, tid: leader_tid } = event else { return Ok(Applied::NotReady) };
        let newborn = match self.threads.get(&tid).map(|thread| &thread.state) {
            Some(State::Real(RealCall { what: What::Thread(newborn), .. })) => newborn,
            _ => return Ok(Applied::NotReady),
        };
        let Some(born) = newborn.born else { return Ok(Applied::NotReady) };
        write_tid(process, &newborn.call, *leader_tid)?;
        self.kin.orphans.retain(|orphan| *orphan != born);
        process.threads.insert(born, *child);
        process.give_ring(born)?;
        self.threads.insert(born, Thread::running(*child));
        self.past.has_threads = true;
        self.settings.leaders.insert(*child, Tid(*leader_tid));
        self.hold(born, 0, if self.is_one_by_one() { Why::NotTold } else { Why::Moved });
        Ok(Applied::Done)
    }

    /// A thread that was held until it is told may go on.
    fn tell(&mut self, tid: Tid) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.seat.tell();
        }
    }

    fn give_signal(&mut self, process: &Process, tid: Tid, signal: &SignalRecord, step: Step) -> Result<Applied> {
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(Applied::NotReady) };
        let (signo, signal) = (signal.signo, Box::new(signal.clone()));
        if step == Step::KeepSignal {
            thread.at_return = Some(signal);
            return Ok(Applied::Done);
        }
        thread.incoming = Some(signal);
        if step == Step::SendSignal {
            self.disturb(tid);
            // SAFETY: takes integers only.
            unsafe { libc::syscall(libc::SYS_tkill, tid.0, signo) };
        } else if let State::AtCall(call) = &thread.state {
            let nr = call.nr;
            thread.state = State::Running { local: None };
            self.leave_site(process, tid)?;
            let mut regs = sys::get_regs(tid)?;
            regs::undo_entry(&mut regs, nr);
            process.leave_vdso(&mut regs)?;
            sys::set_regs(tid, &regs)?;
            sys::resume(tid, Resume::Sysemu, signo)?;
        }
        Ok(Applied::Done)
    }

    pub(super) fn unexpected(&self, slot: Slot, record: &Record, actual: Option<&Call>) -> Applied {
        Applied::Diverged(Box::new(self.describe(slot, DivergenceKind::End, Some(record), actual)))
    }

    /// Compares a waiting call with its record and answers it.
    pub(super) fn answer(&mut self, process: &mut Process, tid: Tid, record: &Record) -> Result<Applied> {
        let Some((entry, ret)) = record.event.call() else { return Ok(Applied::NotReady) };
        let Some(Thread { state, counting, .. }) = self.threads.get_mut(&tid) else { return Ok(Applied::NotReady) };
        let counting = *counting;
        let State::AtCall(call) = std::mem::replace(state, State::Running { local: None }) else {
            return Ok(Applied::NotReady);
        };
        if self.applying.is_none() && self.reads_on(record.slot, record.seq, &call) {
            self.state(tid, State::AtCall(call));
            return Ok(Applied::NotReady);
        }
        let on_own_memory = self.known.own_files.on_own_memory(&call, entry);
        let entry = on_own_memory.as_ref().unwrap_or(entry);
        let question = Question {
            call: &call,
            entry,
            ret,
            counting,
            leader_reads_itself: self.known.own_files.is_read_by(entry.nr, &entry.args),
            orders: self.orders(),
        };
        match tolerances::judge(&question) {
            Judgement::Compare => self.compare(process, tid, record, call, (entry, ret)),
            Judgement::LetIn => {
                self.let_in(tid, &call)?;
                Ok(Applied::Done)
            }
            Judgement::Supply => {
                let Some(ret) = ret else { return Ok(Applied::NotReady) };
                self.known.times.note(entry, ret);
                self.supply(process, tid, &call, ret)
            }
            Judgement::PassOver(leaders) => {
                self.leader_acts_alone(tid, leaders, entry, ret);
                self.state(tid, State::AtCall(call));
                Ok(Applied::Done)
            }
            Judgement::Alone(followers) => {
                self.follower_acts_alone(process, tid, call, followers)?;
                Ok(Applied::NotReady)
            }
        }
    }

    /// Takes note of what the leader alone does.
    fn leader_acts_alone(&mut self, tid: Tid, what: LeadersAlone, entry: &CallEntry, ret: Option<&CallReturn>) {
        match what {
            LeadersAlone::Time => {
                if let Some(ret) = ret {
                    self.known.times.note(entry, ret);
                }
            }
            LeadersAlone::Order => self.note_race("one ordered itself differently from its twin"),
            LeadersAlone::Itself => {}
            LeadersAlone::BeginsToCount(counting) => self.counting(tid, counting),
            // Its beginning was counted.
            LeadersAlone::Counts(counting) => return self.counting(tid, counting),
        }
        self.relaxed();
    }

    /// Answers a call of the follower alone, or leaves it where it waits.
    fn follower_acts_alone(
        &mut self,
        process: &Process,
        tid: Tid,
        call: Box<Call>,
        what: FollowersAlone,
    ) -> Result<()> {
        match what {
            FollowersAlone::Time => {
                if !self.improvise(process, tid, &call)? {
                    self.state(tid, State::AtCall(call));
                }
                Ok(())
            }
            FollowersAlone::Order => {
                self.note_race("one ordered itself differently from its twin");
                self.order_alone(tid, &call).map(|_| ())
            }
            // Its choice will be the leader's in the end.
            FollowersAlone::Choice => {
                self.relaxed();
                self.make(tid, call.nr, State::real(What::Own { nr: call.nr }))
            }
            FollowersAlone::Count => self.begin_counting(tid, &call).map(|_| ()),
        }
    }

    /// Compares a call with its record in full, and answers it.
    fn compare(
        &mut self,
        process: &mut Process,
        tid: Tid,
        record: &Record,
        call: Box<Call>,
        (entry, ret): (&CallEntry, Option<&CallReturn>),
    ) -> Result<Applied> {
        let filled = self.fill(record, &call);
        let (entry, ret) = match &filled {
            Ok(Some((entry, ret))) => (entry, ret.as_ref()),
            Ok(None) | Err(_) => (entry, ret),
        };
        let same = tolerances::agree(&call, entry);
        let chosen = match filled.as_ref().map_err(Clone::clone).and(same) {
            Ok(agreed) => {
                // What a rule leaves open was not compared in full.
                if matches!(filled, Ok(None)) {
                    self.count(agreed.evidence);
                }
                agreed.chosen
            }
            Err(kind) if self.parted.is_some() => return self.go_past(process, tid, call, record, kind),
            Err(kind) => {
                if self.puts_off(record, &call) {
                    self.state(tid, State::AtCall(call));
                    return Ok(Applied::Done);
                }
                let kind = self.of_what_is_left(record.seq, &call, kind);
                let let_in = self.lets_in(record.slot, record.seq, &call) || self.writes_beginning(record, &call);
                let divergence = (!let_in).then(|| Divergence {
                    nearest_rule: self.nearest_rule(entry),
                    ..self.describe(record.slot, kind, Some(record), Some(&call))
                });
                self.state(tid, State::AtCall(call));
                return Ok(divergence.map_or(Applied::NotReady, |divergence| Applied::Diverged(Box::new(divergence))));
            }
        };
        if let Some(name) = chosen {
            // Written where the program keeps it, as if its random choice had been the leader's.
            process.memory.write(call.args[usize::from(name.arg)], &name.bytes)?;
            self.relaxed();
        }
        self.note_agreement(record, entry, ret.map_or(0, |ret| ret.ret));
        self.note_registration(&call, entry);
        let treatment = syscalls::treatment_of(self.settings.pairing, call.nr, &call.args, &process.memory);
        match (treatment, ret) {
            (Treatment::Alike(_), Some(ret)) => {
                let (nr, ret) = (call.nr, Box::new(ret.clone()));
                self.make(tid, nr, State::real(What::Alike { call, ret }))?;
                Ok(Applied::Done)
            }
            // The whole process ends when all of the stream was lived through.
            (Treatment::Row(row), None)
                if self.settings.pairing == Pairing::Processes && i64::from(row.nr) == libc::SYS_exit_group =>
            {
                self.state(tid, State::Entered(call));
                Ok(Applied::Done)
            }
            (Treatment::Row(row), None) if row.class == Class::Both => {
                self.own_locks(process, tid);
                let last = self.threads.len() == 1;
                if i64::from(row.nr) == libc::SYS_exit_group || last {
                    self.kin.leaving = true;
                    self.notify(Message::EndAgreed);
                }
                self.make(tid, call.nr, State::real(What::End))?;
                Ok(Applied::Done)
            }
            (_, None) => {
                self.wait_for_inheriting(process, record.slot, &call)?;
                self.state(tid, State::Entered(call));
                Ok(Applied::Done)
            }
            (_, Some(ret)) => Ok(match self.complete(process, tid, &call, ret)? {
                Applied::Diverged(found) => {
                    Applied::Diverged(Box::new(self.describe(record.slot, found.kind, Some(record), Some(&call))))
                }
                done @ (Applied::Done | Applied::NotReady) => done,
            }),
        }
    }

    /// Takes note that the follower has made the call of a record.
    pub(super) fn note_agreement(&mut self, record: &Record, entry: &CallEntry, ret: i64) {
        self.agreed_to(record);
        self.past.situations.note(record, &self.settings.tally.met_again);
        let Record { seq, slot, .. } = *record;
        self.past.trail.push(MatchedCall { seq, slot, nr: entry.nr, args: entry.args, ret });
    }

    /// Writes into a mutex with inherited priority what the leader's kernel has written there when its thread began to wait for
    /// it: that somebody waits, or who has it, where nobody had.
    fn wait_for_inheriting(&self, process: &Process, slot: Slot, call: &Call) -> Result<()> {
        if !syscalls::locks_inheriting(call.nr, &call.args) {
            return Ok(());
        }
        // Where there is none the leader's call fails.
        let Ok(word) = process.memory.read_u32(call.args[0]) else { return Ok(()) };
        let word = match (word & libc::FUTEX_TID_MASK, self.settings.leaders.get(&slot)) {
            (0, Some(leader)) => word & libc::FUTEX_OWNER_DIED | leader.0 as u32,
            _ => word | libc::FUTEX_WAITERS,
        };
        process.memory.write(call.args[0], &word.to_ne_bytes())
    }

    /// Lets a call return that was compared, be that with its entry's record or later.
    fn complete(&mut self, process: &mut Process, tid: Tid, call: &Call, ret: &CallReturn) -> Result<Applied> {
        let treatment = syscalls::treatment_of(self.settings.pairing, call.nr, &call.args, &process.memory);
        if matches!(treatment, Treatment::MmapFile(_)) && ret.ret > 0 {
            return self.map_copy(tid, call, ret);
        }
        self.supply(process, tid, call, ret)
    }

    /// Makes a private, anonymous mapping of its own where the leader mapped a file; the contents follow.
    pub(super) fn map_copy(&mut self, tid: Tid, call: &Call, ret: &CallReturn) -> Result<Applied> {
        let part = |piece: &Piece| (piece.addr.0.wrapping_sub(ret.ret as u64), piece.bytes.clone());
        let contents = ret.outputs.iter().map(part).collect();
        let leader = (ret.ret as u64, call.args[1]);
        let shared = call.args[3] as i32 & libc::MAP_TYPE != libc::MAP_PRIVATE;
        let writable = call.args[2] as i32 & libc::PROT_WRITE != 0;
        let mut regs = sys::get_regs(tid)?;
        let fixed = call.args[3] & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) as u64;
        regs::undo_entry(&mut regs, call.nr);
        let original = regs;
        regs.r10 = fixed | (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        regs.r8 = u64::MAX;
        regs.r9 = 0;
        sys::set_regs(tid, &regs)?;
        let restore = [original.r10, original.r8, original.r9];
        self.go(
            tid,
            Resume::Syscall,
            State::real(What::Mapping(Mapping { leader, shared, writable, contents, restore })),
        )?;
        Ok(Applied::Done)
    }

    /// The mapping is made: fills it and gives the program its registers back.
    pub(super) fn fill_copy(&mut self, process: &Process, tid: Tid) -> Result<()> {
        let Some(Thread { state: State::Real(RealCall { what: What::Mapping(mapping), .. }), .. }) =
            self.threads.get(&tid)
        else {
            return Ok(());
        };
        let Mapping { leader, shared, writable, contents, restore } = mapping;
        let mut regs = sys::get_regs(tid)?;
        [regs.r10, regs.r8, regs.r9] = *restore;
        if regs.rax as i64 > 0 {
            let (leader, len) = *leader;
            let mapped = Mapped { leader, place: regs.rax, len, shared: *shared, writable: *writable };
            self.known.copies.insert(mapped, contents);
            for (offset, bytes) in contents {
                process.memory.force(regs.rax + offset, bytes)?;
            }
        }
        sys::set_regs(tid, &regs)?;
        self.go(tid, Resume::Sysemu, State::Running { local: None })
    }

    pub(super) fn count(&self, evidence: Evidence) {
        let tally = &self.settings.tally;
        tally.calls.fetch_add(evidence.calls, Ordering::Relaxed);
        tally.outputs.fetch_add(evidence.outputs, Ordering::Relaxed);
        tally.bytes.fetch_add(evidence.bytes, Ordering::Relaxed);
    }

    pub(super) fn relaxed(&self) {
        self.settings.tally.relaxed.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers an elastic call that the leader did not make.
    pub(super) fn improvise(&mut self, process: &Process, tid: Tid, call: &Call) -> Result<bool> {
        if calls::lets_in(call.nr) {
            return self.let_in(tid, call).map(|()| true);
        }
        // Another program, which reads the counter where the leader's does not.
        let counter = || calls::reads_counter(call.nr).then(|| (tsc::read().stamp as i64, &[][..]));
        let answer = self.known.times.answer(call.nr, &call.args).or_else(counter);
        let (Some(row), Some((ret, outputs))) = (call.row, answer) else {
            return Ok(false);
        };
        let mut places = Vec::new();
        let after = regions::After::Emulated;
        regions::outputs(row, &call.args, ret, after, &process.memory, &mut |region| places.push(region));
        for (place, bytes) in places.iter().zip(outputs) {
            let len = bytes.len().min(place.len as usize);
            process.memory.write(place.addr, &bytes[..len])?;
        }
        finish(tid, call.nr, ret, outputs.first().map(|aux| &aux[..]))?;
        self.relaxed();
        self.note_beside(tid, call);
        self.go(tid, Resume::Sysemu, State::Running { local: None })?;
        Ok(true)
    }

    /// A thread goes on where its twin made no call: beside others that are in user code, and perhaps behind some that have gone
    /// on since it came there.
    fn note_beside(&mut self, tid: Tid, call: &Call) {
        let somebody_runs = self.threads.iter().any(|(other, thread)| *other != tid && thread.is_busy());
        if somebody_runs || self.turns.has_given_since(call.since) {
            self.note_race("one was told what its twin did not ask for");
        }
    }

    /// Answers a read of what is each version's own, see [`proc_self`].
    pub(super) fn read_own(&mut self, process: &Process, tid: Tid, nr: u32, args: &[u64; 6]) -> Result<()> {
        let ret = match self.known.own_files.read(nr, args, process.pid, process.agent) {
            Ok(bytes) if process.memory.write(args[1], &bytes).is_ok() => bytes.len() as i64,
            Ok(_) => -i64::from(libc::EFAULT),
            Err(error) => -i64::from(error.raw_os_error().unwrap_or(libc::EIO)),
        };
        sys::set_result(tid, ret)?;
        self.relaxed();
        self.go(tid, Resume::Sysemu, State::Running { local: None })
    }

    /// Writes what the leader's kernel wrote, sets the result and lets the thread go.
    pub(super) fn supply(&mut self, process: &mut Process, tid: Tid, call: &Call, ret: &CallReturn) -> Result<Applied> {
        let stat = self.known.own_files.is_stat_read_by(call.nr, &call.args).then(|| own_stat(process.pid, call, ret));
        let ret = stat.as_ref().unwrap_or(ret);
        let own = match self.on_own_memory(process, call, ret) {
            Ok(own) => own,
            Err(error) => {
                let reason =
                    format!("what the program does to its own memory the new version's does not allow: {error}");
                return Ok(self.has_no_room(tid, call, DivergenceKind::Gap { reason }));
            }
        };
        let ret = own.as_ref().unwrap_or(ret);
        if let Some(row) = call.row {
            let mut places = Vec::new();
            let after = regions::After::Emulated;
            regions::outputs(row, &call.args, ret.ret, after, &process.memory, &mut |region| places.push(region));
            let writes = match pouring::writes(row, &call.args, ret, &places) {
                Ok(writes) => writes,
                Err(kind) => return Ok(self.has_no_room(tid, call, kind)),
            };
            for (addr, bytes) in writes {
                if is_epoll_wait(call.nr) {
                    let mut events = bytes.to_vec();
                    self.known.registrations.translate(call.args[0] as i32, &mut events);
                    process.memory.write(addr, &events)?;
                } else if i64::from(call.nr) == libc::SYS_rt_sigtimedwait {
                    let mut info = bytes.to_vec();
                    self.known.timers.own_value(&mut info);
                    process.memory.write(addr, &info)?;
                } else {
                    process.memory.write(addr, &bytes)?;
                }
            }
        }
        if !self.known.copies.change(&process.memory, ret)? {
            let reason = "a file was written to whose mapping the program has moved".to_owned();
            return Ok(self.has_no_room(tid, call, DivergenceKind::Gap { reason }));
        }
        self.known.timers.note(call, ret);
        self.known.own_files.note(call.nr, &call.args, &call.inputs, ret.ret);
        if self.suspend(process, tid, call, ret.ret)? {
            return Ok(Applied::Done);
        }
        finish(tid, call.nr, ret.ret, ret.outputs.first().map(|piece| &piece.bytes[..]))?;
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(Applied::Done) };
        thread.state = State::Running { local: None };
        thread.fault = None;
        thread.seat.woken = 0;
        self.waiting.lived_until = self.waiting.lived_until.max(ret.at.0);
        // With a signal the kernel applies its rules of restarting to the result, as it did in the leader.
        thread.incoming = thread.at_return.take();
        let signo = thread.incoming.as_ref().map_or(0, |signal| signal.signo);
        self.hold(tid, signo, Why::Moved);
        Ok(Applied::Done)
    }

    /// Does to the follower's memory what the leader's call has done to the leader's, and returns what that call says then.
    fn on_own_memory(&self, process: &Process, call: &Call, ret: &CallReturn) -> Result<Option<CallReturn>> {
        let Some(own) = self.known.own_files.memory_at(call.nr, &call.args) else { return Ok(None) };
        let mut ret = ret.clone();
        let Ok(len @ 1..) = usize::try_from(ret.ret) else { return Ok(Some(ret)) };
        match own {
            OwnMemory::Seek(at) => ret.ret = at as i64,
            OwnMemory::Read(at) => {
                let mut bytes = vec![0; len];
                process.memory.read(at, &mut bytes)?;
                ret.outputs.iter_mut().take(1).for_each(|piece| piece.bytes = std::mem::take(&mut bytes).into());
            }
            OwnMemory::Write(at) => {
                let whole = call.inputs.iter().find(|piece| piece.arg == 1);
                process.memory.force(at, whole.map_or(&[][..], |piece| &piece.bytes[..len.min(piece.bytes.len())]))?;
            }
        }
        Ok(Some(ret))
    }

    /// The follower's buffers are not such that it would have got what the leader got.
    fn has_no_room(&mut self, tid: Tid, call: &Call, kind: DivergenceKind) -> Applied {
        let Some(thread) = self.threads.get_mut(&tid) else { return Applied::NotReady };
        let slot = thread.slot;
        if let State::Running { .. } = thread.state {
            thread.state = State::AtCall(Box::new(call.clone()));
        }
        Applied::Diverged(Box::new(self.describe(slot, kind, None, Some(call))))
    }

    pub(super) fn note_registration(&mut self, call: &Call, expected: &CallEntry) {
        if i64::from(call.nr) != libc::SYS_epoll_ctl {
            return;
        }
        let (epfd, fd) = (call.args[0] as i32, call.args[2] as i32);
        if call.args[1] as i32 == libc::EPOLL_CTL_DEL {
            self.known.registrations.remove(epfd, fd);
            return;
        }
        let data = |pieces: &[Piece]| {
            let piece = pieces.iter().find(|piece| piece.arg == 3 && piece.bytes.len() == 8)?;
            Some(u64::from_ne_bytes(piece.bytes[..].try_into().ok()?))
        };
        if let (Some(leader), Some(follower)) = (data(&expected.inputs), data(&call.inputs)) {
            self.known.registrations.set(epfd, fd, Pair { leader, follower });
        }
    }
}

/// Puts the addresses of a process into what the leader read in its `stat`.
fn own_stat(pid: Pid, call: &Call, ret: &CallReturn) -> CallReturn {
    let mut ret = ret.clone();
    let own = procfs::text(format!("/proc/{pid}/stat")).unwrap_or_default();
    if let Some(piece) = ret.outputs.first_mut() {
        let mut text = proc_self::own_addresses(&piece.bytes, &own);
        text.truncate(call.args[2] as usize);
        ret.ret = text.len() as i64;
        piece.bytes = text.into();
    }
    ret
}

/// Sets a call's result, or that of an instruction that is answered like one.
fn finish(tid: Tid, nr: u32, ret: i64, first_output: Option<&[u8]>) -> Result<()> {
    if instructions::name(nr).is_none() {
        return sys::set_result(tid, ret);
    }
    let aux = first_output.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
    let mut regs = sys::get_regs(tid)?;
    tsc::execute(&mut regs, nr, Reading { stamp: ret as u64, aux });
    sys::set_regs(tid, &regs)
}

fn is_epoll_wait(nr: u32) -> bool {
    syscalls::row(nr).is_some_and(|row| row.irregular == Some(Irregular::EpollWait))
}

/// Puts the leader's tid where `clone` wrote the follower's.
fn write_tid(process: &Process, call: &Call, tid: i32) -> Result<()> {
    let (flags, parent, child) = if i64::from(call.nr) == libc::SYS_clone3 {
        let at = |offset| process.memory.read_u64(call.args[0] + offset);
        (at(0)?, at(24)?, at(16)?)
    } else {
        (call.args[0], call.args[2], call.args[3])
    };
    if flags & libc::CLONE_PARENT_SETTID as u64 != 0 {
        process.memory.write(parent, &tid.to_ne_bytes())?;
    }
    if flags & libc::CLONE_CHILD_SETTID as u64 != 0 {
        process.memory.write(child, &tid.to_ne_bytes())?;
    }
    Ok(())
}
