//! How far followers have agreed to a stream, and how many of them must have for the leader's outputs to leave it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whose agreement an output waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Quorum {
    /// All followers that are left have produced the same.
    All,
    /// More than half of the versions that are left have, the leader among them.
    Majority,
}

/// What one follower has agreed to.
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    /// How many records of the stream.
    pub(crate) agreed: Arc<AtomicU64>,
    /// It was dropped.
    pub(crate) gone: Arc<AtomicBool>,
}

/// The followers of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Agreement {
    pub(crate) quorum: Quorum,
    pub(crate) voices: Vec<Voice>,
}

impl Agreement {
    /// Returns how many records enough followers have agreed to.
    pub(crate) fn reached(&self) -> u64 {
        let left = self.voices.iter().filter(|voice| !voice.gone.load(Ordering::Acquire));
        let mut agreed: Vec<u64> = left.map(|voice| voice.agreed.load(Ordering::Acquire)).collect();
        agreed.sort_unstable_by(|one, other| other.cmp(one));
        let needed = match self.quorum {
            Quorum::All => agreed.len(),
            // With the leader more than half of one more.
            Quorum::Majority => agreed.len().div_ceil(2),
        };
        needed.checked_sub(1).map_or(u64::MAX, |last| agreed[last])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(quorum: Quorum, voices: &[(u64, bool)]) -> u64 {
        let voice = |(agreed, gone): &(u64, bool)| Voice {
            agreed: Arc::new(AtomicU64::new(*agreed)),
            gone: Arc::new(AtomicBool::new(*gone)),
        };
        Agreement { quorum, voices: voices.iter().map(voice).collect() }.reached()
    }

    #[test]
    fn all_means_the_slowest_and_majority_the_one_in_the_middle() {
        assert_eq!(reached(Quorum::All, &[(3, false), (9, false)]), 3);
        assert_eq!(reached(Quorum::All, &[(3, true), (9, false)]), 9);
        // Of three versions two are a majority, of four three.
        assert_eq!(reached(Quorum::Majority, &[(3, false), (9, false)]), 9);
        assert_eq!(reached(Quorum::Majority, &[(3, false), (9, false), (5, false)]), 5);
        assert_eq!(reached(Quorum::Majority, &[(3, false)]), 3);
        assert_eq!(reached(Quorum::All, &[(3, true)]), u64::MAX, "nobody is left to wait for");
    }
}
