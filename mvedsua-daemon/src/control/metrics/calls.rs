//! The system calls of what is observed.

use std::collections::{BTreeMap, BTreeSet};

use super::admission::{Admission, Key};
use super::family::{Family, Kind, Value, labels};
use crate::control::daemon::Daemon;
use crate::control::status::{Role, Status};
use crate::monitor::totals::{CLASSES, CallTotals, Totals, bounds_ns};
use crate::monitor::{Lost, ProcessState};

/// How many errors of a call have series of their own; the rarer ones are told together.
const MOST_ERRORS: usize = 8;
/// How many series a call may take: its count, its errors, and its histogram.
const COST: usize = 1 + (MOST_ERRORS + 1) + (CLASSES + 1 + 2);
/// The roles of the processes of a target: a child is one that is no version of an update.
const CHILD: &str = "child";
const LEADER: &str = "leader";
const FOLLOWER: &str = "follower";

/// Returns the families of everything that is observed; at most `room` series are of calls.
pub(super) fn families(daemon: &Daemon, status: &Status, admission: &mut Admission, room: usize) -> Vec<Family> {
    let mut observed = Family::new(
        "mvedsua_observed_seconds",
        "How long calls of the target were looked at: all the time in exact mode, window by window in sampled mode.",
        Kind::Counter,
    );
    let mut attached = Family::new(
        "mvedsua_attached_seconds",
        "How long the target has been observed in its present mode.",
        Kind::Gauge,
    );
    let mut slow = Family::new("mvedsua_slow_calls", "Calls that took longer than the threshold.", Kind::Counter);
    let mut lost = Losses::default();
    let mut names = BTreeSet::new();
    let mut calls: BTreeMap<Key, CallTotals> = BTreeMap::new();
    let mut all: Vec<Totals> = daemon
        .shared
        .observer
        .targets()
        .into_iter()
        .filter_map(|target| daemon.shared.observer.totals(target.pid).ok())
        .collect();
    // Where one has ended and its successor has its name, the one that runs is meant.
    let has_ended = |totals: &Totals| {
        let own = totals.processes.iter().find(|process| process.pid == totals.pid);
        own.is_none_or(|process| process.state == ProcessState::Exited)
    };
    all.sort_by_key(|totals| (has_ended(totals), totals.pid));
    for totals in all {
        lost.heed(&totals);
        let name = daemon.shared.names.of(totals.pid);
        if !names.insert(name.clone()) {
            continue;
        }
        let target = labels([("target", &name)]);
        observed.add(target.clone(), Value::Number(seconds(totals.observed_ns)));
        attached.add(target.clone(), Value::Number(seconds(totals.elapsed_ns)));
        slow.add(target, Value::Count(totals.slow_seen));
        add_calls(&mut calls, &name, &totals, &Roles::of(daemon, status, totals.pid));
    }
    let keys = calls.iter().map(|(key, call)| (key.clone(), call.count)).collect();
    let chosen = admission.choose(keys, room, COST);
    calls.retain(|key, _| chosen.contains(key));
    [observed, attached, slow].into_iter().chain(of_calls(&calls)).chain(lost.families()).collect()
}

/// Who is who in a target.
struct Roles {
    leader: i32,
    /// The follower of the update that is under way.
    follower: Option<i32>,
    /// Followers of updates that are over: their series have ended.
    earlier: BTreeSet<i32>,
}

impl Roles {
    fn of(daemon: &Daemon, status: &Status, pid: i32) -> Roles {
        let target = status.targets.iter().find(|target| target.concerns(pid));
        let versions = target.map(|target| target.versions.as_slice()).unwrap_or_default();
        let follower = versions.iter().find(|version| version.role == Role::Follower).map(|version| version.pid);
        let mut earlier = daemon.followers_of(pid);
        earlier.remove(&pid);
        Roles { leader: pid, follower, earlier }
    }

    fn role(&self, pid: i32) -> Option<&'static str> {
        if pid == self.leader {
            Some(LEADER)
        } else if Some(pid) == self.follower {
            Some(FOLLOWER)
        } else if self.earlier.contains(&pid) {
            None
        } else {
            Some(CHILD)
        }
    }
}

fn add_calls(calls: &mut BTreeMap<Key, CallTotals>, name: &str, totals: &Totals, roles: &Roles) {
    for process in &totals.processes {
        let Some(role) = roles.role(process.pid) else { continue };
        for (call, counted) in &process.calls {
            calls.entry((name.to_owned(), role, call.clone())).or_default().add(counted);
        }
    }
}

fn of_calls(calls: &BTreeMap<Key, CallTotals>) -> [Family; 3] {
    let mut count = Family::new(
        "mvedsua_calls",
        "System calls that were seen; divide their rate by that of mvedsua_observed_seconds_total.",
        Kind::Counter,
    );
    let mut errors =
        Family::new("mvedsua_call_errors", "System calls that were seen to fail, by error.", Kind::Counter);
    let mut durations = Family::new(
        "mvedsua_call_duration_seconds",
        "How long system calls took; those that outlasted their window in sampled mode count as longer than any class.",
        Kind::Histogram,
    );
    let bounds: Vec<f64> = bounds_ns().into_iter().map(seconds).chain([f64::INFINITY]).collect();
    for ((target, role, call), counted) in calls {
        let of = labels([("target", target), ("role", role), ("call", call)]);
        count.add(of.clone(), Value::Count(counted.count));
        for (error, number) in shortened(&counted.errors) {
            let mut of = of.clone();
            of.push(("error", error));
            errors.add(of, Value::Count(number));
        }
        let bounds = bounds.iter().copied().zip(counted.classes).collect();
        durations.add(of, Value::Classes { bounds, sum: seconds(counted.sum_ns) });
    }
    [count, errors, durations]
}

/// Returns the errors; those beyond the first few are told together.
fn shortened(errors: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut own: Vec<(String, u64)> = errors.iter().map(|(error, count)| (error.clone(), *count)).collect();
    if own.len() > MOST_ERRORS {
        let rest: u64 = own.drain(MOST_ERRORS..).map(|(_, count)| count).sum();
        own.push(("rest".to_owned(), rest));
    }
    own
}

/// What the monitor could not keep, of all targets together.
#[derive(Default)]
struct Losses(Lost, u64);

impl Losses {
    fn heed(&mut self, totals: &Totals) {
        // They are counted for all targets together, so each tells the same.
        (self.0, self.1) = (totals.lost, totals.slow_dropped);
    }

    fn families(&self) -> [Family; 1] {
        let mut family =
            Family::new("mvedsua_monitor_lost", "What observing could not keep, by what it is.", Kind::Counter);
        let Lost { calls, processes, unfollowed, entries, skipped } = self.0;
        let all = [
            ("calls", calls),
            ("processes", processes),
            ("unfollowed-processes", unfollowed),
            ("durations", entries),
            ("skipped-hooks", skipped),
            ("slow-calls", self.1),
        ];
        for (what, count) in all {
            family.add(labels([("what", what)]), Value::Count(count));
        }
        [family]
    }
}

#[expect(clippy::cast_precision_loss, reason = "a nanosecond in 100 days is none")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_costs_no_more_series_than_it_may() {
        let errors: BTreeMap<String, u64> = (0..30).map(|index| (format!("E{index:02}"), 2)).collect();
        let counted = CallTotals { count: 60, errors, ..CallTotals::default() };
        let calls = BTreeMap::from([(("redis".to_owned(), LEADER, "read".to_owned()), counted)]);
        let families = of_calls(&calls);
        assert_eq!(families.iter().map(Family::series).sum::<usize>(), COST);
        assert_eq!(families[1].series.last().map(|(_, value)| value.clone()), Some(Value::Count(44)));
    }

    #[test]
    fn followers_of_updates_that_are_over_are_no_children() {
        let roles = Roles { leader: 1, follower: Some(2), earlier: BTreeSet::from([2, 3]) };
        assert_eq!([1, 2, 3, 4].map(|pid| roles.role(pid)), [Some(LEADER), Some(FOLLOWER), None, Some(CHILD)]);
    }
}
