//! Another process's memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use mvedsua_common::syscalls::regions;

use super::{Error, Pid, Result};

/// `MAX_RW_COUNT`: the kernel moves no more bytes at once.
const MAX_RW: usize = 0x7fff_f000;
/// `UIO_MAXIOV`, the most pieces that one `process_vm_readv(2)` takes.
pub(super) const MOST_PIECES: usize = 1024;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Span {
    pub(crate) fn len(self) -> u64 {
        self.end - self.start
    }

    pub(crate) fn contains(self, addr: u64) -> bool {
        (self.start..self.end).contains(&addr)
    }
}

/// Reads and writes the memory of one process.
///
/// Ordinary accesses respect the target's page protection (`process_vm_readv(2)`); [`Memory::force`] does not, and
/// breaks copy-on-write as a debugger does, which is how the vDSO is patched.
#[derive(Debug)]
pub struct Memory {
    pid: Pid,
    /// `/proc/<pid>/mem`; it pins the address space, so it must not outlive the session. Where the process id leads to
    /// no memory any more, since the main thread has ended, this does.
    file: File,
}

impl Memory {
    pub fn open(pid: Pid) -> Result<Memory> {
        let path = format!("/proc/{pid}/mem");
        let file = File::options().read(true).write(true).open(&path).map_err(|source| Error::Proc { path, source })?;
        Ok(Memory { pid, file })
    }

    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Reads up to `buf.len()` bytes and returns how many were there before the first unmapped page.
    pub fn read_some(&self, addr: u64, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let end = buf.len().min(done + MAX_RW);
            let some = &mut buf[done..end];
            let from = addr.wrapping_add(done as u64);
            let got = match self.read_once(from, some) {
                Ok(got) => got,
                Err(error) if is_without_main(&error) => self.file.read_at(some, from).unwrap_or(0),
                Err(_) => 0,
            };
            done += got;
            if got == 0 {
                break;
            }
        }
        done
    }

    fn read_once(&self, addr: u64, buf: &mut [u8]) -> io::Result<usize> {
        let local = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        let remote = libc::iovec { iov_base: addr as *mut libc::c_void, iov_len: buf.len() };
        // SAFETY: `local` describes `buf`, which outlives the call; the remote side is checked by the kernel.
        let got = unsafe { libc::process_vm_readv(self.pid.0, &raw const local, 1, &raw const remote, 1, 0) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<()> {
        if self.read_some(addr, buf) == buf.len() {
            return Ok(());
        }
        Err(self.error("read", addr, buf.len(), io::Error::from_raw_os_error(libc::EFAULT)))
    }

    pub fn read_vec(&self, addr: u64, len: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; len];
        self.read(addr, &mut buf)?;
        Ok(buf)
    }

    pub fn read_u64(&self, addr: u64) -> Result<u64> {
        let mut buf = [0; 8];
        self.read(addr, &mut buf)?;
        Ok(u64::from_ne_bytes(buf))
    }

    pub fn read_u32(&self, addr: u64) -> Result<u32> {
        let mut buf = [0; 4];
        self.read(addr, &mut buf)?;
        Ok(u32::from_ne_bytes(buf))
    }

    /// Reads what is at these addresses, one piece after the other. The process must stand still. Whether it may read there
    /// itself does not count.
    pub(crate) fn read_pieces(&self, pieces: &[(u64, usize)], buf: &mut [u8]) -> Result<()> {
        let mut rest = buf;
        for some in pieces.chunks(MOST_PIECES) {
            let total = some.iter().map(|(_, len)| len).sum();
            let Some((part, after)) = rest.split_at_mut_checked(total) else {
                return Err(self.error("read", some[0].0, total, io::ErrorKind::InvalidInput.into()));
            };
            // SAFETY: `part` is as long as all of the pieces.
            if !unsafe { self.read_pieces_to(some, part.as_mut_ptr()) } {
                let mut at = 0;
                for (addr, len) in some {
                    part[at..at + len].copy_from_slice(&self.peek(*addr, *len)?);
                    at += len;
                }
            }
            rest = after;
        }
        Ok(())
    }

    /// Reads at most [`MOST_PIECES`] pieces where the process itself could read, and says whether all of it was there.
    ///
    /// # Safety
    ///
    /// There must be room for all of the pieces behind `to`.
    pub(super) unsafe fn read_pieces_to(&self, pieces: &[(u64, usize)], to: *mut u8) -> bool {
        let total: usize = pieces.iter().map(|(_, len)| len).sum();
        let local = libc::iovec { iov_base: to.cast(), iov_len: total };
        let piece = |(addr, len): &(u64, usize)| libc::iovec { iov_base: *addr as *mut libc::c_void, iov_len: *len };
        let remote: Vec<libc::iovec> = pieces.iter().map(piece).collect();
        let count = remote.len() as libc::c_ulong;
        // SAFETY: the caller says that there is room; the kernel checks the remote side.
        let got = unsafe { libc::process_vm_readv(self.pid.0, &raw const local, 1, remote.as_ptr(), count, 0) };
        got == total as isize
    }

    /// Reads whatever the page protection says.
    pub fn peek(&self, addr: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        match self.file.read_exact_at(&mut bytes, addr) {
            Ok(()) => Ok(bytes),
            Err(source) => Err(self.error("forced read", addr, len, source)),
        }
    }

    /// Writes where the process itself could write.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<()> {
        for (done, some) in bytes.chunks(MAX_RW).enumerate() {
            let to = addr.wrapping_add((done * MAX_RW) as u64);
            match self.write_once(to, some) {
                Err(error) if is_without_main(&error) => self.file.write_all_at(some, to),
                other => other,
            }
            .map_err(|source| self.error("write", addr, bytes.len(), source))?;
        }
        Ok(())
    }

    fn write_once(&self, addr: u64, bytes: &[u8]) -> io::Result<()> {
        let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: addr as *mut libc::c_void, iov_len: bytes.len() };
        // SAFETY: `local` describes `bytes`, which is only read; the remote side is checked by the kernel.
        let put = unsafe { libc::process_vm_writev(self.pid.0, &raw const local, 1, &raw const remote, 1, 0) };
        match put {
            put if put == bytes.len() as isize => Ok(()),
            put if put < 0 => Err(io::Error::last_os_error()),
            _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        }
    }

    /// Writes whatever the page protection says.
    pub fn force(&self, addr: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, addr).map_err(|source| self.error("forced write", addr, bytes.len(), source))
    }

    fn error(&self, op: &'static str, addr: u64, len: usize, source: io::Error) -> Error {
        Error::Memory { op, pid: self.pid, addr, len, source }
    }
}

/// Says whether the process id leads to no memory: perhaps the main thread alone has ended.
fn is_without_main(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

impl regions::Memory for Memory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> usize {
        self.read_some(addr, buf)
    }

    fn semaphores(&self, id: u64) -> Option<u64> {
        super::semaphores::count(self.pid, id as i32)
    }
}
