/* A guest whose calls are slow when it is told so.
 *
 * For each line "timer" it reads from a timer that fires after 30 ms (and says the descriptor and the buffer), for
 * "sleep" it sleeps as long, for "quick N" it makes N calls of getppid; then it says "done".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
	struct itimerspec spec = { .it_value.tv_nsec = 30 * 1000 * 1000 };
	int timer = timerfd_create(CLOCK_MONOTONIC, 0);
	uint64_t fired;
	char line[32];

	if (timer < 0)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof line, stdin)) {
		if (!strcmp(line, "timer\n")) {
			printf("%d %llu\n", timer, (unsigned long long)(uintptr_t)&fired);
			if (timerfd_settime(timer, 0, &spec, NULL) || read(timer, &fired, sizeof fired) != sizeof fired)
				return 3;
		} else if (!strcmp(line, "sleep\n")) {
			nanosleep(&spec.it_value, NULL);
		} else if (!strncmp(line, "quick ", 6)) {
			for (long i = atol(line + 6); i > 0; i--)
				syscall(SYS_getppid);
		}
		puts("done");
	}
	return 0;
}
