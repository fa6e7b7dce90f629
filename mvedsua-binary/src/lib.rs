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
//!                     debug, symbols ──► proof           with the debug files of both: is it true?
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
    /// What debug files say of it, where it was asked for.
    pub proof: Option<Proof>,
}

/// Compares two files.
///
/// # Errors
///
/// One of the files is no ELF file for x86-64 that can be loaded, is damaged, or lacks sections or unwind information.
pub fn compare<'d>(old: &'d [u8], new: &'d [u8]) -> Result<Comparison<'d>, CompareError> {
    compare_with(old, new, &[])
}

/// Compares two files of which a hook converts some objects.
///
/// # Errors
///
/// As [`compare`]. That an object cannot be converted is a reason of the verdict.
pub fn compare_with<'d>(
    old: &'d [u8],
    new: &'d [u8],
    transforms: &[Transform],
) -> Result<Comparison<'d>, CompareError> {
    let old = Side::read(old).map_err(CompareError::Old)?;
    let new = Side::read(new).map_err(CompareError::New)?;
    let matching = matching::run(&old, &new);
    let bindings = binding::bind(&old, &new, &matching);
    let data = data::compare(&old, &new, &matching, &bindings, transforms);
    let fates = classes::classify(&old, &new, &matching, &bindings, &data);
    let evidence = Evidence {
        old: &old,
        new: &new,
        matching: &matching,
        bindings: &bindings,
        data: &data,
        fates: &fates,
        transforms,
    };
    let verdict = verdict::judge(&evidence);
    let transforms = transforms.to_vec();
    let mut comparison =
        Comparison { old, new, matching, bindings, data, fates, verdict, patch: None, transforms, proof: None };
    if let Verdict::Updatable { .. } = comparison.verdict {
        match patch::build(&comparison) {
            Ok(patch) => comparison.patch = Some(patch),
            Err(reasons) => comparison.verdict = Verdict::Refused { reasons },
        }
    }
    Ok(comparison)
}
