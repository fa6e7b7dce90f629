//! Builds pairs of small programs, strips them, compares them, and checks the answer against their symbols.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use mvedsua_binary::classes::Class;
use mvedsua_binary::debug::Names;
use mvedsua_binary::image::Image;
use mvedsua_binary::reason::Reason;
use mvedsua_binary::verdict::Verdict;
use mvedsua_binary::{Comparison, compare, patch, symbols};
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
        let checked = symbols::check(comparison, &Names::of_image(&old), &Names::of_image(&new));
        assert_eq!(checked.wrong, Vec::<String>::new());
        assert!(checked.objects > 3, "only {} bindings could be checked", checked.objects);
        if let Some(patch) = &comparison.patch {
            assert_eq!(patch::verify(comparison, patch).faults, []);
        }
    }
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
