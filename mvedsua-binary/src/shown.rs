//! What debug files show of objects, where two stripped files do not tell.
//!
//! The two files alone say where an object ends only of some, and of few addresses that they are new; where they do not,
//! the update is refused. Symbols say both. What they have shown is written down by addresses, so that the comparison can be made
//! again without them; whether an update with it is [proved](crate::proof) is another question.

use std::collections::{BTreeMap, BTreeSet};

use crate::Comparison;
use crate::data::Because;
use crate::debug::Names;
use crate::transform::Spans;

/// What is known beyond the two files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Addresses of the old file that belong to an object which has the same size in the new one: what lies behind it at another
    /// distance than before is another object.
    pub kept: BTreeSet<u64>,
    /// Where the new file has objects that the old one does not have.
    pub fresh: Spans,
}

impl Shown {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.fresh.is_empty()
    }

    /// Finds out what the symbols of both builds show of what a comparison could not tell.
    #[must_use]
    pub fn by_names(comparison: &Comparison<'_>, old: &Names, new: &Names) -> Shown {
        let mut shown = Shown::default();
        for gap in comparison.data.gaps.iter().filter(|gap| gap.because == Because::Unknown) {
            let (before, after) = (old.extents_around(gap.below.0), new.extents_around(gap.below.1));
            // Two parts of one object that lie at another distance are a layout that changed.
            let are_parted =
                ends_before(&before, gap.below.0, gap.above.0) && ends_before(&after, gap.below.1, gap.above.1);
            if !before.is_empty() && before == after && are_parted {
                shown.kept.insert(gap.below.0);
            }
        }
        let mut fresh = BTreeMap::new();
        for address in comparison.evidence().unbound().into_iter().map(|(_, _, address)| address) {
            let around = new.extents_around(address);
            if !around.is_empty() && around.iter().all(|(name, offset, _)| is_new(comparison, old, name, *offset)) {
                for (_, offset, size) in around {
                    let end = fresh.entry(address - offset).or_insert(0);
                    *end = (*end).max(address - offset + size);
                }
            }
        }
        shown.fresh = fresh.into_iter().map(|(start, end)| start..end).collect();
        shown
    }
}

/// A name, a distance from its start, and a size in bytes.
type Extent = (String, u64, u64);

/// Says whether no object that holds one address holds another one, too.
fn ends_before(around: &BTreeSet<Extent>, address: u64, other: u64) -> bool {
    around.iter().all(|(_, offset, size)| {
        let start = address - offset;
        !(start..start.saturating_add(*size)).contains(&other)
    })
}

/// Says whether the old build has no object of a name, or none that is not bound to another one.
pub(crate) fn is_new(comparison: &Comparison<'_>, old: &Names, name: &str, offset: u64) -> bool {
    old.places_of(name).all(|place| comparison.bindings.old.contains_key(&(place + offset)))
}
