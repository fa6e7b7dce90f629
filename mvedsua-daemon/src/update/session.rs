//! A session: one update of one process, from the fork to the end.
//!
//! The session's own thread gives orders to two tracer threads and hears of what happens in [`Notice`]s. It waits with a
//! limit everywhere, and says on what it waits. Whatever goes wrong before the commit of a promotion ends in the same
//! way: the follower is killed, the leader is put back as it was.
//!
//! This file is the session's loop; [`mod@begin`] makes the two versions, [`exchange`] brings both to the same call, [`roles`]
//! exchanges them there, [`dying`] lets a version take over from one that comes to its end, [`clock`] lets the tracer threads see their deadlines, and looks whether memory runs
//! short; [`notice`] is what the tracer threads report.

mod begin;
mod clock;
mod dying;
mod exchange;
mod notice;
mod reconciling;
pub(crate) mod roles;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select, unbounded};
use mvedsua_common::syscalls::Pairing;

use super::birth;
use super::memory_limit;
use super::process::{Process, Zombies, park_all};
use super::recover;
use super::tracer::{Core, Role, Tracer};
use super::{Command, Counters, Death, FailureKind, OnParting, Options, SessionEvent, Stops};
use crate::allocator;
use crate::compare::{Divergence, DivergenceKind};
use crate::log::{self, Gauge};
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Error, Pid, Result, Tid, procfs, query, regs, sys};
use crate::record::Slot;
use crate::record::leading::{self, Bulk, Hold, Leading, OnCrash};
use crate::record::pace::Pace;
use crate::record::stream::Stream;
use crate::replay::epoll::Pair;
use crate::replay::following::reconcile::Recording;
use crate::replay::following::{self, Following, Silence, Standing, Tally};
use crate::replay::objects::Objects;
use crate::rules::Direction;
use begin::{begin, log_config};
use clock::Clock;
use exchange::Exchange;
pub(crate) use notice::Notice;
use reconciling::{end_recording, reconcile, record};
use roles::WayBack;

/// How often tracer threads look at their deadlines.
const CLOCK: Duration = Duration::from_millis(2);
/// How long stopping every thread for the fork may take; the service stands still meanwhile.
const FORK_LIMIT: Duration = Duration::from_millis(500);
/// The same for a leader that the session could not put back at its end.
const PUT_BACK_LIMIT: Duration = Duration::from_secs(5);
/// How long a process may take to end that will not be in user code again. It gives back its memory meanwhile.
const ENDING_LIMIT: Duration = Duration::from_secs(5);
/// The same where only a request has failed as if it had ended: for an instant nothing tells that it is about to.
const SEEMING_LIMIT: Duration = Duration::from_millis(100);
/// How long the service goes on between two attempts to promote.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);
/// How long the follower of a crashed leader may take to live through what is recorded. Nobody else can serve meanwhile, and
/// one that stands still is found out earlier.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(120);
/// How many records the follower may be behind when a promotion begins; it works them off during the pause.
const MAX_BACKLOG: u64 = 500;
/// The same after attempts in which it could not work them off in time.
const MIN_BACKLOG: u64 = 8;
/// How many records may wait in the log of a follower that was close before the leader waits for it; it has taken some thousands
/// out already then.
const MOST_BEHIND: u64 = 1_000;
/// The same before the leader is held back for each record, if it falls further.
const FAR_BEHIND: u64 = 10_000;
const VERY_FAR_BEHIND: u64 = 20_000;
/// How much the leader may be held back for each record while the versions are to be exchanged.
const SLOWEST: Duration = Duration::from_millis(2);
/// The same while a follower does not catch up, and how long it may try without that.
const SLOWEST_TO_CATCH_UP: Duration = Duration::from_micros(400);
const CATCH_UP_ALONE: Duration = Duration::from_secs(2);
/// How long a promotion and a rollback may be tried, in steps ([`Options::step_timeout`]).
const PROMOTION_STEPS: u32 = 2;
const ROLLBACK_STEPS: u32 = 8;
/// How long the end of an update waits for the rest of a line whose beginning the version that stays has not been given yet.
const REST_LIMIT: Duration = Duration::from_secs(10);
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
            .spawn(move || {
                run(pid, options, &inbox, &outbox);
                // Logs, tables and what lies between them.
                allocator::give_back();
            })
            .map_err(|source| Error::Own { doing: "starting thread mvedsua-session".into(), source })?;
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

/// Which version leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The old one, t1 to t4.
    Outdated,
    /// The new one, t5 to t6.
    Updated,
}

impl Stage {
    fn other(self) -> Stage {
        match self {
            Stage::Outdated => Stage::Updated,
            Stage::Updated => Stage::Outdated,
        }
    }
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
    /// Traces the process that leads, and whichever follows.
    lead: Tracer,
    follow: Tracer,
    leader: Pid,
    /// When the leader was started: its number alone could be another process's one day.
    start_time: u64,
    follower: Pid,
    stage: Stage,
    tally: Arc<Tally>,
    gauge: Gauge,
    pace: Arc<Pace>,
    applied_at: Option<Instant>,
    caught_up: bool,
    /// How many records the follower was behind when that was last looked at.
    was_behind: u64,
    /// The old version has parted from the new one, which leads, and goes its own way.
    parted: bool,
    /// What the gates' word holds: even while the old version's image is in the service, odd while the new one's is.
    generation: u64,
    /// Where the leader's rings are.
    rings: Option<u64>,
    /// Children of ours that have ended, which the leader has not waited for yet.
    ended: Vec<Pid>,
    recording: Option<Recording>,
}

fn engine(error: &Error) -> FailureKind {
    match error {
        Error::TimedOut { .. } => FailureKind::TimedOut(error.to_string()),
        Error::Unsupported(reason) => FailureKind::Refused(vec![reason.clone()]),
        // A limit on processes or memory was reached after it had been looked at.
        Error::Injected { call: "fork" | "clone", source, .. }
            if matches!(source.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM)) =>
        {
            FailureKind::Refused(vec![format!("the kernel lets it have no more processes: {error}")])
        }
        Error::Ended { .. } => FailureKind::TargetGone(error.to_string()),
        Error::Request { .. } | Error::Memory { .. } | Error::Proc { .. } | Error::Injected { .. }
            if error.is_gone() =>
        {
            FailureKind::TargetGone(error.to_string())
        }
        Error::Request { .. }
        | Error::Memory { .. }
        | Error::Proc { .. }
        | Error::Own { .. }
        | Error::Injected { .. } => FailureKind::Engine(error.to_string()),
    }
}

fn run(pid: Pid, options: Options, commands: &Receiver<Command>, events: &Sender<SessionEvent>) {
    // Whoever started the session may have gone; the session ends properly all the same.
    let tell = |event| drop(events.send(event));
    let mut told = None;
    let seems_gone;
    let (leader, stage) = match begin(pid, &options, events) {
        Ok(mut running) => match running.serve(commands) {
            Ok(event) => return tell(event),
            Err(error) => {
                tracing::error!(%error, "ending the session");
                seems_gone = error.is_gone();
                (running.leader, running.stage)
            }
        },
        Err(error) => {
            tell(SessionEvent::Failed(engine(&error)));
            seems_gone = error.is_gone();
            told = Some(error.to_string());
            (pid, Stage::Outdated)
        }
    };
    // Nobody traces it any more.
    match put_back(leader) {
        // A process that cannot even be looked at is as it was.
        Err(error) if told != Some(error.to_string()) && procfs::lives(leader) => {
            let what = format!("process {leader} could not be put back as it was: {error}");
            tell(SessionEvent::Failed(FailureKind::Engine(what)));
        }
        _ => {}
    }
    await_end(leader, seems_gone);
    tell(match stage {
        _ if !procfs::lives(leader) => SessionEvent::TargetEnded { status: "the process is gone".into() },
        Stage::Outdated => SessionEvent::RolledBack { leader: leader.0 },
        Stage::Updated => SessionEvent::Confirmed { leader: leader.0 },
    });
}

/// Waits for the end of a process that is about to end: it is not to be told that it serves.
fn await_end(pid: Pid, seems_gone: bool) {
    let begun = Instant::now();
    while procfs::lives(pid) {
        let limit = match procfs::is_ending(pid) {
            true => ENDING_LIMIT,
            false if seems_gone => SEEMING_LIMIT,
            false => return,
        };
        if begun.elapsed() >= limit {
            return;
        }
        std::thread::sleep(CLOCK);
    }
}

/// Undoes in a process what a session left there that failed while it did so itself.
fn put_back(leader: Pid) -> Result<()> {
    let (notices, _ignored) = unbounded();
    let tracer = Tracer::spawn("mvedsua-recover", notices)?;
    let _clock = Clock::start(&[&tracer]);
    tracer.ask(move |core| recover::undo_leftovers(&core.inbox, leader, PUT_BACK_LIMIT)).map(drop)
}

impl Running<'_> {
    fn tell(&self, event: SessionEvent) {
        // Whoever started the session may have gone; the session ends properly all the same.
        let _ = self.events.send(event);
    }

    /// Returns how many records the follower has not lived through yet.
    fn behind(&self) -> u64 {
        self.gauge.read().records() + self.tally.due.load(Ordering::Relaxed)
    }

    fn counters(&self) -> Counters {
        let reading = self.gauge.read();
        Counters {
            recorded: reading.appended,
            replayed: self.tally.replayed.load(Ordering::Relaxed),
            compared_calls: self.tally.calls.load(Ordering::Relaxed),
            compared_outputs: self.tally.outputs.load(Ordering::Relaxed),
            compared_bytes: self.tally.bytes.load(Ordering::Relaxed),
            backlog: self.behind(),
            log_memory: reading.memory,
            log_disk: reading.disk,
            relaxed: self.tally.relaxed.load(Ordering::Relaxed),
            held_back_us: self.pace.delay().as_micros() as u64,
            held_back_total_us: self.pace.total().as_micros() as u64,
            toll: self.pace.toll.read(sys::cpu_time(self.leader).unwrap_or_default(), Instant::now()),
            without_stops: self.options.sight.without_stops(),
            answered: *self.tally.answered.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
            met_again: self.tally.met_again.each_ref().map(|met| met.load(Ordering::Relaxed)),
        }
    }

    /// The event loop, t1 to the end; returns the last event.
    fn serve(&mut self, commands: &Receiver<Command>) -> Result<SessionEvent> {
        let watch = memory_limit::Watch::of(self.leader);
        let clock = Clock::start_watching(&[&self.lead, &self.follow], watch, self.notice_sender.clone());
        let end = self.watch(commands);
        self.tell(SessionEvent::Progress(self.counters()));
        let last = match end {
            End::Confirm => self.confirm().map(|()| self.confirmed()),
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
        if let Some(recording) = &self.recording {
            end_recording(recording, self.options.record.as_deref());
        }
        match last {
            Err(error) if error.is_gone() => Ok(SessionEvent::TargetEnded { status: error.to_string() }),
            last => last,
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
                default(PROGRESS) => {
                    // What the follower needs lies on a disk that hangs: neither version waits for that.
                    if let Some(how) = self.gauge.hangs()
                        && let Some(end) = self.on_notice(Notice::LogFull(how))
                    {
                        return end;
                    }
                    self.help_to_catch_up();
                    self.tell(SessionEvent::Progress(self.counters()));
                }
            }
        }
    }

    /// Goes back to the old version, from wherever the session is.
    fn fall_back(&mut self) -> End {
        match self.stage {
            Stage::Outdated => End::Undo,
            Stage::Updated => {
                let within = self.options.step_timeout * ROLLBACK_STEPS;
                let exchanged = self.exchange_soon(within, WayBack::None);
                self.went_back(exchanged.map(drop))
            }
        }
    }

    /// Ends the session by what came of an attempt to let the old version lead again.
    fn went_back(&mut self, exchanged: std::result::Result<(), Exchange>) -> End {
        match exchanged {
            Ok(()) => {
                self.stage = Stage::Outdated;
                End::Undo
            }
            Err(Exchange::Over(end)) => end,
            Err(Exchange::Harmed(what)) => self.harmed(what),
            // It parted meanwhile; then it goes back on its own.
            Err(Exchange::Ended(notice)) => self.on_notice(notice).unwrap_or(End::Confirm),
            // The old version cannot take the service back: the new one keeps it.
            Err(error) => {
                tracing::warn!(%error, "the old version could not take over again");
                End::Confirm
            }
        }
    }

    /// The new version, which leads, was found wrong: the old one leads again, from where it is. The new one is stopped at
    /// once, so that no more of it gets out.
    fn go_back(&mut self, hold: Hold) -> End {
        let exchanged = match self.go_own_way() {
            true => self.exchange(hold, TAKE_OVER_LIMIT, WayBack::None),
            false => Err(Exchange::Abandoned("the follower cannot go on by itself".into())),
        };
        self.went_back(exchanged.map(drop))
    }

    fn on_applied(&mut self) {
        self.applied_at = Some(Instant::now());
        self.tell(SessionEvent::Applied);
    }

    fn on_notice(&mut self, notice: Notice) -> Option<End> {
        match notice {
            Notice::CaughtUp => {
                self.on_caught_up();
                None
            }
            Notice::Applied => {
                self.on_applied();
                None
            }
            Notice::NotApplied { reason, may_help_to_retry } => {
                let kind =
                    if may_help_to_retry { FailureKind::TimedOut(reason) } else { FailureKind::NotApplied(reason) };
                self.tell(SessionEvent::Failed(kind));
                Some(self.fall_back_without_follower())
            }
            Notice::Held | Notice::Drained | Notice::Faulted | Notice::EndAgreed => None,
            Notice::FaultShared | Notice::FaultAlone => None,
            Notice::LeaderHandles { slot, signo } => self.handles(slot, signo),
            Notice::Diverged(divergence) => {
                let back = self.stage == Stage::Updated
                    && self.options.on_parting == OnParting::Rollback
                    && !self.parted
                    && divergence.kind.leaves_the_follower_sound();
                // A leader that does not come to its calls cannot be held there.
                let silent = matches!(divergence.kind, DivergenceKind::Silent { .. });
                let hold = if silent { Hold::Anywhere } else { Hold::AtCalls };
                let sound = divergence.kind.leaves_the_follower_sound();
                self.tell(SessionEvent::Failed(FailureKind::Diverged(divergence)));
                if self.stage == Stage::Outdated
                    && sound
                    && !self.parted
                    && let Some(end) = self.await_last_words()
                {
                    return Some(end);
                }
                Some(if back { self.go_back(hold) } else { self.fall_back_without_follower() })
            }
            Notice::LogFull(why) => {
                let reading = self.gauge.read();
                let text = format!(
                    "{why} ({} records wait, {} bytes in memory, {} on disk)",
                    reading.records(),
                    reading.memory,
                    reading.disk
                );
                self.tell(SessionEvent::Failed(FailureKind::LogFull(text)));
                Some(self.fall_back_without_follower())
            }
            Notice::MemoryShort(how) => {
                self.tell(SessionEvent::Failed(FailureKind::MemoryShort(how)));
                Some(self.fall_back_without_follower())
            }
            Notice::Refused { call, reason } => {
                self.tell(SessionEvent::Failed(FailureKind::Refused(vec![format!("{call}: {reason}")])));
                Some(self.fall_back_without_follower())
            }
            Notice::Lost(what) => {
                self.tell(SessionEvent::Failed(FailureKind::Lost(what)));
                Some(self.fall_back_without_follower())
            }
            Notice::Broken { tid, error } => {
                self.tell(SessionEvent::Failed(FailureKind::Engine(format!("thread {tid}: {error}"))));
                Some(self.fall_back_without_follower())
            }
            Notice::LeaderEnded { status } => Some(End::TargetEnded(status)),
            Notice::LeaderEnds { status } => self.ends(status),
            Notice::LeaderCrashed { signo } => Some(self.take_over(Death::Signal(signo))),
        }
    }

    /// The follower no longer mirrors the leader: the leader goes on alone, whichever version it is.
    fn fall_back_without_follower(&mut self) -> End {
        match self.stage {
            Stage::Outdated => End::Undo,
            Stage::Updated => End::Confirm,
        }
    }

    /// t4: returns how the session ends if the attempt ends it.
    fn promote(&mut self) -> Option<End> {
        match self.exchange_soon(self.options.step_timeout * PROMOTION_STEPS, WayBack::Wanted) {
            Ok((moved, pause)) => {
                self.stage = Stage::Updated;
                let pause_us = pause.as_micros() as u64;
                let (leader, follower) = (self.leader.0, self.follower.0);
                self.tell(SessionEvent::Promoted { leader, follower, moved, pause_us });
                None
            }
            Err(Exchange::Harmed(what)) => Some(self.harmed(what)),
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

    /// The other image is in place, but something of it is missing: there is no way back, and no claim that all is well.
    fn harmed(&mut self, what: String) -> End {
        self.stage = self.stage.other();
        self.tell(SessionEvent::Failed(FailureKind::Harmed(what)));
        self.fall_back_without_follower()
    }

    /// Looks at the service once more before it is said to be updated.
    fn confirmed(&self) -> SessionEvent {
        let is_same = procfs::start_time(self.leader).is_ok_and(|start| start == self.start_time);
        match is_same && procfs::lives(self.leader) && !procfs::is_ending(self.leader) {
            true => SessionEvent::Confirmed { leader: self.leader.0 },
            false => SessionEvent::TargetEnded { status: "the process ended when the update was over".into() },
        }
    }

    fn end_follower(&mut self) {
        let ended = self.follow.ask(|core| {
            core.role = Role::Idle;
            match core.process.take() {
                Some(process) => crate::tracee::process::kill(&core.inbox, process.pid),
                None => Ok(()),
            }
        });
        if let Err(error) = ended {
            tracing::warn!(%error, "ending the follower");
            // Its tracer may wait for it, and the leader is about to.
            let _ = sys::kill(self.follower, libc::SIGKILL);
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

    /// Waits until the version that stays has been given all that the service has read: nobody can give it that later. A
    /// client that says nothing more is disconnected; what it said first would be lost, and the rest taken for a request.
    fn give_what_was_not_read(&mut self) {
        let unread = |core: &mut Core| {
            with_leading(core, |leading, _, _| {
                leading.record_no_more("the update is over");
                Ok(leading.unread())
            })
        };
        let deadline = Instant::now() + REST_LIMIT;
        while let Ok(fds) = self.lead.ask(unread)
            && !fds.is_empty()
        {
            if Instant::now() < deadline {
                std::thread::sleep(CLOCK);
                continue;
            }
            for fd in fds {
                tracing::warn!(
                    fd,
                    "a connection is ended: it has sent a part of a line while the versions changed, and nothing since"
                );
                if let Err(error) = query::end_connection(self.leader, fd) {
                    tracing::warn!(fd, %error, "ending a connection");
                }
            }
            return;
        }
    }

    fn release_leader(&mut self, reason: &'static str) -> Result<()> {
        self.give_what_was_not_read();
        let limit = self.options.step_timeout;
        self.ended.push(self.follower);
        let zombies = Zombies::These(std::mem::take(&mut self.ended));
        self.lead.ask(move |core| {
            let Some(process) = core.process.as_mut() else { return Ok(()) };
            if let Role::Leading(leading) = &mut core.role
                && let Err(error) = leading.stop(process, reason)
            {
                // Whoever was not let go is found when all are parked.
                tracing::warn!(%error, "ending the recording");
            }
            core.role = Role::Idle;
            let Some(process) = core.process.take() else { return Ok(()) };
            let parked = park_all(&core.inbox, &process, limit)?;
            process.release(&core.inbox, parked, zombies)
        })
    }
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
