//! Memory that a fork shares with its child: the follower gets a private copy, so that nothing it writes reaches anybody.
//!
//! What the program writes through such a mapping is copied at the instant of the fork, while all its threads stand still, like
//! the memory that the fork itself copies. What it has mapped only to read is copied when the follower is made.

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::ptrace::inject::Remote;
use crate::ptrace::procfs::{self, Mapping};
use crate::ptrace::{Error, Pid, Result};
use crate::update::process::Process;

/// How much of a shared mapping is copied at once.
const CHUNK: u64 = 1 << 20;

/// What is in a shared mapping; what is not named is zero.
#[derive(Debug)]
pub(crate) struct Contents {
    start: u64,
    /// By the distance from the start.
    pieces: Vec<(u64, Vec<u8>)>,
}

/// Finds the shared mappings that are the program's own.
fn mappings(process: &Process) -> Result<Vec<Mapping>> {
    let arena = process.footprint.arena.base;
    let rings = process.rings.as_ref().map(|rings| rings.area().base);
    let mut found = procfs::maps(process.pid)?;
    found.retain(|mapping| {
        let ours = mapping.start == arena || Some(mapping.start) == rings;
        mapping.shared && !ours && !mapping.name.starts_with('[')
    });
    Ok(found)
}

/// Takes what is in the shared mappings of a process that it can write to. All its threads stand still.
pub(crate) fn take(process: &Process) -> Result<Vec<Contents>> {
    let written = mappings(process)?.into_iter().filter(|mapping| mapping.writable && mapping.readable);
    written
        .map(|mapping| {
            let mut pieces = Vec::new();
            contents(process, &mapping, |at, bytes| {
                pieces.push((at, bytes.to_vec()));
                Ok(())
            })?;
            Ok(Contents { start: mapping.start, pieces })
        })
        .collect()
}

/// Replaces the shared mappings of a child by private copies. `taken` is what was in its parent's at the fork.
pub(crate) fn copy(remote: &mut Remote<'_>, process: &Process, taken: &[Contents]) -> Result<()> {
    for mapping in mappings(process)? {
        let len = mapping.end - mapping.start;
        let bit = |have: bool, bit: i32| if have { bit } else { 0 };
        let protection = bit(mapping.readable, libc::PROT_READ)
            | bit(mapping.writable, libc::PROT_WRITE)
            | bit(mapping.executable, libc::PROT_EXEC);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        if !mapping.readable {
            let flags = (flags | libc::MAP_FIXED) as u64;
            remote.call("mmap", libc::SYS_mmap, [mapping.start, len, protection as u64, flags, u64::MAX, 0])?;
            continue;
        }
        // The copy takes the place of the mapping when it is complete. What is not written to takes no memory.
        let flags = (flags | libc::MAP_NORESERVE) as u64;
        let writable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let copy = remote.call("mmap", libc::SYS_mmap, [0, len, writable, flags, u64::MAX, 0])?;
        match taken.iter().find(|contents| contents.start == mapping.start) {
            Some(contents) => {
                contents.pieces.iter().try_for_each(|(at, bytes)| process.memory.write(copy + at, bytes))?;
            }
            None => contents(process, &mapping, |at, bytes| process.memory.write(copy + at, bytes))?,
        }
        remote.call("mprotect", libc::SYS_mprotect, [copy, len, protection as u64, 0, 0, 0])?;
        let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
        remote.call("mremap", libc::SYS_mremap, [copy, len, len, flags, mapping.start, 0])?;
    }
    Ok(())
}

/// Tells what is in a mapping, piece by piece; behind the end of its file there is nothing that anybody could read.
fn contents(process: &Process, mapping: &Mapping, mut tell: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    let len = mapping.end - mapping.start;
    let mut chunk = vec![0; CHUNK.min(len) as usize];
    let path = map_file(process.pid, mapping);
    // To open a device may do something.
    let is_file = std::fs::metadata(&path).is_ok_and(|file| file.is_file());
    let file = is_file.then(|| File::open(&path).ok()).flatten();
    let mut at = 0;
    while at < len {
        if let Some(file) = &file {
            at = match next_data(file, mapping.offset + at) {
                Some(next) => next - mapping.offset,
                None => break,
            };
            if at >= len {
                break;
            }
        }
        let wanted = CHUNK.min(len - at) as usize;
        let got = process.memory.read_some(mapping.start + at, &mut chunk[..wanted]);
        if chunk[..got].iter().any(|byte| *byte != 0) {
            tell(at, &chunk[..got])?;
        }
        at += got as u64;
        if got < wanted {
            if is_behind_file(process.pid, mapping, at)? {
                break;
            }
            // It can be read by now, or this says why not.
            process.memory.read(mapping.start + at, &mut chunk[..1])?;
        }
    }
    Ok(())
}

fn map_file(pid: Pid, mapping: &Mapping) -> String {
    format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end)
}

/// Returns where there is something in a file next, from `offset` on; holes are not read, which would fill them.
fn next_data(file: &File, offset: u64) -> Option<u64> {
    let from = i64::try_from(offset).ok()?;
    // SAFETY: takes integers only.
    let found = unsafe { libc::lseek(file.as_raw_fd(), from, libc::SEEK_DATA) };
    match u64::try_from(found) {
        Ok(found) => Some(found),
        Err(_) if std::io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => None,
        // Not every file can tell.
        Err(_) => Some(offset),
    }
}

/// Says whether a place in a mapping lies behind the end of the file that is mapped there, `mmap(2)`.
fn is_behind_file(pid: Pid, mapping: &Mapping, at: u64) -> Result<bool> {
    let path = map_file(pid, mapping);
    let file = std::fs::metadata(&path).map_err(|source| Error::Proc { path, source })?;
    Ok(file.is_file() && mapping.offset + at >= file.len())
}
