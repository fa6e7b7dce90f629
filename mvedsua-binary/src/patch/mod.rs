//! What has to be loaded beside the old file, and what has to be changed in it, so that a process runs the new one.
//!
//! The new file keeps its layout: everything that is loaded of it lies at the distances from each other that the
//! linker gave it, with holes where nothing is needed. So jumps within a function, tables of jumps, the tables of
//! exceptions and what code refers to of its own file need no correction. What is corrected:
//!
//! - calls of functions that did not change lead to the old ones;
//! - what refers to an object that exists refers to the old object;
//! - the address of a function that exists is the old one's, so that comparisons of pointers go on to hold;
//! - slots (GOT) hold what the old file's slots hold.
//!
//! The old versions of the functions that are loaded get a jump at their start. Where nothing is loaded in a page with
//! code, `int3` stands.
//!
//! Nothing here knows where either file lies in a process: a [`Fixup`] names places, and [`Patch::resolve`] makes
//! bytes of it once both places are known.
//!
//! A file with fixed addresses is loaded at other ones. Its code and its constants hold addresses, of which those that
//! lead to what is loaded are corrected, too.

mod arrays;
mod builder;
mod frames;
mod goals;
mod jumps;
mod pages;
#[cfg(test)]
mod tests;
mod verify;

use std::ops::Range;

pub(crate) use self::builder::build;
pub use self::verify::{Fault, Verified, verify};

/// Bytes of a page of memory.
pub const PAGE: u64 = 4096;
/// Jumps and operands reach so far in either direction.
pub const REACH: u64 = 1 << 31;
/// Bytes of the jump at the start of an old function.
pub const JUMP: usize = 5;

/// What a process needs to go from one file to another.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Patch {
    /// What the old file takes in memory, by its own addresses.
    pub old: Range<u64>,
    /// What is loaded of the new file, by its own addresses; whole pages.
    pub new: Range<u64>,
    /// Whole pages that do not overlap, by address.
    pub segments: Vec<Segment>,
    /// What stands in segments and depends on where the files lie.
    pub fixups: Vec<Fixup>,
    /// Read-only objects of other files of which the new file has copies (COPY relocations), and the old one had none.
    pub copies: Vec<Copied>,
    /// Old functions that get a jump.
    pub jumps: Vec<Jump>,
    /// What of the new code was loaded.
    pub functions: Vec<Loaded>,
    /// Old code that must not be running, nor be returned to, when the jumps are written: functions, or the places of jumps.
    pub replaced: Vec<Range<u64>>,
    /// Both files have fixed addresses: what is loaded must lie below 2 GiB.
    pub is_low: bool,
    /// Where the unwind information of the new code starts.
    pub frames: Option<u64>,
    /// Writable objects that only the new version has: they start with the values of the file.
    pub fresh: usize,
}

/// What may be done with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Protection {
    Constant,
    Code,
    Data,
}

/// Some pages of the new file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Segment {
    pub start: u64,
    pub protection: Protection,
    pub bytes: Vec<u8>,
}

/// What a corrected place leads to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Goal {
    /// An address of the old file.
    Old(u64),
    /// An address of the new file, which is loaded.
    New(u64),
    /// What the word at this address of the old file holds in the process, and a number that is added.
    Held(u64, i64),
    /// A symbol of another file, which the old one did not use, and a number that is added.
    Symbol(String, i64),
}

/// How a corrected place is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Form {
    /// Four bytes: the distance from this address of the new file.
    Distance(u64),
    /// Eight bytes: the address.
    Address,
    /// Four bytes: the address, in a file with fixed addresses.
    Short,
}

/// One place that depends on where the files lie.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fixup {
    /// An address of the new file.
    pub at: u64,
    pub form: Form,
    pub goal: Goal,
}

/// One read-only object of another file that is copied.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Copied {
    /// Where to, in the new file.
    pub at: u64,
    pub symbol: String,
    /// Bytes.
    pub len: u64,
}

/// One old function that goes on in the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Jump {
    /// Where the jump stands, in the old file: the function's start, or behind its `endbr64`.
    pub at: u64,
    /// The new function's start, in the new file.
    pub to: u64,
    /// What the old file holds there.
    pub before: [u8; JUMP],
}

/// One function of the new file that is loaded.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Loaded {
    pub name: String,
    pub range: Range<u64>,
}

/// Why a distance cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{from:#x} and {to:#x} are too far apart for a jump")]
pub struct TooFar {
    pub from: u64,
    pub to: u64,
}

/// Returns the four bytes of a distance.
///
/// # Errors
///
/// Where it is 2 GiB or more.
pub fn distance(from: u64, to: u64) -> Result<[u8; 4], TooFar> {
    let distance = to.wrapping_sub(from).cast_signed();
    i32::try_from(distance).map(i32::to_le_bytes).map_err(|_| TooFar { from, to })
}

impl Patch {
    /// Returns the symbols of other files that the old file did not use.
    pub fn new_symbols(&self) -> impl Iterator<Item = &str> {
        let named = self.fixups.iter().filter_map(|fixup| match &fixup.goal {
            Goal::Symbol(name, _) => Some(name.as_str()),
            Goal::Old(_) | Goal::New(_) | Goal::Held(..) => None,
        });
        named.chain(self.copies.iter().map(|copied| copied.symbol.as_str()))
    }

    /// Says whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Returns the bytes of a place in memory, where `new` is what is added to addresses of the new file, and `goal`
    /// is where the place leads to.
    ///
    /// # Errors
    ///
    /// Where the two are too far apart.
    pub fn resolve(fixup: &Fixup, new: u64, goal: u64) -> Result<Vec<u8>, TooFar> {
        match fixup.form {
            Form::Distance(from) => distance(from.wrapping_add(new), goal).map(|bytes| bytes.to_vec()),
            Form::Address => Ok(goal.to_le_bytes().to_vec()),
            // Some are extended with zeros and some with their sign: below 2 GiB that is the same.
            Form::Short => distance(0, goal).map(|bytes| bytes.to_vec()),
        }
    }

    /// Returns the bytes of a jump, where `old` and `new` are what is added to addresses of either file.
    ///
    /// # Errors
    ///
    /// Where the two are too far apart.
    pub fn jump(jump: &Jump, old: u64, new: u64) -> Result<[u8; JUMP], TooFar> {
        const JMP: u8 = 0xe9;
        let from = jump.at.wrapping_add(old).wrapping_add(JUMP as u64);
        let [a, b, c, d] = distance(from, jump.to.wrapping_add(new))?;
        Ok([JMP, a, b, c, d])
    }
}
