//! Numbers that Linux 6.18 has no call for any more, or never had on this architecture. Programs try some of them.

use super::model::Row;
use super::words::{check, gone};

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    gone(134, "uselib"),
    gone(156, "_sysctl"),
    gone(174, "create_module"),
    gone(177, "get_kernel_syms"),
    gone(178, "query_module"),
    gone(180, "nfsservctl"),
    gone(181, "getpmsg"),
    gone(182, "putpmsg"),
    gone(183, "afs_syscall"),
    gone(184, "tuxcall"),
    gone(185, "security"),
    gone(205, "set_thread_area"),
    gone(211, "get_thread_area"),
    gone(212, "lookup_dcookie"),
    gone(214, "epoll_ctl_old"),
    gone(215, "epoll_wait_old"),
    gone(236, "vserver"),
];

const _: () = check(ROWS);
