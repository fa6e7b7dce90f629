//! Promotion: the follower takes over what the kernel holds for the leader.
//!
//! One transaction that can be abandoned until its last step:
//!
//! 1. every thread of both versions stands before the same call ([`crate::record::leading`] holds, the replayer drains);
//! 2. [`transfer`] copies the leader's descriptors into the follower, under the same numbers, and what else fork does not
//!    carry; [`state`], [`timers`], [`locks`], [`pending`], [`scheduling`] and [`bound`] carry limits, masks, timers, record
//!    locks, waiting signals, priorities, and what is bound to a process through a descriptor;
//! 3. [`swap`] puts the threads of both at their gates and stores one word: from that instant the other version is the one
//!    that lives on if the daemon dies;
//! 4. the old version's descriptors are closed and the roles change.

pub(crate) mod bound;
pub(crate) mod locks;
pub(crate) mod pending;
pub(crate) mod scheduling;
pub(crate) mod state;
pub(crate) mod swap;
pub(crate) mod timers;
pub(crate) mod transfer;
