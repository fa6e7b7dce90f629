//! A follower all of whose threads wait for each other, when the leader has ended: nothing will wake them, so it is dropped
//! then and there, however long a hang may last otherwise. One that computes may come to its end yet; a signal ends it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::process;
use harness::side_by_side::{Finished, Run};
use harness::wait::wait_for;
use nix::sys::signal::Signal;

/// Says a word and ends; what the follower does instead is told by `STUCK`.
const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static void *work(void *done)
{
	pthread_mutex_lock(&lock);
#if STUCK == 1
	pthread_cond_wait(&never, &lock);
#elif STUCK == 2
	static int word;
	for (;;)
		syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &(struct timespec){ 0, 1000 }, NULL, 0);
#elif STUCK == 3
	for (;;)
		__asm__ volatile("");
#endif
	pthread_mutex_unlock(&lock);
#if STUCK == 4
	static int last;
	syscall(SYS_futex, &last, FUTEX_WAKE_PRIVATE, 1);
	syscall(SYS_futex, &last, FUTEX_WAIT_PRIVATE, 1, NULL);
	syscall(SYS_sched_yield);
#endif
	return done;
}
int main(void)
{
	pthread_t thread;
	dprintf(1, "one\n");
	FILE *names = fopen("names", "w");
	fprintf(names, "%d %d\n", getpid(), getppid());
	if (fclose(names) || pthread_create(&thread, NULL, work, NULL))
		return 1;
	pthread_join(thread, NULL);
	return write(1, "two\n", 4) == 4 ? 5 : 1;
}
"#;

/// The program that leads and the one that follows, in a folder.
fn compile(dir: &Path, stuck: u32) -> [String; 2] {
    std::fs::write(dir.join("program.c"), PROGRAM).unwrap();
    [("leader", 0), ("follower", stuck)].map(|(name, stuck)| {
        let program = dir.join(name);
        let mut gcc = Command::new("gcc");
        gcc.arg(format!("-DSTUCK={stuck}")).arg("-o").arg(&program).arg(dir.join("program.c"));
        assert!(gcc.arg("-lpthread").status().unwrap().success());
        program.to_str().unwrap().to_owned()
    })
}

fn run(dir: &Path, [leader, follower]: &[String; 2]) -> Finished {
    let run = Run { dir, input: b"" };
    let finished = run.with(&["--hang-timeout", "1h", "--follower", follower], &[leader]);
    assert_eq!(finished.code, 5, "{}", finished.stderr);
    assert!(finished.stdout.ends_with("two\n"), "{}", finished.stdout);
    finished
}

fn is_dropped_with_the_leaders_end(stuck: u32) {
    let dir = tempfile::tempdir().unwrap();
    let finished = run(dir.path(), &compile(dir.path(), stuck));
    assert_eq!(finished.outcomes(), ["parted"], "{}", finished.stderr);
    let reason = finished.report["followers"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("none of them can move, and the leader has ended"), "{reason}");
}

#[test]
fn threads_that_wait_for_each_other() {
    is_dropped_with_the_leaders_end(1);
}

#[test]
fn a_thread_that_looks_again_and_again() {
    is_dropped_with_the_leaders_end(2);
}

#[test]
fn a_thread_that_computes_on_is_ended_by_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let programs = compile(dir.path(), 3);
    let finished = std::thread::scope(|scope| {
        let run = scope.spawn(|| run(dir.path(), &programs));
        let names = wait_for("the leader's name", Duration::from_secs(60), || {
            let text = std::fs::read_to_string(dir.path().join("names")).ok()?;
            let (leader, run) = text.strip_suffix('\n')?.split_once(' ')?;
            Some((leader.parse().unwrap(), run.parse().unwrap()))
        });
        let (leader, above): (i32, i32) = names;
        process::wait_gone(leader, Duration::from_secs(60));
        process::signal(above, Signal::SIGTERM);
        run.join().unwrap()
    });
    assert_eq!(finished.outcomes(), ["failed"], "{}", finished.stderr);
    let reason = finished.report["followers"][0]["reason"].as_str().unwrap();
    assert_eq!(reason, "SIGTERM ended the run after the leader's end");
}

/// Nothing stands still here: the leader's thread ends where the follower's looks once more whether somebody waits.
#[test]
fn a_thread_that_wakes_nobody_before_its_end_follows() {
    let dir = tempfile::tempdir().unwrap();
    let finished = run(dir.path(), &compile(dir.path(), 4));
    assert_eq!(finished.outcomes(), ["complete"], "{}", finished.stderr);
}
