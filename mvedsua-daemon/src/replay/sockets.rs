//! Whom the sockets of a process may be connected to, as `/proc/<pid>/net` tells, proc_pid_net(5).

use std::collections::{HashMap, HashSet};

use crate::ptrace::Pid;
use crate::ptrace::procfs::{self, Descriptor};

/// Where a socket meets others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meets {
    /// It listens at this port, or was accepted there.
    ListensAt(u16),
    /// It is connected to this port.
    ConnectedTo(u16),
    /// Of the UNIX domain, with a name: it listens, or was accepted.
    Named,
    /// Of the UNIX domain, without a name: one of a pair, or it has connected.
    Unnamed,
}

/// The sockets of a process by inode.
#[derive(Debug, Default)]
pub(super) struct Meetings(HashMap<u64, Meets>);

/// One line of `tcp`, `udp` and their like.
struct Line {
    local: u16,
    remote: u16,
    inode: u64,
}

fn parse_internet(line: &str) -> Option<Line> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let port = |word: &str| u16::from_str_radix(word.rsplit(':').next()?, 16).ok();
    Some(Line { local: port(words.get(1)?)?, remote: port(words.get(2)?)?, inode: words.get(9)?.parse().ok()? })
}

fn parse_unix(line: &str) -> Option<(u64, Meets)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Some((words.get(6)?.parse().ok()?, if words.len() > 7 { Meets::Named } else { Meets::Unnamed }))
}

impl Meetings {
    pub(super) fn of(pid: Pid, descriptors: &[Descriptor]) -> Meetings {
        let inode = |descriptor: &Descriptor| {
            descriptor.target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        };
        let own: HashSet<u64> = descriptors.iter().filter_map(inode).collect();
        if own.is_empty() {
            return Meetings::default();
        }
        let read = |table: &str| procfs::text(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        let tables: Vec<String> = ["tcp", "tcp6", "udp", "udp6"].into_iter().map(read).collect();
        let lines = tables.iter().flat_map(|table| table.lines().skip(1).filter_map(parse_internet));
        let mut found = Meetings::from_internet(lines.filter(|line| own.contains(&line.inode)).collect());
        let unix = read("unix");
        found.0.extend(unix.lines().skip(1).filter_map(parse_unix).filter(|(inode, _)| own.contains(inode)));
        found
    }

    /// A port at which a socket waits for whoever comes is the program's own; so is one that was accepted there.
    fn from_internet(lines: Vec<Line>) -> Meetings {
        let own_ports: HashSet<u16> = lines.iter().filter(|line| line.remote == 0).map(|line| line.local).collect();
        let meets = |line: &Line| match own_ports.contains(&line.local) {
            true => Meets::ListensAt(line.local),
            false => Meets::ConnectedTo(line.remote),
        };
        Meetings(lines.iter().map(|line| (line.inode, meets(line))).collect())
    }

    pub(super) fn of_inode(&self, inode: u64) -> Option<Meets> {
        self.0.get(&inode).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_connected_to_whom_stands_in_the_tables() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 71 1 0 100 0 0 10 0\n\
             1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 72 1 0 20 4 30 10 -1\n\
             2: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 73 1 0 20 4 30 10 -1\n";
        let found = Meetings::from_internet(table.lines().skip(1).filter_map(parse_internet).collect());
        let of = |inode| found.of_inode(inode);
        assert_eq!((of(71), of(72)), (Some(Meets::ListensAt(8080)), Some(Meets::ListensAt(8080))));
        assert_eq!((of(73), of(74)), (Some(Meets::ConnectedTo(8080)), None));
    }

    #[test]
    fn a_pair_has_no_names() {
        let line = "0000000000000000: 00000003 00000000 00000000 0001 03 4711";
        assert_eq!(parse_unix(line), Some((4711, Meets::Unnamed)));
        assert_eq!(parse_unix(&format!("{line} /run/one.sock")), Some((4711, Meets::Named)));
    }
}
