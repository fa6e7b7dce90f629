//! What goes into a session and what comes out of it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::binary::{Binary, FileChange};
use super::inplace::InPlace;
use super::method::{Itself, Method};
use crate::compare::Divergence;
use crate::record::interleaving::Interleaving;
use crate::record::leading::CALM;
use crate::record::sight::Sight;
use crate::record::toll::Toll;
use crate::replay::following::{Answered, Answering};
use crate::replay::situations::SITUATIONS;
use crate::rules::Counts;

/// What happens when the log's memory and disk budgets are both used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// The update is rolled back; the service never waits for an update.
    #[default]
    Rollback,
    /// The leader waits for the follower, as in the paper.
    Block,
}

/// Which version goes on when the two part after the promotion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnParting {
    /// The new version is taken to be wrong, and the old one leads again.
    #[default]
    Rollback,
    /// The new version keeps the service and the old one ends, as in the paper: for updates after which clients do what the
    /// old version cannot follow.
    Keep,
}

/// What an update changes, and how.
#[derive(Clone, Debug)]
pub struct Change(pub(crate) Arc<dyn Method>);

impl Change {
    /// Nothing: the same version once more.
    #[must_use]
    pub fn itself() -> Change {
        Change(Arc::new(Itself))
    }

    /// A program that cooperates loads an object.
    #[must_use]
    pub fn in_place(object: PathBuf) -> Change {
        Change(Arc::new(InPlace { object }))
    }

    /// Files that a process has mapped become other ones.
    #[must_use]
    pub fn files(files: Vec<Arc<FileChange>>) -> Change {
        Change(Arc::new(Binary { files }))
    }
}

/// How the engine is to run an update.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory budget of the log, bytes.
    pub log_memory: u64,
    /// Budget of the spill file, bytes; 0 means no spilling.
    pub log_disk: u64,
    /// Where the spill file lies.
    pub spill_dir: PathBuf,
    pub on_full: OnFull,
    pub on_parting: OnParting,
    /// The leader's outputs wait until the follower has produced the same.
    pub lockstep: bool,
    /// How the program's threads run beside each other while two versions run.
    pub interleaving: Interleaving,
    /// How long the follower may be silent although a record waits for it.
    pub hang_timeout: Duration,
    /// How long the service may stand still for one attempt to promote; then it is abandoned and made again later.
    pub pause_limit: Duration,
    /// How the new version comes into the follower.
    pub change: Change,
    /// How long the follower may take to apply it.
    pub apply_timeout: Duration,
    /// How long stopping every thread, draining the log and the like may take before they are given up.
    pub step_timeout: Duration,
    /// Rules for the differences that are meant, and the counts of what they do.
    pub rules: Option<Arc<Counts>>,
    /// Where the leader's records are kept; the file must not be there yet.
    pub record: Option<PathBuf>,
    /// Where the session says what it waits for.
    pub waits: Waits,
    /// Where the leader stops to be recorded.
    pub stops: Stops,
    /// How much is recorded without stops.
    pub sight: Sight,
    /// Situations in which earlier attempts of the same update have seen differences; what is met of them is counted.
    pub situations: [Option<u64>; SITUATIONS],
    /// Where the calls of a follower are answered.
    pub answers: Answering,
}

/// Where the leader stops to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stops {
    /// Where what it does cannot be seen without (`record/leading/bulk.rs`). A thread goes on without stops after as many calls
    /// in a row to which nothing odd has happened.
    WhereNeeded { calm: u32 },
    /// At each call.
    AtEachCall,
}

impl Default for Stops {
    fn default() -> Self {
        Stops::WhereNeeded { calm: CALM }
    }
}

/// What a session waits for at the moment, for those who look on.
#[derive(Clone, Debug, Default)]
pub struct Waits(Arc<Mutex<Option<String>>>);

impl Waits {
    /// Returns what it waits for, if it does and that is known.
    #[must_use]
    pub fn read(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says what it waits for.
    pub(crate) fn say(&self, what: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.into());
    }

    /// It waits no more.
    pub(crate) fn over(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn default_pause_limit() -> Duration {
    Duration::from_millis(100)
}

fn default_apply_timeout() -> Duration {
    Duration::from_secs(30)
}

impl Default for Options {
    fn default() -> Self {
        Options {
            log_memory: 512 << 20,
            log_disk: 4 << 30,
            spill_dir: PathBuf::from("/var/lib/mvedsua/spill"),
            on_full: OnFull::Rollback,
            on_parting: OnParting::Rollback,
            interleaving: Interleaving::default(),
            lockstep: false,
            hang_timeout: Duration::from_secs(5),
            pause_limit: default_pause_limit(),
            change: Change::itself(),
            apply_timeout: default_apply_timeout(),
            step_timeout: Duration::from_secs(5),
            rules: None,
            record: None,
            waits: Waits::default(),
            stops: Stops::default(),
            sight: Sight::default(),
            situations: Default::default(),
            answers: Answering::default(),
        }
    }
}

/// One of the two versions of an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    #[default]
    Old,
    New,
}

/// How a version that led came to its end, which the other version did not share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Death {
    /// It was about to be ended by this signal.
    Signal(i32),
    /// It was about to end with this status.
    Exit(i32),
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Death::Signal(signo) => write!(f, "crashed (signal {signo})"),
            Death::Exit(status) => write!(f, "ended by itself (exit code {status})"),
        }
    }
}

/// A request to a running session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make the follower the leader (t4). Answered by `Promoted` or `PromotionAbandoned`.
    Promote,
    /// End the old version (t6). Answered by `Confirmed`.
    Confirm,
    /// Undo: kill the follower before promotion, move the service back after it. Answered by `RolledBack`.
    Rollback { reason: String },
}

/// Evidence and progress, as often as a few times a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Records written by the leader's recorder.
    pub recorded: u64,
    /// Records that the follower has lived through.
    pub replayed: u64,
    /// Calls whose arguments were compared.
    pub compared_calls: u64,
    /// Outputs (class `Compare`) whose payload was compared.
    pub compared_outputs: u64,
    /// Bytes of payload that were compared.
    pub compared_bytes: u64,
    /// Records that the follower has not lived through yet.
    pub backlog: u64,
    /// Bytes of memory and of disk that the log holds.
    pub log_memory: u64,
    pub log_disk: u64,
    /// Times that the total order was relaxed to let the follower go on.
    pub relaxed: u64,
    /// How long the leader is held back for each record at the moment, microseconds; 0 unless the follower must come close.
    #[serde(default)]
    pub held_back_us: u64,
    /// How long it was held back in all, microseconds.
    #[serde(default)]
    pub held_back_total_us: u64,
    /// Calls that were recorded without a stop.
    #[serde(default)]
    pub without_stops: u64,
    /// Calls of the follower that were answered without a stop, and why others were not.
    #[serde(default)]
    pub answered: Answered,
    /// How often each of [`super::Options::situations`] was met without a difference.
    #[serde(default)]
    pub met_again: [u32; SITUATIONS],
    /// What being recorded costs the leader.
    #[serde(default)]
    pub toll: Toll,
}

/// Why an update ended without success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The preflight, or a step before the fork, refused it. Each reason is for the operator.
    Refused(Vec<String>),
    /// The follower parted from the leader (which includes its crash, its hang, a gap and a refused call).
    Diverged(Box<Divergence>),
    /// The log's budgets are used up under [`OnFull::Rollback`].
    LogFull(String),
    /// The memory that both versions share runs short; the text says whose.
    MemoryShort(String),
    /// A bounded wait ran out; the text says what was waited for.
    TimedOut(String),
    /// The target ended by itself; the text says how.
    TargetGone(String),
    /// The new version could not be applied; the follower says why.
    NotApplied(String),
    /// The operator or the policy asked for it.
    Asked(String),
    /// Something that the leader did was lost before it was recorded; the text says what.
    Lost(String),
    /// A fault of the engine or the kernel refused an operation.
    Engine(String),
    /// The other version's image was put in place, and not all of it went as it should: the service may be harmed.
    Harmed(String),
}

/// What a session reports. Every session ends with exactly one of `RolledBack`, `Confirmed`, `TargetEnded`.
#[expect(clippy::large_enum_variant, reason = "nearly all events tell of progress")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionEvent {
    /// t1: the follower is born; `pause_us` is how long the leader stood still.
    Forked {
        leader: i32,
        follower: i32,
        threads: u32,
        pause_us: u64,
    },
    /// t2: the new version is applied in the follower.
    Applied,
    /// t3: the backlog is worked off but for what is on the way.
    CaughtUp,
    Progress(Counters),
    /// The update failed; the session undoes it by itself and `RolledBack` follows.
    Failed(FailureKind),
    /// t4 to t5: the new version leads, in the same process. `moved` is how many bytes of memory that took, and `pause_us` how
    /// long neither version served.
    Promoted {
        leader: i32,
        follower: i32,
        moved: u64,
        pause_us: u64,
    },
    /// The promotion was given up before its last step and the stage is as before.
    PromotionAbandoned {
        reason: String,
    },
    /// The version that led came to its end and the other one took over from there, in the same process; only that one is left.
    TookOver {
        leader: i32,
        death: Death,
    },
    /// t6: the old version has ended and the new one runs alone, untraced.
    Confirmed {
        leader: i32,
    },
    /// The old version runs alone, untraced.
    RolledBack {
        leader: i32,
    },
    /// Nothing is left to update: the leader ended by itself.
    TargetEnded {
        status: String,
    },
}
