//! `attach`, `detach`, `mode` and `stats`.

use std::fs;

use super::args::{AttachArgs, Cli, ModeArgs, StatsArgs, TargetArgs};
use super::client::{Client, mismatched};
use super::progress::Progress;
use super::target::{Among, find, find_among};
use super::{out, spawn};
use crate::control::Code;
use crate::control::protocol::{Answer, Problem, Request};
use crate::monitor::render::{self, Extent};
use crate::monitor::{AttachOptions, StatsSnapshot};

pub(super) fn attach(cli: &Cli, args: &AttachArgs) -> Result<Code, Problem> {
    let pid = find(&args.target, "attaching")?;
    let progress = Progress::begin(cli, "starting the daemon");
    let mut client = spawn::connect_or_start(&cli.place)?;
    progress.tell("loading what observes into the kernel");
    let options = AttachOptions { mode: args.mode, slow_threshold: args.slow, slow_scope: args.slow_scope };
    let answer = client.ask(Request::Attach { pid, options, name: args.name.clone() })?;
    drop(progress);
    match answer {
        Answer::Attached(target) if cli.json => out::json(&target),
        Answer::Attached(target) => out::said(
            cli,
            &format!(
                "observing process {} ({}), mode {}; nothing in it has changed\n",
                target.pid, target.name, target.options.mode
            ),
        ),
        other => return Err(mismatched(&other)),
    }
    Ok(Code::Done)
}

pub(super) fn detach(cli: &Cli, args: &TargetArgs) -> Result<Code, Problem> {
    let mut client = Client::connect(&cli.place.dirs())?;
    let pid = find_among(&mut client, args, "detaching", Among::Observed)?;
    done(cli, &client.ask(Request::Detach { pid })?, &format!("process {pid} is no longer observed\n"))
}

pub(super) fn mode(cli: &Cli, args: &ModeArgs) -> Result<Code, Problem> {
    let mut client = Client::connect(&cli.place.dirs())?;
    let pid = find_among(&mut client, &args.target, "changing the mode", Among::Observed)?;
    let mode = args.mode;
    done(cli, &client.ask(Request::Mode { pid, mode })?, &format!("process {pid} is observed in mode {mode}\n"))
}

/// Prints that something is done.
pub(super) fn done(cli: &Cli, answer: &Answer, text: &str) -> Result<Code, Problem> {
    match answer {
        Answer::Done {} if cli.json => out::json(&serde_json::json!({"done": text.trim_end()})),
        Answer::Done {} => out::said(cli, text),
        other => return Err(mismatched(other)),
    }
    Ok(Code::Done)
}

pub(super) fn stats(cli: &Cli, args: &StatsArgs) -> Result<Code, Problem> {
    let mut client = Client::connect(&cli.place.dirs())?;
    let pid = find_among(&mut client, &args.target, "reading statistics", Among::Observed)?;
    if let Some(path) = &args.export {
        let log = match client.ask(Request::Export { pid })? {
            Answer::Export(log) => log,
            other => return Err(mismatched(&other)),
        };
        fs::write(path, log).map_err(|e| {
            let tried = format!("writing {}", path.display());
            Problem::new(Code::Usage, tried, e.to_string(), "choose a file that may be written")
        })?;
        return done(cli, &Answer::Done {}, &format!("the interval log is in {}\n", path.display()));
    }
    loop {
        print(cli, &snapshot(&mut client, pid)?);
        match args.watch {
            Some(interval) => std::thread::sleep(interval),
            None => return Ok(Code::Done),
        }
    }
}

fn snapshot(client: &mut Client, pid: i32) -> Result<StatsSnapshot, Problem> {
    match client.ask(Request::Stats { pid })? {
        Answer::Stats(stats) => Ok(*stats),
        other => Err(mismatched(&other)),
    }
}

/// Prints once what was observed.
pub(super) fn once(cli: &Cli, target: &TargetArgs) -> Result<Code, Problem> {
    let mut client = Client::connect(&cli.place.dirs())?;
    let pid = find_among(&mut client, target, "reading statistics", Among::Observed)?;
    print(cli, &snapshot(&mut client, pid)?);
    Ok(Code::Done)
}

fn print(cli: &Cli, snapshot: &StatsSnapshot) {
    if cli.json {
        out::json(snapshot);
    } else {
        out::text(&render::table(snapshot, Extent::Everything, out::paint()));
    }
}
