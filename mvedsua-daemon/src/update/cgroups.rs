//! The control groups of a process, of both versions of their interface, `cgroups(7)`.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::ptrace::Pid;

/// The version of the interface of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// A group of a process.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) version: Version,
    /// Where its files are.
    pub(super) dir: PathBuf,
    /// What it is called, from the top of what can be seen.
    pub(super) name: PathBuf,
}

/// Returns the group of a process and those above it, in the hierarchy that has a controller.
pub(super) fn of(pid: Pid, controller: &str) -> Vec<Group> {
    let read = |path: String| fs::read_to_string(path).ok();
    let found = read(format!("/proc/{pid}/cgroup"))
        .zip(read("/proc/self/mountinfo".to_owned()))
        .and_then(|(groups, mounts)| find(&groups, &mounts, controller));
    let Some(Found { version, mount, below }) = found else { return vec![] };
    let group = |below: &Path| Group { version, dir: mount.join(below), name: Path::new("/").join(below) };
    below.ancestors().map(group).collect()
}

/// Where the group of a process is.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    version: Version,
    mount: PathBuf,
    /// Its path below the mount, relative.
    below: PathBuf,
}

/// Finds the group by `/proc/<pid>/cgroup` and `/proc/self/mountinfo`. It is one of the first version where that one has the
/// controller, and of the second otherwise.
fn find(groups: &str, mounts: &str, controller: &str) -> Option<Found> {
    let path_of = |is_wanted: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            is_wanted(controllers).then_some(path)
        })
    };
    let has = |controllers: &str| controllers.split(',').any(|one| one == controller);
    let ones = path_of(&has).map(|path| (Version::One, path));
    let twos = path_of(&str::is_empty).map(|path| (Version::Two, path));
    [ones, twos].into_iter().flatten().find_map(|(version, path)| {
        mounts.lines().filter_map(mount_of).find_map(|mount| {
            let is_it = match version {
                Version::One => mount.kind == "cgroup" && has(mount.options),
                Version::Two => mount.kind == "cgroup2",
            };
            // A mount may show a part of the hierarchy alone.
            let below = is_it.then(|| Path::new(path).strip_prefix(mount.root).ok())??;
            let is_inside = below.components().all(|component| matches!(component, Component::Normal(_)));
            is_inside.then(|| Found { version, mount: mount.point.into(), below: below.to_owned() })
        })
    })
}

/// One line of `/proc/<pid>/mountinfo`, `proc_pid_mountinfo(5)`.
struct Mount<'a> {
    /// What of the file system is mounted.
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    /// Those of the file system, which name a hierarchy's controllers.
    options: &'a str,
}

fn mount_of(line: &str) -> Option<Mount<'_>> {
    let (mount, system) = line.split_once(" - ")?;
    let (mut mount, mut system) = (mount.split(' ').skip(3), system.split(' '));
    let (root, point) = (mount.next()?, mount.next()?);
    let (kind, _source, options) = (system.next()?, system.next()?, system.next()?);
    Some(Mount { root, point, kind, options })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                          35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                          41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    fn found(version: Version, mount: &str, below: &str) -> Option<Found> {
        Some(Found { version, mount: mount.into(), below: below.into() })
    }

    #[test]
    fn the_group_is_that_of_the_version_that_has_the_controller() {
        let find = |groups, mounts| super::find(groups, mounts, "memory");
        let one = "9:name=systemd:/\n4:cpuset,memory:/a/b\n0::/c\n";
        assert_eq!(find(one, HYBRID), found(Version::One, "/sys/fs/cgroup/memory", "a/b"));
        let unified = "41 31 0:38 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            find("0::/system.slice/redis.service\n", unified).unwrap().below.as_os_str(),
            "system.slice/redis.service"
        );
        assert_eq!(find("0::/\n", HYBRID), found(Version::Two, "/sys/fs/cgroup/unified", ""));
        assert_eq!(find(one, unified), found(Version::Two, "/sys/fs/cgroup", "c"), "the first version is not mounted");
        assert_eq!(find("", HYBRID), None);
        assert_eq!(find(one, ""), None);
    }

    #[test]
    fn a_mount_may_show_a_part_of_the_groups() {
        let find = |groups, mounts| super::find(groups, mounts, "memory");
        let part = "41 31 0:38 /pods/7 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(find("0::/pods/7/web\n", part), found(Version::Two, "/sys/fs/cgroup", "web"));
        assert_eq!(find("0::/pods/77\n", part), None);
        assert_eq!(find("0::/../other\n", HYBRID), None, "it lies outside of what can be seen");
    }
}
