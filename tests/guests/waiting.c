/*
 * Waiting for descriptors. The epoll set of setup() is kept over all rounds; its data are addresses, which each version has
 * of its own.
 *
 * rows: poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
 */
#include "guest.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>

struct source {
	int fd;
	int number;
};

static int kept;
static struct source *sources[4];

static void setup(void)
{
	kept = DO(epoll_create1(0));
	for (int i = 0; i < 4; i++) {
		sources[i] = malloc(sizeof *sources[i]);
		sources[i]->fd = DO(eventfd(0, EFD_NONBLOCK));
		sources[i]->number = i;
		struct epoll_event event = { EPOLLIN, { .ptr = sources[i] } };
		DO(epoll_ctl(kept, EPOLL_CTL_ADD, sources[i]->fd, &event));
	}
}

static void set_of_setup(long n)
{
	uint64_t *value = at_edge(8);
	*value = 1;
	CHECK(write(sources[n % 4]->fd, value, 8) == 8);
	struct epoll_event *events = at_edge(2 * sizeof *events);
	CHECK(SYS(epoll_wait, kept, events, 2, 5000) == 1);
	struct source *source = events[0].data.ptr;
	CHECK(events[0].events == EPOLLIN && source == sources[n % 4] && source->number == n % 4);
	CHECK(untouched(&events[1], sizeof events[1]));
	CHECK(read(source->fd, value, 8) == 8 && *value == 1);
	CHECK(SYS(epoll_wait, kept, events, 2, 0) == 0);
	/* The registration moves to memory that is allocated now. */
	struct source *next = malloc(sizeof *next);
	*next = *source;
	struct epoll_event event = { EPOLLIN, { .ptr = next } };
	DO(epoll_ctl(kept, EPOLL_CTL_MOD, source->fd, &event));
	sources[n % 4] = next;
	free(source);
}

static void epolls(void)
{
	int set = MIXED(syscall(SYS_epoll_create, 1)), other = MIXED(syscall(SYS_epoll_create1, EPOLL_CLOEXEC));
	int fd = DO(eventfd(1, 0));
	struct epoll_event event = { EPOLLIN | EPOLLOUT, { .u64 = 0x1234567890 } };
	SYS(epoll_ctl, set, EPOLL_CTL_ADD, fd, copied(&event, sizeof event));
	FAILS(EEXIST, syscall(SYS_epoll_ctl, set, EPOLL_CTL_ADD, fd, copied(&event, sizeof event)));
	struct epoll_event *events = at_edge(sizeof *events);
	uint64_t none = 0;
	CHECK(SYS(epoll_pwait, set, events, 1, -1, copied(&none, 8), 8) == 1);
	CHECK(events->data.u64 == 0x1234567890 && events->events == (EPOLLIN | EPOLLOUT));
	struct timespec second = { 1, 0 };
	events = at_edge(sizeof *events);
	CHECK(SYS(epoll_pwait2, set, events, 1, copied(&second, sizeof second), NULL, 8) == 1);
	mix(&events->events, 4);
	SYS(epoll_ctl, set, EPOLL_CTL_DEL, fd, NULL);
	FAILS(ENOENT, syscall(SYS_epoll_ctl, set, EPOLL_CTL_DEL, fd, NULL));
	CHECK(SYS(epoll_wait, set, events, 1, 1) == 0);
	/* A set in a set; closing the descriptor takes it out. */
	event.events = EPOLLIN;
	DO(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
	DO(epoll_ctl(other, EPOLL_CTL_ADD, set, &event));
	CHECK(SYS(epoll_wait, other, events, 1, 5000) == 1);
	close(fd);
	CHECK(SYS(epoll_wait, other, events, 1, 0) == 0);
	close(set);
	close(other);
}

static void polls(void)
{
	int ends[2];
	DO(pipe(ends));
	struct pollfd asked[3] = { { ends[0], POLLIN, 0x5a5a }, { -1, POLLIN, 0x5a5a }, { ends[1], POLLOUT, 0x5a5a } };
	struct pollfd *fds = copied(asked, sizeof asked);
	CHECK(SYS(poll, fds, 3, 5000) == 1 && fds[0].revents == 0 && fds[1].revents == 0 && fds[2].revents == POLLOUT);
	mix(fds, sizeof asked);
	CHECK(SYS(poll, fds, 1, 10) == 0);
	CHECK(SYS(poll, NULL, 0, 1) == 0);
	CHECK(write(ends[1], "x", 1) == 1);
	struct timespec second = { 5, 0 }, *timeout = copied(&second, sizeof second);
	uint64_t none = 0;
	fds = copied(asked, sizeof asked);
	CHECK(SYS(ppoll, fds, 3, timeout, copied(&none, 8), 8) == 2 && fds[0].revents == POLLIN);
	/* What is left of the timeout is written back. */
	CHECK(timeout->tv_sec < 5);
	mix(timeout, sizeof *timeout);
	mix(fds, sizeof asked);

	int top = ends[0] > ends[1] ? ends[0] : ends[1], size = (top / 64 + 1) * 8;
	unsigned char *readers = memset(at_edge(size), 0, size), *writers = memset(at_edge(size), 0, size);
	unsigned char *others = memset(at_edge(size), 0xff, size);
	readers[ends[0] / 8] |= 1 << ends[0] % 8;
	writers[ends[1] / 8] |= 1 << ends[1] % 8;
	memset(others, 0, size);
	struct timeval five = { 5, 0 }, *left = copied(&five, sizeof five);
	CHECK(SYS(select, top + 1, readers, writers, others, left) == 2);
	CHECK(left->tv_sec < 5 && readers[ends[0] / 8] == 1 << ends[0] % 8);
	mix(readers, size);
	mix(writers, size);
	mix(left, sizeof *left);
	struct timespec *rest = copied(&second, sizeof second);
	struct {
		const void *mask;
		size_t len;
	} mask = { copied(&none, 8), 8 };
	memset(writers, 0, size);
	CHECK(SYS(pselect6, top + 1, readers, writers, NULL, rest, copied(&mask, sizeof mask)) == 1);
	mix(rest, sizeof *rest);
	char drop;
	CHECK(read(ends[0], &drop, 1) == 1);
	struct timeval short_time = { 0, 2000 };
	left = copied(&short_time, sizeof short_time);
	CHECK(SYS(select, top + 1, readers, NULL, NULL, left) == 0 && readers[ends[0] / 8] == 0);
	CHECK(left->tv_sec == 0 && left->tv_usec == 0);
	close(ends[0]);
	close(ends[1]);
}

static void round_of(long n, const char *word)
{
	(void)word;
	set_of_setup(n);
	epolls();
	polls();
}
