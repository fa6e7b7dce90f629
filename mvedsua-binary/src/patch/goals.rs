//! Where what is loaded leads to: of each reference, pointer and slot of the new file the place in the process.

use std::collections::BTreeSet;
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, OpKind};

use super::builder::Builder;
use super::{Copied, Form, Goal};
use crate::constants;
use crate::image::{Area, Image, Kind, Scope, SymbolKind, Written, words};
use crate::normalise::Way;
use crate::side::Target;

impl<'d> Builder<'_, 'd> {
    /// Says how an address stands in an instruction that holds one, not a distance.
    pub(super) fn absolute(&self, at: u64, target: u64) -> Option<Form> {
        if self.new.image.kind != Kind::Fixed {
            return None;
        }
        let bytes = self.new.image.bytes_from(at)?;
        let mut decoder = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let offsets = decoder.get_constant_offsets(&instruction);
        let is_relative = instruction.is_ip_rel_memory_operand() && instruction.ip_rel_memory_address() == target;
        if is_relative || instruction.op0_kind() == OpKind::NearBranch64 {
            return None;
        }
        let is_displacement = instruction.memory_displacement64() == target && offsets.has_displacement();
        let size = if is_displacement { offsets.displacement_size() } else { offsets.immediate_size() };
        Some(if size == 8 { Form::Address } else { Form::Short })
    }

    /// Returns where code leads to that leads to code.
    pub(super) fn code(&mut self, target: u64, way: Way) -> Option<Goal> {
        let Target::Code(function, offset) = self.new.code(target) else { return None };
        let (function, offset) = (function as usize, u64::from(offset));
        let old = self.old_of(function);
        let old_start = |old: usize| self.old.functions.get(old).map(|function| function.start);
        match (way, old) {
            // The address of a function is the same in both versions.
            (Way::Address | Way::Indexed | Way::Access(_), Some(old)) if offset == 0 => old_start(old).map(Goal::Old),
            _ if self.is_loaded(function) => Some(Goal::New(target)),
            (_, Some(old)) if self.is_equal(old) => Some(Goal::Old(old_start(old)? + offset)),
            (_, Some(old)) if offset == 0 => Some(Goal::Old(old_start(old)?)),
            (_, Some(_) | None) => {
                self.waiting.push(function);
                Some(Goal::New(target))
            }
        }
    }

    /// Says whether a function is loaded, or will be.
    pub(super) fn is_loaded(&self, function: usize) -> bool {
        self.loaded.contains(&function) || self.waiting.contains(&function)
    }

    pub(super) fn is_equal(&self, old: usize) -> bool {
        self.comparison.matching.old.get(old).copied().flatten().is_some_and(|found| found.equal)
    }

    /// A stub stays; its slot is filled. Its address is the old one's, since it may be compared.
    pub(super) fn stub(&mut self, target: u64, way: Way) -> Result<Goal, ()> {
        let slot = self.new.image.slot_of_stub(target).ok_or(())?;
        if way == Way::Address {
            let written = self.new.image.pointer_at(slot).ok_or(())?;
            let same = |(_, slot): &&(Range<u64>, u64)| self.holds_same(*slot, written);
            if let Some((range, _)) = self.old.image.stubs.iter().find(same) {
                return Ok(Goal::Old(range.start));
            }
        }
        self.stubs.insert(target);
        self.use_slot(slot)?;
        Ok(Goal::New(target))
    }

    /// Says whether a slot of the old file holds what one of the new file does. An address is one of its own file.
    fn holds_same(&self, old: u64, written: Written<'d>) -> bool {
        match (self.old.image.pointer_at(old), written) {
            (Some(Written::Address(a)), Written::Address(b)) | (Some(Written::Resolved(a)), Written::Resolved(b)) => {
                self.comparison.matching.corresponds(self.old.code(a), self.new.code(b))
            }
            (Some(Written::Symbol(name, added)), Written::Symbol(other, other_added)) => {
                (name, added) == (other, other_added)
            }
            _ => false,
        }
    }

    pub(super) fn through_slot(&mut self, slot: u64, way: Way) -> Result<Goal, ()> {
        let written = self.new.image.pointer_at(slot).ok_or(())?;
        if let Written::ThreadLocal(..) = written {
            return self.thread_local(slot, written).map(Goal::Old).ok_or(());
        }
        match way {
            Way::Access(8) | Way::Call | Way::Jump => {
                self.use_slot(slot)?;
                Ok(Goal::New(slot))
            }
            Way::Access(_) | Way::Indexed | Way::Address | Way::Branch => Err(()),
        }
    }

    pub(super) fn use_slot(&mut self, slot: u64) -> Result<(), ()> {
        if self.slots.insert(slot) {
            let written = self.new.image.pointer_at(slot).ok_or(())?;
            let goal = self.pointee(written).ok_or(())?;
            self.fixups.insert(slot, (Form::Address, goal));
        }
        Ok(())
    }

    /// Returns the old slot that says the same of thread-local storage, with what stands behind it.
    pub(super) fn thread_local(&self, slot: u64, written: Written<'d>) -> Option<u64> {
        let behind = |image: &Image<'_>, slot: u64| match image.written_at(slot + 8) {
            Some(written) => (format!("{written:?}"), vec![]),
            None => (String::new(), image.bytes_at(slot + 8, 8).unwrap_or_default().to_vec()),
        };
        let wanted = behind(&self.new.image, slot);
        let mut all = self.old.image.relocations.iter().filter(|relocation| relocation.written == written);
        all.find(|relocation| {
            let alone = matches!(written, Written::ThreadLocal(object::elf::R_X86_64_TPOFF64, ..));
            self.old.image.area_at(relocation.place) == Some(Area::Slots)
                && (alone || behind(&self.old.image, relocation.place) == wanted)
        })
        .map(|relocation| relocation.place)
    }

    /// Returns what a pointer in data, or in a slot, is to hold.
    pub(super) fn pointee(&mut self, written: Written<'d>) -> Option<Goal> {
        match written {
            Written::Address(address) => match self.new.image.area_at(address) {
                Some(Area::Code) => self.code(address, Way::Address),
                Some(Area::Constant) => self.constant(address, Way::Address),
                Some(Area::Relro | Area::Data | Area::Zero) => self.object(address),
                Some(Area::Stubs) => self.stub(address, Way::Address).ok(),
                Some(Area::Slots) => None,
                None => self.edge(address),
            },
            Written::Symbol(name, addend) => Some(self.symbol(name, addend)),
            Written::Resolved(address) => {
                let same = |relocation: &&crate::image::Relocation<'d>| match relocation.written {
                    Written::Resolved(old) => {
                        self.comparison.matching.corresponds(self.old.code(old), self.new.code(address))
                    }
                    _ => false,
                };
                let place = self.old.image.relocations.iter().find(same)?.place;
                Some(Goal::Held(place, 0))
            }
            Written::Copied(_) | Written::ThreadLocal(..) | Written::Unknown(_) => None,
        }
    }

    /// Returns the address of a symbol that the loader looks up.
    pub(super) fn symbol(&self, name: &str, addend: i64) -> Goal {
        let named = |written| match written {
            Written::Symbol(known, addend) if known == name => Some(addend),
            _ => None,
        };
        let all = self.old.image.relocations.iter();
        let held = all.filter_map(|relocation| Some((relocation.place, named(relocation.written)?)));
        // What is bound when it is first called may not be yet: another slot tells more.
        let is_lazy = |place: u64| {
            self.old.image.section_at(place).is_some_and(|section| section.name == ".got.plt")
                && self.old.image.area_at(place) == Some(Area::Slots)
        };
        match held.min_by_key(|(place, added)| (is_lazy(*place), *added != addend, *place)) {
            Some((place, added)) => Goal::Held(place, addend.wrapping_sub(added)),
            None => {
                let mut own = self.old.image.symbols.iter().filter(|symbol| symbol.scope == Scope::Dynamic);
                match own.find(|symbol| symbol.name == name && symbol.kind != SymbolKind::Resolver) {
                    Some(symbol) => Goal::Old(symbol.address.wrapping_add_signed(addend)),
                    None => Goal::Symbol(name.to_owned(), addend),
                }
            }
        }
    }

    /// Returns the constant that is meant: the old one where it is known and equal, since its address may be compared.
    pub(super) fn constant(&mut self, address: u64, way: Way) -> Option<Goal> {
        if way == Way::Address
            && let Some(old) = self.old_constant(address)
        {
            return Some(Goal::Old(old));
        }
        if self.new.image.kind == Kind::Fixed && self.constants_loaded.insert(address) {
            let len = match way {
                Way::Access(size) if size > 0 => u64::from(size),
                _ => self.new.constant_extent(address),
            };
            for place in words(address..address.saturating_add(len)) {
                if let Some(written) = self.new.image.pointer_at(place) {
                    let goal = self.pointee(written)?;
                    self.fixups.insert(place, (Form::Address, goal));
                }
            }
        }
        Some(Goal::New(address))
    }

    /// Returns the one constant of the old file that is equal and used at the same places.
    pub(super) fn old_constant(&self, address: u64) -> Option<u64> {
        let [old] = self.constants.get(&address)?.as_slice() else { return None };
        let is_alone = self.comparison.bindings.constants.get(old).is_some_and(|all| all.len() == 1);
        let is_same = constants::same_bytes(self.old, *old, self.new, address)
            && constants::is_compared_to_its_end(self.old, *old, self.new, address);
        (is_alone && is_same).then_some(*old)
    }

    /// Returns the object of the old file that an address is, unless another one takes its place.
    pub(super) fn old_object(&self, address: u64) -> Option<u64> {
        let data = &self.comparison.data;
        if data.moved_to.contains(address) {
            return None;
        }
        let (old, _) = self.comparison.bindings.old_of(self.old, self.new, address)?;
        (!data.replaced.contains(old) && !data.moved.contains(old)).then_some(old)
    }

    /// Returns the object that is meant: the old one, or a new one that is loaded.
    pub(super) fn object(&mut self, address: u64) -> Option<Goal> {
        if let Some(old) = self.old_object(address) {
            return Some(Goal::Old(old));
        }
        self.load_object(address)?;
        Some(Goal::New(address))
    }

    /// Has an object of the new file loaded, with what it points to.
    pub(super) fn load_object(&mut self, address: u64) -> Option<()> {
        let comparison = self.comparison;
        let told = comparison.data.moved_to.around(address).or_else(|| comparison.shown.fresh.around(address));
        let (start, end) = match (told, self.new.image.object_around(address)) {
            (Some(told), _) => (told.start, told.end),
            (None, Some(symbol)) => (symbol.address, symbol.address.saturating_add(symbol.size)),
            (None, None) => (address, address.saturating_add(self.new.object_extent(address))),
        };
        if self.tables.get(&start).is_some_and(|known| *known >= end) {
            return Some(());
        }
        self.tables.insert(start, end);
        let fixed = self.new.image.kind == Kind::Fixed;
        let all = words(start..end).filter(|_| fixed);
        let relocated = self.new.image.relocations_in(start..end).iter().map(|relocation| relocation.place);
        for place in relocated.chain(all).collect::<BTreeSet<_>>() {
            if let Some(Written::Copied(name)) = self.new.image.written_at(place) {
                if place != start || self.new.image.area_at(place) != Some(Area::Relro) {
                    return None;
                }
                self.copies.insert(place, Copied { at: place, symbol: name.to_owned(), len: end - start });
            } else if let Some(written) = self.new.image.pointer_at(place) {
                let goal = self.pointee(written)?;
                self.fixups.insert(place, (Form::Address, goal));
            }
        }
        Some(())
    }

    /// An address behind a section is the end of the old file's section of that name.
    pub(super) fn edge(&self, address: u64) -> Option<Goal> {
        let Target::Edge(name, beyond) = self.new.resolve(address).target else { return None };
        let section = self.old.image.sections.iter().find(|section| section.name == name)?;
        Some(Goal::Old(section.end + beyond))
    }
}
