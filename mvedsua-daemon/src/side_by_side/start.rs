//! Starting the versions of a run, each in a tracer thread of its own.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Plan;
use super::Version;
use super::conductor::Told;
use super::follow::{Follower, Says, Ways};
use super::lead::{Heard, Leader, settings};
use super::report::{Followed, FollowerEnd};
use super::streams::Streams;
use super::tree::{Handle, Order};
use crate::ptrace::launch::{self, Layout, Program, Side};
use crate::ptrace::ring::Mode;
use crate::ptrace::sentinel::Sentinel;
use crate::ptrace::{Error, Pid, Result};
use crate::record::stream::Stream;
use crate::tracee::driver::drive;
use crate::tracee::program::{first, secrets, share_secrets};

/// A leader that stands before its first instruction.
pub(super) struct Ready {
    pub(super) pid: Pid,
    pub(super) secrets: [u8; 16],
}

/// Tells of it when the thread that it lives in panics: those who wait would wait for ever.
struct OnPanic<F: Fn()>(F);

impl<F: Fn()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

/// What is told of a tracer thread that has panicked.
const PANICKED: &str = "its tracer thread panicked";

/// Drives a leader to its end; an end before that is told.
fn lead(
    tell: &Sender<Told>,
    orders: &Receiver<Order>,
    begin: impl FnOnce(Box<dyn Fn(Heard) + Send>) -> Result<Leader>,
) {
    let broken = |why: String| {
        drop(tell.send(Told::Leader(Heard::Broken(why))));
        drop(tell.send(Told::Leader(Heard::Over)));
    };
    let _alarm = OnPanic(|| broken(PANICKED.to_owned()));
    let hear = tell.clone();
    let heard = Box::new(move |heard| drop(hear.send(Told::Leader(heard))));
    if let Err(error) = begin(heard).and_then(|mut leader| drive(&mut leader, orders)) {
        broken(error.to_string());
    }
}

/// What a leader begins with.
pub(super) struct Beginning {
    pub(super) streams: Arc<Streams>,
    pub(super) stream: Stream,
}

/// Starts the leader, which stands before its first instruction until it is told its beginning.
pub(super) fn start_leader(
    plan: &Plan,
    mask: libc::sigset_t,
    beginning: Receiver<Beginning>,
    tell: Sender<Told>,
) -> Result<(Handle, Ready)> {
    let (send, receive) = bounded(1);
    let (program, layout, on_full) = (plan.leader.clone(), plan.layout, plan.on_full);
    let handle = Handle::spawn("mvedsua-lead", move |inbox, orders| {
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
        lead(&tell, &orders, |heard| Leader::start(inbox, process, stream, settings(on_full, streams), heard));
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
    let handle = Handle::spawn(&format!("mvedsua-follow{}", number + 1), move |inbox, orders| {
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
        let streams = Arc::clone(&ways.streams);
        let failed = |why: String| {
            let end = FollowerEnd::Failed(why);
            streams.abandon(number, &end);
            drop(tell.send(Told::Follower(number, Says::Ended(end, Followed::default()))));
        };
        let alarm = OnPanic(|| failed(PANICKED.to_owned()));
        let driven = Follower::start(inbox, process, twin, ways).and_then(|mut follower| drive(&mut follower, &orders));
        drop(alarm);
        if let Err(error) = driven {
            failed(error.to_string());
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
) -> Result<crate::tracee::process::Process> {
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

pub(super) fn pass_signals_on(sentinel: Arc<Sentinel>, tell: Sender<Told>) -> Result<()> {
    // It ends with the process: nobody can wake it without a signal.
    std::thread::Builder::new()
        .name("mvedsua-signals".into())
        .spawn(move || {
            loop {
                let (signo, source) = launch::next_signal(&sentinel);
                if tell.send(Told::Signal(signo, source)).is_err() {
                    break;
                }
            }
        })
        .map(drop)
        .map_err(|source| Error::Own { doing: "starting thread mvedsua-signals".into(), source })
}
