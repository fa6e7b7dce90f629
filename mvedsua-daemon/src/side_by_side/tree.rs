//! What the drivers of the leader's and of a follower's processes share: what they are told, the processes that they drive, and
//! those that are being born. The tracer thread's loop they share with updates ([`crate::tracee::driver`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::failover::{Fallen, Legacy};
use crate::ptrace::ring::Area;
use crate::ptrace::wait::Stop;
use crate::ptrace::{Pid, Result, Tid, procfs, sys};
use crate::record::Ending;
use crate::tracee::driver;
use crate::tracee::process::Process;

/// How long a thread without tracees waits before it looks again for room in the logs.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What a tracer thread is told.
#[derive(Debug)]
pub(super) enum Order {
    /// A leader that has crashed: nobody takes over.
    LetDie,
    /// A leader that has crashed: go on with the memory of a follower.
    Become(Box<Legacy>),
    /// A follower: the leader has crashed, get ready to go on in its place.
    TakeOver(Box<Fallen>),
    /// A follower that has given its memory away: the leader goes on with it.
    Gone,
    /// A follower that has given its memory away: the leader could not take it, for this reason.
    Unwanted(String),
    /// A follower that could not take over: another has, follow that.
    GoOn,
    /// End every process.
    Kill,
    /// Nobody follows any more: the processes run on by themselves.
    Release,
}

/// How the conductor reaches a tracer thread.
pub(super) type Handle = driver::Handle<Order>;

/// A process of a version, with what drives it.
pub(super) trait Part {
    fn process(&self) -> &Process;
}

/// The processes of a version.
pub(super) struct Members<M>(BTreeMap<Pid, M>);

impl<M> Default for Members<M> {
    fn default() -> Self {
        Members(BTreeMap::new())
    }
}

impl<M> Deref for Members<M> {
    type Target = BTreeMap<Pid, M>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<M> DerefMut for Members<M> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<M: Part> Members<M> {
    /// Returns the process that a thread belongs to, if it is known.
    pub(super) fn owner(&self, tid: Tid) -> Option<Pid> {
        let known = self.iter().find(|(_, member)| member.process().slot(tid).is_some());
        known.map(|(pid, _)| *pid).or_else(|| procfs::process_of(tid).filter(|pid| self.contains_key(pid)))
    }

    /// Returns their names, for what may change them.
    pub(super) fn pids(&self) -> Vec<Pid> {
        self.keys().copied().collect()
    }

    /// Ends them all.
    pub(super) fn end(&self) -> Result<()> {
        self.keys().try_for_each(|pid| end(*pid))
    }
}

/// Ends a process, unless it has ended.
pub(super) fn end(pid: Pid) -> Result<()> {
    match sys::kill(pid, libc::SIGKILL) {
        Err(error) if !error.is_gone() => Err(error),
        _ => Ok(()),
    }
}

/// Children of which one is known without the other: the first stop, and the record of the birth.
pub(super) struct Nursery<B> {
    stopped: BTreeSet<Tid>,
    born: BTreeMap<Tid, B>,
}

impl<B> Default for Nursery<B> {
    fn default() -> Self {
        Nursery { stopped: BTreeSet::new(), born: BTreeMap::new() }
    }
}

impl<B> Nursery<B> {
    /// A child has stopped; returns its birth if that is known already.
    pub(super) fn stopped(&mut self, tid: Tid) -> Option<B> {
        let birth = self.born.remove(&tid);
        if birth.is_none() {
            self.stopped.insert(tid);
        }
        birth
    }

    /// A birth is known; returns it if the child has stopped already.
    pub(super) fn born(&mut self, tid: Tid, birth: B) -> Option<B> {
        if self.stopped.remove(&tid) {
            return Some(birth);
        }
        self.born.insert(tid, birth);
        None
    }

    /// A child has ended; returns its birth if that was known.
    pub(super) fn ended(&mut self, tid: Tid) -> Option<B> {
        self.stopped.remove(&tid);
        self.born.remove(&tid)
    }

    /// Says whether a child waits for its birth to be known.
    pub(super) fn has_stopped(&self) -> bool {
        !self.stopped.is_empty()
    }

    /// Gives up the children that have stopped and whose birth is not known.
    pub(super) fn take_stopped(&mut self) -> BTreeSet<Tid> {
        std::mem::take(&mut self.stopped)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.born.is_empty() && self.stopped.is_empty()
    }
}

/// Takes a ring out of the registers of a child that has inherited them, but not the ring.
pub(super) fn leave_ring(tid: Tid, rings: Option<Area>) -> Result<()> {
    let mut regs = sys::get_regs(tid)?;
    if rings.is_some_and(|area| area.contains(regs.gs_base)) {
        regs.gs_base = 0;
        sys::set_regs(tid, &regs)?;
    }
    Ok(())
}

/// Returns how a thread that reports its end has ended.
pub(super) fn ending(stop: Stop) -> Option<Ending> {
    match stop {
        Stop::Exited(code) => Some(Ending::Exited(code)),
        Stop::Killed(signo) => Some(Ending::Killed(signo)),
        _ => None,
    }
}
