//! The thread ids that the C library keeps in the memory of a process.

use crate::ptrace::Tid;
use crate::ptrace::memory::Memory;

/// The thread id in glibc's `struct pthread`, from its start, which the thread pointer points at.
const GLIBC_TID: u64 = 0x2d0;

/// Replaces the id of one thread, which glibc passes to the kernel in `pthread_kill` and the like. A place that does not hold the
/// id `from` is something else and is left.
pub(crate) fn replace_cached_tid(memory: &Memory, thread_pointer: u64, from: Tid, to: Tid) {
    let place = thread_pointer + GLIBC_TID;
    if memory.read_u32(place).is_ok_and(|have| have == from.0 as u32)
        && let Err(error) = memory.write(place, &to.0.to_ne_bytes())
    {
        tracing::warn!(tid = to.0, %error, "a cached thread id could not be replaced");
    }
}
