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
//! ([`Event::Overdue`]). A thread that is overdue again and again is waited for less each time, and in the end not at all: threads
//! that wait for each other in loops would need a whole turn for each step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::*;
use crate::calls::waits;
use crate::record::interleaving::keeps_turn;

/// How long the process may compute while one thread has the turn and others wait for it.
const LONGEST: Duration = Duration::from_millis(20);
/// How much longer that is by the clock: on a busy machine who has the turn may have to wait for a processor.
const BY_CLOCK: u32 = 10;
/// How often in a row a thread is overdue before it is not waited for any more.
const SPINS: u32 = 4;
/// How long it takes until one time of these is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(1);
/// How much of either counts that has gone by since it was looked at last, which is done with every ring of the session's
/// clock. If more has, the machine stood still for us too: a virtual one that its host has stopped for a while believes that
/// its threads have computed all that time.
const MOST_AT_ONCE: Duration = Duration::from_millis(4);

/// A thread that waits for its turn.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// At the end of a call, or before a signal.
    Stopped(Tid, Stop),
    /// Where it was parked or born.
    Parked(Tid),
}

/// How long the turn was kept since it was given last, while others waited for it.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// In processor time, and by the clock.
    used: Duration,
    waited: Duration,
    /// What the process had used when it was looked at last, and when that was.
    looked: Option<(Duration, Instant)>,
}

impl Kept {
    /// Looks once more; says whether it was longer than a thread may keep the turn.
    fn is_too_long(&mut self, used: Duration, now: Instant, longest: Duration) -> bool {
        let (before, then) = self.looked.replace((used, now)).unwrap_or((used, now));
        self.used += used.saturating_sub(before).min(MOST_AT_ONCE);
        self.waited += now.saturating_duration_since(then).min(MOST_AT_ONCE);
        self.used >= longest || self.waited >= longest * BY_CLOCK
    }
}

/// How often a thread was overdue of late, and when that was noted last.
#[derive(Clone, Copy, Debug)]
struct Spinning {
    times: u32,
    noted: Instant,
}

impl Spinning {
    fn times_at(self, now: Instant) -> u32 {
        let forgotten = now.saturating_duration_since(self.noted).as_secs() / FORGOTTEN.as_secs();
        self.times.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }
}

/// Who runs, and who waits.
#[derive(Debug)]
pub(super) struct Serial {
    interleaving: Interleaving,
    running: BTreeSet<Tid>,
    kept: Kept,
    waiting: VecDeque<Waiting>,
    /// In user code, and no longer waited for.
    overdue: BTreeSet<Tid>,
    spinning: BTreeMap<Tid, Spinning>,
}

impl Serial {
    pub(super) fn new(interleaving: Interleaving) -> Serial {
        Serial {
            interleaving,
            running: BTreeSet::new(),
            kept: Kept::default(),
            waiting: VecDeque::new(),
            overdue: BTreeSet::new(),
            spinning: BTreeMap::new(),
        }
    }

    fn is_on(&self) -> bool {
        self.interleaving == Interleaving::OneByOne
    }

    /// Says whether a thread computes on that is not waited for.
    pub(super) fn somebody_is_overdue(&self) -> bool {
        !self.overdue.is_empty()
    }

    /// Says whether no thread has the turn.
    pub(super) fn nobody_runs(&self) -> bool {
        self.running.is_empty()
    }

    fn is_in_user_code(&self, tid: Tid) -> bool {
        self.running.contains(&tid) || self.overdue.contains(&tid)
    }

    fn give(&mut self, tid: Tid) {
        self.kept = Kept::default();
        self.running.insert(tid);
    }

    /// Returns how long a thread may keep the turn while others wait for it.
    fn longest(&self, tid: Tid, now: Instant) -> Duration {
        match self.spinning.get(&tid).map_or(0, |spinning| spinning.times_at(now)) {
            times if times >= SPINS => Duration::ZERO,
            times => LONGEST / (1 << times),
        }
    }

    /// A thread has kept the turn for too long.
    fn note_overdue(&mut self, tid: Tid, now: Instant) {
        let times = self.spinning.get(&tid).map_or(0, |spinning| spinning.times_at(now));
        self.spinning.insert(tid, Spinning { times: (times + 1).min(SPINS), noted: now });
        self.overdue.insert(tid);
    }

    /// Returns a thread that has the turn and is not waited for, if another waits.
    fn not_waited_for(&self) -> Option<Tid> {
        if self.waiting.is_empty() || self.spinning.is_empty() {
            return None;
        }
        let now = Instant::now();
        self.running.iter().find(|tid| self.longest(**tid, now).is_zero()).copied()
    }

    /// Says whether a thread is the only one that is in user code or wants to be.
    pub(super) fn is_alone(&self, tid: Tid) -> bool {
        let others = self.running.iter().chain(&self.overdue).any(|running| *running != tid);
        !others && self.waiting.is_empty() && self.spinning.is_empty()
    }

    /// Says whether threads wait for their turn.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A thread has ended.
    pub(super) fn forget(&mut self, tid: Tid) {
        self.spinning.remove(&tid);
    }

    fn take(&mut self, tid: Tid) {
        self.running.remove(&tid);
        self.overdue.remove(&tid);
    }
}

impl Call {
    /// Says whether a thread gives up its turn at the entry of this call.
    pub(super) fn gives_way(&self, main: bool) -> bool {
        let (nr, args) = (self.entry.nr, &self.entry.args);
        // The parent goes on before its child.
        if let Treatment::ThreadClone(_) = self.treatment {
            return false;
        }
        // What the kernel does to its memory then (set_tid_address(2)) belongs to the turn; the end of a main thread is told
        // with that of its process.
        if i64::from(nr) == libc::SYS_exit && matches!(self.treatment, Treatment::Row(_)) {
            return main;
        }
        waits(nr, args) || self.order().is_some() && !keeps_turn(nr)
    }
}

impl Leading {
    /// Lets every parked thread go, recorded from here on. Of those that are in user code, or before a call in which they
    /// keep their turn, the first goes on by itself, in both versions.
    pub(crate) fn start(&mut self) -> Result<()> {
        let needs_turn = |thread: &Thread| match &thread.state {
            State::Running => true,
            State::Restarting { call, .. } => keeps_turn(call.entry.nr),
            State::InCall(_) | State::Interrupted(..) | State::Held { .. } | State::Executed => false,
        };
        let first = self.threads.iter().filter(|(_, thread)| needs_turn(thread));
        let first = first.min_by_key(|(_, thread)| thread.slot).map(|(tid, _)| *tid);
        let tids: Vec<Tid> = self.threads.keys().copied().collect();
        for tid in tids {
            if self.serial.is_on() && self.threads.get(&tid).is_some_and(needs_turn) {
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
            Stop::Group(_) | Stop::Interrupted | Stop::Event(_) | Stop::Exited(_) | Stop::Killed(_) => false,
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
        loop {
            while let Some(tid) = self.serial.not_waited_for().filter(|_| !self.failed) {
                self.wait_no_longer_for(process, tid);
            }
            if !(self.serial.running.is_empty() || self.failed) {
                return Ok(());
            }
            let Some(next) = self.serial.waiting.pop_front() else { return Ok(()) };
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
    }

    /// Takes the turn from a thread that is not in user code any more.
    fn note_place(&mut self, process: &Process, tid: Tid) {
        let left = match self.threads.get(&tid).map(|thread| &thread.state) {
            None | Some(State::Held { .. }) => true,
            Some(State::InCall(call)) => call.gives_way(tid == process.pid.main()),
            Some(State::Running | State::Interrupted(..) | State::Restarting { .. } | State::Executed) => false,
        };
        if left {
            self.wait_until_seen(process, tid);
            self.serial.take(tid);
        }
    }

    /// Waits until a thread that is about to take a mutex with inherited priority has it, or waits for it: the kernel writes either
    /// into the mutex, and what the others find there must not depend on who was faster.
    fn wait_until_seen(&self, process: &Process, tid: Tid) {
        let Some(State::InCall(call)) = self.threads.get(&tid).map(|thread| &thread.state) else { return };
        if self.failed || !syscalls::locks_inheriting(call.entry.nr, &call.entry.args) {
            return;
        }
        let begun = Instant::now();
        while procfs::state(process.pid, tid) == Some('R') && begun.elapsed() < LONGEST {
            std::thread::yield_now();
        }
    }

    /// Waits no longer for threads that have kept the turn for too long; called with every ring of the session's clock.
    pub(super) fn look_for_overdue(&mut self, inbox: &Inbox, process: &mut Process) -> Result<()> {
        let now = Instant::now();
        let running: Vec<Tid> = self.serial.running.iter().copied().collect();
        let longest = running.iter().map(|tid| self.serial.longest(*tid, now)).min().unwrap_or(LONGEST);
        let mut had_enough = || match sys::cpu_time(process.pid) {
            Some(used) => self.serial.kept.is_too_long(used, now, longest),
            None => true,
        };
        if !self.serial.waiting.is_empty() && had_enough() {
            running.into_iter().for_each(|tid| self.wait_no_longer_for(process, tid));
        }
        self.pass_turn(inbox, process, None)
    }

    /// Lets others go on beside a thread that has the turn, and computes.
    pub(super) fn wait_no_longer_for(&mut self, process: &Process, tid: Tid) {
        if self.serial.running.remove(&tid) {
            if let Some(slot) = process.slot(tid).filter(|_| !self.failed) {
                self.stream.emit(slot, Event::Overdue);
            }
            self.settings.pace.toll.overdue();
            self.serial.note_overdue(tid, Instant::now());
        }
    }

    /// Lets everybody go who waits for the turn: nothing is recorded any more.
    pub(super) fn end_turns(&mut self, process: &Process) -> Result<()> {
        for waiting in std::mem::take(&mut self.serial.waiting) {
            let (tid, signo) = match waiting {
                Waiting::Stopped(tid, Stop::Signal(signo)) => {
                    let read = tsc::execute_trapped(tid, signo, &process.memory, &process.footprint.clock)?;
                    (tid, if read { 0 } else { signo })
                }
                Waiting::Stopped(tid, _) | Waiting::Parked(tid) => (tid, 0),
            };
            sys::resume(tid, Resume::Syscall, signo)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at a turn every `between`, in which as much is used; says after how many looks it was too long.
    fn looks(between: Duration, uses: bool) -> u32 {
        let (mut kept, begun) = (Kept::default(), Instant::now());
        let too_long = |look: &u32| {
            kept.is_too_long(if uses { between * *look } else { Duration::ZERO }, begun + between * *look, LONGEST)
        };
        (0..1000).find(too_long).expect("every turn is too long in the end")
    }

    #[test]
    fn a_turn_is_too_long_when_it_was_kept_for_long() {
        assert_eq!(looks(Duration::from_millis(2), true), 10);
        assert_eq!(looks(Duration::from_millis(2), false), 100);
    }

    #[test]
    fn a_thread_that_is_overdue_again_and_again_is_not_waited_for() {
        let mut serial = Serial::new(Interleaving::OneByOne);
        let (tid, begun) = (Tid(7), Instant::now());
        let mut allowed = Vec::new();
        for _ in 0..5 {
            allowed.push(serial.longest(tid, begun).as_micros());
            serial.note_overdue(tid, begun);
        }
        assert_eq!(allowed, [20_000, 10_000, 5_000, 2_500, 0]);
        assert_eq!(serial.longest(tid, begun + FORGOTTEN), LONGEST / 8, "it is tried again");
        assert_eq!(serial.longest(tid, begun + FORGOTTEN * 9), LONGEST);
    }

    #[test]
    fn a_machine_that_stood_still_does_not_count() {
        // As if its host had stopped it between two looks.
        assert_eq!(looks(Duration::from_secs(1), true), 5);
        assert_eq!(looks(Duration::from_secs(1), false), 50);
    }
}
