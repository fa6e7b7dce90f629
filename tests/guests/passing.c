/*
 * Messages with control data: descriptors that travel both ways and are kept over all rounds, credentials, time stamps, control
 * data that is cut; many messages at once; netlink.
 *
 * rows: sendmsg recvmsg sendmmsg recvmmsg socketpair setsockopt socket bind getsockname
 */
#include "guest.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

/* Kept: what came as a descriptor in the last round, and the other end of it. */
static int kept = -1, other = -1, pair[2];

union control {
	struct cmsghdr align;
	char room[256];
};

static void setup(void)
{
	DO(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
}

static long send_with(int fd, int level, int type, const void *data, size_t len, const char *text)
{
	union control control = { .align = { CMSG_LEN(len), level, type } };
	memcpy(CMSG_DATA(&control.align), data, len);
	struct iovec part = { copied(text, strlen(text)), strlen(text) };
	struct msghdr message = { .msg_iov = copied(&part, sizeof part), .msg_iovlen = 1 };
	message.msg_control = copied(&control, CMSG_SPACE(len));
	message.msg_controllen = CMSG_SPACE(len);
	return syscall(SYS_sendmsg, fd, copied(&message, sizeof message), 0);
}

static struct msghdr *receive(int fd, size_t room, int flags)
{
	struct iovec part = { at_edge(16), 16 };
	struct msghdr message = { .msg_iov = copied(&part, sizeof part), .msg_iovlen = 1 };
	message.msg_control = room == 0 ? NULL : at_edge(room);
	message.msg_controllen = room;
	struct msghdr *back = copied(&message, sizeof message);
	mix_value(DO(syscall(SYS_recvmsg, fd, back, flags)));
	mix(&back->msg_flags, sizeof back->msg_flags);
	mix(&back->msg_controllen, sizeof back->msg_controllen);
	return back;
}

static void descriptors(long n)
{
	char byte = 0, *text = at_edge(4);
	int ends[2];
	if (kept >= 0) {
		/* It came with a message in an earlier round, perhaps to the other version. */
		CHECK(write(other, "kept", 4) == 4 && read(kept, text, 4) == 4 && memcmp(text, "kept", 4) == 0);
		close(kept);
		close(other);
	}
	DO(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	CHECK(send_with(pair[0], SOL_SOCKET, SCM_RIGHTS, ends, 4, "a") == 1);
	close(ends[0]);
	struct msghdr *message = receive(pair[1], CMSG_SPACE(4), n % 2 ? MSG_CMSG_CLOEXEC : 0);
	struct cmsghdr *header = CMSG_FIRSTHDR(message);
	CHECK(header != NULL && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(4));
	memcpy(&kept, CMSG_DATA(header), 4);
	mix_value(kept);
	CHECK(fcntl(kept, F_GETFD) == (n % 2 ? FD_CLOEXEC : 0));
	other = ends[1];

	/* The other way, three at once into room for one: the kernel drops what does not fit. */
	int three[3] = { kept, other, 0 };
	CHECK(send_with(pair[1], SOL_SOCKET, SCM_RIGHTS, three, 12, "b") == 1);
	message = receive(pair[0], CMSG_LEN(4), 0);
	CHECK(message->msg_flags & MSG_CTRUNC);
	header = message->msg_control;
	CHECK(header->cmsg_len == CMSG_LEN(4));
	int one;
	memcpy(&one, CMSG_DATA(header), 4);
	mix_value(one);
	CHECK(write(other, "x", 1) == 1 && read(one, &byte, 1) == 1 && byte == 'x');
	close(one);
	/* No room at all. */
	CHECK(send_with(pair[1], SOL_SOCKET, SCM_RIGHTS, three, 12, "c") == 1);
	message = receive(pair[0], 0, 0);
	CHECK(message->msg_flags & MSG_CTRUNC);
	FAILS(EBADF, send_with(pair[1], SOL_SOCKET, SCM_RIGHTS, (int[]){ 9999 }, 4, "d"));
}

static void credentials(void)
{
	int one = 1, zero = 0;
	DO(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one));
	struct ucred own = { getpid(), getuid(), getgid() }, got;
	CHECK(send_with(pair[0], SOL_SOCKET, SCM_CREDENTIALS, &own, sizeof own, "e") == 1);
	struct msghdr *message = receive(pair[1], CMSG_SPACE(sizeof own), 0);
	struct cmsghdr *header = CMSG_FIRSTHDR(message);
	CHECK(header != NULL && header->cmsg_type == SCM_CREDENTIALS);
	memcpy(&got, CMSG_DATA(header), sizeof got);
	CHECK(memcmp(&got, &own, sizeof got) == 0);
	mix(&got, sizeof got);
	DO(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &zero, sizeof zero));
}

static void many(void)
{
	int ends[2];
	DO(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends));
	struct iovec parts[3];
	struct mmsghdr sent[3], got[4];
	memset(sent, 0, sizeof sent);
	memset(got, 0, sizeof got);
	for (int i = 0; i < 3; i++) {
		parts[i].iov_base = copied("datagram", 2 + i);
		parts[i].iov_len = 2 + i;
		sent[i].msg_hdr.msg_iov = &parts[i];
		sent[i].msg_hdr.msg_iovlen = 1;
	}
	union control control = { .align = { CMSG_LEN(4), SOL_SOCKET, SCM_RIGHTS } };
	memcpy(CMSG_DATA(&control.align), &ends[0], 4);
	sent[1].msg_hdr.msg_control = copied(&control, CMSG_SPACE(4));
	sent[1].msg_hdr.msg_controllen = CMSG_SPACE(4);
	struct mmsghdr *out = copied(sent, sizeof sent);
	CHECK(MIXED(syscall(SYS_sendmmsg, ends[0], out, 3, 0)) == 3 && out[2].msg_len == 4);
	struct iovec rooms[4];
	for (int i = 0; i < 4; i++) {
		rooms[i].iov_base = at_edge(3);
		rooms[i].iov_len = 3;
		got[i].msg_hdr.msg_iov = &rooms[i];
		got[i].msg_hdr.msg_iovlen = 1;
		got[i].msg_hdr.msg_control = at_edge(CMSG_SPACE(4));
		got[i].msg_hdr.msg_controllen = CMSG_SPACE(4);
	}
	struct timespec second = { 1, 0 };
	struct mmsghdr *in = copied(got, sizeof got);
	/* Three are there; MSG_WAITFORONE does not wait for the fourth. */
	CHECK(MIXED(syscall(SYS_recvmmsg, ends[1], in, 4, MSG_WAITFORONE, copied(&second, sizeof second))) == 3);
	for (int i = 0; i < 3; i++) {
		CHECK(in[i].msg_len == (unsigned)(i == 0 ? 2 : 3) && memcmp(rooms[i].iov_base, "data", in[i].msg_len) == 0);
		mix(rooms[i].iov_base, 3);
	}
	CHECK(in[2].msg_hdr.msg_flags & MSG_TRUNC);
	struct cmsghdr *header = CMSG_FIRSTHDR(&in[1].msg_hdr);
	CHECK(header != NULL && header->cmsg_type == SCM_RIGHTS && CMSG_FIRSTHDR(&in[0].msg_hdr) == NULL);
	int fd;
	memcpy(&fd, CMSG_DATA(header), 4);
	mix_value(fd);
	CHECK(write(fd, "z", 1) == 1);
	char byte;
	CHECK(read(ends[1], &byte, 1) == 1 && byte == 'z');
	close(fd);
	close(ends[0]);
	close(ends[1]);
}

/* What a server asks for at its start: the interfaces and their addresses. */
static void netlink(void)
{
	int fd = DO(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	DO(bind(fd, (struct sockaddr *)&address, sizeof address));
	socklen_t len = sizeof address;
	DO(getsockname(fd, (struct sockaddr *)&address, &len));
	mix(&address, sizeof address);
	static const int wanted[] = { RTM_GETLINK, RTM_GETADDR };
	for (int i = 0; i < 2; i++) {
		struct {
			struct nlmsghdr header;
			struct rtgenmsg family;
		} request = { { .nlmsg_len = sizeof request, .nlmsg_type = wanted[i], .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
				.nlmsg_seq = 1 + i }, { AF_UNSPEC } };
		CHECK(send(fd, copied(&request, sizeof request), sizeof request, 0) == sizeof request);
		for (int done = 0; !done;) {
			struct sockaddr_nl from;
			struct iovec room = { at_edge(16384), 16384 };
			struct msghdr message = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &room, .msg_iovlen = 1 };
			long got = MIXED(recvmsg(fd, &message, 0));
			mix(room.iov_base, got);
			CHECK(message.msg_namelen == sizeof from && from.nl_pid == 0);
			for (struct nlmsghdr *one = room.iov_base; NLMSG_OK(one, got); one = NLMSG_NEXT(one, got))
				done |= one->nlmsg_type == NLMSG_DONE;
		}
	}
	close(fd);
}

static void round_of(long n, const char *word)
{
	(void)word;
	descriptors(n);
	credentials();
	many();
	netlink();
}
