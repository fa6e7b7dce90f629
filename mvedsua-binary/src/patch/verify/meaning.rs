//! What an operand or a pointer of the new file means, and whether what stands in its place leads there.

use std::collections::BTreeSet;

use super::Checker;
use super::operands::Use;
use crate::constants;
use crate::image::{Area, Kind, Written};
use crate::side::Target;

use super::CHOSEN;

impl<'d> Checker<'_, 'd> {
    /// Sees that what meant an address of the new file leads to what is the same.
    pub(super) fn leads(&mut self, at: u64, meant: u64, way: Use, actual: u64) {
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
    pub(super) fn stays(&mut self, at: u64, meant: u64, way: Use) -> Option<&'static str> {
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
                known.filter(|(old, _)| !self.is_replaced(meant, *old)).map(|_| "an object exists twice")
            }
            None => Some("nothing lies there"),
        }
    }

    /// Says what is wrong with the use of something of the old file instead.
    pub(super) fn goes_back(&self, meant: u64, way: Use, old: u64) -> Option<&'static str> {
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
                (known != Some(old) || self.is_replaced(meant, old)).then_some("the object is another one")
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
    pub(super) fn same(&self, old: u64, new: u64) -> bool {
        match (self.old.image.pointer_at(old), self.new.image.pointer_at(new)) {
            // An address is one of its own file.
            (Some(Written::Address(a)), Some(Written::Address(b)))
            | (Some(Written::Resolved(a)), Some(Written::Resolved(b))) => {
                self.comparison.matching.corresponds(self.old.code(a), self.new.code(b))
            }
            (Some(a @ (Written::Symbol(..) | Written::ThreadLocal(..))), Some(b)) => a == b,
            _ => false,
        }
    }

    /// Says whether an object of the old file has another one of the new file in its place.
    pub(super) fn is_replaced(&self, new: u64, old: u64) -> bool {
        let moving = self.comparison.transforms.iter().filter(|one| one.moves());
        let moves = moving.clone().any(|one| one.new.contains(&new) || one.old.contains(&old));
        moves || self.comparison.data.replaced.contains(old)
    }

    /// Checks the pointer at a place that is loaded.
    pub(super) fn pointer(&mut self, at: u64, place: u64) {
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
    pub(super) fn tables(&mut self) {
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

    pub(super) fn is_corrected(&self, at: u64) -> bool {
        self.used.range(at.saturating_sub(7)..=at).next().is_some()
    }
}
