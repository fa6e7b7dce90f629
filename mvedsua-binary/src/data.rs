//! Compares the data of two files whose objects are bound.
//!
//! The process keeps its old objects, so the new code must find in them what it expects: the same size, the same
//! place of each part, the same initial value (unless the program wrote another one since). What can differ: pointers
//! to things that correspond.

use std::collections::{BTreeMap, BTreeSet};

use crate::binding::Bindings;
use crate::constants;
use crate::image::{Area, Kind, SymbolKind, Written};
use crate::matching::Matching;
use crate::side::{Side, Target};
use crate::texts;
use crate::transform::{Spans, Transform};

/// An object with a name that has another size than before.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Resized {
    pub name: String,
    pub old: u64,
    pub new: u64,
    pub old_size: u64,
    pub new_size: u64,
}

/// Two bound objects that lie at another distance from each other than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// The lower object in the old and the new file.
    pub below: (u64, u64),
    /// The upper one.
    pub above: (u64, u64),
    pub by: i64,
    pub because: Because,
}

/// Why a distance changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// What fills the space up to an aligned object is of another length.
    Padding,
    /// An object came, went or moved between objects whose ends are known.
    OtherObject,
    /// The lower one is, or belongs to, an object that a hook converts into another one.
    Converted,
    /// An object may have grown: nothing shows where the lower one ends.
    Unknown,
}

/// An initial value that is not the same.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Differing {
    pub old: u64,
    pub new: u64,
    /// The section in the old file.
    pub section: String,
    /// What stands there, in words.
    pub before: String,
    pub after: String,
}

/// What the comparison of data found.
#[derive(Debug, Default)]
pub struct Data {
    pub resized: Vec<Resized>,
    /// Objects that were in another area before, such as one that became read-only: old and new address.
    pub other_area: Vec<(u64, u64)>,
    pub gaps: Vec<Gap>,
    pub differing: Vec<Differing>,
    /// Texts of objects that differ in line numbers only.
    pub line_texts: usize,
    /// Texts of objects that differ in the digits of a version or a date only: the old ones, by address.
    pub version_texts: BTreeMap<u64, String>,
    /// Read-only tables that differ and that only code refers to: where they are in the old file. Whoever uses one has
    /// changed.
    pub replaced: Spans,
    /// Objects in whose place the new version has another one, which a hook fills: where they are in the old file, and where
    /// the others are in the new one. Whoever uses one has changed.
    pub moved: Spans,
    pub moved_to: Spans,
    /// Differences in the lists of functions that run at the start or the end.
    pub start_up: Vec<String>,
    /// What differs in thread-local storage.
    pub thread_local: Option<String>,
}

/// Compares the data of two files.
#[must_use]
pub fn compare(
    old: &Side<'_>,
    new: &Side<'_>,
    matching: &Matching,
    bindings: &Bindings,
    transforms: &[Transform],
) -> Data {
    let moving = || transforms.iter().filter(|one| one.moves());
    let found = Data {
        moved: moving().map(|one| one.old.clone()).collect(),
        moved_to: moving().map(|one| one.new.clone()).collect(),
        ..Data::default()
    };
    let mut comparer = Comparer { old, new, matching, bindings, transforms, found };
    comparer.sizes();
    comparer.areas();
    comparer.gaps();
    comparer.tails();
    comparer.values();
    comparer.start_up();
    comparer.thread_local();
    comparer.set_tables_aside();
    comparer.set_converted_aside();
    comparer.found
}

struct Comparer<'a, 'd> {
    old: &'a Side<'d>,
    new: &'a Side<'d>,
    matching: &'a Matching,
    bindings: &'a Bindings,
    transforms: &'a [Transform],
    found: Data,
}

/// The lists of functions that the loader calls.
const LISTS: [&str; 3] = [".preinit_array", ".init_array", ".fini_array"];

impl Comparer<'_, '_> {
    fn sizes(&mut self) {
        for symbol in self.old.image.symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Object) {
            // Constants are compared by who uses them.
            if !self.old.image.area_at(symbol.address).is_some_and(Area::is_object) {
                continue;
            }
            if self.old.names.contains_key(symbol.name)
                && let Some((new, new_size)) = self.new.names.get(symbol.name).copied()
                && new_size != symbol.size
            {
                self.found.resized.push(Resized {
                    name: symbol.name.to_owned(),
                    old: symbol.address,
                    new,
                    old_size: symbol.size,
                    new_size,
                });
            }
        }
    }

    fn areas(&mut self) {
        let area = |side: &Side<'_>, address| side.image.area_at(address);
        let moved = self.bindings.old.values().filter(|bound| area(self.old, bound.old) != area(self.new, bound.new));
        self.found.other_area = moved.map(|bound| (bound.old, bound.new)).collect();
    }

    fn gaps(&mut self) {
        let bound: Vec<_> = self.bindings.old.values().collect();
        for pair in bound.windows(2) {
            let [below, above] = pair else { continue };
            let Some(section) = self.old.image.section_at(below.old) else { continue };
            if above.old >= section.end {
                continue;
            }
            let before = (above.old - below.old).cast_signed();
            let after = above.new.wrapping_sub(below.new).cast_signed();
            let by = after.wrapping_sub(before);
            if by == 0 {
                continue;
            }
            let align = 1u64 << above.old.trailing_zeros().min(above.new.trailing_zeros()).min(6);
            let padding = after > 0 && by.unsigned_abs() < align && below.new.wrapping_sub(below.old) % align != 0;
            let because = if padding {
                Because::Padding
            } else if self.old.is_closed_before(above.old) && self.new.is_closed_before(above.new) {
                Because::OtherObject
            } else {
                Because::Unknown
            };
            self.found.gaps.push(Gap { below: (below.old, below.new), above: (above.old, above.new), by, because });
        }
    }

    /// Looks at what lies behind the last bound object of each section.
    fn tails(&mut self) {
        for section in self.old.image.sections.iter().filter(|section| section.area.is_object()) {
            let Some((_, last)) = self.bindings.old.range(section.start..section.end).next_back() else { continue };
            let Some(there) = self.new.image.section_at(last.new) else { continue };
            let (before, after) = (section.end - last.old, there.end - last.new);
            if before == after || LISTS.contains(&section.name) {
                continue;
            }
            let closed = self.old.is_closed_in(section, section.end) && self.new.is_closed_in(there, there.end);
            self.found.gaps.push(Gap {
                below: (last.old, last.new),
                above: (section.end, there.end),
                by: after.wrapping_sub(before).cast_signed(),
                because: if closed { Because::OtherObject } else { Because::Unknown },
            });
        }
    }

    fn values(&mut self) {
        let old = self.old;
        for section in &old.image.sections {
            let listed = section.name == ".dynamic" || LISTS.contains(&section.name);
            if !matches!(section.area, Area::Data | Area::Relro) || listed {
                continue;
            }
            let mut bound: Vec<_> =
                self.bindings.old.range(section.start..section.end).map(|(old, bound)| (*old, bound.new)).collect();
            let there = self.new.image.sections.iter().find(|other| other.name == section.name);
            if bound.first().is_none_or(|(first, _)| *first != section.start)
                && let Some(there) = there
            {
                bound.insert(0, (section.start, there.start));
            }
            let ends = bound.iter().skip(1).map(|(next, _)| *next).chain([section.end]).collect::<Vec<_>>();
            for ((a, b), end) in bound.iter().zip(ends) {
                let until = self.bindings.new.range(b + 1..).next().map_or(u64::MAX, |(next, _)| *next);
                let until = until.min(self.new.image.section_at(*b).map_or(*b, |section| section.end));
                self.range(section.name, *a, *b, (end - a).min(until.saturating_sub(*b)));
            }
        }
    }

    /// Compares initial values from two places on.
    fn range(&mut self, section: &str, a: u64, b: u64, len: u64) {
        let mut slots: BTreeMap<u64, (Option<Written<'_>>, Option<Written<'_>>)> = BTreeMap::new();
        for relocation in self.old.image.relocations_in(a..a + len) {
            slots.entry(relocation.place - a).or_default().0 = Some(relocation.written);
        }
        for relocation in self.new.image.relocations_in(b..b + len) {
            slots.entry(relocation.place - b).or_default().1 = Some(relocation.written);
        }
        if self.old.image.kind == Kind::Fixed {
            for at in (a.next_multiple_of(8)..a + len).step_by(8).map(|place| place - a).take(1 << 20) {
                let pointers = (self.old.image.pointer_at(a + at), self.new.image.pointer_at(b + at));
                if let (Some(_), Some(_)) = pointers {
                    slots.insert(at, pointers);
                }
            }
        }
        for (at, pointers) in &slots {
            let same = match pointers {
                (Some(x), Some(y)) => self.same_pointer(*x, *y),
                _ => false,
            };
            if !same {
                let words = |side: &Side<'_>, written: &Option<Written<'_>>| match written {
                    Some(written) => describe(side, *written),
                    None => "no pointer".to_owned(),
                };
                self.found.differing.push(Differing {
                    old: a + at,
                    new: b + at,
                    section: section.to_owned(),
                    before: words(self.old, &pointers.0),
                    after: words(self.new, &pointers.1),
                });
            }
        }
        self.bytes(section, a, b, len, &|at| slots.range(at.saturating_sub(7)..=at).next().is_some());
    }

    fn bytes(&mut self, section: &str, a: u64, b: u64, len: u64, is_pointer: &dyn Fn(u64) -> bool) {
        let len = usize::try_from(len).unwrap_or(0);
        let (Some(left), Some(right)) = (self.old.image.bytes_at(a, len), self.new.image.bytes_at(b, len)) else {
            return;
        };
        if left == right {
            return;
        }
        let mut at = 0;
        while at < len {
            let differs = |at: usize| left.get(at) != right.get(at) && !is_pointer(at as u64);
            if !differs(at) {
                at += 1;
                continue;
            }
            // What lies close together is one value.
            let mut end = at + 1;
            while end < len && end < at + 16 && (end..(end + 4).min(len)).any(differs) {
                end += 1;
            }
            if let (Some(text), Some(other)) =
                (Self::text_around(self.old, a + at as u64), Self::text_around(self.new, b + at as u64))
                && self.same_text(a + at as u64, &text, &other)
            {
                at = end;
                continue;
            }
            let hex = |bytes: &[u8]| {
                let shown = bytes.get(at..end).unwrap_or_default();
                shown.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
            };
            self.found.differing.push(Differing {
                old: a + at as u64,
                new: b + at as u64,
                section: section.to_owned(),
                before: hex(left),
                after: hex(right),
            });
            at = end;
        }
    }

    fn same_pointer(&mut self, x: Written<'_>, y: Written<'_>) -> bool {
        match (self.old.pointee(x), self.new.pointee(y)) {
            (Target::Unknown(_) | Target::StrayCode(_), _) => false,
            (old @ Target::Code(..), new @ Target::Code(..)) => self.matching.corresponds(old, new),
            (Target::Object(a), Target::Object(b)) => {
                self.bindings.old_of(self.old, self.new, b).is_some_and(|(old, _)| old == a)
            }
            (Target::Resolved(a), Target::Resolved(b)) => self.matching.corresponds(self.old.code(a), self.new.code(b)),
            (Target::Constant(a), Target::Constant(b)) => {
                if let (Some(text), Some(other)) = (self.old.text_at(a), self.new.text_at(b)) {
                    return self.same_text(a, text, other);
                }
                constants::same_bytes(self.old, a, self.new, b)
                    || self.bindings.constants.get(&a).is_some_and(|same| same.contains(&b))
            }
            (old, new) => old == new,
        }
    }

    /// Says whether two texts mean the same.
    fn same_text(&mut self, place: u64, old: &str, new: &str) -> bool {
        if old == new {
            return true;
        }
        if texts::differ_in_lines(old, new) {
            self.found.line_texts += 1;
            return true;
        }
        if texts::differ_in_version(old, new) {
            self.found.version_texts.insert(place, old.to_owned());
            return true;
        }
        false
    }

    /// Returns the text in data that a place is in, from its start.
    fn text_around(side: &Side<'_>, place: u64) -> Option<String> {
        let lowest = place.saturating_sub(200);
        let start = (lowest..place)
            .rev()
            .find(|at| side.image.initial(*at).is_none_or(|byte| byte == 0))
            .map_or(lowest, |at| at + 1);
        side.text_at(start).map(str::to_owned)
    }

    /// Takes read-only tables out of what differs where only code knows of them: the new code takes the new table
    /// along.
    fn set_tables_aside(&mut self) {
        let mut pointed = BTreeSet::new();
        for relocation in &self.old.image.relocations {
            if let Written::Address(address) = relocation.written {
                pointed.extend(self.table_at(address));
            }
        }
        let exported = |start: u64| self.old.image.symbols_at(start).any(|symbol| symbol.kind == SymbolKind::Object);
        let mut tables = BTreeSet::new();
        let fixed = self.old.image.kind == Kind::Fixed;
        let mut is_private = |place: u64| {
            let table = self.table_at(place).filter(|table| !fixed && !pointed.contains(table) && !exported(*table));
            tables.extend(table);
            table.is_some()
        };
        let differing: Vec<_> = self.found.differing.iter().filter(|one| !is_private(one.old)).cloned().collect();
        let mut gaps = self.found.gaps.clone();
        for gap in gaps.iter_mut().filter(|gap| gap.because == Because::Unknown) {
            if is_private(gap.below.0) {
                gap.because = Because::OtherObject;
            }
        }
        self.found.differing = differing;
        self.found.gaps = gaps;
        let extent = |start: u64| start..start.saturating_add(self.old.object_extent(start).max(1));
        self.found.replaced = tables.into_iter().map(extent).collect();
    }

    /// Takes what a hook answers for out of what differs.
    fn set_converted_aside(&mut self) {
        let converted: Spans = self.transforms.iter().map(|one| one.old.clone()).collect();
        self.found.differing.retain(|one| !converted.contains(one.old));
        let moved = self.found.moved.clone();
        self.found.resized.retain(|one| !moved.contains(one.old));
        for gap in self.found.gaps.iter_mut().filter(|gap| moved.contains(gap.below.0)) {
            gap.because = Because::Converted;
        }
    }

    /// Returns where the read-only table starts that an address is in.
    fn table_at(&self, address: u64) -> Option<u64> {
        let section = self.old.image.section_at(address).filter(|section| section.area == Area::Relro)?;
        let end = self.old.objects.partition_point(|anchor| anchor.address <= address);
        let anchor = self.old.objects.get(end.checked_sub(1)?)?;
        (anchor.address >= section.start).then_some(anchor.address)
    }

    fn start_up(&mut self) {
        fn entries<'d>(side: &Side<'d>, name: &str) -> Vec<Option<Written<'d>>> {
            let section = side.image.sections.iter().find(|section| section.name == name);
            let places = section.map_or(0..0, |section| section.start..section.end).step_by(8).take(1 << 16);
            places.map(|place| side.image.pointer_at(place)).collect()
        }
        for name in LISTS {
            let (before, after) = (entries(self.old, name), entries(self.new, name));
            if before.len() != after.len() {
                let text = format!("{name} has {} functions now, and had {}", after.len(), before.len());
                self.found.start_up.push(text);
                continue;
            }
            for (x, y) in before.into_iter().zip(after) {
                let same = match (x, y) {
                    (Some(x), Some(y)) => self.same_pointer(x, y),
                    (None, None) => true,
                    _ => false,
                };
                if !same {
                    self.found.start_up.push(format!("{name} lists another function"));
                }
            }
        }
    }

    fn thread_local(&mut self) {
        let (old, new) = match (self.old.image.tls, self.new.image.tls) {
            (None, None) => return,
            (Some(old), Some(new)) => (old, new),
            (Some(_), None) => return self.found.thread_local = Some("the new version has none".to_owned()),
            (None, Some(_)) => return self.found.thread_local = Some("the old version has none".to_owned()),
        };
        if (old.size, old.align) != (new.size, new.align) {
            let text =
                format!("its size was {} and is {}, aligned to {} and {}", old.size, new.size, old.align, new.align);
            self.found.thread_local = Some(text);
            return;
        }
        let len = old.bytes.len() as u64;
        let places = |side: &Side<'_>, start: u64| {
            let relocations = side.image.relocations_in(start..start.saturating_add(len));
            relocations.iter().map(|relocation| relocation.place - start).collect::<Vec<_>>()
        };
        if old.bytes != new.bytes || places(self.old, old.start) != places(self.new, new.start) {
            self.found.thread_local = Some("its initial values differ".to_owned());
            return;
        }
        let (from, to) = (old.start, new.start);
        let pairs: Vec<_> = self
            .old
            .image
            .relocations_in(from..from.saturating_add(len))
            .iter()
            .zip(self.new.image.relocations_in(to..to.saturating_add(len)))
            .map(|(x, y)| (x.written, y.written))
            .collect();
        if !pairs.into_iter().all(|(x, y)| self.same_pointer(x, y)) {
            self.found.thread_local = Some("its initial values point elsewhere".to_owned());
        }
    }
}

/// Says what a pointer leads to.
fn describe(side: &Side<'_>, written: Written<'_>) -> String {
    match side.pointee(written) {
        Target::Import(name, 0) => format!("the address of {name}"),
        Target::Import(name, addend) => format!("the address of {name} and {addend}"),
        Target::Code(index, 0) => format!("the function {}", side.function_name(index as usize)),
        Target::Code(index, offset) => format!("{} and {offset}", side.function_name(index as usize)),
        Target::Constant(address) => match side.text_at(address) {
            Some(text) => format!("the text {:?}", text.chars().take(60).collect::<String>()),
            None => format!("the constant at {address:#x}"),
        },
        Target::Object(address) => format!("the object at {address:#x}"),
        Target::Resolved(address) => format!("what {address:#x} chooses"),
        Target::ThreadLocal(..) => "something thread-local".to_owned(),
        Target::Edge(section, beyond) => format!("{beyond} bytes behind {section}"),
        Target::StrayCode(address) | Target::Unknown(address) => format!("{address:#x}, which is not understood"),
    }
}
