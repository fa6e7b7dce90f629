//! Checks a patch against the comparison that it was made of, without a process.
//!
//! Both files are laid at places that are made up, everything is corrected as in a process, and the functions that are
//! loaded are decoded from the bytes that come out. Each operand of the new file means something: the operand that
//! stands in its place has to lead there, or to what is the same in the old file. So must each pointer that can be
//! reached from there. Nothing is asked of the builder: the check reads both files again, and has its own rules for what they
//! mean ([`walk`], [`meaning`]).

mod jumps;
mod meaning;
mod operands;
mod unwind;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions};

use self::operands::{Use, operands};
use self::walk::Walk;
use super::{Goal, Patch};
use crate::Comparison;
use crate::classes::Class;
use crate::image::{Area, Written};
use crate::side::Side;

/// What is wrong with a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where: an address of the new file, or of the old one where `why` says so.
    pub at: u64,
    pub why: String,
}

/// What was checked of a patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Operands of loaded functions that lead out of their function or hold an address.
    pub operands: usize,
    /// Pointers that can be reached from there.
    pub pointers: usize,
    pub faults: Vec<Fault>,
}

/// Where the files lie: what is added to addresses of either.
#[derive(Clone, Copy, Debug)]
struct Bases {
    old: u64,
    new: u64,
}

/// Between the two files.
const APART: u64 = 0x100_0000;
/// Where a position-independent file lies.
const SOMEWHERE: u64 = 0x5555_0000_0000;
/// Where symbols of other files lie, each this far from the next one.
const SYMBOLS: u64 = 0x7f00_0000_0000;
const SYMBOL: u64 = 0x100_0000;
/// Where functions lie that others choose (IFUNC), by the address of what chooses them.
const CHOSEN: u64 = 0x7e00_0000_0000;

/// Checks a patch with the new file behind the old one and, where it may lie there, before it.
#[must_use]
pub fn verify(comparison: &Comparison<'_>, patch: &Patch) -> Verified {
    if patch.is_empty() {
        return Verified::default();
    }
    let old = if patch.is_low { 0 } else { SOMEWHERE };
    let behind = (old + patch.old.end + APART).wrapping_sub(patch.new.start);
    let first = check(comparison, patch, Bases { old, new: behind });
    if patch.is_low || !first.faults.is_empty() {
        return first;
    }
    check(comparison, patch, Bases { old, new: (old + patch.old.start - APART).wrapping_sub(patch.new.end) })
}

fn check(comparison: &Comparison<'_>, patch: &Patch, bases: Bases) -> Verified {
    let mut checker = Checker {
        comparison,
        old: &comparison.old,
        new: &comparison.new,
        patch,
        bases,
        loaded: patch.functions.iter().filter_map(|one| comparison.new.function_at(one.range.start)).collect(),
        memory: patch.segments.iter().map(|segment| (segment.start, segment.bytes.clone())).collect(),
        symbols: BTreeMap::new(),
        used: BTreeSet::new(),
        seen: BTreeSet::new(),
        waiting: vec![],
        found: Verified::default(),
    };
    checker.number_symbols();
    checker.correct();
    checker.functions();
    checker.unwind();
    checker.tables();
    checker.jumps();
    checker.rest();
    checker.found
}

struct Checker<'a, 'd> {
    comparison: &'a Comparison<'d>,
    old: &'a Side<'d>,
    new: &'a Side<'d>,
    patch: &'a Patch,
    bases: Bases,
    /// Functions of the new file, by index.
    loaded: BTreeSet<usize>,
    /// The segments with all that is corrected.
    memory: BTreeMap<u64, Vec<u8>>,
    /// Where the symbols of other files lie.
    symbols: BTreeMap<String, u64>,
    /// Fixups whose places something refers to.
    used: BTreeSet<u64>,
    /// Objects, constants and pointers of the new file that were looked at.
    seen: BTreeSet<(u64, usize)>,
    /// Constants and objects that were not yet looked at, with their lengths.
    waiting: Vec<(u64, usize)>,
    found: Verified,
}

impl<'d> Checker<'_, 'd> {
    pub(super) fn fault(&mut self, at: u64, why: impl Into<String>) {
        self.found.faults.push(Fault { at, why: why.into() });
    }

    pub(super) fn number_symbols(&mut self) {
        let relocations = self.old.image.relocations.iter().chain(&self.new.image.relocations);
        for relocation in relocations {
            if let Written::Symbol(name, _) = relocation.written {
                let next = SYMBOLS + self.symbols.len() as u64 * SYMBOL;
                self.symbols.entry(name.to_owned()).or_insert(next);
            }
        }
    }

    pub(super) fn symbol(&self, name: &str, addend: i64) -> Option<u64> {
        self.symbols.get(name).map(|address| address.wrapping_add_signed(addend))
    }

    /// Does what is done in a process.
    pub(super) fn correct(&mut self) {
        for fixup in &self.patch.fixups {
            let goal = match &fixup.goal {
                Goal::Old(address) => Some(address.wrapping_add(self.bases.old)),
                Goal::New(address) => Some(address.wrapping_add(self.bases.new)),
                Goal::Symbol(name, addend) => self.symbol(name, *addend),
                Goal::Held(place, addend) => match self.old.image.pointer_at(*place) {
                    Some(Written::Address(address)) => Some(address.wrapping_add(self.bases.old)),
                    Some(Written::Symbol(name, added)) => self.symbol(name, added),
                    Some(Written::Resolved(address)) => Some(address.wrapping_add(CHOSEN)),
                    Some(Written::Copied(_) | Written::ThreadLocal(..) | Written::Unknown(_)) | None => None,
                }
                .map(|value| value.wrapping_add_signed(*addend)),
            };
            let Some(goal) = goal else {
                self.fault(fixup.at, format!("nobody knows what {:?} is", fixup.goal));
                continue;
            };
            let written = Patch::resolve(fixup, self.bases.new, goal);
            let place = self.memory.range_mut(..=fixup.at).next_back().and_then(|(start, bytes)| {
                let at = usize::try_from(fixup.at - start).ok()?;
                bytes.get_mut(at..at + written.as_ref().map_or(0, Vec::len))
            });
            match (written, place) {
                (Ok(written), Some(place)) => place.copy_from_slice(&written),
                (Err(error), _) => self.fault(fixup.at, error.to_string()),
                (_, None) => self.fault(fixup.at, "what is corrected is not loaded"),
            }
        }
    }

    /// Returns bytes of the new file as they would be in a process.
    pub(super) fn bytes(&self, at: u64, len: usize) -> Option<&[u8]> {
        let (start, bytes) = self.memory.range(..=at).next_back()?;
        let from = usize::try_from(at - start).ok()?;
        bytes.get(from..from.checked_add(len)?)
    }

    pub(super) fn functions(&mut self) {
        for index in self.loaded.clone() {
            self.function(index);
        }
        for fate in &self.comparison.fates.changed {
            let stays = matches!(fate.class, Class::Unchanged | Class::LineNumbers);
            if let (Some(_), Some(new), false) = (fate.old, fate.new, stays)
                && !self.loaded.contains(&new)
            {
                let start = self.new.functions.get(new).map_or(0, |function| function.start);
                self.fault(start, "a function changed and is not loaded");
            }
        }
    }

    /// Compares a function's instructions, and what their operands lead to.
    pub(super) fn function(&mut self, index: usize) {
        let Some(function) = self.new.functions.get(index) else { return };
        let (start, len) = (function.start, function.len());
        let (Some(before), Some(after)) = (self.new.image.bytes_at(start, len), self.bytes(start, len)) else {
            return self.fault(start, "a function is not loaded as a whole");
        };
        let after = after.to_vec();
        let mut read = Decoder::with_ip(64, before, start, DecoderOptions::NONE);
        let mut loaded = Decoder::with_ip(64, &after, start.wrapping_add(self.bases.new), DecoderOptions::NONE);
        let (mut taken, mut walk) = (BTreeMap::new(), Walk::new());
        while read.can_decode() {
            let (one, other) = (read.decode(), loaded.decode());
            let at = one.ip();
            let meant = operands(&self.new.image, &one, &read, None);
            let fields: Vec<_> = meant.iter().map(|operand| operand.field).collect();
            let stands = operands(&self.new.image, &other, &loaded, Some(&fields));
            let from = usize::try_from(at - start).unwrap_or(0);
            let range = from..from + one.len();
            let rest = |bytes: &[u8]| -> Option<Vec<u8>> {
                let mut bytes = bytes.get(range.clone())?.to_vec();
                for (field, len) in &fields {
                    bytes.get_mut(*field..field + len)?.fill(0);
                }
                Some(bytes)
            };
            if rest(before) != rest(&after) || meant.len() != stands.len() || one.code() != other.code() {
                return self.fault(at, "an instruction is another one");
            }
            for (meant, stands) in meant.iter().zip(&stands) {
                self.used.insert(at + meant.field.0 as u64);
                self.found.operands += 1;
                self.leads(at, meant.place, meant.way, stands.place);
                if meant.way == Use::Address {
                    taken.insert(meant.place, stands.place);
                }
            }
            walk.step(&one, &meant);
        }
        self.paths(&walk, start, &taken);
    }

    /// Sees that the start and the end of an array go to the same file, and that tables of jumps lead to what is loaded.
    fn paths(&mut self, walk: &Walk, function: u64, taken: &BTreeMap<u64, u64>) {
        for (start, end) in walk.arrays() {
            let moved = |at: u64| taken.get(&at).map(|to| to.wrapping_sub(at));
            if moved(start) != moved(end) {
                self.fault(function, format!("{start:#x} is gone through up to {end:#x}, and they are torn apart"));
            }
        }
        for jump in walk.jumps.iter().filter(|jump| self.new.image.area_at(jump.table) == Some(Area::Constant)) {
            for index in 0..jump.entries {
                let entry = self.bytes(jump.table + 4 * index, 4).and_then(|bytes| bytes.try_into().ok());
                let Some(distance) = entry.map(i32::from_le_bytes) else { break };
                let place = jump.table.wrapping_add_signed(i64::from(distance));
                let Some(function) = self.new.function_at(place) else { break };
                if !self.loaded.contains(&function) {
                    self.fault(
                        jump.at,
                        format!("entry {index} of the table of jumps at {:#x} leads to what is not loaded", jump.table),
                    );
                    break;
                }
            }
        }
    }
}
