//! The audit log: who asked for what, and what came of it.
//!
//! One JSON object a line, written before the answer goes out, unless the disk hangs; then `status` says so. Nothing of a payload is ever in it.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::line_writer::{Anew, LineWriter, Written};
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
    file: LineWriter,
}

impl Audit {
    /// Starts the thread that writes the file.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Audit { file: LineWriter::start("audit-file", path, Anew::AtBytes(ROTATE_AT)) }
    }

    /// Writes one line; where that fails it waits, and the daemon's own log and `status` say so. Who answers waits for what is
    /// returned; the daemon's own steps do not.
    pub fn write(&self, mut line: Line) -> Written {
        line.at = clock::show_ms(clock::now_ms());
        let text = serde_json::to_string(&line).unwrap_or_else(|e| {
            tracing::error!(error = %e, ?line, "a line of the audit log cannot be written down");
            String::from("{}")
        });
        self.file.add_and_tell(text)
    }

    /// Waits until the file has everything, or everything waits for room on the disk, or the deadline has passed.
    pub fn flush(&self, deadline: Instant) {
        self.file.flush(deadline);
    }

    /// Says what is wrong with the file, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.file.trouble()
    }
}
