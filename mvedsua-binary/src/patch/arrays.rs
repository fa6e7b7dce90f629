//! Finds what may be an array and its end among the addresses that a function takes.
//!
//! Code that goes through an array compares with the address behind it, where something else may lie. If the array is
//! the old file's, and what lies behind it is not at the same distance there, that code goes on for ever.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use crate::image::Area;
use crate::normalise::Way;
use crate::side::{Side, Target};

/// Returns the pairs of addresses that a function takes of which the second may be the end of what starts at the first.
pub(super) fn pairs(side: &Side<'_>, function: usize) -> Vec<(u64, u64)> {
    let mut taken: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for reference in side.bodies.refs(function).iter().filter(|reference| reference.way == Way::Address) {
        taken.entry(reference.target).or_default().push(reference.at);
    }
    let all = taken.iter().zip(taken.iter().skip(1));
    let ends = all.filter(|((start, _), (end, places))| match side.image.area_at(**start) {
        Some(Area::Constant) => {
            // Code goes through a text up to its last byte, which is not the end. The bytes of a pointer may look like one.
            let text = side.text_at(**start).filter(|_| side.image.pointer_at(**start).is_none());
            lies_behind(side, **end, |area| area == Area::Constant)
                && text.is_none_or(|text| **start + text.len() as u64 >= **end)
        }
        Some(Area::Relro | Area::Data | Area::Zero) => {
            lies_behind(side, **end, Area::is_object)
                && **start + side.object_extent(**start) == **end
                && places.iter().any(|at| is_compared(side, function, *at))
        }
        Some(Area::Code | Area::Stubs | Area::Slots) | None => false,
    });
    ends.map(|((start, _), (end, _))| (*start, *end)).collect()
}

/// Says whether an address is in such an area, or is the end of one.
fn lies_behind(side: &Side<'_>, address: u64, is_meant: fn(Area) -> bool) -> bool {
    match (side.image.area_at(address), side.resolve(address).target) {
        (Some(area), _) => is_meant(area),
        (None, Target::Edge(name, _)) => {
            side.image.sections.iter().any(|section| section.name == name && is_meant(section.area))
        }
        (None, _) => false,
    }
}

/// Says whether code compares with the address that an instruction takes, as far as that shows: with the register that
/// holds it, or with what it may have been stored to.
fn is_compared(side: &Side<'_>, function: usize, at: u32) -> bool {
    let Some(start) = side.functions.get(function).map(|function| function.start + u64::from(at)) else { return true };
    let end = side.functions.get(function).map_or(0, |function| function.end);
    let bytes = usize::try_from(end.saturating_sub(start)).ok().and_then(|len| side.image.bytes_at(start, len));
    let Some(bytes) = bytes else { return true };
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let taking = decoder.decode();
    if is_comparison(&taking) {
        return true;
    }
    let held = taking.op0_register().full_register();
    if !matches!(taking.mnemonic(), Mnemonic::Lea | Mnemonic::Mov) || !held.is_gpr64() {
        return false;
    }
    // What a call keeps lives long, and code of other paths may stand between.
    let lives_long =
        matches!(held, Register::RBX | Register::RBP | Register::R12 | Register::R13 | Register::R14 | Register::R15);
    let mut factory = InstructionInfoFactory::new();
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let uses = (0..instruction.op_count())
            .any(|index| instruction.op_kind(index) == OpKind::Register && instruction.op_register(index) == held);
        let copies = instruction.mnemonic() == Mnemonic::Mov && instruction.op1_kind() == OpKind::Register && uses;
        let on_stack = instruction.op0_kind() == OpKind::Memory
            && matches!(instruction.memory_base(), Register::RSP | Register::RBP);
        let to_register = instruction.op0_kind() == OpKind::Register && instruction.op0_register() != held;
        if uses && (is_comparison(&instruction) || copies && (on_stack || to_register)) {
            return true;
        }
        let written = factory.info(&instruction).used_registers().iter().any(|used| {
            used.register().full_register() == held && matches!(used.access(), OpAccess::Write | OpAccess::ReadWrite)
        });
        if written && !lives_long {
            return false;
        }
    }
    false
}

fn is_comparison(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Sub | Mnemonic::Xor)
}
