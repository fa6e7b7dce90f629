//! Lines of which the follower has read the beginning itself, perhaps before it followed: no rule has seen that, so none can have
//! rewritten it, and what the two versions make of such a line may differ although the rules are right.
//!
//! What a connection's program had read at the fork nobody knows. So of each that was open then the first line is doubtful; of
//! what the follower reads itself while it applies its new version it is seen where a line ends.

use std::collections::{BTreeMap, BTreeSet};

use mvedsua_common::syscalls::{self, Arg, Moves};

use super::super::ast::Kind;
use super::super::calls;
use super::super::descriptors::{Descriptor, Descriptors};
use crate::record::{CallEntry, CallReturn, Seq};

/// The descriptors of the leader whose next line may have begun before.
#[derive(Debug, Default)]
pub(super) struct Tails {
    inside: BTreeSet<i32>,
    /// Where such a line was read: from that record to the next that reads.
    ended: BTreeMap<i32, (Seq, Option<Seq>)>,
}

/// Returns what a call has read, and from which descriptor.
fn read<'a>(entry: &CallEntry, ret: &'a CallReturn) -> Option<(i32, std::borrow::Cow<'a, [u8]>)> {
    let row = syscalls::row(entry.nr).filter(|row| row.moves == Moves::In)?;
    let fd = row.first_descriptor(&entry.args)?;
    let bytes = calls::payload(row, 1, &[], Some(ret)).filter(|bytes| !bytes.is_empty())?;
    Some((fd, bytes))
}

impl Tails {
    /// A fork: of all streams that are open it is not known what was read.
    pub(super) fn of(open: &Descriptors) -> Tails {
        let is_stream =
            |what: &Descriptor| (what.is(&Kind::Socket) && !what.is(&Kind::Listener)) || what.is(&Kind::Pipe);
        let inside = open.iter().filter(|(_, what)| is_stream(what)).map(|(fd, _)| fd).collect();
        Tails { inside, ended: BTreeMap::new() }
    }

    /// The follower has itself read the beginning of a line from these.
    pub(super) fn begin_inside(&mut self, fds: impl IntoIterator<Item = i32>) {
        self.inside.extend(fds);
    }

    /// A call of the leader's, which rules may be applied to.
    pub(super) fn note(&mut self, seq: Seq, entry: &CallEntry, ret: &CallReturn) {
        if i64::from(entry.nr) == libc::SYS_close {
            self.inside.remove(&(entry.args[0] as i32));
        }
        let Some((fd, bytes)) = read(entry, ret) else { return };
        if let Some((_, until @ None)) = self.ended.get_mut(&fd) {
            *until = Some(seq);
        }
        if self.inside.contains(&fd) {
            self.ended.insert(fd, (seq, None));
            if bytes.contains(&b'\n') {
                self.inside.remove(&fd);
            }
        }
    }

    /// A call that the follower has lived through as the leader has, without rules. Returns from where it has read, and whether
    /// that ends within a line.
    pub(super) fn note_own(&mut self, entry: &CallEntry, ret: &CallReturn) -> Option<(i32, bool)> {
        let (fd, bytes) = read(entry, ret)?;
        let is_inside = !bytes.ends_with(b"\n");
        if is_inside {
            self.inside.insert(fd);
        } else {
            self.inside.remove(&fd);
        }
        Some((fd, is_inside))
    }

    /// Says whether what a record does to a descriptor comes behind such a line, and before the next that was read there.
    pub(super) fn explains(&self, seq: Seq, nr: u32, args: &[u64; 6]) -> bool {
        let on_descriptor = syscalls::row(nr).is_some_and(|row| matches!(row.args.first(), Some(Arg::Fd)));
        let ended = self.ended.get(&(args[0] as i32)).filter(|_| on_descriptor);
        ended.is_some_and(|(from, until)| seq > *from && until.is_none_or(|until| seq < until))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::{LeaderAddr, Nanos, Piece, PieceDir};

    fn call(nr: i64, fd: i32, text: &[u8]) -> (CallEntry, CallReturn) {
        let args = [fd as u64, 0x1000, 100, 0, 0, 0];
        let bytes = Bytes::copy_from_slice(text);
        let piece = Piece { arg: 1, part: 0, dir: PieceDir::Out, addr: LeaderAddr(0x1000), bytes };
        let ret = CallReturn { ret: text.len() as i64, outputs: vec![piece], at: Nanos(0) };
        (CallEntry { nr: nr as u32, args, inputs: Vec::new(), at: Nanos(0) }, ret)
    }

    fn reads(tails: &mut Tails, seq: u64, fd: i32, text: &[u8]) {
        let (entry, ret) = call(libc::SYS_read, fd, text);
        tails.note(Seq(seq), &entry, &ret);
    }

    fn doubtful(tails: &Tails, seq: u64, fd: u64) -> bool {
        tails.explains(Seq(seq), libc::SYS_write as u32, &[fd, 0x1000, 3, 0, 0, 0])
    }

    #[test]
    fn the_first_line_after_a_fork_is_doubtful() {
        let mut tails = Tails::of(&Descriptors::new([(5, Descriptor::Client), (6, Descriptor::Listener)]));
        assert!(!doubtful(&tails, 1, 5));
        reads(&mut tails, 2, 5, b"ar\n");
        assert!(doubtful(&tails, 3, 5) && !doubtful(&tails, 3, 6) && !doubtful(&tails, 1, 5));
        reads(&mut tails, 4, 5, b"get b\n");
        assert!(doubtful(&tails, 3, 5) && !doubtful(&tails, 5, 5), "what was answered before is still doubtful");
        reads(&mut tails, 6, 9, b"get c\n");
        assert!(!doubtful(&tails, 7, 9), "it was accepted later");
    }

    #[test]
    fn a_line_has_several_pieces() {
        let mut tails = Tails::of(&Descriptors::new([(5, Descriptor::Client)]));
        reads(&mut tails, 2, 5, b"a");
        reads(&mut tails, 3, 5, b"r\n");
        assert!(doubtful(&tails, 4, 5));
    }

    #[test]
    fn what_the_follower_reads_itself_is_known() {
        let mut tails = Tails::of(&Descriptors::new([(5, Descriptor::Client)]));
        let (entry, ret) = call(libc::SYS_read, 5, b"get b\nput");
        assert_eq!(tails.note_own(&entry, &ret), Some((5, true)));
        let (entry, ret) = call(libc::SYS_read, 5, b" a b\n");
        assert_eq!(tails.note_own(&entry, &ret), Some((5, false)));
        reads(&mut tails, 4, 5, b"get b\n");
        assert!(!doubtful(&tails, 5, 5));
    }
}
