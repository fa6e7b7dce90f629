//! Durations counted in bins, as they are told and kept: coarser than the kernel's buckets, and without empty ones.

use mvedsua_common::histogram::{BUCKETS, highest, lowest};
use serde::{Deserialize, Serialize};

/// Buckets of the kernel to a bin, so that an octave has four bins.
const BUCKETS_TO_A_BIN: usize = 4;

/// How many calls took how long: pairs of the lowest duration of a bin, in nanoseconds, and a count, ascending.
///
/// A bin is a quarter of an octave: its longest duration is at most a quarter more than its shortest. Empty bins are left
/// out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bins(Vec<(u64, u64)>);

impl Bins {
    /// Puts the kernel's buckets together.
    #[must_use]
    pub fn of(buckets: &[u64]) -> Bins {
        let bins = buckets.chunks(BUCKETS_TO_A_BIN).enumerate();
        let counted = bins.map(|(bin, counts)| (lowest(bin * BUCKETS_TO_A_BIN), counts.iter().sum::<u64>()));
        Bins(counted.filter(|(_, count)| *count > 0).collect())
    }

    /// Returns the lowest duration of each bin that is not empty, and its count, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Returns how many calls were timed.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Returns what was added since `earlier`, or `None` where that counts calls that this does not: then this was begun
    /// anew.
    #[must_use]
    pub fn since(&self, earlier: &Bins) -> Option<Bins> {
        let mut grown = Vec::with_capacity(self.0.len());
        let mut before = earlier.0.iter().copied().peekable();
        for &(from, count) in &self.0 {
            let had = match before.peek() {
                Some((bin, had)) if *bin == from => {
                    let had = *had;
                    before.next();
                    had
                }
                Some((bin, _)) if *bin < from => return None,
                Some(_) | None => 0,
            };
            let more = count.checked_sub(had)?;
            if more > 0 {
                grown.push((from, more));
            }
        }
        if before.next().is_some() { None } else { Some(Bins(grown)) }
    }

    /// Returns the duration below which a share `p` of the calls took, within an eighth: the middle of its bin.
    #[must_use]
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    pub fn quantile(&self, p: f64) -> Option<u64> {
        let rank = ((self.total() as f64 * p).ceil() as u64).max(1);
        let mut passed = 0;
        self.0.iter().find_map(|&(from, count)| {
            passed += count;
            (passed >= rank).then(|| from + (end(from) - from) / 2)
        })
    }

    /// Returns the longest duration that the last bin holds.
    #[must_use]
    pub fn longest(&self) -> Option<u64> {
        self.0.last().map(|&(from, _)| end(from))
    }

    /// Returns the counts of whole octaves, from the first that is not empty to the last: the binary logarithm of the
    /// shortest duration, and the count.
    #[must_use]
    pub fn octaves(&self) -> Vec<(u32, u64)> {
        let octave = |ns: u64| ns.max(1).ilog2();
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else { return vec![] };
        let mut octaves: Vec<(u32, u64)> = (octave(first.0)..=octave(last.0)).map(|octave| (octave, 0)).collect();
        let base = octave(first.0);
        for &(from, count) in &self.0 {
            if let Some(slot) = octaves.get_mut((octave(from) - base) as usize) {
                slot.1 += count;
            }
        }
        octaves
    }
}

/// Returns the longest duration of the bin that begins with `from`.
fn end(from: u64) -> u64 {
    let first = mvedsua_common::histogram::bucket(from);
    let last = first / BUCKETS_TO_A_BIN * BUCKETS_TO_A_BIN + BUCKETS_TO_A_BIN - 1;
    // The last bucket has no end.
    if last >= BUCKETS - 1 { lowest(BUCKETS - 1) } else { highest(last) }
}

#[cfg(test)]
mod tests {
    use mvedsua_common::histogram::bucket;

    use super::*;

    fn bins(durations: &[(u64, u64)]) -> Bins {
        let mut buckets = vec![0; BUCKETS];
        durations.iter().for_each(|&(ns, count)| buckets[bucket(ns)] += count);
        Bins::of(&buckets)
    }

    #[test]
    fn quantiles_are_within_an_eighth() {
        let bins = bins(&[(1_000, 90), (50_000, 9), (7_000_000, 1)]);
        assert_eq!(bins.total(), 100);
        for (p, ns) in [(0.5, 1_000), (0.9, 1_000), (0.99, 50_000), (1.0, 7_000_000)] {
            let found = bins.quantile(p).expect("there are calls");
            assert!(found.abs_diff(ns) * 8 <= ns, "{p}: {found} for {ns}");
        }
        assert!(bins.longest() >= Some(7_000_000));
        assert_eq!(Bins::default().quantile(0.5), None);
    }

    #[test]
    fn what_was_added_is_known_unless_counting_began_anew() {
        let (before, after) = (bins(&[(1_000, 5), (9_000, 1)]), bins(&[(1_000, 7), (9_000, 1), (70_000, 3)]));
        assert_eq!(after.since(&before), Some(bins(&[(1_000, 2), (70_000, 3)])));
        assert_eq!(after.since(&Bins::default()).as_ref(), Some(&after));
        assert_eq!(before.since(&after), None);
        assert_eq!(bins(&[(70_000, 9)]).since(&before), None);
    }

    #[test]
    fn octaves_have_no_holes_and_lose_nothing() {
        let bins = bins(&[(0, 1), (1_023, 4), (1_024, 2), (1_900, 3), (1 << 50, 1)]);
        let octaves = bins.octaves();
        assert_eq!(octaves.iter().map(|(_, count)| count).sum::<u64>(), bins.total());
        assert!(octaves.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1));
        assert!(octaves.contains(&(10, 5)) && octaves.contains(&(9, 4)), "{octaves:?}");
    }

    #[test]
    fn bins_are_plain_pairs_in_json() {
        let text = serde_json::to_string(&bins(&[(1_024, 2)])).expect("it serialises");
        assert_eq!(text, "[[1024,2]]");
    }
}
