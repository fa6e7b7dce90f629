//! `replay`: a version lives through a recording. It needs no daemon.

use std::io::Write as _;

use super::args::{Cli, ReplayArgs};
use super::progress::Progress;
use super::run::{FIND_IT, IN_A_TRACE, NotRun, PARTED, USAGE, code_of, complain, read_rules};
use crate::compare::DivergenceKind;
use crate::ptrace::launch::{Layout, Program};
use crate::report::Payloads;
use crate::side_by_side::{self, FollowerEnd, NotReplayed, Offline, Replayed, Version};

/// That of an update of which nothing was shown.
const INCONCLUSIVE: u8 = 12;

pub(super) fn replay(cli: &Cli, args: &ReplayArgs) -> u8 {
    let progress = Progress::begin(cli, "the version lives through the recording");
    let replayed = replayed(args);
    drop(progress);
    match replayed {
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
        Err(NotRun { why, code, remedy }) => {
            complain(&format!("{why}\n  {remedy}"));
            code
        }
    }
}

fn replayed(args: &ReplayArgs) -> Result<Replayed, NotRun> {
    let program = Program::find(&args.command).map_err(|error| NotRun {
        why: error.to_string(),
        code: error.code,
        remedy: FIND_IT,
    })?;
    let name = args.command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let rules = match &args.rules {
        Some(file) => read_rules(file).map_err(|why| NotRun { why, code: USAGE, remedy: "nothing was started" })?,
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
        let (code, remedy) = match &error {
            NotReplayed::Open { .. } | NotReplayed::Recording { .. } | NotReplayed::FromTheMiddle(_) => {
                (USAGE, "name a file that `mvedsuad run --record FILE` has written")
            }
            NotReplayed::Engine(error) => (code_of(error), IN_A_TRACE),
        };
        NotRun { why: error.to_string(), code, remedy }
    })
}
