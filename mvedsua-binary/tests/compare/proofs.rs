//! What debug files prove, and what they disprove though two stripped files look alike.

use std::fs;
use std::process::Command;

use mvedsua_binary::debug::{Debug, DebugError};
use mvedsua_binary::proof::{Proof, prove};
use mvedsua_binary::reason::Reason;
use mvedsua_binary::verdict::{Certainty, Verdict};
use mvedsua_binary::{Comparison, Given, compare, compare_with, patch};
use tempfile::TempDir;

use crate::twins::{Twins, build, passes, refuses};

const PIE: &[&str] = &["-fPIE", "-pie", "-g"];
const FIXED: &[&str] = &["-fno-pie", "-no-pie", "-g"];
const LIBRARY: &[&str] = &["-fPIC", "-shared", "-DLIBRARY", "-g"];

/// Returns what `objcopy` makes of a file.
fn copied(file: &[u8], options: &[&str]) -> Vec<u8> {
    let place = TempDir::new().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    fs::write(&from, file).unwrap();
    assert!(Command::new("objcopy").args(options).arg(&from).arg(&to).status().unwrap().success());
    fs::read(to).unwrap()
}

/// Compares two stripped files, and proves what comes out with two debug files.
fn proved<'t>(twins: &'t Twins, old: &[u8], new: &[u8]) -> Comparison<'t> {
    let comparison = compare(&twins.old.stripped, &twins.new.stripped).unwrap();
    passes(&comparison);
    with_debug(comparison, twins, old, new)
}

fn with_debug<'t>(mut comparison: Comparison<'t>, twins: &Twins, old: &[u8], new: &[u8]) -> Comparison<'t> {
    let (old, new) = (Debug::read(old).unwrap(), Debug::read(new).unwrap());
    old.is_of(&twins.old.stripped).unwrap();
    new.is_of(&twins.new.stripped).unwrap();
    prove(&mut comparison, &old, &new);
    comparison
}

fn with_all_symbols(twins: &Twins) -> Comparison<'_> {
    proved(twins, &twins.old.full, &twins.new.full)
}

fn proof<'c>(comparison: &'c Comparison<'_>) -> &'c Proof {
    comparison.proof.as_ref().unwrap()
}

#[track_caller]
fn is_proved(comparison: &Comparison<'_>) {
    assert_eq!(comparison.verdict, Verdict::Updatable { certainty: Certainty::Proved }, "{:#?}", proof(comparison));
    assert!(comparison.patch.is_some());
}

#[track_caller]
fn is_disproved(comparison: &Comparison<'_>, words: &str) {
    let says =
        |reason: &Reason| matches!(reason, Reason::Disproved { what } if what.iter().any(|one| one.contains(words)));
    refuses(comparison, says);
    assert!(comparison.patch.is_none());
}

#[test]
fn what_is_true_is_proved() {
    for flags in [PIE, FIXED, LIBRARY] {
        for change in ["-DBODY_CHANGED", "-DNEW_FUNCTION", "-DTEXT_MOVED"] {
            let twins = Twins::build("server.c", flags, &[change]);
            let comparison = with_all_symbols(&twins);
            is_proved(&comparison);
            let proof = proof(&comparison);
            assert!(proof.objects > 3 && proof.functions > 8 && proof.types >= 2 && proof.variables > 3, "{proof:?}");
        }
    }
}

#[test]
fn numbers_of_lines_are_proved_by_the_table_of_lines() {
    let twins = Twins::build("server.c", PIE, &["-DLINES_MOVED"]);
    let comparison = with_all_symbols(&twins);
    is_proved(&comparison);
    assert!(proof(&comparison).line_numbers >= 4, "{:?}", proof(&comparison));
}

#[test]
fn cpp_is_proved() {
    let twins = Twins::build("shapes.cc", PIE, &["-DBODY_CHANGED"]);
    let comparison = with_all_symbols(&twins);
    is_proved(&comparison);
}

/// What a distribution has: symbols and types in a file of their own, compressed.
#[test]
fn separate_debug_files_prove_as_well() {
    let twins = Twins::build("jobs.c", PIE, &["-DMENDED", "-DANOTHER"]);
    let separate = |file: &[u8]| copied(file, &["--only-keep-debug", "--compress-debug-sections"]);
    let comparison = proved(&twins, &separate(&twins.old.full), &separate(&twins.new.full));
    is_proved(&comparison);
    assert_eq!(proof(&comparison).signatures, 1);
}

#[test]
fn a_new_variable_is_shown_to_be_new() {
    let twins = Twins::build("server.c", &[PIE, &["-rdynamic", "-Dstatic="]].concat(), &["-DNEW_STATIC"]);
    is_proved(&with_all_symbols(&twins));
    // Not where the old build has one of that name that nothing is bound to.
    let other = copied(&twins.old.full, &["--add-symbol", "refused=.bss:3,object,local"]);
    is_disproved(&proved(&twins, &other, &twins.new.full), "is taken for new");
}

/// Compares two stripped files of which the comparison refuses something, and proves it with all symbols.
fn refused_and_proved(twins: &Twins) -> Comparison<'_> {
    let comparison = compare(&twins.old.stripped, &twins.new.stripped).unwrap();
    refuses(&comparison, Reason::may_be_disproved);
    with_debug(comparison, twins, &twins.old.full, &twins.new.full)
}

#[test]
fn symbols_tell_what_the_files_do_not() {
    for flags in [PIE, FIXED, LIBRARY] {
        let twins = Twins::build("server.c", flags, &["-DNEW_ARRAY"]);
        let comparison = refused_and_proved(&twins);
        is_proved(&comparison);
        assert!(proof(&comparison).shown > 0 && !comparison.shown.is_empty(), "{flags:?} {:?}", proof(&comparison));
        let patch = comparison.patch.as_ref().unwrap();
        assert_eq!((patch::verify(&comparison, patch).faults, patch.fresh), (vec![], 1), "{flags:?}");
        // Whoever is told the same comes to the same, without symbols.
        let given = Given { shown: Some(&comparison.shown), ..Given::default() };
        let again = compare_with(&twins.old.stripped, &twins.new.stripped, given).unwrap();
        assert_eq!(
            (again.verdict, again.patch),
            (Verdict::Updatable { certainty: Certainty::Inferred }, comparison.patch)
        );
    }
}

#[test]
fn what_symbols_show_to_be_so_stays_refused() {
    for flags in [PIE, FIXED, LIBRARY] {
        // An array grew: it is refused for what it was refused for.
        let twins = Twins::build("server.c", flags, &["-DFLAGS_GREW", "-DBODY_CHANGED"]);
        let comparison = refused_and_proved(&twins);
        refuses(&comparison, |reason| matches!(reason, Reason::Grown { .. }));
        assert!(comparison.patch.is_none() && comparison.shown.is_empty());
        // So it is beside one that symbols explain.
        let twins = Twins::build("server.c", flags, &["-DFLAGS_GREW", "-DNEW_ARRAY"]);
        refuses(&refused_and_proved(&twins), |reason| matches!(reason, Reason::Grown { .. }));
        let twins = Twins::build("server.c", flags, &["-DGLOBAL_GREW"]);
        let comparison = compare(&twins.old.stripped, &twins.new.stripped).unwrap();
        let comparison = with_debug(comparison, &twins, &twins.old.full, &twins.new.full);
        assert!(matches!(comparison.verdict, Verdict::Refused { .. }) && comparison.patch.is_none(), "{flags:?}");
    }
}

/// Of a variable that is gone and one that is new, the one may be the other's new name.
#[test]
fn a_variable_that_may_have_got_another_name_is_not_new() {
    let twins = Twins::build("server.c", &[PIE, &["-DOLD_ARRAY"]].concat(), &["-DNEW_ARRAY"]);
    let comparison = refused_and_proved(&twins);
    refuses(&comparison, Reason::may_be_disproved);
    let lacking = &proof(&comparison).lacking;
    assert!(lacking.iter().any(|what| what.contains("`met` is gone and `seen` is new")), "{:#?}", proof(&comparison));
}

#[test]
fn a_type_that_changed_is_found_where_nothing_moved() {
    let twins = Twins::build("jobs.c", PIE, &["-DSIGNED"]);
    is_disproved(&with_all_symbols(&twins), "`struct job` changed: `when` was at 8: unsigned int");
    let twins = Twins::build("jobs.c", PIE, &["-DRENUMBERED"]);
    is_disproved(&with_all_symbols(&twins), "`enum state` changed: `BUSY` was = 1, and is = 2");
}

#[test]
fn who_goes_on_calling_must_give_what_is_taken() {
    let twins = Twins::build("jobs.c", LIBRARY, &["-DWIDER"]);
    is_disproved(&with_all_symbols(&twins), "`job_late` was (pointer to struct job, int (4 bytes, 5)) to long int");
}

#[test]
fn what_names_are_lacking_for_stays_inferred() {
    let twins = Twins::build("jobs.c", PIE, &["-DMENDED"]);
    let without = copied(&twins.new.full, &["--strip-symbol", "spent"]);
    let comparison = proved(&twins, &twins.old.full, &without);
    assert_eq!(comparison.verdict, Verdict::Updatable { certainty: Certainty::Inferred });
    assert!(proof(&comparison).lacking.iter().any(|what| what.contains("no symbol names the object")));
    // And a name that says something else is believed.
    let other = copied(&twins.new.full, &["--redefine-sym", "spent=jobs", "--redefine-sym", "jobs=spent"]);
    is_disproved(&proved(&twins, &twins.old.full, &other), "\"spent\"");
}

#[test]
fn debug_files_of_another_build_prove_nothing() {
    let twins = Twins::build("jobs.c", PIE, &["-DMENDED"]);
    let other = Debug::read(&twins.new.full).unwrap();
    assert!(matches!(other.is_of(&twins.old.stripped), Err(DebugError::OtherBuild(_))));
    let separate = Debug::read(&copied(&twins.new.full, &["--only-keep-debug"])).unwrap();
    assert!(matches!(separate.is_of(&twins.old.stripped), Err(DebugError::OtherBuild(_))));
    // A twin has another build-id, and the same code.
    let twin = build("jobs.c", &["-fPIE", "-pie", "-g", "-Wl,--build-id=0x1122334455667788990011223344556677889900"]);
    let twin = Debug::read(&twin.full).unwrap();
    twin.is_of(&twins.old.stripped).unwrap();
    assert!(matches!(twin.is_of(&twins.new.stripped), Err(DebugError::OtherBuild(_))));
}

#[test]
fn files_without_symbols_or_types_are_told() {
    let plain = build("jobs.c", &["-fPIE", "-pie"]);
    assert!(matches!(Debug::read(&plain.stripped), Err(DebugError::NoSymbols | DebugError::NoTypes)));
    assert_eq!(Debug::read(&plain.full).err(), Some(DebugError::NoTypes));
    assert!(matches!(Debug::read(b"no file"), Err(DebugError::Damaged(_))));
}
