//! Counts of one call on the daemon's side: what the kernel's wrapping counters became since they were last read.

use mvedsua_common::histogram::{BUCKETS, highest, lowest, middle};
use mvedsua_common::monitor::{Cell, ERRORS};

/// A cell as it was read, all CPUs together. The sums wrap as their parts do, so that differences stay right.
#[derive(Clone)]
pub(super) struct Reading {
    untimed: u32,
    errors: Vec<u32>,
    buckets: Vec<u32>,
}

impl Reading {
    /// Nothing counted yet.
    pub(super) fn zero() -> Self {
        Reading { untimed: 0, errors: vec![0; ERRORS], buckets: vec![0; BUCKETS] }
    }

    /// Sums up what the CPUs have.
    pub(super) fn of(cells: impl Iterator<Item = Cell>) -> Self {
        cells.fold(Reading::zero(), |mut sum, cell| {
            sum.untimed = sum.untimed.wrapping_add(cell.untimed);
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
            errors: grown(&self.errors, &earlier.errors),
            buckets: grown(&self.buckets, &earlier.buckets),
        }
    }
}

/// What was counted between two readings.
pub(super) struct Growth {
    pub(super) untimed: u32,
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
    /// By `mvedsua_common::monitor::error_slot`.
    pub(super) errors: Vec<u64>,
    /// By `mvedsua_common::histogram::bucket`.
    pub(super) buckets: Vec<u64>,
    /// Calls that outlasted their window, by the time for which they were seen.
    pub(super) unfinished: Vec<u64>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Tally { untimed: 0, errors: vec![0; ERRORS], buckets: vec![0; BUCKETS], unfinished: vec![0; BUCKETS] }
    }

    pub(super) fn grow(&mut self, growth: &Growth) {
        self.untimed += u64::from(growth.untimed);
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
        let add = |to: &mut [u64], from: &[u64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        add(&mut self.errors, &other.errors);
        add(&mut self.buckets, &other.buckets);
        add(&mut self.unfinished, &other.unfinished);
    }

    /// Returns how many calls are timed.
    pub(super) fn timed(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns how many calls outlasted their window.
    pub(super) fn unfinished(&self) -> u64 {
        self.unfinished.iter().sum()
    }

    /// Returns the time spent in timed calls, within 1/32.
    pub(super) fn sum_ns(&self) -> u64 {
        self.buckets.iter().enumerate().map(|(bucket, count)| middle(bucket).saturating_mul(*count)).sum()
    }

    /// Returns the longest duration, at most 1/16 too long; 0 where nothing was timed.
    pub(super) fn longest(&self) -> u64 {
        match self.buckets.iter().rposition(|&count| count > 0) {
            Some(last) if last == BUCKETS - 1 => lowest(last),
            Some(bucket) => highest(bucket),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(bucket: usize, count: u32) -> Cell {
        let mut cell = Cell::EMPTY;
        cell.buckets[bucket] = count;
        cell.errors[11] = count / 2;
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
    fn sum_and_maximum_come_from_the_buckets() {
        let mut tally = Tally::new();
        assert_eq!((tally.sum_ns(), tally.longest()), (0, 0));
        let slow = mvedsua_common::histogram::bucket(1_000_000);
        let growth = Reading::of([cell(3, 4), cell(slow, 2)].into_iter()).since(&Reading::zero());
        tally.grow(&growth);
        assert_eq!((tally.timed(), tally.errors[11]), (6, 3));
        assert!(tally.sum_ns().abs_diff(2_000_012) * 16 <= 2_000_012, "{}", tally.sum_ns());
        assert!((1_000_000..=1_062_500).contains(&tally.longest()), "{}", tally.longest());
    }
}
