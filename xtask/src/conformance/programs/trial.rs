//! One command line, by itself and with followers beside it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::process;
use harness::wait::try_wait_for;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::sh;

/// How much of an output a message shows.
const SHOWN: usize = 120;

/// What a run left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ran {
    /// What a shell would say; `None` when it had to be ended.
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    files: BTreeMap<PathBuf, String>,
}

/// What a follower's life came to.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) compared: u64,
    pub(super) fault: Option<Fault>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The program did something else than by itself.
    Differs(String),
    /// The follower did not live through all of it.
    Follower(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Differs(what) => write!(f, "{what}"),
            Fault::Follower(what) => write!(f, "follower: {what}"),
        }
    }
}

impl Ran {
    /// Says in what another run differs from this one.
    pub(super) fn difference(&self, other: &Ran) -> Option<Fault> {
        let streams = [("stdout", &self.stdout, &other.stdout), ("stderr", &self.stderr, &other.stderr)];
        let what = if self.code != other.code {
            let code = |code: Option<i32>| code.map_or_else(|| "no end within the limit".to_owned(), |c| c.to_string());
            format!("exit code {} instead of {}; stderr {}", code(other.code), code(self.code), shown(&other.stderr))
        } else if let Some((name, mine, others)) = streams.into_iter().find(|(_, mine, others)| mine != others) {
            format!("{name} is {} instead of {}", shown(others), shown(mine))
        } else if self.files != other.files {
            let differing = |(path, what): &(&PathBuf, &String)| other.files.get(*path) != Some(*what);
            let mine = self.files.iter().find(differing).map(|(path, _)| path);
            let added = || other.files.keys().find(|path| !self.files.contains_key(*path));
            format!("file {} is another", mine.or_else(added).map(|path| path.display().to_string())?)
        } else {
            return None;
        };
        Some(Fault::Differs(what))
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let cut: String = text.chars().take(SHOWN).collect();
    format!("{cut:?}{}", if cut.len() < text.len() { "..." } else { "" })
}

/// Where lines are run.
#[derive(Debug)]
pub(super) struct Stand {
    mvedsuad: PathBuf,
    followers: u32,
    limit: Duration,
    site: String,
    dir: TempDir,
}

impl Stand {
    pub(super) fn new(mvedsuad: PathBuf, followers: u32, limit: Duration, site: String) -> Result<Stand> {
        process::become_subreaper();
        let stand = Stand { mvedsuad, followers, limit, site, dir: tempfile::tempdir()? };
        fs::create_dir(stand.fixture())?;
        let mut fixture = stand.shell(&stand.fixture());
        fixture.args(["sh", "-e"]).arg(sh::root().join("tests/programs/fixture.sh"));
        sh::run(&mut fixture).context("filling the folder")?;
        Ok(stand)
    }

    fn fixture(&self) -> PathBuf {
        self.dir.path().join("fixture")
    }

    /// Where a program finds itself: the same path in each run.
    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn shell(&self, dir: &Path) -> Command {
        let mut command = Command::new("env");
        command.current_dir(dir).env_clear();
        let who = [("NAME", "Nobody"), ("EMAIL", "nobody@example.org"), ("DATE", "2024-01-01T00:00:00Z")];
        for role in ["AUTHOR", "COMMITTER"] {
            command.envs(who.map(|(key, value)| (format!("GIT_{role}_{key}"), value)));
        }
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", dir);
        command.env("LC_ALL", "C").env("TZ", "UTC").env("TERM", "dumb").env("SERVER", &self.site);
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Runs a line as it is.
    pub(super) fn alone(&self, line: &str) -> Result<Ran> {
        self.refill()?;
        let mut command = self.shell(&self.work());
        command.args(["sh", "-c", line]);
        self.finish(command)
    }

    /// Runs a line with followers; says what became of them, or why that is not known.
    pub(super) fn followed(&self, line: &str) -> Result<(Ran, Result<Followed, Fault>)> {
        self.refill()?;
        let report = self.dir.path().join("report.json");
        if report.exists() {
            fs::remove_file(&report)?;
        }
        let mut command = self.shell(&self.work());
        command.arg(&self.mvedsuad).args(["run", "--self", &self.followers.to_string(), "--report"]).arg(&report);
        command.args(["--", "sh", "-c", line]);
        let ran = self.finish(command)?;
        let followed = match fs::read(&report) {
            Ok(bytes) => Ok(read_report(&serde_json::from_slice(&bytes)?)),
            Err(error) => {
                let said = shown(&ran.stderr);
                Err(Fault::Follower(format!("there is no report ({error}); stderr {said}")))
            }
        };
        Ok((ran, followed))
    }

    /// Makes the folder as it was at first.
    fn refill(&self) -> Result<()> {
        let work = self.work();
        if work.exists() {
            // A line may have taken its own rights away; we are root.
            fs::remove_dir_all(&work).context("emptying the folder")?;
        }
        sh::run(Command::new("cp").arg("-a").arg(self.fixture()).arg(&work))
    }

    /// Runs a command in a session of its own to its end, or to the limit; leaves nothing of the session behind.
    fn finish(&self, mut command: Command) -> Result<Ran> {
        let (out, err) = (self.dir.path().join("stdout"), self.dir.path().join("stderr"));
        command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        // SAFETY: setsid(2) is async-signal-safe and touches nothing of ours.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                Ok(())
            });
        }
        let mut child = command.spawn().with_context(|| format!("cannot run `{}`", sh::shown(&command)))?;
        let session = child.id() as i32;
        let status = try_wait_for(self.limit, || child.try_wait().transpose()).transpose()?;
        let emptied = try_wait_for(self.limit, || {
            let left = process::session(session);
            if status.is_none() {
                left.iter().for_each(|stat| process::signal(stat.pid, Signal::SIGKILL));
            }
            let _ = child.try_wait();
            left.is_empty().then_some(())
        });
        if emptied.is_none() {
            for stat in process::session(session) {
                process::end(stat.pid);
            }
        }
        ensure!(process::session(session).is_empty(), "something of `{}` is left", sh::shown(&command));
        Ok(Ran {
            code: status.map(code),
            stdout: fs::read(&out)?,
            stderr: fs::read(&err)?,
            files: self.files(&self.work())?,
        })
    }

    /// Describes every file below a folder: kind, rights, and contents.
    fn files(&self, dir: &Path) -> Result<BTreeMap<PathBuf, String>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![dir.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let meta = fs::symlink_metadata(&path)?;
                let kind = meta.file_type();
                let contents = if kind.is_symlink() {
                    fs::read_link(&path)?.display().to_string()
                } else if kind.is_file() && !path.components().any(|part| part.as_os_str() == ".git") {
                    format!("{} bytes, {:x}", meta.len(), digest(&fs::read(&path)?))
                } else {
                    String::new()
                };
                if kind.is_dir() {
                    folders.push(path.clone());
                }
                let mode = meta.permissions().mode();
                found.insert(path.strip_prefix(dir)?.to_path_buf(), format!("{mode:o} {} {contents}", meta.nlink()));
            }
        }
        Ok(found)
    }
}

/// What a shell calls the way a program ended.
fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(-1)
}

/// FNV-1a, 64 bits: enough to tell two runs of one program apart.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Reads what `mvedsuad run` says of its followers.
fn read_report(report: &serde_json::Value) -> Followed {
    let followers = report["followers"].as_array().cloned().unwrap_or_default();
    let compared = followers.iter().filter_map(|follower| follower["compared_calls"].as_u64()).sum();
    let bad = followers.iter().find(|follower| follower["outcome"] != "complete");
    let fault = match bad {
        _ if followers.is_empty() => Some(Fault::Follower("the report names none".to_owned())),
        Some(follower) => {
            let text = |key: &str| follower[key].as_str().unwrap_or_default().to_owned();
            Some(Fault::Follower(format!("{}: {}", text("outcome"), text("reason"))))
        }
        None => None,
    };
    Followed { compared, fault }
}
