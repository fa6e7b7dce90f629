//! Sampled mode says what it saw and how sure it is.

use std::time::{Duration, Instant};

use mvedsua_daemon::monitor::{AttachOptions, Mode, Monitor, Quantile, StatsSnapshot};

use crate::exact::EXACT;
use crate::support::{Guest, call, compile, process, wait_for};

const SAMPLED: AttachOptions = AttachOptions { mode: Mode::Sampled, ..EXACT };

/// How long the load is watched: 40 windows.
const WATCHED: Duration = Duration::from_secs(16);

/// Two monitors watch the same load at the same time, one exactly, so that both see the same noise of the machine. The
/// guest's calls are long against what the other monitor's hooks add to them.
#[test]
fn percentiles_and_rates_hold_with_the_stated_confidence() {
    let program = compile("steady");
    let mut guest = Guest::start(&program, &["4"]);
    guest.lines_until("ready");
    let (exactly, sampling) = (Monitor::start().expect("starts"), Monitor::start().expect("starts"));
    exactly.attach(guest.pid(), EXACT).expect("attach exactly");
    sampling.attach(guest.pid(), SAMPLED).expect("attach sampled");
    // Not a wait for something: this is the time of the measurement.
    let end = Instant::now() + WATCHED;
    std::thread::sleep(end - Instant::now());
    let sampled = sampling.snapshot(guest.pid()).expect("a snapshot");
    let exact = exactly.snapshot(guest.pid()).expect("a snapshot");

    // 5 % on an idle machine; on a busy one windows come late.
    assert!((0.005..0.10).contains(&sampled.observed_share), "saw {}", sampled.observed_share);
    assert_eq!(sampled.confidence, Some(0.99));
    assert!(sampled.lost.is_none() && exact.lost.is_none(), "{:?} {:?}", sampled.lost, exact.lost);
    let (mut held, mut missed) = (0, Vec::new());
    for name in ["read", "nanosleep", "clock_nanosleep", "poll"] {
        let pid = guest.pid();
        if !process(&exact, pid).calls.iter().any(|call| call.name == name) {
            continue;
        }
        let (seen, truth) = (call(process(&sampled, pid), name), call(process(&exact, pid), name));
        assert!(seen.count > 50, "saw only {} calls of {name}", seen.count);
        let (seen_latency, true_latency) = (seen.latency.expect("seen to end"), truth.latency.expect("seen to end"));
        for (p, estimate, value) in [
            ("p50", seen_latency.p50, true_latency.p50),
            ("p90", seen_latency.p90, true_latency.p90),
            ("p99", seen_latency.p99, true_latency.p99),
        ] {
            match holds(estimate, value.ns) {
                true => held += 1,
                false => missed.push(format!("{name} {p}: {estimate:?} for {}", value.ns)),
            }
        }
        assert!(seen_latency.p50.interval.is_some_and(|i| i.high.is_some()), "the median of {name} is bounded");
        let rate = seen.rate_interval.expect("sampled rates have an interval");
        match rate.low <= truth.rate && rate.high.is_none_or(|high| truth.rate <= high) {
            true => held += 1,
            false => missed.push(format!("{name} rate: {rate:?} for {}", truth.rate)),
        }
    }
    // 12 statements with 99 % confidence each: one may fail in about 11 % of the runs, two in less than 1 %.
    assert!(missed.len() <= 1, "{held} statements held, but not: {missed:#?}");
    guest.end();
}

/// Whether the true value lies in the interval, allowing for the buckets' error of 1/16.
fn holds(estimate: Quantile, truth: u64) -> bool {
    let interval = estimate.interval.expect("sampled percentiles have an interval");
    let truth = truth as f64;
    interval.low <= truth * (1.0 + 1.0 / 16.0) && interval.high.is_none_or(|high| truth * (1.0 - 1.0 / 16.0) <= high)
}

#[test]
fn the_mode_changes_while_the_target_runs() {
    let program = compile("slow");
    let mut guest = Guest::start(&program, &[]);
    guest.lines_until("ready");
    let monitor = Monitor::start().expect("the monitor starts");
    let pid = guest.pid();
    monitor.attach(pid, SAMPLED).expect("attach");
    wait_for("the first window", || seen(&monitor, pid).filter(|s| s.observed_ns > 0));

    monitor.set_mode(pid, Mode::Exact).expect("switch to exact");
    guest.say("quick 10000");
    guest.lines_until("done");
    let exact = monitor.snapshot(pid).expect("a snapshot");
    assert_eq!((exact.mode, exact.observed_share, exact.confidence), (Mode::Exact, 1.0, None));
    assert_eq!(call(process(&exact, pid), "getppid").count, 10_000);

    let info = monitor.set_mode(pid, Mode::Sampled).expect("switch back");
    assert_eq!(info.options.mode, Mode::Sampled);
    let sampled = wait_for("a window after the switch", || seen(&monitor, pid).filter(|s| s.observed_ns > 0));
    assert!(sampled.observed_share < 1.0);
    assert!(process(&sampled, pid).calls.iter().all(|call| call.name != "getppid"), "the statistics began anew");
    guest.end();
}

fn seen(monitor: &Monitor, pid: i32) -> Option<StatsSnapshot> {
    Some(monitor.snapshot(pid).expect("a snapshot"))
}
