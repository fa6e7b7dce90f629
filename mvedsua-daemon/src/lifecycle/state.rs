//! The stages and what is known in each.

use serde::{Deserialize, Serialize};

use super::policy::{Evidence, Policy};
use super::suspicion::{Suspected, Suspicions};
use crate::update::{Counters, Death, FailureKind, Which};

/// The stage as `status` prints it (DESIGN 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    #[serde(rename = "single-leader")]
    SingleLeader,
    #[serde(rename = "outdated-leader/updating")]
    Updating,
    #[serde(rename = "outdated-leader/catching-up")]
    CatchingUp,
    #[serde(rename = "outdated-leader/validating")]
    Validating,
    #[serde(rename = "promoting")]
    Promoting,
    #[serde(rename = "updated-leader")]
    UpdatedLeader,
    #[serde(rename = "rolling-back")]
    RollingBack,
    /// The target is gone.
    #[serde(rename = "ended")]
    Ended,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Stage::SingleLeader => "single-leader",
            Stage::Updating => "outdated-leader/updating",
            Stage::CatchingUp => "outdated-leader/catching-up",
            Stage::Validating => "outdated-leader/validating",
            Stage::Promoting => "promoting",
            Stage::UpdatedLeader => "updated-leader",
            Stage::RollingBack => "rolling-back",
            Stage::Ended => "ended",
        })
    }
}

/// Why an update is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The engine reported a failure.
    Failed(FailureKind),
    /// Time ran out before enough was compared: neither pass nor fail.
    Inconclusive(Evidence),
    /// Time ran out, and a difference that an earlier attempt has seen was not outweighed.
    Suspected(Suspected),
    /// Time ran out in this stage.
    TimedOut(Stage),
    /// The operator asked for it.
    Asked(String),
    /// After the promotion something else was mapped than what was announced.
    Mismatch(String),
    /// A version made a call that cannot be recorded or replayed.
    Unsupported(Vec<String>),
    /// The new version took more than it was allowed.
    Exceeded(String),
    /// A gate did not allow the update to go on.
    Denied(String),
    /// Being recorded cost the service more than was allowed.
    Slowed(String),
    /// The new version came to its end while it led, and the old one took over.
    NewDied { death: Death },
    /// The engine went away without a last word.
    EngineLost,
}

/// How an update ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new version serves alone.
    Confirmed { leader: i32 },
    /// The old version came to its end and the new one serves alone.
    TookOver { leader: i32, death: Death },
    /// The old version serves alone.
    RolledBack { leader: i32, cause: Cause },
    /// There was no way back any more: the new version serves alone although the update was to be undone.
    Kept { leader: i32, cause: Cause },
    /// The target ended by itself.
    TargetEnded { status: String },
    /// Who serves could not be established.
    Unsure { leader: i32, what: String },
}

impl Outcome {
    /// Returns the process that runs the new version, where that one serves now.
    #[must_use]
    pub fn updated(&self) -> Option<i32> {
        match self {
            Outcome::Confirmed { leader } | Outcome::TookOver { leader, .. } | Outcome::Kept { leader, .. } => {
                Some(*leader)
            }
            Outcome::RolledBack { .. } | Outcome::TargetEnded { .. } | Outcome::Unsure { .. } => None,
        }
    }
}

/// Two versions that run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The process that serves. It stays the same whichever version it runs.
    pub leader: i32,
    /// The version that it runs.
    pub leads: Which,
    /// The process that lives through what the leader does, with the other version.
    pub follower: i32,
    pub threads: u32,
    /// How long the leader stood still for the fork, microseconds.
    pub fork_pause_us: u64,
    pub counters: Counters,
    /// Why the last promotion was abandoned.
    pub abandoned_because: Option<String>,
}

/// What an update keeps through all its stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub policy: Policy,
    /// Counts the attempts from 1.
    pub attempt: u32,
    /// Counts the promotions that were abandoned since one was asked for.
    pub abandoned: u32,
    /// What earlier attempts have seen.
    #[serde(default)]
    pub suspicions: Suspicions,
}

impl Plan {
    /// The plan of an update that begins.
    #[must_use]
    pub fn new(policy: Policy) -> Plan {
        Plan { policy, attempt: 1, abandoned: 0, suspicions: Suspicions::default() }
    }

    /// Weighs what was compared, in view of what earlier attempts have seen.
    #[must_use]
    pub fn weigh(&self, counters: &Counters) -> Evidence {
        Evidence::weigh(self.policy.thresholds, &self.suspicions, counters)
    }
}

/// Says whether the follower has agreed for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Soak {
    Running,
    Over,
}

/// Says what is to become of the old version while the new one leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// What is mapped is being compared with what should be.
    Verifying,
    /// It follows; the operator or the policy decides.
    Open,
    /// It is to end, and the gates are asked; `said` is what they have said so far.
    Asking { said: Option<String> },
    /// It has been told to end.
    Confirming,
    /// It came to its end and the new version took over.
    Died { death: Death },
}

/// Says whether the engine owes an answer for longer than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overdue {
    No,
    Yes,
}

/// Where the update stands, and what is known there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// t0 or t6: one version runs, untouched.
    SingleLeader { leader: i32, last: Option<Outcome> },
    /// t1: forked (once `run` is there), the new version is being applied.
    Updating { plan: Plan, leader: i32, run: Option<Run> },
    /// t2: the follower works off the backlog.
    CatchingUp { plan: Plan, run: Run },
    /// t3: every call is compared.
    Validating { plan: Plan, run: Run, soak: Soak },
    /// As validating, while the gates are asked whether to promote; `said` is what they have said so far.
    AskingGate { plan: Plan, run: Run, soak: Soak, said: Option<String> },
    /// As validating, while an abandoned promotion waits to be tried again.
    PromotingAgain { plan: Plan, run: Run, soak: Soak },
    /// t4: both versions are being stopped at the same call.
    Promoting { plan: Plan, run: Run, soak: Soak, overdue: Overdue },
    /// t5: the new version leads; `run.follower` is the old one.
    UpdatedLeader { plan: Plan, run: Run, moved: u64, pause_us: u64, soak: Soak, ending: Ending },
    /// The update is being undone; `leader` serves.
    RollingBack { plan: Plan, leader: i32, run: Option<Run>, cause: Cause, overdue: Overdue },
    /// The leader runs alone until the update is tried again.
    Pausing { plan: Plan, leader: i32, cause: Cause },
    /// The target is gone.
    Ended { outcome: Outcome },
}

impl State {
    /// Returns the state of a process that nobody has updated yet.
    #[must_use]
    pub fn new(leader: i32) -> Self {
        State::SingleLeader { leader, last: None }
    }

    /// Returns the stage that `status` prints.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            State::SingleLeader { .. } | State::Pausing { .. } => Stage::SingleLeader,
            State::Updating { .. } => Stage::Updating,
            State::CatchingUp { .. } => Stage::CatchingUp,
            State::Validating { .. } | State::AskingGate { .. } | State::PromotingAgain { .. } => Stage::Validating,
            State::Promoting { .. } => Stage::Promoting,
            State::UpdatedLeader { .. } => Stage::UpdatedLeader,
            State::RollingBack { .. } => Stage::RollingBack,
            State::Ended { .. } => Stage::Ended,
        }
    }

    /// Returns the process that serves, or `None` when the target is gone.
    #[must_use]
    pub fn serving(&self) -> Option<i32> {
        match self {
            State::SingleLeader { leader, .. }
            | State::Updating { leader, .. }
            | State::RollingBack { leader, .. }
            | State::Pausing { leader, .. } => Some(*leader),
            State::CatchingUp { run, .. }
            | State::Validating { run, .. }
            | State::AskingGate { run, .. }
            | State::PromotingAgain { run, .. }
            | State::Promoting { run, .. }
            | State::UpdatedLeader { run, .. } => Some(run.leader),
            State::Ended { .. } => None,
        }
    }

    /// Returns the two versions, while two run.
    #[must_use]
    pub fn run(&self) -> Option<&Run> {
        match self {
            State::CatchingUp { run, .. }
            | State::Validating { run, .. }
            | State::AskingGate { run, .. }
            | State::PromotingAgain { run, .. }
            | State::Promoting { run, .. }
            | State::UpdatedLeader { run, .. } => Some(run),
            State::Updating { run, .. } | State::RollingBack { run, .. } => run.as_ref(),
            State::SingleLeader { .. } | State::Pausing { .. } | State::Ended { .. } => None,
        }
    }

    /// Returns what the update keeps, while there is one.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        match self {
            State::Updating { plan, .. }
            | State::CatchingUp { plan, .. }
            | State::Validating { plan, .. }
            | State::AskingGate { plan, .. }
            | State::PromotingAgain { plan, .. }
            | State::Promoting { plan, .. }
            | State::UpdatedLeader { plan, .. }
            | State::RollingBack { plan, .. }
            | State::Pausing { plan, .. } => Some(plan),
            State::SingleLeader { .. } | State::Ended { .. } => None,
        }
    }

    /// Returns how the last update ended, where none is under way.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            State::SingleLeader { last, .. } => last.as_ref(),
            State::Ended { outcome } => Some(outcome),
            State::Updating { .. }
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

    /// Returns what the gates have said last, while they are asked.
    #[must_use]
    pub fn gate(&self) -> Option<&str> {
        let said = match self {
            State::AskingGate { said, .. } | State::UpdatedLeader { ending: Ending::Asking { said }, .. } => said,
            State::SingleLeader { .. }
            | State::Updating { .. }
            | State::CatchingUp { .. }
            | State::Validating { .. }
            | State::PromotingAgain { .. }
            | State::Promoting { .. }
            | State::UpdatedLeader { .. }
            | State::RollingBack { .. }
            | State::Pausing { .. }
            | State::Ended { .. } => return None,
        };
        Some(said.as_deref().unwrap_or("it has not answered yet"))
    }

    /// Returns whether nothing is under way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.plan().is_none()
    }
}
