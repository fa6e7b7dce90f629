//! Says which object of the new file is which of the old one.
//!
//! A *witness* is a place that says so: an operand at the same place of two functions with equal bodies, a symbol of
//! the same name, a pointer at the same place of two tables that are the same object. These are strong. An operand of
//! instructions that stand beside each other in a changed function is weak: it counts only where nothing strong is
//! known of either address, all weak witnesses agree, and the order of the objects stays. Two strong witnesses that
//! disagree are a *contradiction*.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::constants;
use crate::exceptions;
use crate::image::{Area, SymbolKind, Written};
use crate::layout;
use crate::matching::{self, Matching};
use crate::normalise::Way;
use crate::side::{Side, Target};

/// How an object became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BoundBy {
    /// Functions with equal bodies refer to it at the same place.
    Code,
    /// It has a name.
    Symbol,
    /// Tables point to it at the same place.
    Table,
    /// Changed functions refer to it at instructions that stand beside each other.
    Alignment,
    /// It lies between two bound objects that have the same distance from each other as before.
    Between,
}

/// One address of data that is the same object in both files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Binding {
    pub old: u64,
    pub new: u64,
    /// The best witness.
    pub by: BoundBy,
    /// How many witnesses say so.
    pub seen: u32,
}

/// Strong witnesses that disagree about an address.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Contradiction {
    /// What each witness says: the address in the old file, in the new one, how often, and one place in the old code.
    pub claims: Vec<Claim>,
}

/// What some witnesses say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Claim {
    pub old: u64,
    pub new: u64,
    pub seen: u32,
    /// An instruction, or a place in a table, of the old file that says so.
    pub witness: u64,
}

/// A reference of a function with an equal body that leads elsewhere than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Elsewhere {
    /// The function of the old file, by index.
    #[serde(skip)]
    pub function: usize,
    /// The instruction in the old file.
    pub at: u64,
    pub what: What,
}

/// In what a reference differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It calls another function, or jumps to another place in one.
    Function,
    /// It uses another symbol of another file.
    Import,
    /// The text, number or table has other content.
    Constant,
    /// It uses another object.
    Object,
    /// It catches other exceptions.
    Exceptions,
    /// What was of one kind is of another one.
    Kind,
    /// It is not understood.
    Unknown,
}

/// All that is known of the data of both files.
#[derive(Debug, Default)]
pub struct Bindings {
    /// By the old address.
    pub old: BTreeMap<u64, Binding>,
    /// By the new address the old one.
    pub new: BTreeMap<u64, u64>,
    pub contradictions: Vec<Contradiction>,
    pub elsewhere: Vec<Elsewhere>,
    /// Constants that functions with equal bodies refer to at the same place, and that are equal.
    pub constants: BTreeMap<u64, BTreeSet<u64>>,
}

impl Bindings {
    /// Returns the old address of an object of the new file: known itself, or between two known ones that moved alike.
    #[must_use]
    pub fn old_of(&self, old: &Side<'_>, new: &Side<'_>, address: u64) -> Option<(u64, BoundBy)> {
        if let Some(bound) = self.new.get(&address) {
            return Some((*bound, self.old.get(bound).map_or(BoundBy::Between, |binding| binding.by)));
        }
        // A part of an object whose name and size both files know.
        if let Some(symbol) = new.image.object_around(address)
            && let Some((start, size)) = old.names.get(symbol.name)
            && *size == symbol.size
        {
            return Some((start + (address - symbol.address), BoundBy::Symbol));
        }
        let section = new.image.section_at(address)?;
        let (below, below_old) = self.new.range(section.start..address).next_back()?;
        let (above, above_old) = self.new.range(address + 1..section.end).next()?;
        let candidate = below_old.checked_add(address - below)?;
        let same_distance = above_old.checked_sub(*below_old) == Some(above - below);
        let area = old.image.area_at(candidate)?;
        (same_distance && area == section.area).then_some((candidate, BoundBy::Between))
    }
}

#[derive(Clone, Copy, Debug)]
struct Evidence {
    strong: u32,
    weak: u32,
    by: BoundBy,
    witness: u64,
}

struct Collector<'a, 'd> {
    old: &'a Side<'d>,
    new: &'a Side<'d>,
    matching: &'a Matching,
    evidence: BTreeMap<(u64, u64), Evidence>,
    /// Pairs whose pointers were not followed yet.
    tables: Vec<(u64, u64)>,
    followed: HashSet<(u64, u64)>,
    /// Types that a function catches: the function, and the type in either file.
    caught: Vec<(usize, u64, u64)>,
    found: Bindings,
}

/// Binds the data of two files whose functions are matched.
#[must_use]
pub fn bind(old: &Side<'_>, new: &Side<'_>, matching: &Matching) -> Bindings {
    let mut collector = Collector {
        old,
        new,
        matching,
        evidence: BTreeMap::new(),
        tables: vec![],
        followed: HashSet::new(),
        caught: vec![],
        found: Bindings::default(),
    };
    collector.ask_symbols();
    collector.ask_code();
    collector.ask_tables();
    collector.ask_alignments();
    collector.decide();
    collector.check_caught();
    collector.found
}

impl Collector<'_, '_> {
    fn strong(&mut self, old: u64, new: u64, by: BoundBy, witness: u64) {
        let evidence = self.evidence.entry((old, new)).or_insert(Evidence { strong: 0, weak: 0, by, witness });
        evidence.strong = evidence.strong.saturating_add(1);
        if by < evidence.by {
            (evidence.by, evidence.witness) = (by, witness);
        }
        if self.followed.insert((old, new)) {
            self.tables.push((old, new));
        }
    }

    fn ask_symbols(&mut self) {
        for (name, (old, _)) in self.old.names.clone() {
            if let Some((new, _)) = self.new.names.get(name).copied()
                && self.old.image.area_at(old).is_some_and(crate::image::Area::is_object)
                && self.new.image.area_at(new).is_some_and(crate::image::Area::is_object)
            {
                self.strong(old, new, BoundBy::Symbol, old);
            }
        }
        let copied = |side: &Side<'_>| -> BTreeMap<String, u64> {
            let relocations = side.image.relocations.iter();
            relocations
                .filter_map(|relocation| match relocation.written {
                    Written::Copied(name) => Some((name.to_owned(), relocation.place)),
                    Written::Address(_)
                    | Written::Symbol(..)
                    | Written::Resolved(_)
                    | Written::ThreadLocal(..)
                    | Written::Unknown(_) => None,
                })
                .collect()
        };
        let new = copied(self.new);
        for (name, old) in copied(self.old) {
            if let Some(new) = new.get(&name) {
                self.strong(old, *new, BoundBy::Symbol, old);
            }
        }
    }

    fn ask_code(&mut self) {
        for f in 0..self.old.functions.len() {
            let Some(found) = self.matching.old.get(f).copied().flatten().filter(|found| found.equal) else { continue };
            let start = self.old.functions.get(f).map_or(0, |function| function.start);
            let (old, new) = (self.old, self.new);
            for (a, b) in old.bodies.refs(f).iter().zip(new.bodies.refs(found.new)) {
                let at = start + u64::from(a.at);
                let (x, y) = (old.resolve(a.target), new.resolve(b.target));
                let what = if x.through_slot == y.through_slot {
                    self.compare(f, x.target, found.new, y.target, a.way, at)
                } else {
                    Some(What::Kind)
                };
                if let Some(what) = what {
                    self.found.elsewhere.push(Elsewhere { function: f, at, what });
                }
            }
            let caught =
                |side: &Side<'_>, index: usize| side.functions.get(index).and_then(|function| function.exceptions);
            let tables = ((old, caught(old, f)), (new, caught(new, found.new)));
            let same = exceptions::are_equal(tables.0, tables.1, |x, y| match (x, y) {
                // Whether these are the same is known when all objects are bound.
                (Target::Object(a), Target::Object(b)) => {
                    self.caught.push((f, a, b));
                    true
                }
                _ => self.compare(f, x, found.new, y, Way::Address, start).is_none(),
            });
            if !same {
                self.found.elsewhere.push(Elsewhere { function: f, at: start, what: What::Exceptions });
            }
        }
    }

    /// Compares what two references at the same place lead to, and takes note of what that says of objects.
    fn compare(&mut self, f: usize, x: Target<'_>, g: usize, y: Target<'_>, way: Way, at: u64) -> Option<What> {
        match (x, y) {
            (Target::Object(a), Target::Object(b)) => {
                // Two names that both files know are two objects.
                if let (Some(old), Some(new)) = (self.name_at(self.old, a), self.name_at(self.new, b))
                    && old != new
                    && self.new.names.contains_key(old)
                    && self.old.names.contains_key(new)
                {
                    return Some(What::Object);
                }
                self.strong(a, b, BoundBy::Code, at);
                None
            }
            (Target::Code(..), Target::Code(..)) => (!self.matching.corresponds(x, y)).then_some(What::Function),
            (Target::Import(..), Target::Import(..)) => (x != y).then_some(What::Import),
            (Target::ThreadLocal(..), Target::ThreadLocal(..)) => (x != y).then_some(What::Import),
            (Target::Edge(..), Target::Edge(..)) => (x != y).then_some(What::Unknown),
            (Target::Constant(a), Target::Constant(b)) => {
                let Some(places) = constants::compare((self.old, f, a), (self.new, g, b), way) else {
                    return Some(What::Constant);
                };
                self.found.constants.entry(a).or_default().insert(b);
                let mut worst = None;
                for (x, y) in places {
                    let (x, y) = (self.old.resolve(x).target, self.new.resolve(y).target);
                    let difference = match (x, y) {
                        // Texts within tables of constants.
                        (Target::Constant(a), Target::Constant(b)) => {
                            let same = self.old.text_at(a).is_some() && self.old.text_at(a) == self.new.text_at(b);
                            (!same).then_some(What::Constant)
                        }
                        _ => self.compare(f, x, g, y, Way::Address, at),
                    };
                    worst = worst.max(difference);
                }
                worst
            }
            // Where no gap is left between two sections the end of one is the start of the next.
            (Target::Edge(name, 0), Target::Object(b)) => (!follows(self.new, name, b)).then_some(What::Unknown),
            (Target::Object(a), Target::Edge(name, 0)) => (!follows(self.old, name, a)).then_some(What::Unknown),
            (Target::Resolved(a), Target::Resolved(b)) => {
                (!self.matching.corresponds(self.old.code(a), self.new.code(b))).then_some(What::Function)
            }
            (Target::Unknown(_) | Target::StrayCode(_), _) | (_, Target::Unknown(_) | Target::StrayCode(_)) => {
                Some(What::Unknown)
            }
            _ => Some(What::Kind),
        }
    }

    /// Returns the name of the object that starts at an address, if it is the name of nothing else.
    fn name_at<'d>(&self, side: &Side<'d>, address: u64) -> Option<&'d str> {
        let mut symbols =
            side.image.symbols_at(address).filter(|symbol| symbol.kind == SymbolKind::Object && symbol.size > 0);
        symbols.find(|symbol| side.names.contains_key(symbol.name)).map(|symbol| symbol.name)
    }

    fn ask_tables(&mut self) {
        loop {
            while let Some((a, b)) = self.tables.pop() {
                let extent = self.old.object_extent(a).min(self.new.object_extent(b));
                let types = (type_of_table(self.old, a), type_of_table(self.new, b));
                let before = types.0.zip(types.1);
                for (x, y) in matching::pointers(self.old, self.new, a, b, extent).into_iter().chain(before) {
                    if let (Target::Object(x), Target::Object(y)) = (self.old.pointee(x), self.new.pointee(y)) {
                        self.strong(x, y, BoundBy::Table, a);
                    }
                }
            }
            self.tables_between();
            if self.tables.is_empty() {
                return;
            }
        }
    }

    /// Has the pointers followed of what lies between two bound objects that kept their distance.
    fn tables_between(&mut self) {
        let known: Vec<_> = self.evidence.keys().copied().collect();
        for pair in known.windows(2) {
            let [(below, below_new), (above, above_new)] = pair else { continue };
            if above.checked_sub(*below) != above_new.checked_sub(*below_new) {
                continue;
            }
            let from = self.old.objects.partition_point(|anchor| anchor.address <= *below);
            let between = self.old.objects.iter().skip(from).take_while(|anchor| anchor.address < *above);
            for anchor in between {
                let there = (anchor.address, below_new + (anchor.address - below));
                if self.followed.insert(there) {
                    self.tables.push(there);
                }
            }
        }
    }

    fn ask_alignments(&mut self) {
        for alignment in self.matching.alignments.values() {
            for pair in alignment.pairs.iter().filter(|pair| layout::is_supported(pair, alignment)) {
                let (Some(left), Some(right)) = (alignment.old.get(pair.old), alignment.new.get(pair.new)) else {
                    continue;
                };
                for (a, b) in left.refs.iter().zip(&right.refs) {
                    let (x, y) = (self.old.resolve(a.target), self.new.resolve(b.target));
                    if let (Target::Object(x), Target::Object(y)) = (x.target, y.target)
                        && a.way == b.way
                    {
                        let fresh =
                            Evidence { strong: 0, weak: 0, by: BoundBy::Alignment, witness: left.instruction.ip() };
                        let evidence = self.evidence.entry((x, y)).or_insert(fresh);
                        evidence.weak = evidence.weak.saturating_add(1);
                    }
                }
            }
        }
    }

    fn decide(&mut self) {
        let (mut by_old, mut by_new) = (BTreeMap::<u64, Vec<Claim>>::new(), BTreeMap::<u64, Vec<Claim>>::new());
        for ((old, new), evidence) in self.evidence.iter().filter(|(_, evidence)| evidence.strong > 0) {
            let claim = Claim { old: *old, new: *new, seen: evidence.strong, witness: evidence.witness };
            by_old.entry(*old).or_default().push(claim);
            by_new.entry(*new).or_default().push(claim);
            self.found.old.entry(*old).or_insert(Binding {
                old: *old,
                new: *new,
                by: evidence.by,
                seen: evidence.strong.saturating_add(evidence.weak),
            });
            self.found.new.entry(*new).or_insert(*old);
        }
        let disagreeing = by_old.values().chain(by_new.values()).filter(|claims| claims.len() > 1);
        self.found.contradictions = disagreeing.map(|claims| Contradiction { claims: claims.clone() }).collect();
        self.decide_weak();
    }

    /// Checks that what functions with equal bodies catch is the same type.
    fn check_caught(&mut self) {
        for (function, a, b) in std::mem::take(&mut self.caught) {
            if self.found.old.get(&a).is_none_or(|bound| bound.new != b) {
                let at = self.old.functions.get(function).map_or(0, |function| function.start);
                self.found.elsewhere.push(Elsewhere { function, at, what: What::Exceptions });
            }
        }
    }

    /// Takes weak witnesses where nothing strong is known and none disagrees.
    fn decide_weak(&mut self) {
        let (mut by_old, mut by_new) = (BTreeMap::<u64, u32>::new(), BTreeMap::<u64, u32>::new());
        let weak: Vec<_> = self
            .evidence
            .iter()
            .filter(|((old, new), _)| !self.found.old.contains_key(old) && !self.found.new.contains_key(new))
            .map(|(pair, evidence)| (*pair, *evidence))
            .collect();
        for ((old, new), _) in &weak {
            *by_old.entry(*old).or_default() += 1;
            *by_new.entry(*new).or_default() += 1;
        }
        let mut accepted = vec![];
        for ((old, new), evidence) in weak {
            let alone = by_old.get(&old) == Some(&1) && by_new.get(&new) == Some(&1);
            let area = self.old.image.area_at(old);
            if alone && area == self.new.image.area_at(new) && self.keeps_order(old, new) {
                accepted.push(Binding { old, new, by: BoundBy::Alignment, seen: evidence.weak });
            }
        }
        for binding in &accepted {
            self.found.old.insert(binding.old, *binding);
            self.found.new.insert(binding.new, binding.old);
        }
        self.follow_weak(accepted);
    }

    /// What an object that weak witnesses know points to is known as weakly.
    fn follow_weak(&mut self, mut waiting: Vec<Binding>) {
        while let Some(from) = waiting.pop() {
            let extent = self.old.object_extent(from.old).min(self.new.object_extent(from.new));
            let types = (type_of_table(self.old, from.old), type_of_table(self.new, from.new));
            let before = types.0.zip(types.1);
            for (x, y) in matching::pointers(self.old, self.new, from.old, from.new, extent).into_iter().chain(before) {
                let (Target::Object(old), Target::Object(new)) = (self.old.pointee(x), self.new.pointee(y)) else {
                    continue;
                };
                let unknown = !self.found.old.contains_key(&old) && !self.found.new.contains_key(&new);
                let area = self.old.image.area_at(old);
                if unknown && area == self.new.image.area_at(new) && self.keeps_order(old, new) {
                    let binding = Binding { old, new, by: BoundBy::Alignment, seen: 1 };
                    self.found.old.insert(old, binding);
                    self.found.new.insert(new, old);
                    waiting.push(binding);
                }
            }
        }
    }

    /// Says whether a pair lies between the neighbours of either address that are known to be the same.
    fn keeps_order(&self, old: u64, new: u64) -> bool {
        let below = self.found.old.range(..old).next_back().is_none_or(|(_, binding)| binding.new < new);
        let above = self.found.old.range(old..).next().is_none_or(|(_, binding)| new < binding.new);
        below && above
    }
}

/// Returns the pointer to the type that stands before a table of virtual functions, if an address is the start of one.
///
/// Objects point behind the table's head, which is two words: a distance, and the type (Itanium C++ ABI, 2.5.2).
fn type_of_table<'d>(side: &Side<'d>, address: u64) -> Option<Written<'d>> {
    let first = side.image.pointer_at(address)?;
    let is_code = matches!(side.pointee(first), Target::Code(_, 0) | Target::Import(..));
    let head = address.checked_sub(16)?;
    let has_distance = side.image.pointer_at(head).is_none() && side.image.bytes_at(head, 8).is_some();
    let before = side.image.pointer_at(address - 8)?;
    let is_type =
        matches!(side.pointee(before), Target::Object(type_) if side.image.area_at(type_) == Some(Area::Relro));
    (is_code && has_distance && is_type).then_some(before)
}

/// Says whether an address is the end of a section by name, and the start of the next.
fn follows(side: &Side<'_>, name: &str, address: u64) -> bool {
    side.image.sections.iter().any(|section| section.name == name && section.end == address)
}
