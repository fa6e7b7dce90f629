//! The reasons for which an update is refused, each with what an engineer needs to check it.

use std::collections::BTreeMap;
use std::fmt;

use crate::binding::Contradiction;
use crate::data::{Differing, Gap, Resized};

/// A function and a place in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    pub function: String,
    pub old_at: u64,
    pub new_at: u64,
}

/// Why an update is refused.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Reason {
    /// The files are not loaded in the same manner.
    OtherKind { old: String, new: String },
    /// The library has another name for the loader.
    OtherName { old: String, new: String },
    /// The new file asks for libraries that the old one did not ask for.
    NewLibraries { names: Vec<String> },
    /// Thread-local storage is laid out or used in another way.
    ThreadLocal { what: String },
    /// Unchanged code says of an object that it is two different ones.
    Contradictions { count: usize, first: Vec<Contradiction> },
    /// Objects were in another area before.
    OtherArea { count: usize, first: Vec<(u64, u64)> },
    /// An object has another size.
    Resized(Resized),
    /// Objects lie at another distance, and one of them may have grown.
    Grown { count: usize, first: Vec<Gap> },
    /// Fields of structures moved: by how far, in how many places.
    ShiftedFields { places: usize, by: BTreeMap<i64, u32>, first: Vec<(Place, i64, i64)> },
    /// One changed function sets a field that its old version did not set, and another one reads it: old objects were
    /// made without. The distance of the field, who writes it, who reads it.
    NewFields { count: usize, first: Vec<(i64, Place, Place)> },
    /// A number changed that may be a size or a bound.
    ChangedNumber { place: Place, role: String, old: u64, new: u64 },
    /// Data that exists begins with other values.
    InitialValues { count: usize, first: Vec<Differing> },
    /// Code that is new, or changed, uses an address that is neither bound nor shown to be new.
    Unbound { count: usize, first: Vec<(String, u64, u64)> },
    /// Code takes the address of another function than before. Objects that exist may hold the old one.
    OtherCallback { count: usize, first: Vec<Place> },
    /// Something in the code is not understood.
    NotUnderstood { what: String, count: usize, first: Vec<Place> },
    /// Functions are too short for a jump to their new version.
    NoRoom { count: usize, first: Vec<Place> },
    /// What runs once, at the start, changed.
    StartUp { what: Vec<String> },
    /// A function that chooses another one at the start changed.
    Resolver { functions: Vec<String> },
    /// An object that a hook is to convert cannot be converted.
    NotConverted { name: String, why: String },
    /// Debug files say that the two files are not what they seem.
    Disproved { what: Vec<String> },
    /// The versions are too far apart.
    TooMuch { changed: usize, functions: usize },
}

impl Reason {
    /// Says whether symbols may show that this is not so: it says that something is not known.
    #[must_use]
    pub fn may_be_disproved(&self) -> bool {
        matches!(self, Reason::Grown { .. } | Reason::Unbound { .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::OtherKind { old, new } => write!(f, "the old file is a {old}, the new one a {new}"),
            Reason::OtherName { old, new } => write!(f, "the library's name was {old} and is {new}"),
            Reason::NewLibraries { names } => {
                write!(f, "it needs libraries that the old version did not: {}", names.join(", "))
            }
            Reason::ThreadLocal { what } => write!(f, "thread-local storage differs: {what}"),
            Reason::Contradictions { count, first } => {
                write!(f, "unchanged code contradicts itself about {count} objects")?;
                for claim in first.iter().take(2).flat_map(|one| &one.claims).take(4) {
                    write!(
                        f,
                        "; {:#x} is {:#x} ({} places, one at {:#x})",
                        claim.old, claim.new, claim.seen, claim.witness
                    )?;
                }
                Ok(())
            }
            Reason::OtherArea { count, first } => {
                write!(f, "{count} objects were in another section")?;
                first.iter().take(3).try_for_each(|(old, new)| write!(f, "; {old:#x} is {new:#x} now"))
            }
            Reason::Resized(one) => write!(
                f,
                "`{}` was {} bytes at {:#x} and is {} bytes at {:#x}",
                one.name, one.old_size, one.old, one.new_size, one.new
            ),
            Reason::Grown { count, first } => {
                write!(f, "an object may have changed its size, in {count} places")?;
                first.iter().take(3).try_for_each(|gap| {
                    let (a, b) = (gap.below, gap.above);
                    write!(f, "; {:#x} and {:#x} are {:#x} and {:#x} now, {:+} bytes apart", a.0, b.0, a.1, b.1, gap.by)
                })
            }
            Reason::ShiftedFields { places, by, first } => {
                write!(f, "a structure changed its layout: fields moved in {places} places")?;
                let mut by: Vec<_> = by.iter().collect();
                by.sort_by_key(|(distance, count)| (std::cmp::Reverse(**count), **distance));
                by.iter().take(5).try_for_each(|(distance, count)| write!(f, ", {count} by {distance:+}"))?;
                let Some((place, old, new)) = first.first() else { return Ok(()) };
                write!(f, "; in {} at {:#x} {old:#x} is {new:#x} at {:#x}", place.function, place.old_at, place.new_at)
            }
            Reason::NewFields { count, first } => {
                write!(
                    f,
                    "{count} fields may be new: changed code sets and reads them, and old objects were made without"
                )?;
                first.iter().take(3).try_for_each(|(distance, writer, reader)| {
                    let (w, r) = (&writer.function, &reader.function);
                    write!(
                        f,
                        "; at {distance:#x}, set by {w} at {:#x}, read by {r} at {:#x}",
                        writer.new_at, reader.new_at
                    )
                })
            }
            Reason::ChangedNumber { place, role, old, new } => write!(
                f,
                "{role} was {old} and is {new}, in {} at {:#x} and {:#x}",
                place.function, place.old_at, place.new_at
            ),
            Reason::InitialValues { count, first } => {
                write!(f, "{count} initial values of existing data differ")?;
                first.iter().take(3).try_for_each(|one| {
                    write!(f, "; {:#x} in {}: {}, now {}", one.old, one.section, one.before, one.after)
                })
            }
            Reason::Unbound { count, first } => {
                write!(f, "changed code uses {count} addresses that are neither bound nor shown to be new")?;
                first.iter().take(3).try_for_each(|(who, at, what)| write!(f, "; {what:#x} by {who} at {at:#x}"))
            }
            Reason::OtherCallback { count, first } => {
                write!(
                    f,
                    "code takes the address of another function than before, in {count} places; objects may hold the old one"
                )?;
                first.iter().take(3).try_for_each(|place| {
                    write!(f, "; {} at {:#x} and {:#x}", place.function, place.old_at, place.new_at)
                })
            }
            Reason::NotUnderstood { what, count, first } => {
                write!(f, "{what} is not understood, in {count} places")?;
                first
                    .iter()
                    .take(3)
                    .try_for_each(|place| write!(f, "; {} at {:#x}", place.function, place.old_at.max(place.new_at)))
            }
            Reason::NoRoom { count, first } => {
                write!(f, "{count} changed functions have no room for a jump to their new version")?;
                first.iter().take(3).try_for_each(|place| write!(f, "; {} at {:#x}", place.function, place.old_at))
            }
            Reason::StartUp { what } => write!(f, "what runs at the start changed: {}", what.join("; ")),
            Reason::Resolver { functions } => {
                write!(f, "functions that choose others at the start changed: {}", functions.join(", "))
            }
            Reason::NotConverted { name, why } => write!(f, "`{name}`, which a hook is to convert, cannot be: {why}"),
            Reason::Disproved { what } => {
                write!(f, "by the debug files, {}", what.iter().take(4).cloned().collect::<Vec<_>>().join("; "))?;
                let more = what.len().saturating_sub(4);
                if more > 0 { write!(f, "; and {more} more") } else { Ok(()) }
            }
            Reason::TooMuch { changed, functions } => {
                write!(f, "the versions are too far apart: {changed} of {functions} functions changed, came or went")
            }
        }
    }
}
