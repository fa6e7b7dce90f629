//! What the operator decided in advance.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gates::Gates;
use super::suspicion::{Suspected, Suspicions};
use crate::compare::DivergenceKind;
use crate::units::millis;
use crate::update::{Counters, FailureKind, SITUATIONS};

/// Says who promotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Promotion {
    /// The operator, with `promote`.
    #[default]
    Manual,
    /// The daemon, once the soak time is over and enough was compared.
    Auto,
}

/// Says who ends the old version after a promotion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Confirmation {
    /// The operator, with `confirm`.
    #[default]
    Manual,
    /// The daemon, once the soak time has passed a second time without a failure.
    Auto,
}

/// How much must have been compared before there is a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    pub min_calls: u64,
    pub min_outputs: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds { min_calls: 100, min_outputs: 10 }
    }
}

/// What was compared, against what must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub need: Thresholds,
    pub calls: u64,
    pub outputs: u64,
    /// What an earlier attempt has seen, and is not outweighed.
    #[serde(default)]
    pub suspected: Option<Suspected>,
}

impl Evidence {
    /// Weighs what was counted against what is needed.
    #[must_use]
    pub fn weigh(need: Thresholds, suspicions: &Suspicions, counters: &Counters) -> Self {
        let suspected = suspicions.open(counters);
        Evidence { need, calls: counters.compared_calls, outputs: counters.compared_outputs, suspected }
    }

    /// Returns whether a verdict can stand on it.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.calls >= self.need.min_calls && self.outputs >= self.need.min_outputs && self.suspected.is_none()
    }
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} calls ({} needed) and {} outputs ({} needed) compared",
            self.calls, self.need.min_calls, self.outputs, self.need.min_outputs
        )?;
        self.suspected.iter().try_for_each(|suspected| write!(f, "; {suspected}"))
    }
}

/// What the operator decided in advance about one update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub promote: Promotion,
    pub confirm: Confirmation,
    /// How long the follower must agree after it has caught up.
    #[serde(rename = "soak_ms", with = "millis")]
    pub soak: Duration,
    pub thresholds: Thresholds,
    /// How often a failure that is a matter of timing is tried again (Kitsune's median was 2).
    pub retries: u32,
    /// How long to wait before trying again.
    #[serde(rename = "retry_after_ms", with = "millis")]
    pub retry_after: Duration,
    /// How often a promotion that the operator asked for is tried before it is given up and the versions go on as they
    /// are. One that the policy asked for is tried until the timeout.
    #[serde(default = "default_promotion_tries")]
    pub promotion_tries: u32,
    /// How long the update may take from the request to the promotion, retries included.
    #[serde(rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
    /// How long the engine may take to answer a command before that is an alarm; longer than its own bounds.
    #[serde(rename = "answer_within_ms", with = "millis")]
    pub answer_within: Duration,
    /// Whether somebody else is asked before the promotion and before the old version ends.
    #[serde(default)]
    pub gates: Gates,
}

fn default_promotion_tries() -> u32 {
    40
}

impl Default for Policy {
    fn default() -> Self {
        let soak = Duration::from_secs(10);
        Policy {
            promote: Promotion::Manual,
            confirm: Confirmation::Manual,
            soak,
            thresholds: Thresholds::default(),
            retries: 8,
            retry_after: Duration::from_millis(500),
            promotion_tries: default_promotion_tries(),
            timeout: soak + Duration::from_mins(10),
            answer_within: Duration::from_secs(60),
            gates: Gates::default(),
        }
    }
}

/// How often a difference that may come of a race, of a clock that is not recorded, or of a line that was half read, is tried again; one that comes each time
/// is none.
const RACED: u32 = SITUATIONS as u32;

/// Returns whether trying again can help after so many attempts: the threads met in an unlucky order, or a bounded wait ran
/// out.
///
/// Any other divergence, a crash or a refused call would only come again.
#[must_use]
pub(super) fn is_matter_of_timing(failure: &FailureKind, attempts: u32) -> bool {
    match failure {
        // What was lost is not lost again: the next attempt records with stops at each call.
        FailureKind::TimedOut(_) | FailureKind::Lost(_) => true,
        FailureKind::Diverged(divergence) => match divergence.kind {
            DivergenceKind::Order { .. } => true,
            DivergenceKind::Call
            | DivergenceKind::Argument { .. }
            | DivergenceKind::Payload { .. }
            | DivergenceKind::End => {
                (divergence.raced || divergence.unrecorded_clock || divergence.half_read) && attempts <= RACED
            }
            DivergenceKind::Crash { .. }
            | DivergenceKind::Hang { .. }
            | DivergenceKind::Silent { .. }
            | DivergenceKind::Gone { .. }
            | DivergenceKind::Refused { .. }
            | DivergenceKind::Gap { .. } => false,
        },
        FailureKind::Refused(_)
        | FailureKind::LogFull(_)
        | FailureKind::MemoryShort(_)
        | FailureKind::TargetGone(_)
        | FailureKind::NotApplied(_)
        | FailureKind::Asked(_)
        | FailureKind::Engine(_)
        | FailureKind::Harmed(_) => false,
    }
}
