/*
 * Children: a program that forks has ghost children while two versions run.
 *
 * rows: fork vfork clone/FORK clone/FORK_SETTID clone3/FORK wait4 waitid kill pidfd_open pidfd_send_signal exit_group
 */
#include "guest.h"

#include <linux/sched.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void setup(void)
{
}

/* The child says something through a pipe and ends with a status; its text must reach whoever serves. */
static void reap(pid_t child, int *ends, const char *text, int expected)
{
	close(ends[1]);
	size_t len = strlen(text);
	char *got = at_edge(len);
	size_t have = 0;
	while (have < len) {
		long more = DO(read(ends[0], got + have, len - have));
		CHECK(more > 0);
		have += more;
	}
	CHECK(memcmp(got, text, len) == 0);
	close(ends[0]);
	int *status = at_edge(4);
	struct rusage *usage = at_edge(sizeof *usage);
	CHECK(SYS(wait4, child, status, 0, usage) == child);
	CHECK(WIFEXITED(*status) && WEXITSTATUS(*status) == expected);
	mix_value(child);
	mix(status, 4);
	mix(usage, sizeof *usage);
}

__attribute__((noreturn)) static void say(int *ends, const char *text, int status)
{
	size_t len = strlen(text);
	_exit(write(ends[1], text, len) == (ssize_t)len ? status : 99);
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	int ends[2];
	DO(pipe(ends));
	pid_t child = SYS(fork);
	if (child == 0)
		say(ends, "from fork", 3);
	reap(child, ends, "from fork", 3);

	DO(pipe(ends));
	child = DO(fork());
	if (child == 0)
		say(ends, "from the library's fork", 4);
	reap(child, ends, "from the library's fork", 4);

	DO(pipe(ends));
	int tid = 0;
	child = DO(syscall(SYS_clone, CLONE_PARENT_SETTID | SIGCHLD, 0, &tid, 0, 0));
	if (child == 0)
		say(ends, "from clone", 5);
	CHECK(tid == child);
	reap(child, ends, "from clone", 5);

	DO(pipe(ends));
	int pidfd = -1;
	tid = 0;
	struct clone_args args = { .flags = CLONE_PARENT_SETTID | CLONE_PIDFD, .exit_signal = SIGCHLD };
	args.parent_tid = (uintptr_t)at_edge(4);
	args.pidfd = (uintptr_t)&pidfd;
	child = DO(syscall(SYS_clone3, copied(&args, sizeof args), sizeof args));
	if (child == 0)
		say(ends, "from clone3", 6);
	CHECK(*(int *)args.parent_tid == child && pidfd >= 0);
	mix_value(pidfd);
	close(pidfd);
	reap(child, ends, "from clone3", 6);

	DO(pipe(ends));
	child = vfork();
	CHECK(child >= 0);
	if (child == 0) {
		execl("/bin/sh", "sh", "-c", "exit 7", NULL);
		_exit(127);
	}
	int status;
	CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
	close(ends[0]);
	close(ends[1]);

	/* A child that waits until it is killed. */
	child = DO(fork());
	if (child == 0)
		for (;;)
			pause();
	pidfd = MIXED(syscall(SYS_pidfd_open, child, 0));
	int *nothing = at_edge(4);
	CHECK(SYS(wait4, child, nothing, WNOHANG, NULL) == 0 && untouched(nothing, 4));
	SYS(pidfd_send_signal, pidfd, SIGCONT, NULL, 0);
	SYS(kill, child, SIGKILL);
	siginfo_t *info = at_edge(sizeof *info);
	SYS(waitid, P_PIDFD, pidfd, info, WEXITED, NULL);
	CHECK(info->si_pid == child && info->si_code == CLD_KILLED && info->si_status == SIGKILL);
	mix_value(info->si_pid);
	close(pidfd);
	FAILS(ECHILD, syscall(SYS_wait4, -1, nothing, 0, NULL));
	FAILS(ESRCH, syscall(SYS_kill, child, 0));
}
