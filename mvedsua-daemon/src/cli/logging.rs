//! Where the daemon's own log goes, and how it looks there.
//!
//! Started by systemd the daemon writes to the journal, where each field of a line (`MVEDSUA_UPDATE`, `MVEDSUA_TO`) can be
//! asked for by itself; elsewhere it writes text to standard error. A format that is asked for goes to standard error in
//! any case.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::journal::Journal;
use super::log_writer::LogWriter;

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object on each line
    Json,
}

/// How long the end of the daemon waits until its log is written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// The daemon's log; what waits is written when it is dropped.
#[derive(Debug)]
pub(super) struct Log(LogWriter);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush(WRITTEN_WITHIN);
    }
}

/// Starts the daemon's log; `MVEDSUA_LOG` says how much it holds.
///
/// # Errors
///
/// Where there can be no thread for it.
pub(super) fn start(format: Option<LogFormat>) -> io::Result<Log> {
    let filter = EnvFilter::try_from_env("MVEDSUA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Whatever it is written to may hang: a thread of the log's own waits for it.
    let (writer, format) = match (format, journal()) {
        (None, Some(journal)) => (LogWriter::start(journal)?, LogFormat::Json),
        (format, _) => (LogWriter::start(io::stderr())?, format.unwrap_or(LogFormat::Text)),
    };
    let lines = || tracing_subscriber::fmt::layer().with_writer(writer.clone()).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Json => registry.with(lines().json().flatten_event(true)).init(),
        LogFormat::Text => registry.with(lines()).init(),
    }
    // What a panic says must not wait for standard error either.
    let panics = writer.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name").to_owned();
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{trace}\n"),
            _ => String::new(),
        };
        panics.line(format!("thread {name} {panic}\n{trace}").into_bytes());
    }));
    Ok(Log(writer))
}

/// Starts a log of text on standard error.
///
/// # Errors
///
/// Where there can be no thread for it.
pub(super) fn to_standard_error(filter: EnvFilter) -> io::Result<Log> {
    let writer = LogWriter::start(io::stderr())?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer.clone()).with_ansi(false).init();
    Ok(Log(writer))
}

/// Returns the journal, where standard error leads there and it can be reached.
fn journal() -> Option<Journal> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let error = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
    if !leads_to(&stream, error.dev(), error.ino()) {
        return None;
    }
    Journal::connect().ok()
}

/// Says whether `JOURNAL_STREAM` (`DEVICE:INODE`, see systemd.exec(5)) names a file.
fn leads_to(stream: &str, device: u64, inode: u64) -> bool {
    let Some((dev, ino)) = stream.split_once(':') else { return false };
    dev.parse() == Ok(device) && ino.parse() == Ok(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_taken_only_where_standard_error_leads_there() {
        assert!(leads_to("9:4711", 9, 4711));
        assert!(!leads_to("9:4711", 9, 4712), "standard error was redirected");
        assert!(!leads_to("9", 9, 9));
        assert!(!leads_to("", 0, 0));
    }
}
