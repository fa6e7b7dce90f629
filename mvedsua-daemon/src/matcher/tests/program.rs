//! Programs that are simulated: threads that make calls, with a memory.
//!
//! What a thread writes depends on all that it was told and has read of others, so whoever is told something else says so.

use mvedsua_common::syscalls::regions::Memory;
use rand::Rng;
use rand::rngs::StdRng;

pub(super) const WORDS: u64 = 0x100;
const BUFFERS: u64 = 0x1000;
const BUFFER: u64 = 0x100;
const MOST_THREADS: usize = 4;
const FLAGS: u64 =
    (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64;

/// One step of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Read {
        fd: u64,
        len: u64,
    },
    Write {
        fd: u64,
        len: u64,
    },
    /// Asks for a time that durations are computed from.
    Clock,
    /// Asks for the time of day.
    Day,
    /// Changes shared memory, in user code.
    Share(u64),
    /// Sets a word and wakes who waits for it.
    Wake(u64),
    /// Waits until a word is set.
    Wait(u64),
    Yield,
    /// Makes another thread.
    Start(usize),
    /// Maps memory: each version does that for itself.
    Map,
}

/// How its threads meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// In memory and in calls.
    Anywhere,
    /// Where one waits for another.
    InCalls,
}

#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) threads: Vec<Vec<Op>>,
}

impl Program {
    /// Makes one whose threads cannot wait for each other in a circle: there is an order in which all of it can be done.
    pub(super) fn random(rng: &mut StdRng, meeting: Meeting) -> Program {
        let mut threads = vec![vec![Op::Clock, Op::Day]];
        let mut set: Vec<(u64, usize)> = Vec::new();
        let mut next_word = 16;
        for _ in 0..rng.random_range(5..60) {
            let at = rng.random_range(0..threads.len());
            let fd = rng.random_range(3..6);
            let op = match rng.random_range(0..20) {
                0..5 => Op::Read { fd, len: rng.random_range(1..64) },
                5..10 => Op::Write { fd, len: rng.random_range(1..64) },
                10 => Op::Clock,
                11 => Op::Day,
                12 | 13 if meeting == Meeting::Anywhere => Op::Share(rng.random_range(0..4)),
                14 => Op::Yield,
                15 => Op::Map,
                16 if threads.len() < MOST_THREADS => {
                    threads.push(Vec::new());
                    Op::Start(threads.len() - 1)
                }
                17 => {
                    next_word += 1;
                    set.push((next_word, at));
                    Op::Wake(next_word)
                }
                18 | 19 => match set.pop() {
                    Some((word, by)) if by != at => Op::Wait(word),
                    _ => continue,
                },
                _ => continue,
            };
            threads[at].push(op);
        }
        for thread in &mut threads {
            thread.push(Op::Write { fd: 1, len: 32 });
        }
        Program { threads }
    }
}

/// A call that a thread makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) nr: u32,
    pub(super) args: [u64; 6],
}

/// One process that runs a program.
pub(super) struct Machine {
    program: Program,
    bytes: Vec<u8>,
    /// Where each thread is, and what it knows.
    at: Vec<(usize, u64)>,
}

impl Memory for Machine {
    fn read(&self, addr: u64, buf: &mut [u8]) -> usize {
        let from = (addr as usize).min(self.bytes.len());
        let len = buf.len().min(self.bytes.len() - from);
        buf[..len].copy_from_slice(&self.bytes[from..from + len]);
        len
    }
}

fn mix(account: u64, what: u64) -> u64 {
    (account ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

impl Machine {
    pub(super) fn new(program: &Program) -> Machine {
        let len = BUFFERS + BUFFER * MOST_THREADS as u64;
        let at = (0..program.threads.len()).map(|thread| (0, thread as u64 + 1)).collect();
        Machine { program: program.clone(), bytes: vec![0; len as usize], at }
    }

    pub(super) fn buffer(thread: usize) -> u64 {
        BUFFERS + BUFFER * thread as u64
    }

    pub(super) fn write(&mut self, addr: u64, bytes: &[u8]) {
        self.bytes[addr as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn word(&self, addr: u64) -> u32 {
        let mut word = [0; 4];
        self.read(addr, &mut word);
        u32::from_ne_bytes(word)
    }

    fn op(&self, thread: usize) -> Option<Op> {
        self.program.threads[thread].get(self.at[thread].0).copied()
    }

    /// Runs a thread up to its next call.
    pub(super) fn run(&mut self, thread: usize) -> Request {
        loop {
            let Some(op) = self.op(thread) else { return Request { nr: 60, args: [0; 6] } };
            let (buffer, account) = (Machine::buffer(thread), self.at[thread].1);
            let request = |nr: i64, args: [u64; 6]| Request { nr: nr as u32, args };
            let futex = |word: u64, op: i32, value: u64| {
                let op = (op | libc::FUTEX_PRIVATE_FLAG) as u64;
                request(libc::SYS_futex, [WORDS + 4 * word, op, value, 0, 0, 0])
            };
            return match op {
                Op::Share(word) => {
                    let addr = WORDS + 4 * word;
                    let known = mix(account, u64::from(self.word(addr)));
                    self.write(addr, &(known as u32).to_ne_bytes());
                    self.at[thread] = (self.at[thread].0 + 1, known);
                    continue;
                }
                Op::Wait(word) if self.word(WORDS + 4 * word) != 0 => {
                    let known = mix(account, u64::from(self.word(WORDS + 4 * word)));
                    self.at[thread] = (self.at[thread].0 + 1, known);
                    continue;
                }
                Op::Wait(word) => futex(word, libc::FUTEX_WAIT, 0),
                Op::Wake(word) => {
                    self.write(WORDS + 4 * word, &(account as u32 | 1).to_ne_bytes());
                    futex(word, libc::FUTEX_WAKE, 1)
                }
                Op::Read { fd, len } => request(libc::SYS_read, [fd, buffer, len, 0, 0, 0]),
                Op::Write { fd, len } => {
                    let bytes: Vec<u8> = (0..len).map(|at| mix(account, at) as u8).collect();
                    self.write(buffer, &bytes);
                    request(libc::SYS_write, [fd, buffer, len, 0, 0, 0])
                }
                Op::Clock => request(libc::SYS_clock_gettime, [libc::CLOCK_MONOTONIC as u64, buffer, 0, 0, 0, 0]),
                Op::Day => request(libc::SYS_clock_gettime, [libc::CLOCK_REALTIME as u64, buffer, 0, 0, 0, 0]),
                Op::Yield => request(libc::SYS_sched_yield, [0; 6]),
                Op::Start(child) => request(libc::SYS_clone, [FLAGS, Machine::buffer(child), 0, 0, 0, 0]),
                Op::Map => {
                    let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
                    request(libc::SYS_mmap, [0, 4096, 3, anonymous, u64::MAX, 0])
                }
            };
        }
    }

    /// Which thread a thread makes by the call at which it is.
    pub(super) fn child_of(&self, thread: usize) -> usize {
        match self.op(thread) {
            Some(Op::Start(child)) => child,
            other => panic!("{other:?} makes no thread"),
        }
    }

    /// A thread's call has returned.
    pub(super) fn returned(&mut self, thread: usize, ret: i64) {
        let (at, account) = self.at[thread];
        let told = |len: u64| {
            let from = Machine::buffer(thread) as usize;
            self.bytes[from..from + len as usize].iter().fold(account, |known, byte| mix(known, u64::from(*byte)))
        };
        self.at[thread] = match self.op(thread) {
            // It looks again.
            Some(Op::Wait(_)) | None => (at, account),
            Some(Op::Read { .. }) => (at + 1, mix(told(ret as u64), ret as u64)),
            Some(Op::Day) => (at + 1, told(16)),
            Some(Op::Write { .. } | Op::Start(_)) => (at + 1, mix(account, ret as u64)),
            // What they are told has no effect on anybody.
            Some(Op::Clock | Op::Yield | Op::Map | Op::Wake(_) | Op::Share(_)) => (at + 1, account),
        };
    }
}
