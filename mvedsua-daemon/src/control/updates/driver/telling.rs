//! What a driver writes down and what it lets others see.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Driver;
use crate::control::Code;
use crate::control::audit::Line;
use crate::control::journal::{FORMAT, JournalEntry, boot_id};
use crate::control::process::{self, ProcessId};
use crate::control::status::{LogStatus, Passed, RunsAs, TargetStatus, UpdateStatus};
use crate::control::updates::view::{View, result_of, versions_of};
use crate::lifecycle::{self, Evidence, Stage, State, Timer};
use crate::package::{BuildId, Method, PackageInfo};
use crate::update::binary::FileChange;
use crate::update::{FailureKind, Which};

impl Driver {
    pub(super) fn audit(&self, what: &str, code: Code, verdict: String) {
        // Nothing waits for it: what is done next must not depend on a disk.
        let _ = self.shared.audit.write(Line {
            at: String::new(),
            who: None,
            what: what.to_owned(),
            pid: Some(self.asked.process.pid),
            update: Some(self.asked.id),
            to: None,
            package: self.package_info(),
            code,
            verdict,
        });
    }

    pub(super) fn package_info(&self) -> Option<PackageInfo> {
        let package = self.asked.package.as_ref().map(|package| package.info.clone());
        package.or_else(|| of_files(&self.asked.files))
    }

    pub(super) fn remember(&mut self) {
        if let Some(plan) = self.state.plan() {
            self.last.attempts = plan.attempt;
        }
        if let Some(run) = self.state.run() {
            self.last.threads = Some(run.threads);
            self.last.fork_pause_us = Some(run.fork_pause_us);
            for pid in [run.leader, run.follower] {
                self.programs.entry(pid).or_insert_with(|| process::program_of(pid));
            }
        }
        if let State::UpdatedLeader { pause_us, .. } = self.state {
            self.last.promotion_pause_us = Some(pause_us);
        }
    }

    /// Keeps when the update came to the present stage.
    pub(super) fn pass(&mut self) {
        /// An update that is tried again and again is told with its beginning and its end.
        const MOST: usize = 256;
        if self.stages.len() >= MOST {
            self.stages.remove(1);
        }
        let attempt = self.state.plan().map_or(self.last.attempts, |plan| plan.attempt).max(1);
        let after_ms = millis(self.asked_at.elapsed());
        self.stages.push(Passed { stage: self.state.stage(), attempt, after_ms });
    }

    /// Keeps what was observed of the process where another version leads than before.
    pub(super) fn turn(&mut self) {
        if self.periods.change_with(&self.state) {
            let snapshot = self.shared.observer.stats(self.asked.process.pid).ok();
            self.periods.turn(&self.state, snapshot.as_ref());
        }
    }

    pub(super) fn entry(&self, stage: Stage) -> JournalEntry {
        let leader = self.state.serving().unwrap_or(self.asked.process.pid);
        let identify = |pid: i32| {
            if pid == self.asked.process.pid { Some(self.asked.process) } else { ProcessId::of(pid).ok() }
        };
        JournalEntry {
            v: FORMAT,
            update: self.asked.id,
            stage,
            boot: boot_id(),
            target: self.asked.process,
            uid: self.asked.by.uid,
            leader: identify(leader).unwrap_or(self.asked.process),
            follower: self.state.run().and_then(|run| identify(run.follower)),
            spill_dir: self.shared.dirs.spill(),
            asked_ms: self.asked_ms,
            to: self.asked.to.clone(),
            package: self.package_info(),
        }
    }

    pub(super) fn journal(&mut self) {
        if self.state.is_settled() {
            return;
        }
        let known = self
            .journalled
            .as_ref()
            .map(|entry| (entry.stage, entry.leader.pid, entry.follower.map(|follower| follower.pid)));
        let now = (self.state.stage(), self.state.serving().unwrap_or(0), self.state.run().map(|run| run.follower));
        if known == Some(now) {
            return;
        }
        let entry = self.entry(self.state.stage());
        // What the disk does not take is tried again; the journal says why, to the log and in `status`.
        if self.shared.journal.write(&entry).is_ok() {
            self.journalled = Some(entry);
        }
    }

    pub(super) fn publish(&self) {
        let status = self.status();
        self.view.send_replace(View {
            state: self.state.clone(),
            status,
            alarm: self.alarm.clone(),
            periods: self.periods.clone(),
            owner: self.asked.owner,
        });
    }

    /// Returns the files of which a version runs something else than is mapped.
    fn runs(&self, which: Which) -> Vec<RunsAs> {
        let mut runs = self.ran.clone();
        for file in self.asked.files.iter().filter(|_| which == Which::New) {
            runs.retain(|known| known.file != file.name);
            if file.to != file.from {
                runs.push(RunsAs { file: file.name.clone(), build_id: file.to.clone() });
            }
        }
        runs
    }

    pub(super) fn status(&self) -> TargetStatus {
        let program = |pid: i32| {
            let known = self.programs.get(&pid).cloned();
            known.unwrap_or_else(|| {
                if pid == self.asked.process.pid { self.program.clone() } else { process::program_of(pid) }
            })
        };
        let left = |timer: Timer| {
            let at = self.timers.get(&timer)?;
            Some(millis(at.saturating_duration_since(Instant::now())))
        };
        let serving = self.state.serving().unwrap_or(self.asked.process.pid);
        let mut pids: Vec<i32> = self.programs.keys().copied().collect();
        pids.sort_unstable();
        let suspicions = self.state.plan().map(|plan| plan.suspicions).unwrap_or_default();
        let update = UpdateStatus {
            id: self.asked.id,
            to: self.asked.to.clone(),
            package: self.package_info(),
            terms: self.asked.terms.clone(),
            asked_by: self.asked.by.uid,
            asked_ms: self.asked_ms,
            asked_pid: self.asked.process.pid,
            pids,
            plan: self.state.plan().copied(),
            counters: self.last.counters,
            slowdown: Some(self.slowdown.known.clone()),
            rules: self.rule_counts(),
            evidence: Evidence::weigh(self.asked.terms.policy.thresholds, &suspicions, &self.last.counters),
            log: self.log_status(),
            threads: self.last.threads,
            fork_pause_us: self.last.fork_pause_us,
            promotion_pause_us: self.last.promotion_pause_us,
            in_stage_ms: millis(self.entered.elapsed()),
            stages: self.stages.clone(),
            soak_left_ms: left(Timer::Soak),
            timeout_left_ms: left(Timer::Overall),
            waits_for: self.session.as_ref().and_then(|_| self.waits.read()),
            gate: self.state.gate().map(str::to_owned),
            why_stepped: self.session.as_ref().and_then(|_| self.sight.why_stepped()),
            failures: self.failures.iter().map(failure_line).collect(),
            alarm: self.alarm.clone(),
            result: result_of(&self.state, self.alarm.as_ref()),
        };
        TargetStatus {
            pid: serving,
            stage: self.state.stage(),
            versions: versions_of(&self.state, program, |which| self.runs(which)),
            monitor: None,
            update: Some(update),
            next: lifecycle::next(&self.state),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a prediction, not a count")]
    pub(super) fn log_status(&self) -> LogStatus {
        let terms = &self.asked.terms;
        let counters = &self.last.counters;
        let left =
            terms.log_memory.saturating_add(terms.log_disk).saturating_sub(counters.log_memory + counters.log_disk);
        let growth = self.growth.rate();
        LogStatus {
            memory: counters.log_memory,
            memory_budget: terms.log_memory,
            disk: counters.log_disk,
            disk_budget: terms.log_disk,
            growth,
            full_in_s: (growth > 0.0).then(|| left as f64 / growth),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn failure_line(kind: &FailureKind) -> String {
    lifecycle::Cause::Failed(kind.clone()).to_string()
}

/// Returns what is told of files that go over to their next versions without a package.
fn of_files(files: &[Arc<FileChange>]) -> Option<PackageInfo> {
    let first = files.first()?;
    let id = |text: &str| BuildId::parse(text).ok();
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    Some(PackageInfo {
        name: names.join(","),
        path: first.path.clone(),
        description: None,
        method: Method::Binary,
        from: files.iter().filter_map(|file| id(&file.from)).collect(),
        to: id(&first.to),
    })
}
