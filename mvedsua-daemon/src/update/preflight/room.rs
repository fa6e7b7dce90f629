//! Whether the kernel lets a process have the threads of two more versions: that of the follower, and after a promotion that of
//! the way back, before the first has ended.

use std::fs;
use std::path::Path;

use super::{Finding, refuse};
use crate::ptrace::Pid;
use crate::ptrace::procfs;
use crate::update::cgroups;

/// How many processes are there at once beside the service, each with all its threads.
const VERSIONS: u64 = 2;
/// `capabilities(7)`: whoever has one of these is above the limit on a user's processes.
const ADMINISTERS: u64 = 1 << 21 | 1 << 24;

/// Looks at what limits the number of threads.
pub(super) fn of_room(pid: i32, threads: usize) -> Vec<Finding> {
    let needed = threads as u64 * VERSIONS;
    of_groups(pid, needed).into_iter().chain(of_user(pid, needed)).collect()
}

fn of_groups(pid: i32, needed: u64) -> Option<Finding> {
    cgroups::of(Pid(pid), "pids").iter().find_map(|group| of_group(&group.dir, &group.name, needed))
}

fn of_group(dir: &Path, name: &Path, needed: u64) -> Option<Finding> {
    // There is no number where there is no limit.
    let number = |file: &str| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
    let (limit, used) = (number("pids.max")?, number("pids.current")?);
    (limit.saturating_sub(used) < needed).then(|| {
        let reason = format!(
            "its control group {} may have {limit} threads and has {used}; an update takes up to {needed} more",
            name.display()
        );
        refuse("threads", reason, "raise the group's limit (TasksMax= of the unit, or pids.max)")
    })
}

fn of_user(pid: i32, needed: u64) -> Option<Finding> {
    let read = |file: &str| procfs::text(format!("/proc/{pid}/{file}")).ok();
    let limit = limit(&read("limits")?)?;
    let status = read("status")?;
    let user = field(&status, "Uid:")?.to_owned();
    let capabilities = u64::from_str_radix(field(&status, "CapEff:")?, 16).ok()?;
    if user == "0" || capabilities & ADMINISTERS != 0 {
        return None;
    }
    let used = threads_of(&user);
    (limit.saturating_sub(used) < needed).then(|| {
        let reason = format!(
            "its user {user} may have {limit} threads (RLIMIT_NPROC) and has {used}; an update takes up to {needed} more"
        );
        refuse("threads", reason, "raise its limit (LimitNPROC= of the unit, or `prlimit --nproc=`)")
    })
}

/// Returns the first word behind a name in `/proc/<pid>/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
}

/// Returns the soft limit on processes in `/proc/<pid>/limits`, if there is one.
fn limit(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max processes")?.split_whitespace().next())?.parse().ok()
}

/// Counts the threads of a user, as far as they can be seen.
fn threads_of(user: &str) -> u64 {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let statuses = entries.filter_map(|entry| procfs::text(entry.path().join("status")).ok());
    let theirs = statuses.filter(|status| field(status, "Uid:") == Some(user));
    theirs.filter_map(|status| field(&status, "Threads:")?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_full_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        let look = || of_group(dir.path(), Path::new("/web"), 4);
        assert!(look().is_none(), "it has no such files");
        write("pids.current", "7\n");
        write("pids.max", "max\n");
        assert!(look().is_none(), "it has no limit");
        write("pids.max", "11\n");
        assert!(look().is_none());
        write("pids.max", "10\n");
        let found = look().expect("three are left");
        assert!(found.reason.contains("/web may have 10 threads and has 7; an update takes up to 4 more"), "{found:?}");
    }

    #[test]
    fn the_limit_of_a_user_is_read() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax processes             95  100  processes\n";
        assert_eq!(limit(limits), Some(95));
        assert_eq!(limit("Max processes   unlimited  unlimited processes\n"), None);
        assert!(threads_of("0") > 0);
        assert!(of_user(std::process::id().cast_signed(), u64::MAX).is_none(), "root has no limit");
    }
}
