//! The unwind information of what is loaded: the new file's own, without the entries of what is not.
//!
//! An entry whose start is zero before anything is added to it counts as removed (`_Unwind_Find_FDE` in GCC's
//! unwind-dw2-fde.c does so for functions that the linker has dropped). So the section stays as it is, at its place,
//! and the starts of other functions are set to zero.

use std::collections::BTreeSet;

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, Pointer, UnwindSection as _, constants};

use crate::image::Image;

/// An entry of this length would have another form.
const EXTENDED: u32 = 0xffff_ffff;

/// Returns the section with nothing but the entries of functions that start at `starts`; nothing if one is missing.
pub(super) fn only(image: &Image<'_>, starts: &BTreeSet<u64>) -> Option<Vec<u8>> {
    let (address, bytes) = image.eh_frame;
    let mut kept = bytes.to_vec();
    let mut found = BTreeSet::new();
    let word =
        |at: usize| -> Option<u32> { Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?)) };
    let mut at = 0usize;
    while let Some(len) = word(at) {
        if len == 0 {
            break;
        }
        let next = at.checked_add(4)?.checked_add(usize::try_from(len).ok()?)?;
        if len == EXTENDED || next > bytes.len() {
            return None;
        }
        // A common entry has zero where others tell which common one they belong to.
        if word(at + 4)? != 0 {
            let place = address.checked_add(at as u64 + 8)?;
            let distance = word(at + 8)?.cast_signed();
            let start = place.checked_add_signed(i64::from(distance))?;
            if starts.contains(&start) {
                found.insert(start);
            } else {
                kept.get_mut(at + 8..at + 12)?.fill(0);
            }
        }
        at = next;
    }
    // The list ends with an entry of no length, which the end of the section may stand for.
    kept.truncate(at);
    kept.extend_from_slice(&[0; 4]);
    (found.len() == starts.len()).then_some(kept)
}

/// Returns where the pointers to the functions are that handle exceptions for what starts at `starts`.
pub(super) fn personalities(image: &Image<'_>, starts: &BTreeSet<u64>) -> BTreeSet<u64> {
    let (address, bytes) = image.eh_frame;
    let frame = EhFrame::new(bytes, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(address);
    let mut found = BTreeSet::new();
    let mut entries = frame.entries(&bases);
    // The entries were all read when the functions were looked for.
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let Ok(entry) = partial.parse(gimli::EhFrame::cie_from_offset) else { continue };
        if starts.contains(&entry.initial_address())
            && let Some(Pointer::Indirect(pointer)) = entry.personality()
        {
            found.insert(pointer);
        }
    }
    found
}

/// Four bytes that are an address, in a file with fixed addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    /// Where it stands.
    pub(super) at: u64,
    pub(super) place: u64,
    pub(super) what: What,
}

/// What an address in the unwind information names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// The function that handles exceptions.
    Personality,
    /// Where it looks up what is caught.
    Tables,
}

/// Returns the addresses in what is said of functions that start at `starts`; nothing where their form is not
/// understood. Distances are not among them.
pub(super) fn addresses(image: &Image<'_>, starts: &BTreeSet<u64>) -> Option<BTreeSet<Named>> {
    /// The length, what kind of entry it is, the version, the first letters of what follows, and four numbers of one
    /// byte each; then the form of the address.
    const TO_PERSONALITY: usize = 4 + 4 + 1;
    /// The length, the distance to the common entry, start and length of the function, and a length of one byte.
    const TO_TABLES: usize = 4 + 4 + 4 + 4 + 1;
    let (address, bytes) = image.eh_frame;
    let frame = EhFrame::new(bytes, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(address);
    let holds = |at: usize, place: u64| {
        let held = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        (u64::from(u32::from_le_bytes(held)) == place).then_some(address + at as u64)
    };
    let mut found = BTreeSet::new();
    let mut entries = frame.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let entry = partial.parse(gimli::EhFrame::cie_from_offset).ok()?;
        if !starts.contains(&entry.initial_address()) {
            continue;
        }
        let common = entry.cie();
        if let Some((form, Pointer::Direct(place))) = common.personality_with_encoding() {
            let letters = common.offset().checked_add(TO_PERSONALITY)?;
            let len = bytes.get(letters..)?.iter().position(|letter| *letter == 0)?;
            let is_first = bytes.get(letters..)?.starts_with(b"zP");
            let at = holds(letters + len + 1 + 4 + 1, place)?;
            if form != constants::DW_EH_PE_udata4 || !is_first {
                return None;
            }
            found.insert(Named { at, place, what: What::Personality });
        }
        if let (Some(constants::DW_EH_PE_udata4), Some(Pointer::Direct(place))) = (common.lsda_encoding(), entry.lsda())
        {
            found.insert(Named {
                at: holds(entry.offset().checked_add(TO_TABLES)?, place)?,
                place,
                what: What::Tables,
            });
        }
    }
    Some(found)
}
