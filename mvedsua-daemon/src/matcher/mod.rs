//! The matcher: what a follower's call and the leader's record mean for each other.
//!
//! ```text
//!  records ──► Due ──┐
//!                    ├──► step ──► judge ──► compare ──► what is to be done ──► replay
//!  call, phase ──────┘
//! ```
//!
//! Nothing here touches a process. A call is a value, a thread's place is a [`Phase`], and every answer is a value that the
//! replayer ([`crate::replay`]) carries out. So all of it is tried with followers that are simulated (`tests`).
//!
//! - [`due`]: the records that were taken from the log and not yet answered.
//! - [`drive`]: which of them is answered next, and which thread goes on; [`schedule`] says whose turn it is.
//! - [`mod@step`]: what a thread's next record asks for, by the place where the thread is.
//! - [`tolerances`]: where a call and a record that are not the same are no difference, in their order.
//! - [`readiness`]: whether a thread stands where its twin is held, for a change of roles.
//! - [`pouring`] finds the place for what the leader got.
//! - [`elastic`] and [`names`] know the calls that tolerances are about.
#![warn(clippy::wildcard_enum_match_arm)]

pub(crate) mod drive;
pub(crate) mod due;
pub(crate) mod elastic;
pub(crate) mod names;
pub(crate) mod pouring;
pub(crate) mod readiness;
pub(crate) mod schedule;
pub(crate) mod step;
#[cfg(test)]
mod tests;
pub(crate) mod tolerances;

use std::time::Instant;

use mvedsua_common::syscalls::{self, Ordering as Role, Pairing, Row};

use crate::compare::{self, Actual, DivergenceKind, Evidence, Input};
use crate::record::interleaving::Interleaving;
use crate::record::{CallEntry, Piece};

/// A call that a thread of the follower is about to make.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) nr: u32,
    pub(crate) args: [u64; 6],
    pub(crate) row: Option<&'static Row>,
    pub(crate) inputs: Vec<Piece>,
    /// When the thread came to it.
    pub(crate) since: Instant,
}

impl Call {
    pub(crate) fn inputs(&self) -> Vec<Input<'_>> {
        self.inputs.iter().map(|piece| Input { arg: piece.arg, part: piece.part, bytes: &piece.bytes }).collect()
    }
}

/// Compares a call with that of a record.
pub(crate) fn compare_call(call: &Call, expected: &CallEntry) -> Result<Evidence, DivergenceKind> {
    let Some(row) = call.row else {
        let name = syscalls::name(call.nr).unwrap_or("an unknown call").to_owned();
        return Err(DivergenceKind::Refused { call: name, reason: "the table has no row for it".into() });
    };
    compare::entry(row, expected, &Actual { nr: call.nr, args: call.args, inputs: &call.inputs() })
}

/// Where a thread of the follower is, as far as it matters to its next record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase<'a> {
    /// In user code.
    Computes,
    /// In or after a call that each version makes for itself.
    InOwnCall(u32),
    /// At a call that is answered from a record.
    AtCall(&'a Call),
    /// In a call whose entry was compared, and whose return is to come.
    Entered,
    /// Makes a call for real.
    Makes(Making),
    /// Has come upon a fault that ends it, unless its twin has the same.
    Faulted(&'a DivergenceKind),
    /// Stands rewound, for a change of roles.
    Parked,
}

/// What a thread that makes a call for real makes it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Making {
    /// It is each version's own business.
    Own,
    /// It makes a thread.
    Thread(Child, Progress),
    /// It makes a process.
    Process(Progress),
    /// It executes another program.
    Program,
    /// Its result is the leader's.
    Alike,
    /// It maps memory where the leader mapped a file.
    Mapping,
    /// It applies a new version.
    Update,
    /// It waits for a signal that it lets in for the time of one call.
    Suspension,
    /// It ends.
    End,
}

/// Where the thread is that another makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Child {
    /// It is not made yet.
    Awaited,
    /// It is made, and has not come to its first stop.
    Announced,
    /// It stands at its first stop.
    Here,
    /// It lives through records of its own.
    Adopted,
}

/// Whether a call that is made for real has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    UnderWay,
    Returned,
}

/// Knows the calls whose order among threads is recorded, although each version would make them for itself.
#[derive(Clone, Copy)]
pub(crate) struct Orders<'a> {
    pub(crate) interleaving: Interleaving,
    pub(crate) pairing: Pairing,
    pub(crate) leaders: &'a dyn Leaders,
}

/// Knows what the leader's threads are called.
pub(crate) trait Leaders {
    fn has(&self, tid: i32) -> bool;
}

impl Orders<'_> {
    /// Returns the row of such a call, and what it is to other threads.
    pub(crate) fn of(&self, nr: u32, args: &[u64; 6]) -> Option<(&'static Row, Role)> {
        self.interleaving.ordered(self.pairing, nr, args, |tid| self.leaders.has(tid))
    }

    fn role(&self, nr: u32, args: &[u64; 6]) -> Option<Role> {
        self.of(nr, args).map(|(_, role)| role)
    }

    fn is_one_by_one(&self) -> bool {
        self.interleaving == Interleaving::OneByOne
    }
}
