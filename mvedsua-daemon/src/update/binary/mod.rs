//! The method `binary`: a stock executable or library goes over to its next version (DESIGN 9a).
//!
//! What is to be loaded and changed was found by comparing the two files ([`mvedsua_binary`]). Here it happens, in the
//! follower alone: while its threads are parked the new code is put beside the old one ([`load`]), at addresses that its jumps
//! reach ([`place`]); nothing of it runs yet. Once no thread is inside a function that changes ([`stacks`]), jumps at the
//! starts of the old functions lead to the new ones. A record in the loaded memory tells later daemons what was done
//! ([`loaded`]): it moves with the image, like everything else.
//!
//! A process that was updated before goes on from what it has mapped: the jumps of the version that it leaves are taken back
//! first. What was loaded for that version stays, since the program may still point to its constants; going to that version
//! again uses it again.
//!
//! A package may bring code that converts what the new version wants to find in another form ([`hooks`]).

mod calls;
mod hooks;
mod load;
mod names;
mod place;
mod scan;
mod stacks;
mod symbols;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mvedsua_binary::patch::{JUMP, Patch};

use self::hooks::Ready;
use self::stacks::Stacks;
use super::method::{Application, Follower, Method};
use super::process::Process;
use crate::ptrace::memory::{Memory, Span};
use crate::ptrace::procfs;
use crate::ptrace::{Error, Pid, Result, Tid};
use crate::replay::following::applying::{Again, Applying, Attempt, Switch};

pub use self::hooks::Hooks;
use crate::tracee::loaded;
use crate::tracee::loaded::Loaded;
pub use crate::tracee::loaded::{Version, versions};

/// How long the threads may take to leave the functions that change. Functions that are ever left are left many times a second.
const LEFT_WITHIN: Duration = Duration::from_secs(5);

/// One file that a process has mapped, and what makes its next version of it.
#[derive(Debug)]
pub struct FileChange {
    /// Device and inode of the mapped file, `major << 32 | minor`.
    pub mapped: (u64, u64),
    /// What it is called in messages.
    pub name: String,
    /// The build-id of what is mapped.
    pub from: String,
    /// The build-id of the new version; the same where a process goes back to what it has mapped.
    pub to: String,
    /// Where the new version was found.
    pub path: PathBuf,
    /// What makes it of the mapped one; nothing where that is the new version.
    pub patch: Option<Patch>,
    /// What a package brings to convert objects.
    pub hooks: Option<Hooks>,
}

/// The method, with the files that change.
#[derive(Debug)]
pub(crate) struct Binary {
    pub(crate) files: Vec<Arc<FileChange>>,
}

impl Method for Binary {
    fn look(&self, pid: Pid) -> Result<Box<dyn Application>> {
        let maps = procfs::maps(pid)?;
        for file in &self.files {
            file.patch.as_ref().map(|patch| place::base_of(&maps, file, patch)).transpose()?;
        }
        Ok(Box::new(Loading { files: self.files.clone() }))
    }
}

/// Files that are to be loaded into a follower.
#[derive(Debug)]
struct Loading {
    files: Vec<Arc<FileChange>>,
}

impl Application for Loading {
    fn begin(self: Box<Self>, follower: &Follower<'_>) -> Result<Option<Applying>> {
        let mut turn = Turn::default();
        let mut hooks = vec![];
        for file in &self.files {
            let places = turn.add(follower, file)?;
            if let (Some(brought), Some((base, new_base))) = (&file.hooks, places) {
                hooks.push(Ready::load(follower, brought, base, new_base)?);
            }
        }
        turn.tables = Some(Stacks::of(follower.process.pid));
        let threads: Vec<Tid> = follower.process.threads.tids().collect();
        if !hooks.is_empty() {
            return turn.with_hooks(follower, &threads, &hooks);
        }
        match turn.attempt(follower.process, &threads)? {
            Attempt::Done => Ok(None),
            Attempt::Busy(what) => {
                tracing::info!(what, "the new version waits until its functions are left");
                Ok(Some(Applying::when_possible(follower.limit.min(LEFT_WITHIN), Box::new(turn))))
            }
        }
    }
}

/// The change from one version to the other: bytes of code, all at once.
#[derive(Debug, Default)]
struct Turn {
    /// What is written: jumps, and what stood where jumps are taken back.
    writes: Vec<(u64, Vec<u8>)>,
    /// What must stand at the places of jumps before: what the file holds, or the jump of the version that is left.
    stands: Vec<(u64, [u8; JUMP])>,
    /// Old code that must not be running then, with the file's name.
    left: Vec<(Span, String)>,
    tables: Option<Stacks>,
}

impl Turn {
    /// Prepares the change of one file: loads what is to be loaded. Returns what is added to addresses of the mapped file, and
    /// of the new one where it is loaded.
    fn add(&mut self, follower: &Follower<'_>, file: &FileChange) -> Result<Option<(u64, u64)>> {
        let process = follower.process;
        let maps = procfs::maps(process.pid)?;
        let before: Vec<Loaded> =
            loaded::find(&process.memory, &maps)?.into_iter().filter(|loaded| loaded.from == file.from).collect();
        // The jumps of the version that it leaves.
        let active = || before.iter().filter(|loaded| loaded.is_active);
        for loaded in active() {
            self.stands.extend(loaded.jumps.iter().map(|jump| (jump.at, jump.after)));
            self.writes.extend(loaded.jumps.iter().map(|jump| (jump.at, jump.before.to_vec())));
            self.writes.push(loaded.activity(false));
            let code = loaded.functions.iter().map(|function| Span { start: function.start, end: function.end });
            self.left.extend(code.map(|span| (span, file.name.clone())));
        }
        let Some(patch) = &file.patch else { return Ok(None) };
        let base = place::base_of(&maps, file, patch)?;
        let known = before.iter().find(|loaded| loaded.to == file.to).cloned();
        let loaded = load::load(follower, file, patch, base, known)?;
        let replaced = patch.replaced.iter().map(|range| Span { start: range.start + base, end: range.end + base });
        self.left.extend(replaced.map(|span| (span, file.name.clone())));
        let has_jump = |at: u64| active().any(|loaded| loaded.jumps.iter().any(|jump| jump.at == at));
        self.stands.extend(loaded.jumps.iter().filter(|jump| !has_jump(jump.at)).map(|jump| (jump.at, jump.before)));
        // A jump that is taken back and written anew is written last.
        self.writes.extend(loaded.jumps.iter().map(|jump| (jump.at, jump.after.to_vec())));
        self.writes.push(loaded.activity(true));
        Ok(Some((base, loaded.new_base)))
    }

    /// Says what stands in the way of the change now, if anything does.
    fn obstacle(&mut self, process: &Process, threads: &[Tid]) -> Result<Option<String>> {
        if let Some(tables) = &mut self.tables
            && let Some(busy) = tables.inside(process, threads, &self.left)
        {
            return Ok(Some(busy));
        }
        // A debugger, a probe or another patcher may have changed the code: nobody knows what it does then.
        for (at, expected) in &self.stands {
            if process.memory.peek(*at, JUMP)? != expected {
                return Err(unfit(format!(
                    "the code at {at:#x} is not what the file holds there; somebody has changed it"
                )));
            }
        }
        Ok(None)
    }

    /// Changes the version with hooks. They run where all threads are parked: here, or in another follower.
    fn with_hooks(
        &mut self,
        follower: &Follower<'_>,
        threads: &[Tid],
        hooks: &[Ready<'_>],
    ) -> Result<Option<Applying>> {
        if let Some(what) = self.obstacle(follower.process, threads)? {
            return Ok(Some(Applying::not(what, Again::Perhaps)));
        }
        for ready in hooks {
            if let Some(not) = ready.before(follower)?.stops() {
                return Ok(Some(not));
            }
        }
        self.write(follower.process)?;
        for ready in hooks {
            if let Some(not) = ready.after(follower)?.stops() {
                return Ok(Some(not));
            }
        }
        Ok(None)
    }

    fn write(&self, process: &Process) -> Result<()> {
        for (at, bytes) in &self.writes {
            process.memory.force(*at, bytes)?;
        }
        tracing::info!(writes = self.writes.len(), "the new version is in place");
        Ok(())
    }
}

impl Switch for Turn {
    fn attempt(&mut self, process: &Process, threads: &[Tid]) -> Result<Attempt> {
        match self.obstacle(process, threads)? {
            Some(what) => Ok(Attempt::Busy(what)),
            None => self.write(process).map(|()| Attempt::Done),
        }
    }
}

/// Says which symbols of other files a new version and its hooks need that the process does not tell where they are.
pub(crate) fn missing(pid: i32, patch: &Patch, hooks: Option<&Hooks>) -> Vec<String> {
    let Ok(maps) = procfs::maps(Pid(pid)) else { return vec![] };
    let names = patch.new_symbols().chain(hooks.into_iter().flat_map(|hooks| hooks.file.symbols()));
    names.filter_map(|name| symbols::find(Pid(pid), &maps, name).err()).collect()
}

fn unfit(what: impl std::fmt::Display) -> Error {
    Error::Unsupported(what.to_string())
}

/// A function that was loaded into a process.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LoadedFunction {
    pub address: u64,
    /// Bytes.
    pub size: u64,
    pub name: String,
    /// The file whose other version it is of.
    pub file: String,
    /// The version that it is of runs.
    pub is_active: bool,
}

/// Returns the functions that updates have loaded into a process, by address.
///
/// # Errors
///
/// Where its memory cannot be read.
pub fn functions_of(pid: i32) -> std::result::Result<Vec<LoadedFunction>, String> {
    let find = || -> Result<Vec<Loaded>> { loaded::find(&Memory::open(Pid(pid))?, &procfs::maps(Pid(pid))?) };
    let of_one = |loaded: Loaded| {
        let (file, is_active) = (loaded.name, loaded.is_active);
        loaded.functions.into_iter().map(move |function| LoadedFunction {
            address: function.start,
            size: function.end - function.start,
            name: function.name,
            file: file.clone(),
            is_active,
        })
    };
    let mut functions: Vec<_> = find().map_err(|error| error.to_string())?.into_iter().flat_map(of_one).collect();
    functions.sort_by_key(|function| function.address);
    Ok(functions)
}

/// Returns what a process runs of the files that it has mapped, where that is not what the file holds.
///
/// # Errors
///
/// Where its memory cannot be read.
pub fn versions_of(pid: i32) -> std::result::Result<Vec<Version>, String> {
    let read = || -> Result<Vec<Version>> { versions(&Memory::open(Pid(pid))?, &procfs::maps(Pid(pid))?) };
    read().map_err(|error| error.to_string())
}
