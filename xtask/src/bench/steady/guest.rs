//! A guest that only calls `getppid`: this program itself, started again with a hidden command.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use super::loads::Measured;

/// Calls between two looks at the clock.
const BATCH: u64 = 100;

/// Runs as the guest: for each line with a number, makes so many calls and says how long they took.
pub(crate) fn run() -> Result<()> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let calls: u64 = line?.trim().parse().context("a number of calls")?;
        let mut batches = Histogram::<u64>::new(3)?;
        let began = Instant::now();
        let mut before = began;
        for _ in 0..calls.div_ceil(BATCH) {
            for _ in 0..BATCH {
                std::hint::black_box(nix::unistd::getppid());
            }
            let after = Instant::now();
            batches.record(u64::try_from((after - before).as_nanos())?)?;
            before = after;
        }
        let seconds = (before - began).as_secs_f64();
        let us = |ns: u64| ns as f64 / 1e3 / BATCH as f64;
        writeln!(
            out,
            "{} {} {} {}",
            (calls.div_ceil(BATCH) * BATCH) as f64 / seconds,
            us(batches.value_at_quantile(0.5)),
            us(batches.value_at_quantile(0.99)),
            us(batches.max()),
        )?;
        out.flush()?;
    }
    Ok(())
}

/// The running guest; ends when its input closes.
pub(super) struct Guest {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Guest {
    pub(super) fn start(cpu: &str) -> Result<Guest> {
        let mut child = Command::new("taskset")
            .args(["-c", cpu])
            .arg(std::env::current_exe()?)
            .arg("bench-guest")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the guest")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("its output is piped")?);
        Ok(Guest { child, input, output })
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Lets it make so many calls.
    pub(super) fn run(&mut self, calls: u64) -> Result<Measured> {
        writeln!(self.input.as_mut().context("its input is open")?, "{calls}").context("the guest has ended")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let numbers: Vec<f64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        ensure!(numbers.len() == 4, "the guest said {line:?}");
        Ok(Measured { throughput: numbers[0], p50_us: numbers[1], p99_us: numbers[2], max_us: numbers[3] })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.input.take());
        if self.child.wait().is_err() {
            eprintln!("the guest of the benchmark could not be waited for");
        }
    }
}
