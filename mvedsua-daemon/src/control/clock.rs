//! Wall-clock time as it is written down.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the Unix time in milliseconds.
#[must_use]
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a Unix time in milliseconds as people read it, in UTC.
#[must_use]
pub(crate) fn show_ms(ms: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}
