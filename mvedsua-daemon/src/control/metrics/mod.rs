//! What a monitoring system asks again and again: counts, latencies, stages, and what the daemon itself costs and loses.
//!
//! Nothing is kept for it but what the events add up to. At each scrape everything is read where it is: calls from the monitor,
//! stages and logs from the updates, the daemon's own costs from `/proc`. A series has the name of a target, never a process
//! number, a descriptor or a path; it ends with `detach`, or with the update. There is a limit to their number
//! ([`admission`]), so that a program with many calls fills nobody's disk.

mod admission;
mod calls;
mod daemon;
mod exposition;
mod family;
mod updates;

use std::sync::{Arc, Mutex, PoisonError};

use self::admission::Admission;
pub(crate) use self::exposition::Format;
use self::family::{Family, Kind, Value};
use super::daemon::Daemon;

/// What is remembered from one scrape to the next.
#[derive(Debug)]
pub(crate) struct Metrics {
    most_series: usize,
    admission: Mutex<Admission>,
}

impl Metrics {
    pub(crate) fn new(most_series: usize) -> Metrics {
        Metrics { most_series, admission: Mutex::default() }
    }

    /// Reads everything and writes it down. It takes a few milliseconds, 30 while a window of the sampled mode is open.
    /// `refused` is how many clients were sent away.
    pub(crate) fn scrape(&self, daemon: &Arc<Daemon>, refused: u64, format: Format) -> Result<String, std::fmt::Error> {
        let status = daemon.status(None, |_| true);
        let mut families = daemon::families(daemon, &status);
        families.push(Family::single(
            "mvedsua_http_refused",
            "Clients of HTTP that were sent away since there were too many.",
            Kind::Counter,
            Value::Count(refused),
        ));
        families.extend(updates::families(daemon, &status));
        let base: usize = families.iter().map(Family::series).sum();
        let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        families.extend(calls::families(daemon, &status, &mut admission, self.most_series.saturating_sub(base)));
        families.extend(admission.families());
        exposition::write(families, format)
    }
}
