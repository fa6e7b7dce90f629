//! Where the daemon's log goes: standard error, which may be a file on a full disk, or on one that hangs, or a pipe that nobody
//! reads.
//!
//! A thread of its own writes; lines wait for it in a bounded queue. A line that cannot be written, or that the queue does not
//! take, is dropped and counted, and the next one that can be written says how many were. Nothing else comes of it: what the
//! daemon does for its services must not depend on whether somebody can be told.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing_subscriber::fmt::MakeWriter;

/// How many lines wait for the thread.
const MOST_WAITING: usize = 4096;

enum Job {
    Line(Vec<u8>),
    /// Answered when what came before it is written.
    Flush(Sender<()>),
}

/// Takes lines of the log.
#[derive(Clone, Debug)]
pub(super) struct LogWriter {
    jobs: Sender<Job>,
    /// Lines that the queue did not take and of which nobody has been told.
    lost: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the thread that writes.
    ///
    /// # Errors
    ///
    /// Where there can be no thread.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<LogWriter> {
        let (jobs, inbox) = bounded(MOST_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let state = State { out, dropped: 0, error: None, is_torn: false };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&inbox, state, &counted))?;
        Ok(LogWriter { jobs, lost })
    }

    /// Takes one line, with its newline. Waits for nothing.
    pub(super) fn line(&self, line: Vec<u8>) {
        if self.jobs.try_send(Job::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, or the time is over.
    pub(super) fn flush(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let (done, wait) = bounded(1);
        if self.jobs.send_deadline(Job::Flush(done), deadline).is_ok() {
            // Whoever would be told cannot be.
            let _ = wait.recv_deadline(deadline);
        }
    }
}

fn write<W: Write>(inbox: &Receiver<Job>, mut state: State<W>, lost: &AtomicU64) {
    for job in inbox {
        match job {
            Job::Line(line) => {
                state.lost(lost.swap(0, Ordering::Relaxed));
                state.line(&line);
            }
            Job::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

#[derive(Debug)]
struct State<W> {
    out: W,
    /// Lines that were dropped since the last one that was written.
    dropped: u64,
    /// Why.
    error: Option<io::Error>,
    /// The last line is there by half.
    is_torn: bool,
}

impl<W: Write> State<W> {
    /// Lines came to nothing before they came here.
    fn lost(&mut self, lines: u64) {
        if lines > 0 {
            self.dropped += lines;
            self.error.get_or_insert_with(|| io::Error::new(io::ErrorKind::TimedOut, "it did not take them in time"));
        }
    }

    fn line(&mut self, line: &[u8]) {
        let mut text = vec![];
        if self.is_torn {
            text.push(b'\n');
        }
        if let (dropped @ 1.., Some(error)) = (self.dropped, &self.error) {
            let at = humantime::format_rfc3339_micros(std::time::SystemTime::now());
            text.extend_from_slice(format!("{at}  WARN {dropped} lines of this log are lost: {error}\n").as_bytes());
        }
        text.extend_from_slice(line);
        match self.write(&text) {
            Ok(()) => (self.dropped, self.error, self.is_torn) = (0, None, false),
            Err(error) => {
                self.dropped += 1;
                self.error = Some(error);
            }
        }
    }

    fn write(&mut self, mut text: &[u8]) -> io::Result<()> {
        while !text.is_empty() {
            match self.out.write(text) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.is_torn = text[written - 1] != b'\n';
                    text = &text[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.flush()
    }
}

impl Write for LogWriter {
    /// Takes one line, and never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = LogWriter;

    fn make_writer(&self) -> LogWriter {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A disk with room for so many bytes more.
    #[derive(Clone)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().expect("no panic");
            let taken = bytes.len().min(disk.1);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.0.extend_from_slice(&bytes[..taken]);
            disk.1 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_and_told() {
        let disk = Disk(Arc::new(Mutex::new((vec![], 10))));
        let writer = LogWriter::start(disk.clone()).expect("there is room for a thread");
        let subscriber = tracing_subscriber::fmt().with_writer(writer.clone()).with_ansi(false).without_time().finish();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                tracing::info!("nobody hears it");
            }
            writer.flush(LIMIT);
            disk.0.lock().expect("no panic").1 = 1000;
            tracing::info!("there is room");
            tracing::info!("and still");
            writer.flush(LIMIT);
        });
        let disk = disk.0.lock().expect("no panic");
        let text = String::from_utf8_lossy(&disk.0);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].ends_with("WARN 3 lines of this log are lost: no storage space"), "{text}");
        assert!(lines[2].ends_with("there is room") && lines[3].ends_with("and still"), "{text}");
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up() {
        let (mut reader, pipe) = io::pipe().expect("a pipe can be made");
        let writer = LogWriter::start(pipe).expect("there is room for a thread");
        let long = "x".repeat(1 << 10);
        // The pipe takes 64 KiB, the queue its lines, and the thread has one.
        let lines = 64 + MOST_WAITING + 1 + 100;
        for _ in 0..lines {
            writer.line(format!("{long}\n").into_bytes());
        }
        writer.flush(Duration::ZERO);
        let lost = writer.lost.load(Ordering::Relaxed);
        assert!(lost >= 100, "{lost}");
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            io::Read::read_to_string(&mut reader, &mut text).expect("it is text");
            text
        });
        writer.flush(LIMIT);
        writer.line(b"the last\n".to_vec());
        drop(writer);
        let text = read.join().expect("it reads to the end");
        assert!(text.ends_with("the last\n"));
        let told = format!("WARN {lost} lines of this log are lost: it did not take them in time");
        assert_eq!(text.lines().filter(|line| line.ends_with(&told)).count(), 1, "{lost}");
        assert_eq!(text.lines().filter(|line| **line == *long).count() as u64, lines as u64 - lost);
    }
}
