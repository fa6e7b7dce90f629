//! Programs under `mvedsuad run`, and the same programs by themselves.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::daemon::binary;
use crate::process::{session, signal};
use crate::wait::try_wait_for;

/// How long a command may take, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(180);

/// What a command that has ended leaves.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code, or 128 and the number of the signal that ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// What `mvedsuad run` reports; null for a command by itself.
    pub report: Value,
}

impl Finished {
    /// Returns the outcome of each follower, as the report says it.
    #[must_use]
    pub fn outcomes(&self) -> Vec<&str> {
        let followers = self.report["followers"].as_array().map_or(&[][..], Vec::as_slice);
        followers.iter().filter_map(|follower| follower["outcome"].as_str()).collect()
    }
}

/// A command in a folder, with an input.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub dir: &'a Path,
    pub input: &'a [u8],
}

impl Run<'_> {
    /// Runs a command by itself.
    #[must_use]
    pub fn natively(self, command: &[&str]) -> Finished {
        let mut started = Command::new("setsid");
        started.args(command);
        self.finish(&mut started, command)
    }

    /// Runs a command under `mvedsuad run` with these options.
    #[must_use]
    pub fn with(self, options: &[&str], command: &[&str]) -> Finished {
        let report = tempfile::NamedTempFile::new().unwrap();
        let mut started = Command::new("setsid");
        started.arg(binary()).arg("run").args(options).arg("--report").arg(report.path()).arg("--").args(command);
        let mut finished = self.finish(&mut started, command);
        let text = std::fs::read_to_string(report.path()).unwrap();
        finished.report = serde_json::from_str(&text).unwrap_or(Value::Null);
        finished
    }

    fn finish(self, started: &mut Command, shown: &[&str]) -> Finished {
        let [out, err] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
        let mut input = tempfile::NamedTempFile::new().unwrap();
        input.write_all(self.input).unwrap();
        let mut child = started
            .current_dir(self.dir)
            .env("LC_ALL", "C")
            .stdin(Stdio::from(File::open(input.path()).unwrap()))
            .stdout(out.reopen().unwrap())
            .stderr(err.reopen().unwrap())
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let status = try_wait_for(LIMIT, || child.try_wait().unwrap());
        let text = |file: &Path| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
        let (stdout, stderr) = (text(out.path()), text(err.path()));
        let Some(status) = status else {
            for member in session(pid) {
                signal(member.pid, Signal::SIGKILL);
            }
            child.wait().unwrap();
            panic!("{shown:?} did not end within {LIMIT:?}\n{stdout}\n{stderr}");
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Finished { code, stdout, stderr, report: Value::Null }
    }
}
