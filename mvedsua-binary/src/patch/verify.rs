//! Checks a patch against the comparison that it was made of, without a process.
//!
//! Both files are laid at places that are made up, everything is corrected as in a process, and the functions that are
//! loaded are decoded from the bytes that come out. Each operand of the new file means something: the operand that
//! stands in its place has to lead there, or to what is the same in the old file. So must each pointer that can be
//! reached from there. Nothing is asked of the builder: the check reads both files again.

use std::collections::{BTreeMap, BTreeSet};

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, Pointer, UnwindSection as _};
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::{Goal, JUMP, Patch, arrays};
use crate::Comparison;
use crate::classes::Class;
use crate::constants;
use crate::exceptions;
use crate::functions::KnownBy;
use crate::image::{Area, Image, Kind, Scope, Written};
use crate::side::{Side, Target};

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

/// In which manner something is referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It is called or jumped to.
    Run,
    /// So many bytes of it are accessed; zero where that depends.
    Access(usize),
    Address,
}

/// An operand that holds a place.
#[derive(Clone, Copy, Debug)]
struct Operand {
    /// Where it stands in its instruction, and how long it is.
    field: (usize, usize),
    place: u64,
    way: Use,
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
    fn fault(&mut self, at: u64, why: impl Into<String>) {
        self.found.faults.push(Fault { at, why: why.into() });
    }

    fn number_symbols(&mut self) {
        let relocations = self.old.image.relocations.iter().chain(&self.new.image.relocations);
        for relocation in relocations {
            if let Written::Symbol(name, _) = relocation.written {
                let next = SYMBOLS + self.symbols.len() as u64 * SYMBOL;
                self.symbols.entry(name.to_owned()).or_insert(next);
            }
        }
    }

    fn symbol(&self, name: &str, addend: i64) -> Option<u64> {
        self.symbols.get(name).map(|address| address.wrapping_add_signed(addend))
    }

    /// Does what is done in a process.
    fn correct(&mut self) {
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
    fn bytes(&self, at: u64, len: usize) -> Option<&[u8]> {
        let (start, bytes) = self.memory.range(..=at).next_back()?;
        let from = usize::try_from(at - start).ok()?;
        bytes.get(from..from.checked_add(len)?)
    }

    fn functions(&mut self) {
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
    fn function(&mut self, index: usize) {
        let Some(function) = self.new.functions.get(index) else { return };
        let (start, len) = (function.start, function.len());
        let (Some(before), Some(after)) = (self.new.image.bytes_at(start, len), self.bytes(start, len)) else {
            return self.fault(start, "a function is not loaded as a whole");
        };
        let after = after.to_vec();
        let mut read = Decoder::with_ip(64, before, start, DecoderOptions::NONE);
        let mut loaded = Decoder::with_ip(64, &after, start.wrapping_add(self.bases.new), DecoderOptions::NONE);
        let mut taken = BTreeMap::new();
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
                if let (Use::Address, Some(Area::Constant), true) = (
                    meant.way,
                    self.new.image.area_at(meant.place),
                    self.new.bodies.get(index).is_some_and(|body| body.jumps_indirectly),
                ) {
                    self.jump_table(at, meant.place);
                }
            }
        }
        self.arrays(index, start, &taken);
    }

    /// Sees that the start and the end of an array go to the same file.
    fn arrays(&mut self, index: usize, function: u64, taken: &BTreeMap<u64, u64>) {
        for (start, end) in arrays::pairs(self.new, index) {
            let moved = |at: u64| taken.get(&at).map(|to| to.wrapping_sub(at));
            if moved(start) != moved(end) {
                self.fault(
                    function,
                    format!("{start:#x} and {end:#x} may be an array and its end, and are torn apart"),
                );
            }
        }
    }

    fn jump_table(&mut self, at: u64, table: u64) {
        let functions = constants::functions_of_jumps(self.new, table);
        if functions.iter().any(|function| !self.loaded.contains(function)) {
            self.fault(at, "a table of jumps leads to what is not loaded");
        }
    }

    /// Sees that what meant an address of the new file leads to what is the same.
    fn leads(&mut self, at: u64, meant: u64, way: Use, actual: u64) {
        let in_new = actual.wrapping_sub(self.bases.new);
        let in_old = actual.wrapping_sub(self.bases.old);
        let ends = in_new == meant && self.new.image.area_at(meant).is_none();
        let why = if ends {
            // The end of what is loaded: nothing is read there.
            None
        } else if self.patch.new.contains(&in_new) {
            if in_new == meant { self.stays(at, meant, way) } else { Some("it leads to another place that is loaded") }
        } else if self.patch.old.contains(&in_old) {
            self.goes_back(meant, way, in_old)
        } else {
            Some("it leads into neither file")
        };
        if let Some(why) = why {
            self.fault(at, format!("{why}: {meant:#x} {way:?} is {actual:#x} (old {in_old:#x}, new {in_new:#x})"));
        }
    }

    /// Says what is wrong with the use of something that is loaded.
    fn stays(&mut self, at: u64, meant: u64, way: Use) -> Option<&'static str> {
        let extent = |extent: u64| match way {
            Use::Access(size) if size > 0 => size,
            Use::Access(_) | Use::Address | Use::Run => usize::try_from(extent).unwrap_or(0),
        };
        match self.new.image.area_at(meant) {
            Some(Area::Code) => match self.new.code(meant) {
                Target::Code(index, offset) if self.loaded.contains(&(index as usize)) => {
                    let exists = self.comparison.matching.new.get(index as usize).copied().flatten().is_some();
                    (way == Use::Address && offset == 0 && exists).then_some("a known function has another address")
                }
                _ => Some("the function is not loaded"),
            },
            Some(Area::Stubs) => {
                let slot = self.new.image.slot_of_stub(meant)?;
                let len =
                    if self.new.image.stubs.iter().any(|(range, _)| range.end - range.start < 16) { 8 } else { 16 };
                if self.bytes(meant, len) != self.new.image.bytes_at(meant, len) {
                    return Some("the stub is not loaded");
                }
                self.pointer(at, slot);
                None
            }
            Some(Area::Slots) => {
                self.pointer(at, meant);
                None
            }
            // The end of the constants before it, which code compares with.
            Some(Area::Constant) if self.new.image.section_at(meant)?.name == ".eh_frame_hdr" => None,
            Some(Area::Constant) => {
                self.waiting.push((meant, extent(self.new.constant_extent(meant))));
                None
            }
            Some(Area::Relro | Area::Data | Area::Zero) => {
                let known = self.comparison.bindings.old_of(self.old, self.new, meant);
                self.waiting.push((meant, extent(self.new.object_extent(meant))));
                known.filter(|(old, _)| !self.is_replaced(*old)).map(|_| "an object exists twice")
            }
            None => Some("nothing lies there"),
        }
    }

    /// Says what is wrong with the use of something of the old file instead.
    fn goes_back(&self, meant: u64, way: Use, old: u64) -> Option<&'static str> {
        match self.new.image.area_at(meant) {
            Some(Area::Code) => {
                let (Target::Code(f, a), Target::Code(g, b)) = (self.old.code(old), self.new.code(meant)) else {
                    return Some("it leads to code that is not known");
                };
                let found = self.comparison.matching.old.get(f as usize).copied().flatten();
                match found {
                    Some(found) if found.new == g as usize && a == b => {
                        // In its middle there is no jump to the new one.
                        let middle = a > 0 && (!found.equal || self.loaded.contains(&found.new));
                        middle.then_some("it leads into a function that is replaced")
                    }
                    _ => Some("it leads to another function"),
                }
            }
            Some(Area::Stubs) => {
                let (slot, other) = (self.new.image.slot_of_stub(meant)?, self.old.image.slot_of_stub(old));
                let starts = self.old.image.stubs.iter().any(|(range, _)| range.start == old);
                let same = other.is_some_and(|other| self.same(other, slot));
                (!starts || !same).then_some("it leads to another stub")
            }
            Some(Area::Slots) => (!self.same(old, meant)).then_some("the slot is another one"),
            Some(Area::Constant) => {
                let known = self.comparison.bindings.constants.get(&old).is_some_and(|all| all.contains(&meant));
                let equal = way == Use::Address
                    && constants::same_bytes(self.old, old, self.new, meant)
                    && constants::is_compared_to_its_end(self.old, old, self.new, meant);
                (!known || !equal).then_some("the constant is another one")
            }
            Some(Area::Relro | Area::Data | Area::Zero) => {
                let known = self.comparison.bindings.old_of(self.old, self.new, meant).map(|(old, _)| old);
                (known != Some(old) || self.is_replaced(old)).then_some("the object is another one")
            }
            None => match (self.new.resolve(meant).target, self.old.resolve(old).target) {
                (Target::Edge(new, a), Target::Edge(old, b)) if new == old && a == b => None,
                // The end of one section is the start of the next.
                (Target::Edge(name, a), _) => {
                    let ends = self.old.image.sections.iter().any(|one| one.name == name && one.end + a == old);
                    (!ends).then_some("the end is that of another section")
                }
                _ => Some("nothing lies there"),
            },
        }
    }

    /// Says whether a slot of the old file holds what one of the new file holds.
    fn same(&self, old: u64, new: u64) -> bool {
        match (self.old.image.pointer_at(old), self.new.image.pointer_at(new)) {
            (Some(Written::Address(a) | Written::Resolved(a)), Some(Written::Address(b) | Written::Resolved(b))) => {
                self.comparison.matching.corresponds(self.old.code(a), self.new.code(b))
            }
            (a, b) => a.is_some() && a == b,
        }
    }

    /// Says whether an object of the old file has another one of the new file in its place.
    fn is_replaced(&self, old: u64) -> bool {
        let below = self.comparison.data.replaced.range(..=old).next_back();
        below.is_some_and(|start| old < start.saturating_add(self.old.object_extent(*start).max(1)))
    }

    /// Checks the pointer at a place that is loaded.
    fn pointer(&mut self, at: u64, place: u64) {
        if !self.seen.insert((place, 0)) {
            return;
        }
        self.used.insert(place);
        self.found.pointers += 1;
        let held: Option<[u8; 8]> = self.bytes(place, 8).and_then(|bytes| bytes.try_into().ok());
        let Some(actual) = held.map(u64::from_le_bytes) else { return self.fault(at, "a pointer is not loaded") };
        let in_old = actual.wrapping_sub(self.bases.old);
        let right = match self.new.image.pointer_at(place) {
            Some(Written::Address(meant)) => return self.leads(place, meant, Use::Address, actual),
            Some(Written::Symbol(name, addend)) => {
                let own = in_old.wrapping_add_signed(addend.wrapping_neg());
                self.symbol(name, addend) == Some(actual)
                    || self.old.image.symbols_at(own).any(|symbol| symbol.name == name)
            }
            Some(Written::Resolved(chooser)) => {
                let old = self.old.code(actual.wrapping_sub(CHOSEN));
                self.comparison.matching.corresponds(old, self.new.code(chooser))
            }
            Some(Written::Copied(_)) => self.patch.copies.iter().any(|copied| copied.at == place),
            Some(Written::ThreadLocal(..) | Written::Unknown(_)) | None => false,
        };
        if !right {
            self.fault(at, format!("the pointer at {place:#x} holds something else: {actual:#x} (old {in_old:#x})"));
        }
    }

    /// Checks what the constants and objects hold that are loaded and used.
    fn tables(&mut self) {
        while let Some((start, len)) = self.waiting.pop() {
            if !self.seen.insert((start, len.max(1))) {
                continue;
            }
            let end = start.saturating_add(len as u64);
            let mut pointers: BTreeSet<u64> =
                self.new.image.relocations_in(start..end).iter().map(|relocation| relocation.place).collect();
            if self.new.image.kind == Kind::Fixed {
                let words = crate::image::words(start..end);
                pointers.extend(words.filter(|place| self.new.image.pointer_at(*place).is_some()));
            }
            pointers.iter().for_each(|place| self.pointer(start, *place));
            let inside = |at: u64| pointers.range(at.saturating_sub(7)..=at).next().is_some();
            let copied = |at: u64| self.patch.copies.iter().any(|one| (one.at..one.at + one.len).contains(&at));
            let wrong = (start..end).find(|at| {
                let loaded = self.bytes(*at, 1).and_then(|bytes| bytes.first().copied());
                // What catches exceptions is corrected within the constants.
                !inside(*at) && !copied(*at) && !self.is_corrected(*at) && loaded != self.new.image.initial(*at)
            });
            if let Some(wrong) = wrong {
                self.fault(start, format!("the byte at {wrong:#x} is not loaded"));
            }
        }
    }

    fn is_corrected(&self, at: u64) -> bool {
        self.used.range(at.saturating_sub(7)..=at).next().is_some()
    }

    /// Checks the unwind information, and what it says of exceptions.
    fn unwind(&mut self) {
        let wanted: BTreeSet<u64> = self
            .loaded
            .iter()
            .filter_map(|index| self.new.functions.get(*index))
            .filter(|function| function.known_by == KnownBy::Unwind)
            .map(|function| function.start)
            .collect();
        let Some(address) = self.patch.frames else {
            if let Some(start) = wanted.first() {
                self.fault(*start, "there is no unwind information");
            }
            return;
        };
        let left = self.memory.range(..=address).next_back().map(|(start, bytes)| start + bytes.len() as u64 - address);
        let len = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(0);
        let bytes = self.bytes(address, len).unwrap_or_default().to_vec();
        // What is corrected there was read with the rest.
        let end = address + bytes.len() as u64;
        self.used.extend(self.patch.fixups.iter().map(|fixup| fixup.at).filter(|at| (address..end).contains(at)));
        let meant = frames(self.new.image.eh_frame.1, self.new.image.eh_frame.0);
        let base = self.bases.new;
        let found: BTreeMap<_, _> = frames(&bytes, address.wrapping_add(base))
            .into_iter()
            .map(|(start, frame)| (start.wrapping_sub(base), frame))
            .filter(|(start, _)| self.new.image.area_at(*start) == Some(Area::Code))
            .collect();
        if !found.keys().eq(&wanted) {
            self.fault(address, "the unwind information is for other functions than those that are loaded");
        }
        for (start, frame) in found {
            let Some(meant) = meant.get(&start) else { continue };
            match (meant.personality, frame.personality) {
                (None, None) => {}
                (Some(Pointer::Direct(meant)), Some(Pointer::Direct(actual))) => {
                    self.leads(start, meant, Use::Run, actual);
                }
                (Some(Pointer::Indirect(meant)), Some(Pointer::Indirect(actual)))
                    if actual == meant.wrapping_add(base) =>
                {
                    self.pointer(start, meant);
                }
                _ => self.fault(start, "another function handles its exceptions"),
            }
            match (meant.exceptions, frame.exceptions) {
                (None, None) => {}
                (Some(Pointer::Direct(table)), Some(Pointer::Direct(actual))) if actual == table.wrapping_add(base) => {
                    self.catches(table);
                }
                _ => self.fault(start, "its exceptions are looked up in another table"),
            }
        }
    }

    fn catches(&mut self, table: u64) {
        self.waiting.push((table, 8));
        for one in exceptions::types(self.new, table).unwrap_or_default() {
            self.used.insert(one.at);
            self.found.operands += 1;
            let held: Option<[u8; 4]> = self.bytes(one.at, 4).and_then(|bytes| bytes.try_into().ok());
            let Some(held) = held else { return self.fault(one.at, "a table of exceptions is not loaded") };
            let actual = if one.is_address {
                u64::from(u32::from_le_bytes(held))
            } else {
                one.at.wrapping_add(self.bases.new).wrapping_add_signed(i64::from(i32::from_le_bytes(held)))
            };
            if !one.behind_pointer {
                self.leads(one.at, one.place, Use::Address, actual);
            } else if actual == one.place.wrapping_add(self.bases.new) {
                self.pointer(one.at, one.place);
            } else {
                self.fault(one.at, "a type that is caught is another one");
            }
        }
    }

    /// Checks the jumps, and that no old code that stays runs what is replaced in another manner.
    fn jumps(&mut self) {
        let mut last = 0;
        let mut jumped = BTreeSet::new();
        let mut jumps = self.patch.jumps.clone();
        jumps.sort_by_key(|jump| jump.at);
        for jump in jumps {
            let old = self.old.function_at(jump.at);
            let start = old.and_then(|index| self.old.functions.get(index)).map_or(0, |function| function.start);
            let next = old.and_then(|index| self.old.functions.get(index + 1)).map_or(u64::MAX, |next| next.start);
            let mark = self.old.image.bytes_at(start, 4) == Some(&[0xf3, 0x0f, 0x1e, 0xfa]);
            let new = self.new.function_at(jump.to);
            let matched = old.and_then(|index| self.comparison.matching.old.get(index).copied().flatten());
            let end = jump.at + JUMP as u64;
            let right = jump.at == start + if mark { 4 } else { 0 }
                && self.old.image.bytes_at(jump.at, JUMP) == Some(&jump.before[..])
                && jump.at >= last
                && end <= next
                && new.is_some_and(|new| self.loaded.contains(&new))
                && matched.map(|found| found.new) == new
                && self.new.code(jump.to) == Target::Code(new.and_then(|new| u32::try_from(new).ok()).unwrap_or(0), 0)
                && self.patch.replaced.iter().any(|range| range.start == start);
            if !right {
                self.fault(jump.at, "a jump in the old file stands or leads where it must not");
            }
            last = end;
            jumped.extend(old);
        }
        for index in &self.loaded {
            let Some(old) = self.comparison.matching.new.get(*index).copied().flatten() else { continue };
            let Some(start) = self.old.functions.get(old).map(|function| function.start) else { continue };
            if !jumped.contains(&old) && self.is_taken(start) {
                self.found
                    .faults
                    .push(Fault { at: start, why: "an old function that is replaced has no jump".to_owned() });
            }
        }
        let replaced: BTreeSet<usize> =
            self.patch.replaced.iter().filter_map(|range| self.old.function_at(range.start)).collect();
        for user in (0..self.old.functions.len()).filter(|user| !replaced.contains(user)) {
            let start = self.old.functions.get(user).map_or(0, |function| function.start);
            for reference in self.old.bodies.refs(user) {
                let Target::Code(function, offset) = self.old.resolve(reference.target).target else { continue };
                let function = function as usize;
                if replaced.contains(&function) && (offset > 0 || !jumped.contains(&function)) {
                    self.fault(start + u64::from(reference.at), "old code that stays runs what is replaced");
                }
            }
        }
    }

    /// Says whether other files, or pointers in data, may lead to an address of the old file.
    fn is_taken(&self, address: u64) -> bool {
        let exported = |symbol: &crate::image::Symbol<'_>| symbol.scope == Scope::Dynamic;
        self.old.image.symbols_at(address).any(exported)
            || self.old.image.relocations.iter().any(|relocation| relocation.written == Written::Address(address))
    }

    /// Sees that nothing is corrected which nothing refers to.
    fn rest(&mut self) {
        let unused: Vec<u64> =
            self.patch.fixups.iter().map(|fixup| fixup.at).filter(|at| !self.used.contains(at)).collect();
        for at in unused {
            self.fault(at, "something is corrected that nothing refers to");
        }
    }
}

/// What unwind information says of one function.
struct Frame {
    personality: Option<Pointer>,
    exceptions: Option<Pointer>,
}

/// Reads unwind information that lies at an address, by where the functions start.
fn frames(bytes: &[u8], address: u64) -> BTreeMap<u64, Frame> {
    let section = EhFrame::new(bytes, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(address);
    let (mut entries, mut found) = (section.entries(&bases), BTreeMap::new());
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        if let Ok(entry) = partial.parse(gimli::EhFrame::cie_from_offset) {
            let frame = Frame { personality: entry.personality(), exceptions: entry.lsda() };
            found.insert(entry.initial_address(), frame);
        }
    }
    found
}

/// Returns the operands of an instruction that hold places; where `fields` are given, those that stand there.
fn operands(
    image: &Image<'_>,
    instruction: &Instruction,
    decoder: &Decoder<'_>,
    fields: Option<&[(usize, usize)]>,
) -> Vec<Operand> {
    let mut found = vec![];
    if instruction.code() == Code::INVALID {
        return found;
    }
    let offsets = decoder.get_constant_offsets(instruction);
    let immediate = (offsets.immediate_offset(), offsets.immediate_size());
    let displacement = (offsets.displacement_offset(), offsets.displacement_size());
    let is_meant = |field: (usize, usize), place: u64| match fields {
        Some(fields) => fields.contains(&field),
        None => image.kind == Kind::Fixed && field.1 >= 4 && image.area_at(place).is_some(),
    };
    if instruction.op0_kind() == OpKind::NearBranch64 {
        let place = instruction.near_branch_target();
        return vec![Operand { field: immediate, place, way: Use::Run }];
    }
    let way = match (instruction.mnemonic(), instruction.flow_control()) {
        (Mnemonic::Lea, _) => Use::Address,
        (_, FlowControl::IndirectBranch | FlowControl::IndirectCall) => Use::Access(8),
        _ => Use::Access(instruction.memory_size().size()),
    };
    let alone = instruction.memory_index() == Register::None
        && matches!(instruction.memory_base(), Register::None | Register::RIP);
    let has_memory = (0..instruction.op_count()).any(|index| instruction.op_kind(index) == OpKind::Memory);
    if has_memory && offsets.has_displacement() {
        let place = instruction.memory_displacement64();
        let plain = instruction.segment_prefix() == Register::None;
        if instruction.is_ip_rel_memory_operand() || plain && is_meant(displacement, place) {
            let way = if alone { way } else { Use::Access(0) };
            found.push(Operand { field: displacement, place, way });
        }
    }
    let value = (0..instruction.op_count()).find_map(|index| match instruction.op_kind(index) {
        OpKind::Immediate32 | OpKind::Immediate64 | OpKind::Immediate32to64 => Some(instruction.immediate(index)),
        _ => None,
    });
    if let Some(place) = value.filter(|place| offsets.has_immediate() && is_meant(immediate, *place)) {
        found.push(Operand { field: immediate, place, way: Use::Address });
    }
    found
}
