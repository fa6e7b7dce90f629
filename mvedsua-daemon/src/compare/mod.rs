//! Comparing what the follower does with what the leader did.
//!
//! [`entry`] compares one call with the record that is due, driven by the call's row in the table; [`Trail`] remembers
//! what matched; [`describe`] turns a mismatch into a [`Divergence`] that an operator can read. A mismatch is a value,
//! not an error. Nothing here knows ptrace, tokio or BPF.
//!
//! What is compared (DESIGN: the follower's state must equal the leader's, so a call that takes something from the
//! world must ask for the same thing, and one that gives something to the world must give the same bytes):
//!
//! | argument | compared |
//! |---|---|
//! | `Int`, `LongFlags` | the value |
//! | `Int32`, `Flags`, `Fd` | its lower 32 bits |
//! | `Addr` | not at all |
//! | `Mem(In, InOut or Always, …)` | null or not, and the bytes behind it |
//! | `Mem(Out, …)` | null or not |
//!
//! Bytes are compared as the kernel takes them: the buffers of an `iovec` array as one string (two versions may cut it
//! differently), the parts of an `epoll_event`, `pollfd` or `fd_set` that carry meaning, and no pointer ever.

mod divergence;
mod meaning;
mod trail;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use mvedsua_common::syscalls::{Arg, Class, Dir, Extent, Row};

pub use divergence::{CallView, Divergence, DivergenceKind, Frame, MatchedCall, WINDOW, WINDOW_BEFORE};
pub use trail::Trail;

use crate::record::{CallEntry, Piece, PieceDir, Record, Slot};

/// Input memory of the follower's call: one region, as [`Piece`] is for the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input<'a> {
    pub arg: u8,
    pub part: u16,
    pub bytes: &'a [u8],
}

/// The call that the follower is about to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actual<'a> {
    pub nr: u32,
    pub args: [u64; 6],
    pub inputs: &'a [Input<'a>],
}

/// What one matching call proves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    pub calls: u64,
    /// Calls of class `Compare`: what the world would have seen.
    pub outputs: u64,
    /// Bytes of input memory that were equal.
    pub bytes: u64,
}

impl std::ops::AddAssign for Evidence {
    fn add_assign(&mut self, other: Evidence) {
        self.calls += other.calls;
        self.outputs += other.outputs;
        self.bytes += other.bytes;
    }
}

/// Compares the follower's call with the one that the leader made; `row` is the row of the leader's call.
///
/// Descriptors and flags are compared first, then payloads, then lengths: of two strings of different length the first
/// byte that differs tells more than the length does.
pub fn entry(row: &Row, expected: &CallEntry, actual: &Actual<'_>) -> Result<Evidence, DivergenceKind> {
    if expected.nr != actual.nr {
        return Err(DivergenceKind::Call);
    }
    let is_length = |index: usize| row.args.iter().any(|arg| length_of(arg) == Some(index));
    let mut evidence = Evidence { calls: 1, outputs: u64::from(matches!(row.class, Class::Compare)), bytes: 0 };
    for index in (0..row.args.len()).filter(|i| !is_length(*i)) {
        value(row, index, expected, actual)?;
    }
    for (index, arg) in row.args.iter().enumerate() {
        if is_read(arg) {
            evidence.bytes += payload(row, index as u8, expected, actual)?;
        }
    }
    for index in (0..row.args.len()).filter(|i| is_length(*i)) {
        value(row, index, expected, actual)?;
    }
    Ok(evidence)
}

/// Says whether the kernel reads memory behind `arg`.
fn is_read(arg: &Arg) -> bool {
    matches!(arg, Arg::Mem(dir, _) if dir.is_read())
}

/// Returns the argument that says how much memory the kernel reads behind `arg`.
fn length_of(arg: &Arg) -> Option<usize> {
    match arg {
        Arg::Mem(Dir::In | Dir::InOut, Extent::FromArg { len, .. }) => Some(usize::from(*len)),
        Arg::Mem(Dir::In | Dir::InOut, Extent::IoVec { count }) => Some(usize::from(*count)),
        _ => None,
    }
}

/// Compares one argument as a value.
fn value(row: &Row, index: usize, expected: &CallEntry, actual: &Actual<'_>) -> Result<(), DivergenceKind> {
    let (left, right) = (expected.args[index], actual.args[index]);
    let same = match row.args[index] {
        Arg::Addr => true,
        // The kernel takes these as 32 bits; what a compiler leaves in the upper half means nothing.
        Arg::Fd | Arg::Int32 | Arg::Flags => left as u32 == right as u32,
        Arg::Int | Arg::LongFlags => left == right || same_int(left, right) || is_count_of_input(row, index),
        Arg::Mem(..) => (left == 0) == (right == 0),
    };
    if same { Ok(()) } else { Err(DivergenceKind::Argument { arg: index as u8, expected: left, actual: right }) }
}

/// Says whether both are the same C `int`, however each compiler extended it to 64 bits.
fn same_int(left: u64, right: u64) -> bool {
    let is_int = |value: u64| value >> 32 == 0 || value as i64 == i64::from(value as i32);
    left as u32 == right as u32 && is_int(left) && is_int(right)
}

/// Says whether the argument is the number of an input's buffers, which may be cut differently.
fn is_count_of_input(row: &Row, index: usize) -> bool {
    row.args.iter().any(|arg| matches!(arg, Arg::Mem(Dir::In, Extent::IoVec { count }) if usize::from(*count) == index))
}

/// Compares the input memory of one argument and returns how many bytes were equal.
fn payload(row: &Row, arg: u8, expected: &CallEntry, actual: &Actual<'_>) -> Result<u64, DivergenceKind> {
    let left = expected_bytes(row, arg, expected);
    let right = actual_bytes(row, arg, actual);
    if left == right {
        return Ok(left.len() as u64);
    }
    let offset = left.iter().zip(right.iter()).take_while(|(l, r)| l == r).count() as u64;
    let (expected_len, actual_len) = (left.len() as u64, right.len() as u64);
    Err(DivergenceKind::Payload { arg, offset, expected_len, actual_len })
}

fn expected_bytes<'a>(row: &Row, arg: u8, call: &'a CallEntry) -> Cow<'a, [u8]> {
    let inputs = |p: &&'a Piece| p.arg == arg && p.dir == PieceDir::In;
    meaning::of(row, arg, &call.args, call.inputs.iter().filter(inputs).map(|p| (p.part, &p.bytes[..])))
}

fn actual_bytes<'a>(row: &Row, arg: u8, call: &Actual<'a>) -> Cow<'a, [u8]> {
    meaning::of(row, arg, &call.args, call.inputs.iter().filter(|i| i.arg == arg).map(|i| (i.part, i.bytes)))
}

/// Turns a mismatch into the value that is reported. `row` is the row of the leader's call; the backtrace is added by
/// whoever can read the follower's stack.
#[must_use]
pub fn describe(
    kind: DivergenceKind,
    slot: Slot,
    due: Option<&Record>,
    expected: Option<(&Row, &CallEntry)>,
    actual: Option<(&Row, &Actual<'_>)>,
    trail: &Trail,
) -> Divergence {
    let window = |arg: u8, bytes: &[u8]| {
        let start = divergence::window_start(&kind, arg).min(bytes.len() as u64) as usize;
        bytes[start..bytes.len().min(start + WINDOW)].to_vec()
    };
    let args_in = |row: &Row| (0_u8..).zip(row.args).filter(|(_, a)| is_read(a)).map(|(i, _)| i).collect();
    let expected = expected.map(|(row, call)| {
        let args: Vec<u8> = args_in(row);
        let inputs = args.into_iter().map(|arg| (arg, window(arg, &expected_bytes(row, arg, call)))).collect();
        CallView { nr: call.nr, args: call.args, inputs, ret: None }
    });
    let actual = actual.map(|(row, call)| {
        let args: Vec<u8> = args_in(row);
        let inputs = args.into_iter().map(|arg| (arg, window(arg, &actual_bytes(row, arg, call)))).collect();
        CallView { nr: call.nr, args: call.args, inputs, ret: None }
    });
    Divergence {
        slot,
        seq: due.map(|record| record.seq),
        expected,
        actual,
        last_matched: trail.last(slot),
        backtrace: Vec::new(),
        raced: false,
        unrecorded_clock: false,
        half_read: false,
        situation: None,
        remark: None,
        nearest_rule: None,
        kind,
    }
}
