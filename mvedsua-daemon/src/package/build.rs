//! Writes packages with `method = "binary"`.
//!
//! A package appears as a whole or not at all: it is written into a directory beside its place, read back like any
//! other, and renamed.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mvedsua_binary::transform::Transform;

use super::build_id::BuildId;
use super::faults::Faults;
use super::hooks;
use super::manifest::{FILE, LONGEST_NAME};
use super::proof::{self, Proof};
use super::{Package, PackageInfo};

/// How many digits of the new build-id are in the name that a package gets by itself.
const DIGITS: usize = 8;

/// What a package is made of.
#[derive(Debug)]
pub struct Contents<'a> {
    pub name: String,
    pub description: String,
    /// The build-id of the file that was compared with the object.
    pub from: BuildId,
    pub to: BuildId,
    /// The name of the new version's file, and what it holds.
    pub object: (String, &'a [u8]),
    /// The names of files of rules, and what they hold.
    pub rules: Vec<(String, String)>,
    /// A shared object with hooks, and what they convert.
    pub hooks: Option<(Vec<u8>, Vec<Transform>)>,
    /// What debug files of both versions prove.
    pub proof: Option<Proof>,
    /// What the comparison found, for people and for programs.
    pub report_text: String,
    pub report_json: String,
}

/// Why no package was written.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    #[error("{} cannot be written: {why}", path.display())]
    Write { path: PathBuf, why: io::Error },
    #[error("what would be written is not fit:\n{0}")]
    Unfit(#[from] Faults),
}

/// Returns the name that a package gets where nobody says another.
#[must_use]
pub fn default_name(file_name: &OsStr, to: &BuildId) -> String {
    let usual = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let file = file_name.to_string_lossy();
    let file: String = file.trim_start_matches('.').chars().map(|c| if usual(c) { c } else { '_' }).collect();
    let file: String = file.chars().take(LONGEST_NAME - DIGITS - 1).collect();
    let digits = to.as_str().get(..DIGITS).unwrap_or(to.as_str());
    if file.is_empty() { digits.to_owned() } else { format!("{file}-{digits}") }
}

impl Contents<'_> {
    /// Writes the package as a new directory.
    ///
    /// # Errors
    ///
    /// There is something of that name already, it cannot be written, or it would not be a sound package. Nothing is
    /// left behind.
    pub fn write(&self, dir: &Path) -> Result<PackageInfo, BuildError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |why: io::Error| BuildError::Write { path, why }
        };
        let dir = std::path::absolute(dir).map_err(at(dir))?;
        if fs::symlink_metadata(&dir).is_ok() {
            return Err(BuildError::Exists(dir));
        }
        let above = dir.parent().unwrap_or(&dir);
        let unfinished = tempfile::Builder::new()
            .prefix(".package-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(above)
            .map_err(at(&dir))?;
        let root = fs::canonicalize(unfinished.path()).map_err(at(&dir))?;
        let (object, bytes) = &self.object;
        let mut files: Vec<(&str, &[u8])> = vec![(object, bytes)];
        files.extend(self.rules.iter().map(|(name, text)| (name.as_str(), text.as_bytes())));
        files.extend(self.hooks.iter().map(|(bytes, _)| (hooks::FILE, bytes.as_slice())));
        let manifest = self.manifest();
        files.extend([("report.txt", self.report_text.as_bytes()), ("report.json", self.report_json.as_bytes())]);
        files.push((FILE, manifest.as_bytes()));
        for (name, bytes) in files {
            write_new(&root.join(name), bytes).map_err(at(&dir.join(name)))?;
        }
        // The mask of whoever builds it may have taken rights away.
        fs::set_permissions(&root, Permissions::from_mode(0o755)).map_err(at(&dir))?;
        let info = Package::read(&root, dir.clone())?.info;
        // Nothing is replaced by this but an empty directory that came in between.
        fs::rename(&root, &dir).map_err(at(&dir))?;
        // It has another name now.
        let _ = unfinished.keep();
        Ok(info)
    }

    fn manifest(&self) -> String {
        let rules: Vec<String> = self.rules.iter().map(|(name, _)| quoted(name)).collect();
        let lines = [
            ("name", quoted(&self.name)),
            ("description", quoted(&self.description)),
            ("method", quoted("binary")),
            ("from", quoted(self.from.as_str())),
            ("to", quoted(self.to.as_str())),
            ("object", quoted(&self.object.0)),
            ("rules", format!("[{}]", rules.join(", "))),
        ];
        let mut text: String = lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        if let Some((_, transforms)) = &self.hooks {
            text.push_str(&format!("hooks = {}\n", quoted(hooks::FILE)));
            text.push_str(&hooks::manifest(transforms));
        }
        text.extend(self.proof.as_ref().map(proof::manifest));
        text
    }
}

/// Returns a text as TOML writes it; what JSON escapes is escaped there in the same way.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Writes a new file that everybody may read.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.sync_all()
}
