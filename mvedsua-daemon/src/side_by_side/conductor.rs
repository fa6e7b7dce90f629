//! Starts the versions of a run, hears of what happens, and says how it ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use super::failover::{Fallen, Legacy};
use super::follow::{Follower, Says, Successor, Ways};
use super::lead::{Heard, Leader, settings};
use super::program::{first, secrets, share_secrets};
use super::recorder::{self, Recorder};
use super::report::{Followed, FollowerEnd, FollowerReport, Report};
use super::streams::Streams;
use super::tree::{Handle, Order, drive};
use super::{OnDivergence, Plan, Version};
use crate::ptrace::launch::{self, Layout, Program, Side, Source};
use crate::ptrace::ring::Mode;
use crate::ptrace::{Error, Pid, Result, sys};
use crate::record::leading::processes::Streams as _;
use crate::record::stream::Stream;
use crate::record::{Ending, StreamId};
use crate::record::interleaving::Interleaving;
use crate::rules::recording::{Header, Start};

/// How often the tracer threads look at their deadlines.
pub(super) const CLOCK: Duration = Duration::from_millis(2);

/// What the tracer threads tell.
pub(super) enum Told {
    Leader(Heard),
    Follower(usize, Says),
    Signal(i32, Source),
}

/// A leader that stands before its first instruction.
pub(super) struct Ready {
    pub(super) pid: Pid,
    pub(super) secrets: [u8; 16],
}

/// What a leader begins with.
struct Beginning {
    streams: Arc<Streams>,
    stream: Stream,
}

/// Runs the versions to their ends. Signals that come meanwhile are passed on to the leader; the calling thread and the
/// threads that it starts keep them from now on.
pub fn run(plan: Plan) -> Result<Report> {
    let mask = launch::signal_mask();
    let file = plan.record.as_deref().map(recorder::create).transpose()?;
    launch::hold_signals();
    let (tell, told) = unbounded();
    let (begin, beginning) = bounded(1);
    let (leader, ready) = start_leader(&plan, mask, beginning, tell.clone())?;
    let recording = file.map(|file| Recorder::begin(file, &header(&plan.leader, plan.interleaving, &ready)));
    let (recorder, entrance) = match recording.transpose() {
        Ok(recording) => recording.unzip(),
        Err(error) => {
            sys::kill(ready.pid, libc::SIGKILL)?;
            return Err(error);
        }
    };
    let mut run = Run {
        plan,
        first: leader,
        leading: None,
        pid: ready.pid,
        recorder,
        ending: None,
        stopped: false,
        followers: Vec::new(),
        crash: None,
    };
    let mut ways = Vec::new();
    for (number, version) in run.plan.followers.clone().into_iter().enumerate() {
        let (send, receive) = bounded(1);
        let started = start_follower(number, &version, (run.plan.layout, mask), &ready, receive, tell.clone());
        let (handle, end) = match started {
            Ok(handle) => (Some(handle), None),
            Err(error) => (None, Some((FollowerEnd::Failed(error.to_string()), Followed::default()))),
        };
        ways.push(send);
        run.followers.push(Tracked { name: version.name, handle, end });
    }
    let bells = run.followers.iter().map(|one| one.handle.as_ref().map(|handle| Arc::clone(&handle.bell))).collect();
    let streams = Streams::new(
        run.plan.log.clone(),
        (run.plan.lockstep, run.plan.on_divergence),
        Arc::clone(&run.first.bell),
        bells,
    );
    let streams = Arc::new(streams.recorded(entrance).interleaved(run.plan.interleaving));
    let (id, stream) = streams.open();
    debug_assert_eq!(id, StreamId(0));
    for (number, (way, version)) in ways.into_iter().zip(&run.plan.followers).enumerate() {
        let tell = tell.clone();
        let ways = Ways {
            number,
            streams: Arc::clone(&streams),
            hang_timeout: run.plan.hang_timeout,
            rules: version.rules.clone(),
            // The run hears everything to its end.
            on_full: run.plan.on_full,
            tell: Box::new(move |says| drop(tell.send(Told::Follower(number, says)))),
        };
        // A follower that could not be started does not wait for it.
        let _ = way.send(ways);
    }
    if begin.send(Beginning { streams, stream }).is_err() {
        return Err(Error::Unsupported("the leader's tracer thread has ended".into()));
    }
    pass_signals_on(tell)?;
    run.hear(&told)
}

fn start_leader(
    plan: &Plan,
    mask: libc::sigset_t,
    beginning: Receiver<Beginning>,
    tell: Sender<Told>,
) -> Result<(Handle, Ready)> {
    let (send, receive) = bounded(1);
    let (program, layout, on_full) = (plan.leader.clone(), plan.layout, plan.on_full);
    let handle = Handle::spawn("mvedsua-lead".into(), move |inbox, orders| {
        let started = begin_program(&inbox, &program, (Side::Leader, layout), &mask)
            .and_then(|process| secrets(process.pid).map(|secrets| (process, secrets)));
        let process = match started {
            Ok((process, secrets)) => {
                let ready = Ready { pid: process.pid, secrets };
                drop(send.send(Ok(ready)));
                process
            }
            Err(error) => return drop(send.send(Err(error))),
        };
        let Ok(Beginning { streams, stream }) = beginning.recv() else { return };
        let hear = tell.clone();
        let heard = Box::new(move |heard| drop(hear.send(Told::Leader(heard))));
        let driven = Leader::start(inbox, process, stream, settings(on_full, streams), heard)
            .and_then(|mut leader| drive(&mut leader, &orders));
        if let Err(error) = driven {
            drop(tell.send(Told::Leader(Heard::Broken(error.to_string()))));
            drop(tell.send(Told::Leader(Heard::Over)));
        }
    })?;
    let ready = receive.recv().map_err(|_| Error::Unsupported("the leader's tracer thread has ended".into()))??;
    Ok((handle, ready))
}

/// Starts a follower, which stands before its first instruction until it is told its ways.
pub(super) fn start_follower(
    number: usize,
    version: &Version,
    (layout, mask): (Layout, libc::sigset_t),
    leader: &Ready,
    ways: Receiver<Ways>,
    tell: Sender<Told>,
) -> Result<Handle> {
    let (send, receive) = bounded(1);
    let program = version.program.clone();
    let (twin, secrets) = (leader.pid, leader.secrets);
    let handle = Handle::spawn(format!("mvedsua-follow{}", number + 1), move |inbox, orders| {
        let started = begin_program(&inbox, &program, (Side::Follower, layout), &mask)
            .and_then(|process| share_secrets(process.pid, &process.memory, &secrets).map(|()| process));
        let process = match started {
            Ok(process) => {
                drop(send.send(Ok(())));
                process
            }
            Err(error) => return drop(send.send(Err(error))),
        };
        let Ok(ways) = ways.recv() else { return };
        let driven = Follower::start(inbox, process, twin, ways).and_then(|mut follower| {
            drive(&mut follower, &orders)?;
            Ok(follower.into_successor())
        });
        let led = match driven {
            Ok(None) => return,
            Ok(Some(Successor { inbox, process, role, notices, settings })) => {
                let hear = tell.clone();
                let heard = Box::new(move |heard| drop(hear.send(Told::Leader(heard))));
                Leader::resume(inbox, process, role, notices, settings, heard)
                    .and_then(|mut leader| drive(&mut leader, &orders))
            }
            Err(error) => {
                let end = FollowerEnd::Failed(error.to_string());
                return drop(tell.send(Told::Follower(number, Says::Ended(end, Followed::default()))));
            }
        };
        if let Err(error) = led {
            drop(tell.send(Told::Leader(Heard::Broken(error.to_string()))));
            drop(tell.send(Told::Leader(Heard::Over)));
        }
    })?;
    receive.recv().map_err(|_| Error::Unsupported("a follower's tracer thread has ended".into()))??;
    Ok(handle)
}

fn begin_program(
    inbox: &crate::ptrace::wait::Inbox,
    program: &Program,
    (side, layout): (Side, Layout),
    mask: &libc::sigset_t,
) -> Result<crate::update::process::Process> {
    let mode = match side {
        Side::Leader => Mode::Note,
        Side::Follower => Mode::Answer,
    };
    let pid = launch::launch(inbox, program, side, layout, mask)?;
    first(inbox, pid, mode).inspect_err(|_| {
        // Nobody will trace it.
        if let Err(error) = crate::ptrace::sys::kill(pid, libc::SIGKILL) {
            tracing::debug!(%error, "ending a program that could not begin");
        }
    })
}

fn pass_signals_on(tell: Sender<Told>) -> Result<()> {
    // It ends with the process: nobody can wake it without a signal.
    std::thread::Builder::new()
        .name("mvedsua-signals".into())
        .spawn(move || {
            loop {
                let (signo, source) = launch::next_signal();
                if tell.send(Told::Signal(signo, source)).is_err() {
                    break;
                }
            }
        })
        .map(drop)
        .map_err(|source| Error::Proc { path: "starting thread mvedsua-signals".into(), source })
}

struct Tracked {
    name: String,
    handle: Option<Handle>,
    end: Option<(FollowerEnd, Followed)>,
}

/// What a recording says of the program.
fn header(program: &Program, interleaving: Interleaving, ready: &Ready) -> Header {
    let (path, arguments, environment) = program.parts();
    Header {
        program: path.display().to_string(),
        pid: ready.pid.0,
        descriptors: crate::update::descriptors::open_in(ready.pid),
        interleaving,
        start: Some(Start { random: ready.secrets, arguments, environment }),
    }
}

/// A leader that has crashed, while somebody is looked for who goes on.
struct Crash {
    fallen: Box<Fallen>,
    /// Followers that have not been asked yet, the next one last.
    left: Vec<usize>,
    /// Who is asked, and until when.
    asked: Option<(usize, Instant)>,
    /// Who cannot.
    faulted: Vec<usize>,
}

/// How long a follower may take to live through what is recorded, for a leader that has crashed.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(60);

struct Run {
    plan: Plan,
    recorder: Option<Recorder>,
    /// The tracer of the version that led first.
    first: Handle,
    /// The follower that leads now.
    leading: Option<usize>,
    crash: Option<Crash>,
    pid: Pid,
    ending: Option<Ending>,
    stopped: bool,
    followers: Vec<Tracked>,
}

impl Run {
    /// Hears of everything until all versions have ended.
    fn hear(mut self, told: &Receiver<Told>) -> Result<Report> {
        let mut over = false;
        self.react();
        while !over || self.followers.iter().any(|one| one.end.is_none()) {
            self.look_at_the_time();
            match told.recv_timeout(CLOCK) {
                Ok(Told::Leader(Heard::Over)) => over = true,
                // A daemon that another has taken over from ends after the program that was started.
                Ok(Told::Leader(Heard::Ended(ending))) => drop(self.ending.get_or_insert(ending)),
                Ok(Told::Leader(Heard::Refused { call, reason })) => {
                    self.drop_all(&format!("the leader called {call}, which cannot be followed: {reason}"));
                }
                Ok(Told::Leader(Heard::Broken(error))) => self.drop_all(&error),
                Ok(Told::Leader(Heard::Crashed(fallen))) => {
                    let left =
                        (0..self.followers.len()).rev().filter(|one| self.followers[*one].end.is_none()).collect();
                    self.crash = Some(Crash { fallen, left, asked: None, faulted: Vec::new() });
                    self.ask_next();
                }
                Ok(Told::Leader(Heard::Surrendered(legacy))) => over |= !self.hand_over(legacy),
                Ok(Told::Follower(number, Says::Prepared(pid))) => {
                    if self.crash.as_ref().is_some_and(|crash| crash.asked.is_some_and(|(one, _)| one == number)) {
                        self.pid = pid;
                        self.leader().order(Order::Surrender);
                    }
                }
                Ok(Told::Follower(number, Says::CannotTakeOver)) => {
                    if let Some(crash) = &mut self.crash {
                        crash.faulted.push(number);
                    }
                    self.go_past(number);
                }
                Ok(Told::Follower(number, Says::Ended(end, followed))) => {
                    if self.leading == Some(number) && !matches!(end, FollowerEnd::TookOver { .. }) {
                        // It was to lead, and the old leader is dead.
                        self.ending.get_or_insert(Ending::Killed(libc::SIGKILL));
                        over = true;
                    }
                    let one = &mut self.followers[number];
                    let end = one.end.take().map_or(end, |(first, _)| first);
                    one.end = Some((end, followed));
                    self.go_past(number);
                    self.react();
                }
                // What the terminal sends goes to the program by itself; one that has taken over has a session of its own.
                Ok(Told::Signal(_, Source::Terminal)) if self.leading.is_none() => {}
                Ok(Told::Signal(signo, _)) => {
                    if let Err(error) = crate::ptrace::sys::kill(self.pid, signo) {
                        tracing::debug!(%error, "a signal came after the end");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let followers = self.followers.iter().filter_map(|one| one.handle.as_ref());
                    followers.chain([&self.first]).for_each(|handle| handle.bell.ring());
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.first.join();
        let followers = self.followers.into_iter().map(|one| {
            if let Some(handle) = one.handle {
                handle.join();
            }
            let missing = || (FollowerEnd::Failed("its tracer thread has ended".into()), Followed::default());
            let (end, followed) = one.end.unwrap_or_else(missing);
            FollowerReport { name: one.name, end, followed }
        });
        let followers = followers.collect();
        let not_recorded = self.recorder.and_then(Recorder::finish);
        let leader = self.ending.ok_or_else(|| Error::Unsupported("nobody has seen the leader's end".into()))?;
        Ok(Report { leader, stopped: self.stopped, not_recorded, followers })
    }

    fn leader(&self) -> &Handle {
        let successor = self.leading.and_then(|number| self.followers[number].handle.as_ref());
        successor.unwrap_or(&self.first)
    }

    /// Asks the next follower to take over from a leader that has crashed; without one the leader ends by its signal.
    fn ask_next(&mut self) {
        let Some(crash) = &mut self.crash else { return };
        while let Some(number) = crash.left.pop() {
            if let (Some(handle), None) = (&self.followers[number].handle, &self.followers[number].end) {
                crash.asked = Some((number, Instant::now() + TAKE_OVER_LIMIT));
                handle.order(Order::TakeOver(crash.fallen.clone()));
                return;
            }
        }
        self.crash = None;
        self.leader().order(Order::LetDie);
    }

    /// A follower will not take over; if it was asked, the next one is.
    fn go_past(&mut self, number: usize) {
        if self.crash.as_ref().is_some_and(|crash| crash.asked.is_some_and(|(one, _)| one == number)) {
            self.ask_next();
        }
    }

    /// Lets the follower that was asked lead; says whether it is there.
    fn hand_over(&mut self, legacy: Box<Legacy>) -> bool {
        let Some(crash) = self.crash.take() else { return false };
        let Some((number, _)) = crash.asked else { return false };
        for faulted in crash.faulted {
            if let Some(handle) = &self.followers[faulted].handle {
                handle.order(Order::GoOn);
            }
        }
        let old = Arc::clone(&self.leader().bell);
        self.leading = Some(number);
        let Some(handle) = &self.followers[number].handle else { return false };
        // Who is awaited, and who makes room in the logs, wakes the new leader from now on.
        old.pass_on_to(Arc::clone(&handle.bell));
        handle.order(Order::Lead(legacy));
        true
    }

    /// Gives up waiting for a follower that does not come to where the leader has crashed.
    fn look_at_the_time(&mut self) {
        let late = self.crash.as_ref().and_then(|crash| crash.asked).filter(|(_, until)| Instant::now() > *until);
        if let Some((number, _)) = late {
            if let Some(handle) = &self.followers[number].handle {
                handle.order(Order::Kill);
            }
            self.go_past(number);
        }
    }

    /// No follower can go on: all are ended with the same reason.
    fn drop_all(&mut self, reason: &str) {
        for one in &mut self.followers {
            if one.end.is_none() {
                one.end = Some((FollowerEnd::Failed(reason.to_owned()), Followed::default()));
                if let Some(handle) = &one.handle {
                    handle.order(Order::Kill);
                }
            }
        }
        self.react();
    }

    /// Does what a follower's end asks for. Where nobody follows any more, the last having taken over perhaps, the leader is
    /// not recorded either.
    fn react(&mut self) {
        let dropped = |one: &Tracked| one.end.as_ref().is_some_and(|(end, _)| !end.is_good());
        let dropped = self.followers.iter().any(dropped);
        if self.crash.is_some() || !(dropped || self.leading.is_some()) {
            return;
        }
        if dropped && self.ending.is_none() && self.plan.on_divergence == OnDivergence::Stop {
            self.stopped = true;
            self.leader().order(Order::Kill);
        } else if self.recorder.is_none() && self.followers.iter().all(|one| one.end.is_some()) {
            self.leader().order(Order::Release);
        }
    }
}
