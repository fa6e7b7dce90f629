//! Pairs of programs that differ in one thing each: what the comparison must say of them, and that it never binds
//! wrongly. The programs are compiled here; what is compared is stripped, and what is believed is checked against the
//! symbols.

use crate::twins::{Twins, build, classes, passes, refuses};
use mvedsua_binary::classes::Class;
use mvedsua_binary::compare;
use mvedsua_binary::reason::Reason;
use mvedsua_binary::verdict::Verdict;

const SERVER: &str = "server.c";
const SHAPES: &str = "shapes.cc";

/// The ways of linking that distributions use.
const PIE: &[&str] = &["-fPIE", "-pie"];
const FIXED: &[&str] = &["-fno-pie", "-no-pie"];
const LIBRARY: &[&str] = &["-fPIC", "-shared", "-DLIBRARY"];
const ALL: [&[&str]; 3] = [PIE, FIXED, LIBRARY];

fn with(flags: &[&'static str], more: &[&'static str]) -> Vec<&'static str> {
    flags.iter().chain(more).copied().collect()
}

#[test]
fn the_same_program_is_unchanged() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &[]);
        let comparison = twins.compare();
        passes(&comparison);
        assert_eq!(classes(&comparison), [].into(), "{flags:?}");
    }
}

#[test]
fn code_that_moved_is_unchanged() {
    for flags in ALL {
        let comparison_of = Twins::build(SERVER, flags, &["-DTEXT_MOVED"]);
        let comparison = comparison_of.compare();
        passes(&comparison);
        assert_eq!(classes(&comparison), [(Class::New, 1)].into(), "{flags:?}");
    }
}

/// What a text in the code looks like when it is decoded is not looked at.
#[test]
fn a_text_among_the_code_is_none() {
    let flags = with(PIE, &["-fno-toplevel-reorder"]);
    let same = Twins::build("texts.c", &flags, &[]);
    let comparison = same.compare();
    passes(&comparison);
    assert_eq!(classes(&comparison), [].into());
    let changed = Twins::build("texts.c", &flags, &["-DCHANGED"]);
    let comparison = changed.compare();
    passes(&comparison);
    assert_eq!(classes(&comparison).values().sum::<usize>(), 1, "{:?}", comparison.fates.changed);
}

#[test]
fn one_changed_body_can_be_updated() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &["-DBODY_CHANGED"]);
        let comparison = twins.compare();
        passes(&comparison);
        let counts = classes(&comparison);
        assert_eq!(counts.get(&Class::Body), Some(&1), "{flags:?} {counts:?}");
    }
}

#[test]
fn line_numbers_are_recognised() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &["-DLINES_MOVED"]);
        let comparison = twins.compare();
        passes(&comparison);
        let counts = classes(&comparison);
        assert!(counts.get(&Class::LineNumbers).is_some_and(|count| *count >= 4), "{flags:?} {counts:?}");
        assert_eq!(counts.len(), 1, "{flags:?} {counts:?}");
    }
}

#[test]
fn a_new_function_is_new() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &["-DNEW_FUNCTION"]);
        let comparison = twins.compare();
        passes(&comparison);
        let counts = classes(&comparison);
        let changed = [Class::Body, Class::Signature].iter().filter_map(|class| counts.get(class)).sum::<usize>();
        assert_eq!((counts.get(&Class::New), changed), (Some(&1), 1), "{flags:?} {counts:?}");
    }
}

#[test]
fn a_field_in_the_middle_is_refused() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &["-DFIELD_INSERTED"]);
        let comparison = twins.compare();
        refuses(&comparison, |reason| matches!(reason, Reason::ShiftedFields { .. }));
        refuses(&comparison, |reason| matches!(reason, Reason::ChangedNumber { role, .. } if role.contains("alloc")));
    }
}

/// A sum that is calculated as an address would be is none: no field moved.
#[test]
fn a_sum_that_changed_is_a_number() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &["-DSUM_CHANGED"]);
        let comparison = twins.compare();
        let is_sum = |reason: &Reason| matches!(reason, Reason::ChangedNumber { old: 28, new: 20, role, .. } if role.contains("calculated"));
        refuses(&comparison, is_sum);
        let Verdict::Refused { reasons } = &comparison.verdict else { unreachable!("it is refused") };
        assert!(!reasons.iter().any(|reason| matches!(reason, Reason::ShiftedFields { .. })), "{reasons:?}");
    }
}

#[test]
fn a_field_that_doubles_is_refused() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &["-DARRAY_DOUBLED"]);
        refuses(
            &twins.compare(),
            |reason| matches!(reason, Reason::ChangedNumber { role, .. } if role.contains("alloc")),
        );
    }
}

#[test]
fn a_field_in_what_was_padding_is_refused() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &["-DFIELD_IN_PADDING"]);
        refuses(&twins.compare(), |reason| matches!(reason, Reason::NewFields { .. }));
    }
}

#[test]
fn a_global_that_grew_is_refused() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &["-DGLOBAL_GREW"]);
        assert!(matches!(twins.compare().verdict, Verdict::Refused { .. }), "{flags:?}");
    }
}

#[test]
fn another_initial_value_is_refused() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &["-DOTHER_INITIAL"]);
        refuses(&twins.compare(), |reason| matches!(reason, Reason::InitialValues { .. }));
    }
}

#[test]
fn a_new_static_is_never_bound_wrongly() {
    for flags in ALL {
        // Whether it can be shown to be new depends on where the linker put it; that it is no other object is checked.
        Twins::build(SERVER, flags, &["-DNEW_STATIC"]).compare();
    }
}

/// What the table leads to looks alike: functions of one module could be taken for those of the next one.
#[test]
fn an_entry_of_a_table_never_shifts_what_the_others_lead_to() {
    for flags in [PIE, FIXED] {
        for change in ["-DFIRST", "-DBETWEEN"] {
            Twins::build("modules.c", flags, &[change]).compare();
            let back = Twins { old: build("modules.c", &with(flags, &[change])), new: build("modules.c", flags) };
            back.compare();
        }
    }
}

#[test]
fn a_function_that_uses_another_global_never_leads_to_a_wrong_binding() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &["-DOTHER_GLOBAL"]);
        let comparison = twins.compare();
        if flags != LIBRARY {
            refuses(&comparison, |reason| matches!(reason, Reason::Contradictions { .. }));
        }
    }
}

#[test]
fn a_table_of_jumps_that_changed_changes_its_function() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &["-DCASES_CHANGED"]);
        let comparison = twins.compare();
        let changed = comparison.fates.changed.iter().filter(|fate| fate.class.is_change()).count();
        // Its cold piece counts for itself.
        assert!((1..=2).contains(&changed), "{flags:?} {:?}", comparison.fates.changed);
    }
}

#[test]
fn a_changed_main_is_refused() {
    for flags in [PIE, FIXED] {
        let twins = Twins::build(SERVER, flags, &["-DMAIN_CHANGED"]);
        refuses(&twins.compare(), |reason| matches!(reason, Reason::StartUp { .. }));
    }
}

#[test]
fn thread_local_storage_that_came_is_refused() {
    for flags in ALL {
        let twins = Twins::build(SERVER, flags, &["-DTHREAD_LOCAL"]);
        refuses(&twins.compare(), |reason| matches!(reason, Reason::ThreadLocal { .. }));
    }
}

#[test]
fn a_function_that_is_chosen_at_the_start_may_be_called_and_not_changed() {
    for flags in [PIE, FIXED] {
        let chosen = |changes: &[&str]| compare_chosen(flags, changes);
        chosen(&["-DBODY_CHANGED"]).unwrap();
        let refused = chosen(&["-DOTHER_CHOICE"]).unwrap_err();
        assert!(refused.iter().any(|reason| matches!(reason, Reason::Resolver { .. })), "{refused:?}");
    }
}

/// Compares two versions of the program with an IFUNC; its few objects are too few for the check of bindings.
fn compare_chosen(flags: &[&str], changes: &[&str]) -> Result<(), Vec<Reason>> {
    let both: Vec<&str> = flags.iter().chain(changes).copied().collect();
    let (old, new) = (build("chosen.c", flags), build("chosen.c", &both));
    match compare(&old.stripped, &new.stripped).unwrap().verdict {
        Verdict::Updatable { .. } => Ok(()),
        Verdict::Refused { reasons } => Err(reasons),
    }
}

#[test]
fn exported_symbols_show_what_grew() {
    let flags = with(PIE, &["-rdynamic", "-Dstatic="]);
    let twins = Twins::build(SERVER, &flags, &["-DGLOBAL_GREW"]);
    refuses(&twins.compare(), |reason| matches!(reason, Reason::Resized(one) if one.name == "settings"));
}

#[test]
fn exported_symbols_show_what_is_new() {
    let flags = with(PIE, &["-rdynamic", "-Dstatic="]);
    let twins = Twins::build(SERVER, &flags, &["-DNEW_STATIC"]);
    passes(&twins.compare());
}

#[test]
fn new_libraries_are_refused() {
    let twins = Twins::build(SERVER, PIE, &["-Wl,--no-as-needed", "-lm"]);
    refuses(&twins.compare(), |reason| matches!(reason, Reason::NewLibraries { names } if names == &["libm.so.6"]));
}

#[test]
fn another_kind_is_refused() {
    let (old, new) = (build(SERVER, PIE), build(SERVER, FIXED));
    let comparison = compare(&old.stripped, &new.stripped).unwrap();
    refuses(&comparison, |reason| matches!(reason, Reason::OtherKind { .. }));
}

#[test]
fn other_instructions_are_too_much() {
    let (old, new) = (build(SERVER, PIE), build(SERVER, &with(PIE, &["-O0"])));
    let comparison = compare(&old.stripped, &new.stripped).unwrap();
    assert!(matches!(comparison.verdict, Verdict::Refused { .. }));
}

#[test]
fn a_file_for_another_processor_is_an_error() {
    let old = build(SERVER, PIE).stripped;
    let mut new = old.clone();
    new[18] = 183; // AArch64
    assert!(compare(&old, &new).unwrap_err().to_string().contains("another processor"));
    assert!(compare(b"#!/bin/sh\n", &old).is_err());
}

#[test]
fn landing_pads_for_indirect_branches_are_read() {
    let flags = with(PIE, &["-fcf-protection=full", "-Wl,-z,ibtplt", "-Wl,-z,lazy"]);
    let twins = Twins::build(SERVER, &flags, &["-DBODY_CHANGED"]);
    passes(&twins.compare());
}

#[test]
fn packed_relocations_are_read() {
    let flags = with(PIE, &["-Wl,-z,pack-relative-relocs"]);
    let twins = Twins::build(SERVER, &flags, &["-DBODY_CHANGED"]);
    passes(&twins.compare());
    let twins = Twins::build(SERVER, &flags, &["-DOTHER_INITIAL"]);
    refuses(&twins.compare(), |reason| matches!(reason, Reason::InitialValues { .. }));
}

#[test]
fn a_virtual_function_that_changed_can_be_updated() {
    for flags in [PIE, FIXED] {
        passes(&Twins::build(SHAPES, flags, &[]).compare());
        let twins = Twins::build(SHAPES, flags, &["-DBODY_CHANGED"]);
        passes(&twins.compare());
    }
}

#[test]
fn an_empty_exception_specification_is_understood() {
    for flags in [PIE, FIXED] {
        let flags = with(flags, &["-std=c++14"]);
        let same = Twins::build(SHAPES, &flags, &[]);
        assert_eq!(classes(&same.compare()), [].into());
    }
    passes(&Twins::build(SHAPES, &with(PIE, &["-std=c++14"]), &["-DBODY_CHANGED"]).compare());
}

#[test]
fn another_exception_that_is_caught_changes_a_function() {
    for flags in [PIE, FIXED] {
        let twins = Twins::build(SHAPES, flags, &["-DOTHER_CATCH"]);
        let comparison = twins.compare();
        let counts = classes(&comparison);
        assert!(counts.contains_key(&Class::Body), "{flags:?} {counts:?}");
    }
}

#[test]
fn a_virtual_function_that_came_is_refused() {
    for flags in [PIE, FIXED] {
        let twins = Twins::build(SHAPES, flags, &["-DVIRTUAL_ADDED"]);
        assert!(matches!(twins.compare().verdict, Verdict::Refused { .. }));
    }
}

#[test]
fn the_answer_is_the_same_every_time() {
    let twins = Twins::build(SERVER, PIE, &["-DBODY_CHANGED", "-DNEW_STATIC"]);
    let report = || serde_json::to_string(&mvedsua_binary::Report::of(&twins.compare())).unwrap();
    assert_eq!(report(), report());
}

#[test]
fn listings_mark_what_differs() {
    let twins = Twins::build(SERVER, PIE, &["-DBODY_CHANGED"]);
    let comparison = twins.compare();
    let fate = comparison.fates.changed.iter().find(|fate| fate.class == Class::Body).unwrap();
    let text = mvedsua_binary::listing::side_by_side(&comparison, fate);
    assert!(text.lines().any(|line| line.starts_with('+')) && text.lines().any(|line| line.starts_with(' ')), "{text}");
}
