//! Looking into a recorded call, and changing it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use mvedsua_common::syscalls::{Arg, Dir, Extent, Outcome, Row, regions};

use super::descriptors::Descriptor;
use crate::record::{CallEntry, CallReturn, LeaderAddr, Piece, PieceDir};

/// A call as a rule sees it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) entry: CallEntry,
    /// `None` while it has not returned.
    pub(super) ret: Option<CallReturn>,
    /// What each argument's descriptor was when the call was made.
    pub(super) descriptors: [Option<Arc<Descriptor>>; 6],
}

/// The first part of a message that is payload; those before it are its address and control data.
const MESSAGE: u16 = 5;

/// Says whether an argument is a pointer to bytes.
pub(super) fn is_memory(row: &Row, arg: u8) -> bool {
    matches!(row.args.get(usize::from(arg)), Some(Arg::Mem(..)))
}

/// Says whether the kernel fills the argument's memory rather than reads it.
pub(super) fn is_filled(row: &Row, arg: u8) -> bool {
    matches!(row.args.get(usize::from(arg)), Some(Arg::Mem(dir, _)) if !dir.is_read())
}

/// Says whether [`set_input`] or [`set_output`] can change the argument's bytes; otherwise why not.
pub(super) fn can_set(row: &Row, arg: u8) -> Result<(), &'static str> {
    match row.args.get(usize::from(arg)) {
        Some(Arg::Mem(Dir::In, Extent::FromArg { .. } | Extent::CStr | Extent::IoVec { .. } | Extent::MsgHdr)) => {
            Ok(())
        }
        Some(Arg::Mem(Dir::In | Dir::Out, Extent::Fixed(_))) => Ok(()),
        Some(Arg::Mem(Dir::Out, Extent::FromRet { scale: 1, .. })) => Ok(()),
        Some(Arg::Mem(Dir::Out, Extent::IoVec { .. } | Extent::MsgHdr)) => {
            Err("what is read into several buffers cannot be rewritten: the recording does not say how long they are")
        }
        Some(Arg::Mem(..)) => Err("the bytes of this argument cannot be rewritten"),
        _ => Err("this argument is a number, not a pointer to bytes"),
    }
}

/// Returns the bytes of an argument, joined; `None` when nothing was captured, as in a call that failed.
pub(super) fn payload<'a>(
    row: &Row,
    arg: u8,
    inputs: &'a [Piece],
    ret: Option<&'a CallReturn>,
) -> Option<Cow<'a, [u8]>> {
    let Some(Arg::Mem(dir, extent)) = row.args.get(usize::from(arg)) else { return None };
    let pieces = if dir.is_read() { inputs } else { &ret.filter(|ret| !regions::failed(ret.ret))?.outputs };
    let wanted = |piece: &&Piece| piece.arg == arg && (!matches!(extent, Extent::MsgHdr) || piece.part >= MESSAGE);
    let mut found: Vec<&Piece> = pieces.iter().filter(wanted).collect();
    if let ([only], false) = (found.as_slice(), matches!(extent, Extent::CStr)) {
        return Some(Cow::Borrowed(&only.bytes[..]));
    }
    if found.is_empty() {
        // Nothing was read: the end of a stream. Nothing to write: an empty buffer.
        return Some(Cow::Borrowed(&[]));
    }
    found.sort_by_key(|piece| piece.part);
    let mut joined: Vec<u8> = found.iter().flat_map(|piece| piece.bytes.iter().copied()).collect();
    if matches!(extent, Extent::CStr) && joined.last() == Some(&0) {
        joined.pop();
    }
    Some(Cow::Owned(joined))
}

fn piece(arg: u8, part: u16, dir: PieceDir, addr: u64, bytes: Bytes) -> Piece {
    Piece { arg, part, dir, addr: LeaderAddr(addr), bytes }
}

/// Replaces the bytes that the kernel reads for an argument; adjusts the length that goes with them.
pub(super) fn set_input(row: &Row, entry: &mut CallEntry, arg: u8, bytes: Bytes) -> Result<(), String> {
    let Some(Arg::Mem(_, extent)) = row.args.get(usize::from(arg)) else { return Err("it is not a pointer".into()) };
    let (mut part, mut bytes) = (0, bytes);
    let mut keep: Vec<Piece> = Vec::new();
    match extent {
        Extent::FromArg { len, scale } => {
            entry.args[usize::from(*len)] = bytes.len() as u64 / u64::from((*scale).max(1))
        }
        Extent::CStr => bytes = [&bytes[..], &[0]].concat().into(),
        Extent::MsgHdr => {
            part = MESSAGE;
            keep = entry.inputs.iter().filter(|p| p.arg == arg && p.part < MESSAGE).cloned().collect();
        }
        Extent::Fixed(length) if bytes.len() != *length as usize => {
            return Err(format!("argument {} takes {length} bytes, not {}", arg + 1, bytes.len()));
        }
        _ => {}
    }
    entry.inputs.retain(|piece| piece.arg != arg);
    let addr = entry.args[usize::from(arg)];
    entry.inputs.append(&mut keep);
    if !bytes.is_empty() {
        entry.inputs.push(piece(arg, part, PieceDir::In, addr, bytes));
    }
    Ok(())
}

/// Replaces the bytes that the kernel wrote for an argument; adjusts the result that counts them.
pub(super) fn set_output(
    row: &Row,
    entry: &CallEntry,
    ret: &mut CallReturn,
    arg: u8,
    bytes: Bytes,
) -> Result<(), String> {
    match row.args.get(usize::from(arg)) {
        Some(Arg::Mem(_, Extent::FromRet { cap, .. })) => {
            let room = entry.args[usize::from(*cap)];
            if bytes.len() as u64 > room {
                return Err(format!("{} bytes do not fit into the {room} that the call has room for", bytes.len()));
            }
            ret.ret = bytes.len() as i64;
        }
        Some(Arg::Mem(_, Extent::Fixed(length))) if bytes.len() == *length as usize => {}
        Some(Arg::Mem(_, Extent::Fixed(length))) => {
            return Err(format!("argument {} takes {length} bytes, not {}", arg + 1, bytes.len()));
        }
        _ => return Err("what this call writes cannot be rewritten".into()),
    }
    ret.outputs.retain(|piece| piece.arg != arg);
    if !bytes.is_empty() {
        ret.outputs.push(piece(arg, 0, PieceDir::Out, entry.args[usize::from(arg)], bytes));
    }
    Ok(())
}

/// Returns how many bytes a call gives to the world, where its result counts them.
pub(super) fn given(row: &Row, entry: &CallEntry) -> Option<i64> {
    if row.outcome != Outcome::Size {
        return None;
    }
    let arg = (0_u8..).zip(row.args).find(|(_, arg)| {
        matches!(arg, Arg::Mem(Dir::In, Extent::FromArg { .. } | Extent::IoVec { .. } | Extent::MsgHdr))
    })?;
    Some(payload(row, arg.0, &entry.inputs, None)?.len() as i64)
}
