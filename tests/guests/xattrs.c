/*
 * Extended attributes and inotify.
 *
 * rows: setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
 * rows: removexattr lremovexattr fremovexattr inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
 * rows: setxattrat getxattrat listxattrat removexattrat file_getattr file_setattr
 */
#include "guest.h"

#include <poll.h>
#include <sys/inotify.h>
#include <sys/xattr.h>

static void setup(void)
{
}

static void attributes(long n)
{
	char *name = named("attrs-%ld", n), *key = edge("user.key");
	int fd = DO(open(name, O_RDWR | O_CREAT, 0644));
	if (syscall(SYS_setxattr, name, key, copied("one", 3), 3, 0) != 0) {
		/* The folder's file system has no attributes of users; then every call says so. */
		CHECK(errno == EOPNOTSUPP);
		FAILS(EOPNOTSUPP, syscall(SYS_lsetxattr, name, key, copied("two", 3), 3, 0));
		FAILS(EOPNOTSUPP, syscall(SYS_fsetxattr, fd, key, copied("two", 3), 3, 0));
	} else {
		char *value = at_edge(8);
		CHECK(SYS(getxattr, name, key, value, 8) == 3 && memcmp(value, "one", 3) == 0 && untouched(value + 3, 5));
		mix(value, 8);
		SYS(lsetxattr, name, key, copied("three", 5), 5, 0);
		FAILS(ERANGE, syscall(SYS_lgetxattr, name, key, at_edge(4), 4));
		CHECK(SYS(lgetxattr, name, key, at_edge(1), 0) == 5);
		value = at_edge(5);
		CHECK(SYS(lgetxattr, name, key, value, 5) == 5);
		mix(value, 5);
		SYS(fsetxattr, fd, key, copied("four", 4), 4, XATTR_REPLACE);
		value = at_edge(64);
		CHECK(SYS(fgetxattr, fd, key, value, 64) == 4);
		mix(value, 64);
		char *list = at_edge(64);
		CHECK(SYS(listxattr, name, list, 64) == 9 && strcmp(list, "user.key") == 0);
		mix(list, 64);
		list = at_edge(9);
		CHECK(SYS(llistxattr, name, list, 9) == 9);
		CHECK(SYS(flistxattr, fd, NULL, 0) == 9);
		mix(list, 9);
		SYS(removexattr, name, key);
		SYS(setxattr, name, key, NULL, 0, 0);
		SYS(lremovexattr, name, key);
		SYS(setxattr, name, key, NULL, 0, 0);
		SYS(fremovexattr, fd, key);
		FAILS(ENODATA, syscall(SYS_getxattr, name, key, at_edge(8), 8));
	}
	close(fd);
	DO(unlink(name));
}

/* The same relative to a folder, Linux 6.13; and what a file system keeps of a file, 6.17. */
static void relative(long n)
{
	char *name = named("attrs-at-%ld", n), *key = edge("user.key");
	close(DO(open(name, O_RDWR | O_CREAT, 0644)));
	struct {
		const void *value;
		unsigned size, flags;
	} set = { copied("four", 4), 4, 0 }, get = { at_edge(8), 8, 0 };
	if (syscall(463 /* setxattrat */, AT_FDCWD, name, 0, key, copied(&set, sizeof set), sizeof set) == 0) {
		CHECK(syscall(464 /* getxattrat */, AT_FDCWD, name, 0, key, copied(&get, sizeof get), sizeof get) == 4);
		CHECK(memcmp(get.value, "four", 4) == 0 && untouched((char *)get.value + 4, 4));
		mix(get.value, 8);
		char *list = at_edge(9);
		CHECK(syscall(465 /* listxattrat */, AT_FDCWD, name, 0, list, 9) == 9 && strcmp(list, "user.key") == 0);
		CHECK(syscall(466 /* removexattrat */, AT_FDCWD, name, 0, key) == 0);
		FAILS(ENODATA, syscall(464, AT_FDCWD, name, 0, key, copied(&get, sizeof get), sizeof get));
	} else {
		CHECK(errno == EOPNOTSUPP);
		FAILS(EOPNOTSUPP, syscall(464, AT_FDCWD, name, 0, key, copied(&get, sizeof get), sizeof get));
		mix_value(syscall(465, AT_FDCWD, name, 0, NULL, 0));
		FAILS(EOPNOTSUPP, syscall(466, AT_FDCWD, name, 0, key));
	}
	unsigned *attributes = at_edge(24);
	long got = syscall(468 /* file_getattr */, AT_FDCWD, name, attributes, 24, 0);
	mix_value(got);
	if (got == 0) {
		mix(attributes, 24);
		mix_value(syscall(469 /* file_setattr */, AT_FDCWD, name, attributes, 24, 0));
	} else {
		CHECK(syscall(469, AT_FDCWD, name, memset(attributes, 0, 24), 24, 0) == -1);
	}
	DO(unlink(name));
}

static void watching(long n)
{
	int old = MIXED(syscall(SYS_inotify_init));
	close(old);
	int fd = MIXED(syscall(SYS_inotify_init1, IN_NONBLOCK | IN_CLOEXEC));
	int watch = MIXED(syscall(SYS_inotify_add_watch, fd, edge("."), IN_CREATE));
	char *name = named("watched-%ld", n);
	close(DO(open(name, O_RDWR | O_CREAT, 0644)));
	struct pollfd ready = { fd, POLLIN, 0 };
	CHECK(poll(&ready, 1, 5000) == 1);
	char *event = at_edge(512);
	long got = DO(read(fd, event, 512));
	CHECK(strcmp(((struct inotify_event *)event)->name, name) == 0 && untouched(event + got, 512 - got));
	mix(event, got);
	SYS(inotify_rm_watch, fd, watch);
	close(fd);
	DO(unlink(name));
}

static void round_of(long n, const char *word)
{
	(void)word;
	attributes(n);
	relative(n);
	watching(n);
}
