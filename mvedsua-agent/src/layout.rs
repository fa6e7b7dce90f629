//! The memory that agent and daemon share.
//!
//! Each thread has two parts. Its *answers* are written by the daemon, and mapped without write permission in the process that
//! follows. Its *words* are the agent's: what it keeps of the program's registers, how far it is, and its stack.

use core::sync::atomic::AtomicU64;

/// Bytes of a thread's answers.
pub const ANSWERS_LEN: u64 = 256 << 10;
/// Bytes of a thread's words, with the agent's stack behind them.
pub const WORDS_LEN: u64 = 16 << 10;
/// Where in the answers the first one stands, behind the count of bytes that are there.
pub const FIRST: u64 = 64;
/// Arguments of a call.
pub const ARGS: usize = 6;
/// Buffers of a call that is answered here.
pub const MOST_BUFFERS: u64 = 64;

/// Why the agent did not answer a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Miss {
    /// Nothing is there.
    Empty = 0,
    /// The next answer is to another call.
    Call = 1,
    /// An argument differs.
    Argument = 2,
    /// The time was not asked as often as before, or more often.
    Time = 3,
    /// What the program gives differs, or is not as long.
    Payload = 4,
    /// The program has no room for what it is to get.
    Room = 5,
    /// What the agent has written does not fit what it reads.
    Damaged = 6,
}

/// Kinds of [`Miss`].
pub const MISSES: usize = 7;

/// The registers of the program that the agent keeps, in the order of [`Words::saved`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Saved {
    Rax = 0,
    Rdi = 1,
    Rsi = 2,
    Rdx = 3,
    R10 = 4,
    R8 = 5,
    R9 = 6,
    Rbx = 7,
    Rbp = 8,
    R12 = 9,
    R13 = 10,
    R14 = 11,
    R15 = 12,
    Rsp = 13,
}

/// What the agent writes of one thread.
#[derive(Debug)]
#[repr(C)]
pub struct Words {
    /// The token of the answer that was given last. Writing it is what gives an answer.
    pub token: AtomicU64,
    /// 1 while the program's registers are here, else 0.
    pub inside: AtomicU64,
    /// The token when the agent was entered.
    pub before: u64,
    /// Where the next answer stands.
    pub position: u64,
    /// Where this thread's answers are.
    pub answers: u64,
    /// Where this thread's answers to questions for the time are.
    pub times: u64,
    /// The result of the answer that is given.
    pub ret: i64,
    /// Where the call is made that is not answered.
    pub call: u64,
    pub saved: [u64; 14],
    /// How many answers were given.
    pub given: u64,
    /// How many calls were not answered, by [`Miss`].
    pub missed: [u64; MISSES],
}

// The assembly at the call sites goes by these.
const _: () = {
    assert!(core::mem::offset_of!(Words, inside) == 8);
    assert!(core::mem::offset_of!(Words, before) == 16);
    assert!(core::mem::offset_of!(Words, ret) == 48);
    assert!(core::mem::offset_of!(Words, call) == 56);
    assert!(core::mem::offset_of!(Words, saved) == 64);
    assert!(size_of::<Words>() as u64 <= WORDS_LEN / 4);
};

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// It is not.
    Any = 0,
    /// Its lower half.
    Half = 1,
    /// As it is.
    Whole = 2,
    /// It is a null pointer.
    Null = 3,
    /// It is not.
    NotNull = 4,
}

/// One answer; its pieces follow, each with its bytes, padded to words.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Answer {
    /// Where it stands itself.
    pub at: u64,
    /// A number that nobody writes by chance.
    pub token: u64,
    /// Bytes to the next answer.
    pub size: u32,
    pub nr: u32,
    pub ret: i64,
    /// How many questions for the time come before the call, and before the next one.
    pub times_before: u64,
    pub times_after: u64,
    /// How each argument is compared, a [`Kind`] each.
    pub kinds: [u8; 8],
    pub args: [u64; ARGS],
    pub pieces: u64,
}

/// What is done with the bytes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    /// The program must have the same at the address that is the argument.
    Compare = 0,
    /// The program gets them there.
    Give = 1,
    /// The buffers of an `iovec` array must have them, one after the other, and nothing else.
    CompareBuffers = 2,
    /// The buffers of an `iovec` array get them, one after the other.
    GiveBuffers = 3,
}

/// Memory of a call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Piece {
    /// A [`What`].
    pub what: u8,
    /// The argument that points at it.
    pub arg: u8,
    /// The argument that says how many buffers there are.
    pub count: u8,
    pub unused: [u8; 5],
    /// Bytes.
    pub len: u64,
}

/// Where in the memory that tells the time is said how many answers were written, and how many read.
pub const TIMES_HEAD: u64 = 16;
pub const TIMES_TAIL: u64 = 24;
