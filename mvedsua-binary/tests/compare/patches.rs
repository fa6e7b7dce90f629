//! That the check of patches sees what is wrong with one.

use crate::twins::{Twins, passes};
use mvedsua_binary::compare;
use mvedsua_binary::image::Area;
use mvedsua_binary::patch::{self, Goal};

const PIE: &[&str] = &["-fPIE", "-pie"];
const FIXED: &[&str] = &["-fno-pie", "-no-pie"];
const LIBRARY: &[&str] = &["-fPIC", "-shared", "-DLIBRARY"];

/// A function with calls, objects, constants and slots is loaded.
const CHANGE: &[&str] = &["-DBODY_CHANGED"];

#[test]
fn every_correction_is_needed_and_leads_where_it_must() {
    for flags in [PIE, FIXED, LIBRARY] {
        let twins = Twins::build("server.c", flags, CHANGE);
        let comparison = twins.compare();
        let patch = comparison.patch.as_ref().unwrap();
        let right = patch::verify(&comparison, patch);
        assert!(right.faults.is_empty() && right.operands > 3, "{flags:?} {right:?}");
        for index in 0..patch.fixups.len() {
            let fixup = &patch.fixups[index];
            let mut missing = patch.clone();
            missing.fixups.remove(index);
            let mut elsewhere = patch.clone();
            elsewhere.fixups[index].goal = match &fixup.goal {
                Goal::Old(address) => Goal::Old(address + 1),
                Goal::New(address) => Goal::New(address + 1),
                Goal::Held(place, added) => Goal::Held(*place, added + 1),
                Goal::Symbol(name, added) => Goal::Symbol(name.clone(), added + 1),
            };
            // A constant of the old file is as good as the equal one that is loaded.
            let is_constant = |address: u64| comparison.old.image.area_at(address) == Some(Area::Constant);
            let instead = matches!(fixup.goal, Goal::Old(address) if is_constant(address));
            for wrong in (!instead).then_some(missing).into_iter().chain([elsewhere]) {
                let checked = patch::verify(&comparison, &wrong);
                assert!(!checked.faults.is_empty(), "{flags:?} {fixup:x?}");
            }
        }
    }
}

#[test]
fn a_jump_and_a_function_that_are_missing_are_seen() {
    for flags in [PIE, FIXED, LIBRARY] {
        let twins = Twins::build("server.c", flags, CHANGE);
        let comparison = twins.compare();
        let mut patch = comparison.patch.clone().unwrap();
        patch.jumps.clear();
        assert!(!patch::verify(&comparison, &patch).faults.is_empty(), "{flags:?}");
        let mut patch = comparison.patch.clone().unwrap();
        patch.functions.remove(0);
        patch.functions.push(patch::Loaded { name: String::new(), range: 0..0 });
        assert!(!patch::verify(&comparison, &patch).faults.is_empty(), "{flags:?}");
    }
}

#[test]
fn an_array_and_its_end_go_to_the_same_file() {
    for flags in [PIE, FIXED, LIBRARY] {
        for change in ["-DBODY_CHANGED", "-DTABLE_GREW"] {
            let twins = Twins::build("arrays.c", flags, &[change]);
            let comparison = compare(&twins.old.stripped, &twins.new.stripped).unwrap();
            // In other files the end of the table that grew is an object of the linker's: that is refused.
            if change == "-DBODY_CHANGED" || flags == FIXED {
                passes(&comparison);
            }
            let faults = comparison.patch.iter().flat_map(|patch| patch::verify(&comparison, patch).faults);
            assert_eq!(faults.collect::<Vec<_>>(), [], "{flags:?} {change}");
        }
    }
}
