//! The lists of command lines.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::sh;

/// The lists, in the order in which they are run.
const LISTS: [&str; 7] = ["coreutils", "text", "archives", "shell", "build", "languages", "network"];

/// One command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) list: &'static str,
    pub(super) command: String,
    /// Why it cannot be followed, where that is known.
    pub(super) known: Option<Known>,
}

/// Why a line is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) reason: String,
    /// It may be followed all the same: what stands against it is a race in the program.
    pub(super) at_times: bool,
}

/// Reads all lists.
pub(super) fn all() -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for list in LISTS {
        let path = sh::root().join("tests/programs").join(list).with_extension("list");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        lines.append(&mut parse(list, &text).with_context(|| format!("in {}", path.display()))?);
    }
    Ok(lines)
}

/// Reads one list: a command on each line, `#` before a comment, `#! reason` before a command that cannot be followed, `#?
/// reason` before one that cannot be at times, and here-documents as in a shell.
fn parse(list: &'static str, text: &str) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut known: Option<Known> = None;
    let mut rest = text.lines();
    while let Some(line) = rest.next() {
        let marked = line.strip_prefix("#!").or_else(|| line.strip_prefix("#?"));
        if let Some(reason) = marked {
            known = Some(Known { reason: reason.trim().to_owned(), at_times: line.starts_with("#?") });
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            let mut command = line.to_owned();
            if line.contains("<<END") {
                loop {
                    let Some(more) = rest.next() else { bail!("`{line}` has no END") };
                    command.push('\n');
                    command.push_str(more);
                    if more == "END" {
                        break;
                    }
                }
            }
            lines.push(Line { list, command, known: known.take() });
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_comments_reasons_and_here_documents() {
        let lines = parse("shell", "# about\ncat <<END\ntext\nEND\n\n#! no way\nfalse\n#? a race\ntrue\n").unwrap();
        let line = |command: &str, known: Option<(&str, bool)>| Line {
            list: "shell",
            command: command.to_owned(),
            known: known.map(|(reason, at_times)| Known { reason: reason.to_owned(), at_times }),
        };
        let (never, at_times) = (("no way", false), ("a race", true));
        let expected = [line("cat <<END\ntext\nEND", None), line("false", Some(never)), line("true", Some(at_times))];
        assert_eq!(lines, expected);
    }

    #[test]
    fn every_list_can_be_read_and_there_are_hundreds_of_lines() {
        assert!(all().unwrap().len() > 400);
    }
}
