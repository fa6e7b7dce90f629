//! The audit log: who asked for what, and what came of it.
//!
//! One JSON object a line, written before the answer goes out. Nothing of a payload is ever in it.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::{Code, clock, dirs};
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
    path: PathBuf,
    /// Keeps lines whole and rotation single.
    gate: Mutex<()>,
}

impl Audit {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Audit { path, gate: Mutex::new(()) }
    }

    /// Writes one line; where that fails, the daemon's own log says so.
    pub fn write(&self, mut line: Line) {
        line.at = clock::show_ms(clock::now_ms());
        if let Err(e) = self.try_write(&line) {
            tracing::error!(path = %self.path.display(), error = %e, ?line, "the audit log cannot be written");
        }
    }

    fn try_write(&self, line: &Line) -> io::Result<()> {
        let _guard = self.gate.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if fs::metadata(&self.path).is_ok_and(|meta| meta.len() >= ROTATE_AT) {
            fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
        }
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        dirs::append(&self.path)?.write_all(text.as_bytes())
    }
}
