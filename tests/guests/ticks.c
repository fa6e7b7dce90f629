/*
 * Signals that arrive while the program asks for the time, and handlers that ask for it too: each asks at once again, so
 * that a signal falls into every part of an answer, and stays in its handler long enough for a change of roles to find it
 * there.
 *
 * rows: setitimer getppid
 */
#include "guest.h"

#include <sys/time.h>
#include <time.h>

static volatile sig_atomic_t ticks;
/* Sums, since a handler may run before or after the program has used what it was told last. */
static volatile uint64_t told_to_handler;

static uint64_t nanoseconds(const struct timespec *time)
{
	return (uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_nsec;
}

static void tick(int number)
{
	(void)number;
	struct timespec time, before = { 0, 0 };
	struct timeval day;
	for (int i = 0; i < 40; i++) {
		CHECK(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
		CHECK(nanoseconds(&time) >= nanoseconds(&before));
		before = time;
		told_to_handler += nanoseconds(&time);
		CHECK(gettimeofday(&day, NULL) == 0);
		told_to_handler += (uint64_t)day.tv_usec;
	}
	ticks++;
}

static void setup(void)
{
	struct sigaction action = { .sa_handler = tick, .sa_flags = SA_RESTART };
	DO(sigaction(SIGALRM, &action, NULL));
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	struct itimerval often = { { 0, 500 }, { 0, 500 } }, never = { { 0, 0 }, { 0, 0 } };
	struct timespec time, before = { 0, 0 };
	struct timeval day;
	uint64_t told = 0;
	SYS(setitimer, ITIMER_REAL, &often, NULL);
	/* How often is not for the handler to say: it may run a little later in a follower. */
	for (int batch = 0; batch < 15; batch++) {
		for (int i = 0; i < 100; i++) {
			CHECK(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
			CHECK(nanoseconds(&time) >= nanoseconds(&before));
			before = time;
			told += nanoseconds(&time);
			CHECK(gettimeofday(&day, NULL) == 0);
			CHECK(day.tv_sec > 1700000000 && day.tv_usec < 1000000);
			told += (uint64_t)day.tv_usec;
			/* A clock that is the thread's own: always a call. */
			CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0);
		}
	}
	SYS(setitimer, ITIMER_REAL, &never, NULL);
	/* A last signal may have come with that; it reaches a follower before this call. */
	SYS(getppid);
	mix_value((long)told);
	mix_value((long)told_to_handler);
	mix_value(ticks);
}

