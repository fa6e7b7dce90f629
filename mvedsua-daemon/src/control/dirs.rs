//! Where the daemon keeps its files.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, set_permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The two directories of a daemon; two daemons with different ones know nothing of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// What lives as long as the daemon: socket and lock.
    pub runtime: PathBuf,
    /// What outlives it: journal, history, audit log, events, spill files.
    pub state: PathBuf,
    /// Who may do what.
    pub config: PathBuf,
    /// Packages by name, in a directory for each program.
    pub updates: PathBuf,
}

impl Dirs {
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }

    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.runtime.join("daemon.lock")
    }

    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.state.join("journal")
    }

    #[must_use]
    pub fn history(&self) -> PathBuf {
        self.state.join("history.jsonl")
    }

    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.state.join("audit.jsonl")
    }

    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.state.join("events.jsonl")
    }

    #[must_use]
    pub fn spill(&self) -> PathBuf {
        self.state.join("spill")
    }

    /// Where packages that come as archives are unpacked.
    #[must_use]
    pub fn packages(&self) -> PathBuf {
        self.state.join("packages")
    }

    #[must_use]
    pub fn daemon_log(&self) -> PathBuf {
        self.state.join("daemon.log")
    }

    /// Creates what is missing. Users may reach the socket's directory; the rest is the daemon's own, but for packages
    /// that were unpacked: the programs that load them run as any user, so the way there may be passed, not read.
    ///
    /// # Errors
    ///
    /// Where a directory cannot be created; the error names it.
    pub fn create(&self) -> io::Result<()> {
        let dirs = [
            (&self.runtime, 0o755),
            (&self.state, 0o711),
            (&self.packages(), 0o711),
            (&self.journal(), 0o700),
            (&self.spill(), 0o700),
        ];
        for (dir, mode) in dirs {
            let create = || {
                DirBuilder::new().recursive(true).mode(mode).create(dir)?;
                // The state directory is there already where the client has put the daemon's log into it.
                if *dir == self.state { set_permissions(dir, Permissions::from_mode(mode)) } else { Ok(()) }
            };
            create().map_err(|e| io::Error::new(e.kind(), format!("create the directory {}: {e}", dir.display())))?;
        }
        Ok(())
    }
}

/// Opens a file of the daemon for appending; nobody else may read it.
///
/// # Errors
///
/// Those of `open(2)`.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Replaces a file in one step: if the daemon dies it holds either the old content or the new. Nothing waits for the disk, so
/// that after a crash of the machine it may be empty.
///
/// # Errors
///
/// Where the new content cannot be written; the old one then stays.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o600)).tempfile_in(dir)?;
    file.write_all(content)?;
    file.persist(path)?;
    Ok(())
}
