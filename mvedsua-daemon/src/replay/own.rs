//! The update's own calls: what a follower may do while it applies the new version (DESIGN 7).
//!
//! The leader makes none of these calls, so no record answers them. A new version loads its object and its libraries and
//! may read files; it may ask the kernel about itself, about files, and about the descriptors that it has inherited. All
//! else would have an effect, or would depend on what only the leader has: it is refused by name, and the update is undone.
//!
//! The follower has no descriptors. A file that it opens really gets the lowest number, which is one of the leader's; so it
//! is told a number that is [`FIRST`] higher, and calls with such numbers are made with the real one.

use mvedsua_common::syscalls::{self, Class, Treatment};

/// What is added to the numbers of descriptors that the update opens itself.
pub(super) const FIRST: i32 = 1 << 24;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// It is the version's own business at any time.
    Local,
    /// It is made as it stands.
    Real,
    /// It is made with the real number of the update's own descriptor in this argument.
    OnFile(usize),
    /// It opens a file, for reading; the path is in this argument, and the one before it is a directory or `AT_FDCWD`.
    Open(usize),
    /// It asks the leader's object that has this descriptor.
    Query(i32),
    /// It changes what an epoll set says of a descriptor.
    Registration,
    Identity(Identity),
    Refuse(&'static str),
}

/// What a process is called; until it leads the follower has the leader's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    Process,
    Thread,
    Parent,
}

const NO_EFFECTS: &str = "while the new version is applied it may read files and ask, and nothing else";

/// Decides about a call.
pub(super) fn decide(nr: u32, args: &[u64; 6], treatment: &Treatment) -> Own {
    let first = args[0] as i32;
    match i64::from(nr) {
        libc::SYS_open if is_reading(args[1]) => Own::Open(0),
        libc::SYS_openat if is_reading(args[2]) => match first {
            libc::AT_FDCWD | FIRST.. => Own::Open(1),
            _ => Own::Refuse("it opens a file below a directory that the leader has open"),
        },
        libc::SYS_open | libc::SYS_openat => Own::Refuse("it opens a file for writing"),
        libc::SYS_mmap if is_file(treatment) => {
            let shared = args[3] & libc::MAP_TYPE as u64 != libc::MAP_PRIVATE as u64;
            if shared && args[2] & libc::PROT_WRITE as u64 != 0 {
                Own::Refuse("it maps a file shared and writable")
            } else if args[4] as i32 >= FIRST {
                Own::OnFile(4)
            } else {
                Own::Refuse("it maps a file that the leader has open")
            }
        }
        libc::SYS_read
        | libc::SYS_pread64
        | libc::SYS_readv
        | libc::SYS_preadv
        | libc::SYS_close
        | libc::SYS_getdents64
        | libc::SYS_fstatfs
        | libc::SYS_fadvise64
        | libc::SYS_readahead
            if first >= FIRST =>
        {
            Own::OnFile(0)
        }
        libc::SYS_fstat | libc::SYS_lseek | libc::SYS_getsockname | libc::SYS_getpeername | libc::SYS_getsockopt => {
            by_descriptor(first)
        }
        libc::SYS_ioctl if first >= FIRST => Own::OnFile(0),
        libc::SYS_fcntl if [libc::F_GETFD, libc::F_GETFL].contains(&(args[1] as i32)) => by_descriptor(first),
        libc::SYS_fcntl if first >= FIRST && args[1] as i32 == libc::F_SETFD => Own::OnFile(0),
        libc::SYS_newfstatat if args[3] & libc::AT_EMPTY_PATH as u64 != 0 && first != libc::AT_FDCWD => {
            by_descriptor(first)
        }
        libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_faccessat | libc::SYS_faccessat2 | libc::SYS_readlinkat => {
            match first {
                libc::AT_FDCWD => Own::Real,
                FIRST.. => Own::OnFile(0),
                _ => Own::Refuse("it names a file by a directory that the leader has open"),
            }
        }
        libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_access
        | libc::SYS_readlink
        | libc::SYS_getcwd
        | libc::SYS_statfs
        | libc::SYS_uname
        | libc::SYS_sysinfo
        | libc::SYS_getrlimit
        | libc::SYS_getrusage
        | libc::SYS_times
        | libc::SYS_clock_gettime
        | libc::SYS_clock_getres
        | libc::SYS_gettimeofday
        | libc::SYS_time
        | libc::SYS_getcpu
        | libc::SYS_getrandom
        | libc::SYS_sched_getaffinity
        | libc::SYS_nanosleep
        | libc::SYS_clock_nanosleep
        | libc::SYS_getuid
        | libc::SYS_geteuid
        | libc::SYS_getgid
        | libc::SYS_getegid
        | libc::SYS_getgroups
        | libc::SYS_getresuid
        | libc::SYS_getresgid
        | libc::SYS_getpgrp
        | libc::SYS_getpriority => Own::Real,
        libc::SYS_prlimit64 if args[0] == 0 && args[2] == 0 => Own::Real,
        libc::SYS_getpid => Own::Identity(Identity::Process),
        libc::SYS_gettid => Own::Identity(Identity::Thread),
        libc::SYS_getppid => Own::Identity(Identity::Parent),
        libc::SYS_epoll_ctl => match args[1] as i32 {
            libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD => Own::Registration,
            _ => Own::Refuse("it takes a descriptor out of an epoll set"),
        },
        libc::SYS_clone | libc::SYS_clone3 | libc::SYS_fork | libc::SYS_vfork => {
            Own::Refuse("the new version makes a thread or a process before it has come to the update point")
        }
        libc::SYS_exit | libc::SYS_exit_group => Own::Refuse("the new version ends"),
        _ => match treatment {
            Treatment::Row(row) if row.class == Class::Local => Own::Local,
            Treatment::Restart(_) => Own::Local,
            _ => Own::Refuse(NO_EFFECTS),
        },
    }
}

fn is_reading(flags: u64) -> bool {
    flags & (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64 == libc::O_RDONLY as u64
}

fn is_file(treatment: &Treatment) -> bool {
    matches!(treatment, Treatment::MmapFile(_))
}

fn by_descriptor(fd: i32) -> Own {
    if fd >= FIRST { Own::OnFile(0) } else { Own::Query(fd) }
}

/// Says whether a call that blocks may be answered with `EINTR`, as by a signal that comes.
pub(super) fn is_interruptible(nr: u32) -> bool {
    syscalls::row(nr).is_some_and(|row| row.wait.takes_in())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoMemory;

    impl syscalls::regions::Memory for NoMemory {
        fn read(&self, _addr: u64, _buf: &mut [u8]) -> usize {
            0
        }
    }

    fn decide_on(nr: i64, args: [u64; 6]) -> Own {
        decide(nr as u32, &args, &syscalls::treatment(nr as u32, &args, &NoMemory))
    }

    #[test]
    fn files_may_be_read_and_nothing_may_be_written() {
        let cwd = libc::AT_FDCWD as u64;
        let file = FIRST as u64 + 3;
        let reading = (libc::O_RDONLY | libc::O_CLOEXEC) as u64;
        assert_eq!(decide_on(libc::SYS_openat, [cwd, 0, reading, 0, 0, 0]), Own::Open(1));
        assert_eq!(decide_on(libc::SYS_read, [file, 0, 0, 0, 0, 0]), Own::OnFile(0));
        assert_eq!(decide_on(libc::SYS_fstat, [file, 0, 0, 0, 0, 0]), Own::OnFile(0));
        assert_eq!(decide_on(libc::SYS_fstat, [3, 0, 0, 0, 0, 0]), Own::Query(3));
        assert_eq!(decide_on(libc::SYS_mprotect, [0; 6]), Own::Local);
        let mapping = |fd: u64| decide_on(libc::SYS_mmap, [0, 4096, 5, libc::MAP_PRIVATE as u64, fd, 0]);
        assert_eq!(mapping(file), Own::OnFile(4));
        let refused = |own: Own| matches!(own, Own::Refuse(_));
        for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC] {
            assert!(refused(decide_on(libc::SYS_openat, [cwd, 0, flags as u64, 0, 0, 0])), "{flags}");
        }
        assert!(refused(mapping(3)));
        for (nr, args) in [
            (libc::SYS_write, [file, 0, 0, 0, 0, 0]),
            (libc::SYS_read, [0; 6]),
            (libc::SYS_socket, [2, 1, 0, 0, 0, 0]),
            (libc::SYS_clone, [0; 6]),
            (libc::SYS_exit_group, [0; 6]),
            (libc::SYS_kill, [1, 9, 0, 0, 0, 0]),
            (libc::SYS_unlink, [0; 6]),
            (libc::SYS_epoll_ctl, [3, libc::EPOLL_CTL_DEL as u64, 4, 0, 0, 0]),
        ] {
            assert!(refused(decide_on(nr, args)), "{nr}");
        }
    }
}
