/*
 * Requests of many kinds: each is made on a descriptor that it is for, where there is one without harm, and on a pipe, which has
 * none of them. What comes back is the same in both versions, be it an answer or an error.
 *
 * rows: ioctl/SIOCSIFFLAGS ioctl/SIOCSIFADDR ioctl/SIOCSIFDSTADDR ioctl/SIOCSIFBRDADDR ioctl/SIOCSIFNETMASK
 * rows: ioctl/SIOCSIFMETRIC ioctl/SIOCSIFMTU ioctl/SIOCSIFNAME ioctl/SIOCSIFHWADDR ioctl/SIOCADDMULTI ioctl/SIOCDELMULTI
 * rows: ioctl/SIOCSIFPFLAGS ioctl/SIOCGIFPFLAGS ioctl/SIOCDIFADDR ioctl/SIOCSIFHWBROADCAST ioctl/SIOCSIFTXQLEN
 * rows: ioctl/SIOCETHTOOL ioctl/SIOCGMIIPHY ioctl/SIOCGMIIREG ioctl/SIOCGSKNS ioctl/SIOCDARP ioctl/SIOCGARP ioctl/SIOCSARP
 * rows: ioctl/SIOCGSTAMP_NEW ioctl/SIOCGSTAMPNS_NEW ioctl/TCGETA ioctl/TCSETA ioctl/TCSETAW ioctl/TCSETAF ioctl/TIOCMBIS
 * rows: ioctl/TIOCMBIC ioctl/TIOCGSOFTCAR ioctl/TIOCSSOFTCAR ioctl/TIOCCONS ioctl/TIOCGSERIAL ioctl/TIOCSBRK ioctl/TIOCCBRK
 * rows: ioctl/TIOCGRS485 ioctl/TIOCSRS485 ioctl/TIOCSIG ioctl/TIOCVHANGUP ioctl/TIOCSERGETLSR ioctl/TIOCGICOUNT
 * rows: ioctl/HDIO_GETGEO ioctl/BLKROSET ioctl/BLKRRPART ioctl/BLKFLSBUF ioctl/BLKRASET ioctl/BLKRAGET ioctl/BLKFRASET
 * rows: ioctl/BLKFRAGET ioctl/BLKSECTGET ioctl/BLKBSZGET ioctl/BLKBSZSET ioctl/BLKDISCARD ioctl/BLKIOMIN ioctl/BLKIOOPT
 * rows: ioctl/BLKALIGNOFF ioctl/BLKPBSZGET ioctl/BLKDISCARDZEROES ioctl/BLKSECDISCARD ioctl/BLKROTATIONAL ioctl/BLKZEROOUT
 * rows: ioctl/BLKGETDISKSEQ ioctl/FITRIM ioctl/FIFREEZE ioctl/FITHAW ioctl/FS_IOC_GETFSLABEL ioctl/FS_IOC_SETFSLABEL
 * rows: ioctl/FS_IOC_SETVERSION ioctl/FS_IOC_GETFSUUID ioctl/TUNSETNOCSUM ioctl/TUNSETDEBUG ioctl/TUNSETIFF
 * rows: ioctl/TUNSETPERSIST ioctl/TUNSETOWNER ioctl/TUNSETLINK ioctl/TUNSETGROUP ioctl/TUNGETFEATURES ioctl/TUNSETOFFLOAD
 * rows: ioctl/TUNGETIFF ioctl/TUNGETSNDBUF ioctl/TUNSETSNDBUF ioctl/TUNGETVNETHDRSZ ioctl/TUNSETVNETHDRSZ ioctl/TUNSETQUEUE
 * rows: ioctl/TUNSETIFINDEX ioctl/TUNSETVNETLE ioctl/TUNGETVNETLE ioctl/TUNSETVNETBE ioctl/TUNGETVNETBE ioctl/TUNSETCARRIER
 * rows: ioctl/TUNGETDEVNETNS ioctl/RTC_AIE_ON ioctl/RTC_AIE_OFF ioctl/RTC_UIE_ON ioctl/RTC_UIE_OFF ioctl/RTC_PIE_ON
 * rows: ioctl/RTC_PIE_OFF ioctl/RTC_ALM_SET ioctl/RTC_ALM_READ ioctl/RTC_RD_TIME ioctl/RTC_SET_TIME ioctl/RTC_IRQP_READ
 * rows: ioctl/RTC_IRQP_SET ioctl/RTC_WKALM_SET ioctl/RTC_WKALM_RD ioctl/RTC_VL_READ ioctl/RTC_VL_CLR
 * rows: ioctl/PIDFD_GET_CGROUP_NAMESPACE ioctl/PIDFD_GET_IPC_NAMESPACE ioctl/PIDFD_GET_MNT_NAMESPACE
 * rows: ioctl/PIDFD_GET_NET_NAMESPACE ioctl/PIDFD_GET_PID_NAMESPACE ioctl/PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE
 * rows: ioctl/PIDFD_GET_TIME_NAMESPACE ioctl/PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE ioctl/PIDFD_GET_USER_NAMESPACE
 * rows: ioctl/PIDFD_GET_UTS_NAMESPACE ioctl/PIDFD_GET_INFO ioctl/NS_GET_OWNER_UID ioctl/NS_GET_MNTNS_ID
 * rows: ioctl/NS_GET_PID_FROM_PIDNS ioctl/NS_GET_TGID_FROM_PIDNS ioctl/NS_GET_PID_IN_PIDNS ioctl/NS_GET_TGID_IN_PIDNS
 * rows: ioctl/NS_MNT_GET_INFO ioctl/NS_MNT_GET_NEXT ioctl/NS_MNT_GET_PREV ioctl/RNDADDTOENTCNT ioctl/RNDZAPENTCNT
 * rows: ioctl/RNDCLEARPOOL ioctl/RNDRESEEDCRNG ioctl/WDIOC_GETSUPPORT ioctl/WDIOC_GETSTATUS ioctl/WDIOC_GETBOOTSTATUS
 * rows: ioctl/WDIOC_GETTEMP ioctl/WDIOC_SETOPTIONS ioctl/WDIOC_KEEPALIVE ioctl/WDIOC_SETTIMEOUT ioctl/WDIOC_GETTIMEOUT
 * rows: ioctl/WDIOC_SETPRETIMEOUT ioctl/WDIOC_GETPRETIMEOUT ioctl/WDIOC_GETTIMELEFT ioctl/EPIOCSPARAMS ioctl/EPIOCGPARAMS
 * rows: ioctl/INOTIFY_IOC_SETNEXTWD ioctl/TFD_IOC_SET_TICKS ioctl/PTP_CLOCK_GETCAPS ioctl/PTP_SYS_OFFSET_PRECISE
 * rows: ioctl/PTP_SYS_OFFSET_EXTENDED
 */
#include "guest.h"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>

/* They change something: a pipe knows none of them. */
static const unsigned long changes[] = {
	0x8914, 0x8916, 0x8918, 0x891a, 0x891c, 0x891e, 0x8922, 0x8923, 0x8924, 0x8931, 0x8932, 0x8934, 0x8936,
	0x8937, 0x8943, 0x8953, 0x8955, 0x5406, 0x5407, 0x5408, 0x5416, 0x5417, 0x541a, 0x541d, 0x5427, 0x5428,
	0x542f, 0x40045436, 0x5437, 0x125d, 0x125f, 0x1261, 0x1262, 0x1264, 0x40081271, 0x1277, 0x127d, 0x127f,
	0xc0185879, 0xc0045877, 0xc0045878, 0x41009432, 0x40087602, 0x400454c8, 0x400454c9, 0x400454ca, 0x400454cb,
	0x400454cc, 0x400454cd, 0x400454ce, 0x400454d0, 0x400454d4, 0x400454d8, 0x400454d9, 0x400454da, 0x400454dc,
	0x400454de, 0x400454e2, 0x7001, 0x7002, 0x7003, 0x7004, 0x7005, 0x7006, 0x40247007, 0x4024700a, 0x4008700c,
	0x4028700f, 0x7014, 0x40045201, 0x5204, 0x5206, 0x5207, 0x80045704, 0x80045705, 0xc0045706, 0xc0045708,
	0x40088a01, 0x40044900, 0x40085400,
};

/* They ask, and open. */
static const unsigned long questions[] = {
	0x8935, 0x8947, 0x8948, 0x894c, 0x8954, 0x80108906, 0x80108907, 0x5405, 0x5419, 0x541e, 0x542e, 0x5459,
	0x545d, 0x301, 0x1263, 0x1265, 0x1267, 0x80081270, 0x1278, 0x1279, 0x127a, 0x127b, 0x127c, 0x127e,
	0x80081280, 0x81009431, 0x80111500, 0x800454cf, 0x800454d2, 0x800454d3, 0x800454d7, 0x800454dd, 0x800454df,
	0x54e3, 0x80247008, 0x80247009, 0x8008700b, 0x80287010, 0x80047013, 0xff01, 0xff02, 0xff03, 0xff04, 0xff05,
	0xff06, 0xff07, 0xff08, 0xff09, 0xff0a, 0xc040ff0b, 0xb704, 0x8008b705, 0x8004b706, 0x8004b707, 0x8004b708,
	0x8004b709, 0x8010b70a, 0x8010b70b, 0x8010b70c, 0x80285700, 0x80045701, 0x80045702, 0x80045703, 0x80045707,
	0x80045709, 0x8004570a, 0x80088a02, 0x80503d01, 0xc0403d08, 0xc4c03d09,
};

static int pipes[2], inet, pidfd, namespace, epoll, timer, file, random_numbers;
static union {
	char bytes[4096];
	struct ifreq request;
} room;

static void setup(void)
{
	DO(pipe(pipes));
	inet = DO(socket(AF_INET, SOCK_DGRAM, 0));
	pidfd = DO(syscall(SYS_pidfd_open, getpid(), 0));
	namespace = DO(open("/proc/self/ns/net", O_RDONLY));
	epoll = DO(epoll_create1(0));
	timer = DO(timerfd_create(CLOCK_MONOTONIC, 0));
	file = DO(open("/proc/self/exe", O_RDONLY));
	random_numbers = DO(open("/dev/urandom", O_RDONLY));
}

/* Makes a request with zeroed memory, and tells nobody what came but the checker of this guest: another number may be another
 * error on another machine. */
static int made(int fd, unsigned long request)
{
	memset(&room, 0, sizeof room);
	return ioctl(fd, request, &room);
}

static void round_of(long n, const char *word)
{
	(void)n;
	(void)word;
	for (unsigned i = 0; i < sizeof changes / sizeof *changes; i++)
		CHECK(made(pipes[0], changes[i]) == -1);
	for (unsigned i = 0; i < sizeof questions / sizeof *questions; i++) {
		int fds[] = { pipes[0], inet, pidfd, namespace, epoll, timer, file, random_numbers };
		for (unsigned j = 0; j < sizeof fds / sizeof *fds; j++) {
			int got = made(fds[j], questions[i]);
			unsigned long kind = questions[i] >> 8 & 0xff;
			int opens = (kind == 0xff && questions[i] < 0x10000) || questions[i] == 0x894c;
			if (got > 2 && opens)
				DO(close(got));
		}
	}
	memset(&room, 0, sizeof room);
	struct ethtool_value link = { .cmd = ETHTOOL_GLINK };
	struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };
	strcpy(room.request.ifr_name, "lo");
	room.request.ifr_data = (void *)&link;
	DO(ioctl(inet, SIOCETHTOOL, &room));
	CHECK(link.data <= 1);
	room.request.ifr_data = (void *)&driver;
	if (ioctl(inet, SIOCETHTOOL, &room) == 0)
		CHECK(driver.driver[0] != 0);
	room.request.ifr_data = NULL;
	FAILS(EFAULT, ioctl(inet, SIOCETHTOOL, &room));
}
