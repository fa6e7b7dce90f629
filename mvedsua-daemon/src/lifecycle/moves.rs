//! Transitions that several states share.

use super::effects::{Effect, Refusal, Timer};
use super::gates::promote_or_ask;
use super::policy::{Policy, Promotion, is_matter_of_timing};
use super::state::{Cause, Ending, Outcome, Overdue, Plan, Run, Soak, Stage, State};
use crate::update::{Command, Death, FailureKind, SessionEvent, Which};

/// A state and what is to be done on the way into it.
pub(super) type Next = (State, Vec<Effect>);

/// What the engine may report in every stage with a session, beside what the stage itself expects.
pub(super) fn interrupted(plan: Plan, leader: i32, run: Option<Run>, stage: Stage, event: SessionEvent) -> Next {
    match event {
        SessionEvent::Failed(kind) => {
            let counters = run.as_ref().map(|run| run.counters).unwrap_or_default();
            let plan = Plan { suspicions: plan.suspicions.after(plan.attempt, &counters, &kind), ..plan };
            let effects = vec![
                Effect::Keep(kind.clone()),
                Effect::StopTimer(Timer::Soak),
                Effect::StopTimer(Timer::PromoteAgain),
                Effect::StopTimer(Timer::AskAgain),
                Effect::StopTimer(Timer::AskAgain),
                Effect::SetTimer(Timer::Answer, plan.policy.answer_within),
            ];
            let cause = match (kind, &run) {
                // It appeared after the fork: this is no refusal of the preflight.
                (FailureKind::Refused(calls), Some(_)) => Cause::Unsupported(calls),
                (kind, _) => Cause::Failed(kind),
            };
            (State::RollingBack { plan, leader, run, cause, overdue: Overdue::No }, effects)
        }
        SessionEvent::TookOver { leader, death } => took_over(plan, run, leader, death),
        SessionEvent::RolledBack { leader } => {
            let kind = FailureKind::Engine("the engine undid the update without saying why".to_owned());
            after_rollback(plan, leader, Cause::Failed(kind), vec![unexpected(stage, &event)])
        }
        SessionEvent::TargetEnded { status } => target_ended(status),
        SessionEvent::Promoted { leader, follower, .. } => {
            let run = run.map(|run| Run { leader, leads: Which::New, follower, ..run });
            let protest = unexpected(stage, &event);
            let cause = Cause::Failed(FailureKind::Engine("the engine promoted without being asked".to_owned()));
            let (state, mut effects) = undo(plan, leader, run, cause);
            effects.insert(0, protest);
            (state, effects)
        }
        SessionEvent::Confirmed { leader } => {
            let what = format!("the engine ended the old version in stage {stage}");
            finish(leader, Outcome::Unsure { leader, what })
        }
        SessionEvent::Forked { .. }
        | SessionEvent::Applied
        | SessionEvent::CaughtUp
        | SessionEvent::Progress(_)
        | SessionEvent::PromotionAbandoned { .. } => {
            let cause = Cause::Failed(FailureKind::Engine(format!("it spoke out of turn in stage {stage}")));
            let (state, mut effects) = undo(plan, leader, run, cause);
            effects.insert(0, unexpected(stage, &event));
            (state, effects)
        }
    }
}

pub(super) fn first_timers(policy: &Policy) -> Vec<Effect> {
    vec![Effect::SetTimer(Timer::Overall, policy.timeout)]
}

pub(super) fn begin(plan: Plan, leader: i32, mut effects: Vec<Effect>) -> Next {
    effects.push(Effect::Start { leader, situations: plan.suspicions.situations() });
    (State::Updating { plan, leader, run: None }, effects)
}

/// Promotes where the policy says so and the evidence is there.
pub(super) fn decide(plan: Plan, run: Run, soak: Soak) -> Next {
    let enough = plan.weigh(&run.counters).is_enough();
    match (plan.policy.promote, soak) {
        (Promotion::Auto, Soak::Over) if enough => promote_or_ask(plan, run, soak),
        (Promotion::Auto | Promotion::Manual, Soak::Over | Soak::Running) => {
            (State::Validating { plan, run, soak }, vec![])
        }
    }
}

pub(super) fn promote(plan: Plan, run: Run, soak: Soak) -> Next {
    let effects = vec![Effect::SetTimer(Timer::Answer, plan.policy.answer_within), Effect::Send(Command::Promote)];
    (State::Promoting { plan, run, soak, overdue: Overdue::No }, effects)
}

pub(super) fn confirm_effects(plan: &Plan) -> Vec<Effect> {
    vec![
        Effect::StopTimer(Timer::Soak),
        Effect::SetTimer(Timer::Answer, plan.policy.answer_within),
        Effect::Send(Command::Confirm),
    ]
}

pub(super) fn undo(plan: Plan, leader: i32, run: Option<Run>, cause: Cause) -> Next {
    let reason = match &cause {
        Cause::Asked(reason) => reason.clone(),
        cause => cause.to_string(),
    };
    let effects = vec![
        Effect::StopTimer(Timer::Soak),
        Effect::StopTimer(Timer::PromoteAgain),
        Effect::StopTimer(Timer::AskAgain),
        Effect::SetTimer(Timer::Answer, plan.policy.answer_within),
        Effect::Send(Command::Rollback { reason }),
    ];
    (State::RollingBack { plan, leader, run, cause, overdue: Overdue::No }, effects)
}

pub(super) fn lost(plan: Plan, leader: i32, run: Option<Run>) -> Next {
    let effects = vec![
        Effect::StopTimer(Timer::Soak),
        Effect::StopTimer(Timer::PromoteAgain),
        Effect::StopTimer(Timer::AskAgain),
        Effect::Recover,
    ];
    (State::RollingBack { plan, leader, run, cause: Cause::EngineLost, overdue: Overdue::No }, effects)
}

pub(super) fn took_over(plan: Plan, run: Option<Run>, leader: i32, death: Death) -> Next {
    let run = Run { leader, leads: Which::New, ..run.unwrap_or_default() };
    let effects = vec![
        Effect::StopTimer(Timer::Overall),
        Effect::StopTimer(Timer::PromoteAgain),
        Effect::StopTimer(Timer::AskAgain),
        Effect::StopTimer(Timer::Soak),
        // The engine ends the crashed version by itself.
        Effect::SetTimer(Timer::Answer, plan.policy.answer_within),
    ];
    let ending = Ending::Died { death };
    (State::UpdatedLeader { plan, run, moved: 0, pause_us: 0, soak: Soak::Over, ending }, effects)
}

/// Tries again where that can help, and settles otherwise.
pub(super) fn after_rollback(plan: Plan, leader: i32, cause: Cause, mut effects: Vec<Effect>) -> Next {
    let timing = match &cause {
        Cause::Failed(kind) => is_matter_of_timing(kind, plan.attempt),
        Cause::Inconclusive(_)
        | Cause::Suspected(_)
        | Cause::TimedOut(_)
        | Cause::Asked(_)
        | Cause::Mismatch(_)
        | Cause::Unsupported(_)
        | Cause::Exceeded(_)
        | Cause::Denied(_)
        | Cause::Slowed(_)
        | Cause::NewDied { .. }
        | Cause::EngineLost => false,
    };
    if timing && plan.attempt <= plan.policy.retries {
        effects.push(Effect::SetTimer(Timer::Retry, plan.policy.retry_after));
        return (State::Pausing { plan, leader, cause }, effects);
    }
    let (state, last) = finish(leader, Outcome::RolledBack { leader, cause });
    effects.extend(last);
    (state, effects)
}

pub(super) fn target_ended(status: String) -> Next {
    let outcome = Outcome::TargetEnded { status };
    (State::Ended { outcome: outcome.clone() }, vec![Effect::Finish(outcome)])
}

pub(super) fn finish(leader: i32, outcome: Outcome) -> Next {
    (State::SingleLeader { leader, last: Some(outcome.clone()) }, vec![Effect::Finish(outcome)])
}

pub(super) fn unexpected(stage: Stage, event: &SessionEvent) -> Effect {
    // Only the name: what a failure carries may be a payload, and this goes into a log.
    let name = match event {
        SessionEvent::Forked { .. } => "forked",
        SessionEvent::Applied => "applied",
        SessionEvent::CaughtUp => "caught up",
        SessionEvent::Progress(_) => "progress",
        SessionEvent::Failed(_) => "failed",
        SessionEvent::Promoted { .. } => "promoted",
        SessionEvent::PromotionAbandoned { .. } => "promotion abandoned",
        SessionEvent::TookOver { .. } => "took over",
        SessionEvent::Confirmed { .. } => "confirmed",
        SessionEvent::RolledBack { .. } => "rolled back",
        SessionEvent::TargetEnded { .. } => "target ended",
    };
    Effect::Unexpected(format!("the engine reported `{name}` in stage {stage}"))
}

pub(super) fn wrong_stage(stage: Stage, hint: &str) -> Effect {
    Effect::Refuse(Refusal::WrongStage { stage, hint: hint.to_owned() })
}

pub(super) fn overdue_alarm(what: &str, leader: i32, plan: &Plan) -> Effect {
    Effect::Alarm(format!(
        "{what} has not ended within {} s; process {leader} may be stopped: look at its state in /proc/{leader}/status",
        plan.policy.answer_within.as_secs()
    ))
}
