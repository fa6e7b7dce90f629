//! What concerns the whole machine and needs a privilege: the leader does it once, the follower must want the same.

use super::model::Arg::{Addr, Fd, Flags, Int, Int32, LongFlags, Mem};
use super::model::Dir::Out;
use super::model::Extent::{FromRet, SizeFirst, ToldSize};
use super::model::Outcome::{Fd as NewFd, Int as Num, Size};
use super::model::{Arg, Dir, Irregular, Row};
use super::words::{PATH, check, compare, fills, reads, reads_arg, supply, updates, writes};

/// A `struct mnt_id_req`.
const MOUNT: Arg = Mem(Dir::In, SizeFirst { least: 24 });

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    supply(103, "syslog", &[Int32, fills(2), Int32], Size),
    supply(136, "ustat", &[Int32, writes(32)], Num),
    compare(153, "vhangup", &[], Num),
    compare(163, "acct", &[PATH], Num),
    compare(164, "settimeofday", &[reads(16), reads(8)], Num),
    compare(165, "mount", &[PATH, PATH, PATH, LongFlags, PATH], Num).note("its data is compared as a string"),
    compare(166, "umount2", &[PATH, Flags], Num),
    compare(167, "swapon", &[PATH, Flags], Num),
    compare(168, "swapoff", &[PATH], Num),
    compare(169, "reboot", &[Int32, Int32, Int32, Addr], Num),
    compare(170, "sethostname", &[reads_arg(1), Int32], Num),
    compare(171, "setdomainname", &[reads_arg(1), Int32], Num),
    compare(175, "init_module", &[reads_arg(1), Int, PATH], Num),
    compare(176, "delete_module", &[PATH, Flags], Num),
    compare(227, "clock_settime", &[Int32, reads(16)], Num),
    supply(300, "fanotify_init", &[Flags, Flags], NewFd),
    compare(301, "fanotify_mark", &[Fd, Flags, Int, Fd, PATH], Num),
    compare(305, "clock_adjtime", &[Int32, updates(208)], Num),
    supply(312, "kcmp", &[Int32, Int32, Int32, Int, Int], Num).but(Irregular::Kcmp),
    compare(313, "finit_module", &[Fd, PATH, Flags], Num),
    supply(444, "landlock_create_ruleset", &[reads_arg(1), Int, Flags], NewFd),
    compare(445, "landlock_add_rule", &[Fd, Int], Num).but(Irregular::LandlockRule),
    compare(448, "process_mrelease", &[Fd, Flags], Num),
    supply(457, "statmount", &[MOUNT, Mem(Out, ToldSize { cap: 2 }), Int, Flags], Num),
    supply(458, "listmount", &[MOUNT, Mem(Out, FromRet { cap: 2, scale: 8 }), Int, Flags], Size),
];

const _: () = check(ROWS);
