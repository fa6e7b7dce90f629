//! What the monitor's tests share: guests, and waiting with a deadline.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use mvedsua_daemon::monitor::{CallStats, ProcessStats, StatsSnapshot};

/// Compiles a guest of this folder.
pub(crate) fn compile(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/monitor").join(format!("{name}.c"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("guests-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    let program = folder.join(name);
    let status = Command::new("gcc")
        .args(["-O2", "-Wall", "-Werror", "-pthread", "-o"])
        .arg(&program)
        .arg(&source)
        .status()
        .expect("gcc is installed");
    assert!(status.success(), "{} does not compile", source.display());
    program
}

/// A guest that speaks over its standard input and output; ends with its owner.
pub(crate) struct Guest {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Guest {
    pub(crate) fn start(program: &Path, args: &[&str]) -> Guest {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Guest { child, input, output }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends a line.
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("not closed yet"), "{line}").expect("the guest reads");
    }

    /// Reads lines up to and including `last`.
    pub(crate) fn lines_until(&mut self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("the guest writes");
            assert!(read > 0, "the guest ended before it said {last:?}; it said {lines:?}");
            lines.push(line.trim_end().to_owned());
            if lines.last().is_some_and(|line| line == last) {
                return lines;
            }
        }
    }

    /// Waits until it waits for input: everything that it has done until then is over and counted.
    pub(crate) fn wait_for_input(&self) {
        let file = format!("/proc/{}/syscall", self.pid());
        wait_for("the guest to wait for input", || {
            std::fs::read_to_string(&file).ok()?.starts_with("0 0x0 ").then_some(())
        });
    }

    /// Closes its input and waits for its end.
    pub(crate) fn end(mut self) {
        drop(self.input.take());
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "the guest failed: {status}");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // A failed test must not leave its guest behind; there is nobody to tell of an error here.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits until `check` returns something.
pub(crate) fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited 30 s for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns a process of a snapshot.
pub(crate) fn process(snapshot: &StatsSnapshot, pid: i32) -> &ProcessStats {
    let found = snapshot.processes.iter().find(|process| process.pid == pid);
    found.unwrap_or_else(|| panic!("process {pid} is not in {:#?}", summary(snapshot)))
}

/// Returns a call of a process by name.
pub(crate) fn call<'a>(process: &'a ProcessStats, name: &str) -> &'a CallStats {
    let found = process.calls.iter().find(|call| call.name == name);
    found.unwrap_or_else(|| panic!("process {} has no {name}", process.pid))
}

/// Returns how often a call was made, all processes together.
pub(crate) fn total(snapshot: &StatsSnapshot, name: &str) -> u64 {
    snapshot.processes.iter().flat_map(|p| &p.calls).filter(|call| call.name == name).map(|call| call.count).sum()
}

/// Says which processes a snapshot has, for messages.
pub(crate) fn summary(snapshot: &StatsSnapshot) -> Vec<String> {
    snapshot.processes.iter().map(|p| format!("{} {} {:?} {} calls", p.pid, p.name, p.state, p.calls.len())).collect()
}
