//! The updates that are over, and what each of them showed.
//!
//! One JSON object a line. A file that is full is kept beside the next one, and both are read.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::process::Program;
use super::{Code, dirs};
use crate::lifecycle::Outcome;
use crate::package::PackageInfo;
use crate::rules::RuleCount;
use crate::update::{Counters, FailureKind};

/// How many updates are kept.
const KEEP: usize = 200;
/// A file holds this many, so that two hold all that are kept.
const ROTATE_AT: usize = KEEP;

/// An update that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub update: u64,
    /// The process that was asked to be updated.
    pub pid: i32,
    /// Its owner; users see their own only.
    pub owner: u32,
    pub program: Program,
    pub to: String,
    /// The package that it was, where it was one.
    #[serde(default)]
    pub package: Option<PackageInfo>,
    pub asked_by: u32,
    pub asked_ms: u64,
    pub ended_ms: u64,
    pub attempts: u32,
    pub fork_pause_us: Option<u64>,
    pub promotion_pause_us: Option<u64>,
    pub counters: Counters,
    /// What each rule did in the last attempt.
    #[serde(default)]
    pub rules: Vec<RuleCount>,
    /// What failed, attempt by attempt. Divergences hold windows of payloads: the file is the daemon's own.
    pub failures: Vec<FailureKind>,
    pub outcome: Outcome,
    pub code: Code,
}

/// The file of past updates.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    past: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    past: VecDeque<Past>,
    /// Lines in the file.
    lines: usize,
}

impl History {
    /// Reads the file and the one before it; lines that do not parse are skipped, and the daemon's log names them.
    ///
    /// # Errors
    ///
    /// Where one of them is there and cannot be read.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let mut past = VecDeque::new();
        read(&before(&path), &mut past)?;
        let lines = read(&path, &mut past)?;
        while past.len() > KEEP {
            past.pop_front();
        }
        Ok(History { path, past: Mutex::new(Kept { past, lines }) })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.past.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds an update that is over; where the file cannot be written, the daemon's own log says so.
    pub fn add(&self, entry: Past) {
        let mut kept = self.kept();
        kept.past.push_back(entry);
        while kept.past.len() > KEEP {
            kept.past.pop_front();
        }
        if let Err(e) = self.save(&mut kept) {
            tracing::error!(path = %self.path.display(), error = %e, "the history cannot be written");
        }
    }

    /// Writes down the newest.
    fn save(&self, kept: &mut Kept) -> io::Result<()> {
        let Some(last) = kept.past.back() else { return Ok(()) };
        if kept.lines >= ROTATE_AT {
            fs::rename(&self.path, before(&self.path))?;
            kept.lines = 0;
        }
        let mut line = serde_json::to_string(last)?;
        line.push('\n');
        dirs::append(&self.path)?.write_all(line.as_bytes())?;
        kept.lines += 1;
        Ok(())
    }

    /// Returns the past updates that `wanted` accepts, newest first.
    #[must_use]
    pub fn find(&self, wanted: impl Fn(&Past) -> bool, limit: usize) -> Vec<Past> {
        self.kept().past.iter().rev().filter(|past| wanted(past)).take(limit).cloned().collect()
    }

    /// Returns the highest number of an update so far.
    #[must_use]
    pub fn last_update(&self) -> u64 {
        self.kept().past.iter().map(|past| past.update).max().unwrap_or(0)
    }
}

/// Returns the file that was full before this one.
fn before(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

/// Reads what a file holds, and returns how many lines it has; none where there is no file.
fn read(path: &Path, past: &mut VecDeque<Past>) -> io::Result<usize> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    let mut lines = 0;
    for line in text.lines() {
        lines += 1;
        match serde_json::from_str(line) {
            Ok(entry) => past.push_back(entry),
            Err(e) => tracing::warn!(path = %path.display(), line = lines, error = %e, "history: line skipped"),
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(update: u64) -> Past {
        Past {
            update,
            pid: 7,
            owner: 0,
            program: Program::default(),
            to: "self".to_owned(),
            package: None,
            asked_by: 0,
            asked_ms: 1,
            ended_ms: 2,
            attempts: 1,
            fork_pause_us: None,
            promotion_pause_us: None,
            counters: Counters::default(),
            rules: vec![],
            failures: vec![],
            outcome: Outcome::Confirmed { leader: 8 },
            code: Code::Done,
        }
    }

    #[test]
    fn the_past_is_bounded_in_memory_and_on_disk() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("history.jsonl");
        let history = History::open(path.clone()).expect("none is fine");
        let last = 3 * KEEP as u64 + 5;
        for update in 1..=last {
            history.add(past(update));
        }
        let lines = |path: &Path| fs::read_to_string(path).expect("it was written").lines().count();
        assert_eq!((lines(&before(&path)), lines(&path)), (KEEP, 5));
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 2, "older ones are gone");
        let again = History::open(path.clone()).expect("it was written");
        assert_eq!(again.last_update(), last);
        let all = again.find(|past| past.pid == 7, usize::MAX);
        let numbers: Vec<u64> = all.iter().map(|past| past.update).collect();
        assert_eq!(numbers, (last - KEEP as u64 + 1..=last).rev().collect::<Vec<_>>());
        again.add(past(last + 1));
        assert_eq!(lines(&path), 6, "a daemon that starts goes on in the same file");
    }
}
