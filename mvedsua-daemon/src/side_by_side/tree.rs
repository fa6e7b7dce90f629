//! What the drivers of the leader's and of a follower's processes share: the tracer thread's loop, the processes that it
//! drives, and those that are being born.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::failover::{Fallen, Legacy};
use crate::ptrace::ring::Area;
use crate::ptrace::wait::{Bell, Inbox, Stop, Wake};
use crate::ptrace::{Error, Pid, Result, Tid, procfs, sys};
use crate::record::Ending;
use crate::tracee::process::Process;

/// How long a thread without tracees waits before it looks again for room in the logs.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

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

/// Drives the processes of one version.
pub(super) trait Tree {
    fn inbox(&self) -> &Inbox;
    fn on_stop(&mut self, tid: Tid, stop: Stop);
    fn on_bell(&mut self);
    fn on_order(&mut self, order: Order);
    /// Says whether there is nothing more to do.
    fn is_over(&mut self, tracees: Tracees) -> bool;
}

/// Whether the thread has tracees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracees {
    Perhaps,
    None,
}

/// The loop of a tracer thread.
pub(super) fn drive(tree: &mut impl Tree, orders: &Receiver<Order>) -> Result<()> {
    loop {
        let mut tracees = Tracees::Perhaps;
        match tree.inbox().wait()? {
            Wake::Stop(tid, stop) => tree.on_stop(tid, stop),
            Wake::Bell => {
                orders.try_iter().for_each(|order| tree.on_order(order));
                tree.on_bell();
            }
            Wake::NoTracees => {
                tracees = Tracees::None;
                if let Ok(order) = orders.recv_timeout(LOOK_AGAIN) {
                    tree.on_order(order);
                }
                tree.on_bell();
            }
        }
        if tree.is_over(tracees) {
            return Ok(());
        }
    }
}

/// A tracer thread.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) bell: Arc<Bell>,
    orders: Sender<Order>,
    join: JoinHandle<()>,
}

impl Handle {
    /// Starts a tracer thread. `work` gets its inbox and its orders.
    pub(super) fn spawn(name: String, work: impl FnOnce(Inbox, Receiver<Order>) + Send + 'static) -> Result<Handle> {
        let (orders, received) = unbounded();
        let (ready, bell) = unbounded();
        let join = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let inbox = Inbox::new();
                if ready.send(inbox.bell()).is_ok() {
                    work(inbox, received);
                }
            })
            .map_err(|source| Error::Own { doing: format!("starting thread {name}"), source })?;
        let bell = bell.recv().map_err(|_| Error::Unsupported(format!("thread {name} ended at its start")))?;
        Ok(Handle { bell, orders, join })
    }

    pub(super) fn order(&self, order: Order) {
        // A thread that has ended has nothing left to do it to.
        let _ = self.orders.send(order);
        self.bell.ring();
    }

    pub(super) fn join(self) {
        if self.join.join().is_err() {
            tracing::error!("a tracer thread panicked; its tracees were let go");
        }
    }
}

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
