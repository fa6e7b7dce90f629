//! A recording: what a leader did, in a file, so that rules can be tried without any process, and versions without a leader.
//!
//! ```text
//!   "MVEDREC\n" │ version, u32 │ header │ frame │ frame │ …        header and frames: length, u32 │ sum, u32 │ postcard
//! ```
//!
//! Numbers are little endian. The sum is the CRC-32 of everything before it in the file but for other sums, and of the frame's
//! own bytes: a bit that flips anywhere, and a frame that is missing, moved or there twice, is found where it is. A file that
//! ends in the middle of a frame, or is damaged, is read up to there.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::{Descriptor, Direction};
use crate::record::interleaving::Interleaving;
use crate::record::{Record, StreamId};

const MAGIC: [u8; 8] = *b"MVEDREC\n";
const VERSION: u32 = 6;
/// What stands before the bytes of a frame: its length and its sum.
const FRAME_HEAD: u64 = 8;
/// What stands before the header's frame.
const HEAD: u64 = 12;
/// The longest frame that is believed.
const MAX_FRAME: u32 = 1 << 30;

/// What a recording says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The path of the executable.
    pub program: String,
    pub pid: i32,
    /// What was open when it began.
    pub descriptors: Vec<(i32, Descriptor)>,
    /// How its threads ran beside each other.
    pub interleaving: Interleaving,
    /// What the program was started with; `None` for one that was running before.
    pub start: Option<Start>,
}

/// What the program of a recording was started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// What the kernel gave it for its secrets (`AT_RANDOM`, 16 bytes).
    pub random: [u8; 16],
    pub arguments: Vec<Vec<u8>>,
    /// `NAME=value`.
    pub environment: Vec<Vec<u8>>,
}

/// One entry of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// From here on this version leads.
    Direction(Direction),
    Record(Record),
    /// Nothing follows, and why.
    End(String),
    /// From here on the records are those of this process. A recording begins with the first one, 0.
    Process(StreamId),
}

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("reading the recording: {0}")]
    Read(#[from] io::Error),
    #[error(
        "this is no recording: it does not begin with MVEDREC; `mvedsuad update … --record FILE` and `mvedsuad run --record FILE …` write one"
    )]
    NotOne,
    #[error("the recording is of version {0}, this program reads version {VERSION}: record it anew")]
    Version(u32),
    #[error("the header of the recording is damaged: {0}")]
    Header(String),
}

/// Sums up what is in the file so far.
#[derive(Clone, Debug)]
struct Sum(crc32fast::Hasher);

impl Sum {
    /// The sum of the head, which is the same in all files of this version.
    fn of_head() -> Sum {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&MAGIC);
        sum.update(&VERSION.to_le_bytes());
        Sum(sum)
    }

    /// Adds a frame; returns the sum that stands beside it.
    fn add(&mut self, frame: &[u8]) -> u32 {
        // No frame is longer than its length can say.
        self.0.update(&(frame.len() as u32).to_le_bytes());
        self.0.update(frame);
        self.0.clone().finalize()
    }
}

/// Writes a recording; stops when its room is used up.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    /// Bytes that may still be written.
    room: u64,
    /// Set when nothing more is written, with the reason.
    ended: Option<String>,
    sum: Sum,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a recording of at most `room` bytes.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn begin(mut out: W, header: &Header, room: u64) -> io::Result<Writer<W>> {
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        let mut writer = Writer { out, room, ended: None, sum: Sum::of_head(), buffer: Vec::new() };
        writer.put(header)?;
        Ok(writer)
    }

    fn put(&mut self, what: &impl Serialize) -> io::Result<()> {
        self.buffer.clear();
        let buffer = std::mem::take(&mut self.buffer);
        self.buffer = postcard::to_extend(what, buffer).map_err(io::Error::other)?;
        let length = u32::try_from(self.buffer.len()).map_err(io::Error::other)?;
        let sum = self.sum.add(&self.buffer);
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&sum.to_le_bytes())?;
        self.out.write_all(&self.buffer)?;
        self.room = self.room.saturating_sub(FRAME_HEAD + u64::from(length));
        Ok(())
    }

    /// Adds a frame; after the last one that there was room for the recording says so and ends.
    pub fn add(&mut self, frame: &Frame) {
        if self.ended.is_some() {
            return;
        }
        let size = match frame {
            Frame::Record(record) => record.footprint() as u64,
            Frame::Direction(_) | Frame::End(_) | Frame::Process(_) => 0,
        };
        let reason = if size > self.room {
            let reason = "the room for the recording is used up".to_owned();
            self.put(&Frame::End(reason.clone())).err().map_or(reason, |error| error.to_string())
        } else {
            match self.put(frame) {
                Ok(()) => return,
                Err(error) => error.to_string(),
            }
        };
        self.ended = Some(reason);
    }

    /// Returns why nothing more is written, if that is so.
    #[must_use]
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// Says why the recording ends here, and hands the file over to the system.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn end(&mut self, reason: &str) -> io::Result<()> {
        self.add(&Frame::End(reason.to_owned()));
        self.ended.get_or_insert_with(|| reason.to_owned());
        self.out.flush()
    }
}

/// Reads a recording, frame by frame.
#[derive(Debug)]
pub struct Reader<R: Read> {
    input: R,
    header: Header,
    sum: Sum,
    offset: u64,
    /// Frames that were read, the header too.
    frames: u64,
    /// Where and why it breaks off.
    torn: Option<String>,
    done: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// The file is no recording, or none that this program understands.
    pub fn open(mut input: R) -> Result<Reader<R>, RecordingError> {
        let mut magic = [0; 8];
        let mut version = [0; 4];
        let short = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => RecordingError::NotOne,
            _ => RecordingError::Read(error),
        };
        input.read_exact(&mut magic).map_err(short)?;
        if magic != MAGIC {
            return Err(RecordingError::NotOne);
        }
        input.read_exact(&mut version).map_err(short)?;
        match u32::from_le_bytes(version) {
            VERSION => {}
            other => return Err(RecordingError::Version(other)),
        }
        let mut sum = Sum::of_head();
        let bytes = frame(&mut input, &mut sum).map_err(|e| RecordingError::Header(e.to_string()))?;
        let bytes = bytes.ok_or_else(|| RecordingError::Header("it is missing".into()))?;
        let header = whole(&bytes).map_err(RecordingError::Header)?;
        let offset = HEAD + FRAME_HEAD + bytes.len() as u64;
        Ok(Reader { input, header, sum, offset, frames: 1, torn: None, done: false })
    }

    /// Returns what the recording says about itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns where and why the recording breaks off, once everything before that was read.
    #[must_use]
    pub fn torn(&self) -> Option<&str> {
        self.torn.as_deref()
    }

    fn tear(&mut self, reason: &str) -> Option<Frame> {
        self.torn = Some(format!("it breaks off at byte {}, frame {}: {reason}", self.offset, self.frames));
        None
    }

    /// Sees that nothing follows the end.
    fn expect_end(&mut self) {
        match self.input.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => drop(self.tear("something follows the end")),
            Err(error) => drop(self.tear(&error.to_string())),
        }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        if self.done || self.torn.is_some() {
            return None;
        }
        match frame(&mut self.input, &mut self.sum) {
            Ok(None) => self.tear("it has no end, so the daemon died while it was written"),
            Ok(Some(bytes)) => match whole(&bytes) {
                Ok(frame) => {
                    self.offset += FRAME_HEAD + bytes.len() as u64;
                    self.frames += 1;
                    self.done = matches!(frame, Frame::End(_));
                    if self.done {
                        self.expect_end();
                    }
                    Some(frame)
                }
                Err(error) => self.tear(&format!("a damaged record ({error})")),
            },
            Err(error) => self.tear(&error.to_string()),
        }
    }
}

/// Reads what a frame holds, to its last byte.
fn whole<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((what, [])) => Ok(what),
        Ok((_, rest)) => Err(format!("{} bytes too many", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads one frame; `None` is the end of the file between two frames.
fn frame(input: &mut impl Read, sum: &mut Sum) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; FRAME_HEAD as usize];
    let mut got = 0;
    while got < head.len() {
        match input.read(&mut head[got..])? {
            0 if got == 0 => return Ok(None),
            0 => return Err(io::Error::other("half the head of a frame")),
            more => got += more,
        }
    }
    let [l0, l1, l2, l3, s0, s1, s2, s3] = head;
    let (length, expected) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([s0, s1, s2, s3]));
    if length > MAX_FRAME {
        return Err(io::Error::other(format!("a record of {length} bytes")));
    }
    // Grows as it is read: a damaged length does not take memory that the file does not have.
    let mut bytes = Vec::new();
    input.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() < length as usize {
        return Err(io::Error::other(format!("a record of {length} bytes of which {} are there", bytes.len())));
    }
    if sum.add(&bytes) != expected {
        return Err(io::Error::other("its bytes are not those that were written (the checksum differs)"));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Event, Seq, Slot};

    fn header() -> Header {
        Header {
            program: "/bin/x".into(),
            pid: 7,
            descriptors: vec![(3, Descriptor::File("/x".into()))],
            interleaving: Interleaving::default(),
            start: None,
        }
    }

    fn record(seq: u64) -> Frame {
        Frame::Record(Record { seq: Seq(seq), slot: Slot(0), event: Event::ThreadEnded })
    }

    fn file(count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes, &header(), 1 << 20).expect("memory can be written");
        writer.add(&Frame::Direction(Direction::OutdatedLeader));
        (0..count).for_each(|seq| writer.add(&record(seq)));
        writer.end("over").expect("memory can be written");
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = file(3);
        let mut reader = Reader::open(&bytes[..]).expect("a recording");
        assert_eq!(reader.header(), &header());
        let frames: Vec<Frame> = reader.by_ref().collect();
        assert_eq!(frames.len(), 5);
        assert_eq!(frames[4], Frame::End("over".into()));
        assert_eq!(reader.torn(), None);
    }

    #[test]
    fn a_torn_file_is_read_up_to_the_tear() {
        let bytes = file(10);
        for length in 0..bytes.len() {
            let Ok(mut reader) = Reader::open(&bytes[..length]) else { continue };
            let frames = reader.by_ref().count();
            assert!(frames < 12);
            assert!(reader.torn().is_some_and(|torn| torn.starts_with("it breaks off at byte ")), "{length}");
        }
        assert!(matches!(Reader::open(&b"ELF"[..]), Err(RecordingError::NotOne)));
        assert!(matches!(Reader::open(&b"MVEDREC\n\x09\0\0\0"[..]), Err(RecordingError::Version(9))));
        let mut damaged = bytes.clone();
        damaged[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Reader::open(&damaged[..]), Err(RecordingError::Header(_))));
    }

    #[test]
    fn no_bit_flips_unnoticed() {
        let bytes = file(20);
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            let Ok(mut reader) = Reader::open(&damaged[..]) else { continue };
            let frames = reader.by_ref().count();
            let torn = reader.torn().unwrap_or_else(|| panic!("bit {at} is not noticed"));
            assert!(frames < 22 && torn.starts_with("it breaks off at byte "), "bit {at}: {torn}");
            let place: usize = torn["it breaks off at byte ".len()..].split(',').next().unwrap().parse().unwrap();
            assert!(place <= at / 8, "bit {at}: it is read no further than that: {torn}");
        }
    }

    #[test]
    fn a_frame_that_is_missing_or_there_twice_is_noticed() {
        let bytes = file(20);
        let (mut starts, mut at) = (vec![], HEAD as usize);
        while at < bytes.len() {
            starts.push(at);
            at += FRAME_HEAD as usize + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        }
        let read = |bytes: &[u8]| {
            let mut reader = Reader::open(bytes).expect("its header is whole");
            assert!(reader.by_ref().count() > 3);
            reader.torn().map(str::to_owned)
        };
        assert_eq!(read(&bytes), None);
        let frame = starts[5]..starts[6];
        let without = [&bytes[..frame.start], &bytes[frame.end..]].concat();
        let twice = [&bytes[..frame.end], &bytes[frame.start..]].concat();
        for damaged in [without, twice, [&bytes[..], b"x"].concat()] {
            assert!(read(&damaged).is_some());
        }
    }

    #[test]
    fn the_room_is_kept() {
        let mut bytes = Vec::new();
        let mut writer = Writer::begin(&mut bytes, &header(), 2000).expect("memory can be written");
        (0..1000).for_each(|seq| writer.add(&record(seq)));
        assert_eq!(writer.ended(), Some("the room for the recording is used up"));
        writer.end("over").expect("memory can be written");
        assert!(bytes.len() < 2100);
        let last = Reader::open(&bytes[..]).expect("a recording").last();
        assert_eq!(last, Some(Frame::End("the room for the recording is used up".into())));
    }
}
