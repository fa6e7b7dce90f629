//! Which process is meant.

use super::args::TargetArgs;
use super::client::{Client, mismatched};
use crate::control::Code;
use crate::control::process::{self, Wanted};
use crate::control::protocol::{Answer, Problem, Request};
use crate::control::status::{Status, TargetStatus};

/// Says which processes come into question when none is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Among {
    /// Those that are observed.
    Observed,
    /// Those of which an update is under way.
    Updated,
}

/// Finds the process that is named.
pub(super) fn find(args: &TargetArgs, doing: &str) -> Result<i32, Problem> {
    let Some(wanted) = args.wanted() else {
        return Err(Problem::new(
            Code::Usage,
            doing,
            "no process is named",
            "name it by its pid, or by --exe, --port or --unit",
        ));
    };
    find_wanted(&wanted, doing)
}

fn find_wanted(wanted: &Wanted, doing: &str) -> Result<i32, Problem> {
    process::find(wanted).map_err(|e| {
        let code = match &e {
            process::FindError::None(_) => Code::TargetGone,
            process::FindError::Several(..) => Code::Usage,
            process::FindError::Proc(_) => Code::Kernel,
        };
        Problem::new(code, doing, e.to_string(), "check the number, or the name; `ps -e` lists what runs")
    })
}

/// Finds the process that is named, or the only one that comes into question.
pub(super) fn find_among(client: &mut Client, args: &TargetArgs, doing: &str, among: Among) -> Result<i32, Problem> {
    match args.wanted() {
        // One that has ended may still be known to the daemon.
        Some(Wanted::Pid(pid)) => return Ok(pid),
        Some(wanted) => return find_wanted(&wanted, doing),
        None => {}
    }
    let status = status(client, None)?;
    let fits = |target: &&TargetStatus| match among {
        Among::Observed => target.monitor.is_some(),
        Among::Updated => {
            target.update.as_ref().is_some_and(|update| update.result.as_ref().is_none_or(|r| r.outcome.is_none()))
        }
    };
    let pids: Vec<i32> = status.targets.iter().filter(fits).map(|target| target.pid).collect();
    match pids.as_slice() {
        [one] => Ok(*one),
        [] => {
            let (why, remedy) = match among {
                Among::Observed => ("no process is named and none is observed", "`mvedsuad attach <pid>` observes one"),
                Among::Updated => {
                    ("no process is named and no update is under way", "`mvedsuad update <pid> --to self` starts one")
                }
            };
            Err(Problem::new(Code::Usage, doing, why, remedy))
        }
        several => {
            let why = format!("no process is named and several come into question: {several:?}");
            Err(Problem::new(Code::Usage, doing, why, "name one of them"))
        }
    }
}

/// Asks for the status.
pub(super) fn status(client: &mut Client, pid: Option<i32>) -> Result<Status, Problem> {
    match client.ask(Request::Status { pid })? {
        Answer::Status(status) => Ok(*status),
        other => Err(mismatched(&other)),
    }
}
