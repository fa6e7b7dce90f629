//! The live page: every service that the daemon knows, and the updates that are over.
//!
//! It can be read without its script, which only keeps it up to date. What comes from outside goes through maud's escaping.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::cli::page::{STYLE, facts, latencies, time, verdict, wide};
use crate::cli::size::count;
use crate::cli::status_text;
use crate::control::history::Past;
use crate::control::led::Led;
use crate::control::protocol::Problem;
use crate::control::status::{Status, TargetStatus};
use crate::lifecycle::Stage;

/// What the daemon said.
pub(super) struct Seen {
    pub(super) status: Status,
    pub(super) past: Vec<Past>,
    /// What was observed of each process while each version led.
    pub(super) led: Vec<(i32, Vec<Led>)>,
    pub(super) at_ms: u64,
}

/// The stages of an update that goes well.
const WAY: [(Stage, &str); 6] = [
    (Stage::Updating, "updating"),
    (Stage::CatchingUp, "catching up"),
    (Stage::Validating, "validating"),
    (Stage::Promoting, "promoting"),
    (Stage::UpdatedLeader, "new version leads"),
    (Stage::SingleLeader, "over"),
];

/// Returns the page around what changes.
pub(super) fn whole(live: &str) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "mvedsuad" }
                style { (PreEscaped(STYLE)) (PreEscaped(LIVE_STYLE)) }
                script src="/live.js" defer {}
            }
            body {
                a.skip href="#live" { "To the content" }
                header {
                    h1 { "mvedsuad" }
                    button #pause type="button" hidden { "Pause" }
                    p #said role="status" {}
                }
                main #live { (PreEscaped(live)) }
                footer {
                    p {
                        "Kept up to date once a second. Nothing can be changed here: "
                        code { "mvedsuad promote" } ", " code { "confirm" } " and " code { "rollback" } " do that."
                    }
                }
            }
        }
    };
    page.into_string()
}

const LIVE_STYLE: &str = include_str!("live.css");

/// Returns what changes of the page.
pub(super) fn live(seen: &Seen) -> String {
    let Seen { status, past, led, at_ms } = seen;
    let daemon = &status.daemon;
    let page = html! {
        p data-told=(told(status)) {
            "Daemon " (daemon.pid) ", version " (daemon.version) ", since " (time(daemon.started_ms)) "; seen at "
            (time(*at_ms)) "."
        }
        @for trouble in &daemon.troubles {
            p.verdict.bad { strong { "Trouble: " } (trouble) }
        }
        section aria-labelledby="services" {
            h2 #services { "Services" }
            @if status.targets.is_empty() {
                p { "Nothing is observed and no update is known; " code { "mvedsuad attach PID" } " begins." }
            }
            @for target in &status.targets {
                (service(target, led.iter().find(|(pid, _)| *pid == target.pid).map(|(_, led)| led.as_slice())))
            }
        }
        section aria-labelledby="past" {
            h2 #past { "Updates that are over" }
            @if past.is_empty() { p { "None yet." } } @else { (wide("Updates that are over", list(past))) }
        }
    };
    page.into_string()
}

/// Returns what is said aloud when it changes: the stages, and nothing that changes all the time.
fn told(status: &Status) -> String {
    let of = |target: &TargetStatus| {
        let alarm = target.update.as_ref().and_then(|update| update.alarm.as_deref());
        match alarm {
            Some(alarm) => format!("{}: alarm, {alarm}", name(target)),
            None => format!("{}: {}", name(target), target.stage),
        }
    };
    let services: Vec<String> = status.targets.iter().map(of).collect();
    let troubles = match status.daemon.troubles.len() {
        0 => String::new(),
        troubles => format!("; {troubles} troubles"),
    };
    format!("{}{troubles}", services.join("; "))
}

/// Returns what a service is called.
fn name(target: &TargetStatus) -> String {
    let exe = target.versions.first().map(|version| version.program.exe.as_str()).unwrap_or_default();
    let observed = target.monitor.as_ref().map(|monitor| monitor.name.as_str());
    let name = observed.unwrap_or_else(|| exe.rsplit('/').next().unwrap_or_default());
    if name.is_empty() { format!("process {}", target.pid) } else { format!("{name} ({})", target.pid) }
}

fn service(target: &TargetStatus, led: Option<&[Led]>) -> Markup {
    let id = format!("service-{}", target.pid);
    let fields = status_text::fields(target);
    let rows: Vec<(&str, Markup)> = fields.iter().map(|(name, text)| (*name, html! { (text) })).collect();
    let update = target.update.as_ref();
    html! {
        article aria-labelledby=(id) {
            h3 #(id) { (name(target)) }
            @if let Some(alarm) = update.and_then(|update| update.alarm.as_ref()) {
                p.verdict.bad { strong { "Alarm: " } (alarm) }
            }
            @if update.is_some_and(|update| !update.is_over()) { (way(target.stage)) }
            @if let Some(update) = update.filter(|update| !update.is_over()) {
                p.progress {
                    (count(update.counters.compared_calls)) " calls and " (count(update.counters.compared_outputs))
                    " outputs compared, " (count(update.counters.backlog)) " records behind."
                }
                (fill(update.log.memory, update.log.memory_budget, &id))
            }
            (facts(&status_text::heading(target), &rows))
            @if let Some(led) = led.filter(|led| led.iter().any(|led| !led.calls.is_empty())) {
                details #{ (id) "-calls" } {
                    summary { "Calls and latencies" }
                    (latencies::of_service(led, &id))
                }
            }
        }
    }
}

/// Shows how far an update is.
fn way(stage: Stage) -> Markup {
    let at = WAY.iter().position(|(known, _)| *known == stage);
    html! {
        @if let Some(at) = at {
            ol.way aria-label="Stages" {
                @for (index, (_, name)) in WAY.iter().enumerate() {
                    @if index == at {
                        li.now aria-current="step" { (name) }
                    } @else {
                        li.(if index < at { "done" } else { "ahead" }) { (name) }
                    }
                }
            }
        } @else {
            p.verdict.mixed { strong { (stage) } }
        }
    }
}

fn fill(used: u64, of: u64, id: &str) -> Markup {
    html! {
        p {
            label for={ (id) "-log" } { "Log in memory " }
            meter #{ (id) "-log" } min="0" max=(of.max(1)) high=(of / 2) value=(used.min(of)) {
                (used * 100 / of.max(1)) " %"
            }
        }
    }
}

fn list(past: &[Past]) -> Markup {
    html! {
        table.numbers {
            caption { "The newest first" }
            thead {
                tr {
                    th scope="col" { "Update" }
                    th scope="col" { "Process" }
                    th scope="col" { "Over" }
                    th scope="col" { "Compared" }
                    th scope="col" { "Outcome" }
                }
            }
            tbody {
                @for past in past {
                    tr {
                        th scope="row" { a href={ "/updates/" (past.update) } { "Update " (past.update) } }
                        td { (past.pid) }
                        td { (time(past.ended_ms)) }
                        td { (count(past.counters.compared_calls)) }
                        td { (verdict(past)) }
                    }
                }
            }
        }
    }
}

/// Returns what is shown where the daemon does not answer.
pub(super) fn unreachable(problem: &Problem) -> String {
    let text = format!("{}: {}", problem.tried, problem.why);
    html! { p.verdict.bad data-told=(text) { strong { "Nothing is known. " } (text) ". " (problem.remedy) "." } }
        .into_string()
}
