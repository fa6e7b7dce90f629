//! Starts the versions of a run, hears of what happens, and says how it ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, unbounded};

use super::failover::Fallen;
use super::follow::{Open, Says, Ways};
use super::lead::Heard;
use super::recorder::{self, Recorder};
use super::report::{Followed, FollowerEnd, FollowerReport, Report};
use super::start::{Beginning, Ready, pass_signals_on, start_follower, start_leader};
use super::streams::Streams;
use super::tree::{Handle, Order};
use super::{OnDivergence, Plan};
use crate::ptrace::launch::{self, Program, Source};
use crate::ptrace::sentinel::Sentinel;
use crate::ptrace::{Error, Pid, Result, sys};
use crate::record::interleaving::Interleaving;
use crate::record::leading::processes::Streams as _;
use crate::record::{Ending, StreamId, leading};
use crate::rules::recording::{Header, Start};

/// Signals that ask a program to end.
const ENDS: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// How often the tracer threads look at their deadlines.
pub(super) const CLOCK: Duration = Duration::from_millis(2);

/// What the tracer threads tell.
pub(super) enum Told {
    Leader(Heard),
    Follower(usize, Says),
    Signal(i32, Source),
}

/// Runs the versions to their ends. Signals that come meanwhile are passed on to the leader, and one that asks for an end ends
/// the followers after it; the calling thread and the threads that it starts keep them from now on.
pub fn run(plan: Plan) -> Result<Report> {
    let mask = launch::signal_mask();
    let file = plan.record.as_deref().map(recorder::create).transpose()?;
    launch::hold_signals();
    let sentinel = Arc::new(Sentinel::start()?);
    let (tell, told) = unbounded();
    let (begin, beginning) = bounded(1);
    // A program that could not be started leaves no recording.
    let unrecorded = || plan.record.as_deref().filter(|_| file.is_some()).map_or((), recorder::discard);
    let (leader, ready) = start_leader(&plan, mask, beginning, tell.clone()).inspect_err(|_| unrecorded())?;
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
        leader,
        taken_over: false,
        pid: ready.pid,
        recorder,
        ending: None,
        over: false,
        to_end: None,
        stopped: false,
        notes: Vec::new(),
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
        Arc::clone(&run.leader.bell),
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
            open: Open::Live,
            tell: Box::new(move |says| drop(tell.send(Told::Follower(number, says)))),
        };
        // A follower that could not be started does not wait for it.
        let _ = way.send(ways);
    }
    // Where one that could not be started stops the run, the leader does nothing.
    run.react();
    if begin.send(Beginning { streams, stream }).is_err() {
        return Err(Error::Unsupported("the leader's tracer thread has ended".into()));
    }
    pass_signals_on(Arc::clone(&sentinel), tell)?;
    run.hear(&told)
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
    asked: Asked,
    /// Who cannot.
    faulted: Vec<usize>,
}

/// How far a follower is that was asked to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nobody,
    /// It lives through what is recorded, and has until then.
    Comes(usize, Instant),
    /// Its memory is being put in place: that is the leader's business, which tells of it.
    Gives(usize),
}

/// How long a follower may take to live through what is recorded, for a leader that has crashed.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(60);

/// How long followers may still follow when a signal asks the run to end: whoever sends one to a whole group of processes means
/// the leader, which has ended by it then.
const GRACE: Duration = Duration::from_secs(1);

struct Run {
    plan: Plan,
    recorder: Option<Recorder>,
    /// The tracer of the leader.
    leader: Handle,
    /// The leader has crashed, and goes on with the memory of a follower.
    taken_over: bool,
    crash: Option<Crash>,
    pid: Pid,
    ending: Option<Ending>,
    /// All processes of the leader are over.
    over: bool,
    /// A signal that came after the leader's end, and when.
    to_end: Option<(i32, Instant)>,
    stopped: bool,
    notes: Vec<String>,
    followers: Vec<Tracked>,
}

impl Run {
    /// Hears of everything until all versions have ended.
    fn hear(mut self, told: &Receiver<Told>) -> Result<Report> {
        while !self.over || self.followers.iter().any(|one| one.end.is_none()) {
            self.look_at_the_time();
            match told.recv_timeout(CLOCK) {
                Ok(Told::Leader(Heard::Over)) => {
                    self.over = true;
                    self.give_up_crash();
                }
                Ok(Told::Leader(Heard::Stopped)) => self.stopped = true,
                // A daemon that another has taken over from ends after the program that was started.
                Ok(Told::Leader(Heard::Ended(ending))) => drop(self.ending.get_or_insert(ending)),
                Ok(Told::Leader(Heard::Refused { call, reason })) => {
                    self.drop_all(&leading::refusal(&call, &reason));
                }
                Ok(Told::Leader(Heard::Broken(error))) => self.drop_all(&error),
                Ok(Told::Leader(Heard::Crashed(fallen))) => {
                    let left =
                        (0..self.followers.len()).rev().filter(|one| self.followers[*one].end.is_none()).collect();
                    self.crash = Some(Crash { fallen, left, asked: Asked::Nobody, faulted: Vec::new() });
                    self.ask_next();
                }
                Ok(Told::Leader(Heard::Noted(note))) => self.notes.push(note),
                Ok(Told::Leader(Heard::Became)) => self.on_became(),
                Ok(Told::Leader(Heard::NotBecome(reason))) => self.on_not_become(reason),
                Ok(Told::Follower(number, Says::Prepared(legacy))) => {
                    if let Some(crash) = &mut self.crash
                        && matches!(crash.asked, Asked::Comes(one, _) if one == number)
                    {
                        crash.asked = Asked::Gives(number);
                        self.leader.order(Order::Become(legacy));
                    }
                }
                Ok(Told::Follower(number, Says::CannotTakeOver)) => {
                    if let Some(crash) = &mut self.crash {
                        crash.faulted.push(number);
                    }
                    self.go_past(number);
                }
                Ok(Told::Follower(number, Says::Ended(end, followed))) => {
                    let one = &mut self.followers[number];
                    let end = one.end.take().map_or(end, |(first, _)| first);
                    one.end = Some((end, followed));
                    self.go_past(number);
                    self.react();
                }
                // What the terminal or anybody else sends to the group comes to the program by itself.
                Ok(Told::Signal(_, Source::Group)) if self.ending.is_none() => {}
                Ok(Told::Signal(signo, _)) => self.pass_on(signo),
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
        let not_recorded = self.recorder.and_then(Recorder::finish);
        let leader = self.ending.ok_or_else(|| Error::Unsupported("nobody has seen the leader's end".into()))?;
        Ok(Report { leader, stopped: self.stopped, not_recorded, notes: self.notes, followers })
    }

    /// Passes a signal on to the program, or notes that the rest of the run is to end where the program has.
    fn pass_on(&mut self, signo: i32) {
        let gone =
            self.ending.is_some() || crate::ptrace::sys::kill(self.pid, signo).is_err_and(|error| error.is_gone());
        if gone && self.crash.is_none() && ENDS.contains(&signo) {
            self.to_end.get_or_insert((signo, Instant::now()));
        }
    }

    /// Asks the next follower to take over from a leader that has crashed; without one the leader ends by its signal.
    fn ask_next(&mut self) {
        let Some(crash) = &mut self.crash else { return };
        while let Some(number) = crash.left.pop() {
            if let (Some(handle), None) = (&self.followers[number].handle, &self.followers[number].end) {
                crash.asked = Asked::Comes(number, Instant::now() + TAKE_OVER_LIMIT);
                handle.order(Order::TakeOver(crash.fallen.clone()));
                return;
            }
        }
        self.crash = None;
        self.leader.order(Order::LetDie);
    }

    /// A follower will not take over; if it was asked, the next one is.
    fn go_past(&mut self, number: usize) {
        if self.crash.as_ref().is_some_and(|crash| matches!(crash.asked, Asked::Comes(one, _) if one == number)) {
            self.ask_next();
        }
    }

    /// The leader goes on with the memory of the follower that was asked, and the others follow it.
    fn on_became(&mut self) {
        let Some(crash) = self.crash.take() else { return };
        self.taken_over = true;
        if let Asked::Gives(number) = crash.asked {
            self.order(number, Order::Gone);
        }
        crash.faulted.into_iter().for_each(|faulted| self.order(faulted, Order::GoOn));
    }

    /// The memory of the follower that was asked could not be put in place.
    fn on_not_become(&mut self, reason: String) {
        if let Some(Asked::Gives(number)) = self.crash.as_ref().map(|crash| crash.asked) {
            self.order(number, Order::Unwanted(reason));
            self.ask_next();
        }
    }

    /// The leader has ended without anybody taking over: the followers follow it to its end.
    fn give_up_crash(&mut self) {
        let Some(crash) = self.crash.take() else { return };
        match crash.asked {
            Asked::Comes(number, _) => self.order(number, Order::GoOn),
            Asked::Gives(number) => self.order(number, Order::Unwanted("the leader has ended".to_owned())),
            Asked::Nobody => {}
        }
        crash.faulted.into_iter().for_each(|faulted| self.order(faulted, Order::GoOn));
    }

    fn order(&self, follower: usize, order: Order) {
        if let Some(handle) = &self.followers[follower].handle {
            handle.order(order);
        }
    }

    /// Gives up waiting for a follower that does not come to where the leader has crashed, and for all where the run is to end.
    fn look_at_the_time(&mut self) {
        if let Some((signo, _)) = self.to_end.take_if(|(_, since)| since.elapsed() >= GRACE) {
            let name = nix::sys::signal::Signal::try_from(signo).map_or("a signal", |signal| signal.as_str());
            self.drop_all(&format!("{name} ended the run after the leader's end"));
        }
        if let Some(Asked::Comes(number, until)) = self.crash.as_ref().map(|crash| crash.asked)
            && Instant::now() > until
        {
            self.order(number, Order::Kill);
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
        if self.crash.is_some() || !(dropped || self.taken_over) {
            return;
        }
        if dropped && !self.over && self.plan.on_divergence == OnDivergence::Stop {
            self.leader.order(Order::Kill);
        } else if self.recorder.is_none() && self.followers.iter().all(|one| one.end.is_some()) {
            self.leader.order(Order::Release);
        }
    }
}
