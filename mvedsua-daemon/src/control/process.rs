//! What the control plane knows of processes: who they are, what they run, and how to find them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::package::BuildId;
use crate::ptrace::procfs;

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks from the boot to the start of the process.
    pub start_time: u64,
}

impl ProcessId {
    /// Identifies a process that runs now.
    ///
    /// # Errors
    ///
    /// Where there is no such process.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = procfs::text(format!("/proc/{pid}/stat"))?;
        let start_time = parse_start_time(&stat)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat does not read as expected: {stat:?}")))?;
        Ok(ProcessId { pid, start_time })
    }

    /// Returns whether this very process still runs (a zombie does not).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let stat = procfs::text(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = after_name(&stat).and_then(|rest| rest.split_whitespace().next());
        parse_start_time(&stat) == Some(self.start_time) && !matches!(state, Some("Z" | "X"))
    }
}

/// Returns what follows the name in `/proc/<pid>/stat`; the name itself may hold spaces and parentheses.
fn after_name(stat: &str) -> Option<&str> {
    stat.rsplit_once(") ").map(|(_, rest)| rest)
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The state is field 3.
    after_name(stat)?.split_whitespace().nth(22 - 3)?.parse().ok()
}

/// Returns the parent of a process.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = procfs::text(format!("/proc/{pid}/stat")).ok()?;
    after_name(&stat)?.split_whitespace().nth(1)?.parse().ok()
}

/// Returns how long a process has computed in user space, all its threads together; the kernel counts in ticks.
#[must_use]
pub fn user_time(pid: i32) -> Option<Duration> {
    let stat = procfs::text(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = after_name(&stat)?.split_whitespace().nth(14 - 3)?.parse().ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(Duration::from_millis(ticks * 1000 / u64::try_from(per_second).ok()?.max(1)))
}

/// Returns how long a process has computed, in user space and in the kernel, all its threads together.
#[must_use]
pub fn processor_time(pid: i32) -> Option<Duration> {
    crate::ptrace::sys::cpu_time(crate::ptrace::Pid(pid))
}

/// The four user ids of a process (real, effective, saved, file system).
///
/// # Errors
///
/// Where there is no such process.
pub fn uids_of(pid: i32) -> io::Result<[u32; 4]> {
    let status = procfs::text(format!("/proc/{pid}/status"))?;
    parse_uids(&status).ok_or_else(|| io::Error::other(format!("/proc/{pid}/status has no line of user ids")))
}

fn parse_uids(status: &str) -> Option<[u32; 4]> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let ids: Vec<u32> = line.split_whitespace().map_while(|id| id.parse().ok()).collect();
    ids.try_into().ok()
}

/// What a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The path of the executable; ends in ` (deleted)` when another file has taken its place.
    pub exe: String,
    /// The build-id of what is really mapped, where the executable has one.
    pub build_id: Option<String>,
    /// The name that it was started by, where that is another one than the file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_as: Option<String>,
}

impl Program {
    /// Returns the path of the executable, and the name that it was started by, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        let exe = if self.exe.is_empty() { "?" } else { &self.exe };
        self.started_as.as_ref().map_or_else(|| exe.to_owned(), |name| format!("{exe}, started as {name}"))
    }
}

/// Returns what a process runs, as far as it can be read.
#[must_use]
pub fn program_of(pid: i32) -> Program {
    let link = PathBuf::from(format!("/proc/{pid}/exe"));
    let exe = fs::read_link(&link).map(|path| path.display().to_string()).unwrap_or_default();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Program {
        started_as: started_as(&arguments).filter(|name| file_name(&exe) != Some(name)),
        exe,
        // The link leads to the mapped file itself, even when its path names another one by now.
        build_id: BuildId::of_file(&link).map(|id| id.to_string()),
    }
}

/// Returns the name of the file that a process runs, by which its packages are found.
#[must_use]
pub fn name_of(program: &Program) -> Option<&str> {
    file_name(&program.exe)
}

fn file_name(exe: &str) -> Option<&str> {
    Path::new(exe.strip_suffix(" (deleted)").unwrap_or(exe)).file_name()?.to_str()
}

/// Returns the name that a program was started by, from its arguments. Servers that write there what they do begin with it.
fn started_as(arguments: &[u8]) -> Option<String> {
    let first = arguments.split(|byte| *byte == 0).next()?;
    let first = str::from_utf8(first).ok()?.split_whitespace().next()?;
    // A shell that somebody logs in with begins with a hyphen.
    let name = Path::new(first.trim_end_matches(':').trim_start_matches('-')).file_name()?.to_str()?;
    (!name.is_empty() && !name.chars().any(char::is_control)).then(|| name.to_owned())
}

/// A file of which a process has mapped code, and what it really is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MappedCode {
    pub path: String,
    /// Device and inode of the mapped file.
    pub file: (u64, u64),
    pub build_id: Option<String>,
}

/// Returns the files of which a process has mapped executable pages, sorted.
///
/// # Errors
///
/// Where the process is gone or its map may not be read.
pub fn mapped_code(pid: i32) -> io::Result<Vec<MappedCode>> {
    let maps = procfs::text(format!("/proc/{pid}/maps"))?;
    let mut found: HashMap<(u64, u64), MappedCode> = HashMap::new();
    for (range, path) in maps.lines().filter_map(parse_code_line) {
        // The entry leads to the mapped file itself, whatever its path names by now.
        let link = PathBuf::from(format!("/proc/{pid}/map_files/{range}"));
        let Ok(meta) = fs::metadata(&link) else { continue };
        let file = (meta.dev(), meta.ino());
        found.entry(file).or_insert_with(|| {
            let build_id = BuildId::of_file(&link).map(|id| id.to_string());
            MappedCode { path: path.to_owned(), file, build_id }
        });
    }
    let mut code: Vec<_> = found.into_values().collect();
    code.sort();
    Ok(code)
}

/// Says whether a path is an ELF file that can be read.
#[must_use]
pub fn is_elf(path: &Path) -> bool {
    use std::io::Read as _;
    let mut start = [0; 4];
    let is_file = fs::metadata(path).is_ok_and(|meta| meta.is_file());
    is_file && fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"\x7fELF"
}

/// Returns the name under which programs ask for a library; `None` for executables.
#[must_use]
pub fn soname_of(path: &Path) -> Option<String> {
    use object::read::elf::{Dyn as _, FileHeader as _};
    let bytes = fs::read(path).ok()?;
    let header = object::elf::FileHeader64::<object::LittleEndian>::parse(&*bytes).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, &*bytes).ok()?;
    let (entries, link) = sections.dynamic(endian, &*bytes).ok()??;
    let strings = sections.strings(endian, &*bytes, link).ok()?;
    let entry = entries.iter().find(|entry| entry.tag(endian) == object::elf::DT_SONAME)?;
    entry.string(endian, strings).ok().map(|name| String::from_utf8_lossy(name).into_owned())
}

/// Finds the file with this build-id among those of which a process has mapped code, whatever its path names by now.
///
/// # Errors
///
/// Where the process is gone or its map may not be read.
pub fn mapped_file(pid: i32, wanted: &BuildId) -> io::Result<Option<PathBuf>> {
    let maps = procfs::text(format!("/proc/{pid}/maps"))?;
    let ranges = maps.lines().filter_map(parse_code_line).map(|(range, _)| range);
    let mut links = ranges.map(|range| PathBuf::from(format!("/proc/{pid}/map_files/{range}")));
    Ok(links.find(|link| BuildId::of_file(link).as_ref() == Some(wanted)))
}

/// Returns range and path of a line of `/proc/<pid>/maps` that maps a file's code.
fn parse_code_line(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split_whitespace();
    let (range, access) = (fields.next()?, fields.next()?);
    let path = line.find('/').map(|at| &line[at..])?;
    access.contains('x').then_some((range, path))
}

/// Says how an operator names a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Pid(i32),
    /// A path, or the name of an executable.
    Exe(String),
    /// A TCP port that it listens on.
    Port(u16),
    /// A systemd unit.
    Unit(String),
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wanted::Pid(pid) => write!(f, "process {pid}"),
            Wanted::Exe(exe) => write!(f, "a process that runs {exe}"),
            Wanted::Port(port) => write!(f, "a process that listens on port {port}"),
            Wanted::Unit(unit) => write!(f, "the main process of unit {unit}"),
        }
    }
}

/// Why a process was not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("there is no {0}")]
    None(Wanted),
    #[error("there are several: processes {1:?} each are {0}; name one by its pid")]
    Several(Wanted, Vec<i32>),
    #[error("the list of processes cannot be read: {0}")]
    Proc(#[from] io::Error),
}

/// Finds the one process that is meant; where a process and its children match, it is the parent.
///
/// # Errors
///
/// Where none or several match.
pub fn find(wanted: &Wanted) -> Result<i32, FindError> {
    let matching: Vec<i32> = match wanted {
        Wanted::Pid(pid) => vec![*pid].into_iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect(),
        Wanted::Exe(exe) => all_pids()?.into_iter().filter(|pid| runs(*pid, exe)).collect(),
        Wanted::Port(port) => {
            let sockets = listening_sockets(*port);
            all_pids()?.into_iter().filter(|pid| holds_socket(*pid, &sockets)).collect()
        }
        Wanted::Unit(unit) => all_pids()?.into_iter().filter(|pid| is_in_unit(*pid, unit)).collect(),
    };
    let roots: Vec<i32> = matching
        .iter()
        .copied()
        .filter(|pid| parent_of(*pid).is_none_or(|parent| !matching.contains(&parent)))
        .collect();
    match roots.as_slice() {
        [] => Err(FindError::None(wanted.clone())),
        [one] => Ok(*one),
        _ => Err(FindError::Several(wanted.clone(), roots)),
    }
}

/// Returns all processes but this one.
pub(crate) fn all_pids() -> io::Result<Vec<i32>> {
    let own = std::process::id().cast_signed();
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(|pid| *pid != own).collect())
}

fn runs(pid: i32, exe: &str) -> bool {
    let Ok(path) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    let path = path.display().to_string();
    let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
    if exe.contains('/') {
        let wanted = fs::canonicalize(exe).unwrap_or_else(|_| PathBuf::from(exe));
        Path::new(path) == wanted
    } else {
        let arguments = || fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Path::new(path).file_name().is_some_and(|name| name == exe)
            || started_as(&arguments()).is_some_and(|name| name == exe)
    }
}

/// Returns the inodes of the TCP sockets that listen on a port, in this network namespace.
fn listening_sockets(port: u16) -> Vec<u64> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    tables.iter().flat_map(|table| parse_listeners(table, port)).collect()
}

/// Reads a table in the format of `/proc/net/tcp`, see `proc_net_tcp(5)`.
fn parse_listeners(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit_once(':')?.1;
        let is_meant = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTEN;
        is_meant.then(|| fields.get(9)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(line).collect()
}

fn holds_socket(pid: i32, sockets: &[u64]) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| {
        let inode = link.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inode.is_some_and(|inode| sockets.contains(&inode))
    })
}

fn is_in_unit(pid: i32, unit: &str) -> bool {
    let Ok(groups) = procfs::text(format!("/proc/{pid}/cgroup")) else { return false };
    is_cgroup_of_unit(&groups, unit)
}

fn is_cgroup_of_unit(groups: &str, unit: &str) -> bool {
    let unit = if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") };
    groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| path.split('/').any(|part| part == unit))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let fields: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b (c) S {}", fields.join(" "));
        assert_eq!(parse_start_time(&stat), Some(22));
        assert_eq!(parse_start_time("7 (x"), None);
    }

    #[test]
    fn a_process_is_itself_and_not_a_later_one() {
        let own = ProcessId::of(std::process::id().cast_signed()).expect("this process runs");
        assert!(own.is_alive());
        assert!(!ProcessId { start_time: own.start_time + 1, ..own }.is_alive());
    }

    #[test]
    fn a_program_is_known_by_the_name_that_it_was_started_by() {
        let name = |arguments: &str| started_as(arguments.as_bytes());
        assert_eq!(name("/usr/bin/redis-server *:6379\0").as_deref(), Some("redis-server"));
        assert_eq!(name("nginx: master process /usr/sbin/nginx\0").as_deref(), Some("nginx"));
        assert_eq!(name("-bash\0").as_deref(), Some("bash"));
        assert_eq!(name("\0x"), None);
        let program = |started_as: Option<&str>| Program {
            exe: "/usr/bin/redis-check-rdb".to_owned(),
            started_as: started_as.map(str::to_owned),
            ..Program::default()
        };
        assert_eq!(program(Some("redis-server")).shown(), "/usr/bin/redis-check-rdb, started as redis-server");
        assert_eq!(program(None).shown(), "/usr/bin/redis-check-rdb");
    }

    #[test]
    fn user_ids_are_read_from_the_status() {
        assert_eq!(parse_uids("Name:\tx\nUid:\t0\t1\t2\t3\n"), Some([0, 1, 2, 3]));
        assert_eq!(parse_uids("Uid:\t0\n"), None);
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let table = "  sl  local_address rem_address   st\n\
            0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0\n\
            1: 0100007F:18EB 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4343 1 0 100 0\n";
        assert_eq!(parse_listeners(table, 0x18eb), [4242]);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        let port = listener.local_addr().expect("it is bound").port();
        assert_eq!(listening_sockets(port).len(), 1);
    }

    #[test]
    fn a_unit_is_found_by_its_control_group() {
        let groups = "0::/system.slice/redis-server.service\n";
        assert!(is_cgroup_of_unit(groups, "redis-server"));
        assert!(is_cgroup_of_unit(groups, "redis-server.service"));
        assert!(!is_cgroup_of_unit(groups, "redis"));
    }

    #[test]
    fn a_file_that_was_replaced_is_known_by_what_is_mapped() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("program");
        fs::copy("/bin/sleep", &path).expect("there is room");
        let expected = BuildId::of_file(&path).map(|id| id.to_string());
        let mut child = std::process::Command::new(&path).arg("1000").spawn().expect("it is executable");
        let pid = child.id().cast_signed();
        // `spawn` returns once the copy of the test has gone, which is before the program is mapped.
        let deadline = Instant::now() + Duration::from_secs(20);
        let is_mapped =
            || mapped_code(pid).is_ok_and(|code| code.iter().any(|code| code.path == path.display().to_string()));
        while !is_mapped() {
            assert!(Instant::now() < deadline, "the program is mapped");
        }
        fs::remove_file(&path).expect("it is ours");
        fs::copy("/bin/cat", &path).expect("there is room");
        let (program, code) = (program_of(pid), mapped_code(pid));
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        assert!(program.exe.ends_with("program (deleted)"), "{program:?}");
        assert_eq!((&program.build_id, name_of(&program)), (&expected, Some("program")));
        let code = code.expect("root may read the map");
        let own = code.iter().find(|code| code.path.contains("program")).expect("it is mapped");
        assert_eq!(own.build_id, expected);
    }

    #[test]
    fn the_code_of_a_process_is_known_by_its_build_ids() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().expect("sleep is installed");
        let pid = child.id().cast_signed();
        // Until it has become `sleep` it is a copy of the test.
        let is_sleep = || program_of(pid).exe.ends_with("sleep");
        let deadline = Instant::now() + Duration::from_secs(20);
        let found = loop {
            let code = mapped_code(pid).expect("root may read the map");
            let program = program_of(pid);
            if is_sleep() && code.iter().any(|code| code.path.ends_with("libc.so.6")) {
                break Some((program, code));
            }
            if Instant::now() >= deadline {
                break None;
            }
            std::thread::yield_now();
        };
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        let (program, code) = found.expect("waited 20 s for `sleep` to start");
        assert!(code.iter().any(|code| code.path.ends_with("sleep") && code.build_id == program.build_id), "{code:?}");
        assert!(program.build_id.is_some_and(|id| id.len() >= 16));
    }
}
