//! What must survive a restart of the daemon.
//!
//! One file an update, replaced in one step at each change and removed when the update is over. A daemon that starts
//! and finds one knows that its predecessor died in the middle, and undoes what was left behind (DESIGN 11).
//!
//! The entry is there before the fork, or there is no fork; later ones are waited for only a little, since what is to be undone
//! can be seen in the process itself. A thread of its own writes them ([`JournalWriter`]).
//!
//! Nothing waits until the disk has it: a crash of the machine takes the processes along, so there is nothing to undo
//! after it, and a disk that is busy must not keep an update that is under way from its next step. What such a crash leaves
//! is an entry of an earlier boot, or an empty one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::journal_writer::{Content, JournalWriter};
use super::process::ProcessId;
use super::protocol::Ask;
use crate::lifecycle::Stage;
use crate::package::PackageInfo;

/// An update that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Version of this format.
    pub v: u32,
    pub update: u64,
    /// The stage when the entry was written.
    pub stage: Stage,
    /// The boot in which it was written, as the kernel calls it; empty where that is not known.
    #[serde(default)]
    pub boot: String,
    /// The process that was asked to be updated.
    pub target: ProcessId,
    /// Who asked.
    pub uid: u32,
    /// The process that serves. While it is `promoting`, either version may be in it; the process itself tells.
    pub leader: ProcessId,
    /// The other version, once it is born.
    pub follower: Option<ProcessId>,
    /// Where the log may have spilled to.
    pub spill_dir: PathBuf,
    /// Unix time of the request, milliseconds.
    pub asked_ms: u64,
    /// The new version, as it was asked for.
    #[serde(default = "itself")]
    pub to: String,
    /// The package that it is, where it is one.
    #[serde(default)]
    pub package: Option<PackageInfo>,
}

fn itself() -> String {
    Ask::ITSELF.to_owned()
}

impl JournalEntry {
    /// Returns whether the machine has been started anew since: then none of its processes is there any more.
    #[must_use]
    pub fn is_of_an_earlier_boot(&self) -> bool {
        let now = boot_id();
        !self.boot.is_empty() && !now.is_empty() && self.boot != now
    }
}

/// Returns the name of this boot, `random(4)`; empty where it cannot be read.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The version of the format that this daemon writes.
pub const FORMAT: u32 = 1;

/// How long an update that is to begin waits for its entry.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);
/// How long one that is under way does: everybody else waits meanwhile, and a disk that hangs keeps no update from its next step.
const STEP_WITHIN: Duration = Duration::from_millis(250);

/// The directory of entries.
#[derive(Debug)]
pub struct Journal {
    writer: JournalWriter,
}

impl Journal {
    /// Starts the thread that writes the entries.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Journal { writer: JournalWriter::start(dir) }
    }

    /// Says what is wrong with the directory, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let error = self.writer.trouble()?;
        let dir = self.writer.dir().display();
        Some(format!("the journal in {dir} cannot be written: {error}; no update is begun meanwhile"))
    }

    /// Writes the first entry of an update, before anything of it is done.
    ///
    /// # Errors
    ///
    /// Where the file system refuses it, or does not answer in time; then there is no entry, or there is none as soon as it answers.
    pub async fn begin(&self, entry: &JournalEntry) -> io::Result<()> {
        if self.writer.hangs_for(BEGIN_WITHIN) {
            return Err(late());
        }
        let (tell, told) = tokio::sync::oneshot::channel();
        self.want(entry, move |done| drop(tell.send(done)))?;
        match tokio::time::timeout(BEGIN_WITHIN, told).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(io::Error::other("the thread that writes it is gone")),
            Err(_) => {
                self.writer.want(entry.update, Content::Nothing, None);
                Err(late())
            }
        }
    }

    /// Writes an entry so that it survives the daemon; waits a little for that.
    ///
    /// # Errors
    ///
    /// Where the file system refuses it, or has not answered yet; an earlier entry then stays.
    pub fn write(&self, entry: &JournalEntry) -> io::Result<()> {
        self.step(|tell| self.want(entry, tell))
    }

    /// Removes the entry of an update that is over; waits a little for that.
    ///
    /// # Errors
    ///
    /// Where the file system refuses it, or has not answered yet; that it is not there is none.
    pub fn remove(&self, update: u64) -> io::Result<()> {
        self.step(|tell| {
            self.writer.want(update, Content::Nothing, Some(Box::new(tell)));
            Ok(())
        })
    }

    fn want(&self, entry: &JournalEntry, tell: impl FnOnce(io::Result<()>) + Send + 'static) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(entry)?;
        self.writer.want(entry.update, Content::Text(text), Some(Box::new(tell)));
        Ok(())
    }

    fn step(&self, want: impl FnOnce(Box<dyn FnOnce(io::Result<()>) + Send>) -> io::Result<()>) -> io::Result<()> {
        // It is known to hang: nobody waits for it again and again.
        let is_late = self.writer.hangs_for(STEP_WITHIN);
        let (tell, told) = crossbeam_channel::bounded(1);
        want(Box::new(move |done| drop(tell.send(done))))?;
        if is_late {
            return Err(late());
        }
        told.recv_timeout(STEP_WITHIN).unwrap_or_else(|_| Err(late()))
    }

    /// Reads what an earlier daemon left behind, oldest first, and what of it cannot be understood. Entries that never came
    /// to the disk are removed.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be read.
    pub fn read(&self) -> io::Result<(Vec<JournalEntry>, Vec<Unreadable>)> {
        let mut entries = vec![];
        let mut unreadable = vec![];
        for file in fs::read_dir(self.writer.dir())? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read_entry(&path) {
                Ok(Some(entry)) => entries.push(entry),
                Ok(None) => {
                    tracing::warn!(path = %path.display(), "journal: the machine crashed before this entry was on the disk");
                    if let Err(e) = fs::remove_file(&path) {
                        tracing::error!(path = %path.display(), error = %e, "journal: it cannot be removed");
                    }
                }
                Err(reason) => unreadable.push(Unreadable { path, reason }),
            }
        }
        entries.sort_by_key(|entry| entry.update);
        unreadable.sort_by(|one, other| one.path.cmp(&other.path));
        Ok((entries, unreadable))
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the disk has not answered in time")
}

/// An entry that cannot be understood. It is left where it is: somebody has to look at the service that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub path: PathBuf,
    pub reason: String,
}

impl Unreadable {
    /// Returns the number of the update, which is the name of its file.
    #[must_use]
    pub fn update(&self) -> Option<u64> {
        self.path.file_stem()?.to_str()?.parse().ok()
    }

    /// Says what is wrong, and what to do.
    #[must_use]
    pub fn trouble(&self) -> String {
        format!(
            "{} tells of an update that an earlier daemon did not end, and cannot be understood ({}); `mvedsuad doctor --target \
             PID` looks at the process that it was; then remove the file",
            self.path.display(),
            self.reason
        )
    }
}

/// Reads an entry; `None` where a crash of the machine has left the file without its content, which no other one does.
fn read_entry(path: &Path) -> Result<Option<JournalEntry>, String> {
    let text = fs::read(path).map_err(|e| e.to_string())?;
    if text.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let entry: JournalEntry = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    if entry.v == FORMAT {
        Ok(Some(entry))
    } else {
        Err(format!("its format is {}, this daemon knows {FORMAT}", entry.v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_in_order_and_strangers_are_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let journal = Journal::new(dir.path().to_owned());
        let entry = |update| JournalEntry {
            v: FORMAT,
            update,
            stage: Stage::Validating,
            boot: boot_id(),
            target: ProcessId { pid: 1, start_time: 2 },
            uid: 0,
            leader: ProcessId { pid: 1, start_time: 2 },
            follower: None,
            spill_dir: PathBuf::from("/nowhere"),
            asked_ms: 3,
            to: itself(),
            package: None,
        };
        for update in [12, 3] {
            journal.write(&entry(update)).expect("the directory is writable");
        }
        fs::write(dir.path().join("4.json"), "{}").expect("the directory is writable");
        // What crashes of the machine leave.
        fs::write(dir.path().join("5.json"), "").expect("the directory is writable");
        fs::write(dir.path().join("6.json"), [0; 100]).expect("the directory is writable");
        let (entries, unreadable) = journal.read().expect("the directory is there");
        assert_eq!(entries, [entry(3), entry(12)]);
        assert_eq!(unreadable.len(), 1);
        assert!(unreadable[0].path.ends_with("4.json"));
        assert_eq!(unreadable[0].update(), Some(4), "its number is used");
        assert!(!dir.path().join("5.json").exists() && !dir.path().join("6.json").exists(), "they say nothing");
        assert!(!entries[0].is_of_an_earlier_boot());
        assert!(JournalEntry { boot: "another".to_owned(), ..entry(7) }.is_of_an_earlier_boot());
        assert!(!JournalEntry { boot: String::new(), ..entry(7) }.is_of_an_earlier_boot(), "nobody knows");
        journal.remove(3).expect("it is there");
        journal.remove(3).expect("that it is gone is no error");
        assert_eq!(journal.read().expect("the directory is there").0, [entry(12)]);
    }
}
