/*
 * A program that is bound to the kernel by what belongs to its process alone. It is asked for each before it is updated, and
 * each round then tries whether it still has it.
 *
 *     go N terminal   take a terminal for the session
 *     go N leave      give it back
 *     go N notify     be told of messages
 *     go N share      map a file shared and writable
 *
 * rows: (none of its own)
 */
#include "guest.h"

#include <mqueue.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>
#include <time.h>

static int master, slave, has_terminal;
static volatile sig_atomic_t interrupts;
static mqd_t queue = -1;
static int file = -1;
static long *shared;

static void on_interrupt(int number)
{
	(void)number;
	interrupts++;
}

static void setup(void)
{
	/* It is its own when the terminal is given back. */
	signal(SIGHUP, SIG_IGN);
	signal(SIGCONT, SIG_IGN);
	signal(SIGINT, on_interrupt);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	DO(sigprocmask(SIG_BLOCK, &set, NULL));
	master = DO(posix_openpt(O_RDWR | O_NOCTTY));
	DO(grantpt(master));
	DO(unlockpt(master));
	slave = DO(open(ptsname(master), O_RDWR | O_NOCTTY));
}

static void use_terminal(void)
{
	int *number = at_edge(4);
	SYS(ioctl, slave, TIOCGSID, number);
	CHECK(*number == getpid() && getsid(0) == getpid());
	number = at_edge(4);
	SYS(ioctl, slave, TIOCGPGRP, number);
	CHECK(*number == getpgrp() && getpgrp() == getpid());
	/* The terminal is found by its name alone. */
	int own = DO(open("/dev/tty", O_RDWR));
	char *line = at_edge(6);
	CHECK(write(master, "hello\n", 6) == 6);
	CHECK(SYS(read, own, line, 6) == 6 && memcmp(line, "hello\n", 6) == 0);
	mix(line, 6);
	close(own);
	/* A key that the terminal makes a signal of, for all in front of it. */
	int before = interrupts;
	CHECK(write(master, "\003", 1) == 1);
	struct timespec little = { 0, 5000000 };
	for (int i = 0; i < 10000 && interrupts == before; i++)
		nanosleep(&little, NULL);
	CHECK(interrupts == before + 1);
}

static void register_for_message(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	event.sigev_value.sival_int = 77;
	DO(mq_notify(queue, &event));
}

static void be_told(void)
{
	char *text = at_edge(8);
	unsigned priority;
	DO(mq_send(queue, copied("message", 8), 8, 0));
	siginfo_t info;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	struct timespec limit = { 50, 0 };
	CHECK(sigtimedwait(&set, &info, &limit) == SIGUSR1);
	CHECK(info.si_code == SI_MESGQ && info.si_value.sival_int == 77);
	CHECK(mq_receive(queue, text, 8, &priority) == 8 && memcmp(text, "message", 8) == 0);
	mix(text, 8);
	register_for_message();
}

static void use_shared(long n)
{
	CHECK(shared[1] + 1 == n && shared[0] == 0x5eed);
	shared[1] = n;
	long *told = at_edge(sizeof *told);
	SYS(pread64, file, told, sizeof *told, sizeof *told);
	CHECK(*told == n);
	DO(msync(shared, 4096, MS_SYNC));
}

static void round_of(long n, const char *word)
{
	if (has_terminal && strcmp(word, "leave") != 0)
		use_terminal();
	if (queue != -1)
		be_told();
	if (shared)
		use_shared(n);
	if (strcmp(word, "terminal") == 0) {
		DO(ioctl(slave, TIOCSCTTY, 0));
		has_terminal = 1;
	} else if (strcmp(word, "leave") == 0) {
		DO(ioctl(slave, TIOCNOTTY));
		has_terminal = 0;
	} else if (strcmp(word, "notify") == 0) {
		struct mq_attr attributes = { .mq_maxmsg = 1, .mq_msgsize = 8 };
		char *name = named("/mvedsua-boundto-%d", getpid());
		queue = DO(mq_open(name, O_RDWR | O_CREAT, 0600, &attributes));
		DO(mq_unlink(name));
		register_for_message();
	} else if (strcmp(word, "share") == 0) {
		file = DO(open("shared", O_RDWR | O_CREAT | O_TRUNC, 0644));
		DO(ftruncate(file, 4096));
		shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		CHECK(shared != MAP_FAILED);
		shared[0] = 0x5eed;
		shared[1] = n;
	}
}
