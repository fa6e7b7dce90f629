//! The replayer: makes the follower live through the leader's records.
//!
//! [`following`] drives the follower's threads under `PTRACE_SYSEMU`: each call stops before it is executed, and then is
//! answered from the log, or made for real where the table says `Local`. What is done about a call and a record the matcher
//! decides ([`crate::matcher`]); here it is carried out. [`epoll`] translates what each version registered with its epoll sets;
//! [`objects`] knows which calls concern the same thing; [`proc_self`] is about what a process reads of itself; [`situations`]
//! tells where a difference is looked for again; [`own`] says what a follower may do while it applies a new version.
//!
//! Nobody who stands above is known here: whoever wants to hear what a follower has to say is a [`Listener`].
#![warn(clippy::wildcard_enum_match_arm)]

pub(crate) mod epoll;
pub(crate) mod following;
pub(crate) mod objects;
mod own;
mod proc_self;
pub(crate) mod situations;
mod sockets;

use crate::compare::Divergence;

/// What a follower has to say.
#[derive(Debug)]
pub(crate) enum Message {
    /// Every thread stands where its twin is held.
    Drained,
    /// It cannot take over from a leader that has crashed: it is about to end like it.
    Faulted,
    /// It is close behind for the first time.
    CaughtUp,
    /// It has applied the new version.
    Applied,
    /// It says why it cannot apply the new version.
    NotApplied { reason: String, may_help_to_retry: bool },
    /// It has parted from the leader.
    Diverged(Box<Divergence>),
    /// Its thread has had a fault, as its twin has.
    FaultShared,
    /// Its thread has done all that its twin did up to the fault, and had none.
    FaultAlone,
    /// It has come to the call that ends the leader.
    EndAgreed,
}

/// Whoever is told.
pub(crate) trait Listener: std::fmt::Debug + Send {
    fn hear(&self, message: Message);
}
