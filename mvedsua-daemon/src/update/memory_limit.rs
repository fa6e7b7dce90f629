//! Sees that memory runs short while two versions run, before the kernel does.
//!
//! The follower's copies of pages count where the leader's pages count: in its memory cgroup, and in the machine. The follower
//! has the highest `oom_score_adj`, so the kernel kills it first; but that is not enough to keep the leader. A killed process
//! is marked as one that gives nothing back any more (`MMF_OOM_SKIP`, by `exit_mmap()` in `mm/mmap.c`) before its pages are
//! given back (`tlb_finish_mmu()`, a few lines below). Whoever asks for memory of the full group in between makes
//! `mm/oom_kill.c` pass over the marked one and choose the next, and that is the leader, which goes on serving: one of
//! four followers that grew beyond a limit took it along. So the session gives its follower up while there is still memory
//! to do so in.
//!
//! What counts is read from the files of the leader's cgroup and of each one above it that has a limit
//! (`Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst`), and from `/proc/meminfo` for the machine. A limit
//! may be set, changed or taken away at any time, so it is read at each look; the group itself is the one in which the
//! process is at the beginning. File pages are given up before anybody is killed: they are not counted as used. Nor is swap
//! that is free, for the machine; for a group it is, since swapping slows the leader down as well.
//!
//! Where there is no limit, or nothing can be read, there is nothing to be seen, and nothing is said.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::cgroups::{self, Version};
use crate::ptrace::Pid;

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What is kept for the leader: this part of the limit, and no more than so many bytes.
const RESERVED_PART: u64 = 16;
const MOST_RESERVED: u64 = 64 << 20;
/// How many times what was taken since the last look is kept as well: as much may be taken up to the next look, and once more
/// until the follower has ended and its pages are free.
const LOOKS_AHEAD: u64 = 2;
/// From here on a limit is none: version 1 has no word for that, and says the largest number of pages.
const UNLIMITED: u64 = 1 << 62;
/// Of each file what matters lies within its first bytes; `memory.stat` is the longest.
const FILE_SIZE: usize = 16 << 10;

/// Names the files of a memory controller.
trait Files {
    fn limit(self) -> &'static str;
    fn usage(self) -> &'static str;
    /// The entries of `memory.stat` for the file pages of a group with all below it.
    fn file_pages(self) -> [&'static str; 2];
}

impl Files for Version {
    fn limit(self) -> &'static str {
        match self {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        }
    }

    fn file_pages(self) -> [&'static str; 2] {
        match self {
            Version::One => ["total_inactive_file", "total_active_file"],
            Version::Two => ["inactive_file", "active_file"],
        }
    }
}

/// The files of one group, kept open.
#[derive(Debug)]
struct Group {
    version: Version,
    limit: File,
    usage: File,
    stat: File,
}

#[derive(Debug)]
enum Place {
    Group { name: String, files: Group },
    Machine { meminfo: File },
}

/// What was read of a place, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    limit: u64,
    used: u64,
}

/// A place whose memory has a limit, and what was used there at the last look: with file pages, and without them where that was
/// read.
#[derive(Debug)]
struct Bounded {
    place: Place,
    last: Option<u64>,
    last_kept: Option<u64>,
}

/// Watches the memory that the versions of one update share.
#[derive(Debug)]
pub(super) struct Watch {
    places: Vec<Bounded>,
    next: Instant,
}

impl Watch {
    /// Finds what limits the memory of a process.
    pub(super) fn of(pid: Pid) -> Watch {
        let machine = File::open("/proc/meminfo").ok().map(|meminfo| Place::Machine { meminfo });
        let places = groups_of(pid).into_iter().chain(machine).map(Bounded::new).collect();
        Watch { places, next: Instant::now() }
    }

    /// Says where memory runs short, if it does. Called with every ring of the session's clock; looks when it is time to.
    pub(super) fn look(&mut self) -> Option<String> {
        let now = Instant::now();
        if now < self.next {
            return None;
        }
        self.next = now + LOOK_EVERY;
        self.places.iter_mut().filter_map(Bounded::look).next()
    }
}

impl Bounded {
    fn new(place: Place) -> Bounded {
        Bounded { place, last: None, last_kept: None }
    }

    fn look(&mut self) -> Option<String> {
        let reading = self.place.read()?;
        let last = self.last.replace(reading.used);
        let last_kept = self.last_kept.take();
        if !is_short(reading, last) {
            return None;
        }
        let kept = Reading { used: self.place.without_file_pages(reading.used)?, ..reading };
        self.last_kept = Some(kept.used);
        // Where the last look did not go so far, what was taken in all is the best that is known.
        let before = last_kept.or(last.map(|last| kept.used.saturating_sub(reading.used.saturating_sub(last))));
        is_short(kept, before).then(|| self.place.describe(kept))
    }
}

/// Says whether there is less left than what is kept for the leader.
fn is_short(reading: Reading, last: Option<u64>) -> bool {
    let taken = last.map_or(0, |last| reading.used.saturating_sub(last));
    let reserve = (reading.limit / RESERVED_PART).min(MOST_RESERVED).saturating_add(taken.saturating_mul(LOOKS_AHEAD));
    reading.limit.saturating_sub(reading.used) < reserve
}

impl Place {
    /// Returns what is used of what, where there is a limit.
    fn read(&self) -> Option<Reading> {
        match self {
            Place::Group { files, .. } => {
                // Version 2 says `max` where there is none.
                let limit = number(&files.limit).filter(|limit| *limit < UNLIMITED)?;
                Some(Reading { limit, used: number(&files.usage)? })
            }
            Place::Machine { meminfo } => of_machine(&text(meminfo)?),
        }
    }

    /// Returns what of the memory that is used would be there no more if the kernel needed it. Slow for a group.
    fn without_file_pages(&self, used: u64) -> Option<u64> {
        match self {
            Place::Group { files, .. } => {
                let stat = text(&files.stat)?;
                let pages = files.version.file_pages().map(|name| entry(&stat, name).unwrap_or(0));
                Some(used.saturating_sub(pages.iter().sum()))
            }
            // They are available already.
            Place::Machine { .. } => Some(used),
        }
    }

    fn describe(&self, reading: Reading) -> String {
        let what = match self {
            Place::Group { name, .. } => format!("its memory cgroup {name} is"),
            Place::Machine { .. } => "the machine's memory is".to_owned(),
        };
        let Reading { limit, used } = reading;
        format!(
            "{what} nearly full: {} of {} MiB are used, and the follower's copies of pages count there; the update was given up \
             so that the server keeps its memory",
            used >> 20,
            limit >> 20
        )
    }
}

/// Reads a file of `/proc` or of a cgroup anew.
fn text(file: &File) -> Option<String> {
    let mut buffer = vec![0; FILE_SIZE];
    let size = file.read_at(&mut buffer, 0).ok()?;
    buffer.truncate(size);
    String::from_utf8(buffer).ok()
}

fn number(file: &File) -> Option<u64> {
    text(file)?.trim().parse().ok()
}

/// Returns the value of `name` in lines of names and numbers.
fn entry(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    lines.find_map(|mut fields| (fields.next()? == name).then(|| fields.next()?.parse().ok())?)
}

/// Weighs all memory and swap against what of both can be had, `proc_meminfo(5)`.
fn of_machine(meminfo: &str) -> Option<Reading> {
    let kib = |name| entry(meminfo, name);
    let limit = kib("MemTotal:")?.checked_mul(1 << 10)?;
    let left = (kib("MemAvailable:")? + kib("SwapFree:").unwrap_or(0)).saturating_mul(1 << 10);
    Some(Reading { limit, used: limit.saturating_sub(left) })
}

/// Returns the group of a process and those above it, as far as memory is counted there.
fn groups_of(pid: Pid) -> Vec<Place> {
    let found = cgroups::of(pid, "memory");
    found.into_iter().filter_map(|group| open(&group.dir, &group.name, group.version)).collect()
}

fn open(dir: &Path, name: &Path, version: Version) -> Option<Place> {
    let file = |name| File::open(dir.join(name)).ok();
    let files =
        Group { version, limit: file(version.limit())?, usage: file(version.usage())?, stat: file("memory.stat")? };
    Some(Place::Group { name: name.display().to_string(), files })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MIB: u64 = 1 << 20;
    #[test]
    fn what_is_kept_grows_with_the_limit_and_with_what_is_taken() {
        let short = |limit, left, last: Option<u64>| {
            let used = (limit - left) * MIB;
            is_short(Reading { limit: limit * MIB, used }, last.map(|taken| used - taken * MIB))
        };
        assert!(short(160, 9, None) && !short(160, 10, None), "a sixteenth");
        assert!(short(16 << 10, 63, None) && !short(16 << 10, 64, None), "64 MiB at the most");
        assert!(short(160, 15, Some(3)) && !short(160, 16, Some(3)), "twice what was taken");
        assert!(is_short(Reading { limit: MIB, used: 2 * MIB }, None), "a limit may be set below what is used");
    }

    #[test]
    fn the_machine_has_what_is_available_and_its_swap() {
        let meminfo = "MemTotal:       1024 kB\nMemFree: 1 kB\nMemAvailable:    256 kB\nSwapFree:     128 kB\n";
        assert_eq!(of_machine(meminfo), Some(Reading { limit: MIB, used: 640 << 10 }));
        assert_eq!(of_machine("MemTotal: 1024 kB\n"), None);
    }

    #[test]
    fn a_limit_that_comes_later_is_seen_and_file_pages_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let write_usage = |mib: u64| write("memory.current", &format!("{}\n", mib * MIB));
        write("memory.max", "max\n");
        write_usage(90);
        write("memory.stat", &format!("anon 7\ninactive_file {}\nactive_file {}\n", 20 * MIB, 10 * MIB));
        let place = open(dir.path(), Path::new("/web"), Version::Two).expect("the files are there");
        let mut bounded = Bounded::new(place);
        assert_eq!(bounded.look(), None, "there is no limit");
        write("memory.max", &format!("{}\n", 100 * MIB));
        assert_eq!(bounded.look(), None);
        write_usage(99);
        assert_eq!(bounded.look(), None, "30 MiB are file pages");
        write("memory.stat", "inactive_file 0\nactive_file 1048576\n");
        let what = bounded.look().expect("99 of 100 MiB are used");
        assert!(what.starts_with("its memory cgroup /web is nearly full: 98 of 100 MiB are used"), "{what}");
        assert!(open(dir.path(), Path::new("/"), Version::One).is_none(), "the root has no such files");
    }

    #[test]
    fn this_process_can_be_watched() {
        let mut watch = Watch::of(Pid(std::process::id().cast_signed()));
        assert!(!watch.places.is_empty(), "the machine at least");
        assert!(watch.places.iter_mut().all(|bounded| bounded.place.read().is_none_or(|reading| reading.limit > 0)));
        watch.next = Instant::now() + Duration::from_mins(1);
        assert_eq!(watch.look(), None, "it is not time");
    }
}
