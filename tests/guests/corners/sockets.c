/* Sockets: streams, datagrams, options, control data, odd ends. */
#include "corner.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <stddef.h>
#include <sys/un.h>

static int bound_port(int fd)
{
	struct sockaddr_in in;
	socklen_t len = sizeof in;
	DO(getsockname(fd, (struct sockaddr *)&in, &len));
	return in.sin_port;
}

static struct sockaddr_in at_port(int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = port, .sin_addr = { htonl(INADDR_LOOPBACK) } };
}

static int bound(int type)
{
	int fd = DO(socket(AF_INET, type, 0));
	struct sockaddr_in in = at_port(0);
	DO(bind(fd, (struct sockaddr *)&in, sizeof in));
	return fd;
}
/* Both ends of a connection over TCP. */
static void connected(int e[2])
{
	int listener = bound(SOCK_STREAM);
	DO(listen(listener, 5));
	struct sockaddr_in in = at_port(bound_port(listener));
	e[0] = DO(socket(AF_INET, SOCK_STREAM, 0));
	DO(connect(e[0], (struct sockaddr *)&in, sizeof in));
	e[1] = DO(accept(listener, NULL, NULL));
	close(listener);
}

static void unix_pair(int e[2], int type)
{
	DO(socketpair(AF_UNIX, type, 0, e));
}

corner(socket_errors)
{
	say("%s %s", told(socket(999, SOCK_STREAM, 0)), told(socket(AF_INET, 77, 0)));
	say("%s", told(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP)));
	int e[2];
	say("%s", told(socketpair(AF_INET, SOCK_STREAM, 0, e)));
}

/* Lengths that the kernel refuses before it reads anything. */
corner(absurd_lengths)
{
	int e[2];
	unix_pair(e, SOCK_DGRAM);
	char byte = 'x', control[256] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control };
	size_t lengths[] = { (size_t)-1, (size_t)1 << 46, (size_t)1 << 31 };
	for (int i = 0; i < 3; i++) {
		msg.msg_controllen = lengths[i];
		say("%s", told(sendmsg(e[0], &msg, 0)));
	}
	msg.msg_controllen = 0;
	msg.msg_name = control;
	for (int i = 0; i < 3; i++) {
		msg.msg_namelen = (socklen_t[]){ (socklen_t)-1, 1 << 30, 200 }[i];
		say("%s", told(sendmsg(e[0], &msg, 0)));
	}
	msg.msg_name = NULL;
	msg.msg_iovlen = (size_t)-1;
	say("%s", told(sendmsg(e[0], &msg, 0)));
	say("%s", told(syscall(SYS_poll, (char *)-8L, 3, 0)));
	close(e[0]);
	close(e[1]);
}

corner(socket_flags)
{
	int fd = DO(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	say("%s %d", told(fcntl(fd, F_GETFD)), (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
}

corner(not_a_socket)
{
	int fd = file_of("f", "abc");
	char b;
	say("%s %s", told(recv(fd, &b, 1, 0)), told(listen(fd, 1)));
	say("%s", told(shutdown(fd, SHUT_RD)));
}

corner(tcp_echo)
{
	int e[2];
	char b[6] = "";
	connected(e);
	CHECK(send(e[0], "hello", 5, 0) == 5);
	CHECK(recv(e[1], b, 5, MSG_WAITALL) == 5);
	say("%s", b);
}

corner(tcp_half_closed)
{
	int e[2];
	char b[4] = "";
	connected(e);
	DO(shutdown(e[0], SHUT_WR));
	say("%s", told(recv(e[1], b, 3, 0)));
	CHECK(send(e[1], "abc", 3, 0) == 3);
	CHECK(recv(e[0], b, 3, MSG_WAITALL) == 3);
	say("%s", b);
	signal(SIGPIPE, SIG_IGN);
	say("%s", told(send(e[0], "x", 1, 0)));
}

corner(tcp_refused)
{
	int fd = bound(SOCK_STREAM), client = DO(socket(AF_INET, SOCK_STREAM, 0));
	struct sockaddr_in in = at_port(bound_port(fd));
	close(fd);
	say("%s", told(connect(client, (struct sockaddr *)&in, sizeof in)));
}

corner(tcp_not_connected)
{
	int fd = DO(socket(AF_INET, SOCK_STREAM, 0));
	char b;
	struct sockaddr_in in;
	socklen_t len = sizeof in;
	signal(SIGPIPE, SIG_IGN);
	say("%s %s", told(recv(fd, &b, 1, 0)), told(send(fd, "x", 1, 0)));
	say("%s %s", told(getpeername(fd, (struct sockaddr *)&in, &len)), told(shutdown(fd, SHUT_RD)));
}

corner(tcp_nonblocking_connect)
{
	int l = bound(SOCK_STREAM), fd = DO(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)), error = 77;
	DO(listen(l, 1));
	struct sockaddr_in in = at_port(bound_port(l));
	long got = connect(fd, (struct sockaddr *)&in, sizeof in);
	CHECK(got == 0 || errno == EINPROGRESS);
	struct pollfd p = { fd, POLLOUT, 0 };
	CHECK(poll(&p, 1, 10000) == 1);
	socklen_t len = 4;
	DO(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
	say("%d", error);
}

corner(tcp_accept_nonblocking)
{
	int l = bound(SOCK_STREAM);
	DO(listen(l, 1));
	DO(fcntl(l, F_SETFL, O_NONBLOCK));
	say("%s", told(accept(l, NULL, NULL)));
}

corner(tcp_accept_address)
{
	int l = bound(SOCK_STREAM);
	DO(listen(l, 1));
	struct sockaddr_in in = at_port(bound_port(l));
	int c = DO(socket(AF_INET, SOCK_STREAM, 0));
	DO(connect(c, (struct sockaddr *)&in, sizeof in));
	struct sockaddr_in from;
	memset(&from, 0x5a, sizeof from);
	socklen_t len = 4;
	int s = DO(accept4(l, (struct sockaddr *)&from, &len, SOCK_CLOEXEC));
	say("%d %d %d", (int)len, from.sin_family, from.sin_addr.s_addr == 0x5a5a5a5a);
	say("%s", told(fcntl(s, F_GETFD)));
}

corner(tcp_reset)
{
	int e[2];
	char b;
	connected(e);
	struct linger l = { 1, 0 };
	DO(setsockopt(e[0], SOL_SOCKET, SO_LINGER, &l, sizeof l));
	close(e[0]);
	say("%s", told(recv(e[1], &b, 1, 0)));
	say("%s", told(recv(e[1], &b, 1, 0)));
}

corner(tcp_peek)
{
	int e[2];
	char b[4] = "";
	connected(e);
	CHECK(send(e[0], "abc", 3, 0) == 3);
	CHECK(recv(e[1], b, 3, MSG_PEEK | MSG_WAITALL) == 3);
	say("%s", b);
	memset(b, 0, 4);
	CHECK(recv(e[1], b, 3, 0) == 3);
	say("%s", b);
}

corner(tcp_urgent)
{
	int e[2], mark;
	char b[4] = "";
	connected(e);
	CHECK(send(e[0], "ab", 2, 0) == 2);
	CHECK(send(e[0], "!", 1, MSG_OOB) == 1);
	struct pollfd p = { e[1], POLLPRI, 0 };
	CHECK(poll(&p, 1, 10000) == 1);
	CHECK(recv(e[1], b, 3, 0) == 2);
	DO(ioctl(e[1], SIOCATMARK, &mark));
	say("%s %d", b, mark);
	CHECK(recv(e[1], b, 1, MSG_OOB) == 1);
	say("%c", b[0]);
}

corner(tcp_options)
{
	int e[2], v;
	connected(e);
	socklen_t len;
	static const int names[] = { TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_CORK, TCP_DEFER_ACCEPT };
	for (int i = 0; i < 6; i++) {
		v = 1 + i % 2;
		len = 4;
		DO(setsockopt(e[0], IPPROTO_TCP, names[i], &v, 4));
		v = -1;
		DO(getsockopt(e[0], IPPROTO_TCP, names[i], &v, &len));
		say("%d %d", v, (int)len);
	}
}

corner(tcp_info)
{
	int e[2];
	connected(e);
	struct tcp_info i;
	socklen_t len = 8;
	memset(&i, 0, sizeof i);
	DO(getsockopt(e[0], IPPROTO_TCP, TCP_INFO, &i, &len));
	say("%d %d", (int)len, i.tcpi_state);
}

corner(tcp_unread)
{
	int e[2], n;
	connected(e);
	CHECK(send(e[0], "12345", 5, 0) == 5);
	struct pollfd p = { e[1], POLLIN, 0 };
	CHECK(poll(&p, 1, 10000) == 1);
	DO(ioctl(e[1], FIONREAD, &n));
	say("%d", n);
}

corner(tcp_receive_timeout)
{
	int e[2];
	char b;
	connected(e);
	struct timeval t = { 0, 20000 };
	DO(setsockopt(e[1], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
	say("%s", told(recv(e[1], &b, 1, 0)));
}

corner(tcp_bind_twice)
{
	int a = bound(SOCK_STREAM), b = DO(socket(AF_INET, SOCK_STREAM, 0));
	struct sockaddr_in in = at_port(bound_port(a));
	say("%s", told(bind(b, (struct sockaddr *)&in, sizeof in)));
	say("%s", told(bind(a, (struct sockaddr *)&in, sizeof in)));
}

corner(tcp_six)
{
	int l = socket(AF_INET6, SOCK_STREAM, 0);
	if (l < 0) {
		say("none");
		return;
	}
	struct sockaddr_in6 in = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	if (bind(l, (struct sockaddr *)&in, sizeof in) != 0) {
		say("none");
		return;
	}
	DO(listen(l, 1));
	socklen_t len = sizeof in;
	DO(getsockname(l, (struct sockaddr *)&in, &len));
	int c = DO(socket(AF_INET6, SOCK_STREAM, 0));
	DO(connect(c, (struct sockaddr *)&in, sizeof in));
	int s = DO(accept(l, NULL, NULL));
	char b[3] = "";
	CHECK(send(c, "v6", 2, 0) == 2 && recv(s, b, 2, MSG_WAITALL) == 2);
	say("%s %d", b, (int)len);
}

corner(udp_datagrams)
{
	int a = bound(SOCK_DGRAM), b = bound(SOCK_DGRAM);
	char t[10] = "";
	struct sockaddr_in to = at_port(bound_port(b)), from;
	socklen_t len = sizeof from;
	CHECK(sendto(a, "one", 3, 0, (struct sockaddr *)&to, sizeof to) == 3);
	CHECK(sendto(a, "", 0, 0, (struct sockaddr *)&to, sizeof to) == 0);
	CHECK(recvfrom(b, t, 10, 0, (struct sockaddr *)&from, &len) == 3);
	say("%s %d", t, from.sin_port == bound_port(a));
	say("%s", told(recv(b, t, 10, 0)));
}

corner(udp_truncated)
{
	int a = bound(SOCK_DGRAM), b = bound(SOCK_DGRAM);
	char *t = guarded(3);
	struct sockaddr_in to = at_port(bound_port(b));
	for (int i = 0; i < 2; i++)
		CHECK(sendto(a, "0123456789", 10, 0, (struct sockaddr *)&to, sizeof to) == 10);
	say("%s %.3s", told(recv(b, t, 3, MSG_TRUNC)), t);
	say("%s", told(recv(b, t, 3, 0)));
}

corner(udp_refused)
{
	int a = bound(SOCK_DGRAM), b = bound(SOCK_DGRAM);
	char t;
	struct sockaddr_in to = at_port(bound_port(b));
	close(b);
	DO(connect(a, (struct sockaddr *)&to, sizeof to));
	CHECK(send(a, "x", 1, 0) == 1);
	say("%s", told(recv(a, &t, 1, 0)));
}

corner(udp_unconnect)
{
	int a = bound(SOCK_DGRAM);
	struct sockaddr_in to = at_port(bound_port(a));
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	DO(connect(a, (struct sockaddr *)&to, sizeof to));
	DO(connect(a, &none, sizeof none));
	say("%s", told(send(a, "x", 1, 0)));
}

corner(udp_too_long)
{
	int a = bound(SOCK_DGRAM);
	struct sockaddr_in to = at_port(bound_port(a));
	char *t = calloc(1, 70000);
	say("%s", told(sendto(a, t, 70000, 0, (struct sockaddr *)&to, sizeof to)));
}

corner(udp_nothing_there)
{
	int a = bound(SOCK_DGRAM);
	char b;
	say("%s", told(recv(a, &b, 1, MSG_DONTWAIT)));
}

corner(udp_destination)
{
	int a = bound(SOCK_DGRAM), one = 1;
	DO(setsockopt(a, IPPROTO_IP, IP_PKTINFO, &one, 4));
	struct sockaddr_in to = at_port(bound_port(a));
	CHECK(sendto(a, "x", 1, 0, (struct sockaddr *)&to, sizeof to) == 1);
	char b, c[64];
	struct iovec v = { &b, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c };
	CHECK(recvmsg(a, &m, 0) == 1);
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	say("%d %d", h != NULL && h->cmsg_type == IP_PKTINFO, (int)m.msg_controllen);
}

corner(udp_time_stamp)
{
	int a = bound(SOCK_DGRAM), one = 1;
	DO(setsockopt(a, SOL_SOCKET, SO_TIMESTAMP, &one, 4));
	struct sockaddr_in to = at_port(bound_port(a));
	CHECK(sendto(a, "x", 1, 0, (struct sockaddr *)&to, sizeof to) == 1);
	char b, c[64];
	struct iovec v = { &b, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c };
	CHECK(recvmsg(a, &m, 0) == 1);
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	say("%d", h != NULL && h->cmsg_type == SCM_TIMESTAMP);
}

corner(unix_stream)
{
	int e[2];
	char b[10] = "";
	unix_pair(e, SOCK_STREAM);
	CHECK(write(e[0], "ab", 2) == 2 && write(e[0], "cd", 2) == 2);
	CHECK(read(e[1], b, 10) == 4);
	say("%s", b);
	close(e[0]);
	say("%s", told(read(e[1], b, 1)));
}

corner(unix_datagram)
{
	int e[2];
	char b[10] = "";
	unix_pair(e, SOCK_DGRAM);
	CHECK(write(e[0], "ab", 2) == 2 && write(e[0], "cd", 2) == 2);
	say("%s %s", told(read(e[1], b, 10)), b);
	CHECK(read(e[1], b, 1) == 1);
	FAILS(EAGAIN, recv(e[1], b, 1, MSG_DONTWAIT));
}

corner(unix_seqpacket)
{
	int e[2];
	char b[10] = "";
	unix_pair(e, SOCK_SEQPACKET);
	CHECK(write(e[0], "abc", 3) == 3 && write(e[0], "d", 1) == 1);
	struct iovec v = { b, 2 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	CHECK(recvmsg(e[1], &m, 0) == 2);
	say("%d %s", (m.msg_flags & MSG_TRUNC) != 0, b);
	CHECK(recv(e[1], b, 10, 0) == 1);
	close(e[0]);
	say("%s", told(recv(e[1], b, 1, 0)));
}

static socklen_t unix_name(struct sockaddr_un *un, const char *name, int abstract)
{
	memset(un, 0, sizeof *un);
	un->sun_family = AF_UNIX;
	strcpy(un->sun_path + abstract, name);
	return offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name) + !abstract;
}

corner(unix_by_path)
{
	struct sockaddr_un un;
	socklen_t len = unix_name(&un, "sock", 0);
	int l = DO(socket(AF_UNIX, SOCK_STREAM, 0)), c = DO(socket(AF_UNIX, SOCK_STREAM, 0));
	DO(bind(l, (struct sockaddr *)&un, len));
	say("%s", told(connect(c, (struct sockaddr *)&un, len)));
	DO(listen(l, 1));
	DO(connect(c, (struct sockaddr *)&un, len));
	int s = DO(accept(l, NULL, NULL));
	struct sockaddr_un back;
	len = sizeof back;
	DO(getpeername(c, (struct sockaddr *)&back, &len));
	say("%s %d", back.sun_path, (int)len);
	len = sizeof back;
	DO(getsockname(c, (struct sockaddr *)&back, &len));
	say("%d", (int)len);
	close(s);
	int again = DO(socket(AF_UNIX, SOCK_STREAM, 0));
	len = unix_name(&un, "sock", 0);
	say("%s", told(bind(again, (struct sockaddr *)&un, len)));
}

corner(unix_abstract)
{
	struct sockaddr_un un;
	char name[60];
	snprintf(name, sizeof name, "mvedsua-corner-%d", getpid());
	socklen_t len = unix_name(&un, name, 1);
	int l = DO(socket(AF_UNIX, SOCK_STREAM, 0)), c = DO(socket(AF_UNIX, SOCK_STREAM, 0));
	DO(bind(l, (struct sockaddr *)&un, len));
	DO(listen(l, 1));
	say("%s", told(connect(c, (struct sockaddr *)&un, len)));
}

corner(unix_autobind)
{
	int fd = DO(socket(AF_UNIX, SOCK_DGRAM, 0));
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	socklen_t len = sizeof un;
	DO(bind(fd, (struct sockaddr *)&un, 2));
	DO(getsockname(fd, (struct sockaddr *)&un, &len));
	say("%d", (int)len);
}

corner(unix_credentials_of_peer)
{
	int e[2];
	struct ucred c;
	socklen_t len = sizeof c;
	unix_pair(e, SOCK_STREAM);
	DO(getsockopt(e[0], SOL_SOCKET, SO_PEERCRED, &c, &len));
	say("%d %d", c.pid == getpid(), (int)len);
}

static long send_fds(int fd, const int *fds, int count)
{
	union {
		struct cmsghdr h;
		char room[2000];
	} c = { .h = { CMSG_LEN(4 * count), SOL_SOCKET, SCM_RIGHTS } };
	memcpy(CMSG_DATA(&c.h), fds, 4 * count);
	struct iovec v = { "x", 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = CMSG_SPACE(4 * count) };
	return sendmsg(fd, &m, 0);
}

static int receive_fds(int fd, int *fds, int room, int *flags)
{
	union {
		struct cmsghdr h;
		char room[2000];
	} c;
	char b;
	struct iovec v = { &b, 1 };
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = room ? CMSG_SPACE(4 * room) : 0
	};
	DO(recvmsg(fd, &m, *flags));
	*flags = m.msg_flags;
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	if (h == NULL)
		return 0;
	int n = (h->cmsg_len - CMSG_LEN(0)) / 4;
	memcpy(fds, CMSG_DATA(h), 4 * n);
	return n;
}

corner(rights_one)
{
	int e[2], got[4], flags = 0, p[2];
	char b;
	unix_pair(e, SOCK_STREAM);
	DO(pipe(p));
	CHECK(send_fds(e[0], &p[0], 1) == 1);
	say("%d", receive_fds(e[1], got, 4, &flags));
	CHECK(write(p[1], "z", 1) == 1 && read(got[0], &b, 1) == 1);
	say("%c %d", b, flags);
}

corner(rights_close_on_exec)
{
	int e[2], got[4], flags = MSG_CMSG_CLOEXEC;
	unix_pair(e, SOCK_STREAM);
	CHECK(send_fds(e[0], &e[0], 1) == 1);
	say("%d", receive_fds(e[1], got, 1, &flags));
	say("%s", told(fcntl(got[0], F_GETFD)));
}

corner(rights_cut)
{
	int e[2], got[4], flags = 0, three[3];
	unix_pair(e, SOCK_STREAM);
	three[0] = three[1] = three[2] = e[0];
	CHECK(send_fds(e[0], three, 3) == 1);
	say("%d %d", receive_fds(e[1], got, 1, &flags), 0);
	say("%d", (flags & MSG_CTRUNC) != 0);
	flags = 0;
	CHECK(send_fds(e[0], three, 3) == 1);
	say("%d", receive_fds(e[1], got, 0, &flags));
	say("%d", (flags & MSG_CTRUNC) != 0);
}

corner(rights_253)
{
	int e[2], flags = 0;
	static int many[254], got[254];
	unix_pair(e, SOCK_STREAM);
	for (int i = 0; i < 254; i++)
		many[i] = e[0];
	say("%s", told(send_fds(e[0], many, 254)));
	say("%s", told(send_fds(e[0], many, 253)));
	say("%d", receive_fds(e[1], got, 253, &flags));
}

corner(rights_bad)
{
	int e[2], bad = 9999;
	unix_pair(e, SOCK_STREAM);
	say("%s", told(send_fds(e[0], &bad, 1)));
}

corner(rights_from_child)
{
	int e[2], got[2], flags = 0;
	char b[4] = "";
	unix_pair(e, SOCK_STREAM);
	pid_t child = CHILD(int fd = file_of("f", "abc"); CHECK(send_fds(e[0], &fd, 1) == 1));
	CHECK(receive_fds(e[1], got, 1, &flags) == 1);
	CHECK(read(got[0], b, 3) == 3);
	say("%s %d", b, reap(child));
}

corner(rights_dropped_unread)
{
	int e[2], p[2];
	char b;
	unix_pair(e, SOCK_STREAM);
	DO(pipe(p));
	CHECK(send_fds(e[0], &p[1], 1) == 1);
	close(p[1]);
	close(e[0]);
	close(e[1]);
	say("%s", told(read(p[0], &b, 1)));
}

corner(credentials_passed)
{
	int e[2], one = 1;
	unix_pair(e, SOCK_DGRAM);
	DO(setsockopt(e[1], SOL_SOCKET, SO_PASSCRED, &one, 4));
	CHECK(write(e[0], "x", 1) == 1);
	char b, c[100];
	struct iovec v = { &b, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c };
	CHECK(recvmsg(e[1], &m, 0) == 1);
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	struct ucred u;
	CHECK(h != NULL && h->cmsg_type == SCM_CREDENTIALS);
	memcpy(&u, CMSG_DATA(h), sizeof u);
	say("%d %d", u.pid == getpid(), u.uid == getuid());
}

corner(getsockname_short)
{
	int fd = bound(SOCK_STREAM);
	unsigned char *room = guarded(3);
	memset(room, 0x77, 3);
	socklen_t len = 3;
	DO(getsockname(fd, (struct sockaddr *)room, &len));
	say("%d %d %d", (int)len, room[0], room[1]);
	len = 0;
	DO(getsockname(fd, (struct sockaddr *)room, &len));
	say("%d", (int)len);
	len = (socklen_t)-1;
	say("%s", told(getsockname(fd, (struct sockaddr *)room, &len)));
}

corner(getsockopt_short)
{
	int fd = bound(SOCK_STREAM), v = 0x11111111;
	socklen_t len = 2;
	DO(getsockopt(fd, SOL_SOCKET, SO_TYPE, &v, &len));
	say("%x %d", v, (int)len);
	len = 100;
	char big[100];
	DO(getsockopt(fd, SOL_SOCKET, SO_TYPE, big, &len));
	say("%d", (int)len);
	say("%s", told(getsockopt(fd, SOL_SOCKET, 9999, &v, &len)));
	say("%s", told(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &v, 2)));
}

corner(options_round_trip)
{
	int fd = bound(SOCK_STREAM);
	static const int names[] = { SO_REUSEADDR, SO_KEEPALIVE, SO_BROADCAST, SO_OOBINLINE,
				     SO_REUSEPORT, SO_RCVLOWAT,	 SO_PRIORITY,  SO_TIMESTAMP };
	for (int i = 0; i < 8; i++) {
		int v = 1;
		socklen_t len = 4;
		DO(setsockopt(fd, SOL_SOCKET, names[i], &v, 4));
		v = -1;
		DO(getsockopt(fd, SOL_SOCKET, names[i], &v, &len));
		say("%d", v);
	}
	struct linger l = { 1, 5 };
	socklen_t len = sizeof l;
	DO(setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l));
	l.l_linger = 0;
	DO(getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &len));
	say("%d", l.l_linger);
}

corner(buffers_are_doubled)
{
	int fd = bound(SOCK_DGRAM), v = 10000;
	socklen_t len = 4;
	DO(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &v, 4));
	DO(getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &v, &len));
	say("%d", v);
}

corner(send_no_signal)
{
	int e[2];
	on(SIGPIPE, 0);
	unix_pair(e, SOCK_STREAM);
	close(e[1]);
	say("%s %d", told(send(e[0], "x", 1, MSG_NOSIGNAL)), hits[SIGPIPE]);
}

corner(send_zero)
{
	int e[2];
	char b;
	unix_pair(e, SOCK_STREAM);
	say("%s", told(send(e[0], NULL, 0, 0)));
	say("%s", told(recv(e[1], &b, 1, MSG_DONTWAIT)));
}

corner(sendto_connected)
{
	int e[2];
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	unix_pair(e, SOCK_STREAM);
	say("%s", told(sendto(e[0], "x", 1, 0, (struct sockaddr *)&un, sizeof un)));
}

corner(message_of_nothing)
{
	int e[2];
	struct msghdr m = { 0 };
	unix_pair(e, SOCK_DGRAM);
	say("%s", told(sendmsg(e[0], &m, 0)));
	say("%s", told(recvmsg(e[1], &m, 0)));
}

corner(message_bad_header)
{
	int e[2];
	unix_pair(e, SOCK_DGRAM);
	say("%s %s", told(sendmsg(e[0], nowhere(), 0)), told(recvmsg(e[1], nowhere(), MSG_DONTWAIT)));
}

corner(message_too_many_parts)
{
	int e[2];
	static struct iovec v[1025];
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 1025 };
	unix_pair(e, SOCK_DGRAM);
	say("%s", told(sendmsg(e[0], &m, 0)));
}

corner(message_bad_control)
{
	int e[2];
	struct iovec v = { "x", 1 };
	struct cmsghdr h = { 3, SOL_SOCKET, SCM_RIGHTS };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &h, .msg_controllen = sizeof h };
	unix_pair(e, SOCK_DGRAM);
	say("%s", told(sendmsg(e[0], &m, 0)));
}

static void many_messages(int e[2], int count)
{
	static struct mmsghdr m[8];
	static struct iovec v[8];
	for (int i = 0; i < count; i++) {
		v[i] = (struct iovec){ "message", 3 + i };
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &v[i], .msg_iovlen = 1 };
	}
	say("%s", told(sendmmsg(e[0], m, count, 0)));
	for (int i = 0; i < count; i++)
		say("%u", m[i].msg_len);
}

corner(sendmmsg_four)
{
	int e[2];
	unix_pair(e, SOCK_DGRAM);
	many_messages(e, 4);
}

corner(recvmmsg_timeout)
{
	int e[2];
	static struct mmsghdr m[5];
	static struct iovec v[5];
	static char b[5][10];
	unix_pair(e, SOCK_DGRAM);
	many_messages(e, 2);
	for (int i = 0; i < 5; i++) {
		v[i] = (struct iovec){ b[i], 10 };
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &v[i], .msg_iovlen = 1 };
	}
	struct timespec t = { 5, 0 };
	say("%s", told(recvmmsg(e[1], m, 5, MSG_DONTWAIT, &t)));
	say("%s %s", b[0], b[1]);
	say("%s", told(recvmmsg(e[1], m, 5, MSG_DONTWAIT, NULL)));
	say("%s", told(recvmmsg(e[1], m, 0, MSG_DONTWAIT, NULL)));
}

corner(sendmmsg_stops_at_error)
{
	int e[2];
	struct mmsghdr m[2] = { 0 };
	struct iovec good = { "x", 1 }, bad = { nowhere(), 1 };
	unix_pair(e, SOCK_DGRAM);
	m[0].msg_hdr = (struct msghdr){ .msg_iov = &good, .msg_iovlen = 1 };
	m[1].msg_hdr = (struct msghdr){ .msg_iov = &bad, .msg_iovlen = 1 };
	say("%s", told(sendmmsg(e[0], m, 2, 0)));
	say("%s", told(sendmmsg(e[0], m + 1, 1, 0)));
}

corner(listen_backlog_shutdown)
{
	int l = bound(SOCK_STREAM);
	DO(listen(l, 0));
	DO(shutdown(l, SHUT_RD));
	say("%s", told(accept(l, NULL, NULL)));
}
static void *shuts(void *arg)
{
	pass(30);
	DO(shutdown(*(int *)arg, SHUT_RDWR));
	return NULL;
}

corner(shutdown_wakes_reader)
{
	int e[2];
	char b;
	pthread_t t;
	unix_pair(e, SOCK_STREAM);
	CHECK(pthread_create(&t, NULL, shuts, &e[0]) == 0);
	say("%s", told(read(e[0], &b, 1)));
	pthread_join(t, NULL);
}

corner(interface_questions)
{
	int fd = bound(SOCK_DGRAM);
	struct {
		char name[16];
		union {
			int i;
			char room[24];
		} u;
	} r = { "lo", { 0 } };
	DO(ioctl(fd, 0x8933 /* SIOCGIFINDEX */, &r));
	say("%d", r.u.i);
	DO(ioctl(fd, 0x8913 /* SIOCGIFFLAGS */, &r));
	say("%d", r.u.i & 8);
	strcpy(r.name, "no-such");
	say("%s", told(ioctl(fd, 0x8933, &r)));
}

corner(netlink_dump)
{
	int fd = DO(socket(AF_NETLINK, SOCK_RAW, 0));
	struct {
		uint32_t len;
		uint16_t type, flags;
		uint32_t seq, pid;
		unsigned char family, pad[3];
	} ask = { 20, 18 /* RTM_GETLINK */, 0x301, 1, 0, 0, { 0 } };
	static char b[32768];
	CHECK(send(fd, &ask, sizeof ask, 0) == sizeof ask);
	int messages = 0;
	for (int done = 0; !done;) {
		long n = DO(recv(fd, b, sizeof b, 0));
		for (long at = 0; at + 16 <= n; at += (*(uint32_t *)(b + at) + 3) & ~3u) {
			messages++;
			done |= *(uint16_t *)(b + at + 4) == 3;
		}
	}
	say("%d", messages > 1);
}
