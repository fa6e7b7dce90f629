//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Polls `condition` until it returns something, and panics with `what` when that takes longer than `limit`.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    try_wait_for(limit, &mut condition).unwrap_or_else(|| panic!("waited {limit:?} in vain for {what}"))
}

/// Polls `condition` until it returns something or `limit` has passed.
pub fn try_wait_for<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
