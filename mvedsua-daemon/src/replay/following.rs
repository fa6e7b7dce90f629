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
//! A record is answered only when all earlier ordered records have been answered, so the threads of the follower see the
//! leader's order, and between their calls they run one at a time, in the leader's order as well ([`turns`]). When nobody
//! can move all the same (the threads took a lock in another order than the leader's, which no record shows) the order is
//! relaxed: the first waiting record of another thread may go first, unless both concern the same object ([`super::objects`]). If still
//! nothing moves, that is a divergence of kind `order`.
//!
//! This file takes records to threads; [`stops`] is what is done where a thread has stopped, [`answer`] answers one record, [`ahead`] tells the time before it is asked, [`counting`]
//! lets either version count the processors, [`letting_in`] is for signals that were blocked, [`serial`] keeps the order in which
//! the leader's threads ran one by one, [`turns`] guesses it where they run freely, [`patience`] is for when none can go on,
//! [`drain`] for a change of roles.

mod ahead;
mod answer;
pub(crate) mod applying;
mod copies;
mod counting;
mod drain;
mod letting_in;
mod names;
mod owned;
mod parted;
mod patience;
pub(crate) mod processes;
pub(crate) mod reconcile;
mod serial;
mod stops;
mod thread;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mvedsua_common::syscalls::{self, Class, Order, Pairing, Row, Treatment, regions};

use self::parted::Parted;
use self::reconcile::{Reconcile, Rules};
use self::thread::{Call, State, Thread, describe_state};
use super::due::Due;
use super::elastic::{self, Counting, LastTimes};
use super::epoll::{Pair, Registrations};
use super::objects::Objects;
use super::proc_self::{self, OwnFiles};
use super::situations::{Met, Situations};
use crate::compare::{self, Actual, Divergence, DivergenceKind, Evidence, Input, MatchedCall, Trail};
use crate::log::Reader;
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
use crate::update::SITUATIONS;
use crate::update::process::{self, Process, Rewinding};
use crate::update::session::Notice;
pub(crate) use serial::Standing;
pub(crate) use turns::waits;
use turns::{Turn, Why};

/// How long the follower may compute and come to no call before the order is relaxed: perhaps it waits in a loop for a
/// thread that is not due. The time is its own; on a busy machine it may have to wait for a processor.
const RELAX_AFTER: Duration = Duration::from_millis(50);
/// How long nothing may move before the order is relaxed whatever the follower does.
const RELAX_AT_LAST: Duration = Duration::from_secs(1);
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
    applied: u64,
    trail: Trail,
    /// What the leader's descriptors stand for.
    objects: Objects,
    registrations: Registrations,
    /// Where it has its copies of mapped files.
    copies: copies::Copies,
    /// What the follower wants to be told with the signals of a timer, by its id.
    timer_values: BTreeMap<i32, u64>,
    /// Timers that were deleted last; a signal of theirs may still wait.
    deleted_timers: VecDeque<i32>,
    own_files: OwnFiles,
    times: LastTimes,
    settings: Settings,
    notices: Sender<Notice>,
    moved: Instant,
    /// When something had moved last, and the processor time that the leader had used then.
    leader_used: Option<(Instant, Duration)>,
    /// When a thread was last given its turn, how often one had to wait for it, and how often one that can move got it.
    given: Instant,
    /// When that was one that can move.
    turn_given: Instant,
    /// The processor time that the follower had used when it was looked at first after something had moved at that instant.
    used: Option<(Instant, Duration)>,
    holds: u64,
    turns: u64,
    /// How often threads looked again after a wait that had run out, since anybody moved.
    looks: u32,
    /// When it was first seen that the leader has ended and told everything, nanoseconds of its `CLOCK_MONOTONIC`.
    over: Option<u64>,
    /// When the leader had the last result that was given to the follower, nanoseconds of its `CLOCK_MONOTONIC`.
    lived_until: u64,
    caught_up: bool,
    /// The record that is due first, and since when.
    first_due: Option<(Seq, Instant)>,
    /// What each thread of the leader has been told last.
    situations: Situations,
    /// There were several threads at once.
    has_threads: bool,
    /// Threads have run one by one, but for some that ran beside each other.
    unordered: bool,
    drain: Option<Drain>,
    orphans: Vec<Tid>,
    /// The new version that is being applied.
    applying: Option<applying::Applying>,
    /// What a program that has applied its new version itself has said of it.
    lasting_remark: Option<String>,
    /// A thread whose twin handles a fault: it is to be told whether this one has had one.
    watched: Option<Slot>,
    /// Threads that ended and may have records still.
    gone: BTreeSet<Slot>,
    /// The whole process is ending, as the leader's did.
    leaving: bool,
    ended: bool,
    /// Set once the follower goes on although it has parted from the leader.
    parted: Option<Parted>,
    /// Children that were made and that nobody has taken over yet.
    births: Vec<processes::Birth>,
    /// Where processes are paired: those of the leader whose twins have not come to their ends yet.
    living: Option<Living>,
    /// How the process ended, once it has lived through the whole of its stream.
    finished: Option<Ending>,
}

impl Following {
    /// Takes over a process whose threads are all parked.
    pub(crate) fn new(
        threads: impl IntoIterator<Item = (Tid, Slot, Standing)>,
        reader: Reader,
        mut settings: Settings,
        notices: Sender<Notice>,
    ) -> Following {
        let running = |(tid, slot, standing)| (tid, Thread { standing, ..Thread::running(slot) });
        let alone = match settings.interleaving {
            Interleaving::OneByOne => elastic::of_one_thread_in_order,
            Interleaving::Free => elastic::of_one_thread,
        };
        settings.tally.replayed.store(0, Ordering::Relaxed);
        settings.tally.due.store(0, Ordering::Relaxed);
        let threads: BTreeMap<_, _> = threads.into_iter().map(running).collect();
        let has_threads = threads.len() > 1;
        Following {
            threads,
            reader,
            due: Due::new(alone),
            rules: settings.reconcile.begin(if settings.agreement.is_some() { Pace::Lockstep } else { Pace::Free }),
            applied: 0,
            trail: Trail::default(),
            objects: std::mem::take(&mut settings.objects),
            registrations: Registrations::default(),
            copies: copies::Copies::default(),
            timer_values: BTreeMap::new(),
            deleted_timers: VecDeque::new(),
            own_files: OwnFiles::default(),
            times: LastTimes::default(),
            situations: Situations::new(settings.situations),
            has_threads,
            unordered: settings.raced,
            settings,
            notices,
            moved: Instant::now(),
            leader_used: None,
            given: Instant::now(),
            turn_given: Instant::now(),
            used: None,
            holds: 0,
            turns: 0,
            looks: 0,
            over: None,
            lived_until: now().0,
            caught_up: false,
            first_due: None,
            drain: None,
            orphans: Vec::new(),
            applying: None,
            lasting_remark: None,
            watched: None,
            gone: BTreeSet::new(),
            leaving: false,
            ended: false,
            parted: None,
            births: Vec::new(),
            living: None,
            finished: None,
        }
    }

    /// Lets every thread go.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.moved = Instant::now();
        if self.is_one_by_one() {
            return self.start_one_by_one();
        }
        self.threads.keys().try_for_each(|tid| sys::resume(*tid, Resume::Sysemu, 0))
    }

    fn notify(&self, notice: Notice) {
        // The session outlives its tracer threads; if it is gone all the same nobody wants to know.
        let _ = self.notices.send(notice);
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
        let expected = divergence.expected.as_ref();
        divergence.situation = expected.map(|expected| self.situations.at(divergence.slot, expected.nr));
        if let Some(tid) = process.tid(divergence.slot) {
            // It does what it does after a fault, and the leader had none here.
            if let Some(fault) = self.threads.get_mut(&tid).and_then(|thread| thread.fault.take()) {
                divergence.kind = *fault;
            }
            divergence.backtrace = crate::symbols::symbolize(process.pid.0, &stack(process, tid));
        }
        self.notify(Notice::Diverged(Box::new(divergence)));
    }

    /// Takes note that threads did something in an order which is not known to be the leader's. A program of one thread has
    /// nobody to race with.
    fn note_race(&mut self, how: &'static str) {
        if self.has_threads && !std::mem::replace(&mut self.unordered, true) {
            tracing::info!(how, "threads ran beside each other");
        }
    }

    /// Says whether the order in which threads wrote to memory was ever not the leader's, as far as that is known.
    pub(crate) fn has_raced(&self) -> bool {
        self.unordered || !self.is_one_by_one() && self.threads.len() > 1
    }

    fn state(&mut self, tid: Tid, state: State) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.state = state;
        }
    }

    fn turn(&mut self, tid: Tid, turn: Turn) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.turn = turn;
        }
    }

    fn go(&mut self, tid: Tid, how: Resume, state: State) -> Result<()> {
        self.state(tid, state);
        self.turn(tid, Turn::Going);
        sys::resume(tid, how, 0)
    }

    fn describe(&self, slot: Slot, kind: DivergenceKind, due: Option<&Record>, actual: Option<&Call>) -> Divergence {
        let expected = due.and_then(|record| match &record.event {
            Event::Call(entry, _) | Event::Enter(entry) => Some((syscalls::row(entry.nr)?, entry)),
            _ => None,
        });
        let inputs: Vec<Input<'_>> = actual.map(inputs_of).unwrap_or_default();
        let view = actual.map(|call| Actual { nr: call.nr, args: call.args, inputs: &inputs });
        let actual = actual.and_then(|call| call.row).zip(view.as_ref());
        compare::describe(kind, slot, due, expected, actual, &self.trail)
    }

    /// Takes one more record from the log, if there is one and room to keep it.
    fn fetch(&mut self) -> bool {
        if !self.may_fetch() {
            return false;
        }
        match self.reader.next() {
            Some(record) => {
                if self.due.is_empty() {
                    self.moved = Instant::now();
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
        while !self.ended && !self.is_on_its_own() {
            let mut moved = self.answer_elastic(process)?;
            moved |= self.deliver_signalled()?;
            if self.somebody_has_turn(process)? {
                // What is due tells whether somebody else waits.
                moved |= !self.due.has_ordered() && self.fetch();
                // It asks for the time, perhaps.
                if moved || self.somebody_asks() && !self.reader.arm() && !self.reader.is_finished() {
                    continue;
                }
                break;
            }
            if !self.due.has_ordered() {
                moved |= self.fetch();
            }
            if let Some(slot) = self.due.front()
                && !self.waits_for_child()
            {
                moved |= self.answer_first(process, slot)?;
            }
            if moved {
                continue;
            }
            if self.give_turn(process)? {
                continue;
            }
            // Nothing can be answered: either the follower is not there yet, or the log has nothing for those who wait.
            let idle = !self.due.has_ordered() && self.may_fetch();
            if (idle || self.somebody_asks()) && !self.reader.arm() && !self.reader.is_finished() {
                continue;
            }
            break;
        }
        self.settings.tally.due.store(self.due.len() as u64, Ordering::Relaxed);
        let close = self.reader.backlog() + self.due.len() as u64 <= CLOSE_BEHIND;
        if !self.caught_up && !self.ended && close && self.applying.is_none() {
            self.caught_up = true;
            self.notify(Notice::CaughtUp);
        }
        self.check_watched(process);
        self.check_drained(process)
    }

    /// Says whether one more record may be taken from the log ahead of those that can be answered.
    fn may_fetch(&self) -> bool {
        self.due.len() < LOOK_AHEAD && self.due.bytes() < LOOK_AHEAD_BYTES
    }

    /// Says whether a thread waits for a record of its own that has not been taken from the log yet.
    fn somebody_asks(&self) -> bool {
        let asks = |thread: &Thread| match &thread.state {
            State::AtCall(call) => self.due.is_alone(call.nr) && self.due.first_of(thread.slot).is_none(),
            _ => self.waits_to_be_told(thread),
        };
        self.may_fetch() && self.threads.values().any(asks)
    }

    /// Says whether one of these has a twin that is on its way to a call.
    fn somebody_will_be_told(&self) -> bool {
        let will_be = |thread: &Thread| match &thread.state {
            State::AtCall(call) if self.due.is_alone(call.nr) && self.due.first_of(thread.slot).is_none() => {
                self.leader_comes(thread.slot)
            }
            _ => false,
        };
        self.may_fetch() && self.threads.values().any(will_be)
    }

    /// Answers the threads that ask for the time, each from its own next record; says whether one could be answered.
    fn answer_elastic(&mut self, process: &mut Process) -> Result<bool> {
        let asks = |(tid, thread): (&Tid, &Thread)| match &thread.state {
            State::AtCall(call) if self.due.is_alone(call.nr) => Some((*tid, thread.slot)),
            _ => None,
        };
        let asking: Vec<(Tid, Slot)> = self.threads.iter().filter_map(asks).collect();
        let mut moved = false;
        for (tid, slot) in asking {
            while self.due.first_of(slot).is_none() && self.fetch() {}
            match self.due.first_of(slot) {
                // A signal takes its turn in the order; the call that it belongs to comes after it.
                None | Some(Record { event: Event::Signal(_), .. }) => continue,
                Some(_) => {}
            }
            if self.due.is_of_one_thread(slot) {
                moved |= self.answer_first(process, slot)?;
            } else if let Some(Thread { state: State::AtCall(call), .. }) = self.threads.get(&tid)
                && elastic::is_elastic(call.nr, &call.args)
            {
                // The leader made another call here: the follower asks once more than it did.
                let call = call.clone();
                moved |= self.improvise(process, tid, &call)?;
            }
        }
        Ok(moved)
    }

    /// Answers a thread's next record, if it can be answered; says whether it was.
    fn answer_first(&mut self, process: &mut Process, slot: Slot) -> Result<bool> {
        let Some(record) = self.due.pop(slot) else { return Ok(false) };
        match self.apply(process, &record)? {
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
        self.moved = Instant::now();
        self.looks = 0;
        self.applied += 1;
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
            self.registrations.set(epfd, fd, pair);
        }
    }

    pub(crate) fn registrations(&self) -> &Registrations {
        &self.registrations
    }
}

fn inputs_of(call: &Call) -> Vec<Input<'_>> {
    call.inputs.iter().map(|piece| Input { arg: piece.arg, part: piece.part, bytes: &piece.bytes }).collect()
}

fn compare_call(call: &Call, expected: &CallEntry) -> std::result::Result<Evidence, DivergenceKind> {
    let Some(row) = call.row else {
        let name = syscalls::name(call.nr).unwrap_or("an unknown call").to_owned();
        return Err(DivergenceKind::Refused { call: name, reason: "the table has no row for it".into() });
    };
    compare::entry(row, expected, &Actual { nr: call.nr, args: call.args, inputs: &inputs_of(call) })
}

/// Returns the addresses of a stopped thread's frames, innermost first.
fn stack(process: &Process, tid: Tid) -> Vec<u64> {
    let Ok(mut regs) = sys::get_regs(tid) else { return Vec::new() };
    // No unwinder knows the agent's code.
    let _ = process.leave_vdso(&mut regs);
    let registers = Registers { rip: regs.rip, rsp: regs.rsp, rbp: regs.rbp };
    crate::symbols::unwind(process.pid.0, registers, |addr| process.memory.read_u64(addr).ok())
}
