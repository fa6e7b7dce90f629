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
//! | `gate` | looks at a shared word; goes on with the old image while it holds the old value, else runs a *program* |
//!
//! The gate makes a promotion atomic: with all threads at their gates, one store decides with which image they would go on if
//! the daemon died at that moment. A program is a list of [`Op`]s that puts the other image in place ([`crate::image`]); it
//! needs nobody, and nothing of either image.

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
    "mvedsua_stub_gate:", // rsp -> address of the word, old value, program, then as in resume
    "pop rax",
    "pop rdx",
    "pop rbx",
    "cmp [rax], rdx",
    "je 2b",
    "5:", // rbx -> the next operation: its code or call number, and its arguments
    "mov rax, [rbx]",
    "mov rdi, [rbx + 8]",
    "mov rsi, [rbx + 16]",
    "mov rdx, [rbx + 24]",
    "mov r10, [rbx + 32]",
    "mov r8, [rbx + 40]",
    "mov r9, [rbx + 48]",
    "add rbx, 56",
    "test rax, rax",
    "js 6f",
    "syscall",
    "jmp 5b",
    "6:",
    "inc rax", // -1: copy rdx bytes from rsi to rdi
    "jz 7f",
    "inc rax", // -2: wait until the word at rdi is set
    "jz 8f",
    "inc rax", // -3: store rsi at rdi
    "jz 9f",
    "mov rsp, rdi", // go on from the context at rdi with the extended state at rsi
    "mov eax, 0xffffffff",
    "mov edx, eax",
    "xrstor64 [rsi]",
    "jmp 2b",
    "7:",
    "mov rcx, rdx",
    "rep movsb",
    "jmp 5b",
    "8:",
    "cmp dword ptr [rdi], 0",
    "jne 5b",
    "xor esi, esi", // futex(rdi, FUTEX_WAIT, 0, NULL)
    "xor edx, edx",
    "xor r10d, r10d",
    "mov eax, 202",
    "syscall",
    "jmp 8b",
    "9:",
    "mov [rdi], rsi",
    "jmp 5b",
    ".balign 8",
    "4:",
    ".quad 20, 0",
    "mvedsua_stub_end:",
    ".popsection",
);

/// Bytes that a context block takes.
pub const BLOCK_LEN: u64 = 8 * (1 + 15 + 5);

/// Bytes of a [`gate_block`].
pub const GATE_LEN: u64 = 24 + BLOCK_LEN;

/// One step of a program that the gate runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes a system call. Whether it succeeds nobody looks at, unless a tracer does.
    Call { nr: i64, args: [u64; 6] },
    /// Copies memory.
    Copy { to: u64, from: u64, len: u64 },
    /// Waits until the 32 bits at this address are not zero.
    Await(u64),
    /// Stores 64 bits.
    Store { at: u64, value: u64 },
    /// Goes on from a [`context`] with an extended state (XSAVE's standard format, aligned to 64 bytes).
    Resume { context: u64, xstate: u64 },
}

impl Op {
    /// Bytes that an operation takes.
    pub const LEN: usize = 56;

    /// Returns the operation as the stub reads it.
    #[must_use]
    pub fn encode(&self) -> [u8; Op::LEN] {
        let words = match *self {
            Op::Call { nr, args } => [nr as u64, args[0], args[1], args[2], args[3], args[4], args[5]],
            Op::Copy { to, from, len } => [-1i64 as u64, to, from, len, 0, 0, 0],
            Op::Await(at) => [-2i64 as u64, at, 0, 0, 0, 0, 0],
            Op::Store { at, value } => [-3i64 as u64, at, value, 0, 0, 0, 0],
            Op::Resume { context, xstate } => [-4i64 as u64, context, xstate, 0, 0, 0, 0],
        };
        let mut bytes = [0; Op::LEN];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// Returns what a thread at the gate finds at its stack pointer: it goes on from the context in it while the word holds
/// `old`, and runs the program otherwise.
#[must_use]
pub fn gate_block(word: u64, old: u64, program: u64, regs: &Regs, mask: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = [word, old, program].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(context(regs, mask));
    bytes
}

/// Returns the stub's code, which runs wherever it lies.
#[must_use]
pub fn image() -> &'static [u8] {
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
