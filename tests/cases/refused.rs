//! Targets and moments that do not allow an update: it is refused, or undone, and the service does not notice.

use std::time::Duration;

use harness::load::lines::{self, LineClient};
use harness::load::resp::RedisClient;
use harness::load::{Load, Plan};
use harness::process::Program;
use harness::server;
use harness::stand::{STEP_LIMIT, Stand, VALIDATING, code};
use harness::wait::wait_for;

const LIMIT: Duration = Duration::from_secs(10);

fn redis_under_load() -> (Stand, Load<RedisClient>) {
    let stand = Stand::new(server::redis(&[]).unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 10), |index| RedisClient::new(&format!("c{index}")));
    (stand, load)
}

#[test]
fn a_target_that_is_traced_already_is_refused_by_name() {
    let (mut stand, load) = redis_under_load();
    let pid = stand.serving.to_string();
    let dir = tempfile::tempdir().unwrap();
    let strace = harness::process::find_program("strace").unwrap();
    let args = ["-f", "-o", "/dev/null", "-e", "trace=none", "-p", &pid].map(str::to_owned);
    let tracer = Program::start(&strace, &args, dir.path(), &dir.path().join("strace")).unwrap();
    let traced = || {
        let status = harness::snapshot::Snapshot::of(stand.serving).status;
        (status.get("TracerPid").map(String::as_str) != Some("0")).then_some(())
    };
    wait_for("strace to trace", LIMIT, traced);
    let output = stand.daemon.run(&["update", &pid, "--to", "self"]).unwrap();
    assert_eq!(output.code, code::REFUSED, "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("strace") || said.contains(&tracer.pid().to_string()), "it names the tracer: {said}");
    load.wait_requests(50, STEP_LIMIT);

    harness::process::signal(tracer.pid(), nix::sys::signal::Signal::SIGTERM);
    harness::process::wait_gone(tracer.pid(), LIMIT);
    stand.expect_restored();
    stand.cycle(100);
    stand.expect_clean(load);
}

#[test]
fn of_two_updates_at_once_the_second_is_refused() {
    let (mut stand, load) = redis_under_load();
    let pid = stand.serving.to_string();
    let both: Vec<i32> = std::thread::scope(|scope| {
        let ask = || stand.daemon.run(&["update", &pid, "--to", "self"]).unwrap().code;
        let threads = [scope.spawn(ask), scope.spawn(ask)];
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let count = |code| both.iter().filter(|c| **c == code).count();
    assert_eq!((count(code::DONE), count(code::REFUSED)), (1, 1), "{both:?}");
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
    stand.daemon.expect(&["update", &pid, "--to", "self"], code::REFUSED);
    stand.wait_compared(100);
    stand.promote();
    stand.confirm();
    stand.expect_alone();
    stand.expect_clean(load);
}

#[test]
fn a_target_with_io_uring_is_refused() {
    let stand = Stand::new(server::turn().unwrap());
    let ring = lines::ask(stand.server.address, "uring", LIMIT).unwrap();
    assert!(ring.parse::<i32>().unwrap() >= 0, "this kernel lets a process have an io_uring: {ring}");
    let load = Load::start(Plan::busy(stand.server.address, 5), |_| LineClient::default());
    let pid = stand.serving.to_string();
    let output = stand.daemon.run(&["update", &pid, "--to", "self"]).unwrap();
    assert_eq!(output.code, code::REFUSED, "{output:?}");
    assert!(format!("{}{}", output.stdout, output.stderr).contains("io_uring"), "it says why: {output:?}");
    stand.expect_clean(load);
    stand.expect_alone();
}

/// Lets the server make a call while two versions run; the update is rolled back and the reason names the call.
fn made_while_two_run(line: &str, name: &str) {
    let mut stand = Stand::new(server::turn().unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 5), |_| LineClient::default());
    stand.validate(&[]);
    stand.wait_compared(100);
    lines::ask(stand.server.address, line, LIMIT).unwrap();
    let status = stand.settled();
    assert_eq!(stand.serving, stand.server.pid(), "the old version serves");
    let said = status.raw.to_string();
    assert!(said.contains(name), "the reason names {name}: {said}");
    stand.expect_alone();
    stand.expect_clean(load);
}

#[test]
fn io_uring_while_two_versions_run_ends_the_update() {
    made_while_two_run("uring", "io_uring_setup");
}

#[test]
fn a_call_without_a_row_ends_the_update() {
    // No table will ever have it: the number is one that Linux does not know.
    made_while_two_run("call 511", "511");
}

#[test]
fn a_target_that_is_gone_is_said_to_be_gone() {
    let stand = Stand::new(server::redis(&[]).unwrap());
    harness::process::end(stand.serving);
    stand.daemon.expect(&["update", &stand.serving.to_string(), "--to", "self"], code::TARGET_GONE);
}
