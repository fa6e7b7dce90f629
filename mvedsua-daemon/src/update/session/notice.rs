//! What is reported to a session.

use super::*;

/// What tracer threads report to their session.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Every thread of the leader stands where versions can be changed.
    Held,
    /// Every thread of the follower stands where its twin is held.
    Drained,
    /// The follower cannot take over from a leader that has crashed: it is about to end like it.
    Faulted,
    /// The follower is close behind for the first time.
    CaughtUp,
    /// The follower has applied the new version.
    Applied,
    /// The follower says why it cannot apply the new version.
    NotApplied {
        reason: String,
        may_help_to_retry: bool,
    },
    Diverged(Box<Divergence>),
    /// The log has no room for this reason, and the leader does not wait for any.
    LogFull(String),
    /// The memory that both versions share runs short; said again as long as it does.
    MemoryShort(String),
    /// The leader made a call that cannot be recorded.
    Refused {
        call: String,
        reason: String,
    },
    /// Something that the leader has done is not known.
    Lost(String),
    /// A thread of the leader is held before a signal that would end it.
    LeaderCrashed {
        signo: i32,
    },
    /// A thread of the leader handles a fault of its own, with this signal, and is held before the first call that it makes by that.
    LeaderHandles {
        slot: Slot,
        signo: i32,
    },
    /// The follower's thread has had a fault, too.
    FaultShared,
    /// The follower's thread has done all that its twin did up to the fault, and had none.
    FaultAlone,
    /// A thread of the leader is held before the call that would end the process, with this status.
    LeaderEnds {
        status: i32,
    },
    /// The follower has come to the call that ends the leader.
    EndAgreed,
    LeaderEnded {
        status: String,
    },
    /// A request to the kernel failed.
    Broken {
        tid: Tid,
        error: String,
    },
}
