//! What `/proc` tells of a process: which files its code comes from, whose it is.

use std::path::{Path, PathBuf};

/// A line of `/proc/<pid>/maps` that maps code of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CodeLine<'a> {
    /// The name of its link in `/proc/<pid>/map_files`.
    pub(super) range: &'a str,
    /// As it is written.
    pub(super) device: &'a str,
    pub(super) inode: u64,
    /// As it is written: a line feed is `\012`.
    path: &'a str,
    /// The name does not lead to the file any more.
    pub(super) is_deleted: bool,
}

impl CodeLine<'_> {
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(self.path.replace("\\012", "\n"))
    }
}

/// What has a name in the map and never was a file that somebody installed.
const NO_FILES: &[&str] = &["/memfd:", "/dev/", "/SYSV", "/[", "/anon_hugepage", "/i915", "/proc/", "/sys/"];

/// Returns the lines that map code of a file.
pub(super) fn code_lines(maps: &str) -> impl Iterator<Item = CodeLine<'_>> {
    maps.lines().filter_map(code_line)
}

fn code_line(line: &str) -> Option<CodeLine<'_>> {
    // address perms offset dev inode path; the path may hold blanks.
    let mut rest = line;
    let mut field = || {
        let (field, behind) = rest.split_once(' ')?;
        rest = behind.trim_start();
        Some(field)
    };
    let (range, access, _, device, inode) = (field()?, field()?, field()?, field()?, field()?);
    if !access.contains('x') || !rest.starts_with('/') || NO_FILES.iter().any(|start| rest.starts_with(start)) {
        return None;
    }
    let (path, is_deleted) = match rest.strip_suffix(" (deleted)") {
        Some(path) => (path, true),
        None => (rest, false),
    };
    Some(CodeLine { range, device, inode: inode.parse().ok()?, path, is_deleted })
}

/// Returns the systemd unit that a process belongs to, from its `/proc/<pid>/cgroup`: the innermost one.
pub(super) fn unit_of(groups: &str) -> Option<&str> {
    let path = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_systemd = controllers == "name=systemd" || number == "0";
        (is_systemd && path != "/").then_some(path)
    })?;
    path.rsplit('/').find(|part| part.ends_with(".service") || part.ends_with(".scope"))
}

/// Says whether a process is the fork that an update made of a service: the daemon traces it, and its end is signalled to
/// nobody (field 38 of `/proc/<pid>/stat`), which holds for no process that a program or a shell starts.
pub(super) fn is_follower(stat: &str, status: &str) -> bool {
    let signal = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split_whitespace().nth(38 - 3));
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    signal == Some("0") && tracer.is_some_and(|pid| pid.trim() != "0")
}

/// Returns the path that is the same file where `/bin`, `/lib` and their like are links into `/usr`.
pub(super) fn twin(path: &Path) -> Option<PathBuf> {
    const MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
    let text = path.to_str()?;
    let inner = text.strip_prefix("/usr/").or_else(|| text.strip_prefix('/'))?;
    let (first, _) = inner.split_once('/')?;
    if !MERGED.contains(&first) {
        return None;
    }
    Some(PathBuf::from(if text.starts_with("/usr/") { format!("/{inner}") } else { format!("/usr/{inner}") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_files_is_told_from_the_rest_of_the_map() {
        let maps = "\
55d0c0a00000-55d0c0a02000 r--p 00000000 fe:00 131 /usr/sbin/a b
55d0c0a02000-55d0c0a05000 r-xp 00002000 fe:00 131                        /usr/sbin/a b
7f0000000000-7f0000001000 r-xp 00000000 fe:00 132                        /usr/lib/libx.so.1 (deleted)
7f0000002000-7f0000003000 r-xp 00000000 00:01 133                        /memfd:jit (deleted)
7f0000004000-7f0000005000 rwxp 00000000 00:00 0 
7f0000005000-7f0000006000 rwxp 00000000 00:05 9                          /dev/zero (deleted)
7f0000006000-7f0000007000 rwxp 00000000 00:05 9                          /SYSV00000000 (deleted)
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0                          [vdso]
";
        let lines: Vec<_> = code_lines(maps).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].path(), Path::new("/usr/sbin/a b"));
        assert_eq!((lines[0].range, lines[0].inode), ("55d0c0a02000-55d0c0a05000", 131));
        assert!(!lines[0].is_deleted && lines[1].is_deleted);
        assert_eq!(lines[1].path(), Path::new("/usr/lib/libx.so.1"));
        let line = r"7f0000000000-7f0000001000 r-xp 00000000 fe:00 132   /a\012b";
        assert_eq!(code_lines(line).next().expect("it is code").path(), Path::new("/a\nb"));
    }

    #[test]
    fn the_innermost_unit_is_named() {
        assert_eq!(unit_of("0::/system.slice/redis-server.service\n"), Some("redis-server.service"));
        assert_eq!(unit_of("0::/user.slice/user-0.slice/user@0.service/app.slice/x.service"), Some("x.service"));
        assert_eq!(unit_of("9:memory:/x.service\n1:name=systemd:/system.slice/y.service/z\n"), Some("y.service"));
        assert_eq!(unit_of("0::/user.slice/user-0.slice/session-3.scope"), Some("session-3.scope"));
        assert_eq!(unit_of("0::/"), None);
    }

    #[test]
    fn a_follower_is_traced_and_signals_its_end_to_nobody() {
        let stat = |signal: &str| format!("7 (a) b) S {} {signal} 0 0", vec!["1"; 34].join(" "));
        assert!(is_follower(&stat("0"), "Name:\tx\nTracerPid:\t12\n"));
        assert!(!is_follower(&stat("17"), "Name:\tx\nTracerPid:\t12\n"));
        assert!(!is_follower(&stat("0"), "Name:\tx\nTracerPid:\t0\n"));
    }

    #[test]
    fn merged_directories_have_twins() {
        assert_eq!(twin(Path::new("/lib/x/y.so")), Some(PathBuf::from("/usr/lib/x/y.so")));
        assert_eq!(twin(Path::new("/usr/bin/x")), Some(PathBuf::from("/bin/x")));
        assert_eq!(twin(Path::new("/opt/bin/x")), None);
        assert_eq!(twin(Path::new("/usr/share/x")), None);
    }
}
