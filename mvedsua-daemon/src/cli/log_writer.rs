//! Where the daemon's log goes: standard error, which may be a file on a full disk, or a pipe that nobody reads.
//!
//! A line that cannot be written is dropped and counted, and the next one that can be says how many were. Nothing else comes of
//! it: what the daemon does for its services must not depend on whether somebody can be told.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Writes lines of the log.
#[derive(Debug)]
pub(super) struct LogWriter<W> {
    state: Arc<Mutex<State<W>>>,
}

impl<W> Clone for LogWriter<W> {
    fn clone(&self) -> Self {
        LogWriter { state: Arc::clone(&self.state) }
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

impl<W: Write> LogWriter<W> {
    pub(super) fn new(out: W) -> Self {
        LogWriter { state: Arc::new(Mutex::new(State { out, dropped: 0, error: None, is_torn: false })) }
    }
}

impl<W: Write> State<W> {
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

impl<W: Write> Write for LogWriter<W> {
    /// Takes one line, and never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> MakeWriter<'_> for LogWriter<W> {
    type Writer = LogWriter<W>;

    fn make_writer(&self) -> LogWriter<W> {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let writer = LogWriter::new(disk.clone());
        let subscriber = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).without_time().finish();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                tracing::info!("nobody hears it");
            }
            disk.0.lock().expect("no panic").1 = 1000;
            tracing::info!("there is room");
            tracing::info!("and still");
        });
        let disk = disk.0.lock().expect("no panic");
        let text = String::from_utf8_lossy(&disk.0);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].ends_with("WARN 3 lines of this log are lost: no storage space"), "{text}");
        assert!(lines[2].ends_with("there is room") && lines[3].ends_with("and still"), "{text}");
    }
}
