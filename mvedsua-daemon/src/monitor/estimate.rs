//! From windows to statements about all calls.
//!
//! A window shows the calls that were entered in it: a sample of all calls that does not favour long ones. Two things
//! need care.
//!
//! *Calls that outlast the window.* Only a lower bound of their duration is known. Leaving them out would make
//! everything look faster than it is, so percentiles are those of the Kaplan-Meier estimator (Kaplan and Meier 1958),
//! which uses the lower bounds for what they say. Where they leave a percentile open, it is reported as "at least".
//!
//! *Calls of one window resemble each other.* The spread between windows, not the number of calls, says how far off an
//! estimate may be. So the variance of a share or a rate is that of a ratio of sums over batches of windows (Cochran,
//! Sampling Techniques, 6.3), never taken below that of independent calls, with Student's t for few batches; and the
//! interval of a percentile is the image of the interval of the share (Woodruff 1952).

use mvedsua_common::histogram::{highest, lowest, middle};

use super::types::{Bound, Interval, Quantile};

/// How often, of 1, a true value lies in a stated interval.
pub(super) const CONFIDENCE: f64 = 0.99;

/// One batch's share in a ratio: `part` of `whole`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio {
    pub(super) part: f64,
    pub(super) whole: f64,
}

/// Latencies as observed: finished calls by duration, unfinished ones by the time for which they were seen.
#[derive(Clone, Copy)]
pub(super) struct Observed<'a> {
    pub(super) finished: &'a [u64],
    pub(super) unfinished: &'a [u64],
}

impl Observed<'_> {
    /// Returns the bucket below or in which a share `p` of all calls ends, `None` where that is beyond what was seen.
    fn bucket(&self, p: f64) -> Option<usize> {
        let mut at_risk = (self.finished.iter().sum::<u64>() + self.unfinished.iter().sum::<u64>()) as f64;
        let mut survival = 1.0;
        for (bucket, (&ended, &left)) in self.finished.iter().zip(self.unfinished).enumerate() {
            if ended > 0 {
                survival *= 1.0 - ended as f64 / at_risk;
                // The last factor may be a rounding error above zero.
                if 1.0 - survival >= p - 1e-12 {
                    return Some(bucket);
                }
            }
            at_risk -= (ended + left) as f64;
        }
        None
    }

    /// Returns the percentile `p` (of 1) as far as it is known.
    pub(super) fn quantile(&self, p: f64) -> Quantile {
        let last = |counts: &[u64]| counts.iter().rposition(|&count| count > 0).unwrap_or(0);
        match self.bucket(p) {
            Some(bucket) => Quantile { ns: middle(bucket), bound: Bound::Value, interval: None },
            None => Quantile {
                ns: lowest(last(self.unfinished).max(last(self.finished))),
                bound: Bound::AtLeast,
                interval: None,
            },
        }
    }

    /// Returns the interval of the percentile `p`, given for each batch how many of its calls (`whole`) ended within
    /// the percentile (`part`).
    pub(super) fn quantile_interval(&self, p: f64, batches: &[Ratio]) -> Interval {
        let Some(margin) = share_margin(p, batches) else {
            return Interval { low: 0.0, high: None };
        };
        let low = if p - margin > 0.0 { self.bucket(p - margin).map_or(0, lowest) } else { 0 };
        let high = if p + margin < 1.0 { self.bucket(p + margin).map(highest) } else { None };
        Interval { low: low as f64, high: high.map(|ns| ns as f64) }
    }
}

/// Returns how far the estimated share `p` may be from the true one; `None` when there are too few batches to say.
fn share_margin(p: f64, batches: &[Ratio]) -> Option<f64> {
    let calls: f64 = batches.iter().map(|b| b.whole).sum();
    let used = batches.iter().filter(|b| b.whole > 0.0).count();
    if used < 2 {
        return None;
    }
    let between = ratio_error(batches)?;
    let independent = (p * (1.0 - p) / calls).sqrt();
    Some(student(used - 1) * between.max(independent))
}

/// Returns the interval of a rate, given for each batch its calls (`part`) and its observed seconds (`whole`).
pub(super) fn rate_interval(batches: &[Ratio]) -> Interval {
    let (calls, seconds) = batches.iter().fold((0.0, 0.0), |(c, s), b| (c + b.part, s + b.whole));
    let (true, Some(between)) = (seconds > 0.0, ratio_error(batches)) else {
        return Interval { low: 0.0, high: None };
    };
    let rate = calls / seconds;
    // A call that was not seen may still happen: Poisson's error, with at least one call.
    let independent = f64::max(calls, 1.0).sqrt() / seconds;
    let margin = student(batches.len() - 1) * between.max(independent);
    Interval { low: (rate - margin).max(0.0), high: Some(rate + margin) }
}

/// Returns the standard error of the ratio of sums; `None` for fewer than two batches.
fn ratio_error(batches: &[Ratio]) -> Option<f64> {
    let n = batches.len() as f64;
    let (part, whole) = batches.iter().fold((0.0, 0.0), |(p, w), b| (p + b.part, w + b.whole));
    if batches.len() < 2 || whole <= 0.0 {
        return None;
    }
    let ratio = part / whole;
    let squares: f64 = batches.iter().map(|b| (b.part - ratio * b.whole).powi(2)).sum();
    Some((n / (n - 1.0) * squares).sqrt() / whole)
}

/// Student's t for 99 % (two-sided), by degrees of freedom; of the next lower one that the table has.
fn student(freedom: usize) -> f64 {
    const TABLE: [(usize, f64); 17] = [
        (120, 2.617),
        (60, 2.660),
        (40, 2.704),
        (30, 2.750),
        (25, 2.787),
        (20, 2.845),
        (15, 2.947),
        (12, 3.055),
        (10, 3.169),
        (8, 3.355),
        (7, 3.499),
        (6, 3.707),
        (5, 4.032),
        (4, 4.604),
        (3, 5.841),
        (2, 9.925),
        (1, 63.657),
    ];
    TABLE.iter().find(|&&(df, _)| freedom >= df).map_or(f64::INFINITY, |&(_, t)| t)
}

#[cfg(test)]
mod tests {
    use mvedsua_common::histogram::{BUCKETS, bucket};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn counts(durations: &[u64]) -> Vec<u64> {
        let mut counts = vec![0; BUCKETS];
        durations.iter().for_each(|&ns| counts[bucket(ns)] += 1);
        counts
    }

    #[test]
    fn percentiles_of_finished_calls_are_the_plain_ones() {
        let durations: Vec<u64> = (1..=1000).map(|i| i * 1000).collect();
        let (finished, unfinished) = (counts(&durations), counts(&[]));
        let observed = Observed { finished: &finished, unfinished: &unfinished };
        for (p, expected) in [(0.5, 500_000_u64), (0.9, 900_000), (0.99, 990_000), (0.999, 999_000)] {
            let quantile = observed.quantile(p);
            assert_eq!(quantile.bound, Bound::Value);
            assert!(quantile.ns.abs_diff(expected) * 16 <= expected, "p{p}: {} for {expected}", quantile.ns);
        }
    }

    #[test]
    fn cut_off_calls_are_neither_dropped_nor_taken_for_short_ones() {
        // Durations of 1 to 100 ms, seen through windows that cut each off after a random time.
        let mut rng = StdRng::seed_from_u64(7);
        let (mut ended, mut cut) = (vec![], vec![]);
        for _ in 0..200_000 {
            let (duration, seen) = (rng.random_range(1_000_000..100_000_000_u64), rng.random_range(1..80_000_000_u64));
            if duration <= seen { ended.push(duration) } else { cut.push(seen) }
        }
        let (finished, unfinished) = (counts(&ended), counts(&cut));
        let observed = Observed { finished: &finished, unfinished: &unfinished };
        let median = observed.quantile(0.5);
        assert!(median.ns.abs_diff(50_500_000) < 4_000_000, "median {}", median.ns);
        let far = observed.quantile(0.99);
        assert_eq!(far.bound, Bound::AtLeast, "nobody watched for that long");
        assert!(far.ns >= 70_000_000);
    }

    #[test]
    fn nothing_finished_means_at_least() {
        let (finished, unfinished) = (counts(&[]), counts(&[5_000, 9_000]));
        let quantile = Observed { finished: &finished, unfinished: &unfinished }.quantile(0.5);
        assert_eq!((quantile.bound, quantile.ns), (Bound::AtLeast, lowest(bucket(9_000))));
    }

    /// The stated confidence holds where it is hard: whole windows are slow together.
    #[test]
    fn intervals_hold_the_truth_as_often_as_stated() {
        let mut rng = StdRng::seed_from_u64(42);
        let (mut median_held, mut rate_held) = (0, 0);
        let rounds = 400;
        for _ in 0..rounds {
            let (mut all, mut batches, mut rates) = (vec![], vec![], vec![]);
            for _ in 0..30 {
                let shift = rng.random_range(0..200_u64);
                let n = rng.random_range(50..150);
                let batch: Vec<u64> = (0..n).map(|_| 1000 + shift + rng.random_range(0..100_u64)).collect();
                rates.push(Ratio { part: batch.len() as f64, whole: 0.02 });
                all.extend_from_slice(&batch);
                batches.push(batch);
            }
            let (finished, unfinished) = (counts(&all), counts(&[]));
            let observed = Observed { finished: &finished, unfinished: &unfinished };
            let at = bucket(observed.quantile(0.5).ns);
            let ratios: Vec<Ratio> = batches
                .iter()
                .map(|b| Ratio { part: b.iter().filter(|&&ns| bucket(ns) <= at).count() as f64, whole: b.len() as f64 })
                .collect();
            let held = |interval: Interval, truth: f64| {
                u32::from(interval.low <= truth && interval.high.is_none_or(|high| truth <= high))
            };
            median_held += held(observed.quantile_interval(0.5, &ratios), 1149.5);
            rate_held += held(rate_interval(&rates), 99.5 / 0.02);
        }
        assert!(median_held * 100 >= rounds * 98, "the median's interval held {median_held} of {rounds} times");
        assert!(rate_held * 100 >= rounds * 97, "the rate's interval held {rate_held} of {rounds} times");
    }

    #[test]
    fn one_batch_says_nothing_of_the_error() {
        let finished = counts(&[100; 50]);
        let observed = Observed { finished: &finished, unfinished: &counts(&[]) };
        let one = [Ratio { part: 50.0, whole: 50.0 }];
        assert_eq!(observed.quantile_interval(0.5, &one), Interval { low: 0.0, high: None });
        assert_eq!(rate_interval(&one), Interval { low: 0.0, high: None });
    }
}
