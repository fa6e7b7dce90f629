//! Signals that wait: blocked ones, and those that came while the versions were exchanged. A fork carries none.
//!
//! At the gates every signal is blocked, so what the old leader is sent during an exchange waits there too. It is looked at
//! (`PTRACE_PEEKSIGINFO`), taken away from it, and queued in the new leader with all its particulars. Only a thread itself may
//! send a signal in the name of the kernel or of another process (`rt_sigqueueinfo(2)`), so each queues its own.

use std::collections::BTreeMap;

use super::swap::Halted;
use crate::ptrace::memory::Memory;
use crate::ptrace::sys::{self, PendingOf, SigInfo};
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Result, Tid};
use crate::record::Slot;
use crate::tracee::process::Process;

/// What waited in a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    of_process: Vec<SigInfo>,
    of_threads: BTreeMap<Slot, Vec<SigInfo>>,
}

impl Pending {
    /// Looks at what waits in a process whose threads are stopped, and leaves it there.
    pub(crate) fn look(threads: impl IntoIterator<Item = (Slot, Tid)>) -> Result<Pending> {
        let mut pending = Pending::default();
        for (at, (slot, tid)) in threads.into_iter().enumerate() {
            if at == 0 {
                pending.of_process = sys::peek_siginfo(tid, PendingOf::Process)?;
            }
            let own = sys::peek_siginfo(tid, PendingOf::Thread)?;
            if !own.is_empty() {
                pending.of_threads.insert(slot, own);
            }
        }
        Ok(pending)
    }

    /// Adds what was kept from a thread, of which these numbers may wait in the kernel already, sent by us.
    pub(crate) fn add(&mut self, slot: Slot, kept: Vec<SigInfo>) {
        let of_thread = self.of_threads.entry(slot).or_default();
        of_thread.retain(|one| !(is_ours(one) && kept.iter().any(|other| other[..4] == one[..4])));
        of_thread.extend(kept);
    }

    /// Says whether nothing waited.
    pub(crate) fn is_empty(&self) -> bool {
        self.of_process.is_empty() && self.of_threads.values().all(Vec::is_empty)
    }

    /// Queues it in the process that leads from now on.
    pub(crate) fn queue(&self, inbox: &Inbox, process: &Process, threads: &[Halted]) -> Result<()> {
        let main = process.pid.main();
        for thread in threads {
            let nobody = Vec::new();
            let own = self.of_threads.get(&thread.slot).unwrap_or(&nobody);
            let of_process = if thread.tid == main { &self.of_process } else { &nobody };
            if own.is_empty() && of_process.is_empty() {
                continue;
            }
            let place = process.scratch(thread.slot);
            let mut remote = process.remote(inbox, thread.tid, sys::get_regs(thread.tid)?)?;
            let pid = process.pid.0 as u64;
            for info in own {
                let signo = put(&process.memory, place, info)?;
                let args = [pid, thread.tid.0 as u64, signo, place, 0, 0];
                remote.call("rt_tgsigqueueinfo", libc::SYS_rt_tgsigqueueinfo, args)?;
            }
            for info in of_process {
                let signo = put(&process.memory, place, info)?;
                remote.call("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo, [pid, signo, place, 0, 0, 0])?;
            }
            remote.finish()?;
        }
        Ok(())
    }
}

/// Says whether it was this process that sent a signal to a thread.
fn is_ours(info: &SigInfo) -> bool {
    const SI_TKILL: i32 = -6;
    let word = |at: usize| i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    word(8) == SI_TKILL && word(16) == std::process::id() as i32
}

fn put(memory: &Memory, place: u64, info: &SigInfo) -> Result<u64> {
    memory.write(place, info)?;
    Ok(u64::from(u32::from_ne_bytes([info[0], info[1], info[2], info[3]])))
}

/// Which thread of a process is the twin of which.
pub(crate) type Twins = BTreeMap<Tid, Tid>;
