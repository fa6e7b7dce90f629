//! Wall-clock time as it is written down.
//!
//! It may jump at any time, so it is never subtracted: how long something takes, and how long it may, is told by
//! `CLOCK_MONOTONIC` alone, which also stands still while the machine is suspended.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the Unix time in milliseconds.
#[must_use]
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(ahead::ms())
}

/// Returns a Unix time in milliseconds as people read it, in UTC.
#[must_use]
pub(crate) fn show_ms(ms: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// By how much the clock is ahead of the machine's.
#[cfg(not(test))]
mod ahead {
    pub(super) fn ms() -> i64 {
        0
    }
}

/// By how much the clock of a test is ahead of the machine's.
#[cfg(test)]
pub(super) mod ahead {
    use std::cell::Cell;

    thread_local!(static AHEAD_MS: Cell<i64> = const { Cell::new(0) });

    pub(super) fn ms() -> i64 {
        AHEAD_MS.get()
    }

    /// Sets the clock of this thread, on which the whole control plane of a test runs.
    pub(in crate::control) fn set_ms(ahead: i64) {
        AHEAD_MS.set(ahead);
    }
}
