//! Batches: what was counted in one window, or in a run of neighbouring ones.
//!
//! They say how much windows differ (see [`super::estimate`]), and they are the intervals of the exported log. Their
//! number is bounded: when there are too many, neighbours are joined two by two.

use std::collections::HashMap;

use super::tally::Growth;

/// The most batches that are kept for a target.
pub(super) const MAX_BATCHES: usize = 64;

/// Which call of which process: the process's key in the daemon, the call's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CallKey {
    pub(super) process: u64,
    pub(super) nr: u32,
}

/// One call in one batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    pub(super) untimed: u64,
    pub(super) unfinished: u64,
    /// Bucket and count, ascending, without empty ones.
    pub(super) buckets: Vec<(u16, u32)>,
}

impl Share {
    /// Returns how many calls were entered.
    pub(super) fn entered(&self) -> u64 {
        self.unfinished + self.finished_by(usize::MAX)
    }

    /// Returns how many calls ended in `bucket` or below.
    pub(super) fn finished_by(&self, bucket: usize) -> u64 {
        self.buckets.iter().take_while(|(b, _)| usize::from(*b) <= bucket).map(|(_, count)| u64::from(*count)).sum()
    }

    fn merge(&mut self, other: &Share) {
        self.untimed += other.untimed;
        self.unfinished += other.unfinished;
        self.add(&other.buckets);
    }

    fn add(&mut self, buckets: &[(u16, u32)]) {
        if self.buckets.is_empty() {
            self.buckets = buckets.to_vec();
            return;
        }
        for &(bucket, count) in buckets {
            match self.buckets.binary_search_by_key(&bucket, |(b, _)| *b) {
                Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
                Err(at) => self.buckets.insert(at, (bucket, count)),
            }
        }
    }
}

/// What was counted in one window or several.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    /// Unix time of the beginning, milliseconds.
    pub(super) started_ms: u64,
    /// From the beginning of its first window to the end of its last.
    pub(super) elapsed_ns: u64,
    /// How much of that was observed.
    pub(super) observed_ns: u64,
    pub(super) calls: HashMap<CallKey, Share>,
}

impl Batch {
    pub(super) fn count(&mut self, key: CallKey, growth: &Growth) {
        let share = self.calls.entry(key).or_default();
        share.untimed += u64::from(growth.untimed);
        share.add(&growth.buckets);
    }

    pub(super) fn count_unfinished(&mut self, key: CallKey) {
        self.calls.entry(key).or_default().unfinished += 1;
    }

    /// Joins the batch that followed.
    fn join(&mut self, next: Batch) {
        self.elapsed_ns = next.started_ms.saturating_sub(self.started_ms) * 1_000_000 + next.elapsed_ns;
        self.observed_ns += next.observed_ns;
        for (key, share) in next.calls {
            self.calls.entry(key).or_default().merge(&share);
        }
    }

    /// Counts a call under another key.
    pub(super) fn rename(&mut self, from: CallKey, to: CallKey) {
        if let Some(share) = self.calls.remove(&from) {
            self.calls.entry(to).or_default().merge(&share);
        }
    }
}

/// Adds a batch, and halves their number by joining neighbours when there are too many.
pub(super) fn push(batches: &mut Vec<Batch>, batch: Batch) {
    batches.push(batch);
    if batches.len() > MAX_BATCHES {
        let mut joined = Vec::with_capacity(MAX_BATCHES);
        let mut rest = std::mem::take(batches).into_iter();
        while let Some(mut first) = rest.next() {
            if let Some(second) = rest.next() {
                first.join(second);
            }
            joined.push(first);
        }
        *batches = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_keeps_counts_and_time() {
        let key = CallKey { process: 1, nr: 0 };
        let mut batches = Vec::new();
        for i in 0..1000_u64 {
            let mut batch =
                Batch { started_ms: i * 400, elapsed_ns: 20_000_000, observed_ns: 20_000_000, ..Batch::default() };
            let bucket = (i % 5) as u16;
            batch.calls.insert(key, Share { untimed: 1, unfinished: 2, buckets: vec![(bucket, 3), (bucket + 10, 4)] });
            push(&mut batches, batch);
        }
        assert!(batches.len() <= MAX_BATCHES);
        let sum = |of: &dyn Fn(&Share) -> u64| batches.iter().map(|b| of(&b.calls[&key])).sum::<u64>();
        assert_eq!(sum(&|s| s.untimed), 1000);
        assert_eq!(sum(&|s| s.unfinished), 2000);
        assert_eq!(sum(&|s| s.finished_by(9)), 3000);
        assert_eq!(sum(&Share::entered), 9000);
        assert_eq!(batches.iter().map(|b| b.observed_ns).sum::<u64>(), 20_000_000_000);
        assert!(batches.windows(2).all(|w| w[0].started_ms < w[1].started_ms));
    }
}
