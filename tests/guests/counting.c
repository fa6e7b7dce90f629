/*
 * Threads of which the first to come counts the processors, as glibc's malloc does it: which one that is, is in no record,
 * and the two versions differ in it. Nothing that the program tells depends on it.
 *
 * rows: openat/PLAIN read close
 */
#include "guest.h"

#include <fcntl.h>
#include <pthread.h>

#define WORKERS 4

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER;
static long generation, claimed;
static int ends[WORKERS][2];

static void count(void)
{
	char text[1024];
	int fd = openat(AT_FDCWD, "/sys/devices/system/cpu/online", O_RDONLY | O_CLOEXEC);
	DO(fd);
	ssize_t got = read(fd, text, sizeof text);
	CHECK(got > 1 && text[0] == '0' && text[got - 1] == '\n');
	CHECK(read(fd, text, sizeof text) == 0);
	DO(close(fd));
}

static void *work(void *arg)
{
	int me = (int)(intptr_t)arg;
	for (long mine = 1;; mine++) {
		pthread_mutex_lock(&gate);
		while (generation < mine)
			pthread_cond_wait(&opened, &gate);
		pthread_mutex_unlock(&gate);
		long expected = mine - 1;
		if (__atomic_compare_exchange_n(&claimed, &expected, mine, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			count();
		char byte = (char)('0' + mine % 10);
		CHECK(write(ends[me][1], &byte, 1) == 1);
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
	(void)word;
	pthread_mutex_lock(&gate);
	generation = n;
	pthread_cond_broadcast(&opened);
	pthread_mutex_unlock(&gate);
	for (int worker = 0; worker < WORKERS; worker++) {
		char byte;
		CHECK(read(ends[worker][0], &byte, 1) == 1 && byte == (char)('0' + n % 10));
		mix(&byte, 1);
	}
}
