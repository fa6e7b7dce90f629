//! `ioctl(2)` by request.

use super::Variant;
use crate::syscalls::model::Arg::{self, Addr, Fd, Int, Mem};
use crate::syscalls::model::Dir::InOut;
use crate::syscalls::model::Extent::{IfConf, IfReq};
use crate::syscalls::model::Outcome::Int as Num;
use crate::syscalls::words::{check_row, compare, reads, supply, writes};

/// A request that asks; its answer is written behind the last argument.
const fn asks(value: u64, name: &'static str, args: &'static [Arg]) -> Variant {
    Variant { value, row: supply(16, name, args, Num) }
}

/// A request that changes something.
const fn sets(value: u64, name: &'static str, args: &'static [Arg]) -> Variant {
    Variant { value, row: compare(16, name, args, Num) }
}

/// A request about one network interface.
const IFREQ: &[Arg] = &[Fd, Int, Mem(InOut, IfReq)];

/// Sorted by request, `include/uapi/asm-generic/ioctls.h` and `include/uapi/linux/sockios.h`.
#[rustfmt::skip]
pub(super) const VARIANTS: &[Variant] = &[
    asks(0x5401, "ioctl/TCGETS", &[Fd, Int, writes(36)]),
    sets(0x5402, "ioctl/TCSETS", &[Fd, Int, reads(36)]),
    sets(0x5403, "ioctl/TCSETSW", &[Fd, Int, reads(36)]),
    sets(0x5404, "ioctl/TCSETSF", &[Fd, Int, reads(36)]),
    asks(0x540f, "ioctl/TIOCGPGRP", &[Fd, Int, writes(4)]),
    sets(0x5410, "ioctl/TIOCSPGRP", &[Fd, Int, reads(4)]),
    asks(0x5411, "ioctl/TIOCOUTQ", &[Fd, Int, writes(4)]),
    asks(0x5413, "ioctl/TIOCGWINSZ", &[Fd, Int, writes(8)]),
    sets(0x5414, "ioctl/TIOCSWINSZ", &[Fd, Int, reads(8)]),
    asks(0x541b, "ioctl/FIONREAD", &[Fd, Int, writes(4)]),
    sets(0x5421, "ioctl/FIONBIO", &[Fd, Int, reads(4)]),
    asks(0x5429, "ioctl/TIOCGSID", &[Fd, Int, writes(4)]),
    sets(0x5450, "ioctl/FIONCLEX", &[Fd, Int, Addr]),
    sets(0x5451, "ioctl/FIOCLEX", &[Fd, Int, Addr]),
    sets(0x5452, "ioctl/FIOASYNC", &[Fd, Int, reads(4)]),
    asks(0x8910, "ioctl/SIOCGIFNAME", &[Fd, Int, Mem(InOut, IfReq)]),
    asks(0x8912, "ioctl/SIOCGIFCONF", &[Fd, Int, Mem(InOut, IfConf)]),
    asks(0x8913, "ioctl/SIOCGIFFLAGS", IFREQ),
    asks(0x8915, "ioctl/SIOCGIFADDR", IFREQ),
    asks(0x8919, "ioctl/SIOCGIFBRDADDR", IFREQ),
    asks(0x891b, "ioctl/SIOCGIFNETMASK", IFREQ),
    asks(0x8921, "ioctl/SIOCGIFMTU", IFREQ),
    asks(0x8927, "ioctl/SIOCGIFHWADDR", IFREQ),
    asks(0x8933, "ioctl/SIOCGIFINDEX", IFREQ),
    sets(0x4004_5431, "ioctl/TIOCSPTLCK", &[Fd, Int, reads(4)]),
    sets(0x4004_9409, "ioctl/FICLONE", &[Fd, Int, Fd]),
    asks(0x8004_5430, "ioctl/TIOCGPTN", &[Fd, Int, writes(4)]),
    asks(0x8008_1272, "ioctl/BLKGETSIZE64", &[Fd, Int, writes(8)]),
    asks(0x8008_6601, "ioctl/FS_IOC_GETFLAGS", &[Fd, Int, writes(4)]),
];

const _: () = {
    let mut i = 0;
    while i < VARIANTS.len() {
        assert!(i == 0 || VARIANTS[i - 1].value < VARIANTS[i].value, "requests are sorted, without doubles");
        check_row(&VARIANTS[i].row);
        i += 1;
    }
};
