//! Jumps from the old functions to the new ones, and what must not be running when they are written.

use std::collections::BTreeSet;
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};

use super::builder::{Builder, TRAP};
use super::{JUMP, Jump};
use crate::classes::Class;
use crate::image::{Scope, Written};
use crate::normalise::Way;
use crate::reason::Place;
use crate::side::Target;

/// The start of a function that may be jumped to indirectly (`endbr64`).
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

impl Builder<'_, '_> {
    /// Returns the old code that must not be running when the jumps are written.
    ///
    /// Of a function in which only texts differ it does not matter which version is gone on with; a jump must not be
    /// written over an instruction that is being executed, or that a loop comes back to.
    pub(super) fn replaced(&self, jumps: &[Jump]) -> Vec<Range<u64>> {
        let class = |old: usize| {
            let fate = self.comparison.fates.changed.iter().find(|fate| fate.old == Some(old));
            fate.map_or(Class::Unchanged, |fate| fate.class)
        };
        let gone = self.comparison.fates.changed.iter().filter(|fate| fate.class == Class::Gone);
        let old = self.loaded.iter().filter_map(|index| self.old_of(*index)).chain(gone.filter_map(|fate| fate.old));
        let old: BTreeSet<usize> = old.collect();
        let whole = |index: usize| {
            let function = self.old.functions.get(index)?;
            let jump = jumps.iter().find(|jump| (function.start..function.end).contains(&jump.at));
            let start = jump.map_or(function.start..function.start, |jump| jump.at..jump.at + JUMP as u64);
            let may_go_on = class(index) == Class::Texts && !self.comes_back_to(index, start.start + 1..start.end);
            Some(if may_go_on { start } else { function.start..function.end })
        };
        old.into_iter().filter_map(whole).collect()
    }

    /// Says whether a function jumps to one of its own addresses in a range.
    pub(super) fn comes_back_to(&self, old: usize, range: Range<u64>) -> bool {
        let Some(function) = self.old.functions.get(old) else { return true };
        let bytes = self.old.image.bytes_at(function.start, function.len()).unwrap_or_default();
        let mut decoder = Decoder::with_ip(64, bytes, function.start, DecoderOptions::NONE);
        decoder.iter().any(|one| one.op0_kind() == OpKind::NearBranch64 && range.contains(&one.near_branch_target()))
    }

    /// Returns the jumps from the old functions, or the functions that have no room for one.
    pub(super) fn jumps(&self) -> Result<Vec<Jump>, Vec<Place>> {
        let (mut jumps, mut faults) = (vec![], vec![]);
        let dead: BTreeSet<usize> = self.loaded.iter().filter_map(|index| self.old_of(*index)).collect();
        let reached = self.reached(&dead);
        for new in &self.loaded {
            let Some(old) = self.old_of(*new) else { continue };
            let (Some(from), Some(to)) = (self.old.functions.get(old), self.new.functions.get(*new)) else { continue };
            match self.room(old) {
                Some((at, before)) => jumps.push(Jump { at, to: to.start, before }),
                None if reached.contains(&old) => {
                    faults.push(Place { function: self.old.function_name(old), old_at: from.start, new_at: to.start })
                }
                // Only code that is replaced leads there.
                None => {}
            }
        }
        if faults.is_empty() { Ok(jumps) } else { Err(faults) }
    }

    /// Returns where a jump has room in an old function, and what stands there.
    pub(super) fn room(&self, old: usize) -> Option<(u64, [u8; JUMP])> {
        let function = self.old.functions.get(old)?;
        let image = &self.old.image;
        let starts_with_mark = image.bytes_at(function.start, ENDBR.len()) == Some(&ENDBR[..]);
        let at = function.start + if starts_with_mark { ENDBR.len() as u64 } else { 0 };
        let before: [u8; JUMP] = image.bytes_at(at, JUMP)?.try_into().ok()?;
        let end = at + JUMP as u64;
        // Behind a short function there must be padding.
        let next = self.old.functions.get(old + 1).map_or(u64::MAX, |next| next.start);
        if end > next {
            return None;
        }
        let padding = match usize::try_from(end.saturating_sub(function.end)).ok()? {
            0 => &[],
            len => image.bytes_at(function.end, len)?,
        };
        is_padding(padding).then_some((at, before))
    }

    /// Returns the old functions that something leads to which is not replaced itself, or whose address is taken.
    pub(super) fn reached(&self, dead: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut note = |target: u64| {
            if let Target::Code(function, _) = self.old.resolve(target).target {
                reached.insert(function as usize);
            }
        };
        for user in 0..self.old.functions.len() {
            for reference in self.old.bodies.refs(user) {
                let keeps = matches!(reference.way, Way::Address | Way::Indexed | Way::Access(_));
                if keeps || !dead.contains(&user) {
                    note(reference.target);
                }
            }
        }
        for relocation in &self.old.image.relocations {
            if let Written::Address(address) = relocation.written {
                note(address);
            }
        }
        for symbol in self.old.image.symbols.iter().filter(|s| s.scope == Scope::Dynamic) {
            note(symbol.address);
        }
        reached
    }
}

fn is_padding(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    bytes.iter().all(|byte| matches!(*byte, 0 | 0x90 | TRAP)) || {
        // One instruction of several bytes may be cut off at the end.
        decoder.iter().all(|one| matches!(one.mnemonic(), Mnemonic::Nop | Mnemonic::INVALID))
    }
}
