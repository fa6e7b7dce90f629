//! In-place updates of the project's own key-value store: another version, with another layout of its data.

use harness::daemon::Daemon;
use harness::kvstore::Store;
use harness::load::lines::ask;
use harness::load::store::{Speech, StoreClient};
use harness::load::{Load, Plan};
use harness::process;
use harness::stand::{SINGLE, STEP_LIMIT, Stand, VALIDATING, code};
use harness::wait::wait_for;

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
    assert_eq!(stand.serving, old, "the process stays");
    load.wait_requests(200, STEP_LIMIT);
    let line = |line: &str| ask(stand.server.address, line, STEP_LIMIT).unwrap();
    assert_eq!((line("get ann"), line("type ann")), ("1".into(), "string".into()));
    assert_eq!(
        (line("put bob 1"), line("put int bob 1"), line("type bob")),
        ("ERROR".into(), "OK".into(), "int".into())
    );
    stand.expect_clean(load);
}

/// What the entry of a new version may do before it is at the update point: read files, ask what descriptors are, and
/// register them by other values.
#[test]
fn the_entry_of_a_new_version_may_read_and_ask() {
    let store = Store::compile(&[]).unwrap();
    let package = store.package("v2", &["-DASKS"], "").unwrap();
    let mut stand = Stand::new(store.start(ENTRIES).unwrap());
    let load = load(&stand, Speech::Common);
    load.wait_requests(200, STEP_LIMIT);
    validate(&stand, &package);
    stand.wait_compared(500);
    stand.promote();
    load.wait_requests(500, STEP_LIMIT);
    stand.confirm();
    load.wait_requests(500, STEP_LIMIT);
    stand.expect_alone();
    stand.expect_clean(load);
}

/// Version 1 wants to know of the update: it begins anew at the update point at which the follower does.
#[test]
fn the_leader_is_told_at_the_update_point() {
    let store = Store::compile(&["-DTURNS"]).unwrap();
    let package = store.package("v2", &["-DTURNS"], "").unwrap();
    let mut stand = Stand::new(store.start(ENTRIES).unwrap());
    let load = load(&stand, Speech::Common);
    let address = stand.server.address;
    let turn = || ask(address, "turn", STEP_LIMIT).unwrap();
    assert_eq!([turn(), turn(), turn()], ["0", "1", "2"]);
    for _ in 0..3 {
        validate(&stand, &package);
        assert_eq!([turn(), turn()], ["0", "1"], "both versions begin anew");
        stand.wait_compared(200);
        stand.rollback();
        assert_eq!([turn(), turn()], ["2", "3"]);
    }
    validate(&stand, &package);
    assert_eq!(turn(), "0");
    stand.wait_compared(200);
    stand.promote();
    assert_eq!(turn(), "1");
    stand.confirm();
    assert_eq!(turn(), "2");
    stand.expect_clean(load);
}

/// Nobody talks to the store: its thread waits for events, and comes to the update point all the same.
#[test]
fn an_idle_store_is_updated() {
    let store = Store::compile(&[]).unwrap();
    let package = store.package("v2", &[], "").unwrap();
    let mut stand = Stand::new(store.start(ENTRIES).unwrap());
    validate(&stand, &package);
    stand.rollback();
    stand.expect_restored();
    assert_eq!(ask(stand.server.address, "type key1", STEP_LIMIT).unwrap(), "ERROR");
}

/// Kitsune's way: the process updates itself. Its clients wait meanwhile, and none is answered wrongly.
#[test]
fn the_store_updates_itself_under_live_connections() {
    let store = Store::compile(&[]).unwrap();
    let next = store.object("v2.c", "v2.so", &[]).unwrap();
    let server = store.start_for(ENTRIES, &next).unwrap();
    let client = |index| StoreClient::new(Speech::Common, index, CLIENTS, ENTRIES);
    let load = Load::start(Plan::busy(server.address, CLIENTS), client);
    load.wait_requests(500, STEP_LIMIT);
    process::signal(server.pid(), nix::sys::signal::Signal::SIGUSR2);
    wait_for("the update", STEP_LIMIT, || server.output().contains("mvedsua: updated to ").then_some(()));
    load.wait_requests(500, STEP_LIMIT);
    assert_eq!(ask(server.address, "type key1", STEP_LIMIT).unwrap(), "string");
    load.stop().expect_clean();
}

/// A program with its input and output, ended with all that came of it.
struct Piped {
    pid: i32,
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Piped {
    fn ask(&mut self, line: &str) -> String {
        use std::io::Write;
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.lines.next().unwrap().unwrap()
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        for member in process::session(self.pid) {
            process::end(member.pid);
        }
        let _ = self.child.wait();
    }
}

/// Four threads wait for a condition, one sleeps, one reads: all pass over in the follower, and are the same threads.
#[test]
fn threads_pass_over_in_the_follower() {
    use std::io::BufRead;
    process::become_subreaper();
    let store = Store::of("mvedsua-sdk/tests/kinds/threads.c", &["-DVERSION=1"]).unwrap();
    let package = store.package_of("mvedsua-sdk/tests/kinds/threads.c", "v2", &["-DVERSION=2"], "").unwrap();
    let daemon = Daemon::start().unwrap();
    let mut child = std::process::Command::new("setsid")
        .args([store.path().join("kvstore"), store.path().join("v1.so")])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut program = Piped { pid: child.id() as i32, child, lines };
    assert_eq!(program.ask("work"), "finished 10 last 1000");
    let pid = program.pid.to_string();
    daemon.expect(&["update", &pid, "--to", &package.display().to_string()], code::DONE);
    daemon.wait_stage(program.pid, VALIDATING, STEP_LIMIT);
    daemon.expect(&["promote", "--force", &pid], code::DONE);
    // The two say different things from here on, so the old version ends before.
    daemon.expect(&["confirm", &pid], code::DONE);
    daemon.wait_stage(program.pid, SINGLE, STEP_LIMIT);
    assert_eq!(program.ask("work"), "finished 20 last 2001");
    assert_eq!(program.ask("join"), "joined 20 jobs by version 2");
}

/// Clients go on putting while the new version is being applied: rules hold from when it is there, and not before.
#[test]
fn rules_hold_from_when_the_new_version_is_there() {
    const RULES: &str = "direction outdated-leader\n\
        rule plain-put\n    read(client, /^put (?<key>\\S+) (?<value>\\S+)\\n$/)\n \
        => read(client, \"put string {key} {value}\\n\")\n";
    let store = Store::compile(&[]).unwrap();
    let package = store.package("v2", &[], "").unwrap().display().to_string();
    let rules = store.path().join("puts.rules");
    std::fs::write(&rules, RULES).unwrap();
    let mut stand = Stand::new(store.start(100_000).unwrap());
    let client = |index| StoreClient::new(Speech::Plain, index, CLIENTS, 100_000);
    // A request that comes in two pieces is another matter.
    let load = Load::start(Plan { split_one_in: 0, ..Plan::busy(stand.server.address, CLIENTS) }, client);
    load.wait_requests(500, STEP_LIMIT);
    for _ in 0..3 {
        let (pid, rules) = (stand.serving.to_string(), rules.display().to_string());
        stand.daemon.expect(&["update", &pid, "--to", &package, "--rules", &rules], code::DONE);
        stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
        stand.wait_compared(2000);
        stand.rollback();
        stand.expect_restored();
    }
    stand.expect_clean(load);
}
