//! One update: from the fork to the confirmation or the rollback.
//!
//! The engine (tracer threads, recorder, replayer, promotion) is reached through [`Session`] alone: commands go in,
//! [`SessionEvent`]s come out. What is above (lifecycle, control plane) knows neither ptrace nor which recorder or
//! replayer is in use.

pub mod binary;
pub(crate) mod birth;
mod cgroups;
pub(crate) mod descriptors;
mod events;
pub(crate) mod inplace;
mod memory_limit;
pub(crate) mod method;
pub mod preflight;
pub(crate) mod process;
mod recover;
pub(crate) mod rings;
pub(crate) mod session;
mod shared;
pub(crate) mod slots;
pub(crate) mod tracer;
mod uncopied;

pub use events::{
    Change, Command, Counters, Death, FailureKind, OnFull, OnParting, Options, SITUATIONS, SessionEvent, Stops, Waits,
    Which,
};
pub use inplace::check as check_cooperation;
pub use recover::{Recovered, recover};
pub use session::Session;
