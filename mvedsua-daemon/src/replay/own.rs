//! The update's own calls: what a follower may do while it applies the new version (DESIGN 7).
//!
//! The leader makes none of these calls, so no record answers them. A new version loads its object and its libraries and
//! may read files; it may ask the kernel about itself, about files, and about the descriptors that it has inherited. All
//! else would have an effect, or would depend on what only the leader has: it is refused by name, and the update is undone.
//!
//! The follower has no descriptors. A file that it opens really gets the lowest number, which is one of the leader's; so it
//! is told a number that is [`FIRST`] higher, and calls with such numbers are made with the real one.

pub(super) use mvedsua_common::syscalls::Identity;
use mvedsua_common::syscalls::{self, Applying, Asks, Class, Irregular, Row, Treatment, row_of};

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

const NO_EFFECTS: &str = "while the new version is applied it may read files and ask, and nothing else";

/// Decides about a call.
pub(super) fn decide(nr: u32, args: &[u64; 6], treatment: &Treatment) -> Own {
    let Some(row) = row_of(nr, args) else { return Own::Refuse(NO_EFFECTS) };
    let first = args[0] as i32;
    match row.asks {
        Asks::Name(who) => return Own::Identity(who),
        Asks::World | Asks::Time => {}
    }
    if let Treatment::MmapFile(_) = treatment {
        return maps_file(args);
    }
    match row.irregular {
        Some(Irregular::Open { .. }) => return opens(row, args),
        Some(Irregular::Prlimit) if args[0] == 0 && args[2] == 0 => return Own::Real,
        Some(Irregular::EpollCtl) => {
            return match args[1] as i32 {
                libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD => Own::Registration,
                _ => Own::Refuse("it takes a descriptor out of an epoll set"),
            };
        }
        Some(Irregular::Clone | Irregular::Clone3 | Irregular::Fork) => {
            return Own::Refuse("the new version makes a thread or a process before it has come to the update point");
        }
        _ => {}
    }
    let asks_descriptor = args[3] & libc::AT_EMPTY_PATH as u64 != 0 && first != libc::AT_FDCWD;
    match (row.applying, i64::from(nr)) {
        (Applying::Made, _) => Own::Real,
        (Applying::OnOwn, _) | (_, libc::SYS_ioctl) if first >= FIRST => Own::OnFile(0),
        (Applying::OnAny, _) => by_descriptor(first),
        (Applying::Below, libc::SYS_newfstatat) if asks_descriptor => by_descriptor(first),
        (Applying::Below, _) => match first {
            libc::AT_FDCWD => Own::Real,
            FIRST.. => Own::OnFile(0),
            _ => Own::Refuse("it names a file by a directory that the leader has open"),
        },
        (Applying::Refused | Applying::OnOwn, _) if row.ends() => Own::Refuse("the new version ends"),
        (Applying::Refused | Applying::OnOwn, _) => match treatment {
            Treatment::Row(row) if row.class == Class::Local => Own::Local,
            Treatment::Restart(_) => Own::Local,
            Treatment::Row(_)
            | Treatment::ThreadClone(_)
            | Treatment::GhostFork(_)
            | Treatment::Fork(_)
            | Treatment::Exec(_)
            | Treatment::Alike(_)
            | Treatment::Absent(_)
            | Treatment::MmapFile(_)
            | Treatment::Refuse(_) => Own::Refuse(NO_EFFECTS),
        },
    }
}

/// A call that opens a path: for reading, and not below a folder of the leader's.
fn opens(row: &Row, args: &[u64; 6]) -> Own {
    let (Some(flags), Some(path)) = (row.open_flags(args), row.path()) else { return Own::Refuse(NO_EFFECTS) };
    if !is_reading(flags) {
        return Own::Refuse("it opens a file for writing");
    }
    match (path, args[0] as i32) {
        (0, _) | (_, libc::AT_FDCWD | FIRST..) => Own::Open(usize::from(path)),
        _ => Own::Refuse("it opens a file below a directory that the leader has open"),
    }
}

/// A file is mapped: one that the version has opened itself, and not to change it.
fn maps_file(args: &[u64; 6]) -> Own {
    let shared = args[3] & libc::MAP_TYPE as u64 != libc::MAP_PRIVATE as u64;
    if shared && args[2] & libc::PROT_WRITE as u64 != 0 {
        Own::Refuse("it maps a file shared and writable")
    } else if args[4] as i32 >= FIRST {
        Own::OnFile(4)
    } else {
        Own::Refuse("it maps a file that the leader has open")
    }
}

fn is_reading(flags: u64) -> bool {
    flags & (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64 == libc::O_RDONLY as u64
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
