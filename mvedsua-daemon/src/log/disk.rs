//! The thread at the disk: it alone touches the spill file, so that a disk that hangs holds up neither side of the log.
//!
//! It writes what the writer has handed over, and reads ahead of the reader. It starts with the first record that is spilled, and
//! ends with the reader, or when the writer is gone and everything was read back. A write that fails is tried again as long as
//! older records lie in the file: reading them back makes room. Where none do, what the disk does not take goes to the reader
//! from memory, so that nothing that was taken from the writer is lost.

use std::io;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::shared::{Loaded, Shared, State};
use super::spill::{self, CHUNK, Medium, Opener};

/// How many chunks are read ahead.
const AHEAD: usize = 2;
/// How soon a write that has failed is tried again, unless room was made before.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Starts the thread; hands the opener back where there can be none.
pub(super) fn start(shared: &Arc<Shared>, opener: Opener) -> Result<(), (Opener, io::Error)> {
    let (opener, shared) = (Arc::new(Mutex::new(Some(opener))), Arc::clone(shared));
    let take = |opener: &Mutex<Option<Opener>>| opener.lock().unwrap_or_else(PoisonError::into_inner).take();
    let given = Arc::clone(&opener);
    let started = std::thread::Builder::new().name("mvedsua-spill".into()).spawn(move || {
        if let Some(opener) = take(&given) {
            run(&shared, opener);
        }
    });
    match started {
        Ok(_) => Ok(()),
        Err(error) => match take(&opener) {
            Some(opener) => Err((opener, error)),
            None => Ok(()),
        },
    }
}

/// The file as the thread knows it.
struct SpillFile {
    opener: Opener,
    medium: Option<Arc<dyn Medium>>,
    /// Where frames begin that were not read back, and where the next one is written.
    start: u64,
    end: u64,
    /// What of the file counts as used: its frames, and what was read back where no hole can be made.
    used: u64,
    /// Frames that were taken from the writer and are not in the file, and when the last try to write them failed.
    pending: Vec<u8>,
    failed_at: Option<Instant>,
}

/// What is to be done next.
enum Job {
    Load,
    Write,
    Over,
}

fn run(shared: &Shared, opener: Opener) {
    let (pending, failed_at) = (vec![], None);
    let mut file = SpillFile { opener, medium: None, start: 0, end: 0, used: 0, pending, failed_at };
    loop {
        match next(shared, &mut file) {
            Job::Load => load(shared, &mut file),
            Job::Write => write(shared, &mut file),
            Job::Over => return,
        }
    }
}

/// Waits for something to do. From its return on the thread counts as busy.
fn next(shared: &Shared, file: &mut SpillFile) -> Job {
    let mut state = shared.lock();
    loop {
        if state.reader_gone {
            return Job::Over;
        }
        if file.pending.is_empty() {
            std::mem::swap(&mut file.pending, &mut state.outgoing);
        }
        let can_load = file.start < file.end && state.unreadable.is_none();
        // How long a write must wait, where there is one.
        let write_in = (!file.pending.is_empty())
            .then(|| file.failed_at.map_or(Duration::ZERO, |failed_at| TRY_AGAIN.saturating_sub(failed_at.elapsed())));
        let job = if can_load && state.loaded.len() < AHEAD {
            Some(Job::Load)
        } else {
            write_in.filter(Duration::is_zero).map(|_| Job::Write)
        };
        if let Some(job) = job {
            state.busy_since = Some(Instant::now());
            return job;
        }
        state = match write_in {
            Some(rest) => shared.work.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0,
            None if state.writer_gone && !can_load => return Job::Over,
            None => shared.work.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

/// Reads the next frames back, gives their space back, and hands them to the reader.
fn load(shared: &Shared, file: &mut SpillFile) {
    let loaded = file.load();
    let freed = match &loaded {
        Ok(_) => file.give_back(),
        Err(_) => 0,
    };
    shared.disk.fetch_sub(freed, SeqCst);
    let mut state = shared.lock();
    state.busy_since = None;
    match loaded {
        Ok(loaded) => state.loaded.push_back(loaded),
        Err(error) => state.unreadable = Some(error.to_string()),
    }
    tell(shared, state);
}

/// Writes what is pending. Afterwards nothing is, unless that failed and older records lie in the file.
fn write(shared: &Shared, file: &mut SpillFile) {
    let written = file.write();
    let length = file.pending.len() as u64;
    let mut state = shared.lock();
    state.busy_since = None;
    state.refused = written.as_ref().err().map(ToString::to_string);
    file.failed_at = written.is_err().then(Instant::now);
    if written.is_ok() {
        file.end += length;
        file.used += length;
        file.pending.clear();
    } else if file.start < file.end {
        return;
    } else {
        let frames = std::mem::take(&mut file.pending);
        let (count, _) = spill::whole_frames(&frames);
        state.loaded.push_back(Loaded { frames, count });
        shared.disk.fetch_sub(length, SeqCst);
    }
    state.unwritten -= length;
    tell(shared, state);
}

/// Wakes whoever waits for what has just become so.
fn tell(shared: &Shared, mut state: std::sync::MutexGuard<'_, State>) {
    let is_there = !state.loaded.is_empty() || state.unreadable.is_some();
    let wake = is_there && std::mem::take(&mut state.reader_waits);
    drop(state);
    if wake {
        shared.wake_reader();
    }
    shared.wake_writer();
}

impl SpillFile {
    fn medium(&mut self) -> io::Result<Arc<dyn Medium>> {
        if let Some(medium) = &self.medium {
            return Ok(Arc::clone(medium));
        }
        let medium = (self.opener)()?;
        Ok(Arc::clone(self.medium.insert(medium)))
    }

    /// A write that fails half-way leaves bytes behind the end, where nobody reads and the next write goes.
    fn write(&mut self) -> io::Result<()> {
        let medium = self.medium()?;
        medium.write_at(self.end, &self.pending)
    }

    /// Reads whole frames from the start on, at least one.
    fn load(&mut self) -> io::Result<Loaded> {
        let torn = || io::Error::other("a frame reaches beyond the end of the file");
        let medium = self.medium()?;
        let most = self.end - self.start;
        let mut want = CHUNK.min(most);
        loop {
            let mut frames = vec![0; want as usize];
            medium.read_at(self.start, &mut frames)?;
            let (count, length) = spill::whole_frames(&frames);
            if count > 0 {
                frames.truncate(length);
                self.start += length as u64;
                return Ok(Loaded { frames, count });
            }
            let alone = spill::frame_len(&frames).ok_or_else(torn)? as u64;
            if alone <= want || alone > most {
                return Err(torn());
            }
            want = alone;
        }
    }

    /// Gives the space of what was read back to the file system; returns how much does not count any more.
    fn give_back(&mut self) -> u64 {
        let Some(medium) = &self.medium else { return 0 };
        let kept = self.end - self.start;
        let is_free = if kept == 0 {
            let is_empty = medium.reset().is_ok();
            if is_empty {
                (self.start, self.end) = (0, 0);
            }
            is_empty
        } else {
            // Where holes cannot be made the space comes back when the file is worked off.
            medium.discard(0, self.start).is_ok()
        };
        let used = if is_free { kept } else { self.used };
        std::mem::replace(&mut self.used, used) - used
    }
}
