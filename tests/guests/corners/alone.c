/* What a program does after a call that nobody can follow: it fares as if it were alone. */
#include "corner.h"

#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

/* Makes a call that no follower can live through; it does nothing. */
static void part(void)
{
	DO(unshare(CLONE_FILES));
}

/* The number of whoever traces this process. */
static long tracer(void)
{
	static char text[4096];
	int fd = DO(open("/proc/self/status", O_RDONLY));
	long len = DO(read(fd, text, sizeof text - 1));
	text[len] = 0;
	close(fd);
	return strtol(strstr(text, "TracerPid:") + 10, NULL, 10);
}

/* Waits until nobody traces this process. */
static void be_let_go(void)
{
	for (int i = 0; tracer() != 0; i++) {
		CHECK(i < 3000);
		pass(10);
	}
}

corner(let_go_traces_itself)
{
	part();
	be_let_go();
	pid_t child = CHILD(DO(ptrace(PTRACE_TRACEME, 0, 0, 0)); raise(SIGUSR1); _exit(5));
	int status;
	DO(waitpid(child, &status, 0));
	CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGUSR1);
	DO(ptrace(PTRACE_CONT, child, 0, 0));
	say("%d", reap(child));
}

corner(let_go_with_children)
{
	int ready[2];
	DO(pipe(ready));
	pid_t before = CHILD(DO(write(ready[1], "x", 1)); be_let_go(); _exit(4));
	char byte;
	DO(read(ready[0], &byte, 1));
	part();
	pid_t after = CHILD(be_let_go(); _exit(5));
	be_let_go();
	say("%d", reap(before));
	say("%d", reap(after));
}

static void *wait_for_byte(void *fd)
{
	char byte;
	DO(read(*(int *)fd, &byte, 1));
	be_let_go();
	return NULL;
}

corner(let_go_with_threads)
{
	int pipes[2];
	DO(pipe(pipes));
	pthread_t threads[5];
	for (int i = 0; i < 5; i++)
		CHECK(pthread_create(&threads[i], NULL, wait_for_byte, &pipes[0]) == 0);
	part();
	be_let_go();
	DO(write(pipes[1], "abcde", 5));
	for (int i = 0; i < 5; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	say("all");
}

corner(let_go_waits_on)
{
	part();
	be_let_go();
	int epoll = DO(epoll_create1(0)), pair[2];
	struct epoll_event event;
	pid_t child = CHILD(pass(50));
	say("epoll_wait %s", told(epoll_wait(epoll, &event, 1, 300)));
	CHECK(reap(child) == 0);
	DO(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	struct timeval limit = { 0, 300000 };
	DO(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
	child = CHILD(pass(50));
	char byte;
	say("recv %s", told(recv(pair[0], &byte, 1, 0)));
	CHECK(reap(child) == 0);
}

corner(let_go_executes)
{
	part();
	be_let_go();
	say("%d", reap(CHILD(execl("/bin/sh", "sh", "-c", "exit 6", NULL))));
}

corner(signal_of_its_own_around_the_drop)
{
	part();
	say("%d", reap(CHILD(raise(SIGTERM); pass(60000))));
}

corner(signal_of_the_parent_around_the_drop)
{
	part();
	pid_t child = CHILD(for (;;) pause());
	DO(kill(child, SIGTERM));
	say("%d", reap(child));
}

static volatile int started;

static int start(void *unused)
{
	(void)unused;
	started = 1;
	return 0;
}

corner(thread_without_files_starts)
{
	static char stack[65536] __attribute__((aligned(16)));
	int flags = CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
	DO(clone(start, stack + sizeof stack, flags, NULL));
	for (int i = 0; !started; i++) {
		CHECK(i < 3000);
		pass(10);
	}
	say("started");
}

static void *never(void *unused)
{
	for (;;)
		pause();
	return unused;
}

corner(thread_without_files_among_others)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, never, NULL) == 0);
	static char stack[65536] __attribute__((aligned(16)));
	int flags = CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
	DO(clone(start, stack + sizeof stack, flags, NULL));
	for (int i = 0; !started; i++) {
		CHECK(i < 3000);
		pass(10);
	}
	say("started");
}

corner(own_counter_traps)
{
	/* An instruction that reads the processor's counter, and a return; not in this program's own code. */
	unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(code != MAP_FAILED);
	volatile unsigned char first = 0x0e;
	code[0] = first + 1;
	code[1] = 0x31;
	code[2] = 0xc3;
	DO(prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
	pid_t child = CHILD(((void (*)(void))code)());
	say("%d", reap(child));
	be_let_go();
	int mode = 0;
	DO(prctl(PR_GET_TSC, &mode));
	CHECK(mode == PR_TSC_SIGSEGV);
	say("%d", reap(CHILD(((void (*)(void))code)())));
}
