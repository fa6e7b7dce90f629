//! Looks for signs that a structure changed its layout.
//!
//! In two versions of a function the instructions that stand beside each other use the same registers. If one reaches
//! a field at another distance from its base than before, and the base is neither the stack nor the program counter,
//! then a field has moved. If a number changed that is compared, added or multiplied, a size or a bound may have
//! changed.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use crate::align::{Line, Pair, is_immediate};
use crate::matching::Alignment;

/// A place where a changed function uses another number than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shift {
    /// The instructions.
    pub old_at: u64,
    pub new_at: u64,
    pub old: i64,
    pub new: i64,
    pub role: Role,
    /// The instructions before and behind stand beside each other too, two on either side.
    pub supported: bool,
}

/// What a number in an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It is the distance of a field from a base that is not the stack.
    Field,
    /// It is a place in thread-local storage.
    ThreadLocal,
    /// The order of something and it is asked for.
    Bound,
    /// Something is compared with it that chooses between cases or leads into tables of constants, or is asked to be
    /// equal.
    Case,
    /// It says how much an instruction copies or fills.
    Count,
    /// It is added, subtracted, multiplied or a count of bits.
    Arithmetic,
    /// It is a mask of bits.
    Mask,
    /// It is moved to a register or to memory.
    Value,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Field => "the distance of a field",
            Role::ThreadLocal => "a place in thread-local storage",
            Role::Bound => "a bound",
            Role::Case => "a case",
            Role::Count => "a count of what is copied",
            Role::Arithmetic => "a number that is calculated with",
            Role::Mask => "a mask",
            Role::Value => "a value",
        })
    }
}

/// Returns the numbers that differ between instructions that stand beside each other.
#[must_use]
pub fn shifts(alignment: &Alignment) -> Vec<Shift> {
    let old_stack = stack_bases(&alignment.old);
    let mut found = vec![];
    for pair in alignment.pairs.iter().filter(|pair| !pair.exact) {
        let (Some(old), Some(new)) = (alignment.old.get(pair.old), alignment.new.get(pair.new)) else { continue };
        // What refers to something is compared by what it refers to.
        if !old.refs.is_empty() || !new.refs.is_empty() {
            continue;
        }
        let on_stack = old_stack.get(pair.old).is_some_and(|bases| is_on_stack(&old.instruction, *bases));
        let supported = is_supported(pair, alignment);
        let from = found.len();
        compare(&old.instruction, &new.instruction, on_stack, supported, &mut found);
        for shift in found.iter_mut().skip(from) {
            shift.role = refine(shift.role, &alignment.old, pair.old);
        }
    }
    found
}

/// Two on either side must stand beside each other as well, and most of them be exact; the ends of the function count.
pub(crate) fn is_supported(pair: &Pair, alignment: &Alignment) -> bool {
    let beside = |old: usize, new: usize| {
        let index = alignment.pairs.binary_search_by_key(&old, |pair| pair.old).ok()?;
        alignment.pairs.get(index).filter(|pair| pair.new == new).map(|pair| pair.exact)
    };
    let mut exact = 0;
    for distance in [-2isize, -1, 1, 2] {
        let (old, new) = (pair.old.checked_add_signed(distance), pair.new.checked_add_signed(distance));
        let inside = |place: Option<usize>, len: usize| place.is_some_and(|place| place < len);
        match (inside(old, alignment.old.len()), inside(new, alignment.new.len())) {
            (false, false) => exact += 1,
            (true, true) => match old.zip(new).and_then(|(old, new)| beside(old, new)) {
                Some(is_exact) => exact += u32::from(is_exact),
                None => return false,
            },
            _ => return false,
        }
    }
    exact >= 2
}

fn compare(old: &Instruction, new: &Instruction, on_stack: bool, supported: bool, found: &mut Vec<Shift>) {
    let mut add = |a: u64, b: u64, role: Role| {
        if a != b {
            let (old_at, new_at) = (old.ip(), new.ip());
            let (old, new) = (a.cast_signed(), b.cast_signed());
            found.push(Shift { old_at, new_at, old, new, role, supported });
        }
    };
    for index in 0..old.op_count() {
        if old.op_kind(index) == OpKind::Memory && new.op_kind(index) == OpKind::Memory {
            let local = matches!(old.segment_prefix(), Register::FS | Register::GS);
            let (a, b) = (old.memory_displacement64(), new.memory_displacement64());
            if local {
                add(a, b, Role::ThreadLocal);
            } else if !on_stack && !old.is_ip_rel_memory_operand() {
                add(a, b, if is_sum(old) { Role::Arithmetic } else { Role::Field });
            }
        } else if is_immediate(old.op_kind(index)) && is_immediate(new.op_kind(index)) && !grows_stack(old) {
            add(old.immediate(index), new.immediate(index), role(old.mnemonic()));
        }
    }
}

/// Says whether an instruction calculates a number in the form of an address: what has less than eight bytes is none.
fn is_sum(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Lea && instruction.op0_register().size() < 8
}

fn grows_stack(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::Register && instruction.op0_register() == Register::RSP
}

fn role(mnemonic: Mnemonic) -> Role {
    match mnemonic {
        Mnemonic::Cmp => Role::Bound,
        Mnemonic::Add
        | Mnemonic::Sub
        | Mnemonic::Imul
        | Mnemonic::Shl
        | Mnemonic::Shr
        | Mnemonic::Sar
        | Mnemonic::Adc
        | Mnemonic::Sbb => Role::Arithmetic,
        Mnemonic::And
        | Mnemonic::Or
        | Mnemonic::Xor
        | Mnemonic::Test
        | Mnemonic::Bt
        | Mnemonic::Bts
        | Mnemonic::Btr => Role::Mask,
        _ => Role::Value,
    }
}

/// Looks at what comes behind an instruction to see what its number is for.
fn refine(role: Role, lines: &[Line], index: usize) -> Role {
    let Some(line) = lines.get(index) else { return role };
    let behind = lines.get(index + 1..).unwrap_or_default();
    match role {
        Role::Bound => {
            let jump =
                behind.iter().take(2).find(|line| line.instruction.flow_control() == FlowControl::ConditionalBranch);
            let equality = jump.is_some_and(|jump| {
                let forward = jump.instruction.near_branch_target() > jump.instruction.ip();
                matches!(jump.instruction.mnemonic(), Mnemonic::Je | Mnemonic::Jne) && forward
            });
            let cases =
                behind.iter().take(6).any(|line| line.instruction.flow_control() == FlowControl::IndirectBranch);
            let lookup = line.instruction.op0_kind() == OpKind::Register
                && indexes_constants(line.instruction.op0_register(), lines, behind);
            if equality || cases || lookup { Role::Case } else { Role::Bound }
        }
        Role::Value => {
            let counts = line.instruction.op0_kind() == OpKind::Register
                && line.instruction.op0_register().full_register() == Register::RCX;
            let copies = |line: &Line| line.instruction.has_rep_prefix() || line.instruction.has_repne_prefix();
            if counts && behind.iter().take(10).any(copies) { Role::Count } else { Role::Value }
        }
        Role::Field | Role::ThreadLocal | Role::Case | Role::Count | Role::Arithmetic | Role::Mask => role,
    }
}

/// Says whether a register is used as an index soon, and only into constants.
fn indexes_constants(register: Register, lines: &[Line], behind: &[Line]) -> bool {
    let full = register.full_register();
    let mut any = false;
    for line in behind.iter().take(10) {
        let instruction = &line.instruction;
        let memory = (0..instruction.op_count()).any(|index| instruction.op_kind(index) == OpKind::Memory);
        if memory && (instruction.memory_index() == full || instruction.memory_base() == full) {
            let base =
                if instruction.memory_index() == full { instruction.memory_base() } else { instruction.memory_index() };
            if !holds_constants(base, lines) {
                return false;
            }
            any = true;
        }
    }
    any
}

/// Says whether all that a function ever puts into a register is the address of something read-only that it names.
fn holds_constants(register: Register, lines: &[Line]) -> bool {
    let mut writes = lines.iter().filter(|line| {
        let instruction = &line.instruction;
        instruction.op0_kind() == OpKind::Register
            && instruction.op0_register().full_register() == register
            && !matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push | Mnemonic::Pop)
    });
    let mut any = false;
    let all = writes.all(|line| {
        any = true;
        line.constant
    });
    any && all
}

/// The registers that hold places on the stack, as bits.
type Bases = u32;

fn bit(register: Register) -> Bases {
    let full = register.full_register();
    let index = (full as u32).wrapping_sub(Register::RAX as u32);
    if index < 16 { 1 << index } else { 0 }
}

fn is_on_stack(instruction: &Instruction, bases: Bases) -> bool {
    // The index may be the pointer where nothing is multiplied.
    let index = if instruction.memory_index_scale() == 1 { bit(instruction.memory_index()) } else { 0 };
    (bit(instruction.memory_base()) | index) & (bases | bit(Register::RSP)) != 0
}

/// Returns for each instruction which registers hold places on the stack before it, as far as a look from the top to
/// the bottom shows it. A register that is written otherwise is no longer one, and behind a jump only the frame
/// pointer is.
fn stack_bases(lines: &[Line]) -> Vec<Bases> {
    let mut factory = InstructionInfoFactory::new();
    let frame = lines.iter().take(12).any(|line| is_frame_pointer(&line.instruction));
    let lasting = bit(Register::RSP) | if frame { bit(Register::RBP) } else { 0 };
    let mut bases = bit(Register::RSP);
    let mut before = Vec::with_capacity(lines.len());
    for line in lines {
        before.push(bases);
        let instruction = &line.instruction;
        let from_stack = match instruction.mnemonic() {
            Mnemonic::Lea => is_on_stack(instruction, bases),
            Mnemonic::Mov => instruction.op1_kind() == OpKind::Register && bit(instruction.op1_register()) & bases != 0,
            _ => false,
        };
        if from_stack && instruction.op0_kind() == OpKind::Register && instruction.op0_register().size() == 8 {
            bases |= bit(instruction.op0_register());
            continue;
        }
        match instruction.flow_control() {
            FlowControl::Next | FlowControl::ConditionalBranch => {}
            // A call keeps what its caller may rely on.
            FlowControl::Call | FlowControl::IndirectCall => bases &= lasting | kept_over_calls(),
            _ => {
                bases &= lasting | kept_over_calls();
                continue;
            }
        }
        let adjusts = matches!(
            instruction.mnemonic(),
            Mnemonic::Add | Mnemonic::Sub | Mnemonic::And | Mnemonic::Inc | Mnemonic::Dec
        );
        for used in factory.info(instruction).used_registers() {
            let written = matches!(
                used.access(),
                OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
            );
            if written && !adjusts {
                bases &= !bit(used.register()) | lasting;
            }
        }
    }
    before
}

fn kept_over_calls() -> Bases {
    [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15]
        .into_iter()
        .map(bit)
        .fold(0, |a, b| a | b)
}

fn is_frame_pointer(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == Register::RBP
        && instruction.op1_kind() == OpKind::Register
        && instruction.op1_register() == Register::RSP
}

/// Returns the argument registers that a function reads before it writes them, as far as its straight start shows.
#[must_use]
pub fn arguments(lines: &[Line]) -> BTreeSet<&'static str> {
    const NAMES: [(Register, &str); 6] = [
        (Register::RDI, "rdi"),
        (Register::RSI, "rsi"),
        (Register::RDX, "rdx"),
        (Register::RCX, "rcx"),
        (Register::R8, "r8"),
        (Register::R9, "r9"),
    ];
    let mut factory = InstructionInfoFactory::new();
    let mut read = BTreeSet::new();
    let mut written: Bases = 0;
    for line in lines {
        let instruction = &line.instruction;
        let used = factory.info(instruction).used_registers().to_vec();
        for one in &used {
            let reads = matches!(
                one.access(),
                OpAccess::Read | OpAccess::ReadWrite | OpAccess::CondRead | OpAccess::ReadCondWrite
            );
            if reads && bit(one.register()) & written == 0 {
                let full = one.register().full_register();
                read.extend(NAMES.iter().find(|(register, _)| *register == full).map(|(_, name)| *name));
            }
        }
        for one in &used {
            if matches!(one.access(), OpAccess::Write | OpAccess::ReadWrite) {
                written |= bit(one.register());
            }
        }
        if !matches!(instruction.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch) {
            break;
        }
    }
    read
}

/// How a function uses the fields at one distance from their base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// An instruction that reads there.
    pub read: Option<u64>,
    /// An instruction that writes there.
    pub written: Option<u64>,
}

/// Returns the distances at which the new version of a function reads or writes fields and the old version does not.
#[must_use]
pub fn new_fields(alignment: &Alignment) -> BTreeMap<i64, Uses> {
    let old = fields(&alignment.old);
    let mut new = fields(&alignment.new);
    new.retain(|distance, _| !old.contains_key(distance));
    new
}

/// Returns how a function uses the fields at each distance.
#[must_use]
pub fn fields(lines: &[Line]) -> BTreeMap<i64, Uses> {
    let mut factory = InstructionInfoFactory::new();
    let mut found: BTreeMap<i64, Uses> = BTreeMap::new();
    for (line, bases) in lines.iter().zip(stack_bases(lines)) {
        let instruction = &line.instruction;
        let memory = (0..instruction.op_count()).any(|index| instruction.op_kind(index) == OpKind::Memory);
        let based = instruction.memory_base() != Register::None && !instruction.is_ip_rel_memory_operand();
        if !memory || !based || is_on_stack(instruction, bases) {
            continue;
        }
        for used in factory.info(instruction).used_memory() {
            if used.base() != instruction.memory_base() {
                continue;
            }
            let uses = found.entry(instruction.memory_displacement64().cast_signed()).or_default();
            let ip = instruction.ip();
            match used.access() {
                OpAccess::Read | OpAccess::CondRead => _ = uses.read.get_or_insert(ip),
                OpAccess::Write | OpAccess::CondWrite => _ = uses.written.get_or_insert(ip),
                OpAccess::ReadWrite | OpAccess::ReadCondWrite => {
                    uses.read.get_or_insert(ip);
                    uses.written.get_or_insert(ip);
                }
                OpAccess::None | OpAccess::NoMemAccess => {}
            }
        }
    }
    found
}
