//! `cargo xtask conformance redis-suite`: Redis's own tests, while each server that they start is updated to itself every few
//! seconds.
//!
//! The tests come from Debian's source package, of the version that is installed; the servers are Debian's. Each unit runs
//! natively first and then under updates; what passed before and does not now is a fault. The tests know their servers by
//! process number, and an update changes it. So the suite's copy gets a few lines that look up the present number of a server
//! where the suite sends it a signal or asks whether it is alive ([`BOOKKEEPING`]); nothing else of it is touched.

mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::daemon::Daemon;
use harness::process::{self, Program};
use harness::wait::try_wait_for;
use serde::Serialize;

use self::watch::{Watch, Watched};
use super::table::{self, Lean};
use crate::{build, setup, sh};

/// Debian's archive of sources, for a private list of apt's.
const SOURCES: &str = "deb-src http://deb.debian.org/debian bookworm main\n\
                       deb-src http://deb.debian.org/debian-security bookworm-security main\n";
/// Programs that the suite expects in its `src`.
const PROGRAMS: [&str; 5] = ["redis-server", "redis-cli", "redis-benchmark", "redis-check-aof", "redis-check-rdb"];
/// Put into the suite's copy: `exec kill … PID` reaches the process that serves now.
const BOOKKEEPING: &str = r#"
rename exec exec_as_it_was
proc exec args {
    if {[lindex $args 0] eq "kill" && [info exists ::env(SERVING)]} {
        set present {}
        foreach arg $args {
            set file [file join $::env(SERVING) $arg]
            if {[string is integer -strict $arg] && [file isfile $file]} {
                set channel [open $file]
                set arg [string trim [read $channel]]
                close $channel
            }
            lappend present $arg
        }
        set args $present
    }
    uplevel 1 exec_as_it_was $args
}
"#;
/// How long one unit may take.
const UNIT_LIMIT: Duration = Duration::from_secs(900);
/// The units that are run when none is named: those that need no other processes than their servers.
const DEFAULT: [&str; 14] = [
    "unit/auth",
    "unit/protocol",
    "unit/keyspace",
    "unit/scan",
    "unit/type/string",
    "unit/type/incr",
    "unit/type/list",
    "unit/type/set",
    "unit/type/hash",
    "unit/expire",
    "unit/multi",
    "unit/pubsub",
    "unit/bitops",
    "unit/scripting",
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Units of the suite, such as unit/type/list; `all` for every one that it has
    #[arg(long, num_args = 1.., value_name = "UNIT")]
    units: Vec<String>,
    /// How long a server runs between two updates
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    every: f64,
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// Which build of the daemon to try
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// What came of one unit.
#[derive(Debug, Serialize)]
struct Row {
    unit: String,
    /// Tests that passed natively, and of those the ones that passed under updates.
    native: usize,
    updated: usize,
    updates: Watched,
    /// Tests that passed natively only, and what the suite says of each.
    differences: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Report<'a> {
    conformance: &'static str,
    rows: &'a [Row],
}

/// What the suite said of its tests.
#[derive(Debug, Default)]
struct Results {
    passed: BTreeSet<String>,
    /// The others, and why.
    failed: BTreeMap<String, String>,
    output: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(&setup::Args::default())?;
    setup::install(["dpkg-dev", "tcl", "redis-server", "redis-tools"].into_iter(), "Redis's tests need it")?;
    let binary = build::run(&build::Args { profile: args.profile })?;
    let suite = suite()?;
    let units = units(&suite, &args.units)?;
    let mut rows = Vec::new();
    for unit in units {
        println!("{unit} ...");
        let row = try_one(args, &suite, &binary, &unit).with_context(|| unit.clone())?;
        for (test, why) in &row.differences {
            print!("{}", table::wrap(&format!("{test}: {why}"), 100, "  "));
        }
        rows.push(row);
    }
    print(&rows);
    if args.json {
        let report = Report { conformance: "redis-suite", rows: &rows };
        println!("{}", serde_json::to_string(&report).context("the report as JSON")?);
    }
    let differences: usize = rows.iter().map(|row| row.differences.len()).sum();
    ensure!(differences == 0, "{differences} tests pass natively and not under updates");
    Ok(())
}

fn try_one(args: &Args, suite: &Path, binary: &Path, unit: &str) -> Result<Row> {
    let serving = tempfile::tempdir()?;
    let native = unit_results(suite, unit, serving.path(), |_| Ok(Watched::default()))?.0;
    let daemon = Daemon::prepare(binary)?;
    let every = Duration::from_secs_f64(args.every);
    let (updated, updates) = unit_results(suite, unit, serving.path(), |session| {
        Watch { daemon: &daemon, session, every, serving: serving.path() }.run()
    })?;
    let mut differences = BTreeMap::new();
    for test in native.passed.difference(&updated.passed) {
        let last = || updated.output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
        let why = updated
            .failed
            .get(test)
            .cloned()
            .unwrap_or_else(|| format!("it did not run; the suite ended with {:?}", last()));
        differences.insert(test.clone(), why);
    }
    let passed = native.passed.intersection(&updated.passed).count();
    Ok(Row { unit: unit.to_owned(), native: native.passed.len(), updated: passed, updates, differences })
}

/// Runs one unit; `meanwhile` gets the session that the suite's processes are in, and returns when there are none.
fn unit_results(
    suite: &Path,
    unit: &str,
    serving: &Path,
    meanwhile: impl FnOnce(i32) -> Result<Watched>,
) -> Result<(Results, Watched)> {
    let log = serving.join("output");
    let port = harness::server::free_port()?.clamp(10_000, 50_000);
    let script = format!("SERVING={} exec tclsh tests/test_helper.tcl \"$@\"", serving.display());
    let args = [
        "-c",
        &script,
        "sh",
        "--single",
        unit,
        "--clients",
        "1",
        "--durable",
        "--tags",
        "-slow -large-memory -external:only",
        "--baseport",
        &port.to_string(),
        "--portcount",
        "2000",
    ];
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let program = Program::start(&process::find_program("sh")?, &args, suite, &log)?;
    let watched = meanwhile(program.pid())?;
    let ended = try_wait_for(UNIT_LIMIT, || {
        process::reap(program.pid());
        (!program.is_running()).then_some(())
    });
    ensure!(ended.is_some(), "the suite did not end within {UNIT_LIMIT:?}");
    let output = fs::read_to_string(&log).unwrap_or_default();
    Ok((parse(&output), watched))
}

/// Reads what the suite prints, in the colours in which it does.
fn parse(output: &str) -> Results {
    let mut results = Results { output: output.to_owned(), ..Results::default() };
    for line in output.lines() {
        let mut plain = String::new();
        let mut escaped = false;
        for char in line.chars() {
            match char {
                '\u{1b}' => escaped = true,
                'm' if escaped => escaped = false,
                _ if escaped => {}
                _ => plain.push(char),
            }
        }
        if let Some(test) = plain.strip_prefix("[ok]: ") {
            // "name (12 ms)"
            let name = test.rsplit_once(" (").map_or(test, |(name, _)| name);
            results.passed.insert(name.to_owned());
        } else if let Some(test) = plain.strip_prefix("[err]: ") {
            let (name, why) = test.split_once(" in tests/").unwrap_or((test, ""));
            results.failed.insert(name.to_owned(), format!("failed in tests/{why}"));
        }
    }
    results
}

/// Returns the folder of the suite, with its few more lines; fetched once for each version.
fn suite() -> Result<PathBuf> {
    let shown = ["--show", "--showformat=${Version}", "redis-server"];
    let version = sh::output(Command::new("dpkg-query").args(shown))?;
    let dir = sh::root().join("target/conformance").join(format!("redis-{}", version.trim().replace([':', '~'], "-")));
    let suite = dir.join("suite");
    if suite.join("ready").is_file() {
        return Ok(suite);
    }
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(dir.join("lists/partial"))?;
    fs::write(dir.join("sources.list"), SOURCES)?;
    let apt = |args: &[&str]| {
        let option = |name: &str, path: &str| format!("{name}={}", dir.join(path).display());
        let lists = option("Dir::State::lists", "lists");
        let sources = option("Dir::Etc::sourcelist", "sources.list");
        let mut command = Command::new("apt-get");
        command.current_dir(&dir).args(["-q", "-o", &lists, "-o", &sources, "-o", "Dir::Etc::sourceparts=-"]);
        sh::run(command.args(args))
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", &format!("redis={}", version.trim())])?;
    let described = fs::read_dir(&dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    let described = described.into_iter().find(|path| path.extension().is_some_and(|end| end == "dsc"));
    let described = described.context("apt-get source brought no description of a package")?;
    sh::run(Command::new("dpkg-source").args(["--no-check", "-x"]).arg(described).arg(&suite))?;
    for program in PROGRAMS {
        symlink(process::find_program(program)?, suite.join("src").join(program))?;
    }
    let helper = suite.join("tests/test_helper.tcl");
    let text = fs::read_to_string(&helper)?;
    let first = "source tests/support/redis.tcl";
    ensure!(text.contains(first), "{} has a form that is not known", helper.display());
    fs::write(&helper, text.replacen(first, &format!("{BOOKKEEPING}\n{first}"), 1))?;
    fs::write(suite.join("ready"), "")?;
    Ok(suite)
}

/// Returns the units that are asked for.
fn units(suite: &Path, asked: &[String]) -> Result<Vec<String>> {
    if asked.is_empty() {
        return Ok(DEFAULT.map(str::to_owned).into());
    }
    let helper = fs::read_to_string(suite.join("tests/test_helper.tcl"))?;
    let list = helper.split_once("set ::all_tests {").and_then(|(_, rest)| rest.split_once('}'));
    let known: Vec<String> =
        list.context("the suite has no list of units")?.0.split_whitespace().map(str::to_owned).collect();
    if asked == ["all"] {
        return Ok(known);
    }
    for unit in asked {
        ensure!(known.contains(unit), "the suite has no unit {unit}; it has {}", known.join(", "));
    }
    Ok(asked.to_vec())
}

fn print(rows: &[Row]) {
    let heads = [
        ("unit", Lean::Left),
        ("tests", Lean::Right),
        ("passed", Lean::Right),
        ("servers", Lean::Right),
        ("updated", Lean::Right),
        ("ended meanwhile", Lean::Right),
        ("idle", Lean::Right),
        ("undone", Lean::Right),
    ];
    let cells = |row: &Row| {
        vec![
            row.unit.clone(),
            row.native.to_string(),
            row.updated.to_string(),
            row.updates.servers.to_string(),
            row.updates.updated.to_string(),
            row.updates.ended.to_string(),
            row.updates.idle.to_string(),
            row.updates.undone.values().sum::<u32>().to_string(),
        ]
    };
    println!("\n{}", table::render(&heads, &rows.iter().map(cells).collect::<Vec<_>>()));
    for row in rows {
        for (cause, count) in &row.updates.undone {
            print!("{}", table::wrap(&format!("{}: {count} × {cause}", row.unit), 100, "  "));
        }
        for (test, why) in &row.differences {
            print!("{}", table::wrap(&format!("{}: {test}: {why}", row.unit), 100, "  "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_suite_prints_is_read() {
        let text = "[ready]: 10\n[\u{1b}[0;32mok\u{1b}[0m]: SET and GET (x) (3 ms)\n\
                    [\u{1b}[0;31merr\u{1b}[0m]: APPEND in tests/unit/a.tcl\nExpected 1\n";
        let results = parse(text);
        assert_eq!(results.passed.into_iter().collect::<Vec<_>>(), ["SET and GET (x)"]);
        assert_eq!(results.failed["APPEND"], "failed in tests/unit/a.tcl");
    }
}
