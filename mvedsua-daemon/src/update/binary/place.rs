//! Where in a process a file lies, and where its next version can lie so that its jumps reach the old one.

use mvedsua_binary::patch::{PAGE, Patch, REACH};

use super::{FileChange, unfit};
use crate::ptrace::Result;
use crate::ptrace::memory::Span;
use crate::ptrace::procfs::Mapping;

/// No mapping of the program is nearer than this to what is loaded: stacks grow, and so do areas beside each other.
const APART: u64 = 1 << 20;
/// So much of the reach of a jump is not used.
const MARGIN: u64 = 16 << 20;
/// No address below is given out, and none above.
const LOWEST: u64 = 1 << 16;
const HIGHEST: u64 = 0x7fff_ffff_f000;

/// Returns what is added to addresses of a file, where it is mapped to be executed.
pub(super) fn base_of(maps: &[Mapping], file: &FileChange, patch: &Patch) -> Result<u64> {
    let own: Vec<&Mapping> =
        maps.iter().filter(|area| (area.device, area.inode) == file.mapped && !area.shared).collect();
    let len = patch.old.end - patch.old.start;
    // A program may have mapped the file once more, to read it.
    let is_executed = |first: &&&Mapping| {
        let whole = Span { start: first.start, end: first.start.saturating_add(len) };
        own.iter().any(|area| area.executable && whole.contains(area.start))
    };
    let firsts: Vec<_> = own.iter().filter(|area| area.offset == 0).filter(is_executed).collect();
    match firsts.as_slice() {
        [first] => Ok(first.start.wrapping_sub(patch.old.start)),
        [] => Err(unfit(format!("{} is not mapped any more", file.name))),
        _ => Err(unfit(format!("{} is mapped {} times to be executed", file.name, firsts.len()))),
    }
}

/// Returns free addresses for `len` bytes from which jumps reach all of `old`, and back; `is_low` asks for some below 2 GiB.
///
/// Of those that are possible the lowest is taken: what the kernel gives out to the program grows down from the libraries.
/// The program's own data grows up from the end of its executable; behind that the highest is taken.
pub(super) fn choose(maps: &[Mapping], old: Span, len: u64, is_low: bool) -> Result<u64> {
    let mut used: Vec<(u64, u64, bool)> = maps
        .iter()
        .map(|area| (area.start, area.end, area.name == "[heap]" || old.contains(area.end.wrapping_sub(1))))
        .collect();
    used.push((HIGHEST, u64::MAX, false));
    used.sort_unstable();
    let reach = REACH - MARGIN;
    let lowest = old.end.saturating_sub(reach).max(LOWEST);
    let highest = old.start.saturating_add(reach).min(if is_low { reach } else { HIGHEST }).saturating_sub(len);
    let (mut end, mut grows) = (0u64, false);
    for (start, next, is_heap) in used {
        let near = end.saturating_add(APART);
        let from = near.max(lowest).next_multiple_of(PAGE);
        let to = start.saturating_sub(APART + len).min(highest) / PAGE * PAGE;
        if from <= to {
            return Ok(if grows && from == near.next_multiple_of(PAGE) { to } else { from });
        }
        if next > end {
            (end, grows) = (next, is_heap);
        }
    }
    Err(unfit(format!("there are no {len} free bytes within 2 GiB of {:#x}", old.start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, end: u64) -> Mapping {
        let name = String::new();
        let (readable, writable, executable, shared) = (true, false, false, false);
        Mapping { start, end, readable, writable, executable, shared, offset: 0, device: 1, inode: 2, name }
    }

    #[test]
    fn there_is_room_below_an_executable() {
        let (start, end) = (0x5555_5555_0000, 0x5555_5575_0000);
        let maps = [mapping(start, end), mapping(end + 0x1000, end + 0x200_0000)];
        let at = choose(&maps, Span { start, end }, 1 << 20, false).expect("there is room");
        assert!(at + (1 << 20) <= start - APART && end - at < REACH);
    }

    #[test]
    fn what_is_taken_is_not_given_and_what_is_too_far_is_none() {
        let (start, end) = (0x7fff_f000_0000, 0x7fff_f100_0000);
        let wall = mapping(end - REACH - (1 << 30), start);
        let old = Span { start, end };
        let at = choose(&[wall.clone(), mapping(start, end)], old, 1 << 20, false).expect("there is room above");
        assert!(at >= end + APART && at + (1 << 20) - start < REACH);
        let ceiling = mapping(end, HIGHEST);
        assert!(choose(&[wall, mapping(start, end), ceiling], old, 1 << 20, false).is_err());
        let low = Span { start: 0x40_0000, end: 0x50_0000 };
        let at = choose(&[mapping(0x40_0000, 0x50_0000)], low, 1 << 30, true).expect("there is room");
        assert!(at >= 0x50_0000 + (512 << 20), "the heap has room to grow");
        assert!(at + (1 << 30) < REACH);
    }
}
