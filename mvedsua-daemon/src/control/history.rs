//! The updates that are over, and what each of them showed.
//!
//! One JSON object a line, which a thread of its own writes. A file that is full is kept beside the next one, and both are read.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Code;
use super::led::Led;
use super::line_writer::{Anew, LineWriter, before};
use super::lines;
use super::process::Program;
use super::slowdown::Slowdown;
use super::status::Passed;
use crate::lifecycle::Outcome;
use crate::package::PackageInfo;
use crate::rules::RuleCount;
use crate::update::{Counters, FailureKind};

/// How many updates are kept.
const KEEP: usize = 200;
/// A file holds this many, so that two hold all that are kept.
const ROTATE_AT: usize = KEEP;

/// An update that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    pub update: u64,
    /// The process that was asked to be updated.
    pub pid: i32,
    /// What it was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
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
    /// How long it took; the two above may be told by a clock that was set meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    pub attempts: u32,
    pub fork_pause_us: Option<u64>,
    pub promotion_pause_us: Option<u64>,
    pub counters: Counters,
    /// What it cost the service, at last.
    #[serde(default)]
    pub slowdown: Option<Slowdown>,
    /// What each rule did in the last attempt.
    #[serde(default)]
    pub rules: Vec<RuleCount>,
    /// What failed, attempt by attempt. Divergences hold windows of payloads: the file is the daemon's own.
    pub failures: Vec<FailureKind>,
    /// The stages that it went through, oldest first.
    #[serde(default)]
    pub stages: Vec<Passed>,
    /// What was observed of the process while each version led, in the last attempt; none where nobody observed it.
    #[serde(default)]
    pub led: Vec<Led>,
    pub outcome: Outcome,
    pub code: Code,
}

/// The file of past updates.
#[derive(Debug)]
pub struct History {
    past: Mutex<VecDeque<Past>>,
    file: LineWriter,
    /// What was wrong with the files when they were read.
    found: Vec<String>,
}

impl History {
    /// Reads the file and the one before it. What is damaged is set aside, see [`History::troubles`].
    #[must_use]
    pub fn open(path: PathBuf) -> Self {
        let parse = |line: &[u8]| serde_json::from_slice(line).map_err(|e| e.to_string());
        let earlier = lines::read(&before(&path), parse);
        let now = lines::read(&path, parse);
        let lines = now.entries.len();
        let mut past: VecDeque<Past> = earlier.entries.into_iter().chain(now.entries).collect();
        while past.len() > KEEP {
            past.pop_front();
        }
        let found: Vec<String> = earlier.trouble.into_iter().chain(now.trouble).collect();
        for trouble in &found {
            tracing::error!(trouble, "the history is damaged");
        }
        let file = LineWriter::start("history-file", path, Anew::AtLines { most: ROTATE_AT, now: lines });
        History { past: Mutex::new(past), file, found }
    }

    fn past(&self) -> std::sync::MutexGuard<'_, VecDeque<Past>> {
        self.past.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds an update that is over. The file gets it as soon as the disk takes it.
    pub fn add(&self, entry: Past) {
        match serde_json::to_string(&entry) {
            Ok(line) => self.file.add(line),
            Err(e) => tracing::error!(error = %e, "an update that is over cannot be written down"),
        }
        let mut past = self.past();
        past.push_back(entry);
        while past.len() > KEEP {
            past.pop_front();
        }
    }

    /// Waits until the file has everything, or everything waits for room on the disk, or the deadline has passed.
    pub fn flush(&self, deadline: Instant) {
        self.file.flush(deadline);
    }

    /// Says what is wrong with the files.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        self.found.iter().cloned().chain(self.file.trouble()).collect()
    }

    /// Returns the past updates that `wanted` accepts, newest first.
    #[must_use]
    pub fn find(&self, wanted: impl Fn(&Past) -> bool, limit: usize) -> Vec<Past> {
        self.past().iter().rev().filter(|past| wanted(past)).take(limit).cloned().collect()
    }

    /// Returns the highest number of an update so far.
    #[must_use]
    pub fn last_update(&self) -> u64 {
        self.past().iter().map(|past| past.update).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn past(update: u64) -> Past {
        Past {
            update,
            pid: 7,
            target: None,
            owner: 0,
            program: Program::default(),
            to: "self".to_owned(),
            package: None,
            asked_by: 0,
            asked_ms: 1,
            ended_ms: 2,
            took_ms: None,
            attempts: 1,
            fork_pause_us: None,
            promotion_pause_us: None,
            counters: Counters::default(),
            slowdown: None,
            rules: vec![],
            failures: vec![],
            stages: vec![],
            led: vec![],
            outcome: Outcome::Confirmed { leader: 8 },
            code: Code::Done,
        }
    }

    #[test]
    fn the_past_is_bounded_in_memory_and_on_disk() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("history.jsonl");
        let history = History::open(path.clone());
        let last = 3 * KEEP as u64 + 5;
        for update in 1..=last {
            history.add(past(update));
        }
        history.flush(soon());
        let lines = |path: &Path| fs::read_to_string(path).expect("it was written").lines().count();
        assert_eq!((lines(&before(&path)), lines(&path)), (KEEP, 5));
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 2, "older ones are gone");
        let again = History::open(path.clone());
        assert_eq!(again.last_update(), last);
        let all = again.find(|past| past.pid == 7, usize::MAX);
        let numbers: Vec<u64> = all.iter().map(|past| past.update).collect();
        assert_eq!(numbers, (last - KEEP as u64 + 1..=last).rev().collect::<Vec<_>>());
        again.add(past(last + 1));
        again.flush(soon());
        assert_eq!(lines(&path), 6, "a daemon that starts goes on in the same file");
        let mut bytes = fs::read(&path).expect("it was written");
        bytes[5] = 0xff;
        fs::write(&path, bytes).expect("it is ours");
        let damaged = History::open(path);
        assert!(damaged.troubles()[0].starts_with("1 line of "), "{:?}", damaged.troubles());
        assert_eq!(damaged.find(|_| true, usize::MAX).len(), KEEP, "the others are there");
    }
}
