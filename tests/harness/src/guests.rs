//! The guests: small C programs in `tests/guests` that check themselves; `guest.h` there says how they are talked to.
//!
//! A guest is compiled when it is first wanted, into the build's own folder. It talks over pipes, so it is served by
//! whichever process holds their other ends: after a promotion that is the new version, and nothing changes here.

#[cfg(feature = "engine")]
pub mod rehearsal;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use crate::process;
use crate::wait::try_wait_for;

/// How long a guest may take for one round on a slow machine, with two versions running.
pub const ROUND_LIMIT: Duration = Duration::from_secs(60);

/// The source of a guest.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub path: PathBuf,
    /// The rows of the system-call table that it says it exercises.
    pub rows: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests")
}

/// Returns all guests, by name.
pub fn sources() -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(folder()).context("listing tests/guests")? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "c") {
            continue;
        }
        let name = path.file_stem().and_then(|stem| stem.to_str()).context("a guest's name")?.to_owned();
        let text = fs::read_to_string(&path)?;
        let rows: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(" * rows: ")).collect();
        ensure!(!rows.is_empty(), "{} does not say which rows it exercises", path.display());
        // A remark in brackets stands for no rows.
        let rows = rows.iter().filter(|line| !line.starts_with('(')).flat_map(|line| line.split_whitespace());
        sources.push(Source { name, rows: rows.map(str::to_owned).collect(), path });
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(sources)
}

/// Returns where compiled guests are kept, within the build's own folder.
pub(crate) fn out_folder() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("finding the build folder")?;
    let build = exe.parent().context("the build folder")?;
    let build = if build.ends_with("deps") { build.parent().context("the build folder")? } else { build };
    let out = build.join("guests");
    fs::create_dir_all(&out)?;
    Ok(out)
}

/// Compiles a guest, if it is not compiled yet, and returns the program.
pub fn program(name: &str) -> Result<PathBuf> {
    let source = folder().join(format!("{name}.c"));
    let out = out_folder()?;
    let program = out.join(name);
    let newest = [&source, &folder().join("guest.h")].map(|path| fs::metadata(path).and_then(|meta| meta.modified()));
    let [Ok(source_time), Ok(header_time)] = newest else { bail!("there is no guest {name}") };
    let built = fs::metadata(&program).and_then(|meta| meta.modified());
    if built.is_ok_and(|built| built > source_time && built > header_time) {
        return Ok(program);
    }
    // Several tests may compile at once: each into a file of its own, and the last to be renamed stays.
    let scratch = tempfile::Builder::new().prefix(name).tempfile_in(&out)?.into_temp_path();
    let output = Command::new("gcc")
        .args(["-std=gnu17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .args([scratch.as_ref(), source.as_path()])
        .output()
        .context("gcc is not installed; `cargo xtask setup` installs what the tests need")?;
    ensure!(output.status.success(), "compiling {name}:\n{}", String::from_utf8_lossy(&output.stderr));
    scratch.persist(&program)?;
    Ok(program)
}

/// A running guest with its scratch folder.
#[derive(Debug)]
pub struct Guest {
    name: String,
    pid: i32,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// What it printed before it was ready.
    pub preface: Vec<String>,
    dir: TempDir,
}

impl Guest {
    /// Starts a guest and waits until it is ready.
    pub fn start(name: &str) -> Result<Guest> {
        Guest::start_under(&[], name)
    }

    /// Starts a guest through another program (`strace`, say), which is called with the guest's command line.
    pub fn start_under(wrapper: &[&str], name: &str) -> Result<Guest> {
        process::become_subreaper();
        let program = program(name)?;
        let dir = tempfile::Builder::new().prefix("mvedsua-guest-").tempdir()?;
        let mut child = Command::new("setsid")
            .args(wrapper)
            .args([&program, dir.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let (send, lines) = channel();
        let stdout = child.stdout.take().context("the guest's output")?;
        std::thread::Builder::new().name(format!("guest {name}")).spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        })?;
        let stdin = child.stdin.take();
        let pid = child.id() as i32;
        let mut guest = Guest { name: name.to_owned(), pid, child, stdin, lines, preface: Vec::new(), dir };
        loop {
            let line = guest.line(ROUND_LIMIT)?;
            if line == "ready" {
                return Ok(guest);
            }
            ensure!(!line.starts_with("FAILED"), "guest {name}: {line}");
            guest.preface.push(line);
        }
    }

    /// The pid that it was started with; of the wrapper, where there is one.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The folder that it works in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn line(&mut self, limit: Duration) -> Result<String> {
        self.lines.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("guest {}: no answer within {limit:?}", self.name),
            RecvTimeoutError::Disconnected => anyhow!("guest {}: it has ended", self.name),
        })
    }

    /// Asks for a round.
    pub fn ask(&mut self, round: u32, word: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the guest was told to leave")?;
        Ok(stdin.write_all(format!("go {round} {word}\n").as_bytes())?)
    }

    /// Waits for the answer to a round and returns its hash.
    pub fn answer(&mut self, round: u32, limit: Duration) -> Result<String> {
        let line = self.line(limit)?;
        let hash = line.strip_prefix(&format!("ok {round} ")).map(str::to_owned);
        hash.with_context(|| format!("guest {}: {line}", self.name))
    }

    /// Plays one round.
    pub fn round(&mut self, round: u32, word: &str) -> Result<String> {
        self.ask(round, word)?;
        self.answer(round, ROUND_LIMIT)
    }

    /// Says whether nothing was answered that nobody asked for.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.lines.try_recv().is_err()
    }

    /// Tells the guest to leave and waits until nobody of its session is left.
    pub fn finish(mut self) -> Result<()> {
        self.stdin = None;
        let gone = try_wait_for(ROUND_LIMIT, || {
            let _ = self.child.try_wait();
            process::session(self.pid).is_empty().then_some(())
        });
        gone.with_context(|| format!("guest {}: it does not leave: {:?}", self.name, process::session(self.pid)))?;
        ensure!(self.is_silent(), "guest {}: it said more than it was asked", self.name);
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stdin = None;
        for member in process::session(self.pid) {
            process::end(member.pid);
        }
        let _ = self.child.wait();
    }
}

/// Returns the number of a row's call: what stands before the slash in `ioctl/FIONREAD`.
#[must_use]
pub fn call_of(row: &str) -> &str {
    row.split('/').next().unwrap_or(row)
}
