//! Applying a new version in the follower.
//!
//! A program that cooperates applies it itself: from the request in its control block to its word that it is done.
//!
//! ```text
//!             every thread at an update point           the new version at the update point
//!   Waiting ───────── prctl(BEGIN) ─────────► Own ───────── prctl(DONE) ─────────► following
//!      │ records are answered as always        │ no record is answered; calls: super::own
//!      └──────────── prctl(FAILED), or time runs out ────► the update is undone
//! ```
//!
//! A thread that waits in a call which the leader has not returned from would come to its update point only then. While
//! nothing moves such a call is answered with `EINTR`, as by a signal; the thread makes it again after the update. By then
//! threads that are at their update points wait for the others and wake each other, which the leader's do not: where the order
//! of threads is recorded (`super::serial`) such calls are answered as well.
//!
//! Where the program knows nothing, somebody else does it, between two calls of the program ([`Switch`]): the follower follows
//! as the old version until it stands where that is possible.

use mvedsua_common::cooperation::{BEGIN, DOING, DONE, FAILED, LASTING, MARKER, REMARK, TIMING};
use mvedsua_common::syscalls::Ordering as Role;

use super::super::own::{self, FIRST, Identity, Own};
use super::real::{RealCall, What};
use super::*;
use crate::ptrace::{Pid, procfs, query};

/// How long nothing may move before a call that blocks is interrupted.
const INTERRUPT_AFTER: Duration = Duration::from_millis(20);
/// How long stopping a thread for the report may take.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// What an interrupted call returns.
const EINTR: i64 = -(libc::EINTR as i64);
/// The longest reason that is read.
const MOST_REASON: u64 = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Own,
    /// It takes too long; a thread is being stopped for the report.
    Stuck,
}

/// What came of an attempt to apply a new version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Done,
    /// It cannot be yet; why, in words.
    Busy(String),
}

/// Makes the old version the new one where that is possible.
pub(crate) trait Switch: std::fmt::Debug + Send {
    /// Tries it. The threads stand still, or block in the kernel.
    fn attempt(&mut self, process: &Process, threads: &[Tid]) -> Result<Attempt>;
}

/// An update that is being applied.
#[derive(Debug)]
pub(crate) struct Applying {
    phase: Phase,
    limit: Duration,
    deadline: Instant,
    how: How,
}

/// Who applies it.
#[derive(Debug)]
enum How {
    /// The program.
    Itself(Cooperating),
    /// Somebody else, and what stood in the way last.
    Somebody(Box<dyn Switch>, String),
    /// Nobody: why not, in words.
    Nobody(String, Again),
}

/// Whether what could not be done may be possible at another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Perhaps,
    No,
}

/// A program that applies its new version itself.
#[derive(Debug)]
struct Cooperating {
    leader: Pid,
    /// The leader's threads, which the follower is to take its own for.
    tids: BTreeMap<Slot, Tid>,
    blocking: Blocking,
    /// Threads that were sent on to their update points, and out of which calls.
    interrupted: BTreeMap<Slot, u32>,
    /// What it does now, as it says itself.
    doing: Option<String>,
}

/// What becomes of a call that the leader has not returned from while no update point was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocking {
    /// It returns with `EINTR`.
    IsInterrupted,
    /// It is waited for: both versions are to come to the same update point.
    Waits,
}

impl Applying {
    /// The program was asked to.
    pub(crate) fn by_the_program(
        leader: Pid,
        tids: BTreeMap<Slot, Tid>,
        limit: Duration,
        blocking: Blocking,
    ) -> Applying {
        Applying::new(
            How::Itself(Cooperating { leader, tids, blocking, interrupted: BTreeMap::new(), doing: None }),
            limit,
        )
    }

    /// It is to be tried at every call of the program.
    pub(crate) fn when_possible(limit: Duration, switch: Box<dyn Switch>) -> Applying {
        Applying::new(How::Somebody(switch, String::new()), limit)
    }

    /// It was to be done already, and could not be; why, in words.
    pub(crate) fn not(why: String, again: Again) -> Applying {
        // No record is answered any more.
        Applying { phase: Phase::Own, ..Applying::new(How::Nobody(why, again), Duration::ZERO) }
    }

    fn new(how: How, limit: Duration) -> Applying {
        Applying { phase: Phase::Waiting, limit, deadline: Instant::now() + limit, how }
    }

    fn cooperating(&self) -> Option<&Cooperating> {
        match &self.how {
            How::Itself(cooperating) => Some(cooperating),
            How::Somebody(..) | How::Nobody(..) => None,
        }
    }
}

/// A call of the update's own, while it is executed.
#[derive(Clone, Debug)]
pub(super) struct OwnCall {
    nr: u32,
    args: [u64; 6],
    /// It opens a file.
    opens: bool,
}

impl Following {
    /// The follower is to apply a new version before it follows.
    pub(crate) fn apply_first(&mut self, applying: Applying) {
        self.applying = Some(applying);
    }

    /// Says whether the calls of the follower are its own.
    pub(super) fn is_on_its_own(&self) -> bool {
        self.applying.as_ref().is_some_and(|applying| applying.phase != Phase::Waiting)
    }

    fn cooperating(&self) -> Option<&Cooperating> {
        self.applying.as_ref().and_then(Applying::cooperating)
    }

    /// Applies the new version if somebody else than the program is to, and every thread stands where that is possible.
    pub(super) fn try_to_switch(&mut self, process: &mut Process) -> Result<()> {
        let Some(Applying { how: How::Somebody(switch, why), .. }) = &mut self.applying else { return Ok(()) };
        let stands = |thread: &Thread| match &thread.state {
            State::Running { local: None } => thread.seat.is_held(),
            State::Running { local: Some(_) } | State::AtCall(_) | State::Entered(_) => true,
            State::Real(_) | State::Faulted(_) | State::Parked(_) => false,
        };
        if self.ended || !self.threads.values().all(stands) {
            return Ok(());
        }
        let threads: Vec<Tid> = self.threads.keys().copied().collect();
        match switch.attempt(process, &threads)? {
            Attempt::Busy(what) => {
                *why = what;
                Ok(())
            }
            Attempt::Done => {
                self.is_applied();
                Ok(())
            }
        }
    }

    /// The new version is there, and follows.
    fn is_applied(&mut self) {
        self.applying = None;
        self.waiting.moved = Instant::now();
        self.begin_rules();
        self.notify(Message::Applied);
    }

    /// Looks at a call before anything else does; says whether it was dealt with.
    pub(super) fn on_own_entry(&mut self, process: &mut Process, tid: Tid, nr: u32, args: [u64; 6]) -> Result<bool> {
        if self.cooperating().is_none() {
            return Ok(false);
        }
        if i64::from(nr) == libc::SYS_prctl && args[0] == MARKER {
            self.on_marker(process, tid, &args)?;
            return Ok(true);
        }
        if !self.is_on_its_own() {
            return Ok(false);
        }
        let treatment = syscalls::treatment(nr, &args, &process.memory);
        let call = OwnCall { nr, args, opens: false };
        match own::decide(nr, &args, &treatment) {
            // No thread takes turns here, and a wait ends as it was asked to, be that after the update.
            Own::Local if calls::waits(nr, &args) => self.execute(tid, call, None)?,
            Own::Local => return Ok(false),
            Own::Real => self.execute(tid, call, None)?,
            Own::OnFile(arg) => self.execute(tid, call, Some(arg))?,
            Own::Open(path) => match self.is_odd_file(process, args[path]) {
                Some(what) => self.refuse_own(process, tid, nr, args, &format!("it opens {what}")),
                None => {
                    let below = (path == 1 && args[0] as i32 >= FIRST).then_some(0);
                    self.execute(tid, OwnCall { opens: true, ..call }, below)?;
                }
            },
            Own::Query(fd) => {
                let Some(applying) = self.cooperating() else { return Ok(false) };
                match query::ask(applying.leader, fd, nr, &args, &process.memory)? {
                    Some(ret) => self.answer_own(tid, ret)?,
                    None => self.refuse_own(process, tid, nr, args, "it does more than ask"),
                }
            }
            Own::Registration => match self.register(process, &args)? {
                Ok(()) => self.answer_own(tid, 0)?,
                Err(reason) => self.refuse_own(process, tid, nr, args, &reason),
            },
            Own::Identity(which) => {
                let name = self.leaders_name(process, tid, which)?;
                self.answer_own(tid, i64::from(name))?;
            }
            Own::Refuse(reason) => self.refuse_own(process, tid, nr, args, reason),
        }
        Ok(true)
    }

    fn answer_own(&mut self, tid: Tid, ret: i64) -> Result<()> {
        sys::set_result(tid, ret)?;
        self.go(tid, Resume::Sysemu, State::Running { local: None })
    }

    /// Makes a call for real; the number of a file of the update's own is in argument `file`.
    fn execute(&mut self, tid: Tid, call: OwnCall, file: Option<usize>) -> Result<()> {
        let mut regs = sys::get_regs(tid)?;
        regs::undo_entry(&mut regs, call.nr);
        match file {
            Some(0) => regs.rdi -= FIRST as u64,
            Some(4) => regs.r8 -= FIRST as u64,
            _ => {}
        }
        sys::set_regs(tid, &regs)?;
        self.go(tid, Resume::Syscall, State::real(What::Update(call)))
    }

    /// A real call has returned: the program sees the numbers that it knows.
    pub(super) fn finish_own(&mut self, tid: Tid) -> Result<()> {
        let Some(Thread { state: State::Real(RealCall { what: What::Update(call), .. }), .. }) = self.threads.get(&tid)
        else {
            return Ok(());
        };
        let mut regs = sys::get_regs(tid)?;
        (regs.rdi, regs.r8) = (call.args[0], call.args[4]);
        if call.opens && regs.rax as i64 >= 0 {
            regs.rax += FIRST as u64;
        }
        sys::set_regs(tid, &regs)?;
        self.go(tid, Resume::Sysemu, State::Running { local: None })
    }

    fn refuse_own(&mut self, process: &Process, tid: Tid, nr: u32, args: [u64; 6], reason: &str) {
        let Some(slot) = process.slot(tid) else { return };
        let row = syscalls::treatment(nr, &args, &process.memory).row();
        let inputs = row.map(|row| capture_inputs(row, &args, &process.memory)).unwrap_or_default();
        let name = syscalls::name(nr).unwrap_or("an unknown call").to_owned();
        let kind = DivergenceKind::Refused { call: name, reason: format!("in the update, {reason}") };
        let call = Call { nr, args, row, inputs, since: Instant::now() };
        let divergence = self.describe(slot, kind, None, Some(&call));
        self.diverge(process, divergence);
    }

    /// Returns what a path names if opening it may do more than give something to read.
    fn is_odd_file(&self, process: &Process, path: u64) -> Option<&'static str> {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::FileTypeExt;
        let mut bytes = vec![0; libc::PATH_MAX as usize];
        let len = process.memory.read_some(path, &mut bytes);
        let len = bytes[..len].iter().position(|byte| *byte == 0)?;
        let root = if bytes[0] == b'/' { "root" } else { "cwd" };
        let place = std::path::Path::new("/proc").join(process.pid.0.to_string()).join(root);
        let name = std::ffi::OsStr::from_bytes(bytes[..len].strip_prefix(b"/").unwrap_or(&bytes[..len]));
        let kind = std::fs::metadata(place.join(name)).ok()?.file_type();
        let harmless = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"];
        let known = harmless.iter().any(|known| known.as_bytes() == &bytes[..len]);
        if kind.is_fifo() {
            Some("a FIFO")
        } else if kind.is_socket() || kind.is_block_device() || (kind.is_char_device() && !known) {
            Some("a device")
        } else {
            None
        }
    }

    /// The new version wants to be told of a descriptor's events by another value.
    fn register(&mut self, process: &Process, args: &[u64; 6]) -> Result<std::result::Result<(), String>> {
        let (epfd, fd) = (args[0] as i32, args[2] as i32);
        let (events, data) = (process.memory.read_u32(args[3])?, process.memory.read_u64(args[3] + 4)?);
        let Some(applying) = self.cooperating() else { return Ok(Ok(())) };
        let Ok(entries) = procfs::epoll_entries(applying.leader, epfd) else {
            return Ok(Err(format!("{epfd} is no epoll set of the leader")));
        };
        // One that the leader has taken out meanwhile will be taken out by the records, too.
        let Some(entry) = entries.into_iter().find(|entry| entry.fd == fd) else { return Ok(Ok(())) };
        let always = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
        if events | always != entry.events | always {
            return Ok(Err(format!("it waits for other events of descriptor {fd} than the leader")));
        }
        self.known.registrations.set(epfd, fd, Pair { leader: entry.data, follower: data });
        Ok(Ok(()))
    }

    fn leaders_name(&self, process: &Process, tid: Tid, which: Identity) -> Result<i32> {
        let Some(applying) = self.cooperating() else { return Ok(tid.0) };
        Ok(match which {
            Identity::Process => applying.leader.0,
            Identity::Parent => procfs::parent(applying.leader)?.0,
            Identity::Thread => {
                process.slot(tid).and_then(|slot| applying.tids.get(&slot)).map_or(tid.0, |leaders| leaders.0)
            }
        })
    }

    fn on_marker(&mut self, process: &mut Process, tid: Tid, args: &[u64; 6]) -> Result<()> {
        let Some(applying) = &mut self.applying else { return Ok(()) };
        match args[1] {
            BEGIN => {
                applying.phase = Phase::Own;
                // From here on they wait for each other in the kernel.
                self.let_ordered_go(|_, _| true)?;
                self.answer_own(tid, 0)
            }
            DONE => {
                let left = procfs::descriptors(process.pid)?;
                if let Some(open) = left.first() {
                    let what = format!("the new version keeps {} open, which it opened itself", open.target.display());
                    self.not_applied(what, LASTING);
                    return Ok(());
                }
                self.is_applied();
                self.answer_own(tid, 0)?;
                self.advance(process)
            }
            said @ (DOING | REMARK) => {
                let bytes = process.memory.read_vec(args[2], args[3].min(MOST_REASON) as usize)?;
                let text = Some(String::from_utf8_lossy(&bytes).into_owned());
                match &mut applying.how {
                    How::Itself(cooperating) if said == DOING => cooperating.doing = text,
                    How::Itself(_) | How::Somebody(..) | How::Nobody(..) => self.lasting_remark = text,
                }
                self.answer_own(tid, 0)
            }
            FAILED => {
                let bytes = process.memory.read_vec(args[2], args[3].min(MOST_REASON) as usize)?;
                self.not_applied(String::from_utf8_lossy(&bytes).into_owned(), args[4]);
                Ok(())
            }
            _ => self.answer_own(tid, -i64::from(libc::EINVAL)),
        }
    }

    /// The follower stays where it is; the session ends it.
    fn not_applied(&mut self, reason: String, class: u64) {
        if !self.ended {
            self.ended = true;
            self.notify(Message::NotApplied { reason, may_help_to_retry: class == TIMING });
        }
    }

    /// Looks whether the update gets on; called with every ring of the session's clock. Says whether no record may be
    /// answered now.
    pub(super) fn check_applying(&mut self, process: &mut Process) -> Result<bool> {
        let Some(applying) = &self.applying else { return Ok(false) };
        if let How::Nobody(why, again) = &applying.how {
            let class = if *again == Again::Perhaps { TIMING } else { LASTING };
            self.not_applied(why.clone(), class);
            return Ok(true);
        }
        let (phase, limit) = (applying.phase, applying.limit);
        if Instant::now() > applying.deadline {
            self.overdue(process, phase, limit);
        } else if phase == Phase::Waiting && self.waiting.moved.elapsed() >= INTERRUPT_AFTER {
            match applying.cooperating().map(|cooperating| cooperating.blocking) {
                Some(blocking) => self.interrupt(process, blocking)?,
                None => self.advance(process)?,
            }
        }
        Ok(phase != Phase::Waiting)
    }

    fn overdue(&mut self, process: &Process, phase: Phase, limit: Duration) {
        let places: Vec<String> = self.threads.iter().map(|(tid, thread)| describe_state(*tid, thread)).collect();
        let Some(slot) = self.stuck_slot() else { return };
        match phase {
            Phase::Waiting => {
                let places = places.join("; ");
                let seconds = limit.as_secs_f64();
                let what = match self.applying.as_ref().map(|applying| &applying.how) {
                    Some(How::Somebody(_, why)) if !why.is_empty() => format!("within {seconds:.1} s {why}"),
                    Some(How::Somebody(..)) => format!("within {seconds:.1} s not all threads stood still: {places}"),
                    Some(How::Itself(_) | How::Nobody(..)) | None => {
                        format!(
                            "no update point was reached within {seconds:.1} s: {places}; is there an mvedsua_update in the loop of \
                             each thread?"
                        )
                    }
                };
                self.not_applied(what, TIMING);
            }
            Phase::Own => {
                tracing::warn!(?places, "the new version does not come to the update point");
                // It must stand still to tell where it is.
                if let Some(applying) = &mut self.applying {
                    applying.phase = Phase::Stuck;
                    applying.deadline += STOP_WITHIN;
                }
                if let Some(tid) = process.tid(slot)
                    && let Err(error) = sys::interrupt(tid)
                {
                    tracing::warn!(%error, "a thread that is stuck cannot be stopped");
                }
            }
            Phase::Stuck => self.give_up(process, slot),
        }
    }

    /// The thread that computes; else the first one.
    fn stuck_slot(&self) -> Option<Slot> {
        let computes = |thread: &&Thread| matches!(thread.state, State::Running { local: None });
        self.threads.values().find(computes).or_else(|| self.threads.values().next()).map(|thread| thread.slot)
    }

    fn give_up(&mut self, process: &Process, slot: Slot) {
        let waited_ms = self.applying.as_ref().map_or(0, |applying| applying.limit.as_millis() as u64);
        let divergence = self.describe(slot, DivergenceKind::Hang { waited_ms }, None, None);
        self.diverge(process, divergence);
    }

    /// A thread that was to tell where it is has stopped; says whether it was one.
    pub(super) fn on_stuck(&mut self, process: &Process, tid: Tid) -> bool {
        let stuck = self.applying.as_ref().is_some_and(|applying| applying.phase == Phase::Stuck);
        if let Some(slot) = process.slot(tid).filter(|_| stuck) {
            self.give_up(process, slot);
        }
        stuck
    }

    /// Threads that are in a call of which nothing is known yet leave it.
    fn interrupt(&mut self, process: &mut Process, blocking: Blocking) -> Result<()> {
        while self.fetch() {}
        let waits = |(tid, thread): (&Tid, &Thread)| {
            let waits = thread.state.at_call().is_some_and(|call| own::is_interruptible(call.nr));
            (waits && self.due.first_of(thread.slot).is_none()).then_some(*tid)
        };
        let waiting: Vec<Tid> = match blocking {
            Blocking::IsInterrupted => self.threads.iter().filter_map(waits).collect(),
            Blocking::Waits => Vec::new(),
        };
        for tid in waiting {
            self.note_interrupted(tid);
            self.answer_own(tid, EINTR)?;
            self.waiting.moved = Instant::now();
        }
        self.let_ordered_go(|following, slot| following.due.first_of(slot).is_none())?;
        self.advance(process)
    }

    fn note_interrupted(&mut self, tid: Tid) {
        let Some(Thread { state: State::AtCall(call), slot, .. }) = self.threads.get(&tid) else { return };
        let (slot, nr) = (*slot, call.nr);
        if let Some(Applying { how: How::Itself(cooperating), .. }) = &mut self.applying {
            cooperating.interrupted.insert(slot, nr);
        }
    }

    /// Says why a thread of the old version, which follows itself, does something else than its twin: it was sent on to its update
    /// point, and has gone elsewhere.
    fn led_astray(&self, divergence: &Divergence) -> Option<String> {
        let applying = self.applying.as_ref().filter(|applying| applying.phase == Phase::Waiting)?;
        let interrupted = applying.cooperating()?.interrupted.get(&divergence.slot)?;
        if !divergence.kind.leaves_the_follower_sound() {
            return None;
        }
        let name = |nr: u32| syscalls::name(nr).unwrap_or("a call").to_owned();
        let instead = divergence
            .actual
            .as_ref()
            .map_or_else(|| "did something else".to_owned(), |call| format!("called {}", name(call.nr)));
        Some(format!(
            "{} was interrupted (EINTR), so that the thread comes to an update point, and the thread {instead} and came to none; is \
             there an mvedsua_update in its loop, and does the loop begin anew after EINTR?",
            name(*interrupted)
        ))
    }

    /// Says so if that is why it does something else; it is no difference between versions then.
    pub(super) fn is_led_astray(&mut self, divergence: &Divergence) -> bool {
        let why = self.led_astray(divergence);
        let astray = why.is_some();
        // In another order of the threads it may not be.
        let class = if self.has_raced() { TIMING } else { LASTING };
        why.into_iter().for_each(|why| self.not_applied(why, class));
        astray
    }

    /// Returns what a program has said that applies its new version itself, or has applied it.
    pub(super) fn remark(&self) -> Option<String> {
        let Some(applying) = &self.applying else { return self.lasting_remark.clone() };
        applying.cooperating().filter(|_| applying.phase != Phase::Waiting)?.doing.clone()
    }

    /// Answers the calls that order threads ([`super::serial`]), of those threads that `whom` is true for.
    fn let_ordered_go(&mut self, whom: impl Fn(&Following, Slot) -> bool) -> Result<()> {
        let answer = |(tid, thread): (&Tid, &Thread)| {
            let State::AtCall(call) = &thread.state else { return None };
            let (_, role) = self.ordered(call.nr, &call.args).filter(|_| whom(self, thread.slot))?;
            // Nobody has to be woken: who waits is here, too.
            Some((*tid, if role == Role::Waits { EINTR } else { 0 }))
        };
        let answers: Vec<(Tid, i64)> = self.threads.iter().filter_map(answer).collect();
        for (tid, ret) in answers {
            self.answer_own(tid, ret)?;
            self.waiting.moved = Instant::now();
        }
        Ok(())
    }
}
