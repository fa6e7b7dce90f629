//! The threads that take part in updates.
//!
//! Each is an operating-system thread that lives on through updates: in a follower it is the twin of one of the leader's.
//! What changes is the function that it runs.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_int, c_void};

use crate::update::{self, RUNTIME};

/// A thread that takes part. 0 is the one that runs the entry.
pub(crate) type Key = u64;
pub(crate) const MAIN: Key = 0;

/// A thread function.
pub(crate) type Body = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// Where a thread is, as far as an update is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Running,
    /// At an update point of the old version.
    Stopped(String),
    /// In the new version, on its way to the update point.
    Entering,
    /// At the update point of the new version.
    Arrived,
}

/// What a stopped thread is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    GoOn,
    /// Go over to the new version: its function, the function's argument.
    Enter(usize, usize),
}

#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) key: Key,
    pub(crate) tid: i32,
    /// The name of its function.
    pub(crate) function: String,
    pub(crate) argument: usize,
    pub(crate) place: Place,
    pub(crate) order: Option<Order>,
    /// The condition that it waits for.
    pub(crate) condition: usize,
}

impl Thread {
    pub(crate) fn new(key: Key, function: String, argument: usize) -> Thread {
        Thread { key, tid: 0, function, argument, place: Place::Running, order: None, condition: 0 }
    }
}

/// A thread's membership, given up when the thread ends however it does.
struct Membership(Cell<Option<Key>>);

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(key) = self.0.get() {
            RUNTIME.lock().threads.retain(|thread| thread.key != key);
            RUNTIME.changed();
        }
    }
}

thread_local! {
    static ME: Membership = const { Membership(Cell::new(None)) };
    /// The update point that this thread is on its way to.
    static FROM: RefCell<Option<CString>> = const { RefCell::new(None) };
    /// The locks that this thread holds.
    static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Returns this thread's key, if it takes part.
pub(crate) fn me() -> Option<Key> {
    ME.try_with(|me| me.0.get()).ok().flatten()
}

/// This thread takes part from here on.
pub(crate) fn join(key: Key) {
    ME.with(|me| me.0.set(Some(key)));
    // SAFETY: gettid has no arguments and cannot fail.
    let tid = unsafe { libc::gettid() };
    if let Some(thread) = RUNTIME.lock().thread(key) {
        thread.tid = tid;
    }
}

pub(crate) fn is_updating() -> bool {
    FROM.with_borrow(Option::is_some)
}

/// Says whether this thread is on its way to the update point.
pub(crate) fn is_updating_from(point: &CStr) -> bool {
    FROM.with_borrow(|from| from.as_deref() == Some(point))
}

/// Returns the update point that this thread is on its way to, or null; valid until it is there.
pub(crate) fn updating_from() -> *const core::ffi::c_char {
    FROM.with_borrow(|from| from.as_ref().map_or(core::ptr::null(), |from| from.as_ptr()))
}

/// Returns the name of the update point that this thread is on its way to.
pub(crate) fn wanted() -> String {
    FROM.with_borrow(|from| from.as_ref().map(|from| from.to_string_lossy().into_owned()).unwrap_or_default())
}

pub(crate) fn set_updating(from: Option<CString>) {
    FROM.set(from);
}

/// How many locks this thread holds.
pub(crate) fn held() -> usize {
    HELD.with_borrow(Vec::len)
}

pub(crate) fn took(lock: usize) {
    HELD.with_borrow_mut(|held| held.push(lock));
}

pub(crate) fn gave(lock: usize) {
    HELD.with_borrow_mut(|held| {
        if let Some(at) = held.iter().rposition(|other| *other == lock) {
            held.remove(at);
        }
    });
}

struct Start {
    key: Key,
    body: Body,
    argument: *mut c_void,
}

/// Makes a thread that takes part from its first instruction on.
pub(crate) fn create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    function: String,
    body: Body,
    argument: *mut c_void,
) -> c_int {
    let key = {
        let mut runtime = RUNTIME.lock();
        runtime.last_key += 1;
        let key = runtime.last_key;
        runtime.threads.push(Thread::new(key, function, argument as usize));
        key
    };
    let start = Box::into_raw(Box::new(Start { key, body, argument }));
    // SAFETY: `begin` takes the box; the rest is the caller's.
    let code = unsafe { libc::pthread_create(thread, attributes, begin_thread(), start.cast()) };
    if code != 0 {
        // SAFETY: no thread was made, so nobody else has the box.
        drop(unsafe { Box::from_raw(start) });
        RUNTIME.lock().threads.retain(|thread| thread.key != key);
    }
    code
}

/// `pthread_exit(3)` unwinds through the first frame of a thread, which Rust's type for that function does not say.
fn begin_thread() -> extern "C" fn(*mut c_void) -> *mut c_void {
    let begin: extern "C-unwind" fn(*mut c_void) -> *mut c_void = begin;
    // SAFETY: the two differ only in what may happen when the frame is unwound, and C calls it.
    unsafe { std::mem::transmute(begin) }
}

extern "C-unwind" fn begin(start: *mut c_void) -> *mut c_void {
    let Start { key, body, argument } = {
        // SAFETY: `create` made the box for this thread alone.
        *unsafe { Box::from_raw(start.cast::<Start>()) }
    };
    join(key);
    // SAFETY: the program's own function, with its own argument.
    unsafe { body(argument) }
}

/// Goes over to the new version's function. This thread does not come back.
pub(crate) fn enter(function: usize, argument: usize) -> ! {
    // SAFETY: the runtime took the address from the new version's table of thread functions.
    let body: Body = unsafe { std::mem::transmute::<usize, Body>(function) };
    // SAFETY: the program's own function, with the argument that its transformer made.
    let result = unsafe { body(argument as *mut c_void) };
    update::thread_returned();
    // SAFETY: no frame of ours below has anything to drop; the program's frames are of a thread that has returned.
    unsafe { pthread_exit(result) }
}

unsafe extern "C-unwind" {
    fn pthread_exit(value: *mut c_void) -> !;
}

/// Counts the threads of the process that do not take part.
pub(crate) fn strangers(known: usize) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").map_or(known, Iterator::count);
    tasks.saturating_sub(known)
}
