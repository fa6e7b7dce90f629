//! What an operator is told while something takes long, and by which names.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use harness::load::resp::RedisClient;
use harness::load::{Load, Plan};
use harness::process;
use harness::server;
use harness::stand::{STEP_LIMIT, Stand, UPDATED, VALIDATING, code};
use nix::sys::signal::Signal;

/// A Redis that is validated, under load.
fn validated() -> (Stand, Load<RedisClient>) {
    let stand = Stand::new(server::redis(&[]).unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 5), |index| RedisClient::new(&format!("c{index}")));
    load.wait_requests(100, STEP_LIMIT);
    stand.validate(&[]);
    stand.wait_compared(100);
    (stand, load)
}

/// Asks for the promotion, which cannot be made; when it is told what it waits for, `relieve` makes it possible.
fn promote_and_hear(stand: &Stand, expected: &str, relieve: impl FnOnce()) {
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
    assert!(promote.wait().unwrap().success(), "{heard:#?}");
    listener.join().unwrap();
    assert!(status.raw["update"]["waits_for"].is_string() || status.stage == VALIDATING, "{:#}", status.raw);
    stand.daemon.wait_stage(stand.serving, UPDATED, STEP_LIMIT);
}

#[test]
fn a_promotion_says_that_the_process_is_stopped() {
    let (mut stand, load) = validated();
    process::signal(stand.serving, Signal::SIGSTOP);
    promote_and_hear(&stand, "is stopped by signal 19", || process::signal(stand.serving, Signal::SIGCONT));
    stand.confirm();
    stand.expect_clean(load);
}

#[test]
fn a_promotion_says_that_the_process_has_no_descriptors_left() {
    let (mut stand, load) = validated();
    let limit = |limit: &str| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &stand.serving.to_string(), &format!("--nofile={limit}:")]);
        assert!(prlimit.status().unwrap().success());
    };
    let before = std::fs::read_to_string(format!("/proc/{}/limits", stand.serving)).unwrap();
    let line = before.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = line.split_whitespace().nth(3).unwrap().to_owned();
    limit("3");
    promote_and_hear(&stand, "Too many open files", || limit(&soft));
    stand.confirm();
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
