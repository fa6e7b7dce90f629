//! Holding the leader back, so that a follower that is slower comes close enough for the roles to change.
//!
//! The leader does not wait for the follower otherwise. It is held back only while somebody waits for the follower to be
//! close: a promotion or a rollback that was asked for, or an update that would never come to be compared, or whose log would
//! grow without an end. The delay is small, bounded, the same for every record, and shown in `status`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The shortest delay; a sleep of less takes as long.
const LEAST: Duration = Duration::from_micros(50);

/// How much the leader is held back; set by the session, obeyed by the recorder.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    per_record_us: AtomicU64,
    total_us: AtomicU64,
    most_behind: AtomicU64,
}

impl Pace {
    /// Returns the delay of each record.
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_micros(self.per_record_us.load(Ordering::Relaxed))
    }

    /// Returns how long the leader was held back in all.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_micros(self.total_us.load(Ordering::Relaxed))
    }

    /// Returns how many records the follower may be behind before the leader waits for it; 0 where it never does.
    pub(crate) fn most_behind(&self) -> u64 {
        self.most_behind.load(Ordering::Relaxed)
    }

    /// Lets the leader wait where the follower is further behind.
    pub(crate) fn wait_beyond(&self, records: u64) {
        self.most_behind.store(records, Ordering::Relaxed);
    }

    /// Holds the leader back twice as much as before, up to a limit.
    pub(crate) fn slower(&self, limit: Duration) {
        self.set((self.delay() * 2).clamp(LEAST, limit));
    }

    /// Holds the leader back no more.
    pub(crate) fn release(&self) {
        self.set(Duration::ZERO);
    }

    fn set(&self, delay: Duration) {
        self.per_record_us.store(delay.as_micros() as u64, Ordering::Relaxed);
    }

    /// Waits for the time of one record.
    pub(crate) fn keep(&self) {
        let delay = self.delay();
        if !delay.is_zero() {
            let begun = Instant::now();
            std::thread::sleep(delay);
            self.total_us.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_is_bounded_and_told() {
        let pace = Pace::default();
        pace.keep();
        assert_eq!((pace.delay(), pace.total()), (Duration::ZERO, Duration::ZERO));
        pace.slower(Duration::from_millis(1));
        assert_eq!(pace.delay(), LEAST);
        for _ in 0..20 {
            pace.slower(Duration::from_millis(1));
        }
        assert_eq!(pace.delay(), Duration::from_millis(1));
        pace.keep();
        assert!(pace.total() >= Duration::from_millis(1));
        pace.release();
        assert_eq!(pace.delay(), Duration::ZERO);
    }
}
