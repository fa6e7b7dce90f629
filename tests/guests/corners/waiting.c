/* poll, select and epoll. */
#include "corner.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>

corner(poll_nothing)
{
	say("%s %s", told(poll(NULL, 0, 0)), told(poll(NULL, 0, 5)));
}

corner(poll_negative_descriptor)
{
	struct pollfd p = { -1, POLLIN, 77 };
	say("%s", told(poll(&p, 1, 0)));
	say("%d", p.revents);
}

corner(poll_closed_descriptor)
{
	struct pollfd p = { 777, POLLIN, 0 };
	say("%s", told(poll(&p, 1, -1)));
	say("%d", p.revents == POLLNVAL);
}

corner(poll_hang_up)
{
	int e[2];
	DO(pipe(e));
	close(e[1]);
	struct pollfd p = { e[0], POLLIN, 0 };
	say("%s", told(poll(&p, 1, -1)));
	say("%d", p.revents == POLLHUP);
}

corner(poll_error)
{
	int e[2];
	DO(pipe(e));
	close(e[0]);
	struct pollfd p = { e[1], POLLOUT, 0 };
	say("%s", told(poll(&p, 1, -1)));
	say("%d", p.revents == (POLLOUT | POLLERR));
}

corner(poll_file)
{
	int fd = file_of("f", "");
	struct pollfd p = { fd, POLLIN | POLLOUT, 0 };
	say("%s", told(poll(&p, 1, -1)));
	say("%d", p.revents);
}

corner(poll_bad_address)
{
	say("%s", told(poll(nowhere(), 1, 0)));
}

corner(poll_many)
{
	static struct pollfd p[300];
	int e[2];
	DO(pipe(e));
	CHECK(write(e[1], "x", 1) == 1);
	for (int i = 0; i < 300; i++)
		p[i] = (struct pollfd){ e[0], POLLIN, 0 };
	say("%s", told(poll(p, 300, -1)));
}

corner(poll_interrupted)
{
	int e[2];
	DO(pipe(e));
	on(SIGALRM, SA_RESTART);
	struct itimerval {
		struct timeval a, b;
	} soon = { { 0, 0 }, { 0, 20000 } };
	DO(syscall(SYS_setitimer, 0, &soon, NULL));
	struct pollfd p = { e[0], POLLIN, 0 };
	say("%s", told(poll(&p, 1, -1)));
	say("%d", hits[SIGALRM]);
}

corner(ppoll_timeout_left)
{
	struct timespec t = { 0, 1000000 };
	say("%s", told(syscall(SYS_ppoll, NULL, 0, &t, NULL, 0)));
	say("%d", t.tv_sec == 0 && t.tv_nsec == 0);
}

corner(ppoll_bad_timeout)
{
	struct timespec t = { 0, -1 };
	say("%s", told(ppoll(NULL, 0, &t, NULL)));
	say("%s", told(syscall(SYS_ppoll, NULL, 0, NULL, &t, 3)));
}

corner(ppoll_lets_signal_in)
{
	sigset_t none;
	sigemptyset(&none);
	on(SIGUSR1, 0);
	block(SIGUSR1);
	DO(raise(SIGUSR1));
	say("%d", hits[SIGUSR1]);
	say("%s", told(ppoll(NULL, 0, NULL, &none)));
	say("%d", hits[SIGUSR1]);
	sigset_t now;
	sigprocmask(SIG_BLOCK, NULL, &now);
	say("%d", sigismember(&now, SIGUSR1));
}

corner(select_forms)
{
	int e[2];
	DO(pipe(e));
	fd_set r, w;
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_SET(e[0], &r);
	FD_SET(e[1], &w);
	struct timeval zero = { 0, 0 };
	say("%s", told(select(e[1] + 1, &r, &w, NULL, &zero)));
	say("%d %d", FD_ISSET(e[0], &r) != 0, FD_ISSET(e[1], &w) != 0);
	FD_SET(700, &r);
	say("%s", told(select(701, &r, NULL, NULL, &zero)));
	say("%s", told(select(-1, NULL, NULL, NULL, &zero)));
}

corner(select_sleeps)
{
	struct timeval t = { 0, 3000 };
	say("%s", told(select(0, NULL, NULL, NULL, &t)));
	say("%d %d", (int)t.tv_sec, (int)t.tv_usec);
}

corner(select_bad_timeout)
{
	struct timeval t = { 0, -5 };
	say("%s", told(select(0, NULL, NULL, NULL, &t)));
}

corner(select_left_after_signal)
{
	on(SIGALRM, SA_RESTART);
	alarm(1);
	struct timeval t = { 100, 0 };
	say("%s", told(select(0, NULL, NULL, NULL, &t)));
	say("%d", t.tv_sec < 100 && t.tv_sec > 50);
}

corner(pselect_mask)
{
	sigset_t none;
	sigemptyset(&none);
	on(SIGUSR2, 0);
	block(SIGUSR2);
	DO(raise(SIGUSR2));
	struct timespec t = { 30, 0 };
	say("%s", told(pselect(0, NULL, NULL, NULL, &t, &none)));
	say("%d", hits[SIGUSR2]);
}

static int set_with(int fd, uint32_t events)
{
	int set = DO(epoll_create1(0));
	struct epoll_event e = { events, { .u64 = 7 } };
	DO(epoll_ctl(set, EPOLL_CTL_ADD, fd, &e));
	return set;
}

static const char *look(int set, int timeout)
{
	static char text[2][60];
	static int next;
	char *here = text[next++ % 2];
	struct epoll_event e = { 0, { 0 } };
	long n = epoll_wait(set, &e, 1, timeout);
	snprintf(here, 60, "%ld:%x:%d", n, n > 0 ? e.events : 0, n > 0 ? (int)e.data.u64 : 0);
	return here;
}

corner(epoll_level)
{
	int e[2];
	DO(pipe(e));
	int set = set_with(e[0], EPOLLIN);
	say("%s", look(set, 0));
	CHECK(write(e[1], "x", 1) == 1);
	say("%s", look(set, -1));
	say("%s", look(set, 0));
}

corner(epoll_edge)
{
	int e[2];
	DO(pipe(e));
	int set = set_with(e[0], EPOLLIN | EPOLLET);
	CHECK(write(e[1], "x", 1) == 1);
	say("%s", look(set, -1));
	say("%s", look(set, 0));
	CHECK(write(e[1], "y", 1) == 1);
	say("%s", look(set, -1));
}

corner(epoll_oneshot)
{
	int fd = DO(eventfd(1, 0));
	int set = set_with(fd, EPOLLIN | EPOLLONESHOT);
	say("%s", look(set, -1));
	say("%s", look(set, 0));
	struct epoll_event e = { EPOLLIN | EPOLLONESHOT, { .u64 = 9 } };
	DO(epoll_ctl(set, EPOLL_CTL_MOD, fd, &e));
	say("%s", look(set, -1));
}

corner(epoll_nested)
{
	int fd = DO(eventfd(1, 0));
	int inner = set_with(fd, EPOLLIN), outer = set_with(inner, EPOLLIN);
	say("%s", look(outer, -1));
	uint64_t v;
	CHECK(read(fd, &v, 8) == 8);
	say("%s", look(outer, 0));
}

corner(epoll_loop)
{
	int a = DO(epoll_create1(0));
	struct epoll_event e = { EPOLLIN, { 0 } };
	int b = set_with(a, EPOLLIN);
	say("%s %s", told(epoll_ctl(a, EPOLL_CTL_ADD, b, &e)), told(epoll_ctl(a, EPOLL_CTL_ADD, a, &e)));
}

corner(epoll_errors)
{
	int set = DO(epoll_create1(0)), fd = DO(eventfd(0, 0)), file = file_of("f", "");
	struct epoll_event e = { EPOLLIN, { 0 } };
	say("%s", told(epoll_ctl(set, EPOLL_CTL_ADD, file, &e)));
	say("%s", told(epoll_ctl(set, EPOLL_CTL_MOD, fd, &e)));
	say("%s", told(epoll_ctl(set, EPOLL_CTL_DEL, fd, &e)));
	say("%s", told(epoll_ctl(fd, EPOLL_CTL_ADD, set, &e)));
	say("%s", told(epoll_ctl(set, 77, fd, &e)));
	say("%s %s", told(epoll_wait(set, &e, 0, 0)), told(epoll_wait(fd, &e, 1, 0)));
	say("%s %s", told(epoll_create(0)), told(epoll_create1(1)));
	say("%s", told(epoll_ctl(set, EPOLL_CTL_ADD, fd, nowhere())));
}

corner(epoll_bad_room)
{
	int fd = DO(eventfd(1, 0));
	int set = set_with(fd, EPOLLIN);
	say("%s", told(epoll_wait(set, nowhere(), 1, -1)));
	say("%s", look(set, 0));
}

corner(epoll_close_removes)
{
	int fd = DO(eventfd(1, 0));
	int set = set_with(fd, EPOLLIN), copy = DO(dup(fd));
	close(fd);
	say("%s", look(set, 0));
	close(copy);
	say("%s", look(set, 0));
}

corner(epoll_hang_up)
{
	int e[2];
	DO(pipe(e));
	int set = set_with(e[0], EPOLLIN | EPOLLRDHUP);
	close(e[1]);
	say("%s", look(set, -1));
}

corner(epoll_order_of_many)
{
	int set = DO(epoll_create1(0)), total = 0;
	for (int i = 0; i < 20; i++) {
		int fd = DO(eventfd(1, 0));
		struct epoll_event e = { EPOLLIN, { .u64 = i } };
		DO(epoll_ctl(set, EPOLL_CTL_ADD, fd, &e));
	}
	struct epoll_event got[7];
	for (int i = 0; i < 6; i++) {
		long n = DO(epoll_wait(set, got, 7, 0));
		for (long k = 0; k < n; k++)
			total += got[k].data.u64;
	}
	say("%d", total > 0);
}

corner(epoll_pwait2_nanoseconds)
{
	int set = DO(epoll_create1(0));
	struct epoll_event e;
	struct timespec t = { 0, 2000000 };
	say("%s", told(syscall(SYS_epoll_pwait2, set, &e, 1, &t, NULL, 0)));
	t.tv_nsec = -1;
	say("%s", told(syscall(SYS_epoll_pwait2, set, &e, 1, &t, NULL, 0)));
}

corner(epoll_pwait_mask)
{
	int set = DO(epoll_create1(0));
	struct epoll_event e;
	sigset_t none;
	sigemptyset(&none);
	on(SIGUSR1, SA_RESTART);
	block(SIGUSR1);
	DO(raise(SIGUSR1));
	say("%s", told(epoll_pwait(set, &e, 1, -1, &none)));
	say("%d", hits[SIGUSR1]);
}

corner(epoll_data_pointers)
{
	int set = DO(epoll_create1(0)), fd = DO(eventfd(1, 0));
	char *own = strdup("the program's own");
	struct epoll_event e = { EPOLLIN, { .ptr = own } };
	DO(epoll_ctl(set, EPOLL_CTL_ADD, fd, &e));
	memset(&e, 0, sizeof e);
	CHECK(epoll_wait(set, &e, 1, -1) == 1);
	say("%s", (char *)e.data.ptr);
}

corner(epoll_same_pointer_twice)
{
	int set = DO(epoll_create1(0)), a = DO(eventfd(0, 0)), b = DO(eventfd(1, 0));
	int *own = malloc(4);
	*own = 5;
	struct epoll_event e = { EPOLLIN, { .ptr = own } };
	DO(epoll_ctl(set, EPOLL_CTL_ADD, a, &e));
	DO(epoll_ctl(set, EPOLL_CTL_ADD, b, &e));
	memset(&e, 0, sizeof e);
	CHECK(epoll_wait(set, &e, 1, -1) == 1);
	say("%d", *(int *)e.data.ptr);
}
static void *writes_later(void *arg)
{
	pass(20);
	CHECK(write(*(int *)arg, "x", 1) == 1);
	return NULL;
}

corner(epoll_woken_by_thread)
{
	int e[2];
	pthread_t t;
	DO(pipe(e));
	int set = set_with(e[0], EPOLLIN);
	CHECK(pthread_create(&t, NULL, writes_later, &e[1]) == 0);
	say("%s", look(set, -1));
	pthread_join(t, NULL);
}

corner(epoll_after_fork)
{
	int e[2];
	DO(pipe(e));
	int set = set_with(e[0], EPOLLIN);
	pid_t child = CHILD(CHECK(write(e[1], "x", 1) == 1));
	say("%s", look(set, -1));
	say("%d", reap(child));
}
