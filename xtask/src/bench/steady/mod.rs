//! `cargo xtask bench steady`: what observing costs the observed, and everybody else.
//!
//! Each load runs in turn alone, observed in both modes, and under the tools one would use otherwise. The server is pinned
//! to the first processor and its client to the last. Alone and observed alternate, in another order each round, and a
//! ratio is the median of the rounds' ratios: what the machine does besides disturbs both sides alike.

mod guest;
mod loads;
mod memcached;
mod watch;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use harness::daemon::Daemon;

use self::loads::{Kind, Load, Measured};
use self::watch::{Watch, Watcher};
use super::report::{self, Row};
use crate::{build, setup};

pub(crate) use self::guest::run as run_guest;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the result as one line of JSON too
    #[arg(long)]
    json: bool,
    /// Rounds of alone, sampled and exact; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that one run takes, roughly
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only loads whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Measure this mvedsuad instead of a fresh build
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Observed by us, in turn with running alone.
const OURS: [Watcher; 3] = [Watcher::Nobody, Watcher::Sampled, Watcher::Exact];
/// What one would use otherwise; slow enough for one run to say it all.
const OTHERS: [Watcher; 2] = [Watcher::Strace, Watcher::PerfTrace];

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the benchmark loads eBPF programs: run it as root");
    ensure!(args.rounds > 0 && args.seconds > 0.0, "there must be something to run");
    setup::run(&setup::Args::default())?;
    let binary = match &args.binary {
        Some(binary) => binary.canonicalize().with_context(|| format!("--binary {}", binary.display()))?,
        None => build::run(&build::Args { profile: build::Profile::Release })?,
    };
    let chosen: Vec<Kind> = loads::ALL.into_iter().filter(|kind| kind.name().contains(&args.only)).collect();
    let names = loads::ALL.map(Kind::name).join(", ");
    ensure!(!chosen.is_empty(), "no load's name contains {:?}; there are {names}", args.only);
    let daemon = Daemon::prepare(&binary)?;
    let mut rows = Vec::new();
    for kind in chosen {
        rows.extend(bench(args, &daemon, kind)?);
    }
    report::print("steady", &rows, args.json.into())
}

/// Runs one load with every watcher.
fn bench(args: &Args, daemon: &Daemon, kind: Kind) -> Result<Vec<Row>> {
    println!("{} ...", kind.name());
    let mut load = kind.start()?;
    // How fast it is, and everything warm.
    let trial = load.run(load.trial())?;
    let amount = (trial.throughput * args.seconds) as u64 + 1;
    let mut runs: Vec<Vec<Measured>> = vec![Vec::new(); OURS.len()];
    for round in 0..args.rounds {
        for turn in 0..OURS.len() {
            let which = (round + turn) % OURS.len();
            runs[which].push(watched(daemon, &mut load, OURS[which], amount)?);
        }
    }
    let alone = runs[0].clone();
    let mut rows: Vec<Row> =
        OURS.iter().zip(&runs).map(|(watcher, runs)| row(&case(kind, *watcher), runs, &alone)).collect();
    if kind.takes_other_tools() {
        for watcher in OTHERS {
            // They slow the load down by about this much, so the run takes about as long.
            let run = watched(daemon, &mut load, watcher, amount / 20 + 1)?;
            rows.push(row(&case(kind, watcher), &[run], &alone));
        }
    }
    Ok(rows)
}

fn watched(daemon: &Daemon, load: &mut Load, watcher: Watcher, amount: u64) -> Result<Measured> {
    let watch = Watch::begin(daemon, watcher, load.watched_pid())?;
    let measured = load.run(amount)?;
    watch.end()?;
    Ok(measured)
}

fn case(kind: Kind, watcher: Watcher) -> String {
    format!("{}, {}", kind.name(), watcher.name())
}

/// Sums up the runs of a case: the one with the median throughput, and the median of the ratios.
fn row(case: &str, runs: &[Measured], alone: &[Measured]) -> Row {
    let throughputs = |runs: &[Measured]| runs.iter().map(|run| run.throughput).collect::<Vec<_>>();
    let ratio = if runs.len() == alone.len() {
        median(throughputs(runs).iter().zip(throughputs(alone)).map(|(run, alone)| run / alone).collect())
    } else {
        median(throughputs(runs)) / median(throughputs(alone))
    };
    let latency = |of: fn(&Measured) -> f64| median(runs.iter().map(of).collect());
    Row {
        case: case.to_owned(),
        throughput: median(throughputs(runs)),
        p50_us: latency(|run| run.p50_us),
        p99_us: latency(|run| run.p99_us),
        max_us: latency(|run| run.max_us),
        processor_us: None,
        ratio_to_native: ratio,
    }
}

/// Returns the middle value; the lower of the two middle ones for an even number.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len().max(1) - 1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(throughput: f64) -> Measured {
        Measured { throughput, p50_us: 1.0, p99_us: 2.0, max_us: 3.0 }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was half as fast in the second round; the watcher always costs a tenth.
        let alone = [measured(100.0), measured(50.0), measured(100.0)];
        let watched = [measured(90.0), measured(45.0), measured(90.0)];
        let row = row("x", &watched, &alone);
        assert!((row.ratio_to_native - 0.9).abs() < 1e-9);
        assert!((row.throughput - 90.0).abs() < 1e-9);
    }

    #[test]
    fn the_median_is_a_value_that_was_measured() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 1.0);
        assert_eq!(median(vec![]), 0.0);
    }
}
