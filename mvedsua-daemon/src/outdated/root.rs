//! Reading files as a process sees them.
//!
//! A container or a unit with mounts of its own has other files under the same paths. Its links are followed inside its root
//! (`openat2(2)`), so that no link leads to a file of this machine, and nothing but regular files is opened.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

/// The root directory of a process.
#[derive(Debug)]
pub(crate) struct Root {
    dir: OwnedFd,
    /// Its path as this process sees it; `/` in a mount namespace of its own.
    name: PathBuf,
    /// Device and inode.
    pub(super) id: (u64, u64),
}

impl Root {
    /// Opens the root of a process.
    pub(crate) fn of(pid: i32) -> io::Result<Root> {
        let link = PathBuf::from(format!("/proc/{pid}/root"));
        let dir = rustix::fs::openat(CWD, &link, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let name = fs::read_link(&link)?;
        let stat = rustix::fs::fstat(&dir)?;
        Ok(Root { dir, name, id: (stat.st_dev, stat.st_ino) })
    }

    /// Says whether it is this process's own.
    pub(super) fn is_own(&self) -> bool {
        fs::metadata("/").is_ok_and(|meta| (meta.dev(), meta.ino()) == self.id)
    }

    /// Returns where a path of the process's map lies in the root; the map tells paths from where the reader stands.
    pub(crate) fn inside(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.name) {
            Ok(rest) => Path::new("/").join(rest),
            // Mapped before the root was changed, or through a descriptor from elsewhere.
            Err(_) => path.to_owned(),
        }
    }

    /// Opens a regular file for reading.
    pub(crate) fn open(&self, path: &Path) -> io::Result<(File, Metadata)> {
        // A pipe would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(rustix::fs::openat2(&self.dir, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?);
        let meta = file.metadata()?;
        if meta.is_file() { Ok((file, meta)) } else { Err(io::Error::other("it is no regular file")) }
    }

    /// Reads a file of at most `limit` bytes.
    pub(super) fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let (file, _) = self.open(path)?;
        read_all(file, limit)
    }

    /// Returns the names in a directory, sorted; none where it cannot be read.
    pub(super) fn names(&self, path: &Path) -> Vec<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let Ok(dir) = rustix::fs::openat2(&self.dir, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) else {
            return vec![];
        };
        let entries = fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd())).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// Reads a file of at most `limit` bytes.
pub(super) fn read_all(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    let len = file.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(len).is_ok_and(|len| len <= limit) {
        Ok(bytes)
    } else {
        Err(io::Error::other(format!("it has more than {limit} bytes")))
    }
}

/// Returns a path by which an open file can be opened again.
pub(super) fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_of_the_map_is_found_in_a_changed_root() {
        let own = Root::of(std::process::id().cast_signed()).expect("this process runs");
        assert!(own.is_own());
        let changed = Root { name: PathBuf::from("/srv/x"), ..own };
        assert_eq!(changed.inside(Path::new("/srv/x/bin/y")), Path::new("/bin/y"));
        assert_eq!(changed.inside(Path::new("/srv/xyz/y")), Path::new("/srv/xyz/y"));
    }

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("file"), "inside").expect("it is ours");
        symlink("/file", dir.path().join("absolute")).expect("it is ours");
        symlink("../../../../etc/passwd", dir.path().join("out")).expect("it is ours");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Root {
            dir: rustix::fs::openat(CWD, dir.path(), flags, Mode::empty()).expect("it is there"),
            name: dir.path().to_owned(),
            id: (0, 0),
        };
        assert_eq!(root.read(Path::new("/absolute"), 100).expect("it is inside"), b"inside");
        assert!(root.read(Path::new("/absolute"), 3).is_err());
        assert!(root.open(Path::new("/out")).is_err());
        assert!(root.open(Path::new("/")).is_err());
        assert_eq!(root.names(Path::new("/")), ["absolute", "file", "out"]);
        assert!(!root.is_own());
    }
}
