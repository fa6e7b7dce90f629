//! Tells how long a thread has been at one piece of work, so that others see that a disk hangs.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After so long a disk is said to hang.
const HANGS_AFTER: Duration = Duration::from_secs(2);

/// What a thread is at.
#[derive(Debug, Default)]
pub(super) struct Busy(Mutex<Option<Instant>>);

impl Busy {
    /// Does a piece of work, and lets others see since when.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.set(Some(Instant::now()));
        let done = work();
        self.set(None);
        done
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Returns whether one piece of work has taken at least so long.
    pub(super) fn for_at_least(&self, long: Duration) -> bool {
        self.so_far().is_some_and(|so_far| so_far >= long)
    }

    /// Returns how long the present piece of work has taken, where there is one.
    pub(super) fn so_far(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }

    /// Says that the disk hangs, where it does.
    pub(super) fn trouble(&self) -> Option<String> {
        let so_far = self.so_far().filter(|so_far| *so_far >= HANGS_AFTER)?;
        Some(format!("the disk has not answered for {} s", so_far.as_secs()))
    }
}
