//! Whether a call site can be rewritten.

use std::collections::HashMap;
use std::ops::Range;

use gimli::{BaseAddresses, CieOrFde, EhFrame, NativeEndian, UnwindSection};
use iced_x86::{Decoder, DecoderOptions, OpKind};
use object::{Object, ObjectSection, ObjectSegment};

use super::SITE;
use crate::ptrace::memory::Memory;
use crate::ptrace::procfs::{self, Mapping};
use crate::ptrace::{Error, Pid};

/// The call, and the two comparisons that stand behind one: `cmp rax, -4096` and `cmp rax, -4095`.
const CALL: [u8; 2] = [0x0f, 0x05];
const COMPARISONS: [[u8; 6]; 2] = [[0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff], [0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff]];
const PAGE: u64 = 4096;
/// A function that is longer is not read.
const LONGEST: u64 = 1 << 20;

/// Why a site stays as it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("its result is not compared right behind it")]
    NoComparison,
    #[error("it lies in no file that is mapped")]
    NoFile,
    #[error("no unwind table says where its function begins")]
    NoFunction,
    #[error("its function cannot be read as instructions up to it")]
    NoInstruction,
    #[error("somebody jumps into it")]
    JumpedInto,
    #[error("{0}")]
    Unreadable(String),
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Unfit {
        Unfit::Unreadable(error.to_string())
    }
}

/// What is known of the code of one mapped file.
#[derive(Debug)]
struct Module {
    /// Where its functions are, by their starts; addresses of the process.
    functions: Vec<Range<u64>>,
    /// Its code as it is mapped, with where it begins.
    code: Vec<u8>,
    start: u64,
}

/// The functions of the files in which call sites were looked at.
#[derive(Debug, Default)]
pub(super) struct Functions {
    modules: HashMap<u64, Option<Module>>,
}

impl Functions {
    /// Returns the bytes of a site that can be rewritten.
    pub(super) fn inspect(&mut self, pid: Pid, memory: &Memory, site: u64) -> Result<[u8; SITE], Unfit> {
        let bytes: [u8; SITE] =
            memory.read_vec(site, SITE)?.try_into().map_err(|_| Unfit::Unreadable("it is cut off".into()))?;
        let [first, second, comparison @ ..] = bytes;
        if [first, second] != CALL || !COMPARISONS.contains(&comparison) {
            return Err(Unfit::NoComparison);
        }
        let maps = procfs::maps(pid)?;
        let mapping = maps.iter().find(|mapping| (mapping.start..mapping.end).contains(&site)).ok_or(Unfit::NoFile)?;
        if mapping.inode == 0 || !mapping.executable || mapping.writable || mapping.shared {
            return Err(Unfit::NoFile);
        }
        let module = self.modules.entry(mapping.start).or_insert_with(|| Module::read(pid, memory, mapping));
        let module = module.as_ref().ok_or(Unfit::NoFunction)?;
        module.check(site)?;
        Ok(bytes)
    }
}

impl Module {
    fn read(pid: Pid, memory: &Memory, mapping: &Mapping) -> Option<Module> {
        // The file that is mapped, whatever its name stands for by now.
        let path = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
        let bytes = std::fs::read(path).ok()?;
        let file = object::File::parse(&*bytes).ok()?;
        let segment = file.segments().find(|segment| {
            let (offset, len) = segment.file_range();
            (offset & !(PAGE - 1)..offset + len).contains(&mapping.offset)
        })?;
        let bias = mapping
            .start
            .wrapping_sub(mapping.offset)
            .wrapping_sub(segment.address().wrapping_sub(segment.file_range().0));
        let section = file.section_by_name(".eh_frame")?;
        let functions = functions(section.address(), section.data().ok()?, bias);
        let code = memory.read_vec(mapping.start, usize::try_from(mapping.end - mapping.start).ok()?).ok()?;
        Some(Module { functions, code, start: mapping.start })
    }

    fn code_at(&self, range: &Range<u64>) -> Option<&[u8]> {
        let from = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        self.code.get(from..to)
    }

    fn check(&self, site: u64) -> Result<(), Unfit> {
        let within = site + 1..site + SITE as u64;
        let after = self.functions.partition_point(|function| function.start <= site);
        let function = after.checked_sub(1).and_then(|at| self.functions.get(at)).ok_or(Unfit::NoFunction)?;
        if function.end < within.end || function.end - function.start > LONGEST {
            return Err(Unfit::NoFunction);
        }
        let code = self.code_at(function).ok_or(Unfit::NoFunction)?;
        let mut decoder = Decoder::with_ip(64, code, function.start, DecoderOptions::NONE);
        let mut is_instruction = false;
        for instruction in decoder.iter() {
            if instruction.is_invalid() {
                return Err(Unfit::NoInstruction);
            }
            is_instruction |= instruction.ip() == site;
            let branches = instruction.op0_kind() == OpKind::NearBranch64;
            if branches && within.contains(&instruction.near_branch64()) {
                return Err(Unfit::JumpedInto);
            }
        }
        if !is_instruction {
            return Err(Unfit::NoInstruction);
        }
        if self.is_jumped_to_from_afar(&within) { Err(Unfit::JumpedInto) } else { Ok(()) }
    }

    /// Says whether any bytes of the module could be a jump of 32 bits into a range: the unlikely parts of a function lie apart
    /// from it.
    fn is_jumped_to_from_afar(&self, within: &Range<u64>) -> bool {
        let mut at = self.start + 4;
        self.code.windows(4).any(|distance| {
            let distance = i32::from_le_bytes([distance[0], distance[1], distance[2], distance[3]]);
            let target = at.wrapping_add(distance as u64);
            let opcode = |back: u64| self.code.get((at - self.start - 4).checked_sub(back)? as usize).copied();
            let hits =
                within.contains(&target) && (matches!(opcode(1), Some(0xe8 | 0xe9)) || matches!(opcode(2), Some(0x0f)));
            at += 1;
            hits
        })
    }
}

/// Returns where the functions are that unwind tables speak of.
fn functions(address: u64, bytes: &[u8], bias: u64) -> Vec<Range<u64>> {
    let section = EhFrame::new(bytes, NativeEndian);
    let bases = BaseAddresses::default().set_eh_frame(address);
    let mut entries = section.entries(&bases);
    let mut functions = Vec::new();
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let Ok(fde) = partial.parse(|section, bases, offset| section.cie_from_offset(bases, offset)) else { continue };
        let start = fde.initial_address().wrapping_add(bias);
        functions.push(start..start.wrapping_add(fde.len()));
    }
    functions.sort_unstable_by_key(|function| function.start);
    functions
}
