//! Failover: the leader crashes, and the image of a follower goes on in its place, in the same process.
//!
//! ```text
//!   leader          conductor              follower
//!   crashes, is held
//!     ── Crashed ────► ── TakeOver ────────► lives through all that is recorded, stands at the leader's calls
//!                      ◄────── Prepared ──── gives its image away
//!     ◄─── Become ────
//!   has the image put in place, goes on with it
//!     ─── Became ────► ── Gone ────────────► ends
//! ```
//!
//! A follower that would end by the same fault (the same version, mostly) says so, and the next one is asked; so it is when an
//! image cannot be put in place. When nobody is left the leader ends by its signal, as it would have. The stream goes on where it
//! was, and the process and its threads are called as ever, so the other followers notice nothing but what the new version has
//! told its epoll sets.
//!
//! Two programs have nothing in common but what they do, so everything moves ([`crate::image::whole`]). Until the commit the
//! leader is what it was: a process that is about to end by a signal. Whoever dies before that, it does.
//!
//! A process is taken over unless its parent is one of the leader's: a child that crashes is its parent's business, as ever, and
//! so it is in each follower. A daemon that has left its parent has none there. The children of a process that is taken over are
//! its children still, and it waits for them as before; those of the follower end with it.

use std::path::Path;

use crossbeam_channel::Sender;

use crate::image::place::Failure;
use crate::image::version::{Handlers, Version, parked};
use crate::image::whole::{self, Leaving};
use crate::ptrace::tsc::sites::Site;
use crate::ptrace::tsc::{Reads, Trapped};
use crate::ptrace::wait::Inbox;
use crate::ptrace::{Error, Pid, Result, procfs, sys};
use crate::record::leading::{HeldThread, Leading, Settings, holding};
use crate::record::{Event, Slot, StreamId, Succession};
use crate::replay::epoll::Pair;
use crate::replay::following::Following;
use crate::tracee::process::Process;
use crate::tracee::program;
use crate::update::session::Notice;
use crate::update::session::roles::{show_original_call, watches};

/// A leader that is held before the signal that would end it.
#[derive(Clone, Debug)]
pub(super) struct Fallen {
    pub(super) signo: i32,
    /// The stream of the process, which its successor goes on with.
    pub(super) stream: StreamId,
    /// Where its threads stand.
    pub(super) held: Vec<HeldThread>,
    /// How many records a successor must have lived through.
    pub(super) target: u64,
    signals: procfs::Signals,
    /// Instructions of its libraries that were replaced, with their addresses there.
    sites: Vec<(u64, Site)>,
}

impl Fallen {
    /// Describes a leader all of whose threads are held.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where another program's image could not stand in for its own.
    pub(super) fn describe(process: &Process, role: &Leading, signo: i32) -> Result<Fallen> {
        check_replaceable(process.pid)?;
        let (held, target) = role.held();
        let signals = procfs::signals(process.pid, process.pid.main())?;
        let sites = process.footprint.clock.sites.clone();
        Ok(Fallen { signo, stream: role.stream_id(), held, target, signals, sites })
    }
}

/// Refuses a process of which others, or the kernel, know an address.
fn check_replaceable(pid: Pid) -> Result<()> {
    let maps = procfs::maps(pid)?;
    let refused =
        |what: String| Err(Error::Unsupported(format!("{what}; another version's memory cannot take its place")));
    let timers = procfs::text(format!("/proc/{pid}/timers")).unwrap_or_default();
    let is_address = |value: &u64| maps.iter().any(|area| (area.start..area.end).contains(value));
    if let Some(value) = timer_values(&timers).find(is_address) {
        return refused(format!("a timer of it tells of itself by an address of its memory ({value:#x})"));
    }
    for descriptor in procfs::descriptors(pid)? {
        let link = format!("/proc/{pid}/fd/{}", descriptor.fd);
        if is_queue(Path::new(&link)) && procfs::text(&link).ok().as_deref().and_then(told_of_messages) == Some(pid.0) {
            let fd = descriptor.fd;
            return refused(format!(
                "it waits to be told of a message (mq_notify on descriptor {fd}), by whatever value"
            ));
        }
    }
    let mut next = procfs::children(pid)?;
    while let Some(child) = next.pop() {
        if sys::shares_memory(pid, child) {
            return refused(format!("process {child}, which it has started, works on its memory"));
        }
        let theirs = procfs::maps(child).unwrap_or_default();
        let is_ours = |theirs: &procfs::Mapping| {
            let same = |ours: &procfs::Mapping| (ours.device, ours.inode) == (theirs.device, theirs.inode);
            theirs.is_shared_memory() && maps.iter().any(same)
        };
        if theirs.iter().any(is_ours) {
            return refused(format!("it shares memory with process {child}, which it has started"));
        }
        next.extend(procfs::children(child).unwrap_or_default());
    }
    Ok(())
}

/// Returns the values by which timers tell of themselves, from `/proc/<pid>/timers` of proc(5).
fn timer_values(timers: &str) -> impl Iterator<Item = u64> {
    let signals = timers.lines().filter_map(|line| line.strip_prefix("signal: ")?.split_once('/'));
    signals.filter_map(|(_, value)| u64::from_str_radix(value, 16).ok())
}

/// Says whether a path leads to a message queue.
fn is_queue(path: &Path) -> bool {
    /// `MQUEUE_MAGIC`, `ipc/mqueue.c`.
    const MQUEUE: i64 = 0x1980_0202;
    nix::sys::statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type().0 == MQUEUE)
}

/// Returns who is to be told of the next message, from `QSIZE:… NOTIFY:… SIGNO:… NOTIFY_PID:…` of mq_overview(7).
fn told_of_messages(text: &str) -> Option<i32> {
    let pid = text.split_whitespace().find_map(|word| word.strip_prefix("NOTIFY_PID:"))?;
    pid.parse().ok().filter(|pid| *pid != 0)
}

/// What a follower gives to the process that has crashed.
#[derive(Debug)]
pub(super) struct Legacy {
    image: Leaving,
    /// What the epoll sets call by different values in the two.
    registrations: Vec<(i32, i32, Pair)>,
    reads: Reads,
    /// Threads that have chosen by themselves what reading the clock does.
    own: Vec<Slot>,
    sites: Vec<(u64, Site)>,
}

/// Takes the image out of a follower that stands where the leader does.
pub(super) fn give(inbox: &Inbox, process: &Process, role: &Following, fallen: &Fallen) -> Result<Legacy> {
    let threads = role.rewind_all()?;
    threads.iter().try_for_each(|(tid, _, rewound)| show_original_call(*tid, *rewound))?;
    let clock = &process.footprint.clock;
    let own = clock.own.iter().filter_map(|tid| process.slot(*tid)).collect();
    let place = |(addr, site): &(u64, Site)| Some((role.place_of_copy(*addr, site.bytes().len() as u64)?, *site));
    Ok(Legacy {
        image: Leaving::take(inbox, process, parked(&threads), Handlers::For(fallen.signals))?,
        registrations: role.registrations().differing().collect(),
        reads: clock.reads,
        own,
        sites: fallen.sites.iter().filter_map(place).collect(),
    })
}

/// Puts the image of a follower in place of that of a leader all of whose threads are held, and lets it go on, recorded into the
/// same stream. Returns what is not as it should be, if anything is.
pub(super) fn become_other(
    inbox: &Inbox,
    process: &mut Process,
    role: &mut Leading,
    legacy: &Legacy,
    (settings, notices): (Settings, Sender<Notice>),
) -> Result<Option<String>, Failure> {
    let before = Failure::Before;
    let held = role.held().0;
    let threads = holding::rewind(&held).map_err(before)?;
    let service = Version::take_stock(inbox, process, &parked(&threads), Handlers::Unasked).map_err(before)?;
    let watches = watches(process.pid, &legacy.registrations).map_err(before)?;
    let placed = whole::put(inbox, process, &service, &legacy.image, &watches)?;
    let pid = process.pid;
    let misnamed = |error| format!("/proc/{pid}/exe names the program that has crashed still: {error}");
    let note = placed.misnamed.map(misnamed);
    let own = legacy.own.iter().filter_map(|slot| process.tid(*slot)).collect();
    let clock = Trapped { reads: legacy.reads, own, sites: legacy.sites.clone() };
    program::equip_anew(inbox, process, clock, placed.spare).map_err(Failure::After)?;
    role.send_all_postponed();
    let written = |slot: Slot| held.iter().any(|held| held.slot == slot && held.written);
    let threads = placed.threads.into_iter().map(|(tid, slot, rewound)| (tid, slot, rewound, written(slot)));
    let mut stream = role.surrender();
    let registered = legacy.registrations.iter();
    let registrations = registered.map(|(epfd, fd, pair)| (*epfd, *fd, pair.leader, pair.follower)).collect();
    stream.emit(Slot(0), Event::Succession(Succession { registrations }));
    *role = Leading::succeed(threads, &process.memory, stream, settings, notices);
    role.start().map_err(Failure::After)?;
    tracing::info!(%pid, moved = placed.moved, "goes on with the memory of a follower");
    Ok(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_of_messages() {
        let text = "QSIZE:129     NOTIFY:2    SIGNO:0    NOTIFY_PID:8260\n";
        assert_eq!(told_of_messages(text), Some(8260));
        assert_eq!(told_of_messages("QSIZE:0     NOTIFY:0     SIGNO:0     NOTIFY_PID:0\n"), None);
        assert_eq!(told_of_messages("something else"), None);
    }

    #[test]
    fn values_of_timers_are_read_from_proc() {
        let text = "ID: 0\nsignal: 14/00007ffe00000010\nnotify: signal/pid.77\nClockID: 1\n\
                    ID: 3\nsignal: 32/0000000000000000\nnotify: signal/tid.78\nClockID: -6\n";
        assert_eq!(timer_values(text).collect::<Vec<_>>(), [0x7ffe_0000_0010, 0]);
        assert_eq!(timer_values("").count(), 0);
    }
}
