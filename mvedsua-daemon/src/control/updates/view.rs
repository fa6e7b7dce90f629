//! What an update looks like from outside.

use super::super::Code;
use super::super::led::Periods;
use super::super::status::{ResultStatus, Role, RunsAs, TargetStatus, VersionStatus};
use crate::control::process::Program;
use crate::lifecycle::{Confirmation, Ending, Promotion, Soak, Stage, State};
use crate::update::Which;

/// The state of the lifecycle and the status that is made of it.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) state: State,
    pub(crate) status: TargetStatus,
    /// Something is wrong that nobody can undo.
    pub(crate) alarm: Option<String>,
    /// What was observed of the process while each version led.
    pub(crate) periods: Periods,
    /// The user whose process it is.
    pub(crate) owner: u32,
}

/// Says whether what was asked for is there, and what it is.
pub(super) fn result_of(state: &State, alarm: Option<&String>) -> Option<ResultStatus> {
    if let Some(text) = alarm {
        return Some(ResultStatus { code: Code::Harmed, text: text.clone(), outcome: None });
    }
    let so_far = |text: String| Some(ResultStatus { code: Code::Done, text, outcome: None });
    if let Some(outcome) = state.outcome() {
        let (code, text) = (Code::of_outcome(outcome), outcome.to_string());
        return Some(ResultStatus { code, text, outcome: Some(outcome.clone()) });
    }
    match state {
        State::Validating { plan, run, soak: Soak::Over } if plan.policy.promote == Promotion::Manual => {
            let evidence = plan.weigh(&run.counters);
            if !evidence.is_enough() {
                return None;
            }
            so_far(format!("validated: {evidence} without a difference; `promote` or `rollback` decides"))
        }
        State::UpdatedLeader { plan, run, ending: Ending::Open, .. } if plan.policy.confirm == Confirmation::Manual => {
            so_far(format!("promoted: process {} serves; `confirm` or `rollback` decides", run.leader))
        }
        State::SingleLeader { .. }
        | State::Ended { .. }
        | State::Updating { .. }
        | State::CatchingUp { .. }
        | State::Validating { .. }
        | State::AskingGate { .. }
        | State::PromotingAgain { .. }
        | State::Promoting { .. }
        | State::UpdatedLeader { .. }
        | State::RollingBack { .. }
        | State::Pausing { .. } => None,
    }
}

/// Returns which process runs which version, the leader first.
pub(super) fn versions_of(
    state: &State,
    program: impl Fn(i32) -> Program,
    runs: impl Fn(Which) -> Vec<RunsAs>,
) -> Vec<VersionStatus> {
    let is_updated = state.outcome().is_some_and(|outcome| outcome.updated().is_some());
    let leads = match state.run() {
        Some(run) => run.leads,
        None if is_updated => Which::New,
        None => Which::Old,
    };
    let follows = match leads {
        Which::Old => Which::New,
        Which::New => Which::Old,
    };
    let version = |pid, role, which| VersionStatus { pid, role, which, program: program(pid), runs: runs(which) };
    let leader = state.serving().map(|leader| version(leader, Role::Leader, leads));
    let mut versions: Vec<_> = leader.into_iter().collect();
    let crashed = matches!(state, State::UpdatedLeader { ending: Ending::Died { .. }, .. });
    if let Some(run) = state.run().filter(|_| !crashed) {
        versions.push(version(run.follower, Role::Follower, follows));
    }
    versions
}

/// Returns whether a promotion that was asked for is decided.
pub(crate) fn promotion_is_decided(state: &State) -> bool {
    match state {
        State::UpdatedLeader { ending, .. } => *ending != Ending::Verifying,
        // It was abandoned and given up.
        State::Validating { .. } => true,
        State::SingleLeader { .. } | State::Pausing { .. } | State::Ended { .. } => true,
        State::Updating { .. }
        | State::CatchingUp { .. }
        | State::AskingGate { .. }
        | State::PromotingAgain { .. }
        | State::Promoting { .. }
        | State::RollingBack { .. } => false,
    }
}

/// Returns whether one version runs alone.
pub(crate) fn is_single(state: &State) -> bool {
    matches!(state.stage(), Stage::SingleLeader | Stage::Ended)
}
