//! `cargo xtask bench followers`: servers with followers beside them from the start, as Varan runs them.
//!
//! Every server is run alone and with 1 to N copies of itself that follow, each time under the same clients, which check every
//! reply. Varan's published factors (ASPLOS'15, section 4.2: one follower, throughput, on eight processors and with a rewritten
//! binary instead of ptrace) stand beside ours, for orientation.
//!
//! Nothing is pinned: with more versions than processors they share them anyway.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::fleet::{FLEET, Kind};
use harness::load::beanstalk::BeanstalkClient;
use harness::load::http::HttpClient;
use harness::load::memcached::MemcachedClient;
use harness::load::resp::RedisClient;
use harness::load::{Clients, Dialogue, Load, Persistence, Plan, Summary};
use harness::process;
use harness::server::{self, Server};
use harness::wait::try_wait_for;
use nix::sys::signal::Signal;

use super::report::{self, Row};
use crate::{build, setup};

/// How long a server may take to end after its signal: its followers live through what they are behind.
const END_LIMIT: Duration = Duration::from_secs(300);
/// Connections of the clients.
const CLIENTS: usize = 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// The most followers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=6))]
    followers: u32,
    /// Seconds of each run
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Only servers whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Which build of the daemon to measure
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// A server, its clients, and by which factor Varan slows it down with one follower.
struct Case {
    server: &'static str,
    clients: fn(&Server) -> Box<dyn Clients>,
    varan: f64,
}

const CASES: [Case; 5] = [
    Case { server: "redis-server", clients: |server| load(server, |name| RedisClient::new(&name)), varan: 1.39 },
    Case { server: "memcached", clients: |server| load(server, |name| MemcachedClient::new(&name)), varan: 1.13 },
    Case { server: "nginx", clients: |server| load(server, |_| HttpClient::new(Persistence::Open)), varan: 1.38 },
    Case { server: "lighttpd", clients: |server| load(server, |_| HttpClient::new(Persistence::Open)), varan: 1.06 },
    Case { server: "beanstalkd", clients: |server| load(server, |name| BeanstalkClient::new(&name)), varan: 1.09 },
];

/// Clients that ask as fast as they are answered.
fn load<D: Dialogue>(server: &Server, client: impl Fn(String) -> D) -> Box<dyn Clients> {
    let plan = Plan {
        split_one_in: 0,
        pause_one_in: 0,
        patience: Duration::from_secs(60),
        ..Plan::busy(server.address, CLIENTS)
    };
    Box::new(Load::start(plan, |index| client(format!("client{index}"))))
}

/// What one run came to.
struct Run {
    summary: Summary,
    /// Followers that lived through all of it.
    complete: usize,
    /// Why others did not.
    causes: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the benchmark traces processes: run it as root");
    setup::run(&setup::Args::default())?;
    let cases: Vec<(&Case, &Kind)> = CASES
        .iter()
        .filter(|case| case.server.contains(&args.only))
        .filter_map(|case| Some((case, FLEET.iter().find(|kind| kind.name == case.server)?)))
        .collect();
    setup::install(cases.iter().flat_map(|(_, kind)| kind.packages.iter().copied()), "a server that is measured")?;
    let mvedsuad = build::run(&build::Args { profile: args.profile })?;
    let mut rows = Vec::new();
    let mut factors = Vec::new();
    for (case, kind) in cases {
        let mut native = None;
        let mut line = format!("{:<14}", case.server);
        for followers in 0..=args.followers {
            let run = measure(args, &mvedsuad, case, kind, followers)
                .with_context(|| format!("{} with {followers} followers", case.server))?;
            let throughput = run.summary.requests as f64 / run.summary.seconds;
            let native = *native.get_or_insert(throughput);
            let state = match followers {
                0 => "alone".to_owned(),
                _ => format!("{} of {followers} followed to the end", run.complete),
            };
            rows.push(Row {
                case: format!("{}, {state}", case.server),
                throughput,
                p50_us: run.summary.p50_us as f64,
                p99_us: run.summary.p99_us as f64,
                max_us: run.summary.longest_us as f64,
                processor_us: None,
                ratio_to_native: throughput / native,
            });
            for cause in run.causes {
                println!("{} with {followers}: a follower did not live through all of it: {cause}", case.server);
            }
            if followers > 0 {
                line.push_str(&format!(" {:>8.2}", native / throughput));
            }
        }
        factors.push(format!("{line} {:>8.2}", case.varan));
    }
    report::print("followers", &rows, args.json.into())?;
    let heads: String = (1..=args.followers).map(|followers| format!(" {followers:>8}")).collect();
    println!("\n{:<14}{heads} {:>8}", "slower by", "Varan, 1");
    factors.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Runs a server with so many followers under load for a while, and ends it as its supervisor would.
fn measure(args: &Args, mvedsuad: &Path, case: &Case, kind: &Kind, followers: u32) -> Result<Run> {
    let dir = tempfile::tempdir()?;
    let report = dir.path().join("report.json");
    let command: Vec<String> = match followers {
        0 => Vec::new(),
        count => [mvedsuad, Path::new("run"), Path::new("--self"), Path::new(&count.to_string())]
            .into_iter()
            .chain([Path::new("--report"), &report, Path::new("--")])
            .map(|part| part.display().to_string())
            .collect(),
    };
    let server = server::under(&command, kind.start)?;
    let clients = (case.clients)(&server);
    std::thread::sleep(Duration::from_secs(args.seconds));
    let summary = clients.stop();
    ensure!(summary.failed == 0, "requests failed or were answered wrongly: {:?}", summary.failures);
    process::signal(server.pid(), Signal::SIGTERM);
    let ended = try_wait_for(END_LIMIT, || server.program.members().is_empty().then_some(()));
    ended.context("it does not end after SIGTERM")?;
    let mut run = Run { summary, complete: 0, causes: Vec::new() };
    if followers > 0 {
        let text = std::fs::read(&report).with_context(|| format!("its report; it said {:?}", server.output()))?;
        let report: serde_json::Value = serde_json::from_slice(&text)?;
        for follower in report["followers"].as_array().into_iter().flatten() {
            match follower["outcome"].as_str() {
                Some("complete") => run.complete += 1,
                outcome => {
                    let reason = follower["reason"].as_str().unwrap_or_default();
                    run.causes.push(format!("{}: {reason}", outcome.unwrap_or("no outcome")));
                }
            }
        }
    }
    Ok(run)
}
