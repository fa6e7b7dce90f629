//! A follower all of whose threads wait for each other, when the leader has ended: nothing will wake them, so it is dropped
//! then and there, however long a hang may last otherwise.

use std::process::Command;

use harness::side_by_side::Run;

/// Says a word and ends; what the follower does instead is told by `STUCK`.
const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
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
#endif
	pthread_mutex_unlock(&lock);
	return done;
}
int main(void)
{
	pthread_t thread;
	if (write(1, "one\n", 4) != 4 || pthread_create(&thread, NULL, work, NULL))
		return 1;
	pthread_join(thread, NULL);
	return write(1, "two\n", 4) == 4 ? 5 : 1;
}
"#;

fn is_dropped_with_the_leaders_end(stuck: u32) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("program.c"), PROGRAM).unwrap();
    let compile = |name: &str, stuck: u32| {
        let program = dir.path().join(name);
        let mut gcc = Command::new("gcc");
        gcc.arg(format!("-DSTUCK={stuck}")).arg("-o").arg(&program).arg(dir.path().join("program.c"));
        assert!(gcc.arg("-lpthread").status().unwrap().success());
        program.to_str().unwrap().to_owned()
    };
    let (leader, follower) = (compile("leader", 0), compile("follower", stuck));
    let run = Run { dir: dir.path(), input: b"" };
    let finished = run.with(&["--hang-timeout", "1h", "--follower", &follower], &[&leader]);
    assert_eq!((finished.code, &*finished.stdout), (5, "one\ntwo\n"), "{}", finished.stderr);
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
