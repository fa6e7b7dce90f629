//! `cargo xtask bench pause`: the longest request that a client sees while a store of a million entries goes to version 2.
//!
//! The ways are those of the paper's experiment (Mvedsua, section 6): no update; a restart that loads its data again; the
//! update done in the process itself, Kitsune's way; and mvedsuad, once with a log of about 2^10 records for which the leader
//! waits when it is full, once with the default log. Clients ask and check; one that loses its connection comes back until
//! it has its answer, and what it waited counts.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::daemon::Daemon;
use harness::kvstore::Store;
use harness::process;
use harness::server::Server;
use harness::stand::{SINGLE, STEP_LIMIT, UPDATED, VALIDATING};
use harness::wait::try_wait_for;
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::{build, setup};

/// How long a client rests after an answer. The clients together then ask some thousand times a second.
const REST: Duration = Duration::from_millis(2);
/// How long the clients ask before and after.
const AROUND: Duration = Duration::from_secs(2);
/// A log of about 2^10 records of this store.
const SMALL_LOG: &str = "384K";

/// Outputs that are compared before the new version is promoted.
const ENOUGH: u64 = 200;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// Entries of the store
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Clients that ask
    #[arg(long, default_value_t = 20)]
    clients: u64,
    /// Only ways whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Which build of the daemon to measure
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// How the store gets to version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    NoUpdate,
    DefaultLog,
    Direct,
    SmallLog,
    Restart,
}

const WAYS: [Way; 5] = [Way::NoUpdate, Way::DefaultLog, Way::Direct, Way::SmallLog, Way::Restart];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::NoUpdate => "no update",
            Way::DefaultLog => "mvedsuad, default log",
            Way::Direct => "in the process itself",
            Way::SmallLog => "mvedsuad, log of 2^10 records, block",
            Way::Restart => "restart",
        }
    }
}

/// What the clients saw.
struct Seen {
    throughput: f64,
    sorted_us: Vec<u64>,
}

/// How long the store stood still, microseconds, as the daemon tells it. The promotion's holds a second fork, of the version
/// that follows from then on; the daemon does not tell it apart.
#[derive(Clone, Copy, Debug, Serialize)]
struct Pauses {
    fork_us: Option<u64>,
    promotion_us: Option<u64>,
}

/// What one way came to.
#[derive(Debug, Serialize)]
struct Row {
    way: &'static str,
    /// Requests a second.
    throughput: f64,
    p50_us: u64,
    p99_us: u64,
    /// None where the daemon is not asked.
    #[serde(flatten)]
    pauses: Option<Pauses>,
    longest_request_us: u64,
    /// Throughput against that without an update.
    ratio_to_native: f64,
}

#[derive(Serialize)]
struct Report<'a> {
    bench: &'a str,
    rows: &'a [Row],
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the benchmark traces a process: run it as root");
    ensure!(args.entries >= args.clients && args.clients > 0, "there must be clients, and an entry for each");
    setup::run(&setup::Args::default())?;
    let binary = build::run(&build::Args { profile: args.profile })?;
    let store = Store::compile(&[])?;
    let new = store.object("v2.c", "v2.so", &[])?;
    let package = store.package("v2", &[], "")?;
    let mut rows: Vec<Row> = Vec::new();
    for way in WAYS.into_iter().filter(|way| way.name().contains(&args.only)) {
        println!("{} ...", way.name());
        let (seen, pauses) = measure(args, way, &binary, &store, &new, &package).with_context(|| way.name())?;
        let native = rows.first().map_or(seen.throughput, |row| row.throughput);
        rows.push(row(way, &seen, pauses, native));
    }
    print(&rows);
    if args.json {
        println!("{}", serde_json::to_string(&Report { bench: "pause", rows: &rows })?);
    }
    Ok(())
}

fn print(rows: &[Row]) {
    let heads = ["per second", "p50 µs", "p99 µs", "fork µs", "promotion µs", "request µs", "ratio"];
    let line = |name: &str, cells: [String; 7]| {
        let [per_second, p50, p99, fork, promotion, request, ratio] = cells;
        println!("{name:<36} {per_second:>10} {p50:>6} {p99:>6} {fork:>7} {promotion:>12} {request:>10} {ratio:>6}");
    };
    println!();
    line("pause", heads.map(str::to_owned));
    for row in rows {
        let told = |pause: fn(Pauses) -> Option<u64>| {
            row.pauses.and_then(pause).map_or_else(|| "-".to_owned(), |us| us.to_string())
        };
        let cells = [
            format!("{:.0}", row.throughput),
            row.p50_us.to_string(),
            row.p99_us.to_string(),
            told(|pauses| pauses.fork_us),
            told(|pauses| pauses.promotion_us),
            row.longest_request_us.to_string(),
            format!("{:.1}%", row.ratio_to_native * 100.0),
        ];
        line(row.way, cells);
    }
}

fn row(way: Way, seen: &Seen, pauses: Option<Pauses>, native: f64) -> Row {
    let quantile = |q: f64| {
        let index = ((seen.sorted_us.len() as f64 * q) as usize).min(seen.sorted_us.len().saturating_sub(1));
        seen.sorted_us.get(index).copied().unwrap_or(0)
    };
    Row {
        way: way.name(),
        throughput: seen.throughput,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        pauses,
        longest_request_us: quantile(1.0),
        ratio_to_native: seen.throughput / native,
    }
}

fn measure(
    args: &Args,
    way: Way,
    binary: &Path,
    store: &Store,
    new: &Path,
    package: &Path,
) -> Result<(Seen, Option<Pauses>)> {
    let server = match way {
        Way::Direct => store.start_for(args.entries, new)?,
        Way::NoUpdate | Way::DefaultLog | Way::SmallLog | Way::Restart => store.start(args.entries)?,
    };
    let clients = Clients::start(server.address, args.clients, args.entries);
    std::thread::sleep(AROUND);
    // Dropped after the clients have had their last answers.
    let mut _restarted = None;
    let mut pauses = None;
    match way {
        Way::NoUpdate => {}
        Way::Restart => _restarted = Some(restart(&server, store, new, args.entries)?),
        Way::Direct => {
            process::signal(server.pid(), Signal::SIGUSR2);
            let updated = try_wait_for(STEP_LIMIT, || server.output().contains("updated to").then_some(()));
            updated.with_context(|| format!("the store did not update itself: {}", server.output()))?;
        }
        Way::SmallLog => {
            let options = ["--log-memory", SMALL_LOG, "--log-disk", "0", "--on-full", "block"];
            pauses = Some(update(binary, &server, package, &options)?);
        }
        Way::DefaultLog => pauses = Some(update(binary, &server, package, &[])?),
    }
    std::thread::sleep(AROUND);
    Ok((clients.stop()?, pauses))
}

/// Ends when it is dropped.
struct Restarted(Child);

impl Drop for Restarted {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn restart(server: &Server, store: &Store, new: &Path, entries: u64) -> Result<Restarted> {
    process::signal(server.pid(), Signal::SIGTERM);
    try_wait_for(STEP_LIMIT, || process::reap(server.pid())).context("the old version does not end")?;
    let child = Command::new(store.path().join("kvstore"))
        .arg(new)
        .args([server.address.port().to_string(), entries.to_string()])
        .stdin(Stdio::null())
        .spawn()
        .context("starting version 2")?;
    let restarted = Restarted(child);
    let answers = || TcpStream::connect(server.address).ok().map(drop);
    try_wait_for(STEP_LIMIT, answers).context("version 2 does not listen")?;
    Ok(restarted)
}

fn update(binary: &Path, server: &Server, package: &Path, options: &[&str]) -> Result<Pauses> {
    let daemon = Daemon::prepare(binary)?;
    let pid = server.pid().to_string();
    let expect = |args: &[&str]| -> Result<()> {
        let output = daemon.run(args)?;
        ensure!(output.code == 0, "{args:?} exited with {}: {}", output.code, output.stderr);
        Ok(())
    };
    expect(&["attach", &pid])?;
    let to = package.display().to_string();
    expect(&[&["update", &pid, "--to", &to, "--promote", "manual", "--soak", "1s"], options].concat())?;
    let reach = |stage: &str| {
        let status = try_wait_for(STEP_LIMIT, || {
            let status = daemon.status(server.pid()).ok().flatten()?;
            let there = status.stage == stage && (stage != VALIDATING || status.compared_outputs >= ENOUGH);
            (there || status.result.is_some()).then_some(status)
        });
        match status {
            Some(status) if status.stage == stage => Ok(status),
            other => bail!("stage {stage} was not reached: {:#?}; {}", other.map(|s| s.raw), daemon.output()),
        }
    };
    reach(VALIDATING)?;
    expect(&["promote", &pid])?;
    let updated = reach(UPDATED)?;
    expect(&["confirm", &pid])?;
    reach(SINGLE)?;
    Ok(Pauses { fork_us: updated.fork_pause_us, promotion_us: updated.promotion_pause_us })
}

/// Clients that ask for entries and check the answers.
struct Clients {
    stop: Arc<AtomicBool>,
    wrong: Arc<AtomicU64>,
    started: Instant,
    threads: Vec<JoinHandle<Vec<u64>>>,
}

impl Clients {
    fn start(address: SocketAddr, count: u64, entries: u64) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let wrong = Arc::new(AtomicU64::new(0));
        let threads = (0..count)
            .map(|index| {
                let (stop, wrong) = (Arc::clone(&stop), Arc::clone(&wrong));
                std::thread::spawn(move || ask_often(address, index, entries, &stop, &wrong))
            })
            .collect();
        Clients { stop, wrong, started: Instant::now(), threads }
    }

    fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sorted_us = Vec::new();
        for thread in self.threads {
            sorted_us.append(&mut thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?);
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let wrong = self.wrong.load(Ordering::Relaxed);
        ensure!(wrong == 0, "{wrong} requests were answered wrongly");
        sorted_us.sort_unstable();
        Ok(Seen { throughput: sorted_us.len() as f64 / seconds, sorted_us })
    }
}

/// Asks for one entry after the other; returns how long each answer took, microseconds.
fn ask_often(address: SocketAddr, index: u64, entries: u64, stop: &AtomicBool, wrong: &AtomicU64) -> Vec<u64> {
    let mut took = Vec::new();
    let mut connection = None;
    let mut key = index * 7919 % entries;
    while !stop.load(Ordering::Relaxed) {
        key = (key + 104_729) % entries;
        let asked = Instant::now();
        let answer = loop {
            match ask(&mut connection, address, key) {
                Ok(answer) => break Some(answer),
                Err(_) if stop.load(Ordering::Relaxed) && asked.elapsed() > STEP_LIMIT => break None,
                Err(_) => connection = None,
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        took.push(asked.elapsed().as_micros() as u64);
        if answer != Some(format!("value{key}\n")) {
            wrong.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(REST);
    }
    took
}

fn ask(connection: &mut Option<BufReader<TcpStream>>, address: SocketAddr, key: u64) -> std::io::Result<String> {
    let connection = match connection {
        Some(connection) => connection,
        None => {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(STEP_LIMIT))?;
            connection.insert(BufReader::new(stream))
        }
    };
    connection.get_mut().write_all(format!("get key{key}\n").as_bytes())?;
    let mut answer = String::new();
    if connection.read_line(&mut answer)? == 0 {
        return Err(std::io::ErrorKind::ConnectionReset.into());
    }
    Ok(answer)
}
