//! Forked children that are on their way out of our hands.
//!
//! Whoever traces a parent traces its child, which stops at its birth. The parent's stop that tells of the child and the first stop
//! of the child come in any order (ptrace(2), `PTRACE_EVENT_FORK`). Whichever comes first, the child goes when both are there; it
//! would stand for ever otherwise. What a version is at the moment does not matter for that, so this is kept with its process.

use super::process::Process;
use crate::ptrace::inject::wait_stop;
use crate::ptrace::wait::{Inbox, Stop};
use crate::ptrace::{Result, Tid, sys};

/// What a forked child has of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ghost {
    OwnMemory,
    SharedMemory,
}

/// Says whether a thread that was just born stands at its first stop. Nobody is told of that stop any more.
pub(crate) fn stands(inbox: &Inbox, tid: Tid) -> bool {
    // Only a thread that stands at a stop has this.
    let stands = sys::get_siginfo(tid).is_ok();
    if stands {
        let _ = inbox.poll(tid.0);
    }
    stands
}

/// Waits until a thread that was just born stands at its first stop, whether somebody was told of that already or not. Says
/// whether it does; one that is gone does not.
///
/// # Errors
///
/// When waiting fails.
pub(crate) fn wait_until_it_stands(inbox: &Inbox, tid: Tid) -> Result<bool> {
    if stands(inbox, tid) {
        return Ok(true);
    }
    match wait_stop(inbox, tid, "being born") {
        Ok(_) => Ok(true),
        Err(error) if error.is_gone() => Ok(false),
        Err(error) => Err(error),
    }
}

impl Process {
    /// A stop of the parent tells of a child: it goes now, or when it comes to its first stop.
    pub(crate) fn on_child(&mut self, inbox: &Inbox, child: Tid, kind: Ghost) {
        if stands(inbox, child) {
            self.let_child_go(child, kind);
        } else {
            self.ghosts.push((child, kind));
        }
    }

    /// Deals with a stop of a thread that is none of this process's. Says whether it was of a child that it was told of; else its
    /// parent's stop is still to come, and finds it standing.
    pub(crate) fn on_stranger(&mut self, tid: Tid, stop: Stop) -> bool {
        let Some(at) = self.ghosts.iter().position(|(ghost, _)| *ghost == tid) else { return false };
        let (child, kind) = self.ghosts.swap_remove(at);
        if !stop.is_end() {
            self.let_child_go(child, kind);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::*;
    use crate::ptrace::Pid;
    use crate::ptrace::wait::Wake;
    use crate::tracee::process::{Zombies, let_go, park_all};
    use crate::update::birth;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A program that forks for each line that it reads; the child and then the parent write a byte.
    struct Forker {
        program: Child,
        said: Receiver<u8>,
    }

    impl Forker {
        fn start() -> Forker {
            const TEXT: &str = "import os, sys\nos.write(1, b'.')\nwhile os.read(0, 1):\n  if os.fork() == 0:\n    os.write(1, b'c')\n    \
                os._exit(0)\n  os.wait()\n  os.write(1, b'p')\n";
            let mut command = Command::new("python3");
            command.args(["-c", TEXT]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut program = command.spawn().expect("python3 starts");
            let stdout = program.stdout.take().expect("it is piped");
            let (sender, said) = channel();
            std::thread::spawn(move || {
                for byte in std::io::BufReader::new(stdout).bytes().map_while(Result::ok) {
                    let _ = sender.send(byte);
                }
            });
            assert_eq!(said.recv_timeout(LIMIT), Ok(b'.'), "it runs");
            Forker { program, said }
        }

        fn pid(&self) -> Pid {
            Pid(self.program.id() as i32)
        }

        /// It forks; returns when its stop was taken, and with `both` the child's, too. Nothing was done about either.
        fn forks(&mut self, inbox: &Inbox, both: bool) -> Tid {
            let stdin = self.program.stdin.as_mut().expect("it is piped");
            stdin.write_all(b".").expect("it reads");
            let (mut told, mut stands) = (None, None);
            loop {
                match inbox.wait().expect("it can be waited for") {
                    Wake::Stop(tid, Stop::Event(_)) if tid == self.pid().main() => {
                        told = Some(Tid(sys::event_message(tid).expect("it stands") as i32));
                    }
                    Wake::Stop(tid, stop) if tid == self.pid().main() => let_go(tid, stop).expect("it goes on"),
                    Wake::Stop(tid, _) => stands = Some(tid),
                    Wake::Bell | Wake::NoTracees => unreachable!("nobody rings, and it runs"),
                }
                match told {
                    Some(child) if !both || stands == told => return child,
                    _ => {}
                }
            }
        }

        fn expect_both(&self, when: &str) {
            let said: Vec<_> = (0..2).map(|_| self.said.recv_timeout(LIMIT).expect(when)).collect();
            assert_eq!(said, b"cp", "{when}");
        }
    }

    impl Drop for Forker {
        fn drop(&mut self) {
            let _ = self.program.kill();
            let _ = self.program.wait();
        }
    }

    #[test]
    fn a_child_goes_whoever_was_told_of_what() {
        let mut forker = Forker::start();
        let (pid, inbox) = (forker.pid(), Inbox::new());
        let release = |process: Process| {
            let parked = park_all(&inbox, &process, LIMIT).expect("it stops");
            process.release(&inbox, parked, Zombies::These(Vec::new())).expect("it is put back");
        };
        for _ in 0..10 {
            let process = birth::prepare(&inbox, pid, LIMIT).expect("it can be prepared");
            forker.forks(&inbox, true);
            release(process);
            forker.expect_both("both stops were taken, and nothing was done about them");

            let process = birth::prepare(&inbox, pid, LIMIT).expect("it can be prepared");
            forker.forks(&inbox, false);
            release(process);
            forker.expect_both("the parent's stop was taken, and nothing was done about it");

            let mut process = birth::prepare(&inbox, pid, LIMIT).expect("it can be prepared");
            let child = forker.forks(&inbox, false);
            process.on_child(&inbox, child, Ghost::OwnMemory);
            sys::resume(pid.main(), sys::Resume::Syscall, 0).expect("it goes on");
            release(process);
            forker.expect_both("the parent went on, and its child was perhaps not there");

            let mut process = birth::prepare(&inbox, pid, LIMIT).expect("it can be prepared");
            let child = forker.forks(&inbox, true);
            process.on_child(&inbox, child, Ghost::OwnMemory);
            assert!(process.ghosts.is_empty() && !process.on_stranger(child, Stop::Interrupted));
            sys::resume(pid.main(), sys::Resume::Syscall, 0).expect("it goes on");
            release(process);
            forker.expect_both("the child went before its parent");
        }
    }
}
