//! Writes a tree as a rules file.

use std::fmt::{self, Display, Formatter};

use super::ast::*;

impl Display for File {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut section = None;
        for rule in &self.rules {
            if section != Some(rule.direction) {
                section = Some(rule.direction);
                writeln!(f, "direction {}\n", rule.direction.map_or("both", Direction::word))?;
            }
            writeln!(f, "{rule}")?;
        }
        Ok(())
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}\n    {}\n => ", self.name.is, self.left.is)?;
        match self.right.is.as_slice() {
            [] => writeln!(f, "nothing")?,
            items => {
                joined(f, items, ", ")?;
                writeln!(f)?;
            }
        }
        for clause in &self.clauses {
            match clause {
                Clause::Where(condition) => writeln!(f, "    where {}", condition.is)?,
                Clause::Remember(what, set) => writeln!(f, "    remember {} as {set}", what.is)?,
                Clause::Forget(what, set) => writeln!(f, "    forget {} from {set}", what.is)?,
            }
        }
        Ok(())
    }
}

fn joined<T: Display>(f: &mut Formatter<'_>, items: &[T], between: &str) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if i == 0 { "" } else { between })?;
    }
    Ok(())
}

impl Display for Left {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Left::Nothing => f.write_str("nothing"),
            Left::Calls { begin, items } => {
                f.write_str(if *begin { "begin, " } else { "" })?;
                joined(f, items, ", ")
            }
        }
    }
}

impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(label) = &self.label {
            write!(f, "{}: ", label.is)?;
        }
        match &self.atom.is {
            Atom::Any => f.write_str("any")?,
            Atom::Call(call) => write!(f, "{call}")?,
            Atom::Group(alternatives) => {
                f.write_str("(")?;
                for (i, items) in alternatives.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { " | " })?;
                    joined(f, items, ", ")?;
                }
                f.write_str(")")?;
            }
        }
        if let Some(repeat) = self.repeat {
            match (repeat.min, repeat.max) {
                (0, None) => f.write_str("*")?,
                (1, None) => f.write_str("+")?,
                (0, Some(1)) => f.write_str("?")?,
                (min, None) => write!(f, "{{{min},}}")?,
                (min, Some(max)) => write!(f, "{{{min},{max}}}")?,
            }
            f.write_str(if repeat.lazy { "?" } else { "" })?;
        }
        Ok(())
    }
}

impl Display for RightItem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            RightItem::Recorded(label) => f.write_str(&label.is),
            RightItem::Call { label: None, call } => write!(f, "{call}"),
            RightItem::Call { label: Some(label), call } => write!(f, "{}: {call}", label.is),
        }
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name.is)?;
        for (i, arg) in self.args.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, arg.is)?;
        }
        f.write_str(")")?;
        match self.result.as_ref().map(|result| &result.is) {
            None => Ok(()),
            Some(Outcome::Wild) => f.write_str(" = _"),
            Some(Outcome::Ok) => f.write_str(" = ok"),
            Some(Outcome::Error) => f.write_str(" = error"),
            Some(Outcome::Value(value)) => write!(f, " = {value}"),
        }
    }
}

impl Display for Arg {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Arg::Wild => f.write_str("_"),
            Arg::Any => f.write_str("any"),
            Arg::Value(value) => write!(f, "{value}"),
            Arg::Stored(name) => write!(f, "${name}"),
            Arg::Kind(kind, name) => {
                write!(f, "{kind}")?;
                name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))
            }
            Arg::Text(text) => write!(f, "{text}"),
            Arg::Regex(pattern) => write!(f, "{pattern}"),
            Arg::Replace(cases) | Arg::Lines(cases) => {
                f.write_str(if matches!(self, Arg::Lines(_)) { "lines(" } else { "replace(" })?;
                for (i, (pattern, text)) in cases.iter().enumerate() {
                    write!(f, "{}{pattern} -> {text}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
        }
    }
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Listener => f.write_str("listener"),
            Kind::Client => f.write_str("client"),
            Kind::Socket => f.write_str("socket"),
            Kind::Pipe => f.write_str("pipe"),
            Kind::Epoll => f.write_str("epoll"),
            Kind::File(None) => f.write_str("file"),
            Kind::File(Some(path)) => {
                write!(f, "file {}", Template(vec![Piece::Bytes(path.clone().into_bytes())]))
            }
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Number(number) => write!(f, "{number}"),
            Expr::Name(name) => f.write_str(&name.is),
            Expr::Len(name) => write!(f, "len({})", name.is),
            // Chains lean to the left; a right operand in parentheses cannot be written, so there is none.
            Expr::Add(left, right) => write!(f, "{left} + {right}"),
            Expr::Sub(left, right) => write!(f, "{left} - {right}"),
        }
    }
}

impl Display for Template {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for piece in &self.0 {
            match piece {
                Piece::Variable(name) => write!(f, "{{{name}}}")?,
                Piece::Bytes(bytes) => bytes.iter().try_for_each(|byte| match byte {
                    b'\n' => f.write_str("\\n"),
                    b'\r' => f.write_str("\\r"),
                    b'\t' => f.write_str("\\t"),
                    b'\\' | b'"' | b'{' | b'}' => write!(f, "\\{}", *byte as char),
                    b' '..=b'~' => write!(f, "{}", *byte as char),
                    byte => write!(f, "\\x{byte:02x}"),
                })?,
            }
        }
        f.write_str("\"")
    }
}

impl Display for Pattern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("/")?;
        let mut escaped = false;
        for c in self.text.chars() {
            if c == '/' && !escaped {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
            escaped = c == '\\' && !escaped;
        }
        write!(f, "/{}", self.flags)
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Compare(left, by, right) => write!(f, "{left} {} {right}", by.sign()),
            Condition::Is(name, text) => write!(f, "{} is {text}", name.is),
            Condition::Matches(name, pattern) => write!(f, "{} matches {}", name.is, pattern.is),
            Condition::Not(inner) => write!(f, "not ({inner})"),
            Condition::And(left, right) => write!(f, "({left}) and ({right})"),
            Condition::Or(left, right) => write!(f, "({left}) or ({right})"),
        }
    }
}

impl Comparison {
    /// Returns the sign that stands for it.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Comparison::Equal => "==",
            Comparison::Unequal => "!=",
            Comparison::Less => "<",
            Comparison::LessEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterEqual => ">=",
        }
    }
}
