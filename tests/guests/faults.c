/*
 * Faults that the program handles itself, as virtual machines do: threads are stopped by taking the page away that all of them
 * read, a pointer to nothing is found out by the fault, and so is a division by zero. How often each thread faults, and where,
 * is each version's own.
 *
 * rows: mprotect rt_sigaction rt_sigreturn futex
 */
#include "guest.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdatomic.h>

#define THREADS 4

static volatile char *page;
static sem_t stopped, go_on, begin[THREADS], done;
static atomic_int leave;
static uint64_t sums[THREADS];
static __thread sigjmp_buf rescue;
static __thread volatile int rescuing;

static void on_fault(int signo, siginfo_t *info, void *context)
{
	(void)context;
	if (rescuing)
		siglongjmp(rescue, signo);
	/* A safe point: wait until the page is there again. */
	if (signo != SIGSEGV || info->si_addr != page)
		_exit(3);
	sem_post(&stopped);
	while (sem_wait(&go_on) != 0)
		;
}

static void *work(void *arg)
{
	long me = (long)(intptr_t)arg;
	for (uint64_t round = 1;; round++) {
		while (sem_wait(&begin[me]) != 0)
			;
		while (!atomic_load(&leave))
			(void)*page;
		sums[me] = sums[me] * 31 + round;
		CHECK(sem_post(&done) == 0);
	}
	return NULL;
}

static void setup(void)
{
	page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(page != MAP_FAILED);
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	DO(sigaction(SIGSEGV, &action, NULL));
	DO(sigaction(SIGFPE, &action, NULL));
	DO(sem_init(&stopped, 0, 0));
	DO(sem_init(&go_on, 0, 0));
	DO(sem_init(&done, 0, 0));
	for (long i = 0; i < THREADS; i++) {
		pthread_t thread;
		DO(sem_init(&begin[i], 0, 0));
		CHECK(pthread_create(&thread, NULL, work, (void *)(intptr_t)i) == 0);
	}
}

static void wait_for(sem_t *semaphore)
{
	for (int i = 0; i < THREADS; i++)
		while (sem_wait(semaphore) != 0)
			;
}

__attribute__((noinline)) static int fault(volatile int *pointer, volatile int divisor)
{
	return pointer ? 100 / divisor : *pointer;
}

static int rescued(volatile int *pointer, int divisor)
{
	int signo = sigsetjmp(rescue, 1);
	if (signo == 0) {
		rescuing = 1;
		fault(pointer, divisor);
	}
	rescuing = 0;
	return signo;
}

static void round_of(long n, const char *word)
{
	(void)word;
	int something = (int)n;
	for (int i = 0; i < THREADS; i++)
		CHECK(sem_post(&begin[i]) == 0);
	for (int stops = 0; stops < 1 + n % 3; stops++) {
		DO(mprotect((void *)page, 4096, PROT_NONE));
		wait_for(&stopped);
		DO(mprotect((void *)page, 4096, PROT_READ));
		for (int i = 0; i < THREADS; i++)
			CHECK(sem_post(&go_on) == 0);
	}
	atomic_store(&leave, 1);
	wait_for(&done);
	atomic_store(&leave, 0);
	for (int i = 0; i < THREADS; i++)
		mix_value((long)sums[i]);
	CHECK(rescued(NULL, 1) == SIGSEGV);
	CHECK(rescued(&something, 0) == SIGFPE);
	CHECK(rescued(&something, 3) == 0);
}
