//! Exact mode counts every call.

use std::time::Duration;

use crate::support::{Guest, call, compile, process, total};
use mvedsua_daemon::monitor::{AttachOptions, Bound, Mode, Monitor, ProcessState, SlowScope};

pub(crate) const EXACT: AttachOptions =
    AttachOptions { mode: Mode::Exact, slow_threshold: Duration::from_secs(3600), slow_scope: SlowScope::Working };

const ROUND: [&str; 5] = ["getppid", "getuid", "getgid", "lseek", "close"];

/// 8 threads with 30,000 rounds each, 4 children with 40,000 rounds each: 2,000,000 calls; 100 short-lived children on top.
#[test]
fn two_million_calls_are_counted_to_the_last() {
    let program = compile("calls");
    let mut guest = Guest::start(&program, &["8", "30000", "4", "40000", "100"]);
    guest.lines_until("ready");
    let monitor = Monitor::start().expect("the monitor starts");
    let target = monitor.attach(guest.pid(), EXACT).expect("the guest can be attached");
    assert_eq!((target.pid, target.name.as_str()), (guest.pid(), "calls"));

    guest.say("go");
    let lines = guest.lines_until("done");
    // A thread that was joined is still there for a moment.
    crate::support::wait_for("the guest's threads to be gone", || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", guest.pid())).expect("it runs").count();
        (threads == 1).then_some(())
    });
    let snapshot = monitor.snapshot(guest.pid()).expect("a snapshot");
    assert!(snapshot.lost.is_none(), "{:?}", snapshot.lost);
    assert_eq!((snapshot.observed_share, snapshot.confidence), (1.0, None));

    let mut seen = 0;
    for line in lines.iter().filter_map(|line| line.strip_prefix("rounds ")) {
        let (pid, rounds) = line.split_once(' ').expect("two numbers");
        let (pid, rounds): (i32, u64) = (pid.parse().expect("a pid"), rounds.parse().expect("a count"));
        if pid != guest.pid() && !snapshot.processes.iter().any(|p| p.pid == pid) {
            // With more than 64 ended processes the oldest share a line; their sum is checked below.
            continue;
        }
        let stats = process(&snapshot, pid);
        for name in ROUND {
            let one = call(stats, name);
            assert_eq!((one.count, one.untimed), (rounds, 0), "{name} of {pid}");
            let bad = one.errors.iter().find(|error| error.name == "EBADF").map_or(0, |error| error.count);
            assert_eq!(bad, if ["lseek", "close"].contains(&name) { rounds } else { 0 }, "errors of {name}");
            let latency = one.latency.expect("all were timed");
            let ordered = [latency.p50, latency.p90, latency.p99, latency.p999].map(|q| q.ns);
            assert!(ordered.is_sorted() && ordered[0] > 0, "{ordered:?}");
            assert!(ordered[3] <= latency.max_ns + latency.max_ns / 16);
            assert_eq!((latency.p50.bound, latency.p50.interval), (Bound::Value, None));
        }
        seen += 1;
    }
    assert!(seen >= 1);
    let expected = 8 * 30_000 + 4 * 40_000 + 100;
    for name in ROUND {
        assert_eq!(total(&snapshot, name), expected, "{name}, all processes together");
    }
    // Born and ended: 104 children, all of which ended; the guest's nine threads are down to one.
    assert_eq!(total(&snapshot, "exit_group"), 104);
    assert!(snapshot.processes.iter().skip(1).all(|p| p.state == ProcessState::Exited));
    assert_eq!(process(&snapshot, guest.pid()).threads, 1);

    let pid = guest.pid();
    guest.end();
    crate::support::wait_for("the monitor to see the end", || {
        let info = monitor.targets().expect("targets").into_iter().find(|t| t.pid == pid)?;
        (info.state == ProcessState::Exited).then_some(())
    });
    assert_eq!(total(&monitor.snapshot(pid).expect("still known"), "getppid"), expected);
    monitor.detach(pid).expect("detach");
    assert!(monitor.snapshot(pid).is_err(), "a detached target is forgotten");
}
