//! The gate: one thin function per `ptrace(2)` request and its kin.
//!
//! All functions must be called from the thread that attached (the kernel answers ESRCH otherwise); [`super::wait::Inbox`]
//! is `!Send` and every caller holds one, which keeps the rule.

use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;

use super::{Error, Pid, Result, Tid};

pub type Regs = libc::user_regs_struct;

const PTRACE_GETSIGMASK: u32 = 0x420a;
const PTRACE_SETSIGMASK: u32 = 0x420b;
const PTRACE_GET_SYSCALL_INFO: u32 = 0x420e;
const PTRACE_GET_RSEQ_CONFIGURATION: u32 = 0x420f;
const PTRACE_SYSEMU: u32 = 31;
const NT_X86_XSTATE: usize = 0x202;

/// Options for the leader: nothing that would end it with us.
pub const OPTIONS_LEADER: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC;
/// Options for a follower: it ends with its tracer.
pub const OPTIONS_FOLLOWER: i32 = OPTIONS_LEADER | libc::PTRACE_O_EXITKILL;

fn request(op: &'static str, request: u32, tid: Tid, addr: usize, data: usize) -> Result<i64> {
    // SAFETY: the requests used in this file take plain integers or pointers to buffers that the callers below own and
    // that live across the call; the kernel checks everything else.
    let ret = unsafe { libc::ptrace(request, tid.0, addr as *mut c_void, data as *mut c_void) };
    if ret == -1 {
        return Err(Error::Request { op, tid, source: io::Error::last_os_error() });
    }
    Ok(ret)
}

/// Attaches without stopping (`PTRACE_SEIZE`).
pub fn seize(tid: Tid, options: i32) -> Result<()> {
    request("PTRACE_SEIZE", libc::PTRACE_SEIZE, tid, 0, options as usize).map(drop)
}

pub fn set_options(tid: Tid, options: i32) -> Result<()> {
    request("PTRACE_SETOPTIONS", libc::PTRACE_SETOPTIONS, tid, 0, options as usize).map(drop)
}

/// Asks a running thread to stop; it reports a `PTRACE_EVENT_STOP`.
pub fn interrupt(tid: Tid) -> Result<()> {
    request("PTRACE_INTERRUPT", libc::PTRACE_INTERRUPT, tid, 0, 0).map(drop)
}

pub fn detach(tid: Tid, signo: i32) -> Result<()> {
    request("PTRACE_DETACH", libc::PTRACE_DETACH, tid, 0, signo as usize).map(drop)
}

/// How a stopped thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Until a signal or event.
    Cont,
    /// Until the next entry or exit of a call.
    Syscall,
    /// Until the next call, which is then not executed.
    Sysemu,
    /// Stay in a group stop, but report what comes.
    Listen,
}

pub fn resume(tid: Tid, how: Resume, signo: i32) -> Result<()> {
    let (op, req) = match how {
        Resume::Cont => ("PTRACE_CONT", libc::PTRACE_CONT),
        Resume::Syscall => ("PTRACE_SYSCALL", libc::PTRACE_SYSCALL),
        Resume::Sysemu => ("PTRACE_SYSEMU", PTRACE_SYSEMU),
        Resume::Listen => ("PTRACE_LISTEN", libc::PTRACE_LISTEN),
    };
    request(op, req, tid, 0, signo as usize).map(drop)
}

/// Lets a stopped thread execute one instruction.
#[cfg(test)]
pub fn step(tid: Tid) -> Result<()> {
    request("PTRACE_SINGLESTEP", libc::PTRACE_SINGLESTEP, tid, 0, 0).map(drop)
}

pub fn get_regs(tid: Tid) -> Result<Regs> {
    let mut regs = MaybeUninit::<Regs>::uninit();
    request("PTRACE_GETREGS", libc::PTRACE_GETREGS, tid, 0, regs.as_mut_ptr() as usize)?;
    // SAFETY: the request succeeded, so the kernel filled the whole structure.
    Ok(unsafe { regs.assume_init() })
}

pub fn set_regs(tid: Tid, regs: &Regs) -> Result<()> {
    request("PTRACE_SETREGS", libc::PTRACE_SETREGS, tid, 0, std::ptr::from_ref(regs) as usize).map(drop)
}

/// Sets the result register alone.
pub fn set_result(tid: Tid, value: i64) -> Result<()> {
    let offset = std::mem::offset_of!(Regs, rax);
    request("PTRACE_POKEUSER", libc::PTRACE_POKEUSER, tid, offset, value as usize).map(drop)
}

/// Sets the number of a call at its entry; -1 for none, which the kernel answers with `ENOSYS`.
pub fn set_number(tid: Tid, nr: i64) -> Result<()> {
    let offset = std::mem::offset_of!(Regs, orig_rax);
    request("PTRACE_POKEUSER", libc::PTRACE_POKEUSER, tid, offset, nr as usize).map(drop)
}

/// Which argument of a call says where its limit of time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeArg {
    Fourth,
    Fifth,
}

/// Sets that argument alone.
pub fn set_time_arg(tid: Tid, arg: TimeArg, value: u64) -> Result<()> {
    let offset = match arg {
        TimeArg::Fourth => std::mem::offset_of!(Regs, r10),
        TimeArg::Fifth => std::mem::offset_of!(Regs, r8),
    };
    request("PTRACE_POKEUSER", libc::PTRACE_POKEUSER, tid, offset, value as usize).map(drop)
}

/// Reads the extended state (x87, SSE, AVX, … in the kernel's XSAVE layout).
pub fn get_xstate(tid: Tid) -> Result<Vec<u8>> {
    // What is kept is much smaller than what it could be.
    let mut buffer = [MaybeUninit::<u8>::uninit(); 16 << 10];
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    request("PTRACE_GETREGSET", libc::PTRACE_GETREGSET, tid, NT_X86_XSTATE, &raw mut iov as usize)?;
    let filled = &buffer[..iov.iov_len];
    // SAFETY: the request succeeded, so the kernel wrote that many bytes.
    Ok(filled.iter().map(|byte| unsafe { byte.assume_init() }).collect())
}

pub fn set_xstate(tid: Tid, state: &[u8]) -> Result<()> {
    let iov = libc::iovec { iov_base: state.as_ptr().cast_mut().cast(), iov_len: state.len() };
    request("PTRACE_SETREGSET", libc::PTRACE_SETREGSET, tid, NT_X86_XSTATE, &raw const iov as usize).map(drop)
}

pub fn get_sigmask(tid: Tid) -> Result<u64> {
    let mut mask = 0u64;
    request("PTRACE_GETSIGMASK", PTRACE_GETSIGMASK, tid, 8, &raw mut mask as usize)?;
    Ok(mask)
}

pub fn set_sigmask(tid: Tid, mask: u64) -> Result<()> {
    request("PTRACE_SETSIGMASK", PTRACE_SETSIGMASK, tid, 8, &raw const mask as usize).map(drop)
}

/// Says whether a signal waits for a stopped thread, or for its process, that the thread does not block.
pub fn has_open_signal(tid: Tid) -> Result<bool> {
    const PTRACE_PEEKSIGINFO: u32 = 0x4209;
    const SHARED: u32 = 1;
    const AT_ONCE: usize = 8;
    let mut blocked = None;
    for queue in [0, SHARED] {
        let mut from = 0u64;
        loop {
            // struct ptrace_peeksiginfo_args: off u64, flags u32, nr i32.
            let args = [from, u64::from(queue) | (AT_ONCE as u64) << 32];
            let mut infos = [[0u8; 128]; AT_ONCE];
            let data = infos.as_mut_ptr() as usize;
            let got = request("PTRACE_PEEKSIGINFO", PTRACE_PEEKSIGINFO, tid, args.as_ptr() as usize, data)?;
            for info in &infos[..got as usize] {
                let signo = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                let mask = match blocked {
                    Some(mask) => mask,
                    None => *blocked.insert(get_sigmask(tid)?),
                };
                if (1..=64).contains(&signo) && mask & 1 << (signo - 1) == 0 {
                    return Ok(true);
                }
            }
            if (got as usize) < AT_ONCE {
                break;
            }
            from += AT_ONCE as u64;
        }
    }
    Ok(false)
}

/// The kernel's `siginfo_t`, 128 bytes.
pub type SigInfo = [u8; 128];

pub fn get_siginfo(tid: Tid) -> Result<SigInfo> {
    let mut info = [0u8; 128];
    request("PTRACE_GETSIGINFO", libc::PTRACE_GETSIGINFO, tid, 0, info.as_mut_ptr() as usize)?;
    Ok(info)
}

pub fn set_siginfo(tid: Tid, info: &SigInfo) -> Result<()> {
    request("PTRACE_SETSIGINFO", libc::PTRACE_SETSIGINFO, tid, 0, info.as_ptr() as usize).map(drop)
}

/// Whose queue of waiting signals is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingOf {
    Thread,
    Process,
}

/// Reads the signals that wait for a stopped thread, or for its process, without taking them.
pub fn peek_siginfo(tid: Tid, of: PendingOf) -> Result<Vec<SigInfo>> {
    const AT_ONCE: usize = 16;
    let flags = u32::from(of == PendingOf::Process);
    let mut found = Vec::new();
    loop {
        // struct ptrace_peeksiginfo_args: offset u64, flags u32, count i32.
        let asked = [found.len() as u64, u64::from(flags) | (AT_ONCE as u64) << 32];
        let mut room = [[0u8; 128]; AT_ONCE];
        let got = request(
            "PTRACE_PEEKSIGINFO",
            libc::PTRACE_PEEKSIGINFO,
            tid,
            asked.as_ptr() as usize,
            room.as_mut_ptr() as usize,
        )?;
        found.extend_from_slice(&room[..got as usize]);
        if (got as usize) < AT_ONCE {
            return Ok(found);
        }
    }
}

/// Says whether a signal is the kernel's answer to what its thread has just executed, sigaction(2): nobody sent it.
#[must_use]
pub fn is_fault(signo: i32, info: &SigInfo) -> bool {
    let code = i32::from_ne_bytes([info[8], info[9], info[10], info[11]]);
    let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];
    code > 0 && faults.contains(&signo)
}

/// Says whether any signal waits for a stopped thread or for its process, blocked or not. (What is blocked for the time of one
/// call only, as by `ppoll`, `PTRACE_GETSIGMASK` does not tell.)
pub fn has_pending_signal(tid: Tid) -> Result<bool> {
    Ok(!peek_siginfo(tid, PendingOf::Thread)?.is_empty() || !peek_siginfo(tid, PendingOf::Process)?.is_empty())
}

pub fn event_message(tid: Tid) -> Result<u64> {
    let mut message = 0u64;
    request("PTRACE_GETEVENTMSG", libc::PTRACE_GETEVENTMSG, tid, 0, &raw mut message as usize)?;
    Ok(message)
}

/// Where in a call a thread stands, as the kernel says (no toggled flag can drift from it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyscallStop {
    Entry {
        nr: u32,
        args: [u64; 6],
    },
    Exit {
        ret: i64,
    },
    /// At an entry whose call was undone (or never was one: its number is negative).
    Undone,
    /// At a call of another architecture.
    Foreign,
    /// Not at a system-call stop.
    Neither,
}

pub fn syscall_info(tid: Tid) -> Result<SyscallStop> {
    // struct ptrace_syscall_info: op u8, pad, arch u32, ip u64, sp u64, then a union at 24.
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    let mut info = [0u64; 12];
    request("PTRACE_GET_SYSCALL_INFO", PTRACE_GET_SYSCALL_INFO, tid, size_of_val(&info), info.as_mut_ptr() as usize)?;
    Ok(match info[0] as u8 {
        1 | 2 if (info[0] >> 32) as u32 != AUDIT_ARCH_X86_64 => SyscallStop::Foreign,
        1 if (info[3] as i32) < 0 => SyscallStop::Undone,
        1 => SyscallStop::Entry { nr: info[3] as u32, args: [info[4], info[5], info[6], info[7], info[8], info[9]] },
        2 => SyscallStop::Exit { ret: info[3] as i64 },
        _ => SyscallStop::Neither,
    })
}

/// A thread's restartable-sequence registration; `addr` is 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rseq {
    pub addr: u64,
    pub size: u32,
    pub signature: u32,
    pub flags: u32,
}

pub fn get_rseq(tid: Tid) -> Result<Rseq> {
    let mut raw = [0u32; 6];
    request("PTRACE_GET_RSEQ_CONFIGURATION", PTRACE_GET_RSEQ_CONFIGURATION, tid, 24, raw.as_mut_ptr() as usize)?;
    Ok(Rseq { addr: u64::from(raw[0]) | u64::from(raw[1]) << 32, size: raw[2], signature: raw[3], flags: raw[4] })
}

/// Returns a thread's robust-futex list head and its length, `get_robust_list(2)`.
pub fn get_robust_list(tid: Tid) -> Result<(u64, u64)> {
    let (mut head, mut len) = (0u64, 0u64);
    // SAFETY: both pointers refer to live locals of the size that the call writes.
    let ret = unsafe { libc::syscall(libc::SYS_get_robust_list, tid.0, &raw mut head, &raw mut len) };
    if ret == -1 {
        return Err(Error::Request { op: "get_robust_list", tid, source: io::Error::last_os_error() });
    }
    Ok((head, len))
}

/// Returns the processor time that a process has used, all its threads together, `clock_getcpuclockid(3)`.
#[must_use]
pub fn cpu_time(pid: Pid) -> Option<std::time::Duration> {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: both places are live locals of the types that the calls write.
    let ok = unsafe {
        libc::clock_getcpuclockid(pid.0, &raw mut clock) == 0 && libc::clock_gettime(clock, &raw mut time) == 0
    };
    ok.then(|| std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Says whether two processes work on the same memory, `kcmp(2)`; not where that cannot be told.
#[must_use]
pub fn shares_memory(one: Pid, other: Pid) -> bool {
    const KCMP_VM: i32 = 1;
    // SAFETY: takes integers only.
    unsafe { libc::syscall(libc::SYS_kcmp, one.0, other.0, KCMP_VM, 0, 0) == 0 }
}

/// Sends a signal to a whole process.
pub fn kill(pid: Pid, signo: i32) -> Result<()> {
    // SAFETY: takes integers only.
    if unsafe { libc::kill(pid.0, signo) } == -1 {
        return Err(Error::Request { op: "kill", tid: pid.main(), source: io::Error::last_os_error() });
    }
    Ok(())
}

/// Sees that a program that this process starts gets no descriptor of it beyond the first three.
pub fn close_on_exec() -> std::io::Result<()> {
    // SAFETY: it changes nothing but a flag of this process's own descriptors.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
