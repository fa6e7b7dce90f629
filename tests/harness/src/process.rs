//! Processes by pid, with deadlines.
//!
//! A server is started as the leader of a session of its own: whatever is forked from it, by itself or by the daemon,
//! stays in the session, so it can be found and ended although it is nobody's child any more. The test process is the
//! reaper of such orphans.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::wait::{try_wait_for, wait_for};

/// How long anything that should end at once may take.
const END_LIMIT: Duration = Duration::from_secs(10);

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub pid: i32,
    pub name: String,
    /// `R`, `S`, `T` (stopped), `t` (traced and stopped), `Z` (zombie), …
    pub state: char,
    pub parent: i32,
    pub session: i32,
    /// Processor time that it has used, clock ticks.
    pub used: u64,
    /// When it was started, clock ticks since the boot: with the number it says which process this is.
    pub started: u64,
}

/// Reads `/proc/<pid>/stat`; `None` when there is no such process. One whose main thread has ended is no zombie as long as
/// others of its threads have not: it holds what it has open until then.
#[must_use]
pub fn stat(pid: i32) -> Option<Stat> {
    let mut stat = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    if stat.state == 'Z'
        && let Some((_, state)) = thread_states(pid).into_iter().find(|(_, state)| !matches!(state, 'Z' | 'X'))
    {
        stat.state = state;
    }
    Some(stat)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may hold anything, brackets too: it ends at the last one.
    let (head, tail) = text.rsplit_once(')')?;
    let (pid, name) = head.split_once('(')?;
    let mut fields = tail.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let user: u64 = fields.nth(7)?.parse().ok()?;
    let used = user + fields.next()?.parse::<u64>().ok()?;
    let started = fields.nth(6)?.parse().ok()?;
    Some(Stat { pid: pid.trim().parse().ok()?, name: name.to_owned(), state, parent, session, used, started })
}

/// Says whether the process runs (a zombie does not).
#[must_use]
pub fn alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Returns all processes, zombies too.
#[must_use]
pub fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").expect("/proc can be listed");
    entries.filter_map(|entry| stat(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// Returns the living members of a session.
#[must_use]
pub fn session(session: i32) -> Vec<Stat> {
    all().into_iter().filter(|stat| stat.session == session && !matches!(stat.state, 'Z' | 'X')).collect()
}

/// Returns the states of a process's threads.
#[must_use]
pub fn thread_states(pid: i32) -> Vec<(i32, char)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let tids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    tids.filter_map(|tid| {
        Some((tid, parse_stat(&fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?)?.state))
    })
    .collect()
}

/// Says where in the kernel each thread of a process and of what it traces stands; for what is printed when something does not
/// end.
#[must_use]
pub fn stacks(pid: i32) -> String {
    let threads: Vec<i32> = thread_states(pid).into_iter().map(|(tid, _)| tid).collect();
    let traced = all().into_iter().map(|stat| stat.pid).filter(|pid| threads.contains(&tracer(*pid)));
    std::iter::once(pid).chain(traced).map(stacks_of).collect()
}

/// The thread that traces a process, 0 where none does.
fn tracer(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    line.and_then(|tid| tid.trim().parse().ok()).unwrap_or(0)
}

fn stacks_of(pid: i32) -> String {
    let mut text = String::new();
    for (tid, state) in thread_states(pid) {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{file}")).unwrap_or_default();
        let stack = read("stack");
        let frames: Vec<&str> = stack.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        let (name, call) = (read("comm"), read("syscall"));
        text.push_str(&format!("\n  {pid}/{tid} {} {state}: {}; {}", name.trim(), call.trim(), frames.join(" < ")));
    }
    text
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: i32, signal: Signal) {
    assert!(pid > 1, "no signal to pid {pid}");
    if let Err(error) = kill(Pid::from_raw(pid), signal) {
        assert_eq!(error, nix::errno::Errno::ESRCH, "{signal} to {pid}");
    }
}

/// Sends a signal to one thread of a process, `tgkill(2)`.
pub fn signal_thread(pid: i32, tid: i32, signal: Signal) {
    let call = "exit(syscall(234, map { $_ + 0 } @ARGV) == 0 ? 0 : 1)";
    let args = [pid, tid, signal as i32].map(|number| number.to_string());
    let status = Command::new("perl").args(["-e", call]).args(args).status();
    assert!(status.is_ok_and(|status| status.success()), "{signal} to thread {tid}");
}

/// Kills a process and waits until it is gone; reaps it if it is ours.
pub fn end(pid: i32) {
    signal(pid, Signal::SIGKILL);
    wait_gone(pid, END_LIMIT);
}

/// Waits until a process is gone; reaps it if it is ours.
pub fn wait_gone(pid: i32, limit: Duration) {
    wait_for(&format!("the end of process {pid}"), limit, || {
        reap(pid);
        (!alive(pid)).then_some(())
    });
}

/// Returns how a child of ours ended, if it has.
pub fn reap(pid: i32) -> Option<WaitStatus> {
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) | Err(_) => None,
        Ok(status) => Some(status),
    }
}

/// Makes this process the reaper of what it starts, so that orphans of a server come back to it.
pub fn become_subreaper() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| nix::sys::prctl::set_child_subreaper(true).expect("a process may become a subreaper"));
}

/// A program that leads a session of its own. All of the session is killed on drop, and also when this process is killed.
#[derive(Debug)]
pub struct Program {
    pid: i32,
    /// Kills the session when its standard input closes, which it does however this process ends.
    guard: Option<Child>,
    child: Child,
}

impl Program {
    /// Starts a program; `log` receives what it prints.
    pub fn start(program: &Path, args: &[String], dir: &Path, log: &Path) -> Result<Program> {
        become_subreaper();
        let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        // `setsid` forks only where it leads a process group, which a child of ours does not: the pid stays.
        let child = Command::new("setsid")
            .arg(program)
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let pid = child.id() as i32;
        let guard = Command::new("setsid")
            .args(["sh", "-c", "read -r _; pkill -KILL -s \"$0\"", &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the guard")?;
        Ok(Program { pid, guard: Some(guard), child })
    }

    /// The pid of the program as it was started.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns the living processes of the session.
    #[must_use]
    pub fn members(&self) -> Vec<Stat> {
        session(self.pid)
    }

    /// Waits until the program as it was started has ended; returns its exit status, `None` where a signal ended it or it runs
    /// still.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<i32> {
        try_wait_for(limit, || self.child.try_wait().ok().flatten())?.code()
    }

    /// Says whether the program as it was started still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        alive(self.pid)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            // By pid and before its pipe closes: it is not needed any more.
            let _ = guard.kill();
            let _ = guard.wait();
        }
        let mut seen = Vec::new();
        let gone = try_wait_for(END_LIMIT, || {
            let members = session(self.pid);
            for member in &members {
                let _ = kill(Pid::from_raw(member.pid), Signal::SIGKILL);
                seen.push(member.pid);
            }
            members.is_empty().then_some(())
        });
        let _ = self.child.try_wait();
        seen.sort_unstable();
        seen.dedup();
        for pid in seen {
            reap(pid);
        }
        if gone.is_none() && !std::thread::panicking() {
            panic!("processes of session {} cannot be ended: {:?}", self.pid, session(self.pid));
        }
    }
}

/// Returns how many bytes of code a process has mapped that are of no file: what updates have loaded, besides the kernel's own.
#[must_use]
pub fn anonymous_code(pid: i32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let len = |line: &str| {
        let mut words = line.split_whitespace();
        let (range, flags) = (words.next()?, words.next()?);
        let is_meant = flags.contains('x') && words.nth(2)? == "0" && words.next().is_none();
        let (start, end) = range.split_once('-').filter(|_| is_meant)?;
        Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
    };
    maps.lines().filter_map(len).sum()
}

/// Returns the path of a program, looked up as the shell does, and in the places for system programs.
pub fn find_program(name: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].into_iter().chain(path.split(':'));
    let found = dirs.map(|dir| Path::new(dir).join(name)).find(|path| path.is_file());
    found
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        .with_context(|| format!("{name} is not installed; `cargo xtask setup` installs what the tests need"))
}

/// Pins a process with all its threads to the given processors.
pub fn pin(pid: i32, cpus: &str) -> Result<()> {
    let status = Command::new("taskset").args(["-a", "-p", "-c", cpus, &pid.to_string()]).output()?;
    ensure!(status.status.success(), "taskset: {}", String::from_utf8_lossy(&status.stderr));
    Ok(())
}
