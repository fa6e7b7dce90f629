//! The events on the disk, so that a later daemon goes on with their numbers. A thread of its own writes them.

use std::path::{Path, PathBuf};

use super::Event;
use crate::control::line_writer::{Anew, LineWriter, before};
use crate::control::lines;

/// The file begins anew at this size.
const ROTATE_AT: u64 = 4 << 20;

/// What the files of earlier daemons held.
pub(super) struct Kept {
    pub(super) entries: Vec<Event>,
    pub(super) troubles: Vec<String>,
}

/// Reads the file and the one before it.
pub(super) fn read(path: &Path) -> Kept {
    let parse = |line: &[u8]| serde_json::from_slice::<Event>(line).map_err(|e| e.to_string());
    let (earlier, now) = (lines::read(&before(path), parse), lines::read(path, parse));
    let troubles = earlier.trouble.into_iter().chain(now.trouble).collect();
    Kept { entries: earlier.entries.into_iter().chain(now.entries).collect(), troubles }
}

/// Starts the thread that writes the file.
pub(super) fn start(path: PathBuf) -> LineWriter {
    LineWriter::start("events-file", path, Anew::AtBytes(ROTATE_AT))
}
