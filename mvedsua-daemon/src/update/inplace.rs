//! The in-place method: a program that is built with the SDK applies its new version itself, in the follower.
//!
//! The daemon's part is small. It finds the program's control block ([`mvedsua_common::cooperation`]), writes into the
//! follower's copy where the new version is, and raises the flag that the program's update points look at. What the
//! program then says, and which calls it may make meanwhile, is the replayer's affair (`replay/own.rs`).

use std::fs::File;
use std::mem::offset_of;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mvedsua_common::cooperation::{ABI, Control, DAEMON, DIRECT, LEADER, MAGIC, PATH_LEN, SYMBOL};
use object::read::ReadCache;
use object::{Object as _, ObjectKind, ObjectSymbol as _};

use super::method::{Application, Follower, Method};
use crate::ptrace::memory::Memory;
use crate::ptrace::{Error, Pid, Result, procfs};
use crate::replay::following::applying::{Applying, Blocking};

/// How long the threads may take at most to come to their update points, of the time for the whole update.
const SHARE: u32 = 2;

/// The new version of a program that cooperates.
#[derive(Debug)]
pub(crate) struct InPlace {
    pub(crate) object: PathBuf,
}

impl Method for InPlace {
    fn look(&self, pid: Pid) -> Result<Box<dyn Application>> {
        let cooperation = Cooperation::find(pid)?;
        let tells_leader = cooperation.wants_to_know(&Memory::open(pid)?)?;
        Ok(Box::new(Asked { cooperation, object: self.object.clone(), tells_leader }))
    }
}

/// A request to a program that cooperates.
#[derive(Debug)]
struct Asked {
    cooperation: Cooperation,
    object: PathBuf,
    /// The leader comes to the same update point, and is told to.
    tells_leader: bool,
}

impl Application for Asked {
    fn on_forked(&mut self, leader: &Memory) -> Result<()> {
        if self.tells_leader { self.cooperation.tell_leader(leader) } else { Ok(()) }
    }

    fn begin(self: Box<Self>, follower: &Follower<'_>) -> Result<Option<Applying>> {
        self.cooperation.ask(&follower.process.memory, &self.object, follower.limit)?;
        let blocking = if self.tells_leader { Blocking::Waits } else { Blocking::IsInterrupted };
        Ok(Some(Applying::by_the_program(follower.leader, follower.leaders.clone(), follower.limit, blocking)))
    }
}

/// Where a program's control block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cooperation {
    control: u64,
}

fn unsupported(pid: Pid, why: &str) -> Error {
    Error::Unsupported(format!("process {pid} cannot be updated in place: {why}"))
}

/// Sees that a process can be updated in place.
///
/// # Errors
///
/// Why it cannot, for the operator.
pub fn check(pid: i32) -> std::result::Result<(), String> {
    match Cooperation::find(Pid(pid)) {
        Ok(_) => Ok(()),
        Err(Error::Unsupported(why)) => Err(why),
        Err(error) => Err(error.to_string()),
    }
}

impl Cooperation {
    /// Finds the control block of a process, and sees that it is one and that a version runs.
    fn find(pid: Pid) -> Result<Cooperation> {
        let path = format!("/proc/{pid}/exe");
        let file = File::open(&path).map_err(|source| Error::Proc { path: path.clone(), source })?;
        let inode = file.metadata().map_err(|source| Error::Proc { path, source })?.ino();
        let cache = ReadCache::new(file);
        let elf = object::File::parse(&cache).map_err(|error| unsupported(pid, &format!("its executable: {error}")))?;
        let exported = elf.dynamic_symbols().chain(elf.symbols());
        let symbol = exported.filter(|symbol| symbol.name() == Ok(SYMBOL)).find(|symbol| symbol.is_definition());
        let Some(symbol) = symbol else {
            return Err(unsupported(pid, &format!("its executable was not built with the SDK (no symbol {SYMBOL})")));
        };
        let base = if elf.kind() == ObjectKind::Dynamic {
            let maps = procfs::maps(pid)?;
            let first = maps.iter().find(|mapping| mapping.inode == inode && mapping.offset == 0);
            first.map(|mapping| mapping.start).ok_or_else(|| unsupported(pid, "its executable is not mapped"))?
        } else {
            0
        };
        let cooperation = Cooperation { control: base + symbol.address() };
        cooperation.check(pid, &Memory::open(pid)?)?;
        Ok(cooperation)
    }

    fn check(self, pid: Pid, memory: &Memory) -> Result<()> {
        let mut magic = [0; MAGIC.len()];
        memory.read(self.control + offset_of!(Control, magic) as u64, &mut magic)?;
        let abi = memory.read_u32(self.control + offset_of!(Control, abi) as u64)?;
        if magic != MAGIC || abi != ABI {
            return Err(unsupported(pid, &format!("its SDK speaks another version ({abi}, this daemon {ABI})")));
        }
        if self.flag(memory)? == 0 {
            return Err(unsupported(pid, "no version runs in it yet"));
        }
        let request = memory.read_u32(self.control + offset_of!(Control, request) as u64)?;
        if request == DIRECT {
            return Err(unsupported(pid, "it is updating itself"));
        }
        Ok(())
    }

    fn flag(self, memory: &Memory) -> Result<u64> {
        memory.read_u64(self.control + offset_of!(Control, flag) as u64)
    }

    /// Says whether the program wants to know when a copy of it is updated.
    fn wants_to_know(self, leader: &Memory) -> Result<bool> {
        Ok(leader.read_u32(self.control + offset_of!(Control, wants_to_know) as u64)? != 0)
    }

    /// Tells a stopped leader that a copy of it, which stands where it stands, is to be updated.
    fn tell_leader(self, leader: &Memory) -> Result<()> {
        leader.write(self.control + offset_of!(Control, request) as u64, &LEADER.to_ne_bytes())?;
        leader.write(self.flag(leader)?, &1_i32.to_ne_bytes())
    }

    /// Asks a stopped follower to go over to the version in `object`, within `limit`.
    fn ask(self, follower: &Memory, object: &Path, limit: Duration) -> Result<()> {
        let mut path = object.as_os_str().as_bytes().to_vec();
        path.push(0);
        if path.len() > PATH_LEN {
            return Err(Error::Unsupported(format!("the path {} is too long", object.display())));
        }
        let limit = u32::try_from((limit / SHARE).as_millis()).unwrap_or(u32::MAX);
        follower.write(self.control + offset_of!(Control, path) as u64, &path)?;
        follower.write(self.control + offset_of!(Control, limit_ms) as u64, &limit.to_ne_bytes())?;
        follower.write(self.control + offset_of!(Control, request) as u64, &DAEMON.to_ne_bytes())?;
        follower.write(self.flag(follower)?, &1_i32.to_ne_bytes())
    }
}
