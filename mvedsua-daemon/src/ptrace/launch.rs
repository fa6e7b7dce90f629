//! Starting a program under trace, from its first instruction on.
//!
//! `PTRACE_TRACEME` would make a stop at the exec that is a SIGTRAP; so the child waits at a pipe until it is seized, and then
//! executes. Between the fork and the exec it only makes system calls: another thread may have held any lock.

use std::ffi::{CString, OsStr};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::inject::wait_stop;
use super::sys::{self, Resume};
use super::wait::{Inbox, Stop};
use super::{Error, Pid, Result};

/// The exit codes of a shell for a program that cannot be executed, and for one that is not there.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;
/// That of a child whose tracer has gone before it could seize it.
const ABANDONED: i32 = 125;

/// A program with its arguments and environment, ready for `execve(2)`.
#[derive(Clone, Debug)]
pub struct Program {
    path: CString,
    argv: Vec<CString>,
    /// The same for a script that names no interpreter, which `/bin/sh` executes.
    script: Vec<CString>,
    environment: Vec<CString>,
}

/// Why a program cannot be started, and the exit code that a shell would give.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct NotStarted {
    what: String,
    pub code: u8,
}

impl Program {
    /// Finds the program of a command as `execvp(3)` does, with the environment of this process.
    pub fn find(command: &[impl AsRef<OsStr>]) -> Result<Program, NotStarted> {
        let no = |what: String, code: i32| NotStarted { what, code: code as u8 };
        let Some(name) = command.first().map(AsRef::as_ref) else {
            return Err(no("no command was given".into(), ABANDONED));
        };
        let path = if name.as_bytes().contains(&b'/') {
            PathBuf::from(name)
        } else {
            let dirs = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
            let found = std::env::split_paths(&dirs).map(|dir| dir.join(name)).find(|path| is_executable(path));
            found.ok_or_else(|| no(format!("{}: not found", name.display()), NOT_FOUND))?
        };
        if !path.exists() {
            return Err(no(format!("{}: not found", path.display()), NOT_FOUND));
        }
        if !is_executable(&path) {
            return Err(no(format!("{}: not executable", path.display()), NOT_EXECUTABLE));
        }
        let c = |text: &OsStr| {
            CString::new(text.as_bytes()).map_err(|_| no("a NUL stands in the command".into(), ABANDONED))
        };
        let argv = command.iter().map(|word| c(word.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let path = c(path.as_os_str())?;
        let script = [c"/bin/sh".to_owned(), path.clone()].into_iter().chain(argv.iter().skip(1).cloned()).collect();
        let environment = std::env::vars_os()
            .map(|(name, value)| {
                let mut entry = name;
                entry.push("=");
                entry.push(value);
                c(&entry)
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Program { path, argv, script, environment })
    }

    /// The same program with another environment, of `NAME=value`; an entry with a NUL in it is left out.
    #[must_use]
    pub fn with_environment(self, environment: &[Vec<u8>]) -> Program {
        let environment = environment.iter().filter_map(|entry| CString::new(entry.clone()).ok()).collect();
        Program { environment, ..self }
    }

    /// Returns its path, its arguments and its environment.
    #[must_use]
    pub fn parts(&self) -> (&Path, Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let bytes = |list: &[CString]| list.iter().map(|text| text.as_bytes().to_vec()).collect();
        (Path::new(OsStr::from_bytes(self.path.as_bytes())), bytes(&self.argv), bytes(&self.environment))
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Which version a program is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It has our descriptors, and outlives its tracer.
    Leader,
    /// It has no descriptors, belongs to a session of its own, so that no signal of a group reaches it, and ends with its
    /// tracer.
    Follower,
}

/// Where the kernel puts a program's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Where it likes: each version has addresses of its own.
    #[default]
    Random,
    /// At the same place each time, `ADDR_NO_RANDOMIZE` of personality(2): the same program has the same addresses.
    Fixed,
}

/// Starts a program with a signal mask; its first thread stands at the return from its `execve`.
pub fn launch(inbox: &Inbox, program: &Program, side: Side, layout: Layout, mask: &libc::sigset_t) -> Result<Pid> {
    let failed = |op: &'static str| Error::Own { doing: op.into(), source: io::Error::last_os_error() };
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } == -1 {
        return Err(failed("a pipe for the start of a program"));
    }
    // SAFETY: both descriptors are new and nobody else's.
    let [waits, opens] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, script, environment) =
        (pointers(&program.argv), pointers(&program.script), pointers(&program.environment));
    // SAFETY: the child makes system calls only, on memory that was made before the fork, and executes or ends.
    let pid = unsafe {
        match libc::fork() {
            0 => {
                let mut byte = 0u8;
                libc::signal(libc::SIGPIPE, libc::SIG_DFL);
                libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut());
                libc::close(opens.as_raw_fd());
                while libc::read(waits.as_raw_fd(), (&raw mut byte).cast(), 1) != 1 {
                    if *libc::__errno_location() != libc::EINTR {
                        libc::_exit(ABANDONED);
                    }
                }
                if side == Side::Follower {
                    libc::setsid();
                    let close_on_exec = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
                    libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, close_on_exec);
                }
                if layout == Layout::Fixed {
                    let persona = libc::personality(u64::from(u32::MAX) as libc::c_ulong);
                    libc::personality(persona as libc::c_ulong | libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
                }
                libc::execve(program.path.as_ptr(), argv.as_ptr(), environment.as_ptr());
                if *libc::__errno_location() == libc::ENOEXEC {
                    libc::execve(c"/bin/sh".as_ptr(), script.as_ptr(), environment.as_ptr());
                }
                libc::_exit(NOT_EXECUTABLE)
            }
            -1 => return Err(failed("a process for a program")),
            pid => Pid(pid),
        }
    };
    drop(waits);
    let main = pid.main();
    let options = match side {
        Side::Leader => sys::OPTIONS_LEADER,
        Side::Follower => sys::OPTIONS_FOLLOWER,
    };
    sys::seize(main, options)?;
    std::fs::File::from(opens)
        .write_all(&[1])
        .map_err(|source| Error::Own { doing: "making the pipe for the start of a program".into(), source })?;
    loop {
        match wait_stop(inbox, main, "executing its program")? {
            Stop::Event(libc::PTRACE_EVENT_EXEC) => break,
            Stop::Signal(signo) => sys::resume(main, Resume::Cont, signo)?,
            Stop::Group(_) => sys::resume(main, Resume::Listen, 0)?,
            _ => sys::resume(main, Resume::Cont, 0)?,
        }
    }
    sys::resume(main, Resume::Syscall, 0)?;
    while wait_stop(inbox, main, "beginning its program")? != Stop::Syscall {
        sys::resume(main, Resume::Syscall, 0)?;
    }
    Ok(pid)
}

/// Returns the signal mask of the calling thread.
#[must_use]
pub fn signal_mask() -> libc::sigset_t {
    // SAFETY: a zeroed set is a valid one, and the call only writes to it.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask);
        mask
    }
}

/// Signals that are passed on to the program that was started.
const PASSED_ON: [i32; 6] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

fn passed_on() -> libc::sigset_t {
    // SAFETY: a zeroed set is a valid one; the calls below change this local alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signo in PASSED_ON {
            libc::sigaddset(&raw mut set, signo);
        }
        set
    }
}

/// Keeps the signals that are passed on from the calling thread and from those that it starts.
pub fn hold_signals() {
    let set = passed_on();
    // SAFETY: `set` outlives the call.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
}

/// Where a signal comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel, for a terminal: the whole process group gets it.
    Terminal,
    /// Another process.
    Process,
}

/// Waits for one of the signals that are passed on.
#[must_use]
pub fn next_signal() -> (i32, Source) {
    let set = passed_on();
    loop {
        // SAFETY: a zeroed `siginfo_t` is a valid one; both live across the call.
        let (signo, code) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            (libc::sigwaitinfo(&raw const set, &raw mut info), info.si_code)
        };
        const SI_KERNEL: i32 = 0x80;
        if signo > 0 {
            return (signo, if code == SI_KERNEL { Source::Terminal } else { Source::Process });
        }
    }
}
