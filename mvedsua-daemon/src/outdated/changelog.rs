//! What Debian's changelogs say of security, and how its version numbers are ordered.
//!
//! See `deb-changelog(5)` and `deb-version(7)`.

use std::cmp::Ordering;
use std::io::{self, BufRead};

use serde::Serialize;

/// What the changelog says of security about the entries between two versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Security {
    /// How many entries were read.
    pub entries: usize,
    /// The version behind which they begin; where it is not known, the newest entry alone was read.
    pub since: Option<String>,
    /// The highest one of the entries.
    pub urgency: Option<String>,
    /// Whether one of them went to an archive of security updates.
    pub is_from_security_archive: bool,
    /// The numbers of the notices, in the order in which they are mentioned.
    pub cves: Vec<String>,
}

impl Security {
    /// Says whether there is a notice at all.
    #[must_use]
    pub fn is_notice(&self) -> bool {
        self.is_from_security_archive || !self.cves.is_empty()
    }
}

/// The first line of an entry.
#[derive(Debug, PartialEq, Eq)]
struct Heading<'a> {
    version: &'a str,
    distributions: &'a str,
    urgency: Option<&'a str>,
}

fn heading(line: &str) -> Option<Heading<'_>> {
    if line.starts_with(char::is_whitespace) {
        return None;
    }
    let (_, rest) = line.split_once(" (")?;
    let (version, rest) = rest.split_once(')')?;
    let (distributions, options) = rest.split_once(';')?;
    let urgency = options.split([',', ' ']).find_map(|option| option.trim().strip_prefix("urgency="));
    Some(Heading { version, distributions: distributions.trim(), urgency })
}

/// Reads a changelog from its top down to the entry of a version; without one, the newest entry.
///
/// # Errors
///
/// Those of reading.
pub(super) fn read(text: impl BufRead, old: Option<&str>) -> io::Result<Security> {
    let mut found = Security { since: old.map(str::to_owned), ..Security::default() };
    let old = old.map(without_rebuild);
    for line in text.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if let Some(heading) = heading(&line) {
            let is_behind = match old {
                Some(old) => compare(heading.version, old) != Ordering::Greater,
                None => found.entries == 1,
            };
            if is_behind {
                break;
            }
            found.entries += 1;
            found.is_from_security_archive |=
                heading.distributions.split_whitespace().any(|d| d.ends_with("-security"));
            let urgency = heading.urgency.map(str::to_ascii_lowercase);
            if urgency.as_deref().map(rank) > found.urgency.as_deref().map(rank) {
                found.urgency = urgency;
            }
        }
        for cve in cves(&line) {
            if !found.cves.contains(&cve) {
                found.cves.push(cve);
            }
        }
    }
    Ok(found)
}

fn rank(urgency: &str) -> u8 {
    match urgency {
        "low" => 1,
        "medium" => 2,
        "high" => 3,
        "emergency" | "critical" => 4,
        _ => 0,
    }
}

/// Returns the numbers of the form `CVE-2026-12345` in a line.
fn cves(line: &str) -> impl Iterator<Item = String> {
    line.match_indices("CVE-").filter_map(|(at, start)| {
        let (year, rest) = line[at + start.len()..].split_once('-')?;
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let fits = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()) && number.len() >= 4;
        fits.then(|| format!("CVE-{year}-{number}"))
    })
}

/// Returns the version of the source: a rebuild for one architecture has no entry.
pub(super) fn without_rebuild(version: &str) -> &str {
    match version.rsplit_once("+b") {
        Some((source, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => source,
        _ => version,
    }
}

/// Compares two versions.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let parts = |version: &str| {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        (epoch.parse::<u64>().unwrap_or(0), upstream.to_owned(), revision.to_owned())
    };
    let (a, b) = (parts(a), parts(b));
    a.0.cmp(&b.0).then_with(|| compare_part(&a.1, &b.1)).then_with(|| compare_part(&a.2, &b.2))
}

fn compare_part(a: &str, b: &str) -> Ordering {
    // Letters before other signs, the tilde before everything, even the end.
    let order = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    let is_text = |rest: &[u8]| rest.first().is_some_and(|byte| !byte.is_ascii_digit());
    while !(a.is_empty() && b.is_empty()) {
        while is_text(a) || is_text(b) {
            let ordering = order(a.first()).cmp(&order(b.first()));
            if ordering != Ordering::Equal {
                return ordering;
            }
            (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
        }
        let (x, y) = (number(&mut a), number(&mut b));
        let ordering = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

/// Takes the digits at the start, without leading zeros.
fn number<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, behind) = rest.split_at(end);
    *rest = behind;
    let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIS: &str = "\
redis (5:7.0.15-1~deb12u10) bookworm-security; urgency=high

  * CVE-2026-23456, CVE-2026-23457: bounds (Closes: #1234)

 -- A <a@example.org>  Mon, 02 Nov 2026 10:00:00 +0000

redis (5:7.0.15-1~deb12u9) bookworm; urgency=medium

  * Look at CVE-2026-23456 again; CVE-12-3 is no number.

 -- A <a@example.org>  Mon, 02 Oct 2026 10:00:00 +0000

redis (5:7.0.15-1~deb12u8) bookworm-security; urgency=emergency

  * CVE-2025-11111

 -- A <a@example.org>  Mon, 02 Sep 2026 10:00:00 +0000
";

    #[test]
    fn the_entries_between_two_versions_are_read() {
        let found = read(REDIS.as_bytes(), Some("5:7.0.15-1~deb12u8+b1")).expect("it is text");
        assert_eq!((found.entries, found.urgency.as_deref()), (2, Some("high")));
        assert_eq!(found.cves, ["CVE-2026-23456", "CVE-2026-23457"]);
        assert!(found.is_from_security_archive && found.is_notice());
        // A version that has no entry is found by the order.
        assert_eq!(read(REDIS.as_bytes(), Some("5:7.0.15-1~deb12u8.1")).expect("it is text").entries, 2);
        assert_eq!(read(REDIS.as_bytes(), Some("5:7.0.15-1~deb12u10")).expect("it is text").entries, 0);
    }

    #[test]
    fn of_an_unknown_version_the_newest_entry_is_read() {
        let found = read(REDIS.as_bytes(), None).expect("it is text");
        assert_eq!((found.entries, found.since), (1, None));
        assert_eq!(found.cves, ["CVE-2026-23456", "CVE-2026-23457"]);
        assert_eq!(read(&b"no changelog"[..], None).expect("it is text"), Security::default());
    }

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let ascending = [
            "0~~",
            "0~",
            "0",
            "1.0~rc1",
            "1.0",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb12u2",
            "1.0-1+deb12u10",
            "1.0a-1",
            "1.0+x-1",
            "1.9",
            "1.10",
            "1:0.1",
            "2:0",
        ];
        for (index, a) in ascending.iter().enumerate() {
            for (other, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), index.cmp(&other), "{a} {b}");
            }
        }
        assert_eq!(compare("1.0", "1.0-0"), Ordering::Equal);
        assert_eq!(compare("1.01", "1.1"), Ordering::Equal);
        assert_eq!(without_rebuild("1.0-1+b12"), "1.0-1");
        assert_eq!(without_rebuild("1.0+beta"), "1.0+beta");
    }
}
