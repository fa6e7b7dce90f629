/*
 * Children over several rounds. Each round makes some, and the next waits for them: by number, by a descriptor, for any, for
 * a stream's. They talk to their parent meanwhile, and they ask who it is.
 *
 * rows: clone/FORK wait4 waitid pidfd_open kill getppid rt_sigaction
 */
#include "guest.h"

#include <sys/wait.h>

static pid_t parent;
static volatile sig_atomic_t ended;

/* Of the round before. */
static struct {
	/* One that waits for orders, one that has ended and was not waited for, one that waits to be killed. */
	pid_t talker, zombie, victim;
	int orders, answers, pidfd;
	FILE *stream;
} children;

static void count_end(int number)
{
	(void)number;
	ended++;
}

/* Answers each order with the number of its parent, and ends with the status that it is told, or when the parent is gone. */
__attribute__((noreturn)) static void talk(int orders, int answers)
{
	unsigned char order;
	for (;;) {
		if (read(orders, &order, 1) != 1)
			_exit(99);
		if (order < 200)
			_exit(order);
		pid_t now = (pid_t)syscall(SYS_getppid);
		if (write(answers, &now, sizeof now) != sizeof now)
			_exit(98);
	}
}

static void ask_talker(void)
{
	unsigned char order = 255;
	pid_t *told = at_edge(sizeof *told);
	CHECK(write(children.orders, &order, 1) == 1);
	CHECK(SYS(read, children.answers, told, sizeof *told) == sizeof *told);
	CHECK(*told == parent);
}

static void give_birth(long n)
{
	int orders[2], answers[2];
	DO(pipe2(orders, O_CLOEXEC));
	DO(pipe2(answers, O_CLOEXEC));
	children.talker = MIXED(fork());
	if (children.talker == 0) {
		close(orders[1]);
		close(answers[0]);
		talk(orders[0], answers[1]);
	}
	close(orders[0]);
	close(answers[1]);
	children.orders = orders[1];
	children.answers = answers[0];
	ask_talker();

	/* It has ended when this round is over, and its signal has come. */
	int before = ended;
	children.zombie = MIXED(fork());
	if (children.zombie == 0)
		_exit((int)(n % 100));
	siginfo_t *info = at_edge(sizeof *info);
	SYS(waitid, P_PID, children.zombie, info, WEXITED | WNOWAIT, NULL);
	CHECK(info->si_pid == children.zombie && info->si_code == CLD_EXITED && info->si_status == n % 100);
	/* A signal reaches a follower before the next call. */
	SYS(getppid);
	CHECK(ended == before + 1);

	int leash[2];
	DO(pipe2(leash, O_CLOEXEC));
	children.victim = MIXED(fork());
	if (children.victim == 0) {
		char nothing;
		close(leash[1]);
		close(children.orders);
		_exit(read(leash[0], &nothing, 1) == 0 ? 97 : 96);
	}
	close(leash[0]);
	/* The other end is where nobody closes it but this process by ending. */
	DO(dup2(leash[1], 900));
	close(leash[1]);
	children.pidfd = MIXED(syscall(SYS_pidfd_open, children.victim, 0));

	children.stream = popen("echo from the shell; exit 5", "re");
	CHECK(children.stream);
}

static void collect(long n)
{
	int *status = at_edge(4), before = ended;
	ask_talker();
	/* By its number, while another one has ended. */
	CHECK(SYS(wait4, children.talker, status, WNOHANG, NULL) == 0 && untouched(status, 4));
	unsigned char order = (unsigned char)(n % 150);
	CHECK(write(children.orders, &order, 1) == 1);
	CHECK(SYS(wait4, children.talker, status, 0, NULL) == children.talker);
	CHECK(WIFEXITED(*status) && WEXITSTATUS(*status) == order);
	SYS(getppid);
	/* The shell may have ended meanwhile as well. */
	CHECK(ended > before);
	mix(status, 4);
	close(children.orders);
	close(children.answers);

	SYS(kill, children.victim, SIGTERM);
	siginfo_t *info = at_edge(sizeof *info);
	SYS(waitid, P_PIDFD, children.pidfd, info, WEXITED, NULL);
	CHECK(info->si_pid == children.victim && info->si_code == CLD_KILLED && info->si_status == SIGTERM);
	close(children.pidfd);

	char line[40];
	CHECK(fgets(line, sizeof line, children.stream) && strcmp(line, "from the shell\n") == 0);
	int left = pclose(children.stream);
	CHECK(WIFEXITED(left) && WEXITSTATUS(left) == 5);

	/* Any: only the one is left that ended long ago. */
	status = at_edge(4);
	CHECK(SYS(wait4, -1, status, 0, NULL) == children.zombie);
	CHECK(WIFEXITED(*status) && WEXITSTATUS(*status) == (n - 1) % 100);
	mix(status, 4);
	FAILS(ECHILD, syscall(SYS_wait4, -1, status, WNOHANG, NULL));
}

static void setup(void)
{
	parent = getpid();
	struct sigaction action = { .sa_handler = count_end, .sa_flags = SA_RESTART };
	DO(sigaction(SIGCHLD, &action, NULL));
}

static void round_of(long n, const char *word)
{
	(void)word;
	if (children.talker)
		collect(n);
	give_birth(n);
}
