//! Updates as JSON, for programs that judge a roll-out. Nothing of a payload is in it.

use serde_json::{Value, json};

use crate::control::Code;
use crate::control::clock;
use crate::control::daemon::Daemon;
use crate::control::history::Past;
use crate::control::status::{TargetStatus, UpdateStatus};
use crate::lifecycle::Outcome;

/// How many updates that are over are listed.
const MOST_PAST: usize = 100;

/// Returns those that are under way and the last ones that are over, newest first.
pub(super) fn list(daemon: &Daemon) -> Value {
    let mut all: Vec<(u64, Value)> = under_way(daemon, |_| true);
    let past = daemon.shared.history.find(|_| true, MOST_PAST);
    all.extend(past.iter().map(|past| (past.update, of_past(past))));
    all.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    let updates: Vec<Value> = all.into_iter().map(|(_, update)| update).collect();
    json!({"updates": updates})
}

/// Returns one of them.
pub(super) fn of(daemon: &Daemon, number: u64) -> Option<Value> {
    if let Some((_, update)) = under_way(daemon, |update| update.id == number).pop() {
        return Some(update);
    }
    let past = daemon.shared.history.find(|past| past.update == number, 1);
    past.first().map(of_past)
}

fn under_way(daemon: &Daemon, wanted: impl Fn(&UpdateStatus) -> bool) -> Vec<(u64, Value)> {
    let open = daemon.updates().into_iter().filter_map(|target| {
        let update = target.update.as_ref().filter(|update| !update.is_over() && wanted(update))?;
        Some((update.id, of_status(daemon, &target, update)))
    });
    open.collect()
}

fn of_status(daemon: &Daemon, target: &TargetStatus, update: &UpdateStatus) -> Value {
    let counters = &update.counters;
    json!({
        "update": update.id,
        "target": daemon.shared.names.of(update.asked_pid),
        "pid": target.pid,
        "to": update.to,
        "package": update.package.as_ref().map(|package| &package.name),
        "phase": "running",
        "stage": target.stage,
        "in_stage_ms": update.in_stage_ms,
        "asked_at": clock::show_ms(update.asked_ms),
        "attempt": update.plan.map(|plan| plan.attempt),
        "next": target.next,
        "waits_for_gate": update.gate,
        "compared": {
            "calls": counters.compared_calls, "outputs": counters.compared_outputs, "bytes": counters.compared_bytes,
        },
        "is_enough": update.evidence.is_enough(),
        "backlog": counters.backlog,
        "failures": update.failures,
        "alarm": update.alarm,
        "fork_pause_us": update.fork_pause_us,
        "promotion_pause_us": update.promotion_pause_us,
    })
}

fn of_past(past: &Past) -> Value {
    let counters = &past.counters;
    json!({
        "update": past.update,
        "target": past.target,
        "pid": past.pid,
        "to": past.to,
        "package": past.package.as_ref().map(|package| &package.name),
        "phase": phase(past),
        "code": past.code,
        "outcome": past.outcome.to_string(),
        "asked_at": clock::show_ms(past.asked_ms),
        "ended_at": clock::show_ms(past.ended_ms),
        "attempt": past.attempts,
        "compared": {
            "calls": counters.compared_calls, "outputs": counters.compared_outputs, "bytes": counters.compared_bytes,
        },
        "fork_pause_us": past.fork_pause_us,
        "promotion_pause_us": past.promotion_pause_us,
    })
}

/// Returns the end of an update in the words of analyses.
fn phase(past: &Past) -> &'static str {
    match (&past.outcome, past.code) {
        (Outcome::Confirmed { .. } | Outcome::TookOver { .. }, _) => "successful",
        (_, Code::Inconclusive) => "inconclusive",
        (
            Outcome::RolledBack { .. } | Outcome::Kept { .. } | Outcome::TargetEnded { .. } | Outcome::Unsure { .. },
            _,
        ) => "failed",
    }
}
