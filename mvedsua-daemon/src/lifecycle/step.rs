//! The transitions, one function per state.

use super::effects::{Effect, Event, Recovery, Refusal, Timer, Verification, Waiver};
use super::gates::{self, GateAnswer, Gated, Moment, promote_or_ask};
use super::moves::{
    Next, after_rollback, begin, confirm_effects, decide, finish, first_timers, interrupted, lost, overdue_alarm,
    promote, target_ended, took_over, undo, unexpected, wrong_stage,
};
use super::policy::{Confirmation, Promotion};
use super::state::{Cause, Ending, Outcome, Overdue, Plan, Run, Soak, Stage, State};
use crate::update::{Command, FailureKind, SessionEvent, Which};

/// Returns the state after `event`, and what is to be done.
#[must_use]
pub fn step(state: State, event: Event) -> Next {
    match state {
        State::SingleLeader { leader, last } => single_leader(leader, last, event),
        State::Updating { plan, leader, run } => updating(plan, leader, run, event),
        State::CatchingUp { plan, run } => catching_up(plan, run, event),
        State::Validating { plan, run, soak } => validating(plan, run, soak, event),
        State::AskingGate { plan, run, soak, said } => gates::asking(plan, run, soak, said, event),
        State::PromotingAgain { plan, run, soak } => promoting_again(plan, run, soak, event),
        State::Promoting { plan, run, soak, overdue } => promoting(plan, run, soak, overdue, event),
        State::UpdatedLeader { plan, run, moved, pause_us, soak, ending } => {
            updated_leader(Updated { plan, run, moved, pause_us, soak, ending }, event)
        }
        State::RollingBack { plan, leader, run, cause, overdue } => {
            rolling_back(plan, leader, run, cause, overdue, event)
        }
        State::Pausing { plan, leader, cause } => pausing(plan, leader, cause, event),
        State::Ended { outcome } => ended(outcome, event),
    }
}

fn single_leader(leader: i32, last: Option<Outcome>, event: Event) -> Next {
    let same = |effects| (State::SingleLeader { leader, last: last.clone() }, effects);
    match event {
        Event::Ask(policy) => begin(Plan::new(policy), leader, first_timers(&policy)),
        Event::Exceeded(_) | Event::Slowed(_) => same(vec![]),
        Event::Promote(_) | Event::Confirm | Event::Rollback { .. } => {
            same(vec![wrong_stage(Stage::SingleLeader, "no update is under way; `mvedsuad update <pid>` starts one")])
        }
        Event::Session(event) => same(vec![unexpected(Stage::SingleLeader, &event)]),
        Event::StartFailed(_)
        | Event::SessionLost
        | Event::Recovered(_)
        | Event::Verified(_)
        | Event::Gate(..)
        | Event::Timer(_) => same(vec![]),
    }
}

fn updating(plan: Plan, leader: i32, run: Option<Run>, event: Event) -> Next {
    let same = |effects| (State::Updating { plan, leader, run: run.clone() }, effects);
    match event {
        Event::Session(SessionEvent::Forked { leader, follower, threads, pause_us }) => {
            let run = Run { leader, follower, threads, fork_pause_us: pause_us, ..Run::default() };
            (State::Updating { plan, leader, run: Some(run) }, vec![])
        }
        Event::Session(SessionEvent::Applied) => match run {
            Some(run) => (State::CatchingUp { plan, run }, vec![]),
            None => same(vec![unexpected(Stage::Updating, &SessionEvent::Applied)]),
        },
        Event::Session(SessionEvent::Progress(counters)) => {
            let run = run.map(|run| Run { counters, ..run });
            (State::Updating { plan, leader, run }, vec![])
        }
        Event::StartFailed(kind) => after_rollback(plan, leader, Cause::Failed(kind.clone()), vec![Effect::Keep(kind)]),
        Event::Timer(Timer::Overall) => undo(plan, leader, run, Cause::TimedOut(Stage::Updating)),
        Event::Rollback { reason } => undo(plan, leader, run, Cause::Asked(reason)),
        Event::Exceeded(what) => undo(plan, leader, run, Cause::Exceeded(what)),
        Event::Slowed(what) => undo(plan, leader, run, Cause::Slowed(what)),
        Event::Session(event @ (SessionEvent::CaughtUp | SessionEvent::PromotionAbandoned { .. })) => {
            same(vec![unexpected(Stage::Updating, &event)])
        }
        Event::Session(event) => interrupted(plan, leader, run, Stage::Updating, event),
        Event::SessionLost => lost(plan, leader, run),
        Event::Ask(_) => same(vec![Effect::Refuse(Refusal::Busy { stage: Stage::Updating })]),
        Event::Promote(_) | Event::Confirm => {
            same(vec![wrong_stage(Stage::Updating, "the new version is being applied")])
        }
        Event::Recovered(_) | Event::Verified(_) | Event::Gate(..) => same(vec![]),
        Event::Timer(Timer::Soak | Timer::Retry | Timer::PromoteAgain | Timer::AskAgain | Timer::Answer) => {
            same(vec![])
        }
    }
}

fn catching_up(plan: Plan, run: Run, event: Event) -> Next {
    let same = |effects| (State::CatchingUp { plan, run: run.clone() }, effects);
    match event {
        Event::Session(SessionEvent::CaughtUp) => {
            let timer = Effect::SetTimer(Timer::Soak, plan.policy.soak);
            (State::Validating { plan, run, soak: Soak::Running }, vec![timer])
        }
        Event::Session(SessionEvent::Progress(counters)) => {
            (State::CatchingUp { plan, run: Run { counters, ..run } }, vec![])
        }
        Event::Timer(Timer::Overall) => undo(plan, run.leader, Some(run), Cause::TimedOut(Stage::CatchingUp)),
        Event::Rollback { reason } => undo(plan, run.leader, Some(run), Cause::Asked(reason)),
        Event::Exceeded(what) => undo(plan, run.leader, Some(run), Cause::Exceeded(what)),
        Event::Slowed(what) => undo(plan, run.leader, Some(run), Cause::Slowed(what)),
        Event::Session(
            event @ (SessionEvent::Forked { .. } | SessionEvent::Applied | SessionEvent::PromotionAbandoned { .. }),
        ) => same(vec![unexpected(Stage::CatchingUp, &event)]),
        Event::Session(event) => interrupted(plan, run.leader, Some(run), Stage::CatchingUp, event),
        Event::SessionLost => lost(plan, run.leader, Some(run)),
        Event::Ask(_) => same(vec![Effect::Refuse(Refusal::Busy { stage: Stage::CatchingUp })]),
        Event::Promote(_) | Event::Confirm => {
            let hint = format!("the follower is {} records behind; wait until it validates", run.counters.backlog);
            same(vec![wrong_stage(Stage::CatchingUp, &hint)])
        }
        Event::StartFailed(_) | Event::Recovered(_) | Event::Verified(_) | Event::Gate(..) => same(vec![]),
        Event::Timer(Timer::Soak | Timer::Retry | Timer::PromoteAgain | Timer::AskAgain | Timer::Answer) => {
            same(vec![])
        }
    }
}

fn validating(plan: Plan, run: Run, soak: Soak, event: Event) -> Next {
    let same = |effects| (State::Validating { plan, run: run.clone(), soak }, effects);
    match event {
        Event::Session(SessionEvent::Progress(counters)) => decide(plan, Run { counters, ..run }, soak),
        Event::Timer(Timer::Soak) => decide(plan, run, Soak::Over),
        Event::Promote(waiver) => {
            let evidence = plan.weigh(&run.counters);
            let waived = match (waiver, plan.policy.promote) {
                (Waiver::Evidence, Promotion::Manual) => Waiver::Evidence,
                (Waiver::Evidence, Promotion::Auto) | (Waiver::None, _) => Waiver::None,
            };
            if evidence.is_enough() || waived == Waiver::Evidence {
                promote_or_ask(Plan { abandoned: 0, ..plan }, run, soak)
            } else {
                same(vec![Effect::Refuse(Refusal::TooLittle(evidence))])
            }
        }
        Event::Timer(Timer::Overall) => {
            let evidence = plan.weigh(&run.counters);
            let cause = match evidence.suspected {
                Some(suspected) => Cause::Suspected(suspected),
                None if evidence.is_enough() => Cause::TimedOut(Stage::Validating),
                None => Cause::Inconclusive(evidence),
            };
            undo(plan, run.leader, Some(run), cause)
        }
        Event::Rollback { reason } => undo(plan, run.leader, Some(run), Cause::Asked(reason)),
        Event::Exceeded(what) => undo(plan, run.leader, Some(run), Cause::Exceeded(what)),
        Event::Slowed(what) => undo(plan, run.leader, Some(run), Cause::Slowed(what)),
        // An engine may fall behind and catch up again under load; that is what the backlog says.
        Event::Session(SessionEvent::CaughtUp) => same(vec![]),
        Event::Session(
            event @ (SessionEvent::Forked { .. } | SessionEvent::Applied | SessionEvent::PromotionAbandoned { .. }),
        ) => same(vec![unexpected(Stage::Validating, &event)]),
        Event::Session(event) => interrupted(plan, run.leader, Some(run), Stage::Validating, event),
        Event::SessionLost => lost(plan, run.leader, Some(run)),
        Event::Ask(_) => same(vec![Effect::Refuse(Refusal::Busy { stage: Stage::Validating })]),
        Event::Confirm => same(vec![wrong_stage(Stage::Validating, "nothing is promoted yet; `promote` comes first")]),
        Event::StartFailed(_) | Event::Recovered(_) | Event::Verified(_) | Event::Gate(..) => same(vec![]),
        Event::Timer(Timer::Retry | Timer::PromoteAgain | Timer::AskAgain | Timer::Answer) => same(vec![]),
    }
}

fn promoting_again(plan: Plan, run: Run, soak: Soak, event: Event) -> Next {
    let same = |run: Run, effects| (State::PromotingAgain { plan, run, soak }, effects);
    match event {
        Event::Timer(Timer::PromoteAgain) => promote(plan, run, soak),
        Event::Session(SessionEvent::Progress(counters)) => same(Run { counters, ..run }, vec![]),
        Event::Timer(Timer::Overall) => undo(plan, run.leader, Some(run), Cause::TimedOut(Stage::Promoting)),
        Event::Rollback { reason } => undo(plan, run.leader, Some(run), Cause::Asked(reason)),
        Event::Exceeded(what) => undo(plan, run.leader, Some(run), Cause::Exceeded(what)),
        Event::Slowed(what) => undo(plan, run.leader, Some(run), Cause::Slowed(what)),
        Event::Timer(Timer::Soak) => (State::PromotingAgain { plan, run, soak: Soak::Over }, vec![]),
        Event::Session(SessionEvent::CaughtUp) => same(run, vec![]),
        Event::Session(
            event @ (SessionEvent::Forked { .. } | SessionEvent::Applied | SessionEvent::PromotionAbandoned { .. }),
        ) => same(run, vec![unexpected(Stage::Validating, &event)]),
        Event::Session(event) => interrupted(plan, run.leader, Some(run), Stage::Validating, event),
        Event::SessionLost => lost(plan, run.leader, Some(run)),
        Event::Ask(_) => same(run, vec![Effect::Refuse(Refusal::Busy { stage: Stage::Validating })]),
        Event::Promote(_) | Event::Confirm => {
            same(run, vec![wrong_stage(Stage::Validating, "the promotion is being tried again")])
        }
        Event::StartFailed(_) | Event::Recovered(_) | Event::Verified(_) | Event::Gate(..) => same(run, vec![]),
        Event::Timer(Timer::Retry | Timer::AskAgain | Timer::Answer) => same(run, vec![]),
    }
}

fn promoting(plan: Plan, run: Run, soak: Soak, overdue: Overdue, event: Event) -> Next {
    let same = |run: Run, effects| (State::Promoting { plan, run, soak, overdue }, effects);
    match event {
        Event::Session(SessionEvent::Promoted { leader, follower, moved, pause_us }) => {
            let run = Run { leader, leads: Which::New, follower, ..run };
            let effects = vec![
                Effect::StopTimer(Timer::Answer),
                Effect::StopTimer(Timer::Overall),
                Effect::SetTimer(Timer::Soak, plan.policy.soak),
                Effect::Verify { leader },
            ];
            let ending = Ending::Verifying;
            (State::UpdatedLeader { plan, run, moved, pause_us, soak: Soak::Running, ending }, effects)
        }
        Event::Session(SessionEvent::PromotionAbandoned { reason }) => {
            let plan = Plan { abandoned: plan.abandoned + 1, ..plan };
            let run = Run { abandoned_because: Some(reason), ..run };
            let stop = Effect::StopTimer(Timer::Answer);
            let given_up = plan.policy.promote == Promotion::Manual && plan.abandoned >= plan.policy.promotion_tries;
            if given_up {
                return (State::Validating { plan, run, soak }, vec![stop]);
            }
            let again = Effect::SetTimer(Timer::PromoteAgain, plan.policy.retry_after);
            (State::PromotingAgain { plan, run, soak }, vec![stop, again])
        }
        Event::Session(SessionEvent::Progress(counters)) => same(Run { counters, ..run }, vec![]),
        Event::Session(SessionEvent::CaughtUp) => same(run, vec![]),
        // The promotion is bounded by itself; what comes of it decides.
        Event::Timer(Timer::Overall) => same(run, vec![Effect::SetTimer(Timer::Overall, plan.policy.answer_within)]),
        Event::Timer(Timer::Soak) => (State::Promoting { plan, run, soak: Soak::Over, overdue }, vec![]),
        Event::Timer(Timer::Answer) => {
            let alarm = overdue_alarm("the promotion", run.leader, &plan);
            (State::Promoting { plan, run, soak, overdue: Overdue::Yes }, vec![alarm])
        }
        Event::Rollback { reason } => undo(plan, run.leader, Some(run), Cause::Asked(reason)),
        Event::Exceeded(what) => undo(plan, run.leader, Some(run), Cause::Exceeded(what)),
        Event::Slowed(what) => undo(plan, run.leader, Some(run), Cause::Slowed(what)),
        Event::Session(event @ (SessionEvent::Forked { .. } | SessionEvent::Applied)) => {
            same(run, vec![unexpected(Stage::Promoting, &event)])
        }
        Event::Session(event) => interrupted(plan, run.leader, Some(run), Stage::Promoting, event),
        Event::SessionLost => lost(plan, run.leader, Some(run)),
        Event::Ask(_) => same(run, vec![Effect::Refuse(Refusal::Busy { stage: Stage::Promoting })]),
        Event::Promote(_) | Event::Confirm => {
            same(run, vec![wrong_stage(Stage::Promoting, "the promotion is under way")])
        }
        Event::StartFailed(_) | Event::Recovered(_) | Event::Verified(_) | Event::Gate(..) => same(run, vec![]),
        Event::Timer(Timer::Retry | Timer::PromoteAgain | Timer::AskAgain) => same(run, vec![]),
    }
}

/// The data of [`State::UpdatedLeader`].
struct Updated {
    plan: Plan,
    run: Run,
    moved: u64,
    pause_us: u64,
    soak: Soak,
    ending: Ending,
}

impl Updated {
    fn with(self, effects: Vec<Effect>) -> Next {
        let Updated { plan, run, moved, pause_us, soak, ending } = self;
        (State::UpdatedLeader { plan, run, moved, pause_us, soak, ending }, effects)
    }

    /// Ends the old version, after the gates have allowed it where there are any.
    fn confirm_or_ask(mut self) -> Next {
        match self.plan.policy.gates.confirmation {
            Gated::Open => self.confirm(),
            Gated::Asked => {
                self.ending = Ending::Asking { said: None };
                self.with(vec![Effect::AskGate(Moment::Confirmation)])
            }
        }
    }

    fn confirm(mut self) -> Next {
        self.ending = Ending::Confirming;
        let effects = confirm_effects(&self.plan);
        self.with(effects)
    }

    /// What the gates say of the end of the old version counts while they are asked.
    fn heed(mut self, answer: GateAnswer) -> Next {
        if !matches!(self.ending, Ending::Asking { .. }) {
            return self.with(vec![]);
        }
        match answer {
            GateAnswer::Allow => self.confirm(),
            GateAnswer::Deny { why } => undo(self.plan, self.run.leader, Some(self.run), Cause::Denied(why)),
            GateAnswer::Wait { why, after } => {
                self.ending = Ending::Asking { said: Some(why) };
                self.with(vec![Effect::SetTimer(Timer::AskAgain, after)])
            }
        }
    }

    /// Ends the old version where the policy says so and everything is in place.
    fn settle(self) -> Next {
        match (self.plan.policy.confirm, self.soak, &self.ending) {
            (Confirmation::Auto, Soak::Over, Ending::Open) => self.confirm_or_ask(),
            (Confirmation::Auto | Confirmation::Manual, Soak::Over | Soak::Running, _) => self.with(vec![]),
        }
    }
}

fn updated_leader(mut now: Updated, event: Event) -> Next {
    match event {
        Event::Verified(Verification::Same) => {
            if now.ending == Ending::Verifying {
                now.ending = Ending::Open;
            }
            now.settle()
        }
        Event::Verified(Verification::Mismatch { what }) => match now.ending {
            Ending::Verifying => undo(now.plan, now.run.leader, Some(now.run), Cause::Mismatch(what)),
            Ending::Open | Ending::Asking { .. } | Ending::Confirming | Ending::Died { .. } => now.with(vec![]),
        },
        Event::Gate(Moment::Confirmation, answer) => now.heed(answer),
        Event::Gate(Moment::Promotion, _) => now.with(vec![]),
        Event::Timer(Timer::AskAgain) => match now.ending {
            Ending::Asking { .. } => now.with(vec![Effect::AskGate(Moment::Confirmation)]),
            Ending::Verifying | Ending::Open | Ending::Confirming | Ending::Died { .. } => now.with(vec![]),
        },
        Event::Timer(Timer::Soak) => {
            now.soak = Soak::Over;
            now.settle()
        }
        Event::Confirm => match now.ending {
            Ending::Open => now.confirm_or_ask(),
            Ending::Asking { .. } => now
                .with(vec![wrong_stage(Stage::UpdatedLeader, "the end of the old version waits for what a gate says")]),
            Ending::Verifying => now.with(vec![wrong_stage(Stage::UpdatedLeader, "the new version is being verified")]),
            Ending::Confirming | Ending::Died { .. } => {
                now.with(vec![wrong_stage(Stage::UpdatedLeader, "the old version is ending already")])
            }
        },
        // What it costs is known by then, and a good update would be lost.
        Event::Slowed(_) => now.with(vec![]),
        Event::Exceeded(what) => match now.ending {
            Ending::Open | Ending::Asking { .. } | Ending::Verifying => {
                undo(now.plan, now.run.leader, Some(now.run), Cause::Exceeded(what))
            }
            Ending::Confirming | Ending::Died { .. } => now.with(vec![]),
        },
        Event::Rollback { reason } => match now.ending {
            Ending::Open | Ending::Asking { .. } | Ending::Verifying => {
                undo(now.plan, now.run.leader, Some(now.run), Cause::Asked(reason))
            }
            Ending::Confirming | Ending::Died { .. } => {
                now.with(vec![wrong_stage(Stage::UpdatedLeader, "the old version is ending; there is no way back")])
            }
        },
        Event::Session(SessionEvent::Confirmed { leader }) => {
            let outcome = match now.ending {
                Ending::Died { death } => Outcome::TookOver { leader, death },
                Ending::Verifying | Ending::Open | Ending::Asking { .. } | Ending::Confirming => {
                    Outcome::Confirmed { leader }
                }
            };
            finish(leader, outcome)
        }
        Event::Session(SessionEvent::Progress(counters)) => {
            now.run.counters = counters;
            now.with(vec![])
        }
        Event::Session(SessionEvent::CaughtUp) => now.with(vec![]),
        Event::Timer(Timer::Answer) => {
            let alarm = overdue_alarm("the confirmation", now.run.leader, &now.plan);
            now.with(vec![alarm])
        }
        Event::Session(
            event @ (SessionEvent::Forked { .. }
            | SessionEvent::Applied
            | SessionEvent::Promoted { .. }
            | SessionEvent::PromotionAbandoned { .. }),
        ) => now.with(vec![unexpected(Stage::UpdatedLeader, &event)]),
        // The new version crashed and the old one, which follows it, has taken over; `RolledBack` comes next.
        Event::Session(SessionEvent::TookOver { leader, death }) => {
            let effects =
                vec![Effect::StopTimer(Timer::Soak), Effect::SetTimer(Timer::Answer, now.plan.policy.answer_within)];
            let cause = Cause::NewDied { death };
            let run = Some(Run { leader, leads: Which::Old, ..now.run });
            (State::RollingBack { plan: now.plan, leader, run, cause, overdue: Overdue::No }, effects)
        }
        Event::Session(
            event @ (SessionEvent::Failed(_) | SessionEvent::RolledBack { .. } | SessionEvent::TargetEnded { .. }),
        ) => interrupted(now.plan, now.run.leader, Some(now.run), Stage::UpdatedLeader, event),
        Event::SessionLost => lost(now.plan, now.run.leader, Some(now.run)),
        Event::Ask(_) => now.with(vec![Effect::Refuse(Refusal::Busy { stage: Stage::UpdatedLeader })]),
        Event::Promote(_) => {
            now.with(vec![wrong_stage(Stage::UpdatedLeader, "it is promoted; `confirm` ends the old version")])
        }
        Event::StartFailed(_) | Event::Recovered(_) => now.with(vec![]),
        Event::Timer(Timer::Overall | Timer::Retry | Timer::PromoteAgain) => now.with(vec![]),
    }
}

fn rolling_back(plan: Plan, leader: i32, run: Option<Run>, cause: Cause, overdue: Overdue, event: Event) -> Next {
    let same =
        |effects| (State::RollingBack { plan, leader, run: run.clone(), cause: cause.clone(), overdue }, effects);
    match event {
        Event::Recovered(Recovery::Serving { leader, version: Which::New }) => {
            finish(leader, Outcome::Kept { leader, cause })
        }
        Event::Session(SessionEvent::RolledBack { leader })
        | Event::Recovered(Recovery::Serving { leader, version: Which::Old }) => {
            after_rollback(plan, leader, cause, vec![Effect::StopTimer(Timer::Answer)])
        }
        Event::Recovered(Recovery::Gone { status }) | Event::Session(SessionEvent::TargetEnded { status }) => {
            target_ended(status)
        }
        Event::Recovered(Recovery::Unsure { what }) => finish(leader, Outcome::Unsure { leader, what }),
        // The engine says why it undoes; what was asked for first stays the cause.
        Event::Session(SessionEvent::Failed(FailureKind::Asked(_))) => same(vec![]),
        Event::Session(SessionEvent::Failed(kind)) => same(vec![Effect::Keep(kind)]),
        // The new version leads and the old one cannot take the service back.
        Event::Session(SessionEvent::Confirmed { leader })
            if run.as_ref().is_some_and(|run| run.leads == Which::New) =>
        {
            finish(leader, Outcome::Kept { leader, cause })
        }
        Event::Session(SessionEvent::Confirmed { leader }) => {
            let what = "the engine ended the old version although it was told to undo the update".to_owned();
            finish(leader, Outcome::Unsure { leader, what })
        }
        // A promotion that was on its way when the undoing was decided; it is undone too.
        Event::Session(SessionEvent::Promoted { leader, follower, .. }) => {
            let run = run.map(|run| Run { leader, leads: Which::New, follower, ..run });
            let effects = vec![Effect::Send(Command::Rollback { reason: cause.to_string() })];
            (State::RollingBack { plan, leader, run, cause, overdue }, effects)
        }
        // The version that led came to its end while the other was still there: that one is all there is.
        Event::Session(SessionEvent::TookOver { leader, death }) => match run.as_ref().map(|run| run.leads) {
            Some(Which::New) => {
                let run = run.map(|run| Run { leads: Which::Old, ..run });
                let cause = Cause::NewDied { death };
                (State::RollingBack { plan, leader, run, cause, overdue }, vec![])
            }
            Some(Which::Old) | None => took_over(plan, run, leader, death),
        },
        Event::Session(SessionEvent::Forked { leader, follower, threads, pause_us }) => {
            let run = Some(Run { leader, follower, threads, fork_pause_us: pause_us, ..Run::default() });
            (State::RollingBack { plan, leader, run, cause, overdue }, vec![])
        }
        Event::Session(
            SessionEvent::Applied
            | SessionEvent::CaughtUp
            | SessionEvent::Progress(_)
            | SessionEvent::PromotionAbandoned { .. },
        ) => same(vec![]),
        Event::StartFailed(kind) => {
            let effects = vec![Effect::StopTimer(Timer::Answer), Effect::Keep(kind)];
            after_rollback(plan, leader, cause, effects)
        }
        Event::SessionLost => same(vec![Effect::Recover]),
        Event::Timer(Timer::Answer) => {
            let alarm = overdue_alarm("undoing the update", leader, &plan);
            (State::RollingBack { plan, leader, run, cause, overdue: Overdue::Yes }, vec![alarm])
        }
        Event::Ask(_) => same(vec![Effect::Refuse(Refusal::Busy { stage: Stage::RollingBack })]),
        Event::Promote(_) | Event::Confirm => {
            same(vec![wrong_stage(Stage::RollingBack, &format!("the update is being undone: {cause}"))])
        }
        // It is under way; whoever asks waits for it to end.
        Event::Rollback { .. } | Event::Exceeded(_) | Event::Slowed(_) => same(vec![]),
        Event::Verified(_) | Event::Gate(..) => same(vec![]),
        Event::Timer(Timer::Overall | Timer::Soak | Timer::Retry | Timer::PromoteAgain | Timer::AskAgain) => {
            same(vec![])
        }
    }
}

fn pausing(plan: Plan, leader: i32, cause: Cause, event: Event) -> Next {
    let same = |effects| (State::Pausing { plan, leader, cause: cause.clone() }, effects);
    match event {
        Event::Timer(Timer::Retry) => begin(Plan { attempt: plan.attempt + 1, abandoned: 0, ..plan }, leader, vec![]),
        Event::Rollback { reason } => finish(leader, Outcome::RolledBack { leader, cause: Cause::Asked(reason) }),
        Event::Exceeded(_) | Event::Slowed(_) => same(vec![]),
        Event::Timer(Timer::Overall) => finish(leader, Outcome::RolledBack { leader, cause: cause.clone() }),
        Event::Ask(_) => same(vec![Effect::Refuse(Refusal::Busy { stage: Stage::SingleLeader })]),
        Event::Promote(_) | Event::Confirm => {
            same(vec![wrong_stage(Stage::SingleLeader, "the update is about to be tried again")])
        }
        Event::Session(event) => same(vec![unexpected(Stage::SingleLeader, &event)]),
        Event::StartFailed(_) | Event::SessionLost | Event::Recovered(_) | Event::Verified(_) | Event::Gate(..) => {
            same(vec![])
        }
        Event::Timer(Timer::Soak | Timer::PromoteAgain | Timer::AskAgain | Timer::Answer) => same(vec![]),
    }
}

fn ended(outcome: Outcome, event: Event) -> Next {
    let same = |effects| (State::Ended { outcome: outcome.clone() }, effects);
    match event {
        Event::Ask(_) | Event::Promote(_) | Event::Confirm | Event::Rollback { .. } => {
            same(vec![wrong_stage(Stage::Ended, "the process has ended")])
        }
        Event::Exceeded(_) | Event::Slowed(_) => same(vec![]),
        Event::Session(event) => same(vec![unexpected(Stage::Ended, &event)]),
        Event::StartFailed(_)
        | Event::SessionLost
        | Event::Recovered(_)
        | Event::Verified(_)
        | Event::Gate(..)
        | Event::Timer(_) => same(vec![]),
    }
}
