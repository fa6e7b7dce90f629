//! The code that a tracee executes on our behalf.
//!
//! A few instructions are written into the unused tail of the tracee's vDSO image (its last page is zero-filled and
//! belongs to no symbol) and taken away again at the end. Each entry finishes by itself: when the tracer dies, the
//! thread falls through to `resume`, which restores every register and the signal mask from a *context block* and goes
//! on where the program was.
//!
//! | entry | what a thread does there |
//! |---|---|
//! | `call` | one system call; `rsp` points at the context block |
//! | `fork` | one `clone`; the parent resumes, the child leaves its descriptors, sleeps for its tracer, ends if none comes |
//! | `gate` | looks at a shared word; lives on when it holds the expected value, ends the process otherwise |
//!
//! The gate makes a promotion atomic: with both versions at their gates, one store decides which of them would live if
//! the daemon died at that moment.

use super::memory::Memory;
use super::sys::Regs;
use super::{Error, Result};

unsafe extern "C" {
    static mvedsua_stub_start: u8;
    static mvedsua_stub_fork: u8;
    static mvedsua_stub_gate: u8;
    static mvedsua_stub_end: u8;
}

std::arch::global_asm!(
    ".pushsection .rodata.mvedsua_stub, \"a\"",
    ".globl mvedsua_stub_start",
    ".globl mvedsua_stub_fork",
    ".globl mvedsua_stub_gate",
    ".globl mvedsua_stub_end",
    "mvedsua_stub_start:",
    "syscall",
    "2:",          // resume: rsp -> mask, r15..rdi, then an iretq frame
    "mov eax, 14", // rt_sigprocmask(SIG_SETMASK, rsp, NULL, 8)
    "mov edi, 2",
    "mov rsi, rsp",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    "add rsp, 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rax",
    "pop rcx",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "iretq",
    "mvedsua_stub_fork:",
    "syscall",
    "test rax, rax",
    "jnz 2b",
    "xor edi, edi", // close_range(0, ~0, CLOSE_RANGE_UNSHARE)
    "mov esi, 0xffffffff",
    "mov edx, 2",
    "mov eax, 436",
    "syscall",
    "test rax, rax",
    "jnz 3f",
    "lea rdi, [rip + 4f]", // nanosleep(20 s, NULL)
    "xor esi, esi",
    "mov eax, 35",
    "syscall",
    "3:",
    "mov edi, 1", // exit_group(1)
    "mov eax, 231",
    "syscall",
    "hlt",
    "mvedsua_stub_gate:", // rsp -> address of the word, expected value, then as in resume
    "pop rax",
    "pop rdx",
    "cmp [rax], rdx",
    "je 2b",
    "jmp 3b",
    ".balign 8",
    "4:",
    ".quad 20, 0",
    "mvedsua_stub_end:",
    ".popsection",
);

/// Bytes that a context block takes, the gate's two words included.
pub const BLOCK_LEN: u64 = 8 * (2 + 1 + 15 + 5);

fn image() -> &'static [u8] {
    let start = &raw const mvedsua_stub_start;
    let len = &raw const mvedsua_stub_end as usize - start as usize;
    // SAFETY: both labels stand in one read-only section, `end` after `start`.
    unsafe { std::slice::from_raw_parts(start, len) }
}

fn offset(label: *const u8) -> u64 {
    label as u64 - &raw const mvedsua_stub_start as u64
}

/// The stub as it lies in one address space (and in its forks).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stub {
    pub base: u64,
}

impl Stub {
    /// Returns the place of the stub in a vDSO that ends at `end`, whether it is there or not.
    #[must_use]
    pub fn place(end: u64) -> Stub {
        Stub { base: (end - image().len() as u64) & !15 }
    }

    /// Bytes that the stub takes.
    #[must_use]
    pub fn len() -> u64 {
        image().len() as u64
    }

    /// Writes the stub into the zeroed tail of the vDSO that ends at `end`. `tail` is how many zero bytes it has.
    pub fn install(memory: &Memory, end: u64, tail: u64) -> Result<Stub> {
        let len = image().len() as u64;
        if tail < len + 64 {
            return Err(Error::Unsupported(format!("the vDSO has only {tail} unused bytes; {} are needed", len + 64)));
        }
        let stub = Stub::place(end);
        memory.force(stub.base, image())?;
        Ok(stub)
    }

    /// Puts zeros where the stub was.
    pub fn remove(self, memory: &Memory) -> Result<()> {
        memory.force(self.base, &vec![0; image().len()])
    }

    /// Says whether the stub's code stands at its place.
    #[must_use]
    pub fn is_installed(self, memory: &Memory) -> bool {
        memory.read_vec(self.base, image().len()).is_ok_and(|bytes| bytes == image())
    }

    #[must_use]
    pub fn call(self) -> u64 {
        self.base
    }

    #[must_use]
    pub fn fork(self) -> u64 {
        self.base + offset(&raw const mvedsua_stub_fork)
    }

    #[must_use]
    pub fn gate(self) -> u64 {
        self.base + offset(&raw const mvedsua_stub_gate)
    }

    /// Says whether an address lies in the stub.
    #[must_use]
    pub fn contains(self, addr: u64) -> bool {
        (self.base..self.base + image().len() as u64).contains(&addr)
    }
}

/// Returns the context block from which `resume` restores `regs` and the mask.
#[must_use]
pub fn context(regs: &Regs, mask: u64) -> Vec<u8> {
    let words = [
        mask,
        regs.r15,
        regs.r14,
        regs.r13,
        regs.r12,
        regs.rbp,
        regs.rbx,
        regs.r11,
        regs.r10,
        regs.r9,
        regs.r8,
        regs.rax,
        regs.rcx,
        regs.rdx,
        regs.rsi,
        regs.rdi,
        regs.rip,
        regs.cs,
        regs.eflags,
        regs.rsp,
        regs.ss,
    ];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
