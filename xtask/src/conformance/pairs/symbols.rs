//! `--symbols`: both versions of a package built from its sources with symbols, stripped, compared, and what was
//! inferred checked against the symbols.
//!
//! Where the archive has the sources of one version only, the older one is built from the same sources without the
//! newest of Debian's patches.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use mvedsua_binary::debug::Names;
use mvedsua_binary::image::Image;
use mvedsua_binary::verdict::Verdict;
use mvedsua_binary::{compare, patch, symbols};
use serde::Serialize;
use tempfile::TempDir;

use super::archive::{self, Archive, Offer};
use crate::conformance::table::{self, Lean};
use crate::sh;

const USUAL: [&str; 4] = ["redis", "haproxy", "unbound", "nginx"];
/// How many of Debian's patches the older version lacks, where its sources are gone.
const LEFT_OUT: usize = 3;
/// Where the list of patches is.
const SERIES: &str = "debian/patches/series";

/// What came of one file.
#[derive(Debug, Serialize)]
struct Row {
    source: String,
    file: String,
    versions: (String, String),
    verdict: &'static str,
    objects: usize,
    functions: usize,
    wrong: Vec<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    conformance: &'static str,
    rows: &'a [Row],
}

/// Builds, compares and checks; fails where something inferred is not true.
pub(super) fn run(packages: &[String], json: bool) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "installing what packages are built with needs root");
    let archive = Archive::open(Offer::Sources)?;
    let usual = || USUAL.map(str::to_owned).to_vec();
    let packages = if packages.is_empty() { usual() } else { packages.to_vec() };
    let (mut rows, mut failed) = (vec![], vec![]);
    for source in &packages {
        match try_one(&archive, source) {
            Ok(mut found) => rows.append(&mut found),
            Err(error) => {
                println!("{source}: {error:#}");
                failed.push(source.as_str());
            }
        }
    }
    print!("{}", text(&rows));
    if json {
        println!("{}", serde_json::to_string(&Report { conformance: "symbols", rows: &rows })?);
    }
    ensure!(failed.is_empty(), "not checked: {}", failed.join(", "));
    let wrong: usize = rows.iter().map(|row| row.wrong.len()).sum();
    ensure!(wrong == 0, "{wrong} bindings or matches are wrong");
    let silent = packages.iter().find(|source| rows.iter().all(|row| &row.source != *source || row.objects == 0));
    ensure!(silent.is_none(), "nothing of {} could be checked", silent.map_or("", String::as_str));
    Ok(())
}

/// One version of a source package.
struct Version {
    /// As the archive calls it.
    named: String,
    /// How many of its patches are left out.
    without: usize,
}

impl Version {
    fn shown(&self) -> String {
        match self.without {
            0 => self.named.clone(),
            count => format!("{} without {count} patches", self.named),
        }
    }
}

fn try_one(archive: &Archive, source: &str) -> Result<Vec<Row>> {
    // The lists may name what the archive does not have any more.
    let mut found = archive.source_versions(source)?;
    found.retain(|version| archive.source(source, version).is_ok());
    let Some(newest) = found.first() else { bail!("the archive has no sources of {source}") };
    let new = Version { named: newest.clone(), without: 0 };
    let old = match found.get(1) {
        Some(older) => Version { named: older.clone(), without: 0 },
        None => Version { named: newest.clone(), without: LEFT_OUT },
    };
    let (before, after) = (built(archive, source, &old)?, built(archive, source, &new)?);
    let both: Vec<PathBuf> = elf_files(&before)?.intersection(&elf_files(&after)?).cloned().collect();
    let (mut rows, mut seen) = (vec![], BTreeSet::new());
    for file in both {
        let one = |root: &Path| -> Result<(Vec<u8>, Vec<u8>)> {
            let full = root.join(&file);
            Ok((fs::read(&full)?, stripped(&full)?))
        };
        let (old_file, new_file) = (one(&before)?, one(&after)?);
        // Some lie in several packages, or have several names.
        if !seen.insert((old_file.0.clone(), new_file.0.clone())) {
            continue;
        }
        // What cannot be compared cannot be wrong.
        let Ok(comparison) = compare(&old_file.1, &new_file.1) else { continue };
        let checked = {
            let names = |file: &[u8]| Image::read(file).map(|image| Names::of_image(&image));
            symbols::check(&comparison, &names(&old_file.0)?, &names(&new_file.0)?)
        };
        let mut wrong = checked.wrong;
        let faults = comparison.patch.iter().flat_map(|built| patch::verify(&comparison, built).faults);
        wrong.extend(faults.map(|fault| format!("the patch, at {:#x}: {}", fault.at, fault.why)));
        rows.push(Row {
            source: source.to_owned(),
            file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            versions: (old.shown(), new.shown()),
            verdict: match comparison.verdict {
                Verdict::Updatable { .. } => "can be updated",
                Verdict::Refused { .. } => "refused",
            },
            objects: checked.objects,
            functions: checked.functions,
            wrong,
        });
    }
    Ok(rows)
}

/// Builds one version, unless that was done before; returns the folder of its executables and libraries.
fn built(archive: &Archive, source: &str, version: &Version) -> Result<PathBuf> {
    let name = format!("{source}_{}-{}", version.named.replace([':', '~'], "-"), version.without);
    let place = archive.dir().join("built").join(name);
    if place.join("ready").is_file() {
        return Ok(place);
    }
    println!("building {source} {} ...", version.shown());
    // The same path for both versions: it may stand in texts.
    let dir = archive.dir().join("build");
    let remove = |dir: &Path| if dir.exists() { fs::remove_dir_all(dir) } else { Ok(()) };
    remove(&dir)?;
    remove(&place)?;
    fs::create_dir_all(&dir)?;
    archive.install_for(source, &version.named)?;
    let root = dir.join("source");
    archive::unpack(&archive.source(source, &version.named)?, &root, |root| leave_out(root, version.without))?;
    let log = dir.join("log");
    let output = File::create(&log)?;
    let status = Command::new("nice")
        .args(["dpkg-buildpackage", "-B", "-us", "-uc"])
        .env("DEB_BUILD_OPTIONS", "nostrip nocheck parallel=1")
        .current_dir(&root)
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output)
        .status()
        .context("cannot run dpkg-buildpackage")?;
    if !status.success() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        bail!("building {source} failed:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
    }
    for package in fs::read_dir(root.join("debian"))?.filter_map(|entry| Some(entry.ok()?.path())) {
        let Some(name) = package.file_name().filter(|name| *name != "tmp") else { continue };
        for file in elf_files(&package)?.iter().filter(|file| !file.starts_with("usr/lib/debug")) {
            let to = place.join(name).join(file);
            fs::create_dir_all(to.parent().unwrap_or(&place))?;
            fs::copy(package.join(file), to)?;
        }
    }
    fs::create_dir_all(&place)?;
    fs::write(place.join("ready"), "")?;
    remove(&dir)?;
    Ok(place)
}

/// Takes the newest patches out of the list of those that are applied.
fn leave_out(root: &Path, count: usize) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let file = root.join(SERIES);
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    fs::write(&file, without_last(&text, count)).with_context(|| format!("writing {}", file.display()))
}

fn without_last(series: &str, count: usize) -> String {
    let is_patch = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    let keep = series.lines().filter(is_patch).count().saturating_sub(count);
    series.lines().filter(is_patch).take(keep).map(|line| format!("{line}\n")).collect()
}

fn stripped(full: &Path) -> Result<Vec<u8>> {
    let place = TempDir::new()?;
    let file = place.path().join("stripped");
    sh::run(Command::new("strip").arg("-o").arg(&file).arg(full))?;
    Ok(fs::read(file)?)
}

/// Returns the executables and shared libraries below a folder, by their paths in it. Links are not followed.
fn elf_files(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let (mut found, mut waiting) = (BTreeSet::new(), vec![root.to_path_buf()]);
    while let Some(dir) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() && is_elf(&entry.path()) {
                found.insert(entry.path().strip_prefix(root)?.to_path_buf());
            }
        }
    }
    Ok(found)
}

fn is_elf(path: &Path) -> bool {
    let mut start = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"\x7fELF"
}

fn text(rows: &[Row]) -> String {
    let heads = [
        ("source", Lean::Left),
        ("file", Lean::Left),
        ("verdict", Lean::Left),
        ("bindings checked", Lean::Right),
        ("matches checked", Lean::Right),
        ("wrong", Lean::Right),
    ];
    let cells = |row: &Row| {
        let counts = [row.objects, row.functions, row.wrong.len()].map(|count| count.to_string());
        [row.source.clone(), row.file.clone(), row.verdict.to_owned()].into_iter().chain(counts).collect()
    };
    let mut text = table::render(&heads, &rows.iter().map(cells).collect::<Vec<_>>());
    let versions: BTreeSet<_> = rows.iter().map(|row| (&row.source, &row.versions)).collect();
    for (source, (old, new)) in versions {
        text.push_str(&table::wrap(&format!("{source}: {old} → {new}"), 100, "  "));
    }
    for row in rows {
        for wrong in &row.wrong {
            text.push_str(&table::wrap(&format!("{}: {wrong}", row.file), 100, "! "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_patches_are_left_out_and_comments_are_none() {
        assert_eq!(without_last("a\n# b\nc\n\nd\n", 1), "a\nc\n");
        assert_eq!(without_last("a\n", 3), "");
    }
}
