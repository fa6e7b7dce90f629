//! A disk that is full under everything that the daemon writes, at each stage of an update: no stage is left without a driver, the
//! service goes on, and what could not be written is told, and written when there is room. (`log_full.rs` has the log's spill file.)

use std::fs;

use harness::daemon::{Daemon, binary};
use harness::disk::TinyDisk;
use harness::load::resp::RedisClient;
use harness::load::{Load, Plan};
use harness::server;
use harness::stand::{SINGLE, STEP_LIMIT, Stand, UPDATED, code};
use harness::wait::wait_for;
use serde_json::Value;

/// A server under load, and a daemon whose state, log included, lies on a small disk.
struct Site {
    stand: Stand,
    load: Option<Load<RedisClient>>,
    disk: Option<TinyDisk>,
}

impl Site {
    fn new() -> Site {
        let daemon = Daemon::prepare(binary()).unwrap();
        let disk = TinyDisk::over(&daemon.state_dir(), "4m");
        let server = server::redis(&[]).unwrap();
        // The daemon that this starts keeps its log in the state folder.
        daemon.expect(&["attach", &server.pid().to_string()], code::DONE);
        let stand = Stand::beside(daemon, server);
        let load = Load::start(Plan::busy(stand.server.address, 10), |index| RedisClient::new(&format!("c{index}")));
        load.wait_requests(200, STEP_LIMIT);
        Site { stand, load: Some(load), disk: Some(disk) }
    }

    fn disk(&self) -> &TinyDisk {
        self.disk.as_ref().expect("it is mounted until the end")
    }

    fn pid(&self) -> String {
        self.stand.serving.to_string()
    }

    fn validate(&self) {
        self.stand.validate(&[]);
        self.stand.wait_compared(100);
    }

    fn status(&self) -> Value {
        self.stand.daemon.expect(&["status", "--json"], code::DONE).json().unwrap()
    }

    /// Sees that the daemon says that its disk is full, makes room, and sees that everything is as it should be.
    fn recover(mut self, outcome: &str) {
        // The journal's entry has made room for a few lines of one of the files.
        let troubles = self.status()["daemon"]["troubles"].to_string();
        assert!(troubles.contains(".jsonl cannot be written: No space left"), "{troubles}");
        let text = self.stand.daemon.expect(&["status"], code::DONE).stdout;
        assert!(text.contains("TROUBLE") && text.contains(".jsonl cannot be written"), "{text}");
        self.disk().empty();
        let state = self.stand.daemon.state_dir();
        let file = |name: &str| fs::read_to_string(state.join(name)).unwrap_or_default();
        wait_for("the history to be written", STEP_LIMIT, || file("history.jsonl").contains(outcome).then_some(()));
        wait_for("the audit log to be written", STEP_LIMIT, || {
            file("audit.jsonl").contains("update ended").then_some(())
        });
        wait_for("the daemon to have no trouble", STEP_LIMIT, || {
            self.status()["daemon"]["troubles"].is_null().then_some(())
        });
        // It is not busy, and the log says what is missing.
        self.validate();
        self.stand.promote();
        self.stand.confirm();
        assert!(file("daemon.log").contains("lines of this log are lost: No space left"), "{}", file("daemon.log"));
        let journal = fs::read_dir(state.join("journal")).unwrap().count();
        assert_eq!(journal, 0, "nothing is left in the journal");
        self.stand.expect_clean(self.load.take().expect("it runs"));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Nobody may use the disk when it is unmounted, and the folder that it covers is removed after that.
        match std::thread::panicking() {
            true => {
                eprintln!("the daemon's log: {}", self.stand.daemon.output());
                self.stand.daemon.kill();
            }
            false => self.stand.daemon.terminate(),
        }
        self.disk = None;
    }
}

#[test]
fn no_update_is_begun_without_a_journal() {
    let site = Site::new();
    site.disk().fill();
    let refused = site.stand.daemon.expect(&["update", &site.pid(), "--to", "self"], code::REFUSED);
    assert!(refused.stderr.contains("the journal cannot be written: No space left"), "{}", refused.stderr);
    assert_eq!(site.status()["targets"][0]["stage"], SINGLE);
    site.disk().empty();
    let mut site = site;
    site.stand.validate(&[]);
    site.stand.rollback();
    site.stand.expect_clean(site.load.take().expect("it runs"));
}

#[test]
fn an_update_is_promoted_and_confirmed_on_a_full_disk() {
    let mut site = Site::new();
    site.validate();
    site.disk().fill();
    site.stand.promote();
    site.stand.confirm();
    site.recover("confirmed");
}

#[test]
fn an_update_is_undone_on_a_full_disk() {
    let mut site = Site::new();
    site.validate();
    site.disk().fill();
    site.stand.rollback();
    site.recover("rolled-back");
}

#[test]
fn a_disk_that_is_full_after_the_promotion_keeps_nobody_from_the_way_back() {
    let mut site = Site::new();
    site.validate();
    site.stand.promote();
    site.disk().fill();
    assert_eq!(site.status()["targets"][0]["stage"], UPDATED);
    site.stand.rollback();
    site.recover("rolled-back");
}

#[test]
fn a_disk_that_is_full_after_the_promotion_keeps_nobody_from_confirming() {
    let mut site = Site::new();
    site.validate();
    site.stand.promote();
    site.disk().fill();
    site.stand.confirm();
    site.recover("confirmed");
}

#[test]
fn a_policy_goes_its_way_on_a_full_disk() {
    let mut site = Site::new();
    let policy = ["--promote", "auto", "--confirm", "auto", "--soak", "1s", "--min-outputs", "100"];
    site.stand.validate(&policy);
    site.disk().fill();
    let status = site.stand.settled();
    let (result, text) = status.result.expect("it has ended");
    assert_eq!(result, code::DONE as u64, "{text}");
    site.recover("confirmed");
}
