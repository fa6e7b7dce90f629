//! What goes into the lifecycle and what it wants done.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gates::{GateAnswer, Moment};
use super::policy::{Evidence, Policy};
use super::state::{Outcome, Stage};
use crate::update::{Command, FailureKind, SITUATIONS, SessionEvent, Which};

/// Says whether the operator insists on the evidence that the policy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiver {
    /// Too little evidence refuses the promotion.
    None,
    /// The operator takes the responsibility (`promote --force`).
    Evidence,
}

/// The times that the lifecycle waits for. Each exists at most once; setting it again replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The whole update, from the request to the promotion.
    Overall,
    /// The time that the follower must agree.
    Soak,
    /// The pause before an update is tried again.
    Retry,
    /// The pause before an abandoned promotion is tried again.
    PromoteAgain,
    /// The pause before gates that said to wait are asked again.
    AskAgain,
    /// The engine owes the answer to a command.
    Answer,
}

/// What was found after an engine that went away without a last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// This process serves, with this version, and nothing of the update is left in it.
    Serving { leader: i32, version: Which },
    /// Neither version is there any more.
    Gone { status: String },
    /// It could not be established.
    Unsure { what: String },
}

/// What came of comparing the build-ids of what is mapped with what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    Same,
    Mismatch { what: String },
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The operator asks for an update.
    Ask(Policy),
    /// The operator asks to promote.
    Promote(Waiver),
    /// The operator asks to end the old version.
    Confirm,
    /// The operator asks to undo.
    Rollback { reason: String },
    /// The new version takes more than it was allowed.
    Exceeded(String),
    /// Being recorded costs the service more than was allowed.
    Slowed(String),
    /// The engine could not start at all; nothing was touched.
    StartFailed(FailureKind),
    /// The engine reports.
    Session(SessionEvent),
    /// The engine went away without a last word.
    SessionLost,
    /// Answers [`Effect::Recover`].
    Recovered(Recovery),
    /// Answers [`Effect::Verify`].
    Verified(Verification),
    /// Answers [`Effect::AskGate`].
    Gate(Moment, GateAnswer),
    /// A timer ran out.
    Timer(Timer),
}

/// Why a request of the operator is not possible now. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The request does not fit the stage.
    WrongStage { stage: Stage, hint: String },
    /// An update of this target is under way already.
    Busy { stage: Stage },
    /// Too little was compared.
    TooLittle(Evidence),
}

/// Something is to be done. Effects are performed in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the engine on the leader; answered by session events, or [`Event::StartFailed`].
    Start {
        leader: i32,
        /// Where earlier attempts have seen differences.
        situations: [Option<u64>; SITUATIONS],
    },
    /// Send a command to the engine.
    Send(Command),
    SetTimer(Timer, Duration),
    StopTimer(Timer),
    /// Compare the build-ids of what `leader` has mapped with what it should; answered by [`Event::Verified`].
    Verify {
        leader: i32,
    },
    /// Ask the gates whether the update may go on; answered by [`Event::Gate`]. An earlier question is forgotten.
    AskGate(Moment),
    /// Find out which version serves and undo what is left; answered by [`Event::Recovered`].
    Recover,
    /// Keep this failure for the report.
    Keep(FailureKind),
    /// Tell the operator that the request is not possible now.
    Refuse(Refusal),
    /// Tell the operator that something is wrong which nobody can undo.
    Alarm(String),
    /// Log that the engine spoke out of turn.
    Unexpected(String),
    /// The update is over.
    Finish(Outcome),
}
