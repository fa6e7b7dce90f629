//! Moving descriptors from one process into another, under the same numbers.
//!
//! The receiver has no descriptors. The daemon takes a copy of each of the giver's (`pidfd_getfd(2)`) and sends them in
//! ascending order over a socket (`SCM_RIGHTS`); the kernel gives each the lowest free number, so they land where they
//! belong as long as holes are filled with a placeholder that is closed at the end. One injected `recvmsg` moves 253.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::{Pid as RustixPid, PidfdFlags, PidfdGetfdFlags};

use super::state;
use crate::ptrace::inject::Remote;
use crate::ptrace::memory::Memory;
use crate::ptrace::procfs::{self, Descriptor};
use crate::ptrace::{Error, Pid, Result};

/// `SCM_MAX_FD`, `include/net/scm.h`.
const PER_MESSAGE: usize = 253;

/// The giver's descriptors, copied into the daemon.
#[derive(Debug)]
pub(crate) struct Copied {
    list: Vec<(Descriptor, OwnedFd)>,
}

impl Copied {
    /// Returns each with its number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i32, BorrowedFd<'_>)> {
        self.list.iter().map(|(descriptor, copy)| (descriptor.fd, copy.as_fd()))
    }
}

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

/// Copies every descriptor of a process whose threads are all stopped.
pub(crate) fn copy(pid: Pid) -> Result<Copied> {
    let process = pidfd(pid)?;
    let mut list = Vec::new();
    for descriptor in procfs::descriptors(pid)? {
        let copy = take(&process, pid, descriptor.fd)?;
        list.push((descriptor, copy));
    }
    Ok(Copied { list })
}

/// One message: descriptors that share the close-on-exec flag.
struct Run<'a> {
    close_on_exec: bool,
    first: i32,
    fds: Vec<BorrowedFd<'a>>,
}

fn runs<'a>(copied: &'a Copied, filler: &'a OwnedFd) -> (Vec<Run<'a>>, Vec<(i32, i32)>) {
    let mut runs: Vec<Run<'a>> = Vec::new();
    let mut holes = Vec::new();
    let mut next = 0;
    let mut push = |fd: i32, borrowed: BorrowedFd<'a>, flag: Option<bool>| match runs.last_mut() {
        Some(run) if run.fds.len() < PER_MESSAGE && flag.is_none_or(|flag| flag == run.close_on_exec) => {
            run.fds.push(borrowed)
        }
        _ => runs.push(Run { close_on_exec: flag.unwrap_or(true), first: fd, fds: vec![borrowed] }),
    };
    for (descriptor, copy) in &copied.list {
        if descriptor.fd > next {
            holes.push((next, descriptor.fd - 1));
        }
        for hole in next..descriptor.fd {
            push(hole, filler.as_fd(), None);
        }
        push(descriptor.fd, copy.as_fd(), Some(descriptor.close_on_exec));
        next = descriptor.fd + 1;
    }
    (runs, holes)
}

/// Gives the copies to the process that `remote` borrows a thread of. `scratch` is 4 KiB of its memory.
///
/// On an error the receiver may hold some of them; it is to be emptied or killed.
pub(crate) fn give(
    copied: &Copied,
    receiver: Pid,
    remote: &mut Remote<'_>,
    memory: &Memory,
    scratch: u64,
) -> Result<()> {
    let Some((last, _)) = copied.list.last() else { return Ok(()) };
    let above = last.fd as u64 + 1;
    let limit = raise_limit(receiver, above + 16, remote, memory, scratch)?;
    let pair = (libc::AF_UNIX as u64, (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as u64);
    remote.call("socketpair", libc::SYS_socketpair, [pair.0, pair.1, 0, scratch, 0, 0])?;
    let low = [memory.read_u32(scratch)?, memory.read_u32(scratch + 4)?];
    let mut high = [0; 2];
    for (low, high) in low.iter().zip(&mut high) {
        let args = [u64::from(*low), libc::F_DUPFD_CLOEXEC as u64, above, 0, 0, 0];
        *high = remote.call("fcntl", libc::SYS_fcntl, args)?;
        remote.call("close", libc::SYS_close, [u64::from(*low), 0, 0, 0, 0, 0])?;
    }
    let socket = take(&pidfd(receiver)?, receiver, high[1] as RawFd)?;
    let filler = placeholder()?;
    let (runs, holes) = runs(copied, &filler);
    for run in &runs {
        send(&socket, &run.fds).map_err(|error| os("sendmsg", receiver, error))?;
        receive(run, high[0], remote, memory, scratch)?;
    }
    for (first, last) in holes {
        remote.call("close_range", libc::SYS_close_range, [first as u64, last as u64, 0, 0, 0, 0])?;
    }
    remote.call("close_range", libc::SYS_close_range, [above, u64::from(u32::MAX), 0, 0, 0, 0])?;
    limit.map_or(Ok(()), |limit| state::set_limit(&limit, remote, memory, scratch))
}

fn placeholder() -> Result<OwnedFd> {
    let file = std::fs::File::open("/dev/null").map_err(|source| Error::Proc { path: "/dev/null".into(), source })?;
    Ok(file.into())
}

/// Gives one descriptor and returns its number in the receiver, which is not below `above`.
pub(crate) fn give_one(
    fd: BorrowedFd<'_>,
    above: u64,
    receiver: Pid,
    remote: &mut Remote<'_>,
    memory: &Memory,
    scratch: u64,
) -> Result<u64> {
    let pair = (libc::AF_UNIX as u64, (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as u64);
    let limit = raise_limit(receiver, above + 16, remote, memory, scratch)?;
    remote.call("socketpair", libc::SYS_socketpair, [pair.0, pair.1, 0, scratch, 0, 0])?;
    let ends = [u64::from(memory.read_u32(scratch)?), u64::from(memory.read_u32(scratch + 4)?)];
    let socket = take(&pidfd(receiver)?, receiver, ends[1] as RawFd)?;
    send(&socket, &[fd]).map_err(|error| os("sendmsg", receiver, error))?;
    let run = Run { close_on_exec: true, first: -1, fds: vec![fd] };
    let got = receive(&run, ends[0], remote, memory, scratch)?;
    let high = remote.call("fcntl", libc::SYS_fcntl, [got, libc::F_DUPFD_CLOEXEC as u64, above, 0, 0, 0])?;
    for fd in [got, ends[0], ends[1]] {
        remote.call("close", libc::SYS_close, [fd, 0, 0, 0, 0, 0])?;
    }
    if let Some(limit) = limit {
        state::set_limit(&limit, remote, memory, scratch)?;
    }
    Ok(high)
}

/// Makes the receiver take one message and checks where the descriptors landed. Returns the first one's number.
fn receive(run: &Run<'_>, socket: u64, remote: &mut Remote<'_>, memory: &Memory, scratch: u64) -> Result<u64> {
    const HEADER: u64 = 0;
    const IOVEC: u64 = 64;
    const BYTE: u64 = 96;
    const CONTROL: u64 = 128;
    let control_len = 16 + 4 * run.fds.len() as u64;
    let words = [0, 0, scratch + IOVEC, 1, scratch + CONTROL, (control_len + 7) & !7, 0];
    let header: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_ne_bytes()).collect();
    memory.write(scratch + HEADER, &header)?;
    let iovec: Vec<u8> = [scratch + BYTE, 1].iter().flat_map(|word: &u64| word.to_ne_bytes()).collect();
    memory.write(scratch + IOVEC, &iovec)?;
    let flags = if run.close_on_exec { libc::MSG_CMSG_CLOEXEC as u64 } else { 0 };
    remote.call("recvmsg", libc::SYS_recvmsg, [socket, scratch, flags, 0, 0, 0])?;
    let control = memory.read_vec(scratch + CONTROL, control_len as usize)?;
    let numbers: Vec<i32> = control[16..]
        .chunks_exact(4)
        .map(|bytes| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    let expected = (run.first..).take(run.fds.len());
    if run.first >= 0 && !expected.eq(numbers.iter().copied()) {
        let what = format!("descriptors {}… landed at {:?}…", run.first, numbers.first());
        return Err(Error::Unsupported(format!("{what}: the receiver's table is not empty")));
    }
    Ok(numbers.first().copied().unwrap_or(-1) as u64)
}

fn send(socket: &OwnedFd, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let byte = [io::IoSlice::new(b"x")];
    sendmsg::<()>(socket.as_raw_fd(), &byte, &[ControlMessage::ScmRights(&raw)], MsgFlags::MSG_DONTWAIT, None)?;
    Ok(())
}

/// Makes room for descriptor numbers below `wanted`, within the hard limit, and returns the limit to put back.
fn raise_limit(
    pid: Pid,
    wanted: u64,
    remote: &mut Remote<'_>,
    memory: &Memory,
    scratch: u64,
) -> Result<Option<state::Limit>> {
    let Some(old) = state::descriptor_limit(pid)?.filter(|old| old.soft < wanted) else { return Ok(None) };
    if old.hard < wanted {
        let what =
            format!("process {pid} may have no more than {} descriptors; {wanted} are needed for a moment", old.hard);
        return Err(Error::Unsupported(what));
    }
    state::set_limit(&state::Limit { soft: wanted, ..old }, remote, memory, scratch)?;
    Ok(Some(old))
}

/// Opens a path for a descriptor to be given; `O_PATH` is enough for a directory that is only changed to.
pub(crate) fn open_directory(path: &str) -> Result<OwnedFd> {
    let c_path = std::ffi::CString::new(path).map_err(|_| Error::Unsupported(format!("{path} has a NUL in it")))?;
    // SAFETY: the path is a live NUL-terminated string.
    let fd = unsafe { libc::open(c_path.as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(Error::Proc { path: path.into(), source: io::Error::last_os_error() });
    }
    // SAFETY: the descriptor was just opened and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(numbers: &[(i32, bool)]) -> Copied {
        let list = numbers
            .iter()
            .map(|(fd, close_on_exec)| {
                let descriptor = Descriptor { fd: *fd, target: "x".into(), close_on_exec: *close_on_exec };
                (descriptor, placeholder().expect("/dev/null"))
            })
            .collect();
        Copied { list }
    }

    #[test]
    fn holes_are_filled_and_flags_separate_messages() {
        let copied = copied(&[(0, false), (1, false), (4, true), (5, true), (7, false)]);
        let filler = placeholder().expect("/dev/null");
        let (runs, holes) = runs(&copied, &filler);
        let shape: Vec<_> = runs.iter().map(|run| (run.first, run.fds.len(), run.close_on_exec)).collect();
        assert_eq!(shape, [(0, 4, false), (4, 3, true), (7, 1, false)]);
        assert_eq!(holes, [(2, 3), (6, 6)]);
    }

    #[test]
    fn a_message_holds_no_more_than_the_kernel_takes() {
        let numbers: Vec<_> = (0..600).map(|fd| (fd, true)).collect();
        let copied = copied(&numbers);
        let filler = placeholder().expect("/dev/null");
        let (runs, holes) = runs(&copied, &filler);
        assert_eq!(runs.iter().map(|run| run.fds.len()).collect::<Vec<_>>(), [253, 253, 94]);
        assert!(holes.is_empty());
    }
}
