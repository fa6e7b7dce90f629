//! Servers with many threads, updated to themselves again and again under load that checks every reply.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use harness::load::lines::{self, LineClient};
use harness::load::memcached::MemcachedClient;
use harness::load::store::{Speech, StoreClient};
use harness::load::{Dialogue, Load, Plan};
use harness::server;
use harness::stand::{STEP_LIMIT, Stand, UPDATED, VALIDATING};
use harness::wait::wait_for;

const CYCLES: u32 = 10;

/// Of three updates two are promoted and confirmed; the third is rolled back, by turns before the promotion and after it.
fn again_and_again<D: Dialogue>(mut stand: Stand, load: Load<D>) {
    for cycle in 0..CYCLES {
        stand.validate(&[]);
        stand.wait_compared(200);
        match cycle % 6 {
            2 => stand.rollback(),
            5 => {
                stand.promote();
                load.wait_requests(100, STEP_LIMIT);
                stand.rollback();
            }
            _ => {
                stand.promote();
                load.wait_requests(100, STEP_LIMIT);
                stand.confirm();
            }
        }
        assert_eq!(stand.serving, stand.server.pid(), "cycle {cycle}");
        stand.expect_alone();
        load.wait_requests(100, STEP_LIMIT);
        assert_eq!(load.failed(), 0, "cycle {cycle}");
    }
    stand.expect_clean(load);
}

/// Sixteen workers share the table, its locks and the memory; two hundred clients stay.
#[test]
fn memcached_with_sixteen_workers() {
    let stand = Stand::new(server::memcached_with(16).unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 200), |index| MemcachedClient::new(&format!("c{index}")));
    load.wait_requests(1000, STEP_LIMIT);
    again_and_again(stand, load);
}

/// A hundred clients connect and leave all the time, so threads are born and end while two versions run.
#[test]
fn a_server_with_a_thread_for_each_connection() {
    let stand = Stand::new(server::threaded().unwrap());
    let plan = Plan::churn(stand.server.address, 100);
    let load = Load::start(plan, |index| StoreClient::new(Speech::Plain, index, 100, 0));
    load.wait_requests(1000, STEP_LIMIT);
    again_and_again(stand, load);
}

/// A program of two threads answers a question otherwise in the first attempt. That may come of a race, so the update is tried
/// again; but nothing is promoted before the question was asked again, and often enough.
#[test]
fn a_difference_that_may_come_of_a_race_is_not_forgotten() {
    let mut stand = Stand::new(server::turn().unwrap());
    let address = stand.server.address;
    let ask = |line: &str| lines::ask(address, line, STEP_LIMIT).unwrap();
    assert_eq!(ask("thread"), "started");
    let shared: u64 = ask("where").parse().unwrap();
    let load = Load::start(Plan::busy(address, 3), |_| LineClient::default());
    stand.update(&["--threads", "free", "--promote", "auto", "--soak", "200ms"]);
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
    // The byte says who leads; the follower of this attempt has a copy of its own.
    let memory = OpenOptions::new().write(true).open(format!("/proc/{}/mem", stand.serving)).unwrap();
    memory.write_all_at(&[1], shared).unwrap();
    assert_eq!(ask("betray answer"), "loyal");
    let suspected = wait_for("the second attempt to have compared enough", STEP_LIMIT, || {
        let status = stand.daemon.status(stand.serving).ok().flatten()?;
        let enough = status.stage == VALIDATING && status.compared_outputs > 500;
        (enough && status.raw["update"]["plan"]["attempt"] == 2).then_some(status)
    });
    assert!(suspected.next.contains("attempt 1 differed was met again 0 times"), "{}", suspected.next);
    for _ in 0..2 {
        assert_eq!(ask("betray answer"), "loyal");
    }
    let status = wait_for("both to be counted", STEP_LIMIT, || {
        let status = stand.daemon.status(stand.serving).ok().flatten()?;
        status.next.contains("was met again 2 times").then_some(status)
    });
    assert_eq!(status.stage, VALIDATING);
    assert_eq!(ask("betray answer"), "loyal");
    stand.daemon.wait_stage(stand.serving, UPDATED, STEP_LIMIT);
    stand.confirm();
    stand.expect_alone();
    stand.expect_clean(load);
}
