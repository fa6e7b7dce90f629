//! Making the vDSO's functions visible, and undoing it.
//!
//! The vDSO answers `clock_gettime` and its like without entering the kernel, so no recorder sees them. While two versions
//! run, the first bytes of each function are replaced: by a jump to the [agent](super::agent) where it can tell the time,
//! by its system call otherwise. The old bytes are put back at the end. The symbols are found in the image
//! itself, `Documentation/ABI/stable/vdso`.

use std::ops::Range;

use object::{Object, ObjectSymbol};

use super::agent::Agent;
use super::memory::Memory;
use super::procfs::{self, Mapping};
use super::stub::Stub;
use super::{Error, Pid, Result};

/// Where the `ret` after the `syscall` stands in `mov eax, nr; syscall; ret`.
const CALL_RETURN: usize = 7;
/// The same in [`random_call`].
const RANDOM_RETURN: usize = 13;

const FUNCTIONS: [(&str, i64); 6] = [
    ("__vdso_clock_gettime", libc::SYS_clock_gettime),
    ("__vdso_gettimeofday", libc::SYS_gettimeofday),
    ("__vdso_time", libc::SYS_time),
    ("__vdso_getcpu", libc::SYS_getcpu),
    ("__vdso_clock_getres", libc::SYS_clock_getres),
    ("__vdso_getrandom", libc::SYS_getrandom),
];

/// One function that can be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    pub addr: u64,
    original: Vec<u8>,
    /// Makes the system call.
    call: Vec<u8>,
    /// Where in it the call's `ret` stands.
    ret: usize,
    /// Jumps to the agent.
    detour: Option<Vec<u8>>,
}

/// `mov eax, nr; syscall; ret`.
fn plain_call(nr: u32) -> Vec<u8> {
    let nr = nr.to_le_bytes();
    vec![0xb8, nr[0], nr[1], nr[2], nr[3], 0x0f, 0x05, 0xc3]
}

/// `getrandom(2)`, for a function that takes two arguments more: a state, and its length. The length -1 asks how states are
/// to be allocated (`lib/vdso/getrandom.c`); the answer is that there are none, `ENOSYS`, after which the program makes the
/// call itself.
fn random_call() -> Vec<u8> {
    let nr = (libc::SYS_getrandom as u32).to_le_bytes();
    let failure = (-libc::ENOSYS).to_le_bytes();
    let mut code = vec![
        0x49, 0x83, 0xf8, 0xff, // cmp r8, -1
        0x74, 0x08, // je +8
        0xb8, nr[0], nr[1], nr[2], nr[3], // mov eax, nr
        0x0f, 0x05, // syscall
        0xc3, // ret
        0x48, 0xc7, 0xc0, // mov rax, -ENOSYS
    ];
    code.extend(failure);
    code.push(0xc3); // ret
    code
}

impl Patch {
    /// Says whether a thread at this address would execute the rest of a call (its `syscall` or its `ret`).
    #[must_use]
    pub fn is_inside(&self, addr: u64) -> bool {
        addr > self.addr && addr < self.addr + self.call.len() as u64
    }

    /// Says whether the agent can take the function's place.
    #[must_use]
    pub fn is_detoured(&self) -> bool {
        self.detour.is_some()
    }

    /// Address of the call's `ret`.
    #[must_use]
    pub fn at_return(&self) -> u64 {
        self.addr + self.ret as u64
    }
}

/// How the functions are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// Each makes its system call.
    Calls,
    /// Those that the agent knows go there.
    Agent,
}

/// The vDSO of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vdso {
    pub start: u64,
    pub end: u64,
    /// Zero bytes at its end.
    pub tail: u64,
    pub patches: Vec<Patch>,
    /// What would tell the time there, where this machine can have it.
    pub agent: Option<Agent>,
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
        let function = |name: &str| -> Option<Range<usize>> {
            let symbol = file.dynamic_symbols().find(|symbol| symbol.name() == Ok(name))?;
            Some(symbol.address() as usize..(symbol.address() + symbol.size()) as usize)
        };
        let agent = match (function("__vdso_clock_gettime"), function("__vdso_gettimeofday")) {
            (Some(clock), Some(day)) => Agent::plan(&image, mapping.start, [clock, day], Stub::len() + 16, tail),
            _ => None,
        };
        let mut patches: Vec<Patch> = Vec::new();
        for (name, nr) in FUNCTIONS {
            let Some(offset) = function(name).map(|place| place.start) else { continue };
            let (call, ret) = match nr {
                libc::SYS_getrandom => (random_call(), RANDOM_RETURN),
                nr => (plain_call(nr as u32), CALL_RETURN),
            };
            let Some(original) = image.get(offset..offset + call.len()).map(<[u8]>::to_vec) else { continue };
            let addr = mapping.start + offset as u64;
            let detour = agent.as_ref().and_then(|agent| agent.jump_from(addr)).map(|jump| {
                let mut detour = original.clone();
                detour[..jump.len()].copy_from_slice(&jump);
                detour
            });
            let there = memory.read_vec(addr, call.len())?;
            if there != original && there != call && detour.as_ref().is_none_or(|detour| there != *detour) {
                return Err(Error::Unsupported(format!(
                    "somebody else has changed the vDSO of process {pid} at {addr:#x}"
                )));
            }
            patches.push(Patch { addr, original, call, ret, detour });
        }
        Ok(Vdso { start: mapping.start, end: mapping.end, tail, patches, agent })
    }

    /// Says whether a function is replaced.
    #[must_use]
    pub fn is_patched(&self, memory: &Memory) -> bool {
        let is_original =
            |patch: &Patch| memory.read_vec(patch.addr, patch.call.len()).is_ok_and(|bytes| bytes == patch.original);
        !self.patches.iter().all(is_original)
    }

    /// Replaces every function. No thread may stand inside one, see [`Vdso::is_inside`].
    pub fn patch(&self, memory: &Memory, with: With) -> Result<()> {
        self.patches.iter().try_for_each(|patch| {
            let replacement = match (with, &patch.detour) {
                (With::Agent, Some(detour)) => detour,
                (With::Agent, None) | (With::Calls, _) => &patch.call,
            };
            memory.force(patch.addr, replacement)
        })
    }

    /// Puts the original functions back. A thread may stand at a `syscall` or `ret` of a call, or in the agent; those must
    /// have left first.
    pub fn restore(&self, memory: &Memory) -> Result<()> {
        self.patches.iter().try_for_each(|patch| memory.force(patch.addr, &patch.original))
    }

    /// Says whether an address lies in the code of the vDSO.
    #[must_use]
    pub fn is_inside(&self, addr: u64) -> bool {
        (self.start..self.end - self.tail).contains(&addr)
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
        assert!(
            vdso.patches.iter().all(|patch| patch.call[patch.ret] == 0xc3 && patch.call.len() == patch.original.len())
        );
        assert!(vdso.agent.is_some() && vdso.patches.iter().filter(|patch| patch.detour.is_some()).count() == 2);
    }
}
