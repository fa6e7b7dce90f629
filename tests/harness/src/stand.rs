//! A test stand: one server, one daemon, and the proof that nothing is left of an update.

use std::time::Duration;

use crate::daemon::{Daemon, Status};
use crate::load::{Dialogue, Load};
use crate::process;
use crate::server::Server;
use crate::snapshot::Snapshot;
use crate::wait::wait_for;

/// How long a step of an update may take under load on a slow machine.
pub const STEP_LIMIT: Duration = Duration::from_secs(60);

pub const SINGLE: &str = "single-leader";
pub const UPDATING: &str = "outdated-leader/updating";
pub const CATCHING_UP: &str = "outdated-leader/catching-up";
pub const VALIDATING: &str = "outdated-leader/validating";
pub const UPDATED: &str = "updated-leader";
pub const ROLLING_BACK: &str = "rolling-back";

/// Exit codes of the client.
pub mod code {
    pub const DONE: i32 = 0;
    pub const USAGE: i32 = 2;
    pub const DIVERGED: i32 = 10;
    pub const CRASHED: i32 = 11;
    pub const INCONCLUSIVE: i32 = 12;
    pub const TIMED_OUT: i32 = 13;
    pub const KEPT: i32 = 14;
    pub const REFUSED: i32 = 20;
    pub const TARGET_GONE: i32 = 22;
}

/// A server under test with a daemon.
#[derive(Debug)]
pub struct Stand {
    // Dropped in this order: without a daemon no follower is left, and the server's session is ended last.
    pub daemon: Daemon,
    pub server: Server,
    /// The process that serves, as far as the test knows.
    pub serving: i32,
    /// What that process looked like when nobody had touched it.
    pub before: Snapshot,
}

impl Stand {
    /// Starts a daemon beside the server.
    #[must_use]
    pub fn new(server: Server) -> Stand {
        Stand::beside(Daemon::start().expect("the daemon starts"), server)
    }

    /// Puts a daemon that runs beside the server.
    #[must_use]
    pub fn beside(daemon: Daemon, server: Server) -> Stand {
        let serving = server.pid();
        Stand { daemon, serving, before: Snapshot::of(serving), server }
    }

    fn pid(&self) -> String {
        self.serving.to_string()
    }

    /// Asks for an update to the same version; `extra` is added to the command line. What it may cost has no limit: that is
    /// measured, and the machine has other work.
    #[track_caller]
    pub fn update(&self, extra: &[&str]) {
        let pid = self.pid();
        let mut args = vec!["update", &pid, "--to", "self"];
        if !extra.contains(&"--max-slowdown") {
            args.extend(["--max-slowdown", "off"]);
        }
        args.extend(extra);
        self.daemon.expect(&args, code::DONE);
    }

    /// Asks for an update and waits until every call is compared and some were.
    #[track_caller]
    pub fn validate(&self, extra: &[&str]) -> Status {
        self.update(extra);
        self.daemon.wait_stage(self.serving, VALIDATING, STEP_LIMIT)
    }

    /// Waits until the follower has proved something since `status`.
    #[track_caller]
    pub fn wait_compared(&self, outputs: u64) -> Status {
        wait_for(&format!("{outputs} compared outputs; daemon: {}", self.daemon.output()), STEP_LIMIT, || {
            let status = self.daemon.status(self.serving).ok().flatten()?;
            assert!(!status.stage.starts_with("rolling") && status.stage != SINGLE, "rolled back: {:#}", status.raw);
            (status.compared_outputs >= outputs).then_some(status)
        })
    }

    /// Promotes; returns what is then the case.
    #[track_caller]
    pub fn promote(&mut self) -> Status {
        self.daemon.expect(&["promote", &self.pid()], code::DONE);
        let status = self.daemon.wait_stage(self.serving, UPDATED, STEP_LIMIT);
        assert_eq!(status.leader, self.serving, "the same process serves");
        status
    }

    /// Ends the old version.
    #[track_caller]
    pub fn confirm(&mut self) {
        let old = self.daemon.status(self.serving).expect("a status").and_then(|status| status.follower);
        self.daemon.expect(&["confirm", &self.pid()], code::DONE);
        self.daemon.wait_stage(self.serving, SINGLE, STEP_LIMIT);
        if let Some(old) = old {
            process::wait_gone(old, STEP_LIMIT);
        }
        self.before = Snapshot::of(self.serving);
    }

    /// Asks to undo the update.
    #[track_caller]
    pub fn rollback(&mut self) {
        self.daemon.expect(&["rollback", &self.pid()], code::DONE);
        self.settled();
    }

    /// Waits until a version has taken over from one that crashed, in the same process; returns what is then the case.
    #[track_caller]
    pub fn taken_over(&mut self) -> Status {
        let status = self.settled();
        assert_eq!(self.serving, self.server.pid(), "the process stays");
        assert!(process::alive(self.serving), "it lives");
        status
    }

    /// Waits until nothing is under way, and takes note of who serves.
    #[track_caller]
    pub fn settled(&mut self) -> Status {
        let status = wait_for(&format!("a settled service; daemon: {}", self.daemon.output()), STEP_LIMIT, || {
            let status = self.daemon.status(self.serving).ok().flatten()?;
            let settled = status.stage == SINGLE && status.result.is_some();
            settled.then_some(status)
        });
        self.serving = status.leader;
        status
    }

    /// One whole update under load: validated by at least `outputs` outputs, promoted, confirmed.
    #[track_caller]
    pub fn cycle(&mut self, outputs: u64) -> Status {
        self.validate(&[]);
        self.wait_compared(outputs);
        let status = self.promote();
        self.confirm();
        self.expect_alone();
        status
    }

    /// Panics unless exactly one process of the server is left, untraced, running, and serving.
    #[track_caller]
    pub fn expect_alone(&self) {
        let session = self.server.program.pid();
        let alone = crate::wait::try_wait_for(STEP_LIMIT, || {
            process::reap(session);
            let members = process::session(session);
            (members.len() == 1 && members[0].pid == self.serving).then_some(())
        });
        assert!(alone.is_some(), "process {} should be alone: {:#?}", self.serving, process::session(session));
        wait_for("no thread to be stopped", STEP_LIMIT, || {
            let stopped = |(_, state): &(i32, char)| matches!(state, 'T' | 't');
            (!process::thread_states(self.serving).iter().any(stopped)).then_some(())
        });
        wait_for("nobody to trace the server", STEP_LIMIT, || {
            (Snapshot::of(self.serving).status.get("TracerPid").map(String::as_str) == Some("0")).then_some(())
        });
        assert_eq!(self.server.serving_pid(), Some(self.serving), "the process listens");
        self.daemon.expect_no_leftovers();
    }

    /// Panics unless the server is as it was before the update: alone, and untouched as far as one can see.
    #[track_caller]
    pub fn expect_restored(&self) {
        self.expect_alone();
        let after = Snapshot::of(self.serving);
        assert_eq!(self.before.differences_under_load(&after), Vec::<String>::new());
    }

    /// Stops the load and panics unless every reply was right and came.
    #[track_caller]
    pub fn expect_clean<D: Dialogue>(&self, load: Load<D>) {
        let before = load.requests();
        load.wait_requests(50, STEP_LIMIT);
        assert!(load.requests() > before || load.failed() > 0);
        let summary = load.stop();
        println!("{} requests, the longest took {} ms", summary.requests, summary.longest_us / 1000);
        summary.expect_clean();
    }
}
