//! What the monitor's eBPF programs and the daemon share: the layout of the maps.
//!
//! All of it is plain old data of fixed size. The bounds are the constants here; what does not fit is counted in
//! [`Lost`], never dropped silently:
//!
//! | what | bound | memory | when it is full |
//! |---|---|---|---|
//! | processes followed at once | [`MAX_PROCESSES`] | 2 KB each | a child is counted as its parent |
//! | histograms (process × call) | chosen at load, at most [`MAX_CELLS`] | 3.2 KB each and CPU | calls are counted in [`Lost::calls`] |
//! | places for process ids | [`PLACES`], two for each id | 16 B each | the child is not followed, [`Lost::unfollowed`] |
//! | calls under way | [`PLACES`], two for each thread id | 16 B each | the call is untimed, [`Lost::entries`] |
//! | slow calls not read yet | [`SLOW_RING_BYTES`] | that | [`Lost::slow`] |

use crate::histogram::BUCKETS;
use crate::syscalls;

/// How many processes are told apart at once.
pub const MAX_PROCESSES: u32 = 256;

/// System-call numbers are below this; whatever is not is counted as the last one.
pub const MAX_CALLS: u32 = 512;

/// The most histograms that are ever allocated; the daemon takes fewer on machines with many CPUs.
pub const MAX_CELLS: u32 = 2048;

/// Places in the tables that are looked up by process or thread id. A power of two.
pub const PLACES: u32 = 1 << 16;

/// Size of the ring buffer for slow calls.
pub const SLOW_RING_BYTES: u32 = 256 << 10;

/// Counters of errors: errno 0 to 133, the five internal restart codes, and anything else.
pub const ERRORS: usize = 140;

/// The first of the kernel's internal restart codes (`ERESTARTSYS`), `include/linux/errno.h`.
const FIRST_RESTART: u64 = 512;
const LAST_RESTART: u64 = 516;
const RESTART_SLOT: usize = 134;

/// Returns the counter for the positive errno `errno`; always below [`ERRORS`].
#[must_use]
#[inline(always)]
pub const fn error_slot(errno: u64) -> usize {
    if errno < RESTART_SLOT as u64 {
        errno as usize
    } else if errno >= FIRST_RESTART && errno <= LAST_RESTART {
        RESTART_SLOT + (errno - FIRST_RESTART) as usize
    } else {
        ERRORS - 1
    }
}

/// Returns the errno that a counter counts; 0 for the last, which counts all others.
#[must_use]
pub const fn errno_of(slot: usize) -> u16 {
    if slot < RESTART_SLOT {
        slot as u16
    } else if slot < ERRORS - 1 {
        (FIRST_RESTART as usize + slot - RESTART_SLOT) as u16
    } else {
        0
    }
}

/// The first of the two places of a process or thread id.
#[must_use]
#[inline(always)]
pub const fn first_place(id: u32) -> u32 {
    id & (PLACES - 1)
}

/// The second place of a process or thread id; differs from the first for most ids.
#[must_use]
#[inline(always)]
pub const fn second_place(id: u32) -> u32 {
    (id.wrapping_mul(0x9E37_79B1) >> 16) & (PLACES - 1)
}

/// Returns the key under which the first cell of a call is claimed.
#[must_use]
#[inline(always)]
pub const fn claim_key(process: u32, nr: u32) -> u32 {
    process * MAX_CALLS + nr
}

/// Says whether the purpose of a call is to wait, so that it is no news when it is slow.
#[must_use]
#[inline(always)]
pub const fn waits(nr: u32) -> bool {
    // By constants rather than by an array, which would be a map of its own in the kernel.
    let word = match nr / 64 {
        0 => WAITING[0],
        1 => WAITING[1],
        2 => WAITING[2],
        3 => WAITING[3],
        4 => WAITING[4],
        5 => WAITING[5],
        6 => WAITING[6],
        7 => WAITING[7],
        _ => 0,
    };
    word >> (nr % 64) & 1 != 0
}

/// A bit for each call of the table whose purpose is to wait.
const WAITING: [u64; 8] = {
    let mut words = [0; 8];
    let mut nr = 0;
    while nr < 512 {
        if let Some(row) = syscalls::row(nr)
            && row.wait.is_purpose()
        {
            words[nr as usize / 64] |= 1 << (nr % 64);
        }
        nr += 1;
    }
    words
};

/// One histogram with its error counts: one call of one process, as one CPU saw it.
///
/// There is no sum and no maximum: the buckets tell both within their error, and keeping them would touch one more cache
/// line in every call. The counters are 32 bits wide and wrap; the daemon reads them often enough to see every wrap.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Cell {
    /// Calls whose entry was not seen, and calls that do not return.
    pub untimed: u32,
    /// Failures, by [`error_slot`].
    pub errors: [u32; ERRORS],
    /// Timed calls, by [`crate::histogram::bucket`].
    pub buckets: [u32; BUCKETS],
    pub padding: u32,
}

impl Cell {
    /// A cell that nothing has been counted in.
    pub const EMPTY: Cell = Cell { untimed: 0, errors: [0; ERRORS], buckets: [0; BUCKETS], padding: 0 };
}

/// The place is free.
pub const STATE_FREE: u32 = 0;
/// The process runs.
pub const STATE_LIVE: u32 = 1;
/// The process has ended; the daemon reads its numbers and frees the place.
pub const STATE_DEAD: u32 = 2;

/// Calls that wait are not reported as slow.
pub const SLOW_WORKING: u16 = 0;
/// Every call is reported when it is slow.
pub const SLOW_ALL: u16 = 1;

/// One followed process.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Process {
    pub tgid: u32,
    /// The process that forked it; 0 for the target itself.
    pub parent: u32,
    pub state: u32,
    /// 1 when a child that found no place of its own is counted here; the place then lives as long as its target.
    pub shared: u32,
    /// When it was born, `CLOCK_MONOTONIC` nanoseconds; 0 where that was before the attach.
    pub born_ns: u64,
    /// Its name at its birth or its last exec.
    pub comm: [u8; 16],
    /// By system-call number: the index of the call's cell plus one, 0 where there is none yet.
    pub cells: [u32; MAX_CALLS as usize],
}

impl Process {
    /// A free place.
    pub const FREE: Process = Process {
        tgid: 0,
        parent: 0,
        state: STATE_FREE,
        shared: 0,
        born_ns: 0,
        comm: [0; 16],
        cells: [0; MAX_CALLS as usize],
    };
}

/// Who is followed, and how: a place for a process id. All that the hooks need to know of a process is here, so that
/// they look once.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Followed {
    /// 0 for a free place.
    pub tgid: u32,
    /// Index into the processes.
    pub process: u16,
    /// [`SLOW_WORKING`] or [`SLOW_ALL`].
    pub slow_scope: u16,
    /// Calls that take at least this long are reported, nanoseconds.
    pub slow_ns: u64,
}

/// A call under way: a place for a thread id.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Entered {
    pub tid: u32,
    pub nr: u16,
    /// The window in which it was entered, see [`Control::window`].
    pub window: u16,
    /// `CLOCK_MONOTONIC`, nanoseconds; 0 where no call is under way.
    pub at_ns: u64,
}

/// What the daemon tells the programs at run time.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Control {
    /// 1 while entries are taken.
    pub open: u32,
    /// Numbers the observation windows, so that an entry of an earlier one is not taken for the present call's.
    pub window: u32,
}

/// What did not fit. One element for each CPU.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Lost {
    pub calls: u64,
    pub processes: u64,
    pub unfollowed: u64,
    pub entries: u64,
    pub slow: u64,
}

/// A slow call on its way through the ring buffer.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Slow {
    pub tgid: u32,
    pub tid: u32,
    pub nr: u32,
    pub padding: u32,
    pub ret: i64,
    pub started_ns: u64,
    pub duration_ns: u64,
    pub args: [u64; 6],
    pub comm: [u8; 16],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_slots_are_distinct_and_turn_back() {
        for errno in (1..134).chain(FIRST_RESTART..=LAST_RESTART) {
            assert_eq!(u64::from(errno_of(error_slot(errno))), errno);
        }
        for other in [134, 511, 517, 4095] {
            assert_eq!(error_slot(other), ERRORS - 1);
        }
        assert_eq!(errno_of(ERRORS - 1), 0);
    }

    #[test]
    fn places_are_in_the_table() {
        for id in [0, 1, 32_767, 65_535, 65_536, 4_194_303, u32::MAX] {
            assert!(first_place(id) < PLACES && second_place(id) < PLACES);
        }
    }

    #[test]
    fn layouts_have_no_hidden_padding() {
        assert_eq!(size_of::<Cell>(), 4 + 4 * ERRORS + 4 * BUCKETS + 4);
        assert_eq!(size_of::<Process>(), 4 * 4 + 8 + 16 + 4 * MAX_CALLS as usize);
        assert_eq!(size_of::<Entered>(), 16);
        assert_eq!(size_of::<Slow>(), 16 + 24 + 48 + 16);
    }
}
