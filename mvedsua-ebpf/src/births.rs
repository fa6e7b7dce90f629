//! The hooks of fork, exec and exit: who is followed.
//!
//! Threads need no bookkeeping, since calls are looked up by process id. A child of a followed process gets a place of
//! its own at its birth, before it can run, so none of its calls is missed.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_kernel};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use mvedsua_common::monitor::{Followed, STATE_DEAD, STATE_LIVE, first_place, second_place};

use crate::maps::{ENTERED, FOLLOWED, FREE_PROCESSES, PROCESSES, followed, lose};

/// Offsets in `struct task_struct`, which the daemon reads from the kernel's type information and sets at load.
#[unsafe(no_mangle)]
static PID_OFFSET: u32 = 0;
#[unsafe(no_mangle)]
static TGID_OFFSET: u32 = 0;
#[unsafe(no_mangle)]
static EXIT_SIGNAL_OFFSET: u32 = 0;
/// 1 where the exit tracepoint says whether the last thread ends (Linux 6.16).
#[unsafe(no_mangle)]
static HAS_GROUP_DEAD: u32 = 0;

/// Arguments: the parent's task, the child's task. Runs in the parent, before the child runs.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn sched_process_fork(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the second argument is the child's task, `include/trace/events/sched.h`.
    let child = unsafe { argument(&ctx, 1) };
    let (Some(pid), Some(tgid)) = (task_field(child, setting(&PID_OFFSET)), task_field(child, setting(&TGID_OFFSET)))
    else {
        return 0;
    };
    if pid != tgid {
        return 0;
    }
    // The id may have belonged to a followed process that ended: its place is not this child's.
    forget(tgid);
    // Only the daemon's own forks signal their end to nobody: a version that follows is no child of the service.
    if task_field(child, setting(&EXIT_SIGNAL_OFFSET)) == Some(0) {
        return 0;
    }
    let parent_tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(parent) = followed(parent_tgid) else { return 0 };
    let process = match FREE_PROCESSES.pop() {
        Ok(Some(own)) => {
            settle(own, tgid, parent_tgid);
            own as u16
        }
        Ok(None) | Err(_) => {
            lose(|lost| lost.processes += 1);
            if let Some(entry) = PROCESSES.get_ptr_mut(u32::from(parent.process)) {
                // SAFETY: a live map element; all sides write the same value.
                unsafe { (*entry).shared = 1 };
            }
            parent.process
        }
    };
    if !follow(Followed { tgid, process, ..*parent }) {
        lose(|lost| lost.unfollowed += 1);
    }
    0
}

/// Arguments: the task, its thread id before the exec, the program.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the second argument is the former thread id, `include/trace/events/sched.h`.
    let old = unsafe { argument(&ctx, 1) } as u32;
    let id = bpf_get_current_pid_tgid();
    let new = id as u32;
    let tgid = (id >> 32) as u32;
    let Some(followed) = followed(tgid) else { return 0 };
    if let Some(entry) = PROCESSES.get_ptr_mut(u32::from(followed.process)) {
        // SAFETY: a live map element; a child without a place of its own does not rename its parent.
        unsafe {
            if (*entry).tgid == tgid {
                (*entry).comm = bpf_get_current_comm().unwrap_or_default();
            }
        }
    }
    if old == new {
        return 0;
    }
    // A thread that was not the first has taken the first one's id; its execve was entered under the old one.
    if let (Some(from), Some(to)) = (ENTERED.get_ptr_mut(first_place(old)), ENTERED.get_ptr_mut(first_place(new))) {
        // SAFETY: two live map elements; the threads that could write them have ended, all but this one.
        unsafe {
            if (*from).tid == old {
                let mut entered = *from;
                entered.tid = new;
                (*from).at_ns = 0;
                *to = entered;
            }
        }
    }
    0
}

/// Arguments: the task, and on newer kernels whether it is the last thread of its process.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(ctx: RawTracePointContext) -> i32 {
    if setting(&HAS_GROUP_DEAD) == 0 {
        return 0;
    }
    // SAFETY: this kernel's tracepoint has a second argument, the daemon looked.
    if unsafe { argument(&ctx, 1) } as u8 == 0 {
        return 0;
    }
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if let Some(followed) = followed(tgid)
        && let Some(entry) = PROCESSES.get_ptr_mut(u32::from(followed.process))
    {
        // SAFETY: a live map element. A child without a place of its own uses its parent's, which lives on.
        unsafe {
            if (*entry).tgid == tgid {
                (*entry).state = STATE_DEAD;
            }
        }
        forget(tgid);
    }
    0
}

/// Reads an argument of the tracepoint.
///
/// # Safety
/// The tracepoint has an argument `index`.
#[inline(always)]
unsafe fn argument(ctx: &RawTracePointContext, index: usize) -> u64 {
    // SAFETY: the context is the array of the tracepoint's arguments, and the caller says that there is such a one.
    unsafe { *ctx.as_ptr().cast::<u64>().add(index) }
}

/// Reads a setting that the daemon put in place before the programs were loaded.
#[inline(always)]
fn setting(value: &'static u32) -> u32 {
    // SAFETY: a reference is valid to read; volatile, since the compiler only knows the initial value.
    unsafe { core::ptr::read_volatile(value) }
}

#[inline(always)]
fn task_field(task: u64, offset: u32) -> Option<u32> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((task + u64::from(offset)) as *const u32) }.ok()
}

/// Fills the place of a new process.
#[inline(always)]
fn settle(own: u32, tgid: u32, parent_tgid: u32) {
    let Some(entry) = PROCESSES.get_ptr_mut(own) else { return };
    // SAFETY: a live map element that belongs to nobody else until the child is followed. The state makes the place visible to the daemon and comes last.
    unsafe {
        (*entry).tgid = tgid;
        (*entry).parent = parent_tgid;
        (*entry).born_ns = bpf_ktime_get_ns();
        (*entry).comm = bpf_get_current_comm().unwrap_or_default();
        (&raw mut (*entry).state).write_volatile(STATE_LIVE);
    }
}

/// Enters a process into the lookup table; says whether a place was free.
#[inline(always)]
fn follow(process: Followed) -> bool {
    for place in [first_place(process.tgid), second_place(process.tgid)] {
        if let Some(entry) = FOLLOWED.get_ptr_mut(place) {
            // SAFETY: a live map element; the rest is written before the id that makes it visible.
            unsafe {
                if (*entry).tgid == 0 {
                    (*entry).process = process.process;
                    (*entry).slow_scope = process.slow_scope;
                    (*entry).slow_ns = process.slow_ns;
                    (&raw mut (*entry).tgid).write_volatile(process.tgid);
                    return true;
                }
            }
        }
    }
    false
}

/// Takes a process id out of the lookup table.
#[inline(always)]
fn forget(tgid: u32) {
    for place in [first_place(tgid), second_place(tgid)] {
        if let Some(entry) = FOLLOWED.get_ptr_mut(place) {
            // SAFETY: a live map element.
            unsafe {
                if (*entry).tgid == tgid {
                    (*entry).tgid = 0;
                }
            }
        }
    }
}
