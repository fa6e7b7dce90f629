//! Names of calls and signals.

use std::borrow::Cow;

use mvedsua_common::syscalls::{self, Irregular};
use nix::sys::signal::Signal;

/// Returns the name of a system call, or its number where Linux has none.
#[must_use]
pub fn call_name(nr: u32) -> Cow<'static, str> {
    syscalls::name(nr).map_or_else(|| Cow::Owned(format!("syscall {nr}")), Cow::Borrowed)
}

/// Returns the name of a signal; the real-time ones count from `SIGRTMIN`.
#[must_use]
pub fn signal_name(signo: i32) -> Cow<'static, str> {
    /// The first real-time signal of the kernel; the C library keeps two of them for itself.
    const SIGRTMIN: i32 = 32;
    match Signal::try_from(signo) {
        Ok(signal) => Cow::Borrowed(signal.as_str()),
        Err(_) if signo >= SIGRTMIN => Cow::Owned(format!("SIGRTMIN+{}", signo - SIGRTMIN)),
        Err(_) => Cow::Owned(format!("signal {signo}")),
    }
}

/// Returns how many arguments a call takes, or all six where the table has no row.
#[must_use]
pub(super) fn argument_count(nr: u32) -> usize {
    match syscalls::row(nr) {
        // The row of a call that is many only tells what its requests share.
        Some(row) if !row.irregular.is_some_and(Irregular::is_many) => row.args.len(),
        _ => 6,
    }
}

/// Returns a negated errno as `-1 NAME`, with the kernel's restart codes by their own names.
#[must_use]
pub(super) fn errno_name(ret: i64) -> String {
    let errno = i32::try_from(-ret).unwrap_or(0);
    let name = match errno {
        512 => "ERESTARTSYS".to_owned(),
        513 => "ERESTARTNOINTR".to_owned(),
        514 => "ERESTARTNOHAND".to_owned(),
        516 => "ERESTART_RESTARTBLOCK".to_owned(),
        _ => format!("{:?}", nix::errno::Errno::from_raw(errno)),
    };
    format!("-1 {name}")
}
