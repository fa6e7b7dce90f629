//! Runs one session of the engine by itself, for tests: `rehearse PID SPILL-FOLDER THREADS STOPS`, where threads run `one-by-one`
//! or `free`, and both versions stop at `each-call`, or they go on without stops as soon as they may (`eager`), or the follower
//! alone does (`eager-follower`).
//!
//! Takes `promote`, `confirm` and `rollback` from standard input, a line each, and prints each event as a line of JSON. It
//! is a process of its own because the engine waits for the processes that it traces, and a test waits for those it started.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use mvedsua_daemon::ptrace::Pid;
use mvedsua_daemon::record::interleaving::Interleaving;
use mvedsua_daemon::update::{Answering, Command, Options, Session, SessionEvent, Stops};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let pid = args.next().context("a pid")?.parse().context("the pid")?;
    let spill_dir = args.next().map(PathBuf::from).context("a folder for the spill file")?;
    let interleaving = match args.next().as_deref() {
        Some("one-by-one") => Interleaving::OneByOne,
        Some("free") => Interleaving::Free,
        other => bail!("how threads run: {other:?}"),
    };
    let eager = Answering::WithoutStops { hot: 1 };
    let (stops, answers) = match args.next().as_deref() {
        Some("each-call") => (Stops::AtEachCall, Answering::AtStops),
        Some("eager-follower") => (Stops::AtEachCall, eager),
        Some("eager") => (Stops::WhereNeeded { calm: 1 }, eager),
        other => bail!("where threads stop: {other:?}"),
    };
    let session = Session::start(Pid(pid), Options { spill_dir, interleaving, stops, answers, ..Options::default() })?;
    let commands = session.commands();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let command = match line.as_str() {
                "promote" => Command::Promote,
                "confirm" => Command::Confirm,
                "rollback" => Command::Rollback { reason: "the test asks for it".into() },
                other => bail!("no such request: {other}"),
            };
            if commands.send(command).is_err() {
                break;
            }
        }
        Ok(())
    });
    for event in session.events() {
        let mut line = serde_json::to_string(&event)?;
        line.push('\n');
        std::io::stdout().write_all(line.as_bytes())?;
        if let SessionEvent::RolledBack { .. } | SessionEvent::Confirmed { .. } | SessionEvent::TargetEnded { .. } =
            event
        {
            return Ok(());
        }
    }
    bail!("the session ended without a last word")
}
