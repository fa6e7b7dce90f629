//! Drives the lifecycle of one update: performs its effects and feeds back what comes of them.

mod asking;
mod falls;
mod happenings;
mod telling;

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::asking::Asking;
use self::telling::failure_line;
use super::growth::Growth;
use super::limits::Limits;
use super::verify::{self, Announced};
use super::view::View;
use super::{Handle, Operation, Shared};
use crate::control::audit::Peer;
use crate::control::history::Past;
use crate::control::journal::JournalEntry;
use crate::control::led::Periods;
use crate::control::process::{self, ProcessId, Program};
use crate::control::slowdown::{self, Before, Slowdown};
use crate::control::status::{Passed, RunsAs, TargetStatus};
use crate::control::{Code, SessionHandle, clock, panics};
use crate::lifecycle::{self, Effect, Event, Outcome, Recovery, Refusal, Stage, State, Timer, Verification};
use crate::package::{Lockstep, Package, PackageInfo, StopAt, Terms};
use crate::record::interleaving::Interleaving;
use crate::record::sight::Sight;
use crate::rules::{Counts, RuleCount, RuleSet};
use crate::update::binary::FileChange;
use crate::update::{
    Answering, Change, Command, Counters, FailureKind, Options, SITUATIONS, SessionEvent, Stops, Waits,
};

/// How often the status is brought up to date while nothing happens.
const TICK: Duration = Duration::from_millis(500);
/// How many requests of operators may wait.
const WAITING: usize = 16;

/// What was asked for, by whom, of which process.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) id: u64,
    pub(crate) process: ProcessId,
    /// The user whose process it is.
    pub(crate) owner: u32,
    pub(crate) by: Peer,
    /// The new version, as it was asked for.
    pub(crate) to: String,
    /// What holds: the operator's wishes over the package's.
    pub(crate) terms: Terms,
    pub(crate) package: Option<Package>,
    /// Files of the process that go over to their next versions.
    pub(crate) files: Vec<Arc<FileChange>>,
    pub(crate) rules: Option<Arc<RuleSet>>,
    /// How much it got done before anything was done to it.
    pub(crate) before: Before,
    /// Where to keep what the leader does.
    pub(crate) record: Option<PathBuf>,
}

/// What a blocking task brings back.
enum Finished {
    Started(Result<SessionHandle, FailureKind>),
    Event(Event),
}

/// The ends of a running session.
struct Session {
    commands: crossbeam_channel::Sender<Command>,
    events: mpsc::UnboundedReceiver<SessionEvent>,
}

/// The task behind one update.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    asked: Asked,
    asked_ms: u64,
    asked_at: Instant,
    /// What the leader had mapped when the update was asked for.
    program: Program,
    /// Of which files it ran another version then.
    ran: Vec<RunsAs>,
    state: State,
    entered: Instant,
    timers: HashMap<Timer, Instant>,
    session: Option<Session>,
    /// Commands for a session that is still starting.
    pending: Vec<Command>,
    tasks: JoinSet<Finished>,
    operations: mpsc::Receiver<Operation>,
    view: watch::Sender<View>,
    programs: HashMap<i32, Program>,
    growth: Growth,
    limits: Limits,
    slowdown: slowdown::Watch,
    /// What the rules do in the present attempt.
    counts: Option<Arc<Counts>>,
    /// What the session of the present attempt waits for.
    waits: Waits,
    sight: Sight,
    /// What is left of the last run when there is none any more.
    last: Last,
    failures: Vec<FailureKind>,
    /// The stages so far.
    stages: Vec<Passed>,
    /// What was observed of the process while each version led.
    periods: Periods,
    alarm: Option<String>,
    journalled: Option<JournalEntry>,
    /// The end of the update is written down.
    is_past: bool,
    /// What a panic said of which nothing has come yet.
    fallen: Option<String>,
    /// What the gates are being asked.
    asking: Asking,
}

/// What the status and the history tell of the last run.
#[derive(Clone, Debug, Default)]
struct Last {
    counters: Counters,
    threads: Option<u32>,
    attempts: u32,
    fork_pause_us: Option<u64>,
    promotion_pause_us: Option<u64>,
}

impl Driver {
    /// Prepares an update; [`Driver::run`] begins it.
    pub(crate) fn new(shared: Arc<Shared>, asked: Asked) -> (Driver, Handle) {
        let (sender, operations) = mpsc::channel(WAITING);
        let state = State::new(asked.process.pid);
        let program = process::program_of(asked.process.pid);
        let status = TargetStatus {
            pid: asked.process.pid,
            stage: state.stage(),
            versions: vec![],
            monitor: None,
            update: None,
            next: lifecycle::next(&state),
        };
        let first = View { state: state.clone(), status, alarm: None, periods: Periods::default(), owner: asked.owner };
        let (view, watcher) = watch::channel(first);
        let id = asked.id;
        let asked_pid = asked.process.pid;
        let driver = Driver {
            shared,
            slowdown: slowdown::Watch::new(Slowdown::new(asked.before.clone(), asked.terms.max_slowdown)),
            asked,
            asked_ms: clock::now_ms(),
            asked_at: Instant::now(),
            program,
            ran: RunsAs::of(asked_pid),
            state,
            entered: Instant::now(),
            timers: HashMap::new(),
            session: None,
            pending: vec![],
            tasks: JoinSet::new(),
            operations,
            view,
            programs: HashMap::new(),
            growth: Growth::default(),
            limits: Limits::default(),
            counts: None,
            waits: Waits::default(),
            sight: Sight::default(),
            last: Last::default(),
            failures: vec![],
            stages: vec![],
            periods: Periods::default(),
            alarm: None,
            journalled: None,
            is_past: false,
            fallen: None,
            asking: Asking::default(),
        };
        (driver, Handle { id, operations: sender, view: watcher })
    }

    /// Begins the update as far as that can be done at once; the journal must have it first.
    ///
    /// # Errors
    ///
    /// Where the journal cannot be written: an update that a crash of the daemon would leave behind is not begun.
    pub(crate) async fn begin(&mut self) -> std::io::Result<()> {
        let entry = self.entry(Stage::Updating);
        self.shared.journal.begin(&entry).await?;
        self.journalled = Some(entry);
        self.tell_asked();
        self.fallen = panics::catch(|| self.feed(Event::Ask(self.asked.terms.policy))).err();
        Ok(())
    }

    /// Drives the update until it is over.
    async fn drive(&mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.state.is_settled() {
            let next_timer = self.timers.iter().min_by_key(|(_, at)| **at).map(|(timer, at)| (*timer, *at));
            tokio::select! {
                Some(operation) = self.operations.recv() => {
                    let refused = self.feed(operation.event);
                    // Who asked may have gone; the request stands.
                    let _ = operation.answer.send(refused.map_or(Ok(()), Err));
                }
                Some(finished) = self.tasks.join_next(), if !self.tasks.is_empty() => self.finished(finished),
                event = next_event(&mut self.session) => self.hear(event),
                answer = self.asking.next() => self.answered(answer),
                timer = fire(next_timer) => {
                    self.timers.remove(&timer);
                    self.feed(Event::Timer(timer));
                }
                _ = tick.tick() => {
                    if let Some(what) = self.limits.look(&self.asked.terms, &self.state) {
                        self.feed(Event::Exceeded(what));
                    }
                    // A disk that was full may have room again.
                    self.journal();
                    self.publish();
                }
            }
        }
        if !self.is_past
            && let Some(outcome) = self.state.outcome().cloned()
        {
            self.finish(&outcome);
        }
        self.publish();
    }

    fn finished(&mut self, finished: Result<Finished, tokio::task::JoinError>) {
        match finished {
            Ok(Finished::Started(Ok(handle))) => self.adopt(handle),
            Ok(Finished::Started(Err(kind))) => {
                self.feed(Event::StartFailed(kind));
            }
            Ok(Finished::Event(event)) => {
                self.feed(event);
            }
            Err(e) => {
                tracing::error!(update = self.asked.id, error = %e, "a task of the update was given up");
                self.feed(Event::SessionLost);
            }
        }
    }

    /// Does some work that may block; `failed` says what is to be made of a panic.
    fn beside(
        &mut self,
        work: impl FnOnce() -> Finished + Send + 'static,
        failed: impl FnOnce(String) -> Finished + Send + 'static,
    ) {
        self.tasks.spawn_blocking(move || panics::catch(work).unwrap_or_else(failed));
    }

    fn adopt(&mut self, handle: SessionHandle) {
        let SessionHandle { commands, events: source, keep } = handle;
        let (forward, events) = mpsc::unbounded_channel();
        // The session is handed over when there is a thread: dropping it waits for its end, which only the commands' can bring.
        let (hand, over) =
            crossbeam_channel::bounded::<(crossbeam_channel::Receiver<SessionEvent>, Box<dyn Any + Send>)>(1);
        let bridge = std::thread::Builder::new().name(format!("events-{}", self.asked.id)).spawn(move || {
            let Ok((source, keep)) = over.recv() else { return };
            for event in source {
                // An update that is over listens no more, but the session ends in its own time.
                let _ = forward.send(event);
            }
            drop(keep);
        });
        if let Err(e) = bridge {
            tracing::error!(update = self.asked.id, error = %e, "no thread for the session's events; it is undone");
            drop(commands);
            drop(keep);
            for event in source {
                self.feed(Event::Session(event));
            }
            return;
        }
        let _ = hand.send((source, keep));
        let session = Session { commands, events };
        for command in self.pending.drain(..) {
            let _ = session.commands.send(command);
        }
        self.session = Some(session);
    }

    fn hear(&mut self, event: Option<SessionEvent>) {
        let Some(event) = event else {
            self.session = None;
            tracing::error!(update = self.asked.id, "the session ended without a last word");
            self.feed(Event::SessionLost);
            return;
        };
        self.tell_session(&event);
        match &event {
            SessionEvent::Progress(counters) => {
                // Whatever the stage makes of it: an attempt may end before the first one.
                self.last.counters = *counters;
                self.growth.add(Instant::now(), counters.log_memory + counters.log_disk);
                tracing::trace!(update = self.asked.id, ?counters);
                if let Some(what) = self.slowdown.take(counters.toll, self.state.stage()) {
                    self.feed(Event::Slowed(what));
                }
            }
            SessionEvent::RolledBack { .. } | SessionEvent::Confirmed { .. } | SessionEvent::TargetEnded { .. } => {
                tracing::info!(update = self.asked.id, ?event, "the session is over");
                self.session = None;
            }
            SessionEvent::Forked { .. }
            | SessionEvent::Applied
            | SessionEvent::CaughtUp
            | SessionEvent::Failed(_)
            | SessionEvent::Promoted { .. }
            | SessionEvent::PromotionAbandoned { .. }
            | SessionEvent::TookOver { .. } => tracing::info!(update = self.asked.id, event = %describe(&event)),
        }
        self.feed(Event::Session(event));
    }

    /// Feeds one event and everything that follows from it at once; returns why it was refused, if it was.
    fn feed(&mut self, event: Event) -> Option<Refusal> {
        let mut refused = None;
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            let before = self.state.stage();
            // The state stays what it is if the step panics.
            let (state, effects) = lifecycle::step(self.state.clone(), event);
            self.state = state;
            if self.state.stage() != before {
                self.entered = Instant::now();
                self.pass();
                tracing::info!(update = self.asked.id, from = %before, to = %self.state.stage(), "stage");
                self.tell_stage(before);
            }
            self.remember();
            self.turn();
            // What is about to be done must be known to a daemon that comes after a crash.
            self.journal();
            for effect in effects {
                self.tell_effect(&effect);
                if let Effect::Refuse(refusal) = effect {
                    refused = Some(refusal);
                } else {
                    queue.extend(self.perform(effect));
                }
            }
        }
        self.publish();
        refused
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Start { leader, situations } => self.start(leader, situations),
            Effect::Send(command) => self.send(command),
            Effect::SetTimer(timer, after) => {
                self.timers.insert(timer, Instant::now() + after);
            }
            Effect::StopTimer(timer) => {
                self.timers.remove(&timer);
            }
            Effect::Verify { leader } => self.verify(leader),
            Effect::AskGate(moment) => self.ask_gates(moment),
            Effect::Recover => self.recover(),
            Effect::Keep(kind) => self.failures.push(kind),
            Effect::Refuse(_) => {}
            Effect::Alarm(text) => {
                tracing::error!(update = self.asked.id, "{text}");
                self.audit("alarm", Code::Harmed, text.clone());
                self.alarm = Some(text);
            }
            Effect::Unexpected(text) => tracing::warn!(update = self.asked.id, "{text}"),
            Effect::Finish(outcome) => self.finish(&outcome),
        }
        None
    }

    fn start(&mut self, leader: i32, situations: [Option<u64>; SITUATIONS]) {
        let engine = Arc::clone(&self.shared.engine);
        self.counts = self.asked.rules.as_ref().map(|rules| Arc::new(Counts::new(Arc::clone(rules))));
        self.waits = Waits::default();
        self.sight = Sight::default();
        self.last.counters = Counters::default();
        let options = Options { situations, ..self.options() };
        // A second attempt keeps the recording of the first.
        self.asked.record = None;
        self.growth = Growth::default();
        self.pending.clear();
        self.beside(
            move || Finished::Started(engine.start(leader, options)),
            |why| Finished::Started(Err(FailureKind::Engine(format!("the session could not be started: {why}")))),
        );
    }

    /// Returns what each rule did in this attempt.
    fn rule_counts(&self) -> Vec<RuleCount> {
        self.counts.as_ref().map(|counts| counts.read()).unwrap_or_default()
    }

    fn has_failed(&self, how: impl Fn(&FailureKind) -> bool) -> bool {
        self.failures.iter().any(how)
    }

    fn options(&self) -> Options {
        let terms = &self.asked.terms;
        let default = Options::default();
        Options {
            log_memory: terms.log_memory,
            log_disk: terms.log_disk,
            spill_dir: self.shared.dirs.spill(),
            on_full: terms.on_full,
            on_parting: terms.on_parting,
            interleaving: terms.threads.unwrap_or(if self.failures.len() % 3 == 2 {
                // A program whose threads compute until another writes to their memory goes through at most so.
                Interleaving::Free
            } else {
                Interleaving::OneByOne
            }),
            stops: match self.has_failed(|failure| matches!(failure, FailureKind::Lost(_))) {
                false if terms.stops == StopAt::WhereNeeded => default.stops,
                _ => Stops::AtEachCall,
            },
            // A difference is looked at once more in the way that assumes least.
            answers: match self.has_failed(|failure| matches!(failure, FailureKind::Diverged(_))) {
                false if terms.stops == StopAt::WhereNeeded => default.answers,
                _ => Answering::AtStops,
            },
            lockstep: terms.lockstep == Lockstep::On,
            change: self.change(),
            hang_timeout: terms.hang_timeout.unwrap_or(default.hang_timeout),
            rules: self.counts.clone(),
            record: self.asked.record.clone(),
            waits: self.waits.clone(),
            sight: self.sight.clone(),
            ..default
        }
    }

    fn change(&self) -> Change {
        if !self.asked.files.is_empty() {
            return Change::files(self.asked.files.clone());
        }
        match self.asked.package.as_ref().and_then(|package| package.new.as_ref()) {
            Some(new) => Change::in_place(new.object.clone()),
            None => Change::itself(),
        }
    }

    fn send(&mut self, command: Command) {
        let verb = match &command {
            Command::Promote => "engine promote",
            Command::Confirm => "engine confirm",
            Command::Rollback { .. } => "engine rollback",
        };
        self.audit(verb, Code::Done, "sent".to_owned());
        match &self.session {
            // A session that is gone says so through its events.
            Some(session) => drop(session.commands.send(command)),
            None => self.pending.push(command),
        }
    }

    fn verify(&mut self, leader: i32) {
        let other = self.state.run().map(|run| run.follower);
        let announced = Announced::of(self.asked.package.as_ref(), &self.asked.files);
        let found = |verification| Finished::Event(Event::Verified(verification));
        self.beside(
            move || found(verify::compare_code(leader, other, &announced)),
            move |why| found(Verification::Mismatch { what: format!("what is mapped could not be compared: {why}") }),
        );
    }

    fn recover(&mut self) {
        let engine = Arc::clone(&self.shared.engine);
        let entry = self.entry(self.state.stage());
        let found = |recovery| Finished::Event(Event::Recovered(recovery));
        self.beside(
            move || found(engine.recover(&entry)),
            move |why| found(Recovery::Unsure { what: format!("putting it back failed: {why}") }),
        );
    }

    /// Returns what is kept of the update.
    fn past(&self, outcome: &Outcome, package: Option<PackageInfo>, rules: Vec<RuleCount>) -> Past {
        Past {
            update: self.asked.id,
            pid: self.asked.process.pid,
            target: Some(self.shared.names.of(self.asked.process.pid)),
            owner: self.asked.owner,
            program: self.program.clone(),
            to: self.asked.to.clone(),
            package,
            asked_by: self.asked.by.uid,
            asked_ms: self.asked_ms,
            ended_ms: clock::now_ms(),
            took_ms: u64::try_from(self.asked_at.elapsed().as_millis()).ok(),
            attempts: self.last.attempts,
            fork_pause_us: self.last.fork_pause_us,
            promotion_pause_us: self.last.promotion_pause_us,
            counters: self.last.counters,
            slowdown: Some(self.slowdown.known.clone()),
            rules,
            failures: self.failures.clone(),
            stages: self.stages.clone(),
            led: self.periods.over(),
            outcome: outcome.clone(),
            code: Code::of_outcome(outcome),
        }
    }

    fn finish(&mut self, outcome: &Outcome) {
        self.timers.clear();
        self.session = None;
        let code = Code::of_outcome(outcome);
        tracing::info!(update = self.asked.id, code = u8::from(code), "{outcome}");
        self.audit("update ended", code, outcome.to_string());
        self.shared.history.add(self.past(outcome, self.package_info(), self.rule_counts()));
        self.is_past = true;
        if outcome.updated().is_some()
            && let Some(package) = &mut self.asked.package
        {
            package.keep_files();
        }
        // What is unsure a daemon that starts later shall look at again.
        if !matches!(outcome, Outcome::Unsure { .. }) {
            self.forget();
        }
    }

    fn forget(&mut self) {
        // Where it cannot be removed the journal says so; the next daemon finds nothing to undo.
        let _ = self.shared.journal.remove(self.asked.id);
        self.journalled = None;
    }
}

/// Waits for the session's next word; for ever where there is no session.
async fn next_event(session: &mut Option<Session>) -> Option<SessionEvent> {
    match session {
        Some(session) => session.events.recv().await,
        None => std::future::pending().await,
    }
}

/// Waits until a timer runs out; for ever where there is none.
async fn fire(timer: Option<(Timer, Instant)>) -> Timer {
    match timer {
        Some((timer, at)) => {
            tokio::time::sleep_until(at.into()).await;
            timer
        }
        None => std::future::pending().await,
    }
}

/// Returns an event for the daemon's log; a divergence's payloads stay out of it.
fn describe(event: &SessionEvent) -> String {
    match event {
        SessionEvent::Failed(kind) => format!("failed: {}", failure_line(kind)),
        SessionEvent::Forked { .. }
        | SessionEvent::Applied
        | SessionEvent::CaughtUp
        | SessionEvent::Progress(_)
        | SessionEvent::Promoted { .. }
        | SessionEvent::PromotionAbandoned { .. }
        | SessionEvent::TookOver { .. }
        | SessionEvent::Confirmed { .. }
        | SessionEvent::RolledBack { .. }
        | SessionEvent::TargetEnded { .. } => format!("{event:?}"),
    }
}
