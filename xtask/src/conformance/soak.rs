//! `cargo xtask conformance soak`: three servers under load are updated to themselves all the time by one daemon, for as long
//! as one likes. No client may notice, and the daemon may not grow.
//!
//! It goes in rounds: in each, every server goes through one update, at the same time as the others; most are confirmed, some
//! are rolled back before the promotion or after it. Between two rounds nothing is under way, and the daemon is looked at;
//! [`verdict`] says what it may have by then.

mod verdict;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use harness::daemon::Daemon;
use harness::fleet::{FLEET, Kind};
use harness::load::{Clients, Summary};
use harness::process;
use harness::server::Server;
use harness::wait::try_wait_for;
use serde::Serialize;

use self::verdict::{Look, Verdict};
use super::cycle::{self, Course, Ended, Updates, Wishes};
use super::servers::{alone, served};
use super::table::{self, Lean};
use crate::{build, setup};

const SERVERS: [&str; 3] = ["redis-server", "memcached", "lighttpd"];
/// What is asked of each update, in turn.
const COURSES: [Course; 6] =
    [Course::There, Course::There, Course::Rehearsed, Course::There, Course::There, Course::ThereAndBack];
/// The daemon keeps the last two hundred updates: it is asked for them before that many are over.
const ROUNDS_BETWEEN_HISTORIES: usize = 40;
/// How long the daemon may take to come to rest after a round.
const REST_LIMIT: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// Which build of the daemon to try
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// A server with what became of it.
struct Served {
    name: &'static str,
    clients: Vec<Box<dyn Clients>>,
    updates: Updates,
    // Dropped after its clients.
    server: Server,
}

#[derive(Debug, Serialize)]
struct Row {
    server: &'static str,
    updates: Updates,
    requests: u64,
    client_errors: u64,
    longest_request_us: u64,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    conformance: &'static str,
    rounds: usize,
    rows: &'a [Row],
    verdict: Verdict,
    faults: &'a [String],
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.minutes > 0, "a soak takes at least a minute");
    setup::run(&setup::Args::default())?;
    let binary = build::run(&build::Args { profile: args.profile })?;
    let mut servers = Vec::new();
    for kind in FLEET.iter().filter(|kind| SERVERS.contains(&kind.name)) {
        servers.push(start(kind)?);
    }
    let daemon = Daemon::prepare(&binary)?;
    let mut faults = Vec::new();
    let looks = soak(&daemon, &mut servers, Duration::from_secs(60 * args.minutes), &mut faults)?;
    let verdict = verdict::judge(&looks, &mut faults)?;
    let mut rows = Vec::new();
    for served in servers {
        let summaries: Vec<Summary> = served.clients.into_iter().map(Clients::stop).collect();
        let row = Row {
            server: served.name,
            updates: served.updates,
            requests: summaries.iter().map(|summary| summary.requests).sum(),
            client_errors: summaries.iter().map(|summary| summary.failed).sum(),
            longest_request_us: summaries.iter().map(|summary| summary.longest_us).max().unwrap_or(0),
        };
        let errors = summaries.iter().flat_map(|summary| &summary.failures).take(3);
        faults.extend(errors.map(|failure| format!("a client of {}: {failure}", row.server)));
        rows.push(row);
    }
    print(&rows, looks.len(), &verdict);
    if args.json {
        let report = Report { conformance: "soak", rounds: looks.len(), rows: &rows, verdict, faults: &faults };
        println!("{}", serde_json::to_string(&report).context("the report as JSON")?);
    }
    for fault in &faults {
        print!("{}", table::wrap(fault, 100, "  "));
    }
    ensure!(faults.is_empty(), "{} things were not as they should be", faults.len());
    Ok(())
}

fn start(kind: &Kind) -> Result<Served> {
    let server = (kind.start)()?;
    let clients = (kind.clients)(&server);
    Ok(Served { name: kind.name, clients, updates: Updates::default(), server })
}

/// Rounds until the time is over, or something is wrong.
fn soak(daemon: &Daemon, servers: &mut [Served], long: Duration, faults: &mut Vec<String>) -> Result<Vec<Look>> {
    for served in servers.iter() {
        let attached = daemon.run(&["attach", &served.server.pid().to_string()])?;
        ensure!(attached.code == 0, "attach: {}", cycle::words(&attached));
    }
    let begun = Instant::now();
    let mut looks: Vec<Look> = Vec::new();
    let mut told = Instant::now();
    let mut noted = 0;
    while begun.elapsed() < long {
        let round = looks.len();
        let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
            let turns: Vec<_> = servers
                .iter_mut()
                .enumerate()
                .map(|(index, served)| {
                    scope.spawn(move || turn(daemon, served, COURSES[(round + index) % COURSES.len()]))
                })
                .collect();
            turns.into_iter().map(|turn| turn.join().unwrap_or_else(|_| Err(anyhow!("a turn panicked")))).collect()
        });
        for error in outcomes.into_iter().filter_map(Result::err) {
            faults.push(format!("round {round}: {error:#}"));
        }
        let updates = servers.iter().map(|served| u64::from(served.updates.all())).sum();
        looks.push(Look { updates, ..look(daemon, begun, looks.last())? });
        if !faults.is_empty() {
            break;
        }
        if looks.len().is_multiple_of(ROUNDS_BETWEEN_HISTORIES) {
            note_retries(daemon, servers, &mut noted)?;
        }
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            println!("{:.0} minutes, {} rounds: {:?}", begun.elapsed().as_secs_f64() / 60.0, looks.len(), looks.last());
        }
    }
    note_retries(daemon, servers, &mut noted)?;
    Ok(looks)
}

/// One update of one server.
fn turn(daemon: &Daemon, served: &mut Served, course: Course) -> Result<()> {
    let wishes = Wishes { soak: "500ms", min_calls: "100", min_outputs: "20", rules: None };
    let clients = &served.clients;
    let ended = cycle::update(daemon, served.server.pid(), wishes, course, || self::served(clients))?;
    served.updates.note(&ended);
    match ended {
        Ended::Updated | Ended::Kept(_) | Ended::WentBack => alone(&served.server)?,
        Ended::Undone(words) | Ended::Refused(words) => anyhow::bail!("{}: {words}", served.name),
    }
    self::served(&served.clients)
}

/// Looks at the daemon once it is at rest: as few threads as the last time, or as many as there are after a while.
fn look(daemon: &Daemon, begun: Instant, last: Option<&Look>) -> Result<Look> {
    let pid = daemon.pid().context("the daemon is gone")?;
    let now = || look_at(daemon, pid, begun);
    let rested = |look: &Look| last.is_none_or(|last| look.threads <= last.threads) && look.left + look.zombies == 0;
    try_wait_for(REST_LIMIT, || now().ok().filter(rested)).map_or_else(now, Ok)
}

fn look_at(daemon: &Daemon, pid: i32, begun: Instant) -> Result<Look> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    let files = |dir: &str| fs::read_dir(daemon.state_dir().join(dir)).map_or(0, |entries| entries.count() as u64);
    let zombies = process::all().iter().filter(|stat| stat.state == 'Z' && stat.parent == pid).count() as u64;
    Ok(Look {
        seconds: begun.elapsed().as_secs_f64(),
        updates: 0,
        resident_kib: field("VmRSS:"),
        descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
        threads: threads(pid)?,
        zombies,
        left: files("journal") + files("spill"),
    })
}

/// The daemon's threads but for those that short blocking work is done by: as many of these are there as there was work at the
/// same time within the last ten seconds.
fn threads(pid: i32) -> Result<u64> {
    let names =
        fs::read_dir(format!("/proc/{pid}/task"))?.flatten().map(|task| fs::read_to_string(task.path().join("comm")));
    Ok(names.flatten().filter(|name| !name.starts_with("control-blockin")).count() as u64)
}

/// Counts what went wrong with the attempts that were tried again, of the updates after number `noted`.
fn note_retries(daemon: &Daemon, servers: &mut [Served], noted: &mut u64) -> Result<()> {
    let output = daemon.run(&["history", "--limit", "200", "--json"])?;
    let history = output.json().with_context(|| cycle::words(&output))?;
    let after = *noted;
    for past in history.as_array().context("the history is a list")? {
        let update = past["update"].as_u64().context("an update has a number")?;
        if update <= after {
            continue;
        }
        *noted = update.max(*noted);
        let program = past["program"]["exe"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        // Debian's redis-server is a link to a program of another name.
        let name = if program.starts_with("redis") { "redis-server" } else { program };
        let Some(served) = servers.iter_mut().find(|served| served.name == name) else { continue };
        for group in past["divergences"].as_array().into_iter().flatten() {
            let headline = group["divergence"]["headline"].as_str().unwrap_or_default();
            let count = group["count"].as_u64().unwrap_or(1) as u32;
            *served.updates.retried.entry(cycle::cause(headline)).or_default() += count;
        }
    }
    Ok(())
}

fn print(rows: &[Row], rounds: usize, verdict: &Verdict) {
    let heads = [
        ("server", Lean::Left),
        ("updated", Lean::Right),
        ("rolled back", Lean::Right),
        ("failed", Lean::Right),
        ("retries", Lean::Right),
        ("requests", Lean::Right),
        ("errors", Lean::Right),
        ("request ms", Lean::Right),
    ];
    let cells = |row: &Row| {
        vec![
            row.server.to_owned(),
            row.updates.done.to_string(),
            row.updates.went_back.to_string(),
            row.updates.failed.values().sum::<u32>().to_string(),
            row.updates.retries().to_string(),
            row.requests.to_string(),
            row.client_errors.to_string(),
            table::ms(row.longest_request_us),
        ]
    };
    println!("\n{}", table::render(&heads, &rows.iter().map(cells).collect::<Vec<_>>()));
    for row in rows {
        for (cause, count) in &row.updates.retried {
            print!("{}", table::wrap(&format!("{}: {count} × {cause}", row.server), 100, "  "));
        }
        for (words, count) in &row.updates.kept {
            print!("{}", table::wrap(&format!("{}: kept {count} × {words}", row.server), 100, "  "));
        }
    }
    let heads = [
        ("the daemon", Lean::Left),
        ("memory KiB", Lean::Right),
        ("descriptors", Lean::Right),
        ("threads", Lean::Right),
    ];
    let cells = |name: &str, look: Look| {
        vec![
            format!("{name} ({:.0} s)", look.seconds),
            look.resident_kib.to_string(),
            look.descriptors.to_string(),
            look.threads.to_string(),
        ]
    };
    println!("{}", table::render(&heads, &[cells("warm", verdict.early), cells("at the end", verdict.late)]));
    let updates = verdict.updates;
    println!(
        "{rounds} rounds; memory grew by {:.2} KiB an update in the last {updates} updates",
        verdict.kib_an_update
    );
}
