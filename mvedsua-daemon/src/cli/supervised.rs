//! What the daemon tells a supervisor that has started it as a `Type=notify` service.
//!
//! Each call does nothing where no supervisor has asked (`NOTIFY_SOCKET`, `WATCHDOG_USEC`). What cannot be told is no
//! reason to end: the supervisor sees by itself that it was told nothing.

use sd_notify::NotifyState;

/// Says that requests are answered.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that the daemon ends, and undoes updates before that.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says again and again that the control plane still works, for as long as the runtime lives.
///
/// It is a task like those that answer requests: when they stand still, so does this, and the supervisor starts the
/// daemon anew. The services go on meanwhile, and the new daemon cleans up.
pub(super) fn keep_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    tokio::spawn(async move {
        let mut turns = tokio::time::interval(limit / 3);
        loop {
            turns.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    });
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "the supervisor cannot be told how the daemon is");
    }
}
