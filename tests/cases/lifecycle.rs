//! Updates that go well, and updates that are undone, on Debian's servers with checking clients on every connection.

use harness::load::http::HttpClient;
use harness::load::lines::LineClient;
use harness::load::memcached::MemcachedClient;
use harness::load::resp::RedisClient;
use harness::load::{Dialogue, Load, Persistence, Plan, Verdict};
use harness::process;
use harness::server;
use harness::snapshot::Snapshot;
use harness::stand::{STEP_LIMIT, Stand};
use harness::wait::wait_for;
use rand::rngs::StdRng;

/// Validated, promoted, confirmed; then validated and rolled back; then promoted and rolled back.
fn there_and_back<D: Dialogue>(mut stand: Stand, load: Load<D>) {
    load.wait_requests(200, STEP_LIMIT);

    let old = stand.serving;
    stand.cycle(200);
    assert_eq!(stand.serving, old, "the process stays");
    load.wait_requests(200, STEP_LIMIT);

    stand.validate(&[]);
    stand.wait_compared(100);
    let serving = stand.serving;
    stand.rollback();
    assert_eq!(stand.serving, serving, "the old version serves");
    stand.expect_restored();
    load.wait_requests(200, STEP_LIMIT);

    stand.validate(&[]);
    stand.wait_compared(100);
    stand.promote();
    load.wait_requests(200, STEP_LIMIT);
    stand.rollback();
    assert_eq!(stand.serving, serving, "the old version serves again");
    stand.expect_alone();
    stand.expect_clean(load);
}

#[test]
fn redis() {
    let stand = Stand::new(server::redis(&[]).unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 20), |index| RedisClient::new(&format!("c{index}")));
    there_and_back(stand, load);
}

#[test]
fn memcached() {
    let stand = Stand::new(server::memcached().unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 20), |index| MemcachedClient::new(&format!("c{index}")));
    there_and_back(stand, load);
}

#[test]
fn lighttpd() {
    let stand = Stand::new(server::lighttpd().unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 10), |_| HttpClient::new(Persistence::Open));
    there_and_back(stand, load);
}

#[test]
fn a_single_threaded_python_server() {
    let stand = Stand::new(server::turn().unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 10), |_| LineClient::default());
    there_and_back(stand, load);
}

/// A thread for each request, and one lock for all of them: the threads of two versions meet in orders of their own. Such a
/// server is never twice the same under load, so what an update leaves behind is looked for when it is at rest.
#[test]
fn a_python_server_with_a_thread_for_each_request() {
    let mut stand = Stand::new(server::python_http().unwrap());
    let clients = || Load::start(Plan::busy(stand.server.address, 8), |_| HttpClient::new(Persistence::OneReply));
    // The first requests import modules.
    let first = clients();
    first.wait_requests(100, STEP_LIMIT);
    first.stop().expect_clean();
    let load = clients();
    stand.cycle(200);

    let serving = stand.serving;
    stand.validate(&[]);
    stand.wait_compared(200);
    stand.rollback();
    assert_eq!(stand.serving, serving, "the old version serves");
    stand.expect_alone();
    load.wait_requests(200, STEP_LIMIT);

    stand.validate(&[]);
    stand.wait_compared(200);
    stand.promote();
    load.wait_requests(200, STEP_LIMIT);
    stand.rollback();
    assert_eq!(stand.serving, serving, "the old version serves again");
    stand.expect_alone();
    stand.expect_clean(load);

    wait_for("every request's thread to end", STEP_LIMIT, || {
        (process::thread_states(stand.serving).len() == 1).then_some(())
    });
    stand.before = Snapshot::of(stand.serving);
    stand.validate(&[]);
    stand.rollback();
    stand.expect_alone();
    assert_eq!(stand.before.differences(&Snapshot::of(stand.serving)), Vec::<String>::new());
}

#[test]
fn lockstep() {
    let mut stand = Stand::new(server::redis(&[]).unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 5), |index| RedisClient::new(&format!("c{index}")));
    stand.validate(&["--lockstep"]);
    stand.wait_compared(200);
    stand.promote();
    stand.confirm();
    stand.expect_alone();
    stand.expect_clean(load);
}

/// A client that asks how often anybody has asked; it is told more each time.
#[derive(Default)]
struct TallyClient(u64);

impl Dialogue for TallyClient {
    fn request(&mut self, _: &mut StdRng, out: &mut Vec<u8>) {
        out.extend_from_slice(b"tally\n");
    }

    fn check(&mut self, input: &[u8]) -> Verdict {
        let Some(line) = input.strip_suffix(b"\n") else { return Verdict::Incomplete };
        match String::from_utf8_lossy(line).parse() {
            Ok(tally) if tally > self.0 => {
                self.0 = tally;
                Verdict::Right(input.len())
            }
            _ => Verdict::Wrong(format!("{input:?} after {}", self.0)),
        }
    }
}

/// What a program writes to memory that a fork shares is, in the follower, what it was at the instant of the fork.
#[test]
fn a_server_that_counts_in_shared_memory() {
    let mut stand = Stand::new(server::turn().unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 5), |_| TallyClient::default());
    for cycle in 0..6 {
        load.wait_requests(200, STEP_LIMIT);
        stand.validate(&["--retries", "0"]);
        stand.wait_compared(100);
        if cycle % 2 == 1 {
            stand.promote();
            load.wait_requests(100, STEP_LIMIT);
        }
        stand.rollback();
        stand.expect_alone();
    }
    stand.expect_clean(load);
}

#[test]
fn an_idle_server_is_as_before_to_the_byte() {
    for server in [server::redis(&["--hz", "1"]).unwrap(), server::memcached().unwrap()] {
        let mut stand = Stand::new(server);
        let before = Snapshot::of(stand.serving);
        stand.validate(&[]);
        stand.rollback();
        stand.expect_alone();
        assert_eq!(before.differences(&Snapshot::of(stand.serving)), Vec::<String>::new());
    }
}

#[test]
fn attach_changes_nothing() {
    let stand = Stand::new(server::redis(&["--hz", "1"]).unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 10), |index| RedisClient::new(&format!("c{index}")));
    let pid = stand.serving.to_string();
    stand.daemon.expect(&["attach", &pid], 0);
    load.wait_requests(500, STEP_LIMIT);
    stand.expect_restored();
    stand.daemon.expect(&["stats", &pid, "--json"], 0).json().unwrap();
    stand.daemon.expect(&["detach", &pid], 0);
    stand.expect_clean(load);
    stand.expect_restored();
}
