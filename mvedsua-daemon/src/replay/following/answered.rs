//! What the agent has answered, and why it did not answer the rest, for those who look on.

use mvedsua_agent::layout::{MISSES, Miss};
use serde::{Deserialize, Serialize};

/// Calls of the follower, by where they were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Calls that were answered without a stop of the follower.
    pub without_stops: u64,
    /// Calls at rewritten sites that were not: the follower was as far as what was recorded.
    pub empty: u64,
    /// The next record was of another call.
    pub call: u64,
    /// An argument differed.
    pub argument: u64,
    /// The time was asked for more or less often before.
    pub time: u64,
    /// What was given differed.
    pub payload: u64,
    /// There was no room for what was to be given.
    pub room: u64,
    /// What the agent keeps in the follower was written over.
    pub damaged: u64,
    /// Why each call stops, where it does.
    pub at_stops: Option<AtStops>,
}

/// Why each call of the follower is answered at a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AtStops {
    /// It was asked to.
    Asked,
    /// Outputs wait for the follower.
    Lockstep,
    /// The order in which threads run beside each other is found at their stops.
    ThreadsFree,
    /// The versions run side by side.
    SideBySide,
    /// The new version is being applied.
    Applying,
    /// The versions have parted.
    Parted,
    /// The agent found no place in the follower.
    NoPlace,
    /// The processor or the kernel does not let a thread find its memory.
    NoMemory,
}

impl std::fmt::Display for AtStops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            AtStops::Asked => "it is asked to",
            AtStops::Lockstep => "outputs wait for the follower",
            AtStops::ThreadsFree => "threads run beside each other",
            AtStops::SideBySide => "the versions run side by side",
            AtStops::Applying => "the new version is being applied",
            AtStops::Parted => "the versions have parted",
            AtStops::NoPlace => "the agent found no place in the follower",
            AtStops::NoMemory => "a thread cannot find the agent's memory here",
        })
    }
}

impl Answered {
    /// Adds what an agent has counted.
    pub(super) fn add(&mut self, missed: &[u64; MISSES]) {
        let places = [
            (&mut self.empty, Miss::Empty),
            (&mut self.call, Miss::Call),
            (&mut self.argument, Miss::Argument),
            (&mut self.time, Miss::Time),
            (&mut self.payload, Miss::Payload),
            (&mut self.room, Miss::Room),
            (&mut self.damaged, Miss::Damaged),
        ];
        for (place, miss) in places {
            *place += missed[miss as usize];
        }
    }
}
