//! The thread behind a file of lines: a disk that hangs holds up nobody but the thread.
//!
//! What is added waits in a bounded queue. What the queue does not take is lost to the file, counted, and told in `status`; what
//! the disk does not take for want of room waits in memory, see [`Lines`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tokio::sync::oneshot;

use super::busy::Busy;
use super::lines::Lines;

/// How many lines wait for the thread.
const MOST_WAITING: usize = 1024;
/// How often what waits for room on the disk is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long an answer waits until what it says is written down.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// When a file begins anew; the one before it is kept beside it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anew {
    /// When it has this size.
    AtBytes(u64),
    /// When it has so many lines; it has some now.
    AtLines { most: usize, now: usize },
}

/// Returns the file that was full before this one.
pub(super) fn before(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

enum Job {
    /// A line, and who waits until it is written, or waits for room.
    Line(String, Option<oneshot::Sender<()>>),
    /// Answered when what came before it is written, or waits for room.
    Flush(Sender<()>),
}

/// Adds lines to a file.
#[derive(Debug)]
pub(super) struct LineWriter {
    path: PathBuf,
    jobs: Option<Sender<Job>>,
    told: Arc<Told>,
}

/// What the thread tells of itself.
#[derive(Debug, Default)]
struct Told {
    /// Lines that the queue did not take.
    lost: AtomicU64,
    /// Lines that wait in memory for room on the disk.
    waiting: AtomicU64,
    trouble: Mutex<Option<String>>,
    busy: Busy,
}

impl Told {
    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// Comes true when a line is written.
#[derive(Debug)]
pub struct Written(Option<oneshot::Receiver<()>>);

impl Written {
    /// Waits until the line is in the file, or waits for room on the disk; not for long where the disk hangs.
    pub(super) async fn in_time(self) {
        if let Some(written) = self.0 {
            // What is late is told by the file's trouble.
            let _ = tokio::time::timeout(ANSWER_WITHIN, written).await;
        }
    }
}

impl LineWriter {
    /// Starts the thread.
    pub(super) fn start(thread: &str, path: PathBuf, anew: Anew) -> LineWriter {
        let (jobs, inbox) = bounded(MOST_WAITING);
        let told = Arc::new(Told::default());
        let (teller, lines) = (Arc::clone(&told), Lines::new(path.clone()));
        let started = std::thread::Builder::new()
            .name(thread.to_owned())
            .spawn(move || write(&inbox, File { lines, anew }, &teller));
        let jobs = match started {
            Ok(_) => Some(jobs),
            Err(e) => {
                told.set_trouble(Some(format!("{} cannot be written: there is no thread for it: {e}", path.display())));
                None
            }
        };
        LineWriter { path, jobs, told }
    }

    /// Adds a line, without its newline. Waits for nothing.
    pub(super) fn add(&self, line: String) {
        self.send(Job::Line(line, None));
    }

    /// Adds a line, and returns what tells that it is written.
    pub(super) fn add_and_tell(&self, line: String) -> Written {
        let (done, written) = oneshot::channel();
        let is_taken = self.send(Job::Line(line, Some(done)));
        // Nobody waits again and again for a disk that is known to hang.
        Written((is_taken && !self.told.busy.for_at_least(ANSWER_WITHIN)).then_some(written))
    }

    fn send(&self, job: Job) -> bool {
        let is_taken = self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok());
        if !is_taken {
            self.told.lost.fetch_add(1, Ordering::Relaxed);
        }
        is_taken
    }

    /// Waits until everything is written or waits for room, or until the deadline has passed.
    pub(super) fn flush(&self, deadline: Instant) {
        let Some(jobs) = &self.jobs else { return };
        let (done, wait) = bounded(1);
        let is_flushed = jobs.send_deadline(Job::Flush(done), deadline).is_ok() && wait.recv_deadline(deadline).is_ok();
        if !is_flushed {
            tracing::warn!(path = %self.path.display(), "the file is not written in time");
        }
    }

    /// Says what is wrong with the file, if anything is.
    pub(super) fn trouble(&self) -> Option<String> {
        let path = self.path.display();
        let lost = match self.told.lost.load(Ordering::Relaxed) {
            0 => None,
            lines => Some(format!("{lines} lines are lost")),
        };
        if let Some(hangs) = self.told.busy.trouble() {
            let waiting = self.jobs.as_ref().map_or(0, Sender::len);
            let lost = lost.map(|lost| format!(", {lost}")).unwrap_or_default();
            return Some(format!("{path} cannot be written: {hangs}; {waiting} lines wait{lost}"));
        }
        let told = self.told.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        told.or_else(|| lost.map(|lost| format!("{path} is not whole: the disk did not take all in time; {lost}")))
    }

    /// Returns how many lines the file lacks.
    pub(super) fn lacks(&self) -> u64 {
        self.told.lost.load(Ordering::Relaxed) + self.told.waiting.load(Ordering::Relaxed)
    }
}

/// What the thread writes to.
struct File {
    lines: Lines,
    anew: Anew,
}

impl File {
    fn add(&mut self, line: String) {
        if self.is_full() {
            let path = self.lines.path();
            match fs::rename(path, before(path)) {
                Ok(()) => self.begun_anew(),
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.begun_anew(),
                Err(e) => tracing::error!(path = %path.display(), error = %e, "the file cannot begin anew"),
            }
        }
        self.lines.add(line);
        if let Anew::AtLines { now, .. } = &mut self.anew {
            *now += 1;
        }
    }

    /// Lines that wait belong into the file that is full.
    fn is_full(&self) -> bool {
        self.lines.is_written()
            && match self.anew {
                Anew::AtBytes(most) => fs::metadata(self.lines.path()).is_ok_and(|meta| meta.len() >= most),
                Anew::AtLines { most, now } => now >= most,
            }
    }

    fn begun_anew(&mut self) {
        if let Anew::AtLines { now, .. } = &mut self.anew {
            *now = 0;
        }
    }
}

/// Writes until nobody has anything to write any more.
fn write(inbox: &Receiver<Job>, mut file: File, told: &Told) {
    loop {
        let answer = match inbox.recv_timeout(TRY_AGAIN) {
            Ok(Job::Line(line, waits)) => {
                told.busy.during(|| file.add(line));
                waits
            }
            Ok(Job::Flush(done)) => {
                // Who asked may have given up.
                let _ = done.send(());
                None
            }
            Err(RecvTimeoutError::Timeout) => {
                told.busy.during(|| file.lines.flush());
                None
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        told.waiting.store(file.lines.waiting(), Ordering::Relaxed);
        told.set_trouble(file.lines.trouble());
        if let Some(answer) = answer {
            let _ = answer.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A file that takes nothing before somebody reads it: to open it waits for that.
    fn hanging() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.jsonl");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a pipe can be made");
        (dir, path)
    }

    fn wait_for(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !is_so() {
            assert!(Instant::now() < deadline, "waited {LIMIT:?} for {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_disk_that_hangs_holds_up_nobody_and_what_is_lost_is_told() {
        let (_dir, path) = hanging();
        let writer = LineWriter::start("test", path.clone(), Anew::AtBytes(1 << 20));
        writer.add("{0}".to_owned());
        wait_for("the thread to be at the first line", || writer.told.busy.so_far().is_some());
        for line in 1..=MOST_WAITING + 3 {
            writer.add(format!("{{{line}}}"));
        }
        assert_eq!(writer.lacks(), 3);
        wait_for("the disk to hang", || writer.trouble().is_some_and(|trouble| trouble.contains("has not answered")));
        let trouble = writer.trouble().expect("it hangs");
        assert!(trouble.ends_with(&format!("; {MOST_WAITING} lines wait, 3 lines are lost")), "{trouble}");
        let begun = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("it can be built");
        runtime.block_on(writer.add_and_tell("{}".to_owned()).in_time());
        assert!(begun.elapsed() < ANSWER_WITHIN, "nobody waits for a disk that is known to hang");
        writer.flush(Instant::now());
        // It answers: whoever waits has opened the pipe, and what comes after goes into an ordinary file.
        let pipe = fs::OpenOptions::new().read(true).write(true).open(&path).expect("it is a pipe");
        fs::remove_file(&path).expect("it is there");
        drop(pipe);
        let last = format!("{{{MOST_WAITING}}}\n");
        wait_for("what waited to be written", || fs::read_to_string(&path).is_ok_and(|text| text.ends_with(&last)));
        wait_for("the disk to be well", || writer.trouble().is_some_and(|trouble| trouble.contains("is not whole")));
    }
}
