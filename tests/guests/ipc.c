/*
 * System V semaphores and message queues, POSIX message queues. The set of setup() is kept over all rounds, with something to
 * be taken back at the end of the process: that must not happen when a version ends, only when the last one does.
 *
 * rows: semget semop semtimedop semctl/IPC_RMID semctl/IPC_SET semctl/IPC_STAT semctl/IPC_INFO semctl/GETPID semctl/GETVAL
 * rows: semctl/GETALL semctl/GETNCNT semctl/GETZCNT semctl/SETVAL semctl/SETALL semctl/SEM_STAT semctl/SEM_INFO
 * rows: semctl/SEM_STAT_ANY msgget msgsnd msgrcv msgctl/IPC_RMID msgctl/IPC_SET msgctl/IPC_STAT msgctl/IPC_INFO
 * rows: msgctl/MSG_STAT msgctl/MSG_INFO msgctl/MSG_STAT_ANY mq_open/PLAIN mq_open/CREATE mq_unlink mq_timedsend
 * rows: mq_timedreceive mq_notify mq_getsetattr
 */
#include "guest.h"

#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <time.h>

static int kept;

static struct sembuf *operation(int number, int change, int flags)
{
	struct sembuf one = { number, change, flags };
	return copied(&one, sizeof one);
}

static void leave(void)
{
	semctl(kept, 0, IPC_RMID);
}

static void setup(void)
{
	kept = DO(semget(IPC_PRIVATE, 2, 0600));
	struct sembuf up = { 1, 1, SEM_UNDO };
	DO(semop(kept, &up, 1));
	atexit(leave);
}

static void semaphores(long n)
{
	/* What is to be undone has not been: neither version has ended for good. */
	CHECK(SYS(semctl, kept, 1, GETVAL) == n);
	SYS(semop, kept, operation(1, 1, SEM_UNDO), 1);

	int set = MIXED(syscall(SYS_semget, IPC_PRIVATE, 3, 0600));
	unsigned short values[3] = { 4, 5, n % 100 }, *back = at_edge(6);
	SYS(semctl, set, 0, SETALL, copied(values, 6));
	SYS(semctl, set, 0, GETALL, back);
	CHECK(memcmp(back, values, 6) == 0);
	mix(back, 6);
	/* The number comes in a union: what stands above it means nothing. */
	SYS(semctl, set, 1, SETVAL, 7 | (unsigned long)&set << 32);
	CHECK(SYS(semctl, set, 1, GETVAL) == 7);
	struct sembuf both[2] = { { 0, -4, 0 }, { 1, 1, 0 } };
	SYS(semop, set, copied(both, sizeof both), 2);
	CHECK(SYS(semctl, set, 0, GETVAL) == 0);
	FAILS(EAGAIN, syscall(SYS_semop, set, operation(0, -1, IPC_NOWAIT), 1));
	struct timespec little = { 0, 2000000 };
	FAILS(EAGAIN, syscall(SYS_semtimedop, set, operation(0, -1, 0), 1, copied(&little, sizeof little)));
	mix_value(SYS(semctl, set, 0, GETPID));
	CHECK(SYS(semctl, set, 0, GETNCNT) == 0 && SYS(semctl, set, 0, GETZCNT) == 0);
	struct semid_ds *state = at_edge(sizeof *state);
	SYS(semctl, set, 0, IPC_STAT, state);
	CHECK(state->sem_nsems == 3);
	mix(state, sizeof *state);
	SYS(semctl, set, 0, IPC_SET, state);
	struct seminfo *info = at_edge(sizeof *info);
	mix_value(SYS(semctl, 0, 0, IPC_INFO, info));
	mix(info, sizeof *info);
	info = at_edge(sizeof *info);
	long last = SYS(semctl, 0, 0, SEM_INFO, info);
	mix(info, sizeof *info);
	int seen = 0;
	for (long i = 0; i <= last; i++) {
		state = at_edge(sizeof *state);
		if (syscall(SYS_semctl, i, 0, SEM_STAT, state) == set)
			seen++;
		state = at_edge(sizeof *state);
		if (syscall(SYS_semctl, i, 0, SEM_STAT_ANY, state) == set)
			seen++;
	}
	CHECK(seen == 2);
	SYS(semctl, set, 0, IPC_RMID);
	FAILS(EINVAL, syscall(SYS_semctl, set, 0, GETVAL));
	FAILS(EINVAL, syscall(SYS_semctl, set, 0, GETALL, back));
}

static void queues(long n)
{
	struct {
		long type;
		char text[20];
	} first = { 3, "" }, *got = at_edge(28);
	snprintf(first.text, sizeof first.text, "message %ld", n);
	int queue = MIXED(syscall(SYS_msgget, IPC_PRIVATE, 0600));
	SYS(msgsnd, queue, copied(&first, 28), 20, 0);
	first.type = 5;
	SYS(msgsnd, queue, copied(&first, 8 + 9), 9, 0);
	struct msqid_ds *state = at_edge(sizeof *state);
	SYS(msgctl, queue, IPC_STAT, state);
	CHECK(state->msg_qnum == 2);
	mix(state, sizeof *state);
	SYS(msgctl, queue, IPC_SET, state);
	/* A message that is too long is cut, if that is asked for; only what came is written. */
	FAILS(E2BIG, syscall(SYS_msgrcv, queue, got, 5, 3, 0));
	CHECK(SYS(msgrcv, queue, got, 20, 5, 0) == 9 && got->type == 5 && untouched((char *)got + 17, 11));
	mix(got, 28);
	got = at_edge(8 + 7);
	CHECK(SYS(msgrcv, queue, got, 7, 0, MSG_NOERROR) == 7);
	mix(got, 15);
	FAILS(ENOMSG, syscall(SYS_msgrcv, queue, got, 7, 0, IPC_NOWAIT));
	struct msginfo *info = at_edge(sizeof *info);
	mix_value(SYS(msgctl, 0, IPC_INFO, info));
	mix(info, sizeof *info);
	info = at_edge(sizeof *info);
	long last = SYS(msgctl, 0, MSG_INFO, info);
	mix(info, sizeof *info);
	int seen = 0;
	for (long i = 0; i <= last; i++) {
		state = at_edge(sizeof *state);
		if (syscall(SYS_msgctl, i, MSG_STAT, state) == queue)
			seen++;
		state = at_edge(sizeof *state);
		if (syscall(SYS_msgctl, i, 13 /* MSG_STAT_ANY */, state) == queue)
			seen++;
	}
	CHECK(seen == 2);
	SYS(msgctl, queue, IPC_RMID, NULL);
	FAILS(EINVAL, syscall(SYS_msgrcv, queue, got, 7, 0, 0));
}

static void named_queues(long n)
{
	char *name = named("mvedsua-guest-%d-%ld", getpid(), n);
	struct mq_attr wanted = { .mq_maxmsg = 3, .mq_msgsize = 16 }, *attributes = at_edge(sizeof *attributes);
	FAILS(ENOENT, syscall(SYS_mq_open, name, O_RDWR, 0xbad, NULL));
	int made = MIXED(syscall(SYS_mq_open, name, O_RDWR | O_CREAT | O_EXCL, 0600, copied(&wanted, sizeof wanted)));
	int queue = MIXED(syscall(SYS_mq_open, name, O_RDWR | O_NONBLOCK, 0xbad, NULL));
	SYS(mq_timedsend, made, copied("later", 5), 5, 1, NULL);
	SYS(mq_timedsend, made, copied("sooner", 6), 6, 9, NULL);
	unsigned *priority = at_edge(4);
	char *text = at_edge(16);
	CHECK(SYS(mq_timedreceive, queue, text, 16, priority, NULL) == 6 && *priority == 9);
	CHECK(memcmp(text, "sooner", 6) == 0 && untouched(text + 6, 10));
	mix(priority, 4);
	mix(text, 16);
	FAILS(EMSGSIZE, syscall(SYS_mq_timedreceive, queue, text, 5, NULL, NULL));
	text = at_edge(16);
	CHECK(SYS(mq_timedreceive, queue, text, 16, NULL, NULL) == 5);
	mix(text, 16);
	FAILS(EAGAIN, syscall(SYS_mq_timedreceive, queue, text, 16, NULL, NULL));
	struct timespec past = { 1, 0 };
	FAILS(ETIMEDOUT, syscall(SYS_mq_timedreceive, made, text, 16, NULL, copied(&past, sizeof past)));
	SYS(mq_getsetattr, queue, NULL, attributes);
	CHECK(attributes->mq_maxmsg == 3 && attributes->mq_flags == O_NONBLOCK);
	mix(attributes, sizeof *attributes);
	wanted.mq_flags = 0;
	attributes = at_edge(sizeof *attributes);
	SYS(mq_getsetattr, queue, copied(&wanted, sizeof wanted), attributes);
	mix(attributes, sizeof *attributes);
	SYS(mq_notify, queue, NULL);
	SYS(mq_unlink, name);
	close(made);
	close(queue);
}

static void round_of(long n, const char *word)
{
	(void)word;
	semaphores(n);
	queues(n);
	named_queues(n);
}
