//! Tries on a child of one's own whether the kernel lets processes be traced as the engine needs it.

use std::fs;
use std::io::{self, IoSliceMut};
use std::process::{Child, Command, Stdio};

use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What came of each request.
#[derive(Debug)]
pub struct Tried {
    pub seize: io::Result<()>,
    pub syscall_info: io::Result<()>,
    pub sysemu: io::Result<()>,
    pub read_memory: io::Result<()>,
}

/// Traces a child, which runs this executable with the argument `probe-tracee`.
#[must_use]
pub fn try_tracing() -> Tried {
    let tracee = match Tracee::start() {
        Ok(tracee) => tracee,
        Err(e) => {
            let untried = || Err(io::Error::other("no process can be traced"));
            return Tried { seize: Err(e), syscall_info: untried(), sysemu: untried(), read_memory: untried() };
        }
    };
    let syscall = ptrace::syscall(tracee.pid, None).map_err(io::Error::from).and_then(|()| tracee.wait());
    let syscall_info = syscall.and_then(|()| Ok(ptrace::syscall_info(tracee.pid).map(drop)?));
    let sysemu = ptrace::sysemu(tracee.pid, None).map_err(io::Error::from).and_then(|()| tracee.wait());
    Tried { seize: Ok(()), syscall_info, sysemu, read_memory: tracee.read_memory() }
}

/// Waits for standard input to end, with a call every few milliseconds: the part of the process that is traced.
pub fn be_traced() {
    const BETWEEN_CALLS: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    let stdin = io::stdin();
    let mut inputs = [PollFd::new(&stdin, PollFlags::IN)];
    while poll(&mut inputs, Some(&BETWEEN_CALLS)).is_ok_and(|ready| ready == 0) {}
}

/// A child that is traced.
struct Tracee {
    child: Child,
    pid: Pid,
}

impl Tracee {
    fn start() -> io::Result<Tracee> {
        let child = Command::new("/proc/self/exe").arg("probe-tracee").stdin(Stdio::piped()).spawn()?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let tracee = Tracee { child, pid };
        ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL)?;
        ptrace::interrupt(pid)?;
        tracee.wait()?;
        Ok(tracee)
    }

    fn wait(&self) -> io::Result<()> {
        match waitpid(self.pid, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => Err(io::Error::other("the traced child has ended")),
            WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive => Ok(()),
        }
    }

    /// Reads the first bytes of the child's own executable out of its memory.
    fn read_memory(&self) -> io::Result<()> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid))?;
        let start = maps.split('-').next().and_then(|start| usize::from_str_radix(start, 16).ok());
        let base = start.ok_or_else(|| io::Error::other("the child's map is empty"))?;
        let mut bytes = [0; 4];
        let local = &mut [IoSliceMut::new(&mut bytes)];
        let read = process_vm_readv(self.pid, local, &[RemoteIoVec { base, len: 4 }])?;
        if read == 4 && &bytes == b"\x7fELF" { Ok(()) } else { Err(io::Error::other("it read something else")) }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // It may have ended already; either way it is collected.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
