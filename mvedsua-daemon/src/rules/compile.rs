//! Turns what a file says into automata, and finds what is wrong with it beyond its grammar.

mod lower;
mod scope;

use std::ops::Range;

use mvedsua_common::syscalls::{self, Class, Irregular, Row};

use self::scope::{Scope, Type};
use super::ast::*;
use super::diagnostic::{Diagnostic, nearest};
use super::program::{Action, CallPattern, Edge, Part, Rule as Compiled, RuleSet, Test, Trigger};

/// How many states one rule may take: repetitions that are counted are written out.
const MAX_STATES: usize = 2000;

/// Compiles a file; what is returned is only good when no diagnostic is an error.
pub(super) fn compile(file: &File) -> (RuleSet, Vec<Diagnostic>) {
    let mut compiler = Compiler::default();
    for rule in &file.rules {
        for clause in &rule.clauses {
            if let Clause::Remember(_, set) = clause
                && !compiler.set.sets.contains(set)
            {
                compiler.set.sets.push(set.clone());
            }
        }
    }
    for (index, rule) in file.rules.iter().enumerate() {
        if let Some(first) = file.rules[..index].iter().find(|other| other.name.is == rule.name.is) {
            let message = format!("two rules are called `{}`", first.name.is);
            compiler.error(&rule.name.span, message, "expected another name");
        }
        compiler.rule(rule);
    }
    warn(file, &mut compiler.diagnostics);
    compiler.diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    (compiler.set, compiler.diagnostics)
}

#[derive(Default)]
struct Compiler {
    set: RuleSet,
    diagnostics: Vec<Diagnostic>,
    scope: Scope,
    /// Where the states of the present rule begin.
    first_state: usize,
    /// Bytes that all regular expressions take.
    regex_memory: usize,
}

impl Compiler {
    fn error(&mut self, span: &Range<usize>, message: impl Into<String>, label: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span.clone(), message, label));
    }

    fn error_with(&mut self, span: &Range<usize>, message: String, label: &str, hint: Option<String>) {
        let error = Diagnostic::error(span.clone(), message, label);
        self.diagnostics.push(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        });
    }

    fn rule(&mut self, rule: &Rule) {
        self.scope = Scope::default();
        self.first_state = self.set.states.len();
        if let Left::Calls { items, .. } = &rule.left.is {
            self.declare(items);
        }
        let trigger = self.left(rule);
        let right: Vec<Part> = rule.right.is.iter().filter_map(|item| self.right_item(&rule.left.is, item)).collect();
        let (mut remember, mut forget) = (Vec::new(), Vec::new());
        for clause in &rule.clauses {
            let (what, set, list) = match clause {
                Clause::Where(_) => continue,
                Clause::Remember(what, set) => (what, set, &mut remember),
                Clause::Forget(what, set) => (what, set, &mut forget),
            };
            let variable = self.variable(what, Type::Int);
            match (variable, self.set.sets.iter().position(|known| known == set)) {
                (Some(variable), Some(set)) => list.push((variable, set)),
                (_, None) => self.unknown_set(&what.span, set),
                (None, _) => {}
            }
        }
        if rule.left.is == Left::Nothing && rule.right.is.is_empty() {
            self.error(
                &rule.right.span,
                "`nothing => nothing` says nothing",
                "expected a call that the follower makes",
            );
        }
        self.set.rules.push(Compiled {
            name: rule.name.is.clone(),
            direction: rule.direction,
            trigger,
            variables: self.scope.names().map(str::to_owned).collect(),
            labels: self.scope.labels.len(),
            right,
            remember,
            forget,
        });
    }

    fn unknown_set(&mut self, span: &Range<usize>, set: &str) {
        let near = nearest(set, self.set.sets.iter().map(String::as_str)).map(str::to_owned);
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("a rule that sees the descriptor says `remember fd as {set}`"),
        };
        let message = format!("no rule remembers anything as `{set}`");
        self.error_with(span, message, "expected a name that some rule remembers by", Some(hint));
    }

    fn left(&mut self, rule: &Rule) -> Trigger {
        let conditions = rule.clauses.iter().filter_map(|clause| match clause {
            Clause::Where(condition) => Some(condition),
            Clause::Remember(..) | Clause::Forget(..) => None,
        });
        let Left::Calls { begin, items } = &rule.left.is else {
            for condition in conditions {
                let message = "`nothing` has no variables that a condition could be about";
                self.error(&condition.span, message, "expected no `where`");
            }
            return Trigger::Replayed;
        };
        if items.iter().all(nullable) {
            let error = Diagnostic::error(
                rule.left.span.clone(),
                "the left side matches even no call at all",
                "expected a call that must be there",
            );
            self.diagnostics.push(error.hint("calls that only the follower makes are written `nothing => …`"));
            return Trigger::Replayed;
        }
        let skips = *begin && items.len() > 1 && is_skip(&items[0]);
        let items = if skips { &items[1..] } else { &items[..] };
        // Each condition is tried as soon as its variables have their values.
        let mut tests: Vec<(usize, Test)> = Vec::new();
        for condition in conditions {
            let Some(test) = self.condition(&condition.is) else { continue };
            let mut names = Vec::new();
            scope::of_condition(&condition.is, &mut names);
            let binds = |item: &Item| {
                let mut bound = Vec::new();
                scope::of_item(item, &mut bound);
                bound.iter().any(|name| names.contains(&name.as_str()))
            };
            tests.push((items.iter().rposition(binds).unwrap_or(items.len() - 1), test));
        }
        let index = self.set.rules.len();
        let mut next = self.state(Action::Exec { rule: index });
        for (at, item) in items.iter().enumerate().rev() {
            while let Some(found) = tests.iter().position(|(of, _)| *of == at) {
                let (_, test) = tests.swap_remove(found);
                next = self.state(Action::Nop { condition: Some(Box::new(test)), next: vec![next] });
            }
            next = self.item(item, next);
        }
        if skips {
            next = self.state(Action::Skip { next });
        }
        if self.set.states.len() - self.first_state > MAX_STATES {
            let error = Diagnostic::error(
                rule.left.span.clone(),
                format!("the left side is too large: more than {MAX_STATES} states"),
                "expected fewer or smaller counted repetitions",
            );
            self.diagnostics.push(error);
        }
        if *begin { Trigger::Begin { start: next } } else { Trigger::Recorded { start: next } }
    }

    fn state(&mut self, action: Action) -> usize {
        self.set.states.push(action);
        self.set.states.len() - 1
    }

    fn item(&mut self, item: &Item, next: usize) -> usize {
        let label = item.label.as_ref().and_then(|label| self.scope.label(&label.is));
        let next = match label {
            Some(label) => self.state(Action::Store { label, edge: Edge::End, next }),
            None => next,
        };
        let entry = match item.repeat {
            None => self.atom(&item.atom, next),
            Some(repeat) => self.repeat(&item.atom, repeat, next),
        };
        match label {
            Some(label) => self.state(Action::Store { label, edge: Edge::Begin, next: entry }),
            None => entry,
        }
    }

    fn repeat(&mut self, atom: &At<Atom>, repeat: Repeat, next: usize) -> usize {
        let choice = |body, next| if repeat.lazy { vec![next, body] } else { vec![body, next] };
        let mut entry = next;
        match repeat.max {
            None => {
                let turn = self.state(Action::Nop { condition: None, next: Vec::new() });
                let body = self.atom(atom, turn);
                self.set.states[turn] = Action::Nop { condition: None, next: choice(body, next) };
                entry = turn;
            }
            Some(max) => {
                for _ in repeat.min..max {
                    let body = self.atom(atom, entry);
                    entry = self.state(Action::Nop { condition: None, next: choice(body, next) });
                }
            }
        }
        for _ in 0..repeat.min {
            entry = self.atom(atom, entry);
        }
        entry
    }

    fn atom(&mut self, atom: &At<Atom>, next: usize) -> usize {
        // Enough is enough: the error is reported by whoever called for the rule.
        if self.set.states.len() - self.first_state > MAX_STATES {
            return next;
        }
        match &atom.is {
            Atom::Any => {
                let any = CallPattern { row: None, args: Vec::new(), result: None, needs_return: false };
                self.state(Action::Match { call: Box::new(any), next })
            }
            Atom::Call(call) => match self.pattern(call) {
                Some(call) => self.state(Action::Match { call: Box::new(call), next }),
                None => next,
            },
            Atom::Group(alternatives) => {
                let entries: Vec<usize> = alternatives
                    .iter()
                    .map(|items| items.iter().rev().fold(next, |next, item| self.item(item, next)))
                    .collect();
                match entries.as_slice() {
                    [only] => *only,
                    _ => self.state(Action::Nop { condition: None, next: entries }),
                }
            }
        }
    }

    /// Finds the row of a call that rules may be about.
    fn row(&mut self, name: &At<String>) -> Option<&'static Row> {
        let Some(row) = syscalls::by_name(&name.is).and_then(syscalls::row) else {
            let known = syscalls::rows().filter(|row| recorded(row).is_ok()).map(|row| row.name);
            let hint = nearest(&name.is, known).map(|near| format!("did you mean `{near}`?"));
            let message = match syscalls::by_name(&name.is) {
                Some(_) => format!("`{}` is never recorded: the table has no row for it", name.is),
                None => format!("`{}` is not a system call", name.is),
            };
            self.error_with(&name.span, message, "expected the name of a system call", hint);
            return None;
        };
        match recorded(row) {
            Ok(()) => Some(row),
            Err(reason) => {
                self.error(&name.span, format!("`{}` cannot be in a rule: {reason}", name.is), "expected another call");
                None
            }
        }
    }
}

/// Says whether a rule can be about a call; otherwise why not.
fn recorded(row: &Row) -> Result<(), &'static str> {
    match (row.class, row.irregular) {
        (Class::Local, _) | (_, Some(Irregular::Mmap | Irregular::Futex)) => Err("each version makes it for itself"),
        (Class::Refuse(_), _) => Err("it ends every update"),
        (Class::Both, _) | (_, Some(Irregular::Clone | Irregular::Clone3 | Irregular::Fork)) => {
            Err("both versions must make it")
        }
        (_, Some(Irregular::Restart)) => Err("the kernel makes it"),
        (Class::Supply | Class::Compare, _) => Ok(()),
    }
}

/// Says whether an item matches no call at all, too.
fn nullable(item: &Item) -> bool {
    let empty = match &item.atom.is {
        Atom::Any | Atom::Call(_) => false,
        Atom::Group(alternatives) => alternatives.iter().any(|items| items.iter().all(nullable)),
    };
    empty || item.repeat.is_some_and(|repeat| repeat.min == 0)
}

/// Says whether an item is `any*`, and nobody asks what it was.
fn is_skip(item: &Item) -> bool {
    item.label.is_none() && item.atom.is == Atom::Any && matches!(item.repeat, Some(Repeat { min: 0, max: None, .. }))
}

/// Returns the call that a rule takes without any condition, if its left side is just that.
fn unconditional(rule: &Rule) -> Option<&str> {
    let Left::Calls { begin: false, items } = &rule.left.is else { return None };
    let [Item { atom, repeat, .. }] = items.as_slice() else { return None };
    if repeat.is_some_and(|repeat| repeat.min > 1) || rule.clauses.iter().any(|c| matches!(c, Clause::Where(_))) {
        return None;
    }
    match &atom.is {
        Atom::Any => Some("any"),
        Atom::Call(call) => {
            let free = |index: usize| match &call.args[index].is {
                Arg::Wild | Arg::Any => true,
                Arg::Value(Expr::Name(name)) if super::constants::value(&name.is).is_none() => {
                    !call.args[..index].iter().any(|other| other.is == call.args[index].is)
                }
                _ => false,
            };
            ((0..call.args.len()).all(free) && call.result.is_none()).then_some(call.name.is.as_str())
        }
        Atom::Group(_) => None,
    }
}

/// Finds what can be used but was hardly meant.
fn warn(file: &File, diagnostics: &mut Vec<Diagnostic>) {
    for (index, rule) in file.rules.iter().enumerate() {
        if let Some(call) = unconditional(rule)
            && rule.right.is.is_empty()
        {
            let what = if call == "any" { "every call".to_owned() } else { format!("every `{call}`") };
            let message =
                format!("rule `{}` hides {what}: whatever the new version does there is never seen", rule.name.is);
            let warning = Diagnostic::warning(rule.left.span.clone(), message, "expected a condition");
            diagnostics.push(warning.hint("say which descriptor, or which bytes, it is about"));
        }
        let first = first_call(rule);
        let hidden_by = file.rules[..index].iter().find(|earlier| {
            let same = earlier.direction.is_none() || earlier.direction == rule.direction;
            same && unconditional(earlier).is_some_and(|call| call == "any" || Some(call) == first)
        });
        if let (Some(earlier), Left::Calls { .. }) = (hidden_by, &rule.left.is) {
            let message = format!("rule `{}` is never reached", rule.name.is);
            let label = format!("`{}` takes these calls before it", earlier.name.is);
            let warning = Diagnostic::warning(rule.name.span.clone(), message, label);
            diagnostics.push(warning.hint("the first rule that matches counts: put the narrower one first"));
        }
    }
}

fn first_call(rule: &Rule) -> Option<&str> {
    let Left::Calls { items, .. } = &rule.left.is else { return None };
    match &items.first()?.atom.is {
        Atom::Call(call) => Some(&call.name.is),
        Atom::Any | Atom::Group(_) => None,
    }
}
