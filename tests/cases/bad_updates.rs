//! Updates that must not come into service: the key-value store's version 2 with a fault. In each case every client is
//! answered, and answered rightly; the update is undone with the right exit code, and the report names the cause.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::kvstore::Store;
use harness::load::lines::ask;
use harness::load::store::{Speech, StoreClient};
use harness::load::{Load, Plan, Summary};
use harness::stand::{SINGLE, STEP_LIMIT, Stand, VALIDATING, code};
use harness::wait::wait_for;

const CLIENTS: usize = 10;
const ENTRIES: u64 = 5_000;
const BUILD_ID: i32 = 23;
/// Beyond what clients wait for, so that a service that stands still is noticed.
const LONG: Duration = Duration::from_secs(120);

fn load(stand: &Stand) -> Load<StoreClient> {
    let client = |index| StoreClient::new(Speech::Common, index, CLIENTS, ENTRIES);
    Load::start(Plan { pause_one_in: 1000, ..Plan::busy(stand.server.address, CLIENTS) }, client)
}

fn update(stand: &Stand, package: &Path, expected: i32) -> String {
    let (pid, to) = (stand.serving.to_string(), package.display().to_string());
    stand.daemon.expect(&["update", &pid, "--to", &to], expected).stderr
}

/// Updates to a bad version and expects it to be undone with one of the codes and a report that says why.
#[track_caller]
fn undone(defines: &[&str], policy: &str, codes: &[i32], cause: &str) {
    let store = Store::compile(&[]).unwrap();
    let package = store.package("bad", defines, policy).unwrap();
    let mut stand = Stand::new(store.start(ENTRIES).unwrap());
    let load = load(&stand);
    load.wait_requests(100, STEP_LIMIT);
    let began = Instant::now();
    update(&stand, &package, code::DONE);
    let status = wait_for(&format!("a verdict; daemon: {}", stand.daemon.output()), LONG, || {
        let status = stand.daemon.status(stand.serving).ok().flatten()?;
        (status.stage == SINGLE && status.result.is_some()).then_some(status)
    });
    let (verdict, text) = status.result.clone().unwrap();
    let report = stand.daemon.run(&["report", &stand.serving.to_string()]).unwrap().stdout;
    println!("{defines:?}: exit code {verdict} after {:.1} s: {text}", began.elapsed().as_secs_f64());
    assert!(codes.contains(&(verdict as i32)), "{verdict}: {text}\n{report}");
    assert!(text.contains(cause) || report.replace("\n ", "").contains(cause), "{text}\n{report}");
    load.wait_requests(100, STEP_LIMIT);
    stand.settled();
    stand.expect_restored();
    stand.expect_clean(load);
}

#[test]
fn it_crashes_at_its_first_command() {
    undone(&["-DBAD_CRASH_AT=1"], "", &[code::CRASHED], "SIGSEGV");
}

#[test]
fn it_crashes_at_its_thousandth_command() {
    undone(&["-DBAD_CRASH_AT=1000"], "", &[code::CRASHED], "SIGSEGV");
}

#[test]
fn it_hangs_in_a_loop() {
    undone(&["-DBAD_HANG_AT=200"], "hang-timeout = \"2s\"\n", &[code::CRASHED], "made no call");
}

#[test]
fn it_waits_for_a_lock() {
    undone(&["-DBAD_LOCK_AT=200"], "hang-timeout = \"2s\"\n", &[code::CRASHED], "made no call");
}

#[test]
fn it_answers_one_byte_wrong_once_in_ten_thousand() {
    undone(&["-DBAD_BYTE_EVERY=10000"], "", &[code::DIVERGED], "write");
}

#[test]
fn it_answers_twenty_times_slower() {
    undone(&["-DBAD_SLOW=100"], "latency-budget = \"300%\"\n", &[code::CRASHED], "its budget is 300 %");
}

#[test]
fn it_leaks() {
    undone(&["-DBAD_LEAK=1000000"], "memory-limit = \"200M\"\n", &[code::CRASHED], "its limit is 200 MiB");
}

#[test]
fn it_writes_where_it_must_not() {
    let written = Path::new("/tmp/kvstore-was-here-200");
    // Left by a run that failed.
    let _ = fs::remove_file(written);
    undone(&["-DBAD_WRITE_AT=200"], "", &[code::DIVERGED], "openat");
    assert!(!written.exists(), "nothing was written");
}

#[test]
fn its_transformer_crashes() {
    undone(&["-DBAD_TRANSFORMER_CRASHES"], "", &[code::CRASHED], "add_types");
}

#[test]
fn its_transformer_fails() {
    undone(
        &["-DBAD_TRANSFORMER_FAILS"],
        "",
        &[code::DIVERGED],
        "the transformer of `table` failed: this one always fails",
    );
}

#[test]
fn its_transformer_loops() {
    undone(&["-DBAD_TRANSFORMER_LOOPS"], "", &[code::CRASHED], "add_types");
}

#[test]
fn its_transformer_frees_what_is_in_use() {
    // What becomes of memory that is used after it was freed is nobody's to say; that the versions part is.
    undone(&["-DBAD_TRANSFORMER_FREES"], "", &[code::DIVERGED, code::CRASHED], "divergence:");
}

#[test]
fn its_transformer_drops_one_entry_in_a_thousand() {
    undone(&["-DBAD_TRANSFORMER_DROPS=1000"], "", &[code::DIVERGED], "NOT FOUND");
}

#[test]
fn it_lacks_a_symbol() {
    undone(&["-DBAD_SYMBOL"], "", &[code::DIVERGED], "nobody_has_this_function");
}

#[test]
fn its_entry_does_not_come_to_the_update_point() {
    undone(&["-DBAD_ENTRY_RETURNS"], "", &[code::DIVERGED], "returned 3 before it came to the update point `loop`");
}

#[test]
fn its_entry_opens_a_socket() {
    undone(&["-DBAD_ENTRY_LISTENS"], "", &[code::DIVERGED], "socket");
}

#[test]
fn a_package_that_is_not_what_it_says_is_refused_before_anything_is_touched() {
    let store = Store::compile(&[]).unwrap();
    let stand = Stand::new(store.start(ENTRIES).unwrap());
    let load = load(&stand);

    let package = store.package("other", &[], "").unwrap();
    store.object("v2.c", "other/other.so", &["-DBAD_SLOW=1"]).unwrap();
    fs::set_permissions(package.join("other.so"), fs::Permissions::from_mode(0o644)).unwrap();
    let said = update(&stand, &package, BUILD_ID);
    assert!(said.contains("another build"), "{said}");

    let package = store.package("text", &[], "").unwrap();
    fs::write(package.join("text.so"), "this is no object\n").unwrap();
    let said = update(&stand, &package, code::REFUSED);
    assert!(said.contains("ELF"), "{said}");

    let package = store.package("open", &[], "").unwrap();
    fs::set_permissions(package.join("open.so"), fs::Permissions::from_mode(0o666)).unwrap();
    let said = update(&stand, &package, code::REFUSED);
    assert!(said.contains("others may write it"), "{said}");

    stand.expect_restored();
    stand.expect_clean(load);
}

/// Gives the store an entry that no client of the load deletes.
fn put_own(stand: &Stand) {
    assert_eq!(ask(stand.server.address, "put own value", STEP_LIMIT).unwrap(), "OK");
}

/// A lock is held at the update point: that is a matter of timing, and a later attempt succeeds.
#[test]
fn an_update_that_comes_at_a_bad_time_is_tried_again() {
    let store = Store::compile(&["-DHOLD"]).unwrap();
    let package = store.package("v2", &[], "").unwrap();
    let mut stand = Stand::new(store.start(ENTRIES).unwrap());
    let load = load(&stand);
    let address = stand.server.address;
    put_own(&stand);
    ask(address, "hold", STEP_LIMIT).unwrap();
    update(&stand, &package, code::DONE);
    wait_for("a second attempt", STEP_LIMIT, || {
        let failed = "a thread in mvedsua_main holds 1 lock(s) at the update point `loop`";
        (stand.daemon.output().matches(failed).count() >= 2).then_some(())
    });
    ask(address, "free", STEP_LIMIT).unwrap();
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
    stand.wait_compared(100);
    stand.promote();
    stand.confirm();
    assert_eq!(ask(address, "type own", STEP_LIMIT).unwrap(), "string");
    stand.expect_clean(load);
}

/// The old version crashes on a command that the new one has fixed, while the new one is being validated: it takes over.
#[test]
fn the_old_version_crashes_on_what_the_new_one_has_fixed() {
    let store = Store::compile(&["-DFRAGILE"]).unwrap();
    let package = store.package("v2", &[], "").unwrap();
    let mut stand = Stand::new(store.start(ENTRIES).unwrap());
    let load = load(&stand);
    put_own(&stand);
    update(&stand, &package, code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
    stand.wait_compared(200);
    assert_eq!(ask(stand.server.address, "boom", STEP_LIMIT).unwrap(), "ERROR");
    stand.taken_over();
    load.wait_requests(200, STEP_LIMIT);
    assert_eq!(ask(stand.server.address, "type own", STEP_LIMIT).unwrap(), "string");
    stand.expect_alone();
    stand.expect_clean(load);
}

/// The new version crashes while it leads: the old one, which follows, takes over again.
#[test]
fn the_new_version_crashes_while_it_leads() {
    let store = Store::compile(&[]).unwrap();
    let package = store.package("bad", &["-DBAD_CRASH_AT=6000"], "").unwrap();
    let mut stand = Stand::new(store.start(ENTRIES).unwrap());
    let load = slow_load(&stand);
    update(&stand, &package, code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
    stand.wait_compared(100);
    stand.promote();
    stand.taken_over();
    load.wait_requests(200, STEP_LIMIT);
    assert_eq!(ask(stand.server.address, "type key1", STEP_LIMIT).unwrap(), "ERROR", "version 1 serves");
    stand.expect_alone();
    stand.expect_clean(load);
}

/// Slow enough that a version which goes wrong after some thousand commands is promoted before.
fn slow_load(stand: &Stand) -> Load<StoreClient> {
    let plan = Plan { pause_one_in: 1, pause: Duration::from_millis(15), ..Plan::busy(stand.server.address, CLIENTS) };
    Load::start(plan, |index| StoreClient::new(Speech::Common, index, CLIENTS, ENTRIES))
}

/// Promotes a version that goes wrong after some thousand commands, and expects the old one to lead again by itself.
#[track_caller]
fn undone_after_promotion(define: &str, policy: &str, options: &[&str], verdict: i32, cause: &str) -> Summary {
    let store = Store::compile(&[]).unwrap();
    let package = store.package("bad", &[define], policy).unwrap();
    let mut stand = Stand::new(store.start(ENTRIES).unwrap());
    let load = slow_load(&stand);
    let (pid, to) = (stand.serving.to_string(), package.display().to_string());
    stand.daemon.expect(&[&["update", &pid, "--to", &to], options].concat(), code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
    stand.wait_compared(100);
    let old = stand.serving;
    stand.promote();
    let promoted = Instant::now();
    let status = wait_for(&format!("the old version to lead; daemon: {}", stand.daemon.output()), LONG, || {
        let status = stand.daemon.status(old).ok().flatten()?;
        (status.stage == SINGLE && status.result.is_some()).then_some(status)
    });
    let (got, text) = status.result.clone().unwrap();
    println!(
        "{define} {options:?}: exit code {got}, {:.1} s after the promotion: {text}",
        promoted.elapsed().as_secs_f64()
    );
    let report = stand.daemon.run(&["report", &old.to_string()]).unwrap().stdout;
    assert_eq!(got as i32, verdict, "{text}\n{report}");
    assert!(report.replace("\n ", "").contains(cause), "{report}");
    stand.serving = old;
    load.wait_requests(200, STEP_LIMIT);
    assert_eq!(ask(stand.server.address, "type key1", STEP_LIMIT).unwrap(), "ERROR", "version 1 serves");
    stand.expect_alone();
    let summary = load.stop();
    assert_eq!(summary.connects, CLIENTS as u64, "every client kept its connection: {:#?}", summary.failures);
    summary
}

#[test]
fn it_answers_a_byte_wrong_while_it_leads() {
    let summary = undone_after_promotion("-DBAD_BYTE_EVERY=5000", "", &[], code::DIVERGED, "write");
    assert!(summary.failed <= 1, "{:#?}", summary.failures);
}

#[test]
fn in_lockstep_not_one_wrong_byte_gets_out() {
    undone_after_promotion("-DBAD_BYTE_EVERY=5000", "", &["--lockstep"], code::DIVERGED, "write").expect_clean();
}

#[test]
fn it_hangs_while_it_leads() {
    let policy = "hang-timeout = \"2s\"\n";
    undone_after_promotion("-DBAD_HANG_AT=6000", policy, &[], code::CRASHED, "has not come to").expect_clean();
}

#[test]
fn it_waits_for_a_lock_while_it_leads() {
    let policy = "hang-timeout = \"2s\"\n";
    undone_after_promotion("-DBAD_LOCK_AT=6000", policy, &[], code::CRASHED, "has not come to").expect_clean();
}

#[test]
fn it_writes_where_it_must_not_while_it_leads() {
    let summary = undone_after_promotion("-DBAD_WRITE_AT=6000", "", &[], code::DIVERGED, "openat");
    // What a version that leads does is done; the comparison finds it.
    let _ = fs::remove_file("/tmp/kvstore-was-here-6000");
    summary.expect_clean();
}
