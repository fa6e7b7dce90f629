//! A call as the programs saw it, and the memory that they read with it.

use std::cell::Cell;

use mvedsua_common::bulk::{AT_ENTRY, Header, PieceHeader, STRING};
use mvedsua_common::syscalls::regions;

use crate::record::Nanos;

/// One record of the ring buffer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    pub(crate) nr: u32,
    pub(crate) args: [u64; 6],
    pub(crate) ret: i64,
    pub(crate) at: Nanos,
    /// How many times the thread had noted by then.
    pub(crate) times: u64,
    /// What the thread had blocked when it entered the call.
    pub(crate) blocked: u64,
    /// See `mvedsua_common::bulk`.
    pub(crate) flags: u32,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    addr: u64,
    entry: bool,
    /// Nothing behind its end belongs to it.
    string: bool,
    bytes: Vec<u8>,
}

impl Piece {
    fn holds(&self, addr: u64) -> bool {
        addr.checked_sub(self.addr).is_some_and(|at| at < self.bytes.len() as u64)
    }
}

const HEADER: usize = size_of::<Header>();
const PIECE: usize = size_of::<PieceHeader>();

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

impl Observation {
    /// Reads a record of the programs, laid out as [`Header`] says. What is cut off is not there.
    pub(super) fn parse(bytes: &[u8]) -> Observation {
        let mut args = [0; 6];
        for (index, arg) in args.iter_mut().enumerate() {
            *arg = u64_at(bytes, 8 + 8 * index);
        }
        let end = (HEADER + u32_at(bytes, 92) as usize).min(bytes.len());
        let mut rest = bytes.get(HEADER..end).unwrap_or_default();
        let mut pieces = Vec::new();
        while rest.len() >= PIECE {
            let (addr, len, when) = (u64_at(rest, 0), u32_at(rest, 8) as usize, u32_at(rest, 12));
            let Some(bytes) = rest.get(PIECE..PIECE + len) else { break };
            let (entry, string) = (when & !STRING == u32::from(AT_ENTRY), when & STRING != 0);
            pieces.push(Piece { addr, entry, string, bytes: bytes.to_vec() });
            rest = rest.get(PIECE + len.next_multiple_of(8)..).unwrap_or_default();
        }
        Observation {
            nr: u32_at(bytes, 4),
            args,
            ret: u64_at(bytes, 56).cast_signed(),
            at: Nanos(u64_at(bytes, 64)),
            times: u64_at(bytes, 72),
            blocked: u64_at(bytes, 80),
            flags: u32_at(bytes, 88),
            pieces,
        }
    }

    /// A call that has been entered, of which no memory was read.
    pub(crate) fn entered(nr: u32, args: [u64; 6], at: Nanos) -> Observation {
        Observation { nr, args, at, ..Observation::default() }
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Makes this the end of a call that was interrupted, and that the kernel has gone on with.
    pub(crate) fn ends(&mut self, interrupted: Observation) {
        (self.nr, self.args) = (interrupted.nr, interrupted.args);
        self.pieces.extend(interrupted.pieces);
    }
}

/// The memory of a call before it and after it, as far as it is known. What a call has not changed is the same in both.
#[derive(Debug)]
pub(crate) struct Memories<'a, M: ?Sized> {
    call: &'a Observation,
    /// The thread stands still after the call, and here is the rest.
    rest: Option<&'a M>,
    /// Something was asked for that is not known.
    missed: Cell<bool>,
}

impl<'a, M: regions::Memory + ?Sized> Memories<'a, M> {
    pub(crate) fn of(call: &'a Observation, rest: Option<&'a M>) -> Memories<'a, M> {
        Memories { call, rest, missed: Cell::new(false) }
    }

    pub(crate) fn before(&self) -> View<'_, 'a, M> {
        View { memories: self, before: true }
    }

    pub(crate) fn after(&self) -> View<'_, 'a, M> {
        View { memories: self, before: false }
    }

    /// Says whether something was asked for that is not known.
    pub(crate) fn has_missed(&self) -> bool {
        self.missed.get()
    }

    fn read(&self, before: bool, addr: u64, buf: &mut [u8]) -> usize {
        let find = |entry| self.call.pieces.iter().find(|piece| piece.entry == entry && piece.holds(addr));
        // What is read after the call stands for what was there before it, where nothing was read then.
        let found = if before { find(true).or_else(|| find(false)) } else { find(false) };
        let known = found.map_or(0, |piece| {
            let bytes = &piece.bytes[(addr - piece.addr) as usize..];
            let len = bytes.len().min(buf.len());
            buf[..len].copy_from_slice(&bytes[..len]);
            len
        });
        let read = match self.rest {
            Some(rest) if known < buf.len() => known + rest.read(addr.wrapping_add(known as u64), &mut buf[known..]),
            _ => known,
        };
        let whole = read == buf.len() || read > 0 && found.is_some_and(|piece| piece.string);
        if !whole && self.rest.is_none() {
            self.missed.set(true);
        }
        read
    }
}

/// One of the two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'v, 'a, M: ?Sized> {
    memories: &'v Memories<'a, M>,
    before: bool,
}

impl<M: regions::Memory + ?Sized> regions::Memory for View<'_, '_, M> {
    fn read(&self, addr: u64, buf: &mut [u8]) -> usize {
        self.memories.read(self.before, addr, buf)
    }

    fn semaphores(&self, id: u64) -> Option<u64> {
        self.memories.rest.and_then(|rest| rest.semaphores(id))
    }
}

#[cfg(test)]
mod tests {
    use mvedsua_common::bulk::AT_EXIT;
    use mvedsua_common::syscalls::regions::Memory as _;

    use super::*;

    /// Memory where every byte is 9.
    struct Nines;

    impl regions::Memory for Nines {
        fn read(&self, _addr: u64, buf: &mut [u8]) -> usize {
            buf.fill(9);
            buf.len()
        }
    }

    fn record(pieces: &[(u64, u8, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[4] = 23;
        for (addr, when, content) in pieces {
            bytes.extend(addr.to_ne_bytes());
            bytes.extend((content.len() as u32).to_ne_bytes());
            bytes.extend(u32::from(*when).to_ne_bytes());
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        let len = (bytes.len() - HEADER) as u32;
        bytes[92..96].copy_from_slice(&len.to_ne_bytes());
        bytes
    }

    #[test]
    fn what_a_call_has_changed_is_known_as_it_was_and_as_it_is() {
        let call = Observation::parse(&record(&[(100, AT_ENTRY, &[1, 2, 3]), (100, AT_EXIT, &[4, 5, 6])]));
        assert_eq!(call.nr, 23);
        let memories = Memories::<Nines>::of(&call, None);
        let mut two = [0; 2];
        assert_eq!((memories.before().read(101, &mut two), two), (2, [2, 3]));
        assert_eq!((memories.after().read(101, &mut two), two), (2, [5, 6]));
        assert!(!memories.has_missed());
        assert_eq!(memories.after().read(102, &mut two), 1);
        assert!(memories.has_missed());
    }

    #[test]
    fn a_question_is_read_after_the_call_where_nothing_changes_it() {
        let call = Observation::parse(&record(&[(100, AT_EXIT, &[4, 5, 6])]));
        let memories = Memories::<Nines>::of(&call, None);
        let mut one = [0];
        assert_eq!((memories.before().read(100, &mut one), one), (1, [4]));
    }

    #[test]
    fn the_rest_is_looked_at_where_the_thread_stands_still() {
        let call = Observation::parse(&record(&[(100, AT_ENTRY, &[1])]));
        let memories = Memories::of(&call, Some(&Nines));
        let mut two = [0; 2];
        assert_eq!((memories.before().read(100, &mut two), two), (2, [1, 9]));
        assert_eq!((memories.after().read(100, &mut two), two), (2, [9, 9]));
        assert!(!memories.has_missed());
    }

    #[test]
    fn a_record_that_is_cut_off_anywhere_is_read_as_far_as_it_goes() {
        let whole = record(&[(100, AT_EXIT, &[4, 5, 6]), (200, AT_EXIT, &[7; 20])]);
        for len in 0..whole.len() {
            let _ = Observation::parse(&whole[..len]);
        }
    }
}
