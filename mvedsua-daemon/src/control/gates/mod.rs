//! Asks the gates of an update whether it may go on.
//!
//! The gates are asked one after the other; the first that does not allow it decides. Whatever is not plainly an answer counts as
//! the gate's `on-failure` says, which is never to allow. Nothing here touches a service: the leader goes on while a gate
//! thinks.

mod answer;
mod command;

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::answer::{Said, Word};
use super::http::client;
use crate::lifecycle::{GateAnswer, Moment};
use crate::package::{Gate, Judge, OnFailure};

/// The section `[gates]` of the configuration.
///
/// ```toml
/// [gates]
/// user = "nobody"            # as whom commands run
/// hosts = ["judge.internal"] # who may be asked, and told, beside this machine
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatesConfig {
    pub user: String,
    pub hosts: Vec<String>,
}

impl Default for GatesConfig {
    fn default() -> Self {
        GatesConfig { user: "nobody".to_owned(), hosts: vec![] }
    }
}

impl GatesConfig {
    /// Says whether a gate may be asked.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(&self, gate: &Gate) -> Result<(), String> {
        match &gate.judge {
            Judge::Url(url) if !url.is_local() && !self.hosts.contains(&url.host) => Err(format!(
                "the gate `{}` is at {url}, which is neither this machine nor one of `hosts` in the section `[gates]` of the \
                 configuration",
                gate.name
            )),
            Judge::Url(_) | Judge::Command(_) => Ok(()),
        }
    }
}

/// What the gates are told.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Question {
    pub(crate) v: u32,
    pub(crate) before: Moment,
    pub(crate) update: u64,
    pub(crate) target: String,
    pub(crate) pid: i32,
    pub(crate) to: String,
    pub(crate) package: Option<String>,
    pub(crate) attempt: u32,
    pub(crate) compared_calls: u64,
    pub(crate) compared_outputs: u64,
    pub(crate) backlog: u64,
    pub(crate) fork_pause_us: Option<u64>,
    pub(crate) promotion_pause_us: Option<u64>,
}

/// What a gate has answered, for those who look on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) gate: String,
    /// `allow`, `deny`, `wait` or `failed`.
    pub(crate) answer: &'static str,
    pub(crate) why: String,
}

/// Asks the gates; returns what they say together, and what each has said.
pub(crate) async fn ask(config: &GatesConfig, gates: &[Gate], question: &Question) -> (GateAnswer, Vec<Answered>) {
    let mut told = vec![];
    for gate in gates {
        let said = ask_one(config, gate, question).await;
        let (answer, word, why) = judged(gate, said);
        told.push(Answered { gate: gate.name.clone(), answer: word, why });
        if answer != GateAnswer::Allow {
            return (answer, told);
        }
    }
    (GateAnswer::Allow, told)
}

/// Returns what an answer comes to, its name, and why.
fn judged(gate: &Gate, said: Result<Said, String>) -> (GateAnswer, &'static str, String) {
    let name = &gate.name;
    let because = |why: &str| if why.is_empty() { String::new() } else { format!(": {why}") };
    let wait = |why: String, after: Duration| GateAnswer::Wait { why, after };
    match said {
        Ok(Said { word: Word::Allow, why }) => (GateAnswer::Allow, "allow", why),
        Ok(Said { word: Word::Deny, why }) => {
            (GateAnswer::Deny { why: format!("`{name}` denies it{}", because(&why)) }, "deny", why)
        }
        Ok(Said { word: Word::Wait, why }) => {
            (wait(format!("`{name}` says to wait{}", because(&why)), gate.again_after), "wait", why)
        }
        Err(why) => {
            let text = format!("`{name}` did not answer: {why}");
            let answer = match gate.on_failure {
                OnFailure::Deny => GateAnswer::Deny { why: text },
                OnFailure::Wait => wait(text, gate.again_after),
            };
            (answer, "failed", why)
        }
    }
}

async fn ask_one(config: &GatesConfig, gate: &Gate, question: &Question) -> Result<Said, String> {
    config.check(gate)?;
    let body = serde_json::to_vec(question).map_err(|e| e.to_string())?;
    let text = match &gate.judge {
        Judge::Url(url) => {
            let (status, body) = client::post(url, &[], Bytes::from(body), gate.timeout).await?;
            if !status.is_success() {
                return Err(format!("{url}: status {}", status.as_u16()));
            }
            String::from_utf8_lossy(&body).into_owned()
        }
        Judge::Command(command) => {
            let run = command::Run {
                command: command.clone(),
                user: config.user.clone(),
                environment: environment(question),
                input: body,
                within: gate.timeout,
            };
            command::output(run).await?
        }
    };
    answer::read(&text)
}

fn environment(question: &Question) -> Vec<(&'static str, String)> {
    vec![
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("MVEDSUA_BEFORE", question.before.to_string()),
        ("MVEDSUA_UPDATE", question.update.to_string()),
        ("MVEDSUA_TARGET", question.target.clone()),
        ("MVEDSUA_PID", question.pid.to_string()),
        ("MVEDSUA_TO", question.to.clone()),
    ]
}

#[cfg(test)]
mod tests;
