//! Asking for the time without a stop: the code.
//!
//! Half of what a busy server calls is the vDSO's `clock_gettime` and `gettimeofday`. As real calls each of them would cost
//! the leader two ptrace stops and the follower one. So while two versions run, both functions are detoured to the few
//! instructions below, which lie with the [stub](super::stub) in the vDSO's unused tail:
//!
//! - in the leader they call the original function and note its answer in the thread's [ring](super::ring), from where the
//!   recorder takes it at the thread's next stop, before whatever it stopped for;
//! - in the follower they answer from the ring, which the replayer fills with what the leader was told next;
//! - whatever does not fit (no ring, a full or an empty one, another clock than expected) is a real call, with its stops.
//!
//! A thread finds its ring through the base of its `gs` segment, which Linux leaves to the program and no common program
//! uses; it is compared with the rings' place, so that one that is the program's own is never followed.
//!
//! # Leaving
//!
//! No thread may stand here, or have a signal frame that returns here, once the detours are undone. So before a signal
//! is let in and before the detours go, [`Agent::step_out`] moves a thread to where it would be without us: to the entry of
//! the function as long as nothing is noted, to the caller afterwards. Either way the answer is noted exactly once.
//!
//! # The entry of the original function
//!
//! The detour overwrites the first instructions of the function. They are executed from a copy, relocated, that
//! jumps to the rest; `iced-x86` decodes and encodes them. A vDSO whose first instructions cannot be moved is not detoured.

use std::ops::Range;

use iced_x86::{BlockEncoder, BlockEncoderOptions, Code, Decoder, DecoderOptions, FlowControl, Instruction};
use iced_x86::{InstructionBlock, OpKind};

use super::memory::Memory;
use super::ring::{ANSWERS, Area, Ring};
use super::sys::Regs;
use super::{Error, Result};

unsafe extern "C" {
    static mvedsua_agent_start: u8;
    static mvedsua_agent_clock: u8;
    static mvedsua_agent_clock_answered: u8;
    static mvedsua_agent_clock_published: u8;
    static mvedsua_agent_clock_call: u8;
    static mvedsua_agent_clock_original: u8;
    static mvedsua_agent_day: u8;
    static mvedsua_agent_day_answered: u8;
    static mvedsua_agent_day_published: u8;
    static mvedsua_agent_day_call: u8;
    static mvedsua_agent_day_original: u8;
    static mvedsua_agent_end: u8;
}

// The offsets are those of `ring.rs`. Only registers that a callee may change are used.
std::arch::global_asm!(
    ".pushsection .rodata.mvedsua_agent, \"a\"",
    ".globl mvedsua_agent_start",
    ".globl mvedsua_agent_end",
    // where: the argument that points at the answer.
    ".macro mvedsua_time name, nr, where",
    ".globl mvedsua_agent_\\name",
    ".globl mvedsua_agent_\\name\\()_answered",
    ".globl mvedsua_agent_\\name\\()_published",
    ".globl mvedsua_agent_\\name\\()_call",
    ".globl mvedsua_agent_\\name\\()_original",
    "mov r9, \\where",
    "cmp qword ptr [rax + 8], 1",
    "je 1f",
    "cmp qword ptr [rax + 8], 2",
    "jne mvedsua_agent_\\name\\()_call",
    // The follower: the next answer, if it is to this question.
    "mov rcx, [rax + 24]",
    "cmp rcx, [rax + 16]",
    "je mvedsua_agent_\\name\\()_call",
    "and ecx, {mask}",
    "shl ecx, 5",
    "lea rdx, [rax + rcx + 128]",
    "cmp [rdx], r8",
    "jne mvedsua_agent_\\name\\()_call",
    "mov r10, [rdx + 16]",
    "mov r11, [rdx + 24]",
    "mov [r9], r10",
    "mov [r9 + 8], r11",
    "mov rcx, [rdx + 8]",
    "inc qword ptr [rax + 24]",
    "mvedsua_agent_\\name\\()_answered:",
    "mov rax, rcx",
    "ret",
    // The leader: the original's answer, noted.
    "1:",
    "cmp qword ptr [rax], 0",
    "jne mvedsua_agent_\\name\\()_call",
    "mov rdx, [rax + 16]",
    "sub rdx, [rax + 24]",
    "cmp rdx, {answers}",
    "jae mvedsua_agent_\\name\\()_call",
    "mov [rax + 32], rsp",
    "mov [rax + 40], rbx",
    "mov [rax + 48], rbp",
    "mov [rax + 56], r12",
    "mov [rax + 64], r13",
    "mov [rax + 72], r14",
    "mov [rax + 80], r15",
    "mov [rax + 88], rdi",
    "mov [rax + 96], rsi",
    "mov [rax + 104], r8",
    "mov [rax + 112], r9",
    "mov qword ptr [rax], 1",
    "sub rsp, 8",
    "call mvedsua_agent_\\name\\()_original",
    "add rsp, 8",
    "rdgsbase rcx",
    "mov rdx, [rcx + 16]",
    "and edx, {mask}",
    "shl edx, 5",
    "lea rdx, [rcx + rdx + 128]",
    "mov r8, [rcx + 104]",
    "mov r9, [rcx + 112]",
    "mov [rdx], r8",
    "mov [rdx + 8], rax",
    "mov r10, [r9]",
    "mov r11, [r9 + 8]",
    "mov [rdx + 16], r10",
    "mov [rdx + 24], r11",
    "inc qword ptr [rcx + 16]",
    "mvedsua_agent_\\name\\()_published:",
    "mov qword ptr [rcx], 0",
    "ret",
    "mvedsua_agent_\\name\\()_call:",
    "mov eax, \\nr",
    "syscall",
    "ret",
    ".balign 8",
    "mvedsua_agent_\\name\\()_original:",
    ".fill 32, 1, 0xcc",
    ".endm",
    "mvedsua_agent_start:",
    "mvedsua_agent_first:", // first byte of the rings, and the byte after them
    ".quad 0, 0",
    "mvedsua_agent_clock:",
    "rdgsbase rax",
    "cmp rax, [rip + mvedsua_agent_first]",
    "jb mvedsua_agent_clock_call",
    "cmp rax, [rip + mvedsua_agent_first + 8]",
    "jae mvedsua_agent_clock_call",
    "mov edx, 0x8f3", // REALTIME, MONOTONIC, MONOTONIC_RAW, the coarse ones, BOOTTIME, TAI
    "cmp edi, 11",
    "ja mvedsua_agent_clock_call",
    "bt edx, edi",
    "jnc mvedsua_agent_clock_call",
    "mov r8d, edi",
    "mvedsua_time clock, 228, rsi",
    ".balign 8",
    "mvedsua_agent_day:",
    "rdgsbase rax",
    "cmp rax, [rip + mvedsua_agent_first]",
    "jb mvedsua_agent_day_call",
    "cmp rax, [rip + mvedsua_agent_first + 8]",
    "jae mvedsua_agent_day_call",
    "test rsi, rsi",
    "jnz mvedsua_agent_day_call",
    "test rdi, rdi",
    "jz mvedsua_agent_day_call",
    "mov r8d, 0x100",
    "mvedsua_time day, 96, rdi",
    "mvedsua_agent_end:",
    ".popsection",
    answers = const ANSWERS,
    mask = const ANSWERS - 1,
);

/// Room for a function's relocated first instructions.
const ORIGINAL_LEN: usize = 32;
/// Bytes of the jump that replaces them.
const JUMP_LEN: usize = 5;

/// Whose time the agent can tell, and by which call they ask otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// `clock_gettime(clock, where)`
    Clock,
    /// `gettimeofday(where, NULL)`
    Day,
}

/// Where the parts of a function's code lie, from the start of the agent.
struct Places {
    entry: u64,
    answered: u64,
    published: u64,
    call: u64,
    original: u64,
}

impl Function {
    fn places(self) -> Places {
        let from = |label: *const u8| label as u64 - &raw const mvedsua_agent_start as u64;
        match self {
            Function::Clock => Places {
                entry: from(&raw const mvedsua_agent_clock),
                answered: from(&raw const mvedsua_agent_clock_answered),
                published: from(&raw const mvedsua_agent_clock_published),
                call: from(&raw const mvedsua_agent_clock_call),
                original: from(&raw const mvedsua_agent_clock_original),
            },
            Function::Day => Places {
                entry: from(&raw const mvedsua_agent_day),
                answered: from(&raw const mvedsua_agent_day_answered),
                published: from(&raw const mvedsua_agent_day_published),
                call: from(&raw const mvedsua_agent_day_call),
                original: from(&raw const mvedsua_agent_day_original),
            },
        }
    }
}

fn image() -> &'static [u8] {
    let start = &raw const mvedsua_agent_start;
    let len = &raw const mvedsua_agent_end as usize - start as usize;
    // SAFETY: both labels stand in one read-only section, `end` after `start`.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// Bytes at the start of the image that differ from process to process: where the rings are.
const OWN_LEN: usize = 16;
/// Bytes between the end of the vDSO's own code and the agent's.
const APART: u64 = 64;

/// Returns the first instructions of the function at these offsets, at least as many as a jump overwrites, moved to `to`, and a
/// jump to those that follow.
fn relocate(vdso: &[u8], function: Range<usize>, to: u64) -> Result<Vec<u8>> {
    let offset = function.start;
    let refuse = |why: &str| Error::Unsupported(format!("the function at {offset:#x} of the vDSO {why}"));
    let body = vdso.get(function).unwrap_or_default();
    let mut decoder = Decoder::with_ip(64, body, offset as u64, DecoderOptions::NONE);
    let mut moved: Vec<Instruction> = Vec::new();
    while moved.iter().map(Instruction::len).sum::<usize>() < JUMP_LEN {
        let instruction = decoder.decode();
        if instruction.is_invalid() || instruction.flow_control() != FlowControl::Next {
            return Err(refuse("begins with instructions that cannot be moved"));
        }
        moved.push(instruction);
    }
    let rest = decoder.ip();
    // Nobody may jump to what the detour overwrites.
    for instruction in decoder.iter() {
        let near = instruction.op0_kind() == OpKind::NearBranch64;
        if near && (offset as u64 + 1..rest).contains(&instruction.near_branch64()) {
            return Err(refuse("is jumped into where the detour would be"));
        }
    }
    let back = Instruction::with_branch(Code::Jmp_rel32_64, rest).map_err(|error| refuse(&error.to_string()))?;
    moved.push(back);
    let block = InstructionBlock::new(&moved, to);
    let encoded = BlockEncoder::encode(64, block, BlockEncoderOptions::NONE)
        .map_err(|error| refuse(&format!("cannot be moved: {error}")))?;
    if encoded.code_buffer.len() > ORIGINAL_LEN {
        return Err(refuse("begins with instructions that take too much room"));
    }
    Ok(encoded.code_buffer)
}

/// Where a thread goes when it leaves the agent's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteppedOut {
    /// It was elsewhere.
    NotThere,
    /// The registers were changed: it stands at the function's entry, or has returned from it.
    Moved,
}

/// The agent as it lies, or would lie, in one address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    base: u64,
    code: Vec<u8>,
    /// Where the vDSO's own code lies, and the two functions in it.
    own: Range<u64>,
    functions: [(Function, u64); 2],
}

impl Agent {
    /// Returns the agent for a vDSO that is mapped at `start`, with the offsets of its two functions, or `None` where this
    /// machine cannot have it. The last `tail` bytes of the image are unused, and the last `reserved` of those the stub's.
    pub(super) fn plan(
        vdso: &[u8],
        start: u64,
        functions: [Range<usize>; 2],
        reserved: u64,
        tail: u64,
    ) -> Option<Agent> {
        const HWCAP2_FSGSBASE: u64 = 2;
        // SAFETY: takes an integer and returns one.
        if unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE == 0 {
            return None;
        }
        let len = vdso.len() as u64;
        let mut code = image().to_vec();
        let offset = len.checked_sub(reserved + code.len() as u64)? & !15;
        if offset < len - tail + APART {
            return None;
        }
        let [clock, day] = &functions;
        for (function, at) in [(Function::Clock, clock), (Function::Day, day)] {
            let place = function.places().original as usize;
            match relocate(vdso, at.clone(), offset + place as u64) {
                Ok(moved) => code[place..place + moved.len()].copy_from_slice(&moved),
                Err(error) => {
                    tracing::warn!(%error, "asking for the time will cost stops while two versions run");
                    return None;
                }
            }
        }
        let functions = [(Function::Clock, start + clock.start as u64), (Function::Day, start + day.start as u64)];
        Some(Agent { base: start + offset, code, own: start..start + len - tail, functions })
    }

    /// Writes the code, for threads whose rings lie in `area`.
    pub fn install(&self, memory: &Memory, area: Area) -> Result<()> {
        let mut code = self.code.clone();
        code[..8].copy_from_slice(&area.first_ring().to_ne_bytes());
        code[8..OWN_LEN].copy_from_slice(&area.end().to_ne_bytes());
        memory.force(self.base, &code)
    }

    /// Puts zeros where the code was.
    pub fn remove(&self, memory: &Memory) -> Result<()> {
        memory.force(self.base, &vec![0; self.code.len()])
    }

    /// Says whether the code stands at its place.
    #[must_use]
    pub fn is_installed(&self, memory: &Memory) -> bool {
        let len = self.code.len();
        memory.read_vec(self.base, len).is_ok_and(|bytes| bytes[OWN_LEN..] == self.code[OWN_LEN..])
    }

    /// Returns the jump that leads from a function of the vDSO here, if it is one of the two.
    #[must_use]
    pub(super) fn jump_from(&self, addr: u64) -> Option<[u8; JUMP_LEN]> {
        let (function, _) = self.functions.iter().find(|(_, entry)| *entry == addr)?;
        let to = self.base + function.places().entry;
        let distance = i32::try_from(to as i64 - (addr + JUMP_LEN as u64) as i64).ok()?.to_le_bytes();
        Some([0xe9, distance[0], distance[1], distance[2], distance[3]])
    }

    /// Says whether an address lies in the agent's code.
    #[must_use]
    pub fn contains(&self, addr: u64) -> bool {
        (self.base..self.base + self.code.len() as u64).contains(&addr)
    }

    /// Moves the registers of a stopped thread out of the agent, and out of the original function where the agent has
    /// called it: back to the entry of the function unless the answer is noted, to the caller otherwise. The thread must
    /// not stand at the entry of a call (undo that first).
    pub fn step_out(&self, regs: &mut Regs, ring: Option<&Ring<'_>>, memory: &Memory) -> Result<SteppedOut> {
        let asking = ring.filter(|ring| ring.is_asking());
        if !self.contains(regs.rip) {
            return Ok(match asking.filter(|_| self.own.contains(&regs.rip)) {
                Some(ring) => self.ask_again(ring, regs),
                None => SteppedOut::NotThere,
            });
        }
        let at = regs.rip - self.base;
        // The functions stand in the code in this order.
        let Some((function, entry)) = self.functions.iter().rev().find(|(function, _)| at >= function.places().entry)
        else {
            return Ok(SteppedOut::NotThere);
        };
        let places = function.places();
        let answered = (places.answered..places.answered + ANSWERED_LEN).contains(&at);
        let noted = (places.published..places.call).contains(&at);
        if answered || noted || at == places.call + CALL_LEN {
            if at == places.answered {
                regs.rax = regs.rcx;
            }
            if let Some(ring) = asking {
                ring.stop_asking();
            }
            regs.rip = memory.read_u64(regs.rsp)?;
            regs.rsp += 8;
            return Ok(SteppedOut::Moved);
        }
        match asking {
            Some(ring) => return Ok(self.ask_again(ring, regs)),
            // Up to here no register is changed that the function's entry needs.
            None => regs.rip = *entry,
        }
        Ok(SteppedOut::Moved)
    }

    /// Goes back to the entry of the function that is asking.
    fn ask_again(&self, ring: &Ring<'_>, regs: &mut Regs) -> SteppedOut {
        ring.stop_asking();
        ring.restore(regs);
        let entry = self.functions.iter().find(|(function, _)| *function == ring.function());
        regs.rip = entry.map_or(regs.rip, |(_, entry)| *entry);
        SteppedOut::Moved
    }
}

/// Length of `mov rax, rcx; ret`.
const ANSWERED_LEN: u64 = 4;
/// Length of `mov eax, imm32; syscall`.
const CALL_LEN: u64 = 7;
