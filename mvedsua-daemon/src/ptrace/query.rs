//! What the daemon asks of another process's descriptor, or does to it, with a copy of it (`pidfd_getfd(2)`).

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::process::{Pid as RustixPid, PidfdFlags, PidfdGetfdFlags};

use super::memory::Memory;
use super::{Pid, Result};

/// Room for the longest answer: a socket address, `struct stat`, an option.
const ROOM: usize = 4096;

fn copy(pid: Pid, fd: i32) -> std::result::Result<OwnedFd, rustix::io::Errno> {
    let raw = RustixPid::from_raw(pid.0).ok_or(rustix::io::Errno::SRCH)?;
    let process = rustix::process::pidfd_open(raw, PidfdFlags::empty())?;
    rustix::process::pidfd_getfd(&process, fd, PidfdGetfdFlags::empty())
}

/// Makes a call that only asks, on the descriptor `fd` of `pid`, and writes the answer where the arguments of the process
/// behind `memory` say. Returns the result; `None` where the call is not one that only asks.
pub(crate) fn ask(pid: Pid, fd: i32, nr: u32, args: &[u64; 6], memory: &Memory) -> Result<Option<i64>> {
    let descriptor = match copy(pid, fd) {
        Ok(descriptor) => descriptor,
        Err(errno) => return Ok(Some(-i64::from(errno.raw_os_error()))),
    };
    let own = descriptor.as_raw_fd() as u64;
    let mut room = [0u8; ROOM];
    let at = room.as_mut_ptr() as u64;
    let nr = i64::from(nr);
    let ret = match nr {
        libc::SYS_fstat => {
            let ret = call(nr, [own, at, 0, 0, 0]);
            if ret == 0 {
                memory.write(args[1], &room[..size_of::<libc::stat>()])?;
            }
            ret
        }
        libc::SYS_newfstatat => {
            let ret = call(nr, [own, c"".as_ptr() as u64, at, libc::AT_EMPTY_PATH as u64, 0]);
            if ret == 0 {
                memory.write(args[2], &room[..size_of::<libc::stat>()])?;
            }
            ret
        }
        libc::SYS_getsockname | libc::SYS_getpeername => {
            let given = memory.read_u32(args[2])?;
            let mut len = given.min(ROOM as u32);
            let ret = call(nr, [own, at, &raw mut len as u64, 0, 0]);
            if ret == 0 {
                memory.write(args[1], &room[..len.min(given).min(ROOM as u32) as usize])?;
                memory.write(args[2], &len.to_ne_bytes())?;
            }
            ret
        }
        libc::SYS_getsockopt => {
            let given = memory.read_u32(args[4])?;
            let mut len = given.min(ROOM as u32);
            let ret = call(nr, [own, args[1], args[2], at, &raw mut len as u64]);
            if ret == 0 {
                memory.write(args[3], &room[..len.min(given).min(ROOM as u32) as usize])?;
                memory.write(args[4], &len.to_ne_bytes())?;
            }
            ret
        }
        libc::SYS_fcntl if args[1] as i32 == libc::F_GETFL => call(nr, [own, args[1], 0, 0, 0]),
        libc::SYS_fcntl if args[1] as i32 == libc::F_GETFD => {
            let known = super::procfs::descriptors(pid)?.into_iter().find(|known| known.fd == fd);
            known.map_or(-i64::from(libc::EBADF), |known| i64::from(known.close_on_exec))
        }
        libc::SYS_lseek if args[1] == 0 && args[2] as i32 == libc::SEEK_CUR => call(nr, [own, 0, args[2], 0, 0]),
        _ => return Ok(None),
    };
    Ok(Some(ret))
}

/// Ends the connection behind a descriptor, in both directions; whoever is at the other end, and the process, see it end. Does
/// nothing to what is no connection.
pub(crate) fn end_connection(pid: Pid, fd: i32) -> Result<()> {
    match copy(pid, fd).and_then(|socket| rustix::net::shutdown(socket, rustix::net::Shutdown::Both)) {
        Ok(()) | Err(rustix::io::Errno::NOTSOCK | rustix::io::Errno::NOTCONN | rustix::io::Errno::BADF) => Ok(()),
        Err(errno) => {
            let path = format!("ending the connection behind descriptor {fd} of process {pid}");
            Err(super::Error::Proc { path, source: errno.into() })
        }
    }
}

fn call(nr: i64, args: [u64; 5]) -> i64 {
    let [a, b, c, d, e] = args;
    // SAFETY: every call of `ask` gets a descriptor of ours and buffers that are large enough for what it says.
    match unsafe { libc::syscall(nr, a, b, c, d, e) } {
        -1 => -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
        ret => ret,
    }
}
