//! `cargo xtask conformance mutants`: next versions with one small mistake each, and what becomes of them.
//!
//! The key-value store's version 1 runs under a fixed load and is told to go to a mutant of version 2 (`edits.rs` lists the
//! mistakes; a package's rules say what the versions answer differently on purpose). Stock programs go to damaged ones by the
//! comparison of their files, which is what `conformance wrong` does too. A mutant that is promoted and confirmed, and in which nothing
//! was noticed, is run without us under the same load: if that finds a wrong answer the mutant was *missed*, if not, the load
//! does not reach the mistake, or it is none.
//!
//! With `--self` the store is updated to itself as often as that: each update that is not confirmed is a false alarm.

mod edits;
mod talk;
mod trial;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::daemon::Daemon;
use harness::kvstore::Store;
use harness::stand::code;
use serde::Serialize;

use self::edits::{EDITS, Sources};
use self::talk::{ENTRIES, Speech, Talk, Wrong};
use self::trial::{Became, Outcome};
use super::table::{self, Lean};
use super::{cycle, wrong};
use crate::{build, setup, sh};

/// What is said of version 2 itself, which is tried like a mutant.
const UNCHANGED: &str = "unchanged";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only mutants whose names contain this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How many damaged versions of stock programs are tried as well; 0 for none
    #[arg(long, value_name = "N", default_value_t = 40)]
    binary: usize,
    /// Update the store to itself so often, and try no mutants
    #[arg(long = "self", value_name = "N")]
    itself: Option<usize>,
    /// How many trials run beside each other
    #[arg(long, value_name = "N", default_value_t = 2)]
    parallel: usize,
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// Which build of the daemon to try
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// Where the store's sources are.
fn servers() -> PathBuf {
    sh::root().join("tests/servers/kvstore")
}

/// One mutant, and what became of it.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    seconds: f64,
    #[serde(flatten)]
    outcome: Option<Outcome>,
    /// Why the trial came to nothing.
    error: Option<String>,
}

impl Row {
    fn became(&self) -> Option<Became> {
        self.outcome.as_ref().map(|outcome| outcome.became)
    }

    fn faults(&self) -> impl Iterator<Item = &String> {
        self.outcome.iter().flat_map(|outcome| &outcome.faults).chain(&self.error)
    }

    /// Of what is right in version 2 nothing may be found; of what is wrong nothing may be missed.
    fn is_as_it_should_be(&self) -> bool {
        let became_right = match self.became() {
            None | Some(Became::Missed) => false,
            Some(Became::NotVisible) => true,
            Some(Became::FoundBefore | Became::Limited | Became::FoundAfter) => self.name != UNCHANGED,
        };
        became_right && self.faults().next().is_none()
    }
}

#[derive(Serialize)]
struct Report<'a> {
    conformance: &'static str,
    rows: &'a [Row],
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(&setup::Args::default())?;
    let binary = build::run(&build::Args { profile: args.profile })?;
    if let Some(count) = args.itself {
        return itself(count, args.parallel, &binary);
    }
    let rows = try_all(args, &binary)?;
    print!("\n{}", text(&rows));
    if args.json {
        let report = Report { conformance: "mutants", rows: &rows };
        println!("{}", serde_json::to_string(&report).context("the report as JSON")?);
    }
    let failing: Vec<&str> = rows.iter().filter(|row| !row.is_as_it_should_be()).map(|row| row.name.as_str()).collect();
    if args.binary > 0 && args.only.is_none() {
        wrong::run_count(args.binary, args.profile)?;
    }
    ensure!(failing.is_empty(), "not as they should be: {}", failing.join(", "));
    Ok(())
}

/// Tries the mutants that were asked for, and version 2 itself.
fn try_all(args: &Args, binary: &Path) -> Result<Vec<Row>> {
    let read = |name: &str| {
        let path = servers().join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let (version, server) = (read("v2.c")?, read("server.h")?);
    let mut all = vec![(UNCHANGED.to_owned(), Sources { version: version.clone(), server: server.clone() })];
    for edit in EDITS {
        all.push((edit.name.to_owned(), edits::apply(edit, &version, &server)?));
    }
    if let Some(only) = &args.only {
        all.retain(|(name, _)| name.contains(only.as_str()));
    }
    let order: Vec<String> = all.iter().map(|(name, _)| name.clone()).collect();
    let queue = Mutex::new(VecDeque::from(all));
    let rows = Mutex::new(vec![]);
    beside_each_other(args.parallel, binary, |daemon| {
        loop {
            let Some((name, sources)) = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else {
                return Ok(());
            };
            let begun = Instant::now();
            let (outcome, error) = match trial::run(daemon, &sources) {
                Ok(outcome) => (Some(outcome), None),
                Err(error) => (None, Some(format!("{error:#}"))),
            };
            let row = Row { name, seconds: begun.elapsed().as_secs_f64(), outcome, error };
            println!("{}: {}", row.name, row.became().map_or("error", Became::words));
            let why = row.outcome.as_ref().map(|outcome| &outcome.why);
            why.into_iter().chain(row.faults()).for_each(|why| print!("{}", table::wrap(why, 100, "    ")));
            rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
        }
    })?;
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|row| order.iter().position(|name| *name == row.name));
    Ok(rows)
}

/// Lets several do the same, each with a daemon of its own.
fn beside_each_other(count: usize, binary: &Path, work: impl Fn(&Daemon) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let one = || work(&Daemon::prepare(binary)?);
        let all: Vec<_> = (0..count.max(1)).map(|_| scope.spawn(one)).collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a trial panicked"))?)
    })
}

/// Updates the store to itself again and again.
fn itself(count: usize, parallel: usize, binary: &Path) -> Result<()> {
    let left = Mutex::new(count);
    let alarms = Mutex::new(vec![]);
    let begun = Instant::now();
    beside_each_other(parallel, binary, |daemon| {
        let store = Store::compile(&[])?;
        let server = store.start(ENTRIES)?;
        let pid = server.pid().to_string();
        let right = |answers: Result<(), Wrong>| answers.map_err(|Wrong(what)| anyhow::anyhow!("a client: {what}"));
        let mut talk = Talk::begin(server.address, Speech::Old).map_err(|Wrong(what)| anyhow::anyhow!(what))?;
        loop {
            {
                let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
                if *left == 0 {
                    return Ok(());
                }
                *left -= 1;
                if left.is_multiple_of(50) {
                    println!("{left} left after {:.0} s", begun.elapsed().as_secs_f64());
                }
            }
            let asked = ["update", &pid, "--to", "self", "--promote", "auto", "--confirm", "auto", "--soak", "100ms"];
            let more =
                ["--min-calls", "50", "--min-outputs", "20", "--retries", "0", "--max-slowdown", "off", "--wait"];
            let (updated, answers) = trial::meanwhile(daemon, &[&asked[..], &more[..]].concat(), &mut talk)?;
            right(answers)?;
            if updated.code != code::DONE {
                let what = format!("{}: {}", updated.code, cycle::words(&updated));
                println!("{what}");
                alarms.lock().unwrap_or_else(PoisonError::into_inner).push(what);
            }
        }
    })?;
    let alarms = alarms.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{count} updates of the store to itself in {:.0} s, {} of them not confirmed",
        begun.elapsed().as_secs_f64(),
        alarms.len()
    );
    ensure!(alarms.is_empty(), "false alarms: {}", alarms.join("; "));
    Ok(())
}

fn text(rows: &[Row]) -> String {
    let heads = [("mutant", Lean::Left), ("became", Lean::Left), ("code", Lean::Right), ("s", Lean::Right)];
    let cells = |row: &Row| {
        let mark = if row.is_as_it_should_be() { "" } else { " !" };
        vec![
            row.name.clone(),
            format!("{}{mark}", row.became().map_or("error", Became::words)),
            row.outcome.as_ref().map_or_else(String::new, |outcome| outcome.code.to_string()),
            format!("{:.0}", row.seconds),
        ]
    };
    let mut text = table::render(&heads, &rows.iter().map(cells).collect::<Vec<_>>());
    for row in rows {
        for fault in row.faults() {
            text.push_str(&table::wrap(&format!("{}: {fault}", row.name), 100, "! "));
        }
    }
    text.push_str(&table::wrap(&summary(rows), 100, ""));
    text
}

fn summary(rows: &[Row]) -> String {
    let mutants = || rows.iter().filter(|row| row.name != UNCHANGED);
    let count = |became: Became| mutants().filter(|row| row.became() == Some(became)).count();
    let faults = rows.iter().filter(|row| row.faults().next().is_some()).count();
    format!(
        "{} mutants: {} caught before the promotion, {} by the limits, {} after the promotion, {} equivalent or not reached by \
         the load, {} missed; {faults} with faults",
        mutants().count(),
        count(Became::FoundBefore),
        count(Became::Limited),
        count(Became::FoundAfter),
        count(Became::NotVisible),
        count(Became::Missed),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, became: Became, faults: &[&str]) -> Row {
        let faults = faults.iter().map(|fault| (*fault).to_owned()).collect();
        let outcome = Outcome { became, code: 10, why: String::new(), faults };
        Row { name: name.to_owned(), seconds: 1.0, outcome: Some(outcome), error: None }
    }

    #[test]
    fn nothing_wrong_is_missed_and_nothing_right_is_found() {
        for became in [Became::FoundBefore, Became::Limited, Became::FoundAfter] {
            assert!(row("hash", became, &[]).is_as_it_should_be());
            assert!(!row(UNCHANGED, became, &[]).is_as_it_should_be(), "a false alarm");
        }
        assert!(row("hash", Became::NotVisible, &[]).is_as_it_should_be());
        assert!(row(UNCHANGED, Became::NotVisible, &[]).is_as_it_should_be());
        assert!(!row("hash", Became::Missed, &[]).is_as_it_should_be());
        assert!(!row("hash", Became::FoundBefore, &["a client was harmed"]).is_as_it_should_be());
        let broken = Row { outcome: None, error: Some("no daemon".to_owned()), ..row("hash", Became::Missed, &[]) };
        assert!(!broken.is_as_it_should_be());
    }

    #[test]
    fn the_table_tells_everything() {
        let shown = text(&[row(UNCHANGED, Became::NotVisible, &[]), row("hash", Became::Missed, &["a client: wrong"])]);
        assert!(shown.contains("MISSED !") && shown.contains("! hash: a client: wrong"), "{shown}");
        assert!(shown.contains("1 mutants: 0 caught before"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    }
}
