//! `cargo xtask conformance redis-suite`: Redis's own tests, while each server that they start is updated to itself about every
//! second.
//!
//! The tests come from Debian's source package, of the version that is installed; the servers are Debian's. Each unit runs
//! natively first and then under updates; what passed before and does not now is a fault. Nothing of the suite is touched, and
//! nobody tells it of the updates. A version that follows is a child of its server, and tests that look for a child of a server
//! mean another: the script `pgrep` hides it.

mod differences;
mod results;
mod sources;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use harness::daemon::Daemon;
use harness::process::{self, Program};
use harness::wait::try_wait_for;
use serde::Serialize;

use self::results::Results;
use self::watch::{Watch, Watched};
use super::cycle::Updates;
use super::table::{self, Lean};
use crate::{build, setup, sh};

/// How long one unit may take.
const UNIT_LIMIT: Duration = Duration::from_secs(1800);
/// How often a unit is run under updates, if it is over before one was done.
const RUNS: u32 = 3;
/// The ports of the first runner, and how many each has. Those of the cluster's bus are 10,000 above them, and all are below
/// those that the kernel gives to clients.
const FIRST_PORT: usize = 11_000;
const PORTS: usize = 2000;
/// What the suite leaves out by itself unless it is asked: what takes gigabytes, or needs a server from elsewhere.
const TAGS: &str = "-large-memory -external:only";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Units of the suite, such as unit/type/list [default: all that can be run]
    #[arg(long, num_args = 1.., value_name = "UNIT")]
    units: Vec<String>,
    /// How long a server runs between two updates
    #[arg(long, default_value_t = 0.5, value_name = "SECONDS")]
    every: f64,
    /// How many units run at the same time, each in a runner of its own
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    runners: u8,
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// Which build of the daemon to try
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// What came of one unit.
#[derive(Debug, Default, Serialize)]
struct Row {
    unit: String,
    /// Tests that ran natively, those of them that passed, and those of these that passed under updates; where tests are drawn
    /// by lot, those that passed under updates.
    tests: usize,
    native: usize,
    updated: usize,
    updates: Watched,
    /// Attempts that were tried again, by what went wrong with them.
    retried: BTreeMap<String, u32>,
    /// Tests that passed natively only, and what the suite says of each.
    differences: BTreeMap<String, String>,
    /// Those of them that are expected, and why.
    expected: BTreeMap<String, &'static str>,
    seconds: f64,
}

#[derive(Serialize)]
struct Report<'a> {
    conformance: &'static str,
    rows: &'a [Row],
    left_out: Vec<(&'static str, &'static str)>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(&setup::Args::default())?;
    setup::install(["dpkg-dev", "tcl", "redis-server", "redis-tools"].into_iter(), "Redis's tests need it")?;
    let binary = build::run(&build::Args { profile: args.profile })?;
    let source = sources::fetch()?;
    let known = sources::units(&source)?;
    for unit in &args.units {
        ensure!(known.contains(unit), "the suite has no unit {unit}; it has {}", known.join(", "));
    }
    let wanted = |unit: &&String| match &*args.units {
        [] => differences::left_out(unit).is_none(),
        asked => asked.contains(unit),
    };
    let mut units: Vec<&String> = known.iter().filter(wanted).collect();
    let longest = |unit: &&String| differences::LONGEST.iter().position(|long| *long == unit.as_str());
    units.sort_by_key(|unit| longest(unit).unwrap_or(usize::MAX));
    let waiting: Mutex<VecDeque<&String>> = Mutex::new(units.iter().copied().collect());
    let mut rows = std::thread::scope(|scope| {
        let run = |number: usize| {
            let suite = sources::copy(&source, number)?;
            let runner = Runner { suite, port: FIRST_PORT + number * PORTS, binary: &binary, every: args.every };
            runner.work(&waiting)
        };
        let runners: Vec<_> =
            (0..usize::from(args.runners).min(units.len())).map(|number| scope.spawn(move || run(number))).collect();
        let mut rows = Vec::new();
        for runner in runners {
            rows.extend(runner.join().map_err(|_| anyhow!("a runner panicked"))??);
        }
        anyhow::Ok(rows)
    })?;
    rows.sort_by_key(|row| known.iter().position(|unit| *unit == row.unit));
    print(&rows, args.units.is_empty());
    if args.json {
        let left_out = if args.units.is_empty() { differences::LEFT_OUT.to_vec() } else { Vec::new() };
        let report = Report { conformance: "redis-suite", rows: &rows, left_out };
        println!("{}", serde_json::to_string(&report).context("the report as JSON")?);
    }
    let faults: usize = rows.iter().map(|row| row.differences.len() - row.expected.len()).sum();
    ensure!(faults == 0, "{faults} tests pass natively and not under updates");
    Ok(())
}

/// Runs units one after the other, in a copy of the suite and on ports of its own.
struct Runner<'a> {
    suite: PathBuf,
    port: usize,
    binary: &'a Path,
    every: f64,
}

impl Runner<'_> {
    fn work(&self, waiting: &Mutex<VecDeque<&String>>) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(unit) = next else { return Ok(rows) };
            let row = self.unit(unit).unwrap_or_else(|error| {
                let error = format!("{error:#}");
                // The table has room for its first line; what the daemon said stands in the others.
                eprintln!("{unit}: {error}");
                let first = error.lines().next().unwrap_or_default().to_owned();
                Row {
                    unit: unit.clone(),
                    differences: BTreeMap::from([("the whole unit".to_owned(), first)]),
                    ..Row::default()
                }
            });
            println!("{}", said(&row));
            rows.push(row);
        }
    }

    fn unit(&self, unit: &str) -> Result<Row> {
        let begun = Instant::now();
        let mut native = self.results(unit, |_| Ok(Watched::default()))?.0;
        ensure!(native.ended, "natively the suite ended early; it said last {:?}", native.last);
        let tests = native.passed.len() + native.failed.len();
        let mut updates = Watched::default();
        let mut history = Updates::default();
        let mut differences = BTreeMap::new();
        let mut drawn = None;
        for _ in 0..RUNS {
            let mut daemon = Daemon::prepare(self.binary)?;
            daemon.start_again()?;
            let every = Duration::from_secs_f64(self.every);
            let watch = |session| Watch { daemon: &daemon, session, every }.run();
            let (updated, watched) = self.results(unit, watch)?;
            let reports = sh::root().join("target/conformance/redis-suite").join(unit.replace('/', "-"));
            history.read_history(&daemon, Some(&reports))?;
            updates.add(watched);
            if differences::by_lot(unit).is_some() && updated.ended {
                drawn = Some(updated.passed.len());
                differences.extend(updated.failed);
            } else {
                for test in native.passed.difference(&updated.passed) {
                    let ended = || format!("it did not run; the suite ended with {:?}", updated.last);
                    differences.insert(test.clone(), updated.failed.get(test).cloned().unwrap_or_else(ended));
                }
            }
            if updates.updated > 0 {
                break;
            }
        }
        let passed = native.passed.len();
        native.passed.retain(|test| !differences.contains_key(test));
        let expected = |test: &String| Some((test.clone(), differences::expected(unit, test)?));
        Ok(Row {
            unit: unit.to_owned(),
            tests,
            native: passed,
            updated: drawn.unwrap_or(native.passed.len()),
            updates,
            retried: history.retried,
            expected: differences.keys().filter_map(expected).collect(),
            differences,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }

    /// Runs one unit; `meanwhile` gets the session that the suite's processes are in, and returns when there are none.
    fn results(&self, unit: &str, meanwhile: impl FnOnce(i32) -> Result<Watched>) -> Result<(Results, Watched)> {
        let dir = tempfile::tempdir()?;
        let log = dir.path().join("output");
        let (port, ports) = (self.port.to_string(), (PORTS - 100).to_string());
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("PATH={}:{path}", self.suite.join(sources::INSTEAD).display());
        let mut args = vec![
            &*path,
            "tclsh",
            "tests/test_helper.tcl",
            "--single",
            unit,
            "--clients",
            "1",
            "--durable",
            "--tags",
            TAGS,
        ];
        args.extend(["--baseport", &port, "--portcount", &ports]);
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let program = Program::start(&process::find_program("env")?, &args, &self.suite, &log)?;
        let watched = meanwhile(program.pid());
        let output = || fs::read_to_string(&log).unwrap_or_default();
        let watched = watched.with_context(|| format!("the suite said last {:?}", Results::parse(&output()).last))?;
        let ended = try_wait_for(UNIT_LIMIT, || {
            process::reap(program.pid());
            (!program.is_running()).then_some(())
        });
        ensure!(ended.is_some(), "the suite did not end within {UNIT_LIMIT:?}");
        Ok((Results::parse(&output()), watched))
    }
}

/// Returns what is said of a unit when it is done.
fn said(row: &Row) -> String {
    let mut text = format!("{}: {} of {}, {:.0} s", row.unit, row.updated, row.native, row.seconds);
    for (test, why) in &row.differences {
        let expected = if row.expected.contains_key(test) { " (expected)" } else { "" };
        text.push('\n');
        text.push_str(table::wrap(&format!("{test}: {why}{expected}"), 100, "  ").trim_end());
    }
    text
}

fn print(rows: &[Row], all: bool) {
    let heads = [
        ("unit", Lean::Left),
        ("tests", Lean::Right),
        ("native", Lean::Right),
        ("updated", Lean::Right),
        ("servers", Lean::Right),
        ("promoted", Lean::Right),
        ("went back", Lean::Right),
        ("ended", Lean::Right),
        ("idle", Lean::Right),
        ("undone", Lean::Right),
        ("retried", Lean::Right),
        ("s", Lean::Right),
    ];
    let cells = |row: &Row| {
        let updates = &row.updates;
        let undone: u32 = updates.undone.values().sum();
        let counts = [updates.servers, updates.updated, updates.went_back, updates.ended, updates.idle, undone];
        let mut cells = vec![row.unit.clone()];
        cells.extend([row.tests, row.native, row.updated].map(|count| count.to_string()));
        cells.extend(counts.map(|count| count.to_string()));
        cells.push(row.retried.values().sum::<u32>().to_string());
        cells.push(format!("{:.0}", row.seconds));
        cells
    };
    println!("\n{}", table::render(&heads, &rows.iter().map(cells).collect::<Vec<_>>()));
    let total = |count: fn(&Row) -> usize| rows.iter().map(count).sum::<usize>();
    println!(
        "{} tests passed natively, {} under updates; {} updates were promoted, {} went back as they were asked to.\n",
        total(|row| row.native),
        total(|row| row.updated),
        total(|row| row.updates.updated as usize),
        total(|row| row.updates.went_back as usize),
    );
    let say = |text: String| print!("{}", table::wrap(&text, 100, "  "));
    for row in rows {
        let unit = &row.unit;
        if row.updates.updated == 0 {
            say(format!("{unit}: saw no promotion in {RUNS} runs, so it shows little"));
        }
        if let Some(reason) = differences::by_lot(unit) {
            say(format!("{unit}: not the same tests each time: {reason}"));
        }
        for (cause, count) in &row.updates.undone {
            say(format!("{unit}: {count} × undone: {cause}"));
        }
        for (cause, count) in &row.retried {
            say(format!("{unit}: {count} × tried again or undone: {cause}"));
        }
        for (test, why) in &row.differences {
            match row.expected.get(test) {
                Some(reason) => say(format!("{unit}: {test}: not under updates: {reason}")),
                None => say(format!("{unit}: {test}: FAULT: {why}")),
            }
        }
    }
    if all {
        for (unit, reason) in differences::LEFT_OUT {
            say(format!("{unit}: left out: {reason}"));
        }
    }
}
