//! The names that a build has for addresses: its table of symbols.

use std::collections::{BTreeMap, BTreeSet};

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSymbol as _, SymbolFlags, elf};

use crate::image::{Image, SymbolKind};

/// A symbol, and a distance from its start.
pub type Name = (String, u64);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Symbol {
    address: u64,
    size: u64,
    name: String,
}

/// Symbols of one build.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// By address.
    functions: Vec<Symbol>,
    objects: Vec<Symbol>,
    function_names: BTreeSet<String>,
    /// Addresses of objects by their names, without the compiler's numbers.
    object_places: BTreeMap<String, BTreeSet<u64>>,
}

/// Symbols that hold one address lie beside each other; so many are looked at.
const NEAR: usize = 64;

impl Names {
    /// Reads the symbols of a file.
    pub(super) fn of(file: &ElfFile64<'_, object::LittleEndian>) -> Names {
        let mut names = Names::default();
        let defined = file.symbols().chain(file.dynamic_symbols()).filter(|symbol| !symbol.is_undefined());
        for symbol in defined {
            let SymbolFlags::Elf { st_info, .. } = symbol.flags() else { continue };
            let kind = match st_info & 0xf {
                elf::STT_FUNC | elf::STT_GNU_IFUNC => SymbolKind::Function,
                elf::STT_OBJECT | elf::STT_COMMON => SymbolKind::Object,
                _ => continue,
            };
            if let Ok(name) = symbol.name() {
                names.add(kind, name, symbol.address(), symbol.size());
            }
        }
        names.sort();
        names
    }

    /// Takes the symbols of an image.
    #[must_use]
    pub fn of_image(image: &Image<'_>) -> Names {
        let mut names = Names::default();
        for symbol in &image.symbols {
            names.add(symbol.kind, symbol.name, symbol.address, symbol.size);
        }
        names.sort();
        names
    }

    fn add(&mut self, kind: SymbolKind, name: &str, address: u64, size: u64) {
        let symbol = Symbol { address, size, name: name.to_owned() };
        match kind {
            SymbolKind::Function | SymbolKind::Resolver => {
                self.function_names.insert(symbol.name.clone());
                self.functions.push(symbol);
            }
            SymbolKind::Object => {
                self.object_places.entry(plain(name).to_owned()).or_default().insert(address);
                self.objects.push(symbol);
            }
            SymbolKind::ThreadLocal => {}
        }
    }

    fn sort(&mut self) {
        for all in [&mut self.functions, &mut self.objects] {
            all.sort();
            all.dedup();
        }
    }

    /// Says whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.objects.is_empty()
    }

    /// Returns the functions around an address, without the number that the compiler adds to names that occur twice.
    #[must_use]
    pub fn functions_around(&self, address: u64) -> BTreeSet<Name> {
        around(&self.functions, address)
    }

    /// Returns the objects around an address, in the same way.
    #[must_use]
    pub fn objects_around(&self, address: u64) -> BTreeSet<Name> {
        around(&self.objects, address)
    }

    /// Returns the objects around an address that have a size: the name, in the same way, the distance from the start, and the
    /// size.
    #[must_use]
    pub fn extents_around(&self, address: u64) -> BTreeSet<(String, u64, u64)> {
        holding(&self.objects, address)
            .filter(|symbol| symbol.size > 0)
            .map(|symbol| (plain(&symbol.name).to_owned(), address - symbol.address, symbol.size))
            .collect()
    }

    /// Returns the objects that have a size: name, address, bytes.
    pub fn objects(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        let sized = self.objects.iter().filter(|symbol| symbol.size > 0);
        sized.map(|symbol| (symbol.name.as_str(), symbol.address, symbol.size))
    }

    /// Says whether a function has exactly this name.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.function_names.contains(name)
    }

    /// Returns where objects of a name lie.
    pub fn places_of(&self, name: &str) -> impl Iterator<Item = u64> {
        self.object_places.get(name).into_iter().flatten().copied()
    }

    /// Returns where the object that starts at an address ends.
    #[must_use]
    pub fn end_of(&self, start: u64) -> Option<u64> {
        let from = self.objects.partition_point(|symbol| symbol.address < start);
        let all = self.objects.get(from..)?.iter().take_while(|symbol| symbol.address == start);
        all.map(|symbol| start.saturating_add(symbol.size)).max()
    }
}

fn around(symbols: &[Symbol], address: u64) -> BTreeSet<Name> {
    holding(symbols, address).map(|symbol| (plain(&symbol.name).to_owned(), address - symbol.address)).collect()
}

fn holding(symbols: &[Symbol], address: u64) -> impl Iterator<Item = &Symbol> {
    let end = symbols.partition_point(|symbol| symbol.address <= address);
    let near = symbols.get(end.saturating_sub(NEAR)..end).unwrap_or_default().iter();
    // Those that start at the address may be many: aliases.
    let far = symbols.get(..end.saturating_sub(NEAR)).unwrap_or_default().iter().rev();
    near.chain(far.take_while(move |symbol| symbol.address == address))
        .filter(move |symbol| symbol.address == address || address < symbol.address.saturating_add(symbol.size))
}

/// Returns a name without the number that the compiler adds to those that occur twice.
fn plain(name: &str) -> &str {
    match name.split_once('.') {
        Some((plain, number)) if number.chars().all(|c| c.is_ascii_digit()) => plain,
        _ => name,
    }
}
