//! The right side: what the follower is expected to do instead of what was recorded.

use std::sync::Arc;

use bytes::Bytes;
use mvedsua_common::syscalls::{Arg, Dir, Extent, Row, regions};

use super::ast::Kind;
use super::calls::{self, Seen};
use super::lines::{LineStreams, Lines};
use super::matcher::{self, Found, Sets, Thread};
use super::program::{Emit, Give, Matcher, Part, RuleSet};
use super::stage::carried;
use crate::record::{CallEntry, CallReturn, Piece, PieceDir};

/// How closely the follower's call must be what is expected.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) rule: usize,
    /// For each argument that is not simply compared.
    pub(super) loose: Vec<(u8, Loose)>,
    /// The call was not recorded: its result is computed where the rule does not say it.
    pub(super) added: bool,
    /// What does not fit into the follower's buffer it may read later.
    pub(super) cut: bool,
    pub(super) result: Option<i64>,
}

impl Expected {
    /// Says whether the call is compared in full.
    pub(super) fn is_strict(&self) -> bool {
        self.loose.is_empty() && !self.added
    }
}

/// What is asked of an argument.
#[derive(Clone, Debug)]
pub(super) enum Loose {
    Any,
    Matches(Arc<Matcher>),
    Kind(Kind),
    OneOf(Vec<i64>),
}

/// A call of the right side.
#[derive(Debug)]
pub(super) struct Emitted {
    /// Which call of the window gives it its place in the order.
    pub(super) place: usize,
    pub(super) entry: CallEntry,
    /// `None` for the last call of all, when what it is made of has not returned.
    pub(super) ret: Option<CallReturn>,
    /// Which call of the window it was made of.
    pub(super) base: Option<usize>,
    pub(super) expected: Option<Expected>,
    pub(super) rewritten: bool,
}

/// What a right side makes of the calls that the left side took.
#[derive(Debug, Default)]
pub(super) struct Performed {
    pub(super) calls: Vec<Emitted>,
    /// How many recorded calls nothing was made of.
    pub(super) dropped: usize,
    pub(super) rewritten: usize,
    pub(super) added: usize,
    /// How many are not compared in full.
    pub(super) loosened: usize,
    /// Why it could not be performed.
    pub(super) failed: Option<String>,
}

/// Performs the right side of a rule on the calls that it took.
pub(super) fn perform(
    rules: &RuleSet,
    found: &Found,
    window: &[Seen],
    sets: &Sets,
    streams: &mut LineStreams,
) -> Performed {
    let rule = &rules.rules[found.rule];
    let mut done = Performed::default();
    let mut used = vec![false; window.len()];
    let mut place = 0;
    for part in &rule.right {
        match part {
            Part::Recorded(label) => {
                let (from, to) = found.thread.labels[*label];
                for at in from as usize..(to as usize).min(window.len()) {
                    place = place.max(at);
                    used[at] = true;
                    let call = &window[at];
                    let (entry, ret) = (call.entry.clone(), call.ret.clone());
                    done.calls.push(Emitted { place, entry, ret, base: Some(at), expected: None, rewritten: false });
                }
            }
            Part::Call(emit) => {
                let base = base(emit, &found.thread, window, &used);
                if let Some(at) = base {
                    place = place.max(at);
                    used[at] = true;
                }
                match make(emit, found, base.map(|at| &window[at]), sets, streams) {
                    Ok(mut call) => {
                        call.place = place;
                        call.base = base;
                        done.rewritten += usize::from(call.rewritten);
                        done.added += usize::from(base.is_none());
                        done.loosened +=
                            usize::from(call.expected.as_ref().is_some_and(|expected| !expected.is_strict()));
                        done.calls.push(call);
                    }
                    Err(reason) => done.failed = Some(format!("rule `{}`: {reason}", rule.name)),
                }
            }
        }
    }
    done.dropped = used.iter().filter(|used| !**used).count();
    // Only the very last call can be left open; what is in the middle must have a result.
    let last = done.calls.len().saturating_sub(1);
    for call in &mut done.calls[..last] {
        if call.ret.is_none() {
            call.ret = Some(complete(&call.entry));
        }
    }
    done
}

/// Finds the recorded call that one of the right side is made of.
fn base(emit: &Emit, thread: &Thread, window: &[Seen], used: &[bool]) -> Option<usize> {
    let fits = |at: &usize| window[*at].entry.nr == emit.row.nr;
    match emit.label {
        Some(label) => {
            let (from, to) = thread.labels[label];
            (from as usize..(to as usize).min(window.len())).find(fits)
        }
        None => (0..window.len()).find(|at| fits(at) && !used[*at]),
    }
}

/// Returns the result of an output that succeeded in full.
fn complete(entry: &CallEntry) -> CallReturn {
    let given = mvedsua_common::syscalls::row(entry.nr).and_then(|row| calls::given(row, entry));
    CallReturn { ret: given.unwrap_or(0), outputs: Vec::new(), at: entry.at }
}

fn make(
    emit: &Emit,
    found: &Found,
    base: Option<&Seen>,
    sets: &Sets,
    streams: &mut LineStreams,
) -> Result<Emitted, String> {
    let row = emit.row;
    let bindings = &found.thread.bindings;
    let unbound = || "a variable has no value in this match".to_owned();
    let (mut entry, mut ret) = match base {
        Some(call) => (call.entry.clone(), call.ret.clone()),
        None => {
            let entry = CallEntry { nr: row.nr, args: [0; 6], inputs: Vec::new(), at: Default::default() };
            (entry, Some(CallReturn { ret: 0, outputs: Vec::new(), at: Default::default() }))
        }
    };
    let added = base.is_none();
    let mut cut = false;
    let may_be_cut = base.is_some_and(|call| carried::may_be_cut(&call.entry, call.descriptors[0].as_deref()));
    let mut loose: Vec<(u8, Loose)> = Vec::new();
    let mut fixed = [false; 6];
    let before = (entry.clone(), ret.clone());
    let given_before = calls::given(row, &entry);
    for (arg, give) in &emit.args {
        let index = usize::from(*arg);
        fixed[index] = true;
        let bytes = match give {
            Give::Any => {
                loose.push((*arg, Loose::Any));
                continue;
            }
            Give::Regex(matcher) => {
                loose.push((*arg, Loose::Matches(Arc::new((**matcher).clone()))));
                continue;
            }
            Give::Kind(kind) => {
                loose.push((*arg, Loose::Kind(kind.clone())));
                continue;
            }
            Give::Stored(set) => {
                loose.push((*arg, Loose::OneOf(sets[*set].clone())));
                continue;
            }
            Give::Int(sum) => {
                entry.args[index] = sum.value(bindings).ok_or_else(unbound)? as u64;
                continue;
            }
            Give::Bytes(text) => text.value(bindings).ok_or_else(unbound)?,
            Give::BytesVariable(variable) => bindings.bytes(*variable).cloned().ok_or_else(unbound)?,
            Give::Lines(replacement) => {
                let old = calls::payload(row, *arg, &entry.inputs, ret.as_ref()).unwrap_or_default().into_owned();
                match streams.take(entry.args[0] as i32, &old)? {
                    Lines::Unchanged => continue,
                    Lines::Whole { mut rest, lines } => {
                        rest.extend_from_slice(&replacement.apply(&lines, bindings).ok_or_else(unbound)?);
                        rest.into()
                    }
                    Lines::None => {
                        if let Some(ret) = &mut ret {
                            ret.ret = -i64::from(libc::EAGAIN);
                            ret.outputs.retain(|piece| piece.arg != *arg);
                        }
                        continue;
                    }
                }
            }
            Give::Replace(replacement) => {
                let old = calls::payload(row, *arg, &entry.inputs, ret.as_ref()).unwrap_or_default().into_owned();
                replacement.apply(&old, bindings).ok_or_else(unbound)?
            }
        };
        if calls::is_filled(row, *arg) {
            if let Some(ret) = &mut ret {
                // How much room there is in an added call, only the follower's own call will tell.
                let mut roomy = entry.clone();
                let is_open = |other: &(u8, Give)| matches!(other.1, Give::Any);
                cut = may_be_cut;
                if added || cut || emit.args.iter().any(is_open) {
                    roomy.args = [u64::MAX; 6];
                }
                calls::set_output(row, &roomy, ret, *arg, bytes)?;
            }
        } else {
            let length_fixed = length_argument(row, *arg).map(|at| (at, fixed[at], entry.args[at]));
            calls::set_input(row, &mut entry, *arg, bytes)?;
            match length_fixed {
                Some((at, true, value)) => entry.args[at] = value,
                Some((at, false, _)) => fixed[at] = true,
                None => {}
            }
        }
    }
    let result = match &emit.result {
        Some(sum) => Some(sum.value(bindings).ok_or_else(unbound)?),
        None => None,
    };
    match (result, &mut ret, base) {
        (Some(result), Some(ret), _) => ret.ret = result,
        // What was given in full is given in full.
        (None, Some(ret), Some(_)) if given_before == Some(ret.ret) => {
            ret.ret = calls::given(row, &entry).unwrap_or(ret.ret);
        }
        (None, Some(ret), None) if ret.outputs.is_empty() => ret.ret = calls::given(row, &entry).unwrap_or(0),
        _ => {}
    }
    if added {
        let free = (0..row.args.len() as u8).filter(|arg| !fixed[usize::from(*arg)]);
        loose.extend(free.map(|arg| (arg, Loose::Any)));
    }
    let rewritten = !added && (before.0 != entry || before.1 != ret);
    let expected =
        (added || cut || !loose.is_empty()).then_some(Expected { rule: found.rule, loose, added, cut, result });
    Ok(Emitted { place: 0, entry, ret, base: None, expected, rewritten })
}

/// Returns the argument that holds the length of an input.
fn length_argument(row: &Row, arg: u8) -> Option<usize> {
    match row.args.get(usize::from(arg)) {
        Some(Arg::Mem(_, Extent::FromArg { len, .. })) => Some(usize::from(*len)),
        _ => None,
    }
}

/// Returns the result that a rewritten output has, from that of the recorded one.
pub(super) fn adapt(ret: i64, given_before: Option<i64>, given_now: Option<i64>, result: Option<i64>) -> i64 {
    match (result, given_before, given_now) {
        (Some(result), ..) => result,
        (None, Some(before), Some(now)) if before == ret => now,
        _ => ret,
    }
}

/// A call of the follower's, as a right side looks at it.
pub(super) struct Asked<'a> {
    pub(super) row: &'static Row,
    pub(super) args: &'a [u64; 6],
    pub(super) inputs: &'a [Piece],
    /// What the leader's descriptor of that number is.
    pub(super) is: &'a dyn Fn(u64, &Kind) -> bool,
}

impl Expected {
    /// Fills in what is not compared from the follower's own call; what it must fulfil and does not stays different.
    pub(super) fn fill(
        &self,
        entry: &CallEntry,
        ret: Option<&CallReturn>,
        asked: &Asked<'_>,
    ) -> (CallEntry, Option<CallReturn>) {
        let (mut entry, mut ret) = (entry.clone(), ret.cloned());
        if entry.nr != asked.row.nr {
            return (entry, ret);
        }
        let given_before = calls::given(asked.row, &entry);
        for (arg, loose) in &self.loose {
            let index = usize::from(*arg);
            let raw = asked.args[index];
            let fulfilled = match loose {
                Loose::Any => true,
                Loose::Matches(matcher) => calls::payload(asked.row, *arg, asked.inputs, None)
                    .is_some_and(|bytes| matcher.regex.is_match(&bytes[..])),
                Loose::Kind(kind) => (asked.is)(raw, kind),
                Loose::OneOf(values) => values.iter().any(|value| matcher::same(*value, raw)),
            };
            if fulfilled {
                entry.args[index] = raw;
                entry.inputs.retain(|piece| piece.arg != *arg);
                entry.inputs.extend(asked.inputs.iter().filter(|piece| piece.arg == *arg).cloned());
                if let Some(length) = length_argument(asked.row, *arg) {
                    entry.args[length] = asked.args[length];
                }
            } else if let Loose::Matches(matcher) = loose {
                // So that a report shows what was wanted.
                entry.args[index] = raw;
                let wanted = Bytes::copy_from_slice(matcher.source.as_bytes());
                let addr = crate::record::LeaderAddr(raw);
                entry.inputs.retain(|piece| piece.arg != *arg);
                entry.inputs.push(Piece { arg: *arg, part: 0, dir: PieceDir::In, addr, bytes: wanted });
            } else {
                entry.args[index] = !raw;
            }
        }
        // A pointer that the rule gave bytes for is not null.
        for (index, arg) in asked.row.args.iter().enumerate() {
            if matches!(arg, Arg::Mem(..)) && entry.args[index] == 0 && self.added {
                entry.args[index] = asked.args[index];
            }
        }
        if let (None, Some(given), Some(ret)) = (self.result, calls::given(asked.row, &entry), &mut ret)
            && (self.added || given_before == Some(ret.ret))
        {
            ret.ret = given;
        }
        (entry, ret)
    }

    /// Returns how much room the follower has for a call's bytes, if they do not fit into it.
    pub(super) fn overflow(&self, ret: &CallReturn, asked: &Asked<'_>) -> Option<(usize, u64)> {
        let room = asked.row.args.iter().find_map(|arg| match arg {
            Arg::Mem(Dir::Out, Extent::FromRet { cap, scale: 1 }) => Some(asked.args[usize::from(*cap)]),
            _ => None,
        })?;
        let bytes: usize = ret.outputs.iter().map(|piece| piece.bytes.len()).sum();
        (!regions::failed(ret.ret) && bytes as u64 > room).then_some((bytes, room))
    }
}
