/* Signals that a program does not notice while it waits, and bytes that the kernel does not look at. */
#include "corner.h"

#include <netinet/in.h>
#include <poll.h>
#include <linux/capability.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/time.h>

/* A child that sends its parent an ignored signal every 50 ms, for up to 30 s. */
static pid_t nuisance(void)
{
	return CHILD(for (int i = 0; i < 600 && getppid() != 1; i++) {
		kill(getppid(), SIGWINCH);
		pass(50);
	});
}

/* Ends it; it must be there still. */
static void end(pid_t child)
{
	int status;
	CHECK(waitpid(child, &status, WNOHANG) == 0);
	DO(kill(child, SIGKILL));
	CHECK(reap(child) == 137);
}

corner(epoll_wait_ends_under_ignored_signals)
{
	int epoll = DO(epoll_create1(0));
	struct epoll_event event;
	sigset_t none;
	sigemptyset(&none);
	pid_t child = nuisance();
	say("%s", told(epoll_wait(epoll, &event, 1, 300)));
	say("%s", told(epoll_pwait(epoll, &event, 1, 300, &none)));
	struct timespec limit = { 0, 300000000 };
	say("%s", told(epoll_pwait2(epoll, &event, 1, &limit, NULL)));
	CHECK(limit.tv_nsec == 300000000);
	end(child);
}

corner(sockets_end_under_ignored_signals)
{
	int pair[2], listening = DO(socket(AF_INET, SOCK_STREAM, 0));
	struct timeval limit = { 0, 300000 };
	DO(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	DO(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
	DO(setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
	DO(listen(listening, 1));
	DO(setsockopt(listening, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
	pid_t child = nuisance();
	char byte;
	say("recv %s", told(recv(pair[0], &byte, 1, 0)));
	say("read %s", told(read(pair[0], &byte, 1)));
	say("accept %s", told(accept(listening, NULL, NULL)));
	static char much[1 << 16];
	while (send(pair[0], much, sizeof much, MSG_DONTWAIT) > 0)
		;
	say("send %s", told(send(pair[0], much, sizeof much, 0)));
	end(child);
}

corner(semtimedop_ends_under_ignored_signals)
{
	int set = DO(semget(IPC_PRIVATE, 1, 0600));
	struct sembuf down = { 0, -1, 0 };
	struct timespec limit = { 0, 300000000 };
	pid_t child = nuisance();
	say("%s", told(semtimedop(set, &down, 1, &limit)));
	end(child);
	DO(semctl(set, 0, IPC_RMID));
}

corner(sigtimedwait_ends_under_ignored_signals)
{
	sigset_t set = only(SIGUSR1);
	block(SIGUSR1);
	struct timespec limit = { 0, 300000000 };
	pid_t child = nuisance();
	say("%s", told(sigtimedwait(&set, NULL, &limit)));
	end(child);
}

corner(select_goes_on_when_a_child_ends)
{
	struct timeval limit = { 0, 400000 };
	pid_t child = CHILD(pass(50));
	say("select %s", told(select(0, NULL, NULL, NULL, &limit)));
	say("%ld %ld", (long)limit.tv_sec, (long)limit.tv_usec);
	CHECK(reap(child) == 0);
	struct timespec span = { 0, 400000000 };
	child = CHILD(pass(50));
	say("pselect %s", told(pselect(0, NULL, NULL, NULL, &span, NULL)));
	CHECK(reap(child) == 0);
	child = CHILD(pass(50));
	say("ppoll %s", told(ppoll(NULL, 0, &span, NULL)));
	CHECK(reap(child) == 0);
	/* With descriptors that are ready in the end. */
	int pipes[2];
	DO(pipe(pipes));
	limit = (struct timeval){ 60, 0 };
	fd_set set;
	FD_ZERO(&set);
	FD_SET(pipes[0], &set);
	child = CHILD(CHILD(pass(50)); pass(200); DO(write(pipes[1], "x", 1)); pass(50));
	say("select %s", told(select(pipes[0] + 1, &set, NULL, NULL, &limit)));
	say("%d", FD_ISSET(pipes[0], &set));
	CHECK(reap(child) == 0);
}

corner(group_signal_comes_once)
{
	int numbers[] = { SIGUSR1, SIGHUP, SIGALRM, SIGVTALRM, SIGIO, SIGPWR, SIGRTMIN + 3, SIGQUIT };
	for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		on(numbers[i], 0);
		DO(kill(0, numbers[i]));
		pass(30);
		say("%u: %d", i, hits[numbers[i]]);
	}
}

corner(bytes_of_an_address_that_mean_nothing)
{
	char here;
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char *place = &here;
	memcpy(to.sin_zero, &place, sizeof place);
	int one = DO(socket(AF_INET, SOCK_DGRAM, 0)), other = DO(socket(AF_INET, SOCK_DGRAM, 0));
	DO(bind(one, (void *)&to, sizeof to));
	socklen_t len = sizeof to;
	DO(getsockname(one, (void *)&to, &len));
	memcpy(to.sin_zero, &place, sizeof place);
	DO(sendto(other, "a", 1, 0, (void *)&to, sizeof to));
	struct iovec part = { "b", 1 };
	struct msghdr message = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1 };
	DO(sendmsg(other, &message, 0));
	DO(connect(other, (void *)&to, sizeof to));
	DO(write(other, "c", 1));
	char text[4] = "";
	for (int i = 0; i < 3; i++)
		DO(read(one, text + i, 1));
	say("%s", text);
}

corner(halves_of_registers_that_mean_nothing)
{
	char here;
	/* The upper half of an address, which is not the same in two versions. */
	long upper = (long)&here & ~0xffffffffl;
	long fd = DO(syscall(SYS_openat, upper | (unsigned)AT_FDCWD, "file", upper | O_RDWR | O_CREAT, upper | 0600));
	DO(syscall(SYS_fcntl, upper | fd, upper | F_SETFD, FD_CLOEXEC));
	DO(syscall(SYS_fallocate, upper | fd, upper, 0, 100));
	DO(syscall(SYS_lseek, fd, 10, upper | SEEK_SET));
	DO(syscall(SYS_fchmod, fd, upper | 0644));
	DO(syscall(SYS_ftruncate, upper | fd, 200));
	long copy = DO(syscall(SYS_dup3, fd, upper | 50, upper | O_CLOEXEC));
	long one = DO(syscall(SYS_socket, upper | AF_UNIX, upper | SOCK_STREAM, upper));
	DO(syscall(SYS_listen, one, upper | 5) == -1 ? 0 : 0);
	int pair[2], ends[2];
	DO(syscall(SYS_socketpair, upper | AF_UNIX, upper | SOCK_STREAM, upper, pair));
	DO(syscall(SYS_pipe2, ends, upper | O_CLOEXEC));
	DO(syscall(SYS_sendto, pair[0], "abc", 3, upper | MSG_NOSIGNAL, NULL, 0));
	char text[4];
	DO(syscall(SYS_recvfrom, pair[1], text, 3, upper | MSG_WAITALL, NULL, NULL));
	int yes = 1;
	DO(syscall(SYS_setsockopt, pair[0], upper | SOL_SOCKET, upper | SO_KEEPALIVE, &yes, upper | sizeof yes));
	DO(syscall(SYS_shutdown, pair[0], upper | SHUT_WR));
	long epoll = DO(syscall(SYS_epoll_create1, upper | EPOLL_CLOEXEC));
	struct epoll_event event = { .events = EPOLLIN };
	DO(syscall(SYS_epoll_ctl, epoll, upper | EPOLL_CTL_ADD, pair[1], &event));
	say("%s", told(syscall(SYS_epoll_wait, epoll, &event, upper | 1, upper | 50)));
	DO(syscall(SYS_inotify_init1, upper | O_CLOEXEC));
	DO(syscall(SYS_eventfd2, upper | 7, upper | O_CLOEXEC));
	DO(syscall(SYS_umask, upper | 022));
	DO(syscall(SYS_mkdirat, AT_FDCWD, "folder", upper | 0700));
	DO(syscall(SYS_faccessat, AT_FDCWD, "folder", upper | R_OK));
	DO(syscall(SYS_unlinkat, AT_FDCWD, "folder", upper | AT_REMOVEDIR));
	DO(syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, "new", upper | 1));
	DO(syscall(SYS_flock, fd, upper | 2));
	DO(syscall(SYS_kill, upper | (unsigned)getpid(), upper));
	DO(syscall(SYS_close_range, upper | 40, upper | 60, upper));
	say("%ld", copy);
}

corner(getsockname_without_a_place)
{
	int one = DO(socket(AF_INET, SOCK_STREAM, 0));
	socklen_t len = 16;
	FAILS(EFAULT, getsockname(one, NULL, &len));
	say("%u", len);
	len = 0;
	DO(getsockname(one, NULL, &len));
	say("%u", len);
}

corner(capget_tells_the_version)
{
	struct __user_cap_header_struct header = { .version = 1 };
	struct __user_cap_data_struct data[2] = { 0 };
	FAILS(EINVAL, syscall(SYS_capget, &header, data));
	say("%x", header.version);
	header = (struct __user_cap_header_struct){ .version = 1 };
	DO(syscall(SYS_capget, &header, NULL));
	say("%x", header.version);
}

corner(execute_from_memory)
{
	int fd = DO(memfd_create("program", MFD_CLOEXEC)), from = DO(open("/bin/true", O_RDONLY));
	char text[65536];
	for (long len; (len = DO(read(from, text, sizeof text))) > 0;)
		CHECK(write(fd, text, len) == len);
	char *words[] = { "true", NULL };
	say("%d", reap(CHILD(fexecve(fd, words, words + 1); _exit(9))));
}

corner(writes_to_its_own_memory)
{
	static volatile long word = 1;
	int fd = DO(open("/proc/self/mem", O_RDWR));
	long value = 77;
	CHECK(pwrite(fd, &value, sizeof value, (off_t)&word) == sizeof value);
	say("%ld", word);
	long back = 0;
	CHECK(pread(fd, &back, sizeof back, (off_t)&word) == sizeof back);
	say("%ld", back);
}

corner(seeks_in_its_own_memory)
{
	static volatile long words[2] = { 1, 2 };
	int fd = DO(open("/proc/self/mem", O_RDWR));
	long values[] = { 77, 88 }, back = 0;
	CHECK(lseek(fd, (off_t)words, SEEK_SET) == (off_t)words);
	CHECK(write(fd, &values[0], sizeof values[0]) == sizeof values[0]);
	CHECK(write(fd, &values[1], sizeof values[1]) == sizeof values[1]);
	say("%ld %ld", words[0], words[1]);
	CHECK(lseek(fd, -(off_t)sizeof back, SEEK_CUR) == (off_t)&words[1]);
	CHECK(read(fd, &back, sizeof back) == sizeof back);
	say("%ld", back);
	const char *constant = "a constant";
	CHECK(pwrite(fd, "A", 1, (off_t)constant) == 1);
	say("%s", constant);
	CHECK(pread(fd, &back, sizeof back, 16) == -1);
	say("%d", errno == EIO);
}

corner(subreaper_is_told)
{
	int is = 5;
	DO(prctl(PR_SET_CHILD_SUBREAPER, 1));
	DO(prctl(PR_GET_CHILD_SUBREAPER, &is));
	say("%d", is);
}

corner(timer_ends_a_loop)
{
	on(SIGALRM, 0);
	struct itimerval t = { { 0, 0 }, { 0, 50000 } };
	DO(setitimer(ITIMER_REAL, &t, NULL));
	while (!hits[SIGALRM])
		;
	say("%d", hits[SIGALRM]);
}

corner(busy_child_is_killed)
{
	pid_t child = CHILD(for (;;) __asm__ volatile(""));
	pass(100);
	DO(kill(child, SIGKILL));
	say("%d", reap(child));
	child = CHILD(for (;;) __asm__ volatile(""));
	pass(100);
	DO(kill(child, SIGTERM));
	say("%d", reap(child));
}

corner(child_writes_shared_memory)
{
	int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED);
	for (int i = 0; i < 15; i++) {
		pid_t child = CHILD(for (volatile int spin = 0; spin < 3000000; spin++); *shared += i);
		CHECK(reap(child) == 0);
		say("%d", *shared);
	}
}

corner(shared_futex_times_out)
{
	int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED);
	struct timespec limit = { 0, 50000000 };
	say("%s", told(syscall(SYS_futex, shared, 0, 0, &limit, NULL, 0)));
	say("%s", told(syscall(SYS_futex, shared, 0, 1, &limit, NULL, 0)));
}

corner(signal_behind_a_mask)
{
	on(SIGUSR1, 0);
	block(SIGUSR1);
	int epoll = DO(epoll_create1(0));
	struct epoll_event event;
	sigset_t none;
	sigemptyset(&none);
	pid_t parent = getpid();
	pid_t child = CHILD(pass(50); kill(parent, SIGUSR1));
	say("%s", told(epoll_pwait(epoll, &event, 1, 20000, &none)));
	say("%d", hits[SIGUSR1]);
	CHECK(reap(child) == 0);
	sigset_t now;
	sigprocmask(SIG_BLOCK, NULL, &now);
	say("%d", sigismember(&now, SIGUSR1));
	/* One that waits already. */
	DO(raise(SIGUSR1));
	say("%s", told(epoll_pwait(epoll, &event, 1, 20000, &none)));
	say("%d", hits[SIGUSR1]);
	DO(raise(SIGUSR1));
	struct timespec limit = { 20, 0 };
	say("%s", told(ppoll(NULL, 0, &limit, &none)));
	say("%d", hits[SIGUSR1]);
}

static pthread_mutex_t inheriting;

static void *take_turns(void *sum)
{
	for (int i = 0; i < 50; i++) {
		CHECK(pthread_mutex_lock(&inheriting) == 0);
		++*(int *)sum;
		sched_yield();
		CHECK(pthread_mutex_unlock(&inheriting) == 0);
	}
	return NULL;
}

corner(mutex_that_inherits_priority)
{
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	CHECK(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT) == 0);
	CHECK(pthread_mutex_init(&inheriting, &attributes) == 0);
	pthread_t threads[3];
	int sum = 0;
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, take_turns, &sum) == 0);
	for (int i = 0; i < 3; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	say("%d", sum);
}
