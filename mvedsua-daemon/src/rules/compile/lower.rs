//! Arguments, results, strings and conditions of one call.

use std::ops::Range;

use bytes::Bytes;
use mvedsua_common::syscalls::{self, Arg as Parameter, Row};
use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use super::super::ast::*;
use super::super::diagnostic::nearest;
use super::super::program::*;
use super::super::{calls, constants};
use super::{Compiler, Type};

/// How much memory one regular expression may take.
const REGEX_SIZE: usize = 1 << 20;
/// How much memory all of a file's may take.
const REGEX_SIZES: usize = 64 << 20;

/// Compiles patterns that are searched together; `.` and the like stand for bytes.
fn regex(patterns: &[&Pattern]) -> Result<Regex, String> {
    let texts: Vec<String> = patterns
        .iter()
        .map(|pattern| match pattern.flags.as_str() {
            "" => pattern.text.clone(),
            flags => format!("(?{flags}){}{}", pattern.text, if flags.contains('x') { "\n" } else { "" }),
        })
        .collect();
    let config = regex_automata::meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(REGEX_SIZE))
        .onepass_size_limit(Some(REGEX_SIZE))
        .hybrid_cache_capacity(REGEX_SIZE);
    let syntax = syntax::Config::new().unicode(false).utf8(false).nest_limit(64);
    let built = Regex::builder().configure(config).syntax(syntax).build_many(&texts);
    built.map_err(|error| match (error.syntax_error(), error.size_limit()) {
        (Some(syntax), _) => {
            syntax.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
        (None, Some(limit)) => format!("it takes more than {limit} bytes"),
        (None, None) => error.to_string(),
    })
}

impl Compiler {
    fn regex(&mut self, patterns: &[&Pattern], span: &Range<usize>) -> Option<Regex> {
        let room = if self.regex_memory > REGEX_SIZES {
            Err(format!("those of the file take more than {} MiB together", REGEX_SIZES >> 20))
        } else {
            regex(patterns)
        };
        match room {
            Ok(regex) => {
                self.regex_memory += regex.memory_usage();
                Some(regex)
            }
            Err(reason) => {
                let message = format!("the regular expression cannot be used: {reason}");
                let hint = "the syntax is that of Rust's `regex`; look-around and back references are not in it";
                self.error_with(span, message, "expected a regular expression", Some(hint.to_owned()));
                None
            }
        }
    }

    fn matcher(&mut self, pattern: &Pattern, span: &Range<usize>, binds: bool) -> Option<Matcher> {
        let regex = self.regex(&[pattern], span)?;
        let names = regex.group_info().pattern_names(regex_automata::PatternID::ZERO);
        let groups = names.enumerate().filter_map(|(group, name)| Some((group, self.scope.find(name?)?.0)));
        let groups = if binds { groups.collect() } else { Vec::new() };
        Some(Matcher { regex, source: pattern.to_string(), groups })
    }

    /// Says whether there is such an argument, and what it is.
    fn parameter(&mut self, row: &Row, name: &str, index: usize, span: &Range<usize>) -> Option<Option<Parameter>> {
        match row.args.get(index) {
            Some(parameter) => Some(Some(*parameter)),
            // Their rows stand for many requests, and do not say what each one's arguments are.
            None if row.irregular.is_some_and(syscalls::Irregular::is_many) && index < 6 => Some(None),
            None => {
                let count = row.args.len();
                self.error(span, format!("`{name}` has {count} arguments"), "expected no more than these");
                None
            }
        }
    }

    pub(super) fn pattern(&mut self, call: &Call) -> Option<CallPattern> {
        let row = self.row(&call.name)?;
        let mut args = Vec::new();
        for (index, arg) in call.args.iter().enumerate() {
            let parameter = self.parameter(row, &call.name.is, index, &arg.span)?;
            let index = index as u8;
            let memory = matches!(parameter, Some(Parameter::Mem(..)));
            let test = match &arg.is {
                Arg::Wild | Arg::Any => continue,
                Arg::Value(Expr::Name(name)) if constants::value(&name.is).is_none() && self.is_variable(name)? => {
                    let wanted = if memory { Type::Bytes } else { Type::Int };
                    let variable = self.variable(name, wanted)?;
                    if memory { ArgTest::BytesVariable(variable) } else { ArgTest::IntVariable(variable) }
                }
                Arg::Value(value) if !memory => ArgTest::Int(self.sum(value)?),
                Arg::Stored(name) if !memory => ArgTest::Stored(self.stored(name, &arg.span)?),
                Arg::Kind(kind, name) if matches!(parameter, Some(Parameter::Fd)) => ArgTest::Kind(
                    kind.clone(),
                    name.as_ref().and_then(|name| self.scope.find(name)).map(|found| found.0),
                ),
                Arg::Text(text) if memory => ArgTest::Text(self.text(text, &arg.span)?),
                Arg::Regex(pattern) if memory => ArgTest::Regex(self.matcher(pattern, &arg.span, true)?),
                Arg::Replace(_) | Arg::Lines(_) => {
                    self.error(&arg.span, "this makes a payload", "expected a pattern: it belongs on the right side");
                    return None;
                }
                _ => return self.misfit(call, index, parameter, &arg.span),
            };
            args.push((index, test));
        }
        let result = match &call.result {
            None | Some(At { is: Outcome::Wild, .. }) => None,
            Some(At { is: Outcome::Ok, .. }) => Some(ResultTest::Ok),
            Some(At { is: Outcome::Error, .. }) => Some(ResultTest::Error),
            Some(At { is: Outcome::Value(Expr::Name(name)), .. })
                if constants::value(&name.is).is_none() && self.is_variable(name)? =>
            {
                Some(ResultTest::Variable(self.variable(name, Type::Int)?))
            }
            Some(At { is: Outcome::Value(value), .. }) => Some(ResultTest::Int(self.sum(value)?)),
        };
        let reads_output = |(index, _): &(u8, ArgTest)| calls::is_filled(row, *index);
        let needs_return = result.is_some() || args.iter().any(reads_output);
        Some(CallPattern { row: Some(row), args, result, needs_return })
    }

    /// Says whether a name is a variable; `None`, and a report, when it is written like a constant that nobody knows.
    fn is_variable(&mut self, name: &At<String>) -> Option<bool> {
        if !constants::looks_like_one(&name.is) {
            return Some(true);
        }
        let hint = match nearest(&name.is, constants::names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write its number; names of variables have small letters".to_owned(),
        };
        self.error_with(
            &name.span,
            format!("`{}` is not a known constant", name.is),
            "expected a constant",
            Some(hint),
        );
        None
    }

    fn misfit<T>(&mut self, call: &Call, index: u8, parameter: Option<Parameter>, span: &Range<usize>) -> Option<T> {
        let (is, expected) = match parameter {
            Some(Parameter::Mem(..)) => ("points to bytes", "expected `_`, a string, a /regular expression/ or a name"),
            Some(Parameter::Fd) => {
                ("is a descriptor", "expected `_`, a number, a name, `$name` or a kind of descriptor")
            }
            _ => ("is a number", "expected `_`, a number, a constant or a name"),
        };
        self.error(span, format!("argument {} of `{}` {is}", index + 1, call.name.is), expected);
        None
    }

    fn stored(&mut self, name: &str, span: &Range<usize>) -> Option<usize> {
        let found = self.set.sets.iter().position(|set| set == name);
        if found.is_none() {
            self.unknown_set(span, name);
        }
        found
    }

    pub(super) fn sum(&mut self, expr: &Expr) -> Option<Sum> {
        Some(match expr {
            Expr::Number(number) => Sum::Number(*number),
            Expr::Name(name) => match constants::value(&name.is) {
                Some(value) => Sum::Number(value),
                None => {
                    self.is_variable(name)?;
                    Sum::Variable(self.variable(name, Type::Int)?)
                }
            },
            Expr::Len(name) => Sum::Len(self.variable(name, Type::Bytes)?),
            Expr::Add(left, right) => Sum::Add(Box::new(self.sum(left)?), Box::new(self.sum(right)?)),
            Expr::Sub(left, right) => Sum::Sub(Box::new(self.sum(left)?), Box::new(self.sum(right)?)),
        })
    }

    fn text(&mut self, Template(pieces): &Template, span: &Range<usize>) -> Option<Text> {
        let piece = |piece: &Piece| match piece {
            Piece::Bytes(bytes) => Some(TextPiece::Bytes(Bytes::copy_from_slice(bytes))),
            Piece::Variable(name) => match self.scope.find(name) {
                Some((variable, _)) => Some(TextPiece::Variable(variable)),
                None => {
                    self.unbound(&At { is: name.clone(), span: span.clone() });
                    None
                }
            },
        };
        // The empty string is one piece of nothing, so that it is copied from nowhere.
        let pieces: Option<Vec<TextPiece>> = pieces.iter().map(piece).collect();
        Some(Text(pieces?))
    }

    pub(super) fn condition(&mut self, condition: &Condition) -> Option<Test> {
        Some(match condition {
            Condition::Compare(left, by, right) => Test::Compare(self.sum(left)?, *by, self.sum(right)?),
            Condition::Is(name, text) => Test::Is(self.variable(name, Type::Bytes)?, self.text(text, &name.span)?),
            Condition::Matches(name, pattern) => {
                let variable = self.variable(name, Type::Bytes)?;
                Test::Matches(variable, Box::new(self.matcher(&pattern.is, &pattern.span, false)?))
            }
            Condition::Not(inner) => Test::Not(Box::new(self.condition(inner)?)),
            Condition::And(left, right) => Test::And(Box::new(self.condition(left)?), Box::new(self.condition(right)?)),
            Condition::Or(left, right) => Test::Or(Box::new(self.condition(left)?), Box::new(self.condition(right)?)),
        })
    }

    pub(super) fn right_item(&mut self, left: &Left, item: &RightItem) -> Option<Part> {
        match item {
            RightItem::Recorded(label) => Some(Part::Recorded(self.label(label)?)),
            RightItem::Call { label, call } => {
                let label = match label {
                    Some(label) => Some(self.label(label)?),
                    None => None,
                };
                let row = self.row(&call.name)?;
                let made_of_one = label.is_some() || left.mentions(&call.name.is);
                let mut args = Vec::new();
                for (index, arg) in call.args.iter().enumerate() {
                    let parameter = self.parameter(row, &call.name.is, index, &arg.span)?;
                    if let Some(give) = self.give(row, call, index as u8, parameter, arg, made_of_one)? {
                        args.push((index as u8, give));
                    }
                }
                let result = match &call.result {
                    None | Some(At { is: Outcome::Wild, .. }) => None,
                    Some(At { is: Outcome::Value(value), .. }) => Some(self.sum(value)?),
                    Some(At { span, .. }) => {
                        let message = "the follower must get one certain result";
                        self.error(span, message, "expected a number, a variable or an error such as EAGAIN");
                        return None;
                    }
                };
                Some(Part::Call(Emit { row, label, args, result }))
            }
        }
    }

    fn give(
        &mut self,
        row: &Row,
        call: &Call,
        index: u8,
        parameter: Option<Parameter>,
        arg: &At<Arg>,
        made_of_one: bool,
    ) -> Option<Option<Give>> {
        let memory = matches!(parameter, Some(Parameter::Mem(..)));
        let give = match &arg.is {
            Arg::Wild => return Some(None),
            Arg::Any => Give::Any,
            Arg::Value(Expr::Name(name)) if memory => Give::BytesVariable(self.variable(name, Type::Bytes)?),
            Arg::Value(value) if !memory => Give::Int(self.sum(value)?),
            Arg::Stored(name) if !memory => Give::Stored(self.stored(name, &arg.span)?),
            // Of a recorded call the descriptor is known.
            Arg::Kind(..) if made_of_one => return Some(None),
            Arg::Kind(kind, _) if matches!(parameter, Some(Parameter::Fd)) => Give::Kind(kind.clone()),
            Arg::Text(text) if memory => Give::Bytes(self.text(text, &arg.span)?),
            Arg::Regex(pattern) if memory && !calls::is_filled(row, index) => {
                return Some(Some(Give::Regex(Box::new(self.matcher(pattern, &arg.span, false)?))));
            }
            Arg::Regex(_) if memory => {
                let message = format!("what `{}` gives to the follower must be certain", call.name.is);
                self.error(&arg.span, message, "expected a string or `replace(…)`");
                return None;
            }
            Arg::Replace(cases) if memory => {
                if !made_of_one {
                    let message = format!("no `{}` was recorded whose bytes could be replaced", call.name.is);
                    self.error(&arg.span, message, "expected a string");
                    return None;
                }
                Give::Replace(Box::new(self.replacement(cases, &arg.span)?))
            }
            Arg::Lines(cases) if memory && calls::is_filled(row, index) && made_of_one => {
                Give::Lines(Box::new(self.replacement(cases, &arg.span)?))
            }
            Arg::Lines(_) => {
                let message = "`lines` is for what a recorded call has read";
                self.error(&arg.span, message, "expected `replace(…)` or a string");
                return None;
            }
            _ => return self.misfit(call, index, parameter, &arg.span),
        };
        if matches!(give, Give::Lines(_) | Give::Bytes(_) | Give::BytesVariable(_) | Give::Replace(_))
            && let Err(reason) = calls::can_set(row, index)
        {
            self.error(&arg.span, reason, "expected `_`");
            return None;
        }
        Some(Some(give))
    }

    fn label(&mut self, label: &At<String>) -> Option<usize> {
        let found = self.scope.label(&label.is);
        if found.is_none() {
            let near = nearest(&label.is, self.scope.labels.iter().map(String::as_str)).map(str::to_owned);
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the left side gives labels: `{}: read(…)`", label.is),
            };
            let message = format!("`{}` is not a label of the left side", label.is);
            self.error_with(&label.span, message, "expected a label, or a call with its arguments", Some(hint));
        }
        found
    }

    fn replacement(&mut self, cases: &[(Pattern, Template)], span: &Range<usize>) -> Option<Replacement> {
        let patterns: Vec<&Pattern> = cases.iter().map(|(pattern, _)| pattern).collect();
        let regex = self.regex(&patterns, span)?;
        let mut texts = Vec::new();
        for (index, (_, Template(pieces))) in cases.iter().enumerate() {
            let pattern = regex_automata::PatternID::new(index).ok()?;
            let mut text = Vec::new();
            for piece in pieces {
                text.push(match piece {
                    Piece::Bytes(bytes) => ReplacePiece::Bytes(Bytes::copy_from_slice(bytes)),
                    Piece::Variable(name) => {
                        let number = name.parse().ok().filter(|group| *group < regex.group_info().group_len(pattern));
                        let group = number.or_else(|| regex.group_info().to_index(pattern, name));
                        match (group, self.scope.find(name)) {
                            (Some(group), _) => ReplacePiece::Group(group),
                            (None, Some((variable, _))) => ReplacePiece::Variable(variable),
                            (None, None) => {
                                self.unbound(&At { is: name.clone(), span: span.clone() });
                                return None;
                            }
                        }
                    }
                });
            }
            texts.push(text);
        }
        Some(Replacement { regex, texts })
    }
}

impl Left {
    /// Says whether a call of this name is on the left side.
    fn mentions(&self, name: &str) -> bool {
        fn any(items: &[Item], name: &str) -> bool {
            items.iter().any(|item| match &item.atom.is {
                Atom::Any => true,
                Atom::Call(call) => call.name.is == name,
                Atom::Group(alternatives) => alternatives.iter().any(|items| any(items, name)),
            })
        }
        matches!(self, Left::Calls { items, .. } if any(items, name))
    }
}
