//! The language of the control socket: newline-delimited JSON.
//!
//! A client writes one [`Envelope`] a line, `{"v":1,"request":{"status":{}}}`, and reads lines back: any number of
//! `{"v":1,"event":…}` (only for [`Request::Follow`] and [`Request::Events`], and for requests to promote, confirm and undo that take long), then one `{"v":1,"ok":…}` or `{"v":1,"error":…}`. The connection
//! may be used again. What is malformed is answered by an error that says what and where; a line longer than
//! [`MAX_REQUEST`] is answered and ends the connection.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Code;
use super::events::Event;
use super::history::Past;
use super::status::Status;
use crate::lifecycle::Waiver;
use crate::monitor::{AttachOptions, Mode, StatsSnapshot, TargetInfo};
use crate::package::Wishes;

/// The version of the language.
pub const VERSION: u32 = 1;
/// The longest request, bytes.
pub const MAX_REQUEST: usize = 1 << 20;

/// A request with the version of the language that it is written in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    pub v: u32,
    pub request: Request,
}

/// What a client can ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Who is there?
    Hello {},
    /// Observe a process.
    Attach {
        pid: i32,
        options: AttachOptions,
        /// What to call it where it is measured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Stop observing it.
    Detach { pid: i32 },
    /// Observe it in another way.
    Mode { pid: i32, mode: Mode },
    /// What was observed.
    Stats { pid: i32 },
    /// What was observed, in the standard interval log of HdrHistogram.
    Export { pid: i32 },
    /// Start an update.
    Update { pid: i32, ask: Box<Ask> },
    /// Make the new version the leader; answered when that has happened or was given up.
    Promote { pid: i32, evidence: Insist },
    /// End the old version; answered when it has ended.
    Confirm { pid: i32 },
    /// Undo; answered when it is undone.
    Rollback { pid: i32, reason: String },
    /// Where everything stands, or one process.
    Status {
        #[serde(default)]
        pid: Option<i32>,
    },
    /// The status of a process as an event at each change, until its update has the result that was asked for.
    Follow { pid: i32 },
    /// Past updates, newest first.
    History { pid: Option<i32>, limit: usize },
    /// What the last update of a process, or a certain update, showed.
    Report { pid: Option<i32>, update: Option<u64> },
    /// Everything that has happened after an event with this number, as an event each, and with `follow` what happens from
    /// now on.
    Events {
        #[serde(default)]
        since: Option<u64>,
        #[serde(default)]
        follow: bool,
        #[serde(default)]
        pid: Option<i32>,
    },
    /// End the daemon; updates that are under way are undone.
    Shutdown {},
}

/// Says whether too little evidence refuses a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Insist {
    Required,
    Waived,
}

impl From<Insist> for Waiver {
    fn from(insist: Insist) -> Waiver {
        match insist {
            Insist::Required => Waiver::None,
            Insist::Waived => Waiver::Evidence,
        }
    }
}

/// What an update is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The new version: `self` is the same version, a rehearsal; `installed` is what lies where the mapped files were; with
    /// a slash it is the absolute path of a package or of an ELF file; else it is the name of a package.
    pub to: String,
    /// Of the files that the process has mapped, the one that is to change.
    #[serde(default)]
    pub library: Option<String>,
    /// What the operator asks for; the rest is the package's to say.
    #[serde(default)]
    pub wishes: Wishes,
    /// Rules for the differences that are meant, as text; a package's own come after them.
    #[serde(default)]
    pub rules: Option<String>,
    /// Where to keep what the leader does; root only, since the daemon writes the file.
    #[serde(default)]
    pub record: Option<PathBuf>,
}

impl Ask {
    /// What asks for the same version.
    pub const ITSELF: &str = "self";
}

/// What a reply says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Hello {
        pid: u32,
        version: String,
    },
    Attached(TargetInfo),
    Done {},
    Stats(Box<StatsSnapshot>),
    Export(String),
    /// The update has begun.
    Started {
        update: u64,
    },
    Status(Box<Status>),
    History(Vec<Past>),
    Report(Vec<Past>),
    /// Something has happened.
    Happened(Box<Event>),
    /// Events after the first number and before the second are not kept any more; where the second is not greater, the numbers
    /// have begun anew.
    Missed {
        after: u64,
        next: u64,
    },
}

/// A line from the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    pub v: u32,
    #[serde(flatten)]
    pub body: Body,
}

/// The body of a line from the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    Ok(Answer),
    Event(Answer),
    Error(Problem),
}

impl Reply {
    #[must_use]
    pub fn new(body: Body) -> Self {
        Reply { v: VERSION, body }
    }
}

/// Why something was not done: what was tried, on what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{tried}: {why}\n  {remedy}")]
pub struct Problem {
    pub code: Code,
    pub tried: String,
    pub why: String,
    pub remedy: String,
}

impl Problem {
    #[must_use]
    pub fn new(code: Code, tried: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem { code, tried: tried.into(), why: why.into(), remedy: remedy.into() }
    }
}

/// Reads a request.
///
/// # Errors
///
/// Says what is wrong with the line, and where.
pub fn parse(line: &[u8]) -> Result<Request, Problem> {
    /// Enough to know the version before anything that another version may have changed.
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let tried = "reading the request";
    let shape = r#"a request is one line such as {"v":1,"request":{"status":{}}}"#;
    let malformed = |e: &serde_json::Error| Problem::new(Code::Usage, tried, e.to_string(), shape);
    let versioned: Versioned = serde_json::from_slice(line).map_err(|e| malformed(&e))?;
    if versioned.v != VERSION {
        return Err(Problem::new(
            Code::Usage,
            tried,
            format!("its version is {}, this daemon speaks version {VERSION}", versioned.v),
            "use the client that came with the daemon, or restart the daemon with this one's version",
        ));
    }
    serde_json::from_slice::<Envelope>(line).map(|envelope| envelope.request).map_err(|e| malformed(&e))
}

impl Request {
    /// Returns the verb, for logs.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Request::Hello { .. } => "hello",
            Request::Attach { .. } => "attach",
            Request::Detach { .. } => "detach",
            Request::Mode { .. } => "mode",
            Request::Stats { .. } => "stats",
            Request::Export { .. } => "export",
            Request::Update { .. } => "update",
            Request::Promote { .. } => "promote",
            Request::Confirm { .. } => "confirm",
            Request::Rollback { .. } => "rollback",
            Request::Status { .. } => "status",
            Request::Follow { .. } => "follow",
            Request::History { .. } => "history",
            Request::Report { .. } => "report",
            Request::Events { .. } => "events",
            Request::Shutdown { .. } => "shutdown",
        }
    }

    /// Returns the process that is meant, where there is one.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        match self {
            Request::Attach { pid, .. }
            | Request::Detach { pid }
            | Request::Mode { pid, .. }
            | Request::Stats { pid }
            | Request::Export { pid }
            | Request::Update { pid, .. }
            | Request::Promote { pid, .. }
            | Request::Confirm { pid }
            | Request::Rollback { pid, .. }
            | Request::Follow { pid } => Some(*pid),
            Request::Status { pid }
            | Request::History { pid, .. }
            | Request::Report { pid, .. }
            | Request::Events { pid, .. } => *pid,
            Request::Hello {} | Request::Shutdown {} => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(line: &str) -> String {
        parse(line.as_bytes()).expect_err("the line is wrong").why
    }

    #[test]
    fn a_request_survives_the_wire() {
        let request = Request::Status { pid: Some(7) };
        let line = serde_json::to_vec(&Envelope { v: VERSION, request: request.clone() }).expect("it serialises");
        assert_eq!(parse(&line), Ok(request));
        assert_eq!(parse(br#"{"v":1,"request":{"status":{}}}"#), Ok(Request::Status { pid: None }));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let cases = [
            ("", "line 1 column 0"),
            (r#"{"v":1,"request""#, "column 16"),
            (r#"{"request":{"hello":{}}}"#, "missing field `v`"),
            (r#"{"v":9,"request":{"hello":{}}}"#, "version is 9"),
            (r#"{"v":1,"request":{"helo":{}}}"#, "unknown variant `helo`"),
            (r#"{"v":1,"request":{"stats":{"pid":"x"}}}"#, "expected i32 at line 1 column 36"),
            (r#"{"v":1,"request":{"stats":{"pid":1,"deep":2}}}"#, "unknown field `deep`"),
            ("[1,2]", "line 1 column"),
        ];
        for (line, expected) in cases {
            let why = why(line);
            assert!(why.contains(expected), "{line}: {why}");
        }
        parse(b"\xff\xfe").expect_err("it is no text");
    }

    #[test]
    fn a_reply_survives_the_wire() {
        let problem = Problem::new(Code::Harmed, "a", "b", "c");
        for body in [Body::Ok(Answer::Done {}), Body::Error(problem), Body::Event(Answer::Started { update: 3 })] {
            let reply = Reply::new(body);
            let line = serde_json::to_string(&reply).expect("it serialises");
            assert_eq!(serde_json::from_str::<Reply>(&line).expect(&line), reply);
        }
    }
}
