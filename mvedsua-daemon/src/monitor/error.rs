//! What can go wrong with monitoring.

use std::io;

use thiserror::Error;

/// Why a request to the monitor failed. Each says what was tried and what to do.
#[derive(Debug, Error)]
pub enum MonitorError {
    #[error("there is no process {pid}")]
    NoSuchProcess { pid: i32 },
    #[error("process {pid} is already observed, as part of target {target}")]
    AlreadyAttached { pid: i32, target: i32 },
    #[error("process {pid} is not attached; `attach {pid}` attaches it")]
    NotAttached { pid: i32 },
    #[error("no more than {max} processes can be observed at once; detach a target first")]
    TooManyProcesses { max: u32 },
    #[error("the place of process {pid} in the lookup table is taken by another; detach a target first")]
    PlaceTaken { pid: i32 },
    #[error("the kernel has no type information (/sys/kernel/btf/vmlinux); it needs CONFIG_DEBUG_INFO_BTF: {source}")]
    NoTypeInformation { source: io::Error },
    #[error("the kernel's type information cannot be understood; `doctor` says what the kernel lacks")]
    StrangeTypeInformation,
    #[error("cannot load the eBPF programs; this needs root (CAP_BPF, CAP_PERFMON): {source}")]
    Load { source: Box<aya::EbpfError> },
    #[error("cannot use the eBPF program `{program}`: {source}")]
    Program { program: &'static str, source: Box<aya::programs::ProgramError> },
    #[error("cannot use the eBPF map `{map}`: {source}")]
    Map { map: &'static str, source: aya::maps::MapError },
    #[error(
        "the eBPF programs do not see the daemon's own calls; in a PID namespace threads have other numbers than in the kernel"
    )]
    Blind,
    #[error("the embedded eBPF object has no {what}")]
    BadObject { what: &'static str },
    #[error("cannot start the monitor's thread: {source}")]
    Thread { source: io::Error },
    #[error("cannot write the histogram log: {reason}")]
    Export { reason: String },
    #[error("the monitor's thread has ended")]
    Gone,
}
