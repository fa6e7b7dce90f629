//! What is done where a thread of the leader has stopped: at the entry of a call, at its exit, before a signal, at its birth and
//! its end.

use super::*;
use crate::ptrace::breakpoint;
use crate::record::toll::moves;

/// Says what a descriptor of a process is.
fn descriptor(pid: Pid, fd: i32) -> String {
    let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}"));
    target.map_or_else(
        |_| format!(" (it has no descriptor {fd})"),
        |target| format!(" (descriptor {fd} is {})", target.display()),
    )
}

/// What came of a call that has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// It is recorded, and the thread goes on.
    Plainly,
    /// The thread goes on: perhaps to make the call again, or to be given a signal first.
    Otherwise,
    /// The thread is held.
    Held,
}

impl Leading {
    pub(crate) fn on_stop(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, stop: Stop) -> Result<()> {
        if self.settings.pairing == Pairing::Processes && stop == Stop::Event(libc::PTRACE_EVENT_EXEC) {
            return self.on_exec(process, tid);
        }
        self.note_stop();
        if !self.threads.contains_key(&tid) {
            process.on_stranger(tid, stop);
            return Ok(());
        }
        let stop = if self.bulk.has(tid) {
            self.leave_bulk(inbox, process, tid, stop)?
        } else {
            self.take_observed(process)?;
            Some(stop)
        };
        if let Some(stop) = stop
            && !self.has_to_wait(process, tid, stop)?
        {
            self.handle(inbox, process, tid, stop)?;
        }
        self.pass_turn(inbox, process, Some(tid))?;
        self.call_back()?;
        self.note_place_of_all();
        Ok(())
    }

    /// Deals with the stop of a thread that may go on.
    pub(super) fn handle(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, stop: Stop) -> Result<()> {
        self.note_times(process, tid);
        // One that is interrupted stands where the signal before was delivered.
        if !matches!(stop, Stop::Signal(_) | Stop::Interrupted)
            && let Some(thread) = self.threads.get_mut(&tid)
        {
            thread.deliverable = 0;
        }
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.stopped_by = if let Stop::Group(signo) = stop { Some(signo) } else { None };
        }
        match stop {
            Stop::Syscall => match sys::syscall_info(tid)? {
                SyscallStop::Entry { nr, args } => self.on_entry(process, tid, nr, args),
                SyscallStop::Exit { ret } => self.on_exit(inbox, process, tid, ret),
                SyscallStop::Undone | SyscallStop::Neither => self.go(tid, 0),
                SyscallStop::Foreign => {
                    self.fail(
                        Notice::Refused { call: "a 32-bit call".into(), reason: "only 64-bit calls are known".into() },
                        "",
                    );
                    self.go(tid, 0)
                }
            },
            Stop::Signal(libc::SIGTRAP) if breakpoint::is_hit(tid)? => self.go(tid, 0),
            Stop::Signal(signo) => self.on_signal(process, tid, signo),
            Stop::Group(_) => sys::resume(tid, Resume::Listen, 0),
            // The thread is new, a group stop ended, or it had left its call before it was interrupted.
            Stop::Interrupted => {
                if self.threads.get(&tid).is_some_and(|thread| thread.newborn) {
                    if self.newborn_has_to_wait(tid) {
                        return Ok(());
                    }
                    self.threads.entry(tid).and_modify(|thread| thread.newborn = false);
                    process.give_ring(tid)?;
                } else if self.holding == Some(Hold::Anywhere) && self.hold_stuck(tid) {
                    self.report_held(process);
                    return Ok(());
                }
                self.go(tid, 0)
            }
            Stop::Event(event) => self.on_event(inbox, process, tid, event),
            Stop::Exited(_) | Stop::Killed(_) => {
                self.on_end(process, tid, stop);
                Ok(())
            }
        }
    }

    /// Records what a thread was told of the time since its last stop.
    pub(super) fn note_times(&mut self, process: &Process, tid: Tid) {
        let (Some(ring), Some(slot)) = (process.ring(tid), process.slot(tid)) else { return };
        for answer in ring.take_noted() {
            if !self.failed {
                self.stream.emit(slot, time_told(&answer));
            }
        }
    }

    pub(super) fn on_entry(&mut self, process: &mut Process, tid: Tid, nr: u32, args: [u64; 6]) -> Result<()> {
        if process.ring(tid).is_some_and(|ring| ring.is_asking()) {
            // The original function makes the call for the agent, which notes the answer.
            return self.go(tid, 0);
        }
        self.no_signal_came(process, tid);
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        let slot = thread.slot;
        if self.give_postponed(process, tid, nr, &args)? {
            return Ok(());
        }
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        if i64::from(nr) == libc::SYS_rt_sigreturn {
            thread.fault = None;
        }
        let restart = i64::from(nr) == libc::SYS_restart_syscall;
        let limit = match &thread.state {
            State::Restarting { call, .. } if (call.entry.nr, call.entry.args) == (nr, args) => call.limit,
            State::Restarting { .. }
            | State::Running
            | State::InCall(_)
            | State::Interrupted(..)
            | State::Held { .. }
            | State::Executed => None,
        };
        let (mut call, written) = match std::mem::replace(&mut thread.state, State::Running) {
            State::Restarting { call, written: true } if restart || call.entry.nr == nr => (call, true),
            // What the kernel has written into it since is how much of its time is left, which the follower knows nothing of.
            State::Restarting { call, written: false }
                if (call.entry.nr, call.entry.args) == (nr, args) && regs::shortens(nr) =>
            {
                (call, false)
            }
            State::Restarting { call, .. } if restart => {
                (Box::new(self.begin(call.entry.nr, call.entry.args, &process.memory)), false)
            }
            State::Restarting { .. }
            | State::Running
            | State::InCall(_)
            | State::Interrupted(..)
            | State::Held { .. }
            | State::Executed => (Box::new(self.begin(nr, args, &process.memory)), false),
        };
        call.limit = limit;
        call.lets_in = lets_in(self.settings.pairing, tid, nr, &args, &process.memory)?;
        if let Treatment::Refuse(reason) = call.treatment {
            let call = syscalls::format::Refused { nr, args: &args }.to_string();
            // A request means something else on each kind of descriptor.
            let on = (i64::from(nr) == libc::SYS_ioctl).then(|| descriptor(process.pid, args[0] as i32));
            self.fail(Notice::Refused { call, reason: format!("{reason}{}", on.unwrap_or_default()) }, reason);
            if i64::from(nr) == libc::SYS_prctl && args[0] as i32 == libc::PR_SET_TSC {
                // What reading the clock does in this thread is the program's choice from now on.
                process.footprint.clock.own.insert(tid);
            }
        }
        match call.treatment {
            // The kernel answers a number that it does not know with ENOSYS.
            Treatment::Absent(_) => sys::set_number(tid, -1)?,
            Treatment::Exec(_) => {
                if let Some(thread) = self.threads.get_mut(&tid) {
                    thread.program = Some(processes::Target::of(process.pid, &call.entry));
                }
            }
            Treatment::Row(_)
            | Treatment::ThreadClone(_)
            | Treatment::GhostFork(_)
            | Treatment::Fork(_)
            | Treatment::Alike(_)
            | Treatment::MmapFile(_)
            | Treatment::Restart(_)
            | Treatment::Refuse(_) => {}
        }
        if self.holding.is_some() && call.order().is_some() && !call.lets_in {
            thread_state(&mut self.threads, tid, State::Held { call: Some(call), at: HeldAt::Entry, written });
            self.report_held(process);
            return Ok(());
        }
        if call.order().is_some()
            && self.is_held_at_end()
            && let Some(signo) = self.comes_from_fault(tid)?
        {
            self.stream.flush();
            thread_state(&mut self.threads, tid, State::Held { call: Some(call), at: HeldAt::Entry, written });
            self.notify(Notice::LeaderHandles { slot, signo });
            return Ok(());
        }
        self.make_call(process, tid, slot, call, written)
    }

    /// Says whether a thread is in the handler of a fault of its own, and has made no call by that; once for each fault.
    fn comes_from_fault(&mut self, tid: Tid) -> Result<Option<i32>> {
        let Some(fault) = self.threads.get_mut(&tid).and_then(|thread| thread.fault.take()) else { return Ok(None) };
        Ok(fault.is_handled_at(sys::get_regs(tid)?.rsp).then_some(fault.signo))
    }

    /// Lets a thread make the call that it stands before. In lockstep an output stays there until the followers have agreed to
    /// all that was written; so does one that is in the stream already, of which nobody knows here whether they have.
    pub(super) fn make_call(
        &mut self,
        process: &Process,
        tid: Tid,
        slot: Slot,
        mut call: Box<Call>,
        written: bool,
    ) -> Result<()> {
        if call.order() == Some(Order::ByEntry) && !written && !self.failed {
            self.stream.enter(slot, call.entry.clone());
        }
        if self.ends_process(&call) && self.is_held_at_end() {
            self.stream.flush();
            let status = call.entry.args[0] as i32;
            thread_state(&mut self.threads, tid, State::Held { call: Some(call), at: HeldAt::Entry, written: true });
            self.notify(Notice::LeaderEnds { status });
            return Ok(());
        }
        call.given = self.begin_reading(process, tid, &call.entry)?;
        let output = matches!(call.treatment, Treatment::Row(row) if row.class == Class::Compare);
        thread_state(&mut self.threads, tid, State::InCall(call));
        if self.awaiting.iter().any(|(_, awaiting)| *awaiting == tid) {
            // Here again, after it was held.
            return Ok(());
        }
        if output
            && !self.failed
            && let Some(agreed) = self.agreed()
            && let Some(seq) = self.stream.flush()
            && seq.0 >= agreed
        {
            self.awaiting.push((seq, tid));
            return Ok(());
        }
        self.go(tid, 0)
    }

    pub(super) fn on_exit(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, ret: i64) -> Result<()> {
        match self.on_return(inbox, process, tid, ret)? {
            Returned::Plainly if self.may_run_in_bulk(process, tid) => self.run_in_bulk(process, tid),
            Returned::Plainly | Returned::Otherwise => self.go(tid, 0),
            Returned::Held => Ok(()),
        }
    }

    /// Deals with the return of the call that a thread is in.
    pub(super) fn on_return(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, ret: i64) -> Result<Returned> {
        self.hand_over_blocked(tid)?;
        let signals = match self.threads.get(&tid).map(|thread| &thread.state) {
            Some(State::InCall(call)) => self.looks_for_signals(tid, call)?,
            _ => false,
        };
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(Returned::Held) };
        let slot = thread.slot;
        match std::mem::replace(&mut thread.state, State::Running) {
            State::InCall(mut call) if call.given.is_some() => {
                if let Some(given) = call.given.take() {
                    self.end_reading(process, tid, &call, &given, ret)?;
                }
            }
            State::InCall(call) if call.lets_in => {
                if sys::has_open_signal(tid)? && process::has_caught_signal(process.pid, tid)? {
                    thread_state(&mut self.threads, tid, State::Interrupted(call, ret));
                } else {
                    self.finish(process, tid, &call, ret);
                }
            }
            State::InCall(mut call) if regs::is_interrupted(ret) && !regs::is_over(call.entry.nr, ret) => {
                call.note_limit(process, ret);
                match process::rewind(process.pid, tid)? {
                    Rewinding::Rewound(_) if let Some(result) = call.says_in_the_end() => {
                        let mut regs = sys::get_regs(tid)?;
                        regs::end_rewound(&mut regs, result);
                        sys::set_regs(tid, &regs)?;
                        self.finish(process, tid, &call, result);
                    }
                    Rewinding::Rewound(rewound) => {
                        self.restart(tid, slot, call);
                        if self.holding.is_some() {
                            self.hold_rewound(process, tid, rewound);
                            return Ok(Returned::Held);
                        }
                    }
                    Rewinding::SignalComes => thread_state(&mut self.threads, tid, State::Interrupted(call, ret)),
                    // A handler has run before the thread could go on with it, and that has ended it.
                    Rewinding::NotInCall => self.finish(process, tid, &call, ret),
                }
            }
            // It may have signalled itself: then the handler runs before the program sees the result.
            State::InCall(call) if signals && process::has_caught_signal(process.pid, tid)? => {
                thread_state(&mut self.threads, tid, State::Interrupted(call, ret));
            }
            State::InCall(call) => {
                self.stop_at_reads(process, &call, ret)?;
                self.finish(process, tid, &call, ret);
                self.bulk.note_plain();
                return Ok(Returned::Plainly);
            }
            State::Executed => self.begin_program(inbox, process, tid),
            // The exit of an entry that was undone.
            other @ (State::Running | State::Interrupted(..) | State::Restarting { .. } | State::Held { .. }) => {
                thread.state = other;
            }
        }
        self.bulk.note_odd();
        Ok(Returned::Otherwise)
    }

    /// Records the end of a call, of a thread that stands still.
    pub(super) fn finish(&mut self, process: &Process, tid: Tid, call: &Call, ret: i64) {
        let (Some(order), Some(slot)) = (call.order(), process.slot(tid)) else { return };
        let Some(ret) = self.returned(process, call, ret, &process.memory) else { return };
        let ret = CallReturn { at: now(), ..ret };
        match order {
            Order::ByEntry => self.stream.leave(slot, ret),
            Order::ByExit => self.stream.emit(slot, Event::Call(call.entry.clone(), ret)),
        }
        if self.holding.is_none() {
            self.settings.pace.keep();
        }
    }

    /// Returns what a call that is recorded has returned; `memory` is that of the program after it.
    pub(super) fn returned<M>(&mut self, process: &Process, call: &Call, ret: i64, memory: &M) -> Option<CallReturn>
    where
        M: regions::Memory + ?Sized,
    {
        let row = call.row().filter(|_| !self.failed)?;
        let mut capture = Capture::new(memory, PieceDir::Out);
        let after = regions::After::Executed(&call.notes);
        regions::outputs(row, &call.entry.args, ret, after, memory, &mut |region| capture.piece(region));
        if let Treatment::MmapFile(_) = call.treatment
            && ret > 0
        {
            let [_, len, _, _, fd, offset] = call.entry.args;
            let file = format!("/proc/{}/fd/{}", process.pid, fd as i32);
            capture.mapped(Path::new(&file), offset, (ret as u64, len), &process.footprint.clock);
        }
        self.mapped.note(process, call, ret);
        self.mapped.capture(process, &call.entry, ret, &mut capture);
        if capture.cut {
            let name = syscalls::name(call.entry.nr).unwrap_or("a call").to_owned();
            self.fail(Notice::Refused { call: name, reason: TOO_MUCH.to_owned() }, TOO_MUCH);
            return None;
        }
        if ret >= 0 && moves(call.entry.nr) {
            self.settings.pace.toll.moved();
        }
        Some(CallReturn { ret, outputs: capture.pieces, at: Nanos(0) })
    }

    pub(super) fn on_signal(&mut self, process: &mut Process, tid: Tid, signo: i32) -> Result<()> {
        let Some(slot) = process.slot(tid) else { return Ok(()) };
        if let Some(nr) = tsc::trapped(tid, signo, &process.memory, &process.footprint.clock)? {
            return self.read_counter(slot, tid, nr);
        }
        let caught = procfs::signals(process.pid, tid)?.caught & signal_bit(signo) != 0;
        if caught && signo != libc::SIGBUS && sys::is_fault(signo, &sys::get_siginfo(tid)?) {
            // Its own business: the other version has faults of its own, at other places perhaps. Not so behind the end of a
            // mapped file, of which the follower has a copy that does not end with it.
            process.make_room_for_signal(tid)?;
            let rsp = sys::get_regs(tid)?.rsp;
            if let Some(thread) = self.threads.get_mut(&tid) {
                thread.fault = Some(Fault::at(signo, rsp));
            }
            return self.go(tid, signo);
        }
        if caught && self.postpone(process.pid, tid, signo)? {
            return self.go(tid, 0);
        }
        let state = match self.threads.get_mut(&tid) {
            Some(thread) => std::mem::replace(&mut thread.state, State::Running),
            None => return Ok(()),
        };
        if !caught && is_crash(signo) && !self.failed && self.is_held_at_crash(tid, signo)? {
            if self.settings.pairing == Pairing::Processes {
                // A call by which it sends itself the signal is none that a successor has to make.
                self.stream.take_back(slot);
            }
            thread_state(&mut self.threads, tid, State::Held { call: None, at: HeldAt::Crash(signo), written: false });
            self.notify(Notice::LeaderCrashed { signo });
            return Ok(());
        }
        match state {
            State::Interrupted(call, ret) if caught => {
                // The signal stands before the return, so that the follower knows of it when it is answered.
                let delivery = if call.order().is_some() { Delivery::AtReturn } else { Delivery::InOwnCall };
                self.record_signal(process, (tid, slot), signo, delivery)?;
                self.finish(process, tid, &call, ret);
            }
            // One that the program does not notice came first.
            State::Interrupted(call, ret) if call.lets_in && process::has_caught_signal(process.pid, tid)? => {
                thread_state(&mut self.threads, tid, State::Interrupted(call, ret));
            }
            State::Interrupted(call, ret) if call.lets_in || !regs::is_interrupted(ret) => {
                self.finish(process, tid, &call, ret);
            }
            // It has not gone on with the call that we rewound: the signal interrupts that call, as it would without us.
            State::Restarting { call, written } if caught && interrupt_again(tid, &call)? => {
                if call.order() == Some(Order::ByEntry) && !written && !self.failed {
                    self.stream.enter(slot, call.entry.clone());
                }
                let delivery = if call.order().is_some() { Delivery::AtReturn } else { Delivery::InOwnCall };
                self.record_signal(process, (tid, slot), signo, delivery)?;
                self.finish(process, tid, &call, regs::ERESTART_RESTARTBLOCK);
            }
            State::Interrupted(call, ret) => {
                if ret == regs::EINTR {
                    let mut regs = sys::get_regs(tid)?;
                    regs::rewind(&mut regs, regs::Eintr::Ours);
                    sys::set_regs(tid, &regs)?;
                }
                self.restart(tid, slot, call);
            }
            other @ (State::Running
            | State::InCall(_)
            | State::Restarting { .. }
            | State::Held { .. }
            | State::Executed) => {
                if caught {
                    let at_once = self.threads.get(&tid).is_some_and(|t| t.deliverable & signal_bit(signo) != 0);
                    let delivery = if at_once { Delivery::AtOnce } else { Delivery::BeforeNextCall };
                    self.record_signal(process, (tid, slot), signo, delivery)?;
                }
                thread_state(&mut self.threads, tid, other);
            }
        }
        if caught {
            process.make_room_for_signal(tid)?;
        }
        self.go(tid, signo)
    }

    /// Reads the processor's clock for a thread that may not do so itself.
    pub(super) fn read_counter(&mut self, slot: Slot, tid: Tid, nr: u32) -> Result<()> {
        let reading = tsc::read();
        let mut regs = sys::get_regs(tid)?;
        tsc::execute(&mut regs, nr, reading);
        sys::set_regs(tid, &regs)?;
        if !self.failed {
            self.stream.emit(slot, counter_read(nr, reading));
        }
        self.go(tid, 0)
    }

    pub(super) fn record_signal(
        &mut self,
        process: &Process,
        (tid, slot): (Tid, Slot),
        signo: i32,
        delivery: Delivery,
    ) -> Result<()> {
        let siginfo = Bytes::copy_from_slice(&sys::get_siginfo(tid)?);
        let deliverable = letting_in::deliverable(process, tid)?;
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.deliverable = deliverable;
        }
        if !self.failed {
            let more = deliverable != 0;
            self.stream.emit(slot, Event::Signal(SignalRecord { delivery, signo, more, siginfo }));
        }
        Ok(())
    }

    /// A thread was to be given a signal, and comes to a call without it: another thread was given it.
    pub(super) fn no_signal_came(&mut self, process: &Process, tid: Tid) {
        let Some(thread) = self.threads.get_mut(&tid).filter(|thread| matches!(thread.state, State::Interrupted(..)))
        else {
            return;
        };
        let slot = thread.slot;
        if let State::Interrupted(call, ret) = std::mem::replace(&mut thread.state, State::Running) {
            // A call that lets signals in was left as the kernel ended it.
            if regs::is_interrupted(ret) && !(call.lets_in && ret == regs::EINTR) {
                self.restart(tid, slot, call);
            } else {
                self.finish(process, tid, &call, ret);
            }
        }
    }

    pub(super) fn restart(&mut self, tid: Tid, slot: Slot, call: Box<Call>) {
        let written = call.order() == Some(Order::ByEntry) && !self.stream.take_back(slot);
        thread_state(&mut self.threads, tid, State::Restarting { call, written });
    }

    pub(super) fn on_event(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, event: i32) -> Result<()> {
        match event {
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                let child = Tid(sys::event_message(tid)? as i32);
                let born = self.on_birth(inbox, process, tid, child);
                // The parent goes on whatever became of the child.
                self.go(tid, 0)?;
                return born;
            }
            libc::PTRACE_EVENT_EXEC => {
                let reason = "the target replaced its program";
                self.fail(Notice::Refused { call: "execve".into(), reason: reason.into() }, reason);
            }
            _ => {}
        }
        self.go(tid, 0)
    }

    pub(super) fn on_birth(&mut self, inbox: &Inbox, process: &mut Process, parent: Tid, child: Tid) -> Result<()> {
        let (is_thread, shares_memory) = match self.threads.get(&parent).map(|thread| &thread.state) {
            Some(State::InCall(call)) => {
                let args = call.entry.args;
                let flags = match i64::from(call.entry.nr) {
                    libc::SYS_clone => args[0],
                    // What cannot be read any more is taken for the parent's memory, which is to stay as it is.
                    libc::SYS_clone3 => process.memory.read_u64(args[0]).unwrap_or(libc::CLONE_VM as u64),
                    libc::SYS_vfork => (libc::CLONE_VM | libc::CLONE_VFORK) as u64,
                    _ => 0,
                };
                (flags & libc::CLONE_THREAD as u64 != 0, flags & libc::CLONE_VM as u64 != 0)
            }
            _ => (false, false),
        };
        // One that is made by a call which is not followed is a thread of the process all the same.
        if is_thread {
            let slot = process.new_slot(child);
            self.threads.insert(child, Thread { newborn: true, ..Thread::new(slot, State::Running) });
            if let Some(parent) = process.slot(parent)
                && !self.failed
            {
                self.stream.emit(parent, Event::ThreadStarted { child: slot, tid: child.0 });
            }
            if stands(inbox, child) && !self.newborn_has_to_wait(child) {
                self.threads.entry(child).and_modify(|thread| thread.newborn = false);
                process.give_ring(child)?;
                self.go(child, 0)?;
            }
            return Ok(());
        }
        let kind = if shares_memory { Ghost::SharedMemory } else { Ghost::OwnMemory };
        if self.settings.pairing == Pairing::Processes {
            self.births.push(processes::Birth::of(process, child, kind));
            return self.emit_birth(process, parent, child);
        }
        process.on_child(inbox, child, kind);
        Ok(())
    }

    pub(super) fn on_end(&mut self, process: &mut Process, tid: Tid, stop: Stop) {
        let Some(slot) = process.slot(tid) else { return };
        let left = self.threads.remove(&tid).is_some_and(|thread| thread.is_leaving());
        process.forget(tid);
        self.serial.forget(tid);
        if self.settings.pairing == Pairing::Processes {
            return self.on_paired_end(slot, left, stop);
        }
        if tid == process.pid.main() || self.threads.is_empty() {
            self.fail(Notice::LeaderEnded { status: stop.to_string() }, "the leader ended");
        } else if left && !self.failed {
            // One that did not leave ends with its process, of which the last thread tells.
            self.stream.emit(slot, Event::ThreadEnded);
        }
        self.report_held(process);
    }
}
