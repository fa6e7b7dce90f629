//! What a comparison needs to know of one ELF file.
//!
//! An [`Image`] is the file as the loader would lay it out: areas of memory, the bytes in them, the relocations that
//! the loader applies, the symbols, and the stubs (PLT) through which code reaches other files. Nothing here looks at
//! what instructions mean, apart from the stubs. All reading is checked: a damaged file is an error, never a panic.

mod load;
mod stubs;

use std::ops::Range;

pub use self::load::ReadError;

/// How a file is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An executable with fixed addresses: absolute addresses stand in its code and data without relocations.
    Fixed,
    /// A position-independent executable.
    Pie,
    /// A shared library.
    Shared,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Fixed => "executable with fixed addresses",
            Kind::Pie => "position-independent executable",
            Kind::Shared => "shared library",
        })
    }
}

/// What lies at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// Instructions.
    Code,
    /// Stubs that jump through a slot.
    Stubs,
    /// Read-only data.
    Constant,
    /// Slots that the loader fills with addresses (GOT).
    Slots,
    /// Data that is read-only once the loader has relocated it.
    Relro,
    /// Writable data with initial values.
    Data,
    /// Writable data that starts as zeros.
    Zero,
}

impl Area {
    /// Says whether objects in this area exist once, so that old and new code must mean the same one.
    #[must_use]
    pub fn is_object(self) -> bool {
        matches!(self, Area::Relro | Area::Data | Area::Zero)
    }

    /// Says whether the program may write there at any time.
    #[must_use]
    pub fn is_writable(self) -> bool {
        matches!(self, Area::Data | Area::Zero)
    }
}

/// A section that is there at run time.
#[derive(Clone, Debug)]
pub struct Section<'d> {
    pub name: &'d str,
    pub start: u64,
    pub end: u64,
    pub area: Area,
    /// What the file holds of it; nothing for zeros.
    pub bytes: &'d [u8],
}

/// A symbol that this file defines.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'d> {
    pub name: &'d str,
    pub address: u64,
    /// Bytes; zero where nobody has said.
    pub size: u64,
    pub kind: SymbolKind,
    pub scope: Scope,
}

/// Who sees a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It is in the dynamic symbol table.
    Dynamic,
    /// Only the table that `strip` removes has it.
    Local,
}

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    Function,
    /// A function that is chosen at start (IFUNC).
    Resolver,
    Object,
    /// An offset into thread-local storage, not an address.
    ThreadLocal,
}

/// What the loader writes to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written<'d> {
    /// An address of this file.
    Address(u64),
    /// The address of a symbol, and a number that is added.
    Symbol(&'d str, i64),
    /// The object of another file moves here.
    Copied(&'d str),
    /// What the function at this address returns (IFUNC).
    Resolved(u64),
    /// Something about thread-local storage: the relocation's type, the symbol's name or nothing, and a number.
    ThreadLocal(u32, &'d str, i64),
    /// A relocation of a type that is not understood.
    Unknown(u32),
}

/// One relocation that the loader applies.
#[derive(Clone, Copy, Debug)]
pub struct Relocation<'d> {
    pub place: u64,
    pub written: Written<'d>,
}

/// Thread-local storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadLocal<'d> {
    /// Where the initial values lie.
    pub start: u64,
    pub size: u64,
    pub align: u64,
    pub bytes: &'d [u8],
}

/// So far behind a section an address is still understood as its end.
pub(crate) const BEHIND: u64 = 64;

/// Returns the addresses of the aligned words of eight bytes that lie in a range.
pub(crate) fn words(range: Range<u64>) -> impl Iterator<Item = u64> {
    // A damaged file may name the last addresses that there are.
    let first = range.start.checked_next_multiple_of(8).unwrap_or(u64::MAX);
    (first..range.end.saturating_sub(7)).step_by(8)
}

/// One ELF file as the loader lays it out.
#[derive(Debug)]
pub struct Image<'d> {
    pub kind: Kind,
    /// Hexadecimal.
    pub build_id: Option<String>,
    pub soname: Option<&'d str>,
    /// The libraries it asks for, in order.
    pub needed: Vec<&'d str>,
    /// Where the process starts; zero in libraries.
    pub entry: u64,
    /// By address, without overlaps.
    pub sections: Vec<Section<'d>>,
    /// By address.
    pub symbols: Vec<Symbol<'d>>,
    /// By place.
    pub relocations: Vec<Relocation<'d>>,
    /// Stubs: where each starts and ends, and the slot it jumps through; by address.
    pub stubs: Vec<(Range<u64>, u64)>,
    pub tls: Option<ThreadLocal<'d>>,
    /// Address and bytes of the unwind information.
    pub eh_frame: (u64, &'d [u8]),
}

impl<'d> Image<'d> {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, or what it lacks.
    pub fn read(bytes: &'d [u8]) -> Result<Image<'d>, ReadError> {
        load::read(bytes)
    }

    /// Returns the section that holds an address.
    #[must_use]
    pub fn section_at(&self, address: u64) -> Option<&Section<'d>> {
        let index = self.sections.partition_point(|section| section.start <= address).checked_sub(1)?;
        self.sections.get(index).filter(|section| address < section.end)
    }

    /// Says whether an address is in a section, or in what pads the room behind one.
    #[must_use]
    pub fn is_inside_or_behind(&self, address: u64) -> bool {
        let before = self.sections.partition_point(|section| section.start <= address).checked_sub(1);
        before
            .and_then(|index| self.sections.get(index))
            .is_some_and(|section| address < section.end.saturating_add(BEHIND))
    }

    /// Returns what lies at an address.
    #[must_use]
    pub fn area_at(&self, address: u64) -> Option<Area> {
        self.section_at(address).map(|section| section.area)
    }

    /// Returns the file's bytes from an address up to the end of its section.
    #[must_use]
    pub fn bytes_from(&self, address: u64) -> Option<&'d [u8]> {
        let section = self.section_at(address)?;
        section.bytes.get(usize::try_from(address - section.start).ok()?..)
    }

    /// Returns `len` bytes at an address, if the file holds them in one section.
    #[must_use]
    pub fn bytes_at(&self, address: u64, len: usize) -> Option<&'d [u8]> {
        self.bytes_from(address)?.get(..len)
    }

    /// Returns the initial value of one byte; it is zero where the file holds none.
    #[must_use]
    pub fn initial(&self, address: u64) -> Option<u8> {
        let section = self.section_at(address)?;
        Some(usize::try_from(address - section.start).ok().and_then(|at| section.bytes.get(at)).copied().unwrap_or(0))
    }

    /// Returns what the loader writes at exactly this place.
    #[must_use]
    pub fn written_at(&self, place: u64) -> Option<Written<'d>> {
        let index = self.relocations.binary_search_by_key(&place, |relocation| relocation.place).ok()?;
        self.relocations.get(index).map(|relocation| relocation.written)
    }

    /// Returns the relocations whose places are in a range.
    #[must_use]
    pub fn relocations_in(&self, range: Range<u64>) -> &[Relocation<'d>] {
        let from = self.relocations.partition_point(|relocation| relocation.place < range.start);
        let to = self.relocations.partition_point(|relocation| relocation.place < range.end);
        self.relocations.get(from..to).unwrap_or_default()
    }

    /// Returns the pointer that stands at an address of data once the file is loaded.
    ///
    /// Files with fixed addresses have no relocations for their own addresses. There an aligned word that is the
    /// address of something in the file counts as a pointer, though it may be a number.
    #[must_use]
    pub fn pointer_at(&self, place: u64) -> Option<Written<'d>> {
        if let Some(written) = self.written_at(place) {
            return Some(written);
        }
        if self.kind != Kind::Fixed || !place.is_multiple_of(8) {
            return None;
        }
        let value = u64::from_le_bytes(self.bytes_at(place, 8)?.try_into().ok()?);
        self.area_at(value).map(|_| Written::Address(value))
    }

    /// Returns the slot behind a stub that starts at or holds this address.
    #[must_use]
    pub fn slot_of_stub(&self, address: u64) -> Option<u64> {
        let index = self.stubs.partition_point(|(range, _)| range.start <= address).checked_sub(1)?;
        self.stubs.get(index).filter(|(range, _)| range.contains(&address)).map(|(_, slot)| *slot)
    }

    /// Returns the symbols that start at an address.
    pub fn symbols_at(&self, address: u64) -> impl Iterator<Item = &Symbol<'d>> {
        let from = self.symbols.partition_point(|symbol| symbol.address < address);
        self.symbols.iter().skip(from).take_while(move |symbol| symbol.address == address)
    }

    /// Returns the object symbol whose extent holds an address.
    #[must_use]
    pub fn object_around(&self, address: u64) -> Option<&Symbol<'d>> {
        let end = self.symbols.partition_point(|symbol| symbol.address <= address);
        // Symbols do not nest deeply: aliases of one object lie beside each other.
        self.symbols.get(..end)?.iter().rev().take(16).find(|symbol| {
            symbol.kind == SymbolKind::Object
                && symbol.address.checked_add(symbol.size).is_some_and(|end| address < end)
        })
    }
}
