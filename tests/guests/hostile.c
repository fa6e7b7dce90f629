/*
 * A program that turns on its surroundings once it is the follower. It cannot tell by itself, and need not: the word
 * `marker` is set in the follower's memory from outside, which prints as "marker ADDRESS" before "ready".
 *
 *     go N check      look whether anything of what follows has happened
 *     go N ATTACK     unmarked: the same as check; marked: do it
 *
 * The attacks are the branches of attack(). What they reach for was there before the fork: a file, a connection, a pipe, a
 * shared mapping, the pid of the other version.
 *
 * rows: (none of its own)
 */
#include "guest.h"

#include <linux/io_uring.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

static volatile unsigned long marker;
static int file, connected[2], ends[2], shared_file;
static volatile unsigned *shared, *anonymous;
static char *low;

static void setup(void)
{
	file = DO(open("keep", O_RDWR | O_CREAT, 0644));
	CHECK(write(file, "kept", 4) == 4);
	int listener = DO(socket(AF_INET, SOCK_STREAM, 0));
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof in;
	DO(bind(listener, (struct sockaddr *)&in, len));
	DO(listen(listener, 1));
	DO(getsockname(listener, (struct sockaddr *)&in, &len));
	connected[0] = DO(socket(AF_INET, SOCK_STREAM, 0));
	DO(connect(connected[0], (struct sockaddr *)&in, len));
	connected[1] = DO(accept(listener, NULL, NULL));
	DO(pipe2(ends, O_NONBLOCK));
	shared_file = DO(open("shared", O_RDWR | O_CREAT, 0644));
	DO(ftruncate(shared_file, 4096));
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shared_file, 0);
	anonymous = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	/* Calls of the 32-bit kind reach only low addresses. */
	low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	CHECK(shared != MAP_FAILED && anonymous != MAP_FAILED && low != MAP_FAILED);
	strcpy(low, "keep");
	dprintf(1, "marker %lx\n", (unsigned long)&marker);
}

static void check(void)
{
	struct stat st;
	char byte;
	DO(stat("keep", &st));
	CHECK(st.st_size == 4 && st.st_nlink == 1);
	FAILS(ENOENT, stat("made", &st));
	FAILS(EAGAIN, recv(connected[1], &byte, 1, MSG_DONTWAIT));
	FAILS(EAGAIN, recv(connected[0], &byte, 1, MSG_DONTWAIT));
	FAILS(EAGAIN, read(ends[0], &byte, 1));
	unsigned in_file = 1;
	CHECK(pread(shared_file, &in_file, 4, 0) == 4);
	/* The follower's own copy may have changed. */
	if (!marker)
		CHECK(*shared == 0 && *anonymous == 0 && in_file == 0);
}

static long old_call(long nr, long a, long b, long c)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static int child_of_clone(void *arg)
{
	(void)arg;
	close(open("made", O_RDWR | O_CREAT, 0644));
	_exit(0);
}

static void attack(const char *word)
{
	static char stack[16384];
	if (strcmp(word, "write-file") == 0) {
		(void)!pwrite(file, "overwritten", 11, 0);
	} else if (strcmp(word, "create-file") == 0) {
		close(open("made", O_RDWR | O_CREAT, 0644));
	} else if (strcmp(word, "truncate") == 0) {
		(void)!ftruncate(file, 0);
	} else if (strcmp(word, "send") == 0) {
		send(connected[0], "hostile", 7, MSG_NOSIGNAL);
	} else if (strcmp(word, "write-pipe") == 0) {
		(void)!write(ends[1], "hostile", 7);
	} else if (strcmp(word, "shutdown") == 0) {
		shutdown(connected[0], SHUT_RDWR);
	} else if (strcmp(word, "close") == 0) {
		close(connected[0]);
	} else if (strcmp(word, "close-range") == 0) {
		syscall(SYS_close_range, 3, ~0u, 0);
	} else if (strcmp(word, "kill") == 0) {
		kill(getpid(), SIGKILL);
	} else if (strcmp(word, "kill-group") == 0) {
		kill(0, SIGTERM);
	} else if (strcmp(word, "stop") == 0) {
		kill(getpid(), SIGSTOP);
	} else if (strcmp(word, "unlink") == 0) {
		unlink("keep");
	} else if (strcmp(word, "rename") == 0) {
		rename("keep", "made");
	} else if (strcmp(word, "fork") == 0) {
		if (fork() == 0)
			child_of_clone(NULL);
	} else if (strcmp(word, "vfork") == 0) {
		clone(child_of_clone, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	} else if (strcmp(word, "thread") == 0) {
		clone(child_of_clone, stack + sizeof stack,
		      CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM, NULL);
	} else if (strcmp(word, "exec") == 0) {
		execl("/usr/bin/touch", "touch", "made", NULL);
	} else if (strcmp(word, "shared-file") == 0) {
		*shared = 1;
	} else if (strcmp(word, "shared-memory") == 0) {
		*anonymous = 1;
	} else if (strcmp(word, "map-shared") == 0) {
		unsigned *again = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, shared_file, 0);
		if (again != MAP_FAILED)
			*again = 1;
	} else if (strcmp(word, "other-memory") == 0) {
		unsigned one = 1;
		struct iovec here = { &one, 4 }, there = { (void *)shared, 4 };
		syscall(SYS_process_vm_writev, getpid(), &here, 1, &there, 1, 0);
	} else if (strcmp(word, "proc-memory") == 0) {
		char path[64];
		snprintf(path, sizeof path, "/proc/%d/mem", getpid());
		int fd = open(path, O_RDWR);
		unsigned one = 1;
		(void)!pwrite(fd, &one, 4, (off_t)(uintptr_t)shared);
	} else if (strcmp(word, "ring") == 0) {
		struct io_uring_params params;
		memset(&params, 0, sizeof params);
		syscall(SYS_io_uring_setup, 4, &params);
	} else if (strcmp(word, "trace") == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	} else if (strcmp(word, "old-call") == 0) {
		old_call(10 /* unlink */, (long)low, 0, 0);
	} else if (strcmp(word, "x32-call") == 0) {
		syscall(0x40000000 | SYS_unlink, low);
	} else if (strcmp(word, "exit") == 0) {
		_exit(0);
	} else if (strcmp(word, "crash") == 0) {
		*(volatile int *)8 = 1;
	} else if (strcmp(word, "trap") == 0) {
		__asm__ volatile("int3");
	} else if (strcmp(word, "spin") == 0) {
		for (;;)
			__asm__ volatile("" ::: "memory");
	} else if (strcmp(word, "limits") == 0) {
		uint64_t none[2] = { 0, 0 };
		syscall(SYS_prlimit64, getpid(), 7 /* RLIMIT_NOFILE */, none, NULL);
	} else if (strcmp(word, "unmap") == 0) {
		munmap((void *)shared, 4096);
		munmap((void *)anonymous, 4096);
	} else {
		fail_at(__FILE__, __LINE__, "no such attack: %s", word);
	}
}

static void round_of(long n, const char *word)
{
	(void)n;
	if (marker && strcmp(word, "check") != 0)
		attack(word);
	check();
}
