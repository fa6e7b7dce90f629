//! The SYSEMU replayer: drives the follower's threads through the records of the log.
//!
//! ```text
//!              a call is about to be made            its record is due and equal
//!   Running ───────────────────────────► AtCall ─────────────────────────────────► Running
//!     ▲  │ class Local                      │ only its entry is there (Enter)        ▲
//!     │  ▼                                  ▼                                        │ Return
//!    Local (made for real)               Entered ────────────────────────────────────┘
//! ```
//!
//! Which record is answered next and which thread goes on is decided by [`crate::matcher::drive`]. When nobody can move (the
//! threads took a lock in another order than the leader's, which no record shows) the order is relaxed: the first waiting record
//! of another thread may go first, unless both concern the same object ([`super::objects`]). If still nothing moves, that is a
//! divergence of kind `order`.
//!
//! [`carrier`] is what the matcher drives, [`thread`] what is known of one thread, [`owners`] what is known of the process.
//! [`stops`] is what is done where a thread has stopped, [`answer`] does what a record asks for, [`real`] is for calls that are
//! made, [`ahead`] tells the time before it is asked, [`counting`] lets either version count the processors, [`letting_in`] is for
//! signals that were blocked, [`turns`] holds threads and lets them go, [`serial`] is for threads that run one by one,
//! [`patience`] for when none can go on, [`drain`] for a change of roles.

mod agent;
mod ahead;
mod answer;
mod answered;
pub(crate) mod applying;
mod carrier;
mod copies;
mod counting;
mod drain;
mod letting_in;
mod owned;
mod owners;
mod parted;
mod patience;
#[expect(clippy::wildcard_enum_match_arm, reason = "what is not named there is not prepared, and stops as ever")]
mod prepare;
pub(crate) mod processes;
mod real;
pub(crate) mod reconcile;
mod serial;
mod stops;
mod thread;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mvedsua_common::syscalls::{self, Class, Pairing, Row, Treatment, regions};

use self::carrier::Live;
use self::owners::{Kin, Known, Past, Waiting};
use self::parted::Parted;
use self::reconcile::{Reconcile, Rules};
use self::thread::{State, Thread, describe_state};
use super::epoll::{Pair, Registrations};
use super::objects::Objects;
use super::proc_self::{self, OwnFiles};
use super::situations::{Met, SITUATIONS, Situations};
use super::{Listener, Message};
use crate::calls;
use crate::compare::{self, Actual, Divergence, DivergenceKind, Evidence, Input, MatchedCall, Trail};
use crate::log::Reader;
use crate::matcher::drive::{self, Sight};
use crate::matcher::due::Due;
use crate::matcher::elastic::{self, Counting, LastTimes};
use crate::matcher::schedule::{Seat, Turn, Turns, Why};
use crate::matcher::{Call, Child, Leaders, Making, Orders, Phase};
use crate::ptrace::memory::Memory;
use crate::ptrace::regs::{self, Rewound};
use crate::ptrace::sys::{self, Resume, SyscallStop};
use crate::ptrace::tsc;
use crate::ptrace::wait::{Bell, Inbox, Stop};
use crate::ptrace::{Error, Pid, Result, Tid, procfs};
use crate::record::interleaving::Interleaving;
use crate::record::leading::{HeldAt, HeldThread, capture_inputs, lets_in, now};
use crate::record::{CallEntry, CallReturn, Delivery, Ending, Event, Piece, Record, Seq, SignalRecord, Slot};
use crate::rules::Pace;
use crate::symbols::Registers;
use crate::tracee::process::{self, Process, Rewinding};
pub use answered::{Answered, AtStops};
pub(crate) use serial::Standing;

/// How long the follower may compute and come to no call before the order is relaxed: perhaps it waits in a loop for a
/// thread that is not due. The time is its own; on a busy machine it may have to wait for a processor.
const RELAX_AFTER: Duration = Duration::from_millis(50);
/// How many records a follower may be behind that counts as caught up. Under continuous load there is always something on
/// the way, so it need not be none; what is behind is worked off within milliseconds.
pub(crate) const CLOSE_BEHIND: u64 = 200;
/// How many records, and how many bytes of them, are taken from the log ahead of those that can be answered.
const LOOK_AHEAD: usize = 4096;
const LOOK_AHEAD_BYTES: usize = 64 << 20;

/// Where the evidence is kept, for `status`.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) replayed: AtomicU64,
    pub(crate) calls: AtomicU64,
    pub(crate) outputs: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) relaxed: AtomicU64,
    /// Calls that were answered without a stop.
    pub(crate) answered: Mutex<Answered>,
    /// Records that were taken from the log and not yet answered.
    pub(crate) due: AtomicU64,
    /// How often what earlier attempts ask for was met.
    pub(crate) met_again: Met,
}

/// What it means that the leader does not come to a call that its follower waits at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Nothing: the old version leads, and is right.
    Accepted,
    /// The new version, which leads, is stuck.
    Fault,
}

/// Processes of the leader by their ids.
pub(crate) type Living = Arc<Mutex<BTreeSet<i32>>>;

/// How the replayer is to behave.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The leader's threads.
    pub(crate) leaders: BTreeMap<Slot, Tid>,
    /// What they have open.
    pub(crate) objects: Objects,
    pub(crate) hang_timeout: Duration,
    pub(crate) silence: Silence,
    pub(crate) tally: Arc<Tally>,
    /// Under `--lockstep`: where agreement is announced, and whom to wake.
    pub(crate) agreement: Option<(Arc<AtomicU64>, Arc<Bell>)>,
    /// Rules for the differences that are meant, and where the leader's records are kept.
    pub(crate) reconcile: Reconcile,
    pub(crate) pairing: Pairing,
    /// How the leader's threads run beside each other.
    pub(crate) interleaving: Interleaving,
    /// Threads of these two had run beside each other before, when the other version led.
    pub(crate) raced: bool,
    /// The program reads the processor's counter, and what it reads is not recorded.
    pub(crate) unrecorded_clock: bool,
    /// Situations in which earlier attempts have seen differences.
    pub(crate) situations: [Option<u64>; SITUATIONS],
    pub(crate) answers: Answering,
}

/// Where the calls of a follower are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answering {
    /// In the follower, where that is possible; from so many stops at a call site on.
    WithoutStops { hot: u8 },
    /// At a stop each.
    AtStops,
}

impl Default for Answering {
    fn default() -> Self {
        Answering::WithoutStops { hot: 3 }
    }
}

/// What a promotion waits for.
#[derive(Debug)]
struct Drain {
    target: u64,
    held: Vec<HeldThread>,
    reported: bool,
    /// Threads that were interrupted in a wait of their own, and have not stopped yet.
    interrupted: BTreeSet<Tid>,
}

/// What became of a record.
enum Applied {
    Done,
    NotReady,
    Diverged(Box<Divergence>),
}

/// The role of the process that follows.
#[derive(Debug)]
pub(crate) struct Following {
    threads: BTreeMap<Tid, Thread>,
    reader: Reader,
    /// Records taken from the log and not yet answered.
    due: Due,
    rules: Option<Box<Rules>>,
    /// What was lived through.
    past: Past,
    /// What stands for what in the two versions.
    known: Known,
    settings: Settings,
    listener: Box<dyn Listener>,
    /// How long nothing has moved.
    waiting: Waiting,
    turns: Turns,
    caught_up: bool,
    drain: Option<Drain>,
    /// Threads and processes that come and go.
    kin: Kin,
    /// The new version that is being applied.
    applying: Option<applying::Applying>,
    /// Whether calls are answered without a stop.
    agent: agent::Agent,
    /// Calls that were answered without a stop.
    agent_answered: u64,
    /// A record is in hand, and not among those that are due.
    answering: bool,
    /// What a program that has applied its new version itself has said of it.
    lasting_remark: Option<String>,
    /// A thread whose twin handles a fault: it is to be told whether this one has had one.
    watched: Option<Slot>,
    ended: bool,
    /// Set once the follower goes on although it has parted from the leader.
    parted: Option<Parted>,
}

impl Leaders for BTreeMap<Slot, Tid> {
    fn has(&self, tid: i32) -> bool {
        self.values().any(|leader| leader.0 == tid)
    }
}

impl Following {
    /// Takes over a process whose threads are all parked.
    pub(crate) fn new(
        threads: impl IntoIterator<Item = (Tid, Slot, Standing)>,
        reader: Reader,
        mut settings: Settings,
        listener: impl Listener + 'static,
    ) -> Following {
        let running = |(tid, slot, standing)| (tid, Thread { standing, ..Thread::running(slot) });
        let alone = match settings.interleaving {
            Interleaving::OneByOne => calls::of_one_thread_in_order,
            Interleaving::Free => calls::of_one_thread,
        };
        settings.tally.replayed.store(0, Ordering::Relaxed);
        settings.tally.due.store(0, Ordering::Relaxed);
        let threads: BTreeMap<_, _> = threads.into_iter().map(running).collect();
        let has_threads = threads.len() > 1;
        let situations = settings.situations;
        let agent = match settings.answers {
            Answering::WithoutStops { .. } => agent::Agent::Unused,
            Answering::AtStops => agent::Agent::Off(AtStops::Asked),
        };
        Following {
            threads,
            reader,
            due: Due::new(alone),
            rules: settings.reconcile.begin(if settings.agreement.is_some() { Pace::Lockstep } else { Pace::Free }),
            past: Past::new(situations, has_threads, settings.raced),
            known: Known { objects: std::mem::take(&mut settings.objects), ..Known::default() },
            settings,
            listener: Box::new(listener),
            waiting: Waiting::new(Instant::now(), now().0),
            turns: Turns::new(Instant::now()),
            caught_up: false,
            drain: None,
            kin: Kin::default(),
            applying: None,
            agent,
            agent_answered: 0,
            answering: false,
            lasting_remark: None,
            watched: None,
            ended: false,
            parted: None,
        }
    }

    /// Lets every thread go.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.waiting.moved = Instant::now();
        if self.is_one_by_one() {
            return self.start_one_by_one();
        }
        self.threads.keys().try_for_each(|tid| sys::resume(*tid, Resume::Sysemu, 0))
    }

    fn notify(&self, message: Message) {
        self.listener.hear(message);
    }

    fn diverge(&mut self, process: &Process, mut divergence: Divergence) {
        if self.ended {
            return;
        }
        if self.is_led_astray(&divergence) {
            return;
        }
        self.ended = true;
        divergence.remark = self.remark();
        divergence.raced = self.has_raced();
        divergence.unrecorded_clock = self.settings.unrecorded_clock;
        divergence.half_read = self.may_end_a_line(&divergence);
        let expected = divergence.expected.as_ref();
        divergence.situation = expected.map(|expected| self.past.situations.at(divergence.slot, expected.nr));
        if let Some(tid) = process.tid(divergence.slot) {
            // It does what it does after a fault, and the leader had none here.
            if let Some(fault) = self.threads.get_mut(&tid).and_then(|thread| thread.fault.take()) {
                divergence.kind = *fault;
            }
            divergence.backtrace = crate::symbols::symbolize(process.pid.0, &self.stack(process, tid));
        }
        self.notify(Message::Diverged(Box::new(divergence)));
    }

    /// Takes note that threads did something in an order which is not known to be the leader's. A program of one thread has
    /// nobody to race with.
    fn note_race(&mut self, how: &'static str) {
        if self.past.has_threads && !std::mem::replace(&mut self.past.unordered, true) {
            tracing::info!(how, "threads ran beside each other");
        }
    }

    /// Says whether the order in which threads wrote to memory was ever not the leader's, as far as that is known.
    pub(crate) fn has_raced(&self) -> bool {
        self.past.unordered || !self.is_one_by_one() && self.threads.len() > 1
    }

    /// Looks at a thread for the matcher.
    fn sight<'a>(&self, process: &Process, tid: Tid, thread: &'a Thread) -> Sight<'a, Tid> {
        Sight {
            thread: tid,
            slot: thread.slot,
            phase: self.phase(thread),
            seat: &thread.seat,
            is_main: tid == process.pid.main(),
            is_signalled: thread.signalled.is_some(),
        }
    }

    /// Returns where a thread is, as the matcher sees it.
    fn phase<'a>(&self, thread: &'a Thread) -> Phase<'a> {
        match &thread.state {
            State::Running { local: None } => Phase::Computes,
            State::Running { local: Some(nr) } => Phase::InOwnCall(*nr),
            State::AtCall(call) => Phase::AtCall(call),
            State::Entered(_) => Phase::Entered,
            State::Real(real) => Phase::Makes(real.making(|born| match born {
                None => Child::Awaited,
                Some(born) if self.kin.orphans.contains(&born) => Child::Here,
                Some(born) if self.threads.contains_key(&born) => Child::Adopted,
                Some(_) => Child::Announced,
            })),
            State::Faulted(kind) => Phase::Faulted(kind),
            State::Parked(_) => Phase::Parked,
        }
    }

    /// What is known of calls by which threads wait for each other.
    fn orders(&self) -> Orders<'_> {
        let Settings { interleaving, pairing, leaders, .. } = &self.settings;
        Orders { interleaving: *interleaving, pairing: *pairing, leaders }
    }

    fn state(&mut self, tid: Tid, state: State) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.state = state;
        }
    }

    fn turn(&mut self, tid: Tid, turn: Turn) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.seat.turn = turn;
        }
    }

    fn go(&mut self, tid: Tid, how: Resume, state: State) -> Result<()> {
        self.state(tid, state);
        self.turn(tid, Turn::Going);
        sys::resume(tid, how, 0)
    }

    fn describe(&self, slot: Slot, kind: DivergenceKind, due: Option<&Record>, actual: Option<&Call>) -> Divergence {
        let expected = due.and_then(|record| {
            let (entry, _) = record.event.call()?;
            Some((syscalls::row(entry.nr)?, entry))
        });
        let inputs: Vec<Input<'_>> = actual.map(Call::inputs).unwrap_or_default();
        let view = actual.map(|call| Actual { nr: call.nr, args: call.args, inputs: &inputs });
        let actual = actual.and_then(|call| call.row).zip(view.as_ref());
        compare::describe(kind, slot, due, expected, actual, &self.past.trail)
    }

    /// Takes one more record from the log, if there is one and room to keep it.
    fn fetch(&mut self) -> bool {
        if !self.may_fetch() {
            return false;
        }
        match self.reader.next() {
            Some(record) => {
                if self.due.is_empty() {
                    self.waiting.moved = Instant::now();
                }
                self.admit(record);
                true
            }
            None => false,
        }
    }

    /// Answers every record that can be answered.
    fn advance(&mut self, process: &mut Process) -> Result<()> {
        self.try_to_switch(process)?;
        drive::advance(&mut Live { following: self, process })?;
        while self.give_what_is_left() {
            drive::advance(&mut Live { following: self, process })?;
        }
        self.settings.tally.due.store(self.due.len() as u64, Ordering::Relaxed);
        let close = self.reader.backlog() + self.due.len() as u64 <= CLOSE_BEHIND;
        if !self.caught_up && !self.ended && close && self.applying.is_none() {
            self.caught_up = true;
            self.notify(Message::CaughtUp);
        }
        self.check_watched(process);
        self.check_drained(process)
    }

    /// Says whether one more record may be taken from the log ahead of those that can be answered.
    fn may_fetch(&self) -> bool {
        self.due.len() < LOOK_AHEAD && self.due.bytes() < LOOK_AHEAD_BYTES
    }

    /// Answers a thread's next record, if it can be answered; says whether it was.
    fn answer_first(&mut self, process: &mut Process, slot: Slot) -> Result<bool> {
        let Some(record) = self.due.pop(slot) else { return Ok(false) };
        self.answering = true;
        let applied = self.apply(process, &record);
        self.answering = false;
        match applied? {
            Applied::Done => {
                tracing::trace!(pid = process.pid.0, ?record, "lived through");
                self.passed();
                Ok(true)
            }
            Applied::NotReady => Ok(self.put_back(record)),
            Applied::Diverged(divergence) => {
                // It may be looked at again, see [`parted`].
                self.due.put_back(record);
                self.diverge(process, *divergence);
                Ok(false)
            }
        }
    }

    fn consume(&mut self, slot: Slot) {
        if self.due.pop(slot).is_some() {
            self.passed();
        }
    }

    fn passed(&mut self) {
        self.waiting.moved = Instant::now();
        self.turns.passed();
        self.count_replayed();
        // What a follower makes of calls that it does not agree to lets nothing out.
        if let Some((agreed, bell)) = &self.settings.agreement
            && self.parted.is_none()
        {
            agreed.store(self.due.agreed(), Ordering::Release);
            bell.ring();
        }
    }

    /// Takes over what is known of the epoll sets from the former roles.
    pub(crate) fn adopt_registrations(&mut self, pairs: Vec<(i32, i32, Pair)>) {
        for (epfd, fd, pair) in pairs {
            self.known.registrations.set(epfd, fd, pair);
        }
    }

    pub(crate) fn registrations(&self) -> &Registrations {
        &self.known.registrations
    }

    /// Returns the addresses of a stopped thread's frames, innermost first.
    fn stack(&self, process: &Process, tid: Tid) -> Vec<u64> {
        let Ok(mut regs) = sys::get_regs(tid) else { return Vec::new() };
        // No unwinder knows the agent's code.
        regs.rip = self.agent.original(regs.rip);
        let _ = process.leave_vdso(&mut regs);
        let registers = Registers { rip: regs.rip, rsp: regs.rsp, rbp: regs.rbp };
        crate::symbols::unwind(process.pid.0, registers, |addr| process.memory.read_u64(addr).ok())
    }
}
