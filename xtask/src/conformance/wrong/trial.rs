//! One wrong version: the running old one is told to go to it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::daemon::{Daemon, Status};
use harness::load::{Clients, Summary};
use harness::stand::{SINGLE, UPDATED, code};
use harness::wait::try_wait_for;
use serde::Serialize;

use super::super::{cycle, servers};
use super::subjects::{Running, Subject};

/// How long an update may take up to the promotion.
const TIMEOUT: &str = "60s";
/// How long the command may take that waits for it.
const UPDATE_LIMIT: Duration = Duration::from_secs(150);
/// How long any other step may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Nobody waits longer for a reply while there are two versions.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nobody waits longer for a reply of a damaged version that runs alone.
const PATIENCE_ALONE: Duration = Duration::from_secs(4);
/// Requests of each load before the update.
const BEFORE: u64 = 100;
/// Requests of each load after it: each client comes back to what it has stored.
const AFTER: u64 = 500;
/// Requests of each load of a damaged version that runs alone.
const ALONE: u64 = 1500;

/// What became of a wrong version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Became {
    /// The comparison of the files refuses it.
    Refused,
    /// It was found, and never led.
    FoundBefore,
    /// It led for a moment; the old version leads again.
    FoundAfter,
    /// It was promoted, and under the same load it gives no wrong answer, alone neither.
    NotVisible,
    /// It was promoted, and under the same load it gives wrong answers.
    Missed,
}

impl Became {
    pub(super) fn words(self) -> &'static str {
        match self {
            Became::Refused => "refused",
            Became::FoundBefore => "found before",
            Became::FoundAfter => "found after",
            Became::NotVisible => "not visible",
            Became::Missed => "MISSED",
        }
    }
}

/// What came of one trial.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) became: Became,
    /// How the command ended that waited for the update.
    pub(super) code: i32,
    /// Calls that were compared until it was found, or had led for a while.
    pub(super) compared_calls: u64,
    /// In words, what was found or seen.
    pub(super) why: String,
    /// What must never be: a client that was harmed before the promotion, or an old version that did not go on.
    pub(super) faults: Vec<String>,
}

/// Lets the old version run, and be updated to the damaged one.
pub(super) fn run(
    subject: &Subject,
    (old, damaged): (&Path, &Path),
    binary: &Path,
    soak: &str,
    logs: Option<&Path>,
) -> Result<Outcome> {
    // Dropped last: the daemon ends before the server does.
    let running = (subject.start)(old).context("starting the old version")?;
    let daemon = Daemon::prepare(binary)?;
    let pid = running.server.pid();
    let attached = daemon.run(&["attach", &pid.to_string()])?;
    ensure!(attached.code == 0, "attach: {}", cycle::words(&attached));
    let clients = (subject.clients)(&running, PATIENCE);
    answered(&clients, BEFORE, LIMIT)?;
    ensure!(failed(&clients) == 0, "a client of the old version was answered wrongly");
    let outcome = update(&daemon, &running, &clients, (damaged, soak));
    let summaries: Vec<Summary> = clients.into_iter().map(Clients::stop).collect();
    if let Some(folder) = logs {
        let report = daemon.run(&["report", &pid.to_string()])?;
        for (name, text) in [("daemon.log", daemon.output()), ("report.txt", report.stdout)] {
            fs::write(folder.join(name), text).with_context(|| format!("writing {name}"))?;
        }
    }
    let mut outcome = outcome.with_context(|| format!("the daemon said: {}", last_of(&daemon.output())))?;
    let said = summaries.iter().flat_map(|summary| &summary.failures).take(2);
    let harmed: Vec<String> = said.map(|failure| format!("a client: {failure}")).collect();
    drop(daemon);
    drop(running);
    match outcome.became {
        Became::Refused | Became::FoundBefore => outcome.faults.extend(harmed),
        Became::FoundAfter => {}
        Became::Missed => outcome.why = [outcome.why].into_iter().chain(harmed).collect::<Vec<_>>().join("; "),
        Became::NotVisible => match alone(subject, damaged)? {
            Alone::Right => {}
            // What runs at the start only is not run by an update.
            Alone::DoesNotStart(why) => outcome.why = format!("alone it does not start: {why}"),
            Alone::Wrong(why) => {
                outcome.became = Became::Missed;
                outcome.why = format!("alone: {why}");
            }
        },
    }
    Ok(outcome)
}

fn update(
    daemon: &Daemon,
    running: &Running,
    clients: &[Box<dyn Clients>],
    (damaged, soak): (&Path, &str),
) -> Result<Outcome> {
    let pid = running.server.pid();
    let (text, to) = (pid.to_string(), damaged.display().to_string());
    let asked = ["update", &text, "--to", &to, "--accept", "inferred", "--retries", "0", "--promote", "auto"];
    let more = ["--confirm", "manual", "--soak", soak, "--timeout", TIMEOUT, "--wait"];
    let output = daemon.run_for(&[&asked[..], &more[..]].concat(), UPDATE_LIMIT)?;
    let mut outcome = Outcome {
        became: Became::Refused,
        code: output.code,
        compared_calls: 0,
        why: cycle::words(&output),
        faults: vec![],
    };
    if output.code != code::REFUSED {
        watch(daemon, pid, clients, &mut outcome)?;
    }
    if matches!(outcome.became, Became::Refused | Became::FoundBefore) {
        // The old version goes on as if nothing had been.
        answered(clients, AFTER, LIMIT)?;
        servers::alone(&running.server)?;
    }
    Ok(outcome)
}

/// Finds out what became of an update that was not refused; of one that was promoted, after a while.
fn watch(daemon: &Daemon, pid: i32, clients: &[Box<dyn Clients>], outcome: &mut Outcome) -> Result<()> {
    let status = || -> Result<Status> { daemon.status(pid)?.context("the daemon knows nothing of the update") };
    if outcome.code == code::DONE {
        // It leads, and the old version follows.
        answered(clients, AFTER, LIMIT)?;
    }
    let ended = |status: &Status| status.stage == SINGLE && status.result.is_some();
    let settled = try_wait_for(LIMIT, || status().ok().filter(|now| ended(now) || now.stage == UPDATED));
    let now = settled.with_context(|| format!("process {pid} does not come to rest: {:?}", status()))?;
    outcome.compared_calls = now.compared_calls;
    if now.stage == UPDATED && failed(clients) == 0 {
        let confirmed = daemon.run_for(&["confirm", &pid.to_string()], LIMIT)?;
        outcome.why = cycle::words(&confirmed);
        answered(clients, AFTER, LIMIT)?;
        if confirmed.code == code::DONE {
            let harmed = failed(clients) > 0;
            outcome.became = if harmed { Became::Missed } else { Became::NotVisible };
            return Ok(());
        }
    }
    // Where clients were harmed there is a moment left in which the old version may object.
    let settled = try_wait_for(LIMIT, || status().ok().filter(ended));
    let Some(now) = settled else {
        outcome.became = Became::Missed;
        return Ok(());
    };
    // What the daemon has counted is half a second old; the call that differed has a number.
    outcome.compared_calls = found_at(daemon)?.unwrap_or(0).max(now.compared_calls);
    let (result, text) = now.result.unwrap_or_default();
    outcome.why = text;
    outcome.became = match (i32::try_from(result)?, now.promotion_pause_us) {
        // There was no way back.
        (code::DONE | code::KEPT, _) if failed(clients) > 0 => Became::Missed,
        (code::DONE | code::KEPT, _) => Became::NotVisible,
        (_, Some(_)) => Became::FoundAfter,
        (_, None) => Became::FoundBefore,
    };
    let found = [code::DONE, code::DIVERGED, code::CRASHED, code::INCONCLUSIVE, code::TIMED_OUT, code::KEPT];
    if !found.contains(&i32::try_from(result)?) {
        outcome.faults.push(format!("the update ended with {result}"));
    }
    Ok(())
}

/// Returns the number of the call at which the versions parted.
fn found_at(daemon: &Daemon) -> Result<Option<u64>> {
    let output = daemon.run(&["history", "--limit", "1", "--json"])?;
    let history = output.json().with_context(|| cycle::words(&output))?;
    Ok(history[0]["divergences"][0]["divergence"]["seq"].as_u64())
}

/// What a damaged version does when it is started.
enum Alone {
    Right,
    Wrong(String),
    DoesNotStart(String),
}

fn alone(subject: &Subject, damaged: &Path) -> Result<Alone> {
    let running = match (subject.start)(damaged) {
        Ok(running) => running,
        Err(error) => return Ok(Alone::DoesNotStart(format!("{error:#}").lines().next().unwrap_or("").to_owned())),
    };
    let clients = (subject.clients)(&running, PATIENCE_ALONE);
    let came = answered(&clients, ALONE, LIMIT);
    let summaries: Vec<Summary> = clients.into_iter().map(Clients::stop).collect();
    let failure = summaries.iter().flat_map(|summary| &summary.failures).next().cloned();
    Ok(match (failure, came) {
        (Some(failure), _) => Alone::Wrong(failure),
        (None, Err(error)) => Alone::Wrong(error.to_string()),
        (None, Ok(())) => Alone::Right,
    })
}

fn failed(clients: &[Box<dyn Clients>]) -> u64 {
    clients.iter().map(|load| load.failed()).sum()
}

/// Waits until every load was answered so often, or a client was answered wrongly.
fn answered(clients: &[Box<dyn Clients>], count: u64, limit: Duration) -> Result<()> {
    let goals: Vec<u64> = clients.iter().map(|load| load.requests() + count).collect();
    let all = || clients.iter().zip(&goals).all(|(load, goal)| load.requests() >= *goal);
    let reached = try_wait_for(limit, || (all() || failed(clients) > 0).then_some(()));
    reached.with_context(|| format!("{count} requests were not answered within {limit:?}"))
}

fn last_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" ")
}
