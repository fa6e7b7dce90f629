//! Which thread of a process has which ring, see [`crate::ptrace::agent`].

use std::collections::{BTreeMap, BTreeSet};

use crate::ptrace::inject::Remote;
use crate::ptrace::ring::{Area, Mode, Ring, Shared};
use crate::ptrace::sys::{self, Regs};
use crate::ptrace::{Pid, Result, Tid};

/// The rings of one process.
#[derive(Debug)]
pub(crate) struct Rings {
    area: Area,
    shared: Shared,
    mode: Mode,
    /// The address of each thread's ring, and those that some thread has.
    given: BTreeMap<Tid, u64>,
    taken: BTreeSet<u64>,
    /// No ring before this one is free.
    full_below: u32,
}

impl Rings {
    /// Makes rings in a process, at `place` (0 for anywhere), by calls that `remote` executes.
    pub(crate) fn create(remote: &mut Remote<'_>, pid: Pid, place: u64, mode: Mode) -> Result<Rings> {
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let fixed = if place == 0 { 0 } else { libc::MAP_FIXED_NOREPLACE };
        let flags = (libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed) as u64;
        let base = remote.call("mmap", libc::SYS_mmap, [place, Area::LEN, protection, flags, u64::MAX, 0])?;
        let mapped = remote
            .call("madvise", libc::SYS_madvise, [base, Area::LEN, libc::MADV_DONTFORK as u64, 0, 0, 0])
            .and_then(|_| Rings::find(pid, Area { base }, mode));
        if mapped.is_err() {
            remote.call("munmap", libc::SYS_munmap, [base, Area::LEN, 0, 0, 0, 0])?;
        }
        mapped
    }

    /// Takes rings over that are there.
    pub(crate) fn find(pid: Pid, area: Area, mode: Mode) -> Result<Rings> {
        let shared = Shared::map(pid, area)?;
        Ok(Rings { area, shared, mode, given: BTreeMap::new(), taken: BTreeSet::new(), full_below: 0 })
    }

    pub(crate) fn area(&self) -> Area {
        self.area
    }

    /// Gives a stopped thread a ring of its own, unless none is left or the program uses the segment itself.
    pub(crate) fn give(&mut self, tid: Tid) -> Result<()> {
        let mut regs = sys::get_regs(tid)?;
        if regs.gs_base != 0 && !self.area.contains(regs.gs_base) {
            return Ok(());
        }
        let free = |index: &u32| !self.taken.contains(&self.area.ring(*index));
        self.full_below = (self.full_below..Area::RINGS).find(free).unwrap_or(Area::RINGS);
        let place = (self.full_below < Area::RINGS).then(|| self.area.ring(self.full_below));
        // A newborn thread has its parent's until here.
        regs.gs_base = place.unwrap_or(0);
        sys::set_regs(tid, &regs)?;
        if let Some(place) = place {
            self.note(tid, place);
        }
        Ok(())
    }

    /// Notes that a thread finds a ring at this address.
    pub(crate) fn note(&mut self, tid: Tid, place: u64) {
        if let Some(ring) = self.shared.ring_at(place) {
            ring.reset(self.mode);
            self.given.insert(tid, place);
            self.taken.insert(place);
        }
    }

    /// A thread has ended.
    pub(crate) fn forget(&mut self, tid: Tid) {
        if let Some(place) = self.given.remove(&tid) {
            self.taken.remove(&place);
            self.full_below = self.full_below.min(self.area.index(place));
        }
    }

    /// Returns a thread's ring.
    pub(crate) fn of(&self, tid: Tid) -> Option<Ring<'_>> {
        self.shared.ring_at(*self.given.get(&tid)?)
    }

    /// Returns the address of a thread's ring, 0 where it has none.
    pub(crate) fn place(&self, tid: Tid) -> u64 {
        self.given.get(&tid).copied().unwrap_or(0)
    }

    /// Returns the ring that a thread with these registers finds.
    pub(crate) fn found_by(&self, regs: &Regs) -> Option<Ring<'_>> {
        self.shared.ring_at(regs.gs_base)
    }

    /// Takes a thread's ring out of its registers.
    pub(crate) fn take_from(&self, regs: &mut Regs) {
        if self.area.contains(regs.gs_base) {
            regs.gs_base = 0;
        }
    }

    /// Empties all rings, for another role.
    pub(crate) fn change(&mut self, mode: Mode) {
        self.mode = mode;
        for place in self.given.values() {
            if let Some(ring) = self.shared.ring_at(*place) {
                ring.reset(mode);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

    use super::*;
    use crate::ptrace::inject::wait_stop;
    use crate::ptrace::regs;
    use crate::ptrace::wait::{Inbox, Stop};
    use crate::update::birth;
    use crate::update::process::{Parked, park};

    const LIMIT: Duration = Duration::from_secs(10);
    const QUESTIONS: u32 = 300;

    /// Asks the time again and again; leaves with 0 if it never went backward and no register was lost.
    fn ask_often(start: &AtomicBool) -> i32 {
        while !start.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        let mut before = (0, 0);
        for _ in 0..QUESTIONS {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: `time` is a live local.
            let ret = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
            if ret != 0 || (time.tv_sec, time.tv_nsec) < before {
                return 1;
            }
            before = (time.tv_sec, time.tv_nsec);
        }
        0
    }

    #[test]
    fn an_answer_is_noted_once_wherever_its_thread_steps_out() {
        // SAFETY: a new mapping; the test keeps it to its end.
        let page = unsafe { mmap_anonymous(None, 1.try_into().unwrap(), ProtFlags::all(), MapFlags::MAP_SHARED) };
        // SAFETY: zeroed and aligned memory that lives as long as the test, and only ever seen as an atomic.
        let start = unsafe { page.expect("a page").cast::<AtomicBool>().as_ref() };
        // SAFETY: the child only asks for the time and leaves; it takes no lock and allocates nothing.
        let child = match unsafe { libc::fork() } {
            0 => {
                let status = ask_often(start);
                // SAFETY: ends the child without running anything of the parent's.
                unsafe { libc::_exit(status) }
            }
            pid => Pid(pid),
        };
        let inbox = Inbox::new();
        let mut process = birth::prepare(&inbox, child, LIMIT).expect("a process to prepare");
        let main = child.main();
        let parked = park(&inbox, child, &[main], LIMIT).expect("it stops");
        assert_eq!(parked.get(&main), Some(&Parked::User));
        process.give_ring(main).expect("a ring");
        process.patch_vdso().expect("a detour");
        start.store(true, Ordering::Release);

        let agent = process.footprint.vdso.agent.clone().expect("this machine has the agent");
        let mut noted = 0;
        // It is made to leave once on the way to each answer, after one instruction more each time, and begins again with
        // the first when the answer came earlier. So it leaves everywhere, however long the way is.
        let (mut distance, mut gone, mut left) = (1, 0, false);
        let mut rounds = 0;
        let status = loop {
            let answers = process.ring(main).map_or(0, |ring| ring.take_noted().count());
            if answers > 0 {
                noted += answers;
                if !left {
                    distance = 1;
                    rounds += 1;
                }
                (gone, left) = (0, false);
            }
            let mut regs = sys::get_regs(main).expect("registers");
            let on_the_way = agent.contains(regs.rip) || process.ring(main).is_some_and(|ring| ring.is_asking());
            gone += u32::from(on_the_way && !left);
            if on_the_way && !left && gone == distance {
                assert!((regs.orig_rax as i64) < 0 || !regs::is_interrupted(regs.rax as i64));
                assert!(process.leave_vdso(&mut regs).expect("it steps out"), "left at {:#x}", regs.rip);
                sys::set_regs(main, &regs).expect("registers");
                left = true;
                distance += 1;
            }
            sys::step(main).expect("it goes on");
            match wait_stop(&inbox, main, "stepping") {
                Ok(Stop::Signal(libc::SIGTRAP)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(status.contains("exited with code 0"), "{status}");
        assert!(rounds > 0, "left after up to {distance} instructions only");
        assert_eq!(noted, QUESTIONS as usize);
    }
}
