//! Whose turn it is to run: the follower's threads go on one at a time, in the order in which the leader's came to their
//! next calls.
//!
//! Locks are taken in user space, and no record says in which order. Threads that all go on as soon as their calls are
//! answered take them in some other order than the leader's, and then one of them stands at a call that is not due yet and
//! keeps what the thread that is due waits for. So a thread whose call was answered stays where it is (*held*) until no
//! other thread runs, and of those that are held the one goes first whose twin came first to its next call. That is nearly
//! the order in which the leader's threads ran, and what they do between two calls they do alone.
//!
//! ```text
//!           its call is answered              its turn
//!  AtCall ───────────────────────► Held ───────────────────► Going ───► AtCall
//!                                    ▲                          │ waits for another thread
//!                                    └───────── Asleep ◄────────┘
//!                                     its wait is over
//! ```
//!
//! A thread that waits in a call of its own (`futex`) gives its turn away and is stopped when that call returns. So it is
//! known at every moment who can move, and nobody needs to wait for a while to find out that nobody does: with every thread
//! at a call or asleep in the kernel the order is relaxed at once ([`super::patience`]).
//!
//! The follower lives in the leader's time, which is behind: a wait with a limit would run out at once, again and again. So
//! such a thread waits without a limit, and its time is over when nobody else can move and the limit was over in the
//! leader when its thread came to its next call ([`Following::expire`]).
//!
//! A thread that computes for long does not keep the others from running ([`LONG`]). Threads whose next call is not known
//! yet wait for it where several run, since the leader is about to tell; where one runs alone there is nothing to wait for.

use super::*;
use crate::ptrace::sys::TimeArg;

/// How long a thread may run before another goes on beside it, and how long the leader may be silent before threads whose
/// next call is not known go on.
pub(super) const LONG: Duration = Duration::from_millis(3);
/// How long a thread is waited for that goes to sleep, and has nothing but other programs before it.
const ASLEEP_WITHIN: Duration = Duration::from_millis(20);
/// A call that takes the leader longer has waited for something: the thread came to it when it was entered.
const BLOCKED: u64 = 200_000;
/// Calls of Linux 6.7.
const FUTEX_WAKE: i64 = 454;
const FUTEX_WAIT: i64 = 455;
const FUTEX_REQUEUE: i64 = 456;
/// How often it is looked whether a thread that has just begun to wait sleeps already.
const LOOKS: u32 = 40;

/// Whether a thread may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It runs, or stands at a call.
    Going,
    /// It waits in a call of its own, at whose return it will be stopped.
    Asleep { limit: Option<Limit>, ending: Ending, place: Place, seen: Seen },
    /// It is stopped and could go on, with this signal; numbered in the order in which that came about.
    Held { signo: i32, number: u64, why: Why },
}

/// How long a program wants to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// Where the program keeps it, and which argument of the call says so.
    addr: u64,
    arg: TimeArg,
    /// When it is over, nanoseconds of the leader's `CLOCK_MONOTONIC`.
    over_at: u64,
}

/// What a thread waits at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The word at this address.
    Word(u64),
    /// More than one word, or another one by now, or one that other processes know, or a signal.
    Unknown,
}

/// Whether a thread that waits is known to sleep, and nobody has made a call since that may have woken it. Then it sleeps
/// still: in the follower nobody wakes anybody but by a call, and all calls are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Asleep,
    /// It is on its way to sleep, and nobody runs who could keep it from that.
    FallingAsleep,
    NotYet,
}

/// Whom a call may wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wakes {
    Nobody,
    /// Who waits at one of these words.
    At([u64; 2]),
    /// Who waits at this word, or it has them wait at another.
    Moves(u64),
    Anybody,
}

/// How a wait will end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is open.
    Open,
    /// Its limit is over, and the thread is on its way out of it.
    Expires,
}

/// Why a thread is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// A call of its was answered, or its wait is over.
    Moved,
    /// Its wait ran out, which lets it look again and wait again as often as it likes; the others go first.
    RanOut,
    /// It goes on when the leader's twin does ([`Event::Resumed`]).
    NotTold,
}

impl Thread {
    /// Says whether the thread is in user code, or in a call that it will not wait in.
    pub(super) fn is_busy(&self) -> bool {
        let runs = match self.state {
            State::Running { .. } => true,
            State::Real(ref real) => real.is_under_way(),
            State::Faulted(_) | State::AtCall(_) | State::Entered(_) | State::Parked(_) => false,
        };
        self.turn == Turn::Going && runs
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.turn, Turn::Held { .. })
    }
}

/// Returns what a thread waits at in a call that [waits](crate::calls::waits). Where processes are paired, a word that is not private to one of
/// them may be another's as well, under another address.
pub(super) fn place(nr: u32, args: &[u64; 6], pairing: Pairing) -> Place {
    let op = args[1] as i32 & libc::FUTEX_CMD_MASK;
    let private = args[1] as i32 & libc::FUTEX_PRIVATE_FLAG != 0;
    match i64::from(nr) {
        libc::SYS_futex if !private && pairing == Pairing::Processes => Place::Unknown,
        libc::SYS_futex if op != libc::FUTEX_WAIT_REQUEUE_PI => Place::Word(args[0]),
        FUTEX_WAIT => Place::Word(args[0]),
        _ => Place::Unknown,
    }
}

/// Returns whom a thread's own call may wake, futex(2).
fn wakes_whom(nr: u32, args: &[u64; 6]) -> Wakes {
    match i64::from(nr) {
        libc::SYS_futex => match args[1] as i32 & libc::FUTEX_CMD_MASK {
            libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET | libc::FUTEX_UNLOCK_PI => Wakes::At([args[0]; 2]),
            libc::FUTEX_WAKE_OP => Wakes::At([args[0], args[4]]),
            libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE | libc::FUTEX_CMP_REQUEUE_PI => Wakes::Moves(args[0]),
            _ => Wakes::Nobody,
        },
        FUTEX_WAKE => Wakes::At([args[0]; 2]),
        // Where it ends the kernel wakes who waits for that, and who waits for its locks.
        FUTEX_REQUEUE | libc::SYS_exit | libc::SYS_exit_group => Wakes::Anybody,
        _ => Wakes::Nobody,
    }
}

/// Returns the nanoseconds by which `CLOCK_REALTIME` is ahead of `CLOCK_MONOTONIC`.
fn realtime_ahead() -> u64 {
    let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (real.as_nanos() as u64).saturating_sub(now().0)
}

/// Returns the limit of a wait that begins at `began` of the leader's time.
pub(super) fn limit(nr: u32, args: &[u64; 6], began: u64, memory: &Memory) -> Option<Limit> {
    let arg = if i64::from(nr) == FUTEX_WAIT { TimeArg::Fifth } else { TimeArg::Fourth };
    let addr = match arg {
        TimeArg::Fourth => args[3],
        TimeArg::Fifth => args[4],
    };
    let mut time = [0; 16];
    if addr == 0 || memory.read_some(addr, &mut time) < time.len() {
        return None;
    }
    let word = |at: usize| time[at..at + 8].iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let time = word(0).saturating_mul(1_000_000_000).saturating_add(word(8));
    let op = args[1] as i32 & libc::FUTEX_CMD_MASK;
    let (relative, real) = match i64::from(nr) {
        libc::SYS_futex_waitv => (false, args[4] as i32 == libc::CLOCK_REALTIME),
        FUTEX_WAIT => (false, args[5] as i32 == libc::CLOCK_REALTIME),
        libc::SYS_futex if op == libc::FUTEX_WAIT => (true, false),
        libc::SYS_futex => (false, op == libc::FUTEX_LOCK_PI || args[1] as i32 & libc::FUTEX_CLOCK_REALTIME != 0),
        _ => return None,
    };
    let over_at = match (relative, real) {
        (true, _) => began.saturating_add(time),
        (false, true) => time.saturating_sub(realtime_ahead()),
        (false, false) => time,
    };
    Some(Limit { addr, arg, over_at })
}

/// Returns when the leader's thread came to the call of a record, nanoseconds of its clock.
fn reached(record: &Record) -> u64 {
    match &record.event {
        Event::Call(entry, ret) => {
            let ordered_by_exit = syscalls::row(entry.nr).is_some_and(|row| row.class.order() == Some(Order::ByExit));
            let quick = ret.at.0.saturating_sub(entry.at.0) < BLOCKED;
            if ordered_by_exit && quick { ret.at.0 } else { entry.at.0 }
        }
        Event::Enter(entry) => entry.at.0,
        // It belongs to the call that the thread is in.
        _ => 0,
    }
}

fn was_over(limit: Limit, next: Option<&Record>, present: u64) -> bool {
    limit.over_at <= next.map_or(present, reached)
}

impl Following {
    /// Lets a stopped thread wait for its turn.
    pub(super) fn hold(&mut self, tid: Tid, signo: i32, why: Why) {
        self.holds += 1;
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.turn = Turn::Held { signo, number: self.holds, why };
        }
    }

    fn give(&mut self, process: &Process, tid: Tid) -> Result<()> {
        self.tell_ahead(process, tid);
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        let Turn::Held { signo, why, .. } = thread.turn else { return Ok(()) };
        thread.turn = Turn::Going;
        self.given = Instant::now();
        match why {
            Why::Moved => (self.turns, self.turn_given, self.looks) = (self.turns + 1, self.given, 0),
            Why::RanOut => (thread.looked, self.looks) = (Some((self.turns, self.applied)), self.looks + 1),
            Why::NotTold => {}
        }
        sys::resume(tid, Resume::Sysemu, signo)
    }

    /// Called when no record can be answered: lets the next thread go on, or relaxes the order if nobody can. Says whether
    /// a record was answered.
    pub(super) fn give_turn(&mut self, process: &mut Process) -> Result<bool> {
        if self.is_one_by_one() {
            return self.settle_standstill(process);
        }
        if self.threads.values().any(|thread| thread.is_busy() || self.is_giving_birth(thread)) {
            return Ok(false);
        }
        if self.threads.values().any(Thread::is_held) {
            while self.fetch() {}
        }
        let ordered = self.due.has_ordered();
        match self.first_held(Whom::ThoseWhoCanMove) {
            Some((tid, Some(at))) => {
                if !self.somebody_wakes(process, Some(at)) {
                    self.give(process, tid)?;
                }
                Ok(false)
            }
            Some((tid, None)) if ordered => {
                if !self.somebody_wakes(process, None) {
                    self.give(process, tid)?;
                }
                Ok(false)
            }
            Some((tid, None)) => {
                let alone = self.threads.values().filter(|thread| thread.is_held()).count() == 1;
                if alone || self.drain.is_some() || self.moved.elapsed() >= LONG {
                    self.give(process, tid)?;
                }
                Ok(false)
            }
            None if self.due.is_empty() || self.somebody_wakes(process, None) => Ok(false),
            // The leader tells what it knows of the time at its next call.
            None if self.moved.elapsed() < RELAX_AT_LAST && self.somebody_will_be_told() => Ok(false),
            None => {
                let front = self.due.front();
                let expired = match front {
                    Some(slot) => self.expire(|thread, _| thread.slot == slot)?,
                    None => self.expire(|_, known| known)?,
                };
                if expired || front.is_none() {
                    return Ok(false);
                }
                if self.relax(process)? {
                    return Ok(true);
                }
                self.expire(|_, _| true)?;
                Ok(false)
            }
        }
    }

    /// Ends a wait whose limit was over in the leader, once for each time that others have moved; `whom` is told whether the
    /// thread's next record is known. Says whether there was one.
    pub(super) fn expire(&mut self, whom: impl Fn(&Thread, bool) -> bool) -> Result<bool> {
        let moved = Some((self.turns, self.applied));
        // The leader's time ends with it.
        let (due, present) = (&self.due, self.over.unwrap_or_else(|| now().0));
        let found = self.threads.iter_mut().find(|(_, thread)| {
            let over = match thread.turn {
                Turn::Asleep { limit: Some(limit), ending: Ending::Open, .. } => {
                    was_over(limit, due.first_ordered_of(thread.slot), present)
                }
                _ => false,
            };
            over && thread.looked != moved && whom(thread, due.first_of(thread.slot).is_some())
        });
        let Some((tid, Thread { turn: Turn::Asleep { ending, seen, .. }, .. })) = found else { return Ok(false) };
        (*ending, *seen) = (Ending::Expires, Seen::NotYet);
        sys::interrupt(*tid)?;
        Ok(true)
    }

    /// Says whether a wait's limit was over in the leader when its thread came to its next call, or is at `present`.
    pub(super) fn is_over(&self, limit: Limit, slot: Slot, present: u64) -> bool {
        was_over(limit, self.due.first_ordered_of(slot), present)
    }

    /// Lets the thread go on whose turn it is, where threads run one by one.
    pub(super) fn let_next_go(&mut self, process: &Process) -> Result<()> {
        let waits = |thread: &Thread| matches!(thread.turn, Turn::Held { why: Why::Moved | Why::RanOut, .. });
        let next: Vec<Tid> = self.threads.iter().filter(|(_, thread)| waits(thread)).map(|(tid, _)| *tid).collect();
        next.into_iter().try_for_each(|tid| self.give(process, tid))
    }

    /// A thread stands at the entry of a call that it will wait in: its return is a stop as well.
    pub(super) fn fall_asleep(&mut self, tid: Tid, limit: Option<Limit>, place: Place, seen: Seen) -> Result<()> {
        self.turn(tid, Turn::Asleep { limit, ending: Ending::Open, place, seen });
        if let Some(limit) = limit {
            sys::set_time_arg(tid, limit.arg, 0)?;
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
            sys::set_time_arg(tid, limit.arg, limit.addr)?;
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
        let whom = wakes_whom(nr, args);
        if whom == Wakes::Nobody {
            return;
        }
        for (tid, thread) in &mut self.threads {
            let Turn::Asleep { place, seen, .. } = &mut thread.turn else { continue };
            match (whom, *place) {
                (Wakes::At(words), Place::Word(word)) if !words.contains(&word) => continue,
                (Wakes::Moves(from), Place::Word(word)) if word != from => continue,
                _ => {}
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
        if let Some(Thread { turn: Turn::Asleep { seen, .. }, .. }) = self.threads.get_mut(&tid) {
            *seen = Seen::NotYet;
        }
    }

    /// Says whether a thread that was made has not reported its first stop yet.
    pub(super) fn is_giving_birth(&self, thread: &Thread) -> bool {
        matches!(self.phase(thread), Phase::Makes(Making::Thread(Child::Announced, _)))
    }

    /// Lets another thread go on beside one that has been running for long; called with every ring of the session's clock.
    pub(super) fn share_turn(&mut self, process: &Process) -> Result<()> {
        if self.given.elapsed() < LONG || self.is_one_by_one() {
            return Ok(());
        }
        if let Some((tid, _)) = self.first_held(Whom::Anybody) {
            return self.give(process, tid);
        }
        if !self.due.is_empty() && self.moved.elapsed() >= LONG {
            // Whoever has looked before may look again.
            self.turns += 1;
            self.given = Instant::now();
        }
        Ok(())
    }

    /// Returns when the leader's thread came to its next call, if that is known. Asking for the time does not count: a
    /// thread that fights for a lock does so before it gets it. Sleeping does: a thread that does little else would never have
    /// its turn.
    fn comes_at(&self, slot: Slot) -> Option<u64> {
        let asks = |record: &&Record| matches!(&record.event, Event::Call(entry, _) if calls::asks_time(entry.nr));
        self.due.of(slot).find(|record| !asks(record)).map(reached)
    }

    /// Returns the thread that goes on next, and when its twin came to its next call, if that is known.
    fn first_held(&self, whom: Whom) -> Option<(Tid, Option<u64>)> {
        let now = Some((self.turns, self.applied));
        let held = self.threads.iter().filter_map(|(tid, thread)| match thread.turn {
            // Nobody has moved since it looked last: it would only look again.
            Turn::Held { why: Why::RanOut, .. } if whom == Whom::ThoseWhoCanMove && thread.looked == now => None,
            Turn::Held { number, why, .. } => Some((why, self.comes_at(thread.slot), number, *tid)),
            Turn::Going | Turn::Asleep { .. } => None,
        });
        let (_, at, _, tid) = held.min_by_key(|(why, at, number, _)| (*why, at.unwrap_or(u64::MAX), *number))?;
        Some((tid, at))
    }

    /// Says whether a thread that waited in a call of its own is on its way out of it, and (if a time is given) its twin
    /// came to its next call before that: its stop comes by itself.
    fn somebody_wakes(&mut self, process: &Process, before: Option<u64>) -> bool {
        let unseen = |thread: &Thread| matches!(thread.turn, Turn::Asleep { seen: Seen::NotYet, .. });
        let counts = |thread: &Thread| {
            unseen(thread) && before.is_none_or(|at| self.comes_at(thread.slot).is_some_and(|comes| comes < at))
        };
        let perhaps: Vec<Tid> = self.threads.iter().filter(|(_, thread)| counts(thread)).map(|(tid, _)| *tid).collect();
        for tid in perhaps {
            if wakes(process.pid, tid) {
                return true;
            }
            if let Some(Thread { turn: Turn::Asleep { seen, .. }, .. }) = self.threads.get_mut(&tid) {
                *seen = Seen::Asleep;
            }
        }
        false
    }
}

/// Which held threads are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Anybody,
    ThoseWhoCanMove,
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
