/* Clocks, sleeping and timers. Nothing here says how long something took. */
#include "corner.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/timex.h>

corner(clocks_do_not_go_back)
{
	struct timespec a, b;
	int ids[] = { CLOCK_MONOTONIC,		CLOCK_MONOTONIC_RAW,	 CLOCK_BOOTTIME,
		      CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_COARSE };
	for (int i = 0; i < 6; i++) {
		DO(clock_gettime(ids[i], &a));
		DO(clock_gettime(ids[i], &b));
		say("%d", b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec));
	}
}

corner(clock_errors)
{
	struct timespec t = { 0 };
	say("%s %s", told(clock_gettime(77, &t)), told(clock_getres(77, &t)));
	say("%s", told(syscall(SYS_clock_gettime, 1, nowhere())));
	say("%s", told(clock_settime(CLOCK_MONOTONIC, &t)));
}

corner(clock_resolution)
{
	struct timespec t;
	DO(clock_getres(CLOCK_MONOTONIC, &t));
	say("%d", (int)t.tv_nsec);
}

corner(clock_of_process)
{
	clockid_t c;
	struct timespec t;
	CHECK(clock_getcpuclockid(0, &c) == 0);
	say("%s", told(clock_gettime(c, &t)));
	say("%d", clock_getcpuclockid(99999999, &c) != 0);
}

corner(time_agrees)
{
	struct timeval v;
	time_t t = time(NULL);
	DO(gettimeofday(&v, NULL));
	say("%d", v.tv_sec - t <= 100 && v.tv_sec >= t);
}

corner(times_and_usage)
{
	struct tms t;
	struct rusage u;
	say("%d", times(&t) != (clock_t)-1);
	DO(getrusage(RUSAGE_SELF, &u));
	say("%d %s", u.ru_maxrss > 0, told(getrusage(77, &u)));
	DO(getrusage(RUSAGE_CHILDREN, &u));
	DO(getrusage(RUSAGE_THREAD, &u));
}

corner(sysinfo_makes_sense)
{
	struct sysinfo s;
	DO(sysinfo(&s));
	say("%d %d", s.totalram >= s.freeram, s.uptime > 0);
	say("%s", told(sysinfo(nowhere())));
}

corner(adjtimex_asks)
{
	struct timex x = { 0 };
	say("%d", adjtimex(&x) >= 0);
	struct timex y = { 0 };
	say("%d", clock_adjtime(CLOCK_REALTIME, &y) >= 0);
}

corner(sleeping_nothing)
{
	struct timespec z = { 0, 0 };
	say("%s", told(nanosleep(&z, NULL)));
	say("%d", clock_nanosleep(CLOCK_MONOTONIC, 0, &z, NULL));
	say("%d", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &z, NULL));
}

corner(sleeping_wrongly)
{
	struct timespec bad = { 0, 2000000000 }, neg = { -1, 0 };
	say("%s %s", told(nanosleep(&bad, NULL)), told(nanosleep(&neg, NULL)));
	say("%d %d", clock_nanosleep(99, 0, &neg, NULL), clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &neg, NULL));
	say("%s", told(nanosleep(nowhere(), NULL)));
}

corner(sleep_left_after_signal)
{
	on(SIGALRM, 0);
	alarm(1);
	say("%d", sleep(50) > 10);
}

corner(alarm_replaced)
{
	say("%d", alarm(100));
	say("%d", alarm(50) > 90);
	say("%d", alarm(0) > 40);
}

corner(alarm_in_child)
{
	alarm(100);
	say("%d", reap(CHILD(_exit(alarm(0)))));
	alarm(0);
}

corner(itimer_interval)
{
	struct itimerval t = { { 0, 5000 }, { 0, 5000 } }, left;
	on(SIGALRM, 0);
	sigset_t none;
	sigemptyset(&none);
	block(SIGALRM);
	DO(setitimer(ITIMER_REAL, &t, NULL));
	while (hits[SIGALRM] < 5)
		sigsuspend(&none);
	DO(getitimer(ITIMER_REAL, &left));
	say("%d", (int)left.it_interval.tv_usec);
	t.it_value.tv_usec = 0;
	DO(setitimer(ITIMER_REAL, &t, NULL));
	say("%d", hits[SIGALRM]);
}

corner(itimer_errors)
{
	struct itimerval t = { { 0, 0 }, { 0, 2000000 } };
	say("%s %s", told(setitimer(ITIMER_REAL, &t, NULL)), told(setitimer(77, &t, NULL)));
	say("%s", told(getitimer(ITIMER_REAL, nowhere())));
}

corner(itimer_of_work)
{
	struct itimerval t = { { 0, 0 }, { 0, 1000 } };
	on(SIGVTALRM, 0);
	DO(setitimer(ITIMER_VIRTUAL, &t, NULL));
	while (hits[SIGVTALRM] == 0) {
		struct timespec now;
		syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
		for (volatile int i = 0; i < 10000; i++)
			;
	}
	say("%d", hits[SIGVTALRM]);
}

corner(timer_signals_value)
{
	timer_t id;
	struct sigevent e = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value = { .sival_int = 1234 } };
	on(SIGRTMIN, 0);
	sigset_t none;
	sigemptyset(&none);
	block(SIGRTMIN);
	DO(timer_create(CLOCK_MONOTONIC, &e, &id));
	struct itimerspec t = { { 0, 0 }, { 0, 5000000 } };
	DO(timer_settime(id, 0, &t, NULL));
	while (hits[SIGRTMIN] == 0)
		sigsuspend(&none);
	say("%d %d", last_value, last_code);
	DO(timer_delete(id));
	say("%s", told(timer_delete(id)));
}

corner(timer_overruns)
{
	timer_t id;
	struct sigevent e = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN };
	block(SIGRTMIN);
	DO(timer_create(CLOCK_MONOTONIC, &e, &id));
	struct itimerspec t = { { 0, 1000000 }, { 0, 1000000 } };
	DO(timer_settime(id, 0, &t, NULL));
	pass(30);
	sigset_t s = only(SIGRTMIN);
	siginfo_t i;
	CHECK(sigwaitinfo(&s, &i) == SIGRTMIN);
	say("%d %d", timer_getoverrun(id) > 3, i.si_overrun > 3);
}

corner(timer_old_setting)
{
	timer_t id;
	struct sigevent e = { .sigev_notify = SIGEV_NONE };
	DO(timer_create(CLOCK_MONOTONIC, &e, &id));
	struct itimerspec t = { { 7, 0 }, { 500, 0 } }, old;
	DO(timer_settime(id, 0, &t, NULL));
	DO(timer_settime(id, 0, &(struct itimerspec){ 0 }, &old));
	say("%d %d", (int)old.it_interval.tv_sec, old.it_value.tv_sec > 400);
	DO(timer_gettime(id, &old));
	say("%d", (int)old.it_value.tv_sec);
}

corner(timer_errors)
{
	timer_t id;
	struct sigevent e = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = 99 };
	say("%s", told(timer_create(CLOCK_MONOTONIC, &e, &id)));
	e.sigev_signo = SIGUSR1;
	say("%s", told(timer_create(99, &e, &id)));
	DO(timer_create(CLOCK_MONOTONIC, &e, &id));
	struct itimerspec t = { { 0, 0 }, { 0, -1 } };
	say("%s", told(timer_settime(id, 0, &t, NULL)));
	say("%s", told(syscall(SYS_timer_gettime, 77, &t)));
}

static void *ticks_in_thread(void *arg)
{
	return arg;
}

static volatile int called;
static void calls_back(union sigval v)
{
	__atomic_store_n(&called, v.sival_int, __ATOMIC_SEQ_CST);
}

corner(timer_calls_back)
{
	timer_t id;
	pthread_t t;
	CHECK(pthread_create(&t, NULL, ticks_in_thread, NULL) == 0);
	pthread_join(t, NULL);
	struct sigevent e = { .sigev_notify = SIGEV_THREAD,
			      .sigev_notify_function = calls_back,
			      .sigev_value = { .sival_int = 55 } };
	DO(timer_create(CLOCK_MONOTONIC, &e, &id));
	struct itimerspec s = { { 0, 0 }, { 0, 3000000 } };
	DO(timer_settime(id, 0, &s, NULL));
	while (__atomic_load_n(&called, __ATOMIC_SEQ_CST) == 0)
		pass(2);
	say("%d", called);
}

corner(timerfd_expirations)
{
	uint64_t n;
	int fd = DO(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	struct itimerspec t = { { 0, 1000000 }, { 0, 1000000 } };
	say("%s", told(read(fd, &n, 8)));
	DO(timerfd_settime(fd, 0, &t, NULL));
	pass(20);
	CHECK(read(fd, &n, 8) == 8);
	say("%d", n > 3);
	say("%s", told(read(fd, &n, 4)));
}

corner(timerfd_absolute_past)
{
	uint64_t n;
	int fd = DO(timerfd_create(CLOCK_REALTIME, 0));
	struct itimerspec t = { { 0, 0 }, { 1, 0 } };
	DO(timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL));
	CHECK(read(fd, &n, 8) == 8);
	say("%d", (int)n);
}

corner(timerfd_left)
{
	int fd = DO(timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC));
	struct itimerspec t = { { 3, 0 }, { 700, 0 } }, old;
	DO(timerfd_settime(fd, 0, &t, &old));
	say("%d", (int)old.it_value.tv_sec);
	DO(timerfd_gettime(fd, &old));
	say("%d %d", old.it_value.tv_sec > 600, (int)old.it_interval.tv_sec);
}

corner(timerfd_polled)
{
	int fd = DO(timerfd_create(CLOCK_MONOTONIC, 0));
	struct itimerspec t = { { 0, 0 }, { 0, 5000000 } };
	struct pollfd p = { fd, POLLIN, 0 };
	say("%d", poll(&p, 1, 0));
	DO(timerfd_settime(fd, 0, &t, NULL));
	say("%d", poll(&p, 1, 20000));
}

corner(timerfd_errors)
{
	int e[2];
	struct itimerspec t = { 0 };
	DO(pipe(e));
	say("%s %s", told(timerfd_create(77, 0)), told(timerfd_create(CLOCK_MONOTONIC, 0x7777)));
	say("%s %s", told(timerfd_settime(e[0], 0, &t, NULL)), told(timerfd_gettime(-1, &t)));
}

corner(cpu_limit_signal)
{
	struct rlimit l = { 1, 3 };
	on(SIGXCPU, 0);
	DO(setrlimit(RLIMIT_CPU, &l));
	while (hits[SIGXCPU] == 0) {
		struct timespec now;
		for (volatile int i = 0; i < 1000000; i++)
			;
		syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
	}
	say("%d", hits[SIGXCPU]);
}
