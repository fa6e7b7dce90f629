/*
 * Mutexes that know their owner: error-checking, recursive, robust, with inherited priority. They are taken in one round and
 * given back in the next, by the thread that took them, and others wait for them meanwhile. The C library and the kernel find
 * the owner by its number.
 *
 *     go N inherit    the same with threads that wait for a mutex with inherited priority, where the kernel reads the owner
 *     go N die        a thread ends while it holds a robust mutex
 *
 * rows: futex futex/PI_IN_ORDER set_robust_list
 */
#include "guest.h"

#include <pthread.h>

enum kind { PLAIN, CHECKING, RECURSIVE, ROBUST, ROBUST_CHECKING, INHERITING, INHERITING_ROBUST, KINDS };

static void make(pthread_mutex_t *mutex, enum kind kind)
{
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	if (kind == CHECKING || kind == ROBUST_CHECKING || kind == INHERITING)
		CHECK(pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK) == 0);
	if (kind == RECURSIVE)
		CHECK(pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE) == 0);
	if (kind == ROBUST || kind == ROBUST_CHECKING || kind == INHERITING_ROBUST)
		CHECK(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
	if (kind == INHERITING || kind == INHERITING_ROBUST)
		CHECK(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
	CHECK(pthread_mutex_init(mutex, &attributes) == 0);
	pthread_mutexattr_destroy(&attributes);
}

/* Mutexes that one thread holds from round to round; two sets, so that some are held between any two rounds. */
struct held {
	pthread_mutex_t mutexes[KINDS];
	pthread_rwlock_t lock;
	int taken;
};

static int refuses_owner(enum kind kind)
{
	return kind == CHECKING || kind == ROBUST_CHECKING || kind == INHERITING;
}

static void take_all(struct held *held)
{
	CHECK(!held->taken);
	for (int kind = 0; kind < KINDS; kind++) {
		CHECK(pthread_mutex_lock(&held->mutexes[kind]) == 0);
		if (kind == RECURSIVE)
			CHECK(pthread_mutex_lock(&held->mutexes[kind]) == 0);
	}
	CHECK(pthread_rwlock_wrlock(&held->lock) == 0);
	held->taken = 1;
}

static void give_all_back(struct held *held)
{
	CHECK(held->taken);
	for (int kind = 0; kind < KINDS; kind++) {
		pthread_mutex_t *mutex = &held->mutexes[kind];
		if (refuses_owner(kind))
			CHECK(pthread_mutex_lock(mutex) == EDEADLK);
		if (kind == RECURSIVE) {
			CHECK(pthread_mutex_trylock(mutex) == 0);
			CHECK(pthread_mutex_unlock(mutex) == 0 && pthread_mutex_unlock(mutex) == 0);
		}
		CHECK(pthread_mutex_unlock(mutex) == 0);
		if (refuses_owner(kind) || kind == RECURSIVE)
			CHECK(pthread_mutex_unlock(mutex) == EPERM);
	}
	CHECK(pthread_rwlock_wrlock(&held->lock) == EDEADLK);
	CHECK(pthread_rwlock_unlock(&held->lock) == 0);
	held->taken = 0;
}

/* No other thread can take them or give them back. */
static void *cannot(void *arg)
{
	struct held *held = arg;
	for (int kind = 0; kind < KINDS; kind++) {
		CHECK(pthread_mutex_trylock(&held->mutexes[kind]) == EBUSY);
		if (refuses_owner(kind) || kind == RECURSIVE)
			CHECK(pthread_mutex_unlock(&held->mutexes[kind]) == EPERM);
	}
	CHECK(pthread_rwlock_trywrlock(&held->lock) == EBUSY);
	return NULL;
}

static void others_cannot(struct held *held)
{
	pthread_t other;
	CHECK(pthread_create(&other, NULL, cannot, held) == 0);
	CHECK(pthread_join(other, NULL) == 0);
}

/* One thread holds a mutex while another waits for it, from round to round. */
struct contest {
	pthread_mutex_t mutex;
	enum kind kind;
	int orders[2], answers[2];
	pthread_t holder, waiter;
};

static void say(int fd, char byte)
{
	CHECK(write(fd, &byte, 1) == 1);
}

static void hear(int fd, char expected)
{
	char byte = 0;
	CHECK(read(fd, &byte, 1) == 1 && byte == expected);
}

static void *hold(void *arg)
{
	struct contest *contest = arg;
	CHECK(pthread_mutex_lock(&contest->mutex) == 0);
	say(contest->answers[1], 'h');
	hear(contest->orders[0], 'u');
	if (refuses_owner(contest->kind))
		CHECK(pthread_mutex_lock(&contest->mutex) == EDEADLK);
	CHECK(pthread_mutex_unlock(&contest->mutex) == 0);
	return NULL;
}

static void *want(void *arg)
{
	struct contest *contest = arg;
	say(contest->answers[1], 'w');
	CHECK(pthread_mutex_lock(&contest->mutex) == 0);
	say(contest->answers[1], 'g');
	CHECK(pthread_mutex_unlock(&contest->mutex) == 0);
	return NULL;
}

static void begin_contest(struct contest *contest)
{
	CHECK(pthread_create(&contest->holder, NULL, hold, contest) == 0);
	hear(contest->answers[0], 'h');
	CHECK(pthread_create(&contest->waiter, NULL, want, contest) == 0);
	hear(contest->answers[0], 'w');
	if (contest->kind != PLAIN)
		CHECK(pthread_mutex_trylock(&contest->mutex) == EBUSY);
}

static void end_contest(struct contest *contest)
{
	say(contest->orders[1], 'u');
	hear(contest->answers[0], 'g');
	CHECK(pthread_join(contest->holder, NULL) == 0);
	CHECK(pthread_join(contest->waiter, NULL) == 0);
	CHECK(pthread_mutex_trylock(&contest->mutex) == 0);
	CHECK(pthread_mutex_unlock(&contest->mutex) == 0);
}

static struct held even, odd;
static struct contest contests[2][KINDS];
static int inheriting;

static void setup(void)
{
	for (int kind = 0; kind < KINDS; kind++) {
		make(&even.mutexes[kind], kind);
		make(&odd.mutexes[kind], kind);
		for (int i = 0; i < 2; i++) {
			struct contest *contest = &contests[i][kind];
			make(&contest->mutex, kind);
			contest->kind = kind;
			DO(pipe(contest->orders));
			DO(pipe(contest->answers));
		}
	}
	CHECK(pthread_rwlock_init(&even.lock, NULL) == 0 && pthread_rwlock_init(&odd.lock, NULL) == 0);
	take_all(&even);
	for (int kind = 0; kind < INHERITING; kind++)
		begin_contest(&contests[0][kind]);
}

static void *end_with_lock(void *arg)
{
	CHECK(pthread_mutex_lock(arg) == 0);
	return NULL;
}

/* Whoever comes next is told that the owner has died. */
static void die(enum kind kind)
{
	pthread_mutex_t mutex;
	pthread_t thread;
	make(&mutex, kind);
	CHECK(pthread_create(&thread, NULL, end_with_lock, &mutex) == 0);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(mix_value(pthread_mutex_lock(&mutex)) == EOWNERDEAD);
	CHECK(pthread_mutex_consistent(&mutex) == 0);
	CHECK(pthread_mutex_unlock(&mutex) == 0);
	CHECK(pthread_mutex_lock(&mutex) == 0 && pthread_mutex_unlock(&mutex) == 0);
}

static void round_of(long n, const char *word)
{
	struct held *held = n & 1 ? &even : &odd, *next = n & 1 ? &odd : &even;
	others_cannot(held);
	give_all_back(held);
	take_all(next);
	others_cannot(next);
	/* Sets of contests take turns as well: one is always open. */
	struct contest *open = contests[(n & 1) ^ 1], *idle = contests[n & 1];
	for (int kind = 0; kind < INHERITING; kind++) {
		begin_contest(&idle[kind]);
		end_contest(&open[kind]);
	}
	if (strcmp(word, "inherit") == 0) {
		for (int kind = INHERITING; kind < KINDS; kind++) {
			if (inheriting)
				end_contest(&contests[0][kind]);
			else
				begin_contest(&contests[0][kind]);
		}
		inheriting = !inheriting;
	}
	if (strcmp(word, "die") == 0) {
		die(ROBUST);
		die(ROBUST_CHECKING);
	}
}
