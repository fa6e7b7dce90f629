//! Calls that let signals in which were blocked: the handler runs before the program goes on after them.
//!
//! Each version changes its mask for itself. But the leader's signals come from the world, so such a call is recorded all
//! the same: a follower waits at it until it is known whether the leader's was followed by a signal.

use super::*;

/// Says whether a call may let a blocked signal in, for a thread at its entry.
///
/// Between paired processes one that changes a handler counts too: a signal that waits for the leader's next call
/// ([`super::postponed`]) must find the handler that it came for.
pub(crate) fn lets_in(pairing: Pairing, tid: Tid, nr: u32, args: &[u64; 6], memory: &Memory) -> Result<bool> {
    Ok(match i64::from(nr) {
        libc::SYS_rt_sigreturn => true,
        libc::SYS_rt_sigaction => pairing == Pairing::Processes && args[1] != 0,
        libc::SYS_rt_sigprocmask => match (args[0] as i32, memory.read_u64(args[1])) {
            (libc::SIG_UNBLOCK, Ok(set)) => sys::get_sigmask(tid)? & set != 0,
            (libc::SIG_SETMASK, Ok(set)) => sys::get_sigmask(tid)? & !set != 0,
            // Nothing is changed, or nothing can be.
            _ => false,
        },
        _ => false,
    })
}

/// The signals that a thread can be given at once.
pub(super) fn deliverable(process: &Process, tid: Tid) -> Result<u64> {
    let signals = procfs::signals(process.pid, tid)?;
    Ok(signals.pending & !signals.blocked & signals.caught)
}
