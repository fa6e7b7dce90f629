//! `compare`.

use std::fmt::Write as _;

use mvedsua_binary::classes::Class;
use mvedsua_binary::verdict::Verdict;
use mvedsua_binary::{Comparison, Report, listing};

use super::args::{Cli, CompareArgs};
use super::debug_files::DebugFiles;
use super::progress::Progress;
use super::{out, versions};
use crate::control::Code;
use crate::control::protocol::Problem;

pub(super) fn compare(cli: &Cli, args: &CompareArgs) -> Result<Code, Problem> {
    let progress = Progress::begin(cli, "reading the two versions");
    let (old, new) = versions::read_both(&args.old, &args.new, args.file.as_deref())?;
    progress.tell("comparing the two versions");
    let debug = DebugFiles::read((&old, &new), &args.debug)?;
    let mut comparison = versions::compare(&old, &new)?;
    debug.prove(&mut comparison);
    let report = Report::of(&comparison);
    drop(progress);
    if cli.json {
        out::json(&report);
    } else {
        let mut text = report.text();
        if args.code {
            listings(&comparison, &mut text);
        }
        out::text(&text);
    }
    Ok(code_of(&comparison.verdict))
}

/// Returns the exit code that says the verdict.
pub(super) fn code_of(verdict: &Verdict) -> Code {
    match verdict {
        Verdict::Updatable { .. } => Code::Done,
        Verdict::Refused { .. } => Code::Refused,
    }
}

fn listings(comparison: &Comparison<'_>, text: &mut String) {
    for fate in comparison.fates.changed.iter().filter(|fate| fate.class != Class::LineNumbers) {
        let name = match (fate.old, fate.new) {
            (Some(index), _) => comparison.old.function_name(index),
            (None, Some(index)) => comparison.new.function_name(index),
            (None, None) => continue,
        };
        let _ = write!(text, "\n{name}: {}\n{}", fate.class, listing::side_by_side(comparison, fate));
    }
}
