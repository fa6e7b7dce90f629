//! The processor's time stamp counter, which programs can read without a system call.
//!
//! A thread for which `PR_SET_TSC` says so gets a SIGSEGV where it executes `RDTSC` or `RDTSCP` (prctl(2); the kernel turns
//! the general protection fault into the signal, `arch/x86/kernel/traps.c`, so its code is `SI_KERNEL`). The tracer then
//! executes the instruction for it. The setting is inherited by threads and children and outlives an `execve`.
//!
//! A thread that is trapped must not outlive its tracer: nobody would execute the instruction for it then. So the counter is
//! trapped only in programs that we have started, which then end with us, never in one that was running before. The vDSO's
//! functions read it too and must all be calls there.
//!
//! What a program's libraries read is stopped by other means, see [`sites`].
//!
//! The kernel delivers the fault by force: where the thread blocks SIGSEGV it is unblocked for good. Programs that block
//! it *and* read the counter see that.

pub(crate) mod sites;

use std::arch::x86_64::{__rdtscp, _rdtsc};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
use memchr::memmem;
use mvedsua_common::syscalls::instructions::{RDTSC, RDTSCP};
use object::{Object, ObjectSegment, SegmentFlags};

use super::inject::Remote;
use super::memory::Memory;
use super::sys::{self, Regs};
use super::{Error, Result, Tid};

/// What reading the counter does, for `PR_SET_TSC`, `include/uapi/linux/prctl.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    Allowed = 1,
    Trapped = 2,
}

/// What of a process is changed so that its reads of the counter are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trapped {
    /// What reading does in its threads.
    pub(crate) reads: Reads,
    /// Threads that have chosen by themselves what it does.
    pub(crate) own: BTreeSet<Tid>,
    /// Instructions of its libraries that were replaced, with their addresses.
    pub(crate) sites: Vec<(u64, sites::Site)>,
}

impl Default for Trapped {
    fn default() -> Self {
        Trapped { reads: Reads::Allowed, own: BTreeSet::new(), sites: Vec::new() }
    }
}

impl Trapped {
    /// Puts the instructions back that were replaced, as far as they are there still.
    pub(crate) fn restore(&self, memory: &Memory) -> Result<()> {
        for (addr, site) in &self.sites {
            let mut there = [0; 3];
            let there = &mut there[..site.trap().len()];
            if memory.read_some(*addr, there) == there.len() && *there == *site.trap() {
                memory.force(*addr, site.bytes())?;
            }
        }
        Ok(())
    }

    /// Replaces instructions in a copy of what stands at an address.
    pub(crate) fn replace_in(&self, addr: u64, bytes: &mut [u8]) {
        for (place, site) in &self.sites {
            let at = place.checked_sub(addr).and_then(|at| usize::try_from(at).ok());
            if let Some(there) = at.and_then(|at| bytes.get_mut(at..at + site.trap().len()))
                && *there == *site.bytes()
            {
                there.copy_from_slice(site.trap());
            }
        }
    }

    /// Says whether a thread's own instructions are trapped for us, and not because the program wants it so.
    fn is_ours(&self, tid: Tid) -> bool {
        self.reads == Reads::Trapped && !self.own.contains(&tid)
    }
}

/// The code of a signal that the kernel sends for a reason without a code of its own.
const SI_KERNEL: i32 = 0x80;
/// How far before a candidate decoding begins, and from how many places: instructions fall into step within a few bytes.
const RUN_UP: usize = 48;
const STARTS: usize = 16;

/// What the counter said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) stamp: u64,
    /// `IA32_TSC_AUX`.
    pub(crate) aux: u32,
}

/// Sets what reading the counter does in a thread, and in those that it starts.
pub(crate) fn set(remote: &mut Remote<'_>, reads: Reads) -> Result<()> {
    remote.call("prctl", libc::SYS_prctl, [libc::PR_SET_TSC as u64, reads as u64, 0, 0, 0, 0]).map(drop)
}

/// Executes the instruction for a thread that is not recorded; says whether it was stopped at one.
pub(crate) fn execute_trapped(tid: Tid, signo: i32, memory: &Memory, clock: &Trapped) -> Result<bool> {
    let Some(nr) = trapped(tid, signo, memory, clock)? else { return Ok(false) };
    let mut regs = sys::get_regs(tid)?;
    execute(&mut regs, nr, read());
    sys::set_regs(tid, &regs).map(|()| true)
}

/// Returns which instruction a thread was stopped at by a SIGSEGV, if it is one that reads the counter and is trapped for us.
pub(crate) fn trapped(tid: Tid, signo: i32, memory: &Memory, clock: &Trapped) -> Result<Option<u32>> {
    if signo != libc::SIGSEGV {
        return Ok(None);
    }
    let info = sys::get_siginfo(tid)?;
    if i32::from_ne_bytes([info[8], info[9], info[10], info[11]]) != SI_KERNEL {
        return Ok(None);
    }
    let mut code = [0; 3];
    let got = memory.read_some(sys::get_regs(tid)?.rip, &mut code);
    Ok(match &code[..got] {
        [0x0f, 0x31, ..] if clock.is_ours(tid) => Some(RDTSC),
        [0x0f, 0x01, 0xf9, ..] if clock.is_ours(tid) => Some(RDTSCP),
        code => sites::replaced(code),
    })
}

/// Reads the counter.
pub(crate) fn read() -> Reading {
    let mut aux = 0;
    // SAFETY: every x86-64 processor has RDTSC; RDTSCP came with the first that had an invariant counter, and a thread is
    // trapped at it only where it exists.
    let stamp = unsafe { if has_rdtscp() { __rdtscp(&raw mut aux) } else { _rdtsc() } };
    Reading { stamp, aux }
}

fn has_rdtscp() -> bool {
    std::arch::x86_64::__cpuid(0x8000_0001).edx & (1 << 27) != 0
}

/// Changes the registers as the instruction would have.
pub(crate) fn execute(regs: &mut Regs, nr: u32, reading: Reading) {
    regs.rax = reading.stamp & 0xffff_ffff;
    regs.rdx = reading.stamp >> 32;
    if nr == RDTSCP {
        regs.rcx = u64::from(reading.aux);
        regs.rip += 3;
    } else {
        regs.rip += 2;
    }
}

/// What is known of executable files, by device, inode and time of the last change.
static KNOWN: Mutex<BTreeMap<(u64, u64, i64, i64), bool>> = Mutex::new(BTreeMap::new());

/// Says whether the code of an executable file reads the counter itself; its libraries are not looked at.
pub(crate) fn is_read_by(path: &Path) -> Result<bool> {
    let failed = |source| Error::Proc { path: path.display().to_string(), source };
    let meta = std::fs::metadata(path).map_err(failed)?;
    let key = (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec());
    if let Some(known) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(*known);
    }
    let is_read = is_read_in_file(&std::fs::read(path).map_err(failed)?);
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(key, is_read);
    Ok(is_read)
}

fn is_read_in_file(bytes: &[u8]) -> bool {
    let Ok(file) = object::File::parse(bytes) else { return false };
    let mut codes = file.segments().filter(|segment| is_executable(segment.flags()));
    codes.any(|segment| segment.data().is_ok_and(is_read_in))
}

fn is_executable(flags: SegmentFlags) -> bool {
    matches!(flags, SegmentFlags::Elf { p_flags } if p_flags & object::elf::PF_X != 0)
}

/// Says whether machine code reads the counter. The two bytes of the instruction are found in constants and addresses too,
/// so it counts only where most ways to decode what is before it arrive there.
fn is_read_in(code: &[u8]) -> bool {
    let candidates = memmem::find_iter(code, &[0x0f, 0x31]).chain(memmem::find_iter(code, &[0x0f, 0x01, 0xf9]));
    candidates.into_iter().any(|at| {
        let first = at.saturating_sub(RUN_UP);
        let starts = first..(first + STARTS).min(at + 1);
        let all = starts.len();
        2 * starts.filter(|start| arrives(&code[*start..], at - start)).count() > all
    })
}

/// Says whether decoding from the beginning of `code` comes to an instruction at `offset` that reads the counter.
fn arrives(code: &[u8], offset: usize) -> bool {
    let end = code.len().min(offset + 16);
    let mut decoder = Decoder::new(64, &code[..end], DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() && decoder.position() <= offset {
        let at = decoder.position();
        decoder.decode_out(&mut instruction);
        if at == offset {
            return matches!(instruction.mnemonic(), Mnemonic::Rdtsc | Mnemonic::Rdtscp);
        }
        if instruction.is_invalid() {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_told_from_a_constant_that_looks_like_one() {
        // push rbp; mov rbp, rsp; nops; rdtsc; shl rdx, 32; or rax, rdx; pop rbp; ret
        let mut code = vec![0x55, 0x48, 0x89, 0xe5];
        code.extend([0x90; 60]);
        code.extend([0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x5d, 0xc3]);
        assert!(is_read_in(&code));
        // The same bytes inside of `mov eax, 0x90310f90`.
        let mut constant = vec![0x55, 0x48, 0x89, 0xe5];
        (0..12).for_each(|_| constant.extend([0xb8, 0x90, 0x0f, 0x31, 0x90]));
        constant.extend([0x5d, 0xc3]);
        assert!(!is_read_in(&constant));
        assert!(!is_read_in(&[0x0f]) && !is_read_in(&[]));
    }

    #[test]
    fn what_the_instruction_does_to_the_registers() {
        // SAFETY: the structure holds integers only, for which zero is valid.
        let mut regs: Regs = unsafe { std::mem::zeroed() };
        regs.rip = 0x1000;
        execute(&mut regs, RDTSCP, Reading { stamp: 0x1_2345_6789, aux: 3 });
        assert_eq!((regs.rax, regs.rdx, regs.rcx, regs.rip), (0x2345_6789, 1, 3, 0x1003));
        execute(&mut regs, RDTSC, Reading { stamp: 7, aux: 0 });
        assert_eq!((regs.rax, regs.rdx, regs.rcx, regs.rip), (7, 0, 3, 0x1005));
    }

    #[test]
    fn the_counter_goes_forward() {
        let before = read();
        assert!(read().stamp > before.stamp);
    }
}
