//! A server under load beside a daemon whose state lies on a disk that does what a test wants of it.

use std::fs;

use serde_json::Value;

use crate::daemon::{Daemon, binary};
use crate::disk::{FreezableDisk, TinyDisk};
use crate::load::resp::RedisClient;
use crate::load::{Load, Plan};
use crate::server;
use crate::stand::{STEP_LIMIT, Stand, code};
use crate::wait::wait_for;

/// A disk that fails when a test says so, and answers again.
pub trait FailingDisk {
    fn fail(&self);
    fn answer(&self);
    /// Lets go of what could not even be killed.
    fn let_go(&self);
}

impl FailingDisk for TinyDisk {
    fn fail(&self) {
        self.fill();
    }

    fn answer(&self) {
        self.empty();
    }

    fn let_go(&self) {}
}

impl FailingDisk for FreezableDisk {
    fn fail(&self) {
        self.freeze();
    }

    fn answer(&self) {
        self.thaw();
    }

    fn let_go(&self) {
        self.thaw();
    }
}

/// A server under load, and a daemon whose state, log included, lies on such a disk.
pub struct Site<D: FailingDisk> {
    pub stand: Stand,
    load: Option<Load<RedisClient>>,
    disk: Option<D>,
}

impl<D: FailingDisk> Site<D> {
    /// Starts both, the state on a disk that lies over a folder.
    #[must_use]
    pub fn on(disk: impl FnOnce(&std::path::Path) -> D) -> Site<D> {
        let daemon = Daemon::prepare(binary()).expect("the daemon has folders");
        let disk = disk(&daemon.state_dir());
        let server = server::redis(&[]).expect("Redis starts");
        // The daemon that this starts keeps its log in the state folder.
        daemon.expect(&["attach", &server.pid().to_string()], code::DONE);
        let stand = Stand::beside(daemon, server);
        let load = Load::start(Plan::busy(stand.server.address, 10), |index| RedisClient::new(&format!("c{index}")));
        load.wait_requests(200, STEP_LIMIT);
        Site { stand, load: Some(load), disk: Some(disk) }
    }

    /// Returns the disk.
    #[must_use]
    pub fn disk(&self) -> &D {
        self.disk.as_ref().expect("it is mounted until the end")
    }

    /// Returns the load.
    #[must_use]
    pub fn load(&self) -> &Load<RedisClient> {
        self.load.as_ref().expect("it runs until the end")
    }

    /// The process that serves, as an argument.
    #[must_use]
    pub fn pid(&self) -> String {
        self.stand.serving.to_string()
    }

    /// Begins an update, and waits until something was compared.
    pub fn validate(&self) {
        self.stand.validate(&[]);
        self.stand.wait_compared(100);
    }

    /// Returns the daemon's whole status.
    #[must_use]
    pub fn status(&self) -> Value {
        self.stand.daemon.expect(&["status", "--json"], code::DONE).json().expect("it is JSON")
    }

    /// Returns what is wrong with what the daemon keeps.
    #[must_use]
    pub fn troubles(&self) -> String {
        self.status()["daemon"]["troubles"].to_string()
    }

    /// Reads a file that the daemon keeps.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.stand.daemon.state_dir().join(name)).unwrap_or_default()
    }

    /// Returns how many entries the journal has.
    #[must_use]
    pub fn journal(&self) -> usize {
        fs::read_dir(self.stand.daemon.state_dir().join("journal")).expect("it is there").count()
    }

    /// Lets the disk answer, and waits until what waited for it is written: the history with this outcome, and the audit log.
    pub fn wait_written(&self, outcome: &str) {
        self.disk().answer();
        wait_for("the history to be written", STEP_LIMIT, || {
            self.file("history.jsonl").contains(outcome).then_some(())
        });
        wait_for("the audit log to be written", STEP_LIMIT, || {
            self.file("audit.jsonl").contains("update ended").then_some(())
        });
        wait_for("the daemon to have no trouble", STEP_LIMIT, || {
            self.status()["daemon"]["troubles"].is_null().then_some(())
        });
        wait_for("the journal to be empty", STEP_LIMIT, || (self.journal() == 0).then_some(()));
    }

    /// Sees that the service can be updated, and that no client has noticed anything.
    pub fn expect_sound(mut self) {
        self.validate();
        self.stand.promote();
        self.stand.confirm();
        self.expect_clean();
    }

    /// Sees that no client has noticed anything.
    pub fn expect_clean(&mut self) {
        let load = self.load.take().expect("it runs");
        self.stand.expect_clean(load);
    }
}

impl<D: FailingDisk> Drop for Site<D> {
    fn drop(&mut self) {
        // Nobody may use the disk when it is unmounted, and the folder that it covers is removed after that.
        if std::thread::panicking() {
            if let Some(disk) = &self.disk {
                disk.let_go();
            }
            eprintln!("the daemon's log: {}", self.stand.daemon.output());
            self.stand.daemon.kill();
        } else {
            self.stand.daemon.terminate();
        }
        self.disk = None;
    }
}
