/* Files by name: folders, links, owners, times, attributes, watching. */
#include "corner.h"

#include <dirent.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <utime.h>

corner(stat_kinds)
{
	struct stat s;
	file_of("f", "abc");
	DO(mkdir("d", 0750));
	DO(symlink("f", "l"));
	DO(mkfifo("p", 0600));
	const char *names[] = { "f", "d", "l", "p" };
	for (int i = 0; i < 4; i++) {
		DO(lstat(names[i], &s));
		say("%o %ld", s.st_mode, i == 1 ? 0 : (long)s.st_size);
	}
	DO(stat("l", &s));
	say("%o", s.st_mode);
	say("%s %s", told(stat("none", &s)), told(stat("f", nowhere())));
}

corner(stat_forms)
{
	struct stat s;
	int fd = file_of("f", "abc");
	DO(fstatat(AT_FDCWD, "f", &s, 0));
	say("%ld", (long)s.st_size);
	DO(fstatat(fd, "", &s, AT_EMPTY_PATH));
	say("%ld", (long)s.st_size);
	say("%s %s", told(fstatat(fd, "x", &s, 0)), told(fstatat(-1, "x", &s, 0)));
	say("%s", told(fstatat(AT_FDCWD, "f", &s, 0x7777)));
}

corner(statx_masks)
{
	struct statx x;
	file_of("f", "abcd");
	DO(statx(AT_FDCWD, "f", 0, STATX_SIZE | STATX_TYPE, &x));
	say("%d %o", (int)x.stx_size, x.stx_mode & S_IFMT);
	DO(statx(AT_FDCWD, "f", AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &x));
	say("%d", (int)x.stx_nlink);
	say("%s", told(statx(AT_FDCWD, "none", 0, STATX_ALL, &x)));
}

corner(statfs_forms)
{
	struct statfs s;
	DO(statfs(".", &s));
	say("%d", s.f_bsize > 0);
	int fd = file_of("f", "");
	DO(fstatfs(fd, &s));
	say("%d", s.f_bsize > 0);
	say("%s", told(statfs("none", &s)));
}

corner(access_rights)
{
	int fd = file_of("f", "");
	DO(fchmod(fd, 0400));
	say("%s %s %s", told(access("f", F_OK)), told(access("f", R_OK)), told(access("f", X_OK)));
	say("%s %s", told(access("none", F_OK)), told(faccessat(AT_FDCWD, "f", X_OK, AT_EACCESS)));
	say("%s", told(access("f", 77)));
}

corner(access_as_nobody)
{
	int fd = file_of("f", "");
	DO(fchmod(fd, 0600));
	DO(chmod(".", 0755));
	say("%d", reap(CHILD(if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0) _exit(9);
			     _exit(open("f", O_RDONLY) == -1 && errno == EACCES && unlink("f") == -1 ? 1 : 2))));
}

corner(make_and_remove_folders)
{
	say("%s %s", told(mkdir("d", 0700)), told(mkdir("d/e", 0700)));
	say("%s %s", told(mkdir("d", 0700)), told(rmdir("d")));
	say("%s", told(rmdir("d/e")));
	say("%s", told(rmdir("d")));
	say("%s %s", told(rmdir("d")), told(mkdir("x/y", 0700)));
	say("%s", told(rmdir(".")));
}

corner(links)
{
	struct stat s;
	file_of("f", "abc");
	DO(link("f", "g"));
	DO(stat("g", &s));
	say("%d", (int)s.st_nlink);
	say("%s %s", told(link("f", "g")), told(link("none", "h")));
	DO(unlink("f"));
	say("%s", text_of("g"));
	say("%s", told(link(".", "h")));
}

corner(link_of_descriptor)
{
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);
	if (fd < 0) {
		say("none");
		return;
	}
	CHECK(write(fd, "named", 5) == 5);
	char p[40];
	snprintf(p, sizeof p, "/proc/self/fd/%d", fd);
	DO(linkat(AT_FDCWD, p, AT_FDCWD, "f", AT_SYMLINK_FOLLOW));
	say("%s", text_of("f"));
}

corner(symbolic_links)
{
	char b[20];
	DO(symlink("target", "l"));
	memset(b, '.', 20);
	say("%s %.8s", told(readlink("l", b, 20)), b);
	memset(b, '.', 20);
	say("%s %.8s", told(readlink("l", b, 3)), b);
	say("%s %s", told(readlink("none", b, 3)), told(readlink(".", b, 3)));
	say("%s", told(readlink("l", b, 0)));
	DO(symlink("loop", "loop"));
	say("%s", told(open("loop", O_RDONLY)));
	say("%s", told(open("l", O_RDONLY)));
}

corner(rename_forms)
{
	file_of("f", "one");
	file_of("g", "two");
	DO(rename("f", "g"));
	say("%s %s", text_of("g"), told(access("f", F_OK)));
	say("%s", told(rename("none", "x")));
	DO(mkdir("d", 0700));
	say("%s %s", told(rename("g", "d")), told(rename("d", "d/e")));
	file_of("h", "three");
	say("%s", told(renameat2(AT_FDCWD, "g", AT_FDCWD, "h", RENAME_NOREPLACE)));
	say("%s", told(renameat2(AT_FDCWD, "g", AT_FDCWD, "h", RENAME_EXCHANGE)));
	say("%s", text_of("g"));
}

corner(unlink_forms)
{
	int fd = file_of("f", "abc");
	char b[4] = "";
	DO(unlink("f"));
	CHECK(pread(fd, b, 3, 0) == 3);
	say("%s", b);
	struct stat s;
	DO(fstat(fd, &s));
	say("%d", (int)s.st_nlink);
	DO(mkdir("d", 0700));
	say("%s %s", told(unlink("d")), told(unlink("none")));
	say("%s", told(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR)));
	say("%s", told(unlink(nowhere())));
}

corner(relative_to_folder)
{
	DO(mkdir("d", 0700));
	int d = DO(open("d", O_RDONLY | O_DIRECTORY));
	close(DO(openat(d, "f", O_WRONLY | O_CREAT, 0600)));
	say("%s", told(access("d/f", F_OK)));
	DO(renameat(d, "f", d, "g"));
	DO(symlinkat("g", d, "l"));
	DO(linkat(d, "g", d, "h", 0));
	DO(mkdirat(d, "e", 0700));
	DO(fchmodat(d, "g", 0640, 0));
	DO(mkfifoat(d, "p", 0600));
	struct stat s;
	DO(fstatat(d, "l", &s, 0));
	say("%o", s.st_mode & 0777);
	say("%s", told(faccessat(d, "p", R_OK, 0)));
	DO(rename("d", "moved"));
	say("%s", told(faccessat(d, "g", F_OK, 0)));
}

corner(openat2_stays_below)
{
	DO(mkdir("d", 0700));
	DO(symlink("..", "d/up"));
	int d = DO(open("d", O_PATH));
	struct {
		uint64_t flags, mode, resolve;
	} how = { O_RDONLY, 0, 8 /* RESOLVE_BENEATH */ };
	say("%s", told(syscall(SYS_openat2, d, "up", &how, sizeof how)));
	say("%s", told(syscall(SYS_openat2, d, "..", &how, sizeof how)));
	how.resolve = 4 /* RESOLVE_NO_SYMLINKS */;
	say("%s", told(syscall(SYS_openat2, d, "up", &how, sizeof how)));
	say("%s", told(syscall(SYS_openat2, d, ".", &how, 3)));
	how.flags = 1ull << 40;
	say("%s", told(syscall(SYS_openat2, d, ".", &how, sizeof how)));
}

corner(change_folder)
{
	char b[500], *last;
	DO(mkdir("d", 0700));
	DO(mkdir("d/e", 0700));
	int here = DO(open(".", O_RDONLY));
	DO(chdir("d/e"));
	CHECK(getcwd(b, sizeof b) != NULL);
	last = strrchr(b, '/');
	say("%s", last);
	DO(chdir(".."));
	CHECK(getcwd(b, sizeof b) != NULL);
	say("%s", strrchr(b, '/'));
	DO(fchdir(here));
	say("%s", told(access("d/e", F_OK)));
	say("%s %s", told(chdir("none")), told(fchdir(-1)));
	say("%s", told(syscall(SYS_getcwd, b, 2)));
}

corner(removed_folder)
{
	char b[500];
	DO(mkdir("d", 0700));
	DO(chdir("d"));
	DO(rmdir("../d"));
	say("%s", told(getcwd(b, sizeof b) == NULL ? -1 : 0));
	say("%s", told(open("f", O_CREAT | O_RDWR, 0600)));
}

corner(folder_of_child)
{
	DO(mkdir("d", 0700));
	reap(CHILD(DO(chdir("d")); close(DO(open("f", O_CREAT | O_RDWR, 0600)))));
	say("%s %s", told(access("d/f", F_OK)), told(access("f", F_OK)));
}

corner(changed_root)
{
	DO(mkdir("d", 0755));
	close(DO(open("d/inside", O_CREAT | O_RDWR, 0600)));
	say("%d", reap(CHILD(DO(chroot("d")); DO(chdir("/"));
			     _exit(access("/inside", F_OK) == 0 && access("/etc", F_OK) == -1 ? 1 : 2))));
	say("%s", told(chroot("none")));
}

corner(umask_masks)
{
	struct stat s;
	mode_t old = umask(027);
	close(DO(open("f", O_CREAT | O_RDWR, 0666)));
	DO(mkdir("d", 0777));
	DO(stat("f", &s));
	say("%o", s.st_mode & 0777);
	DO(stat("d", &s));
	say("%o", s.st_mode & 0777);
	say("%o", umask(old));
	say("%d", reap(CHILD(_exit(umask(0) == old))));
}

corner(modes_and_owners)
{
	struct stat s;
	int fd = file_of("f", "");
	DO(chmod("f", 04711));
	DO(stat("f", &s));
	say("%o", s.st_mode & 07777);
	DO(fchown(fd, 5, 6));
	DO(stat("f", &s));
	say("%d %d %o", s.st_uid, s.st_gid, s.st_mode & 07777);
	DO(chown("f", -1, 7));
	DO(stat("f", &s));
	say("%d %d", s.st_uid, s.st_gid);
	DO(symlink("f", "l"));
	DO(lchown("l", 8, 8));
	DO(lstat("l", &s));
	say("%d", s.st_uid);
	say("%s", told(syscall(452 /* fchmodat2 */, AT_FDCWD, "f", 0600, 0)));
	say("%s", told(chmod("none", 0)));
}

corner(times_of_files)
{
	struct stat s;
	file_of("f", "");
	struct timespec t[2] = { { 100, 5 }, { 200, 7 } };
	DO(utimensat(AT_FDCWD, "f", t, 0));
	DO(stat("f", &s));
	say("%ld %ld %ld", s.st_atim.tv_sec, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
	t[0].tv_nsec = UTIME_OMIT;
	t[1].tv_sec = 300;
	DO(utimensat(AT_FDCWD, "f", t, 0));
	DO(stat("f", &s));
	say("%ld %ld", s.st_atim.tv_sec, s.st_mtim.tv_sec);
	t[1].tv_nsec = -1;
	say("%s", told(utimensat(AT_FDCWD, "f", t, 0)));
	struct utimbuf u = { 1, 2 };
	DO(utime("f", &u));
	DO(stat("f", &s));
	say("%ld", s.st_mtim.tv_sec);
	int fd = DO(open("f", O_RDONLY));
	DO(futimens(fd, NULL));
	DO(stat("f", &s));
	say("%d", s.st_mtim.tv_sec > 1000);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

corner(list_folder)
{
	struct dirent **all;
	for (int i = 0; i < 5; i++) {
		char n[8];
		snprintf(n, 8, "f%d", i);
		close(file_of(n, ""));
	}
	int n = scandir(".", &all, NULL, by_name);
	for (int i = 0; i < n; i++)
		say("%s", all[i]->d_name);
}

corner(list_many_in_small_steps)
{
	for (int i = 0; i < 200; i++) {
		char n[16];
		snprintf(n, 16, "file-%d", i);
		close(DO(open(n, O_CREAT | O_RDWR, 0600)));
	}
	int fd = DO(open(".", O_RDONLY | O_DIRECTORY)), count = 0;
	long got;
	char b[300];
	while ((got = DO(syscall(SYS_getdents64, fd, b, sizeof b))) > 0)
		for (long at = 0; at < got; at += *(unsigned short *)(b + at + 16))
			count++;
	say("%d", count);
	say("%s", told(syscall(SYS_getdents64, fd, b, 4)));
	lseek(fd, 0, SEEK_SET);
	say("%s", told(syscall(SYS_getdents64, fd, b, 4)));
}

corner(list_with_old_call)
{
	close(file_of("only", ""));
	int fd = DO(open(".", O_RDONLY | O_DIRECTORY)), count = 0;
	char b[1000];
	long got = DO(syscall(SYS_getdents, fd, b, sizeof b));
	for (long at = 0; at < got; at += *(unsigned short *)(b + at + 16))
		count++;
	say("%d", count);
	int f = DO(open("only", O_RDONLY));
	say("%s", told(syscall(SYS_getdents64, f, b, sizeof b)));
}

corner(list_removed_meanwhile)
{
	for (int i = 0; i < 20; i++) {
		char n[16];
		snprintf(n, 16, "f-%d", i);
		close(DO(open(n, O_CREAT | O_RDWR, 0600)));
	}
	DIR *d = opendir(".");
	struct dirent *e;
	int removed = 0;
	while ((e = readdir(d)))
		if (e->d_name[0] == 'f')
			removed += unlink(e->d_name) == 0;
	closedir(d);
	say("%d", removed);
}

corner(list_seek_and_tell)
{
	for (int i = 0; i < 5; i++) {
		char n[8];
		snprintf(n, 8, "f%d", i);
		close(file_of(n, ""));
	}
	DIR *d = opendir(".");
	readdir(d);
	long at = telldir(d);
	char *first = strdup(readdir(d)->d_name);
	readdir(d);
	seekdir(d, at);
	say("%d", strcmp(readdir(d)->d_name, first));
	rewinddir(d);
	int n = 0;
	while (readdir(d))
		n++;
	say("%d", n);
}

corner(attributes_extended)
{
	char b[20] = "";
	int fd = file_of("f", "");
	if (setxattr("f", "user.a", "one", 3, 0) != 0) {
		say("none");
		return;
	}
	say("%s %s", told(getxattr("f", "user.a", b, 20)), b);
	say("%s %s", told(getxattr("f", "user.a", b, 2)), told(getxattr("f", "user.a", NULL, 0)));
	say("%s %s", told(getxattr("f", "user.b", b, 20)), told(setxattr("f", "user.a", "x", 1, XATTR_CREATE)));
	DO(fsetxattr(fd, "user.bb", "", 0, 0));
	say("%s", told(flistxattr(fd, NULL, 0)));
	say("%s", told(listxattr("f", b, 3)));
	DO(removexattr("f", "user.a"));
	say("%s %s", told(flistxattr(fd, b, 20)), b);
	say("%s", told(setxattr("f", "bad", "x", 1, 0)));
	DO(symlink("f", "l"));
	say("%s", told(lsetxattr("l", "user.a", "x", 1, 0)));
}

static const char *next_event(int fd)
{
	static char text[450];
	char b[400];
	long n = read(fd, b, sizeof b);
	if (n < 0)
		return strerrorname_np(errno);
	struct inotify_event *e = (void *)b;
	snprintf(text, sizeof text, "%x %s %d", e->mask, e->len ? e->name : "", e->cookie != 0);
	return text;
}

corner(watch_one_by_one)
{
	int fd = DO(inotify_init1(IN_NONBLOCK));
	int w = DO(inotify_add_watch(fd, ".", IN_CREATE | IN_DELETE | IN_MOVE));
	say("%s", next_event(fd));
	close(file_of("f", ""));
	say("%s", next_event(fd));
	DO(rename("f", "g"));
	char b[400];
	long n = DO(read(fd, b, sizeof b));
	struct inotify_event *e = (void *)b, *e2 = (void *)(b + sizeof *e + e->len);
	say("%ld %d %s %s", n > 0 ? 1l : 0l, e->cookie == e2->cookie, e->name, e2->name);
	DO(unlink("g"));
	say("%s", next_event(fd));
	DO(inotify_rm_watch(fd, w));
	say("%s", next_event(fd));
	say("%s", told(inotify_rm_watch(fd, w)));
}

corner(watch_small_room)
{
	int fd = DO(inotify_init1(IN_NONBLOCK));
	DO(inotify_add_watch(fd, ".", IN_CREATE));
	close(file_of("a-long-name-for-a-file", ""));
	char b[20];
	say("%s", told(read(fd, b, sizeof b)));
	say("%s", next_event(fd));
	say("%s", told(inotify_add_watch(fd, "none", IN_CREATE)));
	say("%s", told(inotify_init1(0x7777)));
}

corner(watch_file)
{
	int fd = DO(inotify_init());
	int f = file_of("f", "");
	DO(inotify_add_watch(fd, "f", IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE));
	CHECK(write(f, "x", 1) == 1);
	say("%s", next_event(fd));
	DO(fchmod(f, 0600));
	say("%s", next_event(fd));
	close(f);
	say("%s", next_event(fd));
}

corner(watch_polled)
{
	int fd = DO(inotify_init());
	DO(inotify_add_watch(fd, ".", IN_CREATE));
	struct pollfd p = { fd, POLLIN, 0 };
	say("%d", poll(&p, 1, 0));
	pid_t c = CHILD(close(file_of("f", "")));
	say("%d", poll(&p, 1, 20000));
	reap(c);
}

corner(handles_of_files)
{
	struct {
		unsigned bytes;
		int type;
		char room[128];
	} h = { 0 };
	int mount, fd = file_of("f", "by handle");
	long r = name_to_handle_at(AT_FDCWD, "f", (void *)&h, &mount, 0);
	if (r == -1 && errno == EOPNOTSUPP) {
		say("none");
		return;
	}
	say("%s %d", told(r), h.bytes > 0);
	DO(name_to_handle_at(AT_FDCWD, "f", (void *)&h, &mount, 0));
	int again = open_by_handle_at(fd, (void *)&h, O_RDONLY);
	if (again < 0) {
		say("%s", strerrorname_np(errno));
		return;
	}
	char b[20] = "";
	CHECK(read(again, b, 20) == 9);
	say("%s", b);
	h.bytes = 200;
	say("%s", told(name_to_handle_at(AT_FDCWD, "f", (void *)&h, &mount, 0)));
}

corner(nodes)
{
	struct stat s;
	say("%s", told(mknod("n", S_IFCHR | 0600, makedev(1, 3))));
	DO(stat("n", &s));
	say("%d %d", major(s.st_rdev), minor(s.st_rdev));
	int fd = open("n", O_RDWR);
	say("%s", told(fd < 0 ? -1 : write(fd, "x", 1)));
	say("%s", told(mknod("f", S_IFREG | 0600, 0)));
	say("%s", told(mknod("f", S_IFREG, 0)));
	say("%s", told(mknod("x", 0170000, 0)));
}
corner(own_proc_files)
{
	char b[300];
	int fd = DO(open("/proc/self/comm", O_RDONLY));
	long n = DO(read(fd, b, 300));
	b[n - 1] = 0;
	say("%s", b);
	snprintf(b, sizeof b, "/proc/%d/fd/0", getpid());
	struct stat s;
	say("%s", told(stat(b, &s)));
	n = DO(readlink("/proc/self/cwd", b, 299));
	b[n] = 0;
	char c[300];
	say("%d", getcwd(c, 300) && strcmp(b, c) == 0);
	n = DO(readlink("/proc/self", b, 299));
	b[n] = 0;
	say("%d", atoi(b) == getpid());
}
