//! The recorder's source of calls without stops: eBPF programs that write the calls of one thread into a ring buffer, see
//! `mvedsua_common::bulk` for how, and `record/leading/bulk.rs` for which thread and when.
//!
//! Dropping [`Hooks`] detaches the programs; so does the daemon's death, after which the thread runs as if nobody had watched it.

mod observation;
mod plans;

use std::os::fd::AsFd as _;

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::BtfTracePoint;
use aya::{Btf, EbpfLoader, Pod};
use mvedsua_common::bulk::{CALLS, Lost, Plan, RING_BYTES, Watched};

pub(crate) use self::observation::{Memories, Observation};
use crate::monitor::MonitorError;
use crate::monitor::btf;
use crate::ptrace::Tid;
use crate::ptrace::breakpoint::Breakpoint;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/recorder.bpf.o"));

/// How much of the ring buffer may be full before the thread is stopped: what a stop takes, it goes on writing.
const MOST_WAITING: u64 = RING_BYTES as u64 / 2;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodWatched(Watched);
// SAFETY: `repr(C)`, integers only, no padding (the common crate's tests).
unsafe impl Pod for PodWatched {}
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodPlan(Plan);
// SAFETY: as above.
unsafe impl Pod for PodPlan {}
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodLost(Lost);
// SAFETY: as above.
unsafe impl Pod for PodLost {}

/// Tries what recording without stops takes: the programs, and a breakpoint.
pub(crate) fn try_it() -> Result<(), String> {
    Hooks::load().map_err(|error| error.to_string())?;
    // A place that nobody comes to.
    Breakpoint::at(Tid(0), 1 << 20).map(drop).map_err(|error| format!("no breakpoint of the processor: {error}"))
}

/// The programs, loaded and attached.
pub(crate) struct Hooks {
    watched: Array<MapData, PodWatched>,
    records: RingBuf<MapData>,
    lost: Array<MapData, PodLost>,
    /// How many of the lost records were told.
    told: u64,
    /// Keeps the programs attached.
    _programs: aya::Ebpf,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").field("records", &self.records.as_fd()).finish_non_exhaustive()
    }
}

impl Hooks {
    /// Loads the programs and attaches them; nobody is watched yet. Fails where the machine has no eBPF, or not for us.
    pub(crate) fn load() -> Result<Hooks, MonitorError> {
        let offset = btf::task_offset("blocked")?;
        let mut programs = EbpfLoader::new()
            .override_global("BLOCKED_OFFSET", &offset, true)
            .load(OBJECT)
            .map_err(|source| MonitorError::Load { source: Box::new(source) })?;
        let btf = Btf::from_sys_fs()
            .map_err(|error| MonitorError::NoTypeInformation { source: std::io::Error::other(error) })?;
        let mut plans: Array<_, PodPlan> = map(&mut programs, "PLANS")?;
        for (nr, plan) in plans::all().filter(|(nr, _)| *nr < CALLS) {
            plans.set(nr, PodPlan(plan), 0).map_err(|source| MonitorError::Map { map: "PLANS", source })?;
        }
        let (watched, records, lost) =
            (map(&mut programs, "WATCHED")?, map(&mut programs, "RECORDS")?, map(&mut programs, "LOST")?);
        for hook in ["sys_enter", "sys_exit"] {
            let program = programs.program_mut(hook).ok_or(MonitorError::BadObject { what: hook })?;
            let failed = |source| MonitorError::Program { program: hook, source: Box::new(source) };
            let program: &mut BtfTracePoint = program.try_into().map_err(failed)?;
            program.load(hook, &btf).and_then(|()| program.attach()).map_err(failed)?;
        }
        let mut hooks = Hooks { watched, records, lost, told: 0, _programs: programs };
        hooks.see_own_call()?;
        Ok(hooks)
    }

    /// Makes sure that the programs see who is watched: one that they do not see would run unrecorded.
    fn see_own_call(&mut self) -> Result<(), MonitorError> {
        // SAFETY: takes nothing.
        let own = Tid(unsafe { libc::gettid() });
        self.watch(own, libc::SIGURG, 0)?;
        // SAFETY: takes nothing.
        unsafe { libc::syscall(libc::SYS_getppid) };
        self.rest()?;
        let seen = std::iter::from_fn(|| self.next()).any(|call| i64::from(call.nr) == libc::SYS_getppid);
        // The call by which it was watched was entered before that.
        self.lost();
        if seen { Ok(()) } else { Err(MonitorError::Blind) }
    }

    /// Watches a thread that stands still and is in no call: its calls from now on are recorded. `mark` is a signal that it
    /// ignores by default and has not blocked, `times` the address of its ring of noted times, or 0.
    pub(crate) fn watch(&mut self, tid: Tid, mark: i32, times: u64) -> Result<(), MonitorError> {
        let watched =
            Watched { tid: tid.0.cast_unsigned(), mark: mark.cast_unsigned(), times, most_waiting: MOST_WAITING };
        self.set(watched)
    }

    /// Watches nobody. The thread that was watched stands still.
    pub(crate) fn rest(&mut self) -> Result<(), MonitorError> {
        self.set(Watched::default())
    }

    fn set(&mut self, watched: Watched) -> Result<(), MonitorError> {
        self.watched.set(0, PodWatched(watched), 0).map_err(|source| MonitorError::Map { map: "WATCHED", source })
    }

    /// Takes the next record.
    pub(crate) fn next(&mut self) -> Option<Observation> {
        self.records.next().map(|bytes| Observation::parse(&bytes))
    }

    /// Says how many records were lost since this was asked last.
    pub(crate) fn lost(&mut self) -> u64 {
        let lost = self.lost.get(&0, 0).map_or(u64::MAX, |PodLost(lost)| lost.records);
        lost - std::mem::replace(&mut self.told, lost)
    }
}

fn map<T>(programs: &mut aya::Ebpf, name: &'static str) -> Result<T, MonitorError>
where
    T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = programs.take_map(name).ok_or(MonitorError::BadObject { what: name })?;
    T::try_from(map).map_err(|source| MonitorError::Map { map: name, source })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

    use mvedsua_common::bulk::{MARKED, UNFINISHED, UNSTOPPABLE};
    use mvedsua_common::syscalls::regions::Memory as _;

    use super::*;
    use crate::ptrace::memory::Memory;

    /// Runs `work` in a thread that is watched from its first instruction to its last, and returns what was recorded.
    fn observed(work: impl FnOnce() + Send) -> Vec<Observation> {
        let (calls, lost) = observed_with_losses(work);
        assert_eq!(lost, 0);
        calls
    }

    fn observed_with_losses(work: impl FnOnce() + Send) -> (Vec<Observation>, u64) {
        let mut hooks = Hooks::load().expect("the programs are loaded");
        let (tid, stage) = (AtomicI32::new(0), AtomicU32::new(0));
        let at = |wanted| {
            while stage.load(Ordering::Acquire) != wanted {
                std::hint::spin_loop();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: takes nothing.
                tid.store(unsafe { libc::gettid() }, Ordering::Release);
                at(1);
                work();
                stage.store(2, Ordering::Release);
                at(3);
            });
            while tid.load(Ordering::Acquire) == 0 {
                std::hint::spin_loop();
            }
            hooks.watch(Tid(tid.load(Ordering::Acquire)), libc::SIGURG, 0).expect("a thread to watch");
            stage.store(1, Ordering::Release);
            at(2);
            hooks.rest().expect("nobody is watched");
            stage.store(3, Ordering::Release);
        });
        let lost = hooks.lost();
        assert_eq!(hooks.lost(), 0, "each is told once");
        (std::iter::from_fn(|| hooks.next()).collect(), lost)
    }

    fn after(call: &Observation, addr: u64, len: usize) -> Vec<u8> {
        let memories = Memories::<Memory>::of(call, None);
        let mut bytes = vec![0; len];
        let got = memories.after().read(addr, &mut bytes);
        bytes.truncate(got);
        bytes
    }

    #[test]
    fn calls_are_recorded_with_their_memory() {
        let mut ends = [0; 2];
        // SAFETY: two live places.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        let (mut place, mut set) = ([0u8; 64], [1u64 << ends[0], 0]);
        let words = [*b"first ", *b"second"];
        let parts = words.each_ref().map(|part| libc::iovec { iov_base: part.as_ptr() as _, iov_len: 6 });
        let (place_at, set_at, parts_at) = (place.as_mut_ptr() as u64, set.as_mut_ptr() as u64, parts.as_ptr() as u64);
        let calls = observed(move || {
            let calls: [(i64, [u64; 6]); 5] = [
                (libc::SYS_writev, [ends[1] as u64, parts_at, 2, 0, 0, 0]),
                (libc::SYS_select, [ends[0] as u64 + 1, set_at, 0, 0, 0, 0]),
                (libc::SYS_read, [ends[0] as u64, place_at, 64, 0, 0, 0]),
                (libc::SYS_brk, [0; 6]),
                (libc::SYS_open, [c"/dev/null".as_ptr() as u64, 0, 0, 0, 0, 0]),
            ];
            for (nr, [a, b, c, d, e, f]) in calls {
                // SAFETY: the addresses are of live places that are large enough.
                unsafe { libc::syscall(nr, a, b, c, d, e, f) };
            }
        });
        let seen: Vec<_> = calls.iter().map(|call| (i64::from(call.nr), call.ret)).collect();
        let fd = seen.last().map_or(0, |(_, fd)| *fd);
        let expected = [(libc::SYS_writev, 12), (libc::SYS_select, 1), (libc::SYS_read, 12), (libc::SYS_open, fd)];
        assert_eq!(seen, expected);
        assert!(calls.iter().all(|call| call.flags == 0), "{calls:?}");
        assert_eq!(after(&calls[0], parts_at, 32).len(), 32);
        assert_eq!(after(&calls[2], place_at, 12), b"first second");
        assert_eq!(after(&calls[3], calls[3].args[0], 10), b"/dev/null\0");
        let memories = Memories::<Memory>::of(&calls[1], None);
        let mut asked = [0; 8];
        memories.before().read(set_at, &mut asked);
        assert_eq!(u64::from_ne_bytes(asked), 1 << ends[0]);
        for fd in [ends[0], ends[1], fd as i32] {
            // SAFETY: takes an integer.
            unsafe { libc::close(fd) };
        }
    }

    #[test]
    fn what_cannot_be_read_stops_the_thread() {
        let big = vec![1u8; LARGE];
        let at = big.as_ptr() as u64;
        let null = std::fs::File::options().write(true).open("/dev/null").expect("/dev/null");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&null) as u64;
        let calls = observed(move || {
            for (addr, len) in [(at, LARGE as u64), (16, 4)] {
                // SAFETY: the kernel checks the address.
                unsafe { libc::syscall(libc::SYS_write, fd, addr, len) };
            }
        });
        let flags: Vec<_> = calls.iter().map(|call| call.flags).collect();
        assert_eq!(flags, [MARKED | UNFINISHED; 2]);
    }

    #[test]
    fn a_thread_is_stopped_before_the_ring_is_full_and_what_finds_no_place_is_counted() {
        const CALLS: usize = 400;
        let piece = vec![1u8; mvedsua_common::bulk::LONGEST_PIECE as usize];
        let (at, len) = (piece.as_ptr() as u64, piece.len() as u64);
        let null = std::fs::File::options().write(true).open("/dev/null").expect("/dev/null");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&null) as u64;
        // Nobody traces the thread, so it does not stop.
        let (calls, lost) = observed_with_losses(move || {
            for _ in 0..CALLS {
                // SAFETY: the piece is live.
                unsafe { libc::syscall(libc::SYS_write, fd, at, len) };
            }
        });
        assert_eq!(calls.len() as u64 + lost, CALLS as u64);
        assert!(lost > 0);
        let free = calls.iter().take_while(|call| !call.has(MARKED)).count() as u64;
        assert!((1..=MOST_WAITING / len + 1).contains(&free), "{free}");
    }

    #[test]
    fn a_thread_that_blocks_the_mark_is_told() {
        let calls = observed(|| {
            let all = u64::MAX;
            for (nr, set) in [(libc::SYS_rt_sigprocmask, &raw const all as u64), (libc::SYS_uname, 0)] {
                // SAFETY: the set is a live local; the other call gets no memory.
                unsafe { libc::syscall(nr, libc::SIG_BLOCK as u64 & (set != 0) as u64, set, 0, 8) };
            }
            // SAFETY: no memory.
            unsafe { libc::syscall(libc::SYS_rt_sigaction, 0, 0, 0, 8) };
        });
        let last = calls.last().expect("three calls");
        assert_eq!(last.flags, UNFINISHED | UNSTOPPABLE);
        assert_eq!(last.blocked | 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1), u64::MAX);
    }

    /// More than a piece may have.
    const LARGE: usize = 40 << 10;
}
