/* Signals: handlers, masks, restarts, queues, stacks, jumps. */
#include "corner.h"

#include <poll.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <ucontext.h>

static void soon(int milliseconds)
{
	struct itimerval t = { { 0, 0 }, { 0, milliseconds * 1000 } };
	DO(setitimer(ITIMER_REAL, &t, NULL));
}

corner(raise_handled)
{
	on(SIGUSR1, 0);
	DO(raise(SIGUSR1));
	say("%d", hits[SIGUSR1]);
}

corner(raise_ignored)
{
	signal(SIGUSR1, SIG_IGN);
	DO(raise(SIGUSR1));
	say("on");
}

corner(raise_default_ends)
{
	say("%d", reap(CHILD(raise(SIGUSR1))));
}

corner(raise_default_ignores)
{
	DO(raise(SIGCHLD));
	DO(raise(SIGURG));
	DO(raise(SIGWINCH));
	say("on");
}

corner_that_ends(end_by_own_signal, 143)
{
	say("before");
	raise(SIGTERM);
	say("never");
}

corner_that_ends(end_by_kill, 137)
{
	say("before");
	kill(getpid(), SIGKILL);
	say("never");
}

corner_that_ends(end_by_abort, 134)
{
	say("before");
	signal(SIGABRT, SIG_DFL);
	abort();
}

corner(kill_zero)
{
	say("%s %s", told(kill(getpid(), 0)), told(kill(getpid(), 99)));
	say("%s", told(kill(99999999, 0)));
	say("%s", told(syscall(SYS_tgkill, getpid(), -1, 0)));
}

corner(kill_own_group)
{
	say("%d", reap(CHILD(on(SIGUSR1, 0); DO(setpgid(0, 0)); DO(kill(0, SIGUSR1)); _exit(hits[SIGUSR1]))));
}

corner(handler_gets_code)
{
	on(SIGUSR1, 0);
	DO(kill(getpid(), SIGUSR1));
	say("%d", last_code);
	DO(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
	say("%d", last_code);
}

corner(reset_hand)
{
	on(SIGUSR1, SA_RESETHAND);
	DO(raise(SIGUSR1));
	struct sigaction a;
	DO(sigaction(SIGUSR1, NULL, &a));
	say("%d %d", hits[SIGUSR1], a.sa_handler == SIG_DFL);
}

corner(read_restarted)
{
	int e[2];
	char b;
	DO(pipe(e));
	on(SIGALRM, SA_RESTART);
	pid_t child = CHILD(pass(120); CHECK(write(e[1], "r", 1) == 1));
	soon(40);
	say("%s %d", told(read(e[0], &b, 1)), hits[SIGALRM]);
	reap(child);
}

corner(read_not_restarted)
{
	int e[2];
	char b;
	DO(pipe(e));
	on(SIGALRM, 0);
	soon(20);
	say("%s", told(read(e[0], &b, 1)));
	say("%d", hits[SIGALRM]);
}

corner(read_ignored_signal)
{
	int e[2];
	char b;
	DO(pipe(e));
	signal(SIGALRM, SIG_IGN);
	pid_t child = CHILD(pass(60); CHECK(write(e[1], "r", 1) == 1));
	soon(20);
	say("%s", told(read(e[0], &b, 1)));
	reap(child);
}

corner(wait_interrupted)
{
	on(SIGALRM, 0);
	pid_t child = CHILD(pass(100));
	soon(20);
	say("%s", told(waitpid(child, NULL, 0)));
	say("%d", reap(child));
}

corner(wait_restarted)
{
	on(SIGALRM, SA_RESTART);
	pid_t child = CHILD(pass(80));
	soon(20);
	say("%d %d", waitpid(child, NULL, 0) == child, hits[SIGALRM]);
}

corner(accept_interrupted)
{
	int l = DO(socket(AF_UNIX, SOCK_STREAM, 0));
	DO(bind(l, &(struct sockaddr){ .sa_family = AF_UNIX }, 2));
	DO(listen(l, 1));
	on(SIGALRM, 0);
	soon(20);
	say("%s", told(accept(l, NULL, NULL)));
}

corner(nanosleep_interrupted)
{
	struct timespec t = { 50, 0 }, left = { 0, 0 };
	on(SIGALRM, SA_RESTART);
	soon(20);
	say("%s", told(nanosleep(&t, &left)));
	say("%d", left.tv_sec >= 40 && left.tv_sec < 50);
}

corner(clock_nanosleep_absolute_interrupted)
{
	struct timespec t;
	on(SIGALRM, 0);
	DO(clock_gettime(CLOCK_MONOTONIC, &t));
	t.tv_sec += 50;
	soon(20);
	say("%d", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL));
}

corner(pause_ends)
{
	on(SIGALRM, SA_RESTART);
	soon(20);
	say("%s %d", told(pause()), hits[SIGALRM]);
}

corner(sigsuspend_lets_in)
{
	sigset_t none;
	sigemptyset(&none);
	on(SIGUSR1, 0);
	block(SIGUSR1);
	DO(raise(SIGUSR1));
	say("%d", hits[SIGUSR1]);
	say("%s", told(sigsuspend(&none)));
	say("%d", hits[SIGUSR1]);
}

corner(blocked_waits)
{
	sigset_t p;
	on(SIGUSR1, 0);
	block(SIGUSR1);
	DO(raise(SIGUSR1));
	DO(raise(SIGUSR1));
	DO(sigpending(&p));
	say("%d %d", hits[SIGUSR1], sigismember(&p, SIGUSR1));
	unblock(SIGUSR1);
	say("%d", hits[SIGUSR1]);
}

corner(unblocked_in_order)
{
	for (int s = 0; s < 3; s++) {
		on(SIGRTMIN + s, 0);
		block(SIGRTMIN + s);
	}
	DO(raise(SIGRTMIN + 2));
	DO(raise(SIGRTMIN));
	DO(raise(SIGRTMIN + 1));
	sigset_t none;
	sigemptyset(&none);
	DO(sigprocmask(SIG_SETMASK, &none, NULL));
	say("%d %d %d", hits[SIGRTMIN], hits[SIGRTMIN + 1], hits[SIGRTMIN + 2]);
}

static int sequence[10], steps;
static void notes(int number, siginfo_t *info, void *context)
{
	(void)context;
	sequence[steps++] = number == SIGRTMIN ? info->si_value.sival_int : 90 + number - SIGRTMIN;
}

static void note(int number, int flags)
{
	struct sigaction a = { .sa_flags = SA_SIGINFO | flags };
	a.sa_sigaction = notes;
	DO(sigaction(number, &a, NULL));
}

static void queue(int number, int value)
{
	DO(sigqueue(getpid(), number, (union sigval){ .sival_int = value }));
}

corner(queued_values)
{
	note(SIGRTMIN, 0);
	block(SIGRTMIN);
	for (int i = 1; i <= 4; i++)
		queue(SIGRTMIN, i);
	unblock(SIGRTMIN);
	say("%d: %d %d %d %d", steps, sequence[0], sequence[1], sequence[2], sequence[3]);
}

corner(queued_values_nested)
{
	note(SIGRTMIN, SA_NODEFER);
	block(SIGRTMIN);
	for (int i = 1; i <= 3; i++)
		queue(SIGRTMIN, i);
	unblock(SIGRTMIN);
	say("%d: %d %d %d", steps, sequence[0], sequence[1], sequence[2]);
}

corner(queued_different)
{
	note(SIGRTMIN, 0);
	note(SIGRTMIN + 1, 0);
	block(SIGRTMIN);
	block(SIGRTMIN + 1);
	queue(SIGRTMIN + 1, 0);
	queue(SIGRTMIN, 5);
	sigset_t none;
	sigemptyset(&none);
	DO(sigprocmask(SIG_SETMASK, &none, NULL));
	say("%d: %d %d", steps, sequence[0], sequence[1]);
}

static void inner(int number)
{
	(void)number;
	sequence[steps++] = 2;
}

static void outer(int number)
{
	(void)number;
	sequence[steps++] = 1;
	raise(SIGUSR2);
	sequence[steps++] = 3;
}

corner(nested_handlers)
{
	signal(SIGUSR1, outer);
	signal(SIGUSR2, inner);
	DO(raise(SIGUSR1));
	say("%d%d%d", sequence[0], sequence[1], sequence[2]);
}

corner(nested_blocked_by_mask)
{
	struct sigaction a = { .sa_handler = outer };
	sigaddset(&a.sa_mask, SIGUSR2);
	DO(sigaction(SIGUSR1, &a, NULL));
	signal(SIGUSR2, inner);
	DO(raise(SIGUSR1));
	say("%d%d%d", sequence[0], sequence[1], sequence[2]);
}

static void again(int number)
{
	sequence[steps++] = ++sequence[9];
	if (sequence[9] < 3)
		raise(number);
	sequence[steps++] = -1;
}

corner(same_signal_deferred)
{
	struct sigaction a = { .sa_handler = again };
	DO(sigaction(SIGUSR1, &a, NULL));
	DO(raise(SIGUSR1));
	say("%d %d %d %d %d %d", sequence[0], sequence[1], sequence[2], sequence[3], sequence[4], sequence[5]);
}

corner(same_signal_at_once)
{
	struct sigaction a = { .sa_handler = again, .sa_flags = SA_NODEFER };
	DO(sigaction(SIGUSR1, &a, NULL));
	DO(raise(SIGUSR1));
	say("%d %d %d %d", sequence[0], sequence[1], sequence[2], sequence[3]);
}

static char alternate[65536];
static volatile int on_alternate;
static void where(int number)
{
	(void)number;
	char here;
	on_alternate = &here > alternate && &here < alternate + sizeof alternate;
}

corner(alternate_stack)
{
	stack_t s = { .ss_sp = alternate, .ss_size = sizeof alternate }, old;
	DO(sigaltstack(&s, NULL));
	struct sigaction a = { .sa_handler = where, .sa_flags = SA_ONSTACK };
	DO(sigaction(SIGUSR1, &a, NULL));
	DO(raise(SIGUSR1));
	say("%d", on_alternate);
	DO(sigaltstack(NULL, &old));
	say("%d", old.ss_flags);
	s.ss_size = 10;
	say("%s", told(sigaltstack(&s, NULL)));
}

static void changes_stack(int number)
{
	(void)number;
	stack_t s = { .ss_flags = SS_DISABLE };
	sequence[0] = sigaltstack(&s, NULL) == -1 ? errno : 0;
}

corner(alternate_stack_in_use)
{
	stack_t s = { .ss_sp = alternate, .ss_size = sizeof alternate };
	DO(sigaltstack(&s, NULL));
	struct sigaction a = { .sa_handler = changes_stack, .sa_flags = SA_ONSTACK };
	DO(sigaction(SIGUSR1, &a, NULL));
	DO(raise(SIGUSR1));
	say("%s", strerrorname_np(sequence[0]));
}

static void overflowed(int number)
{
	say("signal %d on the alternate stack", number);
	_exit(9);
}
__attribute__((noinline)) static int deeper(int n)
{
	volatile char room[4096];
	room[0] = (char)n;
	return n <= 0 ? 0 : room[0] + deeper(n + 1);
}

corner_that_ends(stack_overflow_caught, 9)
{
	stack_t s = { .ss_sp = alternate, .ss_size = sizeof alternate };
	DO(sigaltstack(&s, NULL));
	struct sigaction a = { .sa_handler = overflowed, .sa_flags = SA_ONSTACK };
	DO(sigaction(SIGSEGV, &a, NULL));
	say("%d", deeper(1));
}

static sigjmp_buf back;
static void jumps(int number)
{
	siglongjmp(back, number);
}

corner(jump_out_of_handler)
{
	signal(SIGUSR1, jumps);
	int got = sigsetjmp(back, 1);
	if (got == 0)
		raise(SIGUSR1);
	sigset_t now;
	DO(sigprocmask(SIG_BLOCK, NULL, &now));
	say("%d %d", got == SIGUSR1, sigismember(&now, SIGUSR1));
}

corner(jump_out_of_fault)
{
	signal(SIGSEGV, jumps);
	for (volatile int i = 0; i < 3; i++)
		if (sigsetjmp(back, 1) == 0) {
			*(volatile int *)nowhere() = 1;
			say("never");
		}
	say("three times");
}

corner(jump_out_of_read)
{
	int e[2];
	char b;
	DO(pipe(e));
	signal(SIGALRM, jumps);
	if (sigsetjmp(back, 1) == 0) {
		soon(20);
		(void)!read(e[0], &b, 1);
		say("never");
	}
	say("out");
}

corner(jump_mask_kept)
{
	signal(SIGUSR1, jumps);
	if (sigsetjmp(back, 0) == 0)
		raise(SIGUSR1);
	sigset_t now;
	DO(sigprocmask(SIG_BLOCK, NULL, &now));
	say("%d", sigismember(&now, SIGUSR1));
	unblock(SIGUSR1);
}

static void fault(int number, siginfo_t *info, void *context)
{
	(void)context;
	say("signal %d code %d", number, info->si_code);
	_exit(5);
}

static void on_fault(int number)
{
	struct sigaction a = { .sa_flags = SA_SIGINFO };
	a.sa_sigaction = fault;
	DO(sigaction(number, &a, NULL));
}

corner_that_ends(fault_unmapped, 5)
{
	on_fault(SIGSEGV);
	*(volatile int *)nowhere() = 1;
}

corner_that_ends(fault_protected, 5)
{
	on_fault(SIGSEGV);
	char *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*(volatile char *)p = 1;
}

corner_that_ends(fault_bus, 5)
{
	on_fault(SIGBUS);
	int fd = file_of("f", "");
	char *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	say("%d", *(volatile char *)p);
}

corner_that_ends(fault_divide, 5)
{
	on_fault(SIGFPE);
	volatile int zero = 0;
	say("%d", 5 / zero);
}

corner_that_ends(fault_illegal, 5)
{
	on_fault(SIGILL);
	__asm__ volatile("ud2");
}

corner(fault_breakpoint)
{
	on(SIGTRAP, 0);
	__asm__ volatile("int3");
	say("%d", hits[SIGTRAP]);
}

corner_that_ends(fault_uncaught, 139)
{
	say("before");
	*(volatile int *)nowhere() = 1;
}

static void repairs(int number, siginfo_t *info, void *context)
{
	(void)context;
	hits[number]++;
	mprotect((void *)((uintptr_t)info->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE);
}

corner(fault_repaired)
{
	struct sigaction a = { .sa_flags = SA_SIGINFO };
	a.sa_sigaction = repairs;
	DO(sigaction(SIGSEGV, &a, NULL));
	volatile char *p = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	p[0] = 1;
	p[5000] = 2;
	p[9000] = 3;
	say("%d %d", hits[SIGSEGV], p[0] + p[5000] + p[9000]);
}

static void edits(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)info;
	ucontext_t *u = context;
	sigaddset(&u->uc_sigmask, SIGUSR2);
}

corner(handler_edits_mask)
{
	struct sigaction a = { .sa_flags = SA_SIGINFO };
	a.sa_sigaction = edits;
	DO(sigaction(SIGUSR1, &a, NULL));
	DO(raise(SIGUSR1));
	sigset_t now;
	DO(sigprocmask(SIG_BLOCK, NULL, &now));
	say("%d %d", sigismember(&now, SIGUSR1), sigismember(&now, SIGUSR2));
}

static void sets_errno(int number)
{
	(void)number;
	errno = 0;
	(void)!write(-1, "", 1);
}

corner(handler_changes_errno)
{
	signal(SIGUSR1, sets_errno);
	errno = 77;
	raise(SIGUSR1);
	say("%d", errno == EBADF);
}

corner(sigwait_takes)
{
	sigset_t s = only(SIGUSR1);
	int got;
	block(SIGUSR1);
	DO(raise(SIGUSR1));
	CHECK(sigwait(&s, &got) == 0);
	say("%d", got == SIGUSR1);
}

corner(sigtimedwait_values)
{
	sigset_t s = only(SIGRTMIN);
	siginfo_t i;
	block(SIGRTMIN);
	queue(SIGRTMIN, 42);
	struct timespec t = { 5, 0 };
	say("%d %d %d", sigtimedwait(&s, &i, &t) == SIGRTMIN, i.si_value.sival_int, i.si_code);
}

corner(sigtimedwait_nothing)
{
	sigset_t s = only(SIGUSR1);
	struct timespec t = { 0, 3000000 };
	block(SIGUSR1);
	say("%s", told(sigtimedwait(&s, NULL, &t)));
	t.tv_nsec = -1;
	say("%s", told(sigtimedwait(&s, NULL, &t)));
}

corner(sigtimedwait_interrupted)
{
	sigset_t s = only(SIGUSR1);
	block(SIGUSR1);
	on(SIGALRM, SA_RESTART);
	soon(20);
	say("%s", told(sigwaitinfo(&s, NULL)));
	say("%d", hits[SIGALRM]);
}

corner(sigtimedwait_from_child)
{
	sigset_t s = only(SIGCHLD);
	siginfo_t i;
	block(SIGCHLD);
	pid_t c = CHILD(_exit(7));
	CHECK(sigwaitinfo(&s, &i) == SIGCHLD);
	say("%d %d %d", i.si_pid == c, i.si_status, i.si_code);
	reap(c);
}

corner(signalfd_reads)
{
	sigset_t s = only(SIGUSR1);
	struct signalfd_siginfo i;
	block(SIGUSR1);
	int fd = DO(signalfd(-1, &s, SFD_NONBLOCK));
	say("%s", told(read(fd, &i, sizeof i)));
	DO(raise(SIGUSR1));
	CHECK(read(fd, &i, sizeof i) == sizeof i);
	say("%d %d", i.ssi_signo == SIGUSR1, i.ssi_pid == (uint32_t)getpid());
	say("%s", told(read(fd, &i, 10)));
}

corner(signalfd_two_at_once)
{
	sigset_t s = only(SIGUSR1);
	sigaddset(&s, SIGUSR2);
	struct signalfd_siginfo i[3];
	DO(sigprocmask(SIG_BLOCK, &s, NULL));
	int fd = DO(signalfd(-1, &s, 0));
	DO(raise(SIGUSR2));
	DO(raise(SIGUSR1));
	CHECK(read(fd, i, sizeof i) == 2 * sizeof i[0]);
	say("%d %d", i[0].ssi_signo, i[1].ssi_signo);
}

corner(signalfd_changed)
{
	sigset_t s = only(SIGUSR1);
	struct signalfd_siginfo i;
	block(SIGUSR1);
	block(SIGUSR2);
	int fd = DO(signalfd(-1, &s, SFD_NONBLOCK));
	DO(raise(SIGUSR2));
	say("%s", told(read(fd, &i, sizeof i)));
	s = only(SIGUSR2);
	CHECK(signalfd(fd, &s, 0) == fd);
	say("%s", told(read(fd, &i, sizeof i) == sizeof i ? 0 : -1));
}

corner(signalfd_polled)
{
	sigset_t s = only(SIGALRM);
	block(SIGALRM);
	int fd = DO(signalfd(-1, &s, 0));
	struct pollfd p = { fd, POLLIN, 0 };
	say("%d", poll(&p, 1, 0));
	soon(20);
	say("%d", poll(&p, 1, 20000));
}

corner(stopped_and_continued)
{
	int status, e[2];
	char b;
	DO(pipe(e));
	pid_t c = CHILD(close(e[1]); raise(SIGSTOP); (void)!read(e[0], &b, 1); _exit(3));
	CHECK(waitpid(c, &status, WUNTRACED) == c);
	say("%d %d", WIFSTOPPED(status), WSTOPSIG(status));
	DO(kill(c, SIGCONT));
	CHECK(waitpid(c, &status, WCONTINUED) == c);
	say("%d", WIFCONTINUED(status));
	close(e[1]);
	say("%d", reap(c));
}

corner(no_children_stopped)
{
	on(SIGCHLD, SA_NOCLDSTOP);
	int status;
	pid_t c = CHILD(raise(SIGSTOP));
	CHECK(waitpid(c, &status, WUNTRACED) == c);
	say("%d", hits[SIGCHLD]);
	DO(kill(c, SIGCONT));
	reap(c);
}

corner(children_not_waited_for)
{
	signal(SIGCHLD, SIG_IGN);
	CHILD(_exit(1));
	say("%s", told(wait(NULL)));
}

corner(child_signal_counted)
{
	on(SIGCHLD, 0);
	sigset_t none;
	sigemptyset(&none);
	block(SIGCHLD);
	pid_t c = CHILD(_exit(4));
	while (hits[SIGCHLD] == 0)
		sigsuspend(&none);
	say("%d %d", hits[SIGCHLD], reap(c));
}

corner(signal_to_child)
{
	int e[2];
	char b;
	DO(pipe(e));
	pid_t c = CHILD(on(SIGUSR1, 0); block(SIGUSR1); CHECK(write(e[1], "r", 1) == 1); sigset_t s = only(SIGUSR1); int got;
			CHECK(sigwait(&s, &got) == 0); _exit(got == SIGUSR1 ? 6 : 7));
	CHECK(read(e[0], &b, 1) == 1);
	DO(kill(c, SIGUSR1));
	say("%d", reap(c));
}

corner(mask_inherited)
{
	block(SIGUSR1);
	say("%d", reap(CHILD(sigset_t now; sigprocmask(SIG_BLOCK, NULL, &now); _exit(sigismember(&now, SIGUSR1)))));
}

corner(pending_not_inherited)
{
	block(SIGUSR1);
	DO(raise(SIGUSR1));
	say("%d", reap(CHILD(sigset_t now; sigpending(&now); _exit(sigismember(&now, SIGUSR1)))));
}

corner(handlers_inherited)
{
	on(SIGUSR1, 0);
	say("%d", reap(CHILD(raise(SIGUSR1); _exit(hits[SIGUSR1]))));
}

corner(sigaction_errors)
{
	struct sigaction a = { .sa_handler = SIG_IGN };
	say("%s %s", told(sigaction(SIGKILL, &a, NULL)), told(sigaction(99, &a, NULL)));
	say("%s", told(syscall(SYS_rt_sigaction, SIGUSR1, &a, NULL, 3)));
	say("%s", told(syscall(SYS_rt_sigprocmask, 77, &a, NULL, 8)));
	say("%s", told(syscall(SYS_rt_sigprocmask, SIG_BLOCK, nowhere(), NULL, 8)));
}

corner(kill_cannot_be_blocked)
{
	sigset_t all, now;
	sigfillset(&all);
	DO(sigprocmask(SIG_SETMASK, &all, &now));
	DO(sigprocmask(SIG_BLOCK, NULL, &now));
	say("%d %d %d", sigismember(&now, SIGKILL), sigismember(&now, SIGSTOP), sigismember(&now, SIGTERM));
}

static void *takes(void *arg)
{
	sigset_t s = only(SIGUSR1);
	int got;
	CHECK(sigwait(&s, &got) == 0);
	*(int *)arg = got;
	return NULL;
}

corner(signal_taken_by_thread)
{
	pthread_t t;
	int got = 0;
	block(SIGUSR1);
	CHECK(pthread_create(&t, NULL, takes, &got) == 0);
	CHECK(pthread_kill(t, SIGUSR1) == 0);
	pthread_join(t, NULL);
	say("%d", got == SIGUSR1);
}

static void *raised_here(void *arg)
{
	pthread_kill(pthread_self(), SIGUSR1);
	*(int *)arg = hits[SIGUSR1];
	return NULL;
}

corner(signal_in_thread)
{
	pthread_t t;
	int got = 0;
	on(SIGUSR1, 0);
	CHECK(pthread_create(&t, NULL, raised_here, &got) == 0);
	pthread_join(t, NULL);
	say("%d", got);
}

corner(parent_death_signal)
{
	int e[2];
	char b;
	DO(pipe(e));
	pid_t c = CHILD(pid_t g = CHILD(prctl(PR_SET_PDEATHSIG, SIGKILL); CHECK(write(e[1], "r", 1) == 1); for (;;) pause());
			(void)g; CHECK(read(e[0], &b, 1) == 1));
	reap(c);
	close(e[1]);
	say("%s", told(read(e[0], &b, 1)));
}

corner(io_signal)
{
	int e[2];
	on(SIGRTMIN + 2, 0);
	DO(socketpair(AF_UNIX, SOCK_STREAM, 0, e));
	DO(fcntl(e[0], F_SETSIG, SIGRTMIN + 2));
	DO(fcntl(e[0], F_SETOWN, getpid()));
	DO(fcntl(e[0], F_SETFL, O_ASYNC | O_NONBLOCK));
	sigset_t none;
	sigemptyset(&none);
	block(SIGRTMIN + 2);
	CHECK(write(e[1], "x", 1) == 1);
	while (hits[SIGRTMIN + 2] == 0)
		sigsuspend(&none);
	say("%d", hits[SIGRTMIN + 2] >= 1);
}

/* A handler sets a flag that the program looks at before it sleeps: computing in between makes nobody miss it. */
corner(flag_looked_at_before_sleep)
{
	int e[2], missed = 0;
	char b;
	DO(pipe(e));
	on(SIGUSR2, 0);
	pid_t parent = getpid();
	for (int round = 0; round < 20; round++) {
		hits[SIGUSR2] = 0;
		pid_t c = CHILD(CHECK(read(e[0], &b, 1) == 1); kill(parent, SIGUSR2));
		CHECK(write(e[1], "x", 1) == 1);
		for (volatile int i = 0; i < 1000000; i++)
			;
		/* The signal may come just here, without anybody's fault. */
		if (hits[SIGUSR2] == 0 && poll(NULL, 0, 2000) == 0)
			missed++;
		CHECK(reap(c) == 0);
		CHECK(hits[SIGUSR2] == 1);
	}
	say("%d", missed < 2);
}

static volatile int spin_lock_held;
static int spin_go[2], spin_done[2];

static void *spins(void *arg UNUSED)
{
	struct sigevent to_me = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };
	to_me._sigev_un._tid = gettid();
	timer_t timer;
	DO(timer_create(CLOCK_THREAD_CPUTIME_ID, &to_me, &timer));
	struct itimerspec each = { .it_value = { 0, 3000000 }, .it_interval = { 0, 3000000 } };
	DO(timer_settime(timer, 0, &each, NULL));
	char b;
	for (int round = 0; round < 3; round++) {
		CHECK(read(spin_go[0], &b, 1) == 1);
		while (spin_lock_held)
			;
		CHECK(write(spin_done[1], "d", 1) == 1);
	}
	DO(timer_delete(timer));
	return NULL;
}

/* A thread computes until another, which sleeps, lets it go on; it is signalled meanwhile. */
corner(signals_while_spinning)
{
	pthread_t t;
	char b;
	DO(pipe(spin_go));
	DO(pipe(spin_done));
	on(SIGUSR1, SA_RESTART);
	CHECK(pthread_create(&t, NULL, spins, NULL) == 0);
	for (int round = 0; round < 3; round++) {
		spin_lock_held = 1;
		CHECK(write(spin_go[1], "g", 1) == 1);
		DO(nanosleep(&(struct timespec){ 0, 60000000 }, NULL));
		spin_lock_held = 0;
		CHECK(read(spin_done[0], &b, 1) == 1);
	}
	CHECK(pthread_join(t, NULL) == 0);
	say("over");
}
