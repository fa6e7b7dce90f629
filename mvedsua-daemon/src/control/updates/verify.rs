//! Whether what is mapped after a promotion is what was announced.
//!
//! A path says little: the file behind it may be another one by now. The build-ids of what is really mapped decide.

use std::sync::Arc;

use crate::control::process::{self, MappedCode};
use crate::lifecycle::Verification;
use crate::package::{BuildId, Package};
use crate::update::binary::{FileChange, versions_of};

/// What the new leader must have mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// The same code as the old version.
    Same,
    /// The code with this build-id. The old code stays mapped beside it where a program loads its new version itself.
    New(BuildId),
    /// The code that was mapped, in which files run as other versions: the build-ids of what is mapped and of what runs.
    Files(Vec<(String, String)>),
}

impl Announced {
    pub(super) fn of(package: Option<&Package>, files: &[Arc<FileChange>]) -> Announced {
        if !files.is_empty() {
            return Announced::Files(files.iter().map(|file| (file.from.clone(), file.to.clone())).collect());
        }
        let new = package.and_then(|package| package.new.as_ref());
        new.map_or(Announced::Same, |new| Announced::New(new.build_id.clone()))
    }
}

/// Compares the code that the new leader has mapped with what was announced, and with that of the old version, which
/// still stands beside it unless it has crashed.
pub(super) fn compare_code(leader: i32, old: Option<i32>, announced: &Announced) -> Verification {
    let unreadable = |pid: i32, e: &std::io::Error| Verification::Mismatch {
        what: format!("the code of process {pid} cannot be read: {e}"),
    };
    let now = match process::mapped_code(leader) {
        Ok(now) => now,
        Err(e) => return unreadable(leader, &e),
    };
    let before = match old.map(|old| (old, process::mapped_code(old))) {
        None => None,
        Some((old, Ok(before))) => Some((old, before)),
        Some((old, Err(e))) => return unreadable(old, &e),
    };
    match announced {
        Announced::Same => before.map_or(Verification::Same, |(old, before)| same(leader, &now, old, &before)),
        Announced::New(id) => is_mapped(leader, &now, id),
        Announced::Files(files) => {
            match before.map_or(Verification::Same, |(old, before)| same(leader, &now, old, &before)) {
                Verification::Same => runs(leader, files),
                other => other,
            }
        }
    }
}

/// Sees that each file runs as the version that was announced.
fn runs(leader: i32, files: &[(String, String)]) -> Verification {
    let versions = match versions_of(leader) {
        Ok(versions) => versions,
        Err(e) => return Verification::Mismatch { what: format!("the code of process {leader} cannot be read: {e}") },
    };
    let now = |mapped: &String| {
        let version = versions.iter().find(|version| version.mapped == *mapped);
        version.map_or_else(|| mapped.clone(), |version| version.runs.clone())
    };
    match files.iter().find(|(mapped, to)| now(mapped) != *to) {
        None => Verification::Same,
        Some((mapped, to)) => {
            let what = format!("process {leader} runs build-id {} of {mapped}, not {to}", now(mapped));
            Verification::Mismatch { what }
        }
    }
}

fn same(leader: i32, now: &[MappedCode], old: i32, before: &[MappedCode]) -> Verification {
    let new = now.iter().filter(|code| !before.contains(code));
    let differing: Vec<&MappedCode> = new.chain(before.iter().filter(|code| !now.contains(code))).collect();
    if differing.is_empty() {
        return Verification::Same;
    }
    let names = names(differing.into_iter());
    Verification::Mismatch { what: format!("mapped in only one of processes {leader} and {old}: {names}") }
}

fn is_mapped(leader: i32, now: &[MappedCode], id: &BuildId) -> Verification {
    if now.iter().any(|code| code.build_id.as_deref() == Some(id.as_str())) {
        return Verification::Same;
    }
    let what = format!("process {leader} does not run build-id {id}; it has mapped {}", names(now.iter()));
    Verification::Mismatch { what }
}

fn names<'a>(code: impl Iterator<Item = &'a MappedCode>) -> String {
    let name = |code: &MappedCode| format!("{} ({})", code.path, code.build_id.as_deref().unwrap_or("no build-id"));
    code.map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(path: &str, id: &str) -> MappedCode {
        MappedCode { path: path.to_owned(), file: (1, id.len() as u64), build_id: Some(id.to_owned()) }
    }

    #[test]
    fn the_same_version_has_the_same_code_and_a_new_one_its_own() {
        let old = [code("/srv/kv", "00"), code("/srv/v1.so", "1111")];
        let new = [&old[..], &[code("/srv/v2.so", "aabbccddeeff00112233")]].concat();
        assert_eq!(same(7, &old, 8, &old), Verification::Same);
        let Verification::Mismatch { what } = same(7, &new, 8, &old) else { panic!("v2 was not announced") };
        assert_eq!(what, "mapped in only one of processes 7 and 8: /srv/v2.so (aabbccddeeff00112233)");
        let id = BuildId::parse("aabbccddeeff00112233").expect("it is one");
        assert_eq!(is_mapped(7, &new, &id), Verification::Same);
        let Verification::Mismatch { what } = is_mapped(7, &old, &id) else { panic!("v2 is not there") };
        assert!(
            what.starts_with("process 7 does not run build-id aabb") && what.contains("/srv/v1.so (1111)"),
            "{what}"
        );
    }

    #[test]
    fn what_is_mapped_is_read_from_the_process_itself() {
        let pid = std::process::id().cast_signed();
        let own = process::mapped_code(pid).expect("it runs");
        let id = own.iter().find_map(|code| code.build_id.clone()).expect("libc has one");
        let announced = Announced::New(BuildId::parse(&id).expect("it is one"));
        assert_eq!(compare_code(pid, None, &announced), Verification::Same);
        let other = Announced::New(BuildId::parse("aabbccddeeff00112233").expect("it is one"));
        assert!(matches!(compare_code(pid, None, &other), Verification::Mismatch { .. }));
        assert_eq!(compare_code(pid, Some(pid), &Announced::Same), Verification::Same);
    }
}
