//! Divergences and failures for people.

use std::fmt::{self, Write as _};

use super::names::{call_name, signal_name};
use super::{WIDTH, hex};
use crate::compare::{CallView, Divergence, DivergenceKind, Frame, MatchedCall};
use crate::update::FailureKind;

/// Returns the divergence in one line.
#[must_use]
pub fn headline(divergence: &Divergence) -> String {
    let what = what_differs(divergence);
    match &divergence.remark {
        Some(remark) => format!("{what}; {remark}"),
        None => what,
    }
}

fn what_differs(divergence: &Divergence) -> String {
    let name = |call: &Option<CallView>| call.as_ref().map_or("nothing".into(), |call| call_name(call.nr));
    let (expected, actual) = (name(&divergence.expected), name(&divergence.actual));
    match &divergence.kind {
        DivergenceKind::Call => format!("the follower called {actual} where the leader called {expected}"),
        DivergenceKind::Argument { arg, expected: want, actual: got } => {
            format!("argument {} of {actual} is {} where the leader's was {}", arg + 1, value(*got), value(*want))
        }
        DivergenceKind::Payload { arg, offset, expected_len, actual_len } => {
            let lengths = if expected_len == actual_len {
                format!("{expected_len} bytes")
            } else {
                format!("{actual_len} bytes instead of {expected_len}")
            };
            format!("{actual} differs from byte {offset} of argument {} ({lengths})", arg + 1)
        }
        DivergenceKind::End => match (&divergence.expected, &divergence.actual) {
            (Some(_), _) => format!("the follower's thread ended where the leader called {expected}"),
            (None, Some(_)) => format!("the follower called {actual} after the leader's thread had ended"),
            (None, None) => "a thread ended in one version only".to_owned(),
        },
        DivergenceKind::Order { waiting } => format!("no thread could take the next record; {}", waiting.join("; ")),
        DivergenceKind::Crash { signo, address } => {
            format!("the follower crashed with {} at {address:#x}", signal_name(*signo))
        }
        DivergenceKind::Hang { waited_ms } if divergence.expected.is_none() => {
            format!("the new version did not come to the update point within {waited_ms} ms")
        }
        DivergenceKind::Hang { waited_ms } => {
            format!("the follower made no call for {waited_ms} ms although a record of {expected} waited for it")
        }
        DivergenceKind::Silent { waited_ms } => {
            format!("the leader has not come to {actual}, at which the follower waits, for {waited_ms} ms")
        }
        DivergenceKind::Gone { status } => format!("the follower is gone: {status}"),
        DivergenceKind::Refused { call, reason } => format!("{call} is not supported: {reason}"),
        DivergenceKind::Gap { reason } => format!("the recording has a hole: {reason}"),
    }
}

/// Writes why an update failed, in one line.
///
/// # Errors
///
/// Only those of the formatter.
pub fn write_failure(f: &mut fmt::Formatter<'_>, kind: &FailureKind) -> fmt::Result {
    match kind {
        FailureKind::Refused(reasons) => write!(f, "refused: {}", reasons.join("; ")),
        FailureKind::Diverged(divergence) => f.write_str(&headline(divergence)),
        FailureKind::LogFull(how) => write!(f, "the log is full: {how}"),
        FailureKind::MemoryShort(how) => write!(f, "memory runs short: {how}"),
        FailureKind::TimedOut(what) => write!(f, "time ran out: {what}"),
        FailureKind::TargetGone(how) => write!(f, "the process is gone: {how}"),
        FailureKind::NotApplied(why) => write!(f, "the new version could not be applied: {why}"),
        FailureKind::Asked(why) => write!(f, "asked: {why}"),
        FailureKind::Harmed(what) => write!(f, "the service may be harmed: {what}"),
        FailureKind::Lost(what) => write!(f, "something was lost: {what}"),
        FailureKind::Engine(what) => write!(f, "the engine could not go on: {what}"),
    }
}

/// Returns the whole report of one divergence.
#[must_use]
pub fn render(divergence: &Divergence) -> String {
    let mut out = String::new();
    wrap(&mut out, "divergence: ", &headline(divergence));
    let _ = write!(out, "  thread slot {}", divergence.slot.0);
    match divergence.seq {
        Some(seq) => {
            let _ = writeln!(out, ", record {}", seq.0);
        }
        None => out.push('\n'),
    }
    for (who, call) in [("expected", &divergence.expected), ("actual", &divergence.actual)] {
        if let Some(call) = call {
            wrap(&mut out, &format!("  {who:<8}  "), &call_line(call.nr, &call.args, call.ret));
        }
    }
    write_payload(&mut out, divergence);
    if divergence.raced {
        wrap(&mut out, "  order: ", "threads had run beside each other before this, and it may come of that");
    }
    if divergence.unrecorded_clock {
        let what = "the program reads the processor's counter (RDTSC), which is not recorded, and it may come of that";
        wrap(&mut out, "  clock: ", what);
    }
    if divergence.half_read {
        let what =
            "it answers a line of which a part was perhaps read before any rule was applied, and it may come of that";
        wrap(&mut out, "  line: ", what);
    }
    if let Some(rule) = &divergence.nearest_rule {
        wrap(&mut out, "  nearest rule: ", rule);
    }
    if !divergence.last_matched.is_empty() {
        out.push_str("  matched just before (oldest first)\n");
        divergence.last_matched.iter().for_each(|call| write_matched(&mut out, call));
    }
    if !divergence.backtrace.is_empty() {
        out.push_str("  the follower's stack (innermost first)\n");
        divergence.backtrace.iter().enumerate().for_each(|(index, frame)| write_frame(&mut out, index, frame));
    }
    out
}

fn write_payload(out: &mut String, divergence: &Divergence) {
    if let Some((expected, actual, base)) = windows(divergence) {
        hex::write_window(out, &expected, &actual, base);
    }
}

/// Returns the windows of the two payloads that differ, and the offset of their first byte; nothing where none is kept.
#[must_use]
pub(crate) fn windows(divergence: &Divergence) -> Option<(Vec<u8>, Vec<u8>, u64)> {
    let DivergenceKind::Payload { arg, offset, .. } = divergence.kind else { return None };
    let window = |call: &Option<CallView>| {
        let inputs = call.as_ref().map(|call| call.inputs.as_slice()).unwrap_or_default();
        inputs.iter().find(|(index, _)| *index == arg).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    };
    let (expected, actual) = (window(&divergence.expected), window(&divergence.actual));
    // The windows may begin anywhere in the payload; where they first differ is known in both countings.
    let base = hex::first_difference(&expected, &actual).map_or(0, |at| offset.saturating_sub(at as u64));
    (!(expected.is_empty() && actual.is_empty())).then_some((expected, actual, base))
}

fn write_matched(out: &mut String, call: &MatchedCall) {
    let head = format!("    {:>8}  ", format!("#{}", call.seq.0));
    let slot = if call.slot.0 == 0 { String::new() } else { format!("  (slot {})", call.slot.0) };
    wrap(out, &head, &format!("{}{slot}", call_line(call.nr, &call.args, Some(call.ret))));
}

fn write_frame(out: &mut String, index: usize, frame: &Frame) {
    let name = frame.symbol.as_deref().unwrap_or("?");
    wrap(out, &format!("    {index:>3}  {:#014x}  ", frame.address), name);
}

/// Returns a call as people write it.
#[must_use]
pub(crate) fn call_line(nr: u32, args: &[u64; 6], ret: Option<i64>) -> String {
    let count = super::names::argument_count(nr);
    let args: Vec<_> = args.iter().take(count).map(|&arg| value(arg)).collect();
    let ret = match ret {
        Some(ret @ -4095..0) => format!(" = {}", super::names::errno_name(ret)),
        Some(ret) => format!(" = {}", value(ret.cast_unsigned())),
        None => String::new(),
    };
    format!("{}({}){ret}", call_name(nr), args.join(", "))
}

/// Returns small numbers, and small negative ones, in decimal digits and everything else as an address.
fn value(raw: u64) -> String {
    const SMALL: u64 = 1 << 20;
    let signed = raw.cast_signed();
    let short = i64::from(raw as u32 as i32);
    if raw < SMALL {
        raw.to_string()
    } else if signed < 0 && signed.unsigned_abs() < SMALL {
        signed.to_string()
    } else if raw <= u64::from(u32::MAX) && short < 0 && short.unsigned_abs() < SMALL {
        short.to_string()
    } else {
        format!("{raw:#x}")
    }
}

/// Writes `text` behind `head`, broken between words so that no line is wider than [`WIDTH`].
pub(crate) fn wrap(out: &mut String, head: &str, text: &str) {
    let indent = head.chars().count();
    out.push_str(head);
    let mut column = indent;
    for (index, word) in text.split_whitespace().enumerate() {
        let mut rest: Vec<char> = word.chars().collect();
        if index > 0 {
            if column + 1 + rest.len().min(WIDTH - indent) > WIDTH {
                let _ = write!(out, "\n{:indent$}", "");
                column = indent;
            } else {
                out.push(' ');
                column += 1;
            }
        }
        while column + rest.len() > WIDTH {
            let tail = rest.split_off(WIDTH - column);
            out.extend(rest);
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
            rest = tail;
        }
        column += rest.len();
        out.extend(rest);
    }
    out.push('\n');
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::{Seq, Slot};

    pub(crate) fn payload_divergence() -> Divergence {
        let call = |bytes: &[u8]| CallView {
            nr: 1,
            args: [7, 0x7f12_3456_7000, bytes.len() as u64, 0, 0, 0],
            inputs: vec![(1, bytes.to_vec())],
            ret: None,
        };
        Divergence {
            kind: DivergenceKind::Payload { arg: 1, offset: 21, expected_len: 33, actual_len: 34 },
            slot: Slot(0),
            seq: Some(Seq(4711)),
            expected: Some(call(b"$5\r\nhello\r\n+OK\r\n:1000\r\n+PONG\r\n.")),
            actual: Some(call(b"$5\r\nhello\r\n+OK\r\n:1001\r\n+PONG\r\n..")),
            last_matched: vec![MatchedCall {
                seq: Seq(4710),
                slot: Slot(2),
                nr: 0,
                args: [7, 0x5555_0000_1000, 16384, 0, 0, 0],
                ret: -11,
            }],
            backtrace: vec![
                Frame { address: 0x7f00_1234_5678, symbol: Some("write+0x14 (libc.so.6)".to_owned()) },
                Frame { address: 0x5555_5555_0000, symbol: None },
            ],
            raced: false,
            unrecorded_clock: false,
            half_read: false,
            situation: None,
            remark: None,
            nearest_rule: None,
        }
    }

    #[test]
    fn a_payload_divergence_shows_where_the_bytes_part() {
        insta::assert_snapshot!(render(&payload_divergence()));
    }

    #[test]
    fn every_kind_has_a_headline_and_fits_the_width() {
        let long = "thread worker-1 waits in futex for the lock at 0x5555 which thread worker-2 holds".to_owned();
        let kinds = [
            DivergenceKind::Call,
            DivergenceKind::Argument { arg: 0, expected: 7, actual: u64::MAX },
            DivergenceKind::End,
            DivergenceKind::Order { waiting: vec![long.clone(), long.clone(), "x".repeat(300)] },
            DivergenceKind::Crash { signo: 11, address: 0 },
            DivergenceKind::Hang { waited_ms: 5000 },
            DivergenceKind::Silent { waited_ms: 5000 },
            DivergenceKind::Gone { status: "killed by SIGKILL".to_owned() },
            DivergenceKind::Refused { call: "io_uring_setup".to_owned(), reason: "unsupported".to_owned() },
            DivergenceKind::Gap { reason: long },
        ];
        let mut all = String::new();
        for kind in kinds {
            let divergence = Divergence { kind, last_matched: vec![], backtrace: vec![], ..payload_divergence() };
            all.push_str(&render(&divergence));
        }
        let widest = all.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(widest <= WIDTH, "a line has {widest} columns:\n{all}");
        insta::assert_snapshot!(all);
    }
}
