//! Monitoring: counts and latencies of system calls, aggregated in the kernel.
//!
//! No ptrace, no injected code, no pause: attaching changes nothing in the target. Two hooks on the raw tracepoints of
//! system-call entry and exit count and time the calls of followed processes; three more on fork, exec and exit follow
//! children from birth to end. The programs are in `mvedsua-ebpf`, the layout of the maps in
//! `mvedsua_common::monitor`, which also states every bound and what happens beyond it.
//!
//! A hook on these tracepoints costs every call of every process of the machine, so there are two modes. *exact* keeps
//! the hooks attached. *sampled* attaches them in short windows at random instants; what it says are estimates with
//! their confidence ([`estimate`] explains how they are made), and it says which share of the time it saw.
//!
//! ```text
//!  Monitor (handle) ──requests──► worker (thread) ──► table: targets, processes, births and ends
//!                                       │                 │ reads
//!                                       └── opens and ──► kernel: the loaded programs and maps
//!                                           closes windows
//!  snapshot, export ◄── tally (counts since the start), batch (counts of each window)
//! ```

mod batch;
mod btf;
mod clock;
mod errno;
mod error;
mod estimate;
mod export;
mod handle;
mod kernel;
mod proc;
pub mod render;
mod snapshot;
mod table;
mod tally;
mod target;
mod types;
mod worker;

pub use error::MonitorError;
pub use handle::Monitor;
pub use types::{
    AttachOptions, Bound, CallStats, ErrorCount, Interval, Latency, Lost, Mode, ProcessState, ProcessStats, Quantile,
    SlowCall, SlowCalls, SlowScope, StatsSnapshot, TargetInfo,
};

/// Returns the name of a system call as people see it.
fn call_name(nr: u32) -> String {
    mvedsua_common::syscalls::name(nr).map_or_else(|| format!("sys_{nr}"), str::to_owned)
}
