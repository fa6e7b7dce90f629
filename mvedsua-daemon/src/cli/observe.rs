//! `attach`, `detach`, `mode`, `stats` and `top`.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use super::args::{AttachArgs, Cli, ModeArgs, StatsArgs, TargetArgs, TopArgs};
use super::client::{Client, mismatched};
use super::target::{Among, find, find_among};
use super::{out, spawn};
use crate::control::Code;
use crate::control::protocol::{Answer, Problem, Request};
use crate::monitor::render::{self, Extent, Paint};
use crate::monitor::{AttachOptions, StatsSnapshot};

pub(super) fn attach(cli: &Cli, args: &AttachArgs) -> Result<Code, Problem> {
    let pid = find(&args.target, "attaching")?;
    let mut client = spawn::connect_or_start(&cli.place)?;
    let options = AttachOptions { mode: args.mode, slow_threshold: args.slow, slow_scope: args.slow_scope };
    match client.ask(Request::Attach { pid, options, name: args.name.clone() })? {
        Answer::Attached(target) if cli.json => out::json(&target),
        Answer::Attached(target) => out::text(&format!(
            "observing process {} ({}), mode {}; nothing in it has changed\n",
            target.pid, target.name, target.options.mode
        )),
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
        Answer::Done {} => out::text(text),
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
        let snapshot = snapshot(&mut client, pid)?;
        if cli.json {
            out::json(&snapshot);
        } else {
            out::text(&render::table(&snapshot, Extent::Everything, paint()));
        }
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

pub(super) fn top(cli: &Cli, args: &TopArgs) -> Result<Code, Problem> {
    if !io::stdout().is_terminal() || cli.json {
        let remedy = "`mvedsuad stats --watch` prints the same anywhere, with --json too";
        return Err(Problem::new(Code::Usage, "showing `top`", "standard output is not a terminal", remedy));
    }
    let mut client = Client::connect(&cli.place.dirs())?;
    let pid = find_among(&mut client, &args.target, "reading statistics", Among::Observed)?;
    let interval = args.interval.max(Duration::from_millis(100));
    let mut out = io::stdout().lock();
    render::top(&mut out, interval, terminal_rows, paint(), || snapshot(&mut client, pid).map(Some))?;
    Ok(Code::Done)
}

fn paint() -> Paint {
    if io::stdout().is_terminal() { Paint::Coloured } else { Paint::Plain }
}

/// Returns how many lines the terminal has.
fn terminal_rows() -> usize {
    rustix::termios::tcgetwinsize(io::stdout()).map_or(24, |size| usize::from(size.ws_row).max(5))
}
