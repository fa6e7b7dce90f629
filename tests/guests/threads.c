/*
 * Threads: eight that hand a token round with condition variables over all rounds, threads that are born and end in each
 * round, scheduling.
 *
 * rows: clone/THREAD clone/THREAD_SETTID clone3/THREAD exit futex futex_waitv set_robust_list set_tid_address rseq sched_yield
 * rows: sched_getaffinity sched_setaffinity sched_setaffinity/SELF getcpu sched_getparam sched_setparam sched_setparam/SELF
 * rows: sched_getscheduler sched_setscheduler sched_setscheduler/SELF sched_get_priority_max sched_get_priority_min
 * rows: sched_rr_get_interval getpriority setpriority setpriority/SELF gettid sched_getattr sched_setattr sched_setattr/SELF
 * rows: ioprio_get ioprio_set ioprio_set/SELF get_robust_list/SELF futex_wake futex_wait futex_requeue
 * rows: futex/IN_ORDER futex/WAKE_OP_IN_ORDER futex_waitv/IN_ORDER futex_wake/IN_ORDER futex_wait/IN_ORDER
 * rows: futex_requeue/IN_ORDER sched_yield/IN_ORDER
 */
#include "guest.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

#define WORKERS 8

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn = -1;
static long laps;
static int ends[2];

/* Each worker waits for its turn, writes its number into a pipe and passes the turn on. */
static void *work(void *arg)
{
	int me = (int)(intptr_t)arg;
	for (;;) {
		pthread_mutex_lock(&lock);
		while (turn != me)
			pthread_cond_wait(&changed, &lock);
		char byte = (char)('0' + me);
		CHECK(write(ends[1], &byte, 1) == 1);
		turn = me + 1 < WORKERS ? me + 1 : laps-- > 1 ? 0 : -1;
		pthread_cond_broadcast(&changed);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

static void setup(void)
{
	DO(pipe(ends));
	for (intptr_t i = 0; i < WORKERS; i++) {
		pthread_t thread;
		CHECK(pthread_create(&thread, NULL, work, (void *)i) == 0);
	}
}

static void token(void)
{
	const int rounds = 5;
	pthread_mutex_lock(&lock);
	laps = rounds;
	turn = 0;
	pthread_cond_broadcast(&changed);
	while (turn != -1)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	char *text = at_edge(WORKERS * rounds);
	CHECK(read(ends[0], text, WORKERS * rounds) == WORKERS * rounds);
	for (int i = 0; i < WORKERS * rounds; i++)
		CHECK(text[i] == '0' + i % WORKERS);
	mix(text, WORKERS * rounds);
}

static void *born(void *arg)
{
	long *result = arg;
	result[0] = syscall(SYS_gettid);
	result[1] = write(ends[1], "b", 1);
	return arg;
}

static void births(void)
{
	for (int i = 0; i < 3; i++) {
		pthread_t thread;
		long result[2] = { 0, 0 };
		void *returned;
		CHECK(pthread_create(&thread, NULL, born, result) == 0);
		CHECK(pthread_join(thread, &returned) == 0 && returned == result && result[1] == 1);
		mix_value(result[0]);
		char byte;
		CHECK(read(ends[0], &byte, 1) == 1 && byte == 'b');
	}
}

/* A thread without the library: it has no storage of its own, so it makes its calls by itself. */
static volatile int bare_tid;

static long bare_call(long nr, long a, long b, long c)
{
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return result;
}

static int bare(void *arg)
{
	(void)arg;
	bare_call(SYS_write, ends[1], (long)"c", 1);
	bare_call(SYS_exit, 0, 0, 0);
	return 0;
}

static void bare_births(void)
{
	const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
	char *stack = malloc(65536), byte;
	mix_value(DO(clone(bare, stack + 65536, flags, NULL)));
	CHECK(read(ends[0], &byte, 1) == 1 && byte == 'c');
	bare_tid = -1;
	int tid = 0;
	long got = DO(clone(bare, stack + 32768, flags | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID, NULL, &tid, NULL, &bare_tid));
	CHECK(tid == got);
	mix_value(got);
	CHECK(read(ends[0], &byte, 1) == 1 && byte == 'c');
	/* The kernel clears the word and wakes its waiters when the thread is gone. */
	while (bare_tid == -1)
		syscall(SYS_futex, &bare_tid, FUTEX_WAIT, -1, NULL, NULL, 0);
	CHECK(bare_tid == 0);
	free(stack);
}

static uint32_t handed, taken;

/* Waits, by a call of Linux 6.7, until a word has another value; with a limit that is never reached or without one. */
static void await_change(uint32_t *word, uint32_t from, int with_limit)
{
	struct timespec limit = { 1 << 30, 0 };
	while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == from)
		syscall(455 /* futex_wait */, word, (long)from, 0xffffffffl, 2 | 128, with_limit ? &limit : NULL, CLOCK_MONOTONIC);
}

static void set_and_wake(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
	syscall(454 /* futex_wake */, word, 0xffffffffl, 1, 2 | 128);
}

static void *take(void *arg)
{
	(void)arg;
	for (uint32_t i = 0; i < 6; i++) {
		await_change(&handed, i, i & 1);
		CHECK(write(ends[1], "t", 1) == 1);
		set_and_wake(&taken, i + 1);
	}
	return NULL;
}

static void handing_over(void)
{
	pthread_t taker;
	char bytes[6];
	handed = taken = 0;
	CHECK(pthread_create(&taker, NULL, take, NULL) == 0);
	for (uint32_t i = 0; i < 6; i++) {
		set_and_wake(&handed, i + 1);
		await_change(&taken, i, ~i & 1);
	}
	CHECK(pthread_join(taker, NULL) == 0);
	CHECK(read(ends[0], bytes, 6) == 6 && memcmp(bytes, "tttttt", 6) == 0);
	/* The limit of this one is an instant that is over. */
	struct timespec over = { 0, 1000000 };
	FAILS(ETIMEDOUT, syscall(455, &handed, 6L, 0xffffffffl, 2 | 128, &over, CLOCK_MONOTONIC));
}

static void futexes(void)
{
	uint32_t word = 1;
	FAILS(EAGAIN, syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0));
	CHECK(SYS(futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 0);
	struct timespec little = { 0, 1000000 };
	FAILS(ETIMEDOUT, syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, &little, NULL, 0));
	/* It adds to the second word, and wakes who waits there if that was 5. */
	uint32_t second = 5;
	CHECK(SYS(futex, &word, FUTEX_WAKE_OP_PRIVATE, 1, 1, &second, FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 5)) == 0);
	CHECK(second == 8);
	struct {
		uint64_t val, uaddr;
		uint32_t flags, reserved;
	} waiter = { 2, (uintptr_t)&word, 2 | 128, 0 };
	FAILS(EAGAIN, syscall(SYS_futex_waitv, &waiter, 1, 0, NULL, 0));
	/* Linux 6.7: futexes of 32 bits, for this process alone. */
	CHECK(syscall(454 /* futex_wake */, &word, 0xffffffffl, 1, 2 | 128) == 0);
	FAILS(EAGAIN, syscall(455 /* futex_wait */, &word, 2L, 0xffffffffl, 2 | 128, NULL, 0));
	uint64_t pair[6] = { 1, (uintptr_t)&word, 2 | 128, 1, (uintptr_t)&bare_tid, 2 | 128 };
	CHECK(syscall(456 /* futex_requeue */, pair, 0, 0, 0) == 0);
	void *list;
	size_t size;
	SYS(get_robust_list, 0, &list, &size);
	CHECK(size == sizeof(struct robust_list_head));
}

static void scheduling(void)
{
	SYS(sched_yield);
	unsigned char *set = at_edge(128);
	long got = SYS(sched_getaffinity, 0, 128, set);
	CHECK(untouched(set + got, 128 - got));
	mix(set, got);
	SYS(sched_setaffinity, 0, got, copied(set, got));
	SYS(sched_setaffinity, getpid(), got, copied(set, got));
	unsigned *cpu = at_edge(4), *node = at_edge(4);
	SYS(getcpu, cpu, node, NULL);
	mix(cpu, 4);
	mix(node, 4);
	struct sched_param *param = at_edge(sizeof *param);
	SYS(sched_getparam, 0, param);
	CHECK(param->sched_priority == 0);
	mix(param, sizeof *param);
	SYS(sched_setparam, 0, param);
	SYS(sched_setparam, getpid(), param);
	CHECK(SYS(sched_getscheduler, 0) == SCHED_OTHER);
	SYS(sched_setscheduler, 0, SCHED_OTHER, param);
	SYS(sched_setscheduler, getpid(), SCHED_OTHER, param);
	mix_value(SYS(sched_get_priority_max, SCHED_FIFO));
	mix_value(SYS(sched_get_priority_min, SCHED_FIFO));
	struct timespec *interval = at_edge(sizeof *interval);
	SYS(sched_rr_get_interval, 0, interval);
	mix(interval, sizeof *interval);
	mix_value(SYS(getpriority, PRIO_PROCESS, 0));
	SYS(setpriority, PRIO_PROCESS, 0, 0);
	SYS(setpriority, PRIO_PROCESS, getpid(), 0);
	unsigned *attributes = at_edge(100);
	SYS(sched_getattr, 0, attributes, 100, 0);
	CHECK(attributes[0] >= 48 && attributes[0] <= 100);
	mix(attributes, 100);
	attributes = copied(attributes, attributes[0]);
	SYS(sched_setattr, 0, attributes, 0);
	SYS(sched_setattr, gettid(), attributes, 0);
	long class = MIXED(syscall(SYS_ioprio_get, 1, 0));
	SYS(ioprio_set, 1, 0, class);
	SYS(ioprio_set, 1, gettid(), class);
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	token();
	births();
	bare_births();
	futexes();
	handing_over();
	scheduling();
	/* What every new thread does for itself; here once more by hand. */
	static struct robust_list_head head = { { &head.list }, 0, NULL };
	SYS(set_robust_list, &head, sizeof head);
	CHECK(syscall(SYS_rseq, NULL, 0, 0, 0) == -1);
	static int cleared;
	SYS(set_tid_address, &cleared);
}
