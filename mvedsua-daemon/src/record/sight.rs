//! How much of what the leader does is recorded without stops, for those who look on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Written by the recorder, read by whoever asks for the status.
#[derive(Clone, Debug, Default)]
pub struct Sight(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    without_stops: AtomicU64,
    stepped: Mutex<Option<String>>,
}

impl Sight {
    /// Returns how many calls were recorded without a stop.
    #[must_use]
    pub fn without_stops(&self) -> u64 {
        self.0.without_stops.load(Ordering::Relaxed)
    }

    /// Returns why the leader stops at each call, if it does so for good.
    #[must_use]
    pub fn why_stepped(&self) -> Option<String> {
        self.0.stepped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn count(&self) {
        self.0.without_stops.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn is_stepped(&self, why: &str) {
        *self.0.stepped.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }
}
