//! One daemon for one pair of directories: a lock that the daemon holds as long as it lives (`flock(2)`).

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::dirs;

/// How long a daemon waits for a lock that is held. `flock` belongs to the open file: a process that a killed daemon was just
/// about to begin holds it as well, until it executes its program, which closes the file.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it looks meanwhile.
const EACH: Duration = Duration::from_millis(5);

/// The lock; it is free again when this is dropped, whoever else has inherited the file.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock; `None` where another daemon has it.
    ///
    /// # Errors
    ///
    /// Where the file cannot be opened or locked.
    pub(super) fn take(path: &Path) -> io::Result<Option<Lock>> {
        let deadline = Instant::now() + PATIENCE;
        Lock::take_while(path, || {
            std::thread::sleep(EACH);
            Instant::now() < deadline
        })
    }

    /// Tries to take the lock as long as `waits` says so, which is asked after each try in vain.
    fn take_while(path: &Path, mut waits: impl FnMut() -> bool) -> io::Result<Option<Lock>> {
        let file = dirs::append(path)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Lock(file))),
                Err(TryLockError::WouldBlock) if waits() => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whatever fails here ends with the process.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a child has it between its birth and the program that it executes.
    #[test]
    fn who_has_inherited_the_file_does_not_hold_the_lock() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("lock");
        let first = Lock::take(&path).expect("the file can be locked").expect("nobody has it");
        let inherited = first.0.try_clone().expect("there is room");
        drop(first);
        let second = Lock::take(&path).expect("the file can be locked").expect("its holder is gone");
        assert!(Lock::take(&path).expect("the file can be locked").is_none(), "the second has it");
        drop((second, inherited));
    }

    #[test]
    fn a_daemon_that_has_just_been_killed_is_waited_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("lock");
        let mut inherited = Lock::take(&path).expect("the file can be locked");
        assert!(inherited.is_some(), "nobody has it");
        let mut tries = 0;
        let second = Lock::take_while(&path, || {
            tries += 1;
            if tries == 3 {
                // Its child executes its program.
                inherited = None;
            }
            true
        });
        assert!(second.expect("the file can be locked").is_some());
        assert_eq!(tries, 3, "it is taken as soon as it is free");
    }
}
