//! Letting the leader's processes go where nobody follows them any more: each is put back as it was and detached from, so that it
//! fares as if it had been alone from its start.
//!
//! What stands in the way is tried again: the thread of a `vfork` cannot be stopped before its child executes another program
//! or ends. Until then such a process runs on under trace, unrecorded. Of processes that were let go only the end of the first
//! is heard, which is our child.

use std::time::{Duration, Instant};

use super::*;
use crate::ptrace::tsc::{Reads, Trapped};
use crate::ptrace::{Error, sys};
use crate::record::leading::processes::Birth;
use crate::tracee::ghosts::Ghost;
use crate::tracee::process::Zombies;

/// How long stopping the threads of one process may take, and how long it is left alone after that failed.
const STOP_LIMIT: Duration = Duration::from_millis(250);
const TRY_AGAIN: Duration = Duration::from_millis(50);

impl Leader {
    /// Nobody follows any more: the processes run on by themselves.
    pub(super) fn release(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.released, true) {
            return Ok(());
        }
        for pid in self.members.pids() {
            if let Some(member) = self.members.get_mut(&pid) {
                self.areas.extend(member.process.rings.as_ref().map(Rings::area));
                let stopped = member.role.stop(&mut member.process, "nobody follows");
                self.check(stopped);
            }
        }
        for tid in self.nursery.take_stopped() {
            let freed = self.free_stranger(tid);
            self.check(freed);
        }
        self.free_all();
        Ok(())
    }

    /// Lets go of every process that can be stopped now.
    fn free_all(&mut self) {
        self.free_again = Instant::now() + TRY_AGAIN;
        for pid in self.members.pids() {
            let freed = self.free(pid);
            self.check(freed);
        }
    }

    /// Tries again what could not be done at once.
    pub(super) fn free_the_rest(&mut self) {
        if self.released && !self.members.is_empty() && Instant::now() >= self.free_again {
            self.free_all();
        }
    }

    fn free(&mut self, pid: Pid) -> Result<()> {
        // Whoever sleeps so cannot be stopped.
        let sleeps = |tid: &Tid| procfs::state(pid, *tid) == Some('D');
        if procfs::tasks(pid)?.iter().any(sleeps) {
            return Ok(());
        }
        let borrows = self.members.keys().any(|other| *other != pid && sys::shares_memory(pid, *other));
        let Some(member) = self.members.get(&pid) else { return Ok(()) };
        match process::park_all(&self.inbox, &member.process, STOP_LIMIT) {
            // It has executed another program meanwhile, in which nothing is prepared for letting it go. Its reads of the clock may
            // be trapped still, and are executed for it.
            Ok(parked) if has_executed(&member.process) => {
                self.free_again = Instant::now() + 4 * TRY_AGAIN;
                process::unpark(&parked)
            }
            Ok(parked) => {
                let Some(Member { process, .. }) = self.members.remove(&pid) else { return Ok(()) };
                let tids: Vec<Tid> = parked.keys().copied().collect();
                let freed = if borrows {
                    process.leave(parked)
                } else {
                    process.release(&self.inbox, parked, Zombies::These(Vec::new()))
                };
                self.hear_of_end(pid, freed.inspect_err(|_| detach(&tids)))
            }
            Err(error @ Error::TimedOut { .. }) => {
                tracing::debug!(%pid, %error, "it runs on under trace for now");
                self.free_again = Instant::now() + 4 * TRY_AGAIN;
                Ok(())
            }
            Err(error) => self.hear_of_end(pid, Err(error)),
        }
    }

    /// Where the end of a process was heard of while it was being let go, nobody else hears of it.
    fn hear_of_end(&mut self, pid: Pid, freed: Result<()>) -> Result<()> {
        match freed {
            Err(Error::Ended { tid, stop: Some(stop), .. }) if tid == pid.main() => self.handle(tid, stop),
            freed => freed,
        }
    }

    /// A child at its first stop whose maker is not recorded any more.
    pub(super) fn free_child(&self, birth: Birth) -> Result<()> {
        let freed = Process::release_newborn(&self.inbox, birth.child, birth.kind, (&birth.footprint, birth.rings));
        freed.inspect_err(|_| detach(&[birth.child]))
    }

    /// A child at its first stop of which its maker has not told yet, and perhaps never will.
    fn free_stranger(&self, tid: Tid) -> Result<()> {
        let pid = Pid(tid.0);
        let maker = procfs::parent(pid).ok().and_then(|maker| self.members.get(&maker));
        let Some(Member { process, .. }) = maker else { return self.let_run(tid, Stop::Interrupted) };
        let kind = if sys::shares_memory(pid, process.pid) { Ghost::SharedMemory } else { Ghost::OwnMemory };
        process.release_child(&self.inbox, tid, kind).inspect_err(|_| detach(&[tid]))
    }

    /// Deals with a stop, once nobody is recorded any more.
    pub(super) fn let_go(&mut self, tid: Tid, stop: Stop) -> Result<()> {
        if stop.is_end() {
            self.nursery.ended(tid);
            self.members.remove(&Pid(tid.0));
            return Ok(());
        }
        if self.members.owner(tid).is_none()
            && let Stop::Interrupted | Stop::Group(_) = stop
        {
            return match self.nursery.ended(tid) {
                Some(birth) => self.free_child(birth),
                None => self.free_stranger(tid),
            };
        }
        self.let_run(tid, stop)
    }

    /// Lets a thread run on under trace.
    fn let_run(&self, tid: Tid, stop: Stop) -> Result<()> {
        let owner = self.members.owner(tid).and_then(|pid| self.members.get(&pid));
        match (stop, owner) {
            (Stop::Signal(signo), Some(Member { process, .. })) => {
                if tsc::execute_trapped(tid, signo, &process.memory, &process.footprint.clock)? {
                    return process::let_go(tid, Stop::Interrupted);
                }
                process.make_room_for_signal(tid)?;
            }
            // Perhaps its maker was trapped, and so is it.
            (Stop::Signal(signo), None) => {
                let clock = Trapped { reads: Reads::Trapped, ..Trapped::default() };
                if let Some(pid) = procfs::process_of(tid)
                    && tsc::execute_trapped(tid, signo, &Memory::open(pid)?, &clock)?
                {
                    return process::let_go(tid, Stop::Interrupted);
                }
            }
            // The first stop of a thread or a process: it has its maker's registers, but the ring that they point at is not
            // its own, and in a process not even there.
            (Stop::Interrupted | Stop::Group(_), owner)
                if owner.is_none_or(|Member { process, .. }| process.slot(tid).is_none()) =>
            {
                self.areas.iter().try_for_each(|area| leave_ring(tid, Some(*area)))?;
            }
            _ => {}
        }
        process::let_go(tid, stop)
    }
}

/// Says whether a process whose reads of the clock were trapped has executed another program since.
fn has_executed(process: &Process) -> bool {
    process.footprint.clock.reads == Reads::Trapped && !process.footprint.stub.is_installed(&process.memory)
}

/// Detaches from threads that could not be put back as they should be: they run on as they are.
fn detach(tids: &[Tid]) {
    // Those that are gone, or let go already, need nothing.
    tids.iter().for_each(|tid| drop(sys::detach(*tid, 0)));
}
