//! Packages of a running program: found by name, compared with what the program has mapped, and with what the engine
//! can do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Code;
use super::dirs::Dirs;
use super::engine::Ability;
use super::process;
use super::protocol::{Ask, Problem};
use crate::package::{Faults, Method, Package, Terms, Trust};

/// Opens the package that an update asks for; there is none where the same version is rehearsed.
///
/// # Errors
///
/// Where it is not found, something is wrong with it, or it is for another version than the process runs.
pub fn open_for(pid: i32, to: &str, trust: &Trust, dirs: &Dirs) -> Result<Option<Package>, Problem> {
    if to == Ask::ITSELF {
        return Ok(None);
    }
    let path = locate(pid, to, &dirs.updates)?;
    let package = Package::open(&path, trust, &dirs.packages()).map_err(|faults| unfit(&path, &faults))?;
    // What runs of a file that was updated before is not what is mapped: the comparison of the files looks at that.
    if package.info.method != Method::Binary {
        is_for(&package, pid)?;
    }
    Ok(Some(package))
}

/// Finds a package by its path or by its name.
fn locate(pid: i32, to: &str, updates: &Path) -> Result<PathBuf, Problem> {
    let tried = format!("looking for the package `{to}`");
    if to.contains('/') {
        let path = PathBuf::from(to);
        if !path.is_absolute() {
            let remedy = "give an absolute path: the daemon has a directory of its own";
            return Err(Problem::new(Code::Usage, tried, "the path is relative", remedy));
        }
        return Ok(path);
    }
    let program = process::program_of(pid);
    let Some(program) = process::name_of(&program) else {
        let why = format!("the executable of process {pid} has no name");
        return Err(Problem::new(Code::Refused, tried, why, "give the path of the package"));
    };
    let dir = updates.join(program);
    // What is no name is not put together with a directory.
    let is_name = !to.starts_with('.') && !to.is_empty();
    let found = [to.to_owned(), format!("{to}.tar")].into_iter().map(|name| dir.join(name)).find(|path| path.exists());
    if let Some(path) = found.filter(|_| is_name) {
        return Ok(path);
    }
    let remedy = match names_in(&dir) {
        Ok(names) if !names.is_empty() => {
            format!("there are {}; `./{to}` is the one in your directory", names.join(", "))
        }
        Ok(_) | Err(_) => format!("put it there, or name it by a path: `./{to}` is the one in your directory"),
    };
    Err(Problem::new(Code::Refused, tried, format!("there is none in {}", dir.display()), remedy))
}

fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> =
        fs::read_dir(dir)?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names.into_iter().map(|name| format!("`{}`", name.strip_suffix(".tar").unwrap_or(&name))).collect())
}

/// Returns what is to be said of a package in which something is wrong.
#[must_use]
pub fn unfit(path: &Path, faults: &Faults) -> Problem {
    let code = if faults.only_build_ids() { Code::BuildId } else { Code::Refused };
    let remedy = format!("nothing was touched; `mvedsuad package check {}` looks again", path.display());
    Problem::new(code, format!("opening the package {}", path.display()), format!("it is not fit:\n{faults}"), remedy)
}

/// Sees that a package is for what a process has mapped, and that the process is not that far already.
///
/// # Errors
///
/// With [`Code::BuildId`] where it is for another version.
pub fn is_for(package: &Package, pid: i32) -> Result<(), Problem> {
    let info = &package.info;
    let tried = format!("comparing the package `{}` with process {pid}", info.name);
    let mapped = process::mapped_code(pid).map_err(|e| {
        Problem::new(Code::TargetGone, tried.clone(), format!("its code cannot be read: {e}"), "check the pid")
    })?;
    let ids = || mapped.iter().filter_map(|code| code.build_id.as_deref());
    if let Some(to) = info.to.as_ref().filter(|to| ids().any(|id| id == to.as_str())) {
        let why = format!("the process has mapped build-id {to} already");
        return Err(Problem::new(Code::BuildId, tried, why, "nothing was touched; it may have been updated before"));
    }
    if package.updates(ids()) {
        return Ok(());
    }
    let list = |ids: Vec<String>| ids.join(", ");
    let from = list(info.from.iter().map(ToString::to_string).collect());
    let program = process::program_of(pid);
    let own = program.build_id.as_deref().unwrap_or("without a build-id");
    let libraries = mapped.iter().filter(|code| code.path != program.exe).filter_map(|code| {
        let name = Path::new(&code.path).file_name()?.to_str()?;
        Some(format!("{name} {}", code.build_id.as_deref()?))
    });
    let libraries = list(libraries.collect());
    let why = format!("it updates {from}; the process runs {} {own}, with {libraries}", program.exe);
    let remedy = "nothing was touched; a package is for certain builds, take the one for this";
    Err(Problem::new(Code::BuildId, tried, why, remedy))
}

/// Sees that terms can be met, and that the engine can do what is asked.
///
/// # Errors
///
/// What contradicts itself, or what cannot be done yet.
pub fn check_terms(terms: &Terms, package: Option<&Package>, abilities: &[Ability]) -> Result<(), Problem> {
    let tried = "starting the update";
    terms.check().map_err(|found| Problem::new(Code::Usage, tried, found.why, found.remedy))?;
    let lacking = lacking(package, abilities);
    if lacking.is_empty() {
        return Ok(());
    }
    let remedy = "nothing was touched; `--to self` rehearses the same version, and a newer mvedsuad may do more";
    Err(Problem::new(Code::Refused, tried, lacking.join("; "), remedy))
}

/// Says what is asked for that this version of mvedsuad cannot do.
#[must_use]
pub fn lacking(package: Option<&Package>, abilities: &[Ability]) -> Vec<String> {
    let method = package.map(|package| package.info.method);
    let asked = [
        (method == Some(Method::InPlace), Ability::InPlace, "the method `in-place` is not built into it yet"),
        (method == Some(Method::Binary), Ability::Binary, "the method `binary` is not built into it yet"),
        (
            package.is_some_and(|package| !package.rules.is_empty()),
            Ability::Rules,
            "rules are not heeded yet, so every difference that they allow would end the update",
        ),
    ];
    let missing = asked.into_iter().filter(|(is_asked, ability, _)| *is_asked && !abilities.contains(ability));
    missing.map(|(_, _, why)| format!("this mvedsuad cannot do it: {why}")).collect()
}

/// Removes what archives were unpacked to and no process has mapped any more.
pub(crate) fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let unpacked: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    if unpacked.is_empty() {
        return;
    }
    let Ok(processes) = fs::read_dir("/proc") else { return };
    let maps: Vec<Vec<u8>> = processes.flatten().filter_map(|entry| fs::read(entry.path().join("maps")).ok()).collect();
    for path in unpacked {
        let name = format!("{}/", path.display());
        if maps.iter().any(|map| memchr::memmem::find(map, name.as_bytes()).is_some()) {
            continue;
        }
        if let Err(e) = fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), error = %e, "an unpacked package cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_for_the_program_and_nowhere_else() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pid = std::process::id().cast_signed();
        let program = process::program_of(pid);
        let own = dir.path().join(process::name_of(&program).expect("it has a name"));
        fs::create_dir_all(own.join("v2")).expect("it is ours");
        fs::write(own.join("v3.tar"), "").expect("it is ours");
        assert_eq!(locate(pid, "v2", dir.path()), Ok(own.join("v2")));
        assert_eq!(locate(pid, "v3", dir.path()), Ok(own.join("v3.tar")));
        assert_eq!(locate(pid, "/srv/v2", dir.path()), Ok(PathBuf::from("/srv/v2")));
        let missing = locate(pid, "v4", dir.path()).expect_err("it is not there");
        assert!(missing.remedy.contains("there are `v2`, `v3`"), "{missing}");
        assert_eq!(locate(pid, "../v2", dir.path()).expect_err("it is relative").code, Code::Usage);
        assert_eq!(locate(pid, "..", dir.path()).expect_err("it is no name").code, Code::Refused);
    }

    #[test]
    fn what_is_mapped_is_not_swept_away() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("package-x/lib")).expect("it is ours");
        sweep(dir.path());
        assert!(!dir.path().join("package-x").exists());
    }
}
