//! Compares two versions of an ELF file, as a distribution ships them, and says whether a process that runs the old
//! one can go on with the new one's code and its own data.
//!
//! Nothing but the two files is needed: no sources, no debug information, no symbols. Where there is debug information,
//! [`proof::prove`] finds out whether what was inferred is true. The comparison is pure: bytes
//! in, a [`Comparison`] out; the same files give the same answer, and damaged files give an error. Nothing here
//! touches a process.
//!
//! ```text
//!  image ──► functions ──► normalise ──► side          one file: layout, ranges, bodies, references
//!                                          │
//!                  old side, new side ──► matching     which function is which (align: instructions beside each other)
//!                                          │
//!                                       binding        which object is which, by how many witnesses
//!                                          │
//!                       data, classes (layout, numbers) what differs, and what that says (transform: what a hook answers for)
//!                                          │
//!                                       verdict ──► report, listing
//!                                          │
//!                                        patch           what a process has to load and to change
//!                                          │
//!               debug, symbols ──► shown, proof          with the debug files of both: what else is known, and is it true?
//! ```
//!
//! A wrong "can be updated" is the worst outcome: whatever is not understood is a reason to refuse.

#![forbid(unsafe_code)]

pub mod align;
pub mod binding;
pub mod classes;
pub mod constants;
pub mod data;
pub mod debug;
mod exceptions;
pub mod functions;
pub mod hooks;
pub mod image;
pub mod layout;
pub mod listing;
pub mod matching;
pub mod normalise;
pub mod numbers;
pub mod patch;
pub mod proof;
pub mod reason;
pub mod report;
pub mod shown;
pub mod side;
pub mod symbols;
pub mod texts;
pub mod transform;
pub mod verdict;

use self::binding::Bindings;
use self::classes::Fates;
use self::data::Data;
use self::image::ReadError;
use self::matching::Matching;
use self::patch::Patch;
use self::proof::Proof;
use self::reason::Reason;
use self::shown::Shown;
use self::side::Side;
use self::transform::Transform;
use self::verdict::{Evidence, Verdict};

pub use self::report::Report;

/// Why two files could not be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    #[error("the old file cannot be compared: {0}")]
    Old(#[source] ReadError),
    #[error("the new file cannot be compared: {0}")]
    New(#[source] ReadError),
}

/// Two files, and all that the comparison found.
#[derive(Debug)]
pub struct Comparison<'d> {
    pub old: Side<'d>,
    pub new: Side<'d>,
    pub matching: Matching,
    pub bindings: Bindings,
    pub data: Data,
    pub fates: Fates,
    pub verdict: Verdict,
    /// What a process has to load and to change; nothing where the update is refused.
    pub patch: Option<Patch>,
    /// What a hook converts.
    pub transforms: Vec<Transform>,
    /// What debug files have shown beyond what the two files tell.
    pub shown: Shown,
    /// What debug files say of it, where it was asked for.
    pub proof: Option<Proof>,
}

/// What a comparison takes for given besides the two files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'g> {
    /// What a hook converts.
    pub transforms: &'g [Transform],
    /// What debug files have shown; see [`proof::prove`].
    pub shown: Option<&'g Shown>,
}

/// Compares two files.
///
/// # Errors
///
/// One of the files is no ELF file for x86-64 that can be loaded, is damaged, or lacks sections or unwind information.
pub fn compare<'d>(old: &'d [u8], new: &'d [u8]) -> Result<Comparison<'d>, CompareError> {
    compare_with(old, new, Given::default())
}

/// Compares two files of which more is known.
///
/// # Errors
///
/// As [`compare`]. That an object cannot be converted is a reason of the verdict.
pub fn compare_with<'d>(old: &'d [u8], new: &'d [u8], given: Given<'_>) -> Result<Comparison<'d>, CompareError> {
    let old = Side::read(old).map_err(CompareError::Old)?;
    let new = Side::read(new).map_err(CompareError::New)?;
    let matching = matching::run(&old, &new);
    let bindings = binding::bind(&old, &new, &matching);
    let data = data::compare(&old, &new, &matching, &bindings, given.transforms);
    let fates = classes::classify(&old, &new, &matching, &bindings, &data);
    let mut comparison = Comparison {
        old,
        new,
        matching,
        bindings,
        data,
        fates,
        verdict: Verdict::Refused { reasons: vec![] },
        patch: None,
        transforms: given.transforms.to_vec(),
        shown: given.shown.cloned().unwrap_or_default(),
        proof: None,
    };
    comparison.judge();
    Ok(comparison)
}

impl<'d> Comparison<'d> {
    /// Says whether the update can be done, as far as is known now, and makes the patch of it.
    pub(crate) fn judge(&mut self) {
        self.patch = None;
        self.verdict = verdict::judge(&self.evidence());
        if let Verdict::Updatable { .. } = self.verdict {
            match patch::build(self) {
                Ok(patch) => self.patch = Some(patch),
                Err(reasons) => self.verdict = Verdict::Refused { reasons },
            }
        }
    }

    /// Takes back that the update can be done.
    pub(crate) fn refuse(&mut self, reasons: Vec<Reason>) {
        self.shown = Shown::default();
        self.verdict = Verdict::Refused { reasons };
        self.patch = None;
    }

    pub(crate) fn evidence(&self) -> Evidence<'_, 'd> {
        Evidence {
            old: &self.old,
            new: &self.new,
            matching: &self.matching,
            bindings: &self.bindings,
            data: &self.data,
            fates: &self.fates,
            transforms: &self.transforms,
            shown: &self.shown,
        }
    }
}
