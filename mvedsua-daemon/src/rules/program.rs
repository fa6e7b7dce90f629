//! Compiled rules: one automaton for all of them, and what each does when it has matched.
//!
//! The actions are those of the ATC'17 paper: [`Action::Match`] consumes a call that fulfils a pattern, [`Action::Nop`]
//! moves on without one, [`Action::Skip`] lets a call vanish, [`Action::Store`] keeps something for later, and
//! [`Action::Exec`] performs the right side.

use std::sync::Arc;

use bytes::Bytes;
use mvedsua_common::syscalls::Row;
use regex_automata::meta::Regex;

use super::ast::{Comparison, Direction, Kind};

/// Rules that can be run.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub(super) rules: Vec<Rule>,
    pub(super) states: Vec<Action>,
    /// Names of what is remembered across rules.
    pub(super) sets: Vec<String>,
}

/// What the automaton does in a state.
#[derive(Debug)]
pub(super) enum Action {
    /// Consumes a call that fulfils the pattern.
    Match { call: Box<CallPattern>, next: usize },
    /// Goes on in each of these states, the first preferred; where a condition is given, only if it holds.
    Nop { condition: Option<Box<Test>>, next: Vec<usize> },
    /// Lets calls vanish until what follows matches.
    Skip { next: usize },
    /// Keeps where a label begins or ends.
    Store { label: usize, edge: Edge, next: usize },
    /// Performs the right side of the rule.
    Exec { rule: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    Begin,
    End,
}

/// How a rule is set going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// By the leader's calls.
    Recorded { start: usize },
    /// By the first calls of a thread.
    Begin { start: usize },
    /// By a call that only the follower makes.
    Replayed,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) direction: Option<Direction>,
    pub(super) trigger: Trigger,
    pub(super) variables: Vec<String>,
    pub(super) labels: usize,
    pub(super) right: Vec<Part>,
    pub(super) remember: Vec<(usize, usize)>,
    pub(super) forget: Vec<(usize, usize)>,
}

/// Which calls a pattern takes, and what must hold for them.
#[derive(Debug)]
pub(super) struct CallPattern {
    /// `None` takes any call.
    pub(super) row: Option<&'static Row>,
    pub(super) args: Vec<(u8, ArgTest)>,
    pub(super) result: Option<ResultTest>,
    /// Says whether the call must have returned before the pattern can be tried.
    pub(super) needs_return: bool,
}

#[derive(Debug)]
pub(super) enum ArgTest {
    Int(Sum),
    /// Binds the variable, or compares when it has a value.
    IntVariable(usize),
    Stored(usize),
    Kind(Kind, Option<usize>),
    Text(Text),
    BytesVariable(usize),
    Regex(Matcher),
}

#[derive(Debug)]
pub(super) enum ResultTest {
    Ok,
    Error,
    Int(Sum),
    Variable(usize),
}

/// A regular expression, and which groups go into which variables.
#[derive(Debug, Clone)]
pub(super) struct Matcher {
    pub(super) regex: Regex,
    pub(super) source: String,
    pub(super) groups: Vec<(usize, usize)>,
}

/// A number to compute.
#[derive(Debug, Clone)]
pub(super) enum Sum {
    Number(i64),
    Variable(usize),
    Len(usize),
    Add(Box<Sum>, Box<Sum>),
    Sub(Box<Sum>, Box<Sum>),
}

/// A string to compute.
#[derive(Debug, Clone)]
pub(super) struct Text(pub(super) Vec<TextPiece>);

#[derive(Debug, Clone)]
pub(super) enum TextPiece {
    Bytes(Bytes),
    Variable(usize),
}

#[derive(Debug)]
pub(super) enum Test {
    Compare(Sum, Comparison, Sum),
    Is(usize, Text),
    Matches(usize, Box<Matcher>),
    Not(Box<Test>),
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
}

/// A part of a right side.
#[derive(Debug)]
pub(super) enum Part {
    /// The calls of a label, as they were recorded.
    Recorded(usize),
    Call(Emit),
}

/// A call that the follower is expected to make.
#[derive(Debug)]
pub(super) struct Emit {
    pub(super) row: &'static Row,
    /// The label that it is made of; without one, the first call of its name that is still unused.
    pub(super) label: Option<usize>,
    pub(super) args: Vec<(u8, Give)>,
    pub(super) result: Option<Sum>,
}

/// Where an argument comes from.
#[derive(Debug)]
pub(super) enum Give {
    /// Whatever the follower passes.
    Any,
    Int(Sum),
    Stored(usize),
    Kind(Kind),
    Bytes(Text),
    BytesVariable(usize),
    Regex(Box<Matcher>),
    Replace(Box<Replacement>),
    /// The same for whole lines of a stream; what is no line yet is kept back.
    Lines(Box<Replacement>),
}

/// `replace(…)`: several patterns searched at once; of those that match at one place the first counts.
#[derive(Debug)]
pub(super) struct Replacement {
    pub(super) regex: Regex,
    /// By pattern: what is put there, with the groups' indices for variables of its own.
    pub(super) texts: Vec<Vec<ReplacePiece>>,
}

#[derive(Debug)]
pub(super) enum ReplacePiece {
    Bytes(Bytes),
    Group(usize),
    Variable(usize),
}

impl RuleSet {
    /// Returns the rules' names, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.name.as_str())
    }

    /// Says how many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Says whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns how many states the automaton has; with [`super::stage::WINDOW`] it bounds the work for one call.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states.len()
    }

    pub(super) fn applies(&self, rule: usize, direction: Direction) -> bool {
        self.rules[rule].direction.is_none_or(|of| of == direction)
    }
}

/// What a variable holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Int(i64),
    Bytes(Bytes),
}

/// The variables of one match.
#[derive(Clone, Debug, Default)]
pub(super) struct Bindings(Arc<Vec<Option<Value>>>);

impl Bindings {
    pub(super) fn new(count: usize) -> Bindings {
        Bindings(Arc::new(vec![None; count]))
    }

    pub(super) fn get(&self, variable: usize) -> Option<&Value> {
        self.0.get(variable)?.as_ref()
    }

    pub(super) fn set(&mut self, variable: usize, value: Value) {
        if let Some(place) = Arc::make_mut(&mut self.0).get_mut(variable) {
            *place = Some(value);
        }
    }

    /// Gives the variable this value; says no if it has another one.
    pub(super) fn unify(&mut self, variable: usize, value: Value) -> bool {
        match self.get(variable) {
            Some(known) => *known == value,
            None => {
                self.set(variable, value);
                true
            }
        }
    }

    pub(super) fn int(&self, variable: usize) -> Option<i64> {
        match self.get(variable)? {
            Value::Int(value) => Some(*value),
            Value::Bytes(_) => None,
        }
    }

    pub(super) fn bytes(&self, variable: usize) -> Option<&Bytes> {
        match self.get(variable)? {
            Value::Bytes(bytes) => Some(bytes),
            Value::Int(_) => None,
        }
    }

    fn write(&self, variable: usize, out: &mut Vec<u8>) -> Option<()> {
        match self.get(variable)? {
            Value::Bytes(bytes) => out.extend_from_slice(bytes),
            Value::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
        }
        Some(())
    }
}

impl Sum {
    /// Computes it; `None` when a variable has no value.
    pub(super) fn value(&self, bindings: &Bindings) -> Option<i64> {
        match self {
            Sum::Number(number) => Some(*number),
            Sum::Variable(variable) => bindings.int(*variable),
            Sum::Len(variable) => bindings.bytes(*variable).map(|bytes| bytes.len() as i64),
            Sum::Add(left, right) => Some(left.value(bindings)?.wrapping_add(right.value(bindings)?)),
            Sum::Sub(left, right) => Some(left.value(bindings)?.wrapping_sub(right.value(bindings)?)),
        }
    }
}

impl Text {
    /// Puts it together; `None` when a variable has no value.
    pub(super) fn value(&self, bindings: &Bindings) -> Option<Bytes> {
        if let [TextPiece::Bytes(bytes)] = self.0.as_slice() {
            return Some(bytes.clone());
        }
        let mut out = Vec::new();
        for piece in &self.0 {
            match piece {
                TextPiece::Bytes(bytes) => out.extend_from_slice(bytes),
                TextPiece::Variable(variable) => bindings.write(*variable, &mut out)?,
            }
        }
        Some(out.into())
    }
}

impl Matcher {
    /// Looks for the expression and keeps its named groups; a group that took no part is empty.
    pub(super) fn take(&self, bytes: &[u8], bindings: &mut Bindings) -> bool {
        if self.groups.is_empty() {
            return self.regex.is_match(bytes);
        }
        let mut captures = self.regex.create_captures();
        self.regex.captures(bytes, &mut captures);
        if !captures.is_match() {
            return false;
        }
        for (group, variable) in &self.groups {
            let found = captures.get_group(*group).map(|span| Bytes::copy_from_slice(&bytes[span.range()]));
            bindings.set(*variable, Value::Bytes(found.unwrap_or_default()));
        }
        true
    }
}

impl Test {
    /// Says whether it holds; a variable without a value fulfils nothing.
    pub(super) fn holds(&self, bindings: &Bindings) -> bool {
        match self {
            Test::Compare(left, by, right) => {
                let (Some(left), Some(right)) = (left.value(bindings), right.value(bindings)) else { return false };
                match by {
                    Comparison::Equal => left == right,
                    Comparison::Unequal => left != right,
                    Comparison::Less => left < right,
                    Comparison::LessEqual => left <= right,
                    Comparison::Greater => left > right,
                    Comparison::GreaterEqual => left >= right,
                }
            }
            Test::Is(variable, text) => {
                bindings.bytes(*variable).is_some_and(|bytes| text.value(bindings).as_ref() == Some(bytes))
            }
            Test::Matches(variable, matcher) => {
                bindings.bytes(*variable).is_some_and(|bytes| matcher.regex.is_match(&bytes[..]))
            }
            Test::Not(inner) => !inner.holds(bindings),
            Test::And(left, right) => left.holds(bindings) && right.holds(bindings),
            Test::Or(left, right) => left.holds(bindings) || right.holds(bindings),
        }
    }
}

impl Replacement {
    /// Replaces every occurrence; `None` when a variable has no value.
    pub(super) fn apply(&self, bytes: &[u8], bindings: &Bindings) -> Option<Bytes> {
        let (mut out, mut done) = (Vec::new(), 0);
        for captures in self.regex.captures_iter(bytes) {
            let (Some(span), Some(pattern)) = (captures.get_match(), captures.pattern()) else { continue };
            out.extend_from_slice(&bytes[done..span.start()]);
            done = span.end();
            for piece in &self.texts[pattern.as_usize()] {
                match piece {
                    ReplacePiece::Bytes(text) => out.extend_from_slice(text),
                    ReplacePiece::Group(group) => {
                        out.extend(captures.get_group(*group).map(|span| &bytes[span.range()]).unwrap_or_default());
                    }
                    ReplacePiece::Variable(variable) => bindings.write(*variable, &mut out)?,
                }
            }
        }
        out.extend_from_slice(&bytes[done..]);
        Some(out.into())
    }
}
