//! Monitoring: counts and latencies of system calls, aggregated in the kernel.
//!
//! No ptrace, no injected code, no pause: attaching changes nothing in the target.

mod types;

pub use types::{
    AttachOptions, Bound, CallStats, ErrorCount, Interval, Latency, Lost, Mode, ProcessState, ProcessStats, Quantile,
    SlowCall, SlowCalls, SlowScope, StatsSnapshot, TargetInfo,
};
