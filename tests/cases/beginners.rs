//! Mistakes of beginners with the SDK: each update is undone with a message that names the cause, and the service goes on.

use harness::kvstore::Store;
use harness::load::lines::ask;
use harness::stand::{SINGLE, STEP_LIMIT, Stand, code};
use harness::wait::wait_for;

const SOURCE: &str = "tests/servers/beginner.c";

/// Updates a server to a version with a mistake; returns what is said of it.
#[track_caller]
fn said_of(mistake: &str) -> (i32, String) {
    let define = format!("-D{mistake}");
    let store = Store::of(SOURCE, &[&define]).unwrap();
    let package = store.package_of(SOURCE, "next", &["-DSECOND", &define], "retries = 0\n").unwrap();
    let mut stand = Stand::new(store.start(0).unwrap());
    let address = stand.server.address;
    let mut lines = 0;
    let mut go_on = || {
        lines += 1;
        assert_eq!(ask(address, "go on", STEP_LIMIT).unwrap(), lines.to_string(), "{mistake}");
    };
    go_on();
    let (pid, to) = (stand.serving.to_string(), package.display().to_string());
    stand.daemon.expect(&["update", &pid, "--to", &to], code::DONE);
    wait_for(&format!("the end of the update; {}", stand.daemon.output()), STEP_LIMIT, || {
        go_on();
        let status = stand.daemon.status(stand.serving).ok().flatten()?;
        (status.stage == SINGLE && status.result.is_some()).then_some(())
    });
    let (verdict, text) = stand.settled().result.unwrap();
    go_on();
    stand.expect_alone();
    (verdict as i32, text)
}

#[track_caller]
fn is_told(mistake: &str, verdict: i32, words: &[&str]) {
    let (code, text) = said_of(mistake);
    assert_eq!(code, verdict, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn an_update_point_with_another_name() {
    is_told(
        "RENAMED_POINT",
        code::DIVERGED,
        &[
            "accept is not supported",
            "on its way to the update point `accept` and had come to `next client` only",
            "an update point must keep its name",
        ],
    );
}

#[test]
fn no_update_point_in_the_new_version() {
    is_told("NO_POINT", code::DIVERGED, &["on its way to the update point `accept` and had come to none"]);
}

#[test]
fn no_update_point_at_all() {
    let (code, text) = said_of("NEVER_A_POINT");
    // One that waits for a client when it is forked is woken; one that serves one just goes on.
    let expected = match code {
        code::DIVERGED => "accept was interrupted (EINTR), so that the thread comes to an update point",
        code::TIMED_OUT => "no update point was reached",
        _ => panic!("{code}: {text}"),
    };
    for word in [expected, "is there an mvedsua_update in "] {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn a_transformer_that_crashes() {
    is_told("CRASHES", code::CRASHED, &["SIGSEGV at 0x10; the transformer of `lines` ran"]);
}

#[test]
fn a_variable_that_is_not_registered_any_more() {
    is_told(
        "LEAVES",
        code::DIVERGED,
        &[
            "write differs",
            "the new version does not register `lines`, which the running one registers: its value is lost",
        ],
    );
}

#[test]
fn a_variable_with_another_name() {
    is_told(
        "RENAMED",
        code::DIVERGED,
        &[
            "`lines` of the running version would be lost, and `lines_so_far` of the new one begins anew",
            "MVEDSUA_TRANSFORM_FROM(\"lines_so_far\", \"lines\", NULL)",
        ],
    );
}

#[test]
fn a_variable_that_the_running_version_does_not_register() {
    is_told("FORGOTTEN", code::DIVERGED, &["the new version registers `lines`, and the running one has it without"]);
}
