//! How fast the log fills.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far back the growth looks.
const WINDOW: Duration = Duration::from_secs(5);

/// The fill of the log over the last few seconds.
#[derive(Debug, Default)]
pub(super) struct Growth {
    samples: VecDeque<(Instant, u64)>,
}

impl Growth {
    pub(super) fn add(&mut self, at: Instant, bytes: u64) {
        self.samples.push_back((at, bytes));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(first, _)| at - *first > WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Returns bytes a second, negative while the log is worked off.
    #[expect(clippy::cast_precision_loss, reason = "a prediction, not a count")]
    pub(super) fn rate(&self) -> f64 {
        match (self.samples.front(), self.samples.back()) {
            (Some((from, before)), Some((to, after))) if to > from => {
                (*after as f64 - *before as f64) / (*to - *from).as_secs_f64()
            }
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut growth = Growth::default();
        assert!(growth.rate().abs() < f64::EPSILON);
        for second in 0..20 {
            growth.add(start + Duration::from_secs(second), second.min(10) * 100);
        }
        assert!(growth.rate().abs() < f64::EPSILON, "it has not grown for nine seconds: {}", growth.rate());
        growth.add(start + Duration::from_secs(20), 0);
        assert!(growth.rate() < 0.0);
    }
}
