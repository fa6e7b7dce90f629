//! The C interface. What each function does for the program is said in `include/mvedsua.h`.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mvedsua_common::cooperation::Control;

use crate::threads::{self, Body};
use crate::update::{self, RUNTIME};
use crate::{condition, direct, registry};

/// How long the threads may take to come to their update points where nobody says otherwise, milliseconds.
const LIMIT_MS: u32 = 5_000;

/// How an update is asked for; a daemon finds it by this name.
#[unsafe(no_mangle)]
pub static mvedsua_control: Control = Control::new(LIMIT_MS);

/// An exported function's address.
#[derive(Clone, Copy)]
struct Address(#[expect(dead_code, reason = "it keeps the function in the executable")] *const ());

// SAFETY: the address of a function is the same for every thread.
unsafe impl Sync for Address {}

/// Everything that versions call: what refers to this table has all of it linked in.
static EXPORTS: [Address; 16] = [
    Address(mvedsua_update_slow as *const ()),
    Address(mvedsua_updating as *const ()),
    Address(mvedsua_updating_from as *const ()),
    Address(mvedsua_register_local as *const ()),
    Address(mvedsua_unregister_local as *const ()),
    Address(mvedsua_old as *const ()),
    Address(mvedsua_translate as *const ()),
    Address(mvedsua_error as *const ()),
    Address(mvedsua_thread_create_named as *const ()),
    Address(mvedsua_mutex_lock as *const ()),
    Address(mvedsua_mutex_trylock as *const ()),
    Address(mvedsua_mutex_unlock as *const ()),
    Address(mvedsua_cond_wait as *const ()),
    Address(mvedsua_cond_timedwait as *const ()),
    Address(mvedsua_on_abort as *const ()),
    Address(mvedsua_request as *const ()),
];

/// # Safety
///
/// A string, or null.
unsafe fn name(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// Loads a version and runs its entry.
///
/// # Safety
///
/// As for calling `main` of the program: `object` is a path, `argv` has `argc` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvedsua_run(object: *const c_char, argc: c_int, argv: *mut *mut c_char) -> c_int {
    black_box(&EXPORTS);
    // SAFETY: the caller's promise.
    match update::run(unsafe { CStr::from_ptr(object) }, argc, argv) {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("mvedsua: {reason}");
            127
        }
    }
}

/// An update point at which an update is asked for.
///
/// # Safety
///
/// `point` is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mvedsua_update_slow(point: *const c_char) {
    // SAFETY: the caller's promise.
    update::at_point(unsafe { CStr::from_ptr(point) });
}

/// Says whether this thread is on its way to the update point.
#[unsafe(no_mangle)]
pub extern "C" fn mvedsua_updating() -> c_int {
    c_int::from(threads::is_updating())
}

/// Returns the name of the update point that this thread is on its way to, or null.
#[unsafe(no_mangle)]
pub extern "C" fn mvedsua_updating_from() -> *const c_char {
    threads::updating_from()
}

/// Registers a local variable.
///
/// # Safety
///
/// Two strings, and a variable that lives until it is unregistered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvedsua_register_local(
    function: *const c_char,
    variable: *const c_char,
    address: *mut c_void,
    size: usize,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    let name = unsafe { format!("{}.{}", name(function), name(variable)) };
    let coming = if threads::is_updating() { RUNTIME.lock().versions().map(|(_, new)| new) } else { None };
    if let Err(reason) = registry::note_local(name, address as usize, size, coming.as_ref()) {
        update::spoil(reason);
    }
    address
}

/// Forgets a local variable.
#[unsafe(no_mangle)]
pub extern "C" fn mvedsua_unregister_local(address: *mut c_void) {
    registry::forget_local(address as usize);
}

/// Returns the address of a variable of the old version, or null.
///
/// # Safety
///
/// `variable` is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvedsua_old(variable: *const c_char) -> *mut c_void {
    // SAFETY: the caller's promise.
    let variable = unsafe { name(variable) };
    let versions = RUNTIME.lock().versions();
    versions.map_or(0, |(old, _)| registry::old_address(&old, &variable)) as *mut c_void
}

/// Returns what a pointer of the old version is in the new one, or null.
#[unsafe(no_mangle)]
pub extern "C" fn mvedsua_translate(pointer: *const c_void) -> *mut c_void {
    let versions = RUNTIME.lock().versions();
    versions.map_or(0, |(old, new)| registry::translate(&old, &new, pointer as usize)) as *mut c_void
}

/// Keeps the reason of a transformer that fails.
///
/// # Safety
///
/// `reason` is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvedsua_error(reason: *const c_char) {
    // SAFETY: the caller's promise.
    registry::set_reason(unsafe { name(reason) });
}

/// Makes a thread that takes part in updates.
///
/// # Safety
///
/// As `pthread_create(3)`; `function_name` is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvedsua_thread_create_named(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    function_name: *const c_char,
    function: Body,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: the caller's promise.
    threads::create(thread, attributes, unsafe { name(function_name) }, function, argument)
}

/// Locks a mutex.
///
/// # Safety
///
/// As `pthread_mutex_lock(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvedsua_mutex_lock(mutex: *mut libc::pthread_mutex_t) -> c_int {
    // SAFETY: the caller's promise.
    let code = unsafe { libc::pthread_mutex_lock(mutex) };
    if code == 0 {
        threads::took(mutex as usize);
    }
    code
}

/// Locks a mutex that is free.
///
/// # Safety
///
/// As `pthread_mutex_trylock(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvedsua_mutex_trylock(mutex: *mut libc::pthread_mutex_t) -> c_int {
    // SAFETY: the caller's promise.
    let code = unsafe { libc::pthread_mutex_trylock(mutex) };
    if code == 0 {
        threads::took(mutex as usize);
    }
    code
}

/// Unlocks a mutex.
///
/// # Safety
///
/// As `pthread_mutex_unlock(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvedsua_mutex_unlock(mutex: *mut libc::pthread_mutex_t) -> c_int {
    threads::gave(mutex as usize);
    // SAFETY: the caller's promise.
    unsafe { libc::pthread_mutex_unlock(mutex) }
}

/// Waits for a condition; an update point.
///
/// # Safety
///
/// As `pthread_cond_wait(3)`; `point` is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mvedsua_cond_wait(
    condition: *mut libc::pthread_cond_t,
    mutex: *mut libc::pthread_mutex_t,
    point: *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { condition::wait(condition, mutex, std::ptr::null(), CStr::from_ptr(point)) }
}

/// Waits for a condition until a deadline; an update point.
///
/// # Safety
///
/// As `pthread_cond_timedwait(3)`; `point` is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mvedsua_cond_timedwait(
    condition: *mut libc::pthread_cond_t,
    mutex: *mut libc::pthread_mutex_t,
    deadline: *const libc::timespec,
    point: *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { condition::wait(condition, mutex, deadline, CStr::from_ptr(point)) }
}

/// Calls a function when an update was given up.
#[unsafe(no_mangle)]
pub extern "C" fn mvedsua_on_abort(callback: unsafe extern "C" fn(*mut c_void), context: *mut c_void) {
    RUNTIME.lock().set_on_abort((callback, context as usize));
}

/// Returns why the last update was given up.
#[unsafe(no_mangle)]
pub extern "C" fn mvedsua_last_error() -> *const c_char {
    RUNTIME.lock().last_error()
}

/// Asks this process to update itself.
///
/// # Safety
///
/// `object` is a path.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvedsua_request(object: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(object) }.to_bytes()));
    direct::request(path).map_or(-1, |()| 0)
}
