//! Whatever rules make of whatever records: nothing is lost or disordered, and the work is bounded.
//!
//! The input is a rules file, a byte 0xff, and then one byte for each record.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mvedsua_daemon::record::{CallEntry, CallReturn, Event, LeaderAddr, Nanos, Piece, PieceDir, Record, Seq, Slot};
use mvedsua_daemon::rules::{self, Counts, Descriptors, Direction, Pace, Stage, stage};

const READ: u32 = 0;
const WRITE: u32 = 1;
const CLOSE: u32 = 3;
const CLOCK_GETTIME: u32 = 228;

fn piece(dir: PieceDir, byte: u8) -> Piece {
    let bytes = match byte % 4 {
        0 => "put a 1\n",
        1 => "x",
        2 => "put string a 1\nget a\n",
        _ => "",
    };
    Piece { arg: 1, part: 0, dir, addr: LeaderAddr(0x1000), bytes: bytes.as_bytes().to_vec().into() }
}

fn event(byte: u8) -> Event {
    let fd = u64::from(byte >> 6);
    let (input, output) = (piece(PieceDir::In, byte >> 4), piece(PieceDir::Out, byte >> 4));
    let call = |nr, len: usize, inputs| CallEntry { nr, args: [fd, 0x1000, len as u64, 0, 0, 0], inputs, at: Nanos(0) };
    let ret = |ret, outputs| CallReturn { ret, outputs, at: Nanos(0) };
    let len = input.bytes.len();
    match byte & 7 {
        0 | 1 => Event::Call(call(READ, 100, vec![]), ret(len as i64, vec![output])),
        2 | 3 => Event::Call(call(WRITE, len, vec![input]), ret(len as i64, vec![])),
        4 => Event::Enter(call(WRITE, len, vec![input])),
        5 => Event::Return(ret(len as i64, vec![])),
        6 => Event::Call(call(CLOSE, 0, vec![]), ret(0, vec![])),
        _ => Event::Call(call(CLOCK_GETTIME, 0, vec![]), ret(0, vec![])),
    }
}

fuzz_target!(|input: &[u8]| {
    let at = input.iter().position(|byte| *byte == 0xff).unwrap_or(input.len());
    let (source, steps) = input.split_at(at);
    let Ok(source) = std::str::from_utf8(source) else { return };
    let Some(rules) = rules::check(source).rules else { return };
    let states = rules.states() as u64;
    let counts = Arc::new(Counts::new(Arc::new(rules)));
    let time = |nr| nr == CLOCK_GETTIME;
    let mut stage =
        Stage::new(Arc::clone(&counts), Direction::OutdatedLeader, Pace::Free, time, Descriptors::default());
    // An output may be recorded in two parts and be handed on in one.
    let is_call = |event: &Event| !matches!(event, Event::Return(_));
    let (mut out, mut calls) = (Vec::new(), 0);
    for (seq, byte) in steps.iter().enumerate() {
        let record = Record { seq: Seq(seq as u64), slot: Slot(u32::from(byte >> 3 & 1)), event: event(*byte) };
        calls += u64::from(is_call(&record.event));
        stage.push(record, &mut out);
    }
    stage.flush(&mut out);
    assert!(!stage.is_holding());
    assert!(out.is_sorted_by_key(|record| record.seq));
    let bound = (steps.len() as u64 + 1) * 3 * states * stage::WINDOW as u64;
    assert!(stage.work() <= bound, "{} steps of work, the bound is {bound}", stage.work());
    let dropped: u64 = counts.read().iter().map(|count| count.dropped).sum();
    // A right side that cannot be performed leaves a gap, which says that records are lost and ends the update.
    let void = out.iter().any(|record| matches!(record.event, Event::Gap(_)));
    let left = out.iter().filter(|record| is_call(&record.event)).count() as u64;
    assert!(void || left + dropped >= calls, "of {calls} calls {left} are left, and {dropped} were dropped");
});
