//! The daemon: what it holds, how it starts and how it ends.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::access::{Config, ConfigError};
use super::audit::{Audit, Line};
use super::dirs::Dirs;
use super::events::{Events, Subject, What};
use super::history::{History, Past};
use super::journal::{Journal, JournalEntry, Unreadable};
use super::lock::Lock;
use super::names::Names;
use super::observer::Observer;
use super::packages;
use super::process::{self, Program};
use super::protocol::Problem;
use super::status::{DaemonInfo, Role, RunsAs, Status, TargetStatus, VersionStatus};
use super::updates::{Asked, Driver, Handle, Shared};
use super::webhooks::Webhook;
use super::{Code, Engine, clock, panics};
use crate::lifecycle::{Cause, Event, Outcome, Recovery, Stage};
use crate::monitor::{ProcessState, TargetInfo};
use crate::update::{Counters, FailureKind, Which};

/// How many updates that are over stay in `status`.
const KEEP_SETTLED: usize = 32;
/// How long the daemon waits at its end for updates to be undone.
const UNDO_WITHIN: Duration = Duration::from_secs(20);
/// How long it waits at its end until its files are written.
const FILES_WITHIN: Duration = Duration::from_secs(2);

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("a daemon is running already: {0} is locked; stop it, or use another --runtime-dir")]
    Running(String),
    #[error("cannot {what}: {source}; run it as root, or choose --runtime-dir and --state-dir that may be written")]
    Files { what: String, source: io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Everything that requests act on.
pub struct Daemon {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Config,
    pub(crate) webhooks: Vec<Arc<Webhook>>,
    /// The number of the event that told of this daemon's start.
    pub(crate) first_event: u64,
    /// Asked to end.
    pub(crate) stop: Notify,
    handles: Mutex<Vec<Handle>>,
    /// Processes for which an update is about to begin: its journal is being written.
    beginning: Mutex<BTreeSet<i32>>,
    last_update: AtomicU64,
    started_ms: u64,
    /// What was wrong with the files that it read at its start.
    found: Vec<String>,
    /// The beginnings of the troubles that the events have told.
    told: Mutex<Vec<String>>,
    /// Held as long as the daemon lives, so that there is one for these directories only.
    _lock: Lock,
}

impl Daemon {
    /// Takes the directories, reads what an earlier daemon left and undoes it. That comes first, whatever else is wrong: no
    /// damaged file keeps a service as a daemon that died has left it.
    ///
    /// # Errors
    ///
    /// Where another daemon has the directories, they cannot be used, or the configuration is wrong.
    pub fn start(dirs: &Dirs, engine: Arc<dyn Engine>, observer: Arc<dyn Observer>) -> Result<Arc<Daemon>, StartError> {
        let files = |what: String| move |source| StartError::Files { what, source };
        dirs.create().map_err(files("prepare the directories".to_owned()))?;
        let path = dirs.lock().display().to_string();
        let lock = Lock::take(&dirs.lock()).map_err(files(format!("lock {path}")))?.ok_or(StartError::Running(path))?;
        let journal = Journal::new(dirs.journal());
        let history = History::open(dirs.history());
        let audit = Audit::new(dirs.audit());
        let events = Events::open(&dirs.events());
        let names = Names::default();
        let shared = Shared {
            engine,
            observer,
            journal,
            history,
            audit,
            events,
            names,
            gates: OnceLock::new(),
            dirs: dirs.clone(),
        };
        let started =
            What::DaemonStarted { version: env!("CARGO_PKG_VERSION").to_owned(), daemon_pid: std::process::id() };
        shared.events.publish(&Subject::default(), started);
        let first_event = *shared.events.newest().borrow();
        let cleaned = clean_up(&shared);
        let config = Config::load(&dirs.config)?;
        // What an earlier daemon left is undone before the configuration is read, and asks no gate.
        let _ = shared.gates.set(config.gates.clone());
        let open = |webhook| Webhook::open(webhook, &config.gates).map(Arc::new).map_err(ConfigError::Meaning);
        let webhooks = config.webhook.iter().map(open).collect::<Result<_, _>>()?;
        let last_update = shared.history.last_update().max(cleaned.last_update);
        let daemon = Daemon {
            shared: Arc::new(shared),
            config,
            webhooks,
            first_event,
            stop: Notify::new(),
            handles: Mutex::new(vec![]),
            beginning: Mutex::default(),
            last_update: AtomicU64::new(last_update),
            started_ms: clock::now_ms(),
            found: cleaned.troubles,
            told: Mutex::default(),
            _lock: lock,
        };
        packages::sweep(&dirs.packages());
        Ok(Arc::new(daemon))
    }

    fn handles(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the newest update that concerns a process; one that is under way comes first.
    pub(crate) fn handle(&self, pid: i32) -> Option<Handle> {
        let handles = self.handles();
        let mine = || handles.iter().rev().filter(|handle| handle.view.borrow().status.concerns(pid));
        mine().find(|handle| !handle.view.borrow().state.is_settled()).or_else(|| mine().next()).cloned()
    }

    /// Returns the status of every update that is known.
    pub(crate) fn updates(&self) -> Vec<TargetStatus> {
        self.handles().iter().map(|handle| handle.view.borrow().status.clone()).collect()
    }

    /// Returns the processes that were followers, or leaders, of updates of a process.
    pub(crate) fn followers_of(&self, pid: i32) -> BTreeSet<i32> {
        let updates = self.updates().into_iter().filter_map(|target| target.update);
        updates.filter(|update| update.asked_pid == pid).flat_map(|update| update.pids).collect()
    }

    /// Returns an update by its number.
    pub(crate) fn handle_of(&self, update: u64) -> Option<Handle> {
        self.handles().iter().find(|handle| handle.id == update).cloned()
    }

    pub(crate) fn next_update(&self) -> u64 {
        self.last_update.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Keeps a process for an update that is about to begin, unless somebody has it already.
    pub(crate) fn keep_for_update(&self, pid: i32) -> Option<Beginning<'_>> {
        let mut beginning = self.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        beginning.insert(pid).then(|| Beginning { of: &self.beginning, pid })
    }

    /// Starts an update and the task that drives it.
    pub(crate) async fn begin(&self, asked: Asked) -> io::Result<()> {
        let (mut driver, handle) = Driver::new(Arc::clone(&self.shared), asked);
        driver.begin().await?;
        let mut handles = self.handles();
        while handles.len() >= KEEP_SETTLED {
            let Some(at) = handles.iter().position(|handle| handle.view.borrow().state.is_settled()) else { break };
            handles.remove(at);
        }
        handles.push(handle);
        tokio::spawn(driver.run());
        Ok(())
    }

    /// Tells of what has gone wrong with what the daemon keeps since it was looked at last, and of what is well again.
    pub(crate) fn tell_troubles(&self) {
        // What follows says how many lines wait, and the like.
        let beginning = |trouble: &String| trouble.split(": ").next().unwrap_or_default().to_owned();
        let now = self.troubles();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = now.iter().filter(|trouble| !told.contains(&beginning(trouble)));
        let over = told.iter().filter(|known| !now.iter().any(|trouble| beginning(trouble) == **known));
        let begun = begun.map(|what| What::Trouble { what: what.clone() });
        let over = over.map(|what| What::TroubleOver { what: what.clone() });
        for what in begun.chain(over) {
            self.shared.events.publish(&Subject::default(), what);
        }
        *told = now.iter().map(beginning).collect();
    }

    /// Says what is wrong with what the daemon keeps.
    fn troubles(&self) -> Vec<String> {
        let shared = &self.shared;
        let files = shared.history.troubles().into_iter().chain(shared.audit.trouble()).chain(shared.journal.trouble());
        let files = files.chain(shared.events.troubles());
        self.found.iter().cloned().chain(files).collect()
    }

    /// Returns where everything stands, or one process, as far as `may_see` allows.
    pub(crate) fn status(&self, only: Option<i32>, may_see: impl Fn(i32) -> bool) -> Status {
        let mut targets: Vec<TargetStatus> = vec![];
        // The newest update of a process stands for it.
        for handle in self.handles().iter().rev() {
            let status = handle.view.borrow().status.clone();
            if !targets.iter().any(|known| known.concerns(status.pid) || status.concerns(known.pid)) {
                targets.push(status);
            }
        }
        for monitored in self.shared.observer.targets() {
            match targets.iter_mut().find(|target| target.concerns(monitored.pid)) {
                Some(target) => target.monitor = Some(monitored),
                None => targets.push(only_observed(monitored)),
            }
        }
        targets.retain(|target| only.is_none_or(|pid| target.concerns(pid)) && may_see(target.pid));
        targets.sort_by_key(|target| target.pid);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let (pid, started_ms, troubles) = (std::process::id(), self.started_ms, self.troubles());
        Status { daemon: DaemonInfo { pid, version, started_ms, troubles }, targets }
    }

    /// Returns the status of the process whose update is followed.
    pub(crate) fn followed(&self, pid: i32) -> Result<Status, Problem> {
        if self.handle(pid).is_none() {
            return Err(Problem::new(
                Code::Usage,
                format!("following the update of process {pid}"),
                "no update of it is known",
                format!("`mvedsuad update {pid} --to self` starts one"),
            ));
        }
        Ok(self.status(Some(pid), |_| true))
    }

    /// Ends the daemon in order: updates that are under way are undone.
    pub fn end(&self) {
        self.stop.notify_one();
    }

    /// Undoes the updates that are under way, before the daemon ends.
    pub async fn undo_all(&self) {
        self.shared.events.publish(&Subject::default(), What::DaemonEnds {});
        let open: Vec<Handle> =
            self.handles().iter().filter(|handle| !handle.view.borrow().state.is_settled()).cloned().collect();
        for mut handle in open {
            let reason = "the daemon ends".to_owned();
            // Where it cannot be undone any more it is about to end by itself.
            let _ = handle.ask(Event::Rollback { reason }).await;
            let settled = handle.view.wait_for(|view| view.state.is_settled());
            match tokio::time::timeout(UNDO_WITHIN, settled).await {
                Ok(_) => {}
                Err(_) => {
                    tracing::error!(update = handle.id, "the update is not undone; the next daemon will look at it")
                }
            }
        }
    }

    /// Brings what is to be kept onto the disk, before the daemon ends.
    pub fn keep_files(&self) {
        let deadline = Instant::now() + FILES_WITHIN;
        self.shared.history.flush(deadline);
        self.shared.audit.flush(deadline);
        self.shared.events.flush(deadline);
    }
}

/// A process for which an update is about to begin.
pub(crate) struct Beginning<'a> {
    of: &'a Mutex<BTreeSet<i32>>,
    pid: i32,
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        self.of.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid);
    }
}

/// What came of undoing what an earlier daemon left.
struct CleanedUp {
    /// The highest number of an update that the journal knows.
    last_update: u64,
    troubles: Vec<String>,
}

/// Undoes what a daemon that died left behind.
fn clean_up(shared: &Shared) -> CleanedUp {
    let (entries, unreadable) = match shared.journal.read() {
        Ok(read) => read,
        Err(e) => {
            let what = format!(
                "the journal in {} cannot be read: {e}; what an earlier daemon left is not undone",
                shared.dirs.journal().display()
            );
            tracing::error!("{what}");
            return CleanedUp { last_update: 0, troubles: vec![what] };
        }
    };
    let numbers = entries.iter().map(|entry| entry.update).chain(unreadable.iter().filter_map(Unreadable::update));
    let cleaned = CleanedUp {
        last_update: numbers.max().unwrap_or(0),
        troubles: unreadable.iter().map(Unreadable::trouble).collect(),
    };
    for trouble in &cleaned.troubles {
        tracing::error!("{trouble}");
    }
    for entry in entries {
        clean_up_entry(shared, &entry);
    }
    cleaned
}

fn clean_up_entry(shared: &Shared, entry: &JournalEntry) {
    let recovery = if entry.is_of_an_earlier_boot() {
        Recovery::Gone { status: "the machine was started anew".to_owned() }
    } else {
        let recovered = panics::catch(|| shared.engine.recover(entry));
        recovered.unwrap_or_else(|why| Recovery::Unsure {
            what: format!("putting process {} back failed: {why}", entry.leader.pid),
        })
    };
    tracing::warn!(update = entry.update, stage = %entry.stage, ?recovery, "an earlier daemon died in an update");
    let outcome = outcome_of(entry, recovery);
    let code = Code::of_outcome(&outcome);
    let _ = shared.audit.write(Line {
        at: String::new(),
        who: None,
        what: "cleaned up".to_owned(),
        pid: Some(entry.target.pid),
        update: Some(entry.update),
        to: Some(entry.to.clone()),
        package: entry.package.clone(),
        code,
        verdict: outcome.to_string(),
    });
    // Another process may have its number by now.
    let is_there = entry.target.is_alive() && !entry.is_of_an_earlier_boot();
    let target = is_there.then(|| shared.names.of(entry.target.pid));
    let (update, pid, owner) = (Some(entry.update), Some(entry.target.pid), Some(owner_of(entry)));
    let subject = Subject { update, pid, target: target.clone(), owner };
    shared.events.publish(&subject, What::of_outcome(&outcome));
    let unsure = matches!(outcome, Outcome::Unsure { .. });
    shared.history.add(past_of(entry, target, outcome, code));
    if !unsure {
        // The journal tells why it could not be removed; the next daemon then finds nothing to undo.
        let _ = shared.journal.remove(entry.update);
    }
}

/// Returns the status of a process that nobody has updated.
fn only_observed(monitored: TargetInfo) -> TargetStatus {
    let pid = monitored.pid;
    let (stage, versions, next) = match monitored.state {
        ProcessState::Running => {
            let program = process::program_of(pid);
            let version = VersionStatus { pid, role: Role::Leader, which: Which::Old, program, runs: RunsAs::of(pid) };
            (Stage::SingleLeader, vec![version], "nothing; no update is under way")
        }
        ProcessState::Exited => {
            (Stage::Ended, vec![], "nothing; the process has ended, its statistics stay until `detach`")
        }
    };
    TargetStatus { pid, stage, versions, monitor: Some(monitored), update: None, next: next.to_owned() }
}

fn outcome_of(entry: &JournalEntry, recovery: Recovery) -> Outcome {
    match recovery {
        Recovery::Serving { leader, version: Which::Old } => Outcome::RolledBack { leader, cause: Cause::EngineLost },
        Recovery::Serving { leader, version: Which::New } => Outcome::Confirmed { leader },
        Recovery::Gone { status } => Outcome::TargetEnded { status },
        Recovery::Unsure { what } => Outcome::Unsure { leader: entry.leader.pid, what },
    }
}

/// Returns whose process it is, or who asked where it is gone.
fn owner_of(entry: &JournalEntry) -> u32 {
    match process::uids_of(entry.leader.pid) {
        Ok([owner, ..]) if entry.leader.is_alive() && !entry.is_of_an_earlier_boot() => owner,
        Ok(_) | Err(_) => entry.uid,
    }
}

fn past_of(entry: &JournalEntry, target: Option<String>, outcome: Outcome, code: Code) -> Past {
    let program = match &outcome {
        Outcome::RolledBack { leader, .. } | Outcome::Confirmed { leader } => process::program_of(*leader),
        Outcome::TookOver { .. } | Outcome::Kept { .. } | Outcome::TargetEnded { .. } | Outcome::Unsure { .. } => {
            Program::default()
        }
    };
    Past {
        update: entry.update,
        pid: entry.target.pid,
        target,
        owner: owner_of(entry),
        program,
        to: entry.to.clone(),
        package: entry.package.clone(),
        asked_by: entry.uid,
        asked_ms: entry.asked_ms,
        ended_ms: clock::now_ms(),
        attempts: 1,
        fork_pause_us: None,
        promotion_pause_us: None,
        counters: Counters::default(),
        slowdown: None,
        rules: vec![],
        failures: vec![FailureKind::Engine(format!("the daemon died in stage {}", entry.stage))],
        stages: vec![],
        led: vec![],
        outcome,
        code,
    }
}
