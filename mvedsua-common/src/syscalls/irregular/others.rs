//! The exceptions that depend on flags, on "myself", or on numbers in memory.

use super::Treatment;
use super::Variant;
use crate::syscalls::model::Arg::{Addr, Fd, Flags, Int, Int32, LongFlags, Mem};
use crate::syscalls::model::Dir::InOut;
use crate::syscalls::model::Extent::CloneArgs;
use crate::syscalls::model::Outcome::{Addr as Place, Fd as NewFd, Int as Num, Pid};
use crate::syscalls::model::Row;
use crate::syscalls::words::{PATH, both, check_row, compare, local, reads, supply, writes};

const fn arch(value: u64, name: &'static str) -> Variant {
    Variant { value, row: local(158, name, &[Int, Addr], Num) }
}

/// `arch_prctl(2)`, sorted by code.
pub(super) const ARCH_PRCTL: &[Variant] = &[
    arch(0x1001, "arch_prctl/ARCH_SET_GS"),
    arch(0x1002, "arch_prctl/ARCH_SET_FS"),
    arch(0x1003, "arch_prctl/ARCH_GET_FS"),
    arch(0x1004, "arch_prctl/ARCH_GET_GS"),
    arch(0x1011, "arch_prctl/ARCH_GET_CPUID"),
    arch(0x1021, "arch_prctl/ARCH_GET_XCOMP_SUPP"),
    arch(0x1022, "arch_prctl/ARCH_GET_XCOMP_PERM"),
    arch(0x1023, "arch_prctl/ARCH_REQ_XCOMP_PERM"),
];

/// `open` and `openat` when they may create or empty the file: then others see it.
static OPEN_CREATE: Row = compare(2, "open/CREATE", &[PATH, Flags, Int32], NewFd);
static OPENAT_CREATE: Row = compare(257, "openat/CREATE", &[Fd, PATH, Flags, Int32], NewFd);
/// When they do not, the mode is not used and its register holds anything.
static OPEN_PLAIN: Row = supply(2, "open/PLAIN", &[PATH, Flags, Addr], NewFd);
static OPENAT_PLAIN: Row = supply(257, "openat/PLAIN", &[Fd, PATH, Flags, Addr], NewFd);

/// A thread; the kernel writes its id to `parent_tid` when the flags say so.
static CLONE_THREAD: Row = both(56, "clone/THREAD", &[LongFlags, Addr, Addr, Addr, Addr], Pid);
static CLONE_THREAD_SETTID: Row = both(56, "clone/THREAD_SETTID", &[LongFlags, Addr, writes(4), Addr, Addr], Pid);
/// A process; the kernel writes its id, or its pidfd, to `parent_tid` when the flags say so.
static CLONE_FORK: Row = compare(56, "clone/FORK", &[LongFlags, Addr, Addr, Addr, Addr], Pid);
static CLONE_FORK_SETTID: Row = compare(56, "clone/FORK_SETTID", &[LongFlags, Addr, writes(4), Addr, Addr], Pid);
static CLONE3_THREAD: Row = both(435, "clone3/THREAD", &[Mem(InOut, CloneArgs), Int], Pid);
static CLONE3_FORK: Row = compare(435, "clone3/FORK", &[Mem(InOut, CloneArgs), Int], Pid);

/// A file in memory: its own address in each version.
static MMAP_FILE: Row = both(9, "mmap/FILE", &[Addr, Int, LongFlags, LongFlags, Fd, Int], Place);

/// `TIMER_ABSTIME`: the remaining time is not written.
static CLOCK_NANOSLEEP_ABS: Row = supply(230, "clock_nanosleep/ABSTIME", &[Int32, Flags, reads(16), Addr], Num);

/// For the caller itself, named by 0: an attribute of each version.
static SETPRIORITY_SELF: Row = local(141, "setpriority/SELF", &[Int, Int, Int], Num);
static SCHED_SETPARAM_SELF: Row = local(142, "sched_setparam/SELF", &[Int, Addr], Num);
static SCHED_SETSCHEDULER_SELF: Row = local(144, "sched_setscheduler/SELF", &[Int, Int, Addr], Num);
static SCHED_SETAFFINITY_SELF: Row = local(203, "sched_setaffinity/SELF", &[Int, Int, Addr], Num);
static IOPRIO_SET_SELF: Row = local(251, "ioprio_set/SELF", &[Int, Int, Int], Num);
static MIGRATE_PAGES_SELF: Row = local(256, "migrate_pages/SELF", &[Int, Int, Addr, Addr], Num);
static GET_ROBUST_LIST_SELF: Row = local(274, "get_robust_list/SELF", &[Int, Addr, Addr], Num);
static MOVE_PAGES_SELF: Row = local(279, "move_pages/SELF", &[Int, Int, Addr, Addr, Addr, Flags], Num);
static SCHED_SETATTR_SELF: Row = local(314, "sched_setattr/SELF", &[Int, Addr, Flags], Num);
static PRLIMIT_SET: Row = local(302, "prlimit64/SET", &[Int, Int, Addr, Addr], Num);

/// `KCMP_EPOLL_TFD` keeps its second half in memory.
static KCMP_EPOLL: Row = supply(312, "kcmp/EPOLL_TFD", &[Int32, Int32, Int32, Int, reads(12)], Num);

/// `landlock_add_rule(2)`, sorted by the kind of rule.
pub(super) const LANDLOCK_RULES: &[Variant] = &[
    Variant { value: 1, row: compare(445, "landlock_add_rule/PATH_BENEATH", &[Fd, Int, reads(12), Flags], Num) },
    Variant { value: 2, row: compare(445, "landlock_add_rule/NET_PORT", &[Fd, Int, reads(16), Flags], Num) },
];

pub(super) static ROWS: [&Row; 23] = [
    &OPEN_CREATE,
    &OPENAT_CREATE,
    &OPEN_PLAIN,
    &OPENAT_PLAIN,
    &CLONE_THREAD,
    &CLONE_THREAD_SETTID,
    &CLONE_FORK,
    &CLONE_FORK_SETTID,
    &CLONE3_THREAD,
    &CLONE3_FORK,
    &MMAP_FILE,
    &CLOCK_NANOSLEEP_ABS,
    &SETPRIORITY_SELF,
    &SCHED_SETPARAM_SELF,
    &SCHED_SETSCHEDULER_SELF,
    &SCHED_SETAFFINITY_SELF,
    &IOPRIO_SET_SELF,
    &MIGRATE_PAGES_SELF,
    &GET_ROBUST_LIST_SELF,
    &MOVE_PAGES_SELF,
    &SCHED_SETATTR_SELF,
    &KCMP_EPOLL,
    &PRLIMIT_SET,
];

const _: () = {
    let mut i = 0;
    while i < ROWS.len() {
        check_row(ROWS[i]);
        i += 1;
    }
    let mut i = 0;
    while i < ARCH_PRCTL.len() {
        assert!(i == 0 || ARCH_PRCTL[i - 1].value < ARCH_PRCTL[i].value, "codes are sorted, without doubles");
        check_row(&ARCH_PRCTL[i].row);
        i += 1;
    }
    check_row(&LANDLOCK_RULES[0].row);
    check_row(&LANDLOCK_RULES[1].row);
};

const O_CREAT: u64 = 0o100;
const O_TRUNC: u64 = 0o1000;
const O_TMPFILE: u64 = 0o20_000_000;

pub(super) fn open(row: &'static Row, flags: u64) -> Treatment {
    let changes = flags & (O_CREAT | O_TRUNC | O_TMPFILE) != 0;
    Treatment::Row(match (row.nr, changes) {
        (2, true) => &OPEN_CREATE,
        (2, false) => &OPEN_PLAIN,
        (_, true) => &OPENAT_CREATE,
        (_, false) => &OPENAT_PLAIN,
    })
}

const CLONE_VM: u64 = 0x100;
const CLONE_FILES: u64 = 0x400;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_THREAD_FLAG: u64 = 0x10000;
const CLONE_PARENT_SETTID: u64 = 0x10_0000;

/// What the flags ask for; the reason where that is not supported.
fn birth(flags: u64) -> Result<Birth, &'static str> {
    if flags & CLONE_THREAD_FLAG != 0 {
        if flags & CLONE_FILES == 0 {
            return Err("a thread with a descriptor table of its own");
        }
        return Ok(Birth::Thread);
    }
    if flags & CLONE_FILES != 0 {
        return Err("a process that shares the descriptor table");
    }
    // A child of vfork borrows the memory until it executes another program; any other would change it unseen.
    if flags & (CLONE_VM | CLONE_VFORK) == CLONE_VM {
        return Err("a process that shares the memory");
    }
    Ok(Birth::Process)
}

enum Birth {
    Thread,
    Process,
}

pub(super) fn clone(flags: u64) -> Treatment {
    let settid = flags & (CLONE_PARENT_SETTID | CLONE_PIDFD) != 0;
    match (birth(flags), settid) {
        (Ok(Birth::Thread), false) => Treatment::ThreadClone(&CLONE_THREAD),
        (Ok(Birth::Thread), true) => Treatment::ThreadClone(&CLONE_THREAD_SETTID),
        (Ok(Birth::Process), false) => Treatment::GhostFork(&CLONE_FORK),
        (Ok(Birth::Process), true) => Treatment::GhostFork(&CLONE_FORK_SETTID),
        (Err(reason), _) => Treatment::Refuse(reason),
    }
}

/// The flags are the first field of `struct clone_args`.
pub(super) fn clone3(flags: Option<u64>) -> Treatment {
    match flags.map(birth) {
        Some(Ok(Birth::Thread)) => Treatment::ThreadClone(&CLONE3_THREAD),
        Some(Ok(Birth::Process)) => Treatment::GhostFork(&CLONE3_FORK),
        Some(Err(reason)) => Treatment::Refuse(reason),
        // Unreadable arguments: the call fails with EFAULT, in both versions alike.
        None => Treatment::GhostFork(&CLONE3_FORK),
    }
}

/// Futexes are local: locks are taken in each version for itself. Those with priority inheritance keep a real thread id in
/// the lock's word, where the follower has the leader's.
pub(super) fn futex(row: &'static Row, args: &[u64; 6]) -> Treatment {
    const PRIORITY_INHERITING: [u64; 6] = [6, 7, 8, 11, 12, 13];
    if PRIORITY_INHERITING.contains(&(args[1] & 0x7f)) {
        return Treatment::Refuse("locks with priority inheritance keep real thread ids in memory");
    }
    Treatment::Row(row)
}

pub(super) fn mmap(row: &'static Row, args: &[u64; 6]) -> Treatment {
    const PROT_WRITE: u64 = 2;
    const MAP_TYPE: u64 = 0xf;
    const MAP_PRIVATE: u64 = 2;
    const MAP_ANONYMOUS: u64 = 0x20;
    let shared = args[3] & MAP_TYPE != MAP_PRIVATE;
    match (args[3] & MAP_ANONYMOUS != 0, shared) {
        (true, false) => Treatment::Row(row),
        (true, true) => Treatment::Refuse("memory that is shared with future children cannot be followed"),
        (false, true) if args[2] & PROT_WRITE != 0 => {
            Treatment::Refuse("a file mapped shared and writable changes without a system call")
        }
        (false, _) => Treatment::MmapFile(&MMAP_FILE),
    }
}

/// Options that carry a pointer in their value cannot be compared or supplied as bytes.
pub(super) fn sockopt(row: &'static Row, args: &[u64; 6]) -> Treatment {
    const SOL_SOCKET: u64 = 1;
    const SOL_TCP: u64 = 6;
    const SO_ATTACH_FILTER: u64 = 26;
    const SO_ATTACH_REUSEPORT_CBPF: u64 = 51;
    const TCP_ZEROCOPY_RECEIVE: u64 = 35;
    match (args[1] & 0xffff_ffff, args[2] & 0xffff_ffff) {
        (SOL_SOCKET, SO_ATTACH_FILTER | SO_ATTACH_REUSEPORT_CBPF) => {
            Treatment::Refuse("the socket option's value points to a program")
        }
        (SOL_TCP, TCP_ZEROCOPY_RECEIVE) => Treatment::Refuse("the socket option maps memory"),
        _ => Treatment::Row(row),
    }
}

pub(super) fn clock_nanosleep(row: &'static Row, args: &[u64; 6]) -> Treatment {
    const TIMER_ABSTIME: u64 = 1;
    Treatment::Row(if args[1] & TIMER_ABSTIME != 0 { &CLOCK_NANOSLEEP_ABS } else { row })
}

/// A version that names itself by 0 sets its own attribute; named by its id it would be the leader's, which the follower
/// must not touch.
pub(super) fn myself(row: &'static Row, who: u64) -> Treatment {
    if who as u32 != 0 {
        return super::of(row);
    }
    Treatment::Row(match row.nr {
        142 => &SCHED_SETPARAM_SELF,
        144 => &SCHED_SETSCHEDULER_SELF,
        256 => &MIGRATE_PAGES_SELF,
        274 => &GET_ROBUST_LIST_SELF,
        279 => &MOVE_PAGES_SELF,
        314 => &SCHED_SETATTR_SELF,
        _ => &SCHED_SETAFFINITY_SELF,
    })
}

/// `setpriority` and `ioprio_set`: the first argument says whether a thread, a group or a user is meant, and 0 stands for
/// the caller's. Only its own thread is the version's own business.
pub(super) fn priority(row: &'static Row, args: &[u64; 6]) -> Treatment {
    const PRIO_PROCESS: u32 = 0;
    const IOPRIO_WHO_PROCESS: u32 = 1;
    Treatment::Row(match (row.nr, args[0] as u32, args[1] as u32) {
        (141, PRIO_PROCESS, 0) => &SETPRIORITY_SELF,
        (251, IOPRIO_WHO_PROCESS, 0) => &IOPRIO_SET_SELF,
        _ => row,
    })
}

pub(super) fn kcmp(row: &'static Row, kind: u64) -> Treatment {
    const KCMP_EPOLL_TFD: u32 = 7;
    Treatment::Row(if kind as u32 == KCMP_EPOLL_TFD { &KCMP_EPOLL } else { row })
}

pub(super) fn prlimit(row: &'static Row, args: &[u64; 6]) -> Treatment {
    match (args[2] != 0, args[0] as u32 == 0) {
        (false, _) => Treatment::Row(row),
        (true, true) => Treatment::Row(&PRLIMIT_SET),
        (true, false) => Treatment::Refuse("a limit of a process named by its id; the follower's id is another"),
    }
}

/// `header` is the first eight bytes of `struct __user_cap_header_struct`: version and pid.
pub(super) fn capabilities(row: &'static Row, header: Option<u64>) -> Treatment {
    const VERSION_1: u32 = 0x1998_0330;
    const CAPSET: u32 = 126;
    match header {
        Some(header) if header as u32 == VERSION_1 => {
            Treatment::Refuse("capabilities of 32 bits, deprecated since 2008")
        }
        Some(header) if row.nr == CAPSET && header >> 32 != 0 => {
            Treatment::Refuse("capabilities of a process named by its id")
        }
        _ => Treatment::Row(row),
    }
}

/// The most messages of one `sendmmsg` or `recvmmsg`: with 1,024 iovecs each, their pieces can still be numbered.
pub const MAX_MESSAGES: u64 = 63;

pub(super) fn mmsg(row: &'static Row, count: u64) -> Treatment {
    // The kernel takes an unsigned int.
    if count & 0xffff_ffff > MAX_MESSAGES {
        return Treatment::Refuse("more than 63 messages in one call");
    }
    Treatment::Row(row)
}

pub(super) fn poll(row: &'static Row, count: u64) -> Treatment {
    if count & 0xffff_ffff > u64::from(u16::MAX) {
        return Treatment::Refuse("more than 65,535 descriptors in one call");
    }
    Treatment::Row(row)
}
