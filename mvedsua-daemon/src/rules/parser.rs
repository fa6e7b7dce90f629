//! Reads tokens into a tree. A rule that cannot be read is reported and skipped, so that one run shows the faults of all.

use std::ops::Range;

use super::ast::*;
use super::diagnostic::{Diagnostic, nearest};
use super::lexer::{self, Placed, Token};

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// How deep groups and conditions may be nested.
const DEPTH: u32 = 24;
/// How many times a counted repetition may count.
const MAX_COUNT: u32 = 64;

/// Words that mean something by themselves and cannot be variables.
const RESERVED: [&str; 23] = [
    "rule",
    "direction",
    "nothing",
    "begin",
    "any",
    "where",
    "remember",
    "forget",
    "as",
    "from",
    "and",
    "or",
    "not",
    "is",
    "matches",
    "len",
    "replace",
    "lines",
    "listener",
    "client",
    "socket",
    "pipe",
    "epoll",
];

/// Reads a whole file.
pub(super) fn parse(source: &str) -> (File, Vec<Diagnostic>) {
    let (tokens, mut errors) = lexer::tokens(source);
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let mut file = File::default();
    let mut direction = None;
    loop {
        match parser.item(&mut direction) {
            Ok(None) => break,
            Ok(Some(rule)) => file.rules.extend(rule),
            Err(error) => {
                errors.push(*error);
                parser.recover();
            }
        }
    }
    errors.sort_by_key(|error| error.span.start);
    (file, errors)
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: u32,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn peek_second(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    fn span(&self) -> Range<usize> {
        self.tokens[self.at].1.clone()
    }

    fn bump(&mut self) -> Placed {
        let token = self.tokens[self.at].clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    /// From `start` to the end of the last token that was taken.
    fn since(&self, start: usize) -> Range<usize> {
        start..self.tokens[self.at.saturating_sub(1)].1.end.max(start)
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(found) if *found == sign);
        if found {
            self.bump();
        }
        found
    }

    fn is_word(&self, wanted: &str) -> bool {
        matches!(self.peek(), Token::Word(word) if word == wanted)
    }

    fn eat_word(&mut self, wanted: &str) -> bool {
        let found = self.is_word(wanted);
        if found {
            self.bump();
        }
        found
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T> {
        Err(Box::new(Diagnostic::error(
            self.span(),
            format!("{} is not expected here", self.peek().describe()),
            format!("expected {expected}"),
        )))
    }

    fn expect(&mut self, sign: &str, expected: &str) -> Result<()> {
        if self.eat(sign) { Ok(()) } else { self.unexpected(expected) }
    }

    fn word(&mut self, expected: &str) -> Result<At<String>> {
        match self.peek().clone() {
            Token::Word(is) => Ok(At { is, span: self.bump().1 }),
            _ => self.unexpected(expected),
        }
    }

    /// Reads a name that the author chose.
    fn name(&mut self, expected: &str) -> Result<At<String>> {
        let name = self.word(expected)?;
        if RESERVED.contains(&name.is.as_str()) || name.is == "file" {
            let message = format!("`{}` is a word of the language", name.is);
            return Err(Box::new(Diagnostic::error(name.span, message, format!("expected {expected}"))));
        }
        Ok(name)
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        if self.depth == DEPTH {
            let message = format!("more than {DEPTH} levels are nested");
            return Err(Box::new(Diagnostic::error(self.span(), message, "too deep")));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Goes on to the next rule or section.
    fn recover(&mut self) {
        self.depth = 0;
        while *self.peek() != Token::End && !self.is_word("rule") && !self.is_word("direction") {
            self.bump();
        }
    }

    /// Reads a section's head, which gives no rule, or a rule; `None` is the end.
    fn item(&mut self, direction: &mut Option<Direction>) -> Result<Option<Option<Rule>>> {
        if *self.peek() == Token::End {
            return Ok(None);
        }
        if self.eat_word("direction") {
            *direction = self.direction()?;
            return Ok(Some(None));
        }
        if self.eat_word("rule") {
            return self.rule(*direction).map(|rule| Some(Some(rule)));
        }
        let Token::Word(word) = self.peek() else { return self.unexpected("`rule` or `direction`") };
        let near = nearest(word, ["rule", "direction"].into_iter());
        let error = self.unexpected::<Rule>("`rule` or `direction`");
        self.bump();
        error.map(Some).map(Some).map_err(|error| match near {
            Some(near) => Box::new(error.hint(format!("did you mean `{near}`?"))),
            None => error,
        })
    }

    fn direction(&mut self) -> Result<Option<Direction>> {
        let expected = "`outdated-leader`, `updated-leader` or `both`";
        let word = self.word(expected)?;
        match word.is.as_str() {
            "outdated-leader" => Ok(Some(Direction::OutdatedLeader)),
            "updated-leader" => Ok(Some(Direction::UpdatedLeader)),
            "both" => Ok(None),
            other => {
                let message = format!("`{other}` is not a direction");
                let error = Diagnostic::error(word.span, message, format!("expected {expected}"));
                let near = nearest(other, ["outdated-leader", "updated-leader", "both"].into_iter());
                Err(Box::new(match near {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error,
                }))
            }
        }
    }

    fn rule(&mut self, direction: Option<Direction>) -> Result<Rule> {
        let name = self.name("a name for the rule")?;
        let start = self.span().start;
        let left = self.left()?;
        let left = At { is: left, span: self.since(start) };
        self.expect("=>", "`=>`, or `,` and one more call")?;
        let start = self.span().start;
        let right = self.right()?;
        let right = At { is: right, span: self.since(start) };
        let mut clauses = Vec::new();
        loop {
            let start = self.span().start;
            if self.eat_word("where") {
                let condition = self.condition()?;
                clauses.push(Clause::Where(At { is: condition, span: self.since(start) }));
            } else if self.eat_word("remember") {
                let what = self.name("the variable to remember")?;
                if !self.eat_word("as") {
                    return self.unexpected("`as` and a name");
                }
                clauses.push(Clause::Remember(what, self.name("a name to remember it by")?.is));
            } else if self.eat_word("forget") {
                let what = self.name("the variable to forget")?;
                if !self.eat_word("from") {
                    return self.unexpected("`from` and the name that it is remembered by");
                }
                clauses.push(Clause::Forget(what, self.name("the name that it is remembered by")?.is));
            } else if matches!(self.peek(), Token::End) || self.is_word("rule") || self.is_word("direction") {
                return Ok(Rule { name, direction, left, right, clauses });
            } else {
                return self.unexpected("`where`, `remember`, `forget`, or the next `rule`");
            }
        }
    }

    fn left(&mut self) -> Result<Left> {
        if self.eat_word("nothing") {
            return Ok(Left::Nothing);
        }
        let begin = self.eat_word("begin");
        if begin {
            self.expect(",", "`,` and the calls at the beginning")?;
        }
        Ok(Left::Calls { begin, items: self.items()? })
    }

    fn items(&mut self) -> Result<Vec<Item>> {
        let mut items = vec![self.left_item()?];
        while self.eat(",") {
            items.push(self.left_item()?);
        }
        Ok(items)
    }

    fn label(&mut self) -> Result<Option<At<String>>> {
        if !matches!(self.peek(), Token::Word(_)) || !matches!(self.peek_second(), Token::Sign(":")) {
            return Ok(None);
        }
        let label = self.name("a label")?;
        self.bump();
        Ok(Some(label))
    }

    fn left_item(&mut self) -> Result<Item> {
        let label = self.label()?;
        let start = self.span().start;
        let atom = if self.eat("(") {
            let alternatives = self.deeper(|parser| {
                let mut alternatives = vec![parser.items()?];
                while parser.eat("|") {
                    alternatives.push(parser.items()?);
                }
                Ok(alternatives)
            })?;
            self.expect(")", "`)`, `,` or `|`")?;
            Atom::Group(alternatives)
        } else if self.eat_word("any") {
            Atom::Any
        } else {
            Atom::Call(self.call("a system call, `any`, a group in parentheses, or `nothing`")?)
        };
        let atom = At { is: atom, span: self.since(start) };
        Ok(Item { label, atom, repeat: self.repeat()? })
    }

    fn repeat(&mut self) -> Result<Option<Repeat>> {
        let (min, max) = if self.eat("*") {
            (0, None)
        } else if self.eat("+") {
            (1, None)
        } else if self.eat("?") {
            (0, Some(1))
        } else if self.eat("{") {
            let min = self.count()?;
            let max = if !self.eat(",") {
                Some(min)
            } else if matches!(self.peek(), Token::Number(_)) {
                Some(self.count()?)
            } else {
                None
            };
            self.expect("}", "`}`")?;
            (min, max)
        } else {
            return Ok(None);
        };
        Ok(Some(Repeat { min, max, lazy: self.eat("?") }))
    }

    fn count(&mut self) -> Result<u32> {
        match *self.peek() {
            Token::Number(count) if (0..=i64::from(MAX_COUNT)).contains(&count) => {
                self.bump();
                Ok(count as u32)
            }
            _ => self.unexpected(&format!("a count from 0 to {MAX_COUNT}")),
        }
    }

    fn call(&mut self, expected: &str) -> Result<Call> {
        let name = self.name(expected)?;
        self.expect("(", "`(` and the call's arguments")?;
        let mut args = Vec::new();
        while !self.eat(")") {
            if self.eat("..") {
                self.expect(")", "`)` after `..`")?;
                break;
            }
            let start = self.span().start;
            let arg = self.arg()?;
            args.push(At { is: arg, span: self.since(start) });
            if !self.eat(",") {
                self.expect(")", "`,` or `)`")?;
                break;
            }
        }
        let start = self.span().end;
        let result = if self.eat("=") { Some(self.outcome()?) } else { None };
        Ok(Call { name, args, result: result.map(|is| At { is, span: self.since(start) }) })
    }

    fn outcome(&mut self) -> Result<Outcome> {
        Ok(if self.eat("_") {
            Outcome::Wild
        } else if self.eat_word("ok") {
            Outcome::Ok
        } else if self.eat_word("error") {
            Outcome::Error
        } else {
            Outcome::Value(self.expr("a result: a number, an error such as EAGAIN, `ok`, `error` or a variable")?)
        })
    }

    fn arg(&mut self) -> Result<Arg> {
        match self.peek().clone() {
            Token::Sign("_") => {
                self.bump();
                Ok(Arg::Wild)
            }
            Token::Stored(name) => {
                self.bump();
                Ok(Arg::Stored(name))
            }
            Token::Text(text) => {
                self.bump();
                Ok(Arg::Text(text))
            }
            Token::Regex(pattern) => {
                self.bump();
                Ok(Arg::Regex(pattern))
            }
            Token::Word(word) => {
                let kind = match word.as_str() {
                    "any" => {
                        self.bump();
                        return Ok(Arg::Any);
                    }
                    "replace" => return self.replace().map(Arg::Replace),
                    "lines" => return self.replace().map(Arg::Lines),
                    "listener" => Kind::Listener,
                    "client" => Kind::Client,
                    "socket" => Kind::Socket,
                    "pipe" => Kind::Pipe,
                    "epoll" => Kind::Epoll,
                    "file" => Kind::File(None),
                    _ => return Ok(Arg::Value(self.expr("an argument")?)),
                };
                self.bump();
                let kind = if matches!(kind, Kind::File(_)) { Kind::File(self.path()?) } else { kind };
                let named = matches!(self.peek(), Token::Word(_));
                let name = if named { Some(self.name("a variable for the descriptor")?.is) } else { None };
                Ok(Arg::Kind(kind, name))
            }
            Token::Number(_) | Token::Sign("-") => Ok(Arg::Value(self.expr("an argument")?)),
            _ => self.unexpected(
                "an argument: `_`, `any`, a number, a name, a string, a /regular expression/, `$name` or a kind of \
                 descriptor",
            ),
        }
    }

    fn path(&mut self) -> Result<Option<String>> {
        let Token::Text(Template(pieces)) = self.peek().clone() else { return Ok(None) };
        let path = match pieces.as_slice() {
            [Piece::Bytes(path)] => String::from_utf8(path.clone()).ok(),
            _ => None,
        };
        match path {
            Some(path) => {
                self.bump();
                Ok(Some(path))
            }
            None => self.unexpected("a path without variables, in which `*` stands for anything"),
        }
    }

    fn replace(&mut self) -> Result<Vec<(Pattern, Template)>> {
        self.bump();
        self.expect("(", "`(` and what to replace")?;
        let mut cases = Vec::new();
        loop {
            let Token::Regex(pattern) = self.peek().clone() else {
                return self.unexpected("a /regular expression/ to replace");
            };
            self.bump();
            self.expect("->", "`->` and a string")?;
            let Token::Text(text) = self.peek().clone() else { return self.unexpected("a string to put there") };
            self.bump();
            cases.push((pattern, text));
            if !self.eat(",") {
                self.expect(")", "`,` and one more replacement, or `)`")?;
                return Ok(cases);
            }
        }
    }

    fn expr(&mut self, expected: &str) -> Result<Expr> {
        let mut value = self.term(expected)?;
        for _ in 0..DEPTH {
            // After a result a lone `+` repeats the call.
            let more = matches!(self.peek_second(), Token::Number(_) | Token::Word(_) | Token::Sign("-"));
            if more && self.eat("+") {
                value = Expr::Add(Box::new(value), Box::new(self.term("a number or a variable")?));
            } else if self.eat("-") {
                value = Expr::Sub(Box::new(value), Box::new(self.term("a number or a variable")?));
            } else {
                return Ok(value);
            }
        }
        self.unexpected("the end of so long a sum")
    }

    fn term(&mut self, expected: &str) -> Result<Expr> {
        if self.eat("-") {
            return match *self.peek() {
                Token::Number(number) => {
                    self.bump();
                    Ok(Expr::Number(number.wrapping_neg()))
                }
                _ => self.unexpected("a number after `-`"),
            };
        }
        match *self.peek() {
            Token::Number(number) => {
                self.bump();
                Ok(Expr::Number(number))
            }
            Token::Word(_) if self.is_word("len") => {
                self.bump();
                self.expect("(", "`(` and a variable")?;
                let name = self.name("a variable")?;
                self.expect(")", "`)`")?;
                Ok(Expr::Len(name))
            }
            Token::Word(_) => self.name(expected).map(Expr::Name),
            _ => self.unexpected(expected),
        }
    }

    fn right(&mut self) -> Result<Vec<RightItem>> {
        if self.eat_word("nothing") {
            return Ok(Vec::new());
        }
        let mut items = Vec::new();
        loop {
            let label = self.label()?;
            let is_call = matches!(self.peek_second(), Token::Sign("("));
            items.push(if label.is_some() || is_call {
                RightItem::Call { label, call: self.call("a system call")? }
            } else {
                RightItem::Recorded(self.name("a system call, a label of the left side, or `nothing`")?)
            });
            if !self.eat(",") {
                return Ok(items);
            }
        }
    }

    fn condition(&mut self) -> Result<Condition> {
        self.deeper(|parser| {
            let mut all = parser.conjunction()?;
            for _ in 0..MAX_COUNT {
                if !parser.eat_word("or") {
                    return Ok(all);
                }
                all = Condition::Or(Box::new(all), Box::new(parser.conjunction()?));
            }
            parser.unexpected("the end of so long a condition")
        })
    }

    fn conjunction(&mut self) -> Result<Condition> {
        let mut all = self.test()?;
        for _ in 0..MAX_COUNT {
            if !self.eat_word("and") {
                return Ok(all);
            }
            all = Condition::And(Box::new(all), Box::new(self.test()?));
        }
        self.unexpected("the end of so long a condition")
    }

    fn test(&mut self) -> Result<Condition> {
        if self.eat_word("not") {
            return self.deeper(|parser| parser.test().map(|inner| Condition::Not(Box::new(inner))));
        }
        if self.eat("(") {
            let inner = self.condition()?;
            self.expect(")", "`)`, `and` or `or`")?;
            return Ok(inner);
        }
        let left = self.expr("a condition on a variable")?;
        if let Expr::Name(name) = &left {
            if self.eat_word("matches") {
                let span = self.span();
                let Token::Regex(is) = self.peek().clone() else { return self.unexpected("a /regular expression/") };
                self.bump();
                return Ok(Condition::Matches(name.clone(), At { is, span }));
            }
            if self.eat_word("is") {
                let Token::Text(text) = self.peek().clone() else { return self.unexpected("a string") };
                self.bump();
                return Ok(Condition::Is(name.clone(), text));
            }
        }
        let signs = [
            ("==", Comparison::Equal),
            ("!=", Comparison::Unequal),
            ("<=", Comparison::LessEqual),
            (">=", Comparison::GreaterEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        for (sign, by) in signs {
            if self.eat(sign) {
                return Ok(Condition::Compare(left, by, self.expr("a number or a variable")?));
            }
        }
        self.unexpected("`==`, `!=`, `<`, `<=`, `>`, `>=`, `is \"…\"` or `matches /…/`")
    }
}
