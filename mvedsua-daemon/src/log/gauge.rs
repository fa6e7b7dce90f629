//! How full the log is, how it grows, and when it will be full.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::shared::Shared;

/// Reads a log's fill from any thread.
#[derive(Clone)]
pub struct Gauge {
    shared: Arc<Shared>,
}

/// The fill of a log at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Records appended, and consumed, since the log was opened.
    pub appended: u64,
    pub consumed: u64,
    /// Bytes in use.
    pub memory: u64,
    pub disk: u64,
    /// Bytes that may be used.
    pub memory_budget: u64,
    pub disk_budget: u64,
}

impl Reading {
    /// Returns how many records wait.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.appended.saturating_sub(self.consumed)
    }
}

impl Gauge {
    pub(super) fn new(shared: Arc<Shared>) -> Gauge {
        Gauge { shared }
    }

    /// Reads the fill. The numbers are taken one after the other; each is exact, their sum is of this instant or a little later.
    #[must_use]
    pub fn read(&self) -> Reading {
        let consumed = self.shared.consumed.load(SeqCst);
        Reading {
            consumed,
            appended: self.shared.appended.load(SeqCst),
            memory: self.shared.memory_used(),
            disk: self.shared.disk.load(SeqCst),
            memory_budget: self.shared.memory_budget,
            disk_budget: self.shared.disk_budget,
        }
    }
}

impl Gauge {
    /// Says that the disk hangs under records that the reader has not got, where it does: nobody can wait for them.
    #[must_use]
    pub fn hangs(&self) -> Option<String> {
        let state = self.shared.lock();
        let so_far = state.hangs().filter(|_| state.spilled > 0)?;
        Some(format!("{} records wait for a disk that has not answered for {} s", state.spilled, so_far.as_secs()))
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

/// What two readings say about the future.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Records appended, and consumed, per second.
    pub appended_per_s: f64,
    pub consumed_per_s: f64,
    /// Bytes (memory and disk) per second by which the log grows; negative when it shrinks.
    pub growth_per_s: f64,
    /// When both budgets are used up if nothing changes; `None` when the log does not grow.
    pub full_in: Option<Duration>,
    /// When the backlog is worked off if nothing changes; `None` when it does not shrink.
    pub empty_in: Option<Duration>,
}

/// Predicts from two readings that lie `elapsed` apart.
#[must_use]
pub fn forecast(earlier: &Reading, later: &Reading, elapsed: Duration) -> Forecast {
    let seconds = elapsed.as_secs_f64();
    if seconds <= 0.0 {
        return Forecast::default();
    }
    let rate = |from: u64, to: u64| (to as f64 - from as f64) / seconds;
    let growth = rate(earlier.memory + earlier.disk, later.memory + later.disk);
    let room = (later.memory_budget + later.disk_budget).saturating_sub(later.memory + later.disk);
    let drain = -rate(earlier.records(), later.records());
    let after = |amount: u64, per_s: f64| {
        // A rate of next to nothing gives a time that no `Duration` holds: that is never.
        (per_s > 0.0).then(|| Duration::try_from_secs_f64(amount as f64 / per_s).ok()).flatten()
    };
    Forecast {
        appended_per_s: rate(earlier.appended, later.appended),
        consumed_per_s: rate(earlier.consumed, later.consumed),
        growth_per_s: growth,
        full_in: after(room, growth),
        empty_in: after(later.records(), drain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(appended: u64, consumed: u64, memory: u64, disk: u64) -> Reading {
        Reading { appended, consumed, memory, disk, memory_budget: 1000, disk_budget: 3000 }
    }

    #[test]
    fn a_growing_log_is_predicted_to_be_full() {
        let forecast = forecast(&reading(0, 0, 0, 0), &reading(200, 100, 1000, 1000), Duration::from_secs(2));
        assert_eq!(forecast.appended_per_s, 100.0);
        assert_eq!(forecast.consumed_per_s, 50.0);
        assert_eq!(forecast.growth_per_s, 1000.0);
        assert_eq!(forecast.full_in, Some(Duration::from_secs(2)));
        assert_eq!(forecast.empty_in, None);
    }

    #[test]
    fn a_shrinking_log_is_predicted_to_be_empty() {
        let forecast = forecast(&reading(100, 0, 500, 0), &reading(110, 60, 250, 0), Duration::from_secs(1));
        assert_eq!(forecast.full_in, None);
        assert_eq!(forecast.empty_in, Some(Duration::from_secs(1)));
    }

    #[test]
    fn no_time_between_two_readings_predicts_nothing() {
        let at = reading(100, 0, 500, 0);
        assert_eq!(forecast(&at, &at, Duration::ZERO), Forecast::default());
    }
}
