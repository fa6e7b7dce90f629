//! When the update was in which stage, and how long the service stood still.

use maud::{Markup, html};

use super::{facts, took, wide};
use crate::cli::size::count;
use crate::control::history::Past;
use crate::control::status::Passed;
use crate::lifecycle::Stage;
use crate::monitor::render::duration;

/// The picture's size, in its own units.
const WIDTH: f64 = 900.0;
const ROW: f64 = 34.0;
const BAR: f64 = 24.0;
/// What the names of the attempts take.
const LEFT: f64 = 80.0;
const AXIS: f64 = 26.0;
/// How many attempts are drawn; the table has all.
const MOST_ATTEMPTS: usize = 12;

/// A stage from its beginning to the next one.
struct Span {
    stage: Stage,
    attempt: u32,
    from_ms: u64,
    until_ms: u64,
}

pub(super) fn timeline(past: &Past) -> Markup {
    let spans = spans(&past.stages);
    html! {
        @if spans.is_empty() {
            p { "When it was in which stage was not kept." }
        } @else {
            (picture(&spans))
            (wide("Stages", table(&spans)))
        }
        (pauses(past))
    }
}

fn spans(stages: &[Passed]) -> Vec<Span> {
    let pairs = stages.iter().zip(stages.iter().skip(1));
    pairs
        .map(|(now, next)| Span {
            stage: now.stage,
            attempt: now.attempt,
            from_ms: now.after_ms,
            until_ms: next.after_ms,
        })
        .collect()
}

/// Returns what a stage is called where there is little room.
fn short(stage: Stage) -> &'static str {
    match stage {
        Stage::SingleLeader => "waiting",
        Stage::Updating => "updating",
        Stage::CatchingUp => "catching up",
        Stage::Validating => "validating",
        Stage::Promoting => "promoting",
        Stage::UpdatedLeader => "new version leads",
        Stage::RollingBack => "rolling back",
        Stage::Ended => "ended",
    }
}

fn class(stage: Stage) -> &'static str {
    match stage {
        Stage::Updating | Stage::CatchingUp => "prepares",
        Stage::Validating => "old-leads",
        Stage::Promoting => "moves",
        Stage::UpdatedLeader => "new-leads",
        Stage::RollingBack => "undoes",
        Stage::SingleLeader | Stage::Ended => "rests",
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is drawn in some hundred columns")]
fn picture(spans: &[Span]) -> Markup {
    let mut attempts: Vec<u32> = spans.iter().map(|span| span.attempt).collect();
    attempts.dedup();
    let hidden = attempts.len().saturating_sub(MOST_ATTEMPTS);
    attempts.truncate(MOST_ATTEMPTS);
    let end = spans.iter().map(|span| span.until_ms).max().unwrap_or(0).max(1);
    let at = |ms: u64| LEFT + ms as f64 / end as f64 * (WIDTH - LEFT - 10.0);
    let height = attempts.len() as f64 * ROW + AXIS;
    let text = format!(
        "The stages of the update from left to right, a row for each attempt, {} in all; the table below has the numbers.",
        took(end)
    );
    html! {
        figure {
            svg role="img" aria-labelledby="timeline-title timeline-text" viewBox={ "0 0 " (WIDTH) " " (height) } {
                title #timeline-title { "Timeline" }
                desc #timeline-text { (text) }
                @for (row, attempt) in attempts.iter().enumerate() {
                    @let y = row as f64 * ROW;
                    text.label x="0" y={ (y + 17.0) } { "attempt " (attempt) }
                    @for span in spans.iter().filter(|span| span.attempt == *attempt) {
                        @let x = at(span.from_ms);
                        // A stage that was short is seen, too.
                        @let width = (at(span.until_ms) - x).max(2.0);
                        rect .{ "stage " (class(span.stage)) } x=(round(x)) y=(round(y)) width=(round(width)) height=(BAR) {
                            title { (span.stage) ": " (took(span.until_ms - span.from_ms)) }
                        }
                        @if width > short(span.stage).len() as f64 * 7.5 + 8.0 {
                            text.on-stage x=(round(x + 6.0)) y=(round(y + 17.0)) { (short(span.stage)) }
                        }
                    }
                }
                @for quarter in 0..=4_u64 {
                    @let ms = end * quarter / 4;
                    text.axis x=(round(at(ms))) y=(round(height - 6.0))
                        text-anchor=(if quarter == 0 { "start" } else if quarter == 4 { "end" } else { "middle" }) {
                        (took(ms))
                    }
                }
            }
            figcaption {
                "Time since the update was asked for."
                @if hidden > 0 { " " (hidden) " more attempts are in the table." }
            }
        }
    }
}

fn round(value: f64) -> String {
    format!("{value:.1}")
}

fn table(spans: &[Span]) -> Markup {
    html! {
        table.numbers {
            caption { "Stages" }
            thead {
                tr {
                    th scope="col" { "Stage" }
                    th scope="col" { "Attempt" }
                    th scope="col" { "Began after" }
                    th scope="col" { "Lasted" }
                }
            }
            tbody {
                @for span in spans {
                    tr {
                        th scope="row" { (span.stage) }
                        td { (span.attempt) }
                        td { (took(span.from_ms)) }
                        td { (took(span.until_ms - span.from_ms)) }
                    }
                }
            }
        }
    }
}

fn pauses(past: &Past) -> Markup {
    let pause = |us: Option<u64>| match us {
        Some(us) => html! { (duration(us.saturating_mul(1000))) },
        None => html! { "none" },
    };
    let held = past.counters.held_back_total_us;
    let mut rows = vec![("Fork", pause(past.fork_pause_us)), ("Promotion", pause(past.promotion_pause_us))];
    if held > 0 {
        let text = format!("{} over {} records", duration(held.saturating_mul(1000)), count(past.counters.recorded));
        rows.push(("Held back, so that the follower comes close", html! { (text) }));
    }
    facts("How long the service stood still, in the last attempt", &rows)
}
