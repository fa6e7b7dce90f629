//! Counts of one call on the daemon's side: what the kernel's wrapping counters became since they were last read.

use mvedsua_common::histogram::BUCKETS;
use mvedsua_common::monitor::{Cell, ERRORS};

/// A cell as it was read, all CPUs together. The sums wrap as their parts do, so that differences stay right.
#[derive(Clone)]
pub(super) struct Reading {
    untimed: u32,
    sum_ns: u64,
    max_ns: u64,
    errors: Vec<u32>,
    buckets: Vec<u32>,
}

impl Reading {
    /// Nothing counted yet.
    pub(super) fn zero() -> Self {
        Reading { untimed: 0, sum_ns: 0, max_ns: 0, errors: vec![0; ERRORS], buckets: vec![0; BUCKETS] }
    }

    /// Sums up what the CPUs have.
    pub(super) fn of(cells: impl Iterator<Item = Cell>) -> Self {
        cells.fold(Reading::zero(), |mut sum, cell| {
            sum.untimed = sum.untimed.wrapping_add(cell.untimed);
            sum.sum_ns = sum.sum_ns.wrapping_add(cell.sum_ns);
            sum.max_ns = sum.max_ns.max(cell.max_ns);
            for (to, from) in sum.errors.iter_mut().zip(cell.errors) {
                *to = to.wrapping_add(from);
            }
            for (to, from) in sum.buckets.iter_mut().zip(cell.buckets) {
                *to = to.wrapping_add(from);
            }
            sum
        })
    }

    /// Says what was counted since `earlier`.
    pub(super) fn since(&self, earlier: &Reading) -> Growth {
        let grown = |now: &[u32], then: &[u32]| {
            now.iter()
                .zip(then)
                .enumerate()
                .filter(|(_, (now, then))| now != then)
                .map(|(i, (now, then))| (i as u16, now.wrapping_sub(*then)))
                .collect()
        };
        Growth {
            untimed: self.untimed.wrapping_sub(earlier.untimed),
            sum_ns: self.sum_ns.wrapping_sub(earlier.sum_ns),
            max_ns: self.max_ns,
            errors: grown(&self.errors, &earlier.errors),
            buckets: grown(&self.buckets, &earlier.buckets),
        }
    }
}

/// What was counted between two readings.
pub(super) struct Growth {
    pub(super) untimed: u32,
    sum_ns: u64,
    /// Of all time, not of the interval: the kernel keeps one maximum.
    max_ns: u64,
    errors: Vec<(u16, u32)>,
    /// Bucket and count, ascending, without empty ones.
    pub(super) buckets: Vec<(u16, u32)>,
}

impl Growth {
    pub(super) fn is_empty(&self) -> bool {
        self.untimed == 0 && self.buckets.is_empty()
    }
}

/// Counts of one call since its target's statistics began.
#[derive(Clone)]
pub(super) struct Tally {
    pub(super) untimed: u64,
    pub(super) sum_ns: u64,
    /// The longest duration, and what it was when these statistics began.
    max_ns: u64,
    old_max_ns: u64,
    /// By `mvedsua_common::monitor::error_slot`.
    pub(super) errors: Vec<u64>,
    /// By `mvedsua_common::histogram::bucket`.
    pub(super) buckets: Vec<u64>,
    /// Calls that outlasted their window, by the time for which they were seen.
    pub(super) unfinished: Vec<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Tally {
            untimed: 0,
            sum_ns: 0,
            max_ns: 0,
            old_max_ns: 0,
            errors: vec![0; ERRORS],
            buckets: vec![0; BUCKETS],
            unfinished: vec![0; BUCKETS],
        }
    }

    pub(super) fn grow(&mut self, growth: &Growth) {
        self.untimed += u64::from(growth.untimed);
        self.sum_ns += growth.sum_ns;
        self.max_ns = growth.max_ns;
        for &(slot, count) in &growth.errors {
            self.errors[usize::from(slot)] += u64::from(count);
        }
        for &(bucket, count) in &growth.buckets {
            self.buckets[usize::from(bucket)] += u64::from(count);
        }
    }

    /// Adds the counts of another process.
    pub(super) fn merge(&mut self, other: &Tally) {
        self.untimed += other.untimed;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.longest().max(other.longest());
        self.old_max_ns = 0;
        let add = |to: &mut [u64], from: &[u64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        add(&mut self.errors, &other.errors);
        add(&mut self.buckets, &other.buckets);
        add(&mut self.unfinished, &other.unfinished);
    }

    /// Begins anew; what the kernel has counted so far belongs to the past.
    pub(super) fn restart(&mut self) {
        let max_ns = self.max_ns;
        *self = Tally { max_ns, old_max_ns: max_ns, ..Tally::new() };
    }

    /// Returns how many calls are timed.
    pub(super) fn timed(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns how many calls outlasted their window.
    pub(super) fn unfinished(&self) -> u64 {
        self.unfinished.iter().sum()
    }

    /// Returns the longest duration: exact, or within its bucket when a longer one was seen before a restart.
    pub(super) fn longest(&self) -> u64 {
        if self.max_ns > self.old_max_ns {
            return self.max_ns;
        }
        let last = self.buckets.iter().rposition(|&count| count > 0);
        last.map_or(0, |bucket| mvedsua_common::histogram::highest(bucket).min(self.max_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(bucket: usize, count: u32) -> Cell {
        let mut cell = Cell::EMPTY;
        cell.buckets[bucket] = count;
        cell.errors[11] = count / 2;
        cell.sum_ns = 10 * u64::from(count);
        cell.max_ns = 20;
        cell
    }

    #[test]
    fn counters_may_wrap_between_readings() {
        let before = Reading::of([cell(7, u32::MAX - 1), cell(7, 5)].into_iter());
        let after = Reading::of([cell(7, 8), cell(7, 6)].into_iter());
        let growth = after.since(&before);
        assert_eq!(growth.buckets, [(7, 11)]);
    }

    #[test]
    fn a_restart_forgets_counts_and_keeps_the_readings() {
        let first = Reading::of([cell(3, 4)].into_iter());
        let mut tally = Tally::new();
        tally.grow(&first.since(&Reading::zero()));
        assert_eq!((tally.timed(), tally.errors[11], tally.sum_ns, tally.longest()), (4, 2, 40, 20));
        tally.restart();
        assert_eq!((tally.timed(), tally.errors[11], tally.sum_ns, tally.longest()), (0, 0, 0, 0));
        tally.grow(&Reading::of([cell(3, 6)].into_iter()).since(&first));
        assert_eq!((tally.timed(), tally.longest()), (2, 3), "the bucket bounds what the kernel's maximum hides");
    }
}
