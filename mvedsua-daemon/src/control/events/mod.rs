//! The stream of everything that happens: numbered, kept in a ring, and in a file so that a later daemon goes on with it.
//!
//! ```text
//!  daemon, requests, drivers ──publish──► ring (the last [`ring::KEEP`]) ──► clients of `events`, webhooks
//!                                           │    │
//!                                           │    └──► what all of them add up to, for the metrics ([`counts`])
//!                                           └──► a thread of its own ──► events.jsonl
//! ```
//!
//! To publish waits for nobody. Whoever reads has a number up to which it has read, and asks for what came after; a reader that
//! is too slow finds that the ring has gone on without it, and is told what it missed. The file is written by a thread of its
//! own: a disk that hangs holds nothing else up.

pub(crate) mod counts;
mod event;
mod file;
mod ring;
pub(super) mod stream;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use self::counts::Counts;
pub(crate) use self::ring::Batch;
use self::ring::Ring;
use super::clock;
use super::line_writer::LineWriter;

pub(crate) use self::event::KINDS;
pub use self::event::{Event, What};

/// Whom an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) update: Option<u64>,
    /// The process that was asked to be observed or updated.
    pub(crate) pid: Option<i32>,
    /// What the process is called.
    pub(crate) target: Option<String>,
    /// The user whose process it is; `None` is the daemon itself, which is root's.
    pub(crate) owner: Option<u32>,
}

/// The stream.
#[derive(Debug)]
pub(crate) struct Events {
    ring: Mutex<Ring>,
    counts: Mutex<Counts>,
    /// The number of the newest event.
    newest: watch::Sender<u64>,
    file: LineWriter,
    /// What was wrong with the file when it was read.
    found: Vec<String>,
}

impl Events {
    /// Reads what an earlier daemon has kept, and begins to keep what happens from now on.
    pub(crate) fn open(path: &Path) -> Events {
        let kept = file::read(path);
        let file = file::start(path.to_owned());
        let ring = Ring::of(kept.entries);
        let newest = watch::Sender::new(ring.newest());
        Events { ring: Mutex::new(ring), counts: Mutex::default(), newest, file, found: kept.troubles }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what has happened.
    pub(crate) fn publish(&self, subject: &Subject, what: What) {
        let Subject { update, pid, target, owner } = subject.clone();
        let mut ring = self.ring();
        let seq = ring.newest() + 1;
        let event = Arc::new(Event { seq, at_ms: clock::now_ms(), update, pid, target, owner, what });
        ring.add(Arc::clone(&event));
        // While the ring is locked, so that the file has them in their order.
        match serde_json::to_string(&*event) {
            Ok(line) => self.file.add(line),
            Err(e) => tracing::error!(error = %e, seq, "an event cannot be written down"),
        }
        drop(ring);
        self.counts().heed(&event);
        self.newest.send_replace(seq);
    }

    /// Returns up to `most` events after a number, and what of those is not kept any more.
    pub(crate) fn after(&self, seq: u64, most: usize) -> Batch {
        self.ring().after(seq, most)
    }

    /// Returns the number of the newest event, and tells of newer ones.
    pub(crate) fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Returns what the events of this daemon add up to.
    pub(crate) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what is wrong with the file, if anything is.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.found.iter().cloned().chain(self.file.trouble()).collect()
    }

    /// Returns how many events the file lacks.
    pub(crate) fn unwritten(&self) -> u64 {
        self.file.lacks()
    }

    /// Waits until the file has what has happened so far, or that waits for room on the disk, or the deadline has passed.
    pub(crate) fn flush(&self, deadline: Instant) {
        self.file.flush(deadline);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn a_later_daemon_goes_on_with_the_numbers() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("events.jsonl");
        let subject = Subject { update: Some(3), pid: Some(7), target: Some("redis".to_owned()), owner: Some(5) };
        {
            let events = Events::open(&path);
            events.publish(&subject, What::Detached {});
            events.publish(&Subject::default(), What::DaemonEnds {});
            assert_eq!(*events.newest().borrow(), 2);
            events.flush(Instant::now() + LIMIT);
        }
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"{\"seq\":3,\n"))
            .expect("it is ours");
        let events = Events::open(&path);
        events.publish(&subject, What::Detached {});
        let batch = events.after(0, 10);
        assert_eq!(batch.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(batch.missed, None);
        assert_eq!(batch.events[0].target.as_deref(), Some("redis"));
        assert!(events.troubles().iter().any(|trouble| trouble.contains("cannot be understood")), "half a line");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_and_holds_nobody_up() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let events = Events::open(&dir.path().join("missing").join("events.jsonl"));
        for _ in 0..3000 {
            events.publish(&Subject::default(), What::DaemonEnds {});
        }
        events.flush(Instant::now() + LIMIT);
        assert!(
            events.troubles().iter().any(|trouble| trouble.contains("cannot be written")),
            "{:?}",
            events.troubles()
        );
        assert_eq!(events.after(2990, 100).events.len(), 10, "they are in memory");
        assert!(events.unwritten() > 0);
    }
}
