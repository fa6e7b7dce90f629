//! Several versions of a program side by side, from its start to its end: what Varan does.
//!
//! ```text
//!                   streams, one for each process                    supplies results, compares
//!   the leader's ─────────────────────────────────► follower 1 ──► its processes
//!   processes    └────────────────────────────────► follower 2 ──► …
//!    (one tracer thread)                              (one tracer thread each)
//! ```
//!
//! The engine is that of an update: recorder, log, replayer and comparison know nothing of how the follower was born. Three
//! things are different. Nobody was there before, so each version is started under trace and gets what it needs at its
//! `execve` (`tracee/program.rs`); addresses differ from the first instruction on. Processes are paired like threads: each of the leader's
//! has a stream, and its twin in each follower is born when the parent's twin lives through the `fork`. And the end of the
//! program is the end of the run: a follower has followed when it has lived through *every* record, and ended as the leader
//! did.
//!
//! - [`lead`] drives the leader's processes, [`follow`] those of one follower; [`tree`] is what they share;
//! - [`streams`] brings the records from the one to the others;
//! - [`start`] starts the versions, [`run`] hears what happens and says how it ended.

mod conductor;
mod failover;
mod follow;
mod lead;
mod offline;
mod recorder;
mod report;
mod start;
mod streams;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::conductor::run;
pub use self::offline::{NotReplayed, Offline, Replayed, replay};
pub use self::report::{Followed, FollowerEnd, FollowerReport, Report};
use crate::ptrace::launch::{Layout, Program};
pub use crate::record::agreement::Quorum;
use crate::record::interleaving::Interleaving;
use crate::rules::Counts;
use crate::update::OnFull;

/// A version that follows.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its command, for reports.
    pub name: String,
    pub program: Program,
    /// Rules for the differences that are meant.
    pub rules: Option<Arc<Counts>>,
}

/// What becomes of the run when a follower parts from the leader, or fails otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnDivergence {
    /// The follower is dropped; the leader and the others go on.
    #[default]
    Drop,
    /// Everything is ended, the leader too.
    Stop,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub leader: Program,
    pub followers: Vec<Version>,
    pub layout: Layout,
    /// How the program's threads run beside each other.
    pub interleaving: Interleaving,
    /// Where the run is recorded.
    pub record: Option<PathBuf>,
    pub on_divergence: OnDivergence,
    /// Set where the leader's outputs wait for those of its followers.
    pub lockstep: Option<Quorum>,
    /// What happens when a follower's log is full: the follower is dropped, or the leader waits.
    pub on_full: OnFull,
    /// The budgets of the log of each process and follower.
    pub log: crate::log::Config,
    /// How long a follower may be silent although a record waits for it.
    pub hang_timeout: Duration,
}

/// The most followers of a run.
pub const MOST_FOLLOWERS: usize = 6;
