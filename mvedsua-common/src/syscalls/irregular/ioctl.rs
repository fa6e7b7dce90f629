//! `ioctl(2)` by request: what servers, shells and tools of the system ask sockets, interfaces, terminals, files, disks, clocks,
//! namespaces and processes for. Requests with memory that a row cannot describe have a reason instead.

use super::{Treatment, Variant};
use crate::syscalls::model::Arg::{self, Addr, Fd, Flags, Int, Int32, Mem};
use crate::syscalls::model::Dir::InOut;
use crate::syscalls::model::Extent::{EthTool, IfConf, IfReq, IfReqIndex};
use crate::syscalls::model::Outcome::{Fd as NewFd, Int as Num};
use crate::syscalls::regions::{self, Memory};
use crate::syscalls::words::{PATH, check_row, compare, reads, refuse, supply, updates, writes};

/// A request that asks; its answer is written behind the last argument.
const fn asks(value: u64, name: &'static str, args: &'static [Arg]) -> Variant {
    Variant { value, row: supply(16, name, args, Num) }
}

/// A request that changes something.
const fn sets(value: u64, name: &'static str, args: &'static [Arg]) -> Variant {
    Variant { value, row: compare(16, name, args, Num) }
}

/// A request that opens something.
const fn opens(value: u64, name: &'static str, args: &'static [Arg]) -> Variant {
    Variant { value, row: supply(16, name, args, NewFd) }
}

/// A request that is not supported, and why.
const fn refused(value: u64, name: &'static str, reason: &'static str) -> Variant {
    Variant { value, row: refuse(16, name, reason) }
}

/// A request about one network interface.
const IFREQ: &[Arg] = &[Fd, Int32, Mem(InOut, IfReq)];

/// Says what is done with a request.
pub(super) fn request<M: Memory + ?Sized>(args: &[u64; 6], mem: &M) -> Treatment {
    const SIOCETHTOOL: u64 = 0x8946;
    // The upper half of the register is not part of it: the kernel takes an unsigned int.
    let request = args[1] & 0xffff_ffff;
    if request == SIOCETHTOOL && regions::eth_tool(mem, args[2]).is_none() {
        return Treatment::Refuse("the memory of this command of SIOCETHTOOL is not described");
    }
    super::find(VARIANTS, request, "the table has no row for this ioctl request")
}

/// Returns the name of a request.
pub(super) fn name(request: u64) -> Option<&'static str> {
    let at = VARIANTS.binary_search_by_key(&(request & 0xffff_ffff), |variant| variant.value).ok()?;
    VARIANTS[at].row.name.split_once('/').map(|(_, name)| name)
}

/// Sorted by request, `include/uapi/asm-generic/ioctls.h`, `include/uapi/linux/sockios.h`, `fs.h`, `if_tun.h`, `rtc.h`, `nsfs.h`,
/// `pidfd.h`, `watchdog.h`, `ptp_clock.h` and others there.
#[rustfmt::skip]
pub(super) const VARIANTS: &[Variant] = &[
    asks(0x1, "ioctl/FIBMAP", &[Fd, Int32, updates(4)]),
    asks(0x2, "ioctl/FIGETBSZ", &[Fd, Int32, writes(4)]),
    asks(0x301, "ioctl/HDIO_GETGEO", &[Fd, Int32, writes(16)]),
    sets(0x125d, "ioctl/BLKROSET", &[Fd, Int32, reads(4)]),
    asks(0x125e, "ioctl/BLKROGET", &[Fd, Int32, writes(4)]),
    sets(0x125f, "ioctl/BLKRRPART", &[Fd, Int32, Addr]),
    asks(0x1260, "ioctl/BLKGETSIZE", &[Fd, Int32, writes(8)]),
    sets(0x1261, "ioctl/BLKFLSBUF", &[Fd, Int32, Addr]),
    sets(0x1262, "ioctl/BLKRASET", &[Fd, Int32, Int]),
    asks(0x1263, "ioctl/BLKRAGET", &[Fd, Int32, writes(8)]),
    sets(0x1264, "ioctl/BLKFRASET", &[Fd, Int32, Int]),
    asks(0x1265, "ioctl/BLKFRAGET", &[Fd, Int32, writes(8)]),
    asks(0x1267, "ioctl/BLKSECTGET", &[Fd, Int32, writes(2)]),
    asks(0x1268, "ioctl/BLKSSZGET", &[Fd, Int32, writes(4)]),
    sets(0x1277, "ioctl/BLKDISCARD", &[Fd, Int32, reads(16)]),
    asks(0x1278, "ioctl/BLKIOMIN", &[Fd, Int32, writes(4)]),
    asks(0x1279, "ioctl/BLKIOOPT", &[Fd, Int32, writes(4)]),
    asks(0x127a, "ioctl/BLKALIGNOFF", &[Fd, Int32, writes(4)]),
    asks(0x127b, "ioctl/BLKPBSZGET", &[Fd, Int32, writes(4)]),
    asks(0x127c, "ioctl/BLKDISCARDZEROES", &[Fd, Int32, writes(4)]),
    sets(0x127d, "ioctl/BLKSECDISCARD", &[Fd, Int32, reads(16)]),
    asks(0x127e, "ioctl/BLKROTATIONAL", &[Fd, Int32, writes(2)]),
    sets(0x127f, "ioctl/BLKZEROOUT", &[Fd, Int32, reads(16)]),
    refused(0x2285, "ioctl/SG_IO", "commands to a device have buffers of their own"),
    sets(0x5204, "ioctl/RNDZAPENTCNT", &[Fd, Int32, Addr]),
    sets(0x5206, "ioctl/RNDCLEARPOOL", &[Fd, Int32, Addr]),
    sets(0x5207, "ioctl/RNDRESEEDCRNG", &[Fd, Int32, Addr]),
    asks(0x5401, "ioctl/TCGETS", &[Fd, Int32, writes(36)]),
    sets(0x5402, "ioctl/TCSETS", &[Fd, Int32, reads(36)]),
    sets(0x5403, "ioctl/TCSETSW", &[Fd, Int32, reads(36)]),
    sets(0x5404, "ioctl/TCSETSF", &[Fd, Int32, reads(36)]),
    asks(0x5405, "ioctl/TCGETA", &[Fd, Int32, writes(17)]),
    sets(0x5406, "ioctl/TCSETA", &[Fd, Int32, reads(17)]),
    sets(0x5407, "ioctl/TCSETAW", &[Fd, Int32, reads(17)]),
    sets(0x5408, "ioctl/TCSETAF", &[Fd, Int32, reads(17)]),
    sets(0x5409, "ioctl/TCSBRK", &[Fd, Int32, Int32]),
    sets(0x540a, "ioctl/TCXONC", &[Fd, Int32, Int32]),
    sets(0x540b, "ioctl/TCFLSH", &[Fd, Int32, Int32]),
    sets(0x540c, "ioctl/TIOCEXCL", &[Fd, Int32, Addr]),
    sets(0x540d, "ioctl/TIOCNXCL", &[Fd, Int32, Addr]),
    sets(0x540e, "ioctl/TIOCSCTTY", &[Fd, Int32, Int32]),
    asks(0x540f, "ioctl/TIOCGPGRP", &[Fd, Int32, writes(4)]),
    sets(0x5410, "ioctl/TIOCSPGRP", &[Fd, Int32, reads(4)]),
    asks(0x5411, "ioctl/TIOCOUTQ", &[Fd, Int32, writes(4)]),
    sets(0x5412, "ioctl/TIOCSTI", &[Fd, Int32, reads(1)]),
    asks(0x5413, "ioctl/TIOCGWINSZ", &[Fd, Int32, writes(8)]),
    sets(0x5414, "ioctl/TIOCSWINSZ", &[Fd, Int32, reads(8)]),
    asks(0x5415, "ioctl/TIOCMGET", &[Fd, Int32, writes(4)]),
    sets(0x5416, "ioctl/TIOCMBIS", &[Fd, Int32, reads(4)]),
    sets(0x5417, "ioctl/TIOCMBIC", &[Fd, Int32, reads(4)]),
    sets(0x5418, "ioctl/TIOCMSET", &[Fd, Int32, reads(4)]),
    asks(0x5419, "ioctl/TIOCGSOFTCAR", &[Fd, Int32, writes(4)]),
    sets(0x541a, "ioctl/TIOCSSOFTCAR", &[Fd, Int32, reads(4)]),
    asks(0x541b, "ioctl/FIONREAD", &[Fd, Int32, writes(4)]),
    refused(0x541c, "ioctl/TIOCLINUX", "its memory depends on a code in it"),
    sets(0x541d, "ioctl/TIOCCONS", &[Fd, Int32, Addr]),
    asks(0x541e, "ioctl/TIOCGSERIAL", &[Fd, Int32, writes(72)]),
    refused(0x541f, "ioctl/TIOCSSERIAL", "it may point to the memory of a device"),
    sets(0x5420, "ioctl/TIOCPKT", &[Fd, Int32, reads(4)]),
    sets(0x5421, "ioctl/FIONBIO", &[Fd, Int32, reads(4)]),
    sets(0x5422, "ioctl/TIOCNOTTY", &[Fd, Int32, Addr]),
    sets(0x5423, "ioctl/TIOCSETD", &[Fd, Int32, reads(4)]),
    asks(0x5424, "ioctl/TIOCGETD", &[Fd, Int32, writes(4)]),
    sets(0x5425, "ioctl/TCSBRKP", &[Fd, Int32, Int32]),
    sets(0x5427, "ioctl/TIOCSBRK", &[Fd, Int32, Addr]),
    sets(0x5428, "ioctl/TIOCCBRK", &[Fd, Int32, Addr]),
    asks(0x5429, "ioctl/TIOCGSID", &[Fd, Int32, writes(4)]),
    asks(0x542e, "ioctl/TIOCGRS485", &[Fd, Int32, writes(32)]),
    sets(0x542f, "ioctl/TIOCSRS485", &[Fd, Int32, updates(32)]),
    sets(0x5437, "ioctl/TIOCVHANGUP", &[Fd, Int32, Addr]),
    opens(0x5441, "ioctl/TIOCGPTPEER", &[Fd, Int32, Flags]),
    sets(0x5450, "ioctl/FIONCLEX", &[Fd, Int32, Addr]),
    sets(0x5451, "ioctl/FIOCLEX", &[Fd, Int32, Addr]),
    sets(0x5452, "ioctl/FIOASYNC", &[Fd, Int32, reads(4)]),
    asks(0x5459, "ioctl/TIOCSERGETLSR", &[Fd, Int32, writes(4)]),
    asks(0x545d, "ioctl/TIOCGICOUNT", &[Fd, Int32, writes(80)]),
    asks(0x5460, "ioctl/FIOQSIZE", &[Fd, Int32, writes(8)]),
    opens(0x54e3, "ioctl/TUNGETDEVNETNS", &[Fd, Int32, Addr]),
    sets(0x7001, "ioctl/RTC_AIE_ON", &[Fd, Int32, Addr]),
    sets(0x7002, "ioctl/RTC_AIE_OFF", &[Fd, Int32, Addr]),
    sets(0x7003, "ioctl/RTC_UIE_ON", &[Fd, Int32, Addr]),
    sets(0x7004, "ioctl/RTC_UIE_OFF", &[Fd, Int32, Addr]),
    sets(0x7005, "ioctl/RTC_PIE_ON", &[Fd, Int32, Addr]),
    sets(0x7006, "ioctl/RTC_PIE_OFF", &[Fd, Int32, Addr]),
    sets(0x7014, "ioctl/RTC_VL_CLR", &[Fd, Int32, Addr]),
    sets(0x8901, "ioctl/FIOSETOWN", &[Fd, Int32, reads(4)]),
    sets(0x8902, "ioctl/SIOCSPGRP", &[Fd, Int32, reads(4)]),
    asks(0x8903, "ioctl/FIOGETOWN", &[Fd, Int32, writes(4)]),
    asks(0x8904, "ioctl/SIOCGPGRP", &[Fd, Int32, writes(4)]),
    asks(0x8905, "ioctl/SIOCATMARK", &[Fd, Int32, writes(4)]),
    asks(0x8906, "ioctl/SIOCGSTAMP", &[Fd, Int32, writes(16)]),
    asks(0x8907, "ioctl/SIOCGSTAMPNS", &[Fd, Int32, writes(16)]),
    refused(0x890b, "ioctl/SIOCADDRT", "the name of the device lies behind a pointer in it"),
    refused(0x890c, "ioctl/SIOCDELRT", "the name of the device lies behind a pointer in it"),
    asks(0x8910, "ioctl/SIOCGIFNAME", &[Fd, Int32, Mem(InOut, IfReqIndex)]),
    asks(0x8912, "ioctl/SIOCGIFCONF", &[Fd, Int32, Mem(InOut, IfConf)]),
    asks(0x8913, "ioctl/SIOCGIFFLAGS", IFREQ),
    sets(0x8914, "ioctl/SIOCSIFFLAGS", &[Fd, Int32, reads(18)]),
    asks(0x8915, "ioctl/SIOCGIFADDR", IFREQ),
    sets(0x8916, "ioctl/SIOCSIFADDR", &[Fd, Int32, reads(32)]),
    asks(0x8917, "ioctl/SIOCGIFDSTADDR", IFREQ),
    sets(0x8918, "ioctl/SIOCSIFDSTADDR", &[Fd, Int32, reads(32)]),
    asks(0x8919, "ioctl/SIOCGIFBRDADDR", IFREQ),
    sets(0x891a, "ioctl/SIOCSIFBRDADDR", &[Fd, Int32, reads(32)]),
    asks(0x891b, "ioctl/SIOCGIFNETMASK", IFREQ),
    sets(0x891c, "ioctl/SIOCSIFNETMASK", &[Fd, Int32, reads(32)]),
    asks(0x891d, "ioctl/SIOCGIFMETRIC", IFREQ),
    sets(0x891e, "ioctl/SIOCSIFMETRIC", &[Fd, Int32, reads(20)]),
    asks(0x8921, "ioctl/SIOCGIFMTU", IFREQ),
    sets(0x8922, "ioctl/SIOCSIFMTU", &[Fd, Int32, reads(20)]),
    sets(0x8923, "ioctl/SIOCSIFNAME", &[Fd, Int32, reads(32)]),
    sets(0x8924, "ioctl/SIOCSIFHWADDR", &[Fd, Int32, reads(32)]),
    asks(0x8927, "ioctl/SIOCGIFHWADDR", IFREQ),
    sets(0x8931, "ioctl/SIOCADDMULTI", &[Fd, Int32, reads(32)]),
    sets(0x8932, "ioctl/SIOCDELMULTI", &[Fd, Int32, reads(32)]),
    asks(0x8933, "ioctl/SIOCGIFINDEX", IFREQ),
    sets(0x8934, "ioctl/SIOCSIFPFLAGS", &[Fd, Int32, reads(18)]),
    asks(0x8935, "ioctl/SIOCGIFPFLAGS", IFREQ),
    sets(0x8936, "ioctl/SIOCDIFADDR", &[Fd, Int32, reads(32)]),
    sets(0x8937, "ioctl/SIOCSIFHWBROADCAST", &[Fd, Int32, reads(32)]),
    asks(0x8942, "ioctl/SIOCGIFTXQLEN", IFREQ),
    sets(0x8943, "ioctl/SIOCSIFTXQLEN", &[Fd, Int32, reads(20)]),
    asks(0x8946, "ioctl/SIOCETHTOOL", &[Fd, Int32, Mem(InOut, EthTool)]),
    asks(0x8947, "ioctl/SIOCGMIIPHY", IFREQ),
    asks(0x8948, "ioctl/SIOCGMIIREG", &[Fd, Int32, updates(24)]),
    asks(0x894b, "ioctl/SIOCOUTQNSD", &[Fd, Int32, writes(4)]),
    opens(0x894c, "ioctl/SIOCGSKNS", &[Fd, Int32, Addr]),
    sets(0x8953, "ioctl/SIOCDARP", &[Fd, Int32, reads(68)]),
    asks(0x8954, "ioctl/SIOCGARP", &[Fd, Int32, updates(68)]),
    sets(0x8955, "ioctl/SIOCSARP", &[Fd, Int32, reads(68)]),
    asks(0x8970, "ioctl/SIOCGIFMAP", IFREQ),
    refused(0x8982, "ioctl/SIOCGIFVLAN", "its memory depends on a command in it"),
    refused(0x8983, "ioctl/SIOCSIFVLAN", "its memory depends on a command in it"),
    refused(0x8990, "ioctl/SIOCBONDENSLAVE", "the bonding of interfaces is not followed"),
    refused(0x89b0, "ioctl/SIOCSHWTSTAMP", "its memory lies behind a pointer in it"),
    refused(0x89b1, "ioctl/SIOCGHWTSTAMP", "its memory lies behind a pointer in it"),
    opens(0xb701, "ioctl/NS_GET_USERNS", &[Fd, Int32, Addr]),
    opens(0xb702, "ioctl/NS_GET_PARENT", &[Fd, Int32, Addr]),
    asks(0xb703, "ioctl/NS_GET_NSTYPE", &[Fd, Int32, Addr]),
    asks(0xb704, "ioctl/NS_GET_OWNER_UID", &[Fd, Int32, writes(4)]),
    opens(0xff01, "ioctl/PIDFD_GET_CGROUP_NAMESPACE", &[Fd, Int32, Addr]),
    opens(0xff02, "ioctl/PIDFD_GET_IPC_NAMESPACE", &[Fd, Int32, Addr]),
    opens(0xff03, "ioctl/PIDFD_GET_MNT_NAMESPACE", &[Fd, Int32, Addr]),
    opens(0xff04, "ioctl/PIDFD_GET_NET_NAMESPACE", &[Fd, Int32, Addr]),
    opens(0xff05, "ioctl/PIDFD_GET_PID_NAMESPACE", &[Fd, Int32, Addr]),
    opens(0xff06, "ioctl/PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE", &[Fd, Int32, Addr]),
    opens(0xff07, "ioctl/PIDFD_GET_TIME_NAMESPACE", &[Fd, Int32, Addr]),
    opens(0xff08, "ioctl/PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE", &[Fd, Int32, Addr]),
    opens(0xff09, "ioctl/PIDFD_GET_USER_NAMESPACE", &[Fd, Int32, Addr]),
    opens(0xff0a, "ioctl/PIDFD_GET_UTS_NAMESPACE", &[Fd, Int32, Addr]),
    sets(0x4004_4900, "ioctl/INOTIFY_IOC_SETNEXTWD", &[Fd, Int32, Int32]),
    sets(0x4004_5201, "ioctl/RNDADDTOENTCNT", &[Fd, Int32, reads(4)]),
    sets(0x4004_5431, "ioctl/TIOCSPTLCK", &[Fd, Int32, reads(4)]),
    sets(0x4004_5436, "ioctl/TIOCSIG", &[Fd, Int32, Int32]),
    sets(0x4004_54c8, "ioctl/TUNSETNOCSUM", &[Fd, Int32, Int32]),
    sets(0x4004_54c9, "ioctl/TUNSETDEBUG", &[Fd, Int32, Int32]),
    sets(0x4004_54ca, "ioctl/TUNSETIFF", &[Fd, Int32, updates(18)]),
    sets(0x4004_54cb, "ioctl/TUNSETPERSIST", &[Fd, Int32, Int32]),
    sets(0x4004_54cc, "ioctl/TUNSETOWNER", &[Fd, Int32, Int32]),
    sets(0x4004_54cd, "ioctl/TUNSETLINK", &[Fd, Int32, Int32]),
    sets(0x4004_54ce, "ioctl/TUNSETGROUP", &[Fd, Int32, Int32]),
    sets(0x4004_54d0, "ioctl/TUNSETOFFLOAD", &[Fd, Int32, Int]),
    refused(0x4004_54d1, "ioctl/TUNSETTXFILTER", "its memory is as long as a number in it says"),
    sets(0x4004_54d4, "ioctl/TUNSETSNDBUF", &[Fd, Int32, reads(4)]),
    sets(0x4004_54d8, "ioctl/TUNSETVNETHDRSZ", &[Fd, Int32, reads(4)]),
    sets(0x4004_54d9, "ioctl/TUNSETQUEUE", &[Fd, Int32, reads(18)]),
    sets(0x4004_54da, "ioctl/TUNSETIFINDEX", &[Fd, Int32, reads(4)]),
    sets(0x4004_54dc, "ioctl/TUNSETVNETLE", &[Fd, Int32, reads(4)]),
    sets(0x4004_54de, "ioctl/TUNSETVNETBE", &[Fd, Int32, reads(4)]),
    sets(0x4004_54e2, "ioctl/TUNSETCARRIER", &[Fd, Int32, reads(4)]),
    sets(0x4004_9409, "ioctl/FICLONE", &[Fd, Int32, Fd]),
    sets(0x4008_1271, "ioctl/BLKBSZSET", &[Fd, Int32, reads(4)]),
    refused(0x4008_5203, "ioctl/RNDADDENTROPY", "its memory is as long as a number in it says"),
    sets(0x4008_5400, "ioctl/TFD_IOC_SET_TICKS", &[Fd, Int32, reads(8)]),
    sets(0x4008_6602, "ioctl/FS_IOC_SETFLAGS", &[Fd, Int32, reads(4)]),
    sets(0x4008_6d01, "ioctl/MTIOCTOP", &[Fd, Int32, reads(8)]),
    sets(0x4008_700c, "ioctl/RTC_IRQP_SET", &[Fd, Int32, Int]),
    sets(0x4008_7602, "ioctl/FS_IOC_SETVERSION", &[Fd, Int32, reads(4)]),
    sets(0x4008_8a01, "ioctl/EPIOCSPARAMS", &[Fd, Int32, reads(8)]),
    refused(0x4010_54d5, "ioctl/TUNATTACHFILTER", "it points to a program"),
    refused(0x4010_54d6, "ioctl/TUNDETACHFILTER", "it points to a program"),
    sets(0x401c_5820, "ioctl/FS_IOC_FSSETXATTR", &[Fd, Int32, reads(28)]),
    sets(0x4020_940d, "ioctl/FICLONERANGE", &[Fd, Int32, reads(32)]),
    sets(0x4024_7007, "ioctl/RTC_ALM_SET", &[Fd, Int32, reads(36)]),
    sets(0x4024_700a, "ioctl/RTC_SET_TIME", &[Fd, Int32, reads(36)]),
    sets(0x4028_700f, "ioctl/RTC_WKALM_SET", &[Fd, Int32, reads(40)]),
    sets(0x402c_542b, "ioctl/TCSETS2", &[Fd, Int32, reads(44)]),
    sets(0x402c_542c, "ioctl/TCSETSW2", &[Fd, Int32, reads(44)]),
    sets(0x402c_542d, "ioctl/TCSETSF2", &[Fd, Int32, reads(44)]),
    sets(0x4100_9432, "ioctl/FS_IOC_SETFSLABEL", &[Fd, Int32, PATH]),
    asks(0x8004_5200, "ioctl/RNDGETENTCNT", &[Fd, Int32, writes(4)]),
    asks(0x8004_5430, "ioctl/TIOCGPTN", &[Fd, Int32, writes(4)]),
    asks(0x8004_5432, "ioctl/TIOCGDEV", &[Fd, Int32, writes(4)]),
    asks(0x8004_5438, "ioctl/TIOCGPKT", &[Fd, Int32, writes(4)]),
    asks(0x8004_5439, "ioctl/TIOCGPTLCK", &[Fd, Int32, writes(4)]),
    asks(0x8004_5440, "ioctl/TIOCGEXCL", &[Fd, Int32, writes(4)]),
    asks(0x8004_54cf, "ioctl/TUNGETFEATURES", &[Fd, Int32, writes(4)]),
    asks(0x8004_54d2, "ioctl/TUNGETIFF", &[Fd, Int32, writes(40)]),
    asks(0x8004_54d3, "ioctl/TUNGETSNDBUF", &[Fd, Int32, writes(4)]),
    asks(0x8004_54d7, "ioctl/TUNGETVNETHDRSZ", &[Fd, Int32, writes(4)]),
    asks(0x8004_54dd, "ioctl/TUNGETVNETLE", &[Fd, Int32, writes(4)]),
    asks(0x8004_54df, "ioctl/TUNGETVNETBE", &[Fd, Int32, writes(4)]),
    refused(0x8004_54e0, "ioctl/TUNSETSTEERINGEBPF", "programs of the kernel are not followed"),
    refused(0x8004_54e1, "ioctl/TUNSETFILTEREBPF", "programs of the kernel are not followed"),
    asks(0x8004_5701, "ioctl/WDIOC_GETSTATUS", &[Fd, Int32, writes(4)]),
    asks(0x8004_5702, "ioctl/WDIOC_GETBOOTSTATUS", &[Fd, Int32, writes(4)]),
    asks(0x8004_5703, "ioctl/WDIOC_GETTEMP", &[Fd, Int32, writes(4)]),
    sets(0x8004_5704, "ioctl/WDIOC_SETOPTIONS", &[Fd, Int32, reads(4)]),
    sets(0x8004_5705, "ioctl/WDIOC_KEEPALIVE", &[Fd, Int32, Addr]),
    asks(0x8004_5707, "ioctl/WDIOC_GETTIMEOUT", &[Fd, Int32, writes(4)]),
    asks(0x8004_5709, "ioctl/WDIOC_GETPRETIMEOUT", &[Fd, Int32, writes(4)]),
    asks(0x8004_570a, "ioctl/WDIOC_GETTIMELEFT", &[Fd, Int32, writes(4)]),
    asks(0x8004_7013, "ioctl/RTC_VL_READ", &[Fd, Int32, writes(4)]),
    asks(0x8004_b706, "ioctl/NS_GET_PID_FROM_PIDNS", &[Fd, Int32, Int32]),
    asks(0x8004_b707, "ioctl/NS_GET_TGID_FROM_PIDNS", &[Fd, Int32, Int32]),
    asks(0x8004_b708, "ioctl/NS_GET_PID_IN_PIDNS", &[Fd, Int32, Int32]),
    asks(0x8004_b709, "ioctl/NS_GET_TGID_IN_PIDNS", &[Fd, Int32, Int32]),
    asks(0x8008_1270, "ioctl/BLKBSZGET", &[Fd, Int32, writes(4)]),
    asks(0x8008_1272, "ioctl/BLKGETSIZE64", &[Fd, Int32, writes(8)]),
    asks(0x8008_1280, "ioctl/BLKGETDISKSEQ", &[Fd, Int32, writes(8)]),
    asks(0x8008_6601, "ioctl/FS_IOC_GETFLAGS", &[Fd, Int32, writes(4)]),
    asks(0x8008_700b, "ioctl/RTC_IRQP_READ", &[Fd, Int32, writes(8)]),
    asks(0x8008_7601, "ioctl/FS_IOC_GETVERSION", &[Fd, Int32, writes(4)]),
    asks(0x8008_8a02, "ioctl/EPIOCGPARAMS", &[Fd, Int32, writes(8)]),
    asks(0x8008_b705, "ioctl/NS_GET_MNTNS_ID", &[Fd, Int32, writes(8)]),
    asks(0x8010_8906, "ioctl/SIOCGSTAMP_NEW", &[Fd, Int32, writes(16)]),
    asks(0x8010_8907, "ioctl/SIOCGSTAMPNS_NEW", &[Fd, Int32, writes(16)]),
    asks(0x8010_b70a, "ioctl/NS_MNT_GET_INFO", &[Fd, Int32, writes(16)]),
    opens(0x8010_b70b, "ioctl/NS_MNT_GET_NEXT", &[Fd, Int32, writes(16)]),
    opens(0x8010_b70c, "ioctl/NS_MNT_GET_PREV", &[Fd, Int32, writes(16)]),
    asks(0x8011_1500, "ioctl/FS_IOC_GETFSUUID", &[Fd, Int32, writes(17)]),
    asks(0x801c_581f, "ioctl/FS_IOC_FSGETXATTR", &[Fd, Int32, writes(28)]),
    asks(0x8024_7008, "ioctl/RTC_ALM_READ", &[Fd, Int32, writes(36)]),
    asks(0x8024_7009, "ioctl/RTC_RD_TIME", &[Fd, Int32, writes(36)]),
    asks(0x8028_5700, "ioctl/WDIOC_GETSUPPORT", &[Fd, Int32, writes(40)]),
    asks(0x8028_7010, "ioctl/RTC_WKALM_RD", &[Fd, Int32, writes(40)]),
    asks(0x802c_542a, "ioctl/TCGETS2", &[Fd, Int32, writes(44)]),
    asks(0x8030_6d02, "ioctl/MTIOCGET", &[Fd, Int32, writes(48)]),
    asks(0x8050_3d01, "ioctl/PTP_CLOCK_GETCAPS", &[Fd, Int32, writes(80)]),
    asks(0x8100_9431, "ioctl/FS_IOC_GETFSLABEL", &[Fd, Int32, writes(256)]),
    sets(0xc004_5706, "ioctl/WDIOC_SETTIMEOUT", &[Fd, Int32, updates(4)]),
    sets(0xc004_5708, "ioctl/WDIOC_SETPRETIMEOUT", &[Fd, Int32, updates(4)]),
    sets(0xc004_5877, "ioctl/FIFREEZE", &[Fd, Int32, Addr]),
    sets(0xc004_5878, "ioctl/FITHAW", &[Fd, Int32, Addr]),
    sets(0xc018_5879, "ioctl/FITRIM", &[Fd, Int32, updates(24)]),
    refused(0xc018_9436, "ioctl/FIDEDUPERANGE", "its memory is as long as a number in it says"),
    refused(0xc020_660b, "ioctl/FS_IOC_FIEMAP", "its memory is as long as a number in it says"),
    asks(0xc040_3d08, "ioctl/PTP_SYS_OFFSET_PRECISE", &[Fd, Int32, updates(64)]),
    asks(0xc040_ff0b, "ioctl/PIDFD_GET_INFO", &[Fd, Int32, updates(64)]),
    asks(0xc4c0_3d09, "ioctl/PTP_SYS_OFFSET_EXTENDED", &[Fd, Int32, updates(1216)]),
];

const _: () = {
    let mut i = 0;
    while i < VARIANTS.len() {
        assert!(i == 0 || VARIANTS[i - 1].value < VARIANTS[i].value, "requests are sorted, without doubles");
        check_row(&VARIANTS[i].row);
        i += 1;
    }
};
