//! Updates: where those that are under way stand, and what came of all of them.

use std::collections::BTreeSet;

use super::family::{Family, Kind, Labels, Value, labels};
use crate::control::daemon::Daemon;
use crate::control::events::counts::{OfTarget, PAUSES_US, Pauses};
use crate::control::status::{Status, UpdateStatus};
use crate::lifecycle::Stage;

/// Every stage of an update that is under way.
const STAGES: [Stage; 7] = [
    Stage::SingleLeader,
    Stage::Updating,
    Stage::CatchingUp,
    Stage::Validating,
    Stage::Promoting,
    Stage::UpdatedLeader,
    Stage::RollingBack,
];

pub(super) fn families(daemon: &Daemon, status: &Status) -> Vec<Family> {
    let mut under_way = UnderWay::default();
    let mut names = BTreeSet::new();
    for target in &status.targets {
        // One that is over has an outcome; so long its series last.
        let Some(update) = target.update.as_ref().filter(|update| !update.is_over()) else { continue };
        let name = daemon.shared.names.of(update.asked_pid);
        if names.insert(name.clone()) {
            under_way.add(&name, target.stage, update);
        }
    }
    let counts = daemon.shared.events.counts();
    let mut over = Over::default();
    for (name, of) in &counts.targets {
        over.add(name, of);
    }
    drop(counts);
    under_way.families().into_iter().chain(over.families()).collect()
}

/// What is told of updates that are under way.
struct UnderWay {
    stage: Family,
    in_stage: Family,
    attempt: Family,
    threads: Family,
    backlog: Family,
    log: Family,
    budget: Family,
    growth: Family,
    compared: Family,
    held_back: Family,
    waits: Family,
}

impl Default for UnderWay {
    fn default() -> UnderWay {
        let gauge = |name, help| Family::new(name, help, Kind::Gauge);
        let counter = |name, help| Family::new(name, help, Kind::Counter);
        UnderWay {
            stage: gauge("mvedsua_update_stage", "1 for the stage in which the update is, 0 for the others."),
            in_stage: gauge("mvedsua_update_stage_seconds", "How long the update has been in its stage."),
            attempt: gauge("mvedsua_update_attempt", "Which attempt of the update is under way, from 1."),
            threads: gauge("mvedsua_update_threads", "How many threads the service had when it was forked."),
            backlog: gauge("mvedsua_update_backlog_records", "Records that the follower has not lived through yet."),
            log: gauge("mvedsua_update_log_bytes", "What the log between the versions holds."),
            budget: gauge("mvedsua_update_log_budget_bytes", "What the log between the versions may hold."),
            growth: gauge("mvedsua_update_log_growth_bytes", "How much the log grows in a second."),
            compared: counter(
                "mvedsua_update_compared",
                "What was compared in this attempt: calls, outputs, and bytes of payload.",
            ),
            held_back: counter(
                "mvedsua_update_held_back_seconds",
                "How long the service was held back in this attempt, so that the follower comes close.",
            ),
            waits: gauge("mvedsua_update_waits_for_gate", "1 while the update waits for what a gate says."),
        }
    }
}

impl UnderWay {
    fn add(&mut self, name: &str, stage: Stage, update: &UpdateStatus) {
        let of = || labels([("target", name)]);
        let with = |key: &'static str, value: &str| -> Labels { labels([("target", name), (key, value)]) };
        for known in STAGES {
            self.stage.add(with("stage", &known.to_string()), Value::Count(u64::from(known == stage)));
        }
        self.in_stage.add(of(), Value::Number(update.in_stage_ms as f64 / 1e3));
        self.attempt.add(of(), Value::Count(update.plan.map_or(0, |plan| plan.attempt).into()));
        if let Some(threads) = update.threads {
            self.threads.add(of(), Value::Count(threads.into()));
        }
        let counters = &update.counters;
        self.backlog.add(of(), Value::Count(counters.backlog));
        let log = &update.log;
        for (place, holds, budget) in [("memory", log.memory, log.memory_budget), ("disk", log.disk, log.disk_budget)] {
            self.log.add(with("place", place), Value::Count(holds));
            self.budget.add(with("place", place), Value::Count(budget));
        }
        self.growth.add(of(), Value::Number(log.growth));
        for (what, count) in [
            ("calls", counters.compared_calls),
            ("outputs", counters.compared_outputs),
            ("bytes", counters.compared_bytes),
        ] {
            self.compared.add(with("what", what), Value::Count(count));
        }
        self.held_back.add(of(), Value::Number(counters.held_back_total_us as f64 / 1e6));
        self.waits.add(of(), Value::Count(update.gate.is_some().into()));
    }

    fn families(self) -> Vec<Family> {
        let UnderWay { stage, in_stage, attempt, threads, backlog, log, budget, growth, compared, held_back, waits } =
            self;
        vec![stage, in_stage, attempt, threads, backlog, log, budget, growth, compared, held_back, waits]
    }
}

/// What came of updates since the daemon started.
struct Over {
    started: Family,
    ended: Family,
    retries: Family,
    abandoned: Family,
    taken_over: Family,
    alarms: Family,
    diverged: Family,
    failed: Family,
    gates: Family,
    pauses: Family,
}

impl Default for Over {
    fn default() -> Over {
        let counter = |name, help| Family::new(name, help, Kind::Counter);
        Over {
            started: counter("mvedsua_updates_started", "Updates that have begun."),
            ended: counter("mvedsua_updates_ended", "Updates that are over, by verdict and exit code."),
            retries: counter("mvedsua_update_retries", "How often an update was tried again."),
            abandoned: counter("mvedsua_update_promotions_abandoned", "Promotions that were abandoned."),
            taken_over: counter("mvedsua_update_take_overs", "How often a version took over from one that ended."),
            alarms: counter("mvedsua_update_alarms", "Things that went wrong and that nobody can undo."),
            diverged: counter("mvedsua_update_divergences", "How often the versions parted, by how."),
            failed: counter("mvedsua_update_failures", "Other failures of attempts, by what failed."),
            gates: counter("mvedsua_update_gate_answers", "What gates have answered; `failed` is one that did not."),
            pauses: Family::new(
                "mvedsua_update_pause_seconds",
                "How long services stood still for the fork and for the promotion.",
                Kind::Histogram,
            ),
        }
    }
}

impl Over {
    fn add(&mut self, name: &str, counts: &OfTarget) {
        let of = || labels([("target", name)]);
        let plain = [
            (&mut self.started, counts.started),
            (&mut self.retries, counts.retries),
            (&mut self.abandoned, counts.abandoned),
            (&mut self.taken_over, counts.taken_over),
            (&mut self.alarms, counts.alarms),
        ];
        for (family, count) in plain {
            family.add(of(), Value::Count(count));
        }
        for ((verdict, code), count) in &counts.ended {
            let labels = labels([("target", name), ("verdict", verdict), ("code", &code.to_string())]);
            self.ended.add(labels, Value::Count(*count));
        }
        for (family, by) in [(&mut self.diverged, &counts.diverged), (&mut self.failed, &counts.failed)] {
            for (how, count) in by {
                family.add(labels([("target", name), ("how", how)]), Value::Count(*count));
            }
        }
        for ((gate, answer), count) in &counts.gates {
            self.gates.add(labels([("target", name), ("gate", gate), ("answer", answer)]), Value::Count(*count));
        }
        for (pause, pauses) in [("fork", &counts.forks), ("promotion", &counts.promotions)] {
            self.pauses.add(labels([("target", name), ("for", pause)]), classes(pauses));
        }
    }

    fn families(self) -> Vec<Family> {
        let Over { started, ended, retries, abandoned, taken_over, alarms, diverged, failed, gates, pauses } = self;
        vec![started, ended, retries, abandoned, taken_over, alarms, diverged, failed, gates, pauses]
    }
}

fn classes(pauses: &Pauses) -> Value {
    let bounds = PAUSES_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
    Value::Classes { bounds: bounds.zip(pauses.classes).collect(), sum: pauses.sum.as_secs_f64() }
}
