//! Answering one record: comparing the call that waits for it, writing what the leader's kernel wrote, letting the thread go.

use mvedsua_common::syscalls::instructions;

use super::super::pouring;
use super::*;
use crate::ptrace::tsc::Reading;

impl Following {
    pub(super) fn apply(&mut self, process: &mut Process, record: &Record) -> Result<Applied> {
        let slot = record.slot;
        if let Event::Gap(gap) = &record.event {
            let kind = DivergenceKind::Gap { reason: gap.reason.clone() };
            return Ok(Applied::Diverged(Box::new(self.describe(slot, kind, Some(record), None))));
        }
        if let Event::Succession(new) = &record.event {
            self.follow_another(process, new);
            return Ok(Applied::Done);
        }
        if let Event::ProcessEnded(ending) = &record.event {
            return self.finish(process, slot, *ending, record);
        }
        let Some(tid) = process.tid(slot) else {
            if !self.gone.contains(&slot) {
                // It is still to be born.
                return Ok(Applied::NotReady);
            }
            return Ok(match &record.event {
                // Nothing follows of this thread.
                Event::ThreadEnded => {
                    self.gone.remove(&slot);
                    self.settings.leaders.remove(&slot);
                    self.trail.forget(slot);
                    self.situations.forget(slot);
                    Applied::Done
                }
                Event::Call(entry, _) if elastic::of_one_thread(entry.nr) => Applied::Done,
                // It need not have waited for anybody, nor woken anybody.
                Event::Call(entry, _) if self.ordered(entry.nr, &entry.args).is_some() => {
                    self.note_race("one had ended that had waited for others or woken them");
                    self.relaxed();
                    Applied::Done
                }
                _ => self.unexpected(slot, record, None),
            });
        };
        if matches!(record.event, Event::Return(_)) && self.end_counting(tid) {
            return Ok(Applied::Done);
        }
        if let Event::Signal(signal) = &record.event
            && self.parted.is_some()
            && parted::is_own_signal(signal, &self.settings.leaders)
        {
            return Ok(Applied::Done);
        }
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(Applied::NotReady) };
        match (&record.event, &mut thread.state) {
            (Event::Call(..) | Event::Enter(_), State::AtCall(_)) => self.answer(process, tid, record),
            (Event::Signal(signal), State::Faulted(kind)) if matches!(**kind, DivergenceKind::Crash { signo, .. } if signo == signal.signo) =>
            {
                let signo = signal.signo;
                process.make_room_for_signal(tid)?;
                self.state(tid, State::Running { local: None });
                sys::resume(tid, Resume::Sysemu, signo)?;
                Ok(Applied::Done)
            }
            (_, State::Faulted(kind)) => {
                let kind = (**kind).clone();
                Ok(Applied::Diverged(Box::new(self.describe(slot, kind, Some(record), None))))
            }
            // Made when it is known that the leader's was: it may have failed, or be made again after a signal.
            (Event::ProcessStarted { .. }, State::Entered(call)) => {
                let call = call.clone();
                self.fork(process, tid, call)?;
                Ok(Applied::NotReady)
            }
            (Event::ProcessStarted { stream, pid }, State::Forking(_)) => self.bear(process, tid, *stream, *pid),
            (Event::Return(ret), State::Forking(forking)) if forking.returned => {
                let call = forking.call.clone();
                forking.registers().put_back(tid)?;
                self.supply(process, tid, &call, ret)
            }
            (Event::Executed(executed), State::Entered(call)) => {
                let call = call.clone();
                self.replace_program(process, tid, &call, executed)
            }
            (Event::Return(ret), State::Entered(call)) => {
                let call = call.clone();
                match &mut self.parted {
                    Some(parted) => {
                        let own = parted.own_return(slot, ret);
                        self.complete(process, tid, &call, &own)
                    }
                    None => self.complete(process, tid, &call, ret),
                }
            }
            (Event::Return(_), State::AtCall(_))
                if self.parted.as_mut().is_some_and(|parted| parted.passes_return(slot)) =>
            {
                Ok(Applied::Done)
            }
            (Event::Return(ret), State::Cloning { returned: true, .. }) => {
                sys::set_result(tid, ret.ret)?;
                self.state(tid, State::Running { local: None });
                self.hold(tid, 0, Why::Moved);
                Ok(Applied::Done)
            }
            (Event::ThreadStarted { .. }, State::Entered(call)) => {
                let call = call.clone();
                self.make(tid, call.nr, State::Cloning { call, born: None, returned: false })?;
                Ok(Applied::NotReady)
            }
            (Event::ThreadStarted { child, tid: leader_tid }, State::Cloning { call, born: Some(born), .. }) => {
                let (born, call) = (*born, call.clone());
                if !self.orphans.contains(&born) {
                    return Ok(Applied::NotReady);
                }
                self.orphans.retain(|orphan| *orphan != born);
                write_tid(process, &call, *leader_tid)?;
                process.threads.insert(born, *child);
                process.give_ring(born)?;
                self.threads.insert(born, Thread::running(*child));
                self.has_threads = true;
                self.settings.leaders.insert(*child, Tid(*leader_tid));
                self.hold(born, 0, if self.is_one_by_one() { Why::NotTold } else { Why::Moved });
                Ok(Applied::Done)
            }
            (Event::Overdue, _) => {
                // It may have come to its next call already.
                thread.overdue = thread.is_busy();
                self.note_race("one of the leader's computed for long");
                Ok(Applied::Done)
            }
            (Event::Resumed, _) => {
                let busy = thread.is_busy();
                match &mut thread.turn {
                    Turn::Held { why, .. } if *why == Why::NotTold => {
                        *why = Why::Moved;
                        Ok(Applied::Done)
                    }
                    // When the roles changed it stood at a call that orders threads, the leader's before or behind it.
                    _ => Ok(if busy { Applied::NotReady } else { Applied::Done }),
                }
            }
            // The same the other way round: the leader's needed no turn.
            _ if let Turn::Held { why, .. } = &mut thread.turn
                && *why == Why::NotTold =>
            {
                *why = Why::Moved;
                self.note_race("one needed a turn that its twin did not");
                self.let_next_go(process)?;
                Ok(Applied::NotReady)
            }
            // It belongs to the call behind the one that is being made.
            (Event::Signal(_), State::Alike { .. } | State::Mapping { .. }) => Ok(Applied::NotReady),
            (Event::Signal(signal), _) if signal.delivery == Delivery::AtReturn => {
                thread.at_return = Some(Box::new(signal.clone()));
                Ok(Applied::Done)
            }
            (Event::Signal(signal), State::Running { local: Some(_) }) if signal.delivery == Delivery::InOwnCall => {
                thread.incoming = Some(Box::new(signal.clone()));
                self.disturb(tid);
                // SAFETY: takes integers only.
                unsafe { libc::syscall(libc::SYS_tkill, tid.0, signal.signo) };
                Ok(Applied::Done)
            }
            (Event::Signal(signal), State::AtCall(call)) => {
                let (signo, nr) = (signal.signo, call.nr);
                thread.incoming = Some(Box::new(signal.clone()));
                thread.state = State::Running { local: None };
                let mut regs = sys::get_regs(tid)?;
                regs::undo_entry(&mut regs, nr);
                process.leave_vdso(&mut regs)?;
                sys::set_regs(tid, &regs)?;
                sys::resume(tid, Resume::Sysemu, signo)?;
                Ok(Applied::Done)
            }
            (Event::ThreadEnded, State::Exiting) => {
                thread.last_record_seen = true;
                self.settings.leaders.remove(&slot);
                Ok(Applied::Done)
            }
            (Event::ThreadEnded | Event::Return(_) | Event::ThreadStarted { .. }, State::AtCall(call)) => {
                let call = call.clone();
                if self.lets_in(slot, record.seq, &call) {
                    return Ok(Applied::NotReady);
                }
                if self.order_alone(tid, &call)? {
                    return Ok(Applied::NotReady);
                }
                Ok(self.unexpected(slot, record, Some(&call)))
            }
            _ => Ok(Applied::NotReady),
        }
    }

    pub(super) fn unexpected(&self, slot: Slot, record: &Record, actual: Option<&Call>) -> Applied {
        Applied::Diverged(Box::new(self.describe(slot, DivergenceKind::End, Some(record), actual)))
    }

    /// Compares a waiting call with its record and answers it.
    pub(super) fn answer(&mut self, process: &mut Process, tid: Tid, record: &Record) -> Result<Applied> {
        let Some(Thread { state, .. }) = self.threads.get_mut(&tid) else { return Ok(Applied::NotReady) };
        let State::AtCall(call) = std::mem::replace(state, State::Running { local: None }) else {
            return Ok(Applied::NotReady);
        };
        let (entry, ret) = match &record.event {
            Event::Call(entry, ret) => (entry, Some(ret)),
            Event::Enter(entry) => (entry, None),
            _ => return Ok(Applied::NotReady),
        };
        if elastic::of_one_thread(entry.nr)
            && elastic::same_question(call.nr, &call.args, entry)
            && let Some(ret) = ret
        {
            if elastic::lets_in(call.nr) {
                self.let_in(tid, &call)?;
                return Ok(Applied::Done);
            }
            self.times.note(entry, ret);
            return self.supply(process, tid, &call, ret);
        }
        if let Some(applied) = self.reorder(tid, &call, entry)? {
            return Ok(applied);
        }
        if elastic::is_elastic(entry.nr, &entry.args) {
            // The leader asked once more than the follower does.
            if let Some(ret) = ret {
                self.times.note(entry, ret);
            }
            self.relaxed();
            self.state(tid, State::AtCall(call));
            return Ok(Applied::Done);
        }
        if elastic::is_elastic(call.nr, &call.args) {
            // The follower asks once more than the leader did.
            let answered = self.improvise(process, tid, &call)?;
            if !answered {
                self.state(tid, State::AtCall(call));
            }
            return Ok(Applied::NotReady);
        }
        if ret.is_some()
            && self.settings.pairing == Pairing::Processes
            && elastic::asks_its_name(entry.nr)
            && call.nr != entry.nr
        {
            // `abort` does so in a leader that is about to crash. It changes nothing, and what differs behind it will be seen.
            self.relaxed();
            self.state(tid, State::AtCall(call));
            return Ok(Applied::Done);
        }
        if ret.is_some() && names::leader_chooses(&call, entry) {
            self.relaxed();
            self.state(tid, State::AtCall(call));
            return Ok(Applied::Done);
        }
        if names::follower_chooses(&call, entry) {
            // Its choice will be the leader's in the end.
            self.relaxed();
            self.make(tid, call.nr, State::Local { nr: call.nr })?;
            return Ok(Applied::NotReady);
        }
        if ret.is_some() && self.own_files.is_read_by(entry.nr, &entry.args) {
            // What the leader read of itself; the follower reads its own.
            self.relaxed();
            self.state(tid, State::AtCall(call));
            return Ok(Applied::Done);
        }
        if self.pass_over_counting(tid, &call, entry, ret.map(|ret| ret.ret)) {
            self.state(tid, State::AtCall(call));
            return Ok(Applied::Done);
        }
        if !elastic::counts_processors(entry.nr, &entry.inputs) && self.begin_counting(tid, &call)? {
            return Ok(Applied::NotReady);
        }
        let filled = self.fill(record, &call);
        let (entry, ret) = match &filled {
            Ok(Some((entry, ret))) => (entry, ret.as_ref()),
            Ok(None) | Err(_) => (entry, ret),
        };
        let mut same = compare_call(&call, entry);
        if same.is_err() && names::chosen(&call, entry).is_some() {
            same = Ok(Evidence { calls: 1, ..Evidence::default() });
        }
        match filled.as_ref().map_err(Clone::clone).and(same) {
            // What a rule leaves open was not compared in full.
            Ok(evidence) if matches!(filled, Ok(None)) => self.count(evidence),
            Ok(_) => {}
            Err(kind) if self.parted.is_some() => return self.go_past(process, tid, call, record, kind),
            Err(kind) => {
                let let_in = self.lets_in(record.slot, record.seq, &call);
                let divergence = (!let_in).then(|| Divergence {
                    nearest_rule: self.nearest_rule(entry),
                    ..self.describe(record.slot, kind, Some(record), Some(&call))
                });
                self.state(tid, State::AtCall(call));
                return Ok(divergence.map_or(Applied::NotReady, |divergence| Applied::Diverged(Box::new(divergence))));
            }
        }
        if let Some(name) = names::chosen(&call, entry) {
            // Written where the program keeps it, as if its random choice had been the leader's.
            process.memory.write(call.args[usize::from(name.arg)], &name.bytes)?;
            self.relaxed();
        }
        self.agreed_to(record);
        self.situations.note(record, &self.settings.tally.met_again);
        self.trail.push(MatchedCall {
            seq: record.seq,
            slot: record.slot,
            nr: entry.nr,
            args: entry.args,
            ret: ret.map_or(0, |ret| ret.ret),
        });
        self.note_registration(&call, entry);
        let treatment = syscalls::treatment_of(self.settings.pairing, call.nr, &call.args, &process.memory);
        match (treatment, ret) {
            (Treatment::Alike(_), Some(ret)) => {
                let (nr, ret) = (call.nr, Box::new(ret.clone()));
                self.make(tid, nr, State::Alike { call, ret, entered: false })?;
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
                    self.leaving = true;
                    self.notify(Notice::EndAgreed);
                }
                self.make(tid, call.nr, State::Exiting)?;
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
                done => done,
            }),
        }
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
        match syscalls::treatment_of(self.settings.pairing, call.nr, &call.args, &process.memory) {
            Treatment::MmapFile(_) if ret.ret > 0 => self.map_copy(tid, call, ret),
            _ => self.supply(process, tid, call, ret),
        }
    }

    /// Makes a private, anonymous mapping of its own where the leader mapped a file; the contents follow.
    pub(super) fn map_copy(&mut self, tid: Tid, call: &Call, ret: &CallReturn) -> Result<Applied> {
        let part = |piece: &Piece| (piece.addr.0.wrapping_sub(ret.ret as u64), piece.bytes.clone());
        let contents = ret.outputs.iter().map(part).collect();
        let leader = (ret.ret as u64, call.args[1]);
        let mut regs = sys::get_regs(tid)?;
        let fixed = call.args[3] & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) as u64;
        regs::undo_entry(&mut regs, call.nr);
        let original = regs;
        regs.r10 = fixed | (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        regs.r8 = u64::MAX;
        regs.r9 = 0;
        sys::set_regs(tid, &regs)?;
        let restore = [original.r10, original.r8, original.r9];
        self.go(tid, Resume::Syscall, State::Mapping { leader, contents, restore, entered: false })?;
        Ok(Applied::Done)
    }

    /// The mapping is made: fills it and gives the program its registers back.
    pub(super) fn fill_copy(&mut self, process: &Process, tid: Tid) -> Result<()> {
        let Some(Thread { state: State::Mapping { leader, contents, restore, .. }, .. }) = self.threads.get(&tid)
        else {
            return Ok(());
        };
        let mut regs = sys::get_regs(tid)?;
        [regs.r10, regs.r8, regs.r9] = *restore;
        if regs.rax as i64 > 0 {
            self.copies.insert(leader.0, regs.rax, leader.1);
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
        if elastic::lets_in(call.nr) {
            return self.let_in(tid, call).map(|()| true);
        }
        let (Some(row), Some((ret, outputs))) = (call.row, self.times.answer(call.nr, &call.args)) else {
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
        self.go(tid, Resume::Sysemu, State::Running { local: None })?;
        Ok(true)
    }

    /// Answers a read of what is each version's own, see [`proc_self`].
    pub(super) fn read_own(&mut self, process: &Process, tid: Tid, nr: u32, args: &[u64; 6]) -> Result<()> {
        let ret = match self.own_files.read(nr, args, process.pid) {
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
        let stat = self.own_files.is_stat_read_by(call.nr, &call.args).then(|| own_stat(process.pid, call, ret));
        let ret = stat.as_ref().unwrap_or(ret);
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
                    self.registrations.translate(call.args[0] as i32, &mut events);
                    process.memory.write(addr, &events)?;
                } else if i64::from(call.nr) == libc::SYS_rt_sigtimedwait {
                    let mut info = bytes.to_vec();
                    self.own_value(&mut info);
                    process.memory.write(addr, &info)?;
                } else {
                    process.memory.write(addr, &bytes)?;
                }
            }
        }
        self.copies.change(&process.memory, ret)?;
        self.note_timer(call, ret);
        self.own_files.note(call.nr, &call.args, &call.inputs, ret.ret);
        if self.suspend(process, tid, call, ret.ret)? {
            return Ok(Applied::Done);
        }
        finish(tid, call.nr, ret.ret, ret.outputs.first().map(|piece| &piece.bytes[..]))?;
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(Applied::Done) };
        thread.state = State::Running { local: None };
        thread.fault = None;
        thread.woken = 0;
        self.lived_until = self.lived_until.max(ret.at.0);
        // With a signal the kernel applies its rules of restarting to the result, as it did in the leader.
        thread.incoming = thread.at_return.take();
        let signo = thread.incoming.as_ref().map_or(0, |signal| signal.signo);
        self.hold(tid, signo, Why::Moved);
        Ok(Applied::Done)
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
            self.registrations.remove(epfd, fd);
            return;
        }
        let data = |pieces: &[Piece]| {
            let piece = pieces.iter().find(|piece| piece.arg == 3 && piece.bytes.len() == 8)?;
            Some(u64::from_ne_bytes(piece.bytes[..].try_into().ok()?))
        };
        if let (Some(leader), Some(follower)) = (data(&expected.inputs), data(&call.inputs)) {
            self.registrations.set(epfd, fd, Pair { leader, follower });
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
    [libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2].contains(&i64::from(nr))
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
