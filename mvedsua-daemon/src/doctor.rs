//! Says what the machine lacks, by trying it.
//!
//! Each check does what the daemon would do, on nothing that matters: it loads no program that stays, and traces a
//! child of its own. So the answer holds for this kernel, this user and this container.

use std::fs;
use std::io;

use aya::maps::MapType;
use aya::programs::ProgramType;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::ptrace::probe;

/// What came of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Something works less well.
    Weak,
    /// Something does not work.
    Missing,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub verdict: Verdict,
    /// What it is needed for.
    pub needed_for: String,
    /// What was found.
    pub found: String,
    /// What to do; empty where nothing is to be done.
    pub remedy: String,
}

/// Tries everything.
#[must_use]
pub fn check() -> Vec<Check> {
    let mut checks = vec![machine(), root(), capabilities(), btf()];
    let remedy = "a kernel with CONFIG_BPF_SYSCALL and CONFIG_BPF_EVENTS, and root";
    let program = aya::sys::is_program_supported(ProgramType::RawTracePoint).map_err(|e| e.to_string());
    checks.push(supported("raw tracepoints", "observing", program, remedy));
    let map = aya::sys::is_map_supported(MapType::RingBuf).map_err(|e| e.to_string());
    checks.push(supported("ring buffer", "slow calls", map, "a kernel of version 5.8 or later, and root"));
    checks.push(without_stops(crate::record::bulk::try_it()));
    checks.push(yama());
    checks.push(outcome("pidfd_getfd", "promoting", try_pidfd_getfd(), "a kernel of version 5.6 or later"));
    let works = |tried: io::Result<()>| tried.map(|()| "works".to_owned());
    let tried = probe::try_tracing();
    let container = "run it as root; a container needs CAP_SYS_PTRACE and a seccomp profile that allows ptrace";
    checks.push(outcome("ptrace", "updating", works(tried.seize), container));
    let remedy = "a kernel of version 5.3 or later";
    checks.push(outcome("PTRACE_GET_SYSCALL_INFO", "updating", works(tried.syscall_info), remedy));
    checks.push(outcome("PTRACE_SYSEMU", "updating", works(tried.sysemu), "a kernel for x86 that has it"));
    let remedy = "a kernel with CONFIG_CROSS_MEMORY_ATTACH";
    checks.push(outcome("process_vm_readv", "updating", works(tried.read_memory), remedy));
    checks
}

fn made(name: &str, needed_for: &str, verdict: Verdict, found: impl Into<String>, remedy: &str) -> Check {
    let remedy = if verdict == Verdict::Ok { "" } else { remedy };
    Check {
        name: name.to_owned(),
        verdict,
        needed_for: needed_for.to_owned(),
        found: found.into(),
        remedy: remedy.to_owned(),
    }
}

fn outcome(name: &str, needed_for: &str, tried: io::Result<String>, remedy: &str) -> Check {
    match tried {
        Ok(found) => made(name, needed_for, Verdict::Ok, found, remedy),
        Err(e) => made(name, needed_for, Verdict::Missing, e.to_string(), remedy),
    }
}

fn supported(name: &str, needed_for: &str, tried: Result<bool, String>, remedy: &str) -> Check {
    match tried {
        Ok(true) => made(name, needed_for, Verdict::Ok, "works", remedy),
        Ok(false) => made(name, needed_for, Verdict::Missing, "the kernel does not know it", remedy),
        Err(e) => made(name, needed_for, Verdict::Missing, e, remedy),
    }
}

fn machine() -> Check {
    let read =
        |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default().trim().to_owned();
    let found = format!("{} {} on {}", read("ostype"), read("osrelease"), std::env::consts::ARCH);
    let verdict = if std::env::consts::ARCH == "x86_64" { Verdict::Ok } else { Verdict::Missing };
    made("machine", "everything", verdict, found, "only 64-bit x86 machines are supported")
}

fn root() -> Check {
    let uid = nix::unistd::geteuid();
    let verdict = if uid.is_root() { Verdict::Ok } else { Verdict::Missing };
    made("root", "the daemon", verdict, format!("user {uid}"), "run the daemon as root")
}

/// The capabilities that are used, by their bit in `capabilities(7)`.
const CAPABILITIES: [(&str, u32); 5] =
    [("CAP_KILL", 5), ("CAP_SYS_PTRACE", 19), ("CAP_SYS_ADMIN", 21), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

fn capabilities() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing_capabilities(&status);
    let remedy = "run it as root, and give a container these capabilities";
    if missing.is_empty() {
        return made("capabilities", "everything", Verdict::Ok, "all that are used", remedy);
    }
    made("capabilities", "everything", Verdict::Missing, format!("without {}", missing.join(", ")), remedy)
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    CAPABILITIES.into_iter().filter(|(_, bit)| set & (1 << bit) == 0).map(|(name, _)| name).collect()
}

fn btf() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    let tried = fs::File::open(path).map(|_| path.to_owned());
    outcome("BTF", "observing", tried, "a kernel with CONFIG_DEBUG_INFO_BTF")
}

fn without_stops(tried: Result<(), String>) -> Check {
    let (verdict, found) = match tried {
        Ok(()) => (Verdict::Ok, "works".to_owned()),
        Err(why) => (Verdict::Weak, format!("the leader stops at each call: {why}")),
    };
    let remedy = "updates work, and slow the service down more; what the checks above lack is what this needs";
    made("recording", "updating without stops", verdict, found, remedy)
}

fn yama() -> Check {
    let path = "/proc/sys/kernel/yama/ptrace_scope";
    let scope = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let remedy = "the setting 3 can only be left by a reboot without it";
    match scope {
        None => made("yama", "updating", Verdict::Ok, "not there", remedy),
        Some(scope @ 0..=2) => {
            made("yama", "updating", Verdict::Ok, format!("ptrace_scope is {scope}, root may trace"), remedy)
        }
        Some(scope) => {
            made("yama", "updating", Verdict::Missing, format!("ptrace_scope is {scope}: nobody may trace"), remedy)
        }
    }
}

fn try_pidfd_getfd() -> io::Result<String> {
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let file = fs::File::open("/proc/self/status")?;
    pidfd_getfd(&own, std::os::fd::AsRawFd::as_raw_fd(&file), PidfdGetfdFlags::empty())?;
    Ok("works".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
        let missing = missing_capabilities("CapEff:\t000001fffff7ffff\n");
        assert_eq!(missing, ["CAP_SYS_PTRACE"]);
        assert_eq!(missing_capabilities("").len(), CAPABILITIES.len());
    }
}
