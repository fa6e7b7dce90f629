//! The language and the stage, on records made by hand.

use std::sync::Arc;

use bytes::Bytes;
use mvedsua_common::syscalls;

use super::*;
use crate::record::{
    CallEntry, CallReturn, Event, LeaderAddr, Nanos, Piece, PieceDir, Record, Seq, SignalRecord, Slot,
};

mod constructs;
mod language;
mod properties;

/// Makes records, numbered as they come.
#[derive(Debug, Default)]
struct Story {
    records: Vec<Record>,
}

fn entry(name: &str, args: &[i64], input: Option<(u8, &[u8])>) -> CallEntry {
    let mut all = [0; 6];
    for (place, value) in all.iter_mut().zip(args) {
        *place = *value as u64;
    }
    let piece = |(arg, bytes): (u8, &[u8])| Piece {
        arg,
        part: 0,
        dir: PieceDir::In,
        addr: LeaderAddr(0x1000),
        bytes: Bytes::copy_from_slice(bytes),
    };
    let inputs = input.filter(|(_, bytes)| !bytes.is_empty()).map(piece).into_iter().collect();
    CallEntry { nr: syscalls::by_name(name).expect("a system call"), args: all, inputs, at: Nanos(0) }
}

fn ret(ret: i64, output: Option<(u8, &[u8])>) -> CallReturn {
    let piece = |(arg, bytes): (u8, &[u8])| Piece {
        arg,
        part: 0,
        dir: PieceDir::Out,
        addr: LeaderAddr(0x1000),
        bytes: Bytes::copy_from_slice(bytes),
    };
    let outputs = output.filter(|(_, bytes)| !bytes.is_empty()).map(piece).into_iter().collect();
    CallReturn { ret, outputs, at: Nanos(0) }
}

impl Story {
    fn event(mut self, slot: u32, event: Event) -> Story {
        let seq = Seq(self.records.len() as u64);
        self.records.push(Record { seq, slot: Slot(slot), event });
        self
    }

    fn call(self, name: &str, args: &[i64], result: i64) -> Story {
        self.event(0, Event::Call(entry(name, args, None), ret(result, None)))
    }

    fn read_in(self, slot: u32, fd: i64, bytes: &str) -> Story {
        let args = [fd, 0x1000, 4096];
        self.event(slot, Event::Call(entry("read", &args, None), ret(bytes.len() as i64, Some((1, bytes.as_bytes())))))
    }

    fn read(self, fd: i64, bytes: &str) -> Story {
        self.read_in(0, fd, bytes)
    }

    fn write_in(self, slot: u32, fd: i64, bytes: &str) -> Story {
        let args = [fd, 0x1000, bytes.len() as i64];
        let call = Event::Call(entry("write", &args, Some((1, bytes.as_bytes()))), ret(bytes.len() as i64, None));
        self.event(slot, call)
    }

    fn write(self, fd: i64, bytes: &str) -> Story {
        self.write_in(0, fd, bytes)
    }

    fn write_enter(self, fd: i64, bytes: &str) -> Story {
        let args = [fd, 0x1000, bytes.len() as i64];
        self.event(0, Event::Enter(entry("write", &args, Some((1, bytes.as_bytes())))))
    }

    fn returns(self, result: i64) -> Story {
        self.event(0, Event::Return(ret(result, None)))
    }

    fn open(self, path: &str, fd: i64) -> Story {
        let path = format!("{path}\0");
        let call = entry("openat", &[-100, 0x1000, 0], Some((1, path.as_bytes())));
        self.event(0, Event::Call(call, ret(fd, None)))
    }

    fn signal(self) -> Story {
        let signal = SignalRecord {
            delivery: crate::record::Delivery::BeforeNextCall,
            signo: 1,
            more: false,
            siginfo: Bytes::new(),
        };
        self.event(0, Event::Signal(signal))
    }
}

fn rules(source: &str) -> Arc<RuleSet> {
    let checked = check(source);
    let rendered: String = checked.diagnostics.iter().map(|d| d.render("test.rules", source)).collect();
    Arc::new(checked.rules.unwrap_or_else(|| panic!("{rendered}")))
}

fn time(nr: u32) -> bool {
    i64::from(nr) == libc::SYS_clock_gettime
}

fn stage(source: &str, direction: Direction, pace: Pace) -> Stage {
    let open = [(3, Descriptor::Listener), (5, Descriptor::Client), (6, Descriptor::Client), (9, Descriptor::Socket)];
    Stage::new(Arc::new(Counts::new(rules(source))), direction, pace, time, Descriptors::new(open))
}

/// Runs a story and shows what comes out.
fn run(source: &str, story: Story) -> Vec<String> {
    let mut stage = stage(source, Direction::OutdatedLeader, Pace::Free);
    shown(&mut stage, story)
}

fn shown(stage: &mut Stage, story: Story) -> Vec<String> {
    let mut out = Vec::new();
    story.records.into_iter().for_each(|record| stage.push(record, &mut out));
    stage.flush(&mut out);
    assert!(!stage.is_holding());
    assert!(out.is_sorted_by_key(|record| record.seq), "the order is kept");
    out.iter().map(show).collect()
}

fn text(pieces: &[Piece]) -> String {
    pieces.iter().map(|piece| String::from_utf8_lossy(&piece.bytes).replace('\n', "\\n").replace('\0', "")).collect()
}

fn show(record: &Record) -> String {
    let call = |entry: &CallEntry, out: String| {
        let name = syscalls::name(entry.nr).expect("a system call");
        let bytes = text(&entry.inputs) + &out;
        let fd = entry.args[0] as i32;
        if bytes.is_empty() { format!("{name}({fd})") } else { format!("{name}({fd}, {bytes})") }
    };
    match &record.event {
        Event::Call(entry, ret) => format!("{} = {}", call(entry, text(&ret.outputs)), ret.ret),
        Event::Enter(entry) => format!("{} …", call(entry, String::new())),
        Event::Return(ret) => format!("… = {}", ret.ret),
        Event::Gap(gap) => format!("gap: {}", gap.reason),
        Event::Signal(_) => "signal".to_owned(),
        Event::ThreadEnded => "ended".to_owned(),
        Event::Resumed => "goes on".to_owned(),
        Event::Overdue => "computes".to_owned(),
        Event::ProcessStarted { .. } | Event::Executed(_) | Event::ProcessEnded(_) | Event::Succession(_) => {
            "process".to_owned()
        }
        Event::ThreadStarted { .. } => "started".to_owned(),
    }
}
