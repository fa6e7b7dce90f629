//! Asks the gates of an update, while it goes on as before.

use tokio::task::{JoinError, JoinSet};

use super::Driver;
use crate::control::events::What;
use crate::control::gates::{self, Answered, Question};
use crate::lifecycle::{Event, GateAnswer, Moment};
use crate::package::Gate;

/// What is being asked.
#[derive(Default)]
pub(super) struct Asking {
    /// Counts the questions; an answer to an earlier one comes too late.
    number: u64,
    tasks: JoinSet<Answer>,
    moment: Option<Moment>,
}

/// What was answered, and to which question.
pub(super) struct Answer {
    number: u64,
    moment: Moment,
    says: GateAnswer,
    told: Vec<Answered>,
}

impl Asking {
    /// Waits for the next answer; for ever where nothing is asked.
    pub(super) async fn next(&mut self) -> Result<Answer, JoinError> {
        match self.tasks.join_next().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

impl Driver {
    pub(super) fn ask_gates(&mut self, moment: Moment) {
        let gates: Vec<Gate> =
            self.asked.terms.gates.iter().filter(|gate| gate.before.contains(&moment)).cloned().collect();
        let question = self.question(moment);
        let config = self.shared.gates.get().cloned().unwrap_or_default();
        let asking = &mut self.asking;
        asking.number += 1;
        asking.moment = Some(moment);
        // A command that is asked something older ends with its task.
        asking.tasks.abort_all();
        let number = asking.number;
        asking.tasks.spawn(async move {
            let (says, told) = gates::ask(&config, &gates, &question).await;
            Answer { number, moment, says, told }
        });
    }

    pub(super) fn answered(&mut self, answer: Result<Answer, JoinError>) {
        let answer = match answer {
            Ok(answer) if answer.number == self.asking.number => answer,
            // It comes too late, and so does the end of a task that was given up.
            Ok(_) => return,
            Err(e) if e.is_cancelled() => return,
            Err(e) => {
                tracing::error!(update = self.asked.id, error = %e, "the task that asks the gates failed");
                let Some(moment) = self.asking.moment else { return };
                let says = GateAnswer::Deny { why: "the daemon's own task that asks them failed".to_owned() };
                Answer { number: self.asking.number, moment, says, told: vec![] }
            }
        };
        for Answered { gate, answer: word, why } in answer.told {
            tracing::info!(update = self.asked.id, gate, answer = word, why, before = %answer.moment, "gate");
            self.happened(What::Gate { gate, before: answer.moment.to_string(), answer: word.to_owned(), why });
        }
        self.feed(Event::Gate(answer.moment, answer.says));
    }

    fn question(&self, before: Moment) -> Question {
        let counters = &self.last.counters;
        Question {
            v: 1,
            before,
            update: self.asked.id,
            target: self.shared.names.of(self.asked.process.pid),
            pid: self.asked.process.pid,
            to: self.asked.to.clone(),
            package: self.asked.package.as_ref().map(|package| package.info.name.clone()),
            attempt: self.last.attempts,
            compared_calls: counters.compared_calls,
            compared_outputs: counters.compared_outputs,
            backlog: counters.backlog,
            fork_pause_us: self.last.fork_pause_us,
            promotion_pause_us: self.last.promotion_pause_us,
        }
    }
}
