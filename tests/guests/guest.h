/*
 * What every guest shares.
 *
 * A guest is a small program that checks itself. It is started with a scratch folder as its only argument, makes that its
 * working folder, calls setup() and writes "ready". Then it takes lines from standard input:
 *
 *     go N [WORD]     make the calls of round N, check them, answer "ok N HASH"
 *     (end of file)   leave with status 0
 *
 * A check that fails answers "FAILED file:line: text" and leaves with status 1.
 *
 * HASH covers everything that the calls gave back (mix() is fed with results and with the memory that the kernel wrote). In
 * a follower those come from the leader's records, so a call whose memory is not supplied, or supplied in the wrong length,
 * makes the follower answer with another hash: the answer is an output, and it is compared. For the same reason a guest
 * decides nothing by what is its own alone: addresses, scheduling, the timestamp counter.
 *
 * Memory that is handed to the kernel comes from at_edge(): its last byte is the last of its page and the next page is not
 * mapped, so a copy that is too long fails at once, and what the kernel need not write is checked to be untouched.
 *
 * The comment at the head of each guest says "rows:" and names the rows of the system-call table that it exercises.
 */
#ifndef GUEST_H
#define GUEST_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define FILL 0xa5

static void setup(void);
static void round_of(long n, const char *word);

static uint64_t hash = 0xcbf29ce484222325;

__attribute__((noreturn, format(printf, 3, 4))) static void fail_at(const char *file, int line, const char *format, ...)
{
	char text[400];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	dprintf(1, "FAILED %s:%d: %s\n", file, line, text);
	_exit(1);
}

/* Ends the guest unless the condition holds. */
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
			fail_at(__FILE__, __LINE__, "%s: %ld, errno %d, expected errno %d", #call, result_, errno, (error));   \
		mix_value(errno);                                                                                              \
	} while (0)

/* The same with the number of the call, for those that the library has no function for, or would make another call of. */
#define SYS(name, ...) DO(syscall(SYS_##name, ##__VA_ARGS__))

static void mix(const void *data, size_t len)
{
	const unsigned char *bytes = data;
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3;
}

__attribute__((unused)) static long mix_value(long value)
{
	mix(&value, sizeof value);
	return value;
}

/* Makes a call that must succeed and mixes its result. */
#define MIXED(call) mix_value(DO(call))

static struct {
	void *start;
	size_t len;
} edges[4096];
static unsigned edge_count;

/* Returns `len` bytes (all FILL) that end at an unmapped page; they last until the round is over. */
static void *at_edge(size_t len)
{
	size_t pages = (len + 4095) / 4096 + 1;
	CHECK(edge_count < sizeof edges / sizeof edges[0]);
	unsigned char *start = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(start != MAP_FAILED);
	unsigned char *end = start + (pages - 1) * 4096;
	memset(start, FILL, (pages - 1) * 4096);
	CHECK(munmap(end, 4096) == 0);
	edges[edge_count].start = start;
	edges[edge_count].len = (pages - 1) * 4096;
	edge_count++;
	return end - len;
}

/* Returns a copy of the bytes that ends at an unmapped page. */
__attribute__((unused)) static void *copied(const void *data, size_t len)
{
	return memcpy(at_edge(len), data, len);
}

/* Returns a copy of the string whose NUL is the last byte before an unmapped page. */
__attribute__((unused)) static char *edge(const char *text)
{
	return copied(text, strlen(text) + 1);
}

__attribute__((format(printf, 1, 2), unused)) static char *named(const char *format, ...)
{
	char text[300];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return edge(text);
}

/* Checks that the kernel wrote nothing there. */
__attribute__((unused)) static int untouched(const void *data, size_t len)
{
	const unsigned char *bytes = data;
	for (size_t i = 0; i < len; i++)
		if (bytes[i] != FILL)
			return 0;
	return 1;
}

static void forget_edges(void)
{
	while (edge_count > 0) {
		edge_count--;
		munmap(edges[edge_count].start, edges[edge_count].len);
	}
}

int main(int argc, char **argv)
{
	if (argc != 2 || chdir(argv[1]) != 0) {
		dprintf(2, "usage: %s SCRATCH-FOLDER\n", argv[0]);
		return 2;
	}
	setup();
	dprintf(1, "ready\n");
	for (;;) {
		char line[256], word[200];
		long n = 0;
		ssize_t got;
		do
			got = read(0, line, sizeof line - 1);
		while (got < 0 && errno == EINTR);
		if (got <= 0)
			return 0;
		line[got] = 0;
		word[0] = 0;
		if (sscanf(line, "go %ld %199s", &n, word) < 1)
			fail_at(__FILE__, __LINE__, "not a request: %s", line);
		round_of(n, word);
		forget_edges();
		dprintf(1, "ok %ld %016llx\n", n, (unsigned long long)hash);
	}
}

#endif
