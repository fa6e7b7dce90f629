/*
 * Files by path: opening, asking, changing.
 *
 * rows: open/PLAIN open/CREATE openat/PLAIN openat/CREATE openat2 creat
 * rows: stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd statfs
 * rows: truncate chdir fchdir chroot rename renameat renameat2 mkdir mkdirat rmdir link linkat unlink unlinkat
 * rows: symlink symlinkat mknod mknodat chmod fchmodat fchmodat2 chown lchown fchownat
 * rows: utime utimes futimesat utimensat umask name_to_handle_at open_by_handle_at
 */
#include "guest.h"

#include <linux/openat2.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <utime.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

/* The parts of a stat that do not depend on when it was asked. */
static void mix_stat(const struct stat *st)
{
	mix(st, sizeof *st);
}

static void setup(void)
{
}

static void opening(long n)
{
	char *name = named("file-%ld", n);
	int fd = DO(syscall(SYS_open, name, O_RDWR | O_CREAT | O_EXCL, 0640));
	mix_value(fd);
	FAILS(EEXIST, syscall(SYS_open, name, O_RDWR | O_CREAT | O_EXCL, 0640));
	CHECK(write(fd, "0123456789", 10) == 10);
	close(fd);

	fd = MIXED(syscall(SYS_open, name, O_RDONLY));
	char *ten = at_edge(10);
	CHECK(read(fd, ten, 10) == 10 && memcmp(ten, "0123456789", 10) == 0);
	mix(ten, 10);
	close(fd);

	fd = MIXED(syscall(SYS_openat, AT_FDCWD, name, O_RDONLY));
	close(fd);
	FAILS(ENOENT, syscall(SYS_openat, AT_FDCWD, edge("not-there"), O_RDONLY));
	/* A path that is cut off by the end of the memory. */
	char *cut = memcpy(at_edge(3), "abc", 3);
	FAILS(EFAULT, syscall(SYS_openat, AT_FDCWD, cut, O_RDONLY));
	fd = MIXED(syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_TRUNC, 0));
	close(fd);

	struct open_how *how = at_edge(sizeof *how);
	memset(how, 0, sizeof *how);
	how->flags = O_RDWR;
	fd = MIXED(syscall(SYS_openat2, AT_FDCWD, name, how, sizeof *how));
	close(fd);
	fd = MIXED(syscall(SYS_creat, named("created-%ld", n), 0600));
	close(fd);
	DO(unlink(named("created-%ld", n)));
	DO(unlink(name));
}

static void asking(long n)
{
	char *name = named("asked-%ld", n);
	int fd = DO(open(name, O_RDWR | O_CREAT, 0644));
	CHECK(write(fd, "hello", 5) == 5);
	close(fd);
	struct stat *st = at_edge(sizeof *st);
	SYS(stat, name, st);
	CHECK(st->st_size == 5);
	mix_stat(st);
	st = at_edge(sizeof *st);
	SYS(lstat, name, st);
	mix_stat(st);
	st = at_edge(sizeof *st);
	SYS(newfstatat, AT_FDCWD, name, st, 0);
	mix_stat(st);
	st = at_edge(sizeof *st);
	FAILS(ENOENT, syscall(SYS_stat, edge("not-there"), st));
	CHECK(untouched(st, sizeof *st));
	struct statx *stx = at_edge(sizeof *stx);
	SYS(statx, AT_FDCWD, name, 0, STATX_BASIC_STATS, stx);
	CHECK(stx->stx_size == 5);
	mix(stx, sizeof *stx);
	SYS(access, name, R_OK);
	SYS(faccessat, AT_FDCWD, name, W_OK);
	SYS(faccessat2, AT_FDCWD, name, R_OK, AT_EACCESS);
	FAILS(ENOENT, syscall(SYS_access, edge("not-there"), F_OK));

	char *cwd = at_edge(300);
	long len = SYS(getcwd, cwd, 300);
	CHECK(cwd[0] == '/' && cwd[len - 1] == 0 && untouched(cwd + len, 300 - len));
	mix(cwd, len);
	FAILS(ERANGE, syscall(SYS_getcwd, at_edge(2), 2));
	struct statfs *fs = at_edge(sizeof *fs);
	SYS(statfs, edge("."), fs);
	mix(fs, sizeof *fs);

	char *link_name = named("link-%ld", n);
	SYS(symlink, edge("some-target"), link_name);
	char *target = at_edge(4);
	CHECK(SYS(readlink, link_name, target, 4) == 4 && memcmp(target, "some", 4) == 0);
	target = at_edge(64);
	CHECK(SYS(readlinkat, AT_FDCWD, link_name, target, 64) == 11 && untouched(target + 11, 53));
	mix(target, 11);
	SYS(lchown, link_name, 0, 0);
	SYS(unlink, link_name);
	SYS(unlink, name);
}

static void moving(long n)
{
	char *a = named("a-%ld", n), *b = named("b-%ld", n), *dir = named("dir-%ld", n);
	close(DO(open(a, O_RDWR | O_CREAT, 0644)));
	SYS(rename, a, b);
	SYS(renameat, AT_FDCWD, b, AT_FDCWD, a);
	SYS(link, a, b);
	FAILS(EEXIST, syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 1 /* RENAME_NOREPLACE */));
	SYS(unlink, b);
	SYS(linkat, AT_FDCWD, a, AT_FDCWD, b, 0);
	SYS(unlinkat, AT_FDCWD, b, 0);
	SYS(mkdir, dir, 0755);
	FAILS(EEXIST, syscall(SYS_mkdir, dir, 0755));
	SYS(rmdir, dir);
	SYS(mkdirat, AT_FDCWD, dir, 0755);
	int here = DO(open(".", O_RDONLY | O_DIRECTORY));
	SYS(chdir, dir);
	SYS(symlinkat, edge("x"), AT_FDCWD, edge("sub"));
	SYS(unlink, edge("sub"));
	SYS(fchdir, here);
	close(here);
	SYS(unlinkat, AT_FDCWD, dir, AT_REMOVEDIR);
	SYS(chroot, edge("/"));
	SYS(mknod, b, S_IFIFO | 0600, 0);
	SYS(unlink, b);
	SYS(mknodat, AT_FDCWD, b, S_IFIFO | 0600, 0);
	SYS(unlink, b);
	SYS(unlink, a);
}

static void changing(long n)
{
	char *name = named("changed-%ld", n);
	struct stat st;
	long mask = SYS(umask, 027);
	CHECK(SYS(umask, mask) == 027);
	close(DO(open(name, O_RDWR | O_CREAT, 0644)));
	SYS(truncate, name, 12345);
	SYS(chmod, name, 0600);
	SYS(fchmodat, AT_FDCWD, name, 0640);
	SYS(fchmodat2, AT_FDCWD, name, 0644, 0);
	SYS(chown, name, 1, 1);
	SYS(fchownat, AT_FDCWD, name, 2, 2, 0);
	DO(stat(name, &st));
	CHECK(st.st_size == 12345 && (st.st_mode & 0777) == 0644 && st.st_uid == 2);
	struct utimbuf old = { 1000, 1001 };
	SYS(utime, name, copied(&old, sizeof old));
	DO(stat(name, &st));
	CHECK(st.st_mtime == 1001);
	struct timeval tv[2] = { { 2000, 0 }, { 2001, 0 } };
	SYS(utimes, name, copied(tv, sizeof tv));
	SYS(futimesat, AT_FDCWD, name, copied(tv, sizeof tv));
	DO(stat(name, &st));
	CHECK(st.st_mtime == 2001);
	struct timespec ts[2] = { { 3000, 0 }, { 3001, 0 } };
	SYS(utimensat, AT_FDCWD, name, copied(ts, sizeof ts), 0);
	DO(stat(name, &st));
	CHECK(st.st_mtime == 3001);
	SYS(utimensat, AT_FDCWD, name, NULL, 0);
	DO(unlink(name));
}

/* A file by a handle instead of its name. The first call is told how much room it needs. */
static void handles(long n)
{
	char *name = named("handled-%ld", n);
	int fd = DO(open(name, O_RDWR | O_CREAT, 0644));
	unsigned *handle = at_edge(8), *mount = at_edge(4);
	handle[0] = 0;
	long made = syscall(SYS_name_to_handle_at, AT_FDCWD, name, handle, mount, 0);
	CHECK(made == -1 && (errno == EOVERFLOW || errno == EOPNOTSUPP));
	mix(handle, 8);
	mix(mount, 4);
	if (errno == EOPNOTSUPP) {
		CHECK(syscall(SYS_open_by_handle_at, fd, handle, O_RDONLY) == -1);
	} else {
		unsigned size = handle[0];
		handle = at_edge(8 + size);
		handle[0] = size;
		SYS(name_to_handle_at, AT_FDCWD, name, handle, at_edge(4), 0);
		mix(handle, 8 + size);
		unsigned long long *whole = at_edge(8);
		mix_value(syscall(SYS_name_to_handle_at, AT_FDCWD, name, handle, whole, 1 /* AT_HANDLE_MNT_ID_UNIQUE */));
		mix(whole, 8);
		int again = MIXED(syscall(SYS_open_by_handle_at, fd, handle, O_RDONLY));
		struct stat first, second;
		DO(fstat(fd, &first));
		DO(fstat(again, &second));
		CHECK(first.st_ino == second.st_ino);
		close(again);
	}
	FAILS(ENOENT, syscall(SYS_name_to_handle_at, AT_FDCWD, edge("nowhere"), handle, mount, 0));
	close(fd);
	DO(unlink(name));
}

static void round_of(long n, const char *word)
{
	(void)word;
	opening(n);
	asking(n);
	moving(n);
	changing(n);
	handles(n);
}
