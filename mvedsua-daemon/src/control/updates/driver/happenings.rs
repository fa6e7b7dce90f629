//! What a driver tells of an update in the stream of events.

use super::Driver;
use super::telling::failure_line;
use crate::control::events::{Subject, What};
use crate::lifecycle::{Effect, Stage, Timer};
use crate::update::SessionEvent;

impl Driver {
    pub(super) fn happened(&self, what: What) {
        let pid = self.asked.process.pid;
        let target = Some(self.shared.names.of(pid));
        let subject = Subject { update: Some(self.asked.id), pid: Some(pid), target, owner: Some(self.asked.owner) };
        self.shared.events.publish(&subject, what);
    }

    pub(super) fn tell_asked(&self) {
        let package = self.asked.package.as_ref().map(|package| package.info.name.clone());
        self.happened(What::Asked { to: self.asked.to.clone(), package, by: self.asked.by.uid });
    }

    pub(super) fn tell_stage(&self, from: Stage) {
        let attempt = self.state.plan().map_or(0, |plan| plan.attempt);
        self.happened(What::Stage { from, to: self.state.stage(), attempt });
    }

    pub(super) fn tell_session(&self, event: &SessionEvent) {
        match event {
            SessionEvent::Forked { threads, pause_us, .. } => {
                self.happened(What::Forked { threads: *threads, pause_us: *pause_us });
            }
            SessionEvent::Promoted { moved, pause_us, .. } => {
                self.happened(What::Promoted { moved: *moved, pause_us: *pause_us });
            }
            SessionEvent::PromotionAbandoned { reason } => {
                self.happened(What::PromotionAbandoned { why: reason.clone() });
            }
            SessionEvent::TookOver { death, .. } => self.happened(What::TookOver { how: death.to_string() }),
            // What becomes of these is a stage, a failure or the end.
            SessionEvent::Applied
            | SessionEvent::CaughtUp
            | SessionEvent::Progress(_)
            | SessionEvent::Failed(_)
            | SessionEvent::Confirmed { .. }
            | SessionEvent::RolledBack { .. }
            | SessionEvent::TargetEnded { .. } => {}
        }
    }

    pub(super) fn tell_effect(&self, effect: &Effect) {
        match effect {
            Effect::Keep(kind) => self.happened(What::of_failure(kind, failure_line(kind))),
            Effect::SetTimer(Timer::Retry, after) => {
                let Some(plan) = self.state.plan() else { return };
                self.happened(What::Retry {
                    attempt: plan.attempt + 1,
                    of: plan.policy.retries + 1,
                    after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
                });
            }
            Effect::Alarm(text) => self.happened(What::Alarm { text: text.clone() }),
            Effect::Finish(outcome) => self.happened(What::of_outcome(outcome)),
            Effect::Start { .. }
            | Effect::Send(_)
            | Effect::SetTimer(..)
            | Effect::StopTimer(_)
            | Effect::Verify { .. }
            | Effect::Recover
            | Effect::AskGate(_)
            | Effect::Refuse(_)
            | Effect::Unexpected(_) => {}
        }
    }
}
