//! Holding the leader: every thread is brought to a place at which the versions can be swapped, and let go again.

use super::*;

/// Where a held thread stands.
#[derive(Clone, Debug)]
pub(crate) enum HeldAt {
    /// At the entry of a call that has not been made.
    Entry,
    /// Rewound out of a call.
    Rewound(Rewound),
    /// At the delivery of a signal that ends the program.
    Crash(i32),
    /// In user code, wherever it was interrupted. It is not to go on from there as a leader's would.
    Stuck,
}

/// How threads are brought to where they can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// At their next calls, so that they can go on as if nothing had been.
    AtCalls,
    /// At once, also in the middle of user code: the version will not be needed any more.
    Anywhere,
}

/// What the follower must match before the roles are swapped.
#[derive(Clone, Debug)]
pub(crate) struct HeldThread {
    pub(crate) slot: Slot,
    pub(crate) tid: Tid,
    pub(crate) at: HeldAt,
    /// The call that would be made next, with its inputs; `None` after a crash in user code.
    pub(crate) call: Option<CallEntry>,
    /// Whether each version makes this call for itself.
    pub(crate) local: bool,
    /// The entry is in the log already: the follower has agreed to it or will.
    pub(crate) written: bool,
}

/// Rewinds held threads to before their calls, so that their process can be given another role, or another image.
pub(crate) fn rewind(held: &[HeldThread]) -> Result<Vec<(Tid, Slot, Option<Rewound>)>> {
    let mut threads = Vec::new();
    for thread in held {
        let mut regs = sys::get_regs(thread.tid)?;
        let rewound = match (&thread.at, &thread.call) {
            (HeldAt::Entry, Some(call)) => {
                // Unless it was rewound already, to execute a call of ours.
                if let SyscallStop::Entry { nr, .. } = sys::syscall_info(thread.tid)? {
                    regs::undo_entry(&mut regs, nr);
                    sys::set_regs(thread.tid, &regs)?;
                }
                Some(Rewound { nr: call.nr, args: call.args })
            }
            // The kernel may call it restart_syscall by now; the recorder knows better.
            (HeldAt::Rewound(_), Some(call)) => Some(Rewound { nr: call.nr, args: call.args }),
            (HeldAt::Rewound(rewound), None) => Some(*rewound),
            (HeldAt::Entry | HeldAt::Crash(_) | HeldAt::Stuck, _) => None,
        };
        threads.push((thread.tid, thread.slot, rewound));
    }
    Ok(threads)
}

impl Leading {
    /// Brings every thread to a place at which the versions can be swapped; [`Notice::Held`] follows.
    pub(crate) fn hold(&mut self, process: &mut Process, hold: Hold) -> Result<()> {
        self.holding = Some(hold);
        self.held_reported = false;
        // Outputs that nobody has agreed to yet are entered and not made.
        for (_, tid) in &self.awaiting {
            if let Some(thread) = self.threads.get_mut(tid)
                && let State::InCall(call) = std::mem::replace(&mut thread.state, State::Running)
            {
                thread.state = State::Held { call: Some(call), at: HeldAt::Entry, written: true };
            }
        }
        self.interrupt_calls()?;
        self.call_back()?;
        self.report_held(process);
        Ok(())
    }

    /// Holds a thread that was interrupted in user code; says whether it was there.
    pub(super) fn hold_stuck(&mut self, tid: Tid) -> bool {
        let Some(thread) = self.threads.get_mut(&tid) else { return false };
        let stuck = matches!(thread.state, State::Running);
        if stuck {
            thread.state = State::Held { call: None, at: HeldAt::Stuck, written: false };
        }
        stuck
    }

    pub(super) fn hold_rewound(&mut self, process: &mut Process, tid: Tid, rewound: Rewound) {
        let Some(thread) = self.threads.get_mut(&tid) else { return };
        if let State::Restarting { call, written } = std::mem::replace(&mut thread.state, State::Running) {
            thread.state = State::Held { call: Some(call), at: HeldAt::Rewound(rewound), written };
        }
        self.report_held(process);
    }

    /// Says whether a call ends the process.
    pub(super) fn ends_process(&self, call: &Call) -> bool {
        match i64::from(call.entry.nr) {
            libc::SYS_exit_group => true,
            libc::SYS_exit => self.threads.len() == 1,
            _ => false,
        }
    }

    /// Says whether a process that is about to end is kept from it until it is known whether its follower does the same.
    pub(super) fn is_held_at_end(&self) -> bool {
        let Settings { on_crash, pairing, .. } = self.settings;
        on_crash == OnCrash::Hold && pairing == Pairing::Threads && !self.failed && !self.may_end
    }

    /// Lets threads go on that are held because they handle faults.
    pub(crate) fn let_handle(&mut self, process: &Process) -> Result<()> {
        if self.holding.is_some() {
            // They go on when nobody is held any more.
            return Ok(());
        }
        let held = |thread: &Thread| {
            thread.state.held_before().is_some_and(|(call, at)| matches!(at, HeldAt::Entry) && !self.ends_process(call))
        };
        let tids: Vec<Tid> = self.threads.iter().filter(|(_, thread)| held(thread)).map(|(tid, _)| *tid).collect();
        tids.into_iter().try_for_each(|tid| self.release_one(process, tid))
    }

    /// Lets the process end that was held before that.
    pub(crate) fn let_end(&mut self, process: &Process) -> Result<()> {
        self.may_end = true;
        if self.holding.is_some() {
            // It goes on when nobody is held any more.
            return Ok(());
        }
        let ends = |thread: &Thread| thread.state.held_before().is_some_and(|(call, _)| self.ends_process(call));
        let tids: Vec<Tid> = self.threads.iter().filter(|(_, thread)| ends(thread)).map(|(tid, _)| *tid).collect();
        tids.into_iter().try_for_each(|tid| self.release_one(process, tid))
    }

    /// Gets threads out of calls that may block. Called again and again while holding: a thread may have entered another one.
    pub(super) fn interrupt_calls(&self) -> Result<()> {
        for (tid, thread) in &self.threads {
            let running = self.holding == Some(Hold::Anywhere) && matches!(thread.state, State::Running);
            if running || matches!(thread.state, State::InCall(_)) {
                match sys::interrupt(*tid) {
                    Err(error) if !error.is_gone() => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    pub(super) fn report_held(&mut self, _process: &Process) {
        if self.holding.is_some()
            && !self.held_reported
            && self.threads.values().all(|thread| matches!(thread.state, State::Held { .. }))
        {
            self.held_reported = true;
            self.stream.flush();
            self.notify(Notice::Held);
        }
    }

    /// Says whether all threads are held.
    pub(crate) fn is_held(&self) -> bool {
        self.holding.is_some() && self.held_reported
    }

    /// Says which threads are not held yet and what they are doing, for a wait that ran out.
    pub(crate) fn not_held(&self) -> Vec<String> {
        let call = |call: &Call| syscalls::name(call.entry.nr).unwrap_or("an unknown call").to_owned();
        self.threads
            .iter()
            .filter_map(|(tid, thread)| match &thread.state {
                State::Held { .. } => None,
                _ if let Some(signo) = thread.stopped_by => {
                    Some(format!("thread {tid} is stopped by signal {signo}, until it is sent SIGCONT"))
                }
                State::Executed => Some(format!("thread {tid} begins another program")),
                State::Running => Some(format!("thread {tid} computes and makes no call")),
                State::InCall(at) | State::Interrupted(at, _) | State::Restarting { call: at, .. } => {
                    Some(format!("thread {tid} is in {}({:#x}, …)", call(at), at.entry.args[0]))
                }
            })
            .collect()
    }

    /// Returns where the held threads stand and how many records the follower must have lived through.
    pub(crate) fn held(&self) -> (Vec<HeldThread>, u64) {
        let threads = self
            .threads
            .iter()
            .filter_map(|(tid, thread)| match &thread.state {
                State::Held { call, at, written } => Some(HeldThread {
                    slot: thread.slot,
                    tid: *tid,
                    at: at.clone(),
                    call: call.as_ref().map(|call| call.entry.clone()),
                    local: call.as_ref().is_some_and(|call| call.order().is_none()),
                    written: *written,
                }),
                State::Running
                | State::InCall(_)
                | State::Interrupted(..)
                | State::Restarting { .. }
                | State::Executed => None,
            })
            .collect();
        (threads, self.stream.written())
    }

    /// Undoes [`Leading::hold`]: everything goes on as if nobody had asked.
    pub(crate) fn release_hold(&mut self, process: &mut Process) -> Result<()> {
        self.holding = None;
        let tids: Vec<Tid> = self.threads.keys().copied().collect();
        tids.into_iter().try_for_each(|tid| self.release_one(process, tid))?;
        self.look_again(process)
    }

    fn release_one(&mut self, process: &Process, tid: Tid) -> Result<()> {
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        let slot = thread.slot;
        match std::mem::replace(&mut thread.state, State::Running) {
            // Rewound to execute a call of the daemon's: it will come to its call again.
            State::Held { call: Some(call), at: HeldAt::Entry, written }
                if !matches!(sys::syscall_info(tid)?, SyscallStop::Entry { .. }) =>
            {
                thread.state = State::Restarting { call, written };
                self.go(tid, 0)
            }
            State::Held { call: Some(call), at: HeldAt::Entry, written } => {
                self.make_call(process, tid, slot, call, written)
            }
            State::Held { call: Some(call), at: HeldAt::Rewound(_), written } => {
                thread.state = State::Restarting { call, written };
                self.go(tid, 0)
            }
            State::Held { at: HeldAt::Crash(signo), .. } => self.go(tid, signo),
            State::Held { at: HeldAt::Stuck, .. } => {
                self.goes_on_at_once(tid);
                self.go(tid, 0)
            }
            other @ (State::Held { .. }
            | State::Running
            | State::InCall(_)
            | State::Interrupted(..)
            | State::Restarting { .. }
            | State::Executed) => {
                thread.state = other;
                Ok(())
            }
        }
    }
}
