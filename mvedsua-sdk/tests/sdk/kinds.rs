//! The kinds of change that Kitsune's tutorial teaches, each in a program that updates itself.

use crate::support::{Kind, Program};

#[track_caller]
fn update(program: &mut Program) {
    let said = program.update();
    assert!(said.starts_with("mvedsua: updated to "), "{said}");
}

/// Asks version 1, updates, asks version 2 (twice, since it must go on), and ends it.
#[track_caller]
fn changes(name: &str, before: &str, after: [&str; 2]) {
    let kind = Kind::compile(name, &[]);
    let mut program = kind.start();
    assert_eq!(program.ask("show"), before);
    update(&mut program);
    assert_eq!([program.ask("show"), program.ask("show")], after);
    assert_eq!(program.finish(), 0);
}

#[test]
fn globals_and_locals_are_carried_over_and_a_new_global_is_initialised() {
    let kind = Kind::compile("globals.c", &[]);
    let mut program = kind.start();
    assert_eq!(program.ask("show"), "number 1 word first rounds 201");
    assert_eq!(program.ask("change"), "number 7 word second rounds 202");
    update(&mut program);
    assert_eq!(program.ask("show"), "v2 number 7 word second rounds 203 fresh 42");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", program.pid())).expect("the program's maps");
    let code = |name: &str| maps.lines().any(|line| line.ends_with(name) && line.contains(" r-xp "));
    assert!(code("/v2.so") && !code("/v1.so"), "only the new version can be executed: {maps}");
    assert_eq!(program.finish(), 0);
}

#[test]
fn control_migrates_into_the_inner_loop_or_the_outer_one() {
    let kind = Kind::compile("inner_loop.c", &[]);
    let mut program = kind.start();
    assert_eq!(program.ask("ann"), "v1 hello ann");
    assert_eq!(program.ask("x"), "v1 ann turn 1");
    update(&mut program);
    assert_eq!(program.ask("x"), "v2 ann turn 2");
    assert_eq!(program.ask("bye"), "bye ann");
    assert_eq!(program.ask("bob"), "v2 hello bob");
    drop(program);
    let mut program = kind.start();
    update(&mut program);
    assert_eq!(program.ask("bob"), "v2 hello bob");
}

#[test]
fn a_global_is_renamed_and_others_are_computed() {
    changes("renamed.c", "95", ["95 95000 1 97", "95 95000 1 97"]);
}

#[test]
fn structures_get_a_field_alone_in_arrays_lists_and_trees() {
    let after = "1:item1 10:item10 11:item11 12:item12 0: 0: 22:item22 21:item21 20:item20 \
                 0@3 1@1 2@2 3@0 4@3 5@2 6@1 .";
    let before = "1 10 11 12 22 21 20 0 1 2 3 4 5 6 .";
    let kind = Kind::compile("structures.c", &[]);
    let mut program = kind.start();
    assert_eq!(program.ask("show"), before);
    update(&mut program);
    let shown = program.ask("show");
    assert_eq!(shown.split('@').next(), after.split('@').next());
    assert_eq!(shown.matches('@').count(), 7);
    assert!(shown.contains("3@0"), "{shown}");
    assert_eq!(program.ask("show"), shown);
}

#[test]
fn pointers_lead_to_the_new_version() {
    changes(
        "pointers.c",
        "11 101 2 favourite 4 heap 5 old literal",
        ["12 102 3 favourite 5 heap 5 old literal", "12 102 3 favourite 6 heap 5 old literal"],
    );
}

#[test]
fn a_union_gets_bigger() {
    let after = "4.5, longer than four, 44.5, .";
    changes("unions.c", "4, four, 44, .", [after, after]);
}

#[test]
fn threads_in_condition_waits_and_in_sleep_pass_over() {
    let kind = Kind::compile("threads.c", &[]);
    let mut program = kind.start();
    assert_eq!(program.ask("work"), "finished 10 last 1000");
    update(&mut program);
    assert_eq!(program.ask("work"), "finished 20 last 2001");
    assert_eq!(program.ask("join"), "joined 20 jobs by version 2");
    assert_eq!(program.finish(), 0);
}

/// The same with an update right after the start and one while work is done, again and again.
#[test]
fn threads_pass_over_at_any_time() {
    let kind = Kind::compile("threads.c", &[]);
    for _ in 0..10 {
        let mut program = kind.start();
        update(&mut program);
        assert_eq!(program.ask("work"), "finished 10 last 2001");
        assert_eq!(program.ask("join"), "joined 10 jobs by version 2");
    }
}

#[test]
fn a_second_update_and_one_back_work_too() {
    let kind = Kind::compile("globals.c", &[]);
    let next = kind.path("next.so");
    std::os::unix::fs::symlink(kind.path("v2.so"), &next).expect("a link");
    let mut program = Program::start(&kind.path("program"), &kind.path("v1.so"), &[], &next);
    assert_eq!(program.ask("change"), "number 7 word second rounds 201");
    update(&mut program);
    for round in 0..5 {
        std::fs::remove_file(&next).expect("the link");
        std::fs::copy(kind.path("v1.so"), kind.path(&format!("again{round}.so"))).expect("a copy");
        std::os::unix::fs::symlink(kind.path(&format!("again{round}.so")), &next).expect("a link");
        update(&mut program);
        assert_eq!(program.ask("show"), format!("number 7 word second rounds {}", 202 + round));
    }
}

/// A version that has a fault is not taken, and the old one goes on with everything as it was.
#[track_caller]
fn refused(define: &str, reason: &str) {
    let defines: Vec<&str> = [define, "-Wno-unused"].to_vec();
    let kind = Kind::compile("refusals.c", &defines);
    let mut program = kind.start();
    assert_eq!(program.ask("show"), "v1 number 1 local 5 aborted 0 ");
    let said = program.update();
    assert!(said.contains("not updated: ") && said.contains(reason), "{said}");
    let after = program.ask("show");
    assert!(after.starts_with("v1 number 2 local 5 aborted 1 ") && after.contains(reason), "{after}");
    // And it can be asked again.
    let again = program.update();
    assert!(again.contains(reason), "{again}");
}

#[test]
fn a_transformer_that_fails_is_named() {
    refused("-DREFUSE_TRANSFORMER", "the transformer of `number` failed: the numbers are against it");
}

#[test]
fn a_size_that_changed_without_a_transformer_is_named() {
    refused("-DREFUSE_SIZE", "`number` has 8 bytes, had 4, and no transformer");
}

#[test]
fn a_local_that_changed_without_a_transformer_is_named() {
    refused("-DREFUSE_LOCAL", "`mvedsua_main.local` has 8 bytes, had 4, and no transformer");
}

#[test]
fn a_source_that_does_not_exist_is_named() {
    refused("-DREFUSE_UNKNOWN", "`other` is to be made of `nothing`");
}

#[test]
fn a_transformer_of_nothing_is_named_with_what_there_is() {
    refused(
        "-DREFUSE_NOBODYS",
        "a transformer of `numbers`, which the new version does not register; it registers `number`",
    );
}

#[test]
fn a_variable_that_would_be_lost_is_named() {
    let renamed = "`number` of the running version would be lost, and `amount` of the new one begins anew";
    refused("-DREFUSE_RENAMED", renamed);
    refused("-DREFUSE_FORGOTTEN", "registers `other`, and the running one has it without registering it");
}

#[test]
fn a_missing_symbol_is_named() {
    refused("-DREFUSE_SYMBOL", "nobody_has_this");
}

#[test]
fn an_entry_that_returns_is_named() {
    refused("-DREFUSE_RETURN", "returned 9 before it came to the update point `loop`");
}

#[test]
fn a_lock_that_is_held_is_named() {
    refused("-DREFUSE_LOCK", "a thread in mvedsua_main holds 1 lock(s) at the update point `loop`");
}

#[test]
fn a_thread_that_does_not_come_is_named() {
    refused("-DREFUSE_LATE", "not every thread comes to an update point: sleeper");
}

#[test]
fn a_thread_that_does_not_take_part_is_noticed() {
    refused("-DREFUSE_STRANGER", "1 thread(s) do not take part");
}

#[test]
fn a_signal_handler_that_stays_behind_is_named() {
    refused("-DREFUSE_HANDLER", "signal 10 still goes to a function of the old version");
}

#[test]
fn an_object_that_is_no_version_is_named() {
    let kind = Kind::compile("globals.c", &[]);
    let text = kind.path("text.so");
    std::fs::write(&text, "this is no object\n").expect("a file");
    for (next, reason) in [
        (text, "cannot be loaded"),
        (kind.path("nothing.so"), "cannot be loaded"),
        (kind.path("v1.so"), "is the version that runs"),
    ] {
        let mut program = Program::start(&kind.path("program"), &kind.path("v1.so"), &[], &next);
        program.ask("show");
        let said = program.update();
        assert!(said.contains(reason), "{said}");
        assert_eq!(program.ask("show"), "number 1 word first rounds 202");
    }
}
