//! A version that leads comes to an end that the other one does not share, or hangs: the other takes over, in the same process, and
//! no connection is lost. Before a promotion it is the old version that ends, after it the new one.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use harness::load::lines::{self, LineClient};
use harness::load::{Load, Plan};
use harness::server;
use harness::stand::{Stand, code};

const LIMIT: Duration = Duration::from_secs(60);

/// Who leads when it happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leads {
    Old,
    New,
}

struct World {
    stand: Stand,
    load: Load<LineClient>,
    /// The server's shared memory; a version that finds 1 in its first byte is loyal.
    shared: u64,
}

impl World {
    /// Two versions run, and only the one that leads will do what it is told.
    fn new(leads: Leads, options: &[&str]) -> World {
        let stand = Stand::new(server::turn().unwrap());
        // On a busy machine it takes a while to be sure that a version hangs.
        let plan = Plan { patience: LIMIT, ..Plan::busy(stand.server.address, 5) };
        let load = Load::start(plan, |_| LineClient::default());
        let shared = lines::ask(stand.server.address, "where", LIMIT).unwrap().parse().unwrap();
        let mut world = World { stand, load, shared };
        // Each version that follows gets a copy of what is there when it is born.
        world.mark(1);
        world.stand.validate(&[&["--retries", "0"], options].concat());
        world.stand.wait_compared(100);
        if leads == Leads::New {
            world.stand.promote();
        }
        world.mark(0);
        world
    }

    /// Writes the byte in the process that serves.
    fn mark(&self, mark: u8) {
        let memory = fs::OpenOptions::new().write(true).open(format!("/proc/{}/mem", self.stand.serving)).unwrap();
        memory.write_all_at(&[mark], self.shared).unwrap();
    }

    fn betray(&self, act: &str) -> String {
        lines::ask(self.stand.server.address, &format!("betray {act}"), LIMIT).unwrap()
    }

    /// The other version serves alone, in the same process, and every client was served.
    fn expect_taken_over(mut self, expected: &[i32]) {
        let status = self.stand.taken_over();
        let (result, text) = status.result.expect("the update has ended");
        let report = self.stand.daemon.run(&["report", &self.stand.serving.to_string()]).unwrap().stdout;
        assert!(expected.iter().any(|code| result == *code as u64), "ended with {result}: {text}\n{report}");
        self.stand.expect_alone();
        self.stand.expect_clean(self.load);
    }
}

/// The version that leads does the act, and the client hears the other one.
fn taken_over(leads: Leads, act: &str, options: &[&str], expected: &[i32]) {
    let world = World::new(leads, options);
    assert_eq!(world.betray(act), "loyal", "the version that goes on answers");
    world.expect_taken_over(expected);
}

#[test]
fn the_old_version_exits() {
    taken_over(Leads::Old, "exit", &[], &[code::DONE]);
}

#[test]
fn the_old_version_aborts() {
    taken_over(Leads::Old, "abort", &[], &[code::DONE]);
}

#[test]
fn the_old_version_crashes() {
    taken_over(Leads::Old, "crash", &[], &[code::DONE]);
}

#[test]
fn the_old_version_says_something_and_exits() {
    taken_over(Leads::Old, "fail", &[], &[code::DONE]);
}

#[test]
fn the_new_version_exits() {
    taken_over(Leads::New, "exit", &[], &[code::CRASHED]);
}

#[test]
fn the_new_version_aborts() {
    taken_over(Leads::New, "abort", &[], &[code::CRASHED, code::DIVERGED]);
}

#[test]
fn the_new_version_crashes() {
    taken_over(Leads::New, "crash", &[], &[code::CRASHED]);
}

#[test]
fn the_new_version_says_something_and_exits() {
    taken_over(Leads::New, "fail", &[], &[code::DIVERGED, code::CRASHED]);
}

#[test]
fn the_new_version_hangs() {
    taken_over(Leads::New, "hang", &[], &[code::CRASHED]);
}

#[test]
fn the_new_version_sleeps() {
    taken_over(Leads::New, "sleep", &[], &[code::CRASHED, code::DIVERGED]);
}

/// It has answered, and comes to no call any more; the old one waits for the next request.
#[test]
fn the_new_version_hangs_between_requests() {
    let world = World::new(Leads::New, &[]);
    assert_eq!(world.betray("tire"), "loyal");
    world.expect_taken_over(&[code::CRASHED]);
}

/// Somebody who does not want to wait that long asks for the old version.
#[test]
fn a_version_that_hangs_is_rolled_back() {
    let mut world = World::new(Leads::New, &[]);
    assert_eq!(world.betray("tire"), "loyal");
    world.stand.rollback();
    world.expect_taken_over(&[code::DIVERGED]);
}

/// Both versions do it: then the service ends, as it would without us.
#[test]
fn an_end_that_both_share_is_one() {
    let mut stand = Stand::new(server::turn().unwrap());
    stand.validate(&[]);
    for _ in 0..50 {
        assert_eq!(lines::ask(stand.server.address, "echo x", LIMIT).unwrap(), "x");
    }
    stand.wait_compared(50);
    assert!(lines::ask(stand.server.address, "exit", LIMIT).is_err(), "nobody answers");
    let ended = stand.server.program.wait_exit(LIMIT);
    assert_eq!(ended, Some(7), "it has ended as it wanted to");
    stand.daemon.expect_no_leftovers();
}
