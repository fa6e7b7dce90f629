//! A log that is too small, and a disk that is full.

use harness::disk::TinyDisk;
use harness::load::resp::RedisClient;
use harness::load::{Load, Plan};
use harness::server;
use harness::stand::{STEP_LIMIT, Stand, code};

fn redis_under_load() -> (Stand, Load<RedisClient>) {
    let stand = Stand::new(server::redis(&[]).unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 30), |index| RedisClient::new(&format!("c{index}")));
    load.wait_requests(500, STEP_LIMIT);
    (stand, load)
}

#[test]
fn a_full_log_rolls_the_update_back() {
    let (mut stand, load) = redis_under_load();
    stand.update(&["--log-memory", "20K", "--log-disk", "0", "--on-full", "rollback", "--retries", "0"]);
    let status = stand.settled();
    let (result, text) = status.result.expect("the update has ended");
    assert_eq!(result, code::TIMED_OUT as u64, "{text}");
    assert_eq!(stand.serving, stand.server.pid());
    stand.expect_restored();
    load.wait_requests(200, STEP_LIMIT);
    stand.cycle(100);
    stand.expect_clean(load);
}

#[test]
fn a_full_log_lets_the_leader_wait_where_the_policy_says_so() {
    let (mut stand, load) = redis_under_load();
    stand.validate(&["--log-memory", "400K", "--log-disk", "0", "--on-full", "block"]);
    stand.wait_compared(1000);
    stand.promote();
    stand.confirm();
    stand.expect_alone();
    stand.expect_clean(load);
}

#[test]
fn the_log_spills_to_disk_and_the_update_goes_on() {
    let (mut stand, load) = redis_under_load();
    stand.validate(&["--log-memory", "64K", "--log-disk", "256M"]);
    stand.wait_compared(1000);
    stand.promote();
    stand.confirm();
    stand.expect_alone();
    stand.expect_clean(load);
}

#[test]
fn a_full_disk_under_the_spill_file_rolls_the_update_back() {
    let (mut stand, load) = redis_under_load();
    {
        let _disk = TinyDisk::over(&stand.daemon.state_dir().join("spill"), "64k");
        stand.update(&["--log-memory", "20K", "--log-disk", "1G", "--retries", "0"]);
        let status = stand.settled();
        let (result, text) = status.result.expect("the update has ended");
        assert_eq!(result, code::TIMED_OUT as u64, "{text}");
        assert_eq!(stand.serving, stand.server.pid());
    }
    stand.expect_restored();
    load.wait_requests(200, STEP_LIMIT);
    stand.cycle(100);
    stand.expect_clean(load);
}
