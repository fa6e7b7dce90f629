//! What a process looks like from outside.
//!
//! A leader that was rolled back must look as one that was never touched: no tracer, the same descriptors, the same
//! mappings, the same code.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Lines of `/proc/<pid>/status` that an update may not change.
const STATUS: [&str; 16] = [
    "Name",
    "Umask",
    "TracerPid",
    "Uid",
    "Gid",
    "FDSize",
    "Threads",
    "SigQ",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapEff",
    "NoNewPrivs",
    "Seccomp",
    "PPid",
    "Cpus_allowed_list",
];

/// A process as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub pid: i32,
    pub status: BTreeMap<String, String>,
    /// Number, target, and flags of each descriptor.
    pub descriptors: BTreeMap<i32, String>,
    /// What each epoll set watches: descriptor, events, data.
    pub watched: BTreeMap<i32, Vec<String>>,
    /// Address range, permissions and file of each mapping that is backed by a file or has a name of the kernel's.
    pub named_maps: Vec<String>,
    /// The same of the others; a program that works makes and drops them.
    pub anonymous_maps: Vec<String>,
    /// A hash of each executable mapping's content, the vDSO's too.
    pub code: BTreeMap<String, u64>,
    /// Time slack, OOM score and such.
    pub settings: BTreeMap<&'static str, String>,
}

impl Snapshot {
    /// Takes the snapshot of a running process.
    #[must_use]
    pub fn of(pid: i32) -> Snapshot {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let status = read("status");
        let status = status.lines().filter_map(|line| line.split_once(':'));
        let status = status.filter(|(key, _)| STATUS.contains(key)).map(|(k, v)| (k.to_owned(), v.trim().to_owned()));
        let maps = read("maps");
        let (mut named_maps, mut anonymous_maps) = (Vec::new(), Vec::new());
        for line in maps.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let name = fields.get(5..).map(|name| name.join(" ")).unwrap_or_default();
            let text = format!("{} {} {name}", fields[0], fields[1]);
            let grows = name.is_empty() || name.starts_with("[heap") || name.starts_with("[stack");
            if grows { anonymous_maps.push(text) } else { named_maps.push(text) }
        }
        Snapshot {
            pid,
            status: status.collect(),
            descriptors: descriptors(pid),
            watched: watched(pid),
            code: code(pid, &maps),
            named_maps,
            anonymous_maps,
            settings: ["oom_score_adj", "timerslack_ns", "coredump_filter", "personality", "loginuid"]
                .into_iter()
                .map(|file| (file, read(file).trim().to_owned()))
                .collect(),
        }
    }

    /// Lists what differs in a process that did nothing in between.
    #[must_use]
    pub fn differences(&self, after: &Snapshot) -> Vec<String> {
        let mut found = self.differences_under_load(after);
        compare_maps("descriptor", &self.descriptors, &after.descriptors, &mut found);
        compare_maps("epoll set", &self.watched, &after.watched, &mut found);
        if self.anonymous_maps != after.anonymous_maps {
            found.push(format!("mappings: {:?} became {:?}", self.anonymous_maps, after.anonymous_maps));
        }
        found
    }

    /// Lists what differs in a process that served in between: its heap may have grown and its clients may be others.
    #[must_use]
    pub fn differences_under_load(&self, after: &Snapshot) -> Vec<String> {
        let mut found = Vec::new();
        let without = |map: &BTreeMap<String, String>| {
            let mut map = map.clone();
            // Signals in flight and the room of the descriptor table follow the load.
            map.remove("SigQ");
            map.remove("FDSize");
            map
        };
        compare_maps("status", &without(&self.status), &without(&after.status), &mut found);
        compare_maps("code", &self.code, &after.code, &mut found);
        compare_maps("setting", &self.settings, &after.settings, &mut found);
        if self.named_maps != after.named_maps {
            let lost: Vec<_> = self.named_maps.iter().filter(|line| !after.named_maps.contains(line)).collect();
            let new: Vec<_> = after.named_maps.iter().filter(|line| !self.named_maps.contains(line)).collect();
            found.push(format!("mappings: lost {lost:?}, new {new:?}"));
        }
        // Clients come and go, and servers keep files open that they serve; all else stays.
        let gone = self.descriptors.iter().filter(|(_, target)| !target.starts_with("socket:"));
        let gone = gone.filter(|(fd, target)| after.descriptors.get(fd) != Some(target));
        found.extend(gone.map(|(fd, target)| format!("descriptor {fd} ({target}) is {:?}", after.descriptors.get(fd))));
        let new = after.descriptors.iter().filter(|(fd, _)| !self.descriptors.contains_key(fd));
        let new = new.filter(|(_, target)| !target.starts_with("socket:") && !target.starts_with('/'));
        found.extend(new.map(|(fd, target)| format!("descriptor {fd} is new: {target}")));
        found
    }
}

fn compare_maps<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    found: &mut Vec<String>,
) {
    for (key, value) in before {
        match after.get(key) {
            Some(now) if now == value => {}
            now => found.push(format!("{what} {key:?}: {value:?} became {now:?}")),
        }
    }
    found.extend(
        after.iter().filter(|(k, _)| !before.contains_key(k)).map(|(k, v)| format!("{what} {k:?} is new: {v:?}")),
    );
}

fn numbers(pid: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn watched(pid: i32) -> BTreeMap<i32, Vec<String>> {
    let sets = numbers(pid).into_iter().filter_map(|fd| {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
        let mut lines: Vec<_> = info.lines().filter(|line| line.starts_with("tfd:")).map(str::to_owned).collect();
        lines.sort_unstable();
        (!lines.is_empty()).then_some((fd, lines))
    });
    sets.collect()
}

fn descriptors(pid: i32) -> BTreeMap<i32, String> {
    numbers(pid)
        .into_iter()
        .filter_map(|fd| {
            let target = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default().trim().to_owned();
            Some((fd, format!("{} flags {flags}", target.display())))
        })
        .collect()
}

/// Hashes the executable mappings.
fn code(pid: i32, maps: &str) -> BTreeMap<String, u64> {
    let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return BTreeMap::new() };
    let mut hashes = BTreeMap::new();
    for line in maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|perms| perms.contains('x'))) {
        let range = line.split_whitespace().next().and_then(|range| range.split_once('-'));
        let Some((Ok(start), Ok(end))) = range.map(|(s, e)| (u64::from_str_radix(s, 16), u64::from_str_radix(e, 16)))
        else {
            continue;
        };
        let mut bytes = vec![0; (end - start) as usize];
        // [vsyscall] cannot be read; it is the kernel's and cannot be changed either.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            let hash = bytes
                .iter()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
            hashes.insert(line.to_owned(), hash);
        }
    }
    hashes
}

/// Rows of one of the kernel's tables of IPv4 sockets, `tcp` or `udp`: local port, state and inode.
fn sockets(table: &str) -> Vec<(u16, u8, String)> {
    let table = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        let state = u8::from_str_radix(fields.get(3)?, 16).ok()?;
        Some((port, state, format!("socket:[{}]", fields.get(9)?)))
    };
    table.lines().skip(1).filter_map(row).collect()
}

const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LISTEN: u8 = 10;
/// A socket for datagrams that is bound and not connected.
const UDP_BOUND: u8 = 7;

/// Says whether the process holds a socket that listens on the IPv4 port, or takes its datagrams.
#[must_use]
pub fn listens(pid: i32, port: u16) -> bool {
    let held = descriptors(pid);
    let open = [("tcp", TCP_LISTEN), ("udp", UDP_BOUND)];
    let mut listeners = open.into_iter().flat_map(|(table, listens)| {
        sockets(table).into_iter().filter(move |(local, state, _)| *local == port && *state == listens)
    });
    listeners.any(|(_, _, inode)| held.values().any(|target| target.starts_with(&inode)))
}

/// Returns how many connections the server's end of the IPv4 port has not closed.
#[must_use]
pub fn open_connections(port: u16) -> usize {
    let open = |state| matches!(state, TCP_ESTABLISHED | TCP_CLOSE_WAIT);
    sockets("tcp").iter().filter(|(local, state, _)| *local == port && open(*state)).count()
}
