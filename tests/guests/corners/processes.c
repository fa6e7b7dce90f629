/* Processes and threads: fork, vfork, exec, wait, ends; locks that threads share. */
#include "corner.h"

#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/utsname.h>

extern char **environ;

/* What this program does when a corner executes it. */
int executed(int argc, char **argv)
{
	if (strcmp(argv[0], "exit") == 0)
		return atoi(argv[1]);
	if (strcmp(argv[0], "say") == 0) {
		for (int i = 1; i < argc; i++)
			say("%s", argv[i]);
		return 0;
	}
	if (strcmp(argv[0], "descriptors") == 0) {
		for (int i = 1; i < argc; i++)
			say("%s", told(fcntl(atoi(argv[i]), F_GETFD)));
		return 0;
	}
	if (strcmp(argv[0], "signals") == 0) {
		struct sigaction a;
		sigset_t now;
		DO(sigaction(SIGUSR1, NULL, &a));
		DO(sigprocmask(SIG_BLOCK, NULL, &now));
		say("handled: %s", a.sa_handler == SIG_DFL ? "default" : a.sa_handler == SIG_IGN ? "ignored" : "kept");
		DO(sigaction(SIGUSR2, NULL, &a));
		say("ignored: %s", a.sa_handler == SIG_DFL ? "default" : a.sa_handler == SIG_IGN ? "ignored" : "kept");
		say("blocked: %d pending: %d", sigismember(&now, SIGUSR1), sigpending(&now) == 0 && sigismember(&now, SIGUSR1));
		return 0;
	}
	if (strcmp(argv[0], "state") == 0) {
		char name[16];
		DO(prctl(PR_GET_NAME, name));
		mode_t mask = umask(0);
		say("name %s umask %o cwd %s", name, mask, access("marker", F_OK) == 0 ? "kept" : "lost");
		say("pid %s", getpid() == atoi(argv[1]) ? "kept" : "other");
		return 0;
	}
	if (strcmp(argv[0], "environment") == 0) {
		for (char **one = environ; *one; one++)
			if (strncmp(*one, "CORNER_", 7) == 0)
				say("%s", *one);
		return 0;
	}
	if (strcmp(argv[0], "copy") == 0) {
		char b[100];
		long n;
		while ((n = read(0, b, sizeof b)) > 0)
			CHECK(write(1, b, n) == n);
		return 0;
	}
	return 99;
}

static void run_again(char *a, char *b, char *c)
{
	char *argv[] = { "corners", "--executed", a, b, c, NULL };
	execv("/proc/self/exe", argv);
	_exit(98);
}

corner(exit_codes)
{
	say("%d %d %d", reap(CHILD(_exit(0))), reap(CHILD(_exit(77))), reap(CHILD(_exit(256 + 3))));
}

corner(exit_handlers)
{
	say("%d", reap(CHILD(exit(5))));
}

corner(exit_this)
{
	say("leaving");
	_exit(0);
}

corner(fork_copies_memory)
{
	int x = 1;
	say("%d", reap(CHILD(x = 5; _exit(x))));
	say("%d", x);
}

corner(fork_pids)
{
	pid_t own = getpid();
	say("%d", reap(CHILD(_exit(getppid() == own ? 1 : 2))));
}

corner(fork_deep)
{
	pid_t c = CHILD(pid_t d = CHILD(pid_t e = CHILD(_exit(3)); _exit(reap(e) + 1)); _exit(reap(d) + 1));
	say("%d", reap(c));
}

corner(fork_many)
{
	pid_t c[20];
	int sum = 0;
	for (int i = 0; i < 20; i++)
		c[i] = CHILD(_exit(i));
	for (int i = 0; i < 20; i++)
		sum += reap(c[i]);
	say("%d", sum);
}

/* A signal that waits has a fork made again. */
corner(fork_while_signalled)
{
	int sum = 0;
	on(SIGALRM, SA_RESTART);
	for (int i = 0; i < 40; i++) {
		/* Soon: before, in or behind the fork. */
		struct itimerval soon = { { 0, 0 }, { 0, 1 + 15 * i } };
		DO(setitimer(ITIMER_REAL, &soon, NULL));
		sum += reap(CHILD(_exit(i)));
	}
	say("%d %d", sum, hits[SIGALRM] > 0);
}

/* One that fails makes nothing. */
corner(fork_refused)
{
	struct rlimit none = { 0, 0 };
	if (getuid() == 0)
		DO(setuid(65534));
	DO(setrlimit(RLIMIT_NPROC, &none));
	FAILS(EAGAIN, fork());
	say("on");
}

corner(fork_closes_nothing)
{
	int e[2];
	char b;
	DO(pipe(e));
	pid_t c = CHILD(close(e[1]); _exit(read(e[0], &b, 1) == 1 ? b : 0));
	CHECK(write(e[1], "A", 1) == 1);
	say("%d", reap(c));
}

corner(vfork_shares_memory)
{
	volatile int x = 1;
	pid_t c = vfork();
	if (c == 0) {
		x = 9;
		_exit(4);
	}
	CHECK(c > 0);
	say("%d %d", x, reap(c));
}

corner(vfork_exec)
{
	pid_t c = vfork();
	if (c == 0) {
		char *argv[] = { "corners", "--executed", "exit", "11", NULL };
		execv("/proc/self/exe", argv);
		_exit(1);
	}
	CHECK(c > 0);
	say("%d", reap(c));
}

corner(vfork_exec_fails)
{
	volatile int error = 0;
	pid_t c = vfork();
	if (c == 0) {
		execl("./no-such-program", "x", NULL);
		error = errno;
		_exit(1);
	}
	CHECK(c > 0);
	int code = reap(c);
	say("%d %s", code, strerrorname_np(error));
}

corner(clone_process)
{
	long c = DO(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0));
	if (c == 0)
		_exit(13);
	say("%d", reap((pid_t)c));
}

corner(clone3_process)
{
	struct clone_args a = { .exit_signal = SIGCHLD };
	long c = DO(syscall(SYS_clone3, &a, sizeof a));
	if (c == 0)
		_exit(14);
	say("%d", reap((pid_t)c));
}

corner(clone_pidfd)
{
	int fd = -1;
	struct clone_args a = { .flags = CLONE_PIDFD, .pidfd = (uintptr_t)&fd, .exit_signal = SIGCHLD };
	long c = DO(syscall(SYS_clone3, &a, sizeof a));
	if (c == 0)
		_exit(15);
	siginfo_t i;
	CHECK(fd >= 0);
	DO(waitid(3 /* P_PIDFD */, fd, &i, WEXITED));
	say("%d %d", i.si_status, i.si_pid == c);
}

corner(clone_no_exit_signal)
{
	long c = DO(syscall(SYS_clone, 0, NULL, NULL, NULL, 0));
	if (c == 0)
		_exit(16);
	int s;
	say("%s", told(waitpid((pid_t)c, &s, 0)));
	CHECK(waitpid((pid_t)c, &s, __WALL) == c);
	say("%d", WEXITSTATUS(s));
}

corner(clone_parent_tid)
{
	int place = 0;
	long c = DO(syscall(SYS_clone, CLONE_PARENT_SETTID | SIGCHLD, NULL, &place, NULL, 0));
	if (c == 0)
		_exit(0);
	say("%d", place == c);
	reap((pid_t)c);
}

corner(wait_nobody)
{
	say("%s", told(wait(NULL)));
	say("%s", told(waitpid(-1, NULL, WNOHANG)));
	say("%s", told(waitpid(getpid(), NULL, 0)));
	say("%s", told(waitpid(-1, NULL, 0x7777)));
}

corner(wait_no_hang)
{
	int e[2];
	char b;
	DO(pipe(e));
	pid_t c = CHILD(close(e[1]); (void)!read(e[0], &b, 1));
	say("%d", waitpid(c, NULL, WNOHANG));
	close(e[1]);
	say("%d", reap(c));
}

corner(wait_any)
{
	pid_t c = CHILD(_exit(21));
	int s;
	CHECK(wait(&s) == c);
	say("%d", WEXITSTATUS(s));
}

corner(wait_group)
{
	pid_t c = CHILD(setpgid(0, 0); _exit(22));
	setpgid(c, c);
	int s;
	CHECK(waitpid(-c, &s, 0) == c);
	say("%d", WEXITSTATUS(s));
}

corner(waitid_peeks)
{
	siginfo_t i;
	pid_t c = CHILD(_exit(23));
	DO(waitid(P_PID, c, &i, WEXITED | WNOWAIT));
	say("%d %d", i.si_code == CLD_EXITED, i.si_status);
	say("%d", reap(c));
}

corner(waitid_killed)
{
	siginfo_t i;
	pid_t c = CHILD(raise(SIGKILL));
	DO(waitid(P_ALL, 0, &i, WEXITED));
	say("%d %d %d", i.si_code == CLD_KILLED, i.si_status, i.si_pid == c);
}

corner(waitid_stopped)
{
	siginfo_t i;
	int e[2];
	char b;
	DO(pipe(e));
	pid_t c = CHILD(close(e[1]); raise(SIGSTOP); (void)!read(e[0], &b, 1); _exit(1));
	DO(waitid(P_PID, c, &i, WSTOPPED));
	say("%d %d", i.si_code == CLD_STOPPED, i.si_status);
	DO(kill(c, SIGCONT));
	DO(waitid(P_PID, c, &i, WCONTINUED));
	say("%d", i.si_code == CLD_CONTINUED);
	close(e[1]);
	say("%d", reap(c));
}

corner(waitid_nothing_yet)
{
	int e[2];
	char b;
	siginfo_t i;
	DO(pipe(e));
	pid_t c = CHILD(close(e[1]); (void)!read(e[0], &b, 1));
	memset(&i, 0x55, sizeof i);
	DO(waitid(P_PID, c, &i, WEXITED | WNOHANG));
	say("%d", i.si_pid);
	close(e[1]);
	reap(c);
}

corner(waitid_errors)
{
	siginfo_t i;
	say("%s %s", told(waitid(P_PID, 1, &i, WEXITED)), told(waitid(P_PID, getpid(), &i, 0)));
	say("%s", told(waitid(P_ALL, 0, &i, WEXITED)));
}

corner(wait4_usage)
{
	struct rusage u;
	pid_t c = CHILD(_exit(2));
	int s;
	memset(&u, 0x7f, sizeof u);
	CHECK(wait4(c, &s, 0, &u) == c);
	say("%d %d", WEXITSTATUS(s), u.ru_utime.tv_sec < 100);
}

corner(wait_status_bad_address)
{
	pid_t c = CHILD(_exit(2));
	say("%s", told(waitpid(c, nowhere(), 0)));
	say("%s", told(waitpid(c, NULL, 0)));
}

corner(orphan_gets_other_parent)
{
	int e[2];
	char b;
	DO(pipe(e));
	pid_t own = getpid();
	pid_t c = CHILD(pid_t me = getpid(); pid_t g = CHILD(while (getppid() == me) usleep(1000);
							     b = getppid() == own ? 'b' : 'a'; CHECK(write(e[1], &b, 1) == 1));
			(void)g);
	reap(c);
	CHECK(read(e[0], &b, 1) == 1);
	say("%c", b);
}

corner(subreaper_adopts)
{
	int e[2];
	char b;
	DO(pipe(e));
	DO(prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid_t own = getpid();
	pid_t c = CHILD(pid_t me = getpid();
			pid_t g = CHILD(while (getppid() == me) usleep(1000); b = getppid() == own ? 'y' : 'n';
					CHECK(write(e[1], &b, 1) == 1); _exit(8));
			(void)g);
	reap(c);
	CHECK(read(e[0], &b, 1) == 1);
	int s;
	CHECK(wait(&s) > 0);
	say("%c %d", b, WEXITSTATUS(s));
}

corner(exec_self)
{
	say("before");
	run_again("say", "one", "two words");
}

corner(exec_fails)
{
	char *none[] = { "x", NULL };
	file_of("plain", "text");
	say("%s %s", told(execv("./nothing", none)), told(execv("./plain", none)));
	say("%s", told(execv(".", none)));
	chmod("plain", 0755);
	say("%s", told(execv("./plain", none)));
	say("%s", told(execve(nowhere(), none, NULL)));
}

corner(exec_script)
{
	int fd = file_of("script", "#!/bin/sh\necho \"from a script: $1\"\nexit 6\n");
	fchmod(fd, 0755);
	close(fd);
	say("%d", reap(CHILD(execl("./script", "script", "word", NULL))));
}

corner(exec_script_chain)
{
	int fd = file_of("a", "#!/bin/sh -e\nfalse\necho never\n");
	fchmod(fd, 0755);
	close(fd);
	say("%d", reap(CHILD(execl("./a", "a", NULL))));
}

corner(exec_closes)
{
	int a = DO(dup(0)), b = DO(fcntl(0, F_DUPFD_CLOEXEC, 3));
	char an[12], bn[12];
	snprintf(an, 12, "%d", a);
	snprintf(bn, 12, "%d", b);
	run_again("descriptors", an, bn);
}

corner(exec_signals)
{
	on(SIGUSR1, 0);
	signal(SIGUSR2, SIG_IGN);
	block(SIGUSR1);
	DO(raise(SIGUSR1));
	run_again("signals", NULL, NULL);
}

corner(exec_keeps)
{
	char pid[12];
	close(file_of("marker", ""));
	umask(027);
	prctl(PR_SET_NAME, "renamed");
	snprintf(pid, 12, "%d", getpid());
	run_again("state", pid, NULL);
}

corner(exec_environment)
{
	char *argv[] = { "corners", "--executed", "environment", NULL },
	     *env[] = { "CORNER_A=1", "OTHER=2", "CORNER_B=two words", NULL };
	execve("/proc/self/exe", argv, env);
}

corner(exec_no_arguments)
{
	say("%d", reap(CHILD(char *none[] = { NULL }; execve("/proc/self/exe", none, none); _exit(97))));
}

corner(exec_by_descriptor)
{
	int fd = DO(open("/proc/self/exe", O_RDONLY));
	char *argv[] = { "corners", "--executed", "exit", "31", NULL };
	say("%d", reap(CHILD(fexecve(fd, argv, environ); _exit(96))));
}

corner(exec_long_argument)
{
	char *long_word = malloc(200000);
	memset(long_word, 'w', 200000);
	long_word[199999] = 0;
	char *argv[] = { "x", long_word, NULL };
	say("%s", told(execv("/proc/self/exe", argv)));
	long_word[100000] = 0;
	char *fits[] = { "corners", "--executed", "exit", "7", long_word, NULL };
	say("%d", reap(CHILD(execv("/proc/self/exe", fits))));
}

static void *sleeps_long(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return NULL;
}

corner(exec_with_threads)
{
	pthread_t t;
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&t, NULL, sleeps_long, NULL) == 0);
	run_again("say", "threads are gone", NULL);
}

static void *executes(void *arg)
{
	(void)arg;
	run_again("say", "executed by a thread", NULL);
	return NULL;
}

corner(exec_by_thread)
{
	pthread_t t;
	CHECK(pthread_create(&t, NULL, executes, NULL) == 0);
	pthread_join(t, NULL);
}

corner(spawn_reads_writes)
{
	int in[2], out[2];
	char b[20] = "";
	pid_t c;
	DO(pipe(in));
	DO(pipe(out));
	posix_spawn_file_actions_t acts;
	posix_spawn_file_actions_init(&acts);
	posix_spawn_file_actions_adddup2(&acts, in[0], 0);
	posix_spawn_file_actions_adddup2(&acts, out[1], 1);
	posix_spawn_file_actions_addclose(&acts, in[1]);
	posix_spawn_file_actions_addclose(&acts, out[0]);
	char *argv[] = { "corners", "--executed", "copy", NULL };
	CHECK(posix_spawn(&c, "/proc/self/exe", &acts, NULL, argv, environ) == 0);
	close(in[0]);
	close(out[1]);
	CHECK(write(in[1], "through a child", 15) == 15);
	close(in[1]);
	long n, got = 0;
	while ((n = read(out[0], b + got, 19 - got)) > 0)
		got += n;
	say("%s %d", b, reap(c));
}

corner(spawn_fails)
{
	pid_t c;
	char *argv[] = { "x", NULL };
	say("%s", strerrorname_np(posix_spawn(&c, "./nothing", NULL, NULL, argv, environ)));
}

corner(system_shell)
{
	say("%d", WEXITSTATUS(system("echo from the shell; exit 12")));
	say("%d", system(NULL) != 0);
}

corner(popen_reads)
{
	FILE *p = popen("printf 'a\\nb\\n' | sort -r", "r");
	char b[20];
	while (fgets(b, sizeof b, p))
		say("%c", b[0]);
	say("%d", pclose(p));
}

corner(pidfd_of_child)
{
	pid_t c = CHILD(for (;;) pause());
	int fd = (int)DO(syscall(SYS_pidfd_open, c, 0));
	say("%s", told(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0)));
	DO(syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0));
	say("%d", reap(c));
	say("%s", told(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0)));
	say("%s", told(syscall(SYS_pidfd_open, -1, 0)));
}

corner(groups_and_sessions)
{
	pid_t c = CHILD(pid_t s = setsid(); _exit(s == getpid() && getsid(0) == s && getpgrp() == s ? 1 : 2));
	say("%d", reap(c));
	c = CHILD(DO(setpgid(0, 0)); _exit(setsid() == -1 && errno == EPERM && getpgid(0) == getpid() ? 3 : 4));
	say("%d", reap(c));
	c = CHILD(_exit(setpgid(0, 99999999) == -1 ? errno : 0));
	say("%s", strerrorname_np(reap(c)));
}

corner(users_dropped)
{
	say("%d", reap(CHILD(if (setgid(65534) != 0 || setuid(65534) != 0) _exit(9);
			     _exit(setuid(0) == -1 && getuid() == 65534 && geteuid() == 65534 ? 1 : 2))));
}

corner(users_saved)
{
	uid_t r, e, s;
	say("%d", reap(CHILD(if (setresuid(1, 2, 3) != 0) _exit(9); getresuid(&r, &e, &s); _exit(r * 100 + e * 10 + s))));
}

corner(groups_of_user)
{
	gid_t got[4], set[2] = { 7, 8 };
	say("%d", reap(CHILD(if (setgroups(2, set) != 0) _exit(9); int n = getgroups(4, got);
			     _exit(n == 2 && got[0] == 7 && getgroups(1, got) == -1 && errno == EINVAL ? 1 : 2))));
}

static void *counts(void *arg)
{
	for (int i = 0; i < 2000; i++)
		__atomic_add_fetch((int *)arg, 1, __ATOMIC_SEQ_CST);
	return arg;
}

corner(threads_count)
{
	pthread_t t[8];
	int n = 0;
	for (int i = 0; i < 8; i++)
		CHECK(pthread_create(&t[i], NULL, counts, &n) == 0);
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	say("%d", n);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn;
static void *plays(void *arg)
{
	int own = *(int *)arg;
	for (int i = 0; i < 5; i++) {
		pthread_mutex_lock(&lock);
		while (turn % 3 != own)
			pthread_cond_wait(&changed, &lock);
		say("%d", turn++);
		pthread_cond_broadcast(&changed);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

corner(threads_take_turns)
{
	pthread_t t[3];
	int n[3] = { 0, 1, 2 };
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&t[i], NULL, plays, &n[i]) == 0);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

static void *returns(void *arg)
{
	return arg;
}

corner(threads_come_and_go)
{
	long sum = 0;
	for (long i = 0; i < 50; i++) {
		pthread_t t;
		void *r;
		CHECK(pthread_create(&t, NULL, returns, (void *)i) == 0);
		pthread_join(t, &r);
		sum += (long)r;
	}
	say("%ld", sum);
}

static void cleaned(void *arg)
{
	say("cleaned %s", (char *)arg);
}

static void *cancelled(void *arg)
{
	pthread_cleanup_push(cleaned, "up");
	char b;
	(void)!read(*(int *)arg, &b, 1);
	pthread_cleanup_pop(0);
	return NULL;
}

corner(thread_cancelled)
{
	int e[2];
	pthread_t t;
	void *r;
	DO(pipe(e));
	CHECK(pthread_create(&t, NULL, cancelled, &e[0]) == 0);
	pass(20);
	CHECK(pthread_cancel(t) == 0);
	pthread_join(t, &r);
	say("%d", r == PTHREAD_CANCELED);
}

static void *detached(void *arg)
{
	CHECK(write(*(int *)arg, "d", 1) == 1);
	return NULL;
}

corner(thread_detached)
{
	int e[2];
	char b;
	pthread_t t;
	DO(pipe(e));
	CHECK(pthread_create(&t, NULL, detached, &e[1]) == 0 && pthread_detach(t) == 0);
	CHECK(read(e[0], &b, 1) == 1);
	say("%c", b);
}

static pthread_barrier_t barrier;
static void *meets(void *arg)
{
	int r = pthread_barrier_wait(&barrier);
	if (r != 0)
		__atomic_add_fetch((int *)arg, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

corner(thread_barrier)
{
	pthread_t t[4];
	int serial = 0;
	pthread_barrier_init(&barrier, NULL, 4);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&t[i], NULL, meets, &serial) == 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	say("%d", serial);
}

static void *main_ends(void *arg)
{
	pthread_join(*(pthread_t *)arg, NULL);
	/* What a process without its first thread reads and writes is looked at like before. */
	int ends[2];
	char text[32] = "";
	DO(pipe(ends));
	CHECK(write(ends[1], "through a pipe", 14) == 14);
	CHECK(read(ends[0], text, sizeof text) == 14);
	struct timespec moment = { .tv_nsec = 20000000 };
	/* The join is over before the first thread has left the kernel. */
	nanosleep(&moment, NULL);
	CHECK(write(ends[1], "and another", 11) == 11);
	char other[32] = "";
	CHECK(read(ends[0], other, sizeof other) == 11);
	say("after main %s %s", text, other);
	_exit(17);
	return NULL;
}

corner_that_ends(main_thread_ends_first, 17)
{
	static pthread_t self;
	self = pthread_self();
	pthread_t t;
	CHECK(pthread_create(&t, NULL, main_ends, &self) == 0);
	pthread_exit(NULL);
}

static void *ends_all(void *arg)
{
	(void)arg;
	_exit(18);
	return NULL;
}

corner_that_ends(thread_ends_process, 18)
{
	pthread_t t;
	CHECK(pthread_create(&t, NULL, ends_all, NULL) == 0);
	for (;;)
		pause();
}

static void *fork_in_thread(void *arg)
{
	*(int *)arg = reap(CHILD(_exit(19)));
	return NULL;
}

corner(fork_by_thread)
{
	pthread_t t;
	int code = 0;
	CHECK(pthread_create(&t, NULL, fork_in_thread, &code) == 0);
	pthread_join(t, NULL);
	say("%d", code);
}

static pthread_mutex_t robust;
static void *dies_with_lock(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&robust);
	return NULL;
}

corner(robust_owner_died)
{
	pthread_mutexattr_t a;
	pthread_t t;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&robust, &a);
	CHECK(pthread_create(&t, NULL, dies_with_lock, NULL) == 0);
	pthread_join(t, NULL);
	int got = pthread_mutex_lock(&robust);
	say("%s", strerrorname_np(got));
	say("%d %d", pthread_mutex_consistent(&robust), pthread_mutex_unlock(&robust));
	say("%d", pthread_mutex_trylock(&robust));
}

corner(mutex_kinds)
{
	pthread_mutexattr_t a;
	pthread_mutex_t m;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&m, &a);
	CHECK(pthread_mutex_lock(&m) == 0);
	say("%s", strerrorname_np(pthread_mutex_lock(&m)));
	say("%d %s", pthread_mutex_unlock(&m), strerrorname_np(pthread_mutex_unlock(&m)));
}

corner(condition_times_out)
{
	struct timespec t;
	DO(clock_gettime(CLOCK_REALTIME, &t));
	t.tv_nsec += 5000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&lock);
	int got = 0;
	while (got == 0)
		got = pthread_cond_timedwait(&changed, &lock, &t);
	say("%s", strerrorname_np(got));
	pthread_mutex_unlock(&lock);
}

corner(futex_forms)
{
	static uint32_t word = 5;
	struct timespec t = { 0, 2000000 };
	say("%s", told(syscall(SYS_futex, &word, 0, 4, NULL)));
	say("%s", told(syscall(SYS_futex, &word, 128, 5, &t)));
	say("%s", told(syscall(SYS_futex, &word, 1, 5)));
	say("%s", told(syscall(SYS_futex, nowhere(), 0, 0, &t)));
	say("%s", told(syscall(SYS_futex, (char *)&word + 1, 0, 0, &t)));
	say("%s", told(syscall(SYS_futex, &word, 77, 0)));
}

corner(thread_local_values)
{
	static __thread int own = 3;
	own++;
	say("%d %d", own, reap(CHILD(own++; _exit(own))));
}
static void before(void)
{
	say("prepare");
}
static void in_parent(void)
{
	say("parent");
}
corner(fork_handlers)
{
	pthread_atfork(before, in_parent, NULL);
	pid_t c = fork();
	if (c == 0)
		_exit(1);
	say("%d", reap(c));
}

corner(clone_shares_files_refused)
{
	long c = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0);
	if (c == 0)
		_exit(close(0) == 0 ? 5 : 6);
	CHECK(c > 0);
	say("%d", reap((pid_t)c));
	say("%s", told(fcntl(0, F_GETFD)));
}
corner(unshare_files)
{
	int fd = DO(dup(0));
	say("%s", told(unshare(CLONE_FILES)));
	close(fd);
}

corner(scheduling_questions)
{
	struct sched_param p = { 99 };
	say("%s %d", told(sched_getparam(0, &p)), p.sched_priority);
	say("%s %s", told(sched_getscheduler(0)), told(sched_get_priority_max(SCHED_FIFO)));
	say("%s", told(sched_setscheduler(0, 77, &p)));
	say("%s", told(sched_yield()));
	cpu_set_t c;
	say("%s", told(sched_getaffinity(0, sizeof c, &c)));
}

corner(nice_values)
{
	say("%d", reap(CHILD(errno = 0; int n = nice(5); _exit(n))));
	say("%s", told(getpriority(PRIO_PROCESS, 0)));
	say("%s", told(setpriority(PRIO_PROCESS, 99999999, 0)));
	DO(setpriority(PRIO_PROCESS, getpid(), 3));
	say("%s", told(getpriority(PRIO_PROCESS, 0)));
}
corner(uname_forms)
{
	struct utsname u;
	DO(uname(&u));
	say("%s %d", u.sysname, strlen(u.release) > 3);
	say("%s", told(uname(nowhere())));
}
