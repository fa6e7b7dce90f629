//! What an operator is told while something takes long, and by which names.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use harness::kvstore::Store;
use harness::load::resp::RedisClient;
use harness::load::store::{Speech, StoreClient};
use harness::load::{Load, Plan};
use harness::process;
use harness::server;
use harness::stand::{STEP_LIMIT, Stand, VALIDATING, code};
use nix::sys::signal::Signal;

const ENTRIES: u64 = 1000;

/// A Redis that is validated, under load.
fn validated() -> (Stand, Load<RedisClient>) {
    let stand = Stand::new(server::redis(&[]).unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 5), |index| RedisClient::new(&format!("c{index}")));
    load.wait_requests(100, STEP_LIMIT);
    stand.validate(&[]);
    stand.wait_compared(100);
    (stand, load)
}

/// Asks for the promotion, which cannot be made; when it is told what it waits for, `relieve` ends that. Returns how the request
/// ended.
fn promote_and_hear(stand: &Stand, expected: &str, relieve: impl FnOnce()) -> Option<i32> {
    let pid = stand.serving.to_string();
    let mut promote =
        stand.daemon.command(&["promote", &pid]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let (tell, told) = channel();
    let errors = BufReader::new(promote.stderr.take().unwrap());
    let listener = std::thread::spawn(move || {
        for line in errors.lines() {
            drop(tell.send(line.unwrap()));
        }
    });
    let mut heard = vec![];
    while !heard.last().is_some_and(|line: &String| line.contains(expected)) {
        heard.push(told.recv_timeout(STEP_LIMIT).unwrap_or_else(|_| panic!("`{expected}` was not said: {heard:#?}")));
    }
    let status = stand.daemon.status(stand.serving).unwrap().unwrap();
    relieve();
    let code = promote.wait().unwrap().code();
    listener.join().unwrap();
    assert!(status.raw["update"]["waits_for"].is_string() || status.stage == VALIDATING, "{:#}", status.raw);
    code
}

#[test]
fn a_promotion_says_that_the_process_is_stopped() {
    let (mut stand, load) = validated();
    process::signal(stand.serving, Signal::SIGSTOP);
    let go_on = || process::signal(stand.serving, Signal::SIGCONT);
    assert_eq!(promote_and_hear(&stand, "is stopped by signal 19", go_on), Some(code::DONE));
    stand.confirm();
    stand.expect_clean(load);
}

#[test]
fn a_promotion_says_that_the_process_has_no_descriptors_left() {
    // The new version has mapped a file that the service has to open.
    let store = Store::compile(&[]).unwrap();
    let package = store.package("v2", &[], "").unwrap().display().to_string();
    let mut stand = Stand::new(store.start(ENTRIES).unwrap());
    let client = |index| StoreClient::new(Speech::Common, index, 5, ENTRIES);
    let load = Load::start(Plan::busy(stand.server.address, 5), client);
    stand.daemon.expect(&["update", &stand.serving.to_string(), "--to", &package], code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
    stand.wait_compared(200);
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &stand.serving.to_string(), "--nofile=3:3"]);
    assert!(prlimit.status().unwrap().success());
    // Nobody can raise that limit again, so the update is undone.
    let undo = || drop(stand.daemon.expect(&["rollback", &stand.serving.to_string()], code::DONE));
    let ended = promote_and_hear(&stand, "may have no more than 3 descriptors", undo);
    assert_eq!(ended, Some(code::DIVERGED));
    stand.settled();
    stand.expect_clean(load);
}

#[test]
fn redis_is_shown_by_the_name_that_it_was_started_by() {
    let stand = Stand::new(server::redis(&[]).unwrap());
    let file = std::fs::read_link(format!("/proc/{}/exe", stand.serving)).unwrap();
    stand.daemon.expect(&["attach", &stand.serving.to_string()], code::DONE);
    let text = stand.daemon.expect(&["status"], code::DONE).stdout;
    let name = file.file_name().unwrap().to_str().unwrap();
    let expected = if name == "redis-server" { name } else { "started as redis-server" };
    assert!(text.contains(expected), "{text}");
}
