//! Carrying out whose turn it is ([`crate::matcher::schedule`]): threads are held, let go, sent to sleep in calls of their own
//! and brought out of them.

use super::*;
use crate::matcher::schedule::{self, Ending, Limit, Place, Seen, Wakes};
use crate::ptrace::sys::TimeArg;

/// How long a thread is waited for that goes to sleep, and has nothing but other programs before it.
const ASLEEP_WITHIN: Duration = Duration::from_millis(20);
/// How often it is looked whether a thread that has just begun to wait sleeps already.
const LOOKS: u32 = 40;

/// Returns the nanoseconds by which `CLOCK_REALTIME` is ahead of `CLOCK_MONOTONIC`.
pub(super) fn realtime_ahead() -> u64 {
    let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (real.as_nanos() as u64).saturating_sub(now().0)
}

impl Thread {
    /// Says whether the thread is in user code, or in a call that it will not wait in.
    pub(super) fn is_busy(&self) -> bool {
        let runs = match self.state {
            State::Running { .. } => true,
            State::Real(ref real) => real.is_under_way(),
            State::Faulted(_) | State::AtCall(_) | State::Entered(_) | State::Parked(_) => false,
        };
        self.seat.turn == Turn::Going && runs
    }
}

impl Following {
    /// Lets a stopped thread wait for its turn.
    pub(super) fn hold(&mut self, tid: Tid, signo: i32, why: Why) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            self.turns.hold(&mut thread.seat, signo, why);
        }
    }

    /// Lets a thread go on that is held.
    pub(super) fn let_go(&mut self, process: &Process, tid: Tid) -> Result<()> {
        self.tell_ahead(process, tid);
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        let Some(signo) = self.turns.give(&mut thread.seat, Instant::now()) else { return Ok(()) };
        sys::resume(tid, Resume::Sysemu, signo)
    }

    /// Ends the wait of a thread whose time is over.
    pub(super) fn end_wait(&mut self, tid: Tid) -> Result<()> {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.seat.expire();
        }
        sys::interrupt(tid)
    }

    /// A thread stands at the entry of a call that it will wait in: its return is a stop as well.
    pub(super) fn fall_asleep(&mut self, tid: Tid, limit: Option<Limit>, place: Place, seen: Seen) -> Result<()> {
        self.turn(tid, Turn::Asleep { limit, ending: Ending::Open, place, seen });
        if let Some(limit) = limit {
            sys::set_time_arg(tid, time_arg(limit), 0)?;
        }
        sys::resume(tid, Resume::Syscall, 0)
    }

    /// A thread returns from a call that it has waited in.
    pub(super) fn on_waited(
        &mut self,
        process: &mut Process,
        tid: Tid,
        ret: i64,
        (limit, ending): (Option<Limit>, Ending),
    ) -> Result<()> {
        if let Some(limit) = limit {
            sys::set_time_arg(tid, time_arg(limit), limit.addr)?;
        }
        if self.is_on_its_own() {
            self.turn(tid, Turn::Going);
            return sys::resume(tid, Resume::Sysemu, 0);
        }
        if !regs::is_interrupted(ret) {
            let why = if ret == -i64::from(libc::ETIMEDOUT) { Why::RanOut } else { Why::Moved };
            self.hold(tid, 0, why);
            return self.advance(process);
        }
        if self.drain.is_some()
            && ending == Ending::Open
            && let Rewinding::Rewound(rewound) = process::rewind(process.pid, tid)?
        {
            self.turn(tid, Turn::Going);
            self.state(tid, State::Parked(rewound));
            return self.advance(process);
        }
        if ending == Ending::Expires && !process::has_caught_signal(process.pid, tid)? {
            let mut regs = sys::get_regs(tid)?;
            regs.rax = -i64::from(libc::ETIMEDOUT) as u64;
            regs.orig_rax = u64::MAX;
            sys::set_regs(tid, &regs)?;
            self.hold(tid, 0, Why::RanOut);
            return self.advance(process);
        }
        // A signal is delivered next, or the call is made again.
        self.turn(tid, Turn::Going);
        sys::resume(tid, Resume::Sysemu, 0)
    }

    /// Says whether a thread that is about to wait will sleep. So it is if the word is as the thread believes and nobody runs
    /// who could change it.
    pub(super) fn will_sleep(&self, process: &Process, tid: Tid, nr: u32, args: &[u64; 6]) -> Seen {
        let compares = [libc::FUTEX_WAIT, libc::FUTEX_WAIT_BITSET].contains(&(args[1] as i32 & libc::FUTEX_CMD_MASK));
        let sure = i64::from(nr) == libc::SYS_futex
            && compares
            && self.threads.iter().all(|(other, thread)| *other == tid || !thread.is_busy())
            && process.memory.read_u32(args[0]).is_ok_and(|word| word == args[2] as u32);
        if sure { Seen::FallingAsleep } else { Seen::NotYet }
    }

    /// A thread is about to make a call of its own, after which others may wait no more.
    pub(super) fn wake_by(&mut self, process: &Process, nr: u32, args: &[u64; 6]) {
        let whom = schedule::wakes_whom(nr, args);
        if whom == Wakes::Nobody {
            return;
        }
        for (tid, thread) in &mut self.threads {
            let Turn::Asleep { place, seen, .. } = &mut thread.seat.turn else { continue };
            if !whom.reaches(*place) {
                continue;
            }
            if *seen == Seen::FallingAsleep {
                // It is to be found by the call.
                await_sleep(process.pid, *tid);
            }
            *seen = Seen::NotYet;
            if matches!(whom, Wakes::Moves(_)) {
                *place = Place::Unknown;
            }
        }
    }

    /// Something was done to a thread that ends its wait.
    pub(super) fn disturb(&mut self, tid: Tid) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.seat.disturb();
        }
    }
}

/// Returns by which register a program says how long it wants to wait.
fn time_arg(limit: Limit) -> TimeArg {
    if limit.arg == 4 { TimeArg::Fifth } else { TimeArg::Fourth }
}

/// Waits until a thread sleeps that nothing keeps from it but other programs that run.
fn await_sleep(pid: Pid, tid: Tid) {
    let deadline = Instant::now() + ASLEEP_WITHIN;
    while procfs::state(pid, tid) == Some('R') && Instant::now() < deadline {
        std::thread::yield_now();
    }
}

/// Says whether a thread that went to wait does not sleep.
pub(super) fn wakes(pid: Pid, tid: Tid) -> bool {
    for _ in 0..LOOKS {
        match procfs::state(pid, tid) {
            Some('S') => return false,
            // Perhaps it is on its way to sleep still.
            Some('R') => std::thread::yield_now(),
            _ => return true,
        }
    }
    true
}
