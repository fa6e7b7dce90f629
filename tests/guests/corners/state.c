/* What belongs to a process: limits, names, rights, locks, terminals, memory. */
#include "corner.h"

#include <linux/capability.h>
#include <poll.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <termios.h>

corner(limits_set_and_asked)
{
	struct rlimit l;
	DO(getrlimit(RLIMIT_NOFILE, &l));
	l.rlim_cur = 64;
	DO(setrlimit(RLIMIT_NOFILE, &l));
	DO(getrlimit(RLIMIT_NOFILE, &l));
	say("%d", (int)l.rlim_cur);
	l.rlim_cur = 65;
	l.rlim_max = 64;
	say("%s %s", told(setrlimit(RLIMIT_NOFILE, &l)), told(getrlimit(99, &l)));
	say("%s", told(prlimit(0, RLIMIT_NOFILE, NULL, &l)));
	say("%d", reap(CHILD(getrlimit(RLIMIT_NOFILE, &l); _exit((int)l.rlim_cur))));
}

corner(limit_of_memory)
{
	struct rlimit l = { 512 << 20, RLIM_INFINITY };
	DO(setrlimit(RLIMIT_AS, &l));
	say("%s", told(mmap(NULL, 1ul << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0));
}

corner(limit_of_processes)
{
	say("%d", reap(CHILD(struct rlimit l = { 0, 0 }; setrlimit(RLIMIT_NPROC, &l);
			     if (setresuid(54321, 54321, 54321) != 0) _exit(9); pid_t c = fork(); if (c == 0) _exit(0);
			     _exit(c == -1 && errno == EAGAIN ? 1 : 2))));
}

corner(limit_of_other_process)
{
	struct rlimit l;
	pid_t c = CHILD(for (;;) pause());
	DO(prlimit(c, RLIMIT_CORE, NULL, &l));
	say("%s", told(prlimit(99999999, RLIMIT_CORE, NULL, &l)));
	kill(c, SIGKILL);
	say("%d", reap(c));
}

corner(name_of_thread)
{
	char b[16] = "";
	DO(prctl(PR_SET_NAME, "a-name-that-is-too-long"));
	DO(prctl(PR_GET_NAME, b));
	say("%s", b);
	int fd = DO(open("/proc/self/comm", O_RDONLY));
	char c[32] = "";
	long n = DO(read(fd, c, 31));
	c[n - 1] = 0;
	say("%s", c);
}

corner(prctl_errors)
{
	say("%s", told(prctl(PR_SET_DUMPABLE, 77)));
	say("%s", told(prctl(PR_SET_NAME, nowhere())));
	say("%s", told(prctl(PR_SET_PDEATHSIG, 99)));
}

corner(prctl_flags)
{
	int n = -1;
	say("%s", told(prctl(PR_GET_DUMPABLE)));
	DO(prctl(PR_SET_DUMPABLE, 0));
	say("%s", told(prctl(PR_GET_DUMPABLE)));
	DO(prctl(PR_SET_PDEATHSIG, SIGUSR1));
	DO(prctl(PR_GET_PDEATHSIG, &n));
	say("%d", n);
	DO(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	say("%s", told(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)));
	DO(prctl(PR_SET_TIMERSLACK, 12345));
	say("%s", told(prctl(PR_GET_TIMERSLACK)));
}

corner(capabilities_dropped)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2];
	DO(syscall(SYS_capget, &h, d));
	say("%d", reap(CHILD(d[0].effective &= ~(1u << CAP_CHOWN); d[0].permitted &= ~(1u << CAP_CHOWN);
			     if (syscall(SYS_capset, &h, d) != 0) _exit(9); close(file_of("f", ""));
			     _exit(chown("f", 1, 1) == -1 && errno == EPERM ? 1 : 2))));
	h.version = 0;
	say("%s", told(syscall(SYS_capget, &h, NULL)));
	say("%d", h.version == _LINUX_CAPABILITY_VERSION_3);
}

corner(capability_bounds)
{
	say("%s %s", told(prctl(PR_CAPBSET_READ, CAP_CHOWN)), told(prctl(PR_CAPBSET_READ, 999)));
	say("%d", reap(CHILD(_exit(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME) == 0 && prctl(PR_CAPBSET_READ, CAP_SYS_TIME) == 0))));
}

corner(personality_asked)
{
	say("%d", personality(0xffffffff) >= 0);
}

corner(random_bytes)
{
	char a[64] = "", b[64] = "";
	CHECK(getrandom(a, 64, 0) == 64 && getrandom(b, 64, GRND_NONBLOCK) == 64);
	say("%d", memcmp(a, b, 64) != 0);
	say("%s %s", told(getrandom(a, 0, 0)), told(getrandom(a, 1, 0x77)));
	say("%s", told(getrandom(nowhere(), 8, 0)));
	say("%02x%02x", a[0] & 0, b[0] & 0);
	CHECK(getentropy(a, 16) == 0);
}

corner(random_decides)
{
	unsigned char b;
	CHECK(getrandom(&b, 1, 0) == 1);
	int fd = file_of("f", b & 1 ? "odd" : "even");
	close(fd);
	say("%d", strlen(text_of("f")) > 2);
}

static struct flock range(int type, long start, long len)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };
}

corner(locks_of_records)
{
	int fd = file_of("f", "0123456789");
	struct flock l = range(F_WRLCK, 0, 5);
	DO(fcntl(fd, F_SETLK, &l));
	say("%d", reap(CHILD(struct flock m = range(F_WRLCK, 2, 2); int r = fcntl(fd, F_SETLK, &m); m = range(F_WRLCK, 7, 1);
			     _exit(r == -1 && errno == EAGAIN && fcntl(fd, F_SETLK, &m) == 0 ? 1 : 2))));
	l = range(F_RDLCK, 0, 0);
	say("%d", reap(CHILD(struct flock m = range(F_RDLCK, 0, 0); fcntl(fd, F_GETLK, &m);
			     _exit(m.l_type == F_WRLCK && m.l_start == 0 && m.l_len == 5 && m.l_pid == getppid() ? 1 : 2))));
	close(DO(dup(fd)));
	say("%d", reap(CHILD(struct flock m = range(F_WRLCK, 0, 5); _exit(fcntl(fd, F_SETLK, &m) == 0 ? 3 : 4))));
}

corner(locks_waited_for)
{
	int fd = file_of("f", "x"), e[2];
	char b;
	DO(pipe(e));
	pid_t c = CHILD(struct flock l = range(F_WRLCK, 0, 0); DO(fcntl(fd, F_SETLK, &l)); CHECK(write(e[1], "l", 1) == 1);
			pass(30));
	CHECK(read(e[0], &b, 1) == 1);
	struct flock l = range(F_WRLCK, 0, 0);
	say("%s", told(fcntl(fd, F_SETLKW, &l)));
	reap(c);
}

corner(locks_dead_lock)
{
	int fd = file_of("f", "ab"), e[2], g[2];
	char b;
	DO(pipe(e));
	DO(pipe(g));
	struct flock l = range(F_WRLCK, 0, 1);
	DO(fcntl(fd, F_SETLK, &l));
	pid_t c = CHILD(l = range(F_WRLCK, 1, 1); DO(fcntl(fd, F_SETLK, &l)); CHECK(write(e[1], "l", 1) == 1);
			l = range(F_WRLCK, 0, 1); _exit(fcntl(fd, F_SETLKW, &l) == 0 ? 5 : 6));
	CHECK(read(e[0], &b, 1) == 1);
	pass(50);
	l = range(F_WRLCK, 1, 1);
	long r = fcntl(fd, F_SETLKW, &l);
	say("%s", told(r));
	l = range(F_UNLCK, 0, 0);
	DO(fcntl(fd, F_SETLK, &l));
	say("%d", reap(c));
}

corner(locks_of_open_files)
{
	int fd = file_of("f", "ab"), other = DO(open("f", O_RDWR));
	struct flock l = range(F_WRLCK, 0, 0);
	DO(fcntl(fd, F_OFD_SETLK, &l));
	l = range(F_WRLCK, 0, 0);
	say("%s", told(fcntl(other, F_OFD_SETLK, &l)));
	DO(fcntl(other, F_OFD_GETLK, &l));
	say("%d %d", l.l_type == F_WRLCK, l.l_pid);
	close(fd);
	l = range(F_WRLCK, 0, 0);
	say("%s", told(fcntl(other, F_OFD_SETLK, &l)));
}

corner(locks_of_whole_files)
{
	int fd = file_of("f", ""), other = DO(open("f", O_RDWR));
	DO(flock(fd, LOCK_EX));
	say("%s %s", told(flock(other, LOCK_SH | LOCK_NB)), told(flock(fd, LOCK_EX)));
	say("%d", reap(CHILD(_exit(flock(fd, LOCK_UN) == 0))));
	say("%s", told(flock(other, LOCK_EX | LOCK_NB)));
	say("%s", told(flock(other, 77)));
}

corner(leases_broken)
{
	int fd = file_of("f", "");
	on(SIGIO, 0);
	close(fd);
	fd = DO(open("f", O_RDONLY));
	say("%s", told(fcntl(fd, F_SETLEASE, F_RDLCK)));
	pid_t c = CHILD(_exit(open("f", O_WRONLY | O_NONBLOCK) == -1 && errno == EWOULDBLOCK ? 1 : 2));
	say("%d", reap(c));
	while (hits[SIGIO] == 0)
		pass(1);
	say("%d", hits[SIGIO]);
	DO(fcntl(fd, F_SETLEASE, F_UNLCK));
	say("%s", told(fcntl(fd, F_GETLEASE)));
}

corner(fcntl_flags)
{
	int fd = file_of("f", "");
	say("%d", fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
	DO(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK | O_RDONLY));
	say("%d", fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
	say("%s %s", told(fcntl(fd, F_SETFD, FD_CLOEXEC)), told(fcntl(fd, F_GETFD)));
	say("%s", told(fcntl(fd, F_DUPFD, -1)));
	say("%d", fcntl(fd, F_DUPFD, 100));
	say("%d", fcntl(fd, F_DUPFD_CLOEXEC, 100));
}

corner(fcntl_owners)
{
	int e[2];
	DO(socketpair(AF_UNIX, SOCK_STREAM, 0, e));
	say("%s", told(fcntl(e[0], F_GETOWN)));
	DO(fcntl(e[0], F_SETOWN, getpid()));
	say("%d", fcntl(e[0], F_GETOWN) == getpid());
	struct {
		int type, pid;
	} o;
	DO(fcntl(e[0], 16, &o));
	say("%d %d", o.type, o.pid == getpid());
	say("%s", told(fcntl(e[0], F_SETOWN, 99999999)));
	say("%s", told(fcntl(e[0], F_SETSIG, 99)));
}

static int terminal(int *slave)
{
	int m = DO(posix_openpt(O_RDWR | O_NOCTTY));
	DO(grantpt(m));
	DO(unlockpt(m));
	*slave = DO(open(ptsname(m), O_RDWR | O_NOCTTY));
	return m;
}

static const char *visible(const char *text, long len)
{
	static char out[100];
	long n = 0;
	for (long i = 0; i < len && n < 90; i++)
		n += snprintf(out + n, 10, text[i] < 32 ? "<%d>" : "%c", text[i]);
	out[n] = 0;
	return out;
}

corner(terminal_lines)
{
	int s, m = terminal(&s);
	char b[50];
	CHECK(write(m, "word\n", 5) == 5);
	long n = DO(read(s, b, 50));
	say("%s", visible(b, n));
	n = DO(read(m, b, 50));
	say("%s", visible(b, n));
	CHECK(write(s, "out\n", 4) == 4);
	n = DO(read(m, b, 50));
	say("%s", visible(b, n));
}

corner(terminal_edits)
{
	int s, m = terminal(&s);
	char b[50];
	CHECK(write(m, "ab\177c\n", 5) == 5);
	long n = DO(read(s, b, 50));
	say("%s", visible(b, n));
	CHECK(write(m, "x\4", 2) == 2);
	n = DO(read(s, b, 50));
	say("%s", visible(b, n));
	CHECK(write(m, "\4", 1) == 1);
	say("%s", told(read(s, b, 50)));
}

corner(terminal_raw)
{
	int s, m = terminal(&s);
	struct termios t;
	char b[50];
	DO(tcgetattr(s, &t));
	say("%d %d", (t.c_lflag & ICANON) != 0, (t.c_lflag & ECHO) != 0);
	cfmakeraw(&t);
	DO(tcsetattr(s, TCSANOW, &t));
	CHECK(write(m, "k\3", 2) == 2);
	long n = DO(read(s, b, 50));
	say("%s", visible(b, n));
	t.c_cc[VMIN] = 0;
	t.c_cc[VTIME] = 1;
	DO(tcsetattr(s, TCSAFLUSH, &t));
	say("%s", told(read(s, b, 50)));
}

corner(terminal_size)
{
	int s, m = terminal(&s);
	struct winsize w = { 40, 100, 0, 0 };
	on(SIGWINCH, 0);
	DO(ioctl(m, TIOCSWINSZ, &w));
	memset(&w, 0, sizeof w);
	DO(ioctl(s, TIOCGWINSZ, &w));
	say("%d %d", w.ws_row, w.ws_col);
	int fd = file_of("f", "");
	say("%s %s", told(ioctl(fd, TIOCGWINSZ, &w)), told(isatty(fd)));
	say("%d", isatty(s));
}

corner(terminal_controls)
{
	int s, m = terminal(&s);
	(void)m;
	pid_t c = CHILD(DO(setsid()); DO(ioctl(s, TIOCSCTTY, 0)); on(SIGINT, 0); sigset_t none; sigemptyset(&none);
			block(SIGINT); CHECK(write(m, "\3", 1) == 1); while (hits[SIGINT] == 0) sigsuspend(&none);
			_exit(tcgetpgrp(s) == getpid() && tcgetsid(s) == getpid() ? hits[SIGINT] : 9));
	say("%d", reap(c));
}

corner(terminal_hung_up)
{
	int s, m = terminal(&s);
	char b;
	close(m);
	say("%s %s", told(read(s, &b, 1)), told(write(s, "x", 1)));
	struct pollfd p = { s, POLLIN, 0 };
	poll(&p, 1, 0);
	say("%d", (p.revents & POLLHUP) != 0);
}

corner(terminal_flushes)
{
	int s, m = terminal(&s), n;
	CHECK(write(m, "lost\n", 5) == 5);
	struct pollfd p = { s, POLLIN, 0 };
	CHECK(poll(&p, 1, 20000) == 1);
	DO(ioctl(s, FIONREAD, &n));
	say("%d", n);
	DO(tcflush(s, TCIFLUSH));
	DO(ioctl(s, FIONREAD, &n));
	say("%d", n);
	DO(tcsendbreak(s, 0));
	DO(tcflow(s, TCOON));
	say("%s", told(tcdrain(s) == 0 || 1 ? 0 : 1));
}

corner(ioctl_errors)
{
	int fd = file_of("f", "");
	say("%s %s", told(ioctl(fd, TCGETS, NULL)), told(ioctl(-1, FIONREAD, NULL)));
	int n;
	say("%s %d", told(ioctl(fd, FIONREAD, &n)), n);
	DO(ioctl(fd, FIOCLEX));
	say("%s", told(fcntl(fd, F_GETFD)));
	DO(ioctl(fd, FIONCLEX));
	say("%s", told(fcntl(fd, F_GETFD)));
}

corner(memory_maps)
{
	char *p = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	p[0] = 1;
	p[8192] = 3;
	DO(munmap(p + 4096, 4096));
	say("%d %d", p[0], p[8192]);
	say("%s", told(madvise(p, 3 * 4096, MADV_NORMAL)));
	DO(mprotect(p, 4096, PROT_READ));
	say("%d", p[0]);
	DO(madvise(p + 8192, 4096, MADV_DONTNEED));
	say("%d", p[8192]);
	say("%s %s", told(munmap(p + 1, 10)), told(mprotect(p + 1, 10, PROT_READ)));
	say("%s", told(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0));
}

corner(memory_grows)
{
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	p[5] = 5;
	p = mremap(p, 4096, 1 << 20, MREMAP_MAYMOVE);
	CHECK(p != MAP_FAILED);
	say("%d %d", p[5], p[100000]);
	p = mremap(p, 1 << 20, 4096, 0);
	say("%d", p[5]);
	char *top = sbrk(0);
	CHECK(sbrk(100000) == top);
	top[99999] = 7;
	say("%d", top[99999]);
	CHECK(brk(top) == 0);
}

corner(memory_placed)
{
	char *p = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *q = mmap(p + 4096, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	say("%d", q == p + 4096);
	say("%s",
	    told(mmap(p, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED ? -1 : 0));
}

corner(memory_locked)
{
	char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	say("%s %s", told(mlock(p, 8192)), told(munlock(p, 8192)));
	unsigned char v[2];
	say("%s", told(mincore(p, 8192, v)));
	DO(munmap(p, 8192));
	say("%s %s", told(mlock(p, 8192)), told(mincore(p, 8192, v)));
}

corner(memory_big)
{
	char *p = malloc(100 << 20);
	memset(p, 3, 100 << 20);
	long sum = 0;
	for (long i = 0; i < 100 << 20; i += 4096)
		sum += p[i];
	say("%ld", sum);
	free(p);
}

corner(auxiliary_values)
{
	say("%ld %d", getauxval(AT_PAGESZ), getauxval(AT_UID) == getuid());
	say("%d", getauxval(AT_RANDOM) != 0);
	unsigned char *r = (void *)getauxval(AT_RANDOM);
	close(file_of("f", r[0] & 1 ? "odd" : "even"));
}

corner(identity)
{
	say("%d %d", getpid() == gettid(), getppid() > 0);
	say("%d %d %d %d", getuid() == geteuid(), getgid() == getegid(), getpgrp() == getpgid(0),
	    getsid(0) == getsid(getpid()));
}

corner(priorities_of_input)
{
	say("%d", reap(CHILD(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 5); _exit((int)(syscall(SYS_ioprio_get, 1, 0) & 7)))));
	say("%s", told(syscall(SYS_ioprio_set, 1, 0, 9 << 13)));
}

corner(retired_numbers)
{
	int n[] = { 134, 156, 174, 177, 178, 180, 181, 182, 183, 184, 185, 205, 211, 212, 214, 215, 236 };
	for (unsigned i = 0; i < sizeof n / sizeof n[0]; i++)
		FAILS(ENOSYS, syscall(n[i], 1, 2, 3));
	say("none");
}

corner(output_to_error)
{
	CHECK(write(2, "to standard error\n", 18) == 18);
	say("to standard output");
}

corner(output_buffered)
{
	printf("buffered %d\n", 1);
	fflush(stdout);
	FILE *f = fopen("f", "w+");
	for (int i = 0; i < 3000; i++)
		fprintf(f, "%d\n", i);
	rewind(f);
	int v, n = 0;
	while (fscanf(f, "%d", &v) == 1)
		n++;
	fclose(f);
	say("%d", n);
}

corner(input_read)
{
	char b[100];
	long n = read(0, b, 100);
	say("%ld", n);
}

corner(input_closed)
{
	close(0);
	char b;
	say("%s", told(read(0, &b, 1)));
	int fd = DO(open("/dev/null", O_RDONLY));
	say("%d", fd);
}
