/* Reading and writing: offsets, pieces, bad addresses, what is cut short. */
#include "corner.h"

#include <limits.h>
#include <sys/sendfile.h>

corner(read_at_end)
{
	int fd = file_of("f", "abc");
	char b[8];
	DO(lseek(fd, 3, SEEK_SET));
	say("%s", told(read(fd, b, 8)));
}

corner(read_beyond_end)
{
	int fd = file_of("f", "abc");
	char b[8];
	DO(lseek(fd, 100, SEEK_SET));
	say("%s", told(read(fd, b, 8)));
}

corner(read_zero)
{
	int fd = file_of("f", "abc");
	say("%s %s", told(read(fd, NULL, 0)), told(lseek(fd, 0, SEEK_CUR)));
}

corner(read_zero_bad_address)
{
	int fd = file_of("f", "abc");
	say("%s", told(read(fd, nowhere(), 0)));
}

corner(read_bad_address)
{
	int fd = file_of("f", "abc");
	say("%s", told(read(fd, nowhere(), 3)));
	say("%s", told(lseek(fd, 0, SEEK_CUR)));
}

corner(read_partly_bad_address)
{
	char text[9000];
	memset(text, 'x', sizeof text);
	int fd = DO(open("f", O_RDWR | O_CREAT, 0644));
	CHECK(write(fd, text, sizeof text) == sizeof text);
	DO(lseek(fd, 0, SEEK_SET));
	char *room = guarded(4096);
	long got = read(fd, room, 8192);
	say("%s %d", told(got), room[4095] == 'x');
}

corner(read_directory)
{
	int fd = DO(open(".", O_RDONLY));
	char b[8];
	say("%s", told(read(fd, b, 8)));
}

corner(read_write_only)
{
	int fd = DO(open("f", O_WRONLY | O_CREAT, 0644));
	char b;
	say("%s", told(read(fd, &b, 1)));
}

corner(write_read_only)
{
	file_of("f", "abc");
	int fd = DO(open("f", O_RDONLY));
	say("%s", told(write(fd, "x", 1)));
}

corner(read_bad_descriptor)
{
	char b;
	say("%s %s", told(read(-1, &b, 1)), told(read(9999, &b, 1)));
}

corner(read_huge_count)
{
	int fd = file_of("f", "abc");
	char *b = guarded(4096);
	say("%s", told(syscall(SYS_read, fd, b, 0x7ffff000ul)));
	CHECK(memcmp(b, "abc", 3) == 0);
}

corner(read_negative_count)
{
	int fd = file_of("f", "abc");
	char b[4];
	say("%s", told(syscall(SYS_read, fd, b, -1L)));
}

corner(write_zero)
{
	int fd = file_of("f", "abc");
	say("%s %s", told(write(fd, "x", 0)), text_of("f"));
}

corner(write_bad_address)
{
	int fd = file_of("f", "abc");
	say("%s %s", told(write(fd, nowhere(), 5)), text_of("f"));
}

corner(write_partly_bad_address)
{
	char *data = guarded(10);
	memset(data, 'y', 10);
	int fd = file_of("f", "");
	long put = write(fd, data, 100);
	say("%s", told(put));
	struct stat st;
	DO(fstat(fd, &st));
	say("size %ld", (long)st.st_size);
}

corner(write_holes)
{
	int fd = file_of("f", "");
	DO(lseek(fd, 10, SEEK_SET));
	CHECK(write(fd, "x", 1) == 1);
	char b[11];
	say("%s %d%d%d", told(pread(fd, b, 11, 0)), b[0], b[9], b[10] == 'x');
}

corner(append_ignores_offset)
{
	file_of("f", "abc");
	int fd = DO(open("f", O_WRONLY | O_APPEND));
	DO(lseek(fd, 0, SEEK_SET));
	CHECK(write(fd, "d", 1) == 1);
	say("%s at %s", text_of("f"), told(lseek(fd, 0, SEEK_CUR)));
	/* On Linux even pwrite appends. */
	CHECK(pwrite(fd, "e", 1, 0) == 1);
	say("%s", text_of("f"));
}

static void *appender(void *arg)
{
	int fd = DO(open("f", O_WRONLY | O_APPEND));
	for (int i = 0; i < 50; i++)
		CHECK(write(fd, arg, 4) == 4);
	close(fd);
	return NULL;
}

corner(append_races)
{
	file_of("f", "");
	pthread_t threads[3];
	char *words[] = { "aaa\n", "bbb\n", "ccc\n" };
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, appender, words[i]) == 0);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	char text[601];
	int fd = DO(open("f", O_RDONLY)), counts[3] = { 0 };
	CHECK(read(fd, text, 601) == 600);
	for (int i = 0; i < 600; i += 4) {
		CHECK(text[i] >= 'a' && text[i] <= 'c' && text[i + 1] == text[i] && text[i + 3] == '\n');
		counts[text[i] - 'a']++;
	}
	say("%d %d %d", counts[0], counts[1], counts[2]);
}

corner(lseek_whence)
{
	int fd = file_of("f", "abcdef");
	say("%s %s %s %s", told(lseek(fd, 2, SEEK_SET)), told(lseek(fd, 1, SEEK_CUR)), told(lseek(fd, -1, SEEK_END)),
	    told(lseek(fd, -7, SEEK_END)));
	say("%s", told(lseek(fd, 0, 77)));
}

corner(lseek_holes)
{
	int fd = file_of("f", "");
	DO(ftruncate(fd, 1 << 20));
	CHECK(pwrite(fd, "x", 1, 512 << 10) == 1);
	long data = lseek(fd, 0, SEEK_DATA), hole = lseek(fd, data, SEEK_HOLE);
	say("data %s", data >= 0 && data <= 512 << 10 ? "found" : "lost");
	say("hole %s", hole > 512 << 10 ? "behind" : "wrong");
	say("%s", told(lseek(fd, 2 << 20, SEEK_DATA)));
}

corner(lseek_pipe)
{
	int e[2];
	DO(pipe(e));
	say("%s", told(lseek(e[0], 0, SEEK_CUR)));
}

corner(lseek_huge)
{
	int fd = file_of("f", "abc");
	say("%s %s", told(lseek(fd, LONG_MAX, SEEK_SET) == -1 ? -1 : 0), told(lseek(fd, 1, SEEK_CUR) == -1 ? -1 : 0));
}

corner(shared_offset)
{
	int fd = file_of("f", "abcdef"), copy = DO(dup(fd));
	char b;
	CHECK(read(fd, &b, 1) == 1);
	CHECK(read(copy, &b, 1) == 1);
	say("%c %s", b, told(lseek(fd, 0, SEEK_CUR)));
}

corner(separate_offset)
{
	int fd = file_of("f", "abcdef"), other = DO(open("f", O_RDONLY));
	char b;
	CHECK(read(fd, &b, 1) == 1);
	CHECK(read(other, &b, 1) == 1);
	say("%c", b);
}

corner(offset_after_fork)
{
	int fd = file_of("f", "abcdef");
	char b;
	say("%d", reap(CHILD(CHECK(read(fd, &b, 1) == 1))));
	CHECK(read(fd, &b, 1) == 1);
	say("%c", b);
}

corner(pread_keeps_offset)
{
	int fd = file_of("f", "abcdef");
	char b[3] = "";
	CHECK(pread(fd, b, 2, 3) == 2);
	say("%s %s", b, told(lseek(fd, 0, SEEK_CUR)));
}

corner(pread_negative)
{
	int fd = file_of("f", "abc");
	char b;
	say("%s", told(pread(fd, &b, 1, -1)));
}

corner(pread_pipe)
{
	int e[2];
	char b;
	DO(pipe(e));
	say("%s", told(pread(e[0], &b, 1, 0)));
}

corner(readv_pieces)
{
	int fd = file_of("f", "abcdefgh");
	char a[3] = "", b[4] = "";
	struct iovec v[] = { { a, 2 }, { NULL, 0 }, { b, 3 } };
	say("%s %s %s", told(readv(fd, v, 3)), a, b);
}

corner(readv_middle_bad)
{
	int fd = file_of("f", "abcdefgh");
	char a[3] = "", b[4] = "";
	struct iovec v[] = { { a, 2 }, { nowhere(), 2 }, { b, 3 } };
	say("%s %s [%s]", told(readv(fd, v, 3)), a, b);
	say("%s", told(lseek(fd, 0, SEEK_CUR)));
}

corner(readv_pipe_middle_bad)
{
	int e[2];
	char a[3] = "", rest[9] = "";
	DO(pipe(e));
	CHECK(write(e[1], "abcdefgh", 8) == 8);
	struct iovec v[] = { { a, 2 }, { nowhere(), 2 } };
	say("%s %s", told(readv(e[0], v, 2)), a);
	say("%s %s", told(read(e[0], rest, 8)), rest);
}

corner(writev_middle_bad)
{
	int fd = file_of("f", "");
	struct iovec v[] = { { "ab", 2 }, { nowhere(), 2 }, { "cd", 2 } };
	say("%s", told(writev(fd, v, 3)));
	say("[%s]", text_of("f"));
}

corner(writev_socket_middle_bad)
{
	int e[2];
	char b[9] = "";
	DO(socketpair(AF_UNIX, SOCK_STREAM, 0, e));
	struct iovec v[] = { { "ab", 2 }, { nowhere(), 2 }, { "cd", 2 } };
	say("%s", told(writev(e[0], v, 3)));
	say("%s [%s]", told(recv(e[1], b, 8, MSG_DONTWAIT)), b);
}

corner(iovec_too_many)
{
	static struct iovec v[1025];
	int fd = file_of("f", "abc");
	say("%s %s", told(readv(fd, v, 1025)), told(readv(fd, v, 1024)));
}

corner(iovec_zero)
{
	int fd = file_of("f", "abc");
	say("%s %s", told(readv(fd, NULL, 0)), told(writev(fd, NULL, 0)));
}

corner(iovec_bad_array)
{
	int fd = file_of("f", "abc");
	say("%s", told(readv(fd, nowhere(), 2)));
}

corner(iovec_half_array)
{
	int fd = file_of("f", "abc");
	struct iovec *v = guarded(sizeof *v);
	char b[4];
	v->iov_base = b;
	v->iov_len = 2;
	say("%s %s", told(readv(fd, v, 2)), told(readv(fd, v, 1)));
}

corner(iovec_overflow)
{
	char b[2];
	int fd = file_of("f", "abc");
	struct iovec v[] = { { b, 1 }, { b, (size_t)-1 } };
	say("%s", told(readv(fd, v, 2)));
}

corner(iovec_1024)
{
	int fd = file_of("f", ""), total = 0;
	static struct iovec v[1024];
	for (int i = 0; i < 1024; i++) {
		v[i].iov_base = "0123456789" + i % 10;
		v[i].iov_len = 1;
	}
	say("%s", told(writev(fd, v, 1024)));
	static char back[1024];
	CHECK(pread(fd, back, 1024, 0) == 1024);
	for (int i = 0; i < 1024; i++)
		total += back[i] - '0';
	say("%d", total);
}

corner(preadv2_flags)
{
	int fd = file_of("f", "abc");
	char b[4] = "";
	struct iovec v = { b, 3 };
	say("%s %s", told(preadv2(fd, &v, 1, -1, 0)), b);
	say("%s", told(preadv2(fd, &v, 1, 0, 0x40000000)));
}

corner(pwritev2_append)
{
	int fd = file_of("f", "abc");
	struct iovec v = { "d", 1 };
	say("%s %s", told(pwritev2(fd, &v, 1, 0, RWF_APPEND)), text_of("f"));
}

corner(file_size_limit)
{
	struct {
		unsigned long soft, hard;
	} limit = { 10, -1 };
	int fd = file_of("f", "");
	signal(SIGXFSZ, SIG_IGN);
	DO(syscall(SYS_setrlimit, 1 /* RLIMIT_FSIZE */, &limit));
	const char *part = told(write(fd, "0123456789abcdef", 16)), *none = told(write(fd, "x", 1));
	limit.soft = -1;
	DO(syscall(SYS_setrlimit, 1, &limit));
	say("%s %s", part, none);
}

corner(file_size_limit_signal)
{
	struct {
		unsigned long soft, hard;
	} limit = { 4, -1 };
	int fd = file_of("f", "");
	on(SIGXFSZ, 0);
	DO(syscall(SYS_setrlimit, 1, &limit));
	CHECK(write(fd, "1234", 4) == 4);
	const char *error = told(write(fd, "x", 1));
	/* Where the output is a file, the limit is its as well. */
	limit.soft = -1;
	DO(syscall(SYS_setrlimit, 1, &limit));
	say("%s %d", error, hits[SIGXFSZ]);
}

corner(huge_write_through_pipe)
{
	enum { SIZE = 64 << 20 };
	int e[2];
	DO(pipe(e));
	char *data = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(data != MAP_FAILED);
	for (long i = 0; i < SIZE; i += 4096)
		data[i] = (char)(i >> 12);
	pid_t child = CHILD({
		close(e[1]);
		long total = 0, got;
		while ((got = read(e[0], data, SIZE)) > 0)
			total += got;
		say("read %ld", total);
	});
	close(e[0]);
	CHECK(write(e[1], data, SIZE) == SIZE);
	close(e[1]);
	say("%d", reap(child));
}

corner(huge_file_write)
{
	enum { SIZE = 32 << 20 };
	int fd = file_of("f", "");
	char *data = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(data, 'q', SIZE);
	say("%s", told(write(fd, data, SIZE)));
	memset(data, 0, SIZE);
	say("%s %c", told(pread(fd, data, SIZE, 0)), data[SIZE - 1]);
	DO(ftruncate(fd, 0));
}

corner(truncate_grow_shrink)
{
	int fd = file_of("f", "abcdef");
	DO(ftruncate(fd, 3));
	say("%s", text_of("f"));
	DO(ftruncate(fd, 5));
	struct stat st;
	DO(fstat(fd, &st));
	say("%ld", (long)st.st_size);
	FAILS(EINVAL, ftruncate(fd, -1));
}

corner(truncate_read_only)
{
	file_of("f", "abc");
	int fd = DO(open("f", O_RDONLY));
	say("%s", told(ftruncate(fd, 0)));
}

corner(fallocate_modes)
{
	int fd = file_of("f", "abcdef");
	struct stat st;
	say("%s", told(fallocate(fd, 0, 0, 10000)));
	DO(fstat(fd, &st));
	say("%ld", (long)st.st_size);
	say("%s", told(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 50000)));
	DO(fstat(fd, &st));
	say("%ld", (long)st.st_size);
	say("%s %s", told(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 3)), told(fallocate(fd, 0, -1, 5)));
	char b[6];
	CHECK(pread(fd, b, 6, 0) == 6);
	say("%d%d%d%c", b[0], b[1], b[2], b[3]);
}

corner(sync_family)
{
	int fd = file_of("f", "abc"), e[2];
	DO(pipe(e));
	say("%s %s %s %s", told(fsync(fd)), told(fdatasync(fd)), told(fsync(e[0])), told(sync_file_range(fd, 0, 3, 0)));
}

corner(open_flags)
{
	say("%s", told(open("f", O_RDONLY)));
	say("%s", told(open("f", O_RDWR | O_CREAT | O_EXCL, 0600) >= 0 ? 0 : -1));
	say("%s", told(open("f", O_RDWR | O_CREAT | O_EXCL, 0600)));
	say("%s", told(open("f", O_RDONLY | O_DIRECTORY)));
	DO(symlink("f", "l"));
	say("%s", told(open("l", O_RDONLY | O_NOFOLLOW)));
	say("%s", told(open("f/g", O_RDONLY)));
	say("%s", told(open("", O_RDONLY)));
	say("%s", told(open(".", O_RDWR)));
}

corner(open_truncates)
{
	file_of("f", "abc");
	close(DO(open("f", O_WRONLY | O_TRUNC)));
	say("[%s]", text_of("f"));
}

corner(open_unnamed)
{
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);
	if (fd < 0) {
		say("none");
		return;
	}
	CHECK(write(fd, "x", 1) == 1);
	struct stat st;
	DO(fstat(fd, &st));
	say("%d", (int)st.st_nlink);
}

corner(open_path_only)
{
	file_of("f", "abc");
	int fd = DO(open("f", O_PATH));
	char b;
	say("%s %s", told(read(fd, &b, 1)), told(fchmod(fd, 0600)));
}

corner(open_bad_address)
{
	say("%s", told(open(nowhere(), O_RDONLY)));
}

corner(open_long_path)
{
	char *p = malloc(6000);
	memset(p, 'a', 5999);
	p[5999] = 0;
	say("%s", told(open(p, O_RDONLY)));
	p[300] = 0;
	say("%s", told(open(p, O_RDONLY)));
}

corner(open_lowest_number)
{
	int a = DO(open(".", O_RDONLY)), b = DO(dup(a));
	close(a);
	int c = DO(open(".", O_RDONLY));
	say("%d %d", c == a, b > a);
}

corner(too_many_files)
{
	struct {
		unsigned long soft, hard;
	} limit = { 20, 20 };
	DO(syscall(SYS_setrlimit, 7 /* RLIMIT_NOFILE */, &limit));
	int count = 0, e[2];
	while (open(".", O_RDONLY) >= 0)
		count++;
	say("%s %d", strerrorname_np(errno), count > 5);
	say("%s %s %s", told(dup(0)), told(pipe(e)), told(socket(AF_UNIX, SOCK_STREAM, 0)));
	say("%s", told(fcntl(0, F_DUPFD, 20)));
	close(19);
	say("%s", told(dup(0)));
}

corner(sendfile_forms)
{
	int in = file_of("f", "abcdefgh"), out = file_of("g", "");
	off_t at = 2;
	say("%s %ld", told(sendfile(out, in, &at, 3)), (long)at);
	say("%s", told(lseek(in, 0, SEEK_CUR)));
	say("%s", told(sendfile(out, in, NULL, 2)));
	say("%s %s", told(lseek(in, 0, SEEK_CUR)), text_of("g"));
	at = 100;
	say("%s", told(sendfile(out, in, &at, 3)));
	say("%s", told(sendfile(out, in, nowhere(), 3)));
}

corner(copy_range_forms)
{
	int in = file_of("f", "abcdefgh"), out = file_of("g", "");
	off_t from = 1, to = 4;
	say("%s %ld %ld", told(copy_file_range(in, &from, out, &to, 3, 0)), (long)from, (long)to);
	say("%s", told(copy_file_range(in, NULL, out, NULL, 100, 0)));
	say("%s", told(copy_file_range(in, NULL, out, NULL, 1, 77)));
	from = 0;
	to = 2;
	say("%s", told(copy_file_range(in, &from, in, &to, 4, 0)));
}

corner(readahead_advice)
{
	int fd = file_of("f", "abc"), e[2];
	DO(pipe(e));
	say("%s %s", told(readahead(fd, 0, 3)), told(readahead(e[0], 0, 3)));
	say("%d %d", posix_fadvise(fd, 0, 3, POSIX_FADV_DONTNEED), posix_fadvise(e[0], 0, 0, 0));
}

corner(dev_null_zero_full)
{
	int null = DO(open("/dev/null", O_RDWR)), zero = DO(open("/dev/zero", O_RDWR)), full = DO(open("/dev/full", O_RDWR));
	char b[5] = "abcd";
	say("%s %s", told(read(null, b, 4)), told(write(null, b, 4)));
	say("%s %d", told(read(zero, b, 4)), b[0]);
	say("%s", told(write(full, b, 4)));
}

corner(close_range_holes)
{
	int fds[5];
	for (int i = 0; i < 5; i++)
		fds[i] = DO(dup(0));
	close(fds[2]);
	say("%s", told(close_range(fds[1], fds[3], 0)));
	say("%s %s", told(fcntl(fds[0], F_GETFD)), told(fcntl(fds[3], F_GETFD)));
	say("%s %s", told(close_range(fds[4], fds[4], CLOSE_RANGE_CLOEXEC)), told(fcntl(fds[4], F_GETFD)));
	say("%s", told(close_range(5, 4, 0)));
}

corner(dup_games)
{
	int e[2];
	DO(pipe(e));
	say("%s %s", told(dup2(e[0], e[0]) == e[0] ? 0 : 1), told(dup3(e[0], e[0], 0)));
	say("%s %s", told(dup2(9999, 5)), told(dup2(e[0], -1)));
	DO(dup3(e[1], 50, O_CLOEXEC));
	say("%s", told(fcntl(50, F_GETFD)));
	DO(dup2(50, 51));
	say("%s", told(fcntl(51, F_GETFD)));
	/* Over one that is open: that one is closed. */
	DO(dup2(e[1], e[0]));
	signal(SIGPIPE, SIG_IGN);
	say("%s", told(write(51, "x", 1)));
}
