//! Calls that are known and not supported, each with the reason that the operator reads.

use super::columns::Wait;
use super::model::Row;
use super::words::{check, refuse};

const SHARED: &str = "memory shared with other processes changes without a system call";
const ASYNC: &str = "the kernel reads and writes the program's memory on its own";
const DEBUG: &str = "it acts on another process or its memory";
const SELF: &str = "the program replaces itself, and the follower with it";
const CONFINE: &str = "it changes what later calls may do or see";
const MOUNTS: &str = "mounts are prepared in descriptors, and change what paths mean for both versions";
const KEYS: &str = "the keys of a process are its own, and the follower has none";
const PROBE: &str = "the kernel's own, where a probe (uprobe) is set in the program: take the probe away first";
const SECURITY: &str = "what a security module keeps for a process is not carried over to the follower";
const KERNEL: &str = "it replaces the running kernel";

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    refuse(29, "shmget", SHARED),
    refuse(30, "shmat", SHARED),
    refuse(31, "shmctl", SHARED),
    refuse(59, "execve", SELF),
    refuse(67, "shmdt", SHARED),
    refuse(101, "ptrace", DEBUG),
    refuse(139, "sysfs", "it writes a name of a length that it does not tell; /proc/filesystems has the same"),
    refuse(154, "modify_ldt", "segments of its own are not copied into the follower"),
    refuse(155, "pivot_root", MOUNTS),
    refuse(172, "iopl", "it reaches hardware without system calls"),
    refuse(173, "ioperm", "it reaches hardware without system calls"),
    refuse(179, "quotactl", "how much memory it reads and writes depends on the file system"),
    refuse(206, "io_setup", ASYNC),
    refuse(207, "io_destroy", ASYNC),
    refuse(208, "io_getevents", ASYNC).waits(Wait::Ready),
    refuse(209, "io_submit", ASYNC),
    refuse(210, "io_cancel", ASYNC),
    refuse(216, "remap_file_pages", SHARED),
    refuse(246, "kexec_load", KERNEL),
    refuse(248, "add_key", KEYS),
    refuse(249, "request_key", KEYS),
    refuse(250, "keyctl", KEYS),
    refuse(272, "unshare", CONFINE),
    refuse(278, "vmsplice", "it gives the program's pages to a pipe, where later writes still show").waits(Wait::Others),
    refuse(298, "perf_event_open", ASYNC),
    refuse(308, "setns", CONFINE),
    refuse(310, "process_vm_readv", DEBUG),
    refuse(311, "process_vm_writev", DEBUG),
    refuse(317, "seccomp", CONFINE),
    refuse(320, "kexec_file_load", KERNEL),
    refuse(321, "bpf", ASYNC),
    refuse(322, "execveat", SELF),
    refuse(323, "userfaultfd", "page faults are not recorded"),
    refuse(333, "io_pgetevents", ASYNC).waits(Wait::Ready),
    refuse(335, "uretprobe", PROBE),
    refuse(336, "uprobe", PROBE),
    refuse(425, "io_uring_setup", ASYNC),
    refuse(426, "io_uring_enter", ASYNC),
    refuse(427, "io_uring_register", ASYNC),
    refuse(428, "open_tree", MOUNTS),
    refuse(429, "move_mount", MOUNTS),
    refuse(430, "fsopen", MOUNTS),
    refuse(431, "fsconfig", MOUNTS),
    refuse(432, "fsmount", MOUNTS),
    refuse(433, "fspick", MOUNTS),
    refuse(438, "pidfd_getfd", DEBUG),
    refuse(440, "process_madvise", DEBUG),
    refuse(442, "mount_setattr", MOUNTS),
    refuse(443, "quotactl_fd", "how much memory it reads and writes depends on the file system"),
    refuse(446, "landlock_restrict_self", CONFINE),
    refuse(447, "memfd_secret", "memory that nobody else can read can be neither recorded nor compared"),
    refuse(453, "map_shadow_stack", "shadow stacks are not copied into the follower"),
    refuse(459, "lsm_get_self_attr", SECURITY),
    refuse(460, "lsm_set_self_attr", SECURITY),
    refuse(461, "lsm_list_modules", SECURITY),
    refuse(467, "open_tree_attr", MOUNTS),
];

const _: () = check(ROWS);
