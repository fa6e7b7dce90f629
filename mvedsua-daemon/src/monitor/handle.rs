//! The handle through which the daemon speaks to the monitor's thread.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded, unbounded};

use super::MonitorError;
use super::totals::Totals;
use super::types::{AttachOptions, Mode, StatsSnapshot, TargetInfo};
use super::worker::{Reply, Request, Worker};

/// Observes processes; the handle of the daemon's one monitor.
///
/// Clones speak to the same monitor. All methods block until the monitor's thread has answered: a few milliseconds, 30
/// at most while a window of the sampled mode is open, and about 200 for the first attach, which loads the eBPF
/// programs. Async code calls them from a blocking task.
///
/// Nothing is loaded until the first attach, and nothing is left behind when the last target is detached or the last
/// handle is dropped. A target that ends stays known with its statistics until it is detached.
#[derive(Clone)]
pub struct Monitor {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` only while the handle is dropped.
    requests: Option<Sender<Request>>,
    /// Joined when the last handle goes, so that everything is unloaded by then.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.requests.take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the monitor's thread has panicked");
        }
    }
}

impl Monitor {
    /// Starts the monitor's thread.
    pub fn start() -> Result<Monitor, MonitorError> {
        let (requests, inbox) = unbounded();
        let thread = std::thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || Worker::new(inbox).run())
            .map_err(|source| MonitorError::Thread { source })?;
        Ok(Monitor { inner: Arc::new(Inner { requests: Some(requests), thread: Mutex::new(Some(thread)) }) })
    }

    /// Observes a process, its threads, and its children present and future.
    pub fn attach(&self, pid: i32, options: AttachOptions) -> Result<TargetInfo, MonitorError> {
        self.ask(|reply| Request::Attach { pid, options, reply })
    }

    /// Ends the observation of a target and forgets its statistics.
    pub fn detach(&self, pid: i32) -> Result<(), MonitorError> {
        self.ask(|reply| Request::Detach { pid, reply })
    }

    /// Changes how a target is observed. Its statistics begin anew when the mode changes.
    pub fn configure(&self, pid: i32, options: AttachOptions) -> Result<TargetInfo, MonitorError> {
        self.ask(|reply| Request::Configure { pid, options, reply })
    }

    /// Changes a target's mode and nothing else.
    pub fn set_mode(&self, pid: i32, mode: Mode) -> Result<TargetInfo, MonitorError> {
        let targets = self.targets()?;
        let target = targets.iter().find(|t| t.pid == pid).ok_or(MonitorError::NotAttached { pid })?;
        self.configure(pid, AttachOptions { mode, ..target.options })
    }

    /// Returns the targets by process id.
    pub fn targets(&self) -> Result<Vec<TargetInfo>, MonitorError> {
        self.ask(|reply| Request::Targets { reply })
    }

    /// Returns everything that is known of a target now.
    pub fn snapshot(&self, pid: i32) -> Result<StatsSnapshot, MonitorError> {
        self.ask(|reply| Request::Snapshot { pid, reply })
    }

    /// Returns a target's latencies as a standard HdrHistogram interval log (nanoseconds, V2, deflated): one line for
    /// each interval, process and call, with the tag `name-pid.call`. What sampled mode says in it is what was seen.
    pub fn interval_log(&self, pid: i32) -> Result<String, MonitorError> {
        self.ask(|reply| Request::IntervalLog { pid, reply })
    }

    /// Returns everything that was counted of a target since its statistics began.
    pub fn totals(&self, pid: i32) -> Result<Totals, MonitorError> {
        self.ask(|reply| Request::Totals { pid, reply })
    }

    fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, MonitorError> {
        let (reply, answer) = bounded(1);
        let requests = self.inner.requests.as_ref().ok_or(MonitorError::Gone)?;
        requests.send(request(reply)).map_err(|_| MonitorError::Gone)?;
        answer.recv().map_err(|_| MonitorError::Gone)?
    }
}
