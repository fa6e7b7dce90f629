//! The guests by themselves: each row of the table has one, each is honest about what it exercises, and each finds nothing
//! wrong with a kernel that nobody stands in front of.

use std::collections::BTreeSet;
use std::fs;

use harness::guests::{Guest, call_of, sources};
use mvedsua_common::syscalls::{self, irregular};

/// The word that a guest wants with a request for its ordinary round.
fn ordinary(name: &str) -> &'static str {
    if name == "hostile" { "check" } else { "" }
}

#[test]
fn every_row_has_a_guest_and_every_guest_a_row() {
    let own = syscalls::rows().filter(|row| !row.irregular.is_some_and(|irregular| irregular.is_many()));
    let rows: BTreeSet<&str> = own.chain(irregular::variants()).map(|row| row.name).collect();
    let sources = sources().unwrap();
    let exercised: BTreeSet<&str> = sources.iter().flat_map(|source| &source.rows).map(String::as_str).collect();
    let missing: Vec<_> = rows.difference(&exercised).collect();
    assert!(missing.is_empty(), "rows that no guest exercises: {missing:?}");
    let unknown: Vec<_> = exercised.difference(&rows).collect();
    assert!(unknown.is_empty(), "rows that guests name and the table does not have: {unknown:?}");
}

#[test]
fn every_guest_passes_by_itself() {
    for source in sources().unwrap() {
        let mut guest = Guest::start(&source.name).unwrap();
        for round in 1..=3 {
            guest.round(round, ordinary(&source.name)).unwrap();
        }
        guest.finish().unwrap();
    }
}

#[test]
fn guests_make_the_calls_that_they_name() {
    let mut idle = Vec::new();
    for source in sources().unwrap() {
        let trace = tempfile::NamedTempFile::new().unwrap();
        let path = trace.path().display().to_string();
        let mut guest =
            Guest::start_under(&["strace", "-f", "-qq", "-a", "1", "-s", "0", "-o", &path], &source.name).unwrap();
        for round in 1..=2 {
            guest.round(round, ordinary(&source.name)).unwrap();
        }
        guest.finish().unwrap();
        // `1234 read(0, …` and `1234 <... restart_syscall resumed>…`
        let text = fs::read_to_string(trace.path()).unwrap();
        let called = |line: &str| {
            let call = line.split_once(' ')?.1.trim_start();
            let call = call.strip_prefix("<... ").unwrap_or(call);
            let call = call.split(['(', ' ']).next()?;
            // A call that is younger than this strace goes by its number.
            let number = call.strip_prefix("syscall_0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
            Some(number.and_then(syscalls::name).unwrap_or(call).to_owned())
        };
        let made: BTreeSet<String> = text.lines().filter_map(called).collect();
        let calls = source.rows.iter().map(|row| call_of(row)).filter(|call| !made.contains(*call));
        idle.extend(calls.map(|call| format!("{}: {call}", source.name)));
    }
    assert!(idle.is_empty(), "guests that do not make the calls they name: {idle:?}");
}
