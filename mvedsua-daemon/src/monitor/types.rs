//! What the monitor says: plain data that serialises, so that the control plane can carry it and the CLI render it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bins::Bins;
use super::led::Led;

/// How much of a target's life is observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The hooks are attached all the time: every call is counted and timed.
    Exact,
    /// The hooks are attached in short random windows; what comes out are estimates with a confidence.
    #[default]
    Sampled,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Exact => "exact",
            Mode::Sampled => "sampled",
        })
    }
}

/// Which slow calls are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SlowScope {
    /// Only calls that are meant to work; those whose purpose is to wait (`epoll_wait`, `futex`, `nanosleep`, …) are
    /// counted and timed but never reported as slow.
    #[default]
    Working,
    /// Every call.
    All,
}

/// How a target is to be observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachOptions {
    pub mode: Mode,
    /// Calls that take at least this long are reported with their arguments.
    #[serde(rename = "slow_threshold_us", with = "crate::units::micros")]
    pub slow_threshold: Duration,
    pub slow_scope: SlowScope,
}

impl Default for AttachOptions {
    fn default() -> Self {
        AttachOptions {
            mode: Mode::default(),
            slow_threshold: Duration::from_millis(10),
            slow_scope: SlowScope::default(),
        }
    }
}

/// One target as the monitor holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    pub pid: i32,
    pub name: String,
    pub options: AttachOptions,
    /// Unix time of the attach, milliseconds.
    pub attached_at_ms: u64,
    /// Whether the target's own process still runs; its statistics stay until it is detached.
    pub state: ProcessState,
}

/// Whether a process still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessState {
    Running,
    Exited,
}

/// A range that holds the true value with the snapshot's confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    /// `None` where the observations set no upper bound.
    pub high: Option<f64>,
}

/// One percentile of a call's latency, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    /// The value; where `bound` is [`Bound::AtLeast`], the longest time that was observed without an end.
    pub ns: u64,
    pub bound: Bound,
    /// In sampled mode: where the percentile of *all* calls lies, with the snapshot's confidence; in nanoseconds.
    pub interval: Option<Interval>,
}

/// Says whether a percentile is known or only bounded from below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    Value,
    /// Calls that outlast an observation window are only known to take at least this long.
    AtLeast,
}

/// The latencies of one call; every value is within 1/16 of the measured one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: Quantile,
    pub p90: Quantile,
    pub p99: Quantile,
    pub p999: Quantile,
    /// The longest call that was observed from entry to exit, nanoseconds.
    pub max_ns: u64,
    pub mean_ns: u64,
}

/// How often a call failed with one errno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// The positive errno, or one of the kernel's internal restart codes (512 to 516).
    pub errno: u16,
    pub name: String,
    pub count: u64,
}

/// One system call of one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallStats {
    /// The x86-64 number.
    pub nr: u32,
    pub name: String,
    /// How many calls were observed; in exact mode all of them, in sampled mode those in the windows.
    pub count: u64,
    /// How many of them were under way when observing began, so that their duration is unknown.
    pub untimed: u64,
    /// How many were entered in a window but ended after it; only a lower bound of their duration is known.
    pub unfinished: u64,
    /// Calls a second of observed time.
    pub rate: f64,
    /// In sampled mode: where the rate of *all* time lies, with the snapshot's confidence.
    pub rate_interval: Option<Interval>,
    pub errors: Vec<ErrorCount>,
    /// `None` when no duration is known.
    pub latency: Option<Latency>,
    /// How long those took that were observed from entry to exit.
    #[serde(default)]
    pub durations: Bins,
}

/// One process of a target: the target itself, a child, or a child's child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessStats {
    /// 0 for the line that sums up processes that ended long ago (see [`StatsSnapshot::processes`]).
    pub pid: i32,
    pub parent: Option<i32>,
    pub name: String,
    pub state: ProcessState,
    /// Threads that run now.
    pub threads: u32,
    /// Busiest first, by time spent in the kernel.
    pub calls: Vec<CallStats>,
}

/// A call that took longer than the threshold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowCall {
    pub pid: i32,
    pub tid: i32,
    /// The thread's name.
    pub thread: String,
    pub nr: u32,
    pub name: String,
    pub args: [u64; 6],
    pub ret: i64,
    /// `CLOCK_MONOTONIC` at the entry, nanoseconds.
    pub started_ns: u64,
    pub duration_ns: u64,
}

/// The slow calls of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowCalls {
    pub threshold_ns: u64,
    /// How many were reported since the attach.
    pub seen: u64,
    /// How many did not fit into the ring buffer (of all targets together).
    pub dropped: u64,
    /// The latest of them, oldest first.
    pub recent: Vec<SlowCall>,
}

/// What did not fit into the bounded tables; all zero in ordinary life. Counted for all targets together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Calls that were neither timed nor told apart because all histograms were taken.
    pub calls: u64,
    /// Processes that are counted together with their parent because the process table was full.
    pub processes: u64,
    /// Processes that are not followed because their place in the lookup table was taken twice.
    pub unfollowed: u64,
    /// Calls whose entry could not be kept because their thread's place was taken twice: counted, but untimed.
    pub entries: u64,
    /// Times that the kernel skipped a hook because it was already running on that CPU.
    pub skipped: u64,
}

impl Lost {
    /// Says whether anything was lost at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Lost::default()
    }
}

/// Everything that is known of a target at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatsSnapshot {
    pub pid: i32,
    pub name: String,
    pub mode: Mode,
    /// Unix time, milliseconds.
    pub taken_at_ms: u64,
    /// The same instant on `CLOCK_MONOTONIC`, nanoseconds.
    #[serde(default)]
    pub taken_at_ns: u64,
    /// Time since the statistics began (the attach, or the last change of mode).
    pub elapsed_ns: u64,
    /// How much of it was observed.
    pub observed_ns: u64,
    /// `observed_ns / elapsed_ns`: 1 in exact mode.
    pub observed_share: f64,
    /// Set in sampled mode: how often, of 1, the true value lies in a stated interval.
    pub confidence: Option<f64>,
    /// The target first, then its descendants, those that run before those that ended. At most 64 ended processes have
    /// a line of their own; older ones are summed up in a line with pid 0.
    pub processes: Vec<ProcessStats>,
    pub slow: SlowCalls,
    pub lost: Lost,
    /// Where the process is updated, or was: what was observed of it while each version led.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub led: Vec<Led>,
}
