/*
 * Handlers that interrupt calls. Without SA_RESTART a call ends with EINTR and tells what is left of its timeout; with it,
 * reads go on as if nothing had happened, and epoll_wait, poll and nanosleep still end.
 *
 * The signals come from a second thread. The timeouts are long: a call that
 * ends by its timeout is a failure, and so is an EINTR without a signal.
 *
 * rows: nanosleep clock_nanosleep clock_nanosleep/ABSTIME
 */
#include "guest.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>

static volatile sig_atomic_t plain, restarting;
static pthread_t first;
static int orders[2], ended[2], confirmed[2], ends[2], set;

static void on_plain(int number)
{
	(void)number;
	plain++;
}

static void on_restarting(int number)
{
	(void)number;
	restarting++;
}

/*
 * Takes orders, a byte each. 'p' and 'r': sends the signal again and again until the first thread says that its call has
 * ended, since a signal that comes just before the call interrupts nothing. 'w': sends a few and then writes into the pipe
 * that the first thread reads. Then it confirms: no more signals come.
 */
static void *sender(void *arg)
{
	(void)arg;
	for (;;) {
		char order;
		CHECK(read(orders[0], &order, 1) == 1);
		struct pollfd done = { ended[0], POLLIN, 0 };
		int number = order == 'p' ? SIGUSR1 : SIGUSR2, times = 0;
		while (poll(&done, 1, 20) == 0) {
			CHECK(pthread_kill(first, number) == 0);
			if (order == 'w' && ++times == 3)
				CHECK(write(ends[1], "x", 1) == 1);
		}
		CHECK(read(ended[0], &order, 1) == 1);
		CHECK(write(confirmed[1], "c", 1) == 1);
	}
	return NULL;
}

static void setup(void)
{
	struct sigaction action = { .sa_handler = on_plain };
	DO(sigaction(SIGUSR1, &action, NULL));
	action.sa_handler = on_restarting;
	action.sa_flags = SA_RESTART;
	DO(sigaction(SIGUSR2, &action, NULL));
	first = pthread_self();
	DO(pipe(orders));
	DO(pipe(ended));
	DO(pipe(confirmed));
	DO(pipe(ends));
	set = DO(epoll_create1(0));
	struct epoll_event event = { EPOLLIN, { .fd = ends[0] } };
	DO(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event));
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, sender, NULL) == 0);
}

static void order(char what)
{
	CHECK(write(orders[1], &what, 1) == 1);
}

/* Says that the call has ended and waits until no more signals come. */
static void over(void)
{
	char byte;
	long got;
	CHECK(write(ended[1], "e", 1) == 1);
	do
		got = read(confirmed[0], &byte, 1);
	while (got == -1 && errno == EINTR);
	CHECK(got == 1);
}

/* One call that ends with EINTR, by a handler without SA_RESTART. */
#define ENDED_BY_PLAIN(call)                                                                                                   \
	do {                                                                                                                   \
		int before_ = plain;                                                                                           \
		order('p');                                                                                                    \
		FAILS(EINTR, call);                                                                                            \
		CHECK(plain > before_);                                                                                        \
		over();                                                                                                        \
	} while (0)

/* One call that ends with EINTR, by either signal. */
#define ENDED(call)                                                                                                            \
	do {                                                                                                                   \
		ENDED_BY_PLAIN(call);                                                                                          \
		int before_ = restarting;                                                                                      \
		order('r');                                                                                                    \
		FAILS(EINTR, call);                                                                                            \
		CHECK(restarting > before_);                                                                                   \
		over();                                                                                                        \
	} while (0)

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	struct timespec ten = { 10, 0 }, *left = at_edge(sizeof *left);
	ENDED(syscall(SYS_nanosleep, &ten, left));
	CHECK(left->tv_sec < 10 && left->tv_sec >= 5);
	mix(left, sizeof *left);
	ENDED(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &ten, left));
	CHECK(left->tv_sec < 10 && left->tv_sec >= 5);
	mix(left, sizeof *left);
	struct timespec until;
	DO(clock_gettime(CLOCK_MONOTONIC, &until));
	until.tv_sec += 10;
	struct timespec *untold = at_edge(sizeof *untold);
	ENDED_BY_PLAIN(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until, untold));
	CHECK(untouched(untold, sizeof *untold));
	struct epoll_event event;
	ENDED(epoll_wait(set, &event, 1, 10000));
	struct pollfd fd = { ends[0], POLLIN, 0 };
	ENDED(poll(&fd, 1, 10000));
	fd_set readers;
	FD_ZERO(&readers);
	FD_SET(ends[0], &readers);
	struct timeval time = { 10, 0 };
	ENDED_BY_PLAIN(syscall(SYS_select, ends[0] + 1, &readers, NULL, NULL, &time));
	CHECK(time.tv_sec < 10 && time.tv_sec >= 5 && FD_ISSET(ends[0], &readers));
	mix(&time, sizeof time);

	char byte;
	ENDED_BY_PLAIN(read(ends[0], &byte, 1));
	/* The handler runs while the read goes on waiting; then the byte comes. */
	int before = restarting;
	order('w');
	CHECK(read(ends[0], &byte, 1) == 1 && byte == 'x' && restarting > before);
	over();

	/* No signal: nobody may see an EINTR. */
	struct timespec little = { 0, 40000000 };
	CHECK(nanosleep(&little, NULL) == 0);
	CHECK(epoll_wait(set, &event, 1, 40) == 0);
	CHECK(poll(&fd, 1, 40) == 0);
	mix_value(plain);
	mix_value(restarting);
}
