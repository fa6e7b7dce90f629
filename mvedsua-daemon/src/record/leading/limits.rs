//! Calls that wait for a limited time, and that signals wake which the program ignores.
//!
//! Such a signal wakes a thread that is traced, and no other. The call is made again, and the kernel knows of most how much of
//! their time is left; but some it would give all of their time anew, and a program that is sent such signals often enough would
//! wait for ever. Of those it is known here when their time is over. The thread is interrupted then, and the call says what it
//! would have said by itself; nothing had come for it, or it would have returned with that.

use std::time::Duration;

use mvedsua_common::syscalls::After;

use super::*;
use crate::ptrace::query;

/// When the time of a call is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    until: Nanos,
    /// What it says then.
    result: i64,
}

impl Limit {
    /// Returns the limit of a call that answers `EINTR` to whatever wakes it, if it has one.
    fn of(process: &Process, entry: &CallEntry) -> Option<Limit> {
        let CallEntry { nr, args, .. } = entry;
        let limit = syscalls::row(*nr)?.limit?;
        let span = |addr: u64| {
            let read = |addr| process.memory.read_u64(addr).ok();
            (addr != 0).then(|| Some(Duration::new(read(addr)?, u32::try_from(read(addr + 8)?).ok()?)))?
        };
        let socket = |of| query::socket_limit(process.pid, args[0] as i32, of);
        let after = match limit.after {
            After::Milliseconds { arg } => u64::try_from(args[usize::from(arg)] as i32).ok().map(Duration::from_millis),
            After::Timespec { arg } => span(args[usize::from(arg)]),
            After::Receiving => socket(libc::SO_RCVTIMEO),
            After::Sending => socket(libc::SO_SNDTIMEO),
        }?;
        let after = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        Some(Limit { until: Nanos(entry.at.0.saturating_add(after)), result: -i64::from(limit.errno) })
    }

    fn is_over(self) -> bool {
        now() >= self.until
    }
}

impl Call {
    /// The call was interrupted: takes note of when its time is over.
    pub(super) fn note_limit(&mut self, process: &Process, ret: i64) {
        if ret == regs::EINTR && self.limit.is_none() {
            self.limit = Limit::of(process, &self.entry);
        }
    }

    /// Returns what the call says, if its time is over.
    pub(super) fn says_in_the_end(&self) -> Option<i64> {
        self.limit.filter(|limit| limit.is_over()).map(|limit| limit.result)
    }
}

impl Leading {
    /// Interrupts the threads whose calls should have returned by now.
    pub(super) fn end_overdue_calls(&self) -> Result<()> {
        for (tid, thread) in &self.threads {
            if let State::InCall(call) = &thread.state
                && call.says_in_the_end().is_some()
            {
                match sys::interrupt(*tid) {
                    Err(error) if !error.is_gone() => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
