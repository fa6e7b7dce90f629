/*
 * Signals that wait until the program lets them in: the handler runs before the call that did so returns. That may be a
 * change of the mask, the end of another handler, or a call with a mask of its own.
 *
 * rows: rt_sigprocmask rt_sigpending rt_sigreturn ppoll pselect6 epoll_pwait epoll_pwait2 rt_sigsuspend rt_sigqueueinfo
 */
#include "guest.h"

#include <poll.h>
#include <sys/epoll.h>
#include <time.h>

static volatile sig_atomic_t first, second, order, plain, values;

static void on_first(int number)
{
	(void)number;
	first++;
	order = order * 10 + 1;
}

static void on_second(int number)
{
	(void)number;
	second++;
	order = order * 10 + 2;
}

static void on_plain(int number, siginfo_t *info, void *context)
{
	(void)context;
	plain++;
	values = values * 10 + info->si_value.sival_int;
	order = order * 10 + (number == SIGRTMIN ? 3 : 4);
}

static void setup(void)
{
	struct sigaction action = { .sa_handler = on_first };
	sigaddset(&action.sa_mask, SIGUSR2);
	DO(sigaction(SIGUSR1, &action, NULL));
	action.sa_handler = on_second;
	sigemptyset(&action.sa_mask);
	DO(sigaction(SIGUSR2, &action, NULL));
	/* These keep nobody out, not even themselves. */
	struct sigaction open = { .sa_flags = SA_SIGINFO | SA_NODEFER };
	open.sa_sigaction = on_plain;
	DO(sigaction(SIGRTMIN, &open, NULL));
	DO(sigaction(SIGRTMIN + 1, &open, NULL));
}

static uint64_t *mask_of(uint64_t mask)
{
	return copied(&mask, 8);
}

static void queue(int signo, int value)
{
	union sigval with = { .sival_int = value };
	DO(sigqueue(getpid(), signo, with));
}

/* Signals that can all be delivered at once: each handler interrupts the one before it. */
static void at_once(void)
{
	uint64_t both = 1ull << (SIGRTMIN - 1) | 1ull << SIGRTMIN;
	SYS(rt_sigprocmask, SIG_BLOCK, mask_of(both), NULL, 8);
	queue(SIGRTMIN + 1, 3);
	queue(SIGRTMIN, 1);
	queue(SIGRTMIN, 2);
	order = values = 0;
	SYS(rt_sigprocmask, SIG_UNBLOCK, mask_of(both), NULL, 8);
	CHECK(order == 433 && values == 321);
	mix_value(plain);
}

/* One blocked signal after another, each let in by a call with a mask of its own; the mask of the program stays. */
static void for_one_call(void)
{
	uint64_t usr = 1ull << (SIGUSR1 - 1), *now = at_edge(8);
	int set = DO(epoll_create1(0)), before = first, ends[2];
	struct epoll_event event;
	struct timespec long_time = { 50, 0 };
	struct {
		const void *mask;
		size_t len;
	} none = { mask_of(0), 8 };
	DO(pipe(ends));
	struct pollfd ready = { ends[0], POLLIN, 0 };
	SYS(rt_sigprocmask, SIG_BLOCK, mask_of(usr), NULL, 8);
	DO(kill(getpid(), SIGUSR1));
	FAILS(EINTR, syscall(SYS_ppoll, &ready, 1, &long_time, mask_of(0), 8));
	CHECK(first == before + 1);
	DO(kill(getpid(), SIGUSR1));
	long_time.tv_sec = 50;
	FAILS(EINTR, syscall(SYS_pselect6, 0, NULL, NULL, NULL, &long_time, copied(&none, sizeof none)));
	CHECK(first == before + 2);
	DO(kill(getpid(), SIGUSR1));
	FAILS(EINTR, syscall(SYS_epoll_pwait, set, &event, 1, 50000, mask_of(0), 8));
	CHECK(first == before + 3);
	DO(kill(getpid(), SIGUSR1));
	long_time.tv_sec = 50;
	FAILS(EINTR, syscall(SYS_epoll_pwait2, set, &event, 1, &long_time, mask_of(0), 8));
	CHECK(first == before + 4);
	DO(kill(getpid(), SIGUSR1));
	FAILS(EINTR, syscall(SYS_rt_sigsuspend, mask_of(0), 8));
	CHECK(first == before + 5);
	/* What is ready comes first, and the signal waits on. */
	CHECK(write(ends[1], "x", 1) == 1);
	DO(kill(getpid(), SIGUSR1));
	CHECK(SYS(ppoll, &ready, 1, NULL, mask_of(0), 8) == 1);
	CHECK(first == before + 5);
	SYS(rt_sigpending, now, 8);
	CHECK(*now == usr);
	SYS(rt_sigprocmask, SIG_BLOCK, NULL, now, 8);
	CHECK(*now == usr);
	SYS(rt_sigprocmask, SIG_SETMASK, mask_of(0), NULL, 8);
	CHECK(first == before + 6);
	close(ends[0]);
	close(ends[1]);
	close(set);
}

static uint64_t *mask(void)
{
	uint64_t both = 1ull << (SIGUSR1 - 1) | 1ull << (SIGUSR2 - 1);
	return copied(&both, 8);
}

static void round_of(long n, const char *word)
{
	(void)word;
	SYS(rt_sigprocmask, SIG_BLOCK, mask(), NULL, 8);
	DO(kill(getpid(), SIGUSR1));
	int before = first;
	uint64_t *pending = at_edge(8);
	SYS(rt_sigpending, pending, 8);
	CHECK(*pending == 1ull << (SIGUSR1 - 1));
	mix(pending, 8);
	order = 0;
	SYS(rt_sigprocmask, SIG_UNBLOCK, mask(), NULL, 8);
	CHECK(first == before + 1 && order == 1);

	/* Both: the first keeps the second out until it returns. */
	SYS(rt_sigprocmask, SIG_BLOCK, mask(), NULL, 8);
	DO(kill(getpid(), SIGUSR1));
	DO(kill(getpid(), SIGUSR2));
	order = 0;
	SYS(rt_sigprocmask, SIG_UNBLOCK, mask(), NULL, 8);
	CHECK(first == before + 2 && second == n && order == 12);
	at_once();
	for_one_call();
	mix_value(first);
	mix_value(second);
}
