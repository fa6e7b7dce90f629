//! Calls that are known and not supported, each with the reason that the operator reads.

use super::model::Row;
use super::words::{check, refuse};

const SHARED: &str = "memory shared with other processes changes without a system call";
const ASYNC: &str = "the kernel reads and writes the program's memory on its own";
const DEBUG: &str = "it acts on another process or its memory";
const SELF: &str = "the program replaces itself, and the follower with it";
const CONFINE: &str = "it changes what later calls may do or see";

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    refuse(29, "shmget", SHARED),
    refuse(30, "shmat", SHARED),
    refuse(31, "shmctl", SHARED),
    refuse(59, "execve", SELF),
    refuse(67, "shmdt", SHARED),
    refuse(101, "ptrace", DEBUG),
    refuse(154, "modify_ldt", "segments of its own are not copied into the follower"),
    refuse(172, "iopl", "it reaches hardware without system calls"),
    refuse(173, "ioperm", "it reaches hardware without system calls"),
    refuse(206, "io_setup", ASYNC),
    refuse(207, "io_destroy", ASYNC),
    refuse(208, "io_getevents", ASYNC),
    refuse(209, "io_submit", ASYNC),
    refuse(210, "io_cancel", ASYNC),
    refuse(216, "remap_file_pages", SHARED),
    refuse(272, "unshare", CONFINE),
    refuse(278, "vmsplice", "it gives the program's pages to a pipe, where later writes still show"),
    refuse(298, "perf_event_open", ASYNC),
    refuse(308, "setns", CONFINE),
    refuse(310, "process_vm_readv", DEBUG),
    refuse(311, "process_vm_writev", DEBUG),
    refuse(317, "seccomp", CONFINE),
    refuse(321, "bpf", ASYNC),
    refuse(322, "execveat", SELF),
    refuse(323, "userfaultfd", "page faults are not recorded"),
    refuse(333, "io_pgetevents", ASYNC),
    refuse(425, "io_uring_setup", ASYNC),
    refuse(426, "io_uring_enter", ASYNC),
    refuse(427, "io_uring_register", ASYNC),
    refuse(438, "pidfd_getfd", DEBUG),
    refuse(440, "process_madvise", DEBUG),
    refuse(447, "memfd_secret", "memory that nobody else can read can be neither recorded nor compared"),
    refuse(453, "map_shadow_stack", "shadow stacks are not copied into the follower"),
];

const _: () = check(ROWS);
