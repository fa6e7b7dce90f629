//! What was loaded into a process, as its own memory tells.
//!
//! The first pages of what is loaded hold a record of it. It is part of the image: it moves with a promotion, it goes with a
//! rollback, and a daemon that starts later finds it.

use mvedsua_binary::patch::JUMP;
use serde::{Deserialize, Serialize};

use crate::ptrace::memory::Memory;
use crate::ptrace::procfs::{self, Mapping};
use crate::ptrace::{Error, Pid, Result};

/// What the record begins with. Then: one word that says whether the jumps are written, one with the length of what follows.
pub(crate) const MAGIC: [u8; 16] = *b"mvedsua:loaded\0\x01";
const ACTIVE: u64 = 16;
const LEN: u64 = 24;
const TEXT: u64 = 32;
/// A longer record is none.
const LONGEST: u64 = 16 << 20;

/// A jump that is or was written, and what stands there without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) at: u64,
    pub(crate) before: [u8; JUMP],
    pub(crate) after: [u8; JUMP],
}

/// A function that was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// What was loaded for one version of one file. Addresses are those of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loaded {
    /// Build-ids: of what is mapped, and of the version that this makes of it.
    pub(crate) from: String,
    pub(crate) to: String,
    /// The file's name, for people.
    pub(crate) name: String,
    /// What is added to addresses of the mapped file, and of the new one.
    pub(crate) base: u64,
    pub(crate) new_base: u64,
    pub(crate) jumps: Vec<Written>,
    pub(crate) functions: Vec<Function>,
    /// Where the unwind information is, and its length.
    pub(crate) frames: Option<(u64, u64)>,
    /// Writable objects that only this version has.
    pub(crate) fresh: usize,
    /// Objects that a hook moved: the old ones are not looked at any more.
    #[serde(default)]
    pub(crate) moved: usize,
    /// Where the record is; it does not tell itself.
    #[serde(skip)]
    pub(crate) at: u64,
    /// The jumps are written.
    #[serde(skip)]
    pub(crate) is_active: bool,
}

impl Loaded {
    /// Returns the record as it is kept.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let text = serde_json::to_vec(self).map_err(|error| Error::Unsupported(error.to_string()))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u64::from(self.is_active).to_le_bytes());
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&text);
        Ok(bytes)
    }

    /// Returns what is written where so that the record says whether the jumps are.
    pub(crate) fn activity(&self, is_active: bool) -> (u64, Vec<u8>) {
        (self.at + ACTIVE, u64::from(is_active).to_le_bytes().to_vec())
    }

    fn read(memory: &Memory, at: u64) -> Option<Loaded> {
        if memory.read_vec(at, MAGIC.len()).ok()? != MAGIC {
            return None;
        }
        let len = memory.read_u64(at + LEN).ok().filter(|len| *len <= LONGEST)?;
        let text = memory.read_vec(at + TEXT, usize::try_from(len).ok()?).ok()?;
        let loaded: Loaded = serde_json::from_slice(&text).ok()?;
        Some(Loaded { at, is_active: memory.read_u64(at + ACTIVE).ok()? != 0, ..loaded })
    }
}

/// Finds what was loaded into a process.
pub(crate) fn find(memory: &Memory, maps: &[Mapping]) -> Result<Vec<Loaded>> {
    let candidates = maps.iter().filter(|mapping| {
        mapping.inode == 0 && !mapping.shared && mapping.readable && !mapping.writable && !mapping.executable
    });
    Ok(candidates.filter_map(|mapping| Loaded::read(memory, mapping.start)).collect())
}

/// Returns what was loaded into a process; nothing where its memory cannot be read.
pub(crate) fn of(pid: Pid) -> Vec<Loaded> {
    let found = Memory::open(pid).and_then(|memory| find(&memory, &procfs::maps(pid)?));
    found.unwrap_or_default()
}

/// A version that a process runs of a file that it has mapped, where that is not what the file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub name: String,
    /// The build-id of what is mapped.
    pub mapped: String,
    /// The build-id of the version that runs.
    pub runs: String,
    /// Writable objects that only this version has.
    pub fresh: usize,
    /// Objects that a hook moved: what the old ones hold is out of date.
    pub moved: usize,
}

/// Returns the versions that a process runs of files that it has mapped in another version.
///
/// # Errors
///
/// Where its memory cannot be read.
pub fn versions(memory: &Memory, maps: &[Mapping]) -> Result<Vec<Version>> {
    let active = find(memory, maps)?.into_iter().filter(|loaded| loaded.is_active);
    let version = |loaded: Loaded| Version {
        name: loaded.name,
        mapped: loaded.from,
        runs: loaded.to,
        fresh: loaded.fresh,
        moved: loaded.moved,
    };
    Ok(active.map(version).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded() -> Loaded {
        Loaded {
            from: "aa".into(),
            to: "bb".into(),
            name: "server".into(),
            base: 0x1000,
            new_base: 0x2000,
            jumps: vec![Written { at: 7, before: [1; JUMP], after: [2; JUMP] }],
            functions: vec![Function { name: "f".into(), start: 1, end: 2 }],
            frames: None,
            fresh: 0,
            moved: 0,
            at: 0,
            is_active: true,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let own = Memory::open(Pid(std::process::id().cast_signed())).expect("it runs");
        let bytes = loaded().to_bytes().expect("it can be written");
        let at = bytes.as_ptr() as u64;
        assert_eq!(Loaded::read(&own, at), Some(Loaded { at, ..loaded() }));
        let (place, off) = Loaded { at, ..loaded() }.activity(false);
        let mut changed = bytes.clone();
        let offset = usize::try_from(place - at).expect("it is small");
        changed[offset..offset + 8].copy_from_slice(&off);
        let read = Loaded::read(&own, changed.as_ptr() as u64).expect("it is one");
        assert!(!read.is_active);
        let mut damaged = bytes;
        damaged[40] = 0xff;
        assert_eq!(Loaded::read(&own, damaged.as_ptr() as u64), None);
    }
}
