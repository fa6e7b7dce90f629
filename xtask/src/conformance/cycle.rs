//! One update of a running server to itself through the real daemon and its command line, and what became of many.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::daemon::{Daemon, Output};
use harness::stand::{ROLLING_BACK, SINGLE, code};
use harness::wait::try_wait_for;
use serde::Serialize;
use serde_json::Value;

/// How long an update may take until it is validated, with all its attempts.
const UPDATE_LIMIT: Duration = Duration::from_secs(240);
/// How long any other command may take.
const STEP_LIMIT: Duration = Duration::from_secs(90);

/// How often the versions may part after a promotion, as far as that may come of a race.
const PARTED: u32 = 3;

/// How often an update that is to be tried again may be found not to be under way, until it counts as ended.
const PAUSES: u32 = 500;

/// What became of the updates of one server.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Updates {
    /// Updates after which the new version serves.
    pub(super) done: u32,
    /// Those of them that were to be undone and were kept, since there was no way back: what the daemon says, counted.
    pub(super) kept: BTreeMap<String, u32>,
    /// Updates that were rolled back because that was asked for.
    pub(super) went_back: u32,
    /// Updates that were not: what the daemon says of each, counted.
    pub(super) failed: BTreeMap<String, u32>,
    /// Attempts that were tried again, by what went wrong with them.
    pub(super) retried: BTreeMap<String, u32>,
    /// The longest pause at a fork and at a promotion, microseconds.
    pub(super) fork_pause_us: u64,
    pub(super) promotion_pause_us: u64,
}

/// How far an update is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Promoted and confirmed.
    There,
    /// Validated and rolled back.
    Rehearsed,
    /// Promoted and rolled back.
    ThereAndBack,
}

/// How one update ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The new version serves.
    Updated,
    /// The new version serves although it was to be undone: there was no way back. The words are the daemon's.
    Kept(String),
    /// The old one serves on, as was asked for.
    WentBack,
    /// The old one serves on. The words are the daemon's.
    Undone(String),
    /// It was refused before anything was touched; so would the next be.
    Refused(String),
}

/// What is asked of an update.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes<'a> {
    pub(super) soak: &'a str,
    pub(super) min_calls: &'a str,
    pub(super) min_outputs: &'a str,
    /// A file of rules.
    pub(super) rules: Option<&'a Path>,
}

/// Updates a process to itself and goes through with it as far as `course` says. `between` is called while the new version
/// leads and the old one follows.
pub(super) fn update(
    daemon: &Daemon,
    pid: i32,
    wishes: Wishes<'_>,
    course: Course,
    between: impl Fn() -> Result<()>,
) -> Result<Ended> {
    let text = pid.to_string();
    let asked = ["update", &text, "--to", "self", "--promote", "manual", "--confirm", "manual", "--soak", wishes.soak];
    let evidence = ["--min-calls", wishes.min_calls, "--min-outputs", wishes.min_outputs, "--wait"];
    let rules = wishes.rules.map(|rules| rules.display().to_string());
    let rules: Vec<&str> = rules.as_deref().map_or_else(Vec::new, |rules| vec!["--rules", rules]);
    let validated = daemon.run_for(&[&asked[..], &evidence[..], &rules[..]].concat(), UPDATE_LIMIT)?;
    if validated.code == code::REFUSED {
        return Ok(Ended::Refused(words(&validated)));
    }
    if validated.code != code::DONE {
        return Ok(Ended::Undone(words(&validated)));
    }
    if course == Course::Rehearsed {
        return go_back(daemon, pid);
    }
    for again in 0..=PARTED {
        let promoted = promote(daemon, &text, again > 0)?;
        if promoted.code != code::DONE {
            return give_up(daemon, pid, &promoted);
        }
        between()?;
        if course == Course::ThereAndBack {
            return go_back(daemon, pid);
        }
        let confirmed = daemon.run_for(&["confirm", &text], STEP_LIMIT)?;
        if confirmed.code == code::DONE {
            return ended(daemon, pid, &confirmed);
        }
        // They parted after the promotion, perhaps by a race: then the daemon goes back and tries the update again.
        if again == PARTED || !is_tried_again(daemon, pid)? {
            return give_up(daemon, pid, &confirmed);
        }
    }
    bail!("an update has no end")
}

/// Says whether an update that was undone is under way again.
fn is_tried_again(daemon: &Daemon, pid: i32) -> Result<bool> {
    let settled = try_wait_for(STEP_LIMIT, || {
        let status = daemon.status(pid).ok().flatten()?;
        (status.stage != ROLLING_BACK).then_some(status)
    });
    let status = settled.with_context(|| format!("process {pid} did not come to rest; {}", daemon.output()))?;
    // In the pause before it the leader runs alone.
    Ok(status.stage != SINGLE || status.next.starts_with("attempt "))
}

/// Asks for the promotion, and once more where the versions part meanwhile and the daemon tries the update again, or has
/// `parted` before.
fn promote(daemon: &Daemon, pid: &str, parted: bool) -> Result<Output> {
    let mut promoted = daemon.run_for(&["promote", pid], STEP_LIMIT)?;
    if promoted.code != code::DONE && (parted || promoted.stderr.contains("about to be tried again")) {
        // Refused until there is a follower again, and enough of what it does was compared.
        let mut refused = 0;
        let again = try_wait_for(UPDATE_LIMIT, || {
            let again = daemon.run_for(&["promote", pid], STEP_LIMIT).ok()?;
            refused += u32::from(again.code == code::USAGE);
            let not_yet = matches!(again.code, code::USAGE | code::INCONCLUSIVE | code::REFUSED);
            (!not_yet || refused > PAUSES).then_some(again)
        });
        promoted = again.unwrap_or(promoted);
    }
    Ok(promoted)
}

/// Undoes an update that is under way, as was wished.
fn go_back(daemon: &Daemon, pid: i32) -> Result<Ended> {
    let output = daemon.run_for(&["rollback", &pid.to_string()], STEP_LIMIT)?;
    Ok(match ended(daemon, pid, &output)? {
        Ended::Undone(_) if output.code == code::DONE => Ended::WentBack,
        ended => ended,
    })
}

/// After a promotion or a confirmation that failed: the update is undone where it goes on.
fn give_up(daemon: &Daemon, pid: i32, output: &Output) -> Result<Ended> {
    // Where it was undone already there is nothing to roll back.
    let _ = daemon.run_for(&["rollback", &pid.to_string()], STEP_LIMIT)?;
    ended(daemon, pid, output)
}

/// Waits until one version runs alone and reads from the daemon's result which one that is.
fn ended(daemon: &Daemon, pid: i32, output: &Output) -> Result<Ended> {
    let settled = try_wait_for(STEP_LIMIT, || {
        let status = daemon.status(pid).ok().flatten().filter(|status| status.stage == SINGLE)?;
        status.result
    });
    let (result, said) = settled.with_context(|| {
        format!("process {pid} did not come to rest after {:?}; {}", words(output), daemon.output())
    })?;
    let said = format!("{}; {said}", words(output));
    Ok(match i32::try_from(result)? {
        code::DONE => Ended::Updated,
        code::KEPT => Ended::Kept(said),
        _ => Ended::Undone(said),
    })
}

/// What a command of the client said last.
pub(super) fn words(output: &Output) -> String {
    let lines =
        |text: &str| text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let said = lines(&output.stderr);
    if !said.is_empty() {
        return said.join(" ");
    }
    let said = lines(&output.stdout);
    let verdict = said.iter().rfind(|line| !line.starts_with("`mvedsuad report"));
    verdict.cloned().unwrap_or_else(|| format!("exit code {}", output.code))
}

impl Updates {
    /// Takes note of how an update ended.
    pub(super) fn note(&mut self, ended: &Ended) {
        match ended {
            Ended::Updated => self.done += 1,
            Ended::Kept(words) => {
                self.done += 1;
                *self.kept.entry(cause(words)).or_default() += 1;
            }
            Ended::WentBack => self.went_back += 1,
            Ended::Undone(words) | Ended::Refused(words) => *self.failed.entry(cause(words)).or_default() += 1,
        }
    }

    /// Returns how many updates are over, whatever became of them.
    pub(super) fn all(&self) -> u32 {
        self.done + self.went_back + self.failed.values().sum::<u32>()
    }

    pub(super) fn retries(&self) -> u32 {
        self.retried.values().sum()
    }

    /// Takes from the daemon's history what the updates showed. The reports of those that did not go through at once are
    /// kept in the folder, where one is given.
    pub(super) fn read_history(&mut self, daemon: &Daemon, reports: Option<&Path>) -> Result<()> {
        let output = daemon.run(&["history", "--limit", "200", "--json"])?;
        let history = output.json().with_context(|| words(&output))?;
        for past in history.as_array().context("the history is a list")? {
            let us = |key: &str| past[key].as_u64().unwrap_or(0);
            self.fork_pause_us = self.fork_pause_us.max(us("fork_pause_us"));
            self.promotion_pause_us = self.promotion_pause_us.max(us("promotion_pause_us"));
            // The last failure of an update that was not done is what it failed with.
            let attempts = past["attempts"].as_u64().unwrap_or(1);
            for group in past["divergences"].as_array().into_iter().flatten() {
                let headline = group["divergence"]["headline"].as_str().unwrap_or("a divergence without a name");
                let count = group["count"].as_u64().unwrap_or(1) as u32;
                *self.retried.entry(cause(headline)).or_default() += count;
            }
            for failure in past["failures"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                *self.retried.entry(cause(failure)).or_default() += 1;
            }
            if let (Some(dir), true) = (reports, attempts > 1 || past["code"] != 0) {
                std::fs::create_dir_all(dir)?;
                let number = past["update"].to_string();
                let report = daemon.run(&["report", "--update", &number])?;
                std::fs::write(dir.join(format!("update-{number}.txt")), report.stdout)?;
            }
        }
        Ok(())
    }
}

/// Returns a text without the numbers that differ from run to run, so that equal causes can be counted.
pub(super) fn cause(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if !char.is_ascii_digit() {
            plain.push(char);
            continue;
        }
        let hexadecimal = char == '0' && chars.peek() == Some(&'x');
        while chars.next_if(|c| c.is_ascii_digit() || (hexadecimal && (*c == 'x' || c.is_ascii_hexdigit()))).is_some() {
        }
        plain.push('N');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_have_no_numbers() {
        assert_eq!(cause("thread 12 at 0x7fA0: byte 3"), "thread N at N: byte N");
    }
}
