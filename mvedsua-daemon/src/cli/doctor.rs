//! `doctor`.

use std::fmt::Write as _;

use serde_json::json;

use super::args::{Cli, DoctorArgs};
use super::progress::Progress;
use super::{out, target};
use crate::control::Code;
use crate::control::protocol::Problem;
use crate::doctor::{self, Check, Verdict};
use crate::report::wrap;
use crate::update::preflight::{self, InspectError, Preflight, Severity};

pub(super) fn doctor(cli: &Cli, args: &DoctorArgs) -> Result<Code, Problem> {
    let progress = Progress::begin(cli, "trying what an update needs of this machine");
    let checks = doctor::check();
    let pid = match args.target() {
        target if target.wanted().is_some() => Some(target::find(&target, "looking at a process")?),
        _ => None,
    };
    let mut preflight = pid.map(preflight::inspect).transpose().map_err(|e| problem_of(&e))?;
    if let Some(preflight) = &mut preflight {
        // An update does not wait for this: it sees what it costs.
        preflight.findings.extend(preflight::spinning(preflight.pid));
    }
    drop(progress);
    let lacks = checks.iter().any(|check| check.verdict == Verdict::Missing);
    let refused = preflight.as_ref().is_some_and(|preflight| !preflight.refusals().is_empty());
    let code = match (lacks, refused) {
        (true, _) => Code::Kernel,
        (false, true) => Code::Refused,
        (false, false) => Code::Done,
    };
    if cli.json {
        out::json(&json!({"code": code, "machine": checks, "target": preflight}));
        return Ok(code);
    }
    let mut text = machine(&checks);
    if let Some(preflight) = &preflight {
        text.push('\n');
        text.push_str(&process(preflight));
    }
    let verdict = match code {
        Code::Kernel => "this machine lacks something",
        Code::Refused => "this machine can update processes, but not this one",
        _ => "nothing stands against an update",
    };
    let _ = writeln!(text, "\n{verdict}");
    out::text(&text);
    Ok(code)
}

/// Returns the problem of a process that could not be looked at.
fn problem_of(error: &InspectError) -> Problem {
    let (code, remedy) = match error {
        InspectError::Gone { .. } => {
            (Code::TargetGone, "check the pid; `--exe`, `--port` and `--unit` find it for you")
        }
        InspectError::Read { .. } => (Code::Kernel, "run it as root"),
    };
    Problem::new(code, "looking at a process", error.to_string(), remedy)
}

fn machine(checks: &[Check]) -> String {
    let mut text = "this machine\n".to_owned();
    for check in checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Weak => "weak",
            Verdict::Missing => "MISSING",
        };
        wrap(&mut text, &format!("  {mark:<7}  {:<24} ", check.name), &check.found);
        if !check.remedy.is_empty() {
            let advice = format!("needed for {}; {}", check.needed_for, check.remedy);
            wrap(&mut text, &format!("{:36}", ""), &advice);
        }
    }
    text
}

fn process(preflight: &Preflight) -> String {
    let mut text =
        format!("process {}: {} threads, {} descriptors\n", preflight.pid, preflight.threads, preflight.descriptors);
    for finding in &preflight.findings {
        let mark = match finding.severity {
            Severity::Refuse => "REFUSED",
            Severity::Warn => "note",
        };
        wrap(&mut text, &format!("  {mark:<7}  {:<14} ", finding.name), &finding.reason);
        wrap(&mut text, &format!("{:26}", ""), &finding.remedy);
    }
    if preflight.findings.is_empty() {
        text.push_str("  ok\n");
    }
    text
}
