//! A window of two byte strings, one above the other, around the first byte that differs.

use std::fmt::Write as _;

/// Bytes a row.
pub(crate) const ROW: usize = 16;
/// Rows before and after the one that holds the first difference.
const AROUND: usize = 2;

/// Returns the index of the first byte that differs; the end of the shorter one counts as a difference.
#[must_use]
pub(super) fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(at) => Some(at),
        None if a.len() != b.len() => Some(a.len().min(b.len())),
        None => None,
    }
}

/// What two byte strings hold at the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HexRow {
    /// The offset of the first byte of the row in the payload.
    pub(crate) offset: u64,
    pub(crate) expected: Vec<u8>,
    pub(crate) actual: Vec<u8>,
}

/// Returns the rows around the first difference; `base` is the offset of the windows' first byte.
#[must_use]
pub(crate) fn rows(expected: &[u8], actual: &[u8], base: u64) -> Vec<HexRow> {
    let at = first_difference(expected, actual);
    let middle = at.unwrap_or(0) / ROW;
    let last = expected.len().max(actual.len()).saturating_sub(1) / ROW;
    let shown = middle.saturating_sub(AROUND)..=(middle + AROUND).min(last);
    let cut = |bytes: &[u8], row: usize| bytes.get(row * ROW..bytes.len().min((row + 1) * ROW)).unwrap_or(&[]).to_vec();
    let row =
        |row| HexRow { offset: base + (row * ROW) as u64, expected: cut(expected, row), actual: cut(actual, row) };
    shown.map(row).collect()
}

/// Writes the rows around the first difference; `base` is the offset of the windows' first byte.
pub(super) fn write_window(out: &mut String, expected: &[u8], actual: &[u8], base: u64) {
    for HexRow { offset, expected, actual } in rows(expected, actual, base) {
        if expected == actual {
            write_row(out, "both", offset, &expected);
            continue;
        }
        write_row(out, "expected", offset, &expected);
        write_row(out, "actual", offset, &actual);
        write_marks(out, &expected, &actual);
    }
}

fn write_row(out: &mut String, who: &str, offset: u64, bytes: &[u8]) {
    let mut hex = String::new();
    for index in 0..ROW {
        match bytes.get(index) {
            Some(byte) => {
                let _ = write!(hex, "{byte:02x} ");
            }
            None => hex.push_str("   "),
        }
        if index == ROW / 2 - 1 {
            hex.push(' ');
        }
    }
    let ascii: String = bytes.iter().copied().map(letter).collect();
    let _ = writeln!(out, "  {who:<8}  {offset:08x}  {hex} |{ascii}|");
}

/// Returns a byte as a letter, or a dot where it is none.
#[must_use]
pub(crate) fn letter(byte: u8) -> char {
    if (0x20..0x7f).contains(&byte) { char::from(byte) } else { '.' }
}

fn write_marks(out: &mut String, left: &[u8], right: &[u8]) {
    let mut marks = String::new();
    for index in 0..ROW {
        marks.push_str(if left.get(index) == right.get(index) { "   " } else { "^^ " });
        if index == ROW / 2 - 1 {
            marks.push(' ');
        }
    }
    let _ = writeln!(out, "  {:<8}  {:8}  {}", "", "", marks.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_string_differs_at_its_end() {
        assert_eq!(first_difference(b"abc", b"abcd"), Some(3));
        assert_eq!(first_difference(b"abc", b"abd"), Some(2));
        assert_eq!(first_difference(b"abc", b"abc"), None);
    }

    #[test]
    fn the_window_is_bounded_however_long_the_payload_is() {
        let expected = vec![b'x'; 10_000];
        let mut actual = expected.clone();
        actual[5_000] = b'y';
        let mut out = String::new();
        write_window(&mut out, &expected, &actual, 0);
        assert_eq!(out.lines().count(), 4 + 3, "{out}");
        assert!(out.contains("00001380"), "the row of the difference is there: {out}");
    }
}
