/*
 * Clocks and timers. The timers of setup() run over all rounds: they must go on in the process that serves.
 *
 * rows: clock_gettime gettimeofday time clock_getres times adjtimex getitimer setitimer alarm
 * rows: timer_create timer_settime timer_gettime timer_getoverrun timer_delete timerfd_create timerfd_settime timerfd_gettime
 */
#include "guest.h"

#include <pthread.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <time.h>

static int kept_fd;
static timer_t kept_timer, of_processor;
static volatile sig_atomic_t alarms, ticks;
static struct timespec last;

static void on_alarm(int number)
{
	if (number == SIGALRM)
		alarms++;
	else
		ticks++;
}

static void setup(void)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	DO(sigaction(SIGALRM, &action, NULL));
	DO(sigaction(SIGRTMIN + 1, &action, NULL));
	kept_fd = DO(timerfd_create(CLOCK_MONOTONIC, 0));
	struct itimerspec every = { { 0, 20000000 }, { 0, 20000000 } };
	DO(timerfd_settime(kept_fd, 0, &every, NULL));
	/* Far away: it must still be armed, and nearer, later on. */
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1 };
	DO(timer_create(CLOCK_MONOTONIC, &event, &kept_timer));
	struct itimerspec far = { { 0, 0 }, { 5000, 0 } };
	DO(timer_settime(kept_timer, 0, &far, NULL));
	/* A clock whose number names the thread, which is another one in the new version. */
	clockid_t mine;
	CHECK(pthread_getcpuclockid(pthread_self(), &mine) == 0 && mine < 0);
	DO(timer_create(mine, &event, &of_processor));
	DO(timer_settime(of_processor, 0, &far, NULL));
	DO(clock_gettime(CLOCK_MONOTONIC, &last));
}

static void clocks(void)
{
	struct timespec *now = at_edge(sizeof *now);
	SYS(clock_gettime, CLOCK_MONOTONIC, now);
	CHECK(now->tv_sec > last.tv_sec || (now->tv_sec == last.tv_sec && now->tv_nsec >= last.tv_nsec));
	last = *now;
	mix(now, sizeof *now);
	now = at_edge(sizeof *now);
	SYS(clock_getres, CLOCK_MONOTONIC, now);
	mix(now, sizeof *now);
	struct timeval *tv = at_edge(sizeof *tv);
	struct timezone *zone = at_edge(sizeof *zone);
	SYS(gettimeofday, tv, zone);
	mix(tv, sizeof *tv);
	mix(zone, sizeof *zone);
	time_t *seconds = at_edge(sizeof *seconds);
	CHECK(SYS(time, seconds) == *seconds);
	mix(seconds, sizeof *seconds);
	struct tms *spent = at_edge(sizeof *spent);
	mix_value(SYS(times, spent));
	mix(spent, sizeof *spent);
	struct timex *state = memset(at_edge(sizeof *state), 0, sizeof *state);
	mix_value(SYS(adjtimex, state));
	mix(state, sizeof *state);
	FAILS(EINVAL, syscall(SYS_clock_gettime, 77, now));
}

static void kept(void)
{
	uint64_t *expired = at_edge(8);
	CHECK(read(kept_fd, expired, 8) == 8 && *expired >= 1);
	mix(expired, 8);
	struct itimerspec *left = at_edge(sizeof *left);
	SYS(timer_gettime, kept_timer, left);
	CHECK(left->it_value.tv_sec > 4000 && left->it_value.tv_sec < 5000);
	mix(left, sizeof *left);
	SYS(timer_gettime, of_processor, left);
	CHECK(left->it_value.tv_sec > 4000);
}

static void own_timers(void)
{
	struct itimerspec soon = { { 0, 0 }, { 0, 10000000 } }, *old = at_edge(sizeof *old);
	int fd = MIXED(syscall(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC));
	SYS(timerfd_settime, fd, 0, copied(&soon, sizeof soon), old);
	mix(old, sizeof *old);
	uint64_t *expired = at_edge(8);
	CHECK(read(fd, expired, 8) == 8 && *expired == 1);
	old = at_edge(sizeof *old);
	SYS(timerfd_gettime, fd, old);
	CHECK(old->it_value.tv_sec == 0 && old->it_value.tv_nsec == 0);
	mix(old, sizeof *old);
	close(fd);

	int before = ticks;
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1 };
	event.sigev_value.sival_ptr = &event;
	int *timer = at_edge(4);
	SYS(timer_create, CLOCK_MONOTONIC, copied(&event, 64), timer);
	mix(timer, 4);
	old = at_edge(sizeof *old);
	SYS(timer_settime, *timer, 0, copied(&soon, sizeof soon), old);
	mix(old, sizeof *old);
	/* The signal may have come already; sleep in steps until it has. */
	for (int i = 0; i < 1000 && ticks == before; i++) {
		struct timespec little = { 0, 5000000 };
		nanosleep(&little, NULL);
	}
	CHECK(ticks == before + 1);
	mix_value(SYS(timer_getoverrun, *timer));
	SYS(timer_delete, *timer);
	FAILS(EINVAL, syscall(SYS_timer_delete, *timer));
}

static void old_timers(void)
{
	int before = alarms;
	struct itimerval soon = { { 0, 0 }, { 0, 10000 } }, *old = at_edge(sizeof *old);
	SYS(setitimer, ITIMER_REAL, copied(&soon, sizeof soon), old);
	mix(old, sizeof *old);
	for (int i = 0; i < 1000 && alarms == before; i++) {
		struct timespec little = { 0, 5000000 };
		nanosleep(&little, NULL);
	}
	CHECK(alarms == before + 1);
	CHECK(SYS(alarm, 100) == 0);
	old = at_edge(sizeof *old);
	SYS(getitimer, ITIMER_REAL, old);
	CHECK(old->it_value.tv_sec >= 90);
	mix(old, sizeof *old);
	mix_value(SYS(alarm, 0));
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	clocks();
	kept();
	own_timers();
	old_timers();
}
