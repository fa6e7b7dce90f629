//! Ordinary programs with a follower from their start: what they print and how they end is what it is without one, and the
//! follower lives through everything.

use std::path::Path;

use harness::guests;
use harness::side_by_side::{Finished, Run};

fn in_dir(dir: &Path) -> Run<'_> {
    Run { dir, input: b"" }
}

/// Runs a command by itself and with a follower, each in a folder of its own that `prepare` fills.
#[track_caller]
fn follows_in(prepare: impl Fn(&Path), input: &[u8], command: &[&str]) -> Finished {
    let [alone, paired] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    [&alone, &paired].into_iter().for_each(|dir| prepare(dir.path()));
    let expected = Run { dir: alone.path(), input }.natively(command);
    let finished = Run { dir: paired.path(), input }.with(&["--self", "1"], command);
    assert_eq!(finished.stdout, expected.stdout, "{command:?}: {}", finished.stderr);
    assert_eq!(finished.code, expected.code, "{command:?}: {}", finished.stderr);
    assert_eq!(finished.outcomes(), ["complete"], "{command:?}: {}", finished.stderr);
    assert_eq!(finished.stderr, expected.stderr, "{command:?}");
    finished
}

#[track_caller]
fn follows(command: &[&str]) -> Finished {
    follows_in(|_| {}, b"", command)
}

#[track_caller]
fn shell(script: &str) -> Finished {
    follows(&["bash", "-c", script])
}

#[test]
fn programs_of_one_process() {
    follows(&["/bin/echo", "hello"]);
    follows(&["cat", "/etc/passwd"]);
    follows(&["ls", "-la", "/etc"]);
    follows(&["sha256sum", "/bin/ls"]);
    follows(&["false"]);
    follows(&["find", "/usr/include/linux", "-name", "s*.h"]);
    follows(&["/usr/bin/python3", "-c", "print(sum(range(100)))"]);
    follows(&["perl", "-e", "print join(',', map { $_ * 2 } 1..5), qq(\n); exit 3"]);
}

#[test]
fn what_comes_in_goes_to_both() {
    let text: String = (0..2000).map(|i| format!("{:05} of\n", i * 7919 % 2000)).collect();
    follows_in(|_| {}, text.as_bytes(), &["sort"]);
    follows_in(|_| {}, text.as_bytes(), &["md5sum"]);
    follows_in(|_| {}, text.as_bytes(), &["sort", "--parallel=2", "-S", "1M"]);
    follows_in(|_| {}, b"7 * 6\nquit\n", &["awk", "{ print NR, $0 }"]);
}

#[test]
fn the_end_by_a_signal_is_the_leaders() {
    for signal in ["TERM", "KILL", "SEGV", "ABRT"] {
        follows(&["sh", "-c", &format!("kill -{signal} $$")]);
    }
    shell("trap 'echo caught; exit 5' TERM; kill -TERM $$; echo not reached");
}

#[test]
fn pipelines_and_background_jobs() {
    follows(&["sh", "-c", "echo a | tr a b; ls /nowhere; wait"]);
    shell("seq 1 1000 | sort -rn | uniq | wc -l");
    shell("for i in 1 2 3; do (echo $i; exit $i) || echo \"ended with $?\"; done");
    shell("sleep 0.1 & first=$!; false & wait $first; echo $?; wait %2; echo $?");
    shell("x=$(echo a; exit 4); echo $x $?; cat <(echo one) <(echo two)");
    shell("trap 'echo usr1' USR1; (kill -USR1 $$); trap - USR1; echo done");
}

#[test]
fn tar_with_gzip() {
    let tree = |dir: &Path| {
        for i in 0..20 {
            std::fs::create_dir_all(dir.join(format!("d{}", i % 3))).unwrap();
            std::fs::write(dir.join(format!("d{}/f{i}", i % 3)), vec![i; 5000]).unwrap();
        }
    };
    follows_in(tree, b"", &["sh", "-c", "tar -czf x.tgz d0 d1 d2 && tar -tzf x.tgz && tar -xzf x.tgz -C d0 && ls -R"]);
}

#[test]
fn make_with_gcc() {
    let sources = |dir: &Path| {
        std::fs::write(dir.join("a.c"), "int b(int); int main(void) { return b(40); }\n").unwrap();
        std::fs::write(dir.join("b.c"), "int b(int x) { return x + 2; }\n").unwrap();
        let rules = "prog: a.o b.o\n\tgcc -o $@ $^\n\t./prog; test $$? = 42\n%.o: %.c\n\tgcc -c -O1 -o $@ $<\n";
        std::fs::write(dir.join("Makefile"), rules).unwrap();
    };
    follows_in(sources, b"", &["make"]);
    follows_in(sources, b"", &["make", "-s", "-j2"]);
}

#[test]
fn git_makes_a_history() {
    let script = "git init -q . && git config user.email a@b && git config user.name a && echo one > f && git add f \
                  && git commit -qm one && echo two >> f && git commit -qam two && git log --format=%s && git gc -q \
                  && git fsck && git diff HEAD~1 --stat";
    follows_in(|_| {}, b"", &["sh", "-c", script]);
}

#[test]
fn scripts_are_executed_by_the_path_that_the_leader_gave() {
    use std::os::unix::fs::PermissionsExt as _;
    let scripts = |dir: &Path| {
        std::fs::create_dir(dir.join("sub")).unwrap();
        std::fs::copy("/bin/sh", dir.join("sub/shell")).unwrap();
        let script = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).unwrap();
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        script("sub/configure", "#!/bin/sh\necho $0 $#; cd ..; ./next; exec ./none\n");
        script("sub/own", "#!./shell\necho $0 by an interpreter that is found from here\n");
        script("next", "#!/bin/sh -e\necho $0; cd sub; exec ../last x\n");
        script("last", "#!/bin/cat\nwhat is in it\n");
    };
    let script = "cd sub && ./configure a b; echo $?; ./own; mkdir gone; cd gone; rmdir ../gone; /bin/echo still here";
    follows_in(scripts, b"", &["bash", "-c", script]);
    follows_in(scripts, b"", &["./next"]);
}

#[test]
fn another_program_parts_and_nobody_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let expected = in_dir(dir.path()).natively(&["cat", "/etc/passwd"]);
    for other in ["cat /etc/group", "/bin/echo hello", "false", "sh -c 'kill -SEGV $$'", "sleep 100"] {
        let finished = in_dir(dir.path()).with(&["--follower", other], &["cat", "/etc/passwd"]);
        assert_eq!((finished.code, &finished.stdout), (0, &expected.stdout), "{other}: {}", finished.stderr);
        assert_eq!(finished.outcomes(), ["parted"], "{other}");
    }
}

#[test]
fn a_threaded_program() {
    for name in ["threads", "contended"] {
        let guest = guests::program(name).unwrap();
        let finished = follows_in(|_| {}, b"", &[guest.to_str().unwrap()]);
        assert!(finished.report["followers"][0]["records"].as_u64() > Some(10));
    }
}

/// A program that asks the processor for the time, in two processes and two threads, and then is another one.
const CLOCK: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>
static void *tell(void *who)
{
	unsigned aux;
	unsigned long long first = __rdtsc(), second = __rdtscp(&aux);
	printf("%s %llu %llu %d\n", (char *)who, first, second, first < second);
	fflush(stdout);
	return NULL;
}
int main(void)
{
	pthread_t thread;
	tell("first");
	if (pthread_create(&thread, NULL, tell, "thread") || pthread_join(thread, NULL))
		return 1;
	if (fork() == 0) {
		tell("child");
		return 0;
	}
	wait(NULL);
	execl("/bin/echo", "echo", "done", NULL);
	return 1;
}
"#;

#[test]
fn the_processors_clock_is_told_alike() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("clock.c"), CLOCK).unwrap();
    let built = in_dir(dir.path()).natively(&["cc", "-O1", "-o", "clock", "clock.c", "-lpthread"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    let finished = in_dir(dir.path()).with(&["--self", "2"], &["./clock"]);
    assert_eq!(finished.outcomes(), ["complete", "complete"], "{}", finished.stderr);
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[..3].iter().all(|line| line.ends_with(" 1")), "it goes forward: {lines:?}");
    // When nobody follows any more the instruction is still executed for the leader.
    let finished = in_dir(dir.path()).with(&["--follower", "false"], &["./clock"]);
    assert_eq!((finished.code, finished.stdout.lines().count()), (0, 4), "{}", finished.stderr);
}

/// A program that reads the clock all the time, in a thread, a child, and itself, while its follower is dropped.
const CLOCK_AROUND_THE_DROP: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <semaphore.h>
#include <x86intrin.h>
static int tracer(void)
{
	char line[200];
	int found = -1;
	FILE *status = fopen("/proc/self/status", "r");
	while (fgets(line, sizeof line, status))
		if (strncmp(line, "TracerPid:", 10) == 0)
			found = atoi(line + 10);
	fclose(status);
	return found;
}
static sem_t reads;
static void *read_until_let_go(void *unused)
{
	__rdtsc();
	sem_post(&reads);
	for (int i = 0; i < 30000 && tracer() != 0; i++)
		for (int j = 0; j < 20; j++)
			__rdtsc();
	int mode = 0;
	prctl(PR_GET_TSC, &mode);
	__rdtsc();
	return (void *)(long)mode;
}
int main(void)
{
	pthread_t thread;
	void *mode;
	int status;
	sem_init(&reads, 0, 0);
	pthread_create(&thread, NULL, read_until_let_go, NULL);
	sem_wait(&reads);
	unshare(CLONE_FILES);
	pid_t child = fork();
	if (child == 0)
		_exit((long)read_until_let_go(NULL));
	waitpid(child, &status, 0);
	printf("%ld\n", (long)read_until_let_go(NULL));
	pthread_join(thread, &mode);
	printf("%ld %x\n", (long)mode, status);
	return 0;
}
"#;

#[test]
fn a_program_that_reads_the_processors_clock_is_let_go_too() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("clock.c"), CLOCK_AROUND_THE_DROP).unwrap();
    let built = in_dir(dir.path()).natively(&["cc", "-O1", "-o", "clock", "clock.c", "-lpthread"]);
    assert_eq!(built.code, 0, "{}", built.stderr);
    // It depends on the moment where a thread stands then.
    for _ in 0..10 {
        let finished = in_dir(dir.path()).with(&["--self", "1"], &["./clock"]);
        assert_eq!((finished.code, &*finished.stdout), (0, "1\n1 100\n"), "{}", finished.stderr);
        assert_eq!(finished.outcomes(), ["failed"], "{}", finished.stderr);
    }
}

/// The same in a library, which another thread loads.
const CLOCK_OF_A_LIBRARY: &str = r#"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static unsigned long long (*stamp)(void), (*stamp_and_place)(void);
static void *load(void *path)
{
	void *library = dlopen(path, RTLD_NOW);
	stamp = library ? dlsym(library, "stamp") : NULL;
	stamp_and_place = library ? dlsym(library, "stamp_and_place") : NULL;
	return library;
}
static void tell(const char *who)
{
	unsigned long long first = stamp(), second = stamp_and_place();
	printf("%s %llu %llu %d\n", who, first, second, first < second);
	fflush(stdout);
}
int main(void)
{
	pthread_t thread;
	void *library;
	if (pthread_create(&thread, NULL, load, "./libclock.so") || pthread_join(thread, &library) || !library)
		return 1;
	tell("first");
	if (fork() == 0) {
		tell("child");
		return 0;
	}
	wait(NULL);
	return 0;
}
"#;

#[test]
fn so_it_is_where_a_library_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let library = "#include <x86intrin.h>\nunsigned long long stamp(void) { return __rdtsc(); }\n\
                   unsigned long long stamp_and_place(void) { unsigned aux; return __rdtscp(&aux); }\n";
    std::fs::write(dir.path().join("library.c"), library).unwrap();
    std::fs::write(dir.path().join("main.c"), CLOCK_OF_A_LIBRARY).unwrap();
    for arguments in ["-shared -fPIC -o libclock.so library.c", "-o main main.c -lpthread -ldl"] {
        let built = in_dir(dir.path()).natively(&["sh", "-c", &format!("cc -O1 {arguments}")]);
        assert_eq!(built.code, 0, "{}", built.stderr);
    }
    // When nobody follows any more the instruction is still executed for the leader.
    for (options, complete) in [(["--self", "2"], 2), (["--follower", "false"], 0)] {
        let finished = in_dir(dir.path()).with(&options, &["./main"]);
        let lines: Vec<&str> = finished.stdout.lines().collect();
        assert_eq!((finished.code, lines.len()), (0, 2), "{}", finished.stderr);
        assert!(lines.iter().all(|line| line.ends_with(" 1")), "it goes forward: {lines:?}");
        let followed = finished.outcomes().into_iter().filter(|outcome| *outcome == "complete").count();
        assert_eq!(followed, complete, "{}", finished.stderr);
    }
}

#[test]
fn addresses_differ_unless_it_is_asked_that_they_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let command = ["/usr/bin/python3", "-c", "print(id(object()))"];
    let finished = in_dir(dir.path()).with(&["--self", "1"], &command);
    assert_eq!((finished.code, finished.outcomes()), (0, vec!["parted"]), "{}", finished.stdout);
    let finished = in_dir(dir.path()).with(&["--self", "1", "--no-aslr"], &command);
    assert_eq!((finished.code, finished.outcomes()), (0, vec!["complete"]), "{}", finished.stderr);
}

#[test]
fn the_leader_goes_on_when_nobody_follows_any_more() {
    // Processes and threads that are born afterwards ask for the time like all others.
    let script = "import os, threading, time\n\
                  for i in range(3):\n    \
                      pid = os.fork()\n    \
                      if pid == 0:\n        \
                          time.time(); time.monotonic(); os._exit(i)\n    \
                      print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)\n\
                  thread = threading.Thread(target=lambda: print(time.time() > 0, time.monotonic() > 0))\n\
                  thread.start(); thread.join()\n";
    let dir = tempfile::tempdir().unwrap();
    let command = ["/usr/bin/python3", "-c", script];
    let expected = in_dir(dir.path()).natively(&command);
    assert_eq!(expected.stdout, "0\n1\n2\nTrue True\n", "{}", expected.stderr);
    let finished = in_dir(dir.path()).with(&["--follower", "true"], &command);
    assert_eq!((finished.code, finished.stdout), (0, expected.stdout), "{}", finished.stderr);
}

#[test]
fn what_cannot_be_started_is_said() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(in_dir(dir.path()).with(&["--self", "1"], &["no-such-program"]).code, 127);
    assert_eq!(in_dir(dir.path()).with(&["--self", "1"], &["/etc/passwd"]).code, 126);
    let finished = in_dir(dir.path()).with(&["--self", "7"], &["true"]);
    assert_eq!(finished.code, 2);
}

#[test]
fn several_followers() {
    let dir = tempfile::tempdir().unwrap();
    let command = ["sh", "-c", "seq 1 100 | sort -r | head -3; exit 4"];
    let expected = in_dir(dir.path()).natively(&command);
    let finished = in_dir(dir.path()).with(&["--self", "6"], &command);
    assert_eq!((finished.code, &finished.stdout), (4, &expected.stdout), "{}", finished.stderr);
    assert_eq!(finished.outcomes(), ["complete"; 6], "{}", finished.stderr);
}

#[test]
fn one_that_parts_is_dropped_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["--self", "2", "--follower", "sh -c 'echo a; echo x; echo c'", "--follower", "false"];
    let finished = in_dir(dir.path()).with(&options, &["sh", "-c", "echo a; echo b; echo c"]);
    assert_eq!((finished.code, &*finished.stdout), (0, "a\nb\nc\n"), "{}", finished.stderr);
    assert_eq!(finished.outcomes(), ["complete", "complete", "parted", "parted"], "{}", finished.stderr);
    let reason = finished.report["followers"][2]["reason"].as_str().unwrap();
    assert!(reason.contains("write differs"), "{reason}");
}

#[test]
fn with_stop_the_leader_ends_with_the_first_that_parts() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["--on-divergence", "stop", "--follower", "sh -c 'echo x; exec sleep 1000'"];
    let finished = in_dir(dir.path()).with(&options, &["sh", "-c", "echo a; exec sleep 1000"]);
    assert_eq!((finished.code, finished.outcomes()), (10, vec!["parted"]), "{}", finished.stderr);
    assert_eq!(finished.report["stopped"], true);
}

#[test]
fn with_stop_what_the_first_process_has_left_behind_ends_too() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["--on-divergence", "stop", "--follower", "sh -c '(sleep 1; echo x; exec sleep 1000) &'"];
    let finished = in_dir(dir.path()).with(&options, &["sh", "-c", "(sleep 1; echo a; exec sleep 1000) &"]);
    assert_eq!((finished.code, finished.outcomes()), (10, vec!["parted"]), "{}", finished.stderr);
    assert_eq!(finished.report["leader"]["exited"], 0);
}

#[test]
fn what_the_system_cannot_execute_leaves_no_recording() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/nowhere/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let finished = in_dir(dir.path()).with(&["--record", "recording"], &["./script"]);
    assert_eq!(finished.code, 126, "{}", finished.stderr);
    assert!(!dir.path().join("recording").exists());
    let options = ["--lockstep", "--follower", "./script"];
    let finished = in_dir(dir.path()).with(&options, &["/bin/echo", "hello"]);
    assert_eq!((finished.code, &*finished.stdout), (10, ""), "{}", finished.stderr);
}

#[test]
fn in_lockstep_nothing_gets_out_that_the_others_have_not_produced() {
    let dir = tempfile::tempdir().unwrap();
    let leader = ["sh", "-c", "echo a; echo b; echo c"];
    let other = "sh -c 'echo a; echo x; echo c'";
    let all = in_dir(dir.path()).with(&["--lockstep", "--self", "2", "--follower", other], &leader);
    assert_eq!((all.code, &*all.stdout), (10, "a\n"), "{}", all.stderr);
    let most = in_dir(dir.path()).with(&["--lockstep=majority", "--self", "2", "--follower", other], &leader);
    assert_eq!((most.code, &*most.stdout), (0, "a\nb\nc\n"), "{}", most.stderr);
    assert_eq!(most.outcomes(), ["complete", "complete", "parted"], "{}", most.stderr);
    let dropped = ["--lockstep", "--on-divergence", "drop", "--self", "1", "--follower", other];
    let dropped = in_dir(dir.path()).with(&dropped, &leader);
    assert_eq!((dropped.code, &*dropped.stdout), (0, "a\nb\nc\n"), "{}", dropped.stderr);
}

#[test]
fn pipelines_in_lockstep() {
    let dir = tempfile::tempdir().unwrap();
    let command = ["sh", "-c", "seq 1 300 | sort -r | uniq | wc -l; ls /; echo done"];
    let expected = in_dir(dir.path()).natively(&command);
    let finished = in_dir(dir.path()).with(&["--lockstep", "--self", "2"], &command);
    assert_eq!((finished.code, &finished.stdout), (0, &expected.stdout), "{}", finished.stderr);
    assert_eq!(finished.outcomes(), ["complete", "complete"]);
}

#[test]
fn rules_stand_behind_the_follower() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("greeting.rules");
    let text = "direction outdated-leader\nrule greeting\n    write(1, \"hello\\n\") => write(1, \"good day\\n\")\n";
    std::fs::write(&rules, text).unwrap();
    let other = format!("/bin/echo 'good day',rules={}", rules.display());
    let finished = in_dir(dir.path()).with(&["--follower", &other], &["/bin/echo", "hello"]);
    assert_eq!((finished.code, &*finished.stdout), (0, "hello\n"), "{}", finished.stderr);
    assert_eq!(finished.outcomes(), ["complete"], "{}", finished.stderr);
}
