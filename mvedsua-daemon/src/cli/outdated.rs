//! `outdated`.

use std::fmt::Write as _;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser as _, ValueEnum as _};
use serde_json::{Value, json};

use super::args::{Cli, OutdatedArgs, UpdateArgs, Verb};
use super::progress::Progress;
use super::table::{Lean, Table};
use super::{out, target, update};
use crate::control::Code;
use crate::control::access::{Config, OutdatedPolicy};
use crate::control::next_version::Wanted;
use crate::control::protocol::Problem;
use crate::outdated::{Evidence, OutdatedFile, OutdatedProcess, Package, Survey, Verdict};
use crate::package::Accept;
use crate::report::wrap;

/// How long `--brief` may take. An upgrade of packages waits for it.
const BRIEF_LIMIT: Duration = Duration::from_secs(4);
/// How much of a path stands in the table.
const PATH_ROOM: usize = 56;
/// How many notices are listed; the rest is counted.
const NOTICES: usize = 12;

pub(super) fn outdated(cli: &Cli, args: &OutdatedArgs) -> Result<Code, Problem> {
    let pid = match args.target.wanted() {
        Some(_) => Some(target::find(&args.target, "looking for outdated code")?),
        None => None,
    };
    if args.brief {
        return Ok(brief(pid));
    }
    let policy = if args.update { Some(accepted(cli)?) } else { None };
    let progress = Progress::begin(cli, "looking at the processes");
    let mut survey = take(pid)?;
    progress.tell("looking for the packages of what is outdated");
    survey.find_packages();
    drop(progress);
    if !args.no_compare {
        let progress = Progress::of(cli, "comparing", survey.files.len());
        survey.compare(|path| progress.step(&format!("comparing {}", path.display())));
    }
    let code = if survey.processes.is_empty() { Code::Done } else { Code::Outdated };
    if cli.json {
        out::json(&as_json(&survey, code));
    } else {
        out::text(&as_text(&survey));
    }
    match policy {
        Some(policy) => Ok(update_all(cli, &survey, &policy)),
        None => Ok(code),
    }
}

fn take(pid: Option<i32>) -> Result<Survey, Problem> {
    Survey::take(pid).map_err(|e| {
        Problem::new(
            Code::Kernel,
            "looking for outdated code",
            e.to_string(),
            "run it as root, or as the process's user",
        )
    })
}

/// Prints one line, whatever happens.
fn brief(pid: Option<i32>) -> Code {
    let deadline = Instant::now() + BRIEF_LIMIT;
    let (sender, lines) = mpsc::channel();
    // It is left alone when it takes too long, and ends with this program.
    thread::spawn(move || {
        let mut survey = match take(pid) {
            Ok(survey) => survey,
            Err(problem) => return drop(sender.send(format!("mvedsuad: {}", problem.why))),
        };
        drop(sender.send(brief_line(survey.processes.len(), None)));
        survey.compare(|_| {});
        drop(sender.send(brief_line(survey.processes.len(), Some(survey.updatable()))));
    });
    let mut line = "mvedsuad: the processes could not be looked at in time: mvedsuad outdated".to_owned();
    while let Ok(better) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        line = better;
    }
    out::text(&format!("{}\n", clean(&line)));
    Code::Done
}

fn brief_line(count: usize, updatable: Option<usize>) -> String {
    let subject = match count {
        0 => return "mvedsuad: no process runs outdated code".to_owned(),
        1 => "1 process runs".to_owned(),
        _ => format!("{count} processes run"),
    };
    let can = match updatable {
        None => String::new(),
        Some(0) => ", none can be updated in place".to_owned(),
        Some(updatable) => format!(", {updatable} can be updated in place"),
    };
    format!("mvedsuad: {subject} outdated code{can}: mvedsuad outdated")
}

fn as_json(survey: &Survey, code: Code) -> Value {
    let process = |process: &OutdatedProcess| {
        let mut value = json!(process);
        value["files"] = survey.files_of(process).map(|file| json!(file)).collect();
        value
    };
    json!({
        "code": code,
        "outdated": survey.processes.len(),
        "updatable": survey.updatable(),
        "unread": survey.unread,
        "processes": survey.processes.iter().map(process).collect::<Vec<_>>(),
    })
}

fn as_text(survey: &Survey) -> String {
    let mut text = String::new();
    for process in &survey.processes {
        let unit = process.unit.as_ref().map(|unit| format!(", {unit}")).unwrap_or_default();
        let head = format!("process {}, {}{unit}: {}", process.pid, process.name, in_short(process));
        wrap(&mut text, "", &clean(&head));
        let mut table = Table::new(&[("file", Lean::Left), ("verdict", Lean::Left), ("notices", Lean::Left)]);
        for file in survey.files_of(process) {
            let path = clean(&short(&file.path.to_string_lossy()));
            table.row([path, file.verdict.word().to_owned(), notices(file)]);
        }
        text.push_str(&table.render("  "));
        text.push('\n');
    }
    if !survey.files.is_empty() {
        text.push_str("files\n");
    }
    survey.files.iter().for_each(|file| describe(&mut text, file));
    if !survey.files.is_empty() {
        text.push('\n');
    }
    let line = brief_line(survey.processes.len(), Some(survey.updatable()));
    let line = line.trim_start_matches("mvedsuad: ").trim_end_matches(": mvedsuad outdated");
    let _ = writeln!(text, "{line}");
    if survey.unread > 0 {
        let processes = if survey.unread == 1 { "process" } else { "processes" };
        let _ = writeln!(text, "{} {processes} could not be looked at for want of rights", survey.unread);
    }
    text
}

/// Returns the verdict on a process; the reasons stand beside the files, of which other processes may have the same.
fn in_short(process: &OutdatedProcess) -> String {
    match (&process.verdict, &process.refusal) {
        (Verdict::Restart { .. }, Some(why)) => {
            format!("needs a restart; an update of the process would be refused: {why}")
        }
        (Verdict::Restart { .. }, None) => "needs a restart".to_owned(),
        (Verdict::Unknown { .. }, _) => "what can be done is not known".to_owned(),
        (verdict @ (Verdict::Update { .. } | Verdict::Same), _) => verdict.to_string(),
    }
}

/// Returns the notices of a file in a few words.
fn notices(file: &OutdatedFile) -> String {
    let Some(security) = file.package.as_ref().and_then(|package| package.security.as_ref()) else {
        return String::new();
    };
    if !security.is_notice() {
        return String::new();
    }
    let count = match security.cves.len() {
        0 => "security".to_owned(),
        1 => "1 CVE".to_owned(),
        count => format!("{count} CVEs"),
    };
    security.urgency.as_ref().map_or(count.clone(), |urgency| clean(&format!("{count}, {urgency}")))
}

fn describe(text: &mut String, file: &OutdatedFile) {
    wrap(text, "  ", &clean(&file.path.to_string_lossy()));
    let mut line = |name: &str, value: &str| wrap(text, &format!("      {name:<9} "), &clean(value));
    let id = |id: &Option<String>| id.clone().unwrap_or_else(|| "not known".to_owned());
    let builds = format!("{} → {}", id(&file.old_build_id), id(&file.new_build_id));
    match file.evidence {
        Evidence::BuildId => line("build-id", &builds),
        Evidence::Name => line("build-id", &format!("{builds} (its name leads to another file)")),
        Evidence::OtherFile => line("build-id", "none; its path leads to another file, of another size or time"),
        Evidence::Gone => line("build-id", &id(&file.old_build_id)),
    }
    if let Some(path) = &file.new_path {
        line("now", &path.to_string_lossy());
    }
    if let Some(package) = &file.package {
        let before = package.running.as_deref().unwrap_or("an older version");
        line("package", &format!("{} {before} → {}", package.name, package.installed));
        line("security", &security(package));
    }
    match &file.new_path {
        Some(path) if file.verdict.is_update() => {
            line("verdict", &format!("`update --to {}` can do it (inferred)", path.display()));
        }
        _ => line("verdict", &file.verdict.to_string()),
    }
}

/// Returns what a package's changelog says.
fn security(package: &Package) -> String {
    let Some(security) = &package.security else { return "no changelog, or nothing in it".to_owned() };
    let urgency = security.urgency.as_deref().unwrap_or("unknown");
    let archive = if security.is_from_security_archive { ", from the archive of security updates" } else { "" };
    let mut text = match (&security.since, security.entries) {
        (None, _) => format!("urgency {urgency}{archive}; the newest entry mentions "),
        (Some(_), 1) => format!("urgency {urgency}{archive}; mentioned: "),
        (Some(_), entries) => format!("urgency {urgency}{archive}; {entries} entries mention "),
    };
    match security.cves.as_slice() {
        [] => text.push_str("no CVE"),
        cves => text.push_str(&cves.iter().take(NOTICES).cloned().collect::<Vec<_>>().join(", ")),
    }
    if security.cves.len() > NOTICES {
        let _ = write!(text, " and {} more", security.cves.len() - NOTICES);
    }
    text
}

/// Shortens a path in its middle.
fn short(path: &str) -> String {
    let chars: Vec<char> = path.chars().collect();
    if chars.len() <= PATH_ROOM {
        return path.to_owned();
    }
    let behind = PATH_ROOM * 2 / 3;
    let before = PATH_ROOM - behind - 1;
    chars[..before].iter().chain(&['…']).chain(&chars[chars.len() - behind..]).collect()
}

/// Names come from processes and packages that nobody vouches for; a terminal gets nothing of them but letters.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Returns the policy, where the configuration lets anything be updated.
fn accepted(cli: &Cli) -> Result<OutdatedPolicy, Problem> {
    let tried = "updating the processes that run outdated code";
    let path = &cli.place.config;
    let config = Config::load(path)
        .map_err(|e| Problem::new(Code::Refused, tried, e.to_string(), "correct it; nothing was touched"))?;
    if config.outdated.accept == Some(Accept::Inferred) {
        return Ok(config.outdated);
    }
    let why = format!("the configuration {} does not accept it", path.display());
    let remedy = "verdicts come from the files alone; `accept = \"inferred\"` under `[outdated]` lets them count, and \
                  `mvedsuad update PID --to installed` updates a single process";
    Err(Problem::new(Code::Refused, tried, why, remedy))
}

/// Updates what can be updated, one after the other. Returns the code of the first update that did not go well.
fn update_all(cli: &Cli, survey: &Survey, policy: &OutdatedPolicy) -> Code {
    let mut first = Code::Done;
    let form = if cli.json { out::Form::Json } else { out::Form::Text };
    // One of which a part could be updated takes a restart anyhow.
    for process in survey.processes.iter().filter(|process| process.verdict.is_update()) {
        if !cli.json {
            let line = format!("updating process {}, {}", process.pid, process.name);
            out::text(&format!("{}\n", clean(&line)));
        }
        for to in next_versions(survey, process) {
            let done = update_args(process.pid, &to, policy).and_then(|args| update::update(cli, &args));
            let code = done.unwrap_or_else(|problem| {
                out::problem(&problem, form);
                problem.code
            });
            if first == Code::Done {
                first = code;
            }
            // One that nobody can reach updates no other either; one that may be harmed has to be looked at first.
            if matches!(code, Code::Unreachable | Code::Harmed) {
                return code;
            }
        }
    }
    first
}

/// Returns what a process is updated to, one after the other: what is installed under the old names, and files with other
/// names.
fn next_versions(survey: &Survey, process: &OutdatedProcess) -> Vec<String> {
    let files = || survey.files_of(process).filter(|file| file.verdict.is_update());
    let installed = files().any(|file| file.new_path.is_none()).then(|| Wanted::INSTALLED.to_owned());
    let renamed = files().filter_map(|file| file.new_path.as_deref());
    let renamed = renamed.map(|path| format!("/proc/{}/root{}", process.pid, path.display()));
    installed.into_iter().chain(renamed).collect()
}

/// Returns what an operator would type for one of them.
fn update_args(pid: i32, to: &str, policy: &OutdatedPolicy) -> Result<UpdateArgs, Problem> {
    let choice = |value: Option<clap::builder::PossibleValue>| value.map_or(String::new(), |v| v.get_name().to_owned());
    let mut words: Vec<String> =
        ["mvedsuad", "update", &pid.to_string(), "--to", to, "--wait"].map(str::to_owned).into();
    words.extend(["--accept".to_owned(), choice(policy.accept.unwrap_or_default().to_possible_value())]);
    words.extend(["--promote".to_owned(), choice(policy.promote.to_possible_value())]);
    words.extend(["--confirm".to_owned(), choice(policy.confirm.to_possible_value())]);
    words.extend(policy.soak.iter().flat_map(|soak| ["--soak".to_owned(), soak.clone()]));
    let wrong = |why: String| {
        let remedy = "correct what the configuration says under `[outdated]`";
        Problem::new(Code::Usage, "updating the processes that run outdated code", why, remedy)
    };
    match Cli::try_parse_from(words).map_err(|e| wrong(e.to_string()))?.verb {
        Verb::Update(args) => Ok(*args),
        _ => Err(wrong("it is no update".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_it_all() {
        assert_eq!(brief_line(0, Some(0)), "mvedsuad: no process runs outdated code");
        assert_eq!(
            brief_line(3, Some(2)),
            "mvedsuad: 3 processes run outdated code, 2 can be updated in place: mvedsuad outdated"
        );
        assert_eq!(brief_line(1, None), "mvedsuad: 1 process runs outdated code: mvedsuad outdated");
        assert!(brief_line(5, Some(0)).contains("none can"));
    }

    #[test]
    fn long_paths_are_shortened_in_the_middle() {
        let long = format!("/usr/lib/{}/libx.so.1", "a".repeat(80));
        let text = short(&long);
        assert_eq!(text.chars().count(), PATH_ROOM);
        assert!(text.starts_with("/usr/lib/a") && text.ends_with("/libx.so.1"), "{text}");
        assert_eq!(short("/bin/x"), "/bin/x");
        assert_eq!(clean("a\x1b[2Jb\n"), "a?[2Jb?");
    }

    #[test]
    fn an_update_is_what_an_operator_would_type() {
        let policy = |soak: &str| OutdatedPolicy {
            accept: Some(Accept::Inferred),
            soak: Some(soak.to_owned()),
            ..OutdatedPolicy::default()
        };
        let args = update_args(7, "installed", &policy("2s")).expect("it parses");
        assert_eq!((args.target.pid, &*args.to, args.wait), (Some(7), "installed", true));
        assert_eq!((args.accept, args.soak), (Some(Accept::Inferred), Some(Duration::from_secs(2))));
        let wrong = update_args(7, "installed", &policy("soon"));
        assert_eq!(wrong.map_err(|problem| problem.code).err(), Some(Code::Usage));
    }
}
