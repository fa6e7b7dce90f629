//! The agent as it is put into a process: the entry, and behind it what it calls. Not a part of the library; see its crate.
#![no_std]
#![no_main]
#![allow(dead_code, reason = "the daemon's side of the layout is not used here")]

#[path = "answer.rs"]
mod answer;
#[path = "layout.rs"]
mod layout;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// A call site's stub jumps here with the words of the thread in rcx and the place of the stub's call in r11, which a system call
// changes anyway. The offsets are those of `layout::Words`.
core::arch::global_asm!(
    ".pushsection .text.entry, \"ax\"",
    ".globl mvedsua_entry",
    "mvedsua_entry:",
    "mov [rcx + 64], rax",
    "mov [rcx + 72], rdi",
    "mov [rcx + 80], rsi",
    "mov [rcx + 88], rdx",
    "mov [rcx + 96], r10",
    "mov [rcx + 104], r8",
    "mov [rcx + 112], r9",
    "mov [rcx + 120], rbx",
    "mov [rcx + 128], rbp",
    "mov [rcx + 136], r12",
    "mov [rcx + 144], r13",
    "mov [rcx + 152], r14",
    "mov [rcx + 160], r15",
    "mov [rcx + 168], rsp",
    "mov [rcx + 56], r11",
    "mov r11, [rcx]",
    "mov [rcx + 16], r11",
    "mov r11, [rcx + 56]",
    "mov qword ptr [rcx + 8], 1",
    "lea rsp, [rcx + {stack}]",
    "mov rbx, rcx",
    "mov rdi, rcx",
    "call {answer}",
    "mov rcx, rbx",
    "mov rdi, [rcx + 72]",
    "mov rsi, [rcx + 80]",
    "mov rdx, [rcx + 88]",
    "mov r10, [rcx + 96]",
    "mov r8, [rcx + 104]",
    "mov r9, [rcx + 112]",
    "mov rbx, [rcx + 120]",
    "mov rsp, [rcx + 168]",
    "mov r11, [rcx + 56]",
    "test eax, eax",
    "jz 2f",
    // Behind the call, with its result.
    "add r11, 2",
    "mov rax, [rcx + 48]",
    "mov qword ptr [rcx + 8], 0",
    "jmp r11",
    // To the call.
    "2:",
    "mov rax, [rcx + 64]",
    "mov qword ptr [rcx + 8], 0",
    "jmp r11",
    ".popsection",
    stack = const layout::WORDS_LEN,
    answer = sym answer::answer,
);
