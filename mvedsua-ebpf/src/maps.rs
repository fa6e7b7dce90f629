//! The maps, see `mvedsua_common::monitor` for their layout and bounds, and the operations that both kinds of hooks need.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, Queue, RingBuf};
use mvedsua_common::monitor::{
    Cell, Control, Entered, Followed, Lost, MAX_CELLS, MAX_PROCESSES, PLACES, Process, SLOW_RING_BYTES, first_place,
    second_place,
};

/// One element. Written by the daemon only.
#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

/// Who is followed, by process id.
#[map]
pub static FOLLOWED: Array<Followed> = Array::with_max_entries(PLACES, 0);

#[map]
pub static PROCESSES: Array<Process> = Array::with_max_entries(MAX_PROCESSES, 0);

/// Calls under way, by thread id.
#[map]
pub static ENTERED: Array<Entered> = Array::with_max_entries(PLACES, 0);

/// Histograms; the daemon sets how many.
#[map]
pub static CELLS: PerCpuArray<Cell> = PerCpuArray::with_max_entries(MAX_CELLS, 0);

/// Who got the cell of a call when several CPUs saw it for the first time at once: by `claim_key`, the index plus one.
/// Only looked at when a process makes a call for the first time.
#[map]
pub static CLAIMS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_CELLS, 0);

/// Indices of free cells; the daemon puts them in.
#[map]
pub static FREE_CELLS: Queue<u32> = Queue::with_max_entries(MAX_CELLS, 0);

/// Indices of free processes; the daemon puts them in.
#[map]
pub static FREE_PROCESSES: Queue<u32> = Queue::with_max_entries(MAX_PROCESSES, 0);

#[map]
pub static SLOW: RingBuf = RingBuf::with_byte_size(SLOW_RING_BYTES, 0);

#[map]
pub static LOST: PerCpuArray<Lost> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
pub fn control() -> Option<&'static Control> {
    CONTROL.get(0)
}

/// Changes this CPU's counters of what was lost.
#[inline(always)]
pub fn lose(count: impl FnOnce(&mut Lost)) {
    if let Some(lost) = LOST.get_ptr_mut(0) {
        // SAFETY: the element is this CPU's own, and the kernel does not run a program on top of itself.
        count(unsafe { &mut *lost });
    }
}

/// Returns what is known of a followed process.
#[inline(always)]
pub fn followed(tgid: u32) -> Option<&'static Followed> {
    let first = FOLLOWED.get(first_place(tgid))?;
    if first.tgid == tgid {
        return Some(first);
    }
    if first.tgid == 0 {
        return None;
    }
    let second = FOLLOWED.get(second_place(tgid))?;
    if second.tgid == tgid { Some(second) } else { None }
}
