/*
 * A program that is bound to the kernel by what its process is.
 *
 *     go N terminal   take a terminal for the session
 *     go N leave      give it back
 *     go N notify     wait to be told of a message
 *     go N child      make a child
 *     go N collect    let it end, and wait for it
 *
 * rows: (none of its own)
 */
#include "guest.h"

#include <mqueue.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

static int slave, leash[2];
static pid_t child;

static void setup(void)
{
	/* It is its own when the terminal is given back. */
	signal(SIGHUP, SIG_IGN);
	signal(SIGCONT, SIG_IGN);
	int master = DO(posix_openpt(O_RDWR | O_NOCTTY));
	DO(grantpt(master));
	DO(unlockpt(master));
	slave = DO(open(ptsname(master), O_RDWR | O_NOCTTY));
}

static void round_of(long n, const char *word)
{
	(void)n;
	if (strcmp(word, "terminal") == 0)
		DO(ioctl(slave, TIOCSCTTY, 0));
	else if (strcmp(word, "leave") == 0)
		DO(ioctl(slave, TIOCNOTTY));
	else if (strcmp(word, "child") == 0) {
		DO(pipe(leash));
		child = DO(fork());
		if (child == 0) {
			char nothing;
			close(leash[1]);
			_exit(read(leash[0], &nothing, 1) == 0 ? 9 : 1);
		}
		close(leash[0]);
	} else if (strcmp(word, "collect") == 0) {
		int status;
		close(leash[1]);
		CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 9);
		FAILS(ECHILD, waitpid(-1, &status, 0));
	} else if (strcmp(word, "notify") == 0) {
		struct mq_attr attributes = { .mq_maxmsg = 1, .mq_msgsize = 8 };
		struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
		char *name = named("/mvedsua-bound-%d", getpid());
		mqd_t queue = DO(mq_open(name, O_RDWR | O_CREAT, 0600, &attributes));
		DO(mq_notify(queue, &event));
		DO(mq_unlink(name));
	}
}
