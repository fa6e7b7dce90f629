//! Where the daemon names system calls.
//!
//! What a call means to recorder, matcher and replayer stands in its row of the table (`mvedsua-common/src/syscalls`), so that
//! whoever adds a call adds one line. A list of calls somewhere else is one more place to know. So a file may name a call only to
//! make it, or where it does something else for each call, and how often it does that is written here. The numbers only fall.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// What touches a process names the calls that it makes there.
const LEFT_OUT: &str = "ptrace";

/// How often each file names a call, but for those that it makes on the same line.
const NAMED: [(&str, usize); 38] = [
    ("calls.rs", 2),
    ("matcher/elastic.rs", 5),
    ("matcher/names.rs", 3),
    ("matcher/schedule/mod.rs", 8),
    ("matcher/tolerances.rs", 2),
    ("record/bulk/mod.rs", 1),
    ("record/bulk/plans.rs", 11),
    ("record/interleaving.rs", 1),
    ("record/leading/bulk.rs", 3),
    ("record/leading/holding.rs", 2),
    ("record/leading/letting_in.rs", 3),
    ("record/leading/mapped.rs", 4),
    ("record/leading/processes.rs", 1),
    ("record/leading/serial.rs", 1),
    ("record/leading/stops.rs", 7),
    ("record/leading/thread.rs", 1),
    ("record/leading/unread.rs", 3),
    ("replay/following/answer.rs", 5),
    ("replay/following/applying.rs", 1),
    ("replay/following/copies.rs", 6),
    ("replay/following/counting.rs", 1),
    ("replay/following/drain.rs", 2),
    ("replay/following/letting_in.rs", 5),
    ("replay/following/owned.rs", 2),
    ("replay/following/parted.rs", 1),
    ("replay/following/prepare.rs", 3),
    ("replay/following/processes.rs", 9),
    ("replay/following/turns.rs", 1),
    ("replay/objects.rs", 7),
    ("replay/own.rs", 2),
    ("replay/proc_self.rs", 15),
    ("rules/descriptors.rs", 1),
    ("rules/stage.rs", 1),
    ("rules/stage/carried.rs", 7),
    ("rules/stage/tails.rs", 1),
    ("tracee/process.rs", 2),
    ("update/birth.rs", 2),
    ("update/session/roles.rs", 1),
];

/// Returns what is wrong below the sources of the daemon: one line for each file that names more calls, or fewer, than it says here.
pub(crate) fn faults(source: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut gone: Vec<&str> = NAMED.iter().map(|(file, _)| *file).collect();
    for file in files(source)? {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(source).unwrap_or(&file).to_string_lossy().into_owned();
        let allowed = NAMED.iter().find(|(file, _)| *file == name).map_or(0, |(_, allowed)| *allowed);
        gone.retain(|file| *file != name);
        faults.extend(fault(&name, named(&text), allowed));
    }
    faults.extend(gone.iter().map(|file| format!("{file}: it is not there: take it off xtask/src/named_calls.rs")));
    Ok(faults)
}

fn fault(file: &str, found: usize, allowed: usize) -> Option<String> {
    match found.cmp(&allowed) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(format!(
            "{file}: it names system calls {found} times, {allowed} are known: what a call means is a column of its row \
             (mvedsua-common/src/syscalls/columns.rs)"
        )),
        std::cmp::Ordering::Less => Some(format!(
            "{file}: it names system calls {found} times and no more {allowed}: write that into xtask/src/named_calls.rs"
        )),
    }
}

/// Returns the sources, without those of tests.
fn files(source: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![source.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            let is_left_out = path.file_stem().is_some_and(|stem| stem == "tests" || stem == LEFT_OUT);
            if is_left_out {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Counts how often a file names a call, but for comments, tests, and lines that make one.
fn named(text: &str) -> usize {
    const TESTS: [&str; 2] = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(crate) mod tests {"];
    const MAKES: [&str; 4] = ["call(", "raw(", "syscall(", "call_in_all("];
    const NAME: &str = "SYS_";
    let code = TESTS.iter().fold(text, |code, tests| code.split(tests).next().unwrap_or(code));
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or(line));
    let lines = lines.filter(|line| !MAKES.iter().any(|makes| line.contains(makes)));
    // `CAP_SYS_ADMIN` is none.
    let is_name = |line: &str, at: usize| {
        !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
            && line[at + NAME.len()..].starts_with(|first: char| first.is_ascii_lowercase())
    };
    lines.map(|line| line.match_indices(NAME).filter(|(at, _)| is_name(line, *at)).count()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_counted_and_a_call_is_not() {
        let text = "// libc::SYS_read\nlibc::SYS_read | libc::SYS_write => 1,\nremote.call(\"close\", libc::SYS_close, [fd])\n\
                    \"CAP_SYS_ADMIN\"\n#[cfg(test)]\nmod tests {\n    libc::SYS_open\n}\n";
        assert_eq!(named(text), 2);
    }

    #[test]
    fn a_list_that_is_new_is_told_and_so_is_one_that_is_gone() {
        assert_eq!(fault("a.rs", 3, 3), None);
        assert!(fault("a.rs", 4, 3).expect("one more").contains("a column of its row"));
        assert!(fault("a.rs", 2, 3).expect("one less").contains("write that into"));
    }

    #[test]
    fn the_daemon_is_as_the_list_says() {
        let faults = faults(&crate::sh::root().join("mvedsua-daemon/src")).expect("the sources can be read");
        assert!(faults.is_empty(), "{faults:#?}");
    }
}
