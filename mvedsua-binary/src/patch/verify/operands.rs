//! Operands that hold places.

use iced_x86::{Code, Decoder, FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::image::{Image, Kind};

/// In which manner something is referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It is called or jumped to.
    Run,
    /// So many bytes of it are accessed; zero where that depends.
    Access(usize),
    Address,
}

/// An operand that holds a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand {
    /// Where it stands in its instruction, and how long it is.
    pub(super) field: (usize, usize),
    pub(super) place: u64,
    pub(super) way: Use,
}

/// Returns the operands of an instruction that hold places; where `fields` are given, those that stand there.
pub(super) fn operands(
    image: &Image<'_>,
    instruction: &Instruction,
    decoder: &Decoder<'_>,
    fields: Option<&[(usize, usize)]>,
) -> Vec<Operand> {
    let mut found = vec![];
    if instruction.code() == Code::INVALID {
        return found;
    }
    let offsets = decoder.get_constant_offsets(instruction);
    let immediate = (offsets.immediate_offset(), offsets.immediate_size());
    let displacement = (offsets.displacement_offset(), offsets.displacement_size());
    let is_meant = |field: (usize, usize), place: u64| match fields {
        Some(fields) => fields.contains(&field),
        None => image.kind == Kind::Fixed && field.1 >= 4 && image.area_at(place).is_some(),
    };
    if instruction.op0_kind() == OpKind::NearBranch64 {
        let place = instruction.near_branch_target();
        return vec![Operand { field: immediate, place, way: Use::Run }];
    }
    let way = match (instruction.mnemonic(), instruction.flow_control()) {
        (Mnemonic::Lea, _) => Use::Address,
        (_, FlowControl::IndirectBranch | FlowControl::IndirectCall) => Use::Access(8),
        _ => Use::Access(instruction.memory_size().size()),
    };
    let alone = instruction.memory_index() == Register::None
        && matches!(instruction.memory_base(), Register::None | Register::RIP);
    let has_memory = (0..instruction.op_count()).any(|index| instruction.op_kind(index) == OpKind::Memory);
    if has_memory && offsets.has_displacement() {
        let place = instruction.memory_displacement64();
        let plain = instruction.segment_prefix() == Register::None;
        if instruction.is_ip_rel_memory_operand() || plain && is_meant(displacement, place) {
            let way = if alone { way } else { Use::Access(0) };
            found.push(Operand { field: displacement, place, way });
        }
    }
    let value = (0..instruction.op_count()).find_map(|index| match instruction.op_kind(index) {
        OpKind::Immediate32 | OpKind::Immediate64 | OpKind::Immediate32to64 => Some(instruction.immediate(index)),
        _ => None,
    });
    if let Some(place) = value.filter(|place| offsets.has_immediate() && is_meant(immediate, *place)) {
        found.push(Operand { field: immediate, place, way: Use::Address });
    }
    found
}
