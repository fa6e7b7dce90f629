//! Reads an ELF file into an [`Image`].

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{
    Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _, SectionTable, Sym as _, SymbolTable,
};

use super::{Area, Image, Kind, Relocation, Scope, Section, Symbol, SymbolKind, ThreadLocal, Written, stubs};

/// Why a file cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not what it should be, or it is damaged.
    #[error("this is no ELF file of 64 bits, or it is damaged: {0}")]
    Damaged(String),
    /// It is for another processor.
    #[error("this is a file for another processor (machine {0} in its header); only x86-64 is understood")]
    Machine(u16),
    /// It is neither an executable nor a library.
    #[error("this is neither an executable nor a shared library (type {0} in its header)")]
    Type(u16),
    /// It has no table of sections.
    #[error("the file has no table of sections; without it constants and data cannot be told apart")]
    NoSections,
    /// It has no unwind information.
    #[error("the file has no `.eh_frame`; without it nobody knows where functions begin and end")]
    NoUnwind,
    /// Something in it is larger than is believable.
    #[error("the file is damaged: {0}")]
    Absurd(&'static str),
}

impl ReadError {
    /// Says whether the file is whole, and only lacks what a comparison needs.
    #[must_use]
    pub fn is_lack(&self) -> bool {
        match self {
            ReadError::NoSections | ReadError::NoUnwind => true,
            ReadError::Damaged(_) | ReadError::Machine(_) | ReadError::Type(_) | ReadError::Absurd(_) => false,
        }
    }
}

impl From<object::read::Error> for ReadError {
    fn from(e: object::read::Error) -> ReadError {
        ReadError::Damaged(e.to_string())
    }
}

type Header = FileHeader64<LE>;
type Sections<'d> = SectionTable<'d, Header>;

/// No address of a program is above this; sums of two such addresses cannot overflow.
const HIGHEST: u64 = 1 << 47;

pub(super) fn read(bytes: &[u8]) -> Result<Image<'_>, ReadError> {
    let header = Header::parse(bytes)?;
    let endian = header.endian()?;
    let machine = header.e_machine.get(endian);
    if machine != elf::EM_X86_64 {
        return Err(ReadError::Machine(machine));
    }
    let segments = header.program_headers(endian, bytes)?;
    let kind = match header.e_type.get(endian) {
        elf::ET_EXEC => Kind::Fixed,
        elf::ET_DYN if segments.iter().any(|s| s.p_type(endian) == elf::PT_INTERP) => Kind::Pie,
        elf::ET_DYN => Kind::Shared,
        other => return Err(ReadError::Type(other)),
    };
    let table = header.sections(endian, bytes)?;
    if table.is_empty() {
        return Err(ReadError::NoSections);
    }
    let sections = sections(bytes, &table, segments)?;
    let eh_frame = sections
        .iter()
        .find(|section| section.name == ".eh_frame")
        .map(|section| (section.start, section.bytes))
        .ok_or(ReadError::NoUnwind)?;
    let mut image = Image {
        kind,
        build_id: build_id(bytes, &table),
        soname: None,
        needed: vec![],
        entry: header.e_entry.get(endian),
        sections,
        symbols: vec![],
        relocations: vec![],
        stubs: vec![],
        tls: thread_local(bytes, segments)?,
        eh_frame,
    };
    let dynamic = table.symbols(endian, bytes, elf::SHT_DYNSYM)?;
    read_dynamic(&mut image, bytes, &table)?;
    read_symbols(&mut image, &dynamic, Scope::Dynamic);
    read_symbols(&mut image, &table.symbols(endian, bytes, elf::SHT_SYMTAB)?, Scope::Local);
    image.symbols.sort_by(|a, b| (a.address, a.scope as u8, a.name).cmp(&(b.address, b.scope as u8, b.name)));
    image.symbols.dedup_by(|b, a| a.address == b.address && a.name == b.name);
    read_relocations(&mut image, bytes, &table, &dynamic)?;
    image.relocations.sort_by_key(|relocation| relocation.place);
    image.relocations.dedup_by_key(|relocation| relocation.place);
    image.stubs = stubs::find(&image);
    Ok(image)
}

fn sections<'d>(
    bytes: &'d [u8],
    table: &Sections<'d>,
    segments: &[ProgramHeader64<LE>],
) -> Result<Vec<Section<'d>>, ReadError> {
    let relro = segments
        .iter()
        .find(|segment| segment.p_type(LE) == elf::PT_GNU_RELRO)
        .map_or(0..0, |s| s.p_vaddr(LE)..s.p_vaddr(LE).saturating_add(s.p_memsz(LE)));
    let mut found = vec![];
    for section in table.iter() {
        let flags = section.sh_flags(LE);
        let (start, size) = (section.sh_addr(LE), section.sh_size(LE));
        if flags & u64::from(elf::SHF_ALLOC) == 0 || size == 0 {
            continue;
        }
        // The zeros of thread-local storage have addresses but take no room there.
        if flags & u64::from(elf::SHF_TLS) != 0 {
            continue;
        }
        if start >= HIGHEST || size >= HIGHEST {
            return Err(ReadError::Absurd("a section lies beyond all addresses"));
        }
        let name = table.section_name(LE, section).ok().and_then(|name| std::str::from_utf8(name).ok()).unwrap_or("");
        let zeros = section.sh_type(LE) == elf::SHT_NOBITS;
        let area = if flags & u64::from(elf::SHF_EXECINSTR) != 0 {
            if name.starts_with(".plt") { Area::Stubs } else { Area::Code }
        } else if flags & u64::from(elf::SHF_WRITE) == 0 {
            Area::Constant
        } else if name.starts_with(".got") {
            Area::Slots
        } else if relro.contains(&start) {
            Area::Relro
        } else if zeros {
            Area::Zero
        } else {
            Area::Data
        };
        found.push(Section {
            name,
            start,
            end: start + size,
            area,
            bytes: if zeros { &[] } else { section.data(LE, bytes)? },
        });
    }
    found.sort_by_key(|section| section.start);
    if found.windows(2).any(|pair| matches!(pair, [a, b] if a.end > b.start)) {
        return Err(ReadError::Absurd("two sections lie at the same addresses"));
    }
    Ok(found)
}

fn thread_local<'d>(bytes: &'d [u8], segments: &[ProgramHeader64<LE>]) -> Result<Option<ThreadLocal<'d>>, ReadError> {
    let Some(segment) = segments.iter().find(|segment| segment.p_type(LE) == elf::PT_TLS) else { return Ok(None) };
    let bytes =
        segment.data(LE, bytes).map_err(|()| ReadError::Absurd("thread-local storage lies outside the file"))?;
    let start = segment.p_vaddr(LE);
    Ok(Some(ThreadLocal { start, size: segment.p_memsz(LE), align: segment.p_align(LE), bytes }))
}

fn build_id(bytes: &[u8], table: &Sections<'_>) -> Option<String> {
    for section in table.iter() {
        let Ok(Some(mut notes)) = section.notes(LE, bytes) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
                return Some(note.desc().iter().map(|byte| format!("{byte:02x}")).collect());
            }
        }
    }
    None
}

fn read_dynamic<'d>(image: &mut Image<'d>, bytes: &'d [u8], table: &Sections<'d>) -> Result<(), ReadError> {
    let Some((entries, link)) = table.dynamic(LE, bytes)? else { return Ok(()) };
    let strings = table.strings(LE, bytes, link)?;
    for entry in entries {
        let tag = entry.tag(LE);
        if tag == elf::DT_NULL {
            break;
        }
        let text = || entry.string(LE, strings).ok().and_then(|name| std::str::from_utf8(name).ok());
        match tag {
            elf::DT_NEEDED => {
                image.needed.push(text().ok_or(ReadError::Absurd("the name of a needed library cannot be read"))?);
            }
            elf::DT_SONAME => image.soname = text(),
            _ => {}
        }
    }
    Ok(())
}

fn read_symbols<'d>(image: &mut Image<'d>, symbols: &SymbolTable<'d, Header>, scope: Scope) {
    for symbol in symbols.iter() {
        let kind = match symbol.st_type() {
            elf::STT_FUNC => SymbolKind::Function,
            elf::STT_GNU_IFUNC => SymbolKind::Resolver,
            elf::STT_OBJECT | elf::STT_COMMON => SymbolKind::Object,
            elf::STT_TLS => SymbolKind::ThreadLocal,
            _ => continue,
        };
        let Some(name) = symbols.symbol_name(LE, symbol).ok().and_then(|name| std::str::from_utf8(name).ok()) else {
            continue;
        };
        let address = symbol.st_value(LE);
        if symbol.is_undefined(LE) || name.is_empty() || address >= HIGHEST {
            continue;
        }
        image.symbols.push(Symbol { name, address, size: symbol.st_size(LE).min(HIGHEST), kind, scope });
    }
}

fn read_relocations<'d>(
    image: &mut Image<'d>,
    bytes: &'d [u8],
    table: &Sections<'d>,
    dynamic: &SymbolTable<'d, Header>,
) -> Result<(), ReadError> {
    for section in table.iter().filter(|section| section.sh_flags(LE) & u64::from(elf::SHF_ALLOC) != 0) {
        if let Some((relocations, _)) = section.rela(LE, bytes)? {
            for relocation in relocations {
                if let Some(written) = written(relocation, dynamic) {
                    image.relocations.push(Relocation { place: relocation.r_offset.get(LE), written });
                }
            }
        }
        if let Some(packed) = section.relr(LE, bytes)? {
            read_packed(image, packed);
        }
        if section.rel(LE, bytes)?.is_some() {
            return Err(ReadError::Absurd("it has relocations of a form that x86-64 does not use"));
        }
    }
    Ok(())
}

fn written<'d>(relocation: &elf::Rela64<LE>, dynamic: &SymbolTable<'d, Header>) -> Option<Written<'d>> {
    let kind = relocation.r_type(LE, false);
    let addend = relocation.r_addend.get(LE);
    let index = object::SymbolIndex(relocation.r_sym(LE, false) as usize);
    let symbol = dynamic.symbol(index).ok().filter(|_| index.0 != 0);
    let name = symbol
        .and_then(|symbol| dynamic.symbol_name(LE, symbol).ok())
        .and_then(|name| std::str::from_utf8(name).ok())
        .unwrap_or("");
    Some(match kind {
        elf::R_X86_64_NONE => return None,
        elf::R_X86_64_RELATIVE | elf::R_X86_64_RELATIVE64 => Written::Address(addend.cast_unsigned()),
        elf::R_X86_64_GLOB_DAT | elf::R_X86_64_JUMP_SLOT | elf::R_X86_64_64 if !name.is_empty() => {
            Written::Symbol(name, addend)
        }
        elf::R_X86_64_COPY if !name.is_empty() => Written::Copied(name),
        elf::R_X86_64_IRELATIVE => Written::Resolved(addend.cast_unsigned()),
        elf::R_X86_64_DTPMOD64 | elf::R_X86_64_DTPOFF64 | elf::R_X86_64_TPOFF64 | elf::R_X86_64_TLSDESC => {
            Written::ThreadLocal(kind, name, addend)
        }
        other => Written::Unknown(other),
    })
}

/// Reads relative relocations in the packed form (`SHT_RELR`), whose numbers stand at the places themselves.
fn read_packed<'d>(image: &mut Image<'d>, places: impl Iterator<Item = u64>) {
    for place in places {
        if let Some(value) = image.bytes_at(place, 8).and_then(|bytes| bytes.try_into().ok()) {
            image.relocations.push(Relocation { place, written: Written::Address(u64::from_le_bytes(value)) });
        }
    }
}
