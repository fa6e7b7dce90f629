/*
 * Signals that the program sends to itself: handlers, masks, queues, alternate stacks, waiting for a signal.
 *
 * rows: rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait rt_sigsuspend rt_sigqueueinfo sigaltstack
 * rows: tkill tgkill rt_tgsigqueueinfo kill pause getpid
 */
#include "guest.h"

#include <time.h>

static volatile sig_atomic_t seen[65], value_seen;
static char *volatile stack_low, *volatile stack_high;
static volatile sig_atomic_t on_stack;

static void handle(int number, siginfo_t *info, void *context)
{
	(void)context;
	char here;
	seen[number]++;
	value_seen = info->si_value.sival_int;
	on_stack = &here > stack_low && &here < stack_high;
	/* A call from inside a handler. */
	CHECK(getpid() == (int)syscall(SYS_getpid));
}

static void handle_on(int number, int flags)
{
	struct sigaction action = { .sa_flags = SA_SIGINFO | flags };
	action.sa_sigaction = handle;
	DO(sigaction(number, &action, NULL));
}

static void setup(void)
{
	stack_low = malloc(65536);
	stack_high = stack_low + 65536;
	stack_t stack = { .ss_sp = stack_low, .ss_size = 65536 };
	DO(sigaltstack(&stack, NULL));
	handle_on(SIGUSR1, SA_RESTART);
	handle_on(SIGUSR2, 0);
	handle_on(SIGRTMIN, SA_ONSTACK);
}

static uint64_t *mask_of(int number)
{
	uint64_t mask = 1ull << (number - 1);
	return copied(&mask, 8);
}

static void sending(void)
{
	pid_t pid = getpid();
	int tid = gettid(), before = seen[SIGUSR1];
	SYS(kill, pid, SIGUSR1);
	SYS(tkill, tid, SIGUSR1);
	SYS(tgkill, pid, tid, SIGUSR1);
	CHECK(seen[SIGUSR1] == before + 3);
	siginfo_t info;
	memset(&info, 0, sizeof info);
	info.si_code = SI_QUEUE;
	info.si_pid = pid;
	info.si_value.sival_int = 41;
	info.si_signo = SIGRTMIN;
	before = seen[SIGRTMIN];
	SYS(rt_sigqueueinfo, pid, SIGRTMIN, copied(&info, sizeof info));
	CHECK(seen[SIGRTMIN] == before + 1 && value_seen == 41 && on_stack);
	info.si_value.sival_int = 42;
	SYS(rt_tgsigqueueinfo, pid, tid, SIGRTMIN, copied(&info, sizeof info));
	CHECK(seen[SIGRTMIN] == before + 2 && value_seen == 42);
	mix_value(seen[SIGUSR1]);
	mix_value(value_seen);
}

static void blocking(void)
{
	int before = seen[SIGUSR2];
	/* Taken without a handler. */
	SYS(rt_sigprocmask, SIG_BLOCK, mask_of(SIGUSR2), NULL, 8);
	DO(kill(getpid(), SIGUSR2));
	siginfo_t *info = at_edge(128);
	struct timespec second = { 1, 0 };
	CHECK(SYS(rt_sigtimedwait, mask_of(SIGUSR2), info, copied(&second, sizeof second), 8) == SIGUSR2);
	CHECK(info->si_signo == SIGUSR2 && seen[SIGUSR2] == before);
	mix_value(info->si_pid);
	struct timespec little = { 0, 1000000 };
	info = at_edge(128);
	FAILS(EAGAIN, syscall(SYS_rt_sigtimedwait, mask_of(SIGUSR2), info, copied(&little, sizeof little), 8));
	CHECK(untouched(info, 128));

	/* Let in for the time of one call. */
	DO(kill(getpid(), SIGUSR2));
	uint64_t none = 0;
	FAILS(EINTR, syscall(SYS_rt_sigsuspend, copied(&none, 8), 8));
	CHECK(seen[SIGUSR2] == before + 1);
	SYS(rt_sigprocmask, SIG_UNBLOCK, mask_of(SIGUSR2), NULL, 8);
}

static void dispositions(void)
{
	struct sigaction old;
	DO(sigaction(SIGUSR1, NULL, &old));
	CHECK(old.sa_sigaction == handle);
	signal(SIGUSR1, SIG_IGN);
	int before = seen[SIGUSR1];
	DO(kill(getpid(), SIGUSR1));
	CHECK(seen[SIGUSR1] == before);
	DO(sigaction(SIGUSR1, &old, NULL));
	stack_t stack;
	DO(sigaltstack(NULL, &stack));
	CHECK(stack.ss_sp == stack_low);
}

/* The timer is the only other source of a signal, so pause() has something to wait for. */
static void pausing(void)
{
	int before = seen[SIGUSR2];
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2 };
	timer_t timer;
	DO(timer_create(CLOCK_MONOTONIC, &event, &timer));
	struct itimerspec soon = { { 0, 20000000 }, { 0, 20000000 } };
	DO(timer_settime(timer, 0, &soon, NULL));
	FAILS(EINTR, syscall(SYS_pause));
	DO(timer_delete(timer));
	CHECK(seen[SIGUSR2] > before);
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	sending();
	blocking();
	dispositions();
	pausing();
}
