//! Damages one function of a file, as a programmer's mistake or a broken compiler would.

use std::fmt;

use anyhow::{Context, Result, ensure};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use mvedsua_binary::image::Area;
use mvedsua_binary::normalise::Way;
use mvedsua_binary::side::Side;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::Serialize;

/// Damage is done in so many instructions from the start of a function: further behind are cases that hardly ever happen.
const NEAR: usize = 30;
/// How far an operand is shifted, bytes.
const SHIFT: i32 = 8;

/// In what manner a function is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// One byte of an instruction is another one.
    Byte,
    /// An operand that leads to an object leads behind it.
    Object,
    /// A call leads to another function.
    Call,
    /// A conditional jump is taken where it must not be.
    Branch,
    /// It returns at once: what it should do, or free, is left.
    Return,
    /// It goes round for ever.
    Spin,
    /// It ends the process.
    End,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] =
        [Kind::Byte, Kind::Branch, Kind::Call, Kind::Return, Kind::Object, Kind::Spin, Kind::End];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Byte => "a byte",
            Kind::Object => "an object",
            Kind::Call => "a call",
            Kind::Branch => "a branch",
            Kind::Return => "returns at once",
            Kind::Spin => "spins",
            Kind::End => "ends",
        })
    }
}

/// What is written over a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) kind: Kind,
    /// The address in the file.
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

/// Chooses a place in a function for damage of some kind; `None` where it has none.
pub(super) fn choose(side: &Side<'_>, index: usize, kind: Kind, random: &mut StdRng) -> Option<Damage> {
    let function = side.functions.get(index)?;
    let code = side.image.bytes_at(function.start, function.len())?;
    let mut decoder = Decoder::with_ip(64, code, function.start, DecoderOptions::NONE);
    let instructions: Vec<Instruction> = decoder.iter().take(NEAR).collect();
    let end = instructions.last()?.next_ip();
    let refs = side.bodies.refs(index).iter().filter(|one| function.start + u64::from(one.at) < end);
    let byte = |at: u64| code.get(usize::try_from(at - function.start).ok()?).copied();
    let (at, bytes) = match kind {
        Kind::Byte => {
            let instruction = instructions.choose(random)?;
            let at = instruction.ip() + random.random_range(0..instruction.len() as u64);
            (at, vec![byte(at)? ^ random.random_range(1..=u8::MAX)])
        }
        Kind::Branch => {
            let branches = instructions.iter().filter(|one| one.flow_control() == FlowControl::ConditionalBranch);
            let branch = branches.collect::<Vec<_>>().choose(random).copied()?;
            // 70+cc with one byte, 0f 80+cc with four: the lowest bit of the condition negates it.
            let at = branch.ip() + u64::from(byte(branch.ip())? == 0x0f);
            let code = byte(at)?;
            if !matches!(code, 0x70..=0x8f) {
                return None;
            }
            (at, vec![code ^ 1])
        }
        Kind::Call => {
            let calls = refs.filter(|one| {
                one.way == Way::Call && one.len == 4 && side.image.area_at(one.target) == Some(Area::Code)
            });
            let call = calls.collect::<Vec<_>>().choose(random).copied()?;
            let others: Vec<u64> = side.functions.iter().filter(|f| f.name.is_some()).map(|f| f.start).collect();
            let other = others.choose(random).copied().filter(|other| *other != call.target)?;
            let at = function.start + u64::from(call.field);
            let distance = i32::try_from(other.wrapping_sub(at + 4).cast_signed()).ok()?;
            (at, distance.to_le_bytes().to_vec())
        }
        Kind::Object => {
            let objects = refs.filter(|one| {
                let leads_to = side.image.area_at(one.target);
                one.way != Way::Call && one.len == 4 && leads_to.is_some_and(Area::is_writable)
            });
            let object = objects.collect::<Vec<_>>().choose(random).copied()?;
            let at = function.start + u64::from(object.field);
            let field: [u8; 4] = (0..4).map_while(|n| byte(at + n)).collect::<Vec<_>>().try_into().ok()?;
            (at, i32::from_le_bytes(field).wrapping_add(SHIFT).to_le_bytes().to_vec())
        }
        Kind::Return => over(&instructions, 0, &[0xc3])?,
        // jmp to itself
        Kind::Spin => over(&instructions, random.random_range(0..instructions.len()), &[0xeb, 0xfe])?,
        // ud2
        Kind::End => over(&instructions, random.random_range(0..instructions.len()), &[0x0f, 0x0b])?,
    };
    let inside = at >= function.start && at + bytes.len() as u64 <= function.end;
    inside.then_some(Damage { kind, at, bytes })
}

/// Writes an instruction over others; what is left of the last one becomes `nop`s.
fn over(instructions: &[Instruction], first: usize, bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
    const NOP: u8 = 0x90;
    let at = instructions.get(first)?.ip();
    let last = instructions.iter().skip(first).find(|one| one.next_ip() >= at + bytes.len() as u64)?;
    let mut bytes = bytes.to_vec();
    bytes.resize(usize::try_from(last.next_ip() - at).ok()?, NOP);
    Some((at, bytes))
}

/// Returns the damaged file. It has a build-id of its own, since versions are told by it.
pub(super) fn apply(file: &[u8], side: &Side<'_>, damage: &Damage, random: &mut StdRng) -> Result<Vec<u8>> {
    let mut damaged = file.to_vec();
    let place = side.image.bytes_at(damage.at, damage.bytes.len()).context("the place is in the file")?;
    let start = place.as_ptr().addr() - file.as_ptr().addr();
    damaged[start..start + place.len()].copy_from_slice(&damage.bytes);
    let id = side.image.build_id.as_deref().context("the file has no build-id")?;
    let digit = |at: usize| u8::from_str_radix(&id[at..at + 2], 16).context("reading the build-id");
    let id: Vec<u8> = (0..id.len()).step_by(2).map(digit).collect::<Result<_>>()?;
    let found: Vec<usize> =
        file.windows(id.len()).enumerate().filter(|(_, window)| *window == id).map(|(at, _)| at).collect();
    ensure!(found.len() == 1, "the build-id stands {} times in the file", found.len());
    damaged[found[0]..found[0] + id.len()].fill_with(|| random.random());
    Ok(damaged)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use harness::stock::{Addresses, Versions};
    use mvedsua_binary::compare;
    use mvedsua_binary::verdict::Verdict;
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn what_is_left_of_an_instruction_becomes_nops() {
        // push %rbp; mov %rsp,%rbp; ret
        let code = [0x55, 0x48, 0x89, 0xe5, 0xc3];
        let instructions: Vec<Instruction> = Decoder::with_ip(64, &code, 0x10, DecoderOptions::NONE).iter().collect();
        assert_eq!(over(&instructions, 0, &[0xeb, 0xfe]), Some((0x10, vec![0xeb, 0xfe, 0x90, 0x90])));
        assert_eq!(over(&instructions, 1, &[0x0f, 0x0b]), Some((0x11, vec![0x0f, 0x0b, 0x90])));
        assert_eq!(over(&instructions, 2, &[0x0f, 0x0b]), None, "it would reach into what comes next");
    }

    /// Damages the first function that has a place for each kind.
    fn damage_all(file: &[u8], side: &Side<'_>, seed: u64) -> Vec<(usize, Damage, Vec<u8>)> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut one = |kind| {
            let mut named = (0..side.functions.len()).filter(|index| side.functions[*index].name.is_some());
            let (index, damage) =
                named.find_map(|index| Some((index, choose(side, index, kind, &mut random)?))).unwrap();
            let damaged = apply(file, side, &damage, &mut random).unwrap();
            (index, damage, damaged)
        };
        Kind::ALL.map(&mut one).into()
    }

    #[test]
    fn damage_of_each_kind_is_seen_in_its_function_and_can_be_repeated() {
        let versions = Versions::new(Addresses::Anywhere).unwrap();
        let file = fs::read(versions.service("1", &["-rdynamic", "-Dstatic="]).unwrap()).unwrap();
        let same = compare(&file, &file).unwrap();
        let damaged = damage_all(&file, &same.new, 7);
        assert_eq!(damaged, damage_all(&file, &same.new, 7));
        assert_ne!(damaged, damage_all(&file, &same.new, 8));
        for (index, damage, damaged) in damaged {
            let comparison = compare(&file, &damaged).unwrap();
            assert_ne!(comparison.new.image.build_id, same.new.image.build_id);
            let changed = comparison.fates.changed.iter().any(|fate| fate.new == Some(index));
            let refused = matches!(comparison.verdict, Verdict::Refused { .. });
            assert!(changed || refused, "{} at {:#x}: {:?}", damage.kind, damage.at, comparison.fates.changed);
        }
    }
}
