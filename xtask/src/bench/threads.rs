//! `cargo xtask bench threads`: how long a server with many threads stands still for the fork and for the promotion.
//!
//! The server has a thread for each connection. Each pause is told twice: as the daemon measures it, and as the longest
//! request of a client that asks all the time. Beside them stands what can hardly be done in less: the kernel stops all threads
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
    /// As whoever stops it says; 0 where nobody does.
    told_us: u64,
    /// The longest request meanwhile.
    seen_us: u64,
}

/// What one case came to.
#[derive(Debug, Serialize)]
struct Row {
    threads: usize,
    case: &'static str,
    #[serde(flatten)]
    pause: Pause,
    /// What is told, divided by the threads.
    us_per_thread: f64,
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
        rows.extend(measure(&binary, *threads, args.runs.max(1)).with_context(|| format!("{threads} threads"))?);
    }
    println!("\n{:<10} {:<28} {:>12} {:>12} {:>12}", "threads", "", "told µs", "seen µs", "µs a thread");
    for row in &rows {
        let Pause { told_us, seen_us } = row.pause;
        println!("{:<10} {:<28} {told_us:>12} {seen_us:>12} {:>12.1}", row.threads, row.case, row.us_per_thread);
    }
    if args.json {
        println!("{}", serde_json::to_string(&Report { bench: "threads", rows: &rows })?);
    }
    Ok(())
}

fn measure(binary: &Path, threads: usize, runs: usize) -> Result<Vec<Row>> {
    let server = server::threaded()?;
    let clients = connect(server.address, threads)?;
    let asking = Asking::start(server.address)?;
    std::thread::sleep(BEFORE);
    let alone = Pause { told_us: 0, seen_us: asking.longest_since(Instant::now() - BEFORE) };
    let daemon = Daemon::prepare(binary)?;
    let (mut freezes, mut forks, mut promotions) = (Vec::new(), Vec::new(), Vec::new());
    let mut serving = server.pid();
    for _ in 0..runs {
        freezes.push(asking.watch(|| Ok(freeze(serving)?.as_micros() as u64))?);
        let (fork, promotion, now_serving) = update(&daemon, serving, &asking)?;
        forks.push(fork);
        promotions.push(promotion);
        serving = now_serving;
    }
    let count = fs::read_dir(format!("/proc/{serving}/task"))?.count();
    asking.stop()?;
    drop(clients);
    let row =
        |case, pause: Pause| Row { threads: count, case, pause, us_per_thread: pause.told_us as f64 / count as f64 };
    Ok(vec![
        row("alone", alone),
        row("stopped and let go", median(freezes)),
        row("mvedsuad: fork", median(forks)),
        row("mvedsuad: promotion", median(promotions)),
    ])
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

/// Updates the server to itself; returns both pauses and the process that serves then.
fn update(daemon: &Daemon, serving: i32, asking: &Asking) -> Result<(Pause, Pause, i32)> {
    let pid = serving.to_string();
    let expect = |args: &[&str]| -> Result<()> {
        let output = daemon.run(args)?;
        ensure!(output.code == 0, "{args:?} exited with {}: {}", output.code, output.stderr);
        Ok(())
    };
    let reach = |pid: i32, stage: &str| -> Result<Status> {
        let there = || daemon.status(pid).ok().flatten().filter(|status| status.stage == stage);
        try_wait_for(STEP_LIMIT, there).with_context(|| format!("stage {stage} was not reached: {}", daemon.output()))
    };
    if daemon.status(serving).ok().flatten().is_none() {
        expect(&["attach", &pid])?;
    }
    let fork = asking.watch(|| {
        expect(&["update", &pid, "--to", "self", "--promote", "manual", "--soak", "100ms"])?;
        reach(serving, VALIDATING)?.fork_pause_us.context("no pause of the fork is told")
    })?;
    let mut serves = serving;
    let promotion = asking.watch(|| {
        expect(&["promote", &pid, "--force"])?;
        let updated = reach(serving, UPDATED)?;
        serves = updated.leader;
        updated.promotion_pause_us.context("no pause of the promotion is told")
    })?;
    expect(&["confirm", &pid])?;
    reach(serves, SINGLE)?;
    Ok((fork, promotion, serves))
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
