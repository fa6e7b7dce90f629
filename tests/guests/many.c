/*
 * Many descriptors: a thousand sockets in an epoll set, with numbers far apart, kept over all rounds and all still right.
 *
 * rows: epoll_ctl epoll_wait socketpair dup2 read write close
 */
#include "guest.h"

#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define PAIRS 500
#define FAR 3000

static int pairs[PAIRS][2], set;

static void setup(void)
{
	struct rlimit limit;
	DO(getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max;
	DO(setrlimit(RLIMIT_NOFILE, &limit));
	set = DO(epoll_create1(0));
	for (int i = 0; i < PAIRS; i++) {
		DO(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]));
		if (i % 10 == 0) {
			int far = DO(dup2(pairs[i][1], FAR + i));
			close(pairs[i][1]);
			pairs[i][1] = far;
		}
		struct epoll_event event = { EPOLLIN, { .u32 = i } };
		DO(epoll_ctl(set, EPOLL_CTL_ADD, pairs[i][1], &event));
	}
}

static void round_of(long n, const char *word)
{
	(void)word;
	static unsigned char seen[PAIRS];
	memset(seen, 0, sizeof seen);
	for (int i = 0; i < PAIRS; i += 1 + n % 7) {
		unsigned char byte = (unsigned char)(i + n);
		CHECK(write(pairs[i][0], &byte, 1) == 1);
		seen[i] = 1;
	}
	for (int left = (PAIRS + n % 7) / (1 + n % 7); left > 0;) {
		struct epoll_event *events = at_edge(64 * sizeof *events);
		long got = DO(epoll_wait(set, events, 64, 5000));
		CHECK(got > 0);
		left -= got;
		for (int e = 0; e < got; e++) {
			unsigned i = events[e].data.u32;
			unsigned char byte;
			CHECK(i < PAIRS && seen[i] == 1 && read(pairs[i][1], &byte, 1) == 1 && byte == (unsigned char)(i + n));
			seen[i] = 0;
			mix_value(i);
		}
	}
	/* One connection leaves and another takes its place. */
	int i = n % PAIRS;
	close(pairs[i][0]);
	char byte;
	CHECK(read(pairs[i][1], &byte, 1) == 0);
	close(pairs[i][1]);
	DO(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]));
	struct epoll_event event = { EPOLLIN, { .u32 = i } };
	DO(epoll_ctl(set, EPOLL_CTL_ADD, pairs[i][1], &event));
}
