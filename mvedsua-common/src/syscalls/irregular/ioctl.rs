//! `ioctl(2)` by request.

use super::Variant;
use crate::syscalls::model::Arg::{self, Addr, Fd, Flags, Int, Int32, Mem};
use crate::syscalls::model::Dir::InOut;
use crate::syscalls::model::Extent::{IfConf, IfReq, IfReqIndex};
use crate::syscalls::model::Outcome::{Fd as NewFd, Int as Num};
use crate::syscalls::words::{check_row, compare, reads, supply, updates, writes};

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

/// A request about one network interface.
const IFREQ: &[Arg] = &[Fd, Int, Mem(InOut, IfReq)];

/// Sorted by request, `include/uapi/asm-generic/ioctls.h` and `include/uapi/linux/sockios.h`.
#[rustfmt::skip]
pub(super) const VARIANTS: &[Variant] = &[
    asks(0x1, "ioctl/FIBMAP", &[Fd, Int, updates(4)]),
    asks(0x2, "ioctl/FIGETBSZ", &[Fd, Int, writes(4)]),
    asks(0x125e, "ioctl/BLKROGET", &[Fd, Int, writes(4)]),
    asks(0x1260, "ioctl/BLKGETSIZE", &[Fd, Int, writes(8)]),
    asks(0x1268, "ioctl/BLKSSZGET", &[Fd, Int, writes(4)]),
    asks(0x5401, "ioctl/TCGETS", &[Fd, Int, writes(36)]),
    sets(0x5402, "ioctl/TCSETS", &[Fd, Int, reads(36)]),
    sets(0x5403, "ioctl/TCSETSW", &[Fd, Int, reads(36)]),
    sets(0x5404, "ioctl/TCSETSF", &[Fd, Int, reads(36)]),
    sets(0x5409, "ioctl/TCSBRK", &[Fd, Int, Int32]),
    sets(0x540a, "ioctl/TCXONC", &[Fd, Int, Int32]),
    sets(0x540b, "ioctl/TCFLSH", &[Fd, Int, Int32]),
    sets(0x540c, "ioctl/TIOCEXCL", &[Fd, Int, Addr]),
    sets(0x540d, "ioctl/TIOCNXCL", &[Fd, Int, Addr]),
    sets(0x540e, "ioctl/TIOCSCTTY", &[Fd, Int, Int32]),
    asks(0x540f, "ioctl/TIOCGPGRP", &[Fd, Int, writes(4)]),
    sets(0x5410, "ioctl/TIOCSPGRP", &[Fd, Int, reads(4)]),
    asks(0x5411, "ioctl/TIOCOUTQ", &[Fd, Int, writes(4)]),
    sets(0x5412, "ioctl/TIOCSTI", &[Fd, Int, reads(1)]),
    asks(0x5413, "ioctl/TIOCGWINSZ", &[Fd, Int, writes(8)]),
    sets(0x5414, "ioctl/TIOCSWINSZ", &[Fd, Int, reads(8)]),
    asks(0x5415, "ioctl/TIOCMGET", &[Fd, Int, writes(4)]),
    sets(0x5418, "ioctl/TIOCMSET", &[Fd, Int, reads(4)]),
    asks(0x541b, "ioctl/FIONREAD", &[Fd, Int, writes(4)]),
    sets(0x5420, "ioctl/TIOCPKT", &[Fd, Int, reads(4)]),
    sets(0x5421, "ioctl/FIONBIO", &[Fd, Int, reads(4)]),
    sets(0x5422, "ioctl/TIOCNOTTY", &[Fd, Int, Addr]),
    sets(0x5423, "ioctl/TIOCSETD", &[Fd, Int, reads(4)]),
    asks(0x5424, "ioctl/TIOCGETD", &[Fd, Int, writes(4)]),
    sets(0x5425, "ioctl/TCSBRKP", &[Fd, Int, Int32]),
    asks(0x5429, "ioctl/TIOCGSID", &[Fd, Int, writes(4)]),
    opens(0x5441, "ioctl/TIOCGPTPEER", &[Fd, Int, Flags]),
    sets(0x5450, "ioctl/FIONCLEX", &[Fd, Int, Addr]),
    sets(0x5451, "ioctl/FIOCLEX", &[Fd, Int, Addr]),
    sets(0x5452, "ioctl/FIOASYNC", &[Fd, Int, reads(4)]),
    asks(0x5460, "ioctl/FIOQSIZE", &[Fd, Int, writes(8)]),
    sets(0x8901, "ioctl/FIOSETOWN", &[Fd, Int, reads(4)]),
    sets(0x8902, "ioctl/SIOCSPGRP", &[Fd, Int, reads(4)]),
    asks(0x8903, "ioctl/FIOGETOWN", &[Fd, Int, writes(4)]),
    asks(0x8904, "ioctl/SIOCGPGRP", &[Fd, Int, writes(4)]),
    asks(0x8905, "ioctl/SIOCATMARK", &[Fd, Int, writes(4)]),
    asks(0x8906, "ioctl/SIOCGSTAMP", &[Fd, Int, writes(16)]),
    asks(0x8907, "ioctl/SIOCGSTAMPNS", &[Fd, Int, writes(16)]),
    asks(0x8910, "ioctl/SIOCGIFNAME", &[Fd, Int, Mem(InOut, IfReqIndex)]),
    asks(0x8912, "ioctl/SIOCGIFCONF", &[Fd, Int, Mem(InOut, IfConf)]),
    asks(0x8913, "ioctl/SIOCGIFFLAGS", IFREQ),
    asks(0x8915, "ioctl/SIOCGIFADDR", IFREQ),
    asks(0x8917, "ioctl/SIOCGIFDSTADDR", IFREQ),
    asks(0x8919, "ioctl/SIOCGIFBRDADDR", IFREQ),
    asks(0x891b, "ioctl/SIOCGIFNETMASK", IFREQ),
    asks(0x891d, "ioctl/SIOCGIFMETRIC", IFREQ),
    asks(0x8921, "ioctl/SIOCGIFMTU", IFREQ),
    asks(0x8927, "ioctl/SIOCGIFHWADDR", IFREQ),
    asks(0x8933, "ioctl/SIOCGIFINDEX", IFREQ),
    asks(0x8942, "ioctl/SIOCGIFTXQLEN", IFREQ),
    asks(0x894b, "ioctl/SIOCOUTQNSD", &[Fd, Int, writes(4)]),
    asks(0x8970, "ioctl/SIOCGIFMAP", IFREQ),
    opens(0xb701, "ioctl/NS_GET_USERNS", &[Fd, Int, Addr]),
    opens(0xb702, "ioctl/NS_GET_PARENT", &[Fd, Int, Addr]),
    asks(0xb703, "ioctl/NS_GET_NSTYPE", &[Fd, Int, Addr]),
    sets(0x4004_5431, "ioctl/TIOCSPTLCK", &[Fd, Int, reads(4)]),
    sets(0x4004_9409, "ioctl/FICLONE", &[Fd, Int, Fd]),
    sets(0x4008_6602, "ioctl/FS_IOC_SETFLAGS", &[Fd, Int, reads(4)]),
    sets(0x4008_6d01, "ioctl/MTIOCTOP", &[Fd, Int, reads(8)]),
    sets(0x401c_5820, "ioctl/FS_IOC_FSSETXATTR", &[Fd, Int, reads(28)]),
    sets(0x4020_940d, "ioctl/FICLONERANGE", &[Fd, Int, reads(32)]),
    sets(0x402c_542b, "ioctl/TCSETS2", &[Fd, Int, reads(44)]),
    sets(0x402c_542c, "ioctl/TCSETSW2", &[Fd, Int, reads(44)]),
    sets(0x402c_542d, "ioctl/TCSETSF2", &[Fd, Int, reads(44)]),
    asks(0x8004_5200, "ioctl/RNDGETENTCNT", &[Fd, Int, writes(4)]),
    asks(0x8004_5430, "ioctl/TIOCGPTN", &[Fd, Int, writes(4)]),
    asks(0x8004_5432, "ioctl/TIOCGDEV", &[Fd, Int, writes(4)]),
    asks(0x8004_5438, "ioctl/TIOCGPKT", &[Fd, Int, writes(4)]),
    asks(0x8004_5439, "ioctl/TIOCGPTLCK", &[Fd, Int, writes(4)]),
    asks(0x8004_5440, "ioctl/TIOCGEXCL", &[Fd, Int, writes(4)]),
    asks(0x8008_1272, "ioctl/BLKGETSIZE64", &[Fd, Int, writes(8)]),
    asks(0x8008_6601, "ioctl/FS_IOC_GETFLAGS", &[Fd, Int, writes(4)]),
    asks(0x8008_7601, "ioctl/FS_IOC_GETVERSION", &[Fd, Int, writes(4)]),
    asks(0x801c_581f, "ioctl/FS_IOC_FSGETXATTR", &[Fd, Int, writes(28)]),
    asks(0x802c_542a, "ioctl/TCGETS2", &[Fd, Int, writes(44)]),
    asks(0x8030_6d02, "ioctl/MTIOCGET", &[Fd, Int, writes(48)]),
];

const _: () = {
    let mut i = 0;
    while i < VARIANTS.len() {
        assert!(i == 0 || VARIANTS[i - 1].value < VARIANTS[i].value, "requests are sorted, without doubles");
        check_row(&VARIANTS[i].row);
        i += 1;
    }
};
