//! A new version that does evil: nothing of it reaches a client, a file or another process.
//!
//! The server of these cases can tell that it is the follower and then does what it is told to. Each act is a divergence, a
//! crash or a hang, so the update is rolled back; what counts is that nothing has happened outside.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use harness::load::lines::{self, LineClient};
use harness::load::{Load, Plan};
use harness::process::{self, Program};
use harness::server;
use harness::stand::{STEP_LIMIT, Stand, code};

const LIMIT: Duration = Duration::from_secs(30);

/// What the world looks like to which the follower may do nothing.
struct World {
    stand: Stand,
    load: Load<LineClient>,
    file: PathBuf,
    new_file: PathBuf,
    /// The server's shared memory; its first byte says who a version is, the second is free.
    shared: u64,
}

impl World {
    fn new() -> World {
        let stand = Stand::new(server::turn().unwrap());
        let (file, new_file) = (stand.server.dir().join("precious"), stand.server.dir().join("new"));
        fs::write(&file, "untouched").unwrap();
        let load = Load::start(Plan::busy(stand.server.address, 5), |_| LineClient::default());
        let shared = lines::ask(stand.server.address, "where", LIMIT).unwrap().parse().unwrap();
        World { stand, load, file, new_file, shared }
    }

    /// Starts an update and tells the leader who it is; returns what the client of the act was answered.
    fn betray(&mut self, act: &str) -> String {
        self.stand.validate(&["--retries", "0"]);
        self.stand.wait_compared(50);
        self.mark_leader(1);
        let answer = lines::ask(self.stand.server.address, &format!("betray {act}"), LIMIT).unwrap();
        assert_eq!(answer, "loyal", "the client hears the leader");
        answer
    }

    fn memory(&self) -> fs::File {
        let path = format!("/proc/{}/mem", self.stand.serving);
        fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
    }

    /// Writes the byte that only the serving version sees.
    fn mark_leader(&self, mark: u8) {
        self.memory().write_all_at(&[mark], self.shared).unwrap();
    }

    /// The update is undone with this exit code, and everything is as it was.
    fn expect_undone(&mut self, expected: i32) {
        let status = self.stand.settled();
        let (result, text) = status.result.expect("the update has ended");
        let report = || self.stand.daemon.run(&["report", &self.stand.serving.to_string()]).map(|output| output.stdout);
        assert!(
            result == expected as u64,
            "ended with {result}, not {expected}: {text}\n{}",
            report().unwrap_or_default()
        );
        assert_eq!(self.stand.serving, self.stand.server.pid(), "the old version serves");
        self.stand.expect_restored();
        assert_eq!(fs::read_to_string(&self.file).unwrap(), "untouched");
        assert!(!self.new_file.exists(), "no file was made");
        assert!(!self.file.with_extension("moved").exists());
        // Until the next update nobody may see a follower.
        self.mark_leader(0);
    }

    fn end(self) {
        self.stand.expect_clean(self.load);
    }
}

fn divergence(act: impl Fn(&World) -> String) {
    let mut world = World::new();
    let act = act(&world);
    world.betray(&act);
    world.expect_undone(code::DIVERGED);
    world.end();
}

#[test]
fn another_answer_reaches_no_client() {
    let mut world = World::new();
    world.betray("answer");
    world.expect_undone(code::DIVERGED);
    let pid = world.stand.serving.to_string();
    let report = world.stand.daemon.expect(&["report", &pid], code::DONE).stdout;
    assert!(report.contains("sendto"), "the report names the call: {report}");
    assert!(report.contains("traitor") && report.contains("loyal"), "and shows both versions' bytes: {report}");
    let redacted = world.stand.daemon.expect(&["report", &pid, "--json"], code::DONE).stdout;
    assert!(!redacted.contains("traitor"), "programs see no payload unless they ask: {redacted}");
    world.end();
}

#[test]
fn a_message_more_reaches_no_client() {
    divergence(|_| "send".to_owned());
}

#[test]
fn no_file_is_written() {
    divergence(|world| format!("write {}", world.file.display()));
    divergence(|world| format!("write {}", world.new_file.display()));
}

#[test]
fn no_file_is_removed_or_renamed() {
    divergence(|world| format!("unlink {}", world.file.display()));
    divergence(|world| format!("rename {}", world.file.display()));
}

#[test]
fn no_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let sleep = process::find_program("sleep").unwrap();
    let victim = Program::start(&sleep, &["1000".to_owned()], dir.path(), &dir.path().join("output")).unwrap();
    divergence(|_| format!("kill {}", victim.pid()));
    assert!(victim.is_running());
}

#[test]
fn no_process_is_made() {
    divergence(|world| format!("fork {}", world.new_file.display()));
    divergence(|world| format!("exec {}", world.new_file.display()));
}

#[test]
fn no_connection_is_made() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    divergence(|_| format!("connect {port}"));
    let accepted = listener.accept().map(|(mut stream, _)| stream.write(b"?"));
    assert_eq!(accepted.unwrap_err().kind(), ErrorKind::WouldBlock, "nobody has connected");
}

#[test]
fn no_shared_memory_is_written() {
    let mut world = World::new();
    world.betray("shared");
    // The act itself is no call, so the two go on alike.
    world.stand.wait_compared(200);
    let mut shared = [0; 2];
    world.memory().read_exact_at(&mut shared, world.shared).unwrap();
    assert_eq!(shared, [1, 0], "the follower wrote into a copy of its own");
    world.stand.rollback();
    world.stand.expect_restored();
    world.end();
}

#[test]
fn an_early_end_a_crash_and_a_hang_are_noticed() {
    for (act, expected) in [("exit", code::DIVERGED), ("crash", code::CRASHED), ("hang", code::CRASHED)] {
        let mut world = World::new();
        world.betray(act);
        world.expect_undone(expected);
        let pid = world.stand.serving.to_string();
        world.stand.daemon.expect(&["report", &pid], code::DONE);
        world.load.wait_requests(50, STEP_LIMIT);
        world.end();
    }
}
