//! The real `mvedsuad`, with a runtime and a state folder of its own.
//!
//! Everything goes through the command line as an operator would type it, so the tests prove the product and not its
//! library.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Program, Stat};
use crate::wait::{try_wait_for, wait_for};

/// How long one command of the client may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How long the daemon may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What a command of the client came to.
#[derive(Clone, Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Returns the last line of the output as JSON.
    pub fn json(&self) -> Result<Value> {
        let text = self.stdout.trim();
        let whole = serde_json::from_str(text);
        let last = || serde_json::from_str(text.lines().last().unwrap_or_default());
        whole.or_else(|_| last()).with_context(|| format!("no JSON in {:?} (stderr {:?})", self.stdout, self.stderr))
    }

    /// Panics unless the exit code is `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Output {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// What `status` says about one service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    pub stage: String,
    /// The process that serves.
    pub leader: i32,
    pub follower: Option<i32>,
    pub compared_calls: u64,
    pub compared_outputs: u64,
    pub backlog: u64,
    pub fork_pause_us: Option<u64>,
    pub promotion_pause_us: Option<u64>,
    /// How the last update ended, where it has.
    pub result: Option<(u64, String)>,
    /// What happens next, in words.
    pub next: String,
    pub raw: Value,
}

/// A daemon and its folders; ended and removed on drop.
#[derive(Debug)]
pub struct Daemon {
    binary: PathBuf,
    dir: TempDir,
    program: Option<Program>,
    /// Number of times that the daemon was started, for the name of its output.
    starts: u32,
}

impl Daemon {
    /// Makes the folders and starts nothing: the first `attach` will.
    pub fn prepare(binary: &Path) -> Result<Daemon> {
        process::become_subreaper();
        let dir = tempfile::Builder::new().prefix("mvedsua-daemon-").tempdir()?;
        for name in ["run", "state"] {
            fs::create_dir(dir.path().join(name))?;
        }
        Ok(Daemon { binary: binary.to_owned(), dir, program: None, starts: 0 })
    }

    /// Makes the folders and starts the daemon of this build.
    pub fn start() -> Result<Daemon> {
        let mut daemon = Daemon::prepare(binary())?;
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Makes the folders and starts the daemon of this build with a configuration.
    pub fn configured(config: &str) -> Result<Daemon> {
        let mut daemon = Daemon::prepare(binary())?;
        fs::write(daemon.config(), config)?;
        daemon.start_again()?;
        Ok(daemon)
    }

    /// The configuration of daemons that are started here; it may be missing.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("mvedsuad.toml")
    }

    /// Starts the daemon in its folders, after it was ended or killed.
    pub fn start_again(&mut self) -> Result<()> {
        self.program = None;
        self.starts += 1;
        let mut args = self.folders();
        args.push("daemon".to_owned());
        let program = Program::start(&self.binary, &args, self.dir.path(), &self.log(self.starts))?;
        let up = try_wait_for(START_LIMIT, || {
            (!program.is_running() || self.run(&["status", "--json"]).is_ok_and(|output| output.code == 0))
                .then_some(())
        });
        if up.is_none() || !program.is_running() {
            bail!("the daemon did not start: {}", self.output());
        }
        self.program = Some(program);
        Ok(())
    }

    fn folders(&self) -> Vec<String> {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let mut folders = vec!["--runtime-dir".into(), path("run"), "--state-dir".into(), path("state")];
        if self.config().exists() {
            folders.extend(["--config".into(), self.config().display().to_string()]);
        }
        folders
    }

    fn log(&self, start: u32) -> PathBuf {
        self.dir.path().join(format!("output-{start}"))
    }

    /// The state folder.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The runtime folder.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// What the daemons have printed, one after the other; what those that `attach` started have logged comes last.
    #[must_use]
    pub fn output(&self) -> String {
        let started = (1..=self.starts).map(|start| self.log(start));
        let logs = started.chain([self.state_dir().join("daemon.log")]);
        logs.filter_map(|log| fs::read_to_string(log).ok()).collect::<Vec<_>>().join("\n--- started again ---\n")
    }

    /// The daemon's pid, if it runs: started by us or by `attach`.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        let started = self.program.as_ref().map(Program::pid).filter(|pid| process::alive(*pid));
        started.or_else(|| self.found().first().map(|stat| stat.pid))
    }

    /// Processes of our binary that work in our folders as a daemon.
    fn found(&self) -> Vec<Stat> {
        let run = self.runtime_dir().display().to_string();
        let ours = |stat: &Stat| {
            let text = fs::read(format!("/proc/{}/cmdline", stat.pid)).unwrap_or_default();
            let words: Vec<_> = text.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            let environ = fs::read(format!("/proc/{}/environ", stat.pid)).unwrap_or_default();
            let in_environ = environ.split(|byte| *byte == 0).any(|v| v.ends_with(run.as_bytes()));
            stat.state != 'Z' && words.iter().any(|w| w == "daemon") && (in_environ || words.iter().any(|w| *w == run))
        };
        process::all().into_iter().filter(|stat| ours(stat)).collect()
    }

    /// Kills the daemon as the OOM killer would; the folders stay.
    pub fn kill(&mut self) {
        if let Some(pid) = self.pid() {
            process::end(pid);
        }
        self.program = None;
    }

    /// Asks the daemon to end and waits until it has.
    pub fn terminate(&mut self) {
        if let Some(pid) = self.pid() {
            process::signal(pid, Signal::SIGTERM);
            process::wait_gone(pid, START_LIMIT);
        }
        self.program = None;
    }

    /// Returns the command with our folders, for a caller that wants to run it its own way.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(self.folders()).args(args).stdin(Stdio::null()).current_dir(self.dir.path());
        // A daemon that `attach` starts must not hold on to what the tests print to.
        command.env("MVEDSUA_RUNTIME_DIR", self.runtime_dir()).env("MVEDSUA_STATE_DIR", self.state_dir());
        command
    }

    /// Runs a command of the client.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        self.run_for(args, COMMAND_LIMIT)
    }

    /// Runs a command of the client that may take as long as `limit`.
    pub fn run_for(&self, args: &[&str], limit: Duration) -> Result<Output> {
        let shown = args.join(" ");
        let out = tempfile::NamedTempFile::new_in(self.dir.path())?;
        let err = tempfile::NamedTempFile::new_in(self.dir.path())?;
        let mut child = self
            .command(args)
            .stdout(out.reopen()?)
            .stderr(err.reopen()?)
            .spawn()
            .with_context(|| format!("running {} {shown}", self.binary.display()))?;
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() >= end {
                let both = [Some(child.id().cast_signed()), self.pid()];
                let stacks: String = both.into_iter().flatten().map(process::stacks).collect();
                child.kill()?;
                child.wait()?;
                bail!("`mvedsuad {shown}` did not end within {limit:?}; threads:{stacks}\ndaemon: {}", self.output());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let text = |mut file: fs::File| {
            let mut text = String::new();
            file.read_to_string(&mut text).map(|_| text)
        };
        let code = status.code().with_context(|| format!("`mvedsuad {shown}` ended with {status}"))?;
        Ok(Output { code, stdout: text(out.reopen()?)?, stderr: text(err.reopen()?)? })
    }

    /// Runs a command of the client for a process and panics unless it exits with `code`.
    #[track_caller]
    pub fn expect(&self, args: &[&str], code: i32) -> Output {
        let output = self.run(args).unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(
            output.code,
            code,
            "`mvedsuad {}`\nstdout: {}\nstderr: {}\ndaemon: {}",
            args.join(" "),
            output.stdout,
            output.stderr,
            self.output()
        );
        output
    }

    /// Returns what `status` says about a process, by any of its pids; `None` when the daemon knows nothing of it.
    pub fn status(&self, pid: i32) -> Result<Option<Status>> {
        let output = self.run(&["status", "--json"])?;
        if output.code != 0 {
            bail!("status: exit code {}: {}", output.code, output.stderr);
        }
        let json = output.json()?;
        let targets = find(&json, "targets").and_then(Value::as_array).context("status has no targets")?;
        Ok(targets.iter().find(|target| concerns(target, pid)).map(Status::read))
    }

    /// Waits until the process is in the stage; panics when it has not come there within `limit`.
    #[track_caller]
    pub fn wait_stage(&self, pid: i32, stage: &str, limit: Duration) -> Status {
        let mut last = None;
        let reached = try_wait_for(limit, || {
            last = self.status(pid).ok().flatten();
            last.clone().filter(|status| status.stage == stage)
        });
        reached.unwrap_or_else(|| {
            panic!("waited {limit:?} in vain for stage {stage}; last: {last:#?}\ndaemon: {}", self.output())
        })
    }

    /// Panics if the daemon left files or mounts behind, apart from what it is meant to keep.
    #[track_caller]
    pub fn expect_no_leftovers(&self) {
        let spill = self.state_dir().join("spill");
        let files: Vec<_> = fs::read_dir(&spill).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        assert!(files.is_empty(), "spill files are left: {files:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts can be read");
        let dir = self.dir.path().display().to_string();
        let ours: Vec<_> = mounts.lines().filter(|line| line.contains(&dir)).collect();
        assert!(ours.is_empty(), "mounts are left: {ours:?}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon printed:\n{}", self.output());
        }
        self.program = None;
        for stat in self.found() {
            process::signal(stat.pid, Signal::SIGKILL);
            if !std::thread::panicking() {
                wait_for("the end of the daemon", START_LIMIT, || {
                    process::reap(stat.pid);
                    (!process::alive(stat.pid)).then_some(())
                });
            }
        }
    }
}

/// Says whether a target is about the process: it serves, follows, or did so before.
fn concerns(target: &Value, pid: i32) -> bool {
    let is = |value: &Value| value.as_i64() == Some(i64::from(pid));
    let versions = target["versions"].as_array().into_iter().flatten();
    let mut known = target["update"]["pids"].as_array().into_iter().flatten();
    is(&target["pid"])
        || versions.into_iter().any(|v| is(&v["pid"]))
        || is(&target["update"]["asked_pid"])
        || known.any(is)
}

impl Status {
    fn read(target: &Value) -> Status {
        let update = &target["update"];
        let counter = |key: &str| update["counters"][key].as_u64().unwrap_or(0);
        let mut versions = target["versions"].as_array().into_iter().flatten();
        let follower = versions.find(|version| version["role"] == "follower").and_then(|v| v["pid"].as_i64());
        let result = &update["result"];
        Status {
            stage: target["stage"].as_str().unwrap_or_default().to_owned(),
            leader: target["pid"].as_i64().unwrap_or(0) as i32,
            follower: follower.map(|pid| pid as i32),
            compared_calls: counter("compared_calls"),
            compared_outputs: counter("compared_outputs"),
            backlog: counter("backlog"),
            fork_pause_us: update["fork_pause_us"].as_u64(),
            promotion_pause_us: update["promotion_pause_us"].as_u64(),
            result: result["code"].as_u64().map(|code| (code, result["text"].as_str().unwrap_or_default().to_owned())),
            next: target["next"].as_str().unwrap_or_default().to_owned(),
            raw: target.clone(),
        }
    }
}

/// Finds a field anywhere below `value`, the nearest first.
#[must_use]
pub fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => {
            fields.get(key).filter(|v| !v.is_null()).or_else(|| fields.values().find_map(|field| find(field, key)))
        }
        Value::Array(items) => items.iter().find_map(|item| find(item, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Returns the daemon to test: `MVEDSUAD` where it is set, else this workspace's, built first.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("MVEDSUAD") {
        Some(path) => PathBuf::from(path),
        None => build().unwrap_or_else(|error| panic!("{error:#}")),
    })
}

/// Builds the daemon in the profile of the running test, so that no test runs against yesterday's.
fn build() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    // target/<profile>/deps/<test>, or target/<profile>/xtask
    let folder = exe.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).context("the test lies in a folder")?;
    let profile = if folder.ends_with("release") { "release" } else { "dev" };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--profile", profile, "--package", "mvedsua-daemon", "--bin", "mvedsuad"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()?;
    if !output.status.success() {
        bail!("building mvedsuad: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(folder.join("mvedsuad"))
}
