//! `package check`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::args::{CheckArgs, Cli, PackageArgs, PackageVerb};
use super::out;
use super::wiring::ForkEngine;
use crate::control::access::{Config, Need};
use crate::control::protocol::Problem;
use crate::control::{Code, Engine as _, packages, process};
use crate::package::{Faults, Package, Trust, Way};
use crate::report::wrap;

pub(super) fn package(cli: &Cli, args: &PackageArgs) -> Result<Code, Problem> {
    match &args.verb {
        PackageVerb::Check(args) => check(cli, args),
    }
}

/// Returns who may write a package, as the daemon sees it. Without a process nothing is known of who runs the program, so
/// only root, and whoever asks, may.
fn trust(cli: &Cli, target: Option<i32>) -> Result<Trust, Problem> {
    let Some(pid) = target else { return Ok(Trust::new(None, 0)) };
    let tried = format!("looking at process {pid}");
    let [owner, _, _, reader] = process::uids_of(pid)
        .map_err(|e| Problem::new(Code::TargetGone, tried.clone(), e.to_string(), "check the pid"))?;
    let access = Config::load(&cli.place.config)
        .map_err(|e| Problem::new(Code::Usage, tried, e.to_string(), "correct it, or name another with --config"))?
        .access;
    Ok(Trust::new(access.check(owner, Need::Update, None).is_ok().then_some(owner), reader))
}

/// Looks at a package without a daemon.
fn check(cli: &Cli, args: &CheckArgs) -> Result<Code, Problem> {
    let trust = trust(cli, args.target)?;
    let scratch = std::env::temp_dir();
    let package = match Package::open(&args.path, &trust, &scratch) {
        Ok(package) => package,
        Err(faults) if cli.json => {
            out::json(&json!({"package": null, "faults": faults, "notes": []}));
            return Ok(packages::unfit(&args.path, &faults).code);
        }
        Err(faults) => return Ok(tell(&args.path, &faults)),
    };
    if let Some(pid) = args.target {
        packages::is_for(&package, pid)?;
    }
    let terms = package.wishes.terms();
    let notes = packages::lacking(Some(&package), ForkEngine.abilities());
    if cli.json {
        out::json(&json!({"package": package.info, "terms": terms, "faults": [], "notes": notes}));
        return Ok(Code::Done);
    }
    let mut text = format!("{}: nothing is wrong\n", args.path.display());
    let mut field = |name: &str, value: &str| wrap(&mut text, &format!("  {name:<8} "), value);
    let info = &package.info;
    field("name", &info.name);
    if let Some(description) = &info.description {
        field("about", description);
    }
    field("method", &info.method.to_string());
    for from in &info.from {
        field("from", from.as_str());
    }
    if let Some(new) = &package.new {
        let object = new.object.file_name().unwrap_or_default().display();
        let entry = match &new.way {
            Way::InPlace { entry } => format!(", entry {entry}"),
            Way::Binary => String::new(),
        };
        field("to", &format!("{}, {object}{entry}", new.build_id));
    }
    for rules in &package.rules {
        field("rules", &rules.file_name().unwrap_or_default().display().to_string());
    }
    field("policy", &terms.to_string());
    for note in &notes {
        field("note", note);
    }
    out::text(&text);
    Ok(Code::Done)
}

fn tell(path: &Path, faults: &Faults) -> Code {
    let mut text = format!("{faults}\n");
    let count = faults.0.len();
    let _ = writeln!(text, "{}: {count} {} wrong", path.display(), if count == 1 { "thing is" } else { "things are" });
    out::text(&text);
    packages::unfit(path, faults).code
}
