//! Situations: what a thread has been told last, and which call it makes then.
//!
//! In another attempt a thread of the same program is in the same situation when it makes the same call after the same input.
//! What differed once because two threads met in an unlucky order does not differ there again; what a version does wrong does.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use mvedsua_common::monitor;
use mvedsua_common::syscalls::{self, Moves};

use crate::record::{CallReturn, Record, Slot};

/// How many situations of earlier attempts one looks for.
pub const SITUATIONS: usize = 3;
/// How much of an input is looked at.
const LOOKED_AT: usize = 256;

/// The numbers of one daemon are its own, so that nobody can tell from them what a client has said.
static NUMBERS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

fn number(of: impl Hash) -> u64 {
    NUMBERS.hash_one(of)
}

/// How often each of the situations that are looked for was met without a difference.
pub(crate) type Met = [AtomicU32; SITUATIONS];

/// The situations of the leader's threads.
#[derive(Debug, Default)]
pub(super) struct Situations {
    now: HashMap<Slot, u64>,
    sought: [Option<u64>; SITUATIONS],
}

impl Situations {
    pub(super) fn new(sought: [Option<u64>; SITUATIONS]) -> Situations {
        Situations { now: HashMap::new(), sought }
    }

    /// Returns the situation in which a thread makes a call.
    pub(super) fn at(&self, slot: Slot, nr: u32) -> u64 {
        number((self.now.get(&slot).copied().unwrap_or_default(), nr))
    }

    /// The follower has made the call of this record as its twin did.
    pub(super) fn note(&mut self, record: &Record, met: &Met) {
        let Some((entry, ret)) = record.event.call() else { return };
        let at = self.at(record.slot, entry.nr);
        for (sought, met) in self.sought.iter().zip(met) {
            if *sought == Some(at) {
                met.fetch_add(1, Ordering::Relaxed);
            }
        }
        let next = match ret.and_then(|ret| read(entry.nr, ret)) {
            Some(input) => number((entry.nr, input)),
            // What came before does not matter any more.
            None if monitor::waits(entry.nr) => number(entry.nr),
            None => at,
        };
        self.now.insert(record.slot, next);
    }

    /// A thread has ended.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.now.remove(&slot);
    }
}

/// Returns what a call has read from a descriptor: its length, and as much of it as is looked at.
fn read(nr: u32, ret: &CallReturn) -> Option<(i64, &[u8])> {
    let reads = matches!(syscalls::row(nr)?.moves, Moves::In | Moves::InFrom);
    let piece = ret.outputs.iter().find(|piece| piece.arg == 1).filter(|_| reads && ret.ret > 0)?;
    Some((ret.ret, &piece.bytes[..piece.bytes.len().min(LOOKED_AT)]))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::{CallEntry, Event, LeaderAddr, Piece, PieceDir, Seq};

    fn call(slot: u32, nr: i64, read: &[u8]) -> Record {
        let bytes = Bytes::copy_from_slice(read);
        let piece = Piece { arg: 1, part: 0, dir: PieceDir::Out, addr: LeaderAddr(0), bytes };
        let entry = CallEntry { nr: nr as u32, args: [0; 6], inputs: Vec::new(), at: Default::default() };
        let ret = CallReturn { ret: read.len() as i64, outputs: vec![piece], at: Default::default() };
        Record { seq: Seq(0), slot: Slot(slot), event: Event::Call(entry, ret) }
    }

    fn live(situations: &mut Situations, slot: u32, request: &[u8]) -> u64 {
        let met = Met::default();
        situations.note(&call(slot, libc::SYS_epoll_wait, b"any events"), &met);
        situations.note(&call(slot, libc::SYS_read, request), &met);
        situations.note(&call(slot, libc::SYS_getpid, b""), &met);
        situations.at(Slot(slot), libc::SYS_write as u32)
    }

    #[test]
    fn the_same_input_makes_the_same_situation() {
        let (mut one, mut other) = (Situations::default(), Situations::default());
        let first = live(&mut one, 0, b"get a\n");
        assert_ne!(first, live(&mut one, 0, b"get b\n"));
        live(&mut other, 3, b"get c\n");
        assert_eq!(first, live(&mut other, 4, b"get a\n"), "whatever happened before, in whichever thread");
        assert_ne!(first, other.at(Slot(4), libc::SYS_close as u32));
    }

    #[test]
    fn what_is_sought_is_counted() {
        let sought = live(&mut Situations::default(), 0, b"get a\n");
        let mut situations = Situations::new([None, Some(sought), None]);
        let met = Met::default();
        for request in [b"get a\n", b"get b\n", b"get a\n"] {
            live(&mut situations, 0, request);
            situations.note(&call(0, libc::SYS_write, b""), &met);
        }
        assert_eq!(met.map(AtomicU32::into_inner), [0, 2, 0]);
    }
}
