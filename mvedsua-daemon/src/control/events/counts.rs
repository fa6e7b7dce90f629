//! What the events of this daemon add up to, for each target. The metrics tell it; it lasts as long as the daemon, since the
//! end of an update is when its verdict becomes interesting.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Event, What};

/// How many targets have counts of their own.
const MOST_TARGETS: usize = 256;
/// How many gates of a target, with each of their answers, have counts of their own.
const MOST_GATES: usize = 32;
/// Those that came too late are counted together.
const OTHERS: &str = "(others)";

/// The upper bounds of the classes of pauses, microseconds; longer ones are above the last.
pub(crate) const PAUSES_US: [u64; 13] =
    [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000];

/// How long services stood still.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pauses {
    /// By class, and those above the last class.
    pub(crate) classes: [u64; PAUSES_US.len() + 1],
    pub(crate) sum: Duration,
}

impl Pauses {
    fn add(&mut self, us: u64) {
        let class = PAUSES_US.iter().position(|bound| us <= *bound).unwrap_or(PAUSES_US.len());
        self.classes[class] += 1;
        self.sum += Duration::from_micros(us);
    }
}

/// The updates of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OfTarget {
    pub(crate) started: u64,
    /// By verdict and exit code.
    pub(crate) ended: BTreeMap<(String, u8), u64>,
    pub(crate) retries: u64,
    pub(crate) abandoned: u64,
    pub(crate) taken_over: u64,
    pub(crate) alarms: u64,
    /// By kind.
    pub(crate) diverged: BTreeMap<String, u64>,
    pub(crate) failed: BTreeMap<String, u64>,
    /// By gate and answer.
    pub(crate) gates: BTreeMap<(String, String), u64>,
    pub(crate) forks: Pauses,
    pub(crate) promotions: Pauses,
}

/// Everything together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) targets: BTreeMap<String, OfTarget>,
    /// Events that had to be counted with others, since there were too many targets.
    pub(crate) beyond: u64,
    /// How many events there were.
    pub(crate) events: u64,
    /// How many events readers were too slow for.
    pub(crate) missed: u64,
}

impl Counts {
    pub(super) fn heed(&mut self, event: &Event) {
        self.events += 1;
        let Some(name) = &event.target else { return };
        if matches!(
            event.what,
            What::Attached { .. } | What::ModeChanged { .. } | What::Detached {} | What::Stage { .. }
        ) {
            return;
        }
        let is_known = self.targets.contains_key(name);
        let name = if is_known || self.targets.len() < MOST_TARGETS {
            name.clone()
        } else {
            self.beyond += 1;
            OTHERS.to_owned()
        };
        self.targets.entry(name).or_default().heed(&event.what);
    }
}

impl OfTarget {
    fn heed(&mut self, what: &What) {
        match what {
            What::Asked { .. } => self.started += 1,
            What::Forked { pause_us, .. } => self.forks.add(*pause_us),
            What::Promoted { pause_us, .. } => self.promotions.add(*pause_us),
            What::PromotionAbandoned { .. } => self.abandoned += 1,
            What::TookOver { .. } => self.taken_over += 1,
            What::Diverged { how, .. } => *self.diverged.entry(how.clone()).or_default() += 1,
            What::Failed { how, .. } => *self.failed.entry(how.clone()).or_default() += 1,
            What::Retry { .. } => self.retries += 1,
            What::Gate { gate, answer, .. } => {
                // Whoever asks for updates may name gates.
                let is_known = self.gates.len() < MOST_GATES || self.gates.keys().any(|(known, _)| known == gate);
                let gate = if is_known { gate } else { OTHERS };
                *self.gates.entry((gate.to_owned(), answer.clone())).or_default() += 1;
            }
            What::Alarm { .. } => self.alarms += 1,
            What::Ended { verdict, code, .. } => {
                *self.ended.entry((verdict.clone(), u8::from(*code))).or_default() += 1;
            }
            What::DaemonStarted { .. }
            | What::DaemonEnds {}
            | What::Trouble { .. }
            | What::TroubleOver { .. }
            | What::Attached { .. }
            | What::ModeChanged { .. }
            | What::Detached {}
            | What::Stage { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(target: &str, what: What) -> Event {
        Event { seq: 1, at_ms: 0, update: Some(1), pid: Some(1), target: Some(target.to_owned()), owner: None, what }
    }

    #[test]
    fn pauses_come_into_their_classes() {
        let mut counts = Counts::default();
        for pause_us in [500, 501, 9_000_000] {
            counts.heed(&event("redis", What::Forked { threads: 1, pause_us }));
        }
        let forks = &counts.targets["redis"].forks;
        assert_eq!((forks.classes[0], forks.classes[1], forks.classes[PAUSES_US.len()]), (1, 1, 1));
        assert_eq!(forks.sum, Duration::from_micros(9_001_001));
    }

    #[test]
    fn too_many_targets_are_counted_together() {
        let mut counts = Counts::default();
        for index in 0..MOST_TARGETS + 5 {
            counts.heed(&event(&format!("t{index}"), What::Alarm { text: String::new() }));
        }
        assert_eq!((counts.targets.len(), counts.beyond), (MOST_TARGETS + 1, 5));
        assert_eq!(counts.targets[OTHERS].alarms, 5);
    }
}
