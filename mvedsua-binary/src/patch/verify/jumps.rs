//! Checks the jumps in the old file, and that nothing is corrected which nothing refers to.

use std::collections::BTreeSet;

use super::super::JUMP;
use super::{Checker, Fault};
use crate::image::{Scope, Written};
use crate::side::Target;

impl Checker<'_, '_> {
    /// Checks the jumps, and that no old code that stays runs what is replaced in another manner.
    pub(super) fn jumps(&mut self) {
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
    pub(super) fn is_taken(&self, address: u64) -> bool {
        let exported = |symbol: &crate::image::Symbol<'_>| symbol.scope == Scope::Dynamic;
        self.old.image.symbols_at(address).any(exported)
            || self.old.image.relocations.iter().any(|relocation| relocation.written == Written::Address(address))
    }

    /// Sees that nothing is corrected which nothing refers to.
    pub(super) fn rest(&mut self) {
        let unused: Vec<u64> =
            self.patch.fixups.iter().map(|fixup| fixup.at).filter(|at| !self.used.contains(at)).collect();
        for at in unused {
            self.fault(at, "something is corrected that nothing refers to");
        }
    }
}
