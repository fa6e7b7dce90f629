//! Gates: somebody else is asked before a promotion, and before the old version ends.
//!
//! Who is asked, and how, is the driver's business. Here an update waits for the answer as it would wait for anything else: what
//! the engine reports meanwhile counts as ever, and whatever is no permission leads back, never on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effects::{Effect, Event, Refusal, Timer};
use super::moves::{Next, interrupted, lost, promote, undo, unexpected, wrong_stage};
use super::state::{Cause, Plan, Run, Soak, Stage, State};
use crate::update::SessionEvent;

/// Says whether somebody is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gated {
    #[default]
    Open,
    Asked,
}

/// Before what somebody is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gates {
    pub promotion: Gated,
    pub confirmation: Gated,
}

/// What an update is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    Promotion,
    Confirmation,
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Moment::Promotion => "promotion",
            Moment::Confirmation => "confirmation",
        })
    }
}

/// What the gates say, all of them together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateAnswer {
    Allow,
    Deny {
        why: String,
    },
    /// They are asked again after a while.
    Wait {
        why: String,
        after: Duration,
    },
}

/// Promotes, after the gates have allowed it where there are any.
pub(super) fn promote_or_ask(plan: Plan, run: Run, soak: Soak) -> Next {
    match plan.policy.gates.promotion {
        Gated::Open => promote(plan, run, soak),
        Gated::Asked => (State::AskingGate { plan, run, soak, said: None }, vec![Effect::AskGate(Moment::Promotion)]),
    }
}

/// The transitions of [`State::AskingGate`].
pub(super) fn asking(plan: Plan, run: Run, soak: Soak, said: Option<String>, event: Event) -> Next {
    let same = |run: Run, effects| (State::AskingGate { plan, run, soak, said: said.clone() }, effects);
    match event {
        Event::Gate(Moment::Promotion, GateAnswer::Allow) => promote(plan, run, soak),
        Event::Gate(Moment::Promotion, GateAnswer::Deny { why }) => {
            undo(plan, run.leader, Some(run), Cause::Denied(why))
        }
        Event::Gate(Moment::Promotion, GateAnswer::Wait { why, after }) => {
            let again = Effect::SetTimer(Timer::AskAgain, after);
            (State::AskingGate { plan, run, soak, said: Some(why) }, vec![again])
        }
        Event::Gate(Moment::Confirmation, _) => same(run, vec![]),
        Event::Timer(Timer::AskAgain) => same(run, vec![Effect::AskGate(Moment::Promotion)]),
        Event::Session(SessionEvent::Progress(counters)) => same(Run { counters, ..run }, vec![]),
        Event::Timer(Timer::Overall) => {
            let cause = match said {
                Some(said) => Cause::Denied(format!("time ran out before they did; {said}")),
                None => Cause::TimedOut(Stage::Validating),
            };
            undo(plan, run.leader, Some(run), cause)
        }
        Event::Rollback { reason } => undo(plan, run.leader, Some(run), Cause::Asked(reason)),
        Event::Exceeded(what) => undo(plan, run.leader, Some(run), Cause::Exceeded(what)),
        Event::Slowed(what) => undo(plan, run.leader, Some(run), Cause::Slowed(what)),
        Event::Timer(Timer::Soak) => (State::AskingGate { plan, run, soak: Soak::Over, said }, vec![]),
        Event::Session(SessionEvent::CaughtUp) => same(run, vec![]),
        Event::Session(
            event @ (SessionEvent::Forked { .. } | SessionEvent::Applied | SessionEvent::PromotionAbandoned { .. }),
        ) => same(run, vec![unexpected(Stage::Validating, &event)]),
        Event::Session(event) => interrupted(plan, run.leader, Some(run), Stage::Validating, event),
        Event::SessionLost => lost(plan, run.leader, Some(run)),
        Event::Ask(_) => same(run, vec![Effect::Refuse(Refusal::Busy { stage: Stage::Validating })]),
        Event::Promote(_) | Event::Confirm => {
            same(run, vec![wrong_stage(Stage::Validating, "the promotion waits for what a gate says")])
        }
        Event::StartFailed(_) | Event::Recovered(_) | Event::Verified(_) => same(run, vec![]),
        Event::Timer(Timer::Retry | Timer::PromoteAgain | Timer::Answer) => same(run, vec![]),
    }
}
