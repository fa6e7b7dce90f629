//! Starts the versions of a run, hears of what happens, and says how it ended.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use super::follow::{Follower, Ways};
use super::lead::{Heard, Leader, settings};
use super::program::{first, secrets, share_secrets};
use super::report::{Followed, FollowerEnd, FollowerReport, Report};
use super::streams::Streams;
use super::tree::{Handle, Order, drive};
use super::{OnDivergence, Plan, Version};
use crate::ptrace::launch::{self, Layout, Program, Side};
use crate::ptrace::ring::Mode;
use crate::ptrace::{Error, Pid, Result};
use crate::record::leading::processes::Streams as _;
use crate::record::stream::Stream;
use crate::record::{Ending, StreamId};

/// How often the tracer threads look at their deadlines.
const CLOCK: Duration = Duration::from_millis(2);

/// What the tracer threads tell.
enum Told {
    Leader(Heard),
    Follower(usize, FollowerEnd, Followed),
    Signal(i32),
}

/// A leader that stands before its first instruction.
struct Ready {
    pid: Pid,
    secrets: [u8; 16],
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
    launch::hold_signals();
    let (tell, told) = unbounded();
    let (begin, beginning) = bounded(1);
    let (leader, ready) = start_leader(&plan, mask, beginning, tell.clone())?;
    let mut run = Run { plan, leader, pid: ready.pid, ending: None, stopped: false, followers: Vec::new() };
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
    let streams = Arc::new(Streams::new(run.plan.log.clone(), Arc::clone(&run.leader.bell), bells));
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
            tell: Box::new(move |end, followed| drop(tell.send(Told::Follower(number, end, followed)))),
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

fn start_follower(
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
        let driven = Follower::start(inbox, process, twin, ways).and_then(|mut follower| drive(&mut follower, &orders));
        if let Err(error) = driven {
            let end = FollowerEnd::Failed(error.to_string());
            drop(tell.send(Told::Follower(number, end, Followed::default())));
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
        .spawn(move || while tell.send(Told::Signal(launch::next_signal())).is_ok() {})
        .map(drop)
        .map_err(|source| Error::Proc { path: "starting thread mvedsua-signals".into(), source })
}

struct Tracked {
    name: String,
    handle: Option<Handle>,
    end: Option<(FollowerEnd, Followed)>,
}

struct Run {
    plan: Plan,
    leader: Handle,
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
            match told.recv_timeout(CLOCK) {
                Ok(Told::Leader(Heard::Over)) => over = true,
                Ok(Told::Leader(Heard::Ended(ending))) => self.ending = Some(ending),
                Ok(Told::Leader(Heard::Refused { call, reason })) => {
                    self.drop_all(&format!("the leader called {call}, which cannot be followed: {reason}"));
                }
                Ok(Told::Leader(Heard::Broken(error))) => self.drop_all(&error),
                Ok(Told::Follower(number, end, followed)) => {
                    let one = &mut self.followers[number];
                    let end = one.end.take().map_or(end, |(first, _)| first);
                    one.end = Some((end, followed));
                    self.react();
                }
                Ok(Told::Signal(signo)) => {
                    if let Err(error) = crate::ptrace::sys::kill(self.pid, signo) {
                        tracing::debug!(%error, "a signal came after the end");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let followers = self.followers.iter().filter_map(|one| one.handle.as_ref());
                    followers.chain([&self.leader]).for_each(|handle| handle.bell.ring());
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.leader.join();
        let followers = self.followers.into_iter().map(|one| {
            if let Some(handle) = one.handle {
                handle.join();
            }
            let missing = || (FollowerEnd::Failed("its tracer thread has ended".into()), Followed::default());
            let (end, followed) = one.end.unwrap_or_else(missing);
            FollowerReport { name: one.name, end, followed }
        });
        let followers = followers.collect();
        let leader = self.ending.ok_or_else(|| Error::Unsupported("nobody has seen the leader's end".into()))?;
        Ok(Report { leader, stopped: self.stopped, followers })
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

    /// Does what a follower's end asks for.
    fn react(&mut self) {
        let dropped = |one: &Tracked| one.end.as_ref().is_some_and(|(end, _)| *end != FollowerEnd::Followed);
        let dropped = self.followers.iter().any(dropped);
        if self.ending.is_some() || !dropped {
            return;
        }
        if self.plan.on_divergence == OnDivergence::Stop {
            self.stopped = true;
            self.leader.order(Order::Kill);
        } else if self.followers.iter().all(|one| one.end.is_some()) {
            self.leader.order(Order::Release);
        }
    }
}
