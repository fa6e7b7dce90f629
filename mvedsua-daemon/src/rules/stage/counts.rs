//! What the rules have done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::super::exec::Performed;
use super::super::program::RuleSet;

/// What a rule has done.
#[derive(Debug, Default)]
struct Tally {
    matched: AtomicU64,
    dropped: AtomicU64,
    rewritten: AtomicU64,
    added: AtomicU64,
    loosened: AtomicU64,
}

/// What one rule has done, for people and programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCount {
    pub rule: String,
    /// How often it matched.
    pub matched: u64,
    /// Recorded calls that the follower need not make.
    pub dropped: u64,
    /// Calls that the follower is to make otherwise.
    pub rewritten: u64,
    /// Calls that only the follower makes.
    pub added: u64,
    /// Calls that are not compared in full; they are no evidence.
    pub loosened: u64,
}

impl std::fmt::Display for RuleCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.matched + self.dropped == 0 {
            return write!(f, "{}: never matched", self.rule);
        }
        write!(f, "{}: matched {} times", self.rule, self.matched)?;
        let parts = [
            (self.dropped, "dropped"),
            (self.rewritten, "rewritten"),
            (self.added, "added"),
            (self.loosened, "not compared in full"),
        ];
        parts.iter().filter(|(count, _)| *count > 0).try_for_each(|(count, what)| write!(f, ", {count} {what}"))
    }
}

/// The counts of all rules; shared with whoever shows them.
#[derive(Debug)]
pub struct Counts {
    pub(super) rules: Arc<RuleSet>,
    tallies: Vec<Tally>,
}

impl Counts {
    /// Starts at zero.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>) -> Counts {
        let tallies = rules.rules.iter().map(|_| Tally::default()).collect();
        Counts { rules, tallies }
    }

    /// Returns the rules that are counted.
    #[must_use]
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Returns what each rule has done so far, in the order of the file.
    #[must_use]
    pub fn read(&self) -> Vec<RuleCount> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let count = |(name, tally): (&str, &Tally)| RuleCount {
            rule: name.to_owned(),
            matched: of(&tally.matched),
            dropped: of(&tally.dropped),
            rewritten: of(&tally.rewritten),
            added: of(&tally.added),
            loosened: of(&tally.loosened),
        };
        self.rules.names().zip(&self.tallies).map(count).collect()
    }

    /// A rule has matched.
    pub(super) fn add(&self, rule: usize, done: &Performed) {
        let Some(tally) = self.tallies.get(rule) else { return };
        tally.matched.fetch_add(1, Ordering::Relaxed);
        tally.dropped.fetch_add(done.dropped as u64, Ordering::Relaxed);
        tally.rewritten.fetch_add(done.rewritten as u64, Ordering::Relaxed);
        tally.added.fetch_add(done.added as u64, Ordering::Relaxed);
        tally.loosened.fetch_add(done.loosened as u64, Ordering::Relaxed);
    }

    /// A call vanished before a rule that skips has matched.
    pub(super) fn skipped(&self, rule: usize) {
        if let Some(tally) = self.tallies.get(rule) {
            tally.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
