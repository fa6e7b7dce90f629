//! What is wrong with a rules file, and where.

use std::fmt::Write as _;
use std::ops::Range;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// It can, but it probably does not say what was meant.
    Warning,
}

/// One remark about a rules file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Bytes of the file that it is about.
    pub span: Range<usize>,
    pub message: String,
    /// What was expected there; may be empty.
    pub label: String,
    pub hint: Option<String>,
}

/// Columns that a rendered line takes at most.
const WIDTH: usize = 88;

impl Diagnostic {
    /// Makes an error.
    #[must_use]
    pub fn error(span: Range<usize>, message: impl Into<String>, label: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Error, span, message: message.into(), label: label.into(), hint: None }
    }

    /// Makes a warning.
    #[must_use]
    pub fn warning(span: Range<usize>, message: impl Into<String>, label: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(span, message, label) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// Returns line and column, both from 1, of the first byte that it is about; columns count characters.
    #[must_use]
    pub fn position(&self, source: &str) -> (usize, usize) {
        let before = &source[..floor(source, self.span.start)];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        (line, before[start..].chars().count() + 1)
    }

    /// Renders it with the line that it is about, for people.
    #[must_use]
    pub fn render(&self, file: &str, source: &str) -> String {
        let (line, column) = self.position(source);
        let start = floor(source, self.span.start);
        let text = source[start - (start - source[..start].rfind('\n').map_or(0, |at| at + 1))..]
            .lines()
            .next()
            .unwrap_or_default();
        let marked = source[start..floor(source, self.span.end.max(start))].chars().take_while(|c| *c != '\n').count();
        let (text, before) = window(text, column - 1);
        let carets = "^".repeat(marked.clamp(1, text.chars().count().saturating_sub(before).max(1)));
        let kind = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let gutter = " ".repeat(line.to_string().len());
        let mut out = format!("{kind}: {}\n", self.message);
        let _ = writeln!(out, "{gutter}--> {file}:{line}:{column}");
        let _ = writeln!(out, "{gutter} |\n{line} | {text}");
        let _ = writeln!(out, "{}", format!("{gutter} | {}{carets} {}", " ".repeat(before), self.label).trim_end());
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "{gutter} = help: {hint}");
        }
        out
    }
}

/// Cuts a line so that column `at` is seen; returns it and the column's place in it.
fn window(text: &str, at: usize) -> (String, usize) {
    let chars: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let start = if at > WIDTH / 2 && chars.len() > WIDTH { at - WIDTH / 2 } else { 0 };
    (chars.iter().skip(start).take(WIDTH).collect(), at - start)
}

/// Returns the last character boundary at or before `at`.
fn floor(source: &str, at: usize) -> usize {
    (0..=at.min(source.len())).rev().find(|at| source.is_char_boundary(*at)).unwrap_or(0)
}

/// Returns the candidate that differs least from what was written, if it is close enough to be a slip.
pub(super) fn nearest<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + wanted.chars().count() / 4;
    candidates.map(|name| (distance(wanted, name), name)).filter(|(d, _)| *d <= limit).min().map(|(_, name)| name)
}

/// Counts insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 3 || a.len() > 64 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if swap { best.min(rows[i - 2][j - 2] + 1) } else { best }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_points_at_the_place() {
        let source = "direction both\nrule a\n    raed(_) => nothing\n";
        let at = source.find("raed").expect("it is there");
        let found = Diagnostic::error(at..at + 4, "`raed` is not a system call", "expected a system call")
            .hint("did you mean `read`?");
        assert_eq!(
            found.render("kv.rules", source),
            "error: `raed` is not a system call\n --> kv.rules:3:5\n  |\n3 |     raed(_) => nothing\n  |     ^^^^ expected a system call\n  = help: did you mean `read`?\n"
        );
    }

    #[test]
    fn any_span_renders() {
        let source = "ä\n\tб => \u{1F980}";
        for start in 0..source.len() + 3 {
            let found = Diagnostic::error(start..start + 2, "m", "l");
            assert!(found.render("f", source).contains("-->"));
        }
    }

    #[test]
    fn slips_are_recognised() {
        assert_eq!(nearest("raed", ["write", "read", "readv"].into_iter()), Some("read"));
        assert_eq!(nearest("frobnicate", ["write", "read"].into_iter()), None);
    }
}
