//! Updates without a daemon: the process updates itself, and serves nobody meanwhile.
//!
//! `SIGUSR2` asks for it where `MVEDSUA_DIRECT` names the object; so does `mvedsua_request`. A signal that arrives between
//! an update point and a call that blocks would be lost, so a timer repeats it until the update is over. Calls that block
//! return with `EINTR`: the first thread's because of that signal, the others' because the first thread wakes them.

use std::ffi::{c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use mvedsua_common::cooperation::{DIRECT, NONE, PATH_LEN};

use crate::exports::mvedsua_control as CONTROL;
use crate::update;

/// The environment variable that names the next version.
const NEXT: &str = "MVEDSUA_DIRECT";
/// The environment variable that says how long threads may take to come to their update points, milliseconds.
const LIMIT: &str = "MVEDSUA_LIMIT_MS";
/// How often a request is repeated while it is not answered.
const REPEAT_NS: i64 = 10_000_000;

static TIMER: AtomicUsize = AtomicUsize::new(0);
static READY: AtomicBool = AtomicBool::new(false);
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Installs what a signal needs, where the environment asks for it.
pub(crate) fn prepare() {
    if let Some(limit) = std::env::var(LIMIT).ok().and_then(|limit| limit.parse().ok()) {
        CONTROL.limit_ms.store(limit, Ordering::SeqCst);
    }
    if let Some(next) = std::env::var_os(NEXT) {
        set_path(Path::new(&next));
        install();
    }
}

fn install() {
    if READY.swap(true, Ordering::SeqCst) {
        return;
    }
    // SAFETY: all zero is a valid value of both.
    let (mut action, mut event): (libc::sigaction, libc::sigevent) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    action.sa_sigaction = on_signal as extern "C" fn(c_int, *const libc::siginfo_t, *mut c_void) as usize;
    action.sa_flags = libc::SA_SIGINFO;
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGUSR2;
    let mut timer: libc::timer_t = std::ptr::null_mut();
    // SAFETY: the handler calls only what a handler may; the timer is not armed yet.
    let made = unsafe {
        libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()) == 0
            && libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) == 0
    };
    if made {
        TIMER.store(timer as usize, Ordering::SeqCst);
    } else {
        eprintln!("mvedsua: direct updates are not possible: {}", std::io::Error::last_os_error());
    }
}

/// Keeps where the next version is. A link is followed when the update begins.
fn set_path(path: &Path) {
    let bytes = path.as_os_str().as_bytes();
    for (place, byte) in CONTROL.path.iter().zip(bytes.iter().take(PATH_LEN - 1).chain(&[0])) {
        place.store(*byte, Ordering::SeqCst);
    }
}

/// Asks for an update of this process.
pub(crate) fn request(path: &Path) -> Result<(), ()> {
    if CONTROL.request.load(Ordering::SeqCst) != NONE {
        return Err(());
    }
    install();
    set_path(path);
    begin();
    // SAFETY: the handler is installed.
    unsafe { libc::raise(libc::SIGUSR2) };
    Ok(())
}

fn begin() {
    if CONTROL.request.compare_exchange(NONE, DIRECT, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        BEGUN.store(now_us(), Ordering::SeqCst);
        arm(REPEAT_NS);
    }
}

/// Says whether a signal is one of ours, which only remind: of the timer, or sent to a thread to wake it. One of those may
/// come when the update is over already.
fn reminds(info: *const libc::siginfo_t) -> bool {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid structure, and every kind of it has these fields or zeros.
    let (code, sender) = unsafe { ((*info).si_code, (*info).si_pid()) };
    // SAFETY: has no preconditions.
    code == libc::SI_TIMER || (code == libc::SI_TKILL && sender == unsafe { libc::getpid() })
}

extern "C" fn on_signal(_signo: c_int, info: *const libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the thread's own variable.
    let errno = unsafe { *libc::__errno_location() };
    if !reminds(info) {
        begin();
    }
    if CONTROL.request.load(Ordering::SeqCst) == DIRECT {
        update::raise_flag();
        send_on();
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// The first thread leads the update, so it must leave the call that it may be in; it wakes the others.
fn send_on() {
    // SAFETY: neither call has preconditions.
    let (main, me) = unsafe { (libc::getpid(), libc::gettid()) };
    if me != main {
        wake(main);
    }
}

/// Makes a thread leave a call that blocks.
pub(crate) fn wake(tid: i32) {
    // SAFETY: a thread of this process, or none any more, which is an error without consequence.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR2) };
}

/// Says whether it is the process itself that updates.
pub(crate) fn is_under_way() -> bool {
    CONTROL.request.load(Ordering::SeqCst) == DIRECT
}

fn arm(interval_ns: i64) {
    let timer = TIMER.load(Ordering::SeqCst) as libc::timer_t;
    let step = libc::timespec { tv_sec: 0, tv_nsec: interval_ns };
    let spec = libc::itimerspec { it_interval: step, it_value: step };
    // SAFETY: the timer is there as long as the process.
    unsafe { libc::timer_settime(timer, 0, &raw const spec, std::ptr::null_mut()) };
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// The update is over, one way or the other.
pub(crate) fn over(what: &str) {
    arm(0);
    let took = now_us().saturating_sub(BEGUN.load(Ordering::SeqCst));
    eprintln!("mvedsua: {what} ({}.{:03} ms after the request)", took / 1000, took % 1000);
}
