//! Return addresses on the stack of a stopped thread.
//!
//! Servers are built without frame pointers, so the unwind tables of the executable and its libraries (`.eh_frame`), and of what
//! updates have loaded, are read; where there are none the frame pointer is tried.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, Module, Unwinder};
use object::{Object, ObjectSection, ObjectSegment};

use crate::ptrace::Pid;
use crate::ptrace::memory::Memory;
use crate::ptrace::procfs;
use crate::tracee::loaded::{self, Loaded};

/// The registers that a stack is unwound from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    pub rip: u64,
    pub rsp: u64,
    pub rbp: u64,
}

/// A stack that does not end is cut here.
const DEPTH: usize = 64;

/// Returns the instruction pointer and, for each caller, an address within its call instruction, innermost first.
///
/// `read` gives the word at an address of the process's memory, if it can be read. The process must be stopped.
pub fn unwind(pid: i32, registers: Registers, read: impl FnMut(u64) -> Option<u64>) -> Vec<u64> {
    Tables::of(pid).unwind(registers, DEPTH, read).addresses
}

/// The unwind tables of a process, for many stacks.
pub struct Tables {
    unwinder: UnwinderX86_64<Vec<u8>>,
    cache: CacheX86_64,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

/// A stack as far as it could be followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// The instruction pointer and, for each caller, an address within its call instruction, innermost first.
    pub addresses: Vec<u64>,
    /// The first function of the thread is among them.
    pub is_whole: bool,
}

impl Tables {
    /// Reads the tables of what a process has mapped now.
    #[must_use]
    pub fn of(pid: i32) -> Tables {
        let mut unwinder: UnwinderX86_64<Vec<u8>> = UnwinderX86_64::new();
        for module in modules(pid).into_iter().chain(loaded(pid)) {
            unwinder.add_module(module);
        }
        Tables { unwinder, cache: CacheX86_64::new() }
    }

    /// Follows a stack for at most `depth` frames.
    pub fn unwind(&mut self, registers: Registers, depth: usize, mut read: impl FnMut(u64) -> Option<u64>) -> Frames {
        let mut read = |address| read(address).ok_or(());
        let start = UnwindRegsX86_64::new(registers.rip, registers.rsp, registers.rbp);
        let mut walk = self.unwinder.iter_frames(registers.rip, start, &mut self.cache, &mut read);
        let mut frames = Frames::default();
        while frames.addresses.len() < depth {
            match walk.next() {
                Ok(Some(frame)) => frames.addresses.push(frame.address_for_lookup()),
                Ok(None) => {
                    frames.is_whole = true;
                    break;
                }
                Err(_) => break,
            }
        }
        frames
    }
}

/// Returns the executable and the libraries that are mapped, with their unwind tables.
fn modules(pid: i32) -> Vec<Module<Vec<u8>>> {
    let maps = procfs::text(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mut files: BTreeMap<&str, Range<u64>> = BTreeMap::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let range = fields.next().and_then(|range| range.split_once('-'));
        let path = fields.nth(4).filter(|path| path.starts_with('/'));
        let (Some((start, end)), Some(path)) = (range, path) else { continue };
        let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else { continue };
        let whole = files.entry(path).or_insert(start..end);
        *whole = whole.start.min(start)..whole.end.max(end);
    }
    files.into_iter().filter_map(|(path, range)| module(pid, path, range)).collect()
}

/// Returns what updates have loaded beside the files, with the unwind tables that were loaded with it.
fn loaded(pid: i32) -> Vec<Module<Vec<u8>>> {
    let Ok(memory) = Memory::open(Pid(pid)) else { return vec![] };
    let module = |loaded: &Loaded| {
        let (start, len) = loaded.frames?;
        let end = start.checked_add(len)?;
        let tables = memory.read_vec(start, usize::try_from(len).ok()?).ok()?;
        let first = loaded.functions.iter().map(|function| function.start).min()?;
        let last = loaded.functions.iter().map(|function| function.end).max()?;
        // Addresses in the process serve as those of the file.
        let base = first.min(start);
        let sections = ExplicitModuleSectionInfo {
            base_svma: base,
            eh_frame_svma: Some(start..end),
            eh_frame: Some(tables),
            ..Default::default()
        };
        Some(Module::new(loaded.name.clone(), base..last.max(end), base, sections))
    };
    loaded::of(Pid(pid)).iter().filter_map(module).collect()
}

fn module(pid: i32, path: &str, range: Range<u64>) -> Option<Module<Vec<u8>>> {
    // Through the process's root: it may live in another mount namespace.
    let root = format!("/proc/{pid}/root");
    let path_there = Path::new(&root).join(path.trim_start_matches('/'));
    // Shared memory is mapped under the name of a device that never ends.
    if !fs::metadata(&path_there).ok()?.is_file() {
        return None;
    }
    let bytes = fs::read(path_there).ok()?;
    let file = object::File::parse(&*bytes).ok()?;
    let section = |name: &str| {
        let section = file.section_by_name(name)?;
        Some((section.address()..section.address() + section.size(), section.data().ok()?.to_vec()))
    };
    let first = file.segments().map(|segment| segment.address()).min()?;
    let (text_svma, text) = section(".text").unzip();
    let (eh_frame_svma, eh_frame) = section(".eh_frame").unzip();
    let (eh_frame_hdr_svma, eh_frame_hdr) = section(".eh_frame_hdr").unzip();
    let sections = ExplicitModuleSectionInfo {
        base_svma: first & !0xfff,
        text_svma,
        text,
        eh_frame_svma,
        eh_frame,
        eh_frame_hdr_svma,
        eh_frame_hdr,
        got_svma: section(".got").map(|(range, _)| range),
        ..Default::default()
    };
    Some(Module::new(path.to_owned(), range.clone(), range.start, sections))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::FileExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::symbols::symbolize;

    /// A thread that sleeps in the kernel shows its registers in `/proc/<pid>/syscall`; no tracer is needed.
    #[test]
    fn a_sleeping_program_without_frame_pointers_is_unwound() {
        let code = "import time\nprint('up', flush=True)\ntime.sleep(1000)";
        let mut child =
            Command::new("/usr/bin/python3").args(["-c", code]).stdout(Stdio::piped()).spawn().expect("python3 runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = child.id() as i32;
        let registers = (0..10_000).find_map(|_| {
            let text = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
            let fields: Vec<&str> = text.split_whitespace().collect();
            let word = |index: usize| u64::from_str_radix(fields.get(index)?.trim_start_matches("0x"), 16).ok();
            // 230 is clock_nanosleep.
            if *fields.first()? != "230" {
                std::thread::yield_now();
                return None;
            }
            Some(Registers { rip: word(8)?, rsp: word(7)?, rbp: 0 })
        });
        let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let read = |address| {
            let mut word = [0; 8];
            memory.read_exact_at(&mut word, address).ok().map(|()| u64::from_le_bytes(word))
        };
        let addresses = registers.map(|registers| unwind(pid, registers, read));
        let symbols = addresses.map(|addresses| symbolize(pid, &addresses));
        child.kill().unwrap();
        child.wait().unwrap();
        let symbols: Vec<_> = symbols.expect("python sleeps").into_iter().filter_map(|frame| frame.symbol).collect();
        assert!(symbols.iter().any(|symbol| symbol.contains("nanosleep")), "{symbols:#?}");
        assert!(symbols.iter().any(|symbol| symbol.contains("Py_RunMain")), "{symbols:#?}");
    }
}
