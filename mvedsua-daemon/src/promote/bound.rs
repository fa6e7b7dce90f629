//! What the kernel binds to a process through a descriptor: whom signals about it are for, and whose signals it tells.
//!
//! The descriptors move, but these bonds name the old version:
//!
//! - the owner of a descriptor (`F_SETOWN`, a lease) gets its signals: the twin becomes the owner;
//! - an epoll set that watches a `signalfd` waits for the signals of the process that put it in: the new version puts it in anew;
//! - who asked to be told of a message (`mq_notify`) is told once, by a signal with a value that nobody can read back: such a
//!   process is not promoted;
//! - a session that has a terminal loses it when its leader ends: such a process is not promoted either.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use super::pending::Twins;
use crate::ptrace::inject::Remote;
use crate::ptrace::memory::Memory;
use crate::ptrace::procfs;
use crate::ptrace::{Error, Pid, Result, Tid};

/// `MQUEUE_MAGIC`, `ipc/mqueue.c`.
const MQUEUE: i64 = 0x1980_0202;

/// `struct f_owner_ex`, `fcntl(2)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    kind: i32,
    pid: i32,
}

const F_OWNER_PID: i32 = 1;
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;

/// Refuses what cannot be bound anew.
pub(crate) fn check<'a>(pid: Pid, descriptors: impl Iterator<Item = (i32, BorrowedFd<'a>)>) -> Result<()> {
    if procfs::leads_terminal(pid)? {
        let what = "it leads a session that has a terminal, which the kernel would take away when it ends";
        return Err(Error::Unsupported(format!("{what}: process {pid} can be rehearsed, but not promoted")));
    }
    for (fd, copy) in descriptors {
        if told_of_messages(copy) == Some(pid.0) {
            let what =
                format!("it waits to be told of a message (mq_notify on descriptor {fd}), which cannot be moved");
            return Err(Error::Unsupported(format!("{what}: process {pid} can be rehearsed, but not promoted")));
        }
    }
    Ok(())
}

/// Returns who is to be told of the next message of a queue, if it is one.
fn told_of_messages(fd: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: plain data, for which zeroes are a value.
    let mut fs: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and the structure outlives the call.
    if unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut fs) } != 0 || fs.f_type != MQUEUE {
        return None;
    }
    let mut text = [0; 160];
    let file = std::fs::File::from(fd.try_clone_to_owned().ok()?);
    let len = file.read_at(&mut text, 0).ok()?;
    parse_queue(std::str::from_utf8(&text[..len]).ok()?)
}

/// Reads `QSIZE:… NOTIFY:… SIGNO:… NOTIFY_PID:…`, `mq_overview(7)`.
fn parse_queue(text: &str) -> Option<i32> {
    let pid = text.split_whitespace().find_map(|word| word.strip_prefix("NOTIFY_PID:"))?;
    pid.parse().ok().filter(|pid| *pid != 0)
}

/// Makes the new version's threads owners of what the old one's owned.
pub(crate) fn hand_over<'a>(descriptors: impl Iterator<Item = (i32, BorrowedFd<'a>)>, twins: &Twins) {
    for (fd, copy) in descriptors {
        let mut owner = Owner { kind: 0, pid: 0 };
        // SAFETY: the command writes a structure of this layout, which outlives the call.
        if unsafe { libc::fcntl(copy.as_raw_fd(), F_GETOWN_EX, &raw mut owner) } != 0 || owner.kind > F_OWNER_PID {
            continue;
        }
        let Some(twin) = twins.get(&Tid(owner.pid)) else { continue };
        owner.pid = twin.0;
        // SAFETY: as above; the command only reads.
        if unsafe { libc::fcntl(copy.as_raw_fd(), F_SETOWN_EX, &raw const owner) } != 0 {
            let error = std::io::Error::last_os_error();
            tracing::warn!(fd, %error, "the new version gets no signals about a descriptor that the old one owned");
        }
    }
}

/// Returns the registrations of the process's epoll sets that are about its signals.
pub(crate) fn signal_watches(pid: Pid) -> Result<Vec<(i32, procfs::EpollEntry)>> {
    let descriptors = procfs::descriptors(pid)?;
    let is = |fd: i32, name: &str| descriptors.iter().any(|d| d.fd == fd && d.target.as_os_str() == name);
    if !descriptors.iter().any(|d| d.target.as_os_str() == "anon_inode:[signalfd]") {
        return Ok(Vec::new());
    }
    let mut watches = Vec::new();
    for set in descriptors.iter().filter(|d| d.target.as_os_str() == "anon_inode:[eventpoll]") {
        let entries = procfs::epoll_entries(pid, set.fd)?;
        watches.extend(
            entries.into_iter().filter(|entry| is(entry.fd, "anon_inode:[signalfd]")).map(|entry| (set.fd, entry)),
        );
    }
    Ok(watches)
}

/// Puts what tells of signals into the epoll sets anew, in the name of the process that `remote` borrows a thread of.
/// `corrected` are the registrations that were given another value.
pub(crate) fn watch_anew(
    watches: &[(i32, procfs::EpollEntry)],
    corrected: &[(i32, i32, u32, u64)],
    remote: &mut Remote<'_>,
    memory: &Memory,
    scratch: u64,
) -> Result<()> {
    for (set, entry) in watches {
        let own = corrected.iter().find(|(epfd, fd, ..)| epfd == set && *fd == entry.fd).map(|(.., data)| *data);
        let mut event = entry.events.to_ne_bytes().to_vec();
        event.extend_from_slice(&own.unwrap_or(entry.data).to_ne_bytes());
        memory.write(scratch, &event)?;
        for operation in [libc::EPOLL_CTL_DEL, libc::EPOLL_CTL_ADD] {
            let args = [*set as u64, operation as u64, entry.fd as u64, scratch, 0, 0];
            remote.call("epoll_ctl", libc::SYS_epoll_ctl, args)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_of_messages() {
        assert_eq!(parse_queue("QSIZE:129     NOTIFY:2    SIGNO:0    NOTIFY_PID:8260\n"), Some(8260));
        assert_eq!(parse_queue("QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n"), None);
        assert_eq!(parse_queue("something else"), None);
    }
}
