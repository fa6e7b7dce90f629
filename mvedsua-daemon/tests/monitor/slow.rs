//! Slow calls are reported with their arguments, and what is not is counted.

use std::time::Duration;

use mvedsua_daemon::monitor::{AttachOptions, Mode, Monitor, SlowScope, StatsSnapshot};

use crate::support::{Guest, call, compile, process, total};

fn options(threshold: Duration, slow_scope: SlowScope) -> AttachOptions {
    AttachOptions { mode: Mode::Exact, slow_threshold: threshold, slow_scope }
}

fn started() -> (Guest, Monitor) {
    let mut guest = Guest::start(&compile("slow"), &[]);
    guest.lines_until("ready");
    (guest, Monitor::start().expect("the monitor starts"))
}

fn names(snapshot: &StatsSnapshot) -> Vec<&str> {
    snapshot.slow.recent.iter().map(|call| call.name.as_str()).collect()
}

#[test]
fn slow_calls_come_with_their_arguments() {
    let (mut guest, monitor) = started();
    let threshold = Duration::from_millis(20);
    monitor.attach(guest.pid(), options(threshold, SlowScope::Working)).expect("attach");
    guest.say("timer");
    let said = guest.lines_until("done");
    let (fd, buffer) = said[0].split_once(' ').expect("two numbers");
    guest.say("sleep");
    guest.lines_until("done");
    let snapshot = monitor.snapshot(guest.pid()).expect("a snapshot");
    // The guest's read of its input may have been slow too, when the machine was.
    let slow: Vec<_> = snapshot.slow.recent.iter().filter(|call| call.args[0].to_string() == fd).collect();
    assert_eq!(slow.len(), 1, "{:?}", snapshot.slow);
    let slow = slow[0];
    assert_eq!((slow.name.as_str(), slow.ret, slow.pid, slow.tid), ("read", 8, guest.pid(), guest.pid()));
    assert_eq!((slow.args[1].to_string().as_str(), slow.args[2], slow.thread.as_str()), (buffer, 8, "slow"));
    assert!((20_000_000..10_000_000_000).contains(&slow.duration_ns), "{}", slow.duration_ns);
    assert!(names(&snapshot).iter().all(|name| !name.contains("nanosleep")), "waiting is no news");
    assert_eq!(snapshot.slow.threshold_ns, 20_000_000);

    let everything = options(threshold, SlowScope::All);
    monitor.configure(guest.pid(), everything).expect("configure");
    guest.say("sleep");
    guest.lines_until("done");
    let snapshot = monitor.snapshot(guest.pid()).expect("a snapshot");
    assert!(names(&snapshot).iter().any(|name| name.contains("nanosleep")), "{:?}", names(&snapshot));
    guest.end();
}

/// With a threshold of zero every call is slow: far more than the ring buffer holds between two looks.
#[test]
fn what_is_dropped_is_counted_to_the_last() {
    let (mut guest, monitor) = started();
    monitor.attach(guest.pid(), options(Duration::ZERO, SlowScope::All)).expect("attach");
    guest.say("quick 200000");
    guest.lines_until("done");
    // When the guest waits in its read, nothing is counted between the two parts of the snapshot.
    guest.wait_for_input();
    let snapshot = monitor.snapshot(guest.pid()).expect("a snapshot");
    assert_eq!(call(process(&snapshot, guest.pid()), "getppid").count, 200_000);
    let timed: u64 = process(&snapshot, guest.pid()).calls.iter().map(|call| call.count - call.untimed).sum();
    assert!(snapshot.slow.dropped > 0);
    assert_eq!(snapshot.slow.seen + snapshot.slow.dropped, timed);
    guest.end();
}

/// 300 children at once are more than there are places for; they are counted with their parent, and histograms that are
/// missing are counted too.
#[test]
fn what_does_not_fit_is_counted() {
    let mut guest = Guest::start(&compile("calls"), &["1", "10", "300", "100", "0"]);
    guest.lines_until("ready");
    let monitor = Monitor::start().expect("the monitor starts");
    monitor.attach(guest.pid(), options(Duration::from_secs(3600), SlowScope::Working)).expect("attach");
    guest.say("go");
    guest.lines_until("done");
    let snapshot = monitor.snapshot(guest.pid()).expect("a snapshot");
    assert!(snapshot.lost.processes > 0, "{:?}", snapshot.lost);
    let expected = 5 * (10 + 300 * 100);
    let counted: u64 =
        ["getppid", "getuid", "getgid", "lseek", "close"].iter().map(|name| total(&snapshot, name)).sum();
    assert!(counted <= expected, "{counted} of {expected}");
    assert!(counted + snapshot.lost.calls >= expected, "{counted} and {:?} of {expected}", snapshot.lost);
    guest.end();
}
