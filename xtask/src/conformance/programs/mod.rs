//! `cargo xtask conformance programs`: command lines of ordinary programs, each with a follower beside it from the start.
//!
//! Each line of `tests/programs/*.list` is run by a shell in a folder filled by `fixture.sh`: first by itself, then under
//! `mvedsuad run --self 1` in the same folder, filled anew. Output, exit code and the files that are there afterwards must be
//! the same, and the follower must have lived through everything. A line that differs is run by itself once more: what is
//! not the same twice by itself is not held against anybody, but is counted and shown.

mod lists;
mod site;
mod trial;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use self::lists::Line;
use self::trial::{Followed, Stand};
use super::table::{self, Lean};
use crate::{build, setup};

/// What the lines run that no other command needs.
const PACKAGES: &[&str] = &[
    "bc",
    "bsdextrautils",
    "bzip2",
    "cpio",
    "curl",
    "dc",
    "file",
    "git",
    "jq",
    "lua5.4",
    "make",
    "ncal",
    "nodejs",
    "patch",
    "perl",
    "rsync",
    "ruby",
    "sqlite3",
    "unzip",
    "wget",
    "xxd",
    "xz-utils",
    "zip",
    "zstd",
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these lists (`coreutils`, `shell`, ...)
    #[arg(long, num_args = 1.., value_name = "LIST")]
    only: Vec<String>,
    /// Only lines that contain this text
    #[arg(long, value_name = "TEXT")]
    matching: Option<String>,
    /// How many followers each program has
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=6))]
    followers: u32,
    /// Seconds that a line may take
    #[arg(long, default_value_t = 60)]
    limit: u64,
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// Which build of the daemon to try
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// What came of one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "cause")]
enum Verdict {
    Same,
    /// It is not the same twice by itself either; what can be compared was.
    Varies,
    /// As the list says it would be, and why.
    Known(String),
    Failed(String),
}

#[derive(Debug, Serialize)]
struct Row {
    list: &'static str,
    command: String,
    #[serde(flatten)]
    verdict: Verdict,
    /// Calls that were compared.
    compared: u64,
}

/// Runs the lines; fails when one of them fails that is not known to.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(&setup::Args::default())?;
    setup::install(PACKAGES.iter().copied(), "one of the programs that are tried")?;
    let mvedsuad = build::run(&build::Args { profile: args.profile })?;
    let wanted = |line: &Line| {
        (args.only.is_empty() || args.only.iter().any(|name| name == line.list))
            && args.matching.as_ref().is_none_or(|text| line.command.contains(text))
    };
    let lines: Vec<Line> = lists::all()?.into_iter().filter(wanted).collect();
    ensure!(!lines.is_empty(), "no line of the lists is meant by these arguments");
    let site = site::Site::start()?;
    let stand = Stand::new(mvedsuad, args.followers, Duration::from_secs(args.limit), site.address())?;
    let begun = Instant::now();
    let mut rows = Vec::with_capacity(lines.len());
    for line in lines {
        let (verdict, compared) = judge(&stand, &line)?;
        match &verdict {
            Verdict::Failed(cause) => println!("programs: {}: `{}`: {cause}", line.list, line.command),
            Verdict::Known(_) | Verdict::Same | Verdict::Varies => {}
        }
        rows.push(Row { list: line.list, command: line.command, verdict, compared });
    }
    print!("{}", text(&rows));
    println!("{} lines in {:.0} s, {} follower(s) each", rows.len(), begun.elapsed().as_secs_f64(), args.followers);
    if args.json {
        println!("{}", serde_json::to_string(&rows)?);
    }
    let failed = rows.iter().filter(|row| matches!(row.verdict, Verdict::Failed(_))).count();
    if failed > 0 {
        bail!("{failed} of {} lines are not as they are by themselves", rows.len());
    }
    Ok(())
}

fn judge(stand: &Stand, line: &Line) -> Result<(Verdict, u64)> {
    let alone = stand.alone(&line.command)?;
    let (ran, followed) = stand.followed(&line.command)?;
    let compared = followed.as_ref().map_or(0, |followed| followed.compared);
    let difference = followed.map_or_else(Some, |followed: Followed| followed.fault).or_else(|| alone.difference(&ran));
    let verdict = match (difference, &line.known) {
        (None, None) => Verdict::Same,
        (None, Some(known)) if known.at_times => Verdict::Same,
        (None, Some(known)) => Verdict::Failed(format!("it is listed as failing, and does not: {}", known.reason)),
        (Some(_), Some(known)) => Verdict::Known(known.reason.clone()),
        (Some(cause), None) => match cause {
            trial::Fault::Differs(_) if stand.alone(&line.command)?.difference(&alone).is_some() => Verdict::Varies,
            cause => Verdict::Failed(cause.to_string()),
        },
    };
    Ok((verdict, compared))
}

fn text(rows: &[Row]) -> String {
    let mut lists: BTreeMap<&str, [u64; 5]> = BTreeMap::new();
    for row in rows {
        let sums = lists.entry(row.list).or_default();
        let column = match row.verdict {
            Verdict::Same => 0,
            Verdict::Varies => 1,
            Verdict::Known(_) => 2,
            Verdict::Failed(_) => 3,
        };
        sums[column] += 1;
        sums[4] += row.compared;
    }
    let heads = [
        ("list", Lean::Left),
        ("same", Lean::Right),
        ("varies", Lean::Right),
        ("known", Lean::Right),
        ("failed", Lean::Right),
        ("calls compared", Lean::Right),
    ];
    let cells = |(list, sums): (&&str, &[u64; 5])| {
        std::iter::once((*list).to_owned()).chain(sums.iter().map(u64::to_string)).collect::<Vec<_>>()
    };
    let mut text = table::render(&heads, &lists.iter().map(cells).collect::<Vec<_>>());
    for row in rows {
        match &row.verdict {
            Verdict::Known(reason) => text.push_str(&format!("known: `{}`: {reason}\n", row.command)),
            Verdict::Varies => text.push_str(&format!("varies by itself: `{}`\n", row.command)),
            Verdict::Same | Verdict::Failed(_) => {}
        }
    }
    text
}
