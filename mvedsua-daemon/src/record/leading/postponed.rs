//! Signals that come while a thread is in user code.
//!
//! The follower can be given a signal where its thread makes a call, and nowhere else. A handler that runs before the program
//! looks at a flag in the one version and behind it in the other makes them part. So the leader's thread is given a signal at its
//! next call too, but for threads that run freely beside each other under `update`. One that computes for [`LONGEST`] is given it
//! where it is.
//!
//! At a call that [sleeps] it is given the signal *in* the call, and not before it: the program may have looked at the flag
//! that its handler sets, and would sleep although the signal came before it did.
//!
//! A signal that waits when a call returns is no such case: it is delivered before the program sees the result, and recorded
//! with the call.

use std::time::{Duration, Instant};

use mvedsua_common::syscalls::{Wait, row_of};

use super::*;
use crate::calls::{sends_signals, waits};

/// How long the process may compute while a signal waits for the next call of one of its threads.
const LONGEST: Duration = Duration::from_millis(20);
/// The same by the clock: on a busy machine the thread may have to wait for a processor.
const LONGEST_BY_CLOCK: Duration = Duration::from_millis(200);

/// The first of the signals that wait more than once each, the real-time ones.
const FIRST_QUEUED: i32 = 32;

/// A signal that waits.
#[derive(Debug)]
pub(super) struct Postponed {
    signo: i32,
    info: sys::SigInfo,
    since: Instant,
    /// The processor time that the process had used then.
    used: Duration,
    /// It is on its way to the thread, for the second time.
    sent: bool,
}

impl Postponed {
    /// Says whether it has waited long enough, in a process that has used so much processor time.
    fn is_overdue(&self, used: Duration) -> bool {
        let waited = self.since.elapsed();
        waited >= LONGEST_BY_CLOCK || waited >= LONGEST && used.saturating_sub(self.used) >= LONGEST
    }
}

/// Says whether a thread may sleep in a call until a signal ends that, signal(7). What takes the signal itself is no such call, and
/// one that is gone on with is made again.
fn sleeps(nr: u32, args: &[u64; 6]) -> bool {
    match row_of(nr, args).map(|row| row.wait) {
        None | Some(Wait::Never | Wait::TakenSignal | Wait::Resumed) => false,
        Some(Wait::Thread | Wait::Signal) => waits(nr, args),
        Some(Wait::Input | Wait::Others | Wait::Ready | Wait::Time | Wait::Child) => true,
    }
}

fn send(tid: Tid, signo: i32) {
    // SAFETY: takes integers only.
    unsafe { libc::syscall(libc::SYS_tkill, tid.0, signo) };
}

/// Queues a signal with the particulars that it came with, where somebody else may do so: not for what the kernel, `kill(2)`
/// or `tkill(2)` has sent (`rt_tgsigqueueinfo(2)`).
fn queue(tid: Tid, signo: i32, info: &sys::SigInfo) {
    const SI_TKILL: i32 = -6;
    let code = i32::from_ne_bytes([info[8], info[9], info[10], info[11]]);
    if code < 0
        && code != SI_TKILL
        && let Some(pid) = procfs::process_of(tid)
    {
        // SAFETY: `info` is a whole siginfo that outlives the call, which only reads it.
        if unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid.0, tid.0, signo, info.as_ptr()) } == 0 {
            return;
        }
    }
    send(tid, signo);
}

impl Leading {
    /// Says whether a signal may wait for a thread that returns from a call.
    pub(super) fn looks_for_signals(&self, tid: Tid, call: &Call) -> Result<bool> {
        let sent = self.threads.get(&tid).is_some_and(|thread| thread.postponed.iter().any(|one| one.sent));
        let looks = (sent || self.settings.pairing == Pairing::Processes) && call.order().is_some();
        Ok(sends_signals(call.entry.nr) || looks && sys::has_open_signal(tid)?)
    }

    /// Keeps a signal for the thread's next call, if it is one that can wait. One that comes for the second time is given the
    /// particulars that it came with first.
    pub(super) fn postpone(&mut self, pid: Pid, tid: Tid, signo: i32) -> Result<bool> {
        let free = self.settings.interleaving == Interleaving::Free;
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(false) };
        if let Some(at) = thread.postponed.iter().position(|one| one.sent && one.signo == signo) {
            if let Some(one) = thread.postponed.remove(at) {
                sys::set_siginfo(tid, &one.info)?;
            }
            return Ok(false);
        }
        if self.settings.pairing == Pairing::Threads && free || self.failed {
            return Ok(false);
        }
        let info = sys::get_siginfo(tid)?;
        let at_once = thread.deliverable & signal_bit(signo) != 0;
        if !matches!(thread.state, State::Running) || sys::is_fault(signo, &info) || at_once {
            return Ok(false);
        }
        if signo < FIRST_QUEUED && thread.postponed.iter().any(|one| one.signo == signo) {
            // As in the kernel: one that waits already stands for all of them, signal(7). Sent twice it would come once.
            return Ok(true);
        }
        let used = sys::cpu_time(pid).unwrap_or_default();
        thread.postponed.push_back(Postponed { signo, info, since: Instant::now(), used, sent: false });
        Ok(true)
    }

    /// Gives a thread that is about to make a call the signal that waits for it; says whether the call is made afterwards. One
    /// that sleeps is made at once, and the signal waits for it there. Other calls of its own are no place that the follower could
    /// be found at.
    pub(super) fn give_postponed(&mut self, process: &Process, tid: Tid, nr: u32, args: &[u64; 6]) -> Result<bool> {
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(false) };
        let Some(one) = thread.postponed.iter_mut().find(|one| !one.sent) else { return Ok(false) };
        if !matches!(thread.state, State::Running) {
            return Ok(false);
        }
        let signo = one.signo;
        if sleeps(nr, args) {
            one.sent = true;
            send(tid, signo);
            return Ok(false);
        }
        let Settings { interleaving, pairing, .. } = self.settings;
        let is_thread = |tid| self.threads.contains_key(&Tid(tid));
        let own = interleaving.ordered(pairing, nr, args, is_thread).is_none()
            && matches!(
                syscalls::treatment_of(pairing, nr, args, &process.memory),
                Treatment::Row(row) if row.class == Class::Local
            );
        if own && !lets_in(pairing, tid, nr, args, &process.memory)? {
            return Ok(false);
        }
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(false) };
        let Some(one) = thread.postponed.iter_mut().find(|one| !one.sent) else { return Ok(false) };
        one.sent = true;
        let mut regs = sys::get_regs(tid)?;
        regs::undo_entry(&mut regs, nr);
        sys::set_regs(tid, &regs)?;
        self.goes_on_at_once(tid);
        self.go(tid, signo)?;
        Ok(true)
    }

    /// A thread returns from a call that may have blocked a signal that waits: from now on it waits in the kernel, as if it had
    /// come a little later.
    pub(super) fn hand_over_blocked(&mut self, tid: Tid) -> Result<()> {
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(()) };
        if thread.postponed.iter().all(|one| one.sent) {
            return Ok(());
        }
        let blocked = sys::get_sigmask(tid)?;
        for one in thread.postponed.iter_mut().filter(|one| !one.sent && blocked & signal_bit(one.signo) != 0) {
            one.sent = true;
            send(tid, one.signo);
        }
        Ok(())
    }

    /// Sends all that wait: no call will be looked at for them, and nobody looks when they come.
    pub(crate) fn send_all_postponed(&mut self) {
        for (tid, thread) in &mut self.threads {
            for one in thread.postponed.iter_mut().filter(|one| !one.sent) {
                one.sent = true;
                queue(*tid, one.signo, &one.info);
            }
        }
    }

    /// Sends the signals that have waited long enough. A thread that is given one while it computes, perhaps in a loop that
    /// another thread is to end, is not waited for from there on: the follower is given the signal at the thread's next call, and
    /// would wait for that for ever if nobody else could go on.
    pub(super) fn send_postponed(&mut self, process: &Process) {
        let waiting =
            self.threads.iter_mut().flat_map(|(tid, thread)| thread.postponed.iter_mut().map(|one| (*tid, one)));
        let mut used = None;
        let mut due = Vec::new();
        for (tid, one) in waiting.filter(|(_, one)| !one.sent) {
            // Of a process that is gone nobody waits for it.
            let used = *used.get_or_insert_with(|| sys::cpu_time(process.pid).unwrap_or(Duration::MAX));
            if one.is_overdue(used) {
                one.sent = true;
                due.push((tid, one.signo));
            }
        }
        for (tid, signo) in due {
            if self.threads.len() > 1 {
                self.wait_no_longer_for(process, tid);
            }
            send(tid, signo);
        }
    }
}
