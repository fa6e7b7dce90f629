//! Where the agent lies in a process.

use std::collections::BTreeSet;
use std::ops::Range;

use mvedsua_agent::layout::{ANSWERS_LEN, WORDS_LEN};

use super::words::Answers;
use crate::ptrace::inject::Remote;
use crate::ptrace::memory::Memory;
use crate::ptrace::procfs::{self, Mapping};
use crate::ptrace::window::Window;
use crate::ptrace::{Error, Pid, Result, ring};

/// Threads that have answers. Others stop at their calls.
const THREADS: u32 = 16;
/// Bytes of the agent and the stubs.
const CODE: u64 = 32 << 10;
const WORDS: u64 = WORDS_LEN * THREADS as u64;
const ANSWERS: u64 = ANSWERS_LEN * THREADS as u64;
/// How far a jump leads, with some room.
const REACH: u64 = (1 << 31) - (64 << 20);
/// The lowest address that is mapped (`vm.mmap_min_addr` is below everywhere).
const LOWEST: u64 = 0x1_0000;
/// The highest address of a program, and the room that a stack is left to grow.
const HIGHEST: u64 = 0x7fff_ffff_f000;
const BELOW_STACK: u64 = 1 << 30;

/// The agent's area: code, then the threads' words, then their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) base: u64,
}

impl Area {
    pub(crate) const LEN: u64 = CODE + WORDS + ANSWERS;

    pub(crate) fn end(self) -> u64 {
        self.base + Self::LEN
    }

    pub(super) fn words(self, index: u32) -> u64 {
        self.base + CODE + u64::from(index) * WORDS_LEN
    }

    pub(super) fn answers(self, index: u32) -> u64 {
        self.base + CODE + WORDS + u64::from(index) * ANSWERS_LEN
    }
}

/// Returns a free place from which jumps lead to `near` and back. Nobody is hindered there: neither the heap nor a stack would
/// grow into it.
pub(super) fn free_place(maps: &[Mapping], near: u64, len: u64) -> Option<u64> {
    let mut free: Vec<Range<u64>> = Vec::new();
    let mut last = LOWEST;
    for mapping in maps {
        let grows_up = maps.iter().any(|below| below.end == last && below.name == "[heap]");
        let end = if mapping.name == "[stack]" { mapping.start.saturating_sub(BELOW_STACK) } else { mapping.start };
        if !grows_up && end > last && end - last >= len {
            free.push(last..end);
        }
        last = mapping.end.max(last);
    }
    if last < HIGHEST {
        free.push(last..HIGHEST);
    }
    // The end of a gap that lies below, or the beginning of one that lies above.
    let place = |gap: &Range<u64>| if gap.end <= near { Some(gap.end - len) } else { Some(gap.start) };
    let distance = |at: &u64| at.abs_diff(near).max((at + len).abs_diff(near));
    free.iter().filter_map(place).filter(|at| distance(at) < REACH).min_by_key(distance)
}

/// The area of one process, and the daemon's view of it.
#[derive(Debug)]
pub(crate) struct Mapped {
    area: Area,
    /// Where the rings lie that threads find.
    rings: Range<u64>,
    pub(super) words: Window,
    pub(super) answers: Window,
    taken: BTreeSet<u32>,
    /// Where the next stub goes.
    next_stub: u64,
}

impl Mapped {
    pub(super) fn create(
        remote: &mut Remote<'_>,
        pid: Pid,
        memory: &Memory,
        near: u64,
        (agent, rings): (&[u8], ring::Area),
    ) -> Result<Mapped> {
        let Some(base) = free_place(&procfs::maps(pid)?, near, Area::LEN) else {
            return Err(Error::Unsupported(format!("no free place near {near:#x} for the agent")));
        };
        let area = Area { base };
        let made = Mapped::map(remote, pid, area).and_then(|(words, answers)| {
            memory.force(base, agent)?;
            let next_stub = (base + agent.len() as u64).next_multiple_of(16);
            let rings = rings.first_ring()..rings.end();
            Ok(Mapped { area, rings, words, answers, taken: BTreeSet::new(), next_stub })
        });
        if made.is_err() {
            remote.raw(libc::SYS_munmap, [base, Area::LEN, 0, 0, 0, 0])?;
        }
        made
    }

    fn map(remote: &mut Remote<'_>, pid: Pid, area: Area) -> Result<(Window, Window)> {
        let fixed = (libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE) as u64;
        let (private, shared) = (fixed | libc::MAP_PRIVATE as u64, fixed | libc::MAP_SHARED as u64);
        let write = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let execute = (libc::PROT_READ | libc::PROT_EXEC) as u64;
        let (words, answers) = (area.words(0), area.answers(0));
        let parts =
            [(area.base, CODE, execute, private), (words, WORDS, write, shared), (answers, ANSWERS, write, shared)];
        for (at, len, protection, flags) in parts {
            let place = remote.call("mmap", libc::SYS_mmap, [at, len, protection, flags, u64::MAX, 0])?;
            if place != at {
                // A kernel before 4.17 takes the address for a wish.
                remote.call("munmap", libc::SYS_munmap, [place, len, 0, 0, 0, 0])?;
                return Err(Error::Unsupported(format!("{at:#x} is not free for the agent")));
            }
            for advice in [libc::MADV_DONTFORK, libc::MADV_DONTDUMP] {
                remote.call("madvise", libc::SYS_madvise, [at, len, advice as u64, 0, 0, 0])?;
            }
        }
        let windows = (Window::map(pid, words, words + WORDS)?, Window::map(pid, answers, answers + ANSWERS)?);
        remote.call("mprotect", libc::SYS_mprotect, [answers, ANSWERS, libc::PROT_READ as u64, 0, 0, 0])?;
        Ok(windows)
    }

    pub(super) fn area(&self) -> Area {
        self.area
    }

    pub(super) fn rings(&self) -> &Range<u64> {
        &self.rings
    }

    pub(super) fn entry(&self) -> u64 {
        self.area.base
    }

    pub(super) fn has_code(&self, rip: u64) -> bool {
        (self.area.base..self.area.base + CODE).contains(&rip)
    }

    pub(super) fn room_for_stub(&mut self, site: u64, len: u64) -> Option<u64> {
        let at = self.next_stub;
        let fits = at + len <= self.area.base + CODE && self.area.base.abs_diff(site) < REACH;
        fits.then(|| {
            self.next_stub += len;
            at
        })
    }

    pub(super) fn give(&mut self, times: u64) -> Option<Answers> {
        let index = (0..THREADS).find(|index| !self.taken.contains(index))?;
        self.taken.insert(index);
        Some(Answers::new(self, index, times))
    }

    pub(super) fn take_back(&mut self, answers: &Answers) {
        self.taken.remove(&answers.index());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, end: u64, name: &str) -> Mapping {
        Mapping {
            start,
            end,
            readable: true,
            writable: false,
            executable: true,
            shared: false,
            offset: 0,
            device: 0,
            inode: 0,
            name: name.to_owned(),
        }
    }

    const LIBC: u64 = 0x7fff_f700_0000;

    #[test]
    fn the_place_is_in_reach_and_in_nobodys_way() {
        let exe = mapping(0x5555_0000_0000, 0x5555_0010_0000, "/usr/bin/x");
        let heap = mapping(0x5555_0010_0000, 0x5555_0020_0000, "[heap]");
        let libc = mapping(LIBC, LIBC + 0x20_0000, "/lib/libc.so.6");
        let stack = mapping(0x7fff_fff0_0000, 0x7fff_ffff_0000, "[stack]");
        let maps = [exe, heap, libc, stack];
        let free = |at: u64| maps.iter().all(|mapping| at + Area::LEN <= mapping.start || at >= mapping.end);
        let near_libc = free_place(&maps, LIBC + 0x1000, Area::LEN).expect("there is room");
        assert!(free(near_libc) && near_libc.abs_diff(LIBC) < REACH, "{near_libc:#x}");
        let near_exe = free_place(&maps, 0x5555_0000_1000, Area::LEN).expect("there is room");
        assert!(free(near_exe) && near_exe < 0x5555_0000_0000, "the heap grows on the other side: {near_exe:#x}");
    }

    #[test]
    fn a_program_at_the_bottom_has_its_place_above_or_none() {
        let maps = [mapping(0x40_0000, 0x80_0000, "/usr/bin/go"), mapping(0xc0_0000_0000, 0xc0_0400_0000, "")];
        let at = free_place(&maps, 0x40_1000, Area::LEN).expect("there is room");
        assert!(at >= 0x80_0000 || at + Area::LEN <= 0x40_0000, "{at:#x}");
        let full = [mapping(LOWEST, HIGHEST, "")];
        assert_eq!(free_place(&full, 0x40_1000, Area::LEN), None);
    }
}
