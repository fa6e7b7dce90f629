//! `rules check` and `rules test`: nothing here needs a daemon or a process.

use std::fs::File;
use std::io::{BufReader, Write as _};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::args::{Cli, RulesArgs, RulesCheckArgs, RulesTestArgs, RulesVerb};
use super::out;
use super::progress::Progress;
use super::table::{Lean, Table};
use crate::calls;
use crate::control::Code;
use crate::control::protocol::Problem;
use crate::rules::recording::Reader;
use crate::rules::{self, Checked, DryRun, Severity};

/// How many matches are listed for people.
const LISTED: usize = 20;

pub(super) fn rules(cli: &Cli, args: &RulesArgs) -> Result<Code, Problem> {
    match &args.verb {
        RulesVerb::Check(args) => check(cli, args),
        RulesVerb::Test(args) => test(cli, args),
    }
}

/// Reads a file of rules as text.
pub(super) fn read(file: &Path) -> Result<String, Problem> {
    let tried = || format!("reading the rules in {}", file.display());
    let refused = |why: String, remedy: &str| Problem::new(Code::Refused, tried(), why, remedy);
    let size = std::fs::metadata(file).map_err(|e| refused(e.to_string(), "check the path"))?.len();
    if size > rules::MAX_FILE as u64 {
        return Err(refused(format!("it has {size} bytes"), "split it: a megabyte is the most"));
    }
    std::fs::read_to_string(file)
        .map_err(|e| refused(e.to_string(), "rules are UTF-8 text; other bytes are written \\xNN"))
}

/// Reads a file of rules for an update: one with an error is refused, warnings are told.
pub(super) fn read_good(file: &Path) -> Result<String, Problem> {
    let source = read(file)?;
    let checked = rules::check(&source);
    let found = rendered(file, &source, &checked);
    if checked.rules.is_none() {
        let tried = format!("reading the rules in {}", file.display());
        return Err(Problem::new(Code::Refused, tried, format!("\n{found}"), "mend them; nothing was touched"));
    }
    // Where even that cannot be written there is nobody to tell.
    drop(std::io::stderr().write_all(found.as_bytes()));
    Ok(source)
}

fn check(cli: &Cli, args: &RulesCheckArgs) -> Result<Code, Problem> {
    let source = read(&args.file)?;
    let checked = rules::check(&source);
    let code = if checked.rules.is_some() { Code::Done } else { Code::Refused };
    if cli.json {
        let found: Vec<_> = checked
            .diagnostics
            .iter()
            .map(|found| {
                let (line, column) = found.position(&source);
                json!({
                    "severity": found.severity, "line": line, "column": column, "message": found.message,
                    "expected": found.label, "hint": found.hint,
                })
            })
            .collect();
        let names: Vec<&str> = checked.rules.iter().flat_map(|rules| rules.names()).collect();
        out::json(&json!({"file": args.file, "good": checked.rules.is_some(), "rules": names, "found": found}));
        return Ok(code);
    }
    out::text(&rendered(&args.file, &source, &checked));
    if let Some(rules) = &checked.rules {
        out::text(&format!("{}: {} rules, no error\n", args.file.display(), rules.len()));
    }
    Ok(code)
}

/// Renders what was found in a file.
fn rendered(file: &Path, source: &str, checked: &Checked) -> String {
    let name = file.display().to_string();
    checked.diagnostics.iter().map(|found| found.render(&name, source) + "\n").collect()
}

fn test(cli: &Cli, args: &RulesTestArgs) -> Result<Code, Problem> {
    let source = read(&args.file)?;
    let mut checked = rules::check(&source);
    let Some(rules) = checked.rules.take() else {
        let errors = checked.diagnostics.iter().filter(|found| found.severity == Severity::Error).count();
        let tried = format!("testing the rules in {}", args.file.display());
        let why = format!("{errors} errors\n{}", rendered(&args.file, &source, &checked));
        return Err(Problem::new(Code::Refused, tried, why, "mend them; `mvedsuad rules check` shows them alone"));
    };
    let tried = || format!("reading the recording {}", args.recording.display());
    let file = File::open(&args.recording).map_err(|e| {
        Problem::new(Code::Refused, tried(), e.to_string(), "`mvedsuad update … --record FILE` writes one")
    })?;
    let mut reader = Reader::open(BufReader::new(file))
        .map_err(|e| Problem::new(Code::Refused, tried(), e.to_string(), "check the path"))?;
    let progress = Progress::begin(cli, "reading the recording");
    let run = rules::dry_run(Arc::new(rules), &mut reader, args.direction, calls::is_internal);
    drop(progress);
    if cli.json {
        out::json(&run);
    } else {
        out::text(&told(&run));
    }
    // What comes after the place where it breaks off is not known.
    Ok(if run.torn { Code::Inconclusive } else { Code::Done })
}

fn told(run: &DryRun) -> String {
    let mut table = Table::new(&[
        ("rule", Lean::Left),
        ("matched", Lean::Right),
        ("dropped", Lean::Right),
        ("rewritten", Lean::Right),
        ("added", Lean::Right),
        ("not compared", Lean::Right),
    ]);
    for rule in &run.rules {
        let [matched, dropped, rewritten, added, loosened] =
            [rule.matched, rule.dropped, rule.rewritten, rule.added, rule.loosened].map(|number| number.to_string());
        table.row([rule.rule.clone(), matched, dropped, rewritten, added, loosened]);
    }
    let mut text = format!(
        "{}: {} records, {} for the follower\n\n{}\n",
        run.program,
        run.records,
        run.expected,
        table.render("")
    );
    for one in run.applications.iter().take(LISTED) {
        let gave = if one.gave.is_empty() { "nothing".to_owned() } else { one.gave.join(", ") };
        text.push_str(&format!(
            "thread {} records {}-{}: {}: {} => {gave}\n",
            one.slot,
            one.from,
            one.to,
            one.rule,
            one.took.join(", ")
        ));
    }
    if run.applications.len() > LISTED {
        text.push_str(&format!("… and {} more matches\n", run.applications.len() - LISTED));
    }
    for failure in run.failures.iter().take(LISTED) {
        text.push_str(&format!("failed: {failure}\n"));
    }
    for rule in run.rules.iter().filter(|rule| rule.matched == 0) {
        text.push_str(&format!("rule `{}` never matched\n", rule.rule));
    }
    text.push_str(&format!("the recording: {}\n", run.end));
    text
}
