/*
 * Five hundred threads (or as many as CROWD says): a third waits on a condition, a third reads from a pipe of its own, a third
 * waits for a semaphore and then computes. Each round wakes all of them and counts what each has done. In every round one
 * thread ends and another takes its place.
 *
 * rows: futex clone3/THREAD read write exit
 */
#include "guest.h"

#include <pthread.h>
#include <semaphore.h>

#define MOST 1000

enum kind { WAITS, READS, COMPUTES, KINDS };

static struct member {
	pthread_t thread;
	sem_t wanted;
	int pipe[2];
	/* How often it was woken, and what it has come to. */
	long rounds;
	uint32_t sum;
} members[MOST];

static long crowd = 500, generation, leaver;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER, all_done = PTHREAD_COND_INITIALIZER;
static long done, total;
static sem_t computed;
static int answers[2];

static enum kind kind_of(long index)
{
	return (enum kind)(index % KINDS);
}

static long count_of(enum kind kind)
{
	return crowd / KINDS + (crowd % KINDS > (long)kind);
}

static uint32_t compute(uint32_t seed)
{
	for (int i = 0; i < 2000; i++)
		seed = seed * 1664525 + 1013904223;
	return seed;
}

static void *wait_often(long index)
{
	for (;;) {
		pthread_mutex_lock(&gate);
		while (generation == members[index].rounds)
			pthread_cond_wait(&opened, &gate);
		long round = ++members[index].rounds;
		total += index * round;
		if (++done == count_of(WAITS))
			pthread_cond_signal(&all_done);
		long leaves = leaver == index;
		pthread_mutex_unlock(&gate);
		if (leaves)
			return NULL;
	}
}

static void *read_often(long index)
{
	unsigned char byte;
	while (read(members[index].pipe[0], &byte, 1) == 1) {
		members[index].sum = compute(members[index].sum + byte);
		uint32_t answer[2] = { (uint32_t)index, members[index].sum };
		CHECK(write(answers[1], answer, sizeof answer) == sizeof answer);
		if (byte & 0x80)
			break;
	}
	return NULL;
}

static void *compute_often(long index)
{
	for (;;) {
		while (sem_wait(&members[index].wanted) != 0)
			CHECK(errno == EINTR);
		long round = ++members[index].rounds;
		members[index].sum = compute(members[index].sum + (uint32_t)round);
		long leaves = leaver == index;
		CHECK(sem_post(&computed) == 0);
		if (leaves)
			return NULL;
	}
}

static void *live(void *arg)
{
	long index = (long)(intptr_t)arg;
	switch (kind_of(index)) {
	case WAITS: return wait_often(index);
	case READS: return read_often(index);
	default: return compute_often(index);
	}
}

static void begin(long index)
{
	pthread_attr_t attr;
	CHECK(pthread_attr_init(&attr) == 0);
	CHECK(pthread_attr_setstacksize(&attr, 64 << 10) == 0);
	CHECK(pthread_create(&members[index].thread, &attr, live, (void *)(intptr_t)index) == 0);
	CHECK(pthread_attr_destroy(&attr) == 0);
}

static void setup(void)
{
	const char *wanted = getenv("CROWD");
	if (wanted)
		crowd = atol(wanted);
	CHECK(crowd >= KINDS && crowd <= MOST);
	DO(pipe(answers));
	DO(sem_init(&computed, 0, 0));
	for (long i = 0; i < crowd; i++) {
		members[i].sum = (uint32_t)i;
		DO(sem_init(&members[i].wanted, 0, 0));
		if (kind_of(i) == READS)
			DO(pipe(members[i].pipe));
		begin(i);
	}
}

static void round_of(long n, const char *word)
{
	(void)word;
	static unsigned char seen[MOST];
	static uint32_t sums[MOST];
	memset(seen, 0, sizeof seen);
	leaver = n * 7 % crowd;

	pthread_mutex_lock(&gate);
	done = total = 0;
	generation++;
	pthread_cond_broadcast(&opened);
	while (done < count_of(WAITS))
		pthread_cond_wait(&all_done, &gate);
	pthread_mutex_unlock(&gate);
	mix_value(total);

	for (long i = READS; i < crowd; i += KINDS) {
		unsigned char byte = (unsigned char)((n & 0x7f) | (leaver == i ? 0x80 : 0));
		sums[i] = compute(members[i].sum + byte);
		CHECK(write(members[i].pipe[1], &byte, 1) == 1);
	}
	for (long left = count_of(READS); left > 0; left--) {
		uint32_t answer[2];
		CHECK(read(answers[0], answer, sizeof answer) == sizeof answer);
		CHECK(answer[0] < crowd && kind_of(answer[0]) == READS && !seen[answer[0]]++);
		CHECK(answer[1] == sums[answer[0]]);
		mix(answer, sizeof answer);
	}

	for (long i = COMPUTES; i < crowd; i += KINDS)
		CHECK(sem_post(&members[i].wanted) == 0);
	for (long left = count_of(COMPUTES); left > 0; left--)
		while (sem_wait(&computed) != 0)
			CHECK(errno == EINTR);
	for (long i = COMPUTES; i < crowd; i += KINDS)
		mix_value(members[i].sum);

	CHECK(pthread_join(members[leaver].thread, NULL) == 0);
	leaver = -1;
	begin(n * 7 % crowd);
}
