//! The variables and labels of a rule.

use super::super::ast::*;
use super::super::diagnostic::{Diagnostic, nearest};
use super::super::{calls, constants};
use super::Compiler;
use mvedsua_common::syscalls;

/// What a variable may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Int,
    Bytes,
}

/// What the left side of a rule names.
#[derive(Debug, Default)]
pub(super) struct Scope {
    variables: Vec<(String, Type)>,
    pub(super) labels: Vec<String>,
}

impl Scope {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn label(&self, name: &str) -> Option<usize> {
        self.labels.iter().position(|label| label == name)
    }

    pub(super) fn find(&self, name: &str) -> Option<(usize, Type)> {
        let at = self.variables.iter().position(|(known, _)| known == name)?;
        Some((at, self.variables[at].1))
    }
}

impl Compiler {
    /// Declares what the items bind, in the order of the text.
    pub(super) fn declare(&mut self, items: &[Item]) {
        for item in items {
            if let Some(label) = &item.label {
                if self.scope.labels.contains(&label.is) {
                    self.error(&label.span, format!("two labels are called `{}`", label.is), "expected another name");
                }
                self.scope.labels.push(label.is.clone());
            }
            match &item.atom.is {
                Atom::Any => {}
                Atom::Group(alternatives) => alternatives.iter().for_each(|items| self.declare(items)),
                Atom::Call(call) => self.declare_call(call),
            }
        }
    }

    fn declare_call(&mut self, call: &Call) {
        let row = syscalls::by_name(&call.name.is).and_then(syscalls::row);
        for (index, arg) in (0_u8..).zip(&call.args) {
            match &arg.is {
                Arg::Value(Expr::Name(name)) if !constants::looks_like_one(&name.is) => {
                    let memory = row.is_some_and(|row| calls::is_memory(row, index));
                    self.declare_variable(&name.is, if memory { Type::Bytes } else { Type::Int }, &arg.span);
                }
                Arg::Kind(_, Some(name)) => self.declare_variable(name, Type::Int, &arg.span),
                Arg::Regex(pattern) => {
                    for name in group_names(&pattern.text) {
                        self.declare_variable(&name, Type::Bytes, &arg.span);
                    }
                }
                _ => {}
            }
        }
        if let Some(At { is: Outcome::Value(Expr::Name(name)), span }) = &call.result
            && !constants::looks_like_one(&name.is)
        {
            self.declare_variable(&name.is, Type::Int, span);
        }
    }

    fn declare_variable(&mut self, name: &str, of: Type, span: &std::ops::Range<usize>) {
        match self.scope.find(name) {
            None => self.scope.variables.push((name.to_owned(), of)),
            Some((_, known)) if known == of => {}
            Some((_, known)) => {
                let what = |of| if of == Type::Int { "a number" } else { "bytes" };
                let message = format!("`{name}` is {} here and {} before", what(of), what(known));
                self.error(span, message, "expected another name");
            }
        }
    }

    /// Finds a variable that must have this type; reports what is wrong otherwise.
    pub(super) fn variable(&mut self, name: &At<String>, wanted: Type) -> Option<usize> {
        match self.scope.find(&name.is) {
            Some((at, of)) if of == wanted => Some(at),
            Some((_, Type::Bytes)) => {
                let hint = format!("its length is `len({})`", name.is);
                self.error_with(&name.span, format!("`{}` holds bytes", name.is), "expected a number", Some(hint));
                None
            }
            Some((_, Type::Int)) => {
                let hint = format!("its digits are `\"{{{}}}\"`", name.is);
                self.error_with(&name.span, format!("`{}` is a number", name.is), "expected bytes", Some(hint));
                None
            }
            None => {
                self.unbound(name);
                None
            }
        }
    }

    /// Reports a name that the left side does not give a value to.
    pub(super) fn unbound(&mut self, name: &At<String>) {
        let near = nearest(&name.is, self.scope.names()).map(str::to_owned);
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "the left side gives values: `read({}, …)`, or a regular expression with `(?<{}>…)`",
                name.is, name.is
            ),
        };
        let message = format!("`{}` has no value", name.is);
        let error = Diagnostic::error(name.span.clone(), message, "expected a name of the left side");
        self.diagnostics.push(error.hint(hint));
    }
}

/// Returns the names of the groups in a regular expression, good or not.
fn group_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("(?") {
        let escaped = rest[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        rest = &rest[at + 2..];
        let named = rest.strip_prefix("P<").or_else(|| rest.strip_prefix('<')).filter(|_| !escaped);
        if let Some((name, _)) = named.and_then(|named| named.split_once('>')) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Collects the variables of a condition.
pub(super) fn of_condition<'a>(condition: &'a Condition, names: &mut Vec<&'a str>) {
    match condition {
        Condition::Compare(left, _, right) => {
            of_expr(left, names);
            of_expr(right, names);
        }
        Condition::Is(name, Template(pieces)) => {
            names.push(&name.is);
            names.extend(pieces.iter().filter_map(|piece| match piece {
                Piece::Variable(name) => Some(name.as_str()),
                Piece::Bytes(_) => None,
            }));
        }
        Condition::Matches(name, _) => names.push(&name.is),
        Condition::Not(inner) => of_condition(inner, names),
        Condition::And(left, right) | Condition::Or(left, right) => {
            of_condition(left, names);
            of_condition(right, names);
        }
    }
}

fn of_expr<'a>(expr: &'a Expr, names: &mut Vec<&'a str>) {
    match expr {
        Expr::Number(_) => {}
        Expr::Name(name) | Expr::Len(name) => names.push(&name.is),
        Expr::Add(left, right) | Expr::Sub(left, right) => {
            of_expr(left, names);
            of_expr(right, names);
        }
    }
}

/// Collects the variables that an item may bind.
pub(super) fn of_item(item: &Item, names: &mut Vec<String>) {
    match &item.atom.is {
        Atom::Any => {}
        Atom::Group(alternatives) => alternatives.iter().flatten().for_each(|item| of_item(item, names)),
        Atom::Call(call) => {
            for arg in &call.args {
                match &arg.is {
                    Arg::Value(Expr::Name(name)) => names.push(name.is.clone()),
                    Arg::Kind(_, Some(name)) => names.push(name.clone()),
                    Arg::Regex(pattern) => names.extend(group_names(&pattern.text)),
                    _ => {}
                }
            }
            if let Some(At { is: Outcome::Value(Expr::Name(name)), .. }) = &call.result {
                names.push(name.is.clone());
            }
        }
    }
}
