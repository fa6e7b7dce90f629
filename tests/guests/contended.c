/*
 * Threads that fight for one lock and make calls while they hold it, as programs with a big lock do. Which thread gets the
 * lock first is not in any record, so the two versions differ in it; what each thread does, and tells the world, does not
 * depend on it. Some wait for the lock with a limit.
 *
 * rows: futex write clock_gettime
 */
#include "guest.h"

#include <pthread.h>
#include <time.h>

#define WORKERS 4
#define TIMES 10

static pthread_mutex_t big = PTHREAD_MUTEX_INITIALIZER, gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER;
static long generation;
static int ends[WORKERS][2];

static void *work(void *arg)
{
	int me = (int)(intptr_t)arg;
	for (long mine = 1;; mine++) {
		pthread_mutex_lock(&gate);
		while (generation < mine)
			pthread_cond_wait(&opened, &gate);
		pthread_mutex_unlock(&gate);
		for (int i = 0; i < TIMES; i++) {
			struct timespec limit = { 0, 0 };
			if (me % 2 == 0) {
				DO(syscall(SYS_clock_gettime, CLOCK_REALTIME, &limit));
				limit.tv_sec += 60;
				CHECK(pthread_mutex_timedlock(&big, &limit) == 0);
			} else {
				pthread_mutex_lock(&big);
			}
			char byte = (char)('0' + i);
			CHECK(write(ends[me][1], &byte, 1) == 1);
			pthread_mutex_unlock(&big);
		}
	}
	return NULL;
}

static void setup(void)
{
	for (intptr_t i = 0; i < WORKERS; i++) {
		pthread_t thread;
		DO(pipe(ends[i]));
		CHECK(pthread_create(&thread, NULL, work, (void *)i) == 0);
	}
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	pthread_mutex_lock(&gate);
	generation++;
	pthread_cond_broadcast(&opened);
	pthread_mutex_unlock(&gate);
	for (int worker = 0; worker < WORKERS; worker++)
		for (int i = 0; i < TIMES; i++) {
			char byte;
			CHECK(read(ends[worker][0], &byte, 1) == 1 && byte == '0' + i);
			mix(&byte, 1);
		}
}
