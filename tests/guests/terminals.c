/*
 * ioctl by request: terminals, sockets, interfaces, files.
 *
 * rows: ioctl/TCGETS ioctl/TCSETS ioctl/TCSETSW ioctl/TCSETSF ioctl/TIOCGPGRP ioctl/TIOCSPGRP ioctl/TIOCOUTQ ioctl/TIOCGWINSZ
 * rows: ioctl/TIOCSWINSZ ioctl/FIONREAD ioctl/FIONBIO ioctl/TIOCGSID ioctl/FIONCLEX ioctl/FIOCLEX ioctl/FIOASYNC
 * rows: ioctl/SIOCGIFNAME ioctl/SIOCGIFCONF ioctl/SIOCGIFFLAGS ioctl/SIOCGIFADDR ioctl/SIOCGIFBRDADDR ioctl/SIOCGIFNETMASK
 * rows: ioctl/SIOCGIFMTU ioctl/SIOCGIFHWADDR ioctl/SIOCGIFINDEX ioctl/TIOCSPTLCK ioctl/TIOCGPTN ioctl/FICLONE
 * rows: ioctl/BLKGETSIZE64 ioctl/FS_IOC_GETFLAGS
 */
#include "guest.h"

#include <linux/fs.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int master, slave;

static void setup(void)
{
	int unlock = 0;
	char name[64];
	unsigned number;
	master = DO(open("/dev/ptmx", O_RDWR | O_NOCTTY));
	DO(ioctl(master, TIOCSPTLCK, &unlock));
	DO(ioctl(master, TIOCGPTN, &number));
	snprintf(name, sizeof name, "/dev/pts/%u", number);
	slave = DO(open(name, O_RDWR | O_NOCTTY));
}

static void terminal(long n)
{
	/* struct termios of the kernel, not of the library. */
	unsigned char *attributes = at_edge(36);
	SYS(ioctl, slave, TCGETS, attributes);
	mix(attributes, 36);
	SYS(ioctl, slave, TCSETS, attributes);
	SYS(ioctl, slave, TCSETSW, attributes);
	SYS(ioctl, slave, TCSETSF, attributes);
	struct winsize size = { 20 + n % 100, 80, 0, 0 }, *back = at_edge(sizeof *back);
	SYS(ioctl, master, TIOCSWINSZ, copied(&size, sizeof size));
	SYS(ioctl, slave, TIOCGWINSZ, back);
	CHECK(back->ws_row == 20 + n % 100);
	mix(back, sizeof *back);
	FAILS(ENOTTY, syscall(SYS_ioctl, slave, TIOCGPGRP, at_edge(4)));
	FAILS(ENOTTY, syscall(SYS_ioctl, slave, TIOCGSID, at_edge(4)));
	int group = getpid();
	FAILS(ENOTTY, syscall(SYS_ioctl, slave, TIOCSPGRP, copied(&group, 4)));
	int *number = at_edge(4), none = 0;
	SYS(ioctl, master, TIOCGPTN, number);
	mix(number, 4);
	SYS(ioctl, master, TIOCSPTLCK, copied(&none, 4));
	CHECK(write(slave, "typed", 5) == 5);
	char *text = at_edge(5);
	CHECK(read(master, text, 5) == 5 && memcmp(text, "typed", 5) == 0);
	number = at_edge(4);
	SYS(ioctl, slave, TIOCOUTQ, number);
	mix(number, 4);
	FAILS(ENOTTY, syscall(SYS_ioctl, 0, TCGETS, at_edge(36)));
}

static void modes(void)
{
	int ends[2], one = 1, *waiting = at_edge(4);
	DO(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	CHECK(write(ends[1], "12345", 5) == 5);
	SYS(ioctl, ends[0], FIONREAD, waiting);
	CHECK(*waiting == 5);
	mix(waiting, 4);
	SYS(ioctl, ends[0], FIONBIO, copied(&one, 4));
	char *text = at_edge(5);
	CHECK(read(ends[0], text, 5) == 5);
	FAILS(EAGAIN, read(ends[0], text, 5));
	SYS(ioctl, ends[0], FIOCLEX);
	CHECK(fcntl(ends[0], F_GETFD) == FD_CLOEXEC);
	SYS(ioctl, ends[0], FIONCLEX);
	CHECK(fcntl(ends[0], F_GETFD) == 0);
	one = 0;
	SYS(ioctl, ends[0], FIOASYNC, copied(&one, 4));
	close(ends[0]);
	close(ends[1]);
}

static void interfaces(void)
{
	int fd = DO(socket(AF_INET, SOCK_DGRAM, 0));
	struct ifreq request;
	memset(&request, 0x11, sizeof request);
	strcpy(request.ifr_name, "lo");
	static const unsigned long asked[] = { SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFBRDADDR, SIOCGIFNETMASK,
					       SIOCGIFMTU,   SIOCGIFHWADDR, SIOCGIFINDEX };
	for (unsigned i = 0; i < sizeof asked / sizeof asked[0]; i++) {
		struct ifreq *answer = copied(&request, sizeof request);
		SYS(ioctl, fd, asked[i], answer);
		mix(answer, sizeof *answer);
	}
	struct ifreq *index = copied(&request, sizeof request);
	index->ifr_ifindex = 1;
	SYS(ioctl, fd, SIOCGIFNAME, index);
	CHECK(strcmp(index->ifr_name, "lo") == 0);
	/* Room for one interface and a half. */
	char *room = at_edge(60);
	struct ifconf list = { .ifc_len = 60 }, *answer = copied(&list, sizeof list);
	answer->ifc_buf = room;
	SYS(ioctl, fd, SIOCGIFCONF, answer);
	CHECK(answer->ifc_len <= 60 && untouched(room + answer->ifc_len, 60 - answer->ifc_len));
	mix(&answer->ifc_len, 4);
	mix(room, 60);
	close(fd);
}

static void files(long n)
{
	char *name = named("flags-%ld", n), *other = named("clone-%ld", n);
	int fd = DO(open(name, O_RDWR | O_CREAT, 0644)), copy = DO(open(other, O_RDWR | O_CREAT, 0644));
	int *flags = at_edge(4);
	/* Not every file system has these: then that is what both versions are told. */
	mix_value(syscall(SYS_ioctl, fd, FS_IOC_GETFLAGS, flags));
	mix(flags, 4);
	mix_value(syscall(SYS_ioctl, copy, FICLONE, fd));
	FAILS(ENOTTY, syscall(SYS_ioctl, fd, BLKGETSIZE64, at_edge(8)));
	close(fd);
	close(copy);
	DO(unlink(name));
	DO(unlink(other));
}

static void round_of(long n, const char *word)
{
	(void)word;
	terminal(n);
	modes();
	interfaces();
	files(n);
}
