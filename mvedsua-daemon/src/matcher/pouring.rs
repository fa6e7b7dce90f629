//! Where in the follower's memory goes what the leader's kernel wrote.
//!
//! Two versions may cut the buffers of an `iovec` array differently: what was received into those of one is poured into
//! those of the other, in order. No argument says how much room there is, so that is compared here, by what came: the
//! follower must have room for as much as the leader got, and no more where that was cut off for want of room.

use bytes::{Bytes, BytesMut};
use mvedsua_common::syscalls::regions::{Region, failed};
use mvedsua_common::syscalls::{Arg, Extent, Row};

use crate::compare::DivergenceKind;
use crate::record::{CallReturn, Piece, PieceDir};

/// Parts of a `msghdr`, see [`mvedsua_common::syscalls::regions`].
const NAME: u16 = 0;
const CONTROL: u16 = 1;
const NAME_LEN: u16 = 2;
const FIRST_BUFFER: u16 = 5;
/// Size of a `struct mmsghdr`, and where its `msg_len` is.
const MMSGHDR: u64 = 64;
const MSG_LEN: u64 = 56;

/// Bytes that are to be written to an address of the follower.
pub(crate) type Write = (u64, Bytes);

/// Returns what is to be written where. `places` is where the follower's kernel would have written.
pub(crate) fn writes(
    row: &Row,
    args: &[u64; 6],
    ret: &CallReturn,
    places: &[Region],
) -> Result<Vec<Write>, DivergenceKind> {
    let mut pouring = Pouring { arg: 0, writes: Vec::new() };
    for (index, arg) in row.args.iter().enumerate() {
        pouring.arg = index as u8;
        let pieces: Vec<&Piece> =
            ret.outputs.iter().filter(|piece| piece.dir == PieceDir::Out && usize::from(piece.arg) == index).collect();
        let places: Vec<&Region> = places.iter().filter(|place| usize::from(place.arg) == index).collect();
        let told = u64::try_from(ret.ret).unwrap_or(0);
        match arg {
            Arg::Mem(_, Extent::IoVec { .. }) if !failed(ret.ret) => pouring.buffers(&pieces, &places, told)?,
            Arg::Mem(_, Extent::MsgHdr) if !failed(ret.ret) => pouring.message((&pieces, 0), (&places, 0), told)?,
            Arg::Mem(_, Extent::MMsgHdr { .. }) if !failed(ret.ret) => {
                pouring.messages(&pieces, &places, args[index])?
            }
            Arg::Int | Arg::Int32 | Arg::Flags | Arg::LongFlags | Arg::Fd | Arg::Addr | Arg::Mem(..) => {
                pouring.each(&pieces, &places)
            }
        }
    }
    Ok(pouring.writes)
}

struct Pouring {
    arg: u8,
    writes: Vec<Write>,
}

impl Pouring {
    /// Regions whose room the call's arguments say, which were compared: each piece has its place.
    fn each(&mut self, pieces: &[&Piece], places: &[&Region]) {
        for piece in pieces {
            if let Some(place) = places.iter().find(|place| place.part == piece.part) {
                let len = piece.bytes.len().min(place.len as usize);
                self.writes.push((place.addr, piece.bytes.slice(..len)));
            }
        }
    }

    fn no_room(&self, expected_len: u64, actual_len: u64) -> DivergenceKind {
        let offset = expected_len.min(actual_len);
        DivergenceKind::Payload { arg: self.arg, offset, expected_len, actual_len }
    }

    /// Compares how much the leader has with how much the follower would have got of the `told` bytes that there were.
    fn compare(&self, have: u64, room: u64, told: u64) -> Result<(), DivergenceKind> {
        if room.min(told) == have { Ok(()) } else { Err(self.no_room(have, room)) }
    }

    /// Buffers of which the kernel filled one after the other with `told` bytes, or as many as there was room for.
    fn buffers(&mut self, pieces: &[&Piece], places: &[&Region], told: u64) -> Result<(), DivergenceKind> {
        let have: u64 = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
        let room = places.iter().fold(0u64, |room, place| room.saturating_add(place.len));
        self.compare(have, room, told)?;
        let mut all = match pieces {
            [only] => only.bytes.clone(),
            _ => pieces
                .iter()
                .fold(BytesMut::with_capacity(have as usize), |mut all, piece| {
                    all.extend_from_slice(&piece.bytes);
                    all
                })
                .freeze(),
        };
        for place in places {
            let len = all.len().min(usize::try_from(place.len).unwrap_or(usize::MAX));
            if len > 0 {
                self.writes.push((place.addr, all.split_to(len)));
            }
        }
        Ok(())
    }

    /// One message: its pieces and places with the part that its header begins with.
    fn message(
        &mut self,
        (pieces, first): (&[&Piece], u16),
        (places, first_place): (&[&Region], u16),
        told: u64,
    ) -> Result<(), DivergenceKind> {
        let piece = |part: u16| pieces.iter().find(|piece| piece.part == first + part).copied();
        let place = |part: u16| places.iter().find(|place| place.part == first_place + part).copied();
        let len = |piece: Option<&Piece>| piece.map_or(0, |piece| piece.bytes.len() as u64);
        let room = |place: Option<&Region>| place.map_or(0, |place| place.len);
        // Only who has a place for the name is told how long it is.
        match (piece(NAME_LEN), place(NAME_LEN)) {
            (None, None) => {}
            (Some(told), Some(_)) => {
                let told = told.bytes[..].try_into().map_or(0, u32::from_ne_bytes);
                self.compare(len(piece(NAME)), room(place(NAME)), u64::from(told))?;
            }
            (name_len, _) => return Err(self.no_room(u64::from(name_len.is_some()), u64::from(name_len.is_none()))),
        }
        let (control, control_room) = (len(piece(CONTROL)), room(place(CONTROL)));
        if control > control_room {
            return Err(self.no_room(control, control_room));
        }
        for part in NAME..FIRST_BUFFER {
            if let (Some(piece), Some(place)) = (piece(part), place(part)) {
                let len = piece.bytes.len().min(usize::try_from(place.len).unwrap_or(usize::MAX));
                self.writes.push((place.addr, piece.bytes.slice(..len)));
            }
        }
        let buffers: Vec<&Piece> = pieces.iter().filter(|piece| piece.part >= first + FIRST_BUFFER).copied().collect();
        let rooms: Vec<&Region> =
            places.iter().filter(|place| place.part >= first_place + FIRST_BUFFER).copied().collect();
        self.buffers(&buffers, &rooms, told)
    }

    /// Several messages. The parts of one are numbered behind those of the one before, which may have another number of
    /// buffers in the follower; the address of its length tells where a message begins.
    fn messages(&mut self, pieces: &[&Piece], places: &[&Region], addr: u64) -> Result<(), DivergenceKind> {
        let base = pieces.first().map_or(0, |piece| piece.addr.0.wrapping_sub(MSG_LEN));
        let pieces = split(pieces, base, |piece| (piece.addr.0, piece.bytes.len() as u64));
        let places = split(places, addr, |place| (place.addr, place.len));
        if places.len() < pieces.len() {
            return Err(self.no_room(pieces.len() as u64, places.len() as u64));
        }
        for (pieces, places) in pieces.into_iter().zip(places) {
            let ([len, pieces @ ..], [place, places @ ..]) = (pieces, places) else { continue };
            self.writes.push((place.addr, len.bytes.clone()));
            let told = len.bytes[..].try_into().map_or(0, u32::from_ne_bytes);
            self.message((pieces, len.part + 1), (places, place.part + 1), u64::from(told))?;
        }
        Ok(())
    }
}

/// Parts what belongs to several messages; each begins with its length.
fn split<'a, T>(all: &'a [&'a T], base: u64, place: impl Fn(&T) -> (u64, u64)) -> Vec<&'a [&'a T]> {
    let mut starts = Vec::new();
    for (at, one) in all.iter().enumerate() {
        let next = base.wrapping_add(starts.len() as u64 * MMSGHDR + MSG_LEN);
        if place(one) == (next, 4) {
            starts.push(at);
        }
    }
    let ends = starts.iter().skip(1).copied().chain([all.len()]);
    starts.iter().zip(ends).map(|(start, end)| &all[*start..end]).collect()
}

#[cfg(test)]
mod tests {
    use mvedsua_common::syscalls::{self, regions::Check};

    use super::*;
    use crate::record::{LeaderAddr, Nanos};

    fn piece(part: u16, addr: u64, bytes: &[u8]) -> Piece {
        let bytes = Bytes::copy_from_slice(bytes);
        Piece { arg: 1, part, dir: PieceDir::Out, addr: LeaderAddr(addr), bytes }
    }

    fn place(part: u16, addr: u64, len: u64) -> Region {
        Region { arg: 1, part, addr, len, check: Check::Compared }
    }

    fn poured(nr: i64, told: i64, outputs: Vec<Piece>, places: &[Region]) -> Option<Vec<(u64, Vec<u8>)>> {
        let row = syscalls::row(nr as u32).expect("a row");
        let ret = CallReturn { ret: told, outputs, at: Nanos(0) };
        let writes = writes(row, &[3, 0x9000, 2, 0, 0, 0], &ret, places).ok()?;
        Some(writes.into_iter().map(|(addr, bytes)| (addr, bytes.to_vec())).collect())
    }

    #[test]
    fn buffers_may_be_cut_differently() {
        let leader = || vec![piece(0, 0x100, b"abc"), piece(1, 0x200, b"def")];
        let poured = |places: &[Region]| poured(libc::SYS_readv, 6, leader(), places);
        let cut = poured(&[place(0, 0x10, 2), place(1, 0x20, 4)]).expect("there is room");
        assert_eq!(cut, [(0x10, b"ab".to_vec()), (0x20, b"cdef".to_vec())]);
        assert!(poured(&[place(0, 0x10, 6)]).is_some());
        assert!(poured(&[place(0, 0x10, 1), place(1, 0x20, 4)]).is_none(), "a byte would be lost");
        assert!(poured(&[]).is_none());
    }

    #[test]
    fn what_was_cut_off_must_be_cut_off_there_too() {
        let leader = || vec![piece(3, 0x30, &[0; 8]), piece(4, 0x40, &[0x20, 0, 0, 0]), piece(5, 0x100, b"abcd")];
        let rooms = |len| [place(3, 0x3, 8), place(4, 0x4, 4), place(5, 0x5, len)];
        assert!(poured(libc::SYS_recvmsg, 9, leader(), &rooms(4)).is_some());
        assert!(poured(libc::SYS_recvmsg, 9, leader(), &rooms(9)).is_none(), "it would have got all");
        assert!(poured(libc::SYS_recvmsg, 4, leader(), &rooms(3)).is_none());
    }

    #[test]
    fn a_name_and_control_data_need_room() {
        let leader = || vec![piece(0, 0x10, &[2; 16]), piece(1, 0x20, &[1; 24]), piece(2, 0x30, &[16, 0, 0, 0])];
        let fits = |places: &[Region]| poured(libc::SYS_recvmsg, 0, leader(), places).is_some();
        assert!(fits(&[place(0, 1, 128), place(1, 2, 64), place(2, 3, 4)]));
        assert!(!fits(&[place(0, 1, 8), place(1, 2, 64), place(2, 3, 4)]));
        assert!(!fits(&[place(0, 1, 128), place(1, 2, 16), place(2, 3, 4)]));
        assert!(!fits(&[place(0, 1, 128), place(2, 3, 4)]));
        assert!(!fits(&[place(1, 2, 64)]));
    }

    #[test]
    fn messages_are_told_apart_whatever_buffers_they_have() {
        let header = |first: u16, at: u64| {
            let (base, part) = (0x1000 + 64 * at, |n: u16| first + 1 + n);
            vec![
                piece(first, base + 56, &[3, 0, 0, 0]),
                piece(part(3), base + 40, &[0; 8]),
                piece(part(4), base + 48, &[0; 4]),
            ]
        };
        let mut outputs = header(0, 0);
        outputs.extend([piece(6, 0x100, b"a"), piece(7, 0x200, b"bc")]);
        outputs.extend(header(8, 1));
        outputs.extend([piece(14, 0x300, b"def")]);
        let room = |first: u16, at: u64| {
            let base = 0x9000 + 64 * at;
            [place(first, base + 56, 4), place(first + 4, base + 40, 8), place(first + 5, base + 48, 4)]
        };
        let mut places = room(0, 0).to_vec();
        places.push(place(6, 0x10, 8));
        places.extend(room(7, 1));
        places.extend([place(13, 0x20, 1), place(14, 0x30, 8)]);
        let writes = poured(libc::SYS_recvmmsg, 2, outputs.clone(), &places).expect("there is room");
        let text: Vec<_> = writes.into_iter().filter(|(addr, _)| *addr < 0x100).collect();
        assert_eq!(text, [(0x10, b"abc".to_vec()), (0x20, b"d".to_vec()), (0x30, b"ef".to_vec())]);
        assert!(poured(libc::SYS_recvmmsg, 2, outputs, &places[..4]).is_none(), "it has one message only");
    }
}
