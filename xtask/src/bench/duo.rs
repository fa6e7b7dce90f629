//! `cargo xtask bench duo`: Redis GET and SET with 50 clients, alone and while the follower is validated.
//!
//! Everything is pinned, since a ptrace stop across processors costs two to three times as much as one on the same:
//! the server and its tracer on the first processor, the clients on the last.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::daemon::{Daemon, Status};
use harness::process;
use harness::server::{self, Server};
use harness::stand::{STEP_LIMIT, VALIDATING};
use harness::wait::try_wait_for;

use super::report::{self, Row};
use crate::{build, setup, sh};

const CLIENTS: u32 = 50;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// Requests of each run without mvedsuad
    #[arg(long, default_value_t = 300_000)]
    requests: u64,
    /// Requests of each run while two versions run
    #[arg(long, default_value_t = 100_000)]
    duo_requests: u64,
    /// Runs of each kind; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Where the leader, the follower, the daemon's threads and the clients run
    #[arg(long, value_enum, default_value_t = Layout::Apart)]
    layout: Layout,
    /// Which build of the daemon to measure
    #[arg(long, value_enum, default_value_t = build::Profile::Release)]
    profile: build::Profile,
}

/// Which processor takes what, on a machine with two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Layout {
    /// Both versions and the daemon on the first processor, the clients on the last
    Together,
    /// The leader with its tracer on the first processor; the follower with its tracer, and the clients, on the last
    Apart,
    /// Nothing is pinned
    Free,
}

/// What `redis-benchmark` says about one run.
#[derive(Clone, Copy, Debug)]
struct Run {
    throughput: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    /// Processor time of the server for each request.
    processor_us: f64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the benchmark traces a process: run it as root");
    setup::run(&setup::Args::default())?;
    let binary = build::run(&build::Args { profile: args.profile })?;
    let server = server::redis(&[])?;
    let cpus = Cpus::of_machine()?;
    if args.layout != Layout::Free {
        process::pin(server.pid(), &cpus.first)?;
    }
    let mut rows = Vec::new();
    let native =
        [measure(args, &cpus, &server, "get", args.requests)?, measure(args, &cpus, &server, "set", args.requests)?];
    for (case, native) in ["get", "set"].iter().zip(&native) {
        rows.push(row(&format!("redis {case}, alone"), native, native));
    }

    let daemon = Daemon::prepare(&binary)?;
    let pid = server.pid().to_string();
    let output = daemon.run(&["attach", &pid])?;
    ensure!(output.code == 0, "attach: {}", output.stderr);
    let output =
        daemon.run(&["update", &pid, "--to", "self", "--promote", "manual", "--soak", "1s", "--timeout", "1h"])?;
    ensure!(output.code == 0, "update: {}", output.stderr);
    let status = wait_validating(&daemon, &server)?;
    place(args.layout, &cpus, &daemon, &status)?;
    for (case, native) in ["get", "set"].iter().zip(&native) {
        let duo = measure(args, &cpus, &server, case, args.duo_requests)?;
        let status = status_of(&daemon, &server)?;
        println!("{case}: the follower is {} records behind at the end of the runs", status.backlog);
        println!(
            "{case}: the leader takes {:.1} µs of processor time for a request, alone {:.1} µs: {:.2} times as much",
            duo.processor_us,
            native.processor_us,
            duo.processor_us / native.processor_us
        );
        println!("{case}: the longest request took {:.1} ms, alone {:.1} ms", duo.max_us / 1e3, native.max_us / 1e3);
        let counters = &status.raw["update"]["counters"];
        let count = |name: &str| counters[name].as_u64().unwrap_or(0);
        println!(
            "{case}: without stops, {} of {} records of the leader, {} of {} calls of the follower",
            count("without_stops"),
            count("recorded"),
            counters["answered"]["without_stops"],
            count("compared_calls")
        );
        println!("{case}: why other calls of the follower stopped: {}", counters["answered"]);
        rows.push(row(&format!("redis {case}, validating"), &duo, native));
    }
    let behind = Instant::now();
    let caught_up = try_wait_for(STEP_LIMIT, || (status_of(&daemon, &server).ok()?.backlog < 100).then_some(()));
    caught_up.context("the follower does not keep up: its backlog is not worked off")?;
    println!("the follower has caught up after {:.1} s", behind.elapsed().as_secs_f64());
    if let Some(us) = status.fork_pause_us {
        println!("pause at the fork: {us} µs");
    }
    let output = daemon.run(&["rollback", &pid])?;
    ensure!(output.code == 0, "rollback: {}", output.stderr);
    println!("published for two versions of Redis: Varan 72 % (56 % as Mvedsua measured it), Mvedsua 58 %");
    report::print("duo", &rows, args.json.into())
}

fn row(case: &str, run: &Run, native: &Run) -> Row {
    Row {
        case: case.to_owned(),
        throughput: run.throughput,
        p50_us: run.p50_us,
        p99_us: run.p99_us,
        max_us: run.max_us,
        processor_us: Some(run.processor_us),
        ratio_to_native: run.throughput / native.throughput,
    }
}

/// The processors of this machine: the first and the last, as `taskset` wants them.
struct Cpus {
    first: String,
    last: String,
}

impl Cpus {
    fn of_machine() -> Result<Cpus> {
        let count = std::thread::available_parallelism()?.get();
        Ok(Cpus { first: "0".to_owned(), last: (count - 1).to_string() })
    }
}

fn status_of(daemon: &Daemon, server: &Server) -> Result<Status> {
    let status = daemon.status(server.pid())?.context("the daemon forgot the process")?;
    ensure!(status.stage == VALIDATING, "the update is in stage {}: {:#}", status.stage, status.raw);
    Ok(status)
}

fn wait_validating(daemon: &Daemon, server: &Server) -> Result<Status> {
    let status = try_wait_for(STEP_LIMIT, || status_of(daemon, server).ok());
    status.with_context(|| format!("stage {VALIDATING} was not reached; the daemon printed: {}", daemon.output()))
}

/// Pins both versions and the daemon's threads.
fn place(layout: Layout, cpus: &Cpus, daemon: &Daemon, status: &Status) -> Result<()> {
    let follower = status.follower.context("status names no follower")?;
    let daemon = daemon.pid().context("the daemon runs")?;
    match layout {
        Layout::Free => Ok(()),
        Layout::Together => {
            process::pin(follower, &cpus.first)?;
            process::pin(daemon, &cpus.first)
        }
        Layout::Apart => {
            process::pin(follower, &cpus.last)?;
            process::pin(daemon, &cpus.first)?;
            for task in fs::read_dir(format!("/proc/{daemon}/task"))? {
                let task = task?.path();
                if fs::read_to_string(task.join("comm")).is_ok_and(|name| name.contains("follow")) {
                    let tid = task.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
                    sh::output(Command::new("taskset").args(["-p", "-c", &cpus.last, &tid]))?;
                }
            }
            Ok(())
        }
    }
}

/// Runs `redis-benchmark` and returns the run with the median throughput.
fn measure(args: &Args, cpus: &Cpus, server: &Server, case: &str, requests: u64) -> Result<Run> {
    let mut runs = Vec::new();
    for _ in 0..args.runs.max(1) {
        runs.push(benchmark(args.layout, cpus, server, case, requests)?);
    }
    runs.sort_by(|a, b| a.throughput.total_cmp(&b.throughput));
    Ok(runs[runs.len() / 2])
}

fn benchmark(layout: Layout, cpus: &Cpus, server: &Server, case: &str, requests: u64) -> Result<Run> {
    let program = process::find_program("redis-benchmark")?;
    let mut command = match layout {
        Layout::Free => Command::new(&program),
        Layout::Together | Layout::Apart => {
            let mut command = Command::new("taskset");
            command.args(["-c", &cpus.last]).arg(&program);
            command
        }
    };
    let port = server.address.port().to_string();
    command.args(["-h", "127.0.0.1", "-p", &port, "-t", case, "-c", &CLIENTS.to_string(), "-n", &requests.to_string()]);
    command.args(["-r", "100000", "--csv"]);
    let used = || Ok::<u64, anyhow::Error>(process::stat(server.pid()).context("the server runs")?.used);
    let before = used()?;
    let started = Instant::now();
    let text = sh::output(&mut command)?;
    let ticks = used()? - before;
    ensure!(started.elapsed() < Duration::from_secs(600), "redis-benchmark took {:?}", started.elapsed());
    let run = parse(&text).with_context(|| format!("{} {case} printed {text:?}", Path::new(&program).display()))?;
    let ticks_a_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("the length of a tick")?;
    let processor_us = ticks as f64 / ticks_a_second as f64 * 1e6 / requests as f64;
    Ok(Run { processor_us, ..run })
}

/// Reads the second line of `redis-benchmark --csv`; times there are milliseconds.
fn parse(text: &str) -> Option<Run> {
    let fields: Vec<f64> =
        text.lines().nth(1)?.split(',').map(|f| f.trim_matches('"').parse().unwrap_or(0.0)).collect();
    let us = |index: usize| Some(fields.get(index)? * 1000.0);
    Some(Run { throughput: *fields.get(1)?, p50_us: us(4)?, p99_us: us(6)?, max_us: us(7)?, processor_us: 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_csv_of_redis_benchmark_is_read() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                    \"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"SET\",\"85689.80\",\"0.307\",\"0.072\",\"0.295\",\"0.399\",\"0.663\",\"3.967\"\n";
        let run = parse(text).unwrap();
        assert_eq!((run.throughput, run.p50_us, run.p99_us, run.max_us), (85689.80, 295.0, 663.0, 3967.0));
        assert!(parse("nothing").is_none());
    }
}
