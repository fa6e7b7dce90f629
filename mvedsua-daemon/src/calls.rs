//! What calls mean to the threads of their own process: which of them only tell the time, let signals in, or wait.
//!
//! Recorder, matcher and replayer go by the same answers. Everything here looks at a call's number and arguments alone.

use mvedsua_common::syscalls::{self, Asks, Identity, Signals, Wait, in_order, instructions};

pub(crate) use mvedsua_common::syscalls::waits_inside as waits;

/// Says whether a call only asks for the time.
pub(crate) fn asks_time(nr: u32) -> bool {
    reads_counter(nr) || syscalls::row(nr).is_some_and(|row| row.asks == Asks::Time)
}

/// Says whether it is the processor that is asked for the time.
pub(crate) fn reads_counter(nr: u32) -> bool {
    instructions::name(nr).is_some()
}

/// Says whether a call asks for a time that only durations are computed from, or for the processor.
pub(crate) fn asks_duration(nr: u32, args: &[u64; 6]) -> bool {
    const CLOCKS: [i32; 6] = [
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_MONOTONIC_RAW,
        libc::CLOCK_MONOTONIC_COARSE,
        libc::CLOCK_BOOTTIME,
        libc::CLOCK_THREAD_CPUTIME_ID,
        libc::CLOCK_PROCESS_CPUTIME_ID,
    ];
    match i64::from(nr) {
        libc::SYS_clock_gettime => CLOCKS.contains(&(args[0] as i32)),
        libc::SYS_getcpu => true,
        _ => reads_counter(nr),
    }
}

/// Says whether a call only waits.
pub(crate) fn sleeps(nr: u32) -> bool {
    syscalls::row(nr).is_some_and(|row| row.wait == Wait::Time)
}

/// Says whether a call asks what the process or the thread is called.
pub(crate) fn asks_its_name(nr: u32) -> bool {
    let own = [Asks::Name(Identity::Process), Asks::Name(Identity::Thread)];
    syscalls::row(nr).is_some_and(|row| own.contains(&row.asks))
}

/// Says whether a call sends signals, perhaps to its own thread.
pub(crate) fn sends_signals(nr: u32) -> bool {
    syscalls::row(nr).is_some_and(|row| matches!(row.signals, Signals::Sends { .. }))
}

/// Says whether a recorded call may have let a signal in.
pub(crate) fn lets_in(nr: u32) -> bool {
    syscalls::row(nr).is_some_and(|row| row.signals == Signals::LetsIn)
}

/// Says whether a call is elastic.
pub(crate) fn is_elastic(nr: u32, args: &[u64; 6]) -> bool {
    asks_duration(nr, args) || sleeps(nr) || lets_in(nr)
}

/// Says whether a call concerns nobody but the thread that makes it.
pub(crate) fn of_one_thread(nr: u32) -> bool {
    asks_time(nr) || sleeps(nr) || lets_in(nr)
}

/// The same where threads run one by one: how long a thread sleeps decides when its turn comes.
pub(crate) fn of_one_thread_in_order(nr: u32) -> bool {
    asks_time(nr) || lets_in(nr)
}

/// Says whether a call means nothing to anybody but the threads of its process.
pub(crate) fn is_internal(nr: u32) -> bool {
    of_one_thread(nr) || in_order(nr, &[0; 6]).is_some()
}
