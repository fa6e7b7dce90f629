//! The eBPF programs of the recorder: they write down the calls of a thread that runs without stops.
//!
//! One thread at a time is watched, see `mvedsua_common::bulk` for what is told and by whom. The entry's hook notes the call's
//! number and what the call may change of its own question; the exit's hook adds what belongs to its result and puts the record
//! into the ring buffer. Both do nothing for all other threads of the machine.
#![no_std]
#![no_main]

mod tracepoint;

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str, bpf_send_signal_thread};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns, bpf_probe_read_kernel};
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{Array, RingBuf};
use aya_ebpf::programs::BtfTracePointContext;
use mvedsua_common::bulk::{
    AT_ENTRY, AT_ENTRY_PERHAPS, AT_EXIT, AT_EXIT_PERHAPS, CALLS, ENTERED, EXTENT_ARGUMENT, EXTENT_BEHIND, EXTENT_BITS,
    EXTENT_FILLED, EXTENT_FIXED, EXTENT_NONE, EXTENT_RESULT, EXTENT_STRING, EXTENT_VECTOR, Header, KIND_LAST,
    KIND_MMAP, KIND_SKIP, KIND_STOP, LAST_PIECE, LONGEST_PIECE, Lost, MARKED, MOST_IOVECS, PLANNED, PieceHeader, Plan,
    PlannedPiece, RING_BYTES, STRING, UNFINISHED, UNKNOWN, UNSTOPPABLE, Watched,
};

use crate::tracepoint::{Registers, argument};

/// Bytes of the header of a piece, and of a record.
const PIECE: u32 = size_of::<PieceHeader>() as u32;
const HEADER: u32 = size_of::<Header>() as u32;
/// Room for a record: pieces begin below [`LAST_PIECE`].
const ROOM: usize = 128 << 10;
/// What [`take`] returns where a piece could not be read.
const FAILED: u32 = u32::MAX;
const EFAULT: i64 = -14;
const PATH_MAX: u32 = 4096;
const MAP_ANONYMOUS: u64 = 0x20;

/// The record of the call that the watched thread is in.
#[repr(C)]
pub struct Scratch {
    /// Bytes so far, the header among them; 0 where the entry was not seen.
    used: u32,
    padding: u32,
    record: [u8; ROOM],
}

#[map]
pub static WATCHED: Array<Watched> = Array::with_max_entries(1, 0);
#[map]
pub static PLANS: Array<Plan> = Array::with_max_entries(CALLS, 0);
#[map]
pub static SCRATCH: Array<Scratch> = Array::with_max_entries(1, 0);
#[map]
pub static RECORDS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
#[map]
pub static LOST: Array<Lost> = Array::with_max_entries(1, 0);

/// Offset of `task_struct.blocked`, which the daemon reads from the kernel's type information and sets at load.
#[unsafe(no_mangle)]
static BLOCKED_OFFSET: u32 = 0;

/// The verifier admits no program that can reach this.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Needed for the helpers that the programs call.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Returns what is to be done for the current thread, if it is the watched one.
#[inline(always)]
fn watched() -> Option<&'static Watched> {
    let watched = WATCHED.get(0)?;
    if watched.tid != bpf_get_current_pid_tgid() as u32 {
        return None;
    }
    Some(watched)
}

/// Arguments: the registers, the call's number.
#[btf_tracepoint(function = "sys_enter")]
pub fn sys_enter(ctx: BtfTracePointContext) -> i32 {
    let Some(watched) = watched() else { return 0 };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the first argument of this tracepoint is the registers and the second the number,
    // `include/trace/events/syscalls.h`; the scratch belongs to the watched thread.
    unsafe {
        let regs = argument(&ctx, 0) as *const Registers;
        let nr = argument(&ctx, 1) as u32;
        let header = (&raw mut (*scratch).record).cast::<Header>();
        (*header).tid = watched.tid;
        (*header).nr = nr;
        (*header).args = [(*regs).di, (*regs).si, (*regs).dx, (*regs).r10, (*regs).r8, (*regs).r9];
        (*header).ret = 0;
        (*header).flags = 0;
        (*header).blocked = blocked();
        (*header).at_ns = bpf_ktime_get_ns();
        (*scratch).used = HEADER;
    }
    let used = take_all(u32::from(AT_ENTRY), u32::from(AT_ENTRY_PERHAPS));
    if used == FAILED {
        // What the call was asked is not known: the exit says so.
        // SAFETY: as above.
        unsafe { (*(&raw mut (*scratch).record).cast::<Header>()).flags = UNKNOWN };
    }
    if kind() == KIND_LAST {
        // SAFETY: as above.
        unsafe { (*(&raw mut (*scratch).record).cast::<Header>()).flags |= ENTERED };
        send(watched);
    }
    0
}

/// Arguments: the registers, the result.
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let Some(watched) = watched() else { return 0 };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    let header = unsafe { (&raw mut (*scratch).record).cast::<Header>() };
    // SAFETY: the second argument of this tracepoint is the result, `include/trace/events/syscalls.h`.
    let ret = unsafe { argument(&ctx, 1) } as i64;
    // SAFETY: the scratch belongs to the watched thread.
    unsafe {
        if (*scratch).used == 0 {
            // It was watched while it was in the call.
            lose();
            return 0;
        }
        (*header).ret = ret;
    }
    let mut kind = kind();
    // SAFETY: as above.
    if kind == KIND_MMAP {
        kind = if unsafe { (*header).args[3] } & MAP_ANONYMOUS != 0 { KIND_SKIP } else { KIND_STOP };
    }
    // Whoever interrupted the call stops the thread next.
    let interrupted = ret == -4 || (-516..=-512).contains(&ret);
    if kind == KIND_SKIP && !interrupted {
        return 0;
    }
    // SAFETY: as above.
    let mut flags = unsafe { (*header).flags };
    if !interrupted {
        // SAFETY: as above.
        unsafe { (*header).at_ns = bpf_ktime_get_ns() };
        if flags & UNKNOWN != 0 && ret == EFAULT {
            // The kernel could not read it either.
            flags &= !UNKNOWN;
            kind = KIND_STOP;
        }
        if kind == KIND_STOP || take_all(u32::from(AT_EXIT), u32::from(AT_EXIT_PERHAPS)) == FAILED {
            flags |= UNFINISHED | mark(watched);
        }
    }
    // SAFETY: as above.
    unsafe { (*header).flags = flags };
    send(watched);
    0
}

/// Puts the record into the ring buffer.
#[inline(always)]
fn send(watched: &Watched) {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: the scratch belongs to the watched thread.
    unsafe {
        let header = (&raw mut (*scratch).record).cast::<Header>();
        let noted = times(watched.times);
        if noted == u64::MAX {
            // The call is the clock's own: its answer is noted.
            return;
        }
        (*header).times = noted;
        let used = (*scratch).used;
        if used < HEADER || used > LAST_PIECE + PIECE + LONGEST_PIECE {
            return;
        }
        (*header).bytes = used - HEADER;
        let flags = (*header).flags;
        if flags & MARKED == 0 && RECORDS.query(u64::from(BPF_RB_AVAIL_DATA)) > watched.most_waiting {
            (*header).flags = flags | mark(watched);
        }
        let data = core::slice::from_raw_parts((&raw const (*scratch).record).cast::<u8>(), used as usize);
        if RECORDS.output::<[u8]>(data, u64::from(BPF_RB_NO_WAKEUP)).is_err() {
            lose();
            mark(watched);
        }
    }
}

#[inline(always)]
fn lose() {
    if let Some(lost) = LOST.get_ptr_mut(0) {
        // SAFETY: a live map element that only the watched thread's hooks write.
        unsafe { (*lost).records += 1 };
    }
}

/// Sends the current thread the mark; returns the flags that say so.
#[inline(always)]
fn mark(watched: &Watched) -> u32 {
    let bit = 1u64 << ((watched.mark.wrapping_sub(1)) & 63);
    if blocked() & bit != 0 {
        return UNSTOPPABLE;
    }
    // SAFETY: takes an integer.
    if unsafe { bpf_send_signal_thread(watched.mark) } == 0 { MARKED } else { UNSTOPPABLE }
}

/// The signals that the current thread has blocked.
#[inline(always)]
fn blocked() -> u64 {
    // SAFETY: a reference is valid to read; volatile, since the compiler only knows the initial value. The helper checks the
    // address.
    unsafe {
        let offset = core::ptr::read_volatile(&BLOCKED_OFFSET);
        bpf_probe_read_kernel((bpf_get_current_task() + u64::from(offset)) as *const u64).unwrap_or(u64::MAX)
    }
}

/// Returns how many times the thread has noted, `u64::MAX` while it is noting one.
#[inline(always)]
fn times(ring: u64) -> u64 {
    if ring == 0 {
        return 0;
    }
    let mut words = MaybeUninit::<[u64; 3]>::uninit();
    // SAFETY: the helper checks the address, and writes into the array, all of it or zeros.
    let (read, words) = unsafe {
        let read = bpf_probe_read_user(words.as_mut_ptr().cast(), 24, ring as *const _);
        (read, words.assume_init())
    };
    match (read, words[0]) {
        (0, 1) => u64::MAX,
        (0, _) => words[2],
        _ => 0,
    }
}

/// Returns what is done with the current call.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn kind() -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return KIND_STOP };
    // SAFETY: the scratch belongs to the watched thread.
    let nr = unsafe { (*(&raw const (*scratch).record).cast::<Header>()).nr };
    match PLANS.get(nr) {
        Some(plan) => plan.kind,
        None => KIND_STOP,
    }
}

// The functions that are exported are verified once each, whatever the paths that lead to them.

/// Reads the pieces of the current call that are read now; returns [`FAILED`] where one that has to be there is not.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take_all(when: u32, perhaps: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return FAILED };
    // SAFETY: the scratch belongs to the watched thread.
    let header = unsafe { (&raw const (*scratch).record).cast::<Header>() };
    // SAFETY: as above.
    let Some(plan) = PLANS.get(unsafe { (*header).nr }) else { return FAILED };
    let mut result = 0;
    for index in 0..PLANNED {
        let piece = plan.pieces[index];
        if piece.extent == EXTENT_NONE {
            break;
        }
        if u32::from(piece.when) != when && u32::from(piece.when) != perhaps {
            continue;
        }
        // SAFETY: as above.
        let taken = unsafe { take_piece(header, piece, when) };
        if taken == FAILED && u32::from(piece.when) == when {
            result = FAILED;
        }
    }
    result
}

#[inline(always)]
unsafe fn argument_of(header: *const Header, index: u8) -> u64 {
    let index = index as usize;
    // SAFETY: the caller's header is live, and the index is in range.
    if index < 6 { unsafe { (*header).args[index] } } else { 0 }
}

/// Reads one piece.
///
/// # Safety
/// The header is that of the scratch.
#[inline(always)]
unsafe fn take_piece(header: *const Header, piece: PlannedPiece, when: u32) -> u32 {
    // SAFETY: the caller says so.
    unsafe {
        let addr = argument_of(header, piece.arg);
        if addr == 0 {
            return 0;
        }
        let count = argument_of(header, piece.of);
        let ret = (*header).ret;
        let scale = u64::from(piece.scale);
        let len = match piece.extent {
            EXTENT_FIXED => scale,
            EXTENT_ARGUMENT => count * scale,
            EXTENT_RESULT => {
                if ret <= 0 {
                    return 0;
                }
                let most = ret as u64;
                (if most < count { most } else { count }) * scale
            }
            EXTENT_STRING => return take_string(addr, when),
            EXTENT_VECTOR => return take_vector(addr, count, u64::MAX, when),
            EXTENT_FILLED => {
                if ret <= 0 {
                    return 0;
                }
                return take_vector(addr, count, ret as u64, when);
            }
            EXTENT_BEHIND => {
                let mut len = 0u32;
                if bpf_probe_read_user((&raw mut len).cast(), 4, count as *const _) != 0 {
                    return FAILED;
                }
                // A name that was too long for its room is told in full length.
                u64::from(if len < PATH_MAX { len } else { PATH_MAX })
            }
            EXTENT_BITS => u64::from((count as u32).div_ceil(64)) * 8,
            _ => return FAILED,
        };
        take(addr, len, when)
    }
}

/// Reads an array of iovecs and what they point to, `budget` bytes at most.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take_vector(addr: u64, count: u64, budget: u64, when: u32) -> u32 {
    if count > u64::from(MOST_IOVECS) {
        return FAILED;
    }
    if take(addr, count * 16, when) == FAILED {
        return FAILED;
    }
    let mut left = budget;
    for index in 0..u64::from(MOST_IOVECS) {
        if index >= count || left == 0 {
            break;
        }
        let mut entry = MaybeUninit::<[u64; 2]>::uninit();
        // SAFETY: the helper checks the address, and writes into the array, all of it or zeros.
        let entry = unsafe {
            if bpf_probe_read_user(entry.as_mut_ptr().cast(), 16, (addr + index * 16) as *const _) != 0 {
                return FAILED;
            }
            entry.assume_init()
        };
        let len = if entry[1] < left { entry[1] } else { left };
        if take(entry[0], len, when) == FAILED {
            return FAILED;
        }
        left -= len;
    }
    0
}

/// Reads a string with its NUL.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take_string(addr: u64, when: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return FAILED };
    // SAFETY: the scratch belongs to the watched thread; a piece begins below `LAST_PIECE` and is no longer than
    // `LONGEST_PIECE`.
    unsafe {
        let used = (*scratch).used;
        if used > LAST_PIECE {
            return FAILED;
        }
        let place = (&raw mut (*scratch).record).cast::<u8>().add(used as usize);
        let read = bpf_probe_read_user_str(place.add(PIECE as usize).cast(), PATH_MAX, addr as *const _);
        if read <= 0 || read > i64::from(PATH_MAX) {
            return FAILED;
        }
        let len = read as u32;
        *place.cast::<PieceHeader>() = PieceHeader { addr, len, when: when | STRING };
        (*scratch).used = used + PIECE + ((len + 7) & !7);
    }
    0
}

/// Reads a piece of memory behind those that are there.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take(addr: u64, len: u64, when: u32) -> u32 {
    if len == 0 || addr == 0 {
        return 0;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return FAILED };
    if len > u64::from(LONGEST_PIECE) {
        return FAILED;
    }
    let len = len as u32;
    // SAFETY: the scratch belongs to the watched thread; a piece begins below `LAST_PIECE` and is no longer than
    // `LONGEST_PIECE`.
    unsafe {
        let used = (*scratch).used;
        if used > LAST_PIECE {
            return FAILED;
        }
        let place = (&raw mut (*scratch).record).cast::<u8>().add(used as usize);
        if bpf_probe_read_user(place.add(PIECE as usize).cast(), len, addr as *const _) != 0 {
            return FAILED;
        }
        *place.cast::<PieceHeader>() = PieceHeader { addr, len, when };
        (*scratch).used = used + PIECE + ((len + 7) & !7);
    }
    0
}
