//! Compares the tables that say where a C++ exception is caught in a function.
//!
//! Two functions with equal bodies may catch other types: the types stand in these tables alone. The format is that
//! of the GCC back ends ("LSDA"): a header, a list of call sites, chains of actions, and a list of types that is
//! indexed backwards.

use crate::image::{Image, Written};
use crate::side::{Resolved, Side, Target};

/// What is known of the tables of one function.
struct Tables<'d> {
    /// Call sites and actions: equal for functions that catch at the same places.
    sites: &'d [u8],
    actions: Vec<(i64, i64)>,
    /// What each type's entry leads to; nothing where all types are caught.
    types: Vec<Option<Resolved<'d>>>,
    entries: Vec<TypeEntry>,
}

/// An entry that names a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TypeEntry {
    /// Where its four bytes stand. A distance is counted from there.
    pub(crate) at: u64,
    /// What it leads to: the type, or a pointer to it.
    pub(crate) place: u64,
    pub(crate) behind_pointer: bool,
    /// It is an address, not a distance.
    pub(crate) is_address: bool,
}

/// Returns the entries of the types that a function catches; nothing if its tables are not understood.
pub(crate) fn types(side: &Side<'_>, table: u64) -> Option<Vec<TypeEntry>> {
    read(side, table).map(|tables| tables.entries)
}

/// Says whether two functions catch the same exceptions at the same places. `same` compares two types.
pub(crate) fn are_equal<'d>(
    old: (&Side<'d>, Option<u64>),
    new: (&Side<'d>, Option<u64>),
    mut same: impl FnMut(Target<'d>, Target<'d>) -> bool,
) -> bool {
    let (a, b) = match (old.1, new.1) {
        (None, None) => return true,
        (Some(a), Some(b)) => (a, b),
        _ => return false,
    };
    let (Some(a), Some(b)) = (read(old.0, a), read(new.0, b)) else { return false };
    a.sites == b.sites
        && a.actions == b.actions
        && a.types.len() == b.types.len()
        && a.types.iter().zip(&b.types).all(|(x, y)| match (x, y) {
            (None, None) => true,
            (Some(x), Some(y)) => x.through_slot == y.through_slot && same(x.target, y.target),
            _ => false,
        })
}

const OMITTED: u8 = 0xff;
/// Four bytes, from their own place, of a pointer to the type.
const INDIRECT: u8 = 0x9b;
/// Four bytes, from their own place, of the type.
const DIRECT: u8 = 0x1b;
/// Four bytes that are the address of the type, in files with fixed addresses.
const ABSOLUTE: u8 = 0x03;
/// Numbers of variable length.
const ULEB: u8 = 0x01;

/// Reads the tables; nothing if their form is not understood.
fn read<'d>(side: &Side<'d>, address: u64) -> Option<Tables<'d>> {
    let bytes = side.image.bytes_from(address)?;
    let mut reader = Reader { bytes, at: 0 };
    if reader.byte()? != OMITTED {
        return None;
    }
    let type_form = reader.byte()?;
    let type_base = match type_form {
        OMITTED => None,
        _ => {
            let distance = usize::try_from(reader.unsigned()?).ok()?;
            Some(reader.at.checked_add(distance)?)
        }
    };
    if reader.byte()? != ULEB {
        return None;
    }
    let len = usize::try_from(reader.unsigned()?).ok()?;
    let sites = bytes.get(reader.at..reader.at.checked_add(len)?)?;
    let action_base = reader.at + len;
    let mut tables = Tables { sites, actions: vec![], types: vec![], entries: vec![] };
    let mut sites = Reader { bytes: sites, at: 0 };
    let mut most = 0;
    while sites.at < sites.bytes.len() {
        for _ in 0..3 {
            sites.unsigned()?;
        }
        let mut action = usize::try_from(sites.unsigned()?).ok()?;
        // A chain ends; one that does not is damaged.
        for _ in 0..64 {
            let Some(first) = action.checked_sub(1) else { break };
            let mut chain = Reader { bytes, at: action_base.checked_add(first)? };
            let filter = chain.signed()?;
            let from = chain.at;
            let next = chain.signed()?;
            tables.actions.push((filter, next));
            if filter < 0 {
                // An exception specification has a list of types of its own. Only the empty one, `throw()`, is read.
                let list = type_base?.checked_add(usize::try_from(filter.checked_add(1)?.unsigned_abs()).ok()?)?;
                if bytes.get(list) != Some(&0) {
                    return None;
                }
            }
            most = most.max(filter);
            if next == 0 {
                break;
            }
            action = from.checked_add_signed(isize::try_from(next).ok()?)?.checked_sub(action_base)?.checked_add(1)?;
        }
    }
    for index in 1..=usize::try_from(most).ok()? {
        let at = type_base?.checked_sub(index.checked_mul(4)?)?;
        let entry = i32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?);
        let place = address.checked_add(at as u64)?;
        if entry != 0 {
            let is_address = type_form == ABSOLUTE;
            let leads_to = if is_address {
                u64::from(entry.cast_unsigned())
            } else {
                place.checked_add_signed(i64::from(entry))?
            };
            let behind_pointer = type_form == INDIRECT;
            tables.entries.push(TypeEntry { at: place, place: leads_to, behind_pointer, is_address });
        }
        let target = match (entry, type_form) {
            (0, _) => None,
            (_, ABSOLUTE) => Some(side.resolve(u64::from(entry.cast_unsigned()))),
            (_, DIRECT) => Some(side.resolve(place.checked_add_signed(i64::from(entry))?)),
            (_, INDIRECT) => Some(behind(side, &side.image, place.checked_add_signed(i64::from(entry))?)),
            _ => return None,
        };
        tables.types.push(target);
    }
    Some(tables)
}

fn behind<'d>(side: &Side<'d>, image: &Image<'d>, pointer: u64) -> Resolved<'d> {
    let target =
        image.pointer_at(pointer).map_or(Target::Unknown(pointer), |written: Written<'d>| side.pointee(written));
    Resolved { through_slot: true, target }
}

struct Reader<'d> {
    bytes: &'d [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
    }

    fn signed(&mut self) -> Option<i64> {
        let (mut value, mut shift) = (0i64, 0u32);
        loop {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                return Some(if byte & 0x40 != 0 && shift < 64 { value | (-1i64 << shift) } else { value });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_variable_length_are_read() {
        let mut reader = Reader { bytes: &[0xe5, 0x8e, 0x26, 0x7f, 0x80, 0x7f, 0x80], at: 0 };
        assert_eq!(reader.unsigned(), Some(624_485));
        assert_eq!(reader.signed(), Some(-1));
        assert_eq!(reader.signed(), Some(-128));
        assert_eq!(reader.unsigned(), None);
        let mut endless = Reader { bytes: &[0xff; 20], at: 0 };
        assert_eq!(endless.unsigned(), None);
    }
}
