//! The rule that would explain a divergence, as text to paste.
//!
//! What is proposed allows for exactly what was seen; whether the difference is meant, and how far it goes, only the
//! operator knows.

use std::fmt::Write as _;

use mvedsua_common::syscalls::{self, Arg, Class, Extent, Row};

use super::ast::{Piece, Template};
use crate::compare::{CallView, Divergence, DivergenceKind};

/// Returns a rule that explains the divergence, followed by other readings of it as comments; `None` where no rule can.
#[must_use]
pub fn propose(divergence: &Divergence) -> Option<String> {
    let (expected, actual) = (divergence.expected.as_ref(), divergence.actual.as_ref());
    // Two divergences of one place may need two rules, and their names must differ.
    let bytes = actual.into_iter().flat_map(|call| call.inputs.iter().flat_map(|(_, bytes)| bytes));
    let mark = bytes.fold(divergence.fingerprint(), |mark, byte| mark.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let name = |call: &str| format!("rule allow-{}-r{:04x}", call.replace('_', "-"), mark & 0xffff);
    let rules: Vec<String> = match (&divergence.kind, expected, actual) {
        (DivergenceKind::Payload { arg, expected_len, actual_len, .. }, Some(left), Some(right)) => {
            let row = syscalls::row(left.nr)?;
            let start = divergence.window_start(*arg);
            let left = payload(row, left, *arg, start, *expected_len)?;
            let right = payload(row, right, *arg, start, *actual_len)?;
            let before = "_, ".repeat(usize::from(*arg));
            vec![format!(
                "{}\n    {call}({before}{left}) => {call}({before}{right})\n",
                name(row.name),
                call = row.name
            )]
        }
        (DivergenceKind::Argument { arg, expected, actual }, Some(left), Some(_)) => {
            let row = syscalls::row(left.nr)?;
            if matches!(row.args.get(usize::from(*arg)), Some(Arg::Mem(..)) | None) {
                return None;
            }
            let before = "_, ".repeat(usize::from(*arg));
            let (left, right) = (number(*expected), number(*actual));
            vec![format!(
                "{}\n    {call}({before}{left}) => {call}({before}{right})\n",
                name(row.name),
                call = row.name
            )]
        }
        (DivergenceKind::Call, Some(left), Some(right)) => {
            let (was, is) = (syscalls::row(left.nr)?, syscalls::row(right.nr)?);
            let (left, right) = (whole(was, left), whole(is, right));
            let more = format!("{}\n    nothing => {right}\n", name(is.name));
            let fewer = format!("{}\n    {left} => nothing\n", name(was.name));
            let other = format!("{}\n    {left} => {right}\n", name(is.name));
            match (was.class, is.class) {
                (Class::Supply, Class::Compare) => vec![more, other, fewer],
                (Class::Compare, Class::Supply) => vec![fewer, other, more],
                _ => vec![other, more, fewer],
            }
        }
        (DivergenceKind::End, _, Some(right)) => {
            let row = syscalls::row(right.nr)?;
            vec![format!("{}\n    nothing => {}\n", name(row.name), whole(row, right))]
        }
        _ => return None,
    };
    let mut good = rules.into_iter().filter(|rule| super::check(rule).rules.is_some());
    let mut text = good.next()?;
    for other in good {
        text.push_str("# or\n");
        other.lines().for_each(|line| text.push_str(&format!("# {line}\n")));
    }
    Some(text)
}

/// Writes a register as the number that it is likely to be.
fn number(value: u64) -> String {
    if value >> 32 == 0 { (value as i32).to_string() } else { (value as i64).to_string() }
}

/// Returns the bytes of an argument as a string if all of them were seen, otherwise as an expression for those that were.
fn payload(row: &Row, call: &CallView, arg: u8, start: u64, length: u64) -> Option<String> {
    let seen = &call.inputs.iter().find(|(of, _)| *of == arg)?.1;
    let bytes = without_nul(row, arg, seen);
    if start == 0 && seen.len() as u64 >= length {
        return Some(Template(vec![Piece::Bytes(bytes.to_vec())]).to_string());
    }
    Some(expression(bytes, start))
}

/// A path is written without the NUL that ends it.
fn without_nul<'a>(row: &Row, arg: u8, bytes: &'a [u8]) -> &'a [u8] {
    match (row.args.get(usize::from(arg)), bytes) {
        (Some(Arg::Mem(_, Extent::CStr)), [path @ .., 0]) => path,
        _ => bytes,
    }
}

/// Returns an expression for bytes that are found `start` bytes behind the beginning.
fn expression(bytes: &[u8], start: u64) -> String {
    /// What the syntax lets one write in a repetition.
    const MOST: u64 = 1000;
    let mut text = match start {
        0 => "/^".to_owned(),
        1..=MOST => format!("/^.{{{start}}}"),
        _ => "/".to_owned(),
    };
    for byte in bytes {
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'_' | b'<' | b'>' => write!(text, "{}", *byte as char),
            b'!'..=b'~' => write!(text, "\\{}", *byte as char),
            byte => write!(text, "\\x{byte:02x}"),
        };
    }
    text + "/s"
}

/// Writes a call with all that was seen of it; what may differ from run to run is left open.
fn whole(row: &Row, call: &CallView) -> String {
    let mut args: Vec<String> = Vec::new();
    for (index, arg) in row.args.iter().enumerate() {
        let seen = call.inputs.iter().find(|(of, _)| usize::from(*of) == index);
        args.push(match (arg, seen) {
            (
                Arg::Mem(_, Extent::FromArg { .. } | Extent::CStr | Extent::IoVec { .. } | Extent::MsgHdr),
                Some((of, bytes)),
            ) if !bytes.is_empty() => {
                let bytes = without_nul(row, *of, bytes);
                if bytes.len() < crate::compare::WINDOW {
                    Template(vec![Piece::Bytes(bytes.to_vec())]).to_string()
                } else {
                    expression(bytes, 0)
                }
            }
            (Arg::Flags | Arg::LongFlags, _) => number(call.args[index]),
            _ => "_".to_owned(),
        });
    }
    while args.last().is_some_and(|arg| arg == "_") {
        args.pop();
    }
    format!("{}({})", row.name, args.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Seq, Slot};

    fn call(name: &str, input: Option<(u8, &[u8])>) -> CallView {
        let inputs = input.map(|(arg, bytes)| (arg, bytes.to_vec())).into_iter().collect();
        CallView { nr: syscalls::by_name(name).expect("a system call"), args: [5, 1, 2, 3, 4, 5], inputs, ret: None }
    }

    fn divergence(kind: DivergenceKind, expected: Option<CallView>, actual: Option<CallView>) -> Divergence {
        Divergence {
            kind,
            slot: Slot(0),
            seq: Some(Seq(1)),
            expected,
            actual,
            last_matched: Vec::new(),
            backtrace: Vec::new(),
            raced: false,
            unrecorded_clock: false,
            half_read: false,
            situation: None,
            remark: None,
            nearest_rule: None,
        }
    }

    fn proposed(kind: DivergenceKind, expected: Option<CallView>, actual: Option<CallView>) -> String {
        let text = propose(&divergence(kind, expected, actual)).expect("a rule explains it");
        let checked = crate::rules::check(&text);
        assert!(checked.rules.is_some_and(|rules| rules.len() == 1), "{text}\n{:?}", checked.diagnostics);
        let uncommented: String = text
            .lines()
            .map(|line| line.strip_prefix("# ").unwrap_or(line))
            .filter(|line| *line != "or")
            .fold(String::new(), |all, line| all + line + "\n");
        let file = crate::rules::parse(&uncommented).expect("the comments are rules too");
        assert!(!file.rules.is_empty());
        text
    }

    #[test]
    fn another_payload_is_a_rewriting() {
        let kind = DivergenceKind::Payload { arg: 1, offset: 1, expected_len: 6, actual_len: 8 };
        let text =
            proposed(kind, Some(call("sendto", Some((1, b"loyal\n")))), Some(call("sendto", Some((1, b"traitor\n")))));
        assert!(text.contains("sendto(_, \"loyal\\n\") => sendto(_, \"traitor\\n\")"), "{text}");
        let long: Vec<u8> = (0..96).collect();
        let kind = DivergenceKind::Payload { arg: 1, offset: 300, expected_len: 4000, actual_len: 4000 };
        let text = proposed(kind, Some(call("write", Some((1, &long)))), Some(call("write", Some((1, &long)))));
        assert!(text.contains("/^.{268}\\x00"), "{text}");
    }

    #[test]
    fn other_calls_have_three_readings() {
        let (wait, write) = (call("epoll_wait", None), call("write", Some((1, b"a /\"{b}\n"))));
        let text = proposed(DivergenceKind::Call, Some(wait.clone()), Some(write.clone()));
        assert!(
            text.starts_with("rule allow-write-") && text.contains("    nothing => write(_, \"a /\\\"\\{b\\}\\n\")"),
            "{text}"
        );
        let text = proposed(DivergenceKind::Call, Some(write.clone()), Some(wait));
        assert!(text.contains("=> nothing"), "{text}");
        let open = call("openat", Some((1, b"/etc/x\0")));
        let text = proposed(DivergenceKind::Call, Some(open), Some(call("unlink", Some((0, b"/tmp/y\0")))));
        assert!(text.contains("openat(_, \"/etc/x\", 2"), "{text}");
        assert!(text.contains("=> unlink(\"/tmp/y\")"), "{text}");
        proposed(DivergenceKind::End, None, Some(write));
    }

    #[test]
    fn another_argument_is_replaced_and_what_no_rule_explains_is_not_proposed() {
        let kind = DivergenceKind::Argument { arg: 1, expected: 2, actual: u64::from(u32::MAX) };
        let text = proposed(kind, Some(call("shutdown", None)), Some(call("shutdown", None)));
        assert!(text.contains("shutdown(_, 2) => shutdown(_, -1)"), "{text}");
        for kind in [DivergenceKind::Hang { waited_ms: 1 }, DivergenceKind::Crash { signo: 11, address: 0 }] {
            assert_eq!(propose(&divergence(kind, Some(call("read", None)), None)), None);
        }
    }
}
