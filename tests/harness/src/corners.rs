//! The corners: several hundred small programs in `tests/guests/corners`, one for each odd way to use a call; `corner.h` there
//! says what they are. They are compiled into one program, which runs one of them by its name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::guests;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corner {
    pub name: String,
    /// How it ends: its exit code, or 128 and the number of the signal.
    pub ends: i32,
}

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(compile);

/// Returns the program, compiled when it is first wanted.
#[must_use]
pub fn program() -> &'static Path {
    &PROGRAM
}

fn compile() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests/corners");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut sources: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ext| ext == "c")).collect();
    sources.sort();
    let out = guests::out_folder().unwrap();
    let scratch = tempfile::Builder::new().prefix("corners").tempfile_in(&out).unwrap().into_temp_path();
    let output = Command::new("gcc")
        .args(["-std=gnu17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .arg(&scratch)
        .args(&sources)
        .output()
        .expect("gcc is installed; `cargo xtask setup` installs what the tests need");
    assert!(output.status.success(), "compiling the corners:\n{}", String::from_utf8_lossy(&output.stderr));
    let program = out.join("corners");
    scratch.persist(&program).unwrap();
    program
}

/// Returns all corners.
#[must_use]
pub fn list() -> Vec<Corner> {
    let output = Command::new(program()).arg("--list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let corner = |line: &str| {
        let (name, ends) = line.split_once(' ').unwrap();
        Corner { name: name.to_owned(), ends: ends.parse().unwrap() }
    };
    text.lines().map(corner).collect()
}
