//! Whether anything leads to what is over: a word of memory, a register, or what the kernel keeps for an epoll set.
//!
//! Any aligned word that could be such an address counts as one. A number that looks like it is found too, and the update does
//! not happen for it; an address that is kept in another form is not found.

use std::path::Path;

use crate::ptrace::Result;
use crate::ptrace::memory::Span;
use crate::ptrace::pagemap::PageMap;
use crate::ptrace::procfs::{self, Mapping};
use crate::ptrace::sys::{self, Regs};
use crate::update::method::Follower;

/// So much is read at once.
const PIECE: u64 = 1 << 20;
/// Below its stack pointer a function may use so much (System V ABI, "red zone").
const RED_ZONE: u64 = 128;

/// Says what leads to one of these places, and is not in one of them itself; nothing where nothing does.
pub(super) fn leads_to(follower: &Follower<'_>, over: &[(Span, String)]) -> Result<Option<String>> {
    let process = follower.process;
    let named = |value: u64| over.iter().find(|(span, _)| span.contains(value)).map(|(_, name)| name.as_str());
    let mut main_stack = 0;
    for tid in process.threads.tids() {
        let regs = sys::get_regs(tid)?;
        if tid == process.pid.main() {
            main_stack = regs.rsp;
        }
        if let Some((register, name)) =
            registers(&regs).into_iter().find_map(|(name, value)| Some((name, named(value)?)))
        {
            return Ok(Some(format!("register {register} of thread {tid} leads to {name}")));
        }
    }
    for descriptor in procfs::descriptors(follower.leader)? {
        if descriptor.target == Path::new("anon_inode:[eventpoll]") {
            let entries = procfs::epoll_entries(follower.leader, descriptor.fd).unwrap_or_default();
            if let Some(name) = entries.iter().find_map(|entry| named(entry.data)) {
                return Ok(Some(format!("the epoll set {} leads to {name}", descriptor.fd)));
            }
        }
    }
    let pages = PageMap::open(process.pid)?;
    let mut piece = vec![0; PIECE as usize];
    for area in procfs::maps(process.pid)?.iter().filter(|area| area.writable) {
        let start = if area.name == "[stack]" && (area.start..area.end).contains(&main_stack) {
            (main_stack - RED_ZONE) & !7
        } else {
            area.start
        };
        for span in pages.populated(Span { start: area.start, end: area.end })? {
            let mut at = span.start.max(start);
            while at < span.end {
                let len = usize::try_from((span.end - at).min(PIECE)).unwrap_or(0);
                let got = process.memory.read_some(at, &mut piece[..len]);
                if let Some((place, name)) = first(&piece[..got], at, over, &named) {
                    return Ok(Some(format!("the word at {place:#x}{} leads to {name}", of(area))));
                }
                at += len as u64;
            }
        }
    }
    Ok(None)
}

fn first<'n>(
    bytes: &[u8],
    start: u64,
    over: &[(Span, String)],
    named: &dyn Fn(u64) -> Option<&'n str>,
) -> Option<(u64, &'n str)> {
    let (words, _) = bytes.as_chunks::<8>();
    // Few words are anywhere near.
    let lowest = over.iter().map(|(span, _)| span.start).min()?;
    let highest = over.iter().map(|(span, _)| span.end).max()?;
    words.iter().zip((start..).step_by(8)).find_map(|(word, place)| {
        let value = u64::from_le_bytes(*word);
        if value < lowest || highest <= value {
            return None;
        }
        let name = named(value)?;
        over.iter().all(|(span, _)| !span.contains(place)).then_some((place, name))
    })
}

fn of(area: &Mapping) -> String {
    match Path::new(&area.name).file_name() {
        Some(name) => format!(" ({})", name.to_string_lossy()),
        None => String::new(),
    }
}

fn registers(regs: &Regs) -> [(&'static str, u64); 15] {
    [
        ("rax", regs.rax),
        ("rbx", regs.rbx),
        ("rcx", regs.rcx),
        ("rdx", regs.rdx),
        ("rsi", regs.rsi),
        ("rdi", regs.rdi),
        ("rbp", regs.rbp),
        ("r8", regs.r8),
        ("r9", regs.r9),
        ("r10", regs.r10),
        ("r11", regs.r11),
        ("r12", regs.r12),
        ("r13", regs.r13),
        ("r14", regs.r14),
        ("r15", regs.r15),
    ]
}
