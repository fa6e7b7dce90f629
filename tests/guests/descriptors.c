/*
 * Reading and writing through descriptors; making, copying and closing them.
 *
 * rows: read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 lseek fstat fstatfs
 * rows: close close_range dup dup2 dup3 pipe pipe2 sendfile splice tee copy_file_range
 * rows: fsync fdatasync sync syncfs sync_file_range ftruncate fallocate fchmod fchown readahead fadvise64
 * rows: getdents getdents64 eventfd eventfd2 memfd_create signalfd signalfd4 cachestat
 */
#include "guest.h"

#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/vfs.h>

static void setup(void)
{
}

static void moving_bytes(long n)
{
	char *name = named("bytes-%ld", n);
	int fd = DO(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644));
	char *data = at_edge(10000);
	for (int i = 0; i < 10000; i++)
		data[i] = (char)(i * 7 + n);
	CHECK(SYS(write, fd, data, 10000) == 10000);
	/* Part of the memory that is asked for is not mapped: the call writes what there is. */
	long some = SYS(write, fd, data + 9000, 5000);
	CHECK(some == 1000 || some == 904);
	mix_value(some);
	FAILS(EFAULT, syscall(SYS_write, fd, data + 10000, 10));
	CHECK(SYS(write, fd, data, 0) == 0);
	DO(ftruncate(fd, 10000));
	CHECK(SYS(lseek, fd, 0, SEEK_SET) == 0);
	char *back = at_edge(6000);
	CHECK(SYS(read, fd, back, 6000) == 6000 && memcmp(back, data, 6000) == 0);
	back = at_edge(6000);
	CHECK(SYS(read, fd, back, 6000) == 4000 && untouched(back + 4000, 2000));
	mix(back, 6000);
	CHECK(SYS(read, fd, back, 6000) == 0);
	CHECK(SYS(pwrite64, fd, "ABC", 3, 5) == 3);
	back = at_edge(3);
	CHECK(SYS(pread64, fd, back, 3, 5) == 3 && memcmp(back, "ABC", 3) == 0);
	mix(back, 3);

	/* Vectors: the third buffer is filled only in part, an empty one lies between. */
	struct iovec out[4] = { { data, 10 }, { NULL, 0 }, { data + 9990, 10 }, { data + 100, 1 } };
	CHECK(SYS(pwritev, fd, copied(out, sizeof out), 4, 20, 0) == 21);
	CHECK(SYS(pwritev2, fd, copied(out, sizeof out), 4, 41, 0, 0) == 21);
	SYS(lseek, fd, 62, SEEK_SET);
	CHECK(SYS(writev, fd, copied(out, sizeof out), 4) == 21);
	struct iovec in[4] = { { at_edge(11), 11 }, { NULL, 0 }, { at_edge(20), 20 }, { at_edge(5), 5 } };
	DO(ftruncate(fd, 45));
	CHECK(SYS(preadv, fd, copied(in, sizeof in), 4, 20, 0) == 25);
	CHECK(untouched((char *)in[2].iov_base + 14, 6) && untouched(in[3].iov_base, 5));
	mix(in[0].iov_base, 11);
	mix(in[2].iov_base, 20);
	CHECK(SYS(preadv2, fd, copied(in, sizeof in), 2, 3, 0, 0) == 11);
	mix(in[0].iov_base, 11);
	SYS(lseek, fd, 0, SEEK_SET);
	CHECK(SYS(readv, fd, copied(in, sizeof in), 4) == 36);
	mix(in[2].iov_base, 20);
	mix(in[3].iov_base, 5);
	close(fd);
	FAILS(EBADF, syscall(SYS_read, fd, back, 1));
	DO(unlink(name));
}

static void copying_descriptors(void)
{
	int *ends = at_edge(8);
	SYS(pipe, ends);
	mix(ends, 8);
	int first = MIXED(syscall(SYS_dup, ends[0]));
	int second = MIXED(syscall(SYS_dup2, ends[1], first + 20));
	int third = MIXED(syscall(SYS_dup3, ends[1], first + 21, O_CLOEXEC));
	CHECK(second == first + 20 && third == first + 21);
	FAILS(EINVAL, syscall(SYS_dup3, third, third, 0));
	CHECK(write(second, "x", 1) == 1 && write(third, "y", 1) == 1);
	char *two = at_edge(2);
	CHECK(read(first, two, 2) == 2 && two[0] == 'x' && two[1] == 'y');
	SYS(close, ends[1]);
	SYS(close_range, first + 20, first + 21, 0);
	/* Every writer is gone. */
	CHECK(read(first, two, 2) == 0);
	SYS(close, ends[0]);
	SYS(close, first);
	FAILS(EBADF, syscall(SYS_close, first));
}

static void between_descriptors(long n)
{
	char *name = named("between-%ld", n), *other = named("other-%ld", n);
	int file = DO(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644)), copy = DO(open(other, O_RDWR | O_CREAT | O_TRUNC, 0644));
	CHECK(write(file, "abcdefghij", 10) == 10);
	int *a = at_edge(8), *b = at_edge(8);
	SYS(pipe2, a, O_CLOEXEC);
	SYS(pipe2, b, O_NONBLOCK);
	mix(a, 8);
	mix(b, 8);
	loff_t *offset = at_edge(8);
	*offset = 2;
	CHECK(SYS(sendfile, a[1], file, offset, 4) == 4 && *offset == 6);
	mix(offset, 8);
	char *read_back = at_edge(16);
	CHECK(SYS(tee, a[0], b[1], 4, 0) == 4);
	CHECK(read(b[0], read_back, 16) == 4 && memcmp(read_back, "cdef", 4) == 0);
	loff_t *into = at_edge(8);
	*into = 3;
	CHECK(SYS(splice, a[0], NULL, copy, into, 4, 0) == 4 && *into == 7);
	mix(into, 8);
	FAILS(EAGAIN, syscall(SYS_read, b[0], read_back, 16));
	loff_t *from = at_edge(8);
	*from = 0;
	*into = 7;
	long moved = SYS(copy_file_range, file, from, copy, into, 10, 0);
	CHECK(moved == 10 && *from == 10 && *into == 17);
	read_back = at_edge(17);
	CHECK(pread(copy, read_back, 17, 0) == 17 && memcmp(read_back + 3, "cdefabcdefghij", 14) == 0);
	mix(read_back, 17);
	int fds[] = { file, copy, a[0], a[1], b[0], b[1] };
	for (unsigned i = 0; i < 6; i++)
		close(fds[i]);
	DO(unlink(name));
	DO(unlink(other));
}

static void files_behind(long n)
{
	char *name = named("behind-%ld", n);
	int fd = DO(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644));
	CHECK(write(fd, "12345", 5) == 5);
	SYS(ftruncate, fd, 8192);
	SYS(fallocate, fd, 0, 0, 16384);
	SYS(fchmod, fd, 0600);
	SYS(fchown, fd, 3, 3);
	uint64_t range[2] = { 0, 0 }, *cached = at_edge(40);
	CHECK(syscall(451 /* cachestat */, fd, copied(range, sizeof range), cached, 0) == 0);
	mix(cached, 40);
	SYS(fsync, fd);
	SYS(fdatasync, fd);
	SYS(sync_file_range, fd, 0, 4096, 0);
	if (n == 1) {
		/* The whole machine pays for these. */
		SYS(syncfs, fd);
		syscall(SYS_sync);
	}
	SYS(readahead, fd, 0, 4096);
	SYS(fadvise64, fd, 0, 0, 3);
	struct stat *st = at_edge(sizeof *st);
	SYS(fstat, fd, st);
	CHECK(st->st_size == 16384 && st->st_uid == 3);
	mix(st, sizeof *st);
	struct statfs *fs = at_edge(sizeof *fs);
	SYS(fstatfs, fd, fs);
	mix(fs, sizeof *fs);
	close(fd);
	int dir = DO(open(".", O_RDONLY | O_DIRECTORY));
	char *entries = at_edge(1024);
	long got = SYS(getdents64, dir, entries, 1024);
	CHECK(got > 0 && untouched(entries + got, 1024 - got));
	mix(entries, got);
	CHECK(SYS(getdents64, dir, entries, 1024) == 0);
	SYS(lseek, dir, 0, SEEK_SET);
	entries = at_edge(1024);
	got = SYS(getdents, dir, entries, 1024);
	CHECK(got > 0);
	mix(entries, got);
	close(dir);
	DO(unlink(name));
}

static void made_from_nothing(void)
{
	int fd = MIXED(syscall(SYS_eventfd, 3)), other = MIXED(syscall(SYS_eventfd2, 0, EFD_NONBLOCK));
	uint64_t *value = at_edge(8);
	CHECK(read(fd, value, 8) == 8 && *value == 3);
	FAILS(EAGAIN, read(other, value, 8));
	*value = 5;
	CHECK(write(other, value, 8) == 8);
	CHECK(read(other, value, 8) == 8 && *value == 5);
	mix(value, 8);
	close(fd);
	close(other);

	fd = MIXED(syscall(SYS_memfd_create, edge("in-memory"), MFD_CLOEXEC));
	CHECK(write(fd, "memory", 6) == 6);
	char *six = at_edge(6);
	CHECK(pread(fd, six, 6, 0) == 6 && memcmp(six, "memory", 6) == 0);
	close(fd);

	uint64_t blocked = 1u << (SIGUSR2 - 1), *mask = copied(&blocked, 8);
	SYS(rt_sigprocmask, SIG_BLOCK, mask, NULL, 8);
	fd = MIXED(syscall(SYS_signalfd4, -1, mask, 8, O_NONBLOCK));
	CHECK(SYS(signalfd, fd, mask, 8) == fd);
	char *info = at_edge(128);
	FAILS(EAGAIN, read(fd, info, 128));
	DO(kill(getpid(), SIGUSR2));
	CHECK(read(fd, info, 128) == 128 && *(uint32_t *)info == SIGUSR2);
	mix(info, 128);
	SYS(rt_sigprocmask, SIG_UNBLOCK, mask, NULL, 8);
	close(fd);
}

static void round_of(long n, const char *word)
{
	(void)word;
	moving_bytes(n);
	copying_descriptors();
	between_descriptors(n);
	files_behind(n);
	made_from_nothing();
}
