//! The bucket arithmetic of latency histograms.
//!
//! The eBPF side finds the bucket of a duration, the daemon turns buckets back into durations; both use this file, so
//! they cannot disagree. Buckets are log-linear: durations below [`LINEAR`] nanoseconds have a bucket each, and every
//! octave above is cut into [`LINEAR`] buckets of equal width. A bucket is therefore at most 1/16 as wide as its lowest
//! value, and any value that stands for the whole bucket is wrong by at most 1/16.

/// How many buckets an octave is cut into: 16, for a relative error of at most 1/16.
pub const LINEAR: u64 = 1 << LINEAR_BITS;
const LINEAR_BITS: u32 = 4;

/// Durations of `2^MAX_BITS` ns (4.9 hours) and more share the last bucket.
pub const MAX_BITS: u32 = 44;

/// How many buckets a histogram has.
pub const BUCKETS: usize = ((MAX_BITS - LINEAR_BITS + 1) as usize) << LINEAR_BITS;

/// Returns the bucket of a duration in nanoseconds; always below [`BUCKETS`].
#[must_use]
#[inline(always)]
pub const fn bucket(ns: u64) -> usize {
    if ns < LINEAR {
        return ns as usize;
    }
    if ns >> MAX_BITS != 0 {
        return BUCKETS - 1;
    }
    let exponent = floor_log2(ns);
    let shift = exponent - LINEAR_BITS;
    (((shift + 1) as usize) << LINEAR_BITS) + ((ns >> shift) - LINEAR) as usize
}

/// Returns the lowest duration of a bucket, in nanoseconds.
#[must_use]
pub const fn lowest(bucket: usize) -> u64 {
    let row = bucket >> LINEAR_BITS;
    if row == 0 {
        return bucket as u64;
    }
    let column = (bucket as u64) & (LINEAR - 1);
    (LINEAR + column) << (row - 1)
}

/// Returns the highest duration of a bucket, in nanoseconds; the last bucket has no upper end.
#[must_use]
pub const fn highest(bucket: usize) -> u64 {
    if bucket >= BUCKETS - 1 { u64::MAX } else { lowest(bucket + 1) - 1 }
}

/// Returns the duration that stands for a bucket: its middle, so that the error is at most 1/32 either way.
#[must_use]
pub const fn middle(bucket: usize) -> u64 {
    if bucket >= BUCKETS - 1 {
        return lowest(BUCKETS - 1);
    }
    let low = lowest(bucket);
    low + (highest(bucket) - low) / 2
}

/// Finds the highest set bit of a value below `2^63`, by halving, without branches: durations vary, so branches on them
/// would often be predicted wrongly. BPF has no instruction that counts leading zeros.
#[inline(always)]
const fn floor_log2(value: u64) -> u32 {
    let mut v = value;
    let mut log = 0;
    let mut half = 32;
    while half >= 4 {
        // 1 where `v` has a bit at `half` or above: then the subtraction wraps.
        let above = ((1 << half) - 1_u64).wrapping_sub(v) >> 63;
        let shift = above * half;
        v >>= shift;
        log += shift;
        half /= 2;
    }
    // The logarithms of 0 to 15, four bits each.
    (log + ((0x3333_3333_2222_1100 >> (v * 4)) & 0xf)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values around every power of two and every bucket's edges.
    fn interesting() -> impl Iterator<Item = u64> {
        let powers = (0..MAX_BITS).flat_map(|bit| {
            let p = 1_u64 << bit;
            [p.saturating_sub(1), p, p + 1, p + p / 3, p + p / 2]
        });
        let edges = (0..BUCKETS - 1).flat_map(|b| [lowest(b), highest(b), middle(b)]);
        powers.chain(edges)
    }

    #[test]
    fn log2_is_the_highest_bit() {
        for v in interesting().filter(|&v| v > 0) {
            assert_eq!(floor_log2(v), 63 - v.leading_zeros(), "of {v}");
        }
        assert_eq!(floor_log2(u64::MAX / 2), 62);
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        for v in interesting() {
            let b = bucket(v);
            assert!(lowest(b) <= v && v <= highest(b), "{v} is not in bucket {b}");
        }
    }

    #[test]
    fn buckets_join_without_holes_and_in_order() {
        for b in 0..BUCKETS - 1 {
            assert_eq!(bucket(lowest(b)), b);
            assert_eq!(bucket(highest(b)), b);
            assert_eq!(highest(b) + 1, lowest(b + 1));
        }
    }

    #[test]
    fn relative_error_is_at_most_one_sixteenth() {
        for v in interesting().filter(|&v| v > 0) {
            let b = bucket(v);
            for stands_for in [lowest(b), middle(b), highest(b)] {
                assert!(stands_for.abs_diff(v) * 16 <= v, "{v} shown as {stands_for}");
            }
            assert!(middle(b).abs_diff(v) * 32 <= v, "{v} shown as its bucket's middle {}", middle(b));
        }
    }

    #[test]
    fn whatever_is_too_long_is_in_the_last_bucket() {
        for v in [1 << MAX_BITS, 1 << 60, u64::MAX] {
            assert_eq!(bucket(v), BUCKETS - 1);
        }
        assert_eq!(bucket((1 << MAX_BITS) - 1), BUCKETS - 1);
        assert!(bucket(lowest(BUCKETS - 1) - 1) < BUCKETS - 1);
    }
}
