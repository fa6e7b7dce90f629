//! Whether the daemon grew in a soak.
//!
//! The first third of the time is for warming up: until then buffers, caches and the history find their size. What follows is
//! judged by its trend and not by two points of it, since what is resident at an instant has the allocator's scatter. The
//! trend is the median of the slopes between all pairs of looks (Theil and Sen), which no single look can bend, over the
//! number of updates that were over by then: what is kept of an update is what would let a daemon grow.
//!
//! Memory may grow by [`KIB_AN_UPDATE`]: what the history keeps of an update, until it has as many as it keeps, comes to
//! more than that only where updates fail. Less than [`SCATTER_KIB`] in all is never held against it; so a soak of a minute
//! finds what leaks some 25 KiB an update, and one of half an hour what leaks two. Of descriptors and threads the median of the
//! last quarter may not exceed that of the first. No zombie, no entry in the journal and nothing in the spill folder may
//! be there between two rounds.

use anyhow::{Result, ensure};
use serde::Serialize;

/// What the daemon's resident memory may grow by with each update.
const KIB_AN_UPDATE: f64 = 2.0;
/// What counts as growth at all.
const SCATTER_KIB: f64 = 1024.0;

/// The daemon between two rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Look {
    pub(super) seconds: f64,
    /// Updates that are over, of all servers.
    pub(super) updates: u64,
    pub(super) resident_kib: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
    pub(super) zombies: u64,
    /// Entries of the journal and spill files.
    pub(super) left: u64,
}

/// What a soak showed of the daemon.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Verdict {
    /// After warming up, and at the end: the median of each number by itself.
    pub(super) early: Look,
    pub(super) late: Look,
    /// How many updates there were between warming up and the end, and what memory grew by with each.
    pub(super) updates: u64,
    pub(super) kib_an_update: f64,
}

/// Judges what was seen, in the order of time; adds to `faults` what may not be.
///
/// # Errors
///
/// Where there is nothing to judge.
pub(super) fn judge(looks: &[Look], faults: &mut Vec<String>) -> Result<Verdict> {
    let warm = &looks[looks.len() / 3..];
    let quarter = warm.len().div_ceil(4);
    ensure!(quarter > 0, "there was no round");
    let (early, late) = (median(&warm[..quarter]), median(&warm[warm.len() - quarter..]));
    let updates = warm[warm.len() - 1].updates - warm[0].updates;
    let kib_an_update = trend(warm);
    let grown = kib_an_update * updates as f64;
    if kib_an_update > KIB_AN_UPDATE && grown > SCATTER_KIB {
        faults.push(format!(
            "the daemon's memory grew by {kib_an_update:.1} KiB an update, {grown:.0} KiB in {updates} updates"
        ));
    }
    if late.descriptors > early.descriptors {
        faults.push(format!("the daemon's descriptors grew from {} to {}", early.descriptors, late.descriptors));
    }
    if late.threads > early.threads {
        faults.push(format!("the daemon's threads grew from {} to {}", early.threads, late.threads));
    }
    if let Some(look) = looks.iter().find(|look| look.zombies > 0 || look.left > 0) {
        faults.push(format!(
            "after {:.0} s the daemon had {} zombies, and {} files of updates that were over",
            look.seconds, look.zombies, look.left
        ));
    }
    Ok(Verdict { early, late, updates, kib_an_update })
}

/// Returns by how many KiB memory grows with an update: the median slope between two looks.
fn trend(looks: &[Look]) -> f64 {
    let slope = |one: &Look, other: &Look| {
        let updates = other.updates.checked_sub(one.updates).filter(|updates| *updates > 0)?;
        Some((other.resident_kib as f64 - one.resident_kib as f64) / updates as f64)
    };
    let pairs = looks.iter().enumerate().flat_map(|(at, one)| looks[at + 1..].iter().map(move |other| (one, other)));
    let mut slopes: Vec<f64> = pairs.filter_map(|(one, other)| slope(one, other)).collect();
    slopes.sort_unstable_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied().unwrap_or(0.0)
}

/// The median of each number by itself.
fn median(looks: &[Look]) -> Look {
    let of = |number: fn(&Look) -> u64| {
        let mut numbers: Vec<u64> = looks.iter().map(number).collect();
        numbers.sort_unstable();
        numbers[numbers.len() / 2]
    };
    Look {
        seconds: looks[looks.len() / 2].seconds,
        updates: of(|look| look.updates),
        resident_kib: of(|look| look.resident_kib),
        descriptors: of(|look| look.descriptors),
        threads: of(|look| look.threads),
        zombies: of(|look| look.zombies),
        left: of(|look| look.left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(memory: impl Fn(u64) -> u64, descriptors: impl Fn(u64) -> u64) -> Vec<Look> {
        let look = |round: u64| Look {
            seconds: round as f64,
            updates: 3 * round,
            resident_kib: memory(round),
            descriptors: descriptors(round),
            threads: 5,
            zombies: 0,
            left: 0,
        };
        (0..100).map(look).collect()
    }

    fn faults(looks: &[Look]) -> Vec<String> {
        let mut faults = Vec::new();
        judge(looks, &mut faults).expect("there are rounds");
        faults
    }

    #[test]
    fn scatter_and_warming_up_are_no_growth() {
        assert!(faults(&looks(|round| 10_000 + 2_000 * round.min(20) + round % 7 * 100, |_| 20)).is_empty());
        // One look that is quite different, at the end.
        assert!(faults(&looks(|round| 10_000 + round / 99 * 50_000, |_| 20)).is_empty());
    }

    #[test]
    fn growth_is_found() {
        assert_eq!(faults(&looks(|round| 10_000 + 18 * round + round % 7 * 100, |_| 20)).len(), 1);
        assert_eq!(faults(&looks(|_| 10_000, |round| 20 + round / 20)).len(), 1);
    }

    #[test]
    fn the_trend_is_that_of_an_update() {
        let looks = looks(|round| 10_000 + 300 * round, |_| 20);
        let verdict = judge(&looks, &mut Vec::new()).expect("there are rounds");
        assert!((verdict.kib_an_update - 100.0).abs() < 1e-9);
        assert_eq!(verdict.updates, 198);
    }
}
