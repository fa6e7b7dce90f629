//! `package check` and `package build`.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mvedsua_binary::hooks::HookFile;
use mvedsua_binary::reason::Reason;
use mvedsua_binary::report::FileFacts;
use mvedsua_binary::verdict::{Certainty, Verdict};
use mvedsua_binary::{Given, Report};
use serde_json::json;

use super::args::{BuildArgs, CheckArgs, Cli, PackageArgs, PackageVerb};
use super::debug_files::DebugFiles;
use super::progress::Progress;
use super::twin::Twins;
use super::versions::{self, Chosen};
use super::wiring::ForkEngine;
use super::{compare, out, rules, transforms};
use crate::control::access::{Config, Need};
use crate::control::protocol::Problem;
use crate::control::{Code, Engine as _, packages, process};
use crate::package::{
    self, Accept, BuildError, BuildId, Contents, Faults, Method, NewVersion, Package, Proof, Trust, Way,
};
use crate::report::wrap;

pub(super) fn package(cli: &Cli, args: &PackageArgs) -> Result<Code, Problem> {
    match &args.verb {
        PackageVerb::Check(args) => check(cli, args),
        PackageVerb::Build(args) => build(cli, args),
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
    let mapped = args.target.and_then(|pid| mapped_version(&package, pid));
    let report = match args.old.as_deref().or(mapped.as_ref().map(|path| path.as_os_str())) {
        Some(old) => {
            let _progress = Progress::begin(cli, "comparing the versions again");
            Some(compare_again(&package, old, args.file.as_deref())?)
        }
        None => None,
    };
    let code = report.as_ref().map_or(Code::Done, |report| compare::code_of(&report.verdict));
    let terms = package.wishes.terms();
    let mut notes = packages::lacking(Some(&package), ForkEngine.abilities());
    match &report {
        Some(report) => notes.extend(certainty_note(&report.verdict, terms.accept)),
        None if package.info.method == Method::Binary => {
            let options = "`--old OLD`, or `--target PID` with a process that runs the old version";
            notes.push(format!("{options}, compares the versions again and shows what changed"));
        }
        None => {}
    }
    if cli.json {
        let mut said = json!({"package": package.info, "terms": terms, "faults": [], "notes": notes});
        if let Some(report) = &report {
            said["comparison"] = json!(report);
        }
        out::json(&said);
        return Ok(code);
    }
    let verdict = if code == Code::Done { "nothing is wrong" } else { "the versions are too different" };
    let mut text = format!("{}: {verdict}\n", args.path.display());
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
    if let Some(hooks) = package.new.as_ref().and_then(|new| new.hooks.as_ref()) {
        let names: Vec<&str> = hooks.transforms.iter().map(|one| one.name.as_str()).collect();
        let converts = if names.is_empty() { String::new() } else { format!(", converts {}", names.join(", ")) };
        field("hooks", &format!("{}{converts}", hooks.path.file_name().unwrap_or_default().display()));
    }
    if let Some(proof) = package.new.as_ref().and_then(|new| new.proof.as_ref()) {
        field("proof", &proof.to_string());
    }
    for rules in &package.rules {
        field("rules", &rules.file_name().unwrap_or_default().display().to_string());
    }
    field("policy", &terms.to_string());
    for note in &notes {
        field("note", note);
    }
    if let Some(report) = &report {
        text.push('\n');
        text.push_str(&report.text());
    }
    out::text(&text);
    Ok(code)
}

/// Returns the old version, as a process has it mapped, where a package names functions of it.
fn mapped_version(package: &Package, pid: i32) -> Option<PathBuf> {
    let [from] = package.info.from.as_slice() else { return None };
    (package.info.method == Method::Binary).then(|| process::mapped_file(pid, from).ok().flatten()).flatten()
}

/// Compares the new version in a package with the old one, which must be the build that the package is for.
fn compare_again(package: &Package, old: &OsStr, file: Option<&Path>) -> Result<Report, Problem> {
    let Some(NewVersion { object, way: Way::Binary, hooks, proof, .. }) = &package.new else {
        let why = format!("its method is `{}`, and what changed is only known with `binary`", package.info.method);
        return Err(Problem::new(Code::Usage, "comparing the package with a file", why, "leave --old out"));
    };
    let (old, new) = versions::read_both(old, object.as_os_str(), file)?;
    let transforms = hooks.as_ref().map(|hooks| hooks.transforms.as_slice()).unwrap_or_default();
    let given = Given { transforms, shown: None };
    let mut comparison = match proof {
        Some(proof) => versions::compare_with(&old, &new, Given { shown: Some(proof.shown()), ..given })?,
        None => versions::compare_with(&old, &new, given)?,
    };
    let is_proved = match (proof, &comparison.patch) {
        (Some(proof), Some(patch)) => proof.holds_for(patch),
        _ => false,
    };
    match &mut comparison.verdict {
        Verdict::Updatable { certainty } if is_proved => *certainty = Certainty::Proved,
        // What a proof of something else has shown is nothing.
        _ if !comparison.shown.is_empty() => comparison = versions::compare_with(&old, &new, given)?,
        _ => {}
    }
    let report = Report::of(&comparison);
    let found = build_id(&old, &report.old)?;
    if package.info.from.contains(&found) {
        return Ok(report);
    }
    let tried = format!("comparing the package with {}", old.given.display());
    let from: Vec<&str> = package.info.from.iter().map(BuildId::as_str).collect();
    let why = format!("the package updates build-id {}, and this is {found}", from.join(" or "));
    Err(Problem::new(Code::BuildId, tried, why, "name the version that the package was made for"))
}

/// Says what an update needs besides, where the verdict is less sure than the policy wants it.
fn certainty_note(verdict: &Verdict, accept: Accept) -> Option<String> {
    match (verdict, accept) {
        (Verdict::Updatable { certainty: Certainty::Inferred }, Accept::Proved) => {
            let taken = "it is inferred that the versions fit; `update` takes that with `--accept inferred`";
            Some(format!("{taken}, and a package that `package build` proves without it"))
        }
        (Verdict::Updatable { certainty: Certainty::Inferred }, Accept::Inferred)
        | (Verdict::Updatable { certainty: Certainty::Proved }, _)
        | (Verdict::Refused { .. }, _) => None,
    }
}

/// Returns the build-id of a version, without which nobody could say later which file it was.
fn build_id(version: &Chosen, facts: &FileFacts) -> Result<BuildId, Problem> {
    let tried = format!("reading the build-id of {}", version.given.display());
    let remedy = "a package names its versions by their build-ids; `cc -Wl,--build-id` makes one";
    let digits = facts.build_id.as_deref().ok_or_else(|| {
        let why = format!("{} has no build-id", version.file_name.display());
        Problem::new(Code::Refused, tried.clone(), why, remedy)
    })?;
    BuildId::parse(digits).map_err(|why| Problem::new(Code::Refused, tried, format!("`{digits}`: {why}"), remedy))
}

/// Makes a package of what changed between two versions.
fn build(cli: &Cli, args: &BuildArgs) -> Result<Code, Problem> {
    let rules = args.rules.iter().map(|file| rules_of(file)).collect::<Result<Vec<_>, _>>()?;
    let progress = Progress::begin(cli, "comparing the two versions");
    let (old, new) = versions::read_both(&args.old, &args.new, args.file.as_deref())?;
    let mut comparison = versions::compare(&old, &new)?;
    let hooks = args.hooks.as_deref().map(hooks_of).transpose()?;
    let mut debug = DebugFiles::read((&old, &new), &args.debug)?;
    if args.twin && may_be_proved(&comparison.verdict) {
        let twins = Twins { place: &args.twins, network: args.twin_network, progress: &progress };
        debug = debug.with_twins((&old, &new), &twins)?;
    }
    let converted = transforms::find(&args.transforms, &comparison, &debug, &args.follows)?;
    if !converted.is_empty() {
        comparison = versions::compare_with(&old, &new, Given { transforms: &converted, shown: None })?;
    }
    debug.prove(&mut comparison);
    let report = Report::of(&comparison);
    let (from, to) = (build_id(&old, &report.old)?, build_id(&new, &report.new)?);
    let tried = format!("making a package from {} to {}", old.given.display(), new.given.display());
    if from == to {
        let why = format!("both have the build-id {to}: it is the same build");
        return Err(Problem::new(Code::Refused, tried, why, "name two versions; `--to self` rehearses the same one"));
    }
    if let Verdict::Refused { .. } = report.verdict {
        if cli.json {
            out::json(&json!({"package": null, "comparison": report}));
        } else {
            out::text(&report.text());
        }
        return Ok(Code::Refused);
    }
    let name = args.name.clone().unwrap_or_else(|| package::default_name(&new.file_name, &to));
    let dir = args.output.clone().unwrap_or_else(|| PathBuf::from(&name));
    let file = new.file_name.to_string_lossy().into_owned();
    let contents = Contents {
        name,
        description: format!("{file}: {} of {} functions changed", report.functions.len(), report.old.functions),
        from,
        to,
        object: (file, &new.bytes),
        rules,
        hooks: hooks.map(|bytes| (bytes, converted)),
        proof: debug.names().and_then(|from| Proof::of(&comparison, from)),
        report_text: report.text(),
        report_json: format!("{}\n", json!(report)),
    };
    drop(progress);
    let info = contents.write(&dir).map_err(|e| {
        let remedy = match &e {
            BuildError::Exists(_) => "remove it, or name another directory with --output",
            BuildError::Write { .. } => "name a directory that you may write, and files of rules with different names",
            BuildError::Unfit(_) => "nothing was written",
        };
        let code = if matches!(e, BuildError::Unfit(_)) { Code::Refused } else { Code::Usage };
        Problem::new(code, tried, e.to_string(), remedy)
    })?;
    let note = certainty_note(&report.verdict, Accept::default());
    if cli.json {
        out::json(&json!({"package": info, "comparison": report, "notes": note.into_iter().collect::<Vec<_>>()}));
        return Ok(Code::Done);
    }
    let mut text = report.text();
    let _ = writeln!(text, "\nthe package `{}` is in {}", info.name, dir.display());
    if let Some(note) = note {
        wrap(&mut text, "", &note);
    }
    out::text(&text);
    Ok(Code::Done)
}

/// Says whether debug files may prove an update: it is not refused, or for nothing but what is not known.
fn may_be_proved(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Updatable { .. } => true,
        Verdict::Refused { reasons } => reasons.iter().all(Reason::may_be_disproved),
    }
}

/// Reads a file of rules, and returns the name that it has in a package.
fn rules_of(file: &Path) -> Result<(String, String), Problem> {
    let text = rules::read_good(file)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let name = if name.ends_with(".rules") { name.into_owned() } else { format!("{name}.rules") };
    Ok((name, text))
}

/// Reads a shared object with hooks.
fn hooks_of(file: &Path) -> Result<Vec<u8>, Problem> {
    let tried = format!("reading the hooks in {}", file.display());
    let bytes = std::fs::read(file)
        .map_err(|e| Problem::new(Code::Usage, tried.clone(), e.to_string(), "name a file that you may read"))?;
    let remedy = "`cc -shared -fPIC` makes one; mvedsua-sdk/include/mvedsua_hooks.h says what it holds";
    HookFile::read(&bytes).map_err(|why| Problem::new(Code::Refused, tried, why, remedy))?;
    Ok(bytes)
}

fn tell(path: &Path, faults: &Faults) -> Code {
    let mut text = format!("{faults}\n");
    let count = faults.0.len();
    let _ = writeln!(text, "{}: {count} {} wrong", path.display(), if count == 1 { "thing is" } else { "things are" });
    out::text(&text);
    packages::unfit(path, faults).code
}
