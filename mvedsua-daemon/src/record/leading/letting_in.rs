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
    lets_in_what(pairing, nr, args, memory, || sys::get_sigmask(tid))
}

/// The same for a thread of which it is told what it has blocked.
pub(super) fn lets_in_what<M: regions::Memory + ?Sized>(
    pairing: Pairing,
    nr: u32,
    args: &[u64; 6],
    memory: &M,
    blocked: impl FnOnce() -> Result<u64>,
) -> Result<bool> {
    let set = || {
        let mut set = [0; 8];
        (args[1] != 0 && memory.read(args[1], &mut set) == set.len()).then(|| u64::from_ne_bytes(set))
    };
    Ok(match i64::from(nr) {
        libc::SYS_rt_sigreturn => true,
        libc::SYS_rt_sigaction => pairing == Pairing::Processes && args[1] != 0,
        libc::SYS_rt_sigprocmask => match (args[0] as i32, set()) {
            (libc::SIG_UNBLOCK, Some(set)) => blocked()? & set != 0,
            (libc::SIG_SETMASK, Some(set)) => blocked()? & !set != 0,
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
