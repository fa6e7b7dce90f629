//! Giving a process one descriptor more: a file that is to be mapped in it, or named to the kernel.
//!
//! The daemon sends it over a socket (`SCM_RIGHTS`) whose other end the process itself receives from, by calls that are executed
//! in it. Its numbers are above all that the program has, and are the program's no longer than until they are closed.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::process::{Pid as RustixPid, PidfdFlags, PidfdGetfdFlags};

use crate::ptrace::inject::Remote;
use crate::ptrace::memory::Memory;
use crate::ptrace::procfs;
use crate::ptrace::{Error, Pid, Result};

fn os(op: &'static str, pid: Pid, source: io::Error) -> Error {
    Error::Request { op, tid: pid.main(), source }
}

fn pidfd(pid: Pid) -> Result<OwnedFd> {
    let Some(raw) = RustixPid::from_raw(pid.0) else {
        return Err(os("pidfd_open", pid, io::Error::from_raw_os_error(libc::ESRCH)));
    };
    rustix::process::pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| os("pidfd_open", pid, errno.into()))
}

fn take(from: &OwnedFd, pid: Pid, fd: RawFd) -> Result<OwnedFd> {
    rustix::process::pidfd_getfd(from, fd, PidfdGetfdFlags::empty())
        .map_err(|errno| os("pidfd_getfd", pid, errno.into()))
}

/// Gives a descriptor to the process that `remote` borrows a thread of, and returns its number there, which is above all others.
/// It is closed when the program executes another one.
pub(super) fn give(
    fd: BorrowedFd<'_>,
    receiver: Pid,
    remote: &mut Remote<'_>,
    memory: &Memory,
    scratch: u64,
) -> Result<u64> {
    let above = procfs::descriptors(receiver)?.last().map_or(0, |descriptor| descriptor.fd as u64 + 1);
    let limit = Limit::raise(receiver, above + 16, remote, memory, scratch)?;
    let pair = (libc::AF_UNIX as u64, (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as u64);
    remote.call("socketpair", libc::SYS_socketpair, [pair.0, pair.1, 0, scratch, 0, 0])?;
    let ends = [u64::from(memory.read_u32(scratch)?), u64::from(memory.read_u32(scratch + 4)?)];
    let socket = take(&pidfd(receiver)?, receiver, ends[1] as RawFd)?;
    send(&socket, fd).map_err(|error| os("sendmsg", receiver, error))?;
    let got = receive(ends[0], remote, memory, scratch)?;
    let high = remote.call("fcntl", libc::SYS_fcntl, [got, libc::F_DUPFD_CLOEXEC as u64, above, 0, 0, 0])?;
    for fd in [got, ends[0], ends[1]] {
        remote.call("close", libc::SYS_close, [fd, 0, 0, 0, 0, 0])?;
    }
    if let Some(limit) = limit {
        limit.set(remote, memory, scratch)?;
    }
    Ok(high)
}

/// Makes the receiver take the message, and returns the number of the descriptor.
fn receive(socket: u64, remote: &mut Remote<'_>, memory: &Memory, scratch: u64) -> Result<u64> {
    const IOVEC: u64 = 64;
    const BYTE: u64 = 96;
    const CONTROL: u64 = 128;
    /// A header of 16 bytes, and one number.
    const CONTROL_LEN: u64 = 24;
    let words = [0, 0, scratch + IOVEC, 1, scratch + CONTROL, CONTROL_LEN, 0];
    let header: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_ne_bytes()).collect();
    memory.write(scratch, &header)?;
    let iovec: Vec<u8> = [scratch + BYTE, 1].iter().flat_map(|word: &u64| word.to_ne_bytes()).collect();
    memory.write(scratch + IOVEC, &iovec)?;
    remote.call("recvmsg", libc::SYS_recvmsg, [socket, scratch, libc::MSG_CMSG_CLOEXEC as u64, 0, 0, 0])?;
    memory.read_u32(scratch + CONTROL + 16).map(u64::from)
}

fn send(socket: &OwnedFd, fd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let byte = [io::IoSlice::new(b"x")];
    let raw = [fd.as_raw_fd()];
    sendmsg::<()>(socket.as_raw_fd(), &byte, &[ControlMessage::ScmRights(&raw)], MsgFlags::MSG_DONTWAIT, None)?;
    Ok(())
}

/// The limit on the numbers of descriptors, `getrlimit(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    soft: u64,
    hard: u64,
}

impl Limit {
    /// Makes room for numbers below `wanted`, within the hard limit, and returns the limit to put back.
    fn raise(pid: Pid, wanted: u64, remote: &mut Remote<'_>, memory: &Memory, scratch: u64) -> Result<Option<Limit>> {
        let path = format!("/proc/{pid}/limits");
        let text = procfs::text(&path).map_err(|source| Error::Proc { path, source })?;
        let Some(old) = Limit::parse(&text).filter(|old| old.soft < wanted) else { return Ok(None) };
        if old.hard < wanted {
            let what = format!(
                "process {pid} may have no more than {} descriptors; {wanted} are needed for a moment",
                old.hard
            );
            return Err(Error::Unsupported(what));
        }
        Limit { soft: wanted, ..old }.set(remote, memory, scratch)?;
        Ok(Some(old))
    }

    /// Sets it from inside: a daemon without `CAP_SYS_RESOURCE` may not set that of another user's process.
    fn set(self, remote: &mut Remote<'_>, memory: &Memory, scratch: u64) -> Result<()> {
        let bytes: Vec<u8> = [self.soft, self.hard].iter().flat_map(|word| word.to_ne_bytes()).collect();
        memory.write(scratch, &bytes)?;
        let args = [0, u64::from(libc::RLIMIT_NOFILE), scratch, 0, 0, 0];
        remote.call("prlimit64", libc::SYS_prlimit64, args).map(drop)
    }

    /// Reads it from `/proc/<pid>/limits`, `fs/proc/base.c`.
    fn parse(limits: &str) -> Option<Limit> {
        let value = |word: &str| if word == "unlimited" { Some(libc::RLIM_INFINITY) } else { word.parse().ok() };
        let mut words = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace();
        Some(Limit { soft: value(words.next()?)?, hard: value(words.next()?)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_from_proc() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            1024                 unlimited            files     \n";
        assert_eq!(Limit::parse(text), Some(Limit { soft: 1024, hard: libc::RLIM_INFINITY }));
        let ours = procfs::text("/proc/self/limits").expect("our limits");
        assert!(Limit::parse(&ours).is_some());
    }
}
