//! What an event says.

use serde::{Deserialize, Serialize};

use crate::compare::DivergenceKind;
use crate::control::Code;
use crate::lifecycle::{Outcome, Stage};
use crate::monitor::Mode;
use crate::update::FailureKind;

/// Something that has happened. Nothing of a payload is ever in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up by one, over all daemons of a state directory.
    pub seq: u64,
    /// Unix time, milliseconds.
    pub at_ms: u64,
    /// The update that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<u64>,
    /// The process that was asked to be observed or updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// What that process is called: by the operator, by its unit, or by its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The user whose process it is; users see their own only, and root sees what is about the daemon itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    #[serde(flatten)]
    pub what: What,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum What {
    DaemonStarted {
        version: String,
        daemon_pid: u32,
    },
    /// The daemon was asked to end, and undoes what is under way.
    DaemonEnds {},
    /// Something that the daemon keeps is damaged, or a disk does not take it.
    Trouble {
        what: String,
    },
    TroubleOver {
        what: String,
    },
    Attached {
        mode: Mode,
    },
    ModeChanged {
        mode: Mode,
    },
    Detached {},
    /// An update has begun.
    Asked {
        to: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        package: Option<String>,
        by: u32,
    },
    Stage {
        from: Stage,
        to: Stage,
        /// Counts the attempts of the update from 1; 0 when it is over.
        attempt: u32,
    },
    /// The fork is made; the service stood still for it.
    Forked {
        threads: u32,
        pause_us: u64,
    },
    /// The new version leads; the service stood still for it.
    Promoted {
        moved: u64,
        pause_us: u64,
    },
    PromotionAbandoned {
        why: String,
    },
    /// The version that led came to its end, and the other one took over.
    TookOver {
        how: String,
    },
    /// The versions parted.
    Diverged {
        how: String,
        text: String,
        /// It may come of the order in which threads ran, or of a clock that nobody records.
        doubtful: bool,
    },
    /// Something else failed.
    Failed {
        how: String,
        text: String,
    },
    /// The update is tried again after a while.
    Retry {
        attempt: u32,
        of: u32,
        after_ms: u64,
    },
    /// A gate was asked whether the update may go on.
    Gate {
        gate: String,
        before: String,
        answer: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// Something is wrong that nobody can undo.
    Alarm {
        text: String,
    },
    /// The update is over.
    Ended {
        verdict: String,
        code: Code,
        text: String,
    },
}

impl What {
    /// What failed, without what was read or written.
    pub(crate) fn of_failure(kind: &FailureKind, text: String) -> What {
        match kind {
            FailureKind::Diverged(divergence) => What::Diverged {
                how: name_of_divergence(&divergence.kind).to_owned(),
                text,
                doubtful: divergence.raced || divergence.unrecorded_clock || divergence.half_read,
            },
            other => What::Failed { how: name_of_failure(other).to_owned(), text },
        }
    }

    /// How an update ended.
    pub(crate) fn of_outcome(outcome: &Outcome) -> What {
        let verdict = match outcome {
            Outcome::Confirmed { .. } => "confirmed",
            Outcome::TookOver { .. } => "took-over",
            Outcome::RolledBack { .. } => "rolled-back",
            Outcome::Kept { .. } => "kept",
            Outcome::TargetEnded { .. } => "target-ended",
            Outcome::Unsure { .. } => "unsure",
        };
        What::Ended { verdict: verdict.to_owned(), code: Code::of_outcome(outcome), text: outcome.to_string() }
    }

    /// Returns the name of the kind, as `kind` has it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            What::DaemonStarted { .. } => "daemon-started",
            What::DaemonEnds {} => "daemon-ends",
            What::Trouble { .. } => "trouble",
            What::TroubleOver { .. } => "trouble-over",
            What::Attached { .. } => "attached",
            What::ModeChanged { .. } => "mode-changed",
            What::Detached {} => "detached",
            What::Asked { .. } => "asked",
            What::Stage { .. } => "stage",
            What::Forked { .. } => "forked",
            What::Promoted { .. } => "promoted",
            What::PromotionAbandoned { .. } => "promotion-abandoned",
            What::TookOver { .. } => "took-over",
            What::Diverged { .. } => "diverged",
            What::Failed { .. } => "failed",
            What::Retry { .. } => "retry",
            What::Gate { .. } => "gate",
            What::Alarm { .. } => "alarm",
            What::Ended { .. } => "ended",
        }
    }
}

/// Every kind of event, as configurations name them.
pub(crate) const KINDS: [&str; 19] = [
    "daemon-started",
    "daemon-ends",
    "trouble",
    "trouble-over",
    "attached",
    "mode-changed",
    "detached",
    "asked",
    "stage",
    "forked",
    "promoted",
    "promotion-abandoned",
    "took-over",
    "diverged",
    "failed",
    "retry",
    "gate",
    "alarm",
    "ended",
];

fn name_of_divergence(kind: &DivergenceKind) -> &'static str {
    match kind {
        DivergenceKind::Call => "call",
        DivergenceKind::Argument { .. } => "argument",
        DivergenceKind::Payload { .. } => "payload",
        DivergenceKind::End => "end",
        DivergenceKind::Order { .. } => "order",
        DivergenceKind::Crash { .. } => "crash",
        DivergenceKind::Hang { .. } => "hang",
        DivergenceKind::Silent { .. } => "silent",
        DivergenceKind::Gone { .. } => "gone",
        DivergenceKind::Refused { .. } => "refused",
        DivergenceKind::Gap { .. } => "gap",
    }
}

fn name_of_failure(kind: &FailureKind) -> &'static str {
    match kind {
        FailureKind::Refused(_) => "refused",
        FailureKind::Diverged(_) => "diverged",
        FailureKind::LogFull(_) => "log-full",
        FailureKind::MemoryShort(_) => "memory-short",
        FailureKind::TimedOut(_) => "timed-out",
        FailureKind::TargetGone(_) => "target-gone",
        FailureKind::NotApplied(_) => "not-applied",
        FailureKind::Asked(_) => "asked",
        FailureKind::Engine(_) => "engine",
        FailureKind::Harmed(_) => "harmed",
        FailureKind::Lost(_) => "lost",
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |us: &u64| format!("{}.{:02} ms", us / 1000, us % 1000 / 10);
        match self {
            What::DaemonStarted { version, daemon_pid } => {
                write!(f, "the daemon starts: version {version}, process {daemon_pid}")
            }
            What::DaemonEnds {} => f.write_str("the daemon ends"),
            What::Trouble { what } => write!(f, "trouble: {what}"),
            What::TroubleOver { what } => write!(f, "no trouble any more: {what}"),
            What::Attached { mode } => write!(f, "it is observed, mode {mode}"),
            What::ModeChanged { mode } => write!(f, "it is observed in mode {mode}"),
            What::Detached {} => f.write_str("it is no longer observed"),
            What::Asked { to, package: Some(package), by } => {
                write!(f, "user {by} asks for the update to {to} (package {package})")
            }
            What::Asked { to, package: None, by } => write!(f, "user {by} asks for the update to {to}"),
            What::Stage { from, to, .. } => write!(f, "{from} → {to}"),
            What::Forked { threads: 1, pause_us } => write!(f, "forked; its thread stood still for {}", ms(pause_us)),
            What::Forked { threads, pause_us } => {
                write!(f, "forked; its {threads} threads stood still for {}", ms(pause_us))
            }
            What::Promoted { moved, pause_us } => {
                write!(f, "promoted: {moved} bytes moved, the service stood still for {}", ms(pause_us))
            }
            What::PromotionAbandoned { why } => write!(f, "the promotion was abandoned: {why}"),
            What::TookOver { how } => write!(f, "the version that led {how}, the other one took over"),
            What::Diverged { text, doubtful: true, .. } => write!(f, "{text} (it may come of a race or of a clock)"),
            What::Diverged { text, .. } | What::Failed { text, .. } => f.write_str(text),
            What::Retry { attempt, of, after_ms } => write!(f, "attempt {attempt} of {of} starts in {after_ms} ms"),
            What::Gate { gate, before, answer, why } if why.is_empty() => {
                write!(f, "gate `{gate}` before the {before}: {answer}")
            }
            What::Gate { gate, before, answer, why } => write!(f, "gate `{gate}` before the {before}: {answer}, {why}"),
            What::Alarm { text } => write!(f, "ALARM: {text}"),
            What::Ended { code, text, .. } => write!(f, "over, code {}: {text}", u8::from(*code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object() {
        let what = What::Stage { from: Stage::Updating, to: Stage::CatchingUp, attempt: 2 };
        let event = Event { seq: 9, at_ms: 5, update: Some(1), pid: Some(7), target: None, owner: Some(0), what };
        let text = serde_json::to_string(&event).expect("it serialises");
        assert_eq!(
            text,
            r#"{"seq":9,"at_ms":5,"update":1,"pid":7,"owner":0,"kind":"stage","from":"outdated-leader/updating","to":"outdated-leader/catching-up","attempt":2}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).expect("it reads"), event);
    }

    #[test]
    fn kinds_are_named_as_they_are_written() {
        let outcome = Outcome::Confirmed { leader: 1 };
        for what in [What::Detached {}, What::of_outcome(&outcome), What::DaemonEnds {}] {
            let json = serde_json::to_value(&what).expect("it serialises");
            assert_eq!(json["kind"], what.kind());
            assert!(KINDS.contains(&what.kind()));
        }
    }
}
