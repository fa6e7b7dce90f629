//! Compares constants: texts, numbers, tables of jumps.
//!
//! Constants have no size in a stripped file. What ends one is the next address that something refers to. So two
//! constants are equal if all is equal up to there; texts must be equal up to their end. Tables of jumps and, in
//! files with fixed addresses, tables of pointers hold places: these are told, and it is for the caller to say
//! whether they correspond.

use std::collections::BTreeSet;

use crate::image::{Area, Kind, Written};
use crate::normalise::Way;
use crate::side::{Side, Target};

/// Two addresses that a pair of constants holds at the same place.
pub type Places = Vec<(u64, u64)>;

/// Compares two constants that two functions refer to in the same manner.
///
/// Returns nothing if they differ, else the pairs of places that must correspond for them to be equal.
#[must_use]
pub fn compare(old: (&Side<'_>, usize, u64), new: (&Side<'_>, usize, u64), way: Way) -> Option<Places> {
    let ((old, owner, a), (new, new_owner, b)) = (old, new);
    match way {
        Way::Call | Way::Jump | Way::Branch => None,
        Way::Access(size) if size > 0 => {
            let size = usize::from(size);
            if size == 8
                && let (Some(x), Some(y)) = (absolute(old, a), absolute(new, b))
            {
                return Some(vec![(x, y)]);
            }
            (old.image.bytes_at(a, size)? == new.image.bytes_at(b, size)?).then(Vec::new)
        }
        Way::Access(_) | Way::Indexed | Way::Address => {
            let indirect = |side: &Side<'_>, index| side.bodies.get(index).is_some_and(|body| body.jumps_indirectly);
            if indirect(old, owner)
                && indirect(new, new_owner)
                && let Some(places) = jumps(old, a, new, b)
            {
                return Some(places);
            }
            bytes(old, a, new, b)
        }
    }
}

fn absolute(side: &Side<'_>, place: u64) -> Option<u64> {
    match side.image.pointer_at(place) {
        Some(Written::Address(address)) => Some(address),
        _ => None,
    }
}

/// Reads one entry of a table of distances from its own start to code.
fn entry(side: &Side<'_>, table: u64, index: u64) -> Option<u64> {
    let distance = side.image.bytes_at(table.checked_add(4 * index)?, 4)?;
    let distance = i32::from_le_bytes(distance.try_into().ok()?);
    let place = table.checked_add_signed(i64::from(distance))?;
    // No entry leads to the start of another function: that is how a table ends where no reference cuts it.
    (side.image.area_at(place) == Some(Area::Code)).then_some(place)
}

/// Returns the functions that a table of jumps leads to, if a constant is one: at least these.
pub(crate) fn functions_of_jumps(side: &Side<'_>, table: u64) -> BTreeSet<usize> {
    let places = (0..side.constant_extent(table) / 4).map_while(|index| entry(side, table, index));
    places.filter_map(|place| side.function_at(place)).collect()
}

/// Reads both as tables of distances from their own start to code.
fn jumps(old: &Side<'_>, a: u64, new: &Side<'_>, b: u64) -> Option<Places> {
    let count = old.constant_extent(a).min(new.constant_extent(b)) / 4;
    let mut places = vec![];
    for index in 0..count {
        match (entry(old, a, index), entry(new, b, index)) {
            (Some(x), Some(y)) => places.push((x, y)),
            _ => break,
        }
    }
    let inner = |side: &Side<'_>, place| matches!(side.code(place), Target::Code(_, offset) if offset > 0);
    let (x, y) = places.first()?;
    (inner(old, *x) && inner(new, *y)).then_some(places)
}

/// Says whether two constants that objects point to are equal, and hold no places.
#[must_use]
pub fn same_bytes(old: &Side<'_>, a: u64, new: &Side<'_>, b: u64) -> bool {
    bytes(old, a, new, b).is_some_and(|places| {
        let text = |side: &Side<'_>, address| side.text_at(address).map(str::to_owned);
        places.iter().all(|(x, y)| text(old, *x).is_some() && text(old, *x) == text(new, *y))
    })
}

/// What stands behind a text that is at least this long is not part of it. A shorter one may be the first of a table.
const LONG_TEXT: usize = 24;

/// Says whether nothing of a constant of the new file may lie behind what was compared: a table may have grown, and
/// begin as before.
pub(crate) fn is_compared_to_its_end(old: &Side<'_>, a: u64, new: &Side<'_>, b: u64) -> bool {
    let is_long = new.text_at(b).is_some_and(|text| text.len() + 1 > LONG_TEXT);
    is_long || new.constant_extent(b) <= old.constant_extent(a)
}

/// Compares the bytes of two constants.
fn bytes(old: &Side<'_>, a: u64, new: &Side<'_>, b: u64) -> Option<Places> {
    let text = old.text_at(a);
    if text != new.text_at(b) {
        return None;
    }
    let extents = (old.constant_extent(a), new.constant_extent(b));
    let least = match text {
        Some(text) => text.len() + 1,
        None => 0,
    };
    let len = if least > LONG_TEXT { least } else { usize::try_from(extents.0.min(extents.1)).ok()?.max(least) };
    let (left, right) = (old.image.bytes_from(a)?, new.image.bytes_from(b)?);
    let (left, right) = (left.get(..len)?, right.get(..len)?);
    if old.image.kind != Kind::Fixed || a % 8 != b % 8 {
        return (left == right).then(Vec::new);
    }
    let mut places = vec![];
    let mut at = 0;
    while at < len {
        let pointers = (absolute(old, a + at as u64), absolute(new, b + at as u64));
        if let ((Some(x), Some(y)), true) = (pointers, at + 8 <= len) {
            places.push((x, y));
            at += 8;
        } else if left.get(at) == right.get(at) {
            at += 1;
        } else {
            return None;
        }
    }
    Some(places)
}
