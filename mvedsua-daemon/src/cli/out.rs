//! Printing.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;
use serde_json::json;

use super::args::Cli;
use crate::control::Code;
use crate::control::protocol::Problem;
use crate::monitor::render::Paint;

/// Prints text as it is. A reader that has gone away ends the program quietly, as it does for other tools.
pub(super) fn text(text: &str) {
    let mut out = io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Says whether standard output takes colours: it is a terminal, and NO_COLOR does not say otherwise.
pub(super) fn paint() -> Paint {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !refused { Paint::Coloured } else { Paint::Plain }
}

/// Prints that something is done or goes on, unless nobody wants to know.
pub(super) fn said(cli: &Cli, words: &str) {
    if !cli.quiet {
        text(words);
    }
}

/// Prints one JSON object on a line of its own.
pub(super) fn json(value: &impl Serialize) {
    let line = serde_json::to_string(value).unwrap_or_else(|e| json!({"error": e.to_string()}).to_string());
    text(&format!("{line}\n"));
}

impl From<io::Error> for Problem {
    /// The terminal could not be written to.
    fn from(e: io::Error) -> Problem {
        Problem::new(Code::Usage, "writing to standard output", e.to_string(), "choose an output that may be written")
    }
}

/// Prints why something was not done: for people on standard error, for programs as JSON on standard output.
pub(super) fn problem(problem: &Problem, form: Form) {
    match form {
        Form::Json => json(&json!({"error": problem})),
        // Where even that cannot be written there is nobody to tell.
        Form::Text => drop(writeln!(io::stderr(), "mvedsuad: {problem}")),
    }
}

/// Says for whom something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}
