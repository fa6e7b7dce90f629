//! What a rule made of one read and the follower has no room for: it reads the rest in calls of its own, for which the leader has
//! no records, and answers it in pieces.
//!
//! ```text
//!  leader     read 8192 bytes                     write 1200 answers                            wait
//!  follower   read 8192 of 11000    write 900    wait: more is there    read 2808    write 300   wait
//! ```
//!
//! While something is left of a connection's input the follower's next call that reads from it, or waits for it, is answered
//! with that, before the record that is due; and a write to it may be the beginning of the leader's. What the leader has done with
//! the connection meanwhile is put off until the follower does something with it: between two reads it may serve others. What
//! differs otherwise while something is left proves nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mvedsua_common::syscalls::{self, Arg, Dir, Extent, Fds, Moves, Row, regions};

use super::super::calls;
use super::super::descriptors::Descriptor;
use super::Stage;
use crate::record::{CallEntry, CallReturn, Event, LeaderAddr, Nanos, Piece, PieceDir, Record, Seq, Slot};

/// Returns what the follower has registered with an epoll set for a descriptor.
pub(crate) type Registered<'a> = &'a dyn Fn(i32, i32) -> Option<u64>;

/// Rewritten input that the follower has not read yet.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// By the leader's descriptor.
    rest: BTreeMap<i32, Bytes>,
    /// What will be left of a descriptor's input once the call that was looked at last has been answered.
    offered: Option<(i32, Bytes)>,
    /// Threads whose call of their own is about to be answered.
    given: BTreeSet<Slot>,
    /// How many bytes of an output that has only been entered the follower has written before.
    written: BTreeMap<Slot, i64>,
    /// What the leader's threads have done with such descriptors and the follower's have not yet.
    put_off: BTreeMap<Slot, VecDeque<Record>>,
    /// What was ever put off.
    late: BTreeSet<Seq>,
}

/// Returns the descriptor that a call is about.
fn descriptor(nr: u32, args: &[u64; 6]) -> Option<i32> {
    let on_descriptor = syscalls::row(nr).is_some_and(|row| matches!(row.args.first(), Some(Arg::Fd)));
    on_descriptor.then_some(args[0] as i32)
}

fn descriptor_of(record: &Record) -> Option<i32> {
    match &record.event {
        Event::Call(entry, _) | Event::Enter(entry) => descriptor(entry.nr, &entry.args),
        _ => None,
    }
}

impl Carried {
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.put_off.is_empty()
    }

    fn set(&mut self, fd: i32, rest: Bytes) {
        if rest.is_empty() {
            self.rest.remove(&fd);
        } else {
            self.rest.insert(fd, rest);
        }
    }

    /// A call is looked at: nothing is offered any more to the one before.
    pub(super) fn begin(&mut self) {
        self.offered = None;
    }

    /// Cuts what a read gives to the room that there is. Says whether there is some.
    pub(super) fn cut(&mut self, fd: i32, room: u64, ret: &mut CallReturn) -> bool {
        let Some(piece) = ret.outputs.first_mut().filter(|_| room > 0) else { return false };
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(piece.bytes.len());
        self.offered = Some((fd, piece.bytes.split_off(room)));
        ret.ret = room as i64;
        true
    }

    /// The follower has made the call of a record.
    pub(super) fn answered(&mut self, record: &Record) {
        self.given.remove(&record.slot);
        self.late.remove(&record.seq);
        if let Some((fd, rest)) = self.offered.take() {
            self.set(fd, rest);
        }
        if let Event::Call(entry, _) | Event::Enter(entry) = &record.event
            && syscalls::row(entry.nr).is_some_and(|row| row.fds == Fds::Closes)
        {
            self.rest.remove(&(entry.args[0] as i32));
        }
    }
}

/// Says whether what a call reads from a descriptor may be read in pieces.
pub(in crate::rules) fn may_be_cut(entry: &CallEntry, what: Option<&Descriptor>) -> bool {
    matches!(what, Some(Descriptor::Client | Descriptor::Pipe)) && reads(entry.nr, &entry.args)
}

fn reads(nr: u32, args: &[u64; 6]) -> bool {
    match i64::from(nr) {
        libc::SYS_read => true,
        // With flags it may look at the input without taking it, or wait for all of it.
        libc::SYS_recvfrom => args[3] as i32 & !libc::MSG_DONTWAIT & !libc::MSG_NOSIGNAL == 0,
        _ => false,
    }
}

/// Returns the argument that holds what a call writes to its descriptor.
fn output(row: &Row) -> Option<u8> {
    let of_call =
        |arg: &Arg| matches!(arg, Arg::Mem(Dir::In, Extent::FromArg { .. } | Extent::IoVec { .. } | Extent::MsgHdr));
    (0_u8..).zip(row.args).find(|(_, arg)| row.moves == Moves::Out && of_call(arg)).map(|(at, _)| at)
}

fn gives(arg: u8, addr: u64, bytes: Bytes) -> Piece {
    Piece { arg, part: 0, dir: PieceDir::Out, addr: LeaderAddr(addr), bytes }
}

/// Returns what a call that waits for descriptors is told if there is input for some.
fn readiness(
    (nr, args): (u32, &[u64; 6]),
    inputs: &[Piece],
    fds: impl Iterator<Item = i32>,
    registered: Registered<'_>,
) -> Option<(i64, Piece)> {
    let input = libc::EPOLLIN as u32;
    match i64::from(nr) {
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => {
            let most = usize::try_from(args[2] as i32).unwrap_or(0);
            let data = fds.filter_map(|fd| registered(args[0] as i32, fd)).take(most);
            let events: Vec<[u8; 8]> = data.map(u64::to_ne_bytes).collect();
            let bytes: Vec<u8> = events.iter().flat_map(|data| [&input.to_ne_bytes()[..], data].concat()).collect();
            (!events.is_empty()).then(|| (events.len() as i64, gives(1, args[1], bytes.into())))
        }
        libc::SYS_poll | libc::SYS_ppoll => {
            let fds: BTreeSet<i32> = fds.collect();
            let mut asked: Vec<&Piece> = inputs.iter().filter(|piece| piece.arg == 0).collect();
            asked.sort_by_key(|piece| piece.part);
            let (mut ready, mut bytes) = (0, Vec::new());
            for piece in asked {
                let [a, b, c, d, e, f] = piece.bytes[..].try_into().ok()?;
                let (fd, events) = (i32::from_ne_bytes([a, b, c, d]), i16::from_ne_bytes([e, f]));
                let told = if fds.contains(&fd) { events & (libc::POLLIN | libc::POLLRDNORM) } else { 0 };
                ready += i64::from(told != 0);
                bytes.extend_from_slice(&piece.bytes);
                bytes.extend_from_slice(&told.to_ne_bytes());
            }
            (ready > 0).then(|| (ready, gives(0, args[0], bytes.into())))
        }
        _ => None,
    }
}

impl Stage {
    /// Says whether the follower has not read all of what rules made of the leader's input.
    #[must_use]
    pub fn carries(&self) -> bool {
        !self.carried.is_empty()
    }

    /// Returns the follower's own call as a record to be answered first, where it reads what is left to it, or waits for that;
    /// the record takes the number `seq`.
    pub fn carry(
        &mut self,
        (slot, seq): (Slot, Seq),
        (nr, args): (u32, &[u64; 6]),
        inputs: &[Piece],
        registered: Registered<'_>,
    ) -> Option<Record> {
        if self.carried.is_empty() || self.carried.given.contains(&slot) {
            return None;
        }
        let fd = args[0] as i32;
        let (ret, piece) = if reads(nr, args) {
            let rest = self.carried.rest.get(&fd)?;
            let room = usize::try_from(args[2]).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = (rest.slice(..room), rest.slice(room..));
            self.carried.set(fd, later);
            (room as i64, gives(1, args[1], now))
        } else {
            readiness((nr, args), inputs, self.carried.rest.keys().copied(), registered)?
        };
        let outputs = if piece.bytes.is_empty() { Vec::new() } else { vec![piece] };
        Some(self.own_call((slot, seq), (nr, args), inputs, CallReturn { ret, outputs, at: Nanos(0) }))
    }

    fn own_call(
        &mut self,
        (slot, seq): (Slot, Seq),
        (nr, args): (u32, &[u64; 6]),
        inputs: &[Piece],
        ret: CallReturn,
    ) -> Record {
        self.carried.given.insert(slot);
        self.expected.entry(slot).or_default().push_front((seq, None));
        let entry = CallEntry { nr, args: *args, inputs: inputs.to_vec(), at: Nanos(0) };
        Record { seq, slot, event: Event::Call(entry, ret) }
    }

    /// Where the follower writes the beginning of what the leader wrote at once, since it has read the beginning of the input
    /// only: returns its own call as a record, and what is left of the leader's.
    pub fn begins(&mut self, record: &Record, nr: u32, args: &[u64; 6], inputs: &[Piece]) -> Option<(Record, Record)> {
        let (entry, ret) = match &record.event {
            Event::Call(entry, ret) => (entry, Some(ret)),
            Event::Enter(entry) => (entry, None),
            _ => return None,
        };
        let fd = args[0] as i32;
        if !self.carried.rest.contains_key(&fd) || entry.nr != nr || entry.args[0] as i32 != fd {
            return None;
        }
        let row = syscalls::row(nr)?;
        let arg = output(row)?;
        let own = calls::payload(row, arg, inputs, None)?;
        let whole = calls::payload(row, arg, &entry.inputs, None)?;
        if own.is_empty() || own.len() >= whole.len() || !whole.starts_with(&own) {
            return None;
        }
        let len = own.len() as i64;
        let later = match ret {
            // What the leader's kernel has not taken the follower's cannot have taken either.
            Some(ret) if ret.ret <= len => return None,
            Some(ret) => Some(CallReturn { ret: ret.ret - len, ..ret.clone() }),
            None => None,
        };
        let mut rest = entry.clone();
        calls::set_input(row, &mut rest, arg, Bytes::copy_from_slice(&whole[own.len()..])).ok()?;
        if later.is_none() {
            *self.carried.written.entry(record.slot).or_default() += len;
        }
        let event = match later {
            Some(ret) => Event::Call(rest, ret),
            None => Event::Enter(rest),
        };
        let place = (record.slot, record.seq);
        let own = self.own_call(place, (nr, args), inputs, CallReturn { ret: len, outputs: Vec::new(), at: Nanos(0) });
        Some((own, Record { event, ..record.clone() }))
    }

    /// Returns what an output of which the follower has written the beginning before has written of the rest; the error says that
    /// it has not.
    ///
    /// # Errors
    ///
    /// The leader's kernel has taken less than the follower was told.
    pub fn rest_of(&mut self, slot: Slot, ret: &CallReturn) -> Result<Option<CallReturn>, String> {
        match self.carried.written.remove(&slot) {
            None => Ok(None),
            Some(written) if ret.ret > written && !regions::failed(ret.ret) => {
                Ok(Some(CallReturn { ret: ret.ret - written, ..ret.clone() }))
            }
            Some(written) => Err(format!(
                "the new version had written {written} bytes of an answer when it was known that the old one's was cut off"
            )),
        }
    }

    /// Puts a record off that is about a descriptor of which the follower has input left, where its call is about something else.
    /// Says whether it did; then the record behind it is due.
    pub fn puts_off(&mut self, record: &Record, nr: u32, args: &[u64; 6]) -> bool {
        let Some(fd) = descriptor_of(record).filter(|fd| self.carried.rest.contains_key(fd)) else { return false };
        let open = self.expected.get(&record.slot).is_some_and(|queue| queue.iter().any(|(seq, _)| *seq == record.seq));
        if descriptor(nr, args) == Some(fd) || open {
            return false;
        }
        self.carried.late.insert(record.seq);
        self.carried.put_off.entry(record.slot).or_default().push_back(record.clone());
        true
    }

    /// Puts the return of a call off whose entry was put off.
    pub fn puts_return_off(&mut self, record: &Record) -> bool {
        let Some(queue) = self.carried.put_off.get_mut(&record.slot) else { return false };
        let entered = queue.back().is_some_and(|last| matches!(last.event, Event::Enter(_)));
        if entered && matches!(record.event, Event::Return(_)) {
            queue.push_back(record.clone());
            return true;
        }
        false
    }

    /// Returns what was put off of a thread, now that it is about to do something with such a descriptor, or has nothing left to
    /// read from it.
    pub fn brings_back(&mut self, slot: Slot, nr: u32, args: &[u64; 6]) -> Vec<Record> {
        let Carried { put_off, rest, given, .. } = &mut self.carried;
        if given.contains(&slot) {
            return Vec::new();
        }
        let Some(queue) = put_off.get(&slot) else { return Vec::new() };
        let fd = descriptor(nr, args);
        let is_asked =
            queue.iter().filter_map(descriptor_of).any(|about| Some(about) == fd || !rest.contains_key(&about));
        if is_asked { put_off.remove(&slot).unwrap_or_default().into() } else { Vec::new() }
    }

    /// Says whether a difference of a call from a record may come of input that is left, or was.
    #[must_use]
    pub fn explains_difference(&self, seq: Seq, nr: u32, args: &[u64; 6]) -> bool {
        self.carried.late.contains(&seq) || descriptor(nr, args).is_some_and(|fd| self.carried.rest.contains_key(&fd))
    }
}
