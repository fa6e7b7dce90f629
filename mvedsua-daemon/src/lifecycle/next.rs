//! What happens next, in words.

use super::policy::{Confirmation, Promotion};
use super::state::{Cause, Ending, Outcome, Soak, State};

/// Says in one line what happens next, and what it waits for.
#[must_use]
pub fn next(state: &State) -> String {
    match state {
        State::SingleLeader { .. } => "nothing; no update is under way".to_owned(),
        State::Updating { run: None, .. } => {
            "the process is forked; then the new version is applied to the fork".to_owned()
        }
        State::Updating { run: Some(_), .. } => {
            "the new version is applied; then the follower works off the backlog".to_owned()
        }
        State::CatchingUp { run, .. } => {
            format!("the follower works off {} records; then every call is compared", run.counters.backlog)
        }
        State::Validating { plan, run, soak } => {
            let evidence = plan.weigh(&run.counters);
            let soaking = match soak {
                Soak::Running => format!("the soak time of {} is over", humantime::format_duration(plan.policy.soak)),
                Soak::Over => String::new(),
            };
            let comparing =
                if evidence.is_enough() { String::new() } else { format!("enough was compared ({evidence})") };
            // A master, for one, lets its children serve.
            let silent = match soak {
                Soak::Over if evidence.outputs == 0 => "; it has said nothing so far: do its children serve?",
                Soak::Over | Soak::Running => "",
            };
            let waits: Vec<_> = [soaking, comparing].into_iter().filter(|wait| !wait.is_empty()).collect();
            match (plan.policy.promote, waits.is_empty()) {
                (Promotion::Auto, true) => "it promotes now".to_owned(),
                (Promotion::Auto, false) => format!("it promotes by itself once {}{silent}", waits.join(" and ")),
                (Promotion::Manual, true) => "`promote` or `rollback` decides".to_owned(),
                (Promotion::Manual, false) => format!("`promote` decides; ready once {}{silent}", waits.join(" and ")),
            }
        }
        State::AskingGate { said, .. } => {
            format!("it is promoted once the gate allows it ({})", said.as_deref().unwrap_or("it has not answered yet"))
        }
        State::PromotingAgain { plan, run, .. } => format!(
            "the promotion is tried again in {}; it was abandoned {} times, at last because {}",
            humantime::format_duration(plan.policy.retry_after),
            plan.abandoned,
            run.abandoned_because.as_deref().unwrap_or("it could not be made")
        ),
        State::Promoting { .. } => {
            "both versions stop at the same call; then the service moves to the new one".to_owned()
        }
        State::UpdatedLeader { plan, ending, .. } => match (ending, plan.policy.confirm) {
            (Ending::Verifying, _) => "what the new version has mapped is compared with what it should have".to_owned(),
            (Ending::Asking { said }, _) => format!(
                "the old version ends once the gate allows it ({})",
                said.as_deref().unwrap_or("it has not answered yet")
            ),
            (Ending::Open, Confirmation::Manual) => {
                "`confirm` ends the old version; `rollback` returns to it".to_owned()
            }
            (Ending::Open, Confirmation::Auto) => format!(
                "the old version ends by itself {} after the promotion",
                humantime::format_duration(plan.policy.soak)
            ),
            (Ending::Confirming, _) => "the old version ends".to_owned(),
            (Ending::Died { .. }, _) => "the old version crashed; the new one goes on alone".to_owned(),
        },
        State::RollingBack { leader, .. } => format!("the follower ends and process {leader} goes on untouched"),
        State::Pausing { plan, .. } => format!(
            "attempt {} of {} starts in {}",
            plan.attempt + 1,
            plan.policy.retries + 1,
            humantime::format_duration(plan.policy.retry_after)
        ),
        State::Ended { .. } => "nothing; the process has ended".to_owned(),
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::Failed(kind) => crate::report::write_failure(f, kind),
            Cause::Inconclusive(evidence) => write!(f, "time ran out before there was a verdict: {evidence}"),
            Cause::Suspected(suspected) => {
                write!(f, "the difference that was seen counts: {suspected} before time ran out")
            }
            Cause::TimedOut(stage) => write!(f, "time ran out in stage {stage}"),
            Cause::Asked(reason) => write!(f, "asked: {reason}"),
            Cause::Mismatch(what) => write!(f, "the new leader does not run what was announced: {what}"),
            Cause::Unsupported(calls) => write!(f, "a call cannot be replayed: {}", calls.join("; ")),
            Cause::Exceeded(what) | Cause::Slowed(what) => f.write_str(what),
            Cause::Denied(why) => write!(f, "the gates did not allow it: {why}"),
            Cause::NewDied { death } => write!(f, "the new version {death} while it led"),
            Cause::EngineLost => f.write_str("the engine ended without a last word"),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Confirmed { leader } => write!(f, "updated: process {leader} serves, the old version has ended"),
            Outcome::TookOver { leader, death } => {
                write!(f, "the old version {death}, and the new one took over in process {leader}")
            }
            Outcome::RolledBack { leader, cause } => {
                write!(f, "rolled back: process {leader} serves as before; {cause}")
            }
            Outcome::Kept { leader, cause } => {
                write!(f, "updated without a way back: process {leader} serves, the old version has ended; {cause}")
            }
            Outcome::TargetEnded { status } => write!(f, "the process ended: {status}"),
            Outcome::Unsure { leader, what } => write!(f, "process {leader} may be harmed: {what}"),
        }
    }
}
