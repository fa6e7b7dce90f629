//! Checks the unwind information, and what it says of exceptions.

use std::collections::{BTreeMap, BTreeSet};

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, Pointer, UnwindSection as _};

use super::Checker;
use super::operands::Use;
use crate::exceptions;
use crate::functions::KnownBy;
use crate::image::Area;

impl Checker<'_, '_> {
    /// Checks the unwind information, and what it says of exceptions.
    pub(super) fn unwind(&mut self) {
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

    pub(super) fn catches(&mut self, table: u64) {
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
