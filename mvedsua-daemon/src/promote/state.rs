//! What the kernel keeps for a process beside its descriptors, and what a fork does not carry.
//!
//! While two versions run, calls that change such state are performed by the leader only. At a promotion it is read from
//! the one and set in the other.

use super::transfer;
use crate::ptrace::inject::Remote;
use crate::ptrace::memory::Memory;
use crate::ptrace::procfs::{self, Mapping};
use crate::ptrace::{Error, Pid, Result};
use std::os::fd::AsFd;

/// Refuses what cannot be moved yet: files that the leader maps shared and writable, of which the follower has a private
/// copy. (Shared memory without a name that nobody else has is as good as private; the preflight looks for others.)
pub(crate) fn check_movable(pid: Pid) -> Result<()> {
    const UNNAMED: &str = "/dev/zero (deleted)";
    let shared = |mapping: &Mapping| mapping.shared && mapping.writable && mapping.name != UNNAMED;
    match procfs::maps(pid)?.into_iter().find(shared) {
        None => Ok(()),
        Some(Mapping { start, name, .. }) => {
            let what = format!("{name} is mapped shared and writable at {start:#x}, which cannot be moved yet");
            Err(Error::Unsupported(format!("{what}: process {pid} can be rehearsed, but not promoted")))
        }
    }
}

/// Gives the new leader the old one's resource limits. They are set from inside: a daemon without `CAP_SYS_RESOURCE` may
/// not set those of another user's process.
pub(crate) fn copy_limits(from: Pid, to: Pid, remote: &mut Remote<'_>, memory: &Memory, scratch: u64) -> Result<()> {
    let have = limits(to)?;
    for (wanted, _) in limits(from)?.into_iter().zip(&have).filter(|(wanted, have)| wanted != *have) {
        set_limit(&wanted, remote, memory, scratch)?;
    }
    Ok(())
}

/// One resource limit, `getrlimit(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) resource: u32,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// The lines of `/proc/<pid>/limits` by resource, `fs/proc/base.c`.
const LIMITS: [(&str, u32); 16] = [
    ("Max cpu time", libc::RLIMIT_CPU),
    ("Max file size", libc::RLIMIT_FSIZE),
    ("Max data size", libc::RLIMIT_DATA),
    ("Max stack size", libc::RLIMIT_STACK),
    ("Max core file size", libc::RLIMIT_CORE),
    ("Max resident set", libc::RLIMIT_RSS),
    ("Max processes", libc::RLIMIT_NPROC),
    ("Max open files", libc::RLIMIT_NOFILE),
    ("Max locked memory", libc::RLIMIT_MEMLOCK),
    ("Max address space", libc::RLIMIT_AS),
    ("Max file locks", libc::RLIMIT_LOCKS),
    ("Max pending signals", libc::RLIMIT_SIGPENDING),
    ("Max msgqueue size", libc::RLIMIT_MSGQUEUE),
    ("Max nice priority", libc::RLIMIT_NICE),
    ("Max realtime priority", libc::RLIMIT_RTPRIO),
    ("Max realtime timeout", libc::RLIMIT_RTTIME),
];

/// Reads the limits of a process.
pub(crate) fn limits(pid: Pid) -> Result<Vec<Limit>> {
    let path = format!("/proc/{pid}/limits");
    let text = procfs::text(&path).map_err(|source| Error::Proc { path, source })?;
    Ok(parse_limits(&text))
}

fn parse_limits(text: &str) -> Vec<Limit> {
    let value = |word: &str| if word == "unlimited" { Some(libc::RLIM_INFINITY) } else { word.parse().ok() };
    let line = |(name, resource): &(&str, u32)| {
        let mut words = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
        Some(Limit { resource: *resource, soft: value(words.next()?)?, hard: value(words.next()?)? })
    };
    LIMITS.iter().filter_map(line).collect()
}

/// Reads the limit on descriptor numbers.
pub(crate) fn descriptor_limit(pid: Pid) -> Result<Option<Limit>> {
    Ok(limits(pid)?.into_iter().find(|limit| limit.resource == libc::RLIMIT_NOFILE))
}

/// Sets a limit of the process that `remote` borrows a thread of.
pub(crate) fn set_limit(limit: &Limit, remote: &mut Remote<'_>, memory: &Memory, scratch: u64) -> Result<()> {
    let bytes: Vec<u8> = [limit.soft, limit.hard].iter().flat_map(|word| word.to_ne_bytes()).collect();
    memory.write(scratch, &bytes)?;
    remote.call("prlimit64", libc::SYS_prlimit64, [0, u64::from(limit.resource), scratch, 0, 0, 0]).map(drop)
}

/// Locks in the new leader what the old one has locked into memory, which a fork does not. Pages that are not there yet are
/// locked when they come; a refusal changes nothing that the program sees.
pub(crate) fn copy_memory_locks(from: Pid, remote: &mut Remote<'_>) -> Result<()> {
    const MLOCK_ONFAULT: u64 = 1;
    let status = procfs::text(format!("/proc/{from}/status")).unwrap_or_default();
    if !locks_memory(&status) {
        return Ok(());
    }
    let path = format!("/proc/{from}/smaps");
    let text = procfs::text(&path).map_err(|source| Error::Proc { path, source })?;
    for (start, end) in locked_ranges(&text) {
        let ret = remote.raw(libc::SYS_mlock2, [start, end - start, MLOCK_ONFAULT, 0, 0, 0])?;
        if ret < 0 {
            let error = std::io::Error::from_raw_os_error(-ret as i32);
            tracing::warn!(start, end, %error, "memory that the old version has locked could not be locked");
        }
    }
    Ok(())
}

fn locks_memory(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    line.is_some_and(|line| line.split_whitespace().next() != Some("0"))
}

/// Returns the ranges with the flag `lo`, `proc_pid_smaps(5)`.
fn locked_ranges(smaps: &str) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let mut present = None;
    let parse = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    };
    for line in smaps.lines() {
        if let Some(range) = parse(line) {
            present = Some(range);
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && flags.split_whitespace().any(|flag| flag == "lo")
        {
            ranges.extend(present.take());
        }
    }
    ranges
}

/// Gives the new leader the old one's root, working directory and file mode mask.
pub(crate) fn copy_surroundings(
    from: Pid,
    to: Pid,
    remote: &mut Remote<'_>,
    memory: &Memory,
    scratch: u64,
    above: u64,
) -> Result<()> {
    let folder = |pid: Pid, which: &str| std::fs::read_link(format!("/proc/{pid}/{which}")).ok();
    let other_root = folder(from, "root") != folder(to, "root");
    if other_root {
        enter(from, "root", to, (remote, memory, scratch), above)?;
        memory.write(scratch, b".\0")?;
        remote.call("chroot", libc::SYS_chroot, [scratch, 0, 0, 0, 0, 0])?;
    }
    if other_root || folder(from, "cwd") != folder(to, "cwd") {
        enter(from, "cwd", to, (remote, memory, scratch), above)?;
    }
    let status = procfs::text(format!("/proc/{from}/status")).unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).map(str::trim);
    if let Some(umask) = umask.and_then(|text| u64::from_str_radix(text, 8).ok()) {
        remote.call("umask", libc::SYS_umask, [umask, 0, 0, 0, 0, 0])?;
    }
    Ok(())
}

/// Makes a folder of one process the working directory of another; `which` is its link in `/proc`.
fn enter(
    from: Pid,
    which: &str,
    to: Pid,
    (remote, memory, scratch): (&mut Remote<'_>, &Memory, u64),
    above: u64,
) -> Result<()> {
    let directory = transfer::open_directory(&format!("/proc/{from}/{which}"))?;
    let fd = transfer::give_one(directory.as_fd(), above, to, remote, memory, scratch)?;
    remote.call("fchdir", libc::SYS_fchdir, [fd, 0, 0, 0, 0, 0])?;
    remote.call("close", libc::SYS_close, [fd, 0, 0, 0, 0, 0]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_memory_is_found() {
        let text = "55d0a000-55d0b000 r--p 00000000 fe:00 77  /usr/bin/x-y\nLocked: 0 kB\nVmFlags: rd mr mw me sd \n\
                    7f00b000-7f00d000 rw-p 00000000 00:00 0 \nLocked: 8 kB\nVmFlags: rd wr mr mw me lo ac sd \n";
        assert_eq!(locked_ranges(text), [(0x7f00_b000, 0x7f00_d000)]);
        assert!(locks_memory("VmLck:\t       8 kB\n") && !locks_memory("VmLck:\t       0 kB\n"));
    }

    #[test]
    fn limits_are_read_from_proc() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            1024                 4096                 files     \n";
        let open_files = Limit { resource: libc::RLIMIT_NOFILE, soft: 1024, hard: 4096 };
        assert_eq!(parse_limits(text)[1], open_files);
        assert_eq!(parse_limits(text)[0].soft, libc::RLIM_INFINITY);
        let ours = limits(Pid(std::process::id() as i32)).expect("our limits");
        assert_eq!(ours.len(), LIMITS.len());
    }
}
