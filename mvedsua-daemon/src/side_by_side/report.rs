//! What is said of a run.

use std::sync::atomic::Ordering;

use serde::Serialize;
use serde_json::{Value, json};

use crate::compare::Divergence;
use crate::record::Ending;
use crate::replay::following::Tally;
use crate::report::{Payloads, divergence_to_json, headline, render};

/// What a follower has lived through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Followed {
    pub processes: u64,
    pub records: u64,
    pub compared_calls: u64,
    pub compared_outputs: u64,
    pub compared_bytes: u64,
    /// Times that the order across threads was relaxed to let it go on.
    pub relaxed: u64,
}

impl Followed {
    pub(super) fn add(&mut self, tally: &Tally) {
        self.records += tally.replayed.load(Ordering::Relaxed);
        self.compared_calls += tally.calls.load(Ordering::Relaxed);
        self.compared_outputs += tally.outputs.load(Ordering::Relaxed);
        self.compared_bytes += tally.bytes.load(Ordering::Relaxed);
        self.relaxed += tally.relaxed.load(Ordering::Relaxed);
    }
}

/// How a follower ended.
#[derive(Clone, Debug, PartialEq)]
pub enum FollowerEnd {
    /// It has lived through every record of every process, and ended as the leader did.
    Followed,
    /// It parted from the leader, in the twin of this process of the leader's.
    Parted { process: i32, divergence: Box<Divergence> },
    /// The leader crashed with this signal, and it went on in its place.
    TookOver { signo: i32 },
    /// It could not follow; nothing was shown about the version.
    Failed(String),
}

impl FollowerEnd {
    /// Says whether the follower did what followers are for.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, FollowerEnd::Followed | FollowerEnd::TookOver { .. })
    }
}

/// What is said of one follower.
#[derive(Clone, Debug)]
pub struct FollowerReport {
    pub name: String,
    pub end: FollowerEnd,
    pub followed: Followed,
}

/// What is said of a run.
#[derive(Clone, Debug)]
pub struct Report {
    pub leader: Ending,
    /// Set when the run was stopped because a follower was dropped.
    pub stopped: bool,
    /// Why the recording that was asked for is not whole, if it is not.
    pub not_recorded: Option<String>,
    /// What else is to be known: why nobody took over, or what of a process that was taken over is not as it should be.
    pub notes: Vec<String>,
    pub followers: Vec<FollowerReport>,
}

impl FollowerReport {
    /// One word for how it ended; `complete` is the only good one.
    fn outcome(&self) -> &'static str {
        match self.end {
            FollowerEnd::Followed => "complete",
            FollowerEnd::TookOver { .. } => "took-over",
            FollowerEnd::Parted { .. } => "parted",
            FollowerEnd::Failed(_) => "failed",
        }
    }

    pub(super) fn to_json(&self, payloads: Payloads) -> Value {
        let mut value = json!(self.followed);
        value["name"] = json!(self.name);
        value["outcome"] = json!(self.outcome());
        match &self.end {
            FollowerEnd::Followed => {}
            FollowerEnd::TookOver { signo } => value["signal"] = json!(signo),
            FollowerEnd::Parted { process, divergence } => {
                value["reason"] = json!(headline(divergence));
                value["process"] = json!(process);
                value["divergence"] = divergence_to_json(divergence, payloads);
            }
            FollowerEnd::Failed(reason) => value["reason"] = json!(reason),
        }
        value
    }

    pub(super) fn text(&self, number: usize) -> String {
        let Followed { processes, records, compared_calls, compared_outputs, .. } = self.followed;
        let lived = format!(
            "{records} records of {processes} processes, {compared_calls} calls and {compared_outputs} outputs compared"
        );
        let head = format!("follower {number} ({})", self.name);
        match &self.end {
            FollowerEnd::Followed => format!("{head} followed: {lived}\n"),
            FollowerEnd::TookOver { signo } => {
                format!("{head} took over from the leader, which crashed with signal {signo}: {lived}\n")
            }
            FollowerEnd::Parted { process, divergence } => {
                format!(
                    "{head} parted from process {process}: {}\n{lived}\n{}",
                    headline(divergence),
                    render(divergence)
                )
            }
            FollowerEnd::Failed(reason) => format!("{head} was dropped: {reason}\n{lived}\n"),
        }
    }
}

impl Report {
    /// Says whether every follower has followed to the end.
    #[must_use]
    pub fn all_followed(&self) -> bool {
        self.followers.iter().all(|follower| follower.end.is_good())
    }

    /// Returns the report for programs.
    #[must_use]
    pub fn to_json(&self, payloads: Payloads) -> Value {
        let leader = match self.leader {
            Ending::Exited(code) => json!({"exited": code}),
            Ending::Killed(signo) => json!({"killed": signo}),
        };
        let followers: Vec<Value> = self.followers.iter().map(|follower| follower.to_json(payloads)).collect();
        json!({"leader": leader, "stopped": self.stopped, "not_recorded": self.not_recorded, "notes": self.notes, "followers": followers})
    }

    /// Returns the report for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text: String = (1..).zip(&self.followers).map(|(number, one)| one.text(number)).collect();
        text.push_str(&format!("the leader: {}\n", self.leader));
        text
    }
}
