//! One mutant: the running version 1 is told to go to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::daemon::{Daemon, Output};
use harness::kvstore::Store;
use harness::stand::{SINGLE, code};
use harness::wait::try_wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use super::super::cycle;
use super::edits::Sources;
use super::servers;
use super::talk::{ENTRIES, Pieces, Speech, Talk, Wrong};

/// How long the command may take that waits for the validation.
const UPDATE_LIMIT: Duration = Duration::from_secs(90);
/// How long any other step may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Passes of the load after the promotion, after the confirmation, and against a mutant without us.
const PASSES: u32 = 3;
const POLICY: &str = "memory-limit = \"48M\"\nlatency-budget = \"800%\"\nhang-timeout = \"1s\"\nsoak = \"1s\"\n\
                      min-calls = 1500\nmin-outputs = 700\nmax-slowdown = \"off\"\ntimeout = \"60s\"\n";

/// What became of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Became {
    /// It was found, and never led.
    FoundBefore,
    /// It took more than its limits allow, and never led.
    Limited,
    /// It led for a moment; the old version leads again.
    FoundAfter,
    /// It was promoted, and the same load finds nothing wrong in it when nobody else is there.
    NotVisible,
    /// It was promoted, and the same load finds something wrong.
    Missed,
}

impl Became {
    pub(super) fn words(self) -> &'static str {
        match self {
            Became::FoundBefore => "caught before",
            Became::Limited => "by limits",
            Became::FoundAfter => "caught after",
            Became::NotVisible => "not visible",
            Became::Missed => "MISSED",
        }
    }
}

/// What came of one trial.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) became: Became,
    pub(super) code: i32,
    /// What was found or seen, in words.
    pub(super) why: String,
    /// A client that was harmed before the promotion, or an old version that did not go on.
    pub(super) faults: Vec<String>,
}

/// Compiles a mutant and makes a package of it.
fn package(store: &Store, sources: &Sources) -> Result<PathBuf> {
    let folder = store.path().join("mutant-source");
    fs::create_dir(&folder)?;
    fs::write(folder.join("v2.c"), &sources.version)?;
    fs::write(folder.join("server.h"), &sources.server)?;
    // What the edit does not change comes from where it always is. A slip may leave something unused.
    let include = format!("-I{}", servers().display());
    let source = folder.join("v2.c").display().to_string();
    store.typed_package_of(&source, "mutant", &[&include, "-w"], POLICY)
}

/// Lets version 1 run, and be updated to the mutant.
pub(super) fn run(daemon: &Daemon, sources: &Sources) -> Result<Outcome> {
    let store = Store::compile(&[])?;
    let package = package(&store, sources)?;
    let server = store.start(ENTRIES)?;
    let mut talk = Talk::begin(server.address, Speech::Old).map_err(told)?;
    talk.pass().map_err(told)?;
    let pid = server.pid().to_string();
    let to = package.display().to_string();
    let asked = ["update", &pid, "--to", &to, "--promote", "manual", "--retries", "2", "--wait"];
    let (validated, answers) = meanwhile(daemon, &asked, &mut talk)?;
    let mut outcome =
        Outcome { became: Became::FoundBefore, code: validated.code, why: cycle::words(&validated), faults: vec![] };
    outcome.faults.extend(answers.err().map(|Wrong(what)| format!("a client of the old version: {what}")));
    if validated.code == code::DONE && outcome.faults.is_empty() {
        after_validation(daemon, server.pid(), &mut talk, &mut outcome)?;
    }
    if outcome.why.contains("its limit is") || outcome.why.contains("its budget is") {
        outcome.became = Became::Limited;
    }
    if matches!(outcome.became, Became::FoundBefore | Became::Limited) && outcome.faults.is_empty() {
        // The old version goes on as if nothing had been.
        talk.speak(Speech::Old);
        outcome.faults.extend(passes(&mut talk).err().map(|Wrong(what)| format!("the old version afterwards: {what}")));
    }
    drop(server);
    if outcome.became == Became::NotVisible
        && let Some(what) = without_us(&store, &package)?
    {
        outcome.became = Became::Missed;
        outcome.why = format!("without us: {what}");
    }
    Ok(outcome)
}

fn told(Wrong(what): Wrong) -> anyhow::Error {
    anyhow::anyhow!(what)
}

/// Runs a command while the load goes on.
pub(super) fn meanwhile(daemon: &Daemon, args: &[&str], talk: &mut Talk) -> Result<(Output, Result<(), Wrong>)> {
    std::thread::scope(|scope| {
        let command = scope.spawn(|| daemon.run_for(args, UPDATE_LIMIT));
        let mut answers = Ok(());
        while !command.is_finished() && answers.is_ok() {
            answers = talk.pass();
        }
        let output = command.join().map_err(|_| anyhow::anyhow!("waiting for the update panicked"))??;
        Ok((output, answers))
    })
}

/// The load after the promotion; alone, the same.
fn reach_all(talk: &mut Talk) -> Result<(), Wrong> {
    talk.fill()?;
    passes(talk)
}

fn passes(talk: &mut Talk) -> Result<(), Wrong> {
    (0..PASSES).try_for_each(|_| talk.pass())
}

/// Promotes, and looks at it while the old version follows and when it has ended.
fn after_validation(daemon: &Daemon, pid: i32, talk: &mut Talk, outcome: &mut Outcome) -> Result<()> {
    let text = pid.to_string();
    let promoted = daemon.run_for(&["promote", &text], UPDATE_LIMIT)?;
    (outcome.code, outcome.why) = (promoted.code, cycle::words(&promoted));
    if promoted.code != code::DONE {
        // It was found meanwhile, or is given up.
        (outcome.code, outcome.why) = undone(daemon, pid, LIMIT)?.context("neither promoted nor undone")?;
        return Ok(());
    }
    talk.speak(Speech::New);
    talk.pieces = Pieces::Some;
    let answers = reach_all(talk);
    talk.pieces = Pieces::Whole;
    // Where a client was harmed there is a moment left in which the old version may object.
    let limit = if answers.is_ok() { Duration::ZERO } else { LIMIT };
    match (undone(daemon, pid, limit)?, answers) {
        (Some((code, why)), _) => {
            (outcome.code, outcome.why, outcome.became) = (code, why, Became::FoundAfter);
            return Ok(());
        }
        (None, Err(Wrong(what))) => {
            (outcome.became, outcome.why) = (Became::Missed, format!("while the old version followed: {what}"));
            return Ok(());
        }
        (None, Ok(())) => {}
    }
    let confirmed = daemon.run_for(&["confirm", &text], LIMIT)?;
    (outcome.code, outcome.why) = (confirmed.code, cycle::words(&confirmed));
    if confirmed.code != code::DONE {
        outcome.became = Became::FoundAfter;
        return Ok(());
    }
    outcome.became = Became::NotVisible;
    if let Err(Wrong(what)) = passes(talk) {
        (outcome.became, outcome.why) = (Became::Missed, format!("after the old version had ended: {what}"));
    }
    Ok(())
}

/// Says how an update was undone, if it is within a limit.
fn undone(daemon: &Daemon, pid: i32, limit: Duration) -> Result<Option<(i32, String)>> {
    let settled = try_wait_for(limit, || {
        let status = daemon.status(pid).ok().flatten()?;
        status.result.filter(|_| status.stage == SINGLE)
    });
    settled.map(|(code, text)| Ok((i32::try_from(code)?, text))).transpose()
}

/// Lets a process go to the mutant by itself; says what the same load finds wrong.
fn without_us(store: &Store, package: &Path) -> Result<Option<String>> {
    let object = package.join("mutant.so");
    ensure!(fs::metadata(&object)?.permissions().mode() & 0o444 != 0, "{} cannot be read", object.display());
    let server = store.start_for(ENTRIES, &object)?;
    let mut talk = Talk::begin(server.address, Speech::Old).map_err(told)?;
    talk.pass().map_err(told)?;
    kill(Pid::from_raw(server.pid()), Signal::SIGUSR2)?;
    let knows_types = || {
        let said = harness::load::lines::ask(server.address, "type key0", LIMIT).ok()?;
        (said != "ERROR").then_some(())
    };
    if try_wait_for(LIMIT, knows_types).is_none() {
        bail!("the process did not go to the mutant by itself: {}", server.output());
    }
    talk.speak(Speech::New);
    talk.pieces = Pieces::Some;
    let answers = reach_all(&mut talk).and_then(|()| passes(&mut talk));
    Ok(answers.err().map(|Wrong(what)| what))
}
