//! Objects that code in a package, a hook, converts when the new version comes.
//!
//! Who names an object answers for what it holds: that its initial value differs is no reason to refuse then. An object that
//! has another size than before *moves*: the new one is loaded beside the new code and the hook fills it from the old one.
//! From then on nothing may lead to the old one. So every function that refers to it counts as changed, and a move is refused
//! where something else may: another file, a pointer in data, or an address that may have been formed from it.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::image::{Area, Kind, Scope, Written};
use crate::side::Side;

/// An object that a hook converts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// What the hook calls it.
    pub name: String,
    /// Where it lies in the old file, and in the new one.
    pub old: Range<u64>,
    pub new: Range<u64>,
    /// Numbers in the code that uses it which follow its size: what they were, and are.
    pub numbers: Vec<(u64, u64)>,
}

impl Transform {
    /// Says whether the new version has another object in the place of this one.
    #[must_use]
    pub fn moves(&self) -> bool {
        self.old.end - self.old.start != self.new.end - self.new.start
    }
}

/// Ranges of addresses that do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(BTreeMap<u64, u64>);

impl Spans {
    /// Returns the range that holds an address.
    #[must_use]
    pub fn around(&self, address: u64) -> Option<Range<u64>> {
        let (start, end) = self.0.range(..=address).next_back()?;
        (address < *end).then_some(*start..*end)
    }

    /// Says whether one of them holds an address.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        self.around(address).is_some()
    }

    /// Returns all of them, by their starts.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Range<u64>> for Spans {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Spans {
        Spans(ranges.into_iter().map(|range| (range.start, range.end)).collect())
    }
}

/// An address so near before an object may have been formed from it: `table[i - 4]`.
const BEFORE: u64 = 256;

/// Says why an object cannot move, if so: something that goes on running may lead to the old one.
pub(crate) fn why_it_cannot_move(one: &Transform, old: &Side<'_>, new: &Side<'_>) -> Option<String> {
    if old.image.kind == Kind::Fixed {
        return Some("in a file with fixed addresses any number may be a pointer to it".to_owned());
    }
    let exported = old.image.symbols.iter().find(|symbol| {
        symbol.scope == Scope::Dynamic
            && symbol.address < one.old.end
            && one.old.start < symbol.address.saturating_add(symbol.size.max(1))
    });
    if let Some(symbol) = exported {
        return Some(format!("it is exported as `{}`, so other files may refer to it", symbol.name));
    }
    let pointer = old.image.relocations.iter().find(|relocation| match relocation.written {
        Written::Address(address) => one.old.contains(&address) && !one.old.contains(&relocation.place),
        _ => false,
    });
    if let Some(pointer) = pointer {
        return Some(format!("the pointer at {:#x} leads to it", pointer.place));
    }
    near_before(old, one.old.start).or_else(|| near_before(new, one.new.start))
}

/// Looks for an address before an object that may have been formed from it.
fn near_before(side: &Side<'_>, start: u64) -> Option<String> {
    let section = side.image.section_at(start)?;
    let end = side.objects.partition_point(|anchor| anchor.address < start);
    let lowest = start.saturating_sub(BEFORE).max(section.start);
    let near = side.objects.get(..end)?.iter().rev().take_while(|anchor| anchor.address >= lowest);
    let ends = |address: u64| {
        side.guards.contains(&address) || side.image.object_around(address).is_some_and(|symbol| symbol.size > 0)
    };
    let found = near.filter(|anchor| anchor.taken && !ends(anchor.address)).map(|anchor| anchor.address).next()?;
    Some(format!("{found:#x}, the address of something before it, may have been formed from it"))
}

/// Says why an object is none that can be converted, if so.
pub(crate) fn why_it_is_none(one: &Transform, old: &Side<'_>, new: &Side<'_>) -> Option<String> {
    let is_data = |side: &Side<'_>, range: &Range<u64>| {
        let section =
            side.image.section_at(range.start).filter(|section| range.start < range.end && range.end <= section.end);
        section.is_some_and(|section| matches!(section.area, Area::Data | Area::Zero))
    };
    if !is_data(old, &one.old) {
        return Some(format!("{:#x} to {:#x} is no writable data of the old file", one.old.start, one.old.end));
    }
    (!is_data(new, &one.new))
        .then(|| format!("{:#x} to {:#x} is no writable data of the new file", one.new.start, one.new.end))
}
