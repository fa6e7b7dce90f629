//! A package as a tar archive.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use tar::{Archive, EntryType};
use tempfile::TempDir;

use super::faults::{Fault, Faults, Kind};
use super::manifest::FILE;

/// What an archive may hold at most, bytes and entries.
const MOST_BYTES: u64 = 512 << 20;
const MOST_ENTRIES: usize = 10_000;

/// The beginnings of compressed archives, and what unpacks them.
const COMPRESSED: &[(&[u8], &str)] =
    &[(b"\x1f\x8b", "gunzip"), (b"\xfd7zXZ", "unxz"), (b"\x28\xb5\x2f\xfd", "unzstd"), (b"BZh", "bunzip2")];

/// Unpacks an archive into a new directory under `into`; it is removed when the value is dropped. Everybody may read
/// it, since the program that is updated runs as any user.
pub(super) fn unpack(path: &Path, into: &Path) -> Result<(TempDir, PathBuf), Faults> {
    let name = path.display().to_string();
    let fault = |what: String| Fault::new(Kind::File, name.clone(), what, "a tar archive with a package in it");
    // What is wrong with the archive is told without its bytes: whoever names a file need not be allowed to read it.
    let failed = |e: io::Error| {
        let why = match e.raw_os_error() {
            Some(_) => e.to_string(),
            None => "it is no tar archive, or a damaged one".to_owned(),
        };
        Faults::from(fault(format!("it cannot be unpacked: {why}")))
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut head = [0; 8];
    let length = file.read(&mut head).map_err(failed)?;
    if let Some((_, tool)) = COMPRESSED.iter().find(|(magic, _)| head[..length].starts_with(magic)) {
        return Err(fault("it is compressed".to_owned()).hint(format!("unpack it first, with `{tool}`")).into());
    }
    let dir = tempfile::Builder::new()
        .prefix("package-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(into)
        .map_err(|e| Faults::from(fault(format!("there is no room for it in {}: {e}", into.display()))))?;
    let file = File::open(path).map_err(failed)?;
    let mut archive = Archive::new(file);
    let mut bytes = 0_u64;
    for (count, entry) in archive.entries().map_err(failed)?.enumerate() {
        let mut entry = entry.map_err(failed)?;
        let inside = entry.path().map_err(failed)?.into_owned();
        let kind = entry.header().entry_type();
        bytes = bytes.saturating_add(entry.size());
        if bytes > MOST_BYTES || count >= MOST_ENTRIES {
            let what = format!("it holds more than {} MiB, or more than {MOST_ENTRIES} files", MOST_BYTES >> 20);
            return Err(fault(what).into());
        }
        if inside.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(fault(format!("`{}` leads out of the package", inside.display())).into());
        }
        let target = dir.path().join(&inside);
        match kind {
            EntryType::Directory => create_dirs(&target).map_err(failed)?,
            EntryType::Regular | EntryType::Continuous => {
                create_dirs(target.parent().unwrap_or(dir.path())).map_err(failed)?;
                // An archive that names a file twice would change what was there.
                let mut out = File::create_new(&target).map_err(failed)?;
                io::copy(&mut entry, &mut out).map_err(failed)?;
                out.set_permissions(Permissions::from_mode(0o644)).map_err(failed)?;
            }
            EntryType::XGlobalHeader => {}
            other => {
                let what = format!("`{}` is neither a file nor a directory ({other:?})", inside.display());
                return Err(fault(what).hint("put files into it instead of links").into());
            }
        }
    }
    let root = root_of(dir.path()).map_err(failed)?;
    Ok((dir, root))
}

/// Creates a directory and those above it, readable for everybody whatever the daemon's mask is.
fn create_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        create_dirs(above)?;
    }
    fs::create_dir(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))
}

/// Returns where the package is: at the top, or in the only directory there.
fn root_of(dir: &Path) -> io::Result<PathBuf> {
    if !dir.join(FILE).exists() {
        let entries: Vec<_> = fs::read_dir(dir)?.collect::<io::Result<_>>()?;
        if let [only] = entries.as_slice()
            && only.path().is_dir()
        {
            return fs::canonicalize(only.path());
        }
    }
    fs::canonicalize(dir)
}
