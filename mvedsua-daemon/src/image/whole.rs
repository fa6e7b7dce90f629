//! Putting the image of another program in place, or of the same one that was started by itself: the two have nothing in common,
//! no address and no page.
//!
//! Everything moves. What of the service lies anywhere is removed, and with it what its threads need to get to the other image:
//! the gate, the word that decides, and what they find there. So these lie in the area of the programs, beside both images. The
//! vDSO and its data are the kernel's, and there are no second ones: they are carried to where the other version has them. What
//! the kernel tells of the address space ([`told`]) is set last.
//!
//! What the daemon has in a process does not move. The image that comes is clean of it, and the service with it: when the daemon
//! dies right after the commit, the service runs on as if nobody had ever been there. A daemon that lives equips it anew
//! ([`crate::tracee::program::equip_anew`]).

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use super::PAGE;
use super::areas::{self, By, Kept};
use super::pages::Differing;
use super::place::{self, Failure, Gates, Prepared, Standing, unfit};
use super::program::{self, Carried, Laid, NAMES_THE_FILE, Task, Watch, Whole};
use super::staging::Flags;
use super::threads::ThreadState;
use super::told::{self, Told};
use super::version::{Handlers, Version};
use super::{giving, staging};
use crate::ptrace::memory::{Memory, Span};
use crate::ptrace::pagemap::PageMap;
use crate::ptrace::procfs;
use crate::ptrace::stub::Stub;
use crate::ptrace::sys::{self, Regs};
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Result, Tid};
use crate::record::Slot;
use crate::tracee::process::{Parked, Process};

/// An image as it leaves the process that has computed it, which does nothing any more but hold it.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    version: Version,
    /// What the daemon has mapped there.
    ours: Vec<Span>,
    /// Where its vDSO is.
    vdso: Span,
    told: Told,
    names: BTreeMap<Slot, String>,
}

impl Leaving {
    /// Takes an image out of a process whose threads are parked: what the daemon has changed in it is undone. It cannot go on
    /// from there.
    pub(crate) fn take(
        inbox: &Inbox,
        process: &Process,
        mut parked: BTreeMap<Tid, Parked>,
        handlers: Handlers,
    ) -> Result<Leaving> {
        for (tid, how) in &mut parked {
            process.leave_patches(*tid, how)?;
        }
        let version = Version::take_stock(inbox, process, &parked, handlers)?;
        process.clean_vdso(&process.memory)?;
        let name = |thread: &ThreadState| Ok((thread.slot, procfs::thread_name(process.pid, thread.tid)?));
        let vdso = &process.footprint.vdso;
        Ok(Leaving {
            ours: process.own_areas(),
            vdso: Span { start: vdso.start, end: vdso.end },
            told: Told::of(process.pid, version.break_at)?,
            names: version.threads.iter().map(name).collect::<Result<_>>()?,
            version,
        })
    }
}

/// An image that is in place.
#[derive(Debug)]
pub(crate) struct Placed {
    /// Every thread stands still, right before the call that it makes next.
    pub(crate) threads: Vec<Standing>,
    /// Memory that nothing of the image uses, and that is to be unmapped.
    pub(crate) spare: Span,
    /// Why `/proc/<pid>/exe` still names the old program.
    pub(crate) misnamed: Option<std::io::Error>,
    /// How many bytes were moved.
    pub(crate) moved: u64,
}

/// Puts an image in place of that of a process, in which `service` was taken stock of. Both stand still.
pub(crate) fn put(
    inbox: &Inbox,
    process: &Process,
    service: &Version,
    leaving: &Leaving,
    watches: &[Watch],
) -> Result<Placed, Failure> {
    const OLD: u64 = 0;
    const NEW: u64 = 1;
    let mut prepared = prepare(inbox, process, service, leaving, watches).map_err(Failure::Before)?;
    let refused = prepared.decide(OLD, NEW, || Ok(()))?;
    Ok(Placed {
        threads: prepared.standing(),
        spare: prepared.area,
        misnamed: refused.into_iter().find(|(call, _)| *call == NAMES_THE_FILE).map(|(_, error)| error),
        moved: prepared.moved,
    })
}

fn prepare<'a>(
    inbox: &'a Inbox,
    process: &'a Process,
    service: &Version,
    leaving: &Leaving,
    watches: &[Watch],
) -> Result<Prepared<'a>> {
    let coming = &leaving.version;
    let memory = Memory::open(coming.pid)?;
    let threads = place::pair(service, coming, |_, twin| Regs { orig_rax: u64::MAX, ..twin.regs })?;
    areas::check_replaceable(&service.maps, &process.own_areas()).map_err(unfit)?;
    let (changes, placed) = areas::replace(&service.maps, &coming.maps, &leaving.ours).map_err(unfit)?;
    place::check_count(service, &changes)?;
    let flags = Flags::of(coming.pid)?;
    if flags.are_sealed(leaving.vdso.start) {
        return Err(unfit("the kernel does not let the vDSO be moved (CONFIG_MSEAL_SYSTEM_MAPPINGS)"));
    }
    let names = threads.iter().map(|change| leaving.names.get(&change.coming.slot).map_or("", String::as_str));
    // What the kernel has in the service there was changed by the daemon.
    let code = libc::PROT_READ | libc::PROT_EXEC;
    let vdso = Kept { span: leaving.vdso, by: By::Byte, has: code, wants: code };
    let contents = Differing { copied: vec![leaving.vdso], dropped: Vec::new() };
    let mut task = Task {
        whole: Some(Whole {
            kernels: placed.iter().map(|(from, to)| Carried { from: *from, aside: 0, to: *to }).collect(),
            told: &leaving.told,
            file: None,
            names: names.collect(),
        }),
        changes: &changes,
        staged: vec![0; changes.created.len()],
        kept: vec![(vdso, contents)],
        break_at: None,
        actions: &coming.actions,
        watches,
        threads,
    };
    let tids: Vec<Tid> = task.threads.iter().map(|change| change.service.tid).collect();
    let mut prepared = Prepared {
        inbox,
        process,
        area: Span { start: 0, end: 0 },
        staged: Vec::new(),
        given: None,
        parts: Vec::new(),
        gates: Gates { word: 0, stub: process.footprint.stub, blocks: Vec::new() },
        threads: task.threads.iter().map(place::Coming::of).collect(),
        moved: 0,
        is_committed: false,
    };
    if let Some(whole) = &mut task.whole {
        whole.file = prepared.give_program(coming)?;
    }
    let len = program::lay_out(&task, 0).len;
    let room = changes.created.iter().map(|new| new.span.len() + PAGE).sum::<u64>();
    let kernels = placed.iter().map(|(span, _)| span.len()).sum::<u64>();
    let mut at = place::free_place(service, coming, len + PAGE + room + kernels)?;
    let area = Span { start: at, end: at + len };
    at += len + PAGE;
    for (place, created) in task.staged.iter_mut().zip(&changes.created) {
        *place = at;
        at += created.span.len() + PAGE;
    }
    for carried in task.whole.iter_mut().flat_map(|whole| &mut whole.kernels) {
        carried.aside = at;
        at += carried.from.len();
    }
    let laid = program::lay_out(&task, area.start);
    prepared.map_area(area, &laid, &memory)?;
    prepared.stage(&task, coming.pid, (&memory, &PageMap::open(coming.pid)?, &flags))?;
    leave_rseq(inbox, process, &tids)?;
    Ok(prepared)
}

impl Prepared<'_> {
    /// Gives the service the file of the other program, unless it is that of its own.
    fn give_program(&mut self, coming: &Version) -> Result<Option<u64>> {
        if let Some(file) = told::other_program(coming.pid, self.process.pid)? {
            let process = self.process;
            let slot = process.threads.first().map_or(Slot(0), |(_, slot)| slot);
            let mut remote = self.remote()?;
            let fd = giving::give(file.as_fd(), process.pid, &mut remote, &process.memory, process.scratch(slot))?;
            remote.finish()?;
            self.given = Some(fd);
        }
        Ok(self.given)
    }

    /// Maps the area and fills it. The code of the gate is executed in it.
    fn map_area(&mut self, area: Span, laid: &Laid, there: &Memory) -> Result<()> {
        let mut remote = self.remote()?;
        let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // Shared, by which a later daemon recognises it.
        let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        staging::map(&mut remote, area, protection, shared, u64::MAX, 0)?;
        remote.finish()?;
        self.area = area;
        let here = &self.process.memory;
        laid.pieces.iter().try_for_each(|(offset, bytes)| here.write(area.start + *offset as u64, bytes))?;
        let mut at = area.start + laid.contents as u64;
        for span in &laid.copied {
            here.write(at, &there.peek(span.start, span.len() as usize)?)?;
            at += span.len();
        }
        self.parts = laid.parts.clone();
        if let Some(gates) = &laid.gates {
            let stub = Stub { base: gates.code };
            self.gates = Gates { word: gates.word, stub, blocks: gates.blocks.clone() };
        }
        Ok(())
    }
}

/// Has the kernel forget the restartable sequences of the service's threads: it writes to their memory whenever a thread goes
/// on, and the first thread to go on removes it.
fn leave_rseq(inbox: &Inbox, process: &Process, tids: &[Tid]) -> Result<()> {
    const RSEQ_FLAG_UNREGISTER: u64 = 1;
    for tid in tids {
        let rseq = sys::get_rseq(*tid)?;
        if rseq.addr != 0 {
            let mut remote = process.remote(inbox, *tid, sys::get_regs(*tid)?)?;
            let args = [rseq.addr, u64::from(rseq.size), RSEQ_FLAG_UNREGISTER, u64::from(rseq.signature), 0, 0];
            remote.call("rseq", libc::SYS_rseq, args)?;
            remote.finish()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::time::Duration;

    use super::super::version::parked;
    use super::*;
    use crate::ptrace::Pid;
    use crate::ptrace::tsc::Trapped;
    use crate::tracee::process::{self, Zombies, park_all};
    use crate::tracee::program;
    use crate::update::birth;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A program of several threads that answers each line with this letter before it.
    struct Answering {
        child: Child,
        said: BufReader<ChildStdout>,
    }

    impl Answering {
        fn start(letter: char) -> Answering {
            let program = format!(
                "import queue, sys, threading\n\
                 queues = [queue.Queue() for _ in range(4)]\n\
                 def work(one, other):\n    while True: other.put(one.get() + '.')\n\
                 for pair in zip(queues, queues[1:]): threading.Thread(target=work, args=pair, daemon=True).start()\n\
                 print('ready', flush=True)\n\
                 for line in sys.stdin: queues[0].put('{letter}' + line.strip()); print(queues[-1].get(), flush=True)\n"
            );
            let mut command = Command::new("python3");
            let mut child =
                command.args(["-c", &program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
            let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
            said.read_line(&mut String::new()).expect("it is ready");
            let mut answering = Answering { child, said };
            answering.answers(letter);
            answering
        }

        fn pid(&self) -> Pid {
            Pid(self.child.id() as i32)
        }

        fn answers(&mut self, letter: char) {
            self.child.stdin.as_mut().expect("it is piped").write_all(b"hello\n").expect("it listens");
            let mut line = String::new();
            self.said.read_line(&mut line).expect("it answers");
            assert_eq!(line, format!("{letter}hello...\n"));
        }

        fn end(mut self) {
            self.child.kill().expect("it runs");
            self.child.wait().expect("it has ended");
        }
    }

    /// A process that is parked, with how its threads stand.
    fn stopped(inbox: &Inbox, pid: Pid) -> (Process, BTreeMap<Tid, Parked>) {
        let process = birth::prepare(inbox, pid, LIMIT).expect("a process to prepare");
        let parked = park_all(inbox, &process, LIMIT).expect("it stops");
        (process, parked)
    }

    fn areas(pid: Pid) -> Vec<(u64, u64)> {
        let maps = procfs::maps(pid).expect("it runs");
        maps.into_iter().filter(|area| !area.name.starts_with("[stack")).map(|area| (area.start, area.end)).collect()
    }

    /// Two programs; the image of the second is prepared for the process of the first.
    struct Two {
        inbox: Inbox,
        process: Process,
        other: Process,
        service: Version,
        leaving: Leaving,
    }

    impl Two {
        fn of(one: &Answering, other: &Answering) -> Two {
            let inbox = Inbox::new();
            let (process, parked) = stopped(&inbox, one.pid());
            let (other, theirs) = stopped(&inbox, other.pid());
            let service = Version::take_stock(&inbox, &process, &parked, Handlers::Unasked).expect("a stock");
            let handlers = Handlers::For(service.signals);
            let leaving = Leaving::take(&inbox, &other, theirs, handlers).expect("an image");
            Two { inbox, process, other, service, leaving }
        }
    }

    #[test]
    fn the_image_of_another_process_is_put_in_place() {
        let (mut one, other) = (Answering::start('a'), Answering::start('b'));
        let (wanted, had) = (areas(other.pid()), areas(one.pid()));
        let Two { inbox, mut process, other: theirs, service, leaving } = Two::of(&one, &other);
        let placed = put(&inbox, &process, &service, &leaving, &[]).expect("it is in place");
        assert!(placed.misnamed.is_none() && placed.moved > 0, "{placed:?}");
        program::equip_anew(&inbox, &mut process, Trapped::default(), placed.spare).expect("it is equipped");
        let standing = parked(&placed.threads);
        process.release(&inbox, standing, Zombies::These(Vec::new())).expect("it is let go");
        one.answers('b');
        one.answers('b');
        assert_ne!(areas(one.pid()), had);
        // The program may have got more of the heap since.
        let now = areas(one.pid());
        let missing: Vec<_> = wanted.iter().filter(|area| !now.iter().any(|now| now.0 == area.0)).collect();
        assert_eq!((missing.len(), now.len()), (0, wanted.len()), "{missing:x?}, {wanted:x?}, {now:x?}");
        process::kill(&inbox, theirs.pid).expect("it ends");
        one.end();
        // Whoever traces a child has waited for it.
        let _ = { other }.child.wait();
    }

    #[test]
    fn the_word_decides_which_image_goes_on_when_the_daemon_dies() {
        for (word, letter) in [(0u64, 'a'), (1, 'b')] {
            let (mut one, other) = (Answering::start('a'), Answering::start('b'));
            let two = Two::of(&one, &other);
            let mut prepared =
                prepare(&two.inbox, &two.process, &two.service, &two.leaving, &[]).expect("an image to prepare");
            prepared.gate(0).expect("gates");
            two.process.memory.write(prepared.gates.word, &word.to_ne_bytes()).expect("the word");
            // A daemon that is dead takes nothing back.
            prepared.is_committed = true;
            for tid in two.process.threads.tids() {
                sys::detach(tid, 0).expect("it is let go");
            }
            one.answers(letter);
            one.answers(letter);
            process::kill(&two.inbox, two.other.pid).expect("it ends");
            drop(prepared);
            one.end();
            let _ = { other }.child.wait();
        }
    }

    #[test]
    fn what_is_not_committed_leaves_nothing_behind() {
        let (mut one, other) = (Answering::start('a'), Answering::start('b'));
        let two = Two::of(&one, &other);
        let before = areas(one.pid());
        drop(prepare(&two.inbox, &two.process, &two.service, &two.leaving, &[]).expect("an image to prepare"));
        assert_eq!(areas(one.pid()), before);
        for tid in two.process.threads.tids() {
            sys::detach(tid, 0).expect("it is let go");
        }
        one.answers('a');
        process::kill(&two.inbox, two.other.pid).expect("it ends");
        one.end();
        let _ = { other }.child.wait();
    }
}
