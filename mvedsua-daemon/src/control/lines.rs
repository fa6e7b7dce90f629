//! Files that grow by lines, such as the history and the audit log.
//!
//! A line is in the file whole or not at all. What the disk does not take waits in memory and is written when there is room
//! again; until then [`Lines::trouble`] says so. What is damaged in a file is moved to a file beside it, so that one wrong
//! byte keeps no daemon from its start, and nothing is thrown away.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::dirs;

/// How many lines wait for room on the disk; older ones are given up.
const MOST_WAITING: usize = 1000;

/// A file that lines are added to.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    waiting: VecDeque<String>,
    /// Lines that were given up since the last one was written.
    given_up: u64,
    /// Why the last attempt to write failed.
    error: Option<String>,
}

impl Lines {
    pub(crate) fn new(path: PathBuf) -> Self {
        Lines { path, waiting: VecDeque::new(), given_up: 0, error: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line, without its newline; where the disk does not take it, it waits.
    pub(crate) fn add(&mut self, line: String) {
        self.waiting.push_back(line);
        if self.waiting.len() > MOST_WAITING {
            self.waiting.pop_front();
            self.given_up += 1;
        }
        self.flush();
    }

    /// Writes what waits, as far as the disk takes it.
    pub(crate) fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let written = self.write_waiting();
        match (written, self.error.take()) {
            (Err(now), before) => {
                let now = now.to_string();
                if before.as_deref() != Some(&now) {
                    tracing::error!(path = %self.path.display(), error = now, "the file cannot be written; its lines wait");
                }
                self.error = Some(now);
            }
            (Ok(()), Some(before)) => {
                let given_up = std::mem::take(&mut self.given_up);
                tracing::warn!(path = %self.path.display(), before, given_up, "the file can be written again");
            }
            (Ok(()), None) => {}
        }
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        while let Some(line) = self.waiting.front() {
            append_whole(&self.path, line)?;
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Returns whether every line is in the file.
    pub(crate) fn is_written(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns how many lines wait for room on the disk.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Says what is wrong with the file, if anything is.
    pub(crate) fn trouble(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        let given_up = match self.given_up {
            0 => String::new(),
            lines => format!(", {lines} older ones are lost"),
        };
        let waiting = self.waiting.len();
        Some(format!("{} cannot be written: {error}; {waiting} lines wait{given_up}", self.path.display()))
    }
}

/// Appends a line, whole or not at all.
fn append_whole(path: &Path, line: &str) -> io::Result<()> {
    let mut file = dirs::append(path)?;
    let before = file.metadata()?.len();
    // A daemon that was killed while it wrote has left half a line: the next one must not be glued to it.
    let gap = if before == 0 || ends_with_newline(path)? { "" } else { "\n" };
    file.write_all(format!("{gap}{line}\n").as_bytes()).inspect_err(|_| {
        // Where even that fails, the next line begins with a newline.
        let _ = file.set_len(before);
    })
}

fn ends_with_newline(path: &Path) -> io::Result<bool> {
    let mut last = [0];
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// What a file of lines held.
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub(crate) entries: Vec<T>,
    /// What is wrong with the file, and what was done about it.
    pub(crate) trouble: Option<String>,
}

/// Reads a file of lines. Lines that `parse` does not understand are moved to a file beside it; a file that cannot be read at
/// all holds nothing.
pub(crate) fn read<T>(path: &Path, parse: impl Fn(&[u8]) -> Result<T, String>) -> Found<T> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Found { entries: vec![], trouble: None },
        Err(e) => {
            let trouble = format!("{} cannot be read: {e}; what it holds is not shown", path.display());
            return Found { entries: vec![], trouble: Some(trouble) };
        }
    };
    let (mut entries, mut sound, mut damaged, mut first) = (vec![], vec![], vec![], None);
    let lines = bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    for (index, line) in lines {
        let kept = match parse(line) {
            Ok(entry) => {
                entries.push(entry);
                &mut sound
            }
            Err(why) => {
                first.get_or_insert_with(|| format!("line {}: {why}", index + 1));
                &mut damaged
            }
        };
        kept.extend_from_slice(line);
        kept.push(b'\n');
    }
    let trouble = first.map(|first| {
        let count = damaged.iter().filter(|byte| **byte == b'\n').count();
        let lines = if count == 1 { "1 line".to_owned() } else { format!("{count} lines") };
        let what = format!("{lines} of {} cannot be understood ({first})", path.display());
        match set_aside(path, &sound, &damaged) {
            Ok(beside) => format!("{what}; moved to {}", beside.display()),
            Err(e) => format!("{what}; left there, since moving it away failed: {e}"),
        }
    });
    Found { entries, trouble }
}

/// Moves damaged lines to a file beside the one that they were in.
fn set_aside(path: &Path, sound: &[u8], damaged: &[u8]) -> io::Result<PathBuf> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".damaged");
    let beside = PathBuf::from(beside);
    // First there, then no more here: a line may be in both, and is never in none.
    dirs::append(&beside)?.write_all(damaged)?;
    dirs::replace(path, sound)?;
    Ok(beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[u8]) -> Result<String, String> {
        let text = str::from_utf8(line).map_err(|e| e.to_string())?;
        if text.starts_with('{') { Ok(text.to_owned()) } else { Err("no object".to_owned()) }
    }

    #[test]
    fn damaged_lines_are_set_aside_and_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.jsonl");
        fs::write(&path, b"{1}\n{\xff}\nhalf\n\n{2}\n{3}").expect("it is writable");
        let found = read(&path, parse);
        assert_eq!(found.entries, ["{1}", "{2}", "{3}"]);
        let trouble = found.trouble.expect("two lines are damaged");
        assert!(trouble.starts_with("2 lines of ") && trouble.contains("(line 2: invalid utf-8"), "{trouble}");
        let beside = dir.path().join("x.jsonl.damaged");
        assert!(trouble.ends_with(&format!("moved to {}", beside.display())), "{trouble}");
        assert_eq!(fs::read(&beside).expect("it was written"), b"{\xff}\nhalf\n");
        assert_eq!(fs::read(&path).expect("it was written"), b"{1}\n{2}\n{3}\n");
        assert_eq!(read(&path, parse).trouble, None, "it is told once");
        assert!(read(dir.path(), parse).trouble.is_some_and(|trouble| trouble.contains("cannot be read")));
        assert_eq!(read(&dir.path().join("none"), parse).trouble, None);
    }

    #[test]
    fn what_the_disk_does_not_take_waits() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("there").join("x.jsonl");
        let mut lines = Lines::new(path.clone());
        for line in ["{1}", "{2}"] {
            lines.add(line.to_owned());
        }
        assert!(lines.trouble().is_some_and(|trouble| trouble.ends_with("; 2 lines wait")), "{lines:?}");
        fs::create_dir(dir.path().join("there")).expect("it is writable");
        fs::write(&path, "half").expect("it is writable");
        lines.flush();
        assert_eq!((lines.trouble(), lines.is_written()), (None, true));
        assert_eq!(fs::read_to_string(&path).expect("it was written"), "half\n{1}\n{2}\n");
    }

    #[test]
    fn too_many_lines_are_given_up_from_the_oldest() {
        let mut lines = Lines::new(PathBuf::from("/proc/nowhere"));
        for line in 0..MOST_WAITING + 3 {
            lines.add(line.to_string());
        }
        assert_eq!(lines.waiting.front().map(String::as_str), Some("3"));
        assert!(lines.trouble().is_some_and(|trouble| trouble.ends_with("3 older ones are lost")));
    }
}
