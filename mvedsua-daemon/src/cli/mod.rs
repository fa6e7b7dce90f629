//! The command line: a client of the daemon, and the daemon's own start.
//!
//! Each verb asks the daemon one thing and prints the answer, as text of at most 100 columns or, with `--json`, as one
//! JSON object (a line each, where there are several). The exit code is that of [`Code`]; an error says what was tried,
//! on what, and what to do.

pub mod args;
mod client;
mod compare;
mod daemon;
mod debug_files;
mod doctor;
mod events;
mod generate;
mod journal;
mod log_writer;
mod logging;
mod observe;
mod out;
mod outdated;
mod package;
mod page;
mod past;
mod progress;
mod replay;
mod rules;
mod run;
mod serve;
mod size;
mod spawn;
mod status_text;
mod supervised;
mod symbols;
mod table;
mod target;
mod top;
mod transforms;
mod twin;
mod update;
mod versions;
mod wiring;
mod words;

use clap::Parser as _;

use self::args::{Cli, Verb};
use crate::allocator;
use crate::control::Code;
use crate::control::protocol::Problem;

/// Runs the command line and returns the exit code.
#[must_use]
pub fn run() -> u8 {
    allocator::bound();
    let cli = Cli::parse();
    if let Verb::Run(args) = &cli.verb {
        return run::run(&cli, args);
    }
    if let Verb::Replay(args) = &cli.verb {
        return replay::replay(&cli, args);
    }
    let code = match perform(&cli) {
        Ok(code) => code,
        Err(problem) => {
            out::problem(&problem, if cli.json { out::Form::Json } else { out::Form::Text });
            problem.code
        }
    };
    code.into()
}

fn perform(cli: &Cli) -> Result<Code, Problem> {
    match &cli.verb {
        Verb::Attach(args) => observe::attach(cli, args),
        Verb::Detach(args) => observe::detach(cli, args),
        Verb::Mode(args) => observe::mode(cli, args),
        Verb::Stats(args) => observe::stats(cli, args),
        Verb::Top(args) => top::top(cli, args),
        Verb::Update(args) => update::update(cli, args),
        Verb::Promote(args) => update::promote(cli, args),
        Verb::Confirm(args) => update::confirm(cli, args),
        Verb::Rollback(args) => update::rollback(cli, args),
        Verb::Status(args) => update::status(cli, args),
        Verb::History(args) => past::history(cli, args),
        Verb::Report(args) => past::report(cli, args),
        Verb::Events(args) => events::events(cli, args),
        Verb::Serve(args) => serve::serve(cli, args),
        Verb::Doctor(args) => doctor::doctor(cli, args),
        Verb::Symbols(args) => symbols::symbols(cli, args),
        Verb::Package(args) => package::package(cli, args),
        Verb::Compare(args) => compare::compare(cli, args),
        Verb::Outdated(args) => outdated::outdated(cli, args),
        Verb::Rules(args) => rules::rules(cli, args),
        // They have exit codes of their own.
        Verb::Run(_) | Verb::Replay(_) => Ok(Code::Done),
        Verb::Daemon(args) => daemon::run(&cli.place, args).map(|()| Code::Done),
        Verb::Generate(args) => generate::generate(args),
        Verb::ProbeTracee => {
            crate::ptrace::probe::be_traced();
            Ok(Code::Done)
        }
    }
}
