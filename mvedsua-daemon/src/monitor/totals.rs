//! What was counted since the statistics of a target began, for programs that add and compare: counts that only grow, and
//! latencies in classes.

use std::collections::BTreeMap;

use mvedsua_common::histogram::bucket;
use mvedsua_common::monitor::{Lost as LostInKernel, errno_of};

use super::errno::errno_name;
use super::tally::Tally;
use super::target::{Observed, Target};
use super::types::{Lost, Mode, ProcessState};
use super::{call_name, clock};

/// The lowest and the highest bound of a class: powers of two nanoseconds, where buckets of the kernel's histograms end too, so
/// that no call is counted in the wrong class.
const LOWEST_BITS: u32 = 10;
const HIGHEST_BITS: u32 = 33;
/// How many bounds there are: 1.024 µs, twice that, and so on up to 8.6 s.
pub const CLASSES: usize = (HIGHEST_BITS - LOWEST_BITS + 1) as usize;

/// Returns the upper bounds of the classes in nanoseconds; the last class has none.
#[must_use]
pub fn bounds_ns() -> [u64; CLASSES] {
    std::array::from_fn(|index| 1 << (LOWEST_BITS + index as u32))
}

/// Everything that was counted of a target.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    pub pid: i32,
    pub mode: Mode,
    /// Time since the statistics began.
    pub elapsed_ns: u64,
    /// How much of it was observed; all of it in exact mode.
    pub observed_ns: u64,
    pub processes: Vec<ProcessTotals>,
    /// How many slow calls were seen, and how many did not fit into the ring buffer.
    pub slow_seen: u64,
    pub slow_dropped: u64,
    pub lost: Lost,
}

/// What was counted of a process of a target.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessTotals {
    /// 0 for those that ended long ago, together.
    pub pid: i32,
    pub state: ProcessState,
    pub calls: BTreeMap<String, CallTotals>,
}

/// What was counted of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallTotals {
    /// Calls that were seen: all of them in exact mode, those in windows in sampled mode.
    pub count: u64,
    /// By the name of the error.
    pub errors: BTreeMap<String, u64>,
    /// By class of the duration. In sampled mode those that outlasted their window are in the last one, since nothing more is
    /// known of them.
    pub classes: [u64; CLASSES + 1],
    /// The time of those that were seen to end.
    pub sum_ns: u64,
}

impl CallTotals {
    /// Adds what was counted of the same call elsewhere.
    pub fn add(&mut self, other: &CallTotals) {
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.classes.iter_mut().zip(other.classes).for_each(|(to, from)| *to += from);
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
    }

    fn of(mode: Mode, tally: &Tally) -> CallTotals {
        let mut classes = [0; CLASSES + 1];
        for (at, count) in tally.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            classes[class_of(at)] += count;
        }
        let (timed, unfinished) = (tally.timed(), tally.unfinished());
        let count = match mode {
            Mode::Exact => timed + tally.untimed,
            Mode::Sampled => timed + unfinished,
        };
        classes[CLASSES] += unfinished;
        let mut errors: BTreeMap<String, u64> = BTreeMap::new();
        for (slot, count) in tally.errors.iter().enumerate().filter(|(_, count)| **count > 0) {
            *errors.entry(errno_name(errno_of(slot))).or_default() += count;
        }
        CallTotals { count, errors, classes, sum_ns: tally.sum_ns() }
    }
}

/// Returns the class of a bucket.
fn class_of(at: usize) -> usize {
    bounds_ns().iter().position(|bound| at < bucket(*bound)).unwrap_or(CLASSES)
}

/// Returns everything that was counted of a target.
pub(super) fn of<'a>(
    target: &Target,
    processes: impl Iterator<Item = &'a Observed>,
    lost: &LostInKernel,
    skipped: u64,
) -> Totals {
    let mode = target.options.mode;
    let batches = target.batches.iter().chain([&target.current]);
    let observed = batches.map(|batch| batch.observed_ns).sum::<u64>();
    let elapsed_ns = (clock::monotonic_ns() - target.began_ns).max(observed);
    let totals = |pid, state, calls: &mut dyn Iterator<Item = (u32, &Tally)>| {
        let calls = calls.map(|(nr, tally)| (call_name(nr), CallTotals::of(mode, tally)));
        ProcessTotals { pid, state, calls: calls.filter(|(_, call)| call.count > 0).collect() }
    };
    let mut all: Vec<ProcessTotals> = processes
        .map(|process| {
            let mut calls = process.calls.iter().map(|(nr, call)| (*nr, &call.tally));
            totals(process.pid, ProcessState::Running, &mut calls)
        })
        .collect();
    for process in &target.ended {
        let mut calls = process.calls.iter().map(|(nr, tally)| (*nr, tally));
        all.push(totals(process.pid, ProcessState::Exited, &mut calls));
    }
    all.push(totals(0, ProcessState::Exited, &mut target.older.iter().map(|(nr, tally)| (*nr, tally))));
    Totals {
        pid: target.pid,
        mode,
        elapsed_ns,
        observed_ns: if mode == Mode::Exact { elapsed_ns } else { observed },
        processes: all,
        slow_seen: target.slow_seen,
        slow_dropped: lost.slow,
        lost: Lost {
            calls: lost.calls,
            processes: lost.processes,
            unfollowed: lost.unfollowed,
            entries: lost.entries,
            skipped,
        },
    }
}

#[cfg(test)]
mod tests {
    use mvedsua_common::histogram::{BUCKETS, highest, lowest};

    use super::*;

    #[test]
    fn every_bucket_is_in_the_class_that_holds_all_of_it() {
        let bounds = bounds_ns();
        for at in 0..BUCKETS {
            let class = class_of(at);
            assert!(class == CLASSES || highest(at) <= bounds[class], "bucket {at}, class {class}");
            assert!(class == 0 || lowest(at) >= bounds[class - 1], "bucket {at}, class {class}");
        }
    }

    #[test]
    fn calls_that_outlast_their_window_are_in_the_last_class() {
        let mut tally = Tally::new();
        tally.buckets[bucket(2000)] = 3;
        tally.unfinished[bucket(5_000_000)] = 2;
        tally.untimed = 7;
        let sampled = CallTotals::of(Mode::Sampled, &tally);
        assert_eq!((sampled.count, sampled.classes[1], sampled.classes[CLASSES]), (5, 3, 2));
        let mut sum = CallTotals::of(Mode::Exact, &Tally { unfinished: vec![0; BUCKETS], ..tally });
        assert_eq!(sum.count, 10);
        sum.add(&sampled);
        assert_eq!((sum.count, sum.classes.iter().sum::<u64>()), (15, 8));
    }
}
