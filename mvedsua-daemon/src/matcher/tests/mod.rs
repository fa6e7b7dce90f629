//! What the matcher's tests are made of, and followers that are simulated.
#![expect(clippy::wildcard_enum_match_arm, reason = "what a test does not make must not come")]

mod follower;
mod leader;
mod program;
mod properties;

use std::time::Instant;

use mvedsua_common::syscalls;

use super::{Call, Leaders};
use crate::record::{CallEntry, CallReturn, LeaderAddr, Nanos, Piece, PieceDir};

pub(super) fn call(nr: i64, args: [u64; 6]) -> Call {
    Call { nr: nr as u32, args, row: syscalls::row(nr as u32), inputs: Vec::new(), since: Instant::now() }
}

pub(super) fn entry(nr: i64, args: [u64; 6]) -> CallEntry {
    CallEntry { nr: nr as u32, args, inputs: Vec::new(), at: Nanos(0) }
}

pub(super) fn ret(ret: i64) -> CallReturn {
    CallReturn { ret, outputs: Vec::new(), at: Nanos(0) }
}

/// A path that an argument names.
pub(super) fn path(arg: u8, path: &str) -> Piece {
    let bytes = format!("{path}\0").into_bytes().into();
    Piece { arg, part: 0, dir: PieceDir::In, addr: LeaderAddr(0x1000), bytes }
}

/// A leader none of whose threads is spoken of.
pub(super) struct Nobody;

impl Leaders for Nobody {
    fn has(&self, _: i32) -> bool {
        false
    }
}
