//! `cargo xtask conformance wrong`: next versions that are wrong, and what becomes of them.
//!
//! Of Debian's Redis and HAProxy the newer version is damaged in one function that the load runs: one that differs from
//! the older version, or any other, which differs then, too. The running older version, under a load that checks every
//! answer, is told to go to the damaged one. Most are to be found by the comparison of the traffic before they lead; no
//! client may see anything until then, and the old version has to go on.
//!
//! Where a damaged version is promoted and nothing is noticed, it is run alone under the same load. If that shows a wrong
//! answer the comparison has missed something; if not, the damage is none that the load can see.

mod damage;
mod subjects;
mod trial;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mvedsua_binary::{Comparison, compare};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;
use tempfile::TempDir;

use self::damage::{Damage, Kind};
use self::subjects::{SUBJECTS, Subject};
use self::trial::{Became, Outcome};
use super::pairs::archive::{self, Archive, Offer};
use super::table::{self, Lean};
use crate::{build, setup};

/// Of so many damaged functions one is among those that differ between the versions anyway.
const CHANGED_ONE_IN: usize = 4;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many wrong versions
    #[arg(long, default_value_t = 42)]
    count: usize,
    /// What the choice of functions and places begins with: the same number gives the same damage
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these programs
    #[arg(long, num_args = 1.., value_name = "redis|haproxy", value_parser = ["redis", "haproxy"])]
    only: Vec<String>,
    /// How long the two versions must agree before the new one is promoted
    #[arg(long, default_value = "5s")]
    soak: String,
    /// Only the trial with this number, which the other arguments choose
    #[arg(long, value_name = "N")]
    trial: Option<usize>,
    /// Keep the files of this trial in this folder, with the daemon's log and report
    #[arg(long, value_name = "DIR", requires = "trial")]
    keep: Option<PathBuf>,
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// Which build of the daemon to try
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// One wrong version, and what became of it.
#[derive(Debug, Serialize)]
struct Row {
    number: usize,
    program: &'static str,
    function: String,
    kind: Kind,
    /// The address of the damage in the newer file.
    at: u64,
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

    fn is_as_it_should_be(&self) -> bool {
        self.became().is_some_and(|became| became != Became::Missed) && self.faults().next().is_none()
    }
}

#[derive(Serialize)]
struct Report<'a> {
    conformance: &'static str,
    seed: u64,
    rows: &'a [Row],
}

/// Does so with as many wrong versions, and everything else as it is by default.
pub(super) fn run_count(count: usize, profile: build::Profile) -> Result<()> {
    let soak = "5s".to_owned();
    run(&Args { count, seed: 1, only: vec![], soak, trial: None, keep: None, json: false, profile })
}

/// Makes wrong versions and tries them; fails where one is missed, or somebody was harmed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let meant = |subject: &&Subject| args.only.is_empty() || args.only.iter().any(|name| name == subject.name);
    let subjects: Vec<&Subject> = SUBJECTS.iter().filter(meant).collect();
    setup::run(&setup::Args::default())?;
    setup::install(
        subjects.iter().flat_map(|subject| subject.needs).copied(),
        "a server behind the one that is tried",
    )?;
    let binary = build::run(&build::Args { profile: args.profile })?;
    let archive = Archive::open(Offer::Packages)?;
    let mut rows = vec![];
    for (index, subject) in subjects.iter().enumerate() {
        // The first of them takes what is left over.
        let count = (args.count + subjects.len() - 1 - index) / subjects.len();
        try_all(args, subject, count, &archive, &binary, &mut rows)?;
    }
    rows.retain(|row| args.trial.is_none_or(|wanted| wanted == row.number));
    print!("\n{}", text(&rows, args.seed));
    if args.json {
        let report = Report { conformance: "wrong", seed: args.seed, rows: &rows };
        println!("{}", serde_json::to_string(&report).context("the report as JSON")?);
    }
    let failing: Vec<String> =
        rows.iter().filter(|row| !row.is_as_it_should_be()).map(|row| row.number.to_string()).collect();
    ensure!(failing.is_empty(), "not as they should be: {}", failing.join(", "));
    Ok(())
}

fn try_all(
    args: &Args,
    subject: &Subject,
    count: usize,
    archive: &Archive,
    binary: &Path,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let mut versions = archive.versions(subject.package)?;
    versions.truncate(2);
    let [newer, older] = versions.as_slice() else {
        println!("{}: the archive offers one version alone", subject.name);
        return Ok(());
    };
    let read = |version: &str| archive::read_file(&archive.package(subject.package, version)?, subject.file);
    let (old, new) = (read(older)?, read(newer)?);
    println!("{}: {older} to {newer}", subject.name);
    let comparison = compare(&old, &new).with_context(|| format!("comparing the versions of {}", subject.name))?;
    let first = rows.len();
    for (index, (function, damage, mut random)) in
        choose(subject, &comparison, count, args.seed).into_iter().enumerate()
    {
        let number = first + index + 1;
        let damaged = damage::apply(&new, &comparison.new, &damage, &mut random)?;
        let mut row = Row {
            number,
            program: subject.name,
            function,
            kind: damage.kind,
            at: damage.at,
            seconds: 0.0,
            outcome: None,
            error: None,
        };
        if args.trial.is_none_or(|wanted| wanted == number) {
            let begun = Instant::now();
            match try_one(args, subject, (&old, &damaged), binary) {
                Ok(outcome) => row.outcome = Some(outcome),
                Err(error) => row.error = Some(format!("{error:#}")),
            }
            row.seconds = begun.elapsed().as_secs_f64();
            let words = row.became().map_or("error", Became::words);
            println!("{number} {}, {}: {words}", row.function, row.kind);
            let why = row.outcome.as_ref().map(|outcome| &outcome.why);
            why.into_iter().chain(row.faults()).for_each(|why| print!("{}", table::wrap(why, 100, "    ")));
        }
        rows.push(row);
    }
    Ok(())
}

/// Chooses what is damaged: kinds in turn, each function once as long as there are others.
fn choose(subject: &Subject, comparison: &Comparison<'_>, count: usize, seed: u64) -> Vec<(String, Damage, StdRng)> {
    let mut random = StdRng::seed_from_u64(seed);
    let find =
        |name: &&str| Some(((*name).to_owned(), comparison.new.functions.iter().position(|f| f.name == Some(*name))?));
    let mut pools = [subject.changed, subject.functions].map(|names| {
        let mut found: Vec<(String, usize)> = names.iter().filter_map(find).collect();
        found.shuffle(&mut random);
        found
    });
    let mut chosen: Vec<(String, Damage, StdRng)> = vec![];
    for number in 0..count {
        let kind = Kind::ALL[number % Kind::ALL.len()];
        let first = usize::from(number % CHANGED_ONE_IN != 0);
        // Not every function has a place for each kind.
        for pool in [first, 1 - first] {
            let found = (0..pools[pool].len()).find_map(|at| {
                let damage = damage::choose(&comparison.new, pools[pool][at].1, kind, &mut random)?;
                chosen.iter().all(|(_, other, _)| *other != damage).then_some((at, damage))
            });
            if let Some((at, damage)) = found {
                // Its turn comes again after all the others.
                let function = pools[pool].remove(at);
                chosen.push((function.0.clone(), damage, StdRng::seed_from_u64(seed.wrapping_add(number as u64))));
                pools[pool].push(function);
                break;
            }
        }
    }
    chosen
}

fn try_one(args: &Args, subject: &Subject, (old, damaged): (&[u8], &[u8]), binary: &Path) -> Result<Outcome> {
    let dir = TempDir::new().context("making a folder for the files")?;
    let place = args.keep.as_deref().unwrap_or(dir.path());
    let write = |which: &str, bytes: &[u8]| -> Result<PathBuf> {
        let folder = place.join(which);
        fs::create_dir_all(&folder)?;
        let file = folder.join(subject.program);
        fs::write(&file, bytes)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        Ok(file)
    };
    let (old, damaged) = (write("old", old)?, write("damaged", damaged)?);
    trial::run(subject, (&old, &damaged), binary, &args.soak, args.keep.as_deref())
}

fn text(rows: &[Row], seed: u64) -> String {
    let heads = [
        ("", Lean::Right),
        ("program", Lean::Left),
        ("function", Lean::Left),
        ("at", Lean::Right),
        ("wrong", Lean::Left),
        ("became", Lean::Left),
        ("code", Lean::Right),
        ("compared", Lean::Right),
        ("s", Lean::Right),
    ];
    let cells = |row: &Row| {
        let of = |tell: fn(&Outcome) -> String| row.outcome.as_ref().map_or_else(String::new, tell);
        let became = if row.is_as_it_should_be() { "" } else { " !" };
        vec![
            row.number.to_string(),
            row.program.to_owned(),
            row.function.clone(),
            format!("{:x}", row.at),
            row.kind.to_string(),
            format!("{}{became}", row.became().map_or("error", Became::words)),
            of(|outcome| outcome.code.to_string()),
            of(|outcome| match (outcome.became, outcome.compared_calls) {
                // It crashed in the first half second, and nobody has counted.
                (Became::Refused, _) | (_, 0) => String::new(),
                (_, calls) => calls.to_string(),
            }),
            format!("{:.0}", row.seconds),
        ]
    };
    let mut text = table::render(&heads, &rows.iter().map(cells).collect::<Vec<_>>());
    for row in rows {
        for fault in row.faults() {
            text.push_str(&table::wrap(&format!("{}: {fault}", row.number), 100, "! "));
        }
    }
    text.push_str(&table::wrap(&summary(rows, seed), 100, ""));
    text
}

fn summary(rows: &[Row], seed: u64) -> String {
    let count = |became: Became| rows.iter().filter(|row| row.became() == Some(became)).count();
    let faults = rows.iter().filter(|row| row.faults().next().is_some()).count();
    format!(
        "{} wrong versions with seed {seed}: {} refused by the comparison of the files, {} found before the promotion, {} \
         after it, {} not visible, {} missed; {faults} with faults",
        rows.len(),
        count(Became::Refused),
        count(Became::FoundBefore),
        count(Became::FoundAfter),
        count(Became::NotVisible),
        count(Became::Missed),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(became: Became, faults: &[&str]) -> Row {
        let faults = faults.iter().map(|fault| (*fault).to_owned()).collect();
        Row {
            number: 1,
            program: "redis",
            function: "call".to_owned(),
            kind: Kind::Branch,
            at: 0x1000,
            seconds: 1.0,
            outcome: Some(Outcome { became, code: 10, compared_calls: 12, why: String::new(), faults }),
            error: None,
        }
    }

    #[test]
    fn what_was_missed_or_harmed_is_not_as_it_should_be() {
        for became in [Became::Refused, Became::FoundBefore, Became::FoundAfter, Became::NotVisible] {
            assert!(row(became, &[]).is_as_it_should_be());
            assert!(!row(became, &["a client was harmed"]).is_as_it_should_be());
        }
        assert!(!row(Became::Missed, &[]).is_as_it_should_be());
        let broken = Row { outcome: None, error: Some("no daemon".to_owned()), ..row(Became::Refused, &[]) };
        assert!(!broken.is_as_it_should_be());
    }

    #[test]
    fn the_table_tells_everything() {
        let shown = text(&[row(Became::FoundBefore, &[]), row(Became::Missed, &["a client: wrong"])], 3);
        assert!(shown.contains("found before") && shown.contains("MISSED !") && shown.contains("! 1: a client: wrong"));
        assert!(shown.contains("2 wrong versions with seed 3: 0 refused"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    }
}
