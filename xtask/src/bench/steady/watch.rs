//! Who watches: nobody, mvedsuad, or another tool.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::daemon::Daemon;
use harness::process;
use harness::wait::try_wait_for;
use nix::sys::signal::Signal;

/// How long a tool may take to attach or to end.
const TOOL_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watcher {
    Nobody,
    Sampled,
    Exact,
    /// `strace -c -f`
    Strace,
    /// `perf trace -s`
    PerfTrace,
}

impl Watcher {
    pub(super) fn name(self) -> &'static str {
        match self {
            Watcher::Nobody => "alone",
            Watcher::Sampled => "sampled",
            Watcher::Exact => "exact",
            Watcher::Strace => "strace -c -f",
            Watcher::PerfTrace => "perf trace -s",
        }
    }
}

/// A watch that has begun.
pub(super) enum Watch<'a> {
    Nobody,
    Attached { daemon: &'a Daemon, pid: String },
    Tool(Tool),
}

impl<'a> Watch<'a> {
    /// Begins to watch a process; returns when it is watched.
    pub(super) fn begin(daemon: &'a Daemon, watcher: Watcher, pid: i32) -> Result<Watch<'a>> {
        let pid_text = pid.to_string();
        match watcher {
            Watcher::Nobody => Ok(Watch::Nobody),
            Watcher::Sampled | Watcher::Exact => {
                let output = daemon.run(&["attach", &pid_text, "--mode", watcher.name()])?;
                ensure!(output.code == 0, "attach: {}{}", output.stdout, output.stderr);
                Ok(Watch::Attached { daemon, pid: pid_text })
            }
            Watcher::Strace => {
                let strace = process::find_program("strace")?;
                let mut command = Command::new(strace);
                command.args(["-c", "-f", "-q", "-o", "/dev/null", "-p", &pid_text]);
                let tool = Tool::start(command)?;
                let by = format!("TracerPid:\t{}", tool.0.id());
                tool.wait_until("strace to attach", || all_threads(pid, &by))?;
                Ok(Watch::Tool(tool))
            }
            Watcher::PerfTrace => {
                let tool = Tool::start(perf_trace(&pid_text))?;
                let fds = format!("/proc/{}/fd", tool.0.id());
                tool.wait_until("perf to open its events", || has_perf_event(Path::new(&fds)))?;
                Ok(Watch::Tool(tool))
            }
        }
    }

    pub(super) fn end(self) -> Result<()> {
        match self {
            Watch::Nobody => Ok(()),
            Watch::Attached { daemon, pid } => {
                let output = daemon.run(&["detach", &pid])?;
                ensure!(output.code == 0, "detach: {}{}", output.stdout, output.stderr);
                Ok(())
            }
            Watch::Tool(tool) => tool.end(),
        }
    }
}

/// perf wants tracefs; where it is not mounted, it gets a mount that nobody else sees and that goes with it.
fn perf_trace(pid: &str) -> Command {
    let mut command = Command::new("unshare");
    let script = "[ -e /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing; \
                  exec perf trace -s -o /dev/null -p \"$0\"";
    command.args(["--mount", "sh", "-c", script, pid]);
    command
}

fn all_threads(pid: i32, line: &str) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().all(|task| {
        fs::read_to_string(task.path().join("status")).is_ok_and(|status| status.lines().any(|l| l == line))
    })
}

fn has_perf_event(fds: &Path) -> bool {
    let Ok(entries) = fs::read_dir(fds) else { return false };
    entries.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("[perf_event]")))
}

/// A running tool; ends with its owner.
pub(super) struct Tool(Child);

impl Tool {
    fn start(mut command: Command) -> Result<Tool> {
        let text = crate::sh::shown(&command);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child.map(Tool).with_context(|| format!("cannot start `{text}`"))
    }

    fn wait_until(&self, what: &str, check: impl Fn() -> bool) -> Result<()> {
        try_wait_for(TOOL_LIMIT, || check().then_some(())).with_context(|| format!("waited in vain for {what}"))
    }

    /// Interrupts it, as one would at the keyboard, and waits for its end.
    fn end(mut self) -> Result<()> {
        process::signal(self.0.id().cast_signed(), Signal::SIGINT);
        let ended = try_wait_for(TOOL_LIMIT, || self.0.try_wait().ok().flatten());
        ended.map(|_| ()).context("the tool does not end")
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // Something failed; there is nobody to tell of another error here.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
