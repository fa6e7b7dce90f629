//! Lays the instructions of two versions of a function beside each other.
//!
//! Two instructions can stand beside each other if they have the same *shape*: operation, registers, kinds of
//! operands. Those that have the same numbers and refer to things of the same meaning too are *exact*. The alignment
//! is the longest one, where an exact pair counts twice. In functions that are too long for that, instructions that
//! occur once on either side cut it into pieces first.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

use crate::image::Area;
use crate::normalise::{Ref, Way, references};
use crate::side::Side;

/// One instruction of a function.
#[derive(Clone, Debug)]
pub struct Line {
    pub instruction: Instruction,
    /// Equal for instructions that do the same with the same numbers.
    pub exact: u64,
    /// Equal for instructions that do the same, perhaps with other numbers.
    pub shape: u64,
    /// What it refers to outside the function.
    pub refs: Vec<Ref>,
    /// It takes the address of something read-only.
    pub constant: bool,
}

/// Two instructions that stand beside each other, by their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub old: usize,
    pub new: usize,
    pub exact: bool,
}

/// Decodes a function.
#[must_use]
pub fn listing(side: &Side<'_>, index: usize) -> Vec<Line> {
    let Some(function) = side.functions.get(index) else { return vec![] };
    let bytes = side.image.bytes_at(function.start, function.len()).unwrap_or_default();
    let mut decoder = Decoder::with_ip(64, bytes, function.start, DecoderOptions::NONE);
    let mut lines = vec![];
    while decoder.can_decode() {
        let instruction = decoder.decode();
        let mut refs = vec![];
        references(&side.image, function, &instruction, &decoder, &mut |reference| refs.push(reference));
        let (exact, shape) = tokens(side, &instruction, &refs);
        let constant = refs.first().is_some_and(|reference| {
            reference.way == Way::Address && side.image.area_at(reference.target) == Some(Area::Constant)
        });
        lines.push(Line { instruction, exact, shape, refs, constant });
    }
    // Padding at the end depends on what comes behind.
    while lines.last().is_some_and(|line| line.instruction.mnemonic() == Mnemonic::Nop) {
        lines.pop();
    }
    lines
}

fn tokens(side: &Side<'_>, instruction: &Instruction, refs: &[Ref]) -> (u64, u64) {
    let mut shape = DefaultHasher::new();
    let mut exact = DefaultHasher::new();
    (instruction.mnemonic() as u32, instruction.op_count()).hash(&mut shape);
    (instruction.has_lock_prefix(), instruction.has_rep_prefix(), instruction.has_repne_prefix()).hash(&mut shape);
    for index in 0..instruction.op_count() {
        match instruction.op_kind(index) {
            OpKind::Register => (0u8, instruction.op_register(index) as u32).hash(&mut shape),
            OpKind::Memory => {
                let base = instruction.memory_base();
                (1u8, base as u32, instruction.memory_index() as u32, instruction.memory_index_scale())
                    .hash(&mut shape);
                (instruction.segment_prefix() as u32, instruction.memory_size() as u32).hash(&mut shape);
                if refs.is_empty() && !instruction.is_ip_rel_memory_operand() {
                    instruction.memory_displacement64().hash(&mut exact);
                }
            }
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => 2u8.hash(&mut shape),
            _ if is_immediate(instruction.op_kind(index)) => {
                3u8.hash(&mut shape);
                if refs.is_empty() {
                    instruction.immediate(index).hash(&mut exact);
                }
            }
            other => (4u8, other as u32).hash(&mut shape),
        }
    }
    refs.len().hash(&mut shape);
    let shape = shape.finish();
    shape.hash(&mut exact);
    for reference in refs {
        side.meaning(reference.target).hash(&mut exact);
    }
    (exact.finish(), shape)
}

/// Says whether an operand is a number in the instruction.
#[must_use]
pub fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

/// The most cells of a table for the longest alignment.
const MAX_CELLS: usize = 4 << 20;

/// Lays two listings beside each other.
#[must_use]
pub fn align(old: &[Line], new: &[Line]) -> Vec<Pair> {
    let mut pairs = vec![];
    piece(old, new, (0, 0), &mut pairs);
    pairs
}

fn piece(old: &[Line], new: &[Line], origin: (usize, usize), pairs: &mut Vec<Pair>) {
    let head = old.iter().zip(new).take_while(|(a, b)| a.exact == b.exact).count();
    pairs.extend((0..head).map(|i| Pair { old: origin.0 + i, new: origin.1 + i, exact: true }));
    let (old, new) = (old.get(head..).unwrap_or_default(), new.get(head..).unwrap_or_default());
    let origin = (origin.0 + head, origin.1 + head);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a.exact == b.exact).count();
    let (old_len, new_len) = (old.len() - tail, new.len() - tail);
    let (middle_old, middle_new) = (old.get(..old_len).unwrap_or_default(), new.get(..new_len).unwrap_or_default());
    if !middle_old.is_empty() && !middle_new.is_empty() {
        if middle_old.len().saturating_mul(middle_new.len()) <= MAX_CELLS {
            longest(middle_old, middle_new, origin, pairs);
        } else {
            cut(middle_old, middle_new, origin, pairs);
        }
    }
    pairs.extend((0..tail).map(|i| Pair { old: origin.0 + old_len + i, new: origin.1 + new_len + i, exact: true }));
}

fn longest(old: &[Line], new: &[Line], origin: (usize, usize), pairs: &mut Vec<Pair>) {
    let width = new.len() + 1;
    let mut table = vec![0u16; (old.len() + 1) * width];
    let value = |a: &Line, b: &Line| if a.exact == b.exact { 2u16 } else { u16::from(a.shape == b.shape) };
    let cell = |table: &[u16], i: usize, j: usize| table.get(i * width + j).copied().unwrap_or(0);
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let worth = value(a, b);
            let mut best = cell(&table, i + 1, j).max(cell(&table, i, j + 1));
            if worth > 0 {
                best = best.max(cell(&table, i + 1, j + 1).saturating_add(worth));
            }
            if let Some(cell) = table.get_mut(i * width + j) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    while let (Some(a), Some(b)) = (old.get(i), new.get(j)) {
        let worth = value(a, b);
        if worth > 0 && cell(&table, i, j) == cell(&table, i + 1, j + 1).saturating_add(worth) {
            pairs.push(Pair { old: origin.0 + i, new: origin.1 + j, exact: worth == 2 });
            (i, j) = (i + 1, j + 1);
        } else if cell(&table, i + 1, j) >= cell(&table, i, j + 1) {
            i += 1;
        } else {
            j += 1;
        }
    }
}

/// Cuts two long pieces where instructions stand that occur once on either side, in the same order.
fn cut(old: &[Line], new: &[Line], origin: (usize, usize), pairs: &mut Vec<Pair>) {
    let once = |lines: &[Line]| {
        let mut seen: HashMap<u64, Option<usize>> = HashMap::with_capacity(lines.len());
        for (index, line) in lines.iter().enumerate() {
            seen.entry(line.exact).and_modify(|place| *place = None).or_insert(Some(index));
        }
        seen
    };
    let places = once(new);
    let mut marks: Vec<(usize, usize)> = once(old)
        .into_iter()
        .filter_map(|(token, index)| Some((index?, places.get(&token).copied().flatten()?)))
        .collect();
    marks.sort_unstable();
    let marks = rising(&marks);
    if marks.is_empty() {
        return;
    }
    let (mut from_old, mut from_new) = (0, 0);
    for (i, j) in marks.into_iter().chain([(old.len(), new.len())]) {
        let (a, b) = (old.get(from_old..i).unwrap_or_default(), new.get(from_new..j).unwrap_or_default());
        piece(a, b, (origin.0 + from_old, origin.1 + from_new), pairs);
        if i < old.len() {
            pairs.push(Pair { old: origin.0 + i, new: origin.1 + j, exact: true });
        }
        (from_old, from_new) = (i + 1, j + 1);
    }
}

/// Returns the longest run of pairs that rise on both sides; the pairs are sorted by the first.
pub(crate) fn rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // For each length the pair that ends a run of it with the smallest second number, and for each pair the one
    // before it.
    let mut ends: Vec<usize> = vec![];
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (index, (_, second)) in pairs.iter().enumerate() {
        let len = ends.partition_point(|end| pairs.get(*end).is_some_and(|(_, other)| other < second));
        before.push(len.checked_sub(1).and_then(|len| ends.get(len).copied()));
        match ends.get_mut(len) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut run = vec![];
    let mut at = ends.last().copied();
    while let Some(index) = at {
        run.extend(pairs.get(index));
        at = before.get(index).copied().flatten();
    }
    run.reverse();
    run
}

/// Says whether two functions are alike enough to be versions of one. Short ones must be more alike: all end in the
/// same way.
#[must_use]
pub fn are_alike(old: &[Line], new: &[Line]) -> bool {
    let least = if old.len().min(new.len()) < 8 { 75 } else { LEAST_LIKENESS };
    likeness(old, new) >= least
}

/// How alike two functions must be, in per cent, to be versions of one.
const LEAST_LIKENESS: u32 = 40;

/// Says how alike two functions are, from 0 to 100: how many instructions of the one are in the other.
#[must_use]
pub fn likeness(old: &[Line], new: &[Line]) -> u32 {
    let mut counts: HashMap<u64, i32> = HashMap::with_capacity(old.len());
    for line in old {
        *counts.entry(line.exact).or_default() += 1;
    }
    let mut shared = 0usize;
    for line in new {
        if let Some(left) = counts.get_mut(&line.exact).filter(|left| **left > 0) {
            *left -= 1;
            shared += 1;
        }
    }
    let all = old.len() + new.len();
    (200 * shared).checked_div(all).map_or(100, |share| u32::try_from(share).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(tokens: &[(u64, u64)]) -> Vec<Line> {
        let line = |(exact, shape): &(u64, u64)| Line {
            instruction: Instruction::default(),
            exact: *exact,
            shape: *shape,
            refs: vec![],
            constant: false,
        };
        tokens.iter().map(line).collect()
    }

    #[test]
    fn an_inserted_instruction_shifts_the_rest() {
        let old = lines(&[(1, 1), (2, 2), (3, 3), (4, 4)]);
        let new = lines(&[(1, 1), (9, 9), (2, 2), (30, 3), (4, 4)]);
        let pair = |old, new, exact| Pair { old, new, exact };
        assert_eq!(align(&old, &new), [pair(0, 0, true), pair(1, 2, true), pair(2, 3, false), pair(3, 4, true)]);
    }

    #[test]
    fn a_run_that_rises_is_the_longest() {
        assert_eq!(rising(&[(0, 5), (1, 1), (2, 2), (3, 0), (4, 3)]), [(1, 1), (2, 2), (4, 3)]);
        assert_eq!(rising(&[]), []);
    }

    #[test]
    fn long_functions_are_cut_and_aligned() {
        let old: Vec<_> = (0..6000).map(|i| (i, i % 7)).collect();
        let mut new = old.clone();
        new.remove(3000);
        new.insert(10, (100_000, 100_000));
        new.insert(5000, (100_001, 100_000));
        let aligned = align(&lines(&old), &lines(&new));
        assert!(aligned.iter().filter(|pair| pair.exact).count() >= 5999, "{}", aligned.len());
    }
}
