//! Asks the daemon again and again, from a thread of its own, so that keys are heard while the daemon takes its time.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::model::Heard;
use super::question::Verb;
use crate::cli::client::{Client, mismatched};
use crate::control::Code;
use crate::control::dirs::Dirs;
use crate::control::protocol::{Answer, Problem, Request};

/// Something that the main loop takes.
#[derive(Debug)]
pub(super) struct Said(pub(super) Heard);

/// Starts the thread that asks; it ends when nobody listens any more.
///
/// `looked_at` tells which process the statistics are wanted of; each word on it is answered at once.
pub(super) fn start(
    dirs: Dirs,
    interval: Duration,
    client: Client,
    looked_at: Receiver<Option<i32>>,
    to: Sender<Said>,
) -> io::Result<()> {
    let ask = move || {
        let mut pid = None;
        let mut client = Some(client);
        loop {
            let told = match connected(&mut client, &dirs).and_then(|client| round(client, &mut pid, &to)) {
                Ok(told) => told,
                Err(problem) => {
                    client = None;
                    to.send(Said(Heard::Gone(problem))).is_ok()
                }
            };
            if !told {
                return;
            }
            match looked_at.recv_timeout(interval) {
                Ok(wanted) => pid = wanted,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // What was asked for meanwhile is one question.
            while let Ok(wanted) = looked_at.try_recv() {
                pid = wanted;
            }
        }
    };
    thread::Builder::new().name("top-feed".to_owned()).spawn(ask).map(drop)
}

fn connected<'a>(client: &'a mut Option<Client>, dirs: &Dirs) -> Result<&'a mut Client, Problem> {
    match client {
        Some(client) => Ok(client),
        none @ None => Ok(none.insert(Client::connect(dirs)?)),
    }
}

/// Asks for everything once; says whether somebody listened.
fn round(client: &mut Client, pid: &mut Option<i32>, to: &Sender<Said>) -> Result<bool, Problem> {
    let status = match client.ask(Request::Status { pid: None })? {
        Answer::Status(status) => status,
        other => return Err(mismatched(&other)),
    };
    let target = match *pid {
        Some(pid) => status.targets.iter().find(|target| target.concerns(pid)),
        None => status.targets.first(),
    };
    let observed = target.and_then(|target| target.monitor.as_ref().map(|monitor| monitor.pid));
    *pid = pid.or_else(|| target.map(|target| target.pid));
    if to.send(Said(Heard::Status(status))).is_err() {
        return Ok(false);
    }
    let Some(observed) = observed else { return Ok(true) };
    let stats = match client.ask(Request::Stats { pid: observed }) {
        Ok(Answer::Stats(stats)) => Ok(stats),
        Ok(other) => return Err(mismatched(&other)),
        Err(problem) if problem.code == Code::Unreachable => return Err(problem),
        Err(problem) => Err(problem),
    };
    Ok(to.send(Said(Heard::Stats(observed, stats))).is_ok())
}

/// Asks for something that may take long, over a connection of its own; what comes of it is said.
pub(super) fn ask(dirs: Dirs, verb: Verb, pid: i32, to: Sender<Said>) -> io::Result<()> {
    let ask = move || {
        let answer = Client::connect(&dirs).and_then(|mut client| client.ask(verb.request(pid)));
        let result = answer.and_then(|answer| match answer {
            Answer::Done {} => Ok(()),
            other => Err(mismatched(&other)),
        });
        // Who asked may have gone; the request stands.
        let _ = to.send(Said(Heard::Answered(verb, result)));
    };
    thread::Builder::new().name("top-ask".to_owned()).spawn(ask).map(drop)
}
