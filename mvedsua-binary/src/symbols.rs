//! Checks a comparison of stripped files against the symbols that were stripped.
//!
//! Nothing of a comparison depends on this. It is how tests find out whether what was inferred is true.

use std::collections::BTreeSet;

use crate::Comparison;
use crate::image::{Image, SymbolKind};
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

/// Checks each binding and each match of a comparison against the same two files with symbols.
#[must_use]
pub fn check(comparison: &Comparison<'_>, old: &Image<'_>, new: &Image<'_>) -> Checked {
    let mut checked = Checked::default();
    let refused = matches!(comparison.verdict, Verdict::Refused { .. });
    let contradicted = !comparison.bindings.contradictions.is_empty();
    for bound in comparison.bindings.old.values() {
        let (a, b) = (names(old, bound.old, SymbolKind::Object), names(new, bound.new, SymbolKind::Object));
        if a.is_empty() || b.is_empty() {
            continue;
        }
        checked.objects += 1;
        // Where the structure itself changed, and that was seen, the place in it may differ.
        let alone = |names: &BTreeSet<Name>| names.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
        let same_object = !alone(&a).is_disjoint(&alone(&b));
        if a.is_disjoint(&b) && !(refused && (same_object || contradicted)) {
            checked.wrong.push(format!("{:#x} is {a:?}, {:#x} is {b:?}: {bound:?}", bound.old, bound.new));
        }
    }
    let start = |side: &Side<'_>, index: usize| side.functions.get(index).map_or(0, |function| function.start);
    for (index, found) in comparison.matching.old.iter().enumerate() {
        let Some(found) = found else { continue };
        let a = names(old, start(&comparison.old, index), SymbolKind::Function);
        let b = names(new, start(&comparison.new, found.new), SymbolKind::Function);
        if a.is_empty() || b.is_empty() {
            continue;
        }
        checked.functions += 1;
        if a.is_disjoint(&b) && !is_specialised((old, &a), (new, &b)) {
            checked.wrong.push(format!("functions were matched wrongly: {a:?} {b:?} {found:?}"));
        }
    }
    checked
}

/// A symbol, and a distance from its start.
type Name = (String, u64);

/// Says whether these are the same function, which the compiler has adapted to its callers in one of the files only, and
/// which that file has in no other form.
fn is_specialised(old: (&Image<'_>, &BTreeSet<Name>), new: (&Image<'_>, &BTreeSet<Name>)) -> bool {
    let plain = |name: &str| match [".constprop.", ".isra."].iter().filter_map(|mark| name.find(mark)).min() {
        Some(at) => name.get(..at).unwrap_or_default().to_owned(),
        None => name.to_owned(),
    };
    let has = |image: &Image<'_>, name: &str| {
        image.symbols.iter().any(|symbol| symbol.kind == SymbolKind::Function && symbol.name == name)
    };
    old.1.iter().any(|(a, from)| {
        let same = |(b, to): &&Name| plain(a) == plain(b) && from == to && !has(new.0, a) && !has(old.0, b);
        new.1.iter().any(|name| same(&name))
    })
}

/// Returns the symbols around an address, without the number that the compiler adds to names that occur twice.
fn names(image: &Image<'_>, address: u64, kind: SymbolKind) -> BTreeSet<Name> {
    let around = image.symbols.iter().filter(|symbol| {
        symbol.kind == kind
            && (symbol.address == address
                || symbol.address < address && address < symbol.address.saturating_add(symbol.size))
    });
    around
        .map(|symbol| {
            let name = match symbol.name.split_once('.') {
                Some((name, number)) if number.chars().all(|c| c.is_ascii_digit()) => name,
                _ => symbol.name,
            };
            (name.to_owned(), address - symbol.address)
        })
        .collect()
}
