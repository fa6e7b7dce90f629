//! The hooks of system-call entry and exit.
//!
//! Entry notes the time in the thread's place; exit finds it there and counts the duration in the cell of process and
//! call. What happens rarely (a call's first cell, a slow call, a failure to find a place) is kept out of line.

use aya_ebpf::bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use mvedsua_common::histogram::{BUCKETS, bucket};
use mvedsua_common::monitor::{
    Cell, ERRORS, Entered, MAX_CALLS, SLOW_ALL, Slow, claim_key, error_slot, first_place, second_place, waits,
};

use crate::maps::{CELLS, CLAIMS, ENTERED, FREE_CELLS, PROCESSES, SLOW, control, followed, lose};
use crate::tracepoint::{Registers, argument};

/// Calls that do not return: counted when they are entered.
const EXIT: u32 = 60;
const EXIT_GROUP: u32 = 231;

/// Calls that return a second time, in the child, without having been entered there.
const BIRTHS: [u32; 4] = [56, 57, 58, 435];

/// Arguments: the registers, the call's number.
#[btf_tracepoint(function = "sys_enter")]
pub fn sys_enter(ctx: BtfTracePointContext) -> i32 {
    let id = bpf_get_current_pid_tgid();
    let Some(followed) = followed((id >> 32) as u32) else { return 0 };
    let Some(control) = control() else { return 0 };
    if control.open == 0 {
        return 0;
    }
    // SAFETY: the second argument of this tracepoint is the number, `include/trace/events/syscalls.h`.
    let nr = call_number(unsafe { argument(&ctx, 1) });
    if nr == EXIT || nr == EXIT_GROUP {
        count_untimed(u32::from(followed.process), nr, 0);
        return 0;
    }
    let tid = id as u32;
    let Some(place) = place_for(tid, control.window as u16) else {
        lose(|lost| lost.entries += 1);
        return 0;
    };
    let at_ns = now();
    // SAFETY: `place` is a live map element; a thread enters one call at a time, so only one CPU writes it.
    unsafe { *place = Entered { tid, nr: nr as u16, window: control.window as u16, at_ns } };
    0
}

/// Arguments: the registers, the result.
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let id = bpf_get_current_pid_tgid();
    let Some(followed) = followed((id >> 32) as u32) else { return 0 };
    let process = u32::from(followed.process);
    // SAFETY: the second argument of this tracepoint is the result, `include/trace/events/syscalls.h`.
    let ret = unsafe { argument(&ctx, 1) } as i64;
    let tid = id as u32;
    let Some(control) = control() else { return 0 };
    let Some(place) = place_of(tid) else {
        return without_entry(&ctx, process, ret);
    };
    // SAFETY: `place` is a live map element that only this thread's hooks write.
    let entered = unsafe { *place };
    if entered.at_ns == 0 || entered.window != control.window as u16 {
        return without_entry(&ctx, process, ret);
    }
    let duration = now().saturating_sub(entered.at_ns);
    // SAFETY: as above.
    unsafe { (*place).at_ns = 0 };
    // A call that changes the registers as a whole (`rt_sigreturn`) has lost its number there.
    let nr = u32::from(entered.nr);
    let Some(cell) = cell_of(process, nr) else { return 0 };
    // SAFETY: the cell is this CPU's own, and the kernel does not run a program on top of itself.
    let cell = unsafe { &mut *cell };
    let index = bucket(duration);
    if index < BUCKETS {
        cell.buckets[index] = cell.buckets[index].wrapping_add(1);
    }
    count_error(cell, ret);
    if duration >= followed.slow_ns && (followed.slow_scope == SLOW_ALL || !waits(nr)) {
        report_slow(&ctx, id, nr, ret, entered.at_ns, duration);
    }
    0
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing and reads the clock.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn registers(ctx: &BtfTracePointContext) -> *const Registers {
    // SAFETY: both tracepoints have the registers as their first argument; the verifier knows its type and checks
    // each access.
    unsafe { argument(ctx, 0) as *const Registers }
}

/// Returns the number of a call; unknown ones share the last.
#[inline(always)]
fn call_number(raw: u64) -> u32 {
    if raw < u64::from(MAX_CALLS) { raw as u32 } else { MAX_CALLS - 1 }
}

/// Finds a place for a call that a thread enters: its own, a free one, or one left over from an earlier window.
#[inline(always)]
fn place_for(tid: u32, window: u16) -> Option<*mut Entered> {
    let first = ENTERED.get_ptr_mut(first_place(tid))?;
    // SAFETY: a live map element; a torn read can only make two colliding threads untimed.
    let seen = unsafe { *first };
    if seen.tid == tid || seen.at_ns == 0 || seen.window != window {
        return Some(first);
    }
    let second = ENTERED.get_ptr_mut(second_place(tid))?;
    // SAFETY: as above.
    let seen = unsafe { *second };
    if seen.tid == tid || seen.at_ns == 0 || seen.window != window { Some(second) } else { None }
}

/// Finds the place that a thread has.
#[inline(always)]
fn place_of(tid: u32) -> Option<*mut Entered> {
    let first = ENTERED.get_ptr_mut(first_place(tid))?;
    // SAFETY: a live map element.
    if unsafe { (*first).tid } == tid {
        return Some(first);
    }
    let second = ENTERED.get_ptr_mut(second_place(tid))?;
    // SAFETY: a live map element.
    if unsafe { (*second).tid } == tid { Some(second) } else { None }
}

/// Counts a call whose entry was not seen.
#[inline(always)]
fn without_entry(ctx: &BtfTracePointContext, process: u32, ret: i64) -> i32 {
    // SAFETY: `registers` points to the task's saved registers.
    let raw = unsafe { (*registers(ctx)).orig_ax };
    let nr = call_number(raw);
    if ret == 0 && BIRTHS.contains(&nr) {
        return 0;
    }
    // What was interrupted before observing began and has no number any more.
    if raw as i64 == -1 {
        return 0;
    }
    count_untimed(process, nr, ret);
    0
}

#[inline(never)]
fn count_untimed(process: u32, nr: u32, ret: i64) {
    // The compiler knows from all callers that `nr` is in range and leaves the bound out, but the verifier looks at this
    // function by itself.
    // SAFETY: a reference is valid to read.
    let nr = unsafe { core::ptr::read_volatile(&nr) };
    let Some(cell) = cell_of(process, nr) else { return };
    // SAFETY: the cell is this CPU's own, and the kernel does not run a program on top of itself.
    let cell = unsafe { &mut *cell };
    cell.untimed = cell.untimed.wrapping_add(1);
    count_error(cell, ret);
}

#[inline(always)]
fn count_error(cell: &mut Cell, ret: i64) {
    if (-4095..0).contains(&ret) {
        let slot = error_slot(ret.unsigned_abs());
        if slot < ERRORS {
            cell.errors[slot] = cell.errors[slot].wrapping_add(1);
        }
    }
}

/// Returns this CPU's cell for a call of a process.
#[inline(always)]
fn cell_of(process: u32, nr: u32) -> Option<*mut Cell> {
    let entry = PROCESSES.get_ptr_mut(process)?;
    let nr = nr & (MAX_CALLS - 1);
    // SAFETY: a live map element; `nr` is within the array.
    let slot = unsafe { (&raw mut (*entry).cells).cast::<u32>().add(nr as usize) };
    // SAFETY: as above; a CPU that sees 0 here while another fills it finds out in `first_cell`.
    let mut cell = unsafe { slot.read_volatile() };
    if cell == 0 {
        cell = first_cell(process, nr);
        if cell == 0 {
            lose(|lost| lost.calls += 1);
            return None;
        }
        // SAFETY: as above; all CPUs write the same value.
        unsafe { slot.write_volatile(cell) };
    }
    CELLS.get_ptr_mut(cell - 1)
}

/// Gives a call its cell; returns the cell's index plus one, or 0 when none is free.
#[inline(never)]
fn first_cell(process: u32, nr: u32) -> u32 {
    let key = claim_key(process, nr);
    let Ok(Some(free)) = FREE_CELLS.pop() else { return 0 };
    let mine = free + 1;
    if CLAIMS.insert(key, mine, u64::from(BPF_NOEXIST)).is_ok() {
        return mine;
    }
    // Another CPU was faster.
    if FREE_CELLS.push(free, 0).is_err() {
        lose(|lost| lost.calls += 1);
    }
    // SAFETY: the value is read at once; the daemon removes it only when the process is followed no more.
    unsafe { CLAIMS.get(key) }.copied().unwrap_or(0)
}

#[inline(always)]
fn report_slow(ctx: &BtfTracePointContext, id: u64, nr: u32, ret: i64, started_ns: u64, duration_ns: u64) {
    let Some(mut record) = SLOW.reserve::<Slow>(0) else {
        lose(|lost| lost.slow += 1);
        return;
    };
    let registers = registers(ctx);
    // SAFETY: `registers` points to the task's saved registers; the verifier checks each access.
    let args = unsafe {
        [(*registers).di, (*registers).si, (*registers).dx, (*registers).r10, (*registers).r8, (*registers).r9]
    };
    record.write(Slow {
        tgid: (id >> 32) as u32,
        tid: id as u32,
        nr,
        padding: 0,
        ret,
        started_ns,
        duration_ns,
        args,
        comm: bpf_get_current_comm().unwrap_or_default(),
    });
    // The daemon looks by itself; waking it for every record would cost the target.
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
}
