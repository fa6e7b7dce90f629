//! What moves between two processes when a follower goes on in the place of a leader that crashed under `mvedsuad run`.
//!
//! There the programs differ, and so do their addresses. [`transfer`] copies the leader's descriptors into the follower, under
//! the same numbers, and what else fork does not carry; [`state`], [`timers`], [`locks`], [`pending`], [`scheduling`] and
//! [`bound`] carry limits, masks, timers, record locks, waiting signals, priorities, and what is bound to a process through a
//! descriptor. An update moves nothing of this: there the process stays, and the memory moves ([`crate::image`]).

pub(crate) mod bound;
pub(crate) mod locks;
pub(crate) mod pending;
pub(crate) mod scheduling;
pub(crate) mod state;
pub(crate) mod swap;
pub(crate) mod timers;
pub(crate) mod transfer;
