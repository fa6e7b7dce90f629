//! Two hundred clients connect and leave all the time while the service moves twenty times from process to process; and threads come
//! and go faster than a follower can follow.

use std::process::Command;

use harness::daemon::Daemon;
use harness::load::memcached::MemcachedClient;
use harness::load::resp::RedisClient;
use harness::load::{Load, Plan};
use harness::process::Program;
use harness::server;
use harness::stand::{STEP_LIMIT, Stand, VALIDATING, code};
use harness::wait::wait_for;

const CLIENTS: usize = 200;
const CYCLES: usize = 20;

#[test]
fn redis_moves_twenty_times_under_churn() {
    let mut stand = Stand::new(server::redis(&[]).unwrap());
    let stay = Load::start(Plan::busy(stand.server.address, 10), |index| RedisClient::new(&format!("stay{index}")));
    let churn = Load::start(Plan::churn(stand.server.address, CLIENTS), |i| RedisClient::new(&format!("churn{i}")));
    churn.wait_requests(500, STEP_LIMIT);
    for _ in 0..CYCLES {
        stand.cycle(100);
        assert_eq!(stand.serving, stand.server.pid(), "the process stays");
        churn.wait_requests(200, STEP_LIMIT);
        assert_eq!(stay.failed() + churn.failed(), 0);
    }
    stand.expect_clean(stay);
    stand.expect_clean(churn);
}

#[test]
fn memcached_moves_under_churn() {
    let mut stand = Stand::new(server::memcached().unwrap());
    let churn = Load::start(Plan::churn(stand.server.address, 50), |i| MemcachedClient::new(&format!("churn{i}")));
    churn.wait_requests(200, STEP_LIMIT);
    for _ in 0..5 {
        stand.cycle(100);
        churn.wait_requests(100, STEP_LIMIT);
    }
    stand.expect_clean(churn);
}

/// Makes threads and waits for them, and does nothing else.
const THREADS: &str = r#"
#include <pthread.h>
#include <unistd.h>
static void *work(void *nothing)
{
	getppid();
	return nothing;
}
int main(void)
{
	for (;;) {
		pthread_t threads[4];
		for (int i = 0; i < 4; i++)
			pthread_create(&threads[i], NULL, work, NULL);
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
	}
}
"#;

#[test]
fn threads_that_come_and_go_do_not_outrun_the_follower() {
    const RECORDED: u64 = 60_000;
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("threads.c"), dir.path().join("threads"));
    std::fs::write(&source, THREADS).unwrap();
    let gcc = Command::new("gcc").args(["-O1", "-pthread", "-o"]).args([&program, &source]).status();
    assert!(gcc.unwrap().success());
    let daemon = Daemon::start().unwrap();
    let server = Program::start(&program, &[], dir.path(), &dir.path().join("output")).unwrap();
    let pid = server.pid();
    daemon.expect(&["update", &pid.to_string(), "--to", "self"], code::DONE);
    daemon.wait_stage(pid, VALIDATING, STEP_LIMIT);
    wait_for("enough records", 2 * STEP_LIMIT, || {
        let status = daemon.status(pid).unwrap().unwrap();
        assert_eq!(status.stage, VALIDATING, "{:#}", status.raw);
        assert!(status.backlog < RECORDED / 2, "the leader runs away: {:#}", status.raw);
        (status.raw["update"]["counters"]["recorded"].as_u64()? > RECORDED).then_some(())
    });
    daemon.expect(&["rollback", &pid.to_string()], code::DONE);
}
