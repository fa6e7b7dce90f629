//! Gates: who is asked before a promotion, and before the old version ends.
//!
//! ```toml
//! [[gate]]                                  # in the daemon's configuration
//! name = "error rate"
//! command = ["/etc/mvedsua/judge"]          # or: url = "http://127.0.0.1:8080/judge"
//! before = ["promotion", "confirmation"]
//! timeout = "10s"
//! again-after = "30s"                       # when it has said to wait
//! on-failure = "deny"                       # wait
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use crate::lifecycle::{Gated, Gates, Moment};

const TIMEOUT: Duration = Duration::from_secs(10);
const AGAIN_AFTER: Duration = Duration::from_secs(30);
/// A gate that takes longer would look like one that hangs.
const LONGEST_TIMEOUT: Duration = Duration::from_mins(10);
const LONGEST_NAME: usize = 40;

/// Who is asked, before what, and what counts where nothing is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Gate {
    pub name: String,
    pub before: Vec<Moment>,
    pub judge: Judge,
    pub timeout: Duration,
    pub again_after: Duration,
    pub on_failure: OnFailure,
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judge {
    Url(Endpoint),
    /// A program, by its absolute path, and its arguments.
    Command(Vec<String>),
}

/// What counts where a gate cannot be asked, is too slow, or says nothing that is understood. It is never taken to allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    #[default]
    Deny,
    /// It is asked again, up to the update's timeout.
    Wait,
}

/// A gate as it is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    name: String,
    #[serde(default = "both")]
    before: Vec<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    again_after: Option<String>,
    #[serde(default)]
    on_failure: OnFailure,
}

fn both() -> Vec<Moment> {
    vec![Moment::Promotion, Moment::Confirmation]
}

impl TryFrom<Written> for Gate {
    type Error = String;

    fn try_from(written: Written) -> Result<Gate, String> {
        let Written { name, before, url, command, timeout, again_after, on_failure } = written;
        let time = |text: Option<String>, default: Duration| match text {
            None => Ok(default),
            Some(text) => humantime::parse_duration(&text).map_err(|e| format!("`{text}` is no duration: {e}")),
        };
        let judge = Judge::new(url.as_deref(), command)?;
        Gate {
            name,
            before,
            judge,
            timeout: time(timeout, TIMEOUT)?,
            again_after: time(again_after, AGAIN_AFTER)?,
            on_failure,
        }
        .checked()
    }
}

impl From<Gate> for Written {
    fn from(gate: Gate) -> Written {
        let (url, command) = match gate.judge {
            Judge::Url(url) => (Some(url.to_string()), None),
            Judge::Command(command) => (None, Some(command)),
        };
        let time = |duration: Duration| Some(humantime::format_duration(duration).to_string());
        Written {
            name: gate.name,
            before: gate.before,
            url,
            command,
            timeout: time(gate.timeout),
            again_after: time(gate.again_after),
            on_failure: gate.on_failure,
        }
    }
}

impl Judge {
    /// Takes the one that is given.
    ///
    /// # Errors
    ///
    /// Where none is, or both are, or it is none.
    pub fn new(url: Option<&str>, command: Option<Vec<String>>) -> Result<Judge, String> {
        match (url, command) {
            (Some(url), None) => Endpoint::parse(url).map(Judge::Url),
            (None, Some(command)) => match command.first() {
                Some(program) if program.starts_with('/') => Ok(Judge::Command(command)),
                Some(program) => Err(format!("`{program}` is no absolute path of a program")),
                None => Err("the command of a gate is empty".to_owned()),
            },
            (Some(_), Some(_)) => Err("a gate has either an address or a command".to_owned()),
            (None, None) => Err("a gate needs an address or a command".to_owned()),
        }
    }
}

impl Gate {
    /// A gate with everything that is not said left at its default.
    #[must_use]
    pub fn new(name: &str, judge: Judge) -> Gate {
        Gate {
            name: name.to_owned(),
            before: both(),
            judge,
            timeout: TIMEOUT,
            again_after: AGAIN_AFTER,
            on_failure: OnFailure::default(),
        }
    }

    /// Sees that it can be asked.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn checked(self) -> Result<Gate, String> {
        let name = &self.name;
        if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
            return Err(format!("the name of a gate has 1 to {LONGEST_NAME} characters"));
        }
        if self.before.is_empty() {
            return Err(format!("the gate `{name}` is before nothing: `promotion`, `confirmation`, or both"));
        }
        if self.timeout.is_zero() || self.timeout > LONGEST_TIMEOUT {
            return Err(format!("the timeout of the gate `{name}` is not within 10 minutes"));
        }
        if self.again_after < Duration::from_secs(1) {
            return Err(format!("the gate `{name}` would be asked again after less than a second"));
        }
        Ok(self)
    }
}

/// Returns before what somebody is asked.
#[must_use]
pub(super) fn asked(gates: &[Gate]) -> Gates {
    let before = |moment| {
        if gates.iter().any(|gate| gate.before.contains(&moment)) { Gated::Asked } else { Gated::Open }
    };
    Gates { promotion: before(Moment::Promotion), confirmation: before(Moment::Confirmation) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_read_and_written() {
        let read = |text: &str| toml::from_str::<Gate>(text).map_err(|e| e.message().to_owned());
        let gate =
            read("name = \"errors\"\ncommand = [\"/bin/judge\", \"-x\"]\nbefore = [\"promotion\"]\ntimeout = \"3s\"\n")
                .expect("it reads");
        assert_eq!(
            (gate.timeout, gate.again_after, gate.on_failure),
            (Duration::from_secs(3), AGAIN_AFTER, OnFailure::Deny)
        );
        assert_eq!(asked(std::slice::from_ref(&gate)), Gates { promotion: Gated::Asked, confirmation: Gated::Open });
        let json = serde_json::to_value(&gate).expect("it serialises");
        assert_eq!(json["before"][0], "promotion");
        assert_eq!(serde_json::from_value::<Gate>(json).expect("it reads"), gate);
        for (text, why) in [
            ("name = \"x\"", "needs an address or a command"),
            ("name = \"x\"\nurl = \"http://a/\"\ncommand = [\"/a\"]", "either"),
            ("name = \"x\"\nurl = \"https://a/\"", "does not begin with http://"),
            ("name = \"x\"\ncommand = [\"judge\"]", "absolute path"),
            ("name = \"x\"\nurl = \"http://a/\"\nbefore = []", "before nothing"),
            ("name = \"x\"\nurl = \"http://a/\"\non-failure = \"allow\"", "unknown variant `allow`"),
            ("name = \"x\"\nurl = \"http://a/\"\ntimeout = \"1h\"", "10 minutes"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
