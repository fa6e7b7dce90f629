//! Exact mode agrees with `strace -c -f` about the same run of the same processes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mvedsua_daemon::monitor::{Monitor, StatsSnapshot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::exact::EXACT;
use crate::support::{Guest, compile, wait_for};

/// Calls and errors.
type Counts = BTreeMap<String, (u64, u64)>;

/// strace's process; ends with its owner.
struct Strace(Child);

impl Drop for Strace {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // A failed test must not leave it behind; there is nobody to tell of an error here.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[test]
fn counts_equal_those_of_strace() {
    let mut guest = Guest::start(&compile("calls"), &["3", "500", "2", "400", "10"]);
    guest.lines_until("ready");
    let table = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("strace-{}", std::process::id()));
    let pid = guest.pid();
    let mut strace = Strace(
        Command::new("strace")
            .args(["-c", "-f", "-o"])
            .arg(&table)
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("strace is installed"),
    );
    let status = format!("/proc/{pid}/status");
    // Attached, and back in its read.
    wait_for("strace to attach", || {
        let status = std::fs::read_to_string(&status).ok()?;
        let traced = status.lines().any(|line| line == format!("TracerPid:\t{}", strace.0.id()));
        let sleeps = status.lines().any(|line| line.starts_with("State:\tS"));
        (traced && sleeps).then_some(())
    });
    let monitor = Monitor::start().expect("the monitor starts");
    monitor.attach(pid, EXACT).expect("attach");
    guest.say("go");
    guest.lines_until("done");
    // Its last write is over when it waits again; until then strace has it stopped now and then.
    guest.wait_for_input();
    let ours = counts(&monitor.snapshot(pid).expect("a snapshot"));
    kill(Pid::from_raw(strace.0.id().cast_signed()), Signal::SIGINT).expect("strace runs");
    strace.0.wait().expect("it is our child");
    let theirs = parsed(&std::fs::read_to_string(&table).expect("strace wrote its table"));
    std::fs::remove_file(&table).expect("it was there");
    guest.end();

    assert_eq!(ours.get("getppid"), Some(&(3 * 500 + 2 * 400 + 10, 0)));
    assert_eq!(ours, theirs);
}

/// What the monitor counted, without what strace cannot count: calls that do not return, and the read that was under
/// way when both attached.
fn counts(snapshot: &StatsSnapshot) -> Counts {
    let mut counts = Counts::new();
    for call in snapshot.processes.iter().flat_map(|process| &process.calls) {
        let (calls, errors) = counts.entry(call.name.clone()).or_default();
        *calls += call.count;
        *errors += call.errors.iter().map(|error| error.count).sum::<u64>();
    }
    without_the_uncountable(counts)
}

fn without_the_uncountable(mut counts: Counts) -> Counts {
    for name in ["exit", "exit_group", "read", "restart_syscall"] {
        counts.remove(name);
    }
    counts
}

/// Reads strace's table: `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn parsed(table: &str) -> Counts {
    let mut counts = Counts::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (calls, errors, name) = match fields.as_slice() {
            [_, _, _, calls, name] => (calls, "0", name),
            [_, _, _, calls, errors, name] => (calls, *errors, name),
            _ => continue,
        };
        if let (Ok(calls), Ok(errors)) = (calls.parse(), errors.parse())
            && *name != "total"
        {
            counts.insert((*name).to_owned(), (calls, errors));
        }
    }
    without_the_uncountable(counts)
}
