//! A recording of which some bytes are not those that were written: it is read up to there, or refused, and never believed.
//!
//! The input is a list of edits, three bytes each: where, in two bytes, and what is added there.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mvedsua_daemon::record::interleaving::Interleaving;
use mvedsua_daemon::record::{Event, Record, Seq, Slot};
use mvedsua_daemon::rules::Direction;
use mvedsua_daemon::rules::recording::{Frame, Header, Reader, Writer};

/// How many frames the file holds.
const FRAMES: u64 = 20;

static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let header = Header {
        program: "/bin/x".into(),
        pid: 7,
        descriptors: vec![],
        interleaving: Interleaving::default(),
        start: None,
    };
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&mut bytes, &header, 1 << 20).expect("memory can be written");
    writer.add(&Frame::Direction(Direction::OutdatedLeader));
    for seq in 2..FRAMES {
        writer.add(&Frame::Record(Record { seq: Seq(seq), slot: Slot(0), event: Event::ThreadEnded }));
    }
    writer.end("over").expect("memory can be written");
    bytes
});

fuzz_target!(|input: &[u8]| {
    let mut bytes = FILE.clone();
    for edit in input.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[at] = bytes[at].wrapping_add(edit[2]);
    }
    let Ok(mut reader) = Reader::open(&bytes[..]) else { return };
    let frames = reader.by_ref().count() as u64;
    assert!(frames <= FRAMES);
    // Bytes that are added and taken away again leave the file as it was.
    assert!(bytes != *FILE || (frames == FRAMES && reader.torn().is_none()));
});
