//! Call sites at which the agent answers, see [`crate::ptrace::sites`]: when one is rewritten, and when it gets its bytes back.
//!
//! A site is rewritten where its calls are answered from records again and again, and nobody else runs in the meantime. It gets
//! its bytes back for good when a signal is delivered behind it, or a call is made there for real; all of them do before an image
//! is looked at or the follower goes on by itself. Where outputs wait for the follower or threads run beside each other, each
//! call stops.

use std::sync::PoisonError;

use super::prepare::may_be_prepared;
use super::*;
use crate::ptrace::memory::Span;
use crate::ptrace::sites::{Answers, Mapped, Sites};

/// Bytes of the instruction that makes a call.
const CALL: u64 = 2;

/// Whether the agent answers in this process.
#[derive(Debug)]
pub(super) enum Agent {
    /// It does not, and why.
    Off(AtStops),
    /// It has not been needed yet.
    Unused,
    /// It is there.
    There(Box<Sites>),
}

impl Agent {
    pub(super) fn answers(&mut self, tid: Tid) -> Option<(&mut Answers, &Mapped)> {
        match self {
            Agent::There(sites) => sites.answers(tid),
            Agent::Off(_) | Agent::Unused => None,
        }
    }

    pub(super) fn sites(&mut self) -> Option<&mut Sites> {
        match self {
            Agent::There(sites) => Some(sites),
            Agent::Off(_) | Agent::Unused => None,
        }
    }

    /// Returns where a thread would stand without the agent.
    pub(super) fn original(&self, rip: u64) -> u64 {
        match self {
            Agent::There(sites) => sites.original(rip),
            Agent::Off(_) | Agent::Unused => rip,
        }
    }
}

impl Following {
    /// Says whether calls are answered without stops for now.
    fn answers_without_stops(&self) -> bool {
        self.why_at_stops().is_none() && self.watched.is_none() && !self.ended
    }

    /// Says why each call is answered at a stop, if it is.
    fn why_at_stops(&self) -> Option<AtStops> {
        let reasons = [
            (self.settings.pairing == Pairing::Processes, AtStops::SideBySide),
            (self.settings.agreement.is_some(), AtStops::Lockstep),
            (!self.is_one_by_one(), AtStops::ThreadsFree),
            (self.applying.is_some(), AtStops::Applying),
            (self.parted.is_some(), AtStops::Parted),
        ];
        match self.agent {
            Agent::Off(why) => Some(why),
            Agent::Unused | Agent::There(_) => reasons.into_iter().find(|(holds, _)| *holds).map(|(_, why)| why),
        }
    }

    /// Tells those who look on what the agent has answered.
    pub(super) fn show_answered(&mut self) {
        let at_stops = self.why_at_stops();
        let mut answered = Answered { without_stops: self.agent_answered, at_stops, ..Answered::default() };
        if let Some(sites) = self.agent.sites() {
            answered.add(&sites.missed());
        }
        *self.settings.tally.answered.lock().unwrap_or_else(PoisonError::into_inner) = answered;
    }

    /// Says whether a thread that is about to go on finds answers to its calls.
    pub(super) fn has_answers(&mut self, process: &Process, tid: Tid) -> bool {
        let counts = self.threads.get(&tid).is_none_or(|thread| thread.counting != Counting::Neither);
        if self.answering || counts || !self.answers_without_stops() {
            return false;
        }
        let times = process.ring_place(tid);
        let Some(sites) = self.agent.sites().filter(|_| times != 0) else { return false };
        let Some(words) = sites.give(tid, times) else { return false };
        if let Some(ring) = process.ring(tid) {
            ring.set_words(words);
        }
        true
    }

    /// A thread stands at the entry of a call: looks whether its site is to be rewritten, or to get its bytes back. Says whether the
    /// thread was sent to its call once more.
    pub(super) fn look_at_site(
        &mut self,
        inbox: &Inbox,
        process: &mut Process,
        tid: Tid,
        (nr, args): (u32, &[u64; 6]),
    ) -> Result<bool> {
        let (answers, pairing) = (self.why_at_stops().is_none(), self.settings.pairing);
        let is_real = self.threads.get(&tid).is_none_or(|thread| matches!(thread.state, State::Real(_)));
        let prepared = answers && !is_real && may_be_prepared(pairing, nr, args);
        match &mut self.agent {
            Agent::Off(_) => return Ok(false),
            Agent::Unused if prepared && process.ring_place(tid) != 0 => {
                return self.bring_agent(inbox, process, tid, nr);
            }
            Agent::Unused => return Ok(false),
            Agent::There(_) => {}
        }
        let mut regs = sys::get_regs(tid)?;
        let Answering::WithoutStops { hot } = self.settings.answers else { return Ok(false) };
        let Some(sites) = self.agent.sites() else { return Ok(false) };
        if sites.contains(regs.rip) {
            if sites.move_out(&mut regs) || !prepared && sites.give_back(&process.memory, &mut regs)? {
                sys::set_regs(tid, &regs)?;
            }
            return Ok(false);
        }
        let site = regs.rip - CALL;
        if !prepared || !sites.is_hot(site, hot) {
            return Ok(false);
        }
        let Some(mut there) = self.standing_at(process, tid, site) else { return Ok(false) };
        if let Some(sites) = self.agent.sites()
            && let Some(call) = sites.rewrite(process.pid, &process.memory, site)?
        {
            there.push(tid);
            for tid in there {
                let mut regs = sys::get_regs(tid)?;
                regs.rip = call + CALL;
                sys::set_regs(tid, &regs)?;
            }
        }
        Ok(false)
    }

    /// Returns the other threads that are stopped at the call at a site; nothing where one of them runs in its own code or stands
    /// there otherwise.
    fn standing_at(&self, process: &Process, tid: Tid, site: u64) -> Option<Vec<Tid>> {
        let mut there = Vec::new();
        for (other, thread) in self.threads.iter().filter(|(other, _)| **other != tid) {
            if thread.is_busy() {
                return None;
            }
            let (_, rip) = procfs::place(process.pid, *other)?;
            let is_stopped = matches!(thread.state, State::AtCall(_) | State::Entered(_)) || thread.seat.is_held();
            match Sites::is_within(site, rip) {
                false => {}
                true if is_stopped && rip == site + CALL => there.push(*other),
                true => return None,
            }
        }
        Some(there)
    }

    /// Maps the agent. The thread makes its call once more.
    fn bring_agent(&mut self, inbox: &Inbox, process: &mut Process, tid: Tid, nr: u32) -> Result<bool> {
        let Some(rings) = process.rings.as_ref().map(|rings| rings.area()) else {
            self.agent = Agent::Off(AtStops::NoMemory);
            return Ok(false);
        };
        let mut saved = sys::get_regs(tid)?;
        let near = saved.rip;
        regs::undo_entry(&mut saved, nr);
        let mut remote = process.remote(inbox, tid, saved)?;
        let made = Sites::create(&mut remote, process.pid, &process.memory, near, rings);
        remote.finish()?;
        self.agent = match made {
            Ok(sites) => {
                let area = sites.area();
                process.agent = Some(Span { start: area.base, end: area.end() });
                Agent::There(Box::new(sites))
            }
            Err(error) if error.is_gone() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "the follower stops at each call");
                Agent::Off(AtStops::NoPlace)
            }
        };
        self.go(tid, Resume::Sysemu, State::Running { local: None })?;
        Ok(true)
    }

    /// A thread has stopped where it may be in the agent: it has the program's registers afterwards.
    pub(super) fn leave_agent(&mut self, tid: Tid, signo: i32) -> Result<bool> {
        let Some(sites) = self.agent.sites() else { return Ok(false) };
        let mut regs = sys::get_regs(tid)?;
        let left = match sites.contains(regs.rip) {
            true => sites.leave_agent(tid, &mut regs),
            false => signo == libc::SIGTRAP && sites.leave_trap(&mut regs),
        };
        if left {
            sys::set_regs(tid, &regs)?;
        }
        Ok(left)
    }

    /// A stopped thread is about to be given a signal, or to make a call for real: it does not stand in a stub afterwards.
    pub(super) fn leave_site(&mut self, process: &Process, tid: Tid) -> Result<()> {
        let Some(sites) = self.agent.sites() else { return Ok(()) };
        let mut regs = sys::get_regs(tid)?;
        if sites.contains(regs.rip) && sites.give_back(&process.memory, &mut regs)? {
            sys::set_regs(tid, &regs)?;
        }
        Ok(())
    }

    /// Gives all sites their bytes back, and moves the threads that are stopped out of the stubs.
    pub(super) fn take_agent_out(&mut self, process: &Process) -> Result<()> {
        let Agent::There(sites) = &mut self.agent else { return Ok(()) };
        sites.take_out(&process.memory)?;
        for (tid, thread) in &self.threads {
            if matches!(thread.state, State::Running { .. }) && !thread.seat.is_held() {
                // It runs, or is in a call of its own; what comes to its call in a stub is moved there.
                continue;
            }
            let Ok(mut regs) = sys::get_regs(*tid) else { continue };
            if sites.move_out(&mut regs) {
                sys::set_regs(*tid, &regs)?;
            }
        }
        Ok(())
    }
}
