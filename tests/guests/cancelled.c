/*
 * Threads that others end, and timers that were made in setup(): both find a thread by its number.
 *
 * rows: tgkill rt_sigaction timer_create timer_settime timer_gettime timer_delete rt_sigtimedwait futex
 */
#include "guest.h"

#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#define BY_TIMER (SIGRTMIN + 2)
#define BY_TICKING (SIGRTMIN + 3)
#define TO_THREAD (SIGRTMIN + 4)

static int ends[2], answers[2];
static sem_t never, fired;
static timer_t once, ticking, to_thread, of_thread;
static volatile sig_atomic_t told;
static int cleaned;

static void clean_up(void *arg)
{
	*(int *)arg += 1;
}

static void say(char byte)
{
	CHECK(write(answers[1], &byte, 1) == 1);
}

static void hear(char expected)
{
	char byte = 0;
	CHECK(read(answers[0], &byte, 1) == 1 && byte == expected);
}

enum where { IN_READ, IN_SEMAPHORE, IN_SLEEP, AT_ONCE, WHERES };

static void *wait_there(void *arg)
{
	enum where where = (enum where)(intptr_t)arg;
	int old;
	if (where == AT_ONCE)
		CHECK(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old) == 0);
	pthread_cleanup_push(clean_up, &cleaned);
	say('w');
	char byte;
	struct timespec long_time = { 100000, 0 };
	switch (where) {
	case IN_READ:
		CHECK(read(ends[0], &byte, 1) != 1);
		break;
	case IN_SEMAPHORE:
		sem_wait(&never);
		break;
	case IN_SLEEP:
		nanosleep(&long_time, NULL);
		break;
	default:
		for (;;)
			syscall(SYS_pause);
	}
	CHECK(!"a cancelled thread goes on");
	pthread_cleanup_pop(0);
	return NULL;
}

static pthread_t start(enum where where)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, wait_there, (void *)(intptr_t)where) == 0);
	hear('w');
	return thread;
}

static void cancel(pthread_t thread)
{
	int before = cleaned;
	void *result;
	CHECK(pthread_cancel(thread) == 0);
	CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
	CHECK(cleaned == before + 1);
}

/* Some are ended in the round in which they began, and others in the next. */
static pthread_t left[WHERES];

static void cancelling(void)
{
	for (int where = 0; where < WHERES; where++) {
		cancel(start(where));
		cancel(left[where]);
		left[where] = start(where);
	}
}

/* A thread that is hit by a timer of its own. */
static pthread_t target;
static pid_t target_tid;

static void on_hit(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	CHECK(info->si_code == SI_TIMER && info->si_value.sival_int == 44);
	CHECK(gettid() == target_tid);
	say('h');
}

static void *be_hit(void *arg)
{
	(void)arg;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, TO_THREAD);
	CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
	target_tid = gettid();
	say('t');
	sem_wait(&never);
	for (;;)
		pause();
	return NULL;
}

/* In a thread that the library makes for each time. */
static void on_time(union sigval value)
{
	CHECK(value.sival_int == 43);
	CHECK(sem_post(&fired) == 0);
}

static void await_fired(void)
{
	while (sem_wait(&fired) != 0)
		CHECK(errno == EINTR);
}

static const struct itimerspec soon = { { 0, 0 }, { 0, 2000000 } };

static timer_t timer_with_thread(void)
{
	timer_t timer;
	struct sigevent event = { .sigev_notify = SIGEV_THREAD };
	event.sigev_notify_function = on_time;
	event.sigev_value.sival_int = 43;
	DO(timer_create(CLOCK_MONOTONIC, &event, &timer));
	return timer;
}

static void setup(void)
{
	DO(pipe(ends));
	DO(pipe(answers));
	DO(sem_init(&never, 0, 0));
	DO(sem_init(&fired, 0, 0));
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, BY_TIMER);
	sigaddset(&set, BY_TICKING);
	sigaddset(&set, TO_THREAD);
	CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	struct sigaction action = { .sa_flags = SA_SIGINFO | SA_RESTART };
	action.sa_sigaction = on_hit;
	DO(sigaction(TO_THREAD, &action, NULL));
	CHECK(pthread_create(&target, NULL, be_hit, NULL) == 0);
	hear('t');
	for (int where = 0; where < WHERES; where++)
		left[where] = start(where);
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = BY_TIMER };
	event.sigev_value.sival_int = 41;
	DO(timer_create(CLOCK_MONOTONIC, &event, &once));
	event.sigev_signo = BY_TICKING;
	event.sigev_value.sival_int = 42;
	DO(timer_create(CLOCK_MONOTONIC, &event, &ticking));
	struct itimerspec often = { { 0, 20000000 }, { 0, 20000000 } };
	DO(timer_settime(ticking, 0, &often, NULL));
	struct sigevent directed = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TO_THREAD };
	directed.sigev_value.sival_int = 44;
	directed._sigev_un._tid = target_tid;
	DO(timer_create(CLOCK_MONOTONIC, &directed, &to_thread));
	of_thread = timer_with_thread();
}

static void taken(int number, int value)
{
	uint64_t mask = 1ull << (number - 1);
	struct timespec limit = { 50, 0 };
	siginfo_t *info = at_edge(128);
	CHECK(SYS(rt_sigtimedwait, copied(&mask, 8), info, copied(&limit, sizeof limit), 8) == number);
	CHECK(info->si_code == SI_TIMER && info->si_value.sival_int == value);
	mix_value(info->si_value.sival_int);
}

static void timers(void)
{
	DO(timer_settime(once, 0, &soon, NULL));
	taken(BY_TIMER, 41);
	/* One that ticks all the time; how often it has is not told. */
	struct itimerspec *now = at_edge(sizeof *now);
	DO(timer_gettime(ticking, now));
	CHECK(now->it_interval.tv_nsec == 20000000 && now->it_interval.tv_sec == 0);
	taken(BY_TICKING, 42);
	taken(BY_TICKING, 42);
	DO(timer_settime(to_thread, 0, &soon, NULL));
	hear('h');
	DO(timer_settime(of_thread, 0, &soon, NULL));
	await_fired();
	timer_t fresh = timer_with_thread();
	DO(timer_settime(fresh, 0, &soon, NULL));
	await_fired();
	DO(timer_delete(fresh));
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	cancelling();
	timers();
}
