//! Update packages: what an operator hands over to have a program updated (DESIGN 9).
//!
//! A package is a directory, or a tar archive of one, with an [`update.toml`](manifest), the new version, and rules for
//! the differences that are meant. Opening it checks everything that can be checked without the program: what the
//! manifest says, that the files are there and are what was promised, and that nobody could have put others in their
//! place ([`files`]). All faults are reported at once, with their place.
//!
//! [`Contents`] writes a package of the functions that changed between two files; what was written is read back and
//! checked in the same way.
//!
//! Nothing here knows the daemon. Which build-ids a process has mapped is a question of the control plane; a package
//! only says whether it [updates](Package::updates) one of them.

mod archive;
mod build;
pub mod build_id;
mod endpoint;
pub mod faults;
mod files;
mod gate;
mod hooks;
mod manifest;
mod object_file;
mod reader;
pub mod terms;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mvedsua_binary::hooks::HookFile;
use mvedsua_binary::transform::Transform;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

pub use self::build::{BuildError, Contents, default_name};
pub use self::build_id::BuildId;
pub use self::endpoint::Endpoint;
pub use self::faults::{Fault, Faults, Kind};
pub use self::files::Trust;
pub use self::gate::{Gate, Judge, OnFailure};
pub use self::manifest::{Method, Way, parse_name};
pub use self::terms::{Accept, Lockstep, MaxSlowdown, StopAt, Terms, Wishes};

use self::faults::Place;
use self::manifest::Manifest;
use crate::rules::{self, Diagnostic, Severity};

/// The longest manifest and the longest file of rules, bytes.
const MOST_TEXT: u64 = 1 << 20;

/// What a package is called and what it changes; journal, history and audit log keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageInfo {
    pub name: String,
    /// Where it was found.
    pub path: PathBuf,
    pub description: Option<String>,
    pub method: Method,
    /// Build-ids that it updates.
    pub from: Vec<BuildId>,
    /// The build-id of the new version's object; `None` where nothing is changed.
    pub to: Option<BuildId>,
}

impl std::fmt::Display for PackageInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}) in {}", self.name, self.method, self.path.display())?;
        let from: Vec<&str> = self.from.iter().map(BuildId::as_str).collect();
        if !from.is_empty() {
            write!(f, ", from build-id {}", from.join(" or "))?;
        }
        match &self.to {
            Some(to) => write!(f, " to {to}"),
            None => Ok(()),
        }
    }
}

/// The new version's object and how it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVersion {
    /// The file, by its canonical path.
    pub object: PathBuf,
    pub build_id: BuildId,
    pub way: Way,
    /// What converts what the new version wants to find in another form.
    pub hooks: Option<Hooks>,
}

/// Hooks, and the objects of the program that they convert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// The file, by its canonical path.
    pub path: PathBuf,
    pub file: HookFile,
    pub transforms: Vec<Transform>,
}

/// A package in which nothing wrong was found.
#[derive(Debug)]
pub struct Package {
    pub info: PackageInfo,
    /// `None` where the method changes nothing.
    pub new: Option<NewVersion>,
    /// Files of rules, in their order.
    pub rules: Vec<PathBuf>,
    /// What the package asks for; the operator may ask for something else.
    pub wishes: Wishes,
    /// Where an archive was unpacked to.
    unpacked: Option<TempDir>,
}

impl Package {
    /// Opens a package. An archive is unpacked under `unpack_into`, and removed again when the value is dropped.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn open(path: &Path, trust: &Trust, unpack_into: &Path) -> Result<Package, Faults> {
        let shown = path.display().to_string();
        let nothing = |e: &io::Error| {
            let expected = "the directory or the tar archive of a package";
            Faults::from(Fault::new(Kind::File, shown.clone(), format!("it cannot be opened: {e}"), expected))
        };
        // Of what lies where the user may not go, nothing is told: not that it is there, not what is in it.
        let origin = match fs::canonicalize(path) {
            Ok(origin) => origin,
            Err(e) => {
                stop_at(files::check_above_missing(path, trust))?;
                return Err(nothing(&e));
            }
        };
        stop_at(files::check_above(&origin, trust))?;
        let meta = fs::metadata(&origin).map_err(|e| nothing(&e))?;
        let (unpacked, root) = if meta.is_dir() {
            (None, origin.clone())
        } else if meta.is_file() {
            stop_at(files::check_file(&origin, trust))?;
            let (dir, root) = archive::unpack(&origin, unpack_into)?;
            (Some(dir), root)
        } else {
            let expected = "the directory or the tar archive of a package";
            return Err(Fault::new(Kind::File, shown, "it is neither a file nor a directory", expected).into());
        };
        // What others could have written, or what the user may not see, is not read and quoted.
        stop_at(files::check_tree(&root, trust))?;
        let mut package = Package::read(&root, origin)?;
        package.unpacked = unpacked;
        Ok(package)
    }

    /// Reads the manifest of a package and compares it with the files.
    fn read(root: &Path, origin: PathBuf) -> Result<Package, Faults> {
        let text = match read_text(&root.join(manifest::FILE)) {
            Ok(text) => text,
            Err(e) => {
                let fault = Fault::new(Kind::File, manifest::FILE, e, "the description of the package, in TOML");
                return Err(fault.hint(format!("it lies directly in {}", root.display())).into());
            }
        };
        let manifest = manifest::read(&text).map_err(Faults)?;
        let mut faults = vec![];
        let mut rules = vec![];
        for rule in &manifest.rules {
            let found = files::find(root, &rule.value);
            let found = found.and_then(|path| match read_text(&path) {
                Ok(text) => {
                    faults.extend(rule_faults(&rule.value, &text));
                    Ok(path)
                }
                Err(e) => Err((format!("`{}`: {e}", rule.value), "a text file")),
            });
            match found {
                Ok(path) => rules.push(path),
                Err((what, expected)) => faults.push(Manifest::fault(Kind::File, &rule.place, what, expected)),
            }
        }
        let mut new = None;
        if let Some(change) = &manifest.change {
            match files::find(root, &change.object.value) {
                Ok(object) => {
                    faults.extend(object_file::check(&object, &manifest, change));
                    let way = match &change.way {
                        Way::InPlace { entry } => Way::InPlace { entry: entry.value.clone() },
                        Way::Binary => Way::Binary,
                    };
                    let hooks = change.hooks.as_ref().and_then(|hooks| match read_hooks(root, hooks) {
                        Ok(hooks) => Some(hooks),
                        Err(found) => {
                            faults.extend(found.0);
                            None
                        }
                    });
                    new = Some(NewVersion { object, build_id: change.to.value.clone(), way, hooks });
                }
                Err((what, expected)) => {
                    faults.push(Manifest::fault(Kind::File, &change.object.place, what, expected));
                }
            }
        }
        stop_at(faults)?;
        let info = PackageInfo {
            method: manifest.method(),
            name: manifest.name,
            path: origin,
            description: manifest.description,
            from: manifest.from.into_iter().map(|from| from.value).collect(),
            to: new.as_ref().map(|new| new.build_id.clone()),
        };
        Ok(Package { info, new, rules, wishes: manifest.wishes, unpacked: None })
    }

    /// Returns whether the package is for what a process has mapped: it names one of these build-ids, or none at all.
    #[must_use]
    pub fn updates<'a>(&self, mapped: impl IntoIterator<Item = &'a str>) -> bool {
        let from = &self.info.from;
        from.is_empty() || mapped.into_iter().any(|id| from.iter().any(|from| from.as_str() == id))
    }

    /// Keeps what an archive was unpacked to: a process has it mapped.
    pub fn keep_files(&mut self) {
        if let Some(unpacked) = &mut self.unpacked {
            unpacked.disable_cleanup(true);
        }
    }
}

/// Sees that a file may be loaded into a program: that it and the directories above it are in the hands of those who are
/// trusted. Returns its canonical path.
///
/// # Errors
///
/// What is wrong with it, or with a directory.
pub fn check_file(path: &Path, trust: &Trust) -> Result<PathBuf, Faults> {
    let shown = path.display().to_string();
    let origin = fs::canonicalize(path)
        .map_err(|e| Faults::from(Fault::new(Kind::File, shown, format!("it cannot be opened: {e}"), "an ELF file")))?;
    stop_at(files::check_above(&origin, trust))?;
    stop_at(files::check_file(&origin, trust))?;
    Ok(origin)
}

/// Reads the hooks that a manifest names.
fn read_hooks(root: &Path, hooks: &hooks::Hooks) -> Result<Hooks, Faults> {
    let fault =
        |what: String, expected: &str| Faults::from(Manifest::fault(Kind::File, &hooks.file.place, what, expected));
    let name = &hooks.file.value;
    let path = files::find(root, name).map_err(|(what, expected)| fault(what, expected))?;
    let bytes =
        fs::read(&path).map_err(|e| fault(format!("`{name}` cannot be read: {e}"), "a file that can be read"))?;
    let file = HookFile::read(&bytes)
        .map_err(|why| fault(format!("`{name}`: {why}"), "a shared object with hooks (`cc -shared -fPIC`)"))?;
    Ok(Hooks { path, file, transforms: hooks.transforms.clone() })
}

/// Returns the errors in a file of rules; what is only suspicious is `rules check`'s to say.
fn rule_faults(file: &str, text: &str) -> Vec<Fault> {
    let fault = |found: Diagnostic| {
        let expected = found.label.strip_prefix("expected ").unwrap_or(&found.label).to_owned();
        let fault = Fault::new(Kind::File, file, found.message, expected).at(Place::of(text, found.span));
        match found.hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    };
    let found = rules::check(text).diagnostics;
    found.into_iter().filter(|found| found.severity == Severity::Error).map(fault).collect()
}

fn stop_at(faults: Vec<Fault>) -> Result<(), Faults> {
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

/// Reads a text file that is not unreasonably long.
fn read_text(path: &Path) -> Result<String, String> {
    let length = fs::metadata(path).map_err(|e| format!("it cannot be read: {e}"))?.len();
    if length > MOST_TEXT {
        return Err(format!("it is {length} bytes long, more than {MOST_TEXT}"));
    }
    let bytes = fs::read(path).map_err(|e| format!("it cannot be read: {e}"))?;
    String::from_utf8(bytes)
        .map_err(|e| format!("it is no text in UTF-8, from byte {} on", e.utf8_error().valid_up_to()))
}
