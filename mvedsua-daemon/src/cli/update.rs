//! `update`, `promote`, `confirm`, `rollback` and `status`.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use super::args::{Cli, PromoteArgs, RollbackArgs, TargetArgs, UpdateArgs};
use super::client::{Client, mismatched};
use super::observe::done;
use super::progress::Progress;
use super::target::{self, Among, find_among};
use super::{out, rules, spawn, status_text};
use crate::control::protocol::{Answer, Ask, Insist, Problem, Request};
use crate::control::status::{ResultStatus, Status, TargetStatus};
use crate::control::{Code, packages};
use crate::package::{Lockstep, Wishes};

/// How often a stage that lasts is told where there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(5);

pub(super) fn update(cli: &Cli, args: &UpdateArgs) -> Result<Code, Problem> {
    let ask = ask_of(args)?;
    // Before anybody is asked: what cannot work is said at once.
    if ask.to == Ask::ITSELF {
        packages::check_terms(&ask.wishes.terms(), None, &[])?;
    }
    let pid = target::find(&args.target, "updating")?;
    let progress = Progress::begin(cli, "starting the daemon");
    let mut client = spawn::connect_or_start(&cli.place)?;
    progress.tell("looking at the process and the next version");
    let answer = client.ask(Request::Update { pid, ask: Box::new(ask) })?;
    drop(progress);
    let update = match answer {
        Answer::Started { update } => update,
        other => return Err(mismatched(&other)),
    };
    if args.wait {
        return wait(cli, &mut client, pid);
    }
    if cli.json {
        out::json(&serde_json::json!({"update": update, "pid": pid}));
    } else {
        out::said(
            cli,
            &format!("update {update} of process {pid} has begun; `mvedsuad status {pid}` shows how far it is\n"),
        );
    }
    Ok(Code::Done)
}

fn ask_of(args: &UpdateArgs) -> Result<Ask, Problem> {
    let wishes = Wishes {
        promote: args.promote,
        confirm: args.confirm,
        soak: args.soak,
        min_calls: args.min_calls,
        min_outputs: args.min_outputs,
        retries: args.retries,
        timeout: args.timeout,
        log_memory: args.log_memory,
        log_disk: args.log_disk,
        on_full: args.on_full,
        on_parting: args.on_parting,
        threads: args.threads,
        stops: args.stops,
        memory_limit: args.memory_limit,
        latency_budget_percent: args.latency_budget,
        max_slowdown: args.max_slowdown,
        accept: args.accept,
        lockstep: args.lockstep.then_some(Lockstep::On),
        ..Wishes::default()
    };
    let mut to = args.to.clone();
    // The daemon has a directory of its own.
    if to.contains('/') {
        let absolute = std::path::absolute(&to).map_err(|e| {
            let tried = format!("finding the package {to}");
            Problem::new(Code::Usage, tried, e.to_string(), "give its absolute path")
        })?;
        to = absolute.display().to_string();
    }
    let rules = match &args.rules {
        Some(file) => Some(rules::read_good(file)?),
        None => None,
    };
    let record = match &args.record {
        Some(file) => Some(std::path::absolute(file).map_err(|e| {
            let tried = format!("finding {}", file.display());
            Problem::new(Code::Usage, tried, e.to_string(), "give its absolute path")
        })?),
        None => None,
    };
    Ok(Ask { to, library: args.library.clone(), wishes, rules, record })
}

/// Shows how the update goes on until there is a verdict.
fn wait(cli: &Cli, client: &mut Client, pid: i32) -> Result<Code, Problem> {
    let mut teller = Teller::new(cli, pid);
    let last = client.follow(Request::Follow { pid }, |answer| {
        if let Answer::Status(status) = answer {
            teller.tell(&status);
        }
    });
    drop(teller);
    let status = match last? {
        Answer::Status(status) => status,
        other => return Err(mismatched(&other)),
    };
    let result: ResultStatus =
        target_of(&status, pid).and_then(|target| target.update.clone()?.result).ok_or_else(|| {
            let tried = format!("waiting for the update of process {pid}");
            Problem::new(Code::Unreachable, tried, "the daemon does not know what came of it", "look at its log")
        })?;
    if cli.json {
        out::json(&*status);
    } else {
        if result.code == Code::Done {
            out::said(cli, &format!("{}\n", result.text));
        } else {
            out::text(&format!("{}\n", result.text));
        }
        if result.code != Code::Done {
            out::text(&format!("`mvedsuad report {pid}` shows what was found\n"));
        }
    }
    Ok(result.code)
}

fn target_of(status: &Status, pid: i32) -> Option<&TargetStatus> {
    status.targets.iter().find(|target| target.concerns(pid))
}

/// Tells the progress: one line that is written over on a terminal, a line at each change elsewhere, JSON for programs.
struct Teller<'a> {
    cli: &'a Cli,
    pid: i32,
    progress: Progress,
    told: Option<(String, Instant)>,
}

impl<'a> Teller<'a> {
    fn new(cli: &'a Cli, pid: i32) -> Self {
        Teller { cli, pid, progress: Progress::begin(cli, "the update begins"), told: None }
    }

    fn tell(&mut self, status: &Status) {
        if self.cli.json {
            out::json(status);
            return;
        }
        let Some(target) = target_of(status, self.pid) else { return };
        let line = status_text::progress(target);
        self.progress.tell(&line);
        if self.progress.is_drawn() || self.cli.quiet {
            return;
        }
        let stage = target.stage.to_string();
        let due = self.told.as_ref().is_none_or(|(told, at)| *told != stage || at.elapsed() >= TELL_EVERY);
        if due {
            out::text(&format!("{line}\n"));
            self.told = Some((stage, Instant::now()));
        }
    }
}

/// Asks for something that may take long; what it waits for is told meanwhile, on standard error.
fn ask_and_tell(cli: &Cli, client: &mut Client, pid: i32, request: Request) -> Result<Answer, Problem> {
    let progress = Progress::begin(cli, "asked for; the daemon is at it");
    client.follow(request, |answer| {
        if let Answer::Status(status) = answer
            && let Some(target) = target_of(&status, pid)
        {
            let line = status_text::progress(target);
            progress.tell(&line);
            if !progress.is_drawn() && !cli.json && !cli.quiet {
                // Where even that cannot be written there is nobody to tell.
                drop(writeln!(io::stderr(), "{line}"));
            }
        }
    })
}

pub(super) fn promote(cli: &Cli, args: &PromoteArgs) -> Result<Code, Problem> {
    let mut client = Client::connect(&cli.place.dirs())?;
    let pid = find_among(&mut client, &args.target, "promoting", Among::Updated)?;
    let evidence = if args.force { Insist::Waived } else { Insist::Required };
    let answer = ask_and_tell(cli, &mut client, pid, Request::Promote { pid, evidence })?;
    let status = target::status(&mut client, Some(pid))?;
    let text = target_of(&status, pid).map_or("promoted\n".to_owned(), |target| {
        let pause = target.update.as_ref().and_then(|update| update.promotion_pause_us);
        let pause = pause.map_or(String::new(), |us| format!(", the pause was {}.{:02} ms", us / 1000, us % 1000 / 10));
        format!(
            "promoted: process {} serves{pause}; `mvedsuad confirm {}` ends the old version\n",
            target.pid, target.pid
        )
    });
    if cli.json {
        out::json(&status);
        return Ok(Code::Done);
    }
    done(cli, &answer, &text)
}

pub(super) fn confirm(cli: &Cli, args: &TargetArgs) -> Result<Code, Problem> {
    let mut client = Client::connect(&cli.place.dirs())?;
    let pid = find_among(&mut client, args, "confirming", Among::Updated)?;
    let answer = ask_and_tell(cli, &mut client, pid, Request::Confirm { pid })?;
    finish(cli, &mut client, pid, &answer)
}

pub(super) fn rollback(cli: &Cli, args: &RollbackArgs) -> Result<Code, Problem> {
    let mut client = Client::connect(&cli.place.dirs())?;
    let pid = find_among(&mut client, &args.target, "rolling back", Among::Updated)?;
    let answer = ask_and_tell(cli, &mut client, pid, Request::Rollback { pid, reason: args.reason.clone() })?;
    finish(cli, &mut client, pid, &answer)
}

/// Prints how an update ended that was just ended.
fn finish(cli: &Cli, client: &mut Client, pid: i32, answer: &Answer) -> Result<Code, Problem> {
    let status = target::status(client, Some(pid))?;
    if cli.json {
        out::json(&status);
        return Ok(Code::Done);
    }
    let result = target_of(&status, pid).and_then(|target| target.update.as_ref()?.result.clone());
    done(cli, answer, &format!("{}\n", result.map_or("done".to_owned(), |result| result.text)))
}

pub(super) fn status(cli: &Cli, args: &TargetArgs) -> Result<Code, Problem> {
    let mut client = Client::connect(&cli.place.dirs())?;
    let pid = match args.wanted() {
        Some(_) => Some(find_among(&mut client, args, "looking at a process", Among::Observed)?),
        None => None,
    };
    let status = target::status(&mut client, pid)?;
    if cli.json {
        out::json(&status);
    } else {
        out::text(&status_text::render(&status));
    }
    Ok(Code::Done)
}
