//! Putting an image in place of another.

use super::PAGE;
use super::areas::{self, Areas, Changes};
use super::contents::Comparison;
use super::program::{self, Change, Laid, Task, Watch};
use super::staging::{self, Flags};
use super::threads::ThreadState;
use super::version::Version;
use crate::ptrace::inject::{self, Remote};
use crate::ptrace::memory::{Memory, Span};
use crate::ptrace::pagemap::PageMap;
use crate::ptrace::procfs::Mapping;
use crate::ptrace::regs::Rewound;
use crate::ptrace::stub::{self, Stub};
use crate::ptrace::sys::{self, Regs};
use crate::ptrace::wait::Inbox;
use crate::ptrace::window::Window;
use crate::ptrace::{Error, Pid, Result, Tid};
use crate::record::Slot;
use crate::tracee::process::{Footprint, Process};

/// An image that can be put in place at once. Dropped before it is committed, it leaves the service as it was.
#[derive(Debug)]
#[must_use = "an image that is not committed is taken back"]
pub(crate) struct Prepared<'a> {
    pub(super) inbox: &'a Inbox,
    pub(super) process: &'a Process,
    /// The area that everything lies in, and the staged areas with what becomes of them.
    pub(super) area: Span,
    pub(super) staged: Vec<Span>,
    /// A descriptor of ours that the programs close.
    pub(super) given: Option<u64>,
    pub(super) parts: Vec<program::Part>,
    pub(super) gates: Gates,
    pub(super) threads: Vec<Coming>,
    /// How many bytes are copied, and moved in.
    pub(crate) moved: u64,
    pub(super) is_committed: bool,
}

/// Where the threads of the service stand until the commit.
#[derive(Clone, Debug)]
pub(super) struct Gates {
    /// The word that they look at.
    pub(super) word: u64,
    /// The code of the gate.
    pub(super) stub: Stub,
    /// What each thread finds at its stack pointer. All of them stand there at the same time.
    pub(super) blocks: Vec<u64>,
}

impl Gates {
    /// Those in what the daemon has in a process anyway.
    fn of(process: &Process, threads: usize) -> Result<Gates> {
        let room = process.blocks();
        if threads > room as usize {
            let what = format!("the service has {threads} threads, and there is room for {room} since it was forked");
            return Err(unfit(what));
        }
        let Footprint { stub, arena, .. } = process.footprint;
        let blocks = (0..room).take(threads).map(|index| process.block_at(index) - 64).collect();
        Ok(Gates { word: arena.word(), stub, blocks })
    }
}

/// A thread with what it is to be.
#[derive(Debug)]
pub(super) struct Coming {
    tid: Tid,
    slot: Slot,
    regs: Regs,
    mask: u64,
    xstate: Vec<u8>,
    /// The call that it is before.
    rewound: Option<Rewound>,
}

/// A thread of the service as it goes on: the call that it is before.
pub(crate) type Standing = (Tid, Slot, Option<Rewound>);

/// Why an image is not in place, and what that means for the service.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It goes on as if nothing had been.
    Before(Error),
    /// The image has been committed, and not all of it went as it should.
    After(Error),
}

pub(super) fn unfit(what: impl std::fmt::Display) -> Error {
    Error::Unsupported(what.to_string())
}

/// Prepares an image for the process that serves, in which `service` was taken stock of. Both stand still.
pub(crate) fn prepare<'a>(
    inbox: &'a Inbox,
    process: &'a Process,
    service: &Version,
    coming: &Version,
    watches: &[Watch],
) -> Result<Prepared<'a>> {
    let memory = Memory::open(coming.pid)?;
    let threads = pair(service, coming, |thread, twin| going_on(process, thread, twin))?;
    let ours = process.own_areas();
    let changes = areas::compare(&of(service), &of(coming), &ours).map_err(unfit)?;
    let mut comparison = Comparison::new(&process.memory, &memory)?;
    let kept = changes.kept.iter().map(|kept| Ok((*kept, comparison.differing(kept)?)));
    let kept = kept.collect::<Result<Vec<_>>>()?;
    let gates = Gates::of(process, threads.len())?;
    let mut task = Task {
        whole: None,
        changes: &changes,
        staged: vec![0; changes.created.len()],
        kept,
        break_at: (coming.break_at != service.break_at).then_some(coming.break_at),
        actions: &coming.actions,
        watches,
        threads,
    };
    let len = program::lay_out(&task, 0).len;
    check_count(service, &changes)?;
    let mut at =
        free_place(service, coming, len + changes.created.iter().map(|new| new.span.len() + PAGE).sum::<u64>())?;
    let area = Span { start: at, end: at + len };
    at += len + PAGE;
    for (place, created) in task.staged.iter_mut().zip(&changes.created) {
        *place = at;
        at += created.span.len() + PAGE;
    }
    let laid = program::lay_out(&task, area.start);
    let mut prepared = Prepared {
        inbox,
        process,
        area,
        staged: Vec::new(),
        given: None,
        parts: laid.parts.clone(),
        gates,
        threads: task.threads.iter().map(Coming::of).collect(),
        moved: task.kept.iter().map(|(_, differing)| differing.bytes()).sum(),
        is_committed: false,
    };
    prepared.map_all(&task, &laid, coming, &memory, &comparison.there.0)?;
    Ok(prepared)
}

fn of(version: &Version) -> Areas<'_> {
    Areas { maps: &version.maps, break_at: version.break_at }
}

/// Finds the twin of each thread of the service, the mover first, and the registers that it goes on with.
pub(super) fn pair<'a>(
    service: &'a Version,
    coming: &'a Version,
    going_on: impl Fn(&ThreadState, &ThreadState) -> Regs,
) -> Result<Vec<Change<'a>>> {
    if let Some(extra) = coming.threads.iter().find(|thread| service.thread(thread.slot).is_none()) {
        return Err(unfit(format!("thread {} of the other version has no counterpart in the service", extra.tid)));
    }
    let change = |thread: &'a ThreadState| match coming.thread(thread.slot) {
        Some(twin) => Ok(Change { service: thread, coming: twin, regs: going_on(thread, twin) }),
        None => Err(unfit(format!("thread {} of the service has no counterpart in the other version", thread.tid))),
    };
    service.threads.iter().map(change).collect()
}

/// Returns the registers that a thread of the service goes on with: its twin's, but for what the daemon keeps in them.
fn going_on(process: &Process, thread: &ThreadState, twin: &ThreadState) -> Regs {
    let mut regs = twin.regs;
    regs.orig_rax = u64::MAX;
    if process.is_ring(regs.gs_base) || process.is_ring(thread.regs.gs_base) {
        regs.gs_base = thread.regs.gs_base;
    }
    regs
}

/// Says no where the service would have more areas than the kernel allows, at any instant.
pub(super) fn check_count(service: &Version, changes: &Changes) -> Result<()> {
    let path = "/proc/sys/vm/max_map_count";
    let most = std::fs::read_to_string(path).map_err(|source| Error::Proc { path: path.into(), source })?;
    let most: usize = most.trim().parse().unwrap_or(65_530);
    // A piece that becomes another one may cut an area in three.
    let cuts = changes.kept.iter().filter(|kept| kept.has != kept.wants).count();
    let wanted = service.maps.len() + 2 * (changes.created.len() + changes.removed.len() + cuts) + 16;
    if wanted <= most {
        return Ok(());
    }
    Err(unfit(format!("the service may have {most} areas of memory (vm.max_map_count), and {wanted} may be needed")))
}

/// Finds addresses that neither image uses.
pub(super) fn free_place(service: &Version, coming: &Version, len: u64) -> Result<u64> {
    /// The kernel keeps that much free below a stack that grows.
    const APART: u64 = 2 << 20;
    const LOWEST: u64 = 1 << 20;
    const HIGHEST: u64 = 0x7fff_ffff_f000;
    let used = |version: &Version| version.maps.iter().map(|area| (area.start, area.end)).collect::<Vec<_>>();
    let mut areas = [used(service), used(coming)].concat();
    areas.retain(|(start, _)| *start < HIGHEST);
    areas.sort_unstable();
    let (mut free, mut end) = (None, LOWEST);
    for (start, next) in areas.into_iter().chain([(HIGHEST, HIGHEST)]) {
        if start.saturating_sub(end) >= len + 2 * APART {
            free = Some(start - APART - len);
        }
        end = end.max(next);
    }
    let found = free.map(|at| at & !(PAGE - 1));
    found.ok_or_else(|| unfit(format!("there is no room for {len} bytes between the areas of memory")))
}

impl Coming {
    pub(super) fn of(change: &Change<'_>) -> Coming {
        Coming {
            tid: change.service.tid,
            slot: change.service.slot,
            regs: change.regs,
            mask: change.coming.mask,
            xstate: change.coming.xstate.clone(),
            rewound: change.coming.parked.rewound(),
        }
    }
}

impl Prepared<'_> {
    fn mover(&self) -> Result<Tid> {
        self.threads.first().map(|thread| thread.tid).ok_or_else(|| unfit("the service has no thread"))
    }

    pub(super) fn remote(&self) -> Result<Remote<'_>> {
        let tid = self.mover()?;
        self.process.remote(self.inbox, tid, sys::get_regs(tid)?)
    }

    /// Maps the area and what is to be moved in, and fills them.
    fn map_all(
        &mut self,
        task: &Task<'_>,
        laid: &Laid,
        coming: &Version,
        memory: &Memory,
        pages: &PageMap,
    ) -> Result<()> {
        let pid = self.process.pid;
        let read_write = libc::PROT_READ | libc::PROT_WRITE;
        let area = self.area;
        let mut remote = self.process.remote(self.inbox, self.mover()?, sys::get_regs(self.mover()?)?)?;
        let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        staging::map(&mut remote, area, read_write, shared, u64::MAX, 0)?;
        let window = Window::map(pid, area.start, area.end)?;
        // From here on a later daemon knows what lies where.
        laid.pieces.iter().for_each(|(offset, bytes)| window.write(*offset, bytes));
        remote.finish()?;
        let flags = if task.changes.created.is_empty() { Flags::default() } else { Flags::of(coming.pid)? };
        self.stage(task, coming.pid, (memory, pages, &flags))?;
        let pieces: Vec<(u64, usize)> = laid.copied.iter().map(|span| (span.start, span.len() as usize)).collect();
        window.fill(laid.contents, memory, &pieces)
    }

    /// Maps what is to be moved in, and fills it.
    pub(super) fn stage(
        &mut self,
        task: &Task<'_>,
        coming: Pid,
        (memory, pages, flags): (&Memory, &PageMap, &Flags),
    ) -> Result<()> {
        if task.changes.created.is_empty() {
            return Ok(());
        }
        let tid = self.mover()?;
        let mut remote = self.process.remote(self.inbox, tid, sys::get_regs(tid)?)?;
        for (created, at) in task.changes.created.iter().zip(&task.staged) {
            let span = Span { start: *at, end: at + created.span.len() };
            let flags = flags.at(created.span.start);
            self.staged.push(span);
            staging::stage(&mut remote, self.process, created, span, flags, coming)?;
            self.moved += staging::fill(&self.process.memory, created, span, memory, pages)?;
            staging::finish(&mut remote, created, span, flags)?;
        }
        remote.finish()
    }

    /// Lets the image take the place of the one that is there, if it is `allowed` to when all is ready. `old` is what the word of
    /// the gates holds, `new` what names the image to come. Every thread stands still afterwards, right before the call that it
    /// makes next.
    pub(crate) fn commit(
        mut self,
        old: u64,
        new: u64,
        allowed: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<Standing>, Failure> {
        self.decide(old, new, allowed)?;
        self.unmap(&[self.area]).map_err(Failure::After)?;
        Ok(self.standing())
    }

    /// The same without taking the area away. Returns the calls that may fail and did.
    pub(super) fn decide(
        &mut self,
        old: u64,
        new: u64,
        allowed: impl FnOnce() -> Result<()>,
    ) -> Result<Vec<(&'static str, std::io::Error)>, Failure> {
        let before = self.gate(old).map_err(Failure::Before)?;
        let stored = allowed().and_then(|()| self.process.memory.write(self.gates.word, &new.to_ne_bytes()));
        if let Err(error) = stored {
            self.ungate(&before);
            return Err(Failure::Before(error));
        }
        self.is_committed = true;
        self.finish().map_err(Failure::After)
    }

    pub(super) fn standing(&self) -> Vec<Standing> {
        self.threads.iter().map(|thread| (thread.tid, thread.slot, thread.rewound)).collect()
    }

    /// Puts the threads at their gates, and returns how they stood.
    pub(super) fn gate(&self, old: u64) -> Result<Vec<(Tid, Regs, u64)>> {
        let mut before = Vec::with_capacity(self.threads.len());
        for ((thread, part), block) in self.threads.iter().zip(&self.parts).zip(&self.gates.blocks) {
            match self.gate_one(thread.tid, *block, part.start, old) {
                Ok(stood) => before.push(stood),
                Err(error) => {
                    self.ungate(&before);
                    return Err(error);
                }
            }
        }
        Ok(before)
    }

    fn gate_one(&self, tid: Tid, block: u64, program: u64, old: u64) -> Result<(Tid, Regs, u64)> {
        let (regs, mask) = (sys::get_regs(tid)?, sys::get_sigmask(tid)?);
        self.process.memory.write(block, &stub::gate_block(self.gates.word, old, program, &regs, mask))?;
        let mut at_gate = regs;
        at_gate.rip = self.gates.stub.gate();
        at_gate.rsp = block;
        at_gate.orig_rax = u64::MAX;
        sys::set_regs(tid, &at_gate)?;
        sys::set_sigmask(tid, u64::MAX)?;
        Ok((tid, regs, mask))
    }

    fn ungate(&self, before: &[(Tid, Regs, u64)]) {
        for (tid, regs, mask) in before {
            if let Err(error) = sys::set_sigmask(*tid, *mask).and_then(|()| sys::set_regs(*tid, regs))
                && !error.is_gone()
            {
                tracing::error!(%tid, %error, "a thread could not be taken from its gate");
            }
        }
    }

    /// Sees the programs through. What a tracer can set it sets, which is quicker. Returns the calls that may fail and did.
    fn finish(&self) -> Result<Vec<(&'static str, std::io::Error)>> {
        let mut refused = Vec::new();
        for (thread, part) in self.threads.iter().zip(&self.parts) {
            if part.is_needed {
                let results = inject::run_calls(self.inbox, thread.tid, part.calls.len())?;
                for (call, ret) in part.calls.iter().zip(results).filter(|(_, ret)| (-4095..0).contains(ret)) {
                    let source = std::io::Error::from_raw_os_error(-ret as i32);
                    match *call {
                        "epoll_ctl" if ret == -i64::from(libc::ENOENT) => {}
                        program::NAMES_THE_FILE => refused.push((*call, source)),
                        call => return Err(Error::Injected { call, tid: thread.tid, source }),
                    }
                }
            }
        }
        for thread in &self.threads {
            sys::set_xstate(thread.tid, &thread.xstate)?;
            // The registers last: without them it would run its program, which sets the mask too.
            sys::set_sigmask(thread.tid, thread.mask)?;
            sys::set_regs(thread.tid, &thread.regs)?;
        }
        Ok(refused)
    }

    fn unmap(&self, spans: &[Span]) -> Result<()> {
        if spans.is_empty() {
            return Ok(());
        }
        let mut remote = self.remote()?;
        for span in spans {
            remote.call("munmap", libc::SYS_munmap, [span.start, span.len(), 0, 0, 0, 0])?;
        }
        remote.finish()
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if self.is_committed {
            return;
        }
        // The area last: it tells of the others.
        let spans: Vec<Span> = self.staged.iter().copied().chain([self.area]).filter(|span| span.len() > 0).collect();
        let closed = self.given.map_or(Ok(()), |fd| {
            let mut remote = self.remote()?;
            remote.call("close", libc::SYS_close, [fd, 0, 0, 0, 0, 0])?;
            remote.finish()
        });
        match closed.and(self.unmap(&spans)) {
            Err(error) if !error.is_gone() => tracing::error!(%error, "what was prepared for an image is left behind"),
            _ => {}
        }
    }
}

/// Returns what somebody had mapped in a process for an image, and did not live to take away.
pub(crate) fn leftovers(memory: &Memory, maps: &[Mapping]) -> Vec<Span> {
    let mut found = Vec::new();
    for mapping in maps.iter().filter(|mapping| mapping.shared && mapping.writable) {
        if memory.read_u64(mapping.start).is_ok_and(|word| word == program::MAGIC) {
            let count = memory.read_u64(mapping.start + program::STAGED).unwrap_or(0).min(1 << 20);
            let mut bytes = vec![0; program::STAGED as usize + 8 + 16 * count as usize];
            let got = memory.read_some(mapping.start, &mut bytes);
            let (words, _) = bytes[..got].as_chunks::<8>();
            let words: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
            let staged = program::staged_areas(&words).unwrap_or_default();
            found.extend(staged.into_iter().map(|area| Span { start: area.start, end: area.end }));
            found.push(Span { start: mapping.start, end: mapping.end });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

    use super::super::version::Handlers;
    use super::*;
    use crate::ptrace::procfs;
    use crate::tracee::process::Parked;
    use crate::update::birth;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A process with a fork of it that follows, both standing still.
    struct Two {
        inbox: Inbox,
        process: Process,
        follower: Process,
        service: Version,
        coming: Version,
    }

    impl Two {
        /// `change` may write to the follower's memory.
        fn of(pid: Pid, change: impl FnOnce(&Memory)) -> Two {
            let inbox = Inbox::new();
            let mut process = birth::prepare(&inbox, pid, LIMIT).expect("a process to prepare");
            let (birth, _) = birth::fork(&inbox, &mut process, LIMIT).expect("it can be forked");
            let follower = birth::adopt(&inbox, &birth).expect("a child to adopt");
            change(&follower.memory);
            let parked: BTreeMap<Tid, Parked> =
                birth.threads.iter().map(|thread| (thread.tid, thread.parked)).collect();
            let twin = |thread: &ThreadState| (follower.tid(thread.slot).expect("a twin"), thread.parked);
            let twins: BTreeMap<Tid, Parked> = birth.threads.iter().map(twin).collect();
            let service = Version::take_stock(&inbox, &process, &parked, Handlers::Unasked).expect("a stock");
            let handlers = Handlers::For(service.signals);
            let coming = Version::take_stock(&inbox, &follower, &twins, handlers).expect("a stock");
            Two { inbox, process, follower, service, coming }
        }

        fn prepare(&self) -> Prepared<'_> {
            prepare(&self.inbox, &self.process, &self.service, &self.coming, &[]).expect("an image to prepare")
        }

        /// Lets all threads of the service go, as when the daemon dies.
        fn abandon_service(&self) {
            for tid in self.process.threads.tids() {
                sys::detach(tid, 0).expect("it is let go");
            }
        }

        fn end_follower(&self) {
            crate::tracee::process::kill(&self.inbox, self.follower.pid).expect("it ends");
        }
    }

    /// A child that waits until it is told to go on, and then ends with what is in `value`.
    fn child(go_on: &AtomicBool, value: &mut i32) -> Pid {
        // SAFETY: the child only looks at memory and leaves; it takes no lock and allocates nothing.
        match unsafe { libc::fork() } {
            0 => {
                while !go_on.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                // SAFETY: `value` is a live variable; the tracer may have changed it.
                let value = unsafe { std::ptr::read_volatile(value) };
                // SAFETY: ends the child without running anything of the parent's.
                unsafe { libc::_exit(value) }
            }
            pid => Pid(pid),
        }
    }

    /// The daemon dies when all threads are at their gates and the word holds `word`; returns what the service has by then.
    fn left_at_the_gates(word: u64) -> i32 {
        // SAFETY: a new mapping; the test keeps it to its end.
        let page = unsafe { mmap_anonymous(None, 1.try_into().unwrap(), ProtFlags::all(), MapFlags::MAP_SHARED) };
        // SAFETY: zeroed and aligned memory that lives as long as the test, and only ever seen as an atomic.
        let go_on = unsafe { page.expect("a page").cast::<AtomicBool>().as_ref() };
        let mut value = 7;
        let place = &raw const value as u64;
        let pid = child(go_on, &mut value);
        let two = Two::of(pid, |memory| memory.write(place, &9i32.to_ne_bytes()).expect("its memory"));
        let mut prepared = two.prepare();
        assert!(prepared.moved > 0 && prepared.moved < 1 << 20, "{} bytes", prepared.moved);
        prepared.gate(0).expect("gates");
        let at = two.process.footprint.arena.word();
        two.process.memory.write(at, &word.to_ne_bytes()).expect("the word");
        // A daemon that is dead takes nothing back.
        prepared.is_committed = true;
        // What the service waits for it waits for in either image.
        go_on.store(true, Ordering::Release);
        two.abandon_service();
        let mut status = 0;
        // SAFETY: `status` outlives the call; nobody else waits for this child.
        assert_eq!(unsafe { libc::waitpid(pid.0, &raw mut status, 0) }, pid.0);
        two.end_follower();
        assert!(libc::WIFEXITED(status), "{status:#x}");
        libc::WEXITSTATUS(status)
    }

    #[test]
    fn the_word_decides_which_image_goes_on() {
        assert_eq!(left_at_the_gates(0), 7);
        assert_eq!(left_at_the_gates(1), 9);
    }

    /// A program of several threads that answers each line.
    fn threads() -> (Child, BufReader<std::process::ChildStdout>) {
        let program = "import queue, sys, threading\n\
            queues = [queue.Queue() for _ in range(5)]\n\
            def work(one, other):\n    while True: other.put(one.get() + '.')\n\
            for pair in zip(queues, queues[1:]): threading.Thread(target=work, args=pair, daemon=True).start()\n\
            print('ready', flush=True)\n\
            for line in sys.stdin: queues[0].put(line.strip()); print(queues[-1].get(), flush=True)\n";
        let mut command = Command::new("python3");
        let mut child =
            command.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts");
        let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("it is ready");
        (child, said)
    }

    fn answers(child: &mut Child, said: &mut BufReader<std::process::ChildStdout>) {
        let asked = child.stdin.as_mut().expect("it is piped");
        asked.write_all(b"hello\n").expect("it listens");
        let mut line = String::new();
        said.read_line(&mut line).expect("it answers");
        assert_eq!(line, "hello....\n");
    }

    #[test]
    fn all_threads_go_on_whenever_the_daemon_dies() {
        for word in [0, 1] {
            let (mut child, mut said) = threads();
            answers(&mut child, &mut said);
            let two = Two::of(Pid(child.id() as i32), |_| {});
            let mut prepared = two.prepare();
            prepared.gate(0).expect("gates");
            let at = two.process.footprint.arena.word();
            two.process.memory.write(at, &u64::to_ne_bytes(word)).expect("the word");
            prepared.is_committed = true;
            two.abandon_service();
            answers(&mut child, &mut said);
            drop(prepared);
            two.end_follower();
            child.kill().expect("it runs");
            child.wait().expect("it has ended");
        }
    }

    #[test]
    fn an_image_is_put_in_place_and_leaves_nothing_behind() {
        let (mut child, mut said) = threads();
        let pid = Pid(child.id() as i32);
        answers(&mut child, &mut said);
        let two = Two::of(pid, |_| {});
        let areas = |maps: Vec<Mapping>| maps.into_iter().map(|area| (area.start, area.end)).collect::<Vec<_>>();
        drop(two.prepare());
        assert_eq!(areas(procfs::maps(pid).expect("it runs")), areas(two.service.maps.clone()), "it was taken back");
        let refused = || Err(Error::Unsupported("nobody waits for it".into()));
        assert!(matches!(two.prepare().commit(0, 1, refused), Err(Failure::Before(_))));
        assert_eq!(areas(procfs::maps(pid).expect("it runs")), areas(two.service.maps.clone()), "it was taken back");
        let standing = two.prepare().commit(0, 1, || Ok(())).expect("it is in place");
        assert_eq!(standing.len(), 5);
        assert_eq!(areas(procfs::maps(pid).expect("it runs")), areas(two.service.maps.clone()));
        two.abandon_service();
        answers(&mut child, &mut said);
        two.end_follower();
        child.kill().expect("it runs");
        child.wait().expect("it has ended");
    }
}
