//! The eBPF programs of the monitor.
//!
//! - [`calls`]: the hooks of system-call entry and exit, which count and time.
//! - [`births`]: the hooks of fork, exec and exit, which follow processes.
//! - [`maps`]: what both share with the daemon.
//! - [`tracepoint`]: what the hooks are given; the recorder's programs (`recorder.rs`, an object of its own) use it too.
//!
//! A hook runs on every system call of every process of the machine, so all here is written for speed: arrays with
//! inlined lookup, no hash map, one clock read in each hook, nothing shared between CPUs on the hot path.
#![no_std]
#![no_main]

mod births;
mod calls;
mod maps;
mod tracepoint;

/// The verifier admits no program that can reach this.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Needed for the helpers that the programs call.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
