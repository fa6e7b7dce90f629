//! The status for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::size::{bytes, count};
use crate::control::clock::show_ms;
use crate::control::status::{LogStatus, Role, Status, TargetStatus, UpdateStatus, VersionStatus};
use crate::report::wrap;
use crate::update::Which;

/// How many digits of a build-id are shown.
const BUILD_ID: usize = 16;

/// Returns the status as text.
pub(super) fn render(status: &Status) -> String {
    let mut out = String::new();
    let daemon = &status.daemon;
    let _ = writeln!(out, "daemon {}, version {}, since {}", daemon.pid, daemon.version, show_ms(daemon.started_ms));
    for trouble in &daemon.troubles {
        write_field(&mut out, "TROUBLE", trouble);
    }
    if status.targets.is_empty() {
        out.push_str("nothing is observed and no update is known; `mvedsuad attach <pid>` begins\n");
    }
    for target in &status.targets {
        out.push('\n');
        write_target(&mut out, target);
    }
    out
}

/// What is known of something: a name, and a text.
pub(super) type Fields = Vec<(&'static str, String)>;

fn write_target(out: &mut String, target: &TargetStatus) {
    let _ = writeln!(out, "{}", heading(target));
    for (name, text) in fields(target) {
        write_field(out, name, &text);
    }
}

/// Returns which process it is, and in what stage.
pub(super) fn heading(target: &TargetStatus) -> String {
    let lasted =
        target.update.as_ref().map_or(String::new(), |update| format!("  for {}", short_ms(update.in_stage_ms)));
    format!("process {}  {}{lasted}", target.pid, target.stage)
}

/// Returns what is known of one service.
pub(super) fn fields(target: &TargetStatus) -> Fields {
    let mut out = vec![];
    tell_target(&mut out, target);
    out
}

fn tell_target(out: &mut Fields, target: &TargetStatus) {
    for version in &target.versions {
        // Without an update there is nothing that it is older or newer than.
        let which = target.update.as_ref().map(|_| version.which);
        field(out, role(version), &describe(version, which));
    }
    if let Some(monitor) = &target.monitor {
        field(out, "observed", &format!("mode {}, since {}", monitor.options.mode, show_ms(monitor.attached_at_ms)));
    }
    if let Some(update) = &target.update {
        tell_update(out, update);
    }
    field(out, "next", &target.next);
}

fn tell_update(out: &mut Fields, update: &UpdateStatus) {
    let attempt = update.plan.map_or(String::new(), |plan| {
        format!("; attempt {} of {}", plan.attempt, plan.policy.retries.saturating_add(1))
    });
    let asked = format!(
        "{} of process {} to {}, asked by user {} at {}{attempt}",
        update.id,
        update.asked_pid,
        update.to,
        update.asked_by,
        show_ms(update.asked_ms)
    );
    field(out, "update", &asked);
    if let Some(package) = &update.package {
        field(out, "package", &package.to_string());
    }
    field(out, "policy", &update.terms.to_string());
    let counters = &update.counters;
    let evidence = &update.evidence;
    let enough = if evidence.is_enough() { "enough" } else { "not enough yet" };
    let compared = format!(
        "{} calls, {} outputs, {}; {enough} (needs {} calls, {} outputs)",
        count(counters.compared_calls),
        count(counters.compared_outputs),
        bytes(counters.compared_bytes),
        count(evidence.need.min_calls),
        count(evidence.need.min_outputs)
    );
    field(out, "compared", &compared);
    for rule in &update.rules {
        field(out, "rule", &rule.to_string());
    }
    if update.plan.is_some() {
        field(out, "behind", &format!("{} of {} records", count(counters.backlog), count(counters.recorded)));
        field(out, "recorded", &recorded(update));
        field(out, "answered", &answered(update));
        if counters.held_back_us > 0 {
            let text = format!(
                "{} a record, so that the follower comes close; {} in all",
                micros(counters.held_back_us),
                micros(counters.held_back_total_us)
            );
            field(out, "held back", &text);
        }
        if let Some(slowdown) = &update.slowdown {
            field(out, "cost", &slowdown.to_string());
        }
        field(out, "log", &log(&update.log));
        tell_times(out, update);
    }
    tell_pauses(out, update);
    if let Some(what) = &update.waits_for {
        field(out, "waits", what);
    }
    for failure in &update.failures {
        field(out, "failed", failure);
    }
    if let Some(alarm) = &update.alarm {
        field(out, "ALARM", alarm);
    }
    if let Some(result) = &update.result {
        field(out, "result", &result.text);
    }
}

fn tell_times(out: &mut Fields, update: &UpdateStatus) {
    let soak = update.soak_left_ms.map(|ms| format!("soak time {}", short_ms(ms)));
    let timeout = update.timeout_left_ms.map(|ms| format!("timeout {}", short_ms(ms)));
    let left: Vec<String> = soak.into_iter().chain(timeout).collect();
    if !left.is_empty() {
        field(out, "left", &left.join(", "));
    }
}

fn tell_pauses(out: &mut Fields, update: &UpdateStatus) {
    let fork = update.fork_pause_us.map(|us| {
        let threads = update.threads.map_or(String::new(), |threads| format!(" ({threads} threads)"));
        format!("fork {}{threads}", micros(us))
    });
    let promotion = update.promotion_pause_us.map(|us| format!("promotion {}", micros(us)));
    let pauses: Vec<String> = fork.into_iter().chain(promotion).collect();
    if !pauses.is_empty() {
        field(out, "pauses", &pauses.join(", "));
    }
}

/// Returns the fill of the log in one line.
fn log(log: &LogStatus) -> String {
    let mut text = format!("{} of {} memory", bytes(log.memory), bytes(log.memory_budget));
    let _ = write!(text, ", {} of {} disk", bytes(log.disk), bytes(log.disk_budget));
    if log.growth.abs() >= 1.0 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rounded absolute value")]
        let rate = bytes(log.growth.abs() as u64);
        let _ = write!(text, "; {} {rate}/s", if log.growth > 0.0 { "grows by" } else { "shrinks by" });
    }
    if let Some(seconds) = log.full_in_s.filter(|seconds| seconds.is_finite() && *seconds < 1e6) {
        let _ = write!(text, ", full in {seconds:.0} s");
    }
    text
}

fn role(version: &VersionStatus) -> &'static str {
    match version.role {
        Role::Leader => "leader",
        Role::Follower => "follower",
    }
}

fn describe(version: &VersionStatus, which: Option<Which>) -> String {
    let which = match which {
        Some(Which::Old) => " (old version)",
        Some(Which::New) => " (new version)",
        None => "",
    };
    let exe = version.program.shown();
    let id =
        version.program.build_id.as_deref().map_or("no build-id".to_owned(), |id| {
            format!("build-id {}", id.chars().take(BUILD_ID).collect::<String>())
        });
    let short = |id: &str| id.chars().take(BUILD_ID).collect::<String>();
    let runs: Vec<String> =
        version.runs.iter().map(|runs| format!("{} runs as {}", runs.file, short(&runs.build_id))).collect();
    let runs = if runs.is_empty() { String::new() } else { format!("; {}", runs.join(", ")) };
    format!("{}{which}  {exe}  {id}{runs}", version.pid)
}

/// Says how much of what the leader does is recorded without stopping it.
fn recorded(update: &UpdateStatus) -> String {
    let counters = &update.counters;
    let share = counters.without_stops * 100 / counters.recorded.max(1);
    match &update.why_stepped {
        None => format!("{share} % of the records without a stop of the leader"),
        Some(why) => format!("with stops at each call: {why}"),
    }
}

fn field(out: &mut Fields, name: &'static str, text: &str) {
    out.push((name, text.to_owned()));
}

/// Says how much of what the follower asks is answered without stopping it.
fn answered(update: &UpdateStatus) -> String {
    let counters = &update.counters;
    let answered = &counters.answered;
    let share = answered.without_stops * 100 / counters.compared_calls.max(1);
    match &answered.at_stops {
        None => format!("{share} % of the compared calls without a stop of the follower"),
        Some(why) => format!("at stops: {why}"),
    }
}

fn write_field(out: &mut String, name: &str, text: &str) {
    wrap(out, &format!("  {name:<9} "), text);
}

/// Returns one line that says how far an update is, for a terminal.
pub(super) fn progress(target: &TargetStatus) -> String {
    let Some(update) = &target.update else { return target.stage.to_string() };
    let counters = &update.counters;
    let waits = update.waits_for.as_ref().map_or(String::new(), |what| format!("; it waits {what}"));
    format!(
        "{}  {} behind, {} calls and {} outputs compared; {}{waits}",
        target.stage,
        count(counters.backlog),
        count(counters.compared_calls),
        count(counters.compared_outputs),
        target.next
    )
}

fn short_ms(ms: u64) -> String {
    let rounded = if ms >= 10_000 { ms / 1000 * 1000 } else { ms / 100 * 100 };
    humantime::format_duration(Duration::from_millis(rounded)).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn micros(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1e3)
}
