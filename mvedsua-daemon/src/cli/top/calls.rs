//! The calls of a process in the order and the selection in which they are shown.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::model::Track;
use crate::monitor::{CallStats, ProcessStats, StatsSnapshot};

/// A call of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallKey {
    pub(super) pid: i32,
    pub(super) nr: u32,
}

/// By what calls are ordered; what is largest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// Time spent in the kernel, as the daemon says it.
    Time,
    Rate,
    P99,
    Longest,
    Errors,
    Name,
}

impl Sort {
    /// Returns the one that comes next.
    pub(super) fn next(self) -> Sort {
        match self {
            Sort::Time => Sort::Rate,
            Sort::Rate => Sort::P99,
            Sort::P99 => Sort::Longest,
            Sort::Longest => Sort::Errors,
            Sort::Errors => Sort::Name,
            Sort::Name => Sort::Time,
        }
    }

    /// Returns what it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Sort::Time => "time",
            Sort::Rate => "calls/s",
            Sort::P99 => "p99",
            Sort::Longest => "max",
            Sort::Errors => "errors",
            Sort::Name => "name",
        }
    }
}

/// A part of a call's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter(pub(super) String);

impl Filter {
    fn takes(&self, call: &CallStats) -> bool {
        call.name.contains(&self.0)
    }
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Row<'a> {
    Process(&'a ProcessStats),
    Call(CallKey, &'a CallStats),
}

/// Returns the lines of the table: each process, where there are several, and its calls.
pub(super) fn rows<'a>(
    stats: &'a StatsSnapshot,
    filter: &Filter,
    sort: Sort,
    rates: &BTreeMap<CallKey, Track>,
) -> Vec<Row<'a>> {
    let mut rows = vec![];
    for process in &stats.processes {
        let key = |call: &CallStats| CallKey { pid: process.pid, nr: call.nr };
        let mut calls: Vec<&CallStats> = process.calls.iter().filter(|call| filter.takes(call)).collect();
        let rate = |call: &CallStats| now(call, rates.get(&key(call)));
        calls.sort_by(|a, b| match sort {
            Sort::Time => Ordering::Equal,
            Sort::Rate => rate(b).total_cmp(&rate(a)),
            Sort::P99 => quantile(b).cmp(&quantile(a)),
            Sort::Longest => longest(b).cmp(&longest(a)),
            Sort::Errors => errors(b).cmp(&errors(a)),
            Sort::Name => a.name.cmp(&b.name),
        });
        if stats.processes.len() > 1 && (!calls.is_empty() || filter.0.is_empty()) {
            rows.push(Row::Process(process));
        }
        rows.extend(calls.into_iter().map(|call| Row::Call(key(call), call)));
    }
    rows
}

/// Returns the calls a second: of the last interval, or of all time where there was none.
pub(super) fn now(call: &CallStats, track: Option<&Track>) -> f64 {
    track.and_then(Track::newest).unwrap_or(call.rate)
}

fn quantile(call: &CallStats) -> u64 {
    call.latency.map_or(0, |latency| latency.p99.ns)
}

fn longest(call: &CallStats) -> u64 {
    call.latency.map_or(0, |latency| latency.max_ns)
}

fn errors(call: &CallStats) -> u64 {
    call.errors.iter().map(|error| error.count).sum()
}

/// Returns where the cursor stands: on its call, or on the first one.
pub(super) fn cursor(rows: &[Row<'_>], wanted: Option<CallKey>) -> Option<usize> {
    let is = |row: &Row<'_>, key| matches!(row, Row::Call(at, _) if *at == key);
    let found = wanted.and_then(|key| rows.iter().position(|row| is(row, key)));
    found.or_else(|| rows.iter().position(|row| matches!(row, Row::Call(..))))
}

/// Returns the call that lies so many calls after (or before) the cursor.
pub(super) fn moved(rows: &[Row<'_>], wanted: Option<CallKey>, by: isize) -> Option<CallKey> {
    let calls: Vec<CallKey> = rows
        .iter()
        .filter_map(|row| match row {
            Row::Call(key, _) => Some(*key),
            Row::Process(_) => None,
        })
        .collect();
    let at = wanted.and_then(|key| calls.iter().position(|call| *call == key)).unwrap_or(0);
    calls.get(at.saturating_add_signed(by).min(calls.len().saturating_sub(1))).copied()
}
