//! The processes: a line each.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;

use super::super::model::Model;
use super::text::{clipped, name_of, padded, short};
use super::{bad, dim};
use crate::cli::size::count;
use crate::control::status::TargetStatus;

pub(super) fn draw(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let targets = model.targets();
    let selected = model.selected.and_then(|pid| targets.iter().position(|target| target.concerns(pid)));
    let room = usize::from(area.height.saturating_sub(1)).max(1);
    // The selected one is in view.
    let first = selected.map_or(0, |at| (at + 1).saturating_sub(room));
    let more = match targets.len().saturating_sub(room) {
        0 => String::new(),
        hidden => format!("  ({hidden} more)"),
    };
    let head = format!(
        "  {:>7} {:<15} {:<27} {:>7} {:>7} {:<8}{more}",
        "PID", "PROGRAM", "STAGE", "FOR", "BEHIND", "OBSERVED"
    );
    let mut lines = vec![Line::styled(padded(&head, area.width), dim())];
    match (targets.is_empty(), &model.status) {
        (true, Some(_)) => {
            lines
                .push(Line::raw("  nothing is observed or updated; `mvedsuad attach PID` begins, in another terminal"));
        }
        (true, None) => lines.push(Line::raw("")),
        (false, _) => {
            let shown = targets.iter().enumerate().skip(first).take(room);
            lines.extend(shown.map(|(at, target)| line(target, selected == Some(at), area.width)));
        }
    }
    for (line, row) in lines.into_iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

fn line(target: &TargetStatus, is_selected: bool, width: u16) -> Line<'static> {
    let name = match (&target.monitor, target.versions.first()) {
        (_, Some(version)) if !version.program.exe.is_empty() => {
            let program = &version.program;
            name_of(program.started_as.as_deref().unwrap_or(&program.exe)).to_owned()
        }
        (Some(monitor), _) => monitor.name.clone(),
        (None, _) => "?".to_owned(),
    };
    let lasted = target.update.as_ref().filter(|update| update.plan.is_some());
    let lasted = lasted.map_or(String::new(), |update| short(Duration::from_millis(update.in_stage_ms)));
    let under_way = target.update.as_ref().filter(|update| update.plan.is_some());
    let behind = under_way.map_or(String::new(), |update| count(update.counters.backlog));
    let observed = target.monitor.as_ref().map_or("-".to_owned(), |monitor| monitor.options.mode.to_string());
    let alarm = target.update.as_ref().and_then(|update| update.alarm.as_ref());
    let mark = if is_selected { ">" } else { " " };
    let text = format!(
        "{mark} {:>7} {:<15} {:<27} {lasted:>7} {behind:>7} {observed:<8}{}",
        target.pid,
        clipped(&name, 15),
        clipped(&target.stage.to_string(), 27),
        if alarm.is_some() { "  ALARM" } else { "" }
    );
    let style = match (alarm.is_some(), is_selected) {
        (true, true) => bad().add_modifier(Modifier::REVERSED),
        (true, false) => bad(),
        (false, true) => Style::new().add_modifier(Modifier::REVERSED),
        (false, false) => Style::new(),
    };
    Line::styled(padded(&text, width), style)
}
