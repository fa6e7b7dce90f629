//! Calls that one version may make more or less often than the other: asking for the time and waiting for it to pass.
//!
//! Threads that compete for a lock in user space ask for the time (to compute a deadline) and sleep as often as the
//! competition wants, which no record shows and which has no effect on anybody. So these calls alone are *elastic*: a
//! record of one that the follower does not make is passed over, and one that the leader did not make is answered with the
//! time that the leader saw last. How long a sleep was asked to last is not compared either. Each such answer is counted
//! as a relaxation and shown.
//!
//! The same is true of one more thing, for another reason: glibc's `malloc` counts the processors the first time that two
//! threads fight for an arena, by opening, reading and closing [`PROCESSORS`]. Which version comes to that, and when, is a
//! matter of timing. The leader's three calls are passed over where the follower does not make them; the follower's are
//! answered from the file itself ([`Counting`]).
//!
//! And of a third: a change of the signal mask, which is recorded only so that a signal that it lets in has its place
//! (`replay/following/letting_in.rs`). Either version may make more of these, and each makes its own.
//!
//! The time of day is not elastic: it ends up in what programs write. But whichever clock is asked, the answer concerns the
//! thread that asks alone, so it is [`of_one_thread`](crate::calls::of_one_thread) and waits for no other thread. Which calls
//! are meant says [`crate::calls`].

use std::collections::HashMap;

use crate::calls::{asks_time, sleeps};
use crate::record::{CallEntry, CallReturn, Piece, PieceDir};

/// Says whether two elastic calls ask the same question, so that the record of one answers the other.
pub(crate) fn same_question(nr: u32, args: &[u64; 6], recorded: &CallEntry) -> bool {
    let clock = |args: &[u64; 6]| (i64::from(nr) == libc::SYS_clock_gettime).then_some(args[0] as u32);
    nr == recorded.nr && clock(args) == clock(&recorded.args)
}

/// Where glibc counts the processors.
pub(crate) const PROCESSORS: &str = "/sys/devices/system/cpu/online";

/// The descriptor that a follower reads [`PROCESSORS`] through when the leader does not: no program has opened as many.
pub(crate) const PROCESSORS_FD: i32 = i32::MAX - 7;

/// How far a thread is with counting the processors while its twin does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Counting {
    #[default]
    Neither,
    /// The leader's thread has the file open as this descriptor.
    Leader(i32),
    /// The leader's thread is about to return from closing it.
    LeaderCloses,
    /// The follower's thread has it open as [`PROCESSORS_FD`], and has read so much of it.
    Follower(usize),
}

/// Says whether a call opens [`PROCESSORS`].
pub(crate) fn counts_processors(nr: u32, inputs: &[Piece]) -> bool {
    i64::from(nr) == libc::SYS_openat
        && inputs.iter().any(|piece| piece.arg == 1 && piece.bytes.strip_suffix(&[0]) == Some(PROCESSORS.as_bytes()))
}

/// Says whether a call reads or closes a descriptor, and so belongs to the counting through it.
pub(crate) fn goes_on_counting(nr: u32, args: &[u64; 6], fd: i32) -> bool {
    [libc::SYS_read, libc::SYS_close].contains(&i64::from(nr)) && args[0] as i32 == fd
}

/// The result of a call and the pieces of memory that it wrote.
type Answer = (i64, Vec<Vec<u8>>);

/// The answers that the leader got last.
#[derive(Debug, Default)]
pub(crate) struct LastTimes {
    /// By call and clock.
    seen: HashMap<(u32, u32), Answer>,
}

impl LastTimes {
    fn key(nr: u32, args: &[u64; 6]) -> (u32, u32) {
        (nr, if i64::from(nr) == libc::SYS_clock_gettime { args[0] as u32 } else { 0 })
    }

    /// Remembers an answer.
    pub(crate) fn note(&mut self, entry: &CallEntry, ret: &CallReturn) {
        if asks_time(entry.nr) {
            let outputs =
                ret.outputs.iter().filter(|piece| piece.dir == PieceDir::Out).map(|piece| piece.bytes.to_vec());
            self.seen.insert(Self::key(entry.nr, &entry.args), (ret.ret, outputs.collect()));
        }
    }

    /// Returns the result and the memory for a call that the leader did not make: the last answer to the same question.
    pub(crate) fn answer(&self, nr: u32, args: &[u64; 6]) -> Option<(i64, &[Vec<u8>])> {
        if sleeps(nr) {
            return Some((0, &[]));
        }
        self.seen.get(&Self::key(nr, args)).map(|(ret, outputs)| (*ret, outputs.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{is_elastic, of_one_thread};
    use crate::record::{LeaderAddr, Nanos};

    #[test]
    fn an_answer_is_kept_by_clock() {
        let entry = |clock| CallEntry { nr: 228, args: [clock, 0x1000, 0, 0, 0, 0], inputs: Vec::new(), at: Nanos(0) };
        let piece = Piece { arg: 1, part: 0, dir: PieceDir::Out, addr: LeaderAddr(0x1000), bytes: vec![7; 16].into() };
        let mut times = LastTimes::default();
        times.note(&entry(1), &CallReturn { ret: 0, outputs: vec![piece], at: Nanos(0) });
        assert_eq!(times.answer(228, &entry(1).args), Some((0, &[vec![7; 16]][..])));
        assert_eq!(times.answer(228, &entry(0).args), None);
        assert_eq!(times.answer(35, &[0; 6]), Some((0, &[][..])));
        assert!(same_question(228, &entry(1).args, &entry(1)) && !same_question(228, &entry(1).args, &entry(0)));
        assert!(!of_one_thread(0) && of_one_thread(228));
        assert!(is_elastic(228, &entry(1).args) && !is_elastic(228, &entry(0).args));
    }

    #[test]
    fn counting_the_processors_is_told_by_the_path() {
        let path = |path: &str| Piece {
            arg: 1,
            part: 0,
            dir: PieceDir::In,
            addr: LeaderAddr(0),
            bytes: format!("{path}\0").into_bytes().into(),
        };
        let openat = libc::SYS_openat as u32;
        assert!(counts_processors(openat, &[path(PROCESSORS)]));
        assert!(!counts_processors(openat, &[path("/sys/devices/system/cpu/possible")]));
        assert!(!counts_processors(libc::SYS_read as u32, &[path(PROCESSORS)]));
        assert!(goes_on_counting(libc::SYS_close as u32, &[4, 0, 0, 0, 0, 0], 4));
        assert!(!goes_on_counting(libc::SYS_close as u32, &[5, 0, 0, 0, 0, 0], 4));
    }
}
