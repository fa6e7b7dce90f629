//! What the debug file of a build tells: names of functions and objects, types, and lines.
//!
//! A distribution strips its files and keeps what it took away in a file of its own, and a build of the same sources makes
//! it again. Nothing of a comparison depends on one; a [proof](crate::proof) does. A [`struct@Debug`] is only worth something where it
//! is of the very build that is compared ([`Debug::is_of`]).

mod lines;
mod names;
mod nodes;
mod types;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use gimli::{DwarfSections, EndianSlice, LittleEndian};
use object::read::elf::ElfFile64;
use object::{CompressionFormat, Object as _, ObjectSection as _, SectionFlags, SectionKind};

use self::lines::Lines;
pub use self::names::{Name, Names};
pub use self::types::{Shape, Typed};

/// A section is at most so large once it is decompressed.
const LARGEST: u64 = 2 << 30;

/// Why a debug file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DebugError {
    #[error("it is no ELF file, or it is damaged: {0}")]
    Damaged(String),
    #[error("it has no table of symbols; it was stripped, too")]
    NoSymbols,
    #[error("it has no types (`.debug_info`); it was built without `-g`")]
    NoTypes,
    #[error("{0}")]
    Form(&'static str),
    #[error("it is of another build: {0}")]
    OtherBuild(String),
}

impl From<object::read::Error> for DebugError {
    fn from(e: object::read::Error) -> DebugError {
        DebugError::Damaged(e.to_string())
    }
}

impl From<gimli::Error> for DebugError {
    fn from(e: gimli::Error) -> DebugError {
        DebugError::Damaged(e.to_string())
    }
}

/// What is known of one build.
#[derive(Debug)]
pub struct Debug {
    pub build_id: Option<String>,
    pub names: Names,
    /// Structures, unions and enumerations by their names. Several may have one name, each in a source file of its own.
    pub types: BTreeMap<String, BTreeSet<Shape>>,
    /// The values of enumerators that belong to no type with a name.
    pub enumerators: BTreeMap<String, BTreeSet<i64>>,
    /// Variables by their addresses.
    pub variables: BTreeMap<u64, Typed>,
    /// Functions by their addresses, with what they take and return.
    pub functions: BTreeMap<u64, Typed>,
    /// Sections that are loaded: name, address, length, and a digest of what they hold, if the file holds it.
    loaded: Vec<Loaded>,
    lines: Lines,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Loaded {
    name: String,
    start: u64,
    len: u64,
    /// What the file holds; nothing where it is zeros, or lies in another file.
    bytes: Option<Vec<u8>>,
}

type Elf<'d> = ElfFile64<'d, object::LittleEndian>;

impl Debug {
    /// Reads a debug file, or a whole file that was not stripped.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or what it lacks.
    pub fn read(bytes: &[u8]) -> Result<Debug, DebugError> {
        let file = Elf::parse(bytes)?;
        let names = Names::of(&file);
        if names.is_empty() {
            return Err(DebugError::NoSymbols);
        }
        if file.section_by_name(".gnu_debugaltlink").is_some() {
            return Err(DebugError::Form("it shares its types with other files (`dwz -m`), which is not understood"));
        }
        if file.section_by_name(".debug_types").is_some() {
            return Err(DebugError::Form("its types are in `.debug_types`, which is not understood"));
        }
        if file.section_by_name(".debug_info").is_none() {
            return Err(DebugError::NoTypes);
        }
        let sections = DwarfSections::load(|id| contents(&file, id.name()))?;
        let dwarf = sections.borrow(|bytes| EndianSlice::new(bytes, LittleEndian));
        let nodes = nodes::Nodes::read(&dwarf)?;
        let types::Types { types, enumerators, variables, functions } = types::read(&nodes);
        if types.is_empty() && variables.is_empty() && functions.is_empty() {
            return Err(DebugError::NoTypes);
        }
        let build_id = file.build_id()?.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect());
        let (loaded, lines) = (loaded(&file)?, Lines::read(&dwarf)?);
        Ok(Debug { build_id, names, types, enumerators, variables, functions, loaded, lines })
    }

    /// Sees that this is the debug file of a build: it has the same build-id, or it is a whole file and all that is loaded of the
    /// two is the same, byte by byte.
    ///
    /// # Errors
    ///
    /// Where they differ.
    pub fn is_of(&self, file: &[u8]) -> Result<(), DebugError> {
        let shipped = Elf::parse(file)?;
        let id = shipped.build_id()?.map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        if id.is_some() && id == self.build_id {
            return Ok(());
        }
        let other = |why: String| Err(DebugError::OtherBuild(why));
        let whole = |all: &[Loaded]| all.iter().any(|one| one.name == ".text" && one.bytes.is_some());
        if !whole(&self.loaded) {
            let shown = |id: Option<&String>| id.map_or("none", String::as_str).to_owned();
            return other(format!(
                "its build-id is {}, the file's is {}",
                shown(self.build_id.as_ref()),
                shown(id.as_ref())
            ));
        }
        // The build-id is made of the debug information, too, and paths stand in there.
        let both = [loaded(&shipped)?, self.loaded.clone()].map(|mut all| {
            all.retain(|one| one.name != ".note.gnu.build-id");
            all
        });
        let [theirs, own] = both;
        if let Some((a, _)) = theirs.iter().zip(&own).find(|(a, b)| a != b) {
            return other(format!("`{}` differs", a.name));
        }
        if theirs.len() != own.len() {
            return other(format!("{} sections are loaded of it, {} of the file", own.len(), theirs.len()));
        }
        Ok(())
    }

    /// Returns the number of the source line from which the instruction at an address comes.
    #[must_use]
    pub fn line_at(&self, address: u64) -> Option<u64> {
        self.lines.at(address)
    }

    /// Returns the variable that holds an address, with its start.
    #[must_use]
    pub fn variable_around(&self, address: u64) -> Option<(u64, &Typed)> {
        let (start, variable) = self.variables.range(..=address).next_back()?;
        (*start == address || address < self.names.end_of(*start)?).then_some((*start, variable))
    }
}

/// Returns the sections that are loaded.
fn loaded(file: &Elf<'_>) -> Result<Vec<Loaded>, DebugError> {
    let mut found = vec![];
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        if sh_flags & u64::from(object::elf::SHF_ALLOC) == 0 {
            continue;
        }
        let zeros = matches!(section.kind(), SectionKind::UninitializedData | SectionKind::UninitializedTls);
        let is_elsewhere = section.file_range().is_none();
        found.push(Loaded {
            name: section.name().unwrap_or_default().to_owned(),
            start: section.address(),
            len: section.size(),
            bytes: if zeros || is_elsewhere { None } else { Some(section.data()?.to_vec()) },
        });
    }
    Ok(found)
}

/// Returns what a section of debug information holds.
fn contents<'d>(file: &Elf<'d>, name: &str) -> Result<Cow<'d, [u8]>, DebugError> {
    let Some(section) = file.section_by_name(name) else { return Ok(Cow::Borrowed(&[])) };
    let packed = section.compressed_data()?;
    match packed.format {
        CompressionFormat::None => Ok(Cow::Borrowed(packed.data)),
        CompressionFormat::Zlib => {
            let mut bytes = vec![];
            let mut reader = flate2::read::ZlibDecoder::new(packed.data).take(LARGEST);
            reader.read_to_end(&mut bytes).map_err(|e| DebugError::Damaged(format!("`{name}`: {e}")))?;
            Ok(Cow::Owned(bytes))
        }
        _ => Err(DebugError::Form(
            "it is compressed in a way that is not understood; `objcopy --decompress-debug-sections` makes one that is",
        )),
    }
}
