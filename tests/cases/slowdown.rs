//! What a rehearsal may cost the service: it is ended when that is too much, and says so with numbers.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::daemon::{Daemon, Status};
use harness::stand::{SINGLE, STEP_LIMIT, VALIDATING, code};
use harness::wait::wait_for;

/// Beyond what a window and a busy machine take.
const LONG: Duration = Duration::from_secs(120);

/// Two threads that hand a turn to each other in memory; each writes a byte in its own.
const SPINNERS: &str = r#"
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
static atomic_int turn;
static int to;
static void *work(void *mine)
{
	for (;;) {
		while (atomic_load(&turn) != (mine != NULL))
			;
		if (write(to, "x", 1) != 1)
			return NULL;
		atomic_store(&turn, mine == NULL);
	}
}
int main(void)
{
	pthread_t thread;
	to = open("/dev/null", O_WRONLY);
	if (pthread_create(&thread, NULL, work, &turn))
		return 1;
	work(NULL);
	return 1;
}
"#;

/// A program that runs until it is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Copies byte by byte, for ever.
    fn copying() -> Running {
        Running::start(Command::new("dd").args(["if=/dev/zero", "of=/dev/null", "bs=1"]))
    }

    fn spinning(dir: &Path) -> Running {
        let (source, program) = (dir.join("spinners.c"), dir.join("spinners"));
        std::fs::write(&source, SPINNERS).unwrap();
        let compiled = Command::new("gcc").args(["-O1", "-pthread", "-o"]).arg(&program).arg(&source).status().unwrap();
        assert!(compiled.success());
        Running::start(&mut Command::new(program))
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn update(daemon: &Daemon, pid: i32, max: &str) {
    update_with(daemon, pid, &["--max-slowdown", max]);
}

fn update_with(daemon: &Daemon, pid: i32, args: &[&str]) {
    let pid = pid.to_string();
    let asked = ["update", &pid, "--to", "self", "--soak", "1h", "--timeout", "2h"];
    daemon.expect(&[&asked, args].concat(), code::DONE);
}

#[track_caller]
fn wait_status(daemon: &Daemon, pid: i32, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
    wait_for(&format!("{what}; daemon: {}", daemon.output()), LONG, || daemon.status(pid).ok().flatten().filter(&is_so))
}

fn tracer_of(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("TracerPid:")).unwrap().trim().to_owned()
}

/// Waits for the end of an update that costs too much, and sees that the process goes on; returns what is said of it.
#[track_caller]
fn ended(daemon: &Daemon, pid: i32) -> String {
    let status =
        wait_status(daemon, pid, "the end of the update", |status| status.stage == SINGLE && status.result.is_some());
    let (verdict, text) = status.result.unwrap();
    assert_eq!(verdict, code::TIMED_OUT as u64, "{text}");
    assert!(text.contains("it cost the service too much: it read and wrote"), "{text}");
    assert!(text.contains("of which the recording held it up for") && text.contains("(--max-slowdown)"), "{text}");
    wait_for("nobody traces it", STEP_LIMIT, || (tracer_of(pid) == "0").then_some(()));
    let report = daemon.expect(&["report", &pid.to_string(), "--json"], code::DONE).json().unwrap();
    let slowdown = &report["slowdown"];
    let before = slowdown["before"]["moved"]["per_second"].as_f64().unwrap();
    let now = slowdown["now"]["per_second"].as_f64().unwrap();
    assert!(before > now * slowdown["max"].as_f64().unwrap(), "{slowdown}");
    text
}

#[test]
fn a_rehearsal_that_costs_more_than_it_may_is_ended() {
    let (daemon, dd) = (Daemon::start().unwrap(), Running::copying());
    // Where nothing stops, it is not even four times slower.
    update_with(&daemon, dd.pid(), &["--max-slowdown", "4", "--stops", "each-call"]);
    let text = ended(&daemon, dd.pid());
    assert!(text.contains("at most 4 times is allowed"), "{text}");
}

#[test]
fn what_it_costs_is_shown_where_there_is_no_limit() {
    let (daemon, dd) = (Daemon::start().unwrap(), Running::copying());
    let pid = dd.pid();
    update(&daemon, pid, "1000000");
    let status =
        wait_status(&daemon, pid, "what it costs", |status| !status.raw["update"]["slowdown"]["now"].is_null());
    assert_eq!(status.stage, VALIDATING);
    let shown = daemon.expect(&["status", &pid.to_string()], code::DONE).stdout.replace("\n            ", " ");
    assert!(
        shown.contains("at most 1000000 times slower") && shown.contains("  cost      it read and wrote"),
        "{shown}"
    );
    daemon.expect(&["rollback", &pid.to_string()], code::DONE);
}

#[test]
fn threads_that_wait_for_each_other_in_loops_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, spinners) = (Daemon::start().unwrap(), Running::spinning(dir.path()));
    update(&daemon, spinners.pid(), "3");
    let text = ended(&daemon, spinners.pid());
    assert!(text.contains("as threads do that wait for each other in loops"), "{text}");
}

#[test]
fn a_service_that_did_nothing_before_is_not_judged() {
    let (daemon, sleeping) = (Daemon::start().unwrap(), Running::start(Command::new("sleep").arg("1h")));
    let pid = sleeping.pid();
    update(&daemon, pid, "2");
    daemon.wait_stage(pid, VALIDATING, STEP_LIMIT);
    let shown = daemon.expect(&["status", &pid.to_string()], code::DONE).stdout.replace("\n            ", " ");
    assert!(shown.contains("not judged, that is too little to compare with"), "{shown}");
    daemon.expect(&["rollback", &pid.to_string()], code::DONE);
}

#[test]
fn a_factor_that_leaves_nothing_is_refused() {
    let daemon = Daemon::start().unwrap();
    for wrong in ["1", "0", "fast"] {
        let said = daemon.expect(&["update", "1", "--to", "self", "--max-slowdown", wrong], code::USAGE).stderr;
        assert!(said.contains("write a number from 2, or `off`"), "{said}");
    }
}
