//! Letting the leader's threads run one at a time between their calls, see [`crate::record::interleaving`].
//!
//! A thread has the *turn* while it is in user code. It gives it up where it enters a call that may take time, and where it
//! ends; calls that each version makes for itself (more memory, say) belong to what it does in its turn. A thread whose call
//! has returned is left at its stop until nobody has the turn; then it is handled as if it had just come there. So the
//! records of what returned stand in the order in which the threads went on, and the follower lets each go on when it
//! answers its record, and answers no other until it has come to its next call.
//!
//! A thread that has just been born has no such record; [`Event::Resumed`] says when it first goes on.
//!
//! One that keeps the turn for [`LONGEST`] while others wait is *overdue*: the next goes on beside it. Perhaps it computes,
//! perhaps it waits in a loop for one of them. What the two do to the same memory is not known then. The follower is told
//! ([`Event::Overdue`]).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::*;
use crate::replay::elastic;
use crate::replay::following::waits;

/// How long the process may compute while one thread has the turn and others wait for it.
const LONGEST: Duration = Duration::from_millis(20);
/// The same by the clock: on a busy machine who has the turn may have to wait for a processor.
const LONGEST_BY_CLOCK: Duration = Duration::from_millis(200);

/// A thread that waits for its turn.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// At the end of a call, or before a signal.
    Stopped(Tid, Stop),
    /// Where it was parked or born.
    Parked(Tid),
}

/// Who runs, and who waits.
#[derive(Debug)]
pub(super) struct Serial {
    interleaving: Interleaving,
    running: BTreeSet<Tid>,
    /// When one of them was given the turn last, and the processor time that had been used when that was first looked at.
    given: Instant,
    used: Option<Duration>,
    waiting: VecDeque<Waiting>,
    /// In user code, and no longer waited for.
    overdue: BTreeSet<Tid>,
}

impl Serial {
    pub(super) fn new(interleaving: Interleaving) -> Serial {
        Serial {
            interleaving,
            running: BTreeSet::new(),
            given: Instant::now(),
            used: None,
            waiting: VecDeque::new(),
            overdue: BTreeSet::new(),
        }
    }

    fn is_on(&self) -> bool {
        self.interleaving == Interleaving::OneByOne
    }

    fn is_in_user_code(&self, tid: Tid) -> bool {
        self.running.contains(&tid) || self.overdue.contains(&tid)
    }

    fn give(&mut self, tid: Tid) {
        self.given = Instant::now();
        self.used = None;
        self.running.insert(tid);
    }

    /// Says whether the turn was kept for too long.
    fn has_had_enough(&mut self, pid: Pid) -> bool {
        let Some(now) = sys::cpu_time(pid) else { return true };
        let used = now.saturating_sub(*self.used.get_or_insert(now));
        used >= LONGEST || self.given.elapsed() >= LONGEST_BY_CLOCK
    }

    fn take(&mut self, tid: Tid) {
        self.running.remove(&tid);
        self.overdue.remove(&tid);
    }
}

impl Call {
    /// Says whether a thread gives up its turn at the entry of this call.
    fn gives_way(&self, main: bool) -> bool {
        let (nr, args) = (self.entry.nr, &self.entry.args);
        match self.treatment {
            // The parent goes on before its child.
            Treatment::ThreadClone(_) => false,
            // What the kernel does to its memory then (set_tid_address(2)) belongs to the turn; the end of a main thread is told
            // with that of its process.
            Treatment::Row(row) if i64::from(row.nr) == libc::SYS_exit => main,
            _ if waits(nr, args) => true,
            _ => self.order().is_some() && !elastic::asks_time(nr) && !elastic::lets_in(nr),
        }
    }
}

impl Leading {
    /// Lets every parked thread go, recorded from here on. Of those that are in user code the first goes on by itself, in
    /// both versions.
    pub(crate) fn start(&mut self) -> Result<()> {
        let first = self.threads.iter().filter(|(_, thread)| matches!(thread.state, State::Running));
        let first = first.min_by_key(|(_, thread)| thread.slot).map(|(tid, _)| *tid);
        let tids: Vec<Tid> = self.threads.keys().copied().collect();
        for tid in tids {
            let in_user_code = self.threads.get(&tid).is_some_and(|thread| matches!(thread.state, State::Running));
            if self.serial.is_on() && in_user_code {
                if first != Some(tid) {
                    self.serial.waiting.push_back(Waiting::Parked(tid));
                    continue;
                }
                self.serial.give(tid);
            }
            match sys::resume(tid, Resume::Syscall, 0) {
                Err(error) if !error.is_gone() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Keeps a stopped thread where it is while others have the turn; says whether it has to wait.
    pub(super) fn has_to_wait(&mut self, process: &Process, tid: Tid, stop: Stop) -> Result<bool> {
        if !self.serial.is_on() || self.failed || self.serial.is_in_user_code(tid) {
            return Ok(false);
        }
        let goes_on = match stop {
            Stop::Syscall => matches!(sys::syscall_info(tid)?, SyscallStop::Exit { .. }),
            Stop::Signal(_) => true,
            _ => false,
        };
        if goes_on {
            if let Stop::Signal(_) = stop {
                // It may be let go with the signal when nothing is recorded any more ([`Leading::end_turns`]).
                process.make_room_for_signal(tid)?;
            }
            self.serial.waiting.push_back(Waiting::Stopped(tid, stop));
        }
        Ok(goes_on)
    }

    /// A thread was born and stands before its first instruction; says whether it has to wait.
    pub(super) fn newborn_has_to_wait(&mut self, tid: Tid) -> bool {
        let waits = self.serial.is_on() && !self.failed;
        if waits {
            self.serial.waiting.push_back(Waiting::Parked(tid));
        }
        waits
    }

    /// A thread goes on in user code whether it had the turn or not.
    pub(super) fn goes_on_at_once(&mut self, tid: Tid) {
        if self.serial.is_on() {
            self.serial.running.insert(tid);
        }
    }

    /// Called after each stop: gives the turn to the next thread if nobody has it.
    pub(super) fn pass_turn(&mut self, inbox: &Inbox, process: &mut Process, tid: Option<Tid>) -> Result<()> {
        if !self.serial.is_on() {
            return Ok(());
        }
        tid.into_iter().for_each(|tid| self.note_place(process, tid));
        while (self.serial.running.is_empty() || self.failed)
            && let Some(next) = self.serial.waiting.pop_front()
        {
            let (Waiting::Stopped(tid, _) | Waiting::Parked(tid)) = next;
            let Some(thread) = self.threads.get_mut(&tid) else { continue };
            let (slot, newborn) = (thread.slot, std::mem::take(&mut thread.newborn));
            self.serial.give(tid);
            match next {
                Waiting::Stopped(tid, stop) => self.handle(inbox, process, tid, stop)?,
                Waiting::Parked(tid) => {
                    if newborn {
                        process.give_ring(tid)?;
                    }
                    if !self.failed {
                        self.stream.emit(slot, Event::Resumed);
                    }
                    self.go(tid, 0)?;
                }
            }
            self.note_place(process, tid);
        }
        Ok(())
    }

    /// Takes the turn from a thread that is not in user code any more.
    fn note_place(&mut self, process: &Process, tid: Tid) {
        let left = match self.threads.get(&tid).map(|thread| &thread.state) {
            None | Some(State::Held { .. }) => true,
            Some(State::InCall(call)) => call.gives_way(tid == process.pid.main()),
            Some(State::Running | State::Interrupted(..) | State::Restarting { .. } | State::Executed) => false,
        };
        if left {
            self.serial.take(tid);
        }
    }

    /// Waits no longer for threads that have kept the turn for too long; called with every ring of the session's clock.
    pub(super) fn look_for_overdue(&mut self, inbox: &Inbox, process: &mut Process) -> Result<()> {
        if !self.serial.waiting.is_empty() && self.serial.has_had_enough(process.pid) {
            for tid in std::mem::take(&mut self.serial.running) {
                if let Some(slot) = process.slot(tid).filter(|_| !self.failed) {
                    self.stream.emit(slot, Event::Overdue);
                }
                self.serial.overdue.insert(tid);
            }
        }
        self.pass_turn(inbox, process, None)
    }

    /// Lets everybody go who waits for the turn: nothing is recorded any more.
    pub(super) fn end_turns(&mut self) -> Result<()> {
        for waiting in std::mem::take(&mut self.serial.waiting) {
            let (tid, signo) = match waiting {
                Waiting::Stopped(tid, Stop::Signal(signo)) => (tid, signo),
                Waiting::Stopped(tid, _) | Waiting::Parked(tid) => (tid, 0),
            };
            sys::resume(tid, Resume::Syscall, signo)?;
        }
        Ok(())
    }
}
