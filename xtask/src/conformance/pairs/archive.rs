//! Debian 12's archive, by a configuration of apt that is not the system's.
//!
//! What is downloaded stays below `target/conformance/pairs`; nothing is installed. Only `conformance wrong` runs some of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use harness::debian::listed;

use crate::sh;

const MIRRORS: [&str; 3] = [
    "http://deb.debian.org/debian bookworm main",
    "http://deb.debian.org/debian bookworm-updates main",
    "http://deb.debian.org/debian-security bookworm-security main",
];

/// What is to be had from the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conformance) enum Offer {
    Packages,
    /// What they are built with, too.
    Sources,
}

/// Debian's archive, as far as it was asked for.
pub(in crate::conformance) struct Archive {
    dir: PathBuf,
    /// Where apt's own files are. Each offer has some of its own, so that two commands do not disturb each other.
    apt: PathBuf,
}

impl Archive {
    /// Fetches the lists of what is offered.
    pub(in crate::conformance) fn open(offer: Offer) -> Result<Archive> {
        let dir = sh::root().join("target/conformance/pairs");
        let (apt, kinds): (_, &[&str]) = match offer {
            Offer::Packages => ("apt", &["deb"]),
            Offer::Sources => ("apt-sources", &["deb", "deb-src"]),
        };
        let archive = Archive { apt: dir.join(apt), dir };
        fs::create_dir_all(archive.dir.join("packages"))?;
        for dir in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(archive.apt.join(dir))?;
        }
        let lines = MIRRORS.iter().flat_map(|mirror| kinds.iter().map(move |kind| format!("{kind} {mirror}\n")));
        fs::write(archive.apt.join("sources.list"), lines.collect::<String>())?;
        sh::run(archive.apt("apt-get").args(["-qq", "update"]))?;
        Ok(archive)
    }

    /// Returns a command of apt's with our configuration.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let option = |name: &str, path: &str| format!("{name}={}", self.apt.join(path).display());
        let paths = [("Dir::State::lists", "lists"), ("Dir::Cache", "cache"), ("Dir::Etc::sourcelist", "sources.list")];
        for (name, path) in paths {
            command.arg("-o").arg(option(name, path));
        }
        // apt's own user may not write here, and then it says so.
        command.args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=root"]);
        command.stdin(Stdio::null());
        command
    }

    /// Returns the versions of a package that can be had, the newest first.
    pub(in crate::conformance) fn versions(&self, package: &str) -> Result<Vec<String>> {
        Ok(listed(&sh::output(self.apt("apt-cache").args(["madison", package]))?))
    }

    /// Returns a package as a file; fetched once.
    pub(in crate::conformance) fn package(&self, package: &str, version: &str) -> Result<PathBuf> {
        let dir = self.dir.join("packages");
        let start = format!("{package}_{}_", version.replace(':', "%3a"));
        let find = || -> Result<Option<PathBuf>> {
            let files = fs::read_dir(&dir)?.filter_map(|entry| Some(entry.ok()?.path()));
            Ok(files.into_iter().find(|path| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&start))
            }))
        };
        if let Some(file) = find()? {
            return Ok(file);
        }
        let mut fetch = self.apt("apt-get");
        sh::run(fetch.args(["-qq", "download"]).arg(format!("{package}={version}")).current_dir(&dir))?;
        find()?.with_context(|| format!("apt-get brought no file for {package}={version}"))
    }

    /// Returns where all of it lies.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Installs what a source package is built with.
    pub(super) fn install_for(&self, source: &str, version: &str) -> Result<()> {
        let mut install = self.apt("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "--no-install-recommends", "-y", "build-dep"]);
        sh::run(install.arg(format!("{source}={version}")).stdout(Stdio::null()))
    }

    /// Returns the description of a source package, which lies beside its files; fetched once.
    pub(super) fn source(&self, source: &str, version: &str) -> Result<PathBuf> {
        let dir = self.dir.join("sources").join(format!("{source}_{}", version.replace([':', '~'], "-")));
        let find = || -> Result<Option<PathBuf>> {
            let files = fs::read_dir(&dir)?.filter_map(|entry| Some(entry.ok()?.path()));
            Ok(files.into_iter().find(|path| path.extension().is_some_and(|end| end == "dsc")))
        };
        fs::create_dir_all(&dir)?;
        if dir.join("ready").is_file()
            && let Some(file) = find()?
        {
            return Ok(file);
        }
        let mut fetch = self.apt("apt-get");
        fetch.args(["-qq", "source", "--download-only", &format!("{source}={version}")]);
        sh::run(fetch.current_dir(&dir))?;
        fs::write(dir.join("ready"), "")?;
        find()?.context("apt-get source brought no description of a package")
    }

    /// Returns the versions of a source package that can be had, the newest first.
    pub(super) fn source_versions(&self, source: &str) -> Result<Vec<String>> {
        let text = sh::output(self.apt("apt-cache").args(["showsrc", "--only-source", source]))?;
        let mut found: Vec<String> =
            text.lines().filter_map(|line| line.strip_prefix("Version: ")).map(str::to_owned).collect();
        // There are few.
        for index in 1..found.len() {
            let mut at = index;
            while at > 0 && is_newer(&found[at], &found[at - 1])? {
                found.swap(at, at - 1);
                at -= 1;
            }
        }
        found.dedup();
        Ok(found)
    }
}

/// Unpacks a source package and applies its patches; `prepare` may change their list before.
pub(super) fn unpack(described: &Path, root: &Path, prepare: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut unpack = Command::new("dpkg-source");
    unpack.args(["--no-check", "--skip-patches", "-x"]).arg(described).arg(root).stdout(Stdio::null());
    sh::run(&mut unpack)?;
    prepare(root)?;
    // Packages of other formats have no patches that dpkg-source applies.
    let format = fs::read_to_string(root.join("debian/source/format")).unwrap_or_default();
    if format.contains("quilt") {
        sh::run(Command::new("dpkg-source").arg("--before-build").arg(root).stdout(Stdio::null()))?;
    }
    Ok(())
}

fn is_newer(one: &str, other: &str) -> Result<bool> {
    let mut compare = Command::new("dpkg");
    compare.args(["--compare-versions", one, "gt", other]);
    Ok(compare.status().context("cannot run dpkg")?.success())
}

/// Reads one file of a package. `pattern` must fit exactly one.
pub(in crate::conformance) fn read_file(package: &Path, pattern: &str) -> Result<Vec<u8>> {
    let mut files = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run dpkg-deb")?;
    let stream = files.stdout.take().context("dpkg-deb gave nothing")?;
    let read = Command::new("tar")
        .args(["--extract", "--to-stdout", "--wildcards"])
        .arg(format!("./{pattern}"))
        .stdin(stream)
        .stderr(Stdio::null())
        .output()
        .context("cannot run tar")?;
    let listed = files.wait()?;
    if !read.status.success() || !listed.success() || read.stdout.is_empty() {
        bail!("{} has no file {pattern}", package.display());
    }
    ensure!(read.stdout.starts_with(b"\x7fELF"), "{pattern} of {} is no ELF file", package.display());
    Ok(read.stdout)
}
