//! Runs the command of a gate, with as few rights as it needs and for as long as it may.
//!
//! It runs as the user who is configured, in a process group of its own, with a clean environment, in `/`, without new
//! privileges, and with nothing of the daemon's but three pipes. When it ends, is too slow, or nobody wants its answer any more,
//! the whole group ends. A thread of its own does it: the promise to gain no privileges binds the thread that makes it.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, User, geteuid};
use tokio::sync::oneshot;

use super::answer::plain;

/// The most that it may say.
const LONGEST: usize = 64 << 10;
/// How often it is looked at while it says nothing.
const LOOK: Duration = Duration::from_millis(50);

/// What is to be run.
pub(super) struct Run {
    pub(super) command: Vec<String>,
    pub(super) user: String,
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) input: Vec<u8>,
    pub(super) within: Duration,
}

/// Nobody waits any more when this is dropped.
struct Interest(Arc<AtomicBool>);

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a command, and returns what it has written.
///
/// # Errors
///
/// Where it cannot be run, is too slow, or fails.
pub(super) async fn output(run: Run) -> Result<String, String> {
    let (tell, told) = oneshot::channel();
    let given_up = Arc::new(AtomicBool::new(false));
    let interest = Interest(Arc::clone(&given_up));
    let thread = std::thread::Builder::new().name("gate".to_owned());
    let spawned = thread.spawn(move || {
        // Where nobody listens any more nobody wants to know.
        let _ = tell.send(run_until(&run, &given_up));
    });
    spawned.map_err(|e| format!("no thread for the command: {e}"))?;
    let output = told.await.unwrap_or_else(|_| Err("the daemon's own thread for the command failed".to_owned()));
    drop(interest);
    output
}

fn run_until(run: &Run, given_up: &AtomicBool) -> Result<String, String> {
    let program = run.command.first().ok_or("there is no command")?;
    let named = |e: io::Error| format!("{program}: {e}");
    rustix::thread::set_no_new_privs(true).map_err(|e| format!("giving up privileges: {e}"))?;
    let mut command = Command::new(program);
    command
        .args(&run.command[1..])
        .env_clear()
        .envs(run.environment.iter().map(|(key, value)| (*key, value.as_str())))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if geteuid().is_root() {
        let user =
            User::from_name(&run.user).ok().flatten().ok_or_else(|| format!("there is no user `{}`", run.user))?;
        // It also leaves the daemon's groups.
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    // Whoever started the daemon may have left it descriptors that would come along.
    crate::ptrace::sys::close_on_exec().map_err(|e| format!("keeping descriptors back: {e}"))?;
    let deadline = Instant::now() + run.within;
    let mut child = command.spawn().map_err(named)?;
    let (said, end) = listen(&mut child, &run.input, deadline, given_up);
    let group = Pid::from_raw(child.id().cast_signed());
    // Before it is reaped: as long as its number is its own, so is the group's.
    let _ = killpg(group, Signal::SIGKILL);
    let status = child.wait().map_err(named)?;
    match end {
        End::Itself => judge(program, &said, status),
        End::Late => Err(format!("{program}: it did not end within {}", humantime::format_duration(run.within))),
        End::TooMuch => Err(format!("{program}: it wrote more than {LONGEST} bytes")),
        End::GivenUp => Err("nobody waits for it any more".to_owned()),
    }
}

/// How it came to its end.
enum End {
    Itself,
    Late,
    TooMuch,
    GivenUp,
}

/// What it has written.
#[derive(Default)]
struct Said {
    out: Vec<u8>,
    err: Vec<u8>,
}

fn judge(program: &str, said: &Said, status: ExitStatus) -> Result<String, String> {
    if status.success() {
        return Ok(String::from_utf8_lossy(&said.out).into_owned());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    };
    let complaint = String::from_utf8_lossy(&said.err);
    let last = complaint.lines().rfind(|line| !line.trim().is_empty()).map(|line| format!(", {}", plain(line, 200)));
    Err(format!("{program}: {how}{}", last.unwrap_or_default()))
}

/// Listens until it has ended, the time is over, it says too much, or nobody waits any more.
fn listen(child: &mut Child, input: &[u8], deadline: Instant, given_up: &AtomicBool) -> (Said, End) {
    let mut said = Said::default();
    if let Some(mut stdin) = child.stdin.take() {
        // It is less than a pipe holds; whoever does not read it does not want it.
        let _ = stdin.write_all(input);
    }
    let mut out: Option<OwnedFd> = child.stdout.take().map(OwnedFd::from);
    let mut err: Option<OwnedFd> = child.stderr.take().map(OwnedFd::from);
    let pid = Pid::from_raw(child.id().cast_signed());
    loop {
        let has_ended = has_ended(pid);
        let wait = if has_ended { Duration::ZERO } else { LOOK };
        let read = read(&mut out, &mut said.out, wait) | read(&mut err, &mut said.err, Duration::ZERO);
        if said.out.len() + said.err.len() > LONGEST {
            return (said, End::TooMuch);
        }
        // Who has inherited its pipes may hold them open; what counts is what it has written itself.
        if has_ended && !read {
            return (said, End::Itself);
        }
        if Instant::now() >= deadline {
            return (said, End::Late);
        }
        if given_up.load(Ordering::Relaxed) {
            return (said, End::GivenUp);
        }
        if out.is_none() && !has_ended {
            std::thread::sleep(LOOK);
        }
    }
}

/// Returns whether a child has ended, and leaves it to be waited for.
fn has_ended(pid: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive))
}

/// Reads what is there within a time; returns whether anything was. A pipe that has ended is dropped.
fn read(from: &mut Option<OwnedFd>, to: &mut Vec<u8>, within: Duration) -> bool {
    let Some(fd) = from else { return false };
    let mut polled = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::ZERO);
    if !poll(&mut polled, timeout).is_ok_and(|ready| ready > 0) {
        return false;
    }
    let mut buffer = [0; 4096];
    let read = fd.try_clone().map(std::fs::File::from).and_then(|mut file| file.read(&mut buffer));
    match read {
        Ok(read @ 1..) => {
            to.extend_from_slice(&buffer[..read]);
            true
        }
        Ok(0) | Err(_) => {
            *from = None;
            false
        }
    }
}
