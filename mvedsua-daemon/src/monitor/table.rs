//! Targets and processes: who is followed, born, read and buried.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mvedsua_common::histogram::bucket;
use mvedsua_common::monitor::{
    Followed, MAX_PROCESSES, Process, SLOW_ALL, SLOW_WORKING, STATE_DEAD, STATE_FREE, STATE_LIVE, Slow, claim_key,
};

use super::batch::CallKey;
use super::btf::GroupDead;
use super::kernel::Kernel;
use super::tally::{Reading, Tally};
use super::target::{Call, OLDER, Observed, Target};
use super::types::{AttachOptions, ProcessState, SlowCall, SlowScope};
use super::{MonitorError, call_name, clock, proc};

/// How often the search for children is repeated while children are found.
const SEARCHES: u32 = 16;

/// After this long no hook still works with what it looked up before.
const HOOKS_ARE_DONE: Duration = Duration::from_millis(5);

/// All targets and their processes.
pub(super) struct Table {
    targets: BTreeMap<i32, Target>,
    /// By the place that the kernel has for them.
    processes: BTreeMap<u32, Observed>,
    /// The free places in the order in which the kernel takes them.
    free: VecDeque<u32>,
    /// Places of processes whose target is gone, to be given back at the next look.
    orphans: Vec<u32>,
    next_key: u64,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            targets: BTreeMap::new(),
            processes: BTreeMap::new(),
            free: (0..MAX_PROCESSES).collect(),
            orphans: Vec::new(),
            next_key: OLDER + 1,
        }
    }
}

impl Table {
    pub(super) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.values()
    }

    pub(super) fn target(&self, pid: i32) -> Result<&Target, MonitorError> {
        self.targets.get(&pid).ok_or(MonitorError::NotAttached { pid })
    }

    /// Returns a target's running processes.
    pub(super) fn processes_of(&self, pid: i32) -> impl Iterator<Item = &Observed> {
        self.processes.values().filter(move |process| process.target == pid)
    }

    /// Says whether a process can become a target.
    pub(super) fn check_attach(&self, pid: i32) -> Result<(), MonitorError> {
        if let Some(known) = self.processes.values().find(|process| process.pid == pid) {
            return Err(MonitorError::AlreadyAttached { pid, target: known.target });
        }
        if self.targets.contains_key(&pid) {
            return Err(MonitorError::AlreadyAttached { pid, target: pid });
        }
        proc::require_process(pid).map(|_| ())
    }

    /// Follows a process and those of its children that run already; later ones are followed by the kernel side.
    pub(super) fn attach(&mut self, kernel: &mut Kernel, pid: i32, options: AttachOptions) -> Result<(), MonitorError> {
        let name = proc::require_process(pid)?;
        let mut target = Target::new(pid, name, options);
        target.begin_batch();
        self.targets.insert(pid, target);
        let followed = self.follow_family(kernel, pid, options);
        if followed.is_err() {
            self.detach(kernel, pid)?;
        }
        followed
    }

    fn follow_family(&mut self, kernel: &mut Kernel, pid: i32, options: AttachOptions) -> Result<(), MonitorError> {
        self.follow(kernel, pid, None, pid, options)?;
        for _ in 0..SEARCHES {
            let mut found = false;
            for (child, parent) in proc::descendants(pid) {
                if !kernel.follows(child.unsigned_abs())? {
                    found = true;
                    self.follow(kernel, child, Some(parent), pid, options)?;
                }
            }
            if !found {
                break;
            }
        }
        Ok(())
    }

    fn follow(
        &mut self,
        kernel: &mut Kernel,
        pid: i32,
        parent: Option<i32>,
        target: i32,
        options: AttachOptions,
    ) -> Result<(), MonitorError> {
        let Some(name) = proc::name(pid) else {
            // A child may end while it is looked for; the target itself may not.
            return if parent.is_some() { Ok(()) } else { Err(MonitorError::NoSuchProcess { pid }) };
        };
        let index = kernel.take_process()?.ok_or(MonitorError::TooManyProcesses { max: MAX_PROCESSES })?;
        self.free.retain(|&free| free != index);
        let tgid = pid.unsigned_abs();
        let comm = comm_bytes(&name);
        let state = STATE_LIVE;
        kernel.set_process(
            index,
            Process { tgid, parent: parent.map_or(0, i32::unsigned_abs), state, comm, ..Process::FREE },
        )?;
        self.settle(index, pid, parent, target, name);
        kernel.follow(followed(index, tgid, options))
    }

    fn settle(&mut self, index: u32, pid: i32, parent: Option<i32>, target: i32, name: String) {
        let key = self.next_key;
        self.next_key += 1;
        self.processes.insert(index, Observed { key, pid, parent, name, target, calls: BTreeMap::new() });
    }

    /// Follows a target's processes no more and forgets it.
    pub(super) fn detach(&mut self, kernel: &mut Kernel, pid: i32) -> Result<(), MonitorError> {
        self.targets.remove(&pid).ok_or(MonitorError::NotAttached { pid })?;
        let gone: Vec<u32> = self.processes.iter().filter(|(_, p)| p.target == pid).map(|(index, _)| *index).collect();
        for index in gone {
            if let Some(process) = self.processes.remove(&index) {
                kernel.forget(process.pid.unsigned_abs())?;
                self.orphans.push(index);
            }
        }
        if !self.targets.is_empty() {
            self.look_after(kernel)?;
        }
        Ok(())
    }

    /// Changes how a target is observed; its statistics begin anew when the mode changes.
    pub(super) fn configure(
        &mut self,
        kernel: &mut Kernel,
        pid: i32,
        options: AttachOptions,
    ) -> Result<(), MonitorError> {
        let target = self.targets.get_mut(&pid).ok_or(MonitorError::NotAttached { pid })?;
        let restart = target.options.mode != options.mode;
        target.options = options;
        if restart {
            target.restart();
            target.begin_batch();
        }
        for (index, process) in self.processes.iter_mut().filter(|(_, p)| p.target == pid) {
            // An ended process that is not buried yet must not be followed again.
            if kernel.follows(process.pid.unsigned_abs())? {
                kernel.follow(followed(*index, process.pid.unsigned_abs(), options))?;
            }
            if restart {
                process.calls.values_mut().for_each(|call| call.tally = Tally::new());
            }
        }
        Ok(())
    }

    /// Follows births and ends and fetches slow calls.
    pub(super) fn look_after(&mut self, kernel: &mut Kernel) -> Result<(), MonitorError> {
        self.adopt(kernel)?;
        while let Some(slow) = kernel.next_slow() {
            self.keep_slow(&slow);
        }
        self.bury(kernel)?;
        if !self.orphans.is_empty() {
            std::thread::sleep(HOOKS_ARE_DONE);
            for index in std::mem::take(&mut self.orphans) {
                self.give_back(kernel, index)?;
            }
        }
        Ok(())
    }

    /// Takes in the processes that were born since the last look.
    fn adopt(&mut self, kernel: &mut Kernel) -> Result<(), MonitorError> {
        while let Some(&index) = self.free.front() {
            let process = kernel.process(index)?;
            if process.state == STATE_FREE {
                // Nobody took it, or its child is being born at this instant.
                break;
            }
            self.free.pop_front();
            let (pid, parent) = (process.tgid.cast_signed(), process.parent.cast_signed());
            match self.target_of(parent) {
                Some(target) => self.settle(index, pid, Some(parent), target, comm_text(&process.comm)),
                None => {
                    kernel.forget(process.tgid)?;
                    self.orphans.push(index);
                }
            }
        }
        Ok(())
    }

    /// Returns the target that a process belongs or belonged to.
    fn target_of(&self, pid: i32) -> Option<i32> {
        let running = self.processes.values().filter(|p| p.pid == pid).max_by_key(|p| p.key).map(|p| p.target);
        running.or_else(|| {
            self.targets.values().find(|t| t.ended.iter().any(|ended| ended.pid == pid)).map(|target| target.pid)
        })
    }

    fn keep_slow(&mut self, slow: &Slow) {
        let Some(target) = self.target_of(slow.tgid.cast_signed()) else { return };
        if let Some(target) = self.targets.get_mut(&target) {
            target.keep_slow(SlowCall {
                pid: slow.tgid.cast_signed(),
                tid: slow.tid.cast_signed(),
                thread: comm_text(&slow.comm),
                nr: slow.nr,
                name: call_name(slow.nr),
                args: slow.args,
                ret: slow.ret,
                started_ns: slow.started_ns,
                duration_ns: slow.duration_ns,
            });
        }
    }

    /// Reads ended processes for the last time and gives their places back.
    fn bury(&mut self, kernel: &mut Kernel) -> Result<(), MonitorError> {
        let mut ended = Vec::new();
        for (&index, process) in &mut self.processes {
            let seen = kernel.process(index)?;
            let gone = match kernel.group_dead() {
                GroupDead::Told => seen.state == STATE_DEAD,
                GroupDead::NotTold => !proc::runs(process.pid),
            };
            process.name = match proc::name(process.pid) {
                Some(name) if !gone => name,
                _ => comm_text(&seen.comm),
            };
            if gone && let Some(target) = self.targets.get_mut(&process.target) {
                if process.pid == target.pid {
                    target.state = ProcessState::Exited;
                }
                // Where a child without a place of its own is counted too, the place is kept.
                if seen.shared == 0 {
                    ended.push(index);
                }
            } else if process.pid == process.target
                && let Some(target) = self.targets.get_mut(&process.target)
            {
                target.name.clone_from(&process.name);
            }
        }
        for index in ended {
            self.read(kernel, index)?;
            if let Some(process) = self.processes.remove(&index) {
                kernel.forget(process.pid.unsigned_abs())?;
                if let Some(target) = self.targets.get_mut(&process.target) {
                    target.bury(process);
                }
                self.give_back(kernel, index)?;
            }
        }
        Ok(())
    }

    fn give_back(&mut self, kernel: &mut Kernel, index: u32) -> Result<(), MonitorError> {
        let process = kernel.process(index)?;
        for (nr, &cell) in (0..).zip(&process.cells) {
            if cell != 0 {
                kernel.free_cell(claim_key(index, nr), cell - 1)?;
            }
        }
        kernel.free_process(index)?;
        self.free.push_back(index);
        Ok(())
    }

    /// Reads all counters.
    pub(super) fn read_all(&mut self, kernel: &Kernel) -> Result<(), MonitorError> {
        let all: Vec<u32> = self.processes.keys().copied().collect();
        all.into_iter().try_for_each(|index| self.read(kernel, index))
    }

    fn read(&mut self, kernel: &Kernel, index: u32) -> Result<(), MonitorError> {
        let Some(process) = self.processes.get_mut(&index) else { return Ok(()) };
        let Some(target) = self.targets.get_mut(&process.target) else { return Ok(()) };
        for (nr, &cell) in (0..).zip(&kernel.process(index)?.cells) {
            if cell == 0 {
                continue;
            }
            let call = process.calls.entry(nr).or_insert_with(Call::new);
            let reading = Reading::of(kernel.cell(cell - 1)?);
            let growth = reading.since(&call.reading);
            if !growth.is_empty() {
                call.tally.grow(&growth);
                target.current.count(CallKey { process: process.key, nr }, &growth);
                call.reading = reading;
            }
        }
        Ok(())
    }

    /// Counts the calls that were entered in the window that has just closed and have not ended.
    pub(super) fn count_unfinished(&mut self, kernel: &Kernel) -> Result<(), MonitorError> {
        let now = clock::monotonic_ns();
        for process in self.processes.values_mut() {
            let Some(target) = self.targets.get_mut(&process.target) else { continue };
            for tid in proc::threads(process.pid) {
                if let Some(entered) = kernel.under_way(tid)? {
                    let nr = u32::from(entered.nr);
                    let call = process.calls.entry(nr).or_insert_with(Call::new);
                    call.tally.unfinished[bucket(now.saturating_sub(entered.at_ns))] += 1;
                    target.current.count_unfinished(CallKey { process: process.key, nr });
                }
            }
        }
        Ok(())
    }

    pub(super) fn begin_batches(&mut self) {
        self.targets.values_mut().for_each(Target::begin_batch);
    }

    pub(super) fn end_batches(&mut self) {
        self.targets.values_mut().for_each(Target::end_batch);
    }

    /// Notes that all targets were observed for a time that ends now.
    pub(super) fn observed(&mut self, observed_ns: u64) {
        for target in self.targets.values_mut() {
            target.current.observed_ns += observed_ns;
            target.current.elapsed_ns += observed_ns;
        }
    }

    /// Ends the batches that are at least this long, and begins new ones.
    pub(super) fn cut_batches(&mut self, length_ns: u64) {
        for target in self.targets.values_mut().filter(|target| target.current.observed_ns >= length_ns) {
            target.end_batch();
            target.begin_batch();
        }
    }
}

impl Call {
    fn new() -> Self {
        Call { reading: Reading::zero(), tally: Tally::new() }
    }
}

fn followed(index: u32, tgid: u32, options: AttachOptions) -> Followed {
    Followed {
        tgid,
        process: index as u16,
        slow_scope: match options.slow_scope {
            SlowScope::Working => SLOW_WORKING,
            SlowScope::All => SLOW_ALL,
        },
        slow_ns: u64::try_from(options.slow_threshold.as_nanos()).unwrap_or(u64::MAX),
    }
}

fn comm_text(comm: &[u8; 16]) -> String {
    let end = comm.iter().position(|&b| b == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end]).into_owned()
}

fn comm_bytes(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    comm
}
