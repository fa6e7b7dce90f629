//! Two versions of a package, from Debian's archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::server::{Server, start_program};

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
    Ok(listed(&output(Command::new("apt-cache").args(["madison", package]))?))
}

/// Reads what `apt-cache madison` says of packages: a line for each version and each place that has it.
#[must_use]
pub fn listed(text: &str) -> Vec<String> {
    let mut found: Vec<String> = vec![];
    for line in text.lines().filter(|line| line.ends_with("Packages")) {
        if let Some(version) = line.split('|').nth(1).map(str::trim)
            && found.iter().all(|known| known != version)
        {
            found.push(version.to_owned());
        }
    }
    found
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

/// Starts a program on a free port, with libraries from another folder than the system's where one is given.
pub fn start(
    program: &Path,
    libraries: Option<&Path>,
    args: impl Fn(u16, &Path) -> Result<Vec<String>>,
) -> Result<Server> {
    let name = program.file_name().and_then(|name| name.to_str()).context("it has a name")?;
    let Some(libraries) = libraries else { return start_program(name, program, args) };
    start_program(name, Path::new("/usr/bin/env"), |port, dir| {
        let mut words = vec![format!("LD_LIBRARY_PATH={}", libraries.display()), program.display().to_string()];
        words.extend(args(port, dir)?);
        Ok(words)
    })
}

impl Pair {
    /// Fetches the oldest and the newest version; `None`, and a line that says so, where the archive offers one alone.
    pub fn fetch(package: &str, into: &Path) -> Result<Option<Pair>> {
        let versions = versions(package)?;
        let (Some(newest), Some(oldest)) = (versions.first(), versions.last()) else {
            bail!("the archive has no package {package}; does `apt-get update` work?");
        };
        if newest == oldest {
            crate::left_out(package, &format!("the archive offers {newest} alone"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_taken_once_and_sources_are_not() {
        let text = " sshd | 1:2-3 | http://a b/main amd64 Packages\n sshd | 1:2-3 | http://c d/main amd64 Packages\n \
                    sshd | 1:2-1 | http://a b/main amd64 Packages\n sshd | 1:2-0 | http://a b/main Sources\n";
        assert_eq!(listed(text), ["1:2-3", "1:2-1"]);
    }
}
