//! Asking for the time without a stop: the memory.
//!
//! One mapping of a process, shared with the daemon and with nobody else (`MADV_DONTFORK`: no child inherits it). It has a
//! page that says what it is and some for each thread that has a *ring*: a few words that the [agent](super::agent) and
//! the daemon agree on, and 2048 answers. Pages that nobody writes take no memory.
//!
//! ```text
//!   0 asking      1 between the first and the last step of noting an answer
//!   8 mode        0: make the call; 1: note what the original says; 2: answer
//!  16 head        answers written so far
//!  24 tail        answers read so far
//!  32 registers   rsp rbx rbp r12 r13 r14 r15 rdi rsi at the function's entry, while asking
//! 104 question    the question, while asking, and the place for the answer
//! 120 words       where the words are by which the thread's other calls are answered ([`super::sites`]), 0 for none
//! 128 answers     question, result, two words
//! ```
//!
//! Only one side runs at a time: the daemon touches a ring while its thread is stopped. Only what a thread has noted that runs
//! without stops is taken meanwhile: the daemon alone moves the tail, and what lies before the head does not change. A process
//! that follows may write anything here; so nothing that is read is used as an address or a length.

use std::sync::atomic::{AtomicU64, Ordering};

use super::agent::Function;
use super::memory::Memory;
use super::sys::Regs;
use super::window::Window;
use super::{Pid, Result};

const PAGE: u64 = 4096;
/// Answers in a ring; a power of two. A thread that runs without stops notes what it was told in some milliseconds.
pub const ANSWERS: u64 = 2048;
/// Bytes from one ring to the next: whole pages with its words and its answers.
const RING: u64 = (16 * 8 + ANSWERS * 32).next_multiple_of(PAGE);
/// `question` of a `gettimeofday`; that of a `clock_gettime` is its clock.
const DAY: u64 = 0x100;

/// Where in a ring the address of the thread's words is.
pub(super) const WORDS_AT: u8 = 120;

/// Where the rings of a process lie in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    pub base: u64,
}

impl Area {
    /// Rings in an area. Threads beyond that make real calls.
    pub const RINGS: u32 = 1023;
    /// Bytes of an area.
    pub const LEN: u64 = PAGE + RING * Self::RINGS as u64;
    /// What its first page begins with.
    pub const MAGIC: u64 = u64::from_le_bytes(*b"mvedsuat");

    /// Returns the area in a mapping, if it is one.
    #[must_use]
    pub fn recognise(memory: &Memory, start: u64, end: u64) -> Option<Area> {
        let is_area = end - start == Self::LEN && memory.read_u64(start).ok()? == Self::MAGIC;
        is_area.then_some(Area { base: start })
    }

    /// Returns the address of the first ring.
    #[must_use]
    pub fn first_ring(self) -> u64 {
        self.base + PAGE
    }

    /// Returns the address after the last ring.
    #[must_use]
    pub fn end(self) -> u64 {
        self.base + Self::LEN
    }

    /// Returns the address of a ring.
    #[must_use]
    pub fn ring(self, index: u32) -> u64 {
        self.first_ring() + u64::from(index % Self::RINGS) * RING
    }

    /// Returns which ring lies at an address of this area.
    #[must_use]
    pub fn index(self, addr: u64) -> u32 {
        ((addr - self.first_ring()) / RING) as u32
    }

    /// Says whether an address is that of a ring.
    #[must_use]
    pub fn contains(self, addr: u64) -> bool {
        (self.first_ring()..self.end()).contains(&addr)
    }
}

/// What a thread's ring is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The agent notes what the thread was told.
    Note = 1,
    /// The agent tells the thread what the ring says.
    Answer = 2,
}

/// One answer: the function and clock that were asked, the result and the two words that it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    question: u64,
    pub ret: i64,
    /// `struct timespec` or `struct timeval`, both 16 bytes.
    pub time: [u8; 16],
}

impl Answer {
    /// Returns an answer to a call, if it is one that the agent can give.
    #[must_use]
    pub fn to(nr: u32, args: &[u64; 6], ret: i64, time: [u8; 16]) -> Option<Answer> {
        let question = match i64::from(nr) {
            libc::SYS_clock_gettime => u64::from(args[0] as u32),
            libc::SYS_gettimeofday if args[1] == 0 => DAY,
            _ => return None,
        };
        Some(Answer { question, ret, time })
    }

    /// Returns the call's number, its first argument where that is the clock, and which argument pointed at the answer.
    #[must_use]
    pub fn call(&self) -> (u32, Option<u64>, usize) {
        match self.question {
            DAY => (libc::SYS_gettimeofday as u32, None, 0),
            clock => (libc::SYS_clock_gettime as u32, Some(clock), 1),
        }
    }
}

/// The daemon's view of an area.
#[derive(Debug)]
pub struct Shared {
    area: Area,
    window: Window,
}

impl Shared {
    /// Maps the area of a process into the daemon and marks it.
    pub fn map(pid: Pid, area: Area) -> Result<Shared> {
        let shared = Shared { area, window: Window::map(pid, area.base, area.end())? };
        shared.word(0).store(Area::MAGIC, Ordering::Relaxed);
        Ok(shared)
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        self.window.word(index)
    }

    /// Returns the ring whose address in the process this is.
    #[must_use]
    pub fn ring_at(&self, addr: u64) -> Option<Ring<'_>> {
        let whole = self.area.contains(addr) && (addr - self.area.first_ring()).is_multiple_of(RING);
        whole.then(|| Ring { shared: self, first: ((addr - self.area.base) / 8) as usize })
    }
}

/// Returns how many answers wait. A ring never holds more; whoever wrote another number gets nothing.
fn noted(head: u64, tail: u64) -> u64 {
    let count = head.wrapping_sub(tail);
    if count <= ANSWERS { count } else { 0 }
}

/// One thread's ring.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    shared: &'a Shared,
    first: usize,
}

impl Ring<'_> {
    fn get(&self, word: usize) -> u64 {
        self.shared.word(self.first + word).load(Ordering::Acquire)
    }

    fn set(&self, word: usize, value: u64) {
        self.shared.word(self.first + word).store(value, Ordering::Release);
    }

    /// Empties the ring and says what it is for.
    pub fn reset(&self, mode: Mode) {
        for word in [0, 2, 3, usize::from(WORDS_AT) / 8] {
            self.set(word, 0);
        }
        self.set(1, mode as u64);
    }

    /// Says whether the agent is between the first and the last step of noting an answer.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.get(0) == 1
    }

    pub(super) fn stop_asking(&self) {
        self.set(0, 0);
    }

    pub(super) fn function(&self) -> Function {
        if self.get(13) == DAY { Function::Day } else { Function::Clock }
    }

    /// Puts the registers back that the asking function was entered with.
    pub(super) fn restore(&self, regs: &mut Regs) {
        let places = [
            &mut regs.rsp,
            &mut regs.rbx,
            &mut regs.rbp,
            &mut regs.r12,
            &mut regs.r13,
            &mut regs.r14,
            &mut regs.r15,
            &mut regs.rdi,
            &mut regs.rsi,
        ];
        for (word, place) in (4..).zip(places) {
            *place = self.get(word);
        }
    }

    fn answer(&self, number: u64) -> Answer {
        let word = 16 + (number % ANSWERS) as usize * 4;
        let mut time = [0; 16];
        time[..8].copy_from_slice(&self.get(word + 2).to_ne_bytes());
        time[8..].copy_from_slice(&self.get(word + 3).to_ne_bytes());
        Answer { question: self.get(word), ret: self.get(word + 1) as i64, time }
    }

    /// Takes what the agent has noted, oldest first.
    pub fn take_noted(&self) -> impl Iterator<Item = Answer> {
        let (head, tail) = (self.get(2), self.get(3));
        let count = noted(head, tail);
        self.set(3, head);
        (0..count).map(move |number| self.answer(tail.wrapping_add(number)))
    }

    /// Takes what the agent has noted before answer number `head`, oldest first. The thread may run meanwhile.
    pub fn take_noted_before(&self, head: u64, mut each: impl FnMut(Answer)) {
        let tail = self.get(3);
        (0..noted(head, tail)).for_each(|number| each(self.answer(tail.wrapping_add(number))));
        self.set(3, head);
    }

    /// Says where the thread's words are.
    pub(crate) fn set_words(&self, place: u64) {
        self.set(usize::from(WORDS_AT) / 8, place);
    }

    /// Writes answers for the follower in place of all that were left, as many as there is room for, and shows none.
    pub(crate) fn put(&self, answers: impl Iterator<Item = Answer>) {
        self.set(2, 0);
        self.set(3, 0);
        for (number, answer) in answers.take(ANSWERS as usize).enumerate() {
            let word = 16 + number * 4;
            self.set(word, answer.question);
            self.set(word + 1, answer.ret as u64);
            let (first, second) = answer.time.split_at(8);
            for (place, bytes) in [(word + 2, first), (word + 3, second)] {
                self.set(place, bytes.try_into().map_or(0, u64::from_ne_bytes));
            }
        }
    }

    /// Shows the first of the answers that [`Ring::put`] has written.
    pub(crate) fn show(&self, count: u64) {
        self.set(2, count);
    }

    /// Returns how many answers of those that [`Ring::put`] left the follower has used.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.get(3)
    }
}
