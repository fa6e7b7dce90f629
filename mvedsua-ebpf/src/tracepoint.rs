//! What the hooks of system-call entry and exit are given.

use aya_ebpf::EbpfContext;
use aya_ebpf::programs::BtfTracePointContext;

/// The saved registers, `struct pt_regs` of x86-64 (`arch/x86/include/asm/ptrace.h`; its layout is part of the ABI).
#[repr(C)]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub bp: u64,
    pub bx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub ax: u64,
    pub cx: u64,
    pub dx: u64,
    pub si: u64,
    pub di: u64,
    pub orig_ax: u64,
}

/// Reads an argument of the tracepoint.
///
/// # Safety
/// The tracepoint has an argument `index`.
#[inline(always)]
pub unsafe fn argument(ctx: &BtfTracePointContext, index: usize) -> u64 {
    // SAFETY: the context is the array of the tracepoint's arguments, and the caller says that there is such a one.
    unsafe { *ctx.as_ptr().cast::<u64>().add(index) }
}
