//! Memory of a process that the daemon has mapped too.
//!
//! A shared mapping of a process can be opened through `/proc/<pid>/map_files` (proc(5)) and mapped again. What one side
//! stores the other sees, without a call.

use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::memory::{MOST_PIECES, Memory};
use super::{Error, Pid, Result};

/// The daemon's view of one shared mapping.
#[derive(Debug)]
pub(crate) struct Window {
    memory: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is shared with another process anyway; nothing here hands out a reference to plain bytes of it.
unsafe impl Send for Window {}

impl Window {
    /// Maps what a process has mapped shared at these addresses, which are those of the whole mapping.
    pub(crate) fn map(pid: Pid, start: u64, end: u64) -> Result<Window> {
        let path = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
        let failed = |source| Error::Proc { path: path.clone(), source };
        let file = File::options().read(true).write(true).open(&path).map_err(failed)?;
        let len = (end - start) as usize;
        let whole = NonZeroUsize::new(len).ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
        // SAFETY: a new mapping at a place of the kernel's choice; it is unmapped when the window is dropped.
        let memory =
            unsafe { mmap(None, whole, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &file, 0) }
                .map_err(|errno| failed(errno.into()))?;
        Ok(Window { memory: memory.cast(), len })
    }

    fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset <= self.len && len <= self.len - offset, "within the window");
        // SAFETY: the mapping is `self.len` bytes long, and the offset was checked.
        unsafe { self.memory.add(offset) }
    }

    /// Returns a word of eight bytes.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        let place = self.at(index * 8, 8);
        // SAFETY: within the mapping, which lives as long as `self`, and aligned, since the mapping begins with a page.
        unsafe { place.cast::<AtomicU64>().as_ref() }
    }

    /// Puts bytes into the window.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let place = self.at(offset, bytes.len());
        // SAFETY: `at` has checked the length; `bytes` is memory of ours and not of the window, to which no reference exists.
        unsafe { place.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    /// Fills a part of the window with what is at these addresses of a process, one piece after the other. The process must
    /// stand still. Whether it may read there itself does not count.
    pub(crate) fn fill(&self, mut offset: usize, memory: &Memory, pieces: &[(u64, usize)]) -> Result<()> {
        for some in pieces.chunks(MOST_PIECES) {
            let total: usize = some.iter().map(|(_, len)| len).sum();
            let place = self.at(offset, total);
            // SAFETY: `at` has checked that the window has room for all of it.
            if !unsafe { memory.read_pieces_to(some, place.as_ptr()) } {
                let mut at = offset;
                for (addr, len) in some {
                    self.write(at, &memory.peek(*addr, *len)?);
                    at += len;
                }
            }
            offset += total;
        }
        Ok(())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; every reference that was handed out borrows from `self`.
        if let Err(error) = unsafe { munmap(self.memory.cast(), self.len) } {
            tracing::warn!(%error, "unmapping memory that was shared with a process");
        }
    }
}
