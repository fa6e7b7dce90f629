/* System V and POSIX message queues and semaphores; shared memory, which cannot be followed. */
#include "corner.h"

#include <mqueue.h>
#include <semaphore.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

static int op(int set, int number, int change, int flags)
{
	struct sembuf b = { number, change, flags };
	return semop(set, &b, 1);
}

static int a_set(int count)
{
	return (int)DO(semget(IPC_PRIVATE, count, 0600));
}

corner(sem_values)
{
	int s = a_set(2);
	DO(semctl(s, 0, SETVAL, 3));
	say("%s %s", told(semctl(s, 0, GETVAL)), told(semctl(s, 1, GETVAL)));
	say("%s", told(semctl(s, 2, GETVAL)));
	say("%s", told(semctl(s, 0, SETVAL, 40000)));
	DO(semctl(s, 0, IPC_RMID));
	say("%s", told(semctl(s, 0, GETVAL)));
}

corner(sem_all_values)
{
	int s = a_set(3);
	unsigned short v[4] = { 1, 2, 3, 99 };
	DO(semctl(s, 0, SETALL, v));
	memset(v, 0x55, sizeof v);
	DO(semctl(s, 0, GETALL, v));
	say("%d %d %d %x", v[0], v[1], v[2], v[3]);
	DO(semctl(s, 0, IPC_RMID));
}

corner(sem_no_wait)
{
	int s = a_set(1);
	say("%s %s", told(op(s, 0, -1, IPC_NOWAIT)), told(op(s, 0, 0, IPC_NOWAIT)));
	DO(op(s, 0, 2, 0));
	say("%s %s", told(op(s, 0, -1, IPC_NOWAIT)), told(op(s, 0, 0, IPC_NOWAIT)));
	DO(semctl(s, 0, IPC_RMID));
}

corner(sem_between_processes)
{
	int s = a_set(1), e[2];
	char b;
	DO(pipe(e));
	pid_t c = CHILD(DO(op(s, 0, -1, 0)); CHECK(write(e[1], "g", 1) == 1));
	DO(op(s, 0, 1, 0));
	CHECK(read(e[0], &b, 1) == 1);
	say("%c %d", b, reap(c));
	DO(semctl(s, 0, IPC_RMID));
}

corner(sem_undone_at_end)
{
	int s = a_set(1);
	DO(op(s, 0, 5, 0));
	say("%d", reap(CHILD(DO(op(s, 0, -3, SEM_UNDO)); _exit(semctl(s, 0, GETVAL)))));
	say("%s", told(semctl(s, 0, GETVAL)));
	DO(semctl(s, 0, IPC_RMID));
}

corner(sem_removed_while_waiting)
{
	int s = a_set(1);
	pid_t c = CHILD(_exit(op(s, 0, -1, 0) == -1 && errno == EIDRM ? 7 : 8));
	while (semctl(s, 0, GETNCNT) == 0)
		pass(1);
	DO(semctl(s, 0, IPC_RMID));
	say("%d", reap(c));
}

corner(sem_interrupted)
{
	int s = a_set(1);
	on(SIGALRM, SA_RESTART);
	alarm(1);
	say("%s", told(op(s, 0, -1, 0)));
	DO(semctl(s, 0, IPC_RMID));
}

corner(sem_timed)
{
	int s = a_set(1);
	struct sembuf b = { 0, -1, 0 };
	struct timespec t = { 0, 3000000 };
	say("%s", told(semtimedop(s, &b, 1, &t)));
	t.tv_nsec = -1;
	say("%s", told(semtimedop(s, &b, 1, &t)));
	DO(semctl(s, 0, IPC_RMID));
}

corner(sem_together)
{
	int s = a_set(2);
	struct sembuf b[] = { { 0, 1, 0 }, { 1, -1, IPC_NOWAIT } };
	say("%s", told(semop(s, b, 2)));
	say("%s", told(semctl(s, 0, GETVAL)));
	DO(semctl(s, 0, IPC_RMID));
}

corner(sem_errors)
{
	struct sembuf b = { 9, 1, 0 };
	int s = a_set(1);
	say("%s %s", told(semop(s, &b, 1)), told(semop(s, &b, 0)));
	say("%s %s", told(semop(-1, &b, 1)), told(semget(0x7ea1, 1, 0)));
	say("%s", told(semop(s, nowhere(), 1)));
	DO(semctl(s, 0, IPC_RMID));
}
struct text {
	long type;
	char text[16];
};
corner(msg_types)
{
	int q = (int)DO(msgget(IPC_PRIVATE, 0600));
	struct text m = { 2, "two" }, g;
	DO(msgsnd(q, &m, 4, 0));
	m.type = 1;
	strcpy(m.text, "one");
	DO(msgsnd(q, &m, 4, 0));
	CHECK(msgrcv(q, &g, 16, 1, 0) == 4);
	say("%s", g.text);
	CHECK(msgrcv(q, &g, 16, 0, 0) == 4);
	say("%s %ld", g.text, g.type);
	say("%s", told(msgrcv(q, &g, 16, 0, IPC_NOWAIT)));
	DO(msgctl(q, IPC_RMID, NULL));
}

corner(msg_too_long)
{
	int q = (int)DO(msgget(IPC_PRIVATE, 0600));
	struct text m = { 1, "abcdefgh" }, g = { 0, "" };
	DO(msgsnd(q, &m, 9, 0));
	say("%s", told(msgrcv(q, &g, 3, 0, 0)));
	say("%s %.3s", told(msgrcv(q, &g, 3, 0, MSG_NOERROR)), g.text);
	DO(msgctl(q, IPC_RMID, NULL));
}

corner(msg_highest_first)
{
	int q = (int)DO(msgget(IPC_PRIVATE, 0600));
	struct text m = { 3, "c" }, g;
	DO(msgsnd(q, &m, 2, 0));
	m.type = 2;
	DO(msgsnd(q, &m, 2, 0));
	CHECK(msgrcv(q, &g, 16, -3, 0) == 2);
	say("%ld", g.type);
	CHECK(msgrcv(q, &g, 16, 99, MSG_EXCEPT) == 2);
	say("%ld", g.type);
	DO(msgctl(q, IPC_RMID, NULL));
}

corner(msg_empty_and_wrong)
{
	int q = (int)DO(msgget(IPC_PRIVATE, 0600));
	struct text m = { 1, "" };
	say("%s", told(msgsnd(q, &m, 0, 0)));
	say("%s", told(msgrcv(q, &m, 0, 0, 0)));
	m.type = 0;
	say("%s %s", told(msgsnd(q, &m, 1, 0)), told(msgsnd(-1, &m, 1, 0)));
	struct msqid_ds d;
	DO(msgctl(q, IPC_STAT, &d));
	say("%d", (int)d.msg_qnum);
	DO(msgctl(q, IPC_RMID, NULL));
}

corner(msg_between_processes)
{
	int q = (int)DO(msgget(IPC_PRIVATE, 0600));
	struct text g;
	pid_t c = CHILD(struct text m = { 7, "child" }; DO(msgsnd(q, &m, 6, 0)));
	CHECK(msgrcv(q, &g, 16, 7, 0) == 6);
	say("%s %d", g.text, reap(c));
	DO(msgctl(q, IPC_RMID, NULL));
}

static mqd_t a_queue(char *name, int flags)
{
	struct mq_attr a = { .mq_maxmsg = 2, .mq_msgsize = 8 };
	snprintf(name, 40, "/mvedsua-corner-%d", getpid());
	return DO(mq_open(name, O_RDWR | O_CREAT | O_EXCL | flags, 0600, &a));
}

corner(mq_priorities)
{
	char name[40], b[8];
	unsigned p;
	mqd_t q = a_queue(name, 0);
	DO(mq_unlink(name));
	DO(mq_send(q, "low", 4, 1));
	DO(mq_send(q, "high", 5, 9));
	CHECK(mq_receive(q, b, 8, &p) == 5);
	say("%s %u", b, p);
	CHECK(mq_receive(q, b, 8, NULL) == 4);
	say("%s", b);
}

corner(mq_full_and_empty)
{
	char name[40], b[8];
	mqd_t q = a_queue(name, O_NONBLOCK);
	DO(mq_unlink(name));
	say("%s", told(mq_receive(q, b, 8, NULL)));
	DO(mq_send(q, "a", 1, 0));
	DO(mq_send(q, "b", 1, 0));
	say("%s", told(mq_send(q, "c", 1, 0)));
	say("%s %s", told(mq_send(q, "123456789", 9, 0)), told(mq_receive(q, b, 7, NULL)));
}

corner(mq_times_out)
{
	char name[40], b[8];
	struct timespec t = { 1, 0 };
	mqd_t q = a_queue(name, 0);
	DO(mq_unlink(name));
	say("%s", told(mq_timedreceive(q, b, 8, NULL, &t)));
	DO(mq_send(q, "x", 1, 0));
	say("%s", told(mq_timedreceive(q, b, 8, NULL, &t)));
}

corner(mq_attributes)
{
	char name[40];
	struct mq_attr a;
	mqd_t q = a_queue(name, 0);
	DO(mq_getattr(q, &a));
	say("%ld %ld %ld", a.mq_maxmsg, a.mq_msgsize, a.mq_flags);
	a.mq_flags = O_NONBLOCK;
	DO(mq_setattr(q, &a, NULL));
	DO(mq_getattr(q, &a));
	say("%d", a.mq_flags == O_NONBLOCK);
	DO(mq_unlink(name));
	say("%s", told(mq_unlink(name)));
	say("%s", told(mq_open("/mvedsua-nothing", O_RDONLY)));
}

corner(mq_between_processes)
{
	char name[40], b[8];
	mqd_t q = a_queue(name, 0);
	pid_t c = CHILD(mqd_t r = DO(mq_open(name, O_WRONLY)); DO(mq_send(r, "hi", 3, 0)));
	CHECK(mq_receive(q, b, 8, NULL) == 3);
	say("%s %d", b, reap(c));
	DO(mq_unlink(name));
}

corner(mq_tells)
{
	char name[40];
	mqd_t q = a_queue(name, 0);
	DO(mq_unlink(name));
	struct sigevent e = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	on(SIGUSR1, 0);
	DO(mq_notify(q, &e));
	DO(mq_send(q, "x", 1, 0));
	say("%d", hits[SIGUSR1]);
}

corner(shm_segment)
{
	int id = (int)DO(shmget(IPC_PRIVATE, 4096, 0600));
	int *p = shmat(id, NULL, 0);
	CHECK(p != (void *)-1);
	DO(shmctl(id, IPC_RMID, NULL));
	reap(CHILD(*p = 33));
	say("%d", *p);
	DO(shmdt(p));
}

corner(unnamed_semaphore_shared)
{
	sem_t *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	DO(sem_init(s, 1, 0));
	pid_t c = CHILD(DO(sem_post(s)));
	DO(sem_wait(s));
	say("%d", reap(c));
}

corner(unnamed_semaphore_shared_too_late)
{
	sem_t *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	DO(sem_init(s, 1, 0));
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += 30000000;
	t.tv_sec += t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	say("%s", told(sem_timedwait(s, &t)));
	DO(sem_post(s));
	DO(sem_wait(s));
}

corner(unnamed_semaphore)
{
	sem_t s;
	DO(sem_init(&s, 0, 1));
	DO(sem_wait(&s));
	say("%s", told(sem_trywait(&s)));
	DO(sem_post(&s));
	int v;
	DO(sem_getvalue(&s, &v));
	say("%d", v);
}
