/*
 * Threads that fight for a lock that inherits priority, of which the kernel keeps the owner's id in the lock's word.
 *
 * rows: futex/LOCK_PI_IN_ORDER futex/PI_IN_ORDER write
 */
#include "guest.h"

#include <pthread.h>
#include <sched.h>

#define WORKERS 4
#define TIMES 10

static pthread_mutex_t big, gate = PTHREAD_MUTEX_INITIALIZER;
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
			CHECK(pthread_mutex_lock(&big) == 0);
			char byte = (char)('0' + i);
			CHECK(write(ends[me][1], &byte, 1) == 1);
			sched_yield();
			CHECK(pthread_mutex_unlock(&big) == 0);
		}
	}
	return NULL;
}

static void setup(void)
{
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	CHECK(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
	CHECK(pthread_mutex_init(&big, &attributes) == 0);
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
