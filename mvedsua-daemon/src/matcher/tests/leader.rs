//! A leader that is simulated: a program runs in some interleaving, and is recorded.

use mvedsua_common::syscalls::regions::{self, After, Memory};
use mvedsua_common::syscalls::{self, Class, Order, Pairing, Row, Treatment};
use rand::Rng;
use rand::rngs::StdRng;

use super::Nobody;
use super::program::{Machine, Program, Request};
use crate::calls;
use crate::matcher::Orders;
use crate::record::interleaving::Interleaving;
use crate::record::{CallEntry, CallReturn, Event, LeaderAddr, Nanos, Piece, PieceDir, Record, Seq, Slot};

/// Returns the row by which a call is recorded and compared.
pub(super) fn row_of(interleaving: Interleaving, request: Request, memory: &dyn Memory) -> &'static Row {
    let orders = Orders { interleaving, pairing: Pairing::Threads, leaders: &Nobody };
    if let Some((row, _)) = orders.of(request.nr, &request.args) {
        return row;
    }
    match syscalls::treatment(request.nr, &request.args, memory) {
        Treatment::Row(row) | Treatment::ThreadClone(row) => row,
        other => panic!("{request:?} is treated otherwise: {other:?}"),
    }
}

/// Returns what the kernel reads of a call.
pub(super) fn inputs(row: &Row, args: &[u64; 6], memory: &Machine) -> Vec<Piece> {
    let mut found = Vec::new();
    regions::inputs(row, args, memory, &mut |region| found.push(region));
    pieces(&found, PieceDir::In, memory)
}

fn pieces(regions: &[regions::Region], dir: PieceDir, memory: &Machine) -> Vec<Piece> {
    let piece = |region: &regions::Region| {
        let mut bytes = vec![0; region.len as usize];
        let len = memory.read(region.addr, &mut bytes);
        bytes.truncate(len);
        Piece { arg: region.arg, part: region.part, dir, addr: LeaderAddr(region.addr), bytes: bytes.into() }
    };
    regions.iter().map(piece).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Unborn,
    /// It was made and has not gone on yet.
    Born,
    InUserCode,
    /// In a call since that time; whether its entry is in the log.
    In(Request, u64, bool),
    Ended,
}

struct Leader<'a> {
    machine: Machine,
    stands: Vec<Stands>,
    /// Who waits at a word has been woken.
    woken: Vec<bool>,
    interleaving: Interleaving,
    now: u64,
    log: Vec<Record>,
    rng: &'a mut StdRng,
}

/// A thread that is held before its call, or in it.
#[derive(Clone, Debug)]
pub(super) struct HeldThread {
    pub(super) thread: usize,
    pub(super) call: CallEntry,
    pub(super) local: bool,
    pub(super) written: bool,
}

/// Lets a program run to its end, and returns the records of it.
pub(super) fn record(program: &Program, interleaving: Interleaving, rng: &mut StdRng) -> Vec<Record> {
    record_until(program, interleaving, rng, usize::MAX).0
}

/// The same until there are so many records, and all threads are held for a change of roles.
pub(super) fn record_until(
    program: &Program,
    interleaving: Interleaving,
    rng: &mut StdRng,
    most: usize,
) -> (Vec<Record>, Vec<HeldThread>) {
    let threads = program.threads.len();
    let mut stands = vec![Stands::Unborn; threads];
    stands[0] = Stands::InUserCode;
    let woken = vec![false; threads];
    let mut leader =
        Leader { machine: Machine::new(program), stands, woken, interleaving, now: 1, log: Vec::new(), rng };
    if interleaving == Interleaving::OneByOne {
        leader.user_code(0);
    }
    loop {
        let able: Vec<usize> = (0..threads).filter(|thread| leader.is_able(*thread)).collect();
        if able.is_empty() {
            assert!(leader.stands.iter().all(|stands| matches!(stands, Stands::Unborn | Stands::Ended)), "it stands");
            return (leader.log, Vec::new());
        }
        if leader.log.len() >= most {
            // Those that are on their way to a call come to it, and those that end do.
            let comes = able.iter().copied().find(|thread| leader.comes(*thread));
            let Some(thread) = comes else { return leader.held() };
            leader.step(thread);
            continue;
        }
        let thread = able[leader.rng.random_range(0..able.len())];
        leader.step(thread);
    }
}

impl Leader<'_> {
    fn tick(&mut self) -> Nanos {
        self.now += self.rng.random_range(1..5_000);
        Nanos(self.now)
    }

    fn log(&mut self, thread: usize, event: Event) {
        self.log.push(Record { seq: Seq(self.log.len() as u64), slot: Slot(thread as u32), event });
    }

    fn is_able(&self, thread: usize) -> bool {
        match self.stands[thread] {
            Stands::Born | Stands::InUserCode => true,
            Stands::In(request, ..) => !calls::waits(request.nr, &request.args) || self.woken[thread],
            Stands::Unborn | Stands::Ended => false,
        }
    }

    /// Says whether a thread cannot be held where it stands.
    fn comes(&self, thread: usize) -> bool {
        match self.stands[thread] {
            Stands::Born | Stands::InUserCode => true,
            Stands::In(request, ..) => i64::from(request.nr) == libc::SYS_exit,
            Stands::Unborn | Stands::Ended => false,
        }
    }

    fn held(self) -> (Vec<Record>, Vec<HeldThread>) {
        let held = |thread: usize| {
            let Stands::In(request, since, written) = self.stands[thread] else { return None };
            let row = row_of(self.interleaving, request, &self.machine);
            let call = self.entry(request, row, since);
            Some(HeldThread { thread, call, local: row.class == Class::Local, written })
        };
        let held = (0..self.stands.len()).filter_map(held).collect();
        (self.log, held)
    }

    fn step(&mut self, thread: usize) {
        match self.stands[thread] {
            Stands::Born => {
                if self.interleaving == Interleaving::OneByOne {
                    self.log(thread, Event::Resumed);
                }
                self.user_code(thread);
            }
            Stands::InUserCode => self.user_code(thread),
            Stands::In(request, since, written) => self.leave(thread, request, since, written),
            Stands::Unborn | Stands::Ended => {}
        }
    }

    /// Runs a thread to its next call that it does not leave at once.
    fn user_code(&mut self, thread: usize) {
        loop {
            let request = self.machine.run(thread);
            let row = row_of(self.interleaving, request, &self.machine);
            let since = self.tick().0;
            if calls::waits(request.nr, &request.args) {
                // Nobody wakes it before it sleeps; where the word is set already it does not wait.
                self.woken[thread] = self.machine.word(request.args[0]) != request.args[2] as u32;
            }
            let by_entry = row.class.order() == Some(Order::ByEntry);
            let makes = i64::from(request.nr) == libc::SYS_clone || row.class == Class::Both;
            let written = by_entry && (makes || self.rng.random_bool(0.5));
            if written {
                let entry = self.entry(request, row, since);
                self.log(thread, Event::Enter(entry));
            }
            self.stands[thread] = Stands::In(request, since, written);
            let waits = calls::waits(request.nr, &request.args) && !self.woken[thread];
            // An output that is not written yet has its place now; one that asks for the time is in user code again.
            let at_once = by_entry && !written || row.class.order().is_none() || calls::asks_time(request.nr);
            if !at_once || waits {
                return;
            }
            self.finish(thread, request, since, written);
            if self.stands[thread] == Stands::Ended {
                return;
            }
        }
    }

    fn entry(&self, request: Request, row: &Row, since: u64) -> CallEntry {
        let inputs = inputs(row, &request.args, &self.machine);
        CallEntry { nr: request.nr, args: request.args, inputs, at: Nanos(since) }
    }

    /// A thread leaves its call. Where they run one by one it has its turn then.
    fn leave(&mut self, thread: usize, request: Request, since: u64, written: bool) {
        self.finish(thread, request, since, written);
        if self.stands[thread] == Stands::InUserCode && self.interleaving == Interleaving::OneByOne {
            self.user_code(thread);
        }
    }

    /// Does what the kernel does, and records it.
    fn finish(&mut self, thread: usize, request: Request, since: u64, written: bool) {
        let row = row_of(self.interleaving, request, &self.machine);
        let entry = self.entry(request, row, since);
        let ret = self.execute(thread, request);
        if self.stands[thread] == Stands::Ended {
            return self.log(thread, Event::ThreadEnded);
        }
        let mut places = Vec::new();
        let notes = regions::notes(row, &request.args, &self.machine);
        let after = After::Executed(&notes);
        regions::outputs(row, &request.args, ret, after, &self.machine, &mut |region| places.push(region));
        let outputs = pieces(&places, PieceDir::Out, &self.machine);
        let ret = CallReturn { ret, outputs, at: self.tick() };
        self.machine.returned(thread, ret.ret);
        self.stands[thread] = Stands::InUserCode;
        match (row.class, written) {
            (Class::Local, _) => {}
            (_, true) => self.log(thread, Event::Return(ret)),
            (_, false) => self.log(thread, Event::Call(entry, ret)),
        }
    }

    fn execute(&mut self, thread: usize, request: Request) -> i64 {
        let Request { nr, args } = request;
        match i64::from(nr) {
            libc::SYS_read => {
                let bytes: Vec<u8> = (0..self.rng.random_range(0..=args[2])).map(|_| self.rng.random()).collect();
                self.machine.write(args[1], &bytes);
                bytes.len() as i64
            }
            libc::SYS_write => self.rng.random_range(1..=args[2]) as i64,
            libc::SYS_clock_gettime => {
                let time = [self.now / 1_000_000_000, self.now % 1_000_000_000];
                let bytes: Vec<u8> = time.iter().flat_map(|word| word.to_ne_bytes()).collect();
                self.machine.write(args[1], &bytes);
                0
            }
            libc::SYS_futex if !calls::waits(nr, &args) => {
                let waits = |stands: &Stands| match stands {
                    Stands::In(other, ..) => calls::waits(other.nr, &other.args) && other.args[0] == args[0],
                    _ => false,
                };
                let found: Vec<usize> = (0..self.stands.len()).filter(|other| waits(&self.stands[*other])).collect();
                found.iter().for_each(|other| self.woken[*other] = true);
                found.len() as i64
            }
            libc::SYS_clone => {
                let child = self.machine.child_of(thread);
                let tid = 1000 + child as i32;
                self.log(thread, Event::ThreadStarted { child: Slot(child as u32), tid });
                self.stands[child] = Stands::Born;
                i64::from(tid)
            }
            libc::SYS_exit => {
                self.stands[thread] = Stands::Ended;
                0
            }
            _ => 0,
        }
    }
}
