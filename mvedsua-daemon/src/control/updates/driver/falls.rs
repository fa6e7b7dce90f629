//! What becomes of an update whose driver panics.
//!
//! A fault of the daemon's own code must not leave a service in a stage that nobody drives. The panic is caught, and the update
//! goes the ordinary way back: the session is told to undo, and what it answers decides, as ever. Whatever the panic kept from
//! being done is done again where the way back depends on it. A driver that panics again and again is given up: then only the
//! session's last word is awaited, and told.

use std::panic::AssertUnwindSafe;

use super::{Driver, Finished};
use crate::control::events::What;
use crate::control::panics;
use crate::control::updates::view::View;
use crate::lifecycle::{Cause, Event, Outcome, State, next};
use crate::update::{Command, FailureKind, SessionEvent};

/// How often a driver may panic before it is given up.
const MOST_FALLS: u32 = 3;

impl Driver {
    /// Drives the update until it is over, whatever panics on the way.
    pub(crate) async fn run(mut self) {
        for _ in 0..MOST_FALLS {
            let fallen = match self.fallen.take() {
                Some(why) => Some(why),
                None => panics::catch_async(self.drive()).await.err(),
            };
            let Some(why) = fallen else { return };
            // To log it may be what panics.
            let _ = panics::catch(|| tracing::error!(update = self.asked.id, why, "the update's own task failed"));
            self.fallen = panics::catch(AssertUnwindSafe(|| self.go_back(&why))).err();
        }
        self.give_up().await;
    }

    /// Begins the ordinary way back.
    fn go_back(&mut self, why: &str) {
        let kind = FailureKind::Engine(format!("the daemon's own task for the update failed: {why}"));
        if self.state.is_settled() {
            return;
        }
        let reason = "the daemon's own task for the update failed".to_owned();
        if let State::Pausing { .. } = self.state {
            self.failures.push(kind);
            self.feed(Event::Rollback { reason });
            return;
        }
        match &self.session {
            Some(session) => drop(session.commands.send(Command::Rollback { reason })),
            // It is being started: the command waits for it.
            None if !self.tasks.is_empty() => self.pending.push(Command::Rollback { reason }),
            None => {}
        }
        self.feed(Event::Session(SessionEvent::Failed(kind)));
        if self.session.is_none() && self.tasks.is_empty() {
            // Nobody is there who could answer.
            self.feed(Event::SessionLost);
        }
    }

    /// Awaits the session's last word and tells it, with as little as that takes.
    async fn give_up(mut self) {
        if self.is_past {
            return;
        }
        let leader = self.state.serving().unwrap_or(self.asked.process.pid);
        let what = "the daemon's own task for the update failed again and again";
        let outcome = match self.state.outcome() {
            Some(outcome) => outcome.clone(),
            None => {
                let cause = Cause::Failed(FailureKind::Engine(what.to_owned()));
                match self.last_word(what).await {
                    Some(SessionEvent::RolledBack { leader }) => Outcome::RolledBack { leader, cause },
                    Some(SessionEvent::Confirmed { leader }) => Outcome::Kept { leader, cause },
                    Some(SessionEvent::TargetEnded { status }) => Outcome::TargetEnded { status },
                    _ => Outcome::Unsure { leader, what: what.to_owned() },
                }
            }
        };
        let is_unsure = matches!(outcome, Outcome::Unsure { .. });
        // What it is made of may be what panics, so there is no more in it than is known already.
        let past = self.past(&outcome, None, vec![]);
        let _ = panics::catch(AssertUnwindSafe(|| self.shared.history.add(past)));
        let _ = panics::catch(AssertUnwindSafe(|| self.happened(What::of_outcome(&outcome))));
        if !is_unsure {
            let _ = panics::catch(AssertUnwindSafe(|| self.shared.journal.remove(self.asked.id)));
        }
        self.state = match &outcome {
            Outcome::TargetEnded { .. } => State::Ended { outcome },
            _ => State::SingleLeader { leader, last: Some(outcome) },
        };
        let state = &self.state;
        self.view.send_modify(|view| tell(view, state));
    }

    /// Tells the session to undo, and waits for what it says last.
    async fn last_word(&mut self, reason: &str) -> Option<SessionEvent> {
        if self.session.is_none() {
            // One that was being started has nobody yet who could tell it to undo.
            while let Some(Ok(finished)) = self.tasks.join_next().await {
                if let Finished::Started(Ok(handle)) = finished {
                    panics::catch(AssertUnwindSafe(|| self.adopt(handle))).ok()?;
                    break;
                }
            }
        }
        let session = self.session.as_mut()?;
        let _ = session.commands.send(Command::Rollback { reason: reason.to_owned() });
        loop {
            match session.events.recv().await? {
                SessionEvent::Forked { .. }
                | SessionEvent::Applied
                | SessionEvent::CaughtUp
                | SessionEvent::Progress(_)
                | SessionEvent::Failed(_)
                | SessionEvent::PromotionAbandoned { .. }
                | SessionEvent::TookOver { .. } => {}
                // One that was on its way is undone too.
                SessionEvent::Promoted { .. } => {
                    let _ = session.commands.send(Command::Rollback { reason: reason.to_owned() });
                }
                last @ (SessionEvent::Confirmed { .. }
                | SessionEvent::RolledBack { .. }
                | SessionEvent::TargetEnded { .. }) => return Some(last),
            }
        }
    }
}

/// Brings a view to the end of its update.
fn tell(view: &mut View, state: &State) {
    view.state = state.clone();
    view.status.stage = state.stage();
    view.status.next = next(state);
    view.status.versions.truncate(1);
    if let Some(update) = &mut view.status.update {
        update.plan = None;
        update.result = super::super::view::result_of(state, None);
    }
}
