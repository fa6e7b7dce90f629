//! Reads a shared object with hooks: what has to be loaded of it, and what its code refers to.
//!
//! A hook is loaded without the dynamic loader, which may be in any state where the program stands still. So it has no
//! constructors, no thread-local variables and no libraries of its own; what it refers to of other files must be in the process.

use object::elf::{
    PF_W, PF_X, R_X86_64_64, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT, R_X86_64_RELATIVE, SHT_INIT_ARRAY, SHT_RELR,
};
use object::read::elf::ElfFile64;
use object::{
    Architecture, LittleEndian, Object as _, ObjectKind, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _,
    ObjectSymbolTable as _, RelocationFlags, RelocationTarget, SectionFlags, SegmentFlags,
};

use crate::patch::{PAGE, Protection};

/// The functions that a package may bring.
pub const BEFORE: &str = "mvedsua_before";
pub const AFTER: &str = "mvedsua_after";
/// What is loaded is at most so large, bytes.
const LARGEST: u64 = 16 << 20;

/// A shared object with hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookFile {
    /// Bytes that it takes in memory, from its address 0; whole pages.
    pub len: u64,
    /// By address.
    pub segments: Vec<Segment>,
    pub words: Vec<Word>,
    /// Addresses of the functions that it brings.
    pub before: Option<u64>,
    pub after: Option<u64>,
}

/// Some of its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub start: u64,
    pub bytes: Vec<u8>,
    pub protection: Protection,
}

/// A word of its memory that holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub at: u64,
    pub holds: Holds,
}

/// What address a word holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// One of its own.
    Own(u64),
    /// That of a symbol of the process, and a number that is added.
    Symbol(String, i64),
}

impl HookFile {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Why it cannot be loaded, in words.
    pub fn read(bytes: &[u8]) -> Result<HookFile, String> {
        let file = ElfFile64::<LittleEndian>::parse(bytes).map_err(|e| format!("it is no ELF file for x86-64: {e}"))?;
        if file.architecture() != Architecture::X86_64 || file.kind() != ObjectKind::Dynamic {
            return Err("it is no shared object for x86-64 (`cc -shared -fPIC`)".to_owned());
        }
        for section in file.sections() {
            let name = section.name().unwrap_or_default();
            let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
            if sh_flags & u64::from(object::elf::SHF_TLS) != 0 {
                return Err("it has thread-local variables".to_owned());
            }
            let kind = section.elf_section_header().sh_type.get(LittleEndian);
            // One entry is what the compiler brings.
            if kind == SHT_INIT_ARRAY && section.size() > 8 {
                return Err("it has constructors, which nobody would call".to_owned());
            }
            if kind == SHT_RELR {
                return Err(format!("{name} holds packed relocations; link it without `-z pack-relative-relocs`"));
            }
        }
        let mut found = HookFile { len: 0, segments: vec![], words: vec![], before: None, after: None };
        for segment in file.segments() {
            let end = segment.address().checked_add(segment.size()).filter(|end| *end <= LARGEST);
            let Some(end) = end else { return Err(format!("it takes more than {LARGEST} bytes")) };
            found.len = found.len.max(end.next_multiple_of(PAGE));
            let SegmentFlags::Elf { p_flags } = segment.flags() else { continue };
            let mut bytes = segment.data().map_err(|e| e.to_string())?.to_vec();
            bytes.resize(usize::try_from(segment.size()).unwrap_or(0), 0);
            let protection = match (p_flags & PF_X != 0, p_flags & PF_W != 0) {
                (true, true) => return Err("it has memory that is both written and executed".to_owned()),
                (true, false) => Protection::Code,
                (false, true) => Protection::Data,
                (false, false) => Protection::Constant,
            };
            found.segments.push(Segment { start: segment.address(), bytes, protection });
        }
        let apart = |pair: &[Segment]| match pair {
            [a, b] => (a.start + a.bytes.len() as u64).next_multiple_of(PAGE) <= b.start / PAGE * PAGE,
            _ => true,
        };
        if !found.segments.windows(2).all(apart) {
            return Err("two of its segments share a page".to_owned());
        }
        found.read_words(&file)?;
        let function = |name: &str| {
            let mut defined = file.dynamic_symbols().filter(|symbol| symbol.is_definition());
            defined.find(|symbol| symbol.name() == Ok(name)).map(|symbol| symbol.address())
        };
        (found.before, found.after) = (function(BEFORE), function(AFTER));
        if found.before.is_none() && found.after.is_none() {
            return Err(format!("it exports neither `{BEFORE}` nor `{AFTER}`"));
        }
        Ok(found)
    }

    fn read_words(&mut self, file: &ElfFile64<'_, LittleEndian>) -> Result<(), String> {
        let symbols = file.dynamic_symbol_table();
        for (at, relocation) in file.dynamic_relocations().into_iter().flatten() {
            let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
            let holds = match (r_type, relocation.target()) {
                (R_X86_64_RELATIVE, _) => Holds::Own(relocation.addend().cast_unsigned()),
                (R_X86_64_64 | R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT, RelocationTarget::Symbol(index)) => {
                    let symbol = symbols.as_ref().and_then(|all| all.symbol_by_index(index).ok());
                    let symbol = symbol.ok_or("a relocation names a symbol that is not there")?;
                    let name = symbol.name().map_err(|e| e.to_string())?;
                    if symbol.is_definition() {
                        Holds::Own(symbol.address().wrapping_add_signed(relocation.addend()))
                    } else if symbol.is_weak() {
                        // What the compiler's start-up code asks for, and nobody has.
                        continue;
                    } else {
                        Holds::Symbol(name.to_owned(), relocation.addend())
                    }
                }
                (other, _) => return Err(format!("it has a relocation of type {other} at {at:#x}")),
            };
            if !self.segments.iter().any(|one| one.start <= at && at + 8 <= one.start + one.bytes.len() as u64) {
                return Err(format!("it has a relocation at {at:#x}, where nothing is loaded"));
            }
            self.words.push(Word { at, holds });
        }
        Ok(())
    }

    /// Returns the names of what it uses of other files.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.words.iter().filter_map(|word| match &word.holds {
            Holds::Symbol(name, _) => Some(name.as_str()),
            Holds::Own(_) => None,
        })
    }
}
