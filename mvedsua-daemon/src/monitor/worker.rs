//! The monitor's thread: answers requests, follows processes, opens and closes windows.
//!
//! Attaching and detaching hooks takes about a millisecond each, so all of it happens here and not on the control
//! plane's threads. Between requests the thread sleeps until the next tick or window.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rand::Rng;

use super::kernel::Kernel;
use super::table::Table;
use super::totals::Totals;
use super::types::{AttachOptions, Mode, StatsSnapshot, TargetInfo};
use super::{MonitorError, clock, export, snapshot, totals};

/// In sampled mode there is one window in each period.
const PERIOD: Duration = Duration::from_millis(400);
const WINDOW: Duration = Duration::from_millis(20);

/// How long exits are still seen after a window has closed, so that most calls end within sight.
const GRACE: Duration = Duration::from_millis(2);

/// How often processes are looked after, slow calls fetched, and in exact mode counters read.
const TICK: Duration = Duration::from_millis(250);

/// How long a batch of the exact mode is.
const STEADY_BATCH_NS: u64 = 1_000_000_000;

pub(super) type Reply<T> = Sender<Result<T, MonitorError>>;

/// What the handle asks.
pub(super) enum Request {
    Attach { pid: i32, options: AttachOptions, reply: Reply<TargetInfo> },
    Detach { pid: i32, reply: Reply<()> },
    Configure { pid: i32, options: AttachOptions, reply: Reply<TargetInfo> },
    Targets { reply: Reply<Vec<TargetInfo>> },
    Snapshot { pid: i32, reply: Reply<StatsSnapshot> },
    IntervalLog { pid: i32, reply: Reply<String> },
    Totals { pid: i32, reply: Reply<Totals> },
}

/// Whether the hooks for calls stay attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// They are attached window by window, if there is a target at all.
    InWindows,
    /// They are attached since a target wants to be observed exactly. Everything up to `until_ns` has been read.
    Steadily { until_ns: u64 },
}

pub(super) struct Worker {
    inbox: Receiver<Request>,
    /// Loaded while there are targets.
    kernel: Option<Kernel>,
    table: Table,
    watch: Watch,
    next_tick: Instant,
    /// Beginning of the present period, and when its window opens (`None` when it has been).
    period: Instant,
    window_at: Option<Instant>,
}

impl Worker {
    pub(super) fn new(inbox: Receiver<Request>) -> Self {
        let now = Instant::now();
        Worker {
            inbox,
            kernel: None,
            table: Table::default(),
            watch: Watch::InWindows,
            next_tick: now,
            period: now,
            window_at: None,
        }
    }

    /// Runs until all handles are gone; the kernel side goes with it.
    pub(super) fn run(mut self) {
        loop {
            let request = match self.wake_at() {
                Some(at) => self.inbox.recv_deadline(at),
                None => self.inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match request {
                Ok(request) => self.answer(request),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.due() {
                        tracing::error!(%error, "observing failed; trying again");
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Says when something is to be done without being asked.
    fn wake_at(&self) -> Option<Instant> {
        self.kernel.as_ref()?;
        Some(match (self.watch, self.window_at) {
            (Watch::Steadily { .. }, _) => self.next_tick,
            (Watch::InWindows, Some(window)) => window.min(self.next_tick),
            (Watch::InWindows, None) => self.next_tick.min(self.period + PERIOD),
        })
    }

    fn due(&mut self) -> Result<(), MonitorError> {
        let now = Instant::now();
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.look_after()?;
        }
        if self.watch == Watch::InWindows {
            if now >= self.period + PERIOD {
                self.begin_period(now);
            }
            if self.window_at.is_some_and(|at| now >= at) {
                self.window_at = None;
                self.sample()?;
            }
        }
        Ok(())
    }

    fn begin_period(&mut self, now: Instant) {
        self.period = now;
        let spare = PERIOD - WINDOW - GRACE;
        self.window_at = Some(now + rand::rng().random_range(Duration::ZERO..spare));
    }

    /// Follows births and ends, fetches slow calls; in exact mode reads the counters too.
    fn look_after(&mut self) -> Result<(), MonitorError> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        if let Watch::Steadily { until_ns } = &mut self.watch {
            self.table.look_after(kernel)?;
            let now = clock::monotonic_ns();
            self.table.read_all(kernel)?;
            self.table.observed(now - *until_ns);
            self.table.cut_batches(STEADY_BATCH_NS);
            *until_ns = now;
            Ok(())
        } else {
            self.table.look_after(kernel)
        }
    }

    /// Opens a window, waits, closes it, reads what it brought.
    fn sample(&mut self) -> Result<(), MonitorError> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        self.table.look_after(kernel)?;
        self.table.begin_batches();
        kernel.open()?;
        let opened = clock::monotonic_ns();
        std::thread::sleep(WINDOW);
        let closed = kernel.close();
        let observed = clock::monotonic_ns() - opened;
        std::thread::sleep(GRACE);
        kernel.rest();
        closed?;
        self.table.observed(observed);
        self.table.count_unfinished(kernel)?;
        self.table.read_all(kernel)?;
        self.table.end_batches();
        Ok(())
    }

    /// Attaches or detaches the hooks as the targets want it.
    fn adjust(&mut self) -> Result<(), MonitorError> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        let wants_exact = self.table.targets().any(|t| t.options.mode == Mode::Exact);
        match (self.watch, wants_exact) {
            (Watch::InWindows, true) => {
                kernel.open()?;
                self.watch = Watch::Steadily { until_ns: clock::monotonic_ns() };
                self.table.begin_batches();
            }
            (Watch::Steadily { .. }, false) => {
                self.look_after()?;
                self.table.end_batches();
                if let Some(kernel) = &mut self.kernel {
                    kernel.close()?;
                    kernel.rest();
                }
                self.watch = Watch::InWindows;
                self.begin_period(Instant::now());
            }
            (Watch::InWindows, false) | (Watch::Steadily { .. }, true) => {}
        }
        Ok(())
    }

    fn answer(&mut self, request: Request) {
        // Who asked may have gone away in the meantime; then nobody wants the answer.
        match request {
            Request::Attach { pid, options, reply } => drop(reply.send(self.attach(pid, options))),
            Request::Detach { pid, reply } => drop(reply.send(self.detach(pid))),
            Request::Configure { pid, options, reply } => drop(reply.send(self.configure(pid, options))),
            Request::Targets { reply } => drop(reply.send(Ok(self.table.targets().map(|t| t.info()).collect()))),
            Request::Snapshot { pid, reply } => drop(reply.send(self.snapshot(pid))),
            Request::IntervalLog { pid, reply } => drop(reply.send(self.interval_log(pid))),
            Request::Totals { pid, reply } => drop(reply.send(self.totals(pid))),
        }
    }

    fn attach(&mut self, pid: i32, options: AttachOptions) -> Result<TargetInfo, MonitorError> {
        self.table.check_attach(pid)?;
        if self.kernel.is_none() {
            self.kernel = Some(Kernel::load()?);
            self.next_tick = Instant::now() + TICK;
            self.begin_period(Instant::now());
        }
        let attached = self.attach_loaded(pid, options);
        if attached.is_err() {
            self.unload_if_idle();
        }
        attached
    }

    fn attach_loaded(&mut self, pid: i32, options: AttachOptions) -> Result<TargetInfo, MonitorError> {
        if options.mode == Mode::Exact && self.watch == Watch::InWindows {
            // The hooks come first, so that the target is observed from the instant at which it is followed.
            if let Some(kernel) = &mut self.kernel {
                kernel.open()?;
            }
            self.watch = Watch::Steadily { until_ns: clock::monotonic_ns() };
            self.table.begin_batches();
        }
        // What happened until now belongs to the others only.
        self.look_after()?;
        let Some(kernel) = &mut self.kernel else { return Err(MonitorError::Gone) };
        let attached = self.table.attach(kernel, pid, options);
        self.adjust()?;
        attached?;
        self.table.target(pid).map(|t| t.info())
    }

    fn detach(&mut self, pid: i32) -> Result<(), MonitorError> {
        let Some(kernel) = &mut self.kernel else { return Err(MonitorError::NotAttached { pid }) };
        self.table.detach(kernel, pid)?;
        self.unload_if_idle();
        self.adjust()
    }

    fn unload_if_idle(&mut self) {
        if self.table.targets().next().is_none() {
            self.kernel = None;
            self.table = Table::default();
            self.watch = Watch::InWindows;
            self.window_at = None;
        }
    }

    fn configure(&mut self, pid: i32, options: AttachOptions) -> Result<TargetInfo, MonitorError> {
        self.look_after()?;
        let Some(kernel) = &mut self.kernel else { return Err(MonitorError::NotAttached { pid }) };
        self.table.configure(kernel, pid, options)?;
        self.adjust()?;
        self.table.target(pid).map(|t| t.info())
    }

    fn snapshot(&mut self, pid: i32) -> Result<StatsSnapshot, MonitorError> {
        self.look_after()?;
        let Some(kernel) = &self.kernel else { return Err(MonitorError::NotAttached { pid }) };
        let lost = kernel.lost()?;
        let skipped = kernel.skipped();
        Ok(snapshot::of(self.table.target(pid)?, self.table.processes_of(pid), &lost, skipped))
    }

    fn totals(&mut self, pid: i32) -> Result<Totals, MonitorError> {
        self.look_after()?;
        let Some(kernel) = &self.kernel else { return Err(MonitorError::NotAttached { pid }) };
        let (lost, skipped) = (kernel.lost()?, kernel.skipped());
        Ok(totals::of(self.table.target(pid)?, self.table.processes_of(pid), &lost, skipped))
    }

    fn interval_log(&mut self, pid: i32) -> Result<String, MonitorError> {
        self.look_after()?;
        export::interval_log(self.table.target(pid)?, self.table.processes_of(pid))
    }
}
