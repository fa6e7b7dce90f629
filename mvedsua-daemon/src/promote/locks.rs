//! Record locks (`fcntl(F_SETLK)`), which belong to a process and not to its descriptors.
//!
//! The old leader loses them when its descriptors are closed; the new one takes them at once. Nothing of either version
//! runs in between, but another process may be faster: that is reported.

use std::os::unix::fs::MetadataExt;

use crate::ptrace::inject::Remote;
use crate::ptrace::memory::Memory;
use crate::ptrace::{Error, Pid, Result, procfs};

/// One record lock of the old leader, with a descriptor of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordLock {
    fd: i32,
    kind: i16,
    start: i64,
    /// 0 means to the end of the file, `fcntl(2)`.
    len: i64,
}

/// One line of `/proc/locks`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    pid: i32,
    kind: i16,
    device: (u32, u32),
    inode: u64,
    start: i64,
    len: i64,
}

/// Reads a line such as `1: POSIX  ADVISORY  WRITE 1234 fe:00:12345 0 EOF`.
fn parse(line: &str) -> Option<Line> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "POSIX", _, kind, pid, file, start, end] = words[..] else { return None };
    let kind = match kind {
        "READ" => libc::F_RDLCK as i16,
        "WRITE" => libc::F_WRLCK as i16,
        _ => return None,
    };
    let mut parts = file.split(':');
    let device = (u32::from_str_radix(parts.next()?, 16).ok()?, u32::from_str_radix(parts.next()?, 16).ok()?);
    let inode = parts.next()?.parse().ok()?;
    let start: i64 = start.parse().ok()?;
    let len = if end == "EOF" { 0 } else { end.parse::<i64>().ok()? - start + 1 };
    Some(Line { pid: pid.parse().ok()?, kind, device, inode, start, len })
}

/// Returns the record locks of a process.
pub(crate) fn of(pid: Pid) -> Result<Vec<RecordLock>> {
    let path = "/proc/locks".to_owned();
    let text = procfs::text(&path).map_err(|source| Error::Proc { path, source })?;
    let mut locks = Vec::new();
    for line in text.lines().filter_map(parse).filter(|line| line.pid == pid.0) {
        let same_file = |fd: i32| {
            std::fs::metadata(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|file| {
                let device = file.dev();
                line.inode == file.ino() && line.device == (libc::major(device), libc::minor(device))
            })
        };
        let Some(descriptor) = procfs::descriptors(pid)?.into_iter().find(|descriptor| same_file(descriptor.fd)) else {
            let what =
                format!("process {pid} holds a record lock on inode {}, of which it has no descriptor", line.inode);
            return Err(Error::Unsupported(what));
        };
        locks.push(RecordLock { fd: descriptor.fd, kind: line.kind, start: line.start, len: line.len });
    }
    Ok(locks)
}

/// Takes the locks in the process that `remote` borrows a thread of.
pub(crate) fn take(locks: &[RecordLock], remote: &mut Remote<'_>, memory: &Memory, scratch: u64) -> Result<()> {
    for lock in locks {
        // struct flock: l_type, l_whence, padding, l_start, l_len, l_pid.
        let mut flock = Vec::with_capacity(32);
        flock.extend_from_slice(&lock.kind.to_ne_bytes());
        flock.extend_from_slice(&(libc::SEEK_SET as i16).to_ne_bytes());
        flock.extend_from_slice(&[0; 4]);
        flock.extend_from_slice(&lock.start.to_ne_bytes());
        flock.extend_from_slice(&lock.len.to_ne_bytes());
        flock.extend_from_slice(&[0; 8]);
        memory.write(scratch, &flock)?;
        let args = [lock.fd as u64, libc::F_SETLK as u64, scratch, 0, 0, 0];
        if let Err(error) = remote.call("fcntl", libc::SYS_fcntl, args) {
            tracing::error!(fd = lock.fd, %error, "a record lock could not be taken over; another process was faster");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_locks() {
        let line = parse("1: POSIX  ADVISORY  WRITE 1234 fe:00:12345 10 19").expect("a lock");
        assert_eq!((line.pid, line.device, line.inode), (1234, (0xfe, 0), 12345));
        assert_eq!((line.kind, line.start, line.len), (libc::F_WRLCK as i16, 10, 10));
        assert_eq!(parse("2: POSIX  ADVISORY  READ 7 00:2f:9 0 EOF").expect("a lock").len, 0);
        assert_eq!(parse("3: FLOCK  ADVISORY  WRITE 7 00:2f:9 0 EOF"), None);
        assert_eq!(parse("1: -> POSIX  ADVISORY  WRITE 7 00:2f:9 0 EOF"), None);
    }
}
