//! A disk that is as small as a test wants it, and full when it says so; and one that hangs when it says so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How much a file of such a disk takes at once: what is left of its last part can be written on a full disk.
const PAGE: u64 = 4096;

/// A tiny file system over a folder, unmounted on drop.
#[derive(Debug)]
pub struct TinyDisk(PathBuf);

impl TinyDisk {
    /// Mounts a disk of `size`, as `mount(8)` reads it, over a folder, which is made.
    #[must_use]
    pub fn over(dir: &Path, size: &str) -> TinyDisk {
        fs::create_dir_all(dir).expect("a folder can be made");
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "mvedsua-test"]).arg(dir).status();
        assert!(mount.expect("mount is installed").success(), "a tmpfs can be mounted");
        TinyDisk(dir.to_owned())
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Fills the disk; nothing can be added to the files that are there, of which each line ends with a newline.
    pub fn fill(&self) {
        let full = |error: io::Error| if error.kind() == ErrorKind::StorageFull { Ok(()) } else { Err(error) };
        let mut filler = File::create(self.filler()).expect("there is room for a name");
        let mut filled = Ok(());
        while filled.is_ok() {
            filled = filler.write_all(&[0; PAGE as usize]);
        }
        filled.or_else(full).expect("it can be filled");
        // Last, so that nobody gets another part meanwhile.
        for entry in fs::read_dir(&self.0).expect("it can be read").flatten() {
            let meta = entry.metadata().expect("it is there");
            if meta.is_file() && meta.len() % PAGE != 0 {
                let mut file = OpenOptions::new().append(true).open(entry.path()).expect("it can be written");
                let rest = (PAGE - meta.len() % PAGE) as usize;
                // Somebody else may have written there meanwhile.
                let written = file.write_all(&vec![b'\n'; rest]);
                written.or_else(full).expect("its last part has room");
            }
        }
    }

    /// Makes room again.
    pub fn empty(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status().is_ok_and(|status| status.success());
        let lazily = || Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted && lazily().is_ok() && !std::thread::panicking() {
            panic!("{} was still in use", self.0.display());
        }
    }
}

/// A file system over a folder that can be frozen: whoever writes then waits, and no signal ends that. Thawed and unmounted on
/// drop.
#[derive(Debug)]
pub struct FreezableDisk {
    dir: PathBuf,
    /// Holds the file system.
    image: tempfile::NamedTempFile,
}

impl FreezableDisk {
    /// Mounts one over a folder, which is made.
    #[must_use]
    pub fn over(dir: &Path) -> FreezableDisk {
        fs::create_dir_all(dir).expect("a folder can be made");
        let image = tempfile::NamedTempFile::new().expect("a file can be made");
        image.as_file().set_len(32 << 20).expect("it can be that long");
        run(Command::new("mkfs.ext4").arg("-q").arg(image.path()));
        run(Command::new("mount").args(["-o", "loop"]).arg(image.path()).arg(dir));
        FreezableDisk { dir: dir.to_owned(), image }
    }

    /// From now on whoever writes waits.
    pub fn freeze(&self) {
        run(Command::new("fsfreeze").arg("-f").arg(&self.dir));
    }

    /// Goes on with what waits.
    pub fn thaw(&self) {
        run(Command::new("fsfreeze").arg("-u").arg(&self.dir));
    }
}

impl Drop for FreezableDisk {
    fn drop(&mut self) {
        // It may not be frozen.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.dir).stderr(std::process::Stdio::null()).status();
        let unmounted = Command::new("umount").arg(&self.dir).status().is_ok_and(|status| status.success());
        let lazily = || Command::new("umount").arg("-l").arg(&self.dir).status();
        if !unmounted && lazily().is_ok() && !std::thread::panicking() {
            panic!("{} was still in use ({})", self.dir.display(), self.image.path().display());
        }
    }
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
}
