//! Breakpoints of the processor: a thread stops before it executes an instruction, and nothing is changed in its program.
//!
//! A perf event with `sigtrap` (Linux 5.13, perf_event_open(2)) sends the thread SIGTRAP there, which its tracer sees. The event
//! is a descriptor of ours: when the daemon dies nothing of it is left.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use perf_event_open_sys::bindings::{HW_BREAKPOINT_X, PERF_FLAG_FD_CLOEXEC, PERF_TYPE_BREAKPOINT, perf_event_attr};

use super::{Result, Tid, sys};

/// `si_code` of a SIGTRAP that a perf event has sent, `include/uapi/asm-generic/siginfo.h`.
const TRAP_PERF: i32 = 6;

/// A place that one thread stops at. Dropping it takes it away.
#[derive(Debug)]
pub(crate) struct Breakpoint {
    _event: OwnedFd,
}

impl Breakpoint {
    /// Makes a thread stop before the instruction at `addr`. Fails where the machine has no such registers, or no free one.
    pub(crate) fn at(tid: Tid, addr: u64) -> io::Result<Breakpoint> {
        let mut attr = perf_event_attr::default();
        attr.size = size_of::<perf_event_attr>() as u32;
        attr.type_ = PERF_TYPE_BREAKPOINT;
        attr.bp_type = HW_BREAKPOINT_X;
        attr.__bindgen_anon_3.bp_addr = addr;
        attr.__bindgen_anon_4.bp_len = size_of::<libc::c_long>() as u64;
        attr.__bindgen_anon_1.sample_period = 1;
        attr.set_sigtrap(1);
        attr.set_remove_on_exec(1);
        attr.set_exclude_kernel(1);
        attr.set_exclude_hv(1);
        // SAFETY: the attributes are a live local of the size that they say.
        let event = unsafe {
            perf_event_open_sys::perf_event_open(&raw mut attr, tid.0, -1, -1, u64::from(PERF_FLAG_FD_CLOEXEC))
        };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us.
        Ok(Breakpoint { _event: unsafe { OwnedFd::from_raw_fd(event) } })
    }
}

/// Says whether the SIGTRAP that a thread stands before comes of a breakpoint.
pub(crate) fn is_hit(tid: Tid) -> Result<bool> {
    let info = sys::get_siginfo(tid)?;
    Ok(i32::from_ne_bytes([info[8], info[9], info[10], info[11]]) == TRAP_PERF)
}
