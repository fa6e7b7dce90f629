//! What people see: the table of `stats`, and the texts of its numbers.
//!
//! Lines are at most [`WIDTH`] columns wide. A number that is less certain than it looks carries a mark: `~` for a
//! percentile whose interval is wider than a quarter of it either way, `>` for one that is only a lower bound.

use std::fmt::Write as _;

use super::types::{Bound, CallStats, Mode, ProcessState, ProcessStats, Quantile, SlowCall, StatsSnapshot};

/// The widest line.
pub const WIDTH: usize = 100;

/// Whether to use colours: for terminals only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Plain,
    Coloured,
}

/// How much to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Everything,
    /// No more than this many lines; the busiest calls are kept.
    Lines(usize),
}

const SLOW_SHOWN: usize = 5;
const LATENCIES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

/// Renders a snapshot as a table that ends with a line end.
#[must_use]
pub fn table(snapshot: &StatsSnapshot, extent: Extent, paint: Paint) -> String {
    let head = vec![title(snapshot, paint), column_line(snapshot.mode, paint)];
    let tail = footer(snapshot, paint);
    let mut body = Vec::new();
    for process in &snapshot.processes {
        let room = match extent {
            Extent::Everything => usize::MAX,
            Extent::Lines(lines) => lines.saturating_sub(head.len() + tail.len() + body.len()),
        };
        if room == 0 {
            break;
        }
        body.push(process_line(process, paint));
        body.extend(process.calls.iter().take(room - 1).map(|call| call_line(call, snapshot.mode, paint)));
    }
    let mut text = String::new();
    for line in head.into_iter().chain(body).chain(tail) {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn title(snapshot: &StatsSnapshot, paint: Paint) -> String {
    let name = bold(&format!("{} ({})", snapshot.name, snapshot.pid), paint);
    let elapsed = duration(snapshot.elapsed_ns);
    match snapshot.mode {
        Mode::Exact => format!("{name}: exact, all calls of {elapsed}"),
        Mode::Sampled => format!(
            "{name}: sampled, saw {:.1} % of {elapsed}; intervals hold with {:.0} % confidence",
            snapshot.observed_share * 100.0,
            snapshot.confidence.unwrap_or_default() * 100.0,
        ),
    }
}

fn column_line(mode: Mode, paint: Paint) -> String {
    let (count, margin) = match mode {
        Mode::Exact => ("calls", ""),
        Mode::Sampled => ("seen", "±"),
    };
    let mut line = format!("  {:<15} {count:>11} {:>9} {margin:>5}", "call", "calls/s");
    for header in LATENCIES {
        let _ = write!(line, " {header:>7}");
    }
    line.push_str(" errors");
    dim(&line, paint)
}

fn process_line(process: &ProcessStats, paint: Paint) -> String {
    let state = match process.state {
        ProcessState::Running if process.threads == 1 => "1 thread".to_owned(),
        ProcessState::Running => format!("{} threads", process.threads),
        ProcessState::Exited if process.pid == 0 => return dim("processes that ended long ago", paint),
        ProcessState::Exited => "ended".to_owned(),
    };
    let child = process.parent.map_or_else(String::new, |parent| format!(", child of {parent}"));
    format!("{} {}, {state}{child}", bold(&process.name, paint), process.pid)
}

fn call_line(call: &CallStats, mode: Mode, paint: Paint) -> String {
    let margin = match (mode, call.rate_interval) {
        (Mode::Exact, _) => String::new(),
        (Mode::Sampled, Some(interval)) => match interval.high {
            Some(high) if call.rate > 0.0 => percent((high - call.rate) / call.rate),
            _ => "?".to_owned(),
        },
        (Mode::Sampled, None) => "?".to_owned(),
    };
    let mut line =
        format!("  {:<15} {:>11} {:>9} {margin:>5}", clipped(&call.name, 15), grouped(call.count), rate(call.rate));
    match &call.latency {
        Some(latency) => {
            for quantile in [latency.p50, latency.p90, latency.p99, latency.p999] {
                let _ = write!(line, " {:>7}", quantile_text(quantile));
            }
            // A call that was only seen to last has no longest one.
            let max = if latency.max_ns > 0 { duration(latency.max_ns) } else { "-".to_owned() };
            let _ = write!(line, " {max:>7}");
        }
        None => line.push_str(&format!(" {:>7}", "-").repeat(LATENCIES.len())),
    }
    let errors = error_text(call);
    if !errors.is_empty() {
        let room = WIDTH.saturating_sub(line.chars().count() + 1);
        let _ = write!(line, " {}", coloured(&clipped(&errors, room), "33", paint));
    }
    line
}

/// Returns the most frequent error of a call with its count, and how many others there are.
#[must_use]
pub(crate) fn error_text(call: &CallStats) -> String {
    match call.errors.as_slice() {
        [] => String::new(),
        [one] => format!("{} {}", one.name, short(one.count)),
        [first, rest @ ..] => format!("{} {} +{}", first.name, short(first.count), rest.len()),
    }
}

fn footer(snapshot: &StatsSnapshot, paint: Paint) -> Vec<String> {
    let slow = &snapshot.slow;
    let mut lines = Vec::new();
    if slow.seen > 0 {
        lines.push(format!("slow calls ({} and more): {} seen", duration(slow.threshold_ns), grouped(slow.seen)));
        let skip = slow.recent.len().saturating_sub(SLOW_SHOWN);
        lines.extend(slow.recent.iter().skip(skip).map(slow_line));
    }
    if slow.dropped > 0 {
        lines.push(coloured(&format!("slow calls not kept: {}", grouped(slow.dropped)), "31", paint));
    }
    let lost = snapshot.lost;
    for (count, what) in [
        (lost.calls, "calls not counted (no histogram free)"),
        (lost.processes, "processes counted as their parent (process table full)"),
        (lost.unfollowed, "processes not followed (lookup table full)"),
        (lost.entries, "calls not timed (lookup table full)"),
        (lost.skipped, "hooks skipped by the kernel"),
    ] {
        if count > 0 {
            lines.push(coloured(&format!("lost: {} {what}", grouped(count)), "31", paint));
        }
    }
    lines
}

fn slow_line(call: &SlowCall) -> String {
    let args: Vec<String> = call.args.iter().map(|&arg| argument(arg)).collect();
    let text = format!(
        "  {:>7}  {}({}) = {}  {} {}",
        duration(call.duration_ns),
        call.name,
        args.join(", "),
        call.ret,
        call.thread,
        call.tid
    );
    clipped(&text, WIDTH)
}

fn argument(value: u64) -> String {
    match value.cast_signed() {
        small @ -4096..=0xffff => small.to_string(),
        _ => format!("{value:#x}"),
    }
}

/// Returns a percentile, with a mark where it is less certain than it looks.
#[must_use]
pub(crate) fn quantile_text(quantile: Quantile) -> String {
    let value = quantile.ns as f64;
    let mark = match (quantile.bound, quantile.interval) {
        (Bound::AtLeast, _) => ">",
        (Bound::Value, None) => "",
        (Bound::Value, Some(interval)) => {
            let wide = interval.low < value * 0.75 || interval.high.is_none_or(|high| high > value * 1.25);
            if wide { "~" } else { "" }
        }
    };
    format!("{mark}{}", duration(quantile.ns))
}

/// Returns a duration in at most 6 columns.
#[must_use]
pub fn duration(ns: u64) -> String {
    let value = ns as f64;
    let (scaled, unit) = match value {
        v if v < 1e3 => return format!("{ns}ns"),
        v if v < 1e6 => (v / 1e3, "µs"),
        v if v < 1e9 => (v / 1e6, "ms"),
        v if v < 100e9 => (v / 1e9, "s"),
        v if v < 6000e9 => (v / 60e9, "min"),
        v => (v / 3600e9, "h"),
    };
    if scaled < 9.95 { format!("{scaled:.1}{unit}") } else { format!("{scaled:.0}{unit}") }
}

/// Returns calls a second in few columns.
#[must_use]
pub(crate) fn rate(rate: f64) -> String {
    match rate {
        r if r < 10.0 => format!("{r:.2}"),
        r if r < 10e6 => grouped(r.round() as u64),
        r => format!("{}M", grouped((r / 1e6).round() as u64)),
    }
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p < 9.95 => format!("{p:.1}%"),
        p if p < 1000.0 => format!("{p:.0}%"),
        _ => ">10x".to_owned(),
    }
}

/// Returns a number with its digits in groups of three.
#[must_use]
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn short(value: u64) -> String {
    match value {
        v if v < 100_000 => grouped(v),
        v if v < 100_000_000 => format!("{}k", grouped(v / 1000)),
        v => format!("{}M", grouped(v / 1_000_000)),
    }
}

fn clipped(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn coloured(text: &str, code: &str, paint: Paint) -> String {
    match paint {
        Paint::Plain => text.to_owned(),
        Paint::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
    }
}

fn bold(text: &str, paint: Paint) -> String {
    coloured(text, "1", paint)
}

fn dim(text: &str, paint: Paint) -> String {
    coloured(text, "2", paint)
}

#[cfg(test)]
mod tests {
    use super::super::bins::Bins;
    use super::super::types::{ErrorCount, Interval, Latency, Lost, SlowCalls};
    use super::*;

    fn quantile(ns: u64) -> Quantile {
        let interval = Interval { low: ns as f64 * 0.9, high: Some(ns as f64 * 1.1) };
        Quantile { ns, bound: Bound::Value, interval: Some(interval) }
    }

    fn snapshot() -> StatsSnapshot {
        let call = |name: &str, count, ns| CallStats {
            nr: 0,
            name: name.to_owned(),
            count,
            untimed: 0,
            unfinished: 1,
            rate: count as f64 / 0.6,
            rate_interval: Some(Interval { low: count as f64, high: Some(count as f64 * 1.75) }),
            errors: vec![
                ErrorCount { errno: 11, name: "EAGAIN".to_owned(), count: 123_456_789 },
                ErrorCount { errno: 512, name: "ERESTARTSYS".to_owned(), count: 2 },
            ],
            latency: Some(Latency {
                p50: quantile(ns),
                p90: quantile(ns * 2),
                p99: Quantile { interval: Some(Interval { low: 0.0, high: None }), ..quantile(ns * 9) },
                p999: Quantile { bound: Bound::AtLeast, ..quantile(ns * 90) },
                max_ns: ns * 5000,
                mean_ns: ns,
            }),
            durations: Bins::default(),
        };
        let process = |pid, parent, state| ProcessStats {
            pid,
            parent,
            name: "a-server-with-x".to_owned(),
            state,
            threads: 5,
            calls: vec![call("clock_nanosleep_and_more", 18_446_744_073, 123_456), call("read", 7, 800)],
        };
        StatsSnapshot {
            pid: 4242,
            name: "a-server-with-x".to_owned(),
            mode: Mode::Sampled,
            taken_at_ms: 0,
            taken_at_ns: 0,
            elapsed_ns: 12_000_000_000,
            observed_ns: 600_000_000,
            observed_share: 0.05,
            confidence: Some(0.99),
            processes: vec![
                process(4242, None, ProcessState::Running),
                process(4243, Some(4242), ProcessState::Exited),
            ],
            slow: SlowCalls {
                threshold_ns: 10_000_000,
                seen: 3,
                dropped: 1,
                recent: vec![SlowCall {
                    pid: 4242,
                    tid: 4244,
                    thread: "bio_aof".to_owned(),
                    nr: 74,
                    name: "fsync".to_owned(),
                    args: [9, u64::MAX, 0x7fff_1234_5678_9abc, 0, u64::MAX - 1, 65_536],
                    ret: -5,
                    started_ns: 1,
                    duration_ns: 23_456_789,
                }],
            },
            lost: Lost { calls: 1234, ..Lost::default() },
            led: vec![],
        }
    }

    #[test]
    fn the_table_is_as_people_see_it() {
        insta::assert_snapshot!(table(&snapshot(), Extent::Everything, Paint::Plain));
    }

    #[test]
    fn no_line_is_too_wide_and_height_is_kept() {
        for lines in [5, 8, 12, 40] {
            let text = table(&snapshot(), Extent::Lines(lines), Paint::Plain);
            assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
            assert!(text.lines().count() <= lines.max(6), "{lines} lines:\n{text}");
        }
    }

    #[test]
    fn colours_come_only_when_asked() {
        assert!(!table(&snapshot(), Extent::Everything, Paint::Plain).contains('\x1b'));
        assert!(table(&snapshot(), Extent::Everything, Paint::Coloured).contains('\x1b'));
    }

    #[test]
    fn durations_are_short() {
        for (ns, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1000, "1.0µs"),
            (9_960, "10µs"),
            (123_456, "123µs"),
            (99_000_000_000, "99s"),
            (120_000_000_000, "2.0min"),
            (7_200_000_000_000, "2.0h"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }
}
