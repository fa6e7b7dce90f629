//! Signals that the program lets in: by changing its mask, or for the time of one call.
//!
//! A signal that was blocked is delivered on the return from the call that lets it in, before the program goes on. So the
//! follower's own such call waits for the record of the leader's, which says whether a signal came with it. Where the
//! versions call them differently nothing is made of it: a record that the follower does not ask for is passed over, and a
//! call that the leader did not make is made.
//!
//! `ppoll` and its kin let signals in for the time of the call only. The follower's is not made, so another call with the same
//! mask is made in its place, which does nothing but wait for the signal: `rt_sigsuspend`. On the way to the handler the
//! thread gets the registers that it would have had.
//!
//! Where several signals are delivered at once each handler interrupts the one before it at its first instruction.

use super::real::{RealCall, What};
use super::*;

/// Where a thread is that lets a signal in for the time of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspending {
    /// The registers at the entry of its own call, and the result that the leader had.
    regs: sys::Regs,
    ret: i64,
}

/// Returns where the program keeps the mask that holds for the time of a call only.
fn temporary_mask(call: &Call, memory: &Memory) -> Option<u64> {
    let mask = match i64::from(call.nr) {
        libc::SYS_ppoll => call.args[3],
        libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => call.args[4],
        libc::SYS_pselect6 if call.args[5] != 0 => memory.read_u64(call.args[5]).ok()?,
        _ => 0,
    };
    (mask != 0).then_some(mask)
}

fn send(tid: Tid, signo: i32) {
    // SAFETY: takes integers only.
    unsafe { libc::syscall(libc::SYS_tkill, tid.0, signo) };
}

impl Following {
    /// Makes a call that lets signals in; the leader's signal, if it had one, comes on its return.
    pub(super) fn let_in(&mut self, tid: Tid, call: &Call) -> Result<()> {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.incoming = thread.at_return.take();
        }
        self.make(tid, call.nr, State::real(What::Own { nr: call.nr }))
    }

    /// The thread is about to make such a call. Not before now is it sent the signal: it need not be blocked, and its handler
    /// is to run behind the call.
    pub(super) fn send_incoming(&self, tid: Tid) {
        if let Some(signal) = self.threads.get(&tid).and_then(|thread| thread.incoming.as_ref()) {
            send(tid, signal.signo);
        }
    }

    /// Answers a call with a mask of its own that a signal has ended; says whether it was one.
    pub(super) fn suspend(&mut self, process: &Process, tid: Tid, call: &Call, ret: i64) -> Result<bool> {
        let Some(thread) = self.threads.get_mut(&tid).filter(|thread| thread.at_return.is_some()) else {
            return Ok(false);
        };
        let Some(mask) = temporary_mask(call, &process.memory) else { return Ok(false) };
        thread.incoming = thread.at_return.take();
        self.leave_site(process, tid)?;
        let saved = sys::get_regs(tid)?;
        let mut regs = saved;
        regs::undo_entry(&mut regs, libc::SYS_rt_sigsuspend as u32);
        [regs.rdi, regs.rsi] = [mask, 8];
        sys::set_regs(tid, &regs)?;
        self.go(tid, Resume::Syscall, State::real(What::Suspension(Box::new(Suspending { regs: saved, ret }))))?;
        Ok(true)
    }

    /// The thread is about to wait with the mask that lets its signal in.
    pub(super) fn on_suspended(&mut self, tid: Tid) -> Result<()> {
        if let Some(signal) = self.threads.get(&tid).and_then(|thread| thread.incoming.as_ref()) {
            send(tid, signal.signo);
        }
        sys::resume(tid, Resume::Syscall, 0)
    }

    /// A signal that was sent to a thread is about to be delivered; says whether it is one.
    pub(super) fn on_incoming(&mut self, process: &mut Process, tid: Tid, signo: i32) -> Result<bool> {
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(false) };
        let signal = match thread.incoming.take_if(|signal| signal.signo == signo) {
            Some(signal) => signal,
            None => match thread.nested.iter().position(|signal| signal.signo == signo) {
                Some(at) => Box::new(thread.nested.remove(at)),
                None => return Ok(false),
            },
        };
        if let State::Real(RealCall { what: What::Suspension(at), .. }) = &thread.state {
            let regs = sys::Regs { rax: at.ret as u64, ..at.regs };
            sys::set_regs(tid, &regs)?;
            thread.state = State::Running { local: None };
        } else if matches!(thread.state, State::Running { .. }) {
            self.leave_site(process, tid)?;
            process.make_room_for_signal(tid)?;
        }
        if !signal.more {
            self.deliver(tid, &signal)?;
        } else {
            if let Some(thread) = self.threads.get_mut(&tid) {
                thread.signalled = Some(signal);
            }
            self.advance(process)?;
        }
        Ok(true)
    }

    /// Delivers signals that others may follow at once, as soon as it is known whether they do; says whether one was.
    pub(super) fn deliver_signalled(&mut self) -> Result<bool> {
        let stopped: Vec<(Tid, Slot)> =
            self.threads.iter().filter(|(_, t)| t.signalled.is_some()).map(|(tid, t)| (*tid, t.slot)).collect();
        let mut moved = false;
        for (tid, slot) in stopped {
            while self.due.first_of(slot).is_none() && self.fetch() {}
            let next = match self.due.first_of(slot) {
                None if !self.is_drained_out() => continue,
                Some(Record { event: Event::Signal(next), .. }) if next.delivery == Delivery::AtOnce => {
                    Some(next.clone())
                }
                _ => None,
            };
            let Some(thread) = self.threads.get_mut(&tid) else { continue };
            let Some(signal) = thread.signalled.take() else { continue };
            if let Some(next) = next {
                send(tid, next.signo);
                thread.nested.push(next);
                self.consume(slot);
            }
            self.deliver(tid, &signal)?;
            moved = true;
        }
        Ok(moved)
    }

    /// Says whether nothing more is to come from the leader for now: it is held.
    fn is_drained_out(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| self.behind() >= drain.target)
    }
}
