//! Looks at a process before anything of it is touched, and says what stands against an update (DESIGN 6.1).
//!
//! Everything is read from `/proc`; the process does not notice. Each finding has a reason and a remedy. What is found
//! here is refused *before* the fork; what begins later (an io_uring that is opened while two versions run) ends the
//! update when it appears.

mod room;
mod spinning;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::ptrace::procfs;
use crate::ptrace::tsc;

pub use self::spinning::spinning;

/// Says how much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// No update of the process is begun.
    Refuse,
    /// An update is possible; the operator should know.
    Warn,
}

/// Something that stands against an update, or that the operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    /// A short name for programs, such as `io_uring`.
    pub name: String,
    /// What was found, on what; of several that are alike, the first.
    pub reason: String,
    pub remedy: String,
    /// How many there are.
    #[serde(default = "one")]
    pub count: usize,
}

fn one() -> usize {
    1
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    pub pid: i32,
    pub threads: usize,
    pub descriptors: usize,
    /// Those that refuse first.
    pub findings: Vec<Finding>,
}

impl Preflight {
    /// Returns why no update can be begun; empty where one can.
    #[must_use]
    pub fn refusals(&self) -> Vec<String> {
        let refusing = self.findings.iter().filter(|finding| finding.severity == Severity::Refuse);
        refusing.map(|finding| format!("{}; {}", finding.reason, finding.remedy)).collect()
    }
}

/// Why a process could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("there is no process {pid}")]
    Gone { pid: i32 },
    #[error("cannot read {path}: {source}; looking at a process of somebody else needs root")]
    Read { path: String, source: io::Error },
}

/// Looks at a process.
///
/// # Errors
///
/// Where it is gone or may not be looked at.
pub fn inspect(pid: i32) -> Result<Preflight, InspectError> {
    let proc = Proc { pid };
    let status = lasting_status(&proc)?;
    let mut findings = of_status(pid, &status);
    if findings.iter().any(|finding| finding.name == "zombie" || finding.name == "kernel-thread") {
        // There is nothing else to look at.
        return Ok(Preflight { pid, threads: 0, descriptors: 0, findings });
    }
    let threads = proc.threads()?;
    for thread in &threads {
        // One that has ended meanwhile stands against nothing.
        let Ok(text) = procfs::text(format!("/proc/{pid}/task/{thread}/status")) else { continue };
        findings.extend(of_thread(*thread, &Status::parse(&text)));
    }
    findings.extend(of_architecture(&proc));
    findings.extend(of_namespace(&proc));
    findings.extend(of_counter(&proc));
    findings.extend(room::of_room(pid, threads.len()));
    let links = proc.descriptors()?;
    findings.extend(of_descriptors(&links));
    let maps = proc.read("maps")?;
    findings.extend(of_mappings(pid, &parse_maps(&maps)));
    findings.extend(of_children(pid));
    findings.sort_by(|a, b| (a.severity, &a.name).cmp(&(b.severity, &b.name)));
    findings.dedup_by(|a, b| a.name == b.name && a.reason == b.reason);
    let findings = grouped(findings);
    Ok(Preflight { pid, threads: threads.len(), descriptors: links.len(), findings })
}

/// Puts findings of one kind together: one line for all threads, or all mappings.
fn grouped(findings: Vec<Finding>) -> Vec<Finding> {
    let mut groups: Vec<Finding> = vec![];
    for finding in findings {
        let is_like = |group: &&mut Finding| {
            (group.severity, &group.name, &group.remedy) == (finding.severity, &finding.name, &finding.remedy)
        };
        match groups.iter_mut().find(is_like) {
            Some(group) => group.count += 1,
            None => groups.push(finding),
        }
    }
    for group in groups.iter_mut().filter(|group| group.count > 1) {
        group.reason = format!("{} (and {} more like it)", group.reason, group.count - 1);
    }
    groups
}

fn refuse(name: &str, reason: impl Into<String>, remedy: &str) -> Finding {
    finding(Severity::Refuse, name, reason, remedy)
}

fn finding(severity: Severity, name: &str, reason: impl Into<String>, remedy: &str) -> Finding {
    Finding { severity, name: name.to_owned(), reason: reason.into(), remedy: remedy.to_owned(), count: 1 }
}

fn warn(name: &str, reason: impl Into<String>, remedy: &str) -> Finding {
    finding(Severity::Warn, name, reason, remedy)
}

/// The files of one process.
struct Proc {
    pid: i32,
}

impl Proc {
    fn path(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid)
    }

    fn error(&self, path: String, source: io::Error) -> InspectError {
        if Path::new(&self.path("stat")).exists() {
            InspectError::Read { path, source }
        } else {
            InspectError::Gone { pid: self.pid }
        }
    }

    fn read(&self, name: &str) -> Result<String, InspectError> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(source) => Err(self.error(path, source)),
        }
    }

    fn names(&self, dir: &str) -> Result<Vec<String>, InspectError> {
        let path = self.path(dir);
        let entries = fs::read_dir(&path).map_err(|source| self.error(path, source))?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    fn threads(&self) -> Result<Vec<i32>, InspectError> {
        Ok(self.names("task")?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Returns number and target of each open descriptor.
    fn descriptors(&self) -> Result<Vec<(i32, String)>, InspectError> {
        let target = |name: &String| {
            let link = fs::read_link(self.path(&format!("fd/{name}"))).ok()?;
            Some((name.parse().ok()?, link.display().to_string()))
        };
        Ok(self.names("fd")?.iter().filter_map(target).collect())
    }
}

/// The lines of `/proc/<pid>/status` that matter, see `proc_pid_status(5)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Status {
    state: char,
    tracer: i32,
    seccomp: u32,
    shadow_stack: bool,
    kernel_thread: bool,
}

impl Status {
    fn parse(text: &str) -> Self {
        let mut status = Status { state: '?', ..Status::default() };
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name {
                "State" => status.state = value.chars().next().unwrap_or('?'),
                "TracerPid" => status.tracer = value.parse().unwrap_or(0),
                "Seccomp" => status.seccomp = value.parse().unwrap_or(0),
                "Kthread" => status.kernel_thread = value == "1",
                "x86_Thread_features" => status.shadow_stack = value.split_whitespace().any(|word| word == "shstk"),
                _ => {}
            }
        }
        status
    }
}

/// How long a process may be stopped that somebody is about to continue.
const STOPPED_FOR: Duration = Duration::from_secs(1);

/// Reads the status of a process, of one that is stopped when it has been so for a while.
fn lasting_status(proc: &Proc) -> Result<Status, InspectError> {
    let since = Instant::now();
    loop {
        let status = Status::parse(&proc.read("status")?);
        if status.state != 'T' || since.elapsed() > STOPPED_FOR {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn of_status(pid: i32, status: &Status) -> Vec<Finding> {
    let mut findings = vec![];
    match status.state {
        'Z' | 'X' => {
            findings.push(refuse("zombie", format!("process {pid} has ended"), "its parent has not collected it yet"));
        }
        'T' => {
            let remedy = "send it SIGCONT first; an update would let it run";
            findings.push(refuse("stopped", format!("process {pid} is stopped by a signal"), remedy));
        }
        _ => {}
    }
    if status.kernel_thread {
        findings.push(refuse(
            "kernel-thread",
            format!("process {pid} is a thread of the kernel"),
            "name another process",
        ));
    }
    findings
}

fn of_thread(tid: i32, status: &Status) -> Vec<Finding> {
    let mut findings = vec![];
    if status.tracer != 0 {
        let name = procfs::text(format!("/proc/{}/comm", status.tracer)).unwrap_or_default();
        let reason = format!("it is traced already, by process {} ({})", status.tracer, name.trim());
        findings.push(refuse("traced", reason, "end that debugger or tracer first; a process has one tracer at most"));
    }
    if status.seccomp != 0 {
        let reason = format!("thread {tid} is under seccomp (mode {})", status.seccomp);
        let remedy = "run the server without a system-call filter; injected calls would die in it";
        findings.push(refuse("seccomp", reason, remedy));
    }
    if status.shadow_stack {
        let reason = format!("thread {tid} has a shadow stack");
        let remedy = "run the server with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off";
        findings.push(refuse("shadow-stack", reason, remedy));
    }
    findings
}

/// A process that was there before us cannot be made to trap where it reads the counter: it would have to outlive its
/// tracer.
fn of_counter(proc: &Proc) -> Option<Finding> {
    tsc::is_read_by(Path::new(&proc.path("exe"))).unwrap_or(false).then(|| {
        let reason = "its program reads the processor's clock without a call (RDTSC), which is not recorded";
        warn("rdtsc", reason, "what it makes of the clock may be taken for a difference between the versions")
    })
}

fn of_architecture(proc: &Proc) -> Option<Finding> {
    let mut head = [0; 20];
    let path = proc.path("exe");
    let read = fs::File::open(&path).and_then(|mut file| file.read_exact(&mut head));
    if let Err(e) = read {
        let reason = format!("its executable cannot be read: {e}");
        return Some(refuse("executable", reason, "an executable that cannot be read cannot be verified"));
    }
    check_elf(&head)
}

/// Looks at the first bytes of an ELF file, `elf(5)`.
fn check_elf(head: &[u8; 20]) -> Option<Finding> {
    const CLASS_64: u8 = 2;
    const X86_64: u16 = 62;
    let machine = u16::from_le_bytes([head[18], head[19]]);
    let remedy = "only 64-bit x86 programs can be updated";
    if &head[..4] != b"\x7fELF" {
        return Some(refuse("executable", "its executable is no ELF file", remedy));
    }
    if head[4] != CLASS_64 {
        return Some(refuse("32-bit", "it is a 32-bit program", remedy));
    }
    (machine != X86_64).then(|| refuse("architecture", format!("it is a program for machine {machine}"), remedy))
}

fn of_namespace(proc: &Proc) -> Option<Finding> {
    let own = fs::read_link("/proc/self/ns/pid").ok()?;
    let theirs = fs::read_link(proc.path("ns/pid")).ok()?;
    let remedy = "run the daemon inside the container, where the process has its own number";
    (own != theirs).then(|| refuse("pid-namespace", "it is in another PID namespace", remedy))
}

/// Kinds of descriptors that stand against an update.
fn of_descriptors(links: &[(i32, String)]) -> Vec<Finding> {
    let mut findings = vec![];
    for (fd, target) in links {
        let reason = |what: &str| format!("descriptor {fd} is {what}");
        match target.as_str() {
            "anon_inode:[io_uring]" => {
                let remedy = "run the server without io_uring: its calls do not pass where they could be recorded";
                findings.push(refuse("io_uring", reason("an io_uring"), remedy));
            }
            "anon_inode:[userfaultfd]" => {
                let remedy = "page faults that the program answers itself cannot be replayed";
                findings.push(refuse("userfaultfd", reason("a userfaultfd"), remedy));
            }
            "anon_inode:[perf_event]" => {
                let remedy = "the new version goes on without this counter";
                findings.push(warn("perf-event", reason("a performance counter"), remedy));
            }
            target if target.starts_with("anon_inode:bpf") || target == "anon_inode:[bpf]" => {
                let remedy = "BPF objects are shared by both versions";
                findings.push(warn("bpf", reason("a BPF object"), remedy));
            }
            _ => {}
        }
    }
    findings
}

/// One line of `/proc/<pid>/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    range: String,
    access: String,
    /// Device and inode, which name a shared object.
    object: String,
    name: String,
}

impl Mapping {
    fn is_shared(&self) -> bool {
        self.access.ends_with('s')
    }

    fn is_shared_and_writable(&self) -> bool {
        self.is_shared() && self.access.contains('w')
    }

    /// Returns whether only this process and its descendants can ever map it.
    fn is_anonymous(&self) -> bool {
        self.name.starts_with("/dev/zero") || self.name.starts_with("/memfd:") || self.name.starts_with("[anon_shmem:")
    }
}

fn parse_maps(text: &str) -> Vec<Mapping> {
    let parse = |line: &str| {
        let mut fields = line.splitn(6, ' ');
        let (range, access) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let (_offset, device, inode) = (fields.next()?, fields.next()?, fields.next()?);
        let name = fields.next().unwrap_or("").trim().to_owned();
        Some(Mapping { range, access, object: format!("{device} {inode}"), name })
    };
    text.lines().filter_map(parse).collect()
}

fn of_mappings(pid: i32, maps: &[Mapping]) -> Vec<Finding> {
    let mut findings = vec![];
    if let Some(aio) = maps.iter().find(|mapping| mapping.name == "/[aio] (deleted)" || mapping.name == "/[aio]") {
        let remedy = "run the server without kernel AIO (io_submit): its results appear without a call";
        findings.push(refuse("aio", format!("{} is a ring of kernel AIO", aio.range), remedy));
    }
    let shared: Vec<&Mapping> =
        maps.iter().filter(|mapping| mapping.is_shared_and_writable() && !mapping.name.contains("[aio]")).collect();
    if shared.is_empty() {
        return findings;
    }
    let objects: BTreeSet<&str> = shared.iter().map(|mapping| mapping.object.as_str()).collect();
    let others = others_with(pid, &objects);
    for mapping in shared {
        let reason = |what: String| format!("the writable mapping {} of {} {what}", mapping.range, mapping.name);
        match others.iter().find(|(_, object)| *object == mapping.object) {
            Some((other, _)) => {
                let remedy = "memory that others write changes without a call, so the versions would part";
                findings.push(refuse("shared-memory", reason(format!("is shared with process {other}")), remedy));
            }
            None if mapping.is_anonymous() => {
                let remedy = "nobody else has it; each version gets a copy of its own";
                findings.push(warn("shared-memory", reason("is shared memory".to_owned()), remedy));
            }
            None => {
                let remedy = "a version that follows writes to a copy; the file is written by the one that leads";
                findings.push(warn("shared-file", reason("writes to a file".to_owned()), remedy));
            }
        }
    }
    findings
}

/// Returns which other processes map one of these objects, and which.
fn others_with(pid: i32, objects: &BTreeSet<&str>) -> Vec<(i32, String)> {
    let mut found = vec![];
    for other in all_pids().into_iter().filter(|other| *other != pid) {
        let Ok(maps) = fs::read(format!("/proc/{other}/maps")) else { continue };
        let maps = parse_maps(&String::from_utf8_lossy(&maps));
        let shared =
            maps.into_iter().filter(|mapping| mapping.is_shared() && objects.contains(mapping.object.as_str()));
        found.extend(shared.map(|mapping| (other, mapping.object)));
    }
    found
}

fn all_pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn of_children(pid: i32) -> Option<Finding> {
    let is_child = |other: &i32| {
        let stat = procfs::text(format!("/proc/{other}/stat")).unwrap_or_default();
        parse_parent(&stat) == Some(pid)
    };
    let children: Vec<i32> = all_pids().into_iter().filter(is_child).collect();
    if children.is_empty() {
        return None;
    }
    let remedy = "they run on unobserved, in the version that made them; only this process is updated";
    Some(warn("children", format!("it has child processes: {children:?}"), remedy))
}

/// Returns the parent of a process that has not ended, from its `stat`.
fn parse_parent(stat: &str) -> Option<i32> {
    let mut fields = stat.rsplit_once(") ")?.1.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.next()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests;
