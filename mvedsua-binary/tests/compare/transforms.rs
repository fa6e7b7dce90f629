//! What a hook answers for: an object that begins with another value, and one that has grown.

use std::ops::Range;

use mvedsua_binary::image::{Image, SymbolKind};
use mvedsua_binary::reason::Reason;
use mvedsua_binary::transform::Transform;
use mvedsua_binary::{Comparison, Given, compare, compare_with, patch};

use crate::twins::{Twins, passes, reasons, refuses};

const PIE: &[&str] = &["-fPIE", "-pie"];
const FIXED: &[&str] = &["-fno-pie", "-no-pie"];

fn twins(flags: &[&str], common: &[&str], changes: &[&str]) -> Twins {
    Twins::build("moving.c", &[flags, common].concat(), changes)
}

/// Returns where an object lies, by the symbols that were stripped.
fn place(full: &[u8], name: &str) -> Range<u64> {
    let image = Image::read(full).unwrap();
    let symbol = image.symbols.iter().find(|symbol| symbol.kind == SymbolKind::Object && symbol.name == name);
    let symbol = symbol.unwrap();
    symbol.address..symbol.address + symbol.size
}

fn transform(twins: &Twins, name: &str, numbers: &[(u64, u64)]) -> Transform {
    let (old, new) = (place(&twins.old.full, name), place(&twins.new.full, name));
    Transform { name: name.to_owned(), old, new, numbers: numbers.to_vec() }
}

fn with<'t>(twins: &'t Twins, transforms: &[Transform]) -> Comparison<'t> {
    let comparison = compare_with(&twins.old.stripped, &twins.new.stripped, Given { transforms, shown: None }).unwrap();
    let faults = comparison.patch.iter().flat_map(|patch| patch::verify(&comparison, patch).faults);
    assert_eq!(faults.collect::<Vec<_>>(), []);
    comparison
}

#[test]
fn an_initial_value_is_answered_for() {
    for flags in [PIE, FIXED] {
        let twins = twins(flags, &[], &["-DOTHER"]);
        let comparison = compare(&twins.old.stripped, &twins.new.stripped).unwrap();
        refuses(&comparison, |reason| matches!(reason, Reason::InitialValues { .. }));
        passes(&with(&twins, &[transform(&twins, "step", &[])]));
        // Not by who names another object.
        let comparison = with(&twins, &[transform(&twins, "more", &[])]);
        refuses(&comparison, |reason| matches!(reason, Reason::InitialValues { .. }));
    }
}

#[test]
fn a_table_that_grew_moves_with_all_that_uses_it() {
    let twins = twins(PIE, &[], &["-DGREW"]);
    let comparison = compare(&twins.old.stripped, &twins.new.stripped).unwrap();
    assert!(!reasons(&comparison).is_empty());
    let comparison = with(&twins, &[transform(&twins, "slots", &[])]);
    refuses(&comparison, |reason| matches!(reason, Reason::ChangedNumber { .. }));
    let comparison = with(&twins, &[transform(&twins, "slots", &[(11, 23)])]);
    passes(&comparison);
    let patch = comparison.patch.as_ref().unwrap();
    let slots = place(&twins.new.full, "slots");
    let is_loaded = |address: u64| {
        patch.segments.iter().any(|one| one.start <= address && address < one.start + one.bytes.len() as u64)
    };
    assert!(is_loaded(slots.start) && is_loaded(slots.end - 1));
    assert_eq!((patch.functions.len(), patch.jumps.len(), patch.fresh), (1, 1, 1));
}

/// Why the table may not move, where it may not.
fn not_moved(flags: &[&str], common: &[&str], words: &str) {
    let twins = twins(flags, common, &["-DGREW"]);
    let comparison = with(&twins, &[transform(&twins, "slots", &[(11, 23)])]);
    let why = |reason: &Reason| matches!(reason, Reason::NotConverted { why, .. } if why.contains(words));
    refuses(&comparison, why);
}

#[test]
fn what_others_may_lead_to_does_not_move() {
    not_moved(PIE, &["-DEXPORTED", "-rdynamic"], "exported as `slots`");
    not_moved(PIE, &["-DPOINTER"], "the pointer at");
    not_moved(PIE, &["-DBEFORE"], "may have been formed from it");
    not_moved(FIXED, &[], "fixed addresses");
}

#[test]
fn what_main_uses_does_not_move() {
    let twins = twins(PIE, &["-DIN_MAIN"], &["-DGREW"]);
    let comparison = with(&twins, &[transform(&twins, "slots", &[(11, 23)])]);
    refuses(&comparison, |reason| matches!(reason, Reason::StartUp { .. }));
}

#[test]
fn places_that_nothing_shows_to_be_one_object_are_refused() {
    let twins = twins(PIE, &[], &["-DGREW"]);
    let slots = transform(&twins, "slots", &[(11, 23)]);
    let elsewhere = Transform { new: slots.new.start + 8..slots.new.end + 8, ..slots.clone() };
    let unwritable = Transform { old: 0..128, ..slots.clone() };
    for (wrong, words) in [(elsewhere, "nothing shows that"), (unwritable, "is no writable data of the old file")] {
        let why = |reason: &Reason| matches!(reason, Reason::NotConverted { why, .. } if why.contains(words));
        refuses(&with(&twins, &[wrong]), why);
    }
    let twice = with(&twins, &[slots.clone(), Transform { name: "again".to_owned(), ..slots }]);
    refuses(&twice, |reason| matches!(reason, Reason::NotConverted { name, .. } if name == "again"));
}
