//! What `/proc` says of a process, proc(5).

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::memory::Memory;
use super::{Error, Pid, Result, Tid};

/// Reads a file of `/proc`. A program may be called, and its files too, by bytes that are no UTF-8; those are replaced.
///
/// # Errors
///
/// The file cannot be read.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn read(path: String) -> Result<String> {
    text(&path).map_err(|source| Error::Proc { path, source })
}

/// One line of `/proc/<pid>/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub readable: bool,
    pub writable: bool,
    pub executable: bool,
    pub shared: bool,
    pub offset: u64,
    /// Major and minor number of the file's device, `major << 32 | minor`.
    pub device: u64,
    pub inode: u64,
    /// The file's path or a name in brackets; empty for anonymous memory.
    pub name: String,
}

impl Mapping {
    /// Says whether this is memory without a name that a process shares with the children it forks (`MAP_SHARED |
    /// MAP_ANONYMOUS` of mmap(2)).
    #[must_use]
    pub fn is_shared_memory(&self) -> bool {
        self.shared && self.name == "/dev/zero (deleted)"
    }
}

pub fn maps(pid: Pid) -> Result<Vec<Mapping>> {
    Ok(read(format!("/proc/{pid}/maps"))?.lines().filter_map(parse_mapping).collect())
}

/// What `/proc/<pid>/smaps` says. The kernel looks at every page for it.
pub fn smaps(pid: Pid) -> Result<String> {
    read(format!("/proc/{pid}/smaps"))
}

fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let perms = fields.next()?.as_bytes();
    let offset = fields.next()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?;
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        readable: perms.first() == Some(&b'r'),
        writable: perms.get(1) == Some(&b'w'),
        executable: perms.get(2) == Some(&b'x'),
        shared: perms.get(3) == Some(&b's'),
        offset: u64::from_str_radix(offset, 16).ok()?,
        device: u64::from_str_radix(major, 16).ok()? << 32 | u64::from_str_radix(minor, 16).ok()?,
        inode: inode.parse().ok()?,
        name: fields.next().unwrap_or("").trim_start().to_owned(),
    })
}

/// Returns the threads of a process, lowest id first.
pub fn tasks(pid: Pid) -> Result<Vec<Tid>> {
    let mut tids: Vec<Tid> = numbers(format!("/proc/{pid}/task"))?.into_iter().map(Tid).collect();
    tids.sort();
    Ok(tids)
}

fn numbers(path: String) -> Result<Vec<i32>> {
    let entries = fs::read_dir(&path).map_err(|source| Error::Proc { path, source })?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Returns the stack pointer of a thread that waits in the kernel.
#[must_use]
pub fn stack_pointer(pid: Pid, tid: Tid) -> Option<u64> {
    place(pid, tid).map(|(rsp, _)| rsp)
}

/// Returns the stack pointer and the instruction pointer of a thread that waits in the kernel (`/proc/<pid>/syscall`, proc(5)).
#[must_use]
pub fn place(pid: Pid, tid: Tid) -> Option<(u64, u64)> {
    let text = text(format!("/proc/{pid}/task/{tid}/syscall")).ok()?;
    let fields: Vec<&str> = text.split_whitespace().collect();
    let word = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    // In a call: its number, six arguments, and these two; blocked elsewhere: -1 and these two; else one word alone.
    match fields.as_slice() {
        [_, .., rsp, rip] => Some((word(rsp)?, word(rip)?)),
        _ => None,
    }
}

/// Returns the process that a thread belongs to; `None` when it is gone.
#[must_use]
pub fn process_of(tid: Tid) -> Option<Pid> {
    let status = text(format!("/proc/{tid}/status")).ok()?;
    field(&status, "Tgid:")?.parse().ok().map(Pid)
}

/// Returns the children of a process that it has not waited for, whichever of its threads has made them.
pub fn children(pid: Pid) -> Result<Vec<Pid>> {
    let mut children = Vec::new();
    for tid in tasks(pid)? {
        // A thread that has ended meanwhile has passed its children on to another.
        let Ok(text) = text(format!("/proc/{pid}/task/{tid}/children")) else { continue };
        children.extend(text.split_whitespace().filter_map(|child| child.parse().ok().map(Pid)));
    }
    Ok(children)
}

/// One open descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub fd: i32,
    /// What `/proc/<pid>/fd/<fd>` points at.
    pub target: PathBuf,
    pub close_on_exec: bool,
}

/// Returns the open descriptors of a process, lowest number first.
pub fn descriptors(pid: Pid) -> Result<Vec<Descriptor>> {
    let mut fds = numbers(format!("/proc/{pid}/fd"))?;
    fds.sort_unstable();
    let mut list = Vec::with_capacity(fds.len());
    for fd in fds {
        let Ok(target) = fs::read_link(format!("/proc/{pid}/fd/{fd}")) else { continue };
        let Ok(info) = text(format!("/proc/{pid}/fdinfo/{fd}")) else { continue };
        let flags = flags_in(&info).unwrap_or(0);
        list.push(Descriptor { fd, target, close_on_exec: flags & libc::O_CLOEXEC != 0 });
    }
    Ok(list)
}

/// Returns the flags that a descriptor is open with (`O_NONBLOCK` and the like), if it is.
pub fn open_flags(pid: Pid, fd: i32) -> Option<i32> {
    flags_in(&text(format!("/proc/{pid}/fdinfo/{fd}")).ok()?)
}

fn flags_in(info: &str) -> Option<i32> {
    i32::from_str_radix(field(info, "flags:")?, 8).ok()
}

/// Says whether a process has anything open.
pub fn has_descriptors(pid: Pid) -> Result<bool> {
    let path = format!("/proc/{pid}/fd");
    match fs::read_dir(&path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(source) => Err(Error::Proc { path, source }),
    }
}

/// One registration of an epoll set, from the `tfd:` lines of its fdinfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpollEntry {
    pub fd: i32,
    pub events: u32,
    pub data: u64,
}

/// Returns the registrations of an epoll descriptor.
pub fn epoll_entries(pid: Pid, epfd: i32) -> Result<Vec<EpollEntry>> {
    Ok(read(format!("/proc/{pid}/fdinfo/{epfd}"))?.lines().filter_map(parse_epoll).collect())
}

fn parse_epoll(line: &str) -> Option<EpollEntry> {
    let mut words = line.split_whitespace();
    let mut value = |key: &str| (words.next()? == key).then(|| words.next())?;
    Some(EpollEntry {
        fd: value("tfd:")?.parse().ok()?,
        events: u32::from_str_radix(value("events:")?, 16).ok()?,
        data: u64::from_str_radix(value("data:")?, 16).ok()?,
    })
}

/// Returns the number of an eventfd, by which its duplicates are known.
pub fn event_id(pid: Pid, fd: i32) -> Option<u64> {
    field(&text(format!("/proc/{pid}/fdinfo/{fd}")).ok()?, "eventfd-id:")?.parse().ok()
}

fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

/// The signal masks of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Pending for the thread or for its process.
    pub pending: u64,
    pub blocked: u64,
    pub ignored: u64,
    pub caught: u64,
}

/// The bit of a signal in a mask.
#[must_use]
pub fn signal_bit(signo: i32) -> u64 {
    1 << (signo - 1)
}

pub fn signals(pid: Pid, tid: Tid) -> Result<Signals> {
    let text = read(format!("/proc/{pid}/task/{tid}/status"))?;
    let mask = |key| field(&text, key).and_then(|value| u64::from_str_radix(value, 16).ok()).unwrap_or(0);
    Ok(Signals {
        pending: mask("SigPnd:") | mask("ShdPnd:"),
        blocked: mask("SigBlk:"),
        ignored: mask("SigIgn:"),
        caught: mask("SigCgt:"),
    })
}

/// Returns one field of `/proc/<pid>/stat`, counted from 1 as in proc(5).
/// Returns a field of `/proc/<pid>/stat`, by its number in proc(5).
pub(crate) fn stat_field(pid: Pid, number: usize) -> Result<Option<String>> {
    let text = read(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses, which may hold anything.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    Ok(rest.split_whitespace().nth(number - 3).map(str::to_owned))
}

/// Returns when a process started, in clock ticks since boot; with the pid it names a process for good.
pub fn start_time(pid: Pid) -> Result<u64> {
    Ok(stat_field(pid, 22)?.and_then(|value| value.parse().ok()).unwrap_or(0))
}

/// Says whether a process has a thread that has not ended. A zombie has none, though its number is taken still.
#[must_use]
pub fn lives(pid: Pid) -> bool {
    let threads = tasks(pid).unwrap_or_default();
    threads.into_iter().any(|tid| state(pid, tid).is_some_and(|state| !matches!(state, 'Z' | 'X')))
}

/// Returns the parent of a process.
pub fn parent(pid: Pid) -> Result<Pid> {
    Ok(Pid(stat_field(pid, 4)?.and_then(|value| value.parse().ok()).unwrap_or(0)))
}

/// Says whether a process leads a session that has a terminal.
pub fn leads_terminal(pid: Pid) -> Result<bool> {
    let number = |field: Option<String>| field.and_then(|value| value.parse().ok()).unwrap_or(0);
    let (session, terminal): (i32, i32) = (number(stat_field(pid, 6)?), number(stat_field(pid, 7)?));
    Ok(session == pid.0 && terminal != 0)
}

/// Returns a thread's name.
pub fn thread_name(pid: Pid, tid: Tid) -> Result<String> {
    Ok(read(format!("/proc/{pid}/task/{tid}/comm"))?.trim_end().to_owned())
}

/// Returns which call a thread is in that the kernel restarts as `restart_syscall(2)`: the number alone does not tell. The
/// instruction that loaded the number does (`mov eax, nr` stands right before `syscall` in every C library), or the function
/// that the thread sleeps in. `None` when the thread is in another call, or in none, or nothing tells.
#[must_use]
pub fn restarted_call(pid: Pid, tid: Tid, memory: &Memory) -> Option<u32> {
    let call = text(format!("/proc/{pid}/task/{tid}/syscall")).ok()?;
    let words: Vec<&str> = call.split_whitespace().collect();
    if words.first()?.parse() != Ok(libc::SYS_restart_syscall) {
        return None;
    }
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let after = number(words.last()?)?;
    let code = memory.read_vec(after.checked_sub(7)?, 7).unwrap_or_default();
    loaded_number(&code).or_else(|| {
        let sleeps_in = text(format!("/proc/{pid}/task/{tid}/wchan")).ok()?;
        sleeping_call(&sleeps_in, number(words.get(1)?)?)
    })
}

/// The calls that a stop turns into `restart_syscall(2)`.
const RESTARTED: [i64; 4] = [libc::SYS_poll, libc::SYS_nanosleep, libc::SYS_futex, libc::SYS_clock_nanosleep];

/// Reads the number from `mov eax, imm32; syscall`.
#[must_use]
pub fn loaded_number(code: &[u8]) -> Option<u32> {
    let [0xb8, a, b, c, d, 0x0f, 0x05] = *code else { return None };
    let nr = u32::from_le_bytes([a, b, c, d]);
    RESTARTED.contains(&i64::from(nr)).then_some(nr)
}

fn sleeping_call(sleeps_in: &str, first_argument: u64) -> Option<u32> {
    let nr = if sleeps_in.contains("futex") {
        libc::SYS_futex
    } else if sleeps_in.contains("poll") {
        libc::SYS_poll
    } else if sleeps_in.contains("nsleep") || sleeps_in.contains("nanosleep") {
        // clock_nanosleep takes a clock first, nanosleep an address.
        if first_argument < 4096 { libc::SYS_clock_nanosleep } else { libc::SYS_nanosleep }
    } else {
        return None;
    };
    Some(nr as u32)
}

/// Returns the state of a thread as proc(5) has it: `R`, `S`, `t`, …; `None` when the thread is gone.
#[must_use]
pub fn state(pid: Pid, tid: Tid) -> Option<char> {
    // Asked often: one read, and no more of the file than is needed.
    let mut stat = [0; 64];
    let len = fs::File::open(format!("/proc/{pid}/task/{tid}/stat")).ok()?.read(&mut stat).ok()?;
    // The name before the state may hold anything, closing brackets too; it is short.
    let end = stat[..len].iter().rposition(|byte| *byte == b')')?;
    stat[..len].get(end + 2).map(|byte| char::from(*byte))
}

/// Says whether no thread of a process will be in user code again, `flags` of proc(5) and `PF_EXITING` of the kernel's sched.h:
/// it has no memory any more, or soon has none, though it may not have ended.
#[must_use]
pub fn is_ending(pid: Pid) -> bool {
    const PF_EXITING: u64 = 4;
    let goes_on = |tid: Tid| {
        let stat = text(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
        let flags: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(9 - 3)?.parse().ok()?;
        // All threads of a process that ends have this pending until they are given a processor.
        let killed = signals(pid, tid).ok()?.pending & signal_bit(libc::SIGKILL) != 0;
        Some(flags & PF_EXITING == 0 && !killed)
    };
    !tasks(pid).unwrap_or_default().into_iter().any(|tid| goes_on(tid).unwrap_or(false))
}

/// Says whether a process has ended, signals that to nobody, and was not waited for, `state` and `exit_signal` of proc(5).
#[must_use]
pub fn is_silent_zombie(pid: Pid) -> bool {
    let Ok(stat) = text(format!("/proc/{pid}/stat")) else { return false };
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let mut fields = fields.split_whitespace();
    fields.next() == Some("Z") && fields.nth(34) == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_text_is_read() {
        let name = std::thread::spawn(|| {
            // SAFETY: the string outlives the call; it names this thread alone.
            unsafe { libc::prctl(libc::PR_SET_NAME, c"\xff\xfe server".as_ptr()) };
            text("/proc/thread-self/stat")
        });
        let stat = name.join().expect("it does not panic").expect("it can be read");
        assert!(stat.contains("\u{fffd}\u{fffd} server"), "{stat}");
    }

    #[test]
    fn mapping_lines() {
        let line = "7ffe1204e000-7ffe1206f000 rw-p 00001000 fe:00 325843                     /usr/lib/a b.so";
        let mapping = parse_mapping(line).expect("a mapping");
        assert_eq!((mapping.start, mapping.end, mapping.offset), (0x7ffe_1204_e000, 0x7ffe_1206_f000, 0x1000));
        assert!(mapping.readable && mapping.writable && !mapping.executable && !mapping.shared);
        assert_eq!(mapping.name, "/usr/lib/a b.so");
        assert_eq!(parse_mapping("0-1 rw-s 0 00:00 0").expect("no name").name, "");
    }

    #[test]
    fn epoll_lines() {
        let line = "tfd:        5 events:       19 data:                5  pos:0 ino:1 sdev:8";
        assert_eq!(parse_epoll(line), Some(EpollEntry { fd: 5, events: 0x19, data: 5 }));
        assert_eq!(parse_epoll("flags:\t02"), None);
    }

    #[test]
    fn restarted_calls() {
        assert_eq!(loaded_number(&[0xb8, 7, 0, 0, 0, 0x0f, 0x05]), Some(7));
        assert_eq!(loaded_number(&[0xb8, 1, 0, 0, 0, 0x0f, 0x05]), None);
        assert_eq!(loaded_number(&[0; 7]), None);
        assert_eq!(sleeping_call("futex_do_wait", 0x7f00), Some(202));
        assert_eq!(sleeping_call("poll_schedule_timeout.constprop.0", 0x7f00), Some(7));
        assert_eq!(sleeping_call("hrtimer_nanosleep", 1), Some(230));
        assert_eq!(sleeping_call("do_nanosleep", 0x7ff0_0000), Some(35));
        assert_eq!(sleeping_call("do_syscall_64", 0), None);
    }

    #[test]
    fn ourselves() {
        let me = Pid(std::process::id() as i32);
        assert!(tasks(me).expect("tasks").contains(&me.main()) || cfg!(test));
        assert!(start_time(me).expect("start time") > 0);
        assert!(descriptors(me).expect("descriptors").iter().any(|descriptor| descriptor.fd == 0));
        assert!(signals(me, me.main()).is_ok());
        assert!(lives(me) && !is_ending(me));
        // SAFETY: gettid has no arguments and cannot fail.
        assert_eq!(state(me, Tid(unsafe { libc::gettid() })), Some('R'));
    }
}
