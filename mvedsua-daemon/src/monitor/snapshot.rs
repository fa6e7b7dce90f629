//! From what was counted to what is said.

use std::collections::BTreeMap;

use mvedsua_common::histogram::bucket;
use mvedsua_common::monitor::{Lost as LostInKernel, errno_of};

use super::batch::{Batch, CallKey};
use super::bins::Bins;
use super::errno::errno_name;
use super::estimate::{CONFIDENCE, Observed as Durations, Ratio, rate_interval};
use super::tally::Tally;
use super::target::{OLDER, Observed, Target};
use super::types::{
    CallStats, ErrorCount, Latency, Lost, Mode, ProcessState, ProcessStats, Quantile, SlowCalls, StatsSnapshot,
};
use super::{call_name, clock, proc};

/// Says everything that is known of a target.
pub(super) fn of<'a>(
    target: &Target,
    processes: impl Iterator<Item = &'a Observed>,
    lost: &LostInKernel,
    skipped: u64,
) -> StatsSnapshot {
    let batches: Vec<&Batch> =
        target.batches.iter().chain([&target.current]).filter(|batch| batch.observed_ns > 0).collect();
    let observed_ns = batches.iter().map(|batch| batch.observed_ns).sum::<u64>();
    let view = View { mode: target.options.mode, seconds: observed_ns as f64 / 1e9, batches };
    let elapsed_ns = (clock::monotonic_ns() - target.began_ns).max(observed_ns);
    let mut running: Vec<&Observed> = processes.collect();
    // The target itself comes first, then its children as they were born.
    running.sort_by_key(|process| (process.pid != target.pid, process.key));
    let mut stats: Vec<ProcessStats> = running
        .into_iter()
        .map(|process| ProcessStats {
            pid: process.pid,
            parent: process.parent,
            name: process.name.clone(),
            state: ProcessState::Running,
            threads: u32::try_from(proc::threads(process.pid).len()).unwrap_or(u32::MAX),
            calls: view.calls(process.key, process.calls.iter().map(|(nr, call)| (*nr, &call.tally))),
        })
        .collect();
    let mut ended: Vec<_> = target.ended.iter().collect();
    ended.sort_by_key(|process| (process.pid != target.pid, process.key));
    stats.extend(ended.into_iter().map(|process| ProcessStats {
        pid: process.pid,
        parent: process.parent,
        name: process.name.clone(),
        state: ProcessState::Exited,
        threads: 0,
        calls: view.calls(process.key, process.calls.iter().map(|(nr, tally)| (*nr, tally))),
    }));
    if !target.older.is_empty() {
        stats.push(ProcessStats {
            pid: 0,
            parent: None,
            name: "(older)".to_owned(),
            state: ProcessState::Exited,
            threads: 0,
            calls: view.calls(OLDER, target.older.iter().map(|(nr, tally)| (*nr, tally))),
        });
    }
    let (observed_share, confidence) = match target.options.mode {
        Mode::Exact => (1.0, None),
        Mode::Sampled => (observed_ns as f64 / (elapsed_ns.max(1)) as f64, Some(CONFIDENCE)),
    };
    StatsSnapshot {
        pid: target.pid,
        name: target.name.clone(),
        mode: target.options.mode,
        taken_at_ms: clock::unix_ms(),
        taken_at_ns: clock::monotonic_ns(),
        elapsed_ns,
        observed_ns: if target.options.mode == Mode::Exact { elapsed_ns } else { observed_ns },
        observed_share,
        confidence,
        processes: stats,
        slow: SlowCalls {
            threshold_ns: u64::try_from(target.options.slow_threshold.as_nanos()).unwrap_or(u64::MAX),
            seen: target.slow_seen,
            dropped: lost.slow,
            recent: target.slow.iter().cloned().collect(),
        },
        lost: Lost {
            calls: lost.calls,
            processes: lost.processes,
            unfollowed: lost.unfollowed,
            entries: lost.entries,
            skipped,
        },
        led: vec![],
    }
}

/// What all calls of a target share.
struct View<'a> {
    mode: Mode,
    /// Observed seconds.
    seconds: f64,
    batches: Vec<&'a Batch>,
}

impl View<'_> {
    fn calls<'t>(&self, process: u64, tallies: impl Iterator<Item = (u32, &'t Tally)>) -> Vec<CallStats> {
        let mut calls: Vec<(u64, CallStats)> = tallies
            .map(|(nr, tally)| (tally.sum_ns(), self.call(CallKey { process, nr }, tally)))
            .filter(|(_, call)| call.count > 0)
            .collect();
        calls.sort_by(|(time_a, a), (time_b, b)| (time_b, b.count, a.nr).cmp(&(time_a, a.count, b.nr)));
        calls.into_iter().map(|(_, call)| call).collect()
    }

    fn call(&self, key: CallKey, tally: &Tally) -> CallStats {
        let (timed, unfinished) = (tally.timed(), tally.unfinished());
        let (count, rate_interval) = match self.mode {
            Mode::Exact => (timed + tally.untimed, None),
            // A call that was entered before the window would be counted at its end: only entries count.
            Mode::Sampled => (timed + unfinished, Some(self.rate_interval(key))),
        };
        CallStats {
            nr: key.nr,
            name: call_name(key.nr),
            count,
            untimed: tally.untimed,
            unfinished,
            rate: if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 },
            rate_interval,
            errors: errors(tally),
            durations: Bins::of(&tally.buckets),
            latency: (timed + unfinished > 0).then(|| self.latency(key, tally, timed)),
        }
    }

    fn rate_interval(&self, key: CallKey) -> super::types::Interval {
        let ratios: Vec<Ratio> = self
            .batches
            .iter()
            .map(|batch| Ratio {
                part: batch.calls.get(&key).map_or(0.0, |share| share.entered() as f64),
                whole: batch.observed_ns as f64 / 1e9,
            })
            .collect();
        rate_interval(&ratios)
    }

    fn latency(&self, key: CallKey, tally: &Tally, timed: u64) -> Latency {
        let durations = Durations { finished: &tally.buckets, unfinished: &tally.unfinished };
        let quantile = |p: f64| {
            let found = durations.quantile(p);
            match self.mode {
                Mode::Exact => found,
                Mode::Sampled => {
                    let at = bucket(found.ns);
                    let ratios: Vec<Ratio> = self
                        .batches
                        .iter()
                        .filter_map(|batch| batch.calls.get(&key))
                        .map(|share| Ratio { part: share.finished_by(at) as f64, whole: share.entered() as f64 })
                        .collect();
                    Quantile { interval: Some(durations.quantile_interval(p, &ratios)), ..found }
                }
            }
        };
        Latency {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max_ns: tally.longest(),
            mean_ns: tally.sum_ns().checked_div(timed).unwrap_or(0),
        }
    }
}

fn errors(tally: &Tally) -> Vec<ErrorCount> {
    let mut by_errno = BTreeMap::new();
    for (slot, &count) in tally.errors.iter().enumerate().filter(|(_, count)| **count > 0) {
        by_errno.insert(errno_of(slot), count);
    }
    let mut errors: Vec<ErrorCount> =
        by_errno.into_iter().map(|(errno, count)| ErrorCount { errno, name: errno_name(errno), count }).collect();
    errors.sort_by(|a, b| b.count.cmp(&a.count).then(a.errno.cmp(&b.errno)));
    errors
}
