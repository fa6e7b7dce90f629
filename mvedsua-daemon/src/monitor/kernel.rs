//! The loaded eBPF programs and their maps: the one gate between the monitor and the kernel.
//!
//! Loading, attaching and all access to maps go through [`Kernel`]. Dropping it detaches and unloads everything.

use std::os::fd::{AsFd, AsRawFd};

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues, Queue, RingBuf};
use aya::programs::tp_btf::BtfTracePointLink;
use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf, EbpfLoader, Pod};
use mvedsua_common::monitor::{
    Cell, Control, Entered, Followed, Lost, MAX_CELLS, MAX_PROCESSES, Process, Slow, first_place, second_place,
};

use super::MonitorError;
use super::btf::{GroupDead, KernelFacts, kernel_facts};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/monitor.bpf.o"));

const SCHED: [&str; 3] = ["sched_process_fork", "sched_process_exec", "sched_process_exit"];

/// Memory for histograms, all CPUs together, that is not exceeded even on machines with many CPUs, except that there
/// are always [`MIN_CELLS`].
const CELLS_BUDGET: usize = 64 << 20;
const MIN_CELLS: u32 = 256;

/// Makes a type of the common crate one that aya reads and writes.
macro_rules! pod {
    ($($name:ident($inner:ty)),+ $(,)?) => {$(
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        struct $name($inner);
        // SAFETY: the inner type is `repr(C)`, consists of integers only and has no padding (the common crate's tests).
        unsafe impl Pod for $name {}
    )+};
}
pod!(
    PodCell(Cell),
    PodControl(Control),
    PodEntered(Entered),
    PodFollowed(Followed),
    PodLost(Lost),
    PodProcess(Process)
);

/// The programs, loaded, and their maps.
pub(super) struct Kernel {
    facts: KernelFacts,
    ebpf: Ebpf,
    /// Attached while calls are observed.
    enter: Option<BtfTracePointLink>,
    exit: Option<BtfTracePointLink>,
    control: Array<MapData, PodControl>,
    followed: Array<MapData, PodFollowed>,
    processes: Array<MapData, PodProcess>,
    entered: Array<MapData, PodEntered>,
    cells: PerCpuArray<MapData, PodCell>,
    claims: HashMap<MapData, u32, u32>,
    free_cells: Queue<MapData, u32>,
    free_processes: Queue<MapData, u32>,
    slow: RingBuf<MapData>,
    lost: PerCpuArray<MapData, PodLost>,
    window: u32,
}

impl Kernel {
    /// Loads everything and attaches the hooks that follow processes; those for calls come with [`Self::open`].
    pub(super) fn load() -> Result<Self, MonitorError> {
        let facts = kernel_facts()?;
        let cells = cell_count();
        let group_dead = u32::from(facts.group_dead == GroupDead::Told);
        let mut ebpf = EbpfLoader::new()
            .override_global("PID_OFFSET", &facts.pid_offset, true)
            .override_global("TGID_OFFSET", &facts.tgid_offset, true)
            .override_global("EXIT_SIGNAL_OFFSET", &facts.exit_signal_offset, true)
            .override_global("HAS_GROUP_DEAD", &group_dead, true)
            .map_max_entries("CELLS", cells)
            .load(OBJECT)
            .map_err(|source| MonitorError::Load { source: Box::new(source) })?;
        let btf = Btf::from_sys_fs()
            .map_err(|error| MonitorError::NoTypeInformation { source: std::io::Error::other(error) })?;
        for hook in ["sys_enter", "sys_exit"] {
            call_hook(&mut ebpf, hook)?.load(hook, &btf).map_err(in_program(hook))?;
        }
        let mut kernel = Kernel {
            facts,
            enter: None,
            exit: None,
            control: map(&mut ebpf, "CONTROL")?,
            followed: map(&mut ebpf, "FOLLOWED")?,
            processes: map(&mut ebpf, "PROCESSES")?,
            entered: map(&mut ebpf, "ENTERED")?,
            cells: map(&mut ebpf, "CELLS")?,
            claims: map(&mut ebpf, "CLAIMS")?,
            free_cells: map(&mut ebpf, "FREE_CELLS")?,
            free_processes: map(&mut ebpf, "FREE_PROCESSES")?,
            slow: map(&mut ebpf, "SLOW")?,
            lost: map(&mut ebpf, "LOST")?,
            window: 0,
            ebpf,
        };
        for index in 0..cells {
            kernel.free_cells.push(index, 0).map_err(in_map("FREE_CELLS"))?;
        }
        for index in 0..MAX_PROCESSES {
            kernel.free_processes.push(index, 0).map_err(in_map("FREE_PROCESSES"))?;
        }
        for name in SCHED {
            let program: &mut RawTracePoint = kernel
                .ebpf
                .program_mut(name)
                .ok_or(MonitorError::BadObject { what: name })?
                .try_into()
                .map_err(in_program(name))?;
            program.load().and_then(|()| program.attach(name)).map_err(in_program(name))?;
        }
        Ok(kernel)
    }

    /// Says whether the programs mark processes as ended; otherwise the daemon has to look.
    pub(super) fn group_dead(&self) -> GroupDead {
        self.facts.group_dead
    }

    /// Attaches the hooks for calls and begins a window; calls that were entered before are not of it.
    pub(super) fn open(&mut self) -> Result<(), MonitorError> {
        // The new number comes before the hooks, so that the end of a call of an earlier window is not taken for one of
        // this.
        self.window = self.window.wrapping_add(1);
        self.set_control(0)?;
        if self.exit.is_none() {
            self.exit = Some(attach(&mut self.ebpf, "sys_exit")?);
        }
        if self.enter.is_none() {
            self.enter = Some(attach(&mut self.ebpf, "sys_enter")?);
        }
        self.set_control(1)
    }

    /// Ends the window: no entry is taken any more, exits still are.
    pub(super) fn close(&mut self) -> Result<(), MonitorError> {
        self.set_control(0)?;
        self.enter = None;
        Ok(())
    }

    /// Detaches the hook for exits too.
    pub(super) fn rest(&mut self) {
        self.enter = None;
        self.exit = None;
    }

    fn set_control(&mut self, open: u32) -> Result<(), MonitorError> {
        let control = Control { open, window: self.window };
        self.control.set(0, PodControl(control), 0).map_err(in_map("CONTROL"))
    }

    /// Returns a thread's call that was entered in the present window and has not ended.
    pub(super) fn under_way(&self, tid: u32) -> Result<Option<Entered>, MonitorError> {
        for place in [first_place(tid), second_place(tid)] {
            let PodEntered(entered) = self.entered.get(&place, 0).map_err(in_map("ENTERED"))?;
            if entered.tid == tid {
                let current = entered.at_ns != 0 && entered.window == self.window as u16;
                return Ok(current.then_some(entered));
            }
        }
        Ok(None)
    }

    /// Says whether a process is followed.
    pub(super) fn follows(&self, tgid: u32) -> Result<bool, MonitorError> {
        for place in [first_place(tgid), second_place(tgid)] {
            if self.followed_at(place)?.tgid == tgid {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the programs follow a process that is settled already, or follow it in another way.
    pub(super) fn follow(&mut self, process: Followed) -> Result<(), MonitorError> {
        let places = [first_place(process.tgid), second_place(process.tgid)];
        for wanted in [process.tgid, 0] {
            for place in places {
                if self.followed_at(place)?.tgid == wanted {
                    return self.followed.set(place, PodFollowed(process), 0).map_err(in_map("FOLLOWED"));
                }
            }
        }
        Err(MonitorError::PlaceTaken { pid: process.tgid.cast_signed() })
    }

    fn followed_at(&self, place: u32) -> Result<Followed, MonitorError> {
        self.followed.get(&place, 0).map(|PodFollowed(entry)| entry).map_err(in_map("FOLLOWED"))
    }

    /// Makes the programs follow a process no more.
    pub(super) fn forget(&mut self, tgid: u32) -> Result<(), MonitorError> {
        for place in [first_place(tgid), second_place(tgid)] {
            if self.followed_at(place)?.tgid == tgid {
                let free = PodFollowed(Followed::default());
                self.followed.set(place, free, 0).map_err(in_map("FOLLOWED"))?;
            }
        }
        Ok(())
    }

    pub(super) fn process(&self, index: u32) -> Result<Process, MonitorError> {
        self.processes.get(&index, 0).map(|PodProcess(p)| p).map_err(in_map("PROCESSES"))
    }

    /// Writes a process as a whole; only for one that no running task belongs to.
    pub(super) fn set_process(&mut self, index: u32, process: Process) -> Result<(), MonitorError> {
        self.processes.set(index, PodProcess(process), 0).map_err(in_map("PROCESSES"))
    }

    /// Takes a free place for a process, `None` when all are taken.
    pub(super) fn take_process(&mut self) -> Result<Option<u32>, MonitorError> {
        match self.free_processes.pop(0) {
            Ok(index) => Ok(Some(index)),
            Err(MapError::ElementNotFound) => Ok(None),
            Err(source) => Err(MonitorError::Map { map: "FREE_PROCESSES", source }),
        }
    }

    /// Gives the place of a process back, emptied.
    pub(super) fn free_process(&mut self, index: u32) -> Result<(), MonitorError> {
        self.set_process(index, Process::FREE)?;
        self.free_processes.push(index, 0).map_err(in_map("FREE_PROCESSES"))
    }

    /// Returns the cell as each CPU has it.
    pub(super) fn cell(&self, index: u32) -> Result<impl Iterator<Item = Cell>, MonitorError> {
        let values = self.cells.get(&index, 0).map_err(in_map("CELLS"))?;
        Ok(values.iter().map(|PodCell(cell)| *cell).collect::<Vec<_>>().into_iter())
    }

    /// Gives the cell of a call back, emptied.
    pub(super) fn free_cell(&mut self, claim: u32, index: u32) -> Result<(), MonitorError> {
        match self.claims.remove(&claim) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(source) => return Err(MonitorError::Map { map: "CLAIMS", source }),
        }
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| in_map("CELLS")(MapError::IoError(error)))?;
        let empty = PerCpuValues::try_from(vec![PodCell(Cell::EMPTY); cpus])
            .map_err(|error| in_map("CELLS")(MapError::IoError(error)))?;
        self.cells.set(index, empty, 0).map_err(in_map("CELLS"))?;
        self.free_cells.push(index, 0).map_err(in_map("FREE_CELLS"))
    }

    /// Returns what did not fit, all CPUs together.
    pub(super) fn lost(&self) -> Result<Lost, MonitorError> {
        let values = self.lost.get(&0, 0).map_err(in_map("LOST"))?;
        Ok(values.iter().fold(Lost::default(), |sum, PodLost(one)| Lost {
            calls: sum.calls + one.calls,
            processes: sum.processes + one.processes,
            unfollowed: sum.unfollowed + one.unfollowed,
            entries: sum.entries + one.entries,
            slow: sum.slow + one.slow,
        }))
    }

    /// Returns how often the kernel skipped one of the hooks for calls, see `recursion_misses` in `bpf_prog_show_fdinfo`.
    pub(super) fn skipped(&self) -> u64 {
        ["sys_enter", "sys_exit"]
            .into_iter()
            .filter_map(|hook| {
                let fd = self.ebpf.program(hook)?.fd().ok()?.as_fd().as_raw_fd();
                let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
                info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse::<u64>().ok()
            })
            .sum()
    }

    /// Takes the next slow call out of the ring buffer.
    pub(super) fn next_slow(&mut self) -> Option<Slow> {
        self.slow.next().and_then(|item| parse_slow(&item))
    }
}

/// How many histograms there are, by the number of CPUs.
fn cell_count() -> u32 {
    let cpus = aya::util::nr_cpus().unwrap_or(1).max(1);
    let fits = CELLS_BUDGET / (cpus * size_of::<Cell>());
    u32::try_from(fits).unwrap_or(MAX_CELLS).clamp(MIN_CELLS, MAX_CELLS)
}

fn call_hook<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut BtfTracePoint, MonitorError> {
    let program = ebpf.program_mut(name).ok_or(MonitorError::BadObject { what: name })?;
    program.try_into().map_err(in_program(name))
}

fn attach(ebpf: &mut Ebpf, name: &'static str) -> Result<BtfTracePointLink, MonitorError> {
    let program = call_hook(ebpf, name)?;
    program.attach().and_then(|id| program.take_link(id)).map_err(in_program(name))
}

fn map<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, MonitorError>
where
    T: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(MonitorError::BadObject { what: name })?;
    T::try_from(map).map_err(in_map(name))
}

fn in_map(map: &'static str) -> impl Fn(MapError) -> MonitorError {
    move |source| MonitorError::Map { map, source }
}

fn in_program(program: &'static str) -> impl Fn(ProgramError) -> MonitorError {
    move |source| MonitorError::Program { program, source: Box::new(source) }
}

/// Reads a record of the ring buffer, laid out as [`Slow`].
fn parse_slow(bytes: &[u8]) -> Option<Slow> {
    let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let mut args = [0; 6];
    for (i, arg) in args.iter_mut().enumerate() {
        *arg = u64_at(40 + 8 * i)?;
    }
    Some(Slow {
        tgid: u32_at(0)?,
        tid: u32_at(4)?,
        nr: u32_at(8)?,
        padding: 0,
        ret: u64_at(16)?.cast_signed(),
        started_ns: u64_at(24)?,
        duration_ns: u64_at(32)?,
        args,
        comm: bytes.get(88..104)?.try_into().ok()?,
    })
}
