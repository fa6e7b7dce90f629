//! What is done where a thread of the follower has stopped: at a call, at its end, before a signal, by request.

use super::real::{RealCall, What};
use super::*;

impl Following {
    pub(crate) fn on_stop(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, stop: Stop) -> Result<()> {
        if stop == Stop::Event(libc::PTRACE_EVENT_EXEC) && self.settings.pairing == Pairing::Processes {
            return self.on_exec(process, tid);
        }
        if !self.threads.contains_key(&tid) {
            if !stop.is_end() {
                self.kin.orphans.push(tid);
                return self.advance(process);
            }
            return Ok(());
        }
        // At the entry of a call a thread is not in the agent any more.
        let signo = if let Stop::Signal(signo) = stop { signo } else { 0 };
        let left_agent = !stop.is_end() && stop != Stop::Syscall && self.leave_agent(tid, signo)?;
        self.count_told(process, tid);
        if let Some(drain) = &mut self.drain {
            drain.interrupted.remove(&tid);
        }
        match stop {
            Stop::Syscall => match sys::syscall_info(tid)? {
                SyscallStop::Entry { nr, args } => match self.look_at_site(inbox, process, tid, (nr, &args))? {
                    true => Ok(()),
                    false => self.on_entry(process, tid, nr, args),
                },
                SyscallStop::Undone => sys::resume(tid, Resume::Sysemu, 0),
                SyscallStop::Foreign => {
                    let Some(slot) = process.slot(tid) else { return Ok(()) };
                    let reason = "only 64-bit calls are known".to_owned();
                    let kind = DivergenceKind::Refused { call: "a 32-bit call".into(), reason };
                    let divergence = self.describe(slot, kind, self.due.first_of(slot), None);
                    self.diverge(process, divergence);
                    Ok(())
                }
                SyscallStop::Exit { ret } => self.on_exit(inbox, process, tid, ret),
                SyscallStop::Neither => self.on_exit(inbox, process, tid, 0),
            },
            // What the program's call points at is not mapped, which the call itself says; or its site was just given back.
            Stop::Signal(signo) if left_agent && sys::is_fault(signo, &sys::get_siginfo(tid)?) => {
                sys::resume(tid, Resume::Sysemu, 0)
            }
            Stop::Signal(signo) => self.on_signal(process, tid, signo),
            Stop::Interrupted | Stop::Group(_) => self.on_interrupted(process, tid),
            Stop::Event(libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK) => {
                let child = Tid(sys::event_message(tid)? as i32);
                match self.threads.get_mut(&tid).map(|thread| &mut thread.state) {
                    Some(State::Real(RealCall { what: What::Process(forking), .. })) => forking.born = Some(child),
                    Some(State::Real(RealCall { what: What::Thread(newborn), .. })) => newborn.born = Some(child),
                    _ => {}
                }
                sys::resume(tid, Resume::Syscall, 0)?;
                self.advance(process)
            }
            Stop::Event(_) => sys::resume(tid, Resume::Sysemu, 0),
            Stop::Exited(_) | Stop::Killed(_) => {
                self.on_end(process, tid, stop);
                self.advance(process)
            }
        }
    }

    pub(crate) fn on_bell(&mut self, process: &mut Process) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.count_running(process);
        self.show_answered();
        self.advance(process)?;
        self.check_progress(process)
    }

    pub(super) fn on_entry(&mut self, process: &mut Process, tid: Tid, nr: u32, args: [u64; 6]) -> Result<()> {
        self.turn(tid, Turn::Going);
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        thread.seat.overdue = false;
        if let State::Real(_) = thread.state {
            return self.enter_real(process, tid, nr, &args);
        }
        let counts = matches!(thread.counting, Counting::Follower(_));
        if self.on_own_entry(process, tid, nr, args)? || (counts && self.count_on(process, tid, nr, &args)?) {
            return Ok(());
        }
        let Some(thread) = self.threads.get(&tid) else { return Ok(()) };
        let treatment = match self.ordered(nr, &args).filter(|_| !self.is_on_its_own()) {
            Some((row, _)) => Treatment::Row(row),
            None => syscalls::treatment_of(self.settings.pairing, nr, &args, &process.memory),
        };
        match treatment {
            Treatment::Absent(_) => {
                sys::set_result(tid, -i64::from(libc::ENOSYS))?;
                return self.go(tid, Resume::Sysemu, State::Running { local: None });
            }
            Treatment::Row(row)
                if row.class == Class::Local
                    && (self.is_on_its_own() || !lets_in(self.settings.pairing, tid, nr, &args, &process.memory)?) =>
            {
                if self.change_copies(process, tid, nr, &args)? {
                    return Ok(());
                }
                return self.make(tid, nr, State::real(What::Own { nr }));
            }
            // A timed call of its own goes on, with what is left of its time.
            Treatment::Restart(_) => {
                let original = if let State::Running { local: Some(original) } = thread.state { original } else { nr };
                return self.make(tid, nr, State::real(What::Own { nr: original }));
            }
            Treatment::Row(_)
            | Treatment::ThreadClone(_)
            | Treatment::GhostFork(_)
            | Treatment::Fork(_)
            | Treatment::Exec(_)
            | Treatment::Alike(_)
            | Treatment::MmapFile(_)
            | Treatment::Refuse(_) => {}
        }
        if self.known.own_files.is_read_by(nr, &args) {
            return self.read_own(process, tid, nr, &args);
        }
        let row = treatment.row();
        let inputs = row.map(|row| capture_inputs(row, &args, &process.memory)).unwrap_or_default();
        self.state(tid, State::AtCall(Box::new(Call { nr, args, row, inputs, since: Instant::now() })));
        self.advance(process)
    }

    /// Rewinds a thread so that it makes its call for real.
    pub(super) fn make(&mut self, tid: Tid, nr: u32, state: State) -> Result<()> {
        let mut regs = sys::get_regs(tid)?;
        regs::undo_entry(&mut regs, nr);
        sys::set_regs(tid, &regs)?;
        self.go(tid, Resume::Syscall, state)
    }

    pub(super) fn on_exit(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, ret: i64) -> Result<()> {
        if self.leave_real(inbox, process, tid, ret)? {
            return Ok(());
        }
        if let Some(Thread { seat: Seat { turn: Turn::Asleep { limit, ending, .. }, .. }, .. }) = self.threads.get(&tid)
        {
            let wait = (*limit, *ending);
            return self.on_waited(process, tid, ret, wait);
        }
        sys::resume(tid, Resume::Sysemu, 0)
    }

    pub(super) fn on_signal(&mut self, process: &mut Process, tid: Tid, signo: i32) -> Result<()> {
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        let slot = thread.slot;
        if let Some(nr) = tsc::trapped(tid, signo, &process.memory, &process.footprint.clock)? {
            let call = Call { nr, args: [0; 6], row: None, inputs: Vec::new(), since: Instant::now() };
            self.turn(tid, Turn::Going);
            self.state(tid, State::AtCall(Box::new(call)));
            return self.advance(process);
        }
        if self.on_incoming(process, tid, signo)? {
            return Ok(());
        }
        let Some(thread) = self.threads.get(&tid) else { return Ok(()) };
        let info = sys::get_siginfo(tid)?;
        if !sys::is_fault(signo, &info) {
            // From outside, to a process that nobody knows: the leader got its own.
            return sys::resume(tid, thread.next_stop(), 0);
        }
        let mut address = [0; 8];
        address.copy_from_slice(&info[16..24]);
        let kind = DivergenceKind::Crash { signo, address: u64::from_ne_bytes(address) };
        if signo == libc::SIGBUS {
            while self.due.first_of(slot).is_none() && self.fetch() {}
            let same = |record: &Record| matches!(&record.event, Event::Signal(due) if due.signo == signo);
            if self.due.first_of(slot).is_some_and(same) {
                self.consume(slot);
                self.state(tid, State::Running { local: None });
                self.leave_site(process, tid)?;
                process.make_room_for_signal(tid)?;
                return sys::resume(tid, Resume::Sysemu, signo);
            }
        }
        if procfs::signals(process.pid, tid)?.caught & procfs::signal_bit(signo) != 0 {
            // What a program has a handler for is its own business. (A virtual machine stops its threads so, each at the place
            // where it happens to be.) If it was a crash all the same, the next call tells.
            if let Some(thread) = self.threads.get_mut(&tid) {
                thread.fault = Some(Box::new(kind));
            }
            self.leave_site(process, tid)?;
            process.make_room_for_signal(tid)?;
            return sys::resume(tid, Resume::Sysemu, signo);
        }
        if self.settings.pairing == Pairing::Processes {
            // Perhaps the leader ends by the same fault: its next record tells.
            self.state(tid, State::Faulted(Box::new(kind)));
            return self.advance(process);
        }
        let divergence = self.describe(slot, kind, self.due.first_of(slot), None);
        self.diverge(process, divergence);
        Ok(())
    }

    pub(super) fn on_interrupted(&mut self, process: &mut Process, tid: Tid) -> Result<()> {
        if self.on_stuck(process, tid) {
            return Ok(());
        }
        let draining = self.drain.is_some();
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        if let State::Running { local: Some(_) } = thread.state
            && draining
            && let Rewinding::Rewound(rewound) = process::rewind(process.pid, tid)?
        {
            thread.state = State::Parked(rewound);
            return self.advance(process);
        }
        let how = thread.next_stop();
        if how == Resume::Sysemu {
            thread.seat.turn = Turn::Going;
        }
        sys::resume(tid, how, 0)
    }

    pub(super) fn on_end(&mut self, process: &mut Process, tid: Tid, stop: Stop) {
        let Some(thread) = self.threads.remove(&tid) else { return };
        process.forget(tid);
        if let Some(sites) = self.agent.sites() {
            sites.forget(tid);
        }
        if !thread.last_record_seen {
            self.kin.gone.insert(thread.slot);
        }
        let expected = matches!(thread.state, State::Real(RealCall { what: What::End, .. })) || self.kin.leaving;
        if expected || self.kin.finished.is_some() || self.is_executing() {
            if thread.last_record_seen {
                self.past.trail.forget(thread.slot);
                self.past.situations.forget(thread.slot);
            }
            return;
        }
        let kind = DivergenceKind::Gone { status: stop.to_string() };
        let divergence = self.describe(thread.slot, kind, None, None);
        self.diverge(process, divergence);
    }
}
