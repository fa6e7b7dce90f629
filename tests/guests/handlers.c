/*
 * Signals over several rounds: what each handler, mask and alternate stack was in setup() it still is, and what was sent to
 * a thread that blocked it waits from one round to the next.
 *
 * rows: rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn sigaltstack
 * rows: signalfd4 epoll_wait tgkill
 */
#include "guest.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

/* What each is for. */
#define TAKEN_BY_CALL (SIGRTMIN + 2)
#define TAKEN_BY_HANDLER (SIGRTMIN + 3)
#define TAKEN_BY_DESCRIPTOR (SIGRTMIN + 4)
#define FOR_ONE_THREAD (SIGRTMIN + 5)
#define AT_ONCE (SIGRTMIN + 6)
#define JUMPED (SIGRTMIN + 7)

#define STACK 65536

static pid_t pid;
static pthread_t other;
static int orders[2], answers[2], signals_fd, set;
static long last;

struct seen {
	int count, signo, code, value, pid, on_stack, mask_right;
};
static __thread volatile struct seen seen;
static __thread char *stack;
static sigjmp_buf back;

static sigset_t set_of(int number)
{
	sigset_t set;
	sigemptyset(&set);
	if (number)
		sigaddset(&set, number);
	return set;
}

static void handle(int number, siginfo_t *info, void *context)
{
	(void)context;
	char here;
	sigset_t mask;
	seen.count++;
	seen.signo = number;
	seen.code = info->si_code;
	seen.value = info->si_value.sival_int;
	seen.pid = info->si_pid;
	seen.on_stack = &here > stack && &here < stack + STACK;
	DO(pthread_sigmask(SIG_BLOCK, NULL, &mask));
	/* Its own is blocked meanwhile, and the one that its action adds. */
	seen.mask_right = sigismember(&mask, number) == 1 && sigismember(&mask, SIGHUP) == 1;
}

static void jump(int number)
{
	(void)number;
	siglongjmp(back, 7);
}

static void use_stack(void)
{
	stack = malloc(STACK);
	stack_t own = { .ss_sp = stack, .ss_size = STACK };
	DO(sigaltstack(&own, NULL));
}

static int has_stack(void)
{
	stack_t now;
	DO(sigaltstack(NULL, &now));
	return now.ss_sp == stack && now.ss_size == STACK && now.ss_flags == 0;
}

static void queue(pid_t process, pthread_t thread, int number, int value)
{
	union sigval data = { .sival_int = value };
	if (process)
		DO(sigqueue(process, number, data));
	else
		CHECK(pthread_sigqueue(thread, number, data) == 0);
}

/* Waits for an order, looks whether its mask and stack are as ever, and takes what came for it meanwhile. */
static void *work(void *arg)
{
	(void)arg;
	use_stack();
	sigset_t own = set_of(FOR_ONE_THREAD), mask;
	sigaddset(&own, SIGWINCH);
	CHECK(pthread_sigmask(SIG_BLOCK, &own, NULL) == 0);
	char order;
	for (long rounds = 0;; rounds++) {
		CHECK(write(answers[1], "d", 1) == 1);
		CHECK(read(orders[0], &order, 1) == 1);
		CHECK(has_stack());
		CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0);
		CHECK(sigismember(&mask, SIGWINCH) == 1 && sigismember(&mask, FOR_ONE_THREAD) == 1);
		CHECK(sigismember(&mask, AT_ONCE) == 0);
		int before = seen.count;
		sigset_t one = set_of(FOR_ONE_THREAD);
		CHECK(pthread_sigmask(SIG_UNBLOCK, &one, NULL) == 0);
		CHECK(seen.count == before + (rounds ? 1 : 0));
		if (rounds)
			CHECK(seen.signo == FOR_ONE_THREAD && seen.code == SI_QUEUE && seen.pid == pid && seen.on_stack && seen.mask_right);
		CHECK(pthread_sigmask(SIG_BLOCK, &one, NULL) == 0);
	}
	return NULL;
}

static void await_other(void)
{
	char byte;
	CHECK(read(answers[0], &byte, 1) == 1 && byte == 'd');
}

static void setup(void)
{
	pid = getpid();
	struct sigaction action = { .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	action.sa_sigaction = handle;
	sigaddset(&action.sa_mask, SIGHUP);
	DO(sigaction(TAKEN_BY_HANDLER, &action, NULL));
	DO(sigaction(FOR_ONE_THREAD, &action, NULL));
	DO(sigaction(AT_ONCE, &action, NULL));
	struct sigaction jumping = { .sa_handler = jump };
	DO(sigaction(JUMPED, &jumping, NULL));
	signal(SIGUSR2, SIG_IGN);
	sigset_t blocked = set_of(TAKEN_BY_CALL);
	sigaddset(&blocked, TAKEN_BY_HANDLER);
	sigaddset(&blocked, TAKEN_BY_DESCRIPTOR);
	CHECK(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
	use_stack();
	DO(pipe(orders));
	DO(pipe(answers));
	CHECK(pthread_create(&other, NULL, work, NULL) == 0);
	await_other();
	sigset_t one = set_of(TAKEN_BY_DESCRIPTOR);
	signals_fd = DO(signalfd(-1, &one, SFD_NONBLOCK));
	set = DO(epoll_create1(0));
	struct epoll_event event = { EPOLLIN, { .ptr = &signals_fd } };
	DO(epoll_ctl(set, EPOLL_CTL_ADD, signals_fd, &event));
}

/* What was installed in setup(). */
static void as_installed(void)
{
	struct sigaction now;
	DO(sigaction(TAKEN_BY_HANDLER, NULL, &now));
	CHECK(now.sa_sigaction == handle && (now.sa_flags & (SA_SIGINFO | SA_ONSTACK | SA_RESTART)) ==
	      (SA_SIGINFO | SA_ONSTACK | SA_RESTART) && sigismember(&now.sa_mask, SIGHUP) == 1 && sigismember(&now.sa_mask, SIGINT) == 0);
	DO(sigaction(SIGUSR2, NULL, &now));
	CHECK(now.sa_handler == SIG_IGN);
	DO(sigaction(SIGUSR1, NULL, &now));
	CHECK(now.sa_handler == SIG_DFL);
	sigset_t mask;
	CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0);
	CHECK(sigismember(&mask, TAKEN_BY_CALL) == 1 && sigismember(&mask, TAKEN_BY_HANDLER) == 1);
	CHECK(sigismember(&mask, FOR_ONE_THREAD) == 0 && sigismember(&mask, SIGWINCH) == 0);
	CHECK(has_stack());
	DO(kill(pid, SIGUSR2));
}

static void taken_by_call(void)
{
	uint64_t mask = 1ull << (TAKEN_BY_CALL - 1);
	struct timespec never = { 0, 0 };
	for (int i = 0; i < 3; i++) {
		siginfo_t *info = at_edge(128);
		CHECK(SYS(rt_sigtimedwait, copied(&mask, 8), info, copied(&never, sizeof never), 8) == TAKEN_BY_CALL);
		CHECK(info->si_code == SI_QUEUE && info->si_pid == pid && info->si_value.sival_int == (int)last * 10 + i);
		mix_value(info->si_value.sival_int);
	}
	FAILS(EAGAIN, syscall(SYS_rt_sigtimedwait, copied(&mask, 8), at_edge(128), copied(&never, sizeof never), 8));
}

static void taken_by_handler(void)
{
	int before = seen.count;
	sigset_t one = set_of(TAKEN_BY_HANDLER);
	CHECK(pthread_sigmask(SIG_UNBLOCK, &one, NULL) == 0);
	/* One was for the process and one for this thread. */
	CHECK(seen.count == before + 2);
	CHECK(seen.signo == TAKEN_BY_HANDLER && seen.code == SI_QUEUE && seen.pid == pid && seen.on_stack && seen.mask_right);
	CHECK(seen.value == (int)last * 100 || seen.value == (int)last * 100 + 1);
	mix_value(seen.value);
	CHECK(pthread_sigmask(SIG_BLOCK, &one, NULL) == 0);
}

static void taken_by_descriptor(void)
{
	struct epoll_event *event = at_edge(sizeof *event);
	CHECK(SYS(epoll_wait, set, event, 1, 0) == 1 && event->data.ptr == &signals_fd && event->events == EPOLLIN);
	struct signalfd_siginfo *info = at_edge(sizeof *info);
	CHECK(SYS(read, signals_fd, info, sizeof *info) == sizeof *info);
	CHECK((int)info->ssi_signo == TAKEN_BY_DESCRIPTOR && info->ssi_code == SI_QUEUE && (pid_t)info->ssi_pid == pid);
	CHECK(info->ssi_int == (int)last * 1000);
	mix(info, sizeof *info);
	FAILS(EAGAIN, syscall(SYS_read, signals_fd, info, sizeof *info));
	CHECK(SYS(epoll_wait, set, event, 1, 0) == 0);
}

static void at_once(long n)
{
	int before = seen.count;
	queue(pid, 0, AT_ONCE, (int)n);
	/* Another thread may have been chosen, had it not been this one that asked. */
	CHECK(seen.count == before + 1 && seen.value == (int)n && seen.on_stack && seen.mask_right);
	int came = sigsetjmp(back, 1);
	if (came == 0)
		DO(tgkill(pid, gettid(), JUMPED));
	CHECK(came == 7);
}

static void send_for_later(long n)
{
	for (int i = 0; i < 3; i++)
		queue(pid, 0, TAKEN_BY_CALL, (int)n * 10 + i);
	queue(pid, 0, TAKEN_BY_HANDLER, (int)n * 100);
	queue(0, pthread_self(), TAKEN_BY_HANDLER, (int)n * 100 + 1);
	queue(pid, 0, TAKEN_BY_DESCRIPTOR, (int)n * 1000);
	queue(0, other, FOR_ONE_THREAD, (int)n);
}

static void round_of(long n, const char *word)
{
	(void)word;
	as_installed();
	if (last) {
		uint64_t *pending = at_edge(8);
		SYS(rt_sigpending, pending, 8);
		uint64_t wanted = 1ull << (TAKEN_BY_CALL - 1) | 1ull << (TAKEN_BY_HANDLER - 1) | 1ull << (TAKEN_BY_DESCRIPTOR - 1);
		CHECK((*pending & wanted) == wanted);
		taken_by_call();
		taken_by_handler();
		taken_by_descriptor();
	}
	CHECK(write(orders[1], "o", 1) == 1);
	await_other();
	at_once(n);
	send_for_later(n);
	last = n;
}
