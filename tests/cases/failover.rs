//! The leader crashes while clients are connected, and a follower's memory goes on in its process: nobody loses a connection, an
//! answer or a count, and whoever looks at the process finds the same one, with the follower's program in it.

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

    /// Asks, and returns the answer.
    fn told(&mut self, line: &str) -> String {
        self.ask(line);
        self.lines += 1;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).unwrap();
        let (number, text) = answer.trim_end().split_once(':').unwrap();
        assert_eq!(number, self.lines.to_string());
        text.to_owned()
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

/// What the kernel tells of a process.
struct Told {
    exe: PathBuf,
    command: Vec<String>,
    environment: Vec<u8>,
    name: String,
    /// Parent, process group and session.
    kin: Vec<String>,
    maps: String,
    vector: Vec<[u64; 2]>,
    descriptors: Vec<PathBuf>,
}

impl Told {
    fn of(pid: &str) -> Told {
        let path = |file: &str| format!("/proc/{pid}/{file}");
        let bytes = |file: &str| std::fs::read(path(file)).unwrap();
        let text = |file: &str| String::from_utf8(bytes(file)).unwrap();
        let command = text("cmdline");
        let mut descriptors: Vec<PathBuf> = std::fs::read_dir(path("fd"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|link| PathBuf::from(link.file_name().unwrap()).join(std::fs::read_link(&link).unwrap()))
            .collect();
        descriptors.sort();
        let words: Vec<u64> = bytes("auxv").as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        Told {
            exe: std::fs::read_link(path("exe")).unwrap(),
            command: command.split_terminator('\0').map(str::to_owned).collect(),
            environment: bytes("environ"),
            name: text("comm").trim_end().to_owned(),
            kin: text("stat")
                .rsplit_once(')')
                .unwrap()
                .1
                .split_whitespace()
                .skip(1)
                .take(3)
                .map(str::to_owned)
                .collect(),
            maps: text("maps"),
            vector: words.as_chunks::<2>().0.to_vec(),
            descriptors,
        }
    }

    /// The area that begins at, or contains, what the kernel has told the program by this entry of its vector.
    fn area_of(&self, entry: u64) -> &str {
        let [_, addr] = self.vector.iter().find(|[kind, _]| *kind == entry).unwrap();
        let contains = |line: &&str| {
            let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            (number(start)..number(end)).contains(addr)
        };
        self.maps.lines().find(contains).unwrap_or_else(|| panic!("{addr:#x} is nowhere: {}", self.maps))
    }
}

#[test]
fn the_process_stays_and_is_what_it_runs() {
    let mut service = Service::start(&["-DFRAGILE"], &[("steady", &[])], &[]);
    let pid = service.clients[0].told("pid");
    let before = Told::of(&pid);
    let path = |name: &str| service.dir.path().join(name);
    let (leader, steady) = (path("leader"), path("steady"));
    assert_eq!((&before.exe, &before.command[..]), (&leader, &[leader.to_str().unwrap().to_owned()][..]));
    service.clients[7].round("boom");
    assert_eq!(service.clients[0].told("pid"), pid);
    let after = Told::of(&pid);
    assert_eq!((&after.exe, &after.command[..]), (&steady, &[steady.to_str().unwrap().to_owned()][..]));
    assert_eq!((&*before.name, &*after.name), ("leader", "steady"));
    assert_eq!((&after.environment, &after.kin), (&before.environment, &before.kin));
    assert_eq!(after.descriptors, before.descriptors);
    // AT_ENTRY and AT_SYSINFO_EHDR of getauxval(3), AT_RANDOM lies on the stack.
    assert!(after.area_of(9).ends_with("/steady") && after.area_of(33).ends_with("[vdso]"), "{}", after.maps);
    assert!(after.area_of(25).ends_with("[stack]") && after.maps.contains("[heap]"), "{}", after.maps);
    assert!(!after.maps.contains("/leader"), "{}", after.maps);
    service.check();
    assert_eq!(outcomes(&service.end()), ["took-over"]);
}

#[test]
fn a_child_can_be_waited_for_afterwards() {
    let mut service = Service::start(&["-DFRAGILE"], &[("steady", &[]), ("third", &[])], &[]);
    service.clients[3].round("child");
    service.check();
    service.clients[7].round("boom");
    service.check();
    assert_eq!(service.clients[4].told("reap"), "7");
    service.clients[3].round("child");
    assert_eq!(service.clients[4].told("reap"), "7");
    service.check();
    let report = service.end();
    assert_eq!(outcomes(&report), ["took-over", "complete"], "{report:#}");
}

#[test]
fn versions_at_the_same_addresses_take_over_too() {
    let mut service = Service::start(&["-DFRAGILE"], &[("steady", &[])], &["--no-aslr"]);
    service.clients[7].round("boom");
    service.check();
    assert_eq!(outcomes(&service.end()), ["took-over"]);
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
        gcc.arg("-pthread").arg(format!("-DCRASH={crash}")).arg("-o").arg(&program).arg(dir.path().join("program.c"));
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
fn a_parent_is_taken_over_and_its_child_lives_on() {
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
    assert_eq!((finished.code, &*finished.stdout), (2, "alone: 0\n"), "{}", finished.stderr);
    assert_eq!(finished.outcomes(), ["parted", "took-over"], "{}", finished.stderr);
}

#[test]
fn threads_go_on_after_one_of_them_has_crashed() {
    let finished = with_children(
        r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
enum { THREADS = 6 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int ready;
static __thread long mine;
static void *work(void *number)
{
	mine = (long)number;
	pthread_mutex_lock(&lock);
	ready++;
	pthread_cond_broadcast(&changed);
	while (ready < THREADS)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	if (mine == 3) {
		usleep(1000);
		CRASH;
		pthread_mutex_lock(&lock);
		ready++;
		pthread_cond_broadcast(&changed);
		pthread_mutex_unlock(&lock);
	}
	pthread_mutex_lock(&lock);
	while (ready <= THREADS)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return (void *)(pthread_kill(pthread_self(), 0) ? -100 : mine);
}
int main(void)
{
	pthread_t threads[THREADS];
	long sum = 0;
	for (long i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, work, (void *)i);
	for (int i = 0; i < THREADS; i++) {
		void *result;
		pthread_join(threads[i], &result);
		sum += (long)result;
	}
	printf("sum %ld, %d\n", sum, getpid() == syscall(SYS_gettid));
}
"#,
    );
    assert_eq!((finished.code, &*finished.stdout), (0, "sum 15, 1\n"), "{}", finished.stderr);
    assert_eq!(finished.outcomes(), ["parted", "took-over"], "{}", finished.stderr);
}

#[test]
fn what_a_process_shares_with_its_children_is_not_taken_over() {
    let finished = with_children(
        r#"
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void)
{
	int ends[2];
	char byte;
	char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (pipe(ends))
		return 1;
	if (fork() == 0) {
		close(ends[1]);
		return read(ends[0], &byte, 1) ? 1 : *shared;
	}
	CRASH;
	return 2;
}
"#,
    );
    assert_eq!(finished.code, 139, "{}", finished.stderr);
    assert!(finished.stderr.contains("it shares memory with process"), "{}", finished.stderr);
    assert_eq!(finished.outcomes(), ["complete"; 2], "{}", finished.stderr);
}

#[test]
fn a_child_that_has_ended_is_waited_for_afterwards() {
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
    assert_eq!(finished.code, 2, "{}", finished.stderr);
    assert_eq!(finished.outcomes(), ["parted", "took-over"], "{}", finished.stderr);
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
