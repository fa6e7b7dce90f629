/*
 * Who the process is, remembered. setup() writes down every number and setting that the kernel keeps for the process and its
 * threads, and each round compares: a service that is updated stays the process that it was.
 *
 * rows: getpid gettid getppid getpgid getsid tgkill kill getpriority sched_getscheduler sched_getaffinity umask getcwd
 * rows: prctl/PR_GET_PDEATHSIG prctl/PR_GET_NAME prctl/PR_GET_TIMERSLACK fcntl/F_GETOWN fcntl/F_GETOWN_EX
 * rows: pidfd_send_signal getsockopt clock_gettime
 */
#include "guest.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#define THREADS 3

static pid_t pid, parent, group, session;
static pthread_t main_thread;
static char *folder;
static int owned, owned_by_thread, pidfd, pair[2];
static clockid_t clock_of_process;

/* A thread takes an order from its pipe, looks at itself, and answers in the pipe of all. */
static struct worker {
	pthread_t thread;
	pid_t tid;
	int orders[2];
	int nice;
	int policy;
	clockid_t clock;
	char name[16];
} workers[THREADS];
static int answers[2];
static volatile sig_atomic_t hits;

/* Answers with the number of the thread that it runs in. */
static void answer_signal(int number)
{
	(void)number;
	pid_t tid = (pid_t)syscall(SYS_gettid);
	CHECK(write(answers[1], &tid, sizeof tid) == sizeof tid);
}

static void count_signal(int number)
{
	(void)number;
	hits++;
}

static void check_worker(struct worker *me)
{
	char name[16];
	CHECK(gettid() == me->tid && syscall(SYS_gettid) == me->tid && pthread_self() == me->thread);
	CHECK(getpid() == pid);
	SYS(prctl, PR_GET_NAME, name);
	CHECK(strcmp(name, me->name) == 0);
	CHECK(getpriority(PRIO_PROCESS, 0) == me->nice && getpriority(PRIO_PROCESS, me->tid) == me->nice);
	CHECK(SYS(sched_getscheduler, 0) == me->policy);
}

static void *work(void *arg)
{
	struct worker *me = arg;
	me->thread = pthread_self();
	me->tid = gettid();
	snprintf(me->name, sizeof me->name, "kept-%d", me->nice);
	SYS(prctl, PR_SET_NAME, me->name);
	DO(setpriority(PRIO_PROCESS, me->tid, me->nice));
	struct sched_param param = { 0 };
	DO(sched_setscheduler(me->tid, me->policy, &param));
	CHECK(pthread_getcpuclockid(me->thread, &me->clock) == 0);
	char order = 's';
	for (;;) {
		CHECK(write(answers[1], &order, 1) == 1);
		CHECK(read(me->orders[0], &order, 1) == 1);
		check_worker(me);
	}
	return NULL;
}

static void await(char expected)
{
	char byte;
	CHECK(read(answers[0], &byte, 1) == 1 && byte == expected);
}

static void setup(void)
{
	signal(SIGUSR1, answer_signal);
	struct sigaction restarting = { .sa_handler = answer_signal, .sa_flags = SA_RESTART };
	DO(sigaction(SIGUSR1, &restarting, NULL));
	signal(SIGUSR2, count_signal);
	pid = getpid();
	parent = getppid();
	group = getpgid(0);
	session = getsid(0);
	main_thread = pthread_self();
	folder = getcwd(NULL, 0);
	umask(027);
	/* What comes of it is ignored. */
	DO(prctl(PR_SET_PDEATHSIG, SIGURG));
	DO(prctl(PR_SET_NAME, "kept-main"));
	DO(prctl(PR_SET_TIMERSLACK, 123456));
	cpu_set_t first;
	DO(sched_getaffinity(0, sizeof first, &first));
	int cpu = 0;
	while (!CPU_ISSET(cpu, &first))
		cpu++;
	CPU_ZERO(&first);
	CPU_SET(cpu, &first);
	DO(pipe(answers));
	for (int i = 0; i < THREADS; i++) {
		DO(pipe(workers[i].orders));
		workers[i].nice = 3 + 2 * i;
		workers[i].policy = i == 1 ? SCHED_BATCH : SCHED_OTHER;
		CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
		await('s');
	}
	/* Of the main thread alone. */
	DO(sched_setaffinity(0, sizeof first, &first));
	DO(setpriority(PRIO_PROCESS, 0, 5));
	struct sched_param param = { 0 };
	DO(sched_setscheduler(0, SCHED_BATCH, &param));
	CHECK(clock_getcpuclockid(pid, &clock_of_process) == 0);
	DO(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	int on = 1;
	DO(setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	owned = DO(dup(pair[0]));
	DO(fcntl(owned, F_SETOWN, pid));
	int other[2];
	DO(socketpair(AF_UNIX, SOCK_STREAM, 0, other));
	owned_by_thread = other[0];
	struct f_owner_ex owner = { F_OWNER_TID, workers[2].tid };
	DO(fcntl(owned_by_thread, F_SETOWN_EX, &owner));
	pidfd = DO(syscall(SYS_pidfd_open, pid, 0));
}

static void numbers(void)
{
	CHECK(SYS(getpid) == pid && getpid() == pid && SYS(gettid) == pid && gettid() == pid);
	CHECK(SYS(getppid) == parent);
	CHECK(SYS(getpgid, 0) == group && getpgid(pid) == group);
	CHECK(SYS(getsid, 0) == session && getsid(pid) == session);
	CHECK(pthread_self() == main_thread);
	char *link = at_edge(20), own[20];
	long len = SYS(readlink, edge("/proc/self"), link, 20);
	CHECK(len == snprintf(own, sizeof own, "%d", pid) && memcmp(link, own, len) == 0);
	mix_value(pid);
	mix_value(parent);
}

/* Each thread is found by its numbers, from outside and by itself. */
static void threads(void)
{
	for (int i = 0; i < THREADS; i++) {
		struct worker *worker = &workers[i];
		CHECK(write(worker->orders[1], "o", 1) == 1);
		await('o');
		CHECK(getpriority(PRIO_PROCESS, worker->tid) == worker->nice);
		CHECK(SYS(sched_getscheduler, worker->tid) == worker->policy);
		CHECK(pthread_kill(worker->thread, SIGUSR1) == 0);
		pid_t who = 0;
		CHECK(read(answers[0], &who, sizeof who) == sizeof who && who == worker->tid);
		SYS(tgkill, pid, worker->tid, SIGUSR1);
		CHECK(read(answers[0], &who, sizeof who) == sizeof who && who == worker->tid);
		mix_value(who);
		struct timespec *used = at_edge(sizeof *used);
		SYS(clock_gettime, worker->clock, used);
		mix(used, sizeof *used);
	}
	struct timespec *used = at_edge(sizeof *used);
	SYS(clock_gettime, clock_of_process, used);
	mix(used, sizeof *used);
}

/* The main thread is found by the number of the process, and by a descriptor that stands for it. */
static void signals(void)
{
	int before = hits;
	SYS(tgkill, pid, pid, SIGUSR2);
	CHECK(hits == before + 1);
	CHECK(pthread_kill(main_thread, SIGUSR2) == 0);
	CHECK(hits == before + 2);
	/* Blocked everywhere else it can only be for the main thread. */
	SYS(kill, pid, 0);
	SYS(pidfd_send_signal, pidfd, 0, NULL, 0);
	CHECK(getpgid(pid) == group);
}

static void settings(void)
{
	int number = 0;
	char name[16];
	SYS(prctl, PR_GET_PDEATHSIG, &number);
	CHECK(number == SIGURG);
	SYS(prctl, PR_GET_NAME, name);
	CHECK(strcmp(name, "kept-main") == 0);
	CHECK(SYS(prctl, PR_GET_TIMERSLACK) == 123456);
	CHECK(getpriority(PRIO_PROCESS, 0) == 5 && getpriority(PRIO_PROCESS, pid) == 5);
	CHECK(SYS(sched_getscheduler, 0) == SCHED_BATCH && SYS(sched_getscheduler, pid) == SCHED_BATCH);
	cpu_set_t cpus;
	DO(sched_getaffinity(0, sizeof cpus, &cpus));
	CHECK(CPU_COUNT(&cpus) == 1);
	mix(&cpus, 8);
	CHECK(umask(027) == 027);
	char *where = at_edge(4096);
	SYS(getcwd, where, 4096);
	CHECK(strcmp(where, folder) == 0);
}

static void owners(void)
{
	CHECK(SYS(fcntl, owned, F_GETOWN) == pid);
	struct f_owner_ex *owner = at_edge(sizeof *owner);
	SYS(fcntl, owned_by_thread, F_GETOWN_EX, owner);
	CHECK(owner->type == F_OWNER_TID && owner->pid == workers[2].tid);
	struct ucred *peer = at_edge(sizeof *peer);
	socklen_t len = sizeof *peer;
	SYS(getsockopt, pair[0], SOL_SOCKET, SO_PEERCRED, peer, copied(&len, sizeof len));
	CHECK(peer->pid == pid);
	mix(peer, sizeof *peer);
	/* Who receives is told by the kernel who has sent. */
	CHECK(SYS(sendto, pair[1], edge("credentials"), 11, 0, NULL, 0) == 11);
	char text[11];
	char control[CMSG_SPACE(sizeof(struct ucred))];
	struct iovec part = { text, sizeof text };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	CHECK(SYS(recvmsg, pair[0], &message, 0) == 11);
	struct cmsghdr *first = CMSG_FIRSTHDR(&message);
	CHECK(first && first->cmsg_type == SCM_CREDENTIALS);
	struct ucred sender;
	memcpy(&sender, CMSG_DATA(first), sizeof sender);
	CHECK(sender.pid == pid);
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	numbers();
	threads();
	signals();
	settings();
	owners();
}
