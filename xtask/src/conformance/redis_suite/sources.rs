//! Redis's tests: from Debian's source package, of the version that is installed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use harness::process;

use crate::sh;

/// Debian's archive of sources, for a private list of apt's.
const SOURCES: &str = "deb-src http://deb.debian.org/debian bookworm main\n\
                       deb-src http://deb.debian.org/debian-security bookworm-security main\n";
/// The folder of programs that the suite finds before those of the system.
pub(super) const INSTEAD: &str = "instead";
/// Programs that the suite expects in its `src`.
const PROGRAMS: [&str; 5] = ["redis-server", "redis-cli", "redis-benchmark", "redis-check-aof", "redis-check-rdb"];

/// What the tests look for children with, instead of the program of this name.
const PGREP: &str = include_str!("pgrep");

/// Returns the folder of the suite as it was published; fetched once for each version.
pub(super) fn fetch() -> Result<PathBuf> {
    let shown = ["--show", "--showformat=${Version}", "redis-server"];
    let version = sh::output(Command::new("dpkg-query").args(shown))?;
    let dir = sh::root().join("target/conformance").join(format!("redis-{}", version.trim().replace([':', '~'], "-")));
    let suite = dir.join("source");
    if dir.join("ready").is_file() {
        return Ok(suite);
    }
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(dir.join("lists/partial"))?;
    fs::write(dir.join("sources.list"), SOURCES)?;
    let apt = |args: &[&str]| {
        let option = |name: &str, path: &str| format!("{name}={}", dir.join(path).display());
        let lists = option("Dir::State::lists", "lists");
        let sources = option("Dir::Etc::sourcelist", "sources.list");
        let mut command = Command::new("apt-get");
        command.current_dir(&dir).args(["-q", "-o", &lists, "-o", &sources, "-o", "Dir::Etc::sourceparts=-"]);
        sh::run(command.args(args))
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", &format!("redis={}", version.trim())])?;
    let described = fs::read_dir(&dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    let described = described.into_iter().find(|path| path.extension().is_some_and(|end| end == "dsc"));
    let described = described.context("apt-get source brought no description of a package")?;
    sh::run(Command::new("dpkg-source").args(["--no-check", "-x"]).arg(described).arg(&suite))?;
    fs::write(dir.join("ready"), "")?;
    Ok(suite)
}

/// Makes a copy of the suite for one runner: two that run at the same time would remove each other's files.
pub(super) fn copy(source: &Path, runner: usize) -> Result<PathBuf> {
    let suite = source.with_file_name(format!("runner-{runner}"));
    if suite.exists() {
        fs::remove_dir_all(&suite)?;
    }
    fs::create_dir_all(suite.join("src"))?;
    for part in ["tests", "redis.conf"] {
        sh::run(Command::new("cp").arg("-a").arg(source.join(part)).arg(&suite))?;
    }
    for program in PROGRAMS {
        symlink(process::find_program(program)?, suite.join("src").join(program))?;
    }
    let instead = suite.join(INSTEAD);
    fs::create_dir(&instead)?;
    fs::write(instead.join("pgrep"), PGREP)?;
    fs::set_permissions(instead.join("pgrep"), fs::Permissions::from_mode(0o755))?;
    Ok(suite)
}

/// Returns the units that the suite has, in its order.
pub(super) fn units(source: &Path) -> Result<Vec<String>> {
    let helper = fs::read_to_string(source.join("tests/test_helper.tcl"))?;
    let list = helper.split_once("set ::all_tests {").and_then(|(_, rest)| rest.split_once('}'));
    Ok(list.context("the suite has no list of units")?.0.split_whitespace().map(str::to_owned).collect())
}
