//! What a process does with its signals: a property of its version, since handlers are addresses in it.

use crate::ptrace::Result;
use crate::ptrace::inject::Remote;
use crate::ptrace::memory::Memory;
use crate::ptrace::procfs::{Signals, signal_bit};

/// Bytes of the kernel's `struct sigaction`: handler, flags, restorer, mask.
pub(crate) const ACTION_LEN: usize = 32;

/// What is done with one signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) signo: i32,
    pub(crate) bytes: [u8; ACTION_LEN],
}

/// Returns the signals whose actions may differ between two versions: `Signals` tells which are handled and ignored.
fn concerned(service: Signals, coming: Signals) -> impl Iterator<Item = i32> {
    // Its flags say whether children are waited for, whatever the action is.
    let children = signal_bit(libc::SIGCHLD);
    let set = service.caught | coming.caught | service.ignored ^ coming.ignored | children;
    let unchangeable = signal_bit(libc::SIGKILL) | signal_bit(libc::SIGSTOP);
    (1..=64).filter(move |signo| (set & !unchangeable) & signal_bit(*signo) != 0)
}

/// Reads the actions that the service is to have, in the process that `remote` borrows a thread of.
pub(crate) fn read(
    remote: &mut Remote<'_>,
    memory: &Memory,
    scratch: u64,
    (service, coming): (Signals, Signals),
) -> Result<Vec<Action>> {
    let mut actions = Vec::new();
    for signo in concerned(service, coming) {
        remote.call("rt_sigaction", libc::SYS_rt_sigaction, [signo as u64, 0, scratch, 8, 0, 0])?;
        let mut bytes = [0; ACTION_LEN];
        memory.read(scratch, &mut bytes)?;
        actions.push(Action { signo, bytes });
    }
    Ok(actions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_neither_version_handles_is_not_asked_for() {
        let service = Signals { caught: signal_bit(15) | signal_bit(9), ignored: signal_bit(13), ..Signals::default() };
        let coming = Signals { caught: signal_bit(10), ignored: signal_bit(13) | signal_bit(1), ..Signals::default() };
        assert_eq!(concerned(service, coming).collect::<Vec<_>>(), [1, 10, 15, libc::SIGCHLD]);
    }
}
