//! Whether a running process could go on with what is on the disk now.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use mvedsua_binary::verdict::{self, Certainty};
use serde::Serialize;

use super::root::{self, Root};
use crate::update::binary::missing;

/// Files that are larger are not compared here; `compare` does it.
const LARGEST: u64 = 64 << 20;

/// What could be done about outdated code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Verdict {
    /// `update --to installed` can bring the process to what is on the disk.
    Update { certainty: Certainty },
    /// The files differ, but no function of them does.
    Same,
    /// It takes a restart.
    Restart { why: String },
    /// Nobody knows.
    Unknown { why: String },
}

impl Verdict {
    pub(super) fn unknown(why: impl Into<String>) -> Verdict {
        Verdict::Unknown { why: why.into() }
    }

    /// Returns the verdict in one word, for a table.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Update { .. } => "update",
            Verdict::Same => "same",
            Verdict::Restart { .. } => "restart",
            Verdict::Unknown { .. } => "unknown",
        }
    }

    #[must_use]
    pub fn is_update(&self) -> bool {
        matches!(self, Verdict::Update { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Update { certainty: Certainty::Inferred } => {
                f.write_str("`update --to installed` can do it (inferred)")
            }
            Verdict::Update { certainty: Certainty::Proved } => {
                f.write_str("`update --to installed` can do it (proved)")
            }
            Verdict::Same => f.write_str("nothing differs"),
            Verdict::Restart { why } => write!(f, "needs a restart: {why}"),
            Verdict::Unknown { why } => write!(f, "not known: {why}"),
        }
    }
}

/// Where the two versions of a file can be read.
#[derive(Debug)]
pub(super) struct Versions<'a> {
    /// A process that has mapped the old one.
    pub(super) pid: i32,
    /// Links to the mapped file, by any process that has mapped it.
    pub(super) old: &'a [PathBuf],
    pub(super) old_id: Option<&'a str>,
    pub(super) root: &'a Root,
    pub(super) new: &'a Path,
    pub(super) new_id: Option<&'a str>,
}

/// Compares files, each pair once.
#[derive(Debug, Default)]
pub(super) struct Comparer {
    known: HashMap<(String, String), Verdict>,
}

impl Comparer {
    pub(super) fn compare(&mut self, versions: &Versions<'_>) -> Verdict {
        let key = versions.old_id.zip(versions.new_id).map(|(old, new)| (old.to_owned(), new.to_owned()));
        if let Some(known) = key.as_ref().and_then(|key| self.known.get(key)) {
            return known.clone();
        }
        let verdict = compare(versions);
        self.known.extend(key.map(|key| (key, verdict.clone())));
        verdict
    }
}

fn compare(versions: &Versions<'_>) -> Verdict {
    let Some(old) = versions.old.iter().find_map(|link| File::open(link).ok()) else {
        return Verdict::unknown("the old file cannot be read; root may read it, as long as a process has mapped it");
    };
    let old = match root::read_all(old, LARGEST) {
        Ok(old) => old,
        Err(e) => return Verdict::unknown(format!("the old file cannot be read: {e}")),
    };
    let new = match versions.root.read(versions.new, LARGEST) {
        Ok(new) => new,
        Err(e) => return Verdict::unknown(format!("the file on the disk cannot be read: {e}")),
    };
    let comparison = match mvedsua_binary::compare(&old, &new) {
        Ok(comparison) => comparison,
        Err(e) => return Verdict::Restart { why: e.to_string() },
    };
    let is_expected =
        |found: &Option<String>, expected: Option<&str>| expected.is_none_or(|id| found.as_deref() == Some(id));
    if !is_expected(&comparison.old.image.build_id, versions.old_id)
        || !is_expected(&comparison.new.image.build_id, versions.new_id)
    {
        return Verdict::unknown("the files changed while they were compared");
    }
    let certainty = match &comparison.verdict {
        verdict::Verdict::Updatable { certainty } => *certainty,
        verdict::Verdict::Refused { reasons } => {
            let why = reasons.first().map_or_else(|| "the comparison refuses it".to_owned(), ToString::to_string);
            return Verdict::Restart { why };
        }
    };
    if comparison.fates.changed.is_empty() {
        return Verdict::Same;
    }
    if versions.old_id.is_none() || versions.new_id.is_none() {
        return Verdict::Restart { why: "only files that are known by a build-id are updated in place".to_owned() };
    }
    let lacks = comparison.patch.as_ref().map(|patch| missing(versions.pid, patch, None)).unwrap_or_default();
    match lacks.first() {
        None => Verdict::Update { certainty },
        Some(lack) => Verdict::Restart { why: format!("the new version uses what the old one did not: {lack}") },
    }
}

/// Returns the verdict on a process from those on its files, each with its path.
pub(super) fn of_process<'a>(files: impl Iterator<Item = (&'a str, &'a Verdict)> + Clone) -> Verdict {
    let named = |path: &str, why: &str| format!("{path}: {why}");
    let restart = files.clone().find_map(|(path, verdict)| match verdict {
        Verdict::Restart { why } => Some(Verdict::Restart { why: named(path, why) }),
        _ => None,
    });
    let unknown = files.clone().find_map(|(path, verdict)| match verdict {
        Verdict::Unknown { why } => Some(Verdict::Unknown { why: named(path, why) }),
        _ => None,
    });
    let update = files.clone().map(|(_, verdict)| verdict).find(|verdict| verdict.is_update());
    restart.or(unknown).or(update.cloned()).unwrap_or(Verdict::Same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(old: &Path, new: &Path) -> Verdict {
        let pid = std::process::id().cast_signed();
        let root = Root::of(pid).expect("this process runs");
        let old = [PathBuf::from("/no/such/file"), old.to_owned()];
        compare(&Versions { pid, old: &old, old_id: None, root: &root, new, new_id: None })
    }

    #[test]
    fn a_program_is_the_same_as_itself_and_not_another_one() {
        let (sleep, cat) = (Path::new("/bin/sleep"), Path::new("/bin/cat"));
        assert_eq!(compared(sleep, sleep), Verdict::Same);
        assert!(matches!(compared(sleep, cat), Verdict::Restart { .. }));
    }

    #[test]
    fn what_cannot_be_compared_says_why() {
        let (sleep, text) = (Path::new("/bin/sleep"), Path::new("/etc/passwd"));
        let Verdict::Restart { why } = compared(sleep, text) else { panic!("it is no program") };
        assert!(why.contains("the new file cannot be compared: this is no ELF file"), "{why}");
        assert!(matches!(compared(sleep, Path::new("/no/such/file")), Verdict::Unknown { .. }));
        assert!(matches!(compared(Path::new("/no/such/file"), sleep), Verdict::Unknown { .. }));
    }

    #[test]
    fn the_worst_file_decides() {
        let update = Verdict::Update { certainty: Certainty::Inferred };
        let restart = Verdict::Restart { why: "x".into() };
        let of = |files: &[(&'static str, Verdict)]| of_process(files.iter().map(|(path, verdict)| (*path, verdict)));
        assert_eq!(of(&[("/a", update.clone()), ("/b", Verdict::Same)]), update);
        assert_eq!(of(&[("/a", Verdict::Same)]), Verdict::Same);
        assert_eq!(of(&[("/a", update.clone()), ("/b", Verdict::unknown("y"))]), Verdict::unknown("/b: y"));
        let all = [("/a", Verdict::unknown("y")), ("/b", restart), ("/c", update)];
        assert_eq!(of(&all), Verdict::Restart { why: "/b: x".into() });
    }
}
