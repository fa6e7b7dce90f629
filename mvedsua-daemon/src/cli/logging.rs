//! Where the daemon's own log goes, and how it looks there.
//!
//! Started by systemd the daemon writes to the journal, where each field of a line (`MVEDSUA_UPDATE`, `MVEDSUA_TO`) can be
//! asked for by itself; elsewhere it writes text to standard error. A format that is asked for goes to standard error in
//! any case.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::log_writer::LogWriter;

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object on each line
    Json,
}

/// Starts the daemon's log; `MVEDSUA_LOG` says how much it holds.
pub(super) fn start(format: Option<LogFormat>) {
    let filter = EnvFilter::try_from_env("MVEDSUA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = || tracing_subscriber::fmt::layer().with_writer(LogWriter::new(io::stderr())).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        Some(LogFormat::Json) => registry.with(lines().json().flatten_event(true)).init(),
        Some(LogFormat::Text) => registry.with(lines()).init(),
        None => match journal() {
            Some(journal) => registry.with(journal).init(),
            None => registry.with(lines()).init(),
        },
    }
}

/// Returns the journal, where standard error leads there and it can be reached.
fn journal() -> Option<tracing_journald::Layer> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let error = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
    if !leads_to(&stream, error.dev(), error.ino()) {
        return None;
    }
    let journal = tracing_journald::layer().ok()?;
    Some(journal.with_field_prefix(Some("MVEDSUA".to_owned())).with_syslog_identifier("mvedsuad".to_owned()))
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
