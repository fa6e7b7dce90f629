//! The thread that brings the journal to the disk.
//!
//! It knows what each entry is to be, not what was asked for one after the other: what a disk that hangs has not taken is
//! replaced by what is wanted since, so that there is never more to do than there are updates. Who waits for an entry is told
//! when that, or what has replaced it, is written.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::busy::Busy;
use super::dirs;

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// It is there and holds this.
    Text(Vec<u8>),
    /// It is not there.
    Nothing,
}

/// Who is told when an entry is written, or cannot be.
pub(super) type Told = Box<dyn FnOnce(io::Result<()>) + Send>;

struct Wanted {
    content: Content,
    told: Vec<Told>,
}

#[derive(Default)]
struct State {
    /// By the number of the update.
    wanted: BTreeMap<u64, Wanted>,
    /// Why the last change failed.
    error: Option<String>,
    /// Nobody wants anything any more.
    is_over: bool,
}

/// What the thread shares with those who want something.
struct Desk {
    dir: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    busy: Busy,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings entries to the disk.
pub(super) struct JournalWriter(Arc<Desk>);

impl std::fmt::Debug for JournalWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalWriter").field("dir", &self.0.dir).finish_non_exhaustive()
    }
}

impl JournalWriter {
    /// Starts the thread.
    pub(super) fn start(dir: PathBuf) -> JournalWriter {
        let desk = Arc::new(Desk { dir, state: Mutex::default(), changed: Condvar::new(), busy: Busy::default() });
        let writer = Arc::clone(&desk);
        let started = std::thread::Builder::new().name("journal-file".to_owned()).spawn(move || write(&writer));
        if let Err(e) = started {
            let mut state = desk.state();
            state.error = Some(format!("there is no thread for it: {e}"));
            state.is_over = true;
        }
        JournalWriter(desk)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Says what an entry is to be; who is told may be called at once, or from the thread.
    pub(super) fn want(&self, update: u64, content: Content, told: Option<Told>) {
        let mut state = self.0.state();
        if state.is_over {
            let why = state.error.clone().unwrap_or_default();
            drop(state);
            told.into_iter().for_each(|told| told(Err(io::Error::other(why.clone()))));
            return;
        }
        let wanted = state.wanted.entry(update).or_insert(Wanted { content: Content::Nothing, told: vec![] });
        wanted.content = content;
        wanted.told.extend(told);
        drop(state);
        self.0.changed.notify_one();
    }

    /// Returns whether the disk has not answered for at least so long.
    pub(super) fn hangs_for(&self, long: Duration) -> bool {
        self.0.busy.for_at_least(long)
    }

    /// Says why nothing comes to the disk, where that is so.
    pub(super) fn trouble(&self) -> Option<String> {
        self.0.busy.trouble().or_else(|| self.0.state().error.clone())
    }
}

impl Drop for JournalWriter {
    fn drop(&mut self) {
        self.0.state().is_over = true;
        self.0.changed.notify_one();
    }
}

fn path(dir: &Path, update: u64) -> PathBuf {
    dir.join(format!("{update}.json"))
}

/// Writes until everything is written and nobody wants anything any more.
fn write(desk: &Desk) {
    while let Some((update, Wanted { content, told })) = next(desk) {
        let done = desk.busy.during(|| bring(&path(&desk.dir, update), &content));
        heed(desk, &done);
        for told in told {
            told(copy(&done));
        }
    }
}

/// Returns what is to be done next; `None` when all is over.
fn next(desk: &Desk) -> Option<(u64, Wanted)> {
    let mut state = desk.state();
    loop {
        if let Some(wanted) = state.wanted.pop_first() {
            return Some(wanted);
        }
        if state.is_over {
            return None;
        }
        state = desk.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

fn bring(path: &Path, content: &Content) -> io::Result<()> {
    match content {
        Content::Text(text) => dirs::replace(path, text),
        Content::Nothing => match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(()) | Err(_) => Ok(()),
        },
    }
}

/// Remembers what came of a change, and tells the log when that is another thing than before.
fn heed(desk: &Desk, done: &io::Result<()>) {
    let now = done.as_ref().err().map(ToString::to_string);
    let before = std::mem::replace(&mut desk.state().error, now.clone());
    match (now, before) {
        (Some(now), before) if before.as_ref() != Some(&now) => {
            tracing::error!(dir = %desk.dir.display(), error = now, "the journal cannot be written");
        }
        (None, Some(_)) => tracing::warn!(dir = %desk.dir.display(), "the journal can be written again"),
        (Some(_), _) | (None, None) => {}
    }
}

fn copy(done: &io::Result<()>) -> io::Result<()> {
    match done {
        Ok(()) => Ok(()),
        Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
    }
}
