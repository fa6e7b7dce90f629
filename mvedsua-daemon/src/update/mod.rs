//! One update: from the fork to the confirmation or the rollback.
//!
//! The engine (tracer threads, recorder, replayer, promotion) is reached through [`Session`] alone: commands go in,
//! [`SessionEvent`]s come out. What is above (lifecycle, control plane) knows neither ptrace nor which recorder or
//! replayer is in use.
#![warn(clippy::wildcard_enum_match_arm)]

pub mod binary;
pub(crate) mod birth;
mod cgroups;
pub(crate) mod descriptors;
mod events;
pub(crate) mod inplace;
mod memory_limit;
pub(crate) mod method;
mod notices;
pub mod preflight;
mod recover;
pub(crate) mod session;
mod shared;
pub(crate) mod ticket;
pub(crate) mod tracer;
mod uncopied;

pub use crate::replay::following::{Answered, Answering, AtStops};
pub use crate::replay::situations::SITUATIONS;
pub(crate) use crate::tracee::{process, rings, slots};
pub use events::{
    Change, Command, Counters, Death, FailureKind, OnFull, OnParting, Options, SessionEvent, Stops, Waits, Which,
};
pub use inplace::check as check_cooperation;
pub use recover::{Recovered, recover};
pub use session::Session;
