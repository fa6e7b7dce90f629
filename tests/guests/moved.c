/*
 * What the kernel keeps for a process and a fork does not carry, or what names the process: signals that wait, a signalfd in an
 * epoll set, the owner of a descriptor, the priority of a thread that was set by its id, locked memory, the root folder. All
 * of it is set up in one round and looked at in the next, when another version may lead.
 *
 * rows: rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo signalfd4 epoll_wait fcntl/F_SETOWN fcntl/F_GETOWN
 * rows: setpriority getpriority ioprio_set ioprio_get sched_getaffinity setitimer
 */
#include "guest.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <time.h>

static int set, told, owned[2], proc;
/* SIGUSR1 and the first two real-time signals that the library leaves to programs. */
static const uint64_t waiting = 1ull << (SIGUSR1 - 1) | 1ull << 33 | 1ull << 34;

static void leave_signals(long n)
{
	siginfo_t info;
	union sigval value = { .sival_int = (int)n };
	DO(kill(getpid(), SIGUSR1));
	DO(sigqueue(getpid(), SIGRTMIN, value));
	value.sival_int++;
	DO(sigqueue(getpid(), SIGRTMIN, value));
	memset(&info, 0, sizeof info);
	info.si_code = SI_QUEUE;
	info.si_pid = getpid();
	info.si_value.sival_int = (int)n + 2;
	SYS(rt_tgsigqueueinfo, getpid(), gettid(), SIGRTMIN + 1, &info);
}

static int take(int signo, int code)
{
	uint64_t one = 1ull << (signo - 1);
	struct timespec now = { 0, 0 };
	siginfo_t *info = at_edge(128);
	CHECK(SYS(rt_sigtimedwait, copied(&one, 8), info, copied(&now, sizeof now), 8) == signo);
	CHECK(info->si_code == code);
	return info->si_value.sival_int;
}

static void signals_of_the_last_round(long n)
{
	uint64_t *pending = at_edge(8), all = waiting;
	SYS(rt_sigpending, pending, 8);
	CHECK(*pending == waiting);
	take(SIGUSR1, SI_USER);
	CHECK(take(SIGRTMIN, SI_QUEUE) == n - 1 && take(SIGRTMIN, SI_QUEUE) == n);
	CHECK(take(SIGRTMIN + 1, SI_QUEUE) == n + 1);
	struct timespec now = { 0, 0 };
	FAILS(EAGAIN, syscall(SYS_rt_sigtimedwait, copied(&all, 8), NULL, copied(&now, sizeof now), 8));
}

/* The signal comes while the set is waited for. */
static void alarm_through_a_descriptor(void)
{
	struct itimerval soon = { { 0, 0 }, { 0, 10000 } };
	struct epoll_event event;
	struct signalfd_siginfo info;
	DO(setitimer(ITIMER_REAL, &soon, NULL));
	CHECK(DO(epoll_wait(set, &event, 1, 20000)) == 1 && event.data.u32 == 77);
	CHECK(read(told, &info, sizeof info) == sizeof info && info.ssi_signo == SIGALRM);
	CHECK(DO(epoll_wait(set, &event, 1, 0)) == 0);
}

static void setup(void)
{
	uint64_t blocked = waiting | 1ull << (SIGALRM - 1);
	SYS(rt_sigprocmask, SIG_BLOCK, &blocked, NULL, 8);
	sigset_t alarms;
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	told = DO(signalfd(-1, &alarms, SFD_NONBLOCK));
	set = DO(epoll_create1(0));
	struct epoll_event event = { EPOLLIN, { .u32 = 77 } };
	DO(epoll_ctl(set, EPOLL_CTL_ADD, told, &event));
	DO(pipe(owned));
	DO(fcntl(owned[0], F_SETOWN, getpid()));
	leave_signals(0);
	void *kept = mmap(NULL, 32 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(kept != MAP_FAILED);
	DO(mlock(kept, 32 << 10));
	proc = DO(open("/proc", O_PATH | O_DIRECTORY));
	close(DO(open("below", O_RDWR | O_CREAT, 0644)));
}

/* How much memory is locked, in kilobytes; the folder is open since before the root changed. */
static long locked(void)
{
	char text[4096];
	int status = DO(openat(proc, named("%d/status", getpid()), O_RDONLY));
	long got = DO(read(status, text, sizeof text - 1));
	close(status);
	text[got] = 0;
	char *line = strstr(text, "VmLck:");
	return line == NULL ? -1 : atol(line + 6);
}

static long allowed(unsigned char *bits, long len)
{
	long count = 0;
	for (long i = 0; i < len; i++)
		count += __builtin_popcount(bits[i]);
	return count;
}

static void round_of(long n, const char *word)
{
	(void)word;
	signals_of_the_last_round(n);
	leave_signals(n);
	alarm_through_a_descriptor();
	CHECK(fcntl(owned[0], F_GETOWN) == getpid());
	CHECK(locked() == 32);

	/* Named by its id, so that only the version that leads does it. */
	int nice = 1 + (int)(n - 1) % 10, class = 2 << 13 | (int)(n - 1) % 8;
	if (n > 1) {
		CHECK(getpriority(PRIO_PROCESS, 0) == nice - 1 + (nice == 1 ? 10 : 0));
		CHECK(SYS(ioprio_get, 1, 0) == (2 << 13 | (n - 2) % 8));
	}
	DO(setpriority(PRIO_PROCESS, gettid(), nice));
	SYS(ioprio_set, 1, gettid(), class);
	unsigned char processors[128];
	static long before;
	long len = SYS(sched_getaffinity, 0, sizeof processors, processors);
	if (n == 3) {
		/* On the first of them alone, from here on. */
		long i = 0;
		before = allowed(processors, len);
		while (processors[i] == 0)
			i++;
		processors[i] &= -processors[i];
		memset(processors + i + 1, 0, len - i - 1);
		SYS(sched_setaffinity, gettid(), len, processors);
		DO(chroot("."));
	}
	if (n > 3) {
		CHECK(allowed(processors, len) == 1 && before >= 1);
		CHECK(access("/below", F_OK) == 0 && access("/etc", F_OK) == -1);
	}
}
