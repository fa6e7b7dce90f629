//! Servers with many threads, updated to themselves again and again under load that checks every reply.

use harness::load::memcached::MemcachedClient;
use harness::load::store::{Speech, StoreClient};
use harness::load::{Dialogue, Load, Plan};
use harness::server;
use harness::stand::{STEP_LIMIT, Stand};

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
