//! The two versions of a file that are compared.
//!
//! Either version is an ELF file, a Debian package, or a package and its version. Packages are unpacked with
//! `dpkg-deb` and `tar` into a directory that is removed at the end; nothing of them is run, and their maintainer
//! scripts are not looked at.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use mvedsua_binary::{CompareError, Comparison, Given};
use tempfile::TempDir;

use super::twin::Source;
use crate::control::Code;
use crate::control::protocol::Problem;

/// Files that are larger are not read.
const LARGEST: u64 = 1 << 30;

/// One version of the file.
pub(super) struct Chosen {
    /// What was named on the command line: the file, or the package that it is in.
    pub(super) given: PathBuf,
    pub(super) file_name: OsString,
    pub(super) bytes: Vec<u8>,
    /// What the package that it is in was built from.
    source: Option<Source>,
}

/// Reads the two versions of a file.
///
/// # Errors
///
/// A version cannot be had, or it is not clear which file is meant.
pub(super) fn read_both(old: &OsStr, new: &OsStr, file: Option<&Path>) -> Result<(Chosen, Chosen), Problem> {
    let versions = (Version::open(old)?, Version::open(new)?);
    let (old_file, new_file) = choose(&versions.0, &versions.1, file)?;
    let source = |version: &Version| match version {
        Version::Package(package) => package.source.clone(),
        Version::File(_) => None,
    };
    Ok((Chosen::read(old, &old_file, source(&versions.0))?, Chosen::read(new, &new_file, source(&versions.1))?))
}

/// Compares two versions of a file.
///
/// # Errors
///
/// One of them is not what can be compared.
pub(super) fn compare<'d>(old: &'d Chosen, new: &'d Chosen) -> Result<Comparison<'d>, Problem> {
    compare_with(old, new, Given::default())
}

/// Compares two versions of a file of which more is known.
///
/// # Errors
///
/// One of them is not what can be compared.
pub(super) fn compare_with<'d>(old: &'d Chosen, new: &'d Chosen, given: Given<'_>) -> Result<Comparison<'d>, Problem> {
    mvedsua_binary::compare_with(&old.bytes, &new.bytes, given).map_err(|e| {
        let tried = format!("comparing {} with {}", old.given.display(), new.given.display());
        let (CompareError::Old(error) | CompareError::New(error)) = &e;
        let code = if error.is_lack() { Code::Refused } else { Code::Usage };
        Problem::new(code, tried, e.to_string(), "name two versions of an executable or a shared library")
    })
}

impl Chosen {
    fn read(given: &OsStr, path: &Path, source: Option<Source>) -> Result<Chosen, Problem> {
        let file_name = path.file_name().unwrap_or_default().to_owned();
        Ok(Chosen { given: given.into(), file_name, bytes: read(path)?, source })
    }

    pub(super) fn build_id(&self) -> Option<String> {
        mvedsua_binary::image::Image::read(&self.bytes).ok()?.build_id
    }

    /// Returns the sources from which it was built.
    ///
    /// # Errors
    ///
    /// It is in no package, or the package does not say.
    pub(super) fn source(&self) -> Result<Source, Problem> {
        self.source.clone().or_else(|| Source::of_file(&self.given)).ok_or_else(|| {
            let tried = format!("looking for the sources of {}", self.given.display());
            usage(
                tried,
                "it is no file of an installed package",
                "name the version as a Debian package, or as `package=version`",
            )
        })
    }
}

/// What was named on the command line.
enum Version {
    /// An ELF file.
    File(PathBuf),
    Package(Unpacked),
}

/// The files of a package, in a directory of their own.
struct Unpacked {
    dir: TempDir,
    source: Option<Source>,
}

impl Unpacked {
    fn of(package: &Path) -> Result<Version, Problem> {
        let dir = unpack(package)?;
        Ok(Version::Package(Unpacked { dir, source: Source::of_package(package) }))
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Version {
    fn open(name: &OsStr) -> Result<Version, Problem> {
        let path = Path::new(name);
        if path.exists() {
            let tried = format!("reading {}", path.display());
            let mut start = [0; 8];
            let read = File::open(path)
                .and_then(|mut file| file.read(&mut start))
                .map_err(|e| usage(tried.clone(), e.to_string(), "name a file that you may read"))?;
            return match start.get(..read) {
                Some([0x7f, b'E', b'L', b'F', ..]) => Ok(Version::File(path.to_path_buf())),
                Some(b"!<arch>\n") => Unpacked::of(path),
                _ => Err(usage(tried, "it is no ELF file and no Debian package", NAMES)),
            };
        }
        match name.to_str().and_then(|name| name.split_once('=')) {
            Some((package, version)) if is_package(package) && is_version(version) => fetch(package, version),
            _ => Err(usage(format!("looking for {}", path.display()), "there is no such file", NAMES)),
        }
    }
}

const NAMES: &str = "name an ELF file, a Debian package, or `package=version` as `apt-cache madison PACKAGE` lists it";

fn usage(tried: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem::new(Code::Usage, tried, why, remedy)
}

/// Says whether this may be the name of a package, which is given to apt-get: nothing of it can be taken for an option.
fn is_package(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | ':'))
}

fn is_version(version: &str) -> bool {
    version.starts_with(|c: char| c.is_ascii_digit())
        && version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | ':' | '~'))
}

fn scratch() -> Result<TempDir, Problem> {
    tempfile::tempdir()
        .map_err(|e| usage("making a directory for a package", e.to_string(), "see that TMPDIR has room"))
}

fn fetch(package: &str, version: &str) -> Result<Version, Problem> {
    let place = scratch()?;
    let tried = format!("fetching {package}={version}");
    // apt-get gives its work to a user of its own if it can; that user may not write here, and then apt-get says so.
    let output = Command::new("apt-get")
        .args(["--quiet", "-o", "APT::Sandbox::User=root", "download"])
        .arg(format!("{package}={version}"))
        .current_dir(place.path())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| usage(tried.clone(), format!("apt-get could not be run: {e}"), "name files instead"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let why = text.lines().find(|line| line.starts_with("E:")).unwrap_or("apt-get failed").to_owned();
        return Err(usage(tried, why, format!("`apt-cache madison {package}` lists the versions that can be had")));
    }
    let found = fs::read_dir(place.path()).into_iter().flatten().flatten().map(|entry| entry.path());
    match found.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "deb")) {
        Some(file) => Unpacked::of(&file),
        None => Err(usage(tried, "apt-get fetched no package", "name files instead")),
    }
}

/// Unpacks the files of a package.
pub(super) fn unpack(package: &Path) -> Result<TempDir, Problem> {
    let place = scratch()?;
    let tried = format!("unpacking {}", package.display());
    let failed = |why: String| usage(tried.clone(), why, "see whether `dpkg-deb --contents` can read it");
    let mut files = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("dpkg-deb could not be run: {e}")))?;
    let unpacked = match files.stdout.take() {
        Some(stream) => Command::new("tar")
            .args(["--extract", "--no-same-owner", "--no-same-permissions", "--directory"])
            .arg(place.path())
            .stdin(stream)
            .status(),
        None => return Err(failed("dpkg-deb gave nothing".to_owned())),
    };
    let listed = files.wait();
    match (unpacked, listed) {
        (Ok(unpacked), Ok(listed)) if unpacked.success() && listed.success() => Ok(place),
        (Err(e), _) | (_, Err(e)) => Err(failed(e.to_string())),
        _ => Err(failed("dpkg-deb or tar failed".to_owned())),
    }
}

/// Returns the two files to compare.
fn choose(old: &Version, new: &Version, wanted: Option<&Path>) -> Result<(PathBuf, PathBuf), Problem> {
    let (old_root, new_root) = match (old, new) {
        (Version::File(old), Version::File(new)) => return Ok((old.clone(), new.clone())),
        (Version::Package(old), Version::Package(new)) => (old.path(), new.path()),
        (Version::File(file), Version::Package(package)) => return Ok((file.clone(), beside(file, package, wanted)?)),
        (Version::Package(package), Version::File(file)) => return Ok((beside(file, package, wanted)?, file.clone())),
    };
    let (before, after) = (elf_files(old_root), elf_files(new_root));
    let both: Vec<&PathBuf> = before.intersection(&after).collect();
    let chosen = pick(&both, wanted)?;
    Ok((old_root.join(chosen), new_root.join(chosen)))
}

/// Returns the file of a package that is meant where the other version is a file.
fn beside(file: &Path, package: &Unpacked, wanted: Option<&Path>) -> Result<PathBuf, Problem> {
    let all = elf_files(package.path());
    let same_name: Vec<&PathBuf> = all.iter().filter(|path| path.file_name() == file.file_name()).collect();
    let candidates = if wanted.is_some() || same_name.is_empty() { all.iter().collect() } else { same_name };
    Ok(package.path().join(pick(&candidates, wanted)?))
}

fn pick<'a>(candidates: &[&'a PathBuf], wanted: Option<&Path>) -> Result<&'a PathBuf, Problem> {
    let tried = "choosing the file to compare";
    let list = || {
        let mut text: Vec<String> = candidates.iter().take(12).map(|path| format!("/{}", path.display())).collect();
        if candidates.len() > 12 {
            text.push(format!("and {} more", candidates.len() - 12));
        }
        text.join(", ")
    };
    if let Some(wanted) = wanted {
        let inside: PathBuf = wanted.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        return candidates
            .iter()
            .find(|path| **path == &inside || path.file_name() == Some(inside.as_os_str()))
            .copied()
            .ok_or_else(|| {
                usage(tried, format!("not in both versions: {}", wanted.display()), format!("name one of {}", list()))
            });
    }
    match candidates {
        [only] => Ok(only),
        [] => Err(usage(
            tried,
            "no executable or library has the same path in both versions",
            "name the files themselves",
        )),
        _ => Err(usage(tried, format!("several could be meant: {}", list()), "choose one with --file PATH")),
    }
}

/// Returns the ELF files below a directory, by their paths in it. Links are not followed.
pub(super) fn elf_files(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() && is_elf(&entry.path()) {
                let path = entry.path();
                found.extend(path.strip_prefix(root).ok().map(Path::to_path_buf));
            }
        }
    }
    found
}

fn is_elf(path: &Path) -> bool {
    let mut start = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"\x7fELF"
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let tried = format!("reading {}", path.display());
    let size = fs::metadata(path).map(|meta| meta.len()).unwrap_or(0);
    if size > LARGEST {
        return Err(usage(tried, format!("it has {size} bytes"), "name a file of at most 1 GiB"));
    }
    fs::read(path).map_err(|e| usage(tried, e.to_string(), "name a file that you may read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_cannot_be_taken_for_options() {
        assert!(is_package("libssl3") && is_package("g++-12") && is_package("libc6:i386"));
        assert!(!is_package("--force") && !is_package("a b") && !is_package(""));
        assert!(is_version("5:7.0.15-1~deb12u7") && !is_version("") && !is_version("1.0 -o x"));
    }

    #[test]
    fn one_file_needs_no_choice_and_several_do() {
        let (a, b) = (PathBuf::from("usr/sbin/a"), PathBuf::from("usr/sbin/b"));
        assert_eq!(pick(&[&a], None).unwrap(), &a);
        assert_eq!(pick(&[&a, &b], None).unwrap_err().code, Code::Usage);
        assert_eq!(pick(&[&a, &b], Some(Path::new("/usr/sbin/b"))).unwrap(), &b);
        assert_eq!(pick(&[&a, &b], Some(Path::new("b"))).unwrap(), &b);
        assert_eq!(pick(&[], None).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn two_files_are_compared() {
        let own = std::env::current_exe().unwrap();
        let version = Version::open(own.as_os_str()).unwrap();
        assert!(matches!(version, Version::File(path) if path == own));
        assert_eq!(Version::open(OsStr::new("/nowhere/at=all")).err().map(|problem| problem.code), Some(Code::Usage));
    }
}
