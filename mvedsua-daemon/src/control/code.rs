//! The exit codes: what a script can tell apart.

use serde::{Deserialize, Serialize};

use crate::compare::DivergenceKind;
use crate::lifecycle::{Cause, Outcome, Refusal};
use crate::update::FailureKind;

/// What came of a request. The number is the exit code of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Code {
    Done = 0,
    Usage = 2,
    Diverged = 10,
    Crashed = 11,
    Inconclusive = 12,
    TimedOut = 13,
    Kept = 14,
    Refused = 20,
    Kernel = 21,
    TargetGone = 22,
    BuildId = 23,
    Outdated = 24,
    Unreachable = 30,
    Harmed = 40,
}

impl Code {
    /// Every code, in the order of the numbers.
    pub const ALL: [Code; 14] = [
        Code::Done,
        Code::Usage,
        Code::Diverged,
        Code::Crashed,
        Code::Inconclusive,
        Code::TimedOut,
        Code::Kept,
        Code::Refused,
        Code::Kernel,
        Code::TargetGone,
        Code::BuildId,
        Code::Outdated,
        Code::Unreachable,
        Code::Harmed,
    ];

    /// Returns what the code means, in one line of the manual.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Code::Done => "done",
            Code::Usage => "wrong usage: an unknown option, or a request that does not fit the stage",
            Code::Diverged => "rolled back: the versions differed, or somebody asked for it",
            Code::Crashed => "rolled back: the new version crashed, hung, was killed or took more than its limits",
            Code::Inconclusive => "inconclusive: too little was compared, or the recording has a hole",
            Code::TimedOut => "undone because time, memory, or the room for the log, ran out",
            Code::Kept => "updated, but not as asked: the new version serves and there was no way back",
            Code::Refused => "refused before anything was touched (preflight, package, permission, another update)",
            Code::Kernel => "the kernel lacks a feature or refuses a right; see `mvedsuad doctor`",
            Code::TargetGone => "the process is gone",
            Code::BuildId => "what is mapped is not what was announced (build-id)",
            Code::Outdated => "`outdated`: processes run code that is no longer what is on the disk",
            Code::Unreachable => "the daemon cannot be reached",
            Code::Harmed => "the service may be harmed: look at it now",
        }
    }

    /// Returns the code of an update that ended.
    #[must_use]
    pub fn of_outcome(outcome: &Outcome) -> Code {
        match outcome {
            Outcome::Confirmed { .. } | Outcome::TookOver { .. } => Code::Done,
            Outcome::Kept { cause, .. } => match Code::of_cause(cause) {
                Code::Harmed => Code::Harmed,
                _ => Code::Kept,
            },
            Outcome::RolledBack { cause, .. } => Code::of_cause(cause),
            Outcome::TargetEnded { .. } => Code::TargetGone,
            Outcome::Unsure { .. } => Code::Harmed,
        }
    }

    fn of_cause(cause: &Cause) -> Code {
        match cause {
            Cause::Failed(kind) => Code::of_failure(kind),
            Cause::Inconclusive(_) | Cause::EngineLost => Code::Inconclusive,
            Cause::TimedOut(_) => Code::TimedOut,
            Cause::Asked(_) | Cause::Unsupported(_) | Cause::Suspected(_) => Code::Diverged,
            Cause::NewDied { .. } | Cause::Exceeded(_) => Code::Crashed,
            Cause::Mismatch(_) => Code::BuildId,
        }
    }

    /// Returns the code of a failure.
    #[must_use]
    pub fn of_failure(kind: &FailureKind) -> Code {
        match kind {
            FailureKind::Refused(_) => Code::Refused,
            FailureKind::Diverged(divergence) => match divergence.kind {
                DivergenceKind::Crash { .. }
                | DivergenceKind::Hang { .. }
                | DivergenceKind::Silent { .. }
                | DivergenceKind::Gone { .. } => Code::Crashed,
                DivergenceKind::Gap { .. } => Code::Inconclusive,
                DivergenceKind::Call
                | DivergenceKind::Argument { .. }
                | DivergenceKind::Payload { .. }
                | DivergenceKind::End
                | DivergenceKind::Order { .. }
                | DivergenceKind::Refused { .. } => Code::Diverged,
            },
            FailureKind::LogFull(_) | FailureKind::MemoryShort(_) | FailureKind::TimedOut(_) => Code::TimedOut,
            FailureKind::TargetGone(_) => Code::TargetGone,
            FailureKind::NotApplied(_) | FailureKind::Asked(_) => Code::Diverged,
            FailureKind::Lost(_) | FailureKind::Engine(_) => Code::Inconclusive,
            FailureKind::Harmed(_) => Code::Harmed,
        }
    }

    /// Returns the code of a request that is not possible now.
    #[must_use]
    pub fn of_refusal(refusal: &Refusal) -> Code {
        match refusal {
            Refusal::WrongStage { .. } => Code::Usage,
            Refusal::Busy { .. } => Code::Refused,
            Refusal::TooLittle(_) => Code::Inconclusive,
        }
    }
}

impl From<Code> for u8 {
    fn from(code: Code) -> u8 {
        code as u8
    }
}

impl TryFrom<u8> for Code {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        Code::ALL
            .into_iter()
            .find(|code| u8::from(*code) == number)
            .ok_or_else(|| format!("{number} is not one of mvedsuad's codes"))
    }
}
