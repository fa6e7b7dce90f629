//! Everything that touches another process goes through this folder; nothing outside it calls `ptrace(2)`.
//!
//! - [`sys`]: the gate. One thin function per kernel request, errors carry the request and the thread.
//! - [`wait`]: the inbox of a tracer thread: stops of tracees and messages of other threads, in one blocking call.
//! - [`memory`]: another process's memory, read and written; [`window`]: what of it the daemon has mapped too.
//! - [`pagemap`]: which physical pages a process has where.
//! - [`regs`]: registers, and the rewinding of interrupted calls.
//! - [`stub`] and [`inject`]: system calls executed inside a tracee, so that the death of the tracer at any instant lets
//!   the tracee go on unharmed.
//! - [`launch`]: a program that is traced from its first instruction on.
//! - [`vdso`]: making the vDSO's functions visible, and undoing it; [`agent`] and [`ring`]: telling the time without a stop.
//! - [`sites`]: call sites of a follower, rewritten so that the agent answers there without a stop.
//! - [`tsc`]: the processor's clock, where reading it is trapped.
//! - [`probe`]: tries on a child whether all that works here.
//! - [`procfs`]: what `/proc` says of a process.
//!
//! # The rule that shapes it all
//!
//! The tracer may die between any two instructions (SIGKILL). The kernel then detaches every tracee and lets it run from
//! the registers it has at that moment. So a thread of the leader is never left with registers from which it must not
//! run: each change of registers is one `PTRACE_SETREGS`, and whatever they point at finishes by itself.
//!
//! # Failed ideas
//!
//! 1. *Skipping a call with `orig_rax = -1` at its entry and rewinding at its exit.* Between the two stops the thread holds
//!    `-ENOSYS` in its result register; a tracer that dies there has made a call fail. Both belong in one `SETREGS` at the
//!    entry stop: the kernel leaves `rax` and `rip` alone when the number is -1, so the thread returns straight to its
//!    `syscall` instruction.
//! 2. *`PTRACE_SINGLESTEP` over a call that the follower makes for itself.* The trap is a forced SIGTRAP: where the thread
//!    blocks that signal the kernel resets its disposition and unblocks it. An entry stop that is then resumed with
//!    `PTRACE_SYSEMU` costs the same and changes nothing.
//! 3. *Forking with `PTRACE_O_TRACEFORK`.* The child is attached to the tracer thread of the parent and must change hands
//!    through a detached, stopped state that outlives the daemon. The forked child rather looks after itself: it closes
//!    what it inherited, sleeps, and ends if nobody comes for it.

pub mod agent;
pub(crate) mod breakpoint;
pub(crate) mod extents;
pub mod inject;
pub mod launch;
pub mod memory;
pub(crate) mod pagemap;
pub mod probe;
pub mod procfs;
pub(crate) mod query;
pub mod regs;
pub mod ring;
mod semaphores;
pub mod sentinel;
pub(crate) mod sites;
pub mod stub;
pub mod sys;
pub(crate) mod tsc;
pub mod vdso;
pub mod wait;
pub(crate) mod window;

use serde::{Deserialize, Serialize};

/// A thread group id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pid(pub i32);

/// A thread id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tid(pub i32);

impl Pid {
    /// Returns the id of the group's first thread.
    #[must_use]
    pub fn main(self) -> Tid {
        Tid(self.0)
    }
}

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for Tid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A request to the kernel about a traced thread failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{op} on thread {tid}: {source}")]
    Request { op: &'static str, tid: Tid, source: std::io::Error },
    #[error("{op} of {len} bytes at {addr:#x} in process {pid}: {source}")]
    Memory { op: &'static str, pid: Pid, addr: u64, len: usize, source: std::io::Error },
    #[error("reading {path}: {source}")]
    Proc { path: String, source: std::io::Error },
    /// It was nothing of a traced process that failed.
    #[error("{doing}: {source}")]
    Own { doing: String, source: std::io::Error },
    #[error("{call} executed inside thread {tid}: {source}")]
    Injected { call: &'static str, tid: Tid, source: std::io::Error },
    #[error("thread {tid} ended ({status}) while {doing}")]
    Ended {
        tid: Tid,
        status: String,
        /// The stop that told of it, where one did: nobody will hear of it again.
        stop: Option<wait::Stop>,
        doing: String,
    },
    #[error("{0}")]
    Unsupported(String),
    #[error("waited {seconds:.1} s for {what}")]
    TimedOut { what: String, seconds: f64 },
}

impl Error {
    /// Says whether the thread was not there (any more).
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Error::Request { source, .. } | Error::Memory { source, .. } => source.raw_os_error() == Some(libc::ESRCH),
            Error::Ended { .. } => true,
            // Some of a zombie's files are there and say that the process is not.
            Error::Proc { source, .. } => {
                source.kind() == std::io::ErrorKind::NotFound || source.raw_os_error() == Some(libc::ESRCH)
            }
            Error::Own { .. } | Error::Injected { .. } | Error::Unsupported(_) | Error::TimedOut { .. } => false,
        }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
