//! Rules that reconcile the expected differences of two versions, after the language of Pina et al. (ATC'17).
//!
//! ```text
//!   text ──► lexer ──► parser ──► ast ──► compile ──► RuleSet (one automaton)
//!                                                        │
//!   log ──► Stage::push ──► matcher (per thread slot) ───┴──► exec ──► records as the follower is to make them out
//! ```
//!
//! A rule says: where the leader made these calls, the follower makes those. Its left side is an automaton over the calls of
//! one thread; its right side makes the records that the follower is compared with. What no rule is about passes
//! unchanged. `docs/rules.md` describes the language for those who write it.
//!
//! Pure: it knows records, comparison and the table of system calls, and nothing of ptrace, tokio or BPF.

pub mod ast;
mod calls;
mod compile;
mod constants;
mod descriptors;
mod diagnostic;
mod dry_run;
mod exec;
mod lexer;
mod lines;
mod matcher;
mod parser;
mod print;
mod program;
mod propose;
pub mod recording;
pub mod stage;

#[cfg(test)]
mod tests;

pub use ast::Direction;
pub use descriptors::{Descriptor, Descriptors};
pub use diagnostic::{Diagnostic, Severity};
pub use dry_run::{DryRun, dry_run};
pub use program::RuleSet;
pub use propose::propose;
pub use stage::{Application, Counts, Pace, RuleCount, Stage};

/// How long a rules file may be.
pub const MAX_FILE: usize = 256 << 10;

/// A file that was read: the rules if it has no error, and what was found in it.
#[derive(Debug)]
pub struct Checked {
    /// `None` when a diagnostic is an error.
    pub rules: Option<RuleSet>,
    /// In the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a rules file.
#[must_use]
pub fn check(source: &str) -> Checked {
    if source.len() > MAX_FILE {
        let message = format!("the file has more than {MAX_FILE} bytes");
        return Checked { rules: None, diagnostics: vec![Diagnostic::error(0..0, message, "too long")] };
    }
    let (file, mut diagnostics) = parser::parse(source);
    let (rules, more) = compile::compile(&file);
    // A rule that could not be read is missing for the others; what they say of it would mislead.
    if diagnostics.is_empty() {
        diagnostics = more;
    }
    let failed = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    Checked { rules: (!failed).then_some(rules), diagnostics }
}

/// Reads several files as one set; of two rules that match the one that comes first counts.
///
/// # Errors
///
/// What is wrong with the first faulty file, rendered.
pub fn check_all(files: &[(String, String)]) -> Result<RuleSet, String> {
    let mut whole = String::new();
    for (name, source) in files {
        let checked = check(source);
        if checked.rules.is_none() {
            return Err(checked.diagnostics.iter().map(|found| found.render(name, source)).collect());
        }
        whole.push_str(source);
        whole.push_str("\ndirection both\n");
    }
    let checked = check(&whole);
    checked.rules.ok_or_else(|| checked.diagnostics.iter().map(|found| found.render("rules", &whole)).collect())
}

/// Reads a rules file as it was written, without looking into what it means.
///
/// # Errors
///
/// What is wrong with its grammar.
pub fn parse(source: &str) -> Result<ast::File, Vec<Diagnostic>> {
    match parser::parse(source) {
        (file, errors) if errors.is_empty() => Ok(file),
        (_, errors) => Err(errors),
    }
}
