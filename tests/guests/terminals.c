/*
 * ioctl by request: terminals, sockets, interfaces, files.
 *
 * rows: ioctl/TCGETS ioctl/TCSETS ioctl/TCSETSW ioctl/TCSETSF ioctl/TIOCGPGRP ioctl/TIOCSPGRP ioctl/TIOCOUTQ ioctl/TIOCGWINSZ
 * rows: ioctl/TIOCSWINSZ ioctl/FIONREAD ioctl/FIONBIO ioctl/TIOCGSID ioctl/FIONCLEX ioctl/FIOCLEX ioctl/FIOASYNC
 * rows: ioctl/SIOCGIFNAME ioctl/SIOCGIFCONF ioctl/SIOCGIFFLAGS ioctl/SIOCGIFADDR ioctl/SIOCGIFBRDADDR ioctl/SIOCGIFNETMASK
 * rows: ioctl/SIOCGIFMTU ioctl/SIOCGIFHWADDR ioctl/SIOCGIFINDEX ioctl/TIOCSPTLCK ioctl/TIOCGPTN ioctl/FICLONE
 * rows: ioctl/BLKGETSIZE64 ioctl/FS_IOC_GETFLAGS ioctl/FIBMAP ioctl/FIGETBSZ ioctl/TCSBRK ioctl/TCXONC ioctl/TCFLSH
 * rows: ioctl/TIOCEXCL ioctl/TIOCNXCL ioctl/TIOCSCTTY ioctl/TIOCSTI ioctl/TIOCMGET ioctl/TIOCMSET ioctl/TIOCPKT ioctl/TIOCNOTTY
 * rows: ioctl/TIOCSETD ioctl/TIOCGETD ioctl/TCSBRKP ioctl/FIOQSIZE ioctl/FIOSETOWN ioctl/SIOCSPGRP ioctl/FIOGETOWN
 * rows: ioctl/SIOCGPGRP ioctl/SIOCATMARK ioctl/SIOCGSTAMP ioctl/SIOCGSTAMPNS ioctl/SIOCGIFDSTADDR ioctl/SIOCGIFMETRIC
 * rows: ioctl/SIOCGIFTXQLEN ioctl/SIOCGIFMAP ioctl/SIOCOUTQNSD ioctl/TCGETS2 ioctl/TCSETS2 ioctl/TCSETSW2 ioctl/TCSETSF2
 * rows: ioctl/TIOCGDEV ioctl/TIOCGPKT ioctl/TIOCGPTLCK ioctl/TIOCGEXCL ioctl/FICLONERANGE ioctl/FS_IOC_SETFLAGS
 * rows: ioctl/FS_IOC_GETVERSION ioctl/FS_IOC_FSGETXATTR ioctl/FS_IOC_FSSETXATTR ioctl/RNDGETENTCNT ioctl/BLKROGET
 * rows: ioctl/MTIOCTOP ioctl/MTIOCGET ioctl/BLKGETSIZE ioctl/BLKSSZGET ioctl/NS_GET_NSTYPE ioctl/TIOCGPTPEER ioctl/NS_GET_USERNS ioctl/NS_GET_PARENT
 */
#include "guest.h"

#include <linux/fs.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

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

/* Asks for `len` bytes; one that is refused is an answer as well. */
static void asks(int fd, unsigned long request, size_t len)
{
	void *answer = at_edge(len);
	mix_value(syscall(SYS_ioctl, fd, request, answer) == -1 ? -errno : 0);
	mix(answer, len);
}

static void tells(int fd, unsigned long request, const void *data, size_t len)
{
	mix_value(syscall(SYS_ioctl, fd, request, copied(data, len)) == -1 ? -errno : 0);
}

static void more_of_the_terminal(void)
{
	unsigned char *attributes = at_edge(44);
	int zero = 0;
	SYS(ioctl, slave, 0x802c542aul /* TCGETS2 */, attributes);
	mix(attributes, 44);
	for (unsigned long request = 0x402c542b; request <= 0x402c542d; request++)
		SYS(ioctl, slave, request, attributes);
	SYS(ioctl, slave, TCSBRK, 1);
	SYS(ioctl, slave, TCSBRKP, 0);
	SYS(ioctl, slave, TCXONC, TCOON);
	SYS(ioctl, slave, TCFLSH, TCIFLUSH);
	SYS(ioctl, slave, TIOCEXCL, 0xbad);
	asks(slave, TIOCGEXCL, 4);
	SYS(ioctl, slave, TIOCNXCL, 0xbad);
	FAILS(ENOTTY, syscall(SYS_ioctl, 0, TIOCSCTTY, 0));
	tells(0, TIOCSTI, "x", 1);
	asks(slave, TIOCMGET, 4);
	tells(slave, TIOCMSET, &zero, 4);
	tells(master, TIOCPKT, &zero, 4);
	asks(master, TIOCGPKT, 4);
	asks(master, TIOCGPTLCK, 4);
	asks(slave, TIOCGDEV, 4);
	asks(slave, TIOCGETD, 4);
	tells(slave, TIOCSETD, &zero, 4);
	FAILS(ENOTTY, syscall(SYS_ioctl, slave, TIOCNOTTY, 0xbad));
	close(MIXED(syscall(SYS_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY)));
	SYS(ioctl, slave, TCFLSH, TCIOFLUSH);
}

static void more_of_sockets_and_files(long n)
{
	int fd = DO(socket(AF_INET, SOCK_STREAM, 0)), group = getpid();
	tells(fd, FIOSETOWN, &group, 4);
	tells(fd, SIOCSPGRP, &group, 4);
	asks(fd, FIOGETOWN, 4);
	asks(fd, SIOCGPGRP, 4);
	asks(fd, SIOCATMARK, 4);
	asks(fd, 0x8906 /* SIOCGSTAMP */, 16);
	asks(fd, 0x8907 /* SIOCGSTAMPNS */, 16);
	asks(fd, 0x894b /* SIOCOUTQNSD */, 4);
	struct ifreq request;
	memset(&request, 0x11, sizeof request);
	strcpy(request.ifr_name, "lo");
	static const unsigned long asked[] = { SIOCGIFDSTADDR, SIOCGIFMETRIC, SIOCGIFTXQLEN, SIOCGIFMAP };
	for (unsigned i = 0; i < sizeof asked / sizeof asked[0]; i++) {
		struct ifreq *answer = copied(&request, sizeof request);
		mix_value(syscall(SYS_ioctl, fd, asked[i], answer));
		mix(answer, sizeof *answer);
	}
	close(fd);
	char *name = named("more-%ld", n);
	fd = DO(open(name, O_RDWR | O_CREAT, 0644));
	DO(ftruncate(fd, 10000));
	asks(fd, FIGETBSZ, 4);
	int zero = 0;
	tells(fd, FIBMAP, &zero, 4);
	asks(fd, FIOQSIZE, 8);
	asks(fd, BLKROGET, 4);
	/* As tar does, to find out whether its archive is on a tape. */
	tells(fd, 0x40086d01 /* MTIOCTOP */, "\0\0\0\0\1\0\0", 8);
	asks(fd, 0x80306d02ul /* MTIOCGET */, 48);
	asks(fd, BLKGETSIZE, 8);
	asks(fd, BLKSSZGET, 4);
	asks(fd, FS_IOC_GETVERSION, 4);
	unsigned char *attributes = at_edge(28);
	if (syscall(SYS_ioctl, fd, 0x801c581ful /* FS_IOC_FSGETXATTR */, attributes) == -1)
		memset(attributes, 0, 28);
	mix(attributes, 28);
	mix_value(syscall(SYS_ioctl, fd, 0x401c5820 /* FS_IOC_FSSETXATTR */, attributes));
	unsigned flags = 0;
	if (syscall(SYS_ioctl, fd, FS_IOC_GETFLAGS, &flags) == 0)
		tells(fd, FS_IOC_SETFLAGS, &flags, 4);
	else
		FAILS(ENOTTY, syscall(SYS_ioctl, 0, FS_IOC_SETFLAGS, copied(&flags, 4)));
	struct file_clone_range range = { fd, 0, 4096, 8192 };
	tells(fd, FICLONERANGE, &range, sizeof range);
	close(fd);
	DO(unlink(name));
	fd = DO(open("/dev/urandom", O_RDONLY));
	asks(fd, 0x80045200ul /* RNDGETENTCNT */, 4);
	close(fd);
	fd = DO(open("/proc/self/ns/uts", O_RDONLY));
	CHECK(MIXED(syscall(SYS_ioctl, fd, 0xb703 /* NS_GET_NSTYPE */, 0xbad)) == CLONE_NEWUTS);
	long user = syscall(SYS_ioctl, fd, 0xb701 /* NS_GET_USERNS */, 0xbad);
	mix_value(user);
	if (user >= 0)
		close(user);
	mix_value(syscall(SYS_ioctl, fd, 0xb702 /* NS_GET_PARENT */, 0xbad));
	close(fd);
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
	/* What stands where the answer will be differs in each version, and means nothing. */
	unsigned long garbage = __builtin_ia32_rdtsc();
	memcpy(index->ifr_name, &garbage, sizeof garbage);
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
	more_of_the_terminal();
	more_of_sockets_and_files(n);
}
