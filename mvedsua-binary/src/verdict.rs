//! Says whether a running process can go from the old file to the new one, and if not, why.
//!
//! Whatever is not understood is a reason to refuse. Each reason carries what an engineer needs to check it:
//! addresses of both files, and counts.

use std::collections::{BTreeMap, BTreeSet};

use crate::binding::{Bindings, What};
use crate::classes::{Class, Fates};
use crate::data::{Because, Data, Gap};
use crate::image::{Area, SymbolKind, Written};
use crate::layout::{self, Role, Shift};
use crate::matching::Matching;
use crate::normalise::{Ref, Way};
use crate::numbers::Callee;
use crate::reason::{Place, Reason};
use crate::shown::Shown;
use crate::side::{Side, Target};
use crate::transform::{self, Transform};

/// Whether the old version can become the new one in place.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// It can, as far as is known in this way.
    Updatable { certainty: Certainty },
    /// It cannot, or it is not known to.
    Refused { reasons: Vec<Reason> },
}

/// How a verdict came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// From the two files alone, without types.
    Inferred,
    /// The debug files of both say that it is true, and that no type changed.
    Proved,
}

/// All that a verdict is made from.
pub(crate) struct Evidence<'a, 'd> {
    pub(crate) old: &'a Side<'d>,
    pub(crate) new: &'a Side<'d>,
    pub(crate) matching: &'a Matching,
    pub(crate) bindings: &'a Bindings,
    pub(crate) data: &'a Data,
    pub(crate) fates: &'a Fates,
    pub(crate) transforms: &'a [Transform],
    pub(crate) shown: &'a Shown,
}

/// A function of either file that uses a field.
#[derive(Clone, Copy)]
struct User {
    old: Option<usize>,
    new: Option<usize>,
    at: u64,
}

/// How many examples a reason carries.
const EXAMPLES: usize = 8;
/// Two versions are too far apart if more than one function in so many changed, came or went …
const ONE_IN: usize = 10;
/// … and more than so many did.
const FEW: usize = 24;
/// Functions of which less than this share, in per cent, stands beside each other are not compared number by number …
const LEAST_BESIDE: usize = 75;
/// … unless so many places moved by the same distance.
const MANY_ALIKE: u32 = 3;
/// Numbers of at least this size are no sizes and no bounds of memory.
const NO_SIZE: u64 = 1 << 28;

pub(crate) fn judge(evidence: &Evidence<'_, '_>) -> Verdict {
    let mut reasons = vec![];
    evidence.files(&mut reasons);
    evidence.objects(&mut reasons);
    evidence.converted(&mut reasons);
    evidence.layouts(&mut reasons);
    evidence.new_fields(&mut reasons);
    evidence.references(&mut reasons);
    evidence.start_up(&mut reasons);
    evidence.amount(&mut reasons);
    if reasons.is_empty() {
        Verdict::Updatable { certainty: Certainty::Inferred }
    } else {
        Verdict::Refused { reasons }
    }
}

fn first<T: Clone>(all: &[T]) -> Vec<T> {
    all.iter().take(EXAMPLES).cloned().collect()
}

impl Evidence<'_, '_> {
    fn files(&self, reasons: &mut Vec<Reason>) {
        let (old, new) = (&self.old.image, &self.new.image);
        if old.kind != new.kind {
            reasons.push(Reason::OtherKind { old: old.kind.to_string(), new: new.kind.to_string() });
        }
        if old.soname != new.soname {
            let name = |name: Option<&str>| name.unwrap_or("none").to_owned();
            reasons.push(Reason::OtherName { old: name(old.soname), new: name(new.soname) });
        }
        let names: Vec<_> =
            new.needed.iter().filter(|name| !old.needed.contains(name)).map(|n| (*n).to_owned()).collect();
        if !names.is_empty() {
            reasons.push(Reason::NewLibraries { names });
        }
    }

    fn objects(&self, reasons: &mut Vec<Reason>) {
        let contradictions = &self.bindings.contradictions;
        if !contradictions.is_empty() {
            reasons.push(Reason::Contradictions { count: contradictions.len(), first: first(contradictions) });
        }
        if !self.data.other_area.is_empty() {
            let count = self.data.other_area.len();
            reasons.push(Reason::OtherArea { count, first: first(&self.data.other_area) });
        }
        reasons.extend(self.data.resized.iter().take(EXAMPLES).cloned().map(Reason::Resized));
        let is_grown = |gap: &&Gap| gap.because == Because::Unknown && !self.shown.kept.contains(&gap.below.0);
        let grown: Vec<_> = self.data.gaps.iter().filter(is_grown).copied().collect();
        if !grown.is_empty() {
            reasons.push(Reason::Grown { count: grown.len(), first: first(&grown) });
        }
        let differing = &self.data.differing;
        if !differing.is_empty() {
            reasons.push(Reason::InitialValues { count: differing.len(), first: first(differing) });
        }
        if let Some(what) = &self.data.thread_local {
            reasons.push(Reason::ThreadLocal { what: what.clone() });
        }
    }

    /// Sees that what a hook converts can be, and that nothing goes on with the old one where another takes its place.
    fn converted(&self, reasons: &mut Vec<Reason>) {
        for (index, one) in self.transforms.iter().enumerate() {
            let gone = || {
                let uses = |function: &usize| {
                    let mut refs = self.old.bodies.refs(*function).iter();
                    refs.any(|reference| one.old.contains(&reference.target))
                };
                let mut gone = self.fates.changed.iter().filter(|fate| fate.class == Class::Gone);
                let function = gone.find_map(|fate| fate.old.filter(uses))?;
                Some(format!("{} uses it, and has no counterpart", self.old.function_name(function)))
            };
            let same =
                self.bindings.old_of(self.old, self.new, one.new.start).is_some_and(|(old, _)| old == one.old.start);
            let overlaps = |other: &Transform| other.old.start < one.old.end && one.old.start < other.old.end;
            let why = transform::why_it_is_none(one, self.old, self.new)
                .or_else(|| {
                    let other = self.transforms.iter().take(index).find(|other| overlaps(other))?;
                    Some(format!("it overlaps `{}`", other.name))
                })
                .or_else(|| {
                    let (old, new) = (one.old.start, one.new.start);
                    (!same).then(|| format!("nothing shows that {old:#x} of the old file is {new:#x} of the new one"))
                })
                .or_else(|| if one.moves() { transform::why_it_cannot_move(one, self.old, self.new) } else { None })
                .or_else(|| if one.moves() { gone() } else { None });
            reasons.extend(why.map(|why| Reason::NotConverted { name: one.name.clone(), why }));
        }
    }

    /// Says whether a number follows the size of an object that a hook converts, and that a function uses.
    fn follows_size(&self, function: usize, old: u64, new: u64) -> bool {
        let uses = |one: &Transform| {
            let mut refs = self.old.bodies.refs(function).iter();
            refs.any(|reference| one.old.contains(&reference.target))
        };
        self.transforms.iter().any(|one| one.moves() && one.numbers.contains(&(old, new)) && uses(one))
    }

    /// Says whether enough of a function stands beside its old version to compare it number by number.
    fn is_comparable(&self, function: usize) -> bool {
        self.matching.alignments.get(&function).is_some_and(|alignment| {
            alignment.pairs.len() * 200 >= (alignment.old.len() + alignment.new.len()) * LEAST_BESIDE
        })
    }

    fn layouts(&self, reasons: &mut Vec<Reason>) {
        let with = |roles: &[Role]| -> Vec<&(usize, Shift)> {
            let shifts = self.fates.shifts.iter().filter(|(_, shift)| roles.contains(&shift.role) && shift.supported);
            shifts.collect()
        };
        let fields = with(&[Role::Field]);
        let mut alike: BTreeMap<i64, u32> = BTreeMap::new();
        for (_, shift) in &fields {
            *alike.entry(shift.new.wrapping_sub(shift.old)).or_default() += 1;
        }
        let mut moved = vec![];
        for (function, shift) in &fields {
            let by = shift.new.wrapping_sub(shift.old);
            if self.is_comparable(*function) || alike.get(&by).is_some_and(|count| *count >= MANY_ALIKE) {
                moved.push((self.place(*function, shift.old_at, shift.new_at), shift.old, shift.new));
            }
        }
        if !moved.is_empty() {
            let mut by: BTreeMap<i64, u32> = BTreeMap::new();
            for (_, old, new) in &moved {
                *by.entry(new.wrapping_sub(*old)).or_default() += 1;
            }
            reasons.push(Reason::ShiftedFields { places: moved.len(), by, first: first(&moved) });
        }
        for (function, shift) in with(&[Role::ThreadLocal]) {
            let place = self.place(*function, shift.old_at, shift.new_at);
            let what =
                format!("{} uses {:#x} and used {:#x} at {:#x}", place.function, shift.new, shift.old, shift.old_at);
            reasons.push(Reason::ThreadLocal { what });
        }
        let mut numbers = vec![];
        for (function, shift) in with(&[Role::Bound, Role::Count, Role::Arithmetic]) {
            let (old, new) = (shift.old.cast_unsigned(), shift.new.cast_unsigned());
            let size = |value: u64| value < NO_SIZE || value.wrapping_neg() < NO_SIZE;
            if self.is_comparable(*function) && size(old) && size(new) && !self.follows_size(*function, old, new) {
                let place = self.place(*function, shift.old_at, shift.new_at);
                numbers.push(Reason::ChangedNumber { place, role: shift.role.to_string(), old, new });
            }
        }
        for number in self.fates.numbers.iter().filter(|one| !self.follows_size(one.function, one.old, one.new)) {
            let callee = match &number.callee {
                Callee::Import(name) => name.clone(),
                Callee::Function(index) => self.new.function_name(*index),
            };
            let place = self.place(number.function, number.old_at, number.new_at);
            let argument = u32::from(number.argument) + 1;
            let role = format!("argument {argument} of {callee}, perhaps a size");
            numbers.push(Reason::ChangedNumber { place, role, old: number.old, new: number.new });
        }
        reasons.extend(numbers.into_iter().take(2 * EXAMPLES));
    }

    /// Looks for fields that came into the padding of a structure: nothing moves, but old objects do not hold them.
    fn new_fields(&self, reasons: &mut Vec<Reason>) {
        // For each distance who uses it: a changed function, which did not before, or one that is new.
        let mut written: BTreeMap<i64, Vec<User>> = BTreeMap::new();
        let mut read = written.clone();
        let mut add = |user: &dyn Fn(u64) -> User, all: BTreeMap<i64, layout::Uses>| {
            for (distance, uses) in all {
                written.entry(distance).or_default().extend(uses.written.map(user));
                read.entry(distance).or_default().extend(uses.read.map(user));
            }
        };
        for (function, alignment) in &self.matching.alignments {
            add(&|at| User { old: Some(*function), new: None, at }, layout::new_fields(alignment));
        }
        for fresh in self.fates.changed.iter().filter(|fate| fate.class == Class::New) {
            let Some(index) = fresh.new else { continue };
            let all = layout::fields(&crate::align::listing(self.new, index));
            add(&|at| User { old: None, new: Some(index), at }, all);
        }
        let place = |user: &User| match (user.old, user.new) {
            (Some(index), _) => self.place(index, 0, user.at),
            (None, index) => {
                let function = index.map_or_else(String::new, |index| self.new.function_name(index));
                Place { function, old_at: 0, new_at: user.at }
            }
        };
        let mut fields = vec![];
        for (distance, writers) in &written {
            let readers = read.get(distance).map(Vec::as_slice).unwrap_or_default();
            let mut pairs = writers.iter().flat_map(|writer| readers.iter().map(move |reader| (writer, reader)));
            // Of two new functions nothing is known: all their fields are new to them.
            let pair = pairs.find(|(writer, reader)| {
                (writer.old, writer.new) != (reader.old, reader.new) && (writer.old.is_some() || reader.old.is_some())
            });
            fields.extend(pair.map(|(writer, reader)| (*distance, place(writer), place(reader))));
        }
        if !fields.is_empty() {
            reasons.push(Reason::NewFields { count: fields.len(), first: first(&fields) });
        }
    }

    fn place(&self, function: usize, old_at: u64, new_at: u64) -> Place {
        Place { function: self.old.function_name(function), old_at, new_at }
    }

    /// Returns the addresses of data that are neither bound nor shown to be new and that new or changed code uses: who uses it,
    /// where, and the address.
    pub(crate) fn unbound(&self) -> Vec<(String, u64, u64)> {
        let mut unbound = vec![];
        let mut tables = BTreeSet::new();
        for (g, at, reference) in self.loaded_references() {
            match self.new.resolve(reference.target).target {
                Target::Object(address) if !self.is_known(address, reference.way) => {
                    if self.new.image.area_at(address) == Some(Area::Relro) {
                        tables.insert(address);
                    } else {
                        unbound.push((self.new.function_name(g), at, address));
                    }
                }
                _ => {}
            }
        }
        self.follow_tables(tables, &mut unbound);
        unbound
    }

    /// Returns the references of the code that would be loaded: the function of the new file, the place, and the reference.
    fn loaded_references(&self) -> impl Iterator<Item = (usize, u64, &Ref)> {
        let loaded = self.fates.changed.iter().filter(|fate| fate.class != Class::LineNumbers);
        loaded.filter_map(|fate| fate.new).flat_map(|g| {
            let start = self.new.functions.get(g).map_or(0, |function| function.start);
            self.new.bodies.refs(g).iter().map(move |reference| (g, start + u64::from(reference.at), reference))
        })
    }

    /// Looks at what the code refers to that would be loaded.
    fn references(&self, reasons: &mut Vec<Reason>) {
        let mut unknown = vec![];
        let mut thread_local = BTreeSet::new();
        for (g, at, reference) in self.loaded_references() {
            match self.new.resolve(reference.target).target {
                // The end of a section is the same place of the old file.
                Target::Edge(name, _) if self.old.image.sections.iter().any(|section| section.name == name) => {}
                Target::Unknown(_) | Target::StrayCode(_) | Target::Edge(..) => {
                    unknown.push(Place { function: self.new.function_name(g), old_at: 0, new_at: at });
                }
                Target::ThreadLocal(kind, name, addend) => {
                    let written = Written::ThreadLocal(kind, name, addend);
                    if !self.old.image.relocations.iter().any(|relocation| relocation.written == written) {
                        let user = self.new.function_name(g);
                        thread_local.insert(format!("{user} uses what the old version has no slot for"));
                    }
                }
                _ => {}
            }
        }
        let unbound = self.unbound();
        if !unbound.is_empty() {
            reasons.push(Reason::Unbound { count: unbound.len(), first: first(&unbound) });
        }
        if !unknown.is_empty() {
            let what = "a reference of changed code".to_owned();
            reasons.push(Reason::NotUnderstood { what, count: unknown.len(), first: first(&unknown) });
        }
        reasons.extend(thread_local.into_iter().take(EXAMPLES).map(|what| Reason::ThreadLocal { what }));
        let callbacks = self.other_callbacks();
        if !callbacks.is_empty() {
            reasons.push(Reason::OtherCallback { count: callbacks.len(), first: first(&callbacks) });
        }
        let strange = self.bindings.elsewhere.iter().filter(|one| matches!(one.what, What::Unknown | What::Kind));
        let strange: Vec<_> = strange.map(|one| self.place(one.function, one.at, 0)).collect();
        if !strange.is_empty() {
            let what = "what a function with an equal body refers to".to_owned();
            reasons.push(Reason::NotUnderstood { what, count: strange.len(), first: first(&strange) });
        }
        let other = self.old.image.relocations.iter().chain(&self.new.image.relocations);
        let count = other.filter(|relocation| matches!(relocation.written, Written::Unknown(_))).count();
        if count > 0 {
            let what = "relocations of types that are not known".to_owned();
            reasons.push(Reason::NotUnderstood { what, count, first: vec![] });
        }
    }

    /// Returns the places that take the address of another function than before, at instructions that stand beside
    /// each other.
    fn other_callbacks(&self) -> Vec<Place> {
        let mut found = vec![];
        let mut look = |function: usize, (a, old_at): (&Ref, u64), (b, new_at): (&Ref, u64)| {
            let (x, y) = (self.old.resolve(a.target).target, self.new.resolve(b.target).target);
            let functions = matches!((x, y), (Target::Code(_, 0), Target::Code(_, 0)));
            if a.way == Way::Address && functions && !self.matching.corresponds(x, y) {
                found.push(self.place(function, old_at, new_at));
            }
        };
        for (function, alignment) in &self.matching.alignments {
            for pair in alignment.pairs.iter().filter(|pair| layout::is_supported(pair, alignment)) {
                let (Some(left), Some(right)) = (alignment.old.get(pair.old), alignment.new.get(pair.new)) else {
                    continue;
                };
                for (a, b) in left.refs.iter().zip(&right.refs) {
                    look(*function, (a, left.instruction.ip()), (b, right.instruction.ip()));
                }
            }
        }
        let elsewhere: BTreeSet<usize> = self.bindings.elsewhere.iter().map(|one| one.function).collect();
        for function in elsewhere {
            let Some(other) = self.matching.old.get(function).copied().flatten() else { continue };
            let start = |side: &Side<'_>, index: usize| side.functions.get(index).map_or(0, |function| function.start);
            let (from, to) = (start(self.old, function), start(self.new, other.new));
            for (a, b) in self.old.bodies.refs(function).iter().zip(self.new.bodies.refs(other.new)) {
                look(function, (a, from + u64::from(a.at)), (b, to + u64::from(b.at)));
            }
        }
        found
    }

    /// Says whether an address of the new file is an old object, or is shown to be a new one.
    fn is_known(&self, address: u64, way: Way) -> bool {
        if self.data.moved_to.contains(address) || self.shown.fresh.contains(address) {
            return true;
        }
        if let Some((old, _)) = self.bindings.old_of(self.old, self.new, address) {
            return self.old.image.area_at(old) == self.new.image.area_at(address);
        }
        // An object with a name that the old file does not have.
        if let Some(symbol) = self.new.image.object_around(address) {
            return !self.old.all_names.contains(symbol.name);
        }
        // What is only accessed directly, behind something whose end is known.
        matches!(way, Way::Access(size) if size > 0) && self.new.is_closed_before(address)
    }

    /// Looks at the pointers of read-only tables that would be loaded with the new code.
    fn follow_tables(&self, tables: BTreeSet<u64>, unbound: &mut Vec<(String, u64, u64)>) {
        let mut waiting: Vec<u64> = tables.iter().copied().collect();
        let mut seen = tables;
        while let Some(table) = waiting.pop() {
            let extent = self.new.object_extent(table);
            for relocation in self.new.image.relocations_in(table..table.saturating_add(extent)) {
                let Target::Object(address) = self.new.pointee(relocation.written) else { continue };
                if self.is_known(address, Way::Address) || !seen.insert(address) {
                    continue;
                }
                if self.new.image.area_at(address) == Some(Area::Relro) {
                    waiting.push(address);
                } else {
                    unbound.push((format!("the table at {table:#x}"), relocation.place, address));
                }
            }
        }
    }

    fn start_up(&self, reasons: &mut Vec<Reason>) {
        let mut what = self.data.start_up.clone();
        let changed: BTreeMap<usize, &str> = self
            .fates
            .changed
            .iter()
            .filter(|fate| fate.class.is_change() || fate.class == Class::Gone)
            .filter_map(|fate| Some((fate.old?, "")))
            .collect();
        let changed = |index: usize| changed.contains_key(&index);
        for index in self.entry_functions().into_iter().filter(|index| changed(*index)) {
            what.push(format!("{}, which the entry of the program starts, changed", self.old.function_name(index)));
        }
        for section in self.old.image.sections.iter().filter(|s| matches!(s.name, ".init_array" | ".preinit_array")) {
            for place in (section.start..section.end).step_by(8).take(1 << 16) {
                if let Some(written) = self.old.image.pointer_at(place)
                    && let Target::Code(index, 0) = self.old.pointee(written)
                    && changed(index as usize)
                {
                    what.push(format!("{}, which runs at the start, changed", self.old.function_name(index as usize)));
                }
            }
        }
        if !what.is_empty() {
            reasons.push(Reason::StartUp { what });
        }
        let mut resolvers: BTreeSet<usize> = BTreeSet::new();
        for relocation in &self.old.image.relocations {
            if let Written::Resolved(address) = relocation.written {
                resolvers.extend(self.old.function_at(address));
            }
        }
        let ifuncs = self.old.image.symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Resolver);
        resolvers.extend(ifuncs.filter_map(|symbol| self.old.function_at(symbol.address)));
        let functions: Vec<_> =
            resolvers.into_iter().filter(|index| changed(*index)).map(|index| self.old.function_name(index)).collect();
        if !functions.is_empty() {
            reasons.push(Reason::Resolver { functions });
        }
    }

    /// Returns the entry of an executable, and `main`: what the entry gives to the C library by its address.
    fn entry_functions(&self) -> Vec<usize> {
        if self.old.image.kind == crate::image::Kind::Shared {
            return vec![];
        }
        let Some(entry) = self.old.function_at(self.old.image.entry) else { return vec![] };
        let mut found = vec![entry];
        for reference in self.old.bodies.refs(entry).iter().filter(|reference| reference.way == Way::Address) {
            found.extend(self.old.function_at(reference.target));
        }
        found
    }

    fn amount(&self, reasons: &mut Vec<Reason>) {
        let counts =
            |fate: &&crate::classes::Fate| fate.class.is_change() || matches!(fate.class, Class::New | Class::Gone);
        let changed = self.fates.changed.iter().filter(counts).count();
        let functions = self.old.functions.len().max(self.new.functions.len());
        if changed > FEW && changed * ONE_IN > functions {
            reasons.push(Reason::TooMuch { changed, functions });
        }
    }
}
