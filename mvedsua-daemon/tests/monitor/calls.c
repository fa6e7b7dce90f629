/* A guest whose system calls are known beforehand.
 *
 * usage: calls THREADS ROUNDS CHILDREN CHILD_ROUNDS SHORT_LIVED
 *
 * Says "ready" and waits for a line. Then each of THREADS threads makes ROUNDS rounds of five calls, each of CHILDREN
 * child processes CHILD_ROUNDS rounds, half of them in a second thread, and SHORT_LIVED further children one round each.
 * The CHILDREN begin when all of them are there. It says for each process how many rounds that were, "done", and waits for the end of its input.
 *
 * A round: getppid, getuid, getgid, lseek(-1) and close(-1); the last two fail with EBADF.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void *rounds(void *count)
{
	for (long i = 0; i < (long)count; i++) {
		syscall(SYS_getppid);
		syscall(SYS_getuid);
		syscall(SYS_getgid);
		syscall(SYS_lseek, -1, 0, 0);
		syscall(SYS_close, -1);
	}
	return NULL;
}

static int gate[2];

static void in_child(long count)
{
	pthread_t second;
	char go;

	if (read(gate[0], &go, 1) != 1)
		_exit(4);

	if (pthread_create(&second, NULL, rounds, (void *)(count / 2)))
		_exit(2);
	rounds((void *)(count - count / 2));
	if (pthread_join(second, NULL))
		_exit(3);
	_exit(0);
}

int main(int argc, char **argv)
{
	char line[16];
	int status;

	if (argc != 6)
		return 2;
	long threads = atol(argv[1]), count = atol(argv[2]);
	long children = atol(argv[3]), child_count = atol(argv[4]), short_lived = atol(argv[5]);
	pthread_t thread[threads];
	pid_t child[children];

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	if (!fgets(line, sizeof line, stdin))
		return 3;
	for (long i = 0; i < threads; i++)
		if (pthread_create(&thread[i], NULL, rounds, (void *)count))
			return 4;
	if (pipe(gate))
		return 9;
	for (long i = 0; i < children; i++) {
		child[i] = fork();
		if (child[i] < 0)
			return 5;
		if (child[i] == 0)
			in_child(child_count);
	}
	for (long i = 0; i < children; i++)
		if (write(gate[1], "g", 1) != 1)
			return 10;
	for (long i = 0; i < short_lived; i++) {
		pid_t pid = fork();
		if (pid < 0)
			return 6;
		if (pid == 0) {
			rounds((void *)1);
			_exit(0);
		}
		if (waitpid(pid, &status, 0) != pid || status)
			return 7;
	}
	for (long i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
	for (long i = 0; i < children; i++)
		if (waitpid(child[i], &status, 0) != child[i] || status)
			return 8;
	printf("rounds %d %ld\n", getpid(), threads * count);
	for (long i = 0; i < children; i++)
		printf("rounds %d %ld\n", child[i], child_count);
	puts("done");
	while (fgets(line, sizeof line, stdin))
		;
	return 0;
}
