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
    pub(super) known: Option<String>,
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

/// Reads one list: a command on each line, `#` before a comment, `#! reason` before a command that cannot be followed, and
/// here-documents as in a shell.
fn parse(list: &'static str, text: &str) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut known: Option<String> = None;
    let mut rest = text.lines();
    while let Some(line) = rest.next() {
        if let Some(reason) = line.strip_prefix("#!") {
            known = Some(reason.trim().to_owned());
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
        let lines = parse("shell", "# about\ncat <<END\ntext\nEND\n\n#! no way\nfalse\ntrue\n").unwrap();
        let line = |command: &str, known: Option<&str>| Line {
            list: "shell",
            command: command.to_owned(),
            known: known.map(str::to_owned),
        };
        let expected = [line("cat <<END\ntext\nEND", None), line("false", Some("no way")), line("true", None)];
        assert_eq!(lines, expected);
    }

    #[test]
    fn every_list_can_be_read_and_there_are_hundreds_of_lines() {
        assert!(all().unwrap().len() > 400);
    }
}
