use std::io::IoSliceMut;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, Mnemonic, Register};
use mvedsua_agent::layout::{Kind, What};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use super::*;
use crate::ptrace::Error;
use crate::ptrace::inject::wait_stop;
use crate::ptrace::sys::{self, Resume, SyscallStop};
use crate::ptrace::wait::{Inbox, Stop};
use crate::tracee::process::{Parked, Process, park};
use crate::update::birth;

/// The program's vector registers are not kept, so nothing may touch them; and nothing may make a call.
#[test]
fn the_agent_uses_general_registers_alone_and_makes_no_call() {
    let mut info = InstructionInfoFactory::new();
    let mut decoder = Decoder::with_ip(64, AGENT, 0, DecoderOptions::NONE);
    let mut seen = 0;
    // Tables of jumps stand behind the code; what is decoded of them proves nothing, and does no harm here.
    for instruction in decoder.iter().take_while(|instruction| !instruction.is_invalid()) {
        seen += 1;
        let used = info.info(&instruction).used_registers().iter().map(|used| used.register());
        let other = used.filter(|register| !is_general(*register)).collect::<Vec<_>>();
        assert!(other.is_empty(), "{:?} at {:#x} uses {other:?}", instruction.code(), instruction.ip());
        assert!(!matches!(instruction.mnemonic(), Mnemonic::Syscall | Mnemonic::Int));
    }
    assert!(seen > 100, "only {seen} instructions could be read");
}

fn is_general(register: Register) -> bool {
    register.is_gpr() || register.is_segment_register() || register == Register::None || register.is_ip()
}

const LIMIT: Duration = Duration::from_secs(10);
const READS: u8 = 120;
/// A descriptor that is not open: whoever really reads from it is told so.
const NOWHERE: i32 = 999;
const READ: u32 = libc::SYS_read as u32;
const ROOM: usize = 24;
/// The child has come to where it waits, and goes on from there.
const READY: u32 = 1;
const GO: u32 = 2;

/// What the read of this number is told.
fn told(number: u8) -> [u8; 9] {
    std::array::from_fn(|at| number.wrapping_mul(7).wrapping_add(at as u8))
}

/// Reads again and again; leaves with 0 if each time it got what it is told, in its place, and nothing else changed.
fn read_often(start: &AtomicU32) -> i32 {
    start.store(READY, Ordering::Release);
    while start.load(Ordering::Acquire) != GO {
        std::hint::spin_loop();
    }
    for number in 0..READS {
        let mut room = [0xaa_u8; ROOM];
        let vector = IoSliceMut::new(&mut room);
        // SAFETY: the buffer is a live local of that length.
        let got = unsafe { libc::read(NOWHERE, vector.as_ptr().cast_mut().cast(), vector.len()) };
        if got != 9 || room[..9] != told(number) || room[9..] != [0xaa; ROOM - 9] {
            return 1;
        }
    }
    0
}

fn prepared(number: u8) -> Prepared {
    let mut kinds = [Kind::Any; 6];
    kinds[..3].copy_from_slice(&[Kind::Half, Kind::NotNull, Kind::Whole]);
    let part = Part { what: What::Give, arg: 1, count: 0, bytes: told(number).to_vec().into() };
    Prepared { nr: READ, kinds, args: [NOWHERE as u64, 0, ROOM as u64, 0, 0, 0], parts: vec![part], ret: 9 }
}

/// A child that reads as soon as it is let go, prepared as one that follows.
struct Reader {
    inbox: Inbox,
    process: Process,
    main: Tid,
    sites: Sites,
    start: *mut AtomicU32,
    /// How many reads were answered.
    answered: u8,
}

impl Reader {
    fn start() -> Reader {
        // SAFETY: a new mapping; the test keeps it to its end.
        let page = unsafe { mmap_anonymous(None, 4096.try_into().unwrap(), ProtFlags::all(), MapFlags::MAP_SHARED) };
        let start: *mut AtomicU32 = page.expect("a page").cast().as_ptr();
        // SAFETY: zeroed and aligned memory; the child only reads and leaves, it takes no lock and allocates nothing.
        let child = match unsafe { libc::fork() } {
            0 => {
                // SAFETY: see above; it ends without running anything of the parent's.
                unsafe { libc::_exit(read_often(&*start)) }
            }
            pid => Pid(pid),
        };
        // SAFETY: as above.
        while unsafe { (*start).load(Ordering::Acquire) } != READY {
            std::thread::yield_now();
        }
        let inbox = Inbox::new();
        let mut process = birth::prepare(&inbox, child, LIMIT).expect("a process to prepare");
        let main = child.main();
        assert_eq!(park(&inbox, child, &[main], LIMIT).expect("it stops").get(&main), Some(&Parked::User));
        process.give_ring(main).expect("a ring");
        let rings = process.rings.as_ref().expect("this machine has rings").area();
        let saved = sys::get_regs(main).expect("registers");
        let mut remote = process.remote(&inbox, main, saved).expect("a thread to borrow");
        let read = libc::read as *const () as u64;
        let sites = Sites::create(&mut remote, child, &process.memory, read, rings).expect("a place for the agent");
        remote.finish().expect("it is as it was");
        Reader { inbox, process, main, sites, start, answered: 0 }
    }

    /// Lets the child come to its first read, and rewrites the site.
    fn rewrite(&mut self) {
        // SAFETY: see `start`.
        unsafe { (*self.start).store(GO, Ordering::Release) };
        sys::resume(self.main, Resume::Sysemu, 0).expect("it goes on");
        assert_eq!(wait_stop(&self.inbox, self.main, "reading").expect("it stops"), Stop::Syscall);
        let mut regs = sys::get_regs(self.main).expect("registers");
        let site = regs.rip - CALL;
        let fit = self.sites.functions.inspect(self.process.pid, &self.process.memory, site);
        assert!(fit.is_ok(), "{fit:?}");
        let call = self.sites.rewrite(self.process.pid, &self.process.memory, site).expect("it can be written");
        let words = self.sites.give(self.main, self.process.ring_place(self.main)).expect("words");
        self.process.ring(self.main).expect("a ring").set_words(words);
        regs.rip = call.expect("the C library compares the result of `read`") + CALL;
        sys::set_regs(self.main, &regs).expect("registers");
        self.answer_stop();
    }

    /// Answers the read at whose entry the child stands.
    fn answer_stop(&mut self) {
        let SyscallStop::Entry { nr: READ, args } = sys::syscall_info(self.main).expect("where it stands") else {
            panic!("it does not stand at its read");
        };
        self.process.memory.write(args[1], &told(self.answered)).expect("its buffer");
        sys::set_result(self.main, 9).expect("its result");
        self.answered += 1;
        self.tell_rest();
    }

    /// Puts all that is left where the agent finds it.
    fn tell_rest(&mut self) {
        let (answers, mapped) = self.sites.answers(self.main).expect("answers");
        answers.clear(mapped);
        for number in self.answered..READS {
            assert!(answers.add(mapped, &prepared(number), (0, 0)), "there is room");
        }
        answers.publish(mapped);
    }

    fn count(&mut self) {
        let (answers, mapped) = self.sites.answers(self.main).expect("answers");
        match answers.progress(mapped) {
            Progress::Given(count) => self.answered += count as u8,
            Progress::Damaged => panic!("the agent wrote another token"),
        }
    }
}

#[test]
fn reads_are_answered_without_a_stop() {
    let mut reader = Reader::start();
    reader.rewrite();
    sys::resume(reader.main, Resume::Sysemu, 0).expect("it goes on");
    // The next call is the one by which it leaves.
    assert_eq!(wait_stop(&reader.inbox, reader.main, "reading").expect("it stops"), Stop::Syscall);
    let stop = sys::syscall_info(reader.main).expect("where it stands");
    assert!(
        matches!(stop, SyscallStop::Entry { nr, args } if i64::from(nr) == libc::SYS_exit_group && args[0] == 0),
        "{stop:?}"
    );
    reader.count();
    assert_eq!(reader.answered, READS);
    sys::resume(reader.main, Resume::Cont, 0).expect("it ends");
    sys::kill(reader.process.pid, libc::SIGKILL).expect("it can be killed");
    assert!(wait_stop(&reader.inbox, reader.main, "leaving").is_err(), "it ends");
}

/// Wherever a thread is stopped in the stub or in the agent, it can be moved out: its call is answered once, by the one or the
/// other, and no register is lost. Every second time the site gets its bytes back, as for a signal or an image.
#[test]
fn an_answer_is_given_once_wherever_its_thread_leaves() {
    let mut reader = Reader::start();
    reader.rewrite();
    let (mut distance, mut gone, mut left, mut rounds) = (1_u32, 0_u32, false, 0_u32);
    let mut before = reader.answered;
    let site = reader.sites.sites.keys().next().copied().expect("a site");
    let status = loop {
        let regs_now = sys::get_regs(reader.main).expect("registers");
        let is_there = reader.sites.contains(regs_now.rip);
        gone = if is_there && !left { gone + 1 } else { gone };
        if is_there && !left && gone == distance {
            let mut regs = regs_now;
            reader.sites.leave_agent(reader.main, &mut regs);
            reader.count();
            reader.tell_rest();
            if distance % 2 == 0 {
                reader.sites.give_back(&reader.process.memory, &mut regs).expect("it can be written");
                assert!(!reader.sites.contains(regs.rip));
            }
            sys::set_regs(reader.main, &regs).expect("registers");
            (left, distance) = (true, distance + 1);
        }
        let at_call = !reader.sites.contains(sys::get_regs(reader.main).expect("registers").rip) || left;
        let code = reader.process.memory.read_vec(sys::get_regs(reader.main).expect("registers").rip, 2).expect("code");
        if at_call && code == [0x0f, 0x05] {
            // A call: it would be made for real under a step.
            sys::resume(reader.main, Resume::Sysemu, 0).expect("it goes on");
            match wait_stop(&reader.inbox, reader.main, "reading") {
                Ok(Stop::Syscall) => {}
                other => panic!("{other:?}"),
            }
            match sys::syscall_info(reader.main).expect("where it stands") {
                SyscallStop::Entry { nr: READ, .. } => reader.answer_stop(),
                SyscallStop::Entry { nr, args } if i64::from(nr) == libc::SYS_exit_group => break args[0],
                other => panic!("{other:?}"),
            }
        }
        if reader.answered > before {
            // The next read begins anew, with a site that is rewritten.
            (before, gone) = (reader.answered, 0);
            rounds += u32::from(left);
            left = false;
            if reader.sites.refused.remove(&site) {
                let rip = sys::get_regs(reader.main).expect("registers").rip;
                if Sites::is_within(site, rip) {
                    let mut regs = sys::get_regs(reader.main).expect("registers");
                    let call = reader.sites.rewrite(reader.process.pid, &reader.process.memory, site);
                    regs.rip = call.expect("it can be written").expect("it was") + (rip - site);
                    sys::set_regs(reader.main, &regs).expect("registers");
                } else {
                    reader.sites.rewrite(reader.process.pid, &reader.process.memory, site).expect("it can be written");
                }
            }
        }
        sys::step(reader.main).expect("it goes on");
        match wait_stop(&reader.inbox, reader.main, "stepping") {
            Ok(Stop::Signal(libc::SIGTRAP)) => {}
            other => panic!("{other:?}"),
        }
        reader.count();
    };
    assert_eq!((status, reader.answered), (0, READS), "after {rounds} rounds");
    assert!(rounds >= 60, "it left {rounds} times only");
    sys::kill(reader.process.pid, libc::SIGKILL).expect("it can be killed");
    let end: Error = wait_stop(&reader.inbox, reader.main, "leaving").expect_err("it ends");
    assert!(end.is_gone(), "{end}");
}

#[test]
fn a_site_is_left_as_it_is_where_somebody_jumps_into_it() {
    let memory = Memory::open(Pid(std::process::id() as i32)).expect("this process");
    let pid = memory.pid();
    let mut functions = Functions::default();
    // `getppid` returns what the kernel says, and looks at nothing.
    let code = memory.read_vec(libc::getppid as *const () as u64, 32).expect("code");
    let call = code.windows(2).position(|pair| pair == [0x0f, 0x05]).expect("a call") as u64;
    let site = libc::getppid as *const () as u64 + call;
    assert!(functions.inspect(pid, &memory, site).is_err(), "its result is not compared");
    assert!(functions.inspect(pid, &memory, site + 1).is_err(), "no call stands there");
}
