//! Threads that stand before their next calls while versions change roles, and what is put right in their process.

use crate::ptrace::memory::Memory;
use crate::ptrace::regs::{self, Rewound};
use crate::ptrace::sys::{self, Regs, SyscallStop};
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Pid, Result, Tid};
use crate::record::Slot;
use crate::record::leading::{HeldAt, HeldThread};
use crate::tracee::cached_tid::replace_cached_tid;
use crate::tracee::process::Process;

/// A thread that stands before its next call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Halted {
    pub(crate) tid: Tid,
    pub(crate) slot: Slot,
    regs: Regs,
}

/// Rewinds the held threads of a leader, so that they can change roles.
pub(crate) fn rewind_held(held: &[HeldThread]) -> Result<Vec<(Tid, Slot, Option<Rewound>)>> {
    let mut threads = Vec::new();
    for thread in held {
        let mut regs = sys::get_regs(thread.tid)?;
        let rewound = match (&thread.at, &thread.call) {
            (HeldAt::Entry, Some(call)) => {
                // Unless it was rewound already, to execute a call of ours.
                if let SyscallStop::Entry { nr, .. } = sys::syscall_info(thread.tid)? {
                    regs::undo_entry(&mut regs, nr);
                    sys::set_regs(thread.tid, &regs)?;
                }
                Some(Rewound { nr: call.nr, args: call.args })
            }
            // The kernel may call it restart_syscall by now; the recorder knows better.
            (HeldAt::Rewound(_), Some(call)) => Some(Rewound { nr: call.nr, args: call.args }),
            (HeldAt::Rewound(rewound), None) => Some(*rewound),
            (HeldAt::Entry | HeldAt::Crash(_) | HeldAt::Stuck, _) => None,
        };
        threads.push((thread.tid, thread.slot, rewound));
    }
    Ok(threads)
}

/// Describes rewound threads.
pub(crate) fn halted(threads: &[(Tid, Slot, Option<Rewound>)]) -> Result<Vec<Halted>> {
    let stands = |(tid, slot, _): &(Tid, Slot, Option<Rewound>)| {
        Ok(Halted { tid: *tid, slot: *slot, regs: sys::get_regs(*tid)? })
    };
    threads.iter().map(stands).collect()
}

/// Sets the ptrace options of every thread.
pub(crate) fn set_options(halted: &[Halted], options: i32) -> Result<()> {
    halted.iter().try_for_each(|thread| sys::set_options(thread.tid, options))
}

/// Replaces the thread ids that glibc keeps in its thread descriptors (`pthread_kill` and the like pass them to the kernel):
/// both versions keep those of the one that leads. A place that does not hold the id `from` is something else and is left.
pub(crate) fn replace_cached_tids(
    memory: &Memory,
    halted: &[Halted],
    from: impl Fn(&Halted) -> Option<Tid>,
    to: impl Fn(&Halted) -> Option<Tid>,
) {
    for thread in halted {
        if let (Some(from), Some(to)) = (from(thread), to(thread)) {
            replace_cached_tid(memory, thread.regs.fs_base, from, to);
        }
    }
}

/// Re-registers with the epoll sets what the new leader calls by other values than the old one did.
pub(crate) fn correct_epoll(
    inbox: &Inbox,
    process: &Process,
    old_leader_entries: &[(i32, i32, u32, u64)],
) -> Result<()> {
    if old_leader_entries.is_empty() {
        return Ok(());
    }
    let Some((tid, slot)) = process.threads.first() else { return Ok(()) };
    let scratch = process.scratch(slot);
    let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
    for (epfd, fd, events, data) in old_leader_entries {
        let mut event = events.to_ne_bytes().to_vec();
        event.extend_from_slice(&data.to_ne_bytes());
        process.memory.write(scratch, &event)?;
        let args = [*epfd as u64, libc::EPOLL_CTL_MOD as u64, *fd as u64, scratch, 0, 0];
        remote.call("epoll_ctl", libc::SYS_epoll_ctl, args)?;
    }
    remote.finish()
}

/// Ends a process and waits until every thread that this tracer thread knows is reaped.
pub(crate) fn kill(inbox: &Inbox, pid: Pid) -> Result<()> {
    use crate::ptrace::wait::Wake;
    match sys::kill(pid, libc::SIGKILL) {
        Err(error) if !error.is_gone() => return Err(error),
        _ => {}
    }
    loop {
        match inbox.wait()? {
            Wake::Stop(tid, stop) if stop.is_end() && tid == pid.main() => return Ok(()),
            Wake::Stop(..) | Wake::Bell => {}
            Wake::NoTracees => return Ok(()),
        }
    }
}
