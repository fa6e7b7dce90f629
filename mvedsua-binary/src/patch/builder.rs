//! Collects what a patch consists of: from the functions that changed to all that they need.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

use super::frames::What;
use super::{Copied, Fixup, Form, Goal, JUMP, Jump, Loaded, PAGE, Patch, Protection, Segment, arrays, frames};
use crate::Comparison;
use crate::classes::Class;
use crate::constants;
use crate::exceptions;
use crate::functions::KnownBy;
use crate::image::{Area, Image, Kind, Scope, Section, SymbolKind, Written};
use crate::normalise::{Ref, Way};
use crate::reason::{Place, Reason};
use crate::side::{Side, Target};

/// The start of a function that may be jumped to indirectly (`endbr64`).
const ENDBR: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// What stands where nothing is loaded in a page with code: `int3`.
const TRAP: u8 = 0xcc;
/// The most reasons that are told.
const MOST: usize = 8;

/// Makes the patch of two files that can be updated.
///
/// # Errors
///
/// What of the new code cannot be loaded.
pub(crate) fn build(comparison: &Comparison<'_>) -> Result<Patch, Vec<Reason>> {
    let (old, new) = (&comparison.old, &comparison.new);
    let mut builder = Builder {
        comparison,
        old,
        new,
        loaded: BTreeSet::new(),
        waiting: vec![],
        tables: BTreeMap::new(),
        slots: BTreeSet::new(),
        stubs: BTreeSet::new(),
        fixups: BTreeMap::new(),
        faults: vec![],
        copies: BTreeMap::new(),
        inner: inner_references(new),
        constants: BTreeMap::new(),
        constants_loaded: BTreeSet::new(),
    };
    for (old, all) in &comparison.bindings.constants {
        for new in all {
            builder.constants.entry(*new).or_default().push(*old);
        }
    }
    for fate in &comparison.fates.changed {
        if fate.old.is_some() && fate.class != Class::LineNumbers {
            builder.waiting.extend(fate.new);
        }
    }
    builder.run();
    builder.finish()
}

/// Returns for each function those that refer to a place inside it.
fn inner_references(side: &Side<'_>) -> BTreeMap<usize, BTreeSet<usize>> {
    let mut found: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for user in 0..side.functions.len() {
        for reference in side.bodies.refs(user) {
            if let Target::Code(function, offset) = side.resolve(reference.target).target
                && offset > 0
                && function as usize != user
            {
                found.entry(function as usize).or_default().insert(user);
            }
        }
    }
    found
}

struct Builder<'a, 'd> {
    comparison: &'a Comparison<'d>,
    old: &'a Side<'d>,
    new: &'a Side<'d>,
    /// Functions of the new file that are loaded, by index.
    loaded: BTreeSet<usize>,
    /// Functions that are to be loaded and were not looked into yet.
    waiting: Vec<usize>,
    /// Objects of the new file that are loaded: start and end.
    tables: BTreeMap<u64, u64>,
    /// Slots that are used.
    slots: BTreeSet<u64>,
    /// Stubs that are used, by address.
    stubs: BTreeSet<u64>,
    /// By address.
    fixups: BTreeMap<u64, (Form, Goal)>,
    faults: Vec<Place>,
    /// By address.
    copies: BTreeMap<u64, Copied>,
    inner: BTreeMap<usize, BTreeSet<usize>>,
    /// For each constant of the new file those of the old one that are equal and used at the same places.
    constants: BTreeMap<u64, Vec<u64>>,
    /// Constants of a file with fixed addresses whose pointers were looked at.
    constants_loaded: BTreeSet<u64>,
}

impl<'d> Builder<'_, 'd> {
    /// Finds all that is needed. What a reference leads to depends on what is loaded, which grows meanwhile: at last all
    /// are looked at once more.
    fn run(&mut self) {
        loop {
            let before = self.loaded.len();
            while let Some(function) = self.waiting.pop() {
                if self.loaded.insert(function) {
                    self.load(function);
                }
            }
            if self.loaded.len() == before {
                return;
            }
            self.tables.clear();
            self.slots.clear();
            self.stubs.clear();
            self.constants_loaded.clear();
            self.fixups.clear();
            self.faults.clear();
            self.copies.clear();
            for function in self.loaded.clone() {
                self.load(function);
            }
            self.load_personalities();
        }
    }

    /// The functions that handle exceptions are named by the unwind information.
    fn load_personalities(&mut self) {
        let functions: Vec<_> = self.with_unwind().collect();
        let starts = functions.iter().map(|(_, start)| *start).collect();
        for pointer in frames::personalities(&self.new.image, &starts) {
            if self.use_pointer(pointer).is_none()
                && let Some((function, start)) = functions.first()
            {
                self.fault(*function, *start);
            }
        }
        if self.new.image.kind == Kind::Fixed {
            self.load_named(&functions, &starts);
        }
    }

    /// In a file with fixed addresses they are named by their addresses, and so are the tables of exceptions.
    fn load_named(&mut self, functions: &[(usize, u64)], starts: &BTreeSet<u64>) {
        let Some((function, start)) = functions.first().copied() else { return };
        let Some(all) = frames::addresses(&self.new.image, starts) else { return self.fault(function, start) };
        for named in all {
            let goal = match (named.what, self.new.image.area_at(named.place)) {
                (What::Tables, Some(Area::Constant)) => Some(Goal::New(named.place)),
                (What::Personality, Some(Area::Stubs)) => self.stub(named.place, Way::Call).ok(),
                (What::Personality, Some(Area::Code)) => self.code(named.place, Way::Call),
                _ => None,
            };
            match goal {
                Some(goal) => {
                    self.fixups.insert(named.at, (Form::Short, goal));
                }
                None => self.fault(function, start),
            }
        }
    }

    fn fault(&mut self, function: usize, new_at: u64) {
        self.faults.push(Place { function: self.new.function_name(function), old_at: 0, new_at });
    }

    /// Returns the function of the old file that goes on in one of the new file.
    fn old_of(&self, function: usize) -> Option<usize> {
        self.comparison.matching.new.get(function).copied().flatten()
    }

    /// Looks at what one function needs.
    fn load(&mut self, function: usize) {
        let Some(start) = self.new.functions.get(function).map(|function| function.start) else { return };
        self.check_body(function);
        // Whoever leads into it does so to the new one.
        let users: Vec<usize> = self.inner.get(&function).into_iter().flatten().copied().collect();
        self.waiting.extend(users);
        let (new, bodies) = (self.new, &self.new.bodies);
        let jumps = bodies.get(function).is_some_and(|body| body.jumps_indirectly);
        let whole = self.arrays(function, start);
        for reference in bodies.refs(function) {
            self.refer(function, start, reference, &whole);
            if jumps && reference.way == Way::Address && new.image.area_at(reference.target) == Some(Area::Constant) {
                self.waiting.extend(constants::functions_of_jumps(new, reference.target));
            }
        }
        self.load_exceptions(function);
    }

    /// Sees that nothing in a body leads out of it that is not among its references.
    fn check_body(&mut self, function: usize) {
        let Some(own) = self.new.functions.get(function) else { return };
        let bytes = self.new.image.bytes_at(own.start, own.len()).unwrap_or_default();
        let refs = self.new.bodies.refs(function);
        let mut decoder = Decoder::with_ip(64, bytes, own.start, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let (mut strays, mut own_addresses) = (vec![], vec![]);
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            let leaves = instruction.op0_kind() == OpKind::NearBranch64
                && !(own.start..own.end).contains(&instruction.near_branch_target());
            let refers = leaves
                || instruction.is_ip_rel_memory_operand()
                    && !(own.start..own.end).contains(&instruction.ip_rel_memory_address());
            let at = instruction.ip() - own.start;
            let known = refs.binary_search_by_key(&at, |reference| u64::from(reference.at)).is_ok();
            if (refers && !known) || (instruction.code() == Code::INVALID && own.known_by == KnownBy::Unwind) {
                strays.push(instruction.ip());
            }
            // A function that takes its own address means the one that everybody knows.
            if instruction.mnemonic() == Mnemonic::Lea
                && instruction.is_ip_rel_memory_operand()
                && instruction.ip_rel_memory_address() == own.start
            {
                let offset = decoder.get_constant_offsets(&instruction).displacement_offset() as u64;
                own_addresses.push((instruction.ip() + offset, instruction.next_ip()));
            }
        }
        let old = self.old_of(function).and_then(|old| self.old.functions.get(old));
        for (field, from) in own_addresses {
            if let Some(old) = old {
                self.fixups.insert(field, (Form::Distance(from), Goal::Old(old.start)));
            }
        }
        for at in strays {
            self.fault(function, at);
        }
    }

    /// An array and its end must lead to the same file. Constants that would not are returned: they stay where they are.
    /// Objects that would not are a fault.
    fn arrays(&mut self, function: usize, start: u64) -> BTreeSet<u64> {
        let pairs = arrays::pairs(self.new, function);
        let is_torn = |(a, b): &(u64, u64)| self.moves_by(*a) != self.moves_by(*b);
        let (objects, constants): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|(a, _)| self.new.image.area_at(*a).is_some_and(Area::is_object));
        let torn: Vec<_> = constants.iter().filter(|pair| is_torn(pair)).copied().collect();
        if objects.iter().any(is_torn) {
            self.fault(function, start);
        }
        let mut stay: BTreeSet<u64> = torn.into_iter().flat_map(|(a, b)| [a, b]).collect();
        // What stays may be the end of something else.
        loop {
            let before = stay.len();
            for (a, b) in constants.iter().copied() {
                if stay.contains(&a) || stay.contains(&b) {
                    stay.extend([a, b]);
                }
            }
            if stay.len() == before {
                return stay;
            }
        }
    }

    /// Returns how far from an address of data, or the end of a section, that is which the old file has in its place.
    fn moves_by(&self, address: u64) -> Option<u64> {
        let old = match self.new.image.area_at(address) {
            Some(Area::Constant) => self.old_constant(address),
            Some(_) => self.old_object(address),
            None => self.edge(address).and_then(|goal| if let Goal::Old(old) = goal { Some(old) } else { None }),
        };
        old.map(|old| old.wrapping_sub(address))
    }

    /// Corrects one reference of a function that is loaded. Constants in `whole` stay where they are.
    fn refer(&mut self, function: usize, start: u64, reference: &Ref, whole: &BTreeSet<u64>) {
        let at = start + u64::from(reference.at);
        let field = start + u64::from(reference.field);
        let fits = |goal: Option<Goal>| goal.ok_or(());
        // A jump that reaches no farther leads to a function that is loaded beside this one.
        if reference.len == 1 {
            match self.new.function_at(reference.target) {
                Some(near) => self.waiting.push(near),
                None => self.fault(function, at),
            }
            return;
        }
        let goal = match self.new.image.area_at(reference.target) {
            Some(Area::Code) => fits(self.code(reference.target, reference.way)),
            Some(Area::Stubs) => self.stub(reference.target, reference.way),
            Some(Area::Slots) => self.through_slot(reference.target, reference.way),
            Some(Area::Constant) if whole.contains(&reference.target) => {
                self.constant(reference.target, Way::Indexed).ok_or(())
            }
            Some(Area::Constant) => self.constant(reference.target, reference.way).ok_or(()),
            Some(Area::Relro | Area::Data | Area::Zero) => self.object(reference.target).ok_or(()),
            None if whole.contains(&reference.target) => Ok(Goal::New(reference.target)),
            None => self.edge(reference.target).ok_or(()),
        };
        let Ok(goal) = goal else { return self.fault(function, at) };
        if let Some(form) = self.absolute(at, reference.target) {
            self.fixups.insert(field, (form, goal));
            return;
        }
        match goal {
            // It stands at the right distance already.
            Goal::New(_) => {}
            goal => {
                let held = self.new.image.bytes_at(field, 4).and_then(|bytes| bytes.try_into().ok());
                let Some(held) = held.map(i32::from_le_bytes) else { return self.fault(function, at) };
                let from = reference.target.wrapping_sub(i64::from(held).cast_unsigned());
                self.fixups.insert(field, (Form::Distance(from), goal));
            }
        }
    }

    /// Says how an address stands in an instruction that holds one, not a distance.
    fn absolute(&self, at: u64, target: u64) -> Option<Form> {
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
    fn code(&mut self, target: u64, way: Way) -> Option<Goal> {
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
    fn is_loaded(&self, function: usize) -> bool {
        self.loaded.contains(&function) || self.waiting.contains(&function)
    }

    fn is_equal(&self, old: usize) -> bool {
        self.comparison.matching.old.get(old).copied().flatten().is_some_and(|found| found.equal)
    }

    /// A stub stays; its slot is filled. Its address is the old one's, since it may be compared.
    fn stub(&mut self, target: u64, way: Way) -> Result<Goal, ()> {
        let slot = self.new.image.slot_of_stub(target).ok_or(())?;
        if way == Way::Address {
            let written = self.new.image.pointer_at(slot).ok_or(())?;
            let same = |(_, slot): &&(Range<u64>, u64)| self.old.image.pointer_at(*slot) == Some(written);
            if let Some((range, _)) = self.old.image.stubs.iter().find(same) {
                return Ok(Goal::Old(range.start));
            }
        }
        self.stubs.insert(target);
        self.use_slot(slot)?;
        Ok(Goal::New(target))
    }

    fn through_slot(&mut self, slot: u64, way: Way) -> Result<Goal, ()> {
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

    fn use_slot(&mut self, slot: u64) -> Result<(), ()> {
        if self.slots.insert(slot) {
            let written = self.new.image.pointer_at(slot).ok_or(())?;
            let goal = self.pointee(written).ok_or(())?;
            self.fixups.insert(slot, (Form::Address, goal));
        }
        Ok(())
    }

    /// Returns the old slot that says the same of thread-local storage, with what stands behind it.
    fn thread_local(&self, slot: u64, written: Written<'d>) -> Option<u64> {
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
    fn pointee(&mut self, written: Written<'d>) -> Option<Goal> {
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
    fn symbol(&self, name: &str, addend: i64) -> Goal {
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
    fn constant(&mut self, address: u64, way: Way) -> Option<Goal> {
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
            for place in (address.next_multiple_of(8)..address.saturating_add(len).saturating_sub(7)).step_by(8) {
                if let Some(written) = self.new.image.pointer_at(place) {
                    let goal = self.pointee(written)?;
                    self.fixups.insert(place, (Form::Address, goal));
                }
            }
        }
        Some(Goal::New(address))
    }

    /// Returns the one constant of the old file that is equal and used at the same places.
    fn old_constant(&self, address: u64) -> Option<u64> {
        let [old] = self.constants.get(&address)?.as_slice() else { return None };
        let is_alone = self.comparison.bindings.constants.get(old).is_some_and(|all| all.len() == 1);
        let is_same = constants::same_bytes(self.old, *old, self.new, address)
            && constants::is_compared_to_its_end(self.old, *old, self.new, address);
        (is_alone && is_same).then_some(*old)
    }

    /// Returns the object of the old file that an address is, unless another one takes its place.
    fn old_object(&self, address: u64) -> Option<u64> {
        let (old, _) = self.comparison.bindings.old_of(self.old, self.new, address)?;
        (!self.comparison.data.replaced.contains(&self.table_around(old))).then_some(old)
    }

    /// Returns the object that is meant: the old one, or a new one that is loaded.
    fn object(&mut self, address: u64) -> Option<Goal> {
        if let Some(old) = self.old_object(address) {
            return Some(Goal::Old(old));
        }
        self.load_object(address)?;
        Some(Goal::New(address))
    }

    /// Returns the address of the old object that holds an address, as far as the comparison tells them apart.
    fn table_around(&self, address: u64) -> u64 {
        self.comparison
            .data
            .replaced
            .range(..=address)
            .next_back()
            .copied()
            .filter(|start| address < start.saturating_add(self.old.object_extent(*start).max(1)))
            .unwrap_or(address)
    }

    /// Has an object of the new file loaded, with what it points to.
    fn load_object(&mut self, address: u64) -> Option<()> {
        let (start, end) = match self.new.image.object_around(address) {
            Some(symbol) => (symbol.address, symbol.address.saturating_add(symbol.size)),
            None => (address, address.saturating_add(self.new.object_extent(address))),
        };
        if self.tables.get(&start).is_some_and(|known| *known >= end) {
            return Some(());
        }
        self.tables.insert(start, end);
        let fixed = self.new.image.kind == Kind::Fixed;
        let words = (start.next_multiple_of(8)..end.saturating_sub(7)).step_by(8).filter(|_| fixed);
        let relocated = self.new.image.relocations_in(start..end).iter().map(|relocation| relocation.place);
        for place in relocated.chain(words).collect::<BTreeSet<_>>() {
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
    fn edge(&self, address: u64) -> Option<Goal> {
        let Target::Edge(name, beyond) = self.new.resolve(address).target else { return None };
        let section = self.old.image.sections.iter().find(|section| section.name == name)?;
        Some(Goal::Old(section.end + beyond))
    }

    /// The types that a function catches stand behind pointers, or are named directly.
    fn load_exceptions(&mut self, function: usize) {
        let Some((start, table)) = self.new.functions.get(function).and_then(|f| Some((f.start, f.exceptions?))) else {
            return;
        };
        let Some(types) = exceptions::types(self.new, table) else { return self.fault(function, start) };
        for one in types {
            let goal = if one.behind_pointer { self.use_pointer(one.place) } else { self.object(one.place) };
            match goal {
                None => self.fault(function, one.at),
                Some(Goal::New(_)) if !one.is_address => {}
                Some(goal) => {
                    let form = if one.is_address { Form::Short } else { Form::Distance(one.at) };
                    self.fixups.insert(one.at, (form, goal));
                }
            }
        }
    }

    /// Loads a pointer that tables of exceptions name.
    fn use_pointer(&mut self, place: u64) -> Option<Goal> {
        let written = self.new.image.pointer_at(place)?;
        let goal = self.pointee(written)?;
        self.fixups.insert(place, (Form::Address, goal));
        self.slots.insert(place);
        Some(Goal::New(place))
    }

    fn finish(self) -> Result<Patch, Vec<Reason>> {
        let starts: BTreeSet<u64> = self.with_unwind().map(|(_, start)| start).collect();
        let frames = frames::only(&self.new.image, &starts);
        let jumps = self.jumps();
        let mut reasons = vec![];
        if !self.faults.is_empty() {
            let first = self.faults.iter().take(MOST).cloned().collect();
            let what = "what code that would be loaded refers to".to_owned();
            reasons.push(Reason::NotUnderstood { what, count: self.faults.len(), first });
        }
        let jumps = match jumps {
            Ok(jumps) => jumps,
            Err(places) => {
                let first = places.iter().take(MOST).cloned().collect();
                reasons.push(Reason::NoRoom { count: places.len(), first });
                vec![]
            }
        };
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let pages = self.pages(frames.as_deref());
        if pages.mixed {
            let what = "a page that holds both code and writable data".to_owned();
            return Err(vec![Reason::NotUnderstood { what, count: 1, first: vec![] }]);
        }
        let segments = pages.into_segments();
        let new = match (segments.first(), segments.last()) {
            (Some(first), Some(last)) => first.start..last.start + last.bytes.len() as u64,
            _ => 0..0,
        };
        let ends = |side: &Side<'_>| side.image.sections.iter().map(|section| section.end).max().unwrap_or(0);
        let starts = self.old.image.sections.first().map_or(0, |section| section.start);
        Ok(Patch {
            old: starts / PAGE * PAGE..ends(self.old).next_multiple_of(PAGE),
            new,
            segments,
            fixups: self
                .fixups
                .iter()
                .map(|(at, (form, goal))| Fixup { at: *at, form: *form, goal: goal.clone() })
                .collect(),
            copies: self.copies.values().cloned().collect(),
            replaced: self.replaced(&jumps),
            jumps,
            is_low: self.new.image.kind == Kind::Fixed,
            functions: self.functions(),
            frames: frames.filter(|_| !self.loaded.is_empty()).map(|_| self.new.image.eh_frame.0),
            fresh: self.tables.keys().filter(|at| self.new.image.area_at(**at).is_some_and(Area::is_writable)).count(),
        })
    }

    fn with_unwind(&self) -> impl Iterator<Item = (usize, u64)> {
        self.loaded.iter().filter_map(|index| {
            let function = self.new.functions.get(*index)?;
            (function.known_by == KnownBy::Unwind).then_some((*index, function.start))
        })
    }

    fn functions(&self) -> Vec<Loaded> {
        let all = self.loaded.iter().filter_map(|index| Some((*index, self.new.functions.get(*index)?)));
        all.map(|(index, function)| Loaded {
            // The old file's name, if it has one: that is how reports call it.
            name: match self.old_of(index) {
                Some(old) if function.name.is_none() => self.old.function_name(old),
                _ => self.new.function_name(index),
            },
            range: function.start..function.end,
        })
        .collect()
    }

    /// Returns the old code that must not be running when the jumps are written.
    ///
    /// Of a function in which only texts differ it does not matter which version is gone on with; a jump must not be
    /// written over an instruction that is being executed, or that a loop comes back to.
    fn replaced(&self, jumps: &[Jump]) -> Vec<Range<u64>> {
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
    fn comes_back_to(&self, old: usize, range: Range<u64>) -> bool {
        let Some(function) = self.old.functions.get(old) else { return true };
        let bytes = self.old.image.bytes_at(function.start, function.len()).unwrap_or_default();
        let mut decoder = Decoder::with_ip(64, bytes, function.start, DecoderOptions::NONE);
        decoder.iter().any(|one| one.op0_kind() == OpKind::NearBranch64 && range.contains(&one.near_branch_target()))
    }

    /// Returns the jumps from the old functions, or the functions that have no room for one.
    fn jumps(&self) -> Result<Vec<Jump>, Vec<Place>> {
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
    fn room(&self, old: usize) -> Option<(u64, [u8; JUMP])> {
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
    fn reached(&self, dead: &BTreeSet<usize>) -> BTreeSet<usize> {
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

    /// Cuts the pages that are needed out of the new file.
    fn pages(&self, frames: Option<&[u8]>) -> Pages {
        let mut pages = Pages::default();
        for index in &self.loaded {
            if let Some(function) = self.new.functions.get(*index) {
                let bytes = self.new.image.bytes_at(function.start, function.len()).unwrap_or_default();
                pages.put(function.start, bytes, Protection::Code);
            }
        }
        for stub in &self.stubs {
            let at = self.new.image.stubs.partition_point(|(range, _)| range.start <= *stub);
            if let Some((range, _)) = at.checked_sub(1).and_then(|at| self.new.image.stubs.get(at)) {
                let len = usize::try_from(range.end - range.start).unwrap_or(0);
                pages.put(range.start, self.new.image.bytes_at(range.start, len).unwrap_or_default(), Protection::Code);
            }
        }
        if !self.loaded.is_empty() {
            // Nothing tells where a constant ends.
            let constant = |section: &&Section<'_>| {
                section.area == Area::Constant
                    && (section.name.starts_with(".rodata") || section.name.starts_with(".gcc_except_table"))
            };
            for section in self.new.image.sections.iter().filter(constant) {
                pages.put(section.start, section.bytes, Protection::Constant);
            }
        }
        if let Some(frames) = frames.filter(|_| !self.loaded.is_empty()) {
            pages.put(self.new.image.eh_frame.0, frames, Protection::Constant);
        }
        for slot in &self.slots {
            pages.put(*slot, &[0; 8], Protection::Constant);
        }
        for (start, end) in &self.tables {
            let area = self.new.image.area_at(*start);
            let protection = if area == Some(Area::Relro) { Protection::Constant } else { Protection::Data };
            let bytes: Vec<u8> = (*start..*end).map(|at| self.new.image.initial(at).unwrap_or(0)).collect();
            pages.put(*start, &bytes, protection);
        }
        pages
    }
}

fn is_padding(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    bytes.iter().all(|byte| matches!(*byte, 0 | 0x90 | TRAP)) || {
        // One instruction of several bytes may be cut off at the end.
        decoder.iter().all(|one| matches!(one.mnemonic(), Mnemonic::Nop | Mnemonic::INVALID))
    }
}

/// Pages that are filled piece by piece.
#[derive(Default)]
struct Pages {
    /// By page.
    all: BTreeMap<u64, (Protection, Vec<u8>)>,
    /// Code and writable data share a page.
    mixed: bool,
}

impl Pages {
    fn put(&mut self, start: u64, bytes: &[u8], protection: Protection) {
        let mut at = start;
        let mut rest = bytes;
        while !rest.is_empty() {
            let page = at / PAGE;
            let offset = usize::try_from(at % PAGE).unwrap_or(0);
            let room = (PAGE as usize - offset).min(rest.len());
            let (now, later) = rest.split_at(room);
            let fill = if protection == Protection::Code { TRAP } else { 0 };
            let (known, content) = self.all.entry(page).or_insert_with(|| (protection, vec![fill; PAGE as usize]));
            // Slots and tables may share a page with writable objects, and constants one with code.
            let kinds = (*known, protection);
            self.mixed |= matches!(kinds, (Protection::Code, Protection::Data) | (Protection::Data, Protection::Code));
            *known = (*known).max(protection);
            if let Some(place) = content.get_mut(offset..offset + room) {
                place.copy_from_slice(now);
            }
            at += room as u64;
            rest = later;
        }
    }

    fn into_segments(self) -> Vec<Segment> {
        let mut segments: Vec<Segment> = vec![];
        for (page, (protection, bytes)) in self.all {
            let start = page * PAGE;
            match segments.last_mut() {
                Some(last) if last.protection == protection && last.start + last.bytes.len() as u64 == start => {
                    last.bytes.extend_from_slice(&bytes);
                }
                _ => segments.push(Segment { start, protection, bytes }),
            }
        }
        segments
    }
}
