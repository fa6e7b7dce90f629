//! What a daemon might say.

use std::time::Duration;

use mvedsua_common::histogram::{BUCKETS, bucket};

use crate::control::Code;
use crate::control::led::{Led, LedCall, Period};
use crate::control::process::Program;
use crate::control::status::{
    DaemonInfo, LogStatus, Passed, ResultStatus, Role, Status, TargetStatus, UpdateStatus, VersionStatus,
};
use crate::lifecycle::{Cause, Evidence, Outcome, Plan, Policy, Stage, Suspicions};
use crate::monitor::{
    AttachOptions, Bins, Bound, CallStats, ErrorCount, Latency, Lost, Mode, ProcessState, ProcessStats, Quantile,
    SlowCalls, StatsSnapshot, TargetInfo,
};
use crate::package::Wishes;
use crate::rules::RuleCount;
use crate::update::{Counters, FailureKind, Which};

/// 12:30 on some day.
pub(in crate::cli) const NOW_MS: u64 = 1_800_000_000_000 / 86_400_000 * 86_400_000 + 45_000_000;

pub(in crate::cli) fn status(targets: Vec<TargetStatus>) -> Status {
    let daemon = DaemonInfo { pid: 99, version: "0.1.0".to_owned(), started_ms: NOW_MS, troubles: vec![] };
    Status { daemon, targets }
}

pub(in crate::cli) fn observed(pid: i32) -> TargetStatus {
    let options = AttachOptions { mode: Mode::Exact, ..AttachOptions::default() };
    let state = ProcessState::Running;
    let name = "redis-server".to_owned();
    TargetStatus {
        pid,
        stage: Stage::SingleLeader,
        versions: vec![version(pid, Role::Leader, Which::Old)],
        monitor: Some(TargetInfo { pid, name, options, attached_at_ms: NOW_MS, state }),
        update: None,
        next: "nothing; no update is under way".to_owned(),
    }
}

fn version(pid: i32, role: Role, which: Which) -> VersionStatus {
    let program = Program { exe: "/usr/bin/redis-server".to_owned(), build_id: None, started_as: None };
    VersionStatus { pid, role, which, program, runs: vec![] }
}

fn passed(all: &[(Stage, u64)]) -> Vec<Passed> {
    all.iter().map(|&(stage, after_ms)| Passed { stage, attempt: 1, after_ms }).collect()
}

pub(in crate::cli) fn validating(backlog: u64) -> TargetStatus {
    let counters = Counters {
        recorded: 1_234_567,
        replayed: 1_234_500,
        compared_calls: 345_678,
        compared_outputs: 123_456,
        compared_bytes: 12 << 20,
        backlog,
        log_memory: 300 << 20,
        ..Counters::default()
    };
    let plan = Plan::new(Policy::default());
    let update = UpdateStatus {
        id: 3,
        to: "/usr/bin/redis-check-rdb".to_owned(),
        package: None,
        terms: Wishes::default().terms(),
        asked_by: 0,
        asked_ms: NOW_MS,
        asked_pid: 1234,
        pids: vec![1234, 1300],
        plan: Some(plan),
        counters,
        slowdown: None,
        rules: vec![
            RuleCount { rule: "plain-put".to_owned(), matched: 17, rewritten: 17, ..RuleCount::default() },
            RuleCount { rule: "never".to_owned(), ..RuleCount::default() },
        ],
        evidence: Evidence::weigh(plan.policy.thresholds, &Suspicions::default(), &counters),
        log: LogStatus {
            memory: 300 << 20,
            memory_budget: 512 << 20,
            disk: 0,
            disk_budget: 1 << 30,
            growth: 1e6,
            full_in_s: Some(1200.0),
        },
        threads: Some(5),
        fork_pause_us: Some(12_345),
        promotion_pause_us: None,
        in_stage_ms: 8_400,
        stages: passed(&[(Stage::Updating, 0), (Stage::CatchingUp, 300), (Stage::Validating, 1_500)]),
        soak_left_ms: Some(1_600),
        timeout_left_ms: Some(590_000),
        waits_for: None,
        gate: None,
        why_stepped: None,
        failures: vec![],
        alarm: None,
        result: None,
    };
    let mut target = observed(1234);
    target.versions.push(version(1300, Role::Follower, Which::New));
    TargetStatus {
        stage: Stage::Validating,
        update: Some(update),
        next: "`promote` decides; ready once the soak time of 10s is over".to_owned(),
        ..target
    }
}

fn changed(target: TargetStatus, change: impl FnOnce(&mut UpdateStatus)) -> TargetStatus {
    let update = target.update.map(|mut update| {
        change(&mut update);
        update
    });
    TargetStatus { update, ..target }
}

pub(in crate::cli) fn promoted() -> TargetStatus {
    let target = changed(validating(0), |update| {
        update.stages.extend(passed(&[(Stage::Promoting, 12_000), (Stage::UpdatedLeader, 12_100)]));
        update.promotion_pause_us = Some(45_678);
        update.soak_left_ms = None;
        update.timeout_left_ms = None;
        update.rules = vec![];
        update.in_stage_ms = 75_000;
    });
    let next = "`confirm` ends the old version; `rollback` returns to it".to_owned();
    TargetStatus { stage: Stage::UpdatedLeader, next, ..target }
}

pub(in crate::cli) fn undone() -> TargetStatus {
    let cause = Cause::Failed(FailureKind::Engine("write differs from byte 21 of argument 2 (33 bytes)".to_owned()));
    let outcome = Outcome::RolledBack { leader: 1234, cause };
    let target = changed(validating(0), |update| {
        update.plan = None;
        update.stages.extend(passed(&[(Stage::RollingBack, 9_000), (Stage::SingleLeader, 9_050)]));
        update.failures = vec!["write differs from byte 21 of argument 2 (33 bytes)".to_owned()];
        update.result =
            Some(ResultStatus { code: Code::Diverged, text: outcome.to_string(), outcome: Some(outcome.clone()) });
    });
    TargetStatus { stage: Stage::SingleLeader, next: "nothing; no update is under way".to_owned(), ..target }
}

/// Counts so many calls of each duration.
fn bins(durations: &[(u64, u64)]) -> Bins {
    let mut buckets = vec![0; BUCKETS];
    durations.iter().for_each(|&(ns, count)| buckets[bucket(ns)] += count);
    Bins::of(&buckets)
}

fn call(nr: u32, name: &str, count: u64, ns: u64) -> CallStats {
    let quantile = |ns| Quantile { ns, bound: Bound::Value, interval: None };
    CallStats {
        nr,
        name: name.to_owned(),
        count,
        untimed: 0,
        unfinished: 0,
        rate: count as f64 / 12.0,
        rate_interval: None,
        errors: if name == "read" {
            vec![ErrorCount { errno: 11, name: "EAGAIN".to_owned(), count: count / 3 }]
        } else {
            vec![]
        },
        latency: Some(Latency {
            p50: quantile(ns),
            p90: quantile(ns * 2),
            p99: quantile(ns * 8),
            p999: quantile(ns * 30),
            max_ns: ns * 3000,
            mean_ns: ns * 3 / 2,
        }),
        durations: bins(&[
            (ns / 2, count / 10),
            (ns, count / 2),
            (ns * 2, count / 4),
            (ns * 8, count / 50),
            (ns * 30, count / 900),
            (ns * 3000, 1),
        ]),
    }
}

/// What is known so many seconds after the attach.
pub(in crate::cli) fn stats_of(seconds: u64) -> StatsSnapshot {
    let busy = [3, 5, 9, 12, 20, 8, 7, 30, 31, 12, 11, 14, 9];
    let reads: u64 = busy.iter().take(seconds as usize).map(|thousands| thousands * 1000).sum();
    let process = |pid, parent, name: &str, calls| ProcessStats {
        pid,
        parent,
        name: name.to_owned(),
        state: ProcessState::Running,
        threads: 5,
        calls,
    };
    let main = vec![
        call(232, "epoll_wait", reads / 3, 40_000),
        call(1, "write", reads / 2, 9_000),
        call(0, "read", reads, 700),
        call(262, "newfstatat", 3, 2_000),
    ];
    StatsSnapshot {
        pid: 1234,
        name: "redis-server".to_owned(),
        mode: Mode::Exact,
        taken_at_ms: NOW_MS + seconds * 1000,
        taken_at_ns: seconds * 1_000_000_000,
        elapsed_ns: seconds * 1_000_000_000,
        observed_ns: seconds * 1_000_000_000,
        observed_share: 1.0,
        confidence: None,
        processes: vec![
            process(1234, None, "redis-server", main),
            process(1240, Some(1234), "redis-rdb-bgsave", vec![call(1, "write", 20, 9_000)]),
        ],
        slow: SlowCalls::default(),
        lost: Lost::default(),
        led: vec![],
    }
}

fn led(period: Period, factor: u64) -> Led {
    let one = |name: &str, count: u64, ns: u64| {
        let ns = ns * factor;
        let durations = bins(&[(ns, count * 9 / 10), (ns * 4, count / 10), (ns * 900, 1)]);
        LedCall { name: name.to_owned(), count: durations.total(), durations }
    };
    let calls = vec![one("epoll_wait", 12_000, 40_000), one("write", 30_000, 9_000), one("read", 90_000, 700)];
    Led { period, observed_ns: Duration::from_secs(20).as_nanos() as u64, calls }
}

/// What is known while the old version leads.
pub(in crate::cli) fn snapshot() -> StatsSnapshot {
    StatsSnapshot { led: vec![led(Period::Before, 1), led(Period::OldLeads, 5)], ..stats_of(12) }
}

/// What is known when both have led.
pub(in crate::cli) fn snapshot_of_both() -> StatsSnapshot {
    let led = vec![led(Period::Before, 1), led(Period::OldLeads, 5), led(Period::NewLeads, 6)];
    StatsSnapshot { led, ..stats_of(12) }
}
