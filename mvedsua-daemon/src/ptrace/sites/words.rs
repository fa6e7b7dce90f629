//! Writing answers for one thread, and reading how far it is.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use mvedsua_agent::layout::{ANSWERS_LEN, ARGS, Answer, FIRST, Kind, MISSES, Piece, Saved, WORDS_LEN, What, Words};

use super::Mapped;
use crate::ptrace::sys::Regs;

/// Memory of a call that is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) what: What,
    pub(crate) arg: u8,
    /// The argument that says how many buffers there are.
    pub(crate) count: u8,
    pub(crate) bytes: bytes::Bytes,
}

/// A call that is answered if it is made so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) nr: u32,
    pub(crate) kinds: [Kind; ARGS],
    pub(crate) args: [u64; ARGS],
    pub(crate) parts: Vec<Part>,
    pub(crate) ret: i64,
}

/// How far a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// So many more of its answers were given.
    Given(usize),
    /// What it has written is nothing that it could have read.
    Damaged,
}

/// The answers of one thread. They are written while it is stopped.
#[derive(Debug)]
pub(crate) struct Answers {
    index: u32,
    words: u64,
    /// Bytes that are there.
    head: u64,
    /// The tokens of those that were not seen given yet.
    open: VecDeque<u64>,
    /// The token that was seen last.
    seen: u64,
}

/// Where in the words something stands.
macro_rules! word {
    ($field:ident) => {
        std::mem::offset_of!(Words, $field) / 8
    };
}

impl Answers {
    /// Bytes that there are for answers.
    pub(crate) const ROOM: u64 = ANSWERS_LEN - FIRST;

    pub(super) fn new(mapped: &Mapped, index: u32, times: u64) -> Answers {
        let area = mapped.area();
        let mut answers = Answers { index, words: area.words(index), head: FIRST, open: VecDeque::new(), seen: 0 };
        let first = answers.first_word();
        for word in 0..size_of::<Words>() / 8 {
            mapped.words.word(first + word).store(0, Ordering::Relaxed);
        }
        let words = [(word!(answers), area.answers(index)), (word!(times), times)];
        words.into_iter().for_each(|(word, value)| mapped.words.word(first + word).store(value, Ordering::Relaxed));
        answers.clear(mapped);
        answers
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Where the thread's words are in the process.
    pub(super) fn words(&self) -> u64 {
        self.words
    }

    fn first_word(&self) -> usize {
        (u64::from(self.index) * WORDS_LEN / 8) as usize
    }

    fn start(&self) -> usize {
        (u64::from(self.index) * ANSWERS_LEN) as usize
    }

    fn get(&self, mapped: &Mapped, word: usize) -> u64 {
        mapped.words.word(self.first_word() + word).load(Ordering::Acquire)
    }

    /// Takes all answers back that were not given.
    pub(crate) fn clear(&mut self, mapped: &Mapped) {
        self.head = FIRST;
        self.open.clear();
        mapped.answers.word(self.start() / 8).store(FIRST, Ordering::Release);
        mapped.words.word(self.first_word() + word!(position)).store(FIRST, Ordering::Release);
    }

    /// Returns how many bytes of [`Answers::ROOM`] an answer takes.
    pub(crate) fn size(prepared: &Prepared) -> u64 {
        let part = |part: &Part| size_of::<Piece>() as u64 + (part.bytes.len() as u64).next_multiple_of(8);
        size_of::<Answer>() as u64 + prepared.parts.iter().map(part).sum::<u64>()
    }

    /// Adds an answer, which the thread does not see before [`Answers::publish`]. `times` says how many questions for the time come
    /// before it, and before the next. Says whether there was room.
    pub(crate) fn add(&mut self, mapped: &Mapped, prepared: &Prepared, times: (u64, u64)) -> bool {
        let size = Self::size(prepared);
        if self.head + size > ANSWERS_LEN {
            return false;
        }
        let token = rand::random::<u64>() | 1;
        let mut kinds = [Kind::Any as u8; 8];
        kinds.iter_mut().zip(prepared.kinds).for_each(|(place, kind)| *place = kind as u8);
        let args = prepared.args.iter().flat_map(|arg| arg.to_ne_bytes());
        let mut bytes: Vec<u8> = Vec::with_capacity(size as usize);
        bytes.extend(self.head.to_ne_bytes());
        bytes.extend(token.to_ne_bytes());
        bytes.extend((size as u32).to_ne_bytes());
        bytes.extend(prepared.nr.to_ne_bytes());
        bytes.extend(prepared.ret.to_ne_bytes());
        bytes.extend(times.0.to_ne_bytes());
        bytes.extend(times.1.to_ne_bytes());
        bytes.extend(kinds);
        bytes.extend(args);
        bytes.extend((prepared.parts.len() as u64).to_ne_bytes());
        for part in &prepared.parts {
            bytes.extend([part.what as u8, part.arg, part.count, 0, 0, 0, 0, 0]);
            bytes.extend((part.bytes.len() as u64).to_ne_bytes());
            bytes.extend(&part.bytes);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        debug_assert_eq!(bytes.len() as u64, size);
        mapped.answers.write(self.start() + self.head as usize, &bytes);
        self.head += size;
        self.open.push_back(token);
        true
    }

    /// Shows the thread all that was added.
    pub(crate) fn publish(&mut self, mapped: &Mapped) {
        mapped.answers.word(self.start() / 8).store(self.head, Ordering::Release);
    }

    /// Returns how far the thread is since this was asked last.
    pub(crate) fn progress(&mut self, mapped: &Mapped) -> Progress {
        let token = self.get(mapped, word!(token));
        if token == self.seen {
            return Progress::Given(0);
        }
        match self.open.iter().position(|open| *open == token) {
            Some(at) => {
                self.open.drain(..=at);
                self.seen = token;
                Progress::Given(at + 1)
            }
            None => Progress::Damaged,
        }
    }

    /// Returns how many calls were not answered, by [`mvedsua_agent::layout::Miss`].
    pub(crate) fn missed(&self, mapped: &Mapped) -> [u64; MISSES] {
        std::array::from_fn(|miss| self.get(mapped, word!(missed) + miss))
    }

    /// Gives a thread that is in the agent the program's registers: at its call, or behind it if that was answered.
    pub(super) fn leave(&self, mapped: &Mapped, regs: &mut Regs, is_at_site: impl Fn(u64) -> bool) {
        let call = self.get(mapped, word!(call));
        if self.get(mapped, word!(inside)) == 0 {
            // On its way in or out: its registers are there, and r11 says where it comes from or goes to. Only while the token is
            // looked at r11 is used for that, and the place is kept already.
            regs.rip = if is_at_site(regs.r11) { regs.r11 } else { call };
            return;
        }
        let answered = self.get(mapped, word!(token)) != self.get(mapped, word!(before));
        let saved = |register: Saved| self.get(mapped, word!(saved) + register as usize);
        regs.rax = if answered { self.get(mapped, word!(ret)) } else { saved(Saved::Rax) };
        regs.rip = if answered { call + super::CALL } else { call };
        let places = [
            (&mut regs.rdi, Saved::Rdi),
            (&mut regs.rsi, Saved::Rsi),
            (&mut regs.rdx, Saved::Rdx),
            (&mut regs.r10, Saved::R10),
            (&mut regs.r8, Saved::R8),
            (&mut regs.r9, Saved::R9),
            (&mut regs.rbx, Saved::Rbx),
            (&mut regs.rbp, Saved::Rbp),
            (&mut regs.r12, Saved::R12),
            (&mut regs.r13, Saved::R13),
            (&mut regs.r14, Saved::R14),
            (&mut regs.r15, Saved::R15),
            (&mut regs.rsp, Saved::Rsp),
        ];
        for (place, register) in places {
            *place = saved(register);
        }
        mapped.words.word(self.first_word() + word!(inside)).store(0, Ordering::Release);
    }
}
