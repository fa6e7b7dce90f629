//! Starting the daemon when none runs.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::args::Place;
use super::client::Client;
use crate::control::Code;
use crate::control::protocol::Problem;

/// How long starting the daemon may take.
const START_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How much of the daemon's log an error shows.
const TAIL: usize = 600;

/// Connects to the daemon, and starts it where nobody answers.
pub(super) fn connect_or_start(place: &Place) -> Result<Client, Problem> {
    let dirs = place.dirs();
    let deadline = Instant::now() + START_WITHIN;
    loop {
        match Client::connect(&dirs) {
            Ok(client) => return Ok(client),
            // Somebody is there and does not let us in.
            Err(problem) if dirs.socket().exists() && !nix::unistd::geteuid().is_root() => return Err(problem),
            Err(_) => {}
        }
        match start(place)? {
            Started::Ready => {}
            // One is starting at the same time, or is about to end.
            Started::Taken if Instant::now() < deadline => std::thread::sleep(LOOK_AGAIN),
            Started::Taken => return Client::connect(&dirs),
        }
    }
}

/// What came of starting the daemon.
enum Started {
    Ready,
    /// Another daemon has the directories.
    Taken,
}

/// Starts the daemon in the background and waits until it answers or has said why it does not.
fn start(place: &Place) -> Result<Started, Problem> {
    let dirs = place.dirs();
    let log = dirs.daemon_log();
    let failed = |why: String| {
        Problem::new(
            Code::Unreachable,
            format!("starting the daemon with its log in {}", log.display()),
            why,
            "`mvedsuad daemon` runs it in the foreground, where one sees more",
        )
    };
    let prepare = || -> io::Result<(fs::File, std::path::PathBuf)> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dirs.state)?;
        let log = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&log)?;
        Ok((log, std::env::current_exe()?))
    };
    let (file, exe) = prepare().map_err(|e| failed(e.to_string()))?;
    let mut child = Command::new(exe)
        .arg("daemon")
        .arg("--detached")
        .arg("--runtime-dir")
        .arg(&dirs.runtime)
        .arg("--state-dir")
        .arg(&dirs.state)
        .arg("--config")
        .arg(&dirs.config)
        .arg("--updates-dir")
        .arg(&dirs.updates)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    // The daemon closes its end when it answers, and the kernel does when it dies.
    let mut said = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut said).map_err(|e| failed(e.to_string()))?;
    }
    if said.trim() == "ready" {
        return Ok(Started::Ready);
    }
    let status = child.wait().map_err(|e| failed(e.to_string()))?;
    if status.code() == Some(u8::from(Code::Refused).into()) {
        return Ok(Started::Taken);
    }
    let text = fs::read(&log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let tail: String = text.chars().skip(text.chars().count().saturating_sub(TAIL)).collect();
    Err(failed(format!("it ended with {status}; its log ends with:\n{}", tail.trim_end())))
}
