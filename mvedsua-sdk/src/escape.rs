//! Leaving the new version's entry from somewhere inside it.
//!
//! An update that fails on its way to the update point is given up from a function that the new version has called. Its
//! frames are abandoned; the caller of [`enter`] sees an ordinary return. C's `setjmp` cannot be called from Rust (it
//! returns twice), so the six registers that a function must keep are saved here.

use core::arch::naked_asm;
use core::ffi::{c_char, c_int};

/// The entry of a version.
pub(crate) type Entry = unsafe extern "C" fn(c_int, *mut *mut c_char) -> c_int;

/// Calls `entry` and remembers in `place` how to come back here.
///
/// # Safety
///
/// As for calling `entry`. `place` must not be used after the return.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn enter(entry: Entry, argc: c_int, argv: *mut *mut c_char, place: *mut usize) -> c_int {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 8",
        "mov [rcx], rsp",
        "mov rax, rdi",
        "mov edi, esi",
        "mov rsi, rdx",
        "call rax",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Makes the [`enter`] that wrote `place` return `code`.
///
/// # Safety
///
/// That call must not have returned, and be of this thread. No frame between it and the caller may have anything to drop.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn escape(place: usize, code: c_int) -> ! {
    naked_asm!(
        "mov rsp, rdi",
        "mov eax, esi",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static PLACE: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "C" fn returns(argc: c_int, _argv: *mut *mut c_char) -> c_int {
        argc + 1
    }

    unsafe extern "C" fn escapes(argc: c_int, _argv: *mut *mut c_char) -> c_int {
        if argc > 0 {
            // SAFETY: calls itself, on a stack that is deep enough for ten frames.
            return unsafe { escapes(argc - 1, core::ptr::null_mut()) } + 1;
        }
        // SAFETY: `enter` below this frame has not returned.
        unsafe { escape(PLACE.load(Ordering::Relaxed), 77) }
    }

    #[test]
    fn one_returns_or_escapes() {
        let kept = std::hint::black_box([1_u64, 2, 3]);
        // SAFETY: the functions are this module's.
        let returned = unsafe { enter(returns, 4, core::ptr::null_mut(), PLACE.as_ptr()) };
        // SAFETY: as above.
        let escaped = unsafe { enter(escapes, 10, core::ptr::null_mut(), PLACE.as_ptr()) };
        assert_eq!((returned, escaped, kept), (5, 77, [1, 2, 3]));
    }
}
