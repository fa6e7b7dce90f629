//! The inbox of a tracer thread: stops of its tracees and messages of other threads, in one blocking call.
//!
//! `wait4(2)` cannot wait for anything but children, and a signal that arrives just before it blocks would be lost. The
//! classic cure (musl's cancellation points, the kernel's own restartable sequences) is used: the check of the bell and
//! the `syscall` instruction form one short sequence, and the signal handler moves a thread that it finds inside the
//! sequence to its end. So a message can never be slept through, and nothing polls.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Once};

use super::{Error, Result, Tid};

/// What a thread reports when it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At the entry or the exit of a call; [`super::sys::syscall_info`] says which.
    Syscall,
    /// About to be given a signal.
    Signal(i32),
    /// A job-control stop.
    Group(i32),
    /// Stopped because we asked, or a thread that was just born.
    Interrupted,
    /// `PTRACE_EVENT_CLONE`, `FORK`, `VFORK`, `EXEC`, … (the raw event number).
    Event(i32),
    Exited(i32),
    Killed(i32),
}

impl Stop {
    /// Decodes a `wait(2)` status, ptrace(2) "Stopped tracee".
    #[must_use]
    pub fn decode(status: i32) -> Stop {
        if libc::WIFEXITED(status) {
            return Stop::Exited(libc::WEXITSTATUS(status));
        }
        if libc::WIFSIGNALED(status) {
            return Stop::Killed(libc::WTERMSIG(status));
        }
        let signo = libc::WSTOPSIG(status);
        match status >> 16 {
            0 if signo == libc::SIGTRAP | 0x80 => Stop::Syscall,
            0 => Stop::Signal(signo),
            libc::PTRACE_EVENT_STOP if signo == libc::SIGTRAP => Stop::Interrupted,
            libc::PTRACE_EVENT_STOP => Stop::Group(signo),
            event => Stop::Event(event),
        }
    }

    /// Says whether the thread is gone.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Stop::Exited(_) | Stop::Killed(_))
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stop::Syscall => write!(f, "at a call"),
            Stop::Signal(signo) => write!(f, "at signal {signo}"),
            Stop::Group(signo) => write!(f, "stopped by signal {signo}"),
            Stop::Interrupted => write!(f, "interrupted"),
            Stop::Event(event) => write!(f, "at ptrace event {event}"),
            Stop::Exited(code) => write!(f, "exited with code {code}"),
            Stop::Killed(signo) => write!(f, "killed by signal {signo}"),
        }
    }
}

/// Why [`Inbox::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    Stop(Tid, Stop),
    /// Somebody rang, see [`Bell::ring`].
    Bell,
    /// The thread has no tracees and nobody rang.
    NoTracees,
}

/// Wakes the owner of an [`Inbox`] from any thread.
#[derive(Debug)]
pub struct Bell {
    /// 1 from the ring until the owner has seen it.
    rung: AtomicU32,
    /// The owner's kernel thread id while it waits, else 0; a ring then sends it the wake-up signal.
    sleeper: AtomicI32,
}

impl Bell {
    /// Makes the owner's next (or current) wait return [`Wake::Bell`].
    pub fn ring(&self) {
        if self.rung.swap(1, Ordering::SeqCst) == 0 {
            let tid = self.sleeper.load(Ordering::SeqCst);
            if tid != 0 {
                // SAFETY: takes integers only; the handler for this signal was installed before the tid was published.
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, wake_signal()) };
            }
        }
    }
}

/// After how many stops all that are there are taken.
const TAKE_ALL_AFTER: u32 = 16;

/// The waiting end, owned by the one thread that may call ptrace on its tracees.
#[derive(Debug)]
pub struct Inbox {
    bell: Arc<Bell>,
    tid: i32,
    /// Stops that were taken and not yet returned, in their order.
    taken: RefCell<VecDeque<(Tid, Stop)>>,
    /// How many stops were returned since all that were there were taken.
    since: Cell<u32>,
    /// `ptrace(2)` requests are valid only from the attaching thread.
    not_send: PhantomData<Cell<*const ()>>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    /// Creates the inbox of the calling thread.
    #[must_use]
    pub fn new() -> Inbox {
        install_handler();
        // SAFETY: gettid has no arguments and cannot fail.
        let tid = unsafe { libc::gettid() };
        Inbox {
            bell: Arc::new(Bell { rung: AtomicU32::new(0), sleeper: AtomicI32::new(0) }),
            tid,
            taken: RefCell::default(),
            since: Cell::new(0),
            not_send: PhantomData,
        }
    }

    #[must_use]
    pub fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Waits for a stop of any tracee of this thread or for the bell, whichever comes first.
    ///
    /// The kernel returns the first in its list that has stopped. Where some threads stop all the time, the later ones would
    /// never be returned; so now and then all that are there are taken, and none of them is looked at twice before all are.
    pub fn wait(&self) -> Result<Wake> {
        if self.bell.rung.load(Ordering::SeqCst) == 0
            && let Some((tid, stop)) = self.taken.borrow_mut().pop_front()
        {
            return Ok(Wake::Stop(tid, stop));
        }
        let wake = self.wait_in_kernel(-1)?;
        if let Wake::Stop(..) = wake {
            self.since.set(self.since.get() + 1);
            if self.since.get() >= TAKE_ALL_AFTER {
                self.since.set(0);
                let all = std::iter::from_fn(|| self.take(-1).ok().flatten());
                self.taken.borrow_mut().extend(all);
            }
        }
        match wake {
            Wake::NoTracees => {
                Ok(self.taken.borrow_mut().pop_front().map_or(wake, |(tid, stop)| Wake::Stop(tid, stop)))
            }
            wake => Ok(wake),
        }
    }

    /// Waits for a stop of one tracee or for the bell.
    ///
    /// That the first thread of a process has ended is told when all others have been waited for, `ptrace(2)`: who waited for it
    /// alone would wait for ever. So the wait for it is one for any, and what comes meanwhile is kept. Another thread is waited
    /// for by its own id, which the kernel finds at once; for any it looks through all.
    pub fn wait_for(&self, tid: i32) -> Result<Wake> {
        if let Some((tid, stop)) = self.taken_of(tid) {
            return Ok(Wake::Stop(tid, stop));
        }
        if !is_first(tid) {
            return self.wait_in_kernel(tid);
        }
        loop {
            match self.take(tid) {
                Ok(Some((tid, stop))) => return Ok(Wake::Stop(tid, stop)),
                Ok(None) => {}
                // There are others perhaps, but this one is none of ours.
                Err(libc::ECHILD) => return Ok(Wake::NoTracees),
                Err(errno) => return Err(wait_failed(tid, errno)),
            }
            match self.wait_in_kernel(-1)? {
                Wake::Stop(of, stop) if of.0 == tid => return Ok(Wake::Stop(of, stop)),
                Wake::Stop(of, stop) => self.taken.borrow_mut().push_back((of, stop)),
                other => return Ok(other),
            }
        }
    }

    fn taken_of(&self, tid: i32) -> Option<(Tid, Stop)> {
        let mut taken = self.taken.borrow_mut();
        let at = taken.iter().position(|(of, _)| tid == -1 || of.0 == tid)?;
        taken.remove(at)
    }

    fn wait_in_kernel(&self, tid: i32) -> Result<Wake> {
        loop {
            self.bell.sleeper.store(self.tid, Ordering::SeqCst);
            let mut status = 0i32;
            // SAFETY: `status` and the bell outlive the call; the assembly follows the C calling convention.
            let ret = unsafe {
                wait4_unless(self.bell.rung.as_ptr(), &raw mut status, libc::__WALL | libc::__WNOTHREAD, i64::from(tid))
            };
            self.bell.sleeper.store(0, Ordering::SeqCst);
            if ret > 0 {
                return Ok(Wake::Stop(Tid(ret as i32), Stop::decode(status)));
            }
            if self.bell.rung.swap(0, Ordering::SeqCst) == 1 {
                return Ok(Wake::Bell);
            }
            match -ret as i32 {
                libc::EINTR => {}
                libc::ECHILD => return Ok(Wake::NoTracees),
                errno => return Err(wait_failed(tid, errno)),
            }
        }
    }

    /// Takes a stop that is there already.
    #[must_use]
    pub fn poll(&self, tid: i32) -> Option<(Tid, Stop)> {
        self.taken_of(tid).or_else(|| self.take(tid).ok().flatten())
    }

    /// Asks the kernel for a stop that is there already; fails with the number of the error.
    fn take(&self, tid: i32) -> std::result::Result<Option<(Tid, Stop)>, i32> {
        let mut status = 0i32;
        // SAFETY: `status` outlives the call.
        match unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG) } {
            0 => Ok(None),
            ret if ret > 0 => Ok(Some((Tid(ret), Stop::decode(status)))),
            _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        }
    }
}

/// Says whether a thread is the first of its process; one that has ended and was not waited for is, too.
fn is_first(tid: i32) -> bool {
    // SAFETY: takes integers only; signal 0 is none.
    unsafe { libc::syscall(libc::SYS_tgkill, tid, tid, 0) == 0 }
}

fn wait_failed(tid: i32, errno: i32) -> Error {
    Error::Request { op: "wait4", tid: Tid(tid), source: std::io::Error::from_raw_os_error(errno) }
}

pub(super) fn wake_signal() -> i32 {
    libc::SIGRTMIN() + 6
}

fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a zeroed sigaction is a valid one; the handler below only touches the saved context.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_wake as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(wake_signal(), &raw const action, std::ptr::null_mut());
        }
    });
}

/// Moves a thread that stands between the check of the bell and the call to the end of the sequence.
extern "C" fn on_wake(_signo: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid ucontext to an SA_SIGINFO handler; only its instruction pointer is changed, and
    // only from inside `wait4_unless`, to a label of the same function at which the same registers are expected.
    unsafe {
        let context = context.cast::<libc::ucontext_t>();
        let rip = &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize];
        let start = &raw const mvedsua_wait_check as i64;
        let call = &raw const mvedsua_wait_call as i64;
        if (start..=call).contains(rip) {
            *rip = &raw const mvedsua_wait_rung as i64;
        }
    }
}

unsafe extern "C" {
    static mvedsua_wait_check: u8;
    static mvedsua_wait_call: u8;
    static mvedsua_wait_rung: u8;
    /// `wait4(tid, status, options, NULL)`, or `-EINTR` at once when `*bell` is not 0.
    fn wait4_unless(bell: *const u32, status: *mut i32, options: i32, tid: i64) -> i64;
}

std::arch::global_asm!(
    ".globl wait4_unless",
    ".globl mvedsua_wait_check",
    ".globl mvedsua_wait_call",
    ".globl mvedsua_wait_rung",
    "wait4_unless:",
    "mov r8, rdi",
    "mov rdi, rcx",
    "xor r10d, r10d",
    "mov eax, 61",
    "mvedsua_wait_check:",
    "cmp dword ptr [r8], 0",
    "jne mvedsua_wait_rung",
    "mvedsua_wait_call:",
    "syscall",
    "ret",
    "mvedsua_wait_rung:",
    "mov rax, -4",
    "ret",
);
