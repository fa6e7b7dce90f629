//! One of the two files, with everything that is derived from it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::functions::{self, Function};
use crate::image::{Area, BEHIND, Image, ReadError, Section, SymbolKind, Written};
use crate::normalise::{Bodies, Way};

/// What a reference leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'d> {
    /// Something with a name that the loader looks up; it may be in this very file.
    Import(&'d str, i64),
    /// A place in a function: its index, and the distance from its start.
    Code(u32, u32),
    /// Code in no function.
    StrayCode(u64),
    Constant(u64),
    /// Data that exists once.
    Object(u64),
    /// What the function at this address chooses at start.
    Resolved(u64),
    /// A slot that tells where something thread-local is.
    ThreadLocal(u32, &'d str, i64),
    /// The end of a section, or so many bytes behind it where nothing lies.
    Edge(&'d str, u64),
    /// Nothing that is understood lies there.
    Unknown(u64),
}

/// A target, and whether it is reached through a slot that holds its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved<'d> {
    pub through_slot: bool,
    pub target: Target<'d>,
}

/// An address of data that something refers to.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    pub address: u64,
    /// Its address is taken, or it is accessed at a distance that is not known: what lies behind it may be reached too.
    pub taken: bool,
    /// The most bytes that are accessed directly.
    pub size: u16,
}

/// One file and what is known of it.
#[derive(Debug)]
pub struct Side<'d> {
    pub image: Image<'d>,
    pub functions: Vec<Function<'d>>,
    pub bodies: Bodies,
    /// Addresses of objects that code, tables or symbols refer to, by address.
    pub objects: Vec<Anchor>,
    /// Addresses of constants that code or tables refer to, by address.
    pub constants: Vec<u64>,
    /// Objects of eight bytes that guard static variables of functions.
    pub guards: BTreeSet<u64>,
    /// Address and size of each object whose name occurs at one address only.
    pub names: BTreeMap<&'d str, (u64, u64)>,
    /// Names of objects, whether they occur once or not.
    pub all_names: BTreeSet<&'d str>,
}

/// The start of `lea …(%rip),%rdi`.
const LEA_RDI: [u8; 3] = [0x48, 0x8d, 0x3d];

impl<'d> Side<'d> {
    /// Reads one file.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, or what it lacks.
    pub fn read(bytes: &'d [u8]) -> Result<Side<'d>, ReadError> {
        let image = Image::read(bytes)?;
        let functions = functions::find(&image)?;
        let bodies = Bodies::read(&image, &functions);
        let mut side = Side {
            image,
            functions,
            bodies,
            objects: vec![],
            constants: vec![],
            guards: BTreeSet::new(),
            names: BTreeMap::new(),
            all_names: BTreeSet::new(),
        };
        side.find_names();
        side.find_anchors();
        side.find_guards();
        Ok(side)
    }

    fn find_names(&mut self) {
        let mut names: BTreeMap<&str, Option<(u64, u64)>> = BTreeMap::new();
        for symbol in self.image.symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Object) {
            names
                .entry(symbol.name)
                .and_modify(|place| *place = place.filter(|(address, _)| *address == symbol.address))
                .or_insert(Some((symbol.address, symbol.size)));
        }
        self.all_names = names.keys().copied().collect();
        self.names = names.into_iter().filter_map(|(name, place)| Some((name, place?))).collect();
    }

    fn find_anchors(&mut self) {
        let (mut objects, mut constants) = (vec![], vec![]);
        let mut add = |address: u64, taken: bool, size: u16| match self.image.area_at(address) {
            Some(Area::Relro | Area::Data | Area::Zero) => objects.push(Anchor { address, taken, size }),
            Some(Area::Constant) => constants.push(address),
            Some(Area::Code | Area::Stubs | Area::Slots) | None => {}
        };
        for reference in self.bodies.all_refs() {
            match reference.way {
                Way::Access(size) => add(reference.target, size == 0, size),
                Way::Address | Way::Indexed => add(reference.target, true, 0),
                Way::Call | Way::Jump | Way::Branch => {}
            }
        }
        for relocation in &self.image.relocations {
            match relocation.written {
                Written::Address(address) => add(address, true, 0),
                Written::Copied(_) => add(relocation.place, true, 0),
                Written::Symbol(..) | Written::Resolved(_) | Written::ThreadLocal(..) | Written::Unknown(_) => {}
            }
        }
        for symbol in self.image.symbols.iter().filter(|symbol| symbol.kind == SymbolKind::Object) {
            add(symbol.address, true, 0);
        }
        self.add_absolute_pointers(&mut add);
        objects.sort_by_key(|anchor| anchor.address);
        objects.dedup_by(|b, a| {
            let same = a.address == b.address;
            if same {
                a.taken |= b.taken;
                a.size = a.size.max(b.size);
            }
            same
        });
        constants.sort_unstable();
        constants.dedup();
        self.objects = objects;
        self.constants = constants;
    }

    /// Adds what words of data point to in a file with fixed addresses.
    fn add_absolute_pointers(&self, add: &mut dyn FnMut(u64, bool, u16)) {
        if self.image.kind != crate::image::Kind::Fixed {
            return;
        }
        let data = |area| matches!(area, Area::Constant | Area::Relro | Area::Data | Area::Slots);
        for section in self.image.sections.iter().filter(|section| data(section.area)) {
            let skip = usize::try_from(section.start.wrapping_neg() % 8).unwrap_or(0);
            for word in section.bytes.get(skip..).unwrap_or_default().chunks_exact(8) {
                let value = word.try_into().map_or(0, u64::from_le_bytes);
                if self.image.area_at(value).is_some() {
                    add(value, true, 0);
                }
            }
        }
    }

    /// Returns the function that holds an address.
    #[must_use]
    pub fn function_at(&self, address: u64) -> Option<usize> {
        let index = self.functions.partition_point(|function| function.start <= address).checked_sub(1)?;
        self.functions.get(index).filter(|function| address < function.end).map(|_| index)
    }

    /// Returns the place of an address in the code, or that it is in none.
    #[must_use]
    pub fn code(&self, address: u64) -> Target<'d> {
        let found = self.function_at(address).and_then(|index| {
            let offset = address - self.functions.get(index)?.start;
            Some(Target::Code(u32::try_from(index).ok()?, u32::try_from(offset).ok()?))
        });
        found.unwrap_or(Target::StrayCode(address))
    }

    /// Returns what lies at an address that code or data refers to.
    #[must_use]
    pub fn resolve(&self, address: u64) -> Resolved<'d> {
        let direct = |target| Resolved { through_slot: false, target };
        match self.image.area_at(address) {
            Some(Area::Code) => direct(self.code(address)),
            Some(Area::Stubs) => match self.image.slot_of_stub(address) {
                Some(slot) => direct(self.slot(slot)),
                None => direct(Target::Unknown(address)),
            },
            Some(Area::Slots) => Resolved { through_slot: true, target: self.slot(address) },
            Some(Area::Constant) => direct(Target::Constant(address)),
            Some(Area::Relro | Area::Data | Area::Zero) => direct(Target::Object(address)),
            None => direct(self.edge(address)),
        }
    }

    /// Names an address between sections by the section before it.
    fn edge(&self, address: u64) -> Target<'d> {
        let before = self.image.sections.partition_point(|section| section.start <= address).checked_sub(1);
        match before.and_then(|index| self.image.sections.get(index)) {
            Some(section) if address - section.end < BEHIND => Target::Edge(section.name, address - section.end),
            Some(_) | None => Target::Unknown(address),
        }
    }

    fn slot(&self, slot: u64) -> Target<'d> {
        self.image.pointer_at(slot).map_or(Target::Unknown(slot), |written| self.pointee(written))
    }

    /// Returns what a pointer in data leads to.
    #[must_use]
    pub fn pointee(&self, written: Written<'d>) -> Target<'d> {
        match written {
            Written::Address(address) => match self.image.area_at(address) {
                // Slots and stubs have no meaning of their own beyond what stands in them.
                Some(Area::Slots) => Target::Unknown(address),
                _ => self.resolve(address).target,
            },
            Written::Symbol(name, addend) => Target::Import(name, addend),
            Written::Copied(name) => Target::Import(name, 0),
            Written::Resolved(address) => Target::Resolved(address),
            Written::ThreadLocal(kind, name, addend) => Target::ThreadLocal(kind, name, addend),
            Written::Unknown(_) => Target::Unknown(0),
        }
    }

    /// Returns the text at an address, without its end, if it looks like one.
    #[must_use]
    pub fn text_at(&self, address: u64) -> Option<&'d str> {
        let bytes = self.image.bytes_from(address)?;
        let end = bytes.iter().take(4096).position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
        let readable = |c: char| !c.is_control() || matches!(c, '\n' | '\t' | '\r' | '\x1b');
        (!text.is_empty() && text.chars().all(readable)).then_some(text)
    }

    /// Returns the distance from a constant to the next one that something refers to, or to the end of the section.
    #[must_use]
    pub fn constant_extent(&self, address: u64) -> u64 {
        let Some(section) = self.image.section_at(address) else { return 0 };
        let next = self.constants.partition_point(|anchor| *anchor <= address);
        self.constants.get(next).copied().unwrap_or(section.end).min(section.end) - address
    }

    /// Returns the distance from an object to the next one that something refers to, or to the end of the section.
    #[must_use]
    pub fn object_extent(&self, address: u64) -> u64 {
        let Some(section) = self.image.section_at(address) else { return 0 };
        let next = self.objects.partition_point(|anchor| anchor.address <= address);
        self.objects.get(next).map_or(section.end, |anchor| anchor.address).min(section.end) - address
    }

    /// Returns what is known of an address of data that something refers to.
    #[must_use]
    pub fn anchor(&self, address: u64) -> Option<&Anchor> {
        let index = self.objects.binary_search_by_key(&address, |anchor| anchor.address).ok()?;
        self.objects.get(index)
    }

    /// Says that nothing that is reached through a pointer, and starts before an address, goes on behind it.
    ///
    /// Going down from the address: a symbol says where its object ends, and so does the C++ run-time for the guard
    /// of a static variable; what is only accessed directly has no part that is not seen. An address that is taken,
    /// of something without a known size, proves nothing.
    #[must_use]
    pub fn is_closed_before(&self, address: u64) -> bool {
        self.image.section_at(address).is_some_and(|section| self.is_closed_in(section, address))
    }

    /// Says the same of an address in a section, or of its end.
    #[must_use]
    pub fn is_closed_in(&self, section: &Section<'d>, address: u64) -> bool {
        let end = self.objects.partition_point(|anchor| anchor.address < address);
        let below = self.objects.get(..end).unwrap_or_default().iter().rev();
        for anchor in below.take_while(|anchor| anchor.address >= section.start) {
            if let Some(symbol) = self.image.object_around(anchor.address).filter(|symbol| symbol.size > 0) {
                return symbol.address + symbol.size <= address;
            }
            if self.guards.contains(&anchor.address) {
                return anchor.address + 8 <= address;
            }
            if anchor.taken || anchor.address + u64::from(anchor.size) > address {
                return false;
            }
        }
        true
    }

    /// Finds the guards of static variables of functions: what is given to the C++ run-time to be locked.
    fn find_guards(&mut self) {
        for (index, function) in self.functions.iter().enumerate() {
            let mut last = None;
            for reference in self.bodies.refs(index) {
                let bytes = self.image.bytes_at(function.start + u64::from(reference.at), 3);
                if reference.way == Way::Address && bytes == Some(&LEA_RDI) {
                    last = Some(reference.target);
                } else if reference.way == Way::Call {
                    if let Target::Import("__cxa_guard_acquire", _) = self.resolve(reference.target).target {
                        self.guards.extend(last);
                    }
                    last = None;
                }
            }
        }
    }

    /// Returns a hash of a body together with what of its references has a meaning on its own: names and texts.
    #[must_use]
    pub fn rich_hash(&self, index: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.bodies.get(index).map_or(0, |body| body.hash).hash(&mut hasher);
        for reference in self.bodies.refs(index) {
            self.meaning(reference.target).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Returns a number for what a reference means, as far as that shows without the other file.
    #[must_use]
    pub fn meaning(&self, address: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        let resolved = self.resolve(address);
        resolved.through_slot.hash(&mut hasher);
        match resolved.target {
            Target::Import(name, addend) => (1u8, name, addend).hash(&mut hasher),
            Target::Code(..) | Target::StrayCode(_) => 2u8.hash(&mut hasher),
            Target::Constant(address) => (3u8, self.text_at(address)).hash(&mut hasher),
            Target::Object(_) => 4u8.hash(&mut hasher),
            Target::Resolved(_) => 5u8.hash(&mut hasher),
            Target::ThreadLocal(kind, name, addend) => (6u8, kind, name, addend).hash(&mut hasher),
            Target::Edge(name, beyond) => (7u8, name, beyond).hash(&mut hasher),
            Target::Unknown(_) => 8u8.hash(&mut hasher),
        }
        hasher.finish()
    }

    /// Returns a function's name, or its place for people.
    #[must_use]
    pub fn function_name(&self, index: usize) -> String {
        let Some(function) = self.functions.get(index) else { return format!("function {index}") };
        if let Some(name) = function.name {
            return name.to_owned();
        }
        let before = self.functions.get(..index).and_then(|before| before.iter().rev().find_map(|f| f.name));
        match before {
            Some(name) => format!("{:#x} (behind {name})", function.start),
            None => format!("{:#x}", function.start),
        }
    }
}
