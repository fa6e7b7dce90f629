//! `prctl(2)` by option: attributes of the calling process or thread, which each version has of its own, but for what a fork does
//! not pass on: that is the service's.

use super::Variant;
use crate::syscalls::model::Arg;
use crate::syscalls::model::Arg::{Addr, Int, Int32};
use crate::syscalls::model::Outcome::Int as Num;
use crate::syscalls::words::{check_row, compare, local, refuse, supply, writes};

const fn own(value: u64, name: &'static str) -> Variant {
    Variant { value, row: local(157, name, &[Int, Addr, Addr, Addr, Addr], Num) }
}

const fn service(value: u64, name: &'static str) -> Variant {
    Variant { value, row: compare(157, name, &[Int32, Int], Num) }
}

const fn told(value: u64, name: &'static str) -> Variant {
    const ARGS: &[Arg] = &[Int32, writes(4)];
    Variant { value, row: supply(157, name, ARGS, Num) }
}

const fn refused(value: u64, name: &'static str, reason: &'static str) -> Variant {
    Variant { value, row: refuse(157, name, reason) }
}

/// Sorted by option, `include/uapi/linux/prctl.h`.
#[rustfmt::skip]
pub(super) const VARIANTS: &[Variant] = &[
    service(1, "prctl/PR_SET_PDEATHSIG"),
    told(2, "prctl/PR_GET_PDEATHSIG"),
    own(3, "prctl/PR_GET_DUMPABLE"),
    own(4, "prctl/PR_SET_DUMPABLE"),
    own(7, "prctl/PR_GET_KEEPCAPS"),
    own(8, "prctl/PR_SET_KEEPCAPS"),
    own(13, "prctl/PR_GET_TIMING"),
    own(14, "prctl/PR_SET_TIMING"),
    own(15, "prctl/PR_SET_NAME"),
    own(16, "prctl/PR_GET_NAME"),
    own(21, "prctl/PR_GET_SECCOMP"),
    refused(22, "prctl/PR_SET_SECCOMP", "a filter that is set while two versions run is not followed"),
    own(23, "prctl/PR_CAPBSET_READ"),
    own(24, "prctl/PR_CAPBSET_DROP"),
    refused(26, "prctl/PR_SET_TSC", "the clock of the processor is trapped by the update itself"),
    own(27, "prctl/PR_GET_SECUREBITS"),
    own(28, "prctl/PR_SET_SECUREBITS"),
    own(29, "prctl/PR_SET_TIMERSLACK"),
    own(30, "prctl/PR_GET_TIMERSLACK"),
    own(31, "prctl/PR_TASK_PERF_EVENTS_DISABLE"),
    own(32, "prctl/PR_TASK_PERF_EVENTS_ENABLE"),
    own(33, "prctl/PR_MCE_KILL"),
    own(34, "prctl/PR_MCE_KILL_GET"),
    refused(35, "prctl/PR_SET_MM", "it changes what the kernel tells about the address space"),
    service(36, "prctl/PR_SET_CHILD_SUBREAPER"),
    told(37, "prctl/PR_GET_CHILD_SUBREAPER"),
    own(38, "prctl/PR_SET_NO_NEW_PRIVS"),
    own(39, "prctl/PR_GET_NO_NEW_PRIVS"),
    own(40, "prctl/PR_GET_TID_ADDRESS"),
    own(41, "prctl/PR_SET_THP_DISABLE"),
    own(42, "prctl/PR_GET_THP_DISABLE"),
    own(47, "prctl/PR_CAP_AMBIENT"),
    own(52, "prctl/PR_GET_SPECULATION_CTRL"),
    own(53, "prctl/PR_SET_SPECULATION_CTRL"),
    own(57, "prctl/PR_SET_IO_FLUSHER"),
    own(58, "prctl/PR_GET_IO_FLUSHER"),
    refused(59, "prctl/PR_SET_SYSCALL_USER_DISPATCH", "its calls are turned into signals"),
    refused(62, "prctl/PR_SCHED_CORE", "the group of threads that share a core is not carried over to the follower"),
    own(65, "prctl/PR_SET_MDWE"),
    own(66, "prctl/PR_GET_MDWE"),
    own(67, "prctl/PR_SET_MEMORY_MERGE"),
    own(68, "prctl/PR_GET_MEMORY_MERGE"),
    own(74, "prctl/PR_GET_SHADOW_STACK_STATUS"),
    refused(75, "prctl/PR_SET_SHADOW_STACK_STATUS", "shadow stacks are not copied into the follower"),
    refused(77, "prctl/PR_TIMER_CREATE_RESTORE_IDS", "the update itself chooses the ids of timers with it"),
    own(78, "prctl/PR_FUTEX_HASH"),
    own(0x4155_5856, "prctl/PR_GET_AUXV"),
    own(0x5356_4d41, "prctl/PR_SET_VMA"),
    own(0x5961_6d61, "prctl/PR_SET_PTRACER"),
];

const _: () = {
    let mut i = 0;
    while i < VARIANTS.len() {
        assert!(i == 0 || VARIANTS[i - 1].value < VARIANTS[i].value, "options are sorted, without doubles");
        check_row(&VARIANTS[i].row);
        i += 1;
    }
};
