//! A process that is traced, whatever its role: its threads by slot, what was changed in it, and how it is put back.
//!
//! [`process`] is the process and the stopping of its threads, [`slots`] its threads by slot, [`rings`] where they are told the
//! time, [`program`] the beginning of a program, [`driver`] the thread that traces, [`loaded`] what was loaded into it, [`ghosts`]
//! children that leave.
#![warn(clippy::wildcard_enum_match_arm)]

pub(crate) mod driver;
pub(crate) mod ghosts;
pub(crate) mod loaded;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod rings;
pub(crate) mod slots;

use serde::{Deserialize, Serialize};

/// Pairs a thread of the leader with the thread of the follower that lives through the same records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u32);
