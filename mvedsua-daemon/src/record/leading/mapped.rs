//! Files that the program has mapped to look at, and that it writes to by calls: a database that is read where it is mapped, say.
//!
//! The follower has a copy of what is mapped, which such a call would leave as it was. So what a call has changed of a mapping
//! is recorded with it, as it is read where it is mapped. Of a private mapping these are the pages that the program has not
//! written to itself, under `run` alone. What other processes write is not seen.

use std::os::unix::fs::MetadataExt as _;

use mvedsua_common::syscalls::Moves;

use super::*;
use crate::ptrace::memory::Span;
use crate::ptrace::pagemap::PageMap;
use crate::record::IN_MAPPING;

const PAGE: u64 = 4096;

/// The files by their inodes. That two of two file systems may have the same does no harm: what is recorded is what is mapped.
///
/// Under `update` these are the files of shared mappings alone: a thread that runs without stops is looked at when it has mapped the
/// file already, and what stood there when it wrote is not known any more.
#[derive(Debug, Default)]
pub(super) struct MappedFiles {
    inodes: BTreeSet<u64>,
    /// Whether private mappings count, too.
    private: bool,
}

impl MappedFiles {
    /// Finds those of a process that has some from its parent.
    pub(super) fn of(pid: Pid) -> MappedFiles {
        // Of one that is gone there are none.
        let maps = procfs::maps(pid).unwrap_or_default();
        let inodes = maps.into_iter().filter(|map| map.inode != 0).map(|map| map.inode).collect();
        MappedFiles { inodes, private: true }
    }

    /// Takes note of a file that was mapped.
    pub(super) fn note(&mut self, process: &Process, call: &Call, ret: i64) {
        if let Treatment::MmapFile(_) = call.treatment
            && (self.private || call.entry.args[3] as i32 & libc::MAP_TYPE != libc::MAP_PRIVATE)
            && ret > 0
            && let Some(inode) = inode(process.pid, call.entry.args[4] as i32)
        {
            self.inodes.insert(inode);
        }
    }

    /// Records what a call has changed where its file is mapped.
    pub(super) fn capture<M: regions::Memory + ?Sized>(
        &self,
        process: &Process,
        entry: &CallEntry,
        ret: i64,
        capture: &mut Capture<'_, M>,
    ) {
        let Some((fd, at)) = written(entry).filter(|_| ret > 0 && !self.inodes.is_empty()) else { return };
        let Some(inode) = inode(process.pid, fd).filter(|inode| self.inodes.contains(inode)) else { return };
        let Some(end) = at.map_or_else(|| position(process.pid, fd), |at| at.checked_add(ret as u64)) else { return };
        let begin = end.saturating_sub(ret as u64);
        let maps = procfs::maps(process.pid).unwrap_or_default();
        let counts = |map: &procfs::Mapping| map.inode == inode && map.readable && (map.shared || self.private);
        let mapped = maps.into_iter().filter(counts);
        let changed = mapped.flat_map(|map| {
            let (from, to) = (begin.max(map.offset), end.min(map.offset + (map.end - map.start)));
            let place = |at: u64| map.start + (at - map.offset);
            let span = (from < to).then(|| Span { start: place(from), end: place(to) });
            span.into_iter().flat_map(move |span| if map.shared { vec![span] } else { untouched(process.pid, span) })
        });
        for (part, span) in (0..u16::MAX).zip(changed) {
            let (arg, addr, len) = (IN_MAPPING, span.start, span.len());
            capture.piece(regions::Region { arg, part, addr, len, check: regions::Check::Compared });
        }
    }
}

/// Returns the parts of a private mapping of a file that the program has not written to.
fn untouched(pid: Pid, span: Span) -> Vec<Span> {
    let whole = Span { start: span.start & !(PAGE - 1), end: span.end.next_multiple_of(PAGE) };
    let mut entries = Vec::new();
    // What nothing is known of is taken to be as the file is.
    if PageMap::open(pid).and_then(|pages| pages.read(whole, &mut entries)).is_err() {
        return vec![span];
    }
    let mut parts: Vec<Span> = Vec::new();
    for (page, entry) in (whole.start..whole.end).step_by(PAGE as usize).zip(entries) {
        if entry.is_own() {
            continue;
        }
        let (start, end) = (page.max(span.start), (page + PAGE).min(span.end));
        match parts.last_mut().filter(|last| last.end == start) {
            Some(last) => last.end = end,
            None => parts.push(Span { start, end }),
        }
    }
    parts
}

/// Returns the descriptor that a call writes to, and where; without that it is where the file was.
fn written(entry: &CallEntry) -> Option<(i32, Option<u64>)> {
    let args = &entry.args;
    let row = syscalls::row(entry.nr)?;
    let fd = row.first_descriptor(args)?;
    match (row.moves, i64::from(entry.nr)) {
        (Moves::Out, libc::SYS_pwritev2) => Some((fd, Some(args[3]).filter(|at| *at != u64::MAX))),
        (Moves::Out, _) | (Moves::Between, libc::SYS_sendfile) => Some((fd, None)),
        (Moves::OutTo, _) => Some((fd, Some(args[3]))),
        (Moves::Between, libc::SYS_copy_file_range | libc::SYS_splice) if args[3] == 0 => Some((args[2] as i32, None)),
        (Moves::Nothing | Moves::In | Moves::InFrom | Moves::Between | Moves::Connection, _) => None,
    }
}

fn inode(pid: Pid, fd: i32) -> Option<u64> {
    std::fs::metadata(format!("/proc/{pid}/fd/{fd}")).ok().filter(std::fs::Metadata::is_file).map(|meta| meta.ino())
}

/// Returns where in its file a descriptor stands.
fn position(pid: Pid, fd: i32) -> Option<u64> {
    let info = procfs::text(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("pos:"))?.trim().parse().ok()
}
