//! What must survive a restart of the daemon.
//!
//! One file an update, replaced in one step at each change and removed when the update is over. A daemon that starts
//! and finds one knows that its predecessor died in the middle, and undoes what was left behind (DESIGN 11).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::dirs;
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
    /// The process that was asked to be updated.
    pub target: ProcessId,
    /// Who asked.
    pub uid: u32,
    /// The process that served when the entry was written. While it is `promoting`, either of the two may serve.
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

/// The version of the format that this daemon writes.
pub const FORMAT: u32 = 1;

/// The directory of entries.
#[derive(Clone, Debug)]
pub struct Journal {
    dir: PathBuf,
}

impl Journal {
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Journal { dir }
    }

    fn path(&self, update: u64) -> PathBuf {
        self.dir.join(format!("{update}.json"))
    }

    /// Writes an entry so that it survives a crash of the machine.
    ///
    /// # Errors
    ///
    /// Where the file system refuses it; an earlier entry then stays.
    pub fn write(&self, entry: &JournalEntry) -> io::Result<()> {
        dirs::replace(&self.path(entry.update), &serde_json::to_vec_pretty(entry)?)
    }

    /// Removes the entry of an update that is over.
    ///
    /// # Errors
    ///
    /// Where the file system refuses it; that it is not there is none.
    pub fn remove(&self, update: u64) -> io::Result<()> {
        match fs::remove_file(self.path(update)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Reads what an earlier daemon left behind, oldest first, and what of it cannot be understood.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be read.
    pub fn read(&self) -> io::Result<(Vec<JournalEntry>, Vec<Unreadable>)> {
        let mut entries = vec![];
        let mut unreadable = vec![];
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read_entry(&path) {
                Ok(entry) => entries.push(entry),
                Err(reason) => unreadable.push(Unreadable { path, reason }),
            }
        }
        entries.sort_by_key(|entry| entry.update);
        Ok((entries, unreadable))
    }
}

/// An entry that cannot be understood; it is left where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub path: PathBuf,
    pub reason: String,
}

fn read_entry(path: &Path) -> Result<JournalEntry, String> {
    let text = fs::read(path).map_err(|e| e.to_string())?;
    let entry: JournalEntry = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    if entry.v == FORMAT { Ok(entry) } else { Err(format!("its format is {}, this daemon knows {FORMAT}", entry.v)) }
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
        let (entries, unreadable) = journal.read().expect("the directory is there");
        assert_eq!(entries, [entry(3), entry(12)]);
        assert_eq!(unreadable.len(), 1);
        assert!(unreadable[0].path.ends_with("4.json"));
        journal.remove(3).expect("it is there");
        journal.remove(3).expect("that it is gone is no error");
        assert_eq!(journal.read().expect("the directory is there").0, [entry(12)]);
    }
}
