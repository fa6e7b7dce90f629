//! The leader crashes while clients are connected, and a follower goes on: nobody loses a connection, an answer or a count.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::daemon::binary;
use harness::process::Program;
use harness::side_by_side::Finished;
use harness::wait::wait_for;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const CLIENTS: usize = 50;

/// The server of `tests/servers/lines.c`, compiled with `defines`.
fn compile(dir: &Path, name: &str, defines: &[&str]) -> PathBuf {
    let program = dir.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../servers/lines.c");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu17", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]).args(defines).arg("-o").arg(&program);
    let output = gcc.arg(source).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

struct Client {
    stream: BufReader<TcpStream>,
    lines: usize,
}

impl Client {
    fn connect(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Client { stream: BufReader::new(stream), lines: 0 }
    }

    #[track_caller]
    fn answered(&mut self, line: &str, answer: &str) {
        self.ask(line);
        self.expect(answer);
    }

    fn ask(&mut self, line: &str) {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    #[track_caller]
    fn expect(&mut self, line: &str) {
        self.lines += 1;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).unwrap();
        assert_eq!(answer, format!("{}:{line}\n", self.lines));
    }

    #[track_caller]
    fn round(&mut self, line: &str) {
        self.ask(line);
        self.expect(line);
    }
}

struct Service {
    dir: tempfile::TempDir,
    program: Program,
    clients: Vec<Client>,
}

impl Service {
    /// Starts the server under `run` with these followers, and clients that each have been answered.
    fn start(leader: &[&str], followers: &[(&str, &[&str])], options: &[&str]) -> Service {
        let dir = tempfile::tempdir().unwrap();
        let leader = compile(dir.path(), "leader", leader);
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let mut args = vec!["run".to_owned(), "--report".into(), text(dir.path().join("report"))];
        args.extend(options.iter().map(|&option| option.to_owned()));
        for (name, defines) in followers {
            args.extend(["--follower".into(), text(compile(dir.path(), name, defines))]);
        }
        args.extend(["--".to_owned(), text(leader)]);
        let log = dir.path().join("log");
        let program = Program::start(binary(), &args, dir.path(), &log).unwrap();
        let port = wait_for("the server to listen", LIMIT, || {
            let text = std::fs::read_to_string(&log).ok()?;
            text.lines().next().filter(|_| text.ends_with('\n'))?.parse().ok()
        });
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(port)).collect();
        clients.iter_mut().for_each(|client| client.round("hello"));
        Service { dir, program, clients }
    }

    /// Every client is served as before.
    fn check(&mut self) {
        for round in 0..3 {
            self.clients.iter_mut().for_each(|client| client.ask(&format!("line {round}")));
            self.clients.iter_mut().for_each(|client| client.expect(&format!("line {round}")));
        }
    }

    /// Ends the server, which exits with 3, and returns the report.
    fn end(self) -> Value {
        self.end_with(3)
    }

    fn end_with(mut self, code: i32) -> Value {
        self.clients[0].ask("quit");
        let report = self.dir.path().join("report");
        wait_for("the run to end", LIMIT, || (!self.program.is_running()).then_some(()));
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
        let text = std::fs::read_to_string(report).unwrap_or_else(|error| panic!("{error}: {log}"));
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["leader"]["exited"], code, "{report:#} {log}");
        report
    }
}

fn outcomes(report: &Value) -> Vec<&str> {
    report["followers"].as_array().unwrap().iter().map(|one| one["outcome"].as_str().unwrap()).collect()
}

fn crashes(leader: &[&str], word: &str) {
    let mut service = Service::start(leader, &[("steady", &[])], &[]);
    service.check();
    service.clients[7].round(word);
    service.check();
    assert_eq!(outcomes(&service.end()), ["took-over"]);
}

#[test]
fn a_follower_takes_over() {
    crashes(&["-DFRAGILE"], "boom");
}

#[test]
fn a_follower_takes_over_from_one_that_aborts() {
    crashes(&["-DABORTS"], "bang");
}

#[test]
fn the_others_follow_the_one_that_took_over() {
    let followers = [("fragile", &["-DFRAGILE"][..]), ("steady", &[][..]), ("third", &[][..])];
    let mut service = Service::start(&["-DFRAGILE"], &followers, &[]);
    service.check();
    service.clients[7].round("boom");
    service.check();
    service.clients[9].round("boom");
    let report = service.end();
    assert_eq!(outcomes(&report), ["parted", "took-over", "complete"], "{report:#}");
    assert!(report["followers"][0]["reason"].as_str().unwrap().contains("SIGSEGV"), "{report:#}");
}

#[test]
fn a_second_crash_finds_the_next() {
    let followers = [("second", &["-DABORTS"][..]), ("third", &[][..])];
    let mut service = Service::start(&["-DFRAGILE"], &followers, &[]);
    service.clients[3].round("boom");
    service.check();
    service.clients[5].round("bang");
    service.check();
    let report = service.end();
    assert_eq!(outcomes(&report), ["took-over", "took-over"], "{report:#}");
}

#[test]
fn in_lockstep_too() {
    let mut service = Service::start(&["-DFRAGILE"], &[("steady", &[]), ("third", &[])], &["--lockstep=majority"]);
    service.clients[7].round("boom");
    service.check();
    assert_eq!(outcomes(&service.end()), ["took-over", "complete"]);
}

#[test]
fn one_that_took_over_does_not_wait_for_itself() {
    let mut service = Service::start(&["-DFRAGILE"], &[("steady", &[]), ("third", &[])], &["--lockstep"]);
    service.clients[7].round("boom");
    service.check();
    assert_eq!(outcomes(&service.end()), ["took-over", "complete"]);

    let recorded = ["--lockstep", "--record", "recording"];
    let mut service = Service::start(&["-DFRAGILE"], &[("steady", &[])], &recorded);
    service.clients[7].round("boom");
    service.check();
    assert_eq!(outcomes(&service.end()), ["took-over"]);
}

#[test]
fn signals_that_waited_for_the_leader_wait_for_its_successor() {
    let mut service = Service::start(&["-DFRAGILE"], &[("steady", &[]), ("third", &[])], &[]);
    service.clients[1].round("send");
    service.clients[2].round("boom");
    service.clients[3].answered("take", "10");
    service.clients[4].answered("take", "-1");
    service.check();
    let report = service.end();
    assert_eq!(outcomes(&report), ["took-over", "complete"], "{report:#}");
}

#[test]
fn a_daemon_that_has_left_its_parent_is_taken_over() {
    let mut service = Service::start(&["-DFRAGILE", "-DDAEMON"], &[("steady", &["-DDAEMON"])], &[]);
    service.check();
    service.clients[7].round("boom");
    service.check();
    // The end of the program is that of the process that was started.
    let report = service.end_with(4);
    assert_eq!(outcomes(&report), ["took-over"], "{report:#}");
}

/// Compiles a program in two ways, runs it with a follower of each, and returns what comes of it. The leader crashes.
fn with_children(text: &str) -> Finished {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("program.c"), text).unwrap();
    let compile = |name: &str, crash: &str| {
        let program = dir.path().join(name);
        let mut gcc = Command::new("gcc");
        gcc.arg(format!("-DCRASH={crash}")).arg("-o").arg(&program).arg(dir.path().join("program.c"));
        assert!(gcc.status().unwrap().success());
        program.to_str().unwrap().to_owned()
    };
    let (fragile, steady) = (compile("fragile", "*(volatile int *)8 = 1"), compile("steady", "(void)0"));
    let run = harness::side_by_side::Run { dir: dir.path(), input: b"" };
    run.with(&["--follower", &fragile, "--follower", &steady], &[&fragile])
}

#[test]
fn a_child_that_crashes_is_its_parents_business() {
    let finished = with_children(
        r#"
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void)
{
	for (int i = 0; i < 3; i++) {
		int status;
		if (fork() == 0) {
			dprintf(1, "worker %d, ", i);
			if (i < 2) {
				CRASH;
			}
			_exit(7);
		}
		wait(&status);
		dprintf(1, "signal %d, code %d\n", WTERMSIG(status), WEXITSTATUS(status));
	}
}
"#,
    );
    let expected = "worker 0, signal 11, code 0\nworker 1, signal 11, code 0\nworker 2, signal 0, code 7\n";
    assert_eq!((finished.code, &*finished.stdout), (0, expected), "{}", finished.stderr);
    assert_eq!(finished.outcomes(), ["complete"; 2], "{}", finished.stderr);
}

#[test]
fn children_live_on_without_a_parent_that_crashes() {
    let finished = with_children(
        r#"
#include <stdio.h>
#include <unistd.h>
int main(void)
{
	int ends[2];
	char byte;
	if (pipe(ends))
		return 1;
	if (fork() == 0) {
		close(ends[1]);
		dprintf(1, "alone: %zd\n", read(ends[0], &byte, 1));
		return 0;
	}
	CRASH;
	return 2;
}
"#,
    );
    assert_eq!((finished.code, &*finished.stdout), (139, "alone: 0\n"), "{}", finished.stderr);
    assert_eq!(finished.outcomes(), ["complete"; 2], "{}", finished.stderr);
}

#[test]
fn nobody_takes_over_who_could_not_wait_for_a_child() {
    let finished = with_children(
        r#"
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void)
{
	siginfo_t info;
	if (fork() == 0)
		return 9;
	if (waitid(P_ALL, 0, &info, WEXITED | WNOWAIT))
		return 1;
	CRASH;
	return wait(NULL) > 0 ? 2 : 3;
}
"#,
    );
    assert_eq!(finished.code, 139, "{}", finished.stderr);
    assert_eq!(finished.outcomes(), ["complete"; 2], "{}", finished.stderr);
}

#[test]
fn where_all_crash_the_program_ends_by_its_signal() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("crash.c");
    std::fs::write(&source, "int main(void) { return *(volatile int *)8; }\n").unwrap();
    let program = dir.path().join("crash");
    assert!(Command::new("gcc").args(["-o"]).arg(&program).arg(&source).status().unwrap().success());
    let run = harness::side_by_side::Run { dir: dir.path(), input: b"" };
    let finished = run.with(&["--self", "2"], &[program.to_str().unwrap()]);
    assert_eq!((finished.code, finished.outcomes()), (139, vec!["complete"; 2]), "{}", finished.stderr);
}
