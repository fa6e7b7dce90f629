//! Checks a comparison of stripped files against the symbols that were stripped.
//!
//! No comparison depends on this. A [proof](crate::proof) does, and tests find out by it whether what was inferred is true.

use std::collections::BTreeSet;

use crate::Comparison;
use crate::debug::{Name, Names};
use crate::side::Side;
use crate::verdict::Verdict;

/// What symbols say of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Bindings of objects of which both files know names.
    pub objects: usize,
    /// Matches of functions of which both files know names.
    pub functions: usize,
    /// What is not true.
    pub wrong: Vec<String>,
}

/// What symbols say of two places that are taken for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Same,
    Different,
    /// One of the files has no name for its place.
    Nothing,
}

/// Checks each binding and each match of a comparison against the symbols of the same two files.
#[must_use]
pub fn check(comparison: &Comparison<'_>, old: &Names, new: &Names) -> Checked {
    let mut checked = Checked::default();
    let refused = matches!(comparison.verdict, Verdict::Refused { .. });
    let contradicted = !comparison.bindings.contradictions.is_empty();
    for bound in comparison.bindings.old.values() {
        let (a, b) = (old.objects_around(bound.old), new.objects_around(bound.new));
        let said = said(&a, &b);
        checked.objects += usize::from(said != Said::Nothing);
        // Where the structure itself changed, and that was seen, the place in it may differ.
        let alone = |names: &BTreeSet<Name>| names.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
        let same_object = !alone(&a).is_disjoint(&alone(&b));
        if said == Said::Different && !(refused && (same_object || contradicted)) {
            checked.wrong.push(format!("{:#x} is {a:?}, {:#x} is {b:?}: {bound:?}", bound.old, bound.new));
        }
    }
    let start = |side: &Side<'_>, index: usize| side.functions.get(index).map_or(0, |function| function.start);
    for (index, found) in comparison.matching.old.iter().enumerate() {
        let Some(found) = found else { continue };
        let (from, to) = (start(&comparison.old, index), start(&comparison.new, found.new));
        let said = functions((old, from), (new, to));
        checked.functions += usize::from(said != Said::Nothing);
        if said == Said::Different {
            let (a, b) = (old.functions_around(from), new.functions_around(to));
            checked.wrong.push(format!("functions were matched wrongly: {a:?} {b:?} {found:?}"));
        }
    }
    checked
}

fn said(a: &BTreeSet<Name>, b: &BTreeSet<Name>) -> Said {
    match (a.is_empty() || b.is_empty(), a.is_disjoint(b)) {
        (true, _) => Said::Nothing,
        (false, false) => Said::Same,
        (false, true) => Said::Different,
    }
}

/// Says whether two addresses are the same place of one object.
pub(crate) fn objects(old: (&Names, u64), new: (&Names, u64)) -> Said {
    said(&old.0.objects_around(old.1), &new.0.objects_around(new.1))
}

/// Says whether two addresses are the same place of one function.
pub(crate) fn functions(old: (&Names, u64), new: (&Names, u64)) -> Said {
    let (a, b) = (old.0.functions_around(old.1), new.0.functions_around(new.1));
    match said(&a, &b) {
        Said::Different if is_specialised((old.0, &a), (new.0, &b)) => Said::Same,
        said => said,
    }
}

/// Says whether these are the same function, which the compiler has adapted to its callers in one of the files only, and
/// which that file has in no other form.
fn is_specialised(old: (&Names, &BTreeSet<Name>), new: (&Names, &BTreeSet<Name>)) -> bool {
    let plain = |name: &str| match [".constprop.", ".isra."].iter().filter_map(|mark| name.find(mark)).min() {
        Some(at) => name.get(..at).unwrap_or_default().to_owned(),
        None => name.to_owned(),
    };
    old.1.iter().any(|(a, from)| {
        let same =
            |(b, to): &&Name| plain(a) == plain(b) && from == to && !new.0.has_function(a) && !old.0.has_function(b);
        new.1.iter().any(|name| same(&name))
    })
}
