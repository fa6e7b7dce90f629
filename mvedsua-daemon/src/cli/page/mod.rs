//! The report of an update as one page that needs nothing else: no network, no script, no font.
//!
//! Everything that comes from outside goes through maud's escaping; only what is written in this folder does not. A reader
//! without colours, without eyes or without a mouse finds the same: every picture has its numbers in a table.

mod chart;
mod divergence;
pub(super) mod latencies;
#[cfg(test)]
pub(super) mod tests;
mod timeline;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::size::{bytes, count};
use crate::control::clock::show_ms;
use crate::control::history::Past;
use crate::lifecycle::Outcome;
use crate::monitor::render::duration;
use crate::report::{self, Payloads};

/// The page's style.
pub(super) const STYLE: &str = include_str!("style.css");
/// What a browser may load for it: nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Returns the page of an update that is over.
#[must_use]
pub(super) fn page(past: &Past, payloads: Payloads, made_ms: u64) -> String {
    let title = format!("Update {} of process {}", past.update, past.pid);
    let divergences = report::group(super::past::divergences(past));
    let failures: Vec<String> = super::past::other_failures(past).collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) ": " (verdict(past)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "To the content" }
                header {
                    h1 { (title) }
                    p.verdict.(class(past)) { strong { (verdict(past)) } ". " (details(past)) }
                }
                nav aria-label="Sections" {
                    ul {
                        @for (id, name) in SECTIONS {
                            li { a href={ "#" (id) } { (name) } }
                        }
                    }
                }
                main #main {
                    (section("summary", summary(past)))
                    (section("timeline", timeline::timeline(past)))
                    (section("compared", compared(past)))
                    (section("latencies", latencies::latencies(&past.led)))
                    (section("rules", rules(past)))
                    (section("differences", html! {
                        @if failures.is_empty() && divergences.is_empty() {
                            p { "Nothing failed, and no difference was found." }
                        }
                        @if !failures.is_empty() {
                            ul { @for failure in &failures { li { (failure) } } }
                        }
                        @for (index, group) in divergences.iter().enumerate() {
                            (divergence::divergence(index + 1, group, payloads))
                        }
                    }))
                }
                footer {
                    p {
                        "Made by mvedsuad " (env!("CARGO_PKG_VERSION")) " at " (time(made_ms)) ". "
                        @match payloads {
                            Payloads::Redacted => { "Payloads are left out; " code { "--payloads" } " includes them." }
                            Payloads::Shown => { strong { "Payloads are included: they may hold secrets." } }
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

/// The sections: what leads to them, and their headings.
const SECTIONS: [(&str, &str); 6] = [
    ("summary", "Summary"),
    ("timeline", "Timeline and pauses"),
    ("compared", "What was compared"),
    ("latencies", "Calls and latencies"),
    ("rules", "Rules"),
    ("differences", "What failed"),
];

fn section(id: &str, content: Markup) -> Markup {
    let heading = SECTIONS.iter().find(|(known, _)| *known == id).map_or(id, |(_, name)| name);
    html! {
        section #(id) aria-labelledby={ (id) "-heading" } {
            h2 id={ (id) "-heading" } { (heading) }
            (content)
        }
    }
}

/// Returns what came of the update in few words.
pub(super) fn verdict(past: &Past) -> &'static str {
    match past.outcome {
        Outcome::Confirmed { .. } => "Updated",
        Outcome::TookOver { .. } => "Updated: the new version took over",
        Outcome::Kept { .. } => "Updated, but not as asked",
        Outcome::RolledBack { .. } => "Rolled back",
        Outcome::TargetEnded { .. } => "The process ended",
        Outcome::Unsure { .. } => "The service may be harmed",
    }
}

/// Returns the outcome without the words of the verdict that stands before it.
fn details(past: &Past) -> String {
    let outcome = past.outcome.to_string();
    match outcome.split_once(": ") {
        Some((first, rest)) if first.eq_ignore_ascii_case(verdict(past)) => {
            let mut rest = rest.chars();
            rest.next().into_iter().flat_map(char::to_uppercase).chain(rest).collect()
        }
        Some(_) | None => outcome,
    }
}

fn class(past: &Past) -> &'static str {
    match past.outcome {
        Outcome::Confirmed { .. } => "good",
        Outcome::TookOver { .. } | Outcome::Kept { .. } | Outcome::RolledBack { .. } | Outcome::TargetEnded { .. } => {
            "mixed"
        }
        Outcome::Unsure { .. } => "bad",
    }
}

pub(super) fn time(ms: u64) -> Markup {
    let text = show_ms(ms);
    html! { time datetime=(text) { (text) } }
}

/// Returns a table of names and what belongs to them.
pub(super) fn facts(caption: &str, rows: &[(&str, Markup)]) -> Markup {
    html! {
        table.facts {
            caption { (caption) }
            tbody {
                @for (name, value) in rows {
                    tr { th scope="row" { (name) } td { (value) } }
                }
            }
        }
    }
}

/// Encloses what may be wider than the page, so that it can be moved by keys as well.
pub(super) fn wide(label: &str, content: Markup) -> Markup {
    html! { div.wide role="region" aria-label=(label) tabindex="0" { (content) } }
}

fn summary(past: &Past) -> Markup {
    let build_id = past.program.build_id.as_deref().unwrap_or("none");
    let mut rows = vec![
        ("Process", html! { (past.pid) }),
        ("Program", html! { code { (past.program.shown()) } }),
        ("Build-id", html! { code { (build_id) } }),
        ("Next version", html! { code { (past.to) } }),
    ];
    if let Some(package) = &past.package {
        rows.push(("Package", html! { (package) }));
    }
    rows.extend([
        ("Asked for", html! { (time(past.asked_ms)) " by user " (past.asked_by) }),
        ("Over", html! { (time(past.ended_ms)) }),
        ("Took", html! { (took(past.took_ms.unwrap_or(past.ended_ms.saturating_sub(past.asked_ms)))) }),
        ("Attempts", html! { (past.attempts) }),
        ("Exit code", html! { (u8::from(past.code)) ": " (past.code.meaning()) }),
        ("Outcome", html! { (past.outcome) }),
    ]);
    facts("The update", &rows)
}

/// Returns milliseconds as people read them.
fn took(ms: u64) -> String {
    if ms == 0 { "0".to_owned() } else { duration(ms.saturating_mul(1_000_000)) }
}

fn compared(past: &Past) -> Markup {
    let counters = &past.counters;
    let loosened: u64 = past.rules.iter().map(|rule| rule.loosened).sum();
    let dropped: u64 = past.rules.iter().map(|rule| rule.dropped).sum();
    let rows = [
        ("Records of the leader", html! { (count(counters.recorded)) }),
        ("of which the follower has lived through", html! { (count(counters.replayed)) }),
        ("Calls whose arguments were compared", html! { (count(counters.compared_calls)) }),
        ("Outputs whose bytes were compared", html! { (count(counters.compared_outputs)) }),
        ("Bytes compared", html! { (bytes(counters.compared_bytes)) }),
    ];
    let behind = counters.recorded.saturating_sub(counters.replayed);
    html! {
        (facts("Compared in the last attempt", &rows))
        h3 { "What was not compared" }
        ul {
            @if behind > 0 {
                li { (count(behind)) " records that the follower had not lived through when the attempt was over." }
            }
            @if loosened > 0 {
                li { (count(loosened)) " calls that rules do not compare in full." }
            }
            @if dropped > 0 {
                li { (count(dropped)) " calls of the leader that rules let the follower leave out." }
            }
            @if counters.relaxed > 0 {
                li {
                    (count(counters.relaxed)) " times threads went on without each other: what they did to the same memory "
                    "was not ordered."
                }
            }
            li { "What the program computes and says by no call, and what its child processes do: no update compares it." }
        }
    }
}

fn rules(past: &Past) -> Markup {
    if past.rules.is_empty() {
        return html! { p { "No rules allowed for differences." } };
    }
    wide(
        "Rules and how often they matched",
        html! {
            table.numbers {
                caption { "Rules in the last attempt" }
                thead {
                    tr {
                        th scope="col" { "Rule" }
                        th scope="col" { "Matched" }
                        th scope="col" { "Calls dropped" }
                        th scope="col" { "rewritten" }
                        th scope="col" { "added" }
                        th scope="col" { "not compared in full" }
                    }
                }
                tbody {
                    @for rule in &past.rules {
                        tr {
                            th scope="row" { code { (rule.rule) } }
                            td { @if rule.matched + rule.dropped == 0 { "never" } @else { (count(rule.matched)) } }
                            td { (count(rule.dropped)) }
                            td { (count(rule.rewritten)) }
                            td { (count(rule.added)) }
                            td { (count(rule.loosened)) }
                        }
                    }
                }
            }
        },
    )
}
