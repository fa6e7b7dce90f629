//! The agent's code, called in this process: the answers and the words are memory of the test.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use crate::answer;
use crate::layout::{
    ANSWERS_LEN, Answer, FIRST, Kind, Miss, Piece, Saved, TIMES_HEAD, TIMES_TAIL, WORDS_LEN, What, Words,
};

/// Memory as the daemon lays it out for one thread.
struct Thread {
    words: Box<[u64]>,
    answers: Box<[u64]>,
    times: Box<[AtomicU64]>,
    head: u64,
}

/// A piece of an answer: what is done with it, its argument, that of its count, its bytes.
type Part<'a> = (What, u8, u8, &'a [u8]);

impl Thread {
    fn new() -> Thread {
        let mut thread = Thread {
            words: vec![0; WORDS_LEN as usize / 8].into(),
            answers: vec![0; ANSWERS_LEN as usize / 8].into(),
            times: (0..16).map(|_| AtomicU64::new(0)).collect(),
            head: FIRST,
        };
        let (answers, times) = (thread.answers.as_ptr() as u64, thread.times.as_ptr() as u64);
        let words = thread.words();
        (words.answers, words.times, words.position) = (answers, times, FIRST);
        thread.show();
        thread
    }

    fn words(&mut self) -> &mut Words {
        // SAFETY: as long as the words need, aligned, and whole numbers all of them.
        unsafe { &mut *self.words.as_mut_ptr().cast::<Words>() }
    }

    fn show(&mut self) {
        self.answers[0] = self.head;
    }

    fn add(&mut self, nr: u32, kinds: &[Kind], args: [u64; 6], ret: i64, times: (u64, u64), parts: &[Part<'_>]) {
        let part = |part: &Part<'_>| size_of::<Piece>() + part.3.len().next_multiple_of(8);
        let size = size_of::<Answer>() + parts.iter().map(part).sum::<usize>();
        let mut all = [0; 8];
        all.iter_mut().zip(kinds).for_each(|(place, kind)| *place = *kind as u8);
        let answer = Answer {
            at: self.head,
            token: self.head + 1,
            size: size as u32,
            nr,
            ret,
            times_before: times.0,
            times_after: times.1,
            kinds: all,
            args,
            pieces: parts.len() as u64,
        };
        let mut at = self.head as usize;
        let place = |at: usize| self.answers.as_ptr() as usize + at;
        // SAFETY: what is written lies within the answers, whose places are aligned.
        unsafe {
            (place(at) as *mut Answer).write(answer);
            at += size_of::<Answer>();
            for (what, arg, count, bytes) in parts {
                let piece =
                    Piece { what: *what as u8, arg: *arg, count: *count, unused: [0; 5], len: bytes.len() as u64 };
                (place(at) as *mut Piece).write(piece);
                at += size_of::<Piece>();
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), place(at) as *mut u8, bytes.len());
                at += bytes.len().next_multiple_of(8);
            }
        }
        self.head = at as u64;
        self.show();
    }

    fn call(&mut self, nr: u32, args: [u64; 6]) -> Result<i64, Miss> {
        const MISSES: [Miss; 7] =
            [Miss::Empty, Miss::Call, Miss::Argument, Miss::Time, Miss::Payload, Miss::Room, Miss::Damaged];
        let words = self.words();
        words.saved[Saved::Rax as usize] = u64::from(nr);
        words.saved[Saved::Rdi as usize..=Saved::R9 as usize].copy_from_slice(&args);
        let before = words.missed;
        // SAFETY: all that the words point at is this thread's.
        let answered = unsafe { answer(std::ptr::from_mut(words)) };
        let words = self.words();
        match answered {
            1 => Ok(words.ret),
            _ => Err(MISSES
                .into_iter()
                .find(|miss| words.missed[*miss as usize] > before[*miss as usize])
                .expect("a miss")),
        }
    }

    fn token(&mut self) -> u64 {
        self.words().token.load(Ordering::Relaxed)
    }
}

const READ: u32 = 0;
const WRITE: u32 = 1;
const READV: u32 = 19;
const WRITEV: u32 = 20;
const PLAIN: [Kind; 3] = [Kind::Half, Kind::NotNull, Kind::Whole];

fn at(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as u64
}

#[test]
fn a_read_gets_what_the_leader_got() {
    let mut thread = Thread::new();
    thread.add(READ, &PLAIN, [5, 0x9000, 16, 0, 0, 0], 5, (0, 0), &[(What::Give, 1, 0, b"hello")]);
    let mut room = *b"................";
    let place = room.as_mut_ptr() as u64;
    assert_eq!(thread.call(READ, [5, place, 16, 1, 2, 3]), Ok(5));
    assert_eq!(&room, b"hello...........");
    assert_eq!((thread.token(), thread.words().given), (FIRST + 1, 1));
    assert_eq!(thread.call(READ, [5, place, 16, 0, 0, 0]), Err(Miss::Empty));
}

#[test]
fn a_descriptor_is_its_lower_half() {
    let mut thread = Thread::new();
    thread.add(READ, &PLAIN, [5, 1, 16, 0, 0, 0], 0, (0, 0), &[]);
    assert_eq!(thread.call(READ, [5 | 7 << 32, 1, 16, 0, 0, 0]), Ok(0));
}

#[test]
fn whatever_differs_is_left_to_the_call() {
    let mut thread = Thread::new();
    thread.add(WRITE, &PLAIN, [1, 1, 5, 0, 0, 0], 5, (0, 0), &[(What::Compare, 1, 0, b"hello")]);
    let (same, other) = (*b"hello", *b"hellO");
    assert_eq!(thread.call(READ, [1, at(&same), 5, 0, 0, 0]), Err(Miss::Call));
    assert_eq!(thread.call(WRITE, [2, at(&same), 5, 0, 0, 0]), Err(Miss::Argument));
    assert_eq!(thread.call(WRITE, [1, 0, 5, 0, 0, 0]), Err(Miss::Argument));
    assert_eq!(thread.call(WRITE, [1, at(&same), 4, 0, 0, 0]), Err(Miss::Argument));
    assert_eq!(thread.call(WRITE, [1, at(&other), 5, 0, 0, 0]), Err(Miss::Payload));
    assert_eq!(thread.token(), 0, "nothing was given");
    assert_eq!(thread.call(WRITE, [1, at(&same), 5, 0, 0, 0]), Ok(5));
}

#[test]
fn the_time_is_asked_as_often_as_before() {
    let mut thread = Thread::new();
    thread.add(WRITE, &PLAIN, [1, 1, 0, 0, 0, 0], 0, (2, 3), &[]);
    let tail = |thread: &Thread, value| thread.times[TIMES_TAIL as usize / 8].store(value, Ordering::Relaxed);
    for (asked, outcome) in [(1, Err(Miss::Time)), (3, Err(Miss::Time)), (2, Ok(0))] {
        tail(&thread, asked);
        assert_eq!(thread.call(WRITE, [1, 1, 0, 0, 0, 0]), outcome, "asked {asked} times");
    }
    assert_eq!(thread.times[TIMES_HEAD as usize / 8].load(Ordering::Relaxed), 3, "what comes before the next call");
}

fn vectors(parts: &[&[u8]]) -> Vec<u64> {
    parts.iter().flat_map(|part| [at(part), part.len() as u64]).collect()
}

#[test]
fn buffers_may_be_cut_differently_and_must_be_whole() {
    let kinds = [Kind::Half, Kind::NotNull, Kind::Any];
    let mut thread = Thread::new();
    thread.add(WRITEV, &kinds, [1, 1, 9, 0, 0, 0], 6, (0, 0), &[(What::CompareBuffers, 1, 2, b"abcdef")]);
    let mut gives = |parts: &[&[u8]]| {
        let vectors = vectors(parts);
        thread.call(WRITEV, [1, vectors.as_ptr() as u64, parts.len() as u64, 0, 0, 0])
    };
    assert_eq!(gives(&[b"abc", b"de"]), Err(Miss::Payload), "one byte is missing");
    assert_eq!(gives(&[b"abc", b"defg"]), Err(Miss::Payload), "one is too many");
    assert_eq!(gives(&[b"abc", b"deF"]), Err(Miss::Payload));
    assert_eq!(gives(&[b"ab", b"", b"cdef"]), Ok(6));
}

#[test]
fn what_was_read_is_poured_into_the_buffers_that_are_there() {
    let kinds = [Kind::Half, Kind::NotNull, Kind::Whole];
    let mut thread = Thread::new();
    let parts: [Part<'_>; 1] = [(What::GiveBuffers, 1, 2, b"abcdef")];
    thread.add(READV, &kinds, [1, 1, 2, 0, 0, 0], 6, (0, 0), &parts);
    let (one, other, short) = ([0_u8; 2], [0_u8; 8], [0_u8; 3]);
    let narrow = vectors(&[&one, &short]);
    assert_eq!(thread.call(READV, [1, narrow.as_ptr() as u64, 2, 0, 0, 0]), Err(Miss::Room));
    let wide = vectors(&[&one, &other]);
    assert_eq!(thread.call(READV, [1, wide.as_ptr() as u64, 2, 0, 0, 0]), Ok(6));
    // SAFETY: reads what the agent wrote behind the compiler's back.
    let (one, other) = unsafe { (std::ptr::read_volatile(&raw const one), std::ptr::read_volatile(&raw const other)) };
    assert_eq!((&one[..], &other[..]), (&b"ab"[..], &b"cdef\0\0\0\0"[..]));
}

#[test]
fn too_many_buffers_are_left_to_the_call() {
    let kinds = [Kind::Half, Kind::NotNull, Kind::Any];
    let mut thread = Thread::new();
    thread.add(WRITEV, &kinds, [1, 1, 9, 0, 0, 0], 0, (0, 0), &[(What::CompareBuffers, 1, 2, b"")]);
    assert_eq!(thread.call(WRITEV, [1, 8, 65, 0, 0, 0]), Err(Miss::Room));
}

#[test]
fn answers_come_in_their_order_and_none_twice() {
    let mut thread = Thread::new();
    for ret in 0..100 {
        thread.add(WRITE, &PLAIN, [1, 1, 0, 0, 0, 0], ret, (0, 0), &[]);
    }
    for ret in 0..100 {
        assert_eq!(thread.call(WRITE, [1, 1, 0, 0, 0, 0]), Ok(ret));
    }
    assert_eq!(thread.call(WRITE, [1, 1, 0, 0, 0, 0]), Err(Miss::Empty));
    assert_eq!(thread.words().given, 100);
}

proptest! {
    /// A program may write what it likes over its words: the agent reads no byte outside the answers by what stands there, and
    /// gives no answer that is not one.
    #[test]
    fn a_position_that_was_scribbled_on_gives_nothing_or_an_answer(position in any::<u64>(), within in 0..2000_u64) {
        for position in [position, within, FIRST + within] {
            let mut thread = Thread::new();
            for ret in 0..4 {
                thread.add(WRITE, &PLAIN, [1, 1, 0, 0, 0, 0], ret, (0, 0), &[]);
            }
            let starts: Vec<u64> = (0..4).map(|index| FIRST + index * size_of::<Answer>() as u64).collect();
            thread.words().position = position;
            match thread.call(WRITE, [1, 1, 0, 0, 0, 0]) {
                Ok(ret) => prop_assert_eq!(starts.get(ret as usize), Some(&position)),
                Err(Miss::Empty) => prop_assert_eq!(position, FIRST + 4 * size_of::<Answer>() as u64),
                Err(miss) => prop_assert_eq!(miss, Miss::Damaged),
            }
        }
    }

    /// Whatever stands where answers are, the agent stays within them.
    #[test]
    fn answers_that_are_none_are_not_followed(answers in prop::collection::vec(any::<u64>(), 20..200)) {
        let mut thread = Thread::new();
        let first = FIRST as usize / 8;
        thread.answers[first..first + answers.len()].copy_from_slice(&answers);
        thread.answers[0] = FIRST + answers.len() as u64 * 8;
        let outcome = thread.call(WRITE, [1, 1, 0, 0, 0, 0]);
        prop_assert_eq!(outcome, Err(Miss::Damaged));
    }
}
