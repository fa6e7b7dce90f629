//! Whether threads are inside code that is about to be replaced.

use super::{Pid, Process, Span, Tid};
use crate::ptrace::procfs;
use crate::ptrace::sys;
use crate::symbols::{Registers, Tables};

/// A deeper stack is looked at word by word.
const DEPTH: usize = 2048;
/// The most of a stack that is looked at word by word, bytes.
const MOST: u64 = 8 << 20;

/// The means to follow the stacks of a process.
#[derive(Debug)]
pub(super) struct Stacks {
    tables: Tables,
}

impl Stacks {
    pub(super) fn of(pid: Pid) -> Stacks {
        Stacks { tables: Tables::of(pid.0) }
    }

    /// Says which thread is inside one of these places, or may be, in words; nothing where none is.
    pub(super) fn inside(&mut self, process: &Process, threads: &[Tid], places: &[(Span, String)]) -> Option<String> {
        let mut sorted: Vec<&(Span, String)> = places.iter().collect();
        sorted.sort_by_key(|(span, _)| span.start);
        threads.iter().find_map(|tid| self.thread_inside(process, *tid, &sorted))
    }

    fn thread_inside(&mut self, process: &Process, tid: Tid, places: &[&(Span, String)]) -> Option<String> {
        let Some(registers) = registers(process, tid) else {
            return Some(format!("thread {tid} computes, and nothing tells where"));
        };
        let read = |address| process.memory.read_u64(address).ok();
        let frames = self.tables.unwind(registers, DEPTH, read);
        let within = |address: u64| {
            let index = places.partition_point(|(span, _)| span.start <= address).checked_sub(1)?;
            let (span, name) = places.get(index)?;
            (address < span.end).then(|| format!("a function of {name} at {:#x}, which changes", span.start))
        };
        if let Some(what) = frames.addresses.iter().find_map(|address| within(*address)) {
            return Some(format!("thread {tid} is inside {what}"));
        }
        if frames.is_whole {
            return None;
        }
        // What cannot be followed is taken for frames wherever it looks like one.
        let end = procfs::maps(process.pid)
            .ok()?
            .iter()
            .find(|area| area.start <= registers.rsp && registers.rsp < area.end)?
            .end;
        let len = usize::try_from((end - registers.rsp).min(MOST)).ok()?;
        let mut stack = vec![0; len];
        let got = process.memory.read_some(registers.rsp, &mut stack);
        let mut words = stack[..got].chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        let what = words.find_map(|word| within(word.wrapping_sub(1)))?;
        Some(format!("thread {tid} may be inside {what}: its stack cannot be followed"))
    }
}

/// Returns the registers of a thread that stands still, for its tracer or in the kernel.
fn registers(process: &Process, tid: Tid) -> Option<Registers> {
    if let Ok(mut regs) = sys::get_regs(tid) {
        // No unwinder knows the agent's code.
        let _ = process.leave_vdso(&mut regs);
        return Some(Registers { rip: regs.rip, rsp: regs.rsp, rbp: regs.rbp });
    }
    let (rsp, rip) = procfs::place(process.pid, tid)?;
    Some(Registers { rip, rsp, rbp: 0 })
}
