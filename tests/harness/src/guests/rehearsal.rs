//! A session of the engine, in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use mvedsua_daemon::report;
use mvedsua_daemon::update::{Counters, FailureKind, SessionEvent};

/// How long a step of a session may take on a slow machine.
pub const STEP_LIMIT: Duration = Duration::from_secs(60);

/// Prints an event; a divergence as an operator would read it.
fn describe(event: &SessionEvent) -> String {
    match event {
        SessionEvent::Failed(FailureKind::Diverged(divergence)) => report::render(divergence),
        other => format!("{other:?}"),
    }
}

/// A running session.
#[derive(Debug)]
pub struct Rehearsal {
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<SessionEvent>,
    /// The latest progress.
    pub counters: Counters,
    /// What went by, for messages; progress excepted.
    pub seen: Vec<SessionEvent>,
}

impl Rehearsal {
    /// Starts `program` (the harness's `rehearse`) on a process.
    pub fn start(program: &str, pid: i32, spill_dir: &Path) -> Result<Rehearsal> {
        Rehearsal::start_with(program, pid, spill_dir, ["one-by-one", "eager"])
    }

    /// Starts it with threads that run `one-by-one` or `free`, and that stop at `each-call` or are `eager` to go
    /// on without; `eager-follower` is that of the follower alone.
    pub fn start_with(program: &str, pid: i32, spill_dir: &Path, how: [&str; 2]) -> Result<Rehearsal> {
        let mut child = Command::new(program)
            .arg(pid.to_string())
            .arg(spill_dir)
            .args(how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let (send, events) = channel();
        let stdout = child.stdout.take().context("the session's output")?;
        std::thread::Builder::new().name("rehearsal".into()).spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(event) = serde_json::from_str(&line) else { break };
                if send.send(event).is_err() {
                    break;
                }
            }
        })?;
        let stdin = child.stdin.take();
        Ok(Rehearsal { child, stdin, events, counters: Counters::default(), seen: Vec::new() })
    }

    /// Sends a request.
    pub fn ask(&mut self, request: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the session was left")?;
        Ok(stdin.write_all(format!("{request}\n").as_bytes())?)
    }

    /// Returns the next event that is not progress.
    pub fn event(&mut self, what: &str, limit: Duration) -> Result<SessionEvent> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).map_err(|error| match error {
                RecvTimeoutError::Timeout => {
                    anyhow!("waited {limit:?} for {what}; so far {:?}, {:?}", self.seen, self.counters)
                }
                RecvTimeoutError::Disconnected => {
                    anyhow!("the session is gone while waiting for {what}; so far {:?}", self.seen)
                }
            })?;
            if let SessionEvent::Progress(counters) = event {
                self.counters = counters;
                continue;
            }
            self.seen.push(event.clone());
            return Ok(event);
        }
    }

    /// Waits for an event; a failure on the way is an error.
    pub fn wait(&mut self, what: &str, wanted: impl Fn(&SessionEvent) -> bool) -> Result<SessionEvent> {
        loop {
            let event = self.event(what, STEP_LIMIT)?;
            if wanted(&event) {
                return Ok(event);
            }
            if let SessionEvent::Failed(FailureKind::Asked(_)) = event {
                continue;
            }
            if let SessionEvent::Failed(_)
            | SessionEvent::PromotionAbandoned { .. }
            | SessionEvent::RolledBack { .. }
            | SessionEvent::TargetEnded { .. } = event
            {
                bail!("waiting for {what}: {}", describe(&event));
            }
        }
    }

    /// Waits until progress shows what is wanted; a failure on the way is an error.
    pub fn wait_counters(&mut self, what: &str, mut wanted: impl FnMut(&Counters) -> bool) -> Result<()> {
        let end = Instant::now() + STEP_LIMIT;
        while Instant::now() < end {
            match self.events.recv_timeout(Duration::from_secs(1)) {
                Ok(SessionEvent::Progress(counters)) => {
                    self.counters = counters;
                    if wanted(&counters) {
                        return Ok(());
                    }
                }
                Ok(event @ (SessionEvent::CaughtUp | SessionEvent::Applied)) => self.seen.push(event),
                Ok(event) => bail!("waiting for {what}: {}", describe(&event)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        bail!("waited in vain for {what}: {:?}, {:?}", self.counters, self.seen)
    }

    /// Kills the session as a crash of the daemon would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the end of the process after its last event.
    pub fn finish(mut self) -> Result<()> {
        self.stdin = None;
        let ended = crate::wait::try_wait_for(STEP_LIMIT, || self.child.try_wait().ok().flatten());
        let status = ended.context("the session does not end after its last event")?;
        anyhow::ensure!(status.success(), "the session ended with {status}");
        Ok(())
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
