//! Where the code of a library reads the counter.
//!
//! To trap all of a thread's reads for the sake of a library would stop it at each question for the time as well, which the
//! vDSO answers by the counter; and most programs that have such a library never come to the place. So the instruction itself is
//! replaced, in the one process, by one of the same length that the kernel forbids: `int 0x31` or `int 0x32`. It ends in the
//! same signal as a trapped read, and is executed in the same way. Nobody else uses these, and they are told from it.
//!
//! That is done only where it is certain that an instruction stands there: its bytes occur in tables of constants too, which
//! lie between the functions. The unwind table says where each function begins and ends (`.eh_frame_hdr`, Linux Standard Base,
//! 10.6.2); an instruction counts that decoding comes to from the beginning of its function. A read that is not found so is
//! not trapped.
//!
//! A program whose tracer was killed crashes when it comes to such a place. It is not ended with the tracer for that: most
//! have the place in some library and never come there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use memchr::memmem;
use mvedsua_common::syscalls::instructions::{RDTSC, RDTSCP};
use object::{Object, ObjectSection, ObjectSegment, ReadCache};

use super::super::extents;
use super::{Error, Result, arrives, is_executable};

/// The C library reads the counter to spin a little longer or shorter for a lock, its loader for statistics. Nothing else
/// depends on it, and all programs have both.
const WITHOUT_EFFECT: [&str; 3] = ["libc.so.6", "libc-2.", "ld-linux-x86-64.so.2"];
/// An `.eh_frame_hdr` of version 1 with the encodings that linkers write: relative addresses of four bytes each.
const KNOWN_TABLE: [u8; 4] = [1, 0x1b, 0x03, 0x3b];

/// An instruction that reads the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Where it stands in its file.
    pub(crate) offset: u64,
    /// Which it is.
    nr: u32,
}

impl Site {
    /// Returns the bytes of the instruction.
    pub(crate) fn bytes(self) -> &'static [u8] {
        if self.nr == RDTSC { &[0x0f, 0x31] } else { &[0x0f, 0x01, 0xf9] }
    }

    /// Returns the bytes that are to stand in its place.
    pub(crate) fn trap(self) -> &'static [u8] {
        if self.nr == RDTSC { &[0xcd, 0x31] } else { &[0xcd, 0x32, 0x90] }
    }
}

/// Returns which instruction a trap stands for.
pub(super) fn replaced(code: &[u8]) -> Option<u32> {
    match code {
        [0xcd, 0x31, ..] => Some(RDTSC),
        [0xcd, 0x32, 0x90, ..] => Some(RDTSCP),
        _ => None,
    }
}

/// How much code is looked through at once, and the longest function that is decoded from its beginning.
const AT_ONCE: u64 = 1 << 20;
/// The longest of the instructions that are looked for, and how much of the code behind its beginning is decoded.
const LONGEST: u64 = 3;
const DECODED: u64 = 16;

/// A file, by device, inode and time of the last change, and a range of it.
type Key = (u64, u64, i64, i64, u64, u64);

/// What is known of files.
static KNOWN: Mutex<BTreeMap<Key, Arc<[Site]>>> = Mutex::new(BTreeMap::new());

/// Returns where the code in a range of a library reads the counter; `file` may be a link of `/proc` to an open descriptor.
/// Nothing but that range is looked at, and of that not what was never written: a program may map a little of a file that is
/// larger than all memory.
pub(crate) fn of(file: &Path, range: Range<u64>) -> Result<Arc<[Site]>> {
    let failed = |source| Error::Proc { path: file.display().to_string(), source };
    let name = std::fs::read_link(file).unwrap_or_else(|_| file.to_owned());
    let name = name.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if WITHOUT_EFFECT.iter().any(|one| name.starts_with(one)) {
        return Ok(Arc::from([]));
    }
    let meta = std::fs::metadata(file).map_err(failed)?;
    if !meta.is_file() {
        return Ok(Arc::from([]));
    }
    let key = (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), range.start, range.end);
    if let Some(known) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(Arc::clone(known));
    }
    let sites: Arc<[Site]> = find(&File::open(file).map_err(failed)?, range).map_err(failed)?.into();
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&sites));
    Ok(sites)
}

fn find(file: &File, range: Range<u64>) -> io::Result<Vec<Site>> {
    let mut head = Vec::new();
    extents::read(file, 0..object::elf::ELFMAG.len() as u64, &mut head)?;
    if head != object::elf::ELFMAG {
        return Ok(Vec::new());
    }
    // Reads what it is asked for and no more.
    let parts = ReadCache::new(file);
    let Ok(library) = object::File::parse(&parts) else { return Ok(Vec::new()) };
    let mut sites = Vec::new();
    let mut functions = None;
    let mut bytes = Vec::new();
    for segment in library.segments().filter(|segment| is_executable(segment.flags())) {
        let (begin, len) = segment.file_range();
        let end = begin.saturating_add(len).min(range.end);
        for data in extents::of(file, begin.max(range.start)..end)? {
            for start in data.clone().step_by(AT_ONCE as usize) {
                extents::read(file, start..(start + AT_ONCE + LONGEST - 1).min(data.end), &mut bytes)?;
                for (at, nr) in reads_in(&bytes).filter(|(at, _)| *at < AT_ONCE) {
                    let offset = start + at;
                    let place = segment.address() + (offset - begin);
                    let functions = functions.get_or_insert_with(|| begins_and_ends(&library));
                    let before = functions.partition_point(|(begin, _)| *begin <= place);
                    let Some((first, last)) = before.checked_sub(1).map(|at| functions[at]) else { continue };
                    let into = place - first;
                    if place >= last || first < segment.address() || into > AT_ONCE {
                        continue;
                    }
                    let mut code = Vec::new();
                    extents::read(file, offset - into..offset + DECODED, &mut code)?;
                    if arrives(&code, into as usize) {
                        sites.push(Site { offset, nr });
                    }
                }
            }
        }
    }
    Ok(sites)
}

/// Returns the places where the bytes of an instruction stand that reads the counter, and which it is.
fn reads_in(code: &[u8]) -> impl Iterator<Item = (u64, u32)> {
    let found = |pattern: &'static [u8], nr| memmem::find_iter(code, pattern).map(move |at| (at as u64, nr));
    found(&[0x0f, 0x31], RDTSC).chain(found(&[0x0f, 0x01, 0xf9], RDTSCP))
}

/// Returns the addresses of all functions, in order; nothing where the table is not of the known kind.
fn begins_and_ends<'a>(file: &object::File<'a, &'a ReadCache<&'a File>>) -> Vec<(u64, u64)> {
    let (Some(table), Some(frames)) = (file.section_by_name(".eh_frame_hdr"), file.section_by_name(".eh_frame")) else {
        return Vec::new();
    };
    let (Ok(head), Ok(data)) = (table.data(), frames.data()) else { return Vec::new() };
    if head.get(..4) != Some(&KNOWN_TABLE[..]) {
        return Vec::new();
    }
    let near = |word: &[u8]| table.address().wrapping_add_signed(i64::from(word_of(word) as i32));
    let entries = head.get(12..).unwrap_or_default().as_chunks::<8>().0.iter();
    let mut functions: Vec<(u64, u64)> = entries
        .filter_map(|entry| {
            let (begin, frame) = (near(&entry[..4]), near(&entry[4..]));
            let at = usize::try_from(frame.checked_sub(frames.address())?).ok()?;
            // Its length, its common entry, then begin and size of the function.
            let description = data.get(at..at.checked_add(16)?)?;
            let says = (frame + 8).wrapping_add_signed(i64::from(word_of(&description[8..12]) as i32));
            (says == begin).then(|| (begin, begin + u64::from(word_of(&description[12..16]))))
        })
        .collect();
    functions.sort_unstable();
    functions
}

fn word_of(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_read_is_found_and_a_table_that_looks_like_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let (source, library) = (dir.path().join("clock.c"), dir.path().join("libclock.so"));
        let text = r#"
            __asm__(".text\n.globl table\ntable:\n.rept 64\n.byte 0x0f, 0x31\n.endr\n");
            unsigned long long stamp(void) { return __builtin_ia32_rdtsc(); }
            unsigned long long both(void) { unsigned aux; return __builtin_ia32_rdtscp(&aux) + aux; }
            unsigned long constant(unsigned long x) { return x * 0x310f310f310f310f; }
        "#;
        std::fs::write(&source, text).expect("written");
        let compile = Command::new("gcc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
        assert!(compile.expect("gcc").success());
        let bytes = std::fs::read(&library).expect("a library");
        let len = bytes.len() as u64;
        let sites = of(&library, 0..len).expect("looked at");
        assert_eq!(sites.iter().map(|site| site.nr).collect::<Vec<_>>(), [RDTSC, RDTSCP]);
        for site in sites.iter() {
            let at = site.offset as usize;
            assert_eq!(&bytes[at..at + site.bytes().len()], site.bytes());
            assert_eq!(replaced(site.trap()), Some(site.nr));
            assert_eq!(site.trap().len(), site.bytes().len());
        }
    }

    #[test]
    fn what_is_no_library_has_none() {
        for text in [&b"#!/bin/sh\n"[..], b"", b"\x7fELF", b"\x7fELF\x02\x01\x01 and what is none"] {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(text).expect("written");
            assert_eq!(*of(file.path(), 0..4096).expect("looked at"), []);
        }
    }

    #[test]
    fn of_a_huge_file_nothing_but_what_is_mapped_is_looked_at() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::copy("/proc/self/exe", file.path()).expect("copied");
        file.as_file().set_len(1 << 43).expect("it grows");
        assert_eq!(*of(file.path(), 1 << 42..(1 << 42) + 4096).expect("looked at"), []);
        let all = of(file.path(), 0..1 << 43).expect("looked at");
        let real = of(Path::new("/proc/self/exe"), 0..u64::MAX).expect("looked at");
        assert_eq!(all, real);
    }
}
