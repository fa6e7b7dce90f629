//! Two versions of a package, from Debian's archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// The oldest and the newest version of a package that the archive offers, unpacked.
#[derive(Debug)]
pub struct Pair {
    pub old: PathBuf,
    pub new: PathBuf,
    pub old_version: String,
    pub new_version: String,
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the versions of a package that the archive offers, the newest first.
pub fn versions(package: &str) -> Result<Vec<String>> {
    let text = output(Command::new("apt-cache").args(["madison", package]))?;
    let mut versions: Vec<String> = vec![];
    for version in text.lines().filter(|line| line.contains("Packages")).filter_map(|line| line.split('|').nth(1)) {
        let version = version.trim().to_owned();
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    Ok(versions)
}

/// Fetches and unpacks a version of a package.
pub fn fetch(package: &str, version: &str, into: &Path) -> Result<PathBuf> {
    let root = into.join(format!("{package}-{}", version.replace([':', '~', '+'], "-")));
    let scratch = TempDir::new_in(into)?;
    output(
        Command::new("apt-get")
            .args(["-qq", "-o", "APT::Sandbox::User=root", "download", &format!("{package}={version}")])
            .current_dir(scratch.path()),
    )?;
    let mut files = fs::read_dir(scratch.path())?.flatten().map(|entry| entry.path());
    let Some(file) = files.find(|path| path.extension().is_some_and(|end| end == "deb")) else {
        bail!("apt-get fetched no package {package}={version}");
    };
    output(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&root))?;
    Ok(root)
}

impl Pair {
    /// Fetches the oldest and the newest version; `None` where the archive offers one alone.
    pub fn fetch(package: &str, into: &Path) -> Result<Option<Pair>> {
        let versions = versions(package)?;
        let (Some(newest), Some(oldest)) = (versions.first(), versions.last()) else {
            bail!("the archive has no package {package}; does `apt-get update` work?");
        };
        if newest == oldest {
            return Ok(None);
        }
        Ok(Some(Pair {
            old: fetch(package, oldest, into)?,
            new: fetch(package, newest, into)?,
            old_version: oldest.clone(),
            new_version: newest.clone(),
        }))
    }
}
