//! A thread that runs without stops: which one, from when to when, and what its calls are recorded as.
//!
//! A thread is *stepped*, stopping at each entry and exit, or in *bulk*: eBPF programs write its calls into a ring buffer
//! ([`crate::record::bulk`]), and it stops for signals, births and its end alone. At most one is in bulk, one that has the turn
//! while all others are in calls; when another wants to go on it is called back. It changes from one to the other only while it
//! stands still, so that each of its calls is seen once.
//!
//! ```text
//!                  calm, nobody else waits
//!   stepped  ─────────────────────────────────►  bulk
//!       ▲                                          │ a call that is to be looked at (the mark), a signal, a birth,
//!       └──────────────────────────────────────────┘ another thread, a hold, a full log
//! ```
//!
//! A call is finished when the next record, or a stop, shows that nothing has come with it: one that was interrupted is made
//! again or not, and a signal may be given to the thread before it sees the result.

use std::time::{Duration, Instant};

use mvedsua_common::bulk::{ENTERED, MARKED, UNFINISHED, UNKNOWN, UNSTOPPABLE};

use super::letting_in::lets_in_what;
use super::stops::Returned;
use super::*;
use crate::calls::sends_signals;
use crate::ptrace::breakpoint::Breakpoint;
use crate::record::bulk::{Hooks, Memories, Observation};
use crate::record::sight::Sight;
use crate::symbols;

/// How many calls in a row a thread must have made to which nothing odd has happened.
pub(crate) const CALM: u32 = 64;
/// Signals that a program ignores by default, and that may stop it.
const MARKS: [i32; 2] = [libc::SIGURG, libc::SIGWINCH];
/// How long the leader waits for a follower that does not move.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// What is known of the thread that is in bulk, and of those that could be.
#[derive(Debug)]
pub(crate) struct Bulk {
    /// `None` where no thread ever is.
    hooks: Option<Hooks>,
    sight: Sight,
    thread: Option<Tid>,
    mark: i32,
    /// Its last call, which is not finished.
    last: Option<Last>,
    /// It is to be called back.
    wanted: bool,
    /// How many calls in a row nothing odd has happened to, and how many there must be.
    calm: u32,
    needed: u32,
    /// Where a thread stops before it ends the process.
    exits: Option<(Tid, Vec<Breakpoint>)>,
    lag: Lag,
}

/// The last call of the thread.
#[derive(Debug)]
enum Last {
    /// It was interrupted.
    Interrupted(Observation),
    /// It may have let a signal in, or sent one.
    LetsIn(Observation),
    /// It is looked at when the thread stands still.
    Unfinished(Observation),
}

/// How the leader waits for a follower that is far behind.
#[derive(Debug, Default)]
struct Lag {
    /// Since when, and how far it had come then.
    since: Option<(Instant, u64)>,
}

impl Bulk {
    /// No thread is ever in bulk.
    pub(crate) fn none() -> Bulk {
        Bulk::with(None, Sight::default())
    }

    fn with(hooks: Option<Hooks>, sight: Sight) -> Bulk {
        Bulk {
            hooks,
            sight,
            thread: None,
            mark: 0,
            last: None,
            wanted: false,
            calm: 0,
            needed: CALM,
            exits: None,
            lag: Lag::default(),
        }
    }

    /// Loads what it takes; where that cannot be had all threads are stepped.
    pub(crate) fn load(sight: Sight, needed: u32) -> Bulk {
        match Hooks::load() {
            Ok(hooks) => Bulk { needed, ..Bulk::with(Some(hooks), sight) },
            Err(error) => Bulk::stepped(sight, &error.to_string()),
        }
    }

    /// All threads are stepped, for this reason.
    pub(crate) fn stepped(sight: Sight, why: &str) -> Bulk {
        tracing::info!(why, "the leader stops at each call");
        sight.is_stepped(why);
        Bulk::with(None, sight)
    }

    pub(super) fn has(&self, tid: Tid) -> bool {
        self.thread == Some(tid)
    }

    /// Says whether a thread is in bulk.
    pub(super) fn is_in_use(&self) -> bool {
        self.thread.is_some()
    }

    /// A call of a stepped thread has returned, and nothing came with it.
    pub(super) fn note_plain(&mut self) {
        self.calm += 1;
    }

    /// Something else has happened.
    pub(super) fn note_odd(&mut self) {
        self.calm = 0;
    }

    fn give_up(&mut self, why: &str) {
        self.end();
        *self = Bulk::stepped(self.sight.clone(), why);
    }

    /// Nobody is watched any more.
    pub(super) fn end(&mut self) {
        if let Some(hooks) = &mut self.hooks
            && let Err(error) = hooks.rest()
        {
            tracing::warn!(%error, "ending the recording without stops");
        }
        (self.thread, self.last, self.wanted, self.exits) = (None, None, false, None);
    }
}

/// Says whether a thread may be given a signal when it returns from this call, before it sees the result.
fn may_let_in(nr: u32) -> bool {
    sends_signals(nr) || [libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn].contains(&i64::from(nr))
}

/// Where a program comes to before it ends: the C library's `_exit`.
fn exits(pid: Pid) -> Vec<u64> {
    let maps = procfs::maps(pid).unwrap_or_default();
    let is_library = |name: &str| {
        let file = name.rsplit('/').next().unwrap_or_default();
        file.starts_with("libc.so") || file.starts_with("libc-") || file.starts_with("ld-musl")
    };
    let first = maps.iter().filter(|map| map.inode != 0 && map.offset == 0 && is_library(&map.name));
    first
        .filter_map(|map| {
            let file = format!("/proc/{pid}/map_files/{:x}-{:x}", map.start, map.end);
            Some(map.start + symbols::exported(&file, "_exit")?)
        })
        .collect()
}

impl Leading {
    /// Uses these from now on.
    pub(crate) fn use_bulk(&mut self, bulk: Bulk) {
        self.bulk = bulk;
    }

    /// Ends all of that. Taking the programs away takes the kernel some time, in which nobody waits.
    pub(super) fn end_bulk(&mut self) {
        let bulk = self.take_bulk();
        if bulk.hooks.is_some() {
            std::thread::spawn(move || drop(bulk));
        }
    }

    /// Hands them on to another recorder of the process.
    pub(crate) fn take_bulk(&mut self) -> Bulk {
        self.bulk.end();
        std::mem::replace(&mut self.bulk, Bulk::none())
    }

    /// Says whether a thread that returns from a call may go on without stops.
    pub(super) fn may_run_in_bulk(&mut self, process: &Process, tid: Tid) -> bool {
        if self.bulk.hooks.is_none() || self.bulk.calm < self.bulk.needed || self.failed || self.holding.is_some() {
            return false;
        }
        let alone = self.threads.iter().all(|(of, thread)| {
            let waits = matches!(&thread.state, State::InCall(call) if call.gives_way(*of == process.pid.main()));
            *of == tid || waits
        });
        let Some(thread) = self.threads.get(&tid) else { return false };
        // Before the follower is close it would only fall further behind.
        let followed = self.settings.pace.most_behind() > 0;
        alone
            && followed
            && matches!(thread.state, State::Running)
            && thread.postponed.is_empty()
            && thread.fault.is_none()
            && thread.stopped_by.is_none()
            && self.settings.pairing == Pairing::Threads
            && (self.threads.len() == 1 || self.settings.interleaving == Interleaving::OneByOne)
            && self.serial.is_alone(tid)
            && self.agreed().is_none()
            && self.unread.is_empty()
            && self.blocked.is_empty()
            && self.awaiting.is_empty()
            && process.ghosts.is_empty()
            && self.settings.pace.delay().is_zero()
            && !self.stream.is_stuck()
            && !self.waits_for_follower()
    }

    /// Lets a thread go on without stops.
    pub(super) fn run_in_bulk(&mut self, process: &Process, tid: Tid) -> Result<()> {
        if self.bulk.exits.as_ref().is_none_or(|(of, _)| *of != tid) {
            let set = exits(process.pid).into_iter().map(|addr| Breakpoint::at(tid, addr));
            match set.collect::<std::io::Result<Vec<_>>>() {
                Ok(set) if !set.is_empty() => self.bulk.exits = Some((tid, set)),
                Ok(_) => self.bulk.give_up("where it would end is not known: it has no C library in a file of its own"),
                Err(error) => self.bulk.give_up(&format!("it cannot be stopped before it ends: {error}")),
            }
        }
        let signals = procfs::signals(process.pid, tid)?;
        let usable = |mark: &&i32| (signals.caught | signals.blocked) & signal_bit(**mark) == 0;
        let Some(mark) = MARKS.iter().find(usable).filter(|_| self.bulk.hooks.is_some()) else {
            self.bulk.note_odd();
            return self.go(tid, 0);
        };
        self.bulk.mark = *mark;
        self.enter_bulk(process, tid)
    }

    fn enter_bulk(&mut self, process: &Process, tid: Tid) -> Result<()> {
        let Some(hooks) = &mut self.bulk.hooks else { return self.go(tid, 0) };
        if let Err(error) = hooks.watch(tid, self.bulk.mark, process.ring_place(tid)) {
            self.bulk.give_up(&error.to_string());
            return self.go(tid, 0);
        }
        self.bulk.thread = Some(tid);
        sys::resume(tid, Resume::Cont, 0)
    }

    /// Stops the thread that is in bulk where others are to go on, or it is not to.
    pub(super) fn call_back(&mut self) -> Result<()> {
        let Some(tid) = self.bulk.thread else { return Ok(()) };
        let wanted = std::mem::take(&mut self.bulk.wanted)
            || self.holding.is_some()
            || self.serial.has_waiting()
            || !self.settings.pace.delay().is_zero()
            || self.stream.is_stuck()
            || self.waits_for_follower();
        if !wanted {
            return Ok(());
        }
        match sys::interrupt(tid) {
            Err(error) if !error.is_gone() => Err(error),
            _ => Ok(()),
        }
    }

    /// Records what the thread that is in bulk has done up to now.
    pub(super) fn take_observed(&mut self, process: &Process) -> Result<()> {
        let Some(tid) = self.bulk.thread else { return Ok(()) };
        if self.failed {
            self.bulk.end();
            return Ok(());
        }
        self.observe_all(process, tid)?;
        self.call_back()
    }

    fn observe_all(&mut self, process: &Process, tid: Tid) -> Result<()> {
        while let Some(call) = self.bulk.hooks.as_mut().and_then(Hooks::next) {
            self.observe(process, tid, call)?;
        }
        let lost = self.bulk.hooks.as_mut().map_or(0, Hooks::lost);
        if lost > 0 {
            self.lose(format!("{lost} of the leader's calls found no place in the recorder's ring buffer"));
        }
        Ok(())
    }

    /// Something of what the leader has done is not known.
    fn lose(&mut self, what: String) {
        self.fail(Notice::Lost(what.clone()), &what);
    }

    fn observe(&mut self, process: &Process, tid: Tid, mut call: Observation) -> Result<()> {
        match self.bulk.last.take() {
            None => {}
            Some(Last::LetsIn(last)) => self.record(process, tid, &last)?,
            // It was interrupted by what no stop tells of, a freezer say.
            Some(Last::Interrupted(last)) if i64::from(call.nr) == libc::SYS_restart_syscall => call.ends(last),
            Some(Last::Interrupted(last)) if last.ret == regs::EINTR => self.record(process, tid, &last)?,
            Some(Last::Interrupted(_)) => {}
            Some(Last::Unfinished(last)) => {
                let name = syscalls::name(last.nr).unwrap_or("a call");
                self.lose(format!("a thread went on after {name} and was to be looked at before that"));
            }
        }
        self.note_times_before(process, tid, call.times);
        self.bulk.wanted |= call.has(UNSTOPPABLE);
        if call.has(UNKNOWN) || call.has(UNFINISHED) && !call.has(MARKED) {
            let call = syscalls::format::Refused { nr: call.nr, args: &call.args }.to_string();
            self.lose(format!("what the leader gave to {call} is not known: it was recorded without a stop"));
        } else if call.has(ENTERED) {
            self.enters_last(process, tid, &call);
        } else if call.has(UNFINISHED) {
            self.bulk.last = Some(Last::Unfinished(call));
        } else if regs::is_interrupted(call.ret) && !regs::is_over(call.nr, call.ret) {
            self.bulk.last = Some(Last::Interrupted(call));
        } else if may_let_in(call.nr) {
            self.bulk.last = Some(Last::LetsIn(call));
        } else {
            self.record(process, tid, &call)?;
        }
        Ok(())
    }

    /// Records what the thread was told of the time before its answer number `head`.
    fn note_times_before(&mut self, process: &Process, tid: Tid, head: u64) {
        let (Some(ring), Some(slot)) = (process.ring(tid), process.slot(tid)) else { return };
        ring.take_noted_before(head, |answer| {
            if !self.failed {
                self.stream.emit(slot, time_told(&answer));
            }
        });
    }

    /// Makes of an observation the call that a stepped thread would be in.
    fn call_of<M>(&mut self, call: &Observation, memory: &M) -> Result<Call>
    where
        M: regions::Memory + ?Sized,
    {
        let mut made = self.begin(call.nr, call.args, memory);
        made.entry.at = call.at;
        made.lets_in = lets_in_what(self.settings.pairing, call.nr, &call.args, memory, || Ok(call.blocked))?;
        if let Treatment::Refuse(reason) = made.treatment {
            let call = syscalls::format::Refused { nr: call.nr, args: &call.args }.to_string();
            self.fail(Notice::Refused { call, reason: reason.to_owned() }, reason);
        }
        Ok(made)
    }

    /// Records a call of which everything is known.
    fn record(&mut self, process: &Process, tid: Tid, call: &Observation) -> Result<()> {
        let memories = Memories::<Memory>::of(call, None);
        let made = self.call_of(call, &memories.before())?;
        let returned = self.returned(process, &made, call.ret, &memories.after());
        if memories.has_missed() {
            let call = syscalls::format::Refused { nr: call.nr, args: &call.args }.to_string();
            self.lose(format!("not all of the memory of {call} was recorded with it"));
        } else if let (Some(returned), Some(slot), Some(_)) = (returned, process.slot(tid), made.order()) {
            self.bulk.sight.count();
            self.stream.emit(slot, Event::Call(made.entry, CallReturn { at: call.at, ..returned }));
        }
        Ok(())
    }

    /// The thread has entered a call that does not return.
    fn enters_last(&mut self, process: &Process, tid: Tid, call: &Observation) {
        let made = Box::new(self.begin(call.nr, call.args, &process.memory));
        if let Some(slot) = process.slot(tid).filter(|_| !self.failed) {
            self.stream.enter(slot, made.entry.clone());
        }
        thread_state(&mut self.threads, tid, State::InCall(made));
    }

    /// The thread that was in bulk has stopped: it is stepped from here on. Returns the stop, if it has to be dealt with as that
    /// of a stepped thread.
    pub(super) fn leave_bulk(
        &mut self,
        inbox: &Inbox,
        process: &mut Process,
        tid: Tid,
        stop: Stop,
    ) -> Result<Option<Stop>> {
        if let Some(hooks) = &mut self.bulk.hooks
            && let Err(error) = hooks.rest()
        {
            self.lose(error.to_string());
        }
        self.bulk.thread = None;
        self.observe_all(process, tid)?;
        let last = self.bulk.last.take();
        match stop {
            Stop::Signal(signo) => {
                let marked = signo == self.bulk.mark && !self.catches(process, tid, signo)?;
                let looked_at = matches!(last, Some(Last::Unfinished(_)));
                self.end_last(process, tid, last, (!marked).then_some(signo))?;
                if !marked {
                    self.bulk.note_odd();
                    return Ok(Some(stop));
                }
                self.note_times(process, tid);
                if looked_at && self.may_run_in_bulk(process, tid) {
                    // The signals are as they were, but for those that a call has changed which is none of these.
                    return self.enter_bulk(process, tid).map(|()| None);
                }
                self.go(tid, 0).map(|()| None)
            }
            Stop::Interrupted | Stop::Group(_) => {
                // Whoever has called it back wants it to stop once.
                self.bulk.calm = self.bulk.needed;
                match last {
                    Some(Last::Interrupted(call)) => {
                        let ret = call.ret;
                        self.is_in(process, tid, &call)?;
                        if self.on_return(inbox, process, tid, ret)? == Returned::Held {
                            return Ok(None);
                        }
                    }
                    last => self.end_last(process, tid, last, None)?,
                }
                Ok(Some(stop))
            }
            Stop::Event(libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK) => {
                self.bulk.note_odd();
                self.end_last(process, tid, last, None)?;
                let regs = sys::get_regs(tid)?;
                let call = Observation::entered(regs.orig_rax as u32, regs::args(&regs), now());
                self.is_in(process, tid, &call)?;
                Ok(Some(stop))
            }
            Stop::Syscall | Stop::Event(_) | Stop::Exited(_) | Stop::Killed(_) => {
                self.bulk.note_odd();
                // Of one that is gone there is nothing left to look at.
                if !stop.is_end() {
                    self.end_last(process, tid, last, None)?;
                }
                Ok(Some(stop))
            }
        }
    }

    /// The thread stands still in a call.
    fn is_in(&mut self, process: &Process, tid: Tid, call: &Observation) -> Result<()> {
        let memories = Memories::of(call, Some(&process.memory));
        let made = self.call_of(call, &memories.before())?;
        if made.order() == Some(Order::ByEntry)
            && let Some(slot) = process.slot(tid).filter(|_| !self.failed)
        {
            self.stream.enter(slot, made.entry.clone());
        }
        thread_state(&mut self.threads, tid, State::InCall(Box::new(made)));
        Ok(())
    }

    /// The thread stands still after its last call, perhaps before a signal.
    fn end_last(&mut self, process: &mut Process, tid: Tid, last: Option<Last>, signo: Option<i32>) -> Result<()> {
        let Some(last) = last else { return Ok(()) };
        let caught = match signo {
            Some(signo) => self.catches(process, tid, signo)?,
            // It may come yet.
            None => sys::has_open_signal(tid)? && process::has_caught_signal(process.pid, tid)?,
        };
        let (call, interrupted) = match last {
            // The signal is what it was interrupted by: it is delivered in the call.
            Last::Interrupted(call) => (call, true),
            Last::LetsIn(call) | Last::Unfinished(call) => {
                let comes = caught && may_let_in(call.nr);
                (call, comes)
            }
        };
        let ret = call.ret;
        self.is_in(process, tid, &call)?;
        let Some(State::InCall(made)) =
            self.threads.get_mut(&tid).map(|thread| std::mem::replace(&mut thread.state, State::Running))
        else {
            return Ok(());
        };
        if interrupted {
            thread_state(&mut self.threads, tid, State::Interrupted(made, ret));
        } else {
            self.stop_at_reads(process, &made, ret)?;
            self.finish(process, tid, &made, ret);
        }
        Ok(())
    }

    fn catches(&self, process: &Process, tid: Tid, signo: i32) -> Result<bool> {
        Ok(procfs::signals(process.pid, tid)?.caught & signal_bit(signo) != 0)
    }

    /// Says whether the leader is to wait since its follower is far behind. A follower that does not move is not waited for.
    pub(super) fn waits_for_follower(&mut self) -> bool {
        let most = self.settings.pace.most_behind();
        if most == 0 || self.holding.is_some() || self.failed {
            return false;
        }
        let (behind, come) = self.stream.behind();
        let Lag { since } = &mut self.bulk.lag;
        // Where it waits already it goes on a little later, so that it does not stop for each record.
        let most = if since.is_some() { most / 2 } else { most };
        if behind <= most {
            *since = None;
            return false;
        }
        match *since {
            Some((begun, before)) if come == before => begun.elapsed() < LONGEST_WAIT,
            _ => {
                *since = Some((Instant::now(), come));
                true
            }
        }
    }
}
