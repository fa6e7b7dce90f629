/*
 * Sockets, over loopback and between the two ends of a pair. The connection of setup() is kept over all rounds, with
 * unread bytes in it.
 *
 * rows: socket socketpair bind listen connect accept accept4 shutdown getsockname getpeername setsockopt getsockopt
 * rows: sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg
 */
#include "guest.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

static int kept[2], listener;

static struct sockaddr_in loopback(int port)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	return in;
}

static void setup(void)
{
	DO(socketpair(AF_UNIX, SOCK_STREAM, 0, kept));
	CHECK(write(kept[0], "unread before", 13) == 13);
	listener = DO(socket(AF_INET, SOCK_STREAM, 0));
	struct sockaddr_in in = loopback(0);
	DO(bind(listener, (struct sockaddr *)&in, sizeof in));
	DO(listen(listener, 16));
}

static void still_connected(long n)
{
	char *text = at_edge(13), expected[32];
	snprintf(expected, sizeof expected, n == 1 ? "unread before" : "unread %06ld", n - 1);
	CHECK(read(kept[1], text, 13) == 13);
	if (memcmp(text, expected, 13) != 0)
		fail_at(__FILE__, __LINE__, "the connection held \"%.13s\" and not \"%s\"", text, expected);
	snprintf(expected, sizeof expected, "unread %06ld", n);
	CHECK(write(kept[0], expected, 13) == 13);
}

static void over_loopback(void)
{
	struct sockaddr_in *name = at_edge(sizeof *name);
	socklen_t *len = at_edge(4);
	*len = sizeof *name;
	SYS(getsockname, listener, name, len);
	CHECK(*len == 16 && name->sin_family == AF_INET);
	mix(name, 16);

	int client = MIXED(syscall(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	int one = 1, size = 100000;
	SYS(setsockopt, client, IPPROTO_TCP, TCP_NODELAY, copied(&one, 4), 4);
	SYS(setsockopt, client, SOL_SOCKET, SO_SNDBUF, copied(&size, 4), 4);
	SYS(connect, client, copied(name, sizeof *name), sizeof *name);

	/* Room for six of the sixteen bytes: six are written, and sixteen are reported. */
	char *peer = at_edge(6);
	*len = 6;
	int server = MIXED(syscall(SYS_accept4, listener, peer, len, SOCK_NONBLOCK));
	CHECK(*len == 16);
	mix(peer, 6);
	mix(len, 4);
	FAILS(EAGAIN, recv(server, at_edge(1), 1, 0));
	name = at_edge(64);
	*len = 64;
	SYS(getpeername, client, name, len);
	CHECK(*len == 16 && untouched((char *)name + 16, 48));
	mix(name, 64);
	unsigned char *option = at_edge(4);
	*len = 4;
	SYS(getsockopt, client, IPPROTO_TCP, TCP_NODELAY, option, len);
	CHECK(*(int *)option == 1 && *len == 4);
	option = at_edge(2);
	*len = 2;
	SYS(getsockopt, client, SOL_SOCKET, SO_TYPE, option, len);
	CHECK(*len == 2 && option[0] == SOCK_STREAM);
	mix(option, 2);
	option = at_edge(512);
	*len = 512;
	SYS(getsockopt, client, IPPROTO_TCP, TCP_INFO, option, len);
	CHECK(*len < 512 && untouched(option + *len, 512 - *len));
	mix(option, *len);

	CHECK(SYS(sendto, client, copied("stream", 6), 6, MSG_NOSIGNAL, NULL, 0) == 6);
	char *text = at_edge(10);
	/* The sender's address of a stream is not given: its length becomes 0. */
	*len = 16;
	name = at_edge(16);
	DO(fcntl(server, F_SETFL, 0));
	CHECK(SYS(recvfrom, server, text, 10, 0, name, len) == 6 && memcmp(text, "stream", 6) == 0);
	CHECK(untouched(text + 6, 4) && untouched(name, 16));
	mix(text, 10);
	mix(len, 4);
	SYS(shutdown, client, SHUT_WR);
	CHECK(SYS(recvfrom, server, text, 10, 0, NULL, NULL) == 0);
	close(server);
	close(client);

	client = DO(socket(AF_INET, SOCK_STREAM, 0));
	struct sockaddr_in in = { 0 };
	*len = sizeof in;
	DO(getsockname(listener, (struct sockaddr *)&in, len));
	DO(connect(client, (struct sockaddr *)&in, sizeof in));
	server = MIXED(syscall(SYS_accept, listener, NULL, NULL));
	close(client);
	close(server);
}

static void datagrams(void)
{
	int a = DO(socket(AF_UNIX, SOCK_DGRAM, 0)), b = DO(socket(AF_UNIX, SOCK_DGRAM, 0));
	struct sockaddr_un name_a = { .sun_family = AF_UNIX, .sun_path = "socket-a-with-a-name-of-some-length" };
	struct sockaddr_un name_b = { .sun_family = AF_UNIX, .sun_path = "socket-b" };
	socklen_t len_a = 2 + strlen(name_a.sun_path) + 1, len_b = 2 + strlen(name_b.sun_path) + 1;
	SYS(bind, a, copied(&name_a, len_a), len_a);
	SYS(bind, b, copied(&name_b, len_b), len_b);
	/* Length 38 is reported for room of 8. */
	char *short_name = at_edge(8);
	socklen_t *len = at_edge(4);
	*len = 8;
	SYS(getsockname, a, short_name, len);
	CHECK(*len == len_a && len_a > 8);
	mix(short_name, 8);
	mix(len, 4);

	CHECK(SYS(sendto, a, copied("datagram", 8), 8, 0, copied(&name_b, len_b), len_b) == 8);
	/* Room for three of eight bytes; MSG_TRUNC reports eight. */
	char *text = at_edge(3), *from = at_edge(20);
	*len = 20;
	CHECK(SYS(recvfrom, b, text, 3, MSG_TRUNC, from, len) == 8);
	CHECK(memcmp(text, "dat", 3) == 0 && *len == len_a);
	mix(text, 3);
	mix(from, 20);

	struct iovec parts[3] = { { copied("one", 3), 3 }, { NULL, 0 }, { copied("three", 5), 5 } };
	struct msghdr message = { copied(&name_b, len_b), len_b, copied(parts, sizeof parts), 3, NULL, 0, 0 };
	CHECK(SYS(sendmsg, a, copied(&message, sizeof message), 0) == 8);
	struct iovec room[3] = { { at_edge(2), 2 }, { at_edge(4), 4 }, { at_edge(9), 9 } };
	struct msghdr empty = { at_edge(10), 10, copied(room, sizeof room), 3, NULL, 0, 0 }, *got = copied(&empty, sizeof empty);
	CHECK(SYS(recvmsg, b, got, 0) == 8);
	CHECK(got->msg_namelen == len_a && got->msg_flags == 0 && untouched((char *)room[2].iov_base + 2, 7));
	mix(got->msg_name, 10);
	for (int i = 0; i < 3; i++)
		mix(room[i].iov_base, room[i].iov_len);
	/* Too little room for the payload. */
	CHECK(SYS(sendmsg, a, copied(&message, sizeof message), 0) == 8);
	got->msg_iovlen = 1;
	got->msg_namelen = 10;
	CHECK(SYS(recvmsg, b, got, 0) == 2 && (got->msg_flags & MSG_TRUNC));
	mix(&got->msg_flags, 4);

	struct mmsghdr send[3] = { { message, 77 }, { message, 77 }, { message, 77 } }, *sent = copied(send, sizeof send);
	CHECK(SYS(sendmmsg, a, sent, 3, 0) == 3 && sent[0].msg_len == 8 && sent[2].msg_len == 8);
	struct mmsghdr *many = at_edge(4 * sizeof *many);
	struct iovec *bufs[4];
	for (int i = 0; i < 4; i++) {
		struct iovec two[2] = { { at_edge(5), 5 }, { at_edge(30), 30 } };
		bufs[i] = copied(two, sizeof two);
		struct msghdr header = { at_edge(i == 1 ? 60 : 7), i == 1 ? 60 : 7, bufs[i], 2, NULL, 0, 0 };
		many[i].msg_hdr = header;
		many[i].msg_len = 77;
	}
	struct timespec second = { 5, 0 }, *timeout = copied(&second, sizeof second);
	CHECK(SYS(recvmmsg, b, many, 4, MSG_WAITFORONE, timeout) == 3);
	mix(timeout, sizeof *timeout);
	for (int i = 0; i < 4; i++) {
		CHECK(many[i].msg_len == (i < 3 ? 8u : 77u));
		mix(&many[i].msg_hdr.msg_namelen, 4);
		mix(many[i].msg_hdr.msg_name, i == 1 ? 60 : 7);
		mix(bufs[i][0].iov_base, 5);
		mix(bufs[i][1].iov_base, 30);
		CHECK(untouched((char *)bufs[i][1].iov_base + 3, 27));
	}
	close(a);
	close(b);
	DO(unlink(name_a.sun_path));
	DO(unlink(name_b.sun_path));
}

/* A descriptor travels in the control data and is another number when it arrives. */
static void passing_descriptors(void)
{
	int *pair = at_edge(8), ends[2];
	SYS(socketpair, AF_UNIX, SOCK_STREAM, 0, pair);
	mix(pair, 8);
	DO(pipe(ends));
	struct iovec one = { copied("!", 1), 1 };
	union {
		char room[CMSG_SPACE(4)];
		struct cmsghdr align;
	} control = { 0 };
	control.align.cmsg_len = CMSG_LEN(4);
	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(&control.align), &ends[0], 4);
	struct msghdr message = { NULL, 0, &one, 1, copied(&control, sizeof control), sizeof control, 0 };
	CHECK(SYS(sendmsg, pair[0], copied(&message, sizeof message), 0) == 1);
	struct iovec room = { at_edge(1), 1 };
	struct msghdr empty = { NULL, 0, &room, 1, at_edge(64), 64, 0 }, *got = copied(&empty, sizeof empty);
	CHECK(SYS(recvmsg, pair[1], got, MSG_CMSG_CLOEXEC) == 1);
	CHECK(got->msg_controllen == CMSG_LEN(4) || got->msg_controllen == CMSG_SPACE(4));
	mix(got->msg_control, 64);
	mix(&got->msg_controllen, 8);
	mix(&got->msg_flags, 4);
	int passed;
	memcpy(&passed, CMSG_DATA((struct cmsghdr *)got->msg_control), 4);
	mix_value(passed);
	CHECK(write(ends[1], "through", 7) == 7);
	char *text = at_edge(7);
	CHECK(read(passed, text, 7) == 7 && memcmp(text, "through", 7) == 0);
	int fds[] = { pair[0], pair[1], ends[0], ends[1], passed };
	for (unsigned i = 0; i < 5; i++)
		close(fds[i]);
}

static void round_of(long n, const char *word)
{
	(void)word;
	still_connected(n);
	over_loopback();
	datagrams();
	passing_descriptors();
}
