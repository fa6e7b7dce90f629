//! The calls of a process: a line each, with a sparkline, and a histogram of the one under the cursor.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::super::calls::{self, CallKey, Row};
use super::super::model::{Model, Track};
use super::text::{EIGHTHS, clipped, padded, spark};
use super::{bar, bold, dim, warning};
use crate::monitor::render::{duration, error_text, grouped, quantile_text, rate};
use crate::monitor::{Bins, CallStats, Mode, ProcessState, ProcessStats, StatsSnapshot};

/// Columns of a sparkline.
const SPARK: usize = 10;
/// Lines of the histogram, with its heading and its axis.
const HISTOGRAM: u16 = 6;
/// Where a pane is lower than this, there is no histogram.
const LOW: u16 = 13;

pub(super) fn draw(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let Some(stats) = &model.stats else { return draw_nothing(model, frame, area) };
    let histogram = if area.height >= LOW { HISTOGRAM } else { 0 };
    let [title, head, table, notes, below] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(if lost(stats).is_some() { 1 } else { 0 }),
        Constraint::Length(histogram),
    ])
    .areas(area);
    frame.render_widget(Line::styled(padded(&heading(model, stats), title.width), bold()), title);
    let columns = format!(
        "  {:<15} {:>9} {:>SPARK$} {:>7} {:>7} {:>7} {:>7} errors",
        "call", "calls/s", "", "p50", "p90", "p99", "max"
    );
    frame.render_widget(Line::styled(columns, dim()), head);
    let rows = calls::rows(stats, &model.filter, model.sort, &model.rates);
    let cursor = calls::cursor(&rows, model.cursor);
    draw_table(model, stats.mode, &rows, cursor, frame, table);
    if let Some(text) = lost(stats) {
        frame.render_widget(Line::styled(padded(&text, notes.width), warning()), notes);
    }
    if let Some(Row::Call(key, call)) = cursor.and_then(|at| rows.get(at)) {
        draw_call(*key, call, frame, below);
    }
}

fn draw_nothing(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let text = match (model.selected, model.target(), &model.unknown) {
        (_, _, Some(why)) => why.clone(),
        (_, Some(target), None) if target.monitor.is_some() => "waiting for the first numbers".to_owned(),
        (_, Some(target), None) => {
            format!("process {} is not observed; `mvedsuad attach {}` begins", target.pid, target.pid)
        }
        (Some(pid), None, None) if model.status.is_some() => {
            format!("process {pid} is neither observed nor updated; `mvedsuad attach {pid}` begins")
        }
        (_, None, None) => String::new(),
    };
    let lines = super::text::wrapped(&text, usize::from(area.width.saturating_sub(4)));
    for (line, row) in lines.into_iter().zip(area.rows().skip(1)) {
        frame.render_widget(Line::raw(format!("  {line}")), row);
    }
}

fn heading(model: &Model, stats: &StatsSnapshot) -> String {
    let elapsed = duration(stats.elapsed_ns);
    let seen = match stats.mode {
        Mode::Exact => format!("exact, all of {elapsed}"),
        Mode::Sampled => format!("sampled, {:.1} % of {elapsed}", stats.observed_share * 100.0),
    };
    let filter = if model.filter.0.is_empty() { String::new() } else { format!(", with \"{}\"", model.filter.0) };
    format!("calls of {} ({}): {seen}; by {}{filter}", stats.name, stats.pid, model.sort.name())
}

fn draw_table(model: &Model, mode: Mode, rows: &[Row<'_>], cursor: Option<usize>, frame: &mut Frame<'_>, area: Rect) {
    let room = usize::from(area.height);
    let first = cursor.map_or(0, |at| (at + 1).saturating_sub(room));
    if rows.is_empty() {
        let text =
            if model.filter.0.is_empty() { "  no call yet" } else { "  no call with that in its name; Esc shows all" };
        frame.render_widget(Line::raw(text), area);
    }
    for ((at, row), place) in rows.iter().enumerate().skip(first).zip(area.rows()) {
        let line = match row {
            Row::Process(process) => process_line(process, area.width),
            Row::Call(key, call) => call_line(call, mode, model.rates.get(key), cursor == Some(at), area.width),
        };
        frame.render_widget(line, place);
    }
}

fn process_line(process: &ProcessStats, width: u16) -> Line<'static> {
    let state = match process.state {
        ProcessState::Running if process.threads == 1 => "1 thread".to_owned(),
        ProcessState::Running => format!("{} threads", process.threads),
        ProcessState::Exited if process.pid == 0 => return Line::styled("processes that ended long ago", dim()),
        ProcessState::Exited => "ended".to_owned(),
    };
    let child = process.parent.map_or_else(String::new, |parent| format!(", child of {parent}"));
    Line::styled(padded(&format!("{} {}, {state}{child}", process.name, process.pid), width), bold())
}

fn call_line(call: &CallStats, mode: Mode, track: Option<&Track>, is_selected: bool, width: u16) -> Line<'static> {
    let about = if mode == Mode::Sampled { "~" } else { "" };
    let now = format!("{about}{}", rate(calls::now(call, track)));
    let drawn = track.map_or_else(|| " ".repeat(SPARK), |track| spark(track.last(SPARK), SPARK));
    let mut times = String::new();
    match &call.latency {
        Some(latency) => {
            for quantile in [latency.p50, latency.p90, latency.p99] {
                times.push_str(&format!(" {:>7}", quantile_text(quantile)));
            }
            let max = if latency.max_ns > 0 { duration(latency.max_ns) } else { "-".to_owned() };
            times.push_str(&format!(" {max:>7}"));
        }
        None => times.push_str(&format!(" {:>7}", "-").repeat(4)),
    }
    let mark = if is_selected { ">" } else { " " };
    let head = format!("{mark} {:<15} {now:>9} ", clipped(&call.name, 15));
    let room = usize::from(width).saturating_sub(head.chars().count() + SPARK + times.chars().count() + 1);
    let errors = clipped(&error_text(call), room);
    let style = if is_selected { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
    Line::from(vec![
        Span::raw(head),
        Span::styled(drawn, if is_selected { Style::new() } else { bar() }),
        Span::raw(format!("{times} ")),
        Span::styled(format!("{errors:<room$}"), if is_selected { Style::new() } else { warning() }),
    ])
    .style(style)
}

/// Says what is missing of the counts.
fn lost(stats: &StatsSnapshot) -> Option<String> {
    let lost = stats.lost;
    let all = [
        (lost.calls, "calls not counted"),
        (lost.processes, "processes counted as their parent"),
        (lost.unfollowed, "processes not followed"),
        (lost.entries, "calls not timed"),
        (lost.skipped, "hooks skipped"),
    ];
    let told: Vec<String> =
        all.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{} {what}", grouped(*count))).collect();
    (!told.is_empty()).then(|| format!("lost: {}", told.join(", ")))
}

/// Draws one call's latencies: how many calls took how long.
fn draw_call(key: CallKey, call: &CallStats, frame: &mut Frame<'_>, area: Rect) {
    if area.height == 0 {
        return;
    }
    let mut text = format!("{} of {}: {} calls", call.name, key.pid, grouped(call.count));
    if let Some(latency) = &call.latency {
        text.push_str(&format!(", p99.9 {}, mean {}", quantile_text(latency.p999), duration(latency.mean_ns)));
    }
    if call.unfinished > 0 {
        text.push_str(&format!(", {} not seen to end", grouped(call.unfinished)));
    }
    let mut rows = area.rows();
    if let Some(row) = rows.next() {
        frame.render_widget(Line::styled(padded(&text, row.width), bold()), row);
    }
    let lines = histogram(&call.durations, usize::from(area.width), usize::from(area.height.saturating_sub(2)));
    for (line, row) in lines.into_iter().zip(rows) {
        frame.render_widget(Line::styled(line, bar()), row);
    }
}

/// Returns the lines of a histogram, the axis last; each octave is a bar.
fn histogram(bins: &Bins, width: usize, height: usize) -> Vec<String> {
    /// What the count at the top takes.
    const LEFT: usize = 9;
    /// The widest bar.
    const BAR: usize = 5;
    let octaves = bins.octaves();
    if octaves.is_empty() || height == 0 || width <= LEFT {
        return vec!["  no call was timed from its entry to its exit".to_owned()];
    }
    let bar = ((width - LEFT) / octaves.len()).clamp(1, BAR);
    let most = octaves.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let mut lines = vec![];
    for level in (0..height).rev() {
        let label = if level + 1 == height { grouped(most) } else { String::new() };
        let mut line = format!("{:>8} ", clipped(&label, 8));
        for (_, count) in &octaves {
            let glyph = eighth(*count, most, height, level);
            line.extend(std::iter::repeat_n(glyph, bar.saturating_sub(usize::from(bar > 1)).max(1)));
            if bar > 1 {
                line.push(' ');
            }
        }
        lines.push(line);
    }
    let mut axis = " ".repeat(LEFT);
    for (at, (octave, _)) in octaves.iter().enumerate() {
        let (column, label) = (LEFT + at * bar, duration(1 << octave));
        if axis.chars().count() <= column && column + label.chars().count() <= width {
            axis.push_str(&" ".repeat(column - axis.chars().count()));
            axis.push_str(&label);
            axis.push(' ');
        }
    }
    lines.push(axis);
    lines
}

/// Returns what a bar shows at a level of the histogram; a count that is not zero is seen.
fn eighth(count: u64, most: u64, height: usize, level: usize) -> char {
    let eighths = (u128::from(count) * height as u128 * 8).div_ceil(u128::from(most));
    let here = eighths.saturating_sub(level as u128 * 8).min(8);
    usize::try_from(here).ok().and_then(|here| EIGHTHS.get(here)).copied().unwrap_or(' ')
}
