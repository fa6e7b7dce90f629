//! Runs the automaton over the calls of one thread.
//!
//! All alternatives advance together, in the order of their priority; of two that come to the same state the later one is
//! dropped. So one call costs at most one visit to each state, however often groups are repeated and nested: the work is
//! at most *states × calls*, never exponential. A variable in a repeated group has the value of its first turn where it is
//! compared, and of its last where a regular expression gives it.

use std::sync::Arc;

use mvedsua_common::syscalls::{Row, regions};

use super::ast::Direction;
use super::calls::{self, Seen};
use super::program::{Action, ArgTest, Bindings, CallPattern, Edge, ResultTest, RuleSet, Trigger, Value};
use crate::record::CallEntry;

/// Descriptors that rules have remembered, by the index of the name.
pub(super) type Sets = Vec<Vec<i64>>;

/// One alternative: where it is, and what it has seen.
#[derive(Clone, Debug)]
pub(super) struct Thread {
    state: usize,
    pub(super) bindings: Bindings,
    /// For each label the calls that it covers, counted from the beginning of the window.
    pub(super) labels: Arc<Vec<(u32, u32)>>,
}

/// A rule that has matched.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) rule: usize,
    /// How many calls it takes.
    pub(super) calls: usize,
    pub(super) thread: Thread,
}

/// Alternatives that are followed from one call on.
#[derive(Debug, Default)]
pub(super) struct Search {
    threads: Vec<Thread>,
    pub(super) found: Option<Found>,
    calls: usize,
}

/// What a step may look at, and what it costs.
pub(super) struct Context<'a> {
    pub(super) rules: &'a RuleSet,
    pub(super) sets: &'a Sets,
    /// Visits to states, for the bound.
    pub(super) work: &'a mut u64,
    /// States that this step has visited.
    pub(super) visited: &'a mut Vec<bool>,
}

impl Search {
    /// Begins with all rules that apply, or with one that skips; `first` says that this is the thread's first call.
    pub(super) fn begin(context: &mut Context<'_>, direction: Direction, first: bool, only: Option<usize>) -> Search {
        let mut search = Search::default();
        context.visited.fill(false);
        for (index, rule) in context.rules.rules.iter().enumerate() {
            if only.map_or(!context.rules.applies(index, direction), |only| only != index) {
                continue;
            }
            let start = match rule.trigger {
                Trigger::Recorded { start } => start,
                Trigger::Begin { start } if first || only.is_some() => start,
                Trigger::Begin { .. } | Trigger::Replayed => continue,
            };
            let start = match context.rules.states[start] {
                Action::Skip { next } if only.is_some() => next,
                Action::Skip { .. } => continue,
                _ => start,
            };
            let thread = Thread {
                state: start,
                bindings: Bindings::new(rule.variables.len()),
                labels: Arc::new(vec![(0, 0); rule.labels]),
            };
            search.follow(context, thread);
        }
        search
    }

    /// Says whether more calls could still change what is found.
    pub(super) fn is_open(&self) -> bool {
        !self.threads.is_empty()
    }

    /// Says whether some alternative cannot be tried before the call has returned.
    pub(super) fn needs_return(&self, rules: &RuleSet, call: &Seen) -> bool {
        self.threads.iter().any(|thread| match &rules.states[thread.state] {
            Action::Match { call: pattern, .. } => {
                pattern.needs_return && pattern.row.is_none_or(|row| row.nr == call.entry.nr)
            }
            _ => false,
        })
    }

    /// Takes one more call.
    pub(super) fn step(&mut self, context: &mut Context<'_>, call: &Seen) {
        let threads = std::mem::take(&mut self.threads);
        self.calls += 1;
        context.visited.fill(false);
        for mut thread in threads {
            *context.work += 1;
            let Action::Match { call: pattern, next } = &context.rules.states[thread.state] else { continue };
            if takes(pattern, call, &mut thread.bindings, context.sets) {
                thread.state = *next;
                if self.follow(context, thread) {
                    // Whatever comes after is of lower priority.
                    break;
                }
            }
        }
    }

    /// Goes on to every state that is reached without a call; says whether a rule has matched there.
    fn follow(&mut self, context: &mut Context<'_>, thread: Thread) -> bool {
        let mut ways = vec![thread];
        while let Some(mut thread) = ways.pop() {
            if std::mem::replace(&mut context.visited[thread.state], true) {
                continue;
            }
            *context.work += 1;
            match &context.rules.states[thread.state] {
                Action::Match { .. } => self.threads.push(thread),
                Action::Nop { condition, next } => {
                    if condition.as_ref().is_none_or(|condition| condition.holds(&thread.bindings)) {
                        let way = |state: &usize| Thread { state: *state, ..thread.clone() };
                        ways.extend(next.iter().rev().map(way));
                    }
                }
                Action::Skip { next } => {
                    thread.state = *next;
                    ways.push(thread);
                }
                Action::Store { label, edge, next } => {
                    let span = &mut Arc::make_mut(&mut thread.labels)[*label];
                    match edge {
                        Edge::Begin => *span = (self.calls as u32, self.calls as u32),
                        Edge::End => span.1 = self.calls as u32,
                    }
                    thread.state = *next;
                    ways.push(thread);
                }
                Action::Exec { rule } => {
                    self.found = Some(Found { rule: *rule, calls: self.calls, thread });
                    return true;
                }
            }
        }
        false
    }
}

/// Counts the conditions on arguments that an entered call fulfils, each by itself.
pub(super) fn fitting(pattern: &CallPattern, entry: &CallEntry, sets: &Sets) -> usize {
    let seen = Seen { entry: entry.clone(), ret: None, descriptors: [const { None }; 6] };
    let Some(row) = pattern.row else { return 0 };
    let fits =
        |(arg, test): &&(u8, ArgTest)| holds(row, *arg, test, &seen, &mut Bindings::new(usize::from(u8::MAX)), sets);
    pattern.args.iter().filter(fits).count()
}

/// Says whether a call fulfils a pattern, and binds its variables.
pub(super) fn takes(pattern: &CallPattern, call: &Seen, bindings: &mut Bindings, sets: &Sets) -> bool {
    let Some(row) = pattern.row else { return true };
    if row.nr != call.entry.nr || (pattern.needs_return && call.ret.is_none()) {
        return false;
    }
    if !pattern.args.iter().all(|(arg, test)| holds(row, *arg, test, call, bindings, sets)) {
        return false;
    }
    let (Some(test), Some(ret)) = (&pattern.result, call.ret.as_ref().map(|ret| ret.ret)) else {
        return pattern.result.is_none();
    };
    match test {
        ResultTest::Ok => !regions::failed(ret),
        ResultTest::Error => regions::failed(ret),
        ResultTest::Int(sum) => sum.value(bindings) == Some(ret),
        ResultTest::Variable(variable) => bindings.unify(*variable, Value::Int(ret)),
    }
}

/// Says whether one argument is as it must be, and binds its variables.
fn holds(row: &Row, arg: u8, test: &ArgTest, call: &Seen, bindings: &mut Bindings, sets: &Sets) -> bool {
    let raw = call.entry.args[usize::from(arg)];
    let bytes = || calls::payload(row, arg, &call.entry.inputs, call.ret.as_ref());
    match test {
        ArgTest::Int(sum) => sum.value(bindings).is_some_and(|wanted| same(wanted, raw)),
        ArgTest::IntVariable(variable) => bind(bindings, *variable, raw),
        ArgTest::Stored(set) => sets[*set].iter().any(|wanted| same(*wanted, raw)),
        ArgTest::Kind(kind, variable) => {
            let is = call.descriptors[usize::from(arg)].as_ref().is_some_and(|descriptor| descriptor.is(kind));
            is && variable.is_none_or(|variable| bind(bindings, variable, raw))
        }
        ArgTest::Text(text) => match (text.value(bindings), bytes()) {
            (Some(wanted), Some(bytes)) => wanted[..] == bytes[..],
            _ => false,
        },
        ArgTest::BytesVariable(variable) => {
            bytes().is_some_and(|bytes| bindings.unify(*variable, Value::Bytes(bytes.into_owned().into())))
        }
        ArgTest::Regex(matcher) => bytes().is_some_and(|bytes| matcher.take(&bytes, bindings)),
    }
}

/// Says whether a register holds a number, however a C `int` was extended to 64 bits.
pub(super) fn same(wanted: i64, raw: u64) -> bool {
    raw as i64 == wanted || (i64::from(raw as i32) == wanted && raw >> 32 == 0) || (raw as i32 as i64 == wanted)
}

/// Gives a variable the value of a register, read as a C `int` where it looks like one.
fn bind(bindings: &mut Bindings, variable: usize, raw: u64) -> bool {
    let value = if raw >> 32 == 0 { i64::from(raw as i32) } else { raw as i64 };
    bindings.unify(variable, Value::Int(value))
}

impl Thread {
    /// An alternative that has seen nothing.
    pub(super) fn empty(variables: usize) -> Thread {
        Thread { state: 0, bindings: Bindings::new(variables), labels: Arc::default() }
    }
}

impl Search {
    /// Says which calls may come next: numbers, or `None` for any.
    pub(super) fn heads(&self, rules: &RuleSet, mut tell: impl FnMut(Option<u32>)) {
        for thread in &self.threads {
            if let Action::Match { call, .. } = &rules.states[thread.state] {
                tell(call.row.map(|row| row.nr));
            }
        }
    }
}
