//! Areas that only the image to come has: they are mapped beside everything else, filled, and moved into place by the service
//! itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use super::areas::Created;
use super::{giving, pages};
use crate::ptrace::inject::Remote;
use crate::ptrace::memory::{Memory, Span};
use crate::ptrace::pagemap::PageMap;
use crate::ptrace::procfs::{self, Mapping};
use crate::ptrace::{Error, Pid, Result};
use crate::record::Slot;
use crate::tracee::process::Process;

/// Maps something at addresses that are free.
pub(super) fn map(
    remote: &mut Remote<'_>,
    span: Span,
    protection: i32,
    flags: i32,
    fd: u64,
    offset: u64,
) -> Result<()> {
    let flags = (flags | libc::MAP_FIXED_NOREPLACE) as u64;
    let args = [span.start, span.len(), protection as u64, flags, fd, offset];
    remote.call("mmap", libc::SYS_mmap, args).map(drop)
}

/// The flags of a process's areas, `VmFlags` of proc_pid_smaps(5), by the address at which an area begins.
#[derive(Debug, Default)]
pub(super) struct Flags {
    areas: BTreeMap<u64, Vec<String>>,
}

impl Flags {
    pub(super) fn of(pid: Pid) -> Result<Flags> {
        Ok(Flags::parse(&procfs::smaps(pid)?))
    }

    fn parse(smaps: &str) -> Flags {
        let mut flags = Flags::default();
        let mut start = None;
        for line in smaps.lines() {
            if let Some(words) = line.strip_prefix("VmFlags:") {
                if let Some(start) = start.take() {
                    flags.areas.insert(start, words.split_whitespace().map(str::to_owned).collect());
                }
            } else if let Some((first, _)) = line.split_once('-')
                && let Ok(first) = u64::from_str_radix(first, 16)
            {
                start = Some(first);
            }
        }
        flags
    }

    /// Says whether the area at an address is to stay there and as it is, mseal(2).
    pub(super) fn are_sealed(&self, addr: u64) -> bool {
        has(self.at(addr), "sl")
    }

    pub(super) fn at(&self, addr: u64) -> &[String] {
        self.areas.range(..=addr).next_back().map_or(&[], |(_, flags)| flags)
    }
}

fn has(flags: &[String], flag: &str) -> bool {
    flags.iter().any(|have| have == flag)
}

/// Maps an area that is to be moved in, writable for now.
pub(super) fn stage(
    remote: &mut Remote<'_>,
    process: &Process,
    created: &Created,
    span: Span,
    flags: &[String],
    coming: Pid,
) -> Result<()> {
    for (flag, what) in [("ht", "huge pages of its own"), ("ss", "a shadow stack")] {
        if has(flags, flag) {
            return Err(Error::Unsupported(format!("the other version has {what} at {:#x}", created.span.start)));
        }
    }
    let mut kind = libc::MAP_PRIVATE;
    for (flag, bit) in [("nr", libc::MAP_NORESERVE), ("gd", libc::MAP_GROWSDOWN)] {
        kind |= if has(flags, flag) { bit } else { 0 };
    }
    let Some(area) = &created.file else {
        let read_write = libc::PROT_READ | libc::PROT_WRITE;
        return map(remote, span, read_write, kind | libc::MAP_ANONYMOUS, u64::MAX, 0);
    };
    if area.is_shared_memory() {
        let read_write = libc::PROT_READ | libc::PROT_WRITE;
        let kind = kind & !libc::MAP_PRIVATE | libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        return map(remote, span, read_write, kind, u64::MAX, 0);
    }
    let file = open_mapped(coming, area)?;
    let tid = process.threads.first().map_or(Slot(0), |(_, slot)| slot);
    let fd = giving::give(file.as_fd(), process.pid, remote, &process.memory, process.scratch(tid))?;
    let offset = area.offset + (created.span.start - area.start);
    let mapped = map(remote, span, created.protection, kind, fd, offset);
    remote.call("close", libc::SYS_close, [fd, 0, 0, 0, 0, 0])?;
    mapped
}

/// Opens the file that a process has mapped, whatever its name leads to by now. Who may not have that from the kernel opens the
/// name, if it leads to the same file still.
fn open_mapped(pid: Pid, area: &Mapping) -> Result<File> {
    let path = format!("/proc/{pid}/map_files/{:x}-{:x}", area.start, area.end);
    File::open(&path).or_else(|source| {
        let named = File::open(format!("/proc/{pid}/root{}", area.name)).ok();
        let is_it = |file: &File| {
            file.metadata().is_ok_and(|meta| {
                let device = u64::from(libc::major(meta.dev())) << 32 | u64::from(libc::minor(meta.dev()));
                (device, meta.ino()) == (area.device, area.inode)
            })
        };
        named.filter(is_it).ok_or(Error::Proc { path, source })
    })
}

/// Copies into a staged area what its version has written there. Returns how many bytes.
pub(super) fn fill(here: &Memory, created: &Created, staged: Span, there: &Memory, pages: &PageMap) -> Result<u64> {
    const AT_ONCE: u64 = 1 << 20;
    let mut bytes = 0;
    let is_shared = created.file.as_ref().is_some_and(Mapping::is_shared_memory);
    let written = if is_shared { pages::there(pages, created.span)? } else { pages::own(pages, created.span)? };
    for own in written {
        for start in (own.start..own.end).step_by(AT_ONCE as usize) {
            let len = AT_ONCE.min(own.end - start);
            let contents = there.peek(start, len as usize)?;
            here.force(staged.start + (start - created.span.start), &contents)?;
            bytes += len;
        }
    }
    Ok(bytes)
}

/// Gives a staged area the protection and the advice that it is to have; both move with it.
pub(super) fn finish(remote: &mut Remote<'_>, created: &Created, span: Span, flags: &[String]) -> Result<()> {
    const ADVICE: [(&str, i32); 8] = [
        ("hg", libc::MADV_HUGEPAGE),
        ("nh", libc::MADV_NOHUGEPAGE),
        ("mg", libc::MADV_MERGEABLE),
        ("rr", libc::MADV_RANDOM),
        ("sr", libc::MADV_SEQUENTIAL),
        ("dd", libc::MADV_DONTDUMP),
        ("dc", libc::MADV_DONTFORK),
        ("wf", libc::MADV_WIPEONFORK),
    ];
    for (_, advice) in ADVICE.iter().filter(|(flag, _)| has(flags, flag)) {
        remote.call("madvise", libc::SYS_madvise, [span.start, span.len(), *advice as u64, 0, 0, 0])?;
    }
    if has(flags, "lo") {
        const MLOCK_ONFAULT: u64 = 1;
        remote.call("mlock2", libc::SYS_mlock2, [span.start, span.len(), MLOCK_ONFAULT, 0, 0, 0])?;
    }
    if created.file.as_ref().is_none_or(Mapping::is_shared_memory) {
        let protection = created.protection as u64;
        remote.call("mprotect", libc::SYS_mprotect, [span.start, span.len(), protection, 0, 0, 0])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_by_address() {
        let flags = Flags::parse("1000-3000 rw-p 00000000 00:00 0 \nSize: 8 kB\nVmFlags: rd wr mr mw me dc \n");
        assert!(has(flags.at(0x2000), "dc") && !has(flags.at(0x2000), "wf"));
        assert!(flags.at(0x500).is_empty());
    }
}
