//! The engine and the monitor that the daemon really uses.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::control::journal::JournalEntry;
use crate::control::process::{self, ProcessId};
use crate::control::protocol::Problem;
use crate::control::status::RunsAs;
use crate::control::{Ability, Code, Engine, Observer, SessionHandle};
use crate::lifecycle::{Recovery, Stage};
use crate::monitor::{AttachOptions, Mode, Monitor, MonitorError, StatsSnapshot, TargetInfo, Totals};
use crate::package::BuildId;
use crate::ptrace::Pid;
use crate::update::{self, FailureKind, Options, Recovered, Session, Which};

/// How long putting one process back may take.
const RECOVER_WITHIN: Duration = Duration::from_secs(5);

/// The engine that forks, records and replays under ptrace.
#[derive(Debug)]
pub(super) struct ForkEngine;

impl Engine for ForkEngine {
    fn start(&self, pid: i32, options: Options) -> Result<SessionHandle, FailureKind> {
        let session = Session::start(Pid(pid), options).map_err(|e| FailureKind::Engine(e.to_string()))?;
        let (commands, events) = (session.commands(), session.events().clone());
        Ok(SessionHandle { commands, events, keep: Box::new(session) })
    }

    fn abilities(&self) -> &'static [Ability] {
        &[Ability::InPlace, Ability::Binary, Ability::Rules]
    }

    fn check_in_place(&self, pid: i32) -> Result<(), String> {
        update::check_cooperation(pid)
    }

    fn recover(&self, entry: &JournalEntry) -> Recovery {
        let gone = || Recovery::Gone { status: "it ended while no daemon ran".to_owned() };
        let pid = entry.leader.pid;
        if !entry.leader.is_alive() {
            return gone();
        }
        // The kernel ends the follower together with its tracer, which takes a moment.
        if let Some(follower) = entry.follower
            && let Err(what) = await_end(follower)
        {
            return Recovery::Unsure { what };
        }
        match update::recover(Pid(pid), RECOVER_WITHIN) {
            Ok(recovered) => {
                tracing::info!(pid, ?recovered, "put back");
                let version = match recovered {
                    Recovered::Cleaned { version } => version,
                    // It was clean before the daemon died, which had said so.
                    Recovered::Nothing if entry.stage == Stage::UpdatedLeader => Which::New,
                    // The journal's last word may be older than that: a disk that hung did not take it. The process tells.
                    Recovered::Nothing if runs_new(entry) => Which::New,
                    Recovered::Nothing => Which::Old,
                };
                Recovery::Serving { leader: pid, version }
            }
            Err(e) if e.is_gone() => gone(),
            Err(e) => Recovery::Unsure { what: format!("process {pid} cannot be put back: {e}") },
        }
    }
}

/// Says whether the process that serves runs the version that the update was to bring, where that is another one.
fn runs_new(entry: &JournalEntry) -> bool {
    let pid = entry.leader.pid;
    let package = entry.package.as_ref();
    let Some(new) = package.and_then(|package| package.to.clone()).or_else(|| BuildId::of_file(Path::new(&entry.to)))
    else {
        return false;
    };
    if package.is_some_and(|package| package.from.contains(&new)) {
        return false;
    }
    let loaded = RunsAs::of(pid).iter().any(|file| file.build_id == new.as_str());
    let mapped = process::mapped_code(pid).unwrap_or_default();
    loaded || mapped.iter().any(|code| code.build_id.as_deref() == Some(new.as_str()))
}

/// Waits until a follower has ended.
fn await_end(follower: ProcessId) -> Result<(), String> {
    const LOOK_AGAIN: Duration = Duration::from_millis(10);
    let deadline = Instant::now() + RECOVER_WITHIN;
    while follower.is_alive() {
        if Instant::now() >= deadline {
            return Err(format!("process {}, a follower, runs although its tracer is gone", follower.pid));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// The monitor in the kernel.
pub(super) struct BpfObserver {
    monitor: Monitor,
}

impl BpfObserver {
    /// Starts the monitor; nothing is loaded into the kernel before something is observed.
    pub(super) fn start() -> Result<Self, Problem> {
        let monitor = Monitor::start().map_err(|e| problem("starting the monitor", &e))?;
        Ok(BpfObserver { monitor })
    }
}

impl Observer for BpfObserver {
    fn attach(&self, pid: i32, options: AttachOptions) -> Result<TargetInfo, Problem> {
        self.monitor.attach(pid, options).map_err(|e| problem(&format!("observing process {pid}"), &e))
    }

    fn detach(&self, pid: i32) -> Result<(), Problem> {
        self.monitor.detach(pid).map_err(|e| problem(&format!("detaching from process {pid}"), &e))
    }

    fn set_mode(&self, pid: i32, mode: Mode) -> Result<(), Problem> {
        let changed = self.monitor.set_mode(pid, mode);
        changed.map(drop).map_err(|e| problem(&format!("observing process {pid} in mode {mode}"), &e))
    }

    fn stats(&self, pid: i32) -> Result<StatsSnapshot, Problem> {
        self.monitor.snapshot(pid).map_err(|e| problem(&format!("reading the statistics of process {pid}"), &e))
    }

    fn export(&self, pid: i32) -> Result<String, Problem> {
        self.monitor.interval_log(pid).map_err(|e| problem(&format!("exporting the statistics of process {pid}"), &e))
    }

    fn totals(&self, pid: i32) -> Result<Totals, Problem> {
        self.monitor.totals(pid).map_err(|e| problem(&format!("reading the counts of process {pid}"), &e))
    }

    fn targets(&self) -> Vec<TargetInfo> {
        self.monitor.targets().unwrap_or_else(|e| {
            tracing::error!(error = %e, "the monitor does not answer");
            vec![]
        })
    }
}

fn problem(tried: &str, error: &MonitorError) -> Problem {
    let (code, remedy) = match error {
        MonitorError::NoSuchProcess { .. } => {
            (Code::TargetGone, "check the pid; `--exe`, `--port` and `--unit` find it")
        }
        MonitorError::AlreadyAttached { .. } => {
            (Code::Refused, "`mvedsuad status` lists what is observed; `mode` changes how")
        }
        MonitorError::NotAttached { .. } => (Code::Usage, "`mvedsuad attach <pid>` begins to observe it"),
        MonitorError::TooManyProcesses { .. } | MonitorError::PlaceTaken { .. } => {
            (Code::Refused, "`mvedsuad detach <pid>` makes room")
        }
        MonitorError::NoTypeInformation { .. }
        | MonitorError::StrangeTypeInformation
        | MonitorError::Load { .. }
        | MonitorError::Program { .. }
        | MonitorError::Blind
        | MonitorError::Map { .. } => (Code::Kernel, "`mvedsuad doctor` says what this machine lacks"),
        MonitorError::BadObject { .. } => (Code::Kernel, "build the daemon anew with `cargo xtask build`"),
        MonitorError::Thread { .. } | MonitorError::Export { .. } | MonitorError::Gone => {
            (Code::Unreachable, "the daemon's log says more; restarting the daemon helps and touches no service")
        }
    };
    Problem::new(code, tried, error.to_string(), remedy)
}
