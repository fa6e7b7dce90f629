//! Waiting for a condition at an update point.

use std::ffi::{CStr, c_int};
use std::sync::atomic::Ordering;

use crate::exports::mvedsua_control as CONTROL;
use crate::threads;
use crate::update::{RUNTIME, at_point};

/// Says whether update points are to look closer.
fn is_flag_up() -> bool {
    let flag = CONTROL.flag.load(Ordering::SeqCst) as *const c_int;
    // SAFETY: the running version's own variable.
    !flag.is_null() && unsafe { flag.read_volatile() } != 0
}

/// A wait for a condition that is an update point as well.
///
/// # Safety
///
/// As `pthread_cond_timedwait(3)`; without a deadline as `pthread_cond_wait(3)`.
pub(crate) unsafe fn wait(
    condition: *mut libc::pthread_cond_t,
    mutex: *mut libc::pthread_mutex_t,
    deadline: *const libc::timespec,
    point: &CStr,
) -> c_int {
    let pause = || {
        threads::gave(mutex as usize);
        // SAFETY: the caller's promise: it is locked by this thread.
        unsafe { libc::pthread_mutex_unlock(mutex) };
        at_point(point);
        // SAFETY: as above, the other way round.
        unsafe { libc::pthread_mutex_lock(mutex) };
        threads::took(mutex as usize);
    };
    // On its way the thread passes over other points.
    let elsewhere = threads::is_updating() && !threads::is_updating_from(point);
    if is_flag_up() && !elsewhere {
        pause();
        return 0;
    }
    let note = |condition: usize| {
        if let Some(me) = threads::me()
            && let Some(thread) = RUNTIME.lock().thread(me)
        {
            thread.condition = condition;
        }
    };
    note(condition as usize);
    threads::gave(mutex as usize);
    // SAFETY: the caller's promise.
    let code = unsafe {
        if deadline.is_null() {
            libc::pthread_cond_wait(condition, mutex)
        } else {
            libc::pthread_cond_timedwait(condition, mutex, deadline)
        }
    };
    threads::took(mutex as usize);
    note(0);
    if is_flag_up() && !elsewhere {
        pause();
        return 0;
    }
    code
}
