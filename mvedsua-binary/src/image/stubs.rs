//! Finds the stubs through which code reaches functions of other files.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};

use super::{Area, Image};

/// Returns each stub's range and the slot it jumps through.
///
/// A stub is what lies between one indirect jump and the next, and starts at a multiple of 8; the code that the first
/// call through a lazily bound slot runs stands behind the jump and belongs to the next stub's range, where nobody
/// calls.
pub(super) fn find(image: &Image<'_>) -> Vec<(Range<u64>, u64)> {
    let mut stubs = vec![];
    for section in image.sections.iter().filter(|section| section.area == Area::Stubs) {
        // Entries of 16 bytes, except where each is nothing but its jump.
        let step = if section.name == ".plt.got" && !starts_with_endbr(section.bytes) { 8 } else { 16 };
        let mut decoder = Decoder::with_ip(64, section.bytes, section.start, DecoderOptions::NONE);
        while decoder.can_decode() {
            let instruction = decoder.decode();
            let jumps = instruction.mnemonic() == Mnemonic::Jmp
                && instruction.op0_kind() == OpKind::Memory
                && instruction.is_ip_rel_memory_operand();
            let absolute = instruction.mnemonic() == Mnemonic::Jmp
                && instruction.op0_kind() == OpKind::Memory
                && instruction.memory_base() == iced_x86::Register::None
                && instruction.memory_index() == iced_x86::Register::None;
            if !jumps && !absolute {
                continue;
            }
            let slot = instruction.memory_displacement64();
            let start = section.start + (instruction.ip().saturating_sub(section.start)) / step * step;
            if image.written_at(slot).is_some() {
                stubs.push((start..start.saturating_add(step), slot));
            }
        }
    }
    stubs
}

fn starts_with_endbr(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa])
}
