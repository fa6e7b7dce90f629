//! What becomes of a client that cannot be accepted.

use std::io;
use std::time::Duration;

/// How long nobody is accepted after that.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Returns who was accepted. Where nobody could be, it waits: there are no descriptors left, most likely, and they come back when
/// clients leave.
pub(crate) async fn or_wait<T>(accepted: io::Result<T>, whose: &str) -> Option<T> {
    match accepted {
        Ok(client) => Some(client),
        Err(e) => {
            tracing::warn!(error = %e, "accepting a client of {whose}");
            tokio::time::sleep(AGAIN_AFTER).await;
            None
        }
    }
}
