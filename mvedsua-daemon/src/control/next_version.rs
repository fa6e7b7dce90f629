//! The next version of files that a process has mapped: found, compared with what runs, and judged before anything is touched.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mvedsua_binary::verdict::{Certainty, Verdict};
use mvedsua_binary::{Given, compare_with};

use super::Code;
use super::process;
use super::protocol::Problem;
use crate::outdated::root::Root;
use crate::package::{self, Accept, BuildId, Trust, check_file};
use crate::update::binary::{FileChange, Hooks, Version, missing, versions_of};

/// A larger file is not compared.
const LARGEST: u64 = 1 << 30;

/// Which next version is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What the package manager has put where the mapped files were.
    Installed,
    /// This file.
    File(PathBuf),
    /// This file, for what is mapped or runs with this build-id, what converts what it wants to find in another form, and what was
    /// proved of it.
    Packaged { file: PathBuf, from: BuildId, hooks: Option<Box<package::Hooks>>, proof: Option<Box<package::Proof>> },
}

impl Wanted {
    /// What asks for what is installed.
    pub const INSTALLED: &str = "installed";

    /// Says which next version is asked for; nothing where something else is. Of a file that others could have written, or that
    /// the user may not see, nothing is told here.
    #[must_use]
    pub fn of(to: &str, trust: &Trust) -> Option<Wanted> {
        if to == Wanted::INSTALLED {
            return Some(Wanted::Installed);
        }
        let path = Path::new(to);
        let is_file = path.is_absolute() && check_file(path, trust).is_ok() && process::is_elf(path);
        is_file.then(|| Wanted::File(path.to_owned()))
    }
}

/// A file that a process has mapped, with what runs of it.
struct Mapped {
    path: String,
    /// Where its contents can be read, whatever lies at its path by now.
    link: PathBuf,
    build_id: String,
    device: u64,
    inode: u64,
    /// The version that runs, if it was updated before.
    version: Option<Version>,
}

impl Mapped {
    fn name(&self) -> String {
        let path = self.path.strip_suffix(" (deleted)").unwrap_or(&self.path);
        Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
    }

    fn runs(&self) -> &str {
        self.version.as_ref().map_or(&self.build_id, |version| &version.runs)
    }
}

/// Finds and compares the files that are to change.
///
/// # Errors
///
/// Where there is none, one cannot be read, or one of the comparisons refuses.
pub fn open(
    pid: i32,
    wanted: &Wanted,
    library: Option<&str>,
    accept: Accept,
    trust: &Trust,
) -> Result<Vec<Arc<FileChange>>, Problem> {
    let tried = format!("looking for the next version of process {pid}");
    let mapped = mapped_of(pid, &tried)?;
    let with = |hooks, proof| With { hooks, proof, accept, trust };
    let pairs = match wanted {
        Wanted::File(path) => vec![(which(&mapped, path, library, &tried)?, path.clone())],
        Wanted::Packaged { file, from, hooks, proof } => {
            let mapped = known_as(&mapped, from, &tried)?;
            if hooks.is_some() {
                with_hooks(mapped, from, &tried)?;
            }
            let change = change(pid, mapped, file, &with(hooks.as_deref(), proof.as_deref()))?;
            return Ok(vec![Arc::new(change)]);
        }
        Wanted::Installed => installed(pid, &mapped, library, &tried)?,
    };
    pairs.into_iter().map(|(mapped, path)| change(pid, mapped, &path, &with(None, None)).map(Arc::new)).collect()
}

fn mapped_of(pid: i32, tried: &str) -> Result<Vec<Mapped>, Problem> {
    let gone = |why: String| Problem::new(Code::TargetGone, tried, why, "check the pid");
    let versions = versions_of(pid).map_err(gone)?;
    let maps = crate::ptrace::procfs::maps(crate::ptrace::Pid(pid)).map_err(|e| gone(e.to_string()))?;
    let mut found: Vec<Mapped> = vec![];
    for area in maps.iter().filter(|area| area.offset == 0 && area.name.starts_with('/') && !area.shared) {
        let code =
            maps.iter().any(|other| other.executable && (other.device, other.inode) == (area.device, area.inode));
        if !code || found.iter().any(|known| (known.device, known.inode) == (area.device, area.inode)) {
            continue;
        }
        let link = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", area.start, area.end));
        let Some(build_id) = BuildId::of_file(&link).map(|id| id.to_string()) else { continue };
        let version = versions.iter().find(|version| version.mapped == build_id).cloned();
        found.push(Mapped { path: area.name.clone(), link, build_id, device: area.device, inode: area.inode, version });
    }
    Ok(found)
}

/// Returns the mapped file that is, or runs as, one version.
fn known_as<'m>(mapped: &'m [Mapped], from: &BuildId, tried: &str) -> Result<&'m Mapped, Problem> {
    let is = |mapped: &&Mapped| mapped.runs() == from.as_str() || mapped.build_id == from.as_str();
    mapped.iter().find(is).ok_or_else(|| {
        let all: Vec<String> = mapped.iter().map(|mapped| format!("{} {}", mapped.name(), mapped.runs())).collect();
        let why = format!("it updates {from}; the process runs {}", all.join(", "));
        let remedy = "nothing was touched; a package is for certain builds, take the one for this";
        Problem::new(Code::BuildId, tried, why, remedy)
    })
}

/// Returns the mapped file whose next version a file is.
fn which<'m>(mapped: &'m [Mapped], new: &Path, library: Option<&str>, tried: &str) -> Result<&'m Mapped, Problem> {
    let refused = |why: String, remedy: &str| Err(Problem::new(Code::Refused, tried, why, remedy));
    let named = |name: &str| mapped.iter().find(|mapped| mapped.name() == name);
    if let Some(library) = library {
        return match named(library) {
            Some(mapped) => Ok(mapped),
            None => refused(format!("it has no file `{library}` mapped"), "see the last column of /proc/PID/maps"),
        };
    }
    let soname = process::soname_of(new);
    let found = match &soname {
        // Libraries are known by the name under which programs ask for them.
        Some(soname) => mapped.iter().find(|mapped| process::soname_of(&mapped.link).as_ref() == Some(soname)),
        None => mapped.first(),
    };
    match (found, soname) {
        (Some(mapped), _) => Ok(mapped),
        (None, Some(soname)) => refused(
            format!("{} is a library `{soname}`, which the process has not mapped", new.display()),
            "name the file of which it is the next version with --library",
        ),
        (None, None) => refused(
            "its executable has no build-id, or is not mapped".to_owned(),
            "only files that are known by a build-id are updated",
        ),
    }
}

/// Returns the mapped files in whose place another version lies on the disk.
fn installed<'m>(
    pid: i32,
    mapped: &'m [Mapped],
    library: Option<&str>,
    tried: &str,
) -> Result<Vec<(&'m Mapped, PathBuf)>, Problem> {
    let wanted = |mapped: &&Mapped| library.is_none_or(|library| mapped.name() == library);
    let mut outdated = vec![];
    for mapped in mapped.iter().filter(wanted) {
        let path = mapped.path.strip_suffix(" (deleted)").unwrap_or(&mapped.path);
        let path = Path::new(path);
        if !is_same_here(pid, path) {
            let why = format!("{} is another file for it than here: it has mounts of its own", path.display());
            let remedy = "name the new version with `--to FILE`, by its path here";
            return Err(Problem::new(Code::Refused, tried, why, remedy));
        }
        match BuildId::of_file(path) {
            Some(id) if id.as_str() != mapped.runs() => outdated.push((mapped, path.to_owned())),
            Some(_) | None => {}
        }
    }
    if outdated.is_empty() {
        let why = match library {
            Some(library) if !mapped.iter().any(|mapped| mapped.name() == library) => {
                format!("it has no file `{library}` mapped")
            }
            Some(_) | None => "it runs what is installed; no other version lies where its files were".to_owned(),
        };
        return Err(Problem::new(Code::BuildId, tried, why, "nothing was touched; `--to FILE` names another version"));
    }
    Ok(outdated)
}

/// Says whether a path of a process's map leads to the same file for it as here. Units of systemd have mounts of their own as a
/// rule, and most files in common; containers have not.
fn is_same_here(pid: i32, path: &Path) -> bool {
    let here = fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let there = Root::of(pid).and_then(|root| root.open(&root.inside(path))).map(|(_, meta)| (meta.dev(), meta.ino()));
    match (here, there.ok()) {
        (None, None) => true,
        (here, there) => here == there,
    }
}

/// Sees that hooks find what they were made for: places of the mapped file that no earlier update changed.
fn with_hooks(mapped: &Mapped, from: &BuildId, tried: &str) -> Result<(), Problem> {
    if mapped.build_id == from.as_str() && mapped.version.is_none() {
        return Ok(());
    }
    let why = format!(
        "the process has mapped {} and runs {}, and its hooks are for {from} alone",
        mapped.build_id,
        mapped.runs()
    );
    Err(Problem::new(
        Code::BuildId,
        tried,
        why,
        "nothing was touched; go back to the mapped version first: `--to` its file",
    ))
}

/// What a package brings, and what is wanted of a next version.
struct With<'a> {
    hooks: Option<&'a package::Hooks>,
    proof: Option<&'a package::Proof>,
    accept: Accept,
    trust: &'a Trust,
}

/// Compares one file with its next version.
fn change(pid: i32, mapped: &Mapped, path: &Path, with: &With<'_>) -> Result<FileChange, Problem> {
    let With { hooks, proof, accept, trust } = *with;
    let name = mapped.name();
    let tried = format!("comparing {name} in process {pid} with {}", path.display());
    let refused = |why: String, remedy: &str| Problem::new(Code::Refused, tried.clone(), why, remedy);
    let path = check_file(path, trust).map_err(|faults| {
        refused(format!("it is not fit:\n{faults}"), "nothing was touched; what others may write is not loaded")
    })?;
    let Some(to) = BuildId::of_file(&path).map(|id| id.to_string()) else {
        return Err(refused("the new file has no build-id".to_owned(), "link it with --build-id"));
    };
    if to == mapped.runs() {
        let why = format!("the process runs build-id {to} already");
        return Err(Problem::new(Code::BuildId, tried, why, "nothing was touched; it may have been updated before"));
    }
    let change = |patch| FileChange {
        mapped: (mapped.device, mapped.inode),
        name: name.clone(),
        from: mapped.build_id.clone(),
        to: to.clone(),
        path: path.clone(),
        patch,
        hooks: hooks.map(|hooks| Hooks {
            name: hooks.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            file: hooks.file.clone(),
            objects: hooks.transforms.clone(),
        }),
    };
    if let Some(version) = mapped.version.as_ref().filter(|version| version.moved > 0) {
        let why = format!(
            "it was updated to {} before by a hook that moved {} of its objects; what the old ones hold is out of date",
            version.runs, version.moved
        );
        return Err(refused(why, "there is no way on from there, and none back; restart the service instead"));
    }
    if to == mapped.build_id {
        return Ok(change(None));
    }
    if let Some(version) = mapped.version.as_ref().filter(|version| version.fresh > 0) {
        let why = format!(
            "it was updated to {} before, which has {} variables of its own; what they hold would be lost",
            version.runs, version.fresh
        );
        return Err(refused(why, "go back to the mapped version first: `--to` its file"));
    }
    let read = |path: &Path| {
        let len = fs::metadata(path).map(|meta| meta.size()).unwrap_or(0);
        if len > LARGEST {
            return Err(refused(format!("{} has {len} bytes", path.display()), "files of up to 1 GiB are compared"));
        }
        fs::read(path).map_err(|e| refused(format!("{}: {e}", path.display()), "see whether root may read it"))
    };
    let (old, new) = (read(&mapped.link)?, read(&path)?);
    let transforms = hooks.map(|hooks| hooks.transforms.as_slice()).unwrap_or_default();
    let given = Given { transforms, shown: proof.map(package::Proof::shown) };
    let comparison =
        compare_with(&old, &new, given).map_err(|e| refused(e.to_string(), "restart the service instead"))?;
    let is_proved = match (proof, &comparison.patch) {
        (Some(proof), Some(patch)) => proof.holds_for(patch),
        _ => false,
    };
    // What names have shown is worth nothing beside another patch.
    let rests_on_it = !comparison.shown.is_empty();
    if let Verdict::Updatable { certainty: Certainty::Inferred } = comparison.verdict
        && (accept == Accept::Proved || rests_on_it)
        && !is_proved
    {
        let (why, remedy) = match proof {
            None => (
                "it can be updated as far as the two files tell; no types are known that would prove it",
                "`mvedsuad package build` with `--debug-old` and `--debug-new`, or with `--twin`, makes a package that is \
                 proved; `--accept inferred` takes what the files tell for enough",
            ),
            Some(_) if rests_on_it => (
                "the package was proved for another comparison than this one; was it made by another version of mvedsuad?",
                "make the package again with `mvedsuad package build`; without a proof the two versions are refused",
            ),
            Some(_) => (
                "the package was proved for another comparison than this one; was it made by another version of mvedsuad?",
                "make the package again with `mvedsuad package build`; `--accept inferred` does without a proof",
            ),
        };
        return Err(refused(why.to_owned(), remedy));
    }
    if let Verdict::Refused { reasons } = &comparison.verdict {
        let why = reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let remedy = "nothing was touched; `mvedsuad compare OLD NEW` shows the evidence. Restart the service instead";
        return Err(refused(why, remedy));
    }
    let ids = (comparison.old.image.build_id.as_deref(), comparison.new.image.build_id.as_deref());
    if ids != (Some(mapped.build_id.as_str()), Some(to.as_str())) {
        return Err(refused(
            "a file was replaced while it was looked at".to_owned(),
            "nothing was touched; try it again",
        ));
    }
    let change = change(comparison.patch);
    let lacks = change.patch.as_ref().map(|patch| missing(pid, patch, change.hooks.as_ref())).unwrap_or_default();
    if !lacks.is_empty() {
        let why = format!("the new version uses what the old one did not: {}", lacks.join("; "));
        return Err(refused(why, "nothing was touched; restart the service instead"));
    }
    Ok(change)
}
