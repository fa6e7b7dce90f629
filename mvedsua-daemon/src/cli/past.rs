//! `history` and `report`.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::json;

use super::args::{Cli, HistoryArgs, ReportArgs};
use super::client::{Client, mismatched};
use super::size::{bytes, count};
use super::table::{Lean, Table};
use super::{out, page, target};
use crate::compare::Divergence;
use crate::control::Code;
use crate::control::clock::{now_ms, show_ms};
use crate::control::history::Past;
use crate::control::process::Wanted;
use crate::control::protocol::{Answer, Problem, Request};
use crate::lifecycle::{Cause, Outcome};
use crate::report::{self, Payloads};
use crate::rules;
use crate::update::FailureKind;

pub(super) fn history(cli: &Cli, args: &HistoryArgs) -> Result<Code, Problem> {
    let mut client = Client::connect(&cli.place.dirs())?;
    let pid = pid_of(&args.target, "looking at the history")?;
    let past = match client.ask(Request::History { pid, limit: args.limit })? {
        Answer::History(past) => past,
        other => return Err(mismatched(&other)),
    };
    if cli.json {
        out::json(&past.iter().map(|past| to_json(past, Payloads::Redacted)).collect::<Vec<_>>());
        return Ok(Code::Done);
    }
    if past.is_empty() {
        out::text("no update has ended yet\n");
        return Ok(Code::Done);
    }
    let mut table = Table::new(&[
        ("update", Lean::Right),
        ("ended", Lean::Left),
        ("process", Lean::Right),
        ("tries", Lean::Right),
        ("compared", Lean::Right),
        ("code", Lean::Right),
        ("outcome", Lean::Left),
    ]);
    for past in &past {
        // What is left of the line of 100 columns.
        const ROOM: usize = 38;
        let text = match &past.package {
            Some(package) => format!("{}: {}", package.name, short(&past.outcome)),
            None => short(&past.outcome),
        };
        let cut: String =
            if text.chars().count() > ROOM { text.chars().take(ROOM - 1).chain(['…']).collect() } else { text };
        table.row([
            past.update.to_string(),
            show_ms(past.ended_ms),
            past.pid.to_string(),
            past.attempts.to_string(),
            count(past.counters.compared_calls),
            u8::from(past.code).to_string(),
            cut,
        ]);
    }
    out::text(&table.render(""));
    Ok(Code::Done)
}

/// Returns the outcome without what the other columns say.
fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::RolledBack { cause, .. } => format!("rolled back; {cause}"),
        Outcome::Confirmed { leader } => format!("updated, {leader} serves"),
        Outcome::Kept { leader, cause } => format!("updated, {leader} serves; {cause}"),
        Outcome::TookOver { leader, .. } => format!("old one crashed, {leader} took over"),
        Outcome::TargetEnded { .. } | Outcome::Unsure { .. } => outcome.to_string(),
    }
}

/// Returns the process that is named; it may have ended long ago.
fn pid_of(args: &super::args::TargetArgs, doing: &str) -> Result<Option<i32>, Problem> {
    match args.wanted() {
        None => Ok(None),
        Some(Wanted::Pid(pid)) => Ok(Some(pid)),
        Some(_) => target::find(args, doing).map(Some),
    }
}

pub(super) fn report(cli: &Cli, args: &ReportArgs) -> Result<Code, Problem> {
    let mut client = Client::connect(&cli.place.dirs())?;
    let pid = pid_of(&args.target, "looking for the report")?;
    let past = match client.ask(Request::Report { pid, update: args.update })? {
        Answer::Report(past) => past,
        other => return Err(mismatched(&other)),
    };
    let payloads = if args.payloads { Payloads::Shown } else { Payloads::Redacted };
    if let Some(file) = &args.html {
        let Some(past) = past.first() else { return Err(mismatched(&Answer::Report(past))) };
        return write_page(file, &page::page(past, payloads, now_ms()), payloads, past.update);
    }
    for past in &past {
        if cli.json {
            out::json(&to_json(past, payloads));
        } else {
            out::text(&to_text(past));
        }
    }
    Ok(Code::Done)
}

/// Writes the page to a file, or to standard output where that is `-`.
fn write_page(file: &Path, page: &str, payloads: Payloads, update: u64) -> Result<Code, Problem> {
    if file == Path::new("-") {
        out::text(page);
        return Ok(Code::Done);
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    if payloads == Payloads::Shown {
        // They are the service's secrets.
        options.mode(0o600);
    }
    let written = options.open(file).and_then(|mut opened| opened.write_all(page.as_bytes()));
    written.map_err(|e| {
        let tried = format!("writing the report to {}", file.display());
        Problem::new(Code::Usage, tried, e.to_string(), "choose a file that may be written, or `-`")
    })?;
    out::text(&format!("the report of update {update} is in {}; any browser shows it\n", file.display()));
    Ok(Code::Done)
}

/// Returns the divergences of an update, attempt by attempt.
pub(super) fn divergences(past: &Past) -> impl Iterator<Item = &Divergence> {
    past.failures.iter().filter_map(|failure| match failure {
        FailureKind::Diverged(divergence) => Some(&**divergence),
        FailureKind::Refused(_)
        | FailureKind::LogFull(_)
        | FailureKind::MemoryShort(_)
        | FailureKind::TimedOut(_)
        | FailureKind::Lost(_)
        | FailureKind::TargetGone(_)
        | FailureKind::NotApplied(_)
        | FailureKind::Asked(_)
        | FailureKind::Engine(_)
        | FailureKind::Harmed(_) => None,
    })
}

/// Returns what else failed, attempt by attempt.
pub(super) fn other_failures(past: &Past) -> impl Iterator<Item = String> {
    let others = past.failures.iter().filter(|failure| !matches!(failure, FailureKind::Diverged(_)));
    others.map(|failure| Cause::Failed(failure.clone()).to_string())
}

fn to_text(past: &Past) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "update {} of process {} to {}", past.update, past.pid, past.to);
    let mut field = |name: &str, text: &str| report::wrap(&mut out, &format!("  {name:<9} "), text);
    let build_id = past.program.build_id.as_deref().unwrap_or("none");
    field("program", &format!("{} build-id {build_id}", past.program.shown()));
    if let Some(package) = &past.package {
        field("package", &package.to_string());
    }
    field("asked", &format!("by user {} at {}", past.asked_by, show_ms(past.asked_ms)));
    field(
        "ended",
        &format!("{} after {} attempts, code {}", show_ms(past.ended_ms), past.attempts, u8::from(past.code)),
    );
    field("outcome", &past.outcome.to_string());
    let counters = &past.counters;
    let compared = format!(
        "{} calls, {} outputs, {}",
        count(counters.compared_calls),
        count(counters.compared_outputs),
        bytes(counters.compared_bytes)
    );
    field("compared", &compared);
    if let Some(slowdown) = &past.slowdown {
        field("cost", &slowdown.to_string());
    }
    for rule in &past.rules {
        field("rule", &rule.to_string());
    }
    let pause = |us: Option<u64>| us.map_or("none".to_owned(), |us| format!("{}.{:02} ms", us / 1000, us % 1000 / 10));
    field("pauses", &format!("fork {}, promotion {}", pause(past.fork_pause_us), pause(past.promotion_pause_us)));
    for failure in other_failures(past) {
        field("failed", &failure);
    }
    for group in report::group(divergences(past)) {
        out.push('\n');
        if group.count > 1 {
            let _ = writeln!(out, "{} times alike:", group.count);
        }
        out.push_str(&report::render(group.example));
        if let Some(rule) = rules::propose(group.example) {
            out.push_str("  if this is meant, this rule allows for it (`mvedsuad update … --rules FILE`)\n\n");
            out.push_str(&rule);
        }
    }
    out
}

fn to_json(past: &Past, payloads: Payloads) -> serde_json::Value {
    let groups: Vec<_> = report::group(divergences(past))
        .iter()
        .map(|group| {
            // It quotes payloads.
            let rule = if payloads == Payloads::Shown { rules::propose(group.example) } else { None };
            json!({
                "count": group.count, "divergence": report::divergence_to_json(group.example, payloads),
                "proposed_rule": rule,
            })
        })
        .collect();
    json!({
        "update": past.update, "pid": past.pid, "owner": past.owner, "program": past.program, "to": past.to,
        "package": past.package,
        "asked_by": past.asked_by, "asked_ms": past.asked_ms, "ended_ms": past.ended_ms, "attempts": past.attempts,
        "fork_pause_us": past.fork_pause_us, "promotion_pause_us": past.promotion_pause_us,
        "counters": past.counters, "slowdown": past.slowdown, "rules": past.rules, "code": past.code, "outcome": past.outcome.to_string(),
        "failures": other_failures(past).collect::<Vec<_>>(), "divergences": groups,
    })
}
