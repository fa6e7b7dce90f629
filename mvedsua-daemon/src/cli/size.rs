//! Sizes and numbers as people write and read them.

/// Reads `512M`, `4G`, `64k` or a number of bytes; the units are powers of 1024.
///
/// # Errors
///
/// Where it is none of these.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        digits if digits.ends_with('k') => (digits.trim_end_matches('k').to_owned(), 10),
        digits if digits.ends_with('m') => (digits.trim_end_matches('m').to_owned(), 20),
        digits if digits.ends_with('g') => (digits.trim_end_matches('g').to_owned(), 30),
        digits => (digits.to_owned(), 0),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("`{text}` is no size; write 512M, 4G or a number"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too much"))
}

/// Returns a number of bytes as people read it.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn bytes(count: u64) -> String {
    let scaled = |shift: u32, unit: &str| format!("{:.1} {unit}", count as f64 / f64::from(1u32 << shift));
    match count {
        0..1024 => format!("{count} B"),
        1024..0x10_0000 => scaled(10, "KiB"),
        0x10_0000..0x4000_0000 => scaled(20, "MiB"),
        _ => scaled(30, "GiB"),
    }
}

/// Returns a count with its thousands apart.
#[must_use]
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        let cases = [("512M", 512 << 20), ("4g", 4 << 30), ("64k", 65536), ("7", 7), ("1GiB", 1 << 30), ("0", 0)];
        for (text, expected) in cases {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for text in ["", "M", "-1", "1T", "99999999999G"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(bytes(1536), "1.5 KiB");
    }
}
