//! What the service's threads do by themselves to put the image to come in place. Pure: from what is known of both images
//! it makes the bytes of one area, in which everything lies that is needed afterwards.
//!
//! ```text
//!  0 magic | done | number of staged areas | start and length of each      the header, by which a later daemon knows it
//!  …       operands, registers, extended states
//!  …       the programs: that of the *mover*, which does what is the process's, and one for each other thread
//!  …       contents of pages
//! ```

use std::ops::Range;

use super::PAGE;
use super::areas::{Changes, Kept};
use super::handlers::Action;
use super::pages::Differing;
use super::threads::{ThreadState, alt_stack_bytes};
use super::told::Told;
use crate::ptrace::memory::Span;
use crate::ptrace::stub::{self, Op};
use crate::ptrace::sys::Regs;

/// What the area begins with.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"mvedsuai");
/// Where in the area stands that the mover is done, 32 bits.
pub(crate) const DONE: u64 = 8;
/// Where the number of staged areas stands, and behind it their places.
pub(crate) const STAGED: u64 = 16;

/// An epoll registration whose value is the other version's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) set: i32,
    pub(crate) fd: i32,
    pub(crate) events: u32,
    pub(crate) data: u64,
}

/// One thread: what it is, and what it is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    pub(crate) service: &'a ThreadState,
    pub(crate) coming: &'a ThreadState,
    /// The registers that it goes on with.
    pub(crate) regs: Regs,
}

/// An area of the kernel's own (the vDSO and its data), which lies elsewhere in the image to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) from: Span,
    /// Where it waits until the place that it goes to is empty.
    pub(crate) aside: u64,
    pub(crate) to: u64,
}

/// What is to be done too where the images have nothing in common.
#[derive(Debug)]
pub(crate) struct Whole<'a> {
    pub(crate) kernels: Vec<Carried>,
    /// What `/proc` tells of the image to come.
    pub(crate) told: &'a Told,
    /// The file of its program, where the kernel does not name that already.
    pub(crate) file: Option<u64>,
    /// What its threads are called, in their order.
    pub(crate) names: Vec<&'a str>,
}

/// The call by which the kernel is told of the file of the program. It may refuse that.
pub(crate) const NAMES_THE_FILE: &str = "prctl(PR_SET_MM_MAP) with the program's file";

/// All that is to be done.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    pub(crate) whole: Option<Whole<'a>>,
    pub(crate) changes: &'a Changes,
    /// Where the created areas are staged, in their order.
    pub(crate) staged: Vec<u64>,
    pub(crate) kept: Vec<(Kept, Differing)>,
    /// The break, where it is another one.
    pub(crate) break_at: Option<u64>,
    pub(crate) actions: &'a [Action],
    pub(crate) watches: &'a [Watch],
    /// The first is the mover.
    pub(crate) threads: Vec<Change<'a>>,
}

/// The program of one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) start: u64,
    /// The calls that it makes, by name, when the mover is done already.
    pub(crate) calls: Vec<&'static str>,
    /// Whether these change anything that a tracer could not set.
    pub(crate) is_needed: bool,
}

/// What lies in the area.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Laid {
    pub(crate) len: u64,
    /// Offsets and bytes.
    pub(crate) pieces: Vec<(usize, Vec<u8>)>,
    /// Where the contents of pages go, one span after the other, and of which addresses they are.
    pub(crate) contents: usize,
    pub(crate) copied: Vec<Span>,
    /// One for each thread, in their order.
    pub(crate) parts: Vec<Part>,
    /// What the gates need where nothing of the old image stays, the code of the gate with it.
    pub(crate) gates: Option<LaidGates>,
}

/// Addresses in the area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaidGates {
    pub(crate) word: u64,
    pub(crate) code: u64,
    /// One for each thread, in their order.
    pub(crate) blocks: Vec<u64>,
}

/// Where things are put, one after the other.
struct Room {
    base: u64,
    next: u64,
    pieces: Vec<(usize, Vec<u8>)>,
}

impl Room {
    fn put(&mut self, bytes: Vec<u8>, align: u64) -> u64 {
        let at = self.reserve(bytes.len() as u64, align);
        self.pieces.push(((at - self.base) as usize, bytes));
        at
    }

    fn reserve(&mut self, len: u64, align: u64) -> u64 {
        let at = self.next.next_multiple_of(align);
        self.next = at + len;
        self.base + at
    }
}

/// A program on its way.
#[derive(Default)]
struct Steps {
    ops: Vec<Op>,
    calls: Vec<&'static str>,
}

impl Steps {
    fn call(&mut self, name: &'static str, nr: i64, args: [u64; 6]) {
        self.calls.push(name);
        self.ops.push(Op::Call { nr, args });
    }

    fn protect(&mut self, span: Span, protection: i32) {
        self.call("mprotect", libc::SYS_mprotect, [span.start, span.len(), protection as u64, 0, 0, 0]);
    }

    fn carry(&mut self, from: u64, to: u64, len: u64) {
        let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
        self.call("mremap", libc::SYS_mremap, [from, len, len, flags, to, 0]);
    }

    fn take_name(&mut self, name: &str, room: &mut Room) {
        /// `TASK_COMM_LEN` of the kernel, with a NUL.
        const LONGEST: usize = 16;
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(LONGEST, 0);
        bytes[LONGEST - 1] = 0;
        let at = room.put(bytes, 8);
        self.call("prctl(PR_SET_NAME)", libc::SYS_prctl, [libc::PR_SET_NAME as u64, at, 0, 0, 0, 0]);
    }

    fn leave_rseq(&mut self, thread: &ThreadState) {
        const RSEQ_FLAG_UNREGISTER: u64 = 1;
        let rseq = thread.rseq;
        if rseq.addr != 0 {
            let args = [rseq.addr, u64::from(rseq.size), RSEQ_FLAG_UNREGISTER, u64::from(rseq.signature), 0, 0];
            self.call("rseq", libc::SYS_rseq, args);
        }
    }
}

impl Whole<'_> {
    /// Tells the kernel of the other address space: the break, and where arguments, environment and code are.
    fn tell(&self, room: &mut Room, steps: &mut Steps) {
        let vector = room.put(self.told.vector.clone(), 8);
        let mut tell = |name, file| {
            let map = self.told.map(vector, file);
            let (len, at) = (map.len() as u64, room.put(map, 8));
            steps.call(name, libc::SYS_prctl, [PR_SET_MM, PR_SET_MM_MAP, at, len, 0, 0]);
        };
        tell("prctl(PR_SET_MM_MAP)", None);
        if let Some(file) = self.file {
            tell(NAMES_THE_FILE, Some(file));
            steps.call("close", libc::SYS_close, [file, 0, 0, 0, 0, 0]);
        }
    }
}

/// `include/uapi/linux/prctl.h`.
const PR_SET_MM: u64 = libc::PR_SET_MM as u64;
const PR_SET_MM_MAP: u64 = 14;

/// Lays out the area for a place. Its length does not depend on the place.
pub(crate) fn lay_out(task: &Task<'_>, base: u64) -> Laid {
    let mut room = Room { base, next: 0, pieces: Vec::new() };
    let staged = task.changes.created.iter().zip(&task.staged);
    let places = staged.clone().flat_map(|(created, at)| [*at, created.span.len()]);
    let header: Vec<u64> = [MAGIC, 0, task.changes.created.len() as u64].into_iter().chain(places).collect();
    room.put(header.iter().flat_map(|word| word.to_ne_bytes()).collect(), 8);
    let copied: Vec<Span> = task.kept.iter().flat_map(|(_, differing)| differing.copied.iter().copied()).collect();
    let total: u64 = copied.iter().map(|span| span.len()).sum();
    let gates = task.whole.as_ref().map(|_| LaidGates {
        word: room.put(vec![0; 8], 8),
        code: room.put(stub::image().to_vec(), 16),
        blocks: task.threads.iter().map(|_| room.reserve(stub::GATE_LEN, 8)).collect(),
    });
    let mut parts = Vec::new();
    let mut programs = Vec::new();
    for (index, change) in task.threads.iter().enumerate() {
        let mut steps = Steps::default();
        if task.whole.is_none() {
            steps.leave_rseq(change.service);
        }
        if index == 0 {
            move_in(task, &mut room, &mut steps, staged.clone().map(|(_, at)| *at).collect());
            steps.ops.push(Op::Store { at: base + DONE, value: 1 });
            const WAKE_ALL: u64 = i32::MAX as u64;
            let wake = [base + DONE, libc::FUTEX_WAKE as u64, WAKE_ALL, 0, 0, 0];
            steps.call("futex", libc::SYS_futex, wake);
        } else {
            steps.ops.push(Op::Await(base + DONE));
        }
        let is_needed = become_other(change, &mut room, &mut steps) || index == 0 || task.whole.is_some();
        if let Some(name) = task.whole.as_ref().and_then(|whole| whole.names.get(index)) {
            steps.take_name(name, &mut room);
        }
        let context = room.put(stub::context(&change.regs, change.coming.mask), 8);
        let xstate = room.put(change.coming.xstate.clone(), 64);
        steps.ops.push(Op::Resume { context, xstate });
        programs.push((steps, is_needed));
    }
    // What was reserved for programs and contents is the same whatever the base is.
    let lens: Vec<u64> = programs.iter().map(|(steps, _)| (steps.ops.len() * Op::LEN) as u64).collect();
    let starts: Vec<u64> = lens.iter().map(|len| room.reserve(*len, 8)).collect();
    let contents = room.reserve(total, PAGE);
    for ((steps, is_needed), start) in programs.into_iter().zip(starts) {
        let ops = steps.ops.into_iter().map(|op| match op {
            // Until here it counted from the first of the contents.
            Op::Copy { to, from, len } => Op::Copy { to, from: contents + from, len },
            other => other,
        });
        let bytes: Vec<u8> = ops.flat_map(|op| op.encode()).collect();
        room.pieces.push(((start - base) as usize, bytes));
        parts.push(Part { start, calls: steps.calls, is_needed });
    }
    let len = room.next.next_multiple_of(PAGE);
    Laid { len, pieces: room.pieces, contents: (contents - base) as usize, copied, parts, gates }
}

/// What is the process's.
fn move_in(task: &Task<'_>, room: &mut Room, steps: &mut Steps, staged: Vec<u64>) {
    let kernels = task.whole.as_ref().map_or(&[][..], |whole| &whole.kernels);
    for carried in kernels {
        steps.carry(carried.from.start, carried.aside, carried.from.len());
    }
    for span in &task.changes.removed {
        steps.call("munmap", libc::SYS_munmap, [span.start, span.len(), 0, 0, 0, 0]);
    }
    if let Some(at) = task.break_at {
        steps.call("brk", libc::SYS_brk, [at, 0, 0, 0, 0, 0]);
    }
    for (created, from) in task.changes.created.iter().zip(staged) {
        steps.carry(from, created.span.start, created.span.len());
    }
    for carried in kernels {
        steps.carry(carried.aside, carried.to, carried.from.len());
    }
    // They are in place: what is mapped where they were staged from now on is the program's.
    steps.ops.push(Op::Store { at: room.base + STAGED, value: 0 });
    let mut from = 0;
    for (kept, differing) in &task.kept {
        let closed = kept.has & libc::PROT_WRITE == 0;
        if closed {
            differing
                .copied
                .iter()
                .for_each(|span| steps.protect(*span, kept.has | libc::PROT_READ | libc::PROT_WRITE));
        }
        for span in &differing.dropped {
            // The same as MADV_DONTNEED, for locked memory too, madvise(2).
            const MADV_DONTNEED_LOCKED: u64 = 24;
            steps.call("madvise", libc::SYS_madvise, [span.start, span.len(), MADV_DONTNEED_LOCKED, 0, 0, 0]);
        }
        for span in &differing.copied {
            steps.ops.push(Op::Copy { to: span.start, from, len: span.len() });
            from += span.len();
        }
        if closed {
            differing.copied.iter().for_each(|span| steps.protect(*span, kept.wants));
        }
        if kept.has != kept.wants {
            steps.protect(kept.span, kept.wants);
        }
    }
    if let Some(whole) = &task.whole {
        whole.tell(room, steps);
    }
    for action in task.actions {
        let at = room.put(action.bytes.to_vec(), 8);
        steps.call("rt_sigaction", libc::SYS_rt_sigaction, [action.signo as u64, at, 0, 8, 0, 0]);
    }
    for watch in task.watches {
        let event = [&watch.events.to_ne_bytes()[..], &watch.data.to_ne_bytes()].concat();
        let at = room.put(event, 8);
        let args = [watch.set as u64, libc::EPOLL_CTL_MOD as u64, watch.fd as u64, at, 0, 0];
        steps.call("epoll_ctl", libc::SYS_epoll_ctl, args);
    }
}

/// What is a thread's. Says whether it is more than a tracer could set.
fn become_other(change: &Change<'_>, room: &mut Room, steps: &mut Steps) -> bool {
    let (service, coming) = (change.service, change.coming);
    let before = steps.calls.len();
    if service.alt_stack != coming.alt_stack {
        let at = room.put(alt_stack_bytes(coming.alt_stack), 8);
        steps.call("sigaltstack", libc::SYS_sigaltstack, [at, 0, 0, 0, 0, 0]);
    }
    if service.robust != coming.robust {
        let (head, len) = coming.robust;
        steps.call("set_robust_list", libc::SYS_set_robust_list, [head, len, 0, 0, 0, 0]);
    }
    if service.clear_tid != coming.clear_tid {
        steps.call("set_tid_address", libc::SYS_set_tid_address, [coming.clear_tid, 0, 0, 0, 0, 0]);
    }
    let is_needed = steps.calls.len() > before || service.rseq != coming.rseq;
    if service.regs.fs_base != coming.regs.fs_base {
        const ARCH_SET_FS: u64 = 0x1002;
        steps.call("arch_prctl", libc::SYS_arch_prctl, [ARCH_SET_FS, coming.regs.fs_base, 0, 0, 0, 0]);
    }
    // The kernel notes in that memory on which processor the thread runs, and the copied page says something old: to
    // register it again has the number written before the thread goes on.
    let rseq = coming.rseq;
    if rseq.addr != 0 {
        steps.call("rseq", libc::SYS_rseq, [rseq.addr, u64::from(rseq.size), 0, u64::from(rseq.signature), 0, 0]);
    }
    is_needed
}

/// Returns where the staged areas are that an area with this header knows of.
pub(crate) fn staged_areas(words: &[u64]) -> Option<Vec<Range<u64>>> {
    let [MAGIC, _, count, rest @ ..] = words else { return None };
    let (pairs, _) = rest.as_chunks::<2>();
    let count = usize::try_from(*count).ok()?;
    Some(pairs.get(..count)?.iter().map(|[start, len]| *start..start.saturating_add(*len)).collect())
}
