//! `cargo xtask conformance rounds`: Debian's Redis goes to its security update and back, again and again, under many clients.
//!
//! What an update has loaded stays in the process, and is used again when the same version comes again. So after the first round
//! the process may not grow by it. At the end the updated process is asked what a fresh one of the newer version is asked:
//! thousands of damaged values, with the same answers.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::daemon::Daemon;
use harness::load::resp::{RedisClient, RespClient};
use harness::load::{Load, Plan};
use harness::process;
use harness::restore::{DAMAGED, bytes_of, expect_same_answers, mutations};
use harness::server;
use harness::stand::code;
use serde::Serialize;

use super::cycle;
use super::pairs::archive::{self, Archive, Offer};
use super::table::{self, Lean};
use crate::{build, setup};

const PACKAGE: &str = "redis-tools";
// Client, server and tools are one program under several names.
const FILE: &str = "usr/bin/redis-check-rdb";
/// An update may take so long.
const LIMIT: Duration = Duration::from_secs(180);
/// An answer may take so long.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often it goes to the newer version and back
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// How many clients it has meanwhile
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// How many damaged values it is asked to restore at the end
    #[arg(long, default_value_t = 10_000)]
    values: usize,
    /// What the damage begins with: the same number gives the same values
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long the versions must agree, before and after each promotion
    #[arg(long, default_value = "2s")]
    soak: String,
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// Which build of the daemon to try
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// The process behind a round.
#[derive(Clone, Copy, Debug, Serialize)]
struct Look {
    round: usize,
    seconds: f64,
    /// Code that updates have loaded.
    loaded_kib: u64,
    areas: usize,
    mapped_kib: u64,
    resident_kib: u64,
    /// What Redis itself has allocated, which follows from what the clients have stored.
    allocated_kib: u64,
    requests: u64,
}

#[derive(Serialize)]
struct Report<'a> {
    conformance: &'static str,
    versions: [&'a str; 2],
    clients: usize,
    looks: &'a [Look],
    longest_request_us: u64,
    values: usize,
    taken: usize,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0 && args.clients > 0, "there is nothing to try");
    setup::run(&setup::Args::default())?;
    let binary = build::run(&build::Args { profile: args.profile })?;
    let archive = Archive::open(Offer::Packages)?;
    let versions = archive.versions(PACKAGE)?;
    let [newer, older, ..] = versions.as_slice() else {
        println!("left out: the archive offers one version of Redis alone");
        return Ok(());
    };
    let dir = tempfile::Builder::new().prefix("mvedsua-rounds-").tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let mut programs = vec![];
    for version in [older, newer] {
        let program = dir.path().join(programs.len().to_string()).join("redis-server");
        fs::create_dir(program.parent().context("it lies in a folder")?)?;
        fs::write(&program, archive::read_file(&archive.package(PACKAGE, version)?, FILE)?)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        programs.push(program);
    }
    let (old, new) = (&programs[0], &programs[1]);
    println!("{older} to {newer} and back, {} times, with {} clients", args.rounds, args.clients);
    // Dropped last: the daemon ends before the servers do.
    let (served, fresh) = (server::redis_of(old)?, server::redis_of(new)?);
    let daemon = Daemon::prepare(&binary)?;
    let pid = served.pid();
    let clients = Load::start(Plan::busy(served.address, args.clients), |index| RedisClient::new(&format!("c{index}")));
    let mut looks = vec![];
    for round in 1..=args.rounds {
        let begun = Instant::now();
        for to in [new, old] {
            go_to(&daemon, pid, to, &args.soak).with_context(|| format!("round {round}"))?;
            ensure!(clients.failed() == 0, "round {round}: a client was answered wrongly");
        }
        let look = look(pid, served.address, round, begun.elapsed().as_secs_f64(), clients.requests())?;
        println!("round {round}: {:.1} s, {} KiB of code loaded", look.seconds, look.loaded_kib);
        looks.push(look);
    }
    go_to(&daemon, pid, new, &args.soak)?;
    let values: Vec<Vec<u8>> = DAMAGED.map(bytes_of).into_iter().chain(mutations(args.seed, args.values)).collect();
    let taken = expect_same_answers(served.address, fresh.address, &values, PATIENCE)?;
    let summary = clients.stop();
    ensure!(summary.failed == 0, "a client was answered wrongly: {:?}", summary.failures);
    print!("\n{}", text(&looks));
    println!("{} requests, the longest {} ms", summary.requests, table::ms(summary.longest_us));
    println!("{} damaged values were answered as a fresh {newer} answers them; it took {taken}", values.len());
    if args.json {
        let report = Report {
            conformance: "rounds",
            versions: [older, newer],
            clients: args.clients,
            looks: &looks,
            longest_request_us: summary.longest_us,
            values: values.len(),
            taken,
        };
        println!("{}", serde_json::to_string(&report).context("the report as JSON")?);
    }
    let grew = looks.iter().find(|look| look.loaded_kib != looks[0].loaded_kib);
    if let Some(grew) = grew {
        let (before, now) = (looks[0].loaded_kib, grew.loaded_kib);
        anyhow::bail!("after round {} {now} KiB of code were loaded, and {before} after the first", grew.round);
    }
    Ok(())
}

fn go_to(daemon: &Daemon, pid: i32, to: &Path, soak: &str) -> Result<()> {
    let (pid, to) = (pid.to_string(), to.display().to_string());
    let asked = ["update", &pid, "--to", &to, "--accept", "inferred", "--promote", "auto", "--confirm", "auto"];
    let output = daemon.run_for(&[&asked[..], &["--soak", soak, "--wait"]].concat(), LIMIT)?;
    ensure!(output.code == code::DONE, "going to {to}: {}", cycle::words(&output));
    Ok(())
}

fn look(pid: i32, address: SocketAddr, round: usize, seconds: f64, requests: u64) -> Result<Look> {
    let info = RespClient::connect(address, PATIENCE)?.command(&["INFO", "memory"])?;
    let allocated = info.lines().find_map(|line| line.strip_prefix("used_memory:")).context("what Redis allocated")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a field of its status")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    Ok(Look {
        round,
        seconds,
        loaded_kib: process::anonymous_code(pid) / 1024,
        areas: fs::read_to_string(format!("/proc/{pid}/maps"))?.lines().count(),
        mapped_kib: field("VmSize:")?,
        resident_kib: field("VmRSS:")?,
        allocated_kib: allocated.trim().parse::<u64>()? / 1024,
        requests,
    })
}

fn text(looks: &[Look]) -> String {
    let heads =
        ["round", "seconds", "code loaded, KiB", "areas", "mapped, MiB", "resident, MiB", "allocated, MiB", "requests"];
    let row = |look: &Look| {
        vec![
            look.round.to_string(),
            format!("{:.1}", look.seconds),
            look.loaded_kib.to_string(),
            look.areas.to_string(),
            (look.mapped_kib / 1024).to_string(),
            (look.resident_kib / 1024).to_string(),
            (look.allocated_kib / 1024).to_string(),
            look.requests.to_string(),
        ]
    };
    table::render(&heads.map(|head| (head, Lean::Right)), &looks.iter().map(row).collect::<Vec<_>>())
}
