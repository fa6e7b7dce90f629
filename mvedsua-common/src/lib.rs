//! What the eBPF programs, the daemon and the in-process agent share.
//!
//! Nothing here allocates, performs a system call or knows ptrace, tokio or BPF: it is the vocabulary in which the
//! parts of mvedsuad speak to each other.
//!
//! - [`syscalls`]: the declarative table of system calls, from which recording, replaying, comparing and printing derive.
//! - [`histogram`]: the bucket arithmetic of latency histograms that the kernel side fills and the daemon reads.
//! - [`monitor`]: the layout of the monitor's maps.
//! - [`bulk`]: what the recorder's eBPF programs and the daemon tell each other.
//! - [`cooperation`]: how the daemon and a program that is built with the SDK speak with each other.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod bulk;
// BPF has no atomics of these sizes, and nothing to say to a program.
#[cfg(not(target_arch = "bpf"))]
pub mod cooperation;
pub mod histogram;
pub mod monitor;
pub mod syscalls;
