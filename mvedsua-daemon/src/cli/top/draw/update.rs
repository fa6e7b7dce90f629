//! An update: where it stands, what was compared, both versions' latencies, and what happens next.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::super::model::Model;
use super::text::{clipped, gauge, short, spark, wrapped};
use super::{bad, bar, bold, dim, good, warning};
use crate::cli::size::{bytes, count};
use crate::control::led::{Led, LedCall, Period};
use crate::control::status::{TargetStatus, UpdateStatus};
use crate::lifecycle::{Outcome, Stage};
use crate::monitor::render::duration;

/// Columns of a gauge.
const GAUGE: usize = 8;
/// What stands before a line's text.
const NAME: usize = 10;
/// The most lines of latencies.
const MOST_CALLS: usize = 8;

/// The stages of an update that goes well, and what they are called.
const STAGES: [(Stage, &str); 6] = [
    (Stage::Updating, "updating"),
    (Stage::CatchingUp, "catch-up"),
    (Stage::Validating, "validating"),
    (Stage::Promoting, "promoting"),
    (Stage::UpdatedLeader, "new leads"),
    (Stage::SingleLeader, "confirmed"),
];

pub(super) fn draw(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let Some(target) = model.target() else { return };
    let Some(update) = &target.update else { return };
    let width = usize::from(area.width);
    let mut lines = head(target, update, width);
    let tail = tail(target, update, width);
    let room = usize::from(area.height).saturating_sub(lines.len() + tail.len());
    lines.extend(latencies(model, target, room, width));
    lines.extend(tail);
    for (line, row) in lines.into_iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
    // The sparkline stands at the right end of its line.
    if update.plan.is_some() && area.height > 5 && area.width > 70 {
        let columns = 16_u16;
        let place = Rect { x: area.right() - columns, y: area.y + 4, width: columns, height: 1 };
        let text = spark(model.behind.1.last(usize::from(columns)), usize::from(columns));
        frame.render_widget(Line::styled(text, bar()), place);
    }
}

fn field(name: &str, text: String) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{name:<NAME$}"), dim()), Span::raw(text)])
}

/// Returns what is told in any case: the update, its stages, what was compared, and the log.
fn head(target: &TargetStatus, update: &UpdateStatus, width: usize) -> Vec<Line<'static>> {
    let attempt = update.plan.map_or(String::new(), |plan| {
        format!(", attempt {} of {}", plan.attempt, plan.policy.retries.saturating_add(1))
    });
    let title = format!("update {} of process {} to {}{attempt}", update.id, update.asked_pid, update.to);
    let mut lines = vec![Line::styled(clipped(&title, width), bold())];
    lines.extend(stages(target, update, width));
    let counters = &update.counters;
    let evidence = &update.evidence;
    let enough = if evidence.is_enough() {
        Span::styled("enough", good())
    } else {
        let need = evidence.need;
        Span::styled(format!("needs {}, {}", count(need.min_calls), count(need.min_outputs)), warning())
    };
    let compared = format!(
        "{} calls, {} outputs, {}; ",
        count(counters.compared_calls),
        count(counters.compared_outputs),
        bytes(counters.compared_bytes)
    );
    lines.push(Line::from(vec![Span::styled(format!("{:<NAME$}", "compared"), dim()), Span::raw(compared), enough]));
    if update.plan.is_some() {
        let held = if counters.held_back_us > 0 {
            format!("; {} held back a record", duration(counters.held_back_us.saturating_mul(1000)))
        } else {
            String::new()
        };
        lines.push(field(
            "behind",
            format!("{} of {} records{held}", count(counters.backlog), count(counters.recorded)),
        ));
        lines.push(log(update));
    }
    lines
}

fn log(update: &UpdateStatus) -> Line<'static> {
    let log = &update.log;
    #[expect(clippy::cast_precision_loss, reason = "it is drawn in few columns")]
    let share = |held: u64, budget: u64| if budget == 0 { 0.0 } else { held as f64 / budget as f64 };
    let all = share(log.memory.saturating_add(log.disk), log.memory_budget.saturating_add(log.disk_budget));
    let full = match log.full_in_s.filter(|seconds| seconds.is_finite() && *seconds < 1e5) {
        Some(seconds) => format!("; full in {}", short(Duration::from_secs_f64(seconds.max(0.0)))),
        None => String::new(),
    };
    let text = format!(
        " {}/{} memory, {}/{} disk{full}",
        bytes(log.memory),
        bytes(log.memory_budget),
        bytes(log.disk),
        bytes(log.disk_budget)
    );
    let style = if all >= 0.8 { bad() } else { bar() };
    Line::from(vec![
        Span::styled(format!("{:<NAME$}", "log"), dim()),
        Span::styled(gauge(all, GAUGE), style),
        Span::raw(text),
    ])
}

/// How far a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Past,
    Present,
    ToCome,
    Undone,
}

/// Returns the stages as a line, and how long each lasted as another.
fn stages(target: &TargetStatus, update: &UpdateStatus, width: usize) -> [Line<'static>; 2] {
    let cell = (width / STAGES.len()).min(16);
    let attempt = update.stages.iter().map(|passed| passed.attempt).max().unwrap_or(1);
    let is_over = update.plan.is_none();
    let undone = undone(target, update);
    let (mut names, mut times) = (Line::default(), Line::default());
    for (index, (stage, name)) in STAGES.iter().enumerate() {
        let last = index + 1 == STAGES.len();
        let lasted = lasted(update, *stage, attempt);
        let mark = match (last, lasted) {
            (true, _) if undone.is_some() => Mark::Undone,
            (true, _) if is_over => Mark::Past,
            (true, _) => Mark::ToCome,
            (false, _) if target.stage == *stage && !is_over => Mark::Present,
            (false, Some(_)) => Mark::Past,
            (false, None) => Mark::ToCome,
        };
        let name = if last { undone.unwrap_or(name) } else { name };
        let (glyph, style) = match mark {
            Mark::Past => ("✓", good()),
            Mark::Present => ("▶", bold()),
            Mark::ToCome => ("·", dim()),
            Mark::Undone => ("✗", bad()),
        };
        let room = if last { width.saturating_sub(cell * index) } else { cell.saturating_sub(1) };
        names.push_span(Span::styled(format!("{:<cell$}", clipped(&format!("{glyph} {name}"), room)), style));
        let time = match (mark, lasted) {
            (Mark::Present, _) => short(Duration::from_millis(update.in_stage_ms)),
            (Mark::Past, Some(lasted)) if !last => short(lasted),
            (Mark::Past | Mark::ToCome | Mark::Undone, _) => String::new(),
        };
        let style = if mark == Mark::Present { bold() } else { Style::new() };
        times.push_span(Span::styled(format!("{:<cell$}", format!("  {time}")), style));
    }
    [names, times]
}

/// Returns what became of an update that does not go on as it was meant.
fn undone(target: &TargetStatus, update: &UpdateStatus) -> Option<&'static str> {
    match update.result.as_ref().and_then(|result| result.outcome.as_ref()) {
        Some(Outcome::RolledBack { .. }) => Some("rolled back"),
        Some(Outcome::TargetEnded { .. }) => Some("ended"),
        Some(Outcome::Unsure { .. }) => Some("UNSURE"),
        Some(Outcome::Confirmed { .. } | Outcome::Kept { .. } | Outcome::TookOver { .. }) => None,
        None if target.stage == Stage::RollingBack => Some("rolling back"),
        // It waits for its next attempt.
        None if target.stage == Stage::SingleLeader && update.plan.is_some() => Some("trying again"),
        None => None,
    }
}

/// Returns how long an attempt was in a stage, where it was and has left it.
fn lasted(update: &UpdateStatus, stage: Stage, attempt: u32) -> Option<Duration> {
    let mine =
        update.stages.iter().enumerate().filter(|(_, passed)| passed.attempt == attempt && passed.stage == stage);
    let spans: Vec<u64> = mine
        .filter_map(|(at, passed)| update.stages.get(at + 1).map(|next| next.after_ms.saturating_sub(passed.after_ms)))
        .collect();
    (!spans.is_empty()).then(|| Duration::from_millis(spans.iter().sum()))
}

/// Returns what the operator has to know at the end: rules, what failed, what is waited for, and what happens next.
fn tail(target: &TargetStatus, update: &UpdateStatus, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![];
    let mut told = |name: &str, text: &str, style: Style, most: usize| {
        let room = width.saturating_sub(NAME);
        for (index, line) in wrapped(text, room).into_iter().take(most).enumerate() {
            let name = if index == 0 { name } else { "" };
            lines.push(Line::from(vec![Span::styled(format!("{name:<NAME$}"), dim()), Span::styled(line, style)]));
        }
    };
    let pauses = [("fork", update.fork_pause_us), ("promotion", update.promotion_pause_us)];
    let pauses: Vec<String> = pauses
        .iter()
        .filter_map(|(name, us)| us.map(|us| format!("{name} {}", duration(us.saturating_mul(1000)))))
        .collect();
    if !pauses.is_empty() {
        told("pauses", &pauses.join(", "), Style::new(), 1);
    }
    let matched = update.rules.iter().filter(|rule| rule.matched > 0).count();
    if !update.rules.is_empty() {
        let times: u64 = update.rules.iter().map(|rule| rule.matched).sum();
        told("rules", &format!("{matched} of {} matched, {times} times", update.rules.len()), Style::new(), 1);
    }
    if let Some(what) = &update.waits_for {
        told("waits", what, warning(), 2);
    }
    if let Some(failure) = update.failures.last() {
        told("failed", failure, bad(), 2);
    }
    if let Some(alarm) = &update.alarm {
        told("ALARM", alarm, bad(), 3);
    }
    let over = update.result.as_ref().filter(|result| result.outcome.is_some());
    match over {
        Some(result) => told("result", &result.text, bold(), 3),
        None => {
            let left = [("soak", update.soak_left_ms), ("timeout", update.timeout_left_ms)];
            let left: Vec<String> = left
                .iter()
                .filter_map(|(name, ms)| ms.map(|ms| format!("{name} {}", short(Duration::from_millis(ms)))))
                .collect();
            if !left.is_empty() {
                told("left", &left.join(", "), Style::new(), 1);
            }
            told("next", &target.next, bold(), 3);
        }
    }
    lines
}

/// Returns the latencies of both versions beside each other, in so many lines, the last one empty.
fn latencies(model: &Model, target: &TargetStatus, room: usize, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![];
    if room < 3 {
        return lines;
    }
    if target.monitor.is_none() {
        let text = "not known, nobody observes; `mvedsuad attach PID` before the next one".to_owned();
        return vec![field("latencies", text), Line::raw("")];
    }
    let led = match &model.stats {
        Some(stats) if stats.led.is_empty() => {
            let text = "not known, nobody observed the update from its start".to_owned();
            return vec![field("latencies", text), Line::raw("")];
        }
        Some(stats) => stats.led.as_slice(),
        None => return vec![field("latencies", "not known yet".to_owned()), Line::raw("")],
    };
    let of = |period| led.iter().find(|led: &&Led| led.period == period);
    let new = of(Period::NewLeads);
    let old = of(Period::OldLeads);
    let (left, right) = match (old, new) {
        (_, Some(_)) => ((Period::OldLeads, old), (Period::NewLeads, new)),
        (_, None) => ((Period::Before, of(Period::Before)), (Period::OldLeads, old)),
    };
    let head = |(period, led): (Period, Option<&Led>)| match led {
        Some(_) => period.to_string(),
        None if period == Period::NewLeads => format!("{period}: not yet"),
        None => format!("{period}: not known"),
    };
    let side = side(width);
    lines.push(Line::styled(padded_side("latencies", &head(left), &head(right), side), dim()));
    let columns = format!("{:>9} {:>6} {:>6} {:>6}", "calls", "p50", "p99", "max");
    lines.push(Line::styled(padded_side("call", &columns, &columns, side), dim()));
    let mut names: Vec<&str> = vec![];
    for call in [right.1, left.1].into_iter().flatten().flat_map(|led| &led.calls) {
        if !names.contains(&call.name.as_str()) {
            names.push(&call.name);
        }
    }
    for name in names.into_iter().take(room.saturating_sub(3).min(MOST_CALLS)) {
        let of = |led: Option<&Led>| {
            led.map_or(String::new(), |led| numbers(led.calls.iter().find(|call| call.name == name)))
        };
        lines.push(Line::raw(padded_side(name, &of(left.1), &of(right.1), side)));
    }
    lines.push(Line::raw(""));
    lines
}

/// Returns how many columns each version has.
fn side(width: usize) -> usize {
    (width.saturating_sub(NAME + 6) / 2).min(40)
}

fn padded_side(name: &str, left: &str, right: &str, side: usize) -> String {
    let room = NAME + 5;
    format!("{:<room$} {:<side$}{}", clipped(name, room), clipped(left, side.saturating_sub(1)), clipped(right, side))
}

fn numbers(call: Option<&LedCall>) -> String {
    let Some(call) = call else { return format!("{:>9}", "none") };
    let quantile = |p| call.durations.quantile(p).map_or("-".to_owned(), duration);
    let max = call.durations.longest().map_or("-".to_owned(), duration);
    format!("{:>9} {:>6} {:>6} {max:>6}", short_count(call.count), quantile(0.5), quantile(0.99))
}

fn short_count(number: u64) -> String {
    if number < 10_000_000 { count(number) } else { format!("{}k", count(number / 1000)) }
}
