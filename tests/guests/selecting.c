/*
 * Threads that wait with a limit of time, which the kernel shortens in their memory when the call is interrupted: select,
 * pselect6 and ppoll. Each is woken in each round, and waits with what its memory says.
 *
 * rows: (none of its own)
 */
#include "guest.h"

#include <poll.h>
#include <pthread.h>
#include <sys/select.h>

enum { SELECT, PSELECT, PPOLL, WAYS };

static int wake[WAYS][2], woken[WAYS][2];

static void *wait_again_and_again(void *which)
{
	long way = (long)which;
	int fd = wake[way][0];
	for (;;) {
		char byte;
		fd_set set;
		FD_ZERO(&set);
		FD_SET(fd, &set);
		struct timeval time = { 600, 0 };
		struct timespec precise = { 600, 0 }, *limit = &precise;
		struct pollfd one = { fd, POLLIN, 0 };
		/* The C library keeps a copy; the calls themselves change their argument. */
		if (way == SELECT)
			CHECK(syscall(SYS_select, fd + 1, &set, NULL, NULL, &time) == 1);
		else if (way == PSELECT)
			CHECK(syscall(SYS_pselect6, fd + 1, &set, NULL, NULL, limit, NULL) == 1);
		else
			CHECK(syscall(SYS_ppoll, &one, 1, limit, NULL, 8) == 1);
		DO(read(fd, &byte, 1));
		DO(write(woken[way][1], &byte, 1));
	}
	return NULL;
}

static void setup(void)
{
	for (long way = 0; way < WAYS; way++) {
		pthread_t thread;
		DO(pipe(wake[way]));
		DO(pipe(woken[way]));
		CHECK(pthread_create(&thread, NULL, wait_again_and_again, (void *)way) == 0);
	}
}

static void round_of(long n, const char *word)
{
	(void)word;
	for (int way = 0; way < WAYS; way++) {
		char byte = (char)n, answer = 0;
		DO(write(wake[way][1], &byte, 1));
		DO(read(woken[way][0], &answer, 1));
		CHECK(answer == byte);
		mix(&answer, 1);
	}
}
