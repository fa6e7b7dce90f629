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
//! # What it costs
//!
//! Nearly all of it is the kernel's: with both tracepoints in use every task takes the slow way into and out of every
//! call (about 0.16 µs a call, cache misses not counted, where a plain `getppid` takes 0.13), whether it is followed or
//! not. What the programs do for a followed process adds about 0.09 µs, 0.05 of it two reads of the clock.
//!
//! # Failed ideas
//!
//! 1. A hash map for entries and counts: what arrays save here is most of what the programs once cost.
//! 2. Function hooks (fentry, fexit) on the calls' own functions would spare everybody the slow way. Kernels refuse them
//!    (EPERM on Linux 6.18 here), not every call's function has type information, and hooks on some calls only would not
//!    be exact. The one function that all calls go through, `x64_sys_call`, is compiled without the place for a hook.
//! 3. Per-thread places, filled at fork, instead of looking up process and thread: one lookup less, but a thread that is
//!    missed once is missed for ever.
//!
//! ```text
//!  Monitor (handle) ──requests──► worker (thread) ──► table: targets, processes, births and ends
//!                                       │                 │ reads
//!                                       └── opens and ──► kernel: the loaded programs and maps
//!                                           closes windows
//!  snapshot, export ◄── tally (counts since the start), batch (counts of each window)
//! ```

mod batch;
mod bins;
pub(crate) mod btf;
mod clock;
mod errno;
mod error;
mod estimate;
mod export;
mod handle;
mod kernel;
mod led;
mod proc;
pub mod render;
mod snapshot;
mod table;
mod tally;
mod target;
pub mod totals;
mod types;
mod worker;

pub use bins::Bins;
pub use error::MonitorError;
pub use handle::Monitor;
pub use led::{Led, LedCall, Period};
pub use totals::Totals;
pub use types::{
    AttachOptions, Bound, CallStats, ErrorCount, Interval, Latency, Lost, Mode, ProcessState, ProcessStats, Quantile,
    SlowCall, SlowCalls, SlowScope, StatsSnapshot, TargetInfo,
};

/// Returns the name of a system call as people see it.
fn call_name(nr: u32) -> String {
    mvedsua_common::syscalls::name(nr).map_or_else(|| format!("sys_{nr}"), str::to_owned)
}
