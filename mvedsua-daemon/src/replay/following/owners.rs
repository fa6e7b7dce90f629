//! What is known of a process that follows, by what it is about.

use super::*;

/// What was lived through.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) trail: Trail,
    /// What each thread of the leader has been told last.
    pub(super) situations: Situations,
    /// There were several threads at once.
    pub(super) has_threads: bool,
    /// Threads have run one by one, but for some that ran beside each other.
    pub(super) unordered: bool,
}

impl Past {
    pub(super) fn new(sought: [Option<u64>; SITUATIONS], has_threads: bool, unordered: bool) -> Past {
        Past { trail: Trail::default(), situations: Situations::new(sought), has_threads, unordered }
    }
}

/// What stands for what in the two versions.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// What the leader's descriptors stand for.
    pub(super) objects: Objects,
    pub(super) registrations: Registrations,
    /// Where the follower has its copies of mapped files.
    pub(super) copies: copies::Copies,
    pub(super) own_files: OwnFiles,
    pub(super) times: LastTimes,
    pub(super) timers: owned::Timers,
}

/// How long nothing has moved, and what has run meanwhile.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) moved: Instant,
    /// When something had moved last, and the processor time that the leader had used then.
    pub(super) leader_used: Option<(Instant, Duration)>,
    /// The processor time that the follower had used when it was looked at first after something had moved at that instant.
    pub(super) used: Option<(Instant, Duration)>,
    /// When it was first seen that the leader has ended and told everything, nanoseconds of its `CLOCK_MONOTONIC`.
    pub(super) over: Option<u64>,
    /// When the leader had the last result that was given to the follower, nanoseconds of its `CLOCK_MONOTONIC`.
    pub(super) lived_until: u64,
    /// The record that is due first, and since when.
    pub(super) first_due: Option<(Seq, Instant)>,
}

impl Waiting {
    pub(super) fn new(now: Instant, lived_until: u64) -> Waiting {
        Waiting { moved: now, leader_used: None, used: None, over: None, lived_until, first_due: None }
    }
}

/// Threads and processes that come and go.
#[derive(Debug, Default)]
pub(super) struct Kin {
    /// Threads that have come to their first stops and have no places yet.
    pub(super) orphans: Vec<Tid>,
    /// Threads that ended and may have records still.
    pub(super) gone: BTreeSet<Slot>,
    /// Children that were made and that nobody has taken over yet.
    pub(super) births: Vec<processes::Birth>,
    /// Where processes are paired: those of the leader whose twins have not come to their ends yet.
    pub(super) living: Option<Living>,
    /// How the process ended, once it has lived through the whole of its stream.
    pub(super) finished: Option<Ending>,
    /// The whole process is ending, as the leader's did.
    pub(super) leaving: bool,
}
