/*
 * Signals that wait until the program lets them in: the handler runs before the call that did so returns.
 *
 * rows: rt_sigprocmask rt_sigpending rt_sigreturn
 */
#include "guest.h"

static volatile sig_atomic_t first, second, order;

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

static void setup(void)
{
	struct sigaction action = { .sa_handler = on_first };
	sigaddset(&action.sa_mask, SIGUSR2);
	DO(sigaction(SIGUSR1, &action, NULL));
	action.sa_handler = on_second;
	sigemptyset(&action.sa_mask);
	DO(sigaction(SIGUSR2, &action, NULL));
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
	CHECK(first == 2 * n - 2);
	uint64_t *pending = at_edge(8);
	SYS(rt_sigpending, pending, 8);
	CHECK(*pending == 1ull << (SIGUSR1 - 1));
	mix(pending, 8);
	order = 0;
	SYS(rt_sigprocmask, SIG_UNBLOCK, mask(), NULL, 8);
	CHECK(first == 2 * n - 1 && order == 1);

	/* Both: the first keeps the second out until it returns. */
	SYS(rt_sigprocmask, SIG_BLOCK, mask(), NULL, 8);
	DO(kill(getpid(), SIGUSR1));
	DO(kill(getpid(), SIGUSR2));
	order = 0;
	SYS(rt_sigprocmask, SIG_UNBLOCK, mask(), NULL, 8);
	CHECK(first == 2 * n && second == n && order == 12);
	mix_value(first);
	mix_value(second);
}
