/* Pipes and what moves data between descriptors without the program; eventfd. */
#include "corner.h"

#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <poll.h>

corner(pipe_partial_read)
{
	int e[2];
	char b[4] = "";
	DO(pipe(e));
	CHECK(write(e[1], "abcdef", 6) == 6);
	CHECK(read(e[0], b, 3) == 3);
	say("%s", b);
	CHECK(read(e[0], b, 3) == 3);
	say("%s", b);
}

corner(pipe_end_of_file)
{
	int e[2];
	char b;
	DO(pipe(e));
	close(e[1]);
	say("%s", told(read(e[0], &b, 1)));
}

corner(pipe_broken)
{
	int e[2];
	DO(pipe(e));
	on(SIGPIPE, 0);
	close(e[0]);
	say("%s", told(write(e[1], "x", 1)));
	say("%d", hits[SIGPIPE]);
}

corner(pipe_broken_ends)
{
	int e[2];
	DO(pipe(e));
	close(e[0]);
	say("%d", reap(CHILD(signal(SIGPIPE, SIG_DFL); _exit((int)write(e[1], "x", 1)))));
}

corner(pipe_nonblocking)
{
	int e[2];
	char b[5000];
	DO(pipe2(e, O_NONBLOCK));
	memset(b, 0, sizeof b);
	say("%s", told(read(e[0], b, 1)));
	long total = 0, put;
	while ((put = write(e[1], b, sizeof b)) > 0)
		total += put;
	say("%s %ld", strerrorname_np(errno), total);
}

corner(pipe_partial_write)
{
	int e[2];
	char *b = calloc(1, 100000);
	DO(pipe2(e, O_NONBLOCK));
	say("%s", told(write(e[1], b, 100000)));
}

corner(pipe_size)
{
	int e[2];
	DO(pipe(e));
	say("%s", told(fcntl(e[0], F_GETPIPE_SZ)));
	say("%s", told(fcntl(e[0], F_SETPIPE_SZ, 5000)));
	say("%s", told(fcntl(e[0], F_GETPIPE_SZ)));
}

corner(pipe_unread)
{
	int e[2], n;
	DO(pipe(e));
	CHECK(write(e[1], "abcde", 5) == 5);
	DO(ioctl(e[0], FIONREAD, &n));
	say("%d", n);
}

corner(pipe_packets)
{
	int e[2];
	char b[10] = "";
	DO(pipe2(e, O_DIRECT));
	CHECK(write(e[1], "abc", 3) == 3 && write(e[1], "def", 3) == 3);
	say("%s %s", told(read(e[0], b, 10)), b);
	CHECK(read(e[0], b, 2) == 2);
	FAILS(EAGAIN, (fcntl(e[0], F_SETFL, O_NONBLOCK), read(e[0], b, 10)));
}

corner(pipe_bad_address)
{
	say("%s", told(pipe(nowhere())));
}

corner(pipe_bad_flags)
{
	int e[2];
	say("%s", told(pipe2(e, 77777)));
}

corner(pipe_reader_in_child)
{
	int e[2];
	char b[20] = "";
	DO(pipe(e));
	pid_t child = CHILD(close(e[0]); CHECK(write(e[1], "from the child", 14) == 14));
	close(e[1]);
	long got = 0, n;
	while ((n = read(e[0], b + got, 19 - got)) > 0)
		got += n;
	say("%s %d", b, reap(child));
}

corner(fifo_ends)
{
	DO(mkfifo("p", 0600));
	FAILS(ENXIO, open("p", O_WRONLY | O_NONBLOCK));
	int in = DO(open("p", O_RDONLY | O_NONBLOCK)), out = DO(open("p", O_WRONLY));
	char b[4] = "";
	CHECK(write(out, "abc", 3) == 3);
	say("%s %s", told(read(in, b, 3)), b);
	close(out);
	say("%s", told(read(in, b, 3)));
}

corner(fifo_opens_together)
{
	DO(mkfifo("p", 0600));
	pid_t child = CHILD(int out = DO(open("p", O_WRONLY)); CHECK(write(out, "hi", 2) == 2));
	int in = DO(open("p", O_RDONLY));
	char b[3] = "";
	CHECK(read(in, b, 2) == 2);
	say("%s %d", b, reap(child));
}

corner(splice_file_to_pipe)
{
	int e[2], fd = file_of("f", "abcdef");
	char b[7] = "";
	loff_t at = 2;
	DO(pipe(e));
	say("%s", told(splice(fd, &at, e[1], NULL, 3, 0)));
	say("%ld", (long)at);
	CHECK(read(e[0], b, 7) == 3);
	say("%s", b);
}

corner(splice_pipe_to_file)
{
	int e[2], fd = file_of("f", "");
	DO(pipe(e));
	CHECK(write(e[1], "xyz", 3) == 3);
	say("%s", told(splice(e[0], NULL, fd, NULL, 10, 0)));
	say("%s", text_of("f"));
}

corner(splice_pipe_to_pipe)
{
	int a[2], b[2];
	char t[6] = "";
	DO(pipe(a));
	DO(pipe(b));
	CHECK(write(a[1], "hello", 5) == 5);
	say("%s", told(splice(a[0], NULL, b[1], NULL, 3, SPLICE_F_MOVE)));
	CHECK(read(b[0], t, 5) == 3);
	say("%s", t);
	CHECK(read(a[0], t, 5) == 2);
}

corner(splice_neither_pipe)
{
	int f = file_of("f", "abc"), g = file_of("g", "");
	say("%s", told(splice(f, NULL, g, NULL, 3, 0)));
}

corner(splice_empty)
{
	int e[2], fd = file_of("f", "");
	DO(pipe(e));
	say("%s", told(splice(e[0], NULL, fd, NULL, 3, SPLICE_F_NONBLOCK)));
	close(e[1]);
	say("%s", told(splice(e[0], NULL, fd, NULL, 3, 0)));
}

corner(splice_offset_of_pipe)
{
	int e[2], fd = file_of("f", "abc");
	loff_t at = 0;
	DO(pipe(e));
	say("%s", told(splice(fd, NULL, e[1], &at, 3, 0)));
}

corner(splice_to_socket)
{
	int e[2], s[2];
	char b[5] = "";
	DO(pipe(e));
	DO(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	CHECK(write(e[1], "abcd", 4) == 4);
	say("%s", told(splice(e[0], NULL, s[0], NULL, 4, SPLICE_F_MORE)));
	say("%s %s", told(read(s[1], b, 4)), b);
}

corner(tee_twice)
{
	int a[2], b[2];
	char t[5] = "";
	DO(pipe(a));
	DO(pipe(b));
	CHECK(write(a[1], "abcd", 4) == 4);
	say("%s", told(tee(a[0], b[1], 4, 0)));
	say("%s", told(tee(a[0], b[1], 2, 0)));
	CHECK(read(b[0], t, 4) == 4);
	say("%s", t);
	CHECK(read(b[0], t, 4) == 2);
	CHECK(read(a[0], t, 4) == 4);
	say("%s", t);
}

corner(tee_empty)
{
	int a[2], b[2];
	DO(pipe(a));
	DO(pipe(b));
	say("%s", told(tee(a[0], b[1], 4, SPLICE_F_NONBLOCK)));
	say("%s", told(tee(a[0], a[1], 4, 0)));
}

corner(vmsplice_pages)
{
	int e[2];
	char b[5] = "";
	static char page[4096] __attribute__((aligned(4096))) = "gift";
	struct iovec v = { page, 4 };
	DO(pipe(e));
	say("%s", told(vmsplice(e[1], &v, 1, 0)));
	CHECK(read(e[0], b, 4) == 4);
	say("%s", b);
}

corner(eventfd_counts)
{
	int fd = DO(eventfd(3, EFD_NONBLOCK));
	uint64_t v = 4;
	CHECK(write(fd, &v, 8) == 8);
	CHECK(read(fd, &v, 8) == 8);
	say("%d", (int)v);
	say("%s", told(read(fd, &v, 8)));
}

corner(eventfd_semaphore)
{
	int fd = DO(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
	uint64_t v;
	for (int i = 0; i < 3; i++)
		say("%s", told(read(fd, &v, 8)));
	say("%d", (int)v);
}

corner(eventfd_limits)
{
	int fd = DO(eventfd(0, EFD_NONBLOCK));
	uint64_t v = -1ull;
	say("%s", told(write(fd, &v, 8)));
	v--;
	say("%s", told(write(fd, &v, 8)));
	v = 1;
	say("%s", told(write(fd, &v, 8)));
	say("%s %s", told(read(fd, &v, 7)), told(write(fd, &v, 4)));
}

corner(eventfd_poll)
{
	int fd = DO(eventfd(0, 0));
	struct pollfd p = { fd, POLLIN | POLLOUT, 0 };
	poll(&p, 1, 0);
	say("%d", p.revents);
	uint64_t v = 1;
	CHECK(write(fd, &v, 8) == 8);
	poll(&p, 1, 0);
	say("%d", p.revents);
}

static void *wakes_eventfd(void *arg)
{
	uint64_t one = 5;
	CHECK(write(*(int *)arg, &one, 8) == 8);
	return NULL;
}

corner(eventfd_between_threads)
{
	int fd = DO(eventfd(0, 0));
	pthread_t t;
	uint64_t v;
	CHECK(pthread_create(&t, NULL, wakes_eventfd, &fd) == 0);
	CHECK(read(fd, &v, 8) == 8);
	say("%d", (int)v);
	pthread_join(t, NULL);
}

corner(eventfd_after_fork)
{
	int fd = DO(eventfd(0, 0));
	uint64_t v = 7;
	pid_t child = CHILD(CHECK(write(fd, &v, 8) == 8));
	v = 0;
	CHECK(read(fd, &v, 8) == 8);
	say("%d %d", (int)v, reap(child));
}

corner(memfd_seals)
{
	int fd = DO(memfd_create("m", MFD_ALLOW_SEALING | MFD_CLOEXEC));
	DO(ftruncate(fd, 100));
	DO(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	say("%s %s", told(ftruncate(fd, 50)), told(ftruncate(fd, 200)));
	DO(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_WRITE));
	say("%s %s", told(ftruncate(fd, 300)), told(write(fd, "x", 1)));
	DO(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
	say("%s %s", told(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK)), told(fcntl(fd, F_GET_SEALS)));
}

corner(memfd_no_seals)
{
	int fd = DO(memfd_create("m", 0));
	say("%s %s", told(fcntl(fd, F_GET_SEALS)), told(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW)));
	say("%s", told(memfd_create("m", 0x7777)));
}

corner(memfd_mapped_private)
{
	int fd = DO(memfd_create("m", 0));
	CHECK(write(fd, "mapped", 7) == 7);
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED);
	say("%s", p);
	p[0] = 'M';
	char b[7];
	CHECK(pread(fd, b, 7, 0) == 7);
	say("%s %s", p, b);
}

corner(map_file_private)
{
	int fd = file_of("f", "in a file");
	char *p = mmap(NULL, 9, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED);
	say("%.9s", p);
	CHECK(pwrite(fd, "IN", 2, 0) == 2);
	munmap(p, 9);
	FAILS(EINVAL, mmap(NULL, 9, PROT_READ, MAP_PRIVATE, fd, 1) == MAP_FAILED ? -1 : 0);
	FAILS(EBADF, mmap(NULL, 9, PROT_READ, MAP_PRIVATE, -1, 0) == MAP_FAILED ? -1 : 0);
}

corner(map_file_shared_reads)
{
	int fd = file_of("f", "seen by all");
	char *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	say("%s", p);
}

corner(map_past_end)
{
	int fd = file_of("f", "x");
	char *p = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED);
	say("%d", reap(CHILD(signal(SIGBUS, SIG_DFL); _exit(p[4096]))));
}
corner(map_anonymous_shared)
{
	int *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	reap(CHILD(*p = 42));
	say("%d", *p);
}

corner(map_file_shared_writes)
{
	int fd = file_of("f", "abcdef");
	char *p = mmap(NULL, 6, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	p[0] = 'X';
	DO(msync(p, 6, MS_SYNC));
	say("%s", text_of("f"));
}
