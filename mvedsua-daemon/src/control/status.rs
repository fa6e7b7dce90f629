//! What `status` says.

use serde::{Deserialize, Serialize};

use super::Code;
use super::process::Program;
use super::slowdown::Slowdown;
use crate::lifecycle::{Evidence, Outcome, Plan, Stage};
use crate::monitor::TargetInfo;
use crate::package::{PackageInfo, Terms};
use crate::rules::RuleCount;
use crate::update::binary::versions_of;
use crate::update::{Counters, Which};

/// Where everything stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub daemon: DaemonInfo,
    pub targets: Vec<TargetStatus>,
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonInfo {
    pub pid: u32,
    pub version: String,
    pub started_ms: u64,
    /// What is wrong with what it keeps: damaged files, and disks that are full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// The process that serves, or that served last.
    pub pid: i32,
    pub stage: Stage,
    /// Which process runs which version; the leader first.
    pub versions: Vec<VersionStatus>,
    /// How it is observed, where it is.
    pub monitor: Option<TargetInfo>,
    pub update: Option<UpdateStatus>,
    /// What happens next, and what it waits for.
    pub next: String,
}

/// Says which part a process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Leader,
    Follower,
}

/// A process and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionStatus {
    pub pid: i32,
    pub role: Role,
    pub which: Which,
    #[serde(flatten)]
    pub program: Program,
    /// Files that it has mapped and of which it runs another version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunsAs>,
}

/// A file of which another version runs than is mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsAs {
    /// The file's name.
    pub file: String,
    /// The build-id of the version that runs.
    pub build_id: String,
}

impl RunsAs {
    /// Returns the files of which a process runs another version than it has mapped; none where it cannot be read.
    #[must_use]
    pub fn of(pid: i32) -> Vec<RunsAs> {
        let versions = versions_of(pid).unwrap_or_default();
        versions.into_iter().map(|version| RunsAs { file: version.name, build_id: version.runs }).collect()
    }
}

/// The log between leader and follower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogStatus {
    pub memory: u64,
    pub memory_budget: u64,
    pub disk: u64,
    pub disk_budget: u64,
    /// Bytes a second over the last few seconds; negative while it is worked off.
    pub growth: f64,
    /// When it is full at this growth, seconds.
    pub full_in_s: Option<f64>,
}

/// An update that is under way, or the last one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpdateStatus {
    pub id: u64,
    /// The new version, as it was asked for.
    pub to: String,
    /// The package that it is, where it is one.
    pub package: Option<PackageInfo>,
    /// What holds: the operator's wishes over the package's.
    pub terms: Terms,
    pub asked_by: u32,
    pub asked_ms: u64,
    /// The process that was asked to be updated.
    pub asked_pid: i32,
    /// Every process that was leader or follower of it, those that have ended too: an operator knows the service by any.
    pub pids: Vec<i32>,
    /// Policy and attempt, while it is under way.
    pub plan: Option<Plan>,
    pub counters: Counters,
    /// What it costs the service.
    #[serde(default)]
    pub slowdown: Option<Slowdown>,
    /// What each rule did in this attempt.
    #[serde(default)]
    pub rules: Vec<RuleCount>,
    pub evidence: Evidence,
    pub log: LogStatus,
    pub threads: Option<u32>,
    pub fork_pause_us: Option<u64>,
    pub promotion_pause_us: Option<u64>,
    /// How long the stage has lasted, milliseconds.
    pub in_stage_ms: u64,
    /// The stages that it went through, oldest first, the present one last.
    #[serde(default)]
    pub stages: Vec<Passed>,
    /// What is left of the soak time and of the timeout, milliseconds.
    pub soak_left_ms: Option<u64>,
    pub timeout_left_ms: Option<u64>,
    /// What the engine waits for, where that takes long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The gate that the update waits for, and what it has said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// Why the leader stops at each call, where it does so for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_stepped: Option<String>,
    /// What failed so far, in one line each.
    pub failures: Vec<String>,
    /// Something is wrong that nobody can undo.
    pub alarm: Option<String>,
    pub result: Option<ResultStatus>,
}

/// A stage that an update came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    pub stage: Stage,
    /// The attempt, counted from 1.
    pub attempt: u32,
    /// When it came to the stage, milliseconds after it was asked for.
    pub after_ms: u64,
}

/// How an update ended, or that what was asked for is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultStatus {
    pub code: Code,
    pub text: String,
    /// `None` while the update goes on: it is validated and waits for `promote`, or promoted and waits for `confirm`.
    pub outcome: Option<Outcome>,
}

impl UpdateStatus {
    /// Returns whether the update is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.result.as_ref().is_some_and(|result| result.outcome.is_some())
    }
}

impl TargetStatus {
    /// Returns whether this is about the process.
    #[must_use]
    pub fn concerns(&self, pid: i32) -> bool {
        self.pid == pid
            || self.versions.iter().any(|version| version.pid == pid)
            || self.update.as_ref().is_some_and(|update| update.asked_pid == pid || update.pids.contains(&pid))
    }
}
