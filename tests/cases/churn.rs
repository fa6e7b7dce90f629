//! Two hundred clients connect and leave all the time while the service moves twenty times from process to process.

use harness::load::memcached::MemcachedClient;
use harness::load::resp::RedisClient;
use harness::load::{Load, Plan};
use harness::server;
use harness::stand::{STEP_LIMIT, Stand};

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
