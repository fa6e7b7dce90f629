//! A disk that hangs under everything that the daemon writes, at each stage of an update: the update goes on, the service is not
//! touched, what hangs is told, and what was not written is written when the disk answers again.

use std::fs;
use std::time::{Duration, Instant};

use harness::daemon::{Daemon, binary};
use harness::disk::FreezableDisk;
use harness::load::resp::RedisClient;
use harness::load::{Load, Plan};
use harness::server;
use harness::stand::{SINGLE, STEP_LIMIT, Stand, code};
use harness::wait::wait_for;
use serde_json::Value;

/// A server under load, and a daemon whose state, log included, lies on a disk that can be frozen.
struct Site {
    stand: Stand,
    load: Option<Load<RedisClient>>,
    disk: Option<FreezableDisk>,
}

impl Site {
    fn new() -> Site {
        let daemon = Daemon::prepare(binary()).unwrap();
        let disk = FreezableDisk::over(&daemon.state_dir());
        let server = server::redis(&[]).unwrap();
        // The daemon that this starts keeps its log in the state folder.
        daemon.expect(&["attach", &server.pid().to_string()], code::DONE);
        let stand = Stand::beside(daemon, server);
        let load = Load::start(Plan::busy(stand.server.address, 10), |index| RedisClient::new(&format!("c{index}")));
        load.wait_requests(200, STEP_LIMIT);
        Site { stand, load: Some(load), disk: Some(disk) }
    }

    fn disk(&self) -> &FreezableDisk {
        self.disk.as_ref().expect("it is mounted until the end")
    }

    fn validate(&self) {
        self.stand.validate(&[]);
        self.stand.wait_compared(100);
    }

    fn status(&self) -> Value {
        self.stand.daemon.expect(&["status", "--json"], code::DONE).json().unwrap()
    }

    fn wait_until_told(&self) {
        wait_for("the daemon to tell that its disk hangs", STEP_LIMIT, || {
            let troubles = self.status()["daemon"]["troubles"].to_string();
            troubles.contains("the disk has not answered for").then_some(())
        });
    }

    /// Sees that the daemon says that its disk hangs, lets it go on, and sees that everything is as it should be.
    fn recover(mut self, outcome: &str) {
        self.wait_until_told();
        // Nothing is begun that a crash would leave behind.
        let pid = self.stand.serving.to_string();
        let refused = self.stand.daemon.expect(&["update", &pid, "--to", "self"], code::REFUSED);
        assert!(refused.stderr.contains("the disk has not answered in time"), "{}", refused.stderr);
        assert_eq!(self.status()["targets"][0]["stage"], SINGLE);
        self.disk().thaw();
        let state = self.stand.daemon.state_dir();
        let file = |name: &str| fs::read_to_string(state.join(name)).unwrap_or_default();
        wait_for("the history to be written", STEP_LIMIT, || file("history.jsonl").contains(outcome).then_some(()));
        wait_for("the audit log to be written", STEP_LIMIT, || {
            file("audit.jsonl").contains("update ended").then_some(())
        });
        wait_for("the daemon to have no trouble", STEP_LIMIT, || {
            self.status()["daemon"]["troubles"].is_null().then_some(())
        });
        wait_for("the journal to be empty", STEP_LIMIT, || {
            (fs::read_dir(state.join("journal")).unwrap().count() == 0).then_some(())
        });
        self.validate();
        self.stand.promote();
        self.stand.confirm();
        self.stand.expect_clean(self.load.take().expect("it runs"));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // One that waits for the disk cannot even be killed.
            if let Some(disk) = &self.disk {
                disk.thaw();
            }
            eprintln!("the daemon's log: {}", self.stand.daemon.output());
            self.stand.daemon.kill();
        } else {
            self.stand.daemon.terminate();
        }
        self.disk = None;
    }
}

#[test]
fn no_update_is_begun_while_the_journal_hangs_and_nobody_else_waits() {
    let mut site = Site::new();
    site.disk().freeze();
    let pid = site.stand.serving.to_string();
    let asked = std::thread::scope(|scope| {
        let asked = scope.spawn(|| site.stand.daemon.expect(&["update", &pid, "--to", "self"], code::REFUSED));
        let begun = Instant::now();
        let mut answers = 0;
        while !asked.is_finished() {
            site.status();
            answers += 1;
        }
        assert!(begun.elapsed() < Duration::from_secs(30) && answers > 3, "{answers} in {:?}", begun.elapsed());
        asked.join().unwrap()
    });
    assert!(
        asked.stderr.contains("the journal cannot be written: the disk has not answered in time"),
        "{}",
        asked.stderr
    );
    assert!(asked.stderr.contains("nothing was touched"), "{}", asked.stderr);
    site.disk().thaw();
    let journal = site.stand.daemon.state_dir().join("journal");
    site.stand.validate(&[]);
    site.stand.rollback();
    wait_for("nothing to be left in the journal", STEP_LIMIT, || {
        (fs::read_dir(&journal).unwrap().count() == 0).then_some(())
    });
    site.stand.expect_clean(site.load.take().expect("it runs"));
}

#[test]
fn an_update_is_promoted_and_confirmed_on_a_disk_that_hangs() {
    let mut site = Site::new();
    site.validate();
    site.disk().freeze();
    site.stand.promote();
    site.stand.confirm();
    site.recover("confirmed");
}

#[test]
fn an_update_is_undone_on_a_disk_that_hangs() {
    let mut site = Site::new();
    site.validate();
    site.disk().freeze();
    site.stand.rollback();
    site.recover("rolled-back");
}

#[test]
fn a_disk_that_hangs_after_the_promotion_keeps_nobody_from_the_way_back() {
    let mut site = Site::new();
    site.validate();
    site.stand.promote();
    site.disk().freeze();
    site.stand.rollback();
    site.recover("rolled-back");
}

#[test]
fn a_policy_goes_its_way_on_a_disk_that_hangs() {
    let mut site = Site::new();
    let policy = ["--promote", "auto", "--confirm", "auto", "--soak", "1s", "--min-outputs", "100"];
    site.stand.validate(&policy);
    site.disk().freeze();
    let status = site.stand.settled();
    let (result, text) = status.result.expect("it has ended");
    assert_eq!(result, code::DONE as u64, "{text}");
    site.recover("confirmed");
}
