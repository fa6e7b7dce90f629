//! Collects what a patch consists of: from the functions that changed to all that they need.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

use super::frames::What;
use super::{Copied, Fixup, Form, Goal, Loaded, PAGE, Patch, arrays, frames};
use crate::Comparison;
use crate::classes::Class;
use crate::constants;
use crate::exceptions;
use crate::functions::KnownBy;
use crate::image::{Area, Kind};
use crate::normalise::{Ref, Way};
use crate::reason::{Place, Reason};
use crate::side::{Side, Target};

/// What stands where nothing is loaded in a page with code: `int3`.
pub(super) const TRAP: u8 = 0xcc;
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

pub(super) struct Builder<'a, 'd> {
    pub(super) comparison: &'a Comparison<'d>,
    pub(super) old: &'a Side<'d>,
    pub(super) new: &'a Side<'d>,
    /// Functions of the new file that are loaded, by index.
    pub(super) loaded: BTreeSet<usize>,
    /// Functions that are to be loaded and were not looked into yet.
    pub(super) waiting: Vec<usize>,
    /// Objects of the new file that are loaded: start and end.
    pub(super) tables: BTreeMap<u64, u64>,
    /// Slots that are used.
    pub(super) slots: BTreeSet<u64>,
    /// Stubs that are used, by address.
    pub(super) stubs: BTreeSet<u64>,
    /// By address.
    pub(super) fixups: BTreeMap<u64, (Form, Goal)>,
    pub(super) faults: Vec<Place>,
    /// By address.
    pub(super) copies: BTreeMap<u64, Copied>,
    pub(super) inner: BTreeMap<usize, BTreeSet<usize>>,
    /// For each constant of the new file those of the old one that are equal and used at the same places.
    pub(super) constants: BTreeMap<u64, Vec<u64>>,
    /// Constants of a file with fixed addresses whose pointers were looked at.
    pub(super) constants_loaded: BTreeSet<u64>,
}

impl<'d> Builder<'_, 'd> {
    /// Finds all that is needed. What a reference leads to depends on what is loaded, which grows meanwhile: at last all
    /// are looked at once more.
    pub(super) fn run(&mut self) {
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
    pub(super) fn load_personalities(&mut self) {
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
    pub(super) fn load_named(&mut self, functions: &[(usize, u64)], starts: &BTreeSet<u64>) {
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

    pub(super) fn fault(&mut self, function: usize, new_at: u64) {
        self.faults.push(Place { function: self.new.function_name(function), old_at: 0, new_at });
    }

    /// Returns the function of the old file that goes on in one of the new file.
    pub(super) fn old_of(&self, function: usize) -> Option<usize> {
        self.comparison.matching.new.get(function).copied().flatten()
    }

    /// Looks at what one function needs.
    pub(super) fn load(&mut self, function: usize) {
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
    pub(super) fn check_body(&mut self, function: usize) {
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
    pub(super) fn arrays(&mut self, function: usize, start: u64) -> BTreeSet<u64> {
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
    pub(super) fn moves_by(&self, address: u64) -> Option<u64> {
        let old = match self.new.image.area_at(address) {
            Some(Area::Constant) => self.old_constant(address),
            Some(_) => self.old_object(address),
            None => self.edge(address).and_then(|goal| if let Goal::Old(old) = goal { Some(old) } else { None }),
        };
        old.map(|old| old.wrapping_sub(address))
    }

    /// Corrects one reference of a function that is loaded. Constants in `whole` stay where they are.
    pub(super) fn refer(&mut self, function: usize, start: u64, reference: &Ref, whole: &BTreeSet<u64>) {
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

    /// The types that a function catches stand behind pointers, or are named directly.
    pub(super) fn load_exceptions(&mut self, function: usize) {
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
    pub(super) fn use_pointer(&mut self, place: u64) -> Option<Goal> {
        let written = self.new.image.pointer_at(place)?;
        let goal = self.pointee(written)?;
        self.fixups.insert(place, (Form::Address, goal));
        self.slots.insert(place);
        Some(Goal::New(place))
    }

    pub(super) fn finish(self) -> Result<Patch, Vec<Reason>> {
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
            old: starts / PAGE * PAGE..ends(self.old).div_ceil(PAGE).saturating_mul(PAGE),
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

    pub(super) fn with_unwind(&self) -> impl Iterator<Item = (usize, u64)> {
        self.loaded.iter().filter_map(|index| {
            let function = self.new.functions.get(*index)?;
            (function.known_by == KnownBy::Unwind).then_some((*index, function.start))
        })
    }

    pub(super) fn functions(&self) -> Vec<Loaded> {
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
}
