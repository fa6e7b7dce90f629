/*
 * fcntl by command, and file locks. The locks of setup() are held over all rounds: they must still be held, by the process
 * that serves, after a promotion.
 *
 * rows: fcntl/F_DUPFD fcntl/F_DUPFD_CLOEXEC fcntl/F_GETFD fcntl/F_SETFD fcntl/F_GETFL fcntl/F_SETFL
 * rows: fcntl/F_GETLK fcntl/F_SETLK fcntl/F_SETLKW fcntl/F_OFD_GETLK fcntl/F_OFD_SETLK fcntl/F_OFD_SETLKW
 * rows: fcntl/F_SETOWN fcntl/F_GETOWN fcntl/F_SETOWN_EX fcntl/F_GETOWN_EX fcntl/F_SETSIG fcntl/F_GETSIG
 * rows: fcntl/F_SETLEASE fcntl/F_GETLEASE fcntl/F_SETPIPE_SZ fcntl/F_GETPIPE_SZ fcntl/F_ADD_SEALS fcntl/F_GET_SEALS
 * rows: flock fcntl/F_GETOWNER_UIDS fcntl/F_DUPFD_QUERY fcntl/F_CREATED_QUERY fcntl/F_GET_RW_HINT fcntl/F_SET_RW_HINT
 * rows: fcntl/F_GET_FILE_RW_HINT fcntl/F_SET_FILE_RW_HINT
 */
#include "guest.h"

#include <sys/file.h>
#include <sys/wait.h>

static int held, held_flock, held_ofd;

static struct flock *lock_at(short type, off_t start, off_t len)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };
	return copied(&lock, sizeof lock);
}

static void setup(void)
{
	held = DO(open("held", O_RDWR | O_CREAT, 0644));
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5 };
	DO(fcntl(held, F_SETLK, &lock));
	held_flock = DO(open("held-flock", O_RDWR | O_CREAT, 0644));
	DO(flock(held_flock, LOCK_EX));
	held_ofd = DO(open("held-ofd", O_RDWR | O_CREAT, 0644));
	struct flock ofd = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 7 };
	DO(fcntl(held_ofd, F_OFD_SETLK, &ofd));
}

/* Asks from another process, to which the locks of this one are those of a stranger. */
static void still_held(void)
{
	int ends[2];
	DO(pipe(ends));
	pid_t me = getpid(), child = DO(fork());
	if (child == 0) {
		char answer[3] = "nnn";
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 100 };
		int file = open("held", O_RDWR);
		if (fcntl(file, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK && lock.l_start == 10 && lock.l_len == 5 &&
		    lock.l_pid == me)
			answer[0] = 'y';
		file = open("held-flock", O_RDWR);
		if (flock(file, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK)
			answer[1] = 'y';
		file = open("held-ofd", O_RDWR);
		struct flock ofd = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
		if (fcntl(file, F_OFD_GETLK, &ofd) == 0 && ofd.l_type == F_WRLCK && ofd.l_len == 7)
			answer[2] = 'y';
		_exit(write(ends[1], answer, 3) != 3);
	}
	close(ends[1]);
	char *answer = at_edge(3);
	CHECK(read(ends[0], answer, 3) == 3);
	close(ends[0]);
	int status;
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	if (memcmp(answer, "yyy", 3) != 0)
		fail_at(__FILE__, __LINE__, "locks held (record, flock, open file description): %.3s", answer);
}

static void locking(long n)
{
	char *name = named("locked-%ld", n);
	int fd = DO(open(name, O_RDWR | O_CREAT, 0644)), other = DO(open(name, O_RDWR));
	SYS(fcntl, fd, F_SETLK, lock_at(F_WRLCK, 0, 10));
	SYS(fcntl, fd, F_SETLKW, lock_at(F_WRLCK, 100, 10));
	struct flock *lock = lock_at(F_WRLCK, 0, 0);
	SYS(fcntl, fd, F_GETLK, lock);
	CHECK(lock->l_type == F_UNLCK);
	mix(lock, sizeof *lock);
	/* Locks of the process and of the open file exclude each other, in one process too. */
	lock = lock_at(F_WRLCK, 0, 0);
	SYS(fcntl, other, F_OFD_GETLK, lock);
	CHECK(lock->l_type == F_WRLCK && lock->l_len == 10);
	mix(lock, sizeof *lock);
	FAILS(EAGAIN, syscall(SYS_fcntl, other, F_OFD_SETLK, lock_at(F_WRLCK, 5, 1)));
	SYS(fcntl, other, F_OFD_SETLK, lock_at(F_WRLCK, 50, 1));
	SYS(fcntl, other, F_OFD_SETLKW, lock_at(F_RDLCK, 60, 1));
	SYS(fcntl, fd, F_SETLK, lock_at(F_UNLCK, 0, 0));
	SYS(flock, fd, LOCK_SH);
	FAILS(EWOULDBLOCK, syscall(SYS_flock, other, LOCK_EX | LOCK_NB));
	SYS(flock, fd, LOCK_UN);
	close(other);
	SYS(fcntl, fd, F_SETLEASE, F_WRLCK);
	CHECK(SYS(fcntl, fd, F_GETLEASE) == F_WRLCK);
	SYS(fcntl, fd, F_SETLEASE, F_UNLCK);
	close(fd);
	DO(unlink(name));
}

static void commands(void)
{
	int ends[2];
	DO(pipe(ends));
	int copy = MIXED(syscall(SYS_fcntl, ends[0], F_DUPFD, 50)), second = MIXED(syscall(SYS_fcntl, ends[0], F_DUPFD_CLOEXEC, 50));
	CHECK(copy == 50 && second == 51);
	CHECK(SYS(fcntl, copy, F_GETFD) == 0 && SYS(fcntl, second, F_GETFD) == FD_CLOEXEC);
	SYS(fcntl, copy, F_SETFD, FD_CLOEXEC);
	CHECK(SYS(fcntl, copy, F_GETFD) == FD_CLOEXEC);
	CHECK(SYS(fcntl, ends[1], F_GETFL) == O_WRONLY);
	SYS(fcntl, ends[1], F_SETFL, O_NONBLOCK);
	CHECK(SYS(fcntl, ends[1], F_GETFL) == (O_WRONLY | O_NONBLOCK));
	mix_value(SYS(fcntl, ends[1], F_SETPIPE_SZ, 8192));
	CHECK(SYS(fcntl, ends[0], F_GETPIPE_SZ) == 8192);
	SYS(fcntl, ends[0], F_SETOWN, getpid());
	CHECK(SYS(fcntl, ends[0], F_GETOWN) == getpid());
	struct {
		int type, pid;
	} owner = { 1, getpid() }, *asked = at_edge(8);
	SYS(fcntl, ends[0], 15, copied(&owner, 8));
	SYS(fcntl, ends[0], 16, asked);
	CHECK(asked->type == 1 && asked->pid == getpid());
	mix(asked, 8);
	SYS(fcntl, ends[0], F_SETSIG, SIGUSR1);
	CHECK(SYS(fcntl, ends[0], F_GETSIG) == SIGUSR1);
	close(copy);
	close(second);
	close(ends[0]);
	close(ends[1]);
	DO(pipe(ends));
	unsigned *owners = at_edge(8);
	SYS(fcntl, ends[0], 17 /* F_GETOWNER_UIDS */, owners);
	mix(owners, 8);
	copy = DO(dup(ends[0]));
	CHECK(syscall(SYS_fcntl, ends[0], 1027 /* F_DUPFD_QUERY */, copy) == 1);
	CHECK(syscall(SYS_fcntl, ends[0], 1027, ends[1]) == 0);
	mix_value(syscall(SYS_fcntl, ends[0], 1028 /* F_CREATED_QUERY */));
	close(copy);
	close(ends[0]);
	close(ends[1]);
	int fd = DO(memfd_create("sealed", MFD_ALLOW_SEALING));
	uint64_t *hint = at_edge(8), wanted = 2 /* RWH_WRITE_LIFE_SHORT */;
	mix_value(syscall(SYS_fcntl, fd, F_SET_RW_HINT, copied(&wanted, 8)));
	mix_value(syscall(SYS_fcntl, fd, F_GET_RW_HINT, hint));
	mix(hint, 8);
	hint = at_edge(8);
	/* Gone since Linux 5.17. */
	mix_value(syscall(SYS_fcntl, fd, F_SET_FILE_RW_HINT, copied(&wanted, 8)));
	mix_value(syscall(SYS_fcntl, fd, F_GET_FILE_RW_HINT, hint));
	mix(hint, 8);
	SYS(fcntl, fd, F_ADD_SEALS, F_SEAL_GROW);
	CHECK(SYS(fcntl, fd, F_GET_SEALS) == F_SEAL_GROW);
	close(fd);
}

static void round_of(long n, const char *word)
{
	(void)word;
	still_held();
	locking(n);
	commands();
}
