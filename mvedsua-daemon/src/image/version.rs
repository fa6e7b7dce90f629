//! Taking stock of an image.

use std::collections::BTreeMap;

use super::handlers::{self, Action};
use super::threads::{self, ThreadState};
use crate::ptrace::procfs::{self, Mapping, Signals};
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Error, Pid, Result, Tid, sys};
use crate::record::Slot;
use crate::tracee::process::{Parked, Process};

/// What there is of an image in a process whose threads all stand still, before calls that are not made yet.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) pid: Pid,
    pub(crate) maps: Vec<Mapping>,
    /// The program break.
    pub(crate) break_at: u64,
    pub(crate) signals: Signals,
    /// What is done with the signals that were asked about.
    pub(crate) actions: Vec<Action>,
    pub(crate) threads: Vec<ThreadState>,
}

/// How much of the signal handlers is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handlers {
    /// Nothing: this is the image that is to be replaced.
    Unasked,
    /// What the service needs, whose signals these are.
    For(Signals),
}

impl Version {
    /// Takes stock of a process whose threads are parked.
    pub(crate) fn take_stock(
        inbox: &Inbox,
        process: &Process,
        parked: &BTreeMap<Tid, Parked>,
        handlers: Handlers,
    ) -> Result<Version> {
        let pid = process.pid;
        let threads = threads::capture(inbox, process, parked)?;
        let Some(first) = threads.first() else {
            return Err(Error::Unsupported(format!("process {pid} has no thread that could be looked at")));
        };
        let scratch = process.scratch(first.slot);
        let signals = procfs::signals(pid, first.tid)?;
        let mut remote = process.remote(inbox, first.tid, sys::get_regs(first.tid)?)?;
        let break_at = remote.call("brk", libc::SYS_brk, [0; 6])?;
        let actions = match handlers {
            Handlers::Unasked => Vec::new(),
            Handlers::For(service) => handlers::read(&mut remote, &process.memory, scratch, (service, signals))?,
        };
        remote.finish()?;
        // What answers a follower's calls is no part of its image.
        let agent = process.agent;
        let is_own = |mapping: &Mapping| agent.is_none_or(|agent| !agent.contains(mapping.start));
        let maps = procfs::maps(pid)?.into_iter().filter(is_own).collect();
        Ok(Version { pid, maps, break_at, signals, actions, threads })
    }

    pub(crate) fn thread(&self, slot: Slot) -> Option<&ThreadState> {
        self.threads.iter().find(|thread| thread.slot == slot)
    }
}

/// Returns how threads stand that were rewound to before their calls.
pub(crate) fn parked(threads: &[(Tid, Slot, Option<crate::ptrace::regs::Rewound>)]) -> BTreeMap<Tid, Parked> {
    threads.iter().map(|(tid, _, call)| (*tid, call.map_or(Parked::User, Parked::Rewound))).collect()
}
