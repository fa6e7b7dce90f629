//! What a thread is, beside the memory that it works on: a property of its version.

use std::collections::BTreeMap;

use crate::ptrace::Result;
use crate::ptrace::inject::Remote;
use crate::ptrace::sys::{self, Regs, Rseq};
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Tid, regs};
use crate::record::Slot;
use crate::tracee::process::{Parked, Process};

/// All of a thread that its twin needs.
#[derive(Clone, Debug)]
pub(crate) struct ThreadState {
    pub(crate) slot: Slot,
    pub(crate) tid: Tid,
    pub(crate) regs: Regs,
    pub(crate) xstate: Vec<u8>,
    pub(crate) mask: u64,
    /// `stack_t`: base, flags, size.
    pub(crate) alt_stack: [u64; 3],
    pub(crate) rseq: Rseq,
    /// Head and length of the robust list.
    pub(crate) robust: (u64, u64),
    pub(crate) clear_tid: u64,
    /// How the thread stood.
    pub(crate) parked: Parked,
}

/// Returns an alternate stack as `sigaltstack(2)` takes it.
pub(crate) fn alt_stack_bytes(stack: [u64; 3]) -> Vec<u8> {
    // "In use" cannot be set; the kernel finds out by the stack pointer.
    let words = [stack[0], stack[1] & !(libc::SS_ONSTACK as u64), stack[2]];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Reads all of every thread, which is parked.
pub(crate) fn capture(inbox: &Inbox, process: &Process, parked: &BTreeMap<Tid, Parked>) -> Result<Vec<ThreadState>> {
    let mut saved = Vec::with_capacity(parked.len());
    for (tid, how) in parked {
        let mut regs = sys::get_regs(*tid)?;
        if let Parked::Entry { nr, .. } = how {
            regs::undo_entry(&mut regs, *nr);
            sys::set_regs(*tid, &regs)?;
        }
        saved.push((*tid, *how, process.slot(*tid).unwrap_or(Slot(0)), regs));
    }
    // What no other process can ask the kernel for, the threads ask themselves.
    let scratch = |index: usize| process.block(saved[index].2) - 1024;
    let mut remotes = Vec::with_capacity(saved.len());
    for (tid, _, _, regs) in &saved {
        remotes.push(process.remote(inbox, *tid, *regs)?);
    }
    Remote::call_in_all(&mut remotes, "sigaltstack", libc::SYS_sigaltstack, |index| [0, scratch(index), 0, 0, 0, 0])?;
    Remote::call_in_all(&mut remotes, "prctl", libc::SYS_prctl, |index| {
        [libc::PR_GET_TID_ADDRESS as u64, scratch(index) + 24, 0, 0, 0, 0]
    })?;
    remotes.into_iter().try_for_each(Remote::finish)?;
    let mut threads = Vec::with_capacity(saved.len());
    for (index, (tid, how, slot, mut regs)) in saved.iter().copied().enumerate() {
        let mut told = [0; 32];
        process.memory.read(scratch(index), &mut told)?;
        let word = |at: usize| told[at..at + 8].iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        // The twin makes the interrupted call anew; the leader may go on with what is left of its time.
        if let Parked::Rewound(call) = how {
            regs.rax = u64::from(call.nr);
        }
        threads.push(ThreadState {
            slot,
            tid,
            regs,
            xstate: sys::get_xstate(tid)?,
            mask: sys::get_sigmask(tid)?,
            alt_stack: [word(0), word(8), word(16)],
            rseq: sys::get_rseq(tid)?,
            robust: sys::get_robust_list(tid)?,
            clear_tid: word(24),
            parked: how,
        });
    }
    Ok(threads)
}
