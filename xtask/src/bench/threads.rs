//! `cargo xtask bench threads`: how long a server with many threads stands still for the fork and for the promotion.
//!
//! The server has a thread for each connection. Each pause is told twice: as the daemon measures it, and as the longest
//! request of a client that asks all the time. The promotion's holds a second fork, of the version that follows from then on;
//! the daemon does not tell it apart. Beside them stands what can hardly be done in less: the kernel stops all threads
//! for a tracer and lets them go again (`PTRACE_INTERRUPT`, `PTRACE_DETACH`), which is how debuggers and checkpoints begin.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::daemon::{Daemon, Status};
use harness::server;
use harness::stand::{SINGLE, STEP_LIMIT, UPDATED, VALIDATING};
use harness::wait::try_wait_for;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::Serialize;

use crate::{build, setup};

/// How long the client asks before anything is done.
const BEFORE: Duration = Duration::from_millis(500);
/// How long it asks after each step, so that the longest request has ended.
const AFTER: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// How many threads serve
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 500])]
    threads: Vec<usize>,
    /// Updates of each server; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Which build of the daemon to measure
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// How long the server stood still, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Pause {
    /// As whoever stops it says.
    told_us: u64,
    /// The longest request meanwhile.
    seen_us: u64,
}

/// What came of a server with so many threads.
#[derive(Debug, Serialize)]
struct Row {
    threads: usize,
    /// The longest request while nobody does anything.
    alone_us: u64,
    /// All threads are stopped and let go, and nothing else.
    stopped: Pause,
    fork: Pause,
    promotion: Pause,
}

#[derive(Serialize)]
struct Report<'a> {
    bench: &'a str,
    rows: &'a [Row],
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the benchmark traces a process: run it as root");
    setup::run(&setup::Args::default())?;
    let binary = build::run(&build::Args { profile: args.profile })?;
    let mut rows = Vec::new();
    for threads in &args.threads {
        println!("{threads} threads ...");
        rows.push(measure(&binary, *threads, args.runs.max(1)).with_context(|| format!("{threads} threads"))?);
    }
    println!("\n{:>7}  {:>32}  {:>43}", "", "stands still, µs", "longest request, µs");
    let heads =
        ["stopped", "fork", "promotion", "alone", "stopped", "fork", "promotion"].map(|head| format!("{head:>10}"));
    println!("{:>7}  {}", "threads", heads.join(" "));
    for Row { threads, alone_us, stopped, fork, promotion } in &rows {
        let pauses = [stopped, fork, promotion];
        let told = pauses.map(|pause| pause.told_us).into_iter();
        let seen = [*alone_us].into_iter().chain(pauses.map(|pause| pause.seen_us));
        let cells: Vec<String> = told.chain(seen).map(|us| format!("{us:>10}")).collect();
        println!("{threads:>7}  {}", cells.join(" "));
    }
    if args.json {
        println!("{}", serde_json::to_string(&Report { bench: "threads", rows: &rows })?);
    }
    Ok(())
}

fn measure(binary: &Path, threads: usize, runs: usize) -> Result<Row> {
    let server = server::threaded()?;
    let clients = connect(server.address, threads)?;
    let asking = Asking::start(server.address)?;
    std::thread::sleep(BEFORE);
    let alone_us = asking.longest_since(Instant::now() - BEFORE);
    let daemon = Daemon::prepare(binary)?;
    let (mut freezes, mut forks, mut promotions) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        freezes.push(asking.watch(|| Ok(freeze(server.pid())?.as_micros() as u64))?);
        let (fork, promotion) = update(&daemon, server.pid(), &asking)?;
        forks.push(fork);
        promotions.push(promotion);
    }
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid()))?.count();
    asking.stop()?;
    drop(clients);
    let (stopped, fork, promotion) = (median(freezes), median(forks), median(promotions));
    Ok(Row { threads, alone_us, stopped, fork, promotion })
}

fn median(mut pauses: Vec<Pause>) -> Pause {
    pauses.sort_by_key(|pause| pause.told_us);
    let told_us = pauses[pauses.len() / 2].told_us;
    pauses.sort_by_key(|pause| pause.seen_us);
    Pause { told_us, seen_us: pauses[pauses.len() / 2].seen_us }
}

/// Connects as many clients, each of which has asked once and so has its thread.
fn connect(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let mut clients = Vec::with_capacity(count);
    // The one that asks all the time is another.
    for _ in 1..count {
        let mut client = TcpStream::connect(address)?;
        client.write_all(b"get nothing\n")?;
        let mut line = String::new();
        BufReader::new(client.try_clone()?).read_line(&mut line)?;
        ensure!(line == "NOT FOUND\n", "the server answered {line:?}");
        clients.push(client);
    }
    Ok(clients)
}

/// Stops every thread of a process and lets all of them go again.
fn freeze(pid: i32) -> Result<Duration> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = task?.file_name();
        threads.push(Pid::from_raw(name.to_str().and_then(|name| name.parse().ok()).context("a thread's number")?));
    }
    for thread in &threads {
        ptrace::seize(*thread, ptrace::Options::empty())?;
    }
    let begun = Instant::now();
    for thread in &threads {
        ptrace::interrupt(*thread)?;
    }
    for thread in &threads {
        let stopped = waitpid(*thread, Some(WaitPidFlag::__WALL))?;
        ensure!(matches!(stopped, WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)), "{stopped:?}");
    }
    for thread in &threads {
        match ptrace::detach(*thread, None) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).context("letting a thread go"),
        }
    }
    Ok(begun.elapsed())
}

/// Updates the server to itself; returns the pauses at the fork and at the promotion.
fn update(daemon: &Daemon, server: i32, asking: &Asking) -> Result<(Pause, Pause)> {
    let pid = server.to_string();
    let expect = |args: &[&str]| -> Result<()> {
        let output = daemon.run(args)?;
        ensure!(output.code == 0, "{args:?} exited with {}: {}", output.code, output.stderr);
        Ok(())
    };
    let reach = |stage: &str| -> Result<Status> {
        let there = || daemon.status(server).ok().flatten().filter(|status| status.stage == stage);
        try_wait_for(STEP_LIMIT, there).with_context(|| format!("stage {stage} was not reached: {}", daemon.output()))
    };
    if daemon.status(server).ok().flatten().is_none() {
        expect(&["attach", &pid])?;
    }
    let fork = asking.watch(|| {
        expect(&["update", &pid, "--to", "self", "--promote", "manual", "--soak", "100ms"])?;
        reach(VALIDATING)?.fork_pause_us.context("no pause of the fork is told")
    })?;
    let promotion = asking.watch(|| {
        expect(&["promote", &pid, "--force"])?;
        reach(UPDATED)?.promotion_pause_us.context("no pause of the promotion is told")
    })?;
    expect(&["confirm", &pid])?;
    reach(SINGLE)?;
    Ok((fork, promotion))
}

/// A client that asks all the time.
struct Asking {
    stop: Arc<AtomicBool>,
    /// When each request began, and how long it took.
    requests: Arc<Mutex<Vec<(Instant, Duration)>>>,
    client: JoinHandle<Result<()>>,
}

impl Asking {
    fn start(address: SocketAddr) -> Result<Asking> {
        let mut to = TcpStream::connect(address)?;
        to.set_nodelay(true)?;
        to.set_read_timeout(Some(STEP_LIMIT))?;
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&requests));
        let client = std::thread::spawn(move || {
            let mut from = BufReader::new(to.try_clone()?);
            let mut line = String::new();
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                to.write_all(b"get nothing\n")?;
                line.clear();
                from.read_line(&mut line)?;
                ensure!(line == "NOT FOUND\n", "the server answered {line:?}");
                noted.lock().unwrap_or_else(PoisonError::into_inner).push((begun, begun.elapsed()));
            }
            Ok(())
        });
        Ok(Asking { stop, requests, client })
    }

    /// Does something that stops the server and that tells for how long.
    fn watch(&self, work: impl FnOnce() -> Result<u64>) -> Result<Pause> {
        let begun = Instant::now();
        let told_us = work()?;
        std::thread::sleep(AFTER);
        Ok(Pause { told_us, seen_us: self.longest_since(begun) })
    }

    /// Returns the longest request that ended since an instant, microseconds.
    fn longest_since(&self, begun: Instant) -> u64 {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let since = requests.iter().rev().take_while(|(at, took)| *at + *took >= begun);
        since.map(|(_, took)| took.as_micros() as u64).max().unwrap_or(0)
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
    }
}
