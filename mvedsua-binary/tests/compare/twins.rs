//! Builds pairs of small programs, strips them, compares them, and checks the answer against their symbols.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use mvedsua_binary::classes::Class;
use mvedsua_binary::image::{Image, SymbolKind};
use mvedsua_binary::reason::Reason;
use mvedsua_binary::verdict::Verdict;
use mvedsua_binary::{Comparison, compare};
use tempfile::TempDir;

/// One version of a program, with and without symbols.
pub(crate) struct Built {
    pub(crate) full: Vec<u8>,
    pub(crate) stripped: Vec<u8>,
}

/// Compiles one version with the system's compiler.
pub(crate) fn build(source: &str, flags: &[&str]) -> Built {
    let place = TempDir::new().unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sources");
    let (full, stripped) = (place.path().join("full"), place.path().join("stripped"));
    let compiler = if source.ends_with(".cc") { "c++" } else { "cc" };
    // The same name for the file in every version, so that asserts name it alike.
    let status = Command::new(compiler)
        .current_dir(&sources)
        .args(["-O2", "-Wno-unused", "-o"])
        .arg(&full)
        .arg(source)
        .args(flags)
        .status()
        .unwrap();
    assert!(status.success(), "the compiler failed on {source} {flags:?}");
    assert!(Command::new("strip").arg("-o").arg(&stripped).arg(&full).status().unwrap().success());
    Built { full: fs::read(full).unwrap(), stripped: fs::read(stripped).unwrap() }
}

/// An old and a new version.
pub(crate) struct Twins {
    pub(crate) old: Built,
    pub(crate) new: Built,
}

impl Twins {
    /// Builds two versions: both with `common`, the new one with `changes` too.
    pub(crate) fn build(source: &str, common: &[&str], changes: &[&str]) -> Twins {
        let both: Vec<&str> = common.iter().chain(changes).copied().collect();
        Twins { old: build(source, common), new: build(source, &both) }
    }

    /// Compares the stripped files and checks every binding and every match against the symbols.
    pub(crate) fn compare(&self) -> Comparison<'_> {
        let comparison = compare(&self.old.stripped, &self.new.stripped).unwrap();
        self.check(&comparison);
        comparison
    }

    fn check(&self, comparison: &Comparison<'_>) {
        let (old, new) = (Image::read(&self.old.full).unwrap(), Image::read(&self.new.full).unwrap());
        let refused = matches!(comparison.verdict, Verdict::Refused { .. });
        let contradicted = comparison.bindings.contradictions.len();
        let mut checked = 0;
        for bound in comparison.bindings.old.values() {
            let (a, b) = (names_of(&old, bound.old, false), names_of(&new, bound.new, false));
            if a.is_empty() || b.is_empty() {
                continue;
            }
            checked += 1;
            // Where the structure itself changed, and that was seen, the place in it may differ.
            let names =
                |names: &BTreeSet<(String, u64)>| names.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
            let same_object = names(&a).intersection(&names(&b)).next().is_some();
            assert!(
                a.intersection(&b).next().is_some() || refused && (same_object || contradicted > 0),
                "{:#x} is {a:?}, {:#x} is {b:?}: {bound:?}",
                bound.old,
                bound.new
            );
        }
        assert!(checked > 3, "only {checked} bindings could be checked");
        for (index, found) in comparison.matching.old.iter().enumerate() {
            let Some(found) = found else { continue };
            let start = |side: &mvedsua_binary::side::Side<'_>, index: usize| side.functions[index].start;
            let a = names_of(&old, start(&comparison.old, index), true);
            let b = names_of(&new, start(&comparison.new, found.new), true);
            let right = a.is_empty() || b.is_empty() || a.intersection(&b).next().is_some();
            assert!(right, "functions were matched wrongly: {a:?} {b:?} {found:?}");
        }
    }
}

/// Returns the symbols around an address without what the compiler adds to their names, and the place in each.
fn names_of(image: &Image<'_>, address: u64, code: bool) -> BTreeSet<(String, u64)> {
    let kinds = |kind| if code { kind == SymbolKind::Function } else { kind == SymbolKind::Object };
    let around = image.symbols.iter().filter(|symbol| kinds(symbol.kind)).filter(|symbol| {
        symbol.address == address || symbol.address < address && address < symbol.address + symbol.size
    });
    around
        .map(|symbol| match symbol.name.split_once('.') {
            Some((name, number)) if number.chars().all(|c| c.is_ascii_digit()) => {
                (name.to_owned(), address - symbol.address)
            }
            _ => (symbol.name.to_owned(), address - symbol.address),
        })
        .collect()
}

/// Says how many functions became what.
pub(crate) fn classes(comparison: &Comparison<'_>) -> BTreeMap<Class, usize> {
    let mut counts = BTreeMap::new();
    for fate in &comparison.fates.changed {
        *counts.entry(fate.class).or_default() += 1;
    }
    counts
}

/// Returns the reasons of a refusal, or none.
pub(crate) fn reasons<'a>(comparison: &'a Comparison<'_>) -> &'a [Reason] {
    match &comparison.verdict {
        Verdict::Refused { reasons } => reasons,
        Verdict::Updatable { .. } => &[],
    }
}

/// Asserts that a comparison refuses, with a reason that fits.
pub(crate) fn refuses(comparison: &Comparison<'_>, fits: impl Fn(&Reason) -> bool) {
    let reasons = reasons(comparison);
    assert!(reasons.iter().any(fits), "no such reason: {reasons:#?}");
}

/// Asserts that a comparison lets the update pass.
pub(crate) fn passes(comparison: &Comparison<'_>) {
    let reasons: Vec<String> = reasons(comparison).iter().map(ToString::to_string).collect();
    assert!(reasons.is_empty(), "refused: {reasons:#?}");
}
