//! What was counted in a part of an update's life. The control plane knows when one begins; here it is plain data.

use serde::{Deserialize, Serialize};

use super::bins::Bins;

/// A part of an update's life, by who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Period {
    /// One version runs, alone: from when the process was observed until it was forked.
    Before,
    /// The old version leads, and the new one follows it.
    OldLeads,
    /// The new version leads, and the old one follows it.
    NewLeads,
}

impl std::fmt::Display for Period {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Period::Before => "before the update",
            Period::OldLeads => "the old version leads",
            Period::NewLeads => "the new version leads",
        })
    }
}

/// What was observed of the process that serves in one period of the last attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Led {
    pub period: Period,
    /// How much of it was observed, nanoseconds.
    pub observed_ns: u64,
    /// The busiest calls, by the time spent in them.
    pub calls: Vec<LedCall>,
}

/// One call in a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedCall {
    pub name: String,
    /// How many were observed and timed.
    pub count: u64,
    /// How long they took.
    pub durations: Bins,
}
