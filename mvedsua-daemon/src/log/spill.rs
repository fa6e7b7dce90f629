//! The spill file: frames of `length (u32, little endian) + postcard`, written and read in order by the thread at the disk.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;

use crate::record::Record;

/// What frames are written to; a trait so that tests can have a disk that fills up or breaks at a chosen byte.
pub(super) trait Medium: Send + Sync {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Gives the space from `start` to `end` back; the offsets stay valid.
    fn discard(&self, start: u64, end: u64) -> io::Result<()>;
    /// Empties the file; the next write is at 0.
    fn reset(&self) -> io::Result<()>;
}

/// Makes the medium when it is first needed.
pub(super) type Opener = Box<dyn FnMut() -> io::Result<Arc<dyn Medium>> + Send>;

/// Creates the nameless spill file in `dir`, which is created too if it is missing.
pub(super) fn create(dir: &Path) -> io::Result<Arc<dyn Medium>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    Ok(Arc::new(tempfile::tempfile_in(dir)?))
}

impl Medium for File {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn discard(&self, start: u64, end: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(self, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, end - start)?)
    }

    fn reset(&self) -> io::Result<()> {
        self.set_len(0)
    }
}

/// How many bytes are read back at once; a longer frame is read alone.
pub(super) const CHUNK: u64 = 256 << 10;

const HEADER: usize = 4;

/// Writes the record's frame into `frame`, replacing what is there.
pub(super) fn encode(record: &Record, frame: &mut Vec<u8>) -> Result<(), String> {
    frame.clear();
    frame.extend_from_slice(&[0; HEADER]);
    let mut encoded = postcard::to_extend(record, std::mem::take(frame)).map_err(|e| e.to_string())?;
    let length = u32::try_from(encoded.len() - HEADER).map_err(|_| "a record of more than 4 GiB".to_owned())?;
    encoded[..HEADER].copy_from_slice(&length.to_le_bytes());
    *frame = encoded;
    Ok(())
}

/// Returns the bytes that the frame at the head of `bytes` takes, or `None` if not even its header is whole.
pub(super) fn frame_len(bytes: &[u8]) -> Option<usize> {
    let header: [u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
    Some(HEADER + u32::from_le_bytes(header) as usize)
}

/// Returns how many whole frames stand in `bytes`, and how many bytes they take.
pub(super) fn whole_frames(bytes: &[u8]) -> (u64, usize) {
    let (mut count, mut end) = (0, 0);
    while let Some(length) = frame_len(&bytes[end..]).filter(|length| end + length <= bytes.len()) {
        count += 1;
        end += length;
    }
    (count, end)
}

/// Reads the record of the frame that `frame` is.
pub(super) fn decode(frame: &[u8]) -> Result<Record, String> {
    postcard::from_bytes(&frame[HEADER..]).map_err(|e| e.to_string())
}
