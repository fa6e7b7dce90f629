/*
 * Stopped and continued from outside, as a shell does: sleeping calls go on with what is left, and nobody sees an EINTR.
 *
 * rows: restart_syscall nanosleep poll
 */
#include "guest.h"

#include <poll.h>
#include <sys/wait.h>
#include <time.h>

static void setup(void)
{
}

/* Starts a child that stops this process until it is seen to be stopped, then continues it. */
static pid_t stopper(void)
{
	pid_t me = getpid(), child = DO(fork());
	if (child != 0)
		return child;
	char path[64], text[512];
	snprintf(path, sizeof path, "/proc/%d/stat", me);
	struct timespec little = { 0, 30000000 };
	nanosleep(&little, NULL);
	kill(me, SIGSTOP);
	for (int i = 0; i < 1000; i++) {
		int fd = open(path, O_RDONLY);
		ssize_t got = read(fd, text, sizeof text - 1);
		close(fd);
		text[got > 0 ? got : 0] = 0;
		char *state = strrchr(text, ')');
		if (state != NULL && (state[2] == 'T' || state[2] == 't'))
			break;
		nanosleep(&little, NULL);
	}
	kill(me, SIGCONT);
	_exit(0);
}

static long elapsed_ms(const struct timespec *since)
{
	struct timespec now;
	DO(clock_gettime(CLOCK_MONOTONIC, &now));
	return (now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000;
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	struct timespec start, some = { 0, 300000000 };
	int ends[2];
	DO(pipe(ends));
	DO(clock_gettime(CLOCK_MONOTONIC, &start));
	pid_t child = stopper();
	CHECK(syscall(SYS_nanosleep, &some, NULL) == 0);
	CHECK(elapsed_ms(&start) >= 300);
	CHECK(waitpid(child, NULL, 0) == child);
	DO(clock_gettime(CLOCK_MONOTONIC, &start));
	child = stopper();
	struct pollfd fd = { ends[0], POLLIN, 0 };
	CHECK(poll(&fd, 1, 300) == 0);
	CHECK(elapsed_ms(&start) >= 300);
	CHECK(waitpid(child, NULL, 0) == child);
	close(ends[0]);
	close(ends[1]);
}
