//! What of a file is there: a file may be far longer than what was ever written of it, and all the rest are zeros that nobody
//! need look at.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Returns the places in a range of a regular file that hold data, in order. A file system that does not know says "all".
pub(crate) fn of(file: &File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let end = range.end.min(file.metadata()?.len());
    let mut found = Vec::new();
    let mut at = range.start;
    while at < end {
        let begin = match seek(file, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // Nothing more is there.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        if begin >= end {
            break;
        }
        let hole = seek(file, SeekFrom::Hole(begin))?.min(end);
        found.push(begin.max(at)..hole);
        at = hole.max(at + 1);
    }
    Ok(found)
}

/// Reads a range of a file into `bytes`, or as much of it as there is.
pub(crate) fn read(mut file: &File, range: Range<u64>, bytes: &mut Vec<u8>) -> io::Result<()> {
    let len = range.end.saturating_sub(range.start);
    bytes.clear();
    let room = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.try_reserve_exact(room).map_err(|_| io::ErrorKind::OutOfMemory)?;
    seek(file, SeekFrom::Start(range.start))?;
    // Without filling it with zeros first, which costs as much as reading.
    file.by_ref().take(len).read_to_end(bytes).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn what_lies_between_holes_is_found() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(1 << 40).expect("it grows");
        file.write_all_at(b"here", 1 << 30).expect("written");
        file.write_all_at(b"there", (1 << 39) + 100).expect("written");
        let found = of(&file, 0..1 << 40).expect("looked at");
        assert!(found.iter().any(|one| one.contains(&(1 << 30))), "{found:?}");
        assert!(found.iter().any(|one| one.contains(&((1 << 39) + 100))), "{found:?}");
        assert!(found.iter().map(|one| one.end - one.start).sum::<u64>() < 1 << 24, "{found:?}");
        assert_eq!(of(&file, 0..4096).expect("looked at"), []);
        let mut bytes = Vec::new();
        read(&file, (1 << 39) + 100..(1 << 39) + 105, &mut bytes).expect("read");
        assert_eq!(bytes, b"there");
        read(&file, (1 << 40) - 2..(1 << 40) + 9, &mut bytes).expect("read");
        assert_eq!(bytes, [0, 0]);
    }
}
