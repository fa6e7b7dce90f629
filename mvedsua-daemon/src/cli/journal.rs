//! The journal of systemd as a place for the daemon's log, in its native protocol (systemd's `JOURNAL_NATIVE_PROTOCOL.md`).
//!
//! It takes lines as the log's thread writes them, JSON objects, and sends each as one entry with a field for each of theirs. The
//! socket waits for a journald that does not read; so only a thread that may wait writes here.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde_json::{Map, Value};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
const IDENTIFIER: &str = "mvedsuad";
/// What the names of the daemon's own fields begin with.
const PREFIX: &str = "MVEDSUA_";
/// Priorities of syslog(3).
const NOTICE: u8 = 5;
const WARNING: u8 = 4;
/// The most bytes of one value: a datagram has a limit.
const LONGEST: usize = 64 << 10;

/// A connection to the journal.
#[derive(Debug)]
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// Connects to the machine's journal.
    pub(super) fn connect() -> io::Result<Journal> {
        Journal::at(Path::new(SOCKET))
    }

    fn at(path: &Path) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Journal(socket))
    }

    fn send(&self, entry: &[u8]) -> io::Result<()> {
        self.0.send(entry).map(drop)
    }
}

impl Write for Journal {
    /// Takes whole lines: each object is an entry, and lines of text beside each other are one.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut words = vec![];
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Map<String, Value>>(line) {
                Ok(event) => {
                    self.flush_text(&mut words)?;
                    self.send(&entry_of(&event))?;
                }
                Err(_) => {
                    words.extend_from_slice(line);
                    words.push(b'\n');
                }
            }
        }
        self.flush_text(&mut words)?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Journal {
    /// Sends text that is no event: what a panic says, or that lines are lost.
    fn flush_text(&self, words: &mut Vec<u8>) -> io::Result<()> {
        if words.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(words);
        let mut entry = begun(WARNING);
        add(&mut entry, "MESSAGE", text.trim_end());
        words.clear();
        self.send(&entry)
    }
}

fn begun(priority: u8) -> Vec<u8> {
    let mut entry = vec![];
    add(&mut entry, "PRIORITY", &priority.to_string());
    add(&mut entry, "SYSLOG_IDENTIFIER", IDENTIFIER);
    entry
}

/// Returns the entry of an event.
fn entry_of(event: &Map<String, Value>) -> Vec<u8> {
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    let priority = match text("level") {
        Some("ERROR") => 3,
        Some("WARN") => WARNING,
        Some("DEBUG") => 6,
        Some("TRACE") => 7,
        Some(_) | None => NOTICE,
    };
    let mut entry = begun(priority);
    for (name, value) in event {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let name = match name.as_str() {
            // The journal knows both itself.
            "level" | "timestamp" => continue,
            "message" => "MESSAGE".to_owned(),
            "target" => "TARGET".to_owned(),
            own => PREFIX.chars().chain(own.chars().map(in_a_name)).collect(),
        };
        add(&mut entry, &name, &value);
    }
    entry
}

/// Returns what stands for a character in the name of a field: capitals, digits and underscores do.
fn in_a_name(character: char) -> char {
    if character.is_ascii_alphanumeric() { character.to_ascii_uppercase() } else { '_' }
}

/// Adds a field in the form that takes any value.
fn add(entry: &mut Vec<u8>, name: &str, value: &str) {
    let mut end = value.len().min(LONGEST);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let value = &value.as_bytes()[..end];
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::log_writer::LogWriter;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Reads the fields of an entry.
    fn fields(mut entry: &[u8]) -> Vec<(String, String)> {
        let mut fields = vec![];
        while let Some(at) = entry.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8_lossy(&entry[..at]).into_owned();
            let length = u64::from_le_bytes(entry[at + 1..at + 9].try_into().expect("it has a length")) as usize;
            fields.push((name, String::from_utf8_lossy(&entry[at + 9..at + 9 + length]).into_owned()));
            entry = &entry[at + 9 + length + 1..];
        }
        fields
    }

    fn received(journald: &UnixDatagram) -> Vec<(String, String)> {
        let mut buffer = vec![0; 1 << 20];
        let length = journald.recv(&mut buffer).expect("an entry");
        fields(&buffer[..length])
    }

    #[test]
    fn an_event_is_an_entry_with_its_fields() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).expect("the place is free");
        let writer = LogWriter::start(Journal::at(&path).expect("it listens")).expect("there is room for a thread");
        let lines = tracing_subscriber::fmt().json().flatten_event(true).with_writer(writer.clone());
        tracing::subscriber::with_default(lines.finish(), || {
            tracing::warn!(update = 3, "to-what" = "a\nb", "two\nlines");
        });
        writer.line(b"thread x panicked\nat a place\n".to_vec());
        let event = received(&journald);
        let has = |name: &str, value: &str| event.contains(&(name.to_owned(), value.to_owned()));
        assert!(has("PRIORITY", "4") && has("SYSLOG_IDENTIFIER", "mvedsuad"), "{event:?}");
        assert!(has("MESSAGE", "two\nlines") && has("MVEDSUA_UPDATE", "3"), "{event:?}");
        assert!(has("MVEDSUA_TO_WHAT", "a\nb"), "{event:?}");
        let panic = received(&journald);
        assert!(panic.contains(&("MESSAGE".to_owned(), "thread x panicked\nat a place".to_owned())), "{panic:?}");
    }

    #[test]
    fn a_journald_that_does_not_read_holds_nobody_up() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("socket");
        let journald = UnixDatagram::bind(&path).expect("the place is free");
        let writer = LogWriter::start(Journal::at(&path).expect("it listens")).expect("there is room for a thread");
        // More than a socket takes, and less than waits for the thread.
        let lines = 2000;
        for line in 0..lines {
            writer.line(format!("{{\"message\":\"{line}\"}}\n").into_bytes());
        }
        writer.flush(Duration::ZERO);
        journald.set_read_timeout(Some(LIMIT)).expect("it is a socket");
        for line in 0..lines {
            assert!(received(&journald).contains(&("MESSAGE".to_owned(), line.to_string())));
        }
    }
}
