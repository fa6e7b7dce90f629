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
        let file = dirs::append(path)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Lock(file))),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(EACH),
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
        let inherited = Lock::take(&path).expect("the file can be locked").expect("nobody has it");
        let executes = std::thread::spawn(move || {
            std::thread::sleep(EACH * 4);
            drop(inherited);
        });
        assert!(Lock::take(&path).expect("the file can be locked").is_some(), "it is given up soon");
        executes.join().expect("it does not panic");
    }
}
