//! Cuts a rules file into tokens.

use std::ops::Range;

use super::ast::{Pattern, Piece, Template};
use super::diagnostic::Diagnostic;

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A word: letters, digits, `_`, and `-` before a letter.
    Word(String),
    /// `$name`.
    Stored(String),
    Number(i64),
    Text(Template),
    Regex(Pattern),
    /// One of `( ) { } , : | * + ? _ = != < > <= >= == => -> - ..`.
    Sign(&'static str),
    End,
}

impl Token {
    /// Names the token for a message.
    pub(super) fn describe(&self) -> String {
        match self {
            Token::Word(word) => format!("`{word}`"),
            Token::Stored(name) => format!("`${name}`"),
            Token::Number(number) => format!("the number {number}"),
            Token::Text(_) => "a string".to_owned(),
            Token::Regex(_) => "a regular expression".to_owned(),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end of the file".to_owned(),
        }
    }
}

/// Longest first.
const SIGNS: [&str; 22] = [
    "=>", "->", "==", "!=", "<=", ">=", "..", "(", ")", "{", "}", ",", ":", "|", "*", "+", "?", "_", "=", "<", ">", "-",
];

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

/// A token and where it stands.
pub(super) type Placed = (Token, Range<usize>);

/// Cuts the whole file; what cannot be read is reported and left out.
pub(super) fn tokens(source: &str) -> (Vec<Placed>, Vec<Diagnostic>) {
    let mut lexer = Lexer { source, at: 0 };
    let (mut tokens, mut errors) = (Vec::new(), Vec::new());
    loop {
        lexer.skip_blank();
        let start = lexer.at;
        match lexer.token() {
            Ok(token) => {
                let end = token == Token::End;
                tokens.push((token, start..lexer.at));
                if end {
                    return (tokens, errors);
                }
            }
            Err(error) => errors.push(*error),
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            if !self.rest().starts_with('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn error(&self, start: usize, message: impl Into<String>, label: &str) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(start..self.at.max(start + 1), message, label))
    }

    fn token(&mut self) -> Result<Token, Box<Diagnostic>> {
        let start = self.at;
        let Some(c) = self.peek() else { return Ok(Token::End) };
        match c {
            '"' => self.text().map(Token::Text),
            '/' => self.regex().map(Token::Regex),
            '0'..='9' => self.number(),
            '$' => {
                self.at += 1;
                let name = self.word();
                if name.is_empty() {
                    return Err(self.error(start, "a lone `$`", "expected a name, as in `$log`"));
                }
                Ok(Token::Stored(name))
            }
            '_' if !self.rest()[1..].starts_with(is_word) => {
                self.at += 1;
                Ok(Token::Sign("_"))
            }
            c if c.is_ascii_alphabetic() || c == '_' => Ok(Token::Word(self.word())),
            _ => match SIGNS.iter().find(|sign| self.rest().starts_with(**sign)) {
                Some(sign) => {
                    self.at += sign.len();
                    Ok(Token::Sign(sign))
                }
                None => {
                    self.next();
                    Err(self.error(start, format!("`{}` means nothing here", c.escape_default()), "cannot be read"))
                }
            },
        }
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while let Some(c) = self.peek() {
            let joins = c == '-' && self.rest()[1..].starts_with(|c: char| c.is_ascii_alphabetic());
            if !(is_word(c) || joins && self.at > start) {
                break;
            }
            self.at += 1;
        }
        self.source[start..self.at].to_owned()
    }

    fn number(&mut self) -> Result<Token, Box<Diagnostic>> {
        let start = self.at;
        while self.peek().is_some_and(is_word) {
            self.at += 1;
        }
        let text = &self.source[start..self.at];
        let value = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(text, 8).ok(),
            None => text.parse::<u64>().ok(),
        };
        let label = "expected a decimal, octal (0…) or hexadecimal (0x…) number of 64 bits";
        value
            .map(|value| Token::Number(value as i64))
            .ok_or_else(|| self.error(start, format!("`{text}` is not a number"), label))
    }

    fn text(&mut self) -> Result<Template, Box<Diagnostic>> {
        let start = self.at;
        self.at += 1;
        let (mut pieces, mut bytes) = (Vec::new(), Vec::new());
        loop {
            let here = self.at;
            match self.next() {
                None | Some('\n') => {
                    self.at = here;
                    let error = self.error(start, "a string without an end", "it begins here");
                    return Err(Box::new(error.hint("close it with `\"`; a line break is written `\\n`")));
                }
                Some('"') => break,
                Some('\\') => bytes.push(self.escape(here)?),
                Some('{') => {
                    let end = self.rest().find(['}', '"', '\n']).filter(|at| self.rest()[*at..].starts_with('}'));
                    let name = end.map(|end| self.rest()[..end].to_owned()).unwrap_or_default();
                    if name.is_empty() || !name.chars().all(|c| is_word(c) || c == '-') {
                        let error = self.error(here, "`{` opens the name of a variable", "expected `{name}`");
                        return Err(Box::new(error.hint("a brace itself is written `\\{`")));
                    }
                    self.at += name.len() + 1;
                    if !bytes.is_empty() {
                        pieces.push(Piece::Bytes(std::mem::take(&mut bytes)));
                    }
                    pieces.push(Piece::Variable(name));
                }
                Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !bytes.is_empty() {
            pieces.push(Piece::Bytes(bytes));
        }
        Ok(Template(pieces))
    }

    fn escape(&mut self, start: usize) -> Result<u8, Box<Diagnostic>> {
        let label = "expected \\n \\r \\t \\0 \\\\ \\\" \\{ \\} or \\xNN";
        Ok(match self.next() {
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('0') => 0,
            Some(c @ ('\\' | '"' | '{' | '}')) => c as u8,
            Some('x') => {
                let hex = self.rest().get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
                let byte = hex.ok_or_else(|| self.error(start, "a byte has two hexadecimal digits", label))?;
                self.at += 2;
                byte
            }
            _ => return Err(self.error(start, "an unknown escape", label)),
        })
    }

    fn regex(&mut self) -> Result<Pattern, Box<Diagnostic>> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let here = self.at;
            match self.next() {
                None | Some('\n') => {
                    self.at = here;
                    let error = self.error(start, "a regular expression without an end", "it begins here");
                    return Err(Box::new(error.hint("close it with `/`; a slash inside is written `\\/`")));
                }
                Some('/') => break,
                Some('\\') if self.peek() == Some('/') => {
                    self.at += 1;
                    text.push('/');
                }
                Some('\\') => {
                    text.push('\\');
                    if let Some(c) = self.peek().filter(|c| *c != '\n') {
                        self.at += c.len_utf8();
                        text.push(c);
                    }
                }
                Some(c) => text.push(c),
            }
        }
        let flags_at = self.at;
        let mut flags = String::new();
        while let Some(c) = self.peek().filter(char::is_ascii_alphabetic) {
            if !"imsx".contains(c) {
                self.at += 1;
                return Err(self.error(flags_at, format!("`{c}` is not a flag"), "expected i, m, s or x"));
            }
            flags.push(c);
            self.at += 1;
        }
        Ok(Pattern { text, flags })
    }
}
