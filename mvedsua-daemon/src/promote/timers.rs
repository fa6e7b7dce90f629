//! Timers that belong to a process: `setitimer(2)` and `timer_create(2)`. A fork carries neither.

use std::collections::BTreeMap;

use crate::ptrace::inject::Remote;
use crate::ptrace::memory::Memory;
use crate::ptrace::procfs;
use crate::ptrace::{Error, Pid, Result, Tid};
use crate::record::Slot;

/// `PR_TIMER_CREATE_RESTORE_IDS`, Linux 6.15: the next `timer_create` takes the id that it is given.
const RESTORE_IDS: u64 = 77;
const INTERVAL_TIMERS: usize = 3;

/// Whom a POSIX timer tells of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notify {
    Nobody,
    Process,
    Thread(Tid),
}

/// One POSIX timer, from `/proc/<pid>/timers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Posix {
    id: i32,
    signo: i32,
    value: u64,
    notify: Notify,
    clock: i32,
    /// `struct itimerspec`: interval and what is left, seconds and nanoseconds each.
    setting: [u64; 4],
}

/// Every timer of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timers {
    /// Interval and what is left, seconds and microseconds each.
    interval: [[u64; 4]; INTERVAL_TIMERS],
    posix: Vec<Posix>,
}

fn words(memory: &Memory, addr: u64) -> Result<[u64; 4]> {
    let mut words = [0; 4];
    for (index, word) in words.iter_mut().enumerate() {
        *word = memory.read_u64(addr + 8 * index as u64)?;
    }
    Ok(words)
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn parse(text: &str) -> Option<Vec<Posix>> {
    let mut timers = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let id = line.strip_prefix("ID: ")?.parse().ok()?;
        let (signo, value) = lines.next()?.strip_prefix("signal: ")?.split_once('/')?;
        let (how, whom) = lines.next()?.strip_prefix("notify: ")?.split_once('/')?;
        let clock = lines.next()?.strip_prefix("ClockID: ")?.parse().ok()?;
        let notify = match (how, whom.split_once('.')?) {
            ("none", _) => Notify::Nobody,
            (_, ("tid", tid)) => Notify::Thread(Tid(tid.parse().ok()?)),
            _ => Notify::Process,
        };
        let (signo, value) = (signo.parse().ok()?, u64::from_str_radix(value, 16).ok()?);
        timers.push(Posix { id, signo, value, notify, clock, setting: [0; 4] });
    }
    Some(timers)
}

impl Timers {
    /// Reads the timers of a process that `remote` borrows a thread of.
    pub(crate) fn read(pid: Pid, remote: &mut Remote<'_>, memory: &Memory, scratch: u64) -> Result<Timers> {
        let mut timers = Timers::default();
        for (which, timer) in timers.interval.iter_mut().enumerate() {
            remote.call("getitimer", libc::SYS_getitimer, [which as u64, scratch, 0, 0, 0, 0])?;
            *timer = words(memory, scratch)?;
        }
        let text = procfs::text(format!("/proc/{pid}/timers")).unwrap_or_default();
        let Some(posix) = parse(&text) else {
            return Err(Error::Unsupported(format!("/proc/{pid}/timers has a form that is not known")));
        };
        timers.posix = posix;
        for timer in &mut timers.posix {
            remote.call("timer_gettime", libc::SYS_timer_gettime, [timer.id as u64, scratch, 0, 0, 0, 0])?;
            timer.setting = words(memory, scratch)?;
        }
        Ok(timers)
    }

    /// Says whether there is nothing to move.
    pub(crate) fn is_empty(&self) -> bool {
        self.posix.is_empty() && self.interval.iter().all(|timer| timer[2] == 0 && timer[3] == 0)
    }

    /// Makes the POSIX timers in the version that is to lead; they do not run yet. `old` and `new` say which thread is whose
    /// twin.
    pub(crate) fn create(
        &self,
        remote: &mut Remote<'_>,
        memory: &Memory,
        scratch: u64,
        old: &BTreeMap<Slot, Tid>,
        new: &BTreeMap<Slot, Tid>,
    ) -> Result<()> {
        if self.posix.is_empty() {
            return Ok(());
        }
        remote.call("prctl", libc::SYS_prctl, [RESTORE_IDS, 1, 0, 0, 0, 0])?;
        for timer in &self.posix {
            let twin = |tid: Tid| {
                let slot = old.iter().find(|(_, have)| **have == tid).map(|(slot, _)| slot);
                slot.and_then(|slot| new.get(slot)).copied().ok_or_else(|| {
                    let what = format!("timer {} belongs to thread {tid}, which has no twin", timer.id);
                    Error::Unsupported(what)
                })
            };
            let (kind, tid) = match timer.notify {
                Notify::Nobody => (libc::SIGEV_NONE, 0),
                Notify::Process => (libc::SIGEV_SIGNAL, 0),
                Notify::Thread(tid) => (libc::SIGEV_THREAD_ID, twin(tid)?.0),
            };
            let clock = match processor_time_of(timer.clock) {
                Some(tid) => with_processor_time_of(timer.clock, twin(tid)?),
                None => timer.clock,
            };
            // struct sigevent: value, signo, notify, tid; the id that is asked for stands behind it.
            let mut event = bytes(&[timer.value]);
            for word in [timer.signo, kind, tid] {
                event.extend_from_slice(&word.to_ne_bytes());
            }
            event.resize(64, 0);
            event.extend_from_slice(&timer.id.to_ne_bytes());
            memory.write(scratch, &event)?;
            let args = [i64::from(clock) as u64, scratch, scratch + 64, 0, 0, 0];
            remote.call("timer_create", libc::SYS_timer_create, args)?;
        }
        remote.call("prctl", libc::SYS_prctl, [RESTORE_IDS, 0, 0, 0, 0, 0]).map(drop)
    }

    /// Starts the timers in the new leader, with the time that was left.
    pub(crate) fn start(&self, remote: &mut Remote<'_>, memory: &Memory, scratch: u64) -> Result<()> {
        for (which, timer) in self.interval.iter().enumerate().filter(|(_, timer)| timer[2] != 0 || timer[3] != 0) {
            memory.write(scratch, &bytes(timer))?;
            remote.call("setitimer", libc::SYS_setitimer, [which as u64, scratch, 0, 0, 0, 0])?;
        }
        for timer in &self.posix {
            memory.write(scratch, &bytes(&timer.setting))?;
            remote.call("timer_settime", libc::SYS_timer_settime, [timer.id as u64, 0, scratch, 0, 0, 0])?;
        }
        Ok(())
    }
}

/// The bits of a clock's number that say which time of a process or thread it counts, `include/linux/posix-timers.h`.
const CLOCK_KIND: i32 = 7;
/// Those of a clock that is a descriptor.
const CLOCK_OF_DESCRIPTOR: i32 = 3;

/// Returns whose processor time a clock counts, where its number names a process or a thread (`pthread_getcpuclockid(3)`);
/// 0 in its place means the caller.
fn processor_time_of(clock: i32) -> Option<Tid> {
    let whose = !(clock >> 3);
    (clock < 0 && clock & CLOCK_KIND != CLOCK_OF_DESCRIPTOR && whose != 0).then_some(Tid(whose))
}

fn with_processor_time_of(clock: i32, tid: Tid) -> i32 {
    (!tid.0 << 3) | (clock & CLOCK_KIND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_are_read_from_proc() {
        let text = "ID: 0\nsignal: 14/00007ffe00000010\nnotify: signal/pid.77\nClockID: 1\n\
                    ID: 3\nsignal: 32/0000000000000000\nnotify: signal/tid.78\nClockID: -6\n";
        let timers = parse(text).expect("timers");
        assert_eq!(
            (timers[0].id, timers[0].signo, timers[0].value, timers[0].notify),
            (0, 14, 0x7ffe_0000_0010, Notify::Process)
        );
        assert_eq!((timers[1].id, timers[1].notify, timers[1].clock), (3, Notify::Thread(Tid(78)), -6));
        assert_eq!(parse(""), Some(Vec::new()));
        assert_eq!(parse("ID: x\n"), None);
    }

    #[test]
    fn clocks_of_other_threads_are_named_anew() {
        // CLOCK_THREAD_CPUTIME_ID of whoever asks, a clock that is descriptor 5, the time of day.
        for clock in [-2, (!5 << 3) | 3, libc::CLOCK_REALTIME] {
            assert_eq!(processor_time_of(clock), None, "{clock}");
        }
        let clock = (!4711 << 3) | 6;
        assert_eq!(processor_time_of(clock), Some(Tid(4711)));
        assert_eq!(with_processor_time_of(clock, Tid(12)), (!12 << 3) | 6);
    }
}
