//! `replay`: a version lives through a recording. It needs no daemon.

use std::io::Write as _;

use super::args::{Cli, ReplayArgs};
use super::run::{PARTED, USAGE, code_of, complain, read_rules};
use crate::compare::DivergenceKind;
use crate::ptrace::launch::{Layout, Program};
use crate::report::Payloads;
use crate::side_by_side::{self, FollowerEnd, NotReplayed, Offline, Replayed, Version};

/// That of an update of which nothing was shown.
const INCONCLUSIVE: u8 = 12;

pub(super) fn replay(cli: &Cli, args: &ReplayArgs) -> u8 {
    match replayed(args) {
        Ok(replayed) => {
            let payloads = if args.payloads { Payloads::Shown } else { Payloads::Redacted };
            let text = if cli.json { format!("{}\n", replayed.to_json(payloads)) } else { replayed.text() };
            // Where nobody reads it the exit code says it still.
            drop(std::io::stdout().write_all(text.as_bytes()));
            match &replayed.follower.end {
                FollowerEnd::Parted { divergence, .. } if !matches!(divergence.kind, DivergenceKind::Gap { .. }) => {
                    PARTED
                }
                _ if replayed.is_complete() => 0,
                _ => INCONCLUSIVE,
            }
        }
        Err((why, code)) => {
            complain(&why);
            code
        }
    }
}

fn replayed(args: &ReplayArgs) -> Result<Replayed, (String, u8)> {
    let program = Program::find(&args.command).map_err(|error| (error.to_string(), error.code))?;
    let name = args.command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let rules = match &args.rules {
        Some(file) => read_rules(file).map_err(|why| (why, USAGE))?,
        None => None,
    };
    let plan = Offline {
        recording: args.recording.clone(),
        version: Version { name, program, rules },
        layout: if args.no_aslr { Layout::Fixed } else { Layout::Random },
        log: crate::log::Config { memory: args.log_memory, disk: args.log_disk, spill_dir: std::env::temp_dir() },
        hang_timeout: args.hang_timeout,
    };
    side_by_side::replay(plan).map_err(|error| {
        let code = match &error {
            NotReplayed::Open { .. } | NotReplayed::Recording { .. } | NotReplayed::FromTheMiddle(_) => USAGE,
            NotReplayed::Engine(error) => code_of(error),
        };
        (error.to_string(), code)
    })
}
