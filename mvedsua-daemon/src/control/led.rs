//! What the process that serves did while one version led, and while the other did.
//!
//! The monitor counts from when it was attached on and knows nothing of updates. So an update keeps what was counted when
//! the lead changed, and the differences are what each version did. Nothing is told where nobody observed, or where
//! counting began anew meanwhile.

use crate::lifecycle::State;
use crate::monitor::{Bins, StatsSnapshot};
pub use crate::monitor::{Led, LedCall, Period};
use crate::update::Which;

/// The most calls that are kept of a period, the busiest.
const MOST_CALLS: usize = 24;

/// The periods of an update so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Periods {
    over: Vec<Led>,
    present: Option<Present>,
}

#[derive(Clone, Debug, PartialEq)]
struct Present {
    period: Period,
    /// What was counted when it began; `None` where it began with the counting.
    since: Option<Counted>,
}

/// What was counted up to an instant.
#[derive(Clone, Debug, PartialEq)]
struct Counted {
    taken_at_ns: u64,
    elapsed_ns: u64,
    observed_ns: u64,
    calls: Vec<(u32, Bins)>,
}

impl Counted {
    fn of(snapshot: &StatsSnapshot) -> Counted {
        let own = snapshot.processes.iter().find(|process| process.pid == snapshot.pid);
        let calls = own.into_iter().flat_map(|process| &process.calls);
        Counted {
            taken_at_ns: snapshot.taken_at_ns,
            elapsed_ns: snapshot.elapsed_ns,
            observed_ns: snapshot.observed_ns,
            calls: calls.map(|call| (call.nr, call.durations.clone())).collect(),
        }
    }
}

/// Returns the period that a state belongs to, where it belongs to one.
fn period_of(state: &State) -> Option<Period> {
    match (state, state.run()) {
        (State::SingleLeader { last: None, .. }, None) => Some(Period::Before),
        // What was counted before a later attempt holds the earlier one.
        (State::Updating { plan, .. }, None) => (plan.attempt == 1).then_some(Period::Before),
        (_, Some(run)) => Some(match run.leads {
            Which::Old => Period::OldLeads,
            Which::New => Period::NewLeads,
        }),
        (_, None) => None,
    }
}

impl Periods {
    /// Says whether a state begins another period, so that what was counted is asked for.
    pub(crate) fn change_with(&self, state: &State) -> bool {
        self.present.as_ref().map(|present| present.period) != period_of(state)
    }

    /// Ends the present period, and begins the one that the state belongs to.
    pub(crate) fn turn(&mut self, state: &State, snapshot: Option<&StatsSnapshot>) {
        if let Some(present) = self.present.take() {
            self.over.retain(|led| led.period != present.period);
            self.over.extend(snapshot.and_then(|snapshot| present.until(snapshot)));
        }
        let period = period_of(state);
        if period == Some(Period::OldLeads) {
            // Of an earlier attempt.
            self.over.retain(|led| led.period != Period::NewLeads);
        }
        self.present = match (period, snapshot) {
            (Some(Period::Before), _) => Some(Present { period: Period::Before, since: None }),
            (Some(period), Some(snapshot)) => Some(Present { period, since: Some(Counted::of(snapshot)) }),
            // Nobody observes; whoever attaches later sees a part of it, which would pass for the whole.
            (Some(_) | None, None) | (None, Some(_)) => None,
        };
        self.over.sort_by_key(|led| led.period);
    }

    /// Returns the periods that are over.
    pub(crate) fn over(&self) -> Vec<Led> {
        self.over.clone()
    }

    /// Returns all periods, the present one up to the snapshot.
    pub(crate) fn until(&self, snapshot: &StatsSnapshot) -> Vec<Led> {
        let mut all = self.over.clone();
        if let Some(present) = &self.present {
            all.retain(|led| led.period != present.period);
            all.extend(present.until(snapshot));
            all.sort_by_key(|led| led.period);
        }
        all
    }
}

impl Present {
    /// Returns what was counted in it, or `None` where counting began anew meanwhile.
    fn until(&self, snapshot: &StatsSnapshot) -> Option<Led> {
        let now = snapshot.processes.iter().find(|process| process.pid == snapshot.pid)?;
        let none = Counted { taken_at_ns: 0, elapsed_ns: 0, observed_ns: 0, calls: vec![] };
        let since = self.since.as_ref().unwrap_or(&none);
        if self.since.is_some() && began_anew(since, snapshot) {
            return None;
        }
        let mut calls = vec![];
        for call in &now.calls {
            let before = since.calls.iter().find(|(nr, _)| *nr == call.nr).map(|(_, bins)| bins.clone());
            let durations = call.durations.since(&before.unwrap_or_default())?;
            if durations.total() > 0 {
                calls.push(LedCall { name: call.name.clone(), count: durations.total(), durations });
            }
        }
        calls.truncate(MOST_CALLS);
        Some(Led { period: self.period, observed_ns: snapshot.observed_ns.checked_sub(since.observed_ns)?, calls })
    }
}

/// Says whether the monitor has counted from the same instant on both times.
fn began_anew(before: &Counted, now: &StatsSnapshot) -> bool {
    /// The two are not read at once.
    const SLACK_NS: u64 = 1_000_000_000;
    let passed_ns = now.taken_at_ns.saturating_sub(before.taken_at_ns);
    now.elapsed_ns.saturating_add(SLACK_NS) < before.elapsed_ns.saturating_add(passed_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::{Plan, Policy, Run, Soak};
    use crate::monitor::{CallStats, Lost, Mode, ProcessState, ProcessStats, SlowCalls};

    /// What is known `seconds` after the attach, when so many reads of a microsecond were counted.
    fn snapshot(seconds: u64, reads: u64) -> StatsSnapshot {
        let mut buckets = vec![0; mvedsua_common::histogram::BUCKETS];
        buckets[mvedsua_common::histogram::bucket(1_000)] = reads;
        let call = CallStats {
            nr: 0,
            name: "read".to_owned(),
            count: reads,
            untimed: 0,
            unfinished: 0,
            rate: 0.0,
            rate_interval: None,
            errors: vec![],
            latency: None,
            durations: Bins::of(&buckets),
        };
        let process = ProcessStats {
            pid: 7,
            parent: None,
            name: "served".to_owned(),
            state: ProcessState::Running,
            threads: 1,
            calls: vec![call],
        };
        StatsSnapshot {
            pid: 7,
            name: "served".to_owned(),
            mode: Mode::Exact,
            taken_at_ms: 1_000_000 + seconds * 1000,
            taken_at_ns: 5_000_000_000 + seconds * 1_000_000_000,
            elapsed_ns: seconds * 1_000_000_000,
            observed_ns: seconds * 1_000_000_000,
            observed_share: 1.0,
            confidence: None,
            processes: vec![process],
            slow: SlowCalls::default(),
            lost: Lost::default(),
            led: vec![],
        }
    }

    fn validating(leads: Which) -> State {
        let run = Run { leader: 7, follower: 8, leads, ..Run::default() };
        State::Validating { plan: Plan::new(Policy::default()), run, soak: Soak::Running }
    }

    fn told(led: &[Led]) -> Vec<(Period, u64)> {
        led.iter().map(|led| (led.period, led.calls.iter().map(|call| call.count).sum())).collect()
    }

    #[test]
    fn each_version_is_told_what_was_counted_while_it_led() {
        let mut periods = Periods::default();
        let start = State::Updating { plan: Plan::new(Policy::default()), leader: 7, run: None };
        assert!(periods.change_with(&start));
        periods.turn(&start, None);
        assert!(!periods.change_with(&start));
        periods.turn(&validating(Which::Old), Some(&snapshot(10, 100)));
        assert_eq!(told(&periods.until(&snapshot(12, 130))), [(Period::Before, 100), (Period::OldLeads, 30)]);
        periods.turn(&validating(Which::New), Some(&snapshot(20, 150)));
        periods.turn(&State::new(7), Some(&snapshot(30, 157)));
        let all = [(Period::Before, 100), (Period::OldLeads, 50), (Period::NewLeads, 7)];
        assert_eq!(told(&periods.over()), all);
    }

    #[test]
    fn a_clock_that_is_set_changes_nothing_of_what_was_counted() {
        const HOURS_MS: u64 = 6 * 3_600_000;
        for (before, after) in [(HOURS_MS, 0), (0, HOURS_MS)] {
            let at = |ahead_ms, seconds, reads| {
                let snapshot = snapshot(seconds, reads);
                StatsSnapshot { taken_at_ms: snapshot.taken_at_ms + ahead_ms, ..snapshot }
            };
            let mut periods = Periods::default();
            periods.turn(&validating(Which::Old), Some(&at(before, 60, 100)));
            periods.turn(&validating(Which::New), Some(&at(after, 70, 130)));
            assert_eq!(told(&periods.over()), [(Period::OldLeads, 30)]);
        }
    }

    #[test]
    fn nothing_is_told_of_what_nobody_observed_or_where_counting_began_anew() {
        let mut periods = Periods::default();
        periods.turn(&validating(Which::Old), None);
        assert_eq!(periods.until(&snapshot(3, 9)), [], "it is not known what was before");
        let mut periods = Periods::default();
        periods.turn(&validating(Which::Old), Some(&snapshot(60, 100)));
        let anew = StatsSnapshot { taken_at_ns: snapshot(70, 0).taken_at_ns, ..snapshot(5, 200) };
        assert_eq!(periods.until(&anew), []);
        periods.turn(&validating(Which::New), Some(&anew));
        assert_eq!(periods.over(), []);
    }
}
