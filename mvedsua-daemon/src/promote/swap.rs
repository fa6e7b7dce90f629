//! The instant of the promotion: gates and the word that they look at.

use crate::ptrace::memory::Memory;
use crate::ptrace::regs::{self, Rewound};
use crate::ptrace::stub;
use crate::ptrace::sys::{self, Regs, SyscallStop};
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Error, Pid, Result, Tid};
use crate::record::Slot;
use crate::record::leading::{HeldAt, HeldThread};
use crate::update::process::Process;

/// The thread id in glibc's `struct pthread`, from its start, which the thread pointer points at.
const GLIBC_TID: u64 = 0x2d0;

/// A thread at its gate, and what it goes on with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gated {
    pub(crate) tid: Tid,
    pub(crate) slot: Slot,
    regs: Regs,
    mask: u64,
    /// The call that it is before, for the role that comes.
    pub(crate) rewound: Option<Rewound>,
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

/// Puts rewound threads at their gates: each lives on by itself if the word holds `lives_at` when it is let go.
pub(crate) fn gate(process: &Process, threads: &[(Tid, Slot, Option<Rewound>)], lives_at: u64) -> Result<Vec<Gated>> {
    // Each needs a block of its own: all of them stand at their gates at the same time.
    if threads.len() > process.blocks() as usize {
        let (have, room) = (threads.len(), process.blocks());
        let what =
            format!("process {} has {have} threads, and there is room for {room} since it was forked", process.pid);
        return Err(Error::Unsupported(what));
    }
    let mut gated = Vec::with_capacity(threads.len());
    for (index, (tid, slot, rewound)) in (0..).zip(threads) {
        let regs = sys::get_regs(*tid)?;
        let mask = sys::get_sigmask(*tid)?;
        let block = process.block_at(index) - 16;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&process.footprint.arena.word().to_ne_bytes());
        bytes.extend_from_slice(&lives_at.to_ne_bytes());
        bytes.extend_from_slice(&stub::context(&regs, mask));
        process.memory.write(block, &bytes)?;
        let mut at_gate = regs;
        at_gate.rip = process.footprint.stub.gate();
        at_gate.rsp = block;
        at_gate.orig_rax = u64::MAX;
        sys::set_regs(*tid, &at_gate)?;
        sys::set_sigmask(*tid, u64::MAX)?;
        gated.push(Gated { tid: *tid, slot: *slot, regs, mask, rewound: *rewound });
    }
    Ok(gated)
}

/// Describes rewound threads that go on without a gate.
pub(crate) fn standing(threads: &[(Tid, Slot, Option<Rewound>)]) -> Result<Vec<Gated>> {
    let stands = |(tid, slot, rewound): &(Tid, Slot, Option<Rewound>)| {
        Ok(Gated {
            tid: *tid,
            slot: *slot,
            regs: sys::get_regs(*tid)?,
            mask: sys::get_sigmask(*tid)?,
            rewound: *rewound,
        })
    };
    threads.iter().map(stands).collect()
}

/// Takes threads from their gates again.
pub(crate) fn ungate(gated: &[Gated]) -> Result<()> {
    for thread in gated {
        sys::set_sigmask(thread.tid, thread.mask)?;
        sys::set_regs(thread.tid, &thread.regs)?;
    }
    Ok(())
}

/// The commit: one aligned store into the page that both versions share.
pub(crate) fn commit(process: &Process, word: u64) -> Result<()> {
    process.memory.write(process.footprint.arena.word(), &word.to_ne_bytes())
}

/// Sets the ptrace options of every thread.
pub(crate) fn set_options(gated: &[Gated], options: i32) -> Result<()> {
    gated.iter().try_for_each(|thread| sys::set_options(thread.tid, options))
}

/// Closes every descriptor of a process whose threads are parked.
pub(crate) fn close_all(inbox: &Inbox, process: &Process) -> Result<()> {
    let Some((tid, _)) = process.threads.first() else { return Ok(()) };
    let mut remote = process.remote(inbox, tid, sys::get_regs(tid)?)?;
    remote.call("close_range", libc::SYS_close_range, [0, u64::from(u32::MAX), 0, 0, 0, 0])?;
    remote.finish()
}

/// Replaces the thread ids that glibc keeps in its thread descriptors (`pthread_kill` and the like pass them to the kernel):
/// both versions keep those of the one that leads. A place that does not hold the id `from` is something else and is left.
pub(crate) fn replace_cached_tids(
    memory: &Memory,
    gated: &[Gated],
    from: impl Fn(&Gated) -> Option<Tid>,
    to: impl Fn(&Gated) -> Option<Tid>,
) {
    for thread in gated {
        if let (Some(from), Some(to)) = (from(thread), to(thread)) {
            replace_cached_tid(memory, thread.regs.fs_base, from, to);
        }
    }
}

/// Does so for one thread.
pub(crate) fn replace_cached_tid(memory: &Memory, thread_pointer: u64, from: Tid, to: Tid) {
    let place = thread_pointer + GLIBC_TID;
    if memory.read_u32(place).is_ok_and(|have| have == from.0 as u32)
        && let Err(error) = memory.write(place, &to.0.to_ne_bytes())
    {
        tracing::warn!(tid = to.0, %error, "a cached thread id could not be replaced");
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
    let scratch = scratch(process, slot);
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

/// Four kilobytes of a slot's own memory, below its context block.
pub(crate) fn scratch(process: &Process, slot: Slot) -> u64 {
    process.block(slot) - 8192
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

    use super::*;
    use crate::update::birth;
    use crate::update::process::park;

    const LIMIT: Duration = Duration::from_secs(10);
    /// The exit status of a program that has gone on where it was.
    const WENT_ON: i32 = 7;

    /// A program is put at its gate and its tracer lets it go without another word, as when the daemon dies; returns how
    /// it ends by itself.
    fn left_at_the_gate(lives_at: u64, word: u64) -> i32 {
        // SAFETY: a new mapping; the test keeps it to its end.
        let page = unsafe { mmap_anonymous(None, 1.try_into().unwrap(), ProtFlags::all(), MapFlags::MAP_SHARED) };
        // SAFETY: zeroed and aligned memory that lives as long as the test, and only ever seen as an atomic.
        let go_on = unsafe { page.expect("a page").cast::<AtomicBool>().as_ref() };
        // SAFETY: the child only looks at the page and leaves; it takes no lock and allocates nothing.
        let child = match unsafe { libc::fork() } {
            0 => {
                while !go_on.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                // SAFETY: ends the child without running anything of the parent's.
                unsafe { libc::_exit(WENT_ON) }
            }
            pid => Pid(pid),
        };
        let inbox = Inbox::new();
        let mut process = birth::prepare(&inbox, child, LIMIT).expect("a process to prepare");
        let main = child.main();
        park(&inbox, child, &[main], LIMIT).expect("it stops");
        let slot = process.slot(main).unwrap_or_else(|| process.new_slot(main));
        commit(&process, word).expect("a word to store");
        gate(&process, &[(main, slot, None)], lives_at).expect("a gate");
        go_on.store(true, Ordering::Release);
        sys::detach(main, 0).expect("it is let go");
        let mut status = 0;
        // SAFETY: `status` outlives the call; nobody else waits for this child.
        assert_eq!(unsafe { libc::waitpid(child.0, &raw mut status, 0) }, child.0);
        assert!(libc::WIFEXITED(status), "{status:#x}");
        libc::WEXITSTATUS(status)
    }

    #[test]
    fn the_word_decides_who_goes_on() {
        assert_eq!(left_at_the_gate(3, 3), WENT_ON);
        assert_eq!(left_at_the_gate(3, 4), 1);
    }
}
