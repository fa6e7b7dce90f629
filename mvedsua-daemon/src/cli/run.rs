//! `run`: several versions side by side from the start. It needs no daemon.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tracing_subscriber::EnvFilter;

use super::args::{Cli, OnFullLog, RunArgs};
use super::logging;
use super::{rules, words};
use crate::ptrace::launch::{Layout, Program};
use crate::ptrace::wait::Stop;
use crate::record::Ending;
use crate::report::Payloads;
use crate::rules::Counts;
use crate::side_by_side::{self, MOST_FOLLOWERS, OnDivergence, Plan, Quorum, Report, Version};
use crate::update::OnFull;

/// What `timeout(1)`, `env(1)` and the like exit with when they fail themselves.
pub(super) const FAILED: u8 = 125;
pub(super) const USAGE: u8 = 2;
/// What a shell exits with for a program that cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// That of an update that was rolled back because the versions differed.
pub(super) const PARTED: u8 = 10;
/// What a shell adds to the number of a signal.
const BY_SIGNAL: u8 = 128;

/// Why nothing was run.
pub(super) struct NotRun {
    pub(super) why: String,
    pub(super) code: u8,
    pub(super) remedy: &'static str,
}

/// What to do where a program could not be started.
pub(super) const FIND_IT: &str = "name a program that is in PATH, or its path; nothing was started";
pub(super) const IN_A_TRACE: &str =
    "`mvedsuad doctor` says what this machine lacks; nothing else may trace the program";

pub(super) fn run(cli: &Cli, args: &RunArgs) -> u8 {
    // Silent unless asked: what is on standard error is the program's.
    let _log = EnvFilter::try_from_env("MVEDSUA_LOG").ok().and_then(|filter| logging::to_standard_error(filter).ok());
    let done = plan(args).and_then(|plan| {
        let report = side_by_side::run(plan);
        report.map_err(|error| NotRun {
            why: format!("running side by side: {error}"),
            code: code_of(&error),
            remedy: IN_A_TRACE,
        })
    });
    match done {
        Ok(report) => tell(cli, args, &report),
        Err(NotRun { why, code, remedy }) => {
            complain(&format!("{why}\n  {remedy}"));
            code
        }
    }
}

/// Returns the exit code for what kept a program from being started. A child whose `execve` has failed ends with that of
/// a shell.
pub(super) fn code_of(error: &crate::ptrace::Error) -> u8 {
    let not_executed = Stop::Exited(NOT_EXECUTABLE.into()).to_string();
    match error {
        crate::ptrace::Error::Ended { status, .. } if *status == not_executed => NOT_EXECUTABLE,
        _ => FAILED,
    }
}

fn plan(args: &RunArgs) -> Result<Plan, NotRun> {
    let not_started =
        |error: crate::ptrace::launch::NotStarted| NotRun { code: error.code, why: error.to_string(), remedy: FIND_IT };
    let leader = Program::find(&args.command).map_err(not_started)?;
    let name = args.command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let copy = || Version { name: name.clone(), program: leader.clone(), rules: None };
    let mut followers: Vec<Version> = std::iter::repeat_with(copy).take(args.copies.min(MOST_FOLLOWERS + 1)).collect();
    for one in &args.follower {
        followers.push(version(one)?);
    }
    if followers.len() > MOST_FOLLOWERS {
        let why = format!("at most {MOST_FOLLOWERS} versions can follow");
        return Err(NotRun { why, code: USAGE, remedy: "leave out --self or a --follower" });
    }
    if let Some(path) = args.record.as_deref().filter(|path| path.exists()) {
        let why = format!("recording: the file {} is there already", path.display());
        return Err(NotRun { why, code: FAILED, remedy: "take another name for the recording; nothing was started" });
    }
    let on_full = match args.on_full {
        OnFullLog::Wait => OnFull::Block,
        OnFullLog::Drop => OnFull::Rollback,
    };
    let log = crate::log::Config { memory: args.log_memory, disk: args.log_disk, spill_dir: std::env::temp_dir() };
    let layout = if args.no_aslr { Layout::Fixed } else { Layout::Random };
    let on_divergence = args.on_divergence.unwrap_or(match args.lockstep {
        Some(Quorum::All) => OnDivergence::Stop,
        Some(Quorum::Majority) | None => OnDivergence::Drop,
    });
    Ok(Plan {
        leader,
        followers,
        layout,
        on_divergence,
        lockstep: args.lockstep,
        on_full,
        log,
        hang_timeout: args.hang_timeout,
        interleaving: args.threads,
        record: args.record.clone(),
    })
}

/// Reads `CMD ARGS[,rules=FILE]`.
fn version(text: &str) -> Result<Version, NotRun> {
    let usage = |why: String, remedy| NotRun { why, code: USAGE, remedy };
    let (command, file) = match text.rsplit_once(",rules=") {
        Some((command, file)) => (command, Some(file)),
        None => (text, None),
    };
    let Some(words) = words::split(command) else {
        return Err(usage(
            format!("a quote is not closed in {command}"),
            "close it; a backslash before a quote makes it a letter",
        ));
    };
    let program = Program::find(&words).map_err(|error| usage(format!("the follower {command}: {error}"), FIND_IT))?;
    let rules = match file {
        Some(file) => read_rules(Path::new(file)).map_err(|why| usage(why, "nothing was started"))?,
        None => None,
    };
    Ok(Version { name: command.to_owned(), program, rules })
}

/// Reads a rules file that has no errors.
pub(super) fn read_rules(file: &Path) -> Result<Option<Arc<Counts>>, String> {
    let source = rules::read_good(file).map_err(|problem| problem.to_string())?;
    Ok(crate::rules::check(&source).rules.map(|rules| Arc::new(Counts::new(Arc::new(rules)))))
}

fn tell(cli: &Cli, args: &RunArgs, report: &Report) -> u8 {
    let payloads = if args.payloads { Payloads::Shown } else { Payloads::Redacted };
    if let Some(path) = &args.report
        && let Err(error) = write(path, &report.to_json(payloads), payloads)
    {
        complain(&format!("writing the report {}: {error}\n  name a file that may be written", path.display()));
    }
    report.notes.iter().for_each(|note| complain(note));
    if let Some(why) = &report.not_recorded {
        complain(why);
    }
    if args.verbose || !report.all_followed() {
        let text = if cli.json { format!("{}\n", report.to_json(payloads)) } else { report.text() };
        // Where even that cannot be written there is nobody to tell.
        drop(std::io::stderr().write_all(text.as_bytes()));
    }
    match report.leader {
        _ if report.stopped => PARTED,
        Ending::Exited(code) => code as u8,
        Ending::Killed(signo) => BY_SIGNAL.wrapping_add(signo as u8),
    }
}

/// Writes a report. A new one that shows payloads, which may be secrets, is its owner's alone.
fn write(path: &Path, report: &Value, payloads: Payloads) -> std::io::Result<()> {
    let mode = match payloads {
        Payloads::Shown => 0o600,
        Payloads::Redacted => 0o666,
    };
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(format!("{report:#}\n").as_bytes())
}

pub(super) fn complain(why: &str) {
    drop(writeln!(std::io::stderr(), "mvedsuad: {why}"));
}
