//! Brings the body of a function into a form that does not depend on where it and its data lie.
//!
//! The bytes of operands that hold a distance or an absolute address are set to zero, and what they refer to is put
//! into a list. Jumps inside the function stay as they are: their distances do not depend on the place. Two bodies
//! are equal if the bytes that are left are equal and the references stand at the same places in the same manner.
//! What they refer to is then the question; see `binding`.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::functions::{Function, KnownBy};
use crate::image::{Area, Image, Kind};

/// In which manner code refers to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    Call,
    Jump,
    /// A jump under a condition.
    Branch,
    /// It reads or writes so many bytes there; zero where that depends.
    Access(u16),
    /// It accesses something at a distance that a register tells.
    Indexed,
    /// It takes the address.
    Address,
}

/// One place in a function that refers to something outside of it.
#[derive(Clone, Copy, Debug)]
pub struct Ref {
    /// Where the instruction starts, in bytes from the start of the function.
    pub at: u32,
    /// Where the distance or address stands, in bytes from the start of the function.
    pub field: u32,
    /// How many bytes it has: four, eight, or one for a jump to a function nearby.
    pub len: u8,
    pub way: Way,
    /// The address that is meant.
    pub target: u64,
}

/// What is known of the body of one function.
#[derive(Clone, Debug)]
pub struct Body {
    /// Where its bytes are in [`Bodies::masked`].
    bytes: Range<usize>,
    /// Where its references are in [`Bodies::refs`].
    refs: Range<usize>,
    /// Of the masked bytes and of the places and ways of the references.
    pub hash: u64,
    /// It jumps to an address from a register or a table.
    pub jumps_indirectly: bool,
}

/// The bodies of all functions of an image, in their order.
#[derive(Debug, Default)]
pub struct Bodies {
    masked: Vec<u8>,
    refs: Vec<Ref>,
    each: Vec<Body>,
}

impl Bodies {
    /// Decodes all functions.
    #[must_use]
    pub fn read(image: &Image<'_>, functions: &[Function<'_>]) -> Bodies {
        let mut bodies = Bodies::default();
        for function in functions {
            bodies.add(image, function, functions);
        }
        bodies
    }

    /// Returns what is known of one body.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Body> {
        self.each.get(index)
    }

    /// Returns the references of one function, in order.
    #[must_use]
    pub fn refs(&self, index: usize) -> &[Ref] {
        self.each.get(index).and_then(|body| self.refs.get(body.refs.clone())).unwrap_or_default()
    }

    /// Returns the references of all functions.
    #[must_use]
    pub fn all_refs(&self) -> &[Ref] {
        &self.refs
    }

    fn masked(&self, index: usize) -> &[u8] {
        self.each.get(index).and_then(|body| self.masked.get(body.bytes.clone())).unwrap_or_default()
    }

    /// Says whether two bodies are equal, apart from what they refer to.
    #[must_use]
    pub fn equal(&self, index: usize, other: &Bodies, other_index: usize) -> bool {
        let (Some(a), Some(b)) = (self.get(index), other.get(other_index)) else { return false };
        let (refs, other_refs) = (self.refs(index), other.refs(other_index));
        a.hash == b.hash
            && self.masked(index) == other.masked(other_index)
            && refs.len() == other_refs.len()
            && refs.iter().zip(other_refs).all(|(a, b)| (a.at, a.field, a.way) == (b.at, b.field, b.way))
    }

    fn add(&mut self, image: &Image<'_>, function: &Function<'_>, functions: &[Function<'_>]) {
        let bytes = image.bytes_at(function.start, function.len()).unwrap_or_default();
        let (first_byte, first_ref) = (self.masked.len(), self.refs.len());
        self.masked.extend_from_slice(bytes);
        let mut body = Body { bytes: first_byte..self.masked.len(), refs: 0..0, hash: 0, jumps_indirectly: false };
        let mut decoder = Decoder::with_ip(64, bytes, function.start, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let mut found = vec![];
        let mut clean = true;
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            clean &= instruction.code() != Code::INVALID;
            body.jumps_indirectly |= instruction.flow_control() == FlowControl::IndirectBranch;
            references(image, function, &instruction, &decoder, &mut |reference| found.push(reference));
        }
        // Data between functions may look like instructions. What does not decode, or refers to nothing, or jumps to
        // where no function is, must be equal byte by byte.
        let is_in_function = |address: u64| {
            let after = functions.partition_point(|function| function.start <= address);
            after.checked_sub(1).and_then(|index| functions.get(index)).is_some_and(|function| address < function.end)
        };
        clean &= found.iter().all(|reference: &Ref| match reference.way {
            Way::Call | Way::Jump | Way::Branch => match image.area_at(reference.target) {
                Some(Area::Stubs) => true,
                Some(Area::Code) => is_in_function(reference.target),
                _ => false,
            },
            Way::Access(_) | Way::Indexed | Way::Address => image.is_inside_or_behind(reference.target),
        });
        if clean || function.known_by == KnownBy::Unwind {
            for reference in found {
                let from = first_byte + reference.field as usize;
                if let Some(field) = self.masked.get_mut(from..from + usize::from(reference.len)) {
                    field.fill(0);
                    self.refs.push(reference);
                }
            }
        }
        body.refs = first_ref..self.refs.len();
        let mut hasher = DefaultHasher::new();
        hasher.write(self.masked.get(body.bytes.clone()).unwrap_or_default());
        for reference in self.refs.get(body.refs.clone()).unwrap_or_default() {
            (reference.field, reference.way).hash(&mut hasher);
        }
        body.hash = hasher.finish();
        self.each.push(body);
    }
}

/// Tells of what an instruction refers to outside its function.
pub(crate) fn references(
    image: &Image<'_>,
    function: &Function<'_>,
    instruction: &Instruction,
    decoder: &Decoder<'_>,
    tell: &mut dyn FnMut(Ref),
) {
    let own = function.start..function.end;
    let at = u32::try_from(instruction.ip().wrapping_sub(function.start)).unwrap_or(0);
    let offsets = decoder.get_constant_offsets(instruction);
    let field = |offset: usize| at + u32::try_from(offset).unwrap_or(0);
    if matches!(instruction.op0_kind(), OpKind::NearBranch64) {
        let target = instruction.near_branch_target();
        let way = match instruction.flow_control() {
            FlowControl::Call => Way::Call,
            FlowControl::ConditionalBranch => Way::Branch,
            _ => Way::Jump,
        };
        // A call of itself goes to the same place in either version.
        let len = offsets.immediate_size();
        if !own.contains(&target) && offsets.has_immediate() && matches!(len, 1 | 4) {
            tell(Ref { at, field: field(offsets.immediate_offset()), len: len as u8, way, target });
        }
        return;
    }
    if offsets.has_displacement() && matches!(offsets.displacement_size(), 4 | 8) && accesses_memory(instruction) {
        let relative = instruction.is_ip_rel_memory_operand();
        let target = instruction.memory_displacement64();
        let alone = instruction.memory_base() == Register::None && instruction.memory_index() == Register::None;
        let absolute = image.kind == Kind::Fixed
            && !relative
            && instruction.segment_prefix() == Register::None
            && image.area_at(target).is_some();
        if relative && !own.contains(&target) || absolute {
            let size = u16::try_from(instruction.memory_size().size()).unwrap_or(0);
            let way = match instruction.mnemonic() {
                Mnemonic::Lea if alone || relative => Way::Address,
                _ if alone || relative => Way::Access(size),
                _ => Way::Indexed,
            };
            let (field, len) = (field(offsets.displacement_offset()), offsets.displacement_size() as u8);
            tell(Ref { at, field, len, way, target });
        }
    }
    if image.kind == Kind::Fixed && offsets.has_immediate() && matches!(offsets.immediate_size(), 4 | 8) {
        let value = (0..instruction.op_count()).find_map(|index| immediate(instruction, index));
        if let Some(target) = value.filter(|value| image.area_at(*value).is_some()) {
            let (field, len) = (field(offsets.immediate_offset()), offsets.immediate_size() as u8);
            tell(Ref { at, field, len, way: Way::Address, target });
        }
    }
}

fn accesses_memory(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|index| instruction.op_kind(index) == OpKind::Memory)
}

fn immediate(instruction: &Instruction, index: u32) -> Option<u64> {
    match instruction.op_kind(index) {
        OpKind::Immediate32 | OpKind::Immediate64 | OpKind::Immediate32to64 => Some(instruction.immediate(index)),
        _ => None,
    }
}
