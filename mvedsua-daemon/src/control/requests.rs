//! What the daemon does with each request.

use std::path::Path;
use std::sync::Arc;

use super::Code;
use super::access::Need;
use super::audit::{Line, Peer};
use super::before;
use super::daemon::Daemon;
use super::events::{Subject, What};
use super::history::Past;
use super::names;
use super::next_version::{self, Wanted};
use super::packages;
use super::process::{self, ProcessId};
use super::protocol::{Answer, Ask, Problem, Request};
use super::slowdown::Before;
use super::updates::{Asked, Handle, NotTaken, View, is_single, promotion_is_decided};
use crate::lifecycle::{Event, Outcome, Refusal, Stage, State};
use crate::package::{Accept, Judge, MaxSlowdown, Method, Package, Terms, Trust};
use crate::rules::{self, RuleSet};
use crate::update::binary::FileChange;
use crate::update::preflight::{self, InspectError};

/// The most past updates that one answer holds.
const MOST_PAST: usize = 200;

impl Daemon {
    /// Answers a request of a client, after its rights were checked, and keeps what was asked for.
    ///
    /// # Errors
    ///
    /// What was tried, why it was not done, and what to do.
    pub(crate) async fn answer(&self, peer: Peer, request: Request) -> Result<Answer, Problem> {
        let (verb, pid) = (request.verb(), request.pid());
        let changes = changes_something(&request);
        let to = if let Request::Update { ask, .. } = &request { Some(ask.to.clone()) } else { None };
        let result = match self.permit(peer, &request) {
            Ok(()) => self.perform(peer, request).await,
            Err(problem) => Err(problem),
        };
        if changes {
            let (code, verdict, update) = match &result {
                Ok(Answer::Started { update }) => (Code::Done, "started".to_owned(), Some(*update)),
                Ok(_) => (Code::Done, "done".to_owned(), None),
                Err(problem) => (problem.code, problem.why.clone(), None),
            };
            let begun = update.and_then(|update| self.handle_of(update));
            let package = begun.and_then(|handle| handle.view.borrow().status.update.as_ref()?.package.clone());
            let (at, who, what) = (String::new(), Some(peer), verb.to_owned());
            let line = Line { at, who, what, pid, update, to, package, code, verdict };
            self.shared.audit.write(line).in_time().await;
        }
        result
    }

    fn permit(&self, peer: Peer, request: &Request) -> Result<(), Problem> {
        let need = match request {
            Request::Hello { .. } => return Ok(()),
            Request::Attach { .. }
            | Request::Detach { .. }
            | Request::Mode { .. }
            | Request::Stats { .. }
            | Request::Export { .. }
            | Request::Status { .. }
            | Request::Follow { .. }
            | Request::History { .. }
            | Request::Report { .. }
            | Request::Events { .. } => Need::Observe,
            Request::Update { .. } | Request::Promote { .. } | Request::Confirm { .. } | Request::Rollback { .. } => {
                Need::Update
            }
            Request::Shutdown { .. } => Need::Administer,
        };
        // A process that is gone has no owner to ask; what remains of it belongs to its update.
        let gone =
            request.pid().filter(|pid| self.handle(*pid).is_some_and(|handle| handle.view.borrow().owner == peer.uid));
        let pid = if gone.is_some() { None } else { request.pid() };
        let history = matches!(request, Request::History { .. } | Request::Report { .. } | Request::Events { .. });
        let pid = if history { None } else { pid };
        self.config.access.check(peer.uid, need, pid).map_err(|why| {
            Problem::new(Code::Refused, format!("`{}`", request.verb()), why, "run it as root, or as the user who may")
        })
    }

    async fn perform(&self, peer: Peer, request: Request) -> Result<Answer, Problem> {
        let observer = &self.shared.observer;
        match request {
            Request::Hello {} => {
                let version = env!("CARGO_PKG_VERSION").to_owned();
                Ok(Answer::Hello { pid: std::process::id(), version })
            }
            Request::Attach { pid, options, name } => {
                exists(pid, "attaching")?;
                let name = name.map(|name| names::check(&name)).transpose().map_err(|why| {
                    Problem::new(Code::Usage, format!("attaching process {pid}"), why, "choose another --name")
                })?;
                let attached = observer.attach(pid, options)?;
                name.map(|name| self.shared.names.call(pid, &name));
                self.tell(pid, What::Attached { mode: options.mode });
                Ok(Answer::Attached(attached))
            }
            Request::Detach { pid } => {
                observer.detach(pid)?;
                self.tell(pid, What::Detached {});
                Ok(Answer::Done {})
            }
            Request::Mode { pid, mode } => {
                observer.set_mode(pid, mode)?;
                self.tell(pid, What::ModeChanged { mode });
                Ok(Answer::Done {})
            }
            Request::Stats { pid } => observer.stats(pid).map(|mut stats| {
                let updated = self.handle(pid).filter(|handle| handle.view.borrow().status.pid == pid);
                stats.led = updated.map(|handle| handle.view.borrow().periods.until(&stats)).unwrap_or_default();
                Answer::Stats(Box::new(stats))
            }),
            Request::Export { pid } => observer.export(pid).map(Answer::Export),
            Request::Update { pid, ask } => self.update(peer, pid, *ask).await,
            Request::Promote { pid, evidence } => {
                self.operate(pid, "promoting", Event::Promote(evidence.into()), promotion_is_decided, promoted).await
            }
            Request::Confirm { pid } => self.operate(pid, "confirming", Event::Confirm, is_single, confirmed).await,
            Request::Rollback { pid, reason } => {
                let reason = format!("{reason} (user {})", peer.uid);
                self.operate(pid, "rolling back", Event::Rollback { reason }, is_single, rolled_back).await
            }
            Request::Status { pid } => {
                let status =
                    self.status(pid, |pid| self.config.access.check(peer.uid, Need::Observe, Some(pid)).is_ok());
                match pid {
                    Some(pid) if status.targets.is_empty() => Err(Problem::new(
                        Code::TargetGone,
                        format!("looking at process {pid}"),
                        "it is neither observed nor updated",
                        "`mvedsuad status` lists what is; `mvedsuad attach` begins to observe a process",
                    )),
                    Some(_) | None => Ok(Answer::Status(Box::new(status))),
                }
            }
            Request::Follow { pid } => self.followed(pid).map(|status| Answer::Status(Box::new(status))),
            Request::History { pid, limit } => {
                let wanted = |past: &Past| self.may_see(peer, past) && pid.is_none_or(|pid| past.pid == pid);
                Ok(Answer::History(self.shared.history.find(wanted, limit.min(MOST_PAST))))
            }
            Request::Report { pid, update } => self.report(peer, pid, update),
            // What is told is told line by line, see [`super::events::stream`].
            Request::Events { .. } => Ok(Answer::Done {}),
            Request::Shutdown {} => {
                self.end();
                Ok(Answer::Done {})
            }
        }
    }

    /// Tells what has happened to a process that is observed.
    fn tell(&self, pid: i32, what: What) {
        let owner = process::uids_of(pid).ok().map(|[owner, ..]| owner);
        let target = Some(self.shared.names.of(pid));
        self.shared.events.publish(&Subject { update: None, pid: Some(pid), target, owner }, what);
    }

    fn may_see(&self, peer: Peer, past: &Past) -> bool {
        peer.uid == 0 || past.owner == peer.uid
    }

    async fn update(&self, peer: Peer, pid: i32, ask: Ask) -> Result<Answer, Problem> {
        let tried = format!("updating process {pid}");
        tracing::info!(pid, to = ask.to, user = peer.uid, "an update is asked for");
        let process = exists(pid, "updating")?;
        if pid == std::process::id().cast_signed() {
            let why = "that is the daemon itself, which cannot trace itself";
            let remedy =
                "another daemon could, with --runtime-dir and --state-dir of its own; a restart touches no service";
            return Err(Problem::new(Code::Refused, tried, why, remedy));
        }
        // An update that is under way is the better reason than the tracer that it is made with.
        self.is_free(pid, &tried)?;
        let uids = process::uids_of(pid).map_err(|e| gone(&tried, &e.to_string()))?;
        let mut wanted = Wanted::of(&ask.to, &self.trust(uids));
        let package = match wanted {
            None if ask.library.is_some() => {
                let why = format!("`--library` says which file changes, and `--to {}` names no version of one", ask.to);
                return Err(Problem::new(Code::Usage, tried, why, "it goes with `--to FILE` and `--to installed`"));
            }
            None => self.package(pid, uids, &ask.to).await?,
            Some(_) => None,
        };
        if let Some(package) = package.as_ref().filter(|package| package.info.method == Method::Binary)
            && let (Some(new), Some(from)) = (&package.new, package.info.from.first())
        {
            let (hooks, proof) = (new.hooks.clone().map(Box::new), new.proof.clone().map(Box::new));
            wanted = Some(Wanted::Packaged { file: new.object.clone(), from: from.clone(), hooks, proof });
        }
        let wished = package.as_ref().map(|package| package.wishes.clone()).unwrap_or_default();
        let terms = ask.wishes.over(wished).over(self.config.update.wishes()).terms();
        self.check_gates(peer, &terms, &tried)?;
        let terms = terms.gated(self.config.gate.iter().cloned());
        packages::check_terms(&terms, package.as_ref(), self.shared.engine.abilities())?;
        let rules = rules_of(ask.rules, package.as_ref()).await?;
        check_recording(peer, ask.record.as_deref())?;
        preflight(pid, &tried).await?;
        if package.as_ref().is_some_and(|package| package.info.method == Method::InPlace) {
            self.cooperates(pid, &tried).await?;
        }
        let files = match wanted {
            Some(wanted) => self.files(pid, uids, wanted, ask.library, terms.accept).await?,
            None => vec![],
        };
        let before = self.before(pid, terms.max_slowdown).await;
        // Of two that ask at once the second sees the first.
        let busy = || refused(&tried, &Refusal::Busy { stage: Stage::Updating });
        let _beginning = self.keep_for_update(pid).ok_or_else(busy)?;
        self.is_free(pid, &tried)?;
        let id = self.next_update();
        let asked = Asked {
            id,
            process,
            owner: uids[0],
            by: peer,
            to: ask.to,
            terms,
            package,
            files,
            rules,
            before,
            record: ask.record,
        };
        self.begin(asked).await.map_err(|e| {
            let remedy = match e.kind() {
                std::io::ErrorKind::TimedOut => {
                    "nothing was touched; look at the disk of the state directory, without a journal no update is begun"
                }
                _ => "make room on the disk of the state directory; without a journal no update is begun",
            };
            Problem::new(Code::Refused, tried, format!("the journal cannot be written: {e}"), remedy)
        })?;
        Ok(Answer::Started { update: id })
    }

    /// Sees that those may be asked whom the package, or who asks for the update, wants to be asked.
    fn check_gates(&self, peer: Peer, terms: &Terms, tried: &str) -> Result<(), Problem> {
        for gate in &terms.gates {
            self.config.gates.check(gate).map_err(|why| {
                Problem::new(Code::Refused, tried, why, "nothing was touched; an administrator can list the host there")
            })?;
            if peer.uid != 0 && matches!(gate.judge, Judge::Command(_)) {
                let why = format!(
                    "its gate `{}` is a command, which would run as user {}",
                    gate.name, self.config.gates.user
                );
                let remedy = "nothing was touched; root may ask for it, and the configuration may name such gates";
                return Err(Problem::new(Code::Refused, tried, why, remedy));
            }
        }
        Ok(())
    }

    /// Looks at what a process gets done by itself, if somebody wants to know.
    async fn before(&self, pid: i32, max: MaxSlowdown) -> Before {
        if max == MaxSlowdown::Off {
            return Before::NotKnown { because: "nobody looked".to_owned() };
        }
        let observer = Arc::clone(&self.shared.observer);
        let looked = tokio::task::spawn_blocking(move || before::look(&*observer, pid)).await;
        looked.unwrap_or_else(|e| Before::NotKnown { because: e.to_string() })
    }

    /// Says who may have written what is loaded into a process.
    fn trust(&self, uids: [u32; 4]) -> Trust {
        let [owner, _, _, reader] = uids;
        let may_update = self.config.access.check(owner, Need::Update, None).is_ok();
        Trust::new(may_update.then_some(owner), reader)
    }

    /// Compares the files that are to change with their next versions.
    async fn files(
        &self,
        pid: i32,
        uids: [u32; 4],
        wanted: Wanted,
        library: Option<String>,
        accept: Accept,
    ) -> Result<Vec<Arc<FileChange>>, Problem> {
        let trust = self.trust(uids);
        let compare = move || next_version::open(pid, &wanted, library.as_deref(), accept, &trust);
        tokio::task::spawn_blocking(compare).await.unwrap_or_else(|e| {
            Err(Problem::new(Code::Refused, "comparing two versions", e.to_string(), "the daemon's log says more"))
        })
    }

    /// Opens the package that is asked for, and sees that it is for this process.
    async fn package(&self, pid: i32, uids: [u32; 4], to: &str) -> Result<Option<Package>, Problem> {
        let trust = self.trust(uids);
        let (to, dirs) = (to.to_owned(), self.shared.dirs.clone());
        let opened = tokio::task::spawn_blocking(move || packages::open_for(pid, &to, &trust, &dirs)).await;
        opened.unwrap_or_else(|e| {
            Err(Problem::new(Code::Refused, "opening the package", e.to_string(), "the daemon's log says more"))
        })
    }

    /// Sees that a process can apply a new version itself.
    async fn cooperates(&self, pid: i32, tried: &str) -> Result<(), Problem> {
        let engine = Arc::clone(&self.shared.engine);
        let why = match tokio::task::spawn_blocking(move || engine.check_in_place(pid)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(e) => e.to_string(),
        };
        let remedy = "nothing was touched; programs that update in place are built with mvedsua-sdk, see its README";
        Err(Problem::new(Code::Refused, tried, why, remedy))
    }

    /// Refuses a second update of the same service.
    fn is_free(&self, pid: i32, tried: &str) -> Result<(), Problem> {
        if let Some(handle) = self.handle(pid) {
            let view = handle.view.borrow();
            if !view.state.is_settled() {
                let refusal = Refusal::Busy { stage: view.state.stage() };
                return Err(refused(tried, &refusal));
            }
        }
        Ok(())
    }

    /// Passes a request on to an update and waits until `done` holds; `judge` says what came of it.
    async fn operate(
        &self,
        pid: i32,
        doing: &str,
        event: Event,
        done: fn(&State) -> bool,
        judge: fn(&State) -> Result<(), (Code, String)>,
    ) -> Result<Answer, Problem> {
        let tried = format!("{doing} the update of process {pid}");
        let Some(mut handle) = self.handle(pid) else { return Err(not_under_way(&tried, pid, None)) };
        let over = |handle: &Handle| not_under_way(&tried, pid, handle.view.borrow().state.outcome());
        match handle.ask(event).await {
            Err(NotTaken::Over) => return Err(over(&handle)),
            Err(NotTaken::Refused(refusal)) => return Err(refused(&tried, &refusal)),
            Err(NotTaken::Failed) => {
                let why = "the daemon's own task for it failed; the update is being undone";
                let remedy = format!("`mvedsuad status {pid}` shows how far that is; the daemon's log says more");
                return Err(Problem::new(Code::Inconclusive, tried, why, remedy));
            }
            Ok(()) => {}
        }
        let ends = handle.view.wait_for(|view| done(&view.state) || view.alarm.is_some()).await;
        let view: Option<View> = ends.ok().map(|view| view.clone());
        let Some(view) = view else { return Err(over(&handle)) };
        if let Some(alarm) = view.alarm {
            let remedy =
                format!("look at /proc/{pid}/status and the daemon's log now; `mvedsuad doctor --target {pid}`");
            return Err(Problem::new(Code::Harmed, tried, alarm, remedy));
        }
        judge(&view.state).map(|()| Answer::Done {}).map_err(|(code, why)| {
            // A report is there when the update is over.
            let verb = if view.state.is_settled() { "report" } else { "status" };
            Problem::new(code, tried, why, format!("`mvedsuad {verb} {pid}` shows what was found"))
        })
    }

    fn report(&self, peer: Peer, pid: Option<i32>, update: Option<u64>) -> Result<Answer, Problem> {
        let wanted = |past: &Past| {
            self.may_see(peer, past)
                && pid.is_none_or(|pid| past.pid == pid || past.outcome.updated() == Some(pid))
                && update.is_none_or(|update| past.update == update)
        };
        let past = self.shared.history.find(wanted, 1);
        let under_way = update.map_or_else(|| self.handle(pid?), |update| self.handle_of(update));
        if past.is_empty()
            && let Some(handle) = under_way
            && let view = handle.view.borrow()
            && (peer.uid == 0 || view.owner == peer.uid)
            && !view.state.is_settled()
        {
            let pid = view.status.pid;
            return Err(Problem::new(
                Code::Usage,
                format!("looking for the report of update {}", handle.id),
                format!("it is under way, in stage {}; there is a report when it is over", view.state.stage()),
                format!("`mvedsuad status {pid}` shows what was found so far"),
            ));
        }
        if past.is_empty() {
            return Err(Problem::new(
                Code::Usage,
                "looking for the report",
                "there is no such update that is over",
                "`mvedsuad history` lists those that are; `mvedsuad status` shows those under way",
            ));
        }
        Ok(Answer::Report(past))
    }
}

fn changes_something(request: &Request) -> bool {
    match request {
        Request::Attach { .. }
        | Request::Detach { .. }
        | Request::Mode { .. }
        | Request::Update { .. }
        | Request::Promote { .. }
        | Request::Confirm { .. }
        | Request::Rollback { .. }
        | Request::Shutdown { .. } => true,
        Request::Hello { .. }
        | Request::Stats { .. }
        | Request::Export { .. }
        | Request::Status { .. }
        | Request::Follow { .. }
        | Request::History { .. }
        | Request::Report { .. }
        | Request::Events { .. } => false,
    }
}

fn exists(pid: i32, doing: &str) -> Result<ProcessId, Problem> {
    let tried = format!("{doing} process {pid}");
    let process = ProcessId::of(pid).map_err(|_| gone(&tried, "there is no such process"))?;
    if process.is_alive() { Ok(process) } else { Err(gone(&tried, "it has ended")) }
}

/// Looks at the process before anything of it is touched.
async fn preflight(pid: i32, tried: &str) -> Result<(), Problem> {
    let looked = tokio::task::spawn_blocking(move || preflight::inspect(pid)).await;
    let found = match looked {
        Ok(Ok(found)) => found,
        Ok(Err(e @ InspectError::Gone { .. })) => return Err(gone(tried, &e.to_string())),
        Ok(Err(e @ InspectError::Read { .. })) => {
            return Err(Problem::new(Code::Kernel, tried, e.to_string(), "run the daemon as root"));
        }
        Err(e) => return Err(Problem::new(Code::Refused, tried, e.to_string(), "the daemon's log says more")),
    };
    let refusals = found.refusals();
    if refusals.is_empty() {
        return Ok(());
    }
    let remedy = format!("nothing was touched; `mvedsuad doctor --target {pid}` lists everything that was found");
    Err(Problem::new(Code::Refused, tried, refusals.join("; "), remedy))
}

/// Says that there is no update to act on: how the last one ended, and whether there could be another.
fn not_under_way(tried: &str, pid: i32, last: Option<&Outcome>) -> Problem {
    let why = match last {
        Some(outcome) => format!("no update of it is under way; the last one is over: {outcome}"),
        None => "no update of it is under way".to_owned(),
    };
    let report = last.map(|_| format!("`mvedsuad report {pid}` shows what was found"));
    let lives = ProcessId::of(pid).is_ok_and(|process| process.is_alive());
    match (lives, report) {
        (true, None) => Problem::new(Code::Usage, tried, why, format!("`mvedsuad update {pid} --to self` starts one")),
        (true, Some(report)) => {
            let remedy = format!("{report}; `mvedsuad update {pid} --to …` starts another one");
            Problem::new(Code::Usage, tried, why, remedy)
        }
        (false, None) => gone(tried, "there is no such process, and no update of it is known"),
        (false, Some(report)) => Problem::new(Code::TargetGone, tried, why, report),
    }
}

fn gone(tried: &str, why: &str) -> Problem {
    Problem::new(Code::TargetGone, tried, why, "check the pid; `--exe`, `--port` and `--unit` find it for you")
}

fn refused(tried: &str, refusal: &Refusal) -> Problem {
    let code = Code::of_refusal(refusal);
    match refusal {
        Refusal::WrongStage { stage, hint } => {
            Problem::new(code, tried, format!("that does not fit the stage {stage}"), hint.clone())
        }
        Refusal::Busy { stage } => Problem::new(
            code,
            tried,
            format!("an update of it is under way, in stage {stage}"),
            "wait until it is over, or end it with `mvedsuad rollback`",
        ),
        Refusal::TooLittle(evidence) => Problem::new(
            code,
            tried,
            format!("too little was compared for a verdict: {evidence}"),
            "wait for more traffic, or take the responsibility with `promote --force`",
        ),
    }
}

fn promoted(state: &State) -> Result<(), (Code, String)> {
    match state {
        State::UpdatedLeader { .. } => Ok(()),
        State::Validating { plan, run, .. } => {
            let why = run.abandoned_because.as_deref().unwrap_or("it could not be made");
            let text = format!(
                "it was abandoned {} times, at last because {why}; both versions go on as before, the old one leads",
                plan.abandoned
            );
            Err((Code::TimedOut, text))
        }
        other => confirmed(other),
    }
}

fn confirmed(state: &State) -> Result<(), (Code, String)> {
    if let State::Pausing { cause, .. } = state {
        return Err((Code::Diverged, format!("the update was rolled back and is about to be tried again: {cause}")));
    }
    match state.outcome() {
        Some(outcome) if outcome.updated().is_some() => Ok(()),
        Some(outcome) => Err((Code::of_outcome(outcome), outcome.to_string())),
        None => Err((Code::Inconclusive, format!("the update is in stage {}", state.stage()))),
    }
}

fn rolled_back(state: &State) -> Result<(), (Code, String)> {
    match state.outcome() {
        Some(Outcome::RolledBack { .. }) => Ok(()),
        // It was to be undone and was not.
        Some(outcome) if outcome.updated().is_some() => Err((Code::Usage, outcome.to_string())),
        Some(_) | None => confirmed(state),
    }
}

/// Reads the rules that are asked for and those of the package; the operator's come first.
async fn rules_of(asked: Option<String>, package: Option<&Package>) -> Result<Option<Arc<RuleSet>>, Problem> {
    let own = asked.map(|text| ("--rules".to_owned(), text));
    let paths = package.map(|package| package.rules.clone()).unwrap_or_default();
    if own.is_none() && paths.is_empty() {
        return Ok(None);
    }
    let nothing_touched = |tried: String, why: String, what: &str| {
        Problem::new(Code::Refused, tried, why, format!("nothing was touched; {what}"))
    };
    let read = tokio::task::spawn_blocking(move || {
        let mut files: Vec<(String, String)> = own.into_iter().collect();
        for path in &paths {
            let text = std::fs::read_to_string(path).map_err(|e| {
                let tried = format!("reading the rules in {}", path.display());
                nothing_touched(tried, e.to_string(), "check the package")
            })?;
            files.push((path.display().to_string(), text));
        }
        rules::check_all(&files).map_err(|why| {
            nothing_touched("reading the rules".to_owned(), why, "`mvedsuad rules check FILE` looks again")
        })
    });
    let read = read.await.unwrap_or_else(|e| {
        Err(nothing_touched("reading the rules".to_owned(), e.to_string(), "the daemon's log says more"))
    });
    read.map(|rules| Some(Arc::new(rules)))
}

/// Sees that a recording may be written: the daemon does it with all its rights, and it holds the service's payloads.
fn check_recording(peer: Peer, path: Option<&Path>) -> Result<(), Problem> {
    let Some(path) = path else { return Ok(()) };
    let tried = format!("recording into {}", path.display());
    if peer.uid != 0 {
        let why = "it holds everything that the service reads and writes, and the daemon writes it";
        return Err(Problem::new(Code::Refused, tried, why, "only root may ask for a recording"));
    }
    if path.exists() {
        return Err(Problem::new(Code::Refused, tried, "the file is there already", "take another name, or remove it"));
    }
    Ok(())
}
