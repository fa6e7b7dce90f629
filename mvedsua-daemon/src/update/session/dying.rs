//! The version that leads comes to its end, and the other one does not share it: it takes over, in the same process.
//!
//! An end is a signal that would end the process, or the call that ends it (`exit_group`). The leader is held right before it.
//! A fault (such as SIGSEGV) that the program has a handler for may be one, or a virtual machine's own business: the first call
//! that comes of it is waited for, and whether the follower has had a fault, too.
//! A program that ends by itself mostly does something before (it writes why, it signals itself), by which the versions part
//! first. So a follower that has parted may take over as well, if all that the leader did since took nothing from the world
//! that the follower would miss (`replay/following/parted.rs`).

use super::*;
use crate::update::Death;

/// How long the end of the leader waits for the follower, which has to live through what is recorded before it is known
/// whether it does the same.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long the leader waits in the handler of a fault until it is known whether its follower has had one.
const FAULT_LIMIT: Duration = Duration::from_secs(1);
/// How long a follower that has parted from the old version is kept, in case that was the beginning of the old one's end.
const LAST_WORDS: Duration = Duration::from_millis(300);

impl Running<'_> {
    /// A thread of the leader is held before the call that ends the process. Returns how the session ends, if it does.
    pub(super) fn ends(&mut self, status: i32) -> Option<End> {
        let death = Death::Exit(status);
        if self.applied_at.is_none() {
            // Nobody can go on in its place before the new version is there.
            return self.let_end();
        }
        let deadline = Instant::now() + END_LIMIT;
        loop {
            match self.notices.recv_deadline(deadline) {
                Ok(Notice::EndAgreed) => return self.let_end(),
                Ok(Notice::LeaderEnded { status }) => return Some(End::TargetEnded(status)),
                Ok(Notice::Diverged(divergence)) => {
                    let sound = divergence.kind.leaves_the_follower_sound();
                    tracing::warn!(%death, "the leader is about to end, and the follower is not");
                    if sound && self.go_own_way() {
                        return Some(self.take_over(death));
                    }
                    self.tell(SessionEvent::Failed(FailureKind::Diverged(divergence)));
                    return self.let_end();
                }
                Ok(Notice::CaughtUp) => self.on_caught_up(),
                Ok(Notice::Applied) => self.on_applied(),
                Ok(Notice::Held | Notice::Drained | Notice::Faulted | Notice::MemoryShort(_)) => {}
                Ok(Notice::LeaderEnds { .. } | Notice::LeaderHandles { .. }) => {}
                Ok(Notice::FaultShared | Notice::FaultAlone) => {}
                Ok(Notice::LeaderCrashed { signo }) => return Some(self.take_over(Death::Signal(signo))),
                // The follower is lost, and nobody is left who could go on.
                Ok(
                    notice @ (Notice::NotApplied { .. }
                    | Notice::LogFull(_)
                    | Notice::Refused { .. }
                    | Notice::Lost(_)
                    | Notice::Broken { .. }),
                ) => return self.on_notice(notice),
                Err(_) => return self.let_end(),
            }
        }
    }

    /// A thread of the leader is held in the handler of a fault. Returns how the session ends, if it does.
    pub(super) fn handles(&mut self, slot: Slot, signo: i32) -> Option<End> {
        let watch = move |core: &mut Core| with_following(core, |following, process, _| following.watch(process, slot));
        // Nobody can go on in its place before the new version is there.
        if self.applied_at.is_none() || self.follow.ask(watch).is_err() {
            return self.let_handle();
        }
        let death = Death::Signal(signo);
        let deadline = Instant::now() + FAULT_LIMIT;
        loop {
            match self.notices.recv_deadline(deadline) {
                Ok(Notice::FaultAlone) => {
                    tracing::warn!(signo, "the leader handles a fault that the follower has not had");
                    return Some(self.take_over(death));
                }
                Ok(Notice::FaultShared) | Err(_) => return self.let_handle(),
                Ok(Notice::LeaderCrashed { signo }) => return Some(self.take_over(Death::Signal(signo))),
                Ok(Notice::CaughtUp) => self.on_caught_up(),
                Ok(Notice::Applied) => self.on_applied(),
                Ok(
                    Notice::Held
                    | Notice::Drained
                    | Notice::Faulted
                    | Notice::EndAgreed
                    | Notice::MemoryShort(_)
                    | Notice::LeaderHandles { .. },
                ) => {}
                Ok(
                    notice @ (Notice::Diverged(_)
                    | Notice::LeaderEnds { .. }
                    | Notice::LeaderEnded { .. }
                    | Notice::NotApplied { .. }
                    | Notice::LogFull(_)
                    | Notice::Refused { .. }
                    | Notice::Lost(_)
                    | Notice::Broken { .. }),
                ) => return self.let_handle().or_else(|| self.on_notice(notice)),
            }
        }
    }

    fn let_handle(&mut self) -> Option<End> {
        let let_go = self.lead.ask(|core| with_leading(core, |leading, process, _| leading.let_handle(process)));
        let_go.err().map(|error| End::TargetEnded(error.to_string()))
    }

    /// The leader ends: its follower does the same, or cannot go on in its place.
    fn let_end(&mut self) -> Option<End> {
        let let_go = self.lead.ask(|core| with_leading(core, |leading, process, _| leading.let_end(process)));
        let_go.err().map(|error| End::TargetEnded(error.to_string()))
    }

    /// The follower has parted: from here on its own calls count. Says whether it can.
    pub(super) fn go_own_way(&mut self) -> bool {
        self.parted = true;
        let went = self.follow.ask(|core| with_following(core, |following, process, _| following.go_own_way(process)));
        if let Err(error) = &went {
            tracing::warn!(%error, "a follower cannot go on by itself");
        }
        went.is_ok()
    }

    /// The new version, which follows, has parted from the old one: perhaps by what that does before it ends. Returns how the
    /// session ends if it was so.
    pub(super) fn await_last_words(&mut self) -> Option<End> {
        if !self.go_own_way() {
            return None;
        }
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            match self.notices.recv_deadline(deadline) {
                Ok(Notice::LeaderCrashed { signo }) => return Some(self.take_over(Death::Signal(signo))),
                Ok(Notice::LeaderEnds { status }) => return Some(self.take_over(Death::Exit(status))),
                Ok(Notice::LeaderHandles { signo, .. }) => return Some(self.take_over(Death::Signal(signo))),
                Ok(Notice::LeaderEnded { status }) => return Some(End::TargetEnded(status)),
                Ok(
                    Notice::CaughtUp
                    | Notice::Applied
                    | Notice::Held
                    | Notice::Drained
                    | Notice::EndAgreed
                    | Notice::FaultShared
                    | Notice::FaultAlone
                    | Notice::MemoryShort(_),
                ) => {}
                Ok(
                    Notice::Faulted
                    | Notice::NotApplied { .. }
                    | Notice::Diverged(_)
                    | Notice::LogFull(_)
                    | Notice::Refused { .. }
                    | Notice::Lost(_)
                    | Notice::Broken { .. },
                )
                | Err(_) => return None,
            }
        }
    }

    /// The leader is held before its end: the other version takes over from there.
    pub(super) fn take_over(&mut self, death: Death) -> End {
        tracing::warn!(%death, "the version that leads has come to its end");
        match self.hold_and_take_over() {
            Ok(_) => {
                self.stage = self.stage.other();
                self.tell(SessionEvent::TookOver { leader: self.leader.0, death });
                if let Err(error) = self.confirm() {
                    tracing::error!(%error, "ending the version that came to its end");
                }
                End::TookOver
            }
            Err(Exchange::Abandoned(reason)) => {
                tracing::error!(reason, "the follower could not take over");
                self.end_without(death, format!("the follower could not take over: {reason}"))
            }
            Err(Exchange::Over(end)) => end,
            Err(Exchange::Harmed(what)) => self.harmed(what),
            Err(Exchange::Ended(Notice::Diverged(divergence))) => {
                self.tell(SessionEvent::Failed(FailureKind::Diverged(divergence)));
                self.end_without(death, "the follower had parted from it".to_owned())
            }
            Err(Exchange::Ended(_)) => self.end_without(death, "the follower had ended".to_owned()),
        }
    }

    /// Nobody takes over: what the leader was kept from happens.
    fn end_without(&mut self, death: Death, why: String) -> End {
        // It may be held before its end as before any other call.
        let _ = self.let_end();
        self.go_on();
        End::TargetEnded(format!("it {death}; {why}"))
    }

    /// Brings the follower to where it can lead and puts its image in place. A follower that parts on the way parts from a
    /// version that is at its end, and goes on by itself.
    fn hold_and_take_over(&mut self) -> std::result::Result<roles::Exchanged, Exchange> {
        loop {
            self.lead.ask(|core| with_leading(core, |leading, process, _| leading.hold(process, Hold::Anywhere)))?;
            match self.hold_and_drain(TAKE_OVER_LIMIT) {
                Ok(()) => break,
                Err(Exchange::Ended(Notice::Diverged(divergence)))
                    if !self.parted && divergence.kind.leaves_the_follower_sound() && self.go_own_way() => {}
                Err(reason) => return Err(reason),
            }
        }
        Ok(self.swap(None)?)
    }
}
