//! The events on the disk, so that a later daemon goes on with their numbers. A thread of its own writes them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::Event;
use crate::control::lines::{self, Lines};

/// The file begins anew at this size; the one before it is kept.
const ROTATE_AT: u64 = 4 << 20;
/// How many events wait for the thread; with a disk that hangs the rest is not written.
const MOST_WAITING: usize = 1024;
/// How often what waits for room on the disk is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What the files of earlier daemons held.
pub(super) struct Kept {
    pub(super) entries: Vec<Event>,
    pub(super) troubles: Vec<String>,
}

/// Reads the file and the one before it.
pub(super) fn read(path: &Path) -> Kept {
    let parse = |line: &[u8]| serde_json::from_slice::<Event>(line).map_err(|e| e.to_string());
    let (earlier, now) = (lines::read(&before(path), parse), lines::read(path, parse));
    let troubles = earlier.trouble.into_iter().chain(now.trouble).collect();
    Kept { entries: earlier.entries.into_iter().chain(now.entries).collect(), troubles }
}

fn before(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

enum Job {
    Line(String),
    /// Answered when what came before it is written, or waits for room.
    Flush(Sender<()>),
}

/// The thread that writes the file.
#[derive(Debug)]
pub(super) struct File {
    jobs: Option<Sender<Job>>,
    told: Arc<Told>,
}

/// What the thread tells of itself.
#[derive(Debug, Default)]
struct Told {
    /// Events that came to nothing since the thread did not take them.
    lost: AtomicU64,
    /// Lines that wait in memory for room on the disk.
    waiting: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl File {
    /// Starts the thread.
    pub(super) fn start(path: PathBuf) -> io::Result<File> {
        let (jobs, inbox) = bounded(MOST_WAITING);
        let told = Arc::new(Told::default());
        let teller = Arc::clone(&told);
        std::thread::Builder::new()
            .name("events-file".to_owned())
            .spawn(move || write(&inbox, Lines::new(path), &teller))?;
        Ok(File { jobs: Some(jobs), told })
    }

    /// One that writes nothing.
    pub(super) fn none() -> File {
        File { jobs: None, told: Arc::default() }
    }

    pub(super) fn add(&self, event: &Event) {
        let line = serde_json::to_string(event);
        let taken = match (&self.jobs, line) {
            (Some(jobs), Ok(line)) => jobs.try_send(Job::Line(line)).is_ok(),
            (None, _) | (_, Err(_)) => false,
        };
        if !taken {
            self.told.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn flush(&self, within: Duration) {
        let Some(jobs) = &self.jobs else { return };
        let (done, wait) = bounded(1);
        match jobs.send_timeout(Job::Flush(done), within) {
            Ok(()) => drop(wait.recv_timeout(within)),
            Err(_) => tracing::warn!("the file of events is not written in time"),
        }
    }

    pub(super) fn trouble(&self) -> Option<String> {
        let lost = self.lost_in_queue();
        let told = self.told.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let behind = || format!("the file of events is not written in time; it lacks {lost} of them");
        told.or_else(|| (lost > 0).then(behind))
    }

    fn lost_in_queue(&self) -> u64 {
        self.told.lost.load(Ordering::Relaxed)
    }

    /// Returns how many events the file lacks.
    pub(super) fn lost(&self) -> u64 {
        self.lost_in_queue() + self.told.waiting.load(Ordering::Relaxed)
    }
}

/// Writes until nobody has anything to write any more.
fn write(inbox: &Receiver<Job>, mut lines: Lines, told: &Told) {
    loop {
        match inbox.recv_timeout(TRY_AGAIN) {
            Ok(Job::Line(line)) => {
                let path = lines.path();
                if fs::metadata(path).is_ok_and(|meta| meta.len() >= ROTATE_AT)
                    && let Err(e) = fs::rename(path, before(path))
                {
                    tracing::error!(path = %path.display(), error = %e, "the file of events cannot begin anew");
                }
                lines.add(line);
            }
            Ok(Job::Flush(done)) => {
                // Who asked may have given up.
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => lines.flush(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        told.waiting.store(lines.waiting(), Ordering::Relaxed);
        *told.trouble.lock().unwrap_or_else(PoisonError::into_inner) = lines.trouble();
    }
}
