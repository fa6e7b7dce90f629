//! What a function does with the addresses that it takes, as a walk over its instructions in their order shows: which it goes
//! through up to another one, and where it jumps by a table.
//!
//! The builder has rules of its own for both. These here see less, and see it in another way.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::operands::{Operand, Use};

/// What a call does not keep.
const SCRATCH: [Register; 9] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// An indirect jump, with the table that its target was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    pub(super) at: u64,
    pub(super) table: u64,
    /// How many entries code lets through; at least this one is used.
    pub(super) entries: u64,
}

/// A walk over one function.
pub(super) struct Walk {
    /// From which address that was taken a register's value was made.
    from: BTreeMap<Register, u64>,
    advanced: BTreeSet<u64>,
    compared: Vec<(u64, u64)>,
    table: Option<u64>,
    last_number: Option<u64>,
    most: Option<u64>,
    pub(super) jumps: Vec<Jump>,
    factory: InstructionInfoFactory,
}

impl Walk {
    pub(super) fn new() -> Walk {
        Walk {
            from: BTreeMap::new(),
            advanced: BTreeSet::new(),
            compared: vec![],
            table: None,
            last_number: None,
            most: None,
            jumps: vec![],
            factory: InstructionInfoFactory::new(),
        }
    }

    /// Takes the next instruction, with the operands that hold places.
    pub(super) fn step(&mut self, instruction: &Instruction, operands: &[Operand]) {
        let taken = operands.iter().find(|operand| operand.way == Use::Address).map(|operand| operand.place);
        let register = |index: u32| match instruction.op_kind(index) {
            OpKind::Register => Some(instruction.op_register(index).full_register()).filter(|full| full.is_gpr64()),
            _ => None,
        };
        let first = register(0).and_then(|register| self.from.get(&register).copied());
        let second = register(1).and_then(|register| self.from.get(&register).copied());
        let number = match instruction.op1_kind() {
            OpKind::Immediate8 | OpKind::Immediate8to32 | OpKind::Immediate8to64 | OpKind::Immediate32 => {
                Some(instruction.immediate(1))
            }
            _ => None,
        };
        match instruction.mnemonic() {
            Mnemonic::Cmp | Mnemonic::Sub => {
                if let (Some(a), Some(b)) = (first, second.or(taken)) {
                    self.compared.extend([(a, b), (b, a)]);
                }
                self.last_number = number;
            }
            Mnemonic::Ja => self.most = self.last_number,
            _ => {}
        }
        if instruction.flow_control() == FlowControl::IndirectBranch
            && let (Some(table), true) = (self.table, register(0).is_some())
        {
            let entries = self.most.map_or(1, |most| most.saturating_add(1));
            self.jumps.push(Jump { at: instruction.ip(), table, entries });
        }
        self.table = taken.or(self.table);
        self.write(instruction, taken, register(0).zip(first), register(0).zip(second));
    }

    /// Notes what the registers hold then.
    fn write(
        &mut self,
        instruction: &Instruction,
        taken: Option<u64>,
        changed: Option<(Register, u64)>,
        copied: Option<(Register, u64)>,
    ) {
        let target = (instruction.op0_kind() == OpKind::Register).then(|| instruction.op0_register().full_register());
        let holds = match (instruction.mnemonic(), taken) {
            (Mnemonic::Lea | Mnemonic::Mov, Some(place)) => target.map(|target| (target, place)),
            (Mnemonic::Lea, None) => {
                let from = self.from.get(&instruction.memory_base().full_register()).copied();
                self.advanced.extend(from);
                target.zip(from)
            }
            (Mnemonic::Mov, None) => copied,
            (Mnemonic::Add | Mnemonic::Inc, _) => {
                self.advanced.extend(changed.map(|(_, from)| from));
                changed
            }
            _ => None,
        };
        let info = self.factory.info(instruction);
        for used in info.used_registers() {
            if !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess) {
                self.from.remove(&used.register().full_register());
            }
        }
        if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
            SCRATCH.iter().for_each(|register| {
                self.from.remove(register);
            });
        }
        self.from.extend(holds);
    }

    /// Returns the addresses that code goes on from, each with one behind it that the code compares with.
    pub(super) fn arrays(&self) -> impl Iterator<Item = (u64, u64)> {
        self.compared.iter().copied().filter(|(start, end)| start < end && self.advanced.contains(start))
    }
}
