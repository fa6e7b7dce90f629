//! Turning the vDSO's functions into real system calls, and back.
//!
//! The vDSO answers `clock_gettime` and its like without entering the kernel, so no recorder sees them. While two versions
//! run, the first bytes of each function are `mov eax, nr; syscall; ret`; the old bytes are kept and put back at the end.
//! The symbols are found in the image itself, `Documentation/ABI/stable/vdso`.

use object::{Object, ObjectSymbol};
use serde::{Deserialize, Serialize};

use super::memory::Memory;
use super::procfs::{self, Mapping};
use super::{Error, Pid, Result};

/// Length of `mov eax, imm32; syscall; ret`.
const PATCH_LEN: usize = 8;

const FUNCTIONS: [(&str, i64); 6] = [
    ("__vdso_clock_gettime", libc::SYS_clock_gettime),
    ("__vdso_gettimeofday", libc::SYS_gettimeofday),
    ("__vdso_time", libc::SYS_time),
    ("__vdso_getcpu", libc::SYS_getcpu),
    ("__vdso_clock_getres", libc::SYS_clock_getres),
    ("__vdso_getrandom", libc::SYS_getrandom),
];

/// One function that can be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    pub addr: u64,
    pub original: [u8; PATCH_LEN],
    pub replacement: [u8; PATCH_LEN],
}

/// The vDSO of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vdso {
    pub start: u64,
    pub end: u64,
    /// Zero bytes at its end.
    pub tail: u64,
    pub patches: Vec<Patch>,
}

impl Vdso {
    /// Describes the vDSO of a process. Every process of a kernel has the same image, so the daemon's own one says what
    /// the bytes are when nobody has patched them.
    pub fn find(pid: Pid, memory: &Memory, maps: &[Mapping]) -> Result<Vdso> {
        let Some(mapping) = maps.iter().find(|mapping| mapping.name == "[vdso]") else {
            return Err(Error::Unsupported(format!("process {pid} has no vDSO mapping to keep the daemon's stub in")));
        };
        let image = own_image()?;
        if image.len() as u64 != mapping.end - mapping.start {
            return Err(Error::Unsupported(format!("the vDSO of process {pid} is not that of this kernel")));
        }
        let tail = image.iter().rev().take_while(|byte| **byte == 0).count() as u64;
        let file = object::File::parse(&*image)
            .map_err(|error| Error::Unsupported(format!("the vDSO is not an ELF image: {error}")))?;
        let mut patches: Vec<Patch> = Vec::new();
        for symbol in file.dynamic_symbols() {
            let Some((_, nr)) = FUNCTIONS.iter().find(|(name, _)| symbol.name() == Ok(*name)) else { continue };
            let offset = symbol.address() as usize;
            let Some(bytes) = image.get(offset..offset + PATCH_LEN) else { continue };
            let mut original = [0; PATCH_LEN];
            original.copy_from_slice(bytes);
            let nr = (*nr as u32).to_le_bytes();
            let replacement = [0xb8, nr[0], nr[1], nr[2], nr[3], 0x0f, 0x05, 0xc3];
            let addr = mapping.start + offset as u64;
            let there = memory.read_vec(addr, PATCH_LEN)?;
            if there != original && there != replacement {
                return Err(Error::Unsupported(format!(
                    "somebody else has changed the vDSO of process {pid} at {addr:#x}"
                )));
            }
            patches.push(Patch { addr, original, replacement });
        }
        Ok(Vdso { start: mapping.start, end: mapping.end, tail, patches })
    }

    /// Says whether a function is replaced.
    #[must_use]
    pub fn is_patched(&self, memory: &Memory) -> bool {
        self.patches
            .iter()
            .any(|patch| memory.read_vec(patch.addr, PATCH_LEN).is_ok_and(|bytes| bytes == patch.replacement))
    }

    /// Makes every function a real call. No thread may stand inside one, see [`Vdso::is_inside`].
    pub fn patch(&self, memory: &Memory) -> Result<()> {
        self.patches.iter().try_for_each(|patch| memory.force(patch.addr, &patch.replacement))
    }

    /// Puts the original functions back. A thread may stand at a `syscall` or `ret` of a patch; those must have left
    /// first, see [`Vdso::is_patched_at`].
    pub fn restore(&self, memory: &Memory) -> Result<()> {
        self.patches.iter().try_for_each(|patch| memory.force(patch.addr, &patch.original))
    }

    /// Says whether an address lies in the code of the vDSO.
    #[must_use]
    pub fn is_inside(&self, addr: u64) -> bool {
        (self.start..self.end - self.tail).contains(&addr)
    }

    /// Says whether a thread at this address would execute the rest of a patch (its `syscall` or its `ret`).
    #[must_use]
    pub fn is_patched_at(&self, addr: u64) -> bool {
        self.patches.iter().any(|patch| addr > patch.addr && addr < patch.addr + PATCH_LEN as u64)
    }
}

/// Reads the daemon's own vDSO.
fn own_image() -> Result<Vec<u8>> {
    let me = Pid(std::process::id() as i32);
    let maps = procfs::maps(me)?;
    let Some(mapping) = maps.iter().find(|mapping| mapping.name == "[vdso]") else {
        return Err(Error::Unsupported("the daemon itself has no vDSO".into()));
    };
    Memory::open(me)?.read_vec(mapping.start, (mapping.end - mapping.start) as usize)
}

/// Reads the vDSO of a process by itself, for tests and the preflight.
pub fn of(pid: Pid) -> Result<Vdso> {
    Vdso::find(pid, &Memory::open(pid)?, &procfs::maps(pid)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_vdso_has_the_time_functions_and_room_for_the_stub() {
        let vdso = of(Pid(std::process::id() as i32)).expect("our own vDSO");
        assert!(vdso.patches.len() >= 4, "{vdso:?}");
        assert!(vdso.tail > 512);
        assert!(vdso.patches.iter().all(|patch| vdso.is_inside(patch.addr)));
    }
}
