//! What the monitor asks `/proc`.

use std::fs;

use super::MonitorError;

use crate::ptrace::procfs;

/// Returns the name of a process, `None` when it is gone.
pub(super) fn name(pid: i32) -> Option<String> {
    procfs::text(format!("/proc/{pid}/comm")).ok().map(|name| name.trim_end().to_owned())
}

/// Says whether a process exists and has not ended.
pub(super) fn runs(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Returns the threads of a process.
pub(super) fn threads(pid: i32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the process of a thread id, which the caller may have taken for one.
pub(super) fn require_process(pid: i32) -> Result<String, MonitorError> {
    let missing = MonitorError::NoSuchProcess { pid };
    if pid <= 0 || !runs(pid) {
        return Err(missing);
    }
    let status = procfs::text(format!("/proc/{pid}/status")).map_err(|_| MonitorError::NoSuchProcess { pid })?;
    let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse::<i32>().ok());
    if tgid != Some(pid) {
        return Err(missing);
    }
    name(pid).ok_or(missing)
}

/// Returns the running children of a process, with their children, parents first.
pub(super) fn descendants(pid: i32) -> Vec<(i32, i32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let all: Vec<(i32, i32)> = entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = stat(pid)?;
            (!matches!(stat.state, 'Z' | 'X')).then_some((pid, stat.parent))
        })
        .collect();
    let mut family = vec![(pid, 0)];
    let mut at = 0;
    while at < family.len() {
        let parent = family[at].0;
        family.extend(all.iter().filter(|(_, ppid)| *ppid == parent));
        at += 1;
    }
    family.split_off(1)
}

struct Stat {
    state: char,
    parent: i32,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = procfs::text(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, even parentheses.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    Some(Stat { state: fields.next()?.chars().next()?, parent: fields.next()?.parse().ok()? })
}
