/* A guest with a steady load of calls of varying length: reads of 64 to 512 KiB, sleeps of 50 to 300 us and waits of 1 to
 * 8 ms, in THREADS threads, until its input ends.
 *
 * usage: steady THREADS
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int zero;

static unsigned next(unsigned *state, unsigned from, unsigned to)
{
	*state = *state * 1664525u + 1013904223u;
	return from + (*state >> 8) % (to - from);
}

static void *load(void *seed)
{
	unsigned state = (unsigned)(long)seed;
	char *buffer = malloc(512 << 10);

	for (;;) {
		for (int i = 0; i < 10; i++) {
			struct timespec pause = { 0, next(&state, 50000, 300000) };
			if (read(zero, buffer, next(&state, 64, 512) << 10) < 0)
				exit(3);
			nanosleep(&pause, NULL);
		}
		poll(NULL, 0, (int)next(&state, 1, 9));
	}
	return NULL;
}

int main(int argc, char **argv)
{
	char line[16];

	if (argc != 2)
		return 2;
	zero = open("/dev/zero", O_RDONLY);
	for (long i = 0; i < atol(argv[1]); i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, load, (void *)(i + 1)))
			return 4;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof line, stdin))
		;
	return 0;
}
