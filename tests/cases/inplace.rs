//! In-place updates of the project's own key-value store: another version, with another layout of its data.

use harness::kvstore::Store;
use harness::load::lines::ask;
use harness::load::store::{Speech, StoreClient};
use harness::load::{Load, Plan};
use harness::process;
use harness::stand::{STEP_LIMIT, Stand, VALIDATING, code};

const CLIENTS: usize = 20;
const ENTRIES: u64 = 20_000;

fn load(stand: &Stand, speech: Speech) -> Load<StoreClient> {
    let client = |index| StoreClient::new(speech, index, CLIENTS, ENTRIES);
    Load::start(Plan::busy(stand.server.address, CLIENTS), client)
}

/// Asks for the update to a package and waits until it is validated.
#[track_caller]
fn validate(stand: &Stand, package: &std::path::Path) {
    let (pid, to) = (stand.serving.to_string(), package.display().to_string());
    stand.daemon.expect(&["update", &pid, "--to", &to], code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
}

#[test]
fn the_store_goes_to_version_2_under_live_connections_and_back() {
    let store = Store::compile(&[]).unwrap();
    let package = store.package("v2", &[], "").unwrap();
    let mut stand = Stand::new(store.start(ENTRIES).unwrap());
    let load = load(&stand, Speech::Common);
    load.wait_requests(200, STEP_LIMIT);
    let line = |line: &str| ask(stand.server.address, line, STEP_LIMIT).unwrap();
    assert_eq!((line("put ann 1"), line("type ann")), ("OK".into(), "ERROR".into()));

    // Undone before the promotion: version 1 serves as if nothing had happened.
    validate(&stand, &package);
    stand.wait_compared(200);
    stand.rollback();
    stand.expect_restored();
    load.wait_requests(200, STEP_LIMIT);

    // Undone after it.
    validate(&stand, &package);
    stand.wait_compared(200);
    let old = stand.serving;
    stand.promote();
    load.wait_requests(200, STEP_LIMIT);
    stand.rollback();
    assert_eq!(stand.serving, old, "the old version serves again");
    stand.expect_alone();

    // And for good.
    validate(&stand, &package);
    stand.wait_compared(200);
    stand.promote();
    load.wait_requests(200, STEP_LIMIT);
    stand.confirm();
    stand.expect_alone();
    assert!(!process::alive(old), "the old version has ended");
    load.wait_requests(200, STEP_LIMIT);
    let line = |line: &str| ask(stand.server.address, line, STEP_LIMIT).unwrap();
    assert_eq!((line("get ann"), line("type ann")), ("1".into(), "string".into()));
    assert_eq!(
        (line("put bob 1"), line("put int bob 1"), line("type bob")),
        ("ERROR".into(), "OK".into(), "int".into())
    );
    stand.expect_clean(load);
}
