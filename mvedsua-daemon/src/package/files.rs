//! Which files a package may consist of, and who may write them.
//!
//! What is in a package is executed with the rights of the program that is updated. So nobody but root and the user
//! whose program it is may be able to change it: not a file, not a directory, not a directory above it. Since only
//! those can, it does not matter that files are looked at first and used later.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use super::faults::{Fault, Kind};

/// How many files a package may have, and how deep they may lie.
const MOST_FILES: usize = 10_000;
const DEEPEST: usize = 16;
/// Written by group or others.
const WRITABLE: u32 = 0o022;
/// In a directory with this bit only its owner, and the owner of a file in it, may rename or remove that.
const STICKY: u32 = 0o1000;

/// Who may write a package, and who must be able to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    writers: Vec<u32>,
    reader: u32,
}

impl Trust {
    /// Trusts root, and a user who may update; `reader` is the user as whom the program runs.
    #[must_use]
    pub fn new(may_update: Option<u32>, reader: u32) -> Trust {
        let own = nix::unistd::geteuid().as_raw();
        Trust { writers: [Some(0), Some(own), may_update].into_iter().flatten().collect(), reader }
    }

    /// Says what is wrong with the owner and the mode of a file or directory, if anything.
    fn look(&self, name: &str, meta: &Metadata, where_: Where) -> Option<Fault> {
        let (uid, mode) = (meta.uid(), meta.mode() & 0o7777);
        let fault = |what: String, expected: &str, hint: String| {
            Some(Fault::new(Kind::Access, name, what, expected).hint(hint))
        };
        if !self.writers.contains(&uid) {
            return fault(
                format!("it belongs to user {uid}"),
                "root's, or the user's who may update the program",
                format!("chown root {name}"),
            );
        }
        let is_safe_above = where_ == Where::Above && mode & STICKY != 0;
        if mode & WRITABLE != 0 && !is_safe_above {
            return fault(
                format!("others may write it (mode {mode:04o})"),
                "a mode in which only the owner may write",
                format!("chmod go-w {name}"),
            );
        }
        // A directory is passed, a file is read.
        let (bit, verb) = if meta.is_dir() { (0o1, "enter") } else { (0o4, "read") };
        let may = self.reader == 0 || self.reader == uid || mode & bit != 0;
        if !may {
            return fault(
                format!("user {} may not {verb} it (mode {mode:04o})", self.reader),
                "a mode in which the user as whom the program runs may use it",
                // Whether everybody may is not for us to propose: it may be a secret.
                format!("if user {} may know what it holds, give them a right to it", self.reader),
            );
        }
        None
    }
}

/// Says where a file or directory lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Above,
    Inside,
}

/// Checks the directories above a package, from the root of the file system down. `path` is canonical.
pub(super) fn check_above(path: &Path, trust: &Trust) -> Vec<Fault> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    let look = |dir: &Path| match fs::symlink_metadata(dir) {
        Ok(meta) => trust.look(&dir.display().to_string(), &meta, Where::Above),
        Err(e) => Some(unreadable(&dir.display().to_string(), &e)),
    };
    above.into_iter().filter_map(look).collect()
}

/// Checks the directories above a package that is not there, as far as there are any.
pub(super) fn check_above_missing(path: &Path, trust: &Trust) -> Vec<Fault> {
    let there = path.ancestors().skip(1).find_map(|dir| fs::canonicalize(dir).ok());
    there.map_or(vec![], |dir| check_above(&dir.join("missing"), trust))
}

/// Checks one file that stands for a package, an archive.
pub(super) fn check_file(path: &Path, trust: &Trust) -> Vec<Fault> {
    match fs::symlink_metadata(path) {
        Ok(meta) => trust.look(&path.display().to_string(), &meta, Where::Inside).into_iter().collect(),
        Err(e) => vec![unreadable(&path.display().to_string(), &e)],
    }
}

/// Checks everything in the directory of a package, which is canonical.
pub(super) fn check_tree(root: &Path, trust: &Trust) -> Vec<Fault> {
    let mut faults = vec![];
    let mut seen = 0;
    let mut open = vec![(root.to_owned(), 0)];
    while let Some((path, depth)) = open.pop() {
        let name = name_in(root, &path);
        seen += 1;
        if seen > MOST_FILES || depth > DEEPEST {
            let what = format!("there are more than {MOST_FILES} files, or they lie deeper than {DEEPEST}");
            faults.push(Fault::new(Kind::File, name, what, "a package of the files that the update needs"));
            break;
        }
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(e) => {
                faults.push(unreadable(&name, &e));
                continue;
            }
        };
        if meta.is_symlink() {
            faults.extend(check_link(root, &path, &name));
            continue;
        }
        let fault = trust.look(&name, &meta, Where::Inside);
        // What is in a directory that is not right is not told.
        let is_right = fault.is_none();
        faults.extend(fault);
        if meta.is_dir() && is_right {
            match fs::read_dir(&path) {
                Ok(entries) => open.extend(entries.flatten().map(|entry| (entry.path(), depth + 1))),
                Err(e) => faults.push(unreadable(&name, &e)),
            }
        } else if !(meta.is_dir() || meta.is_file()) {
            let fault = Fault::new(Kind::File, name, "it is neither a file nor a directory", "files and directories");
            faults.push(fault.hint("devices, pipes and sockets have no place in a package"));
        }
    }
    faults.sort_by(|a, b| a.file.cmp(&b.file));
    faults
}

fn check_link(root: &Path, path: &Path, name: &str) -> Option<Fault> {
    match fs::canonicalize(path) {
        Ok(target) if target.starts_with(root) => None,
        Ok(target) => {
            let what = format!("it is a symbolic link out of the package, to {}", target.display());
            Some(
                Fault::new(Kind::Access, name, what, "links within the package").hint("copy the file into the package"),
            )
        }
        Err(e) => Some(Fault::new(Kind::File, name, format!("it is a symbolic link to nowhere: {e}"), "a file")),
    }
}

/// Finds a file that the manifest names.
///
/// # Errors
///
/// What is wrong with the name or the file, and what was expected.
pub(super) fn find(root: &Path, name: &str) -> Result<PathBuf, (String, &'static str)> {
    const INSIDE: &str = "the name of a file in the package, relative to its directory";
    let relative = Path::new(name);
    if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err((format!("`{name}` leads out of the package"), INSIDE));
    }
    let path = match fs::canonicalize(root.join(relative)) {
        Ok(path) => path,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err((format!("there is no `{name}`"), INSIDE)),
        Err(e) => return Err((format!("`{name}` cannot be read: {e}"), INSIDE)),
    };
    if !path.starts_with(root) {
        return Err((format!("`{name}` leads out of the package, to {}", path.display()), INSIDE));
    }
    if path.is_file() { Ok(path) } else { Err((format!("`{name}` is no file"), INSIDE)) }
}

/// Returns the name of a file in a package.
fn name_in(root: &Path, path: &Path) -> String {
    match path.strip_prefix(root) {
        Ok(name) if name.as_os_str().is_empty() => root.display().to_string(),
        Ok(name) => name.display().to_string(),
        Err(_) => path.display().to_string(),
    }
}

pub(super) fn unreadable(name: &str, e: &io::Error) -> Fault {
    Fault::new(Kind::File, name, format!("it cannot be read: {e}"), "a file or directory that can be read")
}
