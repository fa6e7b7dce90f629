//! What can be asked of the daemon, and the question that comes before.

use crate::control::protocol::{Insist, Request};
use crate::control::status::TargetStatus;
use crate::lifecycle::Stage;

/// What an operator can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Promote,
    Confirm,
    RollBack,
}

impl Verb {
    /// Returns what it is called.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Verb::Promote => "promotion",
            Verb::Confirm => "confirmation",
            Verb::RollBack => "rollback",
        }
    }

    /// Returns what is asked of the daemon.
    pub(super) fn request(self, pid: i32) -> Request {
        match self {
            Verb::Promote => Request::Promote { pid, evidence: Insist::Required },
            Verb::Confirm => Request::Confirm { pid },
            Verb::RollBack => Request::Rollback { pid, reason: "asked in `top`".to_owned() },
        }
    }

    /// Says whether it fits what happens to a process, and why not.
    pub(super) fn fits(self, target: Option<&TargetStatus>) -> Result<(i32, u64), String> {
        let Some(target) = target else { return Err("no process is selected that the daemon knows".to_owned()) };
        let under_way = target.update.as_ref().filter(|update| update.plan.is_some());
        let Some(update) = under_way else {
            return Err(format!(
                "no update of process {} is under way; `mvedsuad update {} --to …` starts one",
                target.pid, target.pid
            ));
        };
        let fits = match self {
            Verb::Promote => target.stage == Stage::Validating,
            Verb::Confirm => target.stage == Stage::UpdatedLeader,
            Verb::RollBack => target.stage != Stage::RollingBack,
        };
        if fits {
            return Ok((target.pid, update.id));
        }
        let when = match self {
            Verb::Promote => "it can be promoted in stage outdated-leader/validating",
            Verb::Confirm => "it can be confirmed in stage updated-leader, after the promotion",
            Verb::RollBack => "it is being rolled back already",
        };
        Err(format!("update {} of process {} is in stage {}; {when}", update.id, target.pid, target.stage))
    }
}

/// A question that is answered with yes or no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) verb: Verb,
    pub(super) pid: i32,
    pub(super) update: u64,
    pub(super) text: String,
}

impl Question {
    /// Puts the question, or says why it makes no sense now.
    pub(super) fn of(verb: Verb, target: Option<&TargetStatus>) -> Result<Question, String> {
        let (pid, update) = verb.fits(target)?;
        let is_promoted = target.is_some_and(|target| target.stage == Stage::UpdatedLeader);
        let what = match verb {
            Verb::Promote => "The new version leads then, in the same process, and the old one follows it.",
            Verb::Confirm => "The old version ends then, and there is no way back.",
            Verb::RollBack if is_promoted => "The old version leads then, in the same process, and the new one ends.",
            Verb::RollBack => "The follower ends then, and the service goes on as it does now.",
        };
        let ask = match verb {
            Verb::Promote => "Promote",
            Verb::Confirm => "Confirm",
            Verb::RollBack => "Roll back",
        };
        Ok(Question { verb, pid, update, text: format!("{ask} update {update} of process {pid}? {what}") })
    }

    /// Says whether it is still about what it was put about, and why not.
    pub(super) fn still_fits(&self, target: Option<&TargetStatus>) -> Result<(), String> {
        match self.verb.fits(target) {
            Ok((pid, update)) if (pid, update) == (self.pid, self.update) => Ok(()),
            Ok((pid, update)) => Err(format!(
                "update {} is over meanwhile; update {update} of process {pid} is another one",
                self.update
            )),
            Err(why) => Err(why),
        }
    }
}
