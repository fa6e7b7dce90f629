/*
 * Time as programs ask for it: through the functions that the kernel maps into every process, without a system call. They
 * must be calls while two versions run, never go backward, and tell both versions the same.
 *
 * rows: (none of its own: natively these make no call)
 */
#include "guest.h"

#include <pthread.h>
#include <sched.h>
#include <sys/time.h>
#include <time.h>

static struct timespec last[2];
static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE };

static void setup(void)
{
}

/* A thread that reads the clock without pause and says what it read. */
static void *spin(void *arg)
{
	struct timespec *now = arg, before = { 0, 0 };
	for (int i = 0; i < 200; i++) {
		CHECK(clock_gettime(CLOCK_MONOTONIC, now) == 0);
		CHECK(now->tv_sec > before.tv_sec || (now->tv_sec == before.tv_sec && now->tv_nsec >= before.tv_nsec));
		before = *now;
	}
	return NULL;
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	struct timespec now, seen;
	struct timeval tv;
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, spin, &seen) == 0);
	for (int i = 0; i < 100; i++) {
		for (int c = 0; c < 2; c++) {
			DO(clock_gettime(clocks[c], &now));
			CHECK(now.tv_sec > last[c].tv_sec ||
			      (now.tv_sec == last[c].tv_sec && now.tv_nsec >= last[c].tv_nsec));
			last[c] = now;
			mix(&now, sizeof now);
		}
		DO(clock_gettime(CLOCK_REALTIME, &now));
		mix(&now, sizeof now);
		DO(gettimeofday(&tv, NULL));
		mix(&tv, sizeof tv);
	}
	mix_value(time(NULL));
	CHECK(sched_getcpu() >= 0);
	DO(clock_getres(CLOCK_REALTIME, &now));
	CHECK(pthread_join(thread, NULL) == 0);
	mix(&seen, sizeof seen);
}
