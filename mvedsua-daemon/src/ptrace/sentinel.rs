//! What tells a signal that was sent to a whole process group from one that was sent to us alone.
//!
//! A program that was started by us is in our process group, as if it stood in our place: a shell's pipeline and its terminal
//! know the group. So what somebody sends to the group comes to both, and must not be passed on to the program once more. A
//! child of ours that is in the group too, and that nobody knows of, is sent what is sent to the group and nothing else. It
//! blocks all signals, and is asked which have come.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

use super::{Error, Result};

/// How long it may take to answer: where it is stopped, with the rest of the group, nothing is said.
const PATIENCE: Duration = Duration::from_secs(1);

/// The child; it ends when this is dropped, and when we end.
#[derive(Debug)]
pub struct Sentinel {
    pid: i32,
    wire: OwnedFd,
}

impl Sentinel {
    /// Puts one into our process group.
    pub fn start() -> Result<Sentinel> {
        let failed = |source| Error::Proc { path: "a process that hears signals to the group".into(), source };
        let (ours, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|error| failed(error.into()))?;
        set_socket_timeout(&ours, Timeout::Recv, Some(PATIENCE)).map_err(|error| failed(error.into()))?;
        // SAFETY: the child makes system calls only, on memory that was made before the fork, until it ends.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: this is the new process, and it has the descriptor.
                unsafe { stand(its.as_raw_fd()) }
            }
            -1 => Err(failed(io::Error::last_os_error())),
            pid => Ok(Sentinel { pid, wire: ours }),
        }
    }

    /// Says whether a signal that has come to us was sent to our whole group, for one sending of it.
    #[must_use]
    pub fn was_for_all(&self, signo: i32) -> bool {
        // The kernel sends to one member after the other and lets nobody change a group meanwhile (`kill_something_info` of
        // kernel/signal.c, `setpgid` of kernel/sys.c): behind this, which changes nothing, all have got it.
        // SAFETY: both take integers only.
        unsafe { libc::setpgid(self.pid, libc::getpgrp()) };
        let mut said = [0u8];
        send(&self.wire, &[signo as u8], SendFlags::NOSIGNAL).is_ok()
            && recv(&self.wire, &mut said, RecvFlags::empty()).is_ok_and(|(got, _)| got == 1)
            && said[0] == 1
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // SAFETY: takes integers and a null pointer only. It is ours, and nobody else waits for it.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// Answers for each signal whether it has come since it was asked for last, until nobody is left to ask.
///
/// # Safety
///
/// To be called in a new process alone, of which nothing is used afterwards; `wire` must be open.
unsafe fn stand(wire: i32) -> ! {
    // SAFETY: system calls on local memory.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        libc::prctl(libc::PR_SET_NAME, c"mvedsua-group".as_ptr());
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // Nothing that we have open is to stay open for its sake.
        libc::dup2(wire, 0);
        libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0);
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let mut signo = 0u8;
        while libc::read(0, (&raw mut signo).cast(), 1) == 1 {
            let mut one: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut one);
            libc::sigaddset(&raw mut one, i32::from(signo));
            let came = u8::from(libc::sigtimedwait(&raw const one, std::ptr::null_mut(), &raw const now) > 0);
            if libc::write(0, (&raw const came).cast(), 1) != 1 {
                break;
            }
        }
        libc::_exit(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_to_one_is_told_from_what_is_sent_to_all() {
        // Another process, since nothing may be sent to the group of the tests.
        // SAFETY: the child makes system calls and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above.
            unsafe {
                libc::setpgid(0, 0);
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::sigfillset(&raw mut set);
                libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
                let Ok(sentinel) = Sentinel::start() else { libc::_exit(1) };
                libc::kill(libc::getpid(), libc::SIGUSR1);
                if sentinel.was_for_all(libc::SIGUSR1) {
                    libc::_exit(2);
                }
                libc::kill(0, libc::SIGUSR2);
                if !sentinel.was_for_all(libc::SIGUSR2) {
                    libc::_exit(3);
                }
                if sentinel.was_for_all(libc::SIGUSR2) {
                    libc::_exit(4);
                }
                drop(sentinel);
                libc::_exit(0)
            }
        }
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
    }
}
