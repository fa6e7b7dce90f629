//! `cargo xtask conformance servers`: each server as Debian ships it, under a load that checks every reply, updated to itself
//! again and again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::daemon::Daemon;
use harness::fleet::{FLEET, Kind, Standing};
use harness::load::{Clients, Summary};
use harness::process::{self, Stat};
use harness::server::Server;
use harness::wait::try_wait_for;
use serde::Serialize;

use super::cycle::{self, Course, Ended, Updates, Wishes};
use super::table::{self, Lean};
use crate::{build, setup};

/// Requests that must be answered between two steps of an update.
const BETWEEN: u64 = 50;
/// How long that may take, with two versions running.
const LIMIT: Duration = Duration::from_secs(60);
/// Updates in a row that come to nothing, after which there is no sense in going on.
const GIVE_UP: u32 = 3;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Updates of each server
    #[arg(long, default_value_t = 20)]
    cycles: u32,
    /// Only these servers
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// How long the two versions of a server must agree before the new one is promoted
    #[arg(long, default_value = "500ms")]
    soak: String,
    /// Update nothing, and let the clients go on for so many seconds: what do they see of the server alone?
    #[arg(long, value_name = "SECONDS", conflicts_with = "cycles")]
    natively: Option<u64>,
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// Keep the reports of updates that did not go through at once in this folder, by server; and what daemon and server
    /// said where one is not as it should be
    #[arg(long, value_name = "DIR")]
    reports: Option<PathBuf>,
    /// Which build of the daemon to try
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// What came of one server.
#[derive(Debug, Serialize)]
struct Row {
    server: &'static str,
    cycles: u32,
    /// How long it took, with the server's start and end.
    seconds: f64,
    requests: u64,
    client_errors: u64,
    longest_request_us: u64,
    updates: Updates,
    /// What is known to stand against it.
    known: Option<&'static str>,
    /// Why it is not as it should be; empty where it is.
    faults: Vec<String>,
}

impl Row {
    fn new(kind: &Kind, cycles: u32) -> Row {
        let known = match kind.standing {
            Standing::Works | Standing::WorksWith(_) => None,
            Standing::NotYet(reason) => Some(reason),
        };
        Row {
            server: kind.name,
            cycles,
            seconds: 0.0,
            requests: 0,
            client_errors: 0,
            longest_request_us: 0,
            updates: Updates::default(),
            known,
            faults: Vec::new(),
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.faults.is_empty(), self.known) {
            (true, None) => "works",
            (true, Some(_)) => "works, against what is known",
            (false, None) => "FAILS",
            (false, Some(_)) => "not yet",
        }
    }

    fn is_as_expected(&self) -> bool {
        // Clients must never notice anything, whatever is known of the server.
        self.client_errors == 0 && (self.faults.is_empty() || self.known.is_some())
    }
}

#[derive(Serialize)]
struct Report<'a> {
    conformance: &'static str,
    rows: &'a [Row],
}

/// Tries the servers and prints the table; fails where one that should work does not.
pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted = chosen(&args.only)?;
    setup::run(&setup::Args::default())?;
    setup::install(wanted.iter().flat_map(|kind| kind.packages).copied(), "a server that is tried")?;
    let binary = build::run(&build::Args { profile: args.profile })?;
    let mut rows = Vec::new();
    for kind in wanted {
        println!("{} ...", kind.name);
        let mut row = Row::new(kind, if args.natively.is_some() { 0 } else { args.cycles });
        let begun = Instant::now();
        if let Err(error) = try_one(args, kind, &binary, &mut row) {
            row.faults.push(format!("{error:#}"));
        }
        row.seconds = begun.elapsed().as_secs_f64();
        row.faults.iter().for_each(|fault| println!("{}", table::wrap(fault, 100, "  ").trim_end()));
        rows.push(row);
    }
    print(&rows);
    if args.json {
        let report = Report { conformance: "servers", rows: &rows };
        println!("{}", serde_json::to_string(&report).context("the report as JSON")?);
    }
    let failing: Vec<&str> = rows.iter().filter(|row| !row.is_as_expected()).map(|row| row.server).collect();
    ensure!(failing.is_empty(), "not as they should be: {}", failing.join(", "));
    Ok(())
}

fn chosen(only: &[String]) -> Result<Vec<&'static Kind>> {
    if only.is_empty() {
        return Ok(FLEET.iter().collect());
    }
    let find = |name: &String| {
        let known = || FLEET.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
        FLEET.iter().find(|kind| kind.name == name).with_context(|| format!("no server is called {name}; {}", known()))
    };
    only.iter().map(find).collect()
}

fn try_one(args: &Args, kind: &Kind, binary: &std::path::Path, row: &mut Row) -> Result<()> {
    // Dropped last: the daemon ends before the server does.
    let server = (kind.start)()?;
    let daemon = Daemon::prepare(binary)?;
    let clients = (kind.clients)(&server);
    let rules = match kind.standing {
        Standing::WorksWith(rules) => Some(write_rules(&daemon, rules)?),
        Standing::Works | Standing::NotYet(_) => None,
    };
    let cycled = cycles(args, (&daemon, rules.as_deref()), &server, &clients, row);
    if let Err(error) = &cycled {
        row.faults.push(format!("{error:#}"));
    }
    let summaries: Vec<Summary> = clients.into_iter().map(Clients::stop).collect();
    for summary in &summaries {
        row.requests += summary.requests;
        row.client_errors += summary.failed;
        row.longest_request_us = row.longest_request_us.max(summary.longest_us);
        row.faults.extend(summary.failures.iter().take(3).map(|failure| format!("a client: {failure}")));
    }
    let reports = args.reports.as_ref().map(|dir| dir.join(kind.name));
    if args.natively.is_some() {
        return Ok(());
    }
    row.updates.read_history(&daemon, reports.as_deref())?;
    if let (Some(dir), false) = (reports, row.faults.is_empty()) {
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        for (name, text) in [("daemon.log", daemon.output()), ("server.log", server.output())] {
            let file = dir.join(name);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    Ok(())
}

/// Writes rules where they go with the daemon's own files.
fn write_rules(daemon: &Daemon, rules: &str) -> Result<PathBuf> {
    let file = daemon.state_dir().with_file_name("conformance.rules");
    fs::write(&file, rules).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

fn cycles(
    args: &Args,
    (daemon, rules): (&Daemon, Option<&Path>),
    server: &Server,
    clients: &[Box<dyn Clients>],
    row: &mut Row,
) -> Result<()> {
    served(clients)?;
    if let Some(seconds) = args.natively {
        // Ends early where a client was answered wrongly.
        try_wait_for(Duration::from_secs(seconds), || clients.iter().any(|load| load.failed() > 0).then_some(()));
        return served(clients);
    }
    let pid = server.pid();
    let attached = daemon.run(&["attach", &pid.to_string()])?;
    ensure!(attached.code == 0, "attach: {}", cycle::words(&attached));
    let wishes = Wishes { soak: &args.soak, min_calls: "100", min_outputs: "20", rules };
    let mut in_a_row = 0;
    for _ in 0..args.cycles {
        let ended = cycle::update(daemon, pid, wishes, Course::There, || served(clients))?;
        row.updates.note(&ended);
        match ended {
            Ended::Updated | Ended::Kept(_) => {
                in_a_row = 0;
                alone(server)?;
            }
            Ended::WentBack => bail!("the update went back, though nobody asked"),
            Ended::Refused(words) => bail!("refused: {words}"),
            Ended::Undone(words) => {
                in_a_row += 1;
                row.faults.push(words);
                if in_a_row == GIVE_UP {
                    bail!("{GIVE_UP} updates in a row came to nothing");
                }
            }
        }
        served(clients)?;
    }
    Ok(())
}

/// Waits until every load has been served a little more.
pub(super) fn served(clients: &[Box<dyn Clients>]) -> Result<()> {
    for load in clients {
        let goal = load.requests() + BETWEEN;
        let reached = try_wait_for(LIMIT, || (load.requests() >= goal || load.failed() > 0).then_some(()));
        ensure!(reached.is_some(), "{BETWEEN} requests were not answered within {LIMIT:?}");
        ensure!(load.failed() == 0, "a client was answered wrongly");
    }
    Ok(())
}

/// The process that was started is there, untraced, and listens; the other version has ended.
pub(super) fn alone(server: &Server) -> Result<()> {
    let pid = server.pid();
    let left = || {
        let of_server = |stat: &Stat| stat.session == pid || stat.parent == pid;
        process::all().into_iter().filter(|stat| of_server(stat) && stat.pid != pid).collect::<Vec<_>>()
    };
    let alone = try_wait_for(LIMIT, || left().is_empty().then_some(()));
    ensure!(alone.is_some(), "process {pid} should be alone; {:?} are there too", left());
    let serving = try_wait_for(LIMIT, || (server.serving_pid() == Some(pid)).then_some(()));
    ensure!(serving.is_some(), "process {pid} should listen; {:?} does", server.serving_pid());
    let untraced = try_wait_for(LIMIT, || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().any(|line| line == "TracerPid:\t0").then_some(())
    });
    ensure!(untraced.is_some(), "process {pid} is still traced");
    Ok(())
}

fn print(rows: &[Row]) {
    let heads = [
        ("server", Lean::Left),
        ("cycles", Lean::Right),
        ("s", Lean::Right),
        ("requests", Lean::Right),
        ("errors", Lean::Right),
        ("retries", Lean::Right),
        ("fork ms", Lean::Right),
        ("promotion ms", Lean::Right),
        ("request ms", Lean::Right),
        ("", Lean::Left),
    ];
    let cells = |row: &Row| {
        vec![
            row.server.to_owned(),
            format!("{}/{}", row.updates.done, row.cycles),
            format!("{:.0}", row.seconds),
            row.requests.to_string(),
            row.client_errors.to_string(),
            row.updates.retries().to_string(),
            table::ms(row.updates.fork_pause_us),
            table::ms(row.updates.promotion_pause_us),
            table::ms(row.longest_request_us),
            row.verdict().to_owned(),
        ]
    };
    println!("\n{}", table::render(&heads, &rows.iter().map(cells).collect::<Vec<_>>()));
    println!("{:.0} s in all", rows.iter().map(|row| row.seconds).sum::<f64>());
    for row in rows {
        for (cause, count) in &row.updates.retried {
            println!("{}", table::wrap(&format!("{}: {count} × {cause}", row.server), 100, "  ").trim_end());
        }
        for (words, count) in &row.updates.kept {
            println!("{}", table::wrap(&format!("{}: kept {count} × {words}", row.server), 100, "  ").trim_end());
        }
        for (words, count) in &row.updates.failed {
            println!("{}", table::wrap(&format!("{}: undone {count} × {words}", row.server), 100, "  ").trim_end());
        }
        if let (Some(known), false) = (row.known, row.faults.is_empty()) {
            println!("{}", table::wrap(&format!("{}: {known}", row.server), 100, "  ").trim_end());
        }
    }
}
