//! What a process reads of itself in `/proc`: the follower must see its own addresses, not the leader's.
//!
//! The files of [`OWN`] tell where memory is mapped (proc(5)), which is another thing in each version. So reading them is no
//! question to the world: the follower is answered from its own file, as often as it likes, and the leader's reads are
//! passed over. `stat` is mostly about what both have in common, such as the pid; there only the addresses are the
//! follower's ([`own_addresses`]). All other files of the process are supplied like any file: the pid, the descriptors
//! and the limits that a program sees are the leader's.
//!
//! `mem` is the memory itself: where a version reads or writes there is an address of its own, and what it writes goes into its own
//! memory.
//!
//! The follower's copies of mapped files have no names in its `maps`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mvedsua_common::syscalls::{self, Fds, Made};

use crate::matcher::Call;
use crate::ptrace::Pid;
use crate::ptrace::memory::Span;
use crate::record::{CallEntry, Piece};

/// Files that are the follower's own as a whole.
const OWN: [&str; 5] = ["maps", "smaps", "smaps_rollup", "numa_maps", "auxv"];
const STAT: &str = "stat";
const MEMORY: &str = "mem";
/// The fields of `stat` that are addresses, counted from 1 as proc_pid_stat(5) does: code and stack, then data, heap,
/// arguments and environment.
const ADDRESSES: [usize; 10] = [26, 27, 28, 45, 46, 47, 48, 49, 50, 51];

/// One open file.
#[derive(Debug)]
struct OwnFile {
    name: &'static str,
    text: Option<Vec<u8>>,
    at: usize,
}

/// What a call does to the memory of its own process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnMemory {
    Read(u64),
    Write(u64),
    Seek(u64),
}

/// The open files of one process that tell about itself.
#[derive(Debug, Default)]
pub(crate) struct OwnFiles {
    open: BTreeMap<i32, OwnFile>,
    /// What the program has been told its pid is, if it has asked.
    told: Option<i32>,
}

/// Returns the name of the file in the process's own folder that a path names.
fn named(path: &[u8], told: Option<i32>) -> Option<&'static str> {
    let path = std::str::from_utf8(path.strip_suffix(&[0]).unwrap_or(path)).ok()?;
    let (whose, name) = path.strip_prefix("/proc/")?.split_once('/')?;
    if whose != "self" && whose != "thread-self" && (told.is_none() || whose.parse().ok() != told) {
        return None;
    }
    OWN.into_iter().chain([STAT, MEMORY]).find(|own| *own == name)
}

impl OwnFiles {
    /// Takes note of what a call that was answered with `ret` does to the descriptors.
    pub(crate) fn note(&mut self, nr: u32, args: &[u64; 6], inputs: &[Piece], ret: i64) {
        match i64::from(nr) {
            libc::SYS_getpid => {
                self.told = i32::try_from(ret).ok();
            }
            libc::SYS_close => {
                self.open.remove(&(args[0] as i32));
            }
            libc::SYS_read | libc::SYS_write if ret > 0 => {
                if let Some(file) = self.memory_mut(args[0]) {
                    file.at += ret as usize;
                }
            }
            libc::SYS_lseek if ret >= 0 => {
                if let Some(file) = self.open.get_mut(&(args[0] as i32)) {
                    // What is read from the beginning is made anew.
                    file.text = file.text.take().filter(|_| ret > 0);
                    file.at = ret as usize;
                }
            }
            _ => self.note_opened(nr, inputs, ret),
        }
    }

    fn note_opened(&mut self, nr: u32, inputs: &[Piece], ret: i64) {
        let Some(row) = syscalls::row(nr).filter(|row| row.fds == Fds::Makes(Made::File)) else { return };
        let Ok(fd @ 0..) = i32::try_from(ret) else { return };
        if let Some(path) = inputs.iter().find(|piece| Some(piece.arg) == row.path())
            && let Some(name) = named(&path.bytes, self.told)
        {
            self.open.insert(fd, OwnFile { name, text: None, at: 0 });
        }
    }

    /// Forgets everything: the process executed another program, which closes most of them.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
    }

    /// Says whether a call reads a file that is each version's own.
    pub(crate) fn is_read_by(&self, nr: u32, args: &[u64; 6]) -> bool {
        [libc::SYS_read, libc::SYS_pread64].contains(&i64::from(nr))
            && self.open.get(&(args[0] as i32)).is_some_and(|file| OWN.contains(&file.name))
    }

    /// Says whether a call reads `stat`.
    pub(crate) fn is_stat_read_by(&self, nr: u32, args: &[u64; 6]) -> bool {
        i64::from(nr) == libc::SYS_read && self.open.get(&(args[0] as i32)).is_some_and(|file| file.name == STAT)
    }

    fn memory_mut(&mut self, fd: u64) -> Option<&mut OwnFile> {
        self.open.get_mut(&(fd as i32)).filter(|file| file.name == MEMORY)
    }

    /// Returns where in its memory a call reads or writes, or moves to, through `mem`.
    pub(crate) fn memory_at(&self, nr: u32, args: &[u64; 6]) -> Option<OwnMemory> {
        let file = self.open.get(&(args[0] as i32)).filter(|file| file.name == MEMORY)?;
        Some(match i64::from(nr) {
            libc::SYS_read => OwnMemory::Read(file.at as u64),
            libc::SYS_pread64 => OwnMemory::Read(args[3]),
            libc::SYS_write => OwnMemory::Write(file.at as u64),
            libc::SYS_pwrite64 => OwnMemory::Write(args[3]),
            libc::SYS_lseek if args[2] as i32 == libc::SEEK_SET => OwnMemory::Seek(args[1]),
            libc::SYS_lseek if args[2] as i32 == libc::SEEK_CUR => {
                OwnMemory::Seek((file.at as u64).wrapping_add(args[1]))
            }
            _ => return None,
        })
    }

    /// Returns the leader's call as it is in a version with other addresses.
    pub(crate) fn on_own_memory(&self, call: &Call, entry: &CallEntry) -> Option<CallEntry> {
        if call.nr != entry.nr || call.args[0] as i32 != entry.args[0] as i32 || call.args[2] != entry.args[2] {
            return None;
        }
        self.memory_at(call.nr, &call.args)?;
        Some(CallEntry { args: call.args, inputs: call.inputs.clone(), ..entry.clone() })
    }

    /// Returns what a call of [`OwnFiles::is_read_by`] reads in process `pid`, but for what is mapped in `hidden`.
    pub(crate) fn read(
        &mut self,
        nr: u32,
        args: &[u64; 6],
        pid: Pid,
        hidden: Option<Span>,
    ) -> std::io::Result<Vec<u8>> {
        let Some(file) = self.open.get_mut(&(args[0] as i32)) else { return Ok(Vec::new()) };
        let text = match &mut file.text {
            Some(text) => text,
            none => {
                let text = std::fs::read(PathBuf::from(format!("/proc/{pid}")).join(file.name))?;
                none.insert(hidden.map_or_else(|| text.clone(), |hidden| without(file.name, &text, hidden)))
            }
        };
        let positioned = i64::from(nr) == libc::SYS_pread64;
        let from = if positioned { args[3] as usize } else { file.at }.min(text.len());
        let len = (text.len() - from).min(args[2] as usize);
        if !positioned {
            file.at = from + len;
        }
        Ok(text[from..from + len].to_vec())
    }
}

/// Leaves out of a text about mappings those that lie in a span. Each begins with a line that begins with its address, and in
/// `smaps` others follow that do not.
fn without(name: &str, text: &[u8], hidden: Span) -> Vec<u8> {
    let address = |line: &[u8]| {
        let first = std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()?;
        let (start, range) = first.split_once('-').map_or((first, false), |(start, _)| (start, true));
        (range || name == "numa_maps").then_some(())?;
        u64::from_str_radix(start, 16).ok()
    };
    if name == "auxv" {
        return text.to_vec();
    }
    let mut is_hidden = false;
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| {
        if let Some(start) = address(line) {
            is_hidden = hidden.contains(start);
        }
        !is_hidden
    });
    lines.flatten().copied().collect()
}

/// Puts the addresses of one process's `stat` into the text of another's. Text that is not one whole line stays as it is.
pub(crate) fn own_addresses(leader: &[u8], own: &str) -> Vec<u8> {
    fn fields(text: &str) -> Option<(&str, Vec<&str>)> {
        // The second field, the name, may hold anything and ends at the last bracket.
        let (head, tail) = text.strip_suffix('\n')?.rsplit_once(") ")?;
        Some((head, tail.split(' ').collect()))
    }
    let rewritten = || {
        let (head, mut theirs) = fields(std::str::from_utf8(leader).ok()?)?;
        let (_, ours) = fields(own)?;
        for at in ADDRESSES.map(|field| field - 3) {
            // The kernel hides them, as 0 or 1, from those who may not see them.
            if theirs.get(at)?.len() > 1 {
                *theirs.get_mut(at)? = ours.get(at)?;
            }
        }
        Some(format!("{head}) {}\n", theirs.join(" ")).into_bytes())
    };
    rewritten().unwrap_or_else(|| leader.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{LeaderAddr, PieceDir};

    fn opened(path: &str) -> OwnFiles {
        let bytes = format!("{path}\0").into_bytes().into();
        let piece = Piece { arg: 1, part: 0, dir: PieceDir::In, addr: LeaderAddr(0), bytes };
        let mut files = OwnFiles::default();
        files.note(libc::SYS_getpid as u32, &[0; 6], &[], 77);
        files.note(libc::SYS_openat as u32, &[0; 6], &[piece], 5);
        files
    }

    const READ: u32 = libc::SYS_read as u32;

    #[test]
    fn only_what_tells_addresses_is_its_own() {
        let is_own = |path| opened(path).is_read_by(READ, &[5, 0, 100, 0, 0, 0]);
        assert!(is_own("/proc/self/maps") && is_own("/proc/77/smaps") && is_own("/proc/thread-self/auxv"));
        assert!(!is_own("/proc/78/maps") && !is_own("/proc/self/status") && !is_own("/etc/maps"));
        let memory = opened("/proc/self/mem");
        assert_eq!(
            memory.memory_at(libc::SYS_pwrite64 as u32, &[5, 0, 8, 0x7000, 0, 0]),
            Some(OwnMemory::Write(0x7000))
        );
        assert!(!is_own("/proc/self/mem") && opened("/proc/78/mem").memory_at(READ, &[5, 0, 8, 0, 0, 0]).is_none());
        assert!(!is_own("/proc/self/stat") && opened("/proc/self/stat").is_stat_read_by(READ, &[5, 0, 9, 0, 0, 0]));
    }

    #[test]
    fn the_text_is_read_in_pieces_and_again_from_the_beginning() {
        let mut files = opened("/proc/self/maps");
        let me = Pid(std::process::id() as i32);
        let first = files.read(READ, &[5, 0, 10, 0, 0, 0], me, None).unwrap();
        let second = files.read(READ, &[5, 0, 10, 0, 0, 0], me, None).unwrap();
        assert_eq!((first.len(), second.len()), (10, 10));
        files.note(libc::SYS_lseek as u32, &[5, 0, 0, 0, 0, 0], &[], 0);
        assert_eq!(files.read(READ, &[5, 0, 10, 0, 0, 0], me, None).unwrap(), first);
        let positioned = libc::SYS_pread64 as u32;
        assert_eq!(files.read(positioned, &[5, 0, 10, 10, 0, 0], me, None).unwrap(), second);
        files.note(libc::SYS_close as u32, &[5, 0, 0, 0, 0, 0], &[], 0);
        assert!(!files.is_read_by(READ, &[5, 0, 10, 0, 0, 0]));
    }

    #[test]
    fn memory_is_read_where_the_program_stands_in_it() {
        let mut memory = opened("/proc/self/mem");
        let seek = libc::SYS_lseek as u32;
        assert_eq!(memory.memory_at(seek, &[5, 0x7000, 0, 0, 0, 0]), Some(OwnMemory::Seek(0x7000)));
        memory.note(seek, &[5, 0x7000, 0, 0, 0, 0], &[], 0x7000);
        memory.note(libc::SYS_write as u32, &[5, 0, 8, 0, 0, 0], &[], 8);
        assert_eq!(memory.memory_at(READ, &[5, 0, 8, 0, 0, 0]), Some(OwnMemory::Read(0x7008)));
    }

    #[test]
    fn what_is_hidden_is_left_out_with_all_that_is_said_of_it() {
        let hidden = Span { start: 0x2000, end: 0x4000 };
        let left = |name, text: &str| String::from_utf8(without(name, text.as_bytes(), hidden)).unwrap();
        assert_eq!(
            left("maps", "1000-2000 r a\n2000-3000 r b\n3000-4000 r c\n4000-5000 r d\n"),
            "1000-2000 r a\n4000-5000 r d\n"
        );
        assert_eq!(
            left("smaps", "1000-2000 r\nRss: 1\n2000-3000 r\nRss: 2\n4000-5000 r\nRss: 3\n"),
            "1000-2000 r\nRss: 1\n4000-5000 r\nRss: 3\n"
        );
        assert_eq!(left("numa_maps", "1000 default\n3000 default\n"), "1000 default\n");
    }

    #[test]
    fn stat_keeps_all_but_its_addresses() {
        let line = |pid: u32, address: u64| {
            let fields: Vec<String> = (3..=52)
                .map(|field| if ADDRESSES.contains(&field) { address.to_string() } else { field.to_string() })
                .collect();
            format!("{pid} (a ) b) {}\n", fields.join(" "))
        };
        let mixed = own_addresses(line(7, 111).as_bytes(), &line(8, 2222));
        assert_eq!(String::from_utf8(mixed).unwrap(), line(7, 2222));
        assert_eq!(own_addresses(b"7 (cut", &line(8, 2)), b"7 (cut");
    }
}
