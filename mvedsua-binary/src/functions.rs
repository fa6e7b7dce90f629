//! Finds where functions begin and end.
//!
//! Unwind information (`.eh_frame`) is in stripped files too, and has one entry for each function, and one for each
//! piece that the compiler moved away (`.cold`, `.part`). Code between these ranges, written in assembler as a rule,
//! counts as one function for each stretch, or for each symbol in it.

use std::collections::BTreeMap;
use std::ops::Range;

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection as _};
use iced_x86::{Decoder, DecoderOptions, Mnemonic};

use crate::image::{Area, Image, ReadError, Scope, SymbolKind};

/// One function, or one piece of one.
#[derive(Clone, Debug)]
pub struct Function<'d> {
    pub start: u64,
    pub end: u64,
    /// A symbol that starts where the function starts.
    pub name: Option<&'d str>,
    pub known_by: KnownBy,
    /// Where the tables for its exceptions are.
    pub exceptions: Option<u64>,
}

/// How a range became known as a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    Unwind,
    /// Nothing says what it is; it lies between two known functions.
    Between,
}

impl Function<'_> {
    /// Returns its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.end.saturating_sub(self.start)).unwrap_or(0)
    }

    /// Says whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// Returns the functions of an image by address; they do not overlap.
///
/// # Errors
///
/// The unwind information is damaged.
pub fn find<'d>(image: &Image<'d>) -> Result<Vec<Function<'d>>, ReadError> {
    let unwound = from_unwind(image)?;
    let mut functions = Vec::with_capacity(unwound.len());
    for section in image.sections.iter().filter(|section| section.area == Area::Code) {
        let mut at = section.start;
        for (start, (end, exceptions)) in unwound.range(section.start..section.end) {
            let end = (*end).min(section.end);
            // Two entries for the same bytes: the later one is right, as the unwinder's search sees it.
            if let Some(last) = functions.last_mut().filter(|last: &&mut Function<'_>| last.end > *start) {
                last.end = *start;
            }
            between(image, at..*start, &mut functions);
            functions.push(Function {
                start: *start,
                end,
                name: name_at(image, *start),
                known_by: KnownBy::Unwind,
                exceptions: *exceptions,
            });
            at = at.max(end);
        }
        between(image, at..section.end, &mut functions);
    }
    functions.retain(|function| !function.is_empty());
    Ok(functions)
}

type Unwound = BTreeMap<u64, (u64, Option<u64>)>;

fn from_unwind(image: &Image<'_>) -> Result<Unwound, ReadError> {
    let damaged = |e: gimli::Error| ReadError::Damaged(format!("its unwind information: {e}"));
    let (address, bytes) = image.eh_frame;
    let frame = EhFrame::new(bytes, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(address);
    let mut common = BTreeMap::new();
    let mut found = BTreeMap::new();
    let mut entries = frame.entries(&bases);
    while let Some(entry) = entries.next().map_err(damaged)? {
        let CieOrFde::Fde(partial) = entry else { continue };
        let entry = partial
            .parse(|frame, bases, offset| match common.get(&offset.0) {
                Some(known) => Ok(Clone::clone(known)),
                None => {
                    let cie = frame.cie_from_offset(bases, offset)?;
                    common.insert(offset.0, cie.clone());
                    Ok(cie)
                }
            })
            .map_err(damaged)?;
        let start = entry.initial_address();
        if entry.len() == 0 || image.area_at(start) != Some(Area::Code) {
            continue;
        }
        let exceptions = match entry.lsda() {
            Some(gimli::Pointer::Direct(address)) => Some(address),
            Some(gimli::Pointer::Indirect(_)) | None => None,
        };
        found.insert(start, (start.saturating_add(entry.len()), exceptions));
    }
    Ok(found)
}

/// Prefers names that other files see, and of those the first one by the alphabet, so that aliases give the same name.
fn name_at<'d>(image: &Image<'d>, address: u64) -> Option<&'d str> {
    image
        .symbols_at(address)
        .filter(|symbol| matches!(symbol.kind, SymbolKind::Function | SymbolKind::Resolver))
        .min_by_key(|symbol| (symbol.scope != Scope::Dynamic, symbol.name))
        .map(|symbol| symbol.name)
}

/// Adds what lies between two known functions, without the padding around it.
fn between<'d>(image: &Image<'d>, range: Range<u64>, functions: &mut Vec<Function<'d>>) {
    if range.is_empty() {
        return;
    }
    let mut starts = vec![range.start];
    let from = image.symbols.partition_point(|symbol| symbol.address <= range.start);
    let inside = image.symbols.iter().skip(from).take_while(|symbol| symbol.address < range.end);
    starts.extend(inside.filter(|s| s.kind == SymbolKind::Function).map(|symbol| symbol.address));
    starts.dedup();
    let ends: Vec<u64> = starts.iter().skip(1).copied().chain([range.end]).collect();
    for (start, end) in starts.into_iter().zip(ends) {
        if let Some(inner) = without_padding(image, start..end) {
            functions.push(Function {
                start: inner.start,
                end: inner.end,
                name: name_at(image, inner.start),
                known_by: KnownBy::Between,
                exceptions: None,
            });
        }
    }
}

fn without_padding(image: &Image<'_>, range: Range<u64>) -> Option<Range<u64>> {
    let len = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
    let bytes = image.bytes_at(range.start, len)?;
    let mut decoder = Decoder::with_ip(64, bytes, range.start, DecoderOptions::NONE);
    let (mut start, mut end) = (None, range.start);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3) {
            continue;
        }
        start.get_or_insert(instruction.ip());
        end = instruction.next_ip();
    }
    Some(start?..end.min(range.end))
}
