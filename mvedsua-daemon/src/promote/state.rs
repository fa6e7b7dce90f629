//! What the kernel keeps for a process beside its descriptors, and what a fork does not carry.
//!
//! While two versions run, calls that change such state are performed by the leader only. At a promotion it is read from
//! the one and set in the other.

use std::io;

use super::transfer;
use crate::ptrace::inject::Remote;
use crate::ptrace::memory::Memory;
use crate::ptrace::{Error, Pid, Result};
use std::os::fd::AsFd;

/// The three interval timers of `setitimer(2)`: interval and remaining time, seconds and microseconds each.
pub(crate) type IntervalTimers = [[u64; 4]; 3];

/// Reads the interval timers of the process that `remote` borrows a thread of.
pub(crate) fn interval_timers(remote: &mut Remote<'_>, memory: &Memory, scratch: u64) -> Result<IntervalTimers> {
    let mut timers = [[0; 4]; 3];
    for (which, timer) in timers.iter_mut().enumerate() {
        remote.call("getitimer", libc::SYS_getitimer, [which as u64, scratch, 0, 0, 0, 0])?;
        for (index, word) in timer.iter_mut().enumerate() {
            *word = memory.read_u64(scratch + 8 * index as u64)?;
        }
    }
    Ok(timers)
}

/// Arms the interval timers that are not idle.
pub(crate) fn set_interval_timers(
    remote: &mut Remote<'_>,
    memory: &Memory,
    scratch: u64,
    timers: &IntervalTimers,
) -> Result<()> {
    for (which, timer) in timers.iter().enumerate() {
        if timer[2] != 0 || timer[3] != 0 {
            let bytes: Vec<u8> = timer.iter().flat_map(|word| word.to_ne_bytes()).collect();
            memory.write(scratch, &bytes)?;
            remote.call("setitimer", libc::SYS_setitimer, [which as u64, scratch, 0, 0, 0, 0])?;
        }
    }
    Ok(())
}

/// Stops every interval timer.
pub(crate) fn stop_interval_timers(remote: &mut Remote<'_>, memory: &Memory, scratch: u64) -> Result<()> {
    memory.write(scratch, &[0; 32])?;
    for which in 0..3 {
        remote.call("setitimer", libc::SYS_setitimer, [which, scratch, 0, 0, 0, 0])?;
    }
    Ok(())
}

/// Refuses what cannot be moved yet.
pub(crate) fn check_movable(pid: Pid) -> Result<()> {
    let path = format!("/proc/{pid}/timers");
    let timers = std::fs::read_to_string(&path).unwrap_or_default();
    if !timers.trim().is_empty() {
        return Err(Error::Unsupported(format!(
            "process {pid} has POSIX timers (timer_create), which cannot be moved yet"
        )));
    }
    Ok(())
}

/// Gives the new leader the old one's resource limits.
pub(crate) fn copy_limits(from: Pid, to: Pid) -> Result<()> {
    for resource in 0..=libc::RLIMIT_RTTIME {
        let wanted = limit(from, resource, None)?;
        let have = limit(to, resource, None)?;
        if (have.rlim_cur, have.rlim_max) != (wanted.rlim_cur, wanted.rlim_max) {
            limit(to, resource, Some(&wanted))?;
        }
    }
    Ok(())
}

/// Sets a limit of a process, if one is given, and returns the one before.
fn limit(pid: Pid, resource: u32, new: Option<&libc::rlimit64>) -> Result<libc::rlimit64> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are null or refer to live values of the right type.
    if unsafe { libc::prlimit64(pid.0, resource, new, &raw mut old) } == -1 {
        return Err(Error::Request { op: "prlimit", tid: pid.main(), source: io::Error::last_os_error() });
    }
    Ok(old)
}

/// Gives the new leader the old one's working directory and file mode mask.
pub(crate) fn copy_surroundings(
    from: Pid,
    to: Pid,
    remote: &mut Remote<'_>,
    memory: &Memory,
    scratch: u64,
    above: u64,
) -> Result<()> {
    let cwd = |pid: Pid| std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
    if cwd(from) != cwd(to) {
        let directory = transfer::open_directory(&format!("/proc/{from}/cwd"))?;
        let fd = transfer::give_one(directory.as_fd(), above, to, remote, memory, scratch)?;
        remote.call("fchdir", libc::SYS_fchdir, [fd, 0, 0, 0, 0, 0])?;
        remote.call("close", libc::SYS_close, [fd, 0, 0, 0, 0, 0])?;
    }
    let status = std::fs::read_to_string(format!("/proc/{from}/status")).unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).map(str::trim);
    if let Some(umask) = umask.and_then(|text| u64::from_str_radix(text, 8).ok()) {
        remote.call("umask", libc::SYS_umask, [umask, 0, 0, 0, 0, 0])?;
    }
    Ok(())
}

/// The OOM killer's preference for a process.
pub(crate) fn oom_score(pid: Pid) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()
}

pub(crate) fn set_oom_score(pid: Pid, score: &str) {
    if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.trim()) {
        tracing::warn!(%pid, %error, "oom_score_adj could not be set");
    }
}
