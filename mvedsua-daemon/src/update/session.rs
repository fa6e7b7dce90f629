//! A session: one update of one process, from the fork to the end.
//!
//! The session's own thread gives orders to two tracer threads and hears of what happens in [`Notice`]s. It waits with a
//! limit everywhere, and says on what it waits. Whatever goes wrong before the commit of a promotion ends in the same
//! way: the follower is killed, the leader is put back as it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select, unbounded};

use super::birth;
use super::process::{Process, Zombie, park};
use super::recover;
use super::tracer::{Core, Role, Tracer};
use super::{Command, Counters, FailureKind, Options, SessionEvent};
use crate::compare::Divergence;
use crate::log::{self, Gauge};
use crate::promote::timers::Timers;
use crate::promote::{locks, state, swap, transfer};
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Error, Pid, Result, Tid, procfs, regs, sys};
use crate::record::Slot;
use crate::record::leading::{self, Leading};
use crate::replay::epoll::Pair;
use crate::replay::following::{self, Following, Tally};

/// What tracer threads report to their session.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Every thread of the leader stands where versions can be changed.
    Held,
    /// Every thread of the follower stands where its twin is held.
    Drained,
    /// The follower has lived through everything that was recorded.
    CaughtUp,
    Diverged(Box<Divergence>),
    /// The log has no room, and the leader does not wait for any.
    LogFull,
    /// The leader made a call that cannot be recorded.
    Refused {
        call: String,
        reason: String,
    },
    /// A thread of the leader is held before a signal that would end it.
    LeaderCrashed {
        slot: Slot,
        signo: i32,
    },
    LeaderEnded {
        status: String,
    },
    /// A request to the kernel failed.
    Broken {
        tid: Tid,
        error: String,
    },
}

/// How often tracer threads look at their deadlines.
const CLOCK: Duration = Duration::from_millis(2);
/// How long stopping every thread for the fork may take; the service stands still meanwhile.
const FORK_LIMIT: Duration = Duration::from_millis(500);
/// How long the service goes on between two attempts to promote.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);
/// How many records the follower may be behind when a promotion begins; it works them off during the pause.
const MAX_BACKLOG: u64 = 500;
/// How often progress is reported.
const PROGRESS: Duration = Duration::from_millis(250);

/// A running update. Dropping it rolls the update back.
#[derive(Debug)]
pub struct Session {
    commands: Option<Sender<Command>>,
    events: Receiver<SessionEvent>,
    join: Option<JoinHandle<()>>,
}

impl Session {
    /// Starts the update of a process to a copy of itself. Returns at once; events tell the rest.
    pub fn start(pid: Pid, options: Options) -> Result<Session> {
        let (commands, inbox) = unbounded();
        let (outbox, events) = unbounded();
        let join = std::thread::Builder::new()
            .name("mvedsua-session".into())
            .spawn(move || run(pid, options, &inbox, &outbox))
            .map_err(|source| Error::Proc { path: "starting thread mvedsua-session".into(), source })?;
        Ok(Session { commands: Some(commands), events, join: Some(join) })
    }

    /// Where requests go.
    #[must_use]
    pub fn commands(&self) -> Sender<Command> {
        self.commands.clone().unwrap_or_else(|| unbounded().0)
    }

    /// Where events come from.
    #[must_use]
    pub fn events(&self) -> &Receiver<SessionEvent> {
        &self.events
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(join) = self.join.take()
            && join.join().is_err()
        {
            tracing::error!("a session thread panicked");
        }
    }
}

/// Rings the tracer threads' bells, so that they see their deadlines.
struct Clock {
    stop: Arc<AtomicBool>,
    join: Option<JoinHandle<()>>,
}

impl Clock {
    fn start(tracers: &[&Tracer]) -> Clock {
        let stop = Arc::new(AtomicBool::new(false));
        let bells: Vec<_> = tracers.iter().map(|tracer| tracer.bell()).collect();
        let stopped = Arc::clone(&stop);
        let join = std::thread::Builder::new()
            .name("mvedsua-clock".into())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::park_timeout(CLOCK);
                    bells.iter().for_each(|bell| bell.ring());
                }
            })
            .ok();
        Clock { stop, join }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(join) = self.join.take() {
            join.thread().unpark();
            let _ = join.join();
        }
    }
}

/// Which version leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The old one, t1 to t4.
    Outdated,
    /// The new one, t5 to t6.
    Updated,
}

/// How the event loop ended.
enum End {
    Confirm,
    Undo,
    /// The leader ended by itself.
    TargetEnded(String),
    /// The leader crashed and the follower has taken over.
    TookOver,
}

struct Running<'a> {
    options: &'a Options,
    events: &'a Sender<SessionEvent>,
    notices: Receiver<Notice>,
    notice_sender: Sender<Notice>,
    /// Traces the process that leads, and the one that follows.
    lead: Tracer,
    follow: Tracer,
    leader: Pid,
    follower: Pid,
    stage: Stage,
    tally: Arc<Tally>,
    gauge: Gauge,
    generation: u64,
    /// The process that was there first, and its first child: whoever of them survives has the other as a zombie.
    original: Pid,
    oom_score: Option<String>,
}

fn engine(error: &Error) -> FailureKind {
    match error {
        Error::TimedOut { .. } => FailureKind::TimedOut(error.to_string()),
        Error::Unsupported(reason) => FailureKind::Refused(vec![reason.clone()]),
        Error::Ended { .. } => FailureKind::TargetGone(error.to_string()),
        Error::Request { .. } | Error::Memory { .. } | Error::Proc { .. } | Error::Injected { .. }
            if error.is_gone() =>
        {
            FailureKind::TargetGone(error.to_string())
        }
        Error::Request { .. } | Error::Memory { .. } | Error::Proc { .. } | Error::Injected { .. } => {
            FailureKind::Engine(error.to_string())
        }
    }
}

fn run(pid: Pid, options: Options, commands: &Receiver<Command>, events: &Sender<SessionEvent>) {
    // Whoever started the session may have gone; the session ends properly all the same.
    let tell = |event| drop(events.send(event));
    match begin(pid, &options, events) {
        Ok(mut running) => running.serve(commands),
        Err(error) => {
            tell(SessionEvent::Failed(engine(&error)));
            match procfs::start_time(pid) {
                Ok(_) => tell(SessionEvent::RolledBack { leader: pid.0 }),
                Err(_) => tell(SessionEvent::TargetEnded { status: "the process is gone".into() }),
            }
        }
    }
}

fn log_config(options: &Options) -> log::Config {
    log::Config { memory: options.log_memory, disk: options.log_disk, spill_dir: options.spill_dir.clone() }
}

/// t0 to t1: forks the leader, records it, makes the child a follower.
fn begin<'a>(pid: Pid, options: &'a Options, events: &'a Sender<SessionEvent>) -> Result<Running<'a>> {
    let (notice_sender, notices) = unbounded();
    let lead = Tracer::spawn("mvedsua-lead", notice_sender.clone())?;
    let follow = Tracer::spawn("mvedsua-follow", notice_sender.clone())?;
    let _clock = Clock::start(&[&lead, &follow]);
    let limit = FORK_LIMIT;
    let oom_score = state::oom_score(pid);
    let (writer, reader) = log::channel(log_config(options));
    let gauge = reader.gauge();
    let (lead_bell, follow_bell) = (lead.bell(), follow.bell());
    let agreed = options.lockstep.then(|| Arc::new(AtomicU64::new(0)));
    let agreement = agreed.clone().map(|agreed| (agreed, lead.bell()));
    writer.set_waker(Arc::new(move || lead_bell.ring()));
    reader.set_waker(Arc::new(move || follow_bell.ring()));
    let settings = leading::Settings { on_full: options.on_full, agreed };
    let birth = lead.ask(move |core| {
        if recover::undo_leftovers(&core.inbox, pid, limit)? == recover::Recovered::Cleaned {
            tracing::warn!(%pid, "cleaned up what an earlier daemon had left in the process");
        }
        let mut process = birth::prepare(&core.inbox, pid, limit)?;
        let forked = birth::fork(&core.inbox, &mut process, limit);
        let (mut birth, begun) = match forked {
            Ok(forked) => forked,
            Err(error) => return Err(undo_fork(&core.inbox, process, error, limit)),
        };
        let threads = birth.threads.iter().map(|thread| (thread.tid, thread.slot, thread.parked.rewound()));
        let leading = Leading::new(threads, &process.memory, writer, settings, core.notices.clone());
        leading.start()?;
        birth.pause = begun.elapsed();
        core.process = Some(process);
        core.role = Role::Leading(Box::new(leading));
        Ok(birth)
    })?;
    let follower = birth.child;
    let threads = birth.threads.len() as u32;
    let pause_us = birth.pause.as_micros() as u64;
    let _ = events.send(SessionEvent::Forked { leader: pid.0, follower: follower.0, threads, pause_us });
    let tally = Arc::new(Tally::default());
    let settings = following::Settings { hang_timeout: options.hang_timeout, tally: Arc::clone(&tally), agreement };
    let adopted = follow.ask(move |core| {
        let process = birth::adopt(&core.inbox, &birth)?;
        let threads: Vec<_> = process.threads.iter().map(|(tid, slot)| (*tid, *slot)).collect();
        let mut following = Following::new(threads, reader, settings, core.notices.clone());
        following.start()?;
        core.process = Some(process);
        core.role = Role::Following(Box::new(following));
        Ok(())
    });
    let mut running = Running {
        options,
        events,
        notices,
        notice_sender,
        lead,
        follow,
        leader: pid,
        follower,
        stage: Stage::Outdated,
        tally,
        gauge,
        generation: 0,
        original: pid,
        oom_score,
    };
    match adopted {
        Ok(()) => {
            running.tell(SessionEvent::Applied);
            Ok(running)
        }
        Err(error) => {
            if let Err(second) = running.undo("the follower could not be made") {
                tracing::error!(error = %second, "undoing a failed start");
            }
            Err(error)
        }
    }
}

/// A leader that was prepared but not forked is put back.
fn undo_fork(inbox: &Inbox, process: Process, error: Error, limit: Duration) -> Error {
    let tids: Vec<Tid> = process.threads.keys().copied().collect();
    match park(inbox, process.pid, &tids, limit).and_then(|parked| process.release(inbox, parked, Zombie::None)) {
        Ok(()) => error,
        Err(second) if second.is_gone() => error,
        Err(second) => {
            tracing::error!(error = %second, "undoing a failed fork");
            error
        }
    }
}

impl Running<'_> {
    fn tell(&self, event: SessionEvent) {
        // Whoever started the session may have gone; the session ends properly all the same.
        let _ = self.events.send(event);
    }

    fn counters(&self) -> Counters {
        let reading = self.gauge.read();
        Counters {
            recorded: reading.appended,
            replayed: self.tally.replayed.load(Ordering::Relaxed),
            compared_calls: self.tally.calls.load(Ordering::Relaxed),
            compared_outputs: self.tally.outputs.load(Ordering::Relaxed),
            compared_bytes: self.tally.bytes.load(Ordering::Relaxed),
            backlog: reading.records(),
            log_memory: reading.memory,
            log_disk: reading.disk,
            relaxed: self.tally.relaxed.load(Ordering::Relaxed),
        }
    }

    /// The event loop, t1 to the end.
    fn serve(&mut self, commands: &Receiver<Command>) {
        let clock = Clock::start(&[&self.lead, &self.follow]);
        let end = self.watch(commands);
        self.tell(SessionEvent::Progress(self.counters()));
        let last = match end {
            End::Confirm => self.confirm().map(|()| SessionEvent::Confirmed { leader: self.leader.0 }),
            End::TookOver => Ok(match self.stage {
                Stage::Outdated => SessionEvent::RolledBack { leader: self.leader.0 },
                Stage::Updated => SessionEvent::Confirmed { leader: self.leader.0 },
            }),
            End::TargetEnded(status) => {
                self.end_follower();
                Ok(SessionEvent::TargetEnded { status })
            }
            End::Undo => self.undo("rolled back").map(|()| SessionEvent::RolledBack { leader: self.leader.0 }),
        };
        drop(clock);
        match last {
            Ok(event) => self.tell(event),
            Err(error) if error.is_gone() => self.tell(SessionEvent::TargetEnded { status: error.to_string() }),
            Err(error) => {
                tracing::error!(%error, "ending the session");
                self.tell(SessionEvent::Failed(FailureKind::Engine(error.to_string())));
                self.tell(SessionEvent::RolledBack { leader: self.leader.0 });
            }
        }
    }

    fn watch(&mut self, commands: &Receiver<Command>) -> End {
        let notices = self.notices.clone();
        loop {
            select! {
                recv(commands) -> command => match command {
                    Ok(Command::Promote) => {
                        if self.stage == Stage::Updated {
                            self.tell(SessionEvent::PromotionAbandoned { reason: "the new version leads already".into() });
                        } else if let Some(end) = self.promote() {
                            return end;
                        }
                    }
                    Ok(Command::Confirm) if self.stage == Stage::Updated => return End::Confirm,
                    Ok(Command::Confirm) => {
                        let reason = "there is nothing to confirm before a promotion".to_owned();
                        self.tell(SessionEvent::PromotionAbandoned { reason });
                    }
                    Ok(Command::Rollback { reason }) => {
                        self.tell(SessionEvent::Failed(FailureKind::Asked(reason)));
                        return self.fall_back();
                    }
                    Err(_) => {
                        self.tell(SessionEvent::Failed(FailureKind::Asked("the daemon ended the session".into())));
                        return self.fall_back();
                    }
                },
                recv(notices) -> notice => {
                    if let Ok(notice) = notice
                        && let Some(end) = self.on_notice(notice)
                    {
                        return end;
                    }
                },
                default(PROGRESS) => self.tell(SessionEvent::Progress(self.counters())),
            }
        }
    }

    /// Goes back to the old version, from wherever the session is.
    fn fall_back(&mut self) -> End {
        match self.stage {
            Stage::Outdated => End::Undo,
            Stage::Updated => match self.exchange_soon() {
                Ok(_) => {
                    self.stage = Stage::Outdated;
                    End::Undo
                }
                Err(Exchange::Over(end)) => end,
                // The old version cannot take the service back: the new one keeps it.
                Err(error) => {
                    tracing::warn!(%error, "the old version could not take over again");
                    End::Confirm
                }
            },
        }
    }

    fn on_notice(&mut self, notice: Notice) -> Option<End> {
        match notice {
            Notice::CaughtUp => {
                self.tell(SessionEvent::CaughtUp);
                None
            }
            Notice::Held | Notice::Drained => None,
            Notice::Diverged(divergence) => {
                self.tell(SessionEvent::Failed(FailureKind::Diverged(divergence)));
                Some(self.fall_back_without_follower())
            }
            Notice::LogFull => {
                let reading = self.gauge.read();
                let text = format!(
                    "{} records wait, {} bytes in memory, {} on disk",
                    reading.records(),
                    reading.memory,
                    reading.disk
                );
                self.tell(SessionEvent::Failed(FailureKind::LogFull(text)));
                Some(self.fall_back_without_follower())
            }
            Notice::Refused { call, reason } => {
                self.tell(SessionEvent::Failed(FailureKind::Refused(vec![format!("{call}: {reason}")])));
                Some(self.fall_back_without_follower())
            }
            Notice::Broken { tid, error } => {
                self.tell(SessionEvent::Failed(FailureKind::Engine(format!("thread {tid}: {error}"))));
                Some(self.fall_back_without_follower())
            }
            Notice::LeaderEnded { status } => Some(End::TargetEnded(status)),
            Notice::LeaderCrashed { slot, signo } => Some(self.take_over(slot, signo)),
        }
    }

    /// The follower no longer mirrors the leader: the leader goes on alone, whichever version it is.
    fn fall_back_without_follower(&mut self) -> End {
        match self.stage {
            Stage::Outdated => End::Undo,
            Stage::Updated => End::Confirm,
        }
    }

    /// Waits for a notice; everything else that happens meanwhile ends the wait.
    fn await_notice(&mut self, wanted: fn(&Notice) -> bool, limit: Duration, tracer_says: &str) -> Result<(), Waited> {
        let deadline = Instant::now() + limit;
        loop {
            match self.notices.recv_deadline(deadline) {
                Ok(notice) if wanted(&notice) => return Ok(()),
                Ok(Notice::CaughtUp) => self.tell(SessionEvent::CaughtUp),
                Ok(Notice::Held | Notice::Drained) => {}
                Ok(notice) => return Err(Waited::Interrupted(notice)),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Waited::TimedOut(format!(
                        "{tracer_says} did not happen within {:.1} s",
                        limit.as_secs_f64()
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Waited::TimedOut("the tracer threads ended".into())),
            }
        }
    }

    /// t4: returns how the session ends if the attempt ends it.
    fn promote(&mut self) -> Option<End> {
        match self.exchange_soon() {
            Ok((descriptors, pause)) => {
                self.stage = Stage::Updated;
                let pause_us = pause.as_micros() as u64;
                let (leader, follower) = (self.leader.0, self.follower.0);
                self.tell(SessionEvent::Promoted { leader, follower, descriptors, pause_us });
                None
            }
            Err(Exchange::Abandoned(reason)) => {
                self.tell(SessionEvent::PromotionAbandoned { reason });
                None
            }
            Err(Exchange::Ended(notice)) => {
                let reason = "the follower or the leader ended meanwhile".to_owned();
                self.tell(SessionEvent::PromotionAbandoned { reason });
                self.on_notice(notice)
            }
            Err(Exchange::Over(end)) => Some(end),
        }
    }

    /// Exchanges the versions. An attempt whose pause would be too long is abandoned and made again a little later.
    fn exchange_soon(&mut self) -> std::result::Result<(u32, Duration), Exchange> {
        let deadline = Instant::now() + self.options.step_timeout;
        loop {
            let begun = Instant::now();
            match self.exchange(self.options.pause_limit) {
                Ok(descriptors) => return Ok((descriptors, begun.elapsed())),
                Err(Exchange::Abandoned(reason)) if Instant::now() < deadline => {
                    tracing::debug!(reason, "an attempt to exchange the versions was abandoned");
                }
                Err(other) => return Err(other),
            }
            if let Some(end) = self.breathe() {
                return Err(Exchange::Over(end));
            }
        }
    }

    /// Lets the service go on between two attempts, at least until the follower is close behind.
    fn breathe(&mut self) -> Option<End> {
        let until = Instant::now() + BETWEEN_ATTEMPTS;
        while let Ok(notice) = self.notices.recv_deadline(until) {
            if let Some(end) = self.on_notice(notice) {
                return Some(end);
            }
        }
        None
    }

    /// Swaps leader and follower: holds, drains, moves the kernel's state, commits, changes the roles.
    fn exchange(&mut self, limit: Duration) -> std::result::Result<u32, Exchange> {
        let backlog = self.gauge.read().records();
        if backlog > MAX_BACKLOG {
            return Err(Exchange::Abandoned(format!("the follower is {backlog} records behind")));
        }
        self.lead.ask(|core| with_leading(core, |leading, process, _| leading.hold(process)))?;
        let drained = self.hold_and_drain(limit);
        if let Err(reason) = drained {
            self.go_on();
            return Err(reason);
        }
        match self.swap() {
            Ok(descriptors) => Ok(descriptors),
            Err(error) => {
                self.go_on();
                Err(Exchange::Abandoned(error.to_string()))
            }
        }
    }

    /// After an abandoned exchange: everything as before.
    fn go_on(&mut self) {
        let followed =
            self.follow.ask(|core| with_following(core, |following, process, _| following.release_drain(process)));
        let led = self.lead.ask(|core| with_leading(core, |leading, process, _| leading.release_hold(process)));
        for error in [followed.err(), led.err()].into_iter().flatten() {
            let _ = self.notice_sender.send(Notice::Broken { tid: Tid(0), error: error.to_string() });
        }
    }

    fn hold_and_drain(&mut self, limit: Duration) -> std::result::Result<(), Exchange> {
        match self.await_notice(|notice| matches!(notice, Notice::Held), limit, "stopping the leader between two calls")
        {
            Ok(()) => {}
            Err(Waited::Interrupted(notice)) => return Err(Exchange::Ended(notice)),
            Err(Waited::TimedOut(what)) => {
                let threads = self.lead.ask(|core| with_leading(core, |leading, _, _| Ok(leading.not_held())))?;
                return Err(Exchange::Abandoned(format!("{what}: {}", threads.join("; "))));
            }
        }
        let (held, target) = self.lead.ask(|core| with_leading(core, |leading, _, _| Ok(leading.held())))?;
        self.follow.ask(move |core| {
            with_following(core, move |following, process, _| following.drain(process, target, held))
        })?;
        match self.await_notice(|notice| matches!(notice, Notice::Drained), limit, "the follower's catching up") {
            Ok(()) => Ok(()),
            Err(Waited::Interrupted(notice)) => Err(Exchange::Ended(notice)),
            Err(Waited::TimedOut(what)) => {
                let threads = self
                    .follow
                    .ask(|core| with_following(core, |following, _, _| Ok(following.where_threads_stand())))?;
                Err(Exchange::Abandoned(format!("{what}: {}", threads.join("; "))))
            }
        }
    }

    /// Steps 2 to 4 of a promotion. An error leaves the leader as it was.
    fn swap(&mut self) -> Result<u32> {
        let old = self.leader;
        state::check_movable(old)?;
        let copied = transfer::copy(old)?;
        let count = copied.len() as u32;
        let above = procfs::descriptors(old)?.last().map_or(0, |descriptor| descriptor.fd as u64 + 1);
        // What is read from the old leader.
        let timers = self.lead.ask(|core| {
            let (inbox, process, _) = parts(core)?;
            let (tid, slot) = any_thread(process)?;
            let place = swap::scratch(process, slot);
            let saved = held_regs(tid)?;
            let mut remote = process.remote(inbox, tid, saved)?;
            let timers = Timers::read(process.pid, &mut remote, &process.memory, place)?;
            remote.finish()?;
            Ok(timers)
        })?;
        // What is put into the new one. It is isolated until the commit.
        let registrations = self.follow.ask(move |core| {
            let (inbox, process, role) = parts(core)?;
            let Role::Following(following) = role else { return Err(wrong_role()) };
            let (tid, slot) = any_thread(process)?;
            let place = swap::scratch(process, slot);
            let saved = held_regs(tid)?;
            let mut remote = process.remote(inbox, tid, saved)?;
            transfer::give(&copied, process.pid, &mut remote, &process.memory, place)?;
            state::copy_surroundings(old, process.pid, &mut remote, &process.memory, place, above)?;
            state::copy_limits(old, process.pid, &mut remote, &process.memory, place)?;
            remote.finish()?;
            Ok(following.registrations().differing().collect::<Vec<_>>())
        });
        let registrations = match registrations {
            Ok(registrations) => registrations,
            Err(error) => {
                self.empty_follower();
                return Err(error);
            }
        };
        let epoll = epoll_changes(old, &registrations)?;
        let record_locks = locks::of(old)?;
        // The gates.
        let lives_at = self.generation;
        let old_gated = self.lead.ask(move |core| {
            let (_, process, role) = parts(core)?;
            let Role::Leading(leading) = role else { return Err(wrong_role()) };
            let threads = swap::rewind_held(&leading.held().0)?;
            swap::gate(process, &threads, lives_at)
        })?;
        let new_gated = self.follow.ask(move |core| {
            let (_, process, role) = parts(core)?;
            let Role::Following(following) = role else { return Err(wrong_role()) };
            let threads = following.rewind_all()?;
            let gated = swap::gate(process, &threads, lives_at + 1)?;
            swap::set_options(&gated, sys::OPTIONS_LEADER)?;
            Ok(gated)
        })?;
        let (writer, reader) = log::channel(log_config(self.options));
        let gauge = reader.gauge();
        // From here on the new version lives if we die.
        self.lead.ask(move |core| {
            let (_, process, _) = parts(core)?;
            swap::commit(process, lives_at + 1)
        })?;
        self.generation = lives_at + 1;
        let old_tids: BTreeMap<Slot, Tid> = old_gated.iter().map(|thread| (thread.slot, thread.tid)).collect();
        let new_tids = new_gated.iter().map(|thread| (thread.slot, thread.tid)).collect();
        self.demote(old_gated, reader, &registrations, timers.clone(), new_tids)?;
        self.elevate(new_gated, writer, Moved { old_tids, epoll, timers, record_locks })?;
        std::mem::swap(&mut self.lead, &mut self.follow);
        std::mem::swap(&mut self.leader, &mut self.follower);
        self.gauge = gauge;
        state::set_oom_score(self.leader, self.oom_score.as_deref().unwrap_or("0"));
        state::set_oom_score(self.follower, "1000");
        Ok(count)
    }

    /// The old leader becomes a follower: isolated, ending with its tracer.
    fn demote(
        &mut self,
        gated: Vec<swap::Gated>,
        reader: log::Reader,
        registrations: &[(i32, i32, Pair)],
        timers: Timers,
        new_tids: BTreeMap<Slot, Tid>,
    ) -> Result<()> {
        let bell = self.lead.bell();
        reader.set_waker(Arc::new(move || bell.ring()));
        let agreement = None;
        let settings =
            following::Settings { hang_timeout: self.options.hang_timeout, tally: Arc::clone(&self.tally), agreement };
        let swapped: Vec<_> = registrations
            .iter()
            .map(|(epfd, fd, pair)| (*epfd, *fd, Pair { leader: pair.follower, follower: pair.leader }))
            .collect();
        self.lead.ask(move |core| {
            let notices = core.notices.clone();
            let (inbox, process, role) = parts(core)?;
            swap::set_options(&gated, sys::OPTIONS_FOLLOWER)?;
            swap::ungate(&gated)?;
            for thread in &gated {
                show_original_call(thread)?;
            }
            let (tid, slot) = any_thread(process)?;
            let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
            timers.stop(&mut remote, &process.memory, swap::scratch(process, slot))?;
            remote.finish()?;
            swap::close_all(inbox, process)?;
            let new = |thread: &swap::Gated| new_tids.get(&thread.slot).copied();
            swap::replace_cached_tids(&process.memory, &gated, |thread| Some(thread.tid), new);
            let threads = gated.iter().map(|thread| (thread.tid, thread.slot));
            let mut following = Following::new(threads, reader, settings, notices);
            following.adopt_registrations(swapped);
            *role = Role::Following(Box::new(following));
            Ok(())
        })
    }

    /// The new version leads: its threads go on for real, recorded; the old one's follow.
    fn elevate(&mut self, gated: Vec<swap::Gated>, writer: log::Writer, moved: Moved) -> Result<()> {
        let bell = self.follow.bell();
        writer.set_waker(Arc::new(move || bell.ring()));
        let settings = leading::Settings { on_full: self.options.on_full, agreed: None };
        self.follow.ask(move |core| {
            let notices = core.notices.clone();
            let (inbox, process, role) = parts(core)?;
            swap::ungate(&gated)?;
            let old = |thread: &swap::Gated| moved.old_tids.get(&thread.slot).copied();
            swap::replace_cached_tids(&process.memory, &gated, old, |thread| Some(thread.tid));
            swap::correct_epoll(inbox, process, &moved.epoll)?;
            let (tid, slot) = any_thread(process)?;
            if !moved.timers.is_empty() || !moved.record_locks.is_empty() {
                let new_tids = gated.iter().map(|thread| (thread.slot, thread.tid)).collect();
                let place = swap::scratch(process, slot);
                let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
                locks::take(&moved.record_locks, &mut remote, &process.memory, place)?;
                moved.timers.start(&mut remote, &process.memory, place, &moved.old_tids, &new_tids)?;
                remote.finish()?;
            }
            let threads = gated.iter().map(|thread| (thread.tid, thread.slot, thread.rewound));
            let leading = Leading::new(threads, &process.memory, writer, settings, notices);
            leading.start()?;
            *role = Role::Leading(Box::new(leading));
            Ok(())
        })?;
        self.lead.ask(|core| with_following(core, |following, _, _| following.start()))
    }

    /// After a transfer that failed half-way: the follower holds no descriptor.
    fn empty_follower(&mut self) {
        let emptied = self.follow.ask(|core| {
            let (inbox, process, _) = parts(core)?;
            let (tid, _) = any_thread(process)?;
            let saved = held_regs(tid)?;
            let mut remote = process.remote(inbox, tid, saved)?;
            remote.call("close_range", libc::SYS_close_range, [0, u64::from(u32::MAX), 0, 0, 0, 0])?;
            remote.finish()
        });
        if let Err(error) = emptied {
            let _ = self.notice_sender.send(Notice::Broken { tid: Tid(0), error: error.to_string() });
        }
    }

    /// A thread of the leader stands before a signal that would end it: the follower takes over from there.
    fn take_over(&mut self, slot: Slot, signo: i32) -> End {
        tracing::warn!(slot = slot.0, signo, "the leader crashed");
        match self.exchange(self.options.step_timeout) {
            Ok(_) => {
                self.stage = match self.stage {
                    Stage::Outdated => Stage::Updated,
                    Stage::Updated => Stage::Outdated,
                };
                self.tell(SessionEvent::TookOver { leader: self.leader.0, signo });
                if let Err(error) = self.confirm() {
                    tracing::error!(%error, "ending the crashed version");
                }
                End::TookOver
            }
            Err(Exchange::Abandoned(reason)) => {
                tracing::error!(reason, "the follower could not take over");
                End::TargetEnded(format!("crashed with signal {signo}; the follower could not take over: {reason}"))
            }
            Err(Exchange::Over(end)) => end,
            Err(Exchange::Ended(_)) => End::TargetEnded(format!("crashed with signal {signo}; the follower had ended")),
        }
    }

    fn end_follower(&mut self) {
        let ended = self.follow.ask(|core| {
            core.role = Role::Idle;
            match core.process.take() {
                Some(process) => swap::kill(&core.inbox, process.pid),
                None => Ok(()),
            }
        });
        if let Err(error) = ended {
            tracing::warn!(%error, "ending the follower");
        }
    }

    /// t6: the follower ends, the leader goes on alone and as it would be without us.
    fn confirm(&mut self) -> Result<()> {
        self.end_follower();
        self.release_leader("the update is over")
    }

    /// The follower ends and the leader goes on alone.
    fn undo(&mut self, reason: &'static str) -> Result<()> {
        self.end_follower();
        self.release_leader(reason)
    }

    fn release_leader(&mut self, reason: &'static str) -> Result<()> {
        let limit = self.options.step_timeout;
        // The new version is the old one's child: when it ends first it is reaped there.
        let zombie = if self.leader == self.original { Zombie::Child(self.follower) } else { Zombie::None };
        self.lead.ask(move |core| {
            let Some(process) = core.process.as_mut() else { return Ok(()) };
            if let Role::Leading(leading) = &mut core.role {
                leading.stop(process, reason)?;
            }
            core.role = Role::Idle;
            let Some(process) = core.process.take() else { return Ok(()) };
            let tids: Vec<Tid> = process.threads.keys().copied().collect();
            let parked = park(&core.inbox, process.pid, &tids, limit)?;
            process.release(&core.inbox, parked, zombie)
        })
    }
}

/// What the new leader takes over after the commit.
struct Moved {
    old_tids: BTreeMap<Slot, Tid>,
    /// Epoll descriptor, watched descriptor, events, the new leader's value.
    epoll: Vec<(i32, i32, u32, u64)>,
    timers: Timers,
    record_locks: Vec<locks::RecordLock>,
}

/// Why an exchange did not happen.
enum Exchange {
    /// Everything is as before.
    Abandoned(String),
    /// Something happened that ends the session.
    Ended(Notice),
    /// It has ended between two attempts.
    Over(End),
}

impl From<Error> for Exchange {
    fn from(error: Error) -> Exchange {
        Exchange::Abandoned(error.to_string())
    }
}

impl std::fmt::Display for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exchange::Abandoned(reason) => f.write_str(reason),
            Exchange::Ended(notice) => write!(f, "{notice:?}"),
            Exchange::Over(_) => f.write_str("the session is over"),
        }
    }
}

enum Waited {
    TimedOut(String),
    Interrupted(Notice),
}

fn wrong_role() -> Error {
    Error::Unsupported("a tracer thread has another role than the session thinks".into())
}

fn parts(core: &mut Core) -> Result<(&Inbox, &mut Process, &mut Role)> {
    match &mut core.process {
        Some(process) => Ok((&core.inbox, process, &mut core.role)),
        None => Err(wrong_role()),
    }
}

fn with_leading<T>(core: &mut Core, work: impl FnOnce(&mut Leading, &mut Process, &Inbox) -> Result<T>) -> Result<T> {
    match (&mut core.role, &mut core.process) {
        (Role::Leading(leading), Some(process)) => work(leading, process, &core.inbox),
        _ => Err(wrong_role()),
    }
}

fn with_following<T>(
    core: &mut Core,
    work: impl FnOnce(&mut Following, &mut Process, &Inbox) -> Result<T>,
) -> Result<T> {
    match (&mut core.role, &mut core.process) {
        (Role::Following(following), Some(process)) => work(following, process, &core.inbox),
        _ => Err(wrong_role()),
    }
}

fn any_thread(process: &Process) -> Result<(Tid, Slot)> {
    process.threads.iter().next().map(|(tid, slot)| (*tid, *slot)).ok_or_else(wrong_role)
}

/// Returns the registers of a held thread, rewound if it stands at the entry of a call, so that calls can be executed in it.
fn held_regs(tid: Tid) -> Result<sys::Regs> {
    let mut saved = sys::get_regs(tid)?;
    if let sys::SyscallStop::Entry { nr, .. } = sys::syscall_info(tid)? {
        regs::undo_entry(&mut saved, nr);
    }
    Ok(saved)
}

/// A timed call that was to go on as `restart_syscall` is made under its own number: nothing of it is left to restart.
fn show_original_call(thread: &swap::Gated) -> Result<()> {
    let Some(call) = thread.rewound else { return Ok(()) };
    let mut regs = sys::get_regs(thread.tid)?;
    if regs.rax as i64 == libc::SYS_restart_syscall {
        regs.rax = u64::from(call.nr);
        sys::set_regs(thread.tid, &regs)?;
    }
    Ok(())
}

/// Returns the registrations of the old leader that the new one calls by another value.
fn epoll_changes(old: Pid, registrations: &[(i32, i32, Pair)]) -> Result<Vec<(i32, i32, u32, u64)>> {
    let mut changes = Vec::new();
    for (epfd, fd, pair) in registrations {
        let entry =
            procfs::epoll_entries(old, *epfd)?.into_iter().find(|entry| entry.fd == *fd && entry.data == pair.leader);
        if let Some(entry) = entry {
            changes.push((*epfd, *fd, entry.events, pair.follower));
        }
    }
    Ok(changes)
}
