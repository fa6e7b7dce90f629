//! What the display knows, as plain data: it is fed with what the daemon says and with keys, and drawn from.

use std::collections::{BTreeMap, VecDeque};

use super::calls::{CallKey, Filter, Sort};
use super::question::{Question, Verb};
use crate::control::protocol::Problem;
use crate::control::status::{Status, TargetStatus, UpdateStatus};
use crate::monitor::StatsSnapshot;

/// How many values a sparkline remembers.
const REMEMBERED: usize = 120;

/// What the daemon said, or that it says nothing.
#[derive(Clone, Debug)]
pub(super) enum Heard {
    Status(Box<Status>),
    /// What was observed of a process, or why that is not known.
    Stats(i32, Result<Box<StatsSnapshot>, Problem>),
    /// The daemon cannot be reached.
    Gone(Problem),
    /// What came of something that was asked for.
    Answered(Verb, Result<(), Problem>),
}

/// Whether the daemon can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// Since when it cannot be reached (Unix time, milliseconds), and why.
    Gone {
        since_ms: u64,
        why: String,
    },
}

/// Whether what is shown follows what the daemon says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Display {
    Live,
    Paused,
}

/// What is shown of the selected process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Calls,
    Update,
}

/// What keys are for at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    Main,
    /// The filter is being typed.
    Filter,
    Help,
    Asking(Question),
    /// Something that has to be read.
    Notice(Notice),
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) title: String,
    pub(super) text: String,
}

/// The last values of something, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Track(VecDeque<f64>);

impl Track {
    fn push(&mut self, value: f64) {
        self.0.push_back(value);
        while self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    /// Returns the last values, at most so many.
    pub(super) fn last(&self, most: usize) -> impl Iterator<Item = f64> + '_ {
        self.0.iter().copied().skip(self.0.len().saturating_sub(most))
    }

    /// Returns the newest value.
    pub(super) fn newest(&self) -> Option<f64> {
        self.0.back().copied()
    }
}

/// Everything that is drawn.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Unix time, milliseconds.
    pub(super) now_ms: u64,
    pub(super) link: Link,
    pub(super) display: Display,
    pub(super) status: Option<Status>,
    pub(super) selected: Option<i32>,
    /// What the operator wants to see; `None` leaves it to what happens.
    pub(super) wanted: Option<Pane>,
    /// What was observed of the selected process.
    pub(super) stats: Option<StatsSnapshot>,
    /// Why nothing is known of it.
    pub(super) unknown: Option<String>,
    /// Calls a second of the selected process, by call.
    pub(super) rates: BTreeMap<CallKey, Track>,
    /// Records that the follower is behind, of the update with this number.
    pub(super) behind: (u64, Track),
    pub(super) cursor: Option<CallKey>,
    pub(super) sort: Sort,
    pub(super) filter: Filter,
    pub(super) focus: Focus,
    /// Something was asked for that is not answered yet.
    pub(super) waits_for: Option<Verb>,
}

impl Model {
    /// Knows nothing yet but which process it is about.
    pub(super) fn new(selected: Option<i32>, now_ms: u64) -> Model {
        Model {
            now_ms,
            link: Link::Up,
            display: Display::Live,
            status: None,
            selected,
            wanted: None,
            stats: None,
            unknown: None,
            rates: BTreeMap::new(),
            behind: (0, Track::default()),
            cursor: None,
            sort: Sort::Time,
            filter: Filter::default(),
            focus: Focus::Main,
            waits_for: None,
        }
    }

    /// Takes what was heard.
    pub(super) fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Gone(problem) => {
                if self.link == Link::Up {
                    let why = format!("{} ({})", problem.why, problem.tried);
                    self.link = Link::Gone { since_ms: self.now_ms, why };
                }
            }
            Heard::Answered(verb, result) => {
                self.waits_for = None;
                let (title, text) = match result {
                    Ok(()) => (format!("{} done", verb.noun()), self.after(verb)),
                    Err(problem) => {
                        let text = format!("{}: {}; {}", problem.tried, problem.why, problem.remedy);
                        (format!("{} not done", verb.noun()), text)
                    }
                };
                self.focus = Focus::Notice(Notice { title, text });
            }
            Heard::Status(status) => {
                self.link = Link::Up;
                if self.display == Display::Live {
                    self.take_status(*status);
                }
            }
            Heard::Stats(pid, stats) => {
                if self.display == Display::Live && self.selected == Some(pid) {
                    self.take_stats(stats.map(|stats| *stats));
                }
            }
        }
    }

    fn after(&self, verb: Verb) -> String {
        match verb {
            Verb::Promote => {
                "the new version leads in the same process; C ends the old one, R returns to it".to_owned()
            }
            Verb::Confirm => "the new version serves alone".to_owned(),
            Verb::RollBack => "the old version serves; `mvedsuad report` says what the update showed".to_owned(),
        }
    }

    fn take_status(&mut self, status: Status) {
        let known = |pid: i32| status.targets.iter().find(|target| target.concerns(pid)).map(|target| target.pid);
        self.selected = match self.selected {
            // A process that is waited for, or that has been forgotten, stays selected.
            Some(pid) => known(pid).or(Some(pid)),
            None => status.targets.first().map(|target| target.pid),
        };
        self.status = Some(status);
        if let Some((id, backlog)) = self.update().map(|update| (update.id, update.counters.backlog)) {
            if self.behind.0 != id {
                self.behind = (id, Track::default());
            }
            #[expect(clippy::cast_precision_loss, reason = "it is drawn in eighths of a line")]
            self.behind.1.push(backlog as f64);
        }
        if let Focus::Asking(question) = &self.focus
            && let Err(why) = question.still_fits(self.target())
        {
            self.focus = Focus::Notice(Notice { title: "nothing was asked for".to_owned(), text: why });
        }
    }

    fn take_stats(&mut self, stats: Result<StatsSnapshot, Problem>) {
        match stats {
            Ok(stats) => {
                self.take_rates(&stats);
                self.stats = Some(stats);
                self.unknown = None;
            }
            Err(problem) => {
                self.stats = None;
                self.unknown = Some(format!("{}; {}", problem.why, problem.remedy));
            }
        }
    }

    /// Says how often each call was made since the last time.
    fn take_rates(&mut self, stats: &StatsSnapshot) {
        let Some(before) = self.stats.as_ref().filter(|before| before.pid == stats.pid) else {
            self.rates.clear();
            return;
        };
        if stats.mode != before.mode || stats.elapsed_ns < before.elapsed_ns {
            self.rates.clear();
            return;
        }
        // When sampled, nothing may have been looked at in between.
        let observed_ns = stats.observed_ns.saturating_sub(before.observed_ns);
        if observed_ns == 0 {
            return;
        }
        let counts = |stats: &StatsSnapshot| -> BTreeMap<CallKey, u64> {
            let calls = stats.processes.iter().flat_map(|process| {
                process.calls.iter().map(|call| (CallKey { pid: process.pid, nr: call.nr }, call.count))
            });
            calls.collect()
        };
        let (earlier, now) = (counts(before), counts(stats));
        self.rates.retain(|key, _| now.contains_key(key));
        for (key, count) in now {
            let more = count.saturating_sub(earlier.get(&key).copied().unwrap_or(0));
            #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
            let rate = more as f64 * 1e9 / observed_ns as f64;
            self.rates.entry(key).or_default().push(rate);
        }
    }

    /// Returns the processes that are known.
    pub(super) fn targets(&self) -> &[TargetStatus] {
        self.status.as_ref().map(|status| status.targets.as_slice()).unwrap_or_default()
    }

    /// Returns the selected process, where it is known.
    pub(super) fn target(&self) -> Option<&TargetStatus> {
        let pid = self.selected?;
        self.targets().iter().find(|target| target.concerns(pid))
    }

    /// Returns the last update of the selected process.
    pub(super) fn update(&self) -> Option<&UpdateStatus> {
        self.target()?.update.as_ref()
    }

    /// Returns what is shown of the selected process: its update while there is one, if nothing else is wanted.
    pub(super) fn pane(&self) -> Pane {
        let observed = self.target().is_some_and(|target| target.monitor.is_some());
        match (self.wanted, self.update()) {
            (Some(Pane::Update), None) | (None, None) | (Some(Pane::Calls), _) => Pane::Calls,
            (Some(Pane::Update), Some(_)) => Pane::Update,
            (None, Some(update)) if update.plan.is_some() || !observed => Pane::Update,
            (None, Some(_)) => Pane::Calls,
        }
    }

    /// Selects another process.
    pub(super) fn select(&mut self, pid: i32) {
        if self.selected != Some(pid) {
            self.selected = Some(pid);
            self.stats = None;
            self.unknown = None;
            self.rates.clear();
            self.cursor = None;
            self.wanted = None;
        }
    }
}
