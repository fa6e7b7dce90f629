//! The lifecycle against a model of the world, with random choices of the engine, the clock and the operator.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::compare::{Divergence, DivergenceKind};
use crate::record::Slot;
use crate::update::{Command, Counters, Death, FailureKind, SITUATIONS, SessionEvent, Which};

const OLD: i32 = 100;

/// What an engine does, as far as the lifecycle can see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Forked,
    Applied,
    Paired,
    Promoting,
    Promoted,
    Confirming,
    TookOver,
    Undoing,
    /// The new version leads and there is no way back.
    Stuck,
    /// The new version crashed and the old one took over.
    Fell,
}

/// Processes, timers and the engine.
struct World {
    state: State,
    phase: Option<Phase>,
    timers: HashSet<Timer>,
    soaked: bool,
    /// The process that really serves.
    serving: Option<i32>,
    next_pid: i32,
    /// The version that it runs.
    leads: Which,
    follower: i32,
    counters: Counters,
    finished: Vec<Outcome>,
    verifying: bool,
    recovering: bool,
    /// The engine failed and nothing was started since.
    failed: bool,
    /// What the gates are asked about.
    asking: Option<Moment>,
    /// What they have allowed in this attempt.
    allowed: HashSet<Moment>,
}

fn order_divergence(kind: DivergenceKind) -> FailureKind {
    FailureKind::Diverged(Box::new(Divergence {
        kind,
        slot: Slot(0),
        seq: None,
        expected: None,
        actual: None,
        last_matched: vec![],
        backtrace: vec![],
        raced: false,
        unrecorded_clock: false,
        half_read: false,
        situation: None,
        remark: None,
        nearest_rule: None,
    }))
}

impl World {
    fn new() -> Self {
        World {
            state: State::new(OLD),
            phase: None,
            timers: HashSet::new(),
            soaked: false,
            serving: Some(OLD),
            next_pid: OLD + 1,
            leads: Which::Old,
            follower: 0,
            counters: Counters::default(),
            finished: vec![],
            verifying: false,
            recovering: false,
            failed: false,
            asking: None,
            allowed: HashSet::new(),
        }
    }

    fn expect_allowed(&self, moment: Moment, gated: Gated) {
        assert!(gated == Gated::Open || self.allowed.contains(&moment), "the {moment} was not allowed");
    }

    /// Feeds one event and performs the effects; panics where an effect would hurt the world.
    fn feed(&mut self, event: Event) {
        let before = std::mem::replace(&mut self.state, State::new(0));
        let (state, effects) = step(before.clone(), event.clone());
        self.state = state;
        for effect in effects {
            self.perform(effect, &before, &event);
        }
        self.check(&before, &event);
    }

    fn perform(&mut self, effect: Effect, before: &State, event: &Event) {
        match effect {
            Effect::Start { leader, .. } => {
                assert_eq!(self.phase, None, "a second session while one runs, after {event:?} in {before:?}");
                assert_eq!(Some(leader), self.serving);
                self.phase = Some(Phase::Starting);
                self.leads = Which::Old;
                self.counters = Counters::default();
                self.failed = false;
                self.asking = None;
                self.allowed.clear();
            }
            Effect::Send(Command::Promote) => {
                assert_eq!(self.phase, Some(Phase::Paired), "promote while no pair runs");
                let policy = self.state.plan().expect("a promotion has a plan").policy;
                self.expect_allowed(Moment::Promotion, policy.gates.promotion);
                if policy.promote == Promotion::Auto {
                    let evidence = Evidence::weigh(policy.thresholds, &Suspicions::default(), &self.counters);
                    assert!(evidence.is_enough(), "promoted by itself on {evidence}");
                    let asked =
                        matches!(event, Event::Promote(_) | Event::Timer(Timer::PromoteAgain) | Event::Gate(..));
                    assert!(self.soaked || asked, "promoted by itself before the soak time was over");
                }
                self.phase = Some(Phase::Promoting);
            }
            Effect::Send(Command::Confirm) => {
                assert!(
                    matches!(self.phase, Some(Phase::Promoted | Phase::TookOver)),
                    "the old version is ended while it serves: {before:?}"
                );
                let gates = self.state.plan().map(|plan| plan.policy.gates).unwrap_or_default();
                self.expect_allowed(Moment::Confirmation, gates.confirmation);
                if self.phase == Some(Phase::Promoted) {
                    self.phase = Some(Phase::Confirming);
                }
            }
            Effect::Send(Command::Rollback { .. }) => {
                assert!(
                    !matches!(self.phase, Some(Phase::Confirming | Phase::TookOver)),
                    "a rollback to a version that is ending: {before:?}"
                );
                if self.phase.is_some() && self.phase != Some(Phase::Stuck) {
                    self.phase = Some(Phase::Undoing);
                }
            }
            Effect::SetTimer(timer, _) => {
                if timer == Timer::Soak {
                    self.soaked = false;
                }
                self.timers.insert(timer);
            }
            Effect::StopTimer(timer) => {
                self.timers.remove(&timer);
            }
            Effect::Verify { leader } => {
                assert_eq!(Some(leader), self.serving);
                self.verifying = true;
            }
            Effect::AskGate(moment) => {
                self.asking = Some(moment);
                self.allowed.remove(&moment);
            }
            Effect::Recover => self.recovering = true,
            Effect::Finish(outcome) => {
                self.timers.clear();
                let said = match &outcome {
                    Outcome::Confirmed { .. } | Outcome::TookOver { .. } | Outcome::Kept { .. } => Some(Which::New),
                    Outcome::RolledBack { .. } => Some(Which::Old),
                    Outcome::TargetEnded { .. } | Outcome::Unsure { .. } => None,
                };
                assert!(said.is_none_or(|said| said == self.leads), "{outcome:?} while the {:?} one runs", self.leads);
                self.finished.push(outcome);
            }
            Effect::Unexpected(what) => panic!("a lawful engine surprised the lifecycle: {what} after {event:?}"),
            Effect::Keep(_) | Effect::Refuse(_) | Effect::Alarm(_) => {}
        }
    }

    fn check(&self, before: &State, event: &Event) {
        assert_eq!(self.state.serving(), self.serving, "after {event:?} in {before:?} → {:?}", self.state);
        if self.failed {
            let allowed = match &self.state {
                State::RollingBack { .. }
                | State::Pausing { .. }
                | State::SingleLeader { .. }
                | State::Ended { .. } => true,
                State::UpdatedLeader { ending: Ending::Died { .. }, .. } => true,
                State::Updating { .. }
                | State::CatchingUp { .. }
                | State::Validating { .. }
                | State::AskingGate { .. }
                | State::PromotingAgain { .. }
                | State::Promoting { .. }
                | State::UpdatedLeader { .. } => false,
            };
            assert!(allowed, "a failure led to {:?}", self.state);
        }
    }

    /// Returns what can happen now, the engine's events first.
    fn possible(&self) -> Vec<Event> {
        use Phase as P;
        let session = |event| Event::Session(event);
        let failed = |kind| session(SessionEvent::Failed(kind));
        let mut events = vec![];
        let ended = session(SessionEvent::TargetEnded { status: "exit 0".to_owned() });
        if let Some(phase) = self.phase {
            events.extend(match phase {
                P::Starting => vec![
                    Event::StartFailed(FailureKind::Refused(vec!["io_uring".to_owned()])),
                    session(SessionEvent::Forked { leader: OLD, follower: self.next_pid, threads: 4, pause_us: 9 }),
                ],
                P::Forked => vec![session(SessionEvent::Applied)],
                P::Applied => vec![session(SessionEvent::CaughtUp)],
                P::Paired => vec![session(SessionEvent::CaughtUp)],
                P::Promoting => vec![
                    session(SessionEvent::Promoted { leader: OLD, follower: self.next_pid, moved: 3, pause_us: 1 }),
                    session(SessionEvent::PromotionAbandoned { reason: "no common call".to_owned() }),
                ],
                P::Promoted => vec![],
                P::Confirming | P::TookOver => {
                    vec![session(SessionEvent::Confirmed { leader: self.serving.unwrap_or(0) })]
                }
                P::Undoing => vec![session(SessionEvent::RolledBack { leader: OLD })],
                P::Stuck => vec![session(SessionEvent::Confirmed { leader: self.serving.unwrap_or(0) })],
                P::Fell => vec![session(SessionEvent::RolledBack { leader: OLD })],
            });
            if matches!(phase, P::Forked | P::Applied | P::Paired | P::Promoting | P::Promoted) {
                let counters = Counters {
                    compared_calls: self.counters.compared_calls + 60,
                    compared_outputs: self.counters.compared_outputs + 6,
                    ..self.counters
                };
                events.push(session(SessionEvent::Progress(counters)));
                events.push(failed(order_divergence(DivergenceKind::Order { waiting: vec![] })));
                events.push(failed(order_divergence(DivergenceKind::Call)));
                events.push(failed(FailureKind::TimedOut("threads".to_owned())));
                events.push(failed(FailureKind::LogFull("disk".to_owned())));
                events.push(failed(FailureKind::MemoryShort("cgroup".to_owned())));
            }
            if matches!(phase, P::Forked | P::Applied | P::Paired | P::Promoting) {
                events.push(session(SessionEvent::TookOver { leader: OLD, death: Death::Signal(11) }));
            }
            if phase == P::Promoted {
                events.push(session(SessionEvent::TookOver { leader: OLD, death: Death::Signal(11) }));
            }
            if !matches!(phase, P::Starting) {
                events.push(Event::SessionLost);
                events.push(ended);
            }
        }
        if self.verifying {
            events.push(Event::Verified(Verification::Same));
            events.push(Event::Verified(Verification::Mismatch { what: "libc".to_owned() }));
        }
        if self.recovering {
            events.push(match self.serving {
                Some(leader) => Event::Recovered(Recovery::Serving { leader, version: self.leads }),
                None => Event::Recovered(Recovery::Gone { status: "killed".to_owned() }),
            });
        }
        if let Some(moment) = self.asking {
            let wait = GateAnswer::Wait { why: "busy".to_owned(), after: std::time::Duration::from_secs(1) };
            let deny = GateAnswer::Deny { why: "errors".to_owned() };
            events.extend([GateAnswer::Allow, wait, deny].map(|answer| Event::Gate(moment, answer)));
        }
        let mut timers: Vec<_> = self.timers.iter().copied().collect();
        timers.sort_by_key(|timer| format!("{timer:?}"));
        events.extend(timers.into_iter().map(Event::Timer));
        events
    }

    /// Lets an event of [`World::possible`], or one of the operator, happen.
    fn happen(&mut self, event: Event) {
        match &event {
            Event::StartFailed(_) => self.phase = None,
            Event::SessionLost => self.phase = None,
            Event::Verified(_) => self.verifying = false,
            Event::Recovered(_) => self.recovering = false,
            Event::Gate(moment, answer) => {
                self.asking = None;
                if *answer == GateAnswer::Allow {
                    self.allowed.insert(*moment);
                }
            }
            Event::Timer(timer) => {
                self.timers.remove(timer);
                self.soaked |= *timer == Timer::Soak;
            }
            Event::Session(session) => match session {
                SessionEvent::Forked { follower, .. } => {
                    self.follower = *follower;
                    self.next_pid += 1;
                    self.phase = Some(Phase::Forked);
                }
                SessionEvent::Applied => self.phase = Some(Phase::Applied),
                SessionEvent::CaughtUp => self.phase = Some(Phase::Paired),
                SessionEvent::Progress(counters) => self.counters = *counters,
                SessionEvent::Failed(_) => {
                    let stuck = self.phase == Some(Phase::Promoted);
                    self.phase = Some(if stuck { Phase::Stuck } else { Phase::Undoing });
                    self.failed = true;
                }
                SessionEvent::Promoted { .. } => {
                    self.leads = Which::New;
                    self.next_pid += 1;
                    self.phase = Some(Phase::Promoted);
                }
                SessionEvent::PromotionAbandoned { .. } => self.phase = Some(Phase::Paired),
                SessionEvent::TookOver { .. } => {
                    let back = self.phase == Some(Phase::Promoted);
                    self.leads = if back { Which::Old } else { Which::New };
                    self.phase = Some(if back { Phase::Fell } else { Phase::TookOver });
                }
                SessionEvent::Confirmed { .. } => self.phase = None,
                SessionEvent::RolledBack { .. } => {
                    self.leads = Which::Old;
                    self.phase = None;
                }
                SessionEvent::TargetEnded { .. } => {
                    self.serving = None;
                    self.phase = None;
                }
            },
            Event::Ask(_)
            | Event::Promote(_)
            | Event::Confirm
            | Event::Rollback { .. }
            | Event::Exceeded(_)
            | Event::Slowed(_) => {}
        }
        self.feed(event);
    }

    /// Drives on with an engine that answers, an operator who gives up, and no further failures.
    fn settle(&mut self) {
        for _ in 0..200 {
            if self.state.is_settled() {
                return;
            }
            let answer = self.possible().into_iter().find(|event| match event {
                Event::Session(session) => !matches!(
                    session,
                    SessionEvent::Failed(_)
                        | SessionEvent::Progress(_)
                        | SessionEvent::TargetEnded { .. }
                        | SessionEvent::TookOver { .. }
                ),
                Event::StartFailed(_) | Event::Recovered(_) | Event::Verified(_) | Event::Gate(..) => true,
                Event::Timer(timer) => *timer != Timer::Answer,
                Event::SessionLost
                | Event::Ask(_)
                | Event::Promote(_)
                | Event::Confirm
                | Event::Rollback { .. }
                | Event::Exceeded(_)
                | Event::Slowed(_) => false,
            });
            // Catching up again and again is no progress for the lifecycle.
            match answer {
                Some(Event::Session(SessionEvent::CaughtUp)) if self.phase == Some(Phase::Paired) => {
                    self.happen(Event::Rollback { reason: "enough".to_owned() });
                }
                Some(event) => self.happen(event),
                None => self.happen(Event::Rollback { reason: "enough".to_owned() }),
            }
        }
        panic!("stuck in {:?} with phase {:?}", self.state, self.phase);
    }
}

fn operator() -> impl Strategy<Value = Event> {
    let gated = |asked| if asked { Gated::Asked } else { Gated::Open };
    let gates = any::<[bool; 2]>().prop_map(move |[promotion, confirmation]| Gates {
        promotion: gated(promotion),
        confirmation: gated(confirmation),
    });
    let policy = (any::<bool>(), any::<bool>(), 0..3u32, gates).prop_map(|(promote, confirm, retries, gates)| Policy {
        gates,
        promote: if promote { Promotion::Auto } else { Promotion::Manual },
        confirm: if confirm { Confirmation::Auto } else { Confirmation::Manual },
        retries,
        ..Policy::default()
    });
    prop_oneof![
        4 => policy.prop_map(Event::Ask),
        3 => Just(Event::Promote(Waiver::None)),
        1 => Just(Event::Promote(Waiver::Evidence)),
        2 => Just(Event::Confirm),
        1 => Just(Event::Rollback { reason: "on second thought".to_owned() }),
        1 => Just(Event::Exceeded("too much".to_owned())),
        1 => Just(Event::Slowed("too slow".to_owned())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever engine, clock and operator do: somebody serves, nobody is promoted after a failure or without
    /// evidence, and every state leads back to a single leader.
    #[test]
    fn the_service_is_never_left_alone(
        choices in prop::collection::vec((0..5u8, any::<prop::sample::Index>(), operator()), 1..60),
    ) {
        let mut world = World::new();
        world.happen(Event::Ask(Policy::default()));
        for (who, index, asked) in choices {
            let possible = world.possible();
            if who == 0 || possible.is_empty() {
                world.happen(asked);
            } else {
                // Those at the front are the engine going on; failures are rarer, so that runs get far.
                let take = if who == 1 { possible.len() } else { possible.len().min(2) };
                world.happen(possible[index.index(take)].clone());
            }
        }
        world.settle();
        let settled = matches!(world.state, State::SingleLeader { .. } | State::Ended { .. });
        prop_assert!(settled, "{:?}", world.state);
        prop_assert!(world.timers.is_empty(), "timers are left: {:?}", world.timers);
    }

    /// An engine that breaks every promise never brings the lifecycle from undoing to promoted.
    #[test]
    fn nonsense_is_survived(events in prop::collection::vec(nonsense(), 1..80)) {
        let mut state = State::new(OLD);
        for event in events {
            let undoing = matches!(state, State::RollingBack { .. });
            let took_over = matches!(event, Event::Session(SessionEvent::TookOver { .. }));
            let (after, _) = step(state, event);
            let promoted = matches!(after, State::Promoting { .. } | State::UpdatedLeader { .. });
            prop_assert!(!(undoing && promoted && !took_over), "{after:?}");
            prop_assert!(!next(&after).is_empty());
            state = after;
        }
    }
}

fn nonsense() -> impl Strategy<Value = Event> {
    let session = prop_oneof![
        Just(SessionEvent::Forked { leader: OLD, follower: 7, threads: 1, pause_us: 1 }),
        Just(SessionEvent::Applied),
        Just(SessionEvent::CaughtUp),
        Just(SessionEvent::Progress(Counters { compared_calls: 500, compared_outputs: 500, ..Counters::default() })),
        Just(SessionEvent::Failed(FailureKind::TimedOut("x".to_owned()))),
        Just(SessionEvent::Failed(FailureKind::Engine("x".to_owned()))),
        Just(SessionEvent::Promoted { leader: 7, follower: OLD, moved: 1, pause_us: 1 }),
        Just(SessionEvent::PromotionAbandoned { reason: "x".to_owned() }),
        Just(SessionEvent::TookOver { leader: 7, death: Death::Exit(6) }),
        Just(SessionEvent::Confirmed { leader: 7 }),
        Just(SessionEvent::RolledBack { leader: OLD }),
        Just(SessionEvent::TargetEnded { status: "x".to_owned() }),
    ];
    let timer = prop_oneof![
        Just(Timer::Overall),
        Just(Timer::Soak),
        Just(Timer::Retry),
        Just(Timer::PromoteAgain),
        Just(Timer::AskAgain),
        Just(Timer::Answer)
    ];
    prop_oneof![
        5 => session.prop_map(Event::Session),
        2 => timer.prop_map(Event::Timer),
        2 => operator(),
        1 => Just(Event::SessionLost),
        1 => Just(Event::Recovered(Recovery::Serving { leader: OLD, version: Which::Old })),
        1 => Just(Event::Verified(Verification::Same)),
        1 => Just(Event::Gate(Moment::Promotion, GateAnswer::Allow)),
        1 => Just(Event::Gate(Moment::Confirmation, GateAnswer::Deny { why: "x".to_owned() })),
        1 => Just(Event::StartFailed(FailureKind::Refused(vec![]))),
    ]
}

fn run_to_validating(policy: Policy) -> World {
    let mut world = World::new();
    world.happen(Event::Ask(policy));
    world.happen(Event::Session(SessionEvent::Forked { leader: OLD, follower: 101, threads: 1, pause_us: 1 }));
    world.happen(Event::Session(SessionEvent::Applied));
    world.happen(Event::Session(SessionEvent::CaughtUp));
    assert_eq!(world.state.stage(), Stage::Validating);
    world
}

fn compared(calls: u64, outputs: u64) -> Event {
    let counters = Counters { compared_calls: calls, compared_outputs: outputs, ..Counters::default() };
    Event::Session(SessionEvent::Progress(counters))
}

#[test]
fn auto_promotes_once_soaked_with_enough_evidence() {
    let mut world = run_to_validating(Policy { promote: Promotion::Auto, ..Policy::default() });
    world.happen(Event::Timer(Timer::Soak));
    assert_eq!(world.state.stage(), Stage::Validating, "no evidence, no promotion");
    assert!(next(&world.state).ends_with("it has said nothing so far: do its children serve?"));
    world.happen(compared(100, 9));
    assert_eq!(world.state.stage(), Stage::Validating);
    world.happen(compared(100, 10));
    assert_eq!(world.state.stage(), Stage::Promoting);
}

#[test]
fn time_without_evidence_is_inconclusive() {
    let mut world = run_to_validating(Policy { promote: Promotion::Auto, ..Policy::default() });
    world.happen(compared(3, 1));
    world.happen(Event::Timer(Timer::Overall));
    world.happen(Event::Session(SessionEvent::RolledBack { leader: OLD }));
    let evidence = Evidence { need: Thresholds::default(), calls: 3, outputs: 1, suspected: None };
    assert_eq!(world.finished, [Outcome::RolledBack { leader: OLD, cause: Cause::Inconclusive(evidence) }]);
}

#[test]
fn only_a_matter_of_timing_is_tried_again_and_not_for_ever() {
    let policy = Policy { retries: 2, ..Policy::default() };
    let mut world = run_to_validating(policy);
    for attempt in 1..=3 {
        assert_eq!(world.state.plan().map(|plan| plan.attempt), Some(attempt));
        let failure = order_divergence(DivergenceKind::Order { waiting: vec![] });
        world.happen(Event::Session(SessionEvent::Failed(failure)));
        world.happen(Event::Session(SessionEvent::RolledBack { leader: OLD }));
        if attempt < 3 {
            assert!(matches!(world.state, State::Pausing { .. }));
            world.happen(Event::Timer(Timer::Retry));
            world.happen(Event::Session(SessionEvent::Forked { leader: OLD, follower: 9, threads: 1, pause_us: 1 }));
        }
    }
    assert_eq!(world.finished.len(), 1, "{:?}", world.finished);

    let mut world = run_to_validating(policy);
    world.happen(Event::Session(SessionEvent::Failed(order_divergence(DivergenceKind::Call))));
    world.happen(Event::Session(SessionEvent::RolledBack { leader: OLD }));
    assert_eq!(world.finished.len(), 1, "a real divergence is final");
}

#[test]
fn a_difference_after_a_race_is_believed_when_it_comes_each_time() {
    comes_each_time(|divergence| divergence.raced = true);
}

#[test]
fn a_difference_that_may_come_of_a_clock_is_believed_when_it_comes_each_time() {
    comes_each_time(|divergence| divergence.unrecorded_clock = true);
}

#[test]
fn a_difference_that_may_come_of_a_half_read_line_is_believed_when_it_comes_each_time() {
    comes_each_time(|divergence| divergence.half_read = true);
}

fn comes_each_time(doubt: impl Fn(&mut Divergence)) {
    let mut world = run_to_validating(Policy::default());
    let mut attempts = 0;
    while world.finished.is_empty() {
        attempts += 1;
        let mut failure = order_divergence(DivergenceKind::Call);
        if let FailureKind::Diverged(divergence) = &mut failure {
            doubt(divergence);
        }
        world.happen(Event::Session(SessionEvent::Failed(failure)));
        world.happen(Event::Session(SessionEvent::RolledBack { leader: OLD }));
        if matches!(world.state, State::Pausing { .. }) {
            world.happen(Event::Timer(Timer::Retry));
            world.happen(Event::Session(SessionEvent::Forked { leader: OLD, follower: 9, threads: 2, pause_us: 1 }));
        }
    }
    assert_eq!(attempts, 4);
}

/// Fails an attempt by a difference in this situation that may come of a race, and begins the next.
fn differ(world: &mut World, situation: u64) {
    let mut failure = order_divergence(DivergenceKind::Call);
    if let FailureKind::Diverged(divergence) = &mut failure {
        (divergence.raced, divergence.situation) = (true, Some(situation));
    }
    world.happen(Event::Session(SessionEvent::Failed(failure)));
    world.happen(Event::Session(SessionEvent::RolledBack { leader: OLD }));
    world.happen(Event::Timer(Timer::Retry));
    world.happen(Event::Session(SessionEvent::Forked { leader: OLD, follower: 9, threads: 2, pause_us: 1 }));
    world.happen(Event::Session(SessionEvent::Applied));
    world.happen(Event::Session(SessionEvent::CaughtUp));
    world.happen(Event::Timer(Timer::Soak));
    assert_eq!(world.state.stage(), Stage::Validating);
}

fn met(met_again: [u32; SITUATIONS]) -> Event {
    let counters = Counters { compared_calls: 500, compared_outputs: 500, met_again, ..Counters::default() };
    Event::Session(SessionEvent::Progress(counters))
}

#[test]
fn a_difference_that_was_seen_is_not_forgotten() {
    let auto = Policy { promote: Promotion::Auto, ..Policy::default() };
    let mut world = run_to_validating(auto);
    differ(&mut world, 7);
    world.happen(met([2, 0, 0]));
    assert_eq!(world.state.stage(), Stage::Validating, "it was met twice only");
    let (_, effects) = step(world.state.clone(), Event::Promote(Waiver::None));
    assert!(matches!(effects.as_slice(), [Effect::Refuse(Refusal::TooLittle(_))]), "{effects:?}");
    // Another one, so the next attempt looks for both; what was met before counts.
    differ(&mut world, 8);
    assert_eq!(world.state.plan().map(|plan| plan.suspicions.situations()), Some([Some(7), Some(8), None]));
    world.happen(met([1, 2, 0]));
    assert_eq!(world.state.stage(), Stage::Validating);
    world.happen(met([1, 3, 0]));
    assert_eq!(world.state.stage(), Stage::Promoting);
}

#[test]
fn a_difference_that_is_seen_again_is_not_outweighed_by_what_was_met_before() {
    let mut world = run_to_validating(Policy { promote: Promotion::Auto, ..Policy::default() });
    differ(&mut world, 7);
    world.happen(met([2, 0, 0]));
    differ(&mut world, 7);
    world.happen(met([2, 0, 0]));
    assert_eq!(world.state.stage(), Stage::Validating);
    // When time is over, it counts.
    world.happen(Event::Timer(Timer::Overall));
    world.happen(Event::Session(SessionEvent::RolledBack { leader: OLD }));
    let suspected = Suspected { attempt: 2, met: 2 };
    assert_eq!(world.finished, [Outcome::RolledBack { leader: OLD, cause: Cause::Suspected(suspected) }]);
}

#[test]
fn a_promotion_on_too_little_evidence_is_refused_unless_forced() {
    let policy = Policy::default();
    let world = run_to_validating(policy);
    let (state, effects) = step(world.state.clone(), Event::Promote(Waiver::None));
    assert_eq!(state.stage(), Stage::Validating);
    assert!(matches!(effects.as_slice(), [Effect::Refuse(Refusal::TooLittle(_))]), "{effects:?}");
    let (state, _) = step(world.state, Event::Promote(Waiver::Evidence));
    assert_eq!(state.stage(), Stage::Promoting);
}

#[test]
fn a_second_update_is_refused() {
    let world = run_to_validating(Policy::default());
    let (_, effects) = step(world.state, Event::Ask(Policy::default()));
    assert_eq!(effects, [Effect::Refuse(Refusal::Busy { stage: Stage::Validating })]);
}

#[test]
fn a_mismatch_after_the_promotion_goes_back() {
    let mut world = run_to_validating(Policy::default());
    world.happen(Event::Promote(Waiver::Evidence));
    world.happen(Event::Session(SessionEvent::Promoted { leader: OLD, follower: 102, moved: 3, pause_us: 1 }));
    let (_, effects) = step(world.state.clone(), Event::Confirm);
    assert!(matches!(effects.as_slice(), [Effect::Refuse(_)]), "not before it is verified: {effects:?}");
    world.happen(Event::Verified(Verification::Mismatch { what: "libc.so.6".to_owned() }));
    assert_eq!(world.state.stage(), Stage::RollingBack);
}

#[test]
fn a_promotion_by_hand_is_given_up_after_a_while_and_nothing_is_lost() {
    let policy = Policy { promotion_tries: 3, ..Policy::default() };
    let mut world = run_to_validating(policy);
    for round in 0..2 {
        world.happen(Event::Promote(Waiver::Evidence));
        for attempt in 1..=3 {
            assert_eq!(world.state.stage(), Stage::Promoting, "round {round}, attempt {attempt}");
            world.happen(Event::Session(SessionEvent::PromotionAbandoned { reason: "it is behind".to_owned() }));
            if attempt < 3 {
                assert!(matches!(world.state, State::PromotingAgain { .. }));
                world.happen(Event::Timer(Timer::PromoteAgain));
            }
        }
        assert!(matches!(world.state, State::Validating { .. }), "{:?}", world.state);
    }
    assert_eq!(world.finished, []);
}

fn gated(promotion: Gated, confirmation: Gated) -> Policy {
    Policy { gates: Gates { promotion, confirmation }, ..Policy::default() }
}

fn says(moment: Moment, answer: GateAnswer) -> Event {
    Event::Gate(moment, answer)
}

#[test]
fn nothing_is_promoted_before_the_gate_allows_it() {
    let mut world = run_to_validating(gated(Gated::Asked, Gated::Open));
    world.happen(Event::Promote(Waiver::Evidence));
    assert_eq!((world.state.stage(), world.asking), (Stage::Validating, Some(Moment::Promotion)));
    assert_eq!(world.state.gate(), Some("it has not answered yet"));
    let after = std::time::Duration::from_secs(30);
    world.happen(says(Moment::Promotion, GateAnswer::Wait { why: "`judge` says to wait".to_owned(), after }));
    assert!(world.timers.contains(&Timer::AskAgain));
    assert!(next(&world.state).contains("`judge` says to wait"), "{}", next(&world.state));
    world.happen(Event::Timer(Timer::AskAgain));
    assert_eq!(world.asking, Some(Moment::Promotion));
    world.happen(says(Moment::Promotion, GateAnswer::Allow));
    assert_eq!(world.state.stage(), Stage::Promoting);
    // One that was abandoned is tried again without another question.
    world.happen(Event::Session(SessionEvent::PromotionAbandoned { reason: "it is behind".to_owned() }));
    world.happen(Event::Timer(Timer::PromoteAgain));
    assert_eq!(world.state.stage(), Stage::Promoting);
}

#[test]
fn what_the_gate_denies_is_undone_for_that_reason() {
    let mut world = run_to_validating(gated(Gated::Asked, Gated::Open));
    world.happen(Event::Promote(Waiver::Evidence));
    world.happen(says(Moment::Promotion, GateAnswer::Deny { why: "errors".to_owned() }));
    world.happen(Event::Session(SessionEvent::RolledBack { leader: OLD }));
    let cause = Cause::Denied("errors".to_owned());
    assert_eq!(world.finished, [Outcome::RolledBack { leader: OLD, cause }]);

    // After the promotion the old version leads again.
    let mut world = run_to_validating(gated(Gated::Open, Gated::Asked));
    world.happen(Event::Promote(Waiver::Evidence));
    world.happen(Event::Session(SessionEvent::Promoted { leader: OLD, follower: 102, moved: 3, pause_us: 1 }));
    world.happen(Event::Verified(Verification::Same));
    world.happen(Event::Confirm);
    assert_eq!(world.asking, Some(Moment::Confirmation));
    world.happen(says(Moment::Confirmation, GateAnswer::Deny { why: "errors".to_owned() }));
    assert_eq!(world.state.stage(), Stage::RollingBack);
}

#[test]
fn time_that_runs_out_at_a_gate_names_what_it_said() {
    let mut world = run_to_validating(gated(Gated::Asked, Gated::Open));
    world.happen(Event::Promote(Waiver::Evidence));
    let after = std::time::Duration::from_secs(30);
    world.happen(says(Moment::Promotion, GateAnswer::Wait { why: "`judge` says to wait".to_owned(), after }));
    world.happen(Event::Timer(Timer::Overall));
    world.happen(Event::Session(SessionEvent::RolledBack { leader: OLD }));
    assert!(world.finished[0].to_string().contains("`judge` says to wait"), "{}", world.finished[0]);
}

#[test]
fn a_difference_while_the_gate_is_asked_counts_as_ever() {
    let mut world = run_to_validating(gated(Gated::Asked, Gated::Open));
    world.happen(Event::Promote(Waiver::Evidence));
    world.happen(Event::Session(SessionEvent::Failed(order_divergence(DivergenceKind::Call))));
    assert_eq!(world.state.stage(), Stage::RollingBack);
    world.happen(says(Moment::Promotion, GateAnswer::Allow));
    assert_eq!(world.state.stage(), Stage::RollingBack, "it comes too late");
}
