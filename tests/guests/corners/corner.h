/*
 * What every corner shares.
 *
 * A corner is a small program that looks at one call, or one odd way to use it. Many stand in one file, each as
 *
 *     corner(name)
 *     {
 *             …
 *     }
 *
 * and `corners NAME` runs one of them in the present folder, which should be empty; `corners --list` names them all, each with
 * the code that it ends with. A
 * corner prints what it saw with say(), always the same: no pids, addresses or times. What must hold is checked; a check that
 * fails prints "FAILED file:line: text" and ends the program with 1. Otherwise it ends with 0, or as corner_that_ends() says.
 *
 * The arguments of one say() are evaluated in an order of the compiler's choice (from right to left, in fact).
 *
 * Nothing may depend on equal addresses, on scheduling, or on how long something takes.
 */
#ifndef CORNER_H
#define CORNER_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct corner {
	const char *name;
	void (*run)(void);
	/* How the program ends: its exit code, or 128 and the signal. */
	int ends;
	/* The compiler may keep larger things apart; these lie side by side. */
} __attribute__((aligned(32)));

#define corner_that_ends(id, code)                                                                                             \
	static void corner_##id(void);                                                                                         \
	static const struct corner entry_##id __attribute__((used, section("corners"))) = { #id, corner_##id, code };          \
	static void corner_##id(void)

#define corner(id) corner_that_ends(id, 0)

#define UNUSED __attribute__((unused))

__attribute__((format(printf, 1, 2))) UNUSED static void say(const char *format, ...)
{
	char text[600];
	va_list args;
	va_start(args, format);
	int len = vsnprintf(text, sizeof text - 1, format, args);
	va_end(args);
	text[len++] = '\n';
	if (write(1, text, len) != len)
		_exit(3);
}

__attribute__((noreturn, format(printf, 3, 4))) UNUSED static void fail_at(const char *file, int line, const char *format, ...)
{
	char text[400];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	const char *base = strrchr(file, '/');
	say("FAILED %s:%d: %s", base ? base + 1 : file, line, text);
	_exit(1);
}

#define CHECK(condition)                                                                                                       \
	do {                                                                                                                   \
		if (!(condition))                                                                                              \
			fail_at(__FILE__, __LINE__, "%s (errno %d)", #condition, errno);                                       \
	} while (0)

/* Makes a call that must succeed and returns its result. */
#define DO(call)                                                                                                               \
	({                                                                                                                     \
		long result_ = (long)(call);                                                                                   \
		if (result_ == -1)                                                                                             \
			fail_at(__FILE__, __LINE__, "%s: %s", #call, strerror(errno));                                         \
		result_;                                                                                                       \
	})

/* Makes a call that must fail with this error. */
#define FAILS(error, call)                                                                                                     \
	do {                                                                                                                   \
		errno = 0;                                                                                                     \
		long result_ = (long)(call);                                                                                   \
		if (result_ != -1 || errno != (error))                                                                         \
			fail_at(__FILE__, __LINE__, "%s: %ld, errno %d, expected %s", #call, result_, errno, #error);          \
	} while (0)

/* What a call said, for the output: its result, or the name of its error. */
UNUSED static const char *told(long result)
{
	static char text[4][40];
	static int next;
	char *here = text[next++ % 4];
	if (result == -1)
		snprintf(here, 40, "%s", strerrorname_np(errno));
	else
		snprintf(here, 40, "%ld", result);
	return here;
}

/* Runs a block in a child process and returns its pid; the child ends with 0 unless the block says otherwise. */
#define CHILD(...)                                                                                                             \
	({                                                                                                                     \
		pid_t child_ = DO(fork());                                                                                     \
		if (child_ == 0) {                                                                                             \
			__VA_ARGS__;                                                                                           \
			_exit(0);                                                                                              \
		}                                                                                                              \
		child_;                                                                                                        \
	})

/* Waits for a child and returns its exit code, or 128 and the signal that ended it. */
UNUSED static int reap(pid_t pid)
{
	int status;
	pid_t got;
	while ((got = waitpid(pid, &status, 0)) == -1 && errno == EINTR)
		;
	CHECK(got == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Returns `len` bytes that end at a page that is not mapped. */
UNUSED static void *guarded(size_t len)
{
	size_t pages = (len + 4095) / 4096 + 1;
	char *start = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(start != MAP_FAILED);
	char *end = start + (pages - 1) * 4096;
	CHECK(munmap(end, 4096) == 0);
	return end - len;
}

/* An address that nothing is mapped at. */
UNUSED static void *nowhere(void)
{
	return (char *)guarded(1) + 1;
}

/* Makes a file with this text and returns it open, at its start. */
UNUSED static int file_of(const char *name, const char *text)
{
	int fd = DO(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644));
	size_t len = strlen(text);
	CHECK(write(fd, text, len) == (ssize_t)len);
	CHECK(lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

/* What a file holds. */
UNUSED static const char *text_of(const char *name)
{
	static char text[300];
	int fd = DO(open(name, O_RDONLY));
	long len = DO(read(fd, text, sizeof text - 1));
	text[len] = 0;
	close(fd);
	return text;
}

static volatile sig_atomic_t hits[65] UNUSED, last_value UNUSED, last_code UNUSED;

UNUSED static void count_hit(int number, siginfo_t *info, void *context)
{
	(void)context;
	hits[number]++;
	last_value = info->si_value.sival_int;
	last_code = info->si_code;
}

/* Counts the deliveries of a signal. */
UNUSED static void on(int number, int flags)
{
	struct sigaction action = { .sa_flags = SA_SIGINFO | flags };
	action.sa_sigaction = count_hit;
	DO(sigaction(number, &action, NULL));
}

UNUSED static void block(int number)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, number);
	DO(sigprocmask(SIG_BLOCK, &set, NULL));
}

UNUSED static void unblock(int number)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, number);
	DO(sigprocmask(SIG_UNBLOCK, &set, NULL));
}

UNUSED static sigset_t only(int number)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, number);
	return set;
}

/* Sleeps for so many milliseconds, whatever comes. */
UNUSED static void pass(int milliseconds)
{
	struct timespec left = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	while (nanosleep(&left, &left) == -1 && errno == EINTR)
		;
}

#endif
