//! Waiting for another thread, without a clock.
//!
//! In a follower each question for the time is a call that the leader did not make; so waits are counted in steps of the
//! kernel's own time-out, which no record needs to explain.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How long one wait lasts at most, milliseconds.
pub(crate) const STEP_MS: u32 = 5;

const FUTEX_WAIT: i32 = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
const FUTEX_WAKE: i32 = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;

/// A value that threads wait for changes of.
#[derive(Debug)]
pub(crate) struct Monitor<T> {
    value: Mutex<T>,
    changes: AtomicU32,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    ByChange,
    ByTime,
}

impl<T> Monitor<T> {
    pub(crate) const fn new(value: T) -> Monitor<T> {
        Monitor { value: Mutex::new(value), changes: AtomicU32::new(0) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who waits that the value has changed.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the word is a static's; waking nobody is no error.
        unsafe { libc::syscall(libc::SYS_futex, self.changes.as_ptr(), FUTEX_WAKE, i32::MAX) };
    }

    /// Gives the value back and waits for a change, at most one step.
    pub(crate) fn wait<'a>(&'a self, value: MutexGuard<'a, T>) -> (MutexGuard<'a, T>, Woken) {
        let seen = self.changes.load(Ordering::SeqCst);
        drop(value);
        let step = libc::timespec { tv_sec: 0, tv_nsec: i64::from(STEP_MS) * 1_000_000 };
        let word = self.changes.as_ptr();
        // SAFETY: word and time-out outlive the call.
        let ret = unsafe { libc::syscall(libc::SYS_futex, word, FUTEX_WAIT, seen, &raw const step) };
        // A signal that interrupts the wait is the timer's that repeats a direct request.
        let errno = std::io::Error::last_os_error().raw_os_error();
        let by_time = ret == -1 && [Some(libc::ETIMEDOUT), Some(libc::EINTR)].contains(&errno);
        (self.lock(), if by_time { Woken::ByTime } else { Woken::ByChange })
    }
}
