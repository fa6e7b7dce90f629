//! The audit log: who asked for what, and what came of it.
//!
//! One JSON object a line, written before the answer goes out. Nothing of a payload is ever in it.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::lines::Lines;
use super::{Code, clock};
use crate::package::PackageInfo;

/// The log starts anew at this size; the file before it is kept.
const ROTATE_AT: u64 = 8 << 20;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub uid: u32,
    pub gid: u32,
    pub pid: Option<i32>,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, as people read it.
    pub at: String,
    /// Nobody where the policy acted by itself.
    pub who: Option<Peer>,
    /// The verb.
    pub what: String,
    /// The target process.
    pub pid: Option<i32>,
    /// The update, where there is one.
    pub update: Option<u64>,
    /// What it was asked to become, where that is the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The package with its build-ids, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageInfo>,
    pub code: Code,
    /// What came of it.
    pub verdict: String,
}

/// Writes the log.
#[derive(Debug)]
pub struct Audit {
    file: Mutex<Lines>,
}

impl Audit {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Audit { file: Mutex::new(Lines::new(path)) }
    }

    fn file(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Writes one line; where that fails it waits, and the daemon's own log and `status` say so.
    pub fn write(&self, mut line: Line) {
        line.at = clock::show_ms(clock::now_ms());
        let text = match serde_json::to_string(&line) {
            Ok(text) => text,
            Err(e) => return tracing::error!(error = %e, ?line, "a line of the audit log cannot be written down"),
        };
        let mut file = self.file();
        let path = file.path();
        if fs::metadata(path).is_ok_and(|meta| meta.len() >= ROTATE_AT)
            && let Err(e) = fs::rename(path, path.with_extension("jsonl.1"))
        {
            tracing::error!(path = %path.display(), error = %e, "the audit log cannot begin a new file");
        }
        file.add(text);
    }

    /// Writes what waits for room on the disk.
    pub fn flush(&self) {
        self.file().flush();
    }

    /// Says what is wrong with the file, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.file().trouble()
    }
}
